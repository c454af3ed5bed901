//! Starts a process that becomes a worker: a copy of ours by clone3(2), without its threads, which
//! sets everything up and becomes the program.
//!
//! The daemon has other threads, and one of them may hold a lock, of the allocator for one, that nobody
//! will ever release in the copy. So everything that takes memory or a lock is done here, before the
//! copy is made, and the copy (`child`) makes system calls and nothing else.

mod child;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Pid, pipe2, read};

use super::cgroup::Leaf;
use super::exec::has_pidfd_ids;
use super::identity::Credentials;
use super::strings::{Slot, Strings};
use super::sys::{self, SignalMask};
use crate::config::identity::Limit;
use crate::protocol::listen_fds;
use crate::protocol::outcome::OutcomeReader;

/// How many digits the largest number of 64 bits has.
const DIGITS_MAX: usize = 20;

/// How many bytes the two variables that only the process itself can know have together.
const STAMP_MAX: usize = 2 * (16 + DIGITS_MAX);

/// Variables and their values.
pub type Environment<'a> = BTreeMap<&'a [u8], Cow<'a, [u8]>>;

/// What a process is to become.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The program's path; used when it still names the file that was found.
    pub path: &'a [u8],
    /// The arguments, the name first.
    pub arguments: Vec<&'a [u8]>,
    /// The whole environment, except what only the process itself can know.
    pub environment: Environment<'a>,
    /// Its limits.
    pub limits: Vec<Limit>,
    /// Its niceness, where it is not ours.
    pub nice: Option<i8>,
    /// Its mask of permissions, where it is not ours.
    pub umask: Option<u32>,
    /// Who it is, where it is not us.
    pub credentials: Option<&'a Credentials>,
    /// Whether it has no capabilities.
    pub drops_capabilities: bool,
    /// Whether nothing that it runs may gain privileges.
    pub no_new_privileges: bool,
    /// Its parent, if it ends with that, whatever happens; a worker outlives us.
    pub ends_with: Option<u32>,
    /// Whether to run the file that was found even when `path` names another one by now. Scripts
    /// are always run by path: their interpreter opens them by it.
    pub pinned: bool,
}

/// What the process gets.
pub struct Order<'a> {
    /// What it is to become.
    pub plan: &'a Plan<'a>,
    /// Its sockets, in order.
    pub sockets: Vec<BorrowedFd<'a>>,
    /// What else it gets, in order: the numbers follow those of the sockets, see [`number_beside`].
    pub beside: Vec<BorrowedFd<'a>>,
    /// Its working directory.
    pub directory: BorrowedFd<'a>,
    /// Its program's file.
    pub program: BorrowedFd<'a>,
    /// What it writes to, as descriptors 1 and 2; without it, what we do.
    pub output: Option<[BorrowedFd<'a>; 2]>,
    /// Its cgroup; without one it stays in ours.
    pub cgroup: Option<&'a Leaf>,
}

/// The number of a descriptor that a process with so many sockets gets beside them, counted from 0.
#[must_use]
pub fn number_beside(sockets: usize, index: usize) -> usize {
    usize::from(listen_fds::FIRST) + sockets + index
}

/// A process on its way to become a worker.
#[derive(Debug)]
pub struct Spawned {
    /// The process.
    pub pid: Pid,
    /// Its descriptor, which it has had from birth.
    pub pidfd: OwnedFd,
    /// Where it tells how it fares; never blocks. It is hung up when there is nothing more to come.
    pub outcome: OwnedFd,
}

/// Everything that the process works with: numbers, descriptors and bytes.
struct Prepared<'a> {
    /// What it gets, and as which descriptor. No source is one of the numbers that are wanted.
    given: Vec<(BorrowedFd<'a>, RawFd)>,
    /// Where it tells how it fares.
    outcome: BorrowedFd<'a>,
    directory: BorrowedFd<'a>,
    program: BorrowedFd<'a>,
    /// Where it writes `0` to enter its cgroup, unless it is born there.
    entrance: Option<OwnedFd>,
    /// From where on it keeps the four above while it needs them.
    own: RawFd,
    path: CString,
    arguments: Strings,
    environment: Strings,
    stamp: Option<Stamp>,
    plan: &'a Plan<'a>,
}

/// Where a process writes who it is, which only it can know.
struct Stamp {
    pid: Slot,
    /// The inode of a pidfd, where that is nobody else's. It is the last variable.
    pidfd_id: Option<Slot>,
}

/// A step that failed, and why.
type Failure = (&'static str, io::Error);

/// Starts a process.
///
/// # Errors
///
/// The step that failed with its error: `EAGAIN` when the user may have no more processes, `EMFILE`
/// when no descriptor is left.
pub fn spawn(order: &Order<'_>) -> Result<Spawned, Failure> {
    let step = |step: &'static str| move |error: io::Error| (step, error);
    // All that it writes fits, see pipe(7), so neither end waits.
    let flags = OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let (outcome, tells) = pipe2(flags).map_err(|errno| ("making a pipe", errno.into()))?;

    let first = RawFd::from(listen_fds::FIRST);
    let own = number_beside(order.sockets.len(), order.beside.len());
    let own = RawFd::try_from(own).unwrap_or(RawFd::MAX);
    let outputs = order.output.iter().flatten().copied().zip(1..);
    let given = order.sockets.iter().chain(&order.beside).copied();
    let wanted: Vec<(BorrowedFd<'_>, RawFd)> = given.zip(first..).chain(outputs).collect();
    let [tells, directory, program] = [tells.as_fd(), order.directory, order.program]
        .map(|source| lift(source, own).map_err(step("placing a descriptor")));
    let (tells, directory, program) = (tells?, directory?, program?);
    let sources = wanted.iter().map(|&(source, _)| lift(source, own));
    let sources: Vec<Source<'_>> =
        sources.collect::<io::Result<_>>().map_err(step("placing a descriptor"))?;

    let plan = order.plan;
    let (environment, stamp) =
        environment(plan, &order.sockets).map_err(step("preparing its environment"))?;
    let mut prepared = Prepared {
        given: sources
            .iter()
            .zip(&wanted)
            .map(|(source, &(_, target))| (source.as_fd(), target))
            .collect(),
        outcome: tells.as_fd(),
        directory: directory.as_fd(),
        program: program.as_fd(),
        entrance: None,
        own,
        path: CString::new(plan.path).map_err(|error| ("preparing its path", error.into()))?,
        arguments: arguments(plan).map_err(step("preparing its arguments"))?,
        environment,
        stamp,
        plan,
    };
    let (pid, pidfd) = match order.cgroup {
        Some(leaf) => start_in(&mut prepared, leaf)?,
        None => start(&mut prepared, None).map_err(step(STARTING))?,
    };
    Ok(Spawned { pid, pidfd, outcome })
}

const STARTING: &str = "starting a process";

/// Starts it in its cgroup, where the kernel can; where it refuses, the process enters it by itself.
/// That takes 8 ms, since the kernel waits for all its processors before it moves a process.
fn start_in(prepared: &mut Prepared<'_>, leaf: &Leaf) -> Result<(Pid, OwnedFd), Failure> {
    let opening = |error| ("opening its cgroup", error);
    let directory = leaf.open().map_err(opening)?;
    match start(prepared, Some(directory.as_fd())) {
        Err(error) if is_about_the_cgroup(&error) => {}
        started => return started.map_err(|error| (STARTING, error)),
    }
    let entrance = leaf.entrance().map_err(opening)?;
    prepared.entrance = Some(match lift(entrance.as_fd(), prepared.own).map_err(opening)? {
        Source::Lifted(entrance) => entrance,
        Source::Given(_) => entrance,
    });
    start(prepared, None).map_err(|error| (STARTING, error))
}

/// Whether another way to start it may do: nothing is short.
fn is_about_the_cgroup(error: &io::Error) -> bool {
    let short = [libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ENFILE];
    error.raw_os_error().is_none_or(|errno| !short.contains(&errno))
}

/// Makes the copy. No signal reaches it before it has left our handlers.
fn start(
    prepared: &mut Prepared<'_>,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<(Pid, OwnedFd)> {
    let before = sys::set_signal_mask(SignalMask::ALL)?;
    let started = sys::clone_process(cgroup, prepared, child::become_program);
    // What was the mask a moment ago is one.
    let _ = sys::set_signal_mask(before);
    started
}

/// A descriptor whose number is above all that are wanted: a source among these would be overwritten
/// before it is used.
enum Source<'a> {
    Given(BorrowedFd<'a>),
    Lifted(OwnedFd),
}

impl AsFd for Source<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Source::Given(given) => *given,
            Source::Lifted(lifted) => lifted.as_fd(),
        }
    }
}

fn lift(source: BorrowedFd<'_>, own: RawFd) -> io::Result<Source<'_>> {
    let end = own.saturating_add(child::OWN_MAX);
    if source.as_raw_fd() >= end {
        return Ok(Source::Given(source));
    }
    let raw = fcntl(source, FcntlArg::F_DUPFD_CLOEXEC(end))?;
    let lifted = sys::take_descriptor(raw).ok_or(io::ErrorKind::NotFound)?;
    Ok(Source::Lifted(lifted))
}

fn arguments(plan: &Plan<'_>) -> io::Result<Strings> {
    let mut arguments = Strings::with_room(plan.arguments.len(), plan.arguments.concat().len());
    for argument in &plan.arguments {
        arguments.push(&[argument])?;
    }
    Ok(arguments)
}

fn environment(
    plan: &Plan<'_>,
    sockets: &[BorrowedFd<'_>],
) -> io::Result<(Strings, Option<Stamp>)> {
    let bytes = |(name, value): (&&[u8], &Cow<'_, [u8]>)| name.len() + 1 + value.len();
    let bytes: usize = plan.environment.iter().map(bytes).sum();
    let mut environment = Strings::with_room(plan.environment.len() + 2, bytes + STAMP_MAX);
    for (name, value) in &plan.environment {
        environment.push(&[name, b"=", value])?;
    }
    if sockets.is_empty() {
        return Ok((environment, None));
    }
    let mut number = |name: &str| environment.push_with_room(&[name.as_bytes(), b"="], DIGITS_MAX);
    let pid = number(listen_fds::PID)?;
    let pidfd_id = if has_pidfd_ids() { Some(number(listen_fds::PIDFD_ID)?) } else { None };
    Ok((environment, Some(Stamp { pid, pidfd_id })))
}

/// Reads what the process has told so far. Returns whether it has told everything.
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

#[cfg(test)]
mod tests;
