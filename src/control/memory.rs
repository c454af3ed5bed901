//! The memory of workers in what is shown. It is read by the thread that shows it, not by the loop,
//! and only when somebody asks, once in a while.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::wire::{Status, Worker};
use crate::core::time::Time;
use crate::os::memory::{self, Account};

/// How long what was read is shown again: whoever asks many times a second costs no more.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// What was read last, by the workers' numbers.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    at: Option<Time>,
    sizes: BTreeMap<u64, Option<u64>>,
}

impl Memory {
    /// Fills in what the workers have, by their accounts; those without one stay as they are.
    pub(super) fn fill(&self, now: Time, status: &mut Status, accounts: &BTreeMap<u64, Account>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.at.is_none_or(|at| now.since(at) >= FRESH_FOR) {
            *known = Known { at: Some(now), sizes: BTreeMap::new() };
        }
        // Workers that have come since are read besides.
        let sizes = &mut known.sizes;
        let unread = accounts.iter().filter(|(id, _)| !sizes.contains_key(id));
        let (ids, unread): (Vec<u64>, Vec<&Account>) = unread.unzip();
        sizes.extend(ids.into_iter().zip(memory::read(unread)));
        let workers = status.services.iter_mut().flat_map(|service| &mut service.workers);
        for Worker { id, memory, .. } in workers {
            *memory = sizes.get(id).copied().flatten();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::wire::{Daemon, Service, ServiceState, WorkerState};

    #[test]
    fn what_was_read_is_shown_for_a_second_and_who_has_come_since_is_read_besides() {
        let memory = Memory::default();
        let now = Time::after_origin(Duration::from_secs(7));
        let ours = Account::of(Some(i32::try_from(std::process::id()).expect("a pid")));
        let none = Account::of(None);
        let fill = |now, accounts: [(u64, &Account); 2]| {
            let mut status = status();
            let accounts = accounts.map(|(id, account)| (id, account.clone()));
            memory.fill(now, &mut status, &BTreeMap::from(accounts));
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
            memory: None,
            said: None,
        };
        let service = Service {
            name: "web".to_owned(),
            state: ServiceState::Up,
            wanted: 2,
            ready: 2,
            generation: 1,
            balance: None,
            reloading: None,
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
