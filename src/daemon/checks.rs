//! Checks of starting workers: begun, driven and ended as the core wants it. What they see goes to
//! the core, which says whether it is enough.

use std::collections::BTreeMap;
use std::io;

use crate::core::event::{Exit, Finding, WorkerEvent};
use crate::core::ids::{MemberId, WorkerId};
use crate::core::policy::Check;
use crate::core::time::Time;
use crate::os::cgroup::Leaf;
use crate::os::clock;
use crate::os::command::Command;
use crate::os::holder::Has;
use crate::os::listeners::{Listener, Origin};
use crate::os::probe::{Connection, Probe, Witness};
use crate::os::processes::{CHECKED_PID, Child, Processes};
use crate::os::sock_diag::{OtherEnd, SockDiag};
use crate::os::spawn;
use crate::protocol::http_probe;
use crate::protocol::outcome::Outcome;
use crate::protocol::steering_program::Family;

use super::event_loop::{Daemon, Handles, Token};
use super::perform;
use super::steering::{Source, Steering};

/// How many other probes are asked whether a connection that a probe made was taken by the worker
/// of theirs. Each costs a look at the descriptors of that worker, some 20 µs.
const GIVEN_MAX: usize = 16;

/// The checks that are under way, one a worker at most.
#[derive(Default)]
pub(super) struct Checks {
    under_way: BTreeMap<WorkerId, UnderWay>,
    /// Opened when it is first needed.
    diagnosis: Option<SockDiag>,
}

enum UnderWay {
    Connection(Probe),
    Command(Command),
}

impl Checks {
    /// When the next of them is to be looked at by itself.
    pub(super) fn wake(&self) -> Option<Time> {
        self.under_way.values().filter_map(UnderWay::wake).min()
    }
}

impl UnderWay {
    fn wake(&self) -> Option<Time> {
        match self {
            UnderWay::Connection(probe) => Some(probe.wake()),
            UnderWay::Command(_) => None,
        }
    }
}

impl Daemon {
    pub(super) fn begin_check(&mut self, worker: WorkerId) {
        self.drop_check(worker);
        let Some(handles) = self.workers.get(&worker) else {
            return;
        };
        let Some(check) =
            self.parts.services.checks.get(&(handles.service, handles.generation)).cloned()
        else {
            return;
        };
        match check {
            Check::Tcp => self.begin_probe(worker, None),
            Check::Http(path) => self.begin_probe(worker, Some(http_probe::request(&path))),
            Check::Exec(command) => {
                if let Err(reason) = self.begin_command(worker, &command) {
                    self.happened(worker, WorkerEvent::Checked(Finding::NotRun(reason)));
                }
            }
        }
    }

    fn begin_probe(&mut self, worker: WorkerId, request: Option<Vec<u8>>) {
        if let Some(listener) = self.first_stream(worker) {
            let probe = Probe::new(clock::now(), listener.address.clone(), request);
            self.checks.under_way.insert(worker, UnderWay::Connection(probe));
            self.step_probe(worker);
        } else {
            // A stop closes our sockets, which the core is about to hear of, and so does another in
            // its place, which this worker does not have: what goes there says nothing of it.
            let reason = "its socket: it is closed".to_owned();
            self.happened(worker, WorkerEvent::Checked(Finding::NotConnected(reason)));
        }
    }

    /// The socket that a probe of this worker connects to.
    fn first_stream(&self, worker: WorkerId) -> Option<&Listener> {
        self.parts.listeners.get(&self.workers.get(&worker)?.first_stream?)
    }

    fn begin_command(&mut self, worker: WorkerId, command: &str) -> Result<(), String> {
        // The main process may have gone, which the core is about to hear.
        let Some(main) = self.processes.main(worker) else {
            return Ok(());
        };
        let leaf = self.processes.new_check(worker);
        let marks = [(CHECKED_PID, main.to_string())];
        let command = match self.start_command(worker, command, &marks, leaf.clone()) {
            Ok((command, child)) => {
                self.processes.insert_check(worker, child, main);
                command
            }
            Err((step, error)) => {
                self.processes.discard_leaf(leaf);
                return Err(format!("{step}: {error}{}", spawn::remedy(&error)));
            }
        };
        if let Some(output) = command.output()
            && let Err(error) = self.parts.reactor.add(output, Token::Check(worker).encode())
        {
            // It is read when the command has ended.
            tracing::warn!("worker {worker}: cannot watch the output of its probe: {error}");
        }
        self.checks.under_way.insert(worker, UnderWay::Command(command));
        Ok(())
    }

    fn start_command(
        &self,
        worker: WorkerId,
        command: &str,
        variables: &[(&str, String)],
        leaf: Option<Leaf>,
    ) -> Result<(Command, Child), (&'static str, io::Error)> {
        let missing = || ("finding its definition", io::ErrorKind::NotFound.into());
        let Handles { service, slot, generation, port, .. } =
            self.workers.get(&worker).ok_or_else(missing)?;
        let definition =
            self.parts.services.definitions.get(&(*service, *generation)).ok_or_else(missing)?;
        let name = self.parts.services.names.get(service).map(String::as_str).unwrap_or_default();
        let environment = perform::environment(definition, name, worker, *slot, *generation);
        let mut environment = perform::with_port(environment, *port);
        for (name, value) in variables {
            environment.insert(name.as_bytes(), value.as_bytes().into());
        }
        // Its output comes to us.
        environment.remove(b"JOURNAL_STREAM".as_slice());
        let plan = self.plan(definition, environment);
        Command::start(command, plan, &definition.directory, leaf)
    }

    /// A descriptor of a check is readable.
    pub(super) fn continue_check(&mut self, worker: WorkerId) {
        match self.checks.under_way.get_mut(&worker) {
            Some(UnderWay::Connection(_)) => self.step_probe(worker),
            Some(UnderWay::Command(command)) => {
                if let Some(output) = command.read() {
                    self.parts.reactor.remove(&output);
                }
            }
            None => {}
        }
    }

    /// Looks at what is to be looked at by itself.
    pub(super) fn continue_checks(&mut self, now: Time) {
        let due = |(&worker, check): (&WorkerId, &UnderWay)| {
            check.wake().is_some_and(|at| at <= now).then_some(worker)
        };
        let due: Vec<WorkerId> = self.checks.under_way.iter().filter_map(due).collect();
        for worker in due {
            self.step_probe(worker);
        }
    }

    fn step_probe(&mut self, worker: WorkerId) {
        let is_alone = self.is_alone(worker);
        let member = self.workers.get(&worker).and_then(|handles| handles.first_stream);
        let Some(UnderWay::Connection(probe)) = self.checks.under_way.get_mut(&worker) else {
            return;
        };
        let now = clock::now();
        let step = probe.step(
            now,
            &mut Seen {
                diagnosis: &mut self.checks.diagnosis,
                processes: &mut self.processes,
                worker,
                is_alone,
                member,
                steering: &mut self.steering,
                listeners: &self.parts.listeners,
            },
        );
        for connection in step.done.iter().chain(step.strays.iter().map(|(stray, _)| stray)) {
            self.parts.reactor.remove(connection);
        }
        for fd in probe.take_fresh() {
            if let Err(error) = self.parts.reactor.add(fd, Token::Check(worker).encode()) {
                // It is looked at by the clock all the same.
                tracing::warn!("worker {worker}: cannot watch a probe of it: {error}");
            }
        }
        if let Some(finding) = step.finding {
            self.checks.under_way.remove(&worker);
            self.steering.forget(worker, &self.parts.listeners);
            self.happened(worker, WorkerEvent::Checked(finding));
        }
        for (stray, inode) in step.strays {
            self.give(now, worker, stray, inode);
        }
    }

    /// Gives a connection that a probe made to that of the worker which took it, if that one is
    /// probed too: so the workers of a first start need not meet a connection of their own each.
    fn give(&mut self, now: Time, from: WorkerId, stray: Connection, inode: u64) {
        let Some(service) = self.workers.get(&from).map(|handles| handles.service) else {
            return;
        };
        let others = self.checks.under_way.iter_mut().filter_map(|(&worker, check)| match check {
            UnderWay::Connection(probe) if worker != from => Some((worker, probe)),
            UnderWay::Connection(_) | UnderWay::Command(_) => None,
        });
        let same = others.filter(|(worker, _)| {
            self.workers.get(worker).is_some_and(|handles| handles.service == service)
        });
        for (worker, probe) in same.take(GIVEN_MAX) {
            if self.processes.has(worker, inode) == Has::Yes {
                return probe.adopt(now, stray);
            }
        }
    }

    /// Whether nobody but this worker can have taken a connection. Who handed a socket over to us
    /// may serve on it as well.
    fn is_alone(&self, worker: WorkerId) -> bool {
        let Some(member) = self.workers.get(&worker).and_then(|handles| handles.first_stream)
        else {
            return false;
        };
        let others = |(&other, handles): (&WorkerId, &Handles)| {
            other != worker && handles.sockets.contains_key(&member)
        };
        let ours = self.first_stream(worker).is_some_and(|socket| socket.origin == Origin::Bound);
        ours && !self.workers.iter().any(others)
    }

    /// The command that checks a worker has exited.
    pub(super) fn check_exited(&mut self, worker: WorkerId, how: Exit) {
        let Some(UnderWay::Command(command)) = self.checks.under_way.get_mut(&worker) else {
            return;
        };
        if let Some(output) = command.read() {
            self.parts.reactor.remove(&output);
        }
        let finding = match command.outcome() {
            Outcome::Running => Finding::Exited { how, said: command.first_line() },
            outcome @ (Outcome::Failed(..) | Outcome::Died(_)) => {
                Finding::NotRun(perform::explain(outcome, how, None))
            }
        };
        self.drop_check(worker);
        self.happened(worker, WorkerEvent::Checked(finding));
    }

    /// The core waits no longer: what was seen so far is the answer.
    pub(super) fn end_check(&mut self, worker: WorkerId) {
        let finding = match self.checks.under_way.get(&worker) {
            Some(UnderWay::Connection(probe)) => probe.saw(),
            Some(UnderWay::Command(_)) => Finding::Hung,
            // Its answer is on the way.
            None => return,
        };
        self.drop_check(worker);
        self.happened(worker, WorkerEvent::Checked(finding));
    }

    /// Ends a check without an answer; nothing of it is left.
    pub(super) fn drop_check(&mut self, worker: WorkerId) {
        match self.checks.under_way.remove(&worker) {
            Some(UnderWay::Connection(probe)) => {
                probe.descriptors().for_each(|fd| self.parts.reactor.remove(fd));
                self.steering.forget(worker, &self.parts.listeners);
            }
            Some(UnderWay::Command(command)) => {
                if let Some(output) = command.output() {
                    self.parts.reactor.remove(output);
                }
                self.processes.kill_check(worker);
            }
            None => {}
        }
    }
}

/// What a probe sees of the world.
struct Seen<'a> {
    diagnosis: &'a mut Option<SockDiag>,
    processes: &'a mut Processes,
    worker: WorkerId,
    is_alone: bool,
    member: Option<MemberId>,
    steering: &'a mut Steering,
    listeners: &'a BTreeMap<MemberId, Listener>,
}

impl Witness for Seen<'_> {
    fn other_end(&mut self, connection: &Connection) -> io::Result<OtherEnd> {
        let diagnosis = match self.diagnosis {
            Some(diagnosis) => diagnosis,
            None => self.diagnosis.insert(SockDiag::open()?),
        };
        diagnosis.other_end(connection)
    }

    fn has(&mut self, inode: u64) -> Has {
        self.processes.has(self.worker, inode)
    }

    fn is_alone(&mut self) -> bool {
        self.is_alone
    }

    fn admit(&mut self, is_ipv4: bool, port: u16) {
        if let Some(member) = self.member {
            let family = if is_ipv4 { Family::V4 } else { Family::V6 };
            self.steering.admit(self.worker, member, Source { family, port }, self.listeners);
        }
    }
}
