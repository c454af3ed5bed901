//! What a worker gets beside its sockets: a channel for connections, which is the last of them, and Node's,
//! which carries messages too, or one for messages. Which descriptors they are and by what its program knows
//! them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::core::action::Spawn;
use crate::os::channel::Channel;
use crate::os::definition::{Definition, NodeHandoff};
use crate::os::dispatch::Ends;
use crate::os::node_channel::NodeChannel;
use crate::os::spawn::{self, Environment};
use crate::protocol::listen_fds;
use crate::protocol::node_ipc::{self, CHANNEL_FD_MAX, Role};

use super::messages;

/// All, before the worker is started.
pub(super) struct Channels {
    pub(super) node: Option<(NodeHandoff, NodeChannel, OwnedFd)>,
    pub(super) dispatch: Option<Ends>,
    pub(super) messages: Option<(Channel, OwnedFd)>,
}

impl Channels {
    /// Those of a worker that has so many sockets, and maybe is given connections.
    pub(super) fn open(
        definition: &Definition,
        sockets: usize,
        is_given: bool,
    ) -> io::Result<Channels> {
        // Over Node's channel it could only ask for sockets that it does not have.
        let handoff = node_handoff(definition, sockets).filter(|_| !is_given);
        let node = handoff.map(|handoff| {
            let (ours, workers) = NodeChannel::pair()?;
            Ok::<_, io::Error>((handoff, ours, workers))
        });
        let dispatch = is_given.then(Ends::new);
        let messages = (definition.messages && node.is_none()).then(Channel::pair);
        let (node, dispatch) = (node.transpose()?, dispatch.transpose()?);
        Ok(Channels { node, dispatch, messages: messages.transpose()? })
    }

    /// Whether the worker gets its sockets as descriptors.
    pub(super) fn has_descriptors(&self) -> bool {
        self.node.as_ref().is_none_or(|(handoff, _, _)| handoff.beside_descriptors)
    }

    /// The worker's end of the channel for connections, which is as one of its sockets.
    pub(super) fn dispatch_end(&self) -> Option<BorrowedFd<'_>> {
        self.dispatch.as_ref().map(|ends| ends.theirs.as_fd())
    }

    /// The worker's other end.
    pub(super) fn ends(&self) -> Vec<BorrowedFd<'_>> {
        let node = self.node.iter().map(|(_, _, workers)| workers.as_fd());
        node.chain(self.messages.iter().map(|(_, workers)| workers.as_fd())).collect()
    }

    /// With the variables by which a program that has so many descriptors of sockets knows them.
    pub(super) fn tell<'a>(
        &self,
        mut environment: Environment<'a>,
        sockets: usize,
        order: &Spawn,
    ) -> Environment<'a> {
        if let Some((handoff, _, _)) = &self.node {
            // JavaScript cuts it there; with so many started, the first is long gone.
            let unique_id = u32::try_from(order.worker.0 % (1 << 31)).unwrap_or(1).max(1);
            let role =
                if handoff.forked { Role::Forked } else { Role::ClusterWorker { unique_id } };
            let number = spawn::number_beside(sockets, 0);
            let number = u32::try_from(number).unwrap_or(CHANNEL_FD_MAX);
            for (name, value) in node_ipc::environment(number, role, order.slot.0) {
                environment.insert(name.as_bytes(), value.into_bytes().into());
            }
        }
        if self.messages.is_some() {
            let number = spawn::number_beside(sockets, 0).to_string().into_bytes();
            environment.insert(messages::VARIABLE.as_bytes(), number.into());
        }
        environment
    }
}

/// The channel of Node's that a worker with so many sockets gets. Beside descriptors it is for what the
/// program asks for of them, and its own number has a bound.
fn node_handoff(definition: &Definition, sockets: usize) -> Option<NodeHandoff> {
    let room = usize::try_from(CHANNEL_FD_MAX).unwrap_or(0) - usize::from(listen_fds::FIRST);
    let fits = |node: &NodeHandoff| !node.beside_descriptors || (1..=room).contains(&sockets);
    definition.node.filter(fits)
}
