//! A service of two workers whose slots have sockets of their own, driven by hand.

#![expect(clippy::wildcard_enum_match_arm, reason = "what is not looked for does not matter")]

use std::collections::BTreeSet;
use std::time::Duration;

use crate::core::Supervisor;
use crate::core::action::{Action, NewMember, Share};
use crate::core::configuration::Configuration;
use crate::core::event::{
    Backlog, Event, Exit, Mode, Queued, Repair, SocketEvent, SocketState, WorkerEvent,
};
use crate::core::ids::{
    GenerationId, MemberId, Pid, RequestId, ServiceId, SlotId, SocketId, WorkerId,
};
use crate::core::notice::Notice;
use crate::core::policy::{
    BeforeStop, BoundMember, CheckPace, KeepAlive, Members, OnFailing, Policy, ReadyWhen, Signal,
    Socket, StopLadder, StopStep, Surge,
};
use crate::core::request::{Behind, Request, Scale, Scope};
use crate::core::stalls::{LOOK_CLOSE, LOOK_IDLE, LOOKS_STALLED};
use crate::core::time::{Time, Why};

const SERVICE: ServiceId = ServiceId(0);

struct World {
    now: Time,
    supervisor: Supervisor,
    policy: Policy,
    requests: u64,
}

impl World {
    /// Both workers' programs run. Each slot of a generation has a socket, and each slot a port.
    fn new(sockets: Vec<Socket>) -> World {
        let wait = Duration::from_secs(60);
        let policy = Policy {
            service: SERVICE,
            name: "web".to_owned(),
            workers: 2,
            on_failing: OnFailing::Wait,
            sockets,
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
        let mut world = World { now, supervisor, policy, requests: 0 };
        world.start([1, 2]);
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

    fn reload(&mut self) -> Vec<NewMember> {
        let actions = self.ask(Request::Reload { scope: Scope::All, behind: Behind::Queue });
        let bind = actions.into_iter().find_map(|action| match action {
            Action::Prepare { bind, .. } => Some(bind),
            _ => None,
        });
        bind.expect("a definition is read")
    }

    fn scale(&mut self, to: u32) -> Vec<Action> {
        self.ask(Request::Scale { services: Scope::All, to: Scale::To(to) })
    }

    fn prepared(&mut self, generation: u64, bind: &[NewMember]) -> Vec<Action> {
        let generation = GenerationId(generation);
        let bound = bind.iter().map(|new| bound(new.member.0)).collect();
        self.happens(Event::Prepared { service: SERVICE, generation, bound, by_path: None })
    }
}

fn bound(member: u32) -> BoundMember {
    BoundMember { member: MemberId(member), name: format!("port {member}") }
}

fn each_worker() -> Socket {
    let members = Members::EachWorker { bound: [10, 11].map(bound).into() };
    Socket { id: SocketId(1), name: "http".to_owned(), members, steered: true, refusable: false }
}

fn each_slot() -> Socket {
    let members = Members::EachSlot { bound: [20, 21].map(bound).into(), slots_max: 9 };
    Socket {
        id: SocketId(2),
        name: "8001+{slot}".to_owned(),
        members,
        steered: true,
        refusable: false,
    }
}

/// The shares of the last program for the first socket.
fn steered(actions: &[Action]) -> Option<Vec<(u32, u32)>> {
    let shares = actions.iter().rev().find_map(|action| match action {
        Action::Steer { group, shares } if group.socket == SocketId(1) => Some(shares),
        _ => None,
    });
    let pair = |share: &Share| (share.member.0, share.weight);
    shares.map(|shares| shares.iter().map(pair).collect())
}

fn bound_slots(actions: &[Action]) -> Vec<(Option<u64>, u32)> {
    let slots = actions.iter().filter_map(|action| match action {
        Action::BindSlot { generation, slot, .. } => Some((generation.map(|it| it.0), slot.0)),
        _ => None,
    });
    slots.collect()
}

#[test]
fn a_port_of_each_slot_hinders_nobody_from_finishing_what_came_by_another_socket() {
    let mut world = World::new(vec![each_worker(), each_slot()]);
    world.ready(1);
    world.ready(2);
    let bind = world.reload();
    assert_eq!(bind.iter().map(|new| new.socket.0).collect::<Vec<_>>(), [1, 1]);
    world.prepared(2, &bind);
    world.start([3]);
    world.ready(3);
    world.start([4]);
    let actions = world.ready(4);
    let emptied = actions.iter().filter(|it| matches!(it, Action::Notice(Notice::Emptying { .. })));
    assert_eq!(emptied.count(), 2);
    assert!(!actions.iter().any(|action| matches!(action, Action::Signal(..))));
}

#[test]
fn a_socket_that_is_given_up_hinders_nobody_from_finishing_what_came_by_another() {
    let members = Members::EachWorker { bound: [30, 31].map(bound).into() };
    let other = Socket {
        id: SocketId(3),
        name: "admin".to_owned(),
        members,
        steered: true,
        refusable: false,
    };
    let mut world = World::new(vec![each_worker(), other]);
    world.ready(1);
    world.ready(2);
    world.policy.sockets.pop();
    let bind = world.reload();
    world.prepared(2, &bind);
    world.start([3]);
    world.ready(3);
    world.start([4]);
    let actions = world.ready(4);
    let emptied = actions.iter().filter(|it| matches!(it, Action::Notice(Notice::Emptying { .. })));
    assert_eq!(emptied.count(), 2);
    assert!(!actions.iter().any(|action| matches!(action, Action::Signal(..))));
}

#[test]
fn more_slots_that_are_wanted_while_a_reload_binds_its_sockets_get_theirs_after_it() {
    let mut world = World::new(vec![each_worker()]);
    world.ready(1);
    world.ready(2);
    let bind = world.reload();
    assert_eq!(bound_slots(&world.scale(3)), [(Some(1), 2)]);
    let actions = world.prepared(2, &bind);
    assert_eq!(bound_slots(&actions), [(Some(2), 2)]);
}

#[test]
fn slots_that_are_bound_already_are_not_bound_for_an_heir_of_theirs() {
    let mut world = World::new(vec![each_worker()]);
    world.scale(3);
    // Nobody is ready, and somebody has failed.
    let how = Exit::Code(1);
    let exited = WorkerEvent::Exited { how, left: 0, used: None };
    world.happens(Event::Worker(WorkerId(1), exited));
    assert_eq!(world.reload(), [], "slot 2 is being bound for the one before");
    let members = vec![(SocketId(1), bound(12))];
    let (generation, slot) = (Some(GenerationId(1)), SlotId(2));
    world.happens(Event::SlotBound { service: SERVICE, generation, slot, members });
    world.prepared(2, &[]);
    world.start([3, 4, 5]);
    // Its first worker has what the others have, and is the only one that can take what comes.
    let actions = world.ready(4);
    assert_eq!(steered(&actions), Some(vec![(10, 1), (11, 0), (12, 0)]));
}

#[test]
fn what_could_not_be_bound_for_a_generation_that_is_over_is_not_tried_again() {
    let mut world = World::new(vec![each_worker()]);
    world.ready(1);
    world.ready(2);
    let bind = world.reload();
    world.scale(3);
    let reason = "it is in use".to_owned();
    let (generation, slot) = (Some(GenerationId(1)), SlotId(2));
    world.happens(Event::SlotNotBound { service: SERVICE, generation, slot, reason });
    world.prepared(2, &bind);
    let (generation, members) = (Some(GenerationId(2)), vec![(SocketId(1), bound(15))]);
    world.happens(Event::SlotBound { service: SERVICE, generation, slot, members });
    assert!(world.supervisor.next_deadline().is_some_and(|(_, why)| why == Why::Socket));
    for worker in 3..6 {
        world.start([worker]);
        world.ready(worker);
    }
    assert!(world.supervisor.next_deadline().is_some_and(|(_, why)| why == Why::Empty));
}

#[test]
fn a_member_that_was_shut_down_gets_nothing_before_it_is_known_to_be_back() {
    let mut world = World::new(vec![each_worker()]);
    world.ready(1);
    world.ready(2);
    let shut_down = SocketEvent::ShutDown(Repair::Listen);
    let actions = world.happens(Event::Socket(MemberId(10), shut_down));
    let of_interest = |action: &&Action| matches!(action, Action::Steer { .. } | Action::Listen(_));
    let mut order = actions.iter().filter(of_interest);
    let first = order.next().cloned().into_iter().collect::<Vec<_>>();
    assert_eq!(steered(&first), Some(vec![(11, 1)]));
    assert_eq!(order.next(), Some(&Action::Listen(MemberId(10))));
    assert_eq!(steered(&actions), Some(vec![(11, 1), (10, 1)]));

    // That failed, and what was seen meanwhile has it listen all the same.
    let (repair, again) = (Repair::Listen, crate::core::event::Again::Later);
    let failed = SocketEvent::RepairFailed { repair, reason: "no".to_owned(), again };
    let actions = world.happens(Event::Socket(MemberId(10), failed));
    assert_eq!(steered(&actions), Some(vec![(11, 1)]));
    let state = SocketState { mode: Mode::Blocking, backlog: Backlog::Unseen };
    let seen = SocketEvent::Inspected { by: None, state };
    let actions = world.happens(Event::Socket(MemberId(10), seen));
    assert!(actions.contains(&Action::Listen(MemberId(10))));
    assert_eq!(steered(&actions), Some(vec![(11, 1), (10, 1)]));
}

#[test]
fn what_only_workers_that_stop_have_is_not_made_to_listen_again() {
    let mut world = World::new(vec![each_worker()]);
    world.ready(1);
    world.ready(2);
    let bind = world.reload();
    world.prepared(2, &bind);
    for worker in [3, 4] {
        world.start([worker]);
        world.ready(worker);
    }
    let shut_down = || SocketEvent::ShutDown(Repair::Listen);
    let listens = |actions: &[Action], member| actions.contains(&Action::Listen(MemberId(member)));
    let actions = world.happens(Event::Socket(MemberId(10), shut_down()));
    assert!(!listens(&actions, 10));
    let new: Vec<u32> = bind.iter().map(|new| new.member.0).collect();
    assert_eq!(steered(&actions), Some(vec![(new[1], 1), (11, 0), (new[0], 1)]));
    let state = |backlog| SocketState { mode: Mode::Blocking, backlog };
    let seen = |backlog| SocketEvent::Inspected { by: None, state: state(backlog) };
    assert!(!listens(&world.happens(Event::Socket(MemberId(10), seen(Backlog::Unseen))), 10));
    let changed = seen(Backlog::Changed { to: 5, from: 4096 });
    assert!(listens(&world.happens(Event::Socket(MemberId(11), changed)), 11));
    assert!(listens(&world.happens(Event::Socket(MemberId(new[0]), shut_down())), new[0]));
}

/// Looks as long as a queue of the first member and one of the second take to be stalled: the actions
/// of the last look.
fn stall(world: &mut World, queued: [u32; 2]) -> Vec<Action> {
    (0..=LOOKS_STALLED).map(|_| look(world, queued)).last().expect("a look")
}

/// The next look at the queues of both workers.
fn look(world: &mut World, queued: [u32; 2]) -> Vec<Action> {
    let (at, why) = world.supervisor.next_deadline().expect("a look");
    assert!(why == Why::Queue && at > world.now, "{why:?}");
    world.now = at;
    world.supervisor.handle_timeout(at);
    let asked: Vec<Action> = std::iter::from_fn(|| world.supervisor.poll_action()).collect();
    let [Action::LookAtQueues { service, members }] = &asked[..] else { panic!("{asked:?}") };
    let seen = members.iter().zip(queued);
    let seen = seen.map(|(&member, count)| (member, Some(Queued::Connections(count)))).collect();
    world.happens(Event::QueuesSeen { service: *service, members: seen })
}

fn stalls(actions: &[Action]) -> Vec<String> {
    let told = actions.iter().filter_map(|action| match action {
        Action::Notice(notice @ Notice::Stall { .. }) => Some(notice.to_string()),
        _ => None,
    });
    told.collect()
}

#[test]
fn new_connections_pass_a_worker_by_that_takes_nothing_until_it_does() {
    let mut world = World::new(vec![each_worker()]);
    world.ready(1);
    assert!(world.supervisor.next_deadline().is_none_or(|(_, why)| why != Why::Queue), "alone");
    world.ready(2);
    let before = world.now;
    let actions = stall(&mut world, [0, 12]);
    assert_eq!(world.now.since(before), LOOK_IDLE + LOOK_CLOSE * LOOKS_STALLED);
    assert_eq!(steered(&actions), Some(vec![(10, 1), (11, 0)]));
    let told = "worker 2 (web.1) hangs or does not keep up: 12 connections in its queue at \
                `port 11`, no fewer for 2 s; new ones go to the others";
    assert_eq!(stalls(&actions), [told]);
    assert_eq!(steered(&look(&mut world, [0, 12])), None);
    let actions = look(&mut world, [0, 11]);
    assert_eq!(steered(&actions), Some(vec![(10, 1), (11, 1)]));
    let told = "worker 2 (web.1) takes from its queue at `port 11` again, after 4 s, and gets new \
                connections";
    assert_eq!(stalls(&actions), [told]);
}

#[test]
fn where_all_take_nothing_new_connections_go_where_they_went() {
    let mut world = World::new(vec![each_worker()]);
    world.ready(1);
    world.ready(2);
    let actions = stall(&mut world, [3, 12]);
    assert_eq!(steered(&actions), None);
    let told = stalls(&actions);
    assert!(told.len() == 2 && told[0].ends_with("new ones are spread as before"), "{told:?}");
    // One of them takes something again: it gets all.
    assert_eq!(steered(&look(&mut world, [2, 12])), Some(vec![(10, 1), (11, 0)]));
}

#[test]
fn the_next_worker_of_a_slot_has_not_been_seen_to_take_nothing() {
    let mut world = World::new(vec![each_worker()]);
    world.ready(1);
    world.ready(2);
    stall(&mut world, [0, 1]);
    let exited = WorkerEvent::Exited { how: Exit::KILLED, left: 0, used: None };
    let actions = world.happens(Event::Worker(WorkerId(2), exited));
    assert_eq!(stalls(&actions), Vec::<String>::new());
    assert!(world.supervisor.next_deadline().is_none_or(|(_, why)| why != Why::Queue), "alone");
    world.start([3]);
    assert_eq!(steered(&world.ready(3)), Some(vec![(10, 1), (11, 1)]));
    assert_eq!(steered(&look(&mut world, [0, 1])), None);
}

#[test]
fn one_that_takes_nothing_again_and_again_is_told_of_ever_more_rarely() {
    let mut world = World::new(vec![each_worker()]);
    world.ready(1);
    world.ready(2);
    let mut told = Vec::new();
    for round in 1..20 {
        if !stalls(&stall(&mut world, [0, 5])).is_empty() {
            told.push(round);
        }
        let again = stalls(&look(&mut world, [0, 0]));
        assert_eq!(again.is_empty(), told.last() != Some(&round));
    }
    assert_eq!(told, [1, 2, 3, 4, 5, 6, 7, 8, 16]);
}
