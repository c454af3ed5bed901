//! The members of a service's sockets as people see them.

use std::collections::BTreeSet;

use crate::core::ids::{GenerationId, MemberId, SlotId, SocketId};
use crate::core::status::{MemberState, MemberStatus};
use crate::core::steering::Idle;

use super::{Member, Scope, Sockets};

impl Sockets {
    /// All kernel sockets that are there, those of one socket together, in the order in which the
    /// workers of a generation get them. `is_over` says of a generation, or of a slot of it, that its
    /// workers are to stop.
    #[must_use]
    pub fn view(
        &self,
        serving: GenerationId,
        is_over: impl Fn(GenerationId, Option<SlotId>) -> bool,
    ) -> Vec<MemberStatus> {
        let own = self.members.iter().map(|(&id, member)| {
            let (generation, slot) = match member.scope {
                Scope::Shared => (None, None),
                Scope::Slot(slot) => (None, Some(slot)),
                Scope::Generation(generation) => (Some(generation), None),
                Scope::Worker(generation, slot) => (Some(generation), Some(slot)),
                Scope::Coming(slot) => (None, slot),
            };
            let over = generation.is_some_and(|generation| is_over(generation, slot));
            let (state, weight) = (self.state(id, member, over), self.steering.share(id));
            (member.socket, MemberStatus { member: id, generation, slot, state, weight })
        });
        let idle = self.steering.idle().map(|(member, group, idle)| {
            let state = match idle {
                Idle::Spare => MemberState::Spare,
                Idle::Going => MemberState::Closing,
            };
            let (generation, slot, weight) = (None, group.slot, Some(0));
            (group.socket, MemberStatus { member, generation, slot, state, weight })
        });
        let order = self.orders.get(&serving).map(Vec::as_slice).unwrap_or_default();
        let place = |socket: SocketId| {
            let place = order.iter().position(|&(it, _)| it == socket);
            (place.unwrap_or(order.len()), socket)
        };
        let mut all: Vec<(SocketId, MemberStatus)> = own.chain(idle).collect();
        all.sort_by_key(|(socket, it)| (place(*socket), it.generation, it.slot, it.member));
        all.into_iter().map(|(_, status)| status).collect()
    }

    /// Those from which their worker takes nothing.
    #[must_use]
    pub fn stalled(&self) -> &BTreeSet<MemberId> {
        &self.stalled
    }

    fn state(&self, id: MemberId, member: &Member, is_over: bool) -> MemberState {
        if !self.steering.has(id) {
            // Nobody tells the kernel who gets what.
            return MemberState::Serving;
        }
        if !self.steering.listens(id) {
            return MemberState::Down;
        }
        if is_over && self.steering.is_steered_away(id) {
            return MemberState::Draining;
        }
        if self.stalled.contains(&id) {
            return MemberState::Stalled;
        }
        match (self.steering.is_steered_away(id), member.scope) {
            (_, Scope::Coming(_)) | (true, _) => MemberState::Parked,
            (false, _) => MemberState::Serving,
        }
    }
}
