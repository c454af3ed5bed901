//! The story of a world, kept only for the report of a failure.

use std::collections::VecDeque;

/// The last lines of what was fed and done, for the report of a failure.
#[derive(Clone)]
pub(crate) struct Journal {
    lines: Option<VecDeque<String>>,
}

/// How many lines a journal keeps.
const JOURNAL_MAX: usize = 150;

impl Journal {
    /// One that drops everything.
    pub(crate) fn silent() -> Journal {
        Journal { lines: None }
    }

    /// One that keeps the last lines.
    pub(crate) fn kept() -> Journal {
        Journal { lines: Some(VecDeque::new()) }
    }

    /// What it has kept.
    pub(crate) fn text(&self) -> String {
        let lines: Vec<&str> = self.lines.iter().flatten().map(String::as_str).collect();
        lines.join("\n")
    }

    pub(crate) fn write(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            if lines.len() >= JOURNAL_MAX {
                lines.pop_front();
            }
            lines.push_back(line());
        }
    }
}
