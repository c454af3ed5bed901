//! `shepherd exec`: becomes a program, with the sockets stamped as meant for it.

use std::io;
use std::process::ExitCode;

use super::args::Exec;
use super::{exit_code, fail};
use crate::os::exec::exec_stamped;

pub(super) fn main(exec: &Exec) -> ExitCode {
    let Err(error) = exec_stamped(&exec.command);
    let program = exec.command.first().map(|name| name.to_string_lossy()).unwrap_or_default();
    fail(&format!("cannot run `{program}`: {error}"));
    match error.kind() {
        io::ErrorKind::NotFound => ExitCode::from(exit_code::NOT_FOUND),
        _ => ExitCode::from(exit_code::NOT_RUN),
    }
}
