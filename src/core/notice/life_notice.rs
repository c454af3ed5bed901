//! What a user should hear of a service that an operator stops, starts or restarts.

use std::fmt;
use std::time::Duration;

use super::{Loudness, tell_stop};
use crate::core::ids::GenerationId;
use crate::core::refusal::Operation;

/// What becomes of a whole service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LifeNotice {
    /// It is to be stopped and started: its definition is being read.
    RestartBegins {
        /// The definition that is to serve.
        generation: GenerationId,
    },
    /// A restart is off before anything has happened.
    RestartAborted {
        /// Why.
        reason: String,
    },
    /// Its workers are asked to stop, and its next generation starts when they have gone.
    Restarting {
        /// How many workers there are.
        workers: u32,
        /// When the last of them is killed.
        kill_after: Duration,
    },
    /// Its sockets are closed and its workers are asked to stop.
    Stopping {
        /// How many workers there are.
        workers: u32,
        /// When the last of them is killed.
        kill_after: Duration,
    },
    /// The last process of it has gone.
    Stopped {
        /// The service that it was stopped with, where it was bound to it: it starts again with that.
        with: Option<String>,
    },
    /// It does what is asked of another service, as it is bound to that.
    Along {
        /// What.
        what: Operation,
        /// The other.
        other: String,
    },
    /// It is to stop, and serves until these have.
    StopsAfter {
        /// Their names.
        others: Vec<String>,
    },
    /// It is to serve again: its definition is being read and its sockets are bound.
    StartBegins {
        /// The definition that is to serve.
        generation: GenerationId,
    },
    /// A start is off: it stays stopped.
    StartFailed {
        /// Why.
        reason: String,
    },
}

impl LifeNotice {
    /// How loud it is.
    #[must_use]
    pub fn loudness(&self) -> Loudness {
        match self {
            LifeNotice::RestartBegins { .. }
            | LifeNotice::Restarting { .. }
            | LifeNotice::Stopping { .. }
            | LifeNotice::Stopped { .. }
            | LifeNotice::Along { .. }
            | LifeNotice::StopsAfter { .. }
            | LifeNotice::StartBegins { .. } => Loudness::Info,
            LifeNotice::RestartAborted { .. } | LifeNotice::StartFailed { .. } => Loudness::Error,
        }
    }
}

impl fmt::Display for LifeNotice {
    /// The rest of a line that begins with the service and a colon.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LifeNotice::RestartBegins { generation } => {
                write!(f, "restart begins: reading generation {generation}")
            }
            LifeNotice::RestartAborted { reason } => {
                write!(f, "restart aborted: {reason}; nothing has happened")
            }
            LifeNotice::Restarting { workers, kill_after } => {
                write!(f, "restarting, connections wait meanwhile; ")?;
                tell_stop(*workers, *kill_after, f)
            }
            LifeNotice::Stopping { workers, kill_after } => {
                write!(f, "its sockets are closed; ")?;
                tell_stop(*workers, *kill_after, f)
            }
            LifeNotice::Stopped { with: None } => write!(f, "stopped, until somebody starts it"),
            LifeNotice::Stopped { with: Some(other) } => {
                write!(f, "stopped, until `{other}` is started")
            }
            LifeNotice::Along { what, other } => {
                write!(f, "{what} together with `{other}`, which it is bound to")
            }
            LifeNotice::StopsAfter { others } => {
                write!(f, "stops once those have that need it: `{}`", others.join("`, `"))
            }
            LifeNotice::StartBegins { generation } => {
                write!(f, "start begins: reading generation {generation}")
            }
            LifeNotice::StartFailed { reason } => write!(f, "it stays stopped: {reason}"),
        }
    }
}
