//! Which kernel sockets stand behind a service's sockets, and who is given which. Ids only.
//!
//! A configured socket (`SocketId`) has members (`MemberId`), the kernel sockets that workers are
//! handed. The balance decides how many: with the one there is, `shared`, a socket has one member,
//! which every slot of every generation gets. A balance that gives each generation or each slot a
//! kernel socket of its own adds members here; workers, slots and reloads only ever ask
//! [`Sockets::members_for`].

use std::collections::BTreeMap;

use super::ids::{GenerationId, MemberId, SlotId, SocketId};

/// The members of one service's sockets.
#[derive(Debug, Clone)]
pub struct Sockets {
    members: BTreeMap<MemberId, Member>,
}

/// One kernel socket.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    socket: SocketId,
    scope: Scope,
}

/// Whose workers a member is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Every worker of the service, over all generations.
    Shared,
}

impl Scope {
    fn covers(self, _generation: GenerationId, _slot: SlotId) -> bool {
        match self {
            Scope::Shared => true,
        }
    }
}

impl Sockets {
    /// One shared member for each socket, in order.
    #[must_use]
    pub fn shared(sockets: &[SocketId]) -> Sockets {
        let members = sockets
            .iter()
            .map(|&socket| (MemberId(socket.0), Member { socket, scope: Scope::Shared }))
            .collect();
        Sockets { members }
    }

    /// What a worker of this generation and slot is given, in the order of the sockets.
    #[must_use]
    pub fn members_for(&self, generation: GenerationId, slot: SlotId) -> Vec<MemberId> {
        let mut covering: Vec<(SocketId, MemberId)> = self
            .members
            .iter()
            .filter(|(_, member)| member.scope.covers(generation, slot))
            .map(|(&id, member)| (member.socket, id))
            .collect();
        covering.sort_unstable();
        covering.into_iter().map(|(_, id)| id).collect()
    }

    /// Takes all members out, to be closed: the service stops.
    pub fn close(&mut self) -> Vec<MemberId> {
        std::mem::take(&mut self.members).into_keys().collect()
    }
}
