//! Both directions of one channel, and what binds them: descriptors and their answers.

use super::line::{HandleKind, HandleLine, Line};
use super::parse::Parsed;
use super::queue::{Answer, Chunk, Full, Queue, Undelivered};
use super::reader::Reader;
use super::{Limits, Problem};

/// Our end of the channel to one worker.
///
/// 1. When the socket can be read, [`Channel::handle_read`] with each read; at its end
///    [`Channel::handle_end`].
/// 2. [`Channel::send`] and its likes; whatever was given may be answered so.
/// 3. While [`Channel::poll_write`] gives something and the socket takes it, one sendmsg(2) each, then
///    [`Channel::handle_written`]. What is sent must not block its reader: a descriptor has `O_NONBLOCK`.
/// 4. When the worker is gone, [`Channel::into_handles`].
#[derive(Debug)]
pub struct Channel<H> {
    reader: Reader<H>,
    queue: Queue<H>,
    problems: u64,
    /// Whether a problem has ended it: nothing is read any more.
    is_over: bool,
}

/// What came from the worker. Texts are JSON.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a, H> {
    /// A message between Node's own halves: an object whose `cmd` begins with `NODE_`.
    Internal(&'a str),
    /// A message of the program: any value.
    Message(&'a str),
    /// A descriptor that the program sent. That it came has been answered.
    Handle {
        /// What it is.
        kind: HandleKind,
        /// By which the worker counts the sockets of one of its servers; a JSON string.
        key: Option<&'a str>,
        /// The message.
        message: &'a str,
        /// The descriptor.
        handle: H,
    },
    /// What was sent with this descriptor has arrived.
    Delivered(H),
    /// What was sent with this descriptor has not: the worker has no room for it.
    Undelivered(Undelivered<H>),
    /// Something was dropped.
    Problem(Problem),
}

impl<H> Channel<H> {
    /// A channel on which nothing was said.
    #[must_use]
    pub fn new(limits: Limits) -> Channel<H> {
        Channel {
            reader: Reader::new(limits.line_bytes_max),
            queue: Queue::new(limits),
            problems: 0,
            is_over: false,
        }
    }

    /// Takes one recvmsg(2): its bytes, and the descriptors that came with it. Gives what is complete,
    /// in order. A descriptor that the kernel could not give us is missing (`MSG_CTRUNC`), and its
    /// sender is told so.
    pub fn handle_read(
        &mut self,
        bytes: &[u8],
        handles: impl IntoIterator<Item = H>,
        mut give: impl FnMut(Received<'_, H>),
    ) {
        if self.is_over {
            return;
        }
        let Channel { reader, queue, problems, is_over } = self;
        reader.feed(bytes, handles, |read| {
            // What comes after the end in the same read is not heard.
            if *is_over {
                return;
            }
            let received = match read {
                Ok((parsed, handle)) => receive(queue, parsed, handle),
                Err(problem) => Received::Problem(problem),
            };
            if let Received::Problem(problem) = &received {
                *problems += 1;
                *is_over = problem.ends_channel();
            }
            give(received);
        });
    }

    /// The worker's end is closed. Tells whether that was within a line.
    pub fn handle_end(&mut self) -> Option<Problem> {
        if self.is_over {
            return None;
        }
        self.is_over = true;
        let problem = self.reader.finish();
        self.problems += u64::from(problem.is_some());
        problem
    }

    /// Has a message of Node's own written.
    ///
    /// # Errors
    ///
    /// When the worker has long not read: it is stuck, and to be replaced.
    pub fn send(&mut self, line: Line) -> Result<(), Full> {
        self.queue.push_internal(line)
    }

    /// Has a message to the program written.
    ///
    /// # Errors
    ///
    /// When too much waits already: it is dropped, and counted.
    pub fn send_message(&mut self, line: Line) -> Result<(), Full> {
        self.queue.push_message(line)
    }

    /// Has a message written together with a descriptor, of which the worker gets a copy. It comes
    /// back as [`Received::Delivered`] or [`Received::Undelivered`].
    ///
    /// # Errors
    ///
    /// When too many wait to be acknowledged, or to be read: the descriptor comes back.
    pub fn send_handle(&mut self, line: HandleLine, handle: H) -> Result<(), H> {
        self.queue.push_handle(line, handle)
    }

    /// Sends again what did not arrive, at the end of what waits.
    ///
    /// # Errors
    ///
    /// When it was sent again as often as there is sense in it, or as [`Channel::send_handle`].
    pub fn send_again(&mut self, undelivered: Undelivered<H>) -> Result<(), Undelivered<H>> {
        self.queue.push_again(undelivered)
    }

    /// What is to be written next; none while nothing waits.
    pub fn poll_write(&mut self) -> Option<Chunk<'_, H>> {
        self.queue.chunk()
    }

    /// How many bytes of what [`Channel::poll_write`] gave were written.
    pub fn handle_written(&mut self, bytes: usize) {
        self.queue.wrote(bytes);
    }

    /// Whether something waits to be written: such a worker gets no connection.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        !self.queue.is_empty()
    }

    /// How many descriptors wait or were not acknowledged.
    #[must_use]
    pub fn handles(&self) -> usize {
        self.queue.handles()
    }

    /// How many messages to the program were dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }

    /// How often the worker did what it should not.
    #[must_use]
    pub fn problems(&self) -> u64 {
        self.problems
    }

    /// Whether it has ended: nothing that is read counts any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Every descriptor that was not acknowledged, oldest first. The channel has to be read to its end
    /// before: acknowledgements may wait there.
    pub fn into_handles(self) -> impl Iterator<Item = H> {
        self.queue.into_handles()
    }

    #[cfg(test)]
    pub(super) fn queued_bytes(&self) -> (usize, usize) {
        self.queue.bytes()
    }
}

/// Answers and pairs what concerns descriptors, before anybody hears of it.
fn receive<'a, H>(queue: &mut Queue<H>, parsed: Parsed<'a>, handle: Option<H>) -> Received<'a, H> {
    let answered = match (parsed, &handle) {
        (Parsed::Handle { .. } | Parsed::UnknownHandle, Some(_)) => {
            queue.push_answer(Answer::Received)
        }
        (Parsed::Handle { .. } | Parsed::UnknownHandle, None) => queue.push_answer(Answer::Missing),
        (Parsed::Acknowledged | Parsed::Refused | Parsed::Internal(_) | Parsed::Message(_), _) => {
            Ok(())
        }
    };
    if answered.is_err() {
        return Received::Problem(Problem::AnswersUnread);
    }
    match (parsed, handle) {
        (Parsed::Handle { kind, key, message }, Some(handle)) => {
            Received::Handle { kind, key, message, handle }
        }
        (Parsed::UnknownHandle, Some(_)) => Received::Problem(Problem::UnknownHandle),
        (Parsed::Handle { .. } | Parsed::UnknownHandle, None) => {
            Received::Problem(Problem::HandleMissing)
        }
        (Parsed::Acknowledged, _) => match queue.take_sent() {
            Some(item) => Received::Delivered(item.handle),
            None => Received::Problem(Problem::StrayAcknowledgement),
        },
        (Parsed::Refused, _) => match queue.take_sent() {
            Some(item) => Received::Undelivered(item),
            None => Received::Problem(Problem::StrayAcknowledgement),
        },
        (Parsed::Internal(text), _) => Received::Internal(text),
        (Parsed::Message(text), _) => Received::Message(text),
    }
}
