//! Services as the configuration wants them made ready for their first workers: definitions read,
//! sockets bound, all or none. Which socket and which number belongs to whom is settled here.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::config::run::{RunConfig, RunConfigError};
use crate::config::service::{SOCKETS_MAX, ServiceConfig, ServiceMistake, Source};
use crate::config::socket::{Address, SocketSpec};
use crate::config::upstreams;
use crate::config::values::Workers;
use crate::core::ids::{GenerationId, MemberId, ServiceId, SocketId};
use crate::core::policy::{Check, Policy, ReadyWhen, Socket};
use crate::os::definition::{self, Definition};
use crate::os::inherited::Inherited;
use crate::os::limits;
use crate::os::listeners::{self, Bound, Listener, Warning};
use crate::os::replace_file;

use super::StartError;
use super::slots::{Numbered, Wanted};
use super::upstreams::Proxy;

/// How many workers may be on their way to their program at a time: enough to keep many processors
/// busy, and few enough that a turn of the loop, at about a millisecond a start, stays short.
const LAUNCHING_MAX: u32 = 32;

/// One table for each thing that belongs to a service.
#[derive(Default)]
pub(super) struct Services {
    pub(super) names: BTreeMap<ServiceId, String>,
    pub(super) sources: BTreeMap<ServiceId, Source>,
    /// How workers are checked, where a check is what makes them ready.
    pub(super) checks: BTreeMap<ServiceId, Check>,
    /// Generations that are the same program share one.
    pub(super) definitions: BTreeMap<(ServiceId, GenerationId), Rc<Definition>>,
    /// The sockets that each slot has one of, and how they are bound.
    pub(super) each_slot: BTreeMap<ServiceId, Vec<(SocketId, SocketSpec)>>,
    /// The proxies in front that are told which slots are ready.
    pub(super) proxies: BTreeMap<ServiceId, Proxy>,
}

/// The sockets of all services.
pub(super) struct Sockets {
    /// Whose each is follows from the policies.
    pub(super) listeners: BTreeMap<MemberId, Listener>,
    /// Of which of them more are bound when more slots are wanted, and how.
    pub(super) each_slot: BTreeMap<ServiceId, Vec<(SocketId, SocketSpec)>>,
    /// Handed over, and asked for by none.
    pub(super) unused: Vec<Inherited>,
    /// What is not as it was asked for, though everything works.
    pub(super) warnings: Vec<Warning>,
}

impl Services {
    /// Reads the first definitions of all services.
    pub(super) fn read(config: &RunConfig) -> Result<Services, StartError> {
        let mut services = Services::default();
        for (id, service) in (0..).map(ServiceId).zip(&config.services) {
            let definition = definition::read(&service.source).map_err(|error| {
                StartError::Definition { service: whose(config, service), error }
            })?;
            services.definitions.insert((id, GenerationId(1)), Rc::new(definition));
            services.names.insert(id, service.name.clone());
            if let (Some(upstreams), Some(socket)) =
                (service.upstreams.clone(), upstreams::socket(&service.sockets))
            {
                services.proxies.insert(id, Proxy { upstreams, socket: absolute(socket) });
            }
            services.sources.insert(id, service.source.clone());
            services.checks.extend(service.ready.check().map(|check| (id, check.clone())));
        }
        Ok(services)
    }

    /// Whether the users of all services may enter a directory.
    pub(super) fn may_enter(&self, path: &std::path::Path) -> bool {
        self.definitions.values().all(|definition| definition.identity.may_enter(path))
    }
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
            wanted.push(Wanted { owner, spec: listeners::looked_up(spec)?, slots });
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
    let numbered = Numbered::new(&wanted, listeners, &each);
    if let Err(error) = check(config, &numbered) {
        numbered.listeners.into_values().for_each(Listener::discard);
        return Err(error.into());
    }
    let policies = (0..)
        .map(ServiceId)
        .zip(&config.services)
        .map(|(id, service)| policy(id, service, numbered.of(id).cloned().collect()))
        .collect();
    let Numbered { listeners, each_slot, .. } = numbered;
    Ok((policies, Sockets { listeners, each_slot, unused, warnings }))
}

/// What is known only once the sockets are there: handed-over ones can be all there are.
fn check(config: &RunConfig, numbered: &Numbered) -> Result<(), RunConfigError> {
    for (id, service) in (0..).map(ServiceId).zip(&config.services) {
        let mistake = match (numbered.of(id).count(), &service.ready) {
            (0, ReadyWhen::Listen) => ServiceMistake::NoSocketToWaitOn,
            (_, ReadyWhen::Check(Check::Tcp)) if !numbered.has_stream(id) => {
                ServiceMistake::NoSocketToConnectTo("tcp")
            }
            (_, ReadyWhen::Check(Check::Http(_))) if !numbered.has_stream(id) => {
                ServiceMistake::NoSocketToConnectTo("http")
            }
            (count, _) if count > SOCKETS_MAX => ServiceMistake::TooManySockets(count),
            (
                _,
                ReadyWhen::Listen
                | ReadyWhen::Auto
                | ReadyWhen::Notify
                | ReadyWhen::Alive(_)
                | ReadyWhen::Check(_),
            ) => continue,
        };
        return Err(of_service(config, service, mistake));
    }
    Ok(())
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

fn policy(id: ServiceId, service: &ServiceConfig, sockets: Vec<Socket>) -> Policy {
    Policy {
        service: id,
        name: service.name.clone(),
        workers: workers(service.workers),
        sockets,
        published: service.upstreams.is_some(),
        ready: service.ready.clone(),
        ready_timeout: service.ready_timeout,
        check_pace: service.check_pace,
        stop: service.stop.ladder(service.drain_timeout),
        starting_max: limits::processors_for_us(),
        launching_max: LAUNCHING_MAX,
    }
}
