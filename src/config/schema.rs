//! shepherd.yaml as the user writes it: its keys, their types, and what is said of them in the JSON
//! schema. What they mean together is decided in `resolve`.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::admin::AdminAddress;
use super::identity::{Account, Umask};
use super::kinds::{
    Amount, Command, FilePath, Flag, GroupList, Named, Niceness, PositiveTime, Ready, Stop, Text,
    Time,
};
use super::listen::Listen;
use super::reader::{Hint, OneOrMany, Table, keys};
use super::upstreams::Format;
use super::values::{Balance, Handoff, Logs, OnFailing, Percent, Workers};
use crate::core::policy::{BeforeStop, KeepAlive, Surge};

/// Where the schema is said to be from.
const ID: &str = "https://json-schema.org/draft/2020-12/schema";

keys! {
    /// What `shepherd run -c shepherd.yaml` is to do. Paths are relative to the directory of this
    /// file. `${VAR}` and `${VAR:-default}` in a value stand for variables of shepherd's own
    /// environment, and `$$` for a dollar.
    File is "shepherd.yaml", such as "`services:` and the services below it", in a table "",
    hint hint_of_file, needs ["services"]

    /// The name of this daemon, by which `shepherd status --name` finds it. Default: the service's
    /// where there is one, else that of the file's directory.
    name: Named,

    /// Where the workers' output leads: `inherit`, `prefix` or `json`. Default: `prefix` when
    /// shepherd's stdout and stderr are both terminals, else `inherit`.
    logs: Logs,

    /// The unix path on which clients reach this daemon. Default: `control.sock` in a directory of
    /// the daemon's name below $XDG_RUNTIME_DIR/shepherd, for root /run/shepherd.
    control: FilePath,

    /// Where monitoring reaches this daemon by HTTP, read-only and without a password: /metrics for
    /// Prometheus, /healthz, /readyz; a bare port is 127.0.0.1:PORT. Default: nowhere.
    admin: AdminAddress,

    /// A file for shepherd's own pid; it is removed at the end.
    pid_file: FilePath,

    /// How long everything serves on after a stop was asked for, before the workers get the stop
    /// signal: load balancers that watch /readyz see it fail, and send nothing more. Default: 0s.
    lame_duck: Time,

    /// The services, by their names.
    services: Table<Service>,
}

keys! {
    /// A group of identical workers, with the sockets that they share.
    Service is "a service", such as "`command: ./server` below the name of the service",
    in a table "the name of a service, and below it `command: ./server`",
    hint hint_of_service, needs ["command"]

    /// The program and its arguments: a list, or one text that is divided at spaces and quotes as a
    /// shell would, without a shell.
    command: Command,

    /// How many workers: a number, `auto` (the processors that the affinity mask and the cgroup's
    /// quota allow) or `max` (the processors of the machine). Default: 1.
    workers: Workers,

    /// The sockets that are bound and handed over: one or a list, each as `-p` takes it (`8000`,
    /// `127.0.0.1:8000`, `localhost:8000`, `unix:/run/x.sock`, `udp:5353`, `NAME=8000`,
    /// `8000,backlog=1024`), or a map with the same options.
    listen: OneOrMany<Listen>,

    /// Variables for the workers; they win over files and over what shepherd inherited.
    env: Table<Text>,

    /// A file of NAME=VALUE lines for the workers, or a list of them, read anew at each reload; a
    /// later one wins over an earlier one.
    env_file: OneOrMany<FilePath>,

    /// Where the workers run; a symbolic link is followed anew at each reload. Default: the directory
    /// of this file.
    directory: FilePath,

    /// Run the workers as this user, with its groups and no privileges: a name or a number.
    user: Account,

    /// The group of the workers. Default: the user's.
    group: Account,

    /// The supplementary groups of the workers, exactly these; `[]` is none. Default: those that the
    /// user is a member of.
    groups: GroupList,

    /// The mask of the permissions of files that the workers make, in octal, such as `027`.
    umask: Umask,

    /// The niceness of the workers, from -20, which is favoured most, to 19.
    nice: Niceness,

    /// Nothing that the workers run may gain privileges: set-uid programs run without theirs.
    no_new_privs: Flag,

    /// Limits for the workers by the names of setrlimit(2), such as `nofile: 65536`,
    /// `nofile: 1024:65536` (soft and hard), `memlock: 64M` or `core: unlimited`.
    limits: Table<Amount>,

    /// Each worker gets a channel for messages, whose descriptor SHEPHERD_CHANNEL_FD names: lines of
    /// JSON to other workers, to all of them and to shepherd. Programs of Node that have a channel of
    /// Node's have them there, by `process.send`. shepherd-run(1) describes them.
    messages: Flag,

    /// How workers get their sockets. `fds`: as descriptors from 3 on, with LISTEN_FDS. `node`: over the
    /// channel that Node's programs have to their primary, which is shepherd then: what a program of
    /// `cluster` listens on it gets, and nothing has to be changed in it. `auto`: as descriptors, and
    /// where the command runs node or deno over a channel beside them. Default: `auto`.
    handoff: Handoff,

    /// What is special about programs of Node.
    node: NodeKeys,

    /// What shows that a worker can serve: `auto`, `notify`, `listen`, `message` (a program of Node
    /// calls `process.send("ready")`), `alive:D`, or a probe that it passes: `tcp`, `http:/PATH`,
    /// `exec:COMMAND`. Default: `auto`.
    ready: Ready,

    /// How long a worker may take to become ready; then it counts as failed. Default: 30s.
    ready_timeout: PositiveTime,

    /// The longest pause between two probes. Default: 1s.
    ready_interval: PositiveTime,

    /// How long one probe may take. Default: 2s.
    ready_probe_timeout: PositiveTime,

    /// How connections find a worker. `generation`: the workers of a generation share a socket, whoever
    /// is free takes the next connection, and at a reload the kernel is told to send new ones to the
    /// new generation. `slots`: each worker has a socket of its own, connections are spread evenly, and
    /// a slow worker delays its own share; one from whose queue nothing was taken for 2 s is passed by
    /// until something is. `shared`: all workers of all generations share one socket, which is what
    /// unix sockets get in any case, and sockets that were handed over without SO_REUSEPORT.
    /// `dispatch`: shepherd accepts, and gives each connection to a worker, which reads them from a
    /// channel as examples/README.md tells: in turn (`dispatch:round-robin`, the same), to who has the
    /// fewest open (`dispatch:least-connections`), or the clients of an address to one slot
    /// (`dispatch:sticky`). Default: `generation`.
    balance: Balance,

    /// What becomes of clients once ten workers in a row never got ready, until one does. `wait`: they
    /// wait in the queue, as before. `refuse`: they are refused, so that they can go elsewhere, but for
    /// the time that an attempt takes; the port stays ours. Only clients of TCP can be refused, others
    /// wait. Default: `wait`.
    on_failing: OnFailing,

    /// What a worker is given before the stop signal, once new connections go to others.
    drain: DrainKeys,

    /// How a new generation proves itself at a reload, beyond being ready.
    reload: ReloadKeys,

    /// How a worker is asked to stop: a signal, or several with the time each is given, such as
    /// `[TERM, "INT:5s"]`. One without a time is given the drain timeout. SIGKILL follows the last.
    /// Default: TERM.
    stop: Stop,

    /// How long a worker may take to finish what it has after the stop signal. Default: 30s.
    drain_timeout: Time,

    /// A proxy in front that is told which slots have a ready worker, where each slot has a socket
    /// of its own (`listen: 8001+{slot}`).
    upstreams: UpstreamsKeys,

    /// A service, or a list of them, that must have been ready once before this one starts. It is
    /// stopped before them.
    depends_on: OneOrMany<Named>,

    /// As `depends_on`, and what an operator does to one of them as a whole is done to this service
    /// too. When one of them is stopped, this service is stopped before it, and it starts again once
    /// that is started and ready, unless it had been stopped by itself. When one of them is restarted,
    /// this service is stopped before it and started after it. It is not started while one of them is
    /// stopped. A reload of one of them, or a crash of its workers, leaves this service as it is: the
    /// sockets stay, and the workers are replaced at once.
    bind_to: OneOrMany<Named>,
}

keys! {
    /// What a proxy in front of a service is told, and how. The file is replaced at once whenever a slot
    /// gets a ready worker or loses its last one, and then the command is run. The last ready worker
    /// of a slot is asked to stop only after that, so that the proxy sends it nothing more.
    UpstreamsKeys is "`upstreams`", such as "`format: nginx`, `path: FILE` and `reload: COMMAND`",
    in a table "", hint no_hint, needs ["format", "path", "reload"]

    /// Who reads the file. `nginx` includes it within an `upstream` block; `haproxy` is given it by a
    /// second `-f`, since it is a whole `backend` with the name of the service.
    format: Format,

    /// The file. It and the directory it is in must be writable; nothing else is written there for
    /// longer than a moment.
    path: FilePath,

    /// The command of the shell that has the proxy read the file again, such as `nginx -s reload`. It
    /// runs as shepherd itself, for 10 s at most; what it leaves behind ends with it.
    reload: Text,
}

keys! {
    /// What is special about programs of Node.
    NodeKeys is "`node`", such as "`fork: true`",
    in a table "", hint no_hint, needs []

    /// Workers are as if a program of Node had started them by `child_process.fork`: each is sent the
    /// message `'server'` with each of its TCP and unix sockets, and `'udp'` with each of its UDP
    /// sockets, and `cluster` knows nothing of it. Default: false.
    fork: Flag,
}

keys! {
    /// What a worker is given before the stop signal, once new connections go to others: where a new
    /// generation is ready, or, with `balance: slots`, another worker is.
    DrainKeys is "`drain`",
    such as "`before_stop: 10s` below it, or `drain_timeout` for the time after the stop signal",
    in a table "", hint hint_of_drain, needs []

    /// How long a worker that gets no new connections may finish what waits in its queue and what it
    /// has open before it gets the stop signal: `auto` or a duration; `0s` is not at all. `auto` is 15s
    /// at most, and only for the queue once the program was seen to finish its open connections after
    /// the signal. Default: `auto`.
    before_stop: BeforeStop,

    /// What becomes of idle kept-alive connections in that time: `close-idle` or `leave`. With
    /// `close-idle` a worker is made to believe that the clients of those on which it has answered and
    /// nothing came for 100ms have left. A request that comes just then is lost, as with any server
    /// that closes idle connections; streams that pause longer look idle too; TLS ends without its
    /// goodbye. It needs the right to trace the worker. Default: `leave`.
    keepalive: KeepAlive,
}

keys! {
    /// How a new generation takes the place of the old one at a reload, and proves itself beyond being
    /// ready. What an operator rolls back to has done so.
    ReloadKeys is "`reload`", such as "`surge: 25%` or `canary: 5%` below it",
    in a table "", hint no_hint, needs []

    /// How many workers of a new generation may run beside the old ones: a number, a part of the
    /// workers such as `25%`, or `auto`. Where that is not all of them, slots are changed over in
    /// batches, draining workers counted. `0` stops the old worker of a slot before the new one starts,
    /// for programs that cannot overlap. Default: auto, which is all of them if memory allows, else as
    /// many as fit.
    surge: Surge,

    /// The part of new connections that a new generation gets at first, such as `5%`, once all of it is
    /// ready: should one of its workers exit meanwhile, the reload is aborted. It needs a TCP or UDP
    /// socket, and a balance of `generation` or `slots`. Default: it gets all of them at once.
    canary: Percent,

    /// For how long it gets that part only, beside `canary`. Default: 30s.
    canary_for: PositiveTime,

    /// For how long after that the generation before is brought back by itself should a worker of the
    /// new one exit; the reload is done when that time is over. Default: 0s, which is not at all.
    probation: Time,
}

fn hint_of_drain(name: &str) -> Option<Hint> {
    let is_timeout = matches!(name, "timeout" | "drain_timeout");
    let step = || "write `drain_timeout` beside `drain`".to_owned();
    is_timeout.then(|| Hint { meant: None, step: step() })
}

fn no_hint(_: &str) -> Option<Hint> {
    None
}

/// What others call our keys.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("args", "command"),
    ("bind", "listen"),
    ("cmd", "command"),
    ("cwd", "directory"),
    ("environment", "env"),
    ("exec", "command"),
    ("instances", "workers"),
    ("numprocs", "workers"),
    ("port", "listen"),
    ("ports", "listen"),
    ("processes", "workers"),
    ("replicas", "workers"),
    ("rlimits", "limits"),
    ("script", "command"),
    ("shutdown_timeout", "drain_timeout"),
    ("sockets", "listen"),
    ("stop_signal", "stop"),
    ("stop_timeout", "drain_timeout"),
    ("ulimits", "limits"),
    ("working_dir", "directory"),
    ("working_directory", "directory"),
];

fn hint_of_service(name: &str) -> Option<Hint> {
    if File::KEYS.contains(&name) && name != "services" {
        let step = "it is for all services: write it beside `services`".to_owned();
        return Some(Hint { meant: None, step });
    }
    if DrainKeys::KEYS.contains(&name) {
        return Some(Hint { meant: None, step: "write it below `drain:`".to_owned() });
    }
    if ReloadKeys::KEYS.contains(&name) {
        return Some(Hint { meant: None, step: "write it below `reload:`".to_owned() });
    }
    let (_, ours) = OTHER_NAMES.iter().find(|(theirs, _)| *theirs == name)?;
    Some(Hint::meant(ours))
}

fn hint_of_file(name: &str) -> Option<Hint> {
    let is_services = Service::KEYS.contains(&name) || hint_of_service(name).is_some();
    let step = || "it belongs to a service: write it below `services:` and a name".to_owned();
    is_services.then(|| Hint { meant: None, step: step() })
}

/// The JSON schema of shepherd.yaml.
#[must_use]
pub fn json_schema() -> Value {
    let generator = SchemaGenerator::new(SchemaSettings::draft2020_12());
    let mut schema = generator.into_root_schema_for::<File>();
    schema.insert("$schema".to_owned(), ID.into());
    schema.insert("title".to_owned(), "shepherd.yaml".into());
    schema.to_value()
}

#[cfg(test)]
mod tests;
