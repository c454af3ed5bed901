//! How long it takes to replace four workers under a light load, until none of those that were there
//! before is left, and how many requests fail meanwhile. The client is the tests': it forgives
//! nothing.

use std::time::Duration;

use super::{Comparison, Effort, Stage, Unit};
use crate::{
    clock::Begin,
    contender::{Contender, Pair, Running},
    harness::{Kind, Limits, Load, Process, Report},
};

const WORKERS: usize = 4;

/// A light load also where a thousand share the socket: those that wait for it in poll(2) are all
/// woken by each connection.
const NEW_PER_SECOND: u32 = 20;

/// How long all that is replaced may take to go.
const GONE_TIME_MAX: Duration = Duration::from_secs(60);

pub fn measure(pair: &Pair, effort: Effort) -> Vec<Comparison> {
    let Some(their_reload) = pair.theirs.reload() else {
        return Vec::new();
    };
    let our_reload = pair.ours.reload().expect("shepherd reloads");
    let new = |what, unit| Comparison::new(format!("reload of {WORKERS}, {what}"), pair, unit);
    let mut time = new("old ones gone", Unit::Seconds);
    let mut failed = new("failed requests", Unit::Count);
    for _ in 0..effort.of(3, 1) {
        let turns: [(&dyn Contender, _, _, _); 2] = [
            (&pair.ours, our_reload, &mut time.ours, &mut failed.ours),
            (&*pair.theirs, their_reload, &mut time.theirs, &mut failed.theirs),
        ];
        for (contender, reload, time, failed) in turns {
            let stage = Stage::new(contender, WORKERS);
            let (took, report) = under_load(&stage, || replace(&stage.running, reload));
            time.push(took.as_secs_f64());
            failed.push(f64::from(u32::try_from(report.failures_total()).unwrap_or(u32::MAX)));
            stage.running.stop();
        }
    }
    vec![time, failed]
}

/// Does something while new and kept-alive clients ask.
pub(super) fn under_load<T>(stage: &Stage, act: impl FnOnce() -> T) -> (T, Report) {
    let clients = [(Kind::New, 2), (Kind::kept_alive(), 3)];
    let limits = Limits { new_per_second: NEW_PER_SECOND, ..Limits::default() };
    let load = Load::start_with(limits, &stage.port, clients);
    load.wait_ok(50);
    let done = act();
    load.wait_ok(50);
    (done, load.stop())
}

/// Asks for other workers and waits until those of before are gone.
pub(super) fn replace(running: &Running, reload: fn(&Running)) -> Duration {
    let children = running.supervisor.children().into_iter();
    let before: Vec<Process> = children.filter_map(|pid| Process::open(pid).ok()).collect();
    let begin = Begin::now();
    reload(running);
    for process in &before {
        let left = GONE_TIME_MAX.saturating_sub(begin.elapsed());
        assert!(process.ends_within(left), "{} is still there", process.pid());
    }
    begin.elapsed()
}
