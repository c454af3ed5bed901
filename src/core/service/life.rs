//! What operators make of a whole service: it serves, is stopped, is started, is restarted.
//!
//! A stop closes the sockets and asks the workers to stop, and is over when the last process has
//! gone. A start reads the definition and binds the sockets again, and is over when all workers have
//! been ready together. A restart reads the definition first, so that a mistake in it stops nothing,
//! and keeps the sockets: connections wait in their queues from the stop to the start.
//!
//! Who asked last wins: a stop ends a start, a restart and a reload, and a start that comes during a
//! stop follows it. Each of them is told.
//!
//! One that is to stop serves until those that need it and are to stop too have gone: `together.rs` has
//! what several services do for one request.

use std::rc::Rc;

use crate::core::action::{Action, NewMember};
use crate::core::event::Fault;
use crate::core::fleet::Fleet;
use crate::core::ids::{GenerationId, MemberId, RequestId, SlotId, SocketId};
use crate::core::notice::{AfterAbort, LifeNotice, Notice, Told, WorkerName};
use crate::core::policy::{BoundMember, Members, Policy, Socket};
use crate::core::refusal::{Operation, Refusal};
use crate::core::reload::Reload;
use crate::core::request::{End, WAITING_MAX};
use crate::core::slots::SlotSockets;
use crate::core::time::Time;

use super::{Context, FirstStart, Past, Service};

/// What operators have made of a service.
#[derive(Debug, Clone)]
pub(super) enum Life {
    /// It is to serve.
    Up,
    /// It serves, and the definition that is to serve after a restart is being read, or those of the
    /// services that are restarted with it are.
    Rereading(Coming, Reading),
    /// It is to stop.
    Stopping {
        /// Whether its workers are asked to.
        turn: Turn,
        /// Who waits for the last of them to go.
        stops: Vec<RequestId>,
        /// What comes then.
        then: Then,
    },
    /// It has no worker and no socket.
    Stopped,
    /// It has none yet: its definition is being read and its sockets are being bound.
    Reviving(Coming, Vec<NewMember>),
}

/// Whether a definition is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// It is not yet.
    UnderWay,
    /// It is, without a mistake.
    Over,
}

/// Whether the workers of a service that is to stop are asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// They serve until those have gone that need it and are to stop too.
    Later {
        /// Whether users have been told of that.
        told: bool,
    },
    /// They are.
    Come,
}

/// What comes when the last process of a service that stops has gone.
#[derive(Debug, Clone)]
pub(super) enum Then {
    /// It stays stopped.
    Stay,
    /// It is started, as these want it.
    Start(Vec<RequestId>),
    /// It is restarted.
    Serve(Coming),
}

/// A generation that is to serve with nobody beside it.
#[derive(Debug, Clone)]
pub(super) struct Coming {
    pub(super) generation: GenerationId,
    /// Who waits for it to serve.
    pub(super) requests: Vec<RequestId>,
}

impl Life {
    /// The generation that is to serve next, except by a reload.
    pub(super) fn generation(&self) -> Option<GenerationId> {
        match self {
            Life::Rereading(coming, _)
            | Life::Stopping { then: Then::Serve(coming), .. }
            | Life::Reviving(coming, _) => Some(coming.generation),
            Life::Up | Life::Stopping { then: Then::Stay | Then::Start(_), .. } | Life::Stopped => {
                None
            }
        }
    }

    /// What is under way, or is to come.
    fn operation(&self) -> Option<Operation> {
        match self {
            Life::Up | Life::Stopped => None,
            Life::Rereading(..) | Life::Stopping { then: Then::Serve(_), .. } => {
                Some(Operation::Restart)
            }
            Life::Stopping { then: Then::Stay, .. } => Some(Operation::Stop),
            Life::Stopping { then: Then::Start(_), .. } | Life::Reviving(..) => {
                Some(Operation::Start)
            }
        }
    }
}

impl Service {
    /// Whether it serves or is to: not where it was stopped, or is to stay so once it is.
    #[must_use]
    pub fn is_to_serve(&self) -> bool {
        match self.life {
            Life::Stopped | Life::Stopping { then: Then::Stay, .. } => false,
            Life::Up
            | Life::Rereading(..)
            | Life::Stopping { then: Then::Start(_) | Then::Serve(_), .. }
            | Life::Reviving(..) => true,
        }
    }

    /// Whether its workers are kept up.
    pub(super) fn serves(&self) -> bool {
        match self.life {
            Life::Up | Life::Rereading(..) | Life::Stopping { turn: Turn::Later { .. }, .. } => {
                !self.stopping
            }
            Life::Stopping { turn: Turn::Come, .. } | Life::Stopped | Life::Reviving(..) => false,
        }
    }

    /// What is under way in it that stands in the way of another operation.
    pub(super) fn operation(&self) -> Option<Operation> {
        let is_to_reload = self.queued.is_some() || self.back.is_some();
        let rolls = self.reload.as_ref().is_some_and(|reload| !reload.is_stuck());
        let reloads = rolls || is_to_reload || self.probation.is_some();
        let starts = self.first_start == FirstStart::UnderWay;
        match self.life.operation() {
            None if reloads => Some(Operation::Reload),
            None if starts => Some(Operation::Start),
            operation => operation,
        }
    }

    /// Whether a restart may be asked for.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn may_ask_restart(&self) -> Result<(), Refusal> {
        let is_wanted = |reload: &Reload| reload.cause.is_wanted() && !reload.is_stuck();
        let reloads = self.reload.as_ref().is_some_and(is_wanted) || self.queued.is_some();
        let operation = match (&self.life, self.life.operation()) {
            (Life::Up, _) if reloads => Operation::Reload,
            (Life::Up | Life::Stopped, _) => return Ok(()),
            // It is started once it has stopped.
            (_, Some(Operation::Stop) | None) => return Ok(()),
            (_, Some(operation)) => operation,
        };
        Err(Refusal::InProgress { service: self.policy.name.clone(), operation })
    }

    /// Whether a stop may be asked for.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn may_ask_service_stop(&self) -> Result<(), Refusal> {
        match &self.life {
            Life::Stopping { stops, .. } => self.may_wait(stops, Operation::Stop),
            Life::Up | Life::Rereading(..) | Life::Stopped | Life::Reviving(..) => Ok(()),
        }
    }

    /// Whether a start may be asked for.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn may_ask_start(&self) -> Result<(), Refusal> {
        let waiting = match &self.life {
            Life::Up | Life::Rereading(..) => &self.starters,
            Life::Stopping { then: Then::Start(requests), .. }
            | Life::Stopping { then: Then::Serve(Coming { requests, .. }), .. }
            | Life::Reviving(Coming { requests, .. }, _) => requests,
            Life::Stopping { then: Then::Stay, .. } | Life::Stopped => return Ok(()),
        };
        self.may_wait(waiting, Operation::Start)
    }

    /// Asks that it be stopped and started with another generation.
    pub fn ask_restart(&mut self, request: RequestId, context: &mut Context<'_>) {
        match self.life {
            Life::Up => {}
            Life::Rereading(..) | Life::Stopping { .. } | Life::Stopped | Life::Reviving(..) => {
                return self.ask_start(request, context);
            }
        }
        self.leave_probation(context);
        let generation = self.next_generation();
        self.policies.insert(generation, Rc::clone(&self.policy));
        // With nobody beside it, it takes what waits.
        let heir_of = Some(self.serving.generation);
        self.sockets.take_up(generation, &self.policy.sockets, heir_of);
        self.tell_life(LifeNotice::RestartBegins { generation }, context);
        let coming = Coming { generation, requests: vec![request] };
        self.life = Life::Rereading(coming, Reading::UnderWay);
        self.prepare(generation, Vec::new(), context);
    }

    /// Asks that it serve, if it does not.
    pub fn ask_start(&mut self, request: RequestId, context: &mut Context<'_>) {
        match &mut self.life {
            Life::Up | Life::Rereading(..) if self.first_start == FirstStart::Committed => {
                self.respond(vec![request], &self.done(), context);
            }
            Life::Up | Life::Rereading(..) => self.starters.push(request),
            Life::Stopping { then: Then::Start(requests), .. }
            | Life::Stopping { then: Then::Serve(Coming { requests, .. }), .. }
            | Life::Reviving(Coming { requests, .. }, _) => requests.push(request),
            Life::Stopping { then, .. } => *then = Then::Start(vec![request]),
            Life::Stopped => self.begin_start(vec![request], context),
        }
    }

    /// What a configuration that was read says of it, and a request that waits for that to serve. It
    /// is reloaded with it; one that is stopped comes to be it when it is started, and the sockets
    /// that were bound for it meanwhile are closed again.
    pub fn take_news(&mut self, policy: Policy, request: RequestId, context: &mut Context<'_>) {
        match std::mem::replace(&mut self.life, Life::Up) {
            life @ (Life::Up
            | Life::Rereading(..)
            | Life::Stopping { then: Then::Serve(_), .. }) => {
                self.life = life;
                self.redefine(policy);
                self.ask_reload(request, context);
            }
            life @ (Life::Stopped | Life::Stopping { then: Then::Stay, .. }) => {
                self.life = life;
                self.redefine_for_later(policy, context);
                // Nothing becomes of it by that.
                self.respond(vec![request], &End::LeftOut, context);
            }
            Life::Stopping { turn, stops, then: Then::Start(mut requests) } => {
                requests.push(request);
                self.life = Life::Stopping { turn, stops, then: Then::Start(requests) };
                self.redefine_for_later(policy, context);
            }
            // It begins once more, with what was read last.
            Life::Reviving(mut coming, _) => {
                coming.requests.push(request);
                self.redefine_for_later(policy, context);
                self.begin_start(coming.requests, context);
            }
        }
    }

    fn redefine_for_later(&mut self, policy: Policy, context: &mut Context<'_>) {
        let known = |id: SocketId| {
            let policies = self.next.iter().chain([&self.policy]);
            policies.flat_map(|policy| &policy.sockets).any(|socket| socket.id == id)
        };
        for socket in policy.sockets.iter().filter(|socket| !known(socket.id)) {
            // One that still serves may have it from a reload that is off.
            let unused = socket.members().filter(|&member| !self.sockets.has(member));
            context.actions.extend(unused.map(Action::Close));
        }
        self.next = Some(Rc::new(policy));
    }

    /// Asks that it be stopped, and stay so.
    pub fn ask_service_stop(&mut self, now: Time, request: RequestId, context: &mut Context<'_>) {
        self.stopped_with = None;
        self.go_down(now, vec![request], context);
    }

    /// It is to stop, and stay so. What was to change it is off.
    pub(super) fn go_down(
        &mut self,
        now: Time,
        requests: Vec<RequestId>,
        context: &mut Context<'_>,
    ) {
        match std::mem::replace(&mut self.life, Life::Stopped) {
            Life::Up => self.go_down_in_turn(now, requests, context),
            Life::Rereading(coming, _) => {
                self.refuse_as_stopping(coming.requests, context);
                self.go_down_in_turn(now, requests, context);
            }
            Life::Stopping { turn, mut stops, then } => {
                stops.extend(requests);
                self.life = Life::Stopping { turn, stops, then: Then::Stay };
                match (then, turn) {
                    (Then::Stay, _) => {}
                    (Then::Start(requests), _) => self.refuse_as_stopping(requests, context),
                    (Then::Serve(coming), Turn::Come) => {
                        self.close_sockets(context);
                        self.refuse_as_stopping(coming.requests, context);
                    }
                    (Then::Serve(coming), Turn::Later { .. }) => {
                        self.refuse_as_stopping(coming.requests, context);
                        self.end_what_was_asked(now, context);
                    }
                }
                self.refuse_reload(context);
            }
            Life::Stopped => self.respond(requests, &self.done(), context),
            Life::Reviving(coming, _) => {
                self.refuse_as_stopping(coming.requests, context);
                self.refuse_reload(context);
                self.tell_stopped(context);
                self.respond(requests, &self.done(), context);
            }
        }
    }

    /// The same, of one that serves.
    fn go_down_in_turn(&mut self, now: Time, stops: Vec<RequestId>, context: &mut Context<'_>) {
        self.life = Life::Stopping { turn: Turn::Later { told: false }, stops, then: Then::Stay };
        self.end_what_was_asked(now, context);
        self.refuse_reload(context);
    }

    /// A reload under way ends with its service, and so does the wait for its workers.
    fn end_what_was_asked(&mut self, now: Time, context: &mut Context<'_>) {
        self.waits_for.clear();
        self.end_reload(now, context);
        let starters = std::mem::take(&mut self.starters);
        self.refuse_as_stopping(starters, context);
    }

    /// What a restart or a start needs is there.
    pub(super) fn change_prepared(&mut self, generation: GenerationId, bound: Vec<BoundMember>) {
        match std::mem::replace(&mut self.life, Life::Up) {
            // It is to stop when those that are restarted with it are read too.
            Life::Rereading(coming, _) if coming.generation == generation => {
                self.life = Life::Rereading(coming, Reading::Over);
            }
            Life::Reviving(coming, wanted) if coming.generation == generation => {
                self.sockets.open(generation, &wanted, bound);
                self.open_coming(&coming, &wanted);
                self.begin_to_serve(coming);
            }
            // It was prepared before: told twice, it changes nothing.
            life @ (Life::Up
            | Life::Rereading(..)
            | Life::Stopping { .. }
            | Life::Stopped
            | Life::Reviving(..)) => self.life = life,
        }
    }

    /// What a restart or a start needs cannot be had.
    pub(super) fn change_failed(&mut self, fault: Fault, context: &mut Context<'_>) {
        let refusal = End::Refused(self.refusal(fault.clone()));
        let (Fault::Definition(reason) | Fault::Sockets(reason)) = fault;
        match std::mem::replace(&mut self.life, Life::Up) {
            Life::Rereading(coming, _) => {
                self.tell_life(LifeNotice::RestartAborted { reason }, context);
                self.respond(coming.requests, &refusal, context);
            }
            Life::Reviving(coming, _) => {
                self.life = Life::Stopped;
                self.tell_life(LifeNotice::StartFailed { reason }, context);
                self.respond(coming.requests, &refusal, context);
                let queued = self.queued.take().unwrap_or_default();
                let stopped = Refusal::ServiceStopped { service: self.policy.name.clone() };
                self.respond(queued, &End::Refused(stopped), context);
            }
            life @ (Life::Up | Life::Stopping { .. } | Life::Stopped) => self.life = life,
        }
    }

    /// How a request is refused whose generation cannot be.
    #[must_use]
    pub fn refusal(&self, fault: Fault) -> Refusal {
        match fault {
            Fault::Definition(reason) => Refusal::Configuration(reason),
            Fault::Sockets(reason) => {
                Refusal::Sockets { service: Some(self.policy.name.clone()), reason }
            }
        }
    }

    /// The last process of one that is stopping has gone: what was to come then does.
    pub fn take_next_step(&mut self, context: &mut Context<'_>) {
        if !self.workers.is_empty() || self.is_binding() {
            return;
        }
        let (stops, then) = match std::mem::replace(&mut self.life, Life::Stopped) {
            Life::Stopping { turn: Turn::Come, stops, then } => (stops, then),
            life @ (Life::Up
            | Life::Rereading(..)
            | Life::Stopping { turn: Turn::Later { .. }, .. }
            | Life::Stopped
            | Life::Reviving(..)) => {
                self.life = life;
                return;
            }
        };
        match then {
            Then::Serve(coming) => return self.begin_to_serve(coming),
            Then::Stay => self.tell_stopped(context),
            Then::Start(requests) => {
                self.tell_stopped(context);
                self.begin_start(requests, context);
            }
        }
        self.respond(stops, &self.done(), context);
    }

    /// A stop of everything is near: what was to change the service is off, unless it is in the
    /// middle of a restart. That serves again, as long as the others do.
    pub(super) fn give_up_changes(&mut self, refusal: &Refusal, context: &mut Context<'_>) {
        let stopping = End::Refused(refusal.clone());
        match std::mem::replace(&mut self.life, Life::Up) {
            Life::Rereading(coming, _)
            | Life::Stopping { turn: Turn::Later { .. }, then: Then::Serve(coming), .. } => {
                let reason = "everything is being stopped".to_owned();
                self.tell_life(LifeNotice::RestartAborted { reason }, context);
                self.respond(coming.requests, &stopping, context);
            }
            Life::Stopping { turn, stops, then: Then::Start(requests) } => {
                self.life = Life::Stopping { turn, stops, then: Then::Stay };
                self.respond(requests, &stopping, context);
            }
            Life::Reviving(coming, _) => {
                self.life = Life::Stopped;
                self.tell_stopped(context);
                self.respond(coming.requests, &stopping, context);
            }
            life @ (Life::Up | Life::Stopping { .. } | Life::Stopped) => self.life = life,
        }
    }

    /// Everything stops: nothing comes after that. Who waits for a stop is told when it is over.
    pub(super) fn give_up_life(&mut self, refusal: &Refusal, context: &mut Context<'_>) {
        let starters = std::mem::take(&mut self.starters);
        let stopping = End::Refused(refusal.clone());
        self.respond(starters, &stopping, context);
        self.give_up_changes(refusal, context);
        match std::mem::replace(&mut self.life, Life::Stopped) {
            // Its workers are asked now, whoever is left.
            Life::Stopping { turn: Turn::Come | Turn::Later { .. }, stops, then } => {
                self.life = Life::Stopping { turn: Turn::Come, stops, then: Then::Stay };
                match then {
                    Then::Serve(Coming { requests, .. }) | Then::Start(requests) => {
                        self.respond(requests, &stopping, context);
                    }
                    Then::Stay => {}
                }
            }
            life @ (Life::Up | Life::Rereading(..) | Life::Stopped | Life::Reviving(..)) => {
                self.life = life;
            }
        }
    }

    /// All its workers are ready together.
    pub(super) fn note_committed(&mut self, context: &mut Context<'_>) {
        self.first_start = FirstStart::Committed;
        self.past = Past::HasComeUp;
        let starters = std::mem::take(&mut self.starters);
        self.respond(starters, &self.done(), context);
    }

    /// A worker of those that are to serve has ended: who waits for all to be ready hears of it.
    pub(super) fn tell_starters(
        &mut self,
        worker: &WorkerName,
        end: &Told<'_>,
        context: &mut Context<'_>,
    ) {
        let starters = std::mem::take(&mut self.starters);
        let response = End::Refused(Refusal::Failed {
            service: self.policy.name.clone(),
            reason: format!("{worker} {end}; shepherd goes on trying"),
            worker: Some(worker.worker),
        });
        self.respond(starters, &response, context);
    }

    /// Reads the definition and binds the sockets of one that is stopped.
    fn begin_start(&mut self, requests: Vec<RequestId>, context: &mut Context<'_>) {
        // What was read of it since, it is from here on.
        if let Some(next) = self.next.take() {
            if next.workers != self.policy.workers {
                self.wanted = next.workers;
            }
            self.take_policy(next);
        }
        let generation = self.next_generation();
        self.policies.insert(generation, Rc::clone(&self.policy));
        self.sockets.take_up(generation, &self.policy.sockets, None);
        self.tell_life(LifeNotice::StartBegins { generation }, context);
        let each_slot = |socket: &&Socket| matches!(socket.members, Members::EachSlot { .. });
        let mut bind = self.new_members(generation, self.wanted, context);
        for socket in self.policy.sockets.iter().filter(each_slot) {
            for slot in (0..self.wanted).map(SlotId) {
                *context.last_member += 1;
                let member = MemberId(*context.last_member);
                bind.push(NewMember { socket: socket.id, slot: Some(slot), member });
            }
        }
        self.sockets.ask(generation, &bind);
        self.life = Life::Reviving(Coming { generation, requests }, bind.clone());
        self.prepare(generation, bind, context);
    }

    /// What was bound for a start is there: the slots that have sockets of their own have them.
    fn open_coming(&mut self, coming: &Coming, wanted: &[NewMember]) {
        let each_slot = self.slots.sockets().to_vec();
        for wanted in wanted.iter().filter(|wanted| each_slot.contains(&wanted.socket)) {
            if let Some(slot) = wanted.slot {
                self.slots.bound(slot);
            }
        }
        let slots = wanted.iter().filter_map(|new| Some((new.socket, new.slot?)));
        self.open_own_slots(coming.generation, slots);
    }

    /// A generation serves from here on, with nobody beside it.
    fn begin_to_serve(&mut self, coming: Coming) {
        self.life = Life::Up;
        self.stopped_with = None;
        self.first_start = FirstStart::of(&self.policy);
        self.serving = Fleet::new(coming.generation);
        self.failed = None;
        self.starters.extend(coming.requests);
    }

    /// A reload under way ends with its service.
    pub(super) fn end_reload(&mut self, now: Time, context: &mut Context<'_>) {
        self.leave_probation(context);
        let reason = "the service is being stopped".to_owned();
        self.could_not_take_back(&reason, None, context);
        // Slots are put back until its turn comes.
        self.answer_not_put_back(context);
        let Some(reload) = self.reload.take_if(|reload| !reload.is_off()) else { return };
        let generation = reload.generation;
        self.sockets.abort();
        let response = self.aborted(reason.clone(), None);
        context.notice(Notice::ReloadAborted {
            service: self.policy.name.clone(),
            generation,
            serving: self.serving.generation,
            reason,
            next: AfterAbort::Stops,
        });
        // They serve nobody, however long those of the generation that serves do.
        let requests = self.stop_new(now, reload, &response, context);
        self.respond(requests, &response, context);
        self.answer_not_put_back(context);
    }

    pub(super) fn tell_stopped(&self, context: &mut Context<'_>) {
        self.tell_life(LifeNotice::Stopped { with: self.stopped_with.clone() }, context);
    }

    fn prepare(&self, generation: GenerationId, bind: Vec<NewMember>, context: &mut Context<'_>) {
        let (service, like) = (self.policy.service, None);
        context.actions.push_back(Action::Prepare { service, generation, like, bind });
    }

    pub(super) fn tell_life(&self, what: LifeNotice, context: &mut Context<'_>) {
        context.notice(Notice::Life { service: self.policy.name.clone(), what });
    }

    pub(super) fn close_sockets(&mut self, context: &mut Context<'_>) {
        self.slots.close_all();
        self.own_slots.values_mut().for_each(SlotSockets::close_all);
        context.actions.extend(self.sockets.close());
    }

    /// Whoever waits for the next reload does so for nothing.
    fn refuse_reload(&mut self, context: &mut Context<'_>) {
        let queued = self.queued.take().unwrap_or_default();
        self.refuse_as_stopping(queued, context);
    }

    fn refuse_as_stopping(&self, requests: Vec<RequestId>, context: &mut Context<'_>) {
        let service = self.policy.name.clone();
        let refusal = match self.stopped_with.clone() {
            None => Refusal::ServiceStopping { service },
            Some(other) => Refusal::BoundToStopped { service, other },
        };
        self.respond(requests, &End::Refused(refusal), context);
    }

    fn may_wait(&self, waiting: &[RequestId], operation: Operation) -> Result<(), Refusal> {
        if waiting.len() < WAITING_MAX {
            return Ok(());
        }
        Err(Refusal::TooMany { service: Some(self.policy.name.clone()), operation })
    }
}

#[cfg(test)]
mod tests;
