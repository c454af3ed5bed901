//! Further sockets at the address of a listener, see `os/steering.rs`.
//! It never decides what they get.

use std::net::{Ipv6Addr, SocketAddr};

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::stat::fstat;
use nix::unistd::geteuid;

use super::{BindError, Listener, Origin, Others};
use crate::config::socket_options::BACKLOG;
use crate::os::ip_socket::{self, Like};
use crate::os::local_address::LocalAddress;

/// Why there can be no further sockets at the address of a listener.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum Ungroupable {
    #[error("it is a unix socket")]
    Unix,
    #[error("others may have a part of what comes, as `reuse_port` has it")]
    Shared,
    #[error(
        "it was handed over without SO_REUSEPORT; `ReusePort=yes` of its socket unit sets that"
    )]
    HandedOverAlone,
    #[error(
        "it was handed over by the user with the number {uid}, and the kernel lets no socket of \
         another user join it"
    )]
    OtherUser { uid: u32 },
    #[error("this kernel takes no program that says which socket gets what comes")]
    NoProgram,
    #[error("the kernel does not tell what it is: {}", .0.desc())]
    Unseen(Errno),
}

impl Listener {
    /// Whether other sockets can be bound to its address and share what comes there.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn can_group(&self) -> Result<(), Ungroupable> {
        if self.ip().is_none() {
            return Err(Ungroupable::Unix);
        }
        if self.options.reuse_port {
            return Err(Ungroupable::Shared);
        }
        if !getsockopt(&self.fd, sockopt::ReusePort).map_err(Ungroupable::Unseen)? {
            return Err(match self.origin {
                Origin::Inherited => Ungroupable::HandedOverAlone,
                // It would have it otherwise.
                Origin::Bound => Ungroupable::NoProgram,
            });
        }
        // Whoever made a socket owns it, and may have given it away by fchown(2).
        let uid = fstat(&self.fd).map_err(Ungroupable::Unseen)?.st_uid;
        if uid == geteuid().as_raw() { Ok(()) } else { Err(Ungroupable::OtherUser { uid }) }
    }

    /// Binds one more socket to its address, with its port, its options and its backlog, in its group.
    /// One of TCP listens; its place is behind those that do already. Which of them gets what is
    /// for a program to say, and without one that says so it gets a part at once.
    ///
    /// # Errors
    ///
    /// If it cannot be had.
    pub fn join(&self) -> Result<Listener, BindError> {
        let socket = self.place();
        let no = |cause| BindError::Alone { socket: socket.clone(), cause };
        self.can_group().map_err(no)?;
        let Some(address) = self.ip() else { return Err(no(Ungroupable::Unix)) };
        let like = Like {
            origin: self.origin,
            options: &self.options,
            backlog: self.backlog.unwrap_or(BACKLOG),
        };
        let fd = ip_socket::join(&self.fd, address, self.transport, &like)
            .map_err(|refusal| refusal.explain(Others::Some))?;
        self.joined(fd).map_err(|errno| BindError::System {
            socket,
            operation: "getsockname",
            errno,
        })
    }

    /// Its address, if it is one of IP.
    pub(super) fn ip(&self) -> Option<SocketAddr> {
        match self.address {
            LocalAddress::DualStack(port) => Some(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))),
            LocalAddress::Ip(address) => Some(address),
            LocalAddress::Unix(_) | LocalAddress::Abstract(_) => None,
        }
    }
}
