//! The bare worker: what a plain loop of fork and exec, in C, keeps running. The least there can be.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use super::{Contender, Program, Running, Says, builder, wait_for_line};
use crate::harness::{Port, http_c};

/// The loop of `programs/loop.c` around the example worker in C.
pub struct PlainLoop;

impl Contender for PlainLoop {
    fn name(&self) -> &'static str {
        "plain loop"
    }

    fn needs(&self) -> &'static [Program] {
        &[Program { name: "gcc", from: "apt install gcc" }]
    }

    fn start(&self, workers: usize, port: &Port) -> Running {
        let mut arguments = vec![workers.to_string().into(), port.to_string().into()];
        arguments.extend(http_c());
        let builder = builder().binary(compiled());
        Running { supervisor: builder.start_other(arguments), behind: Vec::new() }
    }

    fn says_ready(&self, running: &Running, workers: usize) -> Says {
        wait_for_line(running, workers)
    }

    fn crowds(&self) -> &'static [usize] {
        &[4, 200, 1000]
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
