//! The whole machine behind five methods; see the module above for how to drive it.

mod requests;

mod together;

mod configuring;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::action::{Action, Announcement};
use super::dependencies;
use super::event::{Event, SocketEvent};
use super::ids::{RequestId, ServiceId};
use super::notice::Notice;
use super::policy::{Members, Policy, Socket};
use super::request::Response;
use super::restart::Random;
use super::service::{Context, Outcome, Service};
use super::status::Status;
use super::time::{Time, Why, earlier};
use super::worker::{KILL_ROUNDS_MAX, KILL_WAIT, ORPHANS_WAIT};

use requests::Pending;

/// What a stop may take beyond the longest ladder: what main processes leave behind, and the rounds
/// of KILL.
const STOP_SLACK: Duration = ORPHANS_WAIT.saturating_add(KILL_WAIT.saturating_mul(KILL_ROUNDS_MAX));

/// Decides for all services. It knows no clock, process, descriptor or file.
#[derive(Debug, Clone)]
pub struct Supervisor {
    services: BTreeMap<ServiceId, Service>,
    phase: Phase,
    last_worker: u64,
    last_member: u32,
    random: Random,
    actions: VecDeque<Action>,
    /// How requests ended in single services.
    outcomes: Vec<Outcome>,
    /// Reloads that wait for the configuration.
    reading: BTreeSet<RequestId>,
    /// Those that have not ended in every service that they were for.
    pending: BTreeMap<RequestId, Pending>,
    /// How long everything serves on once a stop was asked for.
    lame_duck: Duration,
    told: Told,
}

/// Whether the daemon is up.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Running,
    /// Asked to stop; these wait for the end.
    Stopping {
        requests: Vec<RequestId>,
        interrupted: bool,
        stage: StopStage,
    },
    Finished,
}

/// How far a stop has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StopStage {
    /// Everything serves on until then, so that whoever sends work here can see that it ends.
    LameDuck { until: Time },
    /// The services were told.
    Draining,
}

/// What the service manager was last told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Told {
    standing: Standing,
    /// Whether all services of the first configuration have come up.
    came_up: bool,
    status: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Standing {
    #[default]
    ComingUp,
    Up,
    Reloading,
    Down,
}

impl Supervisor {
    /// A supervisor of these services, whose first definitions are read already, under number 1.
    /// `seed` decides the jitter. The first actions are there at once.
    #[must_use]
    pub fn new(now: Time, policies: Vec<Policy>, seed: u64) -> Supervisor {
        let sockets = policies.iter().flat_map(|policy| &policy.sockets);
        let last_member = sockets.map(last_member).max().unwrap_or(0);
        let services =
            policies.into_iter().map(|policy| (policy.service, Service::new(policy))).collect();
        let mut supervisor = Supervisor {
            services,
            phase: Phase::Running,
            last_worker: 0,
            last_member,
            random: Random::seeded(seed),
            actions: VecDeque::new(),
            outcomes: Vec::new(),
            reading: BTreeSet::new(),
            pending: BTreeMap::new(),
            lame_duck: Duration::ZERO,
            told: Told::default(),
        };
        supervisor.settle(now);
        supervisor
    }

    /// From here on a stop begins with a lame duck of this length: it is announced at once, and
    /// everything serves on for so long before the workers are asked to stop. Zero is none.
    pub fn set_lame_duck(&mut self, time: Duration) {
        self.lame_duck = time;
    }

    /// Tells the supervisor what happened.
    pub fn handle_event(&mut self, now: Time, event: Event) {
        match event {
            Event::Worker(worker, event) => {
                let owner = self.services.values_mut().find(|service| service.owns(worker));
                // Nobody owns it when it is gone already: then this is late news.
                if let Some(service) = owner {
                    let mut context = Context {
                        last_worker: &mut self.last_worker,
                        last_member: &mut self.last_member,
                        random: &mut self.random,
                        actions: &mut self.actions,
                        outcomes: &mut self.outcomes,
                    };
                    service.handle_worker(now, worker, event, &mut context);
                }
            }
            Event::Socket(member, event) => {
                // Nobody has it when it is closed already: then this is late news.
                let owner = self.services.iter().find(|(_, service)| service.has_member(member));
                if let Some((&id, _)) = owner {
                    self.with_service(id, |service, context| {
                        service.handle_socket(now, member, event, context);
                    });
                } else if let SocketEvent::Renewed { to } = event {
                    // Everything was closed while it was bound.
                    self.actions.push_back(Action::Close(to));
                } else {
                    self.with_services(|service, _| service.handle_late(member, &event));
                }
            }
            Event::Closed(members) => {
                self.with_services(|service, _| service.handle_closed(&members));
            }
            Event::Prepared { service, generation, bound, by_path } => {
                self.with_service(service, |service, context| {
                    service.tell_by_path(generation, by_path, context);
                    service.handle_prepared(generation, bound, context);
                });
            }
            Event::PrepareFailed { service, generation, fault } => {
                let restart = self.restart_of(service, generation, &fault);
                self.with_service(service, |service, context| {
                    service.handle_prepare_failed(now, generation, fault, context);
                });
                self.give_up_restarts(restart);
            }
            Event::SlotBound { service, generation, slot, members } => {
                self.with_service(service, |service, context| {
                    service.handle_slot_bound(generation, slot, members, context);
                });
            }
            Event::SlotNotBound { service, generation, slot, reason } => {
                self.with_service(service, |service, context| {
                    service.handle_slot_not_bound(now, generation, slot, reason, context);
                });
            }
            Event::SparesBound { service, members, failure } => {
                self.with_service(service, |service, context| {
                    service.handle_spares(members, failure.is_none(), context);
                });
            }
            Event::Weighed { service, generation, room } => {
                self.with_service(service, |service, context| {
                    service.handle_weighed(generation, room, context);
                });
            }
            Event::DrainSeen { service, seen } => {
                self.with_service(service, |service, context| {
                    service.handle_drain_seen(now, &seen, context);
                });
            }
            Event::QueuesSeen { service, members } => {
                self.with_service(service, |service, context| {
                    service.handle_queues_seen(now, &members, context);
                });
            }
            Event::Published { service, number, failure } => {
                self.with_service(service, |service, context| {
                    service.handle_published(now, number, failure, context);
                });
            }
            Event::ConfigurationRead { request, configuration } => {
                self.handle_configuration(request, configuration);
            }
            Event::ConfigurationFailed { request, fault } => {
                self.handle_configuration_failed(request, fault);
            }
            Event::Requested(id, request) => self.handle_request(now, id, request),
        }
        self.settle(now);
    }

    /// Acts on every deadline that has come. Call it when [`Supervisor::next_deadline`] has passed.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.lame_until().is_some_and(|until| until <= now) {
            self.drain(now);
        }
        self.with_services(|service, context| service.handle_timeout(now, context));
        self.settle(now);
    }

    /// The next thing to do, in order, until there is none.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Supervisor::handle_timeout`] if nothing happens before, and why.
    #[must_use]
    pub fn next_deadline(&self) -> Option<(Time, Why)> {
        let looks = self.services.values().map(Service::look_deadline);
        looks.fold(self.next_change(), earlier)
    }

    /// The same but for looks at queues, which go on as long as anything serves: without one, nothing
    /// is to come by itself.
    #[must_use]
    pub fn next_change(&self) -> Option<(Time, Why)> {
        let lame_duck = self.lame_until().map(|until| (until, Why::LameDuck));
        self.services.values().map(Service::deadline).fold(lame_duck, earlier)
    }

    /// What serves and what does not.
    #[must_use]
    pub fn status(&self, now: Time) -> Status {
        Status {
            services: self.services.values().map(|service| service.status(now)).collect(),
            stopping: self.phase != Phase::Running,
            lame_duck: self.lame_until().map(|until| now.until(until)),
        }
    }

    /// When a lame duck under way is over.
    fn lame_until(&self) -> Option<Time> {
        match self.phase {
            Phase::Stopping { stage: StopStage::LameDuck { until }, .. } => Some(until),
            Phase::Stopping { stage: StopStage::Draining, .. }
            | Phase::Running
            | Phase::Finished => None,
        }
    }

    /// Everything serves on. What serves is still restarted and repaired; what was asked for and
    /// would change it is off.
    fn begin_lame_duck(&mut self, now: Time) {
        self.notice(Notice::LameDuck { serves_on: self.lame_duck });
        self.with_services(|service, context| service.give_up_reloads(now, context));
    }

    /// From here on the workers drain.
    fn drain(&mut self, now: Time) {
        if let Phase::Stopping { stage, .. } = &mut self.phase {
            *stage = StopStage::Draining;
        }
        let workers = self.workers_alive();
        let kill_after = self.stop_takes();
        self.notice(Notice::Stopping { workers, kill_after });
        self.stop_next(now);
        // Those whose turn comes later serve whoever still needs them until then.
        self.with_services(|service, context| {
            if !service.is_stopping() {
                service.give_up_reloads(now, context);
            }
        });
    }

    /// While everything stops: asks those that nobody needs any more.
    fn stop_next(&mut self, now: Time) {
        let Phase::Stopping { stage: StopStage::Draining, .. } = self.phase else {
            return;
        };
        // Each turn asks one at least, and none twice.
        loop {
            let next = dependencies::next_to_stop(&self.services);
            if next.is_empty() {
                return;
            }
            for id in next {
                self.with_service(id, |service, context| service.stop(now, context));
            }
        }
    }

    fn kill(&mut self, now: Time) {
        let workers = self.workers_alive();
        self.notice(Notice::StoppingNow { workers });
        self.with_services(|service, context| service.kill(now, context));
    }

    /// Brings every service closer to what it should be, and says where things stand.
    fn settle(&mut self, now: Time) {
        self.stop_next(now);
        // The end of one is told before what follows from it.
        self.with_services(Service::take_next_step);
        self.bring_down(now);
        self.release(now);
        self.with_services(|service, context| service.settle(now, context));
        // One that has come up by that may be what others wait for, and one that has taken a definition
        // over may be bound to another that is stopped. Each turn changes one at least.
        while self.bring_down(now) | self.release(now) {
            self.with_services(|service, context| service.settle(now, context));
        }
        // Who has just lost its last worker that needed another frees that one.
        while self.dismiss_next(now) {
            self.with_services(|service, context| service.settle(now, context));
        }
        self.forget_dismissed();
        self.conclude_requests();
        self.announce(now);
        if self.services.values().all(Service::is_empty)
            && let Phase::Stopping { requests, stage: StopStage::Draining, .. } = &mut self.phase
        {
            for request in std::mem::take(requests) {
                self.actions.push_back(Action::Respond(request, Response::Done(Vec::new())));
            }
            self.phase = Phase::Finished;
            self.actions.push_back(Action::Finish);
        }
    }

    /// Tells the service manager what has changed since it was last told.
    fn announce(&mut self, now: Time) {
        let mut services = self.services.values();
        let standing = if self.phase != Phase::Running {
            Standing::Down
        } else if !self.told.came_up && !services.clone().all(Service::has_come_up) {
            Standing::ComingUp
        } else if services.any(Service::is_reloading) {
            Standing::Reloading
        } else {
            Standing::Up
        };
        if standing != self.told.standing {
            self.told.standing = standing;
            self.told.came_up |= standing != Standing::ComingUp;
            let announcement = match standing {
                Standing::ComingUp => None,
                Standing::Up => Some(Announcement::Ready),
                Standing::Reloading => Some(Announcement::Reloading),
                Standing::Down => {
                    let lame_duck = self.lame_until().map(|until| now.until(until));
                    let takes = dependencies::stop_takes(&self.services, STOP_SLACK);
                    Some(Announcement::Stopping(
                        lame_duck.unwrap_or_default().saturating_add(takes),
                    ))
                }
            };
            self.actions.extend(announcement.map(Action::Announce));
        }
        let status = if self.phase != Phase::Running && self.lame_until().is_none() {
            format!("stopping: {} workers left", self.workers_alive())
        } else {
            let lines = self.services.values().map(|service| service.headline().to_string());
            let soon = if self.phase == Phase::Running { "" } else { "stopping soon: " };
            format!("{soon}{}", lines.collect::<Vec<_>>().join("; "))
        };
        if status != self.told.status {
            self.told.status.clone_from(&status);
            self.actions.push_back(Action::Announce(Announcement::Status(status)));
        }
    }

    fn workers_alive(&self) -> u32 {
        self.services.values().map(Service::workers_alive).sum()
    }

    fn stop_takes(&self) -> Duration {
        dependencies::stop_takes(&self.services, Duration::ZERO)
    }

    fn notice(&mut self, notice: Notice) {
        self.actions.push_back(Action::Notice(notice));
    }

    fn with_service(&mut self, id: ServiceId, act: impl FnOnce(&mut Service, &mut Context<'_>)) {
        if let Some(service) = self.services.get_mut(&id) {
            let mut context = Context {
                last_worker: &mut self.last_worker,
                last_member: &mut self.last_member,
                random: &mut self.random,
                actions: &mut self.actions,
                outcomes: &mut self.outcomes,
            };
            act(service, &mut context);
        }
    }

    fn with_services(&mut self, mut act: impl FnMut(&mut Service, &mut Context<'_>)) {
        let mut context = Context {
            last_worker: &mut self.last_worker,
            last_member: &mut self.last_member,
            random: &mut self.random,
            actions: &mut self.actions,
            outcomes: &mut self.outcomes,
        };
        for service in self.services.values_mut() {
            act(service, &mut context);
        }
    }
}

/// The greatest number of a kernel socket behind this socket when its service begins.
fn last_member(socket: &Socket) -> u32 {
    let own = match &socket.members {
        Members::Shared | Members::Dispatched(_) | Members::EachGeneration => None,
        Members::EachWorker { bound } | Members::EachSlot { bound, .. } => {
            bound.iter().map(|bound| bound.member.0).max()
        }
    };
    own.unwrap_or(0).max(socket.id.0)
}
