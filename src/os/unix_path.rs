//! The file of a unix socket: replaces a stale one, refuses a live one, and removes its own.
//! It never touches a file that is not a socket, nor a socket that somebody listens on.
//!
//! A path whose process died stays behind, and bind(2) refuses it. Whether it is dead is known
//! from connect(2) alone: ECONNREFUSED says that nobody listens. Between that answer and the
//! unlink another shepherd may have done the same and bound its own socket there, which the
//! unlink would take away; so the whole of it happens under flock(2) of the directory, which
//! leaves no file behind. bind and listen are both under the lock, because a bound socket that
//! does not listen yet refuses connections as a dead one does. Other programs do not know of the
//! lock; the window towards them is a few microseconds.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, open};
use nix::poll::{PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, UnixAddr, bind as bind_socket, connect, getsockopt, socket, sockopt,
};
use nix::sys::stat::{Mode, fchmod};

use crate::config::socket::Transport;
use crate::os::holder::{self, Holder};
use crate::os::listeners::{listen, socket_type};

/// Owner and group may connect (unix(7): connecting needs write permission).
const MODE: u32 = 0o660;

/// How often bind is tried: each further try follows a change that somebody else made.
const TRIES_MAX: u32 = 8;

/// The lock is held for microseconds. Whoever may read the directory can also hold the lock for
/// ever, so after two seconds a start goes on without.
const LOCK_TRIES_MAX: u32 = 200;
const LOCK_WAIT_MS: u8 = 10;

/// A path that we bound, and which file it was then.
#[derive(Debug)]
pub struct UnixPath {
    /// Absolute, so that a later change of directory does no harm.
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Why a unix path could not be bound.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum UnixPathError {
    #[error("the directory `{}` does not exist; create it first", .directory.display())]
    DirectoryMissing { directory: PathBuf },
    #[error("`{}` is not a directory; choose another path", .directory.display())]
    DirectoryNot { directory: PathBuf },
    #[error(
        "permission denied in the directory `{}`; it must be writable for this user",
        .directory.display()
    )]
    DirectoryDenied { directory: PathBuf },
    #[error("the path is too long for a unix socket; choose one of at most 107 bytes")]
    TooLong,
    #[error("the file is there and is not a socket; remove it or choose another path")]
    NotSocket,
    #[error("{holder} listens on it; stop it or choose another path")]
    Live { holder: Holder },
    #[error(
        "a process that cannot be seen from here listens on it; stop it or choose another path"
    )]
    LiveUnknown,
    #[error(
        "a socket is there that this user may not connect to, so whether it is in use cannot be \
         told; remove it if it is not"
    )]
    Unprobed,
    #[error("a stale socket is there and cannot be removed: {}; remove it", .errno.desc())]
    Unremovable { errno: Errno },
    #[error("others keep binding and removing it; see who does")]
    Contended,
    #[error("{operation} failed: {}", .errno.desc())]
    System { operation: &'static str, errno: Errno },
}

/// Binds a socket to `path` and listens on it, replacing a socket that nobody listens on.
///
/// # Errors
///
/// If the path cannot be bound, or somebody listens on it.
pub fn bind(
    path: &Path,
    transport: Transport,
    backlog: u32,
) -> Result<(OwnedFd, UnixPath), UnixPathError> {
    let system = |operation| move |errno| UnixPathError::System { operation, errno };
    let address = UnixAddr::new(path).map_err(|_| UnixPathError::TooLong)?;
    let directory = directory_of(path);
    let absolute = absolute(path).map_err(|error| no_directory(&directory, &error))?;
    let lock = lock(&directory, LOCK_TRIES_MAX)?;

    let kind = socket_type(transport);
    let fd = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)
        .map_err(system("socket"))?;
    // On Linux the file that bind makes gets the mode of the socket, less the umask: it is never
    // open to more people than it will be in the end.
    fchmod(&fd, Mode::from_bits_truncate(MODE)).map_err(system("fchmod"))?;

    for _ in 0..TRIES_MAX {
        match bind_socket(fd.as_raw_fd(), &address) {
            Ok(()) => {
                let bound = own(absolute)?;
                return match listen(&fd, backlog) {
                    Ok(()) => Ok((fd, bound)),
                    Err(errno) => {
                        bound.remove_locked();
                        Err(system("listen")(errno))
                    }
                };
            }
            Err(Errno::EADDRINUSE) => match make_way(path, &address, transport)? {
                Way::Free => {}
                Way::Taken { peer } => {
                    // The walk over all processes may take long and needs no lock.
                    drop(lock);
                    return Err(match holder::of_unix(path, peer) {
                        Some(holder) => UnixPathError::Live { holder },
                        None => UnixPathError::LiveUnknown,
                    });
                }
            },
            Err(Errno::EACCES) => return Err(UnixPathError::DirectoryDenied { directory }),
            Err(Errno::ENOENT) => return Err(UnixPathError::DirectoryMissing { directory }),
            Err(errno) => return Err(system("bind")(errno)),
        }
    }
    Err(UnixPathError::Contended)
}

impl UnixPath {
    /// Removes the file if it is still the one that we bound.
    ///
    /// Call it while the socket is open: an open socket keeps its file's inode number from being
    /// given to another file.
    pub fn remove(self) {
        // A stop waits for nobody. Without the lock the inode still tells whose file it is.
        let _lock = lock(&directory_of(&self.path), 1).ok().flatten();
        self.remove_locked();
    }

    fn remove_locked(self) {
        let Ok(metadata) = fs::symlink_metadata(&self.path) else {
            return;
        };
        if (metadata.dev(), metadata.ino()) == (self.device, self.inode) {
            // A directory that may not be written to any more keeps its file; the next start
            // replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether two paths name the same file in the same directory, whatever links lead there.
#[must_use]
pub fn same(left: &Path, right: &Path) -> bool {
    left == right
        || matches!((absolute(left), absolute(right)), (Ok(left), Ok(right)) if left == right)
}

/// Records which file it is, and gives it the mode that the umask took away.
fn own(path: PathBuf) -> Result<UnixPath, UnixPathError> {
    let system = |operation| {
        move |error: io::Error| UnixPathError::System { operation, errno: errno_of(&error) }
    };
    let metadata = fs::symlink_metadata(&path).map_err(system("stat"))?;
    let bound = UnixPath { path, device: metadata.dev(), inode: metadata.ino() };
    if metadata.permissions().mode() & 0o777 != MODE {
        // Through a descriptor, so that a link put in its place is not followed.
        let result =
            open(&bound.path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
                .map_err(io::Error::from)
                .and_then(|file| {
                    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
                    let found = fs::metadata(&link)?;
                    if (found.dev(), found.ino()) == (bound.device, bound.inode) {
                        fs::set_permissions(&link, fs::Permissions::from_mode(MODE))?;
                    }
                    Ok(())
                });
        if let Err(error) = result {
            bound.remove_locked();
            return Err(system("chmod")(error));
        }
    }
    Ok(bound)
}

/// Removes what is at the path if it is a socket that nobody listens on.
fn make_way(path: &Path, address: &UnixAddr, transport: Transport) -> Result<Way, UnixPathError> {
    let Ok(before) = fs::symlink_metadata(path) else {
        return Ok(Way::Free);
    };
    if !before.file_type().is_socket() {
        return Err(UnixPathError::NotSocket);
    }
    match probe(address, transport)? {
        Probe::Live { peer } => Ok(Way::Taken { peer }),
        Probe::Gone => Ok(Way::Free),
        Probe::Stale => {
            let Ok(after) = fs::symlink_metadata(path) else {
                return Ok(Way::Free);
            };
            if (before.dev(), before.ino()) != (after.dev(), after.ino()) {
                return Ok(Way::Free);
            }
            match fs::remove_file(path) {
                Ok(()) => Ok(Way::Free),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Way::Free),
                Err(error) => Err(UnixPathError::Unremovable { errno: errno_of(&error) }),
            }
        }
    }
}

/// Whether another try to bind makes sense.
enum Way {
    Free,
    Taken { peer: Option<i32> },
}

enum Probe {
    Live { peer: Option<i32> },
    Stale,
    Gone,
}

/// Asks by connecting. A live server of the same type sees one connection that ends at once.
fn probe(address: &UnixAddr, transport: Transport) -> Result<Probe, UnixPathError> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let client = socket(AddressFamily::Unix, socket_type(transport), flags, None)
        .map_err(|errno| UnixPathError::System { operation: "socket", errno })?;
    match connect(client.as_raw_fd(), address) {
        Ok(()) => {
            let credentials = getsockopt(&client, sockopt::PeerCredentials).ok();
            Ok(Probe::Live { peer: credentials.map(|credentials| credentials.pid()) })
        }
        // Its queue is full: somebody listens and is busy.
        Err(Errno::EAGAIN) => Ok(Probe::Live { peer: None }),
        // A socket of another type with somebody behind it.
        Err(Errno::EPROTOTYPE) => Ok(Probe::Live { peer: None }),
        Err(Errno::ECONNREFUSED) => Ok(Probe::Stale),
        Err(Errno::ENOENT) => Ok(Probe::Gone),
        Err(Errno::EACCES | Errno::EPERM) => Err(UnixPathError::Unprobed),
        Err(errno) => Err(UnixPathError::System { operation: "connect", errno }),
    }
}

/// Locks the directory against other shepherds; `None` where that cannot be done.
fn lock(directory: &Path, tries_max: u32) -> Result<Option<Flock<OwnedFd>>, UnixPathError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut fd = match open(directory, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::ENOENT | Errno::ENOTDIR) => {
            let directory = directory.to_owned();
            return Err(if directory.exists() {
                UnixPathError::DirectoryNot { directory }
            } else {
                UnixPathError::DirectoryMissing { directory }
            });
        }
        // It may be writable and not readable. What matters is what bind says.
        Err(Errno::EACCES) => return Ok(None),
        Err(errno) => {
            return Err(UnixPathError::System { operation: "open", errno });
        }
    };
    for number in 1..=tries_max {
        match Flock::lock(fd, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some(lock)),
            Err((unlocked, Errno::EWOULDBLOCK | Errno::EINTR)) => fd = unlocked,
            // Some network file systems know no locks.
            Err(_) => return Ok(None),
        }
        if number < tries_max {
            // A blocking flock has no timeout; the kernel tells no one when a lock is let go.
            let _ = poll(&mut [], PollTimeout::from(LOCK_WAIT_MS));
        }
    }
    Ok(None)
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

/// The path with its directory resolved; its last part is left alone, since it may be a link that
/// must not be followed.
fn absolute(path: &Path) -> io::Result<PathBuf> {
    let name: OsString = path.file_name().map(Into::into).unwrap_or_default();
    Ok(fs::canonicalize(directory_of(path))?.join(name))
}

fn no_directory(directory: &Path, error: &io::Error) -> UnixPathError {
    let directory = directory.to_owned();
    match errno_of(error) {
        Errno::ENOENT => UnixPathError::DirectoryMissing { directory },
        Errno::ENOTDIR => UnixPathError::DirectoryNot { directory },
        Errno::EACCES => UnixPathError::DirectoryDenied { directory },
        errno => UnixPathError::System { operation: "realpath", errno },
    }
}

fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
    use std::thread;
    use std::time::Duration;

    use crate::os::clock;

    fn bind(path: &Path) -> Result<(OwnedFd, UnixPath), UnixPathError> {
        super::bind(path, Transport::Stream, 16)
    }

    fn stale(path: &Path) {
        drop(UnixListener::bind(path).unwrap());
    }

    fn entries(directory: &Path) -> usize {
        fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn binds_for_owner_and_group_and_removes_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let (fd, bound) = bind(&path).unwrap();
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
        UnixStream::connect(&path).unwrap();
        bound.remove();
        drop(fd);
        assert_eq!(entries(directory.path()), 0);
    }

    #[test]
    fn replaces_a_stale_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        stale(&path);
        let _bound = bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        assert_eq!(entries(directory.path()), 1);
    }

    #[test]
    fn refuses_a_live_socket_and_names_its_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let _live = UnixListener::bind(&path).unwrap();
        let error = bind(&path).unwrap_err();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(matches!(error, UnixPathError::Live { holder } if holder.pid == own));
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn refuses_a_live_socket_whose_queue_is_full() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let (_fd, _bound) = super::bind(&path, Transport::Stream, 0).unwrap();
        let _queued = UnixStream::connect(&path).unwrap();
        let error = bind(&path).unwrap_err();
        assert!(matches!(error, UnixPathError::Live { .. }), "{error}");
    }

    #[test]
    fn refuses_a_live_socket_of_another_type() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let own = i32::try_from(std::process::id()).unwrap();
        let datagram = UnixDatagram::bind(&path).unwrap();
        let error = bind(&path).unwrap_err();
        assert!(matches!(error, UnixPathError::Live { holder } if holder.pid == own));
        drop(datagram);
        let (stream, _bound) = bind(&path).unwrap();
        let error = super::bind(&path, Transport::Seqpacket, 16).unwrap_err();
        assert!(matches!(error, UnixPathError::Live { holder } if holder.pid == own));
        drop(stream);
        super::bind(&path, Transport::Seqpacket, 16).unwrap();
    }

    #[test]
    fn never_touches_what_is_not_a_socket() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "kept").unwrap();
        let target = directory.path().join("target");
        stale(&target);
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        for path in [&file, &link] {
            assert!(matches!(bind(path), Err(UnixPathError::NotSocket)));
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
        assert_eq!(entries(directory.path()), 3);
    }

    #[test]
    fn says_which_directory_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("a");
        let error = bind(&missing.join("x.sock")).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the directory `{}` does not exist; create it first", missing.display())
        );
        fs::write(&missing, "").unwrap();
        let error = bind(&missing.join("x.sock")).unwrap_err();
        assert!(matches!(error, UnixPathError::DirectoryNot { .. }), "{error}");
    }

    #[test]
    fn leaves_a_file_that_is_not_its_own_any_more() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let (_fd, bound) = bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        bound.remove();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn of_many_that_start_at_once_exactly_one_gets_the_path() {
        let directory = tempfile::tempdir().unwrap();
        for round in 0..10 {
            let path = directory.path().join(format!("{round}.sock"));
            stale(&path);
            let results: Vec<_> = thread::scope(|scope| {
                let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| bind(&path))).collect();
                starts.into_iter().map(|start| start.join().unwrap()).collect()
            });
            assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
            UnixStream::connect(&path).unwrap();
        }
    }

    #[test]
    fn goes_on_when_the_lock_is_held_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let _held = lock(directory.path(), 1).unwrap().unwrap();
        bind(&directory.path().join("x.sock")).unwrap();
    }

    #[test]
    fn removes_at_once_when_the_lock_is_held_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let (_fd, bound) = bind(&path).unwrap();
        let _held = lock(directory.path(), 1).unwrap().unwrap();
        let soon = clock::now() + Duration::from_secs(1);
        bound.remove();
        assert!(clock::now() < soon, "it waited");
        assert_eq!(entries(directory.path()), 0);
    }

    #[test]
    fn paths_are_the_same_through_links_to_their_directory() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().join("real");
        fs::create_dir(&real).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(same(&real.join("x"), &link.join("x")));
        assert!(!same(&real.join("x"), &link.join("y")));
        assert!(!same(&real.join("x"), &directory.path().join("missing/x")));
    }
}
