//! The daemon's directory for what must be somewhere while it runs, and its name among others.
//!
//! A name is taken by holding a lock on a file in the directory of that name, so a daemon that was
//! killed leaves a name that is free again. The directory goes with the daemon.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;
use thiserror::Error;

/// How many daemons of one implicit name may run at once.
const SAME_NAME_MAX: u32 = 1000;

/// The longest path of a notification socket below a daemon's directory: `/notify.` and a worker's
/// number. A unix socket's path has room for 107 bytes, see unix(7).
const BELOW_MAX: usize = 8 + 20;

/// A directory that is ours alone while this lives.
#[derive(Debug)]
pub struct RuntimeDir {
    path: PathBuf,
    name: String,
    lock: Flock<File>,
}

/// Why there is no such directory.
#[derive(Debug, Error)]
pub enum RuntimeDirError {
    /// The name was asked for, and a running daemon has it.
    #[error(
        "cannot take the name `{0}`: another shepherd of that name is running; choose another with --name"
    )]
    Taken(String),
    /// Nothing could be made.
    #[error(
        "cannot use `{path}` as runtime directory: {error}; set XDG_RUNTIME_DIR to a directory of your own"
    )]
    Unusable {
        /// Where it was tried last.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// It is too deep for a socket.
    #[error(
        "cannot use `{0}` as runtime directory: the path is too long for a unix socket; set XDG_RUNTIME_DIR to a shorter one"
    )]
    TooLong(PathBuf),
}

/// Whether a name that is taken may be varied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameIs {
    /// The user asked for it: taken is an error.
    Explicit,
    /// It follows from the program: taken becomes `NAME-2`.
    Implicit,
}

impl RuntimeDir {
    /// Takes `name` below the user's runtime directory.
    ///
    /// # Errors
    ///
    /// See [`RuntimeDirError`].
    pub fn claim(name: &str, name_is: NameIs) -> Result<RuntimeDir, RuntimeDirError> {
        let base = base().map_err(|(path, error)| RuntimeDirError::Unusable { path, error })?;
        RuntimeDir::claim_in(&base, name, name_is)
    }

    fn claim_in(base: &Path, name: &str, name_is: NameIs) -> Result<RuntimeDir, RuntimeDirError> {
        for number in 1..=SAME_NAME_MAX {
            let name = match number {
                1 => name.to_owned(),
                _ => format!("{name}-{number}"),
            };
            let path = base.join(&name);
            if path.as_os_str().len() + BELOW_MAX > 107 {
                return Err(RuntimeDirError::TooLong(path));
            }
            match take(&path) {
                Ok(Some(lock)) => return Ok(RuntimeDir { path, name, lock }),
                Ok(None) if name_is == NameIs::Explicit => {
                    return Err(RuntimeDirError::Taken(name));
                }
                Ok(None) => {}
                Err(error) => return Err(RuntimeDirError::Unusable { path, error }),
            }
        }
        Err(RuntimeDirError::Taken(name.to_owned()))
    }

    /// The name that was taken.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where a worker's notification socket goes.
    #[must_use]
    pub fn notify_path(&self, worker: u64) -> PathBuf {
        self.path.join(format!("notify.{worker}"))
    }
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        // The lock file goes while it is still locked: nobody can take a file that is on its way
        // out, see `take`.
        clean(&self.path);
        let _ = fs::remove_file(self.path.join(LOCK));
        let _ = fs::remove_dir(&self.path);
        let _ = &self.lock;
    }
}

const LOCK: &str = "lock";

/// Locks the directory `path`, made if need be. `None` when somebody else holds it.
fn take(path: &Path) -> io::Result<Option<Flock<File>>> {
    // Each turn is lost only to a daemon that ends at this very moment.
    for _ in 0..SAME_NAME_MAX {
        match fs::DirBuilder::new().mode(0o711).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let file = match options.open(path.join(LOCK)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
            return Ok(None);
        };
        // Its last holder may have removed it between our open and our lock.
        let current = fs::metadata(path.join(LOCK)).map(|file| file.ino());
        if current.ok() == Some(lock.metadata()?.ino()) {
            clean(path);
            return Ok(Some(lock));
        }
    }
    Ok(None)
}

/// Removes what a daemon that was killed has left.
fn clean(path: &Path) {
    let Ok(entries) = fs::read_dir(path) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with("notify.") {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The directory that holds one directory for each daemon of this user.
fn base() -> Result<PathBuf, (PathBuf, io::Error)> {
    let user = geteuid();
    let mut candidates = Vec::new();
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty()) {
        Some(directory) => candidates.push(PathBuf::from(directory).join("shepherd")),
        None if user.is_root() => candidates.push(PathBuf::from("/run/shepherd")),
        None => candidates.push(PathBuf::from(format!("/run/user/{user}/shepherd"))),
    }
    candidates.push(std::env::temp_dir().join(format!("shepherd-{user}")));
    let mut failure = None;
    for path in candidates {
        match make_own(&path) {
            Ok(()) => return Ok(path),
            Err(error) => failure = Some((path, error)),
        }
    }
    Err(failure.unwrap_or_else(|| (PathBuf::new(), io::ErrorKind::NotFound.into())))
}

/// Makes the directory unless it is there, and refuses one that somebody else could have prepared.
fn make_own(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o711).create(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let found = fs::symlink_metadata(path)?;
    let is_ours = found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o022 == 0;
    if is_ours {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to somebody else"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_varied_or_refused_and_free_again_after() {
        let base = tempfile::tempdir().expect("a directory");
        let claim = |name_is| RuntimeDir::claim_in(base.path(), "web", name_is);
        let first = claim(NameIs::Implicit).expect("free");
        let second = claim(NameIs::Implicit).expect("varied");
        assert_eq!((first.name(), second.name()), ("web", "web-2"));
        assert!(matches!(claim(NameIs::Explicit), Err(RuntimeDirError::Taken(_))));
        drop((first, second));
        assert_eq!(fs::read_dir(base.path()).expect("readable").count(), 0);
        assert_eq!(claim(NameIs::Explicit).expect("free again").name(), "web");
    }

    #[test]
    fn what_a_killed_daemon_left_is_cleaned() {
        let base = tempfile::tempdir().expect("a directory");
        let path = base.path().join("web");
        fs::create_dir(&path).expect("made");
        fs::write(path.join("lock"), "").expect("written");
        fs::write(path.join("notify.7"), "").expect("written");
        let claimed = RuntimeDir::claim_in(base.path(), "web", NameIs::Explicit).expect("free");
        assert!(!claimed.notify_path(7).exists());
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused_with_the_remedy() {
        let deep = PathBuf::from("/tmp").join("x".repeat(90));
        let refused = RuntimeDir::claim_in(&deep, "web", NameIs::Implicit);
        assert!(matches!(refused, Err(RuntimeDirError::TooLong(_))));
    }
}
