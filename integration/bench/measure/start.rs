//! How long a start takes: to the first answer, and until all workers are ready.

use super::{Comparison, Effort, Stage, Unit};
use crate::{
    clock::Begin,
    contender::{Contender, Pair, Says},
    harness::free_port,
    probe,
};

pub fn measure(pair: &Pair, effort: Effort) -> Vec<Comparison> {
    // The first time, programs are compiled, and read from a disk.
    for contender in [&pair.ours as &dyn Contender, &*pair.theirs] {
        Stage::new(contender, 1).running.stop();
    }
    let crowds = pair.theirs.crowds();
    crowds.iter().flat_map(|&workers| start(pair, effort, workers)).collect()
}

fn start(pair: &Pair, effort: Effort, workers: usize) -> Vec<Comparison> {
    let new = |what| Comparison::new(format!("start of {workers}, {what}"), pair, Unit::Seconds);
    let mut first = new("first answer");
    let mut all = new("all ready");
    let mut says = Says::Ready;
    for _ in 0..effort.of(5, 2) {
        let turns: [(&dyn Contender, _, _); 2] = [
            (&pair.ours, &mut first.ours, &mut all.ours),
            (&*pair.theirs, &mut first.theirs, &mut all.theirs),
        ];
        for (contender, first, all) in turns {
            let port = free_port();
            let begin = Begin::now();
            let running = contender.start(workers, &port);
            probe::answer(&port, None);
            first.push(begin.elapsed().as_secs_f64());
            match contender.says_ready(&running, workers) {
                Says::Ready => all.push(begin.elapsed().as_secs_f64()),
                Says::Nothing => says = Says::Nothing,
            }
            running.stop();
        }
    }
    match says {
        Says::Ready => vec![first, all],
        Says::Nothing => vec![first],
    }
}
