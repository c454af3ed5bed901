//! The socket between us and a worker of Node's: bytes and descriptors, each way. What they mean is
//! `protocol::node_ipc`'s.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

use super::sys;
use crate::protocol::node_ipc::READ_HANDLES;

/// Our end. No call on it waits.
#[derive(Debug)]
pub struct NodeChannel {
    socket: UnixStream,
}

/// What one read gave.
#[derive(Debug)]
pub enum Input {
    /// There is nothing to read.
    Nothing,
    /// So many bytes, and the descriptors that came with them.
    Read {
        /// How much of the buffer they fill.
        length: usize,
        /// Close-on-exec.
        descriptors: Vec<OwnedFd>,
        /// Whether descriptors were lost because we have no room for them (`MSG_CTRUNC`).
        cut: bool,
    },
    /// No process has the worker's end any more.
    End,
}

/// What became of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// So many bytes were taken; with the first of them the descriptor.
    Written(usize),
    /// The socket is full: it will be writable.
    Full,
    /// Too many descriptors of our user are on their way somewhere (`ETOOMANYREFS`), or no memory is
    /// left: nothing tells when that ends, so it is tried again later.
    Later,
}

impl NodeChannel {
    /// A channel and the worker's end of it. Both are close-on-exec; the worker's has to get a low number in
    /// its process, see `protocol::node_ipc::CHANNEL_FD_MAX`.
    ///
    /// # Errors
    ///
    /// When no descriptor is left.
    pub fn pair() -> io::Result<(NodeChannel, OwnedFd)> {
        let (socket, workers) = UnixStream::pair()?;
        Ok((NodeChannel { socket }, workers.into()))
    }

    /// Reads once into `bytes`.
    ///
    /// # Errors
    ///
    /// What recvmsg(2) has beside the end, which is none of the worker's doing.
    pub fn read(&self, bytes: &mut [u8]) -> io::Result<Input> {
        match sys::receive(&self.socket, bytes, READ_HANDLES) {
            Ok(message) if message.length == 0 => Ok(Input::End),
            Ok(sys::Message { length, cut, sender: _, descriptors }) => {
                Ok(Input::Read { length, descriptors, cut })
            }
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EAGAIN | Errno::EINTR) => Ok(Input::Nothing),
                // It died with something from us unread; what it sent was read before.
                Some(Errno::ECONNRESET) => Ok(Input::End),
                _ => Err(error),
            },
        }
    }

    /// Writes once. The descriptor goes with the first byte; it has to be a socket, and not to block
    /// (`O_NONBLOCK`), since Node takes it as it is.
    ///
    /// # Errors
    ///
    /// When no process has the worker's end any more.
    pub fn write(&self, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<Output> {
        let raw = descriptor.map(|descriptor| [descriptor.as_raw_fd()]);
        let rights = raw.as_ref().map(|raw| ControlMessage::ScmRights(raw));
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let result = sendmsg(
            self.socket.as_raw_fd(),
            &[IoSlice::new(bytes)],
            rights.as_slice(),
            flags,
            None::<&UnixAddr>,
        );
        match result {
            Ok(count) => Ok(Output::Written(count)),
            Err(Errno::EAGAIN) => Ok(Output::Full),
            Err(Errno::EINTR | Errno::ETOOMANYREFS | Errno::ENOBUFS | Errno::ENOMEM) => {
                Ok(Output::Later)
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for NodeChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests;
