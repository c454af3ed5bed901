//! Closes idle kept-alive connections of workers that are to stop, whose programs know nothing of it:
//! the worker reads an end of file and closes, as if its client had left. That is shutdown(2) on a copy
//! of its descriptor, which holds for all who have the connection.
//!
//! A connection is idle when the last word was the worker's, all of it has arrived, nothing has come
//! since, and some time has passed. It is a guess: a request may be on its way at that moment, the one
//! race that nobody who closes an idle connection can win; and a stream that pauses looks just so.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use nix::libc;

use super::copies::{Closed, Copy, Standing, Unread};
use super::descriptors::Descriptor;
use super::socket_table::Ends;

/// How long nothing may have been said: longer than a round trip to most clients, so that a request
/// that was on its way when the answer left has come.
pub(super) const IDLE_FOR: Duration = Duration::from_millis(100);

/// How many connections of one worker are looked at in one look, at 10 us for each. The others come
/// with the next looks.
const CONNECTIONS_MAX: usize = 256;

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdleClosed {
    /// How many were closed.
    pub closed: u32,
    /// Why none can be, where that is so.
    pub refused: Option<String>,
}

/// Closes those of the connections with these ends that are idle. The number of the look decides with
/// which of many it begins.
pub(super) fn close(
    descriptors: &[Descriptor],
    ends: &BTreeMap<u64, Ends>,
    number: u64,
) -> IdleClosed {
    let own: Vec<&Descriptor> =
        descriptors.iter().filter(|descriptor| ends.contains_key(&descriptor.inode)).collect();
    let parts = own.len().div_ceil(CONNECTIONS_MAX).max(1);
    let part = usize::try_from(number).unwrap_or(0) % parts;
    let mut result = IdleClosed::default();
    for descriptor in own.into_iter().skip(part * CONNECTIONS_MAX).take(CONNECTIONS_MAX) {
        match close_one(*descriptor) {
            Ok(true) => result.closed += 1,
            Ok(false) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => {
                result.refused = Some(error.to_string());
                break;
            }
            // It was closed meanwhile, or no descriptor is left.
            Err(_) => {}
        }
    }
    result
}

fn close_one(descriptor: Descriptor) -> io::Result<bool> {
    let copy = Copy::of(descriptor)?;
    let is_idle = is_idle(copy.standing()?);
    if is_idle {
        copy.end_reading()?;
    }
    Ok(is_idle)
}

fn is_idle(standing: Standing) -> bool {
    let Standing { closed, sent, received, unread, unsent, spoke } = standing;
    let is_open = closed == Closed::Nobody && unread == Unread::Nothing;
    // One on which nothing was answered yet is new, and its client does not expect it to end.
    is_open && spoke && !unsent && sent <= received && sent >= IDLE_FOR
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_idle_when_the_last_word_was_the_workers_and_time_has_passed() {
        let idle = Standing {
            closed: Closed::Nobody,
            sent: IDLE_FOR,
            received: IDLE_FOR,
            unread: Unread::Nothing,
            unsent: false,
            spoke: true,
        };
        assert!(is_idle(idle));
        let sooner = Duration::from_millis(99);
        for (case, other) in [
            ("too young", Standing { sent: sooner, ..idle }),
            ("a request came", Standing { received: sooner, ..idle }),
            ("a request waits", Standing { unread: Unread::Data, ..idle }),
            ("an answer is on its way", Standing { unsent: true, ..idle }),
            ("new", Standing { spoke: false, ..idle }),
            ("ended before", Standing { unread: Unread::End, ..idle }),
            ("its client closed it", Standing { closed: Closed::Client, ..idle }),
            ("its worker closed it", Standing { closed: Closed::Worker, ..idle }),
        ] {
            assert!(!is_idle(other), "{case}");
        }
    }
}
