//! Lists who serves at a port, see sock_diag(7): sockets of TCP that listen, and those of UDP that
//! receive from everybody. The kernel has a small table of the former, so this takes microseconds.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::dump::{Family, Protocol, local_address};
use super::{AF_INET6, INET_BYTES, INET_SHUTDOWN, INODE_AT, SockDiag, attribute, is_shut, u32_at};

/// A socket that serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Server {
    /// Where it is bound.
    pub(crate) local: SocketAddr,
    /// Whether one of IPv6 takes no IPv4, as `IPV6_V6ONLY` has it.
    pub(crate) own_family_only: bool,
    /// The index of the interface that it is bound to, 0 for any.
    pub(crate) interface: u32,
    /// What `/proc/PID/fd` knows it by.
    pub(crate) inode: u64,
    /// Who made it.
    pub(crate) uid: u32,
    /// Whether what it accepts is shut down from birth.
    pub(crate) shut: bool,
}

/// `TCP_LISTEN`, and `TCP_CLOSE` for a socket of UDP without a peer, as bits of their numbers in
/// `linux/tcp_states.h`.
const LISTENS: u32 = 1 << 10;
const RECEIVES: u32 = 1 << 7;

/// Where fields stand in a `struct inet_diag_msg`.
const INTERFACE_AT: usize = 40;
const UID_AT: usize = 64;

/// `INET_DIAG_SKV6ONLY` of `linux/inet_diag.h`, which every answer of IPv6 has.
const V6_ONLY: u16 = 11;

impl SockDiag {
    /// All that serve at a port, of both families.
    ///
    /// # Errors
    ///
    /// `ENOENT` where the kernel cannot list this protocol, and what a sandbox says.
    pub(crate) fn servers(&mut self, protocol: Protocol, port: u16) -> io::Result<Vec<Server>> {
        let states = match protocol {
            Protocol::Tcp => LISTENS,
            Protocol::Udp => RECEIVES,
        };
        let mut servers = Vec::new();
        for family in [Family::V4, Family::V6] {
            self.inet_list(protocol, family, states, &[port], &mut |body| {
                servers.extend(server(body).filter(|server| server.local.port() == port));
            })?;
        }
        Ok(servers)
    }
}

impl Server {
    /// Whether the two are of one group, if both ask for that (`SO_REUSEPORT` in socket(7)).
    pub(crate) fn is_of_one_group(&self, other: &Server) -> bool {
        self.local.is_ipv4() == other.local.is_ipv4()
            && self.local.ip() == other.local.ip()
            && self.own_family_only == other.own_family_only
            && self.interface == other.interface
    }

    /// Whether something comes that both could have.
    pub(crate) fn overlaps(&self, other: &Server) -> bool {
        let interfaces = [self.interface, other.interface];
        (interfaces.contains(&0) || self.interface == other.interface)
            && (self.covers(other) || other.covers(self))
    }

    fn covers(&self, other: &Server) -> bool {
        match (self.local.ip().to_canonical(), other.local.ip().to_canonical()) {
            (own, other) if own == other => true,
            (IpAddr::V4(own), IpAddr::V4(_)) => own.is_unspecified(),
            (IpAddr::V6(own), IpAddr::V6(_)) => own.is_unspecified(),
            (IpAddr::V6(own), IpAddr::V4(_)) => own.is_unspecified() && !self.own_family_only,
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        }
    }
}

fn server(body: &[u8]) -> Option<Server> {
    let attributes = body.get(INET_BYTES..).unwrap_or_default();
    let own_family_only = attribute(attributes, V6_ONLY).and_then(|value| value.first().copied());
    Some(Server {
        local: local_address(body)?,
        own_family_only: *body.first()? == AF_INET6 && own_family_only == Some(1),
        interface: u32_at(body, INTERFACE_AT)?,
        inode: u32_at(body, INODE_AT)?.into(),
        uid: u32_at(body, UID_AT)?,
        shut: is_shut(attributes, INET_SHUTDOWN),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(local: &str, own_family_only: bool, interface: u32) -> Server {
        let local = local.parse().unwrap();
        Server { local, own_family_only, interface, inode: 1, uid: 0, shut: false }
    }

    #[test]
    fn what_one_has_another_may_have_too() {
        let dual = bound("[::]:80", false, 0);
        let loopback = bound("127.0.0.1:80", false, 0);
        for (a, b, overlap, group) in [
            (dual, dual, true, true),
            (dual, loopback, true, false),
            (dual, bound("[::]:80", true, 0), true, false),
            (dual, bound("[::1]:80", true, 0), true, false),
            (bound("[::]:80", true, 0), loopback, false, false),
            (loopback, bound("0.0.0.0:80", false, 0), true, false),
            (loopback, bound("127.0.0.2:80", false, 0), false, false),
            (loopback, bound("127.0.0.1:80", false, 1), true, false),
            (bound("127.0.0.1:80", false, 2), bound("127.0.0.1:80", false, 1), false, false),
        ] {
            assert_eq!((a.overlaps(&b), a.is_of_one_group(&b)), (overlap, group), "{a:?} {b:?}");
            assert_eq!((b.overlaps(&a), b.is_of_one_group(&a)), (overlap, group), "{b:?} {a:?}");
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused() {
        for length in 0..100 {
            assert_eq!(server(&vec![2; length]).is_some(), length >= INET_BYTES);
            assert_eq!(server(&vec![7; length]), None);
        }
    }
}
