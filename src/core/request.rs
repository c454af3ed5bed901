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
    /// Read the definitions again, and when all are whole stop the services and start them anew, those
    /// that are bound to them too; their sockets stay open meanwhile. One that is stopped and named is
    /// started; among all it is left out.
    Restart(Scope),
    /// Roll back to the definitions that served before those that do. Of all services, those that
    /// have none are refused, and so are all.
    RollBack(Scope),
    /// Stop these services, and before them those that are bound to them: their sockets close, their
    /// workers drain. They stay known.
    StopServices(Vec<String>),
    /// Start these services again, from their definitions as they are by then, and after them those
    /// that were stopped with them. One that is bound to another that stays stopped is refused.
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
    /// It was done, in these services, in the order of their numbers, those among them that went along,
    /// bound to one that it was for. There are none where it was for the daemon.
    Done(Vec<ServiceOutcome>),
    /// A reload was aborted, and the old generation serves.
    Aborted(Abort),
    /// It was not begun, or did not come about.
    Refused(Refusal),
    /// It was for several services, was not done in all of them, and did not end in the same way in
    /// each: this is how, in the order of their numbers. There are two at least.
    Divided(Vec<Part>),
}

/// How a request ended in one of several services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The service's name.
    pub service: String,
    /// The generation that serves there, if one does.
    pub serving: Option<GenerationId>,
    /// How.
    pub end: End,
}

/// How a request ended in one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It was done.
    Done(ServiceOutcome),
    /// It was for all services, and this is none of those: it is stopped.
    LeftOut,
    /// A reload was aborted, and the old generation serves.
    Aborted(Abort),
    /// It was not begun, or did not come about.
    Refused(Refusal),
}

/// A reload that was aborted in one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abort {
    /// Which service.
    pub service: String,
    /// Why, for people.
    pub reason: String,
    /// The worker of the generation that was to serve whose end was the reason, if one was: its last
    /// lines of output may say more. They are kept until the response is performed, unless many
    /// others ended meanwhile.
    pub worker: Option<WorkerId>,
    /// Whether what served before serves again.
    pub put_back: bool,
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
    /// How a request ended that was for services in which it ended so.
    pub(crate) fn of(parts: impl IntoIterator<Item = Part>) -> Response {
        let mut parts: Vec<Part> =
            parts.into_iter().filter(|part| part.end != End::LeftOut).collect();
        let done = parts.iter().map(|part| match &part.end {
            End::Done(outcome) => Some(outcome.clone()),
            End::LeftOut | End::Aborted(_) | End::Refused(_) => None,
        });
        if let Some(done) = done.collect() {
            return Response::Done(done);
        }
        let mut ends = parts.iter().map(|part| &part.end);
        let first = ends.next();
        // Whoever asked for several things is told once that everything is being stopped.
        if ends.all(|end| Some(end) == first)
            && let Some(part) = parts.pop()
        {
            return part.end.into();
        }
        Response::Divided(parts)
    }
}

impl From<End> for Response {
    fn from(end: End) -> Response {
        match end {
            End::Done(outcome) => Response::Done(vec![outcome]),
            End::LeftOut => Response::Done(Vec::new()),
            End::Aborted(abort) => Response::Aborted(abort),
            End::Refused(refusal) => Response::Refused(refusal),
        }
    }
}

/// How a request ended that went to several services: as the worst of them, the first where several
/// are as bad. `None` where there are none.
#[must_use]
pub fn worst(parts: &[Part]) -> Option<&End> {
    // Of several it gives the last.
    parts.iter().rev().map(|part| &part.end).max_by_key(|end| end.gravity())
}

impl Part {
    /// Whether it was done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.end, End::Done(_))
    }
}

impl End {
    fn gravity(&self) -> u8 {
        match self {
            End::Done(_) | End::LeftOut => 0,
            // What became of the other says why.
            End::Refused(Refusal::BoundToStopped { .. }) => 1,
            End::Refused(refusal) if refusal.leaves_all_as_it_was() => 2,
            End::Aborted(abort) if abort.put_back => 3,
            // It may be for one that waits for the next.
            End::Refused(Refusal::Failed { worker: None, .. }) => 4,
            End::Refused(_) => 5,
            // Nobody knows what serves there.
            End::Aborted(_) => 6,
        }
    }
}

/// How many requests may wait for the same: the next reload of a service, its start, its stop, or
/// the stop of everything. More are refused.
pub const WAITING_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(service: &str) -> ServiceOutcome {
        ServiceOutcome { name: service.to_owned(), generation: GenerationId(2), workers: 1 }
    }

    fn part(service: &str, end: End) -> Part {
        Part { service: service.to_owned(), serving: Some(GenerationId(1)), end }
    }

    fn done(service: &str) -> Part {
        part(service, End::Done(outcome(service)))
    }

    fn aborted(service: &str) -> Part {
        let abort = Abort {
            service: service.to_owned(),
            reason: "it died".to_owned(),
            worker: None,
            put_back: true,
        };
        part(service, End::Aborted(abort))
    }

    fn not_put_back(service: &str) -> Part {
        let abort = Abort {
            service: service.to_owned(),
            reason: "it died".to_owned(),
            worker: None,
            put_back: false,
        };
        part(service, End::Aborted(abort))
    }

    fn refused(service: &str, refusal: Refusal) -> Part {
        part(service, End::Refused(refusal))
    }

    #[test]
    fn services_that_ended_alike_are_answered_in_one_and_others_each() {
        let both = Response::Done(vec![outcome("a"), outcome("b")]);
        assert_eq!(Response::of([done("a"), part("x", End::LeftOut), done("b")]), both);
        let stopping = |service| refused(service, Refusal::Stopping);
        let told_once = Response::Refused(Refusal::Stopping);
        assert_eq!(Response::of([stopping("a"), stopping("b")]), told_once);
        assert_eq!(Response::of([aborted("a")]), aborted("a").end.into());
        for parts in [[done("a"), aborted("b")], [aborted("a"), aborted("b")]] {
            assert_eq!(Response::of(parts.clone()), Response::Divided(parts.to_vec()));
        }
        assert_eq!(Response::of([]), Response::Done(Vec::new()));
    }

    #[test]
    fn of_several_services_the_worst_counts() {
        let mistake = || refused("a", Refusal::Configuration("no such file".to_owned()));
        let failed = || {
            let (service, reason) = ("f".to_owned(), "it died".to_owned());
            refused("f", Refusal::Failed { service, reason, worker: None })
        };
        for (parts, worst_at) in [
            ([done("a"), mistake()], 1),
            ([aborted("a"), mistake()], 0),
            ([aborted("a"), aborted("b")], 0),
            ([aborted("a"), failed()], 1),
            ([not_put_back("a"), failed()], 0),
            ([aborted("a"), not_put_back("b")], 1),
        ] {
            assert_eq!(worst(&parts), Some(&parts[worst_at].end), "{parts:?}");
        }
    }
}
