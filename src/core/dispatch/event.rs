//! Everything that can happen to a [`Dispatch`](super::Dispatch).

use std::collections::BTreeSet;

use crate::core::ids::{ConnectionId, ListenerId, SlotId, WorkerId};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A listener is there to be accepted from.
    Opened(ListenerId),
    /// A listener is closed. What was accepted from it is still given to workers that serve it; when
    /// there are none, it is closed.
    Closed(ListenerId),
    /// A listener that is polled has a connection (EPOLLIN).
    Readable(ListenerId),
    /// As [`Action::Accept`](super::Action::Accept) asked for, this one was accepted.
    Accepted {
        /// Its number, greater than all before it.
        connection: ConnectionId,
        /// Where.
        listener: ListenerId,
        /// Who it comes from.
        client: Client,
    },
    /// After those that were accepted: nothing more is.
    AcceptEnded {
        /// Where.
        listener: ListenerId,
        /// Why.
        end: AcceptEnd,
    },
    /// A worker is ready and is to be given connections of these listeners; said again when others
    /// are meant from here on.
    Joined {
        /// Who.
        worker: WorkerId,
        /// Its place, which it keeps.
        slot: SlotId,
        /// What it serves.
        listeners: BTreeSet<ListenerId>,
        /// How it is known what it has closed.
        closes: Closes,
    },
    /// A worker gets nothing new, for good: it is asked to stop, its channel has ended, others have
    /// its place. It still answers for what it has.
    Leaving(WorkerId),
    /// A worker is dead, and everything that was in its channel has been heard. Only the end of its
    /// process says so; the end of its channel does not.
    Gone(WorkerId),
    /// A worker answers for a connection, or shepherd does in its place.
    Answered {
        /// Who.
        worker: WorkerId,
        /// For which.
        connection: ConnectionId,
        /// How.
        answer: Answer,
    },
    /// A worker's channel takes nothing more (EAGAIN). What it was given meanwhile is sent in order
    /// when it does, and counts as given.
    Blocked(WorkerId),
    /// Everything was sent, and its channel takes more.
    Writable(WorkerId),
    /// A connection that a worker had accepted is over. One that says so for the first time tells, and
    /// is not counted from outside any more.
    Ended(WorkerId),
    /// As [`Action::Count`](super::Action::Count) asked for.
    Counted {
        /// Who.
        worker: WorkerId,
        /// How many connections it has open; nothing if that cannot be read.
        open: Option<u32>,
    },
    /// The client of a connection is not there any more (EPOLLHUP, EPOLLERR). One that only has
    /// nothing more to say (EPOLLRDHUP) still wants its answer.
    HungUp(ConnectionId),
}

/// Who a connection comes from, as far as that decides where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    /// An IPv4 address, be it written as one or mapped into IPv6.
    V4([u8; 4]),
    /// The network of an IPv6 address: 64 bits, since a client changes the others as it likes.
    V6([u8; 8]),
    /// Nobody knows: a unix socket. Any worker may have it.
    Unknown,
}

impl Client {
    /// The client with this IPv6 address.
    #[must_use]
    pub fn v6(address: [u8; 16]) -> Client {
        match address {
            // RFC 4291, 2.5.5.2: what a socket of both families shows of a client of IPv4.
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] => Client::V4([a, b, c, d]),
            [network @ .., _, _, _, _, _, _, _, _] => Client::V6(network),
        }
    }
}

/// Why nothing more was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptEnd {
    /// As many calls were made as asked for. One that only told of a client that went meanwhile
    /// (ECONNABORTED and the errors of the network that accept(2) lists) counts as one.
    Enough,
    /// There was nothing more (EAGAIN).
    Empty,
    /// EMFILE, ENFILE, ENOBUFS or ENOMEM.
    OutOfDescriptors,
    /// Any other error.
    Failed,
}

/// How the open connections of a worker are known, for
/// [`Algorithm::LeastConnections`](crate::core::policy::Algorithm::LeastConnections).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closes {
    /// It tells when one is over: [`Event::Ended`].
    Told,
    /// They are counted from outside: [`Event::Counted`].
    Counted,
}

/// What became of a connection that was given to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The worker has it.
    Accepted,
    /// The worker has not, and wants it not: it is full, or serves that listener no more.
    Refused,
    /// The message came without the descriptor: the worker is out of descriptors.
    NotReceived,
    /// Nothing of it was sent, nor will be: ETOOMANYREFS, EPIPE and what else is no EAGAIN.
    NotSent,
}
