//! The daemon as clients see it: what the core knows, and what only the shell does.

use std::time::Duration;

use crate::config::run::RunConfig;
use crate::config::service::ServiceConfig;
use crate::config::values;
use crate::control::readings::Whereabouts;
use crate::control::wire;
use crate::core::dispatch::WorkerView;
use crate::core::ids::WorkerId;
use crate::core::policy::{Balance, ReadyWhen};
use crate::core::status::{
    MemberState, MemberStatus, ServiceState, ServiceStatus, Stage, WorkerStatus,
};
use crate::os::clock;
use crate::os::socket_table::Place;

use super::super::dispatch::DispatchView;
use super::super::event_loop::Daemon;
use super::super::services;

impl Daemon {
    /// The daemon at this moment.
    pub(super) fn status(&self) -> wire::Status {
        let now = clock::now();
        let status = self.parts.supervisor.status(now);
        let daemon = wire::Daemon {
            name: self.parts.runtime_dir.name().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            up: seconds(now.since(self.control.since)),
            stopping: status.stopping,
            drains_in: status.lame_duck.map(seconds),
            longest_turn: self.control.counters.longest_turn().as_secs_f64(),
            file: self.control.file.clone(),
        };
        let services = status.services.into_iter().map(|service| self.service(service));
        wire::Status { daemon, services: services.collect() }
    }

    /// Where its workers and sockets are found by who reads what takes long.
    pub(super) fn whereabouts(&self) -> Whereabouts {
        let account = |worker: &WorkerId| Some((worker.0, self.processes.account(*worker)?));
        let members = self.parts.listeners.iter();
        Whereabouts {
            workers: self.workers.keys().filter_map(account).collect(),
            members: members.map(|(member, listener)| (member.0, Place::of(listener))).collect(),
        }
    }

    fn service(&self, service: ServiceStatus) -> wire::Service {
        let state = match service.state {
            ServiceState::Waiting => wire::ServiceState::Waiting,
            ServiceState::Starting => wire::ServiceState::Starting,
            ServiceState::Up => wire::ServiceState::Up,
            ServiceState::Reloading => wire::ServiceState::Reloading,
            ServiceState::Failing => wire::ServiceState::Failing,
            ServiceState::Stopping => wire::ServiceState::Stopping,
            ServiceState::Stopped => wire::ServiceState::Stopped,
        };
        let workers = service.workers.into_iter().map(|status| self.worker(status));
        let mut workers: Vec<wire::Worker> = workers.collect();
        workers.sort_by_key(|worker| (worker.slot, worker.id));
        let backing_off = service.backing_off.into_iter();
        let backing_off = backing_off
            .map(|(slot, left)| wire::BackingOff { slot: slot.0, left: seconds(left) })
            .collect();
        wire::Service {
            dispatched: self.dispatched(&service.name, service.balance),
            name: service.name,
            state,
            wanted: service.wanted,
            ready: service.ready,
            generation: service.generation.0,
            balance: service.balance.map(|balance| balance.name().to_owned()),
            reloading: service.reloading.map(|generation| generation.0),
            canary: service
                .canary
                .map(|canary| wire::Canary { percent: canary.percent, left: seconds(canary.left) }),
            probation: service.probation.map(seconds),
            changed_over: service.changed_over.map(|(over, _)| over),
            queued: service.queued,
            last_abort: service.last_abort,
            waits_for: service.waits_for,
            restarts: service.restarts,
            sockets: self.sockets(&service.members),
            workers,
            backing_off,
        }
    }

    fn dispatched(&self, service: &str, balance: Option<Balance>) -> Option<wire::Dispatched> {
        match balance? {
            Balance::Dispatch(_) => {}
            Balance::Generation | Balance::Slots | Balance::Shared => return None,
        }
        let mut names = self.parts.services.names.iter();
        let (&id, _) = names.find(|(_, name)| *name == service)?;
        let DispatchView { held, taken, given_again } =
            self.dispatching.service_view(id).unwrap_or_default();
        let held = u64::try_from(held).unwrap_or(u64::MAX);
        Some(wire::Dispatched { held, taken, given_again })
    }

    fn worker(&self, status: WorkerStatus) -> wire::Worker {
        let view = self.dispatching.view(status.worker);
        let unanswered = |view: WorkerView| u32::try_from(view.unacknowledged).unwrap_or(u32::MAX);
        let messages = self.messages.counted(status.worker);
        let worker = worker(status);
        wire::Worker {
            stalled: worker.stalled || view.is_some_and(|view| view.stalled),
            unanswered: view.map(unanswered),
            taken: view.map(|view| view.accepted),
            messages,
            ..worker
        }
    }

    /// Those that are bound to one address are one socket.
    fn sockets(&self, members: &[MemberStatus]) -> Vec<wire::Socket> {
        let mut sockets: Vec<wire::Socket> = Vec::new();
        for status in members {
            let Some(listener) = self.parts.listeners.get(&status.member) else { continue };
            let (name, address) = (listener.name.clone(), listener.place());
            let member = wire::Member {
                member: status.member.0,
                generation: status.generation.map(|generation| generation.0),
                slot: status.slot.map(|slot| slot.0),
                state: Some(member_state(status.state)),
                weight: status.weight,
                queued: None,
                queue_max: None,
                queued_bytes: None,
                queue_max_bytes: None,
            };
            let same = sockets.iter_mut().find(|it| it.name == name && it.address == address);
            match same {
                Some(socket) => socket.members.push(member),
                None => sockets.push(wire::Socket { name, address, members: vec![member] }),
            }
        }
        sockets
    }
}

fn member_state(state: MemberState) -> wire::MemberState {
    match state {
        MemberState::Serving => wire::MemberState::Serving,
        MemberState::Parked => wire::MemberState::Parked,
        MemberState::Stalled => wire::MemberState::Stalled,
        MemberState::Draining => wire::MemberState::Draining,
        MemberState::Spare => wire::MemberState::Spare,
        MemberState::Closing => wire::MemberState::Closing,
        MemberState::Down => wire::MemberState::Down,
    }
}

fn worker(status: WorkerStatus) -> wire::Worker {
    wire::Worker {
        id: status.worker.0,
        slot: status.slot.0,
        generation: status.generation.0,
        pid: status.pid.map(|pid| pid.0),
        state: match status.stage {
            Stage::Starting => wire::WorkerState::Starting,
            Stage::Ready => wire::WorkerState::Ready,
            Stage::Draining => wire::WorkerState::Draining,
        },
        since: seconds(status.since),
        left: status.left.map(wire::Left::from),
        next_in: status.next_in.map(seconds),
        stalled: status.stalled,
        memory: None,
        connections: None,
        messages: None,
        unanswered: None,
        taken: None,
        said: status.said,
    }
}

/// What runs, defaults filled in.
pub(super) fn config(config: &RunConfig) -> wire::Config {
    wire::Config { services: config.services.iter().map(service_config).collect() }
}

fn service_config(service: &ServiceConfig) -> wire::ServiceConfig {
    let text = |path: &std::path::PathBuf| path.to_string_lossy().into_owned();
    let source = &service.source;
    let ladder = service.stop.ladder(service.drain_timeout);
    // It has as many steps as there are, and then none.
    let steps = (0..).map_while(|rung| ladder.step(rung));
    wire::ServiceConfig {
        name: service.name.clone(),
        command: source.command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        directory: source.directory.as_ref().map(text),
        workers: services::workers(service.workers),
        listen: service.sockets.iter().map(ToString::to_string).collect(),
        handoff: source.handoff.name().to_owned(),
        node_fork: source.node_fork,
        ready: ready(&service.ready),
        ready_timeout: seconds(service.ready_timeout),
        balance: service.balance.name().to_owned(),
        on_failing: service.on_failing.name().to_owned(),
        before_stop: values::before_stop_text(service.before_stop),
        keepalive: service.keepalive.name().to_owned(),
        surge: values::surge_text(service.surge),
        canary: service.canary.map(|canary| format!("{}%", canary.percent)),
        canary_for: service.canary.map(|canary| seconds(canary.time)),
        probation: seconds(service.probation),
        stop: steps
            .map(|step| wire::StopStep {
                signal: step.signal.name().to_owned(),
                wait: seconds(step.wait),
            })
            .collect(),
        env: source.variables.iter().map(|(name, _)| name.clone()).collect(),
        env_files: source.env_files.iter().map(text).collect(),
        user: source.identity.user.as_ref().map(ToString::to_string),
        group: source.identity.group.as_ref().map(ToString::to_string),
        messages: source.messages,
        depends_on: service.depends_on.clone(),
        bind_to: service.bind_to.clone(),
    }
}

/// As `--ready` takes it.
fn ready(ready: &ReadyWhen) -> String {
    use crate::core::policy::Check;
    match ready {
        ReadyWhen::Auto => "auto".to_owned(),
        ReadyWhen::Notify => "notify".to_owned(),
        ReadyWhen::Listen => "listen".to_owned(),
        ReadyWhen::Message => "message".to_owned(),
        ReadyWhen::Alive(duration) => format!("alive:{}ms", duration.as_millis()),
        ReadyWhen::Check(Check::Tcp) => "tcp".to_owned(),
        ReadyWhen::Check(Check::Http(path)) => format!("http:{path}"),
        ReadyWhen::Check(Check::Exec(command)) => format!("exec:{command}"),
    }
}

/// Seconds as a number, to the millisecond.
fn seconds(duration: Duration) -> f64 {
    let millis = u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    f64::from(millis) / 1000.0
}
