//! A worker's own notification socket: receives datagrams and says who sent them. It never reads
//! more than a bound, and closes every descriptor that it is sent.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, bind, setsockopt, socket, sockopt,
};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::{Gid, Pid, Uid, fchownat};

use super::sys;
use crate::protocol::notify::MESSAGE_MAX;

/// The most descriptors that one message can carry, `SCM_MAX_FD` in the kernel.
const DESCRIPTORS_MAX: usize = 253;

/// A bound socket; its path goes when it is dropped.
#[derive(Debug)]
pub struct NotifySocket {
    socket: OwnedFd,
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
    /// Binds a socket at `path`, in a directory that is ours alone, that only its owner may write to:
    /// a user and a group, or ourselves.
    ///
    /// # Errors
    ///
    /// Those of bind(2); a path that is too long is among them. `NotFound` also where the path does
    /// not lead into `directory`, whatever somebody has put in its place: nothing there is changed.
    pub fn bind(
        directory: impl AsFd,
        path: PathBuf,
        owner: Option<(u32, u32)>,
    ) -> io::Result<NotifySocket> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        // Before anybody can send: the kernel does not know who sent what came before this.
        setsockopt(&socket, sockopt::PassCred, &true)?;
        bind(socket.as_raw_fd(), &UnixAddr::new(&path)?)?;
        let bound = NotifySocket { socket, path };
        let name = bound.path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        // By the directory itself: somebody above it may have changed where the path leads.
        let mode = |mode| fchmodat(&directory, name, mode, FchmodatFlags::FollowSymlink);
        let ours = Mode::S_IRUSR | Mode::S_IWUSR;
        mode(ours)?;
        if let Some((user, group)) = owner {
            let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
            let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
            match fchownat(&directory, name, Some(user), Some(group), flags) {
                // A container's root may lack CAP_CHOWN. Who else writes here is not listened to:
                // the kernel says of each message which process it is from.
                Err(Errno::EPERM | Errno::EACCES) => {
                    mode(ours | Mode::S_IWGRP | Mode::S_IWOTH)?;
                }
                chowned => chowned?,
            }
        }
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
    use std::fs::{self, File};
    use std::io::{IoSlice, PipeReader, pipe};
    use std::os::unix::net::UnixDatagram;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use nix::poll::{PollFd, PollFlags, poll};
    use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

    use super::*;

    fn bind_in(directory: &Path) -> io::Result<NotifySocket> {
        NotifySocket::bind(File::open(directory)?, directory.join("notify"), None)
    }

    #[test]
    fn datagrams_come_whole_with_their_sender_and_the_path_goes() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let socket = bind_in(directory.path()).expect("binds");
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
        let socket = bind_in(directory.path()).expect("binds");
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
        let socket = bind_in(directory.path()).expect("binds");
        let reader = send_writer(&socket, 5);
        let received = socket.receive_with(1).expect("readable").expect("a datagram");
        assert!(received.cut);
        assert_eq!((received.bytes.as_slice(), received.sender), (&b"X"[..], Some(Pid::this())));
        assert!((1..5).contains(&received.descriptors.len()), "{received:?}");
        drop(received);
        assert!(has_ended(&reader), "a writer is left");
    }

    #[test]
    fn what_was_put_in_the_place_of_the_directory_is_left_alone() {
        let root = tempfile::tempdir().expect("a directory");
        let (place, moved) = (root.path().join("web"), root.path().join("moved"));
        fs::create_dir(&place).expect("made");
        let directory = File::open(&place).expect("there");
        fs::rename(&place, moved).expect("moved");
        fs::create_dir(&place).expect("made");
        let error =
            NotifySocket::bind(directory, place.join("notify"), None).expect_err("elsewhere");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_sender_is_known_from_the_first_datagram_on() {
        /// Each of them lets another process in between some system calls.
        const ROUNDS: u32 = 300;
        let directory = tempfile::tempdir().expect("a directory");
        let done = Arc::new(AtomicBool::new(false));
        let sends = {
            let (path, done) = (directory.path().join("notify"), Arc::clone(&done));
            move || {
                let sender = UnixDatagram::unbound().expect("a socket");
                sender.set_nonblocking(true).expect("a socket");
                while !done.load(Ordering::Relaxed) {
                    // Mostly there is nobody, or nobody who reads.
                    let _ = sender.send_to(b"READY=1", &path);
                }
            }
        };
        std::thread::spawn(sends);
        let mut strangers = 0;
        for _ in 0..ROUNDS {
            let socket = bind_in(directory.path()).expect("binds");
            let next = || socket.receive().expect("readable");
            strangers += std::iter::from_fn(next).take_while(|one| one.sender.is_none()).count();
        }
        done.store(true, Ordering::Relaxed);
        assert_eq!(strangers, 0);
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
