//! Who is given what: from an answer, a death or a client's end to who has the connection next.

use std::collections::BTreeSet;

use super::listener::{Change, Choice, Listener, WaitsFor};
use super::worker::Worker;
use super::{
    Action, Alarm, Algorithm, Answer, COUNT_EVERY, CloseReason, Connection, ConnectionId, Dispatch,
    ListenerId, Notice, Place, Scarcity, Time, WorkerId,
};

impl Dispatch {
    /// Looks for who gets a connection, or for what it has to wait.
    pub(super) fn place(&mut self, now: Time, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.hung_up {
            return self.close(id, CloseReason::HungUp);
        }
        let Some(listener) = self.listeners.get_mut(&connection.listener) else {
            return self.close(id, CloseReason::Nobody);
        };
        match listener.choose(connection.client) {
            Choice::Give(worker) => self.give(now, id, worker),
            Choice::Wait(what) => {
                connection.place = Place::Waits(what);
                listener.wait(id, what);
            }
        }
    }

    pub(super) fn give(&mut self, now: Time, id: ConnectionId, worker: WorkerId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.place = Place::Given;
        let listener = connection.listener;
        self.turn += 1;
        let turn = self.turn;
        self.change(now, worker, |worker| worker.give(now, id, turn));
        self.actions.push_back(Action::Give { connection: id, listener, worker });
        let is_old = self.counted_at.is_none_or(|at| now.since(at) >= COUNT_EVERY);
        if self.algorithm == Algorithm::LeastConnections && is_old {
            let mut counted = Vec::new();
            for (&id, worker) in self.workers.iter_mut().filter(|(_, worker)| worker.is_counted()) {
                worker.counting();
                counted.push(id);
            }
            if !counted.is_empty() {
                self.counted_at = Some(now);
                self.actions.push_back(Action::Count(counted));
            }
        }
    }

    pub(super) fn answered(
        &mut self,
        now: Time,
        id: WorkerId,
        connection: ConnectionId,
        answer: Answer,
    ) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if !worker.take_back(connection) {
            return;
        }
        let Some(listener) = self.connections.get(&connection).map(|known| known.listener) else {
            return;
        };
        if answer == Answer::Accepted {
            worker.accepted();
            self.refresh(now, id);
            self.close(connection, CloseReason::Taken);
            if let Some(listener) = self.listeners.get_mut(&listener) {
                listener.told_refused = false;
            }
            return;
        }
        if worker.rest(now, answer) {
            self.actions.push_back(Action::Tell(Notice::OutOfDescriptors(id)));
        }
        self.refresh(now, id);
        if let Some(known) = self.listeners.get_mut(&listener)
            && known.all_rest()
            && !std::mem::replace(&mut known.told_refused, true)
        {
            self.actions.push_back(Action::Tell(Notice::RefusedByAll(listener)));
        }
        self.place(now, connection);
    }

    /// Lets go of a connection.
    pub(super) fn close(&mut self, id: ConnectionId, because: CloseReason) {
        let Some(connection) = self.connections.remove(&id) else { return };
        if let Place::Waits(what) = connection.place
            && let Some(listener) = self.listeners.get_mut(&connection.listener)
        {
            listener.unwait(id, what);
        }
        self.actions.push_back(Action::Close { connection: id, because });
        if self.scarce == Scarcity::Paused {
            self.scarce = Scarcity::Passing;
            self.alarms.set(Alarm::Descriptors, None);
        }
    }

    /// Changes something about a worker, and what follows from it.
    pub(super) fn change(&mut self, now: Time, id: WorkerId, change: impl FnOnce(&mut Worker)) {
        if let Some(worker) = self.workers.get_mut(&id) {
            change(worker);
            self.refresh(now, id);
        }
    }

    /// Sees where a worker stands, and has its listeners know.
    pub(super) fn refresh(&mut self, now: Time, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let news = worker.look(now).map(|stalls| Notice::of(id, stalls, worker));
        self.actions.extend(news.map(Action::Tell));
        self.alarms.set(Alarm::Worker(id), worker.alarm());
        if worker.leaving {
            return;
        }
        let standing = worker.standing(self.algorithm);
        for &listener in &worker.listeners {
            let known = self.listeners.entry(listener);
            let known = known.or_insert_with(|| Listener::new(self.algorithm));
            let Change { freed, moved } = known.stand(id, Some(standing));
            self.freed.extend(freed);
            self.moved.extend(moved.then_some(listener));
        }
    }

    /// A worker serves these no more. What waits where nobody is, and nobody listens, waits in vain.
    pub(super) fn stand_down(&mut self, worker: WorkerId, listeners: &BTreeSet<ListenerId>) {
        for &listener in listeners {
            let Some(known) = self.listeners.get_mut(&listener) else { continue };
            let Change { freed, moved } = known.stand(worker, None);
            self.freed.extend(freed);
            self.moved.extend(moved.then_some(listener));
            self.forget_if_forsaken(listener);
        }
    }

    pub(super) fn forget_if_forsaken(&mut self, listener: ListenerId) {
        if self.listeners.get(&listener).is_some_and(Listener::is_forsaken) {
            let forsaken = self.listeners.remove(&listener);
            for connection in forsaken.iter().flat_map(Listener::all_waiting) {
                self.close(connection, CloseReason::Nobody);
            }
        }
    }

    /// Gives what can be given, and then accepts what there is room for.
    pub(super) fn settle(&mut self, now: Time) {
        while let Some(id) = self.moved.pop_first() {
            let Some(listener) = self.listeners.get_mut(&id) else { continue };
            for connection in listener.take_waiting() {
                self.place(now, connection);
            }
        }
        while let Some(id) = self.freed.pop_first() {
            let Some(worker) = self.workers.get(&id) else { continue };
            let served = worker.listeners.iter().filter_map(|id| self.listeners.get(id));
            // The one that was accepted first, so that no listener has to wait for another.
            let Some(next) = served.filter_map(|listener| listener.next_for(id)).min() else {
                continue;
            };
            let Some(&Connection { listener, place: Place::Waits(what), .. }) =
                self.connections.get(&next)
            else {
                continue;
            };
            let Some(listener) = self.listeners.get_mut(&listener) else { continue };
            listener.unwait(next, what);
            let receiver = match what {
                WaitsFor::Anyone => listener.best().unwrap_or(id),
                WaitsFor::Slot(_) => id,
            };
            self.give(now, next, receiver);
            // It may have room for another; it is nobody's turn any more when nothing waits for it.
            self.freed.insert(id);
        }
        self.accept();
    }
}
