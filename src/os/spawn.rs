//! Starts a process that becomes a worker: our own binary again, the trampoline, by posix_spawn(3).
//!
//! No code of ours runs between fork and exec, so threads and the allocator are no danger, and the
//! daemon's size does not matter. What the new process is to do travels in a sealed memory file.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, pipe2, read, write};

use super::sys;
use crate::protocol::exec_plan::{ExecPlan, Layout, OutcomeReader};

/// The first argument that makes our binary the trampoline.
pub const TRAMPOLINE: &str = "--become-worker";

/// What the new process gets.
pub struct Order<'a> {
    /// What it is to become.
    pub plan: &'a ExecPlan,
    /// Its sockets, in order.
    pub sockets: Vec<BorrowedFd<'a>>,
    /// Its working directory.
    pub directory: BorrowedFd<'a>,
    /// Its program's file.
    pub program: BorrowedFd<'a>,
    /// What it writes to, as descriptors 1 and 2; without it, what we do.
    pub output: Option<[BorrowedFd<'a>; 2]>,
    /// Where it enters its cgroup; without one it stays in ours.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// A process on its way to become a worker.
#[derive(Debug)]
pub struct Spawned {
    /// The process.
    pub pid: Pid,
    /// Its descriptor, opened before it could be reaped.
    pub pidfd: OwnedFd,
    /// Where the trampoline tells how it fares; never blocks.
    pub outcome: OwnedFd,
}

/// Starts the trampoline.
///
/// # Errors
///
/// The step that failed with its error: `EAGAIN` when the user may have no more processes, `EMFILE`
/// when no descriptor is left.
pub fn spawn(order: &Order<'_>) -> Result<Spawned, (&'static str, io::Error)> {
    let step = |step: &'static str| move |error: nix::Error| (step, io::Error::from(error));
    let io_step = |step: &'static str| move |error: io::Error| (step, error);

    let count = u32::try_from(order.sockets.len()).unwrap_or(u32::MAX);
    let layout = Layout::new(count);
    let plan = sealed(order.plan).map_err(io_step("writing the plan"))?;
    let (outcome, outcome_write) = pipe2(OFlag::O_CLOEXEC).map_err(step("making a pipe"))?;
    fcntl(&outcome, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(step("making a pipe"))?;

    let mut wanted: Vec<(BorrowedFd<'_>, u32)> =
        order.sockets.iter().copied().zip(Layout::FIRST_SOCKET..).collect();
    wanted.extend(order.output.into_iter().flatten().zip(1..));
    wanted.push((plan.as_fd(), layout.plan()));
    wanted.push((outcome_write.as_fd(), layout.outcome()));
    wanted.push((order.directory, layout.directory()));
    wanted.push((order.program, layout.program()));

    wanted.extend(order.cgroup.map(|cgroup| (cgroup, layout.cgroup())));

    let mut actions = PosixSpawnFileActions::init().map_err(step("preparing"))?;
    actions.add_open(0, "/dev/null", OFlag::O_RDONLY, Mode::empty()).map_err(step("preparing"))?;
    if order.cgroup.is_none() {
        let target = RawFd::try_from(layout.cgroup()).unwrap_or(RawFd::MAX);
        actions
            .add_open(target, "/dev/null", OFlag::O_WRONLY, Mode::empty())
            .map_err(step("preparing"))?;
    }
    // A source inside the range of the targets would be overwritten before it is used.
    let mut lifted = Vec::new();
    for (source, target) in wanted {
        let source = lift(source, layout, &mut lifted).map_err(io_step("placing a descriptor"))?;
        let target = RawFd::try_from(target).unwrap_or(RawFd::MAX);
        actions.add_dup2(source, target).map_err(step("preparing"))?;
    }

    let attributes = clean_signals().map_err(step("preparing"))?;
    let arguments = [c"shepherd".to_owned(), cstring(TRAMPOLINE), cstring(&count.to_string())];
    let no_environment: [CString; 0] = [];
    let pid = posix_spawn(c"/proc/self/exe", &actions, &attributes, &arguments, &no_environment)
        .map_err(step("starting a process"))?;
    // It is our child and not yet reaped, so its number is its own.
    let pidfd = sys::pidfd_open(pid).map_err(|error| {
        let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(pid, None);
        ("opening the process", error)
    })?;
    Ok(Spawned { pid, pidfd, outcome })
}

/// Reads what the trampoline has told so far. Returns whether it has told everything.
pub fn read_outcome(outcome: &OwnedFd, reader: &mut OutcomeReader) -> bool {
    let mut buffer = [0; 256];
    loop {
        match read(outcome, &mut buffer) {
            Ok(0) => return true,
            Ok(count) => reader.feed(buffer.get(..count).unwrap_or_default()),
            Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

/// The next step for a failure to start a process, where there is one.
#[must_use]
pub fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE) => "; raise our limit on open files (`ulimit -n`)",
        Some(libc::EAGAIN) => "; this user may have no more processes (`ulimit -u`, `pids.max`)",
        _ => "",
    }
}

/// All dispositions at their defaults, and HUP blocked: the trampoline has our name, and somebody
/// who sends HUP to all of that name means the daemon. The trampoline drops what came and unblocks.
fn clean_signals() -> nix::Result<PosixSpawnAttr> {
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK,
    )?;
    attributes.set_sigdefault(&SigSet::all())?;
    let mut hup = SigSet::empty();
    hup.add(Signal::SIGHUP);
    attributes.set_sigmask(&hup)?;
    Ok(attributes)
}

fn lift(source: BorrowedFd<'_>, layout: Layout, lifted: &mut Vec<OwnedFd>) -> io::Result<RawFd> {
    let end = RawFd::try_from(layout.end()).unwrap_or(RawFd::MAX);
    if source.as_raw_fd() >= end {
        return Ok(source.as_raw_fd());
    }
    let raw = fcntl(source, FcntlArg::F_DUPFD_CLOEXEC(end))?;
    let copy = sys::take_descriptor(raw).ok_or(io::ErrorKind::NotFound)?;
    lifted.push(copy);
    Ok(raw)
}

/// The plan in a memory file that nobody can change any more, see memfd_create(2).
fn sealed(plan: &ExecPlan) -> io::Result<OwnedFd> {
    let bytes = plan.encode().map_err(io::Error::other)?;
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = memfd_create(c"shepherd-plan", flags)?;
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let written = write(&file, rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    let seals = SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

fn cstring(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}
