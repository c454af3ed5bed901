//! A client's stream of either kind, which can tell how its other end went away.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, getsockopt, recv,
            setsockopt, socket, sockopt,
        },
        time::TimeVal,
    },
};

use super::Address;

/// How long we wait for the reset that tells a crossed close from a lost request: on loopback it
/// comes within the write, or as soon as the kernel's network thread runs.
const RESET_WAIT: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What can be seen on a connection that waits for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    Open,
    Closed,
    Reset,
    /// The server sends what nobody asked for.
    Talks,
}

impl Connection {
    pub fn open(address: &Address, timeout: Duration) -> io::Result<Connection> {
        match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, timeout)?;
                stream.set_nodelay(true)?;
                Ok(Connection::Tcp(stream))
            }
            Address::Unix(path) => {
                let fd =
                    socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
                // A full queue makes connect wait, and this is the only limit it knows.
                let limit = TimeVal::new(
                    timeout.as_secs().try_into().unwrap_or(i64::MAX),
                    timeout.subsec_micros().into(),
                );
                setsockopt(&fd, sockopt::SendTimeout, &limit)?;
                let name = path.to_string_lossy();
                let address = match name.strip_prefix('@') {
                    Some(name) => UnixAddr::new_abstract(name.as_bytes())?,
                    None => UnixAddr::new(path)?,
                };
                connect(fd.as_raw_fd(), &address).map_err(|errno| match errno {
                    Errno::EAGAIN => io::ErrorKind::TimedOut.into(),
                    other => io::Error::from(other),
                })?;
                Ok(Connection::Unix(fd.into()))
            }
        }
    }

    /// The limit of one read or write. Zero would mean none, so it becomes the shortest there is.
    pub fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        let timeout = Some(timeout.max(Duration::from_millis(1)));
        match self {
            Connection::Tcp(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
            Connection::Unix(stream) => {
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)
            }
        }
    }

    /// Our port, to find the connection in a trace.
    pub fn local_port(&self) -> Option<u16> {
        match self {
            Connection::Tcp(stream) => stream.local_addr().ok().map(|address| address.port()),
            Connection::Unix(_) => None,
        }
    }

    /// Looks without waiting.
    pub fn idle(&self) -> Idle {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        match recv(self.as_fd().as_raw_fd(), &mut [0], flags) {
            Ok(0) => Idle::Closed,
            Ok(_) => Idle::Talks,
            Err(Errno::EAGAIN | Errno::EINTR) => Idle::Open,
            Err(_) => Idle::Reset,
        }
    }

    /// Whether the server had closed the connection before our request reached it.
    ///
    /// To be asked after an end of file without a byte of response. A server that closes first
    /// answers the request that comes after with a reset, and the kernel reports a reset that
    /// follows an end of file as EPIPE (tcp_reset in net/ipv4/tcp_input.c, state CLOSE_WAIT). A
    /// server that took the request and closed without an answer sends the end of file alone, and
    /// one that closes over an unread request sends a reset alone: neither is mistaken for this.
    pub fn close_came_first(&self) -> bool {
        let Connection::Tcp(stream) = self else {
            // The end of a unix stream is seen by write itself, which then fails at once.
            return false;
        };
        // Without an event to ask for, poll waits for an error or for the end of both directions.
        let mut fds = [PollFd::new(stream.as_fd(), PollFlags::empty())];
        let timeout = PollTimeout::try_from(RESET_WAIT).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut fds, timeout);
        getsockopt(stream, sockopt::SocketError) == Ok(Errno::EPIPE as i32)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Connection::Tcp(stream) => stream.as_fd(),
            Connection::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Connection::Tcp(stream) => stream.read(buffer),
            Connection::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Connection::Tcp(stream) => stream.write(bytes),
            Connection::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
