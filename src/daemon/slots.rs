//! Sockets of which each slot has one: how they are asked for, bound and told of to the core.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::socket::{Address, Slots, SocketSpec, Transport};
use crate::config::text::one_line;
use crate::config::values::Balance;
use crate::core::action::NewMember;
use crate::core::event::{Event, Fault};
use crate::core::ids::{GenerationId, MemberId, ServiceId, SlotId, SocketId};
use crate::core::policy::{BoundMember, Members, Socket};
use crate::os::listeners::{self, BindError, Bound, Listener};
use crate::os::local_address::LocalAddress;

use super::configuration::fault;
use super::event_loop::Daemon;
use super::services::Group;

/// A socket that a service asks for.
pub(super) struct Wanted {
    /// Which service.
    pub(super) owner: ServiceId,
    /// How; users and groups are numbers.
    pub(super) spec: SocketSpec,
    /// How many slots the service begins with.
    pub(super) slots: u32,
    /// How connections find its workers.
    pub(super) balance: Balance,
}

/// Whose a socket is, and how connections find its workers.
#[derive(Clone, Copy)]
pub(super) struct Share {
    /// Which service.
    pub(super) owner: ServiceId,
    /// How many slots it begins with.
    pub(super) slots: u32,
    /// How they find them.
    pub(super) balance: Balance,
}

impl Wanted {
    fn share(&self) -> Share {
        Share { owner: self.owner, slots: self.slots, balance: self.balance }
    }

    /// What is to be bound for it at the start. Each slot has a port, as was checked.
    pub(super) fn expanded(&self) -> Vec<SocketSpec> {
        match self.spec.slots {
            Slots::Each => (0..self.slots).filter_map(|slot| self.spec.of_slot(slot)).collect(),
            Slots::Shared | Slots::One(_) => vec![self.spec.clone()],
        }
    }
}

/// What is bound at the start, with its numbers.
#[derive(Default)]
pub(super) struct Numbered {
    /// What the core knows of it, in the order in which it was asked for.
    pub(super) sockets: Vec<(ServiceId, Socket)>,
    /// The same by what asked for it.
    pub(super) groups: Vec<(ServiceId, Group)>,
    /// What is open.
    pub(super) listeners: BTreeMap<MemberId, Listener>,
    /// How those that are shared are bound once more, where that can be.
    pub(super) shared: BTreeMap<SocketId, SocketSpec>,
    /// Of which of them more are bound when more slots are wanted, and how.
    pub(super) each_slot: BTreeMap<ServiceId, Vec<(SocketId, SocketSpec)>>,
}

impl Numbered {
    /// Numbers what was bound for all that is [`Wanted::expanded`], of which each has so many
    /// listeners. Where nothing is wanted, what was handed over is the first service's. A shared
    /// member has the number of its socket, from `free` on, and those of slots follow.
    pub(super) fn new(
        wanted: &[Wanted],
        handed_over: Share,
        listeners: Vec<Listener>,
        each: &[usize],
        free: MemberId,
    ) -> Result<Numbered, BindError> {
        let mut numbered = Numbered::default();
        let mut own: Vec<(SocketId, &Wanted, Vec<Listener>)> = Vec::new();
        let mut each_worker: Vec<(SocketId, u32, Listener)> = Vec::new();
        let mut ids = (free.0..).map(SocketId);
        let mut listeners = listeners.into_iter();
        let mut each = each.iter().copied();
        for wanted in wanted {
            // One that is a slot's has one listener, a shared one may have several.
            let count = wanted.expanded().iter().filter_map(|_| each.next()).sum();
            let mine: Vec<Listener> = listeners.by_ref().take(count).collect();
            match wanted.spec.slots {
                Slots::Each => {
                    let id = ids.next();
                    own.extend(id.map(|id| (id, wanted, mine)));
                    // What it has is known below.
                    numbered.groups.push((wanted.owner, Group::of_slots(wanted.spec.clone())));
                }
                Slots::Shared | Slots::One(_) => {
                    let spec = Some(wanted.spec.clone());
                    let separate = numbered.share(wanted.share(), spec, mine, &mut ids);
                    each_worker.extend(separate);
                }
            }
        }
        let rest: Vec<Listener> = listeners.collect();
        if !rest.is_empty() {
            each_worker.extend(numbered.share(handed_over, None, rest, &mut ids));
        }
        let mut members = ids.map(|id| MemberId(id.0));
        for (id, Wanted { owner, spec, .. }, listeners) in own {
            let mut bound = Vec::new();
            let refusable = listeners.iter().all(Listener::can_refuse);
            for (listener, member) in listeners.into_iter().zip(members.by_ref()) {
                bound.push(BoundMember { member, name: listener.label() });
                numbered.listeners.insert(member, listener);
            }
            let members = Members::EachSlot { bound, slots_max: spec.slots_max() };
            let socket = Socket { id, name: spec.place(), members, steered: true, refusable };
            let mut groups = numbered.groups.iter_mut();
            let empty = groups.find(|(_, group)| group.is_each_slot() && group.sockets.is_empty());
            if let Some((_, group)) = empty {
                group.sockets.push(socket.clone());
            }
            numbered.sockets.push((*owner, socket));
            numbered.each_slot.entry(*owner).or_default().push((id, spec.clone()));
        }
        for (id, slots, listener) in each_worker {
            if let Err(error) = numbered.separate(id, slots, listener, &mut members) {
                numbered.listeners.into_values().for_each(Listener::discard);
                return Err(error);
            }
        }
        numbered.sockets.sort_by_key(|(_, socket)| socket.id);
        Ok(numbered)
    }

    /// Gives back those of which each worker is to have one.
    fn share(
        &mut self,
        Share { owner, slots, balance }: Share,
        spec: Option<SocketSpec>,
        listeners: Vec<Listener>,
        ids: &mut impl Iterator<Item = SocketId>,
    ) -> Vec<(SocketId, u32, Listener)> {
        let mut group = Group { spec, sockets: Vec::new(), open: BTreeMap::new() };
        let mut each_worker = Vec::new();
        for listener in listeners {
            let Some(id) = ids.next() else { break };
            let (name, steered) = (listener.label(), listener.can_group().is_ok());
            let spec = group.spec.as_ref();
            self.shared.extend(spec.map(|spec| (id, as_bound(spec, &listener))));
            let members = members(balance, steered);
            let refusable = steered && listener.can_refuse();
            let socket = Socket { id, name, members, steered, refusable };
            group.sockets.push(socket.clone());
            if matches!(socket.members, Members::EachWorker { .. }) {
                each_worker.push((id, slots, listener));
            } else {
                group.open.insert(MemberId(id.0), id);
                self.listeners.insert(MemberId(id.0), listener);
            }
            self.sockets.push((owner, socket));
        }
        self.groups.push((owner, group));
        each_worker
    }

    /// Binds one for each slot beside the first.
    fn separate(
        &mut self,
        id: SocketId,
        slots: u32,
        first: Listener,
        ids: &mut impl Iterator<Item = MemberId>,
    ) -> Result<(), BindError> {
        let mut listeners = vec![first];
        for _ in 1..slots {
            let joined = listeners[0].join();
            match joined {
                Ok(listener) => listeners.push(listener),
                Err(error) => {
                    listeners.into_iter().for_each(Listener::discard);
                    return Err(error);
                }
            }
        }
        let mut bound = Vec::new();
        for (listener, member) in listeners.into_iter().zip(ids) {
            bound.push(BoundMember { member, name: listener.label() });
            self.listeners.insert(member, listener);
        }
        let open = bound.iter().map(|bound| (bound.member, id));
        let is_it = |socket: &&mut Socket| socket.id == id;
        for (_, group) in &mut self.groups {
            if let Some(socket) = group.sockets.iter_mut().find(is_it) {
                socket.members = Members::EachWorker { bound: bound.clone() };
                group.open.extend(open.clone());
            }
        }
        if let Some((_, socket)) = self.sockets.iter_mut().find(|(_, socket)| socket.id == id) {
            socket.members = Members::EachWorker { bound };
        }
        Ok(())
    }

    /// The sockets of a service.
    pub(super) fn of(&self, service: ServiceId) -> impl Iterator<Item = &Socket> {
        self.sockets.iter().filter(move |(owner, _)| *owner == service).map(|(_, socket)| socket)
    }

    /// A socket of a service that takes datagrams.
    pub(super) fn datagrams(&self, service: ServiceId) -> Option<String> {
        let members = self.of(service).flat_map(Socket::members);
        let mut listeners = members.filter_map(|member| self.listeners.get(&member));
        listeners.find(|listener| !listener.transport.accepts()).map(Listener::place)
    }

    /// Whether a service has a socket that takes streams.
    pub(super) fn has_stream(&self, service: ServiceId) -> bool {
        let members = self.of(service).flat_map(Socket::members);
        let mut listeners = members.filter_map(|member| self.listeners.get(&member));
        listeners.any(|listener| listener.transport == Transport::Stream)
    }
}

/// For whom a socket has members.
pub(super) fn members(balance: Balance, steered: bool) -> Members {
    match balance {
        Balance::Shared => Members::Shared,
        Balance::Dispatch(algorithm) => Members::Dispatched(algorithm),
        Balance::Generation | Balance::Slots if !steered => Members::Shared,
        Balance::Generation => Members::EachGeneration,
        // What is bound of it already is known otherwise.
        Balance::Slots => Members::EachWorker { bound: Vec::new() },
    }
}

/// The same where it is bound: which port that is may have been the kernel's choice, and of an
/// address that stands for two this is one.
fn as_bound(spec: &SocketSpec, listener: &Listener) -> SocketSpec {
    let address = match listener.address {
        LocalAddress::DualStack(port) => Address::Port(port),
        LocalAddress::Ip(address) => Address::Ip(address),
        LocalAddress::Unix(_) | LocalAddress::Abstract(_) => spec.address.clone(),
    };
    SocketSpec { address, ..spec.clone() }
}

/// The variable that tells programs of the old world where to listen. What they bind there is
/// theirs; ours is what they are given.
pub(super) const PORT: &str = "PORT";

/// The port of a worker that has exactly one TCP socket of its slot.
pub(super) fn port<'a>(given: impl Iterator<Item = &'a Listener>) -> Option<u16> {
    let own = |listener: &&Listener| matches!(listener.slots, Slots::One(_));
    let mut ports = given.filter(own).filter_map(|listener| match listener.transport {
        Transport::Stream => listener.address.port(),
        Transport::Datagram | Transport::Seqpacket => None,
    });
    let port = ports.next()?;
    ports.next().is_none().then_some(port)
}

impl Daemon {
    /// Binds the sockets that a slot has for itself.
    pub(super) fn bind_slot(
        &mut self,
        service: ServiceId,
        generation: Option<GenerationId>,
        slot: SlotId,
        members: &[(SocketId, MemberId)],
    ) {
        let new = |&(socket, member)| NewMember { socket, slot: Some(slot), member };
        let new: Vec<NewMember> = members.iter().map(new).collect();
        let event = match self.bind_members(service, &new) {
            Ok(bound) => {
                let sockets = members.iter().map(|&(socket, _)| socket);
                let members = sockets.zip(bound).collect();
                Event::SlotBound { service, generation, slot, members }
            }
            Err(fault) => {
                let reason = fault.reason().to_owned();
                Event::SlotNotBound { service, generation, slot, reason }
            }
        };
        self.events.push_back(event);
        self.watch_members(&new);
    }

    /// Binds sockets that no worker gets.
    pub(super) fn bind_spares(&mut self, service: ServiceId, members: &[NewMember]) {
        let bound = self.bind_members(service, members);
        let failure = bound.err().map(|fault| fault.reason().to_owned());
        if let Some(reason) = &failure {
            tracing::warn!("cannot keep the order of sockets: {}", one_line(reason));
        }
        let members = members.iter().map(|new| new.member).collect();
        self.events.push_back(Event::SparesBound { service, members, failure });
    }

    /// Binds these, all or none; gives them in the same order. They are watched once that is told.
    pub(super) fn bind_members(
        &mut self,
        service: ServiceId,
        members: &[NewMember],
    ) -> Result<Vec<BoundMember>, Fault> {
        // Nothing at all would be taken for what was handed over.
        if members.is_empty() {
            return Ok(Vec::new());
        }
        self.hear_shut_downs();
        // The first of each group is bound, and the others join it.
        let services = &self.parts.services;
        let mut first: BTreeMap<SocketId, MemberId> = BTreeMap::new();
        let (mut fresh, mut wanted) = (Vec::new(), Vec::new());
        for &new in members {
            let is_each_slot = services.is_each_slot(service, new.socket);
            if !is_each_slot && services.open_member(new.socket).is_some() {
                continue;
            }
            if is_each_slot || !first.contains_key(&new.socket) {
                first.insert(new.socket, new.member);
                fresh.push(new.member);
                wanted.push(services.spec(service, new).map_err(Fault::Sockets)?);
            }
        }
        let mut bound: BTreeMap<MemberId, Listener> = BTreeMap::new();
        if !wanted.is_empty() {
            let all = listeners::bind_all(&wanted, Vec::new()).map_err(|error| fault(&error))?;
            let Bound { listeners, warnings, .. } = all;
            for warning in warnings {
                tracing::warn!("{}", one_line(&warning.to_string()));
            }
            bound.extend(fresh.into_iter().zip(listeners));
        }
        let joined: BTreeSet<SocketId> = members
            .iter()
            .filter(|new| !bound.contains_key(&new.member))
            .map(|new| new.socket)
            .collect();
        let beside = joined.iter().filter_map(|&socket| services.open_member(socket));
        let beside: Vec<MemberId> = beside.collect();
        self.steering.turn_down_strangers(&beside, &self.parts.listeners, &bound)?;
        for &NewMember { socket, member, .. } in members {
            if bound.contains_key(&member) {
                continue;
            }
            let open = services.open_member(socket);
            let beside = open.and_then(|open| self.parts.listeners.get(&open));
            let beside = beside.or_else(|| bound.get(first.get(&socket)?));
            let joined = beside.ok_or_else(|| Fault::Sockets("its socket is closed".to_owned()));
            let joined = joined.and_then(|it| it.join().map_err(|error| fault(&error)));
            match joined {
                Ok(listener) => {
                    bound.insert(member, listener);
                }
                Err(error) => {
                    bound.into_values().for_each(Listener::discard);
                    return Err(error);
                }
            }
        }
        // One that came in between has taken a place that we did not see.
        if let Err(fault) =
            self.steering.turn_down_strangers(&beside, &self.parts.listeners, &bound)
        {
            bound.into_values().for_each(Listener::discard);
            return Err(fault);
        }
        let mut told = Vec::new();
        for &NewMember { socket, member, .. } in members {
            let Some(listener) = bound.remove(&member) else { continue };
            told.push(BoundMember { member, name: listener.label() });
            self.parts.services.opened(socket, member);
            self.parts.listeners.insert(member, listener);
        }
        Ok(told)
    }

    /// From here on we are told what happens to them, if they are there.
    pub(super) fn watch_members(&mut self, members: &[NewMember]) {
        for &NewMember { member, .. } in members {
            self.watch_listener(member);
        }
    }
}
