//! Services that are bound to others: who goes along with a request, and whose turn it is to stop.

use crate::core::dependencies::{self, Concerned};
use crate::core::event::Fault;
use crate::core::ids::{GenerationId, RequestId, ServiceId};
use crate::core::refusal::Refusal;
use crate::core::service::Service;
use crate::core::time::Time;

use super::{Phase, Supervisor};

/// A restart that cannot be.
pub(super) struct Failed {
    request: RequestId,
    /// The name of the service whose definition cannot be read.
    service: String,
    why: Refusal,
}

impl Supervisor {
    /// These services, and those that stop with them.
    pub(super) fn to_stop(&self, meant: &[ServiceId]) -> Vec<Concerned> {
        dependencies::bound_ones(&self.services, meant)
    }

    /// These services, and those that start with them; none may stay without one that it is bound to.
    pub(super) fn to_start(&self, meant: &[ServiceId]) -> Result<Vec<Concerned>, Refusal> {
        let concerned = dependencies::stopped_ones(&self.services, meant);
        for service in meant.iter().filter_map(|id| self.services.get(id)) {
            let other = dependencies::stopped_other(&self.services, service, &concerned);
            if let Some(other) = other {
                let service = service.name().to_owned();
                return Err(Refusal::BoundToStopped { service, other });
            }
        }
        Ok(concerned)
    }

    /// These services, and those that stop and start with them. Those that are stopped are started.
    pub(super) fn to_restart(&self, meant: Vec<ServiceId>) -> Result<Vec<Concerned>, Refusal> {
        let serves = |id: &ServiceId| self.services.get(id).is_some_and(Service::is_to_serve);
        let (serving, stopped): (Vec<_>, Vec<_>) = meant.into_iter().partition(serves);
        let mut concerned = self.to_stop(&serving);
        concerned.extend(self.to_start(&stopped)?);
        Ok(concerned)
    }

    /// The restart for which this definition is being read.
    pub(super) fn restart_of(
        &self,
        service: ServiceId,
        generation: GenerationId,
        fault: &Fault,
    ) -> Option<Failed> {
        let service = self.services.get(&service)?;
        let reread = service.rereads().filter(|it| it.generation == generation)?;
        let why = service.refusal(fault.clone());
        Some(Failed { request: reread.request, service: service.name().to_owned(), why })
    }

    /// What was to be restarted for the same request serves on.
    pub(super) fn give_up_restarts(&mut self, failed: Option<Failed>) {
        let Some(Failed { request, service: other, why }) = failed else { return };
        self.with_services(|service, context| {
            if service.rereads().is_some_and(|reread| reread.request == request) {
                service.give_up_restart(&other, &why, context);
            }
        });
    }

    /// Brings those closer to their stop that are to. Returns whether there was one.
    pub(super) fn bring_down(&mut self, now: Time) -> bool {
        let mut changed = false;
        if self.phase == Phase::Running {
            // Each turn stops one.
            while let Some((id, other)) = dependencies::next_to_follow(&self.services) {
                self.with_service(id, |it, context| it.stop_with(now, None, &other, context));
                changed = true;
            }
            for id in dependencies::next_to_restart(&self.services) {
                self.with_service(id, |service, _| service.begin_restart());
            }
        }
        // Each turn asks one at least, and none twice.
        loop {
            let next = dependencies::next_in_turn(&self.services);
            if next.is_empty() {
                break;
            }
            for id in next {
                self.with_service(id, |service, context| service.take_turn(now, context));
                changed = true;
            }
        }
        let left = self.services.iter().filter(|(_, service)| service.awaits_turn());
        for id in left.map(|(&id, _)| id).collect::<Vec<_>>() {
            let before = dependencies::those_before(&self.services, id);
            let names = before.map(|other| other.name().to_owned()).collect();
            self.with_service(id, |service, context| service.tell_turn(names, context));
        }
        changed
    }
}

#[cfg(test)]
mod tests;
