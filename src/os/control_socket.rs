//! The socket on which clients reach the daemon: a unix path for us alone.
//! It never accepts from it.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::unistd::geteuid;

use super::shared_socket;
use super::unix_path::{self, Access, UnixPath, UnixPathError};
use crate::config::socket::Transport;

/// Who may connect: ourselves, and root.
const ACCESS: Access = Access { mode: 0o600, user: None, group: None };

/// How many clients may wait to be taken: as many again as are served at a time.
const BACKLOG: u32 = 128;

/// A bound socket that listens; its file goes with it.
#[derive(Debug)]
pub struct ControlSocket {
    /// Close-on-exec and non-blocking. Taken by drop alone.
    listener: UnixListener,
    path: Option<UnixPath>,
}

/// Who else may be at work in the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directory {
    /// It is ours alone, and locked.
    Ours,
    /// Others may bind there too.
    Shared,
}

impl ControlSocket {
    /// Binds the path and listens. A file that a killed daemon left is replaced.
    ///
    /// # Errors
    ///
    /// If the path cannot be bound, or somebody listens on it.
    pub fn bind(path: &Path, directory: Directory) -> Result<ControlSocket, UnixPathError> {
        let bind = match directory {
            Directory::Ours => unix_path::bind_at_once,
            Directory::Shared => unix_path::bind,
        };
        let (fd, path) = bind(path, Transport::Stream, BACKLOG, ACCESS)?;
        let listener = UnixListener::from(fd);
        if let Err(error) = listener.set_nonblocking(true) {
            path.remove();
            let errno = error.raw_os_error().map_or(nix::Error::EIO, nix::Error::from_raw);
            return Err(UnixPathError::System { operation: "fcntl", errno });
        }
        Ok(ControlSocket { listener, path: Some(path) })
    }

    /// Whether clients still find it.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.path.as_ref().is_some_and(UnixPath::is_there)
    }

    /// Whether nobody can connect to it any more, though its file is there: whoever has a copy can
    /// do that by shutdown(2), and who accepts from it is not told.
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        shared_socket::is_shut_down(&self.listener)
    }

    /// Where it is, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.path.as_ref().map_or(Path::new(""), UnixPath::path)
    }

    /// A copy for who accepts.
    ///
    /// # Errors
    ///
    /// When no descriptor is left.
    pub fn acceptor(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }

    /// The socket, to be watched.
    #[must_use]
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // While the socket is open, see `UnixPath::remove`.
        if let Some(path) = self.path.take() {
            path.remove();
        }
    }
}

/// As whom we act: who connects as the same user may do what we may.
#[must_use]
pub fn our_user() -> u32 {
    geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    #[test]
    fn it_is_for_us_alone_and_goes_with_its_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control.sock");
        // As a killed daemon leaves it.
        drop(UnixListener::bind(&path).expect("bound"));
        let socket = ControlSocket::bind(&path, Directory::Shared).expect("bound");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let _client = UnixStream::connect(&path).expect("it listens");
        let second = ControlSocket::bind(&path, Directory::Ours);
        assert!(matches!(second, Err(UnixPathError::Live { .. })), "{second:?}");
        assert!(socket.is_there());
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn one_that_was_shut_down_is_known_and_another_takes_its_place() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control.sock");
        let socket = ControlSocket::bind(&path, Directory::Ours).expect("bound");
        assert!(!socket.is_shut_down());
        let raw = std::os::fd::AsRawFd::as_raw_fd(socket.listener());
        nix::sys::socket::shutdown(raw, nix::sys::socket::Shutdown::Both).expect("shut down");
        assert!(socket.is_shut_down() && socket.is_there());
        let another = ControlSocket::bind(&path, Directory::Ours).expect("bound");
        drop(socket);
        assert!(another.is_there() && !another.is_shut_down());
    }

    #[test]
    fn a_file_that_somebody_put_in_its_place_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control.sock");
        let socket = ControlSocket::bind(&path, Directory::Ours).expect("bound");
        fs::remove_file(&path).expect("removed");
        fs::write(&path, "").expect("written");
        assert!(!socket.is_there());
        drop(socket);
        assert!(path.exists());
    }
}
