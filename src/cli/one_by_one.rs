//! What is asked for one service after the other, in the order in which they were named: the first
//! that fails is the last.

use serde_json::json;

use crate::control::wire::Done;

use super::args::Target;
use super::failure::Failure;
use super::find::find;
use super::{out, waiting};

/// Does `verb` to each service; `what` goes on after a Ctrl-C, and `told` says what was done.
pub(super) fn one_by_one(
    target: &Target,
    services: &[String],
    verb: &str,
    what: &str,
    told: impl Fn(&Done) -> String,
) -> Result<(), Failure> {
    let client = find(target)?;
    for (index, service) in services.iter().enumerate() {
        let path = format!("/v1/services/{service}/{verb}");
        let done = waiting::ask(&client, path, json!({}), what);
        let done = done.map_err(|mut failure| {
            if let left @ [_, ..] = &services[index + 1..] {
                let left = left.join(", ");
                failure.text.extend([format!("\n  nothing was asked for {left}")]);
            }
            failure
        })?;
        // That nobody reads is no reason to leave the rest undone.
        out::print(&told(&done))?;
    }
    Ok(())
}
