//! Node's IPC channel in its `json` mode, as bytes: lines, the descriptors that come with them, and
//! the acknowledgements of those. What the lines say to each other is `node_cluster`'s. Pure: a
//! descriptor is a value of any type `H`, and the caller knows which it stands for.
//!
//! A message is one line of JSON. One that has a descriptor is wrapped (`NODE_HANDLE`) and travels in a
//! sendmsg(2) of its own, with that one descriptor (`SCM_RIGHTS`) on its first byte: Node pairs at most one
//! descriptor with each read. It is answered by `NODE_HANDLE_ACK` before anything is done with it, or by
//! `NODE_HANDLE_NACK` when the line came without the descriptor, and then the message counts for nothing.
//! Answers have no number: they come in the order of what they answer. Node itself waits for each; we need
//! not, so several may be on their way.
//!
//! A worker dies of a blank line, of bad JSON, of an answer to nothing, and of a descriptor that is no
//! socket. So a [`Line`] can be made only of what is JSON, answers are written by [`Channel`] alone, and a
//! [`HandleLine`] goes out with its descriptor or not at all.
//!
//! A worker may send anything. What cannot be read is dropped, named and counted, and all that is kept
//! has a bound ([`Limits`]); a line without an end and a worker that asks and never reads end the channel.

mod environment;

mod line;

mod parse;

mod reader;

mod queue;

mod channel;

pub use channel::{Channel, Received};
pub use environment::{CHANNEL_FD_MAX, Role, environment};
pub use line::{
    DatagramFamily, HandleKind, HandleLine, Line, Native, NotAMessage, Purpose, Stream,
};
pub use queue::{Chunk, Full, RETRIES_MAX, Undelivered};

/// How much is read at once, in bytes: as much as Node reads.
pub const READ_BYTES: usize = 64 * 1024;

/// How many descriptors one message can have at most (`SCM_MAX_FD`); whoever reads has room for them,
/// so that none is left over in the kernel's hands and taken for one that was cut off.
pub const READ_HANDLES: usize = 253;

/// What a program says by `process.send("ready")`, as the text of its message: PM2's `wait_ready`.
pub const READY: &str = r#""ready""#;

/// What one channel may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest line of either direction, in bytes without its end.
    pub line_bytes_max: usize,
    /// How much of the program's messages waits to be read by the worker, in bytes. One message alone
    /// may be longer, up to the longest line.
    pub message_bytes_max: usize,
    /// How much else waits, in bytes. A worker that does not read even this is stuck.
    pub internal_bytes_max: usize,
    /// How many descriptors wait or have not been acknowledged.
    pub handles_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            // Programs send megabytes at times (a cache, a screenshot); more in one piece is a mistake.
            line_bytes_max: 16 * 1024 * 1024,
            message_bytes_max: 1024 * 1024,
            // Some thousands of lines, of which a worker that lives never leaves ten unread.
            internal_bytes_max: 1024 * 1024,
            // As many as libuv keeps of those it was sent: connections on their way are 4, listeners
            // are one for each server of a program.
            handles_max: 64,
        }
    }
}

/// What is wrong with what a worker sent, or with how it reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A line of nothing.
    #[error("it sent a blank line")]
    Blank,
    /// Bytes that are no text.
    #[error("it sent a line that is not UTF-8")]
    NotText,
    /// A text that is no JSON.
    #[error("it sent a line that is no JSON from its byte {column} on")]
    NotJson {
        /// Where reading it ended, from 1 on.
        column: usize,
    },
    /// Bun marks each line of its own with a byte that is no JSON.
    #[error("it speaks Bun's dialect, which is not understood")]
    BunDialect,
    /// The longest line was exceeded: the channel is over.
    #[error("it sent a line of more than {max} bytes")]
    TooLong {
        /// The limit.
        max: usize,
    },
    /// The channel ended within a line.
    #[error("its channel ended after {bytes} bytes of a line")]
    CutOff {
        /// How much there was of it.
        bytes: usize,
    },
    /// A descriptor whose line is no `NODE_HANDLE`; it is closed.
    #[error("it sent a descriptor without a message for it")]
    StrayHandle,
    /// More than one descriptor in one message; the first counts, the others are closed.
    #[error("it sent {count} descriptors too many in one message")]
    ExtraHandles {
        /// How many were closed.
        count: usize,
    },
    /// A `NODE_HANDLE` without its descriptor: we had no room for it (`MSG_CTRUNC`), or it sent none.
    #[error("its descriptor did not arrive")]
    HandleMissing,
    /// A descriptor of a kind that Node does not know; it is closed.
    #[error("it sent a descriptor of an unknown kind")]
    UnknownHandle,
    /// An answer where nothing waits for one.
    #[error("it acknowledged a descriptor that it was not sent")]
    StrayAcknowledgement,
    /// It sends descriptors and does not read the answers: the channel is over.
    #[error("it sends descriptors and does not read what they are answered by")]
    AnswersUnread,
}

impl Problem {
    /// Whether the channel is of no use any more: the worker has to be replaced.
    #[must_use]
    pub fn ends_channel(&self) -> bool {
        match self {
            Problem::TooLong { .. } | Problem::CutOff { .. } | Problem::AnswersUnread => true,
            Problem::Blank
            | Problem::NotText
            | Problem::NotJson { .. }
            | Problem::BunDialect
            | Problem::StrayHandle
            | Problem::ExtraHandles { .. }
            | Problem::HandleMissing
            | Problem::UnknownHandle
            | Problem::StrayAcknowledgement => false,
        }
    }
}

#[cfg(test)]
mod tests;
