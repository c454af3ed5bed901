//! What clients say on stdout, and what they draw.

use std::io::{self, Write};

use crate::os::terminal::Terminal;

use super::exit_code;
use super::failure::Failure;
use super::render::{Colour, Look};

/// Whether anybody reads on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// Somebody may.
    Reads,
    /// Whoever read has enough, as `head` has.
    HasEnough,
}

/// Writes to stdout.
pub(super) fn print(text: &str) -> Result<Reader, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Reader::Reads),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::HasEnough),
        Err(error) => {
            Err(Failure::new(exit_code::FAILED, format!("cannot write to stdout: {error}")))
        }
    }
}

/// Writes a value as one line of JSON to stdout.
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<Reader, Failure> {
    match serde_json::to_string(value) {
        Ok(line) => print(&format!("{line}\n")),
        Err(error) => Err(Failure::new(exit_code::FAILED, format!("cannot write JSON: {error}"))),
    }
}

/// Writes to stderr, at once. Without a reader nothing is said.
pub(super) fn draw(bytes: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(bytes.as_bytes()).and_then(|()| stderr.flush());
}

/// How to show things to whoever is at the other end of a stream.
pub(super) fn look(terminal: Option<Terminal>) -> Look {
    match terminal {
        Some(Terminal { columns, coloured: true, .. }) => {
            Look { width: Some(columns), colour: Colour::Wanted }
        }
        Some(Terminal { columns, coloured: false, .. }) => {
            Look { width: Some(columns), colour: Colour::None }
        }
        None => Look { width: None, colour: Colour::None },
    }
}
