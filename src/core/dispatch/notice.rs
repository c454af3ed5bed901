//! What users hear of dispatching.

use std::fmt;

use super::worker::{Stalls, Worker};
use crate::core::ids::{ListenerId, WorkerId};

/// Something that users should know, told once until it is otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// A worker has not answered for [`STALLED_AFTER`](super::STALLED_AFTER).
    Stalled {
        /// Who.
        worker: WorkerId,
        /// How many clients wait for it.
        unacknowledged: usize,
    },
    /// It answers again.
    Answers(WorkerId),
    /// A worker has no descriptor for what it is given.
    OutOfDescriptors(WorkerId),
    /// Every worker refuses the connections of a listener.
    RefusedByAll(ListenerId),
    /// shepherd has no descriptor to accept with.
    Scarce,
}

impl Notice {
    pub(super) fn of(id: WorkerId, stalls: Stalls, worker: &Worker) -> Notice {
        match stalls {
            Stalls::Begins => {
                let unacknowledged = worker.view().unacknowledged;
                Notice::Stalled { worker: id, unacknowledged }
            }
            Stalls::Ends => Notice::Answers(id),
        }
    }
}

impl fmt::Display for Notice {
    /// The rest of a sentence that begins with the worker, the listener or shepherd.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Stalled { unacknowledged: 0, .. } => {
                f.write_str("reads nothing from its channel; others get new connections")
            }
            Notice::Stalled { unacknowledged, .. } => write!(
                f,
                "does not answer for {unacknowledged} connections; others get new ones, and these \
                 too should it exit"
            ),
            Notice::Answers(_) => f.write_str("answers again, and gets connections"),
            Notice::OutOfDescriptors(_) => f.write_str(
                "is out of descriptors, and its connections go to others; raise its limit of open \
                 files",
            ),
            Notice::RefusedByAll(_) => f.write_str(
                "is refused by every worker; what comes waits, and is tried again within 200 ms",
            ),
            Notice::Scarce => f.write_str(
                "cannot accept: out of descriptors; what comes waits in the backlog; raise \
                 shepherd's limit of open files",
            ),
        }
    }
}
