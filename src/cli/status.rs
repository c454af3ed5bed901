//! `shepherd status`: what serves and what does not, once or again and again.

use std::time::Duration;

use crate::control::client::Client;
use crate::control::wire;
use crate::os::terminal::Terminal;

use super::args::Status;
use super::exit_code;
use super::failure::Failure;
use super::find::find;
use super::out::{self, Reader};
use super::render::redraw::Screen;
use super::render::status::{self, Sockets};
use super::waiting::{ANSWER_WITHIN, pause};

/// How often `--watch` looks.
const EVERY: Duration = Duration::from_secs(1);

pub(super) fn main(args: &Status) -> Result<(), Failure> {
    let client = find(&args.target)?;
    let mut screen = Screen::default();
    let mut is_first = true;
    let sockets = if args.sockets { Sockets::Each } else { Sockets::Together };
    loop {
        let found = ask(&client, &args.services)?;
        let reader = match Terminal::of_stdout() {
            _ if args.json => out::print_json(&found)?,
            Some(terminal) if args.watch && terminal.moves => {
                let look = out::look(Some(terminal));
                // The last line is the cursor's.
                let height = terminal.rows.saturating_sub(1);
                let text = status::status(&found, sockets, look);
                let lines = status::bounded(&text, height, look);
                out::print(&screen.redraw(&lines, terminal.columns))?
            }
            terminal => {
                let gap = if is_first { "" } else { "\n" };
                let text = status::status(&found, sockets, out::look(terminal));
                out::print(&format!("{gap}{text}"))?
            }
        };
        if !args.watch || reader == Reader::HasEnough {
            return Ok(());
        }
        is_first = false;
        pause(EVERY);
    }
}

/// The daemon with these services; none named is all.
pub(super) fn ask(client: &Client, names: &[String]) -> Result<wire::Status, Failure> {
    let mut status: wire::Status = client.get("/v1/status", Some(ANSWER_WITHIN))?;
    let known = |name: &&String| status.services.iter().any(|service| service.name == **name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let text = format!("there is no service `{unknown}`; there is {}", listed(&status));
        return Err(Failure::new(exit_code::FAILED, text));
    }
    if !names.is_empty() {
        status.services.retain(|service| names.contains(&service.name));
    }
    Ok(status)
}

/// The names of all services.
pub(super) fn listed(status: &wire::Status) -> String {
    let names: Vec<String> =
        status.services.iter().map(|service| format!("`{}`", service.name)).collect();
    names.join(", ")
}
