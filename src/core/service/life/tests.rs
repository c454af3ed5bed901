//! A service of two workers with one socket, stopped, started and restarted by hand.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::core::Supervisor;
use crate::core::action::{Action, NewMember};
use crate::core::event::{Event, Exit, Fault, WorkerEvent};
use crate::core::ids::{GenerationId, MemberId, Pid, RequestId, ServiceId, SocketId, WorkerId};
use crate::core::policy::{
    BeforeStop, BoundMember, CheckPace, KeepAlive, Members, OnFailing, Policy, ReadyWhen, Signal,
    Socket, StopLadder, StopStep, Surge,
};
use crate::core::refusal::{Operation, Refusal};
use crate::core::request::{Behind, Request, Response, Scope, ServiceOutcome};
use crate::core::status::ServiceState;
use crate::core::time::Time;

const WEB: ServiceId = ServiceId(0);

struct World {
    now: Time,
    supervisor: Supervisor,
    last_request: u64,
}

impl World {
    /// Both workers, 1 and 2, are ready.
    fn new() -> World {
        let wait = Duration::from_secs(60);
        let policy = Policy {
            service: WEB,
            name: "web".to_owned(),
            workers: 2,
            on_failing: OnFailing::Wait,
            sockets: vec![Socket {
                id: SocketId(0),
                name: "http".to_owned(),
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
            starting_max: 2,
            launching_max: 2,
            proxy: None,
            depends_on: BTreeSet::new(),
            bind_to: BTreeSet::new(),
        };
        let now = Time::ZERO + wait;
        let supervisor = Supervisor::new(now, vec![policy], 1);
        let mut world = World { now, supervisor, last_request: 0 };
        world.come_up([1, 2]);
        world
    }

    fn happens(&mut self, event: Event) -> Vec<Action> {
        self.supervisor.handle_event(self.now, event);
        std::iter::from_fn(|| self.supervisor.poll_action()).collect()
    }

    fn ask(&mut self, request: Request) -> Vec<Action> {
        self.last_request += 1;
        self.happens(Event::Requested(RequestId(self.last_request), request))
    }

    fn tell(&mut self, worker: u64, event: WorkerEvent) -> Vec<Action> {
        self.happens(Event::Worker(WorkerId(worker), event))
    }

    fn come_up(&mut self, workers: [u64; 2]) -> Vec<Action> {
        let mut actions = Vec::new();
        for worker in workers {
            actions.extend(self.tell(worker, WorkerEvent::Started { pid: Pid(7) }));
            actions.extend(self.tell(worker, WorkerEvent::SaidReady));
        }
        actions
    }

    fn exits(&mut self, worker: u64, code: i32) -> Vec<Action> {
        self.tell(worker, WorkerEvent::Exited { how: Exit::Code(code), left: 0, used: None })
    }

    fn read(&mut self, generation: u64, bound: &[u32]) -> Vec<Action> {
        let bound = bound
            .iter()
            .map(|&member| BoundMember { member: MemberId(member), name: "http".to_owned() });
        let generation = GenerationId(generation);
        let bound = bound.collect();
        self.happens(Event::Prepared { service: WEB, generation, bound, by_path: None })
    }

    fn state(&self) -> ServiceState {
        self.supervisor.status(self.now).services[0].state
    }
}

fn web() -> Vec<String> {
    vec!["web".to_owned()]
}

fn stop() -> Request {
    Request::StopServices(web())
}

fn start() -> Request {
    Request::StartServices(web())
}

fn restart() -> Request {
    Request::Restart(Scope::Named(web()))
}

fn responses(actions: &[Action]) -> Vec<(u64, Response)> {
    let response = |action: &Action| {
        let Action::Respond(id, response) = action else { return None };
        Some((id.0, response.clone()))
    };
    actions.iter().filter_map(response).collect()
}

fn done(generation: u64) -> Response {
    let (name, generation) = ("web".to_owned(), GenerationId(generation));
    Response::Done(vec![ServiceOutcome { name, generation, workers: 2 }])
}

fn stopping() -> Response {
    Response::Refused(Refusal::ServiceStopping { service: "web".to_owned() })
}

fn signalled(actions: &[Action]) -> Vec<u64> {
    let to = |action: &Action| {
        let Action::Signal(worker, Signal::Term) = action else { return None };
        Some(worker.0)
    };
    actions.iter().filter_map(to).collect()
}

fn has(actions: &[Action], wanted: &Action) -> bool {
    actions.contains(wanted)
}

fn spawned(actions: &[Action]) -> Vec<u64> {
    let spawned = |action: &Action| {
        let Action::Spawn(spawn) = action else { return None };
        Some(spawn.worker.0)
    };
    actions.iter().filter_map(spawned).collect()
}

#[test]
fn a_stop_closes_the_sockets_at_once_and_is_over_with_the_last_process() {
    let mut world = World::new();
    let actions = world.ask(stop());
    assert!(has(&actions, &Action::Close(MemberId(0))));
    assert_eq!(signalled(&actions), [1, 2]);
    assert_eq!((responses(&actions), world.state()), (vec![], ServiceState::Stopping));
    assert_eq!(responses(&world.exits(1, 0)), []);
    assert_eq!(responses(&world.exits(2, 0)), [(1, done(1))]);
    assert_eq!(world.state(), ServiceState::Stopped);
    // It is stopped already, and stays so whatever else is asked for.
    assert_eq!(responses(&world.ask(stop())), [(2, done(1))]);
    let reload = Request::Reload { scope: Scope::Named(web()), behind: Behind::Queue };
    let stopped = Response::Refused(Refusal::ServiceStopped { service: "web".to_owned() });
    assert_eq!(responses(&world.ask(reload)), [(3, stopped)]);
}

#[test]
fn a_start_binds_the_sockets_again_and_is_answered_when_all_are_ready() {
    let mut world = World::new();
    world.ask(stop());
    world.exits(1, 0);
    world.exits(2, 0);
    let bind = vec![NewMember { socket: SocketId(0), slot: None, member: MemberId(1) }];
    let generation = GenerationId(2);
    let prepare = Action::Prepare { service: WEB, generation, like: None, bind };
    assert!(has(&world.ask(start()), &prepare));
    let actions = world.read(2, &[1]);
    let members = |action: &Action| {
        let Action::Spawn(spawn) = action else { return None };
        Some(spawn.members.clone())
    };
    assert_eq!(actions.iter().find_map(members), Some(vec![MemberId(1)]));
    assert_eq!(responses(&world.come_up([3, 4])), [(2, done(2))]);
    assert_eq!(responses(&world.ask(start())), [(3, done(2))], "it runs already");
}

#[test]
fn a_start_that_cannot_be_leaves_it_stopped_and_says_why() {
    let mut world = World::new();
    world.ask(stop());
    world.exits(1, 0);
    world.exits(2, 0);
    for (last, fault, refusal) in [
        (2, Fault::Definition("no".to_owned()), Refusal::Configuration("no".to_owned())),
        (
            3,
            Fault::Sockets("in use".to_owned()),
            Refusal::Sockets { service: Some("web".to_owned()), reason: "in use".to_owned() },
        ),
    ] {
        world.ask(start());
        let generation = GenerationId(last);
        let actions = world.happens(Event::PrepareFailed { service: WEB, generation, fault });
        assert_eq!(responses(&actions), [(last, Response::Refused(refusal))]);
        assert_eq!(world.state(), ServiceState::Stopped);
    }
}

#[test]
fn the_first_end_of_a_start_is_told_and_the_start_goes_on() {
    let mut world = World::new();
    world.ask(stop());
    world.exits(1, 0);
    world.exits(2, 0);
    world.ask(start());
    world.read(2, &[1]);
    world.tell(3, WorkerEvent::Started { pid: Pid(7) });
    let failed = Response::Refused(Refusal::Failed {
        service: "web".to_owned(),
        reason: "worker 3 (web.0) exited with code 3 before it was ready; shepherd goes on trying"
            .to_owned(),
        worker: Some(WorkerId(3)),
    });
    assert_eq!(responses(&world.exits(3, 3)), [(2, failed)]);
    assert_eq!(world.state(), ServiceState::Starting);
}

#[test]
fn what_was_bound_for_a_start_that_is_off_is_closed() {
    let mut world = World::new();
    world.ask(stop());
    world.exits(1, 0);
    world.exits(2, 0);
    world.ask(start());
    assert_eq!(responses(&world.ask(stop())), [(2, stopping()), (3, done(1))]);
    assert!(has(&world.read(2, &[1]), &Action::Close(MemberId(1))));
    assert_eq!(world.state(), ServiceState::Stopped);
}

#[test]
fn a_restart_reads_first_and_keeps_the_sockets() {
    let mut world = World::new();
    let actions = world.ask(restart());
    assert_eq!((signalled(&actions), world.state()), (vec![], ServiceState::Up));
    let refused = Response::Refused(Refusal::InProgress {
        service: "web".to_owned(),
        operation: Operation::Restart,
    });
    assert_eq!(responses(&world.ask(restart())), [(2, refused)]);
    let actions = world.read(2, &[]);
    assert_eq!(signalled(&actions), [1, 2]);
    assert!(!has(&actions, &Action::Close(MemberId(0))));
    assert_eq!(spawned(&world.exits(1, 0)), [0; 0], "nobody runs beside an old one");
    assert_eq!(spawned(&world.exits(2, 0)), [3, 4]);
    assert_eq!(responses(&world.come_up([3, 4])), [(1, done(2))]);
}

#[test]
fn a_mistake_stops_nothing() {
    let mut world = World::new();
    world.ask(restart());
    let (generation, fault) = (GenerationId(2), Fault::Definition("no".to_owned()));
    let actions = world.happens(Event::PrepareFailed { service: WEB, generation, fault });
    let mistake = Response::Refused(Refusal::Configuration("no".to_owned()));
    assert_eq!((responses(&actions), signalled(&actions)), (vec![(1, mistake)], vec![]));
    assert_eq!(world.state(), ServiceState::Up);
}

#[test]
fn who_asks_last_wins_and_whoever_is_overtaken_is_told() {
    let mut world = World::new();
    world.ask(stop());
    world.ask(start());
    assert_eq!(responses(&world.ask(stop())), [(2, stopping())]);
    world.ask(start());
    world.exits(1, 0);
    let actions = world.exits(2, 0);
    assert_eq!(responses(&actions), [(1, done(1)), (3, done(1))], "and then it starts");
    assert_eq!(world.state(), ServiceState::Starting);
    world.read(2, &[1]);
    assert_eq!(responses(&world.come_up([3, 4])), [(4, done(2))]);
}

#[test]
fn a_worker_that_is_killed_on_request_is_replaced() {
    let mut world = World::new();
    let kill = Request::Signal { worker: WorkerId(1), signal: Signal::Kill };
    let actions = world.ask(kill);
    assert!(has(&actions, &Action::KillTree(WorkerId(1))));
    assert_eq!(responses(&actions), [(1, done(1))]);
    assert_eq!(spawned(&world.exits(1, 0)), [3]);
    let status = world.supervisor.status(world.now);
    assert_eq!(status.services[0].restarts, 1);
}
