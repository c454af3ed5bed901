//! Workers that get nothing new and finish what they have before they are asked to stop: what is
//! waited for, how often it is looked at, and what is learned of how their program stops.
//!
//! A connection goes from a handshake to a queue to a worker, and is looked for in that order, so an
//! end that was seen is one. It has to be seen twice: the kernel may have chosen a member a moment
//! before it was told to choose another, on another processor. What cannot be known is not waited for.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::event::{Exit, Left};
use super::ids::{MemberId, WorkerId};
use super::policy::{BeforeStop, Signal};
use super::time::Time;

/// How long handshakes that were under way at a switch are waited for. One that its client never
/// finishes must hold nothing up.
pub const HANDSHAKE_WAIT: Duration = Duration::from_secs(1);

/// How long connections may take to end of whose program is not known that it finishes them after
/// the stop signal.
pub const UNKNOWN_WAIT: Duration = Duration::from_secs(15);

/// From one look to the next, at first and after one that saw nothing left.
const LOOK_FIRST: Duration = Duration::from_millis(2);

/// The same in the end.
const LOOK_LAST: Duration = Duration::from_millis(50);

/// How many looks in a row must see nothing left.
const LOOKS_EMPTY: u32 = 2;

/// What is known of how a program stops, from its workers so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Manners {
    /// Nothing: no worker had a connection open when it got the stop signal.
    #[default]
    Unknown,
    /// After the stop signal it finishes the connections that it has.
    Finishes,
    /// The stop signal ends it with its connections open.
    Cuts,
}

/// The workers of a service that finish what they have.
#[derive(Debug, Clone, Default)]
pub struct Drains {
    emptying: BTreeMap<WorkerId, Emptying>,
    /// Those that got the stop signal with connections open, and how many.
    learning: BTreeMap<WorkerId, Lesson>,
    manners: Manners,
    looks: u64,
    under_way: bool,
    next: Option<Time>,
    pause: Duration,
}

/// One that gets nothing new and was not asked to stop yet.
#[derive(Debug, Clone)]
struct Emptying {
    since: Time,
    members: Vec<MemberId>,
    /// Whether its connections have to end.
    connections: bool,
    /// How many looks in a row saw nothing left.
    empty: u32,
    seen: Remains,
}

/// What was last seen of a worker that gets nothing new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Remains {
    /// Connections that are being made to its sockets, perhaps with other workers.
    pub handshakes: Option<u32>,
    /// What waits in its sockets' queues, perhaps for other workers too.
    pub queued: Option<u32>,
    /// Connections that it has open.
    pub connections: Option<u32>,
}

impl fmt::Display for Remains {
    /// What is left, after a colon.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Remains { handshakes, queued, connections } = *self;
        let parts =
            [(connections, "open"), (queued, "in its socket's queue"), (handshakes, "being made")];
        let mut told = false;
        for (count, what) in parts {
            let Some(count) = count.filter(|&count| count > 0) else { continue };
            let separator = if told { ", " } else { "" };
            let noun = if told {
                ""
            } else if count == 1 {
                " connection"
            } else {
                " connections"
            };
            write!(f, "{separator}{count}{noun} {what}")?;
            told = true;
        }
        if told { Ok(()) } else { write!(f, "what it has left is not known") }
    }
}

#[derive(Debug, Clone, Copy)]
struct Lesson {
    at_signal: u32,
    last: u32,
}

/// A look that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Its number.
    pub number: u64,
    /// The sockets to look at.
    pub members: Vec<MemberId>,
    /// The workers to look at.
    pub workers: Vec<WorkerId>,
}

impl BeforeStop {
    /// How long it can take at most.
    #[must_use]
    pub fn longest(self) -> Duration {
        match self {
            BeforeStop::Auto => UNKNOWN_WAIT,
            BeforeStop::For(time) => time,
        }
    }
}

impl Drains {
    /// What is known of the program.
    #[must_use]
    pub fn manners(&self) -> Manners {
        self.manners
    }

    /// A worker gets nothing new, by these members. Returns until when it may finish what it has.
    pub fn begin(
        &mut self,
        now: Time,
        worker: WorkerId,
        members: Vec<MemberId>,
        before_stop: BeforeStop,
    ) -> Time {
        let connections = match before_stop {
            BeforeStop::For(_) => true,
            BeforeStop::Auto => match self.manners {
                Manners::Finishes => false,
                Manners::Unknown | Manners::Cuts => true,
            },
        };
        let seen = Remains::default();
        self.emptying.insert(worker, Emptying { since: now, members, connections, empty: 0, seen });
        self.hurry(now);
        now + before_stop.longest()
    }

    /// What was last seen of a worker that has not been asked to stop.
    #[must_use]
    pub fn remains(&self, worker: WorkerId) -> Option<Remains> {
        self.emptying.get(&worker).map(|emptying| emptying.seen)
    }

    /// It was asked to stop.
    pub fn asked(&mut self, now: Time, worker: WorkerId) {
        let Some(emptying) = self.emptying.remove(&worker) else { return };
        if let Some(open) = emptying.seen.connections.filter(|&open| open > 0) {
            self.learning.insert(worker, Lesson { at_signal: open, last: open });
            self.hurry(now);
        }
    }

    /// Its main process has exited: what that teaches, where it is news.
    pub fn exited(&mut self, worker: WorkerId, how: Exit, stop: Signal) -> Option<Manners> {
        self.emptying.remove(&worker);
        let Lesson { at_signal, last } = self.learning.remove(&worker)?;
        let learned = if last == 0 || last * 2 <= at_signal {
            Manners::Finishes
        } else if how.by(stop) {
            Manners::Cuts
        } else {
            // It may have finished the last ones between two looks.
            return None;
        };
        self.learn(learned)
    }

    /// It is gone, or somebody else decides about it.
    pub fn forget(
        &mut self,
        is_emptying: impl Fn(WorkerId) -> bool,
        lives: impl Fn(WorkerId) -> bool,
    ) {
        self.emptying.retain(|&worker, _| is_emptying(worker));
        self.learning.retain(|&worker, _| lives(worker));
        if self.emptying.is_empty() && self.learning.is_empty() {
            self.next = None;
        }
    }

    /// When the next look is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.next.filter(|_| !self.under_way)
    }

    /// The look that is due, if one is.
    pub fn take_due(&mut self, now: Time) -> Option<Look> {
        self.deadline().filter(|&at| at <= now)?;
        self.under_way = true;
        self.looks += 1;
        let mut members: Vec<MemberId> =
            self.emptying.values().flat_map(|emptying| emptying.members.iter().copied()).collect();
        members.sort_unstable();
        members.dedup();
        let workers = self.emptying.keys().chain(self.learning.keys()).copied().collect();
        Some(Look { number: self.looks, members, workers })
    }

    /// What a look saw. Returns those that have nothing left, and what was learned, if that is news.
    pub fn seen(
        &mut self,
        now: Time,
        number: u64,
        members: &[(MemberId, Left)],
        workers: &[(WorkerId, Option<u32>)],
    ) -> (Vec<WorkerId>, Option<Manners>) {
        if !self.under_way || number != self.looks {
            return (Vec::new(), None);
        }
        self.under_way = false;
        let members: BTreeMap<MemberId, Left> = members.iter().copied().collect();
        let mut done = Vec::new();
        let mut news = None;
        let mut nearly = false;
        for &(worker, open) in workers {
            if let Some(emptying) = self.emptying.get_mut(&worker) {
                emptying.see(&members, open);
                if emptying.is_empty(now) {
                    emptying.empty += 1;
                } else {
                    emptying.empty = 0;
                }
                nearly |= emptying.empty > 0;
                if emptying.empty >= LOOKS_EMPTY {
                    done.push(worker);
                }
            } else if let (Some(lesson), Some(open)) = (self.learning.get_mut(&worker), open) {
                lesson.last = lesson.last.min(open);
                if open == 0 {
                    self.learning.remove(&worker);
                    news = news.or(self.learn(Manners::Finishes));
                }
            }
        }
        // What is learned is learned in a moment: a program may end with its last connection.
        nearly |= !self.learning.is_empty();
        self.pause = if nearly { LOOK_FIRST } else { (self.pause * 3 / 2).min(LOOK_LAST) };
        self.next = Some(now + self.pause);
        (done, news)
    }

    fn learn(&mut self, learned: Manners) -> Option<Manners> {
        let is_news = self.manners != learned;
        self.manners = learned;
        is_news.then_some(learned)
    }

    fn hurry(&mut self, now: Time) {
        self.pause = LOOK_FIRST;
        let soon = now + LOOK_FIRST;
        self.next = Some(self.next.map_or(soon, |next| next.min(soon)));
    }
}

impl Emptying {
    fn see(&mut self, members: &BTreeMap<MemberId, Left>, open: Option<u32>) {
        let left = |of: fn(&Left) -> Option<u32>| {
            let known = self.members.iter().filter_map(|member| members.get(member).and_then(of));
            known.fold(None, |sum: Option<u32>, one| Some(sum.unwrap_or(0).saturating_add(one)))
        };
        let (handshakes, queued) = (left(|left| left.handshakes), left(|left| left.queued));
        self.seen = Remains { handshakes, queued, connections: open };
    }

    fn is_empty(&self, now: Time) -> bool {
        let Remains { handshakes, queued, connections } = self.seen;
        let none = |left: Option<u32>| left.is_none_or(|left| left == 0);
        let no_handshake = none(handshakes) || now.since(self.since) >= HANDSHAKE_WAIT;
        no_handshake && none(queued) && (!self.connections || none(connections))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKER: WorkerId = WorkerId(1);
    const MEMBER: MemberId = MemberId(1);

    fn at(millis: u64) -> Time {
        Time::after_origin(Duration::from_millis(millis))
    }

    fn left(handshakes: u32, queued: u32) -> Left {
        Left { handshakes: Some(handshakes), queued: Some(queued) }
    }

    /// Looks until something comes of it or a second is over; gives when, and what.
    fn look(
        drains: &mut Drains,
        from: u64,
        left: Left,
        open: Option<u32>,
    ) -> Option<(u64, Vec<WorkerId>)> {
        for millis in from..from + 1000 {
            let Some(look) = drains.take_due(at(millis)) else { continue };
            let seen = drains.seen(at(millis), look.number, &[(MEMBER, left)], &[(WORKER, open)]);
            if !seen.0.is_empty() {
                return Some((millis, seen.0));
            }
        }
        None
    }

    fn begun(before_stop: BeforeStop) -> Drains {
        let mut drains = Drains::default();
        drains.begin(at(0), WORKER, vec![MEMBER], before_stop);
        drains
    }

    #[test]
    fn one_that_has_nothing_left_is_done_after_two_looks() {
        let done = look(&mut begun(BeforeStop::Auto), 0, left(0, 0), Some(0));
        assert_eq!(done, Some((4, vec![WORKER])));
        let unknown = Left::default();
        assert!(look(&mut begun(BeforeStop::Auto), 0, unknown, None).is_some(), "cannot be known");
    }

    #[test]
    fn what_waits_or_is_open_is_waited_for_and_a_handshake_a_second() {
        assert_eq!(look(&mut begun(BeforeStop::Auto), 0, left(0, 1), Some(0)), None);
        assert_eq!(look(&mut begun(BeforeStop::Auto), 0, left(0, 0), Some(1)), None);
        let mut drains = begun(BeforeStop::Auto);
        assert_eq!(look(&mut drains, 0, left(1, 0), Some(0)), None);
        assert!(look(&mut drains, 1000, left(1, 0), Some(0)).is_some());
    }

    #[test]
    fn a_program_that_finishes_is_not_waited_for_and_one_that_cuts_is() {
        let mut drains = begun(BeforeStop::Auto);
        assert_eq!(look(&mut drains, 0, left(0, 0), Some(8)), None);
        drains.asked(at(1000), WORKER);
        assert_eq!(look(&mut drains, 1000, left(0, 0), Some(3)), None);
        let news = drains.exited(WORKER, Exit::Code(0), Signal::Term);
        assert_eq!(news, Some(Manners::Finishes));
        drains.begin(at(5000), WORKER, vec![MEMBER], BeforeStop::Auto);
        assert!(look(&mut drains, 5000, left(0, 0), Some(8)).is_some());
        drains.asked(at(6000), WORKER);
        let killed = Exit::Signal { number: 15, name: Some("SIGTERM"), core: false };
        assert_eq!(drains.exited(WORKER, killed, Signal::Term), Some(Manners::Cuts));
        drains.begin(at(7000), WORKER, vec![MEMBER], BeforeStop::Auto);
        assert_eq!(look(&mut drains, 7000, left(0, 0), Some(8)), None);
    }

    #[test]
    fn an_answer_to_another_look_is_none() {
        let mut drains = begun(BeforeStop::Auto);
        let look = drains.take_due(at(2)).expect("due");
        assert_eq!(drains.take_due(at(9)), None, "one at a time");
        assert_eq!(drains.seen(at(9), look.number + 1, &[], &[]), (Vec::new(), None));
        assert_eq!(drains.deadline(), None);
        drains.forget(|_| false, |_| false);
        drains.seen(at(9), look.number, &[(MEMBER, left(0, 0))], &[(WORKER, Some(0))]);
    }
}
