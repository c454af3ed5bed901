//! Runs the real binary, watches it from outside, and never lets it or a worker outlive the test.

use std::{
    ffi::OsStr,
    process::{Child, Command, ExitStatus},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;

use super::{
    Address, Builder, Client, ClientOutput, Home, Leftover, Line, eventually_within,
    output::{Output, Waited},
    pidfd::Process,
    proc,
};

/// A worker's main process, as its environment describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerProcess {
    pub pid: i32,
    /// SHEPHERD_WORKER.
    pub worker: String,
    /// SHEPHERD_SLOT, where it is set.
    pub slot: Option<String>,
    /// SHEPHERD_GENERATION, where it is set.
    pub generation: Option<String>,
}

/// A running `shepherd run`.
pub struct Daemon {
    builder: Builder,
    process: Process,
    child: Mutex<Child>,
    output: Arc<Output>,
    /// Whether the output was printed with a failure.
    told: AtomicBool,
}

impl Daemon {
    /// Begins to say what to run.
    pub fn run() -> Builder {
        Builder::new()
    }

    /// Runs what the builder made, and takes hold of it.
    #[track_caller]
    pub(super) fn attach(builder: Builder, mut command: Command) -> Daemon {
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start `{}`: {error}", builder.binary.display()));
        // Not reaped before we do it, so the pid is still the child's.
        let pid = i32::try_from(child.id()).expect("a pid");
        let process = match Process::open(pid) {
            Ok(process) => process,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("cannot open a pidfd: {error}");
            }
        };
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let stderr = child.stderr.take().expect("stderr is a pipe");
        let output = Output::capture(stdout, stderr).expect("a thread for the output");
        Daemon { builder, process, child: Mutex::new(child), output, told: AtomicBool::new(false) }
    }

    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    pub fn home(&self) -> &Arc<Home> {
        &self.builder.home
    }

    /// How this daemon was started: to start one like it, in the same home.
    pub fn builder(&self) -> Builder {
        self.builder.clone()
    }

    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        if let Err(error) = self.process.signal(signal) {
            self.fail(&format!("cannot send {signal} to the daemon: {error}"));
        }
    }

    /// The first line, from the very beginning, that `wanted` accepts; waits for it.
    #[track_caller]
    pub fn wait_line(&self, wanted: impl Fn(&str) -> bool, what: &str) -> String {
        self.wait_line_since(0, wanted, what)
    }

    /// The same among the lines that came after `mark` was taken.
    #[track_caller]
    pub fn wait_line_since(
        &self,
        mark: usize,
        wanted: impl Fn(&str) -> bool,
        what: &str,
    ) -> String {
        match self.output.wait(mark, self.builder.deadline, wanted) {
            Waited::Found(line) => line,
            Waited::Ended => self.fail(&format!("the output ended without a line: {what}")),
            Waited::TimedOut => {
                self.fail(&format!("no line within {:?}: {what}", self.builder.deadline))
            }
        }
    }

    /// The place in the output where we are.
    pub fn mark(&self) -> usize {
        self.output.mark()
    }

    /// All that was written before this call.
    pub fn lines(&self) -> Vec<Line> {
        self.output.lines()
    }

    pub fn count_lines(&self, wanted: impl Fn(&str) -> bool) -> usize {
        self.lines().iter().filter(|line| wanted(&line.text)).count()
    }

    /// Waits until `condition` gives something; a failure shows the output.
    #[track_caller]
    pub fn eventually<T>(&self, what: &str, condition: impl FnMut() -> Option<T>) -> T {
        match eventually_within(self.builder.deadline, condition) {
            Some(value) => value,
            None => self.fail(&format!("waited {:?} in vain for {what}", self.builder.deadline)),
        }
    }

    pub fn is_running(&self) -> bool {
        !self.process.ends_within(Duration::ZERO)
    }

    /// The exit status of the daemon, which is expected to end by itself.
    #[track_caller]
    pub fn wait_exit(&self) -> ExitStatus {
        if !self.process.ends_within(self.builder.deadline) {
            self.fail(&format!("the daemon runs on after {:?}", self.builder.deadline));
        }
        // It has ended, so this does not block; asked twice, it gives the same again.
        match self.child.lock().unwrap_or_else(PoisonError::into_inner).wait() {
            Ok(status) => status,
            Err(error) => self.fail(&format!("cannot reap the daemon: {error}")),
        }
    }

    /// SIGTERM, then the exit status.
    #[track_caller]
    pub fn stop(&self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait_exit()
    }

    /// Pids of all live children of the daemon.
    pub fn children(&self) -> Vec<i32> {
        proc::children(self.pid())
    }

    /// Pids of all that is alive below the daemon.
    pub fn descendants(&self) -> Vec<i32> {
        proc::descendants(self.pid()).into_iter().map(|entry| entry.pid).collect()
    }

    /// Every live child that is a worker's main process, also one that drains.
    pub fn worker_processes(&self) -> Vec<WorkerProcess> {
        let mut workers: Vec<WorkerProcess> = self
            .children()
            .into_iter()
            .filter_map(|pid| {
                let mut environment = proc::environment(pid);
                Some(WorkerProcess {
                    pid,
                    worker: environment.remove("SHEPHERD_WORKER")?,
                    slot: environment.remove("SHEPHERD_SLOT"),
                    generation: environment.remove("SHEPHERD_GENERATION"),
                })
            })
            .collect();
        workers
            .sort_by_key(|worker| (number(worker.slot.as_deref()), number(Some(&worker.worker))));
        workers
    }

    /// Pids of the newest worker of each slot, in the order of the slots. That a worker drains
    /// cannot be seen from outside, but a worker's id is never used twice, so the one with the
    /// highest id is not draining unless its slot went away or the service stops. During a reload
    /// it may not be ready.
    pub fn workers(&self) -> Vec<i32> {
        let mut newest: Vec<WorkerProcess> = Vec::new();
        for worker in self.worker_processes() {
            match newest.last_mut() {
                Some(last) if last.slot.is_some() && last.slot == worker.slot => *last = worker,
                _ => newest.push(worker),
            }
        }
        newest.into_iter().map(|worker| worker.pid).collect()
    }

    /// Waits until there are exactly this many workers, and gives their pids.
    #[track_caller]
    pub fn wait_workers(&self, count: usize) -> Vec<i32> {
        self.eventually(&format!("{count} workers"), || {
            Some(self.workers()).filter(|workers| workers.len() == count)
        })
    }

    /// Where the daemon listens, as the kernel tells it, without what is in the runtime directory
    /// (the control socket). Streams only.
    pub fn addresses(&self) -> Vec<Address> {
        let runtime = self.home().runtime_directory();
        proc::listening(self.pid())
            .into_iter()
            .filter(|address| match address {
                Address::Tcp(_) => true,
                Address::Unix(path) => !path.starts_with(&runtime),
            })
            .collect()
    }

    /// Waits until the daemon listens on `count` addresses.
    #[track_caller]
    pub fn wait_addresses(&self, count: usize) -> Vec<Address> {
        self.eventually(&format!("{count} listening addresses"), || {
            Some(self.addresses()).filter(|addresses| addresses.len() == count)
        })
    }

    /// Every live process of this home except the daemon itself.
    pub fn leftovers(&self) -> Vec<Leftover> {
        let daemon = self.is_running().then_some(self.pid());
        let mut found = self.home().processes();
        found.retain(|process| Some(process.pid) != daemon);
        found
    }

    /// Waits until no process of this home is left: for after a stop.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let gone =
            eventually_within(self.builder.deadline, || self.leftovers().is_empty().then_some(()));
        if gone.is_none() {
            self.fail(&format!("left behind: {:#?}", self.leftovers()));
        }
    }

    /// Runs a client of this daemon, `shepherd ARGUMENTS...`, to its end.
    #[track_caller]
    pub fn client<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> ClientOutput {
        self.builder.client(arguments)
    }

    /// Starts a client of this daemon, `shepherd ARGUMENTS...`.
    #[track_caller]
    pub fn start_client<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Client {
        self.builder.start_client(arguments)
    }

    /// Fails the test with all that was printed.
    #[track_caller]
    pub fn fail(&self, why: &str) -> ! {
        self.told.store(true, Ordering::Relaxed);
        panic!("{why}\n{}", self.output.transcript());
    }

    /// Descendants that we hold by pidfd; stopped before, the daemon makes none meanwhile.
    fn hold_descendants(&self) -> Vec<Process> {
        let _ = self.process.signal(Signal::SIGSTOP);
        let _ = eventually_within(Duration::from_secs(1), || match proc::entry(self.pid()) {
            Some(entry) => (entry.state == 'T').then_some(()),
            None => Some(()),
        });
        proc::descendants(self.pid())
            .into_iter()
            .filter_map(|entry| {
                let process = Process::open(entry.pid).ok()?;
                // The pid was not used again if it still has the same parent.
                (proc::entry(entry.pid)?.parent == entry.parent).then_some(process)
            })
            .collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() && !self.told.load(Ordering::Relaxed) {
            eprintln!("{}", self.output.transcript());
        }
        if self.is_running() {
            self.home().leave(self.hold_descendants());
            let _ = self.process.signal(Signal::SIGKILL);
        }
        let _ = self.child.lock().unwrap_or_else(PoisonError::into_inner).wait();
        // The home is dropped after this, by the last daemon in it, and kills who is left.
    }
}

fn number(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
}
