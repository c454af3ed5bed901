//! A new generation proves itself: by a part of new connections before it is committed, and for a
//! time after it serves all of them. One that fails is taken back.

use crate::core::ids::{GenerationId, RequestId, WorkerId};
use crate::core::notice::{Notice, ProvingNotice};
use crate::core::refusal::Refusal;
use crate::core::reload::{Failure, Pace, Probation, Reload, ReloadCause};
use crate::core::request::{Abort, Behind, End};
use crate::core::time::{Time, Why};

use super::{Context, Service, reason_of};

impl Service {
    /// Whether the definition that served before may be asked for: not during another operation,
    /// except where the one that serves, or is to, has to prove itself.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn may_ask_roll_back(&self) -> Result<(), Refusal> {
        if self.is_in_canary() {
            return Ok(());
        }
        if self.probation.is_none() {
            self.may_ask_reload(Behind::Refuse)?;
        }
        if self.previous.is_some_and(|previous| self.policies.contains_key(&previous)) {
            Ok(())
        } else {
            Err(Refusal::NothingBefore { service: self.policy.name.clone() })
        }
    }

    /// Asks for the definition that served before. One that has to prove itself has not: whoever
    /// asked for that is told so.
    pub fn ask_roll_back(&mut self, now: Time, request: RequestId, context: &mut Context<'_>) {
        let reason = "it was rolled back on request".to_owned();
        if self.is_in_canary() {
            self.abort(now, reason, None, context);
            let requests = self.wait_for_put_back(request);
            return self.respond(requests, &self.done(), context);
        }
        if let Some(Probation { requests, .. }) = self.probation.take() {
            self.taken_back = Some(Failure { reason, worker: None, requests });
        }
        self.back.get_or_insert_default().push(request);
    }

    /// Whether the workers of a reload have a part of new connections.
    fn is_in_canary(&self) -> bool {
        let has_part = |reload: &Reload| !reload.is_off() && reload.canary.is_some();
        self.reload.as_ref().is_some_and(has_part)
    }

    /// All workers of a reload are ready: whether they have had the part of new connections that is
    /// theirs before it may be committed. It begins here.
    pub(super) fn has_proved_itself(&mut self, now: Time, context: &mut Context<'_>) -> bool {
        let Some(reload) = &mut self.reload else { return false };
        let canary = match reload.cause {
            ReloadCause::Asked => {
                self.policies.get(&reload.generation).and_then(|policy| policy.canary)
            }
            // What has served before has proved itself, and what serves may be worse.
            ReloadCause::SocketRenewed | ReloadCause::RollBack(_) | ReloadCause::Failed(_) => None,
        };
        match (canary, reload.canary) {
            (None, _) => true,
            (Some(_), Some(until)) => until <= now,
            (Some(canary), None) => {
                reload.canary = Some(now + canary.time);
                let generation = reload.generation;
                self.tell_proving(ProvingNotice::Canary { generation, canary }, context);
                false
            }
        }
    }

    /// When a trial under way is over.
    pub(super) fn trial_deadline(&self) -> Option<(Time, Why)> {
        let is_complete = self.rolling().is_some_and(|fleet| {
            let ready = self.workers.tally_of(fleet.generation).ready;
            match self.reload.as_ref().map(|reload| &reload.pace) {
                // The first one alone has a part; and after it there is no trial.
                Some(Pace::Batches(batches)) => batches.over.is_empty() && ready == 1,
                Some(Pace::AtOnce | Pace::Unknown) | None => ready == fleet.size(),
            }
        });
        // While a worker lacks, because more are wanted by now, its readiness is waited for.
        let ends = |reload: &&Reload| is_complete && !reload.held;
        let canary = self.reload.as_ref().filter(ends).and_then(|reload| reload.canary);
        let probation = self.probation.as_ref().map(|probation| probation.until);
        canary.into_iter().chain(probation).min().map(|at| (at, Why::Trial))
    }

    /// Another generation serves in the place of this one. It can be gone back to if it has proved
    /// itself: its workers have been ready together, and it did not fail on probation.
    pub(super) fn leave_behind(&mut self, old: GenerationId, cause: ReloadCause) {
        let good = Some(old).filter(|_| self.is_committed() && self.failed.is_none());
        self.previous = match cause {
            ReloadCause::Asked => good.or(self.previous),
            ReloadCause::RollBack(_) => good,
            ReloadCause::Failed(_) => None,
            // The same program leaves what came before it.
            ReloadCause::SocketRenewed => return,
        };
        self.failed = None;
    }

    /// A generation that was committed just now has to prove itself, if that is wanted. Gives back
    /// whoever need not wait for that.
    pub(super) fn begin_probation(
        &mut self,
        now: Time,
        requests: Vec<RequestId>,
        context: &mut Context<'_>,
    ) -> Vec<RequestId> {
        let time = self.policy.probation;
        if time.is_zero() || self.previous.is_none() {
            return requests;
        }
        let generation = self.serving.generation;
        self.tell_proving(ProvingNotice::Probation { generation, time }, context);
        self.probation = Some(Probation { until: now + time, requests });
        Vec::new()
    }

    /// The probation is over, if its time is.
    pub(super) fn end_probation(&mut self, now: Time, context: &mut Context<'_>) {
        if self.probation.as_ref().is_some_and(|probation| probation.until <= now) {
            let generation = self.serving.generation;
            self.tell_proving(ProvingNotice::Proved { generation }, context);
            self.leave_probation(context);
        }
    }

    /// Something else begins: whoever waited for the probation is told that the reload was done.
    pub(super) fn leave_probation(&mut self, context: &mut Context<'_>) {
        if let Some(Probation { requests, .. }) = self.probation.take() {
            let done = self.done();
            self.respond(requests, &done, context);
        }
    }

    /// A worker of the generation that serves has ended: on probation that is taken back.
    pub(super) fn fail_probation(
        &mut self,
        worker: WorkerId,
        reason: &str,
        context: &mut Context<'_>,
    ) {
        let Some(Probation { requests, .. }) = self.probation.take() else { return };
        let generation = self.serving.generation;
        self.failed = Some(generation);
        self.tell_proving(ProvingNotice::Failed { generation }, context);
        let reason = format!("{reason}, on probation");
        self.taken_back = Some(Failure { reason, worker: Some(worker), requests });
        self.back.get_or_insert_default();
    }

    /// What served before does not serve again, because of `reason`, which may be the end of a
    /// `worker`: whoever asked for what has failed is told so.
    pub(super) fn could_not_take_back(
        &mut self,
        reason: &str,
        worker: Option<WorkerId>,
        context: &mut Context<'_>,
    ) {
        let Some(failure) = self.taken_back.take() else { return };
        let service = self.policy.name.clone();
        let reason = format!("{}, and what served before does not again: {reason}", failure.reason);
        let worker = worker.or(failure.worker);
        let end = End::Aborted(Abort { service, reason, worker, put_back: false });
        self.respond(failure.requests, &end, context);
    }

    /// What served before is not to serve again, because of what `refusal` says.
    pub(super) fn give_up_roll_back(&mut self, refusal: &Refusal, context: &mut Context<'_>) {
        self.could_not_take_back(&reason_of(refusal), None, context);
        let requests = self.back.take().unwrap_or_default();
        self.respond(requests, &End::Refused(refusal.clone()), context);
    }

    /// A generation that is to serve again runs what is at this path by now.
    pub fn tell_by_path(
        &self,
        generation: GenerationId,
        path: Option<String>,
        context: &mut Context<'_>,
    ) {
        let Some(Reload { cause, .. }) =
            self.reload.as_ref().filter(|reload| reload.generation == generation)
        else {
            return;
        };
        match (cause, path) {
            (ReloadCause::RollBack(_) | ReloadCause::Failed(_), Some(path)) => {
                self.tell_proving(ProvingNotice::ByPath { generation, path }, context);
            }
            (ReloadCause::RollBack(_) | ReloadCause::Failed(_), None)
            | (ReloadCause::Asked | ReloadCause::SocketRenewed, _) => {}
        }
    }

    fn tell_proving(&self, what: ProvingNotice, context: &mut Context<'_>) {
        context.notice(Notice::Proving { service: self.policy.name.clone(), what });
    }
}

#[cfg(test)]
mod tests;
