//! Watches how workers that are asked to stop end the connections that they have. A program that
//! closes a connection and one that ends with it look the same to its client, and a program that has
//! little to do is through in a millisecond. So copies of the descriptors are made before, and tell
//! afterwards whether the last request was answered, and by whom the connection was closed.
//!
//! It is done with workers of whose program nothing is known, and for a moment.

use std::collections::BTreeMap;
use std::time::Duration;

use super::copies::{Closed, Copy, Held, Standing, TICK_MAX, Unread};
use super::descriptors::Descriptor;
use super::socket_table::Ends;
use crate::core::event::Closing;

/// How many connections of one worker are watched, at 10 us for each: enough to see what it does.
const CONNECTIONS_MAX: usize = 32;

/// What a worker has open, and what has become of that.
#[derive(Debug, Default)]
pub(super) struct Watch {
    copies: Vec<Copy>,
    closing: Closing,
}

impl Watch {
    /// Of those of these descriptors that have such ends, so many at most. A connection that several
    /// processes have is closed by nobody knows whom.
    pub(super) fn of(descriptors: &[Descriptor], ends: &BTreeMap<u64, Ends>, most: usize) -> Watch {
        let mut holders: BTreeMap<u64, Vec<Descriptor>> = BTreeMap::new();
        for descriptor in descriptors.iter().filter(|it| ends.contains_key(&it.inode)) {
            holders.entry(descriptor.inode).or_default().push(*descriptor);
        }
        let alone = holders.into_values().filter(|holders| holders.len() == 1).flatten();
        let most = most.min(CONNECTIONS_MAX);
        let copies = alone.take(most).filter_map(|it| Copy::of(it).ok()).collect();
        Watch { copies, closing: Closing::default() }
    }

    /// How many it is.
    pub(super) fn count(&self) -> usize {
        self.copies.len()
    }

    /// What has become of them, of a worker that was asked to stop so long ago.
    pub(super) fn look(&mut self, asked: Duration) -> Closing {
        let closing = &mut self.closing;
        self.copies.retain(|copy| {
            let held = copy.held();
            if held == Held::Yes {
                return true;
            }
            if let Ok(standing) = copy.standing() {
                note(closing, held, standing, asked);
            }
            false
        });
        closing.open = u32::try_from(self.copies.len()).unwrap_or(u32::MAX);
        *closing
    }
}

fn note(closing: &mut Closing, held: Held, standing: Standing, asked: Duration) {
    let Standing { closed, sent, received, unread, .. } = standing;
    let by_worker = match closed {
        // Whatever the worker would have done, its client has left before.
        Closed::Client | Closed::Reset => return,
        Closed::Worker => true,
        Closed::Nobody => false,
    };
    let served = sent <= asked + TICK_MAX;
    if unread == Unread::Data || received < sent {
        closing.cut += 1;
    } else if served && (by_worker || held == Held::Closed && sent < received) {
        // Of one that was just closed it must be sure that the answer was to the last request: what
        // comes within the same tick may have come after it.
        closing.finished += 1;
    } else if !by_worker && held != Held::Closed {
        closing.left += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(held: Held, closed: Closed, sent: u64, received: u64, unread: bool) -> [u32; 3] {
        let millis = Duration::from_millis;
        let (sent, received) = (millis(sent), millis(received));
        let unread = if unread { Unread::Data } else { Unread::Nothing };
        let (unsent, spoke) = (false, true);
        let standing = Standing { closed, sent, received, unread, unsent, spoke };
        let mut closing = Closing::default();
        note(&mut closing, held, standing, millis(50));
        [closing.finished, closing.cut, closing.left]
    }

    #[test]
    fn what_was_answered_and_then_closed_was_finished() {
        use Closed::{Client, Nobody, Reset, Worker};
        for held in [Held::Closed, Held::Ended] {
            assert_eq!(noted(held, Worker, 4, 8, false), [1, 0, 0]);
            assert_eq!(noted(held, Worker, 4, 4, false), [1, 0, 0]);
            assert_eq!(noted(held, Worker, 90, 94, false), [0, 0, 0], "idle since before");
            assert_eq!(noted(held, Worker, 8, 4, false), [0, 1, 0], "a request is not answered");
            assert_eq!(noted(held, Nobody, 8, 4, false), [0, 1, 0]);
            assert_eq!(noted(held, Nobody, 4, 4, true), [0, 1, 0], "a request is not read");
            assert_eq!(noted(held, Client, 8, 4, false), [0, 0, 0]);
            assert_eq!(noted(held, Reset, 8, 4, true), [0, 0, 0]);
        }
        assert_eq!(noted(Held::Closed, Nobody, 4, 8, false), [1, 0, 0]);
        assert_eq!(noted(Held::Closed, Nobody, 4, 4, false), [0, 0, 0], "nobody knows");
        assert_eq!(noted(Held::Closed, Nobody, 90, 94, false), [0, 0, 0]);
        assert_eq!(noted(Held::Ended, Nobody, 4, 8, false), [0, 0, 1], "it may be by chance");
    }
}
