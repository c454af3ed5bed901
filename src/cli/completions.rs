//! `shepherd completions`: what the shells complete, from the arguments.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::CommandFactory;

use super::args::{Cli, Completions, Shell};
use super::{exit_code, fail};

pub(super) fn main(completions: &Completions) -> ExitCode {
    let mut stdout = io::stdout();
    let written = stdout.write_all(&script(completions.shell)).and_then(|()| stdout.flush());
    match written {
        Ok(()) => ExitCode::from(exit_code::DONE),
        // Whoever reads has enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(exit_code::DONE),
        Err(error) => {
            fail(&format!("cannot write the completions: {error}"));
            ExitCode::from(exit_code::FAILED)
        }
    }
}

/// The script that makes a shell complete our command line.
pub(super) fn script(shell: Shell) -> Vec<u8> {
    let generator = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(generator, &mut Cli::command(), "shepherd", &mut script);
    script
}
