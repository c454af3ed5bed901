//! What people type: arguments in, an exit code out.

mod args;

mod check;

mod completions;

mod exec;

mod exit_code;

mod file_page;

mod man;

mod run;

mod schema;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::os::exec::become_worker;
use crate::os::spawn::TRAMPOLINE;
use crate::os::stderr::Stderr;
use args::{Cli, Verb};

/// Parses the arguments of this process and does what they say.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(sockets) = trampoline(&arguments) {
        return ExitCode::from(become_worker(sockets));
    }
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        // Help and version go to stdout and are no failure; usage errors are, with code 2.
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(exit_code::USAGE);
            // Nobody to tell is no reason to fail differently.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match cli.verb {
        Verb::Run(run) => run::main(*run),
        Verb::Check(check) => check::main(&check),
        Verb::Schema => schema::main(),
        Verb::Exec(exec) => exec::main(&exec),
        Verb::Completions(completions) => completions::main(&completions),
        Verb::Man(man) => man::main(&man),
    }
}

/// Whether this process is to become a worker. Told without the parser, which would cost each start
/// some of its time.
fn trampoline(arguments: &[OsString]) -> Option<u32> {
    match arguments {
        [_, option, sockets] if option.as_os_str() == OsStr::new(TRAMPOLINE) => {
            sockets.to_str()?.parse().ok()
        }
        _ => None,
    }
}

/// Writes data to stdout.
fn print(text: &str) -> Result<(), ExitCode> {
    let mut stdout = io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        // Whoever reads has enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => {
            fail(&format!("cannot write to stdout: {error}"));
            Err(ExitCode::from(exit_code::FAILED))
        }
    }
}

/// One line on stderr, as all failures of the command line look.
fn fail(error: &dyn std::fmt::Display) {
    Stderr::say(&format!("shepherd: {error}"));
}
