//! An account of a world, independent of the core's: it hears what the core is told and what the
//! core wants done, and knows from that where every worker, service and request should stand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use shepherd::core::action::{Announcement, NewMember};
use shepherd::core::event::{Exit, Finding, Waiting, WorkerEvent};
use shepherd::core::ids::{
    GenerationId, MemberId, RequestId, ServiceId, SlotId, SocketId, WorkerId,
};
use shepherd::core::policy::{Check, Policy, ReadyWhen};
use shepherd::core::readiness::{ASSUMED_AFTER, EXTEND_MAX};
use shepherd::core::request::Request;
use shepherd::core::status::Stage;
use shepherd::core::steering::GroupId;
use shepherd::core::time::Time;
use shepherd::core::worker::{AFTER_CHANNEL, KILL_WAIT, ORPHANS_WAIT};
use shepherd::core::{Action, Event};

use crate::batch_book::BatchBook;
use crate::invariants::{Violation, ensure};
use crate::life_book::{Due, Life, Stopped};
use crate::member_book::MemberBook;
use crate::proving_book::ProvingBook;
use crate::publication_book::PublicationBook;
use crate::requests::Open;
use crate::slot_book::SlotBook;
use crate::steering_book::DrainBook;
use crate::world::Input;

/// The account of everything that happened in a world.
pub(crate) struct Ledger {
    pub books: BTreeMap<ServiceId, Book>,
    pub workers: BTreeMap<WorkerId, Record>,
    pub requests: BTreeMap<RequestId, Open>,
    /// Services that have come up once, or were stopped.
    pub come_up: BTreeSet<ServiceId>,
    pub last_worker: u64,
    pub last_member: MemberId,
    pub stop: Stop,
    /// How long everything serves on once a stop was asked for.
    pub lame_duck: Duration,
    /// The lame duck under way: no stop has come for the services, so `stop` is `No`.
    pub lame: Option<Lame>,
    pub closed: BTreeSet<MemberId>,
    /// Sockets, whose accounts are in `sockets.rs`.
    pub members: BTreeMap<MemberId, MemberBook>,
    /// The socket of each member that was steered.
    pub socket_of: BTreeMap<MemberId, SocketId>,
    /// What share of new connections each member was last given, and which ever had one.
    pub shares: BTreeMap<MemberId, u32>,
    pub had_share: BTreeSet<MemberId>,
    /// Members that do not listen, so that clients are refused.
    pub refusing: BTreeSet<MemberId>,
    /// The members of the last program of each group.
    pub steered: BTreeMap<GroupId, BTreeSet<MemberId>>,
    /// What waited on members that are a worker's own when they were last looked at, and in how many
    /// looks since something did it had not become less.
    pub standing: BTreeMap<MemberId, (u32, u32)>,
    /// Workers that were asked to stop while others served with one of their sockets.
    pub shared: BTreeSet<WorkerId>,
    /// Members that no worker gets, which keep others at their places in a group.
    pub spares: BTreeMap<MemberId, ServiceId>,
    /// Members that nobody wants any more, and whose they were: they are closed when new connections
    /// go where they should meanwhile.
    pub going: BTreeMap<MemberId, ServiceId>,
    /// Members that were given up while nobody could take what waits in them.
    pub given_up: BTreeSet<MemberId>,
    pub finished: bool,
    pub announced: Option<Announcement>,
    pub status_line: String,
    /// What has been seen at least once.
    pub seen: BTreeSet<&'static str>,
}

/// A stop was asked for, and everything serves on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lame {
    pub due: Time,
    pub interrupted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    No,
    Asked { interrupted: bool },
    Now,
}

/// How far the first start of a service has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Start {
    /// It waits for others.
    Waits,
    /// It waits for nobody any more.
    Begun,
    /// All its workers have been ready together once.
    Up,
}

/// The account of a service.
pub(crate) struct Book {
    pub policy: Policy,
    pub wanted: u32,
    pub start: Start,
    /// Whether it was asked to stop, for good.
    pub told: bool,
    pub serving: GenerationId,
    /// The generation of the reload under way, and whether its definition is read.
    pub rolling: Option<(GenerationId, bool)>,
    /// Where not all of its workers run beside the old ones, how far it is.
    pub batches: BatchBook,
    /// Whether an operator asked for the last reload that began.
    pub asked: bool,
    pub last_generation: GenerationId,
    pub kept: BTreeSet<GenerationId>,
    pub forgotten: BTreeSet<GenerationId>,
    /// Those that a reload has brought to serve, and those that could not be read.
    pub committed: BTreeSet<GenerationId>,
    pub unread: BTreeSet<GenerationId>,
    /// Those whose sockets could not be bound.
    pub unbound: BTreeSet<GenerationId>,
    /// What operators made of it, and what is to be read for that.
    pub life: Life,
    pub due: Due,
    pub stopped: Stopped,
    /// How many workers came in the place of one that ended unasked.
    pub replaced: u64,
    /// Slots of the serving generation that are to get a worker, and when.
    pub waits: BTreeMap<SlotId, Time>,
    pub failures: BTreeMap<SlotId, u32>,
    /// Whether a worker has failed before it was ready.
    pub stumbled: bool,
    /// Failures in the whole service since a worker was last ready.
    pub in_a_row: u32,
    /// When the last workers that had been ready were to be replaced. One that waits for others to
    /// get going comes later than that.
    pub restarts: VecDeque<Time>,
    pub slots: SlotBook,
    /// The same of generations of which each slot has sockets of its own.
    pub own: BTreeMap<GenerationId, SlotBook>,
    /// Generations that have the members of another.
    pub heirs: BTreeMap<GenerationId, GenerationId>,
    /// What is being bound for the reload under way.
    pub binding: Vec<NewMember>,
    pub drains: DrainBook,
    pub publication: PublicationBook,
    pub proving: ProvingBook,
}

/// The account of a worker.
#[derive(Debug)]
pub(crate) struct Record {
    pub service: ServiceId,
    pub slot: SlotId,
    pub generation: GenerationId,
    pub stage: Standing,
    /// Whether it asked for its sockets over its channel, and is told to leave over that.
    pub channel: Channel,
    /// The sockets it was given.
    pub members: Vec<MemberId>,
    /// Whether its program ran, and whether that has exited.
    pub has_run: bool,
    pub main_gone: bool,
    /// Where it was last shown to stand, and since when.
    pub shown: (Stage, Time),
    /// Whether it is to stop once a proxy knows, or it has finished what it has.
    pub withdraws: bool,
    pub checks: Checks,
    /// In how many looks in a row nothing was left of it, its connections aside, and with them.
    pub empty: [u32; 2],
    /// What the last check saw that was not enough.
    pub last_finding: Option<Finding>,
}

/// How a worker is told to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    /// By signals.
    Silent,
    /// Over its channel first.
    Speaks,
}

/// Where the checks of a worker stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checks {
    /// None is under way since then.
    Rest(Time),
    /// One is since then.
    UnderWay(Time),
    /// One was told to end.
    Ending,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Starting {
        due: Time,
        runs: Option<Time>,
        alive: Option<Time>,
    },
    Ready,
    Withdrawing {
        since: Time,
        due: Time,
    },
    Emptying {
        since: Time,
        due: Time,
    },
    Leaving {
        since: Time,
        due: Time,
    },
    /// Told over its channel to leave; and whether it has closed that since.
    Told {
        since: Time,
        due: Time,
        heard: bool,
    },
    Asked {
        since: Time,
        sent: usize,
        due: Time,
    },
    Orphans {
        due: Time,
    },
    Killed {
        rounds: u32,
        due: Time,
    },
    Gone,
}

/// What is special about a turn.
pub(crate) struct Turn<'a> {
    pub now: Time,
    pub input: &'a Input,
    /// The services that it asks to stop, and whether it kills.
    pub stops: BTreeSet<ServiceId>,
    pub kills: bool,
    pub lame_duck: Begins,
    /// Workers that ended unasked, and whether they had been ready.
    pub ended: BTreeMap<WorkerId, bool>,
    pub orphaned: Option<WorkerId>,
    /// Whether what it left behind got the stop signal.
    pub tree_told: bool,
    pub commits: BTreeMap<ServiceId, GenerationId>,
    pub aborts: BTreeMap<ServiceId, GenerationId>,
    /// Reloads that are off whose last workers go.
    pub gone: BTreeSet<(ServiceId, GenerationId)>,
    pub spawned: BTreeSet<WorkerId>,
    /// The sockets that are to be looked at, and because of which ready worker.
    pub inspected: Vec<(MemberId, Option<WorkerId>)>,
    /// Sockets that another has taken the place of, or that nobody wants any more.
    pub to_close: BTreeSet<MemberId>,
    /// The request that comes in it is refused in it.
    pub refused: bool,
    /// Services that go down.
    pub downs: BTreeSet<ServiceId>,
    /// Workers that are asked to stop in it while new connections may find them.
    pub asked_early: Vec<WorkerId>,
    /// Services whose definition an operator has read again.
    pub begins: BTreeSet<ServiceId>,
    /// The time has come for something that happens whatever else does.
    pub is_due: IsDue,
}

impl Turn<'_> {
    /// Whether an operator asks for this in it.
    pub(crate) fn asks(&self, request: &Request) -> bool {
        matches!(self.input, Input::Event(Event::Requested(_, asked)) if asked == request)
    }
}

/// Whether a deadline of the core had come before it heard what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IsDue {
    No,
    Yes,
}

/// Whether a lame duck begins in a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begins {
    No,
    Untold,
    Told,
}

impl Ledger {
    pub(crate) fn new(policies: &[Policy], lame_duck: Duration) -> Ledger {
        let first = GenerationId(1);
        let book = |policy: &Policy| Book {
            policy: policy.clone(),
            wanted: policy.workers,
            start: Start::Waits,
            told: false,
            serving: first,
            rolling: None,
            batches: BatchBook::default(),
            asked: false,
            last_generation: first,
            kept: BTreeSet::from([first]),
            forgotten: BTreeSet::new(),
            committed: BTreeSet::new(),
            unread: BTreeSet::new(),
            unbound: BTreeSet::new(),
            life: Life::Up,
            due: Due::Nothing,
            stopped: Stopped::ByItself,
            replaced: 0,
            waits: BTreeMap::new(),
            failures: BTreeMap::new(),
            stumbled: false,
            in_a_row: 0,
            restarts: VecDeque::new(),
            slots: SlotBook::of(policy),
            own: SlotBook::own(policy, (0..policy.workers).map(SlotId).collect())
                .map(|own| (first, own))
                .into_iter()
                .collect(),
            heirs: BTreeMap::new(),
            binding: Vec::new(),
            drains: DrainBook::default(),
            publication: PublicationBook::default(),
            proving: ProvingBook::default(),
        };
        Ledger {
            books: policies.iter().map(|policy| (policy.service, book(policy))).collect(),
            workers: BTreeMap::new(),
            requests: BTreeMap::new(),
            come_up: BTreeSet::new(),
            last_worker: 0,
            last_member: MemberBook::of(policies).keys().max().copied().unwrap_or(MemberId(0)),
            stop: Stop::No,
            lame_duck,
            lame: None,
            closed: BTreeSet::new(),
            members: MemberBook::of(policies),
            socket_of: BTreeMap::new(),
            shares: BTreeMap::new(),
            had_share: BTreeSet::new(),
            refusing: BTreeSet::new(),
            steered: BTreeMap::new(),
            standing: BTreeMap::new(),
            shared: BTreeSet::new(),
            spares: BTreeMap::new(),
            going: BTreeMap::new(),
            given_up: BTreeSet::new(),
            finished: false,
            announced: None,
            status_line: String::new(),
            seen: BTreeSet::new(),
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    /// What the input says, before the core answers.
    pub(crate) fn learn(&mut self, turn: &mut Turn<'_>) {
        match turn.input {
            Input::Start => {}
            Input::Timeout => {
                if let Some(Lame { due, interrupted }) = self.lame
                    && due <= turn.now
                {
                    self.drain(interrupted);
                }
            }
            Input::Event(Event::Worker(id, event)) => self.learn_worker(turn, *id, event),
            Input::Event(Event::Socket(member, event)) => self.learn_socket(turn, *member, event),
            Input::Event(Event::Prepared { service, generation, bound, .. }) => {
                if let Some(book) = self.books.get_mut(service)
                    && let Some((rolling, read)) = &mut book.rolling
                    && *rolling == *generation
                {
                    *read = true;
                    self.learn_rolling_prepared(*service, *generation);
                    self.learn_pace(*service);
                } else {
                    self.learn_life_prepared(turn, *service, *generation, bound);
                }
            }
            Input::Event(Event::PrepareFailed { service, generation, fault }) => {
                if let Some(book) = self.books.get_mut(service) {
                    book.kept.remove(generation);
                }
                self.learn_life_unprepared(*service, *generation, fault);
            }
            Input::Event(Event::SlotBound { service, generation, slot, members }) => {
                self.learn_slot_bound(turn, *service, *generation, *slot, members);
            }
            Input::Event(Event::SlotNotBound { service, generation, slot, .. }) => {
                self.learn_slot_not_bound(turn.now, *service, *generation, *slot);
            }
            Input::Event(Event::SparesBound { service, members, failure }) => {
                self.learn_spares_bound(*service, members, failure.is_some());
            }
            Input::Event(Event::Weighed { service, generation, room }) => {
                self.learn_weighed(*service, *generation, *room);
            }
            Input::Event(Event::DrainSeen { service, seen }) => {
                self.learn_drain_seen(turn.now, *service, seen);
            }
            Input::Event(Event::QueuesSeen { members, .. }) => self.learn_queues_seen(members),
            Input::Event(Event::Published { service, number, failure }) => {
                self.learn_published(turn.now, *service, *number, failure.is_some());
            }
            Input::Event(Event::ConfigurationRead { request, configuration }) => {
                self.learn_read(*request);
                self.learn_configuration(configuration);
            }
            Input::Event(Event::Closed(_) | Event::ConfigurationFailed { .. }) => {}
            Input::Event(Event::Requested(id, request)) => self.learn_request(turn, *id, request),
        }
        self.stop_next(turn);
        self.bring_down(turn);
    }

    /// Whether those have to wait that need this service.
    pub(crate) fn is_missing(&self, need: ServiceId) -> bool {
        let book = &self.books[&need];
        book.start != Start::Up || book.life.awaits_turn()
    }

    /// Whether one that serves needs another that is stopped.
    pub(crate) fn lacks_a_need(&self) -> bool {
        let up = self.books.values().filter(|book| book.life.is_up());
        up.flat_map(|book| book.policy.needs()).any(|need| self.books[&need].life.is_down())
    }

    /// While everything stops: those that nobody needs any more are asked.
    pub(crate) fn stop_next(&mut self, turn: &mut Turn<'_>) {
        let Stop::Asked { .. } = self.stop else { return };
        loop {
            // One that is stopped needs nobody.
            let is_left = |id: &ServiceId| {
                !self.books[id].told && !self.books[id].life.needs_nobody()
                    || self.alive().any(|(_, record)| record.service == *id)
            };
            let needed: BTreeSet<ServiceId> = self
                .books
                .iter()
                .filter(|(id, _)| is_left(id))
                .flat_map(|(_, book)| book.policy.needs())
                .collect();
            let next = self.books.iter().filter(|(id, book)| !book.told && !needed.contains(id));
            let next: Vec<ServiceId> = next.map(|(&id, _)| id).collect();
            if next.is_empty() {
                return;
            }
            if self.books.values().any(|book| book.told) {
                self.saw("a stop that waited its turn");
            }
            for id in next {
                self.tell_stop(turn, id);
            }
        }
    }

    fn tell_stop(&mut self, turn: &mut Turn<'_>, id: ServiceId) {
        if let Some(book) = self.books.get_mut(&id)
            && !book.told
        {
            book.told = true;
            book.leave_batches();
            turn.stops.insert(id);
            self.learn_end_of_life(id);
        }
    }

    pub(crate) fn kill(&mut self, turn: &mut Turn<'_>) {
        turn.kills = true;
        for id in self.books.keys().copied().collect::<Vec<_>>() {
            self.tell_stop(turn, id);
        }
    }

    /// Whether a service was asked to stop.
    pub(crate) fn is_told(&self, service: ServiceId) -> bool {
        self.books.get(&service).is_none_or(|book| book.told)
    }

    /// How long a stop takes at most, one service after the other where one needs another.
    pub(crate) fn stop_takes(&self, id: ServiceId) -> Duration {
        let users = self.books.iter().filter(|(_, book)| book.policy.needs().any(|it| it == id));
        let before = users.map(|(&user, _)| self.stop_takes(user)).max();
        // Where nobody is left nobody has to be waited for.
        let has_workers = self.alive().any(|(_, record)| record.service == id);
        let own = if has_workers { self.books[&id].policy.stop.total() } else { Duration::ZERO };
        before.unwrap_or_default() + own
    }

    /// A lame duck is over.
    pub(crate) fn drain(&mut self, interrupted: bool) {
        self.lame = None;
        self.stop = Stop::Asked { interrupted };
        self.learn_end_of_changes();
    }

    /// Whether a stop was asked for.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop != Stop::No || self.lame.is_some()
    }

    fn learn_worker(&mut self, turn: &mut Turn<'_>, id: WorkerId, event: &WorkerEvent) {
        let now = turn.now;
        let Some(record) = self.workers.get_mut(&id) else {
            return;
        };
        let Some(book) = self.books.get(&record.service) else {
            return;
        };
        let policy = &book.policy;
        if record.stage == Standing::Gone {
            return;
        }
        let served = match record.stage {
            Standing::Starting { .. } => Some(false),
            Standing::Ready => Some(true),
            Standing::Withdrawing { .. }
            | Standing::Emptying { .. }
            | Standing::Leaving { .. }
            | Standing::Told { .. }
            | Standing::Asked { .. }
            | Standing::Orphans { .. }
            | Standing::Killed { .. }
            | Standing::Gone => None,
        };
        match event {
            WorkerEvent::Started { .. } => {
                record.has_run = true;
                if let Standing::Starting { runs, alive, .. } = &mut record.stage {
                    *runs = Some(now);
                    *alive = alive_is_enough(now, policy).filter(|_| {
                        record.channel == Channel::Silent || policy.ready != ReadyWhen::Auto
                    });
                    record.checks = Checks::Rest(now);
                }
            }
            WorkerEvent::SpawnFailed(_) | WorkerEvent::TreeGone => {
                record.stage = Standing::Gone;
                turn.ended.extend(served.map(|ready| (id, ready)));
            }
            WorkerEvent::Exited { left, .. } => {
                record.main_gone = true;
                turn.ended.extend(served.map(|ready| (id, ready)));
                if *left == 0 {
                    record.stage = Standing::Gone;
                } else if let Some(due) = record.stage.orphans_due(now, policy) {
                    turn.orphaned = Some(id);
                    record.stage = Standing::Orphans { due };
                }
            }
            WorkerEvent::SaidReady => {
                if served == Some(false)
                    && matches!(policy.ready, ReadyWhen::Auto | ReadyWhen::Notify)
                {
                    record.stage = Standing::Ready;
                }
            }
            WorkerEvent::Asked
            | WorkerEvent::Listens
            | WorkerEvent::SentReady
            | WorkerEvent::ChannelEnded
            | WorkerEvent::ChannelBroken(_) => {
                let ended = record.learn_channel(now, served, policy, event);
                turn.ended.extend(ended.map(|ready| (id, ready)));
            }
            WorkerEvent::SaidStopping => {
                if served.is_some() || record.stage.waits() {
                    record.channel = Channel::Silent;
                }
                if let Some(ready) = served {
                    turn.ended.insert(id, ready);
                    let due = now + policy.stop.first().wait;
                    record.stage = Standing::Leaving { since: now, due };
                } else if let Standing::Withdrawing { since, .. }
                | Standing::Emptying { since, .. } = record.stage
                {
                    let due = now + policy.stop.first().wait;
                    record.stage = Standing::Leaving { since, due };
                }
            }
            WorkerEvent::SaidExtend(time) => match &mut record.stage {
                Standing::Starting { due, .. }
                | Standing::Leaving { due, .. }
                | Standing::Told { due, .. }
                | Standing::Asked { due, .. }
                | Standing::Orphans { due } => *due = (*due).max(now + (*time).min(EXTEND_MAX)),
                Standing::Ready
                | Standing::Withdrawing { .. }
                | Standing::Emptying { .. }
                | Standing::Killed { .. }
                | Standing::Gone => {}
            },
            WorkerEvent::Probed(sight) => record.learn_sight(now, policy, sight.waiting),
            WorkerEvent::Checked(finding) => {
                record.learn_finding(now, policy, finding);
            }
            WorkerEvent::SaidStatus(_) | WorkerEvent::MainChanged { .. } => {}
        }
    }

    pub(crate) fn alive(&self) -> impl Iterator<Item = (WorkerId, &Record)> {
        self.workers
            .iter()
            .filter(|(_, record)| record.stage != Standing::Gone)
            .map(|(&id, record)| (id, record))
    }

    /// Marks that this has happened.
    pub(crate) fn saw(&mut self, what: &'static str) {
        self.seen.insert(what);
    }

    pub(crate) fn named(&self, id: WorkerId, action: &Action) -> Result<&Record, Violation> {
        let record = self.workers.get(&id).ok_or(format!("S7: {action:?}: never was"))?;
        ensure!(record.stage != Standing::Gone, "S7: {action:?}: is gone");
        Ok(record)
    }

    pub(crate) fn set(&mut self, id: WorkerId, stage: Standing) {
        if let Some(record) = self.workers.get_mut(&id) {
            record.stage = stage;
        }
    }

    pub(crate) fn book_mut(&mut self, name: &str) -> Result<(ServiceId, &mut Book), Violation> {
        let found = self.books.iter_mut().find(|(_, book)| book.policy.name == name);
        found.map(|(&id, book)| (id, book)).ok_or(format!("S7: no service {name}"))
    }
}

/// When being alive will do for a worker whose program runs from now on.
fn alive_is_enough(now: Time, policy: &Policy) -> Option<Time> {
    match policy.ready {
        ReadyWhen::Alive(time) => Some(now + time),
        ReadyWhen::Auto if policy.sockets.is_empty() => Some(now + ASSUMED_AFTER),
        ReadyWhen::Auto
        | ReadyWhen::Notify
        | ReadyWhen::Listen
        | ReadyWhen::Message
        | ReadyWhen::Check(_) => None,
    }
}

impl Record {
    /// It was looked at.
    fn learn_sight(&mut self, now: Time, policy: &Policy, waiting: Waiting) {
        let Standing::Starting { alive, .. } = &mut self.stage else { return };
        match waiting {
            // It says itself when all of them listen.
            Waiting::Seen | Waiting::Unreadable if self.channel == Channel::Speaks => {}
            Waiting::Seen if matches!(policy.ready, ReadyWhen::Auto | ReadyWhen::Listen) => {
                self.stage = Standing::Ready;
            }
            Waiting::Unreadable if policy.ready == ReadyWhen::Auto => {
                *alive = alive.or(Some(now + ASSUMED_AFTER));
            }
            Waiting::Seen | Waiting::NotSeen | Waiting::Unreadable => {}
        }
    }

    /// Something was said over its channel, or that has ended. Tells whether it had been ready, if it
    /// ended by that.
    fn learn_channel(
        &mut self,
        now: Time,
        served: Option<bool>,
        policy: &Policy,
        event: &WorkerEvent,
    ) -> Option<bool> {
        match event {
            WorkerEvent::Asked => {
                if let Standing::Starting { alive, .. } = &mut self.stage {
                    alive.take_if(|_| policy.ready == ReadyWhen::Auto);
                }
                if served.is_some() || self.stage.waits() {
                    self.channel = Channel::Speaks;
                }
                return None;
            }
            WorkerEvent::Listens => {
                let counts = matches!(policy.ready, ReadyWhen::Auto | ReadyWhen::Listen);
                if served == Some(false) && counts {
                    self.stage = Standing::Ready;
                }
                return None;
            }
            WorkerEvent::SentReady => {
                let counts = matches!(policy.ready, ReadyWhen::Auto | ReadyWhen::Message);
                if served == Some(false) && counts {
                    self.stage = Standing::Ready;
                }
                return None;
            }
            _ => {}
        }
        self.channel = Channel::Silent;
        if let Standing::Told { due, heard, .. } = &mut self.stage {
            *due = (*due).min(now + AFTER_CHANNEL);
            *heard = true;
        }
        let ended = served.filter(|_| matches!(event, WorkerEvent::ChannelBroken(_)));
        if ended.is_some() {
            self.stage = Standing::Leaving { since: now, due: now };
        }
        ended
    }

    /// A check has answered, if one was under way.
    fn learn_finding(&mut self, now: Time, policy: &Policy, finding: &Finding) {
        if matches!(self.checks, Checks::Rest(_)) {
            return;
        }
        self.checks = Checks::Rest(now);
        let passed = match (policy.ready.check(), finding) {
            (Some(Check::Tcp), Finding::TookConnection(_)) => true,
            (Some(Check::Http(_)), Finding::Answered { status, .. }) => status / 100 == 2,
            (Some(Check::Exec(_)), Finding::Exited { how, .. }) => *how == Exit::Code(0),
            (_, _) => false,
        };
        if passed && matches!(self.stage, Standing::Starting { .. }) {
            self.stage = Standing::Ready;
        } else {
            self.last_finding = Some(finding.clone());
        }
    }
}

impl Standing {
    /// Whether it starts or can serve.
    pub(crate) fn serves(self) -> bool {
        match self {
            Standing::Starting { .. } | Standing::Ready => true,
            Standing::Withdrawing { .. }
            | Standing::Emptying { .. }
            | Standing::Leaving { .. }
            | Standing::Told { .. }
            | Standing::Asked { .. }
            | Standing::Orphans { .. }
            | Standing::Killed { .. }
            | Standing::Gone => false,
        }
    }

    /// Whether it is to stop and was not asked to yet.
    fn waits(self) -> bool {
        matches!(self, Standing::Withdrawing { .. } | Standing::Emptying { .. })
    }

    /// Until when what a main process left behind has time, where it goes now.
    fn orphans_due(self, now: Time, policy: &Policy) -> Option<Time> {
        match self {
            Standing::Starting { .. }
            | Standing::Ready
            | Standing::Withdrawing { .. }
            | Standing::Emptying { .. } => Some(now + ORPHANS_WAIT),
            // The time that is left of the whole ladder, and what it was granted beyond.
            Standing::Leaving { since, due }
            | Standing::Told { since, due, .. }
            | Standing::Asked { since, due, .. } => {
                Some(due.max(since + policy.stop.total()).max(now + KILL_WAIT))
            }
            Standing::Orphans { .. } | Standing::Killed { .. } | Standing::Gone => None,
        }
    }

    pub(crate) fn shown(self) -> Stage {
        match self {
            Standing::Starting { .. } => Stage::Starting,
            Standing::Ready => Stage::Ready,
            Standing::Withdrawing { .. }
            | Standing::Emptying { .. }
            | Standing::Leaving { .. }
            | Standing::Told { .. }
            | Standing::Asked { .. }
            | Standing::Orphans { .. }
            | Standing::Killed { .. }
            | Standing::Gone => Stage::Draining,
        }
    }
}
