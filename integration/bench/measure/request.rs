//! What a request costs: how many are answered in a second, and how long all processes of a
//! contender run on processors for each.

use std::time::Duration;

use super::{Comparison, Effort, Stage, Unit};
use crate::{
    contender::{Pair, Worker},
    load::Loop,
};

/// How many clients ask at the same time.
const CONNECTIONS: [usize; 2] = [1, 32];

pub fn measure(pair: &Pair, effort: Effort) -> Vec<Comparison> {
    // One worker shows the bare cost; two show how connections find them.
    let workers = if pair.ours.0 == Worker::C { 1 } else { 2 };
    let stages = [Stage::new(&pair.ours, workers), Stage::new(&*pair.theirs, workers)];
    let comparisons =
        CONNECTIONS.into_iter().flat_map(|connections| ask(pair, effort, &stages, connections));
    let comparisons = comparisons.collect();
    for stage in stages {
        stage.running.stop();
    }
    comparisons
}

fn ask(pair: &Pair, effort: Effort, stages: &[Stage; 2], connections: usize) -> [Comparison; 2] {
    let noun = if connections == 1 { "connection" } else { "connections" };
    let new = |what, unit| Comparison::new(format!("{what}, {connections} {noun}"), pair, unit);
    let mut rate = new("requests", Unit::PerSecond);
    let mut cost = new("CPU of a request", Unit::Seconds);
    let turn = effort.of(Duration::from_millis(250), Duration::from_millis(150));
    for stage in stages {
        // Node compiles what is used often.
        Loop::open(&stage.port, connections).run(turn * 2);
    }
    for _ in 0..effort.of(11, 5) {
        let columns = [(&mut rate.ours, &mut cost.ours), (&mut rate.theirs, &mut cost.theirs)];
        for (stage, (rate, cost)) in stages.iter().zip(columns) {
            // Connections find their workers anew each time: not all turns get the same lot.
            let mut load = Loop::open(&stage.port, connections);
            let before = stage.running.cpu();
            let answered = load.run(turn);
            let cpu = stage.running.cpu().saturating_sub(before);
            rate.push(answered.requests / answered.seconds);
            cost.push(cpu.as_secs_f64() / answered.requests);
        }
    }
    [rate, cost]
}
