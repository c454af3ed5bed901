//! Looks whether somebody in a worker's tree waits on one of its listening sockets, which is
//! evidence of readiness without the program's help. It never asks the worker anything, never
//! waits, and changes nothing: all is read from `/proc`.
//!
//! Evidence is, for a process that holds the socket as a descriptor:
//! * an epoll instance of its own that has the socket registered for reading, in whatever mode
//!   (level, edge, exclusive, one-shot) and whether or not anybody is in `epoll_wait` right then: a
//!   registration lasts, and a busy event loop comes back to it. A one-shot registration that has
//!   fired is shown without its events; until it is armed again it is no evidence;
//! * a thread blocked in accept, accept4, recvfrom, recvmsg, recvmmsg, read or readv on it, or in poll,
//!   ppoll, select or pselect6 with it in the set; nobody blocks in a read of a socket that listens,
//!   so that this is somebody who waits for datagrams;
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
//! is only in an `io_uring`'s table of fixed files; a receive that is pending in an `io_uring`, since a
//! connection may be what it waits on; system calls of a program with another word
//! size than ours, whose numbers mean other calls.

use super::proc;
use crate::core::event::Grip;
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
        let (held, evidence) = match proc::as_owner(pid, || examine(pid, sockets)) {
            Ok(examined) => examined,
            Err(error) => {
                if is_denied(&error) || proc::is_hidden(pid) {
                    unreadable.get_or_insert(pid);
                }
                continue;
            }
        };
        if held.sockets.is_empty() {
            continue;
        }
        if pid != main && wrapped.is_none() {
            let main_program =
                main_program.get_or_insert_with(|| proc::auxv(main).unwrap_or_default());
            wrapped = wrapped_program(pid, main_program);
        }
        match evidence {
            Evidence::Seen(how) => {
                return Sight { waiting: Waiting::Seen { pid, how }, wrapped };
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

/// What a worker has to do with one of its sockets. Arguments as for [`look`].
#[must_use]
pub fn grip(main: Pid, tree: &[Pid], socket: u64) -> Grip {
    let socket = BTreeSet::from([socket]);
    let mut grip = Grip::LetGo;
    for pid in std::iter::once(main).chain(tree.iter().copied()) {
        match proc::as_owner(pid, || examine(pid, &socket)) {
            Ok((held, Evidence::Seen(_))) if !held.sockets.is_empty() => return Grip::Waits,
            Ok((held, Evidence::Nothing | Evidence::Seen(_))) => {
                if !held.sockets.is_empty() && grip == Grip::LetGo {
                    grip = Grip::Idle;
                }
            }
            Ok((_, Evidence::Denied)) => grip = Grip::Unreadable,
            Err(error) => {
                if is_denied(&error) || proc::is_hidden(pid) {
                    grip = Grip::Unreadable;
                }
            }
        }
    }
    grip
}

/// What one process holds, and whether it waits.
fn examine(pid: Pid, sockets: &BTreeSet<u64>) -> io::Result<(Held, Evidence)> {
    let held = held(pid, sockets)?;
    let evidence =
        if held.sockets.is_empty() { Evidence::Nothing } else { evidence(pid, &held, sockets) };
    Ok((held, evidence))
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
    Poll { how: &'static str, array: u64, count: u64 },
    /// On the descriptors below `count` in a set of bits in the process's memory.
    Select { how: &'static str, set: u64, count: u64 },
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
        if held.epolls.iter().any(|fd| parse_epoll_fdinfo(&fdinfo(fd)).any(is_wanted)) {
            return Evidence::Seen("epoll");
        }
    }
    if let Some(how) = held.rings.iter().find_map(|fd| parse_ring_fdinfo(&fdinfo(fd))) {
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
    if denied { Evidence::Denied } else { Evidence::Nothing }
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
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
fn call(number: i64, arguments: &[u64; 6]) -> Option<Call> {
    let [first, second, ..] = *arguments;
    // The kernel takes the lower half of the register.
    let fd = i32::from_ne_bytes(u32::try_from(first & 0xffff_ffff).ok()?.to_ne_bytes());
    let on = |how| Some(Call::On { how, fd });
    let poll = |how| Some(Call::Poll { how, array: first, count: second });
    let select = |how| Some(Call::Select { how, set: second, count: first });
    match number {
        libc::SYS_accept => on("accept"),
        libc::SYS_accept4 => on("accept4"),
        libc::SYS_recvfrom => on("recvfrom"),
        libc::SYS_recvmsg => on("recvmsg"),
        libc::SYS_recvmmsg => on("recvmmsg"),
        libc::SYS_read => on("read"),
        libc::SYS_readv => on("readv"),
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
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
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
    text.lines().filter(|line| line.starts_with("tfd:")).filter_map(|line| {
        let hexadecimal = |key: &str| {
            let value = line.split_once(key)?.1.trim_start();
            u64::from_str_radix(value.split(' ').next()?, 16).ok()
        };
        Some(Registration {
            events: i32::from_ne_bytes(u32::try_from(hexadecimal(" events:")?).ok()?.to_ne_bytes()),
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
    let mut keys = auxv
        .chunks_exact(2 * WORD)
        .map(|pair| pair[..WORD].try_into().map_or(usize::MAX, usize::from_ne_bytes));
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
    let listen_pid = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
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
    Some(Wrapped { pid, listen_pid, name: proc::comm(pid).ok()? })
}

fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "they start real processes and wait for them")]
mod tests;
