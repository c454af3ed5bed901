//! Services of one worker each, some bound to others, driven by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::core::Supervisor;
use crate::core::action::Action;
use crate::core::configuration::Configuration;
use crate::core::event::{Event, Exit, Fault, WorkerEvent};
use crate::core::ids::{GenerationId, MemberId, Pid, RequestId, ServiceId, SocketId, WorkerId};
use crate::core::notice::{LifeNotice, Notice};
use crate::core::policy::{
    BeforeStop, BoundMember, CheckPace, KeepAlive, Members, OnFailing, Policy, ReadyWhen, Signal,
    Socket, StopLadder, StopStep, Surge,
};
use crate::core::refusal::{Operation, Refusal};
use crate::core::request::{Behind, End, Request, Response, Scope, worst};
use crate::core::status::ServiceState;
use crate::core::time::Time;

/// Services by their names, those that each is bound to, and those that it only depends on.
type Services<'a> = &'a [(&'a str, &'a [&'a str], &'a [&'a str])];

const DB_API_WEB: Services<'static> =
    &[("db", &[], &[]), ("api", &["db"], &[]), ("web", &["api"], &[])];

struct World {
    now: Time,
    supervisor: Supervisor,
    names: Vec<String>,
    last_request: u64,
    /// The last worker of each service.
    workers: Vec<WorkerId>,
    owners: BTreeMap<WorkerId, usize>,
    /// The definition of each that is to be read, and the sockets that are to be bound.
    to_read: Vec<Option<(GenerationId, Vec<MemberId>)>>,
    /// What was done since it was last asked, in words.
    told: Vec<String>,
    responses: Vec<(u64, Response)>,
}

impl World {
    /// All of them are up.
    fn new(services: Services<'_>) -> World {
        let names: Vec<String> = services.iter().map(|(name, ..)| (*name).to_owned()).collect();
        let policies: Vec<Policy> = (0..services.len()).map(|at| policy(services, at)).collect();
        let now = Time::ZERO + Duration::from_secs(60);
        let supervisor = Supervisor::new(now, policies, 1);
        let count = services.len();
        let mut world = World {
            now,
            supervisor,
            names,
            last_request: 0,
            workers: vec![WorkerId(0); count],
            owners: BTreeMap::new(),
            to_read: vec![None; count],
            told: Vec::new(),
            responses: Vec::new(),
        };
        world.perform();
        for (name, ..) in services {
            world.ready(name);
        }
        world.told.clear();
        world
    }

    fn at(&self, name: &str) -> usize {
        self.names.iter().position(|it| it == name).expect("there is one")
    }

    fn id(&self, name: &str) -> ServiceId {
        ServiceId(u32::try_from(self.at(name)).expect("few"))
    }

    fn perform(&mut self) {
        while let Some(action) = self.supervisor.poll_action() {
            if let Action::Spawn(spawn) = action {
                let at = usize::try_from(spawn.service.0).expect("few");
                self.workers[at] = spawn.worker;
                self.owners.insert(spawn.worker, at);
                self.told.push(format!("{} starts", self.names[at]));
            } else if let Action::Signal(worker, Signal::Term) = action {
                self.told.push(format!("{} stops", self.names[self.owners[&worker]]));
            } else if let Action::Close(member) = action {
                self.told.push(format!("{member} closes"));
            } else if let Action::Prepare { service, generation, bind, .. } = action {
                let at = usize::try_from(service.0).expect("few");
                let bind = bind.iter().map(|new| new.member).collect();
                self.to_read[at] = Some((generation, bind));
                self.told.push(format!("{} is read", self.names[at]));
            } else if let Action::Notice(Notice::Life { service, what }) = action {
                if let LifeNotice::Along { what, other } = what {
                    self.told.push(format!("{service} {what} with {other}"));
                }
            } else if let Action::Respond(id, response) = action {
                self.responses.push((id.0, response));
            }
        }
    }

    fn happens(&mut self, event: Event) {
        self.supervisor.handle_event(self.now, event);
        self.perform();
    }

    fn ask(&mut self, request: Request) -> u64 {
        self.last_request += 1;
        self.happens(Event::Requested(RequestId(self.last_request), request));
        self.last_request
    }

    fn stop(&mut self, name: &str) -> u64 {
        self.ask(Request::StopServices(vec![name.to_owned()]))
    }

    fn start(&mut self, name: &str) -> u64 {
        self.ask(Request::StartServices(vec![name.to_owned()]))
    }

    fn restart(&mut self, name: &str) -> u64 {
        self.ask(Request::Restart(Scope::Named(vec![name.to_owned()])))
    }

    fn reload(&mut self, name: &str) -> u64 {
        let scope = Scope::Named(vec![name.to_owned()]);
        let request = self.ask(Request::Reload { scope, behind: Behind::Queue });
        let services = vec![policy(DB_API_WEB, self.at(name))];
        let configuration = Configuration { services, removed: vec![] };
        let request_id = RequestId(request);
        self.happens(Event::ConfigurationRead { request: request_id, configuration });
        request
    }

    fn tell(&mut self, name: &str, event: WorkerEvent) {
        let worker = self.workers[self.at(name)];
        self.happens(Event::Worker(worker, event));
    }

    fn ready(&mut self, name: &str) {
        self.tell(name, WorkerEvent::Started { pid: Pid(7) });
        self.tell(name, WorkerEvent::SaidReady);
    }

    fn exits(&mut self, name: &str) {
        self.tell(name, WorkerEvent::Exited { how: Exit::Code(0), left: 0, used: None });
    }

    fn read(&mut self, name: &str) {
        let (service, at) = (self.id(name), self.at(name));
        let (generation, bind) = self.to_read[at].take().expect("it is to be read");
        let bound = bind.into_iter().map(|member| BoundMember { member, name: "a".to_owned() });
        let bound = bound.collect();
        self.happens(Event::Prepared { service, generation, bound, by_path: None });
    }

    fn cannot(&mut self, name: &str, fault: Fault) {
        let (service, at) = (self.id(name), self.at(name));
        let (generation, _) = self.to_read[at].take().expect("it is to be read");
        self.happens(Event::PrepareFailed { service, generation, fault });
    }

    fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }

    fn response(&self, request: u64) -> Option<&Response> {
        self.responses.iter().find(|(id, _)| *id == request).map(|(_, response)| response)
    }

    /// The names of the services in which a request was done, once it is.
    fn done(&self, request: u64) -> Option<Vec<&str>> {
        let Response::Done(all) = self.response(request)? else { return None };
        Some(all.iter().map(|outcome| outcome.name.as_str()).collect())
    }

    /// Why a request was refused, in the words of a user; of several reasons the worst.
    fn refused(&self, request: u64) -> Option<String> {
        match self.response(request)? {
            Response::Refused(refusal) => Some(refusal.to_string()),
            Response::Divided(parts) => match worst(parts)? {
                End::Refused(refusal) => Some(refusal.to_string()),
                End::Done(_) | End::LeftOut | End::Aborted(_) => None,
            },
            Response::Done(_) | Response::Aborted(_) => None,
        }
    }

    fn states(&self) -> Vec<ServiceState> {
        self.supervisor.status(self.now).services.iter().map(|service| service.state).collect()
    }
}

fn policy(services: Services<'_>, at: usize) -> Policy {
    let (name, bound, depends) = services[at];
    let number = |name: &&str| {
        let at = services.iter().position(|(it, ..)| it == name).expect("there is one");
        ServiceId(u32::try_from(at).expect("few"))
    };
    let wait = Duration::from_secs(60);
    let service = ServiceId(u32::try_from(at).expect("few"));
    Policy {
        service,
        name: name.to_owned(),
        workers: 1,
        on_failing: OnFailing::Wait,
        sockets: vec![Socket {
            id: SocketId(service.0),
            name: name.to_owned(),
            members: Members::Shared,
            steered: false,
            refusable: false,
        }],
        ready: ReadyWhen::Notify,
        ready_timeout: wait,
        check_pace: CheckPace { interval: wait, timeout: wait },
        surge: Surge::Percent(100),
        canary: None,
        probation: Duration::ZERO,
        before_stop: BeforeStop::Auto,
        keepalive: KeepAlive::default(),
        stop: StopLadder::new(StopStep { signal: Signal::Term, wait }, vec![]),
        starting_max: 1,
        launching_max: 1,
        proxy: None,
        depends_on: depends.iter().map(number).collect::<BTreeSet<_>>(),
        bind_to: bound.iter().map(number).collect::<BTreeSet<_>>(),
    }
}

fn stop_all(world: &mut World) {
    let stop = world.stop("db");
    for name in ["web", "api", "db"] {
        world.exits(name);
    }
    assert_eq!(world.done(stop), Some(vec!["db", "api", "web"]));
    world.told.clear();
}

#[test]
fn a_chain_stops_from_its_end_and_each_serves_until_its_turn() {
    let mut world = World::new(DB_API_WEB);
    let stop = world.stop("db");
    let along = ["api stop with db", "web stop with api"];
    assert_eq!(world.told(), [&along[..], &["2 closes", "web stops"]].concat());
    // It still serves: a worker that ends is replaced.
    world.exits("api");
    assert_eq!(world.told(), ["api starts"]);
    world.ready("api");
    world.exits("web");
    assert_eq!(world.told(), ["1 closes", "api stops"]);
    world.exits("api");
    assert_eq!(world.told(), ["0 closes", "db stops"]);
    assert_eq!(world.done(stop), None);
    world.exits("db");
    assert_eq!(world.done(stop), Some(vec!["db", "api", "web"]));
    assert_eq!(world.states(), [ServiceState::Stopped; 3]);
}

#[test]
fn what_was_stopped_together_is_started_together_each_when_its_other_is_ready() {
    let mut world = World::new(DB_API_WEB);
    stop_all(&mut world);
    let start = world.start("db");
    let reads = ["db is read", "api start with db", "api is read", "web start with api"];
    assert_eq!(world.told(), [&reads[..], &["web is read"]].concat());
    for name in ["web", "db", "api"] {
        world.read(name);
    }
    assert_eq!(world.told(), ["db starts"]);
    world.ready("db");
    assert_eq!(world.told(), ["api starts"]);
    world.ready("api");
    assert_eq!(world.told(), ["web starts"]);
    assert_eq!(world.done(start), None);
    world.ready("web");
    assert_eq!(world.done(start), Some(vec!["db", "api", "web"]));
}

#[test]
fn one_that_an_operator_stopped_by_itself_stays_stopped() {
    let mut world = World::new(DB_API_WEB);
    let alone = world.stop("web");
    world.exits("web");
    assert_eq!(world.done(alone), Some(vec!["web"]));
    let stop = world.stop("db");
    world.exits("api");
    world.exits("db");
    assert_eq!(world.done(stop), Some(vec!["db", "api"]));
    let start = world.start("db");
    for name in ["db", "api"] {
        world.read(name);
        world.ready(name);
    }
    assert_eq!(world.done(start), Some(vec!["db", "api"]));
    assert_eq!(world.states(), [ServiceState::Up, ServiceState::Up, ServiceState::Stopped]);
    // And so it does where it is stopped by itself after it was with the other.
    stop_after(&mut world);
    assert_eq!(world.states()[1], ServiceState::Stopped);
}

fn stop_after(world: &mut World) {
    world.stop("db");
    world.exits("api");
    world.exits("db");
    let again = world.stop("api");
    assert_eq!(world.done(again), Some(vec!["api"]));
    let start = world.start("db");
    world.read("db");
    world.ready("db");
    assert_eq!(world.done(start), Some(vec!["db"]));
}

#[test]
fn one_is_not_started_without_its_other() {
    let mut world = World::new(DB_API_WEB);
    stop_all(&mut world);
    for request in [world.start("web"), world.restart("web")] {
        let refused = world.refused(request).expect("it is");
        assert_eq!(refused, "`web` is bound to `api`, which is stopped; start `api` first");
    }
    assert_eq!(world.told(), [""; 0]);
    assert_eq!(world.states(), [ServiceState::Stopped; 3]);
}

#[test]
fn one_that_is_bound_to_two_starts_with_the_last_of_them() {
    let mut world =
        World::new(&[("db", &[], &[]), ("api", &[], &[]), ("web", &["db", "api"], &[])]);
    world.stop("db");
    world.exits("web");
    world.exits("db");
    let stop = world.stop("api");
    world.exits("api");
    assert_eq!(world.done(stop), Some(vec!["api"]));
    let start = world.start("db");
    world.read("db");
    world.ready("db");
    assert_eq!(world.done(start), Some(vec!["db"]));
    let start = world.start("api");
    for name in ["api", "web"] {
        world.read(name);
        world.ready(name);
    }
    assert_eq!(world.done(start), Some(vec!["api", "web"]));
}

#[test]
fn a_restart_reads_all_then_stops_from_the_end_and_starts_from_the_beginning() {
    let mut world = World::new(DB_API_WEB);
    let restart = world.restart("api");
    let reads = ["api is read", "web restart with api", "web is read"];
    assert_eq!(world.told(), reads);
    world.read("api");
    assert_eq!(world.told(), [""; 0], "the other is not read");
    world.read("web");
    assert_eq!(world.told(), ["web stops"]);
    world.exits("web");
    assert_eq!(world.told(), ["api stops"], "nobody starts before the other has");
    world.exits("api");
    assert_eq!(world.told(), ["api starts"]);
    world.ready("api");
    assert_eq!(world.told(), ["web starts"]);
    world.ready("web");
    assert_eq!(world.done(restart), Some(vec!["api", "web"]));
    assert_eq!(world.states(), [ServiceState::Up; 3]);
}

#[test]
fn a_mistake_in_one_of_those_that_are_restarted_stops_nothing() {
    for (first, last) in [("db", "web"), ("web", "db")] {
        let mut world = World::new(DB_API_WEB);
        let restart = world.restart("db");
        world.told();
        world.read(first);
        world.cannot(last, Fault::Definition("no".to_owned()));
        assert_eq!(world.refused(restart).as_deref(), Some("no"));
        world.read("api");
        assert_eq!(world.told(), [""; 0]);
        assert_eq!(world.states(), [ServiceState::Up; 3]);
        // It can be asked for again.
        let again = world.restart("db");
        assert_eq!(world.refused(again), None);
    }
}

#[test]
fn a_restart_is_refused_for_a_reload_of_one_that_is_bound_and_nothing_changes() {
    let mut world = World::new(DB_API_WEB);
    world.reload("web");
    world.told();
    let restart = world.restart("db");
    let operation = Operation::Reload;
    let refusal = Refusal::InProgress { service: "web".to_owned(), operation };
    assert_eq!(world.responses, [(restart, Response::Refused(refusal))]);
    assert_eq!(world.told(), [""; 0]);
    let reloading = ServiceState::Reloading;
    assert_eq!(world.states(), [ServiceState::Up, ServiceState::Up, reloading]);
}

#[test]
fn a_stop_ends_the_reload_of_one_that_is_bound() {
    let mut world = World::new(DB_API_WEB);
    let reload = world.reload("api");
    let stop = world.stop("db");
    let aborted = world.response(reload);
    assert!(matches!(aborted, Some(Response::Aborted { .. })), "{aborted:?}");
    for name in ["web", "api", "db"] {
        world.exits(name);
    }
    assert_eq!(world.done(stop), Some(vec!["db", "api", "web"]));
}

#[test]
fn a_reload_and_a_crash_of_the_other_are_nothing_to_it() {
    let mut world = World::new(DB_API_WEB);
    let reload = world.reload("db");
    world.read("db");
    let old = world.workers[0];
    world.ready("db");
    world.happens(Event::Worker(
        WorkerId(old.0),
        WorkerEvent::Exited { how: Exit::Code(0), left: 0, used: None },
    ));
    assert!(world.done(reload).is_some());
    world.exits("db");
    assert!(world.told().iter().all(|what| what.starts_with("db ")));
    assert_eq!(world.states()[1..], [ServiceState::Up; 2]);
}

#[test]
fn one_that_only_depends_on_another_goes_on() {
    let mut world = World::new(&[("db", &[], &[]), ("web", &[], &["db"])]);
    let stop = world.stop("db");
    assert_eq!(world.told(), ["0 closes", "db stops"]);
    world.exits("db");
    assert_eq!(world.done(stop), Some(vec!["db"]));
    assert_eq!(world.states(), [ServiceState::Stopped, ServiceState::Up]);
}

#[test]
fn a_start_that_cannot_be_leaves_all_stopped_and_says_why() {
    let mut world = World::new(DB_API_WEB);
    stop_all(&mut world);
    for fault in [Fault::Sockets("in use".to_owned()), Fault::Definition("no".to_owned())] {
        let start = world.start("db");
        world.read("api");
        world.cannot("db", fault);
        let why = world.refused(start).expect("it is");
        assert!(["cannot start `db`: in use", "no"].contains(&why.as_str()), "{why}");
        assert_eq!(world.states(), [ServiceState::Stopped; 3]);
        // What was bound for nobody is closed.
        world.read("web");
        assert_eq!(world.told().iter().filter(|what| what.ends_with("closes")).count(), 2);
    }
    // They still start with it.
    let start = world.start("db");
    for name in ["db", "api", "web"] {
        world.read(name);
        world.ready(name);
    }
    assert_eq!(world.done(start), Some(vec!["db", "api", "web"]));
}

#[test]
fn one_that_could_not_be_started_with_the_others_is_with_the_next_start_of_any_of_them() {
    for other in ["db", "api"] {
        let mut world = World::new(DB_API_WEB);
        stop_all(&mut world);
        let start = world.start("db");
        world.cannot("web", Fault::Sockets("in use".to_owned()));
        for name in ["db", "api"] {
            world.read(name);
            world.ready(name);
        }
        assert_eq!(world.refused(start).as_deref(), Some("cannot start `web`: in use"));
        let start = world.start(other);
        world.read("web");
        world.ready("web");
        assert_eq!(world.done(start), Some(vec![other, "web"]));
    }
}

#[test]
fn whoever_starts_it_while_the_others_stop_gets_all_of_them_back() {
    let mut world = World::new(DB_API_WEB);
    let stop = world.stop("db");
    let start = world.start("db");
    world.exits("web");
    world.exits("api");
    world.read("web");
    world.read("api");
    world.exits("db");
    assert_eq!(world.done(stop), Some(vec!["db", "api", "web"]));
    world.read("db");
    for name in ["db", "api", "web"] {
        world.ready(name);
    }
    assert_eq!(world.done(start), Some(vec!["db", "api", "web"]));
}

#[test]
fn one_that_comes_to_be_bound_to_what_is_stopped_is_stopped_with_it() {
    let mut world = World::new(&[("db", &[], &[])]);
    world.stop("db");
    world.exits("db");
    let services: Services<'_> = &[("db", &[], &[]), ("web", &["db"], &[])];
    world.names.push("web".to_owned());
    world.workers.push(WorkerId(0));
    world.to_read.push(None);
    let reload = world.ask(Request::Reload { scope: Scope::All, behind: Behind::Queue });
    let services = vec![policy(services, 0), policy(services, 1)];
    let configuration = Configuration { services, removed: vec![] };
    world.happens(Event::ConfigurationRead { request: RequestId(reload), configuration });
    let refused = world.refused(reload).expect("it is");
    assert_eq!(refused, "`web` is bound to `db`, which is stopped; start `db` first");
    assert_eq!(world.states(), [ServiceState::Stopped; 2]);
    let start = world.start("db");
    for name in ["db", "web"] {
        world.read(name);
        world.ready(name);
    }
    assert_eq!(world.done(start), Some(vec!["db", "web"]));
}

#[test]
fn a_stop_of_everything_in_between_answers_all() {
    let mut world = World::new(DB_API_WEB);
    let stop = world.stop("db");
    let start = world.start("db");
    let all = world.ask(Request::Stop);
    let stopping = Refusal::Stopping.to_string();
    assert_eq!(world.refused(start), Some(stopping));
    for name in ["web", "api", "db"] {
        world.exits(name);
    }
    assert_eq!(world.done(stop), Some(vec!["db", "api", "web"]));
    assert_eq!(world.done(all), Some(vec![]));
}
