//! What is true of connections, workers and listeners, kept beside the core and by other means.

use std::collections::{BTreeMap, BTreeSet};

use shepherd::core::dispatch::{
    AcceptEnd, Answer, Client, Closes, Event, FAILED_PAUSE, REST_FIRST, REST_MAX, SCARCE_PAUSE,
    STALLED_AFTER, WAITING_MAX, WINDOW,
};
use shepherd::core::ids::{ConnectionId, ListenerId, SlotId, WorkerId};
use shepherd::core::policy::Algorithm;
use shepherd::core::time::Time;

use super::choices::Choices;

/// Everything that is known, and nothing of how the core knows it.
#[derive(Clone)]
pub(crate) struct Book {
    pub(super) algorithm: Algorithm,
    pub(super) now: Time,
    /// Until when the core had the chance to see what the time changes.
    pub(super) woken: Time,
    pub(super) listeners: BTreeMap<ListenerId, Listener>,
    pub(super) workers: BTreeMap<WorkerId, Worker>,
    /// What was accepted and is not closed.
    pub(super) held: BTreeMap<ConnectionId, Held>,
    /// What a worker accepted, and is to be closed in this turn.
    pub(super) closing: BTreeSet<ConnectionId>,
    pub(super) scarce: Option<Time>,
    pub(super) choices: Choices,
    pub(crate) sights: BTreeSet<&'static str>,
}

#[derive(Clone, Default)]
pub(super) struct Listener {
    pub(super) open: bool,
    pub(super) polled: bool,
    pub(super) failed: Option<Time>,
    /// How many wait in its backlog.
    pub(super) backlog: usize,
    /// How often others were accepted from while it was as good.
    pub(super) passed_over: usize,
}

#[derive(Clone)]
pub(super) struct Worker {
    pub(super) slot: SlotId,
    pub(super) closes: Closes,
    pub(super) serves: BTreeSet<ListenerId>,
    pub(super) leaving: bool,
    pub(super) owes: Vec<(ConnectionId, Time)>,
    pub(super) blocked: Option<Time>,
    pub(super) refusals: u32,
    pub(super) rests: Option<Time>,
    pub(super) turn: u64,
    pub(super) open: u64,
    pub(super) accepted: u64,
}

#[derive(Clone, Copy)]
pub(super) struct Held {
    pub(super) listener: ListenerId,
    pub(super) client: Client,
    pub(super) with: Option<WorkerId>,
    pub(super) hung_up: bool,
    /// What brought it back, to be seen when it is given again.
    pub(super) back: Option<&'static str>,
}

pub(super) type Checked = Result<(), String>;

pub(super) fn ensure(holds: bool, violation: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(violation()) }
}

impl Book {
    pub(crate) fn new(algorithm: Algorithm) -> Book {
        Book {
            algorithm,
            now: Time::ZERO,
            woken: Time::ZERO,
            listeners: BTreeMap::new(),
            workers: BTreeMap::new(),
            held: BTreeMap::new(),
            closing: BTreeSet::new(),
            scarce: None,
            choices: Choices::default(),
            sights: BTreeSet::new(),
        }
    }

    /// How many descriptors are in use.
    pub(crate) fn descriptors(&self) -> usize {
        self.held.len() + self.closing.len()
    }

    /// Something happens, of which the core hears next.
    pub(crate) fn hears(&mut self, event: &Event) {
        let now = self.now;
        match event {
            Event::Opened(listener) => {
                self.listeners.insert(*listener, Listener { open: true, ..Listener::default() });
            }
            Event::Closed(listener) => {
                self.listeners.insert(*listener, Listener::default());
            }
            Event::Readable(_) => {}
            &Event::Accepted { connection, listener, client } => {
                let held = Held { listener, client, with: None, hung_up: false, back: None };
                self.held.insert(connection, held);
            }
            Event::AcceptEnded { listener, end } => match end {
                AcceptEnd::Enough | AcceptEnd::Empty => {}
                AcceptEnd::OutOfDescriptors => self.scarce = Some(now + SCARCE_PAUSE),
                AcceptEnd::Failed => {
                    self.sights.insert("a listener cannot be accepted from");
                    let listener = self.listeners.entry(*listener).or_default();
                    listener.failed = Some(now + FAILED_PAUSE);
                }
            },
            Event::Joined { worker, slot, listeners, closes } => {
                let serves = listeners.clone();
                let known = self.workers.entry(*worker).or_insert_with(|| Worker {
                    slot: *slot,
                    closes: *closes,
                    serves: BTreeSet::new(),
                    leaving: false,
                    owes: Vec::new(),
                    blocked: None,
                    refusals: 0,
                    rests: None,
                    turn: 0,
                    open: 0,
                    accepted: 0,
                });
                known.serves = serves;
                let mut others = self.workers.iter().filter(|(id, _)| *id != worker);
                if others.any(|(_, other)| other.slot == *slot && !other.leaving) {
                    self.sights.insert("two workers in a slot");
                }
            }
            Event::Leaving(worker) => {
                self.workers.get_mut(worker).into_iter().for_each(|worker| worker.leaving = true);
            }
            Event::Gone(worker) => {
                for (connection, _) in
                    self.workers.remove(worker).into_iter().flat_map(|it| it.owes)
                {
                    self.comes_back(connection, "given to another after a death");
                }
            }
            Event::Answered { worker, connection, answer } => {
                self.hears_answer(*worker, *connection, *answer);
            }
            Event::Blocked(worker) => {
                let worker = self.workers.get_mut(worker).into_iter();
                worker.for_each(|worker| worker.blocked = worker.blocked.or(Some(now)));
            }
            Event::Writable(worker) => {
                self.workers.get_mut(worker).into_iter().for_each(|worker| worker.blocked = None);
            }
            Event::Ended(worker) => {
                self.workers.get_mut(worker).into_iter().for_each(|worker| worker.open -= 1);
            }
            Event::Counted { .. } => {
                self.sights.insert("connections are counted");
            }
            Event::HungUp(connection) => {
                if let Some(held) = self.held.get_mut(connection) {
                    held.hung_up = true;
                    self.sights.insert(match held.with {
                        None => "the client went while it waited",
                        Some(_) => "the client went while a worker had it",
                    });
                }
            }
        }
    }

    pub(super) fn hears_answer(&mut self, id: WorkerId, connection: ConnectionId, answer: Answer) {
        let now = self.now;
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(at) = worker.owes.iter().position(|&(owed, _)| owed == connection) else { return };
        worker.owes.remove(at);
        if answer == Answer::Accepted {
            worker.refusals = 0;
            worker.rests = None;
            worker.open += 1;
            worker.accepted += 1;
            self.held.remove(&connection);
            self.closing.insert(connection);
            return;
        }
        if worker.rests.is_none_or(|until| until <= now) {
            let rest = (0..worker.refusals).fold(REST_FIRST, |rest, _| (rest * 2).min(REST_MAX));
            worker.rests = Some(now + rest);
            worker.refusals += 1;
        }
        self.comes_back(connection, "given to another after a refusal");
    }

    pub(super) fn comes_back(&mut self, connection: ConnectionId, why: &'static str) {
        if let Some(held) = self.held.get_mut(&connection) {
            held.with = None;
            held.back = Some(why);
        }
    }

    pub(super) fn is_open(&self, id: ListenerId) -> bool {
        self.listeners.get(&id).is_some_and(|listener| listener.open)
    }

    pub(super) fn is_scarce(&self) -> bool {
        self.scarce.is_some_and(|until| until > self.now)
    }

    /// Whether something waits there that should be accepted at once.
    pub(super) fn lacks_accept(&self, id: ListenerId) -> bool {
        let Some(listener) = self.listeners.get(&id) else { return false };
        let there = listener.open && listener.backlog > 0 && listener.failed.is_none();
        let can = there && !self.is_scarce() && self.waiting(id).count() < WAITING_MAX;
        can && self.free(id).next().is_some()
    }

    pub(super) fn waiting(&self, id: ListenerId) -> impl Iterator<Item = &Held> + '_ {
        self.held.values().filter(move |held| held.with.is_none() && held.listener == id)
    }

    /// Who serves a listener and is not leaving.
    pub(super) fn servers(&self, id: ListenerId) -> impl Iterator<Item = (WorkerId, &Worker)> + '_ {
        let there = self.workers.iter().filter(|(_, worker)| !worker.leaving);
        there.filter(move |(_, it)| it.serves.contains(&id)).map(|(&id, it)| (id, it))
    }

    /// Who of these may be given something, if not at once.
    pub(super) fn eligible(
        &self,
        id: ListenerId,
    ) -> impl Iterator<Item = (WorkerId, &Worker)> + '_ {
        let now = self.now;
        let is_fresh = move |worker: &Worker| worker.stalls_at().is_none_or(|at| at > now);
        let any_fresh = self.servers(id).any(|(_, worker)| is_fresh(worker));
        self.servers(id).filter(move |(_, it)| !it.rests(now) && (is_fresh(it) || !any_fresh))
    }

    /// Who may be given something at once.
    pub(super) fn free(&self, id: ListenerId) -> impl Iterator<Item = (WorkerId, &Worker)> + '_ {
        self.eligible(id).filter(|(_, worker)| worker.room() > 0)
    }

    /// Whether nothing has become otherwise by the time alone that the core has not heard.
    pub(super) fn is_certain(&self) -> bool {
        self.workers.values().all(|worker| {
            let changes = worker.stalls_at().into_iter().chain(worker.rests);
            changes.into_iter().all(|at| at <= self.woken || at > self.now)
        })
    }
}

impl Worker {
    pub(super) fn room(&self) -> usize {
        let window = if self.refusals > 0 { 1 } else { WINDOW };
        if self.blocked.is_some() { 0 } else { window.saturating_sub(self.owes.len()) }
    }

    pub(super) fn rests(&self, now: Time) -> bool {
        self.rests.is_some_and(|until| until > now)
    }

    pub(super) fn stalls_at(&self) -> Option<Time> {
        let oldest = self.owes.first().map(|&(_, since)| since);
        let since = oldest.into_iter().chain(self.blocked).min()?;
        Some(since + STALLED_AFTER)
    }
}
