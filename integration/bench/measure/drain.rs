//! What transparent drain takes: how long a reload lasts while shepherd does not know yet how a program
//! stops, and once it has seen that it stops gracefully; and what it costs to wait for the end of
//! connections, the more of them there are.

use std::{fs, net::TcpStream, time::Duration};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Effort, Stage, reload};
use crate::{
    clock::Begin,
    contender::{Contender, Shepherd, Worker, builder},
    cost,
    harness::{eventually, free_port, manners},
};

const WORKERS: usize = 4;
/// How many connections are idle.
const CROWDS: [usize; 4] = [1, 100, 1000, 10_000];
/// How long a drain waits for them: with this nobody waits for good manners.
const BEFORE_STOP: &str = "3s";
/// What else takes descriptors.
const DESCRIPTORS_BESIDE: usize = 500;

/// Workers of one kind, with a value for each turn, in seconds.
pub struct Learning {
    pub worker: &'static str,
    /// Until all are ready.
    pub start: Vec<f64>,
    /// Until the old ones are gone: at the first reload, and at one after it was seen how they stop.
    pub unknown: Vec<f64>,
    pub learned: Vec<f64>,
    /// How much longer the latter takes than the start in the same turn.
    pub beyond: Vec<f64>,
    pub failed: u64,
}

/// A number of idle connections, with a value for each turn.
pub struct Waiting {
    pub connections: usize,
    /// Seconds until the old workers are gone, of which a part is the same for all.
    pub took: Vec<f64>,
    /// Processor seconds of the daemon meanwhile, and how often it was put on a processor.
    pub cpu: Vec<f64>,
    pub wakeups: Vec<f64>,
}

pub fn learning(effort: Effort) -> Vec<Learning> {
    let kinds = [Worker::C, Worker::Rust, Worker::Node];
    kinds.into_iter().map(|worker| learn(worker, effort)).collect()
}

fn learn(worker: Worker, effort: Effort) -> Learning {
    let mut learning = Learning {
        worker: worker.name(),
        start: Vec::new(),
        unknown: Vec::new(),
        learned: Vec::new(),
        beyond: Vec::new(),
        failed: 0,
    };
    // Some are compiled when they are first asked for.
    worker.command();
    for _ in 0..effort.of(3, 1) {
        let shepherd = Shepherd(worker);
        let hang_up = shepherd.reload().expect("shepherd reloads");
        let begin = Begin::now();
        let stage = Stage::new(&shepherd, WORKERS);
        let start = begin.elapsed().as_secs_f64();
        let mut reloads = || {
            let (took, report) =
                reload::under_load(&stage, || reload::replace(&stage.running, hang_up));
            learning.failed += report.failures_total();
            took.as_secs_f64()
        };
        let (unknown, _seen, learned) = (reloads(), reloads(), reloads());
        learning.start.push(start);
        learning.unknown.push(unknown);
        learning.learned.push(learned);
        learning.beyond.push(learned - start);
        stage.running.stop();
    }
    learning
}

/// Nothing for a crowd for which the limit of open files is too low.
pub fn waiting(effort: Effort) -> Vec<Waiting> {
    let most = allow_descriptors();
    let fits = |connections: &usize| connections + DESCRIPTORS_BESIDE <= most;
    let crowds = CROWDS.into_iter().filter(fits);
    let crowds = crowds.map(|connections| Waiting {
        connections,
        took: Vec::new(),
        cpu: Vec::new(),
        wakeups: Vec::new(),
    });
    let mut crowds: Vec<Waiting> = crowds.collect();
    for _ in 0..effort.of(3, 1) {
        crowds.iter_mut().for_each(wait);
    }
    crowds
}

fn wait(crowd: &mut Waiting) {
    let port = free_port();
    let daemon = builder()
        .workers(WORKERS)
        .listen(port.v4())
        .args(["--balance", "generation", "--before-stop", BEFORE_STOP, "--drain-timeout", "1s"])
        .command(manners(&["graceful"]))
        .start();
    daemon.wait_line(|line| line.ends_with("4 workers ready"), "all ready");
    let workers = daemon.wait_workers(WORKERS);
    let before: usize = workers.iter().copied().map(descriptors).sum();
    let connect = |_| TcpStream::connect(port.v4()).expect("a connection");
    let idle: Vec<TcpStream> = (0..crowd.connections).map(connect).collect();
    eventually("all connections to be accepted", || {
        let now: usize = workers.iter().copied().map(descriptors).sum();
        (now >= before + crowd.connections).then_some(())
    });

    let (cpu, switches) = (cost::cpu(daemon.pid()), cost::switches(daemon.pid()));
    let running = crate::contender::Running { supervisor: daemon, behind: Vec::new() };
    let hang_up = Shepherd(Worker::C).reload().expect("shepherd reloads");
    let took: Duration = reload::replace(&running, hang_up);
    let daemon = running.supervisor.pid();
    crowd.took.push(took.as_secs_f64());
    crowd.cpu.push(cost::cpu(daemon).saturating_sub(cpu).as_secs_f64());
    crowd.wakeups.push(cost::switches(daemon) - switches);
    drop(idle);
    running.stop();
}

fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Lets us, and what we start, have as many descriptors as we may; gives how many.
fn allow_descriptors() -> usize {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("a limit that is ours to raise");
    usize::try_from(most).unwrap_or(usize::MAX)
}
