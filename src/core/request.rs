//! Operators' requests, by signal or by a client. Each ends in exactly one response.

use super::ids::{GenerationId, WorkerId};
use super::policy::Signal;
use super::refusal::Refusal;

/// What an operator can ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Read the definitions again and roll to them. Services that are stopped stay so: those among
    /// all are left out, and one that is named is refused.
    Reload {
        /// Of which services.
        scope: Scope,
        /// What becomes of it when a reload is under way.
        behind: Behind,
    },
    /// Read the definitions again, and when they are whole stop the services and start them anew;
    /// their sockets stay open meanwhile. One that is stopped and named is started; among all it is
    /// left out.
    Restart(Scope),
    /// Stop these services: their sockets close, their workers drain. They stay known.
    StopServices(Vec<String>),
    /// Start these services again, from their definitions as they are by then.
    StartServices(Vec<String>),
    /// Change how many workers are wanted.
    Scale {
        /// Of which services; one that is stopped will have so many.
        services: Scope,
        /// How.
        to: Scale,
    },
    /// Send a signal to a worker's main process; `KILL` goes to every process of its tree.
    Signal {
        /// Which worker.
        worker: WorkerId,
        /// Which signal.
        signal: Signal,
    },
    /// Stop everything: the workers drain first.
    Stop,
    /// The same, from a keyboard: asked for a second time it stops everything at once.
    Interrupt,
    /// Stop everything at once, by KILL.
    StopNow,
}

/// Which services a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    All,
    /// Those with these names; a name that comes twice counts once.
    Named(Vec<String>),
}

/// What becomes of a reload that cannot begin at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// It runs next. One is queued, and whoever asks meanwhile waits for that one.
    Queue,
    /// It is refused, in all the services that it was asked for.
    Refuse,
}

/// A change of how many workers a service wants: never below 1, never above
/// [`Policy::workers_max`](super::policy::Policy::workers_max).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// So many; refused where that is out of bounds.
    To(u32),
    /// So many more, or fewer where negative, as far as the bounds allow; refused where nothing can
    /// change.
    By(i32),
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// It was done, in these services, in the order of their numbers. There are none where it was
    /// for the daemon.
    Done(Vec<ServiceOutcome>),
    /// A reload was aborted, and the old generation serves in this service.
    Aborted {
        /// Which service.
        service: String,
        /// Why, for people.
        reason: String,
        /// The worker of the generation that was to serve whose end was the reason, if one was: its
        /// last lines of output may say more. They are kept until this response is performed.
        worker: Option<WorkerId>,
        /// Whether every service serves as before; not where the reload of another one that the
        /// request was for is committed.
        put_back: bool,
    },
    /// It was not begun, or did not come about.
    Refused(Refusal),
}

/// What a request that was done has made of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceOutcome {
    /// Its name.
    pub name: String,
    /// The generation that serves, or served last where it is stopped.
    pub generation: GenerationId,
    /// How many workers it wants.
    pub workers: u32,
}

impl Response {
    /// How a request that went to several services ended: as the worst of them, and where that is
    /// the same, as the later of the two.
    pub(crate) fn and(self, other: Response) -> Response {
        match (self, other) {
            (Response::Done(mut services), Response::Done(others)) => {
                services.extend(others);
                Response::Done(services)
            }
            (Response::Done(services), other) | (other, Response::Done(services)) => {
                other.beside(&services)
            }
            (one, other) if one.gravity() > other.gravity() => one,
            (_, other) => other,
        }
    }

    fn gravity(&self) -> u8 {
        match self {
            Response::Done(_) => 0,
            Response::Refused(refusal) if refusal.leaves_all_as_it_was() => 1,
            Response::Aborted { .. } => 2,
            Response::Refused(_) => 3,
        }
    }

    /// The same, when it was done in these other services.
    fn beside(self, done: &[ServiceOutcome]) -> Response {
        match self {
            Response::Aborted { service, reason, worker, put_back } => {
                let put_back = put_back && done.is_empty();
                Response::Aborted { service, reason, worker, put_back }
            }
            Response::Done(_) | Response::Refused(_) => self,
        }
    }
}

/// How many requests may wait for the same: the next reload of a service, its start, its stop, or
/// the stop of everything. More are refused.
pub const WAITING_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn done(name: &str) -> Response {
        let (name, generation, workers) = (name.to_owned(), GenerationId(2), 1);
        Response::Done(vec![ServiceOutcome { name, generation, workers }])
    }

    fn aborted(service: &str, put_back: bool) -> Response {
        let (service, reason) = (service.to_owned(), "it died".to_owned());
        Response::Aborted { service, reason, worker: None, put_back }
    }

    #[test]
    fn a_request_for_several_services_ends_as_the_worst_of_them() {
        let Response::Done(all) = done("a").and(done("b")) else {
            panic!("both are done");
        };
        assert_eq!(all.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let refused = || Response::Refused(Refusal::Configuration("no such file".to_owned()));
        assert_eq!(refused().and(done("b")), refused());
        assert_eq!(done("a").and(refused()), refused());
        assert_eq!(refused().and(aborted("b", true)), aborted("b", true));
        assert_eq!(aborted("a", true).and(refused()), aborted("a", true));
    }

    #[test]
    fn not_all_is_put_back_where_another_service_was_changed() {
        assert_eq!(aborted("a", true).and(aborted("b", true)), aborted("b", true));
        assert_eq!(done("a").and(aborted("b", true)), aborted("b", false));
        assert_eq!(aborted("a", true).and(done("b")), aborted("a", false));
    }
}
