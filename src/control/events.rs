//! The last events, numbered, for whoever reads along: as many as are allowed, as lines of JSON.
//! It knows no clock and no reader; who falls behind is told by a line how much is missing.

use std::collections::VecDeque;

use super::wire::{Event, Level};

/// How many events are kept: a reload of a hundred workers, twice.
pub const EVENTS_MAX: usize = 1024;

/// How many bytes of them: a notice has some hundred.
pub const BYTES_MAX: usize = 512 << 10;

/// How much is given at a time, so that many readers who all resume from far behind cost a turn of
/// the loop little.
const BATCH_BYTES_MAX: usize = 32 << 10;

/// The kind of the line that tells of others that are missing.
pub const DROPPED: &str = "dropped";

/// The last events.
#[derive(Debug)]
pub struct Events {
    lines: VecDeque<Vec<u8>>,
    /// The number of the last event, kept or not; the first has number 1.
    last: u64,
    bytes: usize,
    most: usize,
    most_bytes: usize,
    /// When the last event happened that is not kept any more.
    forgotten_at: String,
}

/// What a reader is given at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Lines, each with its end.
    pub lines: Vec<u8>,
    /// The number after which to go on.
    pub last: u64,
    /// Whether nothing comes after this.
    pub is_end: bool,
    /// How many events were dropped before the first line.
    pub dropped: u64,
}

impl Default for Events {
    fn default() -> Events {
        Events::new(EVENTS_MAX, BYTES_MAX)
    }
}

impl Events {
    /// None yet, and at most so many kept. The last one is kept whatever its size.
    #[must_use]
    pub fn new(events_max: usize, bytes_max: usize) -> Events {
        Events {
            lines: VecDeque::new(),
            last: 0,
            bytes: 0,
            most: events_max,
            most_bytes: bytes_max,
            forgotten_at: String::new(),
        }
    }

    /// Takes an event and gives it its number.
    pub fn push(&mut self, event: Event) {
        self.last += 1;
        let line = line(&Event { number: self.last, ..event });
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > 1 && (self.lines.len() > self.most || self.bytes > self.most_bytes)
        {
            if let Some(line) = self.lines.pop_front() {
                self.bytes -= line.len();
                if let Ok(event) = serde_json::from_slice::<Event>(&line) {
                    self.forgotten_at = event.time;
                }
            }
        }
    }

    /// The number of the last event; 0 before the first.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// What comes after this number, as far as it is kept and fits into a batch; `None` when there is
    /// nothing yet.
    #[must_use]
    pub fn after(&self, since: u64) -> Option<Batch> {
        if since == self.last {
            return None;
        }
        let kept = u64::try_from(self.lines.len()).unwrap_or(u64::MAX);
        let forgotten = self.last - kept;
        let mut batch = Batch { lines: Vec::new(), last: since, is_end: false, dropped: 0 };
        if since > self.last {
            let message = format!(
                "event {since} has not happened yet: its number is of another daemon, or of this \
                 one before it was started anew; what follows is all that is kept"
            );
            batch.lines = self.line_of_dropped(forgotten, None, message);
            batch.last = forgotten;
        } else if since < forgotten {
            let count = forgotten - since;
            batch.dropped = count;
            let message = format!("{count} events are not kept any more and were dropped");
            batch.lines = self.line_of_dropped(forgotten, Some(count), message);
            batch.last = forgotten;
        }
        let first = usize::try_from(batch.last - forgotten).unwrap_or(usize::MAX);
        for line in self.lines.iter().skip(first) {
            if !batch.lines.is_empty() && batch.lines.len() + line.len() > BATCH_BYTES_MAX {
                break;
            }
            batch.lines.extend_from_slice(line);
            batch.last += 1;
        }
        Some(batch)
    }

    fn line_of_dropped(&self, number: u64, dropped: Option<u64>, message: String) -> Vec<u8> {
        line(&Event {
            number,
            time: self.forgotten_at.clone(),
            kind: DROPPED.to_owned(),
            message,
            level: Level::Warning,
            service: None,
            slot: None,
            worker: None,
            pid: None,
            generation: None,
            left: None,
            dropped,
        })
    }
}

fn line(event: &Event) -> Vec<u8> {
    // It fails for no value of this type.
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(message: &str) -> Event {
        Event {
            number: 0,
            time: "2026-01-31T12:00:00.000000Z".to_owned(),
            kind: "worker-ready".to_owned(),
            message: message.to_owned(),
            level: Level::Info,
            service: None,
            slot: None,
            worker: None,
            pid: None,
            generation: None,
            left: None,
            dropped: None,
        }
    }

    fn read(batch: &Batch) -> Vec<Event> {
        let lines = batch.lines.split_inclusive(|&byte| byte == b'\n');
        lines.map(|line| serde_json::from_slice(line).expect("JSON")).collect()
    }

    #[test]
    fn a_number_of_another_life_is_told_and_all_that_is_kept_follows() {
        let mut events = Events::new(2, BYTES_MAX);
        (0..3).for_each(|_| events.push(event("x")));
        let batch = events.after(9).expect("something");
        let read = read(&batch);
        let numbers: Vec<u64> = read.iter().map(|event| event.number).collect();
        assert_eq!((numbers, batch.last), (vec![1, 2, 3], 3));
        assert_eq!((read[0].kind.as_str(), read[0].dropped), (DROPPED, None));
    }

    #[test]
    fn one_event_larger_than_all_may_be_is_kept_alone() {
        let mut events = Events::new(8, 100);
        events.push(event("x"));
        events.push(event(&"y".repeat(1000)));
        assert_eq!(events.lines.len(), 1);
        assert_eq!(read(&events.after(1).expect("it")).len(), 1);
    }

    proptest! {
        #[test]
        fn a_reader_gets_each_event_once_or_is_told_how_many_it_missed(
            sizes in prop::collection::vec((0_usize..3000, any::<bool>()), 1..200),
            events_max in 1_usize..20,
            bytes_max in 100_usize..20_000,
        ) {
            let mut events = Events::new(events_max, bytes_max);
            let (mut since, mut seen, mut missed) = (0, 0, 0);
            let mut read_all = |events: &Events| {
                while let Some(batch) = events.after(since) {
                    for event in read(&batch) {
                        match event.dropped {
                            Some(count) => missed += count,
                            None => seen += 1,
                        }
                        prop_assert_eq!(event.number, seen + missed);
                    }
                    prop_assert!(batch.last > since);
                    since = batch.last;
                }
                Ok(())
            };
            for (size, reads) in sizes.iter().copied() {
                events.push(event(&"x".repeat(size)));
                prop_assert!(events.lines.len() <= events_max);
                prop_assert!(events.bytes <= bytes_max || events.lines.len() == 1);
                if reads {
                    read_all(&events)?;
                }
            }
            read_all(&events)?;
            prop_assert_eq!(seen + missed, u64::try_from(sizes.len()).expect("few"));
        }
    }
}
