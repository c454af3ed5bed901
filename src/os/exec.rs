//! Says to a program that the sockets which we were given are meant for it, and becomes it: the end
//! of a wrapper script.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::sync::OnceLock;

use nix::sys::stat::fstat;
use nix::sys::statfs::fstatfs;
use nix::unistd::Pid;

use super::sys;
use crate::protocol::listen_fds;

/// Replaces this process by `command`, its environment ours less what the convention stamps, plus
/// the stamp for this process.
///
/// # Errors
///
/// Why the program could not be run; on success it does not return.
pub fn exec_stamped(command: &[OsString]) -> Result<std::convert::Infallible, io::Error> {
    use std::os::unix::process::CommandExt;
    let (program, arguments) =
        command.split_first().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut process = std::process::Command::new(program);
    process.args(arguments);
    for name in [listen_fds::PID, listen_fds::PIDFD_ID] {
        process.env_remove(name);
    }
    if std::env::var_os("LISTEN_FDS").is_some() {
        let pid = Pid::this();
        process.env(listen_fds::PID, pid.to_string());
        if let Some(id) = own_pidfd_id(pid).filter(|_| has_pidfd_ids()) {
            process.env(listen_fds::PIDFD_ID, id.to_string());
        }
    }
    // Rust ignores PIPE at start, and a disposition survives exec.
    sys::set_default(libc::SIGPIPE)?;
    Err(process.exec())
}

/// Whether the inode number of a pidfd tells processes apart: on pidfs only.
pub(super) fn has_pidfd_ids() -> bool {
    /// See statfs(2); the kernel's `PID_FS_MAGIC`.
    const PIDFS: libc::__fsword_t = 0x5049_4446;
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let pidfd = sys::pidfd_open(Pid::this());
        let filesystem = pidfd.map(|pidfd| fstatfs(pidfd.as_fd()));
        matches!(filesystem, Ok(Ok(filesystem)) if filesystem.filesystem_type().0 == PIDFS)
    })
}

/// The inode number of a pidfd of this process, whose number that is. It takes no memory.
pub(super) fn own_pidfd_id(pid: Pid) -> Option<u64> {
    let pidfd = sys::pidfd_open(pid).ok()?;
    fstat(&pidfd).ok().map(|stat| stat.st_ino)
}
