//! What can be read of workers and sockets, in what is shown: memory, open connections, queues. It is
//! read by the thread that shows it, not by the loop, and only when somebody asks, once in a while.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::wire::{Member, Service, Status, Worker};
use crate::core::time::Time;
use crate::os::memory::{self, Account};
use crate::os::socket_table::{Place, Queue};
use crate::os::traffic;

/// How long what was read is shown again: whoever asks many times a second costs no more.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// Where workers and sockets are found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// The processes of the workers, by the workers' numbers.
    pub workers: BTreeMap<u64, Account>,
    /// The kernel's sockets, by the members' numbers.
    pub members: BTreeMap<u32, Place>,
}

/// What was read last.
#[derive(Debug, Default)]
pub(super) struct Readings(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    at: Option<Time>,
    /// By the workers' numbers.
    sizes: BTreeMap<u64, Option<u64>>,
    connections: BTreeMap<u64, Option<u32>>,
    /// By the members' numbers.
    queues: BTreeMap<u32, Option<Queue>>,
}

impl Readings {
    /// Fills in what can be read of workers and sockets; those that are not to be found stay as they
    /// are.
    pub(super) fn fill(&self, now: Time, status: &mut Status, whereabouts: &Whereabouts) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.at.is_none_or(|at| now.since(at) >= FRESH_FOR) {
            *known = Known { at: Some(now), ..Known::default() };
        }
        let Known { sizes, connections, queues, .. } = &mut *known;
        let Whereabouts { workers, members } = whereabouts;
        // Workers and sockets that have come since are read besides.
        read(sizes, workers.iter(), memory::read);
        read(queues, members.iter(), |unread| traffic::queues(&unread));
        let places: Vec<&Place> = members.values().collect();
        let accepting = status.services.iter().filter(|service| accepts(service, members));
        let accepting = accepting.flat_map(|service| &service.workers);
        let accepting = accepting.filter_map(|worker| workers.get_key_value(&worker.id));
        read(connections, accepting, |unread| traffic::connections(&places, &unread));
        for service in &mut status.services {
            for Worker { id, memory, connections: open, .. } in &mut service.workers {
                *memory = sizes.get(id).copied().flatten();
                *open = connections.get(id).copied().flatten();
            }
            for shown in service.sockets.iter_mut().flat_map(|socket| &mut socket.members) {
                let queue = queues.get(&shown.member).copied().flatten();
                let accepts = members.get(&shown.member).is_some_and(Place::accepts);
                fill_queue(shown, queue, accepts);
            }
        }
    }
}

/// Reads what is not known yet.
fn read<'a, Key: Ord + Copy + 'a, Thing: 'a, Value>(
    known: &mut BTreeMap<Key, Value>,
    things: impl Iterator<Item = (&'a Key, &'a Thing)>,
    read: impl FnOnce(Vec<&'a Thing>) -> Vec<Value>,
) {
    let (keys, unread): (Vec<Key>, Vec<&Thing>) =
        things.filter(|(key, _)| !known.contains_key(key)).unzip();
    if !unread.is_empty() {
        known.extend(keys.into_iter().zip(read(unread)));
    }
}

/// Whether the workers of a service have connections.
fn accepts(service: &Service, members: &BTreeMap<u32, Place>) -> bool {
    let mut own = service.sockets.iter().flat_map(|socket| &socket.members);
    own.any(|own| members.get(&own.member).is_some_and(Place::accepts))
}

fn fill_queue(shown: &mut Member, queue: Option<Queue>, accepts: bool) {
    let (waiting, most) = queue.map_or((None, None), |queue| (Some(queue.waiting), queue.most));
    if accepts {
        (shown.queued, shown.queue_max) = (waiting, most);
    } else {
        (shown.queued_bytes, shown.queue_max_bytes) = (waiting, most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::wire::{Daemon, Service, ServiceState, WorkerState};

    #[test]
    fn what_was_read_is_shown_for_a_second_and_who_has_come_since_is_read_besides() {
        let readings = Readings::default();
        let now = Time::after_origin(Duration::from_secs(7));
        let ours = Account::of(Some(i32::try_from(std::process::id()).expect("a pid")));
        let none = Account::of(None);
        let fill = |now, accounts: [(u64, &Account); 2]| {
            let mut status = status();
            let workers = accounts.map(|(id, account)| (id, account.clone()));
            let whereabouts =
                Whereabouts { workers: BTreeMap::from(workers), ..Whereabouts::default() };
            readings.fill(now, &mut status, &whereabouts);
            [0, 1].map(|index: usize| status.services[0].workers[index].memory)
        };
        // The second has not come yet.
        let [first, second] = fill(now, [(1, &ours), (9, &none)]);
        assert!(first.is_some() && second.is_none());
        let soon = now + Duration::from_millis(900);
        let [shown, besides] = fill(soon, [(1, &none), (2, &ours)]);
        assert_eq!(shown, first);
        assert!(besides.is_some());
        assert_eq!(fill(now + FRESH_FOR, [(1, &none), (2, &none)]), [None, None]);
    }

    fn status() -> Status {
        let worker = |id| Worker {
            id,
            slot: 0,
            generation: 1,
            pid: None,
            state: WorkerState::Ready,
            since: 0.0,
            left: None,
            next_in: None,
            stalled: false,
            memory: None,
            connections: None,
            messages: None,
            unanswered: None,
            taken: None,
            said: None,
        };
        let service = Service {
            name: "web".to_owned(),
            state: ServiceState::Up,
            wanted: 2,
            ready: 2,
            generation: 1,
            balance: None,
            dispatched: None,
            reloading: None,
            canary: None,
            probation: None,
            changed_over: None,
            queued: false,
            last_abort: None,
            waits_for: Vec::new(),
            restarts: 0,
            sockets: Vec::new(),
            workers: vec![worker(1), worker(2)],
            backing_off: Vec::new(),
        };
        let daemon = Daemon {
            name: "web".to_owned(),
            version: "0.1.0".to_owned(),
            pid: 1,
            up: 1.0,
            stopping: false,
            drains_in: None,
            longest_turn: 0.0,
            file: None,
        };
        Status { daemon, services: vec![service] }
    }
}
