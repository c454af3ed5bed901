//! A service as people see it.

use crate::core::ids::{GenerationId, SlotId};
use crate::core::reload::Reload;
use crate::core::slots::SlotSockets;
use crate::core::status::{
    CanaryStatus, Headline, MemberStatus, Membership, ServiceState, ServiceStatus, Stage,
    WorkerStatus,
};
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
            ready: self.serving_ready(),
            generation: self.serving.generation,
            balance: self.sockets.balance(self.serving.generation),
            committed: self.is_committed(),
            membership: if self.is_dismissed() { self.membership } else { Membership::Configured },
            waits_for: self.waits_for.clone(),
            failing: self.failing,
            reloading: self.reload.as_ref().map(|reload| reload.generation),
            changed_over: self.reload.as_ref().and_then(Reload::changed_over),
            last_abort: self.last_abort.clone(),
            queued: self.queued.is_some(),
            restarts: self.replaced,
            canary: self.canary_status(now),
            probation: self.probation.as_ref().map(|probation| now.until(probation.until)),
            members: self.member_statuses(),
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
            ready: self.serving_ready(),
            draining: self.workers.tally().leaving,
            generation: self.serving.generation,
            failing: self.failing,
            reloading: self.reload.as_ref().map(|reload| reload.generation),
            changed_over: self.reload.as_ref().and_then(Reload::changed_over),
            last_abort: self.last_abort.as_deref(),
        }
    }

    /// How many of the workers that serve can.
    fn serving_ready(&self) -> u32 {
        let new = self.claim_of_new().map_or(0, |(_, slots)| slots.len());
        let old = self.workers.tally_of(self.serving.generation).ready;
        old.saturating_add(u32::try_from(new).unwrap_or(u32::MAX))
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

    fn canary_status(&self, now: Time) -> Option<CanaryStatus> {
        // Where it goes in batches, each worker that serves has the same part once the first has proved
        // itself.
        let tried = |reload: &&Reload| {
            !reload.is_off() && reload.changed_over().is_none_or(|(over, _)| over == 0)
        };
        let Reload { generation, canary, .. } = self.reload.as_ref().filter(tried)?;
        let until = (*canary)?;
        let percent = self.policies.get(generation)?.canary?.percent;
        Some(CanaryStatus { percent, left: now.until(until) })
    }

    fn member_statuses(&self) -> Vec<MemberStatus> {
        let current = self.current_roots();
        let slots = self.slots_wanted();
        let is_over = |generation: GenerationId, slot: Option<SlotId>| {
            !current.contains(&generation) || slot.is_some_and(|slot| slot.0 >= slots)
        };
        self.sockets.view(self.serving.generation, is_over)
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
        let deadline = worker.deadline().filter(|_| stage == Stage::Draining);
        let stalled = self.sockets.stalled();
        let stalled = worker.is_ready() && !stalled.is_empty() && {
            let members = self.sockets.members_for(worker.generation, worker.slot);
            members.iter().any(|member| stalled.contains(member))
        };
        WorkerStatus {
            worker: worker.id,
            slot: worker.slot,
            generation: worker.generation,
            pid: worker.pid,
            stage,
            since: now.since(worker.since()),
            left: self.drains.remains(worker.id),
            next_in: deadline.map(|(at, _)| now.until(at)),
            stalled,
            said: worker.said.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
