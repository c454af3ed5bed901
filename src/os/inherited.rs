//! The sockets that whoever started us handed over (`LISTEN_FDS`, sd_listen_fds(3)).
//! It takes them once, right at the start, and never decides what they are for.
//!
//! The listenfd crate takes the descriptors and it is laxer than libsystemd: it takes them when
//! `LISTEN_PID` is missing or empty, which `systemfd --no-pid` relies on, and it honours
//! `LISTEN_FDS_FIRST_FD`. What it does not look at is checked here first: that the count is a
//! sensible number, and that there are as many names as descriptors. When the variables are meant
//! for another process they are left alone.

use core::fmt;
use std::env;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use listenfd::ListenFd;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockType, SockaddrLike, SockaddrStorage, getpeername, getsockname, getsockopt,
    sockopt,
};

use crate::config::socket::Transport;
use crate::os::local_address::LocalAddress;

/// A soft limit of 1024 descriptors is what a service has unless it asks for more (systemd.exec(5),
/// `LimitNOFILE=`), and a larger count is a mistake.
const COUNT_MAX: i32 = 1024;

/// The first descriptor of the convention, `SD_LISTEN_FDS_START`.
const FIRST: i32 = 3;

/// Families and types that a manager can hand over (systemd.socket(5)). listenfd wants to be told
/// what a descriptor is before it gives up its ownership.
const FAMILIES: [AddressFamily; 5] = [
    // This one also stands for `AF_INET6` there.
    AddressFamily::Inet,
    AddressFamily::Unix,
    AddressFamily::Vsock,
    AddressFamily::Netlink,
    AddressFamily::Packet,
];
const TYPES: [SockType; 4] =
    [SockType::Stream, SockType::Datagram, SockType::SeqPacket, SockType::Raw];

/// A socket that was handed to us.
#[derive(Debug)]
pub struct Inherited {
    /// Close-on-exec where [`take`] made it.
    pub fd: OwnedFd,
    /// Its name in `LISTEN_FDNAMES`; `None` where it had none, or `unknown`.
    pub name: Option<String>,
    /// What it is, and the address that it has.
    pub endpoint: Endpoint,
}

/// What a handed-over socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// It accepts connections.
    Listening(Transport, LocalAddress),
    /// It has an address: datagrams are received, or listen(2) is still to be called.
    Bound(Transport, LocalAddress),
    /// Something that cannot be served: a connection, another family.
    Other(OtherEndpoint),
}

/// What a handed-over socket is if it cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherEndpoint {
    /// A socket with a peer.
    Connection,
    /// A socket without an address.
    Unbound,
    /// A socket of a family or type that is not known here.
    Unknown,
}

impl fmt::Display for OtherEndpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            OtherEndpoint::Connection => "a connection (is `Accept=yes` set?)",
            OtherEndpoint::Unbound => "a socket without an address",
            OtherEndpoint::Unknown => "a socket of another family or type",
        })
    }
}

impl fmt::Display for Inherited {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(formatter, "{name}=")?;
        }
        match &self.endpoint {
            Endpoint::Listening(transport, address) | Endpoint::Bound(transport, address) => {
                formatter.write_str(&address.place(*transport))
            }
            Endpoint::Other(other) => other.fmt(formatter),
        }
    }
}

/// Why the sockets that we were given cannot be taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum InheritedError {
    #[error(
        "cannot take the sockets of {variable}: `{value}` is not a number from {least} to {most}"
    )]
    Number { variable: &'static str, value: String, least: i32, most: i32 },
    #[error(
        "cannot take the sockets of LISTEN_FDS: it says {descriptors} and LISTEN_FDNAMES has \
         {names} names; one of the two was changed on the way"
    )]
    NamesCount { descriptors: usize, names: usize },
    #[error("cannot take the sockets of LISTEN_FDS: LISTEN_FDNAMES is not ASCII")]
    NamesUnreadable,
    #[error(
        "cannot take the socket at descriptor {descriptor}: nothing is open there or it is no \
         socket; LISTEN_FDS is wrong, or a wrapper closed it"
    )]
    NotSocket { descriptor: i32 },
    #[error("cannot take the socket at descriptor {descriptor}: {}", .errno.desc())]
    System { descriptor: i32, errno: Errno },
}

/// Takes what was handed to this process, close-on-exec. Call it before anything else opens a
/// descriptor and while there is one thread: listenfd removes variables from the environment.
/// A second call finds nothing.
///
/// # Errors
///
/// If the variables contradict themselves, or a descriptor that they promise is no open socket.
pub fn take() -> Result<Vec<Inherited>, InheritedError> {
    let Some(announced) = announced(&Variables::of_this_process(), std::process::id())? else {
        return Ok(Vec::new());
    };
    let mut descriptors = ListenFd::from_env();
    let mut inherited = Vec::with_capacity(announced.names.len());
    for ((index, name), descriptor) in
        announced.names.into_iter().enumerate().zip(announced.first..)
    {
        let Some(fd) = adopt(&mut descriptors, index) else {
            return Err(InheritedError::NotSocket { descriptor });
        };
        let socket = Inherited::new(fd, name)
            .map_err(|errno| InheritedError::System { descriptor, errno })?;
        inherited.push(socket);
    }
    Ok(inherited)
}

impl Inherited {
    /// Looks at a socket.
    ///
    /// # Errors
    ///
    /// If the kernel does not tell what the descriptor is, as where it is no socket.
    pub fn new(fd: OwnedFd, name: Option<String>) -> Result<Inherited, Errno> {
        let endpoint = endpoint(&fd)?;
        Ok(Inherited { fd, name, endpoint })
    }

    /// What it carries and where, if it can be served.
    #[must_use]
    pub fn place(&self) -> Option<(Transport, &LocalAddress)> {
        match &self.endpoint {
            Endpoint::Listening(transport, address) | Endpoint::Bound(transport, address) => {
                Some((*transport, address))
            }
            Endpoint::Other(_) => None,
        }
    }
}

fn endpoint(fd: &OwnedFd) -> Result<Endpoint, Errno> {
    let transport = match getsockopt(fd, sockopt::SockType) {
        Ok(SockType::Stream) => Transport::Stream,
        Ok(SockType::Datagram) => Transport::Datagram,
        Ok(SockType::SeqPacket) => Transport::Seqpacket,
        // nix answers EINVAL for a type that it does not know.
        Ok(_) | Err(Errno::EINVAL) => return Ok(Endpoint::Other(OtherEndpoint::Unknown)),
        Err(errno) => return Err(errno),
    };
    let raw = fd.as_fd().as_raw_fd();
    let is_unix = match getsockname::<SockaddrStorage>(raw)?.family() {
        Some(AddressFamily::Unix) => true,
        // Sequenced packets of IP are SCTP's.
        Some(AddressFamily::Inet | AddressFamily::Inet6) if transport != Transport::Seqpacket => {
            false
        }
        Some(_) | None => return Ok(Endpoint::Other(OtherEndpoint::Unknown)),
    };
    if getpeername::<SockaddrStorage>(raw).is_ok() {
        return Ok(Endpoint::Other(OtherEndpoint::Connection));
    }
    let Some(address) = LocalAddress::of(fd)? else {
        return Ok(Endpoint::Other(OtherEndpoint::Unbound));
    };
    if getsockopt(fd, sockopt::AcceptConn)? {
        return Ok(Endpoint::Listening(transport, address));
    }
    // A socket of IP that was never bound shows the wildcard and port 0.
    if !is_unix && address.port() == Some(0) {
        return Ok(Endpoint::Other(OtherEndpoint::Unbound));
    }
    Ok(Endpoint::Bound(transport, address))
}

/// Gets one descriptor out of listenfd as its owner; `None` if it is not an open socket.
fn adopt(descriptors: &mut ListenFd, index: usize) -> Option<OwnedFd> {
    for family in FAMILIES {
        for kind in TYPES {
            // It checks family and type, sets FD_CLOEXEC, and keeps the descriptor on an error.
            let taken =
                descriptors.take_custom::<OwnedFd>(index, family as i32, kind as i32, "socket");
            if let Ok(Some(fd)) = taken {
                return Some(fd);
            }
        }
    }
    None
}

/// The variables of the convention, as they were found.
#[derive(Debug, Default)]
struct Variables {
    fds: Option<OsString>,
    pid: Option<OsString>,
    names: Option<OsString>,
    first: Option<OsString>,
}

impl Variables {
    fn of_this_process() -> Variables {
        Variables {
            fds: env::var_os("LISTEN_FDS"),
            pid: env::var_os("LISTEN_PID"),
            names: env::var_os("LISTEN_FDNAMES"),
            first: env::var_os("LISTEN_FDS_FIRST_FD"),
        }
    }
}

/// What the variables promise to this process.
#[derive(Debug, PartialEq, Eq)]
struct Announced {
    first: i32,
    /// One for each descriptor.
    names: Vec<Option<String>>,
}

fn announced(variables: &Variables, own_pid: u32) -> Result<Option<Announced>, InheritedError> {
    if let Some(pid) = variables.pid.as_deref().filter(|pid| !pid.is_empty()) {
        // Meant for a parent or a child of ours: not an error, and none of our business.
        if digits(pid) != Some(u64::from(own_pid)) {
            return Ok(None);
        }
    }
    let Some(fds) = variables.fds.as_deref().filter(|fds| !fds.is_empty()) else {
        return Ok(None);
    };
    let count = number("LISTEN_FDS", fds, 0, COUNT_MAX)?;
    let first = match variables.first.as_deref() {
        Some(first) => number("LISTEN_FDS_FIRST_FD", first, FIRST, i32::MAX - COUNT_MAX)?,
        None => FIRST,
    };
    if count == 0 {
        return Ok(None);
    }
    let descriptors = usize::try_from(count).unwrap_or_default();
    let names = match variables.names.as_deref() {
        Some(names) => names_of(names)?,
        None => vec![None; descriptors],
    };
    if names.len() != descriptors {
        return Err(InheritedError::NamesCount { descriptors, names: names.len() });
    }
    Ok(Some(Announced { first, names }))
}

fn names_of(names: &OsStr) -> Result<Vec<Option<String>>, InheritedError> {
    let names = names.to_str().filter(|names| names.is_ascii());
    let names = names.ok_or(InheritedError::NamesUnreadable)?;
    // `unknown` is what libsystemd calls a descriptor that was handed over without a name.
    let is_name = |name: &str| !matches!(name, "" | "unknown");
    Ok(names.split(':').map(|name| is_name(name).then(|| name.to_owned())).collect())
}

fn number(
    variable: &'static str,
    value: &OsStr,
    least: i32,
    most: i32,
) -> Result<i32, InheritedError> {
    let number = digits(value).and_then(|number| i32::try_from(number).ok());
    number.filter(|number| (least..=most).contains(number)).ok_or_else(|| {
        let value = value.to_string_lossy().escape_debug().to_string();
        InheritedError::Number { variable, value, least, most }
    })
}

/// A number in digits alone; `str::parse` would take a `+` as well.
fn digits(text: &OsStr) -> Option<u64> {
    let text = text.to_str()?;
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::{UnixDatagram, UnixListener};
    use std::path::Path;
    use std::process::Command;

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    use nix::sys::socket::{SockFlag, UnixAddr, bind, socket};

    fn variables(fds: &str, pid: &str, names: Option<&str>) -> Variables {
        let value = |text: &str| (text != "-").then(|| OsString::from(text));
        Variables { fds: value(fds), pid: value(pid), names: names.and_then(value), first: None }
    }

    #[test]
    fn takes_what_is_meant_for_this_process() {
        for (fds, pid, expected) in [
            ("2", "42", Some(2)),
            ("2", "042", Some(2)),
            // As listenfd has it: no pid is everybody's pid.
            ("2", "-", Some(2)),
            ("2", "", Some(2)),
            ("2", "43", None),
            ("2", "4294967338", None),
            ("2", "auto", None),
            ("two", "43", None),
            ("-", "42", None),
            ("", "42", None),
            ("0", "42", None),
        ] {
            let found = announced(&variables(fds, pid, None), 42).unwrap();
            assert_eq!(found.map(|found| found.names.len()), expected, "{fds} for {pid}");
        }
    }

    #[test]
    fn says_which_variable_is_wrong() {
        for fds in ["two", "-1", "+1", "1025", "99999999999999999999", " 1"] {
            let error = announced(&variables(fds, "42", None), 42).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "cannot take the sockets of LISTEN_FDS: `{fds}` is not a number from 0 to 1024"
                )
            );
        }
        let first = Some(OsString::from("2"));
        let error = announced(&Variables { first, ..variables("1", "42", None) }, 42).unwrap_err();
        assert!(matches!(error, InheritedError::Number { variable: "LISTEN_FDS_FIRST_FD", .. }));
    }

    #[test]
    fn gives_each_descriptor_its_name() {
        let names = |fds, names| {
            announced(&variables(fds, "42", Some(names)), 42).map(|found| found.unwrap().names)
        };
        let web = Some("web".to_owned());
        assert_eq!(names("2", "web:web"), Ok(vec![web.clone(), web.clone()]));
        assert_eq!(names("3", "unknown:web:"), Ok(vec![None, web, None]));
        let error = Err(InheritedError::NamesCount { descriptors: 2, names: 1 });
        assert_eq!(names("2", "web"), error);
        assert_eq!(names("1", "tür"), Err(InheritedError::NamesUnreadable));
    }

    #[test]
    fn sees_what_a_socket_is() {
        let endpoint = |fd: OwnedFd| Inherited::new(fd, None).unwrap().endpoint;
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let accepted = tcp.accept().unwrap().0;
        let tcp_address = LocalAddress::Ip(address);
        assert_eq!(endpoint(tcp.into()), Endpoint::Listening(Transport::Stream, tcp_address));
        for connection in [client, accepted] {
            let connection = endpoint(connection.into());
            assert_eq!(connection, Endpoint::Other(OtherEndpoint::Connection));
        }

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let unix = UnixListener::bind(&path).unwrap();
        let unix_address = LocalAddress::Unix(path);
        assert_eq!(endpoint(unix.into()), Endpoint::Listening(Transport::Stream, unix_address));

        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let udp_address = LocalAddress::Ip(udp.local_addr().unwrap());
        let connected = udp.try_clone().unwrap();
        assert_eq!(endpoint(udp.into()), Endpoint::Bound(Transport::Datagram, udp_address));
        connected.connect(connected.local_addr().unwrap()).unwrap();
        assert_eq!(endpoint(connected.into()), Endpoint::Other(OtherEndpoint::Connection));
        let path = directory.path().join("datagrams");
        let datagram = UnixDatagram::bind(&path).unwrap();
        let address = LocalAddress::Unix(path);
        assert_eq!(endpoint(datagram.into()), Endpoint::Bound(Transport::Datagram, address));

        let new = |family, kind| socket(family, kind, SockFlag::SOCK_CLOEXEC, None);
        for family in [AddressFamily::Inet, AddressFamily::Inet6, AddressFamily::Unix] {
            for kind in [SockType::Stream, SockType::Datagram] {
                if let Ok(fd) = new(family, kind) {
                    assert_eq!(endpoint(fd), Endpoint::Other(OtherEndpoint::Unbound));
                }
            }
        }
        let seqpacket = new(AddressFamily::Unix, SockType::SeqPacket).unwrap();
        let address = UnixAddr::new_abstract(format!("x-{}", std::process::id()).as_bytes());
        bind(seqpacket.as_raw_fd(), &address.unwrap()).unwrap();
        let bound = endpoint(seqpacket);
        assert!(matches!(bound, Endpoint::Bound(Transport::Seqpacket, LocalAddress::Abstract(_))));
    }

    /// Marks the process that [`takes_a_handed_over_socket`] starts.
    const CHILD: &str = "SHEPHERD_TEST_TAKES_PATH";

    #[test]
    fn takes_a_handed_over_socket() {
        if let Some(path) = env::var_os(CHILD) {
            return take_in_child(Path::new(&path));
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let listener = UnixListener::bind(&path).unwrap();
        fcntl(&listener, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        // The environment of this process cannot be changed safely, that of a child can.
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "os::inherited::tests::takes_a_handed_over_socket"])
            .env(CHILD, &path)
            .env("LISTEN_FDS", "1")
            .env("LISTEN_FDNAMES", "web")
            .env("LISTEN_FDS_FIRST_FD", listener.as_raw_fd().to_string())
            .env_remove("LISTEN_PID")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("taken by the child"), "{said}");
    }

    fn take_in_child(path: &Path) {
        let inherited = take().unwrap();
        let [socket] = &inherited[..] else { panic!("{inherited:?}") };
        assert_eq!(socket.name.as_deref(), Some("web"));
        let address = LocalAddress::Unix(path.to_owned());
        assert_eq!(socket.endpoint, Endpoint::Listening(Transport::Stream, address));
        let flags = fcntl(&socket.fd, FcntlArg::F_GETFD).unwrap();
        assert!(FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC));
        assert!(take().unwrap().is_empty());
        println!("taken by the child");
    }
}
