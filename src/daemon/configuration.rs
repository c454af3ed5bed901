//! The configuration read again, for a reload: who is who in it, the sockets that are new bound, all
//! of them or none, and what the core has to know of it. It decides nothing; until all is there
//! nothing of the daemon has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::config::diff::{Difference, is_same_socket};
use crate::config::run::RunConfig;
use crate::config::service::ServiceConfig;
use crate::config::socket::{Slots, SocketSpec};
use crate::config::text::one_line;
use crate::config::values::Balance;
use crate::core::configuration::Configuration;
use crate::core::event::{Event, Fault};
use crate::core::ids::{GenerationId, MemberId, RequestId, ServiceId};
use crate::core::policy::{Members, Policy, Socket};
use crate::os::definition::{self, Definition};
use crate::os::limits;
use crate::os::listeners::{self, BindError, Bound, Listener};

use super::event_loop::Daemon;
use super::services::{self, Group};
use super::slots::{self, Numbered, Share, Wanted};

/// Reads the configuration again, from where it was read at the start.
pub type Reread = Box<dyn Fn() -> Result<RunConfig, String>>;

/// What a reload wants read.
pub(super) struct Order {
    pub(super) request: RequestId,
    /// What is said of these services counts; without them everything.
    pub(super) only: Option<Vec<ServiceId>>,
    /// The first number that is free for a kernel socket.
    pub(super) free: MemberId,
}

/// A service as it is to be.
struct Next {
    id: ServiceId,
    config: ServiceConfig,
    /// Of one that is new, what its first workers run.
    first: Option<Definition>,
    /// Each specification with what it has; those without it are to be bound.
    sockets: Vec<(SocketSpec, Option<Group>)>,
}

impl Daemon {
    /// Reads what a reload wants to know, and tells it to the core.
    pub(super) fn read_configuration(&mut self, order: &Order) -> Event {
        let request = order.request;
        match self.try_read(order) {
            Ok(configuration) => Event::ConfigurationRead { request, configuration },
            Err(fault) => {
                let reason = fault.reason();
                // A file's mistakes are told with their places, the notice counts them.
                if reason.lines().count() > 1 {
                    for line in reason.lines().filter(|line| !line.is_empty()) {
                        tracing::error!("{}", one_line(line));
                    }
                }
                Event::ConfigurationFailed { request, fault }
            }
        }
    }

    fn try_read(&mut self, order: &Order) -> Result<Configuration, Fault> {
        let read = (self.parts.reread)().map_err(Fault::Definition)?;
        let config = match &order.only {
            None => read,
            Some(only) => self.part(&read, only),
        };
        config.check().map_err(|errors| {
            let errors = errors.iter().map(ToString::to_string);
            Fault::Definition(errors.collect::<Vec<_>>().join("\n"))
        })?;
        let mut ids = self.parts.services.known();
        let is_meant = |id: &ServiceId| order.only.as_ref().is_none_or(|only| only.contains(id));
        let gone = |name: &str| config.service(name).is_none();
        let removed: Vec<ServiceId> =
            ids.iter().filter(|(name, id)| gone(name) && is_meant(id)).map(|(_, &id)| id).collect();
        let mut last = self.parts.services.last;
        let mut next = Vec::new();
        for service in &config.services {
            let known = ids.get(&service.name).copied();
            let id = known.unwrap_or_else(|| {
                last.0 += 1;
                ids.insert(service.name.clone(), last);
                last
            });
            if known.is_none() || is_meant(&id) {
                let service = self.next(&config, id, service, known.is_none());
                next.push(service.map_err(Fault::Definition)?);
            }
        }
        let numbered = self.bind(&next, order.free)?;
        let policies: Vec<Policy> =
            policies(&next, &numbered.groups, &self.parts.services.sockets, &ids);
        if let Err(mistake) = self.check_sockets(&config, &policies, &numbered) {
            numbered.listeners.into_values().for_each(Listener::discard);
            return Err(Fault::Definition(mistake));
        }
        // From here on nothing fails.
        self.parts.services.last = last;
        self.warn_of_options(&next);
        self.take_over(next, &removed, numbered);
        let difference = Difference::between(&self.parts.config, &config);
        if !difference.is_empty() {
            tracing::info!("configuration read again: {}", one_line(&difference.to_string()));
        }
        if !difference.at_restart.is_empty() {
            let keys = difference.at_restart.join("`, `");
            tracing::warn!("`{keys}` of the daemon take effect when shepherd is started anew");
        }
        self.parts.supervisor.set_lame_duck(config.lame_duck);
        self.control.redefine(&config);
        self.parts.config = config;
        Ok(Configuration { services: policies, removed })
    }

    /// The present configuration, with what another says of some services.
    fn part(&self, read: &RunConfig, only: &[ServiceId]) -> RunConfig {
        let known = self.parts.services.known();
        let is_meant =
            |service: &ServiceConfig| known.get(&service.name).is_some_and(|id| only.contains(id));
        let services = self.parts.config.services.iter().filter_map(|service| {
            if is_meant(service) { read.service(&service.name) } else { Some(service) }
        });
        RunConfig { services: services.cloned().collect(), ..self.parts.config.clone() }
    }

    fn next(
        &self,
        config: &RunConfig,
        id: ServiceId,
        service: &ServiceConfig,
        is_new: bool,
    ) -> Result<Next, String> {
        let whose = services::whose(config, service);
        let whose = whose.map(|name| format!("service `{name}`: ")).unwrap_or_default();
        let told = |what: String| format!("{whose}{what}");
        service
            .check_slots(services::workers(service.workers))
            .map_err(|mistake| told(mistake.told(config.spelling())))?;
        let first = if is_new {
            let first = definition::read(&service.source);
            let first = first.map_err(|error| told(error.to_string()))?;
            if !first.identity.may_enter(self.parts.runtime_dir.path()) {
                let path = self.parts.runtime_dir.path().display();
                return Err(told(format!(
                    "its user may not enter `{path}`, where its workers would tell that they are \
                     ready; start shepherd anew, which chooses another directory then"
                )));
            }
            Some(first)
        } else {
            None
        };
        let mut own = self.parts.services.sockets.get(&id).cloned().unwrap_or_default();
        let each_slot =
            |groups: &[Group]| groups.iter().filter(|group| group.is_each_slot()).count();
        let before = each_slot(&own);
        let mut sockets = Vec::new();
        for spec in &service.sockets {
            let same = own.iter().position(|group| {
                group.spec.as_ref().is_some_and(|other| is_same_socket(other, spec))
            });
            sockets.push((spec.clone(), same.map(|index| own.remove(index))));
        }
        let kept =
            sockets.iter().filter(|(_, group)| group.as_ref().is_some_and(Group::is_each_slot));
        let wanted = service.sockets.iter().filter(|spec| spec.slots == Slots::Each);
        if !is_new && (kept.count() != before || wanted.count() != before) {
            return Err(told(
                "a reload cannot give it a socket with `{slot}` or take one away; give the service \
                 another name and another address, or start shepherd anew"
                    .to_owned(),
            ));
        }
        Ok(Next { id, config: service.clone(), first, sockets })
    }

    /// Binds what is new, all of it or nothing.
    fn bind(&self, next: &[Next], free: MemberId) -> Result<Numbered, Fault> {
        let mut wanted = Vec::new();
        for Next { id, config, sockets, .. } in next {
            for (spec, _) in sockets.iter().filter(|(_, group)| group.is_none()) {
                if let Some(owner) = self.owner_of(spec) {
                    let (place, owner) = (spec.place(), owner.to_owned());
                    return Err(Fault::Sockets(format!(
                        "cannot bind `{place}` for `{}`: `{owner}` has it, and keeps it until the \
                         last worker that has it is gone; take it away there and reload, and then \
                         reload with it here",
                        config.name
                    )));
                }
                let spec = listeners::looked_up(spec).map_err(|error| fault(&error))?;
                let (slots, balance) = (services::workers(config.workers), config.balance);
                wanted.push(Wanted { owner: *id, spec, slots, balance });
            }
        }
        let specs: Vec<SocketSpec> = wanted.iter().flat_map(Wanted::expanded).collect();
        if specs.is_empty() {
            return Ok(Numbered::default());
        }
        let bound = listeners::bind_all(&specs, Vec::new()).map_err(|error| fault(&error))?;
        let Bound { listeners, each, warnings, .. } = bound;
        for warning in warnings {
            tracing::warn!("{}", one_line(&warning.to_string()));
        }
        let nothing = Share { owner: ServiceId(0), slots: 1, balance: Balance::Shared };
        Numbered::new(&wanted, nothing, listeners, &each, free).map_err(|error| fault(&error))
    }

    /// The service that has a socket at this address, whatever it is called.
    fn owner_of(&self, spec: &SocketSpec) -> Option<&str> {
        let services = &self.parts.services;
        let has_it = |group: &Group| {
            let is_open = group.is_each_slot() || !group.open.is_empty();
            is_open
                && group.spec.as_ref().is_some_and(|other| {
                    let unnamed = SocketSpec { name: spec.name.clone(), ..other.clone() };
                    is_same_socket(&unnamed, spec) && !other.is_any_port()
                })
        };
        let (id, _) = services.sockets.iter().find(|(_, groups)| groups.iter().any(has_it))?;
        services.names.get(id).map(String::as_str)
    }

    /// What is known of services only with their sockets.
    fn check_sockets(
        &self,
        config: &RunConfig,
        policies: &[Policy],
        numbered: &Numbered,
    ) -> Result<(), String> {
        for policy in policies {
            let Some(service) = config.service(&policy.name) else { continue };
            let has_stream = policy.members().any(|member| {
                let listener = numbered.listeners.get(&member);
                let listener = listener.or_else(|| self.parts.listeners.get(&member));
                // One that was bound anew has another number, and is what it was.
                listener.is_some_and(services::takes_streams)
            }) || service.sockets.iter().any(services::asks_for_streams);
            let datagrams = policy.members().find_map(|member| {
                let listener = numbered.listeners.get(&member);
                let listener = listener.or_else(|| self.parts.listeners.get(&member))?;
                (!listener.transport.accepts()).then(|| listener.place())
            });
            let count = policy.sockets.len();
            services::check_sockets(config, service, count, has_stream, datagrams)
                .map_err(|error| error.to_string())?;
        }
        let needed = super::descriptors_needed(config);
        if needed > super::descriptors_needed(&self.parts.config) {
            match limits::raise_open_files(needed) {
                Ok(files) if files.ours < needed => tracing::warn!(
                    "this configuration may need {needed} open files, and {} is our limit",
                    files.ours
                ),
                Ok(_) => {}
                Err(error) => tracing::warn!("cannot read the limit on open files: {error}"),
            }
        }
        Ok(())
    }

    /// A socket that stays gets what can be set on it while it is in use, which is its backlog.
    fn warn_of_options(&mut self, next: &[Next]) {
        for Next { config, sockets, .. } in next {
            let old = self.parts.config.service(&config.name).map(|it| it.sockets.clone());
            for (spec, group) in sockets {
                let old = old.iter().flatten().find(|old| is_same_socket(old, spec));
                let (Some(group), Some(old)) = (group, old) else { continue };
                if old.options == spec.options {
                    continue;
                }
                let mut with_backlog = old.options.clone();
                with_backlog.backlog = spec.options.backlog;
                if with_backlog != spec.options {
                    tracing::warn!(
                        "`{}` of `{}` stays open with the options it has; others take effect when \
                         shepherd is started anew",
                        spec.place(),
                        config.name
                    );
                }
                if old.options.backlog != spec.options.backlog {
                    self.set_backlog(group, spec.options.backlog());
                }
            }
        }
    }

    fn set_backlog(&mut self, group: &Group, backlog: u32) {
        for member in group.open.keys() {
            let Some(listener) = self.parts.listeners.get_mut(member) else { continue };
            listener.backlog = Some(backlog);
            if let Err(errno) = listener.listen_again() {
                tracing::warn!(
                    "cannot set the backlog of `{}`: {}",
                    listener.label(),
                    errno.desc()
                );
            }
        }
    }

    /// All is there: it is what the daemon knows from here on.
    fn take_over(&mut self, next: Vec<Next>, removed: &[ServiceId], numbered: Numbered) {
        let Numbered { groups, listeners, shared, each_slot, .. } = numbered;
        let services = &mut self.parts.services;
        services.gone.extend(removed);
        for (owner, group) in groups {
            services.sockets.entry(owner).or_default().push(group);
        }
        services.shared.extend(shared);
        services.each_slot.extend(each_slot);
        for Next { id, config, first, .. } in next {
            let check = config.ready.check().cloned();
            if let Some(first) = first {
                services::warn_of_wrapper(&config, &first);
                let first_generation = (id, GenerationId(1));
                services.definitions.insert(first_generation, Rc::new(first));
                services.checks.extend(check.map(|check| (first_generation, check)));
                let proxy = services::proxy(&config);
                services.proxies.extend(proxy.map(|proxy| (first_generation, proxy)));
            }
            services.define(id, &config);
        }
        let members: Vec<MemberId> = listeners.keys().copied().collect();
        for listener in listeners.values() {
            super::journal::listening(listener);
        }
        self.parts.listeners.extend(listeners);
        for member in members {
            self.watch_listener(member);
        }
    }

    /// Nothing is left of a service.
    pub(super) fn remove_service(&mut self, service: ServiceId) {
        self.parts.services.remove(service);
        self.dispatching.remove(service);
    }
}

/// A socket that is not there, unless it is for what the file says of its owner.
pub(super) fn fault(error: &BindError) -> Fault {
    let reason = error.to_string();
    if error.is_of_configuration() { Fault::Definition(reason) } else { Fault::Sockets(reason) }
}

/// The same socket for workers that connections find in this way. What was bound for a service that
/// is new is kept.
fn as_balanced(socket: &Socket, balance: Balance) -> Socket {
    let members = match &socket.members {
        Members::EachSlot { .. } => return socket.clone(),
        Members::EachWorker { .. } if balance == Balance::Slots => return socket.clone(),
        Members::Shared
        | Members::Dispatched(_)
        | Members::EachGeneration
        | Members::EachWorker { .. } => slots::members(balance, socket.steered),
    };
    Socket { members, ..socket.clone() }
}

/// What the core has to know of the services.
fn policies(
    next: &[Next],
    bound: &[(ServiceId, Group)],
    open: &BTreeMap<ServiceId, Vec<Group>>,
    ids: &BTreeMap<String, ServiceId>,
) -> Vec<Policy> {
    let named = |names: &[String]| -> BTreeSet<ServiceId> {
        names.iter().filter_map(|name| ids.get(name).copied()).collect()
    };
    let mut bound = bound.iter();
    let mut policies = Vec::new();
    for Next { id, config, sockets: specs, .. } in next {
        let mut own: Vec<Socket> = Vec::new();
        for (_, group) in specs {
            let group = group.as_ref().or_else(|| bound.next().map(|(_, group)| group));
            let balanced = |socket: &Socket| as_balanced(socket, config.balance);
            own.extend(group.into_iter().flat_map(|group| group.sockets.iter().map(balanced)));
        }
        if specs.is_empty() {
            // What was handed over, and nobody asks for by name or address, stays.
            let handed = open.get(id).into_iter().flatten().filter(|group| group.spec.is_none());
            let balanced = |socket: &Socket| as_balanced(socket, config.balance);
            own.extend(handed.flat_map(|group| group.sockets.iter().map(balanced)));
        }
        policies.push(Policy {
            depends_on: named(&config.depends_on),
            bind_to: named(&config.bind_to),
            ..services::policy(*id, config, own)
        });
    }
    policies
}
