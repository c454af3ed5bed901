//! The trampoline: from our own binary to the worker's program, in numbered stages. It runs in the
//! new process only, reads its plan, sets everything up and never comes back.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, FdFlag, fcntl};
use nix::sys::prctl::{set_no_new_privs, set_pdeathsig};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, fstat, stat, umask};
use nix::sys::statfs::fstatfs;
use nix::unistd::{
    Gid, Pid, Uid, execve, execveat, fchdir, getppid, setgroups, setresgid, setresuid, setsid,
    write,
};

use super::{limits, sys};
use crate::config::identity::Resource;
use crate::protocol::exec_plan::{Credentials, ExecPlan, Layout, Stage, entering, failed};
use crate::protocol::listen_fds;

/// The exit code of a trampoline that failed; whoever started it learns more from the outcome pipe.
pub const FAILED: u8 = 126;

/// The most bytes that a plan may have: the kernel allows no larger environment and arguments.
const PLAN_MAX: usize = 8 << 20;

/// Becomes the worker. Returns only when it could not, after saying so on the outcome pipe.
#[must_use]
pub fn become_worker(sockets: u32) -> u8 {
    let layout = Layout::new(sockets);
    let own = |number: u32| {
        let file = sys::take_descriptor(RawFd::try_from(number).ok()?)?;
        fcntl(&file, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
        Some(file)
    };
    let (Some(outcome), Some(plan), Some(directory), Some(program), Some(cgroup)) = (
        own(layout.outcome()),
        own(layout.plan()),
        own(layout.directory()),
        own(layout.program()),
        own(layout.cgroup()),
    ) else {
        use std::io::Write;
        let _ = writeln!(io::stderr(), "shepherd: this option is for shepherd's own use");
        return FAILED;
    };
    let report = |record: &[u8]| {
        // The daemon may have died: then nobody is left to tell.
        let _ = write(&outcome, record);
    };
    let mut stage = Stage::Plan;
    let mut enter = |next: Stage| {
        stage = next;
        report(&entering(next));
    };
    let given = Given { plan, directory, program, cgroup };
    let Err(errno) = set_up(layout, given, &mut enter);
    report(&failed(stage, errno as i32));
    FAILED
}

/// What it was given besides its sockets and the outcome pipe.
struct Given {
    plan: OwnedFd,
    directory: OwnedFd,
    program: OwnedFd,
    cgroup: OwnedFd,
}

fn set_up(
    layout: Layout,
    given: Given,
    enter: &mut impl FnMut(Stage),
) -> Result<std::convert::Infallible, Errno> {
    let Given { plan, directory, program, cgroup } = given;
    enter(Stage::Plan);
    let plan = read_plan(plan)?;
    let command = Command::of(&plan)?;

    enter(Stage::Descriptors);
    sys::close_from(layout.end()).map_err(errno)?;

    enter(Stage::Cgroup);
    write(&cgroup, b"0")?;

    enter(Stage::Session);
    setsid()?;

    enter(Stage::Limits);
    for &(resource, soft, hard) in &plan.limits {
        let resource = Resource::from_number(resource).ok_or(Errno::EBADMSG)?;
        limits::set(resource, soft, hard)?;
    }
    if let Some(nice) = plan.nice {
        sys::set_thread_nice(nice.into()).map_err(errno)?;
    }
    if let Some(mask) = plan.umask {
        umask(Mode::from_bits_truncate(mask));
    }

    enter(Stage::Identity);
    if let Some(credentials) = &plan.credentials {
        // While the new one is charged to us: a user may have 200 keys, root a million. Where it is
        // refused, by a container mostly, keys are of no use to the worker either.
        let _ = sys::leave_session_keyring();
        become_user(credentials)?;
    }

    enter(Stage::Privileges);
    if plan.drops_capabilities {
        // Becoming another user than root takes away what is in effect, but not what is handed on
        // at exec; and securebits may keep even that, locked by whoever started us, see
        // capabilities(7). So all sets are emptied, whatever the bits say.
        sys::clear_thread_capabilities().map_err(errno)?;
    }
    if plan.no_new_privileges {
        set_no_new_privs()?;
    }

    enter(Stage::Directory);
    fchdir(&directory)?;

    enter(Stage::Signals);
    reset_signals()?;
    if let Some(other) = plan.ends_with {
        end_with(other)?;
    }

    enter(Stage::Exec);
    command.exec(&plan, &program)
}

/// The groups first: another user may change none.
fn become_user(credentials: &Credentials) -> Result<(), Errno> {
    let groups: Vec<Gid> = credentials.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups)?;
    let group = Gid::from_raw(credentials.group);
    setresgid(group, group, group)?;
    let user = Uid::from_raw(credentials.user);
    setresuid(user, user, user)
}

fn read_plan(plan: OwnedFd) -> Result<ExecPlan, Errno> {
    let file = std::fs::File::from(plan);
    let size = file.metadata().map_err(errno)?.size();
    let size = usize::try_from(size).ok().filter(|&size| size <= PLAN_MAX).ok_or(Errno::E2BIG)?;
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, 0).map_err(errno)?;
    ExecPlan::decode(&bytes).map_err(|_| Errno::EBADMSG)
}

/// Default dispositions for all signals (Rust ignores PIPE at start) and none blocked. A HUP that
/// came meanwhile is dropped by ignoring it once before it is unblocked.
fn reset_signals() -> Result<(), Errno> {
    sys::ignore(libc::SIGHUP).map_err(errno)?;
    SigSet::empty().thread_set_mask()?;
    for number in 1..=libc::SIGRTMAX() {
        match sys::set_default(number) {
            Ok(()) => {}
            // KILL and STOP have no other disposition.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => return Err(errno(error)),
        }
    }
    Ok(())
}

/// KILL comes when our parent ends, see `PR_SET_PDEATHSIG` in prctl(2).
fn end_with(parent: u32) -> Result<(), Errno> {
    set_pdeathsig(Signal::SIGKILL)?;
    // It may have ended before that.
    if u32::try_from(getppid().as_raw()) == Ok(parent) { Ok(()) } else { Err(Errno::ESRCH) }
}

/// What execve(2) takes. It is made before the limits hold: they may leave us no memory.
struct Command {
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Command {
    fn of(plan: &ExecPlan) -> Result<Command, Errno> {
        let arguments = plan.arguments.iter().map(|argument| cstring(argument));
        Ok(Command {
            path: cstring(&plan.path)?,
            arguments: arguments.collect::<Result<_, _>>()?,
            environment: environment(plan)?,
        })
    }

    fn exec(&self, plan: &ExecPlan, program: &OwnedFd) -> Result<std::convert::Infallible, Errno> {
        if plan.pinned && !names(&self.path, program) {
            let flags = AtFlags::AT_EMPTY_PATH;
            return execveat(program, c"", &self.arguments, &self.environment, flags);
        }
        execve(&self.path, &self.arguments, &self.environment)
    }
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

fn environment(plan: &ExecPlan) -> Result<Vec<CString>, Errno> {
    let mut variables: Vec<CString> = Vec::with_capacity(plan.environment.len() + 2);
    for (name, value) in &plan.environment {
        variables.push(cstring(&[name.as_slice(), b"=", value.as_slice()].concat())?);
    }
    if plan.sockets > 0 {
        for (name, value) in own_stamp() {
            variables.push(cstring(format!("{name}={value}").as_bytes())?);
        }
    }
    Ok(variables)
}

/// The variables that say that the sockets are meant for this process.
#[must_use]
pub fn own_stamp() -> Vec<(String, String)> {
    listen_fds::stamp(std::process::id(), own_pidfd_id())
}

/// The inode number of a pidfd of this process, where it tells processes apart: on pidfs only.
fn own_pidfd_id() -> Option<u64> {
    /// See statfs(2); the kernel's `PID_FS_MAGIC`.
    const PIDFS: libc::__fsword_t = 0x5049_4446;
    let pidfd = sys::pidfd_open(Pid::this()).ok()?;
    let filesystem = fstatfs(pidfd.as_fd()).ok()?;
    if filesystem.filesystem_type().0 != PIDFS {
        return None;
    }
    fstat(&pidfd).ok().map(|stat| stat.st_ino)
}

fn cstring(bytes: &[u8]) -> Result<CString, Errno> {
    CString::new(bytes).map_err(|_| Errno::EINVAL)
}

#[expect(clippy::needless_pass_by_value, reason = "it is for `map_err`")]
fn errno(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// Replaces this process by `command`, its environment ours less what the convention stamps, plus
/// the stamp for this process. For the end of a wrapper script.
///
/// # Errors
///
/// Why the program could not be run; on success it does not return.
pub fn exec_stamped(command: &[std::ffi::OsString]) -> Result<std::convert::Infallible, io::Error> {
    use std::os::unix::process::CommandExt;
    let (program, arguments) =
        command.split_first().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut process = std::process::Command::new(program);
    process.args(arguments);
    for name in ["LISTEN_PID", "LISTEN_PIDFDID"] {
        process.env_remove(name);
    }
    if std::env::var_os("LISTEN_FDS").is_some() {
        process.envs(own_stamp());
    }
    // Rust ignores PIPE at start, and a disposition survives exec.
    sys::set_default(libc::SIGPIPE)?;
    Err(process.exec())
}
