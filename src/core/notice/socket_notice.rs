//! What users hear of a shared socket that somebody changed: who, what, and what becomes of it.

use std::fmt;

use crate::core::event::Mode;
use crate::core::ids::GenerationId;

use super::{Loudness, WorkerName};

/// How many workers are named that may have done it.
const NAMED_MAX: usize = 8;

/// What somebody did to a socket, and what shepherd does about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketNotice {
    /// The backlog was changed; it is set back.
    Backlog {
        /// Who did it.
        by: Suspects,
        /// The backlog that was found.
        to: u32,
        /// The configured one.
        from: u32,
    },
    /// The socket was made blocking, or non-blocking, against what the serving generation needs; it
    /// is set back.
    Mode {
        /// Who did it.
        by: Suspects,
        /// What was found.
        to: Mode,
        /// What is set.
        from: Mode,
        /// Whose first ready worker left it so.
        serving: GenerationId,
    },
    /// The first worker of a reload made the socket blocking, or non-blocking; it is set back until
    /// the reload commits.
    ModePostponed {
        /// The worker.
        by: WorkerName,
        /// What it made of it.
        to: Mode,
        /// What the serving generation has.
        from: Mode,
    },
}

impl SocketNotice {
    pub(super) fn loudness(&self) -> Loudness {
        match self {
            SocketNotice::Backlog { .. } | SocketNotice::ModePostponed { .. } => Loudness::Info,
            SocketNotice::Mode { .. } => Loudness::Warning,
        }
    }

    /// One line that begins with who did it.
    pub(super) fn tell(&self, socket: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketNotice::Backlog { by, to, from } => {
                write!(f, "{by} set the backlog of `{socket}` to {to}; set back to {from}")
            }
            SocketNotice::Mode { by, to, from, serving } => {
                write!(f, "{by} made `{socket}` {to} for all who share it; set back to {from}, ")?;
                write!(f, "as the first ready worker of generation {serving} left it")
            }
            SocketNotice::ModePostponed { by, to, from } => {
                write!(f, "{by} made `{socket}` {to} for all who share it; set back to {from} ")?;
                write!(f, "until its generation serves")
            }
        }
    }
}

/// The workers one of which did something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspects {
    /// The service whose workers share the socket.
    pub service: String,
    /// Those that may have done it; without any, it was one of them all.
    pub workers: Vec<WorkerName>,
}

impl fmt::Display for Suspects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.workers[..] {
            [] => write!(f, "a worker of {}", self.service),
            [worker] => write!(f, "{worker}"),
            workers => {
                write!(f, "one of {}", workers[0])?;
                for worker in workers.iter().take(NAMED_MAX).skip(1) {
                    write!(f, ", {worker}")?;
                }
                match workers.len().saturating_sub(NAMED_MAX) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
        }
    }
}
