//! A service carries a reload through: it asks [`reload::next_step`] what comes next, and does it.

use std::rc::Rc;

use crate::core::action::Action;
use crate::core::event::Fault;
use crate::core::fleet::Fleet;
use crate::core::ids::{GenerationId, RequestId, WorkerId};
use crate::core::notice::{AfterAbort, Notice};
use crate::core::policy::BoundMember;
use crate::core::refusal::{Operation, Refusal};
use crate::core::reload::{self, Failure, Pace, Reload, ReloadCause, ReloadStage, Step};
use crate::core::request::{Behind, End, WAITING_MAX};
use crate::core::time::Time;

use super::life::{Life, Then};
use super::{Context, FirstStart, Service};

impl Service {
    /// A definition was read, and these sockets were bound for it.
    pub fn handle_prepared(
        &mut self,
        generation: GenerationId,
        bound: Vec<BoundMember>,
        context: &mut Context<'_>,
    ) {
        if self.life.generation() == Some(generation) {
            return self.change_prepared(generation, bound);
        }
        if let Some(reload) = &mut self.reload
            && reload.generation == generation
        {
            let rolling = ReloadStage::Rolling(Fleet::new(generation));
            if let ReloadStage::Preparing(wanted) = std::mem::replace(&mut reload.stage, rolling) {
                self.sockets.open(generation, &wanted, bound);
                let slots = wanted.iter().filter_map(|new| Some((new.socket, new.slot?)));
                self.open_own_slots(generation, slots);
                self.choose_pace(generation, context);
            }
            return;
        }
        // Nobody wants it any more.
        let late = bound.into_iter().map(|bound| bound.member).collect();
        context.actions.extend(self.sockets.discard(generation, late));
    }

    /// A definition could not be read, or its sockets could not be bound.
    pub fn handle_prepare_failed(
        &mut self,
        now: Time,
        generation: GenerationId,
        fault: Fault,
        context: &mut Context<'_>,
    ) {
        self.policies.remove(&generation);
        self.sockets.not_bound(generation);
        if self.life.generation() == Some(generation) {
            self.change_failed(fault, context);
        } else if self.reload.as_ref().is_some_and(|reload| reload.generation == generation) {
            let why = self.refusal(fault.clone());
            let (Fault::Definition(reason) | Fault::Sockets(reason)) = fault;
            self.give_up_reload(now, reason, &End::Refused(why), context);
        }
    }

    /// Whether a reload may be asked for.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn may_ask_reload(&self, behind: Behind) -> Result<(), Refusal> {
        let service = || self.policy.name.clone();
        match self.life {
            Life::Stopped => return Err(Refusal::ServiceStopped { service: service() }),
            Life::Stopping { then: Then::Stay, .. } => {
                return Err(Refusal::ServiceStopping { service: service() });
            }
            Life::Up
            | Life::Rereading(..)
            | Life::Stopping { then: Then::Start(_) | Then::Serve(_), .. }
            | Life::Reviving(..) => {}
        }
        let Some(operation) = self.operation() else {
            return Ok(());
        };
        let waiting = self.queued.as_ref().map_or(0, Vec::len);
        match behind {
            Behind::Refuse => Err(Refusal::InProgress { service: service(), operation }),
            Behind::Queue if waiting >= WAITING_MAX => {
                let operation = Operation::Reload;
                Err(Refusal::TooMany { service: Some(service()), operation })
            }
            Behind::Queue => Ok(()),
        }
    }

    /// Asks for a reload: now, or next when one is under way.
    pub fn ask_reload(&mut self, request: RequestId, context: &mut Context<'_>) {
        if let Some(waiting) = &mut self.queued {
            return waiting.push(request);
        }
        let behind = match self.operation() {
            Some(Operation::Reload) => Some("the one that is under way"),
            Some(Operation::Start | Operation::Stop) if self.is_new() => Some("the first start"),
            Some(Operation::Start | Operation::Stop) => Some("the start"),
            Some(Operation::Restart) => Some("the restart"),
            None => None,
        };
        self.queued = Some(vec![request]);
        if let Some(behind) = behind {
            context.notice(Notice::ReloadQueued { service: self.policy.name.clone(), behind });
        }
    }

    pub(super) fn may_reload(&self) -> bool {
        let started = match self.first_start {
            FirstStart::UnderWay => false,
            FirstStart::Waiting | FirstStart::Stumbled | FirstStart::Committed => true,
        };
        let proved = self.probation.is_none();
        let free = self.reload.as_ref().is_none_or(Reload::is_stuck);
        free && proved && started && matches!(self.life, Life::Up)
    }

    pub(super) fn begin_reload(&mut self, now: Time, context: &mut Context<'_>) {
        if !self.may_reload() {
            return;
        }
        let (requests, cause) = if let Some(requests) = self.back.take() {
            let previous = self.previous.unwrap_or(self.serving.generation);
            let failed = self.taken_back.as_ref().is_some_and(|it| it.worker.is_some());
            let cause = if failed { ReloadCause::Failed } else { ReloadCause::RollBack };
            (requests, cause(previous))
        } else if let Some(requests) = self.queued.take() {
            (requests, ReloadCause::Asked)
        } else if self.reload.is_none() && self.is_refresh_due(now) {
            (Vec::new(), ReloadCause::SocketRenewed)
        } else {
            return;
        };
        // What is bound for it may join them.
        self.accept_again(context);
        let generation = self.next_generation();
        self.last_abort = None;
        let policy = match cause {
            ReloadCause::Asked => self.next.take().unwrap_or_else(|| Rc::clone(&self.policy)),
            ReloadCause::SocketRenewed => Rc::clone(&self.policy),
            ReloadCause::RollBack(previous) | ReloadCause::Failed(previous) => {
                Rc::clone(self.policies.get(&previous).unwrap_or(&self.policy))
            }
        };
        let workers = (policy.workers != self.policy.workers).then_some(policy.workers);
        let service = self.policy.name.clone();
        context.notice(Notice::ReloadBegins { service, generation, cause });
        self.leave_put_back(now, context);
        let like = match cause {
            ReloadCause::Asked => {
                self.retry_lost(context);
                None
            }
            ReloadCause::SocketRenewed => Some(self.serving.generation),
            ReloadCause::RollBack(previous) | ReloadCause::Failed(previous) => Some(previous),
        };
        // Where nobody can take what waits, they take it: it is theirs as well. So it is where the
        // last who can is to go before one of them comes.
        let ready = self.workers.tally_of(self.serving.generation).ready;
        let stop_first = policy.surge.of(workers.unwrap_or(self.wanted)) == Some(0);
        let nobody = ready == 0 || ready == 1 && stop_first;
        let heir_of = nobody.then_some(self.serving.generation);
        let heir_of = heir_of.filter(|&other| self.sockets.fit_slots(other, &policy.sockets));
        self.sockets.take_up(generation, &policy.sockets, heir_of);
        let bind = self.new_members(generation, workers.unwrap_or(self.wanted), context);
        self.sockets.ask(generation, &bind);
        self.policies.insert(generation, policy);
        let service = self.policy.service;
        let stage = ReloadStage::Preparing(bind.clone());
        context.actions.push_back(Action::Prepare { service, generation, like, bind });
        self.reload = Some(Reload {
            generation,
            since: now,
            requests,
            cause,
            canary: None,
            workers,
            held: false,
            pace: Pace::Unknown,
            stage,
        });
    }

    pub(super) fn advance_reload(&mut self, now: Time, context: &mut Context<'_>) {
        match self.reload.as_ref().map(|reload| &reload.pace) {
            Some(Pace::AtOnce) => self.advance_at_once(now, context),
            Some(Pace::Batches(_)) => self.advance_batches(now, context),
            Some(Pace::Unknown) | None => {}
        }
    }

    fn advance_at_once(&mut self, now: Time, context: &mut Context<'_>) {
        // Each turn starts a worker or leaves the loop.
        loop {
            let Some(fleet) = self.rolling() else { return };
            if self.reload.as_ref().is_some_and(|reload| reload.held) {
                return;
            }
            let generation = fleet.generation;
            let tally = self.workers.tally_of(generation);
            let vacancy = fleet.vacancy();
            match reload::next_step(vacancy, tally, fleet.size(), self.policy.starting_max) {
                Step::Start(slot) => {
                    let id = self.spawn(now, slot, generation, context);
                    if let Some(Reload { stage: ReloadStage::Rolling(fleet), .. }) =
                        &mut self.reload
                    {
                        fleet.hold(slot, id);
                    }
                }
                Step::Wait => return,
                Step::Commit if self.has_proved_itself(now, context) => {
                    return self.commit(now, context);
                }
                Step::Commit => return,
            }
        }
    }

    pub(super) fn commit(&mut self, now: Time, context: &mut Context<'_>) {
        let wanted = self.wanted_next();
        let Some(Reload { generation, since, requests, cause, stage, .. }) = self.reload.take()
        else {
            return;
        };
        let ReloadStage::Rolling(fleet) = stage else {
            return;
        };
        let old = std::mem::replace(&mut self.serving, fleet);
        let old_generation = old.generation;
        self.leave_behind(old_generation, cause);
        self.wanted = wanted;
        if let Some(policy) = self.policies.get(&generation).cloned() {
            self.take_policy(policy);
        }
        self.note_committed(context);
        // Those of earlier batches may be on their way.
        let gone = old.given().next().map(|_| self.workers.tally_of(old_generation).leaving);
        let old: Vec<WorkerId> = old.workers().collect();
        context.notice(Notice::ReloadCommitted {
            service: self.policy.name.clone(),
            generation,
            after: now.since(since),
            draining: u32::try_from(old.len()).unwrap_or(u32::MAX) + gone.unwrap_or(0),
        });
        self.recover(context);
        self.refresh_failures = 0;
        self.adopt_modes(context.actions);
        self.steer(context);
        if self.policy.before_stop.longest().is_zero() {
            self.secure(&old, context);
        }
        for id in old {
            self.ask_stop(now, id, context);
        }
        if let Some(Failure { reason, worker, requests: failed }) = self.taken_back.take() {
            let was = old_generation;
            self.last_abort = Some(format!("generation {was} was taken back: {reason}"));
            let end = self.aborted(reason, worker);
            self.respond(failed, &end, context);
        }
        let requests = if cause == ReloadCause::Asked {
            self.begin_probation(now, requests, context)
        } else {
            requests
        };
        self.respond(requests, &self.done(), context);
        // One that was queued meanwhile begins within this turn.
        self.begin_reload(now, context);
    }

    /// Puts the world back as it was before the reload under way, because of `reason`, which may be
    /// the end of a `worker`.
    pub(super) fn abort(
        &mut self,
        now: Time,
        reason: String,
        worker: Option<WorkerId>,
        context: &mut Context<'_>,
    ) {
        if self.reload.as_ref().is_some_and(Reload::is_off) {
            return;
        }
        let aborted = self.aborted(reason.clone(), worker);
        self.could_not_take_back(&reason, worker, context);
        self.give_up_reload(now, reason, &aborted, context);
    }

    /// The same, answered with `end`.
    fn give_up_reload(&mut self, now: Time, reason: String, end: &End, context: &mut Context<'_>) {
        let Some(reload) = self.reload.take() else { return };
        let (generation, cause) = (reload.generation, reload.cause);
        let next = match cause {
            ReloadCause::Asked | ReloadCause::RollBack(_) | ReloadCause::Failed(_) => {
                AfterAbort::ServesOn
            }
            ReloadCause::SocketRenewed => {
                AfterAbort::TriesAgain(self.postpone_refresh(now, context.random))
            }
        };
        self.sockets.abort();
        self.could_not_take_back(&reason, None, context);
        self.last_abort = Some(format!("reload to generation {generation} aborted: {reason}"));
        context.notice(Notice::ReloadAborted {
            service: self.policy.name.clone(),
            generation,
            serving: self.serving.generation,
            reason,
            next,
        });
        let requests = self.stop_new(now, reload, end, context);
        self.tell_put_back(context);
        self.respond(requests, end, context);
    }

    /// The workers of a reload that is off are asked to stop, but for those that serve in the place of
    /// old ones until those are back. Gives whoever asked for it, but where they have to wait for that.
    pub(super) fn stop_new(
        &mut self,
        now: Time,
        reload: Reload,
        end: &End,
        context: &mut Context<'_>,
    ) -> Vec<RequestId> {
        let workers: Vec<WorkerId> = match &reload.stage {
            ReloadStage::Rolling(fleet) => fleet.workers().collect(),
            ReloadStage::Preparing(_) | ReloadStage::PuttingBack(_) => Vec::new(),
        };
        let over = self.begin_put_back(reload, end);
        let going: Vec<_> = workers.into_iter().filter(|&id| !self.stays_for_now(id)).collect();
        // They finish what they have, if they were given something; with their service they stop.
        if !matches!(self.life, Life::Stopping { .. }) {
            self.steer(context);
            self.secure(&going, context);
        }
        for id in going {
            self.ask_stop(now, id, context);
        }
        over.map(|reload| reload.requests).unwrap_or_default()
    }

    /// A number for another definition.
    pub(super) fn next_generation(&mut self) -> GenerationId {
        let generation = GenerationId(self.last_generation.0 + 1);
        self.last_generation = generation;
        generation
    }

    pub(super) fn rolling(&self) -> Option<&Fleet> {
        match &self.reload {
            Some(Reload { stage: ReloadStage::Rolling(fleet), .. }) => Some(fleet),
            Some(Reload {
                stage: ReloadStage::Preparing(_) | ReloadStage::PuttingBack(_), ..
            })
            | None => None,
        }
    }
}
