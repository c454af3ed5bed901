//! A service comes with a configuration, takes over what another says of it, and goes with a third.

use std::rc::Rc;

use crate::core::ids::RequestId;
use crate::core::notice::{ConfigurationNotice, Notice};
use crate::core::policy::Policy;
use crate::core::refusal::Refusal;
use crate::core::reload::{Reload, ReloadStage};
use crate::core::request::End;
use crate::core::status::Membership;
use crate::core::time::Time;

use super::{Context, FirstStart, Service};

impl Service {
    /// One that a request has added, which is answered once it has come up or failed to.
    #[must_use]
    pub fn added(policy: Policy, request: RequestId) -> Service {
        Service { starters: vec![request], ..Service::new(policy) }
    }

    /// The next reload that is asked for brings this. Its sockets are open.
    pub fn redefine(&mut self, policy: Policy) {
        self.sockets.announce(&policy.sockets);
        self.next = Some(Rc::new(policy));
    }

    /// It is in no configuration any more: it serves until it is dismissed, and is not known to
    /// operators.
    pub fn leave(&mut self) {
        self.membership = Membership::Leaving;
    }

    /// Whether it is in no configuration any more.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.membership == Membership::Leaving
    }

    /// Whether it was asked to stop because of that.
    #[must_use]
    pub fn is_dismissed(&self) -> bool {
        self.is_leaving() && self.is_stopping()
    }

    /// Gives up everything that was to come and asks all workers to stop. Its sockets stay open until
    /// the last worker that has them is gone.
    pub fn dismiss(&mut self, now: Time, context: &mut Context<'_>) {
        let service = self.policy.name.clone();
        let workers = self.workers.len();
        context.notice(Notice::Configuration(ConfigurationNotice::Leaves {
            service: service.clone(),
            workers,
        }));
        self.give_up(&Refusal::ServiceStopping { service }, context);
        for id in self.workers.ids() {
            self.ask_stop(now, id, context);
        }
    }

    /// Whether a worker ended before all of its first ones were ready, and they are not yet.
    #[must_use]
    pub fn has_stumbled(&self) -> bool {
        self.first_start == FirstStart::Stumbled
    }

    /// Whether the workers of a reload are being started, beside those that serve.
    #[must_use]
    pub fn is_rolling(&self) -> bool {
        self.rolling().is_some() && self.first_start != FirstStart::Waiting
    }

    /// Whoever waits for its first start is told that it may take for ever.
    pub fn give_up_start(&mut self, reason: String, context: &mut Context<'_>) {
        let starters = std::mem::take(&mut self.starters);
        let service = self.policy.name.clone();
        let failed = End::Refused(Refusal::Failed { service, reason, worker: None });
        self.respond(starters, &failed, context);
    }

    /// The workers of the reload under way wait while another service has to come up, and for one
    /// that does not the reload is off. Returns whether it may go on that could not before, or is off.
    pub fn hold_reload(
        &mut self,
        now: Time,
        holds: bool,
        hopeless: Option<String>,
        context: &mut Context<'_>,
    ) -> bool {
        if self.reload.as_ref().is_some_and(Reload::is_off) {
            return false;
        }
        if let Some(reason) = hopeless {
            self.abort(now, reason, None, context);
            return true;
        }
        let Some(reload) = &mut self.reload else { return false };
        std::mem::replace(&mut reload.held, holds) && !holds
    }

    /// One that has not begun takes a definition over as soon as it is read: there is nobody to
    /// replace.
    pub(super) fn take_over(&mut self, now: Time, context: &mut Context<'_>) {
        if self.first_start != FirstStart::Waiting {
            return;
        }
        let wanted = self.wanted_next();
        let Some(reload) = self.reload.take_if(|it| matches!(it.stage, ReloadStage::Rolling(_)))
        else {
            return;
        };
        if let ReloadStage::Rolling(fleet) = reload.stage {
            self.serving = fleet;
        }
        self.wanted = wanted;
        if let Some(policy) = self.policies.get(&reload.generation).cloned() {
            self.take_policy(policy);
        }
        let service = self.policy.name.clone();
        let generation = reload.generation;
        let what = ConfigurationNotice::Redefined { service, generation };
        context.notice(Notice::Configuration(what));
        self.respond(reload.requests, &self.done(), context);
        // One that was queued meanwhile begins within this turn.
        self.begin_reload(now, context);
    }
}
