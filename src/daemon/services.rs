//! Services as the configuration wants them made ready for their first workers: definitions read,
//! sockets bound, all or none. Which socket and which number belongs to whom is settled here.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::config::diff::is_same_socket;
use crate::config::run::{RunConfig, RunConfigError};
use crate::config::service::{DispatchMistake, SOCKETS_MAX, ServiceConfig, ServiceMistake};
use crate::config::socket::{Address, Slots, SocketSpec, Transport};
use crate::config::upstreams;
use crate::config::values::{Balance, Handoff, Workers};
use crate::core::action::NewMember;
use crate::core::ids::{GenerationId, MemberId, ServiceId, SocketId};
use crate::core::policy::{Check, Policy, ReadyWhen, Socket};
use crate::os::definition::{self, Definition};
use crate::os::inherited::Inherited;
use crate::os::limits;
use crate::os::listeners::{self, Bound, Listener, Warning};
use crate::os::replace_file;

use super::StartError;
use super::slots::{Numbered, Share, Wanted};
use super::upstreams::Proxy;

/// How many workers may be on their way to their program at a time: enough to keep many processors
/// busy, and few enough that a turn of the loop, at about a millisecond a start, stays short.
const LAUNCHING_MAX: u32 = 32;

/// One table for each thing that belongs to a service.
pub(super) struct Services {
    pub(super) names: BTreeMap<ServiceId, String>,
    /// What each is to be, as it was read last.
    pub(super) configs: BTreeMap<ServiceId, ServiceConfig>,
    /// The highest number so far.
    pub(super) last: ServiceId,
    /// Those that are in no configuration any more, and of which something is left.
    pub(super) gone: BTreeSet<ServiceId>,
    /// How workers are checked, where a check is what makes them ready.
    pub(super) checks: BTreeMap<(ServiceId, GenerationId), Check>,
    /// What is open for each.
    pub(super) sockets: BTreeMap<ServiceId, Vec<Group>>,
    /// Generations that are the same program share one.
    pub(super) definitions: BTreeMap<(ServiceId, GenerationId), Rc<Definition>>,
    /// How sockets that workers share are bound once more; those that were handed over without being
    /// asked for cannot be.
    pub(super) shared: BTreeMap<SocketId, SocketSpec>,
    /// The sockets that each slot has one of, and how they are bound.
    pub(super) each_slot: BTreeMap<ServiceId, Vec<(SocketId, SocketSpec)>>,
    /// The proxies in front that are told which slots are ready.
    pub(super) proxies: BTreeMap<(ServiceId, GenerationId), Rc<Proxy>>,
}

/// The sockets of all services.
pub(super) struct Sockets {
    /// Whose they are, and what asks for them.
    pub(super) groups: Vec<(ServiceId, Group)>,
    /// What is open.
    pub(super) listeners: BTreeMap<MemberId, Listener>,
    /// How those that are shared are bound once more.
    pub(super) shared: BTreeMap<SocketId, SocketSpec>,
    /// Of which of them more are bound when more slots are wanted, and how.
    pub(super) each_slot: BTreeMap<ServiceId, Vec<(SocketId, SocketSpec)>>,
    /// Handed over, and asked for by none.
    pub(super) unused: Vec<Inherited>,
    /// What is not as it was asked for, though everything works.
    pub(super) warnings: Vec<Warning>,
}

impl Default for Services {
    fn default() -> Services {
        Services {
            names: BTreeMap::new(),
            configs: BTreeMap::new(),
            last: ServiceId(0),
            gone: BTreeSet::new(),
            checks: BTreeMap::new(),
            sockets: BTreeMap::new(),
            definitions: BTreeMap::new(),
            shared: BTreeMap::new(),
            each_slot: BTreeMap::new(),
            proxies: BTreeMap::new(),
        }
    }
}

/// The sockets that one specification stands for.
#[derive(Debug, Clone)]
pub(super) struct Group {
    /// What asks for them; none where they were handed over and nothing does.
    pub(super) spec: Option<SocketSpec>,
    /// As the core knows them.
    pub(super) sockets: Vec<Socket>,
    /// The shared ones that are open.
    pub(super) open: BTreeMap<MemberId, SocketId>,
}

impl Group {
    /// One whose sockets are the slots'.
    pub(super) fn of_slots(spec: SocketSpec) -> Group {
        Group { spec: Some(spec), sockets: Vec::new(), open: BTreeMap::new() }
    }

    /// Whether each slot has one of its own.
    pub(super) fn is_each_slot(&self) -> bool {
        self.spec.as_ref().is_some_and(|spec| spec.slots == Slots::Each)
    }
}

impl Services {
    /// A service is to be this from here on.
    pub(super) fn define(&mut self, id: ServiceId, service: &ServiceConfig) {
        self.names.insert(id, service.name.clone());
        self.configs.insert(id, service.clone());
    }

    /// Those of the present configuration, by name.
    pub(super) fn known(&self) -> BTreeMap<String, ServiceId> {
        let present = self.names.iter().filter(|(id, _)| !self.gone.contains(id));
        present.map(|(&id, name)| (name.clone(), id)).collect()
    }

    /// A kernel socket was bound for one that was closed.
    pub(super) fn opened(&mut self, socket: SocketId, member: MemberId) {
        let mut groups = self.sockets.values_mut().flatten();
        if let Some(group) = groups.find(|group| group.sockets.iter().any(|it| it.id == socket)) {
            group.open.insert(member, socket);
        }
    }

    /// An open kernel socket behind a socket that workers share.
    pub(super) fn open_member(&self, socket: SocketId) -> Option<MemberId> {
        let mut groups = self.sockets.values().flatten();
        groups.find_map(|group| {
            group.open.iter().find(|&(_, &of)| of == socket).map(|(&member, _)| member)
        })
    }

    /// Whether each slot of a service has an address of its own there.
    pub(super) fn is_each_slot(&self, service: ServiceId, socket: SocketId) -> bool {
        let each_slot = self.each_slot.get(&service).map(Vec::as_slice).unwrap_or_default();
        each_slot.iter().any(|(id, _)| *id == socket)
    }

    /// Another kernel socket has taken the place of one.
    pub(super) fn renewed(&mut self, from: MemberId, to: MemberId) {
        for group in self.sockets.values_mut().flatten() {
            if let Some(socket) = group.open.remove(&from) {
                group.open.insert(to, socket);
            }
        }
    }

    /// A kernel socket is closed: what stands for nothing any more goes with it.
    pub(super) fn closed(&mut self, member: MemberId) {
        for (id, groups) in &mut self.sockets {
            for group in groups.iter_mut() {
                group.open.remove(&member);
            }
            // One that is stopped gets them again when it is started.
            let named = self.configs.get(id).map(|service| service.sockets.as_slice());
            let is_named = |group: &Group| {
                let mut named = named.unwrap_or_default().iter();
                group.spec.as_ref().is_some_and(|spec| named.any(|it| is_same_socket(it, spec)))
            };
            groups
                .retain(|group| group.is_each_slot() || !group.open.is_empty() || is_named(group));
        }
    }

    /// Nothing is left of a service.
    pub(super) fn remove(&mut self, service: ServiceId) {
        self.names.remove(&service);
        self.configs.remove(&service);
        self.gone.remove(&service);
        self.sockets.remove(&service);
        self.each_slot.remove(&service);
        self.proxies.retain(|(of, _), _| *of != service);
        self.checks.retain(|(of, _), _| *of != service);
        self.definitions.retain(|(of, _), _| *of != service);
    }

    /// Reads the first definitions of all services.
    pub(super) fn read(config: &RunConfig) -> Result<Services, StartError> {
        let mut services = Services::default();
        for (id, service) in (0..).map(ServiceId).zip(&config.services) {
            let definition = definition::read(&service.source).map_err(|error| {
                StartError::Definition { service: whose(config, service), error }
            })?;
            services.definitions.insert((id, GenerationId(1)), Rc::new(definition));
            services.define(id, service);
            if let Some(definition) = services.definitions.get(&(id, GenerationId(1))) {
                warn_of_wrapper(service, definition);
            }
            services.last = id;
            let check = service.ready.check();
            services.checks.extend(check.map(|check| ((id, GenerationId(1)), check.clone())));
            services.proxies.extend(proxy(service).map(|proxy| ((id, GenerationId(1)), proxy)));
        }
        Ok(services)
    }

    /// How a socket of a service is bound.
    pub(super) fn spec(
        &self,
        service: ServiceId,
        NewMember { socket, slot, .. }: NewMember,
    ) -> Result<SocketSpec, String> {
        let Some(slot) = slot.filter(|_| self.is_each_slot(service, socket)) else {
            return self.shared.get(&socket).cloned().ok_or_else(|| {
                "one of its sockets was handed over, and only who did that can bind it; stop \
                 shepherd and start it with its socket unit again"
                    .to_owned()
            });
        };
        let each_slot = self.each_slot.get(&service).map(Vec::as_slice).unwrap_or_default();
        let spec = each_slot.iter().find(|(id, _)| *id == socket);
        let spec = spec.and_then(|(_, spec)| spec.of_slot(slot.0));
        spec.ok_or_else(|| format!("there is no port for slot {slot}"))
    }

    /// Whether the users of all services may enter a directory.
    pub(super) fn may_enter(&self, path: &std::path::Path) -> bool {
        self.definitions.values().all(|definition| definition.identity.may_enter(path))
    }
}

/// Says so where the command of a service keeps its sockets from the program that it starts.
pub(super) fn warn_of_wrapper(config: &ServiceConfig, definition: &Definition) {
    let Some(wrapper) = &definition.wrapper else { return };
    let wants_sockets = match config.source.handoff {
        Handoff::Fds => false,
        Handoff::Auto => !config.sockets.is_empty() || config.source.node_fork,
        Handoff::Node => true,
    };
    if wants_sockets {
        tracing::warn!(
            "service `{}`: `{wrapper}` starts the program in a process of its own, which gets \
             neither the sockets nor Node's channel; write the command that it starts, such as \
             `node server.js`",
            config.name
        );
    }
}

/// The proxy in front of a service, if there is one.
pub(super) fn proxy(service: &ServiceConfig) -> Option<Rc<Proxy>> {
    let socket = absolute(upstreams::socket(&service.sockets)?);
    let upstreams = service.upstreams.clone()?;
    Some(Rc::new(Proxy { upstreams, socket }))
}

/// The same socket, as somebody finds it who runs in another directory.
fn absolute(socket: &SocketSpec) -> SocketSpec {
    match &socket.address {
        Address::Unix(path) => {
            let address = Address::Unix(replace_file::absolute(path));
            SocketSpec { address, ..socket.clone() }
        }
        Address::Port(_) | Address::Ip(_) | Address::Localhost(_) | Address::Abstract(_) => {
            socket.clone()
        }
    }
}

/// Binds the sockets of all services or none, after what was handed over has been matched, and gives
/// each service its policy.
pub(super) fn bind(
    config: &RunConfig,
    handed_over: Vec<Inherited>,
) -> Result<(Vec<Policy>, Sockets), StartError> {
    let mut wanted = Vec::new();
    for (owner, service) in (0..).map(ServiceId).zip(&config.services) {
        let slots = workers(service.workers);
        service.check_slots(slots).map_err(|mistake| of_service(config, service, mistake))?;
        for spec in &service.sockets {
            let (spec, balance) = (listeners::looked_up(spec)?, service.balance);
            wanted.push(Wanted { owner, spec, slots, balance });
        }
    }
    let specs: Vec<SocketSpec> = wanted.iter().flat_map(Wanted::expanded).collect();
    let bound = if specs.is_empty() && config.services.len() > 1 {
        // To which of them they belong nobody has said.
        let (listeners, warnings) = (Vec::new(), Vec::new());
        Bound { listeners, each: Vec::new(), unused: handed_over, warnings }
    } else {
        listeners::bind_all(&specs, handed_over)?
    };
    let Bound { listeners, each, unused, warnings } = bound;
    // What nobody asked for is the first service's.
    let first = config.services.first();
    let handed_over = Share {
        owner: ServiceId(0),
        slots: first.map_or(1, |service| workers(service.workers)),
        balance: first.map_or(Balance::Shared, |service| service.balance),
    };
    let numbered = Numbered::new(&wanted, handed_over, listeners, &each, MemberId(0))?;
    if let Err(error) = check(config, &numbered) {
        numbered.listeners.into_values().for_each(Listener::discard);
        return Err(error.into());
    }
    let named = |names: &[String]| -> BTreeSet<ServiceId> {
        let all = (0..).map(ServiceId).zip(&config.services);
        all.filter(|(_, service)| names.contains(&service.name)).map(|(id, _)| id).collect()
    };
    let policies = (0..)
        .map(ServiceId)
        .zip(&config.services)
        .map(|(id, service)| Policy {
            depends_on: named(&service.depends_on),
            bind_to: named(&service.bind_to),
            ..policy(id, service, numbered.of(id).cloned().collect())
        })
        .collect();
    let Numbered { groups, listeners, shared, each_slot, .. } = numbered;
    Ok((policies, Sockets { groups, listeners, shared, each_slot, unused, warnings }))
}

/// What is known only once the sockets are there: handed-over ones can be all there are.
fn check(config: &RunConfig, numbered: &Numbered) -> Result<(), RunConfigError> {
    for (id, service) in (0..).map(ServiceId).zip(&config.services) {
        let (count, has_stream) = (numbered.of(id).count(), numbered.has_stream(id));
        check_sockets(config, service, count, has_stream, numbered.datagrams(id))?;
    }
    Ok(())
}

/// Whether a service that has so many sockets, one that takes streams or not, and this one that takes
/// datagrams, can be as it is meant to.
pub(super) fn check_sockets(
    config: &RunConfig,
    service: &ServiceConfig,
    count: usize,
    has_stream: bool,
    datagrams: Option<String>,
) -> Result<(), RunConfigError> {
    if let (Balance::Dispatch(_), Some(socket)) = (service.balance, datagrams) {
        return Err(of_service(
            config,
            service,
            ServiceMistake::Dispatch(DispatchMistake::NoConnections(socket)),
        ));
    }
    if count == 0
        && let Some(mistake) = service.check_balance().into_iter().next()
    {
        return Err(of_service(config, service, mistake));
    }
    let mistake = match (count, &service.ready) {
        (0, ReadyWhen::Listen) => ServiceMistake::NoSocketToWaitOn,
        (_, ReadyWhen::Check(Check::Tcp)) if !has_stream => {
            ServiceMistake::NoSocketToConnectTo("tcp")
        }
        (_, ReadyWhen::Check(Check::Http(_))) if !has_stream => {
            ServiceMistake::NoSocketToConnectTo("http")
        }
        (count, _) if count > SOCKETS_MAX => ServiceMistake::TooManySockets(count),
        (
            _,
            ReadyWhen::Listen
            | ReadyWhen::Auto
            | ReadyWhen::Notify
            | ReadyWhen::Message
            | ReadyWhen::Alive(_)
            | ReadyWhen::Check(_),
        ) => return Ok(()),
    };
    Err(of_service(config, service, mistake))
}

/// Whether a socket takes streams.
pub(super) fn takes_streams(listener: &Listener) -> bool {
    listener.transport == Transport::Stream
}

/// Whether a specification asks for one that does.
pub(super) fn asks_for_streams(spec: &SocketSpec) -> bool {
    spec.transport == Transport::Stream
}

fn of_service(
    config: &RunConfig,
    service: &ServiceConfig,
    mistake: ServiceMistake,
) -> RunConfigError {
    let (service, spelling) = (service.name.clone(), config.spelling());
    RunConfigError::Service { service, spelling, mistake }
}

/// The name of a service, for a message about it; the only one of a command line needs none.
pub(super) fn whose(config: &RunConfig, service: &ServiceConfig) -> Option<String> {
    config.file.is_some().then(|| service.name.clone())
}

/// How many workers a service is to have.
pub(super) fn workers(wanted: Workers) -> u32 {
    match wanted {
        Workers::Count(count) => count,
        Workers::Auto => limits::processors_for_us(),
        Workers::Max => limits::processors_online(),
    }
}

/// What the core has to know of a service, but for those that it needs.
pub(super) fn policy(id: ServiceId, service: &ServiceConfig, sockets: Vec<Socket>) -> Policy {
    Policy {
        service: id,
        name: service.name.clone(),
        workers: workers(service.workers),
        on_failing: service.on_failing,
        sockets,
        proxy: service.upstreams.as_ref().map(|upstreams| format!("{upstreams:?}")),
        ready: service.ready.clone(),
        ready_timeout: service.ready_timeout,
        check_pace: service.check_pace,
        surge: service.surge,
        canary: service.canary,
        probation: service.probation,
        before_stop: service.before_stop,
        keepalive: service.keepalive,
        stop: service.stop.ladder(service.drain_timeout),
        starting_max: limits::processors_for_us(),
        launching_max: LAUNCHING_MAX,
        depends_on: BTreeSet::new(),
        bind_to: BTreeSet::new(),
    }
}
