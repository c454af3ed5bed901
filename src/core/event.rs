//! Everything that can happen. What goes wrong outside is an event too, never an error.
//!
//! What changes the order of sockets at an address is told in the order in which it happened: what
//! workers shut down, and what our actions bind, have listen and close. See [`super::steering`].

use std::fmt;
use std::time::Duration;

use super::configuration::Configuration;
use super::ids::{GenerationId, MemberId, Pid, RequestId, ServiceId, SlotId, SocketId, WorkerId};
use super::policy::{BoundMember, Signal};
use super::request::Request;

/// Something that happened to a worker, a generation, or was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Something happened to a worker.
    Worker(WorkerId, WorkerEvent),
    /// Something happened to a socket that workers share.
    Socket(MemberId, SocketEvent),
    /// The answer to `Action::Close`, of all that were closed one after the other, in this order.
    Closed(Vec<MemberId>),
    /// The definition of a generation was read again, and is whole.
    Prepared {
        /// Whose definition.
        service: ServiceId,
        /// Which one, as named in the action.
        generation: GenerationId,
        /// The sockets that were bound, all that the action named.
        bound: Vec<BoundMember>,
        /// The path of a program whose file cannot be kept, as that of a script: what is there when a
        /// worker starts is run.
        by_path: Option<String>,
    },
    /// The definition of a generation could not be read, or its sockets could not be bound; nothing
    /// has changed.
    PrepareFailed {
        /// Whose definition.
        service: ServiceId,
        /// Which one, as named in the action.
        generation: GenerationId,
        /// What is wrong.
        fault: Fault,
    },
    /// The answer to `Action::BindSlot`: a slot has the sockets that are its own.
    SlotBound {
        /// Whose slot.
        service: ServiceId,
        /// The generation, as named in the action.
        generation: Option<GenerationId>,
        /// Which slot.
        slot: SlotId,
        /// Its sockets, as named in the action.
        members: Vec<(SocketId, BoundMember)>,
    },
    /// The answer to `Action::BindSlot`: one of them could not be bound, so that none is.
    SlotNotBound {
        /// Whose slot.
        service: ServiceId,
        /// The generation, as named in the action.
        generation: Option<GenerationId>,
        /// Which slot.
        slot: SlotId,
        /// Which one, why, and the next step, for people.
        reason: String,
    },
    /// The answer to `Action::BindSpares`: they are there, or none is, for this reason.
    SparesBound {
        /// Whose.
        service: ServiceId,
        /// As named in the action.
        members: Vec<MemberId>,
        /// For people.
        failure: Option<String>,
    },
    /// The answer to `Action::LookAtDrain`. What is on its way from a handshake to a queue to a worker
    /// was looked for in this order, so that nothing was passed by.
    DrainSeen {
        /// Whose.
        service: ServiceId,
        /// What was seen.
        seen: DrainSeen,
    },
    /// The answer to `Action::LookAtQueues`.
    QueuesSeen {
        /// Whose.
        service: ServiceId,
        /// What waits on each socket; `None` where that cannot be known.
        members: Vec<(MemberId, Option<Queued>)>,
    },
    /// The answer to `Action::Weigh`.
    Weighed {
        /// Whose.
        service: ServiceId,
        /// As named in the action.
        generation: GenerationId,
        /// For how many more workers there is memory; `None` where that cannot be known.
        room: Option<u32>,
    },
    /// The answer to `Action::Publish`: the proxy was told, or not.
    Published {
        /// Whose slots.
        service: ServiceId,
        /// Which round.
        number: u64,
        /// Why it was not told, for people; nothing where it was.
        failure: Option<String>,
    },
    /// The answer to `Action::ReadConfiguration`: it was read, and what it binds is bound.
    ConfigurationRead {
        /// The reload that wanted it.
        request: RequestId,
        /// What it says.
        configuration: Configuration,
    },
    /// The answer to `Action::ReadConfiguration`: there is a mistake in it, or it cannot be bound.
    /// Nothing has changed.
    ConfigurationFailed {
        /// The reload that wanted it.
        request: RequestId,
        /// What is wrong.
        fault: Fault,
    },
    /// An operator asks for something.
    Requested(RequestId, Request),
}

/// What is left on a socket that gets nothing new; `None` of each where that cannot be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Left {
    /// Connections that are being made.
    pub handshakes: Option<u32>,
    /// Connections, or datagrams, that nobody has taken.
    pub queued: Option<u32>,
}

/// What waits on a socket and nobody has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued {
    /// So many connections.
    Connections(u32),
    /// Datagrams of so many bytes, with what it takes to keep them.
    Bytes(u32),
}

impl Queued {
    /// How much it is, by its own measure.
    #[must_use]
    pub fn count(self) -> u32 {
        match self {
            Queued::Connections(count) | Queued::Bytes(count) => count,
        }
    }
}

impl fmt::Display for Queued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Queued::Connections(1) => write!(f, "1 connection"),
            Queued::Connections(count) => write!(f, "{count} connections"),
            Queued::Bytes(count) => write!(f, "{} KiB of datagrams", count.div_ceil(1024)),
        }
    }
}

/// What a look at workers that drain saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainSeen {
    /// Which look.
    pub number: u64,
    /// What is left of each socket.
    pub members: Vec<(MemberId, Left)>,
    /// How many connections each worker has open; `None` where that cannot be known.
    pub workers: Vec<(WorkerId, Option<u32>)>,
    /// How those that were asked to stop close the connections that they had.
    pub asked: Vec<(WorkerId, Closing)>,
}

/// How a worker that was asked to stop ends the connections that it had, as far as that was seen.
/// Those that its clients ended do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Closing {
    /// How many it has open. Of many a part is watched.
    pub open: u32,
    /// How many it closed after it had answered the last request on them, since it was asked.
    pub finished: u32,
    /// How many ended with a request that was not answered.
    pub cut: u32,
    /// How many were idle, and ended with a process that had done nothing about them.
    pub left: u32,
}

/// Why a generation cannot be: what is wrong and what to do about it, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A mistake in what was read.
    Definition(String),
    /// A socket that cannot be bound.
    Sockets(String),
}

impl Fault {
    /// What is wrong and what to do about it.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Fault::Definition(reason) | Fault::Sockets(reason) => reason,
        }
    }
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
    /// It asked over its channel for a socket to listen on, as a program of Node's does with its
    /// primary, and has it. It is told over the channel to leave.
    Asked,
    /// All that it asked for listen.
    Listens,
    /// Its program sent the message `"ready"` over its channel.
    SentReady,
    /// Its channel has ended: there is nothing that it could be told by it.
    ChannelEnded,
    /// Its channel is of no use any more, for this reason: it has to be replaced.
    ChannelBroken(String),
    /// The answer to `Action::Probe`.
    Probed(Sight),
    /// The answer to `Action::Check`.
    Checked(Finding),
}

/// What a check saw. Whether that is enough is the core's to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A connection was taken.
    TookConnection(Taker),
    /// A request was answered with this status.
    Answered {
        /// The status of the response, as HTTP has it.
        status: u16,
        /// Who answered.
        by: Taker,
    },
    /// The command ended.
    Exited {
        /// How.
        how: Exit,
        /// The first line of its output, cut to a bound.
        said: Option<String>,
    },
    /// No connection could be made, for this reason.
    NotConnected(String),
    /// Nobody took the connection.
    NotTaken,
    /// All connections were taken by other workers, as far as was seen.
    TakenByOthers,
    /// Taken or not cannot be told, for this reason.
    Unseeable(Unseeable),
    /// The connection ended before anything was answered.
    CutOff,
    /// No whole answer came in time, only so many bytes.
    Unanswered {
        /// How many.
        bytes: usize,
    },
    /// The answer is no response of HTTP.
    Garbled(Garbled),
    /// The command did not end in time and was killed.
    Hung,
    /// The command could not be run, for this reason.
    NotRun(String),
}

/// Who took a connection of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taker {
    /// A process of the worker's tree; or no other worker was there to take it.
    Itself,
    /// It or another worker: the machine does not show it.
    Unseen,
}

/// Why it cannot be told whether a connection was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unseeable {
    /// The socket keeps connections back until data comes, see `TCP_DEFER_ACCEPT` in tcp(7).
    Deferred,
    /// The kernel does not tell, see sock_diag(7).
    NoDiagnosis,
}

/// How an answer fails to be a response of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Garbled {
    /// It is a message of TLS.
    Tls,
    /// It does not begin as a response does.
    NotHttp,
    /// Its head has no end within the bound.
    HeadTooLong,
    /// It ended in the middle of its head.
    Cut,
}

impl fmt::Display for Finding {
    /// The rest of a sentence that begins with the check.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::TookConnection(by) => write!(f, "had a connection taken{by}"),
            Finding::Answered { status, by } => write!(f, "got status {status}{by}"),
            Finding::Exited { how, said: None } => write!(f, "{how}"),
            Finding::Exited { how, said: Some(line) } => write!(f, "{how}: {line}"),
            Finding::NotConnected(reason) => write!(f, "could not connect to {reason}"),
            Finding::NotTaken => write!(f, "saw nobody take its connection"),
            Finding::TakenByOthers => write!(f, "saw its connections taken by other workers"),
            Finding::Unseeable(Unseeable::Deferred) => {
                write!(f, "cannot see who takes a connection, since the socket keeps it back ")?;
                write!(f, "until data comes (TCP_DEFER_ACCEPT); use `--ready http:/path`")
            }
            Finding::Unseeable(Unseeable::NoDiagnosis) => {
                write!(f, "cannot see who takes a connection, since this kernel does not tell ")?;
                write!(f, "(sock_diag); use `--ready http:/path`")
            }
            Finding::CutOff => write!(f, "had its connection closed without an answer"),
            Finding::Unanswered { bytes: 0 } => write!(f, "got no answer in its time"),
            Finding::Unanswered { bytes } => {
                write!(f, "got {bytes} bytes and no whole answer in its time")
            }
            Finding::Garbled(Garbled::Tls) => {
                write!(f, "was answered in TLS, and speaks plain HTTP; ")?;
                write!(f, "use `--ready tcp` or `exec:COMMAND`")
            }
            Finding::Garbled(Garbled::NotHttp) => write!(f, "got an answer that is not HTTP"),
            Finding::Garbled(Garbled::HeadTooLong) => {
                write!(f, "got an answer whose head does not end")
            }
            Finding::Garbled(Garbled::Cut) => write!(f, "got an answer that was cut off"),
            Finding::Hung => write!(f, "did not end in its time and was killed"),
            Finding::NotRun(reason) => write!(f, "could not be run: {reason}"),
        }
    }
}

impl fmt::Display for Taker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Taker::Itself => Ok(()),
            Taker::Unseen => write!(f, "; by which worker cannot be seen"),
        }
    }
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
    /// Somebody called shutdown(2) on it: nobody can connect any more.
    ShutDown(Repair),
    /// The file of a unix socket is not at its path any more: nobody can connect any more.
    PathGone,
    /// The answer to `Action::Listen`: it does.
    Listens,
    /// The answer to `Action::Renew`: the new socket is bound and listens.
    Renewed {
        /// The new one.
        to: MemberId,
    },
    /// The answer to `Action::Renew`: the file is at its path again, nothing was bound.
    Back,
    /// What was tried to repair it did not go.
    RepairFailed {
        /// What was tried.
        repair: Repair,
        /// Why it did not go, and the next step, for people.
        reason: String,
        /// Whether it can go another time.
        again: Again,
    },
    /// The answer to `Action::FindHolders`, for those that still run.
    Held(Vec<(WorkerId, Grip)>),
}

/// What brings a socket back after shutdown(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// listen(2), for TCP: the socket is the same, what was in its queue is lost.
    Listen,
    /// A new socket, for unix: workers keep the old one, with what is in its queue.
    Bind,
}

/// Whether a repair that failed can succeed by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It can: try it again.
    Later,
    /// Not before somebody acts: it is tried again when an operator reloads.
    WhenAsked,
    /// It cannot while we and our workers live.
    Never,
}

/// What a worker has to do with a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grip {
    /// No process of it holds it.
    LetGo,
    /// It holds it, and nobody waits on it.
    Idle,
    /// It waits on it.
    Waits,
    /// The kernel does not let us look.
    Unreadable,
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
