//! Small worlds in which a generation proves itself, all of them: two workers, one reload, and one
//! thing that goes wrong, or is asked for, at each moment. Before each action a connection comes.

use std::collections::BTreeMap;
use std::time::Duration;

use shepherd::core::ids::{GenerationId, ServiceId, SlotId};
use shepherd::core::policy::{BeforeStop, Canary};
use shepherd::core::request::{Behind, Request, Scope};

use crate::fake_network::{AtStop, Blind, Traffic};
use crate::fate::ms;
use crate::network_worlds::{Balance, with_groups};
use crate::requests::{ONE_FEWER, ONE_MORE, RELOAD};
use crate::small_worlds::{PACE, RELOAD_AT, cast, check};
use crate::world::Cast;

/// What goes wrong, or is asked for in between.
#[derive(Debug, Clone)]
enum Fault {
    Nothing,
    /// A worker of the first, the second or the third generation exits.
    Exit(GenerationId, SlotId),
    /// One of the second, and then one of what is to come back.
    Twice(SlotId),
    Asked(Request),
}

/// How long a canary lasts, and then a probation. The new workers are ready at 121 ms.
const TRIAL: Duration = ms(24);

/// The moments, in milliseconds: from before the reload until both trials are over and the old ones
/// are gone, if nothing waits long.
const MOMENTS: std::ops::Range<u64> = 99..175;

const OLD: GenerationId = GenerationId(1);
const NEW: GenerationId = GenerationId(2);

#[test]
fn two_workers_that_prove_themselves_and_a_fault_at_every_moment() {
    let scope = || Scope::Named(vec!["s1".to_owned()]);
    let names = || vec!["s1".to_owned()];
    let (first, second) = (SlotId(0), SlotId(1));
    let faults = [
        Fault::Exit(OLD, first),
        Fault::Exit(NEW, first),
        Fault::Exit(NEW, second),
        Fault::Twice(second),
        Fault::Asked(Request::RollBack(scope())),
        Fault::Asked(Request::Restart(scope())),
        Fault::Asked(Request::StopServices(names())),
        Fault::Asked(Request::Reload { scope: scope(), behind: Behind::Refuse }),
        Fault::Asked(RELOAD),
        Fault::Asked(ONE_MORE),
        Fault::Asked(ONE_FEWER),
        Fault::Asked(Request::Stop),
    ];
    let mut played = 0;
    for balance in [Balance::Generation, Balance::Slots] {
        let mut policy = with_groups(balance, BeforeStop::Auto);
        policy.canary = Some(Canary { percent: 20, time: TRIAL });
        policy.probation = TRIAL;
        let at_stop = AtStop::Finishes;
        let traffic = Traffic { at_stop, has_time: true, blind: Blind::Nothing };
        let traffic = BTreeMap::from([(ServiceId(1), traffic)]);
        let mut play = |fault: &Fault, at: u64| {
            let mut asks = vec![(RELOAD_AT, RELOAD)];
            if let Fault::Asked(request) = fault {
                asks.push((ms(at), request.clone()));
            }
            let cast = faulty_cast(fault, at);
            check(&policy, &traffic, &cast, &asks, || format!("{balance:?}: {fault:?} at {at} ms"));
            played += 1;
        };
        play(&Fault::Nothing, 0);
        for fault in &faults {
            MOMENTS.for_each(|at| play(fault, at));
        }
    }
    assert_eq!(played, 2 * (1 + 12 * 76));
}

/// Two workers of each generation, of which one does that at this moment, if it lives.
fn faulty_cast(fault: &Fault, at: u64) -> Cast {
    let mut cast = cast(2, [0; 2], [0; 2], PACE[0]);
    let mut exits = |generation, slot, after| {
        if let Some(fate) = cast.get_mut(&(generation, slot)) {
            fate.exit = Some((after, 1));
        }
    };
    match fault {
        Fault::Nothing | Fault::Asked(_) => {}
        // The old programs run from 2 ms on.
        Fault::Exit(OLD, slot) => exits(OLD, *slot, ms(at.saturating_sub(2))),
        Fault::Exit(generation, slot) => exits(*generation, *slot, ms(at.saturating_sub(102))),
        Fault::Twice(slot) => {
            exits(NEW, *slot, ms(at.saturating_sub(102)));
            let mut again = cast[&(OLD, *slot)].clone();
            again.exit = Some((ms(at % 16), 1));
            cast.insert((GenerationId(3), *slot), again);
        }
    }
    cast
}
