//! Operators' requests, by signal or by a client. Each ends in exactly one response.

use super::ids::{GenerationId, WorkerId};

/// What an operator can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Read everything again and roll to it. During a reload it runs next; one is queued, and
    /// whoever asks meanwhile waits for that one.
    Reload,
    /// Stop everything: the workers drain first.
    Stop,
    /// The same, from a keyboard: asked for a second time it stops everything at once.
    Interrupt,
    /// Stop everything at once, by KILL.
    StopNow,
    /// One worker more in every service.
    OneMore,
    /// One worker fewer in every service, never below one.
    OneFewer,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// It was done.
    Done,
    /// A reload is committed: this generation serves.
    Committed(GenerationId),
    /// A reload was aborted, the old generation serves.
    Aborted {
        /// Why, for people.
        reason: String,
        /// The worker of the generation that was to serve whose end was the reason, if one was: its
        /// last lines of output may say more. They are kept until this response is performed.
        worker: Option<WorkerId>,
    },
    /// It was not begun; the reason is for people.
    Refused(&'static str),
}

impl Response {
    /// How bad it is: a request that went to several services ends as the worst of them did.
    pub(crate) fn gravity(&self) -> u8 {
        match self {
            Response::Done => 0,
            Response::Committed(_) => 1,
            Response::Refused(_) => 2,
            Response::Aborted { .. } => 3,
        }
    }
}

/// How many requests may wait for one reload, or for the stop. More are refused.
pub const WAITING_MAX: usize = 64;
