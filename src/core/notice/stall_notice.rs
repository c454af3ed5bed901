//! What users hear of workers that take nothing from the sockets that they alone have.

use std::fmt;
use std::time::Duration;

use crate::core::event::Queued;

use super::{Human, Loudness};

/// Whether a worker takes what waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StallNotice {
    /// It does not.
    Stalled {
        /// What waits.
        queued: Queued,
        /// For how long it has not become less.
        after: Duration,
        /// Whether others get what is new: not where they are all like that.
        others_take: bool,
    },
    /// It does again.
    Free {
        /// How long it had not.
        after: Duration,
    },
}

impl StallNotice {
    pub(super) fn loudness(&self) -> Loudness {
        match self {
            StallNotice::Stalled { .. } => Loudness::Warning,
            StallNotice::Free { .. } => Loudness::Info,
        }
    }

    /// The rest of a sentence that begins with the worker.
    pub(super) fn tell(&self, socket: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            StallNotice::Stalled { queued, after, others_take } => {
                write!(f, "hangs or does not keep up: {queued} in its queue at `{socket}`, ")?;
                write!(f, "no fewer for {}; ", Human(after))?;
                if others_take {
                    write!(f, "new ones go to the others")
                } else {
                    write!(f, "so it is with all of them, and new ones are spread as before")
                }
            }
            StallNotice::Free { after } => {
                write!(f, "takes from its queue at `{socket}` again, after {}, ", Human(after))?;
                write!(f, "and gets new connections")
            }
        }
    }
}
