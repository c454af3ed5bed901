//! What a kernel socket shows of what any of the processes that share it can change for all:
//! whether calls on it wait, how many connections may, whether it can be reached at all; and how
//! that is set right. It decides nothing.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, SockaddrIn, SockaddrIn6, bind, setsockopt, shutdown, sockopt};

use crate::config::socket::{Slots, Transport};
use crate::core::event::{Backlog, Mode, Repair, SocketState};
use crate::os::listeners::{Listener, Origin, listen};
use crate::os::local_address::LocalAddress;
use crate::os::sock_diag::SockDiag;
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
        match self.slots {
            // The slots have one name for all of theirs.
            Slots::One(_) => place(),
            Slots::Shared | Slots::Each => self.name.clone().unwrap_or_else(place),
        }
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

    /// What somebody broke, if anything: it was shut down, or its file is not at its path any more.
    #[must_use]
    pub fn broken(&self) -> Option<Broken> {
        let repair = match self.address {
            LocalAddress::DualStack(_) | LocalAddress::Ip(_) => Repair::Listen,
            LocalAddress::Unix(_) | LocalAddress::Abstract(_) => Repair::Bind,
        };
        if self.transport.accepts() && is_shut_down(&self.fd) {
            Some(Broken::ShutDown(repair))
        } else if !self.has_its_path() {
            Some(Broken::PathGone)
        } else {
            None
        }
    }

    /// Whether it can stop listening and begin again: TCP can. One that was handed over stays as it is,
    /// since whoever did that has it too.
    #[must_use]
    pub fn can_refuse(&self) -> bool {
        let is_tcp = self.transport == Transport::Stream && self.address.port().is_some();
        is_tcp && self.origin == Origin::Bound
    }

    /// Has it stop listening, for all who share it: who connects is refused, what waits is reset. It
    /// stays bound, and [`Listener::listen_again`] begins anew. While one with `SO_REUSEADDR` does not
    /// listen, whoever has that too can bind the port and listen, so it goes without meanwhile.
    ///
    /// # Errors
    ///
    /// None that is known for TCP.
    pub fn stop_listening(&self) -> Result<(), Errno> {
        match shutdown(self.fd.as_raw_fd(), Shutdown::Both) {
            Ok(()) | Err(Errno::ENOTCONN) => setsockopt(&self.fd, sockopt::ReuseAddr, &false),
            Err(errno) => Err(errno),
        }
    }

    /// Listens after shutdown(2). A second shutdown before that would leave the socket listening and
    /// every connection that it accepts shut down from birth: the mask of a socket that is closed
    /// already is set, not acted upon, survives listen(2) and is inherited. So it is cleared before,
    /// and whether another one came in between is asked after.
    pub(super) fn listen_anew(&self, backlog: u32) -> Result<(), Errno> {
        if matches!(self.address, LocalAddress::Unix(_) | LocalAddress::Abstract(_)) {
            return listen(&self.fd, backlog);
        }
        if self.can_refuse() {
            // As it was bound: connections of before may have the port.
            setsockopt(&self.fd, sockopt::ReuseAddr, &true)?;
        }
        for _ in 0..LISTEN_TRIES_MAX {
            sys::disconnect(&self.fd).map_err(|error| errno_of(&error))?;
            restore_port(&self.fd, &self.address)?;
            listen(&self.fd, backlog)?;
            // Where the kernel does not tell, hope is left; the window is a microsecond.
            if !matches!(self.is_poisoned(), Ok(Some(true))) {
                return Ok(());
            }
        }
        Err(Errno::EBUSY)
    }

    fn is_poisoned(&self) -> io::Result<Option<bool>> {
        let Some(port) = self.address.port() else { return Ok(None) };
        SockDiag::open()?.is_poisoned(port, self.inode)
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

/// How often a socket is made to listen whose holders keep shutting it down in that very moment.
const LISTEN_TRIES_MAX: u32 = 16;

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Nobody can connect since somebody called shutdown(2).
    ShutDown(Repair),
    /// Its file was removed or moved, or another is in its place.
    PathGone,
}

/// Whether nobody can connect to a listening socket since somebody called shutdown(2): TCP is
/// closed by that and hung up, a unix socket listens on and can be read from no more.
#[must_use]
pub fn is_shut_down(socket: impl AsFd) -> bool {
    let closed = PollFlags::from_bits_retain(libc::POLLRDHUP) | PollFlags::POLLHUP;
    let mut entry = [PollFd::new(socket.as_fd(), closed)];
    poll(&mut entry, PollTimeout::ZERO).is_ok()
        // Without an answer it is POLLRDHUP, which nix does not know.
        && entry[0].revents().is_none_or(|found| found.intersects(closed))
}

/// Binds a socket to its port once more, if shutdown(2) took it away: one that was handed over may
/// have been bound to port 0.
pub(super) fn restore_port(socket: &impl AsFd, address: &LocalAddress) -> Result<(), Errno> {
    if !is_shut_down(socket) {
        return Ok(());
    }
    let raw = socket.as_fd().as_raw_fd();
    let bound = match address {
        LocalAddress::DualStack(port) => {
            let any = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, *port, 0, 0);
            bind(raw, &SockaddrIn6::from(any))
        }
        LocalAddress::Ip(SocketAddr::V6(address)) => bind(raw, &SockaddrIn6::from(*address)),
        LocalAddress::Ip(SocketAddr::V4(address)) => bind(raw, &SockaddrIn::from(*address)),
        LocalAddress::Unix(_) | LocalAddress::Abstract(_) => Ok(()),
    };
    // It is bound, as most are. getsockname(2) shows the port in either case.
    if bound == Err(Errno::EINVAL) { Ok(()) } else { bound }
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
    sys::tcp_queue(socket).ok().flatten().map(|queue| queue.most)
}

/// How many connections wait on a TCP socket that listens; `None` for every other socket.
#[must_use]
pub fn waiting(socket: impl AsFd) -> Option<u32> {
    sys::tcp_queue(socket).ok().flatten().map(|queue| queue.waiting)
}

fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// `O_APPEND`, `O_ASYNC` and whatever else is set are kept.
fn flags(socket: impl AsFd) -> io::Result<OFlag> {
    Ok(OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

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
    fn tcp_that_was_shut_down_listens_again_on_its_port_even_where_the_kernel_chose_that() {
        for address in ["127.0.0.1:0", "[::]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let local = LocalAddress::of(&listener).unwrap().unwrap();
            let port = local.port().unwrap();
            for how in [Shutdown::Read, Shutdown::Both] {
                assert!(!is_shut_down(&listener));
                shutdown(listener.as_raw_fd(), how).unwrap();
                assert!(is_shut_down(&listener));
                restore_port(&listener, &local).unwrap();
                sys::listen(&listener, 16).unwrap();
                assert!(!is_shut_down(&listener));
                assert_eq!(listener.local_addr().unwrap().port(), port);
                TcpStream::connect(("127.0.0.1", port)).unwrap();
            }
        }
    }

    #[test]
    fn a_connection_is_no_shutdown_and_one_for_writing_alone_harms_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        shutdown(listener.as_raw_fd(), Shutdown::Write).unwrap();
        assert!(!is_shut_down(&listener));
        UnixStream::connect(&path).unwrap();
        shutdown(listener.as_raw_fd(), Shutdown::Read).unwrap();
        assert!(is_shut_down(&listener));
        UnixStream::connect(&path).unwrap_err();
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
