//! A new generation proves itself: by a part of new connections before it is committed, and for a
//! time after it serves all of them. One that fails is taken back.

use crate::core::ids::{RequestId, WorkerId};
use crate::core::notice::{Notice, ProvingNotice};
use crate::core::refusal::Refusal;
use crate::core::reload::{Failure, Probation};
use crate::core::request::Behind;
use crate::core::time::{Time, Why};

use super::{Context, Direction, Service};

impl Service {
    /// Whether the definition that served before may be asked for.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn may_ask_roll_back(&self) -> Result<(), Refusal> {
        self.may_ask_reload(Behind::Refuse)?;
        if self.previous.is_some_and(|previous| self.policies.contains_key(&previous)) {
            Ok(())
        } else {
            Err(Refusal::NothingBefore { service: self.policy.name.clone() })
        }
    }

    /// Asks for the definition that served before.
    pub fn ask_roll_back(&mut self, request: RequestId) {
        self.direction = Direction::Back;
        self.queued.get_or_insert_default().push(request);
    }

    /// All workers of a reload are ready: whether they have had the part of new connections that is
    /// theirs before it may be committed. It begins here.
    pub(super) fn has_proved_itself(&mut self, now: Time, context: &mut Context<'_>) -> bool {
        let Some(reload) = &mut self.reload else { return false };
        let canary = self.policies.get(&reload.generation).and_then(|policy| policy.canary);
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
        let canary = self.reload.as_ref().and_then(|reload| reload.canary);
        let probation = self.probation.as_ref().map(|probation| probation.until);
        canary.into_iter().chain(probation).min().map(|at| (at, Why::Trial))
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
        reason: String,
        context: &mut Context<'_>,
    ) {
        let Some(Probation { requests, .. }) = self.probation.take() else { return };
        let generation = self.serving.generation;
        self.tell_proving(ProvingNotice::Failed { generation }, context);
        self.taken_back = Some(Failure { reason, worker });
        self.direction = Direction::Back;
        self.queued.get_or_insert_default().extend(requests);
    }

    fn tell_proving(&self, what: ProvingNotice, context: &mut Context<'_>) {
        context.notice(Notice::Proving { service: self.policy.name.clone(), what });
    }
}
