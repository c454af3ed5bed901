//! `shepherd run`: arguments into a configuration, and how it ended into an exit code.

use std::process::ExitCode;

use super::args::Run;
use super::check::File;
use super::{exit_code, fail};
use crate::config::identity::Identity;
use crate::config::run::{Name, RunConfig, RunConfigError};
use crate::config::service::{CANARY_FOR, ServiceConfig, Source};
use crate::config::upstreams::Upstreams;
use crate::config::values::{self, Percent};
use crate::core::policy::{Canary, CheckPace};
use crate::daemon::{self, Ended, Reread, StartError};
use crate::os::stderr::Stderr;

pub(super) fn main(run: Run) -> ExitCode {
    let read = if run.command.is_empty() { from_file(run) } else { from_options(run) };
    let (config, reread) = match read {
        Ok(read) => read,
        Err(code) => return ExitCode::from(code),
    };
    let code = match daemon::run(&config, reread) {
        Ok(Ended::Clean) => exit_code::DONE,
        Ok(Ended::LeftBehind(left)) => {
            fail(&format!("stopped, but {left} processes hang in the kernel and live on"));
            exit_code::FAILED
        }
        Err(error) => {
            fail(&error);
            match error {
                StartError::Usage(_) if config.file.is_none() => exit_code::USAGE,
                StartError::Usage(_)
                | StartError::Definition { .. }
                | StartError::SocketAccess(_) => exit_code::CONFIGURATION,
                StartError::Bind(_) | StartError::Control { .. } => exit_code::BIND,
                StartError::Inherited(_)
                | StartError::RuntimeDir(_)
                | StartError::PidFile { .. }
                | StartError::NoProc
                | StartError::System { .. } => exit_code::FAILED,
            }
        }
    };
    ExitCode::from(code)
}

/// What a file says, and the options that win over it. Its mistakes are told with their places.
fn from_file(run: Run) -> Result<(RunConfig, Reread), u8> {
    let file = File::open(run.config.as_deref()).map_err(|error| {
        match &run.config {
            Some(_) => fail(&error),
            None => fail(&format!("{error} (`-c FILE`), or a command (`-- COMMAND`)")),
        }
        if run.config.is_some() { exit_code::CONFIGURATION } else { exit_code::USAGE }
    })?;
    let config = file.check().map_err(|report| {
        Stderr::say(&report.to_string());
        exit_code::CONFIGURATION
    })?;
    let config = with_options(config, &run);
    let reread = move || {
        let file = File::open(run.config.as_deref()).map_err(|error| error.clone())?;
        let config = file.check().map_err(|report| report.to_string())?;
        Ok(with_options(config, &run))
    };
    Ok((config, Box::new(reread)))
}

/// The options of the command line win over what a file says.
fn with_options(config: RunConfig, run: &Run) -> RunConfig {
    RunConfig {
        name: run.name.clone().map_or(config.name, Name::Explicit),
        admin: run.admin.or(config.admin),
        lame_duck: run.lame_duck.unwrap_or(config.lame_duck),
        logs: run.logs.or(config.logs),
        control: run.control.clone().or(config.control),
        pid_file: run.pid_file.clone().or(config.pid_file),
        ..config
    }
}

/// The command line stays what it was.
fn from_options(run: Run) -> Result<(RunConfig, Reread), u8> {
    let config = one_service(run).map_err(|errors| {
        for error in &errors {
            fail(error);
        }
        exit_code::USAGE
    })?;
    let again = config.clone();
    Ok((config, Box::new(move || Ok(again.clone()))))
}

fn one_service(run: Run) -> Result<RunConfig, Vec<RunConfigError>> {
    // Read here and not by the parser, whose messages show what they cannot read: it may be secret.
    let variables = run.variables.iter().map(|text| values::variable(text));
    let variables = variables
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| vec![RunConfigError::Variable(error)])?;
    let program = run.command.first().map(|name| name.to_string_lossy()).unwrap_or_default();
    let name = match run.name {
        Some(name) => Name::Explicit(name),
        None => Name::Implicit(values::implicit_name(&program)),
    };
    let service = ServiceConfig {
        name: name.as_str().to_owned(),
        workers: run.workers,
        sockets: run.listen,
        ready: run.ready,
        ready_timeout: run.ready_timeout,
        check_pace: CheckPace { interval: run.ready_interval, timeout: run.ready_probe_timeout },
        stop: run.stop_signal,
        balance: run.balance,
        on_failing: run.on_failing,
        surge: run.surge,
        canary: run
            .canary
            .map(|Percent(percent)| Canary { percent, time: run.canary_for.unwrap_or(CANARY_FOR) }),
        probation: run.probation.unwrap_or_default(),
        before_stop: run.before_stop,
        keepalive: run.keepalive,
        drain_timeout: run.drain_timeout,
        // Neither goes without the other.
        upstreams: run
            .upstreams
            .zip(run.upstreams_reload)
            .map(|(file, reload)| Upstreams { file, reload }),
        source: Source {
            command: run.command,
            directory: run.directory,
            variables,
            env_files: run.env_files,
            identity: Identity {
                user: run.user,
                group: run.group,
                groups: run.groups,
                umask: run.umask,
                nice: run.nice,
                no_new_privileges: run.no_new_privs,
                limits: run.limits,
            },
            messages: run.messages,
            handoff: run.handoff,
            node_fork: run.node_fork,
        },
        depends_on: Vec::new(),
        bind_to: Vec::new(),
    };
    let config = RunConfig {
        name,
        services: vec![service],
        admin: run.admin,
        lame_duck: run.lame_duck.unwrap_or_default(),
        logs: run.logs,
        control: run.control,
        pid_file: run.pid_file,
        file: None,
    };
    config.check()?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::args::{Cli, Verb};
    use super::*;

    /// The defaults stand in the help, where the parser reads them, and in the types for files.
    #[test]
    fn defaults_of_the_command_line_are_those_of_a_file() {
        let cli = Cli::try_parse_from(["shepherd", "run", "--", "server"]).expect("right");
        let Verb::Run(run) = cli.verb else { panic!("it is `run`") };
        let (config, _) = from_options(*run).expect("right");
        let source = config.services[0].source.clone();
        assert_eq!(config.services, [ServiceConfig::new("server".to_owned(), source)]);
    }
}
