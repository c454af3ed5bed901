//! Where shepherd accepts itself: the connections that it holds, and the ways by which workers get
//! them. Who gets which is decided by [`crate::core::dispatch`], one machine for each service; this
//! performs what it wants and feeds it what happens.
//!
//! Listeners and channels are in an epoll set of their own inside the loop's, so that a flood of
//! connections is one thing among others there.
//!
//! A worker is gone for its machine when its main process has ended and nobody has the other end of
//! its channel: what lies unread in the channel could be read by whoever has it, and two would answer
//! one client.

mod way;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::config::text::one_line;
use crate::core::action::{Action as CoreAction, Rotation, Turn};
use crate::core::dispatch::{
    AcceptEnd, Action, Answer, Client, CloseReason, Closes, Dispatch, Event, Notice, WorkerView,
};
use crate::core::event::{Mode, WorkerEvent};
use crate::core::ids::{ConnectionId, ListenerId, MemberId, ServiceId, WorkerId};
use crate::core::notice::{self, DispatchNotice, Whom, WorkerName};
use crate::core::time::Time;
use crate::os::clock;
use crate::os::dispatch::{Accepted, Address, Channel, accept, hung_up, never_block};
use crate::os::listeners::Listener;
use crate::os::looks::{Counted, Counting};
use crate::os::reactor::{Interest, Reactor};
use crate::os::socket_table::Place;

use super::event_loop::Daemon;
use way::{ChannelWay, Given, Held, Way};

/// How often listeners and channels are looked at in one turn of the loop, as long as there is
/// something: each time costs a look at everything else that the loop sees to.
const ROUNDS_MAX: usize = 16;

/// How many messages of one worker are read at a time: it owes four answers at most, and may tell of
/// as many ends as it likes.
const MESSAGES_MAX: usize = 16;

/// How many of one that has ended: more than fit into a channel (`net.core.wmem_max`, of which each
/// takes some hundred bytes), so that its last answers are among them.
const LAST_MESSAGES_MAX: usize = 4096;

/// How long a worker whose channel has ended may take to end itself, before that is held against it:
/// a process that ends lets go of its descriptors first.
const FAREWELL: Duration = Duration::from_secs(1);

/// A connection is given as accept(2) gives it: that is what most programs expect.
const MODE: Mode = Mode::Blocking;

type Listeners = BTreeMap<MemberId, Listener>;

/// Everything about connections that shepherd accepts.
pub(super) struct Dispatching {
    services: BTreeMap<ServiceId, Dispatcher>,
    /// The kernel's sockets that are accepted from.
    members: BTreeMap<MemberId, (ServiceId, ListenerId)>,
    posts: BTreeMap<WorkerId, Post>,
    /// Those of them that say nothing more.
    ended: BTreeSet<WorkerId>,
    /// Listeners and channels.
    sources: Reactor,
    /// What is to be told, and counted, when there is time.
    notices: Vec<(ServiceId, Notice)>,
    counts: Vec<(ServiceId, Vec<WorkerId>)>,
}

/// One service's.
struct Dispatcher {
    machine: Dispatch,
    held: BTreeMap<ConnectionId, Held>,
    last: ConnectionId,
    members: BTreeMap<ListenerId, MemberId>,
    /// Who is given connections, and of which listeners.
    rotation: BTreeMap<WorkerId, Turn>,
    /// How many connections workers have taken.
    taken: u64,
    /// How many were given to another after the first.
    given_again: u64,
    /// Whether open connections are being counted.
    counting: bool,
    /// Listeners of which it was told that they cannot be accepted from.
    failed: BTreeSet<ListenerId>,
}

/// A worker that can be given connections.
struct Post {
    service: ServiceId,
    way: Way,
    standing: Standing,
    end: End,
    /// It was sent a signal.
    asked: bool,
    /// It was told that its words make no sense.
    told_nonsense: bool,
}

/// Whether a worker is given connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is, or will be.
    Welcome,
    /// It gets nothing new.
    Left,
    /// Its main process has ended.
    Dead,
}

/// Whether a worker says anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It may.
    Open,
    /// It says nothing more, since then.
    Since(Time),
    /// The same, and that was held against it.
    Told,
}

/// What users see of a service whose connections shepherd accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct DispatchView {
    /// How many connections are held: no worker has taken them.
    pub(super) held: usize,
    /// How many workers have taken so far.
    pub(super) taken: u64,
    /// How many were given to another worker after the first.
    pub(super) given_again: u64,
}

/// What became readable.
#[derive(Debug, Clone, Copy)]
enum Source {
    Listener(MemberId),
    Worker(WorkerId),
}

impl Source {
    const WORKER: u64 = 1 << 63;

    fn encode(self) -> u64 {
        match self {
            Source::Listener(member) => u64::from(member.0),
            Source::Worker(worker) => worker.0 | Source::WORKER,
        }
    }

    fn decode(token: u64) -> Option<Source> {
        if token & Source::WORKER != 0 {
            return Some(Source::Worker(WorkerId(token & !Source::WORKER)));
        }
        u32::try_from(token).ok().map(|member| Source::Listener(MemberId(member)))
    }
}

impl Dispatching {
    /// Nothing yet; `sources` is watched by the loop.
    pub(super) fn new(sources: Reactor) -> Dispatching {
        Dispatching {
            services: BTreeMap::new(),
            members: BTreeMap::new(),
            posts: BTreeMap::new(),
            ended: BTreeSet::new(),
            sources,
            notices: Vec::new(),
            counts: Vec::new(),
        }
    }

    /// A worker was started that has the other end of this channel.
    pub(super) fn open(&mut self, worker: WorkerId, service: ServiceId, channel: Channel) {
        if let Err(error) = self.sources.add(&channel, Source::Worker(worker).encode()) {
            tracing::warn!("worker {worker}: cannot watch its channel: {error}");
        }
        let post = Post {
            service,
            way: Way::Channel(ChannelWay::new(channel)),
            standing: Standing::Welcome,
            end: End::Open,
            asked: false,
            told_nonsense: false,
        };
        self.posts.insert(worker, post);
    }

    /// A signal is about to be sent to a worker. One that gets nothing new learns by the end of its
    /// channel that this is so.
    pub(super) fn asked(&mut self, worker: WorkerId) {
        if let Some(post) = self.posts.get_mut(&worker) {
            post.asked = true;
            post.finish_if_over();
        }
    }

    /// How many connections a worker was given and has not answered for.
    pub(super) fn unanswered(&self, worker: WorkerId) -> u32 {
        let view = self.view(worker);
        view.map_or(0, |view| u32::try_from(view.unacknowledged).unwrap_or(u32::MAX))
    }

    /// What there is to see of a worker that is or was in rotation.
    pub(super) fn view(&self, worker: WorkerId) -> Option<WorkerView> {
        let dispatcher = self.services.get(&self.posts.get(&worker)?.service)?;
        dispatcher.machine.worker(worker)
    }

    /// What there is to see of a service.
    pub(super) fn service_view(&self, service: ServiceId) -> Option<DispatchView> {
        let Dispatcher { machine, taken, given_again, .. } = self.services.get(&service)?;
        Some(DispatchView { held: machine.held(), taken: *taken, given_again: *given_again })
    }

    /// When something is to be looked at again.
    pub(super) fn deadline(&self) -> Option<Time> {
        let machines = self.services.values().filter_map(|it| it.machine.next_deadline());
        let ended = self.ended.iter().filter_map(|worker| self.posts.get(worker));
        let farewells = ended.filter_map(Post::farewell);
        machines.map(|(at, _)| at).chain(farewells).min()
    }

    /// Nothing is left of a service.
    pub(super) fn remove(&mut self, service: ServiceId) {
        self.services.remove(&service);
    }

    /// Something happened to the connections of a service: its machine hears of it, and what it wants
    /// is done.
    fn feed(&mut self, service: ServiceId, event: Event, listeners: &Listeners) {
        let mut events = VecDeque::from([event]);
        // What comes of an event is an answer for a connection that is held, or a channel that is
        // full, of which there is one for each worker.
        while let Some(event) = events.pop_front() {
            let Some(dispatcher) = self.services.get_mut(&service) else { return };
            dispatcher.machine.handle_event(clock::now(), event);
            self.perform(service, listeners, &mut events);
        }
    }

    fn perform(&mut self, service: ServiceId, listeners: &Listeners, events: &mut VecDeque<Event>) {
        let Dispatching { services, posts, sources, notices, counts, .. } = self;
        let Some(dispatcher) = services.get_mut(&service) else { return };
        while let Some(action) = dispatcher.machine.poll_action() {
            match action {
                Action::Poll(id) => {
                    let listener = dispatcher.listener(id, listeners);
                    if let Some((member, listener)) = listener
                        && let Err(error) =
                            sources.add(&listener.fd, Source::Listener(member).encode())
                    {
                        tracing::error!("cannot watch `{}`: {error}", one_line(&listener.place()));
                    }
                }
                Action::StopPolling(id) => {
                    if let Some((_, listener)) = dispatcher.listener(id, listeners) {
                        sources.remove(&listener.fd);
                    }
                }
                Action::Accept { listener, at_most } => {
                    dispatcher.accept(listener, at_most, listeners);
                }
                Action::Give { connection, listener, worker } => {
                    let given = dispatcher.give(connection, listener, worker, posts, listeners);
                    match given {
                        Given::Sent => {}
                        Given::Waits => {
                            if let Some(post) = posts.get(&worker) {
                                post.watch(worker, sources);
                            }
                            events.push_back(Event::Blocked(worker));
                        }
                        Given::Lost => {
                            let answer = Answer::NotSent;
                            events.push_back(Event::Answered { worker, connection, answer });
                        }
                    }
                }
                Action::Close { connection, because } => {
                    dispatcher.held.remove(&connection);
                    dispatcher.taken += u64::from(because == CloseReason::Taken);
                }
                Action::Count(workers) => counts.push((service, workers)),
                Action::Tell(notice) => notices.push((service, notice)),
            }
        }
    }

    /// Reads what a worker says, and sends it what waits.
    fn hear(&mut self, worker: WorkerId, messages_max: usize, listeners: &Listeners) {
        let Some(post) = self.posts.get_mut(&worker) else { return };
        let service = post.service;
        let Way::Channel(way) = &mut post.way;
        let mut events = Vec::new();
        if way.is_blocked() {
            let held = self.services.get(&service).map(|dispatcher| &dispatcher.held);
            let lost = way.flush(held.unwrap_or(&BTreeMap::new()));
            let answer = Answer::NotSent;
            let lost = lost.into_iter();
            events.extend(lost.map(|connection| Event::Answered { worker, connection, answer }));
            if !way.is_blocked() {
                events.push(Event::Writable(worker));
                post.watch(worker, &self.sources);
            }
        }
        let Way::Channel(way) = &mut post.way;
        let heard = way.hear(worker, messages_max);
        events.extend(heard.events);
        let ends = heard.over && post.end == End::Open;
        if ends {
            self.sources.remove(&way.channel);
            post.end = End::Since(clock::now());
            self.ended.insert(worker);
            events.push(Event::Leaving(worker));
        }
        let comes_back = |event: &Event| match event {
            Event::Answered { answer, .. } => *answer != Answer::Accepted,
            Event::Opened(_)
            | Event::Closed(_)
            | Event::Readable(_)
            | Event::Accepted { .. }
            | Event::AcceptEnded { .. }
            | Event::Joined { .. }
            | Event::Leaving(_)
            | Event::Gone(_)
            | Event::Blocked(_)
            | Event::Writable(_)
            | Event::Ended(_)
            | Event::Counted { .. }
            | Event::HungUp(_) => false,
        };
        if events.iter().any(comes_back) {
            self.look_for_clients(service, listeners);
        }
        for event in events {
            self.feed(service, event, listeners);
        }
        let is_over = |post: &Post| post.standing == Standing::Dead && post.end != End::Open;
        if self.posts.get(&worker).is_some_and(is_over) {
            self.forget(worker, listeners);
        }
    }

    /// The main process of a worker has ended: what it was given and nobody has answered for goes to
    /// another once nobody can.
    fn main_gone(&mut self, worker: WorkerId, listeners: &Listeners) {
        let Some(post) = self.posts.get_mut(&worker) else { return };
        let service = post.service;
        post.standing = Standing::Dead;
        self.feed(service, Event::Leaving(worker), listeners);
        self.hear(worker, LAST_MESSAGES_MAX, listeners);
    }

    /// Nobody is left who could take what a worker was given.
    fn forget(&mut self, worker: WorkerId, listeners: &Listeners) {
        let Some(post) = self.posts.remove(&worker) else { return };
        self.ended.remove(&worker);
        let Way::Channel(way) = &post.way;
        self.sources.remove(&way.channel);
        if let Some(dispatcher) = self.services.get_mut(&post.service) {
            dispatcher.rotation.remove(&worker);
        }
        self.look_for_clients(post.service, listeners);
        self.feed(post.service, Event::Gone(worker), listeners);
    }

    /// Sees whose clients are gone, before connections are given to another: nobody is to be bothered
    /// with what nobody waits for.
    fn look_for_clients(&mut self, service: ServiceId, listeners: &Listeners) {
        let Some(dispatcher) = self.services.get(&service) else { return };
        let held: Vec<_> = dispatcher.held.values().map(|held| &held.connection).collect();
        let ids = dispatcher.held.keys().copied();
        let gone = ids.zip(hung_up(&held)).filter(|(_, is_gone)| *is_gone).map(|(id, _)| id);
        for id in gone.collect::<Vec<_>>() {
            self.feed(service, Event::HungUp(id), listeners);
        }
    }

    /// These are given connections from here on, and nobody else.
    fn rotate(&mut self, service: ServiceId, rotation: Rotation, listeners: &Listeners) {
        let Rotation { algorithm, members, workers } = rotation;
        let dispatcher = self.services.entry(service).or_insert_with(|| Dispatcher {
            machine: Dispatch::new(algorithm),
            held: BTreeMap::new(),
            last: ConnectionId(0),
            members: BTreeMap::new(),
            rotation: BTreeMap::new(),
            taken: 0,
            given_again: 0,
            counting: false,
            failed: BTreeSet::new(),
        });
        dispatcher.machine.set_algorithm(clock::now(), algorithm);
        let before = dispatcher.rotation.clone();
        self.perform(service, listeners, &mut VecDeque::new());
        for &member in &members {
            if listeners.contains_key(&member) && !self.members.contains_key(&member) {
                let id = ListenerId(member.0);
                self.members.insert(member, (service, id));
                if let Some(dispatcher) = self.services.get_mut(&service) {
                    dispatcher.members.insert(id, member);
                }
                self.feed(service, Event::Opened(id), listeners);
            }
        }
        // Those who come are there before others leave, so that nothing has to wait in between.
        let is_new = |turn: &&Turn| before.get(&turn.worker) != Some(*turn);
        for turn in workers.iter().filter(is_new) {
            self.join(service, turn.clone(), listeners);
        }
        let stays = |worker: &WorkerId| workers.iter().any(|turn| turn.worker == *worker);
        for worker in before.into_keys().filter(|worker| !stays(worker)) {
            self.leave(service, worker, listeners);
        }
        let is_over = |(member, (of, _)): (&MemberId, &(ServiceId, ListenerId))| {
            (*of == service && !members.contains(member)).then_some(*member)
        };
        for member in self.members.iter().filter_map(is_over).collect::<Vec<_>>() {
            self.close(member, listeners);
        }
    }

    fn join(&mut self, service: ServiceId, turn: Turn, listeners: &Listeners) {
        let is_there = |post: &Post| post.standing != Standing::Dead && post.end == End::Open;
        if !self.posts.get(&turn.worker).is_some_and(is_there) {
            return;
        }
        let Some(dispatcher) = self.services.get_mut(&service) else { return };
        let served = dispatcher.members.iter().filter(|(_, member)| turn.members.contains(member));
        let (worker, slot) = (turn.worker, turn.slot);
        let served = served.map(|(&id, _)| id).collect();
        dispatcher.rotation.insert(worker, turn);
        // Until it tells of one that is over.
        let closes = Closes::Counted;
        self.feed(service, Event::Joined { worker, slot, listeners: served, closes }, listeners);
    }

    fn leave(&mut self, service: ServiceId, worker: WorkerId, listeners: &Listeners) {
        if let Some(dispatcher) = self.services.get_mut(&service) {
            dispatcher.rotation.remove(&worker);
        }
        self.feed(service, Event::Leaving(worker), listeners);
        if let Some(post) = self.posts.get_mut(&worker) {
            if post.standing == Standing::Welcome {
                post.standing = Standing::Left;
            }
            post.finish_if_over();
        }
    }

    /// A socket is not accepted from any more.
    fn close(&mut self, member: MemberId, listeners: &Listeners) {
        let Some((service, id)) = self.members.remove(&member) else { return };
        if let Some(listener) = listeners.get(&member) {
            // Others may have copies, so closing ours does not take it out of the set.
            self.sources.remove(&listener.fd);
        }
        self.feed(service, Event::Closed(id), listeners);
        if let Some(dispatcher) = self.services.get_mut(&service) {
            dispatcher.members.remove(&id);
        }
    }
}

impl Dispatcher {
    fn listener<'a>(
        &self,
        id: ListenerId,
        listeners: &'a Listeners,
    ) -> Option<(MemberId, &'a Listener)> {
        let member = *self.members.get(&id)?;
        Some((member, listeners.get(&member)?))
    }

    fn accept(&mut self, id: ListenerId, at_most: usize, listeners: &Listeners) {
        let now = clock::now();
        let mut end = AcceptEnd::Enough;
        if let Some((_, listener)) = self.listener(id, listeners) {
            never_block(&listener.fd);
            for _ in 0..at_most {
                let (connection, address) = match accept(&listener.fd, MODE) {
                    Accepted::Taken(connection, address) => (connection, address),
                    Accepted::Gone => continue,
                    Accepted::Nothing => {
                        end = AcceptEnd::Empty;
                        break;
                    }
                    Accepted::Scarce => {
                        end = AcceptEnd::OutOfDescriptors;
                        break;
                    }
                    Accepted::Failed(errno) => {
                        end = AcceptEnd::Failed;
                        if self.failed.insert(id) {
                            let (place, why) = (one_line(&listener.place()), errno.desc());
                            tracing::warn!("cannot accept from `{place}`: {why}; trying on");
                        }
                        break;
                    }
                };
                self.failed.remove(&id);
                self.last.0 += 1;
                self.held.insert(self.last, Held { connection, was_given: false });
                let client = match address {
                    Some(Address::V4(address)) => Client::V4(address),
                    Some(Address::V6(address)) => Client::v6(address),
                    None => Client::Unknown,
                };
                let connection = self.last;
                let accepted = Event::Accepted { connection, listener: id, client };
                self.machine.handle_event(now, accepted);
            }
        } else {
            end = AcceptEnd::Failed;
        }
        self.machine.handle_event(now, Event::AcceptEnded { listener: id, end });
    }

    fn give(
        &mut self,
        connection: ConnectionId,
        listener: ListenerId,
        worker: WorkerId,
        posts: &mut BTreeMap<WorkerId, Post>,
        listeners: &Listeners,
    ) -> Given {
        let name = self.listener(listener, listeners).and_then(|(_, it)| it.name.as_deref());
        let Some(held) = self.held.get_mut(&connection) else { return Given::Lost };
        let again = std::mem::replace(&mut held.was_given, true);
        self.given_again += u64::from(again);
        match posts.get_mut(&worker) {
            Some(Post { way: Way::Channel(way), .. }) => {
                way.give(connection, &held.connection, name)
            }
            None => Given::Lost,
        }
    }
}

impl Post {
    /// Watches its channel for what it says, and for its taking more, where that is waited for.
    fn watch(&self, worker: WorkerId, sources: &Reactor) {
        let Way::Channel(way) = &self.way;
        let interest = if way.is_blocked() { Interest::Both } else { Interest::Readable };
        let token = Source::Worker(worker).encode();
        if let Err(error) = sources.watch(&way.channel, token, interest) {
            tracing::warn!("worker {worker}: cannot watch its channel: {error}");
        }
    }

    /// Tells a worker that gets nothing new and was asked to stop that nothing more comes.
    fn finish_if_over(&self) {
        if self.asked && self.standing != Standing::Welcome {
            let Way::Channel(way) = &self.way;
            way.channel.finish();
        }
    }

    /// When it is held against it that its channel has ended and it has not.
    fn farewell(&self) -> Option<Time> {
        match self.end {
            End::Since(at) if self.standing == Standing::Welcome => Some(at + FAREWELL),
            End::Open | End::Since(_) | End::Told => None,
        }
    }
}

impl Daemon {
    /// Listeners have connections, or workers have said something.
    pub(super) fn dispatch(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let tokens = match self.dispatching.sources.wait(Some(Duration::ZERO)) {
                Ok(tokens) if tokens.is_empty() => break,
                Ok(tokens) => tokens,
                Err(error) => {
                    tracing::error!("cannot look at channels: {error}");
                    break;
                }
            };
            for source in tokens.into_iter().filter_map(Source::decode) {
                let listeners = &self.parts.listeners;
                match source {
                    Source::Listener(member) => {
                        if let Some(&(service, id)) = self.dispatching.members.get(&member) {
                            self.dispatching.feed(service, Event::Readable(id), listeners);
                        }
                    }
                    Source::Worker(worker) => {
                        self.dispatching.hear(worker, MESSAGES_MAX, listeners);
                        self.tell_nonsense(worker);
                    }
                }
            }
        }
        self.see_to_dispatch();
    }

    /// What is due is done.
    pub(super) fn dispatch_timeout(&mut self, now: Time) {
        if self.dispatching.deadline().is_none_or(|at| at > now) {
            return;
        }
        let is_due = |dispatcher: &Dispatcher| {
            dispatcher.machine.next_deadline().is_some_and(|(at, _)| at <= now)
        };
        let services = &mut self.dispatching.services;
        let due = services.iter_mut().filter(|(_, dispatcher)| is_due(dispatcher));
        let due = due.map(|(&service, dispatcher)| {
            dispatcher.machine.handle_timeout(now);
            service
        });
        for service in due.collect::<Vec<_>>() {
            let mut events = VecDeque::new();
            self.dispatching.perform(service, &self.parts.listeners, &mut events);
            for event in events {
                self.dispatching.feed(service, event, &self.parts.listeners);
            }
        }
        for worker in self.dispatching.ended.clone() {
            let Some(post) = self.dispatching.posts.get_mut(&worker) else { continue };
            if post.farewell().is_none_or(|at| at > now) {
                continue;
            }
            post.end = End::Told;
            if let Some(name) = self.name_of(worker) {
                self.tell_dispatch(DispatchNotice::ChannelEnded(name));
            }
            // It gets nothing any more: another is to have its slot.
            self.happened(worker, WorkerEvent::SaidStopping);
        }
        self.see_to_dispatch();
    }

    /// As the core wants it.
    pub(super) fn rotate(&mut self, service: ServiceId, rotation: Rotation) {
        self.dispatching.rotate(service, rotation, &self.parts.listeners);
        self.see_to_dispatch();
    }

    /// The main process of a worker has ended.
    pub(super) fn dispatch_main_gone(&mut self, worker: WorkerId) {
        self.dispatching.main_gone(worker, &self.parts.listeners);
        self.see_to_dispatch();
    }

    /// Nothing of a worker is left.
    pub(super) fn dispatch_gone(&mut self, worker: WorkerId) {
        self.dispatching.main_gone(worker, &self.parts.listeners);
        self.dispatching.forget(worker, &self.parts.listeners);
        self.see_to_dispatch();
    }

    /// A socket is about to be closed.
    pub(super) fn dispatch_closed(&mut self, member: MemberId) {
        self.dispatching.close(member, &self.parts.listeners);
        self.see_to_dispatch();
    }

    /// A socket was bound anew in the place of another, which is still there.
    pub(super) fn dispatch_renewed(&mut self, from: MemberId, to: MemberId) {
        let Some((service, id)) = self.dispatching.members.remove(&from) else { return };
        if let Some(listener) = self.parts.listeners.get(&from) {
            self.dispatching.sources.remove(&listener.fd);
        }
        self.dispatching.feed(service, Event::Closed(id), &self.parts.listeners);
        self.dispatching.members.insert(to, (service, id));
        if let Some(dispatcher) = self.dispatching.services.get_mut(&service) {
            dispatcher.members.insert(id, to);
        }
        self.dispatching.feed(service, Event::Opened(id), &self.parts.listeners);
        self.see_to_dispatch();
    }

    /// A socket listens again, or does not for a time.
    pub(super) fn dispatch_listens(&mut self, member: MemberId, listens: Listens) {
        let Some(&(service, id)) = self.dispatching.members.get(&member) else { return };
        let event = match listens {
            Listens::Again => Event::Opened(id),
            Listens::NotNow => {
                if let Some(listener) = self.parts.listeners.get(&member) {
                    self.dispatching.sources.remove(&listener.fd);
                }
                Event::Closed(id)
            }
        };
        self.dispatching.feed(service, event, &self.parts.listeners);
        self.see_to_dispatch();
    }

    /// Open connections were counted.
    pub(super) fn dispatch_counted(&mut self, counted: Counted) {
        let Counted { service, workers } = counted;
        if let Some(dispatcher) = self.dispatching.services.get_mut(&service) {
            dispatcher.counting = false;
        }
        for (worker, open) in workers {
            let event = Event::Counted { worker, open };
            self.dispatching.feed(service, event, &self.parts.listeners);
        }
        self.see_to_dispatch();
    }

    /// Tells what is to be told, and counts what is to be counted.
    fn see_to_dispatch(&mut self) {
        for (service, what) in std::mem::take(&mut self.dispatching.notices) {
            let name = self.parts.services.names.get(&service).cloned().unwrap_or_default();
            let whom = match what {
                Notice::Stalled { worker, .. }
                | Notice::Answers(worker)
                | Notice::OutOfDescriptors(worker) => self.name_of(worker).map(Whom::Worker),
                Notice::RefusedByAll(listener) => {
                    let dispatcher = self.dispatching.services.get(&service);
                    let found =
                        dispatcher.and_then(|it| it.listener(listener, &self.parts.listeners));
                    found.map(|(_, it)| Whom::Socket { service: name.clone(), socket: it.label() })
                }
                Notice::Scarce => None,
            };
            let whom = whom.unwrap_or(Whom::Service(name));
            self.tell_dispatch(DispatchNotice::Decided { whom, what });
        }
        for (service, workers) in std::mem::take(&mut self.dispatching.counts) {
            self.count(service, &workers);
        }
    }

    fn count(&mut self, service: ServiceId, workers: &[WorkerId]) {
        let accounts = workers.iter();
        let accounts = accounts
            .filter_map(|&worker| Some((worker, self.processes.account(worker)?)))
            .collect();
        let Some(dispatcher) = self.dispatching.services.get_mut(&service) else { return };
        // One that takes longer than the next is asked for is the next as well.
        if std::mem::replace(&mut dispatcher.counting, true) {
            return;
        }
        let members = dispatcher.members.values();
        let listeners = members.filter_map(|member| self.parts.listeners.get(member));
        let places = listeners.map(Place::of).collect();
        let counting = Counting { service, places, workers: accounts };
        match self.looks() {
            Some(looks) => looks.count(counting),
            None => {
                if let Some(dispatcher) = self.dispatching.services.get_mut(&service) {
                    dispatcher.counting = false;
                }
            }
        }
    }

    fn tell_nonsense(&mut self, worker: WorkerId) {
        let Some(post) = self.dispatching.posts.get_mut(&worker) else { return };
        let Way::Channel(way) = &post.way;
        if way.spoke_nonsense()
            && !std::mem::replace(&mut post.told_nonsense, true)
            && let Some(name) = self.name_of(worker)
        {
            self.tell_dispatch(DispatchNotice::Nonsense(name));
        }
    }

    fn tell_dispatch(&mut self, what: DispatchNotice) {
        self.perform(CoreAction::Notice(notice::Notice::Dispatch(what)));
    }

    fn name_of(&self, worker: WorkerId) -> Option<WorkerName> {
        let handles = self.workers.get(&worker)?;
        let service = self.parts.services.names.get(&handles.service).cloned().unwrap_or_default();
        Some(WorkerName { worker, service, slot: handles.slot })
    }
}

/// Whether clients of a socket are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listens {
    Again,
    NotNow,
}
