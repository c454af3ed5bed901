//! Small worlds, all of them: one or two workers, one reload, every fate of each worker, an
//! operator at each moment that matters.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shepherd::core::ids::{GenerationId, ServiceId, SlotId, SocketId};
use shepherd::core::policy::{
    BeforeStop, CheckPace, KeepAlive, Members, OnFailing, Policy, ReadyWhen, Signal, Socket,
    StopLadder, StopStep, Surge,
};
use shepherd::core::request::Request;

use crate::fake_network::Traffic;
use crate::fate::{Exec, Fate, Word, ms};
use crate::journal::Journal;
use crate::requests::{ONE_FEWER, ONE_MORE, RELOAD};
use crate::world::{Cast, play_cast};

/// When the reload is asked for: the first fleet serves.
pub(crate) const RELOAD_AT: Duration = Duration::from_millis(100);

/// What may become of a worker of the new generation.
const NEW: [&str; 6] = ["ready", "exits first", "ready, then exits", "never", "cannot", "leaves"];

/// What may become of a worker of the old generation.
const OLD: [&str; 3] = ["stays", "exits when ready", "ignores the stop"];

/// What an operator may do beside the reload.
const OPERATOR: [&[Request]; 6] = [
    &[],
    &[RELOAD],
    &[Request::Stop],
    &[Request::Interrupt, Request::Interrupt],
    &[ONE_MORE],
    &[ONE_FEWER],
];

/// When: the definition is read, the first starts, it is ready, the last is ready, the old ones go.
const MOMENTS: [u64; 5] = [100, 104, 113, 125, 131];

/// How long the workers of the new generation take: as they start, or the other way round.
pub(crate) const PACE: [[u64; 2]; 2] = [[10, 10], [10, 1]];

#[test]
fn one_worker_and_a_reload_in_every_way() {
    assert_eq!(every_world(1), 6 * 3 * 26 * 2);
}

#[test]
fn two_workers_and_a_reload_in_every_way() {
    assert_eq!(every_world(2), 36 * 9 * 26 * 2);
}

fn every_world(workers: u32) -> u32 {
    let mut played = 0;
    let pairs = |count: usize| match workers {
        1 => count,
        _ => count * count,
    };
    for new in 0..pairs(NEW.len()) {
        for old in 0..pairs(OLD.len()) {
            for (pace, takes) in PACE.iter().enumerate() {
                for (operator, requests) in OPERATOR.iter().enumerate() {
                    let moments = if requests.is_empty() { &MOMENTS[..1] } else { &MOMENTS[..] };
                    for &at in moments {
                        let news = [new % NEW.len(), new / NEW.len()];
                        let olds = [old % OLD.len(), old / OLD.len()];
                        let cast = cast(workers, news, olds, *takes);
                        let mut asks = vec![(RELOAD_AT, RELOAD)];
                        asks.extend(requests.iter().map(|request| (ms(at), request.clone())));
                        // The pace doubles as the choice of how many may start at a time.
                        let starting_max = 1 + u32::try_from(pace).expect("small");
                        check(
                            &policy(workers, starting_max),
                            &BTreeMap::new(),
                            &cast,
                            &asks,
                            || {
                                format!(
                                    "new {:?}, old {:?}, pace {takes:?}, {:?} at {at} ms",
                                    news.map(|fate| NEW[fate]),
                                    olds.map(|fate| OLD[fate]),
                                    OPERATOR[operator]
                                )
                            },
                        );
                        played += 1;
                    }
                }
            }
        }
    }
    played
}

/// Plays a world without chance; where no service has traffic, none has groups.
pub(crate) fn check(
    policy: &Policy,
    traffic: &BTreeMap<ServiceId, Traffic>,
    cast: &Cast,
    asks: &[(Duration, Request)],
    world: impl Fn() -> String,
) {
    let play = |journal: &mut Journal| play_cast(policy, traffic, cast.clone(), asks, journal);
    if let Err(violation) = play(&mut Journal::silent()) {
        let mut journal = Journal::kept();
        let again = play(&mut journal).err();
        let (world, story) = (world(), journal.text());
        panic!("{world}\n{policy:#?}\n{story}\n{violation}\nplayed again: {again:?}");
    }
}

pub(crate) fn cast(workers: u32, new: [usize; 2], old: [usize; 2], takes: [u64; 2]) -> Cast {
    let mut cast = Cast::new();
    for (slot, index) in (0..workers).map(SlotId).zip(0..) {
        cast.insert((GenerationId(1), slot), old_fate(old[index]));
        cast.insert((GenerationId(2), slot), new_fate(new[index], takes[index]));
    }
    cast
}

fn old_fate(choice: usize) -> Fate {
    let mut fate = Fate::benign();
    match choice {
        0 => {}
        // While the new generation starts.
        1 => fate.exit = Some((ms(111), 1)),
        _ => fate.obeys = None,
    }
    fate
}

fn new_fate(choice: usize, takes: u64) -> Fate {
    let mut fate = Fate { able: Some(ms(takes)), ..Fate::benign() };
    match choice {
        0 => {}
        1 => fate.exit = Some((ms(0), 1)),
        2 => fate.exit = Some((ms(takes + 1), 1)),
        3 => fate.word = Word::Silent,
        4 => fate.exec = Exec::Fails(ms(1)),
        _ => {
            fate.exit = Some((ms(takes), 0));
            fate.left = 1;
        }
    }
    fate
}

pub(crate) fn policy(workers: u32, starting_max: u32) -> Policy {
    Policy {
        service: ServiceId(1),
        name: "s1".to_owned(),
        workers,
        on_failing: OnFailing::Wait,
        sockets: vec![Socket {
            id: SocketId(1),
            name: "http".to_owned(),
            members: Members::Shared,
            steered: false,
            refusable: false,
        }],
        proxy: None,
        ready: ReadyWhen::Notify,
        ready_timeout: ms(500),
        check_pace: CheckPace { interval: ms(100), timeout: ms(100) },
        surge: Surge::Percent(100),
        canary: None,
        probation: Duration::ZERO,
        before_stop: BeforeStop::Auto,
        keepalive: KeepAlive::default(),
        stop: StopLadder::new(
            StopStep { signal: Signal::Term, wait: ms(100) },
            vec![StopStep { signal: Signal::Int, wait: ms(0) }],
        ),
        starting_max,
        // With one at a time the second start waits in every world, with two in none.
        launching_max: starting_max,
        depends_on: BTreeSet::new(),
        bind_to: BTreeSet::new(),
    }
}
