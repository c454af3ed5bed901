//! A client that waits for several things at once: the answer, events, Ctrl-C, the time. Each comes
//! from a thread of its own onto one channel; they end with the process.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use crate::control::client::{Client, ClientError};
use crate::control::wire::{Done, Event, Status};
use crate::os::interrupt::on_interrupt;
use crate::os::terminal::Terminal;

use super::exit_code;
use super::failure::Failure;
use super::out;

/// How long a daemon may take to say what it knows: its loop does so between two turns.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The kind of the event that says that others are missing.
const DROPPED: &str = crate::control::events::DROPPED;

/// What happens while a client waits.
#[derive(Debug)]
pub(super) enum Heard {
    /// From here on nothing is missed; or there is no way to hear of events.
    EventsBegin,
    /// Something happened.
    Event(Box<Event>),
    /// Events were missed: this is how it stands.
    Missed(Box<Status>),
    /// What was asked for has ended.
    Answer(Result<Done, ClientError>),
    /// Ctrl-C.
    Interrupted,
    /// The time is over.
    Nothing,
}

/// All that is waited for.
#[derive(Debug)]
pub(super) struct Waiting {
    sender: Sender<Heard>,
    heard: Receiver<Heard>,
}

impl Waiting {
    /// Listens to Ctrl-C from here on.
    pub(super) fn new() -> Result<Waiting, Failure> {
        let (sender, heard) = channel();
        let interrupted = sender.clone();
        // Whoever waits may have ended.
        on_interrupt(move || _ = interrupted.send(Heard::Interrupted))
            .map_err(|error| system("listen to Ctrl-C", &error))?;
        Ok(Waiting { sender, heard })
    }

    /// Hears of events from this moment on.
    pub(super) fn hear_events(&self, client: &Client) -> Result<(), Failure> {
        let client = Client::new(client.socket())?;
        self.spawn("events", move |sender| {
            let tell = |heard| sender.send(heard).is_ok();
            // Nobody has to see it: the answer comes all the same.
            let Ok(mut events) = client.events(None, Some(ANSWER_WITHIN)) else {
                tell(Heard::EventsBegin);
                return;
            };
            let mut goes_on = tell(Heard::EventsBegin);
            while goes_on && let Ok(Some(event)) = events.next(None) {
                goes_on = if event.kind == DROPPED {
                    let status = client.get("/v1/status", Some(ANSWER_WITHIN));
                    status.is_ok_and(|status| tell(Heard::Missed(Box::new(status))))
                } else {
                    tell(Heard::Event(Box::new(event)))
                };
            }
        })
    }

    /// Asks for something to be done.
    pub(super) fn post(
        &self,
        client: &Client,
        path: String,
        body: impl Serialize + Send + 'static,
    ) -> Result<(), Failure> {
        let client = Client::new(client.socket())?;
        self.spawn("request", move |sender| {
            _ = sender.send(Heard::Answer(client.post(&path, &body, None)));
        })
    }

    /// What happens next, if it does within that time.
    pub(super) fn next(&self, within: Option<Duration>) -> Heard {
        let heard = match within {
            Some(within) => self.heard.recv_timeout(within),
            None => self.heard.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        // We hold a sender ourselves, so there is always one.
        heard.unwrap_or(Heard::Nothing)
    }

    fn spawn(
        &self,
        name: &str,
        body: impl FnOnce(Sender<Heard>) + Send + 'static,
    ) -> Result<(), Failure> {
        let sender = self.sender.clone();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || body(sender));
        thread.map(drop).map_err(|error| system("start a thread", &error))
    }
}

/// Asks for something to be done and waits for its end. `what` goes on after a Ctrl-C.
pub(super) fn ask(
    client: &Client,
    path: String,
    body: impl Serialize + Send + 'static,
    what: &str,
) -> Result<Done, Failure> {
    let waiting = Waiting::new()?;
    waiting.post(client, path, body)?;
    loop {
        match waiting.next(None) {
            Heard::Answer(answer) => return answer.map_err(|error| unanswered(error, what)),
            Heard::Interrupted => return Err(interrupted(what)),
            Heard::EventsBegin | Heard::Event(_) | Heard::Missed(_) | Heard::Nothing => {}
        }
    }
}

/// The failure of a Ctrl-C.
pub(super) fn interrupted(what: &str) -> Failure {
    // The terminal has shown it as `^C`, where our line is to begin.
    if Terminal::of_stderr().is_some_and(|terminal| terminal.moves) {
        out::draw("\r\x1b[K");
    }
    let text = format!("interrupted; {what} goes on: `shepherd status` shows it");
    Failure::new(exit_code::INTERRUPTED, text)
}

/// The failure of a request that the daemon did not do, or of which nobody knows.
pub(super) fn unanswered(error: ClientError, what: &str) -> Failure {
    match error {
        ClientError::Cut(_) => Failure::new(
            exit_code::FAILED,
            format!(
                "the daemon is gone, it was killed or has stopped; nobody knows how {what} ended"
            ),
        ),
        error @ (ClientError::NoSocket(_)
        | ClientError::Stale(_)
        | ClientError::Denied(_)
        | ClientError::TimedOut(..)
        | ClientError::NotHttp(_)
        | ClientError::Strange { .. }
        | ClientError::Problem(_)
        | ClientError::System { .. }) => error.into(),
    }
}

/// Waits.
pub(super) fn pause(time: Duration) {
    let (_sender, nothing) = channel::<()>();
    let _ = nothing.recv_timeout(time);
}

fn system(what: &str, error: &std::io::Error) -> Failure {
    Failure::new(exit_code::FAILED, format!("cannot {what}: {error}"))
}
