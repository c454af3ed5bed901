//! What the machine lets us have: open files and processors.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{SysconfVar, sysconf};

/// A soft and a hard limit on open files.
pub type OpenFiles = (u64, u64);

/// What became of our own limit on open files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raised {
    /// What it was. Workers get that, since programs that use select(2) break above 1024
    /// descriptors.
    pub before: OpenFiles,
    /// How many we may open.
    pub ours: u64,
}

/// Raises our own soft limit on open files to the hard one, and the hard one to `needed` where that
/// is more and we may (`CAP_SYS_RESOURCE`).
///
/// # Errors
///
/// Those of getrlimit(2).
pub fn raise_open_files(needed: u64) -> io::Result<Raised> {
    let before @ (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    for ours in [hard.max(needed), hard] {
        if soft >= ours || setrlimit(Resource::RLIMIT_NOFILE, ours, ours).is_ok() {
            return Ok(Raised { before, ours: soft.max(ours) });
        }
    }
    Ok(Raised { before, ours: soft })
}

/// The limits that a worker gets: those that we were started with, as far as ours still allow them.
/// Somebody may have lowered ours since, and nobody can raise a hard limit again without privilege.
#[must_use]
pub fn open_files_for_worker((soft, hard): OpenFiles) -> OpenFiles {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, ours)) => (soft.min(ours), hard.min(ours)),
        Err(_) => (soft, hard),
    }
}

/// How many processors we may use: the affinity mask and the cgroup's quota count, both versions of
/// cgroups are known to the standard library. At least 1.
#[must_use]
pub fn processors_for_us() -> u32 {
    std::thread::available_parallelism()
        .ok()
        .and_then(|count| u32::try_from(count.get()).ok())
        .unwrap_or(1)
}

/// How many processors of the machine are online, see sysconf(3). At least 1.
#[must_use]
pub fn processors_online() -> u32 {
    sysconf(SysconfVar::_NPROCESSORS_ONLN)
        .ok()
        .flatten()
        .and_then(|count| u32::try_from(count).ok())
        .filter(|&count| count > 0)
        .unwrap_or(1)
}
