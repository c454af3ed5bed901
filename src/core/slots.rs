//! Which slots have the sockets that are theirs alone, and when one that could not be bound is tried
//! again. Ids only; the kernel sockets themselves are accounted for in [`super::sockets`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::ids::{SlotId, SocketId};
use super::policy::{Members, Socket};
use super::restart::{Random, backoff};
use super::time::Time;

/// The slots of a service, as far as each has sockets of its own.
#[derive(Debug, Clone)]
pub struct SlotSockets {
    /// Of these sockets each slot has one. Without any every slot is open.
    sockets: Vec<SocketId>,
    /// What becomes of the slots that are wanted, and of those that were and are not empty yet.
    slots: BTreeMap<SlotId, Stand>,
}

/// Where a slot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// It has its sockets.
    Bound,
    /// They are being bound, for the time after so many failures.
    UnderWay { failures: u32 },
    /// They could not be bound so many times in a row, and are tried again then.
    Waits { until: Time, failures: u32 },
}

impl SlotSockets {
    /// The slots of a generation of whose sockets each has one, and these have them.
    #[must_use]
    pub fn of_generation(sockets: Vec<SocketId>, bound: &BTreeSet<SlotId>) -> SlotSockets {
        let slots = bound.iter().map(|&slot| (slot, Stand::Bound)).collect();
        SlotSockets { sockets, slots }
    }

    /// The slots of a service that begins with these sockets, as far as each has an address of its
    /// own.
    #[must_use]
    pub fn new(sockets: &[Socket]) -> SlotSockets {
        let mut slot_sockets = SlotSockets { sockets: Vec::new(), slots: BTreeMap::new() };
        for socket in sockets {
            if let Members::EachSlot { bound, .. } = &socket.members {
                slot_sockets.sockets.push(socket.id);
                let slots = (0..).map(SlotId).zip(bound).map(|(slot, _)| (slot, Stand::Bound));
                slot_sockets.slots.extend(slots);
            }
        }
        slot_sockets
    }

    /// The sockets that each slot has one of.
    #[must_use]
    pub fn sockets(&self) -> &[SocketId] {
        &self.sockets
    }

    /// Of the first `wanted` slots those that cannot have a worker yet.
    #[must_use]
    pub fn shut(&self, wanted: u32) -> BTreeSet<SlotId> {
        if self.sockets.is_empty() {
            return BTreeSet::new();
        }
        let is_shut = |slot: &SlotId| self.slots.get(slot) != Some(&Stand::Bound);
        (0..wanted).map(SlotId).filter(is_shut).collect()
    }

    /// Of the first `wanted` slots those whose sockets are to be bound; they are under way from here
    /// on. What others waited for is forgotten.
    pub fn take_due(&mut self, now: Time, wanted: u32) -> Vec<SlotId> {
        self.slots.retain(|slot, stand| match stand {
            Stand::Bound | Stand::UnderWay { .. } => true,
            Stand::Waits { .. } => slot.0 < wanted,
        });
        let mut due = Vec::new();
        for slot in self.shut(wanted) {
            let failures = match self.slots.get(&slot) {
                None => 0,
                Some(&Stand::Waits { until, failures }) if until <= now => failures,
                Some(Stand::Waits { .. } | Stand::UnderWay { .. } | Stand::Bound) => continue,
            };
            self.slots.insert(slot, Stand::UnderWay { failures });
            due.push(slot);
        }
        due
    }

    /// A slot has its sockets. Returns how many times in a row that had failed before.
    pub fn bound(&mut self, slot: SlotId) -> u32 {
        match self.slots.insert(slot, Stand::Bound) {
            Some(Stand::UnderWay { failures } | Stand::Waits { failures, .. }) => failures,
            Some(Stand::Bound) | None => 0,
        }
    }

    /// A slot's sockets could not be bound. Returns when they are tried again, and how many times in
    /// a row it has failed.
    pub fn failed(&mut self, now: Time, slot: SlotId, random: &mut Random) -> (Duration, u32) {
        let failures = match self.slots.get(&slot) {
            Some(Stand::UnderWay { failures } | Stand::Waits { failures, .. }) => *failures,
            Some(Stand::Bound) | None => 0,
        };
        let failures = failures.saturating_add(1);
        let delay = backoff(failures, random);
        self.slots.insert(slot, Stand::Waits { until: now + delay, failures });
        (delay, failures)
    }

    /// The slots beyond the first `wanted` that have sockets.
    #[must_use]
    pub fn surplus(&self, wanted: u32) -> Vec<SlotId> {
        let beyond = self.slots.range(SlotId(wanted)..);
        beyond.filter(|&(_, &stand)| stand == Stand::Bound).map(|(&slot, _)| slot).collect()
    }

    /// Whether an answer is on its way.
    #[must_use]
    pub fn is_binding(&self) -> bool {
        self.slots.values().any(|stand| match stand {
            Stand::UnderWay { .. } => true,
            Stand::Bound | Stand::Waits { .. } => false,
        })
    }

    /// The service stops: no slot has sockets. Answers that are on their way are waited for.
    pub fn close_all(&mut self) {
        self.slots.retain(|_, stand| match stand {
            Stand::UnderWay { .. } => true,
            Stand::Bound | Stand::Waits { .. } => false,
        });
    }

    /// A slot has no sockets, and none are to be bound for it.
    pub fn closed(&mut self, slot: SlotId) {
        self.slots.remove(&slot);
    }

    /// The slots that wait for their sockets to be tried again, and until when.
    pub fn waiting(&self) -> impl Iterator<Item = (SlotId, Time)> + '_ {
        self.slots.iter().filter_map(|(&slot, stand)| match stand {
            Stand::Waits { until, .. } => Some((slot, *until)),
            Stand::Bound | Stand::UnderWay { .. } => None,
        })
    }

    /// When the next of them is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.waiting().map(|(_, until)| until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::MemberId;
    use crate::core::policy::BoundMember;

    fn at(millis: u64) -> Time {
        Time::after_origin(Duration::from_millis(millis))
    }

    fn slots(bound: u32) -> SlotSockets {
        let member = |slot| BoundMember { member: MemberId(slot), name: format!("port {slot}") };
        let members = Members::EachSlot { bound: (0..bound).map(member).collect(), slots_max: 9 };
        let name = "8001+{slot}".to_owned();
        SlotSockets::new(&[Socket {
            id: SocketId(0),
            name,
            members,
            steered: true,
            refusable: false,
        }])
    }

    #[test]
    fn without_sockets_of_their_own_all_slots_are_open() {
        let mut slots = SlotSockets::new(&[]);
        assert!(slots.shut(4096).is_empty());
        assert!(slots.take_due(at(0), 4096).is_empty() && slots.surplus(0).is_empty());
    }

    #[test]
    fn slots_that_are_wanted_later_are_bound_once_each() {
        let mut slots = slots(2);
        assert!(slots.take_due(at(0), 2).is_empty());
        assert_eq!(slots.take_due(at(0), 4), [SlotId(2), SlotId(3)]);
        assert!(slots.take_due(at(0), 4).is_empty(), "they are under way");
        assert_eq!(slots.bound(SlotId(3)), 0);
        assert_eq!(slots.shut(4), BTreeSet::from([SlotId(2)]));
        assert_eq!(slots.surplus(1), [SlotId(1), SlotId(3)]);
        slots.closed(SlotId(1));
        assert_eq!(slots.take_due(at(0), 2), [SlotId(1)]);
    }

    #[test]
    fn what_cannot_be_bound_is_tried_again_ever_more_slowly_and_alone() {
        let mut slots = slots(1);
        let mut random = Random::seeded(1);
        assert_eq!(slots.take_due(at(0), 2), [SlotId(1)]);
        let (first, failures) = slots.failed(at(0), SlotId(1), &mut random);
        assert_eq!((failures, slots.deadline()), (1, Some(at(0) + first)));
        assert!(slots.take_due(at(0), 3) == [SlotId(2)], "another does not wait for it");
        assert_eq!(slots.take_due(at(0) + first, 3), [SlotId(1)]);
        let (second, failures) = slots.failed(at(0), SlotId(1), &mut random);
        assert!(second > first && failures == 2);
        assert!(slots.take_due(at(0), 1).is_empty() && slots.deadline().is_none(), "not wanted");
        assert_eq!(slots.take_due(at(0), 2), [SlotId(1)], "wanted anew, it is tried at once");
        assert_eq!(slots.bound(SlotId(1)), 0);
    }
}
