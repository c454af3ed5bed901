//! Sockets of which each slot has one: how they are asked for, bound and told of to the core.

use std::collections::BTreeMap;

use crate::config::socket::{Address, Slots, SocketSpec, Transport};
use crate::config::text::one_line;
use crate::core::action::NewMember;
use crate::core::event::{Event, Fault};
use crate::core::ids::{MemberId, ServiceId, SlotId, SocketId};
use crate::core::policy::{BoundMember, Members, Socket};
use crate::os::listeners::{self, Bound, Listener};
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
}

impl Wanted {
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
        listeners: Vec<Listener>,
        each: &[usize],
        free: MemberId,
    ) -> Numbered {
        let mut numbered = Numbered::default();
        let mut own: Vec<(SocketId, &Wanted, Vec<Listener>)> = Vec::new();
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
                    numbered.share(wanted.owner, spec, mine, &mut ids);
                }
            }
        }
        let rest: Vec<Listener> = listeners.collect();
        if !rest.is_empty() {
            numbered.share(ServiceId(0), None, rest, &mut ids);
        }
        let mut members = ids.map(|id| MemberId(id.0));
        for (id, Wanted { owner, spec, .. }, listeners) in own {
            let mut bound = Vec::new();
            for (listener, member) in listeners.into_iter().zip(members.by_ref()) {
                bound.push(BoundMember { member, name: listener.label() });
                numbered.listeners.insert(member, listener);
            }
            let members = Members::EachSlot { bound, slots_max: spec.slots_max() };
            let socket = Socket { id, name: spec.place(), members };
            let mut groups = numbered.groups.iter_mut();
            let empty = groups.find(|(_, group)| group.is_each_slot() && group.sockets.is_empty());
            if let Some((_, group)) = empty {
                group.sockets.push(socket.clone());
            }
            numbered.sockets.push((*owner, socket));
            numbered.each_slot.entry(*owner).or_default().push((id, spec.clone()));
        }
        numbered.sockets.sort_by_key(|(_, socket)| socket.id);
        numbered
    }

    fn share(
        &mut self,
        owner: ServiceId,
        spec: Option<SocketSpec>,
        listeners: Vec<Listener>,
        ids: &mut impl Iterator<Item = SocketId>,
    ) {
        let mut group = Group { spec, sockets: Vec::new(), open: BTreeMap::new() };
        for listener in listeners {
            let Some(id) = ids.next() else { break };
            let (name, members) = (listener.label(), Members::Shared);
            let spec = group.spec.as_ref();
            self.shared.extend(spec.map(|spec| (id, as_bound(spec, &listener))));
            let socket = Socket { id, name, members };
            group.sockets.push(socket.clone());
            group.open.insert(MemberId(id.0), id);
            self.sockets.push((owner, socket));
            self.listeners.insert(MemberId(id.0), listener);
        }
        self.groups.push((owner, group));
    }

    /// The sockets of a service.
    pub(super) fn of(&self, service: ServiceId) -> impl Iterator<Item = &Socket> {
        self.sockets.iter().filter(move |(owner, _)| *owner == service).map(|(_, socket)| socket)
    }

    /// Whether a service has a socket that takes streams.
    pub(super) fn has_stream(&self, service: ServiceId) -> bool {
        let members = self.of(service).flat_map(|socket| match &socket.members {
            Members::Shared => vec![MemberId(socket.id.0)],
            Members::EachSlot { bound, .. } => bound.iter().map(|bound| bound.member).collect(),
        });
        let mut listeners = members.filter_map(|member| self.listeners.get(&member));
        listeners.any(|listener| listener.transport == Transport::Stream)
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
        slot: SlotId,
        members: &[(SocketId, MemberId)],
    ) {
        let new = |&(socket, member)| NewMember { socket, slot: Some(slot), member };
        let new: Vec<NewMember> = members.iter().map(new).collect();
        let event = match self.bind_members(service, &new) {
            Ok(bound) => {
                let sockets = members.iter().map(|&(socket, _)| socket);
                Event::SlotBound { service, slot, members: sockets.zip(bound).collect() }
            }
            Err(fault) => Event::SlotNotBound { service, slot, reason: fault.reason().to_owned() },
        };
        self.events.push_back(event);
        self.watch_members(&new);
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
        let wanted = members.iter().map(|member| self.parts.services.spec(service, *member));
        let wanted: Vec<SocketSpec> =
            wanted.collect::<Result<_, String>>().map_err(Fault::Sockets)?;
        let bound = listeners::bind_all(&wanted, Vec::new()).map_err(|error| fault(&error))?;
        let Bound { listeners, warnings, .. } = bound;
        for warning in warnings {
            tracing::warn!("{}", one_line(&warning.to_string()));
        }
        let mut told = Vec::new();
        for (&NewMember { socket, member, .. }, listener) in members.iter().zip(listeners) {
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
