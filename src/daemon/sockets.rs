//! The sockets that workers share, watched and put right as the core wants it.

use std::time::Duration;

use crate::core::event::{Again, Event, Mode, Repair, SocketEvent};
use crate::core::ids::{MemberId, WorkerId};
use crate::os::listeners::Listener;
use crate::os::shared_socket::Broken;

use super::dispatch::Listens;
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
                self.parts.shut_downs.add_for_hangup(&listener.fd, Token::Listener(member).encode())
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

    /// What was shut down until now is told in the order in which that happened: the members of an
    /// address leave it so. Called before anything else changes that order, so that the core hears of
    /// all in turn.
    pub(super) fn hear_shut_downs(&mut self) {
        self.hear_shut_downs_but(None);
    }

    /// The same, but for one that we have shut down ourselves just now, as the core knows.
    fn hear_shut_downs_but(&mut self, own: Option<MemberId>) {
        loop {
            let tokens = match self.parts.shut_downs.wait(Some(Duration::ZERO)) {
                Ok(tokens) if tokens.is_empty() => return,
                Ok(tokens) => tokens,
                Err(error) => return tracing::error!("cannot look at sockets: {error}"),
            };
            // Each is told of once for each time that it is shut down, so this comes to an end.
            for token in tokens {
                if let Some(Token::Listener(member)) = Token::decode(token)
                    && own != Some(member)
                {
                    self.look_at_listener(member);
                }
            }
        }
    }

    pub(super) fn look_at_listener(&mut self, member: MemberId) {
        let event = match self.parts.listeners.get(&member).and_then(Listener::broken) {
            Some(Broken::ShutDown(repair)) => SocketEvent::ShutDown(repair),
            Some(Broken::PathGone) => SocketEvent::PathGone,
            None => return,
        };
        let event = Event::Socket(member, event);
        // What the core is about to hear it need not hear twice.
        if !self.events.contains(&event) {
            self.events.push_back(event);
        }
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
        self.hear_shut_downs();
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
        self.hear_shut_downs();
        let Some(listener) = self.parts.listeners.get_mut(&member) else { return };
        let event = match listener.listen_again() {
            Ok(()) => SocketEvent::Listens,
            Err(errno) => {
                let (repair, reason) = (Repair::Listen, errno.desc().to_owned());
                SocketEvent::RepairFailed { repair, reason, again: Again::Later }
            }
        };
        if event == SocketEvent::Listens {
            self.dispatch_listens(member, Listens::Again);
        }
        self.events.push_back(Event::Socket(member, event));
    }

    pub(super) fn stop_listening(&mut self, member: MemberId) {
        self.hear_shut_downs();
        if let Some(listener) = self.parts.listeners.get(&member)
            && let Err(errno) = listener.stop_listening()
        {
            let label = listener.label();
            tracing::warn!("cannot refuse clients of `{label}`: {}; they wait", errno.desc());
        }
        self.dispatch_listens(member, Listens::NotNow);
        self.hear_shut_downs_but(Some(member));
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
                self.dispatch_renewed(from, to);
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
        self.hear_shut_downs();
        self.dispatch_closed(member);
        if let Some(listener) = self.parts.listeners.remove(&member) {
            // Workers have copies, so closing ours does not take it out of the set.
            self.parts.shut_downs.remove(&listener.fd);
            listener.close();
        }
        self.steering.closed(member);
        self.parts.services.closed(member);
        // What is closed one after the other is told together.
        if let Some(Event::Closed(members)) = self.events.back_mut() {
            members.push(member);
        } else {
            self.events.push_back(Event::Closed(vec![member]));
        }
    }
}
