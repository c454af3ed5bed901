//! One worker that is given connections: what it owes, and whether it may have more.

use std::collections::BTreeSet;

use super::{Answer, Closes, REST_FIRST, REST_MAX, STALLED_AFTER, WINDOW, WorkerView};
use crate::core::ids::{ConnectionId, ListenerId, SlotId};
use crate::core::policy::Algorithm;
use crate::core::time::Time;

#[derive(Debug, Clone)]
pub(super) struct Worker {
    slot: SlotId,
    closes: Closes,
    pub(super) listeners: BTreeSet<ListenerId>,
    pub(super) leaving: bool,
    /// What it was given and has not answered for, in that order; [`WINDOW`] at most.
    unacknowledged: Vec<(ConnectionId, Time)>,
    /// Since when its channel takes nothing.
    blocked: Option<Time>,
    stalled: bool,
    /// How often it has refused since it last accepted one.
    refusals: u32,
    /// Until when it rests because of that.
    rests: Option<Time>,
    told_out_of_descriptors: bool,
    /// When it was last given one, counted in connections.
    turn: u64,
    accepted: u64,
    /// How many it has open; nothing where that cannot be known.
    open: Option<u32>,
    /// How many it has accepted since its connections were last asked for.
    accepted_since: u32,
}

/// Where a worker stands, for a listener that it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) slot: SlotId,
    pub(super) is_fresh: bool,
    pub(super) rests: bool,
    /// How many it may be given.
    pub(super) room: usize,
    pub(super) rank: Rank,
}

/// Who is given one first: the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    load: u64,
    turn: u64,
}

/// What a look at a worker found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stalls {
    Begins,
    Ends,
}

impl Worker {
    pub(super) fn new(slot: SlotId, closes: Closes) -> Worker {
        Worker {
            slot,
            closes,
            listeners: BTreeSet::new(),
            leaving: false,
            unacknowledged: Vec::new(),
            blocked: None,
            stalled: false,
            refusals: 0,
            rests: None,
            told_out_of_descriptors: false,
            turn: 0,
            accepted: 0,
            open: Some(0),
            accepted_since: 0,
        }
    }

    /// What it owes an answer for.
    pub(super) fn unacknowledged(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        self.unacknowledged.iter().map(|&(connection, _)| connection)
    }

    pub(super) fn give(&mut self, now: Time, connection: ConnectionId, turn: u64) {
        self.unacknowledged.push((connection, now));
        self.turn = turn;
    }

    /// It answers for a connection; whether it was given that.
    pub(super) fn take_back(&mut self, connection: ConnectionId) -> bool {
        let at = self.unacknowledged.iter().position(|&(given, _)| given == connection);
        at.map(|at| self.unacknowledged.remove(at)).is_some()
    }

    pub(super) fn accepted(&mut self) {
        self.refusals = 0;
        self.rests = None;
        self.told_out_of_descriptors = false;
        self.accepted += 1;
        self.open = self.open.map(|open| open.saturating_add(1));
        self.accepted_since = self.accepted_since.saturating_add(1);
    }

    /// It has not taken one. What it was sent before it is known to refuse is refused as well, and
    /// counts once. Returns whether it has just run out of descriptors.
    pub(super) fn rest(&mut self, now: Time, answer: Answer) -> bool {
        if self.rests.is_none_or(|until| until <= now) {
            let doublings = self.refusals.min(8);
            self.rests = Some(now + (REST_FIRST * (1 << doublings)).min(REST_MAX));
            self.refusals = self.refusals.saturating_add(1);
        }
        answer == Answer::NotReceived && !std::mem::replace(&mut self.told_out_of_descriptors, true)
    }

    pub(super) fn block(&mut self, now: Time) {
        self.blocked = self.blocked.or(Some(now));
    }

    pub(super) fn unblock(&mut self) {
        self.blocked = None;
    }

    pub(super) fn ended(&mut self) {
        if std::mem::replace(&mut self.closes, Closes::Told) == Closes::Counted {
            self.open = Some(u32::try_from(self.accepted).unwrap_or(u32::MAX));
        }
        self.open = self.open.map(|open| open.saturating_sub(1));
    }

    pub(super) fn is_counted(&self) -> bool {
        self.closes == Closes::Counted && !self.leaving
    }

    /// What it has open is being counted. What it accepts from here on comes on top.
    pub(super) fn counting(&mut self) {
        self.accepted_since = 0;
    }

    pub(super) fn counted(&mut self, open: Option<u32>) {
        if self.closes == Closes::Counted {
            self.open = open.map(|open| open.saturating_add(self.accepted_since));
        }
    }

    /// Sees what the time has changed.
    pub(super) fn look(&mut self, now: Time) -> Option<Stalls> {
        self.rests = self.rests.filter(|&until| until > now);
        let stalled = !self.leaving && self.stalls_at().is_some_and(|at| at <= now);
        match (std::mem::replace(&mut self.stalled, stalled), stalled) {
            (false, true) => Some(Stalls::Begins),
            (true, false) if !self.leaving => Some(Stalls::Ends),
            (true | false, _) => None,
        }
    }

    /// When it is to be looked at again.
    pub(super) fn alarm(&self) -> Option<Time> {
        if self.leaving {
            return None;
        }
        let stalls = if self.stalled { None } else { self.stalls_at() };
        stalls.into_iter().chain(self.rests).min()
    }

    pub(super) fn standing(&self, algorithm: Algorithm) -> Standing {
        // One at a time is enough to see whether it still refuses.
        let window = if self.refusals > 0 { 1 } else { WINDOW };
        let unacknowledged = self.unacknowledged.len();
        let room = match self.blocked {
            Some(_) => 0,
            None => window.saturating_sub(unacknowledged),
        };
        let open = match algorithm {
            Algorithm::LeastConnections => self.open.unwrap_or(0),
            Algorithm::RoundRobin | Algorithm::Sticky => 0,
        };
        let load = u64::from(open) + unacknowledged as u64;
        Standing {
            slot: self.slot,
            is_fresh: !self.stalled,
            rests: self.rests.is_some(),
            room,
            rank: Rank { load, turn: self.turn },
        }
    }

    pub(super) fn view(&self) -> WorkerView {
        WorkerView {
            unacknowledged: self.unacknowledged.len(),
            oldest: self.oldest(),
            open: self.open,
            accepted: self.accepted,
            stalled: self.stalled,
            resting: self.rests.is_some(),
        }
    }

    fn oldest(&self) -> Option<Time> {
        self.unacknowledged.first().map(|&(_, since)| since)
    }

    fn stalls_at(&self) -> Option<Time> {
        let after = |since: Time| since + STALLED_AFTER;
        self.oldest().into_iter().chain(self.blocked).min().map(after)
    }
}
