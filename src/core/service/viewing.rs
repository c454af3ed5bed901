//! A service as people see it.

use crate::core::ids::SlotId;
use crate::core::slots::SlotSockets;
use crate::core::status::{Headline, Membership, ServiceState, ServiceStatus, Stage, WorkerStatus};
use crate::core::time::Time;
use crate::core::worker::{Worker, WorkerState};

use super::Service;
use super::life::Life;

impl Service {
    /// All that is shown of it.
    #[must_use]
    pub fn status(&self, now: Time) -> ServiceStatus {
        ServiceStatus {
            name: self.policy.name.clone(),
            state: self.state(),
            wanted: self.wanted,
            ready: self.workers.tally_of(self.serving.generation).ready,
            generation: self.serving.generation,
            balance: self.sockets.balance(self.serving.generation),
            committed: self.is_committed(),
            membership: if self.is_dismissed() { self.membership } else { Membership::Configured },
            waits_for: self.waits_for.clone(),
            failing: self.failing,
            reloading: self.reload.as_ref().map(|reload| reload.generation),
            last_abort: self.last_abort.clone(),
            queued: self.queued.is_some(),
            restarts: self.replaced,
            members: self.sockets.members_for(self.serving.generation, SlotId(0)),
            workers: self.workers.iter().map(|worker| self.worker_status(now, worker)).collect(),
            backing_off: self
                .serving
                .waiting()
                .chain(self.slots.waiting())
                .chain(self.own_slots.values().flat_map(SlotSockets::waiting))
                .map(|(slot, until)| (slot, now.until(until)))
                .collect(),
        }
    }

    /// The same in one line.
    #[must_use]
    pub fn headline(&self) -> Headline<'_> {
        Headline {
            name: &self.policy.name,
            state: self.state(),
            leaving: self.is_dismissed(),
            waits_for: &self.waits_for,
            wanted: self.wanted,
            ready: self.workers.tally_of(self.serving.generation).ready,
            draining: self.workers.tally().leaving,
            generation: self.serving.generation,
            failing: self.failing,
            reloading: self.reload.as_ref().map(|reload| reload.generation),
            last_abort: self.last_abort.as_deref(),
        }
    }

    fn state(&self) -> ServiceState {
        match self.life {
            _ if self.stopping => ServiceState::Stopping,
            Life::Stopping { .. } => ServiceState::Stopping,
            Life::Stopped => ServiceState::Stopped,
            Life::Reviving(..) => ServiceState::Starting,
            Life::Up | Life::Rereading(..) if self.failing => ServiceState::Failing,
            Life::Up | Life::Rereading(..) if self.reload.is_some() => ServiceState::Reloading,
            Life::Up | Life::Rereading(..) if !self.waits_for.is_empty() => ServiceState::Waiting,
            Life::Up | Life::Rereading(..) if self.is_committed() => ServiceState::Up,
            Life::Up | Life::Rereading(..) => ServiceState::Starting,
        }
    }

    fn worker_status(&self, now: Time, worker: &Worker) -> WorkerStatus {
        let stage = match worker.state {
            WorkerState::Starting { .. } => Stage::Starting,
            WorkerState::Ready { .. } => Stage::Ready,
            WorkerState::Withdrawing { .. }
            | WorkerState::Emptying { .. }
            | WorkerState::Draining { .. }
            | WorkerState::Orphaned { .. }
            | WorkerState::Killed { .. } => Stage::Draining,
        };
        WorkerStatus {
            worker: worker.id,
            slot: worker.slot,
            generation: worker.generation,
            pid: worker.pid,
            stage,
            since: now.since(worker.since()),
            left: self.drains.remains(worker.id),
            said: worker.said.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
