//! What waits to be written to a worker, in which order, and what waits for its acknowledgement.

use std::collections::VecDeque;

use super::Limits;
use super::line::{HandleLine, Line};

/// How often a descriptor is sent to the same worker again that had no room for it: as often as Node.
pub const RETRIES_MAX: u32 = 3;

/// The next sendmsg(2): bytes, and the descriptor that goes with their first one.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk<'a, H> {
    /// The rest of one line.
    pub bytes: &'a [u8],
    /// What goes with it; none for a line that has been begun.
    pub handle: Option<&'a H>,
}

/// There is no room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the worker does not read what it is sent")]
pub struct Full;

/// A descriptor that a worker had no room for (`NODE_HANDLE_NACK`): neither it nor its message was
/// heard. A connection goes to another worker; what is for this one can be sent again after a while.
#[derive(Debug, PartialEq, Eq)]
pub struct Undelivered<H> {
    /// What was sent.
    pub handle: H,
    line: HandleLine,
    retries: u32,
}

impl<H> Undelivered<H> {
    /// How often it was sent again.
    #[must_use]
    pub fn retries(&self) -> u32 {
        self.retries
    }
}

/// Answers go first, since a worker keeps everything that it has to say until it has them; all else
/// goes in the order in which it came. One line is written at a time, to its end.
#[derive(Debug)]
pub(super) struct Queue<H> {
    limits: Limits,
    answers: VecDeque<Answer>,
    lines: VecDeque<Waiting<H>>,
    /// The line that is being written, and how much of it was.
    writing: Option<(Waiting<H>, usize)>,
    message_bytes: usize,
    internal_bytes: usize,
    /// What was sent and not acknowledged, oldest first.
    sent: VecDeque<Undelivered<H>>,
    /// How many of the lines that wait have a descriptor.
    handles: usize,
    dropped: u64,
}

/// What a descriptor is answered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It came.
    Received,
    /// Its line came without it.
    Missing,
}

#[derive(Debug)]
struct Waiting<H> {
    line: Line,
    what: What<H>,
}

#[derive(Debug)]
enum What<H> {
    Internal,
    Message,
    Handle(Undelivered<H>),
}

impl Answer {
    fn bytes(self) -> &'static [u8] {
        match self {
            Answer::Received => b"{\"cmd\":\"NODE_HANDLE_ACK\"}\n",
            Answer::Missing => b"{\"cmd\":\"NODE_HANDLE_NACK\"}\n",
        }
    }
}

impl<H> Queue<H> {
    pub(super) fn new(limits: Limits) -> Queue<H> {
        Queue {
            limits,
            answers: VecDeque::new(),
            lines: VecDeque::new(),
            writing: None,
            message_bytes: 0,
            internal_bytes: 0,
            sent: VecDeque::new(),
            handles: 0,
            dropped: 0,
        }
    }

    pub(super) fn push_message(&mut self, line: Line) -> Result<(), Full> {
        let bytes = self.message_bytes + line.len();
        // One message alone may be longer than what waits otherwise: it has to go some time.
        if self.message_bytes > 0 && bytes > self.limits.message_bytes_max {
            self.dropped += 1;
            return Err(Full);
        }
        self.message_bytes = bytes;
        self.lines.push_back(Waiting { line, what: What::Message });
        Ok(())
    }

    pub(super) fn push_internal(&mut self, line: Line) -> Result<(), Full> {
        self.reserve(line.len())?;
        self.lines.push_back(Waiting { line, what: What::Internal });
        Ok(())
    }

    pub(super) fn push_handle(&mut self, line: HandleLine, handle: H) -> Result<(), H> {
        let item = Undelivered { handle, line, retries: 0 };
        self.push_undelivered(item).map_err(|item| item.handle)
    }

    pub(super) fn push_again(&mut self, item: Undelivered<H>) -> Result<(), Undelivered<H>> {
        if item.retries >= RETRIES_MAX {
            return Err(item);
        }
        let again = Undelivered { retries: item.retries + 1, ..item };
        self.push_undelivered(again)
    }

    pub(super) fn push_answer(&mut self, answer: Answer) -> Result<(), Full> {
        self.reserve(answer.bytes().len())?;
        self.answers.push_back(answer);
        Ok(())
    }

    /// The acknowledgement of what was sent first.
    pub(super) fn take_sent(&mut self) -> Option<Undelivered<H>> {
        self.sent.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.writing.is_none() && self.answers.is_empty() && self.lines.is_empty()
    }

    /// Descriptors that wait or were not acknowledged.
    pub(super) fn handles(&self) -> usize {
        self.handles + self.sent.len()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn chunk(&mut self) -> Option<Chunk<'_, H>> {
        if self.writing.is_none() {
            let next = match self.answers.pop_front() {
                Some(answer) => {
                    Waiting { line: Line::from_static(answer.bytes()), what: What::Internal }
                }
                None => self.lines.pop_front()?,
            };
            self.writing = Some((next, 0));
        }
        let (line, written) = self.writing.as_ref()?;
        let handle = match &line.what {
            What::Handle(item) => Some(&item.handle),
            What::Internal | What::Message => None,
        };
        Some(Chunk { bytes: line.line.as_bytes().get(*written..).unwrap_or_default(), handle })
    }

    pub(super) fn wrote(&mut self, bytes: usize) {
        let Some((mut waiting, mut written)) = self.writing.take() else { return };
        if bytes == 0 {
            self.writing = Some((waiting, written));
            return;
        }
        waiting.what = match waiting.what {
            // The kernel has the descriptor from the first byte on, however many more were taken.
            What::Handle(item) => {
                self.handles -= 1;
                self.sent.push_back(item);
                What::Internal
            }
            what @ (What::Internal | What::Message) => what,
        };
        written += bytes;
        if written < waiting.line.len() {
            self.writing = Some((waiting, written));
            return;
        }
        match waiting.what {
            What::Message => self.message_bytes -= waiting.line.len(),
            What::Internal | What::Handle(_) => self.internal_bytes -= waiting.line.len(),
        }
    }

    /// Every descriptor that was not acknowledged: those that were sent, oldest first, then those that
    /// wait.
    pub(super) fn into_handles(self) -> impl Iterator<Item = H> {
        let begun = self.writing.into_iter().map(|(waiting, _)| waiting);
        let waiting = begun.chain(self.lines).filter_map(|waiting| match waiting.what {
            What::Handle(item) => Some(item),
            What::Internal | What::Message => None,
        });
        self.sent.into_iter().chain(waiting).map(|item| item.handle)
    }

    fn push_undelivered(&mut self, item: Undelivered<H>) -> Result<(), Undelivered<H>> {
        let line = item.line.line().clone();
        if self.handles() >= self.limits.handles_max || self.reserve(line.len()).is_err() {
            return Err(item);
        }
        self.handles += 1;
        self.lines.push_back(Waiting { line, what: What::Handle(item) });
        Ok(())
    }

    fn reserve(&mut self, bytes: usize) -> Result<(), Full> {
        let bytes = self.internal_bytes + bytes;
        if bytes > self.limits.internal_bytes_max {
            return Err(Full);
        }
        self.internal_bytes = bytes;
        Ok(())
    }

    /// What the bounds are about.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> (usize, usize) {
        (self.message_bytes, self.internal_bytes)
    }
}
