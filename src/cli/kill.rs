//! `shepherd kill`: sends a signal to a worker.

use crate::control::wire;

use super::args::Kill;
use super::failure::Failure;
use super::find::find;
use super::{out, waiting};

pub(super) fn main(args: &Kill) -> Result<(), Failure> {
    let client = find(&args.target)?;
    let path = format!("/v1/workers/{}/signal", args.worker);
    let body = wire::Signal { signal: args.signal.clone() };
    waiting::ask(&client, path, body, "the request")?;
    let name = args.signal.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    out::print(&format!("worker {}: sent SIG{name}\n", args.worker)).map(|_| ())
}
