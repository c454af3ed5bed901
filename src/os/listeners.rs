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
mod group;
mod listener;
mod warning;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::SockType;

pub use self::error::BindError;
pub use self::group::Ungroupable;
pub use self::listener::{Listener, Origin, RenewError};
use self::warning::Limits;
pub use self::warning::Warning;

use crate::config::identity::Account;
use crate::config::socket::{Address, Slots, SocketSpec, Transport};
use crate::os::abstract_name::{self, AbstractNameError};
use crate::os::holder::{self, Holder};
use crate::os::inherited::Inherited;
use crate::os::ip_socket;
use crate::os::local_address::LocalAddress;
use crate::os::sys;
use crate::os::unix_path::{self, Access, UnixPathError};

/// How often another port is tried until both addresses of `localhost` have it free. One try fails
/// only where somebody holds the port on the other address alone.
const LOCALHOST_TRIES_MAX: u32 = 16;

/// What [`bind_all`] made of the specifications.
#[derive(Debug)]
pub struct Bound {
    /// In the order of the specifications; one may have several.
    pub listeners: Vec<Listener>,
    /// How many of them each specification has.
    pub each: Vec<usize>,
    /// Handed over, and asked for by none. Dropping one closes it.
    pub unused: Vec<Inherited>,
    /// What is not as it was asked for, though everything works.
    pub warnings: Vec<Warning>,
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
    // Before anything is bound.
    let wanted = specs.iter().map(Wanted::new).collect::<Result<Vec<_>, _>>()?;
    let mut listeners = Vec::new();
    let mut each = Vec::with_capacity(wanted.len());
    let mut warnings = Vec::new();
    let result = if wanted.is_empty() {
        use_all(inherited, &mut listeners)
    } else {
        fill(&wanted, inherited, &mut listeners, &mut each, &mut warnings)
    };
    match result {
        Ok(unused) => Ok(Bound { listeners, each, unused, warnings }),
        Err(error) => {
            listeners.into_iter().for_each(Listener::discard);
            Err(error)
        }
    }
}

/// The same specification with the users and groups looked up, which may take its time: what is
/// bound by it later on waits for nobody.
///
/// # Errors
///
/// If there is no such user or group.
pub fn looked_up(spec: &SocketSpec) -> Result<SocketSpec, BindError> {
    let Access { user, group, .. } = Wanted::new(spec)?.access;
    let mut spec = spec.clone();
    spec.options.user = user.map(|user| Account::Number(user.as_raw()));
    spec.options.group = group.map(|group| Account::Number(group.as_raw()));
    Ok(spec)
}

/// What is asked for, with what had to be looked up for it.
struct Wanted<'a> {
    spec: &'a SocketSpec,
    access: Access,
}

impl<'a> Wanted<'a> {
    fn new(spec: &'a SocketSpec) -> Result<Wanted<'a>, BindError> {
        let access = Access::of(&spec.options)
            .map_err(|cause| BindError::Access { socket: spec.place(), cause })?;
        Ok(Wanted { spec, access })
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
    wanted: &[Wanted<'_>],
    mut unused: Vec<Inherited>,
    listeners: &mut Vec<Listener>,
    each: &mut Vec<usize>,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<Inherited>, BindError> {
    let limits = Limits::read();
    let handed_names: Vec<String> =
        unused.iter().filter_map(|socket| socket.name.clone()).collect();
    // The manager decides what a name stands for: a second specification with that name asks for
    // sockets that the first one has got.
    let by_name = |spec: &SocketSpec| {
        // All slots have the same name.
        if spec.slots != Slots::Shared {
            return None;
        }
        let name = spec.name.as_ref()?.to_string();
        handed_names.contains(&name).then_some(name)
    };
    let mut taken: Vec<Vec<Inherited>> = Vec::with_capacity(wanted.len());
    for Wanted { spec, .. } in wanted {
        let name = by_name(spec);
        taken.push(extract(&mut unused, |socket| name.is_some() && socket.name == name));
    }
    for (Wanted { spec, .. }, taken) in wanted.iter().zip(&mut taken) {
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
    for (wanted, taken) in wanted.iter().zip(taken) {
        let spec = wanted.spec;
        let options: Vec<_> = spec.options.before_bind().collect();
        if !taken.is_empty() && !options.is_empty() {
            warnings.push(Warning::HandedOver { socket: spec.place(), options });
        }
        let whole = by_name(spec).is_some();
        let first = listeners.len();
        for socket in taken {
            listeners.push(Listener::inherited(socket, Some(spec))?);
        }
        if !whole {
            bind_missing(wanted, first, listeners)?;
        }
        warnings.extend(warning::of(spec, &listeners[first..], &limits));
        if spec.options.reuse_port {
            warnings.extend(sharers(spec, first, listeners)?);
        }
        each.push(listeners.len() - first);
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
        (Address::Port(_) | Address::Ip(_), LocalAddress::DualStack(_)) if spec.options.v6only => {
            false
        }
        (Address::Port(port), LocalAddress::DualStack(held)) => port == held,
        // A wildcard of IPv6 alone would keep us from binding our own; its owner wants it so.
        (Address::Port(port), LocalAddress::Ip(held)) => {
            let family = held.is_ipv6() || !spec.options.v6only;
            family && *port == held.port() && held.ip().is_unspecified()
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

/// Who serves beside us on what was bound last; no error where `SO_REUSEPORT` is asked for, unless it
/// is ourselves.
fn sharers(
    spec: &SocketSpec,
    first: usize,
    listeners: &[Listener],
) -> Result<Option<Warning>, BindError> {
    let ours = |listener: &&Listener| listener.origin == Origin::Bound;
    for listener in listeners[first..].iter().filter(ours) {
        let Some(address) = listener.ip() else { continue };
        let socket = LocalAddress::Ip(address).place(spec.transport);
        match holder::beside(spec.transport, address, listener.inode) {
            Some(holder) if Others::of(&listeners[..first]).has_it(&holder) => {
                return Err(BindError::Twice { socket });
            }
            Some(holder) => return Ok(Some(Warning::Shared { socket, holder })),
            None => {}
        }
    }
    Ok(None)
}

/// Binds what the specification asks for and `listeners[first..]` do not serve.
fn bind_missing(
    wanted: &Wanted<'_>,
    first: usize,
    listeners: &mut Vec<Listener>,
) -> Result<(), BindError> {
    let Wanted { spec, access } = *wanted;
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
                listeners.push(Listener::bound(fd, spec, None)?);
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
                Err(refusal) if refusal.family_missing() && !spec.options.v6only => {
                    ip_socket::bind(v4, spec)
                }
                result => result,
            };
            listeners.push(Listener::bound(
                fd.map_err(|refusal| refusal.explain(others))?,
                spec,
                None,
            )?);
        }
        Address::Ip(address) => {
            let fd = ip_socket::bind(*address, spec).map_err(|refusal| refusal.explain(others))?;
            listeners.push(Listener::bound(fd, spec, None)?);
        }
        Address::Unix(path) => {
            let (fd, unix_path) =
                unix_path::bind(path, spec.transport, spec.options.backlog(), access)
                    .map_err(|cause| path_error(spec, cause, others))?;
            listeners.push(Listener::bound(fd, spec, Some(unix_path))?);
        }
        Address::Abstract(name) => {
            let fd = abstract_name::bind(name, spec.transport, spec.options.backlog())
                .map_err(|cause| name_error(spec, cause, others))?;
            listeners.push(Listener::bound(fd, spec, None)?);
        }
    }
    Ok(())
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
