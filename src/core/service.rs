//! One service: what it should be against what it is. It picks the next worker to start or stop,
//! carries a reload through, and decides what becomes of a slot whose worker ended.
//!
//! Every change goes the same way: something happens to a worker or is asked for, the facts are
//! noted, and [`Service::settle`] brings what is closer to what should be. Nothing else starts
//! workers.

mod life;

mod together;

mod operating;

mod viewing;

mod reloading;

mod configuring;

mod healing;

mod slots;

mod steering;

mod rotating;

mod stalling;

mod refusing;

mod proving;

mod batches;

mod publishing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use super::action::{Action, NewMember, Rotation, Spawn};
use super::drain::Drains;
use super::event::WorkerEvent;
use super::fleet::Fleet;
use super::ids::{GenerationId, MemberId, RequestId, ServiceId, SlotId, WorkerId};
use super::notice::{ConfigurationNotice, Next, Notice, Told, WorkerName};
use super::policy::{Members, Policy};
use super::publication::{Publication, WITHDRAW_MAX};
use super::refusal::Refusal;
use super::reload::{Failure, Probation, Reload, ReloadStage};
use super::request::{End, Part};
use super::restart::{FAILING_AFTER, Random, RestartWindow, backoff};
use super::roster::Roster;
use super::slots::SlotSockets;
use super::sockets::Sockets;
use super::stalls::Stalls;
use super::status::Membership;
use super::time::{Time, Why, earlier};
use super::worker::{Change, Ending, Scene, Worker};

use life::Life;

pub use together::Reread;

/// The most workers that a service may want.
pub const WORKERS_MAX: u32 = 4096;

/// A service and its workers.
#[derive(Debug, Clone)]
pub struct Service {
    /// What its author wants of the generation that serves.
    policy: Rc<Policy>,
    /// The same of every generation that serves, is to serve or has workers; their definitions are
    /// kept outside.
    policies: BTreeMap<GenerationId, Rc<Policy>>,
    /// The same of the generation that the next reload that is asked for brings, where it differs.
    next: Option<Rc<Policy>>,
    wanted: u32,
    sockets: Sockets,
    /// Which slots have the sockets that are theirs alone.
    slots: SlotSockets,
    /// The same of generations of which each slot has sockets of its own.
    own_slots: BTreeMap<GenerationId, SlotSockets>,
    /// Workers that get nothing new and finish what they have.
    drains: Drains,
    /// Workers that take nothing from sockets that they alone have.
    stalls: Stalls,
    /// Who is given connections where we accept, as it was told last.
    rotation: Rotation,
    /// What a proxy in front was told.
    publication: Publication,
    /// Workers that are to stop once the proxy was told without their slots.
    withdrawing: BTreeSet<WorkerId>,
    /// The generation that serves, or is to serve first.
    serving: Fleet,
    life: Life,
    /// The name of the service because of which it was stopped last, if it was bound to one that was.
    stopped_with: Option<String>,
    first_start: FirstStart,
    /// The names of those that it waits for, for people.
    waits_for: Vec<String>,
    past: Past,
    reload: Option<Reload>,
    /// The last generation before the one that serves all of whose workers have been ready together,
    /// and that did not fail on probation. Its definition is kept.
    previous: Option<GenerationId>,
    /// Whether the generation that serves still has to prove itself.
    probation: Option<Probation>,
    /// A generation that failed on probation and serves, or the same does with other sockets.
    failed: Option<GenerationId>,
    /// Why the generation that serves is taken back, while it is.
    taken_back: Option<Failure>,
    /// Who waits for the definition that served before, where a reload to that is to begin: before
    /// one that is queued.
    back: Option<Vec<RequestId>>,
    /// How the last reload failed, until the next begins: a service manager is told by the status.
    last_abort: Option<String>,
    /// Who waits for the next reload, if one is to follow.
    queued: Option<Vec<RequestId>>,
    workers: Roster,
    last_generation: GenerationId,
    restarts: RestartWindow,
    /// Workers that were started in the place of one that ended unasked.
    replaced: u64,
    /// Ends before ready in the whole service since a worker was last ready.
    failures: u32,
    failing: bool,
    /// The generation for which a wrapper was last warned of.
    wrapper_told: Option<GenerationId>,
    /// Replacements of workers with stale sockets that failed in a row, and when the next may begin.
    refresh_failures: u32,
    refresh_from: Time,
    /// Who waits for its first start.
    starters: Vec<RequestId>,
    /// One that leaves serves until nobody needs it.
    membership: Membership,
    stopping: bool,
    /// Stopped in a hurry: nobody outside is waited for.
    killed: bool,
}

/// How the last start of the whole service went. Until it is over, one way or the other, a reload
/// waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FirstStart {
    /// Those that it needs have not been ready yet: nothing is started.
    Waiting,
    /// No worker has ended, and not all are ready.
    UnderWay,
    /// A worker ended before all were ready: a reload may be the remedy.
    Stumbled,
    /// All workers of a generation have been ready together.
    Committed,
}

/// Whether a service manager need not wait for a service any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Past {
    /// Its workers have never been ready together.
    NeverCameUp,
    /// They have, or it was stopped before.
    HasComeUp,
}

impl FirstStart {
    /// Of a service that nobody has started yet.
    fn of(policy: &Policy) -> FirstStart {
        if policy.needs().next().is_some() { FirstStart::Waiting } else { FirstStart::UnderWay }
    }
}

/// What a service needs from the supervisor around it.
pub struct Context<'a> {
    /// The last worker's number.
    pub last_worker: &'a mut u64,
    /// The last kernel socket's number.
    pub last_member: &'a mut u32,
    /// Jitter.
    pub random: &'a mut Random,
    /// Where actions go.
    pub actions: &'a mut VecDeque<Action>,
    /// How requests ended in this service.
    pub outcomes: &'a mut Vec<Outcome>,
}

/// How a request ended in one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The request.
    pub request: RequestId,
    /// The service.
    pub service: ServiceId,
    /// How.
    pub part: Part,
}

impl Context<'_> {
    fn notice(&mut self, notice: Notice) {
        self.actions.push_back(Action::Notice(notice));
    }
}

impl Service {
    /// A service whose first definition is read already, under the number 1.
    #[must_use]
    pub fn new(policy: Policy) -> Service {
        let first = GenerationId(1);
        let policy = Rc::new(policy);
        let mut service = Service {
            policies: BTreeMap::from([(first, Rc::clone(&policy))]),
            next: None,
            wanted: policy.workers,
            sockets: Sockets::new(first, &policy.sockets),
            slots: SlotSockets::new(&policy.sockets),
            own_slots: BTreeMap::new(),
            drains: Drains::default(),
            stalls: Stalls::default(),
            rotation: Rotation::default(),
            publication: Publication::default(),
            withdrawing: BTreeSet::new(),
            serving: Fleet::new(first),
            life: Life::Up,
            stopped_with: None,
            first_start: FirstStart::of(&policy),
            waits_for: Vec::new(),
            past: Past::NeverCameUp,
            reload: None,
            previous: None,
            probation: None,
            failed: None,
            taken_back: None,
            back: None,
            last_abort: None,
            queued: None,
            workers: Roster::default(),
            last_generation: first,
            restarts: RestartWindow::default(),
            replaced: 0,
            failures: 0,
            failing: false,
            wrapper_told: None,
            refresh_failures: 0,
            refresh_from: Time::ZERO,
            starters: Vec::new(),
            membership: Membership::Configured,
            stopping: false,
            killed: false,
            policy,
        };
        let policy = Rc::clone(&service.policy);
        let bound = policy.sockets.iter().flat_map(|socket| {
            let bound = match &socket.members {
                Members::EachWorker { bound } => bound.as_slice(),
                Members::Shared
                | Members::Dispatched(_)
                | Members::EachGeneration
                | Members::EachSlot { .. } => &[],
            };
            (0..).map(SlotId).zip(bound).map(|(slot, _)| (socket.id, slot))
        });
        service.open_own_slots(first, bound);
        service
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.policy.name
    }

    /// Whether a worker with this number is, or was until a moment ago, one of ours.
    #[must_use]
    pub fn owns(&self, worker: WorkerId) -> bool {
        self.workers.get(worker).is_some()
    }

    /// Whether it has been ready once, or was stopped before: nobody waits for it to come up.
    #[must_use]
    pub fn has_come_up(&self) -> bool {
        !self.is_new()
    }

    /// Whether it has never been ready, nor stopped.
    fn is_new(&self) -> bool {
        self.past == Past::NeverCameUp
    }

    /// Whether all its workers have been ready together since it was started.
    #[must_use]
    pub fn is_committed(&self) -> bool {
        self.first_start == FirstStart::Committed
    }

    /// Whether others may start that need it: all its workers have been ready together since it was
    /// started, and it is not to stop.
    #[must_use]
    pub fn lets_others_start(&self) -> bool {
        self.is_committed() && !self.awaits_turn()
    }

    /// The services that it needs: whose definitions that serve, are to serve or have workers name.
    #[must_use]
    pub fn needs(&self) -> BTreeSet<ServiceId> {
        let is_in_use = |generation: &GenerationId| {
            self.previous != Some(*generation)
                || self.serving.generation == *generation
                || self.workers.generations().any(|it| it == *generation)
        };
        let used = self.policies.iter().filter(|(generation, _)| is_in_use(generation));
        used.flat_map(|(_, policy)| policy.needs()).collect()
    }

    /// The same of what it is to be next, if it is to change.
    pub fn needs_next(&self) -> impl Iterator<Item = ServiceId> {
        let next = self.reload.as_ref().and_then(|reload| self.policies.get(&reload.generation));
        next.unwrap_or(&self.policy).needs()
    }

    /// Whether it waits for others before its first worker starts.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        let is_up = self.serves() && !self.awaits_turn();
        self.first_start == FirstStart::Waiting && is_up && self.reload.is_none()
    }

    /// It waits for these; for none, it waits no longer.
    pub fn wait_for(&mut self, names: Vec<String>, context: &mut Context<'_>) {
        if names.is_empty() {
            self.first_start = FirstStart::UnderWay;
        } else if self.waits_for.is_empty() {
            let (service, services) = (self.policy.name.clone(), names.clone());
            let what = ConfigurationNotice::Waiting { service, services };
            context.notice(Notice::Configuration(what));
        }
        self.waits_for = names;
    }

    /// Whether it was asked to stop, for good.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether it was asked to stop, and nothing is left of it.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.stopping && self.is_empty()
    }

    /// Whether it was asked to stop, and its last worker is gone.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.stopping && self.workers.is_empty()
    }

    /// Whether a reload is under way that somebody may wait for.
    #[must_use]
    pub fn is_reloading(&self) -> bool {
        self.reload.as_ref().is_some_and(|reload| !reload.is_stuck())
    }

    /// How many workers it has, whatever their state.
    #[must_use]
    pub fn workers_alive(&self) -> u32 {
        self.workers.len()
    }

    /// Whether anything is left that a stop has to wait for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let told = self.killed || !self.publication.is_under_way();
        self.workers.is_empty() && !self.is_binding() && told
    }

    /// How long its workers may take to stop.
    #[must_use]
    pub fn stop_takes(&self) -> Duration {
        let takes = |policy: &Rc<Policy>| {
            let withdraw = if policy.proxy.is_some() { WITHDRAW_MAX } else { Duration::ZERO };
            policy.stop.total().saturating_add(withdraw)
        };
        // Those that are told over their channel first take that much longer.
        let is_told = self.workers.iter().any(Worker::has_farewell);
        let more = |policy: &Rc<Policy>| policy.stop.first_after_farewell();
        let takes = |policy| takes(policy) + if is_told { more(policy) } else { Duration::ZERO };
        self.policies.values().map(takes).max().unwrap_or_default()
    }

    /// The earliest point at which it wants to be woken, and why, but for looks at queues.
    #[must_use]
    pub fn deadline(&self) -> Option<(Time, Why)> {
        let workers = self.workers.deadline();
        let slots = if self.stopping { None } else { self.serving.deadline() };
        let sockets = if self.stopping { None } else { self.sockets_deadline() };
        let looks = self.drains.deadline().map(|at| (at, Why::Empty));
        let rest = earlier(earlier(slots, sockets), earlier(looks, self.trial_deadline()));
        earlier(earlier(workers, self.publication_deadline()), rest)
    }

    /// When its queues are looked at next.
    #[must_use]
    pub fn look_deadline(&self) -> Option<(Time, Why)> {
        self.stalls.deadline().map(|at| (at, Why::Queue))
    }

    /// Tells one of its workers what happened to it.
    pub fn handle_worker(
        &mut self,
        now: Time,
        id: WorkerId,
        event: WorkerEvent,
        context: &mut Context<'_>,
    ) {
        let crowd = self.workers.tally();
        let policy = self.policy_of(id);
        self.learn_from(now, id, &event, &policy, context);
        let mut scene = Scene { policy: &policy, crowd, actions: &mut *context.actions };
        let act = |worker: &mut Worker| worker.handle_event(now, event, &mut scene);
        if let Some(change) = self.workers.change(id, act) {
            self.apply(now, id, change, context);
            self.warn_of_wrapper(now, id, context);
        }
    }

    /// Lets every worker whose deadline has come act on it.
    pub fn handle_timeout(&mut self, now: Time, context: &mut Context<'_>) {
        self.sockets_timeout(now, context);
        self.publication_timeout(now, context);
        for id in self.workers.due(now) {
            self.drain_is_over(now, id, context);
            // A rung of the ladder that waits for no time at all is left at once, hence the loop;
            // it ends, since a ladder ends in Killed and nothing else waits for no time.
            while self.workers.get(id).is_some_and(|worker| is_due(worker, now)) {
                let crowd = self.workers.tally();
                let policy = self.policy_of(id);
                let mut scene = Scene { policy: &policy, crowd, actions: &mut *context.actions };
                let act = |worker: &mut Worker| worker.handle_timeout(now, &mut scene);
                let change = self.workers.change(id, act).unwrap_or_default();
                self.apply(now, id, change, context);
                self.warn_of_wrapper(now, id, context);
            }
        }
    }

    /// A stop is near: what an operator wanted to serve next never will. A worker that ends is still
    /// replaced, and so are those whose socket was bound anew.
    pub fn give_up_reloads(&mut self, now: Time, context: &mut Context<'_>) {
        if let Some(requests) = self.queued.take() {
            self.respond(requests, &End::Refused(Refusal::Stopping), context);
        }
        self.next = None;
        self.leave_probation(context);
        self.sockets.announce(&[]);
        if self.reload.as_ref().is_some_and(|reload| reload.cause.is_wanted()) {
            self.abort(now, "everything is being stopped".to_owned(), None, context);
        }
        self.answer_not_put_back(context);
        self.give_up_roll_back(&Refusal::Stopping, context);
        self.give_up_changes(&Refusal::Stopping, context);
    }

    /// Gives up everything that was to come, closes the sockets and asks all workers to stop.
    pub fn stop(&mut self, now: Time, context: &mut Context<'_>) {
        self.retire(context);
        for id in self.workers.ids() {
            self.ask_stop(now, id, context);
        }
    }

    /// The same, but the workers are killed.
    pub fn kill(&mut self, now: Time, context: &mut Context<'_>) {
        self.retire(context);
        self.killed = true;
        for id in self.workers.ids() {
            self.with_worker(id, context, |worker, scene| worker.kill(now, scene));
        }
    }

    /// Brings what is closer to what should be.
    pub fn settle(&mut self, now: Time, context: &mut Context<'_>) {
        self.take_next_step(context);
        if self.serves() && self.first_start == FirstStart::Waiting {
            self.bind_slots(now, context);
            self.begin_reload(now, context);
            self.take_over(now, context);
            self.close_slots(context);
        } else if self.serves() {
            self.bind_slots(now, context);
            self.trim(now, context);
            self.put_back(now, context);
            self.come_up(context);
            self.fill(now, context);
            self.end_probation(now, context);
            self.begin_reload(now, context);
            self.advance_reload(now, context);
            self.close_slots(context);
        }
        self.publish(now, context);
        self.refuse(context);
        self.steer(context);
        self.look_at_drains(now, context);
        self.look_at_queues(now, context);
        self.forget(context);
        self.close_spares(context);
    }

    fn apply(&mut self, now: Time, id: WorkerId, change: Change, context: &mut Context<'_>) {
        let Change { ready, ended, left_behind, gone } = change;
        if ready.is_some() {
            self.note_ready(now, id, context);
        }
        if let Some(ending) = ended {
            self.note_ended(now, id, ending, context);
        }
        // The cause comes before what follows from it.
        if let Some(notice) = left_behind {
            context.notice(notice);
        }
        if gone {
            self.workers.remove(id);
        }
    }

    fn note_ready(&mut self, now: Time, id: WorkerId, context: &mut Context<'_>) {
        self.warn_of_wrapper(now, id, context);
        let Some(slot) = self.workers.get(id).map(|worker| worker.slot) else {
            return;
        };
        // A worker of a reload says nothing about the generation that serves.
        if self.serving.holds(slot, id) {
            self.serving.ready(slot);
            self.recover(context);
        }
        self.inspect(id, Some(id), context.actions);
    }

    fn recover(&mut self, context: &mut Context<'_>) {
        self.failures = 0;
        if std::mem::take(&mut self.failing) {
            let service = self.policy.name.clone();
            context.notice(Notice::Recovered { service });
        }
    }

    /// Notes when all workers are ready together for the first time: the last one became so, or
    /// fewer are wanted.
    fn come_up(&mut self, context: &mut Context<'_>) {
        if !self.is_committed()
            && self.workers.tally_of(self.serving.generation).ready == self.serving.size()
        {
            let service = self.policy.name.clone();
            context.notice(Notice::Serving { service, workers: self.serving.size() });
            self.note_committed(context);
        }
    }

    fn note_ended(&mut self, now: Time, id: WorkerId, ending: Ending, context: &mut Context<'_>) {
        self.warn_of_wrapper(now, id, context);
        let Some(worker) = self.workers.get(id) else {
            return;
        };
        let slot = worker.slot;
        let generation = worker.generation;
        self.forget_stalls(generation, slot);
        self.inspect(id, None, context.actions);
        let name = WorkerName { worker: id, service: self.policy.name.clone(), slot };
        if self.serving.holds(slot, id) {
            let next = self.next_in_slot(now, slot, ending.was_ready, context.random);
            let Ending { cause, was_ready, used } = ending;
            let reason = format!("{name} {}", Told { cause: &cause, was_ready });
            self.tell_starters(&name, &Told { cause: &cause, was_ready }, context);
            context.notice(Notice::Ended { worker: name, cause, was_ready, next, used });
            if self.failures == FAILING_AFTER && !self.failing {
                self.failing = true;
                let (service, on_failing) = (self.policy.name.clone(), self.on_failing());
                context.notice(Notice::Failing { service, on_failing });
            }
            if !was_ready {
                self.note_not_put_back(slot, &reason, context);
            }
            self.fail_probation(id, &reason, context);
        } else if self.rolling().is_some_and(|fleet| fleet.holds(slot, id)) {
            let Ending { cause, was_ready, used } = ending;
            let reason = format!("{name} {}", Told { cause: &cause, was_ready });
            let next = Next::AbortReload;
            context.notice(Notice::Ended { worker: name, cause, was_ready, next, used });
            // It is as good as gone, or leaves by itself: the abort stops the others.
            if let Some(Reload { stage: ReloadStage::Rolling(fleet), .. }) = &mut self.reload {
                fleet.vacate(slot);
            }
            self.abort(now, reason, Some(id), context);
        } else if self.lose_new(slot, id) {
            let Ending { cause, was_ready, used } = ending;
            context.notice(Notice::Ended {
                worker: name,
                cause,
                was_ready,
                next: Next::PutBack,
                used,
            });
        }
    }

    /// Decides when the slot of a worker that ended gets its next one.
    fn next_in_slot(
        &mut self,
        now: Time,
        slot: SlotId,
        was_ready: bool,
        random: &mut Random,
    ) -> Next {
        if self.first_start == FirstStart::UnderWay {
            self.first_start = FirstStart::Stumbled;
        }
        if was_ready {
            let at = self.restarts.take(now);
            self.serving.wait(slot, at);
            return if at <= now {
                Next::RestartNow
            } else {
                Next::Throttled { delay: now.until(at) }
            };
        }
        self.failures = self.failures.saturating_add(1);
        let attempt = self.serving.failed(slot);
        let delay = backoff(attempt, random);
        self.serving.wait(slot, now + delay);
        Next::Backoff { delay, attempt }
    }

    fn warn_of_wrapper(&mut self, now: Time, id: WorkerId, context: &mut Context<'_>) {
        let Some(worker) = self.workers.get(id) else {
            return;
        };
        if self.wrapper_told == Some(worker.generation) {
            return;
        }
        if let Some(wrapped) = worker.wrapper(now) {
            let service = self.policy.name.clone();
            let name = WorkerName { worker: id, service, slot: worker.slot };
            self.wrapper_told = Some(worker.generation);
            context.notice(Notice::Wrapper { worker: name, wrapped: wrapped.clone() });
        }
    }

    /// Has as many slots as are wanted, of those that have their sockets, and stops what fills others.
    fn trim(&mut self, now: Time, context: &mut Context<'_>) {
        let shut = self.shut(self.serving.generation, self.wanted);
        let mut cut = self.serving.resize(self.wanted, &shut);
        let wanted = self.wanted_next();
        let rolling = self.rolling().map(|fleet| fleet.generation);
        let shut = rolling.map(|rolling| self.shut(rolling, wanted)).unwrap_or_default();
        if let Some(Reload { stage: ReloadStage::Rolling(fleet), .. }) = &mut self.reload {
            cut.extend(fleet.resize(wanted, &shut));
        }
        if !cut.is_empty() {
            self.steer(context);
            self.secure(&cut, context);
        }
        for id in cut {
            self.ask_stop(now, id, context);
        }
    }

    /// Starts what the serving generation lacks, not all at once: a stop that comes while a
    /// thousand are to be started must not wait for all of them. What is due and has to wait for
    /// one to get going has an empty seat and no deadline.
    fn fill(&mut self, now: Time, context: &mut Context<'_>) {
        let launching = self.workers.tally().launching;
        let free = self.policy.launching_max.saturating_sub(launching);
        for slot in self.serving.take_due(now, free) {
            let id = self.spawn(now, slot, self.serving.generation, context);
            self.replaced += u64::from(self.serving.has_lost(slot));
            self.serving.hold(slot, id);
        }
    }

    /// From here on nothing starts. Who waits for a reload is told so.
    fn retire(&mut self, context: &mut Context<'_>) {
        context.actions.extend(self.sockets.close());
        self.give_up(&Refusal::Stopping, context);
    }

    /// From here on nothing starts, because of what `refusal` says. Who waits for something is told
    /// so.
    fn give_up(&mut self, refusal: &Refusal, context: &mut Context<'_>) {
        self.stopping = true;
        self.waits_for.clear();
        self.next = None;
        self.leave_probation(context);
        self.give_up_roll_back(refusal, context);
        self.sockets.announce(&[]);
        self.answer_not_put_back(context);
        if let Some(reload) = self.reload.take() {
            let aborted = self.aborted(reason_of(refusal), None);
            let whole = self.serving.given().next().is_none();
            let end = if whole { aborted } else { batches::not_put_back(aborted) };
            self.respond(reload.requests, &end, context);
        }
        let waiting = self.queued.take().unwrap_or_default();
        self.respond(waiting, &End::Refused(refusal.clone()), context);
        self.give_up_life(refusal, context);
    }

    /// Drops definitions that nobody runs and nobody will.
    fn forget(&mut self, context: &mut Context<'_>) {
        let mut used: BTreeSet<GenerationId> = self.workers.generations().collect();
        if !self.stopping {
            used.extend(self.serves().then_some(self.serving.generation));
            used.extend(self.life.generation());
            used.extend(self.reload.as_ref().map(|reload| reload.generation));
        }
        let service = self.policy.service;
        let kept = self.previous.filter(|_| !self.stopping);
        let is_known =
            |generation: &GenerationId| used.contains(generation) || kept == Some(*generation);
        for &generation in self.policies.keys().filter(|generation| !is_known(generation)) {
            context.actions.push_back(Action::Forget { service, generation });
        }
        self.policies.retain(|generation, _| is_known(generation));
        let roots: BTreeSet<GenerationId> = used.iter().map(|&it| self.sockets.root(it)).collect();
        // What is being bound for one that is over is waited for, and closed then.
        let keeps = |own: &SlotSockets| own.is_binding();
        self.own_slots.retain(|generation, own| roots.contains(generation) || keeps(own));
        context.actions.extend(self.sockets.keep(&used));
    }

    /// Whether sockets of slots are being bound.
    fn is_binding(&self) -> bool {
        self.slots.is_binding() || self.own_slots.values().any(SlotSockets::is_binding)
    }

    /// Numbers for what the workers of a generation get and is not open yet, in the first so many
    /// slots. Where it has the slots of another, these are seen to as they were before.
    fn new_members(
        &mut self,
        generation: GenerationId,
        slots: u32,
        context: &mut Context<'_>,
    ) -> Vec<NewMember> {
        let own = self.own_slots.contains_key(&self.sockets.root(generation));
        let lacking = self.sockets.lacking(generation, slots).into_iter();
        lacking
            .filter(|(_, slot)| slot.is_none() || !own)
            .map(|(socket, slot)| {
                *context.last_member += 1;
                NewMember { socket, slot, member: MemberId(*context.last_member) }
            })
            .collect()
    }

    /// What the author wants of a worker.
    fn policy_of(&self, id: WorkerId) -> Rc<Policy> {
        let worker = self.workers.get(id);
        let policy = worker.and_then(|worker| self.policies.get(&worker.generation));
        Rc::clone(policy.unwrap_or(&self.policy))
    }

    /// The most slots that it wants to have.
    fn slots_wanted(&self) -> u32 {
        self.wanted.max(self.wanted_next())
    }

    /// How many workers the generation of the reload under way is to have.
    fn wanted_next(&self) -> u32 {
        self.reload.as_ref().and_then(|reload| reload.workers).unwrap_or(self.wanted)
    }

    fn spawn(
        &mut self,
        now: Time,
        slot: SlotId,
        generation: GenerationId,
        context: &mut Context<'_>,
    ) -> WorkerId {
        self.accept_again(context);
        *context.last_worker += 1;
        let worker = WorkerId(*context.last_worker);
        let policy = self.policies.get(&generation).unwrap_or(&self.policy);
        let spawned = Worker::spawned(now, worker, slot, generation, policy);
        self.workers.insert(spawned);
        let members = self.sockets.members_for(generation, slot);
        let dispatched = self.sockets.dispatched(generation);
        let service = self.policy.service;
        let spawn = Spawn { worker, service, slot, generation, members, dispatched };
        context.actions.push_back(Action::Spawn(spawn));
        worker
    }

    fn with_worker(
        &mut self,
        id: WorkerId,
        context: &mut Context<'_>,
        act: impl FnOnce(&mut Worker, &mut Scene<'_>),
    ) {
        let crowd = self.workers.tally();
        let policy = self.policy_of(id);
        let mut scene = Scene { policy: &policy, crowd, actions: &mut *context.actions };
        self.workers.change(id, |worker| act(worker, &mut scene));
    }
}

/// Why what was under way is off, for people.
fn reason_of(refusal: &Refusal) -> String {
    if *refusal == Refusal::Stopping {
        "everything is being stopped".to_owned()
    } else {
        refusal.to_string()
    }
}

fn is_due(worker: &Worker, now: Time) -> bool {
    worker.deadline().is_some_and(|(at, _)| at <= now)
}
