//! The workers' processes: which there are, how they end, and signals to them. Every signal goes
//! through a pidfd, but for the end of a whole cgroup; nothing here decides when one is sent.
//!
//! A worker's processes are all in its cgroup, where it has one, and those that its tree shows
//! besides: a worker that may write to cgroups can move a process elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_child_subreaper;
use nix::unistd::Pid;

use super::cgroup::{Cgroups, Events, Leaf, PROBE};
use super::holder::{self, Has};
use super::memory::Account;
use super::sys::Whom;
use super::tree::{self, Main, Mark, Owner, Process, Root};
use super::waiting::{self, Sight, Waiting};
use super::{clock, proc, sys};
use crate::core::event::{Exit, Grip, Used};
use crate::core::ids::{ServiceId, WorkerId};
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
    /// Where workers are kept. Those that there are stay in theirs when this is given up.
    cgroups: Option<Cgroups>,
    keeps_next: bool,
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
    leaf: Option<Leaf>,
}

/// The processes of a worker besides its main one.
#[derive(Debug, Default)]
struct Members {
    /// Those in its cgroup.
    kept: Vec<Pid>,
    /// Those that its tree shows and its cgroup does not, nearest first.
    seen: Vec<Process>,
}

/// A child whose exit was collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaped {
    /// A worker's main process.
    Main(WorkerId, Exit),
    /// The command that checks a worker.
    Check(WorkerId, Exit),
    /// The command that reloads the proxy of a service.
    Command(ServiceId, Exit),
    /// Anything else that was handed to us.
    Other,
}

/// A process that was spawned to become a worker, or a command that checks one.
#[derive(Debug)]
pub struct Child {
    /// Its number, which is its own until we reap it.
    pub pid: Pid,
    /// Its descriptor.
    pub pidfd: OwnedFd,
    /// The cgroup that it enters, where workers have one.
    pub leaf: Option<Leaf>,
}

/// A command that checks a worker is kept as a worker of its own is, under the worker's number with
/// one bit more: no worker is ever numbered so high.
fn check_of(worker: WorkerId) -> WorkerId {
    WorkerId(worker.0 | PROBE)
}

/// A command that reloads the proxy of a service is kept as one that checks a worker is, under the
/// service's number with one bit more: no worker is numbered so high either.
const OF_SERVICE: u64 = 1 << 62;

fn command_of(service: ServiceId) -> WorkerId {
    WorkerId(u64::from(service.0) | OF_SERVICE)
}

/// The variable that the processes of such a command have, and nobody else.
pub const UPSTREAMS: &str = "SHEPHERD_UPSTREAMS";

/// The variable that a check's processes have, and a worker's do not.
pub const CHECKED_PID: &str = "SHEPHERD_PID";

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
    /// Pidfds of those outside of its cgroup that were not there before, to be watched.
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
    /// No workers yet; each is kept in a cgroup of its own where there are any.
    #[must_use]
    pub fn new(cgroups: Option<Cgroups>) -> Processes {
        Processes { keeps_next: cgroups.is_some(), cgroups, ..Processes::default() }
    }

    /// Makes the cgroup of a worker that is about to be spawned, where workers have one.
    ///
    /// # Errors
    ///
    /// Those of mkdir(2).
    pub fn new_leaf(&mut self, worker: WorkerId) -> io::Result<Option<Leaf>> {
        let cgroups = self.cgroups.as_mut().filter(|_| self.keeps_next);
        cgroups.map(|cgroups| cgroups.leaf(worker.0)).transpose()
    }

    /// Its process was not spawned.
    pub fn discard_leaf(&mut self, leaf: Option<Leaf>) {
        if let Some((cgroups, leaf)) = self.cgroups.as_mut().zip(leaf) {
            cgroups.remove(leaf);
        }
    }

    /// No further worker gets a cgroup. Returns whether the next one would have got one.
    pub fn give_up_cgroups(&mut self) -> bool {
        std::mem::take(&mut self.keeps_next)
    }

    /// Where workers were kept; it goes when this is dropped.
    #[must_use]
    pub fn into_cgroups(self) -> Option<Cgroups> {
        self.cgroups
    }

    /// A worker was spawned: `pid` is our child and leads, or is about to lead, its own session,
    /// and is, or is about to be, in the cgroup.
    pub fn insert(&mut self, worker: WorkerId, child: Child, service: &str) {
        let marks = vec![
            Mark { name: "SHEPHERD_WORKER", value: worker.to_string().into_bytes() },
            Mark { name: "SHEPHERD_SERVICE", value: service.as_bytes().to_vec() },
        ];
        self.enter(worker, child, marks);
    }

    /// Makes room for a command that checks a worker, in a cgroup of its own where there are any. That
    /// of the last one is gone by then, or is about to be: then this one does without.
    pub fn new_check(&mut self, worker: WorkerId) -> Option<Leaf> {
        self.remove_entry(check_of(worker));
        self.new_leaf(check_of(worker)).ok().flatten()
    }

    /// A command was started that checks a worker, `checked` being its main process. It is in none
    /// of the worker's accounts.
    pub fn insert_check(&mut self, worker: WorkerId, child: Child, checked: Pid) {
        let marks = vec![
            Mark { name: "SHEPHERD_WORKER", value: worker.to_string().into_bytes() },
            Mark { name: CHECKED_PID, value: checked.to_string().into_bytes() },
        ];
        self.enter(check_of(worker), child, marks);
    }

    /// Makes room for a command that reloads the proxy of a service, as [`Processes::new_check`].
    pub fn new_command(&mut self, service: ServiceId) -> Option<Leaf> {
        self.new_check(command_of(service))
    }

    /// A command was started that reloads the proxy of a service, whose upstreams are at `path`.
    pub fn insert_command(&mut self, service: ServiceId, child: Child, name: &str, path: &str) {
        let marks = vec![
            Mark { name: "SHEPHERD_SERVICE", value: name.as_bytes().to_vec() },
            Mark { name: UPSTREAMS, value: path.as_bytes().to_vec() },
        ];
        self.enter(check_of(command_of(service)), child, marks);
    }

    /// Kills whatever such a command has started and is left.
    pub fn kill_command(&mut self, service: ServiceId) {
        self.kill_check(command_of(service));
    }

    fn enter(&mut self, id: WorkerId, child: Child, marks: Vec<Mark>) {
        let Child { pid, pidfd, leaf } = child;
        let root = Root::new(id.0, pid, pid, marks);
        let entry = Entry { root, main: Some(pidfd), left: BTreeSet::new(), leaf };
        self.workers.insert(id, entry);
        self.mains.insert(pid, id);
    }

    /// Kills whatever a check of the worker has started and is left, until no further one is found.
    pub fn kill_check(&mut self, worker: WorkerId) {
        let check = check_of(worker);
        if self.workers.contains_key(&check) {
            self.kill_tree(check);
            let leaf = self.workers.get_mut(&check).and_then(|entry| entry.leaf.take());
            self.discard_leaf(leaf);
        }
    }

    /// Nothing of the worker is left.
    pub fn remove(&mut self, worker: WorkerId) {
        self.remove_entry(check_of(worker));
        self.remove_entry(worker);
    }

    fn remove_entry(&mut self, worker: WorkerId) {
        // A main process that was reaped has given its number back, maybe to another worker.
        let Some(entry) = self.workers.remove(&worker) else {
            return;
        };
        if entry.main.is_some() {
            self.mains.remove(&entry.root.main);
        }
        self.discard_leaf(entry.leaf);
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
                Some(WorkerId(id)) if id & PROBE != 0 && id & OF_SERVICE != 0 => {
                    let service = u32::try_from(id & !PROBE & !OF_SERVICE).unwrap_or(u32::MAX);
                    Reaped::Command(ServiceId(service), how)
                }
                Some(WorkerId(id)) if id & PROBE != 0 => Reaped::Check(WorkerId(id & !PROBE), how),
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
        // A main process that has not been reaped has its number for itself.
        self.main(worker) == Some(pid) || proc::stat(pid).is_none() || self.belongs(worker, pid)
    }

    /// What the worker's tree has used so far, where it is in a cgroup.
    #[must_use]
    pub fn usage(&self, worker: WorkerId) -> Option<Used> {
        self.workers.get(&worker)?.leaf.as_ref()?.usage()
    }

    /// Where the worker's processes are found by who has time to look for them.
    #[must_use]
    pub fn account(&self, worker: WorkerId) -> Option<Account> {
        let entry = self.workers.get(&worker)?;
        Some(Account {
            leaf: entry.leaf.clone(),
            main: entry.main.is_some().then_some(entry.root.main),
            known: entry.root.seen().chain(entry.left.iter().copied()).collect(),
        })
    }

    /// What becomes urgent when all that is in the worker's cgroup has gone, where it has one.
    #[must_use]
    pub fn events(&self, worker: WorkerId) -> Option<io::Result<Events>> {
        Some(self.workers.get(&worker)?.leaf.as_ref()?.events())
    }

    fn belongs(&self, worker: WorkerId, pid: Pid) -> bool {
        let Some(entry) = self.workers.get(&worker) else {
            return false;
        };
        if let Some(keeper) = self.keeper(pid) {
            return keeper == worker;
        }
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

    /// In whose cgroup a process is, also one that has exited and was not reaped.
    fn keeper(&self, pid: Pid) -> Option<WorkerId> {
        let cgroups = self.cgroups.as_ref()?;
        if proc::shows_us() {
            return cgroups.worker_of(pid).map(WorkerId);
        }
        let holds =
            |entry: &Entry| entry.leaf.as_ref().is_some_and(|leaf| leaf.members().contains(&pid));
        self.workers.iter().find(|(_, entry)| holds(entry)).map(|(&worker, _)| worker)
    }

    fn owner(&self, orphan: Pid) -> Option<WorkerId> {
        // Whoever is in one of ours was put there by us, and by being forked: nothing goes before.
        if let Some(keeper) = self.keeper(orphan) {
            return Some(keeper);
        }
        // Checks first: their processes carry the marks of the worker that is checked, too.
        let roots: Vec<&Root> = self.workers.values().rev().map(|entry| &entry.root).collect();
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
        if !proc::shows_us() {
            let waiting = Waiting::Unreadable { pid: self.main(worker)? };
            return Some(Sight { waiting, wrapped: None });
        }
        let (main, pids) = self.others(worker)?;
        Some(waiting::look(main, &pids, sockets))
    }

    /// What the worker has to do with a socket; `None` when its main process has gone.
    pub fn grip(&mut self, worker: WorkerId, socket: u64) -> Option<Grip> {
        if !proc::shows_us() {
            return self.main(worker).map(|_| Grip::Unreadable);
        }
        let (main, pids) = self.others(worker)?;
        Some(waiting::grip(main, &pids, socket))
    }

    /// Looks whether somebody in the worker's tree has the socket with this inode.
    pub fn has(&mut self, worker: WorkerId, inode: u64) -> Has {
        if !proc::shows_us() {
            return Has::Unseen;
        }
        let Some((main, pids)) = self.others(worker) else {
            return Has::No;
        };
        let mut unseen = false;
        for pid in std::iter::once(main).chain(pids) {
            match holder::has(pid, inode) {
                Has::Yes => return Has::Yes,
                Has::No => {}
                Has::Unseen => unseen = true,
            }
        }
        if unseen { Has::Unseen } else { Has::No }
    }

    /// A worker's main process, while it lives, and what else there is of it.
    fn others(&mut self, worker: WorkerId) -> Option<(Pid, Vec<Pid>)> {
        let entry = self.workers.get_mut(&worker)?;
        entry.main.as_ref()?;
        let main = entry.root.main;
        let members = tree::members(&entry.root, Main::Alive, &[]);
        entry.root.remember(&members);
        let mut pids: Vec<Pid> = members.iter().map(|process| process.pid).collect();
        // Those that have left the tree wait as well as others.
        let kept = entry.leaf.as_ref().map(Leaf::members).unwrap_or_default();
        let others: Vec<Pid> =
            kept.into_iter().filter(|pid| *pid != main && !pids.contains(pid)).collect();
        pids.extend(others);
        Some((main, pids))
    }

    /// Reads which processes the worker's main process has left behind.
    pub fn left_behind(&mut self, worker: WorkerId) -> LeftBehind {
        // One that has gone since may have forked before.
        let lives = |&pid: &Pid| proc::stat(pid).is_some_and(|stat| stat.is_live());
        let before = self.orphans.take().filter(|orphans| orphans.iter().all(lives));
        let orphans = before.unwrap_or_else(|| self.read_orphans());
        let Members { kept, seen } = self.members(worker, &orphans);
        self.orphans = Some(orphans);
        let Some(entry) = self.workers.get_mut(&worker) else {
            return LeftBehind::default();
        };
        entry.root.remember(&seen);
        // One that cannot be opened for want of descriptors counts all the same: its exit is told
        // by its parent's end or by the signal for our own children.
        let count = u32::try_from(kept.len() + seen.len()).unwrap_or(u32::MAX);
        let before = std::mem::take(&mut entry.left);
        let mut appeared = Vec::new();
        for process in seen {
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
        let Members { kept, seen } = self.members(worker, &self.read_orphans());
        let kept = self.open_kept(worker, &kept);
        for pidfd in kept.into_iter().chain(seen.into_iter().filter_map(open)) {
            let _ = sys::pidfd_send_signal(&pidfd, number(signal));
        }
    }

    /// Pidfds of processes that are in a worker's cgroup: they still are after these were opened.
    fn open_kept(&self, worker: WorkerId, pids: &[Pid]) -> Vec<OwnedFd> {
        let Some(leaf) = self.workers.get(&worker).and_then(|entry| entry.leaf.as_ref()) else {
            return Vec::new();
        };
        let opened: Vec<(Pid, OwnedFd)> =
            pids.iter().filter_map(|&pid| Some((pid, sys::pidfd_open(pid).ok()?))).collect();
        let members = if opened.is_empty() { Vec::new() } else { leaf.members() };
        let still = |(pid, pidfd)| members.contains(&pid).then_some(pidfd);
        opened.into_iter().filter_map(still).collect()
    }

    /// Sends KILL to every process of the worker's tree, until no further one is found.
    pub fn kill_tree(&mut self, worker: WorkerId) {
        self.may_have_changed();
        // It may not have entered its cgroup yet.
        self.signal(worker, Signal::Kill);
        if let Some(leaf) = self.workers.get(&worker).and_then(|entry| entry.leaf.as_ref()) {
            // An older kernel cannot; the rounds below do what they can.
            let _ = leaf.kill();
        }
        let mut killed = BTreeSet::new();
        for _ in 0..KILL_ROUNDS {
            let mut found = false;
            let Members { kept, seen } = self.members(worker, &self.read_orphans());
            for pidfd in self.open_kept(worker, &kept) {
                found = true;
                let _ = sys::pidfd_send_signal(&pidfd, libc::SIGKILL);
            }
            for process in seen {
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
    fn members(&self, worker: WorkerId, orphans: &[Pid]) -> Members {
        let Some(entry) = self.workers.get(&worker) else {
            return Members::default();
        };
        let mut kept = entry.leaf.as_ref().map(Leaf::members).unwrap_or_default();
        let orphans: Vec<Pid> =
            orphans.iter().copied().filter(|&orphan| self.owner(orphan) == Some(worker)).collect();
        let main = if entry.main.is_some() { Main::Alive } else { Main::Gone };
        let mut seen = tree::members(&entry.root, main, &orphans);
        seen.retain(|process| kept.binary_search(&process.pid).is_err());
        if main == Main::Alive {
            kept.retain(|&pid| pid != entry.root.main);
        }
        Members { kept, seen }
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
        let child = |pid| {
            let pidfd = sys::pidfd_open(Pid::this()).expect("a pidfd");
            Child { pid, pidfd, leaf: None }
        };
        let (first, second) = (WorkerId(1), WorkerId(2));
        let pid = Pid::from_raw(i32::MAX);
        let mut processes = Processes::default();
        processes.insert(first, child(pid), "web");
        assert_eq!(processes.main_has_gone(pid), Some(first));
        processes.insert(second, child(pid), "web");
        // What the first one left behind has ended only now.
        processes.remove(first);
        assert_eq!(processes.main_has_gone(pid), Some(second));
    }
}
