//! Workers that take nothing from the sockets that they alone have: how often the queues are looked
//! at, and when one stands still.
//!
//! Nobody tells how many connections a worker has taken, only how many wait. So a queue is looked at
//! once a second while nothing waits in it, ten times a second while something does, and what has not
//! got shorter in twenty looks in a row is *stalled*: a worker that takes even a few in that time is
//! seen to, between those that come. One that hangs is not told from one that new connections drown,
//! and need not be: either has more than it takes, and others take what is new. What waits there
//! stays, it is that worker's. Once there is less of it the worker takes again, which nothing that
//! comes hides as nothing does, so a second is soon enough to look; and a worker that takes one now
//! and then changes who gets what once in three seconds at most.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::event::Queued;
use super::ids::MemberId;
use super::repair::QUIET;
use super::time::Time;

/// From one look to the next, while nothing waits that might stand still.
pub const LOOK_IDLE: Duration = Duration::from_secs(1);

/// The same, while something waits that has not got less.
pub const LOOK_CLOSE: Duration = Duration::from_millis(100);

/// In how many looks in a row a queue that is stalled has not got shorter, after the one that first
/// saw it: 2 s, which a worker may take for what it is doing.
pub const LOOKS_STALLED: u32 = 20;

/// The sockets that are looked at.
#[derive(Debug, Clone, Default)]
pub struct Stalls {
    queues: BTreeMap<MemberId, Standing>,
    /// How often each has been stalled since it was last free for a while, and when it last was.
    times: BTreeMap<MemberId, (u32, Time)>,
    next: Option<Time>,
    under_way: bool,
}

/// A queue in which something waits.
#[derive(Debug, Clone, Copy)]
struct Standing {
    queued: Queued,
    /// Since when it has not got shorter.
    since: Time,
    /// In how many looks that was so.
    looks: u32,
}

/// What has changed about a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Which one.
    pub member: MemberId,
    /// How it stands from here on.
    pub to: Flow,
    /// How long it had stood still.
    pub after: Duration,
    /// How often it has been stalled since it was last free for a while.
    pub times: u32,
}

/// Whether what waits on a socket is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Nothing is: so much waits.
    Stalled(Queued),
    /// Something was.
    Free,
}

impl Standing {
    fn is_stalled(&self) -> bool {
        self.looks >= LOOKS_STALLED
    }
}

impl Stalls {
    /// Whether a look is due, while there is somebody to look at; the first one is later. Where there
    /// is nobody all is forgotten.
    pub fn is_due(&mut self, now: Time, watches: bool) -> bool {
        if !watches {
            self.queues.clear();
            self.times.clear();
            self.next = None;
            return false;
        }
        let next = *self.next.get_or_insert(now + LOOK_IDLE);
        next <= now && !self.under_way
    }

    /// When the next look is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.next.filter(|_| !self.under_way)
    }

    /// A look is asked for.
    pub fn asked(&mut self) {
        self.under_way = true;
    }

    /// What a look saw. Gives what has changed.
    pub fn seen(&mut self, now: Time, members: &[(MemberId, Option<Queued>)]) -> Vec<Change> {
        self.under_way = false;
        let before = std::mem::take(&mut self.queues);
        self.times.retain(|member, _| members.iter().any(|(seen, _)| seen == member));
        let mut changes = Vec::new();
        for &(member, queued) in members {
            let stood = before.get(&member);
            let stands = queued.filter(|queued| queued.count() > 0).map(|queued| match stood {
                Some(stood) if queued.count() >= stood.queued.count() => {
                    Standing { queued, looks: stood.looks.saturating_add(1), ..*stood }
                }
                Some(_) | None => Standing { queued, since: now, looks: 0 },
            });
            let is_stalled = stands.is_some_and(|stands| stands.is_stalled());
            match (stood.filter(|stood| stood.is_stalled()), stands) {
                (None, Some(stands)) if is_stalled => {
                    let (times, last) = self.times.entry(member).or_insert((0, now));
                    *times = if now.since(*last) >= QUIET { 1 } else { times.saturating_add(1) };
                    *last = now;
                    let (after, times) = (now.since(stands.since), *times);
                    changes.push(Change { member, to: Flow::Stalled(stands.queued), after, times });
                }
                (Some(stood), _) if !is_stalled => {
                    let (times, last) = self.times.entry(member).or_insert((1, now));
                    *last = now;
                    let (after, times) = (now.since(stood.since), *times);
                    changes.push(Change { member, to: Flow::Free, after, times });
                }
                (Some(_) | None, _) => {}
            }
            self.queues.extend(stands.map(|stands| (member, stands)));
        }
        let may_stall = self.queues.values().any(|queue| !queue.is_stalled());
        // Nobody may be there to look at any more.
        let pause = if may_stall { LOOK_CLOSE } else { LOOK_IDLE };
        self.next = self.next.map(|_| now + pause);
        changes
    }

    /// The worker that had these is another's predecessor: it has not been seen to take nothing.
    pub fn forget(&mut self, members: &[MemberId]) {
        self.queues.retain(|member, _| !members.contains(member));
    }

    /// Those from which nothing is taken.
    #[must_use]
    pub fn stalled(&self) -> BTreeSet<MemberId> {
        let stalled = self.queues.iter().filter(|(_, queue)| queue.is_stalled());
        stalled.map(|(&member, _)| member).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBER: MemberId = MemberId(7);

    /// Looks whenever that is due, at queues that are as `queued` says after so many milliseconds, and
    /// gives how many looks there were, and the changes with when they were seen.
    fn look(until: u64, queued: impl Fn(u64) -> Option<u32>) -> (u32, Vec<(u64, Flow)>) {
        let mut stalls = Stalls::default();
        let mut looks = 0;
        let mut changes = Vec::new();
        for millis in 0..until {
            let now = Time::after_origin(Duration::from_millis(millis));
            if !stalls.is_due(now, true) {
                assert!(stalls.deadline().is_some_and(|at| at > now));
                continue;
            }
            looks += 1;
            stalls.asked();
            assert!(!stalls.is_due(now, true) && stalls.deadline().is_none(), "one at a time");
            let seen = stalls.seen(now, &[(MEMBER, queued(millis).map(Queued::Connections))]);
            assert_eq!(
                stalls.stalled().is_empty(),
                !stalls.queues.values().any(Standing::is_stalled)
            );
            changes.extend(seen.into_iter().map(|change| (millis, change.to)));
        }
        (looks, changes)
    }

    fn stalled(count: u32) -> Flow {
        Flow::Stalled(Queued::Connections(count))
    }

    #[test]
    fn a_queue_that_only_grows_is_stalled_after_two_seconds_until_it_shrinks() {
        let grows = |millis: u64| u32::try_from((millis / 1000).min(5)).ok();
        let (_, changes) = look(9000, |millis| if millis < 8000 { grows(millis) } else { Some(4) });
        assert_eq!(changes, [(3000, stalled(3)), (8000, Flow::Free)]);
        let (_, changes) = look(9000, |millis| Some(u32::from(millis < 8000)));
        assert_eq!(changes, [(3000, stalled(1)), (8000, Flow::Free)]);
    }

    #[test]
    fn one_that_takes_now_and_then_is_not_whatever_comes() {
        // One is taken each second, and two come between.
        let (_, changes) = look(60_000, |millis| {
            let taken = millis / 1000;
            u32::try_from(10 + (millis + 500) / 1000 * 2 - taken).ok()
        });
        assert_eq!(changes, []);
    }

    #[test]
    fn nothing_is_looked_at_more_than_once_a_second_while_nothing_waits_or_is_taken() {
        assert_eq!(look(60_500, |_| Some(0)), (60, vec![]));
        assert_eq!(look(60_500, |_| None), (60, vec![]), "what cannot be known stands nowhere");
        let (looks, changes) = look(60_500, |_| Some(3));
        assert_eq!((looks, changes), (1 + 20 + 57, vec![(3000, stalled(3))]));
    }

    #[test]
    fn a_change_of_workers_begins_anew_and_who_is_alone_is_not_looked_at() {
        let mut stalls = Stalls::default();
        let at = |millis| Time::after_origin(Duration::from_millis(millis));
        let seen = [(MEMBER, Some(Queued::Bytes(9)))];
        stalls.is_due(at(0), true);
        for millis in 0..=u64::from(LOOKS_STALLED) {
            stalls.seen(at(millis), &seen);
        }
        assert_eq!(stalls.stalled(), BTreeSet::from([MEMBER]));
        stalls.forget(&[MEMBER]);
        assert_eq!(stalls.stalled(), BTreeSet::new());
        assert_eq!(stalls.seen(at(50), &seen), []);
        stalls.asked();
        assert!(!stalls.is_due(at(60), false));
        // The answer comes when nobody waits for it.
        assert_eq!(stalls.seen(at(61), &[]), []);
        assert_eq!(stalls.deadline(), None);
    }
}
