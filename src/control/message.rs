//! What the control thread and the daemon's loop say to each other. Neither waits for the other: a
//! full queue refuses, and an answer that nobody wants any more is dropped.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use tokio::sync::oneshot;

use super::events::Batch;
use super::metrics::Counters;
use super::readings::{Readings, Whereabouts};
use super::wire::{self, Problem, ProblemKind};
use super::{problem, server};
use crate::os::clock;
use crate::os::wake::Wake;

/// How many calls may wait for the loop: one of each client, so that it is full only while the loop
/// is busy with something long.
pub const CALLS_MAX: usize = server::CLIENTS_MAX + server::MONITORS_MAX;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// The daemon at this moment.
    Status,
    /// The same without what takes long to read, for who asks every other second.
    Standing,
    /// The same, and what was counted.
    Metrics,
    /// Nothing: whether the loop turns.
    Alive,
    /// What it runs.
    Config,
    /// Where a stream of events begins: after this number, or with what comes from this moment on.
    /// Answered at once.
    EventsFrom(Option<u64>),
    /// The events after this number, as soon as there is one.
    EventsAfter(u64),
    /// Queue a message for a worker. Answered at once.
    Send {
        /// The worker's number.
        worker: u64,
        /// What it gets, as JSON.
        data: String,
    },
    /// Something to do. Answered when it is done.
    Do(Operation),
}

/// What an operator can ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Reload services.
    Reload(wire::Reload),
    /// Roll services back.
    RollBack(wire::RollBack),
    /// Stop a service and start it.
    Restart(String),
    /// Stop a service.
    Stop(String),
    /// Start a service that was stopped.
    Start(String),
    /// Change the number of workers of a service.
    Scale(String, wire::Scale),
    /// Stop the daemon.
    StopAll,
    /// Send a signal to a worker's main process.
    Signal {
        /// The worker's number.
        worker: u64,
        /// The signal's name, as the client wrote it.
        signal: String,
    },
}

/// What the loop answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// To [`Ask::Status`] and [`Ask::Standing`]. The thread fills in what can be read of the workers and
    /// sockets that are to be found there.
    Status(wire::Status, Whereabouts),
    /// To [`Ask::Metrics`]; likewise.
    Metrics(wire::Status, Whereabouts, Counters),
    /// To [`Ask::Alive`].
    Alive,
    /// To [`Ask::Config`].
    Config(wire::Config),
    /// To [`Ask::EventsFrom`] and [`Ask::EventsAfter`].
    Events(Batch),
    /// To [`Ask::Send`].
    Sent(wire::Sent),
    /// To [`Ask::Do`].
    Done(wire::Done),
}

/// The answer to one call.
pub type Answer = Result<Reply, Problem>;

/// What one client asks, and the way to it.
#[derive(Debug)]
pub struct Call {
    /// What it asks.
    pub ask: Ask,
    /// Where the answer goes.
    pub client: Client,
}

/// The way to a client that waits.
#[derive(Debug)]
pub struct Client(oneshot::Sender<Answer>);

impl Client {
    /// Answers, if it is still there.
    pub fn answer(self, answer: Answer) {
        // It may have gone; what it asked for is done all the same.
        let _ = self.0.send(answer);
    }

    /// Whether it has gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.0.is_closed()
    }
}

/// The thread's end: asks the loop.
#[derive(Debug, Clone)]
pub struct Asker {
    calls: SyncSender<Call>,
    wake: Wake,
    readings: Arc<Readings>,
}

/// Both ends. The loop is woken by `wake`.
#[must_use]
pub fn channel(wake: Wake) -> (Asker, Receiver<Call>) {
    let (calls, receiver) = sync_channel(CALLS_MAX);
    (Asker { calls, wake, readings: Arc::default() }, receiver)
}

impl Asker {
    /// Asks, and waits for the answer.
    ///
    /// # Errors
    ///
    /// The loop's problem with it, `too-busy` when the queue is full, and `stopping` when the daemon
    /// ends without an answer.
    pub async fn ask(&self, ask: Ask) -> Answer {
        let (client, answer) = oneshot::channel();
        match self.calls.try_send(Call { ask, client: Client(client) }) {
            Ok(()) => self.wake.ring(),
            Err(TrySendError::Full(_)) => {
                let detail = "the daemon has many requests waiting; try again in a moment";
                return Err(problem::of(ProblemKind::TooBusy, 503, detail));
            }
            Err(TrySendError::Disconnected(_)) => return Err(stopped()),
        }
        let mut answer = answer.await.unwrap_or_else(|_| Err(stopped()));
        match &mut answer {
            Ok(Reply::Status(status, places) | Reply::Metrics(status, places, _)) => {
                self.readings.fill(clock::now(), status, places);
            }
            Ok(
                Reply::Alive
                | Reply::Config(_)
                | Reply::Events(_)
                | Reply::Sent(_)
                | Reply::Done(_),
            )
            | Err(_) => {}
        }
        answer
    }

    /// The bell of the loop.
    pub(super) fn wake(&self) -> &Wake {
        &self.wake
    }
}

fn stopped() -> Problem {
    problem::of(ProblemKind::Stopping, 409, "the daemon has stopped")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn a_full_queue_refuses_and_an_answer_comes_back() {
        let (asker, calls) = channel(Wake::new().expect("a descriptor"));
        let mut context = Context::from_waker(Waker::noop());
        let mut waiting: Vec<_> =
            (0..CALLS_MAX).map(|_| Box::pin(asker.ask(Ask::Status))).collect();
        for ask in &mut waiting {
            assert!(ask.as_mut().poll(&mut context).is_pending());
        }
        match Box::pin(asker.ask(Ask::Status)).as_mut().poll(&mut context) {
            Poll::Ready(Err(problem)) => assert_eq!(problem.kind, ProblemKind::TooBusy),
            other => panic!("{other:?}"),
        }
        let done = wire::Done { services: Vec::new() };
        calls.recv().expect("the first").client.answer(Ok(Reply::Done(done.clone())));
        let first = waiting[0].as_mut().poll(&mut context);
        assert_eq!(first, Poll::Ready(Ok(Reply::Done(done))));
        let second = calls.recv().expect("the second");
        assert!(!second.client.is_gone());
        drop(waiting);
        assert!(second.client.is_gone());
    }
}
