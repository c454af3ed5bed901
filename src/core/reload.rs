//! A reload: the change from one generation to the next. Its first worker alone, when that is ready
//! the others, and when all are ready the old ones go. Anything else aborts it, and the world is as
//! it was. This module decides what a reload does next; the service does it.

use super::action::NewMember;
use super::fleet::Fleet;
use super::ids::{GenerationId, RequestId, SlotId, WorkerId};
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
    /// How far it is.
    pub stage: ReloadStage,
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
}
