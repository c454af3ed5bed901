//! shepherd alone with more and more workers: what each takes of its processor time, and what
//! becomes of memory, wakeups and reloads.

use std::time::Duration;

use super::{Effort, Stage, reload};
use crate::{
    clock::{Begin, pause},
    contender::{Contender, Shepherd, Worker},
    cost,
};

/// How many workers there are. What one takes is what a number of them takes beyond a single one.
const CROWDS: [usize; 5] = [4, 10, 100, 200, 1000];

/// How long whatever follows a start takes to come to rest.
const REST: Duration = Duration::from_secs(1);

/// A number of workers, with a value for each turn.
#[derive(Default)]
pub struct Crowd {
    pub workers: usize,
    /// Seconds until all were ready, and processor seconds of the daemon beyond those of a start
    /// of one, for each.
    pub start: Vec<f64>,
    pub start_cpu: Vec<f64>,
    /// The same for a reload, until all old ones were gone.
    pub reload: Vec<f64>,
    pub reload_cpu: Vec<f64>,
    pub requests_failed: u64,
    /// The same for a stop, without the processor.
    pub stop: Vec<f64>,
    /// KiB.
    pub memory: Vec<f64>,
    pub wakeups: Vec<f64>,
}

pub fn measure(effort: Effort) -> Vec<Crowd> {
    let crowd = |workers| Crowd { workers, ..Crowd::default() };
    let mut crowds = CROWDS.map(crowd);
    for _ in 0..effort.of(3, 1) {
        let base = with_one();
        for crowd in &mut crowds {
            turn(crowd, base, effort);
        }
    }
    crowds.into()
}

/// What the daemon takes to start with a single worker.
fn with_one() -> Duration {
    let stage = Stage::new(&Shepherd(Worker::C), 1);
    let cpu = cost::cpu(stage.running.supervisor.pid());
    stage.running.stop();
    cpu
}

fn turn(crowd: &mut Crowd, base: Duration, effort: Effort) {
    let shepherd = Shepherd(Worker::C);
    let begin = Begin::now();
    let stage = Stage::new(&shepherd, crowd.workers);
    crowd.start.push(begin.elapsed().as_secs_f64());
    let daemon = stage.running.supervisor.pid();
    let workers = f64::from(u32::try_from(crowd.workers).expect("a small number"));
    let started = cost::cpu(daemon);
    crowd.start_cpu.push(started.saturating_sub(base).as_secs_f64() / (workers - 1.0));

    // Once is enough: it takes long, and changes little from turn to turn.
    if crowd.wakeups.is_empty() {
        pause(REST);
        let before = cost::switches(daemon);
        pause(effort.of(Duration::from_secs(10), Duration::from_secs(2)));
        crowd.wakeups.push(cost::switches(daemon) - before);
    }
    crowd.memory.push(cost::proportional_memory(daemon));

    let idle = cost::cpu(daemon);
    let hang_up = shepherd.reload().expect("shepherd reloads");
    let (took, report) = reload::under_load(&stage, || reload::replace(&stage.running, hang_up));
    crowd.reload.push(took.as_secs_f64());
    crowd.reload_cpu.push(cost::cpu(daemon).saturating_sub(idle).as_secs_f64() / workers);
    crowd.requests_failed += report.failures_total();

    let begin = Begin::now();
    stage.running.stop();
    crowd.stop.push(begin.elapsed().as_secs_f64());
}
