//! Which service waits for which: one starts once all that it needs have been ready together, and is
//! asked to stop once all that need it have gone. It decides about nothing else.
//!
//! A configuration has no circles. What serves can have one all the same, when one service took over
//! a changed configuration and another did not; services in a circle stop together.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ids::ServiceId;
use super::service::Service;

/// All services, by their numbers.
type Services = BTreeMap<ServiceId, Service>;

/// Those that a service waits for, before its first worker or the first of a reload starts.
pub(super) fn missing(services: &Services, id: ServiceId) -> Vec<ServiceId> {
    let Some(service) = services.get(&id) else {
        return Vec::new();
    };
    let is_missing = |need: &ServiceId| services.get(need).is_some_and(|need| !need.is_committed());
    service.needs_next().filter(is_missing).collect()
}

/// Those that are in no configuration any more, and that nobody needs who stays or has workers.
pub(super) fn next_to_leave(services: &Services) -> Vec<ServiceId> {
    let left = services.iter().filter(|(_, it)| it.is_leaving() && !it.is_stopping());
    left.map(|(&id, _)| id).filter(|&id| is_free(services, id)).collect()
}

/// Whether nobody needs it any more.
fn is_free(services: &Services, id: ServiceId) -> bool {
    !services.iter().any(|(&other, service)| {
        other != id && !service.has_left() && service.needs().contains(&id)
    })
}

/// Those that are to be asked to stop next while everything stops. Called again until there is none,
/// since one without workers has gone as soon as it is asked.
pub(super) fn next_to_stop(services: &Services) -> Vec<ServiceId> {
    let left = || services.iter().filter(|(_, service)| !service.is_stopping());
    let free: Vec<ServiceId> =
        left().map(|(&id, _)| id).filter(|&id| is_free(services, id)).collect();
    let all_asked_have_gone =
        services.values().filter(|service| service.is_stopping()).all(Service::is_gone);
    if free.is_empty() && all_asked_have_gone {
        // They need each other.
        return left().map(|(&id, _)| id).collect();
    }
    free
}

/// How long a stop of everything may take, `slack` beyond each service's ladder: they stop one after
/// the other where one needs another.
pub(super) fn stop_takes(services: &Services, slack: Duration) -> Duration {
    let own = |service: &Service| service.stop_takes().saturating_add(slack);
    let mut takes: BTreeMap<ServiceId, Duration> =
        services.iter().map(|(&id, service)| (id, own(service))).collect();
    // The longest chain has as many links as there are services.
    for _ in services {
        let mut later = takes.clone();
        for (id, service) in services {
            let before = takes.get(id).copied().unwrap_or_default();
            for need in service.needs() {
                if let (Some(late), Some(need)) = (later.get_mut(&need), services.get(&need)) {
                    *late = (*late).max(before.saturating_add(own(need)));
                }
            }
        }
        if later == takes {
            break;
        }
        takes = later;
    }
    takes.into_values().max().unwrap_or_default()
}
