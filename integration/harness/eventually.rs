//! Waits for a condition with a deadline: the only place of the tests that sleeps.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long a test waits for what should come at once; long because machines that run tests are
/// slow at times.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// How often a condition is looked at: short against what a person notices, long against the cost
/// of reading /proc.
const STEP: Duration = Duration::from_millis(5);

/// Gives the first `Some` of `condition`; fails the test with `what` when none comes in time.
#[track_caller]
pub fn eventually<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    match eventually_within(DEADLINE, condition) {
        Some(value) => value,
        None => panic!("waited {DEADLINE:?} in vain for {what}"),
    }
}

/// The same with another deadline, for callers that have more to say about the failure.
pub fn eventually_within<T>(
    deadline: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        // The condition is looked at once more after the end: a starved thread is no failure.
        let last = Instant::now() >= end;
        if let Some(value) = condition() {
            return Some(value);
        }
        if last {
            return None;
        }
        thread::sleep(STEP);
    }
}
