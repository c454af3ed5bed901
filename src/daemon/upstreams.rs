//! The proxies in front of services: their files are replaced, and then their commands run. The core
//! says when, one round of a service at a time.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use crate::config::socket::SocketSpec;
use crate::config::upstreams::{Upstreams, UpstreamsFile};
use crate::core::event::{Event, Exit};
use crate::core::ids::{GenerationId, ServiceId, SlotId};
use crate::os::command::Command;
use crate::os::definition;
use crate::os::limits;
use crate::os::processes::UPSTREAMS;
use crate::os::replace_file::Replacing;
use crate::os::spawn::{self, Environment, Plan};
use crate::protocol::outcome::Outcome;

use super::event_loop::{Daemon, Token};
use super::perform;

/// How long the end waits for a file that is being written: disks take their time, and what hangs
/// may keep its unfinished file.
const FINISH_WAIT: Duration = Duration::from_secs(2);

/// A proxy: what it is told, and where it reaches the service.
pub(super) struct Proxy {
    pub(super) upstreams: Upstreams,
    pub(super) socket: SocketSpec,
}

/// The rounds that are under way.
#[derive(Default)]
pub(super) struct Publishers(BTreeMap<ServiceId, Publisher>);

/// How far a round is, and what is left of the one before.
#[derive(Default)]
struct Publisher {
    /// Who is told in this round.
    proxy: Option<Rc<Proxy>>,
    /// The number of the round whose answer is waited for.
    number: Option<u64>,
    /// A file that is being written, maybe by a round that was given up.
    writing: Option<Replacing>,
    /// What is to be written after that.
    next: Option<String>,
    command: Option<Command>,
}

impl Daemon {
    /// Begins to tell a proxy which slots are ready.
    pub(super) fn publish(
        &mut self,
        service: ServiceId,
        generation: GenerationId,
        number: u64,
        slots: &[SlotId],
    ) {
        let publisher = self.publishers.0.entry(service).or_default();
        if let Some(proxy) = self.parts.services.proxies.get(&(service, generation)) {
            publisher.proxy = Some(Rc::clone(proxy));
        }
        let Some(Proxy { upstreams, socket }) = publisher.proxy.as_deref() else {
            return;
        };
        let name = self.parts.services.names.get(&service).map(String::as_str).unwrap_or_default();
        let slots = slots.iter().map(|slot| slot.0);
        let text = upstreams.file.format.file(name, socket, slots);
        publisher.number = Some(number);
        publisher.next = Some(text);
        self.continue_publish(service);
    }

    /// The file of a proxy is written, or its command has said something.
    pub(super) fn continue_publish(&mut self, service: ServiceId) {
        let Some(publisher) = self.publishers.0.get_mut(&service) else { return };
        let Some(proxy) = publisher.proxy.clone() else { return };
        if let Some(output) = publisher.command.as_mut().and_then(Command::read) {
            self.parts.reactor.remove(&output);
        }
        let written = match publisher.writing.as_ref().map(Replacing::take_outcome) {
            // It hangs: what comes next is written after it, so that it is what stays.
            Some(None) => return,
            Some(Some(outcome)) => {
                if let Some(writing) = publisher.writing.take() {
                    self.parts.reactor.remove(&writing);
                }
                Some(outcome)
            }
            None => None,
        };
        let UpstreamsFile { path, .. } = &proxy.upstreams.file;
        let failed = |error: io::Error| format!("cannot write `{}`: {error}", path.display());
        if let Some(text) = publisher.next.take() {
            match Replacing::begin(path.clone(), text) {
                Ok(writing) => {
                    let token = Token::Upstreams(service).encode();
                    if let Err(error) = self.parts.reactor.add(&writing, token) {
                        // Its time passes, and the next round finds what came of it.
                        tracing::warn!("cannot watch `{}`: {error}", path.display());
                    }
                    publisher.writing = Some(writing);
                }
                Err(error) => {
                    let failure = failed(error);
                    self.answer_publish(service, Some(failure));
                }
            }
            return;
        }
        match written {
            Some(Ok(())) if publisher.number.is_some() => self.begin_reload_of_proxy(service),
            Some(Err(error)) => {
                let failure = failed(error);
                self.answer_publish(service, Some(failure));
            }
            Some(Ok(())) | None => {}
        }
    }

    fn begin_reload_of_proxy(&mut self, service: ServiceId) {
        let leaf = self.processes.new_command(service);
        let proxy = self.publishers.0.get(&service).and_then(|it| it.proxy.clone());
        let Some(Proxy { upstreams, .. }) = proxy.as_deref() else { return };
        let name = self.parts.services.names.get(&service).map(String::as_str).unwrap_or_default();
        let path = upstreams.file.path.to_string_lossy().into_owned();
        let inherited = definition::inherited();
        let variables = [("SHEPHERD_SERVICE", name), (UPSTREAMS, path.as_str())];
        let plan = self.plan_of_our_own(&inherited, variables);
        let started = definition::here()
            .map_err(|error| ("opening our directory", error))
            .and_then(|here| Command::start(&upstreams.reload, plan, &here, leaf.clone()));
        match started {
            Ok((command, child)) => {
                self.processes.insert_command(service, child, name, &path);
                let token = Token::Upstreams(service).encode();
                if let Some(output) = command.output()
                    && let Err(error) = self.parts.reactor.add(output, token)
                {
                    // It is read when the command has ended.
                    tracing::warn!("cannot watch what a reload of a proxy says: {error}");
                }
                self.publishers.0.entry(service).or_default().command = Some(command);
            }
            Err((step, error)) => {
                self.processes.discard_leaf(leaf);
                let command = &upstreams.reload;
                let remedy = spawn::remedy(&error);
                let failure = format!("cannot run `{command}`: {step}: {error}{remedy}");
                self.answer_publish(service, Some(failure));
            }
        }
    }

    /// What runs beside us, as ourselves, with our environment and these variables.
    fn plan_of_our_own<'a, const N: usize>(
        &self,
        inherited: &'a BTreeMap<Vec<u8>, Vec<u8>>,
        variables: [(&'a str, &'a str); N],
    ) -> Plan<'a> {
        let borrow = |(name, value): (&'a Vec<u8>, &'a Vec<u8>)| {
            (name.as_slice(), Cow::from(value.as_slice()))
        };
        let mut environment: Environment<'a> = inherited.iter().map(borrow).collect();
        // Its output comes to us.
        environment.remove(b"JOURNAL_STREAM".as_slice());
        for (name, value) in variables {
            environment.insert(name.as_bytes(), value.as_bytes().into());
        }
        Plan {
            path: &[],
            arguments: Vec::new(),
            environment,
            limits: limits::for_worker(self.parts.open_files, &[]),
            nice: None,
            umask: None,
            credentials: None,
            drops_capabilities: false,
            no_new_privileges: false,
            ends_with: None,
            pinned: true,
        }
    }

    /// The command that reloads a proxy has exited.
    pub(super) fn proxy_reloaded(&mut self, service: ServiceId, how: Exit) {
        let Some(command) =
            self.publishers.0.get_mut(&service).and_then(|publisher| publisher.command.as_mut())
        else {
            return;
        };
        if let Some(output) = command.read() {
            self.parts.reactor.remove(&output);
        }
        let (outcome, said) = (command.outcome(), command.first_line());
        self.drop_command(service);
        let proxy = self.publishers.0.get(&service).and_then(|it| it.proxy.clone());
        let shown = proxy.as_ref().map(|proxy| proxy.upstreams.reload.as_str()).unwrap_or_default();
        let failure = match (outcome, how) {
            (Outcome::Running, Exit::Code(0)) => None,
            (Outcome::Running, how) => {
                let said = said.map(|line| format!(": {line}")).unwrap_or_default();
                Some(format!("`{shown}` {how}{said}"))
            }
            (outcome @ (Outcome::Failed(..) | Outcome::Died(_)), how) => {
                Some(format!("cannot run `{shown}`: {}", perform::explain(outcome, how, None)))
            }
        };
        self.answer_publish(service, failure);
    }

    fn answer_publish(&mut self, service: ServiceId, failure: Option<String>) {
        let publisher = self.publishers.0.get_mut(&service);
        if let Some(number) = publisher.and_then(|publisher| publisher.number.take()) {
            self.events.push_back(Event::Published { service, number, failure });
        }
    }

    /// A round has had its time.
    pub(super) fn end_publish(&mut self, service: ServiceId) {
        if let Some(publisher) = self.publishers.0.get_mut(&service) {
            publisher.number = None;
            publisher.next = None;
        }
        self.drop_command(service);
    }

    fn drop_command(&mut self, service: ServiceId) {
        let publisher = self.publishers.0.get_mut(&service);
        if let Some(command) = publisher.and_then(|publisher| publisher.command.take()) {
            if let Some(output) = command.output() {
                self.parts.reactor.remove(output);
            }
            self.processes.kill_command(service);
        }
    }

    /// Everything ends: nothing half-written stays behind, and no command.
    pub(super) fn finish_publishing(&mut self) {
        for service in self.publishers.0.keys().copied().collect::<Vec<_>>() {
            self.drop_command(service);
        }
        for publisher in self.publishers.0.values() {
            if let Some(writing) = &publisher.writing {
                writing.wait(FINISH_WAIT);
            }
        }
    }
}
