//! All workers of a service, whatever their state, with running counts and the order of their
//! deadlines, so that what happens to one worker costs the same with ten of them and with thousands.
//!
//! A worker is changed through [`Roster::change`] only, which keeps the accounts.

use std::collections::{BTreeMap, BTreeSet};

use super::ids::{GenerationId, SlotId, WorkerId};
use super::time::{Time, Why};
use super::worker::{Worker, WorkerState};

/// The workers of a service.
#[derive(Debug, Clone, Default)]
pub struct Roster {
    workers: BTreeMap<WorkerId, Worker>,
    generations: BTreeMap<GenerationId, Tally>,
    deadlines: BTreeSet<(Time, Why, WorkerId)>,
    /// How many ready workers the slots have that have one.
    ready: BTreeMap<SlotId, u32>,
}

/// How many workers of a generation stand where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Not yet seen able to serve.
    pub starting: u32,
    /// Of those, how many do not run their program yet.
    pub launching: u32,
    /// And how many have a check under way.
    pub checking: u32,
    /// Able to serve.
    pub ready: u32,
    /// On their way out.
    pub leaving: u32,
}

impl Roster {
    /// A worker by its number.
    #[must_use]
    pub fn get(&self, id: WorkerId) -> Option<&Worker> {
        self.workers.get(&id)
    }

    /// All of them, by their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Worker> {
        self.workers.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        u32::try_from(self.workers.len()).unwrap_or(u32::MAX)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// The numbers of all of them.
    #[must_use]
    pub fn ids(&self) -> Vec<WorkerId> {
        self.workers.keys().copied().collect()
    }

    /// The counts of all generations together.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.generations.values().fold(Tally::default(), |sum, tally| Tally {
            starting: sum.starting + tally.starting,
            launching: sum.launching + tally.launching,
            checking: sum.checking + tally.checking,
            ready: sum.ready + tally.ready,
            leaving: sum.leaving + tally.leaving,
        })
    }

    /// The counts of one generation.
    #[must_use]
    pub fn tally_of(&self, generation: GenerationId) -> Tally {
        self.generations.get(&generation).copied().unwrap_or_default()
    }

    /// The definitions that somebody runs.
    pub fn generations(&self) -> impl Iterator<Item = GenerationId> + '_ {
        self.generations.keys().copied()
    }

    /// The slots that have a ready worker, of whatever generation.
    pub fn ready_slots(&self) -> impl Iterator<Item = SlotId> + '_ {
        self.ready.keys().copied()
    }

    /// How many ready workers a slot has, of all generations.
    #[must_use]
    pub fn ready_in(&self, slot: SlotId) -> u32 {
        self.ready.get(&slot).copied().unwrap_or(0)
    }

    /// The earliest point at which one of them wants to be woken, and why.
    #[must_use]
    pub fn deadline(&self) -> Option<(Time, Why)> {
        self.deadlines.first().map(|&(at, why, _)| (at, why))
    }

    /// Those whose deadline has come, by their numbers.
    #[must_use]
    pub fn due(&self, now: Time) -> BTreeSet<WorkerId> {
        self.deadlines.iter().take_while(|&&(at, ..)| at <= now).map(|&(.., id)| id).collect()
    }

    /// One more.
    pub fn insert(&mut self, worker: Worker) {
        self.enter(&worker);
        self.workers.insert(worker.id, worker);
    }

    /// Does something to a worker.
    pub fn change<T>(&mut self, id: WorkerId, act: impl FnOnce(&mut Worker) -> T) -> Option<T> {
        let mut worker = self.workers.remove(&id)?;
        self.leave(&worker);
        let result = act(&mut worker);
        self.insert(worker);
        Some(result)
    }

    /// One fewer: nothing of it is left.
    pub fn remove(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.remove(&id) {
            self.leave(&worker);
        }
    }

    fn enter(&mut self, worker: &Worker) {
        let tally = self.generations.entry(worker.generation).or_default();
        *tally = tally.with(worker, |count| count + 1);
        if worker.is_ready() {
            *self.ready.entry(worker.slot).or_default() += 1;
        }
        self.deadlines.extend(worker.deadline().map(|(at, why)| (at, why, worker.id)));
    }

    fn leave(&mut self, worker: &Worker) {
        let tally = self.tally_of(worker.generation).with(worker, |count| count.saturating_sub(1));
        if tally == Tally::default() {
            self.generations.remove(&worker.generation);
        } else {
            self.generations.insert(worker.generation, tally);
        }
        if worker.is_ready() {
            match self.ready_in(worker.slot).saturating_sub(1) {
                0 => self.ready.remove(&worker.slot),
                left => self.ready.insert(worker.slot, left),
            };
        }
        if let Some((at, why)) = worker.deadline() {
            self.deadlines.remove(&(at, why, worker.id));
        }
    }
}

impl Tally {
    fn with(mut self, worker: &Worker, step: impl Fn(u32) -> u32) -> Tally {
        let count = match worker.state {
            WorkerState::Starting { .. } => &mut self.starting,
            WorkerState::Ready { .. } => &mut self.ready,
            WorkerState::Withdrawing { .. }
            | WorkerState::Emptying { .. }
            | WorkerState::Draining { .. }
            | WorkerState::Orphaned { .. }
            | WorkerState::Killed { .. } => &mut self.leaving,
        };
        *count = step(*count);
        if worker.is_launching() {
            self.launching = step(self.launching);
        }
        if worker.is_checking() {
            self.checking = step(self.checking);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::{ServiceId, SocketId};
    use crate::core::policy::{
        BeforeStop, CheckPace, KeepAlive, Members, OnFailing, Policy, ReadyWhen, Signal, Socket,
        StopLadder, StopStep, Surge,
    };
    use crate::core::readiness::Evidence;
    use std::time::Duration;

    #[test]
    fn accounts_follow_what_happens_to_each_worker() {
        let wait = Duration::from_secs(1);
        let policy = Policy {
            service: ServiceId(0),
            name: "web".to_owned(),
            workers: 2,
            on_failing: OnFailing::Wait,
            sockets: vec![Socket {
                id: SocketId(0),
                name: "http".to_owned(),
                members: Members::Shared,
                steered: false,
                refusable: false,
            }],
            proxy: None,
            ready: ReadyWhen::Notify,
            ready_timeout: wait,
            check_pace: CheckPace { interval: wait, timeout: wait },
            surge: Surge::Percent(100),
            canary: None,
            probation: Duration::ZERO,
            before_stop: BeforeStop::Auto,
            keepalive: KeepAlive::default(),
            stop: StopLadder::new(StopStep { signal: Signal::Term, wait }, vec![]),
            starting_max: 1,
            launching_max: 1,
            depends_on: BTreeSet::new(),
            bind_to: BTreeSet::new(),
        };
        let (old, new) = (GenerationId(1), GenerationId(2));
        let mut roster = Roster::default();
        for (id, generation, spawned) in [(1, old, 0), (2, old, 2), (3, new, 1)] {
            let at = Time::ZERO + Duration::from_secs(spawned);
            roster.insert(Worker::spawned(at, WorkerId(id), SlotId(0), generation, &policy));
        }
        let starting = |count| Tally { starting: count, launching: count, ..Tally::default() };
        assert_eq!(roster.tally(), starting(3));
        assert_eq!(roster.tally_of(old), starting(2));
        assert_eq!(roster.deadline(), Some((Time::ZERO + wait, Why::ReadyTimeout)));
        assert_eq!(roster.due(Time::ZERO + wait * 2), BTreeSet::from([WorkerId(1), WorkerId(3)]));

        let killed = || WorkerState::Killed {
            since: Time::ZERO,
            rounds: 1,
            deadline: Time::ZERO + wait * 9,
        };
        roster.change(WorkerId(1), |worker| worker.state = killed());
        assert_eq!(roster.tally_of(old), Tally { leaving: 1, ..starting(1) });
        assert_eq!(roster.deadline(), Some((Time::ZERO + wait * 2, Why::ReadyTimeout)));
        let ready = WorkerState::Ready { since: Time::ZERO, evidence: Evidence::Said };
        for (id, count) in [(2, 1), (3, 2)] {
            roster.change(WorkerId(id), |worker| worker.state = ready.clone());
            assert_eq!(roster.ready_in(SlotId(0)), count);
        }
        assert!(roster.ready_slots().eq([SlotId(0)]));
        roster.change(WorkerId(2), |worker| worker.state = killed());
        assert_eq!(roster.ready_in(SlotId(0)), 1);
        roster.change(WorkerId(3), |worker| worker.state = killed());
        assert_eq!(roster.ready_slots().count(), 0);
        roster.remove(WorkerId(1));
        roster.remove(WorkerId(2));
        assert_eq!(roster.generations().collect::<Vec<_>>(), [new]);
        roster.remove(WorkerId(3));
        assert!(roster.is_empty() && roster.deadline().is_none());
    }
}
