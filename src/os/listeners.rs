//! Binds the sockets that services ask for, all of them or none, and takes those that were handed
//! over in their place.
//! It never accepts a connection, and never removes the file of a socket that was handed over.
//!
//! A socket listens before it is returned. `SO_REUSEADDR` is set, so that connections of an
//! earlier run in TIME_WAIT do not matter, and `SO_REUSEPORT` is not, so that a second shepherd on
//! the same address is refused. The refusal may come late: with `SO_REUSEADDR` two sockets may be
//! bound to one address, and only one of them may listen, so listen(2) says EADDRINUSE as well as
//! bind(2). A dual-stack listener and a listener of either family alone exclude each other
//! (ipv6(7), socket(7)).
//!
//! Which handed-over socket serves which specification: first every name finds its sockets, all
//! that carry it, whatever their addresses are; then the specifications that are left find
//! theirs by address; what is still left is bound. Matching, binding and undoing are one file
//! because all or none has to be read in one place.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, bind,
    listen, setsockopt, socket, sockopt,
};
use nix::sys::stat::fstat;

use crate::config::socket::{Address, SocketSpec};
use crate::os::holder::{self, Holder};
use crate::os::inherited::{Endpoint, Inherited, OtherEndpoint};
use crate::os::local_address::LocalAddress;
use crate::os::unix_path::{self, UnixPath, UnixPathError};

/// How many connections may wait: the kernel's own default limit, `net.core.somaxconn` (tcp(7)).
pub const BACKLOG: u32 = 4096;

/// How often another port is tried until both addresses of `localhost` have it free. One try fails
/// only where somebody holds the port on the other address alone.
const LOCALHOST_TRIES_MAX: u32 = 16;

/// A socket that accepts connections, and what is known of it.
#[derive(Debug)]
pub struct Listener {
    /// Close-on-exec.
    pub fd: OwnedFd,
    /// What workers find it under in `LISTEN_FDNAMES`; `None` where it has no name.
    pub name: Option<String>,
    /// Where it listens, as the kernel tells it: port 0 is not seen here.
    pub address: LocalAddress,
    /// What `/proc/PID/fd` and sock_diag(7) know the socket by.
    pub inode: u64,
    /// Whether we bound it or were given it.
    pub origin: Origin,
    path: Option<UnixPath>,
}

/// Where a listener comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// We bound it.
    Bound,
    /// Whoever started us handed it over.
    Inherited,
}

/// What [`bind_all`] made of the specifications.
#[derive(Debug)]
pub struct Bound {
    /// In the order of the specifications; one may have several.
    pub listeners: Vec<Listener>,
    /// Handed over, and asked for by none. Dropping one closes it.
    pub unused: Vec<Inherited>,
}

/// Why a socket is not there.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum BindError {
    #[error(
        "cannot bind `{socket}`: the address is in use by {holder}; stop it or choose another port"
    )]
    InUse { socket: SocketAddr, holder: Holder },
    #[error(
        "cannot bind `{socket}`: the address is in use by a process that cannot be seen from \
         here; stop it or choose another port"
    )]
    InUseUnknown { socket: SocketAddr },
    #[error("cannot bind `{socket}`: this shepherd listens there already; ask for it once")]
    Twice { socket: String },
    #[error(
        "cannot bind `{socket}`: permission denied; ports below {limit} need \
         CAP_NET_BIND_SERVICE, or choose a higher one"
    )]
    Privileged { socket: SocketAddr, limit: u16 },
    #[error("cannot bind `{socket}`: permission denied by a security policy of this machine")]
    Denied { socket: SocketAddr },
    #[error("cannot bind `{socket}`: no interface of this machine has that address")]
    NoSuchAddress { socket: SocketAddr },
    #[error("cannot bind `{socket}`: this machine has no IPv6; use an IPv4 address")]
    NoIpv6 { socket: SocketAddr },
    #[error("cannot bind `localhost:{port}`: this machine has no loopback address")]
    NoLoopback { port: u16 },
    #[error(
        "cannot bind `localhost:0`: after {LOCALHOST_TRIES_MAX} tries no port was free on both \
         127.0.0.1 and ::1; choose a port"
    )]
    LocalhostContended,
    #[error("cannot bind `unix:{path}`: {cause}")]
    Unix { path: String, cause: UnixPathError },
    #[error(
        "cannot use the handed-over socket `{name}`: it is {what}; shepherd serves stream sockets \
         that listen"
    )]
    InheritedKind { name: String, what: OtherEndpoint },
    #[error("cannot listen on the handed-over socket `{socket}`: {}", .errno.desc())]
    InheritedListen { socket: String, errno: Errno },
    #[error("cannot bind `{socket}`: {operation} failed: {}", .errno.desc())]
    System { socket: String, operation: &'static str, errno: Errno },
}

/// Makes a listener, or several, for every specification. Without specifications every
/// handed-over socket that can listen is used.
///
/// On an error everything is closed again, and the files of our own unix sockets are removed.
/// A `backlog` above 4096 counts as 4096.
///
/// # Errors
///
/// If any of the sockets cannot be had.
pub fn bind_all(
    specs: &[SocketSpec],
    inherited: Vec<Inherited>,
    backlog: u32,
) -> Result<Bound, BindError> {
    let backlog = backlog_of(backlog);
    let mut listeners = Vec::new();
    let result = if specs.is_empty() {
        use_all(inherited, backlog, &mut listeners)
    } else {
        fill(specs, inherited, backlog, &mut listeners)
    };
    match result {
        Ok(unused) => Ok(Bound { listeners, unused }),
        Err(error) => {
            for listener in listeners {
                listener.close();
            }
            Err(error)
        }
    }
}

impl Listener {
    /// Closes our copy of the socket. The file of a unix socket that we bound is removed first, if
    /// it is still ours.
    pub fn close(self) {
        if let Some(path) = self.path {
            path.remove();
        }
    }

    fn new(fd: OwnedFd, name: Option<String>, origin: Origin) -> Result<Listener, Errno> {
        let address = LocalAddress::of(&fd)?.ok_or(Errno::EAFNOSUPPORT)?;
        let inode = fstat(&fd)?.st_ino;
        Ok(Listener { fd, name, address, inode, origin, path: None })
    }

    fn inherited(
        socket: Inherited,
        name: Option<String>,
        backlog: Backlog,
    ) -> Result<Listener, BindError> {
        let failed = |errno| BindError::InheritedListen { socket: socket.to_string(), errno };
        match &socket.endpoint {
            Endpoint::Listening(_) => {}
            Endpoint::Bound(_) => listen(&socket.fd, backlog).map_err(failed)?,
            Endpoint::Other(what) => {
                let name = name.or(socket.name).unwrap_or_default();
                return Err(BindError::InheritedKind { name, what: *what });
            }
        }
        let text = socket.to_string();
        Listener::new(socket.fd, name.or(socket.name), Origin::Inherited)
            .map_err(|errno| BindError::InheritedListen { socket: text, errno })
    }
}

fn use_all(
    inherited: Vec<Inherited>,
    backlog: Backlog,
    listeners: &mut Vec<Listener>,
) -> Result<Vec<Inherited>, BindError> {
    let (usable, unused): (Vec<_>, Vec<_>) =
        inherited.into_iter().partition(|socket| socket.address().is_some());
    for socket in usable {
        listeners.push(Listener::inherited(socket, None, backlog)?);
    }
    Ok(unused)
}

fn fill(
    specs: &[SocketSpec],
    mut unused: Vec<Inherited>,
    backlog: Backlog,
    listeners: &mut Vec<Listener>,
) -> Result<Vec<Inherited>, BindError> {
    let handed_names: Vec<String> =
        unused.iter().filter_map(|socket| socket.name.clone()).collect();
    // The manager decides what a name stands for: a second specification with that name asks for
    // sockets that the first one has got.
    let by_name = |spec: &SocketSpec| {
        let name = spec.name.as_ref()?.to_string();
        handed_names.contains(&name).then_some(name)
    };
    let mut taken: Vec<Vec<Inherited>> = Vec::with_capacity(specs.len());
    for spec in specs {
        let name = by_name(spec);
        taken.push(extract(&mut unused, |socket| name.is_some() && socket.name == name));
    }
    for (spec, taken) in specs.iter().zip(&mut taken) {
        if by_name(spec).is_none() {
            taken.extend(extract(&mut unused, |socket| {
                socket.address().is_some_and(|address| serves(address, &spec.address))
            }));
            // 127.0.0.1 before ::1, as they are bound.
            taken.sort_by_key(|socket| match socket.address() {
                Some(LocalAddress::Tcp(address)) => address.is_ipv6(),
                Some(_) | None => true,
            });
        }
    }
    for (spec, taken) in specs.iter().zip(taken) {
        let name = spec.name.as_ref().map(ToString::to_string);
        let whole = by_name(spec).is_some();
        let first = listeners.len();
        for socket in taken {
            listeners.push(Listener::inherited(socket, name.clone(), backlog)?);
        }
        if !whole {
            bind_missing(spec, name, first, backlog, listeners)?;
        }
    }
    Ok(unused)
}

/// Takes out those that fulfil the condition and keeps the order of both.
fn extract(
    sockets: &mut Vec<Inherited>,
    condition: impl FnMut(&Inherited) -> bool,
) -> Vec<Inherited> {
    let (taken, left) = core::mem::take(sockets).into_iter().partition(condition);
    *sockets = left;
    taken
}

/// Whether a handed-over socket is one that the specification asks for.
fn serves(held: &LocalAddress, wanted: &Address) -> bool {
    match (wanted, held) {
        // Which port the kernel would pick is nobody's wish.
        (Address::Port(0) | Address::Localhost(0), _) => false,
        (Address::Port(port), LocalAddress::DualStack(held)) => port == held,
        // A wildcard of IPv6 alone would keep us from binding our own; its owner wants it so.
        (Address::Port(port), LocalAddress::Tcp(held)) => {
            *port == held.port() && held.ip().is_unspecified()
        }
        (Address::Ip(wanted), LocalAddress::DualStack(port)) => {
            wanted.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && wanted.port() == *port
        }
        (Address::Ip(wanted), LocalAddress::Tcp(held)) => {
            (wanted.ip(), wanted.port()) == (held.ip(), held.port())
        }
        (Address::Localhost(port), LocalAddress::Tcp(held)) => {
            loopbacks(*port).into_iter().any(|address| address == *held)
        }
        (Address::Unix(wanted), LocalAddress::Unix(held)) => unix_path::same(wanted, held),
        (Address::Port(_) | Address::Ip(_) | Address::Localhost(_), LocalAddress::Unix(_))
        | (Address::Localhost(_), LocalAddress::DualStack(_))
        | (Address::Unix(_), LocalAddress::DualStack(_) | LocalAddress::Tcp(_))
        | (_, LocalAddress::Abstract(_)) => false,
    }
}

/// Binds what the specification asks for and `listeners[first..]` do not serve.
fn bind_missing(
    spec: &SocketSpec,
    name: Option<String>,
    first: usize,
    backlog: Backlog,
    listeners: &mut Vec<Listener>,
) -> Result<(), BindError> {
    let served = listeners.len() > first;
    match &spec.address {
        Address::Localhost(port) => {
            let missing: Vec<SocketAddr> = loopbacks(*port)
                .into_iter()
                .filter(|wanted| {
                    let wanted = LocalAddress::Tcp(*wanted);
                    listeners[first..].iter().all(|listener| listener.address != wanted)
                })
                .collect();
            for fd in localhost(*port, &missing, backlog, listeners)? {
                listeners.push(bound(fd, &spec.address, name.clone(), None)?);
            }
            if listeners.len() == first {
                return Err(BindError::NoLoopback { port: *port });
            }
            listeners[first..].sort_by_key(|listener| {
                matches!(listener.address, LocalAddress::Tcp(address) if address.is_ipv6())
            });
        }
        Address::Port(_) | Address::Ip(_) | Address::Unix(_) if served => {}
        Address::Port(port) => {
            let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port));
            let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, *port));
            let fd = match tcp(v6, backlog) {
                Err(refusal) if refusal.family_missing() => tcp(v4, backlog),
                result => result,
            };
            let fd = fd.map_err(|refusal| refusal.explain(listeners))?;
            listeners.push(bound(fd, &spec.address, name, None)?);
        }
        Address::Ip(address) => {
            let fd = tcp(*address, backlog).map_err(|refusal| refusal.explain(listeners))?;
            listeners.push(bound(fd, &spec.address, name, None)?);
        }
        Address::Unix(path) => {
            let (fd, unix_path) = unix_path::bind(path, backlog)
                .map_err(|cause| unix_error(path, cause, listeners))?;
            listeners.push(bound(fd, &spec.address, name, Some(unix_path))?);
        }
    }
    Ok(())
}

fn bound(
    fd: OwnedFd,
    address: &Address,
    name: Option<String>,
    path: Option<UnixPath>,
) -> Result<Listener, BindError> {
    match Listener::new(fd, name, Origin::Bound) {
        Ok(listener) => Ok(Listener { path, ..listener }),
        Err(errno) => {
            if let Some(path) = path {
                path.remove();
            }
            let socket = address.to_string();
            Err(BindError::System { socket, operation: "getsockname", errno })
        }
    }
}

fn loopbacks(port: u16) -> [SocketAddr; 2] {
    [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))]
}

/// Binds these loopback addresses, less those that the machine does not have; with port 0 all to
/// the same port.
fn localhost(
    port: u16,
    addresses: &[SocketAddr],
    backlog: Backlog,
    listeners: &[Listener],
) -> Result<Vec<OwnedFd>, BindError> {
    for _ in 0..LOCALHOST_TRIES_MAX {
        let mut chosen = port;
        let mut fds: Vec<OwnedFd> = Vec::new();
        let mut contended = false;
        for address in addresses {
            match tcp(SocketAddr::new(address.ip(), chosen), backlog) {
                Ok(fd) => {
                    let bound_port = LocalAddress::of(&fd).ok().flatten();
                    chosen = bound_port.and_then(|address| address.port()).unwrap_or(chosen);
                    fds.push(fd);
                }
                Err(refusal) if refusal.family_missing() => {}
                Err(refusal) if refusal.errno == Errno::EADDRINUSE && port == 0 => contended = true,
                Err(refusal) => return Err(refusal.explain(listeners)),
            }
        }
        if !contended {
            return Ok(fds);
        }
    }
    Err(BindError::LocalhostContended)
}

/// A system call that failed on the way to a listening TCP socket.
struct Refusal {
    socket: SocketAddr,
    operation: &'static str,
    errno: Errno,
}

/// Binds and listens; `[::]` takes IPv4 too, every other IPv6 address is of its own family.
fn tcp(address: SocketAddr, backlog: Backlog) -> Result<OwnedFd, Refusal> {
    let refused = |operation| move |errno| Refusal { socket: address, operation, errno };
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .map_err(refused("socket"))?;
    setsockopt(&fd, sockopt::ReuseAddr, &true).map_err(refused("setsockopt"))?;
    let sockaddr: Box<dyn SockaddrLike> = match address {
        SocketAddr::V4(address) => Box::new(SockaddrIn::from(address)),
        SocketAddr::V6(address) => {
            // The default is a sysctl, net.ipv6.bindv6only.
            let own_family_only = !address.ip().is_unspecified();
            setsockopt(&fd, sockopt::Ipv6V6Only, &own_family_only)
                .map_err(refused("setsockopt"))?;
            Box::new(SockaddrIn6::from(address))
        }
    };
    bind(fd.as_fd().as_raw_fd(), sockaddr.as_ref()).map_err(refused("bind"))?;
    listen(&fd, backlog).map_err(refused("listen"))?;
    Ok(fd)
}

impl Refusal {
    /// The machine lacks the family, or its loopback interface lacks the address.
    fn family_missing(&self) -> bool {
        matches!(self.errno, Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL)
    }

    fn explain(self, listeners: &[Listener]) -> BindError {
        let Refusal { socket, operation, errno } = self;
        match errno {
            Errno::EADDRINUSE => match holder::of_tcp(socket) {
                Some(holder) if is_self(&holder) && !listeners.is_empty() => {
                    BindError::Twice { socket: socket.to_string() }
                }
                Some(holder) => BindError::InUse { socket, holder },
                None => BindError::InUseUnknown { socket },
            },
            Errno::EACCES => {
                let limit = unprivileged_port();
                if socket.port() < limit {
                    BindError::Privileged { socket, limit }
                } else {
                    BindError::Denied { socket }
                }
            }
            Errno::EADDRNOTAVAIL => BindError::NoSuchAddress { socket },
            Errno::EAFNOSUPPORT if socket.is_ipv6() => BindError::NoIpv6 { socket },
            errno => BindError::System { socket: socket.to_string(), operation, errno },
        }
    }
}

fn unix_error(path: &Path, cause: UnixPathError, listeners: &[Listener]) -> BindError {
    match cause {
        UnixPathError::Live { holder } if is_self(&holder) && !listeners.is_empty() => {
            BindError::Twice { socket: format!("unix:{}", path.display()) }
        }
        cause => BindError::Unix { path: path.display().to_string(), cause },
    }
}

fn is_self(holder: &Holder) -> bool {
    u32::try_from(holder.pid) == Ok(std::process::id())
}

/// The first port that needs no privilege, 1024 unless the machine says otherwise (ip(7)).
fn unprivileged_port() -> u16 {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

fn backlog_of(backlog: u32) -> Backlog {
    let backlog = i32::try_from(backlog.min(BACKLOG)).unwrap_or(i32::MAX);
    Backlog::new(backlog).unwrap_or(Backlog::MAXCONN)
}

#[cfg(test)]
mod tests;
