//! What people type: arguments in, an exit code out.

mod args;

mod run;

mod status;

mod reload;

mod scale;

mod restart;

mod stop;

mod start;

mod kill;

mod send;

mod events;

mod check;

mod plan;

mod schema;

mod exec;

mod completions;

mod man;

mod file_page;

mod find;

mod waiting;

mod one_by_one;

mod out;

mod render;

mod failure;

mod exit_code;

use std::process::ExitCode;

use crate::os::stderr::Stderr;
use crate::os::terminal::Terminal;
use args::Verb;
use failure::Failure;

/// Parses the arguments of this process and does what they say.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match args::parse(std::env::args_os().collect()) {
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
        Verb::Status(status) => ended(status::main(&status)),
        Verb::Reload(reload) => ended(reload::main(&reload)),
        Verb::Rollback(rollback) => ended(reload::roll_back(&rollback)),
        Verb::Scale(scale) => ended(scale::main(&scale)),
        Verb::Restart(restart) => ended(restart::main(&restart)),
        Verb::Stop(stop) => ended(stop::main(&stop)),
        Verb::Start(start) => ended(start::main(&start)),
        Verb::Kill(kill) => ended(kill::main(&kill)),
        Verb::Send(send) => ended(send::main(&send)),
        Verb::Events(events) => ended(events::main(&events)),
        Verb::Check(check) => check::main(&check),
        Verb::Plan(plan) => ended(plan::main(&plan)),
        Verb::Schema => schema::main(),
        Verb::Exec(exec) => exec::main(&exec),
        Verb::Completions(completions) => completions::main(&completions),
        Verb::Man(man) => man::main(&man),
    }
}

/// Writes data to stdout.
fn print(text: &str) -> Result<(), ExitCode> {
    // Whoever reads may have enough.
    out::print(text).map(|_| ()).map_err(|failure| ended(Err(failure)))
}

/// How a client ends.
fn ended(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::from(exit_code::DONE),
        Err(Failure { code, text, .. }) => {
            fail(&render::message(&text, Terminal::of_stderr().map(|terminal| terminal.columns)));
            ExitCode::from(code)
        }
    }
}

/// One line on stderr, as all failures of the command line look.
fn fail(error: &dyn std::fmt::Display) {
    Stderr::say(&format!("shepherd: {error}"));
}
