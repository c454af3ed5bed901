//! One listener: who may be given what comes there, and what of it waits.

use std::collections::{BTreeMap, BTreeSet};

use super::ring::Ring;
use super::worker::{Rank, Standing};
use super::{ACCEPT_MAX, Client, WAITING_MAX};
use crate::core::ids::{ConnectionId, SlotId, WorkerId};
use crate::core::policy::Algorithm;

#[derive(Debug, Clone)]
pub(super) struct Listener {
    pub(super) source: Source,
    pub(super) is_polled: bool,
    /// Whether it was told that all refuse, and nobody has accepted one since.
    pub(super) told_refused: bool,
    /// Who serves it and is not leaving.
    servers: BTreeMap<WorkerId, Standing>,
    /// How many of these are not stalled.
    fresh: usize,
    /// How many of these rest.
    resting: usize,
    /// Those that may be given one at once, best first.
    free: BTreeSet<(Rank, WorkerId)>,
    /// Where it matters who gets what: those that may be given one, be it later.
    ring: Option<Ring>,
    waiting: BTreeMap<WaitsFor, BTreeSet<ConnectionId>>,
    waiting_count: usize,
}

/// Whether there is something to accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// There is no socket to accept from.
    Closed,
    /// Nothing is known to wait; it is polled.
    Quiet,
    /// Something waits; it is in the queue.
    Readable,
    /// It is being accepted from.
    Taking,
    /// It cannot be accepted from, and is tried again later.
    Failed,
}

/// Whose room a connection needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WaitsFor {
    Anyone,
    Slot(SlotId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    Give(WorkerId),
    Wait(WaitsFor),
}

/// What comes of a worker's change.
#[derive(Debug, Clone, Default)]
pub(super) struct Change {
    /// These may be given one at once.
    pub(super) freed: Vec<WorkerId>,
    /// Some clients belong elsewhere.
    pub(super) moved: bool,
}

impl Listener {
    pub(super) fn new(algorithm: Algorithm) -> Listener {
        Listener {
            source: Source::Closed,
            is_polled: false,
            told_refused: false,
            servers: BTreeMap::new(),
            fresh: 0,
            resting: 0,
            free: BTreeSet::new(),
            ring: (algorithm == Algorithm::Sticky).then(Ring::default),
            waiting: BTreeMap::new(),
            waiting_count: 0,
        }
    }

    /// Workers stand otherwise from here on; each is to stand up once more.
    pub(super) fn choose_by(&mut self, algorithm: Algorithm) {
        self.ring = (algorithm == Algorithm::Sticky).then(Ring::default);
    }

    /// Nobody serves it, and nothing comes there.
    pub(super) fn is_forsaken(&self) -> bool {
        self.source == Source::Closed && self.servers.is_empty()
    }

    /// Whether everybody who serves it has refused.
    pub(super) fn all_rest(&self) -> bool {
        self.resting > 0 && self.resting == self.servers.len()
    }

    /// How many may be accepted.
    pub(super) fn room(&self) -> usize {
        // Each of these has room for one at least.
        let free = self.free.iter().take(ACCEPT_MAX);
        let rooms = free.filter_map(|(_, worker)| self.servers.get(worker));
        let room: usize = rooms.map(|standing| standing.room).sum();
        room.min(ACCEPT_MAX).min(WAITING_MAX.saturating_sub(self.waiting_count))
    }

    /// A worker stands so from here on, or serves no more.
    pub(super) fn stand(&mut self, worker: WorkerId, standing: Option<Standing>) -> Change {
        let had_fresh = self.fresh > 0;
        let before = match standing {
            Some(standing) => self.servers.insert(worker, standing),
            None => self.servers.remove(&worker),
        };
        if let Some(before) = before {
            self.fresh -= usize::from(before.is_fresh);
            self.resting -= usize::from(before.rests);
            self.free.remove(&(before.rank, worker));
        }
        if let Some(standing) = standing {
            self.fresh += usize::from(standing.is_fresh);
            self.resting += usize::from(standing.rests);
        }
        let mut change = Change::default();
        if let (None, Some(before), Some(ring)) = (standing, before, &mut self.ring) {
            change.moved = ring.set(before.slot, worker, false);
        }
        if had_fresh == (self.fresh > 0) {
            if let Some(standing) = standing {
                self.enter(worker, standing, &mut change);
            }
        } else {
            // The first that is fresh puts those that are stalled aside, and the last brings them
            // back.
            for (worker, standing) in self.servers.clone() {
                self.enter(worker, standing, &mut change);
            }
        }
        change
    }

    /// Puts a worker where it belongs.
    fn enter(&mut self, worker: WorkerId, standing: Standing, change: &mut Change) {
        let may = !standing.rests && (standing.is_fresh || self.fresh == 0);
        if may && standing.room > 0 {
            if self.free.insert((standing.rank, worker)) {
                change.freed.push(worker);
            }
        } else {
            self.free.remove(&(standing.rank, worker));
        }
        if let Some(ring) = &mut self.ring {
            change.moved |= ring.set(standing.slot, worker, may);
        }
    }

    /// Who gets the connection of a client, or whom it waits for.
    pub(super) fn choose(&self, client: Client) -> Choice {
        let ring = self.ring.as_ref();
        if let Some((ring, slot)) = ring.and_then(|ring| Some((ring, ring.slot(client)?))) {
            return match ring.worker(slot) {
                Some(worker) if self.is_free(worker) => Choice::Give(worker),
                Some(_) | None => Choice::Wait(WaitsFor::Slot(slot)),
            };
        }
        self.best().map_or(Choice::Wait(WaitsFor::Anyone), Choice::Give)
    }

    /// Who is the next where anybody may have it.
    pub(super) fn best(&self) -> Option<WorkerId> {
        self.free.first().map(|&(_, worker)| worker)
    }

    pub(super) fn wait(&mut self, connection: ConnectionId, what: WaitsFor) {
        let is_new = self.waiting.entry(what).or_default().insert(connection);
        self.waiting_count += usize::from(is_new);
    }

    pub(super) fn unwait(&mut self, connection: ConnectionId, what: WaitsFor) {
        if let Some(waiting) = self.waiting.get_mut(&what)
            && waiting.remove(&connection)
        {
            self.waiting_count -= 1;
            if waiting.is_empty() {
                self.waiting.remove(&what);
            }
        }
    }

    /// All that waits, in the order of their numbers.
    pub(super) fn all_waiting(&self) -> BTreeSet<ConnectionId> {
        self.waiting.values().flatten().copied().collect()
    }

    /// All that waits, which does so no more.
    pub(super) fn take_waiting(&mut self) -> BTreeSet<ConnectionId> {
        let waiting = self.all_waiting();
        self.waiting.clear();
        self.waiting_count = 0;
        waiting
    }

    /// The first that waits and that a worker may be given at once.
    pub(super) fn next_for(&self, worker: WorkerId) -> Option<ConnectionId> {
        if !self.is_free(worker) {
            return None;
        }
        let slot = self.servers.get(&worker)?.slot;
        let ring = self.ring.as_ref();
        let has_clients = ring.is_some_and(|ring| ring.worker(slot) == Some(worker));
        let its_own = has_clients.then(|| self.waiting.get(&WaitsFor::Slot(slot))).flatten();
        let anyones = self.waiting.get(&WaitsFor::Anyone);
        its_own.into_iter().chain(anyones).filter_map(|waiting| waiting.first()).min().copied()
    }

    fn is_free(&self, worker: WorkerId) -> bool {
        let standing = self.servers.get(&worker);
        standing.is_some_and(|standing| self.free.contains(&(standing.rank, worker)))
    }
}
