//! The arguments, their help and their defaults.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

pub(super) use clients::{
    Events, Kill, Reload, Restart, Rollback, Scale, Send, Start, Status, Stop, Target,
};

mod clients;

mod grouped;

use super::exit_code;
use crate::config::admin::AdminAddress;
use crate::config::identity::{self, Account, Groups, Limit, Umask};
use crate::config::socket::SocketSpec;
use crate::config::upstreams::UpstreamsFile;
use crate::config::values::{
    self, Balance, Handoff, KeepAlive, Logs, OnFailing, Percent, StopSignals, Workers,
};
use crate::core::policy::{BeforeStop, ReadyWhen, Surge};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default())
    .placeholder(AnsiColor::Cyan.on_default());

const EXAMPLE: &str = "`shepherd run -n 4 -p 8000 -- ./server` is the whole of it for most people.";

/// Reads arguments.
pub(super) fn parse(arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    let mut command = grouped::grouped(Cli::command());
    let matches = command.try_get_matches_from_mut(arguments)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// shepherd keeps a port answering while everything behind it changes.
#[derive(Debug, Parser)]
#[command(name = "shepherd", version, styles = STYLES, max_term_width = 100)]
#[command(after_help = EXAMPLE, after_long_help = format!("{EXAMPLE}\n\n{}", exit_code::table()))]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    Run(Box<Run>),
    Status(Status),
    Reload(Reload),
    Rollback(Rollback),
    Scale(Scale),
    Restart(Restart),
    Stop(Stop),
    Start(Start),
    Kill(Kill),
    Send(Send),
    Events(Events),
    Check(Check),
    Plan(Plan),
    /// Print the JSON schema of shepherd.yaml, by which an editor completes and checks it.
    ///
    /// `shepherd schema > shepherd.schema.json`, and as the first line of shepherd.yaml
    /// `# yaml-language-server: $schema=shepherd.schema.json`.
    Schema,
    Exec(Exec),
    Completions(Completions),
    Man(Man),
}

/// Bind sockets, start workers that inherit them; restart and reload them, in the foreground.
///
/// The sockets are bound once, before any worker, and stay open until the stop. Each worker gets
/// them as descriptors from 3 on, with LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES and LISTEN_PIDFDID
/// (sd_listen_fds(3)), and a NOTIFY_SOCKET of its own (sd_notify(3)). Sockets that a service manager
/// handed to shepherd are matched by name, then by type and address, and used instead of binding.
///
/// With `-c FILE` what is run stands in the file, maybe many services of it. Without a file and
/// without a COMMAND it is shepherd.yaml, or shepherd.yml, here.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_RUN, mut_args = one_service)]
#[command(override_usage = "shepherd run [OPTIONS] -- COMMAND [ARG]...\n       \
                            shepherd run [-c FILE]")]
pub(super) struct Run {
    /// The file that says what is run, such as shepherd.yaml; `shepherd check` finds the mistakes
    /// in it. Of the other options only --name, --logs, --lame-duck, --control, --admin and
    /// --pid-file go with it, and win over what it says.
    #[arg(short = 'c', long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// How many workers: a number, `auto` (the processors that the affinity mask and the cgroup's
    /// quota allow) or `max` (the processors of the machine).
    #[arg(short = 'n', long, value_name = "N|auto|max", default_value = "1")]
    pub(super) workers: Workers,

    /// A socket to bind and hand over, `NAME=` before it if it is to have a name, options after it.
    /// Repeatable.
    ///
    /// `8000` is all addresses, IPv6 and IPv4 where the machine has both; `127.0.0.1:8000`,
    /// `[::1]:8000`; `localhost:8000` is two sockets, one a family. Port 0 lets the kernel choose.
    /// `udp:` before any of these is for datagrams: `udp:5353`. `unix:/run/x.sock` is a path,
    /// `unix:@name` a unix name without a file, and `seqpacket:` in the place of `unix:` keeps the
    /// bounds of messages. Without any socket shepherd only supervises, unless it was handed some.
    ///
    /// `8001+{slot}`, `127.0.0.1:8001+{slot}`, `udp:9000+{slot}` and `unix:/run/web.{slot}.sock` are
    /// a socket for each slot, 8001 for slot 0, 8002 for slot 1, and so on: each worker gets only
    /// its own, and PORT says which, where it is one of TCP.
    ///
    /// Options follow with commas: `8000,backlog=1024`; `,,` stands for a comma. See "Options of
    /// sockets" below.
    #[arg(short = 'p', long = "listen", visible_alias = "port", value_name = "SOCKET")]
    pub(super) listen: Vec<SocketSpec>,

    /// How workers get their sockets: `auto`, `fds` or `node`.
    ///
    /// `fds`: as descriptors from 3 on, see above. `node`: shepherd is the primary of Node's `cluster`,
    /// and an unmodified program that calls `listen(8000)` gets the socket of that port. It gets only
    /// what is asked for with -p, where a bare port stands for any address; all else it is refused,
    /// with a line in the log that says what to add. `listen({fd: 3})` is the first socket. A worker is
    /// ready when all listen that it asked for; to stop it is told to leave over its channel, so that
    /// it finishes what it has, and gets the stop signal when that took longer than the drain timeout.
    ///
    /// `auto`: descriptors, and both where there are up to 12 sockets and the command runs node or deno:
    /// by its name, behind `env`, or as the interpreter of a script. What starts node itself, as npm
    /// and npx do and `node --watch`, keeps the channel from the program; write the program instead.
    #[arg(long, value_name = "auto|fds|node", default_value = "auto")]
    pub(super) handoff: Handoff,

    /// Send workers their sockets as a program of Node sends them to those that it forks.
    ///
    /// Each gets the message `'server'` with each of its TCP and unix sockets, and `'udp'` with each of
    /// its UDP sockets, over the channel of `child_process.fork`, and is ready when it has
    /// acknowledged all of them. `cluster` knows nothing of it.
    #[arg(long)]
    pub(super) node_fork: bool,

    /// How connections find a worker: `generation`, `slots` or `shared`.
    ///
    /// `generation`: the workers of a generation share a socket, and whoever is free takes the next
    /// connection. At a reload the kernel sends new connections to the new generation once it is
    /// ready, and the old one takes those that wait for it still. Best for most.
    ///
    /// `slots`: each worker has a socket of its own, and the kernel spreads new connections evenly.
    /// Choose it where a few workers would take most connections, as event loops do that accept all
    /// that they find, and where a worker that is stopped alone, as by a scale down, is to get
    /// nothing new first. A slow worker delays its own share, even while others are free; one from
    /// whose queue nothing was taken for 2 s is passed by until something is.
    ///
    /// `shared`: all workers of all generations share one socket. Choose it where connections may find
    /// any worker that has the socket, old or new, as behind a server that forks. Nothing can be kept
    /// from workers that are to stop, and it is for them to finish what they took. It is what unix
    /// sockets get whatever is asked for, and sockets that were handed over without SO_REUSEPORT.
    ///
    /// `dispatch`: shepherd accepts, and gives each connection to a worker, which reads them from a
    /// channel instead of a socket; see examples/README.md for how, ten lines in any language. Choose it
    /// for exact balance, for sticky sessions, or so that what a worker has not read yet goes to
    /// another when it dies. It costs a hop: each connection takes processor time of shepherd, too.
    /// `dispatch:round-robin`, which `dispatch` is, gives to each in turn; `dispatch:least-connections` to
    /// who has the fewest open; `dispatch:sticky` sends a client's address (of IPv6 its /64) to the same
    /// slot, as long as that has a worker that answers. One that owes four answers gets no more, one that
    /// owes one for a second gets none while others do not; what no worker has room for waits in the
    /// kernel's queue.
    #[arg(
        long,
        value_name = "generation|slots|shared|dispatch[:ALGORITHM]",
        default_value = "generation"
    )]
    pub(super) balance: Balance,

    /// Keep a file for a proxy in front: which slots have a ready worker, and where.
    ///
    /// For a service with a socket a slot (`-p 8001+{slot}`). FORMAT is `nginx`, for lines that are
    /// included within an `upstream` block, or `haproxy`, for a whole `backend` with the name of the
    /// service, given to it by a second `-f`. The file is replaced at once whenever that changes, and
    /// then the reload command is run. The last ready worker of a slot is asked to stop only after
    /// that, so that the proxy sends it nothing more.
    #[arg(long, value_name = "FORMAT:PATH", requires = "upstreams_reload")]
    pub(super) upstreams: Option<UpstreamsFile>,

    /// The command of the shell that has the proxy read its file again, such as `nginx -s reload`.
    ///
    /// It runs as shepherd itself, one at a time, for 10s at most, with the file's path in
    /// SHEPHERD_UPSTREAMS; what it leaves behind ends with it. One that fails is told of, tried
    /// again later, and stops nothing.
    #[arg(long, value_name = "COMMAND", requires = "upstreams")]
    pub(super) upstreams_reload: Option<String>,

    /// What shows that a worker can serve: `auto`, `notify`, `listen`, `message`, `alive:D`, or a probe
    /// that it passes: `tcp`, `http:/PATH`, `exec:COMMAND`.
    ///
    /// `notify`: it sent READY=1. `listen`: it was seen waiting on one of its sockets. `alive:D`: it
    /// has been alive for so long. `message`: a program of Node has called `process.send("ready")`.
    /// `auto`: the first of notify, listen and message; without a socket, or where nothing can be read,
    /// alive for 1s. A program of Node that got its sockets over its channel listens when it says so of
    /// all of them.
    ///
    /// `tcp`: it took a connection. `http:/PATH`: it answered GET /PATH, in plain HTTP, with a
    /// status from 200 to 399. Both connect to the first TCP or unix stream socket. Workers share
    /// their sockets, so the kernel is asked which process took a connection before anything is
    /// sent, and one that another worker took is closed and made again; where the kernel cannot
    /// tell, an answer counts whoever gave it, and the log says so. `exec:COMMAND`: `/bin/sh -c
    /// COMMAND` exited with 0; it runs in the worker's directory with the worker's environment and
    /// its pid in SHEPHERD_PID, without its sockets, and its output is shown only when it fails.
    #[arg(long, value_name = "EVIDENCE", default_value = "auto", value_parser = values::ready_when)]
    pub(super) ready: ReadyWhen,

    /// How long a worker may take to become ready; then it counts as failed.
    #[arg(long, value_name = "DURATION", default_value = "30s",
          value_parser = values::positive_duration)]
    pub(super) ready_timeout: Duration,

    /// What becomes of clients once ten workers in a row never got ready, until one does: `wait` or
    /// `refuse`.
    ///
    /// `wait`: they wait in the queue, as before. `refuse`: they are refused, so that they can go
    /// elsewhere, but for the time that an attempt takes; the port stays ours. Only clients of TCP
    /// can be refused, not of sockets that were handed over; others wait.
    #[arg(long, value_name = "wait|refuse", default_value = "wait")]
    pub(super) on_failing: OnFailing,

    /// The longest pause between two probes; the first comes 20ms after the program runs, and each
    /// pause is twice the one before.
    #[arg(long, value_name = "DURATION", default_value = "1s",
          value_parser = values::positive_duration)]
    pub(super) ready_interval: Duration,

    /// How long one probe may take; a command that takes longer is killed with all it started.
    #[arg(long, value_name = "DURATION", default_value = "2s",
          value_parser = values::positive_duration)]
    pub(super) ready_probe_timeout: Duration,

    /// How long a worker that gets no new connections may finish what it has before it gets the stop
    /// signal: `auto` or a duration; `0s` is not at all.
    ///
    /// Thus a program that ends at once at the stop signal loses nothing either. What waits in its
    /// queue is waited for, and what it has open. `auto` is 15s at most, and only for the queue once
    /// the program was seen to finish its open connections after the signal. Choose a longer time
    /// where requests take longer and the program cuts them; `0s` where it takes what waits in its
    /// queue itself before it exits.
    ///
    /// It needs other workers that get what is new: a new generation at a reload, any other worker
    /// with `--balance slots`. In other cases, with `--balance shared`, and when a service stops, the
    /// signal comes at once.
    #[arg(long, value_name = "auto|DURATION", default_value = "auto",
          value_parser = values::before_stop)]
    pub(super) before_stop: BeforeStop,

    /// What becomes of idle kept-alive connections of a worker that gets no new ones, until it gets the
    /// stop signal: `close-idle` or `leave`.
    ///
    /// With `close-idle` the worker is made to believe that their clients have left, so that it closes
    /// them by itself and is stopped sooner. A connection is idle when the worker has answered on it
    /// and nothing came for 100ms. A request that comes just then is lost, as with any server that
    /// closes idle connections; a stream that pauses longer looks idle too, and so does HTTP/2 between
    /// requests; TLS ends without its goodbye. It is of no use to a program that finishes its
    /// connections after the stop signal. It needs the right to trace the worker: root, or the same
    /// user.
    #[arg(long, value_name = "close-idle|leave", default_value = "leave")]
    pub(super) keepalive: KeepAlive,

    /// How many workers of a new generation may run beside the old ones at a reload: a number, a part
    /// of the workers such as `25%`, or `auto`.
    ///
    /// Where that is not all of them, slots are changed over in batches: a batch of new workers gets
    /// ready and serves, and the next begins when the old ones of its slots are gone, so that there
    /// are never more workers than wanted and these. Should one fail, slots that were changed over get
    /// old workers again. With `--balance generation` the workers of a generation share their sockets,
    /// so the old ones of a batch are asked to stop at once, but for those of the last.
    ///
    /// `auto` is all of them if memory is free for so many, else as many as it is free for, and one at
    /// least. `0` stops the old worker of a slot before the new one starts, for programs that cannot
    /// overlap; connections wait in the queue meanwhile.
    #[arg(long, value_name = "auto|N|N%", default_value = "auto", value_parser = values::surge)]
    pub(super) surge: Surge,

    /// The part of new connections that a new generation gets at first at a reload, such as `5%`
    /// [default: all of them at once].
    ///
    /// Once all its workers are ready they get that part, and the old generation the rest; with
    /// batches (--surge) it is the first worker that does. Should one
    /// of them exit, the reload is aborted and the old generation gets all again; else, after
    /// --canary-for, the new one does. It needs a TCP or UDP socket, and `--balance generation` or
    /// `slots`.
    #[arg(long, value_name = "PERCENT")]
    pub(super) canary: Option<Percent>,

    /// For how long a new generation gets that part only [default: 30s].
    #[arg(long, value_name = "DURATION", requires = "canary",
          value_parser = values::positive_duration)]
    pub(super) canary_for: Option<Duration>,

    /// For how long after a reload the generation before is brought back by itself should a worker of
    /// the new one exit [default: not at all].
    ///
    /// `shepherd reload` waits for that time too, since only then it is known how the reload ended.
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub(super) probation: Option<Duration>,

    /// How a worker is asked to stop: a signal, or several with the time each is given, such as
    /// `TERM,INT:5s`. One without a time is given the drain timeout. SIGKILL follows the last.
    #[arg(long, value_name = "SIGNAL[:DURATION],...", default_value = "TERM")]
    pub(super) stop_signal: StopSignals,

    /// How long a worker may take to finish what it has after the stop signal.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = values::duration)]
    pub(super) drain_timeout: Duration,

    /// How long everything serves on after a stop was asked for, before the workers get the stop
    /// signal: load balancers that watch /readyz see it fail, and send nothing more.
    ///
    /// A reload under way ends at once. A second INT ends the lame duck, a third kills.
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub(super) lame_duck: Option<Duration>,

    /// Where the workers run; a symbolic link is followed anew at each reload [default: here].
    #[arg(long, value_name = "PATH")]
    pub(super) directory: Option<PathBuf>,

    /// Run the workers as this user, with its groups and no privileges.
    ///
    /// HOME, USER and LOGNAME are set accordingly, and variables that lead to our own session are
    /// left out (XDG_RUNTIME_DIR, SSH_AUTH_SOCK, ...). The directory and the program must be there
    /// for this user; environment files are read by shepherd itself. A number need not have an entry
    /// in the user database: then HOME is `/`, and the group, unless given, has the same number.
    /// Names are looked up anew at each reload.
    #[arg(long, value_name = "NAME|UID")]
    pub(super) user: Option<Account>,

    /// The group of the workers [default: the user's].
    #[arg(long, value_name = "NAME|GID")]
    pub(super) group: Option<Account>,

    /// The supplementary groups of the workers, exactly these; `''` is none [default: those that
    /// the user is a member of].
    #[arg(long, value_name = "GROUP,...")]
    pub(super) groups: Option<Groups>,

    /// The mask of the permissions of files that the workers make, such as `027`.
    #[arg(long, value_name = "OCTAL")]
    pub(super) umask: Option<Umask>,

    /// A limit for the workers, such as `nofile=65536`, `nofile=1024:65536` (soft and hard) or
    /// `core=unlimited`. Repeatable.
    ///
    /// The names are those of setrlimit(2): as, core, cpu, data, fsize, locks, memlock, msgqueue,
    /// nice, nofile, nproc, rss, rtprio, rttime, sigpending, stack. Sizes are bytes or have a unit
    /// (64M), times have one (30s). Without it workers have the limits that shepherd was started
    /// with; its own limit on open files is raised.
    #[arg(long = "limit", value_name = "NAME=N|SOFT:HARD")]
    pub(super) limits: Vec<Limit>,

    /// The niceness of the workers, from -20, which is favoured most, to 19.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = identity::nice)]
    pub(super) nice: Option<i8>,

    /// Nothing that the workers run may gain privileges: set-uid programs run without theirs.
    #[arg(long)]
    pub(super) no_new_privs: bool,

    /// A variable for the workers; it wins over files and over what shepherd inherited. Repeatable.
    #[arg(long = "env", value_name = "NAME=VALUE")]
    pub(super) variables: Vec<String>,

    /// A file of NAME=VALUE lines for the workers, read anew at each reload; a later file wins over
    /// an earlier one. Repeatable.
    #[arg(long = "env-file", value_name = "FILE")]
    pub(super) env_files: Vec<PathBuf>,

    /// Each worker gets a channel for messages, as the descriptor that SHEPHERD_CHANNEL_FD names.
    ///
    /// It is a stream socket on which lines of JSON go both ways: to another worker, to all of a
    /// service or of all services, and to shepherd, which tells of workers that come and go. See
    /// "Messages" below.
    #[arg(long)]
    pub(super) messages: bool,

    /// Where the workers' output leads: `inherit`, `prefix` or `json` [default: `prefix` when
    /// shepherd's stdout and stderr are both terminals, else `inherit`].
    ///
    /// `inherit`: to shepherd's own stdout and stderr, untouched. `prefix`: through shepherd to the
    /// same, each line behind `web.0 | `, service and slot; `+` instead of `|` goes on with a line
    /// that was shown in part. `json`: each line an object on stdout, with time, service, slot,
    /// worker, pid, generation, stream, message; `truncated` when the line goes on in the next
    /// object, which is `continued`. See below for what passing through shepherd means.
    #[arg(long, value_name = "WAY")]
    pub(super) logs: Option<Logs>,

    /// The name of the service and of this daemon; that it is taken is an error only when it was
    /// asked for [default: the program's, with a number if that is taken].
    #[arg(long, value_parser = values::service_name)]
    pub(super) name: Option<String>,

    /// The unix path on which clients reach this daemon: HTTP with JSON, for the user that shepherd
    /// runs as and for root [default: `control.sock` in a directory of the daemon's name below
    /// $XDG_RUNTIME_DIR/shepherd, for root /run/shepherd].
    ///
    /// `curl --unix-socket PATH http://shepherd/openapi.json` gives what can be asked.
    #[arg(long, value_name = "PATH")]
    pub(super) control: Option<PathBuf>,

    /// Where monitoring reaches this daemon by HTTP, read-only: /metrics for Prometheus, /healthz,
    /// /readyz; a bare port is 127.0.0.1:PORT [default: nowhere].
    ///
    /// /healthz is 200 while shepherd does its work. /readyz is 200 once every service has come up
    /// and while none is failing, and 503 with the reasons else, from the first moment of a stop on.
    /// Whoever reaches the address can read all of it: there is no password.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) admin: Option<AdminAddress>,

    /// A file for shepherd's own pid; it is removed at the end.
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,

    /// The program and its arguments, after `--`.
    #[arg(last = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
}

/// Options that are the daemon's, whoever says what it runs.
const OF_THE_DAEMON: [&str; 8] =
    ["config", "name", "logs", "lame_duck", "control", "admin", "pid_file", "help"];

/// An option that says what a service is makes sense beside a command only.
fn one_service(option: Arg) -> Arg {
    match option.get_id().as_str() {
        id if OF_THE_DAEMON.contains(&id) => option,
        "command" => option.conflicts_with("config"),
        _ => option.conflicts_with("config").requires("command"),
    }
}

const AFTER_RUN: &str = "\
Durations are numbers with a unit: 500ms, 30s, 1m30s, 2h.

Options of sockets, as in `-p 8000,backlog=1024,no_delay`:
  backlog=N            how many connections may wait; the kernel cuts it to net.core.somaxconn
                       [default: 4096]
  reuse_port           others of this user may bind the address too, with the same option, and the
                       kernel spreads what comes over all; nothing of it is steered then
  v6only               a bare port or [::] takes no IPv4
  freebind             the address need not be there yet
  transparent          the address may be anybody's; needs CAP_NET_ADMIN
  bind_to_device=NAME  only what comes over this interface
  mark=N               the firewall's mark of what is sent; needs CAP_NET_ADMIN
  fast_open=N          so many connections may begin with data in their first packet
  defer_accept=D       a connection is held back until data comes, at most for so long, which the
                       kernel rounds up to 1, 3, 7, 15, 31 ... seconds
  no_delay             small packets go out at once
  keep_alive           idle connections are probed
  non_blocking         calls on it never wait, for programs that leave it as it is and need it so
  receive_buffer=SIZE, send_buffer=SIZE
                       of the socket, and of the connections accepted from it; the kernel cuts them
                       to net.core.rmem_max and wmem_max, except for CAP_NET_ADMIN
  mode=MODE, user=USER, group=GROUP
                       of the file of a unix path: who may connect [default: 0660, ours]
  unlink=no            the file of a unix path stays when shepherd stops
A socket that was handed over gets those that a bound socket can get; shepherd says which it did not.

Signals to shepherd:
  HUP         reload: read the file, the environment files, the directory and the program again, bind
              what is new, start a new generation beside the old, and stop the old one only when all of
              the new is ready
  TERM, INT   stop: the workers get the stop signal and the drain timeout; a second INT kills;
              --lame-duck comes before
  QUIT        stop at once, by SIGKILL
  TTIN, TTOU  one worker more, one fewer

Variables for each worker, besides those of the sockets:
  SHEPHERD_SERVICE, SHEPHERD_SLOT, SHEPHERD_WORKER, SHEPHERD_GENERATION
  PORT, in the place of any that you set, when it has exactly one TCP port of its slot (8001+{slot})
  SHEPHERD_CHANNEL_FD, with --messages; a program that starts others sets close-on-exec on it

Messages (--messages), one line of JSON each:
  {\"to\": \"worker:17\", \"data\": ANY}
      is what a worker writes. Other recipients are `all`, `service:web` (the sender is none of
      these), `slot:2` of the same service, `service:web/slot:2`, and `supervisor`. Of several
      workers in a slot, as during a reload, it is the youngest that is ready.
  {\"from\": \"worker:5\", \"service\": \"web\", \"slot\": 2, \"data\": ANY}
      is what is read by whom it is for.
  {\"from\": \"supervisor\", \"data\": ANY}
      is what `shepherd send` sends, and what shepherd tells.
  {\"to\": \"supervisor\", \"data\": {\"subscribe\": \"workers\"}}
      has shepherd tell of other workers, of those that are ready at once, in data such as
      {\"event\": \"ready\", \"worker\": \"worker:17\", \"service\": \"web\", \"slot\": 2, \"generation\": 1}.
      Events are ready, stopping and ended; the last comes after all messages of that worker.
      With `unsubscribe` it ends.
  A program of Node that has a channel of Node's (--handoff) has messages there, by `process.send`
  and `process.on('message')`, and no SHEPHERD_CHANNEL_FD.
  Nothing is answered. What is not understood, and what is for nobody, is counted in
  `shepherd status --json`. A message has 256 KiB and 128 levels at most. What a worker does not
  read waits, 1 MiB for one worker and 64 MiB for all; what comes then is dropped, counted and told.

Output that passes through shepherd (--logs prefix, json):
  Workers write to pipes, so some buffer what they would show at once on a terminal (Python:
  PYTHONUNBUFFERED=1), or leave out colours. A line longer than 16 KiB is cut; one without an end
  is shown after a second. Lines of one stream keep their order, those of stdout and stderr may
  change places. On a terminal colours pass, and other control characters are written out.
  A reader that is slow holds workers up for a second at most; then lines are dropped, counted,
  and told of. A worker that fails is shown with the last lines that it wrote.
  If shepherd itself is killed, nobody has the other end: a worker that writes then gets EPIPE
  and, unless it ignores that, SIGPIPE. With `inherit` it does not depend on shepherd.

Where a cgroup v2 is delegated to shepherd (Delegate=yes in a unit, the top of a container) each
worker is kept in a cgroup of its own: whatever its processes do, they are known for its own and end
with it. Elsewhere they are told by parent, session and environment. The log says which at start.

Exit codes:
  0  stopped as asked
  1  failed
  2  wrong usage
  3  wrong configuration: a program, directory, file, user or limit that cannot be used
  9  a socket could not be bound";

/// Find the mistakes in a configuration file, all of them at once; nothing is started.
///
/// Looked at is what the file says and what it needs of this machine: programs, directories, users,
/// environment files, limits. Whether its sockets can be bound is not tried.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Exit codes:
  0  no mistakes
  2  wrong usage
  3  mistakes, or no file that can be read")]
pub(super) struct Check {
    /// The file [default: shepherd.yaml, or shepherd.yml, here].
    #[arg(value_name = "FILE")]
    pub(super) file: Option<PathBuf>,

    /// What was found as one object of JSON, on stdout.
    #[arg(long)]
    pub(super) json: bool,
}

/// Say what applying a file would change about the running daemon; nothing is changed.
///
/// A line a step, in the order in which a reload would do them: sockets that are kept and bound,
/// services that are started, reloaded and stopped, sockets that are closed. A service that is
/// written as before is reloaded too, since its program may be another. Of variables the daemon tells
/// the names only, and of limits nothing, so that other values of these are not among the reasons.
/// Where no daemon is running everything would be bound and started.
#[derive(Debug, Args)]
#[command(after_long_help = "\
What --json prints, one object on stdout:
  running  whether there is a daemon to compare with
  steps    do (keep, bind, start, reload, stop, close), what, service, note

Exit codes:
  0  done
  2  wrong usage
  3  mistakes in the file, or no file that can be read
  6  no daemon of the name or on the socket that was given
  8  the daemon belongs to somebody else")]
pub(super) struct Plan {
    /// The file [default: shepherd.yaml, or shepherd.yml, here].
    #[arg(value_name = "FILE")]
    pub(super) file: Option<PathBuf>,

    /// The plan as one object of JSON, on stdout.
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) target: Target,
}

/// Stamp LISTEN_PID with our own pid, then become COMMAND: for the end of a wrapper script.
///
/// A program that checks LISTEN_PID takes no sockets when a wrapper stands between it and shepherd.
/// `exec shepherd exec -- ./server` as the last line of the wrapper, or `shepherd exec` without the
/// shell's own exec, writes LISTEN_PID and LISTEN_PIDFDID anew and becomes the program.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Exit codes: those of COMMAND; 126 when it cannot be run, 127 when there is none.")]
pub(super) struct Exec {
    /// The program and its arguments, after `--`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
}

/// Print the completions for a shell.
///
/// For bash: `shepherd completions bash > /etc/bash_completion.d/shepherd`; for zsh, into a file named
/// `_shepherd` in a directory of `$fpath`; for fish:
/// `shepherd completions fish > ~/.config/fish/completions/shepherd.fish`.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell.
    #[arg(value_name = "SHELL")]
    pub(super) shell: Shell,
}

/// The shells that there are completions for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Write the pages of the manual into a directory, such as `/usr/local/share/man/man1`.
///
/// There is a page for each command, shepherd-run(1) and so on, and shepherd.yaml(5) for the file.
#[derive(Debug, Args)]
pub(super) struct Man {
    /// The directory; it must be there.
    #[arg(value_name = "DIR")]
    pub(super) directory: PathBuf,
}
