//! Who shut a shared socket down? The kernel does not tell, so the holders are looked at a moment
//! later: whoever did it usually leaves, or lets the socket go, or waits on it no more.

use std::collections::BTreeMap;
use std::time::Duration;

use super::event::{Grip, Repair};
use super::ids::{MemberId, WorkerId};
use super::notice::WorkerName;
use super::time::Time;

/// How long after a shutdown its holders are looked at: those that did not do it were woken by it,
/// and are back in accept(2) or their event loop by then.
pub const LOOK_AFTER: Duration = Duration::from_millis(50);

/// A shutdown of which it is not known yet who did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspicion {
    /// When the holders are looked at, until that is under way.
    pub look_at: Option<Time>,
    /// The socket as they were given it.
    pub given: MemberId,
    /// What brings it back.
    pub repair: Repair,
    /// How often it happened until then.
    pub times: u32,
    holders: BTreeMap<WorkerId, Holder>,
}

/// Somebody who may have done it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Who.
    pub name: WorkerName,
    /// Whether it was on its way out.
    pub leaving: bool,
}

impl Suspicion {
    /// It happened to this socket.
    #[must_use]
    pub fn new(now: Time, given: MemberId, repair: Repair) -> Suspicion {
        let look_at = Some(now + LOOK_AFTER);
        Suspicion { look_at, given, repair, times: 0, holders: BTreeMap::new() }
    }

    /// It happened once more, and these hold the socket.
    pub fn happened(&mut self, holders: impl Iterator<Item = Holder>) {
        self.times = self.times.saturating_add(1);
        self.holders.extend(holders.map(|holder| (holder.name.worker, holder)));
    }

    /// Who may have done it.
    pub fn workers(&self) -> impl Iterator<Item = WorkerId> + '_ {
        self.holders.keys().copied()
    }

    /// Who most likely did it, now that they were looked at; those that were not found have exited.
    #[must_use]
    pub fn conclude(self, grips: &[(WorkerId, Grip)]) -> Vec<WorkerName> {
        let grips: BTreeMap<WorkerId, Grip> = grips.iter().copied().collect();
        let guilt = |(worker, holder): (&WorkerId, &Holder)| match grips.get(worker) {
            None | Some(Grip::LetGo) => Guilt::Likely,
            Some(_) if holder.leaving => Guilt::Likely,
            Some(Grip::Idle) => Guilt::Possible,
            Some(Grip::Waits | Grip::Unreadable) => Guilt::Unlikely,
        };
        let Some(worst) = self.holders.iter().map(guilt).max() else {
            return Vec::new();
        };
        let suspects = self.holders.iter().filter(|&holder| guilt(holder) == worst);
        suspects.map(|(_, holder)| holder.name.clone()).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Guilt {
    Unlikely,
    Possible,
    /// It leaves, has left, or wants nothing more from the socket.
    Likely,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::SlotId;

    fn suspects(leaving: &[u64], grips: &[(u64, Grip)]) -> Vec<u64> {
        let mut suspicion = Suspicion::new(Time::ZERO, MemberId(1), Repair::Listen);
        let holder = |id| {
            let worker = WorkerId(id);
            let name = WorkerName { worker, service: "web".to_owned(), slot: SlotId(0) };
            Holder { name, leaving: leaving.contains(&id) }
        };
        suspicion.happened((1..=3).map(holder));
        let grips: Vec<_> = grips.iter().map(|&(id, grip)| (WorkerId(id), grip)).collect();
        suspicion.conclude(&grips).iter().map(|name| name.worker.0).collect()
    }

    #[test]
    fn the_one_that_let_it_go_or_left_did_it() {
        let waits = [(1, Grip::Waits), (2, Grip::Waits)];
        assert_eq!(suspects(&[], &waits), [3]);
        assert_eq!(suspects(&[], &[waits[0], waits[1], (3, Grip::LetGo)]), [3]);
        assert_eq!(suspects(&[2], &[waits[0], waits[1], (3, Grip::Waits)]), [2]);
    }

    #[test]
    fn one_that_does_not_wait_is_likelier_than_those_that_do() {
        let grips = [(1, Grip::Waits), (2, Grip::Idle), (3, Grip::Unreadable)];
        assert_eq!(suspects(&[], &grips), [2]);
    }

    #[test]
    fn without_evidence_it_was_one_of_them_all() {
        let grips = [1, 2, 3].map(|id| (id, Grip::Waits));
        assert_eq!(suspects(&[], &grips), [1, 2, 3]);
        assert_eq!(suspects(&[1, 3], &grips), [1, 3]);
    }
}
