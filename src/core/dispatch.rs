//! Balance `dispatch`: shepherd accepts, and gives each connection to a worker. Who gets which, and
//! when it is certain that somebody has it. One for each service that dispatches. It never sees a
//! descriptor, an address or a byte of a channel.
//!
//! # The life of a connection
//!
//! It stays in the kernel's backlog until a worker has room for it: there it costs nothing, and
//! shepherd may be replaced without losing it. Then it is accepted and *given* to a worker, who
//! answers for it. Until then shepherd keeps a descriptor of it, so it can be given to another: when
//! the worker refuses it, when it did not arrive, when the worker died. A worker acknowledges before
//! it reads, so one that died unacknowledged was not read from. A worker that lives keeps what it was
//! given, however long it is silent: it could wake, and two would answer one client. Once accepted,
//! our descriptor is closed at once: as long as it is open, the client does not see the worker's end
//! of it.
//!
//! In between, a connection *waits*: those that came back, and, where it matters who gets it, those
//! whose worker has no room at the moment. New ones are not accepted to wait, so what is held is
//! bounded: [`WINDOW`] for each worker and [`WAITING_MAX`] for each listener.
//!
//! # Who gets one
//!
//! A worker may be given one if it serves the listener, is not leaving, does not *rest*, has room, its
//! channel takes more, and it is not *stalled* while another is not. One that refuses rests
//! [`REST_FIRST`], twice as long each time up to [`REST_MAX`], and gets one at a time until it accepts
//! again. One that has not answered for [`STALLED_AFTER`] is stalled. Of those that may, the
//! [`Algorithm`] chooses.
//!
//! `sticky` places the slots on a ring (`ring.rs`) and sends a client to the next one after its
//! address. A slot is there while it has a worker that serves, does not rest and is not stalled. Then
//! its clients wait for it, be it ever so busy; else they go to the next slot: a restart lasts longer
//! than a client waits, and one that refuses or hangs would keep the listener from everybody. Others
//! stay where they are, and those that moved are back when the slot is.
//!
//! # How to drive it
//!
//! 1. Feed what happened to [`Dispatch::handle_event`], or call [`Dispatch::handle_timeout`] when
//!    [`Dispatch::next_deadline`] has passed.
//! 2. Perform every action that [`Dispatch::poll_action`] gives, in order, until it gives none, and
//!    before the next event; only the answers to [`Action::Accept`] are fed in between.
//!
//! `now` must never go back. Events about workers, listeners and connections that are gone are late
//! news and change nothing; but a worker joins before all else that it does, and never after it is
//! gone. When nothing more is to be accepted, for shepherd is replaced or the service stops, each
//! listener is [`Event::Closed`], and it is over when nothing is [`Dispatch::held`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::ids::{ConnectionId, ListenerId, WorkerId};
use super::policy::Algorithm;
use super::time::Time;
use alarms::Alarms;
use listener::{Listener, WaitsFor};
use worker::Worker;

mod event;

mod action;

mod notice;

mod worker;

mod listener;

mod ring;

mod alarms;

mod accepting;

mod giving;

pub use action::{Action, CloseReason};
pub use alarms::Alarm;
pub use event::{AcceptEnd, Answer, Client, Closes, Event};
pub use notice::Notice;

/// How many connections a worker may have that it has not answered for. Each one more saves the
/// worker a wait for the next (with one a connection costs a third more CPU in shepherd than with
/// four, with sixteen hardly less), and each is a client that waits when the worker hangs.
pub const WINDOW: usize = 4;

/// How many connections are accepted from a listener before others and what workers say are looked at.
pub const ACCEPT_MAX: usize = 16;

/// How many connections of a listener may wait for workers that are busy and then one more be
/// accepted. Room for the others while some clients' worker is busy, and little enough to hold.
pub const WAITING_MAX: usize = 16;

/// How long a worker that refused rests: a worker that is full is not asked in a loop.
pub const REST_FIRST: Duration = Duration::from_millis(10);

/// The longest rest: nobody minds to wait so long for a service that is full.
pub const REST_MAX: Duration = Duration::from_millis(200);

/// How long a worker may owe an answer, or its channel be full, before others are preferred. Longer
/// than a collection of garbage or a heavy request takes, shorter than people wait.
pub const STALLED_AFTER: Duration = Duration::from_secs(1);

/// How long nothing is accepted when there are no descriptors, unless one becomes free before.
pub const SCARCE_PAUSE: Duration = Duration::from_millis(100);

/// How long nothing is accepted from a listener that cannot be accepted from.
pub const FAILED_PAUSE: Duration = Duration::from_secs(1);

/// How old the counts of open connections may be when one is given by them. To count is to look
/// through all connections of the machine.
pub const COUNT_EVERY: Duration = Duration::from_secs(1);

/// Who gets the connections of a service.
#[derive(Debug, Clone)]
pub struct Dispatch {
    algorithm: Algorithm,
    workers: BTreeMap<WorkerId, Worker>,
    /// Those that are open, and those that a worker serves.
    listeners: BTreeMap<ListenerId, Listener>,
    connections: BTreeMap<ConnectionId, Connection>,
    /// Listeners that connections wait in, as far as is known, in the order of their turns.
    readable: VecDeque<ListenerId>,
    /// The listener that is being accepted from.
    taking: Option<ListenerId>,
    /// Whether there are no descriptors to accept with, and whether that was told.
    scarce: Scarcity,
    /// Counts what was given.
    turn: u64,
    counted_at: Option<Time>,
    /// Workers that may have room for what waits.
    freed: BTreeSet<WorkerId>,
    /// Listeners of which it has changed where their clients go.
    moved: BTreeSet<ListenerId>,
    alarms: Alarms,
    actions: VecDeque<Action>,
}

/// A connection that is held.
#[derive(Debug, Clone, Copy)]
struct Connection {
    listener: ListenerId,
    client: Client,
    place: Place,
    /// Nobody is there to be answered any more.
    hung_up: bool,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Waits(WaitsFor),
    /// A worker was given it and has not answered.
    Given,
}

/// See [`Dispatch::scarce`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scarcity {
    None,
    /// One was free since, and may have been used up; no backlog was emptied yet.
    Passing,
    /// Nothing is accepted.
    Paused,
}

/// What there is to see of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerView {
    /// How many it was given and has not answered for.
    pub unacknowledged: usize,
    /// Since when it owes the oldest of these.
    pub oldest: Option<Time>,
    /// How many it has open, as far as is known; only counted with
    /// [`Algorithm::LeastConnections`].
    pub open: Option<u32>,
    /// How many it has accepted so far.
    pub accepted: u64,
    /// Whether others are preferred because it does not answer.
    pub stalled: bool,
    /// Whether it rests because it refused.
    pub resting: bool,
}

impl Dispatch {
    /// One without a listener and a worker.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Dispatch {
        Dispatch {
            algorithm,
            workers: BTreeMap::new(),
            listeners: BTreeMap::new(),
            connections: BTreeMap::new(),
            readable: VecDeque::new(),
            taking: None,
            scarce: Scarcity::None,
            turn: 0,
            counted_at: None,
            freed: BTreeSet::new(),
            moved: BTreeSet::new(),
            alarms: Alarms::default(),
            actions: VecDeque::new(),
        }
    }

    /// Who gets what is chosen so from here on. What was given stays where it is.
    pub fn set_algorithm(&mut self, now: Time, algorithm: Algorithm) {
        if std::mem::replace(&mut self.algorithm, algorithm) == algorithm {
            return;
        }
        for (&id, listener) in &mut self.listeners {
            listener.choose_by(algorithm);
            // All that waits looks for its place once more.
            self.moved.insert(id);
        }
        for id in self.workers.keys().copied().collect::<Vec<_>>() {
            self.refresh(now, id);
        }
        self.settle(now);
    }

    /// Something happened.
    pub fn handle_event(&mut self, now: Time, event: Event) {
        match event {
            Event::Opened(listener) => self.opened(listener),
            Event::Closed(listener) => self.closed(listener),
            Event::Readable(listener) => self.became_readable(listener),
            Event::Accepted { connection, listener, client } => {
                let place = Place::Waits(WaitsFor::Anyone);
                let accepted = Connection { listener, client, place, hung_up: false };
                let earlier = self.connections.insert(connection, accepted);
                debug_assert!(earlier.is_none(), "connection {connection} is accepted twice");
                self.place(now, connection);
            }
            Event::AcceptEnded { listener, end } => self.accept_ended(now, listener, end),
            Event::Joined { worker, slot, listeners, closes } => {
                let known = self.workers.entry(worker);
                let known = known.or_insert_with(|| Worker::new(slot, closes));
                if known.leaving {
                    return;
                }
                let before = std::mem::replace(&mut known.listeners, listeners);
                let dropped = before.difference(&known.listeners).copied().collect();
                self.stand_down(worker, &dropped);
                self.refresh(now, worker);
            }
            Event::Leaving(worker) => {
                if let Some(leaving) = self.workers.get_mut(&worker) {
                    leaving.leaving = true;
                    let listeners = leaving.listeners.clone();
                    self.refresh(now, worker);
                    self.stand_down(worker, &listeners);
                }
            }
            Event::Gone(worker) => {
                if let Some(gone) = self.workers.remove(&worker) {
                    self.alarms.set(Alarm::Worker(worker), None);
                    self.stand_down(worker, &gone.listeners);
                    for connection in gone.unacknowledged() {
                        self.place(now, connection);
                    }
                }
            }
            Event::Answered { worker, connection, answer } => {
                self.answered(now, worker, connection, answer);
            }
            Event::Blocked(worker) => self.change(now, worker, |worker| worker.block(now)),
            Event::Writable(worker) => self.change(now, worker, Worker::unblock),
            Event::Ended(worker) => self.change(now, worker, Worker::ended),
            Event::Counted { worker, open } => {
                self.change(now, worker, |worker| worker.counted(open));
            }
            Event::HungUp(connection) => {
                if let Some(known) = self.connections.get_mut(&connection) {
                    known.hung_up = true;
                    match known.place {
                        Place::Waits(_) => self.close(connection, CloseReason::HungUp),
                        Place::Given => {}
                    }
                }
            }
        }
        self.settle(now);
    }

    /// A deadline has passed.
    pub fn handle_timeout(&mut self, now: Time) {
        for alarm in self.alarms.take_due(now) {
            match alarm {
                Alarm::Worker(worker) => self.refresh(now, worker),
                Alarm::Listener(listener) => self.try_again(listener),
                Alarm::Descriptors => self.scarce = Scarcity::Passing,
            }
        }
        self.settle(now);
    }

    /// What is to be done next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Dispatch::handle_timeout`] is to be called, and why.
    #[must_use]
    pub fn next_deadline(&self) -> Option<(Time, Alarm)> {
        self.alarms.next()
    }

    /// The workers that have joined and are not gone.
    pub fn workers(&self) -> impl Iterator<Item = (WorkerId, WorkerView)> + '_ {
        self.workers.iter().map(|(&id, worker)| (id, worker.view()))
    }

    /// One of them.
    #[must_use]
    pub fn worker(&self, id: WorkerId) -> Option<WorkerView> {
        self.workers.get(&id).map(Worker::view)
    }

    /// How many connections are held: that wait, or that no worker has answered for.
    #[must_use]
    pub fn held(&self) -> usize {
        self.connections.len()
    }
}

#[cfg(test)]
mod tests;
