//! Groups: sockets of one address among which a program says who gets what comes (socket(7),
//! `SO_REUSEPORT` and `SO_ATTACH_REUSEPORT_CBPF`). No privilege is needed for it.
//! It attaches what it is given and decides nothing but how a group begins.
//!
//! The program returns an index in the group: sockets of TCP are in the order in which they began to
//! listen, those of UDP in the order in which they were bound. One that leaves, because it is closed
//! or shut down, leaves its place to the last. A new program takes effect at once and for all
//! that comes; what waits in a queue stays there. An index that nobody has leaves the choice to a
//! hash of the addresses.
//!
//! The program belongs to the group and goes with its last member: one that is alone and is made to
//! listen again after a shutdown has none. While it is shut down nothing may be attached by it:
//! the kernel would make a group for it beside the one that is there, and it could not listen again.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};

use crate::os::sys;
use crate::protocol::steering_program::{Instruction, Plan, Spread, compile};

/// Attaches a program to the group of a socket, in place of the one that it has.
///
/// # Errors
///
/// `ENOTCONN` for a socket of TCP that does not listen, `EINVAL` for one that is in no group or a
/// program that the kernel refuses, `ENOPROTOOPT` where the kernel has no such thing.
pub fn attach(socket: impl AsFd, program: &[Instruction]) -> Result<(), Errno> {
    let is_stream = getsockopt(&socket, sockopt::SockType)? == nix::sys::socket::SockType::Stream;
    if is_stream && !getsockopt(&socket, sockopt::AcceptConn)? {
        return Err(Errno::ENOTCONN);
    }
    attach_to_any(&socket, program)
}

/// Makes a group of a TCP socket that is bound and does not listen yet, so that whoever joins
/// gets nothing. While it had no `SO_REUSEPORT` the address was shown to be nobody's.
/// Where the kernel has no programs for groups, it stays as it was.
///
/// # Errors
///
/// None that is known.
pub(super) fn begin_before_listen(socket: &OwnedFd) -> Result<(), Errno> {
    setsockopt(socket, sockopt::ReusePort, &true)?;
    keep_or_leave(socket)
}

/// Makes a group of a UDP socket that was bound with `SO_REUSEPORT` and is alone.
///
/// # Errors
///
/// None that is known.
pub(super) fn begin_bound(socket: &OwnedFd) -> Result<(), Errno> {
    keep_or_leave(socket)
}

fn keep_or_leave(socket: &OwnedFd) -> Result<(), Errno> {
    let plan = Plan { weights: vec![1], spread: Spread::Connections, admitted: Vec::new() };
    if attach_to_any(socket, &compile(&plan)).is_err() {
        setsockopt(socket, sockopt::ReusePort, &false)?;
    }
    Ok(())
}

fn attach_to_any(socket: impl AsFd, program: &[Instruction]) -> Result<(), Errno> {
    let filter = |instruction: &Instruction| libc::sock_filter {
        code: instruction.code,
        jt: instruction.jump_true,
        jf: instruction.jump_false,
        k: instruction.k,
    };
    let mut program: Vec<libc::sock_filter> = program.iter().map(filter).collect();
    sys::attach_to_group(socket, &mut program)
        .map_err(|error| error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw))
}

#[cfg(test)]
mod tests;
