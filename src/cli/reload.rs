//! `shepherd reload`: asks for a reload, shows how it goes, and ends as it ended.
//!
//! What goes on is told on stderr: drawn in place on a terminal, else a line each. How it ended is
//! on stdout. The end is the daemon's word: committed or aborted; old workers that drain after it are
//! only counted, since nothing can go wrong any more.

use std::time::Duration;

use serde::Serialize;

use crate::config::text::one_line;
use crate::control::client::{Client, ClientError};
use crate::control::wire::{self, COMMITTED, Done, DoneService, EndedService, ProblemKind, Status};
use crate::core::time::Time;
use crate::os::clock;
use crate::os::terminal::Terminal;

use super::args::Reload;
use super::exit_code;
use super::failure::Failure;
use super::find::find;
use super::out;
use super::render::progress::{Headlines, Progress};
use super::render::redraw::Screen;
use super::render::{compact, event, outcome};
use super::waiting::{self, ANSWER_WITHIN, Heard, Waiting};

/// How often the times on the screen go on.
const FRAME: Duration = Duration::from_millis(100);

/// How long the last events may take after the answer, which is on its way at the same time.
const LAST_EVENTS_WITHIN: Duration = Duration::from_secs(1);

const WHAT: &str = "the reload";

pub(super) fn main(args: &Reload) -> Result<(), Failure> {
    let began = clock::now();
    let reloaded = reload(args, began);
    let took = clock::now().since(began).as_secs_f64();
    if args.json {
        out::print_json(&report(&reloaded, took))?;
    } else if let Ok((done, after)) = &reloaded {
        out::print(&outcome::reloaded(done, took, after.as_ref()))?;
    }
    reloaded.map(|_| ())
}

/// Until the end. The status is the one after it, if it could be had.
fn reload(args: &Reload, began: Time) -> Result<(Done, Option<Status>), Failure> {
    let client = find(&args.target)?;
    let waiting = Waiting::new()?;
    let deadline = args.timeout.map(|timeout| began + timeout);
    if !args.json {
        waiting.hear_events(&client)?;
        // Nothing that the reload does may be missed, so it is asked for after that.
        if let Heard::Interrupted = waiting.next(Some(ANSWER_WITHIN)) {
            return Err(Failure::new(
                exit_code::INTERRUPTED,
                "interrupted; no reload was asked for",
            ));
        }
    }
    let status = client.get("/v1/status", Some(ANSWER_WITHIN))?;
    let mut show = Show::new(args, began, &status);
    let body = wire::Reload { services: args.services.clone(), queue: args.queue };
    waiting.post(&client, "/v1/reload".to_owned(), body)?;
    let file = status.daemon.file.as_deref();
    let done = wait(&waiting, &mut show, deadline).map_err(|failure| advised(failure, args, file));
    let after = done.as_ref().ok().and_then(|_| status_after(&client));
    if let Some(after) = &after {
        show.progress.see(show.now(), after);
    }
    show.end();
    done.map(|done| (done, after))
}

fn wait(waiting: &Waiting, show: &mut Show, deadline: Option<Time>) -> Result<Done, Failure> {
    loop {
        show.draw();
        let now = clock::now();
        let left = deadline.map(|deadline| deadline.since(now));
        if left == Some(Duration::ZERO) {
            let waited = compact(show.now().as_secs_f64());
            let text = format!(
                "no outcome within {waited}; the reload goes on: `shepherd status` shows it"
            );
            return Err(Failure::new(exit_code::TIMED_OUT, text));
        }
        let within = [left, show.screen.is_some().then_some(FRAME)].into_iter().flatten().min();
        match waiting.next(within) {
            Heard::Event(event) => show.hear(&event),
            Heard::Missed(status) => show.progress.see(show.now(), &status),
            Heard::Answer(answer) => {
                if is_end(&answer) {
                    hear_the_last(waiting, show);
                }
                return answer.map_err(|error| waiting::unanswered(error, WHAT));
            }
            Heard::Interrupted => return Err(waiting::interrupted(WHAT)),
            Heard::EventsBegin | Heard::Nothing => {}
        }
    }
}

/// Whether a reload has ended, of which events tell too. One that was refused never began, and what
/// is under way then is somebody else's.
fn is_end(answer: &Result<Done, ClientError>) -> bool {
    match answer {
        Ok(_) => true,
        Err(ClientError::Problem(problem)) => problem.kind == ProblemKind::Aborted,
        Err(_) => false,
    }
}

/// The answer and the events come by two ways.
fn hear_the_last(waiting: &Waiting, show: &mut Show) {
    let until = clock::now() + LAST_EVENTS_WITHIN;
    while show.is_seen && show.progress.is_under_way() {
        match waiting.next(Some(until.since(clock::now()))) {
            Heard::Event(event) => show.hear(&event),
            Heard::Missed(status) => show.progress.see(show.now(), &status),
            Heard::Answer(_) | Heard::EventsBegin => {}
            Heard::Interrupted | Heard::Nothing => return,
        }
    }
}

fn status_after(client: &Client) -> Option<Status> {
    client.get("/v1/status", Some(ANSWER_WITHIN)).ok()
}

/// What can be done about a refusal by a daemon that was started with this file.
fn advised(failure: Failure, args: &Reload, file: Option<&str>) -> Failure {
    let kind = failure.problem.as_ref().map(|problem| problem.kind);
    if let (Some(ProblemKind::NotFound), Some(file)) = (kind, file) {
        // Names are of services that run; what is new in a file comes when all of it is read.
        return failure.with(&format!(
            "if it is new in `{}`, `shepherd reload` without a name starts it",
            one_line(file)
        ));
    }
    if failure.code != exit_code::IN_PROGRESS || args.queue {
        return failure;
    }
    // The daemon does not know how its clients ask for that.
    match failure.text.strip_suffix("queue a reload") {
        Some(text) => Failure { text: format!("{text}run next with --queue"), ..failure },
        None => failure.with("--queue runs next"),
    }
}

/// What is shown on the way.
struct Show {
    began: Time,
    progress: Progress,
    /// Whether anything is shown.
    is_seen: bool,
    /// Where it is drawn, if not told line by line.
    screen: Option<Screen>,
}

impl Show {
    fn new(args: &Reload, began: Time, status: &Status) -> Show {
        let moves = Terminal::of_stderr().is_some_and(|terminal| terminal.moves);
        let is_seen = !args.json;
        Show {
            began,
            progress: Progress::new(clock::now().since(began), status, &args.services),
            is_seen,
            screen: (is_seen && moves).then(Screen::default),
        }
    }

    fn now(&self) -> Duration {
        clock::now().since(self.began)
    }

    fn hear(&mut self, event: &wire::Event) {
        let is_news = self.progress.hear(self.now(), event);
        // The outcome says the same.
        let is_end = matches!(event.kind.as_str(), "reload-committed" | "reload-aborted");
        if is_news && !is_end && self.is_seen && self.screen.is_none() {
            out::draw(&format!("{}\n", event::news(event, out::look(Terminal::of_stderr()))));
        }
    }

    fn draw(&mut self) {
        self.draw_with(Headlines::Shown);
    }

    /// What stays on the screen: the outcome says what the headlines do.
    fn end(&mut self) {
        self.draw_with(Headlines::Left);
    }

    fn draw_with(&mut self, headlines: Headlines) {
        let now = self.now();
        let Some(screen) = &mut self.screen else { return };
        let Some(terminal) = Terminal::of_stderr() else { return };
        // The last line is the cursor's.
        let height = terminal.rows.saturating_sub(1);
        let frame = self.progress.frame(now, height, out::look(Some(terminal)), headlines);
        out::draw(&screen.redraw(&frame, terminal.columns));
    }
}

/// The object that `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    outcome: &'static str,
    exit_code: u8,
    /// How long it took, in seconds.
    seconds: f64,
    /// Why, where it was not committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    /// The service, the worker whose end was the reason, and its last lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<u64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    output: &'a [String],
    services: Vec<ReportedService<'a>>,
}

/// What became of a service: of all of them where it was committed in all, and where it ended
/// differently in some.
#[derive(Serialize)]
#[serde(untagged)]
enum ReportedService<'a> {
    Done {
        #[serde(flatten)]
        done: &'a DoneService,
        outcome: &'static str,
        /// How many workers of older generations drain still, if that could be learned.
        #[serde(skip_serializing_if = "Option::is_none")]
        draining: Option<usize>,
    },
    Ended(&'a EndedService),
}

fn report(reloaded: &Result<(Done, Option<Status>), Failure>, took: f64) -> Report<'_> {
    let seconds = (took * 1000.0).round() / 1000.0;
    match reloaded {
        Ok((done, after)) => {
            let service = |done| ReportedService::Done {
                done,
                outcome: COMMITTED,
                draining: after.as_ref().map(|status| outcome::draining(status, done)),
            };
            Report {
                outcome: COMMITTED,
                exit_code: exit_code::DONE,
                seconds,
                detail: None,
                service: None,
                worker: None,
                output: &[],
                services: done.services.iter().map(service).collect(),
            }
        }
        Err(failure) => {
            let problem = failure.problem.as_deref();
            Report {
                outcome: exit_code::name(failure.code),
                exit_code: failure.code,
                seconds,
                detail: Some(
                    problem.map_or(failure.text.as_str(), |problem| problem.detail.as_str()),
                ),
                service: problem.and_then(|problem| problem.service.as_deref()),
                worker: problem.and_then(|problem| problem.worker),
                output: problem.map_or(&[], |problem| &problem.output),
                services: problem
                    .map_or(&[][..], |problem| &problem.services)
                    .iter()
                    .map(ReportedService::Ended)
                    .collect(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::problem;

    #[test]
    fn only_a_reload_that_began_has_last_events() {
        let refused =
            |kind| Err(ClientError::Problem(Box::new(problem::of(kind, 500, "no".to_owned()))));
        assert!(is_end(&Ok(Done { services: Vec::new() })));
        assert!(is_end(&refused(ProblemKind::Aborted)));
        assert!(!is_end(&refused(ProblemKind::InProgress)));
        assert!(!is_end(&Err(ClientError::Cut("control.sock".into()))));
    }
}
