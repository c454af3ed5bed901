//! The clock that the core is driven by: it never goes back and never jumps.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::core::time::Time;

/// Now, by `CLOCK_MONOTONIC`, see clock_gettime(2). epoll counts its timeouts by the same clock.
#[must_use]
pub fn now() -> Time {
    // It fails only for a clock that does not exist.
    let elapsed = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    Time::after_origin(elapsed)
}

/// The time of day, since the first of January 1970 in UTC, for people and for what reads our lines.
/// It can jump, so nothing is decided by it.
#[must_use]
pub fn since_epoch() -> Duration {
    clock_gettime(ClockId::CLOCK_REALTIME).map_or(Duration::ZERO, Duration::from)
}
