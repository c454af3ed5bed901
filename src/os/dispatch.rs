//! Accepts connections, and gives them to workers one at a time by a channel of messages. It knows
//! bytes and descriptors, never whose turn it is.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, recv, sendmsg, shutdown,
    socketpair,
};
use nix::sys::stat::fstat;

use super::shared_socket;
use super::sys;
use crate::core::event::Mode;

/// The longest message of a worker that is read. It says one byte for each of a few connections; what
/// is longer makes no sense, and its rest is dropped.
const MESSAGE_MAX: usize = 4096;

/// A connection that was accepted. Dropping it closes our descriptor of it.
#[derive(Debug)]
pub struct Connection(OwnedFd);

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// Its IPv4 address.
    V4([u8; 4]),
    /// Its IPv6 address, which may be one of IPv4 in other words.
    V6([u8; 16]),
}

/// What one call of accept4(2) gave.
#[derive(Debug)]
pub enum Accepted {
    /// A connection, and the address of its client, where it has one.
    Taken(Connection, Option<Address>),
    /// One whose client went meanwhile, or whose network failed: there may be others.
    Gone,
    /// Nothing waits.
    Nothing,
    /// No descriptor or memory is left.
    Scarce,
    /// Something else is wrong with the socket.
    Failed(Errno),
}

/// Has a listening socket never block, whatever those have made of it who hold it too.
pub fn never_block(listener: impl AsFd) {
    if shared_socket::mode(&listener).is_ok_and(|mode| mode == Mode::Blocking) {
        // One that cannot be told is one that cannot be accepted from, which says so.
        let _ = shared_socket::set_mode(&listener, Mode::NonBlocking);
    }
}

/// Accepts one connection, as blocking or not as is said, and close-on-exec. The socket must not
/// block ([`never_block`]).
#[must_use]
pub fn accept(listener: impl AsFd, mode: Mode) -> Accepted {
    let flags = match mode {
        Mode::Blocking => libc::SOCK_CLOEXEC,
        Mode::NonBlocking => libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
    };
    match sys::accept4(listener, flags) {
        Ok((fd, name)) => Accepted::Taken(Connection(fd), client(name)),
        Err(Errno::EAGAIN) => Accepted::Nothing,
        Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => Accepted::Scarce,
        // Those of the network that accept(2) has for who should try again, and a firewall's.
        Err(
            Errno::EINTR
            | Errno::ECONNABORTED
            | Errno::EPROTO
            | Errno::ENOPROTOOPT
            | Errno::ENETDOWN
            | Errno::EHOSTDOWN
            | Errno::ENONET
            | Errno::EHOSTUNREACH
            | Errno::ENETUNREACH
            | Errno::EPERM,
        ) => Accepted::Gone,
        Err(errno) => Accepted::Failed(errno),
    }
}

/// The address in the name of a socket, see ip(7) and ipv6(7); a unix socket has none.
fn client(name: [u8; sys::NAME_MAX]) -> Option<Address> {
    let [first, second, rest @ ..] = name;
    match i32::from(u16::from_ne_bytes([first, second])) {
        libc::AF_INET => Some(Address::V4(rest.get(2..6)?.try_into().ok()?)),
        libc::AF_INET6 => Some(Address::V6(rest.get(6..22)?.try_into().ok()?)),
        _ => None,
    }
}

/// Our end of a channel, which never blocks.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way.
    Whole,
    /// The channel takes nothing more now, and nothing of it was sent.
    Full,
    /// Nothing of it was sent: nobody has the other end, or too many descriptors are on their way
    /// (`ETOOMANYREFS`, unix(7)).
    Lost,
}

/// What is read from a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// A message of so many bytes, from the beginning of the buffer.
    Message(usize),
    /// Nothing more has come.
    Nothing,
    /// Nobody has the other end any more, or those who have it will say nothing more.
    End,
}

/// Room for one message.
pub type Buffer = [u8; MESSAGE_MAX];

/// An empty buffer.
pub const BUFFER: Buffer = [0; MESSAGE_MAX];

/// Which of these connections nobody is at the other end of: it was reset. One whose client has only
/// nothing more to say is none of them.
#[must_use]
pub fn hung_up(connections: &[&Connection]) -> Vec<bool> {
    let mut fds: Vec<PollFd<'_>> =
        connections.iter().map(|it| PollFd::new(it.0.as_fd(), PollFlags::empty())).collect();
    let over = PollFlags::POLLHUP | PollFlags::POLLERR;
    let polled = poll(&mut fds, PollTimeout::ZERO).is_ok();
    let is_over = |fd: &PollFd<'_>| polled && fd.revents().is_some_and(|it| it.intersects(over));
    fds.iter().map(is_over).collect()
}

/// Both ends of a channel.
#[derive(Debug)]
pub struct Ends {
    /// Ours.
    pub ours: Channel,
    /// That of a worker, which blocks.
    pub theirs: OwnedFd,
    /// The inode of that.
    pub inode: u64,
}

impl Ends {
    /// A channel.
    ///
    /// # Errors
    ///
    /// When no descriptor is left.
    pub fn new() -> io::Result<Ends> {
        let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
        let (ours, theirs) = socketpair(family, kind, None, SockFlag::SOCK_CLOEXEC)?;
        shared_socket::set_mode(&ours, Mode::NonBlocking)?;
        let inode = fstat(&theirs)?.st_ino;
        Ok(Ends { ours: Channel(ours), theirs, inode })
    }
}

impl Channel {
    /// Sends a message with a descriptor, without waiting.
    pub fn send(&self, message: &[u8], descriptor: impl AsFd) -> Sent {
        let descriptors = [descriptor.as_fd().as_raw_fd()];
        let (parts, control) = ([IoSlice::new(message)], [ControlMessage::ScmRights(&descriptors)]);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match sendmsg::<()>(self.0.as_raw_fd(), &parts, &control, flags, None) {
            Ok(_) => Sent::Whole,
            Err(Errno::EAGAIN) => Sent::Full,
            Err(_) => Sent::Lost,
        }
    }

    /// Reads one message, without waiting. Descriptors that came with it are closed unseen.
    pub fn receive(&self, buffer: &mut Buffer) -> Received {
        let mut receive = || recv(self.0.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT);
        // Whoever closes the other end before it has read all leaves this error, once, in front of
        // what it has said (`unix_release_sock` in the kernel's net/unix/af_unix.c).
        let received = match receive() {
            Err(Errno::ECONNRESET) => receive(),
            received => received,
        };
        match received {
            // A message may be empty as well.
            Ok(0) if !self.is_over() => Received::Message(0),
            Ok(0) => Received::End,
            Ok(length) => Received::Message(length),
            Err(Errno::EAGAIN | Errno::EINTR) => Received::Nothing,
            Err(_) => Received::End,
        }
    }

    /// Tells the worker that nothing more comes. What it says is still heard.
    pub fn finish(&self) {
        // It fails only where nobody is there to be told.
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Write);
    }

    fn is_over(&self) -> bool {
        // nix has no name for the end of one direction.
        let half = PollFlags::from_bits_retain(libc::POLLRDHUP);
        let mut fds = [PollFd::new(self.0.as_fd(), half)];
        let over = half | PollFlags::POLLHUP | PollFlags::POLLERR;
        let polled = poll(&mut fds, PollTimeout::ZERO);
        polled.is_err() || fds[0].revents().is_none_or(|events| events.intersects(over))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{IpAddr, TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::sys::socket::{send, setsockopt, sockopt};

    use super::*;

    fn is_blocking(socket: impl AsFd) -> bool {
        let flags = fcntl(socket.as_fd(), FcntlArg::F_GETFL).expect("flags");
        !OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK)
    }

    #[test]
    fn what_is_accepted_has_its_client_and_is_blocking_or_not_as_is_said() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).expect("a listener");
            assert!(is_blocking(&listener));
            never_block(&listener);
            assert!(matches!(accept(&listener, Mode::Blocking), Accepted::Nothing));
            let address = listener.local_addr().expect("an address");
            for mode in [Mode::Blocking, Mode::NonBlocking] {
                let _client = TcpStream::connect(address).expect("connected");
                let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
                poll(&mut fds, 30_000_u16).expect("it comes");
                let Accepted::Taken(connection, client) = accept(&listener, mode) else {
                    panic!("one waits");
                };
                let expected = match address.ip() {
                    IpAddr::V4(address) => Address::V4(address.octets()),
                    IpAddr::V6(address) => Address::V6(address.octets()),
                };
                assert_eq!(client, Some(expected));
                assert_eq!(is_blocking(&connection), mode == Mode::Blocking);
            }
        }
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("x.sock");
        let listener = UnixListener::bind(&path).expect("a listener");
        let _client = UnixStream::connect(&path).expect("connected");
        assert!(matches!(accept(&listener, Mode::Blocking), Accepted::Taken(_, None)));
        let file = tempfile::tempfile().expect("a file");
        let failed = accept(&file, Mode::Blocking);
        assert!(matches!(failed, Accepted::Failed(Errno::ENOTSOCK)), "{failed:?}");
    }

    #[test]
    fn one_whose_client_is_gone_is_told_from_one_that_waits_for_its_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        let clients = [(); 3].map(|()| TcpStream::connect(address).expect("connected"));
        let taken = [(); 3].map(|()| {
            let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, 30_000_u16).expect("it comes");
            match accept(&listener, Mode::Blocking) {
                Accepted::Taken(connection, _) => connection,
                other => panic!("one waits: {other:?}"),
            }
        });
        let [_stays, asks, goes] = clients;
        asks.shutdown(std::net::Shutdown::Write).expect("shut down");
        let reset = libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&goes, sockopt::Linger, &reset).expect("an option");
        drop(goes);
        let seen = || hung_up(&taken.each_ref());
        let arrived = (0..3000).any(|_| {
            let _ = poll(&mut [], 10_u8);
            seen()[2]
        });
        assert!(arrived);
        assert_eq!(seen(), [false, false, true]);
    }

    #[test]
    fn a_connection_is_sent_whole_and_what_is_said_of_it_is_read_message_by_message() {
        let Ends { ours: channel, theirs: worker, .. } = Ends::new().expect("a channel");
        assert!(is_blocking(&worker) && !is_blocking(&channel));
        let (mut client, connection) = UnixStream::pair().expect("a connection");
        assert_eq!(channel.send(b"http", &connection), Sent::Whole);
        drop(connection);
        let mut name = [0; 8];
        let message = sys::receive(&worker, &mut name, 4).expect("it came");
        assert_eq!((&name[..message.length], message.descriptors.len()), (&b"http"[..], 1));
        let mut taken = UnixStream::from(message.descriptors.into_iter().next().expect("one"));
        taken.write_all(b"hello").expect("written");
        drop(taken);
        let mut text = String::new();
        client.read_to_string(&mut text).expect("read");
        assert_eq!(text, "hello");

        let mut buffer = BUFFER;
        assert_eq!(channel.receive(&mut buffer), Received::Nothing);
        for said in [&b"+"[..], b"", b"-!"] {
            send(worker.as_raw_fd(), said, MsgFlags::empty()).expect("there is room");
        }
        assert_eq!(channel.receive(&mut buffer), Received::Message(1));
        assert_eq!(channel.receive(&mut buffer), Received::Message(0), "no end");
        assert_eq!(
            (channel.receive(&mut buffer), &buffer[..2]),
            (Received::Message(2), &b"-!"[..])
        );
        send(worker.as_raw_fd(), b".", MsgFlags::empty()).expect("there is room");
        drop(worker);
        assert_eq!(channel.receive(&mut buffer), Received::Message(1), "it is said before the end");
        assert_eq!(channel.receive(&mut buffer), Received::End);
        assert_eq!(channel.send(b"http", &client), Sent::Lost);
    }

    #[test]
    fn the_last_words_of_one_that_left_something_unread_are_heard() {
        let Ends { ours: channel, theirs: worker, .. } = Ends::new().expect("a channel");
        let (client, _connection) = UnixStream::pair().expect("a connection");
        for _ in 0..2 {
            assert_eq!(channel.send(b"http", &client), Sent::Whole);
        }
        let message = sys::receive(&worker, &mut [0; 8], 4).expect("it came");
        assert_eq!(message.descriptors.len(), 1);
        send(worker.as_raw_fd(), b"+", MsgFlags::empty()).expect("there is room");
        drop(worker);
        let mut buffer = BUFFER;
        assert_eq!(channel.receive(&mut buffer), Received::Message(1));
        assert_eq!(channel.receive(&mut buffer), Received::End);
    }

    #[test]
    fn what_was_sent_is_read_before_the_end_and_a_full_channel_says_so() {
        let Ends { ours: channel, theirs: worker, .. } = Ends::new().expect("a channel");
        setsockopt(&channel, sockopt::SndBuf, &4096).expect("a small one");
        let (client, _connection) = UnixStream::pair().expect("a connection");
        let mut sent = 0;
        let full = loop {
            match channel.send(b"http", &client) {
                Sent::Whole => sent += 1,
                full => break full,
            }
            assert!(sent < 1000, "it is full at some time");
        };
        assert_eq!(full, Sent::Full);
        channel.finish();
        let mut name = [0; 8];
        for _ in 0..sent {
            let message = sys::receive(&worker, &mut name, 4).expect("it came");
            assert_eq!((message.length, message.descriptors.len()), (4, 1));
        }
        assert_eq!(sys::receive(&worker, &mut name, 4).expect("the end").length, 0);
        send(worker.as_raw_fd(), b"+", MsgFlags::empty()).expect("it is still heard");
        assert_eq!(channel.receive(&mut BUFFER.clone()), Received::Message(1));
    }
}
