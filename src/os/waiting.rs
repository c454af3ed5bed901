//! Looks whether somebody in a worker's tree waits on one of its listening sockets, which is
//! evidence of readiness without the program's help. It never asks the worker anything, never
//! waits, and changes nothing: all is read from `/proc`.
//!
//! Evidence is, for a process that holds the socket as a descriptor:
//! * an epoll instance of its own that has the socket registered for reading, in whatever mode
//!   (level, edge, exclusive, one-shot) and whether or not anybody is in `epoll_wait` right then: a
//!   registration lasts, and a busy event loop comes back to it. A one-shot registration that has
//!   fired is shown without its events; until it is armed again it is no evidence;
//! * a thread blocked in accept, accept4, recvfrom, recvmsg or recvmmsg on it, or in poll, ppoll,
//!   select or pselect6 with it in the set;
//! * a request of an `io_uring` of its own that waits to accept or to poll. The kernel does not say
//!   on which descriptor; that the process holds the socket must do.
//!
//! `listen` alone is not evidence: a worker may listen long before it accepts. A thread that runs
//! at the moment of the look shows no call, so a look that saw nothing says "not at this moment",
//! and who waits for readiness looks again.
//!
//! What it costs, measured on one core at 2.6 GHz: 8 us for a python that holds the socket and is
//! not ready (5 descriptors, one thread), 37 us for such a node (19 descriptors, 7 threads), 25 us
//! for a node server that is ready, 22 us for a shell and the python below it that does not know
//! the socket for its own, 16 us for each of a thousand forked children; 1 us for each descriptor
//! of a process that holds none. Nothing but the descriptors is read of a process that holds none
//! of the sockets, no thread of one that was seen by its epoll instance, and nothing after the
//! first that was seen.
//!
//! Not seen: a socket held only by a thread that has unshared its descriptors, or only by a
//! process whose first thread has ended (`/proc/PID/fd` shows the first thread's); a socket that
//! is only in an `io_uring`'s table of fixed files; system calls of a program with another word
//! size than ours, whose numbers mean other calls.

use super::proc;
use nix::libc;
use nix::sys::epoll::EpollFlags;
use nix::sys::stat::{major, minor};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// How many descriptors of one process are looked at, in the order of the kernel, which is by
/// number: listeners that were inherited come first.
const DESCRIPTORS_MAX: usize = 4096;

/// How many entries of one poll or select set are looked at: the highest that `FD_SETSIZE` allows.
const SET_MAX: u64 = 1024;

/// How much of the text of one epoll instance or ring is read: some 13,000 registrations. Its
/// listeners were registered before its connections, so it is seen long before it is that large.
const FDINFO_MAX: u64 = 1 << 20;

/// What a look at a worker's tree gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// Whether somebody waits.
    pub waiting: Waiting,
    /// A program below the main process that probably refuses the sockets it holds. It is a hint
    /// for a message when readiness does not come, never a decision: a helper program that has
    /// inherited the sockets by accident looks the same. Never set when the main process waits.
    pub wrapped: Option<Wrapped>,
}

/// Whether somebody waits on one of the sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// This process does, in this way (a system call or facility, for people to read).
    Seen {
        /// The process: the main one or a descendant.
        pid: Pid,
        /// The name of what it waits with.
        how: &'static str,
    },
    /// Nobody does at this moment, as far as is shown.
    NotSeen,
    /// Nobody was seen, but `/proc` refuses to show what would tell of this process.
    Unreadable {
        /// The first such process.
        pid: Pid,
    },
}

/// A descendant that is a program of its own, holds the sockets, and whose `LISTEN_PID` names
/// another process, so that `sd_listen_fds(3)` tells it that it has none: what stands between it
/// and us (a shell, `npm`, `bundle`) did not step aside by exec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped {
    /// The program.
    pub pid: Pid,
    /// The process that its `LISTEN_PID` names; nothing when that is not a pid.
    pub listen_pid: Option<i32>,
    /// The program's name as `ps` shows it.
    pub name: String,
}

/// Looks once. `main` is the worker's main process, `tree` its descendants, nearest first,
/// `sockets` the inodes (fstat(2)) of the sockets that it was given.
#[must_use]
pub fn look(main: Pid, tree: &[Pid], sockets: &BTreeSet<u64>) -> Sight {
    let mut unreadable = None;
    let mut wrapped = None;
    let mut main_program = None;
    for pid in std::iter::once(main).chain(tree.iter().copied()) {
        let held = match held(pid, sockets) {
            Ok(held) => held,
            Err(error) => {
                if is_denied(&error) {
                    unreadable.get_or_insert(pid);
                }
                continue;
            }
        };
        if held.sockets.is_empty() {
            continue;
        }
        let evidence = evidence(pid, &held, sockets);
        if pid != main && wrapped.is_none() {
            let main_program =
                main_program.get_or_insert_with(|| proc::auxv(main).unwrap_or_default());
            wrapped = wrapped_program(pid, main_program);
        }
        match evidence {
            Evidence::Seen(how) => {
                return Sight {
                    waiting: Waiting::Seen { pid, how },
                    wrapped,
                };
            }
            Evidence::Nothing => {}
            Evidence::Denied => {
                unreadable.get_or_insert(pid);
            }
        }
    }
    let waiting = unreadable.map_or(Waiting::NotSeen, |pid| Waiting::Unreadable { pid });
    Sight { waiting, wrapped }
}

/// What one process holds that matters here.
#[derive(Debug, Default)]
struct Held {
    /// Descriptors of the wanted sockets.
    sockets: BTreeSet<i32>,
    epolls: Vec<i32>,
    rings: Vec<i32>,
}

enum Evidence {
    Seen(&'static str),
    Nothing,
    /// What would show it is not ours to read, or is not there on this kernel.
    Denied,
}

/// A blocked system call that can mean waiting for a connection or a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    /// On the one descriptor.
    On { how: &'static str, fd: i32 },
    /// On the descriptors of an array of `struct pollfd` in the process's memory.
    Poll {
        how: &'static str,
        array: u64,
        count: u64,
    },
    /// On the descriptors below `count` in a set of bits in the process's memory.
    Select {
        how: &'static str,
        set: u64,
        count: u64,
    },
}

fn held(pid: Pid, sockets: &BTreeSet<u64>) -> io::Result<Held> {
    let mut held = Held::default();
    // Listing is refused for another user's process; where a capability overrides that, reading
    // the links still takes PTRACE_MODE_READ, see proc_pid_fd(5).
    for fd in proc::numbered_entries(format!("/proc/{pid}/fd"), DESCRIPTORS_MAX)? {
        let fd = fd.as_raw();
        let target = match fs::read_link(format!("/proc/{pid}/fd/{fd}")) {
            Ok(target) => target,
            Err(error) if is_denied(&error) => return Err(error),
            // Closed meanwhile.
            Err(_) => continue,
        };
        match target.as_os_str().as_bytes() {
            b"anon_inode:[eventpoll]" => held.epolls.push(fd),
            b"anon_inode:[io_uring]" => held.rings.push(fd),
            target => {
                if socket_inode(target).is_some_and(|inode| sockets.contains(&inode)) {
                    held.sockets.insert(fd);
                }
            }
        }
    }
    Ok(held)
}

fn socket_inode(target: &[u8]) -> Option<u64> {
    let digits = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn evidence(pid: Pid, held: &Held, sockets: &BTreeSet<u64>) -> Evidence {
    let fdinfo = |fd: &i32| {
        let text = proc::read_bounded(format!("/proc/{pid}/fdinfo/{fd}"), FDINFO_MAX);
        String::from_utf8_lossy(&text.unwrap_or_default()).into_owned()
    };
    if !held.epolls.is_empty() {
        let device = socket_device(pid, held);
        let is_wanted = |entry: Registration| {
            entry.is_for_reading() && Some(entry.device) == device && sockets.contains(&entry.inode)
        };
        if held
            .epolls
            .iter()
            .any(|fd| parse_epoll_fdinfo(&fdinfo(fd)).any(is_wanted))
        {
            return Evidence::Seen("epoll");
        }
    }
    if let Some(how) = held
        .rings
        .iter()
        .find_map(|fd| parse_ring_fdinfo(&fdinfo(fd)))
    {
        return Evidence::Seen(how);
    }
    blocked_thread(pid, held)
}

/// The device of the sockets' inodes as epoll's text writes it. A fifo, terminal or pidfd may have
/// the same inode number as a socket, on another device.
fn socket_device(pid: Pid, held: &Held) -> Option<u64> {
    let fd = held.sockets.first()?;
    let device = fs::metadata(format!("/proc/{pid}/fd/{fd}")).ok()?.dev();
    // The kernel prints its own form, MKDEV, which differs from that of stat(2).
    Some(major(device) << 20 | minor(device))
}

fn blocked_thread(pid: Pid, held: &Held) -> Evidence {
    let mut denied = false;
    let mut same_words = None;
    for thread in proc::threads(pid).unwrap_or_default() {
        let path = format!("/proc/{pid}/task/{thread}/syscall");
        let text = match proc::read_bounded(&path, 256) {
            Ok(text) => text,
            Err(error) => {
                // The file is missing where the kernel cannot look into a blocked thread; when the
                // thread has ended, so is everything beside it.
                let is_missing = error.kind() == io::ErrorKind::NotFound
                    && Path::new(&format!("/proc/{pid}/task/{thread}/stat")).exists();
                denied |= is_missing || is_denied(&error);
                continue;
            }
        };
        let Some((number, arguments)) = parse_syscall(&String::from_utf8_lossy(&text)) else {
            continue;
        };
        let Some(call) = call(number, &arguments) else {
            continue;
        };
        // What is number 7 here, poll, is waitpid for a 32-bit program.
        if !*same_words
            .get_or_insert_with(|| has_our_word_size(&proc::auxv(pid).unwrap_or_default()))
        {
            return Evidence::Nothing;
        }
        match is_on_socket(pid, call, &held.sockets) {
            Ok(true) => return Evidence::Seen(call.how()),
            Ok(false) => {}
            Err(error) => denied |= is_denied(&error),
        }
    }
    if denied {
        Evidence::Denied
    } else {
        Evidence::Nothing
    }
}

fn is_on_socket(pid: Pid, call: Call, sockets: &BTreeSet<i32>) -> io::Result<bool> {
    let memory = |address: u64, length: u64| {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        File::open(format!("/proc/{pid}/mem"))?.read_exact_at(&mut bytes, address)?;
        Ok::<_, io::Error>(bytes)
    };
    match call {
        Call::On { fd, .. } => Ok(sockets.contains(&fd)),
        Call::Poll { array, count, .. } => {
            let bytes = memory(array, 8 * count.min(SET_MAX))?;
            Ok(poll_set(&bytes).any(|fd| sockets.contains(&fd)))
        }
        // No set of descriptors to read from.
        Call::Select { set: 0, .. } => Ok(false),
        Call::Select { set, count, .. } => {
            let bytes = memory(set, count.min(SET_MAX).div_ceil(64) * 8)?;
            Ok(sockets.iter().any(|fd| is_selected(&bytes, *fd)))
        }
    }
}

/// The descriptors of an array of `struct pollfd` that are polled for reading, poll(2).
fn poll_set(bytes: &[u8]) -> impl Iterator<Item = i32> {
    bytes.chunks_exact(8).filter_map(|entry| {
        let fd = i32::from_ne_bytes(entry[..4].try_into().ok()?);
        let events = i16::from_ne_bytes(entry[4..6].try_into().ok()?);
        (events & (libc::POLLIN | libc::POLLRDNORM) != 0).then_some(fd)
    })
}

/// Whether a descriptor is in an `fd_set`, select(2). On the machines of [`call`] the words of the
/// set are little-endian, so that its bits lie in the order of the bytes.
fn is_selected(set: &[u8], fd: i32) -> bool {
    usize::try_from(fd)
        .ok()
        .and_then(|fd| Some(set.get(fd / 8)? >> (fd % 8) & 1 == 1))
        .unwrap_or(false)
}

impl Call {
    fn how(self) -> &'static str {
        match self {
            Self::On { how, .. } | Self::Poll { how, .. } | Self::Select { how, .. } => how,
        }
    }
}

/// What a system call waits for, if it is one that can wait for connections or datagrams. poll and
/// select exist on `x86_64` only; elsewhere the C library makes ppoll and pselect6 of them.
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
))]
fn call(number: i64, arguments: &[u64; 6]) -> Option<Call> {
    let [first, second, ..] = *arguments;
    // The kernel takes the lower half of the register.
    let fd = i32::from_ne_bytes(u32::try_from(first & 0xffff_ffff).ok()?.to_ne_bytes());
    let on = |how| Some(Call::On { how, fd });
    let poll = |how| {
        Some(Call::Poll {
            how,
            array: first,
            count: second,
        })
    };
    let select = |how| {
        Some(Call::Select {
            how,
            set: second,
            count: first,
        })
    };
    match number {
        libc::SYS_accept => on("accept"),
        libc::SYS_accept4 => on("accept4"),
        libc::SYS_recvfrom => on("recvfrom"),
        libc::SYS_recvmsg => on("recvmsg"),
        libc::SYS_recvmmsg => on("recvmmsg"),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll => poll("poll"),
        libc::SYS_ppoll => poll("ppoll"),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_select => select("select"),
        libc::SYS_pselect6 => select("pselect6"),
        _ => None,
    }
}

/// On other machines no system call is known.
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
)))]
fn call(_number: i64, _arguments: &[u64; 6]) -> Option<Call> {
    None
}

/// Reads `/proc/PID/task/TID/syscall`, `proc_pid_syscall(5)`: the number and the arguments of the
/// call that the thread is blocked in. A thread that runs says `running`, and one that is blocked
/// outside of a system call `-1`.
fn parse_syscall(text: &str) -> Option<(i64, [u64; 6])> {
    let mut words = text.split_ascii_whitespace();
    let number = words.next()?.parse().ok().filter(|number| *number >= 0)?;
    let mut arguments = [0; 6];
    for argument in &mut arguments {
        *argument = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
    }
    Some((number, arguments))
}

/// One line of an epoll instance's fdinfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Registration {
    events: i32,
    inode: u64,
    device: u64,
}

impl Registration {
    /// A one-shot registration that has fired keeps its flags and loses its events.
    fn is_for_reading(self) -> bool {
        let reading = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDNORM;
        EpollFlags::from_bits_retain(self.events).intersects(reading)
    }
}

/// Reads the fdinfo of an epoll instance, `proc_pid_fdinfo(5)`. A registration is
/// `tfd:        3 events:       19 data:  3  pos:0 ino:21e9 sdev:9`: all but tfd and pos are
/// hexadecimal. `tfd` is the number at the time of registration, which may mean another file by
/// then, or in this process; inode and device name the file itself.
fn parse_epoll_fdinfo(text: &str) -> impl Iterator<Item = Registration> {
    text.lines()
        .filter(|line| line.starts_with("tfd:"))
        .filter_map(|line| {
            let hexadecimal = |key: &str| {
                let value = line.split_once(key)?.1.trim_start();
                u64::from_str_radix(value.split(' ').next()?, 16).ok()
            };
            Some(Registration {
                events: i32::from_ne_bytes(
                    u32::try_from(hexadecimal(" events:")?).ok()?.to_ne_bytes(),
                ),
                inode: hexadecimal(" ino:")?,
                device: hexadecimal(" sdev:")?,
            })
        })
}

/// Reads the fdinfo of an `io_uring` (`io_uring/fdinfo.c` in the kernel's sources): the requests
/// that wait for a file to be ready follow a line `PollList:`, as `  op=13, task_works=0`.
/// The list is left out while somebody submits to the ring.
fn parse_ring_fdinfo(text: &str) -> Option<&'static str> {
    let waiting = text.lines().skip_while(|line| *line != "PollList:").skip(1);
    let operations: Vec<u32> = waiting
        .map_while(|line| line.strip_prefix("  op=")?.split(',').next()?.parse().ok())
        .collect();
    // IORING_OP_ACCEPT and IORING_OP_POLL_ADD of io_uring_enter(2), numbers that the libc crate
    // does not have.
    if operations.contains(&13) {
        Some("io_uring accept")
    } else if operations.contains(&6) {
        Some("io_uring poll")
    } else {
        None
    }
}

/// Whether an auxiliary vector is made of words of our own size: pairs of a small key and a value,
/// the last key 0. With the other size, a key and a value are taken for one word.
fn has_our_word_size(auxv: &[u8]) -> bool {
    const WORD: usize = size_of::<usize>();
    // AT_MINSIGSTKSZ is 51, the greatest in getauxval(3).
    const KEY_MAX: usize = 1024;
    let mut keys = auxv.chunks_exact(2 * WORD).map(|pair| {
        pair[..WORD]
            .try_into()
            .map_or(usize::MAX, usize::from_ne_bytes)
    });
    auxv.len().is_multiple_of(2 * WORD)
        && keys.clone().next_back() == Some(0)
        && keys.all(|key| key <= KEY_MAX)
}

/// `main_program` is the auxiliary vector of the main process. A child that it forked has the same,
/// and was forked by one that could read its sockets: a prefork server.
fn wrapped_program(pid: Pid, main_program: &[u8]) -> Option<Wrapped> {
    let program = proc::auxv(pid).ok().filter(|program| !program.is_empty())?;
    if main_program.is_empty() || program == main_program {
        return None;
    }
    let value = proc::environment_value(pid, "LISTEN_PID").ok()??;
    // Many take a missing or empty variable for theirs.
    if value.is_empty() {
        return None;
    }
    let listen_pid = std::str::from_utf8(&value)
        .ok()
        .and_then(|text| text.parse().ok());
    if let Some(named) = listen_pid {
        // The named process, if it runs the same program, has forked this one without an exec. If
        // it has gone, it was not the main process: somebody who knew the protocol has set it.
        let fits = named == pid.as_raw()
            || proc::auxv(Pid::from_raw(named))
                .map_or(true, |other| other.is_empty() || other == program);
        if fits {
            return None;
        }
    }
    Some(Wrapped {
        pid,
        listen_pid,
        name: proc::comm(pid).ok()?,
    })
}

fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "they start real processes and wait for them"
)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal, killpg};
    use nix::unistd::{Uid, setfsuid};
    use std::io::{BufRead, BufReader, Read};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    #[test]
    fn registrations_are_read_in_every_mode() {
        let text = "pos:\t0\nflags:\t02000002\nmnt_id:\t17\nino:\t17\n\
            tfd:        3 events:       19 data:                3  pos:0 ino:21e9 sdev:9\n\
            tfd:       12 events: 80000019 data:         ffffffff  pos:0 ino:a sdev:800001\n\
            tfd:        3 events: 10000019 data:                3  pos:0 ino:21e9 sdev:9\n\
            tfd:        3 events: 40000000 data:                3  pos:0 ino:21e9 sdev:9\n\
            tfd:        3 events:       1c data:                3  pos:0 ino:21e9 sdev:9\n\
            tfd:        3 events:       19 data:                3\n";
        let found: Vec<Registration> = parse_epoll_fdinfo(text).collect();
        let reading: Vec<bool> = found.iter().map(|entry| entry.is_for_reading()).collect();
        assert_eq!(reading, [true, true, true, false, false]);
        assert_eq!(
            found[0],
            Registration {
                events: 0x19,
                inode: 0x21e9,
                device: 9
            }
        );
        assert_eq!(found[1].device, 0x80_0001);
    }

    #[test]
    fn a_ring_shows_what_waits_in_it() {
        let text = |list: &str| {
            format!("UserBufs:\t0\n{list}CqOverflowList:\n  user_data=13, res=6\nNAPI:\tdisabled\n")
        };
        let how = |list: &str| parse_ring_fdinfo(&text(list));
        assert_eq!(
            how("PollList:\n  op=6, task_works=0\n  op=13, task_works=0\n"),
            Some("io_uring accept")
        );
        assert_eq!(
            how("PollList:\n  op=6, task_works=1\n"),
            Some("io_uring poll")
        );
        assert_eq!(how("PollList:\n  op=22, task_works=0\n"), None);
        assert_eq!(how("PollList:\n"), None);
        assert_eq!(how(""), None);
    }

    #[test]
    fn only_a_blocked_call_is_read() {
        let text = "288 0x3 0x7ffe 0x7ffd 0x80000 0x0 0x0 0x7ffe6b584d58 0x7f6dd2b28f63\n";
        assert_eq!(
            parse_syscall(text),
            Some((288, [3, 0x7ffe, 0x7ffd, 0x80000, 0, 0]))
        );
        for text in [
            "running\n",
            "-1 0x7ffe 0x7f6d\n",
            "",
            "288 0x3\n",
            "288 3 4 5 6 7 8 9 9\n",
        ] {
            assert_eq!(parse_syscall(text), None, "{text:?}");
        }
    }

    #[test]
    fn sets_of_descriptors_are_read() {
        let array: Vec<u8> = [
            (3, libc::POLLIN),
            (4, libc::POLLOUT),
            (-1, libc::POLLRDNORM),
        ]
        .into_iter()
        .flat_map(|(fd, events): (i32, i16)| {
            [&fd.to_ne_bytes()[..], &events.to_ne_bytes(), &[9, 9]].concat()
        })
        .collect();
        assert_eq!(poll_set(&array).collect::<Vec<_>>(), [3, -1]);
        let set = [0x08, 0, 0, 0, 0, 0, 0, 0x80];
        for (fd, selected) in [(3, true), (63, true), (2, false), (64, false), (-1, false)] {
            assert_eq!(is_selected(&set, fd), selected, "{fd}");
        }
    }

    #[test]
    fn programs_of_another_word_size_are_told_apart() {
        assert!(has_our_word_size(
            &proc::auxv(Pid::this()).expect("our own")
        ));
        let narrow: Vec<u8> = [32u32, 0xf7f0_1000, 6, 4096, 25, 0xffab_cdef, 0, 0]
            .into_iter()
            .flat_map(u32::to_ne_bytes)
            .collect();
        assert!(!has_our_word_size(&narrow));
        assert!(!has_our_word_size(b""));
    }

    #[test]
    fn every_way_of_waiting_is_seen() {
        let epoll = "e = select.epoll(); e.register(0, select.EPOLLIN";
        let ways = [
            (format!("{epoll}); e.poll()"), "epoll"),
            // Registered, and busy with something else.
            (format!("{epoll}); time.sleep(600)"), "epoll"),
            (format!("{epoll} | select.EPOLLET); e.poll()"), "epoll"),
            (
                format!("{epoll} | select.EPOLLEXCLUSIVE); e.poll()"),
                "epoll",
            ),
            (format!("{epoll} | select.EPOLLONESHOT); e.poll()"), "epoll"),
            (
                "p = select.poll(); p.register(0); p.poll()".to_owned(),
                "poll",
            ),
            ("select.select([0], [], [])".to_owned(), "select"),
            ("s.accept()".to_owned(), "accept"),
            (
                "threading.Thread(target=s.accept).start(); time.sleep(600)".to_owned(),
                "accept",
            ),
        ];
        thread::scope(|scope| {
            for (script, expected) in &ways {
                scope.spawn(move || {
                    let listener = Listener::open();
                    let worker = python(&listener, script);
                    let sight = worker.until(&listener, is_seen);
                    let Waiting::Seen { pid, how } = sight.waiting else {
                        unreachable!("it is seen: {sight:?}");
                    };
                    // Whether accept or accept4, poll or ppoll, is the C library's choice.
                    assert!(how.contains(expected), "{script}: {how}");
                    assert_eq!((pid, sight.wrapped), (worker.pid(), None), "{script}");
                });
            }
        });
    }

    #[test]
    fn what_does_not_wait_is_not_seen() {
        let ways = [
            "say(); time.sleep(600)",
            "s.listen(); say(); time.sleep(600)",
            "e = select.epoll(); e.register(0, select.EPOLLOUT); say(); time.sleep(600)",
            "e = select.epoll(); e.register(0, select.EPOLLIN); e.unregister(0); say(); e.poll()",
            "e = select.epoll(); e.register(1, select.EPOLLIN); say(); time.sleep(600)",
            "p = select.poll(); p.register(0, select.POLLOUT); say(); time.sleep(600)",
            "say(); select.select([], [], [0])",
            "t = socket.create_server(('127.0.0.1', 0)); say(); t.accept()",
            // It cannot accept what it has closed, though the registration stays.
            "e = select.epoll(); e.register(0, select.EPOLLIN); s.close(); say(); e.poll()",
        ];
        thread::scope(|scope| {
            for script in ways {
                scope.spawn(move || {
                    let listener = Listener::open();
                    let mut worker = python(&listener, script);
                    worker.line();
                    // Where it goes on to block, it has not yet, or has; both must be the answer.
                    for _ in 0..100 {
                        let sight = worker.sight(&listener);
                        let expected = Sight {
                            waiting: Waiting::NotSeen,
                            wrapped: None,
                        };
                        assert_eq!(sight, expected, "{script}");
                    }
                });
            }
        });
    }

    #[test]
    fn a_one_shot_that_has_fired_counts_when_it_is_armed_again() {
        let listener = Listener::open();
        let mut worker = python(
            &listener,
            "e = select.epoll(); e.register(0, select.EPOLLIN | select.EPOLLONESHOT); e.poll()
say(); sys.stderr.flush(); c, _ = s.accept(); c.recv(1)
e.modify(0, select.EPOLLIN | select.EPOLLONESHOT); e.poll()",
        );
        worker.until(&listener, is_seen);
        let mut connection = listener.connect();
        worker.line();
        worker.until(&listener, |sight| sight.waiting == Waiting::NotSeen);
        io::Write::write_all(&mut connection, b"x").expect("it reads");
        worker.until(&listener, is_seen);
    }

    #[test]
    fn only_the_wanted_sockets_count() {
        let listener = Listener::open();
        let other = Listener::open();
        let worker = python(&listener, "s.accept()");
        worker.until(&listener, is_seen);
        assert_eq!(worker.sight(&other).waiting, Waiting::NotSeen);
        let nothing = look(worker.pid(), &[], &BTreeSet::new());
        assert_eq!(
            nothing,
            Sight {
                waiting: Waiting::NotSeen,
                wrapped: None
            }
        );
    }

    #[test]
    fn a_datagram_socket_is_seen_while_somebody_receives() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let inode = inode(&socket);
        let mut command = python_command("s.recvfrom(100)");
        let worker = Worker::start(command.stdin(OwnedFd::from(socket)));
        let sight = worker.until(&Listener::of(inode), is_seen);
        assert_eq!(
            sight.waiting,
            Waiting::Seen {
                pid: worker.pid(),
                how: "recvfrom"
            }
        );
    }

    #[test]
    fn a_prefork_servers_child_is_seen_and_is_not_wrapped() {
        let listener = Listener::open();
        let script = "pid = os.fork()
if pid == 0: s.accept()
say(pid); time.sleep(600)";
        // The main process has stamped itself, as a program started with exec by a shell does.
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "LISTEN_PID=$$ exec python3 -c \"$0\"",
            &with_prelude(script),
        ]);
        let mut worker = Worker::start(command.stdin(listener.descriptor()));
        let child = Pid::from_raw(worker.line().parse().expect("a pid"));
        let sight = worker.until(&listener, is_seen);
        let waiting = Waiting::Seen {
            pid: child,
            how: "accept4",
        };
        assert_eq!(
            sight,
            Sight {
                waiting,
                wrapped: None
            }
        );
    }

    #[test]
    fn a_program_below_a_shell_is_wrapped_whether_it_waits_or_not() {
        for (script, waits) in [
            ("say(); time.sleep(600)", false),
            ("say(); s.accept()", true),
        ] {
            let listener = Listener::open();
            let mut command = Command::new("sh");
            let shell = "export LISTEN_PID=$$; python3 -c \"$0\"; true";
            command.args(["-c", shell, &with_prelude(script)]);
            let mut worker = Worker::start(command.stdin(listener.descriptor()));
            worker.line();
            let sight = worker.until(&listener, |sight| is_seen(sight) == waits);
            let wrapped = sight.wrapped.expect("it is wrapped");
            assert_ne!(wrapped.pid, worker.pid());
            assert_eq!(wrapped.listen_pid, Some(worker.pid().as_raw()));
            assert!(wrapped.name.starts_with("python"), "{wrapped:?}");
            if waits {
                let seen = Waiting::Seen {
                    pid: wrapped.pid,
                    how: "accept4",
                };
                assert_eq!(sight.waiting, seen);
            }
        }
    }

    #[test]
    fn a_program_that_was_stamped_anew_is_not_wrapped() {
        let listener = Listener::open();
        let mut command = Command::new("sh");
        let wrapper = "sh -c 'LISTEN_PID=$$ exec python3 -c \"$0\"' \"$0\"; true";
        command.args(["-c", wrapper, &with_prelude("s.accept()")]);
        let worker = Worker::start(command.stdin(listener.descriptor()));
        let sight = worker.until(&listener, is_seen);
        assert_eq!(sight.wrapped, None);
    }

    #[test]
    fn node_is_seen_by_its_epoll_instance() {
        let listener = Listener::open();
        let server = "require('http').createServer().listen({ fd: 3 })";
        let mut command = Command::new("sh");
        command.args(["-c", "exec node -e \"$0\" 3<&0 </dev/null", server]);
        let worker = Worker::start(command.stdin(listener.descriptor()));
        let sight = worker.until(&listener, is_seen);
        let waiting = Waiting::Seen {
            pid: worker.pid(),
            how: "epoll",
        };
        assert_eq!(
            sight,
            Sight {
                waiting,
                wrapped: None
            }
        );
    }

    #[test]
    fn a_ring_that_accepts_is_seen_where_rings_are_allowed() {
        for (operation, how) in [(13, "io_uring accept"), (6, "io_uring poll")] {
            let listener = Listener::open();
            let mut worker = python(
                &listener,
                &RING.replace("OPERATION", &operation.to_string()),
            );
            if worker.line() == "refused" {
                eprintln!("this kernel or sandbox refuses io_uring_setup");
                return;
            }
            let sight = worker.until(&listener, is_seen);
            assert_eq!(
                sight.waiting,
                Waiting::Seen {
                    pid: worker.pid(),
                    how
                }
            );
        }
    }

    #[test]
    fn what_is_not_ours_to_read_is_unreadable_and_what_has_gone_is_not_seen() {
        let listener = Listener::open();
        let worker = python(&listener, "s.accept()");
        worker.until(&listener, is_seen);
        let pid = if Uid::effective().is_root() {
            worker.pid()
        } else {
            Pid::from_raw(1)
        };
        let look_as_nobody = || {
            // Of this thread alone; it takes along the capabilities that override permissions.
            setfsuid(Uid::from_raw(65534));
            look(pid, &[], &listener.sockets)
        };
        let sight = thread::scope(|scope| scope.spawn(look_as_nobody).join()).expect("it looks");
        assert_eq!(sight.waiting, Waiting::Unreadable { pid });
        let gone = worker.pid();
        drop(worker);
        assert_eq!(look(gone, &[], &listener.sockets).waiting, Waiting::NotSeen);
    }

    /// One request on a listening socket, in a ring set up by hand.
    const RING: &str = "
import ctypes, mmap, struct
call = ctypes.CDLL(None).syscall
p = bytearray(120)
r = call(425, 8, (ctypes.c_char * 120).from_buffer(p))
if r < 0: say('refused'); time.sleep(600)
n = struct.unpack_from('I', p)[0]
tail, array = struct.unpack_from('I', p, 44)[0], struct.unpack_from('I', p, 64)[0]
ring = mmap.mmap(r, array + n * 4, offset=0)
requests = mmap.mmap(r, n * 64, offset=0x10000000)
requests[:64] = struct.pack('<BBHiQQII', OPERATION, 0, 0, 0, 0, 0, 0, OPERATION == 6) + bytes(32)
struct.pack_into('I', ring, tail, 1)
say(call(426, r, 1, 0, 0, None, 0)); time.sleep(600)
";

    fn is_seen(sight: &Sight) -> bool {
        match sight.waiting {
            Waiting::Seen { .. } => true,
            Waiting::NotSeen | Waiting::Unreadable { .. } => false,
        }
    }

    /// `s` is the socket, which is standard input; `say` writes a line.
    fn with_prelude(script: &str) -> String {
        format!(
            "import os, select, socket, sys, threading, time
s = socket.socket(fileno=0)
def say(*words): print(*words, flush=True)
{script}"
        )
    }

    fn python_command(script: &str) -> Command {
        let mut command = Command::new("python3");
        command.args(["-c", &with_prelude(script)]);
        command
    }

    fn python(listener: &Listener, script: &str) -> Worker {
        Worker::start(python_command(script).stdin(listener.descriptor()))
    }

    fn inode(socket: &impl AsFd) -> u64 {
        nix::sys::stat::fstat(socket).expect("it is open").st_ino
    }

    struct Listener {
        socket: Option<TcpListener>,
        sockets: BTreeSet<u64>,
    }

    impl Listener {
        fn open() -> Self {
            let socket = TcpListener::bind("127.0.0.1:0").expect("loopback");
            Self {
                sockets: BTreeSet::from([inode(&socket)]),
                socket: Some(socket),
            }
        }

        fn of(inode: u64) -> Self {
            Self {
                socket: None,
                sockets: BTreeSet::from([inode]),
            }
        }

        fn socket(&self) -> &TcpListener {
            self.socket.as_ref().expect("it was opened here")
        }

        fn descriptor(&self) -> OwnedFd {
            self.socket()
                .try_clone()
                .expect("a descriptor is free")
                .into()
        }

        fn connect(&self) -> TcpStream {
            TcpStream::connect(self.socket().local_addr().expect("it is bound"))
                .expect("it listens")
        }
    }

    /// A process and all that it started, in a group of its own; killed and reaped on drop.
    struct Worker {
        child: Child,
        output: BufReader<std::process::ChildStdout>,
    }

    impl Worker {
        fn start(command: &mut Command) -> Self {
            command.stdout(Stdio::piped()).process_group(0);
            let mut child = command
                .spawn()
                .expect("the tests need sh, python3 and node");
            let output = BufReader::new(child.stdout.take().expect("it is piped"));
            Self { child, output }
        }

        fn pid(&self) -> Pid {
            Pid::from_raw(i32::try_from(self.child.id()).expect("a pid is small"))
        }

        /// The next line that it says.
        fn line(&mut self) -> String {
            let mut line = String::new();
            self.output
                .by_ref()
                .take(1000)
                .read_line(&mut line)
                .expect("it is text");
            assert!(line.ends_with('\n'), "the worker ended: {line:?}");
            line.trim_end().to_owned()
        }

        fn sight(&self, listener: &Listener) -> Sight {
            look(
                self.pid(),
                &proc::descendants(self.pid()),
                &listener.sockets,
            )
        }

        fn until(&self, listener: &Listener, wanted: impl Fn(&Sight) -> bool) -> Sight {
            let deadline = Instant::now() + Duration::from_secs(30);
            loop {
                let sight = self.sight(listener);
                if wanted(&sight) {
                    return sight;
                }
                assert!(Instant::now() < deadline, "after 30 s: {sight:?}");
                thread::sleep(Duration::from_millis(2));
            }
        }
    }

    impl Drop for Worker {
        fn drop(&mut self) {
            // Not reaped yet, so the group's number is still its own.
            let _ = killpg(self.pid(), Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}
