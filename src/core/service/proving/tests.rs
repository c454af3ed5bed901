//! A service of two workers behind a socket that is steered, whose generations prove themselves and
//! are rolled back.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::core::Supervisor;
use crate::core::action::Action;
use crate::core::configuration::Configuration;
use crate::core::event::{Closing, DrainSeen, Event, Exit, Fault, Left, WorkerEvent};
use crate::core::ids::{GenerationId, Pid, RequestId, ServiceId, SocketId, WorkerId};
use crate::core::notice::{Notice, ProvingNotice};
use crate::core::policy::{
    BeforeStop, BoundMember, Canary, CheckPace, KeepAlive, Members, OnFailing, Policy, ReadyWhen,
    Signal, Socket, StopLadder, StopStep, Surge,
};
use crate::core::refusal::{Operation, Refusal};
use crate::core::request::{Abort, Behind, Request, Response, Scale, Scope, ServiceOutcome};
use crate::core::status::ServiceState;
use crate::core::time::Time;

const WEB: ServiceId = ServiceId(0);

const CANARY: Canary = Canary { percent: 5, time: Duration::from_secs(30) };

const PROBATION: Duration = Duration::from_secs(60);

/// A second less than each of them.
const ALMOST: [Duration; 2] = [Duration::from_secs(29), Duration::from_secs(59)];

/// More deadlines than anything here has between two things that happen: a core that asks to be
/// woken for nothing is found by it.
const DEADLINES_MAX: usize = 100;

struct World {
    now: Time,
    supervisor: Supervisor,
    /// What a reload reads.
    policy: Policy,
    /// Why a definition cannot be had, if it cannot.
    fault: Option<Fault>,
    /// The program is a script at this path.
    by_path: Option<String>,
    last_request: u64,
    /// Workers that start.
    starting: VecDeque<u64>,
    /// What was done since it was last asked, in words.
    told: Vec<String>,
    responses: Vec<(u64, Response)>,
}

impl World {
    /// Both workers of generation 1, 1 and 2, are ready.
    fn new(canary: Option<Canary>, probation: Duration) -> World {
        let wait = Duration::from_secs(20);
        let policy = Policy {
            service: WEB,
            name: "web".to_owned(),
            workers: 2,
            on_failing: OnFailing::Wait,
            sockets: vec![Socket {
                id: SocketId(0),
                name: "http".to_owned(),
                members: Members::EachGeneration,
                steered: true,
                refusable: false,
            }],
            ready: ReadyWhen::Notify,
            ready_timeout: wait,
            check_pace: CheckPace { interval: wait, timeout: wait },
            surge: Surge::Percent(100),
            canary,
            probation,
            before_stop: BeforeStop::Auto,
            keepalive: KeepAlive::default(),
            stop: StopLadder::new(StopStep { signal: Signal::Term, wait }, vec![]),
            starting_max: 2,
            launching_max: 2,
            proxy: None,
            depends_on: BTreeSet::new(),
            bind_to: BTreeSet::new(),
        };
        let now = Time::ZERO + wait;
        let mut world = World {
            now,
            supervisor: Supervisor::new(now, vec![policy.clone()], 1),
            policy,
            fault: None,
            by_path: None,
            last_request: 0,
            starting: VecDeque::new(),
            told: Vec::new(),
            responses: Vec::new(),
        };
        world.perform();
        world.come_up();
        world.told.clear();
        world
    }

    /// What is read and looked at is there at once; whoever is asked to stop does.
    fn perform(&mut self) {
        while let Some(action) = self.supervisor.poll_action() {
            if let Action::Spawn(spawn) = action {
                self.starting.push_back(spawn.worker.0);
                self.told.push(format!("{} starts as {}", spawn.worker, spawn.generation));
            } else if let Action::ReadConfiguration { request, .. } = action {
                let services = vec![self.policy.clone()];
                let configuration = Configuration { services, removed: Vec::new() };
                self.feed(Event::ConfigurationRead { request, configuration });
            } else if let Action::Prepare { service, generation, like, bind } = action {
                let like = like.map(|like| format!(" like {like}")).unwrap_or_default();
                self.told.push(format!("{generation} is read{like}"));
                let name = || "http".to_owned();
                let bound = bind.iter().map(|it| BoundMember { member: it.member, name: name() });
                let (bound, by_path) = (bound.collect(), self.by_path.clone());
                self.feed(match self.fault.clone() {
                    Some(fault) => Event::PrepareFailed { service, generation, fault },
                    None => Event::Prepared { service, generation, bound, by_path },
                });
            } else if let Action::LookAtDrain { service, look } = action {
                let left = Left { handshakes: Some(0), queued: Some(0) };
                let members = look.members.into_iter().map(|member| (member, left)).collect();
                let workers = look.workers.into_iter().map(|worker| (worker, Some(0))).collect();
                let asked =
                    look.asked.into_iter().map(|(it, _)| (it, Closing::default())).collect();
                let seen = DrainSeen { number: look.number, members, workers, asked };
                self.feed(Event::DrainSeen { service, seen });
            } else if let Action::Steer { shares, .. } = action {
                let shares = shares.iter().map(|it| format!("{}:{}", it.member, it.weight));
                self.told.push(shares.collect::<Vec<_>>().join(" "));
            } else if let Action::Signal(worker, Signal::Term) = action {
                self.told.push(format!("{worker} stops"));
                let exited = WorkerEvent::Exited { how: Exit::Code(0), left: 0, used: None };
                self.feed(Event::Worker(worker, exited));
            } else if let Action::Forget { generation, .. } = action {
                self.told.push(format!("{generation} is forgotten"));
            } else if let Action::Notice(notice) = action {
                self.told.extend(words(&notice));
            } else if let Action::Respond(id, response) = action {
                self.responses.push((id.0, response));
            }
        }
    }

    fn feed(&mut self, event: Event) {
        self.supervisor.handle_event(self.now, event);
    }

    fn happens(&mut self, event: Event) {
        self.feed(event);
        self.perform();
    }

    fn ask(&mut self, request: Request) -> u64 {
        self.last_request += 1;
        self.happens(Event::Requested(RequestId(self.last_request), request));
        self.last_request
    }

    fn reload(&mut self, behind: Behind) -> u64 {
        self.ask(Request::Reload { scope: Scope::All, behind })
    }

    /// A reload whose workers are all ready.
    fn reloaded(&mut self) -> u64 {
        let request = self.reload(Behind::Refuse);
        self.come_up();
        request
    }

    fn roll_back(&mut self) -> u64 {
        self.ask(Request::RollBack(Scope::Named(web())))
    }

    fn tell(&mut self, worker: u64, event: WorkerEvent) {
        self.happens(Event::Worker(WorkerId(worker), event));
    }

    /// Whoever starts gets ready.
    fn come_up(&mut self) {
        while let Some(worker) = self.starting.pop_front() {
            self.tell(worker, WorkerEvent::Started { pid: Pid(7) });
            self.tell(worker, WorkerEvent::SaidReady);
        }
    }

    fn exits(&mut self, worker: u64) {
        self.starting.retain(|it| *it != worker);
        self.tell(worker, WorkerEvent::Exited { how: Exit::Code(3), left: 0, used: None });
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..DEADLINES_MAX {
            let next = self.supervisor.next_deadline();
            let Some((at, _)) = next.filter(|(at, _)| *at <= until) else {
                self.now = until;
                return;
            };
            self.now = self.now.max(at);
            self.supervisor.handle_timeout(self.now);
            self.perform();
        }
        panic!("it is woken again and again: {:?}", self.supervisor.next_deadline());
    }

    fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }

    fn answers(&mut self) -> Vec<(u64, Response)> {
        std::mem::take(&mut self.responses)
    }

    fn serving(&self) -> (u64, ServiceState) {
        let status = self.supervisor.status(self.now);
        (status.services[0].generation.0, status.services[0].state)
    }
}

/// What is looked at here of what users are told.
fn words(notice: &Notice) -> Option<String> {
    if let Notice::Emptying { worker, .. } = notice {
        Some(format!("{} empties", worker.worker))
    } else if let Notice::Proving { what, .. } = notice {
        Some(match what {
            ProvingNotice::Canary { .. } => "a canary".to_owned(),
            ProvingNotice::Probation { .. } => "on probation".to_owned(),
            ProvingNotice::Proved { .. }
            | ProvingNotice::Failed { .. }
            | ProvingNotice::ByPath { .. } => what.to_string(),
        })
    } else if let Notice::ReloadCommitted { generation, .. } = notice {
        Some(format!("{generation} serves"))
    } else if let Notice::ReloadAborted { generation, .. } = notice {
        Some(format!("{generation} is off"))
    } else {
        None
    }
}

fn web() -> Vec<String> {
    vec!["web".to_owned()]
}

fn done(generation: u64) -> Response {
    let (name, generation) = ("web".to_owned(), GenerationId(generation));
    Response::Done(vec![ServiceOutcome { name, generation, workers: 2 }])
}

fn aborted(reason: &str, worker: Option<u64>, put_back: bool) -> Response {
    let (service, reason) = ("web".to_owned(), reason.to_owned());
    Response::Aborted(Abort { service, reason, worker: worker.map(WorkerId), put_back })
}

fn in_progress(operation: Operation) -> Response {
    Response::Refused(Refusal::InProgress { service: "web".to_owned(), operation })
}

const EXITED: &str = "worker 4 (web.1) exited with code 3";

const REASON: &str = "worker 4 (web.1) exited with code 3, on probation";

const BACK: &str = "it was rolled back on request";

fn queued(world: &mut World) -> u64 {
    world.reload(Behind::Queue)
}

#[test]
fn a_canary_gets_its_part_and_then_all() {
    let mut world = World::new(Some(CANARY), Duration::ZERO);
    let reload = world.reloaded();
    let begins = ["2 is read", "0:1 1:0", "3 starts as 2", "4 starts as 2", "a canary", "0:95 1:5"];
    assert_eq!(world.told(), begins);
    world.pass(ALMOST[0]);
    assert_eq!((world.told(), world.answers()), (vec![], vec![]));
    assert_eq!(world.serving(), (1, ServiceState::Reloading));
    world.pass(Duration::from_secs(1));
    assert_eq!(world.answers(), [(reload, done(2))]);
    assert_eq!(world.told(), ["2 serves", "0:0 1:1", "1 empties", "2 empties"]);
}

#[test]
fn a_canary_whose_worker_exits_is_taken_away_and_finishes_what_it_has() {
    let mut world = World::new(Some(CANARY), Duration::ZERO);
    let reload = world.reloaded();
    world.told();
    world.exits(4);
    assert_eq!(world.answers(), [(reload, aborted(EXITED, Some(4), true))]);
    assert_eq!(world.told(), ["2 is off", "0:1 1:0", "3 empties"]);
    assert_eq!(world.serving(), (1, ServiceState::Up));
    world.pass(PROBATION);
    assert_eq!(world.told(), ["3 stops", "2 is forgotten", "0:1"]);
}

#[test]
fn a_canary_waits_for_workers_that_are_wanted_meanwhile() {
    let mut world = World::new(Some(CANARY), Duration::ZERO);
    let reload = world.reloaded();
    world.pass(ALMOST[0]);
    world.ask(Request::Scale { services: Scope::All, to: Scale::By(1) });
    assert_eq!(world.answers().len(), 1);
    // Both generations get one more, and the new one lacks one when its time is over.
    assert_eq!(Vec::from(world.starting.clone()), [5, 6]);
    world.tell(6, WorkerEvent::Started { pid: Pid(7) });
    world.pass(Duration::from_secs(2));
    assert_eq!(world.answers(), []);
    world.tell(6, WorkerEvent::SaidReady);
    let (name, generation) = ("web".to_owned(), GenerationId(2));
    let outcome = ServiceOutcome { name, generation, workers: 3 };
    assert_eq!(world.answers(), [(reload, Response::Done(vec![outcome]))]);
}

#[test]
fn during_a_canary_other_operations_wait_or_end_it() {
    let refused = in_progress(Operation::Reload);
    let mut world = World::new(Some(CANARY), Duration::ZERO);
    let reload = world.reloaded();
    let second = world.reload(Behind::Refuse);
    let restart = world.ask(Request::Restart(Scope::All));
    assert_eq!(world.answers(), [(second, refused.clone()), (restart, refused)]);
    let third = queued(&mut world);
    world.pass(CANARY.time);
    assert_eq!(world.answers(), [(reload, done(2))]);
    world.come_up();
    let stop = world.ask(Request::StopServices(web()));
    let stopping = aborted("the service is being stopped", None, true);
    assert_eq!(world.answers(), [(third, stopping), (stop, done(2))]);
}

#[test]
fn a_canary_is_rolled_back_on_request() {
    let mut world = World::new(Some(CANARY), PROBATION);
    let reload = world.reloaded();
    world.told();
    let back = world.roll_back();
    assert_eq!(world.answers(), [(reload, aborted(BACK, None, true)), (back, done(1))]);
    assert_eq!(world.told()[..2], ["2 is off", "0:1 1:0"]);
    // It has not served, and is nothing to go back to.
    let back = world.roll_back();
    let nothing = Response::Refused(Refusal::NothingBefore { service: "web".to_owned() });
    assert_eq!(world.answers(), [(back, nothing)]);
}

#[test]
fn a_probation_that_is_stood_is_answered_when_it_is_over() {
    let mut world = World::new(None, PROBATION);
    let reload = world.reloaded();
    let second = world.reload(Behind::Refuse);
    assert_eq!(world.answers(), [(second, in_progress(Operation::Reload))]);
    let third = queued(&mut world);
    world.told();
    world.pass(ALMOST[1]);
    assert_eq!((world.answers(), world.serving()), (vec![], (2, ServiceState::Up)));
    world.pass(Duration::from_secs(1));
    assert_eq!(world.answers(), [(reload, done(2))]);
    let told = world.told();
    assert!(told.contains(&"generation 2 has stood its probation".to_owned()), "{told:?}");
    // The next begins at once, and has one of its own.
    world.come_up();
    world.pass(PROBATION);
    assert_eq!(world.answers(), [(third, done(3))]);
}

#[test]
fn a_worker_that_exits_on_probation_brings_back_what_served_before() {
    let mut world = World::new(Some(CANARY), PROBATION);
    let reload = world.reloaded();
    world.pass(CANARY.time + PROBATION / 2);
    let third = queued(&mut world);
    world.told();
    world.exits(4);
    let failed = "generation 2 has failed on probation: rolling back";
    let told = world.told();
    assert_eq!(told[..3], [failed, "5 starts as 2", "3 is read like 1"]);
    assert_eq!(world.answers(), []);
    world.come_up();
    // At once, without a canary.
    assert_eq!(world.answers(), [(reload, aborted(REASON, Some(4), true))]);
    // Only then the next begins, as it was read.
    let told = world.told();
    let at = |what: &str| told.iter().position(|it| it == what);
    assert!(at("3 serves") < at("4 is read") && at("4 is read").is_some(), "{told:?}");
    let last = world.supervisor.status(world.now).services[0].last_abort.clone();
    assert_eq!(last, None, "another has begun");
    world.pass(CANARY.time + PROBATION);
    assert_eq!(world.answers(), [(third, done(4))]);
}

#[test]
fn what_failed_on_probation_is_told_and_is_nothing_to_go_back_to() {
    let mut world = World::new(None, PROBATION);
    world.reloaded();
    world.exits(4);
    world.come_up();
    let last = world.supervisor.status(world.now).services[0].last_abort.clone();
    assert_eq!(last, Some(format!("generation 2 was taken back: {REASON}")));
    world.answers();
    let back = world.roll_back();
    let nothing = Response::Refused(Refusal::NothingBefore { service: "web".to_owned() });
    assert_eq!(world.answers(), [(back, nothing)]);
}

#[test]
fn where_what_served_before_does_not_come_up_that_is_told() {
    let mut world = World::new(None, PROBATION);
    let reload = world.reloaded();
    world.exits(4);
    // Worker 5 takes the place of the one that failed, and 6 is of what served before.
    world.exits(6);
    let reason = format!(
        "{REASON}, and what served before does not again: worker 6 (web.0) exited with code 3 before \
         it was ready"
    );
    assert_eq!(world.answers(), [(reload, aborted(&reason, Some(6), false))]);
    assert_eq!(world.serving(), (2, ServiceState::Up));
    // It can be tried again.
    let back = world.roll_back();
    world.come_up();
    assert_eq!(world.answers(), [(back, done(4))]);
    assert!(world.told().contains(&"4 is read like 1".to_owned()));
}

#[test]
fn where_what_served_before_cannot_be_prepared_that_is_told() {
    let mut world = World::new(None, PROBATION);
    let reload = world.reloaded();
    world.fault = Some(Fault::Sockets("the port is taken".to_owned()));
    world.exits(4);
    let reason = format!("{REASON}, and what served before does not again: the port is taken");
    assert_eq!(world.answers(), [(reload, aborted(&reason, Some(4), false))]);
    // Nothing has happened where it was only asked for.
    let back = world.roll_back();
    let answers = world.answers();
    let [(id, Response::Refused(Refusal::Sockets { .. }))] = &answers[..] else {
        panic!("{answers:?}")
    };
    assert_eq!(*id, back);
}

#[test]
fn who_asks_for_something_else_ends_a_probation() {
    for request in [Request::StopServices(web()), Request::Restart(Scope::All), Request::Stop] {
        let mut world = World::new(None, PROBATION);
        let reload = world.reloaded();
        world.ask(request.clone());
        assert_eq!(world.answers()[0], (reload, done(2)), "{request:?}");
        world.exits(4);
        let told = world.told();
        assert!(!told.iter().any(|it| it.contains("rolling back")), "{told:?}");
    }
}

#[test]
fn a_stop_ends_a_rollback() {
    for (request, why) in [
        (Request::StopServices(web()), "the service is being stopped"),
        (Request::Stop, "everything is being stopped"),
    ] {
        let mut world = World::new(None, PROBATION);
        let reload = world.reloaded();
        world.exits(4);
        world.ask(request);
        let reason = format!("{REASON}, and what served before does not again: {why}");
        assert_eq!(world.answers()[0], (reload, aborted(&reason, Some(4), false)));
    }
}

#[test]
fn a_worker_that_is_too_many_does_not_fail_on_probation() {
    let mut world = World::new(None, PROBATION);
    let reload = world.reloaded();
    world.ask(Request::Scale { services: Scope::All, to: Scale::To(1) });
    world.pass(PROBATION);
    let (name, generation) = ("web".to_owned(), GenerationId(2));
    let outcome = ServiceOutcome { name, generation, workers: 1 };
    assert_eq!(world.answers()[1..], [(reload, Response::Done(vec![outcome]))]);
}

#[test]
fn a_probation_is_rolled_back_on_request() {
    let mut world = World::new(None, PROBATION);
    let reload = world.reloaded();
    let back = world.roll_back();
    assert_eq!(world.answers(), []);
    world.come_up();
    assert_eq!(world.answers(), [(reload, aborted(BACK, None, true)), (back, done(3))]);
    // It was an operator's will, and may be another one.
    let forth = world.roll_back();
    world.come_up();
    assert_eq!(world.answers(), [(forth, done(4))]);
    assert!(world.told().contains(&"4 is read like 2".to_owned()));
}

#[test]
fn rolled_back_twice_it_is_where_it_was() {
    let mut world = World::new(Some(CANARY), PROBATION);
    let nothing = Response::Refused(Refusal::NothingBefore { service: "web".to_owned() });
    let back = world.roll_back();
    assert_eq!(world.answers(), [(back, nothing)]);
    world.reloaded();
    world.pass(CANARY.time + PROBATION);
    world.answers();
    for (generation, like) in [(3, 1), (4, 2), (5, 3)] {
        world.told();
        let back = world.roll_back();
        world.come_up();
        // With neither a canary nor a probation.
        assert_eq!(world.answers(), [(back, done(generation))]);
        let read = format!("{generation} is read like {like}");
        assert!(world.told().contains(&read), "{read}");
        world.pass(PROBATION);
    }
}

#[test]
fn what_served_before_is_kept_until_a_third_serves() {
    let mut world = World::new(None, Duration::ZERO);
    let forgets = |world: &mut World| -> Vec<String> {
        world.pass(PROBATION);
        world.told().into_iter().filter(|it| it.ends_with("forgotten")).collect()
    };
    world.reloaded();
    assert_eq!(forgets(&mut world), [""; 0]);
    world.reloaded();
    assert_eq!(forgets(&mut world), ["1 is forgotten"]);
    // One that is off changes nothing.
    world.reload(Behind::Refuse);
    let first = world.starting[0];
    world.exits(first);
    assert_eq!(forgets(&mut world), ["4 is forgotten"]);
    world.roll_back();
    assert!(world.told().contains(&"5 is read like 2".to_owned()));
}

#[test]
fn of_a_script_it_is_told_that_it_is_what_is_there_by_now() {
    let mut world = World::new(None, Duration::ZERO);
    world.by_path = Some("/srv/server".to_owned());
    let told = |world: &mut World| -> Vec<String> {
        world.told().into_iter().filter(|it| it.contains("by now")).collect()
    };
    world.reloaded();
    assert_eq!(told(&mut world), [""; 0]);
    world.roll_back();
    let by_path =
        "generation 3 runs what is at `/srv/server` by now: a script cannot be kept as it was";
    assert_eq!(told(&mut world), [by_path]);
}

#[test]
fn what_failed_is_passed_over_where_it_served_on_and_was_replaced() {
    let mut world = World::new(None, PROBATION);
    world.reloaded();
    // What served before does not again, and generation 2 serves on.
    world.exits(4);
    world.exits(6);
    world.come_up();
    world.reloaded();
    assert_eq!(world.serving(), (4, ServiceState::Up));
    world.told();
    world.roll_back();
    assert!(world.told().contains(&"5 is read like 1".to_owned()));
}
