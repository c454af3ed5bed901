//! Sockets of TCP and UDP: made, bound and, where they accept connections, listening.
//! It never picks an address, and never takes one that somebody else has.
//!
//! A TCP socket has `SO_REUSEADDR`, so that connections of an earlier run in TIME_WAIT do not matter.
//! A UDP socket has not: there the option lets several sockets be bound to one address, and the last
//! one gets the datagrams (socket(7)). No socket has `SO_REUSEPORT` unless it is asked for, so that a
//! second shepherd on the same address is refused. The refusal may come late: with `SO_REUSEADDR` two sockets may be bound
//! to one address, and only one of them may listen, so listen(2) says EADDRINUSE as well as bind(2).
//! A dual-stack socket and a socket of either family alone exclude each other (ipv6(7)).

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockaddrIn, SockaddrIn6, SockaddrLike, bind as bind_socket,
    getsockopt, setsockopt, socket, sockopt,
};

use crate::config::socket::{SocketSpec, Transport};
use crate::config::socket_options::SocketOptions;
use crate::os::holder;
use crate::os::ip_options::{self, OptionRefusal};
use crate::os::listeners::{BindError, Origin, Others, listen, socket_type};
use crate::os::local_address::LocalAddress;
use crate::os::steering;

/// A system call that failed on the way to a socket.
#[derive(Debug)]
pub struct Refusal {
    /// Which call.
    pub operation: &'static str,
    /// Why.
    pub errno: Errno,
    /// The option, where one could not be set.
    option: Option<OptionRefusal>,
    transport: Transport,
    address: SocketAddr,
}

/// Binds, and listens where connections are accepted. `[::]` takes IPv4 too, every other IPv6
/// address is of its own family.
///
/// # Errors
///
/// The first system call that failed.
pub fn bind(address: SocketAddr, spec: &SocketSpec) -> Result<OwnedFd, Refusal> {
    let refused = |operation| refused(operation, address, spec.transport);
    let (accepts, shared) = (spec.transport.accepts(), spec.options.reuse_port);
    let mut fd = bound(address, spec)?;
    if accepts && address.port() == 0 {
        fd = bound_to_its_port(&fd, address, spec)?;
    }
    match (accepts, shared) {
        // Whoever else has the address has chosen who gets what.
        (_, true) => {}
        (true, false) => steering::begin_before_listen(&fd).map_err(refused("setsockopt"))?,
        (false, false) => {
            setsockopt(&fd, sockopt::ReusePort, &true).map_err(refused("setsockopt"))?;
            fd = bound_beside(&fd, address, spec)?;
            steering::begin_bound(&fd).map_err(refused("setsockopt"))?;
        }
    }
    if accepts {
        listen(&fd, spec.options.backlog()).map_err(refused("listen"))?;
    }
    Ok(fd)
}

/// Binds to a port that the kernel chose for the first socket as if it had been asked for. A socket
/// that was bound to port 0 loses its port when somebody shuts it down, and would get another when it listens again
/// (`SOCK_BINDPORT_LOCK` in the kernel's `inet_bind`). While the first socket has the port nobody
/// else gets it, and by `SO_REUSEADDR` the second does, since neither listens.
fn bound_to_its_port(
    first: &OwnedFd,
    address: SocketAddr,
    spec: &SocketSpec,
) -> Result<OwnedFd, Refusal> {
    bound(with_port_of(first, address, spec)?, spec)
}

/// Binds another to the address of one that has `SO_REUSEPORT`, of UDP.
fn bound_beside(
    first: &OwnedFd,
    address: SocketAddr,
    spec: &SocketSpec,
) -> Result<OwnedFd, Refusal> {
    let mut sharing = spec.clone();
    sharing.options.reuse_port = true;
    bound(with_port_of(first, address, spec)?, &sharing)
}

fn with_port_of(
    socket: &OwnedFd,
    address: SocketAddr,
    spec: &SocketSpec,
) -> Result<SocketAddr, Refusal> {
    let chosen = LocalAddress::of(socket);
    let chosen = chosen.map_err(refused("getsockname", address, spec.transport))?;
    let mut address = address;
    address.set_port(chosen.and_then(|chosen| chosen.port()).unwrap_or_default());
    Ok(address)
}

/// Binds another socket of the same address and the same group, as it was asked for; what was not
/// asked for of one that was handed over is as it is there. It listens where connections are accepted.
///
/// # Errors
///
/// The first system call that failed.
pub fn join(
    first: &OwnedFd,
    address: SocketAddr,
    transport: Transport,
    like: &Like<'_>,
) -> Result<OwnedFd, Refusal> {
    let refused = |operation| refused(operation, address, transport);
    let refused_option = |option: OptionRefusal| {
        let errno = option.errno;
        Refusal { option: Some(option), ..refused("setsockopt")(errno) }
    };
    let fd = unbound(address, transport)?;
    if address.is_ipv6() {
        let own_family_only = getsockopt(first, sockopt::Ipv6V6Only);
        let own_family_only = own_family_only.map_err(refused("getsockopt"))?;
        setsockopt(&fd, sockopt::Ipv6V6Only, &own_family_only).map_err(refused("setsockopt"))?;
    }
    setsockopt(&fd, sockopt::ReusePort, &true).map_err(refused("setsockopt"))?;
    match like.origin {
        Origin::Bound => ip_options::set_before_bind(&fd, address, like.options),
        Origin::Inherited => ip_options::copy(first, &fd),
    }
    .map_err(refused_option)?;
    ip_options::set_any_time(&fd, like.options).map_err(refused_option)?;
    bind_to(&fd, address).map_err(refused("bind"))?;
    if transport.accepts() {
        listen(&fd, like.backlog).map_err(refused("listen"))?;
    }
    Ok(fd)
}

/// What a socket that joins others is to be like.
#[derive(Debug)]
pub struct Like<'a> {
    /// Where the first of them comes from.
    pub origin: Origin,
    /// What was asked for.
    pub options: &'a SocketOptions,
    /// How many connections may wait.
    pub backlog: u32,
}

fn unbound(address: SocketAddr, transport: Transport) -> Result<OwnedFd, Refusal> {
    let refused = |operation| refused(operation, address, transport);
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd = socket(family, socket_type(transport), SockFlag::SOCK_CLOEXEC, None)
        .map_err(refused("socket"))?;
    if transport.accepts() {
        setsockopt(&fd, sockopt::ReuseAddr, &true).map_err(refused("setsockopt"))?;
    }
    Ok(fd)
}

fn bind_to(fd: &OwnedFd, address: SocketAddr) -> Result<(), Errno> {
    let sockaddr: Box<dyn SockaddrLike> = match address {
        SocketAddr::V4(address) => Box::new(SockaddrIn::from(address)),
        SocketAddr::V6(address) => Box::new(SockaddrIn6::from(address)),
    };
    bind_socket(fd.as_fd().as_raw_fd(), sockaddr.as_ref())
}

fn bound(address: SocketAddr, spec: &SocketSpec) -> Result<OwnedFd, Refusal> {
    let refused = |operation| refused(operation, address, spec.transport);
    let fd = unbound(address, spec.transport)?;
    if let SocketAddr::V6(address) = address {
        // The default is a sysctl, net.ipv6.bindv6only.
        let own_family_only = !address.ip().is_unspecified() || spec.options.v6only;
        setsockopt(&fd, sockopt::Ipv6V6Only, &own_family_only).map_err(refused("setsockopt"))?;
    }
    let refused_option = |option: OptionRefusal| {
        let errno = option.errno;
        Refusal { option: Some(option), ..refused("setsockopt")(errno) }
    };
    ip_options::set_before_bind(&fd, address, &spec.options).map_err(refused_option)?;
    ip_options::set_any_time(&fd, &spec.options).map_err(refused_option)?;
    bind_to(&fd, address).map_err(refused("bind"))?;
    Ok(fd)
}

fn refused(
    operation: &'static str,
    address: SocketAddr,
    transport: Transport,
) -> impl FnOnce(Errno) -> Refusal + use<> {
    move |errno| Refusal { operation, errno, option: None, transport, address }
}

impl Refusal {
    /// The machine lacks the family, or its loopback interface lacks the address.
    #[must_use]
    pub fn family_missing(&self) -> bool {
        self.option.is_none() && matches!(self.errno, Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL)
    }

    /// What it means for whoever asked for the socket.
    #[must_use]
    pub fn explain(self, others: Others) -> BindError {
        let Refusal { operation, errno, option, transport, address } = self;
        let socket = LocalAddress::Ip(address).place(transport);
        if let Some(cause) = option {
            return BindError::Option { socket, cause };
        }
        match errno {
            Errno::EADDRINUSE => match holder::of_ip(transport, address) {
                Some(holder) if others.has_it(&holder) => BindError::Twice { socket },
                Some(holder) => BindError::InUse { socket, holder },
                None => BindError::InUseUnknown { socket },
            },
            Errno::EACCES => {
                let limit = unprivileged_port();
                if address.port() < limit {
                    BindError::Privileged { socket, limit }
                } else {
                    BindError::Denied { socket }
                }
            }
            Errno::EADDRNOTAVAIL => BindError::NoSuchAddress { socket },
            Errno::EAFNOSUPPORT if address.is_ipv6() => BindError::NoIpv6 { socket },
            errno => BindError::System { socket, operation, errno },
        }
    }
}

/// The first port that needs no privilege, 1024 unless the machine says otherwise (ip(7)).
fn unprivileged_port() -> u16 {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_privileged_port_is_explained() {
        let address = "127.0.0.1:80".parse().unwrap();
        let limit = unprivileged_port();
        for (transport, place) in
            [(Transport::Stream, "127.0.0.1:80"), (Transport::Datagram, "udp:127.0.0.1:80")]
        {
            let (operation, errno) = ("bind", Errno::EACCES);
            let refusal = Refusal { operation, errno, option: None, transport, address };
            let error = refusal.explain(Others::None).to_string();
            if limit > 80 {
                assert_eq!(
                    error,
                    format!(
                        "cannot bind `{place}`: permission denied; ports below {limit} need \
                         CAP_NET_BIND_SERVICE, or choose a higher one"
                    )
                );
            }
        }
    }
}
