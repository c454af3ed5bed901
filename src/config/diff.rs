//! What a configuration changes about another, as data: a reload applies it, and whoever wants to know
//! beforehand is shown it. Services are the same by their names, sockets of a service by name,
//! transport and address.

use std::collections::BTreeSet;
use std::fmt;

use super::run::{Name, RunConfig};
use super::service::{CANARY_FOR, ServiceConfig};
use super::socket::SocketSpec;

/// What differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// All services: those of the new configuration in its order, and then those that are gone.
    pub services: Vec<ServiceDifference>,
    /// Keys of the daemon itself whose values differ; they take effect when it is started anew.
    pub at_restart: Vec<&'static str>,
}

/// What becomes of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceDifference {
    /// Its name.
    pub name: String,
    /// What differs.
    pub change: Change,
    /// Its sockets: those of the new configuration in its order, and then those that are gone.
    pub sockets: Vec<SocketDifference>,
}

/// How a service differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is new: it is started.
    Added,
    /// It is gone: it is stopped.
    Removed,
    /// The values of these keys differ: it is reloaded.
    Changed(Vec<&'static str>),
    /// Nothing does: it is reloaded all the same, since its program may be another.
    Unchanged,
}

/// What becomes of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketDifference {
    /// Name and place, as it is written.
    pub socket: String,
    /// What becomes of it.
    pub fate: SocketFate,
}

/// What becomes of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketFate {
    /// It is new: it is bound before anything starts.
    Bound,
    /// It is gone: it is closed once the last worker that has it is gone.
    Closed,
    /// It stays as it is.
    Kept,
    /// It stays, and has other options.
    KeptWithOtherOptions,
}

impl Difference {
    /// What `new` changes about `old`.
    #[must_use]
    pub fn between(old: &RunConfig, new: &RunConfig) -> Difference {
        let known = new.services.iter().map(|service| {
            let before = old.service(&service.name);
            ServiceDifference {
                name: service.name.clone(),
                change: match before {
                    None => Change::Added,
                    Some(before) => match keys(before, service) {
                        keys if keys.is_empty() => Change::Unchanged,
                        keys => Change::Changed(keys),
                    },
                },
                sockets: sockets(before.map(|it| &it.sockets[..]).unwrap_or_default(), service),
            }
        });
        let gone = old.services.iter().filter(|service| new.service(&service.name).is_none());
        let gone = gone.map(|service| ServiceDifference {
            name: service.name.clone(),
            change: Change::Removed,
            sockets: service.sockets.iter().map(|it| fate(it, SocketFate::Closed)).collect(),
        });
        let services = known.chain(gone).collect();
        Difference { services, at_restart: at_restart(old, new) }
    }

    /// Whether all stays as it is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.at_restart.is_empty()
            && self.services.iter().all(|service| service.change == Change::Unchanged)
    }
}

/// Whether a specification asks for the socket that another asked for.
#[must_use]
pub fn is_same_socket(a: &SocketSpec, b: &SocketSpec) -> bool {
    (&a.name, a.transport, &a.address, a.slots) == (&b.name, b.transport, &b.address, b.slots)
}

fn sockets(before: &[SocketSpec], service: &ServiceConfig) -> Vec<SocketDifference> {
    // One that is asked for twice, as port 0 can be, is the same as one of the others only.
    let mut left: Vec<&SocketSpec> = before.iter().collect();
    let mut sockets = Vec::new();
    for socket in &service.sockets {
        let same = left.iter().position(|other| is_same_socket(other, socket));
        let was = same.map(|index| left.remove(index));
        sockets.push(fate(
            socket,
            match was {
                None => SocketFate::Bound,
                Some(was) if was.options == socket.options => SocketFate::Kept,
                Some(_) => SocketFate::KeptWithOtherOptions,
            },
        ));
    }
    sockets.extend(left.into_iter().map(|socket| fate(socket, SocketFate::Closed)));
    sockets
}

fn fate(socket: &SocketSpec, fate: SocketFate) -> SocketDifference {
    let name = socket.name.as_ref().map(|name| format!("{name}=")).unwrap_or_default();
    SocketDifference { socket: format!("{name}{}", socket.place()), fate }
}

/// The keys whose values differ, as they are written in a file.
fn keys(old: &ServiceConfig, new: &ServiceConfig) -> Vec<&'static str> {
    let (a, b) = (&old.source, &new.source);
    let percent = |service: &ServiceConfig| service.canary.map(|canary| canary.percent);
    // Where there is no canary, its time is that of any.
    let canary_for = |service: &ServiceConfig| service.canary.map_or(CANARY_FOR, |it| it.time);
    let names = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
    [
        ("command", a.command != b.command),
        ("workers", old.workers != new.workers),
        ("listen", old.sockets != new.sockets),
        ("env", a.variables != b.variables),
        ("env_file", a.env_files != b.env_files),
        ("directory", a.directory != b.directory),
        ("user", a.identity.user != b.identity.user),
        ("group", a.identity.group != b.identity.group),
        ("groups", a.identity.groups != b.identity.groups),
        ("umask", a.identity.umask != b.identity.umask),
        ("nice", a.identity.nice != b.identity.nice),
        ("no_new_privs", a.identity.no_new_privileges != b.identity.no_new_privileges),
        ("limits", a.identity.limits != b.identity.limits),
        ("messages", a.messages != b.messages),
        ("handoff", a.handoff != b.handoff),
        ("node.fork", a.node_fork != b.node_fork),
        ("ready", old.ready != new.ready),
        ("ready_timeout", old.ready_timeout != new.ready_timeout),
        ("ready_interval", old.check_pace.interval != new.check_pace.interval),
        ("ready_probe_timeout", old.check_pace.timeout != new.check_pace.timeout),
        ("balance", old.balance != new.balance),
        ("on_failing", old.on_failing != new.on_failing),
        ("drain.before_stop", old.before_stop != new.before_stop),
        ("drain.keepalive", old.keepalive != new.keepalive),
        ("reload.surge", old.surge != new.surge),
        ("reload.canary", percent(old) != percent(new)),
        ("reload.canary_for", canary_for(old) != canary_for(new)),
        ("reload.probation", old.probation != new.probation),
        ("stop", old.stop != new.stop),
        ("drain_timeout", old.drain_timeout != new.drain_timeout),
        ("upstreams", old.upstreams != new.upstreams),
        ("depends_on", names(&old.depends_on) != names(&new.depends_on)),
        ("bind_to", names(&old.bind_to) != names(&new.bind_to)),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}

fn at_restart(old: &RunConfig, new: &RunConfig) -> Vec<&'static str> {
    // A name that is varied stays what it is.
    let is_renamed = old.name != new.name && matches!(new.name, Name::Explicit(_));
    [
        ("name", is_renamed),
        ("admin", old.admin != new.admin),
        ("logs", old.logs != new.logs),
        ("control", old.control != new.control),
        ("pid_file", old.pid_file != new.pid_file),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}

impl fmt::Display for Difference {
    /// In one line, what differs only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return write!(f, "nothing is written otherwise");
        }
        let mut separator = "";
        for service in &self.services {
            let name = &service.name;
            match &service.change {
                Change::Added => write!(f, "{separator}`{name}` is new")?,
                Change::Removed => write!(f, "{separator}`{name}` is gone")?,
                Change::Changed(keys) => {
                    write!(f, "{separator}`{name}` differs in {}", keys.join(", "))?;
                }
                Change::Unchanged => continue,
            }
            separator = "; ";
        }
        match self.at_restart.as_slice() {
            [] => Ok(()),
            keys => write!(f, "{separator}{} of the daemon itself", keys.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::run::testing::{config, service};
    use crate::config::upstreams::{Format, Upstreams, UpstreamsFile};
    use crate::config::values::{Balance, Workers};
    use crate::core::policy::{BeforeStop, Canary, OnFailing, Surge};

    #[test]
    fn services_are_told_apart_by_name_and_sockets_by_name_and_place() {
        let old = config(vec![
            service("db", &["unix:/run/db.sock"], &[]),
            service("web", &["8000", "admin=8001,backlog=9", "udp:53"], &["db"]),
            service("old", &["9000"], &[]),
        ]);
        let web = ServiceConfig {
            workers: Workers::Count(4),
            ..service("web", &["admin=8001,backlog=10", "8000", "www=80"], &["db"])
        };
        let new = config(vec![
            service("cache", &["0", "0"], &[]),
            web,
            service("db", &["unix:/run/db.sock"], &[]),
        ]);
        let difference = Difference::between(&old, &new);
        let told = |service: &ServiceDifference| {
            let sockets = service.sockets.iter().map(|it| format!("{} {:?}", it.socket, it.fate));
            format!(
                "{} {:?}: {}",
                service.name,
                service.change,
                sockets.collect::<Vec<_>>().join(", ")
            )
        };
        assert_eq!(
            difference.services.iter().map(told).collect::<Vec<_>>(),
            [
                "cache Added: 0 Bound, 0 Bound",
                "web Changed([\"workers\", \"listen\"]): admin=8001 KeptWithOtherOptions, \
                 8000 Kept, www=80 Bound, udp:53 Closed",
                "db Unchanged: unix:/run/db.sock Kept",
                "old Removed: 9000 Closed",
            ]
        );
        assert_eq!(
            difference.to_string(),
            "`cache` is new; `web` differs in workers, listen; `old` is gone"
        );
        assert!(Difference::between(&new, &new).is_empty());
    }

    #[test]
    fn each_key_that_differs_is_named_once() {
        let old = config(vec![service("web", &["8001+{slot}"], &[])]);
        let mut new = old.clone();
        let web = &mut new.services[0];
        web.balance = Balance::Slots;
        web.on_failing = OnFailing::Refuse;
        web.before_stop = BeforeStop::For(Duration::ZERO);
        web.surge = Surge::Count(2);
        web.canary = Some(Canary { percent: 5, time: Duration::from_secs(60) });
        web.probation = Duration::from_secs(1);
        let (format, path) = (Format::Nginx, "/etc/web.conf".into());
        let file = UpstreamsFile { format, path };
        web.upstreams = Some(Upstreams { file, reload: "true".to_owned() });
        let told = "`web` differs in balance, on_failing, drain.before_stop, reload.surge, reload.canary, \
                    reload.canary_for, reload.probation, upstreams";
        assert_eq!(Difference::between(&old, &new).to_string(), told);
    }

    #[test]
    fn what_belongs_to_the_daemon_waits_for_its_restart() {
        let old = config(vec![service("web", &[], &[])]);
        let mut new = old.clone();
        new.pid_file = Some("/run/web.pid".into());
        new.name = Name::Implicit("other".to_owned());
        assert_eq!(Difference::between(&old, &new).at_restart, ["pid_file"]);
    }
}
