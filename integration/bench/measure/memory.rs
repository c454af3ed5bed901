//! What a supervisor takes while nothing happens: memory, and how often it wakes.

use std::time::Duration;

use super::{Comparison, Effort, Stage, Unit};
use crate::{clock::pause, contender::Pair, cost};

const WORKERS: usize = 4;

/// How long whatever follows a start takes to come to rest.
const REST: Duration = Duration::from_secs(1);

pub fn measure(pair: &Pair, effort: Effort) -> Vec<Comparison> {
    let idle = effort.of(Duration::from_secs(10), Duration::from_secs(2));
    let stages = [Stage::new(&pair.ours, WORKERS), Stage::new(&*pair.theirs, WORKERS)];
    let pids = stages.each_ref().map(|stage| stage.running.supervisor.pid());
    pause(REST);
    let before = pids.map(cost::switches);
    pause(idle);
    let after = pids.map(cost::switches);
    let [ours, theirs] = pids.map(|pid| vec![cost::proportional_memory(pid)]);
    let what = format!("memory (PSS) of the supervisor of {WORKERS}");
    let memory = Comparison { ours, theirs, ..Comparison::new(what, pair, Unit::KiB) };
    let what = format!("its wakeups in {} idle s", idle.as_secs());
    let ours = vec![after[0] - before[0]];
    let theirs = vec![after[1] - before[1]];
    let wakeups = Comparison { ours, theirs, ..Comparison::new(what, pair, Unit::Count) };
    for stage in stages {
        stage.running.stop();
    }
    vec![memory, wakeups]
}
