//! Our own lines on stderr: never a panic, never a stall.

use std::io::{self, Write};

use super::sink::Sink;
use super::stdio::stdio;
use crate::protocol::line_styles::Stream;

/// Stderr, for who has a line to say.
#[derive(Debug)]
pub struct Stderr;

impl Stderr {
    /// Writes one line of our own, outside of the log, and waits for its reader with a bound: the
    /// process may end after it. Without a stderr nothing is said.
    pub fn say(line: &str) {
        if let Some(sink) = stdio().sink(Stream::Stderr) {
            sink.say(format!("{line}\n").as_bytes());
            sink.finish();
        }
    }
}

/// One line being written: `tracing` makes one for each.
#[derive(Debug)]
pub struct Line<'a>(&'a Sink);

impl<'a> From<&'a Sink> for Line<'a> {
    fn from(sink: &'a Sink) -> Line<'a> {
        Line(sink)
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.say(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
