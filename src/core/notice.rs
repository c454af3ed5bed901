//! What a user should hear of, one line each: what happened, what shepherd does next, and when.

use std::fmt;
use std::time::Duration;

use super::drain::{Manners, Remains};
use super::event::{Exit, Used, Wrapped};
use super::ids::{GenerationId, Pid, SlotId, WorkerId};
use super::policy::{OnFailing, Signal};
use super::readiness::Evidence;
use super::refusal::CannotScale;
use super::reload::ReloadCause;
use super::restart::FAILING_AFTER;
use super::worker::Cause;

pub use batch_notice::{BatchNotice, Because};
pub use configuration_notice::ConfigurationNotice;
pub use dispatch_notice::{DispatchNotice, Whom};
pub use life_notice::LifeNotice;
pub use messages_notice::MessagesNotice;
pub use proving_notice::ProvingNotice;
pub use slot_notice::SlotNotice;
pub use socket_notice::{SocketNotice, Suspects};
pub use stall_notice::StallNotice;
pub use upstreams_notice::UpstreamsNotice;

mod batch_notice;
mod configuration_notice;
mod dispatch_notice;
mod life_notice;
mod messages_notice;

mod proving_notice;
mod slot_notice;

mod socket_notice;
mod stall_notice;
mod upstreams_notice;

/// A worker as people are told of it: "worker 3 (web.2)".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerName {
    /// Its number.
    pub worker: WorkerId,
    /// Its service's name.
    pub service: String,
    /// Its slot.
    pub slot: SlotId,
}

/// Something a user should hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A worker's program runs.
    Started {
        /// Which worker.
        worker: WorkerName,
        /// The definition it runs.
        generation: GenerationId,
        /// Its main process.
        pid: Pid,
    },
    /// A worker can serve.
    Ready {
        /// Which worker.
        worker: WorkerName,
        /// What showed it.
        evidence: Evidence,
        /// How long that took since it was spawned.
        after: Duration,
    },
    /// A worker that was not asked to stop has ended.
    Ended {
        /// Which worker.
        worker: WorkerName,
        /// Why.
        cause: Cause,
        /// Whether it had been ready.
        was_ready: bool,
        /// What happens with its slot.
        next: Next,
        /// What it has used, where it exited and that is counted.
        used: Option<Used>,
    },
    /// A worker named another process as its main one.
    MainChanged {
        /// Which worker.
        worker: WorkerName,
        /// The process.
        pid: Pid,
    },
    /// A worker is asked to stop.
    WorkerStopping {
        /// Which worker.
        worker: WorkerName,
        /// How.
        signal: Signal,
        /// When KILL follows.
        kill_after: Duration,
    },
    /// A worker is told over its channel to finish what it has and to leave.
    Farewell {
        /// Which worker.
        worker: WorkerName,
        /// What follows if it has not left.
        signal: Signal,
        /// When that does.
        signal_after: Duration,
        /// When KILL follows.
        kill_after: Duration,
    },
    /// A worker is to stop, and is asked to once the proxy in front was told.
    Withdrawing {
        /// Which worker.
        worker: WorkerName,
    },
    /// A worker is to stop, and is asked to once it has finished what it has.
    Emptying {
        /// Which worker.
        worker: WorkerName,
        /// When it is asked to in any case.
        longest: Duration,
    },
    /// A worker that was to finish what it has is asked to stop before it has.
    StillBusy {
        /// Which worker.
        worker: WorkerName,
        /// What was last seen of what it has.
        left: Remains,
        /// How long it had.
        after: Duration,
    },
    /// Something about connections that shepherd accepts.
    Dispatch(DispatchNotice),
    /// A worker takes nothing from a socket that it alone has, or does again.
    Stall {
        /// Which worker.
        worker: WorkerName,
        /// The socket, for people.
        socket: String,
        /// Which of the two, and what comes of it.
        what: StallNotice,
    },
    /// It was seen how a service's program stops.
    Manners {
        /// Which service.
        service: String,
        /// How.
        manners: Manners,
    },
    /// A worker did not stop in its time and is sent the next signal.
    NextSignal {
        /// Which worker.
        worker: WorkerName,
        /// What is sent.
        signal: Signal,
        /// How long it has been stopping.
        after: Duration,
    },
    /// A worker that was asked to stop, or said that it would, has exited.
    Drained {
        /// Which worker.
        worker: WorkerName,
        /// How it ended.
        how: Exit,
        /// How long that took.
        after: Duration,
        /// What it has used, where that is counted.
        used: Option<Used>,
    },
    /// A main process has gone and left others of its tree behind.
    LeftBehind {
        /// Whose.
        worker: WorkerName,
        /// How many.
        left: u32,
        /// What they are sent.
        signal: Signal,
        /// When KILL follows.
        kill_after: Duration,
    },
    /// A worker's tree is killed.
    Killing {
        /// Which worker.
        worker: WorkerName,
        /// How long after its stop, or its start when it was not asked before.
        after: Duration,
    },
    /// A worker's tree outlived every KILL.
    Unkillable {
        /// Which worker.
        worker: WorkerName,
    },
    /// A wrapper keeps the sockets from their reader.
    Wrapper {
        /// Whose.
        worker: WorkerName,
        /// The process that holds the sockets.
        wrapped: Wrapped,
    },
    /// What comes of a configuration.
    Configuration(ConfigurationNotice),
    /// All workers of a service are ready for the first time.
    Serving {
        /// The service's name.
        service: String,
        /// How many workers.
        workers: u32,
    },
    /// A service fails again and again.
    Failing {
        /// The service's name.
        service: String,
        /// What becomes of clients meanwhile.
        on_failing: OnFailing,
    },
    /// A failing service has a ready worker again.
    Recovered {
        /// The service's name.
        service: String,
    },
    /// An operator has a signal sent to a worker.
    Signalled {
        /// Which worker.
        worker: WorkerName,
        /// Which signal.
        signal: Signal,
    },
    /// A worker does not read messages that are for it, or does again.
    Messages {
        /// Which worker.
        worker: WorkerName,
        /// Which of the two.
        what: MessagesNotice,
    },
    /// The number of workers was changed.
    Scaled {
        /// The service's name.
        service: String,
        /// How many it wants from here on.
        workers: u32,
    },
    /// The number of workers stays as it is.
    NotScaled {
        /// The service's name.
        service: String,
        /// Why.
        why: CannotScale,
    },
    /// A reload was asked for and waits for its turn.
    ReloadQueued {
        /// The service's name.
        service: String,
        /// What it waits for.
        behind: &'static str,
    },
    /// A reload begins.
    ReloadBegins {
        /// The service's name.
        service: String,
        /// The definition that is to serve.
        generation: GenerationId,
        /// Why.
        cause: ReloadCause,
    },
    /// A reload is through: the new generation serves, the old one drains.
    ReloadCommitted {
        /// The service's name.
        service: String,
        /// The definition that serves.
        generation: GenerationId,
        /// How long it took.
        after: Duration,
        /// How many workers of older generations drain.
        draining: u32,
    },
    /// A reload is off: the old generation serves on.
    ReloadAborted {
        /// The service's name.
        service: String,
        /// The definition that was to serve.
        generation: GenerationId,
        /// The definition that serves on.
        serving: GenerationId,
        /// Why.
        reason: String,
        /// What comes next.
        next: AfterAbort,
    },
    /// An operator stops, starts or restarts a whole service.
    Life {
        /// The service's name.
        service: String,
        /// What becomes of it.
        what: LifeNotice,
    },
    /// Something became of the sockets that a slot has for itself.
    Slot {
        /// The service's name.
        service: String,
        /// Which slot.
        slot: SlotId,
        /// What.
        what: SlotNotice,
    },
    /// A new generation proves itself, or fails to.
    Proving {
        /// The service's name.
        service: String,
        /// How that goes.
        what: ProvingNotice,
    },
    /// Slots are changed over one batch after the other, or put back.
    Batch {
        /// The service's name.
        service: String,
        /// How that goes.
        what: BatchNotice,
    },
    /// What a proxy in front is told, or could not be.
    Upstreams {
        /// The service's name.
        service: String,
        /// What.
        what: UpstreamsNotice,
    },
    /// Somebody changed a socket that workers share, and what becomes of it.
    Socket {
        /// The socket, for people.
        socket: String,
        /// What happened to it.
        what: SocketNotice,
    },
    /// A stop was asked for, and begins with a time in which everything serves on.
    LameDuck {
        /// How long.
        serves_on: Duration,
    },
    /// Everything is asked to stop.
    Stopping {
        /// How many workers there are.
        workers: u32,
        /// When the last of them is killed.
        kill_after: Duration,
    },
    /// Everything is killed.
    StoppingNow {
        /// How many workers there are.
        workers: u32,
    },
}

/// What comes after a reload that was aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterAbort {
    /// The old generation serves on, until somebody asks for another reload.
    ServesOn,
    /// The old generation serves on, and another reload follows by itself.
    TriesAgain(Duration),
    /// The old generation is stopped too.
    Stops,
}

/// What happens with the slot of a worker that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Its replacement starts at once.
    RestartNow,
    /// Its replacement starts later, after a failure.
    Backoff {
        /// When.
        delay: Duration,
        /// How many failures there have been in a row in this slot.
        attempt: u32,
    },
    /// Its replacement starts later, because too many were replaced in the last second.
    Throttled {
        /// When.
        delay: Duration,
    },
    /// It belonged to a reload, which is aborted by this.
    AbortReload,
    /// It belonged to a reload that is off: a worker of the old generation is about to come anyway.
    PutBack,
}

/// How loud a notice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loudness {
    /// As it should be.
    Info,
    /// Somebody should look at it.
    Warning,
    /// Something that was asked for did not happen.
    Error,
}

impl Notice {
    /// The worker that failed by itself: what it wrote last may say why.
    #[must_use]
    pub fn blamed(&self) -> Option<&WorkerName> {
        match self {
            Notice::Ended { worker, cause, was_ready, .. } => match cause {
                Cause::Exited(Exit::Code(0)) => (!was_ready).then_some(worker),
                Cause::Exited(Exit::Code(_) | Exit::Signal { .. } | Exit::Unknown)
                | Cause::ChannelBroken(_)
                | Cause::Late { .. } => Some(worker),
                // It never ran, or leaves as it said.
                Cause::SpawnFailed(_) | Cause::Leaving => None,
            },
            Notice::Started { .. }
            | Notice::Ready { .. }
            | Notice::MainChanged { .. }
            | Notice::Withdrawing { .. }
            | Notice::Emptying { .. }
            | Notice::StillBusy { .. }
            | Notice::Stall { .. }
            | Notice::Dispatch(_)
            | Notice::Manners { .. }
            | Notice::WorkerStopping { .. }
            | Notice::Farewell { .. }
            | Notice::NextSignal { .. }
            | Notice::Drained { .. }
            | Notice::LeftBehind { .. }
            | Notice::Killing { .. }
            | Notice::Unkillable { .. }
            | Notice::Wrapper { .. }
            | Notice::Configuration(_)
            | Notice::Serving { .. }
            | Notice::Failing { .. }
            | Notice::Recovered { .. }
            | Notice::Socket { .. }
            | Notice::Slot { .. }
            | Notice::Upstreams { .. }
            | Notice::Signalled { .. }
            | Notice::Messages { .. }
            | Notice::Scaled { .. }
            | Notice::NotScaled { .. }
            | Notice::ReloadQueued { .. }
            | Notice::ReloadBegins { .. }
            | Notice::ReloadCommitted { .. }
            | Notice::ReloadAborted { .. }
            | Notice::Life { .. }
            | Notice::Proving { .. }
            | Notice::Batch { .. }
            | Notice::LameDuck { .. }
            | Notice::Stopping { .. }
            | Notice::StoppingNow { .. } => None,
        }
    }

    /// How loud it is.
    #[must_use]
    pub fn loudness(&self) -> Loudness {
        match self {
            Notice::Configuration(what) => what.loudness(),
            Notice::Socket { what, .. } => what.loudness(),
            Notice::Life { what, .. } => what.loudness(),
            Notice::Proving { what, .. } => what.loudness(),
            Notice::Batch { what, .. } => what.loudness(),
            Notice::Slot { what, .. } => what.loudness(),
            Notice::Messages { what, .. } => what.loudness(),
            Notice::Stall { what, .. } => what.loudness(),
            Notice::Dispatch(what) => what.loudness(),
            Notice::Upstreams { what, .. } => what.loudness(),
            Notice::Started { .. }
            | Notice::Ready { .. }
            | Notice::MainChanged { .. }
            | Notice::Withdrawing { .. }
            | Notice::Emptying { .. }
            | Notice::Manners { .. }
            | Notice::WorkerStopping { .. }
            | Notice::Farewell { .. }
            | Notice::Drained { .. }
            | Notice::Serving { .. }
            | Notice::Recovered { .. }
            | Notice::Signalled { .. }
            | Notice::Scaled { .. }
            | Notice::ReloadQueued { .. }
            | Notice::ReloadBegins { .. }
            | Notice::ReloadCommitted { .. }
            | Notice::LameDuck { .. }
            | Notice::Stopping { .. } => Loudness::Info,
            Notice::Ended { .. }
            | Notice::StillBusy { .. }
            | Notice::NextSignal { .. }
            | Notice::LeftBehind { .. }
            | Notice::Killing { .. }
            | Notice::Wrapper { .. }
            | Notice::NotScaled { .. }
            | Notice::StoppingNow { .. } => Loudness::Warning,
            Notice::Unkillable { .. } | Notice::Failing { .. } | Notice::ReloadAborted { .. } => {
                Loudness::Error
            }
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Started { worker, generation, pid } => {
                write!(f, "{worker} started: pid {pid}, generation {generation}")
            }
            Notice::Ready { worker, evidence, after } => {
                write!(f, "{worker} is ready after {}: {evidence}", Human(*after))
            }
            Notice::Ended { worker, cause, was_ready, next, used } => {
                write!(f, "{worker} {}", Told { cause, was_ready: *was_ready })?;
                write!(f, "; {next}{}", Also(*used))
            }
            Notice::MainChanged { worker, pid } => {
                write!(f, "{worker} names process {pid} as its main process")
            }
            Notice::WorkerStopping { worker, signal, kill_after } => {
                write!(f, "stopping {worker} with {signal}; SIGKILL in {}", Human(*kill_after))
            }
            Notice::Farewell { worker, signal, signal_after, kill_after } => {
                tell_farewell(worker, *signal, [*signal_after, *kill_after], f)
            }
            Notice::NextSignal { worker, signal, after } => {
                write!(f, "{worker} has not stopped after {}; sending {signal}", Human(*after))
            }
            Notice::Drained { worker, how, after, used } => {
                write!(f, "{worker} {how}, after {} of draining{}", Human(*after), Also(*used))
            }
            Notice::LeftBehind { worker, left, signal, kill_after } => {
                let processes = Count(*left, "process", "processes");
                write!(f, "{worker} left {processes} behind; sending {signal}, ")?;
                write!(f, "SIGKILL in {}", Human(*kill_after))
            }
            Notice::Killing { worker, after } => {
                write!(f, "killing {worker} and all its processes after {}", Human(*after))
            }
            Notice::Unkillable { worker } => {
                write!(f, "{worker} outlives SIGKILL, a process of it hangs in the kernel; ")?;
                write!(f, "giving it up")
            }
            Notice::Wrapper { worker, wrapped } => tell_wrapper(worker, wrapped, f),
            Notice::Configuration(what) => what.fmt(f),
            Notice::Serving { service, workers } => {
                write!(f, "{service}: {} ready", Count(*workers, "worker", "workers"))
            }
            Notice::Failing { service, on_failing } => tell_failing(service, *on_failing, f),
            Notice::Recovered { service } => write!(f, "{service} is no longer failing"),
            Notice::Signalled { worker, signal } => {
                write!(f, "{worker} is sent {signal}, as it was asked for")
            }
            Notice::Scaled { service, workers } => {
                write!(f, "{service}: {} wanted from here on", Count(*workers, "worker", "workers"))
            }
            Notice::NotScaled { service, why } => {
                write!(f, "{service}: the number of workers stays: {why}")
            }
            Notice::ReloadQueued { service, behind } => {
                write!(f, "{service}: reload queued behind {behind}")
            }
            Notice::ReloadBegins { service, generation, cause } => {
                write!(f, "{service}: reload begins")?;
                tell_cause(*generation, *cause, f)
            }
            Notice::ReloadCommitted { service, generation, after, draining } => {
                write!(f, "{service}: reload committed after {}: ", Human(*after))?;
                write!(f, "generation {generation} serves, ")?;
                write!(f, "{} draining", Count(*draining, "old worker", "old workers"))
            }
            Notice::ReloadAborted { service, generation, serving, reason, next } => {
                write!(f, "{service}: reload to generation {generation} aborted: {reason}")?;
                tell_after_abort(*serving, *next, f)
            }
            Notice::Withdrawing { worker } => {
                write!(f, "{worker} is to stop; telling the proxy in front first")
            }
            Notice::Emptying { worker, longest } => tell_emptying(worker, *longest, f),
            Notice::StillBusy { worker, left, after } => {
                write!(f, "{worker} has not finished in {}: {left}", Human(*after))
            }
            Notice::Messages { worker, what } => write!(f, "{worker} {what}"),
            Notice::Stall { worker, socket, what } => {
                write!(f, "{worker} ")?;
                what.tell(socket, f)
            }
            Notice::Dispatch(what) => what.fmt(f),
            Notice::Manners { service, manners } => tell_manners(service, *manners, f),
            Notice::Upstreams { service, what } => write!(f, "{service}: {what}"),
            Notice::Slot { service, slot, what } => write!(f, "{service}: slot {slot} {what}"),
            Notice::Life { service, what } => write!(f, "{service}: {what}"),
            Notice::Proving { service, what } => write!(f, "{service}: {what}"),
            Notice::Batch { service, what } => write!(f, "{service}: {what}"),
            Notice::Socket { socket, what } => what.tell(socket, f),
            Notice::LameDuck { serves_on } => {
                let time = Human(*serves_on);
                write!(f, "stopping in {time}; until then everything serves on")
            }
            Notice::Stopping { workers, kill_after } => tell_stop(*workers, *kill_after, f),
            Notice::StoppingNow { workers } => {
                write!(f, "killing {} at once", Count(*workers, "worker", "workers"))
            }
        }
    }
}

fn tell_failing(service: &str, on_failing: OnFailing, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{service} is failing: {FAILING_AFTER} workers in a row never got ready; ")?;
    write!(f, "trying on with growing delays, a reload tries a new version at once; ")?;
    match on_failing {
        OnFailing::Wait => write!(f, "clients wait meanwhile"),
        OnFailing::Refuse => write!(f, "clients are refused between the attempts"),
    }
}

fn tell_cause(
    generation: GenerationId,
    cause: ReloadCause,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    match cause {
        ReloadCause::Asked => write!(f, ": reading generation {generation}"),
        ReloadCause::RollBack(previous) | ReloadCause::Failed(previous) => {
            write!(f, ": generation {generation} is generation {previous} again")
        }
        ReloadCause::SocketRenewed => {
            write!(f, ", because a socket was bound anew: ")?;
            write!(f, "generation {generation} is the same program")
        }
    }
}

fn tell_farewell(
    worker: &WorkerName,
    signal: Signal,
    [signal_after, kill_after]: [Duration; 2],
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let (signal_after, kill_after) = (Human(signal_after), Human(kill_after));
    write!(f, "telling {worker} over its channel to leave; {signal} in {signal_after}, ")?;
    write!(f, "SIGKILL in {kill_after}")
}

fn tell_emptying(
    worker: &WorkerName,
    longest: Duration,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    write!(f, "{worker} gets nothing new; stopping it once it has finished what it has, ")?;
    write!(f, "in {} at the latest", Human(longest))
}

fn tell_manners(service: &str, manners: Manners, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match manners {
        Manners::Finishes => {
            write!(f, "{service}: its workers finish their connections after the stop signal; ")?;
            write!(f, "a reload does not wait for those from here on")
        }
        Manners::Cuts | Manners::Unknown => {
            write!(f, "{service}: the stop signal ends its workers in the middle of their ")?;
            write!(f, "connections; a reload waits for those first")
        }
    }
}

fn tell_after_abort(
    serving: GenerationId,
    next: AfterAbort,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    match next {
        AfterAbort::ServesOn => {
            write!(f, "; generation {serving} serves on, ")?;
            write!(f, "nothing is retried: mend it and reload again")
        }
        AfterAbort::TriesAgain(pause) => {
            write!(f, "; generation {serving} serves on, trying again in {}", Human(pause))
        }
        AfterAbort::Stops => Ok(()),
    }
}

fn tell_stop(workers: u32, kill_after: Duration, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if workers == 0 {
        return write!(f, "stopping; there is no worker");
    }
    write!(f, "stopping {}; ", Count(workers, "worker", "workers"))?;
    write!(f, "SIGKILL in {} at the latest", Human(kill_after))
}

fn tell_wrapper(worker: &WorkerName, wrapped: &Wrapped, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Wrapped { pid, name } = wrapped;
    write!(f, "{worker}: process {pid} (`{name}`) holds the sockets, but LISTEN_PID ")?;
    write!(f, "names another process, so a program that checks it will not take them; ")?;
    write!(f, "end the wrapper with `exec`, or with `shepherd exec -- COMMAND`")
}

impl fmt::Display for WorkerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {} ({}.{})", self.worker, self.service, self.slot)
    }
}

impl fmt::Display for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Next::RestartNow => write!(f, "restarting now"),
            Next::Backoff { delay, attempt } => {
                write!(f, "restarting in {} (attempt {})", Human(*delay), attempt + 1)
            }
            Next::Throttled { delay } => {
                write!(f, "restarting in {}: too many restarts in a second", Human(*delay))
            }
            Next::AbortReload => write!(f, "aborting the reload"),
            Next::PutBack => write!(f, "an old one takes its place"),
        }
    }
}

/// A cause as the rest of a sentence that begins with the worker.
pub(crate) struct Told<'a> {
    pub(crate) cause: &'a Cause,
    pub(crate) was_ready: bool,
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            Cause::SpawnFailed(failure) => write!(f, "cannot start: {}", failure.reason),
            Cause::Exited(how) if self.was_ready => write!(f, "{how}"),
            Cause::Exited(how) => write!(f, "{how} before it was ready"),
            Cause::Late { after, saw: None } => {
                write!(f, "was not ready within {} and is stopped", Human(*after))
            }
            Cause::Late { after, saw: Some(saw) } => {
                write!(f, "was not ready within {} and is stopped: {saw}", Human(*after))
            }
            Cause::ChannelBroken(reason) => {
                write!(f, "cannot be spoken to any more and is stopped: {reason}")
            }
            Cause::Leaving if self.was_ready => write!(f, "says that it is stopping"),
            Cause::Leaving => write!(f, "says that it is stopping, before it was ready"),
        }
    }
}

/// A duration as people say it: `35 ms`, `2 s`, `1.5 s`, `3 min`, `2 h`.
pub struct Human(pub Duration);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let seconds = self.0.as_secs();
        match seconds {
            0 => write!(f, "{millis} ms"),
            1..60 => {
                let tenths = (millis % 1000) / 100;
                match tenths {
                    0 => write!(f, "{seconds} s"),
                    _ => write!(f, "{seconds}.{tenths} s"),
                }
            }
            60..3600 if seconds.is_multiple_of(60) => write!(f, "{} min", seconds / 60),
            60..3600 => write!(f, "{} min {} s", seconds / 60, seconds % 60),
            _ if seconds % 3600 < 60 => write!(f, "{} h", seconds / 3600),
            _ => write!(f, "{} h {} min", seconds / 3600, seconds % 3600 / 60),
        }
    }
}

/// What was used, at the end of a sentence.
struct Also(Option<Used>);

impl fmt::Display for Also {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Used { processor, memory_most }) = self.0 else {
            return Ok(());
        };
        write!(f, "; it used {} of processor time", Human(processor))?;
        match memory_most {
            Some(bytes) => write!(f, " and {} of memory at most", Bytes(bytes)),
            None => Ok(()),
        }
    }
}

/// An amount of memory as people say it: `812 KiB`, `45 MiB`, `1.5 GiB`.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = self.0 >> 10;
        match kib {
            0..1024 => write!(f, "{kib} KiB"),
            1024..1_048_576 => write!(f, "{} MiB", kib >> 10),
            _ => write!(f, "{}.{} GiB", kib >> 20, ((kib & 0xf_ffff) * 10) >> 20),
        }
    }
}

/// A number with its noun.
struct Count(u32, &'static str, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count(number, one, many) = self;
        write!(f, "{number} {}", if *number == 1 { one } else { many })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        for (millis, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1000, "1 s"),
            (1560, "1.5 s"),
            (30_000, "30 s"),
            (60_000, "1 min"),
            (90_000, "1 min 30 s"),
            (7_200_000, "2 h"),
            (9_000_000, "2 h 30 min"),
        ] {
            assert_eq!(Human(Duration::from_millis(millis)).to_string(), text);
        }
    }

    #[test]
    fn a_stop_without_workers_promises_no_signal() {
        let told = |workers| {
            let kill_after = Duration::from_secs(30);
            Notice::Stopping { workers, kill_after }.to_string()
        };
        assert_eq!(told(0), "stopping; there is no worker");
        assert_eq!(told(1), "stopping 1 worker; SIGKILL in 30 s at the latest");
    }

    #[test]
    fn who_fails_is_blamed_and_who_leaves_is_not() {
        let blamed = |cause, was_ready| {
            let worker = WorkerName { worker: WorkerId(3), service: "web".into(), slot: SlotId(2) };
            let next = Next::RestartNow;
            let notice = Notice::Ended { worker, cause, was_ready, next, used: None };
            notice.blamed().is_some()
        };
        assert!(blamed(Cause::Exited(Exit::Code(3)), true));
        assert!(blamed(Cause::Exited(Exit::KILLED), true));
        assert!(blamed(Cause::Exited(Exit::Code(0)), false));
        assert!(blamed(Cause::Late { after: Duration::from_secs(30), saw: None }, false));
        assert!(!blamed(Cause::Exited(Exit::Code(0)), true));
        assert!(!blamed(Cause::Leaving, true));
    }

    #[test]
    fn an_ending_says_what_comes_next_and_when() {
        let worker = WorkerName { worker: WorkerId(3), service: "web".into(), slot: SlotId(2) };
        let notice = Notice::Ended {
            worker,
            cause: Cause::Exited(Exit::Code(1)),
            was_ready: false,
            next: Next::Backoff { delay: Duration::from_secs(2), attempt: 2 },
            used: None,
        };
        assert_eq!(
            notice.to_string(),
            "worker 3 (web.2) exited with code 1 before it was ready; \
             restarting in 2 s (attempt 3)"
        );
    }

    #[test]
    fn an_ending_says_what_was_used_as_far_as_it_is_known() {
        let notice = |memory_most| Notice::Drained {
            worker: WorkerName { worker: WorkerId(3), service: "web".into(), slot: SlotId(0) },
            how: Exit::Code(0),
            after: Duration::from_millis(12),
            used: Some(Used { processor: Duration::from_millis(1312), memory_most }),
        };
        for (memory, said) in [
            (None, ""),
            (Some(812 << 10), " and 812 KiB of memory at most"),
            (Some((45 << 20) + 7), " and 45 MiB of memory at most"),
            (Some(3 << 29), " and 1.5 GiB of memory at most"),
            (Some(u64::MAX), " and 17179869183.9 GiB of memory at most"),
        ] {
            assert_eq!(
                notice(memory).to_string(),
                format!(
                    "worker 3 (web.0) exited with code 0, after 12 ms of draining; \
                     it used 1.3 s of processor time{said}"
                )
            );
        }
    }
}
