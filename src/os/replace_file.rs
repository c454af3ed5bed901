//! Replaces a file at once and for good: whoever reads it sees the old one or the new one whole, and
//! after a power failure too. Syncing can take long, so a thread does it, and a descriptor tells when.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::wake::Wake;

/// Everybody may read it: proxies have users of their own.
const MODE: u32 = 0o644;

/// A file that is being replaced.
#[derive(Debug)]
pub struct Replacing {
    wake: Wake,
    outcome: Arc<Mutex<Option<io::Result<()>>>>,
}

impl Replacing {
    /// Begins to write `text` to `path`, in the place of what is there.
    ///
    /// # Errors
    ///
    /// When there can be no further thread, or no descriptor.
    pub fn begin(path: PathBuf, text: String) -> io::Result<Replacing> {
        let wake = Wake::new()?;
        let outcome = Arc::new(Mutex::new(None));
        let (bell, told) = (wake.clone(), Arc::clone(&outcome));
        thread::Builder::new().name("replace-file".to_owned()).spawn(move || {
            let result = replace(&path, text.as_bytes());
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            bell.ring();
        })?;
        Ok(Replacing { wake, outcome })
    }

    /// How it went, once it is done.
    #[must_use]
    pub fn take_outcome(&self) -> Option<io::Result<()>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits until it is done, at most for so long: nothing half-written is to stay behind.
    pub fn wait(&self, most: Duration) {
        let mut entry = [PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(most).unwrap_or(PollTimeout::ZERO);
        let _ = poll(&mut entry, timeout);
    }
}

impl AsFd for Replacing {
    /// Readable when it is done.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// The same path for whoever runs in another directory.
#[must_use]
pub fn absolute(path: &Path) -> PathBuf {
    // It fails where our own directory is gone.
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".shepherd-{}", std::process::id()));
    let unfinished = path.with_file_name(name);
    let written = write(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, path));
    if written.is_err() {
        // What is not there need not be removed.
        let _ = fs::remove_file(&unfinished);
    }
    written?;
    // The directory has the name: without this the old file may be back after a power failure. What
    // cannot be opened or synced is no worse than before.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Ok(directory) = File::open(parent.unwrap_or(Path::new("."))) {
        let _ = directory.sync_all();
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // One that a crash left behind goes first, and nothing else is followed or written to.
    let _ = fs::remove_file(path);
    let mut file = File::options().write(true).create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn replaced(path: &Path, text: &str) -> io::Result<()> {
        let replacing = Replacing::begin(path.to_owned(), text.to_owned()).expect("a thread");
        replacing.wait(PATIENCE);
        replacing.take_outcome().expect("it is done")
    }

    #[test]
    fn a_file_is_replaced_whole_and_readable_by_all() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("web");
        for text in ["one\n", "two\n"] {
            replaced(&path, text).expect("replaced");
            assert_eq!(fs::read_to_string(&path).expect("it is there"), text);
        }
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 1);
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing_behind() {
        let directory = tempfile::tempdir().expect("a directory");
        let missing = directory.path().join("no/web");
        assert_eq!(replaced(&missing, "x").expect_err("refused").kind(), io::ErrorKind::NotFound);
        // A directory in the place of the file.
        let taken = directory.path().join("taken");
        fs::create_dir_all(taken.join("x")).expect("made");
        assert!(replaced(&taken, "x").is_err());
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 1);
    }
}
