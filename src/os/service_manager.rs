//! The service manager above us: what we tell it, see sd_notify(3). A manager that does not read
//! costs a message, never a wait.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

/// A manager that wants to hear of us.
#[derive(Debug)]
pub struct ServiceManager {
    target: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one that the environment names, if any.
    #[must_use]
    pub fn from_environment() -> ServiceManager {
        let target = std::env::var_os("NOTIFY_SOCKET").and_then(|name| connect(&name).ok());
        let watchdog = sd_notify::watchdog_enabled().filter(|every| !every.is_zero());
        ServiceManager { target, watchdog }
    }

    /// How often it wants a sign of life, halved so that a late one is still in time.
    #[must_use]
    pub fn ping_every(&self) -> Option<Duration> {
        self.target.as_ref()?;
        self.watchdog.map(|every| every / 2)
    }

    /// A sign of life.
    pub fn ping(&self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    /// Everything is up.
    pub fn ready(&self) {
        self.tell(&[NotifyState::Ready]);
    }

    /// A reload has begun; `Type=notify-reload` wants to know when.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(_) => self.tell(&[NotifyState::Reloading]),
        }
    }

    /// A stop has begun and may take so long.
    pub fn stopping(&self, takes: Duration) {
        let micros = u32::try_from(takes.as_micros()).unwrap_or(u32::MAX);
        self.tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros)]);
    }

    /// One line for people.
    pub fn status(&self, line: &str) {
        self.tell(&[NotifyState::Status(line)]);
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        let Some((socket, target)) = &self.target else {
            return;
        };
        let lines: Vec<String> = states.iter().map(NotifyState::to_string).collect();
        let message = lines.join("\n");
        // The crate's own function waits when the manager does not read; this one does not.
        let _ = socket.send_to_addr(message.as_bytes(), target);
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
