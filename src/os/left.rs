//! What is left for workers that are to stop: handshakes that will end in their sockets, connections
//! and datagrams that wait there, and connections that they have taken and not closed. It waits for
//! nothing to end, and decides nothing.
//!
//! All of it is looked at in this order, since a connection moves only forward through it: what one
//! look missed is seen by the next, and once each was empty after the one before, all are. One more
//! place is between a queue and a descriptor: a thread that was interrupted in accept(2), or a message
//! with the descriptor that one process sends to another. So "no connections" is said only when it
//! is still so a little later.
//!
//! A full look takes 30 to 50 ms for a worker with 10,000 connections, most of it for reading what
//! its descriptors are. So it is spared while their number (one call for each process) tells
//! enough.
//!
//! Not seen: connections of a worker that lives in another network namespace than ours.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use nix::poll::{PollTimeout, poll};
use nix::unistd::Pid;

use super::closing::Watch;
use super::descriptors::{self, Held};
use super::idle::{self, IdleClosed};
use super::memory::Account;
use super::socket_table::{self, Connections, Ends, Place};
use crate::core::event::Closing;
use crate::core::ids::{MemberId, ServiceId, WorkerId};
use crate::core::time::Time;

/// How many descriptors of one worker are read: as many as the kernel lets a process have as it comes
/// (`fs.nr_open`).
const DESCRIPTORS_MAX: usize = 1 << 20;

/// A worker with so few descriptors is looked at fully, in less than a millisecond, each time their
/// number has changed, ...
const FEW: u64 = 256;

/// ... and after so long, since one may have come for another that has gone.
const PAUSE_OF_FEW: Duration = Duration::from_millis(200);

/// How long a look is not repeated for each descriptor that it read, so that looks take a few percent
/// of a processor, ...
const PAUSE_FOR_ONE: Duration = Duration::from_micros(100);

/// ... and at most, so that the end of the last connection is not noticed late.
const PAUSE_MOST: Duration = Duration::from_secs(1);

/// How many connections are held on to at a time, of all workers: each is a descriptor of ours, and the
/// daemon counts with them.
pub const HELD_MAX: usize = 256;

/// For how long they are without a look that asks for them: their clients are not told that they were
/// closed meanwhile. It is much longer than from one such look to the next.
pub(super) const HELD_FOR: Duration = Duration::from_secs(1);

/// How much later it is looked once more whether nothing is left: longer than a thread that is ready to
/// run waits for a processor on a machine that is not overloaded.
const CONFIRM_AFTER: Duration = Duration::from_millis(3);

/// What is to be looked at.
#[derive(Debug, Clone)]
pub struct Request {
    /// Comes back with the answer.
    pub number: u64,
    /// Whose drain it is.
    pub service: ServiceId,
    /// The sockets that are draining.
    pub members: Vec<Draining>,
    /// Other sockets that the workers accept from.
    pub beside: Vec<Place>,
    /// Sockets whose connections the workers are given, and are given no more.
    pub dispatched: Vec<Place>,
    /// Whether it matters what handshakes are under way. They cost a walk over the kernel's table.
    pub handshakes: bool,
    /// Workers, and where their processes are found.
    pub workers: Vec<(WorkerId, Account)>,
    /// Those of them whose idle connections to the draining sockets are closed.
    pub close_idle: Vec<WorkerId>,
    /// Those of them whose connections are held on to.
    pub hold: Vec<WorkerId>,
    /// Those that were asked to stop, and when: it is watched what becomes of what was held on to.
    pub asked: Vec<(WorkerId, Time)>,
}

/// A socket that is draining.
#[derive(Debug, Clone)]
pub struct Draining {
    /// Which one.
    pub member: MemberId,
    /// Where the kernel has it.
    pub place: Place,
    /// For how long it has got no new handshakes, rounded down. Those that are younger are not counted,
    /// and without it all of the address are. A listener with `defer_accept` goes without: its
    /// handshakes look young again and again.
    pub parted: Option<Duration>,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The number of the request.
    pub number: u64,
    /// What is left on the way to each socket.
    pub members: Vec<(MemberId, Left)>,
    /// How many connections each worker has open, `None` where that cannot be known. None at all is
    /// said only after a full look; other numbers may be estimates.
    pub workers: Vec<(WorkerId, Option<u32>)>,
    /// How those that were asked to stop close their connections.
    pub asked: Vec<(WorkerId, Closing)>,
    /// What came of closing idle connections.
    pub idle: Vec<(WorkerId, IdleClosed)>,
}

/// What is left on the way to a socket; `None` where it cannot be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Handshakes that may be its own: the kernel tells of their address and age only.
    pub handshakes: Option<u32>,
    /// Connections that wait to be accepted, or bytes of datagrams that wait to be received.
    pub queued: Option<u32>,
}

impl Answer {
    /// That nothing can be known.
    #[must_use]
    pub fn unknown(request: &Request) -> Answer {
        let nothing = Left { handshakes: None, queued: None };
        Answer {
            number: request.number,
            members: request.members.iter().map(|it| (it.member, nothing)).collect(),
            workers: request.workers.iter().map(|(worker, _)| (*worker, None)).collect(),
            asked: request.asked.iter().map(|&(worker, _)| (worker, Closing::default())).collect(),
            idle: Vec::new(),
        }
    }
}

/// Looks, and remembers what spares it a look.
#[derive(Debug, Default)]
pub struct Looker {
    last: BTreeMap<ServiceId, BTreeMap<WorkerId, Last>>,
    /// What is held on to.
    watches: BTreeMap<ServiceId, Watches>,
}

/// What is held on to for a service.
#[derive(Debug)]
struct Watches {
    of: BTreeMap<WorkerId, Watch>,
    /// When it was last asked for.
    asked: Time,
}

impl Looker {
    /// Looks once.
    #[must_use]
    pub fn look(&mut self, now: Time, request: &Request) -> Answer {
        // First of all, since it is over in a moment.
        let asked = self.asked(now, request);
        let places: Vec<&Place> = request.members.iter().map(|member| &member.place).collect();
        let under_way = if request.handshakes { socket_table::handshakes(&places) } else { None };
        let queues = socket_table::queues(&places);
        let members = request.members.iter().zip(queues).map(|(draining, queue)| {
            let Draining { member, place, parted } = draining;
            let handshakes = under_way
                .as_deref()
                .map(|under_way| socket_table::handshakes_of(place, *parted, under_way));
            (*member, Left { handshakes, queued: queue.map(|queue| queue.waiting) })
        });
        let members = members.collect();
        let mut idle = Vec::new();
        let workers = self.workers(now, request, &mut idle);
        Answer { number: request.number, members, workers, asked, idle }
    }

    /// How many connections are held on to.
    pub(super) fn held(&self) -> usize {
        self.watches.values().flat_map(|watches| watches.of.values()).map(Watch::count).sum()
    }

    /// Lets those go that nobody has asked for in the last [`HELD_FOR`].
    pub(super) fn let_old_go(&mut self, now: Time) {
        self.watches.retain(|_, watches| now.since(watches.asked) < HELD_FOR);
    }

    /// Lets those of these workers go, which are held on to anew.
    fn let_go(&mut self, service: ServiceId, workers: &[WorkerId]) {
        if let Some(watches) = self.watches.get_mut(&service) {
            watches.of.retain(|worker, _| !workers.contains(worker));
        }
    }

    fn asked(&mut self, now: Time, request: &Request) -> Vec<(WorkerId, Closing)> {
        // Who has gone with all that drained does not come back for what was held on to.
        self.let_old_go(now);
        let Some(watches) = self.watches.get_mut(&request.service) else {
            return request.asked.iter().map(|&(id, _)| (id, Closing::default())).collect();
        };
        watches.asked = now;
        let is_asked = |id: &WorkerId| request.asked.iter().any(|(asked, _)| asked == id);
        watches.of.retain(|id, _| request.hold.contains(id) || is_asked(id));
        let closing = |&(id, asked): &(WorkerId, Time)| {
            let watch = watches.of.get_mut(&id);
            (id, watch.map(|watch| watch.look(now.since(asked))).unwrap_or_default())
        };
        request.asked.iter().map(closing).collect()
    }

    fn workers(
        &mut self,
        now: Time,
        request: &Request,
        idle: &mut Vec<(WorkerId, IdleClosed)>,
    ) -> Vec<(WorkerId, Option<u32>)> {
        let mut before = self.last.remove(&request.service).unwrap_or_default();
        let mut after = BTreeMap::new();
        let mut full = Vec::new();
        let mut counts = BTreeMap::new();
        for (worker, account) in &request.workers {
            let processes = account.processes();
            let count = descriptors::count(&processes);
            let last = before.remove(worker);
            let hold = request.hold.contains(worker);
            let last = last.filter(|_| !hold);
            let estimate = last.map(|mut last| (last.estimate(now, count), last));
            match estimate {
                Some((Some(open), last)) => {
                    counts.insert(*worker, Some(open));
                    after.insert(*worker, last);
                }
                Some((None, _)) | None => full.push((*worker, processes)),
            }
        }
        if !full.is_empty() {
            let beside = request.beside.iter().chain(&request.dispatched);
            let places: Vec<&Place> =
                request.members.iter().map(|member| &member.place).chain(beside).collect();
            let mut seen = look_at(&places, &full);
            if counts.is_empty() && seen.iter().all(|seen| seen.open == Some(0)) {
                wait(CONFIRM_AFTER);
                seen = look_at(&places, &full);
            }
            self.let_go(request.service, &request.hold);
            let mut room = HELD_MAX.saturating_sub(self.held());
            let each = (room / request.hold.len().max(1)).max(1);
            for Seen { worker, open, held, ends } in seen {
                counts.insert(worker, open);
                if request.hold.contains(&worker) {
                    let watch = Watch::of(&held.of, &ends, each.min(room));
                    room -= watch.count();
                    let watches = self.watches.entry(request.service);
                    let watches = watches.or_insert(Watches { of: BTreeMap::new(), asked: now });
                    watches.of.insert(worker, watch);
                }
                if request.close_idle.contains(&worker) {
                    idle.push((worker, close_idle(request, &held, &ends)));
                }
                let descriptors = held.descriptors;
                after.extend(open.map(|open| (worker, Last::new(now, open, descriptors))));
            }
        }
        self.last.insert(request.service, after);
        self.last.retain(|_, workers| !workers.is_empty());
        self.watches.retain(|_, watches| !watches.of.is_empty());
        let count = |worker: &WorkerId| counts.get(worker).copied().flatten();
        request.workers.iter().map(|(worker, _)| (*worker, count(worker))).collect()
    }
}

/// Closes what is idle of the connections that came from a socket that brings nothing more.
fn close_idle(request: &Request, held: &Held, ends: &BTreeMap<u64, Ends>) -> IdleClosed {
    let draining = || request.members.iter().map(|it| &it.place).chain(&request.dispatched);
    let drains = |ends: &Ends| draining().any(|place| place.has(ends.local));
    let own = ends.iter().filter(|(_, ends)| drains(ends)).map(|(&inode, &ends)| (inode, ends));
    idle::close(&held.of, &own.collect(), request.number)
}

/// What a full look saw of a worker.
struct Seen {
    worker: WorkerId,
    open: Option<u32>,
    held: Held,
    /// Of what it has open.
    ends: Rc<BTreeMap<u64, Ends>>,
}

/// Looks fully.
fn look_at(places: &[&Place], workers: &[(WorkerId, Vec<Pid>)]) -> Vec<Seen> {
    let mut connections = socket_table::connections(places);
    let ends = Rc::new(std::mem::take(&mut connections.ends));
    let seen = workers.iter().map(|(worker, processes)| {
        let mut room = DESCRIPTORS_MAX;
        let held = descriptors::held(processes, &connections.inodes, &mut room);
        Seen { worker: *worker, open: open(&held, &connections), ends: Rc::clone(&ends), held }
    });
    seen.collect()
}

/// How many connections are open in a worker, if that is known. Some that are seen count whatever may
/// be unseen.
pub(super) fn open(held: &Held, connections: &Connections) -> Option<u32> {
    let seen = u32::try_from(held.sockets.len()).unwrap_or(u32::MAX);
    // Somebody has them, maybe a ring of this worker.
    let in_ring = held.has_ring && !connections.inodes.is_empty();
    let may_have_others = held.unseen || !connections.are_all || in_ring;
    (seen > 0 || !may_have_others).then_some(seen)
}

/// Waits without anything to wake by.
fn wait(duration: Duration) {
    let timeout = PollTimeout::try_from(duration).unwrap_or(PollTimeout::ZERO);
    // A signal may end it early; it is but a pause.
    let _ = poll(&mut [], timeout);
}

/// The last full look at a worker, and what its number of descriptors was since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Last {
    at: Time,
    open: u32,
    descriptors: u64,
    /// At the last look, full or not.
    newest: u64,
}

impl Last {
    fn new(at: Time, open: u32, descriptors: u64) -> Last {
        Last { at, open, descriptors, newest: descriptors }
    }

    /// How many connections are open by the number of descriptors alone; `None` when a full look is
    /// due. It is never 0. Where the kernel does not count descriptors, only time tells.
    fn estimate(&mut self, now: Time, count: Option<u64>) -> Option<u32> {
        let is_counted = count.is_some();
        let count = count.unwrap_or(self.descriptors);
        let (same, falls) = (count == self.newest, count < self.newest);
        self.newest = count;
        if count <= FEW {
            let is_enough = is_counted && same && now.since(self.at) < PAUSE_OF_FEW;
            return (is_enough && self.open > 0).then_some(self.open);
        }
        let most = (u64::from(self.open) + count).saturating_sub(self.descriptors);
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        let read = u32::try_from(self.descriptors).unwrap_or(u32::MAX);
        let pause = PAUSE_FOR_ONE.saturating_mul(read).min(PAUSE_MOST);
        let is_enough = now.since(self.at) < pause || falls && u64::from(most) > FEW;
        (most > 0 && is_enough).then_some(most)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "they start real processes and wait for them")]
mod tests;
