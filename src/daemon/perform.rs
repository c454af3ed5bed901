//! What the core wants, done: one match, one arm for each action.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use crate::config::socket::Transport;
use crate::core::action::{Action, Announcement, NewMember, Spawn};
use crate::core::event::{Event, Exit, Fault, Sight, SpawnFailure, Waiting, WorkerEvent, Wrapped};
use crate::core::ids::{GenerationId, MemberId, Pid, ServiceId, SlotId, WorkerId};
use crate::core::notice::Notice;
use crate::os::cgroup::Leaf;
use crate::os::clock;
use crate::os::definition::{self, Definition};
use crate::os::identity::Identity;
use crate::os::limits;
use crate::os::listeners::Listener;
use crate::os::notify_socket::NotifySocket;
use crate::os::output::Pipe;
use crate::os::processes::Child;
use crate::os::runtime_dir::RuntimeDir;
use crate::os::spawn::{self, Environment, Order, Plan};
use crate::os::waiting;
use crate::protocol::outcome::{Outcome, OutcomeReader, Stage};
use crate::protocol::{dispatch_channel, listen_fds};

use super::channels::Channels;
use super::configuration;
use super::event_loop::{Daemon, Handles, Spawning, Token};
use super::messages;
use super::services;
use super::slots::{self, PORT};

impl Daemon {
    /// Does one thing. What goes wrong comes back as an event.
    pub(super) fn perform(&mut self, action: Action) {
        match action {
            Action::Prepare { service, generation, like, bind } => {
                self.prepare(service, generation, like, &bind);
            }
            Action::ReadConfiguration { request, services: only, free } => {
                self.orders.push_back(configuration::Order { request, only, free });
            }
            Action::Remove(service) => {
                self.nodes.remove_service(service);
                self.remove_service(service);
            }
            Action::Spawn(spawn) => self.spawn(&spawn),
            Action::Probe(worker) => self.probe(worker),
            Action::Inspect { member, by } => self.inspect(member, by),
            Action::Listen(member) => self.listen(member),
            Action::StopListening(member) => self.stop_listening(member),
            Action::SetMode(member, mode) => self.set_mode(member, mode),
            Action::Check(worker) => self.begin_check(worker),
            Action::EndCheck(worker) => self.end_check(worker),
            Action::Renew { from, to } => self.renew(from, to),
            Action::BindSlot { service, generation, slot, members } => {
                self.bind_slot(service, generation, slot, &members);
            }
            Action::BindSpares { service, members } => self.bind_spares(service, &members),
            Action::Weigh { service, generation, workers } => {
                self.weigh(service, generation, &workers);
            }
            Action::Steer { group, shares } => {
                self.steering.steer(group, shares, &self.parts.listeners);
            }
            Action::Rotate { service, rotation } => self.rotate(service, rotation),
            Action::LookAtDrain { service, look } => self.look_at_drain(service, &look),
            Action::LookAtQueues { service, members } => self.look_at_queues(service, &members),
            Action::Publish { service, generation, number, slots } => {
                self.publish(service, generation, number, &slots);
            }
            Action::EndPublish { service } => self.end_publish(service),
            Action::FindHolders { member, given, workers } => {
                self.find_holders(member, given, &workers);
            }
            Action::Disconnect(worker) => self.disconnect(worker),
            Action::Signal(worker, signal) => {
                self.dispatching.asked(worker);
                self.processes.signal(worker, signal);
            }
            Action::SignalTree(worker, signal) => self.processes.signal_tree(worker, signal),
            Action::KillTree(worker) => self.kill_tree(worker),
            Action::Close(member) => self.close_member(member),
            Action::Forget { service, generation } => {
                self.parts.services.definitions.remove(&(service, generation));
                self.parts.services.checks.remove(&(service, generation));
                self.parts.services.proxies.remove(&(service, generation));
            }
            Action::Respond(request, response) => self.respond(request, &response),
            Action::Announce(announcement) => self.announce(&announcement),
            Action::Notice(notice) => {
                self.tell(&notice);
            }
            Action::Finish => self.finished = true,
        }
    }

    /// Tells users of something, and workers that want to hear of it.
    pub(super) fn tell(&mut self, notice: &Notice) {
        self.output.tell(notice);
        self.record(notice);
        self.messages.note(notice);
    }

    fn prepare(
        &mut self,
        service: ServiceId,
        generation: GenerationId,
        like: Option<GenerationId>,
        bind: &[NewMember],
    ) {
        let prepared = self.definition(service, like).map_err(Fault::Definition);
        let prepared = prepared.and_then(|definition| {
            let bound = self.bind_members(service, bind)?;
            Ok((definition, bound))
        });
        let event = match prepared {
            Ok((definition, bound)) => {
                let services = &mut self.parts.services;
                if let Some(config) = services.configs.get(&service).filter(|_| like.is_none()) {
                    services::warn_of_wrapper(config, &definition);
                }
                let by_path = (!definition.pinned)
                    .then(|| String::from_utf8_lossy(&definition.path).into_owned());
                services.definitions.insert((service, generation), definition);
                let check = match like {
                    Some(like) => services.checks.get(&(service, like)).cloned(),
                    None => services.configs.get(&service).and_then(|it| it.ready.check().cloned()),
                };
                services.checks.extend(check.map(|check| ((service, generation), check)));
                let proxy = match like {
                    Some(like) => services.proxies.get(&(service, like)).cloned(),
                    None => services.configs.get(&service).and_then(services::proxy),
                };
                services.proxies.extend(proxy.map(|proxy| ((service, generation), proxy)));
                Event::Prepared { service, generation, bound, by_path }
            }
            Err(fault) => Event::PrepareFailed { service, generation, fault },
        };
        self.events.push_back(event);
        self.watch_members(bind);
    }

    /// The definition of a generation, or what it is by now.
    fn definition(
        &self,
        service: ServiceId,
        like: Option<GenerationId>,
    ) -> Result<Rc<Definition>, String> {
        let services = &self.parts.services;
        let kept = like.and_then(|like| services.definitions.get(&(service, like)));
        if let Some(definition) = kept {
            return Ok(Rc::clone(definition));
        }
        let config = services.configs.get(&service).ok_or("there is no such service")?;
        definition::read(&config.source).map(Rc::new).map_err(|error| error.to_string())
    }

    fn spawn(&mut self, order: &Spawn) {
        let leaf = self.processes.new_leaf(order.worker).unwrap_or_else(|error| {
            self.give_up_cgroups(&format!("cannot make one: {error}"));
            None
        });
        if let Err((step, error)) = self.try_spawn(order, leaf.as_ref()) {
            self.processes.discard_leaf(leaf);
            let reason = format!("{step}: {error}{}", spawn::remedy(&error));
            self.happened(order.worker, WorkerEvent::SpawnFailed(SpawnFailure { reason }));
        }
    }

    fn try_spawn(
        &mut self,
        order: &Spawn,
        leaf: Option<&Leaf>,
    ) -> Result<(), (&'static str, io::Error)> {
        let Spawn { worker, service, generation, ref members, ref dispatched, .. } = *order;
        let definition = self
            .parts
            .services
            .definitions
            .get(&(service, generation))
            .cloned()
            .ok_or_else(|| ("finding its definition", io::ErrorKind::NotFound.into()))?;
        let definition = definition.as_ref();
        let notify = bind_notify(&mut self.parts.runtime_dir, worker, &definition.identity)
            .map_err(|error| ("making its notification socket", error))?;
        let given: Vec<(MemberId, &Listener)> = members
            .iter()
            .filter_map(|member| Some((*member, self.parts.listeners.get(member)?)))
            .collect();
        let channels = Channels::open(definition, given.len(), !dispatched.is_empty());
        let channels = channels.map_err(|error| ("making its channels", error))?;
        let all = given.iter().map(|(_, listener)| *listener);
        let port = slots::port(all.clone());
        let listeners: Vec<&Listener> =
            if channels.has_descriptors() { all.collect() } else { Vec::new() };
        let names = listeners.iter().map(|listener| listener.name.clone());
        let sockets = listeners.iter().map(|listener| listener.fd.as_fd());
        let sockets: Vec<BorrowedFd<'_>> = sockets.chain(channels.dispatch_end()).collect();
        let names: Vec<Option<String>> = names
            .chain(channels.dispatch_end().map(|_| Some(dispatch_channel::NAME.to_owned())))
            .collect();
        let service_name = self.parts.services.names.get(&service).cloned().unwrap_or_default();
        let owner = definition.identity.owner();
        let captures = self.output.captures();
        let pipes = captures.then(|| Ok([Pipe::new(owner)?, Pipe::new(owner)?])).transpose();
        let pipes = pipes.map_err(|error: io::Error| ("making pipes for its output", error))?;
        let mut environment =
            environment(definition, &service_name, worker, order.slot, generation);
        if let Some(stream) = environment.get(b"JOURNAL_STREAM".as_slice())
            && !self.output.gives_journal(stream)
        {
            environment.remove(b"JOURNAL_STREAM".as_slice());
        }
        let environment = with_port(environment, port);
        let environment = with_sockets(environment, &names, &notify);
        let environment = channels.tell(environment, sockets.len(), order);
        let plan = self.plan(definition, environment);
        let spawned = spawn::spawn(&Order {
            plan: &plan,
            sockets,
            beside: channels.ends(),
            directory: definition.directory.as_fd(),
            program: definition.program.as_fd(),
            output: pipes.as_ref().map(|pipes| pipes.each_ref().map(|pipe| pipe.writer.as_fd())),
            cgroup: leaf,
        })?;
        let is_stream = |(_, listener): &&(_, &Listener)| listener.transport == Transport::Stream;
        let first_stream = given.iter().find(is_stream).map(|&(member, _)| member);
        let inodes = given.iter().map(|&(member, listener)| (member, listener.inode)).collect();
        let members: Vec<MemberId> = given.iter().map(|&(member, _)| member).collect();
        let pid = Pid(u32::try_from(spawned.pid.as_raw()).unwrap_or(0));
        let child = Child { pid: spawned.pid, pidfd: spawned.pidfd, leaf: leaf.cloned() };
        self.processes.insert(worker, child, &service_name);
        // Our copies of its ends close here: the end of a pipe is then the end of all who write.
        if let Some(pipes) = pipes {
            self.output.listen(order, &service_name, pid, pipes.map(|pipe| pipe.reader));
        }
        // Its ends of its channels close here, too.
        let Channels { node, dispatch, messages } = channels;
        self.messages.begin(order, &service_name, definition, messages.map(|(ours, _)| ours));
        // What it tells is read at the end: each stage that woke us would cost more than it takes.
        let reactor = &self.parts.reactor;
        let outcome = reactor.add_for_end(&spawned.outcome, Token::Outcome(worker).encode());
        let words = reactor.add(&notify, Token::Notify(worker).encode());
        // Without a watch its end is still seen by its exit, and its words are read then.
        for error in [outcome, words].into_iter().filter_map(Result::err) {
            tracing::warn!("worker {worker}: cannot watch it: {error}");
        }
        let inode = dispatch.as_ref().map(|ends| ends.inode);
        if let Some(ends) = dispatch {
            self.dispatching.open(worker, service, ends.ours);
        }
        let spawning = Spawning { pid, outcome: spawned.outcome, reader: OutcomeReader::default() };
        self.workers.insert(
            worker,
            Handles {
                service,
                slot: order.slot,
                generation,
                sockets: inodes,
                dispatched: dispatched.clone(),
                channel: inode,
                first_stream,
                port,
                spawning: Some(spawning),
                notify,
                main: None,
                left: Vec::new(),
                cgroup: None,
                orphaned: false,
                complaints: 0,
            },
        );
        if let Some((handoff, ours, _)) = node {
            self.nodes.insert(worker, service, ours, members, handoff.beside_descriptors);
            self.watch_channel(worker, handoff.forked);
        }
        Ok(())
    }

    fn probe(&mut self, worker: WorkerId) {
        let Some(handles) = self.workers.get(&worker) else {
            return;
        };
        let sockets = handles.sockets.values().copied().chain(handles.channel);
        let sockets: BTreeSet<u64> = sockets.collect();
        let Some(seen) = self.processes.look(worker, &sockets) else {
            return;
        };
        let sight = Sight {
            waiting: match seen.waiting {
                waiting::Waiting::Seen { .. } => Waiting::Seen,
                waiting::Waiting::NotSeen => Waiting::NotSeen,
                waiting::Waiting::Unreadable { .. } => Waiting::Unreadable,
            },
            wrapped: seen.wrapped.map(|wrapped| Wrapped {
                pid: Pid(u32::try_from(wrapped.pid.as_raw()).unwrap_or(0)),
                name: wrapped.name,
            }),
        };
        self.happened(worker, WorkerEvent::Probed(sight));
    }

    fn kill_tree(&mut self, worker: WorkerId) {
        self.processes.kill_tree(worker);
        // What was forked away while it was killed is watched from here on.
        if self.workers.get(&worker).is_some_and(|handles| handles.orphaned) {
            self.watch_left(worker);
        }
    }

    /// What the main process of a worker is to become; and so anything else that runs for it, as the same user and within the same limits, once its program is another.
    pub(super) fn plan<'a>(
        &self,
        definition: &'a Definition,
        environment: Environment<'a>,
    ) -> Plan<'a> {
        Plan {
            path: &definition.path,
            arguments: definition.arguments.iter().map(Vec::as_slice).collect(),
            environment,
            limits: limits::for_worker(self.parts.open_files, &definition.limits),
            nice: definition.nice,
            umask: definition.umask,
            credentials: definition.identity.credentials.as_ref(),
            drops_capabilities: definition.identity.drops_capabilities,
            no_new_privileges: definition.no_new_privileges,
            ends_with: None,
            pinned: definition.pinned,
        }
    }

    fn announce(&mut self, announcement: &Announcement) {
        let now = clock::now();
        match announcement {
            Announcement::Ready => self.manager.ready(now),
            Announcement::Reloading => self.manager.reloading(now),
            Announcement::Stopping(takes) => self.manager.stopping(now, *takes),
            Announcement::Status(line) => self.manager.status(now, line),
        }
    }
}

/// Binds a worker's notification socket, in a directory that is made again if somebody removed it:
/// a login manager does so when the user logs out.
fn bind_notify(
    directory: &mut RuntimeDir,
    worker: WorkerId,
    identity: &Identity,
) -> io::Result<NotifySocket> {
    let bind = |directory: &RuntimeDir| {
        NotifySocket::bind(directory, directory.notify_path(worker.0), identity.owner())
    };
    match bind(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            directory.restore(&|path| identity.may_enter(path))?;
            bind(directory)
        }
        bound => bound,
    }
}

/// The environment of everything that runs for a worker.
pub(super) fn environment<'a>(
    definition: &'a Definition,
    service_name: &'a str,
    worker: WorkerId,
    slot: SlotId,
    generation: GenerationId,
) -> Environment<'a> {
    let variables = definition.environment.iter();
    let mut environment: Environment<'a> = variables
        // Whatever the user set of these would contradict what the worker is given.
        .filter(|(name, _)| {
            !name.starts_with(b"LISTEN_") && name.as_slice() != messages::VARIABLE.as_bytes()
        })
        .map(|(name, value)| (name.as_slice(), value.as_slice().into()))
        .collect();
    environment.insert(b"SHEPHERD_SERVICE", service_name.as_bytes().into());
    for (name, value) in [
        ("SHEPHERD_SLOT", slot.to_string()),
        ("SHEPHERD_WORKER", worker.to_string()),
        ("SHEPHERD_GENERATION", generation.to_string()),
    ] {
        environment.insert(name.as_bytes(), value.into_bytes().into());
    }
    environment
}

/// A port that is a slot's alone wins over what the user set: nobody can know it before.
pub(super) fn with_port(mut environment: Environment<'_>, port: Option<u16>) -> Environment<'_> {
    if let Some(port) = port {
        environment.insert(PORT.as_bytes(), port.to_string().into_bytes().into());
    }
    environment
}

/// What the worker itself is told besides, except what only its own process can know.
fn with_sockets<'a>(
    mut environment: Environment<'a>,
    names: &[Option<String>],
    notify: &'a NotifySocket,
) -> Environment<'a> {
    use std::os::unix::ffi::OsStrExt;
    let sockets = listen_fds::variables(names).into_iter();
    environment.extend(sockets.map(|(name, value)| (name.as_bytes(), value.into_bytes().into())));
    environment.insert(b"NOTIFY_SOCKET", notify.path().as_os_str().as_bytes().into());
    environment
}

/// Why a process did not become the program, for people.
pub(super) fn explain(outcome: Outcome, how: Exit, definition: Option<&Definition>) -> String {
    match (outcome, definition) {
        (Outcome::Failed(Stage::Exec, errno), Some(definition)) => {
            definition::explain_exec(definition, errno)
        }
        (Outcome::Failed(stage, errno), _) => {
            format!("{stage}: {}", io::Error::from_raw_os_error(errno))
        }
        (Outcome::Died(Some(stage)), _) => format!("it {how} while {stage}"),
        (Outcome::Died(None), _) => format!("it {how} before its first step"),
        (Outcome::Running, _) => format!("it {how}"),
    }
}
