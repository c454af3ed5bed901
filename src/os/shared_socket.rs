//! What a kernel socket shows of what any of the processes that share it can change for all:
//! whether calls on it wait, and how many connections may. It decides nothing.

use std::io;
use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::core::event::{Backlog, Mode, SocketState};
use crate::os::listeners::Listener;
use crate::os::local_address::LocalAddress;
use crate::os::sys;

impl Listener {
    /// Its name, or else its address, for people.
    #[must_use]
    pub fn label(&self) -> String {
        let place = || match self.address {
            // Which families it takes is said once, at the start.
            LocalAddress::DualStack(port) => {
                let prefix = if self.transport.accepts() { "" } else { "udp:" };
                format!("{prefix}[::]:{port}")
            }
            LocalAddress::Ip(_) | LocalAddress::Unix(_) | LocalAddress::Abstract(_) => self.place(),
        };
        self.name.clone().unwrap_or_else(place)
    }

    /// What it is like, against what it should be.
    ///
    /// # Errors
    ///
    /// None that is known.
    pub fn state(&self) -> io::Result<SocketState> {
        let backlog = match (backlog(&self.fd), self.backlog_cut) {
            (Some(to), Some(from)) if to != from => Backlog::Changed { to, from },
            (Some(_), Some(_)) => Backlog::AsSet,
            // Without a queue, or left as whoever handed it over set it.
            _ if !self.transport.accepts() || self.backlog.is_none() => Backlog::AsSet,
            (None, _) | (_, None) => Backlog::Unseen,
        };
        Ok(SocketState { mode: mode(&self.fd)?, backlog })
    }

    /// Has calls on it wait or not, for all who share it.
    ///
    /// # Errors
    ///
    /// None that is known.
    pub fn set_mode(&self, mode: Mode) -> io::Result<()> {
        set_mode(&self.fd, mode)
    }
}

/// Whether calls on the socket wait, see `O_NONBLOCK` in open(2).
///
/// # Errors
///
/// None that is known.
pub fn mode(socket: impl AsFd) -> io::Result<Mode> {
    let nonblocking = flags(socket)?.contains(OFlag::O_NONBLOCK);
    Ok(if nonblocking { Mode::NonBlocking } else { Mode::Blocking })
}

/// Has calls on the socket wait or not, for all who share it.
///
/// # Errors
///
/// None that is known.
pub fn set_mode(socket: impl AsFd, mode: Mode) -> io::Result<()> {
    let mut flags = flags(&socket)?;
    flags.set(OFlag::O_NONBLOCK, mode == Mode::NonBlocking);
    fcntl(socket, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

/// How many connections may wait on a TCP socket that listens, as listen(2) was last told and the
/// kernel cut it; `None` for every other socket.
#[must_use]
pub fn backlog(socket: impl AsFd) -> Option<u32> {
    sys::tcp_backlog(socket).ok().flatten()
}

/// `O_APPEND`, `O_ASYNC` and whatever else is set are kept.
fn flags(socket: impl AsFd) -> io::Result<OFlag> {
    Ok(OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    #[test]
    fn the_mode_is_shared_by_all_copies() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let copy = listener.try_clone().unwrap();
        assert_eq!(mode(&listener).unwrap(), Mode::Blocking);
        copy.set_nonblocking(true).unwrap();
        assert_eq!(mode(&listener).unwrap(), Mode::NonBlocking);
        set_mode(&listener, Mode::Blocking).unwrap();
        assert_eq!(mode(&copy).unwrap(), Mode::Blocking);
    }

    #[test]
    fn the_backlog_of_a_tcp_listener_is_seen_and_follows_listen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        sys::listen(&listener, 64).unwrap();
        assert_eq!(backlog(&listener), Some(64));
        sys::listen(listener.try_clone().unwrap(), 5).unwrap();
        assert_eq!(backlog(&listener), Some(5));
    }

    #[test]
    fn other_sockets_show_no_backlog() {
        let directory = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(directory.path().join("x.sock")).unwrap();
        assert_eq!(backlog(&unix), None);
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(backlog(&udp), None);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(backlog(&client), None);
    }
}
