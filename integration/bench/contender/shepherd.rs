//! What all others are compared with.

use std::ffi::OsString;

use super::{
    Contender, Program, Running, Says, gunicorn, hang_up,
    place::{Place, unprivileged},
    wait_for_line,
};
use crate::harness::{Port, http_c, http_node, http_python, http_rust};

/// The binary that was built with the bench.
pub struct Shepherd(pub Worker);

/// What its workers are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Worker {
    /// The example worker in C: it takes so little that what is left is the supervisor's.
    C,
    /// The example worker in Rust.
    Rust,
    /// The example worker in Python.
    Python,
    /// The example worker in Node.
    Node,
    /// gunicorn with one worker below it.
    Gunicorn,
}

impl Worker {
    /// As the table names it.
    pub fn name(self) -> &'static str {
        match self {
            Worker::C => "C",
            Worker::Rust => "Rust",
            Worker::Python => "Python",
            Worker::Node => "Node",
            Worker::Gunicorn => "gunicorn",
        }
    }

    /// What it is started by.
    pub fn command(self) -> Vec<OsString> {
        match self {
            Worker::C => http_c(),
            Worker::Rust => http_rust(),
            Worker::Python => http_python(),
            Worker::Node => http_node(),
            Worker::Gunicorn => unprivileged(&gunicorn::command(1)),
        }
    }
}

impl Contender for Shepherd {
    fn name(&self) -> &'static str {
        "shepherd"
    }

    fn needs(&self) -> &'static [Program] {
        match self.0 {
            Worker::C => &[Program { name: "gcc", from: "apt install gcc" }],
            Worker::Rust => &[],
            Worker::Python => &[Program { name: "python3", from: "apt install python3" }],
            Worker::Node => &[Program { name: "node", from: "apt install nodejs" }],
            Worker::Gunicorn => &[Program { name: "gunicorn", from: "pip install gunicorn" }],
        }
    }

    fn start(&self, workers: usize, port: &Port) -> Running {
        let builder = Place::new(&[gunicorn::APPLICATION])
            .builder()
            .workers(workers)
            .listen(format!("127.0.0.1:{port}"))
            .command(self.0.command());
        Running { supervisor: builder.start(), behind: Vec::new() }
    }

    fn says_ready(&self, running: &Running, workers: usize) -> Says {
        wait_for_line(running, workers)
    }

    fn reload(&self) -> Option<fn(&Running)> {
        Some(hang_up)
    }
}
