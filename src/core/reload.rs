//! A reload: the change from one generation to the next. Its first worker alone, when that is ready
//! the others, and when all are ready the old ones go. Anything else aborts it, and the world is as
//! it was. This module decides what a reload does next; the service does it.

use super::fleet::{Fleet, Seat};
use super::ids::{GenerationId, RequestId, SlotId, WorkerId};
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
    /// How far it is.
    pub stage: ReloadStage,
}

/// How far a reload is.
#[derive(Debug, Clone)]
pub enum ReloadStage {
    /// Its definition is being read. Nothing has happened yet.
    Preparing,
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
/// more than `starting_max` starting at a time and the first of them alone.
pub fn next_step(
    fleet: &Fleet,
    wanted: u32,
    starting_max: u32,
    is_ready: impl Fn(WorkerId) -> bool,
) -> Step {
    let mut ready = 0;
    let mut starting = 0;
    let mut empty = None;
    for slot in (0..wanted).map(SlotId) {
        match fleet.seat(slot) {
            Some(Seat::Held(worker)) if is_ready(worker) => ready += 1,
            Some(Seat::Held(_)) => starting += 1,
            Some(Seat::Empty | Seat::Waiting { .. }) | None => {
                empty = empty.or(Some(slot));
            }
        }
    }
    let at_a_time = if ready == 0 { 1 } else { starting_max };
    match empty {
        Some(slot) if starting < at_a_time => Step::Start(slot),
        Some(_) => Step::Wait,
        None if ready == wanted => Step::Commit,
        None => Step::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(workers: &[Option<u64>]) -> Fleet {
        let mut fleet = Fleet::new(GenerationId(2));
        for (slot, worker) in (0..).map(SlotId).zip(workers) {
            if let Some(worker) = worker {
                fleet.hold(slot, WorkerId(*worker));
            }
        }
        fleet
    }

    #[test]
    fn the_first_starts_alone_then_no_more_than_allowed_and_commit_needs_all() {
        let step = |workers: &[Option<u64>], ready: &[u64]| {
            let is_ready = |worker: WorkerId| ready.contains(&worker.0);
            next_step(&fleet(workers), 4, 2, is_ready)
        };
        assert_eq!(step(&[None, None, None, None], &[]), Step::Start(SlotId(0)));
        assert_eq!(step(&[Some(1), None, None, None], &[]), Step::Wait);
        assert_eq!(step(&[Some(1), None, None, None], &[1]), Step::Start(SlotId(1)));
        assert_eq!(step(&[Some(1), Some(2), None, None], &[1]), Step::Start(SlotId(2)));
        assert_eq!(step(&[Some(1), Some(2), Some(3), None], &[1]), Step::Wait);
        assert_eq!(step(&[Some(1), Some(2), Some(3), None], &[1, 3]), Step::Start(SlotId(3)));
        assert_eq!(step(&[Some(1), Some(2), Some(3), Some(4)], &[1, 2, 3]), Step::Wait);
        assert_eq!(step(&[Some(1), Some(2), Some(3), Some(4)], &[1, 2, 3, 4]), Step::Commit);
    }
}
