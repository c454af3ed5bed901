//! The daemon's directory for what must be somewhere while it runs, and its name among others.
//!
//! A name is taken by holding a lock on the directory of that name, so a daemon that was killed
//! leaves a name that is free again, and nothing that happens inside frees one. The directory goes
//! with the daemon. It can go before: the session's end takes `/run/user/UID`, and a clean-up takes
//! `/tmp`; then it is made once more.
//!
//! It never touches a directory that somebody else could have prepared.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, open};
use nix::sys::stat::{Mode, fstat, lstat};
use nix::unistd::{Uid, geteuid};
use thiserror::Error;

/// How many daemons of one implicit name may run at once.
const SAME_NAME_MAX: u32 = 1000;

/// How often a directory is tried: each turn is lost only to a daemon that ends, or to a clean-up
/// that comes, at this very moment.
const TRIES_MAX: u32 = 100;

/// The longest path of a notification socket below a daemon's directory: `/notify.` and a worker's
/// number. A unix socket's path has room for 107 bytes, see unix(7).
const BELOW_MAX: usize = 8 + 20;
const PATH_MAX: usize = 107 - BELOW_MAX;

/// A directory that is ours alone while this lives.
#[derive(Debug)]
pub struct RuntimeDir {
    path: PathBuf,
    name: String,
    /// The directory itself; the name is ours while this is open.
    lock: Flock<OwnedFd>,
    /// Whether the directory above was made for daemons, and goes with the last of them.
    shares_base: bool,
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

/// Whether those who have to can pass a directory: workers may be another user's.
pub type Passes<'a> = &'a dyn Fn(&Path) -> bool;

impl RuntimeDir {
    /// Takes `name` below the user's runtime directory, or below the next place that `passes`: a
    /// user's own runtime directory is closed to others.
    ///
    /// # Errors
    ///
    /// See [`RuntimeDirError`].
    pub fn claim(
        name: &str,
        name_is: NameIs,
        passes: Passes<'_>,
    ) -> Result<RuntimeDir, RuntimeDirError> {
        // Each try is lost only to a daemon that ends at this very moment and takes the directory
        // above with it.
        let mut result = Err(RuntimeDirError::Taken(name.to_owned()));
        for _ in 0..TRIES_MAX {
            let base = base(&candidates(), passes)
                .map_err(|(path, error)| RuntimeDirError::Unusable { path, error })?;
            result = RuntimeDir::claim_in(&base, name, name_is);
            match &result {
                Err(RuntimeDirError::Unusable { error, .. })
                    if error.kind() == io::ErrorKind::NotFound => {}
                Ok(_) | Err(_) => break,
            }
        }
        result.map(|mut claimed| {
            claimed.shares_base = true;
            claimed
        })
    }

    fn claim_in(base: &Path, name: &str, name_is: NameIs) -> Result<RuntimeDir, RuntimeDirError> {
        for number in 1..=SAME_NAME_MAX {
            let name = match number {
                1 => name.to_owned(),
                _ => format!("{name}-{number}"),
            };
            let path = base.join(&name);
            if path.as_os_str().len() > PATH_MAX {
                return Err(RuntimeDirError::TooLong(path));
            }
            match take(&path) {
                Ok(Some(lock)) => return Ok(RuntimeDir { path, name, lock, shares_base: false }),
                Ok(None) if name_is == NameIs::Explicit => {
                    return Err(RuntimeDirError::Taken(name));
                }
                Ok(None) => {}
                Err(error) => return Err(RuntimeDirError::Unusable { path, error }),
            }
        }
        Err(RuntimeDirError::Taken(name.to_owned()))
    }

    /// Makes the directory once more, under the same name, if it is gone: in its old place, or
    /// where that cannot be made, in the next. It does nothing while the directory is there.
    ///
    /// What was in the directory is lost, and [`notify_path`](RuntimeDir::notify_path) may lead
    /// elsewhere from here on.
    ///
    /// # Errors
    ///
    /// Why the last place could not be used.
    pub fn restore(&mut self, passes: Passes<'_>) -> io::Result<()> {
        self.restore_in(&candidates(), passes)
    }

    fn restore_in(&mut self, others: &[PathBuf], passes: Passes<'_>) -> io::Result<()> {
        if leads_to(&self.path, &self.lock) {
            return Ok(());
        }
        let mut result = Err(io::ErrorKind::NotFound.into());
        let old = self.path.parent().map(Path::to_owned);
        if let Some(above) = old.as_deref().and_then(Path::parent) {
            // Where this fails, so does what follows.
            let _ = fs::DirBuilder::new().recursive(true).mode(MODE).create(above);
        }
        for base in old.iter().chain(others) {
            let path = base.join(&self.name);
            result = retake(base, &path, passes).map(|lock| {
                self.lock = lock;
                self.path = path;
            });
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name that was taken.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the control socket goes.
    #[must_use]
    pub fn control_path(&self) -> PathBuf {
        self.path.join(CONTROL)
    }

    /// Where a worker's notification socket goes.
    #[must_use]
    pub fn notify_path(&self, worker: u64) -> PathBuf {
        self.path.join(format!("notify.{worker}"))
    }
}

/// The directory itself, wherever its path leads.
impl AsFd for RuntimeDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        // It may have gone, and another daemon may have taken the name since.
        if leads_to(&self.path, &self.lock) {
            // It goes while it is still locked: whoever locks it after that sees that it is no
            // directory of that name any more, see `take`.
            clean(&self.path);
            let _ = fs::remove_dir(&self.path);
            // The last daemon takes the directory above along; the others keep it from going.
            if let Some(base) = self.path.parent().filter(|_| self.shares_base) {
                let _ = fs::remove_dir(base);
            }
        }
    }
}

/// The file of the control socket, which clients look for.
pub const CONTROL: &str = "control.sock";

/// Others may pass, to a socket that is open to them, but not look.
const MODE: u32 = 0o711;

/// What no directory of ours may allow.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Locks the directory `path`, made if need be. `None` when somebody else holds it.
fn take(path: &Path) -> io::Result<Option<Flock<OwnedFd>>> {
    for _ in 0..TRIES_MAX {
        match fs::DirBuilder::new().mode(MODE).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory = match open(path, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::ENOENT) => continue,
            Err(errno) => return Err(errno.into()),
        };
        // By what was opened: whoever owns a directory above may have put another in this place.
        let found = fstat(&directory)?;
        if found.st_uid != geteuid().as_raw() || found.st_mode & WRITABLE_BY_OTHERS != 0 {
            return Err(of_somebody_else());
        }
        let lock = match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, Errno::EINTR)) => continue,
            Err((_, errno)) => return Err(errno.into()),
        };
        // Its last holder may have removed it between our open and our lock.
        if leads_to(path, &lock) {
            clean(path);
            return Ok(Some(lock));
        }
    }
    Err(io::Error::other("it is removed again and again"))
}

/// Takes `path` for a name that we have.
fn retake(base: &Path, path: &Path, passes: Passes<'_>) -> io::Result<Flock<OwnedFd>> {
    if path.as_os_str().len() > PATH_MAX {
        return Err(Errno::ENAMETOOLONG.into());
    }
    make_passable(base, passes)?;
    let in_use = || io::Error::new(io::ErrorKind::AddrInUse, "another shepherd has taken its name");
    take(path)?.ok_or_else(in_use)
}

/// Whether the path still names the directory that we hold.
fn leads_to(path: &Path, lock: &Flock<OwnedFd>) -> bool {
    match (lstat(path), fstat(&**lock)) {
        (Ok(found), Ok(held)) => (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino),
        (_, _) => false,
    }
}

/// Removes what a daemon that was killed has left.
fn clean(path: &Path) {
    let Ok(entries) = fs::read_dir(path) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name == CONTROL || name.to_string_lossy().starts_with("notify.") {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The directory that holds one directory for each daemon of this user.
fn base(candidates: &[PathBuf], passes: Passes<'_>) -> Result<PathBuf, (PathBuf, io::Error)> {
    let mut failure = None;
    for path in candidates {
        match make_passable(path, passes) {
            Ok(()) => return Ok(path.clone()),
            Err(error) => failure = Some((path.clone(), error)),
        }
    }
    Err(failure.unwrap_or_else(|| (PathBuf::new(), io::ErrorKind::NotFound.into())))
}

/// Where a client of this user looks for daemons: everywhere that one of them may have its directory.
#[must_use]
pub fn places() -> Vec<PathBuf> {
    let mut places = candidates();
    // The daemon need not have had our XDG_RUNTIME_DIR.
    let user = geteuid();
    let session = PathBuf::from(format!("/run/user/{user}/shepherd"));
    if !places.contains(&session) {
        places.push(session);
    }
    places
}

/// Where root's daemons are, as far as a client of this user, who is not root, can see that there
/// are any.
#[must_use]
pub fn place_of_root() -> Option<PathBuf> {
    let place = Path::new(OF_ROOT);
    (!geteuid().is_root() && place.is_dir()).then(|| place.to_owned())
}

/// The directories of daemons in one of these places, by name. A daemon that was killed leaves its
/// own behind.
///
/// # Errors
///
/// When the place is there and cannot be read.
pub fn directories(place: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(place) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let is_directory = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let entries = entries.flatten().filter(is_directory);
    let mut directories: Vec<PathBuf> =
        entries.map(|entry| entry.path()).take(DIRECTORIES_MAX).collect();
    directories.sort();
    Ok(directories)
}

/// Whether there is anything at this path; also where only the directory may be passed.
#[must_use]
pub fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Where root's daemons are when root has no session of its own.
const OF_ROOT: &str = "/run/shepherd";

/// How many daemons a client looks at: more than anybody can tell apart.
const DIRECTORIES_MAX: usize = 1000;

/// Where that directory may be, the best first.
fn candidates() -> Vec<PathBuf> {
    candidates_of(std::env::var_os("XDG_RUNTIME_DIR"), geteuid(), &std::env::temp_dir())
}

fn candidates_of(runtime: Option<OsString>, user: Uid, temporary: &Path) -> Vec<PathBuf> {
    // The XDG base directory specification: a relative path is invalid and is to be ignored.
    let runtime = runtime.map(PathBuf::from).filter(|path| path.is_absolute());
    let is_set = runtime.is_some();
    let mut places = Vec::from_iter(runtime.map(|directory| directory.join("shepherd")));
    if user.is_root() {
        // Also after one that is set: that of root's own session is closed to other users.
        places.push(PathBuf::from(OF_ROOT));
    } else if !is_set {
        places.push(PathBuf::from(format!("/run/user/{user}/shepherd")));
    }
    places.push(temporary.join(format!("shepherd-{user}")));
    places
}

/// Makes the directory unless it is there, and refuses one that cannot be passed by those who have
/// to.
fn make_passable(path: &Path, passes: Passes<'_>) -> io::Result<()> {
    make_own(path)?;
    if passes(path) {
        return Ok(());
    }
    // It goes if nobody uses it.
    let _ = fs::remove_dir(path);
    let message = "the workers' user may not enter it";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

/// Makes the directory unless it is there, and refuses one that somebody else could have prepared.
fn make_own(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(MODE).create(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let found = fs::symlink_metadata(path)?;
    let is_ours = found.is_dir()
        && found.uid() == geteuid().as_raw()
        && found.mode() & WRITABLE_BY_OTHERS == 0;
    if is_ours { Ok(()) } else { Err(of_somebody_else()) }
}

fn of_somebody_else() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to somebody else")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL_PASS: Passes<'static> = &|_| true;

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
        fs::write(path.join("notify.7"), "").expect("written");
        fs::write(path.join(CONTROL), "").expect("written");
        let claimed = RuntimeDir::claim_in(base.path(), "web", NameIs::Explicit).expect("free");
        assert!(!claimed.notify_path(7).exists() && !claimed.control_path().exists());
    }

    #[test]
    fn what_others_may_write_to_is_refused_also_below_a_place_of_ours() {
        use std::os::unix::fs::PermissionsExt;
        let base = tempfile::tempdir().expect("a directory");
        let path = base.path().join("web");
        fs::create_dir(&path).expect("made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("ours");
        let refused = RuntimeDir::claim_in(base.path(), "web", NameIs::Explicit);
        assert!(matches!(refused, Err(RuntimeDirError::Unusable { .. })), "{refused:?}");
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused_with_the_remedy() {
        let deep = PathBuf::from("/tmp").join("x".repeat(90));
        let refused = RuntimeDir::claim_in(&deep, "web", NameIs::Implicit);
        assert!(matches!(refused, Err(RuntimeDirError::TooLong(_))));
    }

    #[test]
    fn a_name_stays_taken_whatever_is_removed_inside() {
        let base = tempfile::tempdir().expect("a directory");
        let claim = || RuntimeDir::claim_in(base.path(), "web", NameIs::Explicit);
        let _first = claim().expect("free");
        for entry in fs::read_dir(base.path().join("web")).expect("readable").flatten() {
            fs::remove_file(entry.path()).expect("removed");
        }
        assert!(matches!(claim(), Err(RuntimeDirError::Taken(_))));
    }

    #[test]
    fn a_directory_that_went_is_made_again_with_what_leads_there() {
        let root = tempfile::tempdir().expect("a directory");
        let base = root.path().join("run/user/shepherd");
        fs::create_dir_all(&base).expect("made");
        let claim = || RuntimeDir::claim_in(&base, "web", NameIs::Explicit);
        let mut claimed = claim().expect("free");
        let path = claimed.notify_path(1);
        fs::remove_dir_all(root.path().join("run")).expect("removed");
        claimed.restore_in(&[], ALL_PASS).expect("restored");
        assert_eq!((claimed.name(), claimed.notify_path(1)), ("web", path.clone()));
        assert!(matches!(claim(), Err(RuntimeDirError::Taken(_))));
        fs::write(&path, "").expect("room for a socket");
        claimed.restore_in(&[], ALL_PASS).expect("nothing to do");
        assert!(path.exists());
        drop(claimed);
        assert_eq!(fs::read_dir(&base).expect("readable").count(), 0);
    }

    #[test]
    fn a_directory_that_cannot_be_made_again_is_made_in_the_next_place() {
        let root = tempfile::tempdir().expect("a directory");
        let (base, next) = (root.path().join("user/shepherd"), root.path().join("next"));
        fs::create_dir_all(&base).expect("made");
        let claim = || RuntimeDir::claim_in(&base, "web", NameIs::Explicit);
        let mut claimed = claim().expect("free");
        fs::remove_dir_all(root.path().join("user")).expect("removed");
        // Not even root makes a directory below a file.
        fs::write(root.path().join("user"), "").expect("written");
        claimed.restore_in(&[], ALL_PASS).expect_err("no place");
        claimed.restore_in(&[base.clone(), next.clone()], ALL_PASS).expect("restored");
        assert_eq!(claimed.notify_path(1), next.join("web/notify.1"));
    }

    #[test]
    fn what_another_daemon_made_in_its_place_is_left_alone() {
        let base = tempfile::tempdir().expect("a directory");
        let claim = || RuntimeDir::claim_in(base.path(), "web", NameIs::Explicit);
        let mut first = claim().expect("free");
        fs::remove_dir_all(base.path().join("web")).expect("removed");
        let second = claim().expect("free");
        fs::write(second.notify_path(1), "").expect("written");
        let error = first.restore_in(&[], ALL_PASS).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(second.notify_path(1).exists());
    }

    #[test]
    fn a_place_that_workers_cannot_pass_is_passed_over_and_left_as_it_was() {
        let root = tempfile::tempdir().expect("a directory");
        let places = [root.path().join("closed"), root.path().join("open")];
        let passes = |path: &Path| path.ends_with("open");
        assert_eq!(base(&places, &passes).expect("the second"), places[1]);
        assert!(!places[0].exists());
        let (path, error) = base(&places[..1], &passes).expect_err("closed");
        assert_eq!((path, error.kind()), (places[0].clone(), io::ErrorKind::PermissionDenied));
    }

    #[test]
    fn root_has_a_place_besides_that_of_its_session() {
        let candidates =
            candidates_of(Some("/run/user/0".into()), Uid::from_raw(0), Path::new("/tmp"));
        let expected = ["/run/user/0/shepherd", "/run/shepherd", "/tmp/shepherd-0"];
        assert_eq!(candidates, expected.map(PathBuf::from));
    }

    #[test]
    fn a_relative_runtime_directory_is_ignored() {
        let candidates = |runtime: &str| {
            candidates_of(Some(runtime.into()), Uid::from_raw(7), Path::new("/tmp"))
        };
        let temporary = PathBuf::from("/tmp/shepherd-7");
        assert_eq!(candidates("/x"), [PathBuf::from("/x/shepherd"), temporary.clone()]);
        for ignored in ["x", ""] {
            let first = PathBuf::from("/run/user/7/shepherd");
            assert_eq!(candidates(ignored), [first, temporary.clone()]);
        }
    }
}
