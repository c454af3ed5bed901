//! Says whose process a process is: which live processes belong to a worker, also those that have
//! lost their parent and were handed to us, the subreaper. It never signals or reaps.
//!
//! A worker's processes are the descendants of its main process, and its orphans. An orphan is
//! attributed by the strongest evidence there is:
//! 1. it was seen in the worker's tree before, with the same pid and start time;
//! 2. it is in the worker's session. The number of a session is not given to another process while
//!    somebody is in it, and no process can join a session that exists, see setsid(2);
//! 3. the environment that it was started with carries all of the worker's marks.
//!
//! The marks come last because they can be copied. A shepherd inside a worker gives its workers
//! marks of its own, with ids that begin at the same number; if it dies, its workers come to us.
//! The first two tell them from ours, and so do marks that differ (the service's name, and whatever
//! else the caller adds). What remains: an orphan of the inner shepherd in a session of its own
//! that was never seen before, while all its marks equal those of a live worker of ours, is taken
//! for that worker's.
//!
//! A daemon that makes a session, replaces its environment and loses its parent between two looks
//! is a stranger: nothing of it leads back. Looking often enough, with [`Root::remember`] after
//! every look, makes that window small; only a cgroup closes it, and goes before all of these where
//! workers have one, see [`super::cgroup`].

use super::proc;
use nix::unistd::Pid;
use std::collections::BTreeSet;

/// One process for as long as it lives: a pid alone may be another's later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its pid.
    pub pid: Pid,
    /// When it started, in clock ticks since boot.
    pub start_time: u64,
}

/// A variable that tells a worker's processes by their environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The name of the variable.
    pub name: &'static str,
    /// The value that this worker was started with.
    pub value: Vec<u8>,
}

/// A worker as its tree shows it.
#[derive(Debug, Clone)]
pub struct Root {
    /// The worker's id.
    pub worker: u64,
    /// Its main process.
    pub main: Pid,
    /// The session that it was started in: the pid of the process that we spawned, which leads it.
    pub session: Pid,
    /// What its environment was given. An orphan must carry all of them; with none, no orphan is
    /// attributed by its environment.
    pub marks: Vec<Mark>,
    seen: BTreeSet<Process>,
}

/// Whether a worker's main process can have children still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Main {
    /// We have not reaped it, so that its pid is its own.
    Alive,
    /// Its pid says nothing any more.
    Gone,
}

/// Whose an orphan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The worker with this id.
    Worker(u64),
    /// Nobody's of ours as far as is shown: what tells may not be ours to read, and in the midst of
    /// an exec there is no environment. It is an answer for the moment, not for ever.
    Stranger,
    /// A zombie, or gone altogether: there is only its exit to collect.
    Dead,
}

impl Root {
    /// A worker in whose tree nothing was seen yet.
    #[must_use]
    pub fn new(worker: u64, main: Pid, session: Pid, marks: Vec<Mark>) -> Self {
        Self { worker, main, session, marks, seen: BTreeSet::new() }
    }

    /// What was seen in its tree and not found dead since.
    pub fn seen(&self) -> impl Iterator<Item = Process> {
        self.seen.iter().copied()
    }

    /// Remembers what [`members`] gave, and forgets what has died.
    pub fn remember(&mut self, members: &[Process]) {
        let current: BTreeSet<Process> = members.iter().copied().collect();
        // A process may lose its parent while the tree is read, and be missing from that look.
        self.seen.retain(|process| !current.contains(process) && process.is_live());
        self.seen.extend(current);
    }
}

impl Process {
    /// The live process with this pid at the moment; no zombie.
    #[must_use]
    pub fn live(pid: Pid) -> Option<Self> {
        let stat = proc::stat(pid).filter(proc::Stat::is_live)?;
        Some(Self { pid, start_time: stat.start_time })
    }

    /// Whether this very process lives still.
    #[must_use]
    pub fn is_live(self) -> bool {
        Self::live(self.pid) == Some(self)
    }
}

/// Our children that are nobody's main process: orphans of workers, and strangers.
#[must_use]
pub fn orphans(own_children: &[Pid], mains: &BTreeSet<Pid>) -> Vec<Pid> {
    own_children.iter().copied().filter(|pid| !mains.contains(pid)).collect()
}

/// Whose an orphan is, among all workers that are not quite gone. All of them must be given: the
/// evidence for one may be outdone by that for another.
#[must_use]
pub fn owner(orphan: Pid, roots: &[&Root]) -> Owner {
    let Some(stat) = proc::stat(orphan).filter(proc::Stat::is_live) else {
        return Owner::Dead;
    };
    let process = Process { pid: orphan, start_time: stat.start_time };
    // Most orphans are told without it, and it is the longest to read.
    let environment = || proc::environment(orphan).unwrap_or_default();
    decide(process, stat.session, environment, roots)
}

/// All live processes that belong to a worker, its main process apart, each once, nearest first.
/// `orphans` are those of our children that [`owner`] gave to this worker.
#[must_use]
pub fn members(root: &Root, main: Main, orphans: &[Pid]) -> Vec<Process> {
    let mut starts = match main {
        Main::Alive => vec![root.main],
        Main::Gone => Vec::new(),
    };
    starts.extend_from_slice(orphans);
    // What was seen and lives is a member wherever it went, to another subreaper for instance.
    starts.extend(root.seen.iter().filter(|process| process.is_live()).map(|process| process.pid));
    let mut known = BTreeSet::new();
    if main == Main::Alive {
        // It begins the walk and is not its result.
        known.insert(root.main);
    }
    let mut found = Vec::new();
    let mut walked = BTreeSet::new();
    for start in starts {
        // What was reached from an earlier start has been walked from there.
        if start != root.main && known.contains(&start) || !walked.insert(start) {
            continue;
        }
        for pid in std::iter::once(start).chain(proc::descendants(start)) {
            if known.insert(pid) {
                found.extend(Process::live(pid));
            }
        }
    }
    found
}

fn decide(
    process: Process,
    session: Pid,
    environment: impl FnOnce() -> Vec<u8>,
    roots: &[&Root],
) -> Owner {
    let certain = roots
        .iter()
        .find(|root| root.seen.contains(&process))
        .or_else(|| roots.iter().find(|root| root.session == session));
    let found = certain.or_else(|| {
        let environment = environment();
        roots.iter().find(|root| carries(&environment, &root.marks))
    });
    found.map_or(Owner::Stranger, |root| Owner::Worker(root.worker))
}

fn carries(environment: &[u8], marks: &[Mark]) -> bool {
    let has = |mark: &Mark| {
        proc::value_in_environment(environment, mark.name) == Some(mark.value.as_slice())
    };
    !marks.is_empty() && marks.iter().all(has)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "they start real processes and wait for them")]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal, kill};
    use std::io::{BufRead, BufReader};
    use std::process::{Child, ChildStdout, Command, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    #[test]
    fn the_strongest_evidence_decides() {
        let mut first = root(1, 100, "web");
        let second = root(2, 200, "web");
        let seen = Process { pid: Pid::from_raw(300), start_time: 5 };
        first.seen.insert(seen);
        let roots = [first, second];
        let other = Process { start_time: 6, ..seen };
        let of_second = "A=B\0SHEPHERD_SERVICE=web\0SHEPHERD_WORKER=2\0";
        let cases = [
            ("seen before all else", seen, 200, of_second, Owner::Worker(1)),
            ("another with its pid is not it", other, 9, "", Owner::Stranger),
            ("session", other, 200, "", Owner::Worker(2)),
            ("session before marks", other, 100, of_second, Owner::Worker(1)),
            ("marks", other, 9, of_second, Owner::Worker(2)),
            ("an id alone", other, 9, "SHEPHERD_WORKER=2\0", Owner::Stranger),
            (
                "the same id in another service",
                other,
                9,
                "SHEPHERD_SERVICE=api\0SHEPHERD_WORKER=2\0",
                Owner::Stranger,
            ),
            (
                "an id that begins alike",
                other,
                9,
                "SHEPHERD_SERVICE=web\0SHEPHERD_WORKER=21\0",
                Owner::Stranger,
            ),
        ];
        for (case, process, session, environment, expected) in cases {
            let environment = || environment.as_bytes().to_vec();
            let owner =
                decide(process, Pid::from_raw(session), environment, &[&roots[0], &roots[1]]);
            assert_eq!(owner, expected, "{case}");
        }
    }

    #[test]
    fn without_marks_no_environment_fits() {
        assert!(!carries(b"A=1\0", &[]));
    }

    #[test]
    fn orphans_are_our_children_that_are_no_main_process() {
        let pid = Pid::from_raw;
        let found = orphans(&[pid(1), pid(2), pid(3)], &BTreeSet::from([pid(2), pid(9)]));
        assert_eq!(found, [pid(1), pid(3)]);
    }

    #[test]
    fn a_daemon_in_a_session_of_its_own_is_attributed_by_its_marks() {
        let world = World::start("os.setsid()");
        let root = world.root("web");
        assert_eq!(world.members(&root), [world.parent, world.orphan]);
        world.lose_parent();
        assert_eq!(owner(world.orphan, &[&root]), Owner::Worker(7));
        assert_eq!(world.members(&root), [world.orphan]);
        assert_eq!(owner(world.orphan, &[&world.root("api")]), Owner::Stranger);
    }

    #[test]
    fn a_daemon_without_environment_is_attributed_only_if_it_was_seen() {
        let world = World::start("os.setsid(); os.execve('/bin/cat', ['cat'], {})");
        let mut root = world.root("web");
        until("it is cat", || proc::comm(world.orphan).is_ok_and(|name| name == "cat"));
        let seen = members(&root, Main::Alive, &[]);
        world.lose_parent();
        assert_eq!(owner(world.orphan, &[&root]), Owner::Stranger);
        assert_eq!(world.members(&root), []);
        root.remember(&seen);
        assert_eq!(owner(world.orphan, &[&root]), Owner::Worker(7));
        assert_eq!(world.members(&root), [world.orphan]);
        // What a look missed is kept while it lives, what has died is not.
        root.remember(&[]);
        let left: Vec<Pid> = root.seen.iter().map(|process| process.pid).collect();
        assert_eq!(left, [world.orphan]);
    }

    #[test]
    fn a_grandchild_that_keeps_the_session_is_attributed_by_it() {
        let world = World::start("pass");
        let root = world.root("api");
        world.lose_parent();
        assert_eq!(owner(world.orphan, &[&root]), Owner::Worker(7));
        assert_eq!(world.members(&root), [world.orphan]);
    }

    #[test]
    fn members_outlive_the_main_process_and_the_dead_are_none() {
        let world = World::start("os.setsid()");
        let root = world.root("web");
        kill(world.main, Signal::SIGKILL).expect("the helper does not reap it");
        until("the main process is dead", || Process::live(world.main).is_none());
        assert_eq!(owner(world.main, &[&root]), Owner::Dead);
        until("its child is handed over", || world.is_adopted(world.parent));
        let orphans = orphans(&proc::children(world.helper()), &BTreeSet::from([world.main]));
        assert_eq!(orphans, [world.parent]);
        let found = members(&root, Main::Gone, &orphans);
        let pids: Vec<Pid> = found.iter().map(|process| process.pid).collect();
        assert_eq!(pids, [world.parent, world.orphan]);
        assert_eq!(members(&root, Main::Gone, &[]), []);
    }

    fn root(worker: u64, session: i32, service: &str) -> Root {
        let session = Pid::from_raw(session);
        let mark = |name, value: &str| Mark { name, value: value.as_bytes().to_vec() };
        let id = worker.to_string();
        let marks = vec![mark("SHEPHERD_WORKER", &id), mark("SHEPHERD_SERVICE", service)];
        Root::new(worker, session, session, marks)
    }

    fn until(what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !condition() {
            assert!(Instant::now() < deadline, "after 30 s: not true that {what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// A helper that is a subreaper in our place, below it a main process in a session of its own,
    /// below that a parent, and below that one more that does what the test says. Nobody reaps, so
    /// that no pid is used twice; all of them end when the helper's input does.
    struct World {
        helper: Child,
        /// Kept open: what they say is never refused.
        _output: BufReader<ChildStdout>,
        main: Pid,
        parent: Pid,
        orphan: Pid,
    }

    const HELPER: &str = "
import ctypes, os
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
def below(prepare):
    global pids
    pid = os.fork()
    if pid == 0:
        pids += [os.getpid()]
        prepare()
        return
    os.read(0, 1)
    os._exit(0)
def last():
    os.write(1, (' '.join(map(str, pids)) + '\\n').encode())
    LAST
pids = []
below(os.setsid)
below(lambda: None)
below(last)
os.read(0, 1)
";

    impl World {
        fn start(last: &str) -> Self {
            let mut command = Command::new("python3");
            command
                .args(["-c", &HELPER.replace("LAST", last)])
                .env("SHEPHERD_WORKER", "7")
                .env("SHEPHERD_SERVICE", "web")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped());
            let mut helper = command.spawn().expect("the tests need python3");
            let mut output = BufReader::new(helper.stdout.take().expect("it is piped"));
            let mut line = String::new();
            output.read_line(&mut line).expect("it is text");
            let [main, parent, orphan] = proc::parse_children(line.as_bytes())[..] else {
                panic!("three pids are expected: {line:?}");
            };
            let world = Self { helper, _output: output, main, parent, orphan };
            if last.contains("setsid") {
                let session = || proc::stat(orphan).map(|stat| stat.session);
                until("it has its own session", || session() == Some(orphan));
            }
            world
        }

        fn helper(&self) -> Pid {
            Pid::from_raw(i32::try_from(self.helper.id()).expect("a pid is small"))
        }

        fn root(&self, service: &str) -> Root {
            root(7, self.main.as_raw(), service)
        }

        fn is_adopted(&self, pid: Pid) -> bool {
            proc::stat(pid).is_some_and(|stat| stat.ppid == self.helper())
        }

        fn lose_parent(&self) {
            kill(self.parent, Signal::SIGKILL).expect("nobody reaps it");
            until("the orphan is handed over", || self.is_adopted(self.orphan));
        }

        /// What a daemon would find that has this one worker.
        fn members(&self, root: &Root) -> Vec<Pid> {
            let mains = BTreeSet::from([self.main]);
            let mut ours = orphans(&proc::children(self.helper()), &mains);
            ours.retain(|pid| owner(*pid, &[root]) == Owner::Worker(7));
            members(root, Main::Alive, &ours).iter().map(|process| process.pid).collect()
        }
    }

    impl Drop for World {
        fn drop(&mut self) {
            drop(self.helper.stdin.take());
            let _ = self.helper.wait();
        }
    }
}
