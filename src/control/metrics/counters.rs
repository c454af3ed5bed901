//! What is counted from the start on, in the loop: pure, and small enough to be copied for a scrape.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::control::wire::Messages;
use crate::core::event::Exit;
use crate::core::notice::{Notice, WorkerName};
use crate::core::worker::Cause;

/// From a program that is there at once to one that warms up for minutes.
const STARTS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// A reload is some starts after each other.
const RELOADS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];

/// From nothing to do to the default drain timeout and beyond.
const DRAINS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// A turn takes far less than a millisecond, unless it starts workers; the last bounds are for what
/// should not be.
const TURNS: &[f64] = &[0.0001, 0.00025, 0.001, 0.0025, 0.01, 0.025, 0.1, 0.25, 1.0];

/// Everything that is counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Counters {
    pub(super) services: BTreeMap<String, Tally>,
    /// What was asked for, by what came of it.
    pub(super) requests: BTreeMap<Outcome, u64>,
    pub(super) turns: Histogram,
    pub(super) longest_turn: Duration,
    pub(super) lines_dropped: u64,
    pub(super) events_dropped: u64,
}

/// What is counted for a service.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tally {
    pub(super) starts: u64,
    pub(super) start_failures: BTreeMap<StartFailure, u64>,
    pub(super) exits: BTreeMap<Ended, u64>,
    pub(super) kills: u64,
    pub(super) committed: u64,
    pub(super) aborted: u64,
    pub(super) start_times: Histogram,
    pub(super) drain_times: Histogram,
    pub(super) reload_times: Histogram,
    pub(super) messages: Messages,
}

/// Why a worker never was ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum StartFailure {
    /// Its program could not be run.
    Spawn,
    /// It exited before.
    Exit,
    /// It was not ready in its time.
    Late,
    /// It said that it was stopping before.
    Leaving,
    /// Its channel could not be used any more.
    Channel,
}

impl StartFailure {
    pub(super) const ALL: [(StartFailure, &'static str); 5] = [
        (StartFailure::Spawn, "spawn"),
        (StartFailure::Exit, "exit"),
        (StartFailure::Late, "late"),
        (StartFailure::Leaving, "leaving"),
        (StartFailure::Channel, "channel"),
    ];
}

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ended {
    /// Its code was 0.
    Success,
    /// Its code was another.
    Failure,
    /// A signal ended it.
    Signal,
    /// That is known to its parent only.
    Unknown,
}

impl Ended {
    pub(super) const ALL: [(Ended, &'static str); 4] = [
        (Ended::Success, "success"),
        (Ended::Failure, "failure"),
        (Ended::Signal, "signal"),
        (Ended::Unknown, "unknown"),
    ];

    fn of(how: Exit) -> Ended {
        match how {
            Exit::Code(0) => Ended::Success,
            Exit::Code(_) => Ended::Failure,
            Exit::Signal { .. } => Ended::Signal,
            Exit::Unknown => Ended::Unknown,
        }
    }
}

/// What came of a request to the control socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It was done.
    Done,
    /// A reload was aborted.
    Aborted,
    /// It was not begun.
    Refused,
}

impl Outcome {
    pub(super) const ALL: [(Outcome, &'static str); 3] =
        [(Outcome::Done, "done"), (Outcome::Aborted, "aborted"), (Outcome::Refused, "refused")];
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            services: BTreeMap::new(),
            requests: BTreeMap::new(),
            turns: Histogram::new(TURNS),
            longest_turn: Duration::ZERO,
            lines_dropped: 0,
            events_dropped: 0,
        }
    }
}

impl Counters {
    /// Counts what a notice tells.
    pub fn note(&mut self, notice: &Notice) {
        match notice {
            Notice::Started { worker, .. } => self.of(worker).starts += 1,
            Notice::Ready { worker, after, .. } => self.of(worker).start_times.observe(*after),
            Notice::Ended { worker, cause, was_ready, .. } => {
                self.of(worker).note_end(cause, *was_ready);
            }
            Notice::Drained { worker, how, after, .. } => {
                let tally = self.of(worker);
                *tally.exits.entry(Ended::of(*how)).or_default() += 1;
                tally.drain_times.observe(*after);
            }
            Notice::Killing { worker, .. } => self.of(worker).kills += 1,
            Notice::ReloadCommitted { service, after, .. } => {
                let tally = self.service(service);
                tally.committed += 1;
                tally.reload_times.observe(*after);
            }
            Notice::ReloadAborted { service, .. } => self.service(service).aborted += 1,
            Notice::MainChanged { .. }
            | Notice::WorkerStopping { .. }
            | Notice::Farewell { .. }
            | Notice::NextSignal { .. }
            | Notice::LeftBehind { .. }
            | Notice::Unkillable { .. }
            | Notice::Wrapper { .. }
            | Notice::Configuration(_)
            | Notice::Serving { .. }
            | Notice::Failing { .. }
            | Notice::Recovered { .. }
            | Notice::Signalled { .. }
            | Notice::Messages { .. }
            | Notice::Life { .. }
            | Notice::Proving { .. }
            | Notice::Batch { .. }
            | Notice::Scaled { .. }
            | Notice::NotScaled { .. }
            | Notice::ReloadQueued { .. }
            | Notice::ReloadBegins { .. }
            | Notice::Socket { .. }
            | Notice::Slot { .. }
            | Notice::Upstreams { .. }
            | Notice::Withdrawing { .. }
            | Notice::Emptying { .. }
            | Notice::StillBusy { .. }
            | Notice::Stall { .. }
            | Notice::Dispatch(_)
            | Notice::Manners { .. }
            | Notice::LameDuck { .. }
            | Notice::Stopping { .. }
            | Notice::StoppingNow { .. } => {}
        }
    }

    /// Counts a request that was answered.
    pub fn answered(&mut self, outcome: Outcome) {
        *self.requests.entry(outcome).or_default() += 1;
    }

    /// Counts a turn of the loop that took so long, without what it waited.
    pub fn turned(&mut self, took: Duration) {
        self.turns.observe(took);
        self.longest_turn = self.longest_turn.max(took);
    }

    /// The longest turn so far.
    #[must_use]
    pub fn longest_turn(&self) -> Duration {
        self.longest_turn
    }

    /// How many lines of output nobody has read in time, since the start.
    pub fn lines_dropped(&mut self, lines: u64) {
        self.lines_dropped = lines;
    }

    /// Counts events that a reader comes too late for.
    pub fn events_dropped(&mut self, events: u64) {
        self.events_dropped = self.events_dropped.saturating_add(events);
    }

    /// Adds what was counted of messages of a worker.
    pub fn messages(&mut self, service: &str, of: &Messages) {
        let all = &mut self.service(service).messages;
        for (sum, count) in [
            (&mut all.sent, of.sent),
            (&mut all.received, of.received),
            (&mut all.waiting, of.waiting),
            (&mut all.dropped, of.dropped),
            (&mut all.not_understood, of.not_understood),
            (&mut all.undeliverable, of.undeliverable),
        ] {
            *sum = sum.saturating_add(count);
        }
    }

    /// Forgets all services but these: names that configurations once had do not pile up.
    pub fn keep<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        let names: BTreeSet<&str> = names.collect();
        self.services.retain(|name, _| names.contains(name.as_str()));
    }

    fn of(&mut self, worker: &WorkerName) -> &mut Tally {
        self.service(&worker.service)
    }

    fn service(&mut self, name: &str) -> &mut Tally {
        self.services.entry(name.to_owned()).or_default()
    }
}

impl Default for Tally {
    fn default() -> Tally {
        Tally {
            starts: 0,
            start_failures: BTreeMap::new(),
            exits: BTreeMap::new(),
            kills: 0,
            committed: 0,
            aborted: 0,
            start_times: Histogram::new(STARTS),
            drain_times: Histogram::new(DRAINS),
            reload_times: Histogram::new(RELOADS),
            messages: Messages::default(),
        }
    }
}

impl Tally {
    /// A worker ended that was not asked to. One that goes on for a while is told of again when it
    /// has exited, as one that drained.
    fn note_end(&mut self, cause: &Cause, was_ready: bool) {
        let failure = match cause {
            Cause::SpawnFailed(_) => StartFailure::Spawn,
            Cause::Exited(how) => {
                *self.exits.entry(Ended::of(*how)).or_default() += 1;
                StartFailure::Exit
            }
            Cause::Late { .. } => StartFailure::Late,
            Cause::ChannelBroken(_) => StartFailure::Channel,
            Cause::Leaving => StartFailure::Leaving,
        };
        if !was_ready {
            *self.start_failures.entry(failure).or_default() += 1;
        }
    }
}

/// How often something took how long.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Histogram {
    /// The upper bounds in seconds, inclusive and rising; what is longer than all has a place beyond.
    bounds: &'static [f64],
    counts: Vec<u64>,
    sum: Duration,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Histogram {
        Histogram { bounds, counts: vec![0; bounds.len() + 1], sum: Duration::ZERO }
    }

    fn observe(&mut self, took: Duration) {
        let place = self.bounds.partition_point(|&bound| bound < took.as_secs_f64());
        if let Some(count) = self.counts.get_mut(place) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(took);
    }

    /// Each bound with how many lie between it and the one before.
    pub(super) fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        bounds.zip(self.counts.iter().copied()).collect()
    }

    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All together, in seconds.
    pub(super) fn sum(&self) -> f64 {
        self.sum.as_secs_f64()
    }
}
