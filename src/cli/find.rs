//! Finds the daemon that a client is for: the one that was named, else the only one that runs.
//! A directory whose daemon is gone is not one.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::config::text::one_line;
use crate::control::client::{Client, ClientError};
use crate::control::wire::Status;
use crate::os::runtime_dir::{self, CONTROL};
use crate::os::stderr::Stderr;

use super::args::Target;
use super::exit_code;
use super::failure::Failure;

/// The variable that names the control socket.
const VARIABLE: &str = "SHEPHERD_CONTROL";

/// How long a daemon may take to say who it is, which an idle one does in a millisecond. One that
/// takes longer runs all the same.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How many daemons are asked at the same time, so that those that do not answer cost no more time
/// than one.
const ASKED_AT_ONCE: usize = 64;

/// The client for the daemon that is meant: by `--control`, `--name`, the variable, or because it is
/// the only one.
pub(super) fn find(target: &Target) -> Result<Client, Failure> {
    let variable = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
    match (&target.control, &target.name, variable) {
        (Some(path), _, _) => Ok(Client::new(path)?),
        (None, Some(name), _) => named(name),
        (None, None, Some(path)) => by_variable(PathBuf::from(path)),
        (None, None, None) => only(),
    }
}

/// It is asked who it is, so that a variable that leads nowhere is blamed for it.
fn by_variable(path: PathBuf) -> Result<Client, Failure> {
    let client = Client::new(path)?;
    match client.get::<Status>("/v1/status", Some(ANSWER_WITHIN)) {
        Err(error @ (ClientError::NoSocket(_) | ClientError::Stale(_))) => {
            let text = format!("{error}; ${VARIABLE} leads there: set it anew, or unset it");
            Err(Failure::new(exit_code::of(&error), text))
        }
        Ok(_) | Err(_) => Ok(client),
    }
}

fn named(name: &str) -> Result<Client, Failure> {
    let mut places = runtime_dir::places();
    places.extend(runtime_dir::place_of_root());
    let directories = places.iter().map(|place| place.join(name));
    let found = look_at(directories.filter(|path| runtime_dir::is_there(path)));
    one_of(found, &format!("no shepherd of the name `{name}` is running"), &places)
}

fn only() -> Result<Client, Failure> {
    let places = runtime_dir::places();
    let mut directories = Vec::new();
    for place in &places {
        // What cannot be read has no daemon of ours.
        directories.extend(runtime_dir::directories(place).unwrap_or_default());
    }
    one_of(look_at(directories.into_iter()), "no shepherd is running", &places)
}

/// A directory of a daemon.
struct Found {
    directory: PathBuf,
    is: Is,
}

/// What it is.
enum Is {
    /// Whatever it says, somebody listens; and what it says, or why nothing is known.
    Running(Client, Result<Box<Status>, String>),
    Gone,
    WithoutSocket,
    Denied,
}

/// Asks all of them at the same time.
fn look_at(directories: impl Iterator<Item = PathBuf>) -> Vec<Found> {
    let directories: Vec<PathBuf> = directories.collect();
    let mut found = Vec::new();
    for directories in directories.chunks(ASKED_AT_ONCE) {
        let looked = thread::scope(|scope| {
            let looks: Vec<_> = directories
                .iter()
                .map(|directory| thread::Builder::new().spawn_scoped(scope, || look(directory)))
                .collect();
            let looked = looks.into_iter().zip(directories).map(|(thread, directory)| {
                // Where there is no thread for it, it is looked at by this one.
                let looked = thread.ok().and_then(|thread| thread.join().ok());
                looked.unwrap_or_else(|| look(directory))
            });
            looked.collect::<Vec<_>>()
        });
        found.extend(looked);
    }
    found
}

fn look(directory: &Path) -> Found {
    let is = match Client::new(directory.join(CONTROL)) {
        Ok(client) => match client.get("/v1/status", Some(ANSWER_WITHIN)) {
            Ok(status) => Is::Running(client, Ok(Box::new(status))),
            Err(ClientError::NoSocket(_)) => Is::WithoutSocket,
            Err(ClientError::Stale(_)) => Is::Gone,
            Err(ClientError::Denied(_)) => Is::Denied,
            Err(ClientError::TimedOut(..)) => {
                let within = ANSWER_WITHIN.as_secs();
                Is::Running(client, Err(format!("does not answer within {within} s")))
            }
            Err(
                error @ (ClientError::Cut(_)
                | ClientError::NotHttp(_)
                | ClientError::Strange { .. }
                | ClientError::Problem(_)
                | ClientError::System { .. }),
            ) => Is::Running(client, Err(one_line(&error.to_string()))),
        },
        Err(_) => Is::WithoutSocket,
    };
    Found { directory: directory.to_owned(), is }
}

/// The only one that runs. `none` says in words that there is none.
fn one_of(found: Vec<Found>, none: &str, places: &[PathBuf]) -> Result<Client, Failure> {
    let mut running = Vec::new();
    let mut denied = None;
    let mut left = Vec::new();
    for Found { directory, is } in found {
        match is {
            Is::Running(client, status) => running.push((directory, client, status)),
            Is::Denied => denied = Some(directory),
            Is::Gone => left.push(format!("`{}`: its daemon is gone", shown(&directory))),
            Is::WithoutSocket => left.push(format!(
                "`{}`: no control socket; was its daemon started with --control?",
                shown(&directory)
            )),
        }
    }
    match (running.len(), denied) {
        (1, _) => match running.pop() {
            Some((directory, client, status)) => {
                if let Err(why) = status {
                    // Whatever it is asked may take as long.
                    let line = row(&directory, Err(&why));
                    Stderr::say(&format!(
                        "shepherd: `{}`: {}; asking all the same",
                        line.name, why
                    ));
                }
                Ok(client)
            }
            None => Err(none_at_all(none, places, &left)),
        },
        (0, Some(directory)) => {
            let text = format!(
                "cannot reach `{}`: permission denied; ask as the user that shepherd runs as, or as root",
                shown(&directory.join(CONTROL))
            );
            Err(Failure::new(exit_code::PERMISSION, text))
        }
        (0, None) => Err(none_at_all(none, places, &left)),
        (_, _) => {
            let rows = running.iter().map(|(directory, _, status)| {
                row(directory, status.as_deref().map_err(String::as_str))
            });
            Err(several(&rows.collect::<Vec<_>>()))
        }
    }
}

fn none_at_all(none: &str, places: &[PathBuf], left: &[String]) -> Failure {
    let mut text = format!("{none}; looked in ");
    let places: Vec<String> = places.iter().map(|place| format!("`{}`", shown(place))).collect();
    text.push_str(&places.join(", "));
    for left in left {
        text.push_str("\n  ");
        text.push_str(left);
    }
    text.push_str("\n  start one with `shepherd run`, or say where it listens with --control PATH");
    if let Some(place) = runtime_dir::place_of_root() {
        text.extend([format!("\n  root's are in `{}`: ask as root", shown(&place))]);
    }
    Failure::new(exit_code::NO_DAEMON, text)
}

/// Name, pid and services of a daemon; where it is, if that is all that is known.
struct Line {
    name: String,
    directory: String,
    about: String,
}

fn row(directory: &Path, status: Result<&Status, &str>) -> Line {
    let name = directory.file_name().map(|name| one_line(&name.to_string_lossy()));
    let about = match status {
        Ok(status) => {
            let services = status.services.iter().take(SERVICES_MAX);
            let mut names: Vec<String> = services.map(|service| one_line(&service.name)).collect();
            if status.services.len() > SERVICES_MAX {
                names.push("...".to_owned());
            }
            format!("pid {:<8} {}", status.daemon.pid, names.join(", "))
        }
        Err(why) => why.to_owned(),
    };
    Line { name: name.unwrap_or_default(), directory: shown(directory), about }
}

/// How many services are named of each of several daemons.
const SERVICES_MAX: usize = 3;

fn several(lines: &[Line]) -> Failure {
    let names: Vec<&str> = lines.iter().map(|line| line.name.as_str()).collect();
    let is_twice = names.iter().any(|name| names.iter().filter(|it| it == &name).count() > 1);
    let option = if is_twice { "--control PATH/control.sock" } else { "--name" };
    let mut text = format!("several daemons are running; say which one with {option}:");
    let first = |line: &Line| if is_twice { line.directory.clone() } else { line.name.clone() };
    let width = lines.iter().map(|line| first(line).chars().count()).max().unwrap_or(0);
    for line in lines {
        text.extend([format!("\n  {:width$}  {}", first(line), line.about)]);
    }
    Failure::new(exit_code::USAGE, text)
}

fn shown(path: &Path) -> String {
    one_line(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::super::render::samples;
    use super::*;

    #[test]
    fn several_daemons_are_listed_with_what_tells_them_apart() {
        let shop = samples::shop();
        let rows = [
            row(Path::new("/run/shepherd/shop"), Ok(&shop)),
            row(Path::new("/run/shepherd/x"), Err("does not answer within 2 s")),
        ];
        let failure = several(&rows);
        assert_eq!(failure.code, exit_code::USAGE);
        assert_eq!(
            failure.text,
            "several daemons are running; say which one with --name:\n  \
             shop  pid 4200     web, background-jobs\n  \
             x     does not answer within 2 s"
        );
    }

    #[test]
    fn daemons_of_one_name_are_told_apart_by_their_paths() {
        let rows = ["/run/user/0/shepherd/web", "/run/shepherd/web"]
            .map(|path| row(Path::new(path), Err("does not answer")));
        let text = several(&rows).text;
        assert!(
            text.contains("--control PATH/control.sock") && text.contains("  /run/shepherd/web "),
            "{text}"
        );
    }
}
