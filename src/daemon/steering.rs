//! The kernel is told which members of a group get new connections, as the core wants it, and which
//! connections of ours go to a member that gets none yet.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::socket::Transport;
use crate::config::text::one_line;
use crate::core::action::Share;
use crate::core::drain::{HANDSHAKE_WAIT, Look};
use crate::core::event::{DrainSeen, Event, Fault, Left, Queued};
use crate::core::ids::{GenerationId, MemberId, ServiceId, WorkerId};
use crate::core::steering::GroupId;
use crate::core::time::Time;
use crate::os::clock;
use crate::os::idle::IdleClosed;
use crate::os::left::{Answer, Draining, Request};
use crate::os::listeners::Listener;
use crate::os::looks::{Looks, Weighed, Weighing};
use crate::os::socket_table::Place;
use crate::os::steering;
use crate::os::strangers::{Reach, strangers};
use crate::os::traffic;
use crate::protocol::steering_program::{self, Admitted, Plan, Spread};

use super::event_loop::{Daemon, Token};

/// Sockets that are open.
type Listeners = BTreeMap<MemberId, Listener>;

/// What the kernel was told.
#[derive(Default)]
pub(super) struct Steering {
    groups: BTreeMap<GroupId, Vec<Share>>,
    /// Connections that probes are about to make: the worker that is meant, the member that it has,
    /// and where the connection comes from.
    admitted: Vec<(WorkerId, MemberId, Source)>,
    /// Since when members get nothing that got something before.
    away: BTreeMap<MemberId, Time>,
    /// Those of which it was told that they cannot be steered.
    told: BTreeSet<GroupId>,
    /// Services whose idle connections cannot be closed, of which it was told.
    told_idle: BTreeSet<ServiceId>,
    /// Sockets of others of which it was told.
    strangers: BTreeSet<u64>,
}

/// Where a connection of ours comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Source {
    /// Its family.
    pub(super) family: steering_program::Family,
    /// Its port.
    pub(super) port: u16,
}

impl Steering {
    /// New connections to a group go by these shares from here on.
    pub(super) fn steer(&mut self, group: GroupId, shares: Vec<Share>, listeners: &Listeners) {
        let had = self.groups.remove(&group).unwrap_or_default();
        for share in shares.iter().filter(|share| share.weight > 0) {
            self.away.remove(&share.member);
        }
        let gets = |member| shares.iter().any(|it| it.member == member && it.weight > 0);
        let away = had.iter().filter(|share| share.weight > 0 && !gets(share.member));
        let away: Vec<MemberId> = away.map(|share| share.member).collect();
        self.groups.insert(group, shares);
        self.attach(group, listeners);
        // Not a moment earlier: what comes before the program is attached is theirs, however long
        // that takes, and must not look younger than their parting.
        let now = clock::now();
        self.away.extend(away.into_iter().map(|member| (member, now)));
    }

    /// A connection from there goes to the member that this worker has, whatever its share.
    pub(super) fn admit(
        &mut self,
        worker: WorkerId,
        member: MemberId,
        source: Source,
        listeners: &Listeners,
    ) {
        if let Some(group) = self.group_of(member) {
            self.admitted.push((worker, member, source));
            self.attach(group, listeners);
        }
    }

    /// Nothing more is admitted for this worker.
    pub(super) fn forget(&mut self, worker: WorkerId, listeners: &Listeners) {
        let groups: BTreeSet<GroupId> = self
            .admitted
            .iter()
            .filter(|(of, ..)| *of == worker)
            .filter_map(|&(_, member, _)| self.group_of(member))
            .collect();
        self.admitted.retain(|(of, ..)| *of != worker);
        for group in groups {
            self.attach(group, listeners);
        }
    }

    /// Before and after a group gets further members: nobody else may be in it, since then the order
    /// of its members is not known. Who serves beside it is told of, once.
    pub(super) fn turn_down_strangers(
        &mut self,
        members: &[MemberId],
        listeners: &Listeners,
        new: &Listeners,
    ) -> Result<(), Fault> {
        if members.is_empty() {
            return Ok(());
        }
        let ours: BTreeSet<u64> =
            listeners.values().chain(new.values()).map(|listener| listener.inode).collect();
        for listener in members.iter().filter_map(|member| listeners.get(member)) {
            // Where they cannot be listed, nobody is known.
            for stranger in strangers(listener, &ours).unwrap_or_default() {
                let place = listener.place();
                match stranger.reach {
                    Reach::Within => {
                        return Err(Fault::Sockets(format!(
                            "cannot bind another socket to `{place}`: {stranger} serves there too, \
                             with SO_REUSEPORT, so that new connections could go to it; stop it \
                             first"
                        )));
                    }
                    Reach::Beside if self.strangers.insert(stranger.inode) => tracing::warn!(
                        "{} serves at an address that goes before `{}` or behind it: it gets what \
                         comes to the narrower one of the two",
                        one_line(&stranger.to_string()),
                        one_line(&place)
                    ),
                    Reach::Beside => {}
                }
            }
        }
        Ok(())
    }

    /// A member is closed.
    pub(super) fn closed(&mut self, member: MemberId) {
        self.admitted.retain(|&(_, of, _)| of != member);
        self.away.remove(&member);
        let gone = |shares: &Vec<Share>| shares.iter().all(|share| share.member == member);
        self.groups.retain(|_, shares| !gone(shares));
    }

    fn group_of(&self, member: MemberId) -> Option<GroupId> {
        let has = |shares: &Vec<Share>| shares.iter().any(|share| share.member == member);
        self.groups.iter().find(|(_, shares)| has(shares)).map(|(&group, _)| group)
    }

    fn attach(&mut self, group: GroupId, listeners: &Listeners) {
        let Some(shares) = self.groups.get(&group) else { return };
        let members: Vec<&Listener> =
            shares.iter().filter_map(|share| listeners.get(&share.member)).collect();
        let Some(first) = members.first() else { return };
        let index = |member: MemberId| {
            let index = shares.iter().position(|share| share.member == member)?;
            u32::try_from(index).ok()
        };
        let plan = Plan {
            weights: shares.iter().map(|share| share.weight).collect(),
            spread: match first.transport {
                Transport::Stream | Transport::Seqpacket => Spread::Connections,
                Transport::Datagram => Spread::Clients,
            },
            admitted: self
                .admitted
                .iter()
                .filter_map(|&(_, member, Source { family, port })| {
                    Some(Admitted { family, source_port: port, index: index(member)? })
                })
                .collect(),
        };
        let program = steering_program::compile(&plan);
        // One that a worker has shut down a moment ago is in no group any more.
        let refused = members.iter().map(|member| steering::attach(&member.fd, &program));
        let mut last = None;
        for result in refused {
            match result {
                Ok(()) => return,
                Err(errno) => last = Some(errno),
            }
        }
        if let Some(errno) = last
            && self.told.insert(group)
        {
            let place = one_line(&first.place());
            tracing::warn!(
                "cannot steer new connections to `{place}`: {}; the kernel spreads them over all \
                 its workers, those that are not ready and those that drain too",
                errno.desc()
            );
        }
    }
}

impl Daemon {
    /// Begins a look at what is left for workers that drain.
    pub(super) fn look_at_drain(&mut self, service: ServiceId, look: &Look) {
        let Look { number, members, workers, close_idle, hold, asked } = look;
        let now = clock::now();
        let listeners = &self.parts.listeners;
        let mut draining = Vec::new();
        for &member in members {
            let Some(listener) = listeners.get(&member) else { continue };
            let parted = self.steering.away.get(&member).map(|&since| now.since(since));
            draining.push(Draining { member, place: Place::of(listener), parted });
        }
        let recent = |draining: &Draining| draining.parted.is_some_and(|it| it <= HANDSHAKE_WAIT);
        let handshakes = draining.iter().any(recent);
        let all = workers.iter().filter_map(|worker| self.workers.get(worker));
        let all: BTreeSet<MemberId> =
            all.flat_map(|handles| handles.sockets.keys().copied()).collect();
        let beside = all.iter().filter(|member| !members.contains(member));
        let beside = beside.filter_map(|member| listeners.get(member)).map(Place::of).collect();
        let dispatched = workers.iter().filter_map(|worker| self.workers.get(worker));
        let dispatched: BTreeSet<MemberId> =
            dispatched.flat_map(|handles| handles.dispatched.iter().copied()).collect();
        let dispatched = dispatched.iter().filter_map(|member| listeners.get(member));
        let dispatched = dispatched.map(Place::of).collect();
        let accounts = workers.iter();
        let accounts = accounts
            .filter_map(|&worker| Some((worker, self.processes.account(worker)?)))
            .collect();
        let request = Request {
            number: *number,
            service,
            members: draining,
            beside,
            dispatched,
            handshakes,
            workers: accounts,
            close_idle: close_idle.clone(),
            hold: hold.clone(),
            asked: asked.clone(),
        };
        let answer = Answer::unknown(&request);
        let begun = self.looks().is_some_and(|looks| looks.start(request));
        if !begun {
            self.drain_seen(service, answer);
        }
    }

    /// Looks what waits on sockets.
    pub(super) fn look_at_queues(&mut self, service: ServiceId, members: &[MemberId]) {
        let listeners = members.iter().filter_map(|member| self.parts.listeners.get(member));
        let listeners: Vec<&Listener> = listeners.collect();
        let counts = traffic::waiting(&listeners);
        let counts: BTreeMap<u64, u32> = listeners
            .iter()
            .zip(counts)
            .filter_map(|(listener, count)| Some((listener.inode, count?)))
            .collect();
        let queued = |member: &MemberId| {
            let listener = self.parts.listeners.get(member)?;
            let count = counts.get(&listener.inode).copied()?;
            Some(match listener.transport {
                Transport::Stream | Transport::Seqpacket => Queued::Connections(count),
                Transport::Datagram => Queued::Bytes(count),
            })
        };
        let members = members.iter().map(|member| (*member, queued(member))).collect();
        self.events.push_back(Event::QueuesSeen { service, members });
    }

    /// Begins to look for how many more workers memory is free.
    pub(super) fn weigh(
        &mut self,
        service: ServiceId,
        generation: GenerationId,
        workers: &[WorkerId],
    ) {
        let workers = workers.iter().filter_map(|&worker| self.processes.account(worker)).collect();
        match self.looks() {
            Some(looks) => looks.weigh(Weighing { service, generation, workers }),
            None => self.events.push_back(Event::Weighed { service, generation, room: None }),
        }
    }

    /// Looks that have come to their end.
    pub(super) fn hear_looks(&mut self) {
        let counted = self.looks.as_mut().map(Looks::take_counted).unwrap_or_default();
        for counted in counted {
            self.dispatch_counted(counted);
        }
        let weighed = self.looks.as_mut().map(Looks::take_weighed).unwrap_or_default();
        for Weighed { service, generation, room } in weighed {
            self.events.push_back(Event::Weighed { service, generation, room });
        }
        let answers = self.looks.as_mut().map(Looks::take).unwrap_or_default();
        for (service, answer) in answers {
            self.drain_seen(service, answer);
        }
    }

    pub(super) fn looks(&mut self) -> Option<&mut Looks> {
        if self.looks.is_none() {
            let looks = Looks::new().ok()?;
            self.parts.reactor.add(&looks, Token::Looks.encode()).ok()?;
            self.looks = Some(looks);
        }
        self.looks.as_mut()
    }

    fn tell_idle(&mut self, service: ServiceId, worker: WorkerId, idle: IdleClosed) {
        let IdleClosed { closed, refused } = idle;
        if closed > 0 {
            let connections = if closed == 1 { "connection" } else { "connections" };
            tracing::info!("closed {closed} idle kept-alive {connections} of worker {worker}");
        }
        if let Some(why) = refused
            && self.steering.told_idle.insert(service)
        {
            tracing::warn!(
                "cannot close idle kept-alive connections of worker {worker}: {why}; it needs the \
                 right to trace the worker (CAP_SYS_PTRACE, or the same user), so their clients \
                 are waited for"
            );
        }
    }

    fn drain_seen(&mut self, service: ServiceId, answer: Answer) {
        let Answer { number, members, workers, asked, idle } = answer;
        for (worker, idle) in idle {
            self.tell_idle(service, worker, idle);
        }
        let left = |(member, left): (MemberId, crate::os::left::Left)| {
            (member, Left { handshakes: left.handshakes, queued: left.queued })
        };
        let members = members.into_iter().map(left).collect();
        // What it was given and has not answered for is nowhere to be seen.
        let with_given = |(worker, open): (WorkerId, Option<u32>)| {
            let given = self.dispatching.unanswered(worker);
            let open = open.or((given > 0).then_some(0));
            (worker, open.map(|open| open.saturating_add(given)))
        };
        let workers = workers.into_iter().map(with_given).collect();
        let seen = DrainSeen { number, members, workers, asked };
        self.events.push_back(Event::DrainSeen { service, seen });
    }
}
