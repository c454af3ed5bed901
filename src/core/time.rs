//! The core's time: a point on a clock that only moves forward, always passed in as `now`.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time, counted from an origin that the caller chose. The core never reads a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(Duration);

impl Time {
    /// The origin.
    pub const ZERO: Time = Time(Duration::ZERO);

    /// The point `elapsed` after the origin.
    #[must_use]
    pub const fn after_origin(elapsed: Duration) -> Time {
        Time(elapsed)
    }

    /// How long it has been since `earlier`; zero when `earlier` lies ahead.
    #[must_use]
    pub fn since(self, earlier: Time) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// How long it is until `later`; zero when `later` has passed.
    #[must_use]
    pub fn until(self, later: Time) -> Duration {
        later.since(self)
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, duration: Duration) -> Time {
        Time(self.0.saturating_add(duration))
    }
}

impl Sub<Time> for Time {
    type Output = Duration;

    fn sub(self, earlier: Time) -> Duration {
        self.since(earlier)
    }
}

/// Why the daemon will wake: a log line can say it, and a forgotten deadline shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// A starting worker is looked at: is it waiting on its socket?
    Probe,
    /// A starting worker is checked.
    Check,
    /// A check has had its time.
    CheckTimeout,
    /// A worker has been alive long enough to count as ready.
    Alive,
    /// A starting worker's time to become ready ends.
    ReadyTimeout,
    /// What is left of draining workers is looked at, or has had its time to end.
    Empty,
    /// The queues of workers that have sockets of their own are looked at.
    Queue,
    /// A new generation has served its share for long enough, or all of it for long enough to stay.
    Trial,
    /// A draining worker's time ends: the next signal of its ladder, or KILL.
    Drain,
    /// What a main process left behind has had its time.
    Orphans,
    /// A killed tree is looked at again.
    Kill,
    /// A broken socket is repaired, its holders are looked at, or its workers are replaced.
    Socket,
    /// A stop's lame duck is over.
    LameDuck,
    /// A proxy that is being told has had its time, or is told again.
    Publish,
    /// A worker that is taken out of a proxy's upstreams has waited long enough.
    Withdraw,
    /// An empty slot's backoff, or the service's limit on restarts, ends.
    Restart,
}

/// The earlier of two deadlines; the reason breaks ties, so that the answer never depends on order.
pub(crate) fn earlier(a: Option<(Time, Why)>, b: Option<(Time, Why)>) -> Option<(Time, Why)> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
