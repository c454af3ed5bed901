//! What keeps a socket from being there, as it is told.

use nix::errno::Errno;

use super::{LOCALHOST_TRIES_MAX, Ungroupable};
use crate::config::text::one_line;
use crate::os::abstract_name::AbstractNameError;
use crate::os::holder::Holder;
use crate::os::inherited::OtherEndpoint;
use crate::os::ip_options::OptionRefusal;
use crate::os::unix_path::{AccessError, UnixPathError};

/// Why a socket is not there.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum BindError {
    #[error(
        "cannot bind `{socket}`: the address is in use by {holder}; stop it or choose another port"
    )]
    InUse { socket: String, holder: Holder },
    #[error(
        "cannot bind `{socket}`: the address is in use by a process that cannot be seen from \
         here; stop it or choose another port"
    )]
    InUseUnknown { socket: String },
    #[error("cannot bind `{socket}`: this shepherd listens there already; ask for it once")]
    Twice { socket: String },
    #[error(
        "cannot bind `{socket}`: permission denied; ports below {limit} need \
         CAP_NET_BIND_SERVICE, or choose a higher one"
    )]
    Privileged { socket: String, limit: u16 },
    #[error("cannot bind `{socket}`: permission denied by a security policy of this machine")]
    Denied { socket: String },
    #[error("cannot bind `{socket}`: no interface of this machine has that address")]
    NoSuchAddress { socket: String },
    #[error("cannot bind `{socket}`: this machine has no IPv6; use an IPv4 address")]
    NoIpv6 { socket: String },
    #[error("cannot bind `{socket}`: this machine has no loopback address")]
    NoLoopback { socket: String },
    #[error(
        "cannot bind `{socket}`: after {LOCALHOST_TRIES_MAX} tries no port was free on both \
         127.0.0.1 and ::1; choose a port"
    )]
    LocalhostContended { socket: String },
    #[error("cannot set `{}` on `{socket}`: {cause}", one_line(&.cause.option))]
    Option { socket: String, cause: OptionRefusal },
    #[error("cannot bind `{socket}`: {cause}")]
    Access { socket: String, cause: AccessError },
    #[error("cannot bind `{socket}`: {cause}")]
    Path { socket: String, cause: UnixPathError },
    #[error("cannot bind `{socket}`: {cause}")]
    Name { socket: String, cause: AbstractNameError },
    #[error(
        "cannot use the handed-over socket `{name}`: it is {what}; shepherd serves sockets that \
         accept connections or receive datagrams"
    )]
    InheritedKind { name: String, what: OtherEndpoint },
    #[error("cannot listen on the handed-over socket `{socket}`: {}", .errno.desc())]
    InheritedListen { socket: String, errno: Errno },
    #[error("cannot bind another socket to `{socket}`: {cause}")]
    Alone { socket: String, cause: Ungroupable },
    #[error("cannot bind `{socket}`: {operation} failed: {}", .errno.desc())]
    System { socket: String, operation: &'static str, errno: Errno },
}

impl BindError {
    /// Whether what was asked for cannot be on this machine, whoever has the address: there is no
    /// such user or group.
    #[must_use]
    pub fn is_of_configuration(&self) -> bool {
        matches!(self, BindError::Access { .. })
    }
}
