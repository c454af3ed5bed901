//! Whether the right one was chosen: promises D6 and D7.

use std::collections::{BTreeMap, BTreeSet};

use shepherd::core::dispatch::{Client, Closes, WINDOW};
use shepherd::core::ids::{ListenerId, SlotId, WorkerId};
use shepherd::core::policy::Algorithm;

use super::book::{Book, Held, Worker, ensure};

/// What was chosen so far.
#[derive(Clone, Default)]
pub(super) struct Choices {
    /// How many were given.
    pub(super) turns: u64,
    /// Of each client: which slots were there, and which of them it was given to.
    homes: BTreeMap<Client, BTreeMap<BTreeSet<SlotId>, SlotId>>,
}

impl Choices {
    /// A connection is given to this worker, who may have it.
    pub(super) fn check(&mut self, book: &Book, held: Held, to: WorkerId) -> Result<(), String> {
        self.turns += 1;
        if !book.is_certain() {
            return Ok(());
        }
        match book.algorithm {
            Algorithm::Sticky if held.client != Client::Unknown => self.check_home(book, held, to),
            Algorithm::RoundRobin | Algorithm::LeastConnections | Algorithm::Sticky => {
                check_least(book, held.listener, to)
            }
        }
    }

    fn check_home(&mut self, book: &Book, held: Held, to: WorkerId) -> Result<(), String> {
        let slots = slots(book, held.listener);
        let newest = |slot| book.eligible(held.listener).filter(|(_, it)| it.slot == slot).last();
        let slot = book.workers.get(&to).map(|worker| worker.slot);
        let slot = slot.filter(|slot| slots.contains(slot));
        let slot = slot.ok_or_else(|| format!("D7: the slot of {to} is not there"))?;
        ensure(newest(slot).map(|(id, _)| id) == Some(to), || format!("D7: {to} is not the last"))?;
        let homes = self.homes.entry(held.client).or_default();
        for (others, &other) in &*homes {
            let same = others == &slots;
            let fewer = others.is_subset(&slots) && others.contains(&slot);
            let more = slots.is_subset(others) && slots.contains(&other);
            ensure(slot == other || !(same || fewer || more), || {
                format!("D7: {:?} is in {slot} of {slots:?}, in {other} of {others:?}", held.client)
            })?;
        }
        homes.insert(slots, slot);
        Ok(())
    }

    /// Who is free for one that waits, if that is known.
    pub(super) fn who_may(&self, book: &Book, held: Held) -> Option<WorkerId> {
        let listener = held.listener;
        match book.algorithm {
            Algorithm::Sticky if held.client != Client::Unknown => {
                let slots = slots(book, listener);
                let known = self.homes.get(&held.client).and_then(|homes| homes.get(&slots));
                // Where everybody is free it does not matter which is the right one.
                let all_free = book.eligible(listener).all(|(_, worker)| worker.room() > 0);
                let eligible = book.eligible(listener);
                let right = eligible.filter(|(_, it)| all_free || Some(&it.slot) == known);
                right.last().filter(|(_, worker)| worker.room() > 0).map(|(id, _)| id)
            }
            Algorithm::RoundRobin | Algorithm::LeastConnections | Algorithm::Sticky => {
                book.free(listener).map(|(id, _)| id).next()
            }
        }
    }
}

/// Where everybody answers after the same time, nobody is behind the others by more than a window and
/// the one that is being given.
pub(super) fn check_even(book: &Book) -> Result<(), String> {
    let counted = book.workers.values().any(|worker| worker.closes == Closes::Counted);
    match book.algorithm {
        Algorithm::RoundRobin => {}
        Algorithm::LeastConnections if !counted => {}
        Algorithm::LeastConnections | Algorithm::Sticky => return Ok(()),
    }
    let had = book.workers.values().map(|worker| worker.accepted + worker.owes.len() as u64);
    let (least, most) = (had.clone().min().unwrap_or(0), had.max().unwrap_or(0));
    ensure(most - least <= WINDOW as u64 + 1, || format!("D6: {least} and {most}"))
}

fn check_least(book: &Book, listener: ListenerId, to: WorkerId) -> Result<(), String> {
    let by_open = book.algorithm == Algorithm::LeastConnections;
    if by_open && book.servers(listener).any(|(_, worker)| worker.closes == Closes::Counted) {
        // What was counted is as old as the count.
        return Ok(());
    }
    let load = |worker: &Worker| worker.owes.len() as u64 + if by_open { worker.open } else { 0 };
    let rank = |(id, worker): (WorkerId, &Worker)| (load(worker), worker.turn, id);
    let least = book.free(listener).map(rank).min();
    ensure(least.is_some_and(|(.., id)| id == to), || format!("D6: {to} instead of {least:?}"))
}

fn slots(book: &Book, listener: ListenerId) -> BTreeSet<SlotId> {
    book.eligible(listener).map(|(_, worker)| worker.slot).collect()
}
