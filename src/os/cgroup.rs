//! Cgroups of version 2, one for each worker, where we may make them: what a process belongs to
//! whatever it does to its parent, session and environment, and what ends all of it at once.
//!
//! ```text
//! BASE                     what we were given: our unit's, our container's
//! └── shepherd.web         ours, as long as we hold a lock on the directory
//!     ├── supervisor       ourselves, only where memory is to be counted (see `Cgroups::count`)
//!     ├── worker.1
//!     ├── probe.1          the command that probes it, while one does
//!     └── worker.2
//! ```
//!
//! A directory of a daemon that was killed is taken over once nobody is in it. While its workers
//! live on it is left alone, and ours has another name. It never touches a cgroup that it has not
//! made, but for the switch that has memory counted.

mod leaf;

mod place;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, open};
use nix::sys::stat::{Mode, fstat, stat};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::Pid;
use thiserror::Error;

use super::{proc, sys};
use place::{Base, Marks, Place};

pub use leaf::{Events, Leaf};

/// How many names are tried: daemons of one name in one base, and what dead ones have left there.
const SAME_NAME_MAX: u32 = 64;

/// How often the removal of a worker's cgroup is tried again before it is left to our end: the
/// kernel may need a moment after the last process.
const REMOVALS_MAX: u32 = 100;

/// How many removals are tried again at a time, so that a turn of the loop stays short.
const REMOVALS_AT_ONCE: usize = 16;

/// How much of our own mounts is read: thousands of them.
const MOUNTINFO_MAX: u64 = 1 << 20;

/// How much of `memory.stat` is read: it has some 60 lines.
const STAT_MAX: u64 = 1 << 14;

/// The controller that counts memory. Processor time is counted without one.
const MEMORY: &str = "memory";

/// How the name of a worker's cgroup begins; its number follows.
const LEAF: &str = "worker.";

/// The same of its probe's.
const PROBE_LEAF: &str = "probe.";

/// With this bit a worker's number stands for the command that probes it, whose cgroup is no part of
/// the worker's: no worker is ever numbered so high.
pub const PROBE: u64 = 1 << 63;

/// The name of the cgroup that we move to.
const SUPERVISOR: &str = "supervisor";

/// Why workers are not kept in cgroups.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NoCgroups {
    /// There is no hierarchy of version 2.
    #[error("it is not mounted")]
    NotMounted,
    /// It is mounted, but not the part that we are in.
    #[error("our own cgroup `{0}` is not shown to us")]
    NotShown(PathBuf),
    /// Whoever manages our cgroup has not said that we may.
    #[error(
        "our own cgroup `{0}` is not delegated to us, see `Delegate=` in systemd.resource-control(5)"
    )]
    NotDelegated(PathBuf),
    /// We may by all rules, but cannot.
    #[error("cannot make cgroup `{0}`: {error}", error = .1.desc())]
    Refused(PathBuf, Errno),
    /// Every name is in use.
    #[error("`{0}` and all like it are taken")]
    Taken(PathBuf),
}

/// Our part of the tree. It goes when this is dropped, as far as nobody is in it.
#[derive(Debug)]
pub struct Cgroups {
    base: Base,
    own: Base,
    /// The cgroup that we were started in: the base, or one in it that we were put into.
    home: PathBuf,
    /// It is ours while this is open.
    _lock: Flock<OwnedFd>,
    /// What was changed to have memory counted, to be undone from the last to the first.
    changes: Vec<Change>,
    /// Cgroups of workers that have gone which could not be removed yet, and how often.
    unremoved: Vec<(Leaf, u32)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Change {
    /// We have moved out of the base.
    Moved,
    /// Memory is counted for what is right below this.
    Counts(PathBuf),
}

/// How much may be charged to the cgroups that we are in before one of them is full, in bytes; `None`
/// where none has a limit that we can read. What it charged for files that were not used lately counts
/// as free: the kernel takes that first.
#[must_use]
pub fn free() -> Option<u64> {
    let read = |path| proc::read_bounded(path, MOUNTINFO_MAX).unwrap_or_default();
    let places = place::places(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
    let directories: Vec<PathBuf> =
        places.unwrap_or_default().iter().flat_map(Place::up_to_top).collect();
    directories.iter().filter_map(|directory| free_in(directory)).min()
}

fn free_in(directory: &Path) -> Option<u64> {
    let read = |name: &str| {
        let text = proc::read_bounded(directory.join(name), STAT_MAX).ok()?;
        String::from_utf8(text).ok()
    };
    // Without a limit it says `max`.
    let most: u64 = read("memory.max")?.trim_ascii().parse().ok()?;
    let charged: u64 = read("memory.current")?.trim_ascii().parse().ok()?;
    let stat = read("memory.stat").unwrap_or_default();
    let idle = stat.lines().find_map(|line| line.strip_prefix("inactive_file "));
    let idle = idle.and_then(|number| number.trim_ascii().parse().ok()).unwrap_or(0);
    Some(most.saturating_sub(charged.saturating_sub(idle)))
}

impl Cgroups {
    /// Takes a part of the tree for the daemon of this name.
    ///
    /// # Errors
    ///
    /// Why there is none for us.
    pub fn claim(name: &str) -> Result<Cgroups, NoCgroups> {
        let read = |path| proc::read_bounded(path, MOUNTINFO_MAX).unwrap_or_default();
        let mut why = NoCgroups::NotMounted;
        for place in place::places(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))? {
            match Cgroups::claim_at(&place, name) {
                Ok(cgroups) => return Ok(cgroups),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// The directory that the workers' cgroups are in.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.own.directory
    }

    /// Makes the cgroup of a worker, or of its probe.
    ///
    /// # Errors
    ///
    /// Those of mkdir(2); `EAGAIN` when there may be no more (`cgroup.max.descendants`).
    pub fn leaf(&mut self, worker: u64) -> io::Result<Leaf> {
        self.retry();
        let leaf = Leaf::new(self.own.directory.join(place::name_of(worker)));
        fs::create_dir(leaf.directory())?;
        Ok(leaf)
    }

    /// In which worker's cgroup, or below it, a process is, also one that has exited and was not
    /// reaped. Only where `/proc` shows our processes.
    #[must_use]
    pub fn worker_of(&self, pid: Pid) -> Option<u64> {
        place::worker_in(&place::path_in(&proc::cgroups(pid).ok()?)?, &self.own.path)
    }

    /// Removes the cgroup of a worker that has gone, now or a little later.
    pub fn remove(&mut self, leaf: Leaf) {
        self.retry();
        self.try_remove(leaf, 0);
    }

    fn retry(&mut self) {
        let count = self.unremoved.len().min(REMOVALS_AT_ONCE);
        for (leaf, tries) in self.unremoved.drain(..count).collect::<Vec<_>>() {
            self.try_remove(leaf, tries);
        }
    }

    fn try_remove(&mut self, leaf: Leaf, tries: u32) {
        if leaf::remove(leaf.directory()).is_err() && tries < REMOVALS_MAX {
            self.unremoved.push((leaf, tries + 1));
        }
    }

    fn claim_at(place: &Place, name: &str) -> Result<Cgroups, NoCgroups> {
        // Something else may have been mounted over it.
        if !statfs(&place.directory).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC) {
            return Err(NoCgroups::NotShown(place.path.clone()));
        }
        let base = place.base(&Kernel)?;
        let wanted = base.directory.join(format!("shepherd.{name}"));
        for number in 1..=SAME_NAME_MAX {
            let name = match number {
                1 => format!("shepherd.{name}"),
                _ => format!("shepherd.{name}-{number}"),
            };
            let own = Base { directory: base.directory.join(&name), path: base.path.join(&name) };
            let lock = take(&own.directory)
                .map_err(|errno| NoCgroups::Refused(own.directory.clone(), errno))?;
            if let Some(lock) = lock {
                let (changes, unremoved) = (Vec::new(), Vec::new());
                let home = place.directory.clone();
                let mut cgroups = Cgroups { base, own, home, _lock: lock, changes, unremoved };
                cgroups.count();
                return Ok(cgroups);
            }
        }
        Err(NoCgroups::Taken(wanted))
    }

    /// Has memory counted for each worker, where the base can do that and no other process stands
    /// in the way: a cgroup that hands controllers down may hold no process itself, but for the
    /// root of all. That one is not ours to switch.
    fn count(&mut self) {
        let base = self.base.directory.clone();
        let own = self.own.directory.clone();
        if !Kernel.is_root(&base) && lists(&base, "cgroup.controllers", MEMORY) {
            let members = proc::read_bounded(base.join("cgroup.procs"), MOUNTINFO_MAX);
            let members = proc::parse_children(&members.unwrap_or_default());
            if base == self.home && members == [Pid::this()] {
                self.move_out();
            }
            self.hand_down(&base);
        }
        if lists(&own, "cgroup.controllers", MEMORY) {
            self.hand_down(&own);
        } else {
            // Then nothing is gained by what was changed so far.
            self.undo();
        }
    }

    fn move_out(&mut self) {
        let supervisor = self.own.directory.join(SUPERVISOR);
        let made = fs::create_dir(&supervisor);
        if made.and_then(|()| leaf::write(&supervisor.join("cgroup.procs"), "0")).is_ok() {
            self.changes.push(Change::Moved);
        }
    }

    fn hand_down(&mut self, directory: &Path) {
        let file = "cgroup.subtree_control";
        if !lists(directory, file, MEMORY) && leaf::write(&directory.join(file), "+memory").is_ok()
        {
            self.changes.push(Change::Counts(directory.to_owned()));
        }
    }

    fn undo(&mut self) {
        while let Some(change) = self.changes.pop() {
            // What cannot be undone is in use by somebody else, and stays.
            let _ = match change {
                Change::Moved => leaf::write(&self.base.directory.join("cgroup.procs"), "0")
                    .and_then(|()| fs::remove_dir(self.own.directory.join(SUPERVISOR))),
                Change::Counts(directory) if self.is_shared(&directory) => Ok(()),
                Change::Counts(directory) => {
                    leaf::write(&directory.join("cgroup.subtree_control"), "-memory")
                }
            };
        }
    }

    /// Whether others have made cgroups there, too.
    fn is_shared(&self, directory: &Path) -> bool {
        let is_known = |below: &PathBuf| *below == self.own.directory || *below == self.home;
        directory == self.base.directory && !leaf::below(directory).iter().all(is_known)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        self.undo();
        // Somebody who lives on keeps his own, and the way to it.
        let _ = leaf::remove(&self.own.directory);
    }
}

/// Makes a directory of our own, or takes over one that nobody has and nobody is in. Nothing when
/// somebody has it or is in it.
fn take(directory: &Path) -> Result<Option<Flock<OwnedFd>>, Errno> {
    let is_new = match nix::unistd::mkdir(directory, Mode::from_bits_truncate(0o755)) {
        Ok(()) => true,
        Err(Errno::EEXIST) => false,
        Err(errno) => return Err(errno),
    };
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let file = match open(directory, flags, Mode::empty()) {
        // Its daemon has ended at this very moment.
        Err(Errno::ENOENT) => return Ok(None),
        opened => opened?,
    };
    let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
        return Ok(None);
    };
    let is_it = match (fstat(&*lock), stat(directory)) {
        (Ok(locked), Ok(named)) => locked.st_ino == named.st_ino,
        (Err(_), _) | (_, Err(_)) => false,
    };
    if !is_it {
        return Ok(None);
    }
    if is_new {
        return Ok(Some(lock));
    }
    for stale in leaf::below(directory) {
        let _ = leaf::remove(&stale);
    }
    let is_empty = leaf::below(directory).is_empty();
    let top = Leaf::new(directory.to_owned());
    Ok((is_empty && !top.is_populated()).then_some(lock))
}

/// Whether a file of a cgroup lists a controller.
fn lists(directory: &Path, file: &str, controller: &str) -> bool {
    let text = proc::read_bounded(directory.join(file), MOUNTINFO_MAX).unwrap_or_default();
    text.split(u8::is_ascii_whitespace).any(|word| word == controller.as_bytes())
}

/// What the kernel and the file system say.
struct Kernel;

impl Marks for Kernel {
    /// systemd sets the second for everybody to read, since version 251 or so, and both to `1`.
    fn is_delegated(&self, directory: &Path) -> bool {
        [c"trusted.delegate", c"user.delegate"]
            .into_iter()
            .any(|name| sys::attribute(directory, name).is_ok_and(|value| value == b"1"))
    }

    /// The root is the only one that has no type, see cgroups(7).
    fn is_root(&self, directory: &Path) -> bool {
        !directory.join("cgroup.type").exists()
    }

    /// As sd_booted(3) looks.
    fn has_manager(&self) -> bool {
        fs::symlink_metadata("/run/systemd/system").is_ok_and(|metadata| metadata.is_dir())
    }
}
