//! Everything that a [`Dispatch`](super::Dispatch) can want done.

use super::Notice;
use crate::core::ids::{ConnectionId, ListenerId, WorkerId};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Wait for connections of this listener, level-triggered:
    /// [`Event::Readable`](super::Event::Readable).
    Poll(ListenerId),
    /// Wait for them no more.
    StopPolling(ListenerId),
    /// Call accept4(2), until it has nothing, fails, or was called so often; then feed each
    /// [`Event::Accepted`](super::Event::Accepted) and one
    /// [`Event::AcceptEnded`](super::Event::AcceptEnded).
    Accept {
        /// Where.
        listener: ListenerId,
        /// How often at most.
        at_most: usize,
    },
    /// Send a connection to a worker, and keep the descriptor.
    Give {
        /// Which.
        connection: ConnectionId,
        /// Where it was accepted, which the worker has to know.
        listener: ListenerId,
        /// To whom.
        worker: WorkerId,
    },
    /// Close our descriptor of a connection.
    Close {
        /// Which.
        connection: ConnectionId,
        /// Why.
        because: CloseReason,
    },
    /// Count what these workers have open, and answer for each:
    /// [`Event::Counted`](super::Event::Counted).
    Count(Vec<WorkerId>),
    /// Tell users.
    Tell(Notice),
}

/// Why a descriptor is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// A worker has accepted it. For the client nothing ends.
    Taken,
    /// The client is gone.
    HungUp,
    /// Its listener is closed and no worker serves it: the service has stopped.
    Nobody,
}
