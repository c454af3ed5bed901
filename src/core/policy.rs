//! What a service's author decides, as plain data; configuration produces it, the core obeys it.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::ids::{MemberId, ServiceId, SocketId};
use super::service::WORKERS_MAX;

/// Everything the core must know of a service. Its command, environment and directory stay outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Which service this is.
    pub service: ServiceId,
    /// Its name, for people.
    pub name: String,
    /// How many workers it wants, at least 1.
    pub workers: u32,
    /// What becomes of clients while it fails again and again.
    pub on_failing: OnFailing,
    /// The sockets its workers share, in the order in which they get them.
    pub sockets: Vec<Socket>,
    /// The proxy in front that is told which slots have a ready worker: how, in words that differ
    /// where anything about it does. The core compares them and reads nothing in them.
    pub proxy: Option<String>,
    /// What counts as evidence that a worker can serve.
    pub ready: ReadyWhen,
    /// How long a worker may take to become ready.
    pub ready_timeout: Duration,
    /// How often it is checked, where a check is what makes it ready.
    pub check_pace: CheckPace,
    /// How many workers of a new generation may run beside the old ones in a reload.
    pub surge: Surge,
    /// What share of new connections a new generation gets at first, if that is not all of them.
    pub canary: Option<Canary>,
    /// How long a new generation has to serve without a worker that ends by itself; until then it is
    /// rolled back if one does.
    pub probation: Duration,
    /// How long a worker may finish what it has before it is asked to stop, while others get what is
    /// new.
    pub before_stop: BeforeStop,
    /// What becomes of its idle kept-alive connections meanwhile.
    pub keepalive: KeepAlive,
    /// How a worker is asked to stop.
    pub stop: StopLadder,
    /// How many workers of a new generation may be starting at a time, at least 1.
    pub starting_max: u32,
    /// How many workers of the serving generation may be on their way from spawn to program at a
    /// time, at least 1: what else happens is heard between two starts.
    pub launching_max: u32,
    /// The services that must have been ready once before it starts.
    pub depends_on: BTreeSet<ServiceId>,
    /// The same, and it is stopped, started and restarted together with them.
    pub bind_to: BTreeSet<ServiceId>,
}

impl Policy {
    /// The first kernel sockets of what it names.
    pub fn members(&self) -> impl Iterator<Item = MemberId> + '_ {
        self.sockets.iter().flat_map(Socket::members)
    }

    /// The services that must have been ready once before it starts, whatever else it has to do with
    /// them.
    pub fn needs(&self) -> impl Iterator<Item = ServiceId> + '_ {
        self.depends_on.union(&self.bind_to).copied()
    }
}

/// A socket that workers get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// Which one.
    pub id: SocketId,
    /// Its name, or else its address, for people.
    pub name: String,
    /// Who shares it.
    pub members: Members,
    /// Whether the kernel can be told which of its members get new connections.
    pub steered: bool,
    /// Whether its members can stop listening and begin again: those of TCP that we bound.
    pub refusable: bool,
}

impl Socket {
    /// The first kernel sockets behind it.
    pub fn members(&self) -> impl Iterator<Item = MemberId> + use<> {
        let members = match &self.members {
            Members::Shared | Members::EachGeneration | Members::Dispatched(_) => {
                vec![MemberId(self.id.0)]
            }
            Members::EachWorker { bound } | Members::EachSlot { bound, .. } => {
                bound.iter().map(|bound| bound.member).collect()
            }
        };
        members.into_iter()
    }
}

/// The kernel sockets behind a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Members {
    /// One, which all workers of all generations share. The first has the number of the socket.
    Shared,
    /// One, which no worker gets: shepherd accepts, and gives the connections to workers of all
    /// generations. It has the number of the socket.
    Dispatched(Algorithm),
    /// One for each generation, which its workers share. The first has the number of the socket.
    EachGeneration,
    /// One for each slot of each generation.
    EachWorker {
        /// Those that are bound when the service begins: of the first slots, one for each worker
        /// that is wanted then.
        bound: Vec<BoundMember>,
    },
    /// Each slot has one of its own, which its workers get one after the other.
    EachSlot {
        /// Those that are bound when the service begins: of the first slots, one for each worker
        /// that is wanted then.
        bound: Vec<BoundMember>,
        /// How many slots there can be: as many as there are ports from the first on.
        slots_max: u32,
    },
}

/// A kernel socket that is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundMember {
    /// Which one.
    pub member: MemberId,
    /// Where it is to be reached, for people.
    pub name: String,
}

impl Policy {
    /// How many workers it may want: no more than its sockets have ports for.
    #[must_use]
    pub fn workers_max(&self) -> u32 {
        let slots = self.sockets.iter().filter_map(|socket| match socket.members {
            Members::Shared
            | Members::Dispatched(_)
            | Members::EachGeneration
            | Members::EachWorker { .. } => None,
            Members::EachSlot { slots_max, .. } => Some(slots_max),
        });
        slots.min().unwrap_or(WORKERS_MAX).min(WORKERS_MAX)
    }
}

/// What counts as evidence that a worker can serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadyWhen {
    /// The first of `Notify`, `Listen` and `Message`. Without a socket, or where nothing can be read, a
    /// worker that has been alive for a second is assumed to be ready.
    Auto,
    /// It sent `READY=1` to its notification socket.
    Notify,
    /// It was seen waiting on one of its sockets. One that asked for its sockets over its channel says
    /// itself when all of them listen.
    Listen,
    /// Its program sent the message `"ready"` over its channel.
    Message,
    /// It has been alive for so long.
    Alive(Duration),
    /// It passes this check.
    Check(Check),
}

/// What is tried with a starting worker, again and again, until it passes. Users know it as a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// It takes a connection to its first stream socket.
    Tcp,
    /// It answers a GET request for this path, on its first stream socket, with a status from 200
    /// to 399.
    Http(String),
    /// This command of the shell exits with 0.
    Exec(String),
}

/// How often a check is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckPace {
    /// The longest pause from the end of one try to the beginning of the next; the first pauses are
    /// shorter.
    pub interval: Duration,
    /// How long one try may take.
    pub timeout: Duration,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Check::Tcp => write!(f, "by TCP"),
            Check::Http(path) => write!(f, "`GET {path}`"),
            Check::Exec(command) => write!(f, "`{command}`"),
        }
    }
}

impl ReadyWhen {
    /// Whether `READY=1` counts.
    pub(crate) fn takes_word(&self) -> bool {
        match self {
            ReadyWhen::Auto | ReadyWhen::Notify => true,
            ReadyWhen::Listen | ReadyWhen::Message | ReadyWhen::Alive(_) | ReadyWhen::Check(_) => {
                false
            }
        }
    }

    /// Whether the message `"ready"` counts.
    pub(crate) fn takes_message(&self) -> bool {
        match self {
            ReadyWhen::Auto | ReadyWhen::Message => true,
            ReadyWhen::Listen | ReadyWhen::Notify | ReadyWhen::Alive(_) | ReadyWhen::Check(_) => {
                false
            }
        }
    }

    /// Whether being seen waiting on a socket counts.
    pub(crate) fn takes_sight(&self) -> bool {
        match self {
            ReadyWhen::Auto | ReadyWhen::Listen => true,
            ReadyWhen::Notify | ReadyWhen::Message | ReadyWhen::Alive(_) | ReadyWhen::Check(_) => {
                false
            }
        }
    }

    /// What is tried with a starting worker, if that is what counts.
    #[must_use]
    pub fn check(&self) -> Option<&Check> {
        match self {
            ReadyWhen::Check(check) => Some(check),
            ReadyWhen::Auto
            | ReadyWhen::Notify
            | ReadyWhen::Listen
            | ReadyWhen::Message
            | ReadyWhen::Alive(_) => None,
        }
    }
}

/// How many workers of a new generation may run beside the old ones while a reload is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Surge {
    /// All of them if memory allows, else as many as fit, and one at least.
    #[default]
    Auto,
    /// So many. None: each worker is stopped before the one in its place is started.
    Count(u32),
    /// So many of a hundred that are wanted, rounded up.
    Percent(u32),
}

impl Surge {
    /// How many that are of so many that are wanted; `None` where memory says it.
    #[must_use]
    pub fn of(self, wanted: u32) -> Option<u32> {
        match self {
            Surge::Auto => None,
            Surge::Count(count) => Some(count),
            Surge::Percent(percent) => {
                let part = (u64::from(wanted) * u64::from(percent)).div_ceil(100);
                Some(u32::try_from(part).unwrap_or(u32::MAX))
            }
        }
    }
}

/// A new generation is given a part of new connections first, and watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Canary {
    /// Of a hundred new connections it gets so many, from 1 to 99.
    pub percent: u32,
    /// For so long.
    pub time: Duration,
}

/// What becomes of clients that connect to a service whose workers fail again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailing {
    /// They wait in the queue for a worker that is ready.
    #[default]
    Wait,
    /// They are refused, but for the time that an attempt takes.
    Refuse,
}

/// How connections find a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// The workers of a generation share a socket, and the kernel is told which generation gets what.
    #[default]
    Generation,
    /// Each worker has a socket of its own, and the kernel is told which get what.
    Slots,
    /// All workers of all generations share one socket.
    Shared,
    /// shepherd accepts, and gives each connection to a worker that it chooses so.
    Dispatch(Algorithm),
}

/// Which worker gets the next connection, where shepherd accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// Whoever has the fewest that it has not answered for; of those, whoever was given one longest
    /// ago. Workers that answer at once take turns.
    #[default]
    RoundRobin,
    /// Whoever has the fewest open ones, counting those that it has not answered for.
    LeastConnections,
    /// The worker of the slot that the client's address leads to, as long as it serves.
    Sticky,
}

/// How long workers that get nothing new may finish what they have before the stop signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeforeStop {
    /// As long as their queues need; and for connections to end 15 s at most, unless the program was
    /// seen to finish those after the signal.
    Auto,
    /// So long at most, for queues and connections. Zero is not at all.
    For(Duration),
}

/// What becomes of idle kept-alive connections of workers that get nothing new and were not asked to
/// stop yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeepAlive {
    /// Their clients close them when they like.
    #[default]
    Leave,
    /// The worker is made to believe that their clients have closed them.
    CloseIdle,
}

/// How a worker is asked to stop: signals, each with the time it is given. KILL follows the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopLadder {
    first: StopStep,
    then: Vec<StopStep>,
}

/// How long a program has between the first signal and what comes next if it had the drain's time
/// before, since it was told to leave over its channel: for what it does at its end.
const AFTER_FAREWELL: Duration = Duration::from_secs(5);

/// One rung: a signal to the worker's main process, and how long to wait after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopStep {
    /// What is sent.
    pub signal: Signal,
    /// How long the worker has before the next rung.
    pub wait: Duration,
}

impl StopLadder {
    /// A ladder of at least one rung.
    #[must_use]
    pub fn new(first: StopStep, then: Vec<StopStep>) -> StopLadder {
        StopLadder { first, then }
    }

    /// The rung with this number, from 0 on.
    #[must_use]
    pub fn step(&self, rung: usize) -> Option<StopStep> {
        match rung.checked_sub(1) {
            None => Some(self.first),
            Some(index) => self.then.get(index).copied(),
        }
    }

    /// The first rung.
    #[must_use]
    pub fn first(&self) -> StopStep {
        self.first
    }

    /// How long the first signal is waited for of a worker that was told before to leave, and had its
    /// time for that.
    #[must_use]
    pub fn first_after_farewell(&self) -> Duration {
        self.first.wait.min(AFTER_FAREWELL)
    }

    /// How long it takes before KILL where a worker is told over its channel first.
    #[must_use]
    pub fn total_with_farewell(&self) -> Duration {
        self.total().saturating_add(self.first_after_farewell())
    }

    /// How long the whole ladder takes before KILL.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.then.iter().fold(self.first.wait, |sum, step| sum.saturating_add(step.wait))
    }
}

macro_rules! signals {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),+ $(,)?) => {
        /// A signal that shepherd may send to a worker, by its name in signal(7).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Signal {
            $($(#[$doc])* $variant,)+
        }

        impl Signal {
            /// All of them, in the order of their usual numbers.
            pub const ALL: &'static [Signal] = &[$(Signal::$variant),+];

            /// The name without `SIG`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Signal::$variant => $name,)+
                }
            }
        }
    };
}

signals! {
    /// Hang-up; many daemons re-read their configuration.
    Hup = "HUP",
    /// Interrupt from the keyboard.
    Int = "INT",
    /// Quit; the graceful stop of nginx, unicorn and php-fpm.
    Quit = "QUIT",
    /// Abort, with a core dump by default.
    Abrt = "ABRT",
    /// Cannot be caught or ignored.
    Kill = "KILL",
    /// User-defined.
    Usr1 = "USR1",
    /// User-defined.
    Usr2 = "USR2",
    /// Alarm clock.
    Alrm = "ALRM",
    /// Asks to terminate.
    Term = "TERM",
    /// Continues a stopped process.
    Cont = "CONT",
    /// Window size changed; the graceful stop of Apache's workers.
    Winch = "WINCH",
    /// Power failure; some programs shut down on it.
    Pwr = "PWR",
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIG{}", self.name())
    }
}
