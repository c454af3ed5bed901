//! Why a request is refused: sentences that name the thing, the cause and the next step.

use std::fmt;

use super::ids::WorkerId;
use super::request::WAITING_MAX;
use super::service::WORKERS_MAX;

/// Why a request was not begun, or did not come about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Another operation on a service is under way or waits for its turn. Nothing has happened, in
    /// no service.
    InProgress {
        /// Which service.
        service: String,
        /// What is under way.
        operation: Operation,
    },
    /// A service was named that there is not. Nothing has happened, in no service.
    NoSuchService {
        /// The name.
        name: String,
        /// The names that there are, in the order of their numbers.
        known: Vec<String>,
        /// The one of them that may have been meant.
        nearest: Option<String>,
    },
    /// A worker was named that is none, or none any more.
    NoSuchWorker {
        /// Its number.
        worker: WorkerId,
    },
    /// A worker has no main process that could be sent a signal: its program does not run yet, or
    /// has exited and left others behind.
    WorkerNotRunning {
        /// Its number.
        worker: WorkerId,
    },
    /// Too many requests wait for the same already.
    TooMany {
        /// Of which service; `None` where it is the stop of everything.
        service: Option<String>,
        /// For what.
        operation: Operation,
    },
    /// There is no definition that served before the one that does.
    NothingBefore {
        /// Which service.
        service: String,
    },
    /// Everything is being stopped, or is stopped.
    Stopping,
    /// An operator has asked that a service be stopped, and that ended what was asked for before.
    ServiceStopping {
        /// Which service.
        service: String,
    },
    /// A service is stopped, so that there is nothing to reload.
    ServiceStopped {
        /// Which service.
        service: String,
    },
    /// A service is bound to another that is stopped, so that it is, or stays so.
    BoundToStopped {
        /// Which service.
        service: String,
        /// The other.
        other: String,
    },
    /// The number of workers stays as it is.
    CannotScale {
        /// Of which service.
        service: String,
        /// Why.
        why: CannotScale,
    },
    /// There is a mistake in what was read: this says where, and what to do about it. Nothing has
    /// happened.
    Configuration(String),
    /// A socket cannot be bound: somebody has the port, mostly. Nothing has happened.
    Sockets {
        /// The service that was to be started; `None` where a reload was to bind it.
        service: Option<String>,
        /// Which one, why, and what to do about it.
        reason: String,
    },
    /// A service could not be started.
    Failed {
        /// Which service.
        service: String,
        /// Why, for people.
        reason: String,
        /// The worker whose end was the reason, if one was: its last lines of output may say more.
        /// They are kept until this response is performed.
        worker: Option<WorkerId>,
    },
}

/// What can be under way in a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Its workers get going for the first time since it was started.
    Start,
    /// The change to the next generation.
    Reload,
    /// A stop with a start after it.
    Restart,
    /// Its workers drain.
    Stop,
}

/// Why a number of workers cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CannotScale {
    /// It would be none.
    TooFew,
    /// It would be more than a service may have.
    TooMany,
    /// Its sockets have a port for each slot, and not for so many.
    NoPorts,
}

impl Refusal {
    /// Whether everything is as if nobody had asked.
    pub(crate) fn leaves_all_as_it_was(&self) -> bool {
        match self {
            Refusal::InProgress { .. }
            | Refusal::NoSuchService { .. }
            | Refusal::NoSuchWorker { .. }
            | Refusal::WorkerNotRunning { .. }
            | Refusal::TooMany { .. }
            | Refusal::NothingBefore { .. }
            | Refusal::Stopping
            | Refusal::ServiceStopping { .. }
            | Refusal::ServiceStopped { .. }
            | Refusal::BoundToStopped { .. }
            | Refusal::CannotScale { .. }
            | Refusal::Configuration(_)
            | Refusal::Sockets { .. } => true,
            Refusal::Failed { .. } => false,
        }
    }

    /// The refusal of a name that none of the `known` services has.
    pub(crate) fn no_such_service(name: &str, known: Vec<String>) -> Refusal {
        let nearest = nearest(name, &known).cloned();
        Refusal::NoSuchService { name: name.to_owned(), known, nearest }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::InProgress { service, operation } => {
                write!(f, "cannot change `{service}`: its {operation} is in progress; ")?;
                match operation {
                    Operation::Reload => {
                        write!(f, "ask again once it has ended, or queue a reload")
                    }
                    Operation::Start | Operation::Restart | Operation::Stop => {
                        write!(f, "ask again once it has ended")
                    }
                }
            }
            Refusal::NoSuchService { name, known, nearest } => {
                write!(f, "there is no service `{name}`; ")?;
                match (nearest, known.as_slice()) {
                    (Some(nearest), _) => write!(f, "did you mean `{nearest}`?"),
                    (None, []) => write!(f, "there is none at all"),
                    (None, [only]) => write!(f, "there is `{only}`"),
                    (None, [first, others @ ..]) => {
                        write!(f, "there are `{first}`")?;
                        others.iter().try_for_each(|other| write!(f, ", `{other}`"))
                    }
                }
            }
            Refusal::NoSuchWorker { worker } => {
                write!(f, "there is no worker {worker}; `shepherd status` shows those there are")
            }
            Refusal::WorkerNotRunning { worker } => {
                write!(
                    f,
                    "cannot send a signal to worker {worker}: its main process does not run"
                )?;
                write!(f, "; SIGKILL ends what there is of it")
            }
            Refusal::TooMany { service, operation } => {
                match service {
                    Some(service) => write!(f, "cannot wait for the {operation} of `{service}`: ")?,
                    None => write!(f, "cannot wait for the {operation} of everything: ")?,
                }
                write!(f, "{WAITING_MAX} requests do already; ask again once it has ended")
            }
            Refusal::NothingBefore { service } => {
                write!(f, "cannot roll `{service}` back: nothing is known that served before ")?;
                write!(f, "what does; mend the configuration and reload")
            }
            Refusal::Stopping => {
                write!(f, "everything is being stopped; ask again once shepherd runs again")
            }
            Refusal::ServiceStopping { service } => {
                write!(f, "`{service}` is being stopped; start it once it is")
            }
            Refusal::ServiceStopped { service } => {
                write!(f, "cannot reload `{service}`: it is stopped; start it")
            }
            Refusal::BoundToStopped { service, other } => {
                write!(
                    f,
                    "`{service}` is bound to `{other}`, which is stopped; start `{other}` first"
                )
            }
            Refusal::CannotScale { service, why } => {
                write!(f, "cannot scale `{service}`: {why}; ")?;
                match why {
                    CannotScale::TooFew => write!(f, "to have none, stop it"),
                    CannotScale::TooMany => write!(f, "ask for fewer"),
                    CannotScale::NoPorts => write!(f, "listen from a lower port on"),
                }
            }
            Refusal::Configuration(reason) | Refusal::Sockets { service: None, reason } => {
                write!(f, "{reason}")
            }
            Refusal::Sockets { service: Some(service), reason }
            | Refusal::Failed { service, reason, .. } => {
                write!(f, "cannot start `{service}`: {reason}")
            }
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Operation::Start => "start",
            Operation::Reload => "reload",
            Operation::Restart => "restart",
            Operation::Stop => "stop",
        })
    }
}

impl fmt::Display for CannotScale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CannotScale::TooFew => write!(f, "1 worker is the least"),
            CannotScale::TooMany => write!(f, "{WORKERS_MAX} workers are the most"),
            CannotScale::NoPorts => write!(f, "its sockets have no ports for more"),
        }
    }
}

/// The known name that may have been meant: about every other letter is right, so that two which were
/// swapped in a short name are forgiven.
fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a String> {
    let near = known.iter().map(|known| (distance(name, known), known));
    let (distance, nearest) = near.min_by_key(|&(distance, _)| distance)?;
    let letters = name.chars().count();
    (distance < letters && distance * 2 <= letters + 1).then_some(nearest)
}

/// How many letters have to be put in, left out or changed to make one of the other, as Levenshtein
/// counts it.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut before = index;
        let mut left = index + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, known) in row.iter_mut().skip(1).zip(&other) {
            let changed = before + usize::from(letter != *known);
            before = *cell;
            left = changed.min(before + 1).min(left + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_recognized_while_most_of_it_is_right() {
        let known: Vec<String> = ["web", "worker", "api"].map(str::to_owned).into();
        for (name, meant) in [
            ("wbe", Some("web")),
            ("we", Some("web")),
            ("webb", Some("web")),
            ("Web", Some("web")),
            ("wroker", Some("worker")),
            ("workers", Some("worker")),
            ("mail", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, &known).map(String::as_str), meant, "{name}");
        }
        assert_eq!(nearest("web", &[]), None);
    }

    #[test]
    fn a_refusal_names_the_thing_the_cause_and_the_next_step() {
        let web = || "web".to_owned();
        let known = vec![web(), "api".to_owned()];
        let in_progress = |operation| Refusal::InProgress { service: web(), operation };
        for (refusal, text) in [
            (
                in_progress(Operation::Reload),
                "cannot change `web`: its reload is in progress; ask again once it has ended, or \
                 queue a reload",
            ),
            (
                in_progress(Operation::Start),
                "cannot change `web`: its start is in progress; ask again once it has ended",
            ),
            (
                Refusal::no_such_service("webb", known.clone()),
                "there is no service `webb`; did you mean `web`?",
            ),
            (
                Refusal::no_such_service("mail", known),
                "there is no service `mail`; there are `web`, `api`",
            ),
            (
                Refusal::no_such_service("mail", vec![web()]),
                "there is no service `mail`; there is `web`",
            ),
            (
                Refusal::TooMany { service: Some(web()), operation: Operation::Reload },
                "cannot wait for the reload of `web`: 64 requests do already; ask again once it \
                 has ended",
            ),
            (
                Refusal::CannotScale { service: web(), why: CannotScale::TooFew },
                "cannot scale `web`: 1 worker is the least; to have none, stop it",
            ),
            (
                Refusal::CannotScale { service: web(), why: CannotScale::TooMany },
                "cannot scale `web`: 4096 workers are the most; ask for fewer",
            ),
            (
                Refusal::ServiceStopped { service: web() },
                "cannot reload `web`: it is stopped; start it",
            ),
            (
                Refusal::BoundToStopped { service: web(), other: "db".to_owned() },
                "`web` is bound to `db`, which is stopped; start `db` first",
            ),
        ] {
            assert_eq!(refusal.to_string(), text);
        }
    }
}
