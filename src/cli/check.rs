//! `shepherd check`: the mistakes of a file, those too that only the machine knows of.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::args::Check;
use super::{exit_code, fail, print};
use crate::config::diagnostic::{Entry, Mistakes, Report, Span};
use crate::config::kinds::in_a_file;
use crate::config::resolve::{self, ConfigFile, FileConfig, ServicePlaces};
use crate::config::run::RunConfig;
use crate::config::service::ServiceConfig;
use crate::config::text::one_line;
use crate::os::config_file;
use crate::os::definition::{self, DefinitionError};
use crate::os::identity::IdentityError;
use crate::os::stderr::Stderr;

pub(super) fn main(check: &Check) -> ExitCode {
    let file = match File::open(check.file.as_deref()) {
        Ok(file) => file,
        Err(error) => {
            fail(&error);
            return ExitCode::from(exit_code::CONFIGURATION);
        }
    };
    let found = file.check();
    let code = if found.is_ok() { exit_code::DONE } else { exit_code::CONFIGURATION };
    let printed = match &found {
        _ if check.json => {
            let json = serde_json::to_string(&Found::of(&found)).unwrap_or_default();
            print(&format!("{json}\n"))
        }
        Ok(config) => print(&format!("{}: {}: no mistakes\n", file.shown, summary(config))),
        Err(report) => {
            Stderr::say(&report.to_string());
            Ok(())
        }
    };
    printed.err().unwrap_or(ExitCode::from(code))
}

/// A file that was read, and nothing more.
pub(super) struct File {
    path: PathBuf,
    shown: String,
    text: Vec<u8>,
}

impl File {
    /// The one that is named, or the one that is here.
    pub(super) fn open(named: Option<&Path>) -> Result<File, String> {
        let path = match named {
            Some(path) => path.to_owned(),
            None => config_file::find().ok_or_else(|| {
                let [name, other] = config_file::NAMES;
                format!("cannot find `{name}` or `{other}` here; write one, or name another file")
            })?,
        };
        let shown = one_line(&path.to_string_lossy());
        let failed = |error: io::Error| {
            let next = match error.kind() {
                io::ErrorKind::NotFound => "name a file that is there",
                io::ErrorKind::PermissionDenied => "ask as a user who may read it",
                _ => "name another",
            };
            format!("cannot read `{shown}`: {error}; {next}")
        };
        let text = config_file::read(&path).map_err(failed)?;
        // Only where our own directory is gone is there none.
        let path = std::path::absolute(&path).unwrap_or(path);
        Ok(File { path, shown, text })
    }

    /// What it asks for, or all that is wrong with it by itself.
    pub(super) fn read(&self) -> Result<FileConfig, Report> {
        let file = ConfigFile { path: &self.path, shown: &self.shown, text: &self.text };
        resolve::read(file, &config_file::variables())
    }

    /// The same, with what the machine knows.
    pub(super) fn check(&self) -> Result<RunConfig, Report> {
        let FileConfig { config, places } = self.read()?;
        let mut mistakes = Mistakes::default();
        for (service, places) in config.services.iter().zip(&places) {
            for error in definition::mistakes(&service.source) {
                mistakes.add(place(&error, service, places), &in_a_file(&error.to_string()));
            }
        }
        if mistakes.is_empty() {
            return Ok(config);
        }
        Err(Report::new(&self.shown, &String::from_utf8_lossy(&self.text), mistakes))
    }
}

/// Where in the file it stands what the machine refuses.
fn place(error: &DefinitionError, service: &ServiceConfig, places: &ServicePlaces) -> Span {
    match error {
        DefinitionError::EnvFile { path, .. } | DefinitionError::EnvLine { path, .. } => {
            let mut files = service.source.env_files.iter().zip(&places.env_files);
            files.find(|(file, _)| *file == path).map_or(places.name, |(_, &at)| at)
        }
        DefinitionError::Identity(error) => match error {
            IdentityError::Unknown { flag, .. } | IdentityError::LookUp { flag, .. } => {
                places.of(flag.trim_start_matches('-'))
            }
            IdentityError::NoAnswer { .. }
            | IdentityError::Refused { .. }
            | IdentityError::CannotStop(_) => {
                let wanted = &service.source.identity;
                places.of(match (&wanted.user, &wanted.group) {
                    (Some(_), _) => "user",
                    (None, Some(_)) => "group",
                    (None, None) => "groups",
                })
            }
            IdentityError::Nice { .. } => places.of("nice"),
        },
        DefinitionError::Limit(_) => places.of("limits"),
        DefinitionError::ClosedDirectory { .. } | DefinitionError::Directory { .. } => {
            places.of("directory")
        }
        DefinitionError::ClosedProgram { .. }
        | DefinitionError::NameEmpty
        | DefinitionError::Program { .. }
        | DefinitionError::NotInPath { .. }
        | DefinitionError::NotAFile { .. }
        | DefinitionError::NotExecutable { .. }
        | DefinitionError::Unsound { .. }
        | DefinitionError::NoInterpreter { .. } => places.of("command"),
    }
}

/// What was found, for programs.
#[derive(Serialize)]
struct Found {
    #[serde(skip_serializing_if = "Option::is_none")]
    services: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sockets: Option<usize>,
    mistakes: Vec<Entry>,
}

impl Found {
    fn of(found: &Result<RunConfig, Report>) -> Found {
        match found {
            Ok(config) => Found {
                services: Some(config.services.len()),
                sockets: Some(sockets(config)),
                mistakes: Vec::new(),
            },
            Err(report) => Found { services: None, sockets: None, mistakes: report.entries() },
        }
    }
}

fn sockets(config: &RunConfig) -> usize {
    config.services.iter().map(|service| service.sockets.len()).sum()
}

/// `3 services, 5 sockets`.
fn summary(config: &RunConfig) -> String {
    let count = |count: usize, what: &str| {
        let plural = if count == 1 { "" } else { "s" };
        format!("{count} {what}{plural}")
    };
    format!("{}, {}", count(config.services.len(), "service"), count(sockets(config), "socket"))
}
