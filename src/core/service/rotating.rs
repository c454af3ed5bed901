//! Who is given the connections that shepherd accepts for a service: in the places where the kernel is
//! steered, for the same reasons. Which of them gets which is [`crate::core::dispatch`]'s to say.

use crate::core::action::{Action, Rotation, Turn};
use crate::core::ids::{MemberId, WorkerId};
use crate::core::worker::Worker;

use super::{Context, Service};

impl Service {
    /// Tells who is given connections from here on, where that has changed.
    pub(super) fn rotate(&mut self, context: &mut Context<'_>) {
        if self.rotation.members.is_empty() && !self.sockets.dispatches() {
            return;
        }
        let rotation = self.rotation();
        if rotation != self.rotation {
            self.rotation = rotation.clone();
            let service = self.policy.service;
            context.actions.push_back(Action::Rotate { service, rotation });
        }
    }

    /// Whether a worker is one that is given connections, and others are given them instead of it.
    pub(super) fn others_are_given(&self, id: WorkerId) -> bool {
        self.serves()
            && self.workers.get(id).is_some_and(|worker| {
                !self.sockets.dispatched(worker.generation).is_empty()
                    && self.rotation().workers.iter().any(|turn| turn.worker != id)
            })
    }

    /// The members that are a worker's to empty: those that it was given connections of, and nobody of
    /// the generation that serves is.
    pub(super) fn left_to(&self, worker: &Worker) -> Vec<MemberId> {
        let serving = self.serving.generation;
        if worker.generation < serving {
            self.sockets.dispatched_alone(worker.generation, serving)
        } else {
            Vec::new()
        }
    }

    /// The workers that serve: those that are ready of the generation that does, and of the next in
    /// slots that are changed over to it. And those before, as long as something is left to them.
    fn rotation(&self) -> Rotation {
        let serving = self.serving.generation;
        let new = self.claim_of_new();
        let turn = |worker: &Worker| {
            let changed_over = new.as_ref().is_some_and(|(generation, slots)| {
                worker.generation == *generation && slots.contains(&worker.slot)
            });
            let serves = changed_over || self.serving.holds(worker.slot, worker.id);
            let members = if worker.is_ready() && serves {
                self.sockets.dispatched(worker.generation)
            } else if worker.is_ready() || worker.is_emptying() {
                self.left_to(worker)
            } else {
                Vec::new()
            };
            let has_turn = !members.is_empty();
            has_turn.then_some(Turn { worker: worker.id, slot: worker.slot, members })
        };
        let mut workers: Vec<Turn> = self.workers.iter().filter_map(turn).collect();
        workers.sort_unstable_by_key(|turn| turn.worker);
        let mut members = self.sockets.dispatched(serving);
        members.extend(workers.iter().flat_map(|turn| turn.members.iter().copied()));
        members.sort_unstable();
        members.dedup();
        let next = new.and_then(|(generation, _)| self.sockets.algorithm(generation));
        let algorithm = self.sockets.algorithm(serving).or(next).unwrap_or(self.rotation.algorithm);
        Rotation { algorithm, members, workers }
    }
}

#[cfg(test)]
mod tests;
