//! Small worlds, all of them: two workers and one listener, and everything that can happen in every
//! order, up to a length; from an idle service and from one whose windows are full.

use shepherd::core::dispatch::{Client, Closes, Event, WINDOW};
use shepherd::core::ids::{ListenerId, SlotId, WorkerId};
use shepherd::core::policy::Algorithm;

use super::world::{Manners, World};
use crate::fate::ms;
use crate::journal::Journal;

/// What can happen.
#[derive(Debug, Clone, Copy)]
enum Letter {
    /// One client connects.
    Connects,
    /// Another does, often.
    Floods,
    /// A worker accepts what it was given first.
    Accepts(WorkerId),
    Refuses(WorkerId),
    Dies(WorkerId),
    Leaves(WorkerId),
    Blocks(WorkerId),
    Writable(WorkerId),
    /// A third joins, in the slot of the first.
    Joins,
    /// The client of what was accepted first goes.
    HangsUp,
    /// The listener is closed, or opened again.
    Toggles,
    /// As long as the first rest, or until one stalls.
    Waits(u64),
}

use Letter::{
    Accepts, Blocks, Connects, Dies, Floods, HangsUp, Joins, Leaves, Refuses, Toggles, Waits,
    Writable,
};

const FIRST: WorkerId = WorkerId(1);
const SECOND: WorkerId = WorkerId(2);
const HTTP: ListenerId = ListenerId(1);

/// The two workers differ only by their numbers, so one of them is enough for most.
const LETTERS: [Letter; 16] = [
    Connects,
    Floods,
    Accepts(FIRST),
    Accepts(SECOND),
    Refuses(FIRST),
    Refuses(SECOND),
    Dies(FIRST),
    Dies(SECOND),
    Leaves(FIRST),
    Blocks(FIRST),
    Writable(FIRST),
    Joins,
    HangsUp,
    Toggles,
    Waits(10),
    Waits(1000),
];

/// How long the words are; calm is tried after each.
const LENGTH: usize = 3;

#[test]
fn every_order_of_what_can_happen_to_two_workers() {
    let mut played = 0;
    for algorithm in [Algorithm::RoundRobin, Algorithm::LeastConnections, Algorithm::Sticky] {
        for begins in [&[][..], &[Floods, Connects, Floods, Floods]] {
            let mut world = World::of(algorithm, Closes::Told, 1, Journal::silent());
            world.lively = false;
            let mut letters = Vec::new();
            let begun = (|| {
                world.open(HTTP)?;
                world.join(SlotId(0))?;
                world.join(SlotId(1))?;
                begins.iter().try_for_each(|&letter| apply(&mut world, letter))
            })();
            begun.unwrap_or_else(|violation: String| panic!("{algorithm:?}: {violation}"));
            played += all_words(&world, &mut letters, &|word, violation| {
                panic!("{algorithm:?}, {begins:?}, {word:?}: {violation}")
            });
        }
    }
    assert_eq!(played, 3 * 2 * (16 + 16 * 16 + 16 * 16 * 16));
}

fn all_words(world: &World, letters: &mut Vec<Letter>, fail: &dyn Fn(&[Letter], &str)) -> usize {
    if letters.len() == LENGTH {
        return 0;
    }
    let mut played = 0;
    for letter in LETTERS {
        letters.push(letter);
        let mut next = world.clone();
        if let Err(violation) = apply(&mut next, letter) {
            fail(letters, &violation);
        }
        let mut end = next.clone();
        if let Err(violation) = end.become_calm().and_then(|()| end.until_calm()) {
            fail(letters, &format!("in the end: {violation}"));
        }
        played += 1 + all_words(&next, letters, fail);
        letters.pop();
    }
    played
}

fn apply(world: &mut World, letter: Letter) -> Result<(), String> {
    let is_there = |worker: WorkerId| world.workers.contains_key(&worker);
    match letter {
        Connects => world.connect(HTTP, Client::V4([192, 0, 2, 1]), 1),
        Floods => world.connect(HTTP, Client::V4([192, 0, 2, 2]), WINDOW + 1),
        Accepts(worker) | Refuses(worker) if is_there(worker) => {
            world.worker(worker).manners = match letter {
                Refuses(_) => Manners::Refuses,
                _ => Manners::Accepts,
            };
            world.answers(worker)
        }
        Dies(worker) => world.die(worker, 0),
        Leaves(worker) => world.feed(Event::Leaving(worker)),
        Blocks(worker) => world.feed(Event::Blocked(worker)),
        Writable(worker) => world.feed(Event::Writable(worker)),
        Accepts(_) | Refuses(_) => Ok(()),
        Joins => world.join(SlotId(0)).map(|_| ()),
        HangsUp => match world.book.held.keys().next().copied() {
            Some(connection) => world.feed(Event::HungUp(connection)),
            None => Ok(()),
        },
        Toggles if world.listener(HTTP).open => world.close(HTTP),
        Toggles => world.open(HTTP),
        Waits(millis) => world.wait(ms(millis)),
    }
}
