//! When a starting worker counts as ready, and when it is looked at. Evidence or failure: "assumed"
//! exists only where a service owns no socket, or where nothing can be read.

use std::fmt;
use std::time::Duration;

use super::policy::{Policy, ReadyWhen};
use super::time::Time;

/// How long a worker must have been alive to be assumed ready where no evidence can be had.
pub const ASSUMED_AFTER: Duration = Duration::from_secs(1);

/// The first look after the program runs; the fastest workers serve within it.
const PROBE_FIRST: Duration = Duration::from_millis(2);

/// The longest pause between two looks at one worker, when few are starting.
const PROBE_MAX: Duration = Duration::from_millis(100);

/// The pause that each starting worker adds for all: at most 2000 looks a second, about a tenth of
/// a processor at 50 microseconds a look.
const PROBE_SHARE: Duration = Duration::from_micros(500);

/// A process that keeps the sockets of a wrapped worker for so long is no passing helper.
pub const WRAPPED_AFTER: Duration = Duration::from_secs(5);

/// And one that was seen so often in a row was there for more than a moment.
pub const WRAPPED_LOOKS: u32 = 2;

/// The most that one message may extend a deadline by.
pub const EXTEND_MAX: Duration = Duration::from_secs(3600);

/// What made a worker ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// It sent `READY=1`.
    Said,
    /// It was seen waiting on its socket.
    SeenWaiting,
    /// It has been alive for as long as was asked.
    Alive(Duration),
    /// It has been alive for a second, and nothing better can be had.
    Assumed,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Evidence::Said => write!(f, "it said so"),
            Evidence::SeenWaiting => write!(f, "seen waiting on its socket"),
            Evidence::Alive(time) => write!(f, "alive for {time:?}"),
            Evidence::Assumed => {
                write!(f, "assumed: alive for {ASSUMED_AFTER:?}, no evidence to be had")
            }
        }
    }
}

/// What a starting worker whose program runs is waited for, besides its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watch {
    /// When to look at it next, and how long after that again.
    pub probe: Option<(Time, Duration)>,
    /// When being alive is enough.
    pub alive: Option<(Time, Evidence)>,
}

impl Watch {
    /// Before the program runs there is nothing to see.
    pub const NOTHING: Watch = Watch { probe: None, alive: None };

    /// From the moment the program runs.
    #[must_use]
    pub fn begin(now: Time, policy: &Policy) -> Watch {
        let has_socket = !policy.sockets.is_empty();
        let probe =
            (policy.ready.takes_sight() && has_socket).then_some((now + PROBE_FIRST, PROBE_FIRST));
        let alive = match policy.ready {
            ReadyWhen::Alive(time) => Some((now + time, Evidence::Alive(time))),
            ReadyWhen::Auto if !has_socket => Some((now + ASSUMED_AFTER, Evidence::Assumed)),
            ReadyWhen::Auto | ReadyWhen::Notify | ReadyWhen::Listen => None,
        };
        Watch { probe, alive }
    }

    /// A look was taken at `now`, with so many workers starting: set the next one.
    pub fn probed(&mut self, now: Time, starting: u32) {
        if let Some((_, pause)) = self.probe {
            let pause = (pause * 3 / 2).min(PROBE_MAX);
            self.probe = Some((now + pause.max(PROBE_SHARE * starting), pause));
        }
    }

    /// The kernel does not let us look: under `auto` being alive has to do.
    pub fn blind(&mut self, now: Time, policy: &Policy) {
        match policy.ready {
            ReadyWhen::Auto => {
                self.probe = None;
                if self.alive.is_none() {
                    self.alive = Some((now + ASSUMED_AFTER, Evidence::Assumed));
                }
            }
            ReadyWhen::Listen | ReadyWhen::Notify | ReadyWhen::Alive(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_slow_down_to_a_bound_that_grows_with_the_crowd() {
        let pause_after = |looks: u32, starting: u32| {
            let mut watch = Watch { probe: Some((Time::ZERO, PROBE_FIRST)), alive: None };
            let mut now = Time::ZERO;
            let mut pause = Duration::ZERO;
            for _ in 0..looks {
                watch.probed(now, starting);
                let (next, _) = watch.probe.expect("a look is due");
                pause = next.since(now);
                now = next;
            }
            pause
        };
        assert_eq!(pause_after(1, 1), Duration::from_millis(3));
        assert_eq!(pause_after(30, 4), PROBE_MAX);
        assert_eq!(pause_after(30, 1000), Duration::from_millis(500));
    }
}
