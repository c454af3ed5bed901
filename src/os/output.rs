//! The pipes that a worker writes to when its output passes through us. It reads them without
//! waiting, and knows nothing of lines.
//!
//! They keep the size that the kernel gives: 64 KiB hold what a worker writes while we look
//! elsewhere, and larger ones would soon use up what one user may have of them
//! (`pipe-user-pages-soft`), for all of its programs.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::fchown;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{pipe2, read};

/// The most that is read at once: all that a pipe holds.
pub const READ_MAX: usize = 64 * 1024;

/// The two ends of a pipe.
#[derive(Debug)]
pub struct Pipe {
    /// Ours, which never waits.
    pub reader: OwnedFd,
    /// The worker's. That ours never waits is not seen at this end: a program that meets
    /// a full pipe waits, as it does everywhere else.
    pub writer: OwnedFd,
}

impl Pipe {
    /// Makes one that belongs to a user and a group, or to ourselves. Only its owner may open
    /// `/dev/stdout` where that leads to a pipe, see pipe(7).
    ///
    /// # Errors
    ///
    /// `EMFILE` and `ENFILE` when no descriptor is left.
    pub fn new(owner: Option<(u32, u32)>) -> io::Result<Pipe> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        if let Some((user, group)) = owner {
            match fchown(&writer, Some(user), Some(group)) {
                // A container's root may lack CAP_CHOWN: then it can write, and not open it anew.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                chowned => chowned?,
            }
        }
        Ok(Pipe { reader, writer })
    }
}

/// What a look into a pipe gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// So many bytes.
    Bytes(usize),
    /// Nothing is there.
    Nothing,
    /// Nothing will ever be there: nobody has the other end.
    End,
}

/// Reads what is there into `buffer`, as far as it goes.
pub fn hear(reader: impl AsFd, buffer: &mut [u8]) -> Heard {
    loop {
        match read(&reader, buffer) {
            Ok(0) => return Heard::End,
            Ok(count) => return Heard::Bytes(count),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Heard::Nothing,
            // No pipe fails otherwise; it would be reported for ever.
            Err(_) => return Heard::End,
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::unistd::write;

    use super::*;

    #[test]
    fn only_our_end_never_waits() {
        let Pipe { reader, writer } = Pipe::new(None).expect("a pipe");
        let waits = |end: &OwnedFd| {
            let flags = fcntl(end, FcntlArg::F_GETFL).expect("flags");
            !OFlag::from_bits_truncate(flags).contains(OFlag::O_NONBLOCK)
        };
        assert_eq!((waits(&reader), waits(&writer)), (false, true));
        let mut buffer = [0; 8];
        assert_eq!(hear(&reader, &mut buffer), Heard::Nothing);
        write(&writer, b"abc").expect("room");
        assert_eq!(hear(&reader, &mut buffer), Heard::Bytes(3));
        drop(writer);
        assert_eq!(hear(&reader, &mut buffer), Heard::End);
    }
}
