//! `shepherd send`: a message for a worker.

use serde_json::value::RawValue;

use crate::control::wire;

use super::args::Send;
use super::failure::Failure;
use super::find::find;
use super::render::outcome;
use super::waiting::ANSWER_WITHIN;
use super::{exit_code, out};

pub(super) fn main(args: &Send) -> Result<(), Failure> {
    let client = find(&args.target)?;
    let path = format!("/v1/workers/{}/message", args.worker);
    let data = RawValue::from_string(args.data.clone())
        .map_err(|error| Failure::new(exit_code::USAGE, format!("it is no JSON: {error}")))?;
    let sent: wire::Sent = client.post(&path, &wire::Message { data }, Some(ANSWER_WITHIN))?;
    if args.json { out::print_json(&sent) } else { out::print(&outcome::sent(&sent)) }.map(|_| ())
}
