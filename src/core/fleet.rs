//! The workers that a generation should have, slot by slot. Workers that drain are in no fleet.
//!
//! Which slots are empty and which wait is asked after everything that happens, so both are kept in
//! order of their own; a seat is changed through [`Fleet::take_seat`] only, which keeps them.

use std::collections::{BTreeMap, BTreeSet};

use super::ids::{GenerationId, SlotId, WorkerId};
use super::time::{Time, Why};

/// One generation's slots.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// The definition that its workers run.
    pub generation: GenerationId,
    slots: BTreeMap<SlotId, Slot>,
    empty: BTreeSet<SlotId>,
    waiting: BTreeSet<(Time, SlotId)>,
    /// How many slots another generation has.
    given: u32,
}

/// One slot of a generation.
#[derive(Debug, Clone, Copy)]
struct Slot {
    seat: Seat,
    /// Exits before ready since the last worker here was ready.
    failures: u32,
    /// Whether its last worker ended unasked, and no other has come since.
    has_lost: bool,
}

/// Who fills a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seat {
    /// Nobody, and somebody should.
    Empty,
    /// This worker, starting or ready.
    Held(WorkerId),
    /// Nobody until then.
    Waiting {
        /// When the next worker may start.
        until: Time,
    },
    /// A worker of another generation: nobody of this one is missed.
    Given,
}

impl Fleet {
    /// A fleet without slots; [`Fleet::resize`] gives it some.
    #[must_use]
    pub fn new(generation: GenerationId) -> Fleet {
        let (slots, empty, waiting) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Fleet { generation, slots, empty, waiting, given: 0 }
    }

    /// Who fills this slot.
    #[must_use]
    pub fn seat(&self, slot: SlotId) -> Option<Seat> {
        self.slots.get(&slot).map(|slot| slot.seat)
    }

    /// Whether this worker fills this slot.
    #[must_use]
    pub fn holds(&self, slot: SlotId, worker: WorkerId) -> bool {
        self.seat(slot) == Some(Seat::Held(worker))
    }

    /// All workers that fill a slot.
    pub fn workers(&self) -> impl Iterator<Item = WorkerId> + '_ {
        self.slots.values().filter_map(|slot| match slot.seat {
            Seat::Held(worker) => Some(worker),
            Seat::Empty | Seat::Waiting { .. } | Seat::Given => None,
        })
    }

    /// Who fills this slot, if somebody does.
    #[must_use]
    pub fn worker(&self, slot: SlotId) -> Option<WorkerId> {
        match self.seat(slot)? {
            Seat::Held(worker) => Some(worker),
            Seat::Empty | Seat::Waiting { .. } | Seat::Given => None,
        }
    }

    /// The slot is another generation's from here on. Gives the worker that filled it.
    pub fn hand_over(&mut self, slot: SlotId) -> Option<WorkerId> {
        let worker = self.worker(slot);
        if let Some(slot) = self.slots.get_mut(&slot) {
            slot.has_lost = false;
        }
        self.take_seat(slot, Seat::Given);
        worker
    }

    /// The slot is this generation's again, and empty, if it was another's.
    pub fn take_back(&mut self, slot: SlotId) {
        if self.seat(slot) == Some(Seat::Given) {
            self.take_seat(slot, Seat::Empty);
        }
    }

    /// Whether a worker is to come in this slot, now or later.
    #[must_use]
    pub fn is_missed(&self, slot: SlotId) -> bool {
        match self.seat(slot) {
            Some(Seat::Empty | Seat::Waiting { .. }) => true,
            Some(Seat::Held(_) | Seat::Given) | None => false,
        }
    }

    /// The slots that another generation has.
    pub fn given(&self) -> impl Iterator<Item = SlotId> + '_ {
        self.slots.iter().filter(|(_, slot)| slot.seat == Seat::Given).map(|(&id, _)| id)
    }

    /// How many workers it has or is to have.
    #[must_use]
    pub fn seats(&self) -> u32 {
        self.size().saturating_sub(self.given)
    }

    /// How many slots nobody fills that wait for nothing.
    #[must_use]
    pub fn vacancies(&self) -> u32 {
        u32::try_from(self.empty.len()).unwrap_or(u32::MAX)
    }

    /// The first so many of these.
    pub fn first_vacancies(&self, most: u32) -> impl Iterator<Item = SlotId> + '_ {
        self.empty.iter().take(usize::try_from(most).unwrap_or(usize::MAX)).copied()
    }

    /// The slots that should get a worker at `now`, at most `most` of them. Others whose time to
    /// wait is over are empty from here on.
    pub fn take_due(&mut self, now: Time, most: u32) -> Vec<SlotId> {
        while let Some(&(until, slot)) = self.waiting.first()
            && until <= now
        {
            self.take_seat(slot, Seat::Empty);
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        self.empty.iter().take(most).copied().collect()
    }

    /// The first slot that nobody fills and that waits for nothing.
    #[must_use]
    pub fn vacancy(&self) -> Option<SlotId> {
        self.empty.first().copied()
    }

    /// When the next waiting slot is due.
    #[must_use]
    pub fn deadline(&self) -> Option<(Time, Why)> {
        self.waiting.first().map(|&(until, _)| (until, Why::Restart))
    }

    /// The slots that wait, and until when.
    pub fn waiting(&self) -> impl Iterator<Item = (SlotId, Time)> + '_ {
        self.slots.iter().filter_map(|(&id, slot)| match slot.seat {
            Seat::Waiting { until } => Some((id, until)),
            Seat::Empty | Seat::Held(_) | Seat::Given => None,
        })
    }

    /// Whether the next worker of the slot comes in the place of one that ended unasked.
    #[must_use]
    pub fn has_lost(&self, slot: SlotId) -> bool {
        self.slots.get(&slot).is_some_and(|slot| slot.has_lost)
    }

    /// A worker fills the slot.
    pub fn hold(&mut self, slot: SlotId, worker: WorkerId) {
        if let Some(slot) = self.slots.get_mut(&slot) {
            slot.has_lost = false;
        }
        self.take_seat(slot, Seat::Held(worker));
    }

    /// The worker of the slot has ended.
    pub fn vacate(&mut self, slot: SlotId) {
        self.take_seat(slot, Seat::Empty);
    }

    /// The worker of the slot is ready: what failed here before does not count any more.
    pub fn ready(&mut self, slot: SlotId) {
        if let Some(slot) = self.slots.get_mut(&slot) {
            slot.failures = 0;
        }
    }

    /// The worker of the slot ended before it was ready. Returns how many have in a row.
    pub fn failed(&mut self, slot: SlotId) -> u32 {
        let Some(slot) = self.slots.get_mut(&slot) else {
            return 0;
        };
        slot.failures = slot.failures.saturating_add(1);
        slot.failures
    }

    /// Its worker has ended unasked, and the slot stays empty until then.
    pub fn wait(&mut self, slot: SlotId, until: Time) {
        if let Some(slot) = self.slots.get_mut(&slot) {
            slot.has_lost = true;
        }
        self.take_seat(slot, Seat::Waiting { until });
    }

    /// How many slots it has.
    #[must_use]
    pub fn size(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// Has the slots below `wanted` less those that are `shut`, and no others; gives the workers that
    /// filled others. A slot that it has is not shut.
    pub fn resize(&mut self, wanted: u32, shut: &BTreeSet<SlotId>) -> Vec<WorkerId> {
        let mut cut = Vec::new();
        let beyond = self.slots.range(SlotId(wanted)..).map(|(&slot, _)| slot);
        for slot in beyond.collect::<Vec<_>>() {
            if let Some(Seat::Held(worker)) = self.seat(slot) {
                cut.push(worker);
            }
            self.take_seat(slot, Seat::Empty);
            self.empty.remove(&slot);
            self.slots.remove(&slot);
        }
        // It is asked after everything that happens, and seldom lacks any.
        let lacks = self.slots.len() + shut.len() < usize::try_from(wanted).unwrap_or(usize::MAX);
        for slot in (0..wanted).map(SlotId).filter(|_| lacks) {
            if !self.slots.contains_key(&slot) && !shut.contains(&slot) {
                self.slots.insert(slot, Slot { seat: Seat::Empty, failures: 0, has_lost: false });
                self.empty.insert(slot);
            }
        }
        cut
    }

    /// Changes who fills a slot. One that is not wanted any more stays so.
    fn take_seat(&mut self, id: SlotId, seat: Seat) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        match std::mem::replace(&mut slot.seat, seat) {
            Seat::Empty => {
                self.empty.remove(&id);
            }
            Seat::Waiting { until } => {
                self.waiting.remove(&(until, id));
            }
            Seat::Given => self.given = self.given.saturating_sub(1),
            Seat::Held(_) => {}
        }
        match seat {
            Seat::Empty => {
                self.empty.insert(id);
            }
            Seat::Waiting { until } => {
                self.waiting.insert((until, id));
            }
            Seat::Given => self.given += 1,
            Seat::Held(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_slot_that_is_shut_comes_when_it_opens() {
        let mut fleet = Fleet::new(GenerationId(1));
        let open = BTreeSet::new();
        assert_eq!(fleet.resize(4, &BTreeSet::from([SlotId(1), SlotId(3)])), []);
        assert_eq!(fleet.take_due(Time::ZERO, 9), [SlotId(0), SlotId(2)]);
        fleet.hold(SlotId(2), WorkerId(7));
        assert_eq!(fleet.resize(4, &BTreeSet::from([SlotId(3)])), []);
        assert_eq!(fleet.take_due(Time::ZERO, 9), [SlotId(0), SlotId(1)]);
        assert_eq!((fleet.resize(2, &open), fleet.size()), (vec![WorkerId(7)], 2));
        assert_eq!((fleet.resize(3, &open), fleet.size()), (vec![], 3));
    }

    #[test]
    fn what_is_empty_and_what_waits_follows_each_seat() {
        let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
        let mut fleet = Fleet::new(GenerationId(1));
        assert_eq!(fleet.resize(4, &BTreeSet::new()), []);
        assert_eq!(fleet.take_due(at(0), 2), [SlotId(0), SlotId(1)]);
        for slot in 0..4 {
            fleet.hold(SlotId(slot), WorkerId(10 + u64::from(slot)));
        }
        assert_eq!((fleet.vacancy(), fleet.deadline()), (None, None));

        fleet.wait(SlotId(2), at(9));
        fleet.wait(SlotId(3), at(5));
        assert_eq!(fleet.deadline(), Some((at(5), Why::Restart)));
        assert_eq!(fleet.take_due(at(5), 9), [SlotId(3)]);
        fleet.vacate(SlotId(1));
        assert_eq!(fleet.vacancy(), Some(SlotId(1)));

        assert_eq!(fleet.resize(1, &BTreeSet::new()), []);
        assert_eq!((fleet.vacancy(), fleet.deadline()), (None, None));
        fleet.wait(SlotId(2), at(9));
        assert_eq!(fleet.deadline(), None, "a slot that is not wanted waits for nothing");
        assert_eq!(fleet.resize(0, &BTreeSet::new()), [WorkerId(10)]);
        assert_eq!(fleet.resize(2, &BTreeSet::new()), []);
        assert_eq!(fleet.take_due(at(9), 9), [SlotId(0), SlotId(1)]);
    }

    #[test]
    fn a_slot_that_another_generation_has_is_missed_by_nobody_until_it_is_taken_back() {
        let mut fleet = Fleet::new(GenerationId(1));
        assert_eq!(fleet.resize(3, &BTreeSet::new()), []);
        fleet.hold(SlotId(0), WorkerId(7));
        assert_eq!(fleet.hand_over(SlotId(0)), Some(WorkerId(7)));
        assert_eq!(fleet.hand_over(SlotId(1)), None);
        assert_eq!((fleet.take_due(Time::ZERO, 9), fleet.seats()), (vec![SlotId(2)], 1));
        assert_eq!(fleet.resize(1, &BTreeSet::new()), []);
        assert_eq!((fleet.seats(), fleet.size()), (0, 1));
        fleet.take_back(SlotId(0));
        assert_eq!((fleet.seats(), fleet.vacancy()), (1, Some(SlotId(0))));
    }
}
