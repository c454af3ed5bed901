//! What users hear of what a proxy in front is told.

use std::fmt;
use std::time::Duration;

use crate::core::ids::SlotId;
use crate::core::publication::PUBLISH_MAX;

use super::{Human, Loudness};

/// How many slots are named.
const NAMED_MAX: usize = 16;

/// What became of the upstreams of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamsNotice {
    /// These slots are named to the proxy.
    Told {
        /// Those with a ready worker.
        slots: Vec<SlotId>,
    },
    /// The file could not be written, or the command failed.
    Failed {
        /// Which, and why.
        reason: String,
        /// When it is tried again.
        pause: Duration,
    },
    /// The command did not end in its time and was killed.
    Late {
        /// When it is tried again.
        pause: Duration,
    },
}

impl UpstreamsNotice {
    pub(super) fn loudness(&self) -> Loudness {
        match self {
            UpstreamsNotice::Told { .. } => Loudness::Info,
            UpstreamsNotice::Failed { .. } | UpstreamsNotice::Late { .. } => Loudness::Error,
        }
    }
}

impl fmt::Display for UpstreamsNotice {
    /// The rest of a sentence that begins with the service.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpstreamsNotice::Told { slots } => {
                match &slots[..] {
                    [] => return write!(f, "upstreams: no slot is ready"),
                    [slot] => return write!(f, "upstreams: slot {slot} is ready"),
                    [first, ..] => write!(f, "upstreams: slots {first}")?,
                }
                for slot in slots.iter().take(NAMED_MAX).skip(1) {
                    write!(f, ", {slot}")?;
                }
                match slots.len().saturating_sub(NAMED_MAX) {
                    0 => write!(f, " are ready"),
                    more => write!(f, " and {more} more are ready"),
                }
            }
            UpstreamsNotice::Failed { reason, pause } => {
                write!(f, "upstreams: {reason}; trying again in {}", Human(*pause))
            }
            UpstreamsNotice::Late { pause } => {
                write!(f, "upstreams: the proxy was not told within {}, and ", Human(PUBLISH_MAX))?;
                write!(f, "is not waited for; trying again in {}", Human(*pause))
            }
        }
    }
}
