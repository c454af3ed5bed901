//! The sockets that shepherd accepts from itself. No worker gets them, so they are one for all
//! generations: a connection that waits there is given to whoever is ready, old or new.

use crate::core::ids::{GenerationId, MemberId, SocketId};
use crate::core::policy::Algorithm;

use super::{Kind, Scope, Sockets};

impl Sockets {
    /// Whether any generation has such a socket.
    #[must_use]
    pub fn dispatches(&self) -> bool {
        self.orders.values().flatten().any(|(_, kind)| matches!(kind, Kind::Dispatched(_)))
    }

    /// Those whose connections the workers of a generation are given, in the order of the sockets.
    #[must_use]
    pub fn dispatched(&self, generation: GenerationId) -> Vec<MemberId> {
        let order = self.orders.get(&generation).into_iter().flatten();
        let is_it = |(_, kind): &&(SocketId, Kind)| matches!(kind, Kind::Dispatched(_));
        let member = |&(socket, _): &(SocketId, Kind)| {
            let mut members = self.members.iter();
            let found = members.find(|(_, it)| it.socket == socket && it.scope == Scope::Shared);
            found.map(|(&id, _)| id)
        };
        order.filter(is_it).filter_map(member).collect()
    }

    /// Those of them from which nobody of the generation that `serves` takes anything: it does not name
    /// them, or has other members there.
    #[must_use]
    pub fn dispatched_alone(
        &self,
        generation: GenerationId,
        serves: GenerationId,
    ) -> Vec<MemberId> {
        let mut alone = self.dispatched(generation);
        alone.retain(|id| {
            let member = self.members.get(id);
            match member.and_then(|member| self.kind(serves, member.socket)) {
                Some(Kind::Shared | Kind::Dispatched(_)) => false,
                Some(Kind::EachGeneration | Kind::EachWorker | Kind::EachSlot) | None => true,
            }
        });
        alone
    }

    /// How shepherd chooses among the workers of a generation, where it does.
    #[must_use]
    pub fn algorithm(&self, generation: GenerationId) -> Option<Algorithm> {
        let mut order = self.orders.get(&generation).into_iter().flatten();
        order.find_map(|&(_, kind)| match kind {
            Kind::Dispatched(algorithm) => Some(algorithm),
            Kind::Shared | Kind::EachGeneration | Kind::EachWorker | Kind::EachSlot => None,
        })
    }
}
