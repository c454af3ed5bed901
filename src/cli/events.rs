//! `shepherd events`: what happens, a line each, until the daemon stops or nobody reads.

use crate::os::stderr::Stderr;
use crate::os::terminal::Terminal;

use super::args::Events;
use super::failure::Failure;
use super::find::find;
use super::out::{self, Reader};
use super::render::event;
use super::waiting::{ANSWER_WITHIN, unanswered};

pub(super) fn main(args: &Events) -> Result<(), Failure> {
    let client = find(&args.target)?;
    let mut events = client.events(args.since, Some(ANSWER_WITHIN))?;
    let look = out::look(Terminal::of_stdout());
    while let Some(event) = events.next(None).map_err(|error| unanswered(error, "it"))? {
        let reader = if args.json {
            out::print_json(&event)?
        } else {
            out::print(&format!("{}\n", event::event(&event, look)))?
        };
        if reader == Reader::HasEnough {
            return Ok(());
        }
    }
    Stderr::say("shepherd: the daemon has stopped");
    Ok(())
}
