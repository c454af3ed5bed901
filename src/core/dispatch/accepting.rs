//! When a listener is polled, and how many are accepted from it.
//!
//! A listener is polled until it is readable. From then on it is in the queue of those that have
//! something, until an accept finds nothing more: who is in the queue takes turns, and it is not
//! polled while nobody has room, so that what waits in the backlog wakes nobody. As long as there is
//! room, nothing is said to epoll(7) at all.

use super::listener::Source;
use super::{
    AcceptEnd, Action, Alarm, Dispatch, FAILED_PAUSE, Listener, ListenerId, Notice, SCARCE_PAUSE,
    Scarcity, Time,
};

impl Dispatch {
    pub(super) fn opened(&mut self, id: ListenerId) {
        let algorithm = self.algorithm;
        let listener = self.listeners.entry(id).or_insert_with(|| Listener::new(algorithm));
        if listener.source == Source::Closed {
            listener.source = Source::Quiet;
            self.poll(id);
        }
    }

    pub(super) fn closed(&mut self, id: ListenerId) {
        let Some(listener) = self.listeners.get_mut(&id) else { return };
        listener.source = Source::Closed;
        // Whoever closes a descriptor takes it out of epoll(7) by that.
        listener.is_polled = false;
        self.readable.retain(|&readable| readable != id);
        self.alarms.set(Alarm::Listener(id), None);
        self.forget_if_forsaken(id);
    }

    pub(super) fn became_readable(&mut self, id: ListenerId) {
        self.queue_from(id, Source::Quiet);
    }

    /// A listener that failed has had its pause.
    pub(super) fn try_again(&mut self, id: ListenerId) {
        self.queue_from(id, Source::Failed);
    }

    pub(super) fn accept_ended(&mut self, now: Time, id: ListenerId, end: AcceptEnd) {
        self.taking = self.taking.filter(|&taking| taking != id);
        match end {
            AcceptEnd::Enough => self.queue_from(id, Source::Taking),
            AcceptEnd::Empty => {
                if self.scarce == Scarcity::Passing {
                    self.scarce = Scarcity::None;
                }
                if self.turn_from(id, Source::Taking, Source::Quiet) {
                    self.poll(id);
                }
            }
            AcceptEnd::OutOfDescriptors => {
                self.queue_from(id, Source::Taking);
                if self.scarce == Scarcity::None {
                    self.actions.push_back(Action::Tell(Notice::Scarce));
                }
                self.scarce = Scarcity::Paused;
                self.alarms.set(Alarm::Descriptors, Some(now + SCARCE_PAUSE));
            }
            AcceptEnd::Failed => {
                if self.turn_from(id, Source::Taking, Source::Failed) {
                    self.unpoll(id);
                    self.alarms.set(Alarm::Listener(id), Some(now + FAILED_PAUSE));
                }
            }
        }
    }

    /// Accepts from whoever's turn it is, if there is room for what it has.
    pub(super) fn accept(&mut self) {
        if self.taking.is_some() {
            return;
        }
        let room = |id: &ListenerId| self.listeners.get(id).map_or(0, Listener::room);
        let next = match self.scarce {
            Scarcity::Paused => None,
            Scarcity::None | Scarcity::Passing => {
                self.readable.iter().map(room).enumerate().find(|&(_, room)| room > 0)
            }
        };
        let next = next.and_then(|(at, room)| Some((self.readable.remove(at)?, room)));
        if let Some((listener, at_most)) = next {
            self.turn_from(listener, Source::Readable, Source::Taking);
            self.taking = Some(listener);
            self.actions.push_back(Action::Accept { listener, at_most });
        } else {
            for at in 0..self.readable.len() {
                if let Some(&id) = self.readable.get(at) {
                    self.unpoll(id);
                }
            }
        }
    }

    fn queue_from(&mut self, id: ListenerId, from: Source) {
        if self.turn_from(id, from, Source::Readable) {
            self.readable.push_back(id);
        }
    }

    fn turn_from(&mut self, id: ListenerId, from: Source, to: Source) -> bool {
        let listener = self.listeners.get_mut(&id).filter(|listener| listener.source == from);
        listener.map(|listener| listener.source = to).is_some()
    }

    fn poll(&mut self, id: ListenerId) {
        if let Some(listener) = self.listeners.get_mut(&id)
            && !std::mem::replace(&mut listener.is_polled, true)
        {
            self.actions.push_back(Action::Poll(id));
        }
    }

    fn unpoll(&mut self, id: ListenerId) {
        if let Some(listener) = self.listeners.get_mut(&id)
            && std::mem::replace(&mut listener.is_polled, false)
        {
            self.actions.push_back(Action::StopPolling(id));
        }
    }
}
