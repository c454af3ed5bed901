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
