//! A service of two workers with one socket, driven by hand.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::core::Supervisor;
use crate::core::action::Action;
use crate::core::event::{
    Again, Backlog, Event, Grip, Mode, Repair, SocketEvent, SocketState, WorkerEvent,
};
use crate::core::ids::{GenerationId, MemberId, Pid, ServiceId, SocketId, WorkerId};
use crate::core::notice::{Notice, SocketNotice};
use crate::core::policy::{
    BeforeStop, CheckPace, KeepAlive, Members, OnFailing, Policy, ReadyWhen, Signal, Socket,
    StopLadder, StopStep, Surge,
};
use crate::core::suspicion::LOOK_AFTER;
use crate::core::time::Time;

const SOCKET: MemberId = MemberId(0);

struct World {
    now: Time,
    supervisor: Supervisor,
}

impl World {
    /// Both workers' programs run.
    fn new() -> World {
        let wait = Duration::from_secs(60);
        let policy = Policy {
            service: ServiceId(0),
            name: "web".to_owned(),
            workers: 2,
            on_failing: OnFailing::Wait,
            sockets: vec![Socket {
                id: SocketId(SOCKET.0),
                name: "http".to_owned(),
                members: Members::Shared,
                steered: false,
                refusable: false,
            }],
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
            starting_max: 2,
            launching_max: 2,
            depends_on: BTreeSet::new(),
            bind_to: BTreeSet::new(),
        };
        let now = Time::ZERO + wait;
        let mut world = World { now, supervisor: Supervisor::new(now, vec![policy], 1) };
        world.tell(1, started);
        world.tell(2, started);
        world
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.supervisor.poll_action()).collect()
    }

    fn happens(&mut self, event: Event) -> Vec<Action> {
        self.supervisor.handle_event(self.now, event);
        self.actions()
    }

    fn tell(&mut self, worker: u64, what: impl Fn(u64) -> WorkerEvent) -> Vec<Action> {
        self.happens(Event::Worker(WorkerId(worker), what(worker)))
    }

    fn socket(&mut self, member: MemberId, event: SocketEvent) -> Vec<Action> {
        self.happens(Event::Socket(member, event))
    }

    fn pass(&mut self, time: Duration) -> Vec<Action> {
        self.now = self.now + time;
        self.supervisor.handle_timeout(self.now);
        self.actions()
    }
}

fn started(worker: u64) -> WorkerEvent {
    WorkerEvent::Started { pid: Pid(u32::try_from(worker).expect("few")) }
}

#[test]
fn a_socket_that_stays_shut_down_is_no_new_deed_at_each_look() {
    let mut world = World::new();
    let shut_down = || SocketEvent::ShutDown(Repair::Bind);
    world.socket(SOCKET, shut_down());
    let reason = "it was handed over".to_owned();
    let failed = SocketEvent::RepairFailed { repair: Repair::Bind, reason, again: Again::Never };
    world.socket(SOCKET, failed);
    let looks = |actions: &[Action]| {
        actions.iter().filter(|action| matches!(action, Action::FindHolders { .. })).count()
    };
    assert_eq!(looks(&world.pass(LOOK_AFTER)), 1);
    let told = world.socket(SOCKET, SocketEvent::Held(vec![(WorkerId(1), Grip::LetGo)]));
    let is_told = |action: &Action| {
        let Action::Notice(Notice::Socket { what, .. }) = action else { return false };
        matches!(what, SocketNotice::ShutDown { times: 1, .. })
    };
    assert!(told.iter().any(is_told), "{told:?}");
    for _ in 0..3 {
        world.socket(SOCKET, shut_down());
        assert_eq!(looks(&world.pass(LOOK_AFTER)), 0);
    }
}

#[test]
fn a_worker_with_the_old_socket_does_not_choose_for_the_new_one() {
    let mut world = World::new();
    world.socket(SOCKET, SocketEvent::PathGone);
    let new = MemberId(SOCKET.0 + 1);
    world.socket(SOCKET, SocketEvent::Renewed { to: new });
    let look = |world: &mut World, worker, mode| {
        let by = Some(WorkerId(worker));
        let asked = world.tell(worker, |_| WorkerEvent::SaidReady);
        assert!(asked.contains(&Action::Inspect { member: new, by }), "{asked:?}");
        let state = SocketState { mode, backlog: Backlog::AsSet };
        world.socket(new, SocketEvent::Inspected { by, state })
    };
    // Both have the old one, and the new one is as it was bound.
    assert_eq!(look(&mut world, 1, Mode::Blocking), []);
    assert_eq!(look(&mut world, 2, Mode::Blocking), []);
    let (service, generation) = (ServiceId(0), GenerationId(2));
    world.happens(Event::Prepared { service, generation, bound: vec![], by_path: None });
    world.tell(3, started);
    // The first that has the new one, beside which another is started.
    let actions = look(&mut world, 3, Mode::NonBlocking);
    assert!(!actions.contains(&Action::SetMode(new, Mode::Blocking)), "{actions:?}");
}
