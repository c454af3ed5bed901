//! Which service waits for which: one starts once all that it needs have been ready together, and is
//! asked to stop once all that need it and are to stop too have gone. And which service goes along with
//! which: one that is bound to another stops, starts and restarts when an operator does that to the
//! other. It decides about nothing else: a reload, a crash or a repair of the other is nothing to it.
//!
//! A configuration has no circles. What serves can have one all the same, when one service took over
//! a changed configuration and another did not; services in a circle stop together.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::ids::{RequestId, ServiceId};
use super::service::Service;

/// All services, by their numbers.
type Services = BTreeMap<ServiceId, Service>;

/// Those that a service waits for, before its first worker or the first of a reload starts.
pub(super) fn missing(services: &Services, id: ServiceId) -> Vec<ServiceId> {
    let Some(service) = services.get(&id) else {
        return Vec::new();
    };
    let is_missing =
        |need: &ServiceId| services.get(need).is_some_and(|it| !it.lets_others_start());
    service.needs_next().filter(is_missing).collect()
}

/// Those that are in no configuration any more, and that nobody needs who stays or has workers. Those
/// that need each other, and that nobody else needs, go together.
pub(super) fn next_to_leave(services: &Services) -> Vec<ServiceId> {
    let left = services.iter().filter(|(_, it)| it.is_leaving() && !it.is_stopping());
    let left: BTreeSet<ServiceId> = left.map(|(&id, _)| id).collect();
    let in_circle = |id: ServiceId, user: &ServiceId| {
        left.contains(user) && users(services, *user).contains(&id)
    };
    let is_next = |id: &ServiceId| users(services, *id).iter().all(|user| in_circle(*id, user));
    left.iter().copied().filter(is_next).collect()
}

/// Those that need a service, at one remove or more, and are not gone.
fn users(services: &Services, id: ServiceId) -> BTreeSet<ServiceId> {
    let mut users = BTreeSet::new();
    let mut next = vec![id];
    while let Some(needed) = next.pop() {
        let others = services.iter().filter(|&(&other, service)| {
            other != needed && !service.has_left() && service.needs().contains(&needed)
        });
        next.extend(others.map(|(&other, _)| other).filter(|&other| users.insert(other)));
    }
    users
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

/// A service that a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Concerned {
    /// Which one.
    pub service: ServiceId,
    /// The name of the one that it is bound to, where it is not meant itself and goes along with that.
    pub with: Option<String>,
}

/// These, and those of the others that serve and are bound to one of them, at one remove or more.
pub(super) fn bound_ones(services: &Services, meant: &[ServiceId]) -> Vec<Concerned> {
    let is_left = |service: &Service| service.is_to_serve() && !service.is_stopping();
    go_along(services, meant, |service, with| {
        is_left(service) && !service.bound_to().is_disjoint(with)
    })
}

/// These, and those that were stopped with one of them, at one remove or more, and whose others all
/// serve or start.
pub(super) fn stopped_ones(services: &Services, meant: &[ServiceId]) -> Vec<Concerned> {
    let serves =
        |id: &ServiceId| services.get(id).is_none_or(|it| it.is_to_serve() && !it.is_stopping());
    let is_bound = |service: &Service, to: &BTreeSet<_>| !service.bound_to().is_disjoint(to);
    // Those between may serve already.
    let bound: BTreeSet<ServiceId> =
        go_along(services, meant, is_bound).iter().map(|concerned| concerned.service).collect();
    go_along(services, meant, |service, with| {
        service.starts_with_others()
            && !service.is_stopping()
            && is_bound(service, &bound)
            && service.bound_to().iter().all(|other| with.contains(other) || serves(other))
    })
}

fn go_along(
    services: &Services,
    meant: &[ServiceId],
    goes: impl Fn(&Service, &BTreeSet<ServiceId>) -> bool,
) -> Vec<Concerned> {
    let mut all: BTreeSet<ServiceId> = meant.iter().copied().collect();
    let named = |&service| Concerned { service, with: None };
    let mut concerned: Vec<Concerned> = meant.iter().map(named).collect();
    // Each turn finds one.
    while let Some((&id, service)) =
        services.iter().find(|(id, service)| !all.contains(id) && goes(service, &all))
    {
        let mut others = service.bound_to().iter();
        let first = service.bound_to().first();
        let other = others.find(|other| all.contains(other)).or(first);
        let other = other.and_then(|other| services.get(other));
        let with = other.map(|other| other.name().to_owned());
        concerned.push(Concerned { service: id, with });
        all.insert(id);
    }
    concerned
}

/// The name of one that a service is bound to and that is stopped, or is to be.
pub(super) fn stopped_other(
    services: &Services,
    service: &Service,
    starts: &[Concerned],
) -> Option<String> {
    let others = service
        .bound_to()
        .iter()
        .filter(|&other| starts.iter().all(|concerned| concerned.service != *other));
    let mut others = others.filter_map(|other| services.get(other));
    others.find(|other| !other.is_to_serve()).map(|other| other.name().to_owned())
}

/// One that serves, or is to, although one that it is bound to does not, by whose name: that could
/// not be started, or it is bound to it by a configuration that was read since.
pub(super) fn next_to_follow(services: &Services) -> Option<(ServiceId, String)> {
    let left = services.iter().filter(|(_, it)| it.is_to_serve() && !it.is_stopping());
    let mut followers = left.filter_map(|(&id, it)| Some((id, stopped_other(services, it, &[])?)));
    followers.next()
}

/// Those that are to stop for a restart, all of which are read that were asked for with them.
pub(super) fn next_to_restart(services: &Services) -> Vec<ServiceId> {
    let all = || services.iter().filter_map(|(&id, service)| Some((id, service.rereads()?)));
    let unread: BTreeSet<RequestId> =
        all().filter(|(_, it)| !it.is_over).map(|(_, it)| it.request).collect();
    all().filter(|(_, it)| !unread.contains(&it.request)).map(|(id, _)| id).collect()
}

/// Those whose workers are to be asked next of what is to stop. Called again until there is none,
/// since one without workers has gone as soon as it is asked.
pub(super) fn next_in_turn(services: &Services) -> Vec<ServiceId> {
    let left = || services.iter().filter(|(_, service)| service.awaits_turn()).map(|(&id, _)| id);
    let free: Vec<ServiceId> =
        left().filter(|&id| those_before(services, id).next().is_none()).collect();
    let all_asked_have_gone =
        services.values().filter(|service| !service.awaits_turn()).all(|it| !it.goes_down());
    if free.is_empty() && all_asked_have_gone {
        // They need each other.
        return left().collect();
    }
    free
}

/// Those that go before a service that is to stop: they are to, too, and need it.
pub(super) fn those_before(services: &Services, id: ServiceId) -> impl Iterator<Item = &Service> {
    let others = services.iter().filter(move |(other, _)| **other != id);
    others.map(|(_, other)| other).filter(move |it| it.goes_down() && it.needs().contains(&id))
}
