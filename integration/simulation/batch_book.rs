//! The account of reloads of whose workers not all may run beside the old ones: S33.

use std::collections::BTreeSet;

use shepherd::core::ids::{GenerationId, ServiceId, SlotId};
use shepherd::core::notice::BatchNotice;
use shepherd::core::policy::Surge;

use crate::invariants::{Violation, ensure};
use crate::ledger::{Book, Ledger, Record, Standing, Turn};

/// How many of the new workers run beside the old ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Beside {
    /// All, or nobody knows yet.
    #[default]
    All,
    /// That is being looked for.
    Weighed,
    /// So many.
    Some(u32),
}

/// The slots that a reload has changed over.
#[derive(Debug, Clone, Default)]
pub(crate) struct BatchBook {
    pub beside: Beside,
    /// Slots of which nobody of the old generation is missed.
    pub given: BTreeSet<SlotId>,
    /// Slots in which new workers serve.
    pub over: BTreeSet<SlotId>,
    /// The generation that was to serve, while slots are put back.
    pub back: Option<GenerationId>,
    /// Those slots, until they have a ready worker of the old generation again.
    pub left: BTreeSet<SlotId>,
    /// Whether one of the old generation did not get ready meanwhile.
    pub stuck: bool,
    /// Whether the last one was off while slots were changed over, and nobody waits for them.
    pub partly: bool,
}

impl BatchBook {
    /// How many workers there may be beyond those that are wanted, where there is a bound.
    pub(crate) fn surge(&self) -> Option<u32> {
        match self.beside {
            Beside::Some(surge) => Some(surge),
            Beside::All | Beside::Weighed => None,
        }
    }

    /// Whether another operation has to wait for slots that are put back.
    pub(crate) fn is_in_the_way(&self) -> bool {
        self.back.is_some() && !self.stuck
    }
}

impl Book {
    /// Nobody waits for slots that are put back.
    pub(crate) fn leave_batches(&mut self) {
        let BatchBook { given, back, partly, .. } = &self.batches;
        let partly = *partly || !given.is_empty() || back.is_some();
        self.batches = BatchBook { partly, ..BatchBook::default() };
    }

    /// The generation that a reload under way brings, or that of one whose slots are put back.
    pub(crate) fn new_one(&self) -> Option<GenerationId> {
        self.rolling.map(|(rolling, _)| rolling).or(self.batches.back)
    }

    /// Whether this is a worker of a reload that serves in the place of an old one.
    pub(crate) fn serves_new(&self, record: &Record) -> bool {
        let new = self.new_one() == Some(record.generation);
        new && self.batches.over.contains(&record.slot)
    }
}

impl Ledger {
    /// The definition of a reload is read: how many of its workers run beside the old ones.
    pub(crate) fn learn_pace(&mut self, service: ServiceId) {
        let ready = self.count_ready(service);
        let Some(book) = self.books.get_mut(&service) else { return };
        let wanted = book.wanted;
        book.batches.beside = match book.policy.surge.of(wanted) {
            Some(surge) if surge < wanted => Beside::Some(surge),
            Some(_) => Beside::All,
            None if wanted > 1 && ready > 0 => Beside::Weighed,
            None => Beside::All,
        };
    }

    pub(crate) fn learn_weighed(
        &mut self,
        service: ServiceId,
        generation: GenerationId,
        room: Option<u32>,
    ) {
        let Some(book) = self.books.get_mut(&service) else { return };
        if book.rolling != Some((generation, true)) || book.batches.beside != Beside::Weighed {
            return;
        }
        let wanted = book.wanted;
        book.batches.beside = match room {
            Some(room) if room.max(1) < wanted => Beside::Some(room.max(1)),
            Some(_) | None => Beside::All,
        };
        self.saw("memory looked at");
    }

    pub(crate) fn check_weigh(
        &mut self,
        service: ServiceId,
        generation: GenerationId,
        workers: usize,
    ) -> Result<(), Violation> {
        let ready = self.count_ready(service);
        let book = &self.books[&service];
        let due = book.rolling == Some((generation, true)) && book.policy.surge == Surge::Auto;
        ensure!(due && book.batches.beside == Beside::Weighed, "S33: weighed without need");
        ensure!(workers == ready, "S33: {workers} are weighed, and {ready} are ready");
        Ok(())
    }

    /// How many workers of the generation that serves can take what comes.
    pub(crate) fn count_ready(&self, service: ServiceId) -> usize {
        let serving = self.books[&service].serving;
        let ready = self.alive().filter(|(_, record)| {
            record.service == service
                && record.generation == serving
                && record.stage == Standing::Ready
        });
        ready.count()
    }

    pub(crate) fn check_batch(
        &mut self,
        turn: &mut Turn<'_>,
        service: &str,
        what: &BatchNotice,
    ) -> Result<(), Violation> {
        let (id, book) = self.book_mut(service)?;
        match what {
            BatchNotice::Begin { generation, workers, surge, .. } => {
                let right = book.rolling == Some((*generation, true))
                    && book.batches.beside == Beside::Some(*surge)
                    && book.wanted == *workers;
                ensure!(right, "S33: {what:?}, and: {:?}", book.batches);
                self.saw("slots changed over in batches");
            }
            BatchNotice::ChangedOver { generation, slots, over, .. } => {
                let rolls = book.rolling == Some((*generation, true));
                ensure!(rolls, "S33: {what:?} of no reload");
                let surge = book.batches.surge().ok_or(format!("S33: {what:?} without batches"))?;
                let most = if book.batches.over.is_empty() { 1 } else { surge.max(1) };
                ensure!(slots.len() <= most as usize, "S33: {what:?} of {most} at most");
                book.batches.over.extend(slots);
                book.batches.over.retain(|slot| slot.0 < book.wanted);
                book.batches.given.extend(slots);
                book.waits.retain(|slot, _| !slots.contains(slot));
                let all = book.batches.over.len();
                ensure!(all == *over as usize, "S33: {what:?}, and it is {all}");
                for slot in slots {
                    let ready = self.has_ready_in(id, *generation, *slot);
                    ensure!(ready, "S2: {what:?}, and slot {slot} has no ready worker");
                }
                self.saw("a batch changed over");
            }
            BatchNotice::PuttingBack { slots, .. } => {
                let left = book.batches.left.len();
                ensure!(left == *slots as usize, "S33: {what:?}, and it is {left}");
                self.saw("slots put back");
            }
            BatchNotice::PutBack { generation } => {
                ensure!(book.batches.back.is_some(), "S33: {what:?}, and nothing was to be");
                ensure!(book.serving == *generation, "S33: {what:?}");
                let left: Vec<SlotId> = book.batches.left.iter().copied().collect();
                let wanted = book.wanted;
                for slot in left.into_iter().filter(|slot| slot.0 < wanted) {
                    let ready = self.has_ready_in(id, *generation, slot);
                    ensure!(ready, "S33: {what:?}, and slot {slot} has no ready worker");
                }
                let (_, book) = self.book_mut(service)?;
                turn.gone.extend(book.batches.back.map(|back| (id, back)));
                book.batches = BatchBook::default();
                self.saw("all slots put back");
            }
            BatchNotice::NotPutBack { .. } => {
                ensure!(book.batches.stuck, "S33: {what:?}, and no worker has failed");
                self.saw("a slot that could not be put back");
            }
        }
        Ok(())
    }

    pub(crate) fn has_ready_in(
        &self,
        service: ServiceId,
        generation: GenerationId,
        slot: SlotId,
    ) -> bool {
        self.alive().any(|(_, record)| {
            (record.service, record.generation, record.slot) == (service, generation, slot)
                && record.stage == Standing::Ready
        })
    }

    /// Whether a worker is to stop because another serves in its slot: an old one whose successor is
    /// ready, or a new one of a reload that is off once an old one is. Without a surge it is one at a
    /// time, before the other comes.
    pub(crate) fn is_changed_over(&self, turn: &Turn<'_>, record: &Record) -> bool {
        let service = record.service;
        let book = &self.books[&service];
        let Some(surge) = book.batches.surge() else {
            return turn.gone.contains(&(service, record.generation));
        };
        let batches = &book.batches;
        let is_old = record.generation == book.serving;
        if let (Some((rolling, true)), true) = (book.rolling, is_old) {
            let mut others = batches.given.difference(&batches.over);
            let alone = others.all(|slot| *slot == record.slot);
            return self.has_ready_in(service, rolling, record.slot) || surge == 0 && alone;
        }
        let goes = batches.back == Some(record.generation) && !is_old;
        let mut others = batches.left.iter().filter(|slot| **slot != record.slot);
        // None of the others is on its way.
        let is_back = |slot: SlotId| self.has_ready_in(service, book.serving, slot);
        let alone = others.all(|slot| batches.given.contains(slot) || is_back(*slot));
        goes && (self.has_ready_in(service, book.serving, record.slot) || surge == 0 && alone)
            || turn.gone.contains(&(service, record.generation))
    }

    /// A worker is asked to stop: without a surge its slot is another's by that.
    pub(crate) fn note_handed_over(
        &mut self,
        service: ServiceId,
        generation: GenerationId,
        slot: SlotId,
    ) {
        let Some(book) = self.books.get_mut(&service) else { return };
        let first = book.batches.surge() == Some(0) && book.rolling.is_some();
        if first && generation == book.serving && slot.0 < book.wanted {
            book.batches.given.insert(slot);
            book.waits.remove(&slot);
        } else if book.batches.back == Some(generation) {
            book.batches.over.remove(&slot);
        }
    }

    /// Whether one more worker of a reload, or of one that is off, may be there.
    pub(crate) fn check_room(&self, service: ServiceId) -> Result<(), Violation> {
        let book = &self.books[&service];
        let Some(surge) = book.batches.surge() else { return Ok(()) };
        let alive = self.alive().filter(|(_, record)| record.service == service).count();
        let most = book.wanted as usize + surge as usize;
        ensure!(alive < most, "S4, S33: {alive} workers are alive, and {most} may be");
        Ok(())
    }

    /// A reload is off.
    pub(crate) fn learn_off(&mut self, service: ServiceId, generation: GenerationId) {
        let Some(book) = self.books.get_mut(&service) else { return };
        if book.batches.given.is_empty() || !book.life.serves() || book.told {
            return book.leave_batches();
        }
        book.batches.back = Some(generation);
        book.batches.left = book.batches.given.clone();
    }

    /// At the end of a turn: who is ready is not missed.
    pub(crate) fn note_put_back(&mut self) {
        let services: Vec<ServiceId> = self.books.keys().copied().collect();
        for service in services {
            let serving = self.books[&service].serving;
            let left = self.books[&service].batches.left.clone();
            let done: BTreeSet<SlotId> = left
                .into_iter()
                .filter(|&slot| self.has_ready_in(service, serving, slot))
                .collect();
            let Some(book) = self.books.get_mut(&service) else { continue };
            let wanted = book.wanted;
            book.batches.left.retain(|slot| !done.contains(slot) && slot.0 < wanted);
            book.batches.given.retain(|slot| slot.0 < wanted);
            book.batches.over.retain(|slot| slot.0 < wanted);
        }
    }
}
