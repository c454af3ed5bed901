//! What must never be, and what must not be left to do: promises D1 to D5, D8 and D9.

use shepherd::core::dispatch::{ACCEPT_MAX, Action, CloseReason, Notice, WAITING_MAX, WINDOW};
use shepherd::core::ids::{ConnectionId, ListenerId, WorkerId};
use shepherd::core::policy::Algorithm;
use shepherd::core::time::Time;

use super::book::{Book, Checked, Worker, ensure};

impl Book {
    /// The core wants something done.
    pub(crate) fn does(&mut self, action: &Action) -> Checked {
        match action {
            Action::Poll(listener) | Action::StopPolling(listener) => {
                let known = self.listeners.entry(*listener).or_default();
                let polls = matches!(action, Action::Poll(_));
                let was = std::mem::replace(&mut known.polled, polls);
                ensure(known.open && was != polls, || format!("D8: {action:?} of {listener}"))
            }
            Action::Accept { listener, at_most } => self.accepts(*listener, *at_most),
            Action::Give { connection, listener, worker } => {
                self.gives(*connection, *listener, *worker)
            }
            Action::Close { connection, because } => self.closes(*connection, *because),
            Action::Count(workers) => {
                let counts = self.algorithm == Algorithm::LeastConnections;
                let known = workers.iter().all(|worker| self.workers.contains_key(worker));
                ensure(counts && known && !workers.is_empty(), || format!("{action:?}"))
            }
            Action::Tell(notice) => self.tells(*notice),
        }
    }

    fn accepts(&mut self, id: ListenerId, at_most: usize) -> Checked {
        let listener = self.listeners.get(&id);
        ensure(listener.is_some_and(|it| it.open), || format!("D4: {id} is not open"))?;
        ensure(!self.is_scarce(), || "D4: there are no descriptors".to_owned())?;
        let room: usize = if self.is_certain() {
            self.free(id).map(|(_, worker)| worker.room()).sum()
        } else {
            self.servers(id).map(|(_, worker)| worker.room()).sum()
        };
        let waiting = self.waiting(id).count();
        let fits = at_most > 0 && at_most <= ACCEPT_MAX && at_most <= room;
        ensure(fits && waiting + at_most <= WAITING_MAX, || {
            format!("D4: accepts {at_most}, there is room for {room}, and {waiting} wait")
        })?;
        let bound = WINDOW * self.workers.len() + WAITING_MAX;
        let others = self.held.values().filter(|held| held.with.is_none() && held.listener != id);
        let held = self.held.len() - others.count() + at_most;
        ensure(held <= bound, || format!("D4: holds {held} of {bound}"))?;
        let listeners = self.listeners.len();
        let as_good = self.listeners.keys().copied().filter(|&other| self.lacks_accept(other));
        let as_good: Vec<ListenerId> = as_good.collect();
        for other in as_good {
            let passed_over = self.listeners.get_mut(&other).map_or(0, |listener| {
                listener.passed_over += 1;
                listener.passed_over
            });
            let fair = other == id || passed_over <= listeners;
            ensure(fair, || format!("D5: {other} was passed over {passed_over} times"))?;
        }
        self.listeners.get_mut(&id).into_iter().for_each(|listener| listener.passed_over = 0);
        Ok(())
    }

    fn gives(&mut self, id: ConnectionId, listener: ListenerId, to: WorkerId) -> Checked {
        let held = self.held.get(&id).copied();
        let held = held.ok_or_else(|| format!("D1: {id} is given, and is not held"))?;
        ensure(held.with.is_none(), || format!("D2: {id} is with {:?}, given to {to}", held.with))?;
        ensure(held.listener == listener && !held.hung_up, || format!("D1: {id} is misgiven"))?;
        self.sights.extend(held.back);
        let worker = self.workers.get(&to).ok_or_else(|| format!("D3: {to} is not there"))?;
        let takes = !worker.leaving && worker.serves.contains(&listener);
        ensure(takes && worker.room() > 0, || format!("D3: {to} has no room for {id}"))?;
        ensure(!worker.rests(self.now), || format!("D3: {to} rests"))?;
        if worker.stalls_at().is_some_and(|at| at <= self.woken) {
            let mut servers = self.servers(listener);
            let fresh = servers.find(|(_, it)| it.stalls_at().is_none_or(|at| at > self.now));
            ensure(fresh.is_none(), || format!("D3: {to} is stalled, another is not"))?;
            drop(servers);
            self.sights.insert("given to a stalled one, as all are");
        }
        let mut choices = std::mem::take(&mut self.choices);
        let checked = choices.check(self, held, to);
        self.choices = choices;
        let turn = self.choices.turns;
        let now = self.now;
        if let (Some(worker), Some(held)) = (self.workers.get_mut(&to), self.held.get_mut(&id)) {
            worker.owes.push((id, now));
            worker.turn = turn;
            held.with = Some(to);
        }
        checked
    }

    fn closes(&mut self, id: ConnectionId, because: CloseReason) -> Checked {
        self.scarce = None;
        if because == CloseReason::Taken {
            return ensure(self.closing.remove(&id), || format!("D1: {id} was not accepted"));
        }
        let held = self.held.remove(&id).filter(|held| held.with.is_none());
        let held = held.ok_or_else(|| format!("D1: {id} is closed, and does not wait"))?;
        let right = match because {
            CloseReason::Taken => false,
            CloseReason::HungUp => held.hung_up,
            CloseReason::Nobody => {
                self.sights.insert("nobody serves what is closed");
                let open = self.listeners.get(&held.listener).is_some_and(|it| it.open);
                !open && self.servers(held.listener).next().is_none()
            }
        };
        ensure(right, || format!("D1: {id} is closed, {because:?}"))
    }

    fn tells(&mut self, notice: Notice) -> Checked {
        let (sight, right) = match notice {
            Notice::Stalled { worker, .. } => {
                let stalls = self.workers.get(&worker).and_then(Worker::stalls_at);
                ("stalled", stalls.is_some_and(|at| at <= self.now))
            }
            Notice::Answers(worker) => {
                let stalls = self.workers.get(&worker).and_then(Worker::stalls_at);
                ("answers again", stalls.is_none_or(|at| at > self.now))
            }
            Notice::OutOfDescriptors(_) => ("out of descriptors in a worker", true),
            Notice::RefusedByAll(listener) => {
                let mut servers = self.servers(listener);
                ("refused by all", servers.all(|(_, worker)| worker.refusals > 0))
            }
            Notice::Scarce => ("out of descriptors", self.scarce.is_some()),
        };
        self.sights.insert(sight);
        ensure(right, || format!("{notice:?} is not so"))
    }

    /// Nothing is to be done: so nothing may be left to do.
    pub(crate) fn after_turn(&mut self, deadline: Option<Time>) -> Checked {
        ensure(self.closing.is_empty(), || format!("D1: {:?} stay open", self.closing))?;
        ensure(deadline.is_none_or(|at| at > self.now), || "D9: a deadline is past".to_owned())?;
        self.scarce = self.scarce.filter(|&until| until > self.now);
        for listener in self.listeners.values_mut() {
            listener.failed = listener.failed.filter(|&until| until > self.now);
            if listener.backlog == 0 {
                listener.passed_over = 0;
            }
        }
        for &id in self.listeners.keys() {
            ensure(!self.lacks_accept(id), || format!("D5: {id} has a backlog, somebody is free"))?;
            let waiting = self.waiting(id).count();
            let forsaken = self.servers(id).next().is_none() && !self.is_open(id);
            ensure(waiting == 0 || !forsaken, || format!("D1: {waiting} of {id} wait for nobody"))?;
        }
        let mut waits_for_its_own = false;
        for (&id, held) in self.held.iter().filter(|(_, held)| held.with.is_none()) {
            ensure(!held.hung_up, || format!("D1: {id} waits, and its client is gone"))?;
            let may = self.choices.who_may(self, *held);
            ensure(may.is_none(), || format!("D5: {id} waits, and {may:?} is free"))?;
            waits_for_its_own |= self.free(held.listener).next().is_some();
        }
        if waits_for_its_own {
            self.sights.insert("a client waits for its busy slot");
        }
        let there = self.workers.values().filter(|worker| !worker.leaving);
        let idle = there.clone().all(|worker| {
            worker.owes.is_empty() && worker.blocked.is_none() && !worker.rests(self.now)
        });
        let failed = self.listeners.values().any(|listener| listener.failed.is_some());
        let idle = idle && !failed && !self.is_scarce();
        ensure(!idle || deadline.is_none(), || format!("D9: idle, and wakes at {deadline:?}"))
    }
}
