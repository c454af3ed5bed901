//! Worlds whose configuration changes: services come, go and need others, sockets are bound and closed,
//! while workers fail, reloads are queued and everything is stopped in between. The workers are simple
//! ones; what they may do besides is for the other worlds. One file, since each promise reads what the
//! world beside it does.
//!
//! - D1 No worker starts before all that its definition needs have been ready together once.
//! - D2 After every turn exactly those sockets of a service are open that a definition names which
//!   serves, is to serve, is to be the next or has workers; none is closed and opened again. A worker
//!   gets those of its own definition, in their order.
//! - D3 A configuration that cannot be read or bound changes nothing.
//! - D4 A service that is gone is asked to stop when no definition in use needs it, not before and at
//!   once then, and nothing of it is left when it is forgotten. Those that are gone and need each other
//!   in a circle are asked together, when nobody else needs them.
//! - D5 When everything stops, a service is asked to when nothing is left of those that need it, unless
//!   they need each other in a circle or are killed.
//! - D6 A number of workers that the configuration changes holds from the commit on, until an operator
//!   asks for another; one that it does not change leaves what an operator asked for alone.
//! - D7 Each request is answered once; a reload that is done has brought what was read for it.
//! - D8 When faults stop, one more reload makes everything as the configuration says, and the world
//!   comes to rest.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use shepherd::core::action::Spawn;
use shepherd::core::configuration::Configuration;
use shepherd::core::event::{Exit, Fault, SpawnFailure, WorkerEvent};
use shepherd::core::ids::{GenerationId, MemberId, Pid, RequestId, ServiceId, SocketId, WorkerId};
use shepherd::core::notice::{ConfigurationNotice, Notice};
use shepherd::core::policy::{
    BeforeStop, CheckPace, KeepAlive, Members, OnFailing, Policy, ReadyWhen, Signal, Socket,
    StopLadder, StopStep, Surge,
};
use shepherd::core::refusal::Refusal;
use shepherd::core::request::{Behind, End, Part, Request, Response, Scale, Scope};
use shepherd::core::time::Time;
use shepherd::core::{Action, Event, Supervisor};

use crate::fate::ms;
use crate::invariants::{Violation, ensure};
use crate::journal::Journal;
use crate::script::Script;

/// How many worlds are played.
const SEEDS: u64 = 2000;

/// How many turns a world may take: far more than any has needed.
const TURNS_MAX: u32 = 40_000;

/// How many services a configuration may have.
const SERVICES_MAX: usize = 5;

/// What the worlds must show at least once, or they prove less than they seem to.
const SIGHTS: &[&str] = &[
    "a change aborted",
    "a change committed",
    "a change queued",
    "a change taken over by one that waits",
    "a circle of what serves",
    "a configuration refused",
    "a failed start of one that was added",
    "a reload held",
    "a scale kept",
    "a service added",
    "a service removed",
    "a service that had to stay",
    "a socket bound",
    "a socket closed by a commit",
    "a socket closed by an abort",
    "a stop in order",
    "a stop with services that leave",
    "workers changed by the file",
];

#[test]
fn every_change_of_the_configuration_keeps_every_promise() {
    let seeds = crate::number("SIMULATION_SEEDS").unwrap_or(SEEDS);
    if let Some(seed) = crate::number("CONFIGURATION_SEED") {
        check_seed(seed);
        return;
    }
    let seen: BTreeSet<&str> = (0..seeds).flat_map(check_seed).collect();
    let missed: Vec<_> = SIGHTS.iter().filter(|sight| !seen.contains(*sight)).collect();
    assert!(seeds < SEEDS || missed.is_empty(), "no world showed {missed:?}");
}

fn check_seed(seed: u64) -> BTreeSet<&'static str> {
    let play = |journal: &mut Journal| {
        let played =
            catch_unwind(AssertUnwindSafe(|| World::new(Script::from_seed(seed), journal).run()));
        played.unwrap_or_else(|_| Err("it panics".to_owned()))
    };
    play(&mut Journal::silent()).unwrap_or_else(|violation| {
        let mut journal = Journal::kept();
        let again = play(&mut journal).err();
        let story = journal.text();
        panic!("CONFIGURATION_SEED={seed}\n{story}\n{violation}\nplayed again: {again:?}");
    })
}

/// A service, as the world knows it.
struct Known {
    /// Only those of a lower rank are needed, so that no configuration has a circle.
    rank: u8,
    /// What it is to be, as it was read last, and how often that was.
    told: Policy,
    told_count: u64,
    /// Whether that waits for its turn.
    is_next: bool,
    serving: GenerationId,
    rolling: Option<GenerationId>,
    policies: BTreeMap<GenerationId, Policy>,
    wanted: u32,
    /// Of the reload under way, where the configuration changes it.
    wanted_next: Option<u32>,
    is_up: bool,
    stands: Stands,
}

/// Where a service stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    Configured,
    /// It is in the configuration no more.
    Leaving,
    /// It was asked to stop because of that.
    Dismissed,
}

struct Worker {
    service: ServiceId,
    generation: GenerationId,
    runs: bool,
    /// It takes so long to obey; never where it does not.
    obeys: Option<Duration>,
    is_asked: bool,
    is_gone: bool,
}

enum Happening {
    Runs(WorkerId),
    SpawnFails(WorkerId),
    Ready(WorkerId),
    Exits(WorkerId, Exit),
    Read(ServiceId, GenerationId, bool),
    Asked(Request),
}

struct World<'a> {
    now: Time,
    core: Supervisor,
    script: Script,
    services: BTreeMap<ServiceId, Known>,
    workers: BTreeMap<WorkerId, Worker>,
    open: BTreeMap<MemberId, ServiceId>,
    closed: BTreeSet<MemberId>,
    last_service: u32,
    agenda: BTreeMap<(Time, u64), Happening>,
    last_happening: u64,
    last_request: u64,
    requests: BTreeSet<RequestId>,
    /// What was read for a reload, and how often that service had been read for by then.
    read_for: BTreeMap<RequestId, Vec<(ServiceId, u64)>>,
    stops: Stops,
    ends: Ends,
    is_finished: bool,
    seen: BTreeSet<&'static str>,
    journal: &'a mut Journal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stops {
    No,
    Asked,
    Killed,
}

/// How far the end has come, once faults have stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    No,
    LastReload,
    Stop,
}

impl World<'_> {
    fn new(mut script: Script, journal: &mut Journal) -> World<'_> {
        let now = Time::after_origin(ms(1));
        let mut services: BTreeMap<ServiceId, Known> = BTreeMap::new();
        let mut open = BTreeMap::new();
        let mut last_socket = 0;
        let count = script.pick(&[2, 1, 3]);
        for number in 1..=count {
            let id = ServiceId(number);
            let rank = script.below(250);
            let mut policy = policy(id, script.pick(&[1, 2, 3]));
            for _ in 0..script.pick(&[1, 0, 2]) {
                last_socket += 1;
                policy.sockets.push(socket(last_socket));
                open.insert(MemberId(last_socket), id);
            }
            let others = services.iter().map(|(&id, known)| (id, known.rank)).collect::<Vec<_>>();
            needs(&mut script, &mut policy, rank, &others);
            services.insert(id, Known { told_count: 1, ..Known::new(policy, rank) });
        }
        let policies = services.values().map(|known| known.told.clone()).collect();
        let core = Supervisor::new(now, policies, 1);
        World {
            now,
            core,
            script,
            services,
            workers: BTreeMap::new(),
            open,
            closed: BTreeSet::new(),
            last_service: count,
            agenda: BTreeMap::new(),
            last_happening: 0,
            last_request: 0,
            requests: BTreeSet::new(),
            read_for: BTreeMap::new(),
            stops: Stops::No,
            ends: Ends::No,
            is_finished: false,
            seen: BTreeSet::new(),
            journal,
        }
    }

    fn run(mut self) -> Result<BTreeSet<&'static str>, Violation> {
        self.settle()?;
        for _ in 0..TURNS_MAX {
            if self.is_finished {
                let left: Vec<_> =
                    self.workers.iter().filter(|(_, it)| !it.is_gone).map(|(id, _)| id).collect();
                ensure!(left.is_empty(), "finished, and {left:?} live");
                ensure!(self.open.is_empty(), "finished, and {:?} are open", self.open);
                ensure!(self.requests.is_empty(), "D7: {:?} unanswered", self.requests);
                return Ok(self.seen);
            }
            self.step()?;
        }
        Err(format!("D8: no end after {TURNS_MAX} turns"))
    }

    fn step(&mut self) -> Result<(), Violation> {
        if !self.script.is_over() && self.script.one_in(6) {
            self.operate();
        }
        let happening = self.agenda.first_key_value().map(|(&(at, _), _)| at);
        let deadline = self.core.next_deadline().map(|(at, _)| at);
        match (happening, deadline) {
            (None, None) => self.rest(),
            (Some(at), deadline) if deadline.is_none_or(|deadline| at <= deadline) => {
                let Some(((at, _), happening)) = self.agenda.pop_first() else { return Ok(()) };
                self.now = self.now.max(at);
                self.happen(happening)
            }
            (_, Some(deadline)) => {
                self.now = self.now.max(deadline);
                let now = self.now;
                self.journal.write(|| format!("{now:?} <- timeout"));
                self.core.handle_timeout(now);
                self.settle()
            }
            (Some(_), None) => Ok(()),
        }
    }

    /// Nothing is to come by itself.
    fn rest(&mut self) -> Result<(), Violation> {
        ensure!(self.stops == Stops::No, "D8: everything stops, and nothing is to come");
        match self.ends {
            Ends::No => {
                self.ends = Ends::LastReload;
                // Nothing goes wrong any more.
                self.script = Script::empty();
                self.plan(ms(1), Happening::Asked(reload(Scope::All)));
                Ok(())
            }
            Ends::LastReload => {
                self.check_rest()?;
                self.ends = Ends::Stop;
                self.plan(ms(1), Happening::Asked(Request::Stop));
                Ok(())
            }
            Ends::Stop => Err("D8: the stop leads to nothing".to_owned()),
        }
    }

    fn check_rest(&self) -> Result<(), Violation> {
        ensure!(self.requests.is_empty(), "D7: unanswered at rest: {:?}", self.requests);
        let status = self.core.status(self.now);
        let names: Vec<&str> = status.services.iter().map(|it| it.name.as_str()).collect();
        let expected: Vec<String> = self.services.keys().map(|id| format!("s{id}")).collect();
        ensure!(names == expected, "D8: {names:?} instead of {expected:?}");
        for (known, shown) in self.services.values().zip(&status.services) {
            ensure!(known.stands == Stands::Configured, "D4, D8: {} stays", shown.name);
            let serving = &known.policies[&known.serving];
            ensure!(*serving == known.told, "D8: {serving:?} serves instead of {:?}", known.told);
            let calm = shown.ready == known.wanted
                && shown.workers.len() == known.wanted as usize
                && shown.reloading.is_none()
                && !shown.queued;
            ensure!(calm, "D8: at rest: {shown:?}");
        }
        Ok(())
    }

    fn plan(&mut self, after: Duration, happening: Happening) {
        self.last_happening += 1;
        self.agenda.insert((self.now + after, self.last_happening), happening);
    }

    fn operate(&mut self) {
        let after = ms(self.script.pick(&[0, 0, 1, 5, 20, 300, 2000]));
        let present = self.present();
        let some = present[usize::from(self.script.below(250)) % present.len()];
        let named = Scope::Named(vec![format!("s{some}")]);
        let request = match self.script.below(40) {
            0..22 => reload(Scope::All),
            22..28 => reload(named),
            28..31 => Request::Reload { scope: Scope::All, behind: Behind::Refuse },
            31..34 => Request::Scale { services: named, to: Scale::By(1) },
            34..37 => Request::Scale { services: named, to: Scale::To(2) },
            37 => Request::Stop,
            38 => Request::Interrupt,
            _ => Request::StopNow,
        };
        self.plan(after, Happening::Asked(request));
    }

    /// The services of the present configuration.
    fn present(&self) -> Vec<ServiceId> {
        let present = self.services.iter().filter(|(_, it)| it.stands == Stands::Configured);
        present.map(|(&id, _)| id).collect()
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Violation> {
        match happening {
            Happening::Runs(id) => {
                let Some(worker) = self.workers.get_mut(&id).filter(|it| !it.is_gone) else {
                    return Ok(());
                };
                worker.runs = true;
                self.tell(id, WorkerEvent::Started { pid: Pid(7) })
            }
            Happening::SpawnFails(id) => {
                let reason = "no such file".to_owned();
                self.goes(id, WorkerEvent::SpawnFailed(SpawnFailure { reason }))
            }
            Happening::Ready(id) => match self.workers.get(&id) {
                Some(worker) if worker.runs && !worker.is_gone => {
                    self.tell(id, WorkerEvent::SaidReady)
                }
                Some(_) | None => Ok(()),
            },
            Happening::Exits(id, how) => {
                self.goes(id, WorkerEvent::Exited { how, left: 0, used: None })
            }
            Happening::Read(service, generation, true) => {
                let bound = Vec::new();
                self.feed(Event::Prepared { service, generation, bound, by_path: None })
            }
            Happening::Read(service, generation, false) => {
                if let Some(known) = self.services.get_mut(&service) {
                    known.policies.remove(&generation);
                }
                let reason = "no such program".to_owned();
                let fault = Fault::Definition(reason);
                self.feed(Event::PrepareFailed { service, generation, fault })
            }
            Happening::Asked(request) => {
                self.last_request += 1;
                let id = RequestId(self.last_request);
                self.requests.insert(id);
                match request {
                    Request::Stop if self.stops == Stops::No => self.stops = Stops::Asked,
                    Request::Interrupt if self.stops == Stops::No => self.stops = Stops::Asked,
                    // A second interrupt may kill.
                    Request::Interrupt | Request::StopNow => self.stops = Stops::Killed,
                    _ => {}
                }
                self.feed(Event::Requested(id, request))
            }
        }
    }

    fn goes(&mut self, id: WorkerId, event: WorkerEvent) -> Result<(), Violation> {
        match self.workers.get_mut(&id) {
            Some(worker) if !worker.is_gone => {
                worker.is_gone = true;
                self.tell(id, event)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn tell(&mut self, id: WorkerId, event: WorkerEvent) -> Result<(), Violation> {
        self.feed(Event::Worker(id, event))
    }

    fn feed(&mut self, event: Event) -> Result<(), Violation> {
        let now = self.now;
        self.journal.write(|| format!("{now:?} <- {event:?}"));
        let was_refused = matches!(event, Event::ConfigurationFailed { .. });
        self.core.handle_event(now, event);
        if was_refused {
            self.check_refused()?;
        }
        self.settle()
    }

    /// D3: nothing but the news of it comes of a configuration that is refused.
    fn check_refused(&mut self) -> Result<(), Violation> {
        let mut probe = self.core.clone();
        while let Some(action) = probe.poll_action() {
            let is_news = matches!(
                action,
                Action::Respond(..)
                    | Action::Notice(Notice::Configuration(ConfigurationNotice::Refused { .. }))
            );
            ensure!(is_news, "D3: {action:?} comes of a configuration that was refused");
        }
        self.seen.insert("a configuration refused");
        Ok(())
    }

    /// Performs what the core wants, as the daemon does: a configuration is read when everything else
    /// is done, and told before anything else.
    fn settle(&mut self) -> Result<(), Violation> {
        loop {
            let mut orders = Vec::new();
            while let Some(action) = self.core.poll_action() {
                let now = self.now;
                self.journal.write(|| format!("{now:?}     -> {action:?}"));
                if let Action::ReadConfiguration { request, services, free } = action {
                    orders.push((request, services, free));
                } else {
                    self.perform(action)?;
                }
            }
            self.check_quiet()?;
            if orders.is_empty() {
                return Ok(());
            }
            for (request, services, free) in orders {
                let event = self.read(request, services.as_deref(), free);
                self.feed(event)?;
            }
        }
    }

    fn perform(&mut self, action: Action) -> Result<(), Violation> {
        ensure!(!self.is_finished, "after the end: {action:?}");
        match action {
            Action::Prepare { service, generation, like, bind } => {
                ensure!(bind.is_empty(), "nobody has stopped {service}: {bind:?}");
                let known = self.services.get_mut(&service).ok_or("no such service")?;
                ensure!(like.is_none(), "nothing is bound anew here: {like:?}");
                let policy = known.told.clone();
                known.is_next = false;
                let serving = &known.policies[&known.serving];
                known.wanted_next = (policy.workers != serving.workers).then_some(policy.workers);
                known.policies.insert(generation, policy);
                known.rolling = Some(generation);
                let well = !self.script.one_in(10);
                let after = ms(self.script.pick(&[0, 0, 0, 40]));
                self.plan(after, Happening::Read(service, generation, well));
                Ok(())
            }
            Action::Spawn(spawn) => self.spawn(&spawn),
            Action::Signal(id, Signal::Cont) => self.named(id).map(|_| ()),
            Action::Signal(id, _) => {
                let (runs, obeys) = {
                    let worker = self.named(id)?;
                    worker.is_asked = true;
                    (worker.runs, worker.obeys)
                };
                self.check_asked(id)?;
                if !runs {
                    self.plan(ms(1), Happening::SpawnFails(id));
                } else if let Some(after) = obeys {
                    self.plan(after, Happening::Exits(id, Exit::Code(0)));
                }
                Ok(())
            }
            Action::KillTree(id) => {
                let runs = self.named(id)?.runs;
                let end = Happening::Exits(id, Exit::KILLED);
                self.plan(ms(1), if runs { end } else { Happening::SpawnFails(id) });
                Ok(())
            }
            Action::Close(member) => {
                let owner = self.open.remove(&member).ok_or(format!("D2: {member} is not open"))?;
                ensure!(self.closed.insert(member), "D2: {member} is closed twice");
                let known = self.services.get(&owner).ok_or("D4: of no service")?;
                ensure!(
                    self.stops != Stops::No || !self.in_use(owner, known).contains(&member),
                    "D2: {member} of s{owner} is closed and in use"
                );
                Ok(())
            }
            Action::Forget { service, generation } => {
                let known = self.services.get_mut(&service).ok_or("no such service")?;
                known.policies.remove(&generation).ok_or("a definition is forgotten twice")?;
                let used = self
                    .workers
                    .values()
                    .any(|it| !it.is_gone && it.service == service && it.generation == generation);
                ensure!(!used, "generation {generation} of s{service} is forgotten and in use");
                Ok(())
            }
            Action::Remove(service) => {
                let alive = self.workers.values().any(|it| !it.is_gone && it.service == service);
                let open = self.open.values().any(|owner| *owner == service);
                ensure!(!alive && !open, "D4: something is left of s{service}");
                let known = self.services.remove(&service).ok_or("D4: removed twice")?;
                ensure!(known.policies.is_empty(), "D4: {:?} are kept", known.policies.keys());
                let may_go = known.stands == Stands::Dismissed
                    || known.stands == Stands::Leaving && self.stops != Stops::No;
                ensure!(may_go, "D4: s{service} is {:?}", known.stands);
                self.seen.insert("a service removed");
                Ok(())
            }
            Action::Respond(id, response) => self.respond(id, &response),
            Action::Notice(notice) => self.notice(&notice),
            Action::Finish => {
                self.is_finished = true;
                Ok(())
            }
            Action::ReadConfiguration { .. }
            | Action::Probe(_)
            | Action::Inspect { .. }
            | Action::Listen(_)
            | Action::StopListening(_)
            | Action::Renew { .. }
            | Action::BindSlot { .. }
            | Action::BindSpares { .. }
            | Action::FindHolders { .. }
            | Action::SetMode(..)
            | Action::Check(_)
            | Action::EndCheck(_)
            | Action::Disconnect(_)
            | Action::Steer { .. }
            | Action::Rotate { .. }
            | Action::LookAtDrain { .. }
            | Action::LookAtQueues { .. }
            | Action::Weigh { .. }
            | Action::Publish { .. }
            | Action::EndPublish { .. }
            | Action::SignalTree(..)
            | Action::Announce(_) => Ok(()),
        }
    }

    fn named(&mut self, id: WorkerId) -> Result<&mut Worker, Violation> {
        let worker = self.workers.get_mut(&id).ok_or("no such worker")?;
        ensure!(!worker.is_gone, "worker {id} is gone");
        Ok(worker)
    }

    fn spawn(&mut self, spawn: &Spawn) -> Result<(), Violation> {
        let Spawn { worker, service, generation, ref members, .. } = *spawn;
        let known = self.services.get(&service).ok_or("no such service")?;
        ensure!(known.stands != Stands::Dismissed, "D4: {spawn:?} of one that leaves");
        let policy = known.policies.get(&generation).ok_or("its definition is not kept")?;
        let expected: Vec<MemberId> = policy.members().collect();
        ensure!(*members == expected, "D2: {spawn:?} gets others than {expected:?}");
        let shut = members.iter().find(|member| !self.open.contains_key(member));
        ensure!(shut.is_none(), "D2: {spawn:?} gets {shut:?}, which is closed");
        let missing =
            policy.needs().find(|need| self.services.get(need).is_some_and(|need| !need.is_up));
        ensure!(missing.is_none(), "D1: {spawn:?}, and {missing:?} has not been ready");
        let calm = self.script.is_over();
        let obeys = if calm || !self.script.one_in(8) {
            Some(ms(self.script.pick(&[5, 0, 40, 600])))
        } else {
            None
        };
        let is_asked = false;
        let (runs, is_gone) = (false, false);
        let new = Worker { service, generation, runs, obeys, is_asked, is_gone };
        self.workers.insert(worker, new);
        match self.script.below(16) {
            11 if !calm => self.plan(ms(2), Happening::SpawnFails(worker)),
            12 if !calm => {
                self.plan(ms(1), Happening::Runs(worker));
                self.plan(ms(3), Happening::Exits(worker, Exit::Code(1)));
            }
            // It never gets ready.
            13 if !calm => self.plan(ms(1), Happening::Runs(worker)),
            14 if !calm => {
                self.plan(ms(1), Happening::Runs(worker));
                self.plan(ms(9), Happening::Ready(worker));
                self.plan(ms(90), Happening::Exits(worker, Exit::Code(1)));
            }
            _ => {
                let after = ms(self.script.pick(&[10, 2, 50, 700]));
                self.plan(ms(1), Happening::Runs(worker));
                self.plan(after, Happening::Ready(worker));
            }
        }
        Ok(())
    }

    /// D5: while everything stops, one that serves is asked when nobody who needs it is left.
    fn check_asked(&mut self, id: WorkerId) -> Result<(), Violation> {
        if self.stops != Stops::Asked {
            return Ok(());
        }
        let worker = &self.workers[&id];
        let service = worker.service;
        let known = &self.services[&service];
        if worker.generation != known.serving || known.stands == Stands::Dismissed {
            return Ok(());
        }
        let user = self.services.iter().find(|&(&other, it)| {
            other != service
                && self.has_workers(other)
                && self.needed_by(other, it).contains(&service)
        });
        let Some((&user, _)) = user else {
            self.seen.insert("a stop in order");
            return Ok(());
        };
        // A worker that was late or one too many is asked for its own sake.
        let shown = self.core.status(self.now);
        let stops = shown.services.iter().find(|it| it.name == format!("s{service}"));
        let is_late = stops.is_some_and(|it| it.workers.len() > 1 || !it.backing_off.is_empty());
        let circle = self.reaches(service, user);
        if circle {
            self.seen.insert("a circle of what serves");
        }
        let sockets_open = self.open.values().any(|owner| *owner == service);
        ensure!(
            circle || is_late || sockets_open || known.told.sockets.is_empty(),
            "D5: s{service} is asked to stop, and s{user} needs it"
        );
        Ok(())
    }

    /// Whether a service needs another, itself or through others.
    fn reaches(&self, from: ServiceId, to: ServiceId) -> bool {
        let mut seen = BTreeSet::new();
        let mut next = vec![from];
        while let Some(id) = next.pop() {
            if let Some(known) = self.services.get(&id).filter(|_| seen.insert(id)) {
                next.extend(self.needed_by(id, known));
            }
        }
        seen.contains(&to) && from != to
    }

    fn has_workers(&self, service: ServiceId) -> bool {
        self.workers.values().any(|it| !it.is_gone && it.service == service)
    }

    /// The definitions of a service that count.
    fn counting(&self, id: ServiceId, known: &Known) -> BTreeSet<GenerationId> {
        let workers = self.workers.values().filter(|it| !it.is_gone && it.service == id);
        let mut counting: BTreeSet<GenerationId> = workers.map(|it| it.generation).collect();
        if known.stands != Stands::Dismissed {
            counting.insert(known.serving);
            counting.extend(known.rolling);
        }
        counting
    }

    /// Those that need a service, at one remove or more.
    fn users(&self, id: ServiceId) -> BTreeSet<ServiceId> {
        let mut users = BTreeSet::new();
        loop {
            let needs_one = |&(&other, known): &(&ServiceId, &Known)| {
                let needed = self.needed_by(other, known);
                let of = |it: &ServiceId| *it != other && (*it == id || users.contains(it));
                needed.iter().any(of)
            };
            let found = self.services.iter().filter(needs_one).map(|(&other, _)| other);
            let found: BTreeSet<ServiceId> = found.collect();
            if found.is_subset(&users) {
                return users;
            }
            users.extend(found);
        }
    }

    /// One that needs a service, unless it is gone too and they need each other.
    fn user_that_stays(&self, id: ServiceId) -> Option<ServiceId> {
        let goes_along = |user: &ServiceId| {
            let is_gone = self.services[user].stands != Stands::Configured;
            is_gone && self.users(*user).contains(&id)
        };
        self.users(id).into_iter().find(|user| *user != id && !goes_along(user))
    }

    fn needed_by(&self, id: ServiceId, known: &Known) -> BTreeSet<ServiceId> {
        let counting = self.counting(id, known);
        let policies = counting.iter().filter_map(|generation| known.policies.get(generation));
        policies.flat_map(Policy::needs).collect()
    }

    /// The sockets of a service that have to be open.
    fn in_use(&self, id: ServiceId, known: &Known) -> BTreeSet<MemberId> {
        let counting = self.counting(id, known);
        let policies = counting.iter().filter_map(|generation| known.policies.get(generation));
        let mut members: BTreeSet<MemberId> = policies.flat_map(Policy::members).collect();
        if known.is_next && known.stands != Stands::Dismissed {
            members.extend(known.told.members());
        }
        members
    }

    fn respond(&mut self, id: RequestId, response: &Response) -> Result<(), Violation> {
        ensure!(self.requests.remove(&id), "D7: {id} is answered twice");
        let is_failed = |end: &End| matches!(end, End::Refused(Refusal::Failed { .. }));
        let failed = match response {
            Response::Refused(Refusal::Failed { .. }) => true,
            Response::Divided(parts) => parts.iter().any(|part| is_failed(&part.end)),
            _ => false,
        };
        self.see(failed, "a failed start of one that was added");
        for (service, count) in self.read_for.remove(&id).unwrap_or_default() {
            let name = self.services.get(&service).map(|known| &known.told.name);
            let done = match response {
                Response::Done(_) => true,
                Response::Divided(parts) => {
                    let part = parts.iter().find(|part| Some(&part.service) == name);
                    part.is_some_and(Part::is_done)
                }
                _ => false,
            };
            if let (true, Some(known)) = (done, self.services.get(&service))
                && known.told_count == count
                && known.stands != Stands::Dismissed
            {
                // Where it is forgotten by now, others ended later, when everything was stopped.
                let serving = known.policies.get(&known.serving);
                let is_told = serving.is_none_or(|serving| *serving == known.told);
                ensure!(is_told, "D7: done, and s{service} is {serving:?}");
            }
        }
        Ok(())
    }

    fn notice(&mut self, notice: &Notice) -> Result<(), Violation> {
        match notice {
            Notice::Serving { service, .. } => self.of(service)?.1.is_up = true,
            Notice::Scaled { service, workers } => {
                let known = self.of(service)?.1;
                known.wanted = *workers;
                known.wanted_next = None;
            }
            Notice::ReloadQueued { .. } => {
                self.seen.insert("a change queued");
            }
            Notice::ReloadCommitted { service, generation, .. } => {
                let (_, known) = self.of(service)?;
                ensure!(known.rolling.take() == Some(*generation), "{notice:?} of no reload");
                let (is_scaled, changes) =
                    (known.wanted != known.policies[&known.serving].workers, known.wanted_next);
                let old: BTreeSet<MemberId> = known.policies[&known.serving].members().collect();
                let new: BTreeSet<MemberId> = known.policies[generation].members().collect();
                known.serving = *generation;
                known.is_up = true;
                known.wanted = known.wanted_next.take().unwrap_or(known.wanted);
                self.seen.insert("a change committed");
                self.see(is_scaled && changes.is_none(), "a scale kept");
                self.see(changes.is_some(), "workers changed by the file");
                self.see(!old.is_subset(&new), "a socket closed by a commit");
            }
            Notice::ReloadAborted { service, generation, .. } => {
                let (_, known) = self.of(service)?;
                ensure!(known.rolling.take() == Some(*generation), "{notice:?} of no reload");
                known.wanted_next = None;
                let old: BTreeSet<MemberId> = known.policies[&known.serving].members().collect();
                let new = known.policies.get(generation).map(|it| it.members().collect());
                let new: BTreeSet<MemberId> = new.unwrap_or_default();
                self.seen.insert("a change aborted");
                self.see(!new.is_subset(&old), "a socket closed by an abort");
            }
            Notice::Configuration(ConfigurationNotice::Redefined { service, generation }) => {
                let (id, known) = self.of(service)?;
                ensure!(known.rolling.take() == Some(*generation), "{notice:?} of no reload");
                ensure!(!known.is_up, "{notice:?} of one that has been up");
                known.serving = *generation;
                known.wanted = known.wanted_next.take().unwrap_or(known.wanted);
                ensure!(!self.has_workers(id), "{notice:?} of one that has workers");
                self.seen.insert("a change taken over by one that waits");
            }
            Notice::Configuration(ConfigurationNotice::Leaves { service, .. }) => {
                let (id, known) = self.of(service)?;
                ensure!(known.stands == Stands::Leaving, "D4: {notice:?}: {:?}", known.stands);
                known.stands = Stands::Dismissed;
                known.rolling = None;
                known.is_next = false;
                let user = self.user_that_stays(id);
                ensure!(user.is_none(), "D4: {notice:?}, and {user:?} needs it");
            }
            _ => {}
        }
        Ok(())
    }

    fn see(&mut self, holds: bool, what: &'static str) {
        if holds {
            self.seen.insert(what);
        }
    }

    fn of(&mut self, name: &str) -> Result<(ServiceId, &mut Known), Violation> {
        let number = name.strip_prefix('s').and_then(|number| number.parse().ok());
        let id = ServiceId(number.ok_or("no such name")?);
        self.services.get_mut(&id).map(|known| (id, known)).ok_or(format!("no service {name}"))
    }

    /// What must hold when everything is performed.
    fn check_quiet(&mut self) -> Result<(), Violation> {
        let status = self.core.status(self.now);
        if self.stops != Stops::No {
            let leaves = self.services.values().any(|it| it.stands != Stands::Configured);
            self.see(leaves, "a stop with services that leave");
            return Ok(());
        }
        for (&id, known) in &self.services {
            let open: BTreeSet<MemberId> =
                self.open.iter().filter(|(_, owner)| **owner == id).map(|(&it, _)| it).collect();
            let expected = self.in_use(id, known);
            ensure!(open == expected, "D2: s{id} has {open:?} open instead of {expected:?}");
            let shown = status.services.iter().find(|it| it.name == format!("s{id}"));
            let shown = shown.ok_or(format!("D4: s{id} is not shown"))?;
            if known.stands != Stands::Dismissed {
                let wanted = known.wanted;
                ensure!(shown.wanted == wanted, "D6: {} wanted, not {wanted}: s{id}", shown.wanted);
            }
        }
        let mut stays = false;
        let mut held = false;
        for (&id, known) in &self.services {
            if known.stands == Stands::Leaving {
                ensure!(
                    self.user_that_stays(id).is_some(),
                    "D4: nobody needs s{id}, and it is not asked to stop"
                );
                stays = true;
            }
            held |= known.is_up
                && known.rolling.and_then(|it| known.policies.get(&it)).is_some_and(|policy| {
                    policy.needs().any(|it| self.services.get(&it).is_some_and(|it| !it.is_up))
                });
        }
        self.see(stays, "a service that had to stay");
        self.see(held, "a reload held");
        Ok(())
    }

    /// Reads a configuration that has changed since, or cannot.
    fn read(&mut self, request: RequestId, only: Option<&[ServiceId]>, free: MemberId) -> Event {
        if self.script.one_in(8) {
            let fault = Fault::Sockets("cannot bind `8000`: it is in use".to_owned());
            return Event::ConfigurationFailed { request, fault };
        }
        let mut next = free.0;
        let present = self.present();
        let is_meant = |id: &ServiceId| only.is_none_or(|only| only.contains(id));
        let removed = self.choose_removed(&present, only);
        let mut services = Vec::new();
        let mut ranks: Vec<(ServiceId, u8)> =
            present.iter().map(|id| (*id, self.services[id].rank)).collect();
        ranks.retain(|(id, _)| Some(*id) != removed);
        // What serves of the old order and what does of the new can need each other in a circle.
        let is_turned = only.is_none() && self.script.one_in(6);
        if is_turned {
            for (_, rank) in &mut ranks {
                *rank = 250 - *rank;
            }
        }
        if only.is_none() && ranks.len() < SERVICES_MAX && self.script.one_in(4) {
            self.last_service += 1;
            let id = ServiceId(self.last_service);
            let rank = self.script.below(250);
            let mut policy = policy(id, self.script.pick(&[1, 2]));
            for _ in 0..self.script.pick(&[1, 0, 2]) {
                policy.sockets.push(socket(next));
                next += 1;
            }
            needs(&mut self.script, &mut policy, rank, &ranks);
            ranks.push((id, rank));
            self.seen.insert("a service added");
            self.services.insert(id, Known::new(policy.clone(), rank));
            services.push(policy);
        }
        for id in present.into_iter().filter(|id| is_meant(id) && Some(*id) != removed) {
            let Some(known) = self.services.get_mut(&id) else { continue };
            if is_turned {
                known.rank = 250 - known.rank;
            }
            let (mut policy, rank) = (known.told.clone(), known.rank);
            // What was not begun or was aborted is in the file all the same, but for its sockets,
            // which are bound anew where they were closed.
            for socket in &mut policy.sockets {
                if !self.open.contains_key(&MemberId(socket.id.0)) {
                    *socket = self::socket(next);
                    next += 1;
                }
            }
            policy.depends_on.retain(|need| ranks.iter().any(|(id, _)| id == need));
            policy.bind_to.retain(|need| ranks.iter().any(|(id, _)| id == need));
            match if is_turned { 10 } else { self.script.below(12) } {
                6 => policy.workers = 1 + policy.workers % 3,
                7 => {
                    policy.sockets.insert(0, socket(next));
                    next += 1;
                }
                8 => drop(policy.sockets.pop()),
                9 => policy.sockets.reverse(),
                10 | 11 => {
                    policy.depends_on.clear();
                    policy.bind_to.clear();
                    needs(&mut self.script, &mut policy, rank, &ranks);
                }
                _ => {}
            }
            services.push(policy);
        }
        self.take_over(request, &services, removed);
        services.sort_by_key(|policy| policy.service);
        let removed = removed.into_iter().collect();
        let configuration = Configuration { services, removed };
        Event::ConfigurationRead { request, configuration }
    }

    /// One that nobody needs who stays as it is in the file.
    fn choose_removed(
        &mut self,
        present: &[ServiceId],
        only: Option<&[ServiceId]>,
    ) -> Option<ServiceId> {
        if present.len() < 2 || !self.script.one_in(4) {
            return None;
        }
        let choices = only.unwrap_or(present);
        let choice = choices[usize::from(self.script.below(250)) % choices.len()];
        let needed = present.iter().any(|id| {
            only.is_some_and(|only| !only.contains(id))
                && self.services[id].told.needs().any(|need| need == choice)
        });
        (!needed && present.contains(&choice)).then_some(choice)
    }

    fn take_over(&mut self, request: RequestId, services: &[Policy], removed: Option<ServiceId>) {
        let mut read_for = Vec::new();
        for policy in services {
            let is_new = policy.members().any(|member| !self.open.contains_key(&member));
            self.see(is_new, "a socket bound");
            self.open.extend(policy.members().map(|member| (member, policy.service)));
            let Some(known) = self.services.get_mut(&policy.service) else { continue };
            // The first definition of one that is new serves already.
            known.is_next = known.told_count > 0;
            known.told = policy.clone();
            known.told_count += 1;
            read_for.push((policy.service, known.told_count));
        }
        self.read_for.insert(request, read_for);
        if let Some(known) = removed.and_then(|id| self.services.get_mut(&id)) {
            known.stands = Stands::Leaving;
        }
    }
}

impl Known {
    fn new(policy: Policy, rank: u8) -> Known {
        let first = GenerationId(1);
        Known {
            rank,
            wanted: policy.workers,
            wanted_next: None,
            told: policy.clone(),
            told_count: 0,
            is_next: false,
            serving: first,
            rolling: None,
            policies: BTreeMap::from([(first, policy)]),
            is_up: false,
            stands: Stands::Configured,
        }
    }
}

fn reload(scope: Scope) -> Request {
    Request::Reload { scope, behind: Behind::Queue }
}

fn socket(id: u32) -> Socket {
    let (name, members) = (format!("socket {id}"), Members::Shared);
    Socket { id: SocketId(id), name, members, steered: false, refusable: false }
}

/// Needs some of those of a lower rank.
fn needs(script: &mut Script, policy: &mut Policy, rank: u8, others: &[(ServiceId, u8)]) {
    for &(id, other) in others.iter().filter(|&&(id, _)| id != policy.service) {
        let choice = script.below(6);
        if other < rank && choice == 4 {
            policy.depends_on.insert(id);
        } else if other < rank && choice == 5 {
            policy.bind_to.insert(id);
        }
    }
}

fn policy(service: ServiceId, workers: u32) -> Policy {
    Policy {
        service,
        name: format!("s{service}"),
        workers,
        on_failing: OnFailing::Wait,
        sockets: Vec::new(),
        ready: ReadyWhen::Notify,
        ready_timeout: ms(400),
        check_pace: CheckPace { interval: ms(100), timeout: ms(100) },
        surge: Surge::Percent(100),
        canary: None,
        probation: Duration::ZERO,
        before_stop: BeforeStop::Auto,
        keepalive: KeepAlive::default(),
        stop: StopLadder::new(StopStep { signal: Signal::Term, wait: ms(200) }, vec![]),
        starting_max: 2,
        launching_max: 2,
        depends_on: BTreeSet::new(),
        bind_to: BTreeSet::new(),
        proxy: None,
    }
}
