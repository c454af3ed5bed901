//! What a new process does before it is its program, in numbered stages. It is a copy of the daemon
//! without the other threads, which may have held any lock, so all of this is system calls on what was
//! prepared: nothing here takes or frees memory, takes a lock, or panics, nor does what it calls.
//!
//! It never comes back. What it owns is let go by the end of the process.

use std::convert::Infallible;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::prctl::{set_dumpable, set_no_new_privs, set_pdeathsig};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, fstat, stat, umask};
use nix::unistd::{fchdir, getppid, setsid, write};

use super::{DIGITS_MAX, Prepared};
use crate::os::exec::own_pidfd_id;
use crate::os::identity::Credentials;
use crate::os::limits;
use crate::os::sys::{self, SignalMask};
use crate::protocol::outcome::{RECORD, Stage, entering, failed};

/// How many descriptors it needs on its way, above those that it is given.
pub(super) const OWN_MAX: RawFd = 4;

/// Its exit code when it failed; the outcome pipe tells more.
const FAILED: i32 = 126;

/// Becomes the program, or tells why not and exits.
pub(super) fn become_program(prepared: &mut Prepared<'_>) -> ! {
    tell(prepared.outcome, entering(Stage::Descriptors));
    match place(prepared) {
        Ok(own) => {
            let mut stage = Stage::Descriptors;
            let Err(errno) = set_up(prepared, &own, &mut stage);
            tell(&own.outcome, failed(stage, errno as i32));
        }
        Err(errno) => tell(prepared.outcome, failed(Stage::Descriptors, errno as i32)),
    }
    sys::exit(FAILED)
}

/// What it needs on its way; it goes at exec.
struct Own {
    outcome: OwnedFd,
    directory: OwnedFd,
    program: OwnedFd,
    entrance: Option<OwnedFd>,
}

/// Puts everything in its place, and closes all else: it has a copy of each descriptor of ours.
fn place(prepared: &Prepared<'_>) -> Result<Own, Errno> {
    // The lowest number that is free is given.
    sys::close_range(0, 0)?;
    let _ = open(c"/dev/null", OFlag::O_RDONLY, Mode::empty())?.into_raw_fd();
    for &(source, target) in &prepared.given {
        let _ = sys::place(source, target, OFlag::empty())?.into_raw_fd();
    }
    let mut next = prepared.own;
    let mut keep = |source| {
        let target = next;
        next = next.wrapping_add(1);
        sys::place(source, target, OFlag::O_CLOEXEC)
    };
    let own = Own {
        outcome: keep(prepared.outcome)?,
        directory: keep(prepared.directory)?,
        program: keep(prepared.program)?,
        entrance: match &prepared.entrance {
            Some(entrance) => Some(keep(entrance.as_fd())?),
            None => None,
        },
    };
    sys::close_range(next.cast_unsigned(), u32::MAX)?;
    Ok(own)
}

fn set_up(prepared: &mut Prepared<'_>, own: &Own, stage: &mut Stage) -> Result<Infallible, Errno> {
    let mut enter = |next| {
        *stage = next;
        tell(&own.outcome, entering(next));
    };
    let plan = prepared.plan;
    leave_handlers()?;
    // While we may still open what it takes.
    stamp(prepared);

    enter(Stage::Cgroup);
    if let Some(entrance) = &own.entrance {
        write(entrance, b"0")?;
    }

    enter(Stage::Session);
    setsid()?;

    enter(Stage::Limits);
    for &limit in &plan.limits {
        limits::set(limit)?;
    }
    if let Some(nice) = plan.nice {
        sys::set_thread_nice(nice.into()).map_err(number)?;
    }
    if let Some(mask) = plan.umask {
        umask(Mode::from_bits_truncate(mask));
    }

    enter(Stage::Identity);
    if let Some(credentials) = plan.credentials {
        // While the new one is charged to us: a user may have 200 keys, root a million. Where it is
        // refused, by a container mostly, keys are of no use to the worker either.
        let _ = sys::leave_session_keyring();
        become_user(credentials)?;
    }
    if plan.credentials.is_some() || plan.drops_capabilities {
        // Its memory is a copy of ours until exec, and what is in it is nothing for the user.
        set_dumpable(false)?;
    }

    enter(Stage::Privileges);
    if plan.drops_capabilities {
        // Becoming another user than root takes away what is in effect, but not what is handed on
        // at exec; and securebits may keep even that, locked by whoever started us, see
        // capabilities(7). So all sets are emptied, whatever the bits say.
        sys::clear_thread_capabilities().map_err(number)?;
    }
    if plan.no_new_privileges {
        set_no_new_privs()?;
    }

    enter(Stage::Directory);
    fchdir(&own.directory)?;

    enter(Stage::Signals);
    reset_signals()?;
    if let Some(parent) = plan.ends_with {
        end_with(parent)?;
    }

    enter(Stage::Exec);
    // Not before: nobody may be left to read what was just told.
    set_default(libc::SIGPIPE)?;
    let (path, arguments) = (&prepared.path, &mut prepared.arguments);
    if plan.pinned && !names(path, &own.program) {
        return sys::execveat(&own.program, arguments, &mut prepared.environment);
    }
    sys::execve(path, arguments, &mut prepared.environment)
}

/// The groups first: another user may change none.
fn become_user(credentials: &Credentials) -> Result<(), Errno> {
    sys::set_thread_groups(&credentials.groups).map_err(number)?;
    sys::set_thread_group(credentials.group)?;
    sys::set_thread_user(credentials.user)
}

/// From here on a signal does what it does by default, as to any process that is starting. But for
/// HUP: it has our name, and somebody who sends HUP to all of that name means the daemon. PIPE stays
/// ignored until all is told: that we have died, and nobody reads that, must not end it.
fn leave_handlers() -> Result<(), Errno> {
    for number in (1..=libc::SIGRTMAX()).filter(|&number| number != libc::SIGPIPE) {
        set_default(number)?;
    }
    sys::set_signal_mask(SignalMask::only(libc::SIGHUP)).map_err(number)?;
    Ok(())
}

/// Default dispositions for all signals but PIPE and none blocked. A HUP that came meanwhile is dropped
/// by ignoring it once before it is unblocked.
fn reset_signals() -> Result<(), Errno> {
    sys::ignore(libc::SIGHUP).map_err(number)?;
    sys::set_signal_mask(SignalMask::NONE).map_err(number)?;
    set_default(libc::SIGHUP)
}

fn set_default(signal: i32) -> Result<(), Errno> {
    match sys::set_default(signal).map_err(number) {
        // KILL and STOP have no other disposition.
        Ok(()) | Err(Errno::EINVAL) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// KILL comes when our parent ends, see `PR_SET_PDEATHSIG` in prctl(2).
fn end_with(parent: u32) -> Result<(), Errno> {
    set_pdeathsig(Signal::SIGKILL)?;
    // It may have ended before that.
    if u32::try_from(getppid().as_raw()) == Ok(parent) { Ok(()) } else { Err(Errno::ESRCH) }
}

/// Writes down who it is.
fn stamp(prepared: &mut Prepared<'_>) {
    let Some(stamp) = &prepared.stamp else { return };
    let mut digits = [0; DIGITS_MAX];
    let pid = sys::own_pid();
    let environment = &mut prepared.environment;
    environment.fill(stamp.pid, decimal(pid.as_raw().unsigned_abs().into(), &mut digits));
    if let Some(slot) = stamp.pidfd_id {
        match own_pidfd_id(pid) {
            Some(id) => environment.fill(slot, decimal(id, &mut digits)),
            None => environment.drop_last(),
        }
    }
}

/// A number without leading zeros.
fn decimal(mut number: u64, digits: &mut [u8; DIGITS_MAX]) -> &[u8] {
    let mut start = DIGITS_MAX;
    for (index, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' | u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        start = index;
        if number == 0 {
            break;
        }
    }
    digits.get(start..).unwrap_or_default()
}

/// Whether `path` still leads to this very file.
fn names(path: &CStr, file: &OwnedFd) -> bool {
    match (stat(path), fstat(file)) {
        (Ok(at_path), Ok(opened)) => {
            (at_path.st_dev, at_path.st_ino) == (opened.st_dev, opened.st_ino)
        }
        (Err(_), _) | (_, Err(_)) => false,
    }
}

/// The daemon may have died: then nobody is left to tell.
fn tell(outcome: impl AsFd, record: [u8; RECORD]) {
    let _ = write(outcome, &record);
}

#[expect(clippy::needless_pass_by_value, reason = "it is for `map_err`")]
fn number(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_no_leading_zeros() {
        for number in [0, 7, 10, 4_194_304, u64::MAX] {
            assert_eq!(decimal(number, &mut [0; DIGITS_MAX]), number.to_string().as_bytes());
        }
    }
}
