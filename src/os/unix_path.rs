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
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, open};
use nix::poll::{PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, UnixAddr, bind as bind_socket, connect, getsockopt, socket, sockopt,
};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Group, Uid, User, fchownat};

use crate::config::identity::Account;
use crate::config::socket::Transport;
use crate::config::socket_options::SocketOptions;
use crate::config::text::one_line;
use crate::os::holder::{self, Holder};
use crate::os::listeners::{listen, socket_type};

/// How often bind is tried: each further try follows a change that somebody else made.
const TRIES_MAX: u32 = 8;

/// The lock is held for microseconds. Whoever may read the directory can also hold the lock for
/// ever, so after two seconds a start goes on without.
const LOCK_TRIES_MAX: u32 = 200;
const LOCK_WAIT_MS: u8 = 10;

/// Who may connect to a unix path: what its file is to have (unix(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The permission bits.
    pub mode: u32,
    /// Who owns it; ourselves without it.
    pub user: Option<Uid>,
    /// Its group; ours, or the directory's where that is set-group-id, without it.
    pub group: Option<Gid>,
}

/// Why the owner that was asked for cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum AccessError {
    #[error(
        "this machine has no {kind} `{}`; create the {kind} first, or write a number",
        one_line(.name)
    )]
    Unknown { kind: &'static str, name: String },
    #[error("the {kind} `{}` cannot be looked up: {}", one_line(.name), .errno.desc())]
    LookUp { kind: &'static str, name: String, errno: Errno },
}

impl Access {
    /// What the options of a socket ask for, names looked up. This may ask a name service, so it is
    /// for the start only.
    ///
    /// # Errors
    ///
    /// If there is no such user or group.
    pub fn of(options: &SocketOptions) -> Result<Access, AccessError> {
        let user = options.user.as_ref().map(|account| {
            let look_up = |name: &str| Ok(User::from_name(name)?.map(|user| user.uid.as_raw()));
            id("user", account, look_up).map(Uid::from_raw)
        });
        let group = options.group.as_ref().map(|account| {
            let look_up = |name: &str| Ok(Group::from_name(name)?.map(|group| group.gid.as_raw()));
            id("group", account, look_up).map(Gid::from_raw)
        });
        Ok(Access { mode: options.mode(), user: user.transpose()?, group: group.transpose()? })
    }
}

/// A number stands for itself, also where nobody has it.
fn id(
    kind: &'static str,
    account: &Account,
    look_up: impl FnOnce(&str) -> Result<Option<u32>, Errno>,
) -> Result<u32, AccessError> {
    let name = match account {
        Account::Number(number) => return Ok(*number),
        Account::Name(name) => name,
    };
    match look_up(name) {
        Ok(Some(id)) => Ok(id),
        Ok(None) => Err(AccessError::Unknown { kind, name: name.to_owned() }),
        Err(errno) => Err(AccessError::LookUp { kind, name: name.to_owned(), errno }),
    }
}

/// A path that we bound, and which file it was then.
#[derive(Debug)]
pub struct UnixPath {
    /// As it was asked for: the kernel takes 107 bytes, and the absolute path may have more.
    asked: PathBuf,
    access: Access,
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
    #[error(
        "its file cannot be given to another user or group: {}; that needs CAP_CHOWN, or for a \
         group that this user is in it",
        .errno.desc()
    )]
    Owner { errno: Errno },
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
    access: Access,
) -> Result<(OwnedFd, UnixPath), UnixPathError> {
    bind_within(path, transport, backlog, access, LOCK_TRIES_MAX, None)
}

/// The same without waiting for others who may be binding there: for the loop, and for a directory
/// that is ours alone.
///
/// # Errors
///
/// If the path cannot be bound, or somebody listens on it.
pub fn bind_at_once(
    path: &Path,
    transport: Transport,
    backlog: u32,
    access: Access,
) -> Result<(OwnedFd, UnixPath), UnixPathError> {
    bind_within(path, transport, backlog, access, 1, None)
}

fn bind_within(
    path: &Path,
    transport: Transport,
    backlog: u32,
    access: Access,
    lock_tries_max: u32,
    ours: Option<u64>,
) -> Result<(OwnedFd, UnixPath), UnixPathError> {
    let system = |operation| move |errno| UnixPathError::System { operation, errno };
    let address = UnixAddr::new(path).map_err(|_| UnixPathError::TooLong)?;
    let directory = directory_of(path);
    let absolute = absolute(path).map_err(|error| no_directory(&directory, &error))?;
    let lock = lock(&directory, lock_tries_max)?;

    let kind = socket_type(transport);
    let fd = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)
        .map_err(system("socket"))?;
    // On Linux the file that bind makes gets the mode of the socket, less the umask: it is never
    // open to more people than it will be in the end.
    fchmod(&fd, Mode::from_bits_truncate(access.mode)).map_err(system("fchmod"))?;

    for _ in 0..TRIES_MAX {
        match bind_socket(fd.as_raw_fd(), &address) {
            Ok(()) => {
                let bound = own(path, absolute, access)?;
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
                    return Err(match holder::of_unix(path, peer, ours) {
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

impl UnixPathError {
    /// Whether the same can go another time without an operator.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            UnixPathError::DirectoryMissing { .. }
            | UnixPathError::DirectoryNot { .. }
            | UnixPathError::DirectoryDenied { .. }
            | UnixPathError::Unremovable { .. }
            | UnixPathError::Contended
            | UnixPathError::System { .. } => true,
            UnixPathError::TooLong
            | UnixPathError::NotSocket
            | UnixPathError::Live { .. }
            | UnixPathError::LiveUnknown
            | UnixPathError::Owner { .. }
            | UnixPathError::Unprobed => false,
        }
    }
}

impl UnixPath {
    /// Whether clients still find the file that we bound at the path.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.is(&self.path)
    }

    /// Where it is, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Binds another socket to the path, with the same permissions and owner. A file of ours is
    /// replaced if nobody listens behind it any more. `ours` is the inode of the socket that we have.
    ///
    /// # Errors
    ///
    /// If the path cannot be bound, or somebody listens on it, which may be this process.
    pub fn bind_again(
        &self,
        transport: Transport,
        backlog: u32,
        ours: u64,
    ) -> Result<(OwnedFd, UnixPath), UnixPathError> {
        // The loop waits for nobody, as a stop does.
        bind_within(&self.asked, transport, backlog, self.access, 1, Some(ours))
    }

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
        if self.is_there() {
            // A directory that may not be written to any more keeps its file; the next start
            // replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Whether this is the file, without following a link.
    fn is(&self, path: &Path) -> bool {
        fs::symlink_metadata(path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode))
    }
}

/// Whether two paths name the same file in the same directory, whatever links lead there.
#[must_use]
pub fn same(left: &Path, right: &Path) -> bool {
    left == right
        || matches!((absolute(left), absolute(right)), (Ok(left), Ok(right)) if left == right)
}

/// Records which file it is, and gives it its owner and the mode that the umask took away.
fn own(asked: &Path, path: PathBuf, access: Access) -> Result<UnixPath, UnixPathError> {
    let system = |operation| {
        move |error: io::Error| UnixPathError::System { operation, errno: errno_of(&error) }
    };
    let metadata = fs::symlink_metadata(&path).map_err(system("stat"))?;
    let asked = asked.to_owned();
    let (device, inode) = (metadata.dev(), metadata.ino());
    let bound = UnixPath { asked, access, path, device, inode };
    let mode = metadata.permissions().mode() & 0o777;
    if mode == access.mode && access.user.is_none() && access.group.is_none() {
        return Ok(bound);
    }
    match bound.give_away() {
        Ok(()) => Ok(bound),
        Err(error) => {
            bound.remove_locked();
            Err(error)
        }
    }
}

impl UnixPath {
    /// Sets owner and mode through a descriptor, so that a link put in the file's place is not
    /// followed. The owner first: until then nobody but ourselves gets more than before.
    fn give_away(&self) -> Result<(), UnixPathError> {
        let system = |operation| move |errno| UnixPathError::System { operation, errno };
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = open(&self.path, flags, Mode::empty()).map_err(system("open"))?;
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        let found = fs::metadata(&link).map_err(|error| system("stat")(errno_of(&error)))?;
        if (found.dev(), found.ino()) != (self.device, self.inode) {
            return Ok(());
        }
        let Access { mode, user, group } = self.access;
        if user.is_some() || group.is_some() {
            fchownat(&file, "", user, group, AtFlags::AT_EMPTY_PATH)
                .map_err(|errno| UnixPathError::Owner { errno })?;
        }
        fs::set_permissions(&link, fs::Permissions::from_mode(mode))
            .map_err(|error| system("chmod")(errno_of(&error)))
    }
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
mod tests;
