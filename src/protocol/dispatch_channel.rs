//! How a worker that is no Node gets connections from shepherd: a few lines in any language that can
//! receive a descriptor. Pure.
//!
//! # The protocol
//!
//! With `balance: dispatch` and `handoff: fds` the worker has a descriptor named `dispatch` among
//! those of `LISTEN_FDS` (sd_listen_fds_with_names(3)): one end of a pair of unix sockets of type
//! `SOCK_SEQPACKET`, so that a message arrives whole (unix(7)). The sockets that it would have
//! accepted from stay with shepherd.
//!
//! - Each message from shepherd is one connection: its text is the name of the socket where it was
//!   accepted, at most [`NAME_MAX`] bytes, and one descriptor comes with it (`SCM_RIGHTS`). It is as
//!   accept(2) gives it: blocking.
//! - For each message the worker sends one byte, in the order in which they came, before it reads from
//!   the connection:
//!   `+` it has it and will answer the client, whatever comes;
//!   `-` it does not want it (it is full), and has closed it unread;
//!   `!` the descriptor did not come (`MSG_CTRUNC`: the worker's limit of open files).
//! - Of the latter two another worker gets the connection. So does it if the worker dies before it has
//!   sent the byte. Of connections that it has not answered for it gets four, and then no more.
//! - With `least-connections` it sends one more byte for each that it had taken when that is over: `.`.
//!   One that never sends it is counted from outside.
//! - The end of the channel (a read of 0 bytes) says that nothing more comes: the worker finishes
//!   what it has and exits. The stop signal comes as to every worker.
//!
//! Bytes may be sent together. Others, and answers to nothing, are passed over and counted.
//!
//! ```python
//! import os, socket
//! names = os.environ["LISTEN_FDNAMES"].split(":")
//! channel = socket.socket(fileno=3 + names.index("dispatch"))
//! while True:
//!     name, descriptors, flags, _ = socket.recv_fds(channel, 255, 1)
//!     if not name:
//!         break
//!     channel.send(b"+" if descriptors else b"!")
//!     for descriptor in descriptors:
//!         serve(socket.socket(fileno=descriptor), name.decode())
//! ```

use std::collections::VecDeque;

/// The name of the descriptor.
pub const NAME: &str = "dispatch";

/// The longest name of a socket, see sd_listen_fds_with_names(3); so long a message at most.
pub const NAME_MAX: usize = 255;

/// What is sent with a connection: the name of the socket where it was accepted. It is never empty,
/// since a message of no bytes reads as the end of the channel.
#[must_use]
pub fn message(socket: Option<&str>) -> &[u8] {
    let name = socket.filter(|name| !name.is_empty()).unwrap_or(super::listen_fds::UNNAMED);
    name.as_bytes().get(..NAME_MAX).unwrap_or(name.as_bytes())
}

/// What a worker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said<T> {
    /// It has this one.
    Accepted(T),
    /// It does not want this one.
    Refused(T),
    /// This one came without its descriptor.
    NotReceived(T),
    /// One that it had accepted is over.
    Ended,
}

/// One worker's channel: what was sent and is not answered for, and how many it has open. It holds as
/// many as were sent; the sender keeps to a window.
#[derive(Debug, Clone)]
pub struct Conversation<T> {
    sent: VecDeque<T>,
    open: u64,
    senseless: u64,
}

impl<T> Default for Conversation<T> {
    fn default() -> Conversation<T> {
        Conversation { sent: VecDeque::new(), open: 0, senseless: 0 }
    }
}

impl<T> Conversation<T> {
    /// A connection was sent; it is answered for after all that were sent before it.
    pub fn sent(&mut self, connection: T) {
        self.sent.push_back(connection);
    }

    /// Takes what was read, in pieces of any size, and gives what it says, in order.
    pub fn feed(&mut self, bytes: &[u8], mut give: impl FnMut(Said<T>)) {
        for byte in bytes {
            match self.read(*byte) {
                Some(said) => give(said),
                None => self.senseless = self.senseless.saturating_add(1),
            }
        }
    }

    /// How many bytes said nothing that could be: others than the four, answers to nothing, ends of
    /// what had not begun.
    #[must_use]
    pub fn senseless(&self) -> u64 {
        self.senseless
    }

    fn read(&mut self, byte: u8) -> Option<Said<T>> {
        match byte {
            b'+' => {
                let connection = self.sent.pop_front()?;
                self.open = self.open.saturating_add(1);
                Some(Said::Accepted(connection))
            }
            b'-' => self.sent.pop_front().map(Said::Refused),
            b'!' => self.sent.pop_front().map(Said::NotReceived),
            b'.' => {
                self.open = self.open.checked_sub(1)?;
                Some(Said::Ended)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(conversation: &mut Conversation<u32>, bytes: &[u8]) -> Vec<Said<u32>> {
        let mut said = Vec::new();
        conversation.feed(bytes, |it| said.push(it));
        said
    }

    fn sent(count: u32) -> Conversation<u32> {
        let mut conversation = Conversation::default();
        (0..count).for_each(|connection| conversation.sent(connection));
        conversation
    }

    #[test]
    fn answers_belong_to_what_was_sent_in_order() {
        let mut conversation = sent(4);
        assert_eq!(read(&mut conversation, b"+-"), [Said::Accepted(0), Said::Refused(1)]);
        conversation.sent(4);
        let rest = [Said::NotReceived(2), Said::Ended, Said::Accepted(3), Said::Accepted(4)];
        assert_eq!(read(&mut conversation, b"!.++"), rest);
        assert_eq!(conversation.senseless(), 0);
    }

    #[test]
    fn what_makes_no_sense_is_counted_and_answers_for_nothing() {
        let mut conversation = sent(1);
        assert_eq!(read(&mut conversation, b".x\n+-+!.."), [Said::Accepted(0), Said::Ended]);
        assert_eq!(conversation.senseless(), 7);
    }

    #[test]
    fn a_message_names_the_socket_and_is_never_empty_nor_too_long() {
        assert_eq!(message(Some("http")), b"http");
        assert_eq!((message(None), message(Some(""))), (&b"unknown"[..], &b"unknown"[..]));
        assert_eq!(message(Some(&"x".repeat(300))).len(), NAME_MAX);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_answer_for_each_once_at_most(
            bytes in proptest::collection::vec(prop_oneof![
                Just(b'+'), Just(b'-'), Just(b'!'), Just(b'.'), any::<u8>(),
            ], 0..64),
            at in 0usize..64,
            count in 0u32..32,
        ) {
            let (head, tail) = bytes.split_at(at.min(bytes.len()));
            let mut pieces = sent(count);
            let mut said = read(&mut pieces, head);
            said.extend(read(&mut pieces, tail));
            let mut whole = sent(count);
            prop_assert_eq!(&said, &read(&mut whole, &bytes));
            prop_assert_eq!(said.len() as u64 + pieces.senseless(), bytes.len() as u64);
            let answered = said.iter().filter_map(|said| match said {
                Said::Accepted(id) | Said::Refused(id) | Said::NotReceived(id) => Some(*id),
                Said::Ended => None,
            });
            let answered: Vec<u32> = answered.collect();
            let first: Vec<u32> = (0..count).take(answered.len()).collect();
            prop_assert_eq!(answered, first);
            let count_of = |what: fn(&Said<u32>) -> bool| said.iter().filter(|it| what(it)).count();
            let ended = count_of(|said| matches!(said, Said::Ended));
            prop_assert!(ended <= count_of(|said| matches!(said, Said::Accepted(_))));
        }
    }
}
