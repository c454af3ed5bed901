//! Workers that get nothing new and finish what they have before they are asked to stop: what is
//! waited for, how often it is looked at, and what is learned of how their program stops.
//!
//! A connection goes from a handshake to a queue to a worker, and is looked for in that order, so an
//! end that was seen is one. It has to be seen twice: the kernel may have chosen a member a moment
//! before it was told to choose another, on another processor. What cannot be known is not waited for.
//!
//! A program finishes its connections if it ends them after an answer, and none before the answer.
//! That they end while it lives shows nothing, as it may also close all of them where they stand. What
//! was not seen teaches nothing: what is wrong with what is learned costs requests, and what is lacking
//! only time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::event::{Closing, DrainSeen, Exit, Left};
use super::ids::{MemberId, WorkerId};
use super::policy::{BeforeStop, KeepAlive, Signal};
use super::time::Time;

/// How long handshakes that were under way at a switch are waited for. One that its client never
/// finishes must hold nothing up.
pub const HANDSHAKE_WAIT: Duration = Duration::from_secs(1);

/// How long connections may take to end of whose program is not known that it finishes them after
/// the stop signal.
pub const UNKNOWN_WAIT: Duration = Duration::from_secs(15);

/// From one look to the next, at first and after one that saw nothing left.
const LOOK_FIRST: Duration = Duration::from_millis(2);

/// The same after some, ...
const LOOK_LAST: Duration = Duration::from_millis(50);

/// ... and where all have taken so long that the end of the last may be noticed later.
const LOOK_LONG: Duration = Duration::from_millis(250);

/// After how long it is so.
const LONG: Duration = Duration::from_secs(2);

/// From so long before a worker is asked to stop its connections are held on to, to see what it does
/// with them. It is longer than from one look to the next.
const HOLD_BEFORE: Duration = Duration::from_millis(150);

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
    /// Those that got the stop signal with connections open, and what was seen of that.
    learning: BTreeMap<WorkerId, Lesson>,
    manners: Manners,
    looks: u64,
    under_way: bool,
    /// Those that had ended when the look under way began, so that it is their last.
    answers: BTreeSet<WorkerId>,
    next: Option<Time>,
    pause: Duration,
}

/// One that gets nothing new and was not asked to stop yet.
#[derive(Debug, Clone)]
struct Emptying {
    since: Time,
    /// When it is asked to stop in any case.
    until: Time,
    members: Vec<MemberId>,
    /// Whether its connections have to end.
    connections: bool,
    /// Whether those that are idle are ended.
    closes_idle: bool,
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

/// What was seen of a worker that got the stop signal with connections open.
#[derive(Debug, Clone, Copy)]
struct Lesson {
    /// When.
    asked: Time,
    /// Whether it is watched, or only heard how it ends.
    watched: bool,
    closing: Closing,
    /// Whether the signal ended it, once something has and a last look is to come.
    ended: Option<Ended>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    BySignal,
    Otherwise,
}

/// A look that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Its number, for its answer.
    pub number: u64,
    /// The sockets that get nothing new.
    pub members: Vec<MemberId>,
    /// The workers that finish what they have.
    pub workers: Vec<WorkerId>,
    /// Those of them whose idle connections are to be closed.
    pub close_idle: Vec<WorkerId>,
    /// Those of them that are asked to stop soon: their connections are to be held on to.
    pub hold: Vec<WorkerId>,
    /// Those that were asked to stop while they had connections, and when: it is to be watched how they
    /// end them.
    pub asked: Vec<(WorkerId, Time)>,
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

    /// A worker with these manners gets nothing new, by these members. Returns until when it may finish
    /// what it has.
    pub fn begin(
        &mut self,
        now: Time,
        worker: WorkerId,
        members: Vec<MemberId>,
        before_stop: BeforeStop,
        keepalive: KeepAlive,
        manners: Manners,
    ) -> Time {
        let connections = match before_stop {
            BeforeStop::For(_) => true,
            BeforeStop::Auto => match manners {
                Manners::Finishes => false,
                Manners::Unknown | Manners::Cuts => true,
            },
        };
        let seen = Remains::default();
        let until = now + before_stop.longest();
        let closes_idle = connections && keepalive == KeepAlive::CloseIdle;
        let emptying =
            Emptying { since: now, until, members, connections, closes_idle, empty: 0, seen };
        self.emptying.insert(worker, emptying);
        self.hurry(now);
        until
    }

    /// What was last seen of a worker that has not been asked to stop.
    #[must_use]
    pub fn remains(&self, worker: WorkerId) -> Option<Remains> {
        self.emptying.get(&worker).map(|emptying| emptying.seen)
    }

    /// It was asked to stop.
    pub fn asked(&mut self, now: Time, worker: WorkerId) {
        let Some(emptying) = self.emptying.remove(&worker) else { return };
        if emptying.seen.connections.is_some_and(|open| open > 0) {
            let (watched, closing) = (emptying.connections, Closing::default());
            self.learning.insert(worker, Lesson { asked: now, watched, closing, ended: None });
            if watched {
                // A program that has little to do ends within a millisecond.
                self.next = Some(now);
                self.pause = LOOK_FIRST;
            }
        }
    }

    /// It was told over its channel to leave, which teaches nothing of what a signal does.
    pub fn told(&mut self, worker: WorkerId) {
        self.emptying.remove(&worker);
    }

    /// Its main process has exited: what that where it is news.
    pub fn exited(
        &mut self,
        now: Time,
        worker: WorkerId,
        how: Exit,
        stop: Signal,
    ) -> Option<Manners> {
        self.emptying.remove(&worker);
        let lesson = self.learning.get_mut(&worker)?;
        let ended = if how.by(stop) { Ended::BySignal } else { Ended::Otherwise };
        if lesson.watched {
            // How it left what it had is seen with the next look.
            lesson.ended = Some(ended);
            self.next = Some(now);
            return None;
        }
        let closing = lesson.closing;
        self.learning.remove(&worker);
        self.conclude(closing, ended)
    }

    /// It is gone, or somebody else decides about it.
    pub fn forget(
        &mut self,
        is_emptying: impl Fn(WorkerId) -> bool,
        lives: impl Fn(WorkerId) -> bool,
    ) {
        self.emptying.retain(|&worker, _| is_emptying(worker));
        self.learning.retain(|&worker, lesson| lives(worker) || lesson.ended.is_some());
        if self.emptying.is_empty() && !self.is_watching() {
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
        let workers = self.emptying.keys().copied().collect();
        let is_known = self.manners == Manners::Finishes;
        let soon = |(_, emptying): &(&WorkerId, &Emptying)| {
            emptying.connections && !is_known && emptying.until <= now + HOLD_BEFORE
        };
        let hold = self.emptying.iter().filter(soon).map(|(&id, _)| id).collect();
        let asked = self.learning.iter().filter(|(_, lesson)| lesson.watched);
        let asked: Vec<_> = asked.map(|(&id, lesson)| (id, lesson.asked)).collect();
        self.answers = asked.iter().map(|&(id, _)| id).filter(|id| self.has_ended(*id)).collect();
        let closes = |(_, emptying): &(&WorkerId, &Emptying)| emptying.closes_idle;
        let close_idle = self.emptying.iter().filter(closes).map(|(&id, _)| id).collect();
        Some(Look { number: self.looks, members, workers, close_idle, hold, asked })
    }

    /// What a look saw. Returns those that have nothing left, and what was learned, if that is news.
    pub fn seen(&mut self, now: Time, seen: &DrainSeen) -> (Vec<WorkerId>, Option<Manners>) {
        let DrainSeen { number, members, workers, asked } = seen;
        if !self.under_way || *number != self.looks {
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
            }
        }
        for (worker, closing) in asked {
            let Some(lesson) = self.learning.get_mut(worker) else { continue };
            lesson.closing = *closing;
            if closing.is_good() && closing.open == 0 {
                self.learning.remove(worker);
                news = news.or(self.learn(Manners::Finishes));
            }
        }
        let ended = self.learning.iter();
        let ended = ended.filter(|(id, _)| self.answers.contains(id));
        let ended = ended.filter_map(|(&id, lesson)| Some((id, lesson.closing, lesson.ended?)));
        for (worker, closing, ended) in ended.collect::<Vec<_>>() {
            self.learning.remove(&worker);
            news = news.or(self.conclude(closing, ended));
        }
        let most = if self.takes_long(now) { LOOK_LONG } else { LOOK_LAST };
        self.pause = if nearly { LOOK_FIRST } else { (self.pause * 3 / 2).min(most) };
        let waits = self.learning.keys().any(|&id| self.has_ended(id));
        self.next = Some(if waits { now } else { now + self.pause });
        (done, news)
    }

    /// Whether somebody is watched who was asked to stop. Of a program that finishes its connections it
    /// is enough to hear how it ends.
    fn is_watching(&self) -> bool {
        self.learning.values().any(|lesson| lesson.watched)
    }

    /// Whether nobody has begun to finish what it has lately, and nobody is to be held on to soon.
    fn takes_long(&self, now: Time) -> bool {
        let soon = now + HOLD_BEFORE + LOOK_LONG;
        let mut emptying = self.emptying.values();
        self.learning.is_empty()
            && emptying
                .all(|it| now.since(it.since) >= LONG && (it.until > soon || !it.connections))
    }

    fn has_ended(&self, worker: WorkerId) -> bool {
        self.learning.get(&worker).is_some_and(|lesson| lesson.ended.is_some())
    }

    /// What the end of a worker teaches.
    fn conclude(&mut self, closing: Closing, ended: Ended) -> Option<Manners> {
        if closing.is_good() {
            return self.learn(Manners::Finishes);
        }
        match ended {
            Ended::BySignal => self.learn(Manners::Cuts),
            // Perhaps it has finished them too fast to be seen, perhaps it has cut them.
            Ended::Otherwise => None,
        }
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

impl Closing {
    /// Whether it shows a program that finishes its connections.
    fn is_good(&self) -> bool {
        let Closing { open: _, finished, cut, left } = *self;
        finished > 0 && cut == 0 && left <= finished
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

    fn seen(number: u64, left: Left, open: Option<u32>) -> DrainSeen {
        let (members, workers) = (vec![(MEMBER, left)], vec![(WORKER, open)]);
        DrainSeen { number, members, workers, asked: Vec::new() }
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
            let (done, _) = drains.seen(at(millis), &seen(look.number, left, open));
            if !done.is_empty() {
                return Some((millis, done));
            }
        }
        None
    }

    /// The worker is asked to stop with 8 connections open, exits so, and this is seen.
    fn taught(drains: &mut Drains, from: u64, closing: Closing, how: Exit) -> Option<Manners> {
        let manners = drains.manners();
        drains.begin(at(from), WORKER, vec![MEMBER], BeforeStop::Auto, KeepAlive::Leave, manners);
        look(drains, from, left(0, 0), Some(8));
        let held = look_once(drains, from + 14_900);
        assert_eq!(held.hold, [WORKER]);
        drains.seen(at(from + 14_901), &seen(held.number, left(0, 0), Some(8)));
        drains.asked(at(from + 15_000), WORKER);
        let first = look_once(drains, from + 15_000);
        assert_eq!(first.asked, [(WORKER, at(from + 15_000))], "at once");
        assert_eq!(drains.exited(at(from + 15_001), WORKER, how, Signal::Term), None);
        drains.forget(|_| false, |_| false);
        let news = drains.seen(at(from + 15_002), &asked(first.number, Closing::default())).1;
        assert_eq!(news, None, "it had not ended then, perhaps");
        let last = look_once(drains, from + 15_002);
        let (_, news) = drains.seen(at(from + 15_003), &asked(last.number, closing));
        drains.forget(|_| false, |_| false);
        assert_eq!(drains.deadline(), None);
        news
    }

    fn look_once(drains: &mut Drains, at_millis: u64) -> Look {
        drains.take_due(at(at_millis)).expect("a look is due")
    }

    fn asked(number: u64, closing: Closing) -> DrainSeen {
        let asked = vec![(WORKER, closing)];
        DrainSeen { number, members: Vec::new(), workers: Vec::new(), asked }
    }

    const WELL: Exit = Exit::Code(0);
    const KILLED: Exit = Exit::Signal { number: 15, name: Some("SIGTERM"), core: false };

    fn closing(finished: u32, cut: u32, left: u32) -> Closing {
        Closing { open: 0, finished, cut, left }
    }

    fn begun(before_stop: BeforeStop) -> Drains {
        let mut drains = Drains::default();
        let manners = drains.manners();
        drains.begin(at(0), WORKER, vec![MEMBER], before_stop, KeepAlive::Leave, manners);
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
        let mut drains = Drains::default();
        assert_eq!(taught(&mut drains, 0, closing(8, 0, 0), WELL), Some(Manners::Finishes));
        let manners = drains.manners();
        drains.begin(at(50_000), WORKER, vec![MEMBER], BeforeStop::Auto, KeepAlive::Leave, manners);
        assert!(look(&mut drains, 50_000, left(0, 0), Some(8)).is_some());
        drains.asked(at(60_000), WORKER);
        drains.forget(|_| false, |_| true);
        assert_eq!(drains.take_due(at(60_000)), None, "that is known");
        let cuts = Some(Manners::Cuts);
        assert_eq!(drains.exited(at(60_000), WORKER, KILLED, Signal::Term), cuts);
        let manners = drains.manners();
        drains.begin(at(70_000), WORKER, vec![MEMBER], BeforeStop::Auto, KeepAlive::Leave, manners);
        assert_eq!(look(&mut drains, 70_000, left(0, 0), Some(8)), None);
    }

    #[test]
    fn only_one_that_was_seen_to_finish_and_not_to_cut_finishes() {
        let of = |closing: Closing, how: Exit| taught(&mut Drains::default(), 0, closing, how);
        let finishes = Some(Manners::Finishes);
        assert_eq!(of(closing(1, 0, 0), WELL), finishes, "others may have been idle");
        assert_eq!(of(closing(4, 0, 4), WELL), finishes);
        assert_eq!(of(closing(1, 0, 0), KILLED), finishes, "it ends as others want to see it");
        assert_eq!(of(closing(7, 1, 0), WELL), None, "it has cut one");
        assert_eq!(of(closing(1, 0, 2), WELL), None, "most were idle when it exited");
        assert_eq!(of(closing(0, 0, 8), WELL), None, "all were idle");
        assert_eq!(of(Closing::default(), WELL), None, "nothing was seen");
        assert_eq!(of(Closing::default(), KILLED), Some(Manners::Cuts));
        assert_eq!(of(closing(0, 4, 4), KILLED), Some(Manners::Cuts));
    }

    #[test]
    fn who_takes_long_is_looked_at_less_often_until_it_is_held_on_to() {
        let mut drains = begun(BeforeStop::Auto);
        let mut looks = Vec::new();
        let mut held = Vec::new();
        for millis in 0..15_000 {
            let Some(look) = drains.take_due(at(millis)) else { continue };
            looks.push(millis);
            held.extend(look.hold.first().map(|_| millis));
            drains.seen(at(millis), &seen(look.number, left(0, 0), Some(1)));
        }
        let within = |from, to| looks.iter().filter(|&&it| (from..to).contains(&it)).count();
        assert!((20..=40).contains(&within(0, 1000)), "{looks:?}");
        assert_eq!(within(5000, 10_000), 20);
        assert!(held.len() >= 3 && held[0] >= 14_850, "{held:?}");
    }

    #[test]
    fn idle_connections_are_closed_where_that_is_wanted_and_they_are_waited_for() {
        let close_idle = |manners: Manners, before_stop: BeforeStop, keepalive: KeepAlive| {
            let mut drains = Drains { manners, ..Drains::default() };
            let manners = drains.manners();
            drains.begin(at(0), WORKER, vec![MEMBER], before_stop, keepalive, manners);
            look_once(&mut drains, 2).close_idle
        };
        let second = BeforeStop::For(Duration::from_secs(1));
        let unknown = Manners::Unknown;
        assert_eq!(close_idle(unknown, BeforeStop::Auto, KeepAlive::CloseIdle), [WORKER]);
        assert_eq!(close_idle(unknown, BeforeStop::Auto, KeepAlive::Leave), []);
        assert_eq!(close_idle(Manners::Finishes, second, KeepAlive::CloseIdle), [WORKER]);
        // It is asked to stop in a moment, and knows better itself.
        assert_eq!(close_idle(Manners::Finishes, BeforeStop::Auto, KeepAlive::CloseIdle), []);
    }

    #[test]
    fn an_answer_to_another_look_is_none() {
        let mut drains = begun(BeforeStop::Auto);
        let look = drains.take_due(at(2)).expect("due");
        assert_eq!(drains.take_due(at(9)), None, "one at a time");
        let other = seen(look.number + 1, left(0, 0), Some(0));
        assert_eq!(drains.seen(at(9), &other), (Vec::new(), None));
        assert_eq!(drains.deadline(), None);
        drains.forget(|_| false, |_| false);
        drains.seen(at(9), &seen(look.number, left(0, 0), Some(0)));
    }
}
