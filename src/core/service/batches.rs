//! A reload of whose workers not all may run beside the old ones changes slots over one batch after
//! the other, and puts them back when it is off.
//!
//! Alive workers never are more than those that are wanted and the surge: draining ones count as long
//! as they live, since that is what they use memory for. Without a surge the old worker of a slot goes
//! first, by the same count.

use std::collections::BTreeSet;

use crate::core::action::Action;
use crate::core::fleet::{Fleet, Seat};
use crate::core::ids::{GenerationId, RequestId, SlotId, WorkerId};
use crate::core::notice::{BatchNotice, Because, Notice};
use crate::core::policy::Balance;
use crate::core::reload::{Batches, Pace, PutBack, Reload, ReloadStage};
use crate::core::request::{Abort, End};
use crate::core::time::Time;
use crate::core::worker::Worker;

use super::{Context, FirstStart, Service};

impl Service {
    /// The definition of a reload is read: how many of its workers run beside the old ones is decided,
    /// or looked for.
    pub(super) fn choose_pace(&mut self, generation: GenerationId, context: &mut Context<'_>) {
        let wanted = self.wanted_next();
        let surge = self.policies.get(&generation).map(|policy| policy.surge).unwrap_or_default();
        if let Some(surge) = surge.of(wanted) {
            return self.set_pace(surge, Because::Wanted, context);
        }
        let ready = self.serving.workers().filter(|&id| self.is_ready(id));
        let workers: Vec<WorkerId> = ready.collect();
        // Nobody is to run beside others, or nobody knows what one needs.
        if wanted < 2 || workers.is_empty() {
            return self.set_pace(u32::MAX, Because::Wanted, context);
        }
        let service = self.policy.service;
        context.actions.push_back(Action::Weigh { service, generation, workers });
    }

    /// Memory was looked at.
    pub fn handle_weighed(
        &mut self,
        generation: GenerationId,
        room: Option<u32>,
        context: &mut Context<'_>,
    ) {
        let waits = self.reload.as_ref().is_some_and(|reload| {
            let rolls = matches!(reload.stage, ReloadStage::Rolling(_));
            reload.generation == generation && rolls && reload.pace == Pace::Unknown
        });
        if waits {
            let (surge, because) = match room {
                None => (u32::MAX, Because::Memory),
                Some(0) => (1, Because::NoMemory),
                Some(room) => (room, Because::Memory),
            };
            self.set_pace(surge, because, context);
        }
    }

    fn set_pace(&mut self, surge: u32, because: Because, context: &mut Context<'_>) {
        let workers = self.wanted_next();
        let Some(reload) = &mut self.reload else { return };
        reload.pace = Pace::of(surge, workers);
        // One that has not begun takes a definition over without a reload.
        if reload.pace != Pace::AtOnce && self.first_start != FirstStart::Waiting {
            let generation = reload.generation;
            self.tell_batch(BatchNotice::Begin { generation, workers, surge, because }, context);
        }
    }

    /// Takes the next steps of a reload that goes in batches.
    pub(super) fn advance_batches(&mut self, now: Time, context: &mut Context<'_>) {
        // Each turn begins a batch, starts or stops a worker or changes a batch over, or leaves the loop.
        loop {
            let Some((batches, fleet)) = in_batches(&mut self.reload) else { return };
            let is_wanted = |slot: &SlotId| fleet.seat(*slot).is_some();
            batches.batch.retain(is_wanted);
            batches.over.retain(is_wanted);
            if batches.batch.is_empty() {
                batches.batch = fleet.first_vacancies(batches.size()).collect();
                if batches.batch.is_empty() {
                    // Fewer are wanted by now.
                    return self.commit_if_complete(now, context);
                }
            }
            let generation = fleet.generation;
            let stop_first = batches.surge == 0;
            let is_vacant = |slot: &SlotId| fleet.seat(*slot) == Some(Seat::Empty);
            if let Some(slot) = batches.batch.iter().copied().find(is_vacant) {
                let old = self.serving.worker(slot).filter(|_| stop_first);
                if let Some(old) = old {
                    self.serving.hand_over(slot);
                    self.let_go(now, &[old], context);
                    self.fill(now, context);
                    continue;
                }
                // It comes in the place of one that would come otherwise.
                let instead = stop_first && self.serving.is_missed(slot);
                let starting = self.workers.tally_of(generation).starting;
                if self.room(u32::from(instead)) == 0 || starting >= self.policy.starting_max {
                    return;
                }
                if stop_first {
                    self.serving.hand_over(slot);
                }
                let id = self.spawn(now, slot, generation, context);
                if let Some((_, fleet)) = in_batches(&mut self.reload) {
                    fleet.hold(slot, id);
                }
                continue;
            }
            let mut workers = batches.batch.iter().filter_map(|&slot| fleet.worker(slot));
            if !workers.all(|id| self.workers.get(id).is_some_and(Worker::is_ready)) {
                return;
            }
            let is_first = batches.over.is_empty();
            if fleet.vacancies() == 0 {
                return self.commit_if_complete(now, context);
            }
            if is_first && !self.has_proved_itself(now, context) {
                return;
            }
            self.change_over(now, context);
            // Who was on the way to its program there is not any more, and others may be.
            self.fill(now, context);
        }
    }

    fn commit_if_complete(&mut self, now: Time, context: &mut Context<'_>) {
        let Some((_, fleet)) = in_batches(&mut self.reload) else { return };
        let (generation, size) = (fleet.generation, fleet.size());
        let is_complete = self.workers.tally_of(generation).ready == size;
        if is_complete && self.has_proved_itself(now, context) {
            self.commit(now, context);
        }
    }

    /// The workers of a batch serve from here on, and the old ones of their slots go.
    fn change_over(&mut self, now: Time, context: &mut Context<'_>) {
        let Some((batches, fleet)) = in_batches(&mut self.reload) else { return };
        let batch = std::mem::take(&mut batches.batch);
        batches.over.extend(&batch);
        let over = count(batches.over.len());
        let (generation, workers) = (fleet.generation, fleet.size());
        let old: Vec<WorkerId> =
            batch.iter().filter_map(|&slot| self.serving.hand_over(slot)).collect();
        self.steer(context);
        let serving = self.serving.generation;
        let shares = self.sockets.balance(serving) == Some(Balance::Generation);
        let stays = |id: &&WorkerId| {
            let slot = self.workers.get(**id).filter(|worker| worker.is_ready()).map(|it| it.slot);
            slot.is_some_and(|slot| self.sockets.steered_away(serving, serving, slot).is_empty())
        };
        let at_once = if shares { count(old.iter().filter(stays).count()) } else { 0 };
        let slots = batch.into_iter().collect();
        let what = BatchNotice::ChangedOver { generation, slots, over, workers, at_once };
        self.tell_batch(what, context);
        self.let_go(now, &old, context);
    }

    /// Nobody new finds these workers, and they go.
    fn let_go(&mut self, now: Time, workers: &[WorkerId], context: &mut Context<'_>) {
        self.steer(context);
        if self.policy.before_stop.longest().is_zero() {
            self.secure(workers, context);
        }
        for &id in workers {
            self.ask_stop(now, id, context);
        }
    }

    /// What part of new connections goes to workers of a reload that goes in batches, or is put back:
    /// each of them gets as many as each old one. Nothing where none of them serves.
    pub(super) fn claim_of_new(&self) -> Option<(GenerationId, BTreeSet<SlotId>)> {
        let reload = self.reload.as_ref()?;
        let serves =
            |slot: SlotId, id: Option<WorkerId>| id.filter(|&id| self.is_ready(id)).map(|_| slot);
        let slots: BTreeSet<SlotId> = match (&reload.stage, &reload.pace) {
            (ReloadStage::Rolling(fleet), Pace::Batches(batches)) => {
                batches.over.iter().filter_map(|&slot| serves(slot, fleet.worker(slot))).collect()
            }
            (ReloadStage::PuttingBack(back), _) => {
                back.serving.iter().filter_map(|(&slot, &id)| serves(slot, Some(id))).collect()
            }
            (ReloadStage::Preparing(_) | ReloadStage::Rolling(_), _) => BTreeSet::new(),
        };
        (!slots.is_empty()).then_some((reload.generation, slots))
    }

    /// A reload that goes in batches is off. Where its workers serve, or old ones are stopped already,
    /// it is not over before these slots have old workers again. Gives it back where that is not so.
    pub(super) fn begin_put_back(&mut self, reload: Reload, end: &End) -> Option<Reload> {
        let Pace::Batches(Batches { surge, over, .. }) = &reload.pace else { return Some(reload) };
        let ReloadStage::Rolling(fleet) = &reload.stage else { return Some(reload) };
        let left: BTreeSet<SlotId> = self.serving.given().collect();
        if left.is_empty() {
            return Some(reload);
        }
        // Those in slots that there were not before serve in nobody's place.
        let serving =
            over.intersection(&left).filter_map(|&slot| Some((slot, fleet.worker(slot)?)));
        let serving = serving.filter(|&(_, id)| self.is_ready(id)).collect();
        let (surge, end) = (*surge, end.clone());
        let back = PutBack { surge, left, serving, end, backs: Vec::new(), stuck: false };
        self.reload = Some(Reload { stage: ReloadStage::PuttingBack(back), ..reload });
        None
    }

    /// Says that slots are put back, if they are.
    pub(super) fn tell_put_back(&mut self, context: &mut Context<'_>) {
        let Some(back) = put_back(&mut self.reload) else { return };
        let (slots, surge) = (count(back.left.len()), back.surge);
        let generation = self.serving.generation;
        self.tell_batch(BatchNotice::PuttingBack { generation, slots, surge }, context);
    }

    /// Takes the next steps back.
    pub(super) fn put_back(&mut self, now: Time, context: &mut Context<'_>) {
        let Some(back) = put_back(&mut self.reload) else { return };
        let mut done = BTreeSet::new();
        for &slot in &back.left {
            let is_done = match self.serving.seat(slot) {
                Some(Seat::Held(id)) => self.workers.get(id).is_some_and(Worker::is_ready),
                Some(Seat::Given | Seat::Empty | Seat::Waiting { .. }) => false,
                // It is not wanted any more.
                None => true,
            };
            if is_done {
                done.insert(slot);
            }
        }
        back.left.retain(|slot| !done.contains(slot));
        let left = back.left.clone();
        let gone: Vec<WorkerId> =
            done.iter().filter_map(|slot| back.serving.remove(slot)).collect();
        if !gone.is_empty() {
            self.let_go(now, &gone, context);
        }
        if left.is_empty() {
            return self.end_put_back(context);
        }
        self.take_slots_back(now, &left, context);
    }

    /// Has workers of the old generation started in slots that are put back, as far as they may be
    /// there beside the new ones.
    fn take_slots_back(&mut self, now: Time, left: &BTreeSet<SlotId>, context: &mut Context<'_>) {
        let is_given = |slot: &SlotId| self.serving.seat(*slot) == Some(Seat::Given);
        let given: Vec<SlotId> = left.iter().copied().filter(is_given).collect();
        if put_back(&mut self.reload).is_some_and(|back| back.surge > 0) {
            for slot in given {
                if self.room(0) == 0 {
                    return;
                }
                self.serving.take_back(slot);
            }
        } else if given.len() == left.len() {
            // None of them is on its way: the next is, one without a worker before the others.
            let free = given.iter().copied().find(|&slot| !self.serves_new(slot));
            match (free, given.first()) {
                (Some(slot), _) if self.room(0) > 0 => self.serving.take_back(slot),
                (None, Some(slot)) => {
                    let back = put_back(&mut self.reload);
                    let new = back.and_then(|back| back.serving.remove(slot));
                    self.let_go(now, &Vec::from_iter(new), context);
                }
                (Some(_), _) | (None, None) => {}
            }
        }
    }

    /// Whether a new worker serves in a slot that is put back.
    fn serves_new(&self, slot: SlotId) -> bool {
        let stage = self.reload.as_ref().map(|reload| &reload.stage);
        matches!(stage, Some(ReloadStage::PuttingBack(back)) if back.serving.contains_key(&slot))
    }

    /// Whether this one serves in a slot until that is put back.
    pub(super) fn stays_for_now(&self, id: WorkerId) -> bool {
        self.workers.get(id).is_some_and(|worker| self.serves_new(worker.slot))
    }

    fn end_put_back(&mut self, context: &mut Context<'_>) {
        let Some(reload) = self.reload.take() else { return };
        let ReloadStage::PuttingBack(back) = reload.stage else { return };
        let generation = self.serving.generation;
        self.tell_batch(BatchNotice::PutBack { generation }, context);
        self.respond(reload.requests, &back.end, context);
        self.respond(back.backs, &self.done(), context);
    }

    /// A worker that serves in a slot which is put back has ended. Returns whether it was one.
    pub(super) fn lose_new(&mut self, slot: SlotId, id: WorkerId) -> bool {
        let Some(back) = put_back(&mut self.reload) else { return false };
        let is_one = back.serving.get(&slot) == Some(&id);
        if is_one {
            back.serving.remove(&slot);
        }
        is_one
    }

    /// A worker of the old generation has ended before it was ready, for this reason: whoever asked
    /// for the reload is told that not all is put back.
    pub(super) fn note_not_put_back(
        &mut self,
        slot: SlotId,
        reason: &str,
        context: &mut Context<'_>,
    ) {
        let Some(back) = put_back(&mut self.reload).filter(|back| back.left.contains(&slot)) else {
            return;
        };
        if std::mem::replace(&mut back.stuck, true) {
            return;
        }
        let (generation, reason) = (self.serving.generation, reason.to_owned());
        self.tell_batch(BatchNotice::NotPutBack { generation, reason }, context);
        self.answer_not_put_back(context);
    }

    /// Whoever waits for slots that are put back waits no longer: not all are.
    pub(super) fn answer_not_put_back(&mut self, context: &mut Context<'_>) {
        let Some(reload) = &mut self.reload else { return };
        let ReloadStage::PuttingBack(back) = &mut reload.stage else { return };
        let mut requests = std::mem::take(&mut reload.requests);
        requests.append(&mut back.backs);
        let end = not_put_back(back.end.clone());
        self.respond(requests, &end, context);
    }

    /// Another reload begins, or everything ends, while slots are put back: what is new goes.
    pub(super) fn leave_put_back(&mut self, now: Time, context: &mut Context<'_>) {
        self.answer_not_put_back(context);
        let Some(reload) = self.reload.take_if(|reload| reload.is_off()) else { return };
        let ReloadStage::PuttingBack(back) = reload.stage else { return };
        for slot in back.left {
            self.serving.take_back(slot);
        }
        let new: Vec<WorkerId> = back.serving.into_values().collect();
        self.let_go(now, &new, context);
        self.fill(now, context);
    }

    /// Whoever asked that the reload be taken back that is off now: they are answered when it is.
    /// Gives those back who need not wait.
    pub(super) fn wait_for_put_back(&mut self, request: RequestId) -> Vec<RequestId> {
        match put_back(&mut self.reload) {
            Some(back) => {
                back.backs.push(request);
                Vec::new()
            }
            None => vec![request],
        }
    }

    /// How many more workers may be started in a reload that goes in batches, if so many do not come
    /// that would.
    fn room(&self, instead: u32) -> u32 {
        let Some(reload) = &self.reload else { return 0 };
        let (surge, new) = match (&reload.stage, &reload.pace) {
            (ReloadStage::Rolling(fleet), Pace::Batches(batches)) => {
                (batches.surge, fleet.size().saturating_sub(fleet.vacancies()))
            }
            (ReloadStage::PuttingBack(back), _) => (back.surge, count(back.serving.len())),
            (ReloadStage::Preparing(_) | ReloadStage::Rolling(_), _) => return 0,
        };
        let alive = self.serving.seats() + new + self.workers.tally().leaving;
        self.slots_wanted().saturating_add(surge).saturating_sub(alive.saturating_sub(instead))
    }

    fn is_ready(&self, id: WorkerId) -> bool {
        self.workers.get(id).is_some_and(Worker::is_ready)
    }

    fn tell_batch(&self, what: BatchNotice, context: &mut Context<'_>) {
        context.notice(Notice::Batch { service: self.policy.name.clone(), what });
    }
}

/// The slots and the workers of a reload that goes in batches.
fn in_batches(reload: &mut Option<Reload>) -> Option<(&mut Batches, &mut Fleet)> {
    match reload {
        Some(Reload {
            held: false,
            pace: Pace::Batches(batches),
            stage: ReloadStage::Rolling(fleet),
            ..
        }) => Some((batches, fleet)),
        Some(_) | None => None,
    }
}

/// What is left of a reload that is off.
fn put_back(reload: &mut Option<Reload>) -> Option<&mut PutBack> {
    match reload {
        Some(Reload { stage: ReloadStage::PuttingBack(back), .. }) => Some(back),
        Some(_) | None => None,
    }
}

/// The same end, while not all is put back.
pub(super) fn not_put_back(end: End) -> End {
    match end {
        End::Aborted(abort) => End::Aborted(Abort { put_back: false, ..abort }),
        End::Done(_) | End::LeftOut | End::Refused(_) => end,
    }
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
