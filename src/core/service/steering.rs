//! A service has the kernel send new connections to those of its workers that can take them, and
//! lets workers that get nothing new finish what they have before they are asked to stop. Which
//! members get what is decided in [`crate::core::sockets`] and [`crate::core::steering`], what is
//! waited for in [`crate::core::drain`].

use std::collections::BTreeSet;

use crate::core::action::{Action, NewMember};
use crate::core::drain::Manners;
use crate::core::event::{DrainSeen, WorkerEvent};
use crate::core::fleet::Fleet;
use crate::core::ids::{MemberId, SlotId, WorkerId};
use crate::core::notice::{Notice, WorkerName};
use crate::core::policy::Policy;
use crate::core::reload::{Reload, ReloadStage};
use crate::core::sockets::{Claim, Serving};
use crate::core::time::Time;
use crate::core::worker::{Worker, WorkerState};

use super::{Context, Service};

/// One of so many workers with sockets of their own is asked to stop at a time, and one at least.
const AT_A_TIME: usize = 32;

impl Service {
    /// Has new connections go to those who can take them.
    pub(super) fn steer(&mut self, context: &mut Context<'_>) {
        let claims = self.claims();
        let serves = Serving { generation: self.serving.generation, wanted: self.wanted };
        context.actions.extend(self.sockets.steer(serves, &claims));
        self.rotate(context);
    }

    /// What part of new connections each generation is to have.
    pub(super) fn claims(&self) -> Vec<Claim> {
        let serving = self.serving.generation;
        let ready = |fleet: &Fleet| -> BTreeSet<SlotId> {
            let workers = fleet.workers().filter_map(|id| self.workers.get(id));
            workers.filter(|worker| worker.is_ready()).map(|worker| worker.slot).collect()
        };
        let mut claim = Claim { generation: serving, part: 1, ready: ready(&self.serving) };
        let mut claims = Vec::new();
        if let Some((generation, slots)) = self.claim_of_new() {
            if self.sockets.root(generation) == self.sockets.root(serving) {
                claim.ready.extend(slots);
            } else {
                let size =
                    |ready: &BTreeSet<SlotId>| u32::try_from(ready.len()).unwrap_or(u32::MAX);
                claim.part = size(&claim.ready);
                claims.push(Claim { generation, part: size(&slots), ready: slots });
            }
        } else if let Some(Reload { canary, generation, stage, .. }) = &self.reload
            && let ReloadStage::Rolling(fleet) = stage
        {
            if self.sockets.root(*generation) == self.sockets.root(serving) {
                // Those that have the same members can take what comes just as well.
                claim.ready.extend(ready(fleet));
            } else if canary.is_some()
                && let Some(canary) = self.policies.get(generation).and_then(|policy| policy.canary)
            {
                claim.part = 100u32.saturating_sub(canary.percent);
                let (generation, part) = (*generation, canary.percent);
                claims.push(Claim { generation, part, ready: ready(fleet) });
            }
        }
        claims.push(claim);
        claims
    }

    /// A worker is to stop: it is asked to at once, unless others get what is new and it may finish
    /// what it has.
    pub(super) fn empty_or_stop(&mut self, now: Time, id: WorkerId, context: &mut Context<'_>) {
        let Some(worker) = self.workers.get(id) else { return };
        let policy = self.policy_of(id);
        let (before_stop, keepalive) = (policy.before_stop, policy.keepalive);
        let has_run = match worker.state {
            WorkerState::Ready { .. } | WorkerState::Withdrawing { .. } => true,
            WorkerState::Starting { .. }
            | WorkerState::Emptying { .. }
            | WorkerState::Draining { .. }
            | WorkerState::Orphaned { .. }
            | WorkerState::Killed { .. } => false,
        };
        let serving = self.serving.generation;
        let mut away = self.sockets.steered_away(serving, worker.generation, worker.slot);
        away.extend(self.left_to(worker));
        let gets_nothing = !away.is_empty() || self.others_are_given(id);
        let may_take_time = self.serves() && !before_stop.longest().is_zero();
        if has_run && may_take_time && gets_nothing {
            // One that is told over its channel finishes what it has, whatever a signal does to it.
            let manners =
                if worker.has_farewell() { Manners::Finishes } else { self.drains.manners() };
            let until = self.drains.begin(now, id, away, before_stop, keepalive, manners);
            self.with_worker(id, context, |worker, scene| worker.empty(now, until, scene));
        } else {
            self.with_worker(id, context, |worker, scene| worker.stop(now, scene));
        }
    }

    /// What is left of draining workers was looked at.
    pub fn handle_drain_seen(&mut self, now: Time, seen: &DrainSeen, context: &mut Context<'_>) {
        let (mut done, learned) = self.drains.seen(now, seen);
        self.tell_manners(learned, context);
        if !self.sockets.of_each_worker(self.serving.generation).is_empty() {
            // Those that shut their sockets down at the same moment leave their group in an order
            // that nobody can tell. The others come with the next look.
            done.truncate((done.len() / AT_A_TIME).max(1));
        }
        self.secure(&done, context);
        for id in done {
            if self.workers.get(id).is_some_and(Worker::is_emptying) {
                self.asked_to_stop(now, id);
                self.with_worker(id, context, |worker, scene| worker.stop(now, scene));
            }
        }
    }

    /// One that gets nothing new has finished, or had its time.
    fn asked_to_stop(&mut self, now: Time, id: WorkerId) {
        if self.workers.get(id).is_some_and(Worker::has_farewell) {
            self.drains.told(id);
        } else {
            self.drains.asked(now, id);
        }
    }

    /// Has a look taken at what is left, if one is due.
    pub(super) fn look_at_drains(&mut self, now: Time, context: &mut Context<'_>) {
        let is_emptying = |id: WorkerId| self.workers.get(id).is_some_and(Worker::is_emptying);
        self.drains.forget(is_emptying, |id| self.workers.get(id).is_some());
        if let Some(look) = self.drains.take_due(now) {
            let service = self.policy.service;
            context.actions.push_back(Action::LookAtDrain { service, look });
        }
    }

    /// The end of a worker's main process may teach how its program stops.
    pub(super) fn learn_from(
        &mut self,
        now: Time,
        id: WorkerId,
        event: &WorkerEvent,
        policy: &Policy,
        context: &mut Context<'_>,
    ) {
        if let WorkerEvent::Exited { how, .. } = event {
            let learned = self.drains.exited(now, id, *how, policy.stop.first().signal);
            self.tell_manners(learned, context);
        }
    }

    /// A worker that finished what it had has run out of time.
    pub(super) fn drain_is_over(&mut self, now: Time, id: WorkerId, context: &mut Context<'_>) {
        if let Some(worker) = self.workers.get(id).filter(|worker| worker.is_emptying())
            && let Some(left) = self.drains.remains(id)
        {
            let service = self.policy.name.clone();
            let name = WorkerName { worker: id, service, slot: worker.slot };
            let after = now.since(worker.since());
            context.notice(Notice::StillBusy { worker: name, left, after });
            self.asked_to_stop(now, id);
            self.secure(&[id], context);
        }
    }

    /// These workers are about to be asked to stop, and may shut their sockets down: nobody else's
    /// place in a group is to change by that.
    pub(super) fn secure(&mut self, workers: &[WorkerId], context: &mut Context<'_>) {
        if workers.is_empty() || !self.serves() {
            return;
        }
        let at_risk = self.at_risk(workers);
        let mut spares = Vec::new();
        for (socket, count) in self.sockets.spares_lacking(&at_risk) {
            for _ in 0..count {
                *context.last_member += 1;
                let member = MemberId(*context.last_member);
                spares.push(NewMember { socket, slot: None, member });
            }
        }
        if !spares.is_empty() {
            self.sockets.ask_spares(&spares);
            let service = self.policy.service;
            context.actions.push_back(Action::BindSpares { service, members: spares });
        }
    }

    /// Spares are there, or could not be had: then it is as it was without them.
    pub fn handle_spares(
        &mut self,
        members: Vec<MemberId>,
        bound: bool,
        context: &mut Context<'_>,
    ) {
        self.sockets.spares_asked(&members, bound);
        if bound && !self.serves() {
            // Everything was closed while they were bound.
            context.actions.extend(self.sockets.discard_spares(members));
        }
    }

    /// Closes the spares that nobody needs any more.
    pub(super) fn close_spares(&mut self, context: &mut Context<'_>) {
        if self.sockets.has_spares() {
            let at_risk = self.at_risk(&[]);
            context.actions.extend(self.sockets.close_spares(&at_risk));
        }
    }

    /// The members of groups that these workers may leave at any time, and those that were asked to
    /// stop before.
    fn at_risk(&self, workers: &[WorkerId]) -> BTreeSet<MemberId> {
        let was_asked = |worker: &&Worker| match worker.state {
            WorkerState::Draining { .. }
            | WorkerState::Orphaned { .. }
            | WorkerState::Killed { .. } => true,
            WorkerState::Starting { .. }
            | WorkerState::Ready { .. }
            | WorkerState::Withdrawing { .. }
            | WorkerState::Emptying { .. } => false,
        };
        let about = workers.iter().filter_map(|&id| self.workers.get(id));
        let all = self.workers.iter().filter(was_asked).chain(about);
        let places = all.map(|worker| (worker.generation, worker.slot)).collect();
        self.sockets.in_groups(&places)
    }

    fn tell_manners(&self, learned: Option<Manners>, context: &mut Context<'_>) {
        if let Some(manners) = learned {
            context.notice(Notice::Manners { service: self.policy.name.clone(), manners });
        }
    }
}

#[cfg(test)]
mod tests;
