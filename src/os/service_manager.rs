//! The service manager above us: what we tell it, see sd_notify(3). A manager that does not read
//! costs a message, never a wait.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::config::text::one_line;
use crate::core::time::Time;

/// How soon a message that found the manager's queue full is sent again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A manager that wants to hear of us.
#[derive(Debug)]
pub struct ServiceManager {
    target: Option<(UnixDatagram, SocketAddr)>,
    /// Between two signs of life, and when the next is due.
    watchdog: Option<(Duration, Time)>,
    /// What it has not taken yet: at most one of each, since only the last of each is true.
    unsent: Unsent,
    retry_at: Option<Time>,
}

#[derive(Debug, Default)]
struct Unsent {
    standing: Option<String>,
    status: Option<String>,
}

impl ServiceManager {
    /// The one that the environment names, if any.
    #[must_use]
    pub fn from_environment(now: Time) -> ServiceManager {
        let target = std::env::var_os("NOTIFY_SOCKET").and_then(|name| connect(&name).ok());
        // Half of what it allows, so that a late sign of life is still in time.
        let every = sd_notify::watchdog_enabled().map(|every| every / 2);
        let watchdog =
            every.filter(|every| !every.is_zero() && target.is_some()).map(|every| (every, now));
        ServiceManager { target, watchdog, unsent: Unsent::default(), retry_at: None }
    }

    /// When it wants to be given the time.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let ping = self.watchdog.map(|(_, at)| at);
        [ping, self.retry_at].into_iter().flatten().min()
    }

    /// Sends what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        if let Some((every, at)) = self.watchdog
            && at <= now
        {
            // One that finds the queue full is superseded by the next.
            let _ = self.send(&NotifyState::Watchdog.to_string());
            self.watchdog = Some((every, now + every));
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.flush(now);
        }
    }

    /// Everything is up.
    pub fn ready(&mut self, now: Time) {
        self.stand(now, &[NotifyState::Ready]);
    }

    /// A reload has begun; `Type=notify-reload` wants to know when.
    pub fn reloading(&mut self, now: Time) {
        match NotifyState::monotonic_usec_now() {
            Ok(time) => self.stand(now, &[NotifyState::Reloading, time]),
            Err(_) => self.stand(now, &[NotifyState::Reloading]),
        }
    }

    /// A stop has begun and may take so long.
    pub fn stopping(&mut self, now: Time, takes: Duration) {
        let micros = u32::try_from(takes.as_micros()).unwrap_or(u32::MAX);
        self.stand(now, &[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros)]);
    }

    /// One line for people.
    pub fn status(&mut self, now: Time, line: &str) {
        let line = one_line(line);
        self.unsent.status = Some(NotifyState::Status(&line).to_string());
        self.flush(now);
    }

    fn stand(&mut self, now: Time, states: &[NotifyState<'_>]) {
        let lines: Vec<String> = states.iter().map(NotifyState::to_string).collect();
        self.unsent.standing = Some(lines.join("\n"));
        self.flush(now);
    }

    /// Sends what has not been taken, the standing first: a status belongs to the one before it.
    fn flush(&mut self, now: Time) {
        let standing = self.unsent.standing.take().filter(|message| self.is_refused(message));
        let status = match standing {
            Some(_) => self.unsent.status.take(),
            None => self.unsent.status.take().filter(|message| self.is_refused(message)),
        };
        let is_full = standing.is_some() || status.is_some();
        self.retry_at = is_full.then_some(now + RETRY_AFTER);
        self.unsent = Unsent { standing, status };
    }

    /// Sends a message; says whether it has to be sent again since the queue is full.
    fn is_refused(&self, message: &str) -> bool {
        self.send(message).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    fn send(&self, message: &str) -> io::Result<()> {
        let Some((socket, target)) = &self.target else { return Ok(()) };
        // The crate's own function waits when the manager does not read; this one does not.
        socket.send_to_addr(message.as_bytes(), target).map(drop)
    }
}

/// A path, or a name in the abstract namespace with `@` for its NUL byte.
fn connect(name: &OsString) -> io::Result<(UnixDatagram, SocketAddr)> {
    let target = match name.as_bytes().split_first() {
        Some((b'@', rest)) => SocketAddr::from_abstract_name(rest)?,
        Some(_) | None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_slow_manager_has_not_taken_is_sent_again_and_only_the_last_of_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let reader = UnixDatagram::bind(&path).expect("binds");
        let target = connect(&path.into_os_string()).expect("connects");
        let mut manager = ServiceManager {
            target: Some(target),
            watchdog: None,
            unsent: Unsent::default(),
            retry_at: None,
        };
        let now = Time::ZERO;
        let mut sent = 0;
        while manager.deadline().is_none() {
            manager.status(now, &format!("line {sent}"));
            sent += 1;
        }
        manager.ready(now);
        manager.status(now, "the last");
        let mut buffer = [0; 256];
        let mut read = || {
            let count = reader.recv(&mut buffer).expect("a message");
            String::from_utf8_lossy(&buffer[..count]).into_owned()
        };
        for line in 0..sent - 1 {
            assert_eq!(read(), format!("STATUS=line {line}"));
        }
        manager.handle_timeout(now + RETRY_AFTER);
        assert_eq!((read(), read()), ("READY=1".to_owned(), "STATUS=the last".to_owned()));
        assert_eq!(manager.deadline(), None);
    }
}
