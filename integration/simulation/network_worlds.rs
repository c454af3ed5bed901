//! Small worlds with connections, all of them: two workers, one reload, each way in which a program
//! stops, and one thing that goes wrong at each moment. Before each action a connection comes.

use std::collections::BTreeMap;

use shepherd::core::ids::{GenerationId, MemberId, ServiceId, SlotId};
use shepherd::core::policy::{
    BeforeStop, BoundMember, Members, Policy, Signal, StopLadder, StopStep,
};

use crate::fake_network::{AtStop, Blind, Traffic};
use crate::fate::{Deed, ms};
use crate::requests::{ONE_FEWER, ONE_MORE, RELOAD};
use crate::small_worlds::{PACE, RELOAD_AT, cast, check, policy};
use crate::world::Cast;

/// For whom the socket has members.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Balance {
    Generation,
    Slots,
}

/// What goes wrong, or is asked for in between.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Nothing,
    Exit(GenerationId),
    ShutDown(GenerationId),
    OneFewer,
    OneMore,
}

/// The generations of these worlds.
const OLD: GenerationId = GenerationId(1);
const NEW: GenerationId = GenerationId(2);

/// The moments, in milliseconds: from before the reload until the old ones are gone, if nothing
/// waits long.
const MOMENTS: std::ops::Range<u64> = 98..146;

#[test]
fn two_workers_and_a_reload_with_connections_at_every_moment() {
    let mut played = 0;
    for balance in [Balance::Generation, Balance::Slots] {
        for at_stop in [AtStop::Finishes, AtStop::Cuts, AtStop::ShutsDown] {
            for before_stop in [BeforeStop::Auto, BeforeStop::For(ms(0))] {
                played += every_fault(balance, at_stop, before_stop);
            }
        }
    }
    assert_eq!(played, 2 * 3 * 2 * (1 + 2 * 6 * 48));
}

fn every_fault(balance: Balance, at_stop: AtStop, before_stop: BeforeStop) -> u32 {
    let mut played = 0;
    let has_time = before_stop == BeforeStop::Auto;
    let traffic = Traffic { at_stop, has_time, blind: Blind::Nothing };
    let traffic = BTreeMap::from([(ServiceId(1), traffic)]);
    let policy = with_groups(balance, before_stop);
    let mut play = |fault, slot, at| {
        let mut asks = vec![(RELOAD_AT, RELOAD)];
        match fault {
            Fault::OneFewer => asks.push((ms(at), ONE_FEWER)),
            Fault::OneMore => asks.push((ms(at), ONE_MORE)),
            Fault::Nothing | Fault::Exit(_) | Fault::ShutDown(_) => {}
        }
        let cast = faulty_cast(fault, slot, at);
        check(&policy, &traffic, &cast, &asks, || {
            format!("{balance:?}, {at_stop:?}: {fault:?} in slot {slot} at {at} ms")
        });
        played += 1;
    };
    play(Fault::Nothing, SlotId(0), 0);
    let faults = [
        Fault::Exit(OLD),
        Fault::Exit(NEW),
        Fault::ShutDown(OLD),
        Fault::ShutDown(NEW),
        Fault::OneFewer,
        Fault::OneMore,
    ];
    for fault in faults {
        for slot in [SlotId(0), SlotId(1)] {
            MOMENTS.for_each(|at| play(fault, slot, at));
        }
    }
    played
}

pub(crate) fn with_groups(balance: Balance, before_stop: BeforeStop) -> Policy {
    let mut policy = policy(2, 2);
    policy.before_stop = before_stop;
    // Who finishes what it has gets the time for it.
    let step = StopStep { signal: Signal::Term, wait: ms(20_000) };
    policy.stop = StopLadder::new(step, vec![]);
    let bound = [10, 11].map(|id| BoundMember { member: MemberId(id), name: format!("port {id}") });
    for socket in &mut policy.sockets {
        socket.steered = true;
        socket.members = match balance {
            Balance::Generation => Members::EachGeneration,
            Balance::Slots => Members::EachWorker { bound: bound.to_vec() },
        };
    }
    policy
}

/// Two workers of each generation, of which one does that at this moment, if it lives.
fn faulty_cast(fault: Fault, slot: SlotId, at: u64) -> Cast {
    let mut cast = cast(2, [0; 2], [0; 2], PACE[0]);
    // The old programs run from 2 ms on, the others from 102 ms on at the earliest.
    let after = |generation| ms(at.saturating_sub(if generation == OLD { 2 } else { 102 }));
    match fault {
        Fault::Exit(generation) => {
            if let Some(fate) = cast.get_mut(&(generation, slot)) {
                fate.exit = Some((after(generation), 1));
            }
        }
        Fault::ShutDown(generation) => {
            if let Some(fate) = cast.get_mut(&(generation, slot)) {
                fate.deeds.push((after(generation), Deed::ShutDown));
            }
        }
        Fault::Nothing | Fault::OneFewer | Fault::OneMore => {}
    }
    cast
}
