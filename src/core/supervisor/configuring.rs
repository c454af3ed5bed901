//! A reload reads the configuration first, and then goes on service by service: those that stay are
//! reloaded, those that are new start, and those that are gone are stopped and forgotten.

use std::collections::BTreeMap;

use crate::core::action::Action;
use crate::core::configuration::Configuration;
use crate::core::dependencies;
use crate::core::event::Fault;
use crate::core::ids::{MemberId, RequestId, ServiceId};
use crate::core::notice::{ConfigurationNotice, Notice};
use crate::core::policy::Policy;
use crate::core::refusal::Refusal;
use crate::core::request::{Behind, Response, Scope};
use crate::core::service::Service;
use crate::core::time::Time;

use super::requests::Pending;
use super::{Phase, Supervisor};

impl Supervisor {
    /// Nothing happens before the configuration is read, and nothing at all if that fails.
    pub(super) fn ask_reload(&mut self, id: RequestId, scope: &Scope, behind: Behind) {
        // One that is stopped stays so, and is in nobody's way; but who names it is told.
        let is_asked = |service: &&Service| *scope != Scope::All || service.is_to_serve();
        let all_may = |services: Vec<ServiceId>| {
            let asked = services.iter().filter_map(|service| self.services.get(service));
            asked
                .filter(is_asked)
                .try_for_each(|service| service.may_ask_reload(behind))
                .map(|()| services)
        };
        match self.named(scope).and_then(all_may) {
            Err(refusal) => self.respond(id, Response::Refused(refusal)),
            Ok(services) => {
                self.reading.insert(id);
                let services = match scope {
                    Scope::All => None,
                    Scope::Named(_) => Some(services),
                };
                let free = MemberId(self.last_member + 1);
                self.actions.push_back(Action::ReadConfiguration { request: id, services, free });
            }
        }
    }

    /// The configuration could not be read, or not be bound: nothing has happened.
    pub(super) fn handle_configuration_failed(&mut self, id: RequestId, fault: Fault) {
        if self.reading.remove(&id) {
            let reason = fault.reason().to_owned();
            self.notice(Notice::Configuration(ConfigurationNotice::Refused { reason }));
            self.respond(
                id,
                Response::Refused(match fault {
                    Fault::Definition(reason) => Refusal::Configuration(reason),
                    Fault::Sockets(reason) => Refusal::Sockets { service: None, reason },
                }),
            );
        }
    }

    /// The configuration was read, and all sockets that it names are open.
    pub(super) fn handle_configuration(&mut self, id: RequestId, configuration: Configuration) {
        let Configuration { services, removed } = configuration;
        let members = services.iter().flat_map(Policy::members);
        self.last_member = members.map(|member| member.0).fold(self.last_member, u32::max);
        let was_asked = self.reading.remove(&id);
        if !was_asked || self.phase != Phase::Running {
            for member in services.iter().flat_map(Policy::members) {
                if !self.services.values().any(|service| service.has_member(member)) {
                    self.actions.push_back(Action::Close(member));
                }
            }
            for policy in services.iter().filter(|it| !self.services.contains_key(&it.service)) {
                self.actions.push_back(Action::Remove(policy.service));
            }
            if was_asked {
                self.respond(id, Response::Refused(Refusal::Stopping));
            }
            return;
        }
        if services.is_empty() {
            self.respond(id, Response::Done(Vec::new()));
        } else {
            let pending = Pending { services_left: services.len(), ended: BTreeMap::new() };
            self.pending.insert(id, pending);
        }
        for service in removed {
            self.with_service(service, |service, _| service.leave());
        }
        for policy in services {
            let service = policy.service;
            if self.services.contains_key(&service) {
                self.with_service(service, |service, context| {
                    service.take_news(policy, id, context);
                });
            } else {
                let service = policy.name.clone();
                self.notice(Notice::Configuration(ConfigurationNotice::Added { service }));
                self.services.insert(policy.service, Service::added(policy, id));
            }
        }
    }

    /// Asks those to stop that are in no configuration any more, once nobody needs them. Returns
    /// whether there was one.
    pub(super) fn dismiss_next(&mut self, now: Time) -> bool {
        let next = dependencies::next_to_leave(&self.services);
        for &id in &next {
            self.with_service(id, |service, context| service.dismiss(now, context));
        }
        !next.is_empty()
    }

    /// Forgets those of which nothing is left.
    pub(super) fn forget_dismissed(&mut self) {
        let gone = self.services.iter().filter(|(_, service)| service.is_leaving());
        let gone: Vec<ServiceId> =
            gone.filter(|(_, service)| service.is_gone()).map(|(&id, _)| id).collect();
        for id in gone {
            if let Some(service) = self.services.remove(&id) {
                let service = service.name().to_owned();
                self.notice(Notice::Configuration(ConfigurationNotice::Removed { service }));
                self.actions.push_back(Action::Remove(id));
            }
        }
    }

    /// Lets those start that wait for nobody any more, and reloads go on whose definitions need
    /// services that have come up. Returns whether anything changed by that.
    pub(super) fn release(&mut self, now: Time) -> bool {
        if self.phase != Phase::Running {
            return false;
        }
        let mut released = false;
        let waiting = self.services.iter().filter(|(_, service)| service.is_waiting());
        for id in waiting.map(|(&id, _)| id).collect::<Vec<_>>() {
            let missing = self.missing(id);
            released |= missing.names.is_empty();
            self.with_service(id, |service, context| {
                service.wait_for(missing.names, context);
                if let Some(why) = missing.hopeless {
                    service.give_up_start(why, context);
                }
            });
        }
        let rolling = self.services.iter().filter(|(_, service)| service.is_rolling());
        for id in rolling.map(|(&id, _)| id).collect::<Vec<_>>() {
            let missing = self.missing(id);
            self.with_service(id, |service, context| {
                released |=
                    service.hold_reload(now, !missing.names.is_empty(), missing.hopeless, context);
            });
        }
        released
    }

    /// For whom a service has to wait.
    fn missing(&self, id: ServiceId) -> Missing {
        let missing = dependencies::missing(&self.services, id);
        let needs = missing.iter().filter_map(|id| self.services.get(id));
        let names = needs.map(|service| service.name().to_owned()).collect();
        let hopeless = self.waits_for_ever(id, &[]);
        Missing { names, hopeless }
    }

    /// Why a service that begins anew together with these may wait for ever.
    pub(super) fn waits_for_ever(&self, id: ServiceId, with: &[ServiceId]) -> Option<String> {
        let missing = dependencies::missing(&self.services, id);
        let mut others = missing.iter().filter(|need| !with.contains(need));
        others.find_map(|&need| self.hopeless(need, self.services.len()))
    }

    /// Why whoever needs this service may wait for ever. Services that need each other are followed
    /// `links` far.
    fn hopeless(&self, id: ServiceId, links: usize) -> Option<String> {
        let service = self.services.get(&id)?;
        let why = if !service.is_to_serve() {
            "is stopped"
        } else if service.has_stumbled() {
            "does not get ready"
        } else {
            let links = links.checked_sub(1)?;
            let missing = dependencies::missing(&self.services, id);
            let waits = service.is_waiting();
            let for_ever = waits && missing.iter().any(|&it| self.hopeless(it, links).is_some());
            for_ever.then_some("waits for others")?
        };
        Some(format!("`{}`, which it needs, {why}", service.name()))
    }
}

/// For whom a service has to wait.
struct Missing {
    /// Their names.
    names: Vec<String>,
    /// Why that may be for ever.
    hopeless: Option<String>,
}
