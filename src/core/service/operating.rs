//! What operators ask of a service besides a reload.

use crate::core::action::Action;
use crate::core::ids::{RequestId, WorkerId};
use crate::core::notice::{Notice, WorkerName};
use crate::core::policy::Signal;
use crate::core::refusal::{CannotScale, Refusal};
use crate::core::request::{Abort, End, Part, Scale, ServiceOutcome};
use crate::core::time::Time;
use crate::core::worker::WorkerState;

use super::{Context, Outcome, Service, WORKERS_MAX};

impl Service {
    /// Changes how many workers are wanted.
    pub fn ask_scale(&mut self, request: RequestId, to: Scale, context: &mut Context<'_>) {
        let most = self.policy.workers_max();
        let wanted = match to {
            Scale::To(wanted) => i64::from(wanted),
            Scale::By(by) => {
                let wanted = i64::from(self.wanted) + i64::from(by);
                // As far as it goes, if it goes anywhere.
                let near = wanted.clamp(1, i64::from(most));
                if near == i64::from(self.wanted) { wanted } else { near }
            }
        };
        let service = self.policy.name.clone();
        let within = u32::try_from(wanted).ok().filter(|wanted| (1..=most).contains(wanted));
        let response = if let Some(wanted) = within {
            self.wanted = wanted;
            if let Some(reload) = &mut self.reload {
                reload.workers = None;
            }
            context.notice(Notice::Scaled { service, workers: wanted });
            self.done()
        } else {
            let why = match wanted {
                ..1 => CannotScale::TooFew,
                _ if wanted <= i64::from(WORKERS_MAX) => CannotScale::NoPorts,
                _ => CannotScale::TooMany,
            };
            context.notice(Notice::NotScaled { service: service.clone(), why });
            End::Refused(Refusal::CannotScale { service, why })
        };
        self.respond(vec![request], &response, context);
    }

    /// Sends a signal to a worker's main process, or KILL to its tree.
    pub fn send_signal(
        &mut self,
        now: Time,
        id: WorkerId,
        signal: Signal,
        context: &mut Context<'_>,
    ) -> End {
        let Some(worker) = self.workers.get(id) else {
            return End::Refused(Refusal::NoSuchWorker { worker: id });
        };
        let kills = signal == Signal::Kill;
        let serves = match worker.state {
            WorkerState::Starting { .. } | WorkerState::Ready { .. } => true,
            WorkerState::Withdrawing { .. }
            | WorkerState::Emptying { .. }
            | WorkerState::Draining { .. } => false,
            WorkerState::Orphaned { .. } | WorkerState::Killed { .. } if kills => false,
            WorkerState::Orphaned { .. } | WorkerState::Killed { .. } => {
                return End::Refused(Refusal::WorkerNotRunning { worker: id });
            }
        };
        if worker.pid.is_none() && !kills {
            return End::Refused(Refusal::WorkerNotRunning { worker: id });
        }
        let service = self.policy.name.clone();
        let name = WorkerName { worker: id, service, slot: worker.slot };
        context.notice(Notice::Signalled { worker: name, signal });
        match (kills, serves) {
            (false, _) => context.actions.push_back(Action::Signal(id, signal)),
            // Nobody has asked it to stop: its end is one like any other, and its slot is filled again.
            (true, true) => context.actions.push_back(Action::KillTree(id)),
            // The end of its ladder comes at once.
            (true, false) => {
                self.with_worker(id, context, |worker, scene| worker.kill(now, scene));
            }
        }
        self.done()
    }

    /// What a request that was done has made of it.
    pub(super) fn done(&self) -> End {
        End::Done(ServiceOutcome {
            name: self.policy.name.clone(),
            generation: self.serving.generation,
            workers: self.wanted,
        })
    }

    /// How a reload that was begun and given up is answered.
    pub(super) fn aborted(&self, reason: String, worker: Option<WorkerId>) -> End {
        let service = self.policy.name.clone();
        End::Aborted(Abort { service, reason, worker, put_back: true })
    }

    /// Answers requests, as far as this service is concerned.
    pub(super) fn respond(&self, requests: Vec<RequestId>, end: &End, context: &mut Context<'_>) {
        let service = self.policy.service;
        let part = Part {
            service: self.policy.name.clone(),
            serving: self.serves().then_some(self.serving.generation),
            end: end.clone(),
        };
        let outcome = |request| Outcome { request, service, part: part.clone() };
        context.outcomes.extend(requests.into_iter().map(outcome));
    }
}
