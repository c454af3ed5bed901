//! Configurations for tests.

use std::time::Duration;

use super::{Name, RunConfig};
use crate::config::identity::Identity;
use crate::config::service::{ServiceConfig, Source};
use crate::config::values::{Balance, Handoff, OnFailing, Workers};
use crate::core::policy::{BeforeStop, CheckPace, KeepAlive, ReadyWhen, Surge};

/// A service of one worker.
pub(in crate::config) fn service(name: &str, sockets: &[&str], needs: &[&str]) -> ServiceConfig {
    let wait = Duration::from_secs(30);
    ServiceConfig {
        name: name.to_owned(),
        workers: Workers::Count(1),
        sockets: sockets.iter().map(|text| text.parse().unwrap()).collect(),
        ready: ReadyWhen::Auto,
        ready_timeout: wait,
        check_pace: CheckPace { interval: wait, timeout: wait },
        balance: Balance::default(),
        on_failing: OnFailing::Wait,
        surge: Surge::Auto,
        canary: None,
        probation: Duration::ZERO,
        before_stop: BeforeStop::Auto,
        keepalive: KeepAlive::default(),
        stop: "TERM".parse().unwrap(),
        drain_timeout: wait,
        upstreams: None,
        source: Source {
            command: vec!["true".into()],
            directory: None,
            variables: Vec::new(),
            env_files: Vec::new(),
            identity: Identity::default(),
            messages: false,
            handoff: Handoff::Auto,
            node_fork: false,
        },
        depends_on: needs.iter().map(|&name| name.to_owned()).collect(),
        bind_to: Vec::new(),
    }
}

/// These services, as a file has them.
pub(in crate::config) fn config(services: Vec<ServiceConfig>) -> RunConfig {
    RunConfig {
        name: Name::Implicit("shop".to_owned()),
        services,
        admin: None,
        lame_duck: Duration::ZERO,
        logs: None,
        control: None,
        pid_file: None,
        file: Some("/srv/shop/shepherd.yaml".into()),
    }
}
