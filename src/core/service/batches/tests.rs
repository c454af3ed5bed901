//! A service of some workers behind a socket that is steered, whose slots are changed over in batches.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::core::Supervisor;
use crate::core::action::{Action, Announcement};
use crate::core::configuration::Configuration;
use crate::core::event::{Closing, DrainSeen, Event, Exit, Left, WorkerEvent};
use crate::core::ids::{
    GenerationId, MemberId, Pid, RequestId, ServiceId, SlotId, SocketId, WorkerId,
};
use crate::core::notice::Notice;
use crate::core::policy::{
    BeforeStop, BoundMember, Canary, CheckPace, KeepAlive, Members, OnFailing, Policy, ReadyWhen,
    Signal, Socket, StopLadder, StopStep, Surge,
};
use crate::core::request::{Behind, Request, Response, Scale, Scope};
use crate::core::time::Time;

const WEB: ServiceId = ServiceId(0);

const CANARY: Canary = Canary { percent: 5, time: Duration::from_secs(30) };

/// More than anything here takes.
const LONG: Duration = Duration::from_secs(3600);

/// More deadlines than anything here has.
const DEADLINES_MAX: usize = 100;

struct World {
    now: Time,
    supervisor: Supervisor,
    policy: Policy,
    last_request: u64,
    /// Workers that start, and their slots and generations.
    starting: VecDeque<(u64, u32, u64)>,
    alive: BTreeMap<WorkerId, (SlotId, GenerationId)>,
    /// The most that ever were.
    most: usize,
    /// Whether whoever is asked to stop does so at once.
    stop_at_once: bool,
    /// Those that were asked and have not.
    asked: Vec<WorkerId>,
    room: Option<u32>,
    told: Vec<String>,
    responses: Vec<(u64, Response)>,
    /// What the service manager was told last.
    announced: Option<Announcement>,
}

impl World {
    fn new(workers: u32, surge: Surge, slots: bool) -> World {
        let wait = Duration::from_secs(20);
        let bound = (10..10 + workers)
            .map(|id| BoundMember { member: MemberId(id), name: "http".to_owned() })
            .collect();
        let members = if slots { Members::EachWorker { bound } } else { Members::EachGeneration };
        let (id, name) = (SocketId(0), "http".to_owned());
        let policy = Policy {
            service: WEB,
            name: "web".to_owned(),
            workers,
            sockets: vec![Socket { id, name, members, steered: true, refusable: false }],
            ready: ReadyWhen::Notify,
            ready_timeout: wait,
            check_pace: CheckPace { interval: wait, timeout: wait },
            on_failing: OnFailing::Wait,
            keepalive: KeepAlive::Leave,
            surge,
            canary: None,
            probation: Duration::ZERO,
            before_stop: BeforeStop::Auto,
            stop: StopLadder::new(StopStep { signal: Signal::Term, wait }, vec![]),
            starting_max: 8,
            launching_max: 8,
            proxy: None,
            depends_on: BTreeSet::new(),
            bind_to: BTreeSet::new(),
        };
        let now = Time::ZERO + wait;
        let mut world = World {
            now,
            supervisor: Supervisor::new(now, vec![policy.clone()], 1),
            policy,
            last_request: 0,
            starting: VecDeque::new(),
            alive: BTreeMap::new(),
            most: 0,
            stop_at_once: true,
            asked: Vec::new(),
            room: None,
            told: Vec::new(),
            responses: Vec::new(),
            announced: None,
        };
        world.perform();
        world.come_up();
        world.told.clear();
        world
    }

    fn perform(&mut self) {
        while let Some(action) = self.supervisor.poll_action() {
            if let Action::Spawn(spawn) = action {
                self.starting.push_back((spawn.worker.0, spawn.slot.0, spawn.generation.0));
                self.alive.insert(spawn.worker, (spawn.slot, spawn.generation));
                self.most = self.most.max(self.alive.len());
            } else if let Action::ReadConfiguration { request, .. } = action {
                let services = vec![self.policy.clone()];
                let configuration = Configuration { services, removed: Vec::new() };
                self.feed(Event::ConfigurationRead { request, configuration });
            } else if let Action::Prepare { service, generation, bind, .. } = action {
                let name = || "http".to_owned();
                let bound = bind.iter().map(|it| BoundMember { member: it.member, name: name() });
                let bound = bound.collect();
                self.feed(Event::Prepared { service, generation, bound, by_path: None });
            } else if let Action::Weigh { service, generation, workers } = action {
                self.told.push(format!("{} are weighed", workers.len()));
                self.feed(Event::Weighed { service, generation, room: self.room });
            } else if let Action::LookAtDrain { service, look } = action {
                let left = Left { handshakes: Some(0), queued: Some(0) };
                let members = look.members.into_iter().map(|member| (member, left)).collect();
                let workers = look.workers.into_iter().map(|worker| (worker, Some(0))).collect();
                let asked =
                    look.asked.into_iter().map(|(it, _)| (it, Closing::default())).collect();
                let seen = DrainSeen { number: look.number, members, workers, asked };
                self.feed(Event::DrainSeen { service, seen });
            } else if let Action::Steer { shares, .. } = action {
                let shares = shares.iter().map(|it| it.weight.to_string());
                self.told.push(shares.collect::<Vec<_>>().join(" "));
            } else if let Action::Signal(worker, Signal::Term) = action {
                if self.stop_at_once {
                    self.gone(worker);
                } else {
                    self.asked.push(worker);
                }
            } else if let Action::Notice(notice @ Notice::Batch { .. }) = action {
                self.told.push(notice.to_string());
            } else if let Action::Announce(
                announcement @ (Announcement::Ready | Announcement::Reloading),
            ) = action
            {
                self.announced = Some(announcement);
            } else if let Action::Respond(id, response) = action {
                self.responses.push((id.0, response));
            }
        }
    }

    fn gone(&mut self, worker: WorkerId) {
        self.alive.remove(&worker);
        let exited = WorkerEvent::Exited { how: Exit::Code(0), left: 0, used: None };
        self.feed(Event::Worker(worker, exited));
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

    fn reload(&mut self) -> u64 {
        self.ask(Request::Reload { scope: Scope::All, behind: Behind::Refuse })
    }

    fn ready(&mut self, worker: u64) {
        self.happens(Event::Worker(WorkerId(worker), WorkerEvent::Started { pid: Pid(7) }));
        self.happens(Event::Worker(WorkerId(worker), WorkerEvent::SaidReady));
    }

    /// Those that start now get ready.
    fn batch(&mut self) -> Vec<(u32, u64)> {
        let batch = std::mem::take(&mut self.starting);
        for &(worker, ..) in &batch {
            self.ready(worker);
        }
        batch.into_iter().map(|(_, slot, generation)| (slot, generation)).collect()
    }

    /// Whoever starts gets ready, until nobody does.
    fn come_up(&mut self) {
        self.pass(Duration::from_secs(1));
        while !self.starting.is_empty() {
            self.batch();
            self.pass(Duration::from_secs(1));
        }
    }

    /// The next that starts exits.
    fn fail(&mut self) {
        let (worker, ..) = self.starting.pop_front().expect("one starts");
        self.exits(worker);
    }

    fn exits(&mut self, worker: u64) {
        self.alive.remove(&WorkerId(worker));
        let exited = WorkerEvent::Exited { how: Exit::Code(3), left: 0, used: None };
        self.happens(Event::Worker(WorkerId(worker), exited));
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

    /// How the last request ended: whether it was done, or all is put back.
    fn end(&mut self, request: u64) -> Option<Result<(), bool>> {
        let found = self.responses.iter().find(|(id, _)| *id == request)?;
        match &found.1 {
            Response::Done(_) => Some(Ok(())),
            Response::Aborted(abort) => Some(Err(abort.put_back)),
            other @ (Response::Refused(_) | Response::Divided(_)) => panic!("{other:?}"),
        }
    }

    /// The generations of the workers, slot by slot.
    fn generations(&self) -> Vec<u64> {
        let alive: BTreeSet<(SlotId, GenerationId)> = self.alive.values().copied().collect();
        alive.into_iter().map(|(_, generation)| generation.0).collect()
    }

    /// How many workers serve, as people see it.
    fn serving(&self) -> u32 {
        self.supervisor.status(self.now).services[0].ready
    }
}

#[test]
fn slots_are_changed_over_batch_by_batch_and_connections_with_them() {
    let mut world = World::new(4, Surge::Count(2), false);
    let reload = world.reload();
    let begin = "web: 4 workers are changed over in batches of 2";
    assert_eq!(world.told(), ["1 0", begin]);
    assert_eq!((world.batch(), world.serving()), (vec![(0, 2)], 4));
    let over = "web: 1 of 4 changed over to generation 2; an old worker whose socket others serve on \
                with is asked to stop at once";
    assert_eq!(world.told(), ["3 1", over]);
    assert_eq!((world.batch(), world.serving()), (vec![(1, 2), (2, 2)], 4));
    assert_eq!(world.told()[0], "1 3");
    assert_eq!((world.batch(), world.end(reload)), (vec![(3, 2)], Some(Ok(()))));
    assert_eq!(world.told(), ["0 1"], "the last ones finish what they have");
    world.pass(Duration::from_secs(2));
    assert_eq!((world.generations(), world.most), (vec![2; 4], 6));
}

#[test]
fn with_sockets_of_their_own_each_is_steered_away_from_before_it_stops() {
    let mut world = World::new(3, Surge::Percent(1), true);
    let reload = world.reload();
    world.told();
    assert_eq!(world.batch(), [(0, 2)]);
    // Each of three that serve gets as many as the others.
    let over = "web: 1 of 3 changed over to generation 2";
    assert_eq!(world.told(), ["0 2 2 2 0 0", over]);
    world.come_up();
    assert_eq!((world.end(reload), world.generations(), world.most), (Some(Ok(())), vec![2; 3], 4));
}

#[test]
fn a_draining_worker_counts_until_it_is_gone() {
    let mut world = World::new(3, Surge::Count(1), false);
    world.stop_at_once = false;
    world.reload();
    assert_eq!(world.batch(), [(0, 2)]);
    assert!(world.starting.is_empty(), "there are four, and one drains");
    let drains = world.asked.pop().expect("one is asked");
    world.gone(drains);
    world.perform();
    assert_eq!((world.batch(), world.most), (vec![(1, 2)], 4));
}

#[test]
fn without_a_surge_the_old_one_goes_first_and_what_waits_is_not_lost() {
    for slots in [false, true] {
        let mut world = World::new(1, Surge::Count(0), slots);
        world.stop_at_once = false;
        let reload = world.reload();
        assert!(world.starting.is_empty());
        let old = world.asked.pop().expect("one is asked");
        world.gone(old);
        world.perform();
        let given = world.starting.clone();
        assert_eq!(world.batch(), [(0, 2)], "{given:?}");
        assert_eq!((world.end(reload), world.most), (Some(Ok(())), 1));
        // It has the socket that the old one had: nothing was steered.
        assert!(world.told().iter().all(|told| !told.contains("0 1")), "{slots}");
    }
    let mut world = World::new(3, Surge::Percent(0), true);
    let reload = world.reload();
    world.pass(Duration::from_secs(2));
    assert_eq!(world.serving(), 2);
    while world.end(reload).is_none() {
        assert_eq!(world.batch().len(), 1);
        world.pass(Duration::from_secs(2));
    }
    assert_eq!((world.generations(), world.most), (vec![2; 3], 3));
}

#[test]
fn an_abort_puts_back_what_was_changed_over_before_the_new_ones_go() {
    for (surge, least, most) in [(1, 3, 4), (2, 3, 5), (0, 2, 3)] {
        let mut world = World::new(3, Surge::Count(surge), false);
        let reload = world.reload();
        world.pass(Duration::from_secs(2));
        world.batch();
        world.pass(Duration::from_secs(2));
        // The second batch fails.
        world.fail();
        assert_eq!(world.end(reload), None, "not before all is put back: surge {surge}");
        while world.end(reload).is_none() {
            assert!(world.serving() >= least, "surge {surge}");
            world.batch();
            world.pass(Duration::from_secs(2));
        }
        assert_eq!(world.end(reload), Some(Err(true)));
        assert_eq!((world.generations(), world.serving()), (vec![1; 3], 3));
        assert!(world.most <= most, "surge {surge}: {}", world.most);
        assert!(
            world.told().contains(&"web: put back: generation 1 serves in all slots".to_owned())
        );
    }
}

#[test]
fn what_serves_in_slots_that_there_were_not_before_goes_with_an_abort() {
    for surge in [0, 1] {
        let mut world = World::new(2, Surge::Count(surge), false);
        world.policy.workers = 4;
        let reload = world.reload();
        for _ in 0..3 {
            world.pass(Duration::from_secs(2));
            assert_eq!(world.batch().len(), 1);
        }
        world.pass(Duration::from_secs(2));
        world.fail();
        world.come_up();
        assert_eq!(world.end(reload), Some(Err(true)));
        assert_eq!((world.generations(), world.serving()), (vec![1; 2], 2), "surge {surge}");
    }
}

#[test]
fn a_new_worker_that_serves_already_aborts_when_it_exits_and_an_old_one_does_not() {
    let mut world = World::new(3, Surge::Count(1), false);
    let reload = world.reload();
    let (canary, ..) = world.starting[0];
    world.batch();
    world.exits(3);
    assert_eq!(world.end(reload), None);
    let started: BTreeSet<(u32, u64)> =
        world.starting.iter().map(|&(_, slot, generation)| (slot, generation)).collect();
    assert_eq!(started, BTreeSet::from([(1, 2), (2, 1)]));
    world.exits(canary);
    world.come_up();
    assert_eq!((world.end(reload), world.generations()), (Some(Err(true)), vec![1; 3]));
}

#[test]
fn what_cannot_be_put_back_is_said_and_another_reload_is_the_remedy() {
    let mut world = World::new(3, Surge::Count(1), false);
    let reload = world.reload();
    world.batch();
    world.fail();
    // An old one for the first slot is started.
    assert_eq!(world.starting.iter().map(|it| (it.1, it.2)).collect::<Vec<_>>(), [(0, 1)]);
    assert_eq!(world.announced, Some(Announcement::Reloading));
    world.fail();
    assert_eq!(world.end(reload), Some(Err(false)));
    assert_eq!(world.announced, Some(Announcement::Ready), "nobody waits for it any more");
    assert_eq!(world.serving(), 3, "the new one serves on in its slot");
    let next = world.reload();
    world.come_up();
    assert_eq!((world.end(next), world.generations()), (Some(Ok(())), vec![3; 3]));

    let mut world = World::new(2, Surge::Count(1), false);
    let reload = world.reload();
    world.batch();
    world.fail();
    world.fail();
    assert_eq!(world.end(reload), Some(Err(false)));
    world.pass(Duration::from_secs(2));
    world.come_up();
    assert_eq!(world.generations(), [1; 2], "it goes on being tried");
}

#[test]
fn the_canary_is_the_first_batch() {
    let mut world = World::new(3, Surge::Count(1), false);
    world.policy.canary = Some(CANARY);
    let reload = world.reload();
    world.told();
    world.batch();
    assert_eq!((world.told(), world.starting.len()), (vec!["95 5".to_owned()], 0));
    world.pass(CANARY.time);
    assert_eq!(world.told()[0], "2 1");
    world.come_up();
    assert_eq!(world.end(reload), Some(Ok(())));

    let mut world = World::new(3, Surge::Count(1), false);
    world.policy.canary = Some(CANARY);
    let reload = world.reload();
    world.batch();
    world.pass(CANARY.time);
    let back = world.ask(Request::RollBack(Scope::All));
    assert_eq!((world.end(reload), world.end(back)), (None, None));
    world.come_up();
    assert_eq!((world.end(reload), world.end(back)), (Some(Err(true)), Some(Ok(()))));
}

#[test]
fn memory_says_how_many_run_beside_the_old_ones() {
    let cases = [
        (None, 8, None),
        (Some(4), 8, None),
        (Some(9), 8, None),
        (Some(2), 6, Some("2 of 4")),
        (Some(0), 5, Some("none of 4")),
    ];
    for (room, most, said) in cases {
        let mut world = World::new(4, Surge::Auto, false);
        world.room = room;
        let reload = world.reload();
        let told = world.told();
        assert!(told.contains(&"4 are weighed".to_owned()), "{told:?}");
        let said_so = said.is_none_or(|said| told.iter().any(|it| it.contains(said)));
        assert!(said_so && (said.is_some() || told.len() == 2), "{told:?}");
        world.come_up();
        assert_eq!((world.end(reload), world.most), (Some(Ok(())), most), "{room:?}");
    }
    let mut world = World::new(1, Surge::Auto, false);
    world.reload();
    assert_eq!(world.told(), ["1 0"], "one is always beside the other");
}

#[test]
fn fewer_and_more_are_wanted_meanwhile() {
    let mut world = World::new(4, Surge::Count(1), true);
    let reload = world.reload();
    world.batch();
    world.ask(Request::Scale { services: Scope::All, to: Scale::To(2) });
    world.come_up();
    assert_eq!((world.end(reload), world.generations()), (Some(Ok(())), vec![2; 2]));

    let mut world = World::new(2, Surge::Count(1), false);
    let reload = world.reload();
    world.batch();
    world.ask(Request::Scale { services: Scope::All, to: Scale::To(3) });
    world.come_up();
    assert_eq!((world.end(reload), world.serving()), (Some(Ok(())), 3));
}

#[test]
fn a_stop_in_the_midst_of_it_leaves_nothing() {
    let mut world = World::new(3, Surge::Count(1), false);
    let reload = world.reload();
    world.batch();
    let stop = world.ask(Request::StopServices(vec!["web".to_owned()]));
    world.pass(LONG);
    assert_eq!((world.end(reload), world.end(stop)), (Some(Err(false)), Some(Ok(()))));
    assert!(world.alive.is_empty());

    let mut world = World::new(3, Surge::Count(1), false);
    let reload = world.reload();
    world.batch();
    world.fail();
    world.ask(Request::Stop);
    world.pass(LONG);
    assert_eq!(world.end(reload), Some(Err(false)));
    assert!(world.alive.is_empty());
}
