//! What is shown of a service of one worker that is reloaded.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::core::Supervisor;
use crate::core::action::Action;
use crate::core::configuration::Configuration;
use crate::core::drain::Remains;
use crate::core::event::{DrainSeen, Event, Left, WorkerEvent};
use crate::core::ids::{MemberId, Pid, RequestId, ServiceId, SocketId, WorkerId};
use crate::core::policy::{
    Balance, BeforeStop, BoundMember, CheckPace, KeepAlive, Members, OnFailing, Policy, ReadyWhen,
    Signal, Socket, StopLadder, StopStep, Surge,
};
use crate::core::request::{Behind, Request, Scope};
use crate::core::status::{ServiceStatus, Stage, WorkerStatus};
use crate::core::time::Time;

struct World {
    now: Time,
    policy: Policy,
    supervisor: Supervisor,
}

impl World {
    /// Its worker is ready.
    fn new(members: Members, before_stop: BeforeStop) -> World {
        let wait = Duration::from_secs(60);
        let steered = members != Members::Shared;
        let socket =
            Socket { id: SocketId(0), name: "http".to_owned(), members, steered, refusable: false };
        let policy = Policy {
            service: ServiceId(0),
            name: "web".to_owned(),
            workers: 1,
            on_failing: OnFailing::Wait,
            sockets: vec![socket],
            ready: ReadyWhen::Notify,
            ready_timeout: wait,
            check_pace: CheckPace { interval: wait, timeout: wait },
            before_stop,
            keepalive: KeepAlive::default(),
            stop: StopLadder::new(StopStep { signal: Signal::Term, wait }, vec![]),
            starting_max: 1,
            launching_max: 1,
            proxy: None,
            surge: Surge::Percent(100),
            canary: None,
            probation: Duration::ZERO,
            depends_on: BTreeSet::new(),
            bind_to: BTreeSet::new(),
        };
        let now = Time::ZERO + wait;
        let supervisor = Supervisor::new(now, vec![policy.clone()], 1);
        let mut world = World { now, policy, supervisor };
        world.comes_up(1);
        world
    }

    fn happens(&mut self, event: Event) -> Vec<Action> {
        self.supervisor.handle_event(self.now, event);
        self.actions()
    }

    /// What there is to do, after what is read and bound for it.
    fn actions(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        while let Some(action) = self.supervisor.poll_action() {
            if let Action::ReadConfiguration { request, .. } = &action {
                let (request, services) = (*request, vec![self.policy.clone()]);
                let configuration = Configuration { services, removed: Vec::new() };
                let read = Event::ConfigurationRead { request, configuration };
                self.supervisor.handle_event(self.now, read);
            }
            if let Action::Prepare { service, generation, bind, .. } = &action {
                let bound = bind.iter().map(|it| bound(it.member)).collect();
                let (service, generation) = (*service, *generation);
                let prepared = Event::Prepared { service, generation, bound, by_path: None };
                self.supervisor.handle_event(self.now, prepared);
            }
            actions.push(action);
        }
        actions
    }

    fn comes_up(&mut self, worker: u64) -> Vec<Action> {
        let mut tell = |event| self.happens(Event::Worker(WorkerId(worker), event));
        let mut actions = tell(WorkerEvent::Started { pid: Pid(7) });
        actions.extend(tell(WorkerEvent::SaidReady));
        actions
    }

    /// A second generation is ready.
    fn reload(&mut self) -> Vec<Action> {
        let request = Request::Reload { scope: Scope::All, behind: Behind::Refuse };
        self.happens(Event::Requested(RequestId(1), request));
        self.comes_up(2)
    }

    fn service(&self) -> ServiceStatus {
        self.supervisor.status(self.now).services.remove(0)
    }

    fn old_worker(&self) -> WorkerStatus {
        let workers = self.service().workers.into_iter();
        workers.clone().find(|worker| worker.worker == WorkerId(1)).expect("it is there")
    }
}

fn bound(member: MemberId) -> BoundMember {
    BoundMember { member, name: "http".to_owned() }
}

fn is_signal(action: &Action) -> bool {
    matches!(action, Action::Signal(WorkerId(1), Signal::Term))
}

#[test]
fn a_worker_that_finishes_what_it_has_is_shown_with_that_until_it_is_asked_to_stop() {
    let mut world = World::new(Members::EachGeneration, BeforeStop::Auto);
    assert_eq!(world.old_worker().left, None);
    assert!(!world.reload().iter().any(is_signal));
    let old = world.old_worker();
    assert_eq!((old.stage, old.left), (Stage::Draining, Some(Remains::default())));

    let mut look = |connections: u32| {
        world.now = world.now + Duration::from_secs(1);
        world.supervisor.handle_timeout(world.now);
        let actions = world.actions();
        let number = actions.iter().find_map(|action| {
            let Action::LookAtDrain { look, .. } = action else { return None };
            Some(look.number)
        });
        let left = Left { handshakes: Some(0), queued: Some(connections) };
        let seen = DrainSeen {
            number: number.expect("it is looked at"),
            members: vec![(MemberId(0), left)],
            workers: vec![(WorkerId(1), Some(connections))],
            asked: Vec::new(),
        };
        let seen = world.happens(Event::DrainSeen { service: ServiceId(0), seen });
        (world.old_worker().left, seen.iter().any(is_signal))
    };
    let remains =
        |count| Remains { handshakes: Some(0), queued: Some(count), connections: Some(count) };
    assert_eq!(look(2), (Some(remains(2)), false));
    assert_eq!(look(0), (Some(remains(0)), false));
    assert_eq!(look(0), (None, true));
    assert_eq!(world.old_worker().stage, Stage::Draining);
}

#[test]
fn a_worker_that_is_asked_to_stop_at_once_has_nothing_to_finish_before() {
    for (members, before_stop) in [
        (Members::EachGeneration, BeforeStop::For(Duration::ZERO)),
        (Members::Shared, BeforeStop::Auto),
    ] {
        let mut world = World::new(members, before_stop);
        assert!(world.reload().iter().any(is_signal));
        let old = world.old_worker();
        assert_eq!((old.stage, old.left), (Stage::Draining, None));
    }
}

#[test]
fn balance_is_the_one_that_the_sockets_have() {
    let bound = || vec![bound(MemberId(0))];
    for (members, balance) in [
        (Members::Shared, Some(Balance::Shared)),
        (Members::EachGeneration, Some(Balance::Generation)),
        (Members::EachWorker { bound: bound() }, Some(Balance::Slots)),
        (Members::EachSlot { bound: bound(), slots_max: 9 }, None),
    ] {
        let world = World::new(members, BeforeStop::Auto);
        assert_eq!(world.service().balance, balance);
    }
}
