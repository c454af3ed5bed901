//! Daemons to be shown, for tests.

use crate::control::wire::{
    BackingOff, Canary, Daemon, Event, Left, Level, Member, MemberState, Service, ServiceState,
    Socket, Status, Worker, WorkerState,
};

use super::{Colour, Look};

pub(in crate::cli) const TERMINAL: Look = Look { width: Some(80), colour: Colour::None };
pub(in crate::cli) const NARROW: Look = Look { width: Some(48), colour: Colour::None };
pub(in crate::cli) const COLOURED: Look = Look { width: Some(80), colour: Colour::Wanted };
pub(in crate::cli) const PIPE: Look = Look { width: None, colour: Colour::None };

pub(in crate::cli) fn daemon() -> Daemon {
    Daemon {
        name: "shop".to_owned(),
        version: "0.1.0".to_owned(),
        pid: 4200,
        up: 11_520.0,
        stopping: false,
        file: None,
        drains_in: None,
        longest_turn: 0.0,
    }
}

pub(in crate::cli) fn worker(id: u64, slot: u32, generation: u64, state: WorkerState) -> Worker {
    let pid = u32::try_from(id).ok().map(|id| 4230 + id);
    Worker {
        id,
        slot,
        generation,
        pid,
        state,
        since: 8000.4,
        left: None,
        next_in: None,
        stalled: false,
        memory: None,
        connections: None,
        messages: None,
        unanswered: None,
        taken: None,
        said: None,
    }
}

/// One in which nothing waits.
pub(in crate::cli) fn socket(name: Option<&str>, address: &str) -> Socket {
    let member = Member {
        member: 1,
        generation: Some(3),
        slot: None,
        state: Some(MemberState::Serving),
        weight: Some(1),
        queued: Some(0),
        queue_max: Some(4096),
        queued_bytes: None,
        queue_max_bytes: None,
    };
    let name = name.map(str::to_owned);
    Socket { name, address: address.to_owned(), members: vec![member] }
}

/// Two workers of generation 3 that are ready.
pub(in crate::cli) fn service(name: &str) -> Service {
    Service {
        name: name.to_owned(),
        state: ServiceState::Up,
        wanted: 2,
        ready: 2,
        generation: 3,
        balance: Some("generation".to_owned()),
        dispatched: None,
        reloading: None,
        canary: None,
        probation: None,
        changed_over: None,
        queued: false,
        last_abort: None,
        waits_for: Vec::new(),
        restarts: 0,
        sockets: vec![socket(None, "[::]:8000")],
        workers: vec![worker(8, 0, 3, WorkerState::Ready), worker(9, 1, 3, WorkerState::Ready)],
        backing_off: Vec::new(),
    }
}

/// A service in each state, with what is odd about it.
pub(in crate::cli) fn services() -> Vec<(&'static str, Service)> {
    use ServiceState::{Failing, Reloading, Starting, Stopped, Stopping, Waiting};
    use WorkerState::{Draining, Ready, Starting as Begins};
    let web = || service("web");
    let soon = |worker: Worker| Worker { since: 0.42, ..worker };
    let nobody = || Service { workers: Vec::new(), ready: 0, ..web() };
    vec![
        ("waiting", Service { state: Waiting, waits_for: vec!["agent".into()], ..nobody() }),
        (
            "starting",
            Service {
                state: Starting,
                ready: 1,
                generation: 1,
                workers: vec![
                    soon(worker(1, 0, 1, Ready)),
                    soon(Worker {
                        pid: None,
                        said: Some("warming up".into()),
                        ..worker(2, 1, 1, Begins)
                    }),
                ],
                ..web()
            },
        ),
        ("up", web()),
        (
            "up, and the last reload failed",
            Service {
                last_abort: Some(
                    "reload to generation 4 aborted: worker 10 (web.0) exited with code 3 before it \
                     was ready"
                        .into(),
                ),
                ..web()
            },
        ),
        (
            "reloading",
            Service {
                state: Reloading,
                reloading: Some(4),
                queued: true,
                workers: vec![
                    worker(8, 0, 3, Ready),
                    soon(worker(10, 0, 4, Ready)),
                    worker(9, 1, 3, Ready),
                    soon(worker(11, 1, 4, Begins)),
                ],
                ..web()
            },
        ),
        (
            "up, old workers drain",
            Service {
                workers: vec![
                    soon(Worker { said: Some("2 requests left".into()), ..worker(6, 0, 2, Draining) }),
                    worker(8, 0, 3, Ready),
                    worker(9, 1, 3, Ready),
                ],
                ..web()
            },
        ),
        ("reloading, with a canary", canary()),
        ("up, on probation", Service { probation: Some(43.2), ..web() }),
        ("up, a worker takes nothing", stalled()),
        ("up, old workers finish what they have before the stop signal", finishing()),
        (
            "failing",
            Service {
                state: Failing,
                ready: 0,
                restarts: 24,
                workers: vec![soon(worker(31, 1, 3, Begins))],
                backing_off: vec![BackingOff { slot: 0, left: 27.3 }],
                ..web()
            },
        ),
        (
            "stopping",
            Service {
                state: Stopping,
                ready: 0,
                workers: vec![soon(worker(8, 0, 3, Draining)), soon(worker(9, 1, 3, Draining))],
                ..web()
            },
        ),
        ("stopped", Service { state: Stopped, ..nobody() }),
    ]
}

/// Old workers of it have not got the stop signal.
fn finishing() -> Service {
    let draining = |id, slot, left| Worker {
        since: 0.42,
        left: Some(left),
        next_in: Some(14.6),
        ..worker(id, slot, 2, WorkerState::Draining)
    };
    let left = Left { connections: Some(2), queued: Some(1), handshakes: Some(0) };
    let mut service = service("web");
    service.balance = Some("slots".to_owned());
    service.workers.push(draining(6, 0, left));
    service.workers.push(Worker { said: Some("idle".into()), ..draining(7, 1, Left::default()) });
    service
}

/// Of a reload all workers are ready and get a part of new connections.
pub(in crate::cli) fn canary() -> Service {
    let mut service = service("web");
    service.state = ServiceState::Reloading;
    service.reloading = Some(4);
    service.canary = Some(Canary { percent: 5, left: 12.3 });
    service.workers.push(worker(10, 0, 4, WorkerState::Ready));
    service.workers.push(worker(11, 1, 4, WorkerState::Ready));
    let members = &mut service.sockets[0].members;
    members.push(Member { member: 2, generation: Some(4), weight: Some(5), ..members[0].clone() });
    members[0].weight = Some(95);
    members.push(Member {
        member: 3,
        generation: None,
        state: Some(MemberState::Spare),
        weight: Some(0),
        ..members[0].clone()
    });
    service
}

/// Each worker has a socket, and one takes nothing from it.
pub(in crate::cli) fn stalled() -> Service {
    let mut service = service("web");
    service.balance = Some("slots".to_owned());
    (service.wanted, service.ready) = (3, 3);
    service.workers.push(worker(10, 2, 3, WorkerState::Ready));
    service.workers[1].stalled = true;
    let members = &mut service.sockets[0].members;
    let one = members.remove(0);
    members.extend((0..3).map(|slot| Member { member: slot + 1, slot: Some(slot), ..one.clone() }));
    members[1].state = Some(MemberState::Stalled);
    (members[1].weight, members[1].queued) = (Some(0), Some(12));
    service
}

/// Two services with sockets, memory and notes.
pub(in crate::cli) fn shop() -> Status {
    let mut web = service("web");
    web.restarts = 1;
    web.sockets[0].members[0].queued = Some(3);
    web.sockets.push(socket(Some("admin"), "unix:/run/shop/admin.sock"));
    web.workers[0].memory = Some(47_185_920);
    web.workers[0].said = Some("1204 requests served, 3 under way, database is slow today".into());
    web.workers[1].memory = Some(1_610_612_736);
    web.workers[0].connections = Some(1207);
    web.workers[1].connections = Some(0);
    let mut jobs = service("background-jobs");
    jobs.sockets.clear();
    jobs.state = ServiceState::Failing;
    jobs.wanted = 1;
    jobs.ready = 0;
    jobs.restarts = 12;
    jobs.workers.clear();
    jobs.backing_off = vec![BackingOff { slot: 0, left: 3.2 }];
    let daemon = Daemon { file: Some("/etc/shop/shepherd.yaml".to_owned()), ..daemon() };
    Status { daemon, services: vec![web, jobs] }
}

/// Two hundred workers of one service.
pub(in crate::cli) fn crowd() -> Status {
    let mut web = service("web");
    (web.wanted, web.ready) = (200, 200);
    let ids = 0..200_u32;
    web.workers = ids.map(|slot| worker((slot + 1).into(), slot, 3, WorkerState::Ready)).collect();
    Status { daemon: daemon(), services: vec![web] }
}

/// An event about a worker of `web`.
pub(in crate::cli) fn worker_event(kind: &str, id: u64, slot: u32) -> Event {
    Event {
        service: Some("web".to_owned()),
        slot: Some(slot),
        worker: Some(id),
        message: format!("worker {id} (web.{slot}): {kind}"),
        ..event(kind)
    }
}

/// An event about nothing.
pub(in crate::cli) fn event(kind: &str) -> Event {
    Event {
        number: 7,
        time: "2026-01-31T12:00:00.123456Z".to_owned(),
        kind: kind.to_owned(),
        message: kind.to_owned(),
        level: Level::Info,
        service: None,
        slot: None,
        worker: None,
        pid: None,
        generation: None,
        left: None,
        dropped: None,
    }
}
