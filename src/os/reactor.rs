//! Waits for descriptors to become readable, level-triggered. It knows tokens, never what they mean.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// How many descriptors one wait reports. The rest is reported by the next, so a crowd of readable
/// ones cannot keep deadlines from being looked at.
pub const EVENTS_MAX: usize = 128;

/// What a descriptor is reported for. With any of these but nothing it is when it is hung up, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Nothing at all.
    Nothing,
    /// There is something to read.
    Readable,
    /// There is room to write.
    Writable,
    /// Either.
    Both,
}

/// A set of descriptors, each with a token.
#[derive(Debug)]
pub struct Reactor {
    epoll: Epoll,
}

impl Reactor {
    /// An empty set.
    ///
    /// # Errors
    ///
    /// Those of epoll_create1(2).
    pub fn new() -> io::Result<Reactor> {
        Ok(Reactor { epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)? })
    }

    /// Reports `token` whenever `fd` is readable or hung up.
    ///
    /// # Errors
    ///
    /// Those of epoll_ctl(2), `ENOSPC` among them.
    pub fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token))?)
    }

    /// Reports `token` whenever `fd` can be written or has failed.
    ///
    /// # Errors
    ///
    /// Those of epoll_ctl(2), `EPERM` for a file, which can always be written, among them.
    pub fn add_writable(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLOUT, token))?)
    }

    /// Reports `token` for this from here on, whatever it was reported for before.
    ///
    /// # Errors
    ///
    /// Those of epoll_ctl(2), `ENOSPC` among them; it is reported for nothing then.
    pub fn watch(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        let flags = match interest {
            Interest::Nothing => EpollFlags::empty(),
            Interest::Readable => EpollFlags::EPOLLIN,
            Interest::Writable => EpollFlags::EPOLLOUT,
            Interest::Both => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
        };
        self.remove(fd.as_fd());
        if flags.is_empty() {
            return Ok(());
        }
        Ok(self.epoll.add(fd, EpollEvent::new(flags, token))?)
    }

    /// Reports `token` whenever `fd` has something urgent, as files of the kernel do that change,
    /// see cgroups(7).
    ///
    /// # Errors
    ///
    /// Those of epoll_ctl(2).
    pub fn add_urgent(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLPRI, token))?)
    }

    /// Reports `token` when nobody has the other end of a pipe any more, and not when there is
    /// something to read in it.
    ///
    /// # Errors
    ///
    /// Those of epoll_ctl(2), `ENOSPC` among them.
    pub fn add_for_end(&self, pipe: impl AsFd, token: u64) -> io::Result<()> {
        // Hanging up is always reported.
        Ok(self.epoll.add(pipe, EpollEvent::new(EpollFlags::empty(), token))?)
    }

    /// Reports `token` once each time that `fd` is hung up, or can be read from no more: for a
    /// listening socket, when somebody calls shutdown(2) on it, and not when a connection comes.
    ///
    /// # Errors
    ///
    /// Those of epoll_ctl(2), `ENOSPC` among them.
    pub fn add_for_hangup(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        // Hanging up is always reported; a unix socket that was shut down for reading alone is not
        // hung up. A unix socket stays as it is, hence at the edge only.
        let flags = EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        Ok(self.epoll.add(fd, EpollEvent::new(flags, token))?)
    }

    /// Stops reporting `fd`. To be called before it is closed: a copy of it elsewhere would keep it
    /// in the set.
    pub fn remove(&self, fd: impl AsFd) {
        // It fails only for a descriptor that is not in the set, which is what is wanted.
        let _ = self.epoll.delete(fd);
    }

    /// Waits for at most `timeout` (for ever without one) and gives the tokens of what is readable.
    ///
    /// # Errors
    ///
    /// Those of epoll_wait(2), except `EINTR`, which counts as nothing readable.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<Vec<u64>> {
        self.wait_for_some(timeout, EVENTS_MAX)
    }

    /// The same for at most `most` of them. Those that stay readable take turns.
    ///
    /// # Errors
    ///
    /// As [`Reactor::wait`].
    pub fn wait_for_some(&self, timeout: Option<Duration>, most: usize) -> io::Result<Vec<u64>> {
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        let (events, _) = events.split_at_mut(most.min(EVENTS_MAX));
        match self.epoll.wait(events, round_up(timeout)) {
            Ok(count) => Ok(events.iter().take(count).map(EpollEvent::data).collect()),
            Err(Errno::EINTR) => Ok(Vec::new()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// A set is readable when one of it is, so it can be in another set.
impl AsFd for Reactor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

/// Whole milliseconds, rounded up: waking a little early would mean waking twice.
fn round_up(timeout: Option<Duration>) -> EpollTimeout {
    match timeout {
        None => EpollTimeout::NONE,
        Some(timeout) => {
            let millis = timeout.as_nanos().div_ceil(1_000_000);
            EpollTimeout::try_from(i32::try_from(millis).unwrap_or(i32::MAX))
                .unwrap_or(EpollTimeout::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{Shutdown, shutdown};
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn a_listener_wakes_nobody_until_it_is_shut_down_and_then_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let unix = UnixListener::bind(&path).unwrap();
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let v6 = TcpListener::bind("[::1]:0").unwrap();
        let connect = |listener: &TcpListener| {
            Some(OwnedFd::from(TcpStream::connect(listener.local_addr().unwrap()).ok()?))
        };
        let clients: [&dyn Fn() -> Option<OwnedFd>; 3] =
            [&|| connect(&v4), &|| connect(&v6), &|| {
                Some(OwnedFd::from(UnixStream::connect(&path).ok()?))
            }];
        for (listener, client) in [v4.as_fd(), v6.as_fd(), unix.as_fd()].into_iter().zip(clients) {
            for how in [Shutdown::Read, Shutdown::Both] {
                let reactor = Reactor::new().unwrap();
                reactor.add_for_hangup(listener, 7).unwrap();
                let news = || reactor.wait(Some(Duration::ZERO)).unwrap();
                if how == Shutdown::Read {
                    let _client = client().unwrap();
                    assert!(news().is_empty());
                } else {
                    // TCP listens again and is quiet; a unix socket stays as it is, which is told.
                    crate::os::sys::listen(listener, 16).unwrap();
                    news();
                }
                shutdown(listener.as_raw_fd(), how).unwrap();
                assert_eq!(news(), [7]);
                assert!(news().is_empty());
            }
        }
    }

    #[test]
    fn the_end_of_a_pipe_is_told_and_what_is_written_is_not() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let reactor = Reactor::new().unwrap();
        reactor.add_for_end(&reader, 7).unwrap();
        let news = || reactor.wait(Some(Duration::ZERO)).unwrap();
        writer.write_all(b"x").unwrap();
        assert!(news().is_empty());
        drop(writer);
        assert_eq!(news(), [7]);
    }

    #[test]
    fn timeouts_round_up_to_whole_milliseconds_and_never_overflow() {
        let millis = |timeout| round_up(Some(timeout)).as_millis();
        assert_eq!(millis(Duration::ZERO), Some(0));
        assert_eq!(millis(Duration::from_nanos(1)), Some(1));
        assert_eq!(millis(Duration::from_micros(2001)), Some(3));
        assert_eq!(millis(Duration::from_secs(u64::MAX)), Some(i32::MAX as u32));
    }
}
