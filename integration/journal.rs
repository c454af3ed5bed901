//! Reads the daemon's own log: who, what, and when by its own clock.

use std::time::Duration;

use crate::harness::Daemon;

/// A line of the daemon's log.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Since the first line of the log.
    pub(crate) at: Duration,
    pub(crate) text: String,
}

impl Entry {
    /// The number of the worker that the line is about, if it begins with one.
    pub(crate) fn worker(&self) -> Option<u64> {
        let rest = self.text.strip_prefix("worker ")?;
        rest.split(' ').next()?.parse().ok()
    }

    /// The slot of that worker.
    pub(crate) fn slot(&self) -> Option<u32> {
        let (_, rest) = self.text.strip_prefix("worker ")?.split_once('(')?;
        let (name, _) = rest.split_once(')')?;
        name.rsplit_once('.')?.1.parse().ok()
    }

    pub(crate) fn is_start(&self) -> bool {
        self.worker().is_some() && self.text.contains(") started: pid ")
    }

    pub(crate) fn is_start_of(&self, generation: u32) -> bool {
        self.is_start() && self.text.ends_with(&format!(", generation {generation}"))
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.worker().is_some() && self.text.contains(") is ready after ")
    }

    /// What follows `before`, as a duration that the daemon wrote for people, which rounds down.
    pub(crate) fn duration_after(&self, before: &str) -> Option<Duration> {
        let (_, rest) = self.text.split_once(before)?;
        let mut words = rest.split([' ', ';', ':', ',']);
        let number: f64 = words.next()?.parse().ok()?;
        match words.next()? {
            "ms" => Some(Duration::from_secs_f64(number / 1000.0)),
            "s" => Some(Duration::from_secs_f64(number)),
            _ => None,
        }
    }
}

/// All that the daemon has said.
pub(crate) fn journal(daemon: &Daemon) -> Vec<Entry> {
    let mut first = None;
    daemon
        .lines()
        .iter()
        .filter_map(|line| {
            let (at, text) = parse(&line.text)?;
            let begin = *first.get_or_insert(at);
            // The day may end meanwhile.
            let day = Duration::from_secs(24 * 60 * 60);
            let at = if at + day / 2 < begin { at + day } else { at };
            Some(Entry { at: at.saturating_sub(begin), text: text.to_owned() })
        })
        .collect()
}

/// `2026-01-31T12:00:00.123456Z INFO  what happened`: the time of the day, and what happened.
fn parse(line: &str) -> Option<(Duration, &str)> {
    let (stamp, rest) = line.split_once(' ')?;
    let (_, time) = stamp.strip_suffix('Z')?.split_once('T')?;
    let mut parts = time.split(':');
    let hours: u64 = parts.next()?.parse().ok()?;
    let minutes: u64 = parts.next()?.parse().ok()?;
    let seconds: f64 = parts.next()?.parse().ok()?;
    let (_level, text) = rest.split_once(' ')?;
    let at = Duration::from_secs(hours * 3600 + minutes * 60) + Duration::from_secs_f64(seconds);
    Some((at, text.trim_start()))
}

#[test]
fn lines_of_the_log_are_read() {
    let line = "2026-01-31T12:00:01.500000Z WARN  worker 3 (web.2) exited with code 1 before it \
                was ready; restarting in 2.5 s (attempt 3)";
    let (at, text) = parse(line).expect("a line of the log");
    assert_eq!(at, Duration::from_millis(43_201_500));
    let text = text.to_owned();
    let entry = Entry { at, text };
    assert_eq!((entry.worker(), entry.slot()), (Some(3), Some(2)));
    let delay = entry.duration_after("restarting in ");
    assert_eq!(delay, Some(Duration::from_millis(2_500)));
    assert!(parse("something a worker said").is_none());
}
