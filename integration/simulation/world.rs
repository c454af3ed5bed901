//! The fake kernel: a virtual clock, workers that live as their fates say, and operators. It
//! performs each action as the real shell would, in order, and tells the core what came of it.
//! One file, since a happening makes sense only beside the action that leads to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use shepherd::core::action::{NewMember, Spawn};
use shepherd::core::configuration::Configuration;
use shepherd::core::event::{
    Exit, Fault, Finding, Grip, Sight, SocketEvent, SpawnFailure, Taker, Used, Waiting,
    WorkerEvent, Wrapped,
};
use shepherd::core::ids::{
    GenerationId, MemberId, Pid, RequestId, ServiceId, SlotId, SocketId, WorkerId,
};
use shepherd::core::notice::Notice;
use shepherd::core::policy::{BoundMember, Check, Policy, ReadyWhen, Signal, Surge};
use shepherd::core::request::Request;
use shepherd::core::stalls::LOOKS_STALLED;
use shepherd::core::time::{Time, Why};
use shepherd::core::{Action, Event, Supervisor};

use crate::fake_network::{AtStop, FakeNetwork, Traffic, spread};
use crate::fake_sockets::FakeSockets;
use crate::fate::{
    Character, Checked, Deed, Exec, Fate, LeftUntil, Look as Sees, Told, Word, ms, policies,
};
use crate::invariants::{Violation, ensure};
use crate::journal::Journal;
use crate::ledger::{IsDue, Ledger};
use crate::life_book::Life;
use crate::requests::{RELOAD, draw};
use crate::script::Script;

mod order;

mod traffic;

mod trials;

use traffic::{Knocks, Stir, WasAsked};

/// How many turns a world may take: a worker that asks for an hour more and is probed every 20 ms takes
/// most of them, all others need far fewer.
const TURNS_MAX: u32 = 400_000;

/// How long a world may last once nothing new goes wrong: longer than all extensions together.
const CALM_MAX: Duration = Duration::from_secs(24 * 3600);

/// After so many looks at queues with nothing between them, what waits there is known to stand still.
const IDLE_LOOKS_MAX: u32 = LOOKS_STALLED + 3;

/// How long a lame duck may take; none at all is the benign one.
const LAME_DUCKS: [Duration; 6] = [ms(0), ms(0), ms(30), ms(0), ms(2000), ms(90_000)];

/// How many workers may run beside others.
const SURGES: [Surge; 8] = [
    Surge::Auto,
    Surge::Count(1),
    Surge::Count(0),
    Surge::Auto,
    Surge::Count(2),
    Surge::Percent(50),
    Surge::Count(1),
    Surge::Percent(100),
];

/// For how many more memory is free.
const ROOMS: [Option<u32>; 6] = [None, Some(1), Some(9), Some(2), Some(0), Some(1)];

/// What a world has shown.
pub(crate) type Sights = BTreeSet<&'static str>;

/// What the core is fed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    Start,
    Event(Event),
    Timeout,
}

/// What is going to happen by itself.
#[derive(Debug, Clone)]
enum Happening {
    Runs(WorkerId),
    SpawnFails(WorkerId),
    Says(WorkerId, WorkerEvent),
    Exits(WorkerId, Exit, u32),
    LeftGone(WorkerId),
    /// The check with this number is answered.
    Checked(WorkerId, u64),
    Freezes(WorkerId),
    Does(WorkerId, Deed),
    /// What was done is answered, or what a worker did is heard.
    Answered(Event),
    /// The same of what is heard in the order in which it happened.
    InOrder(Box<Happening>),
    /// A descriptor or a path of ours has news, if it still has.
    LookedAt(MemberId),
    /// A socket is looked at.
    Inspected(MemberId, Option<WorkerId>),
    /// News of a worker that was underway when it went.
    Echo(WorkerId, WorkerEvent),
    Read(ServiceId, GenerationId, Reading),
    /// Something in the network that the core does not hear of.
    Stirs(Stir),
    Asked(Request),
}

/// What comes of reading a definition, and binding these.
#[derive(Debug, Clone)]
enum Reading {
    Well(Vec<NewMember>),
    Mistake(Vec<NewMember>),
    AddressInUse(Vec<NewMember>),
}

/// A worker's processes, as the kernel knows them.
struct Process {
    service: ServiceId,
    fate: Fate,
    /// The sockets it was given.
    members: Vec<MemberId>,
    main: Main,
    left: u32,
    frozen: bool,
    /// Signals that a frozen process has not seen.
    held: Vec<Signal>,
    heard: u32,
    kills: u32,
    end: End,
    /// When it was told over its channel to leave.
    told: Option<Time>,
    /// The number of the check that is under way.
    check: Option<u64>,
    /// A signal ended it before its program ran; that is not known yet.
    doomed: bool,
    gone: bool,
}

impl Process {
    /// Whether it was told to leave, and got a signal when it had had its time.
    fn is_overdue(&self) -> bool {
        self.told.is_some() && self.heard > 0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Main {
    SettingUp,
    Runs { since: Time },
    Exited,
}

/// How a worker takes no more connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It does.
    No,
    /// It was asked to stop, and obeys.
    AsAsked,
    /// It was told over its channel to leave, and does.
    AsTold,
    /// Its main process exited unasked.
    Unasked,
}

/// What the core hears within the same moment as it wanted to know it.
enum Answer {
    Look(WorkerId),
    Checked(WorkerId, Finding),
    Event(Event),
}

/// Fates that are not left to the script.
pub(crate) type Cast = BTreeMap<(GenerationId, SlotId), Fate>;

/// Everything outside the core.
pub(crate) struct World<'a> {
    now: Time,
    core: Supervisor,
    /// A clone of the core that is fed the same.
    twin: Option<Supervisor>,
    script: Script,
    /// The same for the network.
    net: Script,
    /// And for how many workers memory is free.
    pace: Script,
    network: FakeNetwork,
    knocks: Knocks,
    last_chance: usize,
    /// When the last is heard of that is heard in order.
    last_heard: Time,
    /// How a connection was lost that should not have been.
    lost: Option<Violation>,
    /// Spares that were not bound, until that is heard.
    missing: BTreeMap<MemberId, SocketId>,
    /// What was bound for a reload that has not heard of it.
    unanswered: BTreeSet<MemberId>,
    /// What is answered within the moment, in the order in which it was done.
    answers: VecDeque<Answer>,
    /// How much of what is heard in order is to come.
    outstanding: u32,
    /// How often nothing else happened than that queues were looked at, and whether they are just now.
    idle_looks: u32,
    looks: bool,
    cast: Cast,
    ledger: Ledger,
    policies: BTreeMap<ServiceId, Policy>,
    characters: BTreeMap<(ServiceId, GenerationId), Character>,
    /// Generations that are the same as an earlier one.
    again: BTreeSet<(ServiceId, GenerationId)>,
    processes: BTreeMap<WorkerId, Process>,
    was_ready: BTreeSet<WorkerId>,
    /// How those that were asked to stop do it.
    at_stop: BTreeMap<WorkerId, AtStop>,
    sockets: FakeSockets,
    agenda: BTreeMap<(Time, u64), Happening>,
    last_happening: u64,
    last_request: u64,
    zero_waits: bool,
    last_stop: Request,
    calm_since: Option<Time>,
    stopped: bool,
    journal: &'a mut Journal,
}

/// Plays the world that a script decides, to its end.
pub(crate) fn play(
    mut script: Script,
    mut net: Script,
    mut pace: Script,
    journal: &mut Journal,
) -> Result<Sights, Violation> {
    let mut policies = policies(&mut script);
    let traffic = spread(&mut net, &mut policies);
    trials::decide(&mut net, &mut policies);
    for policy in &mut policies {
        let surge = pace.pick(&SURGES);
        // One that is tried comes at once.
        let is_tried = policy.canary.is_some() || !policy.probation.is_zero();
        policy.surge = if is_tried { Surge::Percent(100) } else { surge };
    }
    journal.write(|| format!("{policies:#?}\n{traffic:#?}"));
    let network = FakeNetwork::new(&policies, traffic);
    let mut world = World::new(policies, script, (net, network), Cast::new(), journal);
    world.pace = pace;
    world.run()
}

/// Plays a world without chance: these fates, these requests.
pub(crate) fn play_cast(
    policy: &Policy,
    traffic: &BTreeMap<ServiceId, Traffic>,
    cast: Cast,
    requests: &[(Duration, Request)],
    journal: &mut Journal,
) -> Result<Sights, Violation> {
    let policies = vec![policy.clone()];
    let network = FakeNetwork::new(&policies, traffic.clone());
    // Connections last as long as in a world by chance, always the same one.
    let net = (if traffic.is_empty() { Script::empty() } else { Script::of_network(0) }, network);
    let mut world = World::new(policies, Script::empty(), net, cast, journal);
    world.knocks = Knocks::Always;
    for (at, request) in requests {
        world.plan(*at, Happening::Asked(request.clone()));
    }
    world.run()
}

impl World<'_> {
    fn new(
        policies: Vec<Policy>,
        mut script: Script,
        (net, network): (Script, FakeNetwork),
        cast: Cast,
        journal: &mut Journal,
    ) -> World<'_> {
        let now = Time::after_origin(ms(1));
        let seed = script.below(255);
        let mut core = Supervisor::new(now, policies.clone(), u64::from(seed));
        // One byte decides both, so that worlds of old keep their meaning.
        let lame_duck = LAME_DUCKS[usize::from(seed) % LAME_DUCKS.len()];
        core.set_lame_duck(lame_duck);
        let mut characters = BTreeMap::new();
        for policy in &policies {
            let character = script.pick(&[
                Character::Mixed,
                Character::Mixed,
                Character::Good,
                Character::Good,
                Character::NonBlocking,
                Character::ExitsAtOnce,
                Character::NeverReady,
                Character::Flaps,
            ]);
            characters.insert((policy.service, GenerationId(1)), character);
        }
        let twin = script.one_in(6).then(|| core.clone());
        let zero_waits = policies.iter().any(|policy| {
            (0..3).filter_map(|rung| policy.stop.step(rung)).any(|step| step.wait.is_zero())
        });
        let sockets = FakeSockets::new(&policies, |socket| network.is_steered(socket));
        let last_stop = match script.below(3) {
            0 => Request::Stop,
            1 => Request::Interrupt,
            _ => Request::StopNow,
        };
        let mut world = World {
            now,
            core,
            twin,
            script,
            net,
            pace: Script::empty(),
            network,
            knocks: Knocks::ByChance,
            last_chance: 0,
            last_heard: now,
            lost: None,
            missing: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            answers: VecDeque::new(),
            outstanding: 0,
            idle_looks: 0,
            looks: false,
            cast,
            ledger: Ledger::new(&policies, lame_duck),
            policies: policies.into_iter().map(|policy| (policy.service, policy)).collect(),
            characters,
            again: BTreeSet::new(),
            processes: BTreeMap::new(),
            was_ready: BTreeSet::new(),
            at_stop: BTreeMap::new(),
            sockets,
            agenda: BTreeMap::new(),
            last_happening: 0,
            last_request: 0,
            zero_waits,
            last_stop,
            calm_since: None,
            stopped: false,
            journal,
        };
        world.bind_first();
        world
    }

    /// Runs until the core says that it is finished.
    fn run(mut self) -> Result<Sights, Violation> {
        self.turn(&Input::Start)?;
        for _ in 0..TURNS_MAX {
            if self.ledger.is_finished() {
                self.check_end()?;
                return Ok(self.ledger.seen);
            }
            self.step()?;
        }
        Err(format!("S10: no end after {TURNS_MAX} turns"))
    }

    /// Whatever comes next: an operator, a happening, or a deadline of the core.
    fn step(&mut self) -> Result<(), Violation> {
        if let Some(result) = self.stir_first() {
            return result;
        }
        if let Some(result) = self.look_at_queues() {
            return result;
        }
        if self.knocks == Knocks::ByChance {
            self.knock();
        }
        if self.script.is_over() {
            let since = *self.calm_since.get_or_insert(self.now);
            // Who has an old socket, and needs one that is stopped, tries again for ever.
            if !self.stopped && self.now.since(since) > CALM_MAX / 2 && self.ledger.lacks_a_need() {
                self.stopped = true;
                self.plan(ms(5), Happening::Asked(Request::StopNow));
            }
            ensure!(
                self.now.since(since) < CALM_MAX,
                "S10: not at rest after {CALM_MAX:?} of calm"
            );
        } else if self.script.one_in(14) {
            self.operate();
        }
        let happening = self.agenda.first_key_value().map(|(&(at, _), _)| at);
        let deadline = self.core.next_deadline().map(|(at, _)| at);
        match (happening, deadline) {
            (None, None) => self.rest(),
            (Some(_), None) => self.happen(),
            (None, Some(deadline)) => self.time_out(deadline),
            (Some(at), Some(deadline)) if at == deadline => {
                if self.script.one_in(2) {
                    self.time_out(deadline)
                } else {
                    self.happen()
                }
            }
            (Some(at), Some(deadline)) if at < deadline => self.happen(),
            // The loop may be late: then what happened meanwhile is heard first.
            (Some(at), Some(deadline)) if at.since(deadline) < ms(60) && self.script.one_in(12) => {
                self.happen()
            }
            (Some(_), Some(deadline)) => self.time_out(deadline),
        }
    }

    /// Queues are looked at as long as a service serves. Chance has no part in it, so that worlds keep
    /// their meaning; and one in which nothing else happens has come to rest when the queues have.
    fn look_at_queues(&mut self) -> Option<Result<(), Violation>> {
        let happening = self.agenda.first_key_value().map(|(&(at, _), _)| at);
        let (deadline, why) = self.core.next_deadline()?;
        if why != Why::Queue || happening.is_some_and(|at| at <= deadline) {
            return None;
        }
        let rests = happening.is_none() && self.core.next_change().is_none();
        self.idle_looks = if rests { self.idle_looks + 1 } else { 0 };
        if self.idle_looks > IDLE_LOOKS_MAX {
            self.idle_looks = 0;
            return Some(self.rest());
        }
        self.now = self.now.max(deadline);
        self.looks = true;
        let result = self.turn(&Input::Timeout);
        self.looks = false;
        Some(result)
    }

    /// Nothing is to come: everything must be as it should, and then the operator stops it.
    fn rest(&mut self) -> Result<(), Violation> {
        self.ledger.check_rest(&self.core.status(self.now))?;
        self.ledger.check_sockets_at_rest(&self.sockets)?;
        self.check_network_at_rest()?;
        ensure!(!self.stopped, "S3: asked to stop, not finished, and nothing will happen any more");
        self.stopped = true;
        self.plan(ms(5), Happening::Asked(self.last_stop.clone()));
        Ok(())
    }

    fn time_out(&mut self, deadline: Time) -> Result<(), Violation> {
        self.now = self.now.max(deadline);
        if self.script.one_in(20) {
            self.now = self.now + Duration::from_micros(300);
        }
        self.turn(&Input::Timeout)?;
        // A rung without a wait may leave a deadline that has come already, but not for long.
        let again_max = if self.zero_waits { 4 } else { 0 };
        for _ in 0..again_max {
            if self.is_due() {
                self.turn(&Input::Timeout)?;
            }
        }
        ensure!(!self.is_due(), "S12: {:?} stays in the past", self.core.next_deadline());
        self.ledger.check_prompt(self.now)
    }

    fn is_due(&self) -> bool {
        self.core.next_deadline().is_some_and(|(at, _)| at <= self.now)
    }

    /// An operator decides to do something soon.
    fn operate(&mut self) {
        let after = ms(self.script.pick(&[0, 0, 1, 5, 20, 300, 2000]));
        let times = if self.script.one_in(30) { 80 } else { 1 + self.script.below(2) };
        let request = draw(&mut self.script, self.ledger.last_worker);
        let times = if request == RELOAD { times } else { times.min(2) };
        if let Request::Reload { .. } = request {
            self.change_their_mind(after);
        }
        for _ in 0..times {
            self.plan(after, Happening::Asked(request.clone()));
        }
        // Who stops a service mostly wants it back, or then tries another, and some change their minds
        // once more.
        if let Request::StopServices(names) = request {
            let pauses = [ms(300), ms(0), ms(5), ms(3000)];
            let start = after + self.script.pick(&pauses);
            let names = || names.clone();
            let starts = if self.script.one_in(3) { vec!["s2".to_owned()] } else { names() };
            self.plan(start, Happening::Asked(Request::StartServices(starts)));
            if self.script.one_in(3) {
                let stop = start + self.script.pick(&[ms(1), ms(20), ms(700)]);
                self.plan(stop, Happening::Asked(Request::StopServices(names())));
            }
        }
    }

    fn happen(&mut self) -> Result<(), Violation> {
        let Some(((at, _), happening)) = self.agenda.pop_first() else {
            return Ok(());
        };
        self.now = self.now.max(at);
        self.happen_now(happening)
    }

    fn happen_now(&mut self, happening: Happening) -> Result<(), Violation> {
        match happening {
            Happening::Runs(worker) => self.runs(worker),
            Happening::SpawnFails(worker) => self.spawn_fails(worker),
            Happening::Says(worker, event) => {
                let heard = self.processes.get(&worker).is_some_and(|process| {
                    !process.gone && !process.frozen && process.main != Main::Exited
                });
                if heard { self.tell(worker, event) } else { Ok(()) }
            }
            Happening::Exits(worker, how, left) => self.exits(worker, how, left),
            Happening::LeftGone(worker) => match self.processes.get_mut(&worker) {
                Some(process) if process.main == Main::Exited && !process.gone => {
                    process.left = 0;
                    self.goes(worker);
                    self.tell(worker, WorkerEvent::TreeGone)
                }
                Some(_) | None => Ok(()),
            },
            Happening::Checked(worker, number) => {
                let Some(process) = self.processes.get_mut(&worker) else {
                    return Ok(());
                };
                if process.check != Some(number) || process.gone {
                    return Ok(());
                }
                process.check = None;
                let finding = self.finding(worker);
                self.tell(worker, WorkerEvent::Checked(finding))
            }
            Happening::Freezes(worker) => {
                if let Some(process) = self.processes.get_mut(&worker) {
                    process.frozen = process.main != Main::Exited;
                }
                Ok(())
            }
            Happening::LookedAt(member) => match self.sockets.broken(member) {
                Some(event) => self.turn(&Input::Event(Event::Socket(member, event))),
                None => Ok(()),
            },
            Happening::Does(worker, deed) => {
                if let Some(process) = self.processes.get(&worker)
                    && process.main != Main::Exited
                    && !process.frozen
                {
                    let members = process.members.clone();
                    if deed == Deed::ShutDown {
                        self.shut_all_down(&members, WasAsked::No);
                    } else {
                        for member in self.sockets.suffer(&members, deed) {
                            let after = ms(u64::from(self.script.below(2)));
                            self.plan(after, Happening::LookedAt(member));
                        }
                    }
                }
                self.check_lost()
            }
            Happening::Answered(event) => self.turn(&Input::Event(event)),
            Happening::Inspected(member, by) => {
                self.look_at_socket(member, by);
                self.hear_answers()
            }
            Happening::InOrder(happening) => self.happen_in_order(*happening),
            Happening::Stirs(stir) => self.stir(stir),
            Happening::Echo(worker, event) => self.tell(worker, event),
            Happening::Read(service, generation, reading) => {
                let unbound;
                let fault = match reading {
                    Reading::Well(bind) => {
                        self.unanswered.retain(|it| bind.iter().all(|new| new.member != *it));
                        let bound = bind.into_iter().map(|NewMember { socket, member, .. }| {
                            BoundMember { member, name: format!("socket {socket} again") }
                        });
                        let bound = bound.collect();
                        let event = Event::Prepared { service, generation, bound, by_path: None };
                        return self.turn(&Input::Event(event));
                    }
                    Reading::Mistake(bind) => {
                        unbound = bind;
                        Fault::Definition("cannot read `s.yaml`: no such file".to_owned())
                    }
                    Reading::AddressInUse(bind) => {
                        unbound = bind;
                        Fault::Sockets("cannot bind `[::]:80`: nginx has it".to_owned())
                    }
                };
                let event = Event::PrepareFailed { service, generation, fault };
                self.turn(&Input::Event(event))?;
                self.unbind(unbound.iter().map(|new| (new.socket, new.slot)));
                self.check_groups()
            }
            Happening::Asked(request) => {
                if let Request::Signal { worker, .. } = &request {
                    self.taint(*worker);
                }
                self.last_request += 1;
                self.turn(&Input::Event(Event::Requested(RequestId(self.last_request), request)))
            }
        }
    }

    fn tell(&mut self, worker: WorkerId, event: WorkerEvent) -> Result<(), Violation> {
        self.turn(&Input::Event(Event::Worker(worker, event)))
    }

    fn plan(&mut self, after: Duration, happening: Happening) {
        self.last_happening += 1;
        self.agenda.insert((self.now + after, self.last_happening), happening);
    }

    /// Feeds the core once, performs what it wants, and checks everything. Looks are answered
    /// within the same moment.
    fn turn(&mut self, input: &Input) -> Result<(), Violation> {
        self.hear(input)?;
        self.hear_answers()
    }

    /// What is answered at once is heard in the order in which it was done.
    fn hear_answers(&mut self) -> Result<(), Violation> {
        while let Some(answer) = self.answers.pop_front() {
            let event = match answer {
                Answer::Look(worker) => {
                    let sight = self.look(worker);
                    Event::Worker(worker, WorkerEvent::Probed(sight))
                }
                Answer::Checked(worker, finding) => {
                    Event::Worker(worker, WorkerEvent::Checked(finding))
                }
                Answer::Event(event) => event,
            };
            self.hear(&Input::Event(event))?;
        }
        self.check_groups()?;
        self.ledger.check_sockets(&self.sockets)
    }

    /// Feeds the core once, and performs what it wants.
    fn hear(&mut self, input: &Input) -> Result<(), Violation> {
        let now = self.now;
        self.journal.write(|| format!("{now:?} <- {input:?}"));
        let is_due = if self.is_due() { IsDue::Yes } else { IsDue::No };
        feed(&mut self.core, now, input);
        let actions: Vec<Action> = std::iter::from_fn(|| self.core.poll_action()).collect();
        for action in &actions {
            self.journal.write(|| format!("{now:?}     -> {action:?}"));
        }
        if let Some(twin) = &mut self.twin {
            feed(twin, now, input);
            let same = std::iter::from_fn(|| twin.poll_action()).eq(actions.iter().cloned());
            ensure!(same, "S15: a clone that was fed the same does otherwise");
        } else if !self.looks && !self.script.is_over() && self.script.one_in(250) {
            self.twin = Some(self.core.clone());
        }
        self.ledger.turn((now, is_due), input, &actions, &self.core)?;
        for action in actions {
            self.knock();
            self.perform(action);
        }
        self.knock();
        if let Input::Event(Event::Socket(member, event)) = input {
            self.heard(*member, event);
        }
        if let Input::Event(Event::SparesBound { members, failure: Some(_), .. }) = input {
            self.spares_not_bound(members);
        }
        if let Input::Event(Event::SlotNotBound { service, generation, slot, .. }) = input {
            self.slot_not_bound(*service, *generation, *slot);
        }
        Ok(())
    }

    /// Does it.
    fn perform(&mut self, action: Action) {
        match action {
            Action::Prepare { service, generation, like, bind } => {
                self.prepare(service, generation, like, bind);
            }
            Action::Spawn(spawn) => self.spawn(&spawn),
            Action::Probe(worker) => self.answers.push_back(Answer::Look(worker)),
            Action::Check(worker) => self.begin_check(worker),
            Action::EndCheck(worker) => {
                let answer = self.end_check(worker);
                self.answers.extend(answer);
            }
            Action::Inspect { member, by } => {
                self.inspect(member, by);
            }
            Action::Listen(member) => self.listen(member),
            Action::StopListening(member) => self.stop_listening(member),
            Action::Renew { from, to } => {
                if let Some(answer) = self.sockets.renew(from, to, &mut self.script) {
                    self.answer(Event::Socket(from, answer));
                }
            }
            Action::BindSlot { service, generation, slot, members } => {
                let event = self.bind_slot(service, generation, slot, members);
                if self.script.one_in(3) {
                    let after = ms(self.script.pick(&[1, 0, 40]));
                    self.plan_in_order(after, Happening::Answered(event));
                } else {
                    self.answer(event);
                }
            }
            Action::Publish { service, number, .. } => {
                let failed = self.script.one_in(4);
                let failure = failed.then(|| "`nginx -s reload` exited with code 1".to_owned());
                let event = Event::Published { service, number, failure };
                // The last of these comes after it was given up.
                let after = ms(self.script.pick(&[10, 0, 1, 300, 12_000]));
                self.plan(after, Happening::Answered(event));
            }
            Action::FindHolders { member, workers, .. } => {
                let grips = workers.into_iter().filter(|worker| self.runs_main(*worker));
                let grips: Vec<WorkerId> = grips.collect();
                let grip = [Grip::Waits, Grip::Waits, Grip::LetGo, Grip::Idle, Grip::Unreadable];
                let grips = grips.into_iter().map(|worker| (worker, self.script.pick(&grip)));
                let held = SocketEvent::Held(grips.collect());
                self.answers.push_back(Answer::Event(Event::Socket(member, held)));
            }
            Action::SetMode(member, mode) => self.sockets.set_mode(member, mode),
            Action::Close(member) => {
                self.close(member);
                self.answer_close(member);
            }
            Action::Disconnect(worker) => self.disconnect(worker),
            Action::Signal(worker, signal) => self.signal(worker, signal),
            Action::SignalTree(worker, signal) => self.signal_tree(worker, signal),
            Action::KillTree(worker) => self.kill_tree(worker),
            Action::Notice(Notice::Unkillable { worker }) => {
                if let Some(process) = self.processes.get_mut(&worker.worker) {
                    process.gone = true;
                }
                self.release();
            }
            Action::ReadConfiguration { request, services, .. } => {
                let is_meant = |policy: &&Policy| {
                    services.as_ref().is_none_or(|services| services.contains(&policy.service))
                };
                let services = self.policies.values().filter(is_meant).cloned().collect();
                let configuration = Configuration { services, removed: Vec::new() };
                let event = Event::ConfigurationRead { request, configuration };
                self.answers.push_back(Answer::Event(event));
            }
            Action::BindSpares { service, members } => self.answer_spares(service, &members),
            // Who is given connections has nothing to do.
            Action::Rotate { .. } => {}
            Action::Weigh { service, generation, .. } => self.weigh(service, generation),
            Action::LookAtDrain { service, look } => self.look_at_drain(service, look),
            Action::LookAtQueues { service, members } => {
                let members = self.look_at_members(&members);
                self.answers.push_back(Answer::Event(Event::QueuesSeen { service, members }));
            }
            Action::Steer { group, shares } => {
                self.changes_group(group);
                self.network.groups.attach(group, &shares);
            }
            Action::Notice(Notice::Ready { worker, .. }) => {
                self.was_ready.insert(worker.worker);
            }
            Action::Notice(Notice::Proving { service, what }) => {
                self.put_to_the_test(&service, &what);
            }
            Action::Notice(Notice::Manners { service, manners }) => {
                self.check_manners(&service, manners);
            }
            Action::EndPublish { .. }
            | Action::Remove(_)
            | Action::Forget { .. }
            | Action::Respond(..)
            | Action::Announce(_)
            | Action::Notice(_)
            | Action::Finish => {}
        }
    }

    fn answer_spares(&mut self, service: ServiceId, members: &[NewMember]) {
        let event = self.bind_spares(service, members);
        let after = ms(self.net.pick(&[0, 0, 1, 40]));
        self.plan_in_order(after, Happening::Answered(event));
    }

    fn weigh(&mut self, service: ServiceId, generation: GenerationId) {
        let room = self.pace.pick(&ROOMS);
        let event = Event::Weighed { service, generation, room };
        match self.pace.pick(&[0, 0, 3, 60]) {
            0 => self.answers.push_back(Answer::Event(event)),
            after => self.plan(ms(after), Happening::Answered(event)),
        }
    }

    fn bind_slot(
        &mut self,
        service: ServiceId,
        generation: Option<GenerationId>,
        slot: SlotId,
        members: Vec<(SocketId, MemberId)>,
    ) -> Event {
        if self.script.one_in(3) {
            let reason = "cannot bind `[::]:8003`: the address is in use".to_owned();
            self.doubt(members.iter().map(|&(socket, _)| (socket, Some(slot))));
            return Event::SlotNotBound { service, generation, slot, reason };
        }
        let bound = members.into_iter().map(|(socket, member)| {
            self.bind(socket, Some(slot), member);
            (socket, BoundMember { member, name: format!("port of slot {slot}") })
        });
        let members = bound.collect();
        Event::SlotBound { service, generation, slot, members }
    }

    fn runs_main(&self, worker: WorkerId) -> bool {
        self.processes.get(&worker).is_some_and(|process| process.main != Main::Exited)
    }

    fn prepare(
        &mut self,
        service: ServiceId,
        generation: GenerationId,
        like: Option<GenerationId>,
        bind: Vec<NewMember>,
    ) {
        if let Some(like) = like {
            let character = self.characters[&(service, like)];
            self.characters.insert((service, generation), character);
            self.again.insert((service, generation));
            let reading = if !bind.is_empty() && self.net.one_in(8) {
                self.doubt(bind.iter().map(|new| (new.socket, new.slot)));
                Reading::AddressInUse(bind)
            } else {
                self.bind_all(&bind);
                Reading::Well(bind)
            };
            let after = ms(self.net.pick(&[0, 0, 1, 40]));
            return self.plan_in_order(after, Happening::Read(service, generation, reading));
        }
        let character = self.script.pick(&[
            Character::Good,
            Character::Good,
            Character::NonBlocking,
            Character::Mixed,
            Character::Mixed,
            Character::ExitsAtOnce,
            Character::NeverReady,
            Character::Flaps,
        ]);
        self.characters.insert((service, generation), character);
        let places = || bind.iter().map(|new| (new.socket, new.slot)).collect::<Vec<_>>();
        let starts = matches!(self.ledger.books[&service].life, Life::Reviving(..));
        let fails = self.script.one_in(8) | (starts && self.net.one_in(4));
        let reading = if fails {
            self.doubt(places().into_iter());
            Reading::Mistake(bind)
        } else if !bind.is_empty() && self.script.one_in(6) {
            self.doubt(places().into_iter());
            Reading::AddressInUse(bind)
        } else {
            self.bind_all(&bind);
            Reading::Well(bind)
        };
        let after = ms(self.script.pick(&[1, 0, 0, 40, 1500]));
        match &reading {
            // Where nothing was to be bound, reading takes its time.
            Reading::Mistake(bind) if bind.is_empty() => {
                self.plan(after, Happening::Read(service, generation, reading));
            }
            Reading::Well(bind) if bind.is_empty() => {
                self.plan(after, Happening::Read(service, generation, reading));
            }
            Reading::Well(_) | Reading::Mistake(_) | Reading::AddressInUse(_) => {
                self.plan_in_order(after, Happening::Read(service, generation, reading));
            }
        }
    }

    fn spawn(&mut self, spawn: &Spawn) {
        let worker = spawn.worker;
        let mut character = self.characters[&(spawn.service, spawn.generation)];
        if self.script.is_over() {
            character = Character::Good;
        }
        let policy = &self.policies[&spawn.service];
        let mut fate = match self.cast.remove(&(spawn.generation, spawn.slot)) {
            Some(fate) => fate,
            None => Fate::decide(&mut self.script, character, policy),
        };
        if self.again.contains(&(spawn.service, spawn.generation)) {
            self.fail_again(&mut fate);
        }
        match fate.exec {
            Exec::Runs(after) => self.plan(after, Happening::Runs(worker)),
            Exec::Fails(after) => self.plan(after, Happening::SpawnFails(worker)),
        }
        let process = Process {
            service: spawn.service,
            fate,
            members: spawn.members.clone(),
            main: Main::SettingUp,
            left: 0,
            frozen: false,
            held: Vec::new(),
            heard: 0,
            kills: 0,
            end: End::No,
            told: None,
            check: None,
            doomed: false,
            gone: false,
        };
        let faulty = process.fate.faulty;
        self.processes.insert(worker, process);
        if faulty {
            self.taint(worker);
        }
    }

    fn runs(&mut self, worker: WorkerId) -> Result<(), Violation> {
        let Some(process) = self.processes.get_mut(&worker) else {
            return Ok(());
        };
        if process.main != Main::SettingUp || process.gone || process.doomed {
            return Ok(());
        }
        process.main = Main::Runs { since: self.now };
        let fate = process.fate.clone();
        if fate.word == Word::BeforeStarted {
            self.tell(worker, WorkerEvent::SaidReady)?;
        }
        if let Some(after) = fate.able
            && fate.word == Word::Says
        {
            self.plan(after, Happening::Says(worker, WorkerEvent::SaidReady));
        }
        for (after, event) in fate.says {
            self.plan(after, Happening::Says(worker, event));
        }
        for (after, deed) in fate.deeds {
            self.plan(after, Happening::Does(worker, deed));
        }
        if let Some((after, code)) = fate.exit {
            self.plan(after, Happening::Exits(worker, Exit::Code(code), fate.left));
        }
        if let Some(after) = fate.frozen {
            self.plan(after, Happening::Freezes(worker));
        }
        self.can_accept(worker);
        let pid = Pid(u32::try_from(worker.0).unwrap_or(0) + 1000);
        self.tell(worker, WorkerEvent::Started { pid })
    }

    fn spawn_fails(&mut self, worker: WorkerId) -> Result<(), Violation> {
        match self.processes.get(&worker) {
            Some(process) if process.main == Main::SettingUp && !process.gone => {
                self.goes(worker);
                let reason = "setuid to `www-data`: EPERM".to_owned();
                self.tell(worker, WorkerEvent::SpawnFailed(SpawnFailure { reason }))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn exits(&mut self, worker: WorkerId, how: Exit, left: u32) -> Result<(), Violation> {
        let Some(process) = self.processes.get_mut(&worker) else {
            return Ok(());
        };
        let runs = match process.main {
            Main::Runs { .. } => true,
            Main::SettingUp | Main::Exited => false,
        };
        // A stopped process does nothing, and so it does not exit by itself either.
        if !runs || process.gone || (process.frozen && how != Exit::KILLED) {
            return Ok(());
        }
        process.main = Main::Exited;
        process.left = left;
        self.leaves_unasked(worker);
        self.cut(worker);
        let Some(process) = self.processes.get(&worker) else { return Ok(()) };
        if left == 0 {
            self.goes(worker);
        } else if let LeftUntil::Later(after) = process.fate.left_until {
            self.plan(after, Happening::LeftGone(worker));
        }
        // Nothing is decided by it, so that it is there or not by turns.
        let processor = self.now.since(Time::ZERO);
        let used = worker.0.is_multiple_of(2).then_some(Used { processor, memory_most: None });
        self.tell(worker, WorkerEvent::Exited { how, left, used })
    }

    fn goes(&mut self, worker: WorkerId) {
        if let Some(process) = self.processes.get_mut(&worker) {
            process.gone = true;
        }
        self.release();
        if !self.script.is_over() && self.script.one_in(10) {
            let event = match self.script.below(6) {
                0 => WorkerEvent::Listens,
                1 => WorkerEvent::SaidStopping,
                2 => WorkerEvent::SaidExtend(ms(1000)),
                3 => WorkerEvent::SaidStatus("bye".to_owned()),
                4 => WorkerEvent::Checked(Finding::TookConnection(Taker::Itself)),
                _ => WorkerEvent::MainChanged { pid: Pid(7) },
            };
            self.plan(ms(1), Happening::Echo(worker, event));
        }
    }

    fn look(&self, worker: WorkerId) -> Sight {
        let nothing = Sight { waiting: Waiting::NotSeen, wrapped: None };
        let Some(Process { fate, main: Main::Runs { since }, frozen, .. }) =
            self.processes.get(&worker)
        else {
            return nothing;
        };
        match fate.look {
            Sees::Unreadable => Sight { waiting: Waiting::Unreadable, wrapped: None },
            Sees::Wrapped => Sight {
                waiting: Waiting::NotSeen,
                wrapped: Some(Wrapped { pid: Pid(5), name: "sh".to_owned() }),
            },
            Sees::Clear => match fate.able {
                Some(able) if *since + able <= self.now && !frozen => {
                    Sight { waiting: Waiting::Seen, wrapped: None }
                }
                Some(_) | None => nothing,
            },
        }
    }

    fn begin_check(&mut self, worker: WorkerId) {
        self.last_happening += 1;
        let number = self.last_happening;
        if let Some(process) = self.processes.get_mut(&worker) {
            process.check = Some(number);
            if let Checked::After(after, _) = process.fate.check {
                self.plan(after, Happening::Checked(worker, number));
            }
        }
    }

    fn end_check(&mut self, worker: WorkerId) -> Option<Answer> {
        let process = self.processes.get_mut(&worker)?;
        process.check.take()?;
        match process.fate.check {
            Checked::Lost => None,
            Checked::After(..) | Checked::Hangs => {
                Some(Answer::Checked(worker, Finding::Unanswered { bytes: 0 }))
            }
        }
    }

    /// What a check of the worker sees.
    fn finding(&self, worker: WorkerId) -> Finding {
        let process = &self.processes[&worker];
        let able = match (process.main, process.fate.able) {
            (Main::Runs { since }, Some(able)) => since + able <= self.now && !process.frozen,
            (Main::Runs { .. }, None) | (Main::SettingUp | Main::Exited, _) => false,
        };
        let by = match process.fate.check {
            Checked::After(_, by) => by,
            Checked::Hangs | Checked::Lost => Taker::Unseen,
        };
        match (&self.policies[&process.service].ready, able) {
            (ReadyWhen::Check(Check::Tcp), true) => Finding::TookConnection(by),
            (ReadyWhen::Check(Check::Tcp), false) => Finding::TakenByOthers,
            (ReadyWhen::Check(Check::Exec(_)), able) => {
                let how = Exit::Code(i32::from(!able));
                Finding::Exited { how, said: Some("well".to_owned()) }
            }
            (_, able) => Finding::Answered { status: if able { 204 } else { 503 }, by },
        }
    }

    /// It is told over its channel to leave.
    fn disconnect(&mut self, worker: WorkerId) {
        if !self.was_ready.contains(&worker) {
            self.taint(worker);
        }
        let now = self.now;
        let Some(process) = self.processes.get_mut(&worker) else { return };
        process.told = Some(now);
        if let Main::Runs { .. } = process.main
            && process.fate.told != Told::Deaf
        {
            self.leave_as_told(worker);
        }
    }

    fn signal(&mut self, worker: WorkerId, signal: Signal) {
        if !self.was_ready.contains(&worker) {
            self.taint(worker);
        }
        let Some(process) = self.processes.get_mut(&worker) else {
            return;
        };
        match process.main {
            // Only what ends a process by default has an effect on one that is still ours.
            Main::SettingUp => {
                if signal != Signal::Cont && signal != Signal::Winch {
                    process.doomed = true;
                    self.plan(ms(1), Happening::SpawnFails(worker));
                }
            }
            Main::Runs { .. } => {
                process.held.push(signal);
                if signal == Signal::Cont {
                    process.frozen = false;
                }
                if !process.frozen {
                    let heard = process.held.drain(..).filter(|&held| held != Signal::Cont);
                    process.heard += u32::try_from(heard.count()).unwrap_or(0);
                    if process.fate.obeys.is_some_and(|obeys| process.heard >= obeys) {
                        self.obey(worker, signal);
                    }
                }
            }
            Main::Exited => {}
        }
    }

    fn signal_tree(&mut self, worker: WorkerId, signal: Signal) {
        if let Some(process) = self.processes.get(&worker)
            && signal != Signal::Cont
            && let LeftUntil::Signal(after) = process.fate.left_until
        {
            self.plan(after, Happening::LeftGone(worker));
        }
    }

    fn kill_tree(&mut self, worker: WorkerId) {
        let Some(process) = self.processes.get_mut(&worker) else {
            return;
        };
        process.kills += 1;
        let escapes = process.fate.escapes;
        let caught = process.kills > escapes;
        let after = ms(u64::from(self.script.below(3)));
        match process.main {
            Main::SettingUp => {
                process.doomed = true;
                self.plan(after, Happening::SpawnFails(worker));
            }
            // A process that hangs in the kernel is not even reaped.
            Main::Runs { .. } if escapes == u32::MAX => {}
            Main::Runs { .. } => {
                let one_by_one = self.script.one_in(4);
                let left = u32::from(!caught || one_by_one);
                self.plan(after, Happening::Exits(worker, Exit::KILLED, left));
                if caught && one_by_one {
                    self.plan(after + ms(1), Happening::LeftGone(worker));
                }
            }
            Main::Exited if caught => self.plan(after, Happening::LeftGone(worker)),
            Main::Exited => {}
        }
    }

    /// After Finish: nobody is alive, nobody waits.
    fn check_end(&self) -> Result<(), Violation> {
        let alive: BTreeSet<&WorkerId> = self
            .processes
            .iter()
            .filter(|(_, process)| !process.gone)
            .map(|(worker, _)| worker)
            .collect();
        ensure!(alive.is_empty(), "S5: finished, and {alive:?} are alive");
        let open = self.sockets.open().filter(|member| !self.unanswered.contains(member));
        let open: Vec<MemberId> = open.collect();
        ensure!(open.is_empty(), "S1: finished, and {open:?} are open");
        ensure!(self.core.next_deadline().is_none(), "S12: finished, and there is a deadline");
        self.ledger.check_end()
    }
}

fn feed(core: &mut Supervisor, now: Time, input: &Input) {
    match input {
        Input::Start => {}
        Input::Event(event) => core.handle_event(now, event.clone()),
        Input::Timeout => core.handle_timeout(now),
    }
}
