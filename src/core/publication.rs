//! What a proxy in front of a service is told: which slots have a ready worker. One round at a time;
//! what changes during one is told in the next. When a round is over, whether it went well or not, the
//! proxy is taken to send only to what it named: an order to take a slot out must not hold up a stop
//! for longer than a round may take.

use std::collections::BTreeSet;
use std::time::Duration;

use super::ids::SlotId;
use super::restart::{Random, backoff};
use super::time::Time;

/// How long a round may take: proxies reload within a fraction of a second, and what hangs is not
/// waited for.
pub const PUBLISH_MAX: Duration = Duration::from_secs(10);

/// How long a worker that is to stop may wait until its slot is taken out: for the end of the round
/// that is under way, and for the next.
pub const WITHDRAW_MAX: Duration = PUBLISH_MAX.saturating_mul(2).saturating_add(SLACK);

/// What the loop may be late by.
const SLACK: Duration = Duration::from_secs(1);

/// What a proxy has been told.
#[derive(Debug, Clone, Default)]
pub struct Publication {
    /// The number of the last round.
    last: u64,
    /// What the last round said; nothing until there was one.
    told: Option<BTreeSet<SlotId>>,
    stage: Stage,
    /// How many rounds failed in a row.
    failures: u32,
    /// Where the proxy may send connections.
    shown: BTreeSet<SlotId>,
}

/// Where the last round stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    /// It went well, or there was none.
    #[default]
    Done,
    /// It is under way, at most until then.
    UnderWay { until: Time },
    /// It failed. It is tried again then, or at once when there is something else to tell.
    Failed { again: Time },
}

/// A round that begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// Its number.
    pub number: u64,
    /// The slots that it names.
    pub slots: Vec<SlotId>,
}

/// A round that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// When it is tried again.
    pub pause: Duration,
    /// How many failed in a row.
    pub count: u32,
}

impl Publication {
    /// The round that is to begin, with these slots ready, if one is. Before the first worker is
    /// ready nothing is told: what an earlier run has told is as good.
    pub fn next(&mut self, now: Time, ready: BTreeSet<SlotId>) -> Option<Round> {
        let nothing_yet = self.told.is_none() && ready.is_empty();
        let changed = self.told.as_ref() != Some(&ready) && !nothing_yet;
        let begins = match self.stage {
            Stage::UnderWay { .. } => false,
            Stage::Done => changed,
            Stage::Failed { again } => changed || again <= now,
        };
        if !begins {
            return None;
        }
        self.last += 1;
        // It may be read before it is said to be.
        self.shown.extend(&ready);
        let slots = ready.iter().copied().collect();
        self.told = Some(ready);
        self.stage = Stage::UnderWay { until: now + PUBLISH_MAX };
        Some(Round { number: self.last, slots })
    }

    /// Whether the answer to this round is waited for.
    #[must_use]
    pub fn awaits(&self, number: u64) -> bool {
        self.is_under_way() && number == self.last
    }

    /// Whether a round is under way.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        matches!(self.stage, Stage::UnderWay { .. })
    }

    /// Whether the round under way has had its time.
    #[must_use]
    pub fn is_overdue(&self, now: Time) -> bool {
        matches!(self.stage, Stage::UnderWay { until } if until <= now)
    }

    /// The round under way is over, and went well.
    pub fn succeeded(&mut self) {
        self.shown = self.told.clone().unwrap_or_default();
        self.stage = Stage::Done;
        self.failures = 0;
    }

    /// The round under way is over, and did not go well.
    pub fn failed(&mut self, now: Time, random: &mut Random) -> Failure {
        self.shown = self.told.clone().unwrap_or_default();
        self.failures = self.failures.saturating_add(1);
        let pause = backoff(self.failures, random);
        self.stage = Stage::Failed { again: now + pause };
        Failure { pause, count: self.failures }
    }

    /// Another proxy is told from here on, or none: what was told counts for nothing. Where another
    /// is, the old one may send connections to where it was told until that has happened.
    pub fn turn(&mut self, to_another: bool) {
        self.told = None;
        if !to_another {
            self.shown.clear();
        }
        self.failures = 0;
        if matches!(self.stage, Stage::Failed { .. }) {
            self.stage = Stage::Done;
        }
    }

    /// Whether the proxy may send connections to this slot, by what it was told.
    #[must_use]
    pub fn shows(&self, slot: SlotId) -> bool {
        self.shown.contains(&slot)
    }

    /// When a round has had its time, or one that failed is tried again.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        match self.stage {
            Stage::Done => None,
            Stage::UnderWay { until } => Some(until),
            Stage::Failed { again } => Some(again),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::after_origin(Duration::from_secs(seconds))
    }

    fn slots<const N: usize>(numbers: [u32; N]) -> BTreeSet<SlotId> {
        numbers.map(SlotId).into()
    }

    fn begun(publication: &mut Publication, now: u64, ready: BTreeSet<SlotId>) -> Option<Vec<u32>> {
        let round = publication.next(at(now), ready)?;
        Some(round.slots.into_iter().map(|slot| slot.0).collect())
    }

    #[test]
    fn nothing_is_told_before_the_first_is_ready_and_then_each_change_one_at_a_time() {
        let mut publication = Publication::default();
        assert_eq!(begun(&mut publication, 0, slots([])), None);
        assert_eq!(begun(&mut publication, 1, slots([1])), Some(vec![1]));
        assert_eq!(begun(&mut publication, 1, slots([0, 1])), None);
        assert_eq!(begun(&mut publication, 1, slots([0])), None);
        assert!(publication.awaits(1) && !publication.awaits(2) && publication.shows(SlotId(1)));
        publication.succeeded();
        assert_eq!(begun(&mut publication, 2, slots([0])), Some(vec![0]));
        assert!(publication.shows(SlotId(1)), "until it was told");
        publication.succeeded();
        assert!(!publication.shows(SlotId(1)) && publication.shows(SlotId(0)));
        assert_eq!(begun(&mut publication, 3, slots([0])), None);
        assert_eq!(begun(&mut publication, 3, slots([])), Some(vec![]));
        assert_eq!(publication.deadline(), Some(at(3) + PUBLISH_MAX));
    }

    #[test]
    fn another_proxy_is_told_what_the_one_before_was_and_none_holds_nobody_up() {
        let mut publication = Publication::default();
        assert_eq!(begun(&mut publication, 1, slots([0, 1])), Some(vec![0, 1]));
        publication.turn(true);
        assert_eq!(begun(&mut publication, 1, slots([0, 1])), None, "one at a time");
        publication.succeeded();
        assert_eq!(begun(&mut publication, 2, slots([0, 1])), Some(vec![0, 1]));
        publication.succeeded();
        assert_eq!(begun(&mut publication, 3, slots([0, 1])), None);
        publication.turn(false);
        assert!(!publication.shows(SlotId(0)));
    }

    #[test]
    fn what_failed_is_tried_again_and_holds_nothing_up() {
        let mut random = Random::seeded(1);
        let mut publication = Publication::default();
        assert!(publication.next(at(1), slots([0, 1])).is_some());
        publication.succeeded();
        assert!(publication.next(at(2), slots([0])).is_some());
        assert!(!publication.is_overdue(at(11)) && publication.is_overdue(at(12)));
        let Failure { pause, count } = publication.failed(at(12), &mut random);
        assert!(count == 1 && !publication.shows(SlotId(1)) && !publication.awaits(2));
        assert_eq!(begun(&mut publication, 12, slots([0])), None);
        let round = publication.next(at(12) + pause, slots([0]));
        assert_eq!(round.map(|round| round.number), Some(3));
        assert_eq!(publication.failed(at(13), &mut random).count, 2);
        assert_eq!(begun(&mut publication, 13, slots([0, 2])), Some(vec![0, 2]), "it is news");
    }
}
