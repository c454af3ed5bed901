//! Clients of the control socket, as the loop sees them: calls that come on a queue, requests that
//! wait for the core's response, and readers of events. What a client does or leaves undone is the
//! thread's affair (`control::server`); nothing in here waits for one.

mod endpoint;

mod kinds;

mod requests;

mod view;

use std::collections::BTreeMap;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use crate::config::run::RunConfig;
use crate::control::events::{Batch, Events};
use crate::control::message::{self, Answer, Ask, Call, Client, Reply};
use crate::control::metrics::{Counters, Outcome};
use crate::control::readings::Whereabouts;
use crate::control::wire::{self, Problem, ProblemKind};
use crate::control::{problem, server};
use crate::core::ids::{RequestId, WorkerId};
use crate::core::notice::Notice;
use crate::core::request::{End, Part, Response, worst};
use crate::core::time::Time;
use crate::os::admin_socket::AdminSocket;
use crate::os::clock;
use crate::os::reactor::Reactor;
use crate::os::runtime_dir::RuntimeDir;
use crate::os::wake::Wake;
use crate::protocol::timestamp;

use super::StartError;
use super::event_loop::{Daemon, Token};
use endpoint::Endpoint;
use requests::Asked;

/// How many readers of events may wait: each client is one at most, and those that have gone are
/// forgotten when there is another.
const READERS_MAX: usize = server::CLIENTS_MAX * 2;

/// How many calls are heard in a turn: a status of a thousand workers takes a millisecond, and
/// signals and exits are to be heard between two handfuls of them.
const CALLS_IN_A_TURN: usize = 8;

/// How long the loop waits at its very end until answers are on their way.
const END_WITHIN: Duration = Duration::from_secs(1);

/// All that is known of clients.
pub(super) struct Control {
    endpoint: Endpoint,
    wake: Wake,
    calls: Receiver<Call>,
    /// Who waits for the core to respond.
    waiting: BTreeMap<RequestId, (Asked, Client)>,
    events: Events,
    /// Who waits for the event after this number.
    readers: Vec<(u64, Client)>,
    config: wire::Config,
    /// The file that the configuration was read from.
    file: Option<String>,
    since: Time,
    pub(super) counters: Counters,
}

impl Control {
    /// Binds the socket. Clients may connect from here on; they are served once the loop runs.
    pub(super) fn open(config: &RunConfig, directory: &RuntimeDir) -> Result<Control, StartError> {
        let wake = Wake::new();
        let wake = wake.map_err(|error| StartError::System { what: "make an eventfd", error })?;
        let (asker, calls) = message::channel(wake.clone());
        let endpoint = Endpoint::open(config.control.clone(), directory, asker)?;
        Ok(Control {
            endpoint,
            wake,
            calls,
            waiting: BTreeMap::new(),
            events: Events::default(),
            readers: Vec::new(),
            config: view::config(config),
            file: config.file.as_ref().map(|file| file.to_string_lossy().into_owned()),
            since: clock::now(),
            counters: Counters::default(),
        })
    }

    /// Monitoring may connect to this from here on.
    pub(super) fn serve_also(&mut self, admin: AdminSocket) {
        let place = admin.place();
        tracing::info!("/metrics, /healthz and /readyz are at http://{place}");
        if !admin.is_loopback() {
            tracing::warn!(
                "everybody who reaches {place} can read these, there is no password; a bare port \
                 is for this machine alone"
            );
        }
        self.endpoint.serve_also(admin);
    }

    /// Clients are shown this configuration from here on.
    pub(super) fn redefine(&mut self, config: &RunConfig) {
        self.config = view::config(config);
    }

    /// Somebody has connected, and there has to be a thread; or the socket was shut down.
    pub(super) fn look_at_socket(&mut self, reactor: &Reactor) {
        self.endpoint.look_at_socket(clock::now(), reactor);
    }

    /// When [`Daemon::tend_control`] is to be called although nothing has happened.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.endpoint.deadline()
    }

    /// Everything is stopped: whoever waits is told, and that is on its way when this returns, with a
    /// bound.
    pub(super) fn finish(&mut self) {
        // Who has no answer by now is told that there is none.
        self.waiting.clear();
        for (since, client) in std::mem::take(&mut self.readers) {
            client.answer(Ok(Reply::Events(end(&self.events, since))));
        }
        if !self.endpoint.end() {
            return;
        }
        let until = clock::now() + END_WITHIN;
        loop {
            self.wake.hear();
            for call in self.calls.try_iter() {
                let answer = answer_last(&self.events, &call.ask);
                call.client.answer(answer);
            }
            let now = clock::now();
            if self.endpoint.has_ended() || now >= until {
                return;
            }
            self.wake.wait(now.until(until));
        }
    }

    fn read_along(&mut self, since: u64, client: Client) {
        if let Some(batch) = self.events.after(since) {
            self.counters.events_dropped(batch.dropped);
            return client.answer(Ok(Reply::Events(batch)));
        }
        self.readers.retain(|(_, client)| !client.is_gone());
        if self.readers.len() < READERS_MAX {
            return self.readers.push((since, client));
        }
        let detail = "too many read the events; try again later";
        client.answer(Err(problem::of(ProblemKind::TooBusy, 503, detail)));
    }

    fn push(&mut self, event: wire::Event) {
        self.events.push(event);
        for (since, client) in std::mem::take(&mut self.readers) {
            if let Some(batch) = self.events.after(since) {
                self.counters.events_dropped(batch.dropped);
                client.answer(Ok(Reply::Events(batch)));
            }
        }
    }
}

/// What a reader gets when nothing more will happen.
fn end(events: &Events, since: u64) -> Batch {
    let nothing = Batch { lines: Vec::new(), last: since, is_end: true, dropped: 0 };
    let batch = events.after(since).unwrap_or(nothing);
    Batch { is_end: batch.last == events.last(), ..batch }
}

/// The answer to a call that comes after everything was stopped.
fn answer_last(events: &Events, ask: &Ask) -> Answer {
    match ask {
        Ask::EventsFrom(since) => Ok(Reply::Events(end(events, since.unwrap_or(events.last())))),
        Ask::EventsAfter(since) => Ok(Reply::Events(end(events, *since))),
        Ask::Status
        | Ask::Standing
        | Ask::Metrics
        | Ask::Alive
        | Ask::Config
        | Ask::Send { .. }
        | Ask::Do(_) => Err(problem::of(ProblemKind::Stopping, 409, "everything is stopped")),
    }
}

impl Daemon {
    /// From here on clients are served.
    pub(super) fn watch_control(&mut self) {
        let Control { endpoint, wake, .. } = &mut self.control;
        if let Err(error) = self.parts.reactor.add(&*wake, Token::Calls.encode()) {
            tracing::error!("cannot watch for requests of clients: {error}");
        }
        endpoint.watch(&self.parts.reactor, self.parts.path_watch.as_ref());
        // It may have gone before it was watched.
        self.look_at_control();
    }

    /// Hears what clients ask, and whether the thread lives.
    pub(super) fn hear_calls(&mut self) {
        self.control.wake.hear();
        self.control.endpoint.look_at_thread(clock::now());
        for _ in 0..CALLS_IN_A_TURN {
            let Ok(call) = self.control.calls.try_recv() else { return };
            self.hear_call(call);
            self.settle();
        }
        // The rest has its turn later.
        self.control.wake.ring();
    }

    /// Brings back what is missing: the socket, its file, the thread.
    pub(super) fn tend_control(&mut self, now: Time) {
        if self.control.deadline().is_none_or(|at| at > now) {
            return;
        }
        let passes = |path: &std::path::Path| self.parts.services.may_enter(path);
        let endpoint = &mut self.control.endpoint;
        if endpoint.mend(now, &mut self.parts.runtime_dir, &passes, &self.parts.reactor) {
            endpoint.watch(&self.parts.reactor, self.parts.path_watch.as_ref());
            // It may have gone again before it was watched.
            self.look_at_control();
        }
    }

    /// Something happened to the file of a unix socket: maybe it was that of ours.
    pub(super) fn look_at_control(&mut self) {
        self.control.endpoint.look_at_path(clock::now());
    }

    fn hear_call(&mut self, Call { ask, client }: Call) {
        match ask {
            Ask::Status => {
                let whereabouts = self.whereabouts();
                client.answer(Ok(Reply::Status(self.status(), whereabouts)));
            }
            Ask::Standing => {
                client.answer(Ok(Reply::Status(self.status(), Whereabouts::default())));
            }
            Ask::Metrics => {
                let (status, whereabouts) = (self.status(), self.whereabouts());
                let live = self.messages.all_counted();
                let counters = &mut self.control.counters;
                counters.keep(status.services.iter().map(|service| service.name.as_str()));
                counters.lines_dropped(self.output.lines_dropped());
                let mut counters = counters.clone();
                for (service, of) in &live {
                    counters.messages(service, of);
                }
                client.answer(Ok(Reply::Metrics(status, whereabouts, counters)));
            }
            Ask::Alive => client.answer(Ok(Reply::Alive)),
            Ask::Config => client.answer(Ok(Reply::Config(self.control.config.clone()))),
            Ask::EventsFrom(since) => {
                let events = &self.control.events;
                let since = since.unwrap_or(events.last());
                let nothing = Batch { lines: Vec::new(), last: since, is_end: false, dropped: 0 };
                let batch = events.after(since).unwrap_or(nothing);
                self.control.counters.events_dropped(batch.dropped);
                client.answer(Ok(Reply::Events(batch)));
            }
            Ask::EventsAfter(since) => self.control.read_along(since, client),
            Ask::Send { worker, data } => {
                let sent = self.send_message(WorkerId(worker), &data);
                let outcome = if sent.is_ok() { Outcome::Done } else { Outcome::Refused };
                self.control.counters.answered(outcome);
                client.answer(sent.map(Reply::Sent));
            }
            Ask::Do(operation) => match requests::request(operation) {
                Ok(request) => {
                    let asked = Asked::of(&request);
                    let id = self.ask(request);
                    self.control.waiting.insert(id, (asked, client));
                }
                Err(problem) => {
                    self.control.counters.answered(Outcome::Refused);
                    client.answer(Err(problem));
                }
            },
        }
    }

    /// Tells the client that waits, if a client does: nobody does at the other end of a signal, and
    /// the notices have said what came of it.
    pub(super) fn respond(&mut self, request: RequestId, response: &Response) {
        tracing::debug!("request {request}: {response:?}");
        if let Some((asked, client)) = self.control.waiting.remove(&request) {
            self.control.counters.answered(match response {
                Response::Done(_) => Outcome::Done,
                Response::Aborted(_) => Outcome::Aborted,
                Response::Refused(_) => Outcome::Refused,
                Response::Divided(parts) => match requests::kind(parts) {
                    ProblemKind::Aborted | ProblemKind::NotPutBack => Outcome::Aborted,
                    _ => Outcome::Refused,
                },
            });
            client.answer(self.answer(asked, response));
        }
    }

    fn answer(&self, asked: Asked, response: &Response) -> Answer {
        match response {
            Response::Done(services) => Ok(Reply::Done(requests::done(services))),
            Response::Aborted(abort) => Err(self.blaming(requests::aborted(abort), abort.worker)),
            Response::Refused(refusal) => {
                Err(self.blaming(requests::refused(refusal), requests::blamed(refusal)))
            }
            Response::Divided(parts) => Err(self.divided(asked, parts)),
        }
    }

    /// The problem of the worst, and what became of each.
    fn divided(&self, asked: Asked, parts: &[Part]) -> Problem {
        let problem = |end: &End| match end {
            End::Done(_) | End::LeftOut => None,
            End::Aborted(abort) => Some(self.blaming(requests::aborted(abort), abort.worker)),
            End::Refused(refusal) => {
                Some(self.blaming(requests::refused(refusal), requests::blamed(refusal)))
            }
        };
        let worst = worst(parts).and_then(problem);
        match (asked, worst) {
            (Asked::Reload, worst) => {
                let ended = parts.iter().map(|part| requests::ended(part, problem(&part.end)));
                requests::divided(parts, worst, ended.collect())
            }
            (Asked::Else, Some(worst)) => requests::partly(parts, worst),
            (Asked::Else, None) => {
                problem::of(ProblemKind::Failed, 500, "nobody knows why it was not done")
            }
        }
    }

    /// The problem with the worker whose end it comes from, if there is one, and what that wrote.
    fn blaming(&self, problem: Problem, worker: Option<WorkerId>) -> Problem {
        let output = worker.map(|worker| self.output.last_lines(worker)).unwrap_or_default();
        Problem { worker: worker.map(|worker| worker.0), output, ..problem }
    }

    /// Keeps what the log is told for whoever reads along.
    pub(super) fn record(&mut self, notice: &Notice) {
        self.control.counters.note(notice);
        let time = timestamp::rfc3339(clock::since_epoch());
        self.control.push(kinds::event(notice, time));
    }
}
