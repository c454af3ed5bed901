//! What travels over the control socket, as types. They are a promise to other programs, so they are
//! apart from the core's: a field is added, none is renamed or dropped. Times are seconds as numbers
//! and moments are RFC 3339 in UTC; a field that has no value is left out.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::core::drain::Remains;

/// The answer to `GET /v1/status`: the daemon at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon itself.
    pub daemon: Daemon,
    /// Its services, in the order in which they start.
    pub services: Vec<Service>,
}

/// The daemon itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Daemon {
    /// The name by which clients find it.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// How long it has been running, in seconds.
    pub up: f64,
    /// Whether everything is being stopped.
    pub stopping: bool,
    /// How long everything serves on before the workers are asked to stop, in seconds, where a stop
    /// has begun so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drains_in: Option<f64>,
    /// The longest that the daemon was busy at a stretch since it was started, in seconds: for so
    /// long nothing else was heard.
    #[serde(default)]
    pub longest_turn: f64,
    /// The configuration file it was started with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// A service at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: ServiceState,
    /// How many workers it wants.
    pub wanted: u32,
    /// How many workers of the serving generation are ready.
    pub ready: u32,
    /// The generation that serves.
    pub generation: u64,
    /// How connections find its workers: `generation`, `slots`, `shared`, or `dispatch:` and how it is
    /// chosen among them; of several sockets the finest. It is not there where there is no socket, or each slot has an address of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<String>,
    /// What became of its connections, where shepherd accepts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispatched: Option<Dispatched>,
    /// The generation that a reload under way is to bring.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reloading: Option<u64>,
    /// The part of new connections that the generation of a reload under way has before it may be
    /// committed, while it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// For how long the generation that serves is on probation still, in seconds, while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probation: Option<f64>,
    /// Where that goes in batches, in how many slots its workers serve already, and no old ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_over: Option<u32>,
    /// Whether another reload waits for the one under way.
    pub queued: bool,
    /// How the last reload failed, if it did and no other has begun since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_abort: Option<String>,
    /// The services that it waits for, while it does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<String>,
    /// How many workers have been started in the place of one that ended unasked.
    pub restarts: u64,
    /// The sockets that its workers get.
    pub sockets: Vec<Socket>,
    /// All its workers, whatever their state, by slot and then by age.
    pub workers: Vec<Worker>,
    /// Slots that wait for their next worker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backing_off: Vec<BackingOff>,
}

/// Connections that shepherd accepts and gives to workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispatched {
    /// How many are held: accepted, and taken by no worker.
    pub held: u64,
    /// How many workers have taken since the service was there.
    pub taken: u64,
    /// How often one was given to another worker, since the first refused it, did not get it, or ended
    /// before it took it.
    pub given_again: u64,
}

/// A new generation that gets a part of new connections first.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Canary {
    /// Of a hundred new connections it gets so many.
    pub percent: u32,
    /// For how long still, in seconds.
    pub left: f64,
}

/// Where a service stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceState {
    /// It waits for the services that it depends on.
    Waiting,
    /// Its workers have not been ready together yet.
    Starting,
    /// It serves.
    Up,
    /// It serves, and a reload is under way.
    Reloading,
    /// Its workers fail again and again.
    Failing,
    /// It is being stopped.
    Stopping,
    /// It was stopped, and stays so until somebody starts it.
    Stopped,
    /// What only a later version knows: a daemon says no such word, and a client shows it.
    #[serde(untagged)]
    Other(String),
}

/// A socket of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// The name under which workers find it, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it is reached, as it is bound: `[::]:8000`, `unix:/run/web.sock`.
    pub address: String,
    /// The kernel's sockets that are bound there; each has a queue of its own.
    #[serde(default)]
    pub members: Vec<Member>,
}

/// One of the kernel's sockets behind a socket of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its number, never used twice.
    pub member: u32,
    /// The generation for whose workers alone it is, if it is for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// The slot for whose workers alone it is, if it is for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// Where it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<MemberState>,
    /// What it gets of new connections, measured against all members of the same socket; it is not
    /// there where nobody can tell the kernel, as on a unix socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// How many connections wait to be accepted, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<u32>,
    /// How many may wait before further ones are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_max: Option<u32>,
    /// How many bytes of datagrams wait to be received, with what it takes to keep them, where that is
    /// known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_bytes: Option<u32>,
    /// How many may wait before further datagrams are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_max_bytes: Option<u32>,
}

/// Where one of the kernel's sockets stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemberState {
    /// It gets new connections.
    Serving,
    /// It gets none: no worker of it is ready. What waits there waits for one.
    Parked,
    /// Its worker hangs or does not keep up, and new connections go to others, if there are any.
    Stalled,
    /// It gets none any more, and its workers finish what they have.
    Draining,
    /// No worker has it: it keeps others at their places while workers stop.
    Spare,
    /// No worker has it, and it is closed as soon as no new connection is misled by that.
    Closing,
    /// It does not listen, since somebody shut it down, or clients are refused while its service fails.
    Down,
    /// What only a later version knows: a daemon says no such word, and a client shows it.
    #[serde(untagged)]
    Other(String),
}

impl Member {
    /// Whether new connections may find it, so that its limit is one of its socket.
    #[must_use]
    pub fn may_be_found(&self) -> bool {
        match &self.state {
            None | Some(MemberState::Serving | MemberState::Stalled | MemberState::Other(_)) => {
                true
            }
            Some(
                MemberState::Parked
                | MemberState::Draining
                | MemberState::Spare
                | MemberState::Closing
                | MemberState::Down,
            ) => false,
        }
    }
}

/// A worker at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Its number, never used twice.
    pub id: u64,
    /// Its slot.
    pub slot: u32,
    /// The definition that it runs.
    pub generation: u64,
    /// Its main process, once its program runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Where it stands.
    pub state: WorkerState,
    /// How long it has stood there, in seconds.
    pub since: f64,
    /// What it has left to finish before it gets the stop signal, while it drains and has not got it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Left>,
    /// In how many seconds at the latest the next thing is done about it, while it drains: it gets the
    /// stop signal, or another, or is killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_in: Option<f64>,
    /// Whether it hangs or does not keep up: it takes nothing from a socket that it alone has, or does
    /// not answer for connections that it was given.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stalled: bool,
    /// What all its processes have in memory, in bytes, where that can be read: in a cgroup whose
    /// memory is counted what is charged to it, else the sum of their resident sets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// How many connections to the sockets of its service all its processes have open, where that can
    /// be known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// What was counted of messages, where it has a channel for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<Messages>,
    /// Where shepherd accepts: how many connections it was given and has not answered for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unanswered: Option<u32>,
    /// Where shepherd accepts: how many connections it has taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<u64>,
    /// The last line that it said about itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
}

/// What was counted of messages since a worker was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Messages {
    /// Those that it sent, and that were understood.
    pub sent: u64,
    /// Those that it was sent, and that were given to its channel.
    pub received: u64,
    /// Those that wait until it reads others.
    pub waiting: u64,
    /// Those that it was to get and did not, since too many waited, or it was gone.
    pub dropped: u64,
    /// Those that it sent, and that were not understood.
    pub not_understood: u64,
    /// Those that it sent, and that nobody could get.
    pub undeliverable: u64,
}

/// Where a worker stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkerState {
    /// Not yet seen able to serve.
    Starting,
    /// Able to serve.
    Ready,
    /// It is to stop, and finishes what it has, before the stop signal or after it.
    Draining,
    /// What only a later version knows: a daemon says no such word, and a client shows it.
    #[serde(untagged)]
    Other(String),
}

/// What a worker has left, as far as that can be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Left {
    /// Connections that it has open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// What waits in the queues of its sockets, perhaps for other workers too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<u32>,
    /// Connections that are being made to its sockets, perhaps with other workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshakes: Option<u32>,
}

impl From<Remains> for Left {
    fn from(Remains { handshakes, queued, connections }: Remains) -> Left {
        Left { connections, queued, handshakes }
    }
}

/// A slot that waits for its next worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackingOff {
    /// Which slot.
    pub slot: u32,
    /// How long it waits still, in seconds.
    pub left: f64,
}

/// The answer to `GET /v1/config`: what runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The services, in the order in which they start.
    pub services: Vec<ServiceConfig>,
}

/// What a service runs, and how, defaults filled in. Of the environment it has names and no values,
/// which may be secret; arguments are there, as everybody on the machine can see them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceConfig {
    /// Its name.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The directory that it runs in, if not the daemon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// How many workers it starts with.
    pub workers: u32,
    /// The sockets to be bound, as `--listen` takes them.
    pub listen: Vec<String>,
    /// How workers get their sockets, as `--handoff` takes it.
    #[serde(default)]
    pub handoff: String,
    /// Whether they are sent them as forks of a program of Node.
    #[serde(default)]
    pub node_fork: bool,
    /// What counts as ready, as `--ready` takes it.
    pub ready: String,
    /// How long a worker may take to be ready, in seconds.
    pub ready_timeout: f64,
    /// How connections find a worker, as `--balance` takes it.
    #[serde(default)]
    pub balance: String,
    /// What becomes of clients while its workers fail again and again, as `--on-failing` takes it.
    #[serde(default)]
    pub on_failing: String,
    /// How long workers may finish what they have before the stop signal, as `--before-stop` takes it.
    #[serde(default)]
    pub before_stop: String,
    /// What becomes of idle kept-alive connections meanwhile, as `--keepalive` takes it.
    pub keepalive: String,
    /// How many workers of a new generation may run beside the old ones, as `--surge` takes it.
    #[serde(default)]
    pub surge: String,
    /// What part of new connections a new generation gets at first, as `--canary` takes it, if not all
    /// of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<String>,
    /// For how long, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_for: Option<f64>,
    /// How long the generation before is brought back should a worker of the new one exit, in
    /// seconds.
    #[serde(default)]
    pub probation: f64,
    /// How its workers are asked to stop, in order; KILL follows.
    pub stop: Vec<StopStep>,
    /// Names of variables that are set for its workers.
    pub env: Vec<String>,
    /// Files of further variables.
    pub env_files: Vec<String>,
    /// The user that its workers run as, if not the daemon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Their group, if not the user's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Whether its workers have a channel for messages.
    #[serde(default)]
    pub messages: bool,
    /// The services that must have been ready once before it starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// The same, and it stops and starts again with them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bind_to: Vec<String>,
}

/// A signal, and what follows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StopStep {
    /// Its name, without `SIG`.
    pub signal: String,
    /// How long a worker has before the next, in seconds.
    pub wait: f64,
}

/// The body of `POST /v1/reload`, all of it optional; of `POST /v1/services/{name}/reload` too, where
/// `services` has no meaning and is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reload {
    /// These services only; none named is all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// Whether to run next when one is under way, instead of being refused.
    pub queue: bool,
}

/// The body of `POST /v1/rollback`, which may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RollBack {
    /// These services only; none named is all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
}

/// The body of `POST /v1/services/{name}/scale`: exactly one of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Scale {
    /// So many workers.
    To(u32),
    /// So many more, or fewer where negative.
    By(i32),
}

/// The body of `POST /v1/workers/{id}/signal`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signal {
    /// Its name, with or without `SIG`.
    pub signal: String,
}

/// The body of `POST /v1/workers/{id}/message`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// What the worker gets.
    pub data: Box<RawValue>,
}

/// The answer to `POST /v1/workers/{id}/message`: it is queued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The worker's number.
    pub worker: u64,
    /// Its service.
    pub service: String,
    /// Its slot.
    pub slot: u32,
    /// How many messages wait to be read before it.
    pub waiting: u64,
}

/// What became of a request that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// In which services, in order.
    pub services: Vec<DoneService>,
}

/// What became of a request in one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoneService {
    /// Its name.
    pub name: String,
    /// The generation that serves.
    pub generation: u64,
    /// How many workers it wants.
    pub workers: u32,
}

/// A request that was not done, as `application/problem+json`, see RFC 9457.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What kind of problem it is; programs decide by this.
    #[serde(rename = "type")]
    pub kind: ProblemKind,
    /// The kind in words.
    pub title: String,
    /// The status of the response.
    pub status: u16,
    /// The thing, the cause and the next step, for people.
    pub detail: String,
    /// The service it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The worker whose end was the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<u64>,
    /// The last lines that this worker wrote, where its output is read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<String>,
    /// What became of each service, where a reload was for several and did not end in the same way
    /// in all of them; what is said above is of the worst then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<EndedService>,
}

/// What became of a reload in one of several services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedService {
    /// Its name.
    pub name: String,
    /// `committed`, or the type of the problem with it; programs decide by this.
    pub outcome: String,
    /// The generation that serves, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Why it was not committed, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The worker whose end was the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<u64>,
    /// The last lines that this worker wrote, where its output is read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<String>,
}

/// What [`EndedService::outcome`] says of one that went well.
pub const COMMITTED: &str = "committed";

/// The kinds of problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// The request makes no sense (400, 405, 413, 415).
    BadRequest,
    /// There is no such path, service or worker (404).
    NotFound,
    /// Another operation is in progress (409).
    InProgress,
    /// Everything, or this service, is being stopped or is stopped (409).
    Stopping,
    /// The configuration, or what it names, has a mistake; nothing has happened (422).
    Configuration,
    /// A socket could not be bound, mostly since somebody has the port; nothing has happened (409).
    Bind,
    /// A reload was aborted, in one service at least; the old generation serves there (500).
    Aborted,
    /// A reload was aborted, in one service at least, and what served before could not be brought
    /// back there (500).
    NotPutBack,
    /// Too much is asked for at a time (429, 503).
    TooBusy,
    /// Whoever asks may not (403).
    Forbidden,
    /// The daemon could not do it (500); or whatever else a later version has.
    #[serde(other)]
    Failed,
}

/// Something that happened: a line of `GET /v1/events?since=NUMBER`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its number: each is one more than the last. Where one is missing, lines were dropped.
    pub number: u64,
    /// When it happened.
    pub time: String,
    /// What happened; programs decide by this. See `kind` in the manual.
    pub kind: String,
    /// The line that people read.
    pub message: String,
    /// How grave it is: `info`, `warning` or `error`.
    pub level: Level,
    /// The service it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// The worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<u64>,
    /// Its main process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// What a worker had left, with the kind `worker-still-busy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Left>,
    /// With the kind `dropped`: how many lines this reader has missed, the number of this one being
    /// that of the last of them. Without a count nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<u64>,
}

/// How grave an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// As it should be.
    Info,
    /// Worth a look.
    Warning,
    /// Somebody has to act; or whatever else a later version has.
    #[serde(other)]
    Error,
}
