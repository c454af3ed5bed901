//! Counts durations in buckets, so that a long run costs no memory.

use std::{fmt, time::Duration};

/// Buckets for each power of two: a bucket is at most 1/16 wider than its beginning.
const PARTS: u64 = 16;

#[derive(Clone, Default)]
pub struct Latencies {
    buckets: Vec<u64>,
    count: u64,
    max: Duration,
}

impl Latencies {
    pub fn add(&mut self, duration: Duration) {
        let index = bucket(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        if self.buckets.len() <= index {
            self.buckets.resize(index + 1, 0);
        }
        self.buckets[index] += 1;
        self.count += 1;
        self.max = self.max.max(duration);
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn max(&self) -> Duration {
        self.max
    }

    pub fn p50(&self) -> Duration {
        self.percentile(50)
    }

    pub fn p99(&self) -> Duration {
        self.percentile(99)
    }

    /// At most 1/16 too high.
    pub fn percentile(&self, percent: u64) -> Duration {
        let rank = (self.count * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_micros(end_of_bucket(index)).min(self.max);
            }
        }
        self.max
    }
}

impl fmt::Debug for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p50, p99, max) = (self.p50(), self.p99(), self.max);
        write!(f, "p50 {p50:?}, p99 {p99:?}, max {max:?}")
    }
}

fn bucket(micros: u64) -> usize {
    let part = if micros < PARTS {
        micros
    } else {
        let shift = u64::from(micros.ilog2() - PARTS.ilog2());
        (shift + 1) * PARTS + (micros >> shift) - PARTS
    };
    usize::try_from(part).expect("less than a thousand")
}

fn end_of_bucket(index: usize) -> u64 {
    let index = index as u64;
    if index < PARTS {
        return index;
    }
    let shift = index / PARTS - 1;
    let begin = (PARTS + index % PARTS) << shift;
    begin + ((1 << shift) - 1)
}

#[test]
fn percentiles_are_close_and_never_too_low() {
    let mut latencies = Latencies::default();
    (1..=1000).for_each(|micros| latencies.add(Duration::from_micros(micros)));
    assert_eq!(latencies.max(), Duration::from_millis(1));
    for percent in [1, 50, 99, 100] {
        #[expect(clippy::cast_possible_truncation, reason = "a millisecond at most")]
        let (exact, found) = (percent * 10, latencies.percentile(percent).as_micros() as u64);
        assert!((exact..=exact + exact / 16).contains(&found), "{percent}: {found}");
    }
}
