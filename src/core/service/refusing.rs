//! A service that fails again and again has clients refused between its attempts, where its author
//! wants that, so that they go elsewhere at once. A worker is only ever given sockets that listen, so
//! they listen again right before one is started, and for good once one is ready.

use crate::core::action::Action;
use crate::core::policy::OnFailing;
use crate::core::worker::{Worker, WorkerState};

use super::life::Life;
use super::{Context, Service};

impl Service {
    /// What becomes of clients while it fails: they can be refused only where a socket can.
    pub(super) fn on_failing(&self) -> OnFailing {
        match self.policy.on_failing {
            OnFailing::Refuse if self.sockets.can_refuse(self.serving.generation) => {
                OnFailing::Refuse
            }
            OnFailing::Refuse | OnFailing::Wait => OnFailing::Wait,
        }
    }

    /// Has clients refused while that is wanted and there is nobody for whom they could wait.
    pub(super) fn refuse(&mut self, context: &mut Context<'_>) {
        if self.refuses() {
            context.actions.extend(self.sockets.refuse(self.serving.generation));
        } else {
            self.accept_again(context);
        }
    }

    /// Clients can connect again.
    pub(super) fn accept_again(&mut self, context: &mut Context<'_>) {
        for member in self.sockets.accept_again() {
            context.actions.push_back(Action::Listen(member));
            self.sockets.listens_again(member);
            // The next one of its group must not be found before it is steered to.
            self.steer(context);
        }
    }

    fn refuses(&self) -> bool {
        let may_serve = |worker: &Worker| match worker.state {
            WorkerState::Starting { .. }
            | WorkerState::Ready { .. }
            | WorkerState::Withdrawing { .. }
            | WorkerState::Emptying { .. } => true,
            WorkerState::Draining { .. }
            | WorkerState::Orphaned { .. }
            | WorkerState::Killed { .. } => false,
        };
        self.failing
            && self.policy.on_failing == OnFailing::Refuse
            && self.serves()
            && matches!(self.life, Life::Up)
            // What is bound meanwhile joins groups, of which one at least has to listen.
            && self.reload.is_none()
            && !self.is_binding()
            && !self.workers.iter().any(may_serve)
    }
}

#[cfg(test)]
mod tests;
