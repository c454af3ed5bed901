//! The control socket and the thread behind it, and what brings either back.
//!
//! The thread is started when the first client connects: who never asks never pays for it. Until
//! then, and while it is dead, clients wait in the socket's queue.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::text::one_line;
use crate::control::door::Doors;
use crate::control::message::Asker;
use crate::control::server::Server;
use crate::core::notice::Human;
use crate::core::time::Time;
use crate::os::admin_socket::AdminSocket;
use crate::os::control_socket::{ControlSocket, Directory, our_user};
use crate::os::path_watch::PathWatch;
use crate::os::reactor::Reactor;
use crate::os::runtime_dir::{Passes, RuntimeDir};
use crate::os::unix_path::UnixPathError;

use super::super::StartError;
use super::super::event_loop::Token;

/// The pause before the first mending, so that nobody is in the way of a clean-up that removes a file
/// and then its directory; and the pause after many in a row.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MOST: Duration = Duration::from_secs(30);

/// After how long without a mending the next one is the first again.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// Where clients reach us.
pub(super) struct Endpoint {
    /// Where the user wants it, if not in the runtime directory.
    place: Option<PathBuf>,
    socket: ControlSocket,
    /// Where monitoring comes in, if anywhere. It stays when the thread goes.
    admin: Option<AdminSocket>,
    asker: Asker,
    thread: Thread,
    /// Why no thread could be started, as it was told last, while none can.
    unstarted: Option<String>,
    /// Whether the socket is of no use any more: its file has gone, or it does not listen.
    is_lost: bool,
    pace: Pace,
    /// When to mend what is lost or dead.
    mend_at: Option<Time>,
}

enum Thread {
    /// Nobody has connected: the socket is watched for the first who does.
    NotNeeded,
    Serves(Server),
    /// It ended: another one is started at the deadline, or when the next client comes after it.
    Ended,
}

impl Endpoint {
    pub(super) fn open(
        place: Option<PathBuf>,
        directory: &RuntimeDir,
        asker: Asker,
    ) -> Result<Endpoint, StartError> {
        let (path, kind) = match &place {
            Some(path) => (path.clone(), Directory::Shared),
            None => (directory.control_path(), Directory::Ours),
        };
        let socket = ControlSocket::bind(&path, kind)
            .map_err(|error| StartError::Control { path, error })?;
        Ok(Endpoint {
            place,
            socket,
            admin: None,
            asker,
            thread: Thread::NotNeeded,
            unstarted: None,
            is_lost: false,
            pace: Pace::default(),
            mend_at: None,
        })
    }

    /// Serves what comes to this socket too, from the next start of a thread on.
    pub(super) fn serve_also(&mut self, admin: AdminSocket) {
        self.admin = Some(admin);
    }

    /// Watches the sockets for the first client; the control socket for being shut down, and its file
    /// for going.
    pub(super) fn watch(&mut self, reactor: &Reactor, paths: Option<&PathWatch>) {
        self.unwatch(reactor);
        let listener = self.socket.listener();
        let token = Token::Client.encode();
        let watched = match (&self.thread, &self.admin) {
            (Thread::NotNeeded, None) => reactor.add(listener, token),
            (Thread::NotNeeded, Some(admin)) => {
                reactor.add(listener, token).and_then(|()| reactor.add(admin, token))
            }
            (Thread::Serves(_) | Thread::Ended, _) => reactor.add_for_hangup(listener, token),
        };
        if let Err(error) = watched {
            tracing::error!("cannot watch for clients: {error}");
        }
        let path = self.socket.path();
        if let Some(Err(error)) = paths.map(|paths| paths.add(path))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!("cannot watch the control socket's file: {error}");
        }
    }

    fn unwatch(&self, reactor: &Reactor) {
        reactor.remove(self.socket.listener());
        if let Some(admin) = &self.admin {
            reactor.remove(admin);
        }
    }

    fn doors(&self) -> io::Result<Doors> {
        let admin = self.admin.as_ref().map(AdminSocket::acceptor).transpose()?;
        Ok(Doors { control: self.socket.acceptor()?, admin })
    }

    /// A client has come and no thread is there; or the socket was shut down.
    pub(super) fn look_at_socket(&mut self, now: Time, reactor: &Reactor) {
        if self.socket.is_shut_down() {
            self.unwatch(reactor);
            return self.lose(now, "was shut down");
        }
        match &self.thread {
            Thread::NotNeeded => {}
            Thread::Serves(_) | Thread::Ended => return,
        }
        let started =
            self.doors().and_then(|doors| Server::start(doors, self.asker.clone(), our_user()));
        match started {
            Ok(server) => {
                self.thread = Thread::Serves(server);
                if self.unstarted.take().is_some() {
                    tracing::info!("clients are served again");
                }
            }
            Err(error) => {
                self.plan(now);
                self.thread = Thread::Ended;
                self.tell_unstarted(&error);
            }
        }
        // The next client wakes the thread, not us.
        self.watch(reactor, None);
    }

    /// Says why there is no thread, once: as long as a client waits it is tried again and again.
    fn tell_unstarted(&mut self, error: &io::Error) {
        let why = format!("{error}{}", remedy(error));
        if self.unstarted.as_ref() == Some(&why) {
            tracing::debug!("cannot start a thread for clients, as before: {why}");
            return;
        }
        tracing::error!(
            "cannot start a thread for clients: {why}; workers serve on, and it is tried again as \
             long as a client waits, every {} at least",
            Human(PAUSE_MOST)
        );
        self.unstarted = Some(why);
    }

    /// Notices when the thread has ended, says so, and plans another.
    pub(super) fn look_at_thread(&mut self, now: Time) {
        let server = match std::mem::replace(&mut self.thread, Thread::Ended) {
            Thread::Serves(server) if server.has_ended() => server,
            other => {
                self.thread = other;
                return;
            }
        };
        let why = server.why();
        let pause = self.plan(now);
        tracing::error!(
            "the thread that serves clients has ended: {why}; the next starts in {}",
            Human(pause)
        );
    }

    /// Notices when the socket's file has gone, says so, and plans another.
    pub(super) fn look_at_path(&mut self, now: Time) {
        if !self.socket.is_there() {
            self.lose(now, "is gone");
        }
    }

    fn lose(&mut self, now: Time, what: &str) {
        if self.is_lost {
            return;
        }
        self.is_lost = true;
        let path = one_line(&self.socket.path().to_string_lossy());
        let pause = self.plan(now);
        tracing::warn!("`{path}` {what}; binding it again in {}", Human(pause));
    }

    fn plan(&mut self, now: Time) -> Duration {
        let pause = self.pace.pause(now);
        self.mend_at = Some(now + pause);
        pause
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.mend_at
    }

    /// Brings back what is lost. Returns whether there is something to watch anew.
    pub(super) fn mend(
        &mut self,
        now: Time,
        directory: &mut RuntimeDir,
        passes: Passes<'_>,
        reactor: &Reactor,
    ) -> bool {
        self.mend_at = None;
        if self.is_lost {
            match self.bind_again(directory, passes) {
                Ok(socket) => {
                    self.unwatch(reactor);
                    self.replace(socket);
                }
                Err((path, why)) => {
                    let path = one_line(&path.to_string_lossy());
                    let pause = self.plan(now);
                    tracing::error!(
                        "cannot bind `{path}` for clients: {why}; trying again in {}",
                        Human(pause)
                    );
                    return false;
                }
            }
        }
        match &self.thread {
            Thread::NotNeeded | Thread::Serves(_) => {}
            // Whoever waits in the queue wakes us at once.
            Thread::Ended => self.thread = Thread::NotNeeded,
        }
        true
    }

    fn bind_again(
        &self,
        directory: &mut RuntimeDir,
        passes: Passes<'_>,
    ) -> Result<ControlSocket, (PathBuf, String)> {
        let path = if let Some(path) = &self.place {
            path.clone()
        } else {
            let restored = directory.restore(passes);
            let path = directory.control_path();
            if let Err(error) = restored {
                return Err((path, error.to_string()));
            }
            path
        };
        // The loop waits for nobody.
        let bound = ControlSocket::bind(&path, Directory::Ours);
        bound.map_err(|error: UnixPathError| (path, error.to_string()))
    }

    fn replace(&mut self, socket: ControlSocket) {
        let path = one_line(&socket.path().to_string_lossy());
        tracing::info!("clients find us at `{path}` again");
        self.is_lost = false;
        self.socket = socket;
        if let Thread::Serves(server) = &mut self.thread
            && !self.socket.acceptor().is_ok_and(|listener| server.listen(listener))
        {
            // It takes no orders, so another one takes its place once it has ended.
            server.end();
        }
    }

    /// Everything is stopped: has the thread end. Returns whether there is one to wait for.
    pub(super) fn end(&mut self) -> bool {
        match &mut self.thread {
            Thread::Serves(server) => {
                server.end();
                true
            }
            Thread::NotNeeded | Thread::Ended => false,
        }
    }

    /// Whether the thread has ended.
    pub(super) fn has_ended(&self) -> bool {
        match &self.thread {
            Thread::Serves(server) => server.has_ended(),
            Thread::NotNeeded | Thread::Ended => true,
        }
    }
}

/// What can be done about a thread that was not started. A thread needs no privilege: where the call
/// is not permitted, a filter says so, and the C library tries the older call only where it says that
/// there is no such call.
fn remedy(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        ", since a filter (seccomp) refuses clone3(2), as those of old container runtimes do; use a \
         later runtime, or run the container without that filter"
    } else {
        ""
    }
}

/// How long to wait before something is mended once more.
#[derive(Debug, Default)]
struct Pace {
    last: Option<Time>,
    next: Duration,
}

impl Pace {
    fn pause(&mut self, now: Time) -> Duration {
        if self.last.is_none_or(|last| now.since(last) > FORGIVEN_AFTER) {
            self.next = PAUSE_FIRST;
        }
        self.last = Some(now);
        let pause = self.next;
        self.next = (pause * 2).min(PAUSE_MOST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_mended_soon_and_the_next_ever_later() {
        let mut pace = Pace::default();
        let mut now = Time::ZERO;
        let mut pauses = Vec::new();
        for _ in 0..12 {
            pauses.push(pace.pause(now));
            now = now + Duration::from_secs(1);
        }
        assert_eq!(pauses[..3], [100, 200, 400].map(Duration::from_millis));
        assert_eq!(pauses[11], PAUSE_MOST);
        assert_eq!(pace.pause(now + FORGIVEN_AFTER * 2), PAUSE_FIRST);
    }
}
