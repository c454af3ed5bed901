//! `shepherd stop`: stops services, or the daemon with all of them.

use std::time::Duration;

use serde_json::json;

use crate::control::client::{Client, ClientError};
use crate::control::wire;
use crate::os::clock;
use crate::os::runtime_dir;

use super::args::Stop;
use super::exit_code;
use super::failure::Failure;
use super::find::find;
use super::one_by_one::{Again, one_by_one};
use super::out;
use super::render::outcome;
use super::waiting::{self, ANSWER_WITHIN, pause};

/// How long a daemon that has stopped everything may take to end.
const END_WITHIN: Duration = Duration::from_secs(10);

/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

pub(super) fn main(args: &Stop) -> Result<(), Failure> {
    if !args.services.is_empty() {
        let told = outcome::stopped;
        return one_by_one(&args.target, &args.services, "stop", "the stop", Again::Ask, told);
    }
    let client = find(&args.target)?;
    let status: wire::Status = client.get("/v1/status", Some(ANSWER_WITHIN))?;
    waiting::ask(&client, "/v1/stop".to_owned(), json!({}), "the stop")?;
    wait_until_gone(&client)?;
    out::print(&format!("shepherd `{}`, pid {}: stopped\n", status.daemon.name, status.daemon.pid))
        .map(|_| ())
}

/// Whoever starts it anew right after this must find its name and its sockets free.
fn wait_until_gone(client: &Client) -> Result<(), Failure> {
    let until = clock::now() + END_WITHIN;
    while clock::now() < until {
        let answer = client.get::<wire::Status>("/v1/status", Some(ANSWER_WITHIN));
        match answer {
            Err(ClientError::NoSocket(_) | ClientError::Stale(_))
                if !is_below_a_place_of_ours(client) =>
            {
                return Ok(());
            }
            // It is about to end.
            Ok(_) | Err(_) => pause(LOOK_EVERY),
        }
    }
    let text = format!("everything is stopped, but the daemon has not ended within {END_WITHIN:?}");
    Err(Failure::new(exit_code::FAILED, text))
}

/// Whether the directory of the control socket is the daemon's own, and there: it goes last.
fn is_below_a_place_of_ours(client: &Client) -> bool {
    let Some(directory) = client.socket().parent() else { return false };
    let above = directory.parent().map(std::path::Path::to_owned);
    let is_ours = above.is_some_and(|above| runtime_dir::places().contains(&above));
    is_ours && runtime_dir::is_there(directory)
}
