//! Balance `dispatch` in virtual time: listeners with backlogs, and workers that accept, refuse, lose
//! descriptors, hang, die and come back, in worlds that a seed decides and in all small ones.
//! `DISPATCH_SEED=n` plays exactly one again, and `DISPATCH_SEEDS=n` plays more of them.
//!
//! After every turn:
//!
//! - D1 a connection is in one place: it waits, one worker has it, or it is closed, for a reason.
//! - D2 none is given to a second worker while the first lives and owes an answer for it.
//! - D3 a worker is given only what it serves, while it is there, takes it, does not rest and is not
//!   stalled while another is not; and never more than its window.
//! - D4 nothing is accepted without room for it, and what waits is bounded.
//! - D5 what waits, inside or in a backlog, is given as soon as somebody has room; by turns of the
//!   listeners.
//! - D6 the one that has least gets the next; of equals the one whose turn is longest ago.
//! - D7 with `sticky` a client's slot depends on the slots that are there alone, and a slot that goes or
//!   comes moves only its own clients.
//! - D8 a listener wakes nobody in vain: each time something is accepted, or it is polled no more.
//! - D9 no deadline is in the past, and there is none when there is nothing to wait for.
//! - D10 when faults stop, every client is answered.

mod book;

mod promises;

mod choices;

mod world;

mod shell;

mod chances;

mod small;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::journal::Journal;
use crate::number;
use crate::script::Script;

/// What some world has to show, lest the worlds become harmless.
const SIGHTS: [&str; 20] = [
    "round robin",
    "least connections",
    "sticky",
    "given to another after a death",
    "given to another after a refusal",
    "accepted by a dead worker",
    "refused by all",
    "out of descriptors in a worker",
    "out of descriptors",
    "stalled",
    "answers again",
    "given to a stalled one, as all are",
    "a client waits for its busy slot",
    "two workers in a slot",
    "the client went while it waited",
    "the client went while a worker had it",
    "nobody serves what is closed",
    "a listener cannot be accepted from",
    "connections are counted",
    "everybody answers at once",
];

/// How many worlds are played when nobody asks for a number.
const SEEDS: u64 = 3000;

#[test]
fn every_connection_finds_a_worker_in_every_world() {
    if let Some(seed) = number("DISPATCH_SEED") {
        check_seed(seed);
        return;
    }
    let seeds = number("DISPATCH_SEEDS").unwrap_or(SEEDS);
    let seen: BTreeSet<&str> = (0..seeds).flat_map(check_seed).collect();
    let missed: Vec<_> = SIGHTS.iter().filter(|sight| !seen.contains(*sight)).collect();
    assert!(seeds < SEEDS || missed.is_empty(), "no world showed {missed:?}");
}

fn check_seed(seed: u64) -> BTreeSet<&'static str> {
    play(seed, Journal::silent()).unwrap_or_else(|(_, violation)| {
        let (story, again) = match play(seed, Journal::kept()) {
            Ok(_) => (String::new(), None),
            Err((story, again)) => (story, Some(again)),
        };
        panic!("DISPATCH_SEED={seed}\n{story}\n{violation}\nplayed again: {again:?}");
    })
}

fn play(seed: u64, journal: Journal) -> Result<BTreeSet<&'static str>, (String, String)> {
    let mut world = world::World::new(Script::from_seed(seed), journal);
    let played = catch_unwind(AssertUnwindSafe(|| world.play()));
    match played {
        Ok(Ok(())) => Ok(world.book.sights),
        Ok(Err(violation)) => Err((world.journal.text(), violation)),
        Err(_) => Err((world.journal.text(), "the core panics".to_owned())),
    }
}
