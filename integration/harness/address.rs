//! Where a server answers: TCP of either family, or a unix socket.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use super::Port;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    Tcp(SocketAddr),
    /// A path, or `@name` for an abstract name.
    Unix(PathBuf),
}

impl Address {
    /// The address to connect to: a wildcard becomes the loopback address of its family.
    pub fn reachable(&self) -> Address {
        match self {
            Address::Tcp(SocketAddr::V4(v4)) if v4.ip().is_unspecified() => {
                Address::from((Ipv4Addr::LOCALHOST, v4.port()))
            }
            Address::Tcp(SocketAddr::V6(v6)) if v6.ip().is_unspecified() => {
                Address::from((Ipv6Addr::LOCALHOST, v6.port()))
            }
            other => other.clone(),
        }
    }
}

impl fmt::Display for Address {
    /// As `--listen` takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Tcp(address)
    }
}

impl From<(Ipv4Addr, u16)> for Address {
    fn from(pair: (Ipv4Addr, u16)) -> Address {
        Address::Tcp(pair.into())
    }
}

impl From<(Ipv6Addr, u16)> for Address {
    fn from(pair: (Ipv6Addr, u16)) -> Address {
        Address::Tcp(pair.into())
    }
}

impl From<&Path> for Address {
    fn from(path: &Path) -> Address {
        Address::Unix(path.to_owned())
    }
}

impl From<&Port> for Address {
    /// The IPv4 loopback address.
    fn from(port: &Port) -> Address {
        Address::from((Ipv4Addr::LOCALHOST, port.number()))
    }
}

impl From<&Address> for Address {
    fn from(address: &Address) -> Address {
        address.clone()
    }
}

impl From<&str> for Address {
    /// `127.0.0.1:8000`, `[::1]:8000`, `unix:/run/x.sock` or `unix:@name`.
    fn from(text: &str) -> Address {
        if let Some(path) = text.strip_prefix("unix:") {
            return Address::Unix(path.into());
        }
        match text.parse() {
            Ok(address) => Address::Tcp(address),
            Err(error) => panic!("cannot read address `{text}`: {error}"),
        }
    }
}
