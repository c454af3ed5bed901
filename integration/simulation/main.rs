//! The core in virtual time: worlds with fake workers, each decided by one string of bytes, with
//! every invariant checked after every turn. A failure prints its seed;
//! `SIMULATION_SEED=n cargo test --test simulation` plays exactly that one again, and
//! `SIMULATION_SEEDS=n` plays more of them.

#![expect(clippy::panic, reason = "a test fails by it")]
#![expect(clippy::disallowed_methods, reason = "the seed comes in a variable")]

mod script;

mod fate;

mod fake_sockets;

mod fake_groups;

mod fake_network;

mod world;

mod journal;

mod ledger;

mod member_book;

mod slot_book;

mod steering_book;

mod batch_book;

mod publication_book;

mod proving_book;

mod proving_worlds;

mod invariants;

mod requests;

mod life_book;

mod bound_book;

mod actions;

mod configurations;

mod small_worlds;

mod network_worlds;

mod table;

mod dispatch;

use std::panic::{AssertUnwindSafe, catch_unwind};

use invariants::SIGHTS;
use journal::Journal;
use script::Script;
use world::Sights;

/// Which sockets of a world have groups.
#[derive(Debug, Clone, Copy)]
enum Groups {
    None,
    ByChance,
}

/// How many worlds are played when nobody asks for a number.
const SEEDS: u64 = 3000;

#[test]
fn every_world_keeps_every_promise() {
    if let Some(seed) = number("SIMULATION_SEED") {
        check_seed(seed, Groups::None);
        check_seed(seed, Groups::ByChance);
        return;
    }
    let seeds = number("SIMULATION_SEEDS").unwrap_or(SEEDS);
    let seen: Sights = (0..seeds).flat_map(|seed| check_seed(seed, Groups::ByChance)).collect();
    let missed: Vec<_> = SIGHTS.iter().filter(|sight| !seen.contains(*sight)).collect();
    assert!(seeds < SEEDS || missed.is_empty(), "no world showed {missed:?}");
}

#[test]
fn seeds_that_once_found_something_stay_quiet() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/simulation/seeds");
    for file in std::fs::read_dir(folder).expect("the folder of seeds is there") {
        let path = file.expect("it can be listed").path();
        let text = std::fs::read_to_string(&path).expect("it can be read");
        let seed = text.lines().next().and_then(|line| line.trim().parse().ok());
        let seed = seed.unwrap_or_else(|| panic!("{path:?} does not begin with a seed"));
        // Most of them are older than the network.
        check_seed(seed, Groups::None);
        check_seed(seed, Groups::ByChance);
    }
}

/// Plays a seed; when something is wrong, plays it again to tell the story.
fn check_seed(seed: u64, groups: Groups) -> Sights {
    play(seed, groups, &mut Journal::silent()).unwrap_or_else(|violation| {
        let mut journal = Journal::kept();
        let again = play(seed, groups, &mut journal).err();
        let story = journal.text();
        panic!("SIMULATION_SEED={seed}, groups: {groups:?}\n{story}\n{violation}\nplayed again: {again:?}");
    })
}

fn play(seed: u64, groups: Groups, journal: &mut Journal) -> Result<Sights, String> {
    let script = Script::from_seed(seed);
    let (net, pace) = match groups {
        Groups::None => (Script::empty(), Script::empty()),
        Groups::ByChance => (Script::of_network(seed), Script::of_pace(seed)),
    };
    let played = catch_unwind(AssertUnwindSafe(|| world::play(script, net, pace, journal)));
    played.unwrap_or_else(|_| Err("the core panics".to_owned()))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}
