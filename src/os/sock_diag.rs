//! Asks the kernel who has the other end of a connection of ours, see sock_diag(7). While it waits
//! in the queue of a listener nobody has; once accept(2) has taken it, it has an inode, which
//! `/proc/PID/fd` shows to whoever looks.
//!
//! And whether what a listener accepts is shut down from birth.
//!
//! These questions name one socket exactly, and one datagram answers; [`dump`] lists sockets.

pub(super) mod dump;
pub(super) mod servers;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, SockaddrIn,
    SockaddrIn6, SockaddrLike, SockaddrStorage, getpeername, getsockname, recv, sendto, socket,
};
use nix::sys::stat::fstat;

use self::dump::Protocol;

/// Longer than any answer to what is asked here: about 200 bytes.
const ANSWER_MAX: usize = 4096;

/// How many datagrams are read until the answer is among them: strangers may send to a netlink
/// socket, and what the kernel sends is the first in the queue otherwise.
const DATAGRAMS_MAX: usize = 16;

/// Where the other end of a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherEnd {
    /// In the queue of a listener, ready to be taken.
    Queued,
    /// Kept back until data comes, or until its handshake is done.
    KeptBack,
    /// Taken, with this inode.
    Taken(u64),
    /// Closed, or never there.
    Closed,
}

/// Asks; kept open for further questions.
#[derive(Debug)]
pub struct SockDiag {
    netlink: OwnedFd,
    sequence: u32,
}

impl SockDiag {
    /// Opens a socket to ask by.
    ///
    /// # Errors
    ///
    /// `EPROTONOSUPPORT` or `EAFNOSUPPORT` where the kernel has no sock_diag, and what a sandbox
    /// says.
    pub fn open() -> io::Result<SockDiag> {
        let netlink = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkSockDiag,
        )?;
        Ok(SockDiag { netlink, sequence: 0 })
    }

    /// Where the other end of `connection`, a connected stream socket of ours, is.
    ///
    /// # Errors
    ///
    /// `ENOTCONN` when it is not connected, `EAFNOSUPPORT` for another family than TCP and unix,
    /// and what the kernel says to a question that it does not know.
    pub fn other_end(&mut self, connection: &impl AsFd) -> io::Result<OtherEnd> {
        self.sequence = self.sequence.wrapping_add(1);
        let raw = connection.as_fd().as_raw_fd();
        let family = getsockname::<SockaddrStorage>(raw)?.family();
        if family == Some(AddressFamily::Unix) {
            let inode = u32::try_from(fstat(connection)?.st_ino).map_err(io::Error::other)?;
            let question = unix_question(self.sequence, inode);
            return match self.ask(&question)? {
                Answer::Unix { peer: Some(0), shut: false } => Ok(OtherEnd::Queued),
                Answer::Unix { peer: Some(0), shut: true } => Ok(OtherEnd::Closed),
                Answer::Unix { peer: Some(inode), .. } => Ok(OtherEnd::Taken(inode.into())),
                Answer::Unix { peer: None, .. } => Ok(OtherEnd::Closed),
                Answer::Refused(errno) => Err(io::Error::from_raw_os_error(errno)),
                Answer::Inet { .. } => Err(io::ErrorKind::InvalidData.into()),
            };
        }
        let (ours, theirs) = match family {
            Some(AddressFamily::Inet) => {
                let ours = getsockname::<SockaddrIn>(raw)?;
                let theirs = getpeername::<SockaddrIn>(raw)?;
                (SocketAddr::V4(ours.into()), SocketAddr::V4(theirs.into()))
            }
            Some(AddressFamily::Inet6) => {
                let ours = getsockname::<SockaddrIn6>(raw)?;
                let theirs = getpeername::<SockaddrIn6>(raw)?;
                (SocketAddr::V6(ours.into()), SocketAddr::V6(theirs.into()))
            }
            Some(_) | None => return Err(Errno::EAFNOSUPPORT.into()),
        };
        match self.ask(&inet_question(self.sequence, theirs, ours))? {
            Answer::Inet { state: SYN_RECV | NEW_SYN_RECV, .. } => Ok(OtherEnd::KeptBack),
            Answer::Inet { state: ESTABLISHED, inode: 0 } => Ok(OtherEnd::Queued),
            // It was closed, by its taker or before it was taken, and has no process any more.
            Answer::Inet { inode: 0, .. } => Ok(OtherEnd::Closed),
            Answer::Inet { inode, .. } => Ok(OtherEnd::Taken(inode.into())),
            Answer::Refused(libc::ENOENT) => Ok(OtherEnd::Closed),
            Answer::Refused(errno) => Err(io::Error::from_raw_os_error(errno)),
            Answer::Unix { .. } => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Whether what the TCP listener with this port and inode accepts is shut down from birth, as it is
    /// after it was shut down twice; `None` where none listens. They are listed, since of several
    /// at one address the kernel gives any to who asks for one.
    ///
    /// # Errors
    ///
    /// What the kernel says to a question that it does not know.
    pub fn is_poisoned(&mut self, port: u16, inode: u64) -> io::Result<Option<bool>> {
        let servers = self.servers(Protocol::Tcp, port)?;
        let found = servers.iter().find(|server| server.inode == inode & u64::from(u32::MAX));
        Ok(found.map(|server| server.shut))
    }

    fn ask(&self, question: &[u8]) -> io::Result<Answer> {
        let raw = self.netlink.as_raw_fd();
        let kernel = NetlinkAddr::new(0, 0);
        sendto(raw, question, &kernel, MsgFlags::MSG_DONTWAIT)?;
        let mut buffer = [0; ANSWER_MAX];
        for _ in 0..DATAGRAMS_MAX {
            // The kernel answers within the call that asks.
            let length = match recv(raw, &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EINTR) => continue,
                result => result?,
            };
            if let Some(answer) =
                read_answer(buffer.get(..length).unwrap_or_default(), self.sequence)
            {
                return Ok(answer);
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// States of `linux/tcp_states.h`, as `inet_diag_msg` gives them.
const ESTABLISHED: u8 = 1;
const SYN_RECV: u8 = 3;
const NEW_SYN_RECV: u8 = 12;

/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;

/// The size of a `struct nlmsghdr`, netlink(7).
const HEADER_BYTES: usize = 16;

/// `UDIAG_SHOW_PEER`, `UNIX_DIAG_PEER` and `UNIX_DIAG_SHUTDOWN` of `linux/unix_diag.h`.
const SHOW_PEER: u32 = 4;
const ATTRIBUTE_PEER: u16 = 2;
const ATTRIBUTE_SHUTDOWN: u16 = 6;

/// The size of a `struct unix_diag_msg`.
const UNIX_BYTES: usize = 16;

/// Where `idiag_inode` stands in a `struct inet_diag_msg`, its last field, and the size of that.
const INODE_AT: usize = 68;
const INET_BYTES: usize = 72;

/// `INET_DIAG_SHUTDOWN` of `linux/inet_diag.h`, which every answer has.
const INET_SHUTDOWN: u16 = 8;

const AF_UNIX: u8 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;

/// What the kernel says, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Inet {
        state: u8,
        inode: u32,
    },
    /// The peer's inode: 0 when no process has it, none when there is no peer. And whether one of
    /// the two has shut something down, as closing does.
    Unix {
        peer: Option<u32>,
        shut: bool,
    },
    /// An error number.
    Refused(i32),
}

fn message(sequence: u32, flags: i32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
    let flags = u16::try_from(libc::NLM_F_REQUEST | flags).unwrap_or(1);
    [
        length.to_ne_bytes().as_slice(),
        &BY_FAMILY.to_ne_bytes(),
        &flags.to_ne_bytes(),
        &sequence.to_ne_bytes(),
        &0_u32.to_ne_bytes(),
        body,
    ]
    .concat()
}

/// A `struct inet_diag_req_v2` for the socket at `local` that is connected to `remote`.
fn inet_question(sequence: u32, local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let address = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => [ip.octets().as_slice(), &[0; 12]].concat(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let family = if local.is_ipv4() { AF_INET } else { AF_INET6 };
    // The interface of a link-local address, which is part of it.
    let interface = match local {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(local) => local.scope_id(),
    };
    let body = [
        vec![family, IPPROTO_TCP, 0, 0],
        // In all states.
        u32::MAX.to_ne_bytes().to_vec(),
        local.port().to_be_bytes().to_vec(),
        remote.port().to_be_bytes().to_vec(),
        address(local),
        address(remote),
        interface.to_ne_bytes().to_vec(),
        // No cookie: whichever socket has these addresses.
        vec![0xff; 8],
    ];
    message(sequence, 0, &body.concat())
}

/// A `struct unix_diag_req` for the socket with this inode.
fn unix_question(sequence: u32, inode: u32) -> Vec<u8> {
    let body = [
        vec![AF_UNIX, 0, 0, 0],
        u32::MAX.to_ne_bytes().to_vec(),
        inode.to_ne_bytes().to_vec(),
        SHOW_PEER.to_ne_bytes().to_vec(),
        vec![0xff; 8],
    ];
    message(sequence, 0, &body.concat())
}

/// The answer to the question with this number; `None` when the datagram is something else.
fn read_answer(datagram: &[u8], sequence: u32) -> Option<Answer> {
    let length = usize::try_from(u32_at(datagram, 0)?).ok()?;
    let kind = u16_at(datagram, 4)?;
    if u32_at(datagram, 8)? != sequence {
        return None;
    }
    let body = datagram.get(HEADER_BYTES..length)?;
    if i32::from(kind) == libc::NLMSG_ERROR {
        let [a, b, c, d, ..] = *body else {
            return None;
        };
        return Some(Answer::Refused(i32::from_ne_bytes([a, b, c, d]).wrapping_neg()));
    }
    if kind != BY_FAMILY {
        return None;
    }
    match *body.first()? {
        AF_INET | AF_INET6 => {
            let state = *body.get(1)?;
            let inode = u32_at(body, INODE_AT)?;
            Some(Answer::Inet { state, inode })
        }
        AF_UNIX => {
            let attributes = body.get(UNIX_BYTES..)?;
            let peer = attribute(attributes, ATTRIBUTE_PEER).and_then(|value| u32_at(value, 0));
            let shut = is_shut(attributes, ATTRIBUTE_SHUTDOWN);
            Some(Answer::Unix { peer, shut })
        }
        _ => None,
    }
}

/// Whether an attribute that says what is shut down says anything.
fn is_shut(attributes: &[u8], kind: u16) -> bool {
    attribute(attributes, kind).is_some_and(|value| value.first().is_some_and(|&how| how != 0))
}

/// The value of one of the attributes of an answer, netlink(7): each a length, a type and a value,
/// padded to 4 bytes.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    // Each turn takes 4 bytes at least.
    loop {
        let length = usize::from(u16_at(attributes, 0)?);
        let attribute = attributes.get(..length).filter(|_| length >= 4)?;
        if u16_at(attribute, 2)? == wanted {
            return attribute.get(4..);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};

    use proptest::prelude::*;

    use super::*;
    use crate::os::local_address::LocalAddress;
    use crate::os::shared_socket::restore_port;
    use crate::os::sys;
    use nix::sys::socket::{Shutdown, shutdown};

    /// Answers as Linux 6.18 gave them.
    const TAKEN: &str = "7c00000014000000070000000265000002010000d0c7a0647f000001000000000000000000\
        0000007f000001000000000000000000000000000000000a1000000000000000000000000000000000000000\
        0000004c2c0100050008000000000008000f00000000000c00150001000000000000000600160052000000";
    const NO_SUCH: &str = "5c000000020000000700000002650000feffffff4800000014000100070000000000000002\
        060000ffffffff000100027f0000010000000000000000000000007f00000100000000000000000000000000\
        000000ffffffffffffffff";
    const UNIX_QUEUED: &str = "3000000014000000080000000265000001010100512c01000b1000000000000008000200\
        000000000500060000000000";
    const UNIX_TAKEN: &str = "3000000014000000080000000265000001010100512c01000b1000000000000008000200\
        532c01000500060000000000";
    const UNIX_CLOSED: &str = "3000000014000000080000000265000001010100512c01000b1000000000000008000200\
        000000000500060003000000";

    fn bytes(hex: &str) -> Vec<u8> {
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
        (0..hex.len()).step_by(2).map(byte).collect()
    }

    #[test]
    fn a_listener_that_was_shut_down_twice_is_poisoned() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let local = LocalAddress::of(&listener).unwrap().unwrap();
            let port = listener.local_addr().unwrap().port();
            let inode = fstat(&listener).unwrap().st_ino;
            let mut diagnosis = SockDiag::open().unwrap();
            assert_eq!(diagnosis.is_poisoned(port, inode).unwrap(), Some(false), "{address}");
            assert_eq!(diagnosis.is_poisoned(port, inode + 1).unwrap(), None);
            shutdown(listener.as_raw_fd(), Shutdown::Both).unwrap();
            shutdown(listener.as_raw_fd(), Shutdown::Both).unwrap_err();
            restore_port(&listener, &local).unwrap();
            sys::listen(&listener, 16).unwrap();
            assert_eq!(diagnosis.is_poisoned(port, inode).unwrap(), Some(true), "{address}");
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn answers_are_read_as_the_kernel_writes_them() {
        let cases = [
            (TAKEN, 7, Answer::Inet { state: ESTABLISHED, inode: 76876 }),
            (NO_SUCH, 7, Answer::Refused(libc::ENOENT)),
            (UNIX_QUEUED, 8, Answer::Unix { peer: Some(0), shut: false }),
            (UNIX_TAKEN, 8, Answer::Unix { peer: Some(76883), shut: false }),
            (UNIX_CLOSED, 8, Answer::Unix { peer: Some(0), shut: true }),
        ];
        for (hex, sequence, answer) in cases {
            let datagram = bytes(hex);
            assert_eq!(read_answer(&datagram, sequence), Some(answer));
            assert_eq!(read_answer(&datagram, sequence + 1), None);
            for length in 0..datagram.len() {
                assert_eq!(read_answer(&datagram[..length], sequence), None);
            }
        }
    }

    /// Queued, then taken by this process with its inode, then closed.
    fn follow<S: AsFd, T: AsFd>(connection: &S, take: impl FnOnce() -> T) {
        let mut diag = SockDiag::open().expect("this kernel has it");
        assert_eq!(diag.other_end(connection).expect("an answer"), OtherEnd::Queued);
        let taken = take();
        let inode = fstat(&taken).expect("an inode").st_ino;
        assert_eq!(diag.other_end(connection).expect("an answer"), OtherEnd::Taken(inode));
        drop(taken);
        assert_eq!(diag.other_end(connection).expect("an answer"), OtherEnd::Closed);
    }

    #[test]
    fn a_connection_over_tcp_is_followed() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).expect("a listener");
            let address = listener.local_addr().expect("an address");
            let connection = TcpStream::connect(address).expect("connected");
            follow(&connection, || listener.accept().expect("accepted").0);
        }
    }

    #[test]
    fn a_connection_over_ipv4_to_a_dual_stack_socket_is_followed() {
        let listener = TcpListener::bind("[::]:0").expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let connection = TcpStream::connect(("127.0.0.1", port)).expect("connected");
        follow(&connection, || listener.accept().expect("accepted").0);
    }

    #[test]
    fn a_connection_over_a_unix_socket_is_followed() {
        let name = format!("shepherd-sock-diag-{}", std::process::id());
        let address = UnixAddress::from_abstract_name(name).expect("a name");
        let listener = UnixListener::bind_addr(&address).expect("a listener");
        let connection = UnixStream::connect_addr(&address).expect("connected");
        follow(&connection, || listener.accept().expect("accepted").0);
    }

    #[test]
    fn what_is_no_connection_is_an_error() {
        let mut diag = SockDiag::open().expect("this kernel has it");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        assert!(diag.other_end(&listener).is_err());
        assert!(diag.other_end(&std::fs::File::open("/").expect("a directory")).is_err());
    }

    proptest! {
        #[test]
        fn any_datagram_is_read_or_refused(
            kind in prop_oneof![Just(BY_FAMILY), Just(2), any::<u16>()],
            body in proptest::collection::vec(any::<u8>(), 0..120),
            length in prop_oneof![Just(None), any::<u32>().prop_map(Some)],
        ) {
            let mut datagram = message(7, 0, &body);
            datagram[4..6].copy_from_slice(&kind.to_ne_bytes());
            if let Some(length) = length {
                datagram[..4].copy_from_slice(&length.to_ne_bytes());
            }
            let _ = read_answer(&datagram, 7);
        }
    }
}
