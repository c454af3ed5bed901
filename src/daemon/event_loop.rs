//! The loop: perform what the core wants, wait for a descriptor or a deadline, turn what is readable
//! into events, and again. It decides nothing; an `if` about policy here belongs into the core.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use crate::config::run::RunConfig;
use crate::config::text::one_line;
use crate::core::Supervisor;
use crate::core::event::{Event, Exit, SpawnFailure, WorkerEvent};
use crate::core::ids::{GenerationId, MemberId, Pid, RequestId, ServiceId, SlotId, WorkerId};
use crate::core::request::{Behind, Request, Scale, Scope};
use crate::os::cgroup::{Cgroups, Events};
use crate::os::clock;
use crate::os::limits::OpenFiles;
use crate::os::listeners::Listener;
use crate::os::looks::Looks;
use crate::os::notify_socket::NotifySocket;
use crate::os::path_watch::PathWatch;
use crate::os::processes::{self, NewMain, Processes, Reaped};
use crate::os::reactor::Reactor;
use crate::os::runtime_dir::RuntimeDir;
use crate::os::service_manager::ServiceManager;
use crate::os::signals::{Received, Signals};
use crate::os::spawn;
use crate::protocol::line_styles::Stream;
use crate::protocol::notify;
use crate::protocol::outcome::{Outcome, OutcomeReader, Stage};

use super::checks::Checks;
use super::configuration::{Order, Reread};
use super::control::Control;
use super::dispatch::Dispatching;
use super::messages::Messages;
use super::node::Nodes;
use super::output::Output;
use super::services::Services;
use super::steering::Steering;
use super::upstreams::Publishers;

/// How many messages of one worker are read in a turn: a flood cannot starve the others.
const MESSAGES_MAX: usize = 16;

/// How many strange messages of one worker are told of.
const COMPLAINTS_MAX: u32 = 3;

/// What the daemon is made of before it runs.
pub(super) struct Parts {
    pub(super) supervisor: Supervisor,
    pub(super) reactor: Reactor,
    /// Sockets that listen, of which epoll(7) tells in the order in which they are shut down.
    pub(super) shut_downs: Reactor,
    pub(super) signals: Signals,
    pub(super) runtime_dir: RuntimeDir,
    pub(super) open_files: OpenFiles,
    pub(super) cgroups: Option<Cgroups>,
    pub(super) listeners: BTreeMap<MemberId, Listener>,
    /// Where the kernel gives us none, paths are looked at whenever a worker becomes ready or ends.
    pub(super) path_watch: Option<PathWatch>,
    pub(super) services: Services,
    /// What it is to be, as it was read last.
    pub(super) config: RunConfig,
    pub(super) reread: Reread,
}

/// The daemon: one table for each kind of thing that the core knows by id.
pub(super) struct Daemon {
    pub(super) parts: Parts,
    pub(super) processes: Processes,
    pub(super) workers: BTreeMap<WorkerId, Handles>,
    pub(super) checks: Checks,
    pub(super) nodes: Nodes,
    pub(super) publishers: Publishers,
    pub(super) steering: Steering,
    pub(super) dispatching: Dispatching,
    /// Begun with the first drain.
    pub(super) looks: Option<Looks>,
    pub(super) manager: ServiceManager,
    pub(super) output: Output,
    pub(super) messages: Messages,
    pub(super) control: Control,
    /// What happened and the core has not heard of yet.
    pub(super) events: VecDeque<Event>,
    /// Reloads that wait for the configuration.
    pub(super) orders: VecDeque<Order>,
    pub(super) finished: bool,
    last_request: u64,
}

/// What is open for one worker.
pub(super) struct Handles {
    pub(super) service: ServiceId,
    pub(super) slot: SlotId,
    pub(super) generation: GenerationId,
    /// The inodes of its sockets, for looking at it. They outlast our own copies.
    pub(super) sockets: BTreeMap<MemberId, u64>,
    /// The sockets whose connections it is given, and the inode of its end of the channel for that.
    pub(super) dispatched: Vec<MemberId>,
    pub(super) channel: Option<u64>,
    /// The first of them that takes a stream, which is the one that probes connect to.
    pub(super) first_stream: Option<MemberId>,
    /// The port that is its slot's alone.
    pub(super) port: Option<u16>,
    pub(super) spawning: Option<Spawning>,
    pub(super) notify: NotifySocket,
    /// Copies of pidfds that are watched: a main process that is not our child, and what a main
    /// process left behind.
    pub(super) main: Option<OwnedFd>,
    pub(super) left: Vec<OwnedFd>,
    /// Tells when its cgroup has become empty; from the time on that its main process has exited.
    pub(super) cgroup: Option<Events>,
    /// Whether its main process has exited and others have not.
    pub(super) orphaned: bool,
    pub(super) complaints: u32,
}

/// A worker whose program does not run yet.
pub(super) struct Spawning {
    pub(super) pid: Pid,
    pub(super) outcome: OwnedFd,
    pub(super) reader: OutcomeReader,
}

/// What became readable. The order is the order in which they are looked at in a turn: a program
/// runs before it speaks, and it speaks before it exits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Token {
    /// A socket was shut down. First of all: whoever did it may exit in the same turn, and is
    /// known as a holder until then.
    Listener(MemberId),
    /// Something happened to the file of a unix socket.
    Paths,
    Outcome(WorkerId),
    Notify(WorkerId),
    /// What a worker says over its channel, or it reads there again.
    Channel(WorkerId),
    Main(WorkerId),
    Left(WorkerId),
    Check(WorkerId),
    /// The file of a proxy is written, or its command says something.
    Upstreams(ServiceId),
    /// What is left for draining workers was looked at.
    Looks,
    Signals,
    /// There are connections to be accepted, or workers have answered for some.
    Dispatch,
    /// The control thread has something for us.
    Calls,
    /// A socket that workers share was shut down.
    ShutDowns,
    /// A client has come to the control socket, and no thread serves it yet; or it was shut down.
    Client,
    /// Workers have sent messages, or have room for more.
    Channels,
    /// What workers write to that stream of ours.
    Lines(Stream),
    /// That stream of ours takes more.
    Sink(Stream),
}

impl Token {
    const KIND_SHIFT: u32 = 56;

    pub(super) fn encode(self) -> u64 {
        let (kind, worker) = match self {
            Token::Outcome(worker) => (0, worker.0),
            Token::Notify(worker) => (1, worker.0),
            Token::Main(worker) => (2, worker.0),
            Token::Left(worker) => (3, worker.0),
            Token::Signals => (4, 0),
            Token::Lines(Stream::Stdout) => (5, 1),
            Token::Lines(Stream::Stderr) => (5, 2),
            Token::Sink(Stream::Stdout) => (6, 1),
            Token::Sink(Stream::Stderr) => (6, 2),
            Token::Check(worker) => (7, worker.0),
            Token::Listener(member) => (9, u64::from(member.0)),
            Token::Paths => (8, 0),
            Token::Calls => (10, 0),
            Token::Client => (11, 0),
            Token::Upstreams(service) => (12, u64::from(service.0)),
            Token::Looks => (13, 0),
            Token::ShutDowns => (14, 0),
            Token::Channels => (15, 0),
            Token::Dispatch => (16, 0),
            Token::Channel(worker) => (20, worker.0),
        };
        kind << Token::KIND_SHIFT | worker
    }

    pub(super) fn decode(token: u64) -> Option<Token> {
        let worker = WorkerId(token & ((1 << Token::KIND_SHIFT) - 1));
        let stream = match worker.0 {
            1 => Stream::Stdout,
            _ => Stream::Stderr,
        };
        match token >> Token::KIND_SHIFT {
            0 => Some(Token::Outcome(worker)),
            1 => Some(Token::Notify(worker)),
            2 => Some(Token::Main(worker)),
            3 => Some(Token::Left(worker)),
            4 => Some(Token::Signals),
            5 => Some(Token::Lines(stream)),
            6 => Some(Token::Sink(stream)),
            7 => Some(Token::Check(worker)),
            9 => u32::try_from(worker.0).ok().map(|member| Token::Listener(MemberId(member))),
            8 => Some(Token::Paths),
            10 => Some(Token::Calls),
            11 => Some(Token::Client),
            12 => u32::try_from(worker.0).ok().map(|service| Token::Upstreams(ServiceId(service))),
            13 => Some(Token::Looks),
            14 => Some(Token::ShutDowns),
            15 => Some(Token::Channels),
            16 => Some(Token::Dispatch),
            20 => Some(Token::Channel(worker)),
            _ => None,
        }
    }
}

impl Daemon {
    pub(super) fn new(
        mut parts: Parts,
        dispatching: Reactor,
        output: Output,
        messages: Messages,
        control: Control,
    ) -> Daemon {
        let processes = Processes::new(parts.cgroups.take());
        let manager = ServiceManager::from_environment(clock::now());
        Daemon {
            parts,
            processes,
            workers: BTreeMap::new(),
            checks: Checks::default(),
            nodes: Nodes::default(),
            publishers: Publishers::default(),
            steering: Steering::default(),
            dispatching: Dispatching::new(dispatching),
            looks: None,
            manager,
            output,
            messages,
            control,
            events: VecDeque::new(),
            orders: VecDeque::new(),
            finished: false,
            last_request: 0,
        }
    }

    /// Runs until the core has finished. Gives what is left: the cgroups that workers were kept in.
    pub(super) fn run(mut self) -> Option<Cgroups> {
        for member in self.parts.listeners.keys().copied().collect::<Vec<_>>() {
            self.watch_listener(member);
        }
        self.watch_control();
        let mut more_children = false;
        let mut began = clock::now();
        loop {
            self.settle();
            if self.finished {
                self.finish_publishing();
                self.control.finish();
                self.output.finish();
                return self.processes.into_cgroups();
            }
            self.tend_messages();
            self.output.tend(clock::now(), &self.parts.reactor);
            let more = more_children || self.messages.has_more();
            let timeout = if more { Some(Duration::ZERO) } else { self.timeout() };
            self.control.counters.turned(clock::now().since(began));
            let tokens = self.parts.reactor.wait(timeout);
            began = clock::now();
            let ready: Vec<Token> = match tokens {
                Ok(tokens) => tokens.into_iter().filter_map(Token::decode).collect(),
                Err(error) => {
                    // Not to be waited on is a bug; going on by deadlines alone beats dying.
                    tracing::error!("cannot wait for events: {error}");
                    Vec::new()
                }
            };
            // Sockets that were shut down come first, so that their order is known early.
            let is_of_sockets = |token: &Token| *token == Token::ShutDowns;
            let (sockets, mut others): (Vec<Token>, Vec<Token>) =
                ready.into_iter().partition(is_of_sockets);
            others.sort_unstable();
            others.dedup();
            let mut children_changed = more_children;
            for token in sockets.into_iter().chain(others) {
                self.processes.may_have_changed();
                match token {
                    Token::Listener(member) => self.look_at_listener(member),
                    Token::ShutDowns => self.hear_shut_downs(),
                    Token::Paths => self.look_at_paths(),
                    Token::Outcome(worker) => self.read_outcome(worker),
                    Token::Notify(worker) => self.read_messages(worker),
                    Token::Channel(worker) => self.channel_stirs(worker),
                    Token::Main(worker) => self.main_changed(worker),
                    Token::Left(worker) => self.look_at_left(worker),
                    Token::Check(worker) => self.continue_check(worker),
                    Token::Upstreams(service) => self.continue_publish(service),
                    Token::Looks => self.hear_looks(),
                    Token::Signals => children_changed |= self.read_signals(),
                    Token::Dispatch => self.dispatch(),
                    Token::Calls => self.hear_calls(),
                    Token::Client => self.control.look_at_socket(&self.parts.reactor),
                    Token::Channels => self.read_channels(),
                    Token::Lines(way) => self.output.read(way),
                    // That it takes more is all there is to know: it is tended in every turn.
                    Token::Sink(_) => {}
                }
                self.settle();
            }
            more_children = children_changed && self.reap();
            let now = clock::now();
            self.continue_checks(now);
            self.dispatch_timeout(now);
            self.tend_channels(now);
            self.manager.handle_timeout(now);
            self.tend_control(now);
            if self.parts.supervisor.next_deadline().is_some_and(|(at, _)| at <= now) {
                self.parts.supervisor.handle_timeout(now);
            }
        }
    }

    /// Performs and feeds until the core wants nothing and has heard everything.
    pub(super) fn settle(&mut self) {
        loop {
            while let Some(action) = self.parts.supervisor.poll_action() {
                self.perform(action);
            }
            // Nothing happens between the reading and the core's hearing of it: what it was told is
            // open is open then.
            if let Some(order) = self.orders.pop_front() {
                let event = self.read_configuration(&order);
                self.parts.supervisor.handle_event(clock::now(), event);
                continue;
            }
            match self.events.pop_front() {
                Some(event) => self.parts.supervisor.handle_event(clock::now(), event),
                None => return self.output.forget_closed(),
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let deadline = self.parts.supervisor.next_deadline().map(|(at, _)| at);
        let others = [
            self.manager.deadline(),
            self.output.deadline(),
            self.checks.wake(),
            self.nodes.deadline(),
            self.control.deadline(),
            self.dispatching.deadline(),
        ];
        let next = others.into_iter().chain([deadline]).flatten().min()?;
        Some(clock::now().until(next))
    }

    pub(super) fn happened(&mut self, worker: WorkerId, event: WorkerEvent) {
        self.events.push_back(Event::Worker(worker, event));
    }

    /// Returns whether a child has changed.
    fn read_signals(&mut self) -> bool {
        let mut children_changed = false;
        for received in self.parts.signals.pending() {
            let request = match received {
                Received::ChildChanged => {
                    children_changed = true;
                    continue;
                }
                Received::Meaningless(name) => {
                    tracing::warn!("{name} means nothing to this version; ignoring it");
                    continue;
                }
                Received::Reload => Request::Reload { scope: Scope::All, behind: Behind::Queue },
                Received::TerminalGone => {
                    tracing::warn!("the terminal is gone; stopping");
                    Request::Stop
                }
                Received::Stop => Request::Stop,
                Received::Interrupt => Request::Interrupt,
                Received::StopNow => Request::StopNow,
                Received::OneMore => scale_all(1),
                Received::OneFewer => scale_all(-1),
            };
            self.ask(request);
        }
        children_changed
    }

    /// Brings a request before the core, and says under which number.
    pub(super) fn ask(&mut self, request: Request) -> RequestId {
        self.last_request += 1;
        let id = RequestId(self.last_request);
        self.events.push_back(Event::Requested(id, request));
        id
    }

    /// Reads how far a worker has come on the way to its program.
    fn read_outcome(&mut self, worker: WorkerId) {
        let Some(handles) = self.workers.get_mut(&worker) else {
            return;
        };
        let Some(spawning) = &mut handles.spawning else {
            return;
        };
        if !spawn::read_outcome(&spawning.outcome, &mut spawning.reader) {
            // There is more to come, or it cannot be read: its exit will tell.
            return;
        }
        let (pid, outcome) = (spawning.pid, spawning.reader.outcome());
        self.parts.reactor.remove(&spawning.outcome);
        if outcome == Outcome::Running {
            handles.spawning = None;
            self.happened(worker, WorkerEvent::Started { pid });
        }
    }

    /// Reads what a worker says, at most so many messages.
    fn read_messages(&mut self, worker: WorkerId) {
        for _ in 0..MESSAGES_MAX {
            let Some(handles) = self.workers.get(&worker) else {
                return;
            };
            match handles.notify.receive() {
                Ok(Some(received)) => {
                    let trusted = received
                        .sender
                        .is_none_or(|sender| self.processes.may_speak_for(worker, sender));
                    if received.cut {
                        self.complain(worker, "sent a notification that does not fit; ignoring it");
                    } else if trusted {
                        self.hear(worker, &notify::parse(&received.bytes));
                    } else {
                        let what =
                            "got a notification from a process that is not its own; ignoring it";
                        self.complain(worker, what);
                    }
                    // A sender may wait at a barrier: its descriptors close once the core has heard
                    // everything before it.
                    self.settle();
                    drop(received.descriptors);
                }
                Ok(None) => return,
                Err(error) => {
                    let what = format!("sent a notification that cannot be read: {error}");
                    return self.complain(worker, &what);
                }
            }
        }
    }

    fn hear(&mut self, worker: WorkerId, message: &notify::Message) {
        if message.unreadable > 0 {
            self.complain(worker, "sent a notification that makes no sense; ignoring that part");
        }
        if let Some(pid) = message.main_pid {
            self.change_main(worker, pid);
        }
        if let Some(time) = message.extend {
            self.happened(worker, WorkerEvent::SaidExtend(time));
        }
        if let Some(status) = &message.status {
            self.happened(worker, WorkerEvent::SaidStatus(status.clone()));
        }
        if message.ready {
            self.happened(worker, WorkerEvent::SaidReady);
        }
        if message.stopping {
            self.happened(worker, WorkerEvent::SaidStopping);
        }
    }

    fn change_main(&mut self, worker: WorkerId, pid: u32) {
        if self.workers.get(&worker).is_some_and(|handles| handles.orphaned) {
            let what = format!("names process {pid} as its main one, after its main one exited");
            return self.complain(worker, &what);
        }
        let watch = match self.processes.change_main(worker, pid) {
            NewMain::Same => return,
            NewMain::Changed(watch) => watch,
            NewMain::Refused => {
                let what = format!("names process {pid} as its main one, which is not its own");
                return self.complain(worker, &what);
            }
        };
        let Some(handles) = self.workers.get_mut(&worker) else {
            return;
        };
        if let Some(old) = handles.main.take() {
            self.parts.reactor.remove(&old);
        }
        if let Err(error) = self.parts.reactor.add(&watch, Token::Main(worker).encode()) {
            tracing::warn!("worker {worker}: cannot watch process {pid}: {error}");
        }
        handles.main = Some(watch);
        self.output.rename(worker, Pid(pid));
        self.happened(worker, WorkerEvent::MainChanged { pid: Pid(pid) });
    }

    /// What a service is called.
    pub(super) fn service_name(&self, service: ServiceId) -> &str {
        self.parts.services.names.get(&service).map(String::as_str).unwrap_or_default()
    }

    /// Tells of something strange that a worker does, some times.
    pub(super) fn complain(&mut self, worker: WorkerId, what: &str) {
        let Some(handles) = self.workers.get_mut(&worker) else {
            return;
        };
        handles.complaints = handles.complaints.saturating_add(1);
        let (service, complaints) = (handles.service, handles.complaints);
        let (name, what) = (self.service_name(service), one_line(what));
        match complaints {
            1..COMPLAINTS_MAX => tracing::warn!("worker {worker} ({name}) {what}"),
            COMPLAINTS_MAX => {
                tracing::warn!("worker {worker} ({name}) {what}; saying so no more");
            }
            _ => {}
        }
    }

    /// A main process that is not our child has exited.
    fn main_changed(&mut self, worker: WorkerId) {
        if let Some(how) = self.processes.main_exited(worker) {
            self.exited(worker, how);
        } else if let Some(watch) =
            self.workers.get_mut(&worker).and_then(|handles| handles.main.take())
        {
            self.parts.reactor.remove(&watch);
        }
    }

    /// Collects what has exited. Returns whether there may be more.
    fn reap(&mut self) -> bool {
        let (reaped, more) = self.processes.reap();
        let mut others = false;
        for child in reaped {
            match child {
                Reaped::Main(worker, how) => self.exited(worker, how),
                Reaped::Check(worker, how) => self.check_exited(worker, how),
                Reaped::Command(service, how) => self.proxy_reloaded(service, how),
                Reaped::Other => others = true,
            }
        }
        if others {
            let orphaned: Vec<WorkerId> = self
                .workers
                .iter()
                .filter(|(_, handles)| handles.orphaned)
                .map(|(&worker, _)| worker)
                .collect();
            for worker in orphaned {
                self.look_at_left(worker);
            }
        }
        self.settle();
        more
    }

    fn exited(&mut self, worker: WorkerId, how: Exit) {
        // What it did and said before comes first.
        self.read_outcome(worker);
        self.read_messages(worker);
        self.last_words_of_channel(worker);
        self.output.last_words(worker);
        self.settle();
        // Its last word may have named the one that takes over, as programs do that fork into the
        // background: then it is no end.
        if self.processes.main(worker).is_some() {
            return;
        }
        self.drop_check(worker);
        self.end_messages(worker);
        self.dispatch_main_gone(worker);
        self.close_channel(worker);
        let Some(handles) = self.workers.get_mut(&worker) else {
            return;
        };
        if let Some(watch) = handles.main.take() {
            self.parts.reactor.remove(&watch);
        }
        if let Some(spawning) = handles.spawning.take() {
            let key = (handles.service, handles.generation);
            let outcome = spawning.reader.outcome();
            self.parts.reactor.remove(&spawning.outcome);
            let definition = self.parts.services.definitions.get(&key).map(Rc::as_ref);
            let reason = super::perform::explain(outcome, how, definition);
            if matches!(outcome, Outcome::Failed(Stage::Cgroup, _)) {
                self.give_up_cgroups(&reason);
            }
            self.happened(worker, WorkerEvent::SpawnFailed(SpawnFailure { reason }));
            return self.close(worker);
        }
        handles.orphaned = true;
        self.watch_cgroup(worker);
        let left = self.watch_left(worker);
        let used = self.processes.usage(worker);
        self.happened(worker, WorkerEvent::Exited { how, left, used });
        if left == 0 {
            self.close(worker);
        } else {
            self.output.main_gone(worker);
        }
    }

    /// From here on it is told when the worker's cgroup becomes empty.
    fn watch_cgroup(&mut self, worker: WorkerId) {
        let watched = self.processes.events(worker).map(|events| {
            let events = events?;
            // It is ready from birth, and nothing has been looked at that could be missed.
            events.rearm();
            self.parts.reactor.add_urgent(&events, Token::Left(worker).encode())?;
            Ok::<_, std::io::Error>(events)
        });
        match (watched, self.workers.get_mut(&worker)) {
            (Some(Ok(events)), Some(handles)) => handles.cgroup = Some(events),
            // Those that come to us as orphans are still seen by their exit.
            (Some(Err(error)), _) => {
                tracing::warn!("worker {worker}: cannot watch its cgroup: {error}");
            }
            (None | Some(Ok(_)), _) => {}
        }
    }

    /// Cgroups that cannot be used must not keep a service down.
    pub(super) fn give_up_cgroups(&mut self, why: &str) {
        if self.processes.give_up_cgroups() {
            tracing::warn!(
                "cannot keep workers in cgroups: {why}; from here on their processes are told by \
                 parent, session and environment"
            );
        }
    }

    /// What a main process has left behind has changed.
    fn look_at_left(&mut self, worker: WorkerId) {
        if !self.workers.get(&worker).is_some_and(|handles| handles.orphaned) {
            return;
        }
        if self.watch_left(worker) == 0 {
            self.happened(worker, WorkerEvent::TreeGone);
            self.close(worker);
        }
    }

    /// Watches everything that the main process has left behind, and says how many there are.
    pub(super) fn watch_left(&mut self, worker: WorkerId) -> u32 {
        // Before the look, so that what comes after it is told.
        if let Some(events) = self.workers.get(&worker).and_then(|handles| handles.cgroup.as_ref())
        {
            events.rearm();
        }
        let left = self.processes.left_behind(worker);
        let Some(handles) = self.workers.get_mut(&worker) else {
            return 0;
        };
        // All are looked at again, so those that have ended are dropped from the watch.
        handles.left.retain(|pidfd| {
            let ended = processes::has_ended(pidfd);
            if ended {
                self.parts.reactor.remove(pidfd);
            }
            !ended
        });
        for pidfd in left.appeared {
            if let Err(error) = self.parts.reactor.add(&pidfd, Token::Left(worker).encode()) {
                tracing::warn!("worker {worker}: cannot watch a process of it: {error}");
            }
            handles.left.push(pidfd);
        }
        left.count
    }

    /// Nothing of the worker is left: everything that was open for it goes.
    fn close(&mut self, worker: WorkerId) {
        self.dispatch_gone(worker);
        let Some(handles) = self.workers.remove(&worker) else {
            return;
        };
        let watched = handles.left.iter().chain(&handles.main);
        watched.for_each(|pidfd| self.parts.reactor.remove(pidfd));
        if let Some(events) = &handles.cgroup {
            self.parts.reactor.remove(events);
        }
        self.parts.reactor.remove(&handles.notify);
        self.processes.remove(worker);
        self.output.close(worker);
    }
}

/// So many workers more in every service, or fewer.
fn scale_all(by: i32) -> Request {
    Request::Scale { services: Scope::All, to: Scale::By(by) }
}
