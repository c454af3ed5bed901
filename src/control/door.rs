//! Where clients come in.

use std::io;
use std::net::TcpListener as StdTcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};

use tokio::io::Interest;
use tokio::net::UnixStream;

/// The sockets of a thread. None of them blocks.
#[derive(Debug)]
pub struct Doors {
    /// The control socket.
    pub control: StdListener,
    /// The socket for monitoring, where there is one.
    pub admin: Option<StdTcpListener>,
}

/// The control socket as the thread waits on it. tokio's own listener would ask for ever, without a
/// pause, once somebody has shut the socket down: accept(2) says that nobody is there, and epoll(7)
/// that somebody is. So this asks a stream of tokio, which is no more than a descriptor that can be
/// waited for and says which of the two it was.
pub(super) struct Door {
    listener: StdListener,
    readiness: UnixStream,
}

impl Door {
    pub(super) fn new(listener: StdListener) -> io::Result<Door> {
        let copy = StdStream::from(OwnedFd::from(listener.try_clone()?));
        Ok(Door { listener, readiness: UnixStream::from_std(copy)? })
    }

    /// The next client; `None` where the socket was shut down.
    pub(super) async fn accept(&self) -> io::Result<Option<UnixStream>> {
        loop {
            let ready = self.readiness.ready(Interest::READABLE).await?;
            match self.readiness.try_io(Interest::READABLE, || self.listener.accept()) {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true)?;
                    return UnixStream::from_std(stream).map(Some);
                }
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Err(_) if ready.is_read_closed() => return Ok(None),
                Err(_) => {}
            }
        }
    }
}
