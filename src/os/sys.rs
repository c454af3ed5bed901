//! The only unsafe code: system calls that no library wraps, one operation a block.
//!
//! It never decides anything and never retries. It is one file, long as it is, so that whoever
//! reviews what is unsafe need read no other.
#![expect(unsafe_code, reason = "the one place for it")]

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::Pid;

use super::strings::Strings;

/// A descriptor of the process `pid`, close-on-exec, see pidfd_open(2).
///
/// # Errors
///
/// `ESRCH` when there is no such process, `EMFILE` and `ENFILE` when no descriptor is left.
pub fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let raw = RawFd::try_from(Errno::result(result)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Sends `signal` to the process that `pidfd` stands for, see pidfd_send_signal(2).
///
/// # Errors
///
/// `ESRCH` when it has been reaped, `EPERM` when it belongs to somebody else.
pub fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let raw = pidfd.as_fd().as_raw_fd();
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open while it is borrowed, and a null siginfo asks the kernel to
    // fill in what kill(2) would.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, raw, signal, no_info, 0) };
    Errno::result(result)?;
    Ok(())
}

/// A copy of the descriptor `number` of the process that `pidfd` stands for, close-on-exec, see
/// pidfd_getfd(2).
///
/// # Errors
///
/// `EBADF` when it has none with this number, `EPERM` when we may not trace it, `ESRCH` when it has
/// ended, `ENOSYS` before Linux 5.6.
pub fn pidfd_getfd(pidfd: impl AsFd, number: RawFd) -> io::Result<OwnedFd> {
    let raw = pidfd.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open while it is borrowed, and the call touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_getfd, raw, number, 0) };
    let raw = RawFd::try_from(Errno::result(result)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// A `struct tcp_info` of `linux/tcp.h`, as much of it as the kernel knows, see tcp(7).
///
/// # Errors
///
/// `EOPNOTSUPP` for another socket than one of TCP.
pub fn tcp_info(socket: impl AsFd) -> io::Result<Vec<u8>> {
    /// Longer than it is on any kernel so far.
    const ROOM: usize = 512;
    let raw = socket.as_fd().as_raw_fd();
    let mut info = vec![0_u8; ROOM];
    let mut length = libc::socklen_t::try_from(ROOM).unwrap_or(0);
    let place = info.as_mut_ptr().cast();
    let (level, option) = (libc::IPPROTO_TCP, libc::TCP_INFO);
    // SAFETY: the descriptor is open while it is borrowed, and `info` has room for `length` bytes.
    let result = unsafe { libc::getsockopt(raw, level, option, place, &raw mut length) };
    Errno::result(result)?;
    info.truncate(usize::try_from(length).unwrap_or(0));
    Ok(info)
}

/// Has a socket listen, or listen on with another backlog, see listen(2). nix refuses a backlog above
/// the 4096 of its `SOMAXCONN`, and the limit of the machine may be higher.
///
/// # Errors
///
/// `EADDRINUSE` where another socket listens on the address, `EOPNOTSUPP` for datagrams.
pub fn listen(socket: impl AsFd, backlog: i32) -> io::Result<()> {
    let raw = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open while it is borrowed, and listen touches no memory of ours.
    let result = unsafe { libc::listen(raw, backlog) };
    Errno::result(result)?;
    Ok(())
}

/// Takes a descriptor that this process was given by number.
///
/// Returns `None` when it is not open.
#[must_use]
pub fn take_descriptor(raw: RawFd) -> Option<OwnedFd> {
    // SAFETY: fcntl with F_GETFD touches no memory and fails on a number that is not open.
    let flags = unsafe { libc::fcntl(raw, libc::F_GETFD) };
    if flags < 0 {
        return None;
    }
    // SAFETY: it is open, and each caller takes each number once, right after it was given.
    Some(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// The value of an extended attribute, at most 256 bytes, see getxattr(2).
///
/// # Errors
///
/// `ENODATA` when there is none, or none that we may see; `ERANGE` when it is longer.
pub fn attribute(path: &Path, name: &CStr) -> io::Result<Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut value = vec![0u8; 256];
    // SAFETY: both names end in NUL, and the kernel writes no more than `value` has.
    let result = unsafe {
        libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    let length = usize::try_from(Errno::result(result)?).map_err(io::Error::other)?;
    value.truncate(length);
    Ok(value)
}

/// Ignores signal `number`, see sigaction(2).
///
/// # Errors
///
/// `EINVAL` for a number that is no signal, or one that cannot be ignored.
pub fn ignore(number: i32) -> io::Result<()> {
    // SAFETY: no handler of ours runs by this constant.
    let result = unsafe { libc::signal(number, libc::SIG_IGN) };
    if result == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives signal `number` its default disposition, see rt_sigaction(2).
///
/// The C library keeps the first two realtime signals to itself and refuses to touch them, but they
/// may have been ignored by whoever started us and would stay so over exec. The kernel has no such
/// reserve, so it is asked directly.
///
/// # Errors
///
/// `EINVAL` for KILL, STOP, and a number that is no signal.
pub fn set_default(number: i32) -> io::Result<()> {
    /// The size of the kernel's signal set: 64 signals.
    const SET_BYTES: usize = 8;
    // All zeros is `SIG_DFL` without flags, restorer and mask in the layout of every architecture,
    // and this is larger than any of them.
    let default = [0u64; 8];
    let nothing = std::ptr::null::<u64>();
    // SAFETY: the kernel reads less than `default` has, and writes nothing.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_sigaction, number, default.as_ptr(), nothing, SET_BYTES)
    };
    Errno::result(result)?;
    Ok(())
}

/// Whether signal `number` is ignored, as nohup(1) leaves HUP.
#[must_use]
pub fn is_ignored(number: i32) -> bool {
    let mut current = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    let nothing = std::ptr::null();
    // SAFETY: a null new action only asks, and `current` has room for the answer.
    let result = unsafe { libc::sigaction(number, nothing, current.as_mut_ptr()) };
    if result != 0 {
        return false;
    }
    // SAFETY: sigaction succeeded, so it has filled `current`.
    let current = unsafe { current.assume_init() };
    current.sa_sigaction == libc::SIG_IGN
}

/// Sets an option of a socket that is a number, see setsockopt(2). For the options that nix has no
/// name for.
///
/// # Errors
///
/// `ENOPROTOOPT` for a socket that has no such option, `EPERM` without the privilege that it needs.
pub fn set_socket_option(socket: impl AsFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    let raw = socket.as_fd().as_raw_fd();
    let length = libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(0);
    let place = (&raw const value).cast();
    // SAFETY: the descriptor is open while it is borrowed, and `value` has `length` bytes.
    let result = unsafe { libc::setsockopt(raw, level, option, place, length) };
    Errno::result(result)?;
    Ok(())
}

/// Has a program of classic BPF say which socket of a group gets what comes, see socket(7) on
/// `SO_ATTACH_REUSEPORT_CBPF`.
///
/// # Errors
///
/// `EINVAL` for a socket that is in no group, or a program that the kernel refuses; `ENOMEM` where
/// it is longer than `net.core.optmem_max` allows; `ENOPROTOOPT` where the kernel has no such thing.
pub fn attach_to_group(socket: impl AsFd, program: &mut [libc::sock_filter]) -> io::Result<()> {
    let raw = socket.as_fd().as_raw_fd();
    let len = libc::c_ushort::try_from(program.len()).map_err(io::Error::other)?;
    let whole = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    let length = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).unwrap_or(0);
    let place = (&raw const whole).cast();
    let (level, option) = (libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF);
    // SAFETY: the descriptor is open while it is borrowed; `whole` has `length` bytes and leads to as
    // many instructions as it says, which the kernel copies.
    let result = unsafe { libc::setsockopt(raw, level, option, place, length) };
    Errno::result(result)?;
    Ok(())
}

/// An option of a socket that is a number, see getsockopt(2). For those that nix has no name for.
///
/// # Errors
///
/// `ENOPROTOOPT` or `EOPNOTSUPP` for a socket that has no such option.
pub fn socket_option(socket: impl AsFd, level: i32, option: i32) -> io::Result<i32> {
    let raw = socket.as_fd().as_raw_fd();
    let mut value = 0_i32;
    let mut length = libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(0);
    let place = (&raw mut value).cast();
    // SAFETY: the descriptor is open while it is borrowed, and `value` has room for `length` bytes.
    let result = unsafe { libc::getsockopt(raw, level, option, place, &raw mut length) };
    Errno::result(result)?;
    Ok(value)
}

/// Makes a TCP socket what it was before it was connected or listened, see connect(2) on `AF_UNSPEC`:
/// its queue is reset, and it forgets that it was shut down, which listen(2) alone does not. One
/// that was bound to port 0 loses its port.
///
/// # Errors
///
/// None that is known for TCP.
pub fn disconnect(socket: impl AsFd) -> io::Result<()> {
    let raw = socket.as_fd().as_raw_fd();
    let nowhere = libc::sockaddr { sa_family: 0, sa_data: [0; 14] };
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr>()).unwrap_or(0);
    // SAFETY: the descriptor is open while it is borrowed, and the kernel reads `length` bytes of
    // `nowhere`, which has so many.
    let result = unsafe { libc::connect(raw, &raw const nowhere, length) };
    Errno::result(result)?;
    Ok(())
}

/// The queue of a TCP socket that listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpQueue {
    /// How many connections wait.
    pub waiting: u32,
    /// How many may.
    pub most: u32,
}

/// How many connections wait on a TCP socket that listens, and may, see `TCP_INFO` in tcp(7); `None`
/// for one that does not.
///
/// # Errors
///
/// `ENOPROTOOPT` or `EOPNOTSUPP` for a socket that is not TCP.
pub fn tcp_queue(socket: impl AsFd) -> io::Result<Option<TcpQueue>> {
    /// `TCP_LISTEN` of the kernel's `net/tcp_states.h`.
    const LISTEN: u8 = 10;
    let raw = socket.as_fd().as_raw_fd();
    let mut info = std::mem::MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).unwrap_or(0);
    let place = info.as_mut_ptr().cast();
    let (level, option) = (libc::IPPROTO_TCP, libc::TCP_INFO);
    // SAFETY: the descriptor is open while it is borrowed, and `info` has room for `length` bytes.
    let result = unsafe { libc::getsockopt(raw, level, option, place, &raw mut length) };
    Errno::result(result)?;
    // SAFETY: it is all zeros, which is a valid tcp_info, or the kernel has filled a part of it.
    let info = unsafe { info.assume_init() };
    // Of a listener the kernel shows its queue and the queue's limit in these two fields.
    let queue = TcpQueue { waiting: info.tcpi_unacked, most: info.tcpi_sacked };
    Ok((info.tcpi_state == LISTEN).then_some(queue))
}

/// Puts this thread, and no other, into these supplementary groups, see setgroups(2).
///
/// The C library's own function changes all threads of the process.
///
/// # Errors
///
/// `EPERM` without `CAP_SETGID`, `EINVAL` when one is not mapped into our user namespace.
pub fn set_thread_groups(groups: &[u32]) -> io::Result<()> {
    // On these machines the plain number is that of a call with groups of 16 bits.
    #[cfg(any(target_arch = "x86", target_arch = "arm"))]
    let call = libc::SYS_setgroups32;
    #[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
    let call = libc::SYS_setgroups;
    // SAFETY: the kernel reads as many groups as there are, and a group is 32 bits wide.
    let result = unsafe { libc::syscall(call, groups.len(), groups.as_ptr()) };
    Errno::result(result)?;
    Ok(())
}

/// Sets the niceness of this thread, and no other, see setpriority(2).
///
/// # Errors
///
/// `EACCES` when it is lower than we may have it.
pub fn set_thread_nice(nice: i32) -> io::Result<()> {
    // SAFETY: it takes three integers and touches no memory; 0 is the calling thread.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
    Errno::result(result)?;
    Ok(())
}

/// What capget(2) and capset(2) take first; version 3 has capabilities in two halves.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

const CAPABILITIES: CapabilityHeader = CapabilityHeader { version: 0x2008_0522, pid: 0 };

/// One half of a thread's sets of capabilities.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilitySets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Whether this thread has a capability in effect, by its number in capabilities(7).
#[must_use]
pub fn has_capability(number: u32) -> bool {
    let mut header = CAPABILITIES;
    let mut sets = [CapabilitySets::default(); 2];
    // SAFETY: the kernel writes the version into the header, and as much as the two halves have.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    let [low, high] = sets.map(|half| u64::from(half.effective));
    result == 0 && (high << 32 | low) >> number & 1 == 1
}

/// Gives up all capabilities of this thread: those in effect, those it could take, those it would
/// hand on at exec, and with these the ambient ones, see capset(2).
///
/// # Errors
///
/// None that is known: giving up needs no privilege.
pub fn clear_thread_capabilities() -> io::Result<()> {
    let mut header = CAPABILITIES;
    let none = [CapabilitySets::default(); 2];
    // SAFETY: the kernel reads the two halves, and reads and may write the header.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, none.as_ptr()) };
    Errno::result(result)?;
    Ok(())
}

/// Leaves the session keyring for an empty one of our own, see session-keyring(7). Whoever possesses a
/// keyring may read its keys, whatever user it becomes.
///
/// # Errors
///
/// `ENOSYS` without keys in the kernel, `EPERM` where a filter refuses the call, `EDQUOT` when the user
/// has too many keys.
pub fn leave_session_keyring() -> io::Result<()> {
    let anonymous = std::ptr::null::<libc::c_char>();
    let join = libc::KEYCTL_JOIN_SESSION_KEYRING;
    // SAFETY: a null name asks for a keyring without one, and no memory is touched.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, join, anonymous) };
    Errno::result(result)?;
    Ok(())
}

/// Makes `group` the group of this thread, and no other, in every respect, see setresgid(2).
///
/// # Errors
///
/// As for [`set_thread_groups`].
pub fn set_thread_group(group: u32) -> nix::Result<()> {
    #[cfg(any(target_arch = "x86", target_arch = "arm"))]
    let call = libc::SYS_setresgid32;
    #[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
    let call = libc::SYS_setresgid;
    // SAFETY: it takes three integers and touches no memory.
    let result = unsafe { libc::syscall(call, group, group, group) };
    Errno::result(result).map(drop)
}

/// Makes `user` the user of this thread, and no other, in every respect, see setresuid(2).
///
/// # Errors
///
/// `EPERM` without `CAP_SETUID`, `EINVAL` when it is not mapped into our user namespace.
pub fn set_thread_user(user: u32) -> nix::Result<()> {
    #[cfg(any(target_arch = "x86", target_arch = "arm"))]
    let call = libc::SYS_setresuid32;
    #[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
    let call = libc::SYS_setresuid;
    // SAFETY: it takes three integers and touches no memory.
    let result = unsafe { libc::syscall(call, user, user, user) };
    Errno::result(result).map(drop)
}

/// A set of signals as the kernel has it, those that the C library keeps to itself included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalMask(u64);

impl SignalMask {
    /// None of them.
    pub const NONE: SignalMask = SignalMask(0);

    /// Each of them.
    pub const ALL: SignalMask = SignalMask(u64::MAX);

    /// One, by its number.
    #[must_use]
    pub fn only(number: i32) -> SignalMask {
        SignalMask(1u64.wrapping_shl(number.wrapping_sub(1).cast_unsigned()))
    }
}

/// Blocks these signals and no others for this thread, see rt_sigprocmask(2). Gives what was blocked.
///
/// # Errors
///
/// None that is known.
pub fn set_signal_mask(mask: SignalMask) -> io::Result<SignalMask> {
    let mut before = 0u64;
    let (how, bytes) = (libc::SIG_SETMASK, size_of::<u64>());
    // SAFETY: the kernel reads one set of 64 signals and writes another, and both are so large.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const mask.0, &raw mut before, bytes)
    };
    Errno::result(result)?;
    Ok(SignalMask(before))
}

/// What clone3(2) takes, as far as Linux 5.7 knows it.
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Makes a copy of this process with this thread alone, which calls `child`; in a cgroup, of which
/// this is the directory. Gives its number and its pidfd, close-on-exec.
///
/// Other threads may hold locks at this moment, which nobody releases in the copy. So `child` makes
/// system calls only: it takes and frees no memory, takes no lock and does not panic. The C library
/// knows nothing of the copy, so what it keeps of a process or thread is the original's there.
///
/// # Errors
///
/// `EAGAIN` when there may be no more processes, `ENOMEM`, `EMFILE` and `ENFILE`. Anything else with
/// a cgroup means that a process cannot be made in it: `EINVAL` and `ENOSYS` where the kernel, or a
/// filter, does not know how.
pub fn clone_process<T>(
    cgroup: Option<BorrowedFd<'_>>,
    given: &mut T,
    child: fn(&mut T) -> !,
) -> io::Result<(Pid, OwnedFd)> {
    /// The libc crate's is a number of 32 bits, so nothing is left of it.
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    let pidfd_flag = libc::CLONE_PIDFD;
    let mut pidfd: RawFd = -1;
    let mut arguments = CloneArguments {
        flags: u64::from(pidfd_flag.unsigned_abs()),
        pidfd: (&raw mut pidfd).expose_provenance() as u64,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        ..CloneArguments::default()
    };
    if let Some(cgroup) = cgroup {
        arguments.flags |= INTO_CGROUP;
        arguments.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    let bytes = size_of::<CloneArguments>();
    // SAFETY: the kernel reads `bytes` bytes, which there are, and writes a descriptor to `pidfd`.
    // Memory is not shared, and no stack is named, so the copy goes on here with a copy of
    // everything; what it does there is the contract of `child`.
    let mut result = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, bytes) };
    // A filter cannot look into the arguments, so that of a container may refuse all of these calls.
    if result < 0 && cgroup.is_none() && matches!(Errno::last(), Errno::ENOSYS | Errno::EPERM) {
        let flags = libc::c_long::from(pidfd_flag | libc::SIGCHLD);
        let (stack, place) = (0 as libc::c_long, &raw mut pidfd);
        #[cfg(target_arch = "s390x")]
        let (flags, stack) = (stack, flags);
        // SAFETY: as above, by the older call, which writes the descriptor to its third argument.
        result = unsafe { libc::syscall(libc::SYS_clone, flags, stack, place, 0, 0) };
    }
    if result == 0 {
        let _exits = Exits;
        child(given)
    }
    let pid = Pid::from_raw(i32::try_from(Errno::result(result)?).map_err(io::Error::other)?);
    // SAFETY: the kernel has just made this descriptor for us, so nobody else owns it.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// Ends a copy that unwinds. Further up are the daemon's own frames, and what goes with them would
/// remove its files and let go of its locks, which the copy shares.
struct Exits;

impl Drop for Exits {
    fn drop(&mut self) {
        /// As a program in Rust ends that has panicked.
        const PANICKED: i32 = 101;
        exit(PANICKED)
    }
}

/// The number of this process. The C library's own function gave that of the original in a copy before
/// glibc 2.25.
#[must_use]
pub fn own_pid() -> Pid {
    // SAFETY: it takes nothing and cannot fail.
    let result = unsafe { libc::syscall(libc::SYS_getpid) };
    Pid::from_raw(i32::try_from(result).unwrap_or_default())
}

/// In a copy that is about to become a program: makes `target` another number of `source`, whatever
/// it was before, see dup3(2).
///
/// # Errors
///
/// `EBADF` for a number above the limit on open files.
pub fn place(source: impl AsFd, target: RawFd, flags: OFlag) -> nix::Result<OwnedFd> {
    let raw = source.as_fd().as_raw_fd();
    // SAFETY: it takes three integers. Whatever had this number belonged to the daemon, which is not
    // there any more: the copy has its own table, and lets go of nothing that the daemon owned.
    let result = unsafe { libc::dup3(raw, target, flags.bits()) };
    let raw = Errno::result(result)?;
    // SAFETY: the kernel has just made this descriptor, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// In a copy that is about to become a program: closes the descriptors from `first` to `last`, see
/// close_range(2).
///
/// # Errors
///
/// `ENOSYS` before Linux 5.9.
pub fn close_range(first: u32, last: u32) -> nix::Result<()> {
    // SAFETY: as for `place`: what is closed was the daemon's, in a table that is the copy's own.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    Errno::result(result).map(drop)
}

/// Becomes the program at `path`, see execve(2). It takes no memory.
///
/// # Errors
///
/// Those of execve(2); it does not come back otherwise.
pub fn execve(
    path: &CStr,
    arguments: &mut Strings,
    environment: &mut Strings,
) -> nix::Result<Infallible> {
    let (arguments, environment) = (arguments.pointers(), environment.pointers());
    // SAFETY: the path ends in NUL; `Strings` gives pointers to strings that do, with a null pointer
    // at their end, and all of them live until the call is over.
    unsafe { libc::execve(path.as_ptr(), arguments, environment) };
    Err(Errno::last())
}

/// Becomes the program that is this file, see execveat(2). It takes no memory.
///
/// # Errors
///
/// Those of execveat(2); it does not come back otherwise.
pub fn execveat(
    file: impl AsFd,
    arguments: &mut Strings,
    environment: &mut Strings,
) -> nix::Result<Infallible> {
    let (raw, path, flags) = (file.as_fd().as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH);
    let (arguments, environment) = (arguments.pointers(), environment.pointers());
    // SAFETY: as for `execve`, and the descriptor is open while it is borrowed.
    unsafe { libc::syscall(libc::SYS_execveat, raw, path, arguments, environment, flags) };
    Err(Errno::last())
}

/// Ends this process at once: nothing is flushed, and nothing that was registered is called, see
/// _exit(2).
pub fn exit(code: i32) -> ! {
    // SAFETY: it takes an integer and does not come back.
    unsafe { libc::_exit(code) }
}

/// Whose exit to collect.
#[derive(Debug, Clone, Copy)]
pub enum Whom<'a> {
    /// Any child's.
    Anyone,
    /// That of the child behind this pidfd.
    Pidfd(BorrowedFd<'a>),
}

/// A child that has exited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its pid, which may be given to another process from here on.
    pub pid: Pid,
    /// How it ended.
    pub how: How,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It returned this.
    Code(i32),
    /// A signal ended it, realtime ones included, for which nix has no name.
    Signal {
        /// Its number.
        number: i32,
        /// Whether a core was dumped.
        core: bool,
    },
}

/// Collects the exit of a child, if there is one, without waiting, see waitid(2).
///
/// # Errors
///
/// `ECHILD` when there is no such child.
pub fn reap(whom: Whom<'_>) -> io::Result<Option<Ended>> {
    let (kind, id) = match whom {
        Whom::Anyone => (libc::P_ALL, 0),
        Whom::Pidfd(pidfd) => (libc::P_PIDFD, pidfd.as_raw_fd().unsigned_abs()),
    };
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WEXITED | libc::WNOHANG;
    // SAFETY: `info` has room for the answer, and a pidfd is open while it is borrowed.
    let result = unsafe { libc::waitid(kind, id, info.as_mut_ptr(), flags) };
    Errno::result(result)?;
    // SAFETY: it is all zeros, which is a valid siginfo, or the kernel has filled it.
    let info = unsafe { info.assume_init() };
    // SAFETY: waitid has filled the fields for a child, or left the zeros.
    let pid = unsafe { info.si_pid() };
    if pid == 0 {
        return Ok(None);
    }
    // SAFETY: as for the pid.
    let status = unsafe { info.si_status() };
    let how = match info.si_code {
        libc::CLD_EXITED => How::Code(status),
        code => How::Signal { number: status, core: code == libc::CLD_DUMPED },
    };
    Ok(Some(Ended { pid: Pid::from_raw(pid), how }))
}

/// As much of the name of a socket as is read: that of an internet socket, see ipv6(7).
pub const NAME_MAX: usize = size_of::<libc::sockaddr_in6>();

/// A connection, and the beginning of the name of its other end, see accept4(2).
///
/// # Errors
///
/// `EAGAIN` when none waits and the socket does not block, `EMFILE` when no descriptor is left, those
/// of the network for a connection that failed meanwhile.
pub fn accept4(listener: impl AsFd, flags: i32) -> nix::Result<(OwnedFd, [u8; NAME_MAX])> {
    let raw = listener.as_fd().as_raw_fd();
    let mut name = [0_u8; NAME_MAX];
    let mut length = libc::socklen_t::try_from(NAME_MAX).unwrap_or(0);
    let place = name.as_mut_ptr().cast();
    // SAFETY: the descriptor is open while it is borrowed, and `name` has room for `length` bytes.
    let result = unsafe { libc::accept4(raw, place, &raw mut length, flags) };
    let raw = Errno::result(result)?;
    // SAFETY: the kernel has just made this descriptor for us, so nobody else owns it.
    Ok((unsafe { OwnedFd::from_raw_fd(raw) }, name))
}

/// What came with a datagram.
#[derive(Debug)]
pub struct Message {
    /// How many bytes of the buffer it fills.
    pub length: usize,
    /// Whether the kernel threw a part of it away: bytes or descriptors.
    pub cut: bool,
    /// The process that sent it, if the socket asks for credentials and the kernel knows it.
    pub sender: Option<Pid>,
    /// The descriptors that came, close-on-exec.
    pub descriptors: Vec<OwnedFd>,
}

/// Reads a datagram into `bytes`, without waiting, with room for `descriptors_max` descriptors
/// beside the sender's credentials, see recvmsg(2) and unix(7).
///
/// A message of control data that was cut short still brings the descriptors before the cut, into
/// our table: they are owned here whatever else is wrong with the message.
///
/// # Errors
///
/// `EAGAIN` when there is nothing to read.
pub fn receive(socket: impl AsFd, bytes: &mut [u8], descriptors_max: usize) -> io::Result<Message> {
    let raw = socket.as_fd().as_raw_fd();
    // Of u64, because the kernel wants it as aligned as a header is.
    let mut control = vec![0u64; control_bytes(descriptors_max).div_ceil(size_of::<u64>())];
    let mut slice = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all zeros is a valid msghdr: null pointers and no lengths.
    let mut message = unsafe { std::mem::zeroed::<libc::msghdr>() };
    message.msg_iov = &raw mut slice;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(control.as_slice());
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the descriptor is open while it is borrowed, and `message` leads to `bytes` and
    // `control` with their true lengths, which live until the end of this function.
    let result = unsafe { libc::recvmsg(raw, &raw mut message, flags) };
    let length = usize::try_from(Errno::result(result)?).map_err(io::Error::other)?;
    let mut sender = None;
    let mut descriptors = Vec::new();
    // SAFETY: `message` is as the kernel left it, so its control data are valid or none.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // Each turn goes on by a header's size at least, or ends.
    while !header.is_null() {
        // SAFETY: the macros give only headers that lie within the control data, aligned.
        let libc::cmsghdr { cmsg_len, cmsg_level, cmsg_type, .. } = unsafe { *header };
        // SAFETY: as above; what follows a header lies within the buffer or at its end.
        let data = unsafe { libc::CMSG_DATA(header) };
        // SAFETY: this computes a length from a length.
        let head_bytes = unsafe { libc::CMSG_LEN(0) };
        let data_bytes = cmsg_len.saturating_sub(head_bytes as usize);
        match (cmsg_level, cmsg_type) {
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if data_bytes >= size_of::<libc::ucred>() => {
                // SAFETY: the kernel wrote so many bytes there, and any bytes are a ucred.
                let credentials = unsafe { data.cast::<libc::ucred>().read_unaligned() };
                // Zero stands for a process that cannot be seen from here.
                sender = Some(Pid::from_raw(credentials.pid)).filter(|pid| pid.as_raw() > 0);
            }
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                for index in 0..data_bytes / size_of::<RawFd>() {
                    let place = data.wrapping_add(index * size_of::<RawFd>());
                    // SAFETY: the kernel wrote so many descriptors there.
                    let raw = unsafe { place.cast::<RawFd>().read_unaligned() };
                    // SAFETY: the kernel has just made this descriptor for us, so nobody else owns
                    // it, and each place is read once.
                    descriptors.push(unsafe { OwnedFd::from_raw_fd(raw) });
                }
            }
            (_, _) => {}
        }
        // SAFETY: `message` is as the kernel left it, and `header` is one of its headers.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    let cut = message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
    Ok(Message { length, cut, sender, descriptors })
}

/// The room that credentials and so many descriptors take as control data.
fn control_bytes(descriptors_max: usize) -> usize {
    let space = |bytes: usize| {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        // SAFETY: this computes a length from a length.
        let space = unsafe { libc::CMSG_SPACE(bytes) };
        space as usize
    };
    space(size_of::<libc::ucred>()) + space(descriptors_max * size_of::<RawFd>())
}
