//! A reload: the change from one generation to the next. Its first worker alone, when that is ready
//! the others, and when all are ready the old ones go. Anything else aborts it, and the world is as
//! it was. This module decides what a reload does next; the service does it.
//!
//! Where not all of them may run beside the old ones, slots are changed over in batches: a batch of
//! new workers gets ready, serves, and the old ones of its slots go before the next begins. An abort
//! puts the slots back that were changed over, in the same way.

use std::collections::{BTreeMap, BTreeSet};

use super::action::NewMember;
use super::fleet::Fleet;
use super::ids::{GenerationId, RequestId, SlotId, WorkerId};
use super::request::End;
use super::roster::Tally;
use super::time::Time;

/// A reload under way.
#[derive(Debug, Clone)]
pub struct Reload {
    /// The definition that is to serve.
    pub generation: GenerationId,
    /// When it began.
    pub since: Time,
    /// Who waits for its outcome.
    pub requests: Vec<RequestId>,
    /// Why it is done.
    pub cause: ReloadCause,
    /// Until when its workers have a part of new connections, once they have.
    pub canary: Option<Time>,
    /// How many workers the definition wants, where it wants another number than the one before;
    /// what an operator asks for later goes before it.
    pub workers: Option<u32>,
    /// Whether its workers wait for another service to come up.
    pub held: bool,
    /// How many of its workers run beside the old ones.
    pub pace: Pace,
    /// How far it is.
    pub stage: ReloadStage,
}

impl Reload {
    /// Whether it is off, and a worker of the old generation did not get ready: nobody waits for it.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        matches!(&self.stage, ReloadStage::PuttingBack(back) if back.stuck)
    }

    /// Whether it is off.
    #[must_use]
    pub fn is_off(&self) -> bool {
        matches!(self.stage, ReloadStage::PuttingBack(_))
    }

    /// How many of its workers serve in the place of old ones, of how many: where it goes in batches.
    #[must_use]
    pub fn changed_over(&self) -> Option<(u32, u32)> {
        let count = |count| u32::try_from(count).unwrap_or(u32::MAX);
        match (&self.pace, &self.stage) {
            (Pace::Batches(Batches { over, .. }), ReloadStage::Rolling(fleet)) => {
                Some((count(over.len()), fleet.size()))
            }
            (Pace::Batches(_), ReloadStage::PuttingBack(_) | ReloadStage::Preparing(_))
            | (Pace::Unknown | Pace::AtOnce, _) => None,
        }
    }
}

/// Why all workers are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadCause {
    /// An operator asked for it: the definition is read again.
    Asked,
    /// A socket was bound anew: the same definition gets it.
    SocketRenewed,
    /// An operator wants the definition back that served before, even if the one that serves is on
    /// probation.
    RollBack(GenerationId),
    /// A worker of the definition that serves ended while that was on probation: the one before is to
    /// serve again.
    Failed(GenerationId),
}

impl ReloadCause {
    /// Whether it is an operator's will that another definition serves.
    #[must_use]
    pub fn is_wanted(self) -> bool {
        match self {
            ReloadCause::Asked | ReloadCause::RollBack(_) | ReloadCause::Failed(_) => true,
            ReloadCause::SocketRenewed => false,
        }
    }
}

/// A generation that serves all new connections, and has to prove itself.
#[derive(Debug, Clone)]
pub struct Probation {
    /// Until when.
    pub until: Time,
    /// Who waits for the outcome.
    pub requests: Vec<RequestId>,
}

/// Why a generation that was on probation is taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For people.
    pub reason: String,
    /// The worker that ended, unless an operator wants what served before.
    pub worker: Option<WorkerId>,
    /// Who had asked for it, and waits for how it ends.
    pub requests: Vec<RequestId>,
}

/// How far a reload is.
#[derive(Debug, Clone)]
pub enum ReloadStage {
    /// Its definition is being read, and these are being bound. Nothing has happened yet.
    Preparing(Vec<NewMember>),
    /// Its workers are being started beside those that serve.
    Rolling(Fleet),
    /// It is off, and slots in which its workers served get workers of the old generation again.
    PuttingBack(PutBack),
}

/// How many workers of a reload run beside the old ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pace {
    /// That is being looked for, or its definition is.
    Unknown,
    /// All of them: the old ones go when all are ready.
    AtOnce,
    /// Fewer: slots are changed over one batch after the other.
    Batches(Batches),
}

/// Slots that are changed over one batch after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batches {
    /// How many workers may be there beyond those that are wanted, draining ones with them. None: the
    /// old worker of a slot goes before the new one comes.
    pub surge: u32,
    /// The slots that are being changed over.
    pub batch: BTreeSet<SlotId>,
    /// Those in which a new worker serves, and no old one.
    pub over: BTreeSet<SlotId>,
}

/// What is left of a reload that is off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutBack {
    /// As in [`Batches`].
    pub surge: u32,
    /// The slots without a ready worker of the old generation.
    pub left: BTreeSet<SlotId>,
    /// New workers that serve in some of them until they have one.
    pub serving: BTreeMap<SlotId, WorkerId>,
    /// How whoever asked for the reload is answered when nothing is left.
    pub end: End,
    /// Who has asked that it be taken back.
    pub backs: Vec<RequestId>,
    /// Whether a worker of the old generation did not get ready: that goes on being tried, and another
    /// reload may begin.
    pub stuck: bool,
}

impl Pace {
    /// The one of a reload of so many workers of which so many may run beside the old ones.
    #[must_use]
    pub fn of(surge: u32, workers: u32) -> Pace {
        if surge >= workers {
            return Pace::AtOnce;
        }
        Pace::Batches(Batches { surge, batch: BTreeSet::new(), over: BTreeSet::new() })
    }
}

impl Batches {
    /// How many slots the next batch has at most: the first worker is alone.
    #[must_use]
    pub fn size(&self) -> u32 {
        if self.over.is_empty() { 1 } else { self.surge.max(1) }
    }
}

/// What a rolling reload does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Start a worker in this slot.
    Start(SlotId),
    /// Wait for one of those that start.
    Wait,
    /// All are ready: the old ones can go.
    Commit,
}

/// Decides the next step for a fleet that is to have `wanted` workers, all of them ready, with no
/// more than `starting_max` starting at a time and the first of them alone. `vacancy` is a slot
/// without a worker, if there is one, and `tally` says where the fleet's workers stand.
#[must_use]
pub fn next_step(vacancy: Option<SlotId>, tally: Tally, wanted: u32, starting_max: u32) -> Step {
    let at_a_time = if tally.ready == 0 { 1 } else { starting_max };
    match vacancy {
        Some(slot) if tally.starting < at_a_time => Step::Start(slot),
        Some(_) => Step::Wait,
        None if tally.ready == wanted => Step::Commit,
        None => Step::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::Surge;

    #[test]
    fn the_first_starts_alone_then_no_more_than_allowed_and_commit_needs_all() {
        let step = |vacancy: Option<u32>, starting, ready| {
            let tally = Tally { starting, ready, ..Tally::default() };
            next_step(vacancy.map(SlotId), tally, 4, 2)
        };
        assert_eq!(step(Some(0), 0, 0), Step::Start(SlotId(0)));
        assert_eq!(step(Some(1), 1, 0), Step::Wait);
        assert_eq!(step(Some(1), 0, 1), Step::Start(SlotId(1)));
        assert_eq!(step(Some(2), 1, 1), Step::Start(SlotId(2)));
        assert_eq!(step(Some(3), 2, 1), Step::Wait);
        assert_eq!(step(Some(3), 1, 2), Step::Start(SlotId(3)));
        assert_eq!(step(None, 1, 3), Step::Wait);
        assert_eq!(step(None, 0, 4), Step::Commit);
    }

    #[test]
    fn a_part_of_the_workers_is_rounded_up_and_all_of_them_need_no_batches() {
        let of = |surge: Surge, wanted| surge.of(wanted);
        assert_eq!(of(Surge::Percent(50), 5), Some(3));
        assert_eq!(of(Surge::Percent(1), 4), Some(1));
        assert_eq!((of(Surge::Percent(0), 4), of(Surge::Percent(100), 4)), (Some(0), Some(4)));
        assert_eq!((of(Surge::Count(2), 1), of(Surge::Auto, 4)), (Some(2), None));
        assert_eq!((Pace::of(4, 4), Pace::of(5, 4)), (Pace::AtOnce, Pace::AtOnce));
        let Pace::Batches(mut batches) = Pace::of(3, 4) else { panic!("it goes in batches") };
        assert_eq!(batches.size(), 1, "the first is alone");
        batches.over.insert(SlotId(0));
        assert_eq!(batches.size(), 3);
    }
}
