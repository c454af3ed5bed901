//! What a worker says, once it was understood.

use super::errno::Errno;
use super::key::Key;
use super::primary::SERVERS_MAX;
use super::query::Query;

/// What a worker says, once it was understood.
#[derive(Debug)]
pub enum Heard<C> {
    /// Its program begins to run.
    Online,
    /// It asks for a server, and waits.
    Query(Query),
    /// A server that it asked for listens, at this port.
    Listening {
        /// Which.
        key: Key,
        /// The port, where it has one.
        port: Option<u16>,
    },
    /// A server listens that was not asked for.
    ListeningUnasked {
        /// What it would be called.
        key: Key,
    },
    /// A server that it had is closed: it gets no connection for it.
    Closed(Key),
    /// It has a connection, for good.
    Accepted(C),
    /// It does not want a connection; somebody else is to have it.
    Refused(C),
    /// It leaves by itself: it has closed its servers, and closes the channel now.
    Leaving,
    /// It was answered, and nobody else needs to know.
    Settled,
    /// Nothing changes by it.
    Ignored(Ignored),
}

/// Why something was passed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// Not one of the messages that are known; part of its name.
    #[error("an unknown message `{0}`")]
    Unknown(String),
    /// It asks for a server and is to stop, or stops: Node answers no more then.
    #[error("it asked for a server after it was told to stop")]
    QueryTooLate,
    /// It asks for a server, and could not be given an answer.
    #[error("it asked for a server in no way that can be answered")]
    QueryUnreadable,
    /// It was refused a server that it cannot have meant.
    #[error("it asked for a server in a way that makes no sense, and was refused with {0}")]
    QueryRefused(Errno),
    /// It has the same server already.
    #[error("it asked twice for the same server, and was refused with {}", Errno::EADDRINUSE)]
    QueryTwice,
    /// It has as many as it may.
    #[error("it asked for more than {SERVERS_MAX} servers")]
    QueryTooMany,
    /// It closes a server that it does not have.
    #[error("it closed a server that it does not have")]
    StrayClose,
    /// It answers something that nobody asked.
    #[error("it answered what it was not asked")]
    StrayAnswer,
}
