//! How a request ended, in the words of the verb that asked for it.

use crate::control::wire::{
    COMMITTED, Done, DoneService, EndedService, Problem, ProblemKind, Sent, Status, WorkerState,
};

use super::{compact, plain, workers};

/// What there is after a reload that was aborted.
pub(in crate::cli) const OLD_SERVES: &str = "the old generation serves on";

/// `web: reload committed after 1.2s: generation 2 serves; 4 old workers drain`, with `what` was done
/// in words. `after` is the status after the end, if it could be had.
pub(in crate::cli) fn reloaded(
    done: &Done,
    what: &str,
    took: f64,
    after: Option<&Status>,
) -> String {
    let mut text = String::new();
    for service in &done.services {
        let DoneService { name, generation, .. } = service;
        let (name, time) = (plain(name), compact(took));
        text.extend([format!("{name}: {what} after {time}: generation {generation} serves")]);
        match after.map_or(0, |status| draining(status, service)) {
            0 => {}
            1 => text.push_str("; 1 old worker drains"),
            many => text.extend([format!("; {many} old workers drain")]),
        }
        text.push('\n');
    }
    text
}

/// How many workers of older generations drain still.
pub(in crate::cli) fn draining(status: &Status, done: &DoneService) -> usize {
    let services = status.services.iter().filter(|service| service.name == done.name);
    let drains = |worker: &&crate::control::wire::Worker| {
        worker.state == WorkerState::Draining && worker.generation != done.generation
    };
    services.map(|service| service.workers.iter().filter(drains).count()).sum()
}

/// `web: restarted, generation 2 with 4 workers`; where another was `asked` for, to which it is bound,
/// `web: restarted together with db, generation 2 with 4 workers`.
pub(in crate::cli) fn done(done: &Done, verb: &str, asked: &str) -> String {
    let line = |service: &DoneService| {
        let DoneService { name, generation, .. } = service;
        let along = together(name, asked);
        let with = workers(service.workers);
        format!("{}: {verb}{along}, generation {generation} with {with}\n", plain(name))
    };
    done.services.iter().map(line).collect()
}

fn together(name: &str, asked: &str) -> String {
    if name == asked { String::new() } else { format!(" together with {}", plain(asked)) }
}

/// `worker 17 (web.2): message queued, behind 3 others`.
pub(in crate::cli) fn sent(sent: &Sent) -> String {
    let Sent { worker, service, slot, waiting } = sent;
    let behind = match waiting {
        0 => String::new(),
        1 => ", behind another".to_owned(),
        many => format!(", behind {many} others"),
    };
    format!("worker {worker} ({}.{slot}): message queued{behind}\n", plain(service))
}

/// `web: 4 workers wanted`.
pub(in crate::cli) fn scaled(done: &Done) -> String {
    let line = |service: &DoneService| {
        format!("{}: {} wanted\n", plain(&service.name), workers(service.workers))
    };
    done.services.iter().map(line).collect()
}

/// `web: stopped`, or `web: stopped together with db`.
pub(in crate::cli) fn stopped(done: &Done, asked: &str) -> String {
    let line = |service: &DoneService| {
        let along = together(&service.name, asked);
        format!("{}: stopped{along}\n", plain(&service.name))
    };
    done.services.iter().map(line).collect()
}

/// What became of a reload in each of several services, a line each, and below it what the worker
/// wrote last.
fn divided(problem: &Problem, noun: &str) -> String {
    let all = problem.services.len();
    let committed = |service: &&EndedService| service.outcome == COMMITTED;
    let failed = all - problem.services.iter().filter(committed).count();
    let is_aborted = matches!(problem.kind, ProblemKind::Aborted | ProblemKind::NotPutBack);
    let what = if is_aborted { "aborted" } else { "failed" };
    let mut text = format!("{noun} {what} in {failed} of {all} services:");
    for service in &problem.services {
        let EndedService { name, outcome, generation, detail, output, .. } = service;
        text.extend([format!("\n  {}: {}", plain(name), plain(outcome))]);
        if let Some(detail) = detail {
            let mut lines = detail.trim_end().lines().map(plain);
            text.extend([format!(": {}", lines.next().unwrap_or_default())]);
            text.extend(lines.map(|line| format!("\n      {line}")));
        }
        let goes_on = if outcome == COMMITTED { "" } else { " on" };
        text.extend(generation.map(|it| format!("; generation {it} serves{goes_on}")));
        text.extend(output.iter().map(|line| format!("\n      {}", plain(line))));
    }
    text
}

/// Why it was not done: what the daemon says, and below it what the worker wrote last.
pub(in crate::cli) fn problem(problem: &Problem) -> String {
    unreloaded(problem, "reload", OLD_SERVES)
}

/// The same of what is called so, and after which this serves where it was aborted.
pub(in crate::cli) fn unreloaded(problem: &Problem, noun: &str, after_abort: &str) -> String {
    if !problem.services.is_empty() {
        return divided(problem, noun);
    }
    let mut text = match problem.kind {
        // Mistakes of a file are shown with their places, on lines of their own.
        ProblemKind::Configuration if problem.detail.contains('\n') => {
            let lines = problem.detail.trim_end().lines().map(plain);
            std::iter::once("nothing has changed:".to_owned())
                .chain(lines)
                .collect::<Vec<_>>()
                .join("\n")
        }
        ProblemKind::Configuration
        | ProblemKind::Bind
        | ProblemKind::BadRequest
        | ProblemKind::NotFound
        | ProblemKind::InProgress
        | ProblemKind::Stopping
        | ProblemKind::Aborted
        | ProblemKind::NotPutBack
        | ProblemKind::TooBusy
        | ProblemKind::Forbidden
        | ProblemKind::Failed => plain(&problem.detail),
    };
    if problem.kind == ProblemKind::Aborted && !text.contains("serves") {
        text = format!("{noun} aborted: {text}; {after_abort}");
    }
    if problem.kind == ProblemKind::NotPutBack {
        text = format!(
            "{noun} aborted, and not all could be put back: {text}; `shepherd status` says what \
             serves"
        );
    }
    for line in &problem.output {
        text.extend([format!("\n    {}", plain(line))]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use crate::control::problem;
    use insta::assert_snapshot;

    fn all_done() -> Done {
        let service =
            |name: &str, workers| DoneService { name: name.into(), generation: 3, workers };
        Done { services: vec![service("web", 2), service("background-jobs", 1)] }
    }

    #[test]
    fn ends_that_were_asked_for() {
        let mut after = samples::shop();
        after.services[0].workers.push(samples::worker(5, 0, 2, WorkerState::Draining));
        let done = all_done();
        assert_snapshot!(
            [
                reloaded(&done, "reload committed", 1.234, Some(&after)),
                reloaded(&done, "rolled back", 61.0, None),
                super::done(&done, "restarted", "web"),
                scaled(&done),
                stopped(&done, "web"),
            ]
            .join("---\n")
        );
    }

    #[test]
    fn services_that_ended_differently_have_a_line_each() {
        let ended = |name: &str, outcome: &str, generation, detail: Option<&str>| EndedService {
            name: name.into(),
            outcome: outcome.into(),
            generation,
            detail: detail.map(Into::into),
            worker: None,
            output: Vec::new(),
        };
        let why = "worker 5 (api.0) exited with code 3 before it was ready";
        let output = vec!["no database".to_owned(), "\tboom\x1b[2J".to_owned()];
        let aborted = EndedService { output, ..ended("api", "aborted", Some(1), Some(why)) };
        let being_stopped = "`db` is being stopped; start it once it is";
        let services = vec![
            ended("web", "committed", Some(2), None),
            aborted,
            ended("jobs", "configuration", Some(4), Some("cannot read `env`:\nline 2: no value")),
            ended("db", "stopping", None, Some(being_stopped)),
        ];
        let problem = problem::of(ProblemKind::Aborted, 500, "not shown");
        assert_snapshot!(super::problem(&Problem { services, ..problem }));
    }

    #[test]
    fn problems_of_each_kind() {
        let kinds = [
            (ProblemKind::Aborted, 500, "worker 5 (web.0) exited with code 3 before it was ready"),
            (ProblemKind::NotPutBack, 500, "worker 5 (web.0) exited with code 3"),
            (ProblemKind::InProgress, 409, "web: another reload is in progress"),
            (ProblemKind::Configuration, 422, "cannot read `shepherd.yaml`: no such file"),
            (
                ProblemKind::Configuration,
                422,
                "error: `two` is no number\n  --> a.yaml:3:14\n   |\n 3 |     workers: two\n\na.yaml: 1 mistake",
            ),
            (ProblemKind::NotFound, 404, "there is no service `wbe`; there is web"),
        ];
        let mut text = String::new();
        for (kind, status, detail) in kinds {
            let mut sample = problem::of(kind, status, detail);
            if kind == ProblemKind::Aborted {
                sample.output = vec!["Traceback:".to_owned(), "\tboom\x1b[2J".to_owned()];
            }
            text.extend([format!("{}\n", super::problem(&sample))]);
        }
        assert_snapshot!(text);
    }
}
