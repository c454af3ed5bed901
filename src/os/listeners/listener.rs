//! One socket that is served, for as long as it is.
//! It never decides when it is to be mended.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::fstat;

use super::{BindError, listen};
use crate::config::socket::{Slots, SocketSpec, Transport};
use crate::config::socket_options::{AtTheStop, BACKLOG, SocketOptions};
use crate::core::event::{Again, Mode};
use crate::os::inherited::{Endpoint, Inherited};
use crate::os::ip_options;
use crate::os::local_address::LocalAddress;
use crate::os::shared_socket;
use crate::os::unix_path::{UnixPath, UnixPathError};

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
    /// Whether it is one slot's alone, and which one's.
    pub slots: Slots,
    /// The same as the kernel cut it, where it shows that.
    pub(in crate::os) backlog_cut: Option<u32>,
    path: Option<UnixPath>,
    /// As they were asked for, if they were.
    pub(super) options: SocketOptions,
}

/// Where a listener comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// We bound it.
    Bound,
    /// Whoever started us handed it over.
    Inherited,
}

/// Why a socket cannot be bound anew.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum RenewError {
    #[error("it was handed over, and only who did that can bind it; restart its socket unit")]
    HandedOver,
    #[error(
        "its workers have the name until the last of them has gone; stop shepherd and start it \
         again"
    )]
    WithoutFile,
    #[error("{0}")]
    Path(#[from] UnixPathError),
    #[error("getsockname failed: {}", .0.desc())]
    System(Errno),
}

impl RenewError {
    /// Whether the same can go another time.
    #[must_use]
    pub fn again(&self) -> Again {
        match self {
            RenewError::HandedOver | RenewError::WithoutFile => Again::Never,
            RenewError::Path(cause) if cause.is_passing() => Again::Later,
            RenewError::Path(_) => Again::WhenAsked,
            RenewError::System(_) => Again::Later,
        }
    }
}

impl Listener {
    /// Closes our copy of the socket at the end of its life. The file of a unix socket that we bound
    /// is removed first, if it is still ours and not to be kept.
    pub fn close(self) {
        match self.options.at_the_stop {
            AtTheStop::Removed => self.discard(),
            AtTheStop::Kept => {}
        }
    }

    /// Closes our copy of a socket that was not used after all: a file that we bound goes with it.
    pub fn discard(self) {
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
            if shared_socket::is_shut_down(&self.fd) {
                self.listen_anew(backlog)?;
            } else {
                listen(&self.fd, backlog)?;
            }
            // What the kernel cuts it to is a setting that may have changed.
            self.backlog_cut = shared_socket::backlog(&self.fd);
        }
        Ok(())
    }

    /// Whether new clients can find it: `false` where a unix path that we bound is gone or has another
    /// file.
    #[must_use]
    pub fn has_its_path(&self) -> bool {
        self.path.as_ref().is_none_or(UnixPath::is_there)
    }

    /// The path that it has to have, absolute, if we made it.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_ref().map(UnixPath::path)
    }

    /// Binds another socket to the path, with the same permissions, owner and backlog, after its file
    /// was removed, or after a worker shut the socket down, which listening again does not mend for
    /// a unix socket. This one stays as it is: workers may hold it, and connections wait in it.
    /// `None` if it turns out to be whole, and then nothing was done.
    ///
    /// # Errors
    ///
    /// Where it is not ours to bind, or somebody listens in its place, or the path cannot be bound.
    pub fn renew(&self) -> Result<Option<Listener>, RenewError> {
        if self.broken().is_none() {
            return Ok(None);
        }
        let Some(path) = &self.path else {
            return Err(match self.origin {
                Origin::Inherited => RenewError::HandedOver,
                Origin::Bound => RenewError::WithoutFile,
            });
        };
        let backlog = self.backlog.unwrap_or(BACKLOG);
        let (fd, path) = path.bind_again(self.transport, backlog, self.inode)?;
        begin_mode(&fd, self.options.non_blocking);
        let name = self.name.clone();
        match Listener::new(fd, self.transport, name, Origin::Bound, Some(backlog)) {
            Ok(listener) => {
                let (slots, options) = (self.slots, self.options.clone());
                Ok(Some(Listener { slots, path: Some(path), options, ..listener }))
            }
            Err(errno) => {
                path.remove();
                Err(RenewError::System(errno))
            }
        }
    }

    /// Takes a socket that we have bound.
    pub(super) fn bound(
        fd: OwnedFd,
        spec: &SocketSpec,
        path: Option<UnixPath>,
    ) -> Result<Listener, BindError> {
        let name = spec.name.as_ref().map(ToString::to_string);
        let backlog = Some(spec.options.backlog());
        begin_mode(&fd, spec.options.non_blocking);
        match Listener::new(fd, spec.transport, name, Origin::Bound, backlog) {
            Ok(listener) => {
                let (slots, options) = (spec.slots, spec.options.clone());
                Ok(Listener { slots, path, options, ..listener })
            }
            Err(errno) => {
                if let Some(path) = path {
                    path.remove();
                }
                Err(BindError::System { socket: spec.place(), operation: "getsockname", errno })
            }
        }
    }

    /// Takes a socket that was handed over, for a specification or for none. One that listens
    /// already keeps its backlog, unless another is asked for.
    pub(super) fn inherited(
        socket: Inherited,
        spec: Option<&SocketSpec>,
    ) -> Result<Listener, BindError> {
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
        if let Some(spec) = spec {
            ip_options::set_any_time(&socket.fd, &spec.options)
                .map_err(|cause| BindError::Option { socket: text.clone(), cause })?;
            begin_mode(&socket.fd, spec.options.non_blocking);
        }
        if let Some(backlog) = backlog
            && transport.accepts()
        {
            listen(&socket.fd, backlog).map_err(failed)?;
        }
        let listener = Listener::new(socket.fd, transport, name, Origin::Inherited, backlog);
        let slots = spec.map_or(Slots::Shared, |spec| spec.slots);
        let options = spec.map(|spec| spec.options.clone()).unwrap_or_default();
        Ok(Listener { slots, options, ..listener.map_err(failed)? })
    }

    /// Takes a socket that has joined another's group.
    pub(super) fn joined(&self, fd: OwnedFd) -> Result<Listener, Errno> {
        begin_mode(&fd, self.options.non_blocking);
        let name = self.name.clone();
        let listener = Listener::new(fd, self.transport, name, Origin::Bound, self.backlog)?;
        let (slots, options) = (self.slots, self.options.clone());
        Ok(Listener { slots, options, ..listener })
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
        Ok(Listener {
            fd,
            name,
            transport,
            address,
            inode,
            origin,
            backlog: backlog.or(backlog_cut),
            slots: Slots::Shared,
            backlog_cut,
            path: None,
            options: SocketOptions::default(),
        })
    }
}

/// Whether calls on a socket wait, before the first worker has it. What it is once workers are ready is
/// theirs to choose.
fn begin_mode(fd: &OwnedFd, non_blocking: bool) {
    if non_blocking {
        // An open descriptor of a socket does not refuse it.
        let _ = shared_socket::set_mode(fd, Mode::NonBlocking);
    }
}
