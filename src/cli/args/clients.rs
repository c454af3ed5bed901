//! The arguments of the verbs that talk to a running daemon.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::scale::Change;
use crate::config::values;

/// Which daemon is meant.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which daemon")]
pub(in crate::cli) struct Target {
    /// The unix path on which the daemon listens [default: $SHEPHERD_CONTROL, if it is set].
    #[arg(long, value_name = "PATH", conflicts_with = "name")]
    pub(in crate::cli) control: Option<PathBuf>,

    /// The daemon's name [default: that of the only one that is running].
    #[arg(long, value_parser = values::service_name)]
    pub(in crate::cli) name: Option<String>,
}

impl Target {
    /// Whether none is named on the command line.
    pub(in crate::cli) fn is_any(&self) -> bool {
        self.control.is_none() && self.name.is_none()
    }
}

/// Roll services to a new version without losing a request; wait for the outcome.
///
/// The daemon reads everything again (configuration, environment files, the directory, the program),
/// starts a new generation beside the old and, only when all of it is ready, stops the old one. If a
/// new worker fails, nothing has changed: the old generation serves on, and the reason and the
/// worker's last lines of output are shown.
///
/// On a terminal each worker has a line that changes in place; elsewhere each event is a line on
/// stderr. How it ended is on stdout. Whether the client waits makes no difference to the reload:
/// after Ctrl-C, or a timeout, it goes on. Old workers that drain after the end are counted and not
/// waited for. With a canary or a probation, as the service has it, the outcome is known once its
/// time is over.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shepherd reload               all services
  shepherd reload web --queue   one of them, after the reload that is under way
  shepherd reload --timeout 1m  wait for a minute at most

What --json prints, one object on stdout:
  outcome    committed, aborted, not-put-back, configuration, bind, in-progress, timed-out,
             interrupted, no-daemon, permission, usage or failed
  exit_code  the exit code
  seconds    how long it took
  services   those that were reloaded: name, outcome, generation, workers, and draining, how many
             old workers are left; where it ended differently in some of several: name, outcome
             (committed, aborted, ...), the generation that serves, detail, worker and output
  detail     why it was not committed; beside it service, worker and output, the worker's last
             lines, where they are known

Exit codes:
  0    committed: the new generation serves
  1    failed otherwise: there is no such service, the daemon was killed meanwhile, ...
  2    wrong usage
  3    the configuration has a mistake; nothing has happened
  4    aborted: the old generation serves on, or again where the new one failed on probation; of
       several services, in one at least, and each is told
  5    aborted, and not all could be put back; `shepherd status` says what serves
  6    no daemon to talk to
  7    --timeout is over; the reload goes on
  8    the daemon belongs to somebody else
  9    a socket cannot be bound, mostly since somebody has the port; nothing has happened
  11   another reload is in progress
  130  Ctrl-C; the reload goes on")]
pub(in crate::cli) struct Reload {
    /// Services to reload [default: all].
    #[arg(value_name = "SERVICE", value_parser = values::service_name)]
    pub(in crate::cli) services: Vec<String>,

    /// When a reload is under way, run next instead of being refused.
    #[arg(long)]
    pub(in crate::cli) queue: bool,

    /// How long to wait for the outcome, such as `30s` [default: as long as it takes].
    #[arg(long, value_name = "DURATION", value_parser = values::positive_duration)]
    pub(in crate::cli) timeout: Option<Duration>,

    /// Print the outcome as one JSON object, and nothing on the way.
    #[arg(long)]
    pub(in crate::cli) json: bool,

    #[command(flatten)]
    pub(in crate::cli) target: Target,
}

/// Go back to the version that served before; wait for the outcome.
///
/// No request is lost: it goes as a reload does, with what the generation before was started with (the program's file
/// that was found then, environment, directory) and without a canary or a probation. What is read by
/// path, such as a script, is what is there by now, and that is told. Nothing is read again: the next
/// reload brings what the configuration says. Rolled back twice, a service is where it was.
///
/// The version before is known from the last reload that was committed. One that was taken back on
/// probation is none to go back to. During a reload it is refused, except while a canary or a
/// probation is under way: that is over then, and whoever waits for the reload is told.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shepherd rollback      all services, or none if one of them has nothing to go back to
  shepherd rollback web  one of them

What --json prints is what `shepherd reload --json` does.

Exit codes:
  0    done: the version before serves
  1    there is nothing to go back to, or it failed otherwise
  2    wrong usage
  4    aborted: what served serves on; of several services, in one at least, and each is told
  5    aborted, and not all could be put back; `shepherd status` says what serves
  6    no daemon to talk to
  7    --timeout is over; the rollback goes on
  8    the daemon belongs to somebody else
  9    a socket cannot be bound, mostly since somebody has the port; nothing has happened
  11   a reload or another operation is in progress
  130  Ctrl-C; the rollback goes on")]
pub(in crate::cli) struct Rollback {
    /// Services to roll back [default: all].
    #[arg(value_name = "SERVICE", value_parser = values::service_name)]
    pub(in crate::cli) services: Vec<String>,

    /// How long to wait for the outcome, such as `30s` [default: as long as it takes].
    #[arg(long, value_name = "DURATION", value_parser = values::positive_duration)]
    pub(in crate::cli) timeout: Option<Duration>,

    /// Print the outcome as one JSON object, and nothing on the way.
    #[arg(long)]
    pub(in crate::cli) json: bool,

    #[command(flatten)]
    pub(in crate::cli) target: Target,
}

/// Show services and their workers: states, generations, restarts, connections, memory.
#[derive(Debug, Args)]
#[command(after_long_help = "\
States of a service:
  waiting    for services that it depends on
  starting   its workers have not been ready together yet
  up         it serves
  reloading  it serves, and a new generation is being started
  failing    its workers fail again and again
  stopping   its workers drain
  stopped    by `shepherd stop`, until `shepherd start`

States of a worker:
  starting     not yet seen able to serve
  ready        able to serve
  stalled      ready, but it hangs or does not keep up: it takes nothing from the socket that it
               alone has (`--balance slots`), and new connections go to others
  draining     to stop, and finishing what it has; until the stop signal the note says what,
               and how long it is given for that at most
  backing off  nobody is in this slot until the time in the note has passed

CONN is how many connections a worker has accepted and not closed. Those that wait to be
accepted are shown behind their socket, as in `[::]:8000 (3 of 4096 queued)`.

A socket has members, the kernel's sockets that workers get: with `--balance generation` one for
each generation, with `slots` one for each worker. --sockets shows them, and SHARE is their part of
new connections.

States of a member:
  serving   it gets new connections
  parked    it gets none, as no worker of it is ready; what waits there waits for one
  stalled   its worker takes nothing, and new connections go to others, if there are any
  draining  it gets none any more, and its workers finish what they have
  spare     no worker has it; it keeps others at their places while workers stop
  closing   no worker has it; it is closed as soon as no new connection is misled by that
  down      it does not listen: a worker shut it down, or clients are refused as the service fails

Columns that have nothing to show are left out. On a terminal that is too narrow the note is cut
first.")]
pub(in crate::cli) struct Status {
    /// Services to show [default: all].
    #[arg(value_name = "SERVICE", value_parser = values::service_name)]
    pub(in crate::cli) services: Vec<String>,

    /// Print what `GET /v1/status` of the control API gives, on one line.
    #[arg(long)]
    pub(in crate::cli) json: bool,

    /// Show the kernel's sockets behind each socket too: whose they are, what they get of new
    /// connections, and what waits there.
    #[arg(long, conflicts_with = "json")]
    pub(in crate::cli) sockets: bool,

    /// Look again every second: in place on a terminal, else one block after the other. Ctrl-C ends
    /// it.
    #[arg(long)]
    pub(in crate::cli) watch: bool,

    #[command(flatten)]
    pub(in crate::cli) target: Target,
}

/// Change how many workers a service has.
///
/// It ends when the change is made; new workers become ready, and those that are too many drain,
/// after that. A reload keeps the number.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  shepherd scale 4       the only service gets four workers
  shepherd scale web=4   that service
  shepherd scale web=+2  two more
  shepherd scale -1      one fewer")]
pub(in crate::cli) struct Scale {
    /// So many workers, or with a sign so many more or fewer; the service may be left out where
    /// there is only one.
    #[arg(value_name = "[SERVICE=]N|+N|-N", allow_hyphen_values = true)]
    pub(in crate::cli) change: Change,

    #[command(flatten)]
    pub(in crate::cli) target: Target,
}

/// Stop services and start them anew; nothing serves in between. You probably want `reload`.
///
/// The sockets stay open: connections that come meanwhile wait in the queue. Services that are bound
/// to one of these (`bind_to` in shepherd.yaml) are restarted together with it: they stop before it
/// and start once it is ready. All definitions are read first, so that a mistake stops nothing.
#[derive(Debug, Args)]
pub(in crate::cli) struct Restart {
    /// Services, one after the other.
    #[arg(value_name = "SERVICE", required = true, value_parser = values::service_name)]
    pub(in crate::cli) services: Vec<String>,

    #[command(flatten)]
    pub(in crate::cli) target: Target,
}

/// Stop services, or without any the daemon with all of them; workers drain first.
///
/// It ends when the last worker has. A service that was stopped stays so until `shepherd start`.
/// Services that are bound to it (`bind_to` in shepherd.yaml) stop before it, and start again with it.
#[derive(Debug, Args)]
pub(in crate::cli) struct Stop {
    /// Services, one after the other [default: the daemon].
    #[arg(value_name = "SERVICE", value_parser = values::service_name)]
    pub(in crate::cli) services: Vec<String>,

    #[command(flatten)]
    pub(in crate::cli) target: Target,
}

/// Start services that were stopped.
///
/// Services that were stopped together with one of these, because they are bound to it (`bind_to` in
/// shepherd.yaml), start again once it is ready. One that is bound to another that is stopped is
/// refused: start the other first.
#[derive(Debug, Args)]
pub(in crate::cli) struct Start {
    /// Services, one after the other.
    #[arg(value_name = "SERVICE", required = true, value_parser = values::service_name)]
    pub(in crate::cli) services: Vec<String>,

    #[command(flatten)]
    pub(in crate::cli) target: Target,
}

/// Send a signal to a worker's main process.
///
/// A worker that ends by it is replaced, as after any other end.
#[derive(Debug, Args)]
pub(in crate::cli) struct Kill {
    /// The worker's number, as `shepherd status` shows it.
    #[arg(value_parser = worker)]
    pub(in crate::cli) worker: u64,

    /// The signal's name, with or without SIG; KILL goes to all that the worker has started.
    #[arg(default_value = "TERM")]
    pub(in crate::cli) signal: String,

    #[command(flatten)]
    pub(in crate::cli) target: Target,
}

/// Send a worker a message, over its channel.
///
/// It ends when the message is queued: whether the worker reads it is the worker's affair. The service
/// has to be run with `--messages`, or with `messages: true` in shepherd.yaml.
#[derive(Debug, Args)]
#[command(after_long_help = "\
The worker reads {\"from\": \"supervisor\", \"data\": JSON} as one line; `shepherd run --help` describes
messages.

Examples:
  shepherd send 17 '{\"log\": \"debug\"}'
  shepherd send 17 '\"flush\"'

What --json prints, one object on stdout:
  worker, service, slot  who gets it
  waiting                how many messages wait to be read before it

Exit codes:
  0  queued
  1  there is no such worker, it has no channel, or too much waits for it already
  2  wrong usage: what is no JSON, or too long
  6  no daemon to talk to
  8  the daemon belongs to somebody else")]
pub(in crate::cli) struct Send {
    /// The worker's number, as `shepherd status` shows it.
    #[arg(value_parser = worker)]
    pub(in crate::cli) worker: u64,

    /// What it gets: any JSON.
    #[arg(value_name = "JSON", value_parser = json, allow_hyphen_values = true)]
    pub(in crate::cli) data: String,

    /// Print who gets it as one JSON object.
    #[arg(long)]
    pub(in crate::cli) json: bool,

    #[command(flatten)]
    pub(in crate::cli) target: Target,
}

/// Show what happens, as it happens, until the daemon stops.
#[derive(Debug, Args)]
#[command(after_long_help = "\
A line is the event's number, its time, how grave it is, and what happened. The daemon keeps the
last events: with --since 0 all of them are shown before those that follow, with the number of the
last line that was seen those after it. A line says so where some are missing.

With --json each line is an object: number, time, kind, message, level, and where it has them
service, slot, worker, pid and generation. Programs decide by kind.")]
pub(in crate::cli) struct Events {
    /// Print each event as a JSON object on a line.
    #[arg(long)]
    pub(in crate::cli) json: bool,

    /// Begin with the events after this number [default: with what happens from here on].
    #[arg(long, value_name = "NUMBER", value_parser = event_number)]
    pub(in crate::cli) since: Option<u64>,

    #[command(flatten)]
    pub(in crate::cli) target: Target,
}

fn worker(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| {
        format!("`{text}` is no worker's number; `shepherd status` shows them in the column WORKER")
    })
}

fn json(text: &str) -> Result<String, String> {
    match serde_json::from_str::<&serde_json::value::RawValue>(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => {
            Err(format!("it is no JSON: {error}; a text has quotes of its own: '\"text\"'"))
        }
    }
}

fn event_number(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no number of an event; each line begins with its own");
    text.parse().map_err(|_| wrong())
}
