//! What a user should hear of a new generation that proves itself.

use std::fmt;
use std::time::Duration;

use super::{Human, Loudness};
use crate::core::ids::GenerationId;
use crate::core::policy::Canary;

/// How a new generation proves itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProvingNotice {
    /// Its workers are ready, and get a part of new connections.
    Canary {
        /// Which generation.
        generation: GenerationId,
        /// What part, for how long.
        canary: Canary,
    },
    /// It serves, and is taken back should one of its workers end by itself.
    Probation {
        /// Which generation.
        generation: GenerationId,
        /// For how long.
        time: Duration,
    },
    /// Its probation is over: it stays.
    Proved {
        /// Which generation.
        generation: GenerationId,
    },
    /// One of its workers has ended during its probation: the one before is to serve again.
    Failed {
        /// Which generation.
        generation: GenerationId,
    },
    /// It is what served before, and the program of that could not be kept.
    ByPath {
        /// Which generation.
        generation: GenerationId,
        /// Where the program is.
        path: String,
    },
}

impl ProvingNotice {
    /// How loud it is.
    #[must_use]
    pub fn loudness(&self) -> Loudness {
        match self {
            ProvingNotice::Canary { .. }
            | ProvingNotice::Probation { .. }
            | ProvingNotice::Proved { .. } => Loudness::Info,
            ProvingNotice::ByPath { .. } => Loudness::Warning,
            ProvingNotice::Failed { .. } => Loudness::Error,
        }
    }
}

impl fmt::Display for ProvingNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProvingNotice::Canary { generation, canary: Canary { percent, time } } => {
                write!(f, "generation {generation} gets {percent}% of new connections for ")?;
                write!(f, "{}, and then all of them", Human(*time))
            }
            ProvingNotice::Probation { generation, time } => {
                write!(
                    f,
                    "generation {generation} serves, on probation for {}: if a worker ",
                    Human(*time)
                )?;
                write!(f, "ends, the one before serves again")
            }
            ProvingNotice::Proved { generation } => {
                write!(f, "generation {generation} has stood its probation")
            }
            ProvingNotice::Failed { generation } => {
                write!(f, "generation {generation} has failed on probation: rolling back")
            }
            ProvingNotice::ByPath { generation, path } => {
                write!(f, "generation {generation} runs what is at `{path}` by now: a script ")?;
                write!(f, "cannot be kept as it was")
            }
        }
    }
}
