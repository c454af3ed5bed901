//! A port with workers behind it whose version can be changed while they run, and ways to use it.

#![expect(clippy::panic, reason = "a test fails by it")]
#![expect(
    clippy::disallowed_methods,
    reason = "settings come from the environment, and a pace from the clock"
)]

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::harness::{Builder, DEADLINE, Daemon, Home, Kind, Limits, Load, Port, free_port};

/// Runs what the variable RUN says, with the pid and the sockets of the shell.
pub(crate) const RUN: [&str; 3] = ["sh", "-c", "exec $RUN"];

/// Connections that all `New` clients of one site begin in a second: tests run side by side.
const NEW_PER_SECOND: u32 = 150;

/// A port, a directory and a file of variables for the workers.
pub(crate) struct Site {
    pub(crate) home: Arc<Home>,
    pub(crate) port: Port,
}

impl Site {
    /// The version is `v1`.
    pub(crate) fn new() -> Site {
        let site = Site { home: Home::new(), port: free_port() };
        site.release("v1");
        site
    }

    /// The same, and RUN says what the workers are.
    pub(crate) fn running(program: &[impl AsRef<OsStr>]) -> Site {
        let site = Site::new();
        site.release_running("v1", program);
        site
    }

    /// A daemon with the port and the file of variables. Clients that keep their connections are
    /// waited for a second and no longer, for that a reload is not as long as the test's patience.
    pub(crate) fn run(&self, workers: usize) -> Builder {
        self.run_by_default(workers).args(["--before-stop", "1s"])
    }

    /// The same, with nothing said about connections.
    pub(crate) fn run_by_default(&self, workers: usize) -> Builder {
        Daemon::run()
            .home(&self.home)
            .workers(workers)
            .listen(&self.port)
            .args([OsStr::new("--env-file"), self.variables().as_os_str()])
    }

    /// From here on the file of variables names this version.
    pub(crate) fn release(&self, version: &str) {
        self.write_variables(&format!("VERSION={version}\n"));
    }

    /// The same, and RUN is this program.
    pub(crate) fn release_running(&self, version: &str, program: &[impl AsRef<OsStr>]) {
        let words: Vec<_> = program.iter().map(|word| word.as_ref().to_string_lossy()).collect();
        self.write_variables(&format!("VERSION={version}\nRUN='{}'\n", words.join(" ")));
    }

    pub(crate) fn write_variables(&self, text: &str) {
        let unfinished = self.path("variables.new");
        fs::write(&unfinished, text).expect("a file of variables");
        fs::rename(&unfinished, self.variables()).expect("a file of variables");
    }

    pub(crate) fn variables(&self) -> PathBuf {
        self.path("variables")
    }

    /// A path in the directory of the site.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.directory().join(name)
    }

    /// A release directory in which `./server` says `version`; `current` leads to it from here on.
    pub(crate) fn release_directory(&self, version: &str, program: &[OsString]) {
        let directory = self.path(version);
        fs::create_dir(&directory).expect("a release directory");
        let words: Vec<_> = program.iter().map(|word| word.to_string_lossy()).collect();
        let text = format!("#!/bin/sh\nVERSION={version} exec {}\n", words.join(" "));
        write_program(&directory.join("server"), text.as_bytes(), 0o755);
        self.switch_current(&directory);
    }

    /// `current` leads there from here on.
    pub(crate) fn switch_current(&self, target: &Path) {
        let unfinished = self.path("current.new");
        symlink(target, &unfinished).expect("a symbolic link");
        fs::rename(&unfinished, self.path("current")).expect("a symbolic link");
    }

    pub(crate) fn current(&self) -> PathBuf {
        self.path("current")
    }

    /// Clients of every kind.
    pub(crate) fn load(&self) -> Load {
        self.load_of([(Kind::New, 2), (Kind::kept_alive(), 3), (Kind::Slow { ms: 40 }, 1)])
    }

    pub(crate) fn load_of(&self, clients: impl IntoIterator<Item = (Kind, usize)>) -> Load {
        let limits = Limits { new_per_second: NEW_PER_SECOND, ..Limits::default() };
        Load::start_with(limits, &self.port, clients)
    }

    /// The version that one more request is answered by.
    #[track_caller]
    pub(crate) fn version(&self) -> String {
        match crate::harness::get(&self.port, "/") {
            Ok(response) => response.version,
            Err(error) => panic!("no answer: {error}"),
        }
    }
}

/// Puts a program into the place of another at once, as a deployment does.
pub(crate) fn write_program(path: &Path, bytes: &[u8], mode: u32) {
    let unfinished = path.with_extension("new");
    fs::write(&unfinished, bytes).expect("a program");
    fs::set_permissions(&unfinished, fs::Permissions::from_mode(mode)).expect("a program");
    fs::rename(&unfinished, path).expect("a program");
}

/// The same with a copy of a binary. Another process writes it: a descriptor of ours that is open
/// for writing could be inherited by a process that another test is just starting, and then nobody
/// could execute the file (ETXTBSY).
pub(crate) fn copy_program(from: &Path, to: &Path) {
    let unfinished = to.with_extension("new");
    let status = Command::new("cp").arg(from).arg(&unfinished).status();
    assert!(status.expect("cp runs").success(), "cannot copy {}", from.display());
    fs::rename(&unfinished, to).expect("a program");
}

/// A script that becomes shepherd in the end: the binary of a builder, for other circumstances.
pub(crate) fn wrapper(home: &Home, text: &str) -> PathBuf {
    let path = home.directory().join("wrapper");
    write_program(&path, format!("#!/bin/sh\n{text}\n").as_bytes(), 0o755);
    path
}

/// Waits until all workers are ready for the first time.
#[track_caller]
pub(crate) fn wait_serving(daemon: &Daemon, workers: usize) -> Vec<i32> {
    let all = if workers == 1 {
        ": 1 worker ready".to_owned()
    } else {
        format!(": {workers} workers ready")
    };
    daemon.wait_line(|line| line.ends_with(&all), &all);
    daemon.wait_workers(workers)
}

/// SIGHUP, then the line that says how the reload ended.
#[track_caller]
pub(crate) fn reload(daemon: &Daemon) -> String {
    let mark = daemon.mark();
    daemon.signal(Signal::SIGHUP);
    wait_reloaded(daemon, mark)
}

/// The line that says how a reload ended, after `mark`.
#[track_caller]
pub(crate) fn wait_reloaded(daemon: &Daemon, mark: usize) -> String {
    daemon.wait_line_since(mark, is_outcome, "the outcome of a reload")
}

/// A reload that must be committed.
#[track_caller]
pub(crate) fn reload_well(daemon: &Daemon) {
    let outcome = reload(daemon);
    if !outcome.contains("reload committed") {
        daemon.fail(&format!("the reload failed: {outcome}"));
    }
}

pub(crate) fn is_outcome(line: &str) -> bool {
    line.contains(": reload committed") || line.contains(" aborted: ")
}

/// Waits until every worker process runs this generation: those of others have drained.
#[track_caller]
pub(crate) fn wait_only_generation(daemon: &Daemon, generation: u32, workers: usize) {
    let generation = generation.to_string();
    daemon.eventually(&format!("{workers} workers, all of {generation}"), || {
        let all = daemon.worker_processes();
        let fits = all.len() == workers
            && all.iter().all(|worker| worker.generation.as_deref() == Some(&generation));
        fits.then_some(())
    });
}

/// Stops the daemon: it must end well and leave nothing.
#[track_caller]
pub(crate) fn stop_well(daemon: &Daemon) {
    let status = daemon.stop();
    if status.code() != Some(0) {
        daemon.fail(&format!("the daemon ended with {status}"));
    }
    daemon.assert_nothing_left();
}

/// A connection to one worker, by hand: a request can be begun and finished whenever the test likes.
pub(crate) struct Conversation {
    stream: TcpStream,
    /// Who answered the first request, and so answers all.
    pub(crate) version: String,
    pub(crate) pid: i32,
}

impl Conversation {
    /// Connects and asks once.
    #[track_caller]
    pub(crate) fn open(port: &Port) -> Conversation {
        let stream =
            TcpStream::connect((Ipv4Addr::LOCALHOST, port.number())).expect("a connection");
        stream.set_read_timeout(Some(DEADLINE)).expect("a time limit");
        stream.set_nodelay(true).expect("a connection");
        let mut conversation = Conversation { stream, version: String::new(), pid: 0 };
        conversation.begin("/");
        let body = conversation.finish();
        let mut words = body.split_ascii_whitespace();
        conversation.version = words.next().expect("a version").into();
        conversation.pid = words.next().and_then(|word| word.parse().ok()).expect("a pid");
        conversation
    }

    /// Sends all of a request but its end. The example workers wait 10 s for that.
    #[track_caller]
    pub(crate) fn begin(&mut self, path: &str) {
        write!(self.stream, "GET {path} HTTP/1.1\r\nHost: x\r\n").expect("an open connection");
    }

    /// Sends the end of the request.
    #[track_caller]
    pub(crate) fn end(&mut self) {
        write!(self.stream, "\r\n").expect("an open connection");
    }

    /// Reads the answer's body; it ends with the first line after the head.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> String {
        let mut got = Vec::new();
        let mut byte = [0];
        loop {
            let text = String::from_utf8_lossy(&got);
            if let Some((head, body)) = text.split_once("\r\n\r\n")
                && body.ends_with('\n')
            {
                assert!(head.starts_with("HTTP/1.1 200 "), "{text}");
                return body.trim_end().to_owned();
            }
            match self.stream.read(&mut byte) {
                Ok(1) => got.push(byte[0]),
                outcome => panic!("{outcome:?} after `{text}`"),
            }
        }
    }

    /// Ends the request and reads the answer's body.
    #[track_caller]
    pub(crate) fn finish(&mut self) -> String {
        self.end();
        self.answer()
    }
}

/// A number from the environment: how long the long run is.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is `{text}`, not a number")),
        Err(_) => default,
    }
}

/// A duration of a load that goes by while the test does something each `tick`: never a wait for
/// something that should happen.
pub(crate) struct Ticks {
    begin: std::time::Instant,
    tick: Duration,
    count: u32,
}

impl Ticks {
    pub(crate) fn every(tick: Duration) -> Ticks {
        Ticks { begin: std::time::Instant::now(), tick, count: 0 }
    }

    /// Until the next tick; a late one does not delay those after it.
    pub(crate) fn next(&mut self) {
        self.count += 1;
        let at = self.begin + self.tick * self.count;
        let left = at.saturating_duration_since(std::time::Instant::now());
        let time = nix::sys::time::TimeSpec::from_duration(left);
        // Interrupted or not, it is a pace and no condition.
        let _ = nix::poll::ppoll(&mut [], Some(time), None);
    }
}
