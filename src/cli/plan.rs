//! `shepherd plan`: what applying a file to the running daemon would change. Nothing is changed.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::args::Plan;
use super::check::File;
use super::exit_code;
use super::failure::Failure;
use super::find::find;
use super::out;
use crate::config::diff::{Change, Difference, ServiceDifference, SocketFate};
use crate::config::run::RunConfig;
use crate::control::running::running;
use crate::control::wire;
use crate::os::stderr::Stderr;

/// How long a daemon may take to say what it runs.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

pub(super) fn main(args: &Plan) -> Result<(), Failure> {
    let failed = |text: String| Failure::new(exit_code::CONFIGURATION, text);
    let file = File::open(args.file.as_deref()).map_err(failed)?;
    let new = file.check().map_err(|report| {
        Stderr::say(&report.to_string());
        failed("there is no plan for a file with mistakes; mend them first".to_owned())
    })?;
    let old = match find(&args.target) {
        Ok(client) => Some(client.get::<wire::Config>("/v1/config", Some(ANSWER_WITHIN))?),
        // One that was named and is not there is no daemon that would be started.
        Err(failure) if failure.code == exit_code::NO_DAEMON && args.target.is_any() => None,
        Err(failure) => return Err(failure),
    };
    let nothing = RunConfig { services: Vec::new(), ..new.clone() };
    let before = old.as_ref().map_or(nothing, |told| running(told, &new));
    let steps = steps(&Difference::between(&before, &new));
    if args.json {
        return out::print_json(&Told { running: old.is_some(), steps }).map(|_| ());
    }
    let mut text = String::new();
    if old.is_none() {
        text.push_str("no shepherd is running: everything would be bound and started\n");
    }
    text.push_str(&table(&steps));
    out::print(&text).map(|_| ())
}

/// The plan for programs.
#[derive(Serialize)]
struct Told {
    /// Whether there is a daemon that it was compared with.
    running: bool,
    steps: Vec<Step>,
}

/// One thing that would be done.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Step {
    #[serde(rename = "do")]
    verb: Verb,
    /// A socket or a service.
    what: String,
    service: String,
    /// Why, or how.
    note: String,
}

/// What is done, in the order in which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verb {
    Keep,
    Bind,
    Start,
    Reload,
    Stop,
    Close,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Verb::Keep => "keep",
            Verb::Bind => "bind",
            Verb::Start => "start",
            Verb::Reload => "reload",
            Verb::Stop => "stop",
            Verb::Close => "close",
        }
    }
}

/// All steps, in their order.
fn steps(difference: &Difference) -> Vec<Step> {
    let mut steps: Vec<Step> = difference.services.iter().flat_map(of_service).collect();
    steps.sort_by_key(|step| step.verb);
    steps
}

fn of_service(service: &ServiceDifference) -> Vec<Step> {
    let name = service.name.as_str();
    let step = |verb, what: &str, note: String| {
        let (what, service) = (what.to_owned(), name.to_owned());
        Step { verb, what, service, note }
    };
    let (verb, note) = match &service.change {
        Change::Added => (Verb::Start, "it is new".to_owned()),
        Change::Removed => (Verb::Stop, "it is gone from the file".to_owned()),
        Change::Changed(keys) => (Verb::Reload, format!("changed: {}", keys.join(", "))),
        Change::Unchanged => (Verb::Reload, "unchanged; its program is read again".to_owned()),
    };
    let sockets = service.sockets.iter().map(|socket| {
        let (verb, note) = match socket.fate {
            SocketFate::Kept => (Verb::Keep, format!("of {name}")),
            SocketFate::KeptWithOtherOptions => (Verb::Keep, format!("of {name}, other options")),
            SocketFate::Bound => (Verb::Bind, format!("for {name}")),
            SocketFate::Closed => (Verb::Close, format!("after the last worker of {name} with it")),
        };
        step(verb, &socket.socket, note)
    });
    std::iter::once(step(verb, name, note)).chain(sockets).collect()
}

/// A line a step, in columns.
fn table(steps: &[Step]) -> String {
    let width = steps.iter().map(|step| step.what.chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for Step { verb, what, note, .. } in steps {
        // Writing into a text does not fail.
        let _ = writeln!(text, "{:6}  {what:width$}  {note}", verb.name());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::diff::SocketDifference;

    #[test]
    fn steps_are_in_the_order_in_which_they_are_done() {
        let socket = |socket: &str, fate| SocketDifference { socket: socket.to_owned(), fate };
        let service = |name: &str, change, sockets| {
            let name = name.to_owned();
            ServiceDifference { name, change, sockets }
        };
        let difference = Difference {
            services: vec![
                service(
                    "web",
                    Change::Changed(vec!["workers", "listen"]),
                    vec![
                        socket("8000", SocketFate::Kept),
                        socket("admin=8001", SocketFate::Bound),
                        socket("udp:53", SocketFate::KeptWithOtherOptions),
                    ],
                ),
                service("cache", Change::Added, vec![socket("9000", SocketFate::Bound)]),
                service("db", Change::Unchanged, Vec::new()),
                service("old", Change::Removed, vec![socket("7000", SocketFate::Closed)]),
            ],
            at_restart: Vec::new(),
        };
        let expected = "\
keep    8000        of web
keep    udp:53      of web, other options
bind    admin=8001  for web
bind    9000        for cache
start   cache       it is new
reload  web         changed: workers, listen
reload  db          unchanged; its program is read again
stop    old         it is gone from the file
close   7000        after the last worker of old with it
";
        assert_eq!(table(&steps(&difference)), expected);
    }
}
