//! Wakes the loop from another thread, see eventfd(2). It says that there is news, never what.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// The bell that the loop watches; a copy rings the same one.
#[derive(Debug, Clone)]
pub struct Wake(Arc<EventFd>);

impl Wake {
    /// A bell that has not been rung.
    ///
    /// # Errors
    ///
    /// When no descriptor is left.
    pub fn new() -> io::Result<Wake> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Wake(Arc::new(EventFd::from_value_and_flags(0, flags)?)))
    }

    /// Makes the descriptor readable. It never waits.
    pub fn ring(&self) {
        // It fails only where it has been rung 2^64 - 2 times, and then it is readable.
        let _ = self.0.write(1);
    }

    /// Waits for a ring, for so long at most.
    pub fn wait(&self, timeout: Duration) {
        let mut entry = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // Who waits looks again whatever it says.
        let _ = poll(&mut entry, PollTimeout::try_from(millis).unwrap_or(PollTimeout::ZERO));
    }

    /// Takes the news away, so that the descriptor is readable for the next. What is looked at
    /// afterwards is not missed.
    pub fn hear(&self) {
        // It fails only where nobody has rung.
        let _ = self.0.read();
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_readable_from_the_ring_until_it_is_heard() {
        let wake = Wake::new().expect("a descriptor");
        let is_readable = || {
            let mut entry = [PollFd::new(wake.as_fd(), PollFlags::POLLIN)];
            poll(&mut entry, PollTimeout::ZERO).expect("polled") > 0
        };
        assert!(!is_readable());
        let other = wake.clone();
        std::thread::spawn(move || (0..3).for_each(|_| other.ring())).join().expect("rung");
        wake.wait(Duration::from_secs(60));
        assert!(is_readable());
        wake.hear();
        assert!(!is_readable());
        wake.hear();
    }
}
