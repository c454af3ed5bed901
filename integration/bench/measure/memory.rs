//! What a supervisor takes while nothing happens: memory, and how often it wakes.

use std::time::Duration;

use super::{Comparison, Effort, Stage, Unit};
use crate::{
    clock::pause,
    contender::{Contender, Pair},
    cost,
};

const WORKERS: usize = 4;

/// How long whatever follows a start takes to come to rest.
const REST: Duration = Duration::from_secs(1);

pub fn measure(pairs: &[&Pair], effort: Effort) -> Vec<Comparison> {
    let mut comparisons: Vec<Comparison> = pairs.iter().map(|pair| memory(pair)).collect();
    comparisons.extend(wakeups(pairs, effort));
    comparisons
}

/// One after the other: what several daemons of one program share would be divided among them.
fn memory(pair: &Pair) -> Comparison {
    let of = |contender: &dyn Contender| {
        let stage = Stage::new(contender, WORKERS);
        pause(REST);
        let memory = cost::proportional_memory(stage.running.supervisor.pid());
        stage.running.stop();
        vec![memory]
    };
    let (ours, theirs) = (of(&pair.ours), of(&*pair.theirs));
    let what = format!("memory (PSS) of the supervisor of {WORKERS}");
    Comparison { ours, theirs, ..Comparison::new(what, pair, Unit::KiB) }
}

/// All of them are idle at the same time.
fn wakeups(pairs: &[&Pair], effort: Effort) -> Vec<Comparison> {
    let start =
        |pair: &&Pair| [Stage::new(&pair.ours, WORKERS), Stage::new(&*pair.theirs, WORKERS)];
    let stages: Vec<[Stage; 2]> = pairs.iter().map(start).collect();
    let switches = || {
        let of = |stage: &Stage| cost::switches(stage.running.supervisor.pid());
        stages.iter().map(|stages| stages.each_ref().map(of)).collect::<Vec<_>>()
    };
    pause(REST);
    let before = switches();
    pause(idle(effort));
    let after = switches();
    for stage in stages.into_iter().flatten() {
        stage.running.stop();
    }

    let what = format!("wakeups of the supervisor in {} idle s", idle(effort).as_secs());
    let compare = |((pair, before), after): ((&&Pair, [f64; 2]), [f64; 2])| {
        let [ours, theirs] = [0, 1].map(|index| vec![after[index] - before[index]]);
        Comparison { ours, theirs, ..Comparison::new(what.clone(), pair, Unit::Count) }
    };
    pairs.iter().zip(before).zip(after).map(compare).collect()
}

fn idle(effort: Effort) -> Duration {
    effort.of(Duration::from_secs(10), Duration::from_secs(2))
}
