//! `shepherd schema`: the schema of shepherd.yaml, from the types that read it.

use std::process::ExitCode;

use super::{exit_code, print};
use crate::config::schema;

pub(super) fn main() -> ExitCode {
    match print(&format!("{:#}\n", schema::json_schema())) {
        Ok(()) => ExitCode::from(exit_code::DONE),
        Err(code) => code,
    }
}
