//! What operators ask for, and S6: how each of their requests may be answered.

use std::collections::{BTreeMap, BTreeSet};

use shepherd::core::Action;
use shepherd::core::event::Event;
use shepherd::core::ids::{GenerationId, RequestId, ServiceId, SlotId, WorkerId};
use shepherd::core::policy::Signal;
use shepherd::core::refusal::{CannotScale, Refusal};
use shepherd::core::request::{
    Behind, Request, Response, Scale, Scope, ServiceOutcome, WAITING_MAX,
};
use shepherd::core::service::WORKERS_MAX;

use crate::invariants::{Violation, ensure};
use crate::ledger::{Begins, Lame, Ledger, Standing, Start, Stop, Turn};
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
pub(crate) struct Open {
    pub request: Request,
    /// The services that it is for, and the last generation of each when it was asked.
    pub generations: BTreeMap<ServiceId, GenerationId>,
    pub during_stop: bool,
    /// How many requests waited for the next reload of a service, where most did.
    waiting: usize,
    /// Something is under way in one of the services.
    busy: bool,
    /// How many workers each service is to have.
    scaled: BTreeMap<ServiceId, Result<u32, CannotScale>>,
    /// Whether the worker that a signal is for can get it.
    reachable: Reachable,
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
        200..218 => Request::Reload { scope: scope(script), behind: Behind::Queue },
        218..228 => Request::Reload { scope: scope(script), behind: Behind::Refuse },
        228..240 => {
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
        _ => {
            let back = u64::from(script.below(8));
            let signals = [Signal::Usr1, Signal::Term, Signal::Kill, Signal::Kill, Signal::Hup];
            let worker = WorkerId(last_worker.saturating_sub(back));
            Request::Signal { worker, signal: script.pick(&signals) }
        }
    }
}

fn scope(script: &mut Script) -> Scope {
    match script.below(8) {
        0..3 => Scope::Named(vec!["s1".to_owned()]),
        3 | 4 => Scope::Named(vec!["s2".to_owned()]),
        5 => Scope::Named(vec!["s2".to_owned(), "s1".to_owned(), "s2".to_owned()]),
        6 => Scope::All,
        _ => Scope::Named(vec![script.pick(&["s1", UNKNOWN, "s3"]).to_owned()]),
    }
}

impl Ledger {
    pub(crate) fn learn_request(&mut self, turn: &mut Turn<'_>, id: RequestId, request: &Request) {
        let services = self.concerned(request);
        let last = |service: &ServiceId| (*service, self.books[service].last_generation);
        let scaled = services.iter().filter_map(|&service| {
            let Request::Scale { to, .. } = request else { return None };
            let book = &self.books[&service];
            Some((service, scaled(book.wanted, book.policy.workers_max(), *to)))
        });
        let open = Open {
            request: request.clone(),
            generations: services.iter().map(last).collect(),
            during_stop: self.is_stopping(),
            waiting: services.iter().map(|&service| self.queued(service)).max().unwrap_or(0),
            busy: services.iter().any(|&service| self.is_busy(service)),
            scaled: scaled.collect(),
            reachable: self.reachable(request),
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
        self.requests.insert(id, open);
        self.learn_stop(turn, request);
    }

    fn learn_stop(&mut self, turn: &mut Turn<'_>, request: &Request) {
        let interrupt = *request == Request::Interrupt;
        match request {
            Request::Stop | Request::Interrupt | Request::StopNow => {}
            Request::Reload { .. }
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
            }
            Stop::No => {
                self.stop = Stop::Asked { interrupted: interrupt };
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
            | Request::Scale { services: Scope::All, .. }
            | Request::Restart(Scope::All) => return self.books.keys().copied().collect(),
            Request::Reload { scope: Scope::Named(names), .. }
            | Request::Scale { services: Scope::Named(names), .. }
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
        let last = self.books[&service].last_generation;
        let queued = self.requests.values().filter(|open| {
            matches!(open.request, Request::Reload { .. })
                && !open.during_stop
                && open.generations.get(&service) == Some(&last)
        });
        queued.count()
    }

    fn is_busy(&self, service: ServiceId) -> bool {
        let book = &self.books[&service];
        let starts = book.start == Start::Begun && !book.stumbled;
        book.rolling.is_some() || starts || self.queued(service) > 0
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
        let refused = actions.iter().any(|action| {
            matches!(action, Action::Respond(_, Response::Refused(Refusal::InProgress { .. })))
        });
        ensure!(!refused || actions.len() == 1, "S6: refused, and yet: {actions:?}");
        let open = self.requests.get(id);
        let waits = open.is_some_and(|open| {
            matches!(open.request, Request::Reload { behind: Behind::Refuse, .. }) && open.busy
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
            Response::Aborted { service, worker, put_back, .. } => {
                self.saw("an abort answered");
                self.is_aborted(&open, service, *worker, *put_back)?
            }
            Response::Refused(refusal) => {
                ensure!(!refusal.to_string().contains('\n'), "S19: not a line: {refusal}");
                self.is_refused(&open, refusal)
            }
        };
        ensure!(right, "S6: {:?} is answered with {response:?}", open.request);
        Ok(())
    }

    fn is_done(&mut self, open: &Open, services: &[ServiceOutcome]) -> bool {
        let told: Vec<&str> = services.iter().map(|outcome| outcome.name.as_str()).collect();
        let concerned = open.generations.keys().map(|service| &self.books[service].policy.name);
        let all = concerned.eq(told.iter().copied());
        let books = open.generations.iter().zip(services);
        match &open.request {
            Request::Reload { .. } => {
                // It is carried out after it was asked for: an older reload is no answer.
                let rightly = books.clone().all(|((service, last), outcome)| {
                    let committed = &self.books[service].committed;
                    outcome.generation > *last && committed.contains(&outcome.generation)
                });
                self.saw("a reload answered");
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
            Request::Restart(_) | Request::StopServices(_) | Request::StartServices(_) => false,
        }
    }

    fn is_aborted(
        &mut self,
        open: &Open,
        service: &str,
        worker: Option<WorkerId>,
        put_back: bool,
    ) -> Result<bool, Violation> {
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
        let changed = open.generations.iter().any(|(service, last)| {
            self.books[service].committed.iter().any(|generation| generation > last)
        });
        if !put_back {
            self.saw("a reload that came about in part");
        }
        let reload = matches!(open.request, Request::Reload { .. });
        Ok(reload && begun && rightly && (put_back || changed))
    }

    fn is_refused(&mut self, open: &Open, refusal: &Refusal) -> bool {
        let reload = matches!(open.request, Request::Reload { .. });
        let (sight, right) = match refusal {
            Refusal::InProgress { .. } => {
                let refuses =
                    matches!(open.request, Request::Reload { behind: Behind::Refuse, .. });
                ("a request in the way of another", refuses && open.busy)
            }
            Refusal::NoSuchService { name, .. } => {
                let unknown = self.books.values().all(|book| book.policy.name != *name);
                ("a service that there is not", unknown && open.generations.is_empty())
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
                let unread = open.generations.iter().any(|(service, last)| {
                    self.books[service].unread.iter().any(|generation| generation > last)
                });
                ("a definition with a mistake", reload && unread)
            }
            Refusal::ServiceStopping { .. }
            | Refusal::ServiceStopped { .. }
            | Refusal::Failed { .. } => ("", false),
        };
        self.saw(sight);
        right
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
