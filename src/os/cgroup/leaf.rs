//! The cgroup of one worker: who is in it, what they have used, and the end of all of them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use crate::core::event::Used;
use crate::os::proc;

/// How much of a file in a cgroup is read at most: the pids of some 100,000 processes.
const FILE_MAX: u64 = 1 << 20;

/// How many cgroups a worker may have made below its own, and how deep, before the rest is left
/// alone: more than any that was seen, and few enough that a turn of the loop stays short.
const BELOW_MAX: usize = 256;

/// How often an empty list is read again while the kernel says that somebody is there: a process
/// on its way out is in neither for some microseconds.
const RECOUNTS_MAX: usize = 3;

/// A worker's cgroup. It does not go by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    directory: PathBuf,
}

/// Tells when the last process of a cgroup has gone.
#[derive(Debug)]
pub struct Events {
    file: File,
}

impl Leaf {
    pub(super) fn new(directory: PathBuf) -> Leaf {
        Leaf { directory }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its directory, to have a process born in it.
    ///
    /// # Errors
    ///
    /// Those of open(2).
    pub fn open(&self) -> io::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(open(&self.directory, flags, Mode::empty())?)
    }

    /// Where a process writes `0` to enter, see cgroups(7).
    ///
    /// # Errors
    ///
    /// Those of open(2).
    pub fn entrance(&self) -> io::Result<OwnedFd> {
        let file = OpenOptions::new().write(true).open(self.directory.join("cgroup.procs"))?;
        Ok(file.into())
    }

    /// Every live process in it and below, each once, in order.
    #[must_use]
    pub fn members(&self) -> Vec<Pid> {
        for _ in 0..RECOUNTS_MAX {
            let members = self.listed();
            if !members.is_empty() || !self.is_populated() {
                return members;
            }
        }
        Vec::new()
    }

    /// Whether a live process is in it or below.
    #[must_use]
    pub fn is_populated(&self) -> bool {
        let events = proc::read_bounded(self.directory.join("cgroup.events"), FILE_MAX);
        events.is_ok_and(|text| value(&text, "populated") == Some(1))
    }

    /// Sends KILL to all in it and below, those that are just being forked included.
    ///
    /// # Errors
    ///
    /// `NotFound` before Linux 5.14.
    pub fn kill(&self) -> io::Result<()> {
        write(&self.directory.join("cgroup.kill"), "1")
    }

    /// What becomes ready, for `POLLPRI`, whenever it becomes empty or ceases to be.
    ///
    /// # Errors
    ///
    /// Those of open(2).
    pub fn events(&self) -> io::Result<Events> {
        Ok(Events { file: File::open(self.directory.join("cgroup.events"))? })
    }

    /// What all that ever were in it have used so far. Nothing when it has gone.
    #[must_use]
    pub fn usage(&self) -> Option<Used> {
        let read = |name| proc::read_bounded(self.directory.join(name), FILE_MAX).ok();
        let microseconds = value(&read("cpu.stat")?, "usage_usec")?;
        // The first is there since Linux 5.19; neither where memory is not controlled.
        let memory_most = ["memory.peak", "memory.current"]
            .into_iter()
            .find_map(|name| std::str::from_utf8(&read(name)?).ok()?.trim_ascii().parse().ok());
        Some(Used { processor: Duration::from_micros(microseconds), memory_most })
    }

    /// What is charged to it and below at this moment, in bytes. Nothing where memory is not
    /// controlled.
    #[must_use]
    pub fn memory(&self) -> Option<u64> {
        let text = proc::read_bounded(self.directory.join("memory.current"), FILE_MAX).ok()?;
        std::str::from_utf8(&text).ok()?.trim_ascii().parse().ok()
    }

    fn listed(&self) -> Vec<Pid> {
        let mut pids = Vec::new();
        for directory in groups(&self.directory) {
            let text = proc::read_bounded(directory.join("cgroup.procs"), FILE_MAX);
            pids.extend(proc::parse_children(&text.unwrap_or_default()));
        }
        // Zero stands for a process outside of our namespace.
        pids.retain(|pid| pid.as_raw() > 0);
        pids.sort_unstable();
        pids.dedup();
        pids
    }
}

impl Events {
    /// Makes it ready only for what comes after this.
    pub fn rearm(&self) {
        // What it says is asked for by name; reading it is what counts, see kernfs_generic_poll().
        let _ = self.file.read_at(&mut [0; 64], 0);
    }
}

impl std::os::fd::AsFd for Events {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A cgroup and all below it, each before those in it; at most [`BELOW_MAX`].
pub(super) fn groups(top: &Path) -> Vec<PathBuf> {
    let mut found = vec![top.to_owned()];
    let mut index = 0;
    while let Some(directory) = found.get(index) {
        index += 1;
        // A directory has a link for itself, one from above, and one from each directory in it.
        let is_leaf = fs::metadata(directory).is_ok_and(|metadata| metadata.nlink() == 2);
        if !is_leaf {
            let below = below(directory);
            let room = BELOW_MAX.saturating_sub(found.len());
            found.extend(below.into_iter().take(room));
        }
    }
    found
}

/// The cgroups right below one.
pub(super) fn below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let is_group = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.filter(is_group).map(|entry| entry.path()).collect()
}

/// Removes a cgroup and all below it, as far as nobody is in them.
pub(super) fn remove(top: &Path) -> io::Result<()> {
    let mut result = Ok(());
    for directory in groups(top).iter().rev() {
        result = match fs::remove_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
    }
    result
}

/// Writes a word to a file of a cgroup, in one piece, as the kernel wants it.
pub(super) fn write(path: &Path, word: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(word.as_bytes())
}

/// The number after a key in lines of `KEY NUMBER`.
fn value(text: &[u8], key: &str) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_whole_key() {
        let text = b"usage_usec_x 3\nusage_usec 1500\nuser_usec 7\n";
        assert_eq!(value(text, "usage_usec"), Some(1500));
        assert_eq!(value(text, "usage"), None);
        assert_eq!(value(b"usage_usec many\n", "usage_usec"), None);
        assert_eq!(value(b"", "usage_usec"), None);
    }

    #[test]
    fn usage_says_what_is_counted() {
        let directory = tempfile::tempdir().expect("a directory");
        let leaf = Leaf::new(directory.path().to_owned());
        let file = |name: &str, text: &str| {
            fs::write(directory.path().join(name), text).expect("written");
        };
        assert_eq!(leaf.usage(), None);
        file("cpu.stat", "usage_usec 1500000\nuser_usec 1\n");
        let used = |memory_most| Used { processor: Duration::from_millis(1500), memory_most };
        assert_eq!(leaf.usage(), Some(used(None)));
        file("memory.current", "4096\n");
        assert_eq!(leaf.usage(), Some(used(Some(4096))));
        file("memory.peak", "8192\n");
        assert_eq!(leaf.memory(), Some(4096));
        assert_eq!(leaf.usage(), Some(used(Some(8192))));
    }
}
