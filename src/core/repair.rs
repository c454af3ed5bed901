//! When a socket that somebody broke is repaired: at once, unless it is broken over and over.
//!
//! A worker that shuts its listener down in a loop must neither keep shepherd busy nor fill its log,
//! while a fleet of fifty that does so once, because each of its workers was asked to stop, must not
//! cost a millisecond more than it has to. So a number of repairs is free, and the pauses between
//! those that follow double.

use std::time::Duration;

use super::event::{Again, Repair};
use super::time::Time;

/// Left alone for so long, a socket's count begins anew.
pub const QUIET: Duration = Duration::from_secs(60);

/// After so many times that somebody did the same to a socket, only each time that doubles the
/// count is told of.
const TOLD_EACH: u32 = 8;

/// How fast repairs follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pace {
    /// How many are made at once.
    free: u32,
    /// The pause before the next one.
    first: Duration,
    /// The longest pause.
    longest: Duration,
}

/// listen(2) costs microseconds; more workers than this are rarely asked to stop at a time.
const LISTEN: Pace =
    Pace { free: 100, first: Duration::from_millis(10), longest: Duration::from_secs(1) };

/// A socket that is bound anew costs a start of every worker.
const BIND: Pace =
    Pace { free: 4, first: Duration::from_millis(100), longest: Duration::from_secs(30) };

/// How a socket fares.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    condition: Condition,
    /// How often it was broken since it was last left alone.
    count: u32,
    /// How often that has been told of, or was not because it had been often enough.
    told: u32,
    last: Option<Time>,
    /// How many repairs have failed in a row.
    failures: u32,
}

/// What a socket is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Condition {
    /// As far as is known it is as it should be.
    #[default]
    Whole,
    /// A new socket is being bound in its place; the answer is on its way.
    InHand,
    /// It is broken, and repaired then.
    Waits { until: Time, repair: Repair },
    /// It is broken, and an operator has to act first.
    Lost(Repair),
    /// It is broken and cannot be repaired.
    Hopeless,
}

impl Health {
    /// Somebody broke it: whether that is news, and whether it is repaired at once.
    pub fn broken(&mut self, now: Time, repair: Repair) -> Step {
        match self.condition {
            Condition::Whole => {}
            // A unix socket may be shut down after its path has gone; one repair mends both.
            Condition::InHand
            | Condition::Waits { .. }
            | Condition::Lost(_)
            | Condition::Hopeless => return Step::Nothing,
        }
        if self.last.is_none_or(|last| now.since(last) >= QUIET) {
            self.count = 0;
            self.told = 0;
        }
        self.last = Some(now);
        self.count = self.count.saturating_add(1);
        self.failures = 0;
        let pace = pace(repair);
        match self.count.checked_sub(pace.free + 1) {
            None => {
                self.condition = begun(repair);
                Step::Repair
            }
            Some(earlier) => {
                let until = now + pace.pause(earlier);
                self.condition = Condition::Waits { until, repair };
                Step::Wait
            }
        }
    }

    /// A repair failed. Returns the pause until the next one, if it comes by itself, or nothing if
    /// this is no news: then it waits for another repair already.
    pub fn failed(&mut self, now: Time, repair: Repair, again: Again) -> Option<Option<Duration>> {
        if self.condition != begun(repair) {
            return None;
        }
        Some(match again {
            Again::Never => {
                self.condition = Condition::Hopeless;
                None
            }
            Again::Later => {
                let pause = pace(repair).pause(self.failures);
                self.failures = self.failures.saturating_add(1);
                self.condition = Condition::Waits { until: now + pause, repair };
                Some(pause)
            }
            Again::WhenAsked => {
                self.condition = Condition::Lost(repair);
                None
            }
        })
    }

    /// Whether a failure, of so many in a row, is told of.
    #[must_use]
    pub fn failure_is_worth_telling(&self) -> bool {
        is_worth_telling(self.failures)
    }

    /// Whether it is told of that it was broken: once or more often, all at a time.
    pub fn take_news(&mut self) -> bool {
        self.told = self.told.saturating_add(1);
        is_worth_telling(self.told)
    }

    /// How often it was broken since it was last left alone.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// It is as it should be again.
    pub fn whole(&mut self) {
        self.condition = Condition::Whole;
    }

    /// The repair whose time has come, if there is one.
    pub fn take_due(&mut self, now: Time) -> Option<Repair> {
        match self.condition {
            Condition::Waits { until, repair } if until <= now => {
                self.condition = begun(repair);
                Some(repair)
            }
            Condition::Whole
            | Condition::InHand
            | Condition::Waits { .. }
            | Condition::Lost(_)
            | Condition::Hopeless => None,
        }
    }

    /// The repair that an operator has to ask for, if there is one. It is tried once more.
    pub fn take_lost(&mut self) -> Option<Repair> {
        match self.condition {
            Condition::Lost(repair) => {
                self.condition = begun(repair);
                Some(repair)
            }
            Condition::Whole
            | Condition::InHand
            | Condition::Waits { .. }
            | Condition::Hopeless => None,
        }
    }

    /// When it is repaired, if it waits for that.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        match self.condition {
            Condition::Waits { until, .. } => Some(until),
            Condition::Whole | Condition::InHand | Condition::Lost(_) | Condition::Hopeless => None,
        }
    }
}

/// What is done about a socket that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is known to be broken.
    Nothing,
    /// Repair it.
    Repair,
    /// It is repaired at its deadline.
    Wait,
}

/// Whether the `count`th time of the same is told of.
#[must_use]
pub fn is_worth_telling(count: u32) -> bool {
    count <= TOLD_EACH || count.is_power_of_two()
}

/// What a socket is like while it is repaired: listen(2) is done at once.
fn begun(repair: Repair) -> Condition {
    match repair {
        Repair::Listen => Condition::Whole,
        Repair::Bind => Condition::InHand,
    }
}

fn pace(repair: Repair) -> Pace {
    match repair {
        Repair::Listen => LISTEN,
        Repair::Bind => BIND,
    }
}

impl Pace {
    /// The pause after so many earlier ones.
    fn pause(self, earlier: u32) -> Duration {
        (self.first * (1 << earlier.min(16))).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::after_origin(Duration::from_millis(millis))
    }

    #[test]
    fn many_repairs_are_free_and_then_the_pauses_double() {
        let mut health = Health::default();
        for _ in 0..LISTEN.free {
            assert_eq!(health.broken(at(1000), Repair::Listen), Step::Repair);
        }
        let mut now = at(1000);
        for pause in [10, 20, 40, 80, 160, 320, 640, 1000, 1000] {
            assert_eq!(health.broken(now, Repair::Listen), Step::Wait);
            assert_eq!(health.broken(now, Repair::Listen), Step::Nothing);
            assert_eq!(health.take_due(now), None);
            let until = now + Duration::from_millis(pause);
            assert_eq!(health.deadline(), Some(until));
            assert_eq!(health.take_due(until), Some(Repair::Listen));
            now = until;
        }
        assert_eq!(health.broken(now + QUIET, Repair::Listen), Step::Repair);
    }

    #[test]
    fn a_repair_that_fails_is_tried_again_ever_more_slowly() {
        let mut health = Health::default();
        assert_eq!(health.broken(at(0), Repair::Bind), Step::Repair);
        for pause in [100, 200, 400] {
            let again = health.failed(at(0), Repair::Bind, Again::Later);
            assert_eq!(again, Some(Some(Duration::from_millis(pause))));
            assert_eq!(health.failed(at(0), Repair::Bind, Again::Later), None);
            assert_eq!(health.failed(at(0), Repair::Listen, Again::Later), None);
            assert_eq!(health.take_due(at(pause)), Some(Repair::Bind));
        }
    }

    #[test]
    fn what_is_lost_is_tried_again_when_asked() {
        let mut health = Health::default();
        health.broken(at(0), Repair::Bind);
        assert_eq!(health.failed(at(0), Repair::Bind, Again::WhenAsked), Some(None));
        assert_eq!(health.broken(at(9), Repair::Bind), Step::Nothing);
        assert_eq!(health.deadline(), None);
        assert_eq!(health.take_lost(), Some(Repair::Bind));
        assert_eq!(health.take_lost(), None);
    }

    #[test]
    fn what_happens_again_and_again_is_told_of_ever_more_rarely() {
        let told: Vec<u32> = (1..100).filter(|&count| is_worth_telling(count)).collect();
        assert_eq!(told, [1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64]);
    }
}
