//! The world of one test: a private runtime directory, and a marker that all its processes carry.
//!
//! A daemon that was killed leaves workers behind, and they are nobody's children. The test process
//! does not become their subreaper (tests run as threads of one process, and would reap for each
//! other); they are found by the marker in their environment, and those that hide it by the walk
//! over the daemon's descendants that its drop makes while it is still there.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{
    cgroup::{Cgroup, Kept},
    pidfd::Process,
    proc,
};

/// The variable that marks the processes of a test.
pub const MARKER: &str = "HARNESS_ID";

/// Rounds of looking and killing: each finds the children that a killed process made just before.
const ROUNDS_MAX: usize = 200;
/// Rounds in a row that find nobody before we believe it: a process between fork and exec may be
/// seen without its environment.
const ROUNDS_EMPTY: usize = 2;

/// A process that outlived what it should not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    pub pid: i32,
    pub command: String,
}

pub struct Home {
    directory: TempDir,
    marker: String,
    /// Descendants of daemons that were dropped.
    strays: Mutex<Vec<Process>>,
    /// Where its daemons begin; dropped after this has killed what it knows.
    cgroup: Option<Cgroup>,
}

impl Home {
    pub fn new() -> Arc<Home> {
        Home::new_in(&env::temp_dir())
    }

    /// The same in another directory for what is temporary.
    pub fn new_in(directory: &Path) -> Arc<Home> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let directory = TempDir::with_prefix_in("shepherd-test-", directory);
        let directory = directory.expect("a temporary directory");
        let runtime = directory.path().join("run");
        fs::create_dir(&runtime).expect("a runtime directory");
        // Workers of another user must find their notification sockets in here.
        for path in [directory.path(), &runtime] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o711)).expect("our directory");
        }
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let marker = format!("{}-{count}-{}", process::id(), since_epoch.as_nanos());
        let cgroup = Cgroup::new(&format!("shepherd-test-{marker}"));
        Arc::new(Home { directory, marker, strays: Mutex::default(), cgroup })
    }

    /// For the files of a test; goes with the last daemon.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The daemon's XDG_RUNTIME_DIR.
    pub fn runtime_directory(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// The cgroup in which daemons of one kind begin; none where we cannot make any.
    pub fn cgroup(&self, kept: Kept) -> Option<PathBuf> {
        self.cgroup.as_ref().map(|cgroup| cgroup.part(kept))
    }

    pub fn marker(&self) -> &str {
        &self.marker
    }

    /// Every live process that carries our marker.
    pub fn processes(&self) -> Vec<Leftover> {
        proc::entries()
            .iter()
            .filter(|entry| self.owns(entry.pid))
            .map(|entry| Leftover { pid: entry.pid, command: proc::command_line(entry.pid) })
            .collect()
    }

    pub(super) fn owns(&self, pid: i32) -> bool {
        proc::environment(pid).get(MARKER) == Some(&self.marker)
    }

    /// Leaves processes to be killed when the last daemon of this home goes.
    pub(super) fn leave(&self, strays: Vec<Process>) {
        self.strays.lock().unwrap_or_else(PoisonError::into_inner).extend(strays);
    }

    fn kill_all(&self) {
        for stray in &*self.strays.lock().unwrap_or_else(PoisonError::into_inner) {
            kill(stray);
        }
        let mut empty = 0;
        for _ in 0..ROUNDS_MAX {
            let pids: Vec<i32> = self.processes().iter().map(|found| found.pid).collect();
            // Opened first and looked at again: the pid may be somebody else's by then.
            let found: Vec<Process> = pids
                .into_iter()
                .filter_map(|pid| Process::open(pid).ok())
                .filter(|process| self.owns(process.pid()))
                .collect();
            empty = if found.is_empty() { empty + 1 } else { 0 };
            if empty == ROUNDS_EMPTY {
                return;
            }
            found.iter().for_each(kill);
        }
        eprintln!("cannot kill all processes of a test: {:?}", self.processes());
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.kill_all();
    }
}

fn kill(process: &Process) {
    // It may have ended by itself.
    let _ = process.signal(Signal::SIGKILL);
    if !process.ends_within(Duration::from_secs(5)) {
        eprintln!("process {} outlives SIGKILL", process.pid());
    }
}
