//! How a worker is given connections and answers for them, by its channel. Another way for other
//! workers is another variant, with the same three outcomes and the same four answers.

use std::collections::{BTreeMap, VecDeque};

use crate::core::dispatch::{Answer, Event};
use crate::core::ids::{ConnectionId, WorkerId};
use crate::os::dispatch::{BUFFER, Channel, Connection, Received, Sent};
use crate::protocol::dispatch_channel::{Conversation, Said, message};

/// The way of one worker.
#[derive(Debug)]
pub(in crate::daemon) enum Way {
    /// The descriptor named `dispatch`.
    Channel(ChannelWay),
}

/// The channel that `protocol::dispatch_channel` describes.
#[derive(Debug)]
pub(in crate::daemon) struct ChannelWay {
    pub(super) channel: Channel,
    conversation: Conversation<ConnectionId>,
    /// What it was given while it took nothing, which is sent first, and where that was accepted.
    unsent: VecDeque<(ConnectionId, Option<String>)>,
    empty_messages: u64,
}

/// A connection that no worker has taken yet.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) connection: Connection,
    /// Whether a worker was given it at some time.
    pub(super) was_given: bool,
}

/// What became of a connection that was to be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::daemon) enum Given {
    /// It is on its way.
    Sent,
    /// It is sent when the way takes more, which is to be waited for.
    Waits,
    /// It was not sent and will not be.
    Lost,
}

/// What a worker has said.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// In order.
    pub(super) events: Vec<Event>,
    /// Whether it will say nothing more.
    pub(super) over: bool,
}

impl ChannelWay {
    pub(super) fn new(channel: Channel) -> ChannelWay {
        let conversation = Conversation::default();
        ChannelWay { channel, conversation, unsent: VecDeque::new(), empty_messages: 0 }
    }

    /// Gives a connection that came to the socket of this name.
    pub(super) fn give(
        &mut self,
        id: ConnectionId,
        connection: &Connection,
        socket: Option<&str>,
    ) -> Given {
        let sent = if self.unsent.is_empty() {
            self.channel.send(message(socket), connection)
        } else {
            Sent::Full
        };
        match sent {
            Sent::Whole => {
                self.conversation.sent(id);
                Given::Sent
            }
            Sent::Full => {
                self.unsent.push_back((id, socket.map(ToOwned::to_owned)));
                Given::Waits
            }
            Sent::Lost => Given::Lost,
        }
    }

    /// Whether something waits until it takes more.
    pub(super) fn is_blocked(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Sends what waits, as far as that goes. Gives what cannot be sent.
    pub(super) fn flush(&mut self, held: &BTreeMap<ConnectionId, Held>) -> Vec<ConnectionId> {
        let mut lost = Vec::new();
        while let Some((id, socket)) = self.unsent.front() {
            let id = *id;
            let Some(Held { connection, .. }) = held.get(&id) else {
                self.unsent.pop_front();
                continue;
            };
            match self.channel.send(message(socket.as_deref()), connection) {
                Sent::Whole => self.conversation.sent(id),
                Sent::Full => break,
                Sent::Lost => lost.push(id),
            }
            self.unsent.pop_front();
        }
        lost
    }

    /// Reads what the worker has said, so many messages at most.
    pub(super) fn hear(&mut self, worker: WorkerId, messages_max: usize) -> Heard {
        let mut heard = Heard::default();
        let mut buffer = BUFFER;
        for _ in 0..messages_max {
            let length = match self.channel.receive(&mut buffer) {
                Received::Message(length) => length,
                Received::Nothing => break,
                Received::End => {
                    heard.over = true;
                    break;
                }
            };
            self.empty_messages += u64::from(length == 0);
            let bytes = buffer.get(..length).unwrap_or_default();
            self.conversation.feed(bytes, |said| {
                let answered = |connection, answer| Event::Answered { worker, connection, answer };
                heard.events.push(match said {
                    Said::Accepted(connection) => answered(connection, Answer::Accepted),
                    Said::Refused(connection) => answered(connection, Answer::Refused),
                    Said::NotReceived(connection) => answered(connection, Answer::NotReceived),
                    Said::Ended => Event::Ended(worker),
                });
            });
        }
        heard
    }

    /// Whether anything that it has said made no sense.
    pub(super) fn spoke_nonsense(&self) -> bool {
        self.empty_messages > 0 || self.conversation.senseless() > 0
    }
}
