//! Requests come in, are given to the services that they are for, and are answered once all of
//! those have.

use std::collections::BTreeMap;

use crate::core::action::Action;
use crate::core::dependencies::Concerned;
use crate::core::ids::{RequestId, ServiceId, WorkerId};
use crate::core::policy::Signal;
use crate::core::refusal::{Operation, Refusal};
use crate::core::request::{Part, Request, Response, Scope, WAITING_MAX};
use crate::core::service::{Context, Service};
use crate::core::time::Time;

use super::{Phase, StopStage, Supervisor};

/// A request that has been given to services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) services_left: usize,
    /// How it ended, where it has.
    pub(super) ended: BTreeMap<ServiceId, Part>,
}

impl Supervisor {
    pub(super) fn handle_request(&mut self, now: Time, id: RequestId, request: Request) {
        let may_begin = self.phase == Phase::Running;
        match request {
            Request::Stop => self.ask_stop(now, id, Force::Drain),
            Request::Interrupt => self.ask_stop(now, id, Force::KillTheSecondTime),
            Request::StopNow => self.ask_stop(now, id, Force::Kill),
            // One that hangs can be ended during a stop too.
            Request::Signal { worker, signal } => self.send_signal(now, id, worker, signal),
            Request::Reload { .. }
            | Request::RollBack(_)
            | Request::Restart(_)
            | Request::StopServices(_)
            | Request::StartServices(_)
            | Request::Scale { .. }
                if !may_begin =>
            {
                self.respond(id, Response::Refused(Refusal::Stopping));
            }
            Request::Reload { scope, behind } => self.ask_reload(id, &scope, behind),
            Request::Scale { services, to } => {
                let services = self.named(&services).map(each_alone);
                let may = |_: &Service| Ok(());
                self.ask(id, services, may, |service, _, context| {
                    service.ask_scale(id, to, context);
                });
            }
            Request::RollBack(scope) => {
                let services = self.to_serve(&scope).map(each_alone);
                self.ask(id, services, Service::may_ask_roll_back, |service, _, context| {
                    service.ask_roll_back(now, id, context);
                });
            }
            Request::Restart(scope) => {
                let services = self.to_serve(&scope).and_then(|it| self.to_restart(it));
                let services = services.and_then(|it| self.could_start_again(it));
                self.ask(id, services, Service::may_ask_restart, |service, with, context| {
                    if let Some(other) = with {
                        service.go_along(Operation::Restart, other, context);
                    }
                    service.ask_restart(id, context);
                });
            }
            Request::StopServices(names) => {
                let services = self.named(&Scope::Named(names)).map(|it| self.to_stop(&it));
                let may = Service::may_ask_service_stop;
                self.ask(id, services, may, |service, with, context| match with {
                    Some(other) => service.stop_with(now, Some(id), other, context),
                    None => service.ask_service_stop(now, id, context),
                });
            }
            Request::StartServices(names) => {
                let services = self.named(&Scope::Named(names)).and_then(|it| self.to_start(&it));
                self.ask(id, services, Service::may_ask_start, |service, with, context| {
                    if let Some(other) = with {
                        service.go_along(Operation::Start, other, context);
                    }
                    service.ask_start(id, context);
                });
            }
        }
    }

    /// Answers the requests that have ended in every service that they were for.
    pub(super) fn conclude_requests(&mut self) {
        for outcome in std::mem::take(&mut self.outcomes) {
            let id = outcome.request;
            let Some(pending) = self.pending.get_mut(&id) else {
                continue;
            };
            pending.services_left = pending.services_left.saturating_sub(1);
            pending.ended.insert(outcome.service, outcome.part);
            if pending.services_left == 0
                && let Some(Pending { ended, .. }) = self.pending.remove(&id)
            {
                self.respond(id, Response::of(ended.into_values()));
            }
        }
    }

    /// Asks all of these services, or none if one of them may not be asked.
    fn ask(
        &mut self,
        id: RequestId,
        services: Result<Vec<Concerned>, Refusal>,
        may: impl Fn(&Service) -> Result<(), Refusal>,
        mut ask: impl FnMut(&mut Service, Option<&str>, &mut Context<'_>),
    ) {
        let all_may = |services: Vec<Concerned>| {
            let mut asked = services.iter().filter_map(|it| self.services.get(&it.service));
            asked.try_for_each(may).map(|()| services)
        };
        match services.and_then(all_may) {
            Err(refusal) => self.respond(id, Response::Refused(refusal)),
            Ok(services) if services.is_empty() => self.respond(id, Response::Done(Vec::new())),
            Ok(services) => {
                let pending = Pending { services_left: services.len(), ended: BTreeMap::new() };
                self.pending.insert(id, pending);
                for Concerned { service, with } in services {
                    self.with_service(service, |it, context| ask(it, with.as_deref(), context));
                }
            }
        }
    }

    /// The services that a request is for.
    pub(super) fn named(&self, scope: &Scope) -> Result<Vec<ServiceId>, Refusal> {
        let names = match scope {
            Scope::All => {
                let all = self.services.iter().filter(|(_, service)| !service.is_leaving());
                return Ok(all.map(|(&id, _)| id).collect());
            }
            Scope::Named(names) => names,
        };
        let mut services = Vec::new();
        for name in names {
            let all = || self.services.iter().filter(|(_, service)| !service.is_leaving());
            let found = all().find(|(_, service)| service.name() == name);
            let Some((&id, _)) = found else {
                let known = all().map(|(_, service)| service.name().to_owned());
                return Err(Refusal::no_such_service(name, known.collect()));
            };
            if !services.contains(&id) {
                services.push(id);
            }
        }
        Ok(services)
    }

    /// The same, but those that are stopped are no part of all services, unless all are.
    fn to_serve(&self, scope: &Scope) -> Result<Vec<ServiceId>, Refusal> {
        let named = self.named(scope)?;
        match scope {
            Scope::Named(_) => Ok(named),
            Scope::All => {
                let serves =
                    |id: &ServiceId| self.services.get(id).is_some_and(Service::is_to_serve);
                let (serving, stopped): (Vec<_>, Vec<_>) = named.into_iter().partition(serves);
                Ok(if serving.is_empty() { stopped } else { serving })
            }
        }
    }

    /// The same, unless one of those that serve would wait for ever once it was stopped.
    fn could_start_again(&self, services: Vec<Concerned>) -> Result<Vec<Concerned>, Refusal> {
        let ids: Vec<ServiceId> = services.iter().map(|it| it.service).collect();
        for (id, service) in ids.iter().filter_map(|id| Some((*id, self.services.get(id)?))) {
            if service.is_to_serve()
                && let Some(reason) = self.waits_for_ever(id, &ids)
            {
                let service = service.name().to_owned();
                return Err(Refusal::Failed { service, reason, worker: None });
            }
        }
        Ok(services)
    }

    fn send_signal(&mut self, now: Time, id: RequestId, worker: WorkerId, signal: Signal) {
        let mut response = Response::Refused(Refusal::NoSuchWorker { worker });
        let owner = self.services.iter().find(|(_, service)| service.owns(worker));
        if let Some((&service, _)) = owner {
            self.with_service(service, |service, context| {
                response = service.send_signal(now, worker, signal, context).into();
            });
        }
        self.respond(id, response);
    }

    /// Asks that everything be stopped, for the first time or once more.
    fn ask_stop(&mut self, now: Time, id: RequestId, force: Force) {
        match &mut self.phase {
            Phase::Running => {
                let interrupted = force != Force::Drain;
                let lame_until = now + self.lame_duck;
                let requests = vec![id];
                if force == Force::Kill {
                    let stage = StopStage::Draining;
                    self.phase = Phase::Stopping { requests, interrupted, stage };
                    return self.kill(now);
                }
                let stage = StopStage::LameDuck { until: lame_until };
                self.phase = Phase::Stopping { requests, interrupted, stage };
                if lame_until > now {
                    self.begin_lame_duck(now);
                } else {
                    self.drain(now);
                }
            }
            Phase::Stopping { requests, interrupted, stage } => {
                let again = match force {
                    Force::Kill => {
                        *stage = StopStage::Draining;
                        true
                    }
                    Force::KillTheSecondTime => std::mem::replace(interrupted, true),
                    Force::Drain => false,
                };
                let stage = *stage;
                if requests.len() < WAITING_MAX {
                    requests.push(id);
                } else {
                    let refusal = Refusal::TooMany { service: None, operation: Operation::Stop };
                    self.respond(id, Response::Refused(refusal));
                }
                match stage {
                    StopStage::LameDuck { .. } if again => self.drain(now),
                    StopStage::Draining if again => self.kill(now),
                    StopStage::LameDuck { .. } | StopStage::Draining => {}
                }
            }
            Phase::Finished => self.respond(id, Response::Refused(Refusal::Stopping)),
        }
    }

    pub(super) fn respond(&mut self, id: RequestId, response: Response) {
        self.actions.push_back(Action::Respond(id, response));
    }
}

/// Those that are meant, and nobody else.
fn each_alone(services: Vec<ServiceId>) -> Vec<Concerned> {
    services.into_iter().map(|service| Concerned { service, with: None }).collect()
}

/// How a stop of everything treats the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Force {
    /// They drain.
    Drain,
    /// They drain, and are killed when that is asked for once more.
    KillTheSecondTime,
    /// They are killed.
    Kill,
}
