//! A service has new connections go past those of its workers that take nothing from the sockets that
//! they alone have. When that is so is decided in [`crate::core::stalls`].

use crate::core::action::Action;
use crate::core::event::Queued;
use crate::core::ids::{GenerationId, MemberId, SlotId};
use crate::core::notice::{Notice, StallNotice, WorkerName};
use crate::core::repair::is_worth_telling;
use crate::core::stalls::{Change, Flow};
use crate::core::time::Time;
use crate::core::worker::Worker;

use super::{Context, Service};

/// With fewer there is nobody else to whom new connections could go.
const READY_MIN: u32 = 2;

impl Service {
    /// Has the queues looked at of workers that have sockets of their own, if that is due.
    pub(super) fn look_at_queues(&mut self, now: Time, context: &mut Context<'_>) {
        let serving = self.serving.generation;
        let watches = self.serves()
            && self.workers.tally_of(serving).ready >= READY_MIN
            && self.sockets.steers_each_worker(serving);
        if self.stalls.is_due(now, watches) {
            self.stalls.asked();
            let members = self.sockets.taken_by(&self.claims());
            let service = self.policy.service;
            context.actions.push_back(Action::LookAtQueues { service, members });
        }
        if !watches {
            self.note_stalls();
        }
    }

    /// What waits on these was looked at.
    pub fn handle_queues_seen(
        &mut self,
        now: Time,
        members: &[(MemberId, Option<Queued>)],
        context: &mut Context<'_>,
    ) {
        let changes = self.stalls.seen(now, members);
        self.note_stalls();
        // What is told has happened.
        self.steer(context);
        for change in changes.iter().filter(|change| is_worth_telling(change.times)) {
            self.tell_stall(*change, context);
        }
    }

    /// The worker of a slot has ended: whether the next one takes anything is not known.
    pub(super) fn forget_stalls(&mut self, generation: GenerationId, slot: SlotId) {
        self.stalls.forget(&self.sockets.members_for(generation, slot));
        self.note_stalls();
    }

    fn note_stalls(&mut self) {
        self.sockets.set_stalled(self.stalls.stalled());
    }

    fn tell_stall(&self, change: Change, context: &mut Context<'_>) {
        let Change { member, to, after, .. } = change;
        let has = |worker: &&Worker| {
            let members = self.sockets.members_for(worker.generation, worker.slot);
            worker.is_ready() && members.contains(&member)
        };
        let Some(worker) = self.workers.iter().find(has) else { return };
        let service = self.policy.name.clone();
        let worker = WorkerName { worker: worker.id, service, slot: worker.slot };
        let what = match to {
            Flow::Stalled(queued) => {
                let others_take = self.sockets.passes_by(&self.claims(), member);
                StallNotice::Stalled { queued, after, others_take }
            }
            Flow::Free => StallNotice::Free { after },
        };
        let socket = self.sockets.name(member);
        context.notice(Notice::Stall { worker, socket, what });
    }
}
