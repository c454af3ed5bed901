//! The workers' processes: which there are, how they end, and signals to them. Every signal goes
//! through a pidfd; nothing here decides when one is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_child_subreaper;
use nix::unistd::Pid;

use super::sys::Whom;
use super::tree::{self, Main, Mark, Owner, Process, Root};
use super::waiting::{self, Sight};
use super::{clock, proc, sys};
use crate::core::event::Exit;
use crate::core::ids::WorkerId;
use crate::core::policy::Signal;

/// How many children are reaped in one go; the rest is reaped in the next turn.
const REAPED_MAX: usize = 256;

/// How many times a tree is read again while it is killed: each time finds what was forked meanwhile.
const KILL_ROUNDS: usize = 16;

/// How long the last sweep waits for what it killed.
const SWEEP_WAIT: Duration = Duration::from_secs(2);

/// How many generations of parents are asked for when a process says whose it is.
const ANCESTORS_MAX: usize = 64;

/// All workers that are not quite gone.
#[derive(Debug, Default)]
pub struct Processes {
    workers: BTreeMap<WorkerId, Entry>,
    /// Main processes that are alive, to find their worker when they are reaped.
    mains: BTreeMap<Pid, WorkerId>,
    /// Our children that are no worker's main process, as read since the last change.
    orphans: Option<Vec<Pid>>,
}

#[derive(Debug)]
struct Entry {
    root: Root,
    main: Option<OwnedFd>,
    /// What the main process has left behind and is watched.
    left: BTreeSet<Process>,
}

/// A child whose exit was collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaped {
    /// A worker's main process.
    Main(WorkerId, Exit),
    /// Anything else that was handed to us.
    Other,
}

/// What came of naming another main process.
#[derive(Debug)]
pub enum NewMain {
    /// It was the main process already.
    Same,
    /// It is the main process from here on. This is a copy of its pidfd, to be watched, since it
    /// need not be our child.
    Changed(OwnedFd),
    /// It is no live process of that worker's tree.
    Refused,
}

/// What changed among the processes that a main process left behind.
#[derive(Debug, Default)]
pub struct LeftBehind {
    /// How many there are.
    pub count: u32,
    /// Pidfds of those that were not there before, to be watched.
    pub appeared: Vec<OwnedFd>,
}

/// Orphans among our descendants become our children from here on, see `PR_SET_CHILD_SUBREAPER` in
/// prctl(2), so that nothing a worker started can slip away.
///
/// # Errors
///
/// None that is known.
pub fn become_subreaper() -> io::Result<()> {
    Ok(set_child_subreaper(true)?)
}

impl Processes {
    /// A worker was spawned: `pid` is our child and leads, or is about to lead, its own session.
    pub fn insert(&mut self, worker: WorkerId, pid: Pid, pidfd: OwnedFd, service: &str) {
        let marks = vec![
            Mark { name: "SHEPHERD_WORKER", value: worker.to_string().into_bytes() },
            Mark { name: "SHEPHERD_SERVICE", value: service.as_bytes().to_vec() },
        ];
        let root = Root::new(worker.0, pid, pid, marks);
        self.workers.insert(worker, Entry { root, main: Some(pidfd), left: BTreeSet::new() });
        self.mains.insert(pid, worker);
    }

    /// Nothing of the worker is left.
    pub fn remove(&mut self, worker: WorkerId) {
        // A main process that was reaped has given its number back, maybe to another worker.
        if let Some(entry) = self.workers.remove(&worker)
            && entry.main.is_some()
        {
            self.mains.remove(&entry.root.main);
        }
    }

    /// The main process of a worker, while it lives.
    #[must_use]
    pub fn main(&self, worker: WorkerId) -> Option<Pid> {
        self.workers.get(&worker).filter(|entry| entry.main.is_some()).map(|entry| entry.root.main)
    }

    /// Something may have exited since our children were last read.
    ///
    /// When a thousand workers exit together, reading a thousand children after each of them would
    /// be a million; those that were reaped together share one reading.
    pub fn may_have_changed(&mut self) {
        self.orphans = None;
    }

    /// Collects children that have exited. The second value says whether there may be more.
    pub fn reap(&mut self) -> (Vec<Reaped>, bool) {
        self.may_have_changed();
        let mut reaped = Vec::new();
        while reaped.len() < REAPED_MAX {
            let Some((pid, how)) = reap_one(Whom::Anyone) else {
                return (reaped, false);
            };
            reaped.push(match self.main_has_gone(pid) {
                Some(worker) => Reaped::Main(worker, how),
                None => Reaped::Other,
            });
        }
        (reaped, true)
    }

    /// The pidfd of a main process that is not our child is readable: it has exited.
    pub fn main_exited(&mut self, worker: WorkerId) -> Option<Exit> {
        let entry = self.workers.get(&worker)?;
        let pidfd = entry.main.as_ref()?;
        let pid = entry.root.main;
        // Its parent may have died, and then it is our child after all.
        let how = reap_one(Whom::Pidfd(pidfd.as_fd())).map_or(Exit::Unknown, |(_, how)| how);
        self.main_has_gone(pid);
        Some(how)
    }

    fn main_has_gone(&mut self, pid: Pid) -> Option<WorkerId> {
        let worker = self.mains.remove(&pid)?;
        let entry = self.workers.get_mut(&worker)?;
        entry.main = None;
        Some(worker)
    }

    /// Whether a process belongs to a worker's tree. One that has gone already cannot be asked: it
    /// gets the benefit of the doubt, since programs that only say a word exit right after it.
    #[must_use]
    pub fn may_speak_for(&self, worker: WorkerId, pid: Pid) -> bool {
        proc::stat(pid).is_none() || self.belongs(worker, pid)
    }

    fn belongs(&self, worker: WorkerId, pid: Pid) -> bool {
        let Some(entry) = self.workers.get(&worker) else {
            return false;
        };
        let ourselves = Pid::this();
        let mut current = pid;
        for _ in 0..ANCESTORS_MAX {
            if current == entry.root.main && entry.main.is_some() {
                return true;
            }
            let Some(stat) = proc::stat(current) else {
                return false;
            };
            if stat.ppid == ourselves {
                // One that has exited and waits for us to collect it shows its session only.
                let exited_in_session = !stat.is_live() && stat.session == entry.root.session;
                return exited_in_session || self.owner(current) == Some(worker);
            }
            current = stat.ppid;
        }
        false
    }

    fn owner(&self, orphan: Pid) -> Option<WorkerId> {
        let roots: Vec<&Root> = self.workers.values().map(|entry| &entry.root).collect();
        match tree::owner(orphan, &roots) {
            Owner::Worker(worker) => Some(WorkerId(worker)),
            Owner::Stranger | Owner::Dead => None,
        }
    }

    /// Takes another process of the worker's tree for its main one.
    pub fn change_main(&mut self, worker: WorkerId, pid: u32) -> NewMain {
        let Ok(pid) = i32::try_from(pid).map(Pid::from_raw) else {
            return NewMain::Refused;
        };
        if self.main(worker) == Some(pid) {
            return NewMain::Same;
        }
        match self.try_change_main(worker, pid) {
            Some(watch) => NewMain::Changed(watch),
            None => NewMain::Refused,
        }
    }

    fn try_change_main(&mut self, worker: WorkerId, pid: Pid) -> Option<OwnedFd> {
        if !self.belongs(worker, pid) {
            return None;
        }
        let pidfd = sys::pidfd_open(pid).ok()?;
        // Only what was opened before this second look is surely the process that was looked at.
        if !self.belongs(worker, pid) {
            return None;
        }
        let watch = pidfd.try_clone().ok()?;
        let entry = self.workers.get_mut(&worker)?;
        self.mains.remove(&entry.root.main);
        entry.root.main = pid;
        entry.main = Some(pidfd);
        self.mains.insert(pid, worker);
        Some(watch)
    }

    /// Looks whether somebody in the worker's tree waits on one of its sockets.
    pub fn look(&mut self, worker: WorkerId, sockets: &BTreeSet<u64>) -> Option<Sight> {
        let entry = self.workers.get_mut(&worker)?;
        entry.main.as_ref()?;
        let members = tree::members(&entry.root, Main::Alive, &[]);
        entry.root.remember(&members);
        let pids: Vec<Pid> = members.iter().map(|process| process.pid).collect();
        Some(waiting::look(entry.root.main, &pids, sockets))
    }

    /// Reads which processes the worker's main process has left behind.
    pub fn left_behind(&mut self, worker: WorkerId) -> LeftBehind {
        // One that has gone since may have forked before.
        let lives = |&pid: &Pid| proc::stat(pid).is_some_and(|stat| stat.is_live());
        let before = self.orphans.take().filter(|orphans| orphans.iter().all(lives));
        let orphans = before.unwrap_or_else(|| self.read_orphans());
        let members = self.members(worker, &orphans);
        self.orphans = Some(orphans);
        let Some(entry) = self.workers.get_mut(&worker) else {
            return LeftBehind::default();
        };
        entry.root.remember(&members);
        // One that cannot be opened for want of descriptors counts all the same: its exit is told
        // by its parent's end or by the signal for our own children.
        let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
        let before = std::mem::take(&mut entry.left);
        let mut appeared = Vec::new();
        for process in members {
            if before.contains(&process) {
                entry.left.insert(process);
            } else if let Some(pidfd) = open(process) {
                entry.left.insert(process);
                appeared.push(pidfd);
            }
        }
        LeftBehind { count, appeared }
    }

    /// Sends a signal to the worker's main process.
    pub fn signal(&self, worker: WorkerId, signal: Signal) {
        if let Some(pidfd) = self.workers.get(&worker).and_then(|entry| entry.main.as_ref()) {
            // It may have exited a moment ago; its exit tells.
            let _ = sys::pidfd_send_signal(pidfd, number(signal));
        }
    }

    /// Sends a signal to every process of the worker's tree.
    pub fn signal_tree(&mut self, worker: WorkerId, signal: Signal) {
        self.signal(worker, signal);
        for pidfd in self.members(worker, &self.read_orphans()).into_iter().filter_map(open) {
            let _ = sys::pidfd_send_signal(&pidfd, number(signal));
        }
    }

    /// Sends KILL to every process of the worker's tree, until no further one is found.
    pub fn kill_tree(&mut self, worker: WorkerId) {
        self.may_have_changed();
        self.signal(worker, Signal::Kill);
        let mut killed = BTreeSet::new();
        for _ in 0..KILL_ROUNDS {
            let mut found = false;
            for process in self.members(worker, &self.read_orphans()) {
                if killed.insert(process)
                    && let Some(pidfd) = open(process)
                {
                    found = true;
                    let _ = sys::pidfd_send_signal(&pidfd, libc::SIGKILL);
                }
            }
            if !found {
                return;
            }
        }
    }

    fn read_orphans(&self) -> Vec<Pid> {
        let mains: BTreeSet<Pid> = self.mains.keys().copied().collect();
        tree::orphans(&proc::children(Pid::this()), &mains)
    }

    /// The worker's processes besides its main one.
    fn members(&self, worker: WorkerId, orphans: &[Pid]) -> Vec<Process> {
        let Some(entry) = self.workers.get(&worker) else {
            return Vec::new();
        };
        let orphans: Vec<Pid> =
            orphans.iter().copied().filter(|&orphan| self.owner(orphan) == Some(worker)).collect();
        let main = if entry.main.is_some() { Main::Alive } else { Main::Gone };
        tree::members(&entry.root, main, &orphans)
    }
}

/// The children that this process has already: whoever exec'd into us had started them, and they
/// are none of our business.
#[must_use]
pub fn children_before() -> BTreeSet<Process> {
    proc::children(Pid::this()).into_iter().filter_map(Process::live).collect()
}

/// Kills and reaps everything below us, strangers included, except what was there `before` us: the
/// daemon ends. Gives how many are left, hanging in the kernel.
#[must_use]
pub fn sweep(before: &BTreeSet<Process>) -> usize {
    let deadline = clock::now() + SWEEP_WAIT;
    loop {
        while reap_one(Whom::Anyone).is_some() {}
        let children = proc::children(Pid::this()).into_iter().filter_map(Process::live);
        let ours = children.filter(|child| !before.contains(child));
        let below = ours.flat_map(|child| {
            let descendants = proc::descendants(child.pid).into_iter().filter_map(Process::live);
            std::iter::once(child).chain(descendants)
        });
        let pidfds: Vec<OwnedFd> = below.filter_map(open).collect();
        let left = clock::now().until(deadline);
        if pidfds.is_empty() || left.is_zero() {
            return pidfds.len();
        }
        for pidfd in &pidfds {
            let _ = sys::pidfd_send_signal(pidfd, libc::SIGKILL);
        }
        wait_for_one(&pidfds, left);
    }
}

/// Whether the process of a pidfd has exited.
#[must_use]
pub fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO).is_ok_and(|count| count > 0)
}

fn wait_for_one(pidfds: &[OwnedFd], patience: Duration) {
    let mut polled: Vec<PollFd<'_>> =
        pidfds.iter().map(|pidfd| PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)).collect();
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
    let _ = poll(&mut polled, timeout);
}

/// A pidfd of this very process: it still lives after the pidfd was opened.
fn open(process: Process) -> Option<OwnedFd> {
    let pidfd = sys::pidfd_open(process.pid).ok()?;
    process.is_live().then_some(pidfd)
}

fn reap_one(whom: Whom<'_>) -> Option<(Pid, Exit)> {
    let ended = sys::reap(whom).ok().flatten()?;
    let how = match ended.how {
        sys::How::Code(code) => Exit::Code(code),
        sys::How::Signal { number, core } => {
            let name = nix::sys::signal::Signal::try_from(number).ok();
            Exit::Signal { number, name: name.map(nix::sys::signal::Signal::as_str), core }
        }
    };
    Some((ended.pid, how))
}

fn number(signal: Signal) -> i32 {
    match signal {
        Signal::Hup => libc::SIGHUP,
        Signal::Int => libc::SIGINT,
        Signal::Quit => libc::SIGQUIT,
        Signal::Abrt => libc::SIGABRT,
        Signal::Kill => libc::SIGKILL,
        Signal::Usr1 => libc::SIGUSR1,
        Signal::Usr2 => libc::SIGUSR2,
        Signal::Alrm => libc::SIGALRM,
        Signal::Term => libc::SIGTERM,
        Signal::Cont => libc::SIGCONT,
        Signal::Winch => libc::SIGWINCH,
        Signal::Pwr => libc::SIGPWR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_that_is_given_to_another_worker_is_that_workers_own() {
        let own_pidfd = || sys::pidfd_open(Pid::this()).expect("a pidfd");
        let (first, second) = (WorkerId(1), WorkerId(2));
        let pid = Pid::from_raw(i32::MAX);
        let mut processes = Processes::default();
        processes.insert(first, pid, own_pidfd(), "web");
        assert_eq!(processes.main_has_gone(pid), Some(first));
        processes.insert(second, pid, own_pidfd(), "web");
        // What the first one left behind has ended only now.
        processes.remove(first);
        assert_eq!(processes.main_has_gone(pid), Some(second));
    }
}
