//! The terminal that one of our streams leads to, for who draws on it. It draws nothing itself.

use std::io::IsTerminal;

use terminal_size::{Height, Width, terminal_size_of};

use super::stdio::wants_colour;

/// What a terminal has that does not say how large it is.
const COLUMNS: usize = 80;
const ROWS: usize = 24;

/// A terminal, as it is at this moment: people change its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// How wide it is.
    pub columns: usize,
    /// How high it is.
    pub rows: usize,
    /// Whether whoever sits there wants colours.
    pub coloured: bool,
    /// Whether its cursor can be moved.
    pub moves: bool,
}

impl Terminal {
    /// That of stdout, if it is one.
    #[must_use]
    pub fn of_stdout() -> Option<Terminal> {
        Terminal::of(std::io::stdout())
    }

    /// That of stderr, if it is one.
    #[must_use]
    pub fn of_stderr() -> Option<Terminal> {
        Terminal::of(std::io::stderr())
    }

    fn of(stream: impl IsTerminal + std::os::fd::AsFd) -> Option<Terminal> {
        if !stream.is_terminal() {
            return None;
        }
        let (columns, rows) = match terminal_size_of(stream) {
            Some((Width(columns), Height(rows))) if columns > 0 && rows > 0 => {
                (columns.into(), rows.into())
            }
            Some(_) | None => (COLUMNS, ROWS),
        };
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Some(Terminal { columns, rows, coloured: wants_colour() && !is_dumb, moves: !is_dumb })
    }
}
