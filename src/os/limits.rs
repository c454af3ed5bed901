//! What the machine lets us have, and what of it workers get: limits and processors.

use std::io;

use nix::errno::Errno;
use nix::sys::resource::{Resource as Kernels, getrlimit, setrlimit};
use nix::unistd::{SysconfVar, sysconf};
use thiserror::Error;

use crate::config::identity::{Limit, Resource};

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
    let before @ (soft, hard) = getrlimit(Kernels::RLIMIT_NOFILE)?;
    for ours in [hard.max(needed), hard] {
        if soft >= ours || setrlimit(Kernels::RLIMIT_NOFILE, ours, ours).is_ok() {
            return Ok(Raised { before, ours: soft.max(ours) });
        }
    }
    Ok(Raised { before, ours: soft })
}

/// The limits that a worker gets: on open files those that we were started with, as far as ours
/// still allow them, and then what is `wanted`. Somebody may have lowered ours since, and nobody can
/// raise a hard limit again without privilege.
#[must_use]
pub fn for_worker((soft, hard): OpenFiles, wanted: &[Limit]) -> Vec<Limit> {
    let ours = getrlimit(Kernels::RLIMIT_NOFILE).map_or(hard, |(_, ours)| ours);
    let resource = Resource::Nofile;
    let open_files = Limit { resource, soft: soft.min(ours), hard: hard.min(ours) };
    let mut limits: Vec<Limit> = Vec::new();
    for &limit in wanted {
        limits.retain(|other| other.resource != limit.resource);
        limits.push(limit);
    }
    if !wanted.iter().any(|limit| limit.resource == resource) {
        limits.push(open_files);
    }
    limits
}

/// A limit that a worker could not be given.
#[derive(Debug, Error)]
#[error(
    "cannot use `--limit {limit}`: {}; choose a lower one{}",
    if *.error == Errno::EPERM {
        format!("the hard limit is {ours}, and only root, or a process with CAP_SYS_RESOURCE, may raise it")
    } else {
        io::Error::from(*.error).to_string()
    },
    if limit.resource == Resource::Nofile { " (the kernel allows none above `fs.nr_open`)" } else { "" }
)]
pub struct LimitError {
    limit: Limit,
    ours: u64,
    error: Errno,
}

/// Whether a process that we start could be given these limits. It is tried: our own hard limit is
/// raised and put back, for capabilities alone do not tell (they may hold in a user namespace only).
///
/// # Errors
///
/// For the first that could not.
pub fn try_all(limits: &[Limit]) -> Result<(), LimitError> {
    for &limit in limits {
        let resource = kernels(limit.resource);
        let Ok((soft, ours)) = getrlimit(resource) else { continue };
        if limit.hard <= ours {
            continue;
        }
        setrlimit(resource, soft, limit.hard).map_err(|error| LimitError { limit, ours, error })?;
        // What was ours is never refused.
        let _ = setrlimit(resource, soft, ours);
    }
    Ok(())
}

/// Sets a limit of this process. It takes no memory.
///
/// # Errors
///
/// Those of setrlimit(2).
pub fn set(limit: Limit) -> nix::Result<()> {
    setrlimit(kernels(limit.resource), limit.soft, limit.hard)
}

fn kernels(resource: Resource) -> Kernels {
    match resource {
        Resource::As => Kernels::RLIMIT_AS,
        Resource::Core => Kernels::RLIMIT_CORE,
        Resource::Cpu => Kernels::RLIMIT_CPU,
        Resource::Data => Kernels::RLIMIT_DATA,
        Resource::Fsize => Kernels::RLIMIT_FSIZE,
        Resource::Locks => Kernels::RLIMIT_LOCKS,
        Resource::Memlock => Kernels::RLIMIT_MEMLOCK,
        Resource::Msgqueue => Kernels::RLIMIT_MSGQUEUE,
        Resource::Nice => Kernels::RLIMIT_NICE,
        Resource::Nofile => Kernels::RLIMIT_NOFILE,
        Resource::Nproc => Kernels::RLIMIT_NPROC,
        Resource::Rss => Kernels::RLIMIT_RSS,
        Resource::Rtprio => Kernels::RLIMIT_RTPRIO,
        Resource::Rttime => Kernels::RLIMIT_RTTIME,
        Resource::Sigpending => Kernels::RLIMIT_SIGPENDING,
        Resource::Stack => Kernels::RLIMIT_STACK,
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
