//! Says how to start a daemon; never touches a process itself.

use std::{
    ffi::{OsStr, OsString},
    fmt::Display,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use super::{Client, ClientOutput, DEADLINE, Daemon, Home, cgroup::Kept, home::MARKER};

/// Variables of whoever runs the tests that would change what the daemon does.
const SCRUBBED: [&str; 7] = [
    "LISTEN_",
    "NOTIFY_SOCKET",
    "WATCHDOG_",
    "SHEPHERD_",
    "NODE_CHANNEL_",
    "NODE_UNIQUE_ID",
    "JOURNAL_STREAM",
];

/// Enters the cgroup and becomes the program.
const ENTER: &str = r#"echo 0 > "$0" && exec "$@""#;

/// Says how to start a daemon; `start` does it.
#[derive(Clone)]
pub struct Builder {
    pub(super) home: Arc<Home>,
    pub(super) binary: PathBuf,
    workers: Option<String>,
    listen: Vec<String>,
    arguments: Vec<OsString>,
    command: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    kept: Kept,
    pub(super) deadline: Duration,
}

impl Builder {
    pub(super) fn new() -> Builder {
        Builder {
            home: Home::new(),
            binary: env!("CARGO_BIN_EXE_shepherd").into(),
            workers: None,
            listen: Vec::new(),
            arguments: Vec::new(),
            command: Vec::new(),
            environment: Vec::new(),
            directory: None,
            kept: Kept::InCgroups,
            deadline: DEADLINE,
        }
    }

    /// `-n`: a number, `auto` or `max`.
    pub fn workers(mut self, workers: impl Display) -> Self {
        self.workers = Some(workers.to_string());
        self
    }

    /// `-p`, as often as this is called.
    pub fn listen(mut self, socket: impl Display) -> Self {
        self.listen.push(socket.to_string());
        self
    }

    /// Further options of `run`.
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// What the workers run.
    pub fn command<A: AsRef<OsStr>>(mut self, command: impl IntoIterator<Item = A>) -> Self {
        self.command = command.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// A variable of the daemon.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The daemon's working directory.
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Another program in the place of the shepherd that was built with the tests.
    pub fn binary(mut self, binary: impl Into<PathBuf>) -> Self {
        self.binary = binary.into();
        self
    }

    /// Runs in the world of another daemon: same runtime directory, same marker.
    pub fn home(mut self, home: &Arc<Home>) -> Self {
        self.home = Arc::clone(home);
        self
    }

    /// Whether it may make cgroups, where the tests themselves may: by default it may.
    pub fn kept(mut self, kept: Kept) -> Self {
        self.kept = kept;
        self
    }

    /// For the files of what is run; goes with the last daemon in it.
    pub fn home_directory(&self) -> &Path {
        self.home.directory()
    }

    /// How long this daemon's `wait_*` and `stop` wait.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    pub fn start(self) -> Daemon {
        let mut command = self.marked(self.entering());
        command.arg("run");
        if let Some(workers) = &self.workers {
            command.arg("-n").arg(workers);
        }
        for socket in &self.listen {
            command.arg("-p").arg(socket);
        }
        command.args(&self.arguments);
        if !self.command.is_empty() {
            command.arg("--").args(&self.command);
        }
        Daemon::attach(self, command)
    }

    /// Runs the binary, which is no shepherd, with these arguments and nothing else.
    pub fn start_other<A: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = A>) -> Daemon {
        let mut command = self.marked(self.entering());
        command.args(arguments);
        Daemon::attach(self, command)
    }

    /// Runs a client, `shepherd ARGUMENTS...`, to its end.
    #[track_caller]
    pub fn client<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> ClientOutput {
        self.start_client(arguments).wait()
    }

    /// Starts a client, `shepherd ARGUMENTS...`.
    #[track_caller]
    pub fn start_client<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Client {
        let mut command = self.marked_command();
        command.args(arguments);
        Client::start(command, self.deadline)
    }

    /// The binary with the environment that all processes of this home share.
    pub(super) fn marked_command(&self) -> Command {
        self.marked(Command::new(&self.binary))
    }

    /// The binary, which enters the cgroup of its home first and keeps its pid.
    fn entering(&self) -> Command {
        let Some(cgroup) = self.home.cgroup(self.kept) else {
            return Command::new(&self.binary);
        };
        let mut command = Command::new("sh");
        command.args(["-c", ENTER]).arg(cgroup.join("cgroup.procs")).arg(&self.binary);
        command
    }

    fn marked(&self, mut command: Command) -> Command {
        for (key, _) in std::env::vars_os() {
            if SCRUBBED.iter().any(|start| key.as_bytes().starts_with(start.as_bytes())) {
                command.env_remove(key);
            }
        }
        command
            .env("XDG_RUNTIME_DIR", self.home.runtime_directory())
            .env(MARKER, self.home.marker())
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }
}
