//! A worker's own notification socket: receives datagrams and says who sent them. It never reads
//! more than a bound, and closes every descriptor that it is sent.

use std::fs::Permissions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use nix::sys::socket::{setsockopt, sockopt};
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
    /// Whether a part of it was lost: `bytes` is only its head when it is longer than what is
    /// read, and descriptors are missing when we may not have that many.
    pub cut: bool,
    /// Who sent it, by the kernel's word.
    pub sender: Option<Pid>,
    /// What came with it. A sender that waits at a barrier goes on once these are closed.
    pub descriptors: Vec<OwnedFd>,
}

impl NotifySocket {
    /// Binds a socket at `path` that only its owner may write to: a user and a group, or ourselves.
    ///
    /// # Errors
    ///
    /// Those of bind(2); a path that is too long is among them.
    pub fn bind(path: PathBuf, owner: Option<(u32, u32)>) -> io::Result<NotifySocket> {
        let socket = UnixDatagram::bind(&path)?;
        let bound = NotifySocket { socket, path };
        std::fs::set_permissions(&bound.path, Permissions::from_mode(0o600))?;
        if let Some((user, group)) = owner {
            match chown(&bound.path, Some(user), Some(group)) {
                // A container's root may lack CAP_CHOWN. Who else writes here is not listened to:
                // the kernel says of each message which process it is from.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    std::fs::set_permissions(&bound.path, Permissions::from_mode(0o622))?;
                }
                chowned => chowned?,
            }
        }
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
        self.receive_with(DESCRIPTORS_MAX)
    }

    fn receive_with(&self, descriptors_max: usize) -> io::Result<Option<Received>> {
        let mut bytes = vec![0; MESSAGE_MAX];
        let message = match sys::receive(&self.socket, &mut bytes, descriptors_max) {
            Ok(message) => message,
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                    _ => Err(error),
                };
            }
        };
        let sys::Message { length, cut, sender, descriptors } = message;
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
    use std::io::{IoSlice, PipeReader, pipe};
    use std::os::fd::AsRawFd;

    use nix::poll::{PollFd, PollFlags, poll};
    use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

    use super::*;

    #[test]
    fn datagrams_come_whole_with_their_sender_and_the_path_goes() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let socket = NotifySocket::bind(path.clone(), None).expect("binds");
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

    #[test]
    fn descriptors_come_with_the_sender() {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = NotifySocket::bind(directory.path().join("notify"), None).expect("binds");
        let reader = send_writer(&socket, 3);
        let received = socket.receive().expect("readable").expect("a datagram");
        assert!(!received.cut);
        assert_eq!((received.descriptors.len(), received.sender), (3, Some(Pid::this())));
        drop(received);
        assert!(has_ended(&reader), "a writer is left");
    }

    #[test]
    fn what_came_of_descriptors_that_were_cut_is_closed() {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = NotifySocket::bind(directory.path().join("notify"), None).expect("binds");
        let reader = send_writer(&socket, 5);
        let received = socket.receive_with(1).expect("readable").expect("a datagram");
        assert!(received.cut);
        assert_eq!((received.bytes.as_slice(), received.sender), (&b"X"[..], Some(Pid::this())));
        assert!((1..5).contains(&received.descriptors.len()), "{received:?}");
        drop(received);
        assert!(has_ended(&reader), "a writer is left");
    }

    /// Sends the only writer of a pipe so many times in one message.
    fn send_writer(socket: &NotifySocket, times: usize) -> PipeReader {
        let (reader, writer) = pipe().expect("a pipe");
        let sender = UnixDatagram::unbound().expect("a socket");
        let writers = vec![writer.as_raw_fd(); times];
        let address = UnixAddr::new(socket.path()).expect("an address");
        let rights = [ControlMessage::ScmRights(&writers)];
        let bytes = [IoSlice::new(b"X")];
        sendmsg(sender.as_raw_fd(), &bytes, &rights, MsgFlags::empty(), Some(&address))
            .expect("sends");
        reader
    }

    /// Waits for the end of the pipe: a process that another test is starting may have its writer
    /// for a moment.
    fn has_ended(reader: &PipeReader) -> bool {
        let mut ended = [PollFd::new(reader.as_fd(), PollFlags::empty())];
        poll(&mut ended, 5000u16).expect("polls") == 1
    }
}
