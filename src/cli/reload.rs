//! `shepherd reload` and `shepherd rollback`: ask for it, show how it goes, and end as it ended.
//!
//! What goes on is told on stderr: drawn in place on a terminal, else a line each. How it ended is
//! on stdout. The end is the daemon's word: committed or aborted; old workers that drain after it are
//! only counted, since nothing can go wrong any more.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::config::text::one_line;
use crate::control::client::{Client, ClientError};
use crate::control::wire::{self, COMMITTED, Done, DoneService, EndedService, ProblemKind, Status};
use crate::core::time::Time;
use crate::os::clock;
use crate::os::terminal::Terminal;

use super::args::{Reload, Rollback, Target};
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

pub(super) fn main(args: &Reload) -> Result<(), Failure> {
    let Reload { services, queue, timeout, json, target } = args;
    let body = json!(wire::Reload { services: services.clone(), queue: *queue });
    let words = Words::RELOAD;
    let path = "/v1/reload";
    let (queue, timeout, json) = (*queue, *timeout, *json);
    carry_out(&Order { words, path, body, services, queue, timeout, json, target })
}

pub(super) fn roll_back(args: &Rollback) -> Result<(), Failure> {
    let Rollback { services, timeout, json, target } = args;
    let body = json!(wire::RollBack { services: services.clone() });
    let words = Words::ROLLBACK;
    let path = "/v1/rollback";
    let (queue, timeout, json) = (false, *timeout, *json);
    carry_out(&Order { words, path, body, services, queue, timeout, json, target })
}

/// What is asked for, and how.
struct Order<'a> {
    words: Words,
    path: &'static str,
    body: Value,
    services: &'a [String],
    /// Whether it may run next.
    queue: bool,
    timeout: Option<Duration>,
    json: bool,
    target: &'a Target,
}

/// What is asked for, in words.
#[derive(Debug, Clone, Copy)]
struct Words {
    /// The thing.
    noun: &'static str,
    /// The same when it is known which.
    the: &'static str,
    /// It ended well.
    done: &'static str,
    /// What there is after it was aborted.
    after_abort: &'static str,
}

impl Words {
    const RELOAD: Words = Words {
        noun: "reload",
        the: "the reload",
        done: "reload committed",
        after_abort: outcome::OLD_SERVES,
    };
    const ROLLBACK: Words = Words {
        noun: "rollback",
        the: "the rollback",
        done: "rolled back",
        after_abort: "what served before it serves on",
    };
}

fn carry_out(order: &Order<'_>) -> Result<(), Failure> {
    let began = clock::now();
    let ended = until_it_ends(order, began);
    let took = clock::now().since(began).as_secs_f64();
    if order.json {
        out::print_json(&report(&ended, took))?;
    } else if let Ok((done, after)) = &ended {
        out::print(&outcome::reloaded(done, order.words.done, took, after.as_ref()))?;
    }
    ended.map(|_| ())
}

/// Until the end. The status is the one after it, if it could be had.
fn until_it_ends(order: &Order<'_>, began: Time) -> Result<(Done, Option<Status>), Failure> {
    let client = find(order.target)?;
    let waiting = Waiting::new()?;
    if !order.json {
        waiting.hear_events(&client)?;
        // Nothing that the reload does may be missed, so it is asked for after that.
        if let Heard::Interrupted = waiting.next(Some(ANSWER_WITHIN)) {
            return Err(Failure::new(
                exit_code::INTERRUPTED,
                format!("interrupted; no {} was asked for", order.words.noun),
            ));
        }
    }
    let status = client.get("/v1/status", Some(ANSWER_WITHIN))?;
    let mut show = Show::new(order, began, &status);
    waiting.post(&client, order.path.to_owned(), order.body.clone())?;
    // What comes before has its own limits; what was not asked for would not go on.
    let deadline = order.timeout.map(|timeout| clock::now() + timeout);
    let file = status.daemon.file.as_deref();
    let done = wait(&waiting, &mut show, deadline, order.words);
    let done = done.map_err(|failure| advised(failure, order, file));
    let after = done.as_ref().ok().and_then(|_| status_after(&client));
    if let Some(after) = &after {
        show.progress.see(show.now(), after);
    }
    show.end();
    done.map(|done| (done, after))
}

fn wait(
    waiting: &Waiting,
    show: &mut Show,
    deadline: Option<Time>,
    Words { noun, the, after_abort, .. }: Words,
) -> Result<Done, Failure> {
    loop {
        show.draw();
        let now = clock::now();
        let left = deadline.map(|deadline| deadline.since(now));
        if left == Some(Duration::ZERO) {
            let waited = compact(show.now().as_secs_f64());
            let text =
                format!("no outcome within {waited}; {the} goes on: `shepherd status` shows it");
            return Err(Failure::new(exit_code::TIMED_OUT, text));
        }
        let within = [left, show.screen.is_some().then_some(FRAME)].into_iter().flatten().min();
        match waiting.next(within) {
            Heard::Event(event) => show.hear(&event),
            Heard::Missed(status) => show.progress.see(show.now(), &status),
            Heard::Answer(answer) => {
                if is_end(&answer) {
                    let is_told = answer.as_ref().map_or(true, |done| !done.services.is_empty());
                    hear_the_last(waiting, show, is_told);
                }
                return answer.map_err(|error| {
                    let mut failure = waiting::unanswered(error, the);
                    if let Some(problem) = &failure.problem {
                        failure.text = outcome::unreloaded(problem, noun, after_abort);
                    }
                    failure
                });
            }
            Heard::Interrupted => return Err(waiting::interrupted(the)),
            Heard::EventsBegin | Heard::Nothing => {}
        }
    }
}

/// Whether a reload has ended, of which events tell too. One that was refused never began, and what
/// is under way then is somebody else's.
fn is_end(answer: &Result<Done, ClientError>) -> bool {
    match answer {
        Ok(_) => true,
        Err(ClientError::Problem(problem)) => {
            matches!(problem.kind, ProblemKind::Aborted | ProblemKind::NotPutBack)
        }
        Err(_) => false,
    }
}

/// The answer and the events come by two ways. Of a reload that was none there are no events.
fn hear_the_last(waiting: &Waiting, show: &mut Show, is_told: bool) {
    let until = clock::now() + LAST_EVENTS_WITHIN;
    while show.is_seen && (show.progress.is_under_way() || is_told && !show.has_heard) {
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
fn advised(failure: Failure, order: &Order<'_>, file: Option<&str>) -> Failure {
    if order.words.noun != Words::RELOAD.noun {
        return failure;
    }
    let kind = failure.problem.as_ref().map(|problem| problem.kind);
    if let (Some(ProblemKind::NotFound), Some(file)) = (kind, file) {
        // Names are of services that run; what is new in a file comes when all of it is read.
        return failure.with(&format!(
            "if it is new in `{}`, `shepherd reload` without a name starts it",
            one_line(file)
        ));
    }
    if failure.code != exit_code::IN_PROGRESS || order.queue {
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
    /// Whether an event has come.
    has_heard: bool,
    /// Where it is drawn, if not told line by line.
    screen: Option<Screen>,
}

impl Show {
    fn new(order: &Order<'_>, began: Time, status: &Status) -> Show {
        let moves = Terminal::of_stderr().is_some_and(|terminal| terminal.moves);
        let is_seen = !order.json;
        Show {
            began,
            progress: Progress::new(clock::now().since(began), status, order.services),
            is_seen,
            has_heard: false,
            screen: (is_seen && moves).then(Screen::default),
        }
    }

    fn now(&self) -> Duration {
        clock::now().since(self.began)
    }

    fn hear(&mut self, event: &wire::Event) {
        let is_news = self.progress.hear(self.now(), event);
        self.has_heard |= is_news;
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
        assert!(is_end(&refused(ProblemKind::NotPutBack)));
        assert!(!is_end(&refused(ProblemKind::InProgress)));
        assert!(!is_end(&Err(ClientError::Cut("control.sock".into()))));
    }
}
