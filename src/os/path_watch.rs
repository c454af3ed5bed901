//! Tells when something may have happened to the files of unix sockets, see inotify(7). It says
//! neither what nor to which of them: who asked looks at each, which takes one lstat(2).
//!
//! The socket's own inode is watched, not its directory, so that a busy `/tmp` wakes nobody: its
//! link count changes when the file is removed or another is renamed over it, and it says so when
//! it is moved. The directory itself is watched for being moved or removed. That one of the
//! directories above is moved is not seen.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// How many times events are read in a turn; what is left wakes the loop again.
const READS_MAX: usize = 16;

/// A set of watched paths.
#[derive(Debug)]
pub struct PathWatch {
    inotify: Inotify,
}

impl PathWatch {
    /// An empty set.
    ///
    /// # Errors
    ///
    /// `EMFILE` where this user has too many of them (`fs.inotify.max_user_instances`).
    pub fn new() -> io::Result<PathWatch> {
        Ok(PathWatch { inotify: Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)? })
    }

    /// Watches the file and the directory that it is in. Look at the path afterwards: what happened
    /// before is not told. The watch ends when the file and its last socket are gone.
    ///
    /// # Errors
    ///
    /// `ENOENT` where it has gone already, `EACCES`, `ENOSPC` where this user watches too much.
    pub fn add(&self, path: &Path) -> io::Result<()> {
        let gone = AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_DELETE_SELF;
        if let Some(directory) = path.parent() {
            self.inotify.add_watch(directory, gone | AddWatchFlags::IN_ONLYDIR)?;
        }
        let links = AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_DONT_FOLLOW;
        self.inotify.add_watch(path, gone | links)?;
        Ok(())
    }

    /// Takes the news away, so that the descriptor is readable for the next.
    pub fn drain(&self) {
        for _ in 0..READS_MAX {
            match self.inotify.read_events() {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }
}

impl AsFd for PathWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::fs;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn has_news(watch: &PathWatch) -> bool {
        let mut entry = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
        let news = poll(&mut entry, PollTimeout::ZERO).unwrap() > 0;
        watch.drain();
        news
    }

    fn watched(path: &Path) -> (UnixListener, PathWatch) {
        let listener = UnixListener::bind(path).unwrap();
        let watch = PathWatch::new().unwrap();
        watch.add(path).unwrap();
        (listener, watch)
    }

    #[test]
    fn a_file_that_is_removed_replaced_or_moved_is_news() {
        let deeds: [fn(&Path); 3] = [
            |path| fs::remove_file(path).unwrap(),
            |path| {
                let _other = UnixListener::bind(path.with_extension("new")).unwrap();
                fs::rename(path.with_extension("new"), path).unwrap();
            },
            |path| fs::rename(path, path.with_extension("old")).unwrap(),
        ];
        for deed in deeds {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("x.sock");
            let (_listener, watch) = watched(&path);
            assert!(!has_news(&watch));
            deed(&path);
            assert!(has_news(&watch) && !has_news(&watch));
        }
    }

    #[test]
    fn a_directory_that_is_moved_is_news() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("run");
        fs::create_dir(&inner).unwrap();
        let (_listener, watch) = watched(&inner.join("x.sock"));
        fs::rename(&inner, directory.path().join("other")).unwrap();
        assert!(has_news(&watch));
    }

    #[test]
    fn connections_and_other_files_are_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let (_listener, watch) = watched(&path);
        UnixStream::connect(&path).unwrap();
        fs::write(directory.path().join("other"), "").unwrap();
        fs::remove_file(directory.path().join("other")).unwrap();
        assert!(!has_news(&watch));
    }
}
