//! Those that are measured, each with the same worker under shepherd beside it.

mod bare;
mod circus;
mod gunicorn;
mod nginx;
mod node_cluster;
mod place;
mod pm2;
mod shepherd;

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{
    What, cost,
    harness::{Builder, Daemon, Home, Port, eventually_within},
};

pub use self::{
    bare::PlainLoop,
    circus::Circus,
    gunicorn::Gunicorn,
    nginx::{Nginx, NginxInFront},
    node_cluster::NodeCluster,
    pm2::Pm2,
    shepherd::{Shepherd, Worker},
};

/// How long a contender may take for what it is asked: a thousand workers on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long after a stop signal another is sent: longer than any that has heard it takes.
const SIGNAL_AGAIN: Duration = Duration::from_secs(10);

/// Something that keeps workers behind a port.
pub trait Contender {
    /// As the table names it.
    fn name(&self) -> &'static str;

    /// The programs that it takes, and what would install them.
    fn needs(&self) -> &'static [Program];

    /// Starts it with so many workers on 127.0.0.1 and a port.
    fn start(&self, workers: usize, port: &Port) -> Running;

    /// Waits until it says that so many workers are ready, if it ever does.
    fn says_ready(&self, running: &Running, workers: usize) -> Says;

    /// What there is to measure of it.
    fn measures(&self) -> &'static [What] {
        &[What::Request, What::Respawn, What::Start, What::Reload, What::Memory]
    }

    /// How many workers it is started with: some are not meant for hundreds.
    fn crowds(&self) -> &'static [usize] {
        &[4]
    }

    /// Asks it to replace its workers; `None` if it has no way to do that.
    fn reload(&self) -> Option<fn(&Running)>;
}

/// A program that is looked for in PATH.
pub struct Program {
    pub name: &'static str,
    /// How it is installed.
    pub from: &'static str,
}

/// Whether a contender says when all of its workers are ready.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Says {
    Ready,
    Nothing,
}

/// A contender at work: the one that is signalled, and what else belongs to it.
pub struct Running {
    pub supervisor: Daemon,
    pub behind: Vec<Daemon>,
}

impl Running {
    /// How long all of its processes have run on processors.
    pub fn cpu(&self) -> Duration {
        let daemons = std::iter::once(&self.supervisor).chain(&self.behind);
        let pids = daemons.flat_map(|daemon| {
            let descendants = daemon.descendants();
            std::iter::once(daemon.pid()).chain(descendants)
        });
        pids.map(cost::cpu).sum()
    }

    /// Ends it and everything below it.
    pub fn stop(self) {
        for daemon in std::iter::once(self.supervisor).chain(self.behind) {
            // Some forget a signal that comes while they start.
            let ends = || {
                daemon.signal(Signal::SIGTERM);
                eventually_within(SIGNAL_AGAIN, || (!daemon.is_running()).then_some(()))
            };
            eventually_within(PATIENCE, ends);
            daemon.wait_exit();
        }
    }
}

/// A contender and shepherd with the same workers.
pub struct Pair {
    pub ours: Shepherd,
    pub theirs: Box<dyn Contender>,
}

/// Everybody that is known.
pub fn pairs() -> Vec<Pair> {
    let pair = |worker, theirs| Pair { ours: Shepherd(worker), theirs };
    vec![
        pair(Worker::C, Box::new(PlainLoop(Worker::C))),
        pair(Worker::Rust, Box::new(PlainLoop(Worker::Rust))),
        pair(Worker::Python, Box::new(PlainLoop(Worker::Python))),
        pair(Worker::C, Box::new(Circus)),
        pair(Worker::C, Box::new(Nginx)),
        pair(Worker::C, Box::new(NginxInFront)),
        pair(Worker::Node, Box::new(NodeCluster)),
        pair(Worker::Node, Box::new(Pm2)),
        pair(Worker::Gunicorn, Box::new(Gunicorn)),
    ]
}

/// The programs that are not installed.
pub fn missing(pair: &Pair) -> Vec<&'static Program> {
    let needs = pair.ours.needs().iter().chain(pair.theirs.needs());
    let mut missing: Vec<_> = needs.filter(|program| !is_installed(program.name)).collect();
    missing.dedup_by_key(|program| program.name);
    missing
}

fn is_installed(name: &str) -> bool {
    found(OsStr::new(name)).is_file()
}

/// Where a program is: as it is named if it is not in PATH.
fn found(name: &OsStr) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = std::env::split_paths(&path).map(|directory| directory.join(name));
    candidates.find(|path| path.is_file()).unwrap_or_else(|| name.into())
}

/// Sends HUP, which most of them take for a wish to reload.
fn hang_up(running: &Running) {
    running.supervisor.signal(Signal::SIGHUP);
}

/// Waits for the line that most of them print.
fn wait_for_line(running: &Running, workers: usize) -> Says {
    let noun = if workers == 1 { "worker" } else { "workers" };
    let all = format!("{workers} {noun} ready");
    running.supervisor.wait_line(|line| line.ends_with(&all), &all);
    Says::Ready
}

/// A world of its own for each, on a file system in memory where there is one: runtime directories
/// are on such a one, and a socket in `/tmp` would cost what the disk's file system does.
pub fn builder() -> Builder {
    let memory = Path::new("/dev/shm");
    let home = if memory.is_dir() { Home::new_in(memory) } else { Home::new() };
    // A stopping worker does not wait long for clients that keep idle connections.
    Daemon::run().home(&home).deadline(PATIENCE).env("LAME_DUCK_MS", "100")
}
