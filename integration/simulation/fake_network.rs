//! The fake kernel's connections: each finds a member of a group when its first packet comes, waits in
//! that member's queue once its handshake is over, is taken by a worker, and ends there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use shepherd::core::ids::{MemberId, ServiceId, SlotId, SocketId, WorkerId};
use shepherd::core::policy::{BeforeStop, BoundMember, KeepAlive, Members, OnFailing, Policy};
use shepherd::core::steering::GroupId;

use crate::fake_groups::FakeGroups;
use crate::fate::ms;
use crate::script::Script;

/// Numbers for members that are a worker's alone begin here, beyond all others of the beginning.
const OWN_FROM: u32 = 1000;

/// A time before the stop signal in which all connections of a world end.
const LONG: u64 = 20_000;

/// What a service's program does when it is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtStop {
    /// It takes no more connections, finishes those that it has and exits.
    Finishes,
    /// It exits with its connections open.
    Cuts,
    /// It shuts its listeners down, finishes what it has and exits.
    ShutsDown,
}

/// What becomes of a service's connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traffic {
    pub at_stop: AtStop,
    /// The time before the stop signal is enough for all of them.
    pub has_time: bool,
    /// What of them a look cannot show.
    pub blind: Blind,
}

/// What cannot be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blind {
    Nothing,
    Handshakes,
    Connections,
}

/// A connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connection {
    pub service: ServiceId,
    pub member: MemberId,
    pub at: At,
    /// It came while the kernel's order was not what the core could know.
    pub excused: bool,
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    Handshake,
    Queue,
    Worker(WorkerId),
}

/// For whom a socket has members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Everybody, for as long as the service serves.
    All,
    /// One slot, which has an address of its own, for as long as it is wanted.
    Slot,
    /// One generation, or one slot of it.
    Generation,
}

/// All connections, and the groups in which they find their members.
pub(crate) struct FakeNetwork {
    pub groups: FakeGroups,
    pub traffic: BTreeMap<ServiceId, Traffic>,
    connections: BTreeMap<u64, Connection>,
    last: u64,
    /// How many connections workers had when they were first watched.
    watched: BTreeMap<WorkerId, u32>,
    queues: BTreeMap<MemberId, VecDeque<u64>>,
    /// The service of each socket that is steered, and for whom it has members.
    steered: BTreeMap<SocketId, (ServiceId, Whose)>,
    members: BTreeMap<MemberId, GroupId>,
    /// Members with which workers did what they should not, or may have.
    pub tainted: BTreeSet<MemberId>,
    /// Members that were shut down, or do not listen though they were told to, and how often the core
    /// has not heard of that.
    pub unheard: BTreeMap<MemberId, u32>,
    /// The same of those whose place a spare has taken, so that nobody else is found by it.
    pub unheard_spared: BTreeSet<MemberId>,
    /// Groups of which something that is asked for will not be, and how often.
    pub doubtful: BTreeMap<GroupId, u32>,
}

/// Decides which services have groups, and what their connections are like. Without a byte none has.
pub(crate) fn spread(net: &mut Script, policies: &mut [Policy]) -> BTreeMap<ServiceId, Traffic> {
    let mut last = OWN_FROM;
    let mut traffic = BTreeMap::new();
    for policy in policies {
        let kind = net.below(8);
        if kind < 2 {
            continue;
        }
        for socket in &mut policy.sockets {
            // Of four one stays a unix socket, which has no group.
            if net.one_in(4) {
                continue;
            }
            socket.steered = true;
            socket.refusable = true;
            if socket.members != Members::Shared {
                continue;
            }
            match kind {
                2 => {}
                3..=5 => socket.members = Members::EachGeneration,
                _ => {
                    let bound = (0..policy.workers).map(|_| {
                        last += 1;
                        BoundMember { member: MemberId(last), name: format!("member {last}") }
                    });
                    socket.members = Members::EachWorker { bound: bound.collect() };
                }
            }
        }
        // No byte is spent on it, so that worlds keep their meaning.
        if kind.is_multiple_of(3) {
            policy.on_failing = OnFailing::Refuse;
        }
        let times = [0, 200, LONG].map(|time| BeforeStop::For(ms(time)));
        policy.before_stop = match net.below(6) {
            index @ 3.. => times[usize::from(index) - 3],
            _ => BeforeStop::Auto,
        };
        policy.keepalive = net.pick(&[KeepAlive::Leave, KeepAlive::CloseIdle]);
        let has_time = !times[..2].contains(&policy.before_stop);
        let manners = [AtStop::Finishes, AtStop::Cuts, AtStop::ShutsDown, AtStop::Cuts];
        let blind = [Blind::Nothing, Blind::Nothing, Blind::Nothing, Blind::Handshakes];
        let at_stop = net.pick(&manners);
        let blind = if net.one_in(6) { Blind::Connections } else { net.pick(&blind) };
        traffic.insert(policy.service, Traffic { at_stop, has_time, blind });
    }
    traffic
}

impl FakeNetwork {
    pub(crate) fn new(policies: &[Policy], traffic: BTreeMap<ServiceId, Traffic>) -> FakeNetwork {
        let all = policies.iter().flat_map(|policy| {
            let service = policy.service;
            policy.sockets.iter().map(move |socket| (service, socket))
        });
        let steered = all.filter(|(_, socket)| socket.steered).map(|(service, socket)| {
            let whose = match socket.members {
                Members::Shared | Members::Dispatched(_) => Whose::All,
                Members::EachSlot { .. } => Whose::Slot,
                Members::EachGeneration | Members::EachWorker { .. } => Whose::Generation,
            };
            (socket.id, (service, whose))
        });
        FakeNetwork {
            groups: FakeGroups::default(),
            traffic,
            connections: BTreeMap::new(),
            last: 0,
            watched: BTreeMap::new(),
            queues: BTreeMap::new(),
            steered: steered.collect(),
            members: BTreeMap::new(),
            tainted: BTreeSet::new(),
            unheard: BTreeMap::new(),
            unheard_spared: BTreeSet::new(),
            doubtful: BTreeMap::new(),
        }
    }

    /// The group that a member of this socket is in, if it can be in one.
    pub(crate) fn group_of(&self, socket: SocketId, slot: Option<SlotId>) -> Option<GroupId> {
        let &(_, whose) = self.steered.get(&socket)?;
        Some(GroupId { socket, slot: slot.filter(|_| whose == Whose::Slot) })
    }

    /// Whether there are no groups.
    pub(crate) fn is_flat(&self) -> bool {
        self.steered.is_empty()
    }

    /// A member does not listen, and the core has not heard of it.
    pub(crate) fn not_heard(&mut self, member: MemberId) {
        *self.unheard.entry(member).or_default() += 1;
    }

    /// The core hears of one of these.
    pub(crate) fn is_heard(&mut self, member: MemberId) {
        if let Some(count) = self.unheard.get_mut(&member) {
            *count -= 1;
            self.unheard.retain(|_, count| *count > 0);
        } else {
            self.unheard_spared.remove(&member);
        }
    }

    /// Whether a socket is one that is steered.
    pub(crate) fn is_steered(&self, socket: SocketId) -> bool {
        self.steered.contains_key(&socket)
    }

    /// Whose a member is.
    pub(crate) fn whose(&self, member: MemberId) -> Option<Whose> {
        let group = self.members.get(&member)?;
        self.steered.get(&group.socket).map(|&(_, whose)| whose)
    }

    /// Whose a group is.
    pub(crate) fn service(&self, group: GroupId) -> Option<ServiceId> {
        self.steered.get(&group.socket).map(|&(service, _)| service)
    }

    /// A member is bound and listens. Returns whether nothing finds it before it is steered to.
    pub(crate) fn bind(&mut self, group: GroupId, member: MemberId) -> bool {
        self.members.insert(member, group);
        self.groups.join(group, member)
    }

    /// The group of a member that was bound.
    pub(crate) fn group(&self, member: MemberId) -> Option<GroupId> {
        self.members.get(&member).copied()
    }

    /// A member listens no more. Gives the connections that are lost by it: what its queue holds, and
    /// what was on the way there.
    pub(crate) fn leave(&mut self, member: MemberId) -> Vec<Connection> {
        if !self.groups.has(member) {
            return Vec::new();
        }
        self.groups.leave(member);
        self.queues.remove(&member);
        let on_the_way = |it: &Connection| match it.at {
            At::Handshake | At::Queue => it.member == member,
            At::Worker(_) => false,
        };
        self.drop_those(on_the_way)
    }

    /// A worker is gone: what it had open is cut off.
    pub(crate) fn cut(&mut self, worker: WorkerId) -> Vec<Connection> {
        self.drop_those(|it| it.at == At::Worker(worker))
    }

    fn drop_those(&mut self, lost: impl Fn(&Connection) -> bool) -> Vec<Connection> {
        let all = self.connections.iter().filter(|(_, connection)| lost(connection));
        let all: Vec<(u64, Connection)> = all.map(|(&id, &connection)| (id, connection)).collect();
        for (id, _) in &all {
            self.connections.remove(id);
        }
        all.into_iter().map(|(_, connection)| connection).collect()
    }

    /// The first packet of a connection has come.
    pub(crate) fn begin(&mut self, member: MemberId, service: ServiceId) -> u64 {
        self.last += 1;
        let group = self.members.get(&member);
        let of = |other: &MemberId| self.members.get(other) == group;
        let excused = self.unheard.keys().any(of)
            || group.is_some_and(|group| self.doubtful.contains_key(group));
        let connection = Connection { service, member, at: At::Handshake, excused };
        self.connections.insert(self.last, connection);
        self.last
    }

    /// A handshake is over: the connection waits. Gives its member.
    pub(crate) fn shake(&mut self, id: u64) -> Option<MemberId> {
        let connection = self.connections.get_mut(&id)?;
        connection.at = At::Queue;
        self.queues.entry(connection.member).or_default().push_back(id);
        Some(connection.member)
    }

    /// Whatever becomes of a connection, nobody is to blame.
    pub(crate) fn excuse(&mut self, id: u64) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.excused = true;
        }
    }

    /// A client goes away in the middle of its handshake.
    pub(crate) fn give_up(&mut self, id: u64) {
        self.connections.remove(&id);
    }

    /// Whether anything waits in a member's queue.
    pub(crate) fn waits(&self, member: MemberId) -> bool {
        self.queues.get(&member).is_some_and(|queue| !queue.is_empty())
    }

    /// A worker takes the connection that has waited longest.
    pub(crate) fn take(&mut self, member: MemberId, worker: WorkerId) -> Option<u64> {
        let id = self.queues.get_mut(&member)?.pop_front()?;
        self.connections.get_mut(&id)?.at = At::Worker(worker);
        Some(id)
    }

    /// The oldest connection that a worker has, which is idle by now.
    pub(crate) fn idle(&self, worker: WorkerId) -> Option<u64> {
        let mut all = self.connections.iter();
        all.find(|(_, it)| it.at == At::Worker(worker)).map(|(&id, _)| id)
    }

    /// A worker that was asked to stop has so many connections. Gives how many it had at first.
    pub(crate) fn watch(&mut self, worker: WorkerId, open: u32) -> u32 {
        *self.watched.entry(worker).or_insert(open)
    }

    /// A connection ends by itself. Gives the worker that had it.
    pub(crate) fn end(&mut self, id: u64) -> Option<WorkerId> {
        let at = self.connections.get(&id)?.at;
        match at {
            At::Worker(worker) => {
                self.connections.remove(&id);
                Some(worker)
            }
            At::Handshake | At::Queue => None,
        }
    }

    /// How many connections stand there.
    pub(crate) fn count(&self, stands: impl Fn(&Connection) -> bool) -> u32 {
        let count = self.connections.values().filter(|it| stands(it)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Those that still wait, though everybody who could take them does.
    pub(crate) fn forgotten(&self) -> impl Iterator<Item = Connection> + '_ {
        let waits = |it: &&Connection| it.at == At::Queue;
        let all = self.connections.values().filter(waits).copied();
        all.filter(|it| !self.tainted.contains(&it.member))
    }
}
