//! What is asked for one service after the other, in the order in which they were named: the first
//! that fails is the last.

use std::collections::BTreeSet;

use serde_json::json;

use crate::control::wire::Done;

use super::args::Target;
use super::failure::Failure;
use super::find::find;
use super::{out, waiting};

/// What becomes of a service that went along with one that was named before it, as it is bound to that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It is asked for all the same: an operator names it.
    Ask,
    /// Once is enough.
    Skip,
}

/// Does `verb` to each service; `what` goes on after a Ctrl-C, and `told` says what was done where that
/// service was asked for.
pub(super) fn one_by_one(
    target: &Target,
    services: &[String],
    verb: &str,
    what: &str,
    again: Again,
    told: impl Fn(&Done, &str) -> String,
) -> Result<(), Failure> {
    let client = find(target)?;
    let mut done_along = BTreeSet::new();
    for (index, service) in services.iter().enumerate() {
        if again == Again::Skip && done_along.contains(service) {
            continue;
        }
        let path = format!("/v1/services/{service}/{verb}");
        let done = waiting::ask(&client, path, json!({}), what);
        let done = done.map_err(|mut failure| {
            if let left @ [_, ..] = &services[index + 1..] {
                let left = left.join(", ");
                failure.text.extend([format!("\n  nothing was asked for {left}")]);
            }
            failure
        })?;
        done_along.extend(done.services.iter().map(|service| service.name.clone()));
        // That nobody reads is no reason to leave the rest undone.
        out::print(&told(&done, service))?;
    }
    Ok(())
}
