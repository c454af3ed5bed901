//! A service tells a proxy in front which of its slots have a ready worker, and stops the last ready
//! worker of a slot only once the proxy sends it nothing more. When what is told is decided in
//! [`crate::core::publication`].

use std::rc::Rc;

use crate::core::action::Action;
use crate::core::ids::WorkerId;
use crate::core::notice::{Notice, UpstreamsNotice};
use crate::core::policy::Policy;
use crate::core::publication::{Failure, WITHDRAW_MAX};
use crate::core::repair::is_worth_telling;
use crate::core::time::{Time, Why};
use crate::core::worker::Worker;

use super::{Context, Service};

impl Service {
    /// A round is over: it went well, or not, for this reason.
    pub fn handle_published(
        &mut self,
        now: Time,
        number: u64,
        failure: Option<String>,
        context: &mut Context<'_>,
    ) {
        if !self.publication.awaits(number) {
            return;
        }
        match failure {
            None => self.publication.succeeded(),
            Some(reason) => {
                let Failure { pause, count } = self.publication.failed(now, context.random);
                if is_worth_telling(count) {
                    self.tell_upstreams(UpstreamsNotice::Failed { reason, pause }, context);
                }
            }
        }
    }

    /// Ends a round that has had its time.
    pub(super) fn publication_timeout(&mut self, now: Time, context: &mut Context<'_>) {
        if self.publication.is_overdue(now) {
            let service = self.policy.service;
            context.actions.push_back(Action::EndPublish { service });
            let Failure { pause, count } = self.publication.failed(now, context.random);
            if is_worth_telling(count) {
                self.tell_upstreams(UpstreamsNotice::Late { pause }, context);
            }
        }
    }

    pub(super) fn publication_deadline(&self) -> Option<(Time, Why)> {
        // What failed is not tried again for its own sake once everything stops.
        let waits = !self.stopping || self.publication.is_under_way() && !self.is_empty();
        let at = self.publication.deadline().filter(|_| waits)?;
        Some((at, Why::Publish))
    }

    /// Tells the proxy what has changed, and lets those go that it sends nothing more.
    pub(super) fn publish(&mut self, now: Time, context: &mut Context<'_>) {
        if self.policy.proxy.is_none() {
            return;
        }
        let ready = self.workers.ready_slots().collect();
        if let Some(round) = self.publication.next(now, ready) {
            let slots = round.slots.clone();
            self.tell_upstreams(UpstreamsNotice::Told { slots }, context);
            context.actions.push_back(Action::Publish {
                service: self.policy.service,
                generation: self.serving.generation,
                number: round.number,
                slots: round.slots,
            });
        }
        let free = |id: &WorkerId| {
            let worker = self.workers.get(*id).filter(|worker| worker.is_withdrawing());
            worker.is_none_or(|worker| !self.is_last_shown(worker))
        };
        let released: Vec<WorkerId> = self.withdrawing.iter().copied().filter(free).collect();
        for id in released {
            self.withdrawing.remove(&id);
            if self.workers.get(id).is_some_and(Worker::is_withdrawing) {
                self.empty_or_stop(now, id, context);
            }
        }
    }

    /// It is this from here on.
    pub(super) fn take_policy(&mut self, policy: Rc<Policy>) {
        if policy.proxy != self.policy.proxy {
            self.publication.turn(policy.proxy.is_some());
        }
        self.policy = policy;
    }

    /// Asks a worker to stop, once the proxy in front sends it nothing more, where that matters.
    pub(super) fn ask_stop(&mut self, now: Time, id: WorkerId, context: &mut Context<'_>) {
        let Some(worker) = self.workers.get(id) else { return };
        if worker.is_withdrawing() {
            return;
        }
        if worker.is_ready() && self.is_last_shown(worker) {
            let until = now + WITHDRAW_MAX;
            self.withdrawing.insert(id);
            self.with_worker(id, context, |worker, scene| worker.withdraw(now, until, scene));
        } else {
            self.empty_or_stop(now, id, context);
        }
    }

    /// Whether the proxy may send connections to the slot of this worker, and no other worker there
    /// takes them.
    fn is_last_shown(&self, worker: &Worker) -> bool {
        let itself = u32::from(worker.is_ready());
        self.publication.shows(worker.slot) && self.workers.ready_in(worker.slot) == itself
    }

    fn tell_upstreams(&self, what: UpstreamsNotice, context: &mut Context<'_>) {
        let service = self.policy.name.clone();
        context.notice(Notice::Upstreams { service, what });
    }
}
