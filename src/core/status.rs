//! What serves and what does not, as one view that everything which shows it shares.

use std::fmt;
use std::time::Duration;

use super::drain::Remains;
use super::ids::{GenerationId, MemberId, Pid, SlotId, WorkerId};
use super::policy::Balance;

/// The daemon at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its services, in the order of their numbers.
    pub services: Vec<ServiceStatus>,
    /// Whether everything is being stopped.
    pub stopping: bool,
    /// How long everything serves on before the workers drain, if that is how it is being stopped.
    pub lame_duck: Option<Duration>,
}

/// A service at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: ServiceState,
    /// How many workers it wants.
    pub wanted: u32,
    /// How many workers that serve are ready: those of the serving generation, and those of the next in
    /// slots that are changed over.
    pub ready: u32,
    /// The generation that serves.
    pub generation: GenerationId,
    /// How connections find its workers, where several of them have a socket in common or could.
    pub balance: Option<Balance>,
    /// Whether all workers have been ready together since it was started.
    pub committed: bool,
    /// Whether it is asked to stop because the configuration has it no more.
    pub membership: Membership,
    /// The names of the services that it waits for before its first worker starts.
    pub waits_for: Vec<String>,
    /// Whether it fails again and again.
    pub failing: bool,
    /// The generation that a reload under way is to bring.
    pub reloading: Option<GenerationId>,
    /// In how many slots its workers serve, and in how many they are to, where it goes in batches.
    pub changed_over: Option<(u32, u32)>,
    /// How the last reload failed, if it did and no other has begun since.
    pub last_abort: Option<String>,
    /// Whether another reload waits.
    pub queued: bool,
    /// How many workers have been started in the place of one that ended unasked.
    pub restarts: u64,
    /// The part of new connections that a generation has which has to prove itself, while it has.
    pub canary: Option<CanaryStatus>,
    /// How long the generation that serves has to prove itself still, while it has to.
    pub probation: Option<Duration>,
    /// The kernel sockets behind its sockets, those of one socket together, in order.
    pub members: Vec<MemberStatus>,
    /// All its workers, whatever their state.
    pub workers: Vec<WorkerStatus>,
    /// Slots that wait for their next worker, with the time that is left.
    pub backing_off: Vec<(SlotId, Duration)>,
}

/// A generation that gets a part of new connections before it may be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CanaryStatus {
    /// Of a hundred.
    pub percent: u32,
    /// For how long still.
    pub left: Duration,
}

/// A kernel socket behind a socket of a service at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its number.
    pub member: MemberId,
    /// The generation that it is for alone, if it is for one.
    pub generation: Option<GenerationId>,
    /// The slot that it is for alone, if it is for one.
    pub slot: Option<SlotId>,
    /// Where it stands.
    pub state: MemberState,
    /// What it gets of new connections, measured against others of the same address; `None` where
    /// the kernel is not told.
    pub weight: Option<u32>,
}

/// Where a kernel socket stands, in the words that users know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberState {
    /// It gets new connections.
    Serving,
    /// It gets none: no worker of it is ready. What waits there waits for one.
    Parked,
    /// Its worker takes nothing from it, and new connections go to others, if there are any.
    Stalled,
    /// It gets none any more, and its workers finish what they have.
    Draining,
    /// No worker has it: it keeps others at their places while workers stop.
    Spare,
    /// No worker has it, and it is closed as soon as no new connection is misled by that.
    Closing,
    /// It does not listen, since somebody shut it down, or clients are refused while its service fails.
    Down,
}

/// Whether a service is in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// It is.
    Configured,
    /// It was, and goes.
    Leaving,
}

/// A worker at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerStatus {
    /// Its number.
    pub worker: WorkerId,
    /// Its slot.
    pub slot: SlotId,
    /// The definition it runs.
    pub generation: GenerationId,
    /// Its main process, once its program runs.
    pub pid: Option<Pid>,
    /// Where it stands.
    pub stage: Stage,
    /// How long it has stood there.
    pub since: Duration,
    /// What it is to finish before it gets the stop signal, while it has not got it.
    pub left: Option<Remains>,
    /// When the next thing is done about it, while it is to stop: the stop signal, another, KILL.
    pub next_in: Option<Duration>,
    /// Whether it takes nothing from a socket that it alone has.
    pub stalled: bool,
    /// The last line it said about itself.
    pub said: Option<String>,
}

/// Where a service stands, in the words that users know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceState {
    /// It waits for the services that it needs.
    Waiting,
    /// Its workers have not been ready together since it was started.
    Starting,
    /// It serves.
    Up,
    /// It serves, and a reload is under way.
    Reloading,
    /// Its workers fail again and again.
    Failing,
    /// Its workers drain, and then it is stopped or started anew.
    Stopping,
    /// It was stopped, and stays so until somebody starts it.
    Stopped,
}

/// Where a worker stands, in the words that users know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Not yet seen able to serve.
    Starting,
    /// Able to serve.
    Ready,
    /// It is to stop, and finishes what it has, before the stop signal or after it.
    Draining,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Stage::Starting => "starting",
            Stage::Ready => "ready",
            Stage::Draining => "draining",
        })
    }
}

/// A service in one line: what the service manager is told, after every event, so it is made without
/// looking at the workers one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headline<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether it is asked to stop because the configuration has it no more.
    pub leaving: bool,
    /// The names of the services that it waits for.
    pub waits_for: &'a [String],
    /// Where it stands.
    pub state: ServiceState,
    /// How many workers it wants.
    pub wanted: u32,
    /// How many workers of the serving generation are ready.
    pub ready: u32,
    /// How many of its workers are stopping.
    pub draining: u32,
    /// The generation that serves.
    pub generation: GenerationId,
    /// Whether it fails again and again.
    pub failing: bool,
    /// The generation that a reload under way is to bring.
    pub reloading: Option<GenerationId>,
    /// In how many slots its workers serve, and in how many they are to, where it goes in batches.
    pub changed_over: Option<(u32, u32)>,
    /// How the last reload failed, if it did and no other has begun since.
    pub last_abort: Option<&'a str>,
}

impl fmt::Display for Headline<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Headline { name, wanted, ready, draining, generation, failing, .. } = self;
        if self.leaving {
            return write!(f, "{name}: leaving, {draining} draining");
        }
        if !self.waits_for.is_empty() {
            return write!(f, "{name}: waiting for {}", self.waits_for.join(", "));
        }
        match self.state {
            ServiceState::Stopped => return write!(f, "{name}: stopped"),
            ServiceState::Stopping => return write!(f, "{name}: stopping, {draining} draining"),
            ServiceState::Waiting
            | ServiceState::Starting
            | ServiceState::Up
            | ServiceState::Reloading
            | ServiceState::Failing => {}
        }
        write!(f, "{name}: {ready} of {wanted} workers ready, generation {generation}")?;
        if *failing {
            write!(f, ", failing")?;
        }
        if *draining > 0 {
            write!(f, ", {draining} draining")?;
        }
        if let Some(next) = self.reloading {
            write!(f, ", reloading to generation {next}")?;
        }
        if let Some((over, workers)) = self.changed_over {
            write!(f, ", {over} of {workers} changed over")?;
        }
        match self.last_abort {
            Some(reason) => write!(f, "; {reason}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ServiceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let draining = self.workers.iter().filter(|worker| worker.stage == Stage::Draining).count();
        Headline {
            name: &self.name,
            leaving: self.membership == Membership::Leaving,
            waits_for: &self.waits_for,
            state: self.state,
            wanted: self.wanted,
            ready: self.ready,
            draining: u32::try_from(draining).unwrap_or(u32::MAX),
            generation: self.generation,
            failing: self.failing,
            reloading: self.reloading,
            changed_over: self.changed_over,
            last_abort: self.last_abort.as_deref(),
        }
        .fmt(f)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.stopping && self.lame_duck.is_none() {
            let left: usize = self.services.iter().map(|service| service.workers.len()).sum();
            return write!(f, "stopping: {left} workers left");
        }
        if self.stopping {
            write!(f, "stopping soon: ")?;
        }
        for (index, service) in self.services.iter().enumerate() {
            if index > 0 {
                write!(f, "; ")?;
            }
            write!(f, "{service}")?;
        }
        Ok(())
    }
}
