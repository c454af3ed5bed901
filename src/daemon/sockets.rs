//! The sockets that workers share, watched and put right as the core wants it.

use crate::core::event::{Again, Event, Mode, Repair, SocketEvent};
use crate::core::ids::{MemberId, WorkerId};
use crate::os::listeners::Listener;
use crate::os::shared_socket::Broken;

use super::event_loop::{Daemon, Token};

impl Daemon {
    /// From here on we are told when it is shut down, or when its file goes.
    pub(super) fn watch_listener(&mut self, member: MemberId) {
        let Some(listener) = self.parts.listeners.get(&member) else {
            return;
        };
        let label = listener.label();
        if listener.transport.accepts()
            && let Err(error) =
                self.parts.reactor.add_for_hangup(&listener.fd, Token::Listener(member).encode())
        {
            tracing::warn!("cannot watch `{label}`: {error}");
        }
        if let (Some(path), Some(watch)) = (listener.path(), &self.parts.path_watch)
            && let Err(error) = watch.add(path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!("cannot watch the file of `{label}`: {error}");
        }
        // It may have happened before it was watched.
        self.look_at_listener(member);
    }

    pub(super) fn look_at_listener(&mut self, member: MemberId) {
        let event = match self.parts.listeners.get(&member).and_then(Listener::broken) {
            Some(Broken::ShutDown(repair)) => SocketEvent::ShutDown(repair),
            Some(Broken::PathGone) => SocketEvent::PathGone,
            None => return,
        };
        self.events.push_back(Event::Socket(member, event));
    }

    pub(super) fn look_at_paths(&mut self) {
        if let Some(watch) = &self.parts.path_watch {
            watch.drain();
        }
        for member in self.parts.listeners.keys().copied().collect::<Vec<_>>() {
            self.look_at_listener(member);
        }
        self.look_at_control();
    }

    pub(super) fn inspect(&mut self, member: MemberId, by: Option<WorkerId>) {
        self.look_at_listener(member);
        if self.parts.path_watch.is_none() {
            self.look_at_control();
        }
        let Some(listener) = self.parts.listeners.get(&member) else {
            return;
        };
        match listener.state() {
            Ok(state) => {
                let event = SocketEvent::Inspected { by, state };
                self.events.push_back(Event::Socket(member, event));
            }
            Err(error) => tracing::warn!("cannot look at `{}`: {error}", listener.label()),
        }
    }

    pub(super) fn listen(&mut self, member: MemberId) {
        if let Some(listener) = self.parts.listeners.get_mut(&member)
            && let Err(errno) = listener.listen_again()
        {
            let (repair, reason) = (Repair::Listen, errno.desc().to_owned());
            let event = SocketEvent::RepairFailed { repair, reason, again: Again::Later };
            self.events.push_back(Event::Socket(member, event));
        }
    }

    pub(super) fn stop_listening(&mut self, member: MemberId) {
        if let Some(listener) = self.parts.listeners.get(&member)
            && let Err(errno) = listener.stop_listening()
        {
            let label = listener.label();
            tracing::warn!("cannot refuse clients of `{label}`: {}; they wait", errno.desc());
        }
    }

    pub(super) fn set_mode(&mut self, member: MemberId, mode: Mode) {
        if let Some(listener) = self.parts.listeners.get(&member)
            && let Err(error) = listener.set_mode(mode)
        {
            tracing::warn!("cannot make `{}` {mode}: {error}", listener.label());
        }
    }

    pub(super) fn renew(&mut self, from: MemberId, to: MemberId) {
        let Some(listener) = self.parts.listeners.get(&from) else {
            return;
        };
        let event = match listener.renew() {
            Ok(Some(renewed)) => {
                self.parts.listeners.insert(to, renewed);
                self.parts.services.renewed(from, to);
                SocketEvent::Renewed { to }
            }
            Ok(None) => SocketEvent::Back,
            Err(error) => SocketEvent::RepairFailed {
                repair: Repair::Bind,
                reason: error.to_string(),
                again: error.again(),
            },
        };
        self.events.push_back(Event::Socket(from, event));
        self.watch_listener(to);
    }

    pub(super) fn find_holders(&mut self, member: MemberId, given: MemberId, workers: &[WorkerId]) {
        let mut grips = Vec::new();
        for &worker in workers {
            let inode = self.workers.get(&worker).and_then(|handles| handles.sockets.get(&given));
            if let Some(grip) = inode.and_then(|&inode| self.processes.grip(worker, inode)) {
                grips.push((worker, grip));
            }
        }
        self.events.push_back(Event::Socket(member, SocketEvent::Held(grips)));
    }

    pub(super) fn close_member(&mut self, member: MemberId) {
        if let Some(listener) = self.parts.listeners.remove(&member) {
            // Workers have copies, so closing ours does not take it out of the set.
            self.parts.reactor.remove(&listener.fd);
            listener.close();
        }
        self.steering.closed(member);
        self.parts.services.closed(member);
    }
}
