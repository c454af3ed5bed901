//! The socket on which monitoring reaches the daemon: bound once, at the start, and never given to a
//! worker. It never accepts from it.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::config::admin::AdminAddress;
use crate::config::socket::{Address, Slots, SocketSpec, Transport};
use crate::config::socket_options::SocketOptions;
use crate::os::listeners::{self, BindError};

/// How many clients may wait to be taken; more are those of somebody who means harm.
const BACKLOG: u32 = 64;

/// A bound socket that listens, close-on-exec and non-blocking.
#[derive(Debug)]
pub struct AdminSocket {
    listener: TcpListener,
    place: String,
    is_loopback: bool,
}

impl AdminSocket {
    /// Binds the address and listens.
    ///
    /// # Errors
    ///
    /// As for a socket of workers, with the process that has the address where one does.
    pub fn bind(address: AdminAddress) -> Result<AdminSocket, BindError> {
        let spec = SocketSpec {
            name: None,
            transport: Transport::Stream,
            address: Address::Ip(address.address()),
            slots: Slots::Shared,
            options: SocketOptions {
                backlog: Some(BACKLOG),
                non_blocking: true,
                ..SocketOptions::default()
            },
        };
        let bound = listeners::bind_all(&[spec], Vec::new()).map_err(|error| match error {
            // A socket of our own workers.
            BindError::InUse { socket, holder }
                if u32::try_from(holder.pid) == Ok(std::process::id()) =>
            {
                BindError::Twice { socket }
            }
            other => other,
        })?;
        // One specification of one address is one listener.
        let [listener] = <[_; 1]>::try_from(bound.listeners).map_err(|_| BindError::System {
            socket: address.to_string(),
            operation: "bind",
            errno: nix::Error::EINVAL,
        })?;
        let place = listener.place();
        let is_loopback = address.is_loopback();
        Ok(AdminSocket { listener: OwnedFd::into(listener.fd), place, is_loopback })
    }

    /// Where it is reached, with the port that the kernel chose: `127.0.0.1:9180`.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Whether only this machine reaches it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.is_loopback
    }

    /// A copy for who accepts.
    ///
    /// # Errors
    ///
    /// When no descriptor is left.
    pub fn acceptor(&self) -> io::Result<TcpListener> {
        self.listener.try_clone()
    }
}

impl AsFd for AdminSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;
    use std::net::TcpStream;

    #[test]
    fn it_listens_where_it_says_and_does_not_block() {
        let socket = AdminSocket::bind("0".parse().expect("an address")).expect("bound");
        assert!(socket.place().starts_with("127.0.0.1:"), "{}", socket.place());
        let acceptor = socket.acceptor().expect("a copy");
        assert_eq!(acceptor.accept().expect_err("nobody").kind(), ErrorKind::WouldBlock);
        let _client = TcpStream::connect(socket.place()).expect("connected");
        acceptor.accept().expect("a client");
    }

    #[test]
    fn who_has_the_address_is_told() {
        let first = AdminSocket::bind("0".parse().expect("an address")).expect("bound");
        let again = first.place().parse().expect("an address");
        let error = AdminSocket::bind(again).expect_err("it is taken");
        assert!(matches!(error, BindError::Twice { .. }), "{error}");
    }
}
