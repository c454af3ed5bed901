//! A worker's own notification socket: receives datagrams and says who sent them. It never reads
//! more than a bound, and closes every descriptor that it is sent.

use std::fs::Permissions;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt,
};
use nix::unistd::Pid;

use super::sys;
use crate::protocol::notify::MESSAGE_MAX;

/// The most descriptors that one message can carry, `SCM_MAX_FD` in the kernel.
const DESCRIPTORS_MAX: usize = 253;

/// A bound socket; its path goes when it is dropped.
#[derive(Debug)]
pub struct NotifySocket {
    socket: UnixDatagram,
    path: PathBuf,
}

/// One datagram.
#[derive(Debug)]
pub struct Received {
    /// What it says.
    pub bytes: Vec<u8>,
    /// Whether it was longer than what is read; then `bytes` is only its head.
    pub cut: bool,
    /// Who sent it, by the kernel's word.
    pub sender: Option<Pid>,
    /// What came with it. A sender that waits at a barrier goes on once these are closed.
    pub descriptors: Vec<OwnedFd>,
}

impl NotifySocket {
    /// Binds a socket at `path` that only our own user may write to.
    ///
    /// # Errors
    ///
    /// Those of bind(2); a path that is too long is among them.
    pub fn bind(path: PathBuf) -> io::Result<NotifySocket> {
        let socket = UnixDatagram::bind(&path)?;
        let bound = NotifySocket { socket, path };
        std::fs::set_permissions(&bound.path, Permissions::from_mode(0o600))?;
        bound.socket.set_nonblocking(true)?;
        setsockopt(&bound.socket, sockopt::PassCred, &true)?;
        Ok(bound)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next datagram, if there is one.
    ///
    /// # Errors
    ///
    /// Those of recvmsg(2), except that there is nothing to read.
    pub fn receive(&self) -> io::Result<Option<Received>> {
        let mut bytes = vec![0; MESSAGE_MAX];
        let mut control = nix::cmsg_space!(UnixCredentials, [RawFd; DESCRIPTORS_MAX]);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let raw = self.socket.as_raw_fd();
        let message = match recvmsg::<()>(raw, &mut slices, Some(&mut control), flags) {
            Ok(message) => message,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let mut sender = None;
        let mut descriptors = Vec::new();
        for control in message.cmsgs()? {
            match control {
                ControlMessageOwned::ScmCredentials(credentials) => {
                    sender = Some(Pid::from_raw(credentials.pid())).filter(|pid| pid.as_raw() > 0);
                }
                ControlMessageOwned::ScmRights(rights) => {
                    descriptors.extend(rights.into_iter().filter_map(sys::take_descriptor));
                }
                _ => {}
            }
        }
        let cut = message.flags.contains(MsgFlags::MSG_TRUNC);
        let length = message.bytes;
        bytes.truncate(length);
        Ok(Some(Received { bytes, cut, sender, descriptors }))
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_come_whole_with_their_sender_and_the_path_goes() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let socket = NotifySocket::bind(path.clone()).expect("binds");
        assert!(socket.receive().expect("readable").is_none());
        let sender = UnixDatagram::unbound().expect("a socket");
        sender.send_to(b"READY=1", &path).expect("sends");
        sender.send_to(&vec![b'x'; MESSAGE_MAX + 1], &path).expect("sends");
        let first = socket.receive().expect("readable").expect("a datagram");
        assert_eq!((first.bytes.as_slice(), first.cut), (&b"READY=1"[..], false));
        assert_eq!(first.sender, Some(Pid::this()));
        assert!(socket.receive().expect("readable").expect("a datagram").cut);
        drop(socket);
        assert!(!path.exists());
    }
}
