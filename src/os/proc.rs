//! Reads what `/proc` says of one process. It never signals, waits for or changes a process, and
//! never decides what the facts mean.
//!
//! What only the owner of a process may see is read with the owner's rights where ours do not do: the
//! root of a container may become any user and look into no process, for want of `CAP_SYS_PTRACE`.
//!
//! Every answer is about a moment that has passed: the process may be gone when it is read, and its
//! pid may be another's later. Who acts on an answer holds a pidfd, or compares the start time.
//! A process that has gone is an ordinary answer (`None`, an empty list, `NotFound`, `ESRCH`).
//!
//! The numbers in `/proc` are those of the namespace that it was mounted in, see
//! pid_namespaces(7). Where that is not ours they name other processes, or none, so nothing is read
//! of any: all of them have gone, as far as this tells. [`view`] says how it is.

use super::rights::{self, CAP_SETUID, Capabilities, Rights};
use super::sys;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Gid, Pid, Uid, geteuid, getpgid, getsid};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;

/// How many descendants of one process are listed at most: beyond any worker that was seen, and
/// cheap enough (about 4 us each) that a fork bomb cannot stop the loop for long.
pub const DESCENDANTS_MAX: usize = 4096;

/// How many threads of one process are listed at most.
pub const THREADS_MAX: usize = 1024;

/// How much of an environment is read at most. The kernel allows arguments and environment together
/// a quarter of the stack limit, usually 2 MiB, and real ones are a few KiB.
const ENVIRONMENT_MAX: u64 = 1 << 20;

/// How much of a small file is read at most. `stat` is the longest that is read whole, below 1 KiB.
const SMALL_MAX: u64 = 4096;

/// How much of `/proc/meminfo` is read at most: it is below 2 KiB.
const MEMINFO_MAX: u64 = 1 << 14;

/// How much of the list of a process's cgroups is read at most: a path of the greatest length for
/// each of a dozen hierarchies.
const CGROUPS_MAX: u64 = 1 << 16;

/// How much of one thread's list of children is read at most: the longest that
/// [`DESCENDANTS_MAX`] pids of 10 digits can make.
const CHILDREN_MAX: u64 = 11 * DESCENDANTS_MAX as u64;

/// Whose processes `/proc` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Those of our namespace.
    Ours,
    /// Those of another namespace.
    Foreign,
    /// None: it is not mounted.
    Missing,
}

/// Whose processes `/proc` shows, as found at the first call.
#[must_use]
pub fn view() -> View {
    static VIEW: OnceLock<View> = OnceLock::new();
    *VIEW.get_or_init(|| view_by(fs::read_link("/proc/self").ok().as_deref(), Pid::this()))
}

/// Whether `/proc` shows the processes of our namespace.
#[must_use]
pub fn shows_us() -> bool {
    view() == View::Ours
}

fn view_by(own_link: Option<&Path>, own: Pid) -> View {
    match own_link {
        Some(link) if link.as_os_str() == own.to_string().as_str() => View::Ours,
        Some(_) => View::Foreign,
        None => View::Missing,
    }
}

/// What `/proc/PID/stat` says, as far as it matters here; see `proc_pid_stat(5)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// One letter: `R` running, `S` sleeping, `T` stopped, `Z` zombie, `X` dead, and others.
    pub state: char,
    /// The parent.
    pub ppid: Pid,
    /// The process group.
    pub pgrp: Pid,
    /// The session. Its number cannot be given to another process while anyone is in it.
    pub session: Pid,
    /// How many threads there are, the first one counted even when it has ended.
    pub threads: u32,
    /// When the process started, in clock ticks since boot: with the pid, it names a process.
    pub start_time: u64,
}

impl Stat {
    /// Whether anything of it still runs. A process whose first thread has ended shows `Z` too,
    /// while its other threads go on.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x') || self.threads > 1
    }
}

/// What `/proc/PID/stat` says of the process, or nothing when it has gone. Of a child that is hidden
/// from us it is what system calls say, the number of its threads and its start apart.
#[must_use]
pub fn stat(pid: Pid) -> Option<Stat> {
    match read_of(pid, "stat", SMALL_MAX) {
        Ok(text) => parse_stat(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => stat_of_hidden(pid),
        Err(_) => None,
    }
}

/// Whether a process is a live child of ours that `/proc` does not show: mounted with `hidepid`,
/// proc(5), it shows those only that we could look into.
#[must_use]
pub fn is_hidden(pid: Pid) -> bool {
    shows_us() && !Path::new(&format!("/proc/{pid}")).exists() && is_running_child(pid)
}

/// A child keeps its number until we reap it, so that alone names it: its start is left at 0.
fn stat_of_hidden(pid: Pid) -> Option<Stat> {
    if !is_hidden(pid) {
        return None;
    }
    let (pgrp, session) = (getpgid(Some(pid)).ok()?, getsid(Some(pid)).ok()?);
    Some(Stat { state: 'S', ppid: Pid::this(), pgrp, session, threads: 1, start_time: 0 })
}

fn is_running_child(pid: Pid) -> bool {
    let only_look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::Pid(pid), only_look) == Ok(WaitStatus::StillAlive)
}

/// The direct children of all threads of a process, zombies included.
///
/// They come from `/proc/PID/task/TID/children`, `proc_tid_children(5)`, or, on a kernel without
/// that file, from one pass over `/proc/*/stat`. A child that starts or ends meanwhile may be
/// missed together with a neighbour: who must have all of them asks until nothing is added.
#[must_use]
pub fn children(pid: Pid) -> Vec<Pid> {
    match listed_children(pid) {
        Listed::Children(found) => found,
        Listed::NoSuchFile => children_by_parent().remove(&pid).unwrap_or_default(),
    }
}

/// All descendants of a process, nearest first, each once, without the process itself; at most
/// [`DESCENDANTS_MAX`].
#[must_use]
pub fn descendants(root: Pid) -> Vec<Pid> {
    let mut by_parent = None;
    breadth_first(root, |pid| match &by_parent {
        None => match listed_children(pid) {
            Listed::Children(found) => found,
            Listed::NoSuchFile => {
                by_parent.insert(children_by_parent()).get(&pid).cloned().unwrap_or_default()
            }
        },
        Some(map) => map.get(&pid).cloned().unwrap_or_default(),
    })
}

/// The threads of a process, at most [`THREADS_MAX`].
///
/// # Errors
/// The process has gone, or `/proc` does not show it to us.
pub fn threads(pid: Pid) -> io::Result<Vec<Pid>> {
    if !shows_us() {
        return Err(io::ErrorKind::NotFound.into());
    }
    numbered_entries(format!("/proc/{pid}/task"), THREADS_MAX)
}

/// The value of a variable in the environment that the process was *started* with: what it set or
/// removed since is not seen, and a program that writes its title over it leaves nothing to find.
///
/// # Errors
/// The process has gone, or we may not read it (`PTRACE_MODE_READ`, see ptrace(2)).
pub fn environment_value(pid: Pid, key: &str) -> io::Result<Option<Vec<u8>>> {
    let environment = environment(pid)?;
    Ok(value_in_environment(&environment, key).map(<[u8]>::to_vec))
}

/// How much memory a process has, in pages, see proc_pid_statm(5). Anybody may read it.
///
/// # Errors
/// The process has gone.
pub fn statm(pid: Pid) -> io::Result<Vec<u8>> {
    read_of(pid, "statm", SMALL_MAX)
}

/// What a process's memory adds up to, see proc_pid_smaps_rollup(5). Its owner may read it.
///
/// # Errors
/// The process has gone, or we may not read it.
pub fn smaps_rollup(pid: Pid) -> io::Result<Vec<u8>> {
    read_of(pid, "smaps_rollup", SMALL_MAX)
}

/// What the memory of the machine adds up to, see proc_meminfo(5).
///
/// # Errors
/// `/proc` is not there.
pub fn meminfo() -> io::Result<Vec<u8>> {
    read_bounded("/proc/meminfo", MEMINFO_MAX)
}

/// The environment that the process was started with, as `KEY=value` strings that end in NUL; the
/// first MiB of it. To read more than one value from it, use [`value_in_environment`].
///
/// Empty for a zombie, and for some microseconds in the midst of an exec, when the program has its
/// memory and nothing in it yet. A spawn that waits as vfork(2) does returns at the beginning of
/// that time: who finds nothing in a process that has just started asks again.
///
/// # Errors
/// As for [`environment_value`].
pub fn environment(pid: Pid) -> io::Result<Vec<u8>> {
    as_owner(pid, || read_of(pid, "environ", ENVIRONMENT_MAX))
}

/// The first value of a variable in the bytes of an environment.
#[must_use]
pub fn value_in_environment<'a>(environment: &'a [u8], key: &str) -> Option<&'a [u8]> {
    environment
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(key.as_bytes())?.strip_prefix(b"="))
}

/// The name of the process as `ps` shows it: at most 15 bytes, and its own to change.
///
/// # Errors
/// The process has gone.
pub fn comm(pid: Pid) -> io::Result<String> {
    let name = read_of(pid, "comm", SMALL_MAX)?;
    Ok(String::from_utf8_lossy(name.trim_ascii_end()).into_owned())
}

/// The file name of the executable, without directory and without the ` (deleted)` that the kernel
/// adds when the file has been replaced.
///
/// # Errors
/// The process has gone, has no executable (a kernel thread), or we may not read it.
pub fn exe_name(pid: Pid) -> io::Result<String> {
    if !shows_us() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let target = as_owner(pid, || fs::read_link(format!("/proc/{pid}/exe")))?;
    Ok(name_of_executable(&target))
}

/// The auxiliary vector, getauxval(3), as the kernel wrote it at exec. Every exec makes another
/// (addresses are chosen at random), and a fork keeps it: two processes with equal bytes run the
/// same program without an exec between them. Empty for a zombie and in the midst of an exec, as
/// for [`environment`].
///
/// # Errors
/// The process has gone, or we may not read it.
pub fn auxv(pid: Pid) -> io::Result<Vec<u8>> {
    let mut bytes = as_owner(pid, || read_of(pid, "auxv", SMALL_MAX))?;
    // The kernel shows the terminating pair alone until it has written the others.
    if bytes.iter().all(|byte| *byte == 0) {
        bytes.clear();
    }
    Ok(bytes)
}

/// Reads something of a process, and once more with the rights of its owner if it is refused.
///
/// The owner is that of its directory in `/proc`: for a process whose memory nobody may look at, see
/// `PR_SET_DUMPABLE` in prctl(2), it is root, and that remains refused.
///
/// # Errors
/// What reading says, the first time where the second is not possible.
pub fn as_owner<T: Send>(pid: Pid, read: impl Fn() -> io::Result<T> + Sync) -> io::Result<T> {
    match read() {
        Err(refused) if refused.kind() == io::ErrorKind::PermissionDenied => {
            let Some((user, group)) = other_owner(pid) else {
                return Err(refused);
            };
            let capabilities = Capabilities::None;
            let rights = Rights { user, group, groups: None, capabilities };
            rights::with(rights, &read).unwrap_or(Err(refused))
        }
        answer => answer,
    }
}

/// Who owns a process, if it is somebody else whom we can become.
fn other_owner(pid: Pid) -> Option<(Uid, Gid)> {
    let directory = fs::metadata(format!("/proc/{pid}")).ok()?;
    let user = Uid::from_raw(directory.uid());
    (user != geteuid() && sys::has_capability(CAP_SETUID))
        .then(|| (user, Gid::from_raw(directory.gid())))
}

/// The cgroups of the process, a line each hierarchy, see cgroups(7). A zombie's are still shown.
///
/// # Errors
/// The process has gone.
pub fn cgroups(pid: Pid) -> io::Result<Vec<u8>> {
    read_of(pid, "cgroup", CGROUPS_MAX)
}

/// At most `max` bytes of a file in `/proc`, whose length is not known beforehand.
///
/// # Errors
/// What opening and reading say.
pub fn read_bounded(path: impl AsRef<Path>, max: u64) -> io::Result<Vec<u8>> {
    // With room from the start, a short file costs one read and one more that finds its end.
    let mut bytes = Vec::with_capacity(1024);
    File::open(path)?.take(max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The entries of a directory that are numbers, such as pids and descriptors; at most `max`.
///
/// # Errors
/// The directory cannot be listed.
pub fn numbered_entries(path: impl AsRef<Path>, max: usize) -> io::Result<Vec<Pid>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(path)? {
        if numbers.len() == max {
            break;
        }
        if let Some(number) = number(&entry?.file_name()) {
            numbers.push(Pid::from_raw(number));
        }
    }
    Ok(numbers)
}

/// Reads the text of `/proc/PID/stat`, `proc_pid_stat(5)`. The name stands between the first `(`
/// and the last `)`, and may hold both, spaces and newlines.
#[must_use]
pub fn parse_stat(text: &[u8]) -> Option<Stat> {
    let name_end = text.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&text[name_end + 1..]).ok()?;
    // The first of these is field 3 of the manual.
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3);
    let pid = |number: usize| Some(Pid::from_raw(field(number)?.parse().ok()?));
    Some(Stat {
        state: field(3)?.chars().next()?,
        ppid: pid(4)?,
        pgrp: pid(5)?,
        session: pid(6)?,
        threads: field(20)?.parse().ok()?,
        start_time: field(22)?.parse().ok()?,
    })
}

/// Reads a list of pids with spaces between them, as in `/proc/PID/task/TID/children`.
#[must_use]
pub fn parse_children(text: &[u8]) -> Vec<Pid> {
    String::from_utf8_lossy(text)
        .split_ascii_whitespace()
        .filter_map(|word| word.parse().ok())
        .map(Pid::from_raw)
        .collect()
}

/// A file of one process.
fn read_of(pid: Pid, file: &str, max: u64) -> io::Result<Vec<u8>> {
    if !shows_us() {
        return Err(io::ErrorKind::NotFound.into());
    }
    read_bounded(format!("/proc/{pid}/{file}"), max)
}

/// What the kernel's own lists of children gave.
enum Listed {
    /// The children; none also when the process has gone.
    Children(Vec<Pid>),
    /// The kernel was built without `CONFIG_PROC_CHILDREN`.
    NoSuchFile,
}

fn listed_children(pid: Pid) -> Listed {
    let mut found = Vec::new();
    let mut read = 0;
    let mut missing = 0;
    for thread in threads(pid).unwrap_or_default() {
        match read_bounded(format!("/proc/{pid}/task/{thread}/children"), CHILDREN_MAX) {
            Ok(text) => {
                read += 1;
                found.extend(parse_children(&text));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing += 1,
            Err(_) => {}
        }
    }
    // A thread that ended meanwhile has no file either. Our own first thread cannot have ended, so
    // it tells a kernel without the file from a process that has gone.
    let own = || format!("/proc/self/task/{}/children", Pid::this());
    if read == 0 && missing > 0 && !Path::new(&own()).exists() {
        Listed::NoSuchFile
    } else {
        Listed::Children(found)
    }
}

fn children_by_parent() -> BTreeMap<Pid, Vec<Pid>> {
    let mut map: BTreeMap<Pid, Vec<Pid>> = BTreeMap::new();
    if !shows_us() {
        return map;
    }
    // The kernel's own limit of pids, PID_MAX_LIMIT.
    for pid in numbered_entries("/proc", 1 << 22).unwrap_or_default() {
        if let Some(stat) = stat(pid) {
            map.entry(stat.ppid).or_default().push(pid);
        }
    }
    map
}

fn breadth_first(root: Pid, mut children: impl FnMut(Pid) -> Vec<Pid>) -> Vec<Pid> {
    let mut known = BTreeSet::from([root]);
    let mut order = Vec::new();
    let mut next = VecDeque::from([root]);
    while let Some(pid) = next.pop_front() {
        for child in children(pid) {
            if order.len() == DESCENDANTS_MAX {
                return order;
            }
            if known.insert(child) {
                order.push(child);
                next.push_back(child);
            }
        }
    }
    order
}

fn name_of_executable(target: &Path) -> String {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    name.strip_suffix(" (deleted)").unwrap_or(&name).to_owned()
}

fn number(name: &OsStr) -> Option<i32> {
    name.to_str()?.parse().ok()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "they start real processes and wait for them")]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    #[test]
    fn proc_is_ours_when_it_has_our_number() {
        let own = Pid::from_raw(12);
        assert_eq!(view_by(Some(Path::new("12")), own), View::Ours);
        assert_eq!(view_by(Some(Path::new("123")), own), View::Foreign);
        assert_eq!(view_by(None, own), View::Missing);
        assert_eq!(view(), View::Ours);
    }

    #[test]
    fn stat_is_read_whatever_the_name_is() {
        for name in ["sh", "a b", "x) R 1 2 3", "((", ")", "new\nline"] {
            let text = format!(
                "42 ({name}) S 7 8 9 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 3 0 123456 999 1 184467\n"
            );
            let expected = Stat {
                state: 'S',
                ppid: Pid::from_raw(7),
                pgrp: Pid::from_raw(8),
                session: Pid::from_raw(9),
                threads: 3,
                start_time: 123_456,
            };
            assert_eq!(parse_stat(text.as_bytes()), Some(expected), "{name:?}");
        }
    }

    #[test]
    fn cut_or_foreign_stat_is_nothing() {
        for text in ["", "1", "1 (sh", "1 (sh) S 2 3", "1 (sh) S a b c", "1 (sh) "] {
            assert_eq!(parse_stat(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn a_zombie_is_live_only_while_other_threads_run() {
        let stat = |state, threads| {
            let pid = Pid::from_raw(1);
            Stat { state, ppid: pid, pgrp: pid, session: pid, threads, start_time: 1 }.is_live()
        };
        assert!(stat('S', 1) && stat('T', 1) && stat('Z', 2));
        assert!(!stat('Z', 1) && !stat('X', 1));
    }

    #[test]
    fn values_are_found_by_their_whole_name() {
        let environment = b"AB=1\0A=2=3\0EMPTY=\0A=4\0NAKED\0";
        assert_eq!(value_in_environment(environment, "A"), Some(&b"2=3"[..]));
        assert_eq!(value_in_environment(environment, "AB"), Some(&b"1"[..]));
        assert_eq!(value_in_environment(environment, "EMPTY"), Some(&b""[..]));
        assert_eq!(value_in_environment(environment, "NAKED"), None);
        assert_eq!(value_in_environment(b"", "A"), None);
    }

    #[test]
    fn names_of_executables_lose_directory_and_mark() {
        assert_eq!(name_of_executable(Path::new("/usr/bin/python3.11")), "python3.11");
        assert_eq!(name_of_executable(Path::new("/srv/app (deleted)")), "app");
    }

    #[test]
    fn descendants_are_bounded_and_each_is_named_once() {
        let endless = |pid: Pid| vec![pid, Pid::from_raw(pid.as_raw() + 1), Pid::from_raw(1)];
        let found = breadth_first(Pid::from_raw(1), endless);
        assert_eq!(found.len(), DESCENDANTS_MAX);
        assert_eq!(found[0], Pid::from_raw(2));
        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), DESCENDANTS_MAX);
    }

    #[test]
    fn a_process_of_ours_is_read() {
        let child = cat();
        until("it has been started", || {
            !environment(child.pid()).expect("ours to read").is_empty()
                && !auxv(child.pid()).expect("ours to read").is_empty()
                && comm(child.pid()).expect("it lives") == "cat"
        });
        let stat = stat(child.pid()).expect("it lives");
        assert_eq!(stat.ppid, Pid::this());
        assert!(stat.is_live() && stat.start_time > 0);
        let value = environment_value(child.pid(), "PROC_TEST").expect("ours to read");
        assert_eq!(value.as_deref(), Some(&b"a b=c"[..]));
        assert_eq!(environment_value(child.pid(), "PROC").expect("ours to read"), None);
        assert!(!exe_name(child.pid()).expect("it lives").is_empty());
        let own = auxv(Pid::this()).expect("ours to read");
        assert!(!own.is_empty());
        assert_ne!(own, auxv(child.pid()).expect("ours to read"));
    }

    #[test]
    fn children_of_every_thread_are_found_by_both_ways() {
        let child = cat();
        let other = thread::spawn(cat).join().expect("the thread ends");
        let mut lists = [children(Pid::this()), descendants(Pid::this()), Vec::new()];
        lists[2] = children_by_parent().remove(&Pid::this()).unwrap_or_default();
        for list in lists {
            assert!(list.contains(&child.pid()) && list.contains(&other.pid()), "{list:?}");
            assert!(!list.contains(&Pid::this()));
        }
        assert_eq!(children(child.pid()), []);
    }

    #[test]
    fn what_has_gone_is_an_ordinary_answer() {
        let gone = {
            let child = cat();
            child.pid()
        };
        assert_eq!(stat(gone), None);
        assert_eq!(children(gone), []);
        assert_eq!(descendants(gone), []);
        let kind = |error: io::Error| error.kind();
        assert_eq!(comm(gone).map_err(kind), Err(io::ErrorKind::NotFound));
        assert_eq!(auxv(gone).map_err(kind), Err(io::ErrorKind::NotFound));
    }

    fn until(what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !condition() {
            assert!(Instant::now() < deadline, "after 30 s: not true that {what}");
            thread::yield_now();
        }
    }

    /// A child that waits for the end of its input; killed and reaped on drop.
    struct Cat(Child);

    fn cat() -> Cat {
        let mut command = Command::new("cat");
        command.env("PROC_TEST", "a b=c").stdin(Stdio::piped());
        Cat(command.spawn().expect("cat is everywhere"))
    }

    impl Cat {
        fn pid(&self) -> Pid {
            Pid::from_raw(i32::try_from(self.0.id()).expect("a pid is small"))
        }
    }

    impl Drop for Cat {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}
