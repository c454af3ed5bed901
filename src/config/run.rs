//! What `shepherd run` is to do, all values read and checked against each other. Plain data.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::identity::Identity;
use super::socket::SocketSpec;
use super::values::{Logs, StopSignals, ValueError, Workers};
use crate::core::policy::{CheckPace, ReadyWhen};

/// One service, and what belongs to the daemon around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunConfig {
    /// The service's name and the daemon's.
    pub name: Name,
    /// How many workers.
    pub workers: Workers,
    /// What they serve on, in order.
    pub sockets: Vec<SocketSpec>,
    /// What counts as ready.
    pub ready: ReadyWhen,
    /// How long they may take to be.
    pub ready_timeout: Duration,
    /// How often they are probed, where a probe is what counts.
    pub check_pace: CheckPace,
    /// How they are asked to stop.
    pub stop: StopSignals,
    /// How long they may take to drain.
    pub drain_timeout: Duration,
    /// How long everything serves on after a stop was asked for.
    pub lame_duck: Duration,
    /// Where their output leads; without it what is best for who reads ours.
    pub logs: Option<Logs>,
    /// What they run.
    pub source: Source,
    /// Where our pid is written.
    pub pid_file: Option<PathBuf>,
}

/// A name, and whether the user insists on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// Asked for; when it is taken, that is an error.
    Explicit(String),
    /// Taken from the program; when it is taken, it is varied.
    Implicit(String),
}

impl Name {
    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Name::Explicit(name) | Name::Implicit(name) => name,
        }
    }
}

/// What a service runs, as the user gave it. It is read at start and again at each reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The program, and its arguments.
    pub command: Vec<OsString>,
    /// Where it runs; our own directory without it.
    pub directory: Option<PathBuf>,
    /// Variables from the command line; they win over everything.
    pub variables: Vec<(String, String)>,
    /// Files of variables; a later one wins over an earlier one, and all over what we inherited.
    pub env_files: Vec<PathBuf>,
    /// As whom, and within which limits.
    pub identity: Identity,
}

/// Values that are right alone and wrong together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RunConfigError {
    /// Nothing could ever be seen.
    #[error(
        "`--ready listen` waits for a worker on its socket, but there is none; add `-p SOCKET`, or use `--ready notify` or `alive:D`"
    )]
    NoSocketToWaitOn,
    /// Nothing could ever be connected to.
    #[error(
        "`--ready {0}` connects to the first TCP or unix socket, but there is none; add `-p SOCKET`, or use `--ready notify` or `exec:COMMAND`"
    )]
    NoSocketToConnectTo(&'static str),
    /// A variable of the command line.
    #[error("cannot use `--env`: {0}")]
    Variable(ValueError),
    /// It would always be late.
    #[error(
        "`--ready alive:{alive:?}` is not shorter than `--ready-timeout {timeout:?}`, so no worker could get ready; raise the timeout"
    )]
    AlwaysLate {
        /// How long a worker is to be alive.
        alive: Duration,
        /// When it is late.
        timeout: Duration,
    },
    /// More than a worker can be given.
    #[error("{0} sockets are more than the {SOCKETS_MAX} that a worker can be given")]
    TooManySockets(usize),
    /// Two sockets of one name would be told apart by nobody.
    #[error("the name `{0}` is given to two sockets; names tell sockets apart")]
    SameName(String),
}

/// The most sockets of one service: as many as fit into one message of descriptors.
pub const SOCKETS_MAX: usize = 253;

impl RunConfig {
    /// Checks the values against each other.
    ///
    /// # Errors
    ///
    /// The first thing that cannot be.
    pub fn check(&self) -> Result<(), RunConfigError> {
        if self.sockets.len() > SOCKETS_MAX {
            return Err(RunConfigError::TooManySockets(self.sockets.len()));
        }
        let mut names: Vec<&str> =
            self.sockets.iter().filter_map(|socket| Some(socket.name.as_ref()?.as_str())).collect();
        names.sort_unstable();
        if let Some(&[name, _]) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(RunConfigError::SameName(name.to_owned()));
        }
        match &self.ready {
            &ReadyWhen::Alive(alive) if alive >= self.ready_timeout => {
                Err(RunConfigError::AlwaysLate { alive, timeout: self.ready_timeout })
            }
            ReadyWhen::Alive(_)
            | ReadyWhen::Auto
            | ReadyWhen::Notify
            | ReadyWhen::Listen
            | ReadyWhen::Check(_) => Ok(()),
        }
    }
}
