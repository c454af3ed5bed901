//! From what stands in shepherd.yaml to what is to be done, with everything that is right alone and
//! wrong together.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::addresses::overlap;
use super::diagnostic::{Mistake, Mistakes, Report, Span, nearest};
use super::env_file::is_name;
use super::identity::{Identity, Limit, Resource};
use super::interpolate::{Variables, interpolate};
use super::kinds::{Amount, Named};
use super::reader::{At, OneOrMany, Places, Read};
use super::run::{Name, RunConfig, RunConfigError};
use super::schema;
use super::service::{
    CANARY_FOR, DispatchMistake, ServiceConfig, ServiceMistake, Source, Spelling, Waits,
};
use super::socket::{Address, SocketSpec, Transport, UNIX_PATH_BYTES_MAX};
use super::upstreams::{Upstreams, UpstreamsFile};
use super::values::{self, ValueError};
use super::yaml;
use crate::core::policy::{BeforeStop, Canary, Check, CheckPace, KeepAlive, ReadyWhen, Surge};

/// A file that was read without a mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileConfig {
    /// What it asks for.
    pub config: RunConfig,
    /// Where the parts of the services stand, in the same order.
    pub places: Vec<ServicePlaces>,
}

/// Where the parts of a service stand, for mistakes that are known later.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServicePlaces {
    /// Its name.
    pub name: Span,
    /// Its keys.
    keys: Places,
    /// The single values that are looked up later, by their key.
    values: Vec<(&'static str, Span)>,
    /// Its files of variables, in order.
    pub env_files: Vec<Span>,
    /// Its sockets, in order.
    pub sockets: Vec<Span>,
    /// The services that it needs, by name.
    needs: Vec<(String, Span)>,
}

impl ServicePlaces {
    /// Where the value of a key stands, or the name of the service if it has none.
    #[must_use]
    pub fn of(&self, key: &str) -> Span {
        let value = self.values.iter().find(|(name, _)| *name == key).map(|(_, at)| *at);
        value.or_else(|| self.keys.of(key)).unwrap_or(self.name)
    }

    fn need(&self, service: &str) -> Span {
        let need = self.needs.iter().find(|(name, _)| name == service);
        need.map_or(self.name, |(_, at)| *at)
    }
}

/// A file, before it is read.
#[derive(Debug, Clone, Copy)]
pub struct ConfigFile<'a> {
    /// Where it is. Relative paths in it begin at its directory.
    pub path: &'a Path,
    /// What people call it.
    pub shown: &'a str,
    /// What is in it.
    pub text: &'a [u8],
}

/// Reads a file.
///
/// # Errors
///
/// All mistakes.
pub fn read(read: ConfigFile<'_>, variables: &Variables) -> Result<FileConfig, Report> {
    let ConfigFile { path, shown, text: bytes } = read;
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let what = "this is not UTF-8; save the file as UTF-8";
            let mistake = Mistake::new(Span::at(good.len()), what);
            return Err(Report::new(shown, &good, mistake.into()));
        }
    };
    let mut mistakes = Mistakes::default();
    let config = file(path, text, variables, &mut mistakes);
    match config {
        Some(config) if mistakes.is_empty() => Ok(config),
        Some(_) | None => Err(Report::new(shown, text, mistakes)),
    }
}

fn file(
    path: &Path,
    text: &str,
    variables: &Variables,
    mistakes: &mut Mistakes,
) -> Option<FileConfig> {
    let mut node = match yaml::parse(text) {
        Ok(Some(node)) if node.is != yaml::Is::Nothing => node,
        Ok(_) => {
            let what = "the file is empty; write `services:`, below it the name of a service, and \
                        below that `command: ./server`";
            mistakes.add(Span::at(0), what);
            return None;
        }
        Err(mistake) => {
            mistakes.push(mistake);
            return None;
        }
    };
    interpolate(&mut node, text, variables, mistakes);
    let file = schema::File::read(&node, mistakes)?;
    let base = path.parent().filter(|base| !base.as_os_str().is_empty());
    let Some(services) = file.services else {
        if file.places.of("services").is_none() {
            let what = "there are no services; write `services:`, below it the name of one, and \
                        below that `command: ./server`";
            mistakes.add(Span::at(node.at.start), what);
        }
        return None;
    };
    let place = services.at;
    let (services, places): (Vec<ServiceConfig>, Vec<ServicePlaces>) = services
        .is
        .0
        .into_iter()
        .filter_map(|(name, service)| Some(resolve(name, service?.is, base, mistakes)))
        .unzip();
    let name = match (file.name, services.as_slice()) {
        (Some(At { is, .. }), _) => Name::Explicit(is.0),
        (None, [service]) => Name::Implicit(service.name.clone()),
        (None, _) => {
            let base = base.and_then(Path::file_name).unwrap_or("shepherd".as_ref());
            Name::Implicit(values::implicit_name(&base.to_string_lossy()))
        }
    };
    let config = RunConfig {
        name,
        services,
        admin: file.admin.map(|address| address.is),
        lame_duck: file.lame_duck.map(|time| time.is.0).unwrap_or_default(),
        logs: file.logs.map(|logs| logs.is),
        control: file.control.map(|path| below(base, path.is.0)),
        pid_file: file.pid_file.map(|path| below(base, path.is.0)),
        file: Some(path.to_owned()),
    };
    together(&config, &places, place, mistakes);
    Some(FileConfig { config, places })
}

/// A relative path begins at the file's directory.
fn below(base: Option<&Path>, path: PathBuf) -> PathBuf {
    match base {
        Some(base) => base.join(path),
        None => path,
    }
}

/// Where values stand that may be wrong together with others.
fn value_places(service: &schema::Service) -> Vec<(&'static str, Span)> {
    let places: [(&'static str, Option<Span>); 10] = [
        ("command", service.command.as_ref().map(|command| command.at)),
        ("directory", service.directory.as_ref().map(|directory| directory.at)),
        ("user", service.user.as_ref().map(|user| user.at)),
        ("group", service.group.as_ref().map(|group| group.at)),
        ("groups", service.groups.as_ref().map(|groups| groups.at)),
        ("upstreams", service.upstreams.as_ref().map(|upstreams| upstreams.at)),
        ("ready", service.ready.as_ref().map(|ready| ready.at)),
        ("handoff", service.handoff.as_ref().map(|handoff| handoff.at)),
        ("balance", service.balance.as_ref().map(|balance| balance.at)),
        ("on_failing", service.on_failing.as_ref().map(|it| it.at)),
    ];
    places.into_iter().filter_map(|(key, at)| Some((key, at?))).collect()
}

fn resolve(
    name: At<String>,
    service: schema::Service,
    base: Option<&Path>,
    mistakes: &mut Mistakes,
) -> (ServiceConfig, ServicePlaces) {
    if let Err(error) = values::service_name(&name.is) {
        mistakes.add(name.at, &error.to_string());
    }
    if service.places.of("command").is_none() {
        let what =
            format!("service `{}` has no command; write `command: ./server` below it", name.is);
        mistakes.add(name.at, &what);
    }
    let values = value_places(&service);
    let mut places =
        ServicePlaces { name: name.at, keys: service.places, values, ..ServicePlaces::default() };
    let mut at = |key, place: Option<Span>| places.values.extend(place.map(|at| (key, at)));
    let (before_stop, keepalive) = resolve_drain(service.drain, &mut at);
    let (surge, canary, probation) = resolve_reload(service.reload, &mut at, mistakes);
    let variables = service.env.map(|env| env.is.0).unwrap_or_default();
    for (variable, _) in &variables {
        if !is_name(&variable.is) {
            let what = format!(
                "`{}` is no name for a variable; write letters, digits and `_`, no digit first",
                variable.is
            );
            mistakes.add(variable.at, &what);
        }
    }
    let env_files = service.env_file.map(|files| files.is.0).unwrap_or_default();
    places.env_files = env_files.iter().map(|file| file.at).collect();
    let limits = service.limits.map(|limits| limits.is.0).unwrap_or_default();
    let limits: Vec<Limit> =
        limits.into_iter().filter_map(|(name, amount)| limit(&name, amount, mistakes)).collect();
    let sockets = service.listen.map(|listen| listen.is.0).unwrap_or_default();
    let sockets: Vec<At<SocketSpec>> = sockets
        .into_iter()
        .map(|At { at, is }| At { at, is: placed(is.0, base, at, mistakes) })
        .collect();
    places.sockets = sockets.iter().map(|socket| socket.at).collect();
    // One that is missing or wrong was told of, and what else is wrong is looked for all the same.
    let command = service.command.map(|command| command.is.0).unwrap_or_default();
    let source = Source {
        command: command.into_iter().map(OsString::from).collect(),
        directory: match service.directory {
            Some(directory) => Some(below(base, directory.is.0)),
            None => base.map(Path::to_owned),
        },
        variables: variables
            .into_iter()
            .filter_map(|(name, value)| Some((name.is, value?.is.0)))
            .collect(),
        env_files: env_files.into_iter().map(|file| below(base, file.is.0)).collect(),
        identity: Identity {
            user: service.user.map(|user| user.is),
            group: service.group.map(|group| group.is),
            groups: service.groups.map(|groups| groups.is.0),
            umask: service.umask.map(|umask| umask.is),
            nice: service.nice.map(|nice| nice.is.0),
            no_new_privileges: service.no_new_privs.is_some_and(|flag| flag.is.0),
            limits,
        },
        messages: service.messages.is_some_and(|flag| flag.is.0),
        handoff: service.handoff.map(|handoff| handoff.is).unwrap_or_default(),
        node_fork: service.node.and_then(|node| node.is.fork).is_some_and(|fork| fork.is.0),
    };
    let mut needs = |names: Option<At<OneOrMany<Named>>>| -> Vec<String> {
        let names = names.map(|names| names.is.0).unwrap_or_default();
        places.needs.extend(names.iter().map(|name| (name.is.0.clone(), name.at)));
        names.into_iter().map(|name| name.is.0).collect()
    };
    let (depends_on, bind_to) = (needs(service.depends_on), needs(service.bind_to));
    let upstreams = service.upstreams.and_then(|it| resolve_upstreams(it, base, mistakes));
    let default = ServiceConfig::new(name.is, source);
    let config = ServiceConfig {
        workers: service.workers.map_or(default.workers, |workers| workers.is),
        sockets: sockets.into_iter().map(|socket| socket.is).collect(),
        ready: service.ready.map_or(default.ready, |ready| ready.is.0),
        ready_timeout: service.ready_timeout.map_or(default.ready_timeout, |time| time.is.0),
        check_pace: CheckPace {
            interval: service.ready_interval.map_or(default.check_pace.interval, |time| time.is.0),
            timeout: service
                .ready_probe_timeout
                .map_or(default.check_pace.timeout, |time| time.is.0),
        },
        stop: service.stop.map_or(default.stop, |stop| stop.is.0),
        balance: service.balance.map_or(default.balance, |balance| balance.is),
        on_failing: service.on_failing.map_or(default.on_failing, |it| it.is),
        surge: surge.unwrap_or(default.surge),
        canary: canary.or(default.canary),
        probation: probation.unwrap_or(default.probation),
        before_stop: before_stop.map_or(default.before_stop, |time| time.is),
        keepalive: keepalive.map_or(default.keepalive, |keepalive| keepalive.is),
        drain_timeout: service.drain_timeout.map_or(default.drain_timeout, |time| time.is.0),
        upstreams,
        depends_on,
        bind_to,
        ..default
    };
    (config, places)
}

/// What a worker is given before its stop, and what becomes of its idle connections meanwhile.
fn resolve_drain(
    drain: Option<At<schema::DrainKeys>>,
    at: &mut impl FnMut(&'static str, Option<Span>),
) -> (Option<At<BeforeStop>>, Option<At<KeepAlive>>) {
    let drain = drain.map(|drain| (drain.is.before_stop, drain.is.keepalive));
    let (before_stop, keepalive) = drain.unwrap_or_default();
    at("drain.before_stop", before_stop.as_ref().map(|time| time.at));
    at("drain.keepalive", keepalive.as_ref().map(|keepalive| keepalive.at));
    (before_stop, keepalive)
}

/// How a new generation takes the place of another and proves itself. A time without a part is told
/// of.
fn resolve_reload(
    reload: Option<At<schema::ReloadKeys>>,
    at: &mut impl FnMut(&'static str, Option<Span>),
    mistakes: &mut Mistakes,
) -> (Option<Surge>, Option<Canary>, Option<Duration>) {
    let Some(reload) = reload else { return (None, None, None) };
    let schema::ReloadKeys { places, surge, canary, canary_for, probation } = reload.is;
    at("reload.canary", canary.as_ref().map(|canary| canary.at));
    if let (None, Some(time)) = (places.of("canary"), &canary_for) {
        let what = "`canary_for` says for how long a new generation gets a part of new connections, \
                    and not what part; write `canary: 5%` beside it";
        mistakes.add(time.at, what);
    }
    let time = canary_for.map_or(CANARY_FOR, |time| time.is.0);
    let canary = canary.map(|percent| Canary { percent: percent.is.0, time });
    (surge.map(|surge| surge.is), canary, probation.map(|time| time.is.0))
}

/// What is missing is told of.
fn resolve_upstreams(
    upstreams: At<schema::UpstreamsKeys>,
    base: Option<&Path>,
    mistakes: &mut Mistakes,
) -> Option<Upstreams> {
    let At { at, is: schema::UpstreamsKeys { places, format, path, reload } } = upstreams;
    for key in ["format", "path", "reload"] {
        if places.of(key).is_none() {
            let what = format!(
                "`upstreams` has no `{key}`; write all of `format`, `path` and `reload` below it"
            );
            mistakes.add(at, &what);
        }
    }
    let file = UpstreamsFile { format: format?.is, path: below(base, path?.is.0) };
    Some(Upstreams { file, reload: reload?.is.0 })
}

fn limit(name: &At<String>, amount: Option<At<Amount>>, mistakes: &mut Mistakes) -> Option<Limit> {
    let names = Resource::ALL.map(Resource::name);
    if !names.contains(&name.is.as_str()) {
        let step = match nearest(&name.is, names) {
            Some(near) => format!("write `{near}`"),
            None => format!("there are {}", names.join(", ")),
        };
        mistakes.add(name.at, &format!("`{}` is nothing that can be limited; {step}", name.is));
        return None;
    }
    let At { at, is: Amount(amount) } = amount?;
    let equals = format!("{}=", name.is);
    let limit = format!("{equals}{amount}").parse::<Limit>();
    let key = |error: ValueError| error.to_string().replace(&equals, &format!("{}: ", name.is));
    limit.map_err(|error| mistakes.add(at, &key(error))).ok()
}

/// A socket whose path, if it has one, begins at the file's directory.
fn placed(spec: SocketSpec, base: Option<&Path>, at: Span, mistakes: &mut Mistakes) -> SocketSpec {
    let Address::Unix(path) = spec.address else { return spec };
    let path = below(base, path);
    if path.as_os_str().len() > UNIX_PATH_BYTES_MAX {
        let what = format!(
            "the path `{}` has {} bytes, and at most {} fit; choose a shorter one",
            path.display(),
            path.as_os_str().len(),
            UNIX_PATH_BYTES_MAX
        );
        mistakes.add(at, &what);
    }
    SocketSpec { address: Address::Unix(path), ..spec }
}

/// What is wrong although each value is right.
fn together(config: &RunConfig, places: &[ServicePlaces], services: Span, mistakes: &mut Mistakes) {
    let of = |name: &str| {
        let mut all = config.services.iter().zip(places);
        all.find(|(service, _)| service.name == name)
    };
    for (service, places) in config.services.iter().zip(places) {
        if let Some(mistake) = without_socket(service) {
            mistakes.add(places.of("ready"), &mistake.told(Spelling::Keys));
        }
        let together = if service.sockets.is_empty() { service.check_balance() } else { vec![] };
        for mistake in together {
            mistakes.add(place(service, places, &mistake), &mistake.told(Spelling::Keys));
        }
    }
    for error in config.check().err().into_iter().flatten() {
        let message = error.to_string();
        let mistake = match &error {
            RunConfigError::NoService if mistakes.is_empty() => Mistake::new(
                services,
                "there are no services; write the name of one, and below it `command: ./server`",
            ),
            // Those that there are are wrong.
            RunConfigError::NoService => continue,
            RunConfigError::TooManyServices(_)
            | RunConfigError::SameName(_)
            | RunConfigError::Variable(_) => Mistake::new(services, &message),
            RunConfigError::Service { service, mistake, .. } => {
                let at = of(service).map(|(service, places)| place(service, places, mistake));
                Mistake::new(at, &mistake.told(Spelling::Keys))
            }
            RunConfigError::SameSocket { socket, first, second } => {
                let (first, second) = (of(first), of(second));
                same_socket(&message, socket, first, second)
            }
            RunConfigError::NoSuchService { service, missing, nearest } => {
                let at = of(service).map(|(_, places)| places.need(missing));
                let others = config.services.iter().map(|other| other.name.as_str());
                let others: Vec<&str> = others.filter(|other| other != service).collect();
                match (nearest, others.as_slice()) {
                    (Some(_), _) => Mistake::new(at, &message),
                    (None, []) => Mistake::new(at, &format!("{message}; remove this")),
                    (None, others) => {
                        let others = others.join(", ");
                        Mistake::new(at, &format!("{message}; there are {others}"))
                    }
                }
            }
            RunConfigError::Circle(names) => {
                let next = names.get(1).or(names.first()).map(String::as_str).unwrap_or_default();
                let first = names.first().and_then(|name| of(name));
                Mistake::new(first.map(|(_, places)| places.need(next)), &message)
            }
        };
        mistakes.push(mistake);
    }
}

/// Where a mistake of one service is.
fn place(service: &ServiceConfig, places: &ServicePlaces, mistake: &ServiceMistake) -> Span {
    match mistake {
        ServiceMistake::NoSocketToWaitOn
        | ServiceMistake::NoSocketToConnectTo(_)
        | ServiceMistake::Dispatch(DispatchMistake::Probe(_))
        | ServiceMistake::AlwaysLate { .. } => places.of("ready"),
        ServiceMistake::TooManySockets(_) => places.of("listen"),
        ServiceMistake::NoChannel(_) => places.of("handoff"),
        ServiceMistake::NoSocketForSlots
        | ServiceMistake::Dispatch(DispatchMistake::NoSocket | DispatchMistake::Node) => {
            places.of("balance")
        }
        ServiceMistake::NobodyToRefuse => places.of("on_failing"),
        ServiceMistake::NothingSteeredAway { waits: Waits::BeforeStop, .. } => {
            places.of("drain.before_stop")
        }
        ServiceMistake::NothingSteeredAway { waits: Waits::KeepAlive, .. }
        | ServiceMistake::NoTimeForKeepAlive => places.of("drain.keepalive"),
        ServiceMistake::NoPartForCanary { .. } => places.of("reload.canary"),
        ServiceMistake::NoSocketForUpstreams => places.of("upstreams"),
        ServiceMistake::NoPortForSlot { socket, .. }
        | ServiceMistake::PathForUpstreams(socket)
        | ServiceMistake::Dispatch(
            DispatchMistake::NoConnections(socket) | DispatchMistake::OfSlot(socket),
        ) => {
            let mut sockets = service.sockets.iter().zip(&places.sockets);
            let same = sockets.find(|(other, _)| other.place() == *socket);
            same.map_or(places.of("listen"), |(_, &at)| at)
        }
        ServiceMistake::SameName(name) => {
            let mut sockets = service.sockets.iter().zip(&places.sockets).rev();
            let same = sockets.find(|(socket, _)| {
                socket.name.as_ref().is_some_and(|other| other.as_str() == name)
            });
            same.map_or(places.of("listen"), |(_, &at)| at)
        }
    }
}

type Placed<'a> = Option<(&'a ServiceConfig, &'a ServicePlaces)>;

/// Shows both sockets.
fn same_socket(message: &str, socket: &str, first: Placed<'_>, second: Placed<'_>) -> Mistake {
    let sockets = |placed: Placed<'_>| -> Vec<(SocketSpec, Span)> {
        let placed = placed.into_iter().flat_map(|(service, places)| {
            service.sockets.iter().cloned().zip(places.sockets.iter().copied())
        });
        placed.collect()
    };
    // The last that is written so: an earlier one of the same text is what it stands in the way of.
    let later = sockets(second).into_iter().rev().find(|(later, _)| later.place() == socket);
    let Some((later, at)) = later else { return Mistake::new(None, message) };
    let earlier = sockets(first)
        .into_iter()
        .find(|(earlier, place)| *place != at && overlap(earlier, &later));
    match earlier {
        Some((_, earlier)) => Mistake::new(at, message).beside(earlier, "the other is here"),
        None => Mistake::new(at, message),
    }
}

/// What waits for something of a socket that is not there. A file names all sockets of a service,
/// those too that a service manager hands over.
fn without_socket(service: &ServiceConfig) -> Option<ServiceMistake> {
    let is_stream = |socket: &SocketSpec| socket.transport == Transport::Stream;
    let connects = !service.sockets.iter().any(is_stream);
    match &service.ready {
        ReadyWhen::Listen if service.sockets.is_empty() => Some(ServiceMistake::NoSocketToWaitOn),
        ReadyWhen::Check(Check::Tcp) if connects => {
            Some(ServiceMistake::NoSocketToConnectTo("tcp"))
        }
        ReadyWhen::Check(Check::Http(_)) if connects => {
            Some(ServiceMistake::NoSocketToConnectTo("http"))
        }
        ReadyWhen::Auto
        | ReadyWhen::Notify
        | ReadyWhen::Listen
        | ReadyWhen::Message
        | ReadyWhen::Alive(_)
        | ReadyWhen::Check(_) => None,
    }
}

#[cfg(test)]
mod tests;
