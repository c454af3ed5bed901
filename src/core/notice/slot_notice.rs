//! What users hear of the sockets that a slot has for itself.

use std::fmt;
use std::time::Duration;

use super::{Human, Loudness};

/// What became of a slot's own sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotNotice {
    /// They are bound, and its first worker comes.
    Bound {
        /// Where they are to be reached.
        names: Vec<String>,
    },
    /// They could not be bound: the slot stays without a worker.
    NotBound {
        /// Which one, why, and the next step.
        reason: String,
        /// When it is tried again.
        pause: Duration,
    },
}

impl SlotNotice {
    pub(super) fn loudness(&self) -> Loudness {
        match self {
            SlotNotice::Bound { .. } => Loudness::Info,
            SlotNotice::NotBound { .. } => Loudness::Error,
        }
    }
}

impl fmt::Display for SlotNotice {
    /// The rest of a sentence that begins with the slot.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SlotNotice::Bound { names } => write!(f, "has `{}`", names.join("`, `")),
            SlotNotice::NotBound { reason, pause } => {
                write!(f, "stays empty: {reason}; trying again in {}", Human(*pause))
            }
        }
    }
}
