//! The daemon: everything that `run` needs is made ready or nothing is, and then the loop runs.

mod services;

mod configuration;

mod event_loop;

mod perform;

mod checks;

mod channels;

mod node;

mod sockets;

mod slots;

mod steering;

mod dispatch;

mod upstreams;

mod control;

mod journal;

mod output;

mod capture;

mod messages;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::config::run::{Name, RunConfig, RunConfigError};
use crate::config::service::{ServiceConfig, Spelling};
use crate::config::socket::Slots;
use crate::config::text::one_line;
use crate::config::values::{Balance, Logs};
use crate::core::Supervisor;
use crate::core::dispatch as dispatched;
use crate::os::admin_socket::AdminSocket;
use crate::os::cgroup::Cgroups;
use crate::os::definition::DefinitionError;
use crate::os::inherited::{self, InheritedError};
use crate::os::listeners::{BindError, Listener};
use crate::os::path_watch::PathWatch;
use crate::os::pid_file::PidFile;
use crate::os::proc::{self, View};
use crate::os::processes;
use crate::os::reactor::Reactor;
use crate::os::runtime_dir::{NameIs, RuntimeDir, RuntimeDirError};
use crate::os::signals::Signals;
use crate::os::stdio::{Stdio, stdio};
use crate::os::unix_path::UnixPathError;
use crate::os::{clock, limits};

pub use configuration::Reread;
use control::Control;
use event_loop::{Daemon, Parts, Token};
use messages::Messages;
use output::Output;
use services::{Services, Sockets};

/// The process, its notification socket, how its start fares, its two streams of output, its cgroup, its
/// channel.
const DESCRIPTORS_PER_WORKER: u64 = 7;

/// Sockets, definitions, clients, monitoring, connections of workers that are held on to
/// ([`crate::os::left::HELD_MAX`]) and what else there is a fixed number of.
const DESCRIPTORS_OURS: u64 = 800;

/// Why the daemon did not start. Nothing is left of the attempt.
#[derive(Debug, Error)]
pub enum StartError {
    /// Values that are right alone and wrong together.
    #[error("{0}")]
    Usage(#[from] RunConfigError),
    /// What it should run cannot be run.
    #[error("{}{error}", of(service.as_deref()))]
    Definition {
        /// Whose, where there may be several.
        service: Option<String>,
        /// What is wrong.
        error: DefinitionError,
    },
    /// What a service manager handed over cannot be used.
    #[error("{0}")]
    Inherited(#[from] InheritedError),
    /// A socket.
    #[error("{0}")]
    Bind(BindError),
    /// A user or group that a socket's file is to belong to.
    #[error("{0}")]
    SocketAccess(BindError),
    /// Its name and its directory.
    #[error("{0}")]
    RuntimeDir(#[from] RuntimeDirError),
    /// The socket for its clients.
    #[error("cannot listen on `{path}` for clients: {error}", path = .path.display())]
    Control {
        /// Where.
        path: PathBuf,
        /// Why.
        error: UnixPathError,
    },
    /// The file for its pid.
    #[error("cannot write pid file `{path}`: {error}")]
    PidFile {
        /// Which one.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Nothing is known of any process.
    #[error(
        "cannot find ourselves in `/proc`: it is not mounted; mount it (`mount -t proc proc /proc`)"
    )]
    NoProc,
    /// Something that every process can do was refused.
    #[error("cannot {what}: {error}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        error: io::Error,
    },
}

fn of(service: Option<&str>) -> String {
    service.map(|name| format!("service `{name}`: ")).unwrap_or_default()
}

impl From<BindError> for StartError {
    fn from(error: BindError) -> StartError {
        if error.is_of_configuration() {
            StartError::SocketAccess(error)
        } else {
            StartError::Bind(error)
        }
    }
}

/// How a daemon that was asked to stop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Nothing is left.
    Clean,
    /// So many processes hang in the kernel and could not be killed.
    LeftBehind(usize),
}

/// Runs the services until they are asked to stop. `reread` reads the configuration again, for a
/// reload.
///
/// # Errors
///
/// What kept it from starting. Once it is up, nothing but a stop ends it.
pub fn run(config: &RunConfig, reread: Reread) -> Result<Ended, StartError> {
    let system = |what| move |error: io::Error| StartError::System { what, error };
    // First of all, while the numbers of the descriptors are as the manager meant them.
    let handed_over = inherited::take()?;
    let stdio = stdio();
    journal::begin(stdio);
    let all_workers = |service: &ServiceConfig| services::workers(service.workers);
    let workers: u32 = config.services.iter().map(all_workers).sum();
    let needed = descriptors_needed(config);
    let open_files =
        limits::raise_open_files(needed).map_err(system("read the limit on open files"))?;
    // Before the first worker: a signal that comes early must find us listening.
    let signals = Signals::listen().map_err(system("listen to signals"))?;
    let path_watch = PathWatch::new().ok();
    let (reactor, shut_downs, dispatching) =
        reactors(&signals, path_watch.as_ref()).map_err(system("watch descriptors"))?;
    let logs = config.logs.unwrap_or_else(|| logs_for(stdio));
    let output =
        Output::new(logs, stdio, label_width(config)).map_err(system("watch descriptors"))?;
    let messages = Messages::new(&reactor).map_err(system("watch descriptors"))?;
    if proc::view() == View::Missing {
        return Err(StartError::NoProc);
    }
    let before = processes::children_before();
    processes::become_subreaper().map_err(system("become a subreaper"))?;

    let mut services = Services::read(config)?;
    let (name, name_is) = match &config.name {
        Name::Explicit(name) => (name, NameIs::Explicit),
        Name::Implicit(name) => (name, NameIs::Implicit),
    };
    let runtime_dir = RuntimeDir::claim(name, name_is, &|path| services.may_enter(path))?;
    // Before the first worker, so that clients find us from the start.
    let mut control = Control::open(config, &runtime_dir)?;
    let (policies, sockets) = services::bind(config, handed_over)?;
    let Sockets { groups, listeners, shared, each_slot, unused, warnings } = sockets;
    (services.shared, services.each_slot) = (shared, each_slot);
    for (owner, group) in groups {
        services.sockets.entry(owner).or_default().push(group);
    }
    let admin = match config.admin.map(AdminSocket::bind).transpose() {
        Ok(admin) => admin,
        Err(error) => {
            listeners.into_values().for_each(Listener::discard);
            return Err(error.into());
        }
    };
    let pid_file = match config.pid_file.as_deref().map(PidFile::write).transpose() {
        Ok(pid_file) => pid_file,
        Err(error) => {
            listeners.into_values().for_each(Listener::discard);
            let path = config.pid_file.clone().unwrap_or_default();
            return Err(StartError::PidFile { path, error });
        }
    };

    journal::started(runtime_dir.name(), listeners.values());
    if let Some(admin) = admin {
        control.serve_also(admin);
    }
    for warning in warnings {
        tracing::warn!("{}", one_line(&warning.to_string()));
    }
    for socket in unused {
        let nobody = match config.spelling() {
            Spelling::Options => "no `-p`",
            Spelling::Keys => "no service",
        };
        tracing::warn!(
            "socket {socket} was handed over, but {nobody} asks for it; closing our copy"
        );
    }
    if open_files.ours < needed {
        tracing::warn!(
            "{workers} workers may need {needed} open files, and {} is our limit; raise it \
             (`ulimit -n`, or `LimitNOFILE=` in a unit)",
            open_files.ours
        );
    }
    // Last, since it moves us and what comes before can fail.
    let cgroups = claim_cgroups(runtime_dir.name());
    let mut supervisor = Supervisor::new(clock::now(), policies, seed());
    supervisor.set_lame_duck(config.lame_duck);
    let parts = Parts {
        supervisor,
        reactor,
        shut_downs,
        signals,
        runtime_dir,
        open_files: open_files.before,
        cgroups,
        listeners,
        path_watch,
        services,
        config: config.clone(),
        reread,
    };
    let cgroups = Daemon::new(parts, dispatching, output, messages, control).run();
    drop(pid_file);
    let left = processes::sweep(&before);
    // Only now is nobody in them for certain.
    drop(cgroups);
    match left {
        0 => Ok(Ended::Clean),
        left => Ok(Ended::LeftBehind(left)),
    }
}

/// What is best for who reads our output. A person at a terminal wants to see who speaks. When only
/// one stream leads there, the other leads to a file or a program, which is to get what the workers
/// write and nothing else.
fn logs_for(stdio: &Stdio) -> Logs {
    if stdio.are_terminals() { Logs::Prefix } else { Logs::Inherit }
}

/// As long as the longest label: `web.9` for ten workers.
fn label_width(config: &RunConfig) -> usize {
    let label = |service: &ServiceConfig| {
        let last = services::workers(service.workers).saturating_sub(1);
        format!("{}.{last}", service.name).len()
    };
    config.services.iter().map(label).max().unwrap_or_default()
}

/// Says how processes are told to be a worker's, and what cannot be told.
fn claim_cgroups(name: &str) -> Option<Cgroups> {
    let claimed = Cgroups::claim(name);
    // Cgroups above ours have names that others chose.
    let why = claimed.as_ref().map_err(|why| one_line(&why.to_string()));
    match (why, proc::view()) {
        (Ok(cgroups), _) => {
            let directory = one_line(&cgroups.directory().to_string_lossy());
            tracing::info!("workers are kept in cgroups below `{directory}`");
        }
        (Err(why), View::Ours) => tracing::info!(
            "no writable cgroup v2 ({why}): workers' processes are told by parent, session and \
             environment"
        ),
        (Err(why), View::Foreign | View::Missing) => {
            tracing::warn!(
                "no writable cgroup v2 ({why}), and no `/proc` that shows our processes: what a \
                 worker leaves behind is not seen"
            );
        }
    }
    if proc::view() == View::Foreign {
        tracing::warn!(
            "`/proc` shows another pid namespace, so workers are not seen waiting on their \
             sockets; mount ours (`unshare --mount-proc`, `mount -t proc proc /proc`)"
        );
    }
    claimed.ok()
}

/// How many descriptors we may come to hold: those of as many workers again while a reload has two
/// generations, the sockets of each slot, and what we need for ourselves.
fn descriptors_needed(config: &RunConfig) -> u64 {
    let of_service = |service: &ServiceConfig| {
        let each_slot = service.sockets.iter().filter(|spec| spec.slots == Slots::Each).count();
        let each_slot = u64::try_from(each_slot).unwrap_or(u64::MAX);
        // Two generations of them.
        let own = match service.balance {
            Balance::Slots => service.sockets.len() * 2,
            // Its channel, and what it was given and has not answered for.
            Balance::Dispatch(_) => (1 + dispatched::WINDOW) * 2,
            Balance::Generation | Balance::Shared => 0,
        };
        let own = u64::try_from(own).unwrap_or(u64::MAX);
        let channel = u64::from(service.source.messages);
        let each = (DESCRIPTORS_PER_WORKER + channel) * 2 + each_slot + own;
        u64::from(services::workers(service.workers)) * each
    };
    config.services.iter().map(of_service).sum::<u64>() + DESCRIPTORS_OURS
}

/// Something that differs from daemon to daemon, for the jitter.
fn seed() -> u64 {
    let since_boot = clock::now().since(crate::core::time::Time::ZERO).as_nanos();
    u64::try_from(since_boot).unwrap_or(u64::MAX) ^ u64::from(std::process::id())
}

/// What is waited for, and within that the sockets that workers share, and what is dispatched.
fn reactors(
    signals: &Signals,
    path_watch: Option<&PathWatch>,
) -> io::Result<(Reactor, Reactor, Reactor)> {
    let (reactor, shut_downs, dispatching) = (Reactor::new()?, Reactor::new()?, Reactor::new()?);
    reactor.add(&shut_downs, Token::ShutDowns.encode())?;
    reactor.add(&dispatching, Token::Dispatch.encode())?;
    reactor.add(signals, Token::Signals.encode())?;
    if let Some(watch) = path_watch {
        reactor.add(watch, Token::Paths.encode())?;
    }
    Ok((reactor, shut_downs, dispatching))
}
