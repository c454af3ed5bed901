//! Members that stop listening for a time, so that clients are refused at once instead of waiting for
//! a worker that does not come. They stay bound, so nobody else gets the port.

use std::collections::BTreeSet;

use crate::core::action::Action;
use crate::core::ids::{GenerationId, MemberId};

use super::{Scope, Sockets};

impl Sockets {
    /// Whether the sockets of a generation's workers are such that clients can be refused, one at
    /// least.
    #[must_use]
    pub fn can_refuse(&self, generation: GenerationId) -> bool {
        let mut order = self.orders.get(&generation).into_iter().flatten();
        order.any(|(socket, _)| self.refusable.contains(socket))
    }

    /// Has the members stop listening that the workers of a generation get, where that can be. One
    /// that has others in its group which listen on waits for these to go: they would get what comes.
    pub fn refuse(&mut self, generation: GenerationId) -> Vec<Action> {
        let root = self.root(generation);
        let own = |(id, member): &(&MemberId, &super::Member)| {
            let named = match member.scope {
                Scope::Shared | Scope::Slot(_) => true,
                Scope::Generation(of) | Scope::Worker(of, _) => of == root,
                Scope::Coming(_) => false,
            };
            let listed = self.kind(generation, member.socket).is_some();
            named && listed && self.refusable.contains(&member.socket) && self.steering.has(**id)
        };
        let own: BTreeSet<MemberId> = self.members.iter().filter(own).map(|(&id, _)| id).collect();
        let lone = own.iter().filter(|&&id| self.steering.is_of_these_alone(id, &own));
        let stops: Vec<MemberId> =
            lone.copied().filter(|member| !self.refusing.contains(member)).collect();
        let mut actions = Vec::new();
        for member in stops {
            if self.steering.listens(member) {
                self.told = None;
                self.steering.stop(member);
                actions.push(Action::StopListening(member));
            }
            // One that was shut down before waits for no repair: it listens again with the others.
            if let Some(health) = self.health(member) {
                health.whole();
            }
            self.refusing.insert(member);
        }
        actions
    }

    /// Those that stopped listening are to listen again; in an order in which those of a group follow
    /// each other.
    pub fn accept_again(&mut self) -> Vec<MemberId> {
        let mut members: Vec<MemberId> = std::mem::take(&mut self.refusing).into_iter().collect();
        members.sort_by_key(|member| self.members.get(member).map(|it| it.socket));
        members
    }

    /// Whether a member does not listen because clients are refused.
    #[must_use]
    pub fn is_refusing(&self, member: MemberId) -> bool {
        self.refusing.contains(&member)
    }
}
