//! Everything that can happen. What goes wrong outside is an event too, never an error.

use std::fmt;
use std::time::Duration;

use super::ids::{GenerationId, MemberId, Pid, RequestId, ServiceId, WorkerId};
use super::policy::Signal;
use super::request::Request;

/// Something that happened to a worker, a generation, or was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Something happened to a worker.
    Worker(WorkerId, WorkerEvent),
    /// Something happened to a socket that workers share.
    Socket(MemberId, SocketEvent),
    /// The definition of a generation was read again, and is whole.
    Prepared {
        /// Whose definition.
        service: ServiceId,
        /// Which one, as named in the action.
        generation: GenerationId,
    },
    /// The definition of a generation could not be read; nothing has changed.
    PrepareFailed {
        /// Whose definition.
        service: ServiceId,
        /// Which one, as named in the action.
        generation: GenerationId,
        /// What is wrong and what to do about it, for people.
        reason: String,
    },
    /// An operator asks for something.
    Requested(RequestId, Request),
}

/// What can happen to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerEvent {
    /// Its program runs: everything before it went well.
    Started {
        /// The process, for people.
        pid: Pid,
    },
    /// Its program could not be run. Nothing of the attempt is left.
    SpawnFailed(SpawnFailure),
    /// Its main process has exited and is reaped.
    Exited {
        /// How it ended.
        how: Exit,
        /// How many other processes of its tree live on. When it is not 0, `TreeGone` follows.
        left: u32,
        /// What its tree has used, where that is counted.
        used: Option<Used>,
    },
    /// After `Exited` with processes left: the last of them is gone.
    TreeGone,
    /// `READY=1` from a process of its tree.
    SaidReady,
    /// `STOPPING=1` from a process of its tree: it is about to leave by itself, or as asked.
    SaidStopping,
    /// `STATUS=`: a line for people, already made printable and cut to a bound.
    SaidStatus(String),
    /// `EXTEND_TIMEOUT_USEC=`: it asks for so much more time from now.
    SaidExtend(Duration),
    /// `MAINPID=` named another process of its tree, which is its main process from here on.
    MainChanged {
        /// The process, for people.
        pid: Pid,
    },
    /// The answer to `Action::Probe`.
    Probed(Sight),
}

/// What can happen to a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketEvent {
    /// The answer to `Action::Inspect`.
    Inspected {
        /// The worker that the action named.
        by: Option<WorkerId>,
        /// What was seen.
        state: SocketState,
    },
}

/// What any worker can change on a socket, for all who share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketState {
    /// Whether calls on it wait.
    pub mode: Mode,
    /// How many connections may wait.
    pub backlog: Backlog,
}

/// Whether calls on a socket wait, `O_NONBLOCK` in open(2). It belongs to the open file, which all
/// workers share, not to each one's descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They wait.
    Blocking,
    /// They do not.
    NonBlocking,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mode::Blocking => write!(f, "blocking"),
            Mode::NonBlocking => write!(f, "non-blocking"),
        }
    }
}

/// How many connections may wait in a socket's queue, see listen(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backlog {
    /// As many as we set, or it has no queue.
    AsSet,
    /// Somebody called listen(2) with another number.
    Changed {
        /// How many.
        to: u32,
        /// How many we had set.
        from: u32,
    },
    /// It cannot be seen.
    Unseen,
}

/// What was seen when a starting worker was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// Whether somebody waits on one of its sockets.
    pub waiting: Waiting,
    /// A wrapper keeps the sockets' real reader from knowing that they are meant for it.
    pub wrapped: Option<Wrapped>,
}

/// Whether a worker waits on one of its sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// A process of its tree does.
    Seen,
    /// None does.
    NotSeen,
    /// The kernel does not let us look.
    Unreadable,
}

/// A process that runs a program of its own inside a worker's tree and holds the worker's sockets,
/// while `LISTEN_PID` names another one: a reader that keeps to the convention leaves them alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped {
    /// The process, for people.
    pub pid: Pid,
    /// Its name.
    pub name: String,
}

/// How a main process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// A signal ended it.
    Signal {
        /// Its number, see signal(7).
        number: i32,
        /// Its name with `SIG`, where it has one.
        name: Option<&'static str>,
        /// Whether a core was dumped.
        core: bool,
    },
    /// It was not our child, and its parent took the status.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exited with code {code}"),
            Exit::Signal { number, name, core } => {
                match name {
                    Some(name) => write!(f, "was ended by {name}")?,
                    None => write!(f, "was ended by signal {number}")?,
                }
                if *core { write!(f, " (core dumped)") } else { Ok(()) }
            }
            Exit::Unknown => write!(f, "exited, its status known to its parent only"),
        }
    }
}

/// What a worker's tree has used from its start on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// Processor time, of all processors together.
    pub processor: Duration,
    /// The most memory at a time, in bytes, where that is counted.
    pub memory_most: Option<u64>,
}

/// Why a program could not be run, ready to follow "cannot start `web`: ".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpawnFailure {
    /// The step that failed, the cause, and the next step where there is one.
    pub reason: String,
}

impl Exit {
    /// The end by KILL, as an operator or the kernel's out-of-memory killer sends it.
    pub const KILLED: Exit = Exit::Signal { number: 9, name: Some("SIGKILL"), core: false };

    /// Whether `signal` ended it, by name.
    #[must_use]
    pub fn by(self, signal: Signal) -> bool {
        match self {
            Exit::Signal { name: Some(name), .. } => {
                name.strip_prefix("SIG") == Some(signal.name())
            }
            Exit::Signal { name: None, .. } | Exit::Code(_) | Exit::Unknown => false,
        }
    }
}
