//! Exit codes: one table, which the help text shows and which everything that ends us uses.

use std::fmt::Write as _;

use crate::control::client::ClientError;
use crate::control::wire::ProblemKind;

/// Asked for, and done.
pub(super) const DONE: u8 = 0;

/// It failed.
pub(super) const FAILED: u8 = 1;

/// Wrong usage: a flag or a value that cannot be read.
pub(super) const USAGE: u8 = 2;

/// Wrong configuration: readable, but it cannot be run.
pub(super) const CONFIGURATION: u8 = 3;

/// A reload was aborted; the old generation serves.
pub(super) const ABORTED: u8 = 4;

/// A reload was aborted, and what served before could not be brought back in all of it.
pub(super) const NOT_PUT_BACK: u8 = 5;

/// There is no daemon to talk to.
pub(super) const NO_DAEMON: u8 = 6;

/// The time to wait is over; what was asked for goes on.
pub(super) const TIMED_OUT: u8 = 7;

/// The daemon belongs to somebody else.
pub(super) const PERMISSION: u8 = 8;

/// A socket could not be bound.
pub(super) const BIND: u8 = 9;

/// Refused: another operation is in progress.
pub(super) const IN_PROGRESS: u8 = 11;

/// `exec`: the program is there and could not be run, as shells have it.
pub(super) const NOT_RUN: u8 = 126;

/// `exec`: there is no such program, as shells have it.
pub(super) const NOT_FOUND: u8 = 127;

/// Ctrl-C while waiting, as shells have it; what was asked for goes on.
pub(super) const INTERRUPTED: u8 = 130;

/// What the help text says of each.
const MEANINGS: &[(u8, &str)] = &[
    (DONE, "done"),
    (FAILED, "failed"),
    (USAGE, "wrong usage"),
    (CONFIGURATION, "wrong configuration; nothing has happened"),
    (ABORTED, "reload aborted; the old generation serves on"),
    (
        NOT_PUT_BACK,
        "reload aborted and not all could be put back; `shepherd status` says what serves",
    ),
    (NO_DAEMON, "no daemon to talk to"),
    (TIMED_OUT, "timed out; what was asked for goes on"),
    (PERMISSION, "permission: the daemon belongs to somebody else"),
    (BIND, "a socket could not be bound; nothing has happened"),
    (IN_PROGRESS, "refused: another operation is in progress"),
    (NOT_RUN, "exec: the program cannot be run"),
    (NOT_FOUND, "exec: there is no such program"),
    (INTERRUPTED, "Ctrl-C while waiting; what was asked for goes on"),
];

/// The table, as the end of a help text.
pub(super) fn table() -> String {
    let mut table = "Exit codes:".to_owned();
    for (code, meaning) in MEANINGS {
        // It fails for no string.
        let _ = write!(table, "\n  {code:<3}  {meaning}");
    }
    table
}

/// The same in a word, for programs.
pub(super) fn name(code: u8) -> &'static str {
    match code {
        DONE => "done",
        USAGE => "usage",
        CONFIGURATION => "configuration",
        ABORTED => "aborted",
        NOT_PUT_BACK => "not-put-back",
        NO_DAEMON => "no-daemon",
        TIMED_OUT => "timed-out",
        PERMISSION => "permission",
        BIND => "bind",
        IN_PROGRESS => "in-progress",
        INTERRUPTED => "interrupted",
        _ => "failed",
    }
}

/// How a request that got no answer, or a bad one, ends.
pub(super) fn of(error: &ClientError) -> u8 {
    match error {
        ClientError::NoSocket(_) | ClientError::Stale(_) => NO_DAEMON,
        ClientError::Denied(_) => PERMISSION,
        ClientError::TimedOut(..)
        | ClientError::Cut(_)
        | ClientError::NotHttp(_)
        | ClientError::Strange { .. }
        | ClientError::System { .. } => FAILED,
        ClientError::Problem(problem) => of_problem(problem.kind),
    }
}

/// How a request that the daemon did not do ends.
pub(super) fn of_problem(kind: ProblemKind) -> u8 {
    match kind {
        ProblemKind::BadRequest => USAGE,
        ProblemKind::NotFound
        | ProblemKind::Stopping
        | ProblemKind::TooBusy
        | ProblemKind::Failed => FAILED,
        ProblemKind::InProgress => IN_PROGRESS,
        ProblemKind::Configuration => CONFIGURATION,
        ProblemKind::Bind => BIND,
        ProblemKind::Aborted => ABORTED,
        ProblemKind::NotPutBack => NOT_PUT_BACK,
        ProblemKind::Forbidden => PERMISSION,
    }
}
