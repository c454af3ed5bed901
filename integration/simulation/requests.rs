//! What operators ask for, and S6: how each of their requests may be answered.

use std::collections::{BTreeMap, BTreeSet};

use shepherd::core::Action;
use shepherd::core::event::Event;
use shepherd::core::ids::{GenerationId, RequestId, ServiceId, SlotId, WorkerId};
use shepherd::core::policy::Signal;
use shepherd::core::refusal::{CannotScale, Refusal};
use shepherd::core::request::{
    Abort, Behind, End, Part, Request, Response, Scale, Scope, ServiceOutcome, WAITING_MAX,
};
use shepherd::core::service::WORKERS_MAX;

use crate::invariants::{Violation, ensure};
use crate::ledger::{Begins, Book, IsDue, Lame, Ledger, Standing, Start, Stop, Turn};
use crate::life_book::Life;
use crate::script::Script;
use crate::world::Input;

/// As SIGHUP asks for it.
pub(crate) const RELOAD: Request = Request::Reload { scope: Scope::All, behind: Behind::Queue };

/// As SIGTTIN asks for it.
pub(crate) const ONE_MORE: Request = Request::Scale { services: Scope::All, to: Scale::By(1) };

/// As SIGTTOU asks for it.
pub(crate) const ONE_FEWER: Request = Request::Scale { services: Scope::All, to: Scale::By(-1) };

/// A name that no service has.
const UNKNOWN: &str = "s9";

/// A request without a response.
#[derive(Clone)]
pub(crate) struct Open {
    pub request: Request,
    /// The services that it is for, and the last generation of each when it was asked.
    pub generations: BTreeMap<ServiceId, GenerationId>,
    /// The same of all that it was for, where it is looked at for one of them alone.
    together: BTreeMap<ServiceId, GenerationId>,
    pub during_stop: bool,
    /// How many requests waited for the next reload of a service, where most did.
    waiting: usize,
    /// Something is under way in one of the services that a reload waits for, or a restart.
    busy: BTreeSet<ServiceId>,
    in_the_way: BTreeSet<ServiceId>,
    /// Services that were stopped, or were to be.
    down: BTreeSet<ServiceId>,
    /// Services in which a reload is another thing: they are stopped, or about to be started.
    pub aside: BTreeSet<ServiceId>,
    /// Services in which it was over without having begun.
    pub over: BTreeSet<ServiceId>,
    /// Services that had no worker at one time since, those all of whose workers were ready, and those
    /// where that was with a later generation.
    pub gone: BTreeSet<ServiceId>,
    pub served: BTreeSet<ServiceId>,
    pub renewed: BTreeSet<ServiceId>,
    /// How many workers each service is to have.
    scaled: BTreeMap<ServiceId, Result<u32, CannotScale>>,
    /// Whether the worker that a signal is for can get it.
    reachable: Reachable,
    /// Services that go along with those that were named.
    along: BTreeSet<ServiceId>,
    /// One that was named is bound to another that stays stopped.
    stays_without: bool,
    /// What was read for it is there.
    pub is_read: bool,
    /// The generation that the reload brings in each service, once it has begun.
    pub carried: BTreeMap<ServiceId, GenerationId>,
    /// Services in which a rollback ends a canary.
    ends_canary: BTreeSet<ServiceId>,
    /// Services in which there is nothing to go back to.
    nothing_before: BTreeSet<ServiceId>,
}

impl Open {
    /// The same, if it had been for this service alone.
    fn only(&self, service: ServiceId) -> Open {
        let mut alone = self.clone();
        alone.generations.retain(|&other, _| other == service);
        for services in [
            &mut alone.busy,
            &mut alone.in_the_way,
            &mut alone.down,
            &mut alone.aside,
            &mut alone.over,
            &mut alone.gone,
            &mut alone.served,
            &mut alone.renewed,
            &mut alone.ends_canary,
            &mut alone.nothing_before,
        ] {
            services.retain(|&other| other == service);
        }
        alone.scaled.retain(|&other, _| other == service);
        alone.carried.retain(|&other, _| other == service);
        alone
    }
}

/// Whether a worker can be sent a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reachable {
    Yes,
    NoSuchWorker,
    NotRunning,
}

/// What an operator asks for in a world.
pub(crate) fn draw(script: &mut Script, last_worker: u64) -> Request {
    let choice = script.below(255);
    match choice {
        0..200 => match choice % 40 {
            0..22 => RELOAD,
            22..29 => ONE_MORE,
            29..36 => ONE_FEWER,
            36 => Request::Stop,
            37 | 38 => Request::Interrupt,
            _ => Request::StopNow,
        },
        200..212 => Request::Reload { scope: scope(script), behind: Behind::Queue },
        212..219 => Request::Reload { scope: scope(script), behind: Behind::Refuse },
        219..226 => {
            let to = match script.below(6) {
                0 => Scale::To(3),
                1 => Scale::To(1),
                2 => Scale::To(script.pick(&[0, 0, WORKERS_MAX + 1])),
                3 => Scale::By(2),
                4 => Scale::By(-2),
                _ => Scale::By(script.pick(&[-9, 0, i32::MIN])),
            };
            Request::Scale { services: scope(script), to }
        }
        226..233 => Request::Restart(scope(script)),
        233..246 => Request::StopServices(names(script)),
        246..250 => Request::StartServices(names(script)),
        _ => {
            let back = u64::from(script.below(8));
            let signals = [Signal::Usr1, Signal::Term, Signal::Kill, Signal::Kill, Signal::Hup];
            let worker = WorkerId(last_worker.saturating_sub(back));
            Request::Signal { worker, signal: script.pick(&signals) }
        }
    }
}

fn scope(script: &mut Script) -> Scope {
    if script.one_in(8) { Scope::All } else { Scope::Named(names(script)) }
}

fn names(script: &mut Script) -> Vec<String> {
    let names: &[&str] = match script.below(8) {
        0..4 => &["s1"],
        4 | 5 => &["s2"],
        6 => &["s2", "s1", "s2"],
        _ => &[script.pick(&["s1", UNKNOWN, "s3"])],
    };
    names.iter().map(|&name| name.to_owned()).collect()
}

impl Ledger {
    pub(crate) fn learn_request(&mut self, turn: &mut Turn<'_>, id: RequestId, request: &Request) {
        let mut services = self.concerned(request);
        let along = self.along(request, &services);
        let begins = matches!(request, Request::Restart(_) | Request::StartServices(_));
        let stays_without = begins && self.stays_without(&services, &along);
        services.extend(along.iter().copied());
        services.sort_unstable();
        let last = |service: &ServiceId| (*service, self.books[service].last_generation);
        let scaled = services.iter().filter_map(|&service| {
            let Request::Scale { to, .. } = request else { return None };
            let book = &self.books[&service];
            Some((service, scaled(book.wanted, book.policy.workers_max(), *to)))
        });
        let of = |are: &dyn Fn(&Life) -> bool| -> BTreeSet<ServiceId> {
            services.iter().copied().filter(|service| are(&self.books[service].life)).collect()
        };
        let rolls_back = matches!(request, Request::RollBack(_));
        let of_books = |are: &dyn Fn(&Book) -> bool| -> BTreeSet<ServiceId> {
            services.iter().copied().filter(|service| are(&self.books[service])).collect()
        };
        let open = Open {
            request: request.clone(),
            generations: services.iter().map(last).collect(),
            together: services.iter().map(last).collect(),
            during_stop: self.is_stopping(),
            waiting: services.iter().map(|&service| self.queued(service)).max().unwrap_or(0),
            busy: services.iter().copied().filter(|&id| self.is_busy_for(id, rolls_back)).collect(),
            in_the_way: services.iter().copied().filter(|&id| self.is_in_the_way(id)).collect(),
            down: of(&|life| life.is_down()),
            aside: of(&|life| life.is_down() || life.is_about_to_start()),
            over: BTreeSet::new(),
            gone: BTreeSet::new(),
            served: BTreeSet::new(),
            renewed: BTreeSet::new(),
            scaled: scaled.collect(),
            reachable: self.reachable(request),
            along,
            stays_without,
            is_read: false,
            carried: BTreeMap::new(),
            ends_canary: if rolls_back { of_books(&Book::is_in_canary) } else { BTreeSet::new() },
            nothing_before: of_books(&|book| book.has_nothing_before()),
        };
        if !open.during_stop {
            for (service, wanted) in &open.scaled {
                if let (Some(book), Ok(wanted)) = (self.books.get_mut(service), wanted) {
                    book.wanted = *wanted;
                    book.waits.retain(|slot, _| slot < &SlotId(*wanted));
                    book.failures.retain(|slot, _| slot < &SlotId(*wanted));
                }
            }
        }
        // Whether rightly is asked when that is heard. A change that is begun is refused later.
        let restart = matches!(request, Request::Restart(_));
        let refused = open.during_stop || restart && turn.refused || open.stays_without;
        if !refused {
            self.learn_change(turn, request, id, &services, &open.along);
        }
        self.requests.insert(id, open);
        self.learn_stop(turn, request);
    }

    fn learn_stop(&mut self, turn: &mut Turn<'_>, request: &Request) {
        let interrupt = *request == Request::Interrupt;
        match request {
            Request::Stop | Request::Interrupt | Request::StopNow => {}
            Request::Reload { .. }
            | Request::RollBack(_)
            | Request::Restart(_)
            | Request::StopServices(_)
            | Request::StartServices(_)
            | Request::Scale { .. }
            | Request::Signal { .. } => return,
        }
        if *request == Request::StopNow {
            self.lame = None;
            self.kill(turn);
            self.stop = Stop::Now;
            return;
        }
        if let Some(lame) = &mut self.lame {
            if interrupt && lame.interrupted {
                self.saw("a lame duck cut short");
                return self.drain(true);
            }
            lame.interrupted |= interrupt;
            return;
        }
        match self.stop {
            Stop::No if !self.lame_duck.is_zero() => {
                turn.lame_duck = Begins::Untold;
                let due = turn.now + self.lame_duck;
                self.lame = Some(Lame { due, interrupted: interrupt });
                self.learn_end_of_changes();
            }
            Stop::No => {
                self.stop = Stop::Asked { interrupted: interrupt };
                self.learn_end_of_changes();
            }
            Stop::Asked { interrupted } if interrupt => {
                if interrupted {
                    self.kill(turn);
                }
                self.stop = if interrupted { Stop::Now } else { Stop::Asked { interrupted: true } };
            }
            Stop::Asked { .. } | Stop::Now => {}
        }
    }

    /// The services that a request is for; none where one of them is not known.
    fn concerned(&self, request: &Request) -> Vec<ServiceId> {
        let names = match request {
            Request::Reload { scope: Scope::All, .. }
            | Request::Scale { services: Scope::All, .. } => {
                return self.books.keys().copied().collect();
            }
            Request::RollBack(Scope::All) | Request::Restart(Scope::All) => {
                let all = || self.books.keys().copied();
                let up = all().filter(|service| !self.books[service].life.is_down());
                let up: Vec<ServiceId> = up.collect();
                return if up.is_empty() { all().collect() } else { up };
            }
            Request::Reload { scope: Scope::Named(names), .. }
            | Request::Scale { services: Scope::Named(names), .. }
            | Request::RollBack(Scope::Named(names))
            | Request::Restart(Scope::Named(names))
            | Request::StopServices(names)
            | Request::StartServices(names) => names,
            Request::Signal { .. } | Request::Stop | Request::Interrupt | Request::StopNow => {
                return Vec::new();
            }
        };
        let found: BTreeSet<Option<ServiceId>> = names
            .iter()
            .map(|name| {
                let found = self.books.iter().find(|(_, book)| book.policy.name == *name);
                found.map(|(&service, _)| service)
            })
            .collect();
        found.into_iter().collect::<Option<Vec<ServiceId>>>().unwrap_or_default()
    }

    /// How many requests wait for the next reload of a service.
    fn queued(&self, service: ServiceId) -> usize {
        let queued = self.requests.values().filter(|open| {
            matches!(open.request, Request::Reload { .. })
                && !open.during_stop
                && open.generations.contains_key(&service)
                && !open.carried.contains_key(&service)
                && !open.over.contains(&service)
                && !open.aside.contains(&service)
        });
        queued.count()
    }

    /// Whether something is under way that another reload, or a rollback, has to wait for.
    fn is_busy_for(&self, service: ServiceId, rolls_back: bool) -> bool {
        let proving = &self.books[&service].proving;
        let tries = proving.is_in_canary() || proving.is_on_probation();
        !(rolls_back && tries) && self.is_busy(service)
    }

    fn is_busy(&self, service: ServiceId) -> bool {
        let book = &self.books[&service];
        let starts = book.life == Life::Up && book.start == Start::Begun && !book.stumbled;
        let changes = book.life.is_changing();
        let (tries, back) = (book.proving.is_on_probation(), book.batches.is_in_the_way());
        let reloads = book.rolling.is_some() || back;
        reloads || starts || changes || tries || self.queued(service) > 0
    }

    /// Whether something is under way that an operator asked for.
    fn is_in_the_way(&self, service: ServiceId) -> bool {
        let book = &self.books[&service];
        let back = book.batches.is_in_the_way();
        let reloads = book.life == Life::Up && (book.rolling.is_some() || back) && book.asked;
        reloads || book.life.is_changing() || self.queued(service) > 0
    }

    fn reachable(&self, request: &Request) -> Reachable {
        let Request::Signal { worker, signal } = request else {
            return Reachable::Yes;
        };
        let record = self.workers.get(worker).filter(|record| record.stage != Standing::Gone);
        let Some(record) = record else {
            return Reachable::NoSuchWorker;
        };
        let killed = matches!(record.stage, Standing::Killed { .. });
        if *signal == Signal::Kill || record.has_run && !record.main_gone && !killed {
            Reachable::Yes
        } else {
            Reachable::NotRunning
        }
    }

    /// A refusal because something else is under way comes at once, and nothing else does.
    pub(crate) fn check_in_progress(
        &self,
        turn: &Turn<'_>,
        actions: &[Action],
    ) -> Result<(), Violation> {
        let Input::Event(Event::Requested(id, _)) = turn.input else {
            return Ok(());
        };
        let in_progress = actions.iter().any(|action| {
            matches!(action, Action::Respond(_, Response::Refused(Refusal::InProgress { .. })))
        });
        let restart = matches!(turn.input, Input::Event(Event::Requested(_, Request::Restart(_))));
        let without = actions.iter().any(|action| {
            matches!(action, Action::Respond(it, Response::Refused(Refusal::BoundToStopped { .. })) if it == id)
        });
        let refused = in_progress || restart && turn.refused || without;
        let alone = actions.len() == 1 || turn.is_due == IsDue::Yes;
        ensure!(!refused || alone, "S6: refused, and yet: {actions:?}");
        let open = self.requests.get(id);
        let waits = open.is_some_and(|open| {
            let reload = matches!(open.request, Request::Reload { behind: Behind::Refuse, .. });
            let restart = matches!(open.request, Request::Restart(_));
            let back = matches!(open.request, Request::RollBack(_));
            let nothing = !open.nothing_before.is_empty() || !open.down.is_empty();
            !open.during_stop
                && (open.stays_without
                    || back && (nothing || !open.busy.is_empty())
                    || reload && !open.busy.is_empty()
                    || restart && !open.in_the_way.is_empty())
        });
        ensure!(!waits, "S6: request {id} was to be refused, and waits");
        Ok(())
    }

    pub(crate) fn check_response(
        &mut self,
        id: RequestId,
        response: &Response,
    ) -> Result<(), Violation> {
        let open = self.requests.remove(&id);
        let open = open.ok_or(format!("S6: a second response to {id}: {response:?}"))?;
        let right = match response {
            Response::Done(services) => self.is_done(&open, services),
            Response::Aborted(abort) => self.is_aborted(&open, abort)?,
            Response::Refused(refusal) => self.is_refused(&open, refusal)?,
            Response::Divided(parts) => self.is_divided(&open, parts)?,
        };
        ensure!(right, "S6: {:?} is answered with {response:?}", open.request);
        Ok(())
    }

    /// Each part is as if it were the answer to a request for its service alone, and they are those
    /// of all that it was for, two at least that differ.
    fn is_divided(&mut self, open: &Open, parts: &[Part]) -> Result<bool, Violation> {
        let ends = || parts.iter().map(|part| &part.end);
        if ends().any(|end| matches!(end, End::Done(_))) {
            self.saw("a reload that came about in part");
        }
        let reload = matches!(open.request, Request::Reload { .. });
        let concerned: Vec<ServiceId> = open.generations.keys().copied().collect();
        let mut left = parts.iter().peekable();
        for service in concerned {
            let name = self.books[&service].policy.name.clone();
            let Some(part) = left.next_if(|part| part.service == name) else {
                // A reload leaves those out that are stopped.
                ensure!(reload && open.down.contains(&service), "S6: nothing of {name}: {parts:?}");
                continue;
            };
            let alone = open.only(service);
            let right = match &part.end {
                End::Done(outcome) => self.is_done(&alone, std::slice::from_ref(outcome)),
                End::LeftOut => false,
                End::Aborted(abort) => self.is_aborted(&alone, abort)?,
                End::Refused(refusal) => self.is_refused(&alone, refusal)?,
            };
            ensure!(right, "S6: {name} of {:?} ends so: {part:?}", open.request);
        }
        let differ = ends().zip(ends().skip(1)).any(|(one, other)| one != other);
        Ok(left.next().is_none() && differ && !ends().all(|end| matches!(end, End::Done(_))))
    }

    fn is_done(&mut self, open: &Open, services: &[ServiceOutcome]) -> bool {
        let told: Vec<&str> = services.iter().map(|outcome| outcome.name.as_str()).collect();
        // A reload leaves those out that are stopped.
        let reload = matches!(open.request, Request::Reload { .. });
        let concerned = || {
            let all = open.generations.iter();
            all.filter(|(service, _)| !(reload && open.down.contains(service)))
        };
        let names = concerned().map(|(service, _)| &self.books[service].policy.name);
        let all = names.eq(told.iter().copied());
        let books = concerned().zip(services);
        match &open.request {
            Request::Reload { .. } | Request::RollBack(_) => {
                // It is carried out after it was asked for: an older reload is no answer. Of several
                // services one may have changed again since.
                let alone = open.together.len() == 1;
                let rightly = books.clone().all(|((service, last), outcome)| {
                    let book = &self.books[service];
                    let told = outcome.generation;
                    let brought = told > *last
                        && book.committed.contains(&told)
                        && open.carried.get(service) == Some(&told);
                    let is_serving = book.serving == told || !alone;
                    let is_well = !book.proving.has_failed(told) || !alone;
                    let over = !alone || !book.proving.is_in_canary();
                    let ended = open.ends_canary.contains(service) && over;
                    let served = open.aside.contains(service) && open.served.contains(service);
                    // What served before a canary serves again as it did.
                    is_serving && (brought && is_well || ended) || reload && served
                });
                self.saw(if reload { "a reload answered" } else { "a rollback answered" });
                if open.ends_canary.iter().any(|service| !self.books[service].life.is_down()) {
                    self.saw("a canary rolled back");
                }
                all && rightly
            }
            Request::Scale { .. } => {
                let rightly = books.clone().all(|((service, _), outcome)| {
                    open.scaled.get(service) == Some(&Ok(outcome.workers))
                        // It may have led to a commit within the turn.
                        && outcome.generation <= self.books[service].serving
                });
                self.saw("a request done");
                !open.during_stop && all && rightly
            }
            Request::Signal { .. } => {
                self.saw("a signal sent on request");
                open.reachable == Reachable::Yes
            }
            Request::Stop | Request::Interrupt | Request::StopNow => {
                services.is_empty() && self.alive().next().is_none()
            }
            Request::StopServices(_) => {
                self.saw("a service stopped");
                if !open.along.is_empty() {
                    self.saw("a service stopped with another");
                }
                all && open.generations.keys().all(|service| open.gone.contains(service))
            }
            Request::StartServices(_) => {
                self.saw("a start answered");
                if !open.along.is_empty() {
                    self.saw("a service started with another");
                }
                all && open.generations.keys().all(|service| open.served.contains(service))
            }
            Request::Restart(_) => {
                self.saw("a restart answered");
                if !open.along.is_empty() {
                    self.saw("a service restarted with another");
                }
                all && open.generations.keys().all(|service| open.renewed.contains(service))
            }
        }
    }

    fn is_aborted(&mut self, open: &Open, abort: &Abort) -> Result<bool, Violation> {
        self.saw("an abort answered");
        let Abort { service, worker, put_back, .. } = abort;
        let stopping = self.is_stopping();
        let (service, book) = self.book_mut(service)?;
        let Some(&last) = open.generations.get(&service) else {
            return Ok(false);
        };
        let begun = stopping || last < book.last_generation;
        // Whoever is blamed belongs to what was to serve, and does not serve.
        let rightly = worker.is_none_or(|worker| {
            self.workers.get(&worker).is_some_and(|record| {
                record.service == service && last < record.generation && !record.stage.serves()
            })
        });
        let reload = matches!(open.request, Request::Reload { .. } | Request::RollBack(_));
        // Of several services one may have changed again since.
        let book = &self.books[&service];
        let back = book.batches.back;
        let alone = open.together.len() == 1;
        ensure!(!put_back || back.is_none() || !alone, "S33: not all is put back: {back:?}");
        let serves = open.carried.get(&service) == Some(&book.serving);
        // Slots that were changed over may be so still, or were when everything went down.
        let partly = !put_back && (back.is_some() || book.batches.partly);
        let told = open.together.len() > 1 || partly || serves != *put_back;
        Ok(reload && begun && rightly && told && open.carried.contains_key(&service))
    }

    fn is_refused(&mut self, open: &Open, refusal: &Refusal) -> Result<bool, Violation> {
        ensure!(!refusal.to_string().contains('\n'), "S19: not a line: {refusal}");
        let reload = matches!(open.request, Request::Reload { .. } | Request::RollBack(_));
        let begins = matches!(open.request, Request::StartServices(_) | Request::Restart(_));
        let begins = begins || !open.aside.is_empty();
        let since = |of: fn(&Book) -> &BTreeSet<GenerationId>| {
            open.generations.iter().any(|(service, last)| {
                // Whoever asks for a start that is under way waits for that.
                let joins = |generation: &GenerationId| begins && generation == last;
                of(&self.books[service]).iter().any(|it| it > last || joins(it))
            })
        };
        let (sight, right) = match refusal {
            Refusal::InProgress { service, .. } => {
                let reload = matches!(
                    open.request,
                    Request::Reload { behind: Behind::Refuse, .. } | Request::RollBack(_)
                );
                let restart = matches!(open.request, Request::Restart(_));
                let named = self.books.iter().find(|(_, book)| book.policy.name == *service);
                let busy = named.is_some_and(|(id, _)| {
                    reload && open.busy.contains(id) || restart && open.in_the_way.contains(id)
                });
                ("a request in the way of another", busy)
            }
            Refusal::NoSuchService { name, .. } => {
                let unknown = self.books.values().all(|book| book.policy.name != *name);
                ("a service that there is not", unknown && open.generations.is_empty())
            }
            Refusal::NothingBefore { service } => {
                let named = self.books.iter().find(|(_, book)| book.policy.name == *service);
                let nothing = named.is_some_and(|(id, _)| open.nothing_before.contains(id));
                ("nothing to go back to", nothing && matches!(open.request, Request::RollBack(_)))
            }
            Refusal::NoSuchWorker { .. } => {
                ("a worker that there is not", open.reachable == Reachable::NoSuchWorker)
            }
            Refusal::WorkerNotRunning { .. } => {
                ("a worker without a process", open.reachable == Reachable::NotRunning)
            }
            Refusal::TooMany { service: None, .. } => ("stops too many", open.during_stop),
            Refusal::TooMany { .. } => ("a reload too many", open.waiting >= WAITING_MAX),
            Refusal::Stopping => ("a request refused", self.is_stopping()),
            Refusal::CannotScale { why, .. } => {
                ("a scale refused", open.scaled.values().any(|scaled| scaled == &Err(*why)))
            }
            Refusal::Configuration(_) => {
                // What is restarted together is read together.
                let with_others = matches!(open.request, Request::Restart(_))
                    && open.together.iter().any(|(service, last)| {
                        self.books[service].unread.iter().any(|generation| generation > last)
                    });
                let unread = since(|book| &book.unread) || with_others;
                ("a definition with a mistake", (reload || begins) && unread)
            }
            Refusal::Sockets { .. } => {
                let unbound = since(|book| &book.unbound);
                ("a socket that somebody has", (reload || begins) && unbound)
            }
            Refusal::ServiceStopped { .. } | Refusal::ServiceStopping { .. } => {
                let down = reload && !open.down.is_empty() || !open.over.is_empty();
                ("a service that is stopped", (reload || begins) && down)
            }
            Refusal::BoundToStopped { service, other } => {
                let of = |name: &str| self.books.iter().find(|(_, it)| it.policy.name == *name);
                let bound =
                    of(service).zip(of(other)).is_some_and(|((id, book), (other, down))| {
                        // The other may have been started since.
                        let over =
                            open.stays_without && down.life.is_down() || open.over.contains(id);
                        book.policy.bind_to.contains(other) && over
                    });
                ("a start without another refused", bound && (reload || begins))
            }
            Refusal::Failed { service, worker: None, .. } => {
                let named = self.books.values().find(|book| book.policy.name == *service);
                let needs = named.is_some_and(|book| book.policy.needs().next().is_some());
                ("a service that did not start", begins && needs)
            }
            Refusal::Failed { worker: Some(worker), .. } => {
                let blamed = self.workers.get(worker).is_some_and(|record| {
                    open.generations.contains_key(&record.service) && !record.stage.serves()
                });
                ("a service that did not start", begins && blamed)
            }
        };
        self.saw(sight);
        Ok(right)
    }
}

impl Book {
    fn is_in_canary(&self) -> bool {
        self.proving.is_in_canary()
    }

    fn has_nothing_before(&self) -> bool {
        self.proving.previous().is_none() && !self.is_in_canary()
    }
}

/// What a service that wants so many workers is to have.
fn scaled(wanted: u32, most: u32, to: Scale) -> Result<u32, CannotScale> {
    let most = i64::from(most);
    let asked = match to {
        Scale::To(asked) => i64::from(asked),
        Scale::By(by) => {
            let asked = i64::from(wanted) + i64::from(by);
            let stuck = asked < 1 && wanted == 1 || asked > most && i64::from(wanted) == most;
            if stuck { asked } else { asked.clamp(1, most) }
        }
    };
    match asked {
        ..1 => Err(CannotScale::TooFew),
        asked if asked > i64::from(WORKERS_MAX) => Err(CannotScale::TooMany),
        asked if asked > most => Err(CannotScale::NoPorts),
        asked => Ok(u32::try_from(asked).expect("it is within the bounds")),
    }
}
