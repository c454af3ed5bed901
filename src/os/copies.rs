//! Copies of descriptors of connections that workers have, see pidfd_getfd(2). They show how a
//! connection ended after its worker has closed it, and let one be ended. The kernel gives a copy to whoever may trace the
//! worker: root, or who runs as the same user where nothing forbids it (`PR_SET_DUMPABLE`, Yama).
//!
//! A connection that was closed is closed for its client only when its copy is, so nobody keeps one for
//! long.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::readlink;
use nix::sys::socket::{MsgFlags, Shutdown, getsockopt, recv, shutdown, sockopt};
use nix::sys::stat::fstat;

use super::descriptors::{self, Descriptor};
use super::holder::socket_inode;
use super::sys;

/// States of `linux/tcp_states.h`.
const ESTABLISHED: u8 = 1;
const CLOSE_WAIT: u8 = 8;

/// Where fields stand in a `struct tcp_info` of `linux/tcp.h`: its first, the milliseconds since
/// something was sent and received, segments that were not acknowledged, bytes that were not sent, and
/// segments with data that were sent, which is told since Linux 4.6.
const STATE_AT: usize = 0;
const SENT_AT: usize = 44;
const RECEIVED_AT: usize = 52;
const UNACKNOWLEDGED_AT: usize = 24;
const NOT_SENT_AT: usize = 144;
const SENT_EVER_AT: usize = 156;

/// The kernel counts times in ticks, the longest of which are these (`CONFIG_HZ_100`).
pub(super) const TICK_MAX: Duration = Duration::from_millis(10);

/// A copy of a descriptor.
#[derive(Debug)]
pub(super) struct Copy {
    fd: OwnedFd,
    of: Descriptor,
}

/// How a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// Who has closed it.
    pub(super) closed: Closed,
    /// How long ago something was sent on it, and received. Of both the kernel knows the tick.
    pub(super) sent: Duration,
    pub(super) received: Duration,
    /// What its worker would read.
    pub(super) unread: Unread,
    /// Whether something that was sent has not arrived.
    pub(super) unsent: bool,
    /// Whether anything was ever sent on it.
    pub(super) spoke: bool,
}

/// What a worker would read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    Nothing,
    /// Something that has come.
    Data,
    /// That nothing more is to come.
    End,
}

/// Who has closed a connection, or one direction of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    Nobody,
    /// Its client, and it alone.
    Client,
    /// Its worker by shutdown(2), whoever came after it.
    Worker,
    /// It was reset.
    Reset,
}

/// How a worker let go of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// It has it still.
    Yes,
    /// It has closed its descriptor.
    Closed,
    /// It has ended, and the kernel has closed all that it had.
    Ended,
}

impl Copy {
    /// Makes one.
    ///
    /// # Errors
    ///
    /// `EPERM` where we may not, `ENOSYS` before Linux 5.6, `EBADF` where the worker was faster.
    pub(super) fn of(descriptor: Descriptor) -> io::Result<Copy> {
        let pidfd = sys::pidfd_open(descriptor.process)?;
        let fd = sys::pidfd_getfd(&pidfd, descriptor.number)?;
        // Another may have got its number.
        if fstat(&fd)?.st_ino != descriptor.inode {
            return Err(Errno::EBADF.into());
        }
        Ok(Copy { fd, of: descriptor })
    }

    /// Whether its worker has it.
    pub(super) fn held(&self) -> Held {
        let Descriptor { process, number, inode } = self.of;
        let target = readlink(format!("/proc/{process}/fd/{number}").as_str());
        if target.is_ok_and(|target| socket_inode(target.as_encoded_bytes()) == Some(inode)) {
            return Held::Yes;
        }
        // Asked after that: one that has descriptors yet has closed this one itself.
        match descriptors::has_any(process) {
            Some(true) => Held::Closed,
            Some(false) | None => Held::Ended,
        }
    }

    /// Its worker reads an end of file from here on, as if its client had closed it, see shutdown(2).
    pub(super) fn end_reading(&self) -> io::Result<()> {
        Ok(shutdown(self.fd.as_raw_fd(), Shutdown::Read)?)
    }

    /// How it stands.
    pub(super) fn standing(&self) -> io::Result<Standing> {
        let info = sys::tcp_info(&self.fd)?;
        let number = |at: usize| {
            let bytes = info.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map(u32::from_ne_bytes).ok_or(io::Error::from(io::ErrorKind::InvalidData))
        };
        let state = info.get(STATE_AT).copied().unwrap_or_default();
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let unread = match recv(self.fd.as_raw_fd(), &mut [0], flags) {
            Ok(0) => Unread::End,
            Ok(_) => Unread::Data,
            Err(_) => Unread::Nothing,
        };
        let closed = match state {
            ESTABLISHED => Closed::Nobody,
            CLOSE_WAIT => Closed::Client,
            _ if getsockopt(&self.fd, sockopt::SocketError)? != 0 => Closed::Reset,
            _ => Closed::Worker,
        };
        Ok(Standing {
            closed,
            sent: Duration::from_millis(number(SENT_AT)?.into()),
            received: Duration::from_millis(number(RECEIVED_AT)?.into()),
            unread,
            // What the kernel does not tell is taken for the worse.
            unsent: number(UNACKNOWLEDGED_AT)? > 0 || number(NOT_SENT_AT).unwrap_or(1) > 0,
            spoke: number(SENT_EVER_AT).unwrap_or(0) > 0,
        })
    }
}
