//! Binds the sockets that services ask for, all of them or none, and takes those that were handed
//! over in their place.
//! It never accepts a connection, and never removes the file of a socket that was handed over.
//!
//! A socket that accepts connections listens before it is returned.
//!
//! Which handed-over socket serves which specification: first every name finds its sockets, all
//! that carry it, whatever they carry and wherever they are; then the specifications that are left
//! find theirs by transport and address; what is still left is bound. Matching, binding and undoing
//! are one file because all or none has to be read in one place.

mod error;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::SockType;
use nix::sys::stat::fstat;

pub use self::error::BindError;

use crate::config::socket::{Address, SocketSpec, Transport};
use crate::config::socket_options::BACKLOG;
use crate::os::abstract_name::{self, AbstractNameError};
use crate::os::holder::Holder;
use crate::os::inherited::{Endpoint, Inherited};
use crate::os::ip_socket;
use crate::os::local_address::LocalAddress;
use crate::os::shared_socket;
use crate::os::sys;
use crate::os::unix_path::{self, UnixPath, UnixPathError};

/// How often another port is tried until both addresses of `localhost` have it free. One try fails
/// only where somebody holds the port on the other address alone.
const LOCALHOST_TRIES_MAX: u32 = 16;

/// A socket that accepts connections or receives datagrams, and what is known of it.
#[derive(Debug)]
pub struct Listener {
    /// Close-on-exec.
    pub fd: OwnedFd,
    /// What workers find it under in `LISTEN_FDNAMES`; `None` where it has no name.
    pub name: Option<String>,
    /// What it carries.
    pub transport: Transport,
    /// Where it is to be reached, as the kernel tells it: port 0 is not seen here.
    pub address: LocalAddress,
    /// What `/proc/PID/fd` and sock_diag(7) know the socket by.
    pub inode: u64,
    /// Whether we bound it or were given it.
    pub origin: Origin,
    /// How many connections may wait to be accepted, as it was configured, or as whoever handed the
    /// socket over set it and the kernel shows that; of no meaning where datagrams are received.
    pub backlog: Option<u32>,
    /// The same as the kernel cut it, where it shows that.
    pub(super) backlog_cut: Option<u32>,
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
    /// What is not as it was asked for, though everything works.
    pub warnings: Vec<Warning>,
}

/// What is not as it was asked for, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// The kernel cuts a backlog without a word (listen(2)).
    BacklogCut {
        /// The socket, as it was asked for.
        socket: String,
        /// What was asked for.
        asked: u32,
        /// What it is cut to.
        limit: u32,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::BacklogCut { socket, asked, limit } => write!(
                formatter,
                "the backlog {asked} of {socket} is cut to {limit}, the kernel's \
                 net.core.somaxconn; raise that, or ask for less"
            ),
        }
    }
}

/// Whether this process has bound others already, so that it may stand in its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// It has.
    Some,
    /// It has not.
    None,
}

impl Others {
    fn of(listeners: &[Listener]) -> Others {
        if listeners.is_empty() { Others::None } else { Others::Some }
    }

    /// Whether what this process wants is held by what it has.
    #[must_use]
    pub fn has_it(self, holder: &Holder) -> bool {
        self == Others::Some && u32::try_from(holder.pid) == Ok(std::process::id())
    }
}

/// Makes a listener, or several, for every specification. Without specifications every
/// handed-over socket that can be used is used.
///
/// On an error everything is closed again, and the files of our own unix sockets are removed.
///
/// # Errors
///
/// If any of the sockets cannot be had.
pub fn bind_all(specs: &[SocketSpec], inherited: Vec<Inherited>) -> Result<Bound, BindError> {
    let mut listeners = Vec::new();
    let result = if specs.is_empty() {
        use_all(inherited, &mut listeners)
    } else {
        fill(specs, inherited, &mut listeners)
    };
    match result {
        Ok(unused) => Ok(Bound { listeners, unused, warnings: warnings(specs, somaxconn()) }),
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

    /// Where it is to be reached, as it is asked for: `udp:[::1]:53`.
    #[must_use]
    pub fn place(&self) -> String {
        self.address.place(self.transport)
    }

    /// Listens once more with the configured backlog. Whoever has the socket can lower the backlog
    /// for all, as a worker does that calls listen(2) itself, or end the listening of a TCP socket
    /// by shutdown(2); this undoes both. Connections that wait stay. A datagram socket is left alone.
    ///
    /// # Errors
    ///
    /// What listen(2) says: EADDRINUSE where it had ended and another socket has the address.
    pub fn listen_again(&mut self) -> Result<(), Errno> {
        if let Some(backlog) = self.backlog
            && self.transport.accepts()
        {
            listen(&self.fd, backlog)?;
            // What the kernel cuts it to is a setting that may have changed.
            self.backlog_cut = shared_socket::backlog(&self.fd);
        }
        Ok(())
    }

    fn new(
        fd: OwnedFd,
        transport: Transport,
        name: Option<String>,
        origin: Origin,
        backlog: Option<u32>,
    ) -> Result<Listener, Errno> {
        let address = LocalAddress::of(&fd)?.ok_or(Errno::EAFNOSUPPORT)?;
        let inode = fstat(&fd)?.st_ino;
        let backlog_cut = shared_socket::backlog(&fd);
        let backlog = backlog.or(backlog_cut);
        Ok(Listener {
            fd,
            name,
            transport,
            address,
            inode,
            origin,
            backlog,
            backlog_cut,
            path: None,
        })
    }

    /// Takes a socket that was handed over, for a specification or for none. One that listens
    /// already keeps its backlog, unless another is asked for.
    fn inherited(socket: Inherited, spec: Option<&SocketSpec>) -> Result<Listener, BindError> {
        let name = spec.and_then(|spec| spec.name.as_ref()).map(ToString::to_string);
        let name = name.or_else(|| socket.name.clone());
        let text = socket.to_string();
        let failed = |errno| BindError::InheritedListen { socket: text.clone(), errno };
        let asked = spec.and_then(|spec| spec.options.backlog);
        let (transport, backlog) = match socket.endpoint {
            Endpoint::Listening(transport, _) => (transport, asked),
            Endpoint::Bound(transport, _) => (transport, Some(asked.unwrap_or(BACKLOG))),
            Endpoint::Other(what) => {
                return Err(BindError::InheritedKind { name: name.unwrap_or_default(), what });
            }
        };
        if let Some(backlog) = backlog
            && transport.accepts()
        {
            listen(&socket.fd, backlog).map_err(failed)?;
        }
        Listener::new(socket.fd, transport, name, Origin::Inherited, backlog).map_err(failed)
    }
}

/// Has a socket listen. The kernel cuts what is above `net.core.somaxconn` (listen(2)).
///
/// # Errors
///
/// What listen(2) says.
pub(super) fn listen(socket: &impl AsFd, backlog: u32) -> Result<(), Errno> {
    sys::listen(socket, i32::try_from(backlog).unwrap_or(i32::MAX))
        .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}

/// The type of a socket that carries this.
pub(super) fn socket_type(transport: Transport) -> SockType {
    match transport {
        Transport::Stream => SockType::Stream,
        Transport::Datagram => SockType::Datagram,
        Transport::Seqpacket => SockType::SeqPacket,
    }
}

/// What of the specifications the machine does not give. The default backlog is cut without a word:
/// nobody has asked for that number.
fn warnings(specs: &[SocketSpec], somaxconn: Option<u32>) -> Vec<Warning> {
    let cut = |spec: &SocketSpec| {
        let (asked, limit) = (spec.options.backlog?, somaxconn?);
        let socket = spec.place();
        (asked > limit).then_some(Warning::BacklogCut { socket, asked, limit })
    };
    specs.iter().filter_map(cut).collect()
}

/// The most connections that may wait on any socket (listen(2)).
fn somaxconn() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?.trim().parse().ok()
}

fn use_all(
    inherited: Vec<Inherited>,
    listeners: &mut Vec<Listener>,
) -> Result<Vec<Inherited>, BindError> {
    let (usable, unused): (Vec<_>, Vec<_>) =
        inherited.into_iter().partition(|socket| socket.place().is_some());
    for socket in usable {
        listeners.push(Listener::inherited(socket, None)?);
    }
    Ok(unused)
}

fn fill(
    specs: &[SocketSpec],
    mut unused: Vec<Inherited>,
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
                socket.place().is_some_and(|(transport, address)| serves(transport, address, spec))
            }));
            // 127.0.0.1 before ::1, as they are bound.
            taken.sort_by_key(|socket| match socket.place() {
                Some((_, LocalAddress::Ip(address))) => address.is_ipv6(),
                Some(_) | None => true,
            });
        }
    }
    for (spec, taken) in specs.iter().zip(taken) {
        let whole = by_name(spec).is_some();
        let first = listeners.len();
        for socket in taken {
            listeners.push(Listener::inherited(socket, Some(spec))?);
        }
        if !whole {
            bind_missing(spec, first, listeners)?;
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
fn serves(transport: Transport, held: &LocalAddress, spec: &SocketSpec) -> bool {
    if transport != spec.transport {
        return false;
    }
    match (&spec.address, held) {
        // Which port the kernel would pick is nobody's wish.
        (Address::Port(0) | Address::Localhost(0), _) => false,
        (Address::Port(port), LocalAddress::DualStack(held)) => port == held,
        // A wildcard of IPv6 alone would keep us from binding our own; its owner wants it so.
        (Address::Port(port), LocalAddress::Ip(held)) => {
            *port == held.port() && held.ip().is_unspecified()
        }
        (Address::Ip(wanted), LocalAddress::DualStack(port)) => {
            wanted.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && wanted.port() == *port
        }
        (Address::Ip(wanted), LocalAddress::Ip(held)) => {
            (wanted.ip(), wanted.port()) == (held.ip(), held.port())
        }
        (Address::Localhost(port), LocalAddress::Ip(held)) => {
            loopbacks(*port).into_iter().any(|address| address == *held)
        }
        (Address::Unix(wanted), LocalAddress::Unix(held)) => unix_path::same(wanted, held),
        (Address::Abstract(wanted), LocalAddress::Abstract(held)) => wanted.as_bytes() == held,
        (
            Address::Port(_) | Address::Ip(_) | Address::Localhost(_),
            LocalAddress::Unix(_) | LocalAddress::Abstract(_),
        )
        | (Address::Localhost(_), LocalAddress::DualStack(_))
        | (
            Address::Unix(_) | Address::Abstract(_),
            LocalAddress::DualStack(_) | LocalAddress::Ip(_),
        )
        | (Address::Unix(_), LocalAddress::Abstract(_))
        | (Address::Abstract(_), LocalAddress::Unix(_)) => false,
    }
}

/// Binds what the specification asks for and `listeners[first..]` do not serve.
fn bind_missing(
    spec: &SocketSpec,
    first: usize,
    listeners: &mut Vec<Listener>,
) -> Result<(), BindError> {
    let served = listeners.len() > first;
    let others = Others::of(listeners);
    match &spec.address {
        Address::Localhost(port) => {
            let missing: Vec<SocketAddr> = loopbacks(*port)
                .into_iter()
                .filter(|wanted| {
                    let wanted = LocalAddress::Ip(*wanted);
                    listeners[first..].iter().all(|listener| listener.address != wanted)
                })
                .collect();
            for fd in localhost(*port, &missing, spec, others)? {
                listeners.push(bound(fd, spec, None)?);
            }
            if listeners.len() == first {
                return Err(BindError::NoLoopback { socket: spec.place() });
            }
            listeners[first..].sort_by_key(|listener| {
                matches!(listener.address, LocalAddress::Ip(address) if address.is_ipv6())
            });
        }
        Address::Port(_) | Address::Ip(_) | Address::Unix(_) | Address::Abstract(_) if served => {}
        Address::Port(port) => {
            let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port));
            let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, *port));
            let fd = match ip_socket::bind(v6, spec) {
                Err(refusal) if refusal.family_missing() => ip_socket::bind(v4, spec),
                result => result,
            };
            listeners.push(bound(fd.map_err(|refusal| refusal.explain(others))?, spec, None)?);
        }
        Address::Ip(address) => {
            let fd = ip_socket::bind(*address, spec).map_err(|refusal| refusal.explain(others))?;
            listeners.push(bound(fd, spec, None)?);
        }
        Address::Unix(path) => {
            let (fd, unix_path) = unix_path::bind(path, spec.transport, spec.options.backlog())
                .map_err(|cause| path_error(spec, cause, others))?;
            listeners.push(bound(fd, spec, Some(unix_path))?);
        }
        Address::Abstract(name) => {
            let fd = abstract_name::bind(name, spec.transport, spec.options.backlog())
                .map_err(|cause| name_error(spec, cause, others))?;
            listeners.push(bound(fd, spec, None)?);
        }
    }
    Ok(())
}

fn bound(fd: OwnedFd, spec: &SocketSpec, path: Option<UnixPath>) -> Result<Listener, BindError> {
    let name = spec.name.as_ref().map(ToString::to_string);
    let backlog = spec.options.backlog();
    match Listener::new(fd, spec.transport, name, Origin::Bound, Some(backlog)) {
        Ok(listener) => Ok(Listener { path, ..listener }),
        Err(errno) => {
            if let Some(path) = path {
                path.remove();
            }
            Err(BindError::System { socket: spec.place(), operation: "getsockname", errno })
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
    spec: &SocketSpec,
    others: Others,
) -> Result<Vec<OwnedFd>, BindError> {
    for _ in 0..LOCALHOST_TRIES_MAX {
        let mut chosen = port;
        let mut fds: Vec<OwnedFd> = Vec::new();
        let mut contended = false;
        for address in addresses {
            match ip_socket::bind(SocketAddr::new(address.ip(), chosen), spec) {
                Ok(fd) => {
                    let bound_port = LocalAddress::of(&fd).ok().flatten();
                    chosen = bound_port.and_then(|address| address.port()).unwrap_or(chosen);
                    fds.push(fd);
                }
                Err(refusal) if refusal.family_missing() => {}
                Err(refusal) if refusal.errno == Errno::EADDRINUSE && port == 0 => contended = true,
                Err(refusal) => return Err(refusal.explain(others)),
            }
        }
        if !contended {
            return Ok(fds);
        }
    }
    Err(BindError::LocalhostContended { socket: spec.place() })
}

fn path_error(spec: &SocketSpec, cause: UnixPathError, others: Others) -> BindError {
    let socket = spec.place();
    match cause {
        UnixPathError::Live { holder } if others.has_it(&holder) => BindError::Twice { socket },
        cause => BindError::Path { socket, cause },
    }
}

fn name_error(spec: &SocketSpec, cause: AbstractNameError, others: Others) -> BindError {
    let socket = spec.place();
    match cause {
        AbstractNameError::Taken { holder } if others.has_it(&holder) => {
            BindError::Twice { socket }
        }
        cause => BindError::Name { socket, cause },
    }
}

#[cfg(test)]
mod tests;
