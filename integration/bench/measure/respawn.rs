//! How long a service with one worker does not answer when that is killed: from SIGKILL to the first
//! answer of the next.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Comparison, Effort, Stage, Unit};
use crate::{clock::Begin, contender::Pair, harness::Process, probe};

/// After so long no more turns are taken than the fewest: some look for their dead every few seconds.
const ENOUGH: Duration = Duration::from_secs(10);

const TURNS_MIN: u32 = 3;

pub fn measure(pair: &Pair, effort: Effort) -> Vec<Comparison> {
    let stages = [Stage::new(&pair.ours, 1), Stage::new(&*pair.theirs, 1)];
    let mut comparison = Comparison::new("worker killed, to an answer", pair, Unit::Seconds);
    // Fewer than what shepherd restarts in a second without a delay.
    let begin = Begin::now();
    for turn in 0..effort.of(9, 5) {
        if turn >= TURNS_MIN && begin.elapsed() > ENOUGH {
            break;
        }
        for (stage, column) in stages.iter().zip([&mut comparison.ours, &mut comparison.theirs]) {
            let killed = probe::answer(&stage.port, None);
            let process = Process::open(killed).expect("the worker that has just answered");
            let begin = Begin::now();
            process.signal(Signal::SIGKILL).expect("the worker that has just answered");
            probe::answer(&stage.port, Some(killed));
            column.push(begin.elapsed().as_secs_f64());
        }
    }
    for stage in stages {
        stage.running.stop();
    }
    vec![comparison]
}
