//! Where a socket of ours is bound, as the kernel tells it and as people read it.
//! It never binds anything.

use core::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockaddrIn, SockaddrIn6, SockaddrLike, SockaddrStorage, UnixAddr, getsockname,
    getsockopt, sockopt,
};

use crate::config::socket::Transport;
use crate::config::text::one_line;

/// The local address of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalAddress {
    /// `[::]` with `IPV6_V6ONLY` off: every address of both families (ipv6(7)).
    DualStack(u16),
    /// One address, or every address of one family.
    Ip(SocketAddr),
    /// A path, as it was given to bind(2); it may be relative.
    Unix(PathBuf),
    /// A unix name without a file, less its leading NUL byte (unix(7)).
    Abstract(Vec<u8>),
}

impl LocalAddress {
    /// Reads the address of a socket; `None` if it has none yet, or is of a family that is not
    /// known here.
    ///
    /// # Errors
    ///
    /// If getsockname(2) or getsockopt(2) fails, as where the descriptor is no socket.
    pub fn of(fd: &impl AsFd) -> Result<Option<LocalAddress>, Errno> {
        let raw = fd.as_fd().as_raw_fd();
        let storage = getsockname::<SockaddrStorage>(raw)?;
        match storage.family() {
            Some(AddressFamily::Inet) => {
                let address = SocketAddrV4::from(getsockname::<SockaddrIn>(raw)?);
                Ok(Some(LocalAddress::Ip(SocketAddr::V4(address))))
            }
            Some(AddressFamily::Inet6) => {
                let address = SocketAddrV6::from(getsockname::<SockaddrIn6>(raw)?);
                if address.ip().is_unspecified() && !getsockopt(fd, sockopt::Ipv6V6Only)? {
                    return Ok(Some(LocalAddress::DualStack(address.port())));
                }
                Ok(Some(LocalAddress::Ip(SocketAddr::V6(address))))
            }
            Some(AddressFamily::Unix) => {
                let address = getsockname::<UnixAddr>(raw)?;
                let path = address.path().map(|path| LocalAddress::Unix(path.to_owned()));
                let name = || address.as_abstract().map(|name| LocalAddress::Abstract(name.into()));
                Ok(path.or_else(name))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// The address as it is asked for, of a socket that carries this: `udp:[::1]:53`.
    #[must_use]
    pub fn place(&self, transport: Transport) -> String {
        let text = self.to_string();
        match (transport, self) {
            (Transport::Stream, _) => text,
            (Transport::Datagram, LocalAddress::DualStack(_) | LocalAddress::Ip(_)) => {
                format!("udp:{text}")
            }
            // Nothing asks for these; they are handed over (systemd.socket(5), `ListenDatagram=`).
            (Transport::Datagram, LocalAddress::Unix(_) | LocalAddress::Abstract(_)) => {
                format!("{text} (datagrams)")
            }
            (Transport::Seqpacket, _) => {
                format!("seqpacket:{}", text.strip_prefix("unix:").unwrap_or(&text))
            }
        }
    }

    /// The port, of an address that has one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            LocalAddress::DualStack(port) => Some(*port),
            LocalAddress::Ip(address) => Some(address.port()),
            LocalAddress::Unix(_) | LocalAddress::Abstract(_) => None,
        }
    }

    /// The address to connect to from this machine: a wildcard is reached over the loopback.
    #[must_use]
    pub fn reachable(&self) -> Option<SocketAddr> {
        match self {
            LocalAddress::DualStack(port) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, *port))),
            LocalAddress::Ip(address) if address.ip().is_unspecified() => {
                let ip = match address.ip() {
                    IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                    IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
                };
                Some(SocketAddr::new(ip, address.port()))
            }
            LocalAddress::Ip(address) => Some(*address),
            LocalAddress::Unix(_) | LocalAddress::Abstract(_) => None,
        }
    }
}

impl fmt::Display for LocalAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LocalAddress::DualStack(port) => write!(formatter, "[::]:{port} (IPv4 and IPv6)"),
            LocalAddress::Ip(address) => write!(formatter, "{address}"),
            LocalAddress::Unix(path) => {
                write!(formatter, "unix:{}", one_line(&path.to_string_lossy()))
            }
            LocalAddress::Abstract(name) => {
                write!(formatter, "unix:@{}", one_line(&String::from_utf8_lossy(name)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn is_written_as_it_is_configured() {
        for (address, text) in [
            (LocalAddress::DualStack(8000), "[::]:8000 (IPv4 and IPv6)"),
            (LocalAddress::Ip("[::]:8000".parse().unwrap()), "[::]:8000"),
            (LocalAddress::Ip("0.0.0.0:8000".parse().unwrap()), "0.0.0.0:8000"),
            (LocalAddress::Unix(PathBuf::from("/run/x.sock")), "unix:/run/x.sock"),
            (LocalAddress::Unix(PathBuf::from("/run/x\n")), "unix:/run/x\\n"),
            (LocalAddress::Abstract(b"name".to_vec()), "unix:@name"),
        ] {
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn says_what_the_socket_carries() {
        let ip = LocalAddress::Ip("127.0.0.1:53".parse().unwrap());
        let path = LocalAddress::Unix(PathBuf::from("/run/x"));
        let name = LocalAddress::Abstract(b"x".to_vec());
        for (address, transport, text) in [
            (&ip, Transport::Stream, "127.0.0.1:53"),
            (&ip, Transport::Datagram, "udp:127.0.0.1:53"),
            (&LocalAddress::DualStack(53), Transport::Datagram, "udp:[::]:53 (IPv4 and IPv6)"),
            (&path, Transport::Stream, "unix:/run/x"),
            (&path, Transport::Seqpacket, "seqpacket:/run/x"),
            (&path, Transport::Datagram, "unix:/run/x (datagrams)"),
            (&name, Transport::Seqpacket, "seqpacket:@x"),
        ] {
            assert_eq!(address.place(transport), text);
        }
    }

    #[test]
    fn is_what_the_kernel_says() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(LocalAddress::of(&listener), Ok(Some(LocalAddress::Ip(address))));
        assert_eq!(LocalAddress::Ip(address).port(), Some(address.port()));
    }

    #[test]
    fn a_wildcard_is_reached_over_the_loopback() {
        let reachable = |text: &str| LocalAddress::Ip(text.parse().unwrap()).reachable();
        assert_eq!(reachable("0.0.0.0:80"), "127.0.0.1:80".parse().ok());
        assert_eq!(reachable("[::]:80"), "[::1]:80".parse().ok());
        assert_eq!(LocalAddress::DualStack(80).reachable(), "127.0.0.1:80".parse().ok());
    }
}
