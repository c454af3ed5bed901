//! What a user should hear of connections that shepherd accepts and gives to workers.

use std::fmt;

use super::{Loudness, WorkerName};
use crate::core::dispatch;

/// How that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DispatchNotice {
    /// It was decided by what workers answer, or do not.
    Decided {
        /// Whom it is about.
        whom: Whom,
        /// What.
        what: dispatch::Notice,
    },
    /// A worker says what makes no sense.
    Nonsense(WorkerName),
    /// A worker lives on, and nobody listens to its channel.
    ChannelEnded(WorkerName),
}

/// Whom it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// A worker.
    Worker(WorkerName),
    /// A socket.
    Socket {
        /// Whose.
        service: String,
        /// Its name or address.
        socket: String,
    },
    /// A whole service.
    Service(String),
}

impl DispatchNotice {
    pub(super) fn loudness(&self) -> Loudness {
        match self {
            DispatchNotice::Decided { what: dispatch::Notice::Answers(_), .. } => Loudness::Info,
            DispatchNotice::Decided { .. }
            | DispatchNotice::Nonsense(_)
            | DispatchNotice::ChannelEnded(_) => Loudness::Warning,
        }
    }
}

impl fmt::Display for DispatchNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DispatchNotice::Decided { whom: Whom::Worker(worker), what } => {
                write!(f, "{worker} {what}")
            }
            DispatchNotice::Decided { whom: Whom::Socket { service, socket }, what } => {
                write!(f, "{service}: socket `{socket}` {what}")
            }
            DispatchNotice::Decided { whom: Whom::Service(service), what } => {
                write!(f, "{service} {what}")
            }
            DispatchNotice::Nonsense(worker) => write!(
                f,
                "{worker} says what makes no sense on its dispatch channel: bytes that are no \
                 answer, or answers to nothing; passing them over"
            ),
            DispatchNotice::ChannelEnded(worker) => write!(
                f,
                "{worker} has closed its dispatch channel and lives on; it gets no connections, \
                 and another takes its place"
            ),
        }
    }
}
