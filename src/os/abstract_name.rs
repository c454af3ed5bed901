//! Unix names without a file (unix(7), "abstract"): binds one, and says who has it when it is taken.
//! It never takes one away from anybody: a name is free when the last socket that has it is closed.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, UnixAddr, bind as bind_socket, socket};

use crate::config::socket::Transport;
use crate::os::holder::{self, Holder};
use crate::os::listeners::{listen, socket_type};

/// Why a name could not be bound.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum AbstractNameError {
    #[error("{holder} has the name; stop it or choose another name")]
    Taken { holder: Holder },
    #[error("a process that cannot be seen from here has the name; stop it or choose another name")]
    TakenUnknown,
    #[error("{operation} failed: {}", .errno.desc())]
    System { operation: &'static str, errno: Errno },
}

/// Binds a socket to `name`, which has no leading NUL byte here, and listens on it.
///
/// # Errors
///
/// If somebody has the name for sockets of this type.
pub fn bind(name: &str, transport: Transport, backlog: u32) -> Result<OwnedFd, AbstractNameError> {
    let system = |operation| move |errno| AbstractNameError::System { operation, errno };
    let address = UnixAddr::new_abstract(name.as_bytes()).map_err(system("bind"))?;
    let kind = socket_type(transport);
    let fd = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)
        .map_err(system("socket"))?;
    match bind_socket(fd.as_raw_fd(), &address) {
        Ok(()) => {}
        Err(Errno::EADDRINUSE) => {
            return Err(match holder::of_abstract(transport, name.as_bytes()) {
                Some(holder) => AbstractNameError::Taken { holder },
                None => AbstractNameError::TakenUnknown,
            });
        }
        Err(errno) => return Err(system("bind")(errno)),
    }
    listen(&fd, backlog).map_err(system("listen"))?;
    Ok(fd)
}
