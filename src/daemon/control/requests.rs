//! What clients ask in the core's words, and what the core responds in theirs.

use crate::config::text::{each_on_one_line, one_line};
use crate::control::message::Operation;
use crate::control::problem;
use crate::control::wire::{self, Problem, ProblemKind};
use crate::core::ids::WorkerId;
use crate::core::policy::Signal;
use crate::core::refusal::Refusal;
use crate::core::request::{
    Abort, Behind, End, Part, Request, Scale, Scope, ServiceOutcome, worst,
};

/// The request of the core that an operation is.
pub(super) fn request(operation: Operation) -> Result<Request, Problem> {
    let scope =
        |names: Vec<String>| if names.is_empty() { Scope::All } else { Scope::Named(names) };
    Ok(match operation {
        Operation::Reload(wire::Reload { services, queue }) => {
            let scope = scope(services);
            let behind = if queue { Behind::Queue } else { Behind::Refuse };
            Request::Reload { scope, behind }
        }
        Operation::RollBack(wire::RollBack { services }) => Request::RollBack(scope(services)),
        Operation::Restart(service) => Request::Restart(Scope::Named(vec![service])),
        Operation::Stop(service) => Request::StopServices(vec![service]),
        Operation::Start(service) => Request::StartServices(vec![service]),
        Operation::Scale(service, to) => {
            let to = match to {
                wire::Scale::To(workers) => Scale::To(workers),
                wire::Scale::By(workers) => Scale::By(workers),
            };
            Request::Scale { services: Scope::Named(vec![service]), to }
        }
        Operation::StopAll => Request::Stop,
        Operation::Signal { worker, signal } => {
            Request::Signal { worker: WorkerId(worker), signal: named(&signal)? }
        }
    })
}

/// What a client asked for, as far as that makes a difference to how it is told of several services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// A reload: each service goes its own way, and each is told of.
    Reload,
    /// Something that is for one service, with which others may go along.
    Else,
}

impl Asked {
    pub(super) fn of(request: &Request) -> Asked {
        if let Request::Reload { .. } = request { Asked::Reload } else { Asked::Else }
    }
}

/// How something other than a reload ended, of which this is the worst that came of it.
pub(super) fn partly(parts: &[Part], worst: Problem) -> Problem {
    let done = parts.iter().filter(|part| part.is_done()).map(|part| format!("`{}`", part.service));
    let done = done.collect::<Vec<_>>().join(", ");
    if done.is_empty() {
        return worst;
    }
    // Unlike that of a file with a mistake, it does not say that nothing has happened.
    Problem { detail: format!("{}; it was done in {done}", one_line(&worst.detail)), ..worst }
}

/// What became of the services.
pub(super) fn done(services: &[ServiceOutcome]) -> wire::Done {
    let services = services.iter().map(|service| wire::DoneService {
        name: service.name.clone(),
        generation: service.generation.0,
        workers: service.workers,
    });
    wire::Done { services: services.collect() }
}

/// How a reload ended that was aborted.
pub(super) fn aborted(abort: &Abort) -> Problem {
    let kind = if abort.put_back { ProblemKind::Aborted } else { ProblemKind::NotPutBack };
    let problem = problem::of(kind, 500, one_line(&abort.reason));
    Problem { service: Some(abort.service.clone()), ..problem }
}

/// What became of a reload in one of several services.
pub(super) fn ended(part: &Part, problem: Option<Problem>) -> wire::EndedService {
    let ended = wire::EndedService {
        name: part.service.clone(),
        outcome: wire::COMMITTED.to_owned(),
        generation: part.serving.map(|generation| generation.0),
        detail: None,
        worker: None,
        output: Vec::new(),
    };
    match problem {
        None => ended,
        Some(problem) => wire::EndedService {
            outcome: problem::name(problem.kind).to_owned(),
            detail: Some(problem.detail),
            worker: problem.worker,
            output: problem.output,
            ..ended
        },
    }
}

/// What kind of problem it is that services ended differently.
pub(super) fn kind(parts: &[Part]) -> ProblemKind {
    match worst(parts) {
        Some(End::Refused(Refusal::Configuration(_))) if parts.iter().any(Part::is_done) => {
            // That says that nothing has happened; and something has.
            ProblemKind::Aborted
        }
        Some(End::Refused(refusal)) => refused(refusal).kind,
        Some(End::Aborted(abort)) => aborted(abort).kind,
        Some(End::Done(_) | End::LeftOut) | None => ProblemKind::Aborted,
    }
}

/// How a request ended of which `worst` is the worst that came of it in one service.
pub(super) fn divided(
    parts: &[Part],
    worst: Option<Problem>,
    services: Vec<wire::EndedService>,
) -> Problem {
    let kind = kind(parts);
    let each = services.iter().map(|service| {
        let wire::EndedService { name, outcome, generation, detail, .. } = service;
        let why = detail.as_ref().map(|detail| format!(": {}", one_line(detail)));
        let serves = generation.map(|generation| format!("; generation {generation} serves"));
        let (why, serves) = (why.unwrap_or_default(), serves.unwrap_or_default());
        format!("`{name}` {outcome}{why}{serves}")
    });
    let detail = each.collect::<Vec<_>>().join("; ");
    let status = match (kind, &worst) {
        (ProblemKind::Aborted | ProblemKind::NotPutBack, _) | (_, None) => 500,
        (_, Some(worst)) => worst.status,
    };
    let problem = problem::of(kind, status, detail);
    let (service, worker, output) =
        worst.map_or_else(Default::default, |worst| (worst.service, worst.worker, worst.output));
    Problem { service, worker, output, services, ..problem }
}

/// The worker whose end is the reason for a refusal.
pub(super) fn blamed(refusal: &Refusal) -> Option<WorkerId> {
    match refusal {
        Refusal::Failed { worker, .. } => *worker,
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
        | Refusal::Sockets { .. } => None,
    }
}

/// Why it was not done.
pub(super) fn refused(refusal: &Refusal) -> Problem {
    let (kind, status) = match refusal {
        Refusal::InProgress { .. } => (ProblemKind::InProgress, 409),
        Refusal::NoSuchService { .. } | Refusal::NoSuchWorker { .. } => {
            (ProblemKind::NotFound, 404)
        }
        Refusal::TooMany { .. } => (ProblemKind::TooBusy, 429),
        Refusal::Stopping
        | Refusal::ServiceStopping { .. }
        | Refusal::ServiceStopped { .. }
        | Refusal::BoundToStopped { .. } => (ProblemKind::Stopping, 409),
        Refusal::CannotScale { .. } => (ProblemKind::BadRequest, 400),
        Refusal::Configuration(_) => (ProblemKind::Configuration, 422),
        Refusal::Sockets { .. } => (ProblemKind::Bind, 409),
        Refusal::WorkerNotRunning { .. } | Refusal::NothingBefore { .. } => {
            (ProblemKind::Failed, 409)
        }
        Refusal::Failed { .. } => (ProblemKind::Failed, 500),
    };
    let service = match refusal {
        Refusal::InProgress { service, .. }
        | Refusal::ServiceStopping { service }
        | Refusal::ServiceStopped { service }
        | Refusal::BoundToStopped { service, .. }
        | Refusal::NothingBefore { service }
        | Refusal::CannotScale { service, .. }
        | Refusal::Failed { service, .. } => Some(service.clone()),
        Refusal::TooMany { service, .. } | Refusal::Sockets { service, .. } => service.clone(),
        Refusal::NoSuchService { .. }
        | Refusal::NoSuchWorker { .. }
        | Refusal::WorkerNotRunning { .. }
        | Refusal::Stopping
        | Refusal::Configuration(_) => None,
    };
    // Names come from clients, reasons from files: either may hold anything. The mistakes of a file
    // are shown with their lines, which stay as they are.
    let detail = match refusal {
        Refusal::Configuration(reason) => each_on_one_line(reason),
        refusal => one_line(&refusal.to_string()),
    };
    Problem { service, ..problem::of(kind, status, detail) }
}

/// A signal by its name, with or without `SIG`.
fn named(name: &str) -> Result<Signal, Problem> {
    let capitals = name.to_ascii_uppercase();
    let short = capitals.strip_prefix("SIG").unwrap_or(&capitals);
    let known = Signal::ALL.iter().find(|signal| signal.name() == short);
    known.copied().ok_or_else(|| {
        let all: Vec<&str> = Signal::ALL.iter().map(|signal| signal.name()).collect();
        let name = one_line(name);
        let detail = format!("cannot send a signal `{name}`; there are {}", all.join(", "));
        problem::of(ProblemKind::BadRequest, 400, detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_of_those_that_went_along_is_told_with_the_worst() {
        let part = |service: &str, end| Part { service: service.to_owned(), serving: None, end };
        let refused_part = part("web", End::Refused(Refusal::Configuration("no\nno".to_owned())));
        let done = End::Done(ServiceOutcome {
            name: "db".to_owned(),
            generation: crate::core::ids::GenerationId(2),
            workers: 1,
        });
        let worst = || refused(&Refusal::Configuration("no\nno".to_owned()));
        let told = |parts: &[Part]| partly(parts, worst()).detail;
        assert_eq!(told(&[part("db", done), refused_part.clone()]), "no\\nno; it was done in `db`");
        assert_eq!(told(&[refused_part]), "no\nno");
    }

    #[test]
    fn a_signal_has_its_name_with_and_without_its_prefix() {
        for name in ["USR1", "SIGUSR1", "usr1", "SigUsr1"] {
            assert_eq!(named(name), Ok(Signal::Usr1), "{name}");
        }
        for name in ["", "SIG", "USR", "USR1 ", "10", "SIGSIGUSR1"] {
            assert_eq!(named(name).map_err(|problem| problem.status), Err(400), "{name}");
        }
    }

    #[test]
    fn the_mistakes_of_a_file_keep_their_lines_and_names_have_one() {
        let detail = |refusal| refused(&refusal).detail;
        let report = "error: no\n --> a.yaml:1:1\n\x1b";
        let shown = "error: no\n --> a.yaml:1:1\n\\u{1b}";
        assert_eq!(detail(Refusal::Configuration(report.to_owned())), shown);
        let name = "a\nb".to_owned();
        assert!(!detail(Refusal::ServiceStopping { service: name }).contains('\n'));
    }

    #[test]
    fn a_reload_without_names_is_for_all() {
        let reload = |services: &[&str], queue| {
            let services = services.iter().map(|&name| name.to_owned()).collect();
            request(Operation::Reload(wire::Reload { services, queue })).expect("it is one")
        };
        let all = Request::Reload { scope: Scope::All, behind: Behind::Refuse };
        assert_eq!(reload(&[], false), all);
        let scope = Scope::Named(vec!["web".to_owned()]);
        assert_eq!(reload(&["web"], true), Request::Reload { scope, behind: Behind::Queue });
    }
}
