//! What a daemon runs, as far as it tells: enough to say what another configuration would change.
//! What is not told (values of variables, limits, keys of the daemon itself) is taken to be as in the
//! other configuration. Pure.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::wire;
use crate::config::identity::Identity;
use crate::config::run::RunConfig;
use crate::config::service::{CANARY_FOR, ServiceConfig, Source};
use crate::config::socket::SocketSpec;
use crate::config::values::{self, Handoff, Percent, Workers};
use crate::core::policy::Canary;

/// Times travel in seconds with fractions; nobody writes shorter ones than this.
const SAME_TIME: Duration = Duration::from_millis(1);

/// The configuration that runs, where `other` is the one that it is compared with.
#[must_use]
pub fn running(told: &wire::Config, other: &RunConfig) -> RunConfig {
    let services = told.services.iter();
    let services = services.map(|told| service(told, other.service(&told.name))).collect();
    RunConfig { services, ..other.clone() }
}

fn service(told: &wire::ServiceConfig, other: Option<&ServiceConfig>) -> ServiceConfig {
    let mut service = other.cloned().unwrap_or_else(|| {
        let source = Source {
            command: Vec::new(),
            directory: None,
            variables: Vec::new(),
            env_files: Vec::new(),
            identity: Identity::default(),
            messages: false,
            handoff: Handoff::Auto,
            node_fork: false,
        };
        ServiceConfig::new(told.name.clone(), source)
    });
    let source = &mut service.source;
    let words = source.command.iter().map(|word| word.to_string_lossy());
    if !words.eq(told.command.iter().map(String::as_str)) {
        source.command = told.command.iter().map(OsString::from).collect();
    }
    let same_path = |path: &PathBuf, told: &String| path.to_string_lossy() == told.as_str();
    if source.directory.as_ref().map(|path| path.to_string_lossy()).as_deref()
        != told.directory.as_deref()
    {
        source.directory = told.directory.as_ref().map(PathBuf::from);
    }
    let files = source.env_files.iter().zip(&told.env_files);
    if source.env_files.len() != told.env_files.len()
        || files.into_iter().any(|(path, told)| !same_path(path, told))
    {
        source.env_files = told.env_files.iter().map(PathBuf::from).collect();
    }
    let names: BTreeSet<&str> = source.variables.iter().map(|(name, _)| name.as_str()).collect();
    if names != told.env.iter().map(String::as_str).collect() {
        source.variables = told.env.iter().map(|name| (name.clone(), String::new())).collect();
    }
    if let Ok(handoff) = told.handoff.parse() {
        source.handoff = handoff;
    }
    source.node_fork = told.node_fork;
    source.identity.user = told.user.as_ref().and_then(|user| user.parse().ok());
    source.identity.group = told.group.as_ref().and_then(|group| group.parse().ok());
    source.messages = told.messages;
    // How many `auto` is, only the daemon knows.
    if matches!(service.workers, Workers::Count(_)) {
        service.workers = Workers::Count(told.workers);
    }
    let sockets = told.listen.iter().filter_map(|text| text.parse::<SocketSpec>().ok());
    service.sockets = sockets.collect();
    if let Ok(ready) = values::ready_when(&told.ready) {
        service.ready = ready;
    }
    let timeout = seconds(told.ready_timeout);
    if timeout.abs_diff(service.ready_timeout) >= SAME_TIME {
        service.ready_timeout = timeout;
    }
    if let Ok(balance) = told.balance.parse() {
        service.balance = balance;
    }
    if let Ok(on_failing) = told.on_failing.parse() {
        service.on_failing = on_failing;
    }
    if let Ok(before_stop) = values::before_stop(&told.before_stop) {
        service.before_stop = before_stop;
    }
    if let Ok(keepalive) = told.keepalive.parse() {
        service.keepalive = keepalive;
    }
    if let Ok(surge) = values::surge(&told.surge) {
        service.surge = surge;
    }
    prove(&mut service, told);
    stop(&mut service, &told.stop);
    service.depends_on.clone_from(&told.depends_on);
    service.bind_to.clone_from(&told.bind_to);
    service
}

fn prove(service: &mut ServiceConfig, told: &wire::ServiceConfig) {
    let percent = told.canary.as_ref().and_then(|canary| canary.parse::<Percent>().ok());
    let time = told.canary_for.map_or(CANARY_FOR, seconds);
    let time = service
        .canary
        .map(|canary| canary.time)
        .filter(|other| other.abs_diff(time) < SAME_TIME)
        .unwrap_or(time);
    service.canary = percent.map(|Percent(percent)| Canary { percent, time });
    let probation = seconds(told.probation);
    if probation.abs_diff(service.probation) >= SAME_TIME {
        service.probation = probation;
    }
}

/// The steps are told with their waits, and which of these is the drain timeout is not: other waits
/// of the same signals are taken for another one.
fn stop(service: &mut ServiceConfig, told: &[wire::StopStep]) {
    let ladder = service.stop.ladder(service.drain_timeout);
    let steps: Vec<_> = (0..).map_while(|rung| ladder.step(rung)).collect();
    let names = || told.iter().map(|step| step.signal.as_str());
    if !steps.iter().map(|step| step.signal.name()).eq(names()) {
        if let Ok(stop) = names().collect::<Vec<_>>().join(",").parse() {
            service.stop = stop;
        }
        return;
    }
    let other = steps
        .iter()
        .zip(told)
        .find(|(step, told)| step.wait.abs_diff(seconds(told.wait)) >= SAME_TIME);
    if let Some((_, told)) = other {
        service.drain_timeout = seconds(told.wait);
    }
}

/// What cannot be a time is none.
fn seconds(told: f64) -> Duration {
    Duration::try_from_secs_f64(told).unwrap_or_default()
}
