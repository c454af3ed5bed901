//! A service of two workers that are never ready, driven by hand.

#![expect(clippy::wildcard_enum_match_arm, reason = "what is not looked for does not matter")]

use std::collections::BTreeSet;
use std::time::Duration;

use crate::core::Supervisor;
use crate::core::action::Action;
use crate::core::configuration::Configuration;
use crate::core::event::{
    Backlog, Event, Exit, Mode, Repair, SocketEvent, SocketState, WorkerEvent,
};
use crate::core::ids::{MemberId, Pid, RequestId, ServiceId, SocketId, WorkerId};
use crate::core::notice::Notice;
use crate::core::policy::{
    BeforeStop, BoundMember, CheckPace, KeepAlive, Members, OnFailing, Policy, ReadyWhen, Signal,
    Socket, StopLadder, StopStep, Surge,
};
use crate::core::request::{Behind, Request, Scale, Scope};
use crate::core::restart::FAILING_AFTER;
use crate::core::status::MemberState;
use crate::core::time::Time;

struct World {
    now: Time,
    policy: Policy,
    supervisor: Supervisor,
    spawned: Vec<WorkerId>,
}

impl World {
    fn new(on_failing: OnFailing, refusable: bool) -> World {
        let wait = Duration::from_secs(60);
        let bound = |member| BoundMember { member: MemberId(member), name: "http".to_owned() };
        let members = Members::EachWorker { bound: [10, 11].map(bound).into() };
        let name = "http".to_owned();
        let socket = Socket { id: SocketId(1), name, members, steered: true, refusable };
        let policy = Policy {
            service: ServiceId(0),
            name: "web".to_owned(),
            workers: 2,
            on_failing,
            sockets: vec![socket],
            proxy: None,
            ready: ReadyWhen::Notify,
            ready_timeout: wait,
            check_pace: CheckPace { interval: wait, timeout: wait },
            surge: Surge::Percent(100),
            canary: None,
            probation: Duration::ZERO,
            before_stop: BeforeStop::Auto,
            keepalive: KeepAlive::default(),
            stop: StopLadder::new(StopStep { signal: Signal::Term, wait }, vec![]),
            starting_max: 9,
            launching_max: 9,
            depends_on: BTreeSet::new(),
            bind_to: BTreeSet::new(),
        };
        let now = Time::ZERO + wait;
        let supervisor = Supervisor::new(now, vec![policy.clone()], 1);
        let mut world = World { now, policy, supervisor, spawned: Vec::new() };
        world.actions();
        world
    }

    fn actions(&mut self) -> Vec<Action> {
        let actions: Vec<Action> = std::iter::from_fn(|| self.supervisor.poll_action()).collect();
        let spawned = actions.iter().filter_map(|action| match action {
            Action::Spawn(spawn) => Some(spawn.worker),
            _ => None,
        });
        self.spawned.extend(spawned);
        actions
    }

    fn happens(&mut self, event: Event) -> Vec<Action> {
        self.supervisor.handle_event(self.now, event);
        self.actions()
    }

    fn worker(&mut self, worker: WorkerId, event: WorkerEvent) -> Vec<Action> {
        self.happens(Event::Worker(worker, event))
    }

    fn socket(&mut self, member: u32, event: SocketEvent) -> Vec<Action> {
        self.happens(Event::Socket(MemberId(member), event))
    }

    /// All that were started exit before they are ready.
    fn fail(&mut self) -> Vec<Action> {
        let mut all = Vec::new();
        for worker in std::mem::take(&mut self.spawned) {
            self.worker(worker, WorkerEvent::Started { pid: Pid(7) });
            let how = Exit::Code(1);
            all.extend(self.worker(worker, WorkerEvent::Exited { how, left: 0, used: None }));
        }
        all
    }

    /// The next attempt.
    fn again(&mut self) -> Vec<Action> {
        let (at, _) = self.supervisor.next_deadline().expect("an attempt");
        self.now = at;
        self.supervisor.handle_timeout(at);
        self.actions()
    }

    /// Workers fail until the service does: the actions of the last turns.
    fn failing(&mut self) -> Vec<Action> {
        for _ in 0..FAILING_AFTER * 2 {
            let actions = self.fail();
            let is_told = |it: &Action| matches!(it, Action::Notice(Notice::Failing { .. }));
            if actions.iter().any(is_told) {
                return actions;
            }
            self.again();
        }
        panic!("it does not fail");
    }

    fn states(&self) -> Vec<MemberState> {
        let status = self.supervisor.status(self.now).services.remove(0);
        status.members.iter().map(|member| member.state).collect()
    }
}

/// What is done about listening, and when a worker is started.
fn deeds(actions: &[Action]) -> Vec<String> {
    let deeds = actions.iter().filter_map(|action| match action {
        Action::StopListening(member) => Some(format!("stop {member}")),
        Action::Listen(member) => Some(format!("listen {member}")),
        Action::Steer { shares, .. } => Some(format!("steer {}", shares.len())),
        Action::Spawn(_) => Some("spawn".to_owned()),
        _ => None,
    });
    deeds.collect()
}

#[test]
fn clients_are_refused_between_the_attempts_of_a_service_that_fails() {
    let mut world = World::new(OnFailing::Refuse, true);
    let actions = world.failing();
    assert_eq!(deeds(&actions), ["stop 10", "stop 11"]);
    let told = actions.iter().find_map(|action| match action {
        Action::Notice(notice @ Notice::Failing { .. }) => Some(notice.to_string()),
        _ => None,
    });
    assert!(told.expect("it is told").ends_with("; clients are refused between the attempts"));
    assert_eq!(world.states(), [MemberState::Down; 2]);
    // What is heard of it is no news, and mended by nobody.
    let shut_down = SocketEvent::ShutDown(Repair::Listen);
    assert_eq!(world.socket(10, shut_down), []);
    let state = SocketState { mode: Mode::Blocking, backlog: Backlog::Unseen };
    assert_eq!(world.socket(10, SocketEvent::Inspected { by: None, state }), []);

    let attempt = ["listen 10", "steer 1", "listen 11", "steer 2", "spawn"];
    assert_eq!(deeds(&world.again()), attempt);
    assert_eq!(deeds(&world.fail()), ["stop 10", "stop 11"]);
    world.again();
    // One that starts is enough for clients to wait.
    let first = world.spawned[0];
    world.worker(first, WorkerEvent::Started { pid: Pid(7) });
    assert_eq!(world.states(), [MemberState::Serving; 2]);
    let actions = world.worker(first, WorkerEvent::SaidReady);
    assert_eq!(deeds(&actions).last().map(String::as_str), Some("steer 2"));
    let how = Exit::Code(1);
    let actions = world.worker(first, WorkerEvent::Exited { how, left: 0, used: None });
    assert!(!deeds(&actions).iter().any(|deed| deed.starts_with("stop")), "it has been ready");
}

#[test]
fn a_reload_and_a_stop_end_it() {
    let mut world = World::new(OnFailing::Refuse, true);
    world.failing();
    let reload = Request::Reload { scope: Scope::All, behind: Behind::Refuse };
    let request = RequestId(1);
    world.happens(Event::Requested(request, reload));
    let services = vec![world.policy.clone()];
    let configuration = Configuration { services, removed: Vec::new() };
    let actions = world.happens(Event::ConfigurationRead { request, configuration });
    assert_eq!(deeds(&actions), ["listen 10", "steer 1", "listen 11", "steer 2"]);
    let prepares = actions.iter().position(|it| matches!(it, Action::Prepare { .. }));
    let listens = |it: &Action| matches!(it, Action::Listen(_));
    assert!(actions.iter().rposition(listens) < prepares, "{actions:?}");

    let mut world = World::new(OnFailing::Refuse, true);
    world.failing();
    let actions = world.happens(Event::Requested(RequestId(1), Request::Stop));
    let closed = [10, 11].map(|member| Action::Close(MemberId(member)));
    assert!(closed.iter().all(|close| actions.contains(close)), "{actions:?}");
    assert_eq!(deeds(&actions), Vec::<String>::new());
}

#[test]
fn clients_wait_where_that_is_wanted_and_where_they_cannot_be_refused() {
    for mut world in [World::new(OnFailing::Wait, true), World::new(OnFailing::Refuse, false)] {
        let actions = world.failing();
        assert_eq!(deeds(&actions), Vec::<String>::new());
        let told = actions.iter().any(|action| match action {
            Action::Notice(notice @ Notice::Failing { .. }) => {
                notice.to_string().ends_with("; clients wait meanwhile")
            }
            _ => false,
        });
        assert!(told, "{actions:?}");
    }
}

#[test]
fn what_a_worker_had_shut_down_listens_again_with_the_next_attempt_too() {
    let mut world = World::new(OnFailing::Refuse, true);
    // It cannot be mended at once.
    world.socket(11, SocketEvent::ShutDown(Repair::Listen));
    let (repair, again) = (Repair::Listen, crate::core::event::Again::Later);
    let reason = "no".to_owned();
    world.socket(11, SocketEvent::RepairFailed { repair, reason, again });
    let actions = world.failing();
    assert!(deeds(&actions).ends_with(&["stop 10".to_owned(), "stop 11".to_owned()]));
    assert_eq!(deeds(&world.again())[0], "listen 10");
}

#[test]
fn a_slot_that_is_given_up_before_its_socket_is_known_to_listen_leaves_the_order_known() {
    let mut world = World::new(OnFailing::Refuse, true);
    world.failing();
    let reload = Request::Reload { scope: Scope::All, behind: Behind::Refuse };
    let request = RequestId(1);
    world.happens(Event::Requested(request, reload));
    let services = vec![world.policy.clone()];
    let configuration = Configuration { services, removed: Vec::new() };
    let actions = world.happens(Event::ConfigurationRead { request, configuration });
    assert!(actions.contains(&Action::Listen(MemberId(11))), "{actions:?}");
    // Both were asked for at the same moment.
    let scale = Request::Scale { services: Scope::All, to: Scale::To(1) };
    let actions = world.happens(Event::Requested(RequestId(2), scale));
    assert!(actions.contains(&Action::Close(MemberId(11))), "{actions:?}");
    world.socket(10, SocketEvent::Listens);
    world.socket(11, SocketEvent::Listens);
    world.happens(Event::Closed(vec![MemberId(11)]));
    let scale = Request::Scale { services: Scope::All, to: Scale::To(3) };
    let mut actions = world.happens(Event::Requested(RequestId(3), scale));
    for _ in 0..2 {
        let mut binds = actions.iter().filter_map(|action| match action {
            Action::BindSlot { generation, slot, members, .. } => {
                Some((*generation, *slot, members.clone()))
            }
            _ => None,
        });
        let (generation, slot, members) = binds.next_back().expect("two slots lack a socket");
        let bound = |(socket, member)| (socket, BoundMember { member, name: "http".to_owned() });
        let members = members.into_iter().map(bound).collect();
        let service = ServiceId(0);
        world.happens(Event::SlotBound { service, generation, slot, members });
        actions.retain(|it| !matches!(it, Action::BindSlot { slot: it, .. } if *it == slot));
    }
    // The first leaves after the last two came.
    let actions = world.socket(10, SocketEvent::ShutDown(Repair::Listen));
    let order = actions.iter().find_map(|action| match action {
        Action::Steer { shares, .. } => Some(shares.iter().map(|it| it.member.0).collect()),
        _ => None,
    });
    assert_eq!(order, Some(vec![13, 12]), "{actions:?}");
}
