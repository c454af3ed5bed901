//! What users hear of workers that do not read messages. The core takes no part in messages; whoever
//! carries them tells of this.

use std::fmt;

use super::Loudness;

/// Whether a worker reads the messages that are for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessagesNotice {
    /// It does not, and what comes for it is dropped.
    Dropping,
    /// It has read all that waited.
    ReadsAgain {
        /// How many messages were dropped meanwhile.
        dropped: u64,
    },
}

impl MessagesNotice {
    pub(super) fn loudness(self) -> Loudness {
        match self {
            MessagesNotice::Dropping => Loudness::Warning,
            MessagesNotice::ReadsAgain { .. } => Loudness::Info,
        }
    }
}

impl fmt::Display for MessagesNotice {
    /// The rest of a sentence that begins with the worker.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MessagesNotice::Dropping => {
                write!(
                    f,
                    "does not read its messages; those that come for it are dropped until it "
                )?;
                write!(f, "has read those that wait")
            }
            MessagesNotice::ReadsAgain { dropped: 1 } => {
                write!(f, "has read its messages; 1 was dropped meanwhile")
            }
            MessagesNotice::ReadsAgain { dropped } => {
                write!(f, "has read its messages; {dropped} were dropped meanwhile")
            }
        }
    }
}
