//! A service of two workers that shepherd accepts for, driven by hand.

#![expect(clippy::wildcard_enum_match_arm, reason = "what is not looked for does not matter")]

use std::collections::BTreeSet;
use std::time::Duration;

use crate::core::Supervisor;
use crate::core::action::{Action, Rotation};
use crate::core::configuration::Configuration;
use crate::core::event::{DrainSeen, Event, Exit, Left, WorkerEvent};
use crate::core::ids::{GenerationId, MemberId, Pid, RequestId, ServiceId, SocketId, WorkerId};
use crate::core::policy::{
    Algorithm, BeforeStop, BoundMember, CheckPace, KeepAlive, Members, OnFailing, Policy,
    ReadyWhen, Signal, Socket, StopLadder, StopStep, Surge,
};
use crate::core::request::{Behind, Request, Scale, Scope};
use crate::core::time::Time;

const SERVICE: ServiceId = ServiceId(0);
const MEMBER: MemberId = MemberId(1);

struct World {
    now: Time,
    supervisor: Supervisor,
    policy: Policy,
    requests: u64,
}

impl World {
    /// Both workers are ready, and what was told last.
    fn new(surge: Surge) -> World {
        let wait = Duration::from_secs(60);
        let policy = Policy {
            service: SERVICE,
            name: "web".to_owned(),
            workers: 2,
            on_failing: OnFailing::Wait,
            sockets: vec![Socket {
                id: SocketId(MEMBER.0),
                name: "port 1".to_owned(),
                members: Members::Dispatched(Algorithm::Sticky),
                steered: true,
                refusable: true,
            }],
            proxy: None,
            ready: ReadyWhen::Notify,
            ready_timeout: wait,
            check_pace: CheckPace { interval: wait, timeout: wait },
            surge,
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
        World { now, supervisor, policy, requests: 0 }
    }

    fn serving(surge: Surge) -> World {
        let mut world = World::new(surge);
        world.start([1, 2]);
        world.ready(1);
        world.ready(2);
        world
    }

    fn happens(&mut self, event: Event) -> Vec<Action> {
        self.supervisor.handle_event(self.now, event);
        std::iter::from_fn(|| self.supervisor.poll_action()).collect()
    }

    fn start<const N: usize>(&mut self, workers: [u64; N]) {
        for worker in workers {
            let pid = Pid(u32::try_from(worker).expect("few"));
            self.happens(Event::Worker(WorkerId(worker), WorkerEvent::Started { pid }));
        }
    }

    fn ready(&mut self, worker: u64) -> Vec<Action> {
        self.happens(Event::Worker(WorkerId(worker), WorkerEvent::SaidReady))
    }

    fn exits(&mut self, worker: u64) -> Vec<Action> {
        let exited = WorkerEvent::Exited { how: Exit::Code(1), left: 0, used: None };
        self.happens(Event::Worker(WorkerId(worker), exited))
    }

    fn ask(&mut self, request: Request) -> Vec<Action> {
        self.requests += 1;
        let id = RequestId(self.requests);
        let mut actions = self.happens(Event::Requested(id, request));
        if actions.iter().any(|action| matches!(action, Action::ReadConfiguration { .. })) {
            let services = vec![self.policy.clone()];
            let configuration = Configuration { services, removed: Vec::new() };
            actions.extend(self.happens(Event::ConfigurationRead { request: id, configuration }));
        }
        actions
    }

    /// A reload begins, and its definition is read.
    fn reload(&mut self, generation: u64) -> Vec<Action> {
        let actions = self.ask(Request::Reload { scope: Scope::All, behind: Behind::Queue });
        let binds = actions.iter().find_map(|action| match action {
            Action::Prepare { bind, .. } => Some(bind.len()),
            _ => None,
        });
        let is_dispatched = matches!(self.policy.sockets[0].members, Members::Dispatched(_));
        let expected = usize::from(!is_dispatched);
        assert_eq!(binds, Some(expected), "the socket is one for all generations");
        let generation = GenerationId(generation);
        let bound = (0..expected)
            .map(|_| BoundMember { member: MemberId(MEMBER.0 + 1), name: "port 1".to_owned() });
        let bound = bound.collect();
        self.happens(Event::Prepared { service: SERVICE, generation, bound, by_path: None })
    }
}

/// Who is given connections, as it was told last.
fn told(actions: &[Action]) -> Option<Vec<u64>> {
    let mut rotations = actions.iter().filter_map(|action| match action {
        Action::Rotate { rotation, .. } => Some(rotation),
        _ => None,
    });
    let Rotation { workers, .. } = rotations.next_back()?;
    Some(workers.iter().map(|turn| turn.worker.0).collect())
}

fn place(actions: &[Action], wanted: impl Fn(&Action) -> bool) -> Option<usize> {
    actions.iter().position(wanted)
}

#[test]
fn those_who_are_ready_are_given_connections_and_have_no_socket() {
    let mut world = World::new(Surge::Percent(100));
    let actions = std::iter::from_fn(|| world.supervisor.poll_action()).collect::<Vec<_>>();
    let spawns = actions.iter().filter_map(|action| match action {
        Action::Spawn(spawn) => Some((spawn.members.clone(), spawn.dispatched.clone())),
        _ => None,
    });
    assert_eq!(spawns.collect::<Vec<_>>(), [(vec![], vec![MEMBER]), (vec![], vec![MEMBER])]);
    assert_eq!(told(&actions), Some(vec![]), "where they come is known before anybody is ready");
    world.start([1, 2]);
    assert_eq!(told(&world.ready(2)), Some(vec![2]));
    let actions = world.ready(1);
    assert_eq!(told(&actions), Some(vec![1, 2]));
    let rotation = actions.iter().find_map(|action| match action {
        Action::Rotate { rotation, .. } => Some(rotation.clone()),
        _ => None,
    });
    let rotation = rotation.expect("it is told");
    assert_eq!((rotation.algorithm, rotation.members), (Algorithm::Sticky, vec![MEMBER]));
    assert!(rotation.workers.iter().all(|turn| turn.members == [MEMBER]));
}

#[test]
fn one_that_ends_or_says_that_it_stops_is_given_nothing_from_then_on() {
    let mut world = World::serving(Surge::Percent(100));
    assert_eq!(told(&world.exits(1)), Some(vec![2]));
    let stopping = Event::Worker(WorkerId(2), WorkerEvent::SaidStopping);
    assert_eq!(told(&world.happens(stopping)), Some(vec![]));
    world.start([3]);
    assert_eq!(told(&world.ready(3)), Some(vec![3]));
}

#[test]
fn a_reload_changes_all_at_its_commit_and_old_ones_finish_before_they_are_asked_to_stop() {
    let mut world = World::serving(Surge::Percent(100));
    world.reload(2);
    world.start([3]);
    assert_eq!(told(&world.ready(3)), None, "not before all are ready");
    world.start([4]);
    let actions = world.ready(4);
    assert_eq!(told(&actions), Some(vec![3, 4]));
    let signals = |actions: &[Action]| place(actions, |it| matches!(it, Action::Signal(..)));
    assert_eq!(signals(&actions), None);
    // Nothing is looked at but what they have open.
    let mut done = Vec::new();
    for number in 1..=2 {
        world.now = world.supervisor.next_deadline().expect("a look").0;
        world.supervisor.handle_timeout(world.now);
        let looks = std::iter::from_fn(|| world.supervisor.poll_action());
        let looks = looks.collect::<Vec<_>>();
        let looks_at_none = |action: &Action| match action {
            Action::LookAtDrain { look, .. } => look.members.is_empty() && look.workers.len() == 2,
            _ => false,
        };
        assert!(place(&looks, looks_at_none).is_some(), "{looks:?}");
        let workers = [1, 2].map(|worker| (WorkerId(worker), Some(0))).into();
        let seen = DrainSeen { number, members: vec![], workers, asked: vec![] };
        done = world.happens(Event::DrainSeen { service: SERVICE, seen });
    }
    assert!(signals(&done).is_some(), "{done:?}");
}

#[test]
fn what_waits_where_the_next_generation_takes_nothing_is_given_to_those_before() {
    let mut world = World::serving(Surge::Percent(100));
    world.policy.sockets[0].members = Members::EachGeneration;
    world.reload(2);
    world.start([3]);
    world.ready(3);
    world.start([4]);
    assert_eq!(told(&world.ready(4)), None, "they keep their turns");
    let mut done = Vec::new();
    for (number, queued) in (1..).zip([3, 0, 0]) {
        assert_eq!(told(&done), None);
        world.now = world.supervisor.next_deadline().expect("a look").0;
        world.supervisor.handle_timeout(world.now);
        let looks = std::iter::from_fn(|| world.supervisor.poll_action()).collect::<Vec<_>>();
        let looks_at_it = |action: &Action| match action {
            Action::LookAtDrain { look, .. } => look.members == [MEMBER],
            _ => false,
        };
        assert!(place(&looks, looks_at_it).is_some(), "{looks:?}");
        let workers = [1, 2].map(|worker| (WorkerId(worker), Some(0))).into();
        let left = Left { handshakes: Some(0), queued: Some(queued) };
        let seen = DrainSeen { number, members: vec![(MEMBER, left)], workers, asked: vec![] };
        done = world.happens(Event::DrainSeen { service: SERVICE, seen });
    }
    assert_eq!(told(&done), Some(vec![]));
    let asked = place(&done, |action| matches!(action, Action::Signal(..)));
    assert!(asked.is_some(), "{done:?}");
}

#[test]
fn fewer_workers_are_told_before_those_that_go_are_asked() {
    let mut world = World::serving(Surge::Percent(100));
    let actions = world.ask(Request::Scale { services: Scope::All, to: Scale::To(1) });
    assert_eq!(told(&actions), Some(vec![1]));
    let asked = place(&actions, |action| matches!(action, Action::Signal(..)));
    assert_eq!(asked, None, "it finishes what it has first");
}

#[test]
fn where_all_stop_nobody_is_waited_for() {
    let mut world = World::serving(Surge::Percent(100));
    let actions = world.ask(Request::Stop);
    assert_eq!(told(&actions), Some(vec![]));
    let term = |action: &&Action| matches!(action, Action::Signal(_, Signal::Term));
    let asked = actions.iter().filter(term).count();
    assert_eq!(asked, 2);
}

#[test]
fn a_slot_that_is_changed_over_gives_its_turn_to_the_new_worker() {
    let mut world = World::serving(Surge::Count(1));
    world.reload(2);
    world.start([3]);
    assert_eq!(told(&world.ready(3)), Some(vec![2, 3]));
    world.exits(1);
    world.start([4]);
    assert_eq!(told(&world.ready(4)), Some(vec![3, 4]));
}
