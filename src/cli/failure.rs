//! Why a client's request was not done: an exit code and what to say.

use crate::control::client::ClientError;
use crate::control::wire::Problem;

use super::exit_code;
use super::render::outcome;

/// What ends a client.
#[derive(Debug)]
pub(super) struct Failure {
    /// With which exit code.
    pub(super) code: u8,
    /// What to say; further lines are indented.
    pub(super) text: String,
    /// What the daemon said, if it did.
    pub(super) problem: Option<Box<Problem>>,
}

impl Failure {
    pub(super) fn new(code: u8, text: impl Into<String>) -> Failure {
        Failure { code, text: text.into(), problem: None }
    }

    /// The same with the next step.
    pub(super) fn with(mut self, next: &str) -> Failure {
        self.text.push_str("; ");
        self.text.push_str(next);
        self
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let code = exit_code::of(&error);
        let next = match &error {
            ClientError::NoSocket(_) | ClientError::Stale(_) => {
                Some("start one with `shepherd run`, or name another with --control or --name")
            }
            ClientError::Denied(_)
            | ClientError::TimedOut(..)
            | ClientError::Cut(_)
            | ClientError::NotHttp(_)
            | ClientError::Strange { .. }
            | ClientError::Problem(_)
            | ClientError::System { .. } => None,
        };
        let failure = match error {
            ClientError::Problem(problem) => {
                let text = outcome::problem(&problem);
                return Failure { code, text, problem: Some(problem) };
            }
            error => Failure::new(code, error.to_string()),
        };
        match next {
            Some(next) => failure.with(next),
            None => failure,
        }
    }
}
