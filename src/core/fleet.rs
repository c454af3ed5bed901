//! The workers that a generation should have, slot by slot. Workers that drain are in no fleet.

use std::collections::BTreeMap;

use super::ids::{GenerationId, SlotId, WorkerId};
use super::time::{Time, Why};

/// One generation's slots.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// The definition that its workers run.
    pub generation: GenerationId,
    slots: BTreeMap<SlotId, Slot>,
}

/// One slot of a generation.
#[derive(Debug, Clone, Copy)]
struct Slot {
    seat: Seat,
    /// Exits before ready since the last worker here was ready.
    failures: u32,
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
}

impl Fleet {
    /// A fleet without workers.
    #[must_use]
    pub fn new(generation: GenerationId) -> Fleet {
        Fleet { generation, slots: BTreeMap::new() }
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
            Seat::Empty | Seat::Waiting { .. } => None,
        })
    }

    /// The slots below `wanted` that should get a worker at `now`, at most `most` of them. Others
    /// whose time to wait is over are empty from here on.
    pub fn take_due(&mut self, now: Time, wanted: u32, most: u32) -> Vec<SlotId> {
        for slot in self.slots.values_mut() {
            match slot.seat {
                Seat::Waiting { until } if until <= now => slot.seat = Seat::Empty,
                Seat::Waiting { .. } | Seat::Empty | Seat::Held(_) => {}
            }
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        self.empty(wanted).take(most).collect()
    }

    /// The first slot below `wanted` that nobody fills and that waits for nothing.
    #[must_use]
    pub fn vacancy(&self, wanted: u32) -> Option<SlotId> {
        self.empty(wanted).next()
    }

    /// In one pass over both, since this is asked after everything that happens.
    fn empty(&self, wanted: u32) -> impl Iterator<Item = SlotId> {
        let mut known = self.slots.iter().peekable();
        (0..wanted).map(SlotId).filter(move |&slot| match known.next_if(|&(&id, _)| id == slot) {
            Some((_, Slot { seat: Seat::Empty, .. })) | None => true,
            Some((_, Slot { seat: Seat::Held(_) | Seat::Waiting { .. }, .. })) => false,
        })
    }

    /// When the next waiting slot is due.
    #[must_use]
    pub fn deadline(&self) -> Option<(Time, Why)> {
        self.waiting().map(|(_, until)| (until, Why::Restart)).min()
    }

    /// The slots that wait, and until when.
    pub fn waiting(&self) -> impl Iterator<Item = (SlotId, Time)> + '_ {
        self.slots.iter().filter_map(|(&id, slot)| match slot.seat {
            Seat::Waiting { until } => Some((id, until)),
            Seat::Empty | Seat::Held(_) => None,
        })
    }

    /// A worker fills the slot.
    pub fn hold(&mut self, slot: SlotId, worker: WorkerId) {
        self.entry(slot).seat = Seat::Held(worker);
    }

    /// The worker of the slot has ended.
    pub fn vacate(&mut self, slot: SlotId) {
        self.entry(slot).seat = Seat::Empty;
    }

    /// The worker of the slot is ready: what failed here before does not count any more.
    pub fn ready(&mut self, slot: SlotId) {
        self.entry(slot).failures = 0;
    }

    /// The worker of the slot ended before it was ready. Returns how many have in a row.
    pub fn failed(&mut self, slot: SlotId) -> u32 {
        let entry = self.entry(slot);
        entry.failures = entry.failures.saturating_add(1);
        entry.failures
    }

    /// The slot stays empty until then.
    pub fn wait(&mut self, slot: SlotId, until: Time) {
        self.entry(slot).seat = Seat::Waiting { until };
    }

    /// Drops the slots from `wanted` on and gives the workers that filled them.
    pub fn trim(&mut self, wanted: u32) -> Vec<WorkerId> {
        let cut = self.slots.split_off(&SlotId(wanted));
        let cut = Fleet { generation: self.generation, slots: cut };
        cut.workers().collect()
    }

    fn entry(&mut self, slot: SlotId) -> &mut Slot {
        self.slots.entry(slot).or_insert(Slot { seat: Seat::Empty, failures: 0 })
    }
}
