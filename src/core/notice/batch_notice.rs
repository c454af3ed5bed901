//! What a user should hear of slots that are changed over one batch after the other.

use std::fmt;

use super::{Count, Loudness};
use crate::core::ids::{GenerationId, SlotId};

/// How a reload goes of whose workers not all may run beside the old ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchNotice {
    /// It begins.
    Begin {
        /// Which generation is to serve.
        generation: GenerationId,
        /// How many workers it is to have.
        workers: u32,
        /// How many of them run beside the old ones.
        surge: u32,
        /// Who says so.
        because: Because,
    },
    /// New workers serve in the place of old ones.
    ChangedOver {
        /// Their generation.
        generation: GenerationId,
        /// In these slots.
        slots: Vec<SlotId>,
        /// How many do by now.
        over: u32,
        /// Of how many.
        workers: u32,
        /// How many old ones are asked to stop at once, since others serve on with their sockets:
        /// they have to finish by themselves what they have.
        at_once: u32,
    },
    /// It is off, and slots that were changed over are put back.
    PuttingBack {
        /// The generation that they get workers of.
        generation: GenerationId,
        /// How many.
        slots: u32,
        /// How many workers run beside others meanwhile.
        surge: u32,
    },
    /// All of them are.
    PutBack {
        /// The generation that serves in all slots again.
        generation: GenerationId,
    },
    /// A worker of the old generation did not get ready.
    NotPutBack {
        /// The generation that serves.
        generation: GenerationId,
        /// What became of the worker.
        reason: String,
    },
}

/// Why not all workers of a reload run beside the old ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// The configuration says so.
    Wanted,
    /// Memory is free for no more.
    Memory,
    /// It is not even free for one.
    NoMemory,
}

impl BatchNotice {
    /// How loud it is.
    #[must_use]
    pub fn loudness(&self) -> Loudness {
        match self {
            BatchNotice::Begin { because: Because::Wanted | Because::Memory, .. }
            | BatchNotice::ChangedOver { .. }
            | BatchNotice::PuttingBack { .. }
            | BatchNotice::PutBack { .. } => Loudness::Info,
            BatchNotice::Begin { because: Because::NoMemory, .. } => Loudness::Warning,
            BatchNotice::NotPutBack { .. } => Loudness::Error,
        }
    }
}

impl fmt::Display for BatchNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BatchNotice::Begin { workers, surge, because, .. } => {
                tell_begin(*workers, *surge, *because, f)
            }
            BatchNotice::ChangedOver { generation, over, workers, at_once, .. } => {
                write!(f, "{over} of {workers} changed over to generation {generation}")?;
                match at_once {
                    0 => Ok(()),
                    1 => {
                        write!(
                            f,
                            "; an old worker whose socket others serve on with is asked to "
                        )?;
                        write!(f, "stop at once")
                    }
                    many => {
                        write!(f, "; {many} old workers whose sockets others serve on with are ")?;
                        write!(f, "asked to stop at once")
                    }
                }
            }
            BatchNotice::PuttingBack { generation, slots, surge } => {
                let slots = Count(*slots, "slot", "slots");
                write!(f, "putting back {slots}: workers of generation {generation} are started")?;
                let how = if *surge == 0 { "after" } else { "before" };
                write!(f, " {how} the new ones stop")
            }
            BatchNotice::PutBack { generation } => {
                write!(f, "put back: generation {generation} serves in all slots")
            }
            BatchNotice::NotPutBack { generation, reason } => {
                write!(f, "generation {generation} is not put back everywhere: {reason}; ")?;
                write!(f, "trying on, a reload tries another version")
            }
        }
    }
}

fn tell_begin(
    workers: u32,
    surge: u32,
    because: Because,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    match because {
        Because::Wanted if surge == 0 => {
            write!(f, "{workers} workers are replaced one by one, each stopped before its ")?;
            write!(f, "successor is started")
        }
        Because::Wanted => {
            write!(f, "{workers} workers are changed over in batches of {surge}")
        }
        Because::Memory => {
            write!(f, "memory is free for {surge} of {workers} new workers beside the old ones; ")?;
            write!(f, "they are changed over in batches of {surge}")
        }
        Because::NoMemory => {
            write!(f, "memory is free for none of {workers} new workers beside the old ones; ")?;
            write!(f, "they are changed over one by one all the same")
        }
    }
}
