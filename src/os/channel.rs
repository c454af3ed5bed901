//! The socket on which a worker and we send each other bytes. What they mean is `protocol::messages`'.
//!
//! The two ends have flags of their own (`O_NONBLOCK` belongs to an end, not to the pair), so ours never
//! waits, and the worker's waits as any program expects that knows nothing of this.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};

use super::output::{self, Heard};

/// The most that is written at once: a part of what a socket holds by default (208 KiB).
pub const WRITE_MAX: usize = 64 * 1024;

/// Our end.
#[derive(Debug)]
pub struct Channel(UnixStream);

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// So many bytes were taken.
    Bytes(usize),
    /// There is no room; it can be written once there is.
    Full,
    /// Nobody has the other end.
    Gone,
}

impl Channel {
    /// A channel and the worker's end of it, both close-on-exec.
    ///
    /// # Errors
    ///
    /// `EMFILE` and `ENFILE` when no descriptor is left.
    pub fn pair() -> io::Result<(Channel, OwnedFd)> {
        let (ours, workers) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((Channel(ours), workers.into()))
    }

    /// Reads what is there, as far as it goes. Descriptors that come along are closed by the kernel,
    /// since no room is made for them.
    pub fn hear(&self, buffer: &mut [u8]) -> Heard {
        output::hear(self, buffer)
    }

    /// Writes once.
    #[must_use]
    pub fn send(&self, bytes: &[u8]) -> Sent {
        loop {
            match send(self.0.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
                Ok(count) => return Sent::Bytes(count),
                Err(Errno::EINTR) => {}
                // What is short of memory looks full, and has room in a moment.
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => return Sent::Full,
                // EPIPE, or ECONNRESET where it was closed with something unread.
                Err(_) => return Sent::Gone,
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{IoSlice, Read, Write};

    use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
    use nix::sys::socket::{ControlMessage, UnixAddr, sendmsg};

    use super::*;

    #[test]
    fn only_our_end_never_waits_and_neither_is_inherited() {
        let (ours, workers) = Channel::pair().expect("a pair");
        for (end, waits) in [(ours.as_fd(), false), (workers.as_fd(), true)] {
            let flags = fcntl(end, FcntlArg::F_GETFL).expect("flags");
            let flags = OFlag::from_bits_truncate(flags);
            assert_eq!(!flags.contains(OFlag::O_NONBLOCK), waits);
            assert_eq!(fcntl(end, FcntlArg::F_GETFD), Ok(FdFlag::FD_CLOEXEC.bits()));
        }
    }

    #[test]
    fn bytes_go_both_ways_until_there_is_no_room_or_nobody() {
        let (ours, workers) = Channel::pair().expect("a pair");
        let mut workers = UnixStream::from(workers);
        let mut buffer = [0; 8];
        assert_eq!(ours.hear(&mut buffer), Heard::Nothing);
        workers.write_all(b"abc").expect("room");
        assert_eq!(ours.hear(&mut buffer), Heard::Bytes(3));
        assert_eq!(ours.send(b"de"), Sent::Bytes(2));
        workers.read_exact(&mut buffer[..2]).expect("bytes");
        let much = vec![0; WRITE_MAX];
        let full = std::iter::repeat_with(|| ours.send(&much)).take(100).last();
        assert_eq!(full, Some(Sent::Full));
        drop(workers);
        assert_eq!(ours.send(b"x"), Sent::Gone);
        assert_eq!(ours.hear(&mut buffer), Heard::End);
    }

    #[test]
    fn a_descriptor_that_comes_along_is_nobodys() {
        let (ours, workers) = Channel::pair().expect("a pair");
        let (kept, given) = UnixStream::pair().expect("a pair");
        let given = [given.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&given)];
        let none = MsgFlags::empty();
        sendmsg(workers.as_raw_fd(), &[IoSlice::new(b"x")], &rights, none, None::<&UnixAddr>)
            .expect("sent");
        let mut buffer = [0; 8];
        assert_eq!(ours.hear(&mut buffer), Heard::Bytes(1));
        drop(kept);
    }
}
