//! How long an empty slot waits before its next worker: backoff for those that never got ready, a
//! limit per second for those that did.

use std::collections::VecDeque;
use std::time::Duration;

use super::time::Time;

/// The first delay after an exit before ready.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(100);

/// The longest delay.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// How many times in a row a service fails, none of its workers ready in between, before it is
/// reported as failing.
pub const FAILING_AFTER: u32 = 10;

/// How many workers that were ready a service replaces in [`RESTART_WINDOW`].
pub const RESTARTS_MAX: usize = 10;

/// See [`RESTARTS_MAX`].
pub const RESTART_WINDOW: Duration = Duration::from_secs(1);

/// The delay after the `failures`th exit in a row before ready (from 1 on): doubled each time up to
/// the longest, then shortened by up to a quarter, so that slots which fail together part company.
#[must_use]
pub fn backoff(failures: u32, random: &mut Random) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let nominal = (BACKOFF_FIRST * (1 << doublings)).min(BACKOFF_MAX);
    let quarter = u64::try_from(nominal.as_micros() / 4).unwrap_or(u64::MAX);
    nominal.saturating_sub(Duration::from_micros(random.below(quarter + 1)))
}

/// When a service's last immediate restarts were.
#[derive(Debug, Clone, Default)]
pub struct RestartWindow {
    times: VecDeque<Time>,
}

impl RestartWindow {
    /// Takes a place for one restart: the earliest point at or after `now` that keeps to the limit.
    pub fn take(&mut self, now: Time) -> Time {
        let at = if self.times.len() < RESTARTS_MAX {
            now
        } else {
            let oldest = self.times.pop_front().unwrap_or(now);
            now.max(oldest + RESTART_WINDOW)
        };
        self.times.push_back(at);
        at
    }
}

/// A small generator of pseudo-random numbers (splitmix64), for jitter. Seeded by the caller, so
/// that a simulation repeats itself.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator that gives the same numbers for the same seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Random {
        Random(seed)
    }

    /// A number from 0 to `bound` - 1; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)).checked_rem(bound).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_from_100_ms_to_30_s_with_jitter_below() {
        let mut random = Random::seeded(1);
        for (failures, nominal_ms) in
            [(1, 100), (2, 200), (3, 400), (9, 25_600), (10, 30_000), (4_000_000_000, 30_000)]
        {
            let nominal = Duration::from_millis(nominal_ms);
            for _ in 0..100 {
                let delay = backoff(failures, &mut random);
                assert!(delay <= nominal && delay >= nominal * 3 / 4, "{failures}: {delay:?}");
            }
        }
    }

    #[test]
    fn the_eleventh_restart_within_a_second_waits_for_the_first_to_be_a_second_old() {
        let mut window = RestartWindow::default();
        let now = Time::after_origin(Duration::from_secs(5));
        for _ in 0..RESTARTS_MAX {
            assert_eq!(window.take(now), now);
        }
        assert_eq!(window.take(now), now + RESTART_WINDOW);
        let later = now + Duration::from_secs(60);
        assert_eq!(window.take(later), later);
    }
}
