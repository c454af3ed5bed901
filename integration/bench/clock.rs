//! Time for a program that measures it.

use std::time::{Duration, Instant};

use nix::{poll::ppoll, sys::time::TimeSpec};

/// When something began.
#[derive(Clone, Copy)]
pub struct Begin(Instant);

impl Begin {
    pub fn now() -> Begin {
        Begin(Instant::now())
    }

    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Lets time go by. It is part of a measurement, or the pace of one: never a wait for something
/// that should happen.
pub fn pause(length: Duration) {
    let begin = Begin::now();
    while let Some(left) = length.checked_sub(begin.elapsed()).filter(|left| !left.is_zero()) {
        // Interrupted or not, the rest is waited for.
        let _ = ppoll(&mut [], Some(TimeSpec::from_duration(left)), None);
    }
}
