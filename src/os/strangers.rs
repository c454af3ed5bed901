//! Who else serves at the address of a group of ours (`os/steering.rs`): the kernel lets every process
//! of our user in that asks for it.
//! It says who was there when it looked, and turns nobody away.

use core::fmt;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;

use super::holder::{self, Holder};
use super::listeners::Listener;
use super::local_address::LocalAddress;
use super::sock_diag::SockDiag;
use super::sock_diag::dump::Protocol;
use super::sock_diag::servers::Server;
use crate::config::socket::Transport;

/// How many strangers are told of: to name the first is enough, and a list of all is no message.
pub const STRANGERS_MAX: usize = 64;

/// A socket that is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// What `/proc/PID/fd` knows it by.
    pub inode: u64,
    /// The number of the user who made it.
    pub uid: u32,
    /// Where it is bound.
    pub address: SocketAddr,
    /// What it means to the group.
    pub reach: Reach,
    /// Who has it, where that is shown to us.
    pub holder: Option<Holder>,
}

/// What a stranger means to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// It has a place in the order of the group, and gets nothing as long as the program says so.
    Within,
    /// It has another address that covers ours or is covered by it: of two the kernel prefers the
    /// narrower one, and no program of ours is asked about what comes there.
    Beside,
}

impl fmt::Display for Stranger {
    /// Who it is.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.holder {
            Some(holder) => holder.fmt(formatter),
            None => write!(
                formatter,
                "a process of the user with the number {}, which cannot be seen from here,",
                self.uid
            ),
        }
    }
}

/// The strangers at the address of a listener: all but those with these inodes. Those in its group come first.
///
/// # Errors
///
/// What the kernel says where sockets cannot be listed; nobody is known then.
pub fn strangers(listener: &Listener, ours: &BTreeSet<u64>) -> io::Result<Vec<Stranger>> {
    let (local, own_family_only) = match listener.address {
        LocalAddress::DualStack(port) => {
            (SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port)), false)
        }
        LocalAddress::Ip(address) => (address, address.is_ipv6()),
        LocalAddress::Unix(_) | LocalAddress::Abstract(_) => return Ok(Vec::new()),
    };
    let protocol = match listener.transport {
        Transport::Stream => Protocol::Tcp,
        Transport::Datagram => Protocol::Udp,
        Transport::Seqpacket => return Ok(Vec::new()),
    };
    let servers = SockDiag::open()?.servers(protocol, local.port())?;
    let own = servers.iter().find(|server| server.inode == listener.inode).copied();
    // It is not listed while it is shut down.
    let (interface, inode, uid, shut) = (0, listener.inode, 0, false);
    let own = own.unwrap_or(Server { local, own_family_only, interface, inode, uid, shut });
    let others = servers.iter().filter(|server| server.inode != 0 && !ours.contains(&server.inode));
    let mut strangers: Vec<Stranger> = others
        .filter(|server| server.inode != own.inode && server.overlaps(&own))
        .map(|server| Stranger {
            inode: server.inode,
            uid: server.uid,
            address: server.local,
            reach: if server.is_of_one_group(&own) { Reach::Within } else { Reach::Beside },
            holder: None,
        })
        .collect();
    strangers.sort_by_key(|stranger| stranger.reach);
    strangers.truncate(STRANGERS_MAX);
    let inodes: Vec<u64> = strangers.iter().map(|stranger| stranger.inode).collect();
    let mut holders = holder::of_each(&inodes);
    for stranger in &mut strangers {
        stranger.holder = holders.remove(&stranger.inode);
    }
    Ok(strangers)
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{AddressFamily, SockFlag};
    use nix::sys::socket::{SockaddrStorage, bind, setsockopt, socket, sockopt};
    use nix::sys::stat::fstat;
    use std::os::fd::{AsRawFd, OwnedFd};

    use super::*;
    use crate::os::listeners::{bind_all, socket_type};
    use crate::os::sys;

    fn joins(address: SocketAddr, transport: Transport) -> (OwnedFd, u64) {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let kind = socket_type(transport);
        let stranger = socket(family, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
        setsockopt(&stranger, sockopt::ReusePort, &true).unwrap();
        bind(stranger.as_raw_fd(), &SockaddrStorage::from(address)).unwrap();
        if transport.accepts() {
            sys::listen(&stranger, 5).unwrap();
        }
        let inode = fstat(&stranger).unwrap().st_ino;
        (stranger, inode)
    }

    #[test]
    fn who_joins_and_who_is_beside_is_found_and_named() {
        let own = std::process::id();
        for (spec, transport) in
            [("0.0.0.0:0", Transport::Stream), ("udp:0.0.0.0:0", Transport::Datagram)]
        {
            let first = bind_all(&[spec.parse().unwrap()], Vec::new()).unwrap().listeners;
            let first = first.into_iter().next().unwrap();
            let second = first.join().unwrap();
            let ours = BTreeSet::from([first.inode, second.inode]);
            assert_eq!(strangers(&first, &ours).unwrap(), []);
            let port = first.address.port().unwrap();
            let within = SocketAddr::from(([0, 0, 0, 0], port));
            let beside = SocketAddr::from(([127, 0, 0, 1], port));
            let (_beside, beside_inode) = joins(beside, transport);
            let (_within, within_inode) = joins(within, transport);
            let found = strangers(&second, &ours).unwrap();
            let told: Vec<_> = found.iter().map(|it| (it.inode, it.address, it.reach)).collect();
            let expected =
                [(within_inode, within, Reach::Within), (beside_inode, beside, Reach::Beside)];
            assert_eq!(told, expected);
            assert!(found[0].to_string().ends_with(&format!("(pid {own})")), "{}", found[0]);
            assert_eq!(found[0].uid, nix::unistd::geteuid().as_raw());
        }
    }

    #[test]
    fn unix_sockets_have_no_strangers() {
        let name = format!("unix:@shepherd-test-strangers-{}", std::process::id());
        let bound = bind_all(&[name.parse().unwrap()], Vec::new()).unwrap();
        assert_eq!(strangers(&bound.listeners[0], &BTreeSet::new()).unwrap(), []);
    }
}
