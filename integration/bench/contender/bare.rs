//! The bare worker: what a plain loop of fork and exec, in C, keeps running. The least there can be.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use super::{Contender, Program, Running, Says, Worker, builder, found, wait_for_line};
use crate::{What, harness::Port};

/// The loop of `programs/loop.c` around an example worker that says when it is ready.
pub struct PlainLoop(pub Worker);

impl Contender for PlainLoop {
    fn name(&self) -> &'static str {
        "plain loop"
    }

    fn needs(&self) -> &'static [Program] {
        &[Program { name: "gcc", from: "apt install gcc" }]
    }

    fn start(&self, workers: usize, port: &Port) -> Running {
        let mut arguments = vec![workers.to_string().into(), port.to_string().into()];
        let mut command = self.0.command().into_iter();
        arguments.extend(command.next().map(|program| found(&program).into_os_string()));
        arguments.extend(command);
        let builder = builder().binary(compiled());
        Running { supervisor: builder.start_other(arguments), behind: Vec::new() }
    }

    fn says_ready(&self, running: &Running, workers: usize) -> Says {
        wait_for_line(running, workers)
    }

    fn measures(&self) -> &'static [What] {
        match self.0 {
            Worker::C => &[What::Request, What::Respawn, What::Start, What::Memory],
            // How much of a start is the supervisor's depends on what the worker takes.
            Worker::Rust | Worker::Python | Worker::Node | Worker::Gunicorn => &[What::Start],
        }
    }

    fn crowds(&self) -> &'static [usize] {
        match self.0 {
            Worker::C => &[4, 200, 1000],
            Worker::Rust | Worker::Python | Worker::Node | Worker::Gunicorn => &[200],
        }
    }

    fn reload(&self) -> Option<fn(&Running)> {
        None
    }
}

fn compiled() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/bench/programs/loop.c");
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("loop");
        let mut gcc = Command::new("gcc");
        gcc.args(["-O2", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&path).arg(source);
        let status = gcc.status();
        assert!(status.is_ok_and(|status| status.success()), "cannot run {gcc:?}");
        path
    })
}
