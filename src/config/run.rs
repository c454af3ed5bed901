//! What `shepherd run` is to do: the daemon, and its services checked against each other. Plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::addresses::overlap;
use super::admin::AdminAddress;
use super::diagnostic::nearest;
use super::service::{ServiceConfig, ServiceMistake, Spelling};
use super::socket::SocketSpec;
use super::values::{Logs, ValueError};

/// The most services of one daemon: more than anybody has written into one file, and few enough that
/// what is looked at for each of them at every event stays short.
pub const SERVICES_MAX: usize = 256;

/// A daemon, and the services that it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunConfig {
    /// The daemon's name.
    pub name: Name,
    /// Its services, in the order in which they were written.
    pub services: Vec<ServiceConfig>,
    /// Where monitoring reaches it, if anywhere.
    pub admin: Option<AdminAddress>,
    /// How long everything serves on after a stop was asked for.
    pub lame_duck: Duration,
    /// Where the workers' output leads; without it what is best for who reads ours.
    pub logs: Option<Logs>,
    /// Where clients reach us, if not in the runtime directory.
    pub control: Option<PathBuf>,
    /// Where our pid is written.
    pub pid_file: Option<PathBuf>,
    /// The file that all this was read from; none where it was the command line.
    pub file: Option<PathBuf>,
}

/// A name, and whether the user insists on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// Asked for; when it is taken, that is an error.
    Explicit(String),
    /// Taken from the program or the file; when it is taken, it is varied.
    Implicit(String),
}

impl Name {
    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Name::Explicit(name) | Name::Implicit(name) => name,
        }
    }
}

/// Values that are right alone and wrong together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RunConfigError {
    /// There is nothing to run.
    #[error("there is no service; add one under `services`")]
    NoService,
    /// More than a daemon can have.
    #[error("{0} services are more than the {SERVICES_MAX} that one daemon can have")]
    TooManyServices(usize),
    /// Two services of one name would be told apart by nobody.
    #[error("there are two services of the name `{0}`; rename one of them")]
    SameName(String),
    /// A service is wrong by itself; the only one of a command line needs no name.
    #[error("{}{}", of(service, *spelling), mistake.told(*spelling))]
    Service {
        /// Which one.
        service: String,
        /// How it was written.
        spelling: Spelling,
        /// What is wrong.
        mistake: ServiceMistake,
    },
    /// A variable of the command line.
    #[error("cannot use `--env`: {0}")]
    Variable(ValueError),
    /// An address can be bound once only.
    #[error("{}", twice(socket, first, second))]
    SameSocket {
        /// Where, as the second has it.
        socket: String,
        /// Who has it.
        first: String,
        /// Who wants it too.
        second: String,
    },
    /// It would wait for ever.
    #[error(
        "service `{service}` depends on `{missing}`, and there is no such service{}",
        did_you_mean(nearest.as_deref())
    )]
    NoSuchService {
        /// Who depends.
        service: String,
        /// On whom.
        missing: String,
        /// The service whose name is nearest to it.
        nearest: Option<String>,
    },
    /// Each would wait for the next.
    #[error(
        "services depend on each other in a circle: {}; none of them could start, so take one of \
         these dependencies away",
        circle(.0)
    )]
    Circle(Vec<String>),
}

fn of(service: &str, spelling: Spelling) -> String {
    match spelling {
        Spelling::Options => String::new(),
        Spelling::Keys => format!("service `{service}`: "),
    }
}

fn twice(socket: &str, first: &str, second: &str) -> String {
    if first == second {
        return format!(
            "`{socket}` is asked for twice; an address is bound once, so give one of the sockets \
             another"
        );
    }
    format!(
        "services `{first}` and `{second}` both listen on `{socket}`; a socket belongs to one \
         service, so give one of them another address"
    )
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

fn circle(names: &[String]) -> String {
    let names: Vec<String> =
        names.iter().chain(names.first()).map(|name| format!("`{name}`")).collect();
    names.join(" -> ")
}

impl RunConfig {
    /// How the user wrote it.
    #[must_use]
    pub fn spelling(&self) -> Spelling {
        if self.file.is_some() { Spelling::Keys } else { Spelling::Options }
    }

    /// A service by its name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&ServiceConfig> {
        self.services.iter().find(|service| service.name == name)
    }

    /// Checks the values against each other.
    ///
    /// # Errors
    ///
    /// Everything that cannot be, services by themselves first.
    pub fn check(&self) -> Result<(), Vec<RunConfigError>> {
        let mut errors = Vec::new();
        match self.services.len() {
            0 => errors.push(RunConfigError::NoService),
            1..=SERVICES_MAX => {}
            count => errors.push(RunConfigError::TooManyServices(count)),
        }
        let spelling = self.spelling();
        for service in &self.services {
            for mistake in service.check().err().into_iter().flatten() {
                let service = service.name.clone();
                errors.push(RunConfigError::Service { service, spelling, mistake });
            }
        }
        errors.extend(self.same_names());
        errors.extend(self.same_sockets());
        errors.extend(self.missing());
        errors.extend(self.circle().map(RunConfigError::Circle));
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn same_names(&self) -> impl Iterator<Item = RunConfigError> {
        let mut seen = BTreeSet::new();
        let names = self.services.iter().map(|service| service.name.as_str());
        let twice: BTreeSet<&str> = names.filter(|name| !seen.insert(*name)).collect();
        twice.into_iter().map(|name| RunConfigError::SameName(name.to_owned()))
    }

    /// What the kernel would refuse on any machine; what else stands in the way of a socket is found
    /// when it is bound.
    fn same_sockets(&self) -> Vec<RunConfigError> {
        let mut errors = Vec::new();
        let mut earlier: Vec<(&ServiceConfig, &SocketSpec)> = Vec::new();
        for second in &self.services {
            for socket in &second.sockets {
                let first = earlier.iter().find(|(_, other)| overlap(other, socket));
                if let Some((first, _)) = first {
                    errors.push(RunConfigError::SameSocket {
                        socket: socket.place(),
                        first: first.name.clone(),
                        second: second.name.clone(),
                    });
                }
                earlier.push((second, socket));
            }
        }
        errors
    }

    fn missing(&self) -> Vec<RunConfigError> {
        let names: BTreeSet<&str> = self.services.iter().map(|it| it.name.as_str()).collect();
        let mut errors = Vec::new();
        for service in &self.services {
            for missing in service.needs().filter(|name| !names.contains(name)) {
                let others = names.iter().copied().filter(|name| *name != service.name);
                errors.push(RunConfigError::NoSuchService {
                    service: service.name.clone(),
                    missing: missing.to_owned(),
                    nearest: nearest(missing, others).map(str::to_owned),
                });
            }
        }
        errors
    }

    /// Services that need each other, each the next and the last the first, if there are some.
    fn circle(&self) -> Option<Vec<String>> {
        // Those that need nobody who is left are taken away, until none is: who remains is in a
        // circle or needs one.
        let mut left: BTreeMap<&str, &ServiceConfig> =
            self.services.iter().map(|service| (service.name.as_str(), service)).collect();
        loop {
            let free: Vec<&str> = left
                .iter()
                .filter(|(_, service)| !service.needs().any(|name| left.contains_key(name)))
                .map(|(&name, _)| name)
                .collect();
            if free.is_empty() {
                break;
            }
            for name in free {
                left.remove(name);
            }
        }
        // Each has one that it needs among them, so that going there leads into the circle.
        let mut path: Vec<&str> = Vec::new();
        let mut at = *left.keys().next()?;
        while !path.contains(&at) {
            path.push(at);
            at = left.get(at)?.needs().find(|name| left.contains_key(name))?;
        }
        let begins = path.iter().position(|&name| name == at)?;
        Some(path.iter().skip(begins).map(|&name| name.to_owned()).collect())
    }
}

#[cfg(test)]
pub(super) mod testing;

#[cfg(test)]
mod tests;
