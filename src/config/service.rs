//! What one service is to be, all values read and checked against each other. Plain data.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::identity::Identity;
use super::socket::{Slots, SocketSpec, Transport};
use super::upstreams::{self, Format, Upstreams};
use super::values::{Balance, Handoff, OnFailing, StopSignals, Workers};
use crate::core::policy::{BeforeStop, Canary, Check, CheckPace, KeepAlive, ReadyWhen, Surge};

/// The most sockets of one service: as many as fit into one message of descriptors.
pub const SOCKETS_MAX: usize = 253;

/// How long a new generation gets a part of new connections, where nothing else is said.
pub const CANARY_FOR: Duration = Duration::from_secs(30);

/// A service: its workers, the sockets that they share, and what it needs of other services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Its name, which no other service of the daemon has.
    pub name: String,
    /// How many workers.
    pub workers: Workers,
    /// What they serve on, in order.
    pub sockets: Vec<SocketSpec>,
    /// What counts as ready.
    pub ready: ReadyWhen,
    /// How long they may take to be.
    pub ready_timeout: Duration,
    /// How often they are probed, where a probe is what counts.
    pub check_pace: CheckPace,
    /// How connections find a worker.
    pub balance: Balance,
    /// What becomes of clients while its workers fail again and again.
    pub on_failing: OnFailing,
    /// How many workers of a new generation may run beside the old ones.
    pub surge: Surge,
    /// What share of new connections a new generation gets at first.
    pub canary: Option<Canary>,
    /// How long a new generation may be rolled back by itself; zero is not at all.
    pub probation: Duration,
    /// How long they may finish what they have before they are asked to stop.
    pub before_stop: BeforeStop,
    /// What becomes of idle kept-alive connections meanwhile.
    pub keepalive: KeepAlive,
    /// How they are asked to stop.
    pub stop: StopSignals,
    /// How long they may take to drain.
    pub drain_timeout: Duration,
    /// What a proxy in front is told, and how.
    pub upstreams: Option<Upstreams>,
    /// What they run.
    pub source: Source,
    /// The services that must have been ready once before it starts, by name.
    pub depends_on: Vec<String>,
    /// The same, and it is stopped, started and restarted together with them.
    pub bind_to: Vec<String>,
}

/// What a service runs, as the user gave it. It is read at start and again at each reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The program, and its arguments.
    pub command: Vec<OsString>,
    /// Where it runs; our own directory without it.
    pub directory: Option<PathBuf>,
    /// Variables from the command line; they win over everything.
    pub variables: Vec<(String, String)>,
    /// Files of variables; a later one wins over an earlier one, and all over what we inherited.
    pub env_files: Vec<PathBuf>,
    /// As whom, and within which limits.
    pub identity: Identity,
    /// Whether its workers have a channel for messages.
    pub messages: bool,
    /// How it gets its sockets.
    pub handoff: Handoff,
    /// Whether it is sent them as a program that another one of Node forked.
    pub node_fork: bool,
}

/// What is of use only while new connections go to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// A time before the stop.
    BeforeStop,
    /// The end of idle kept-alive connections in that time.
    KeepAlive,
}

impl Waits {
    fn told(self, spelling: Spelling) -> &'static str {
        match (self, spelling) {
            (Waits::BeforeStop, Spelling::Options) => "`--before-stop`",
            (Waits::BeforeStop, Spelling::Keys) => "`before_stop`",
            (Waits::KeepAlive, Spelling::Options) => "`--keepalive`",
            (Waits::KeepAlive, Spelling::Keys) => "`keepalive`",
        }
    }
}

impl NeedsChannel {
    fn told(self, spelling: Spelling) -> String {
        let (what, without) = match (self, spelling) {
            (NeedsChannel::Ready, Spelling::Options) => ("--ready message", "--handoff fds"),
            (NeedsChannel::Ready, Spelling::Keys) => ("ready: message", "handoff: fds"),
            (NeedsChannel::Fork, Spelling::Options) => ("--node-fork", "--handoff fds"),
            (NeedsChannel::Fork, Spelling::Keys) => ("node.fork", "handoff: fds"),
        };
        format!(
            "`{what}` needs Node's channel, and with `{without}` there is none; take one of these \
             away"
        )
    }
}

/// Values of one service that are right alone and wrong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceMistake {
    /// Nothing could ever be seen.
    NoSocketToWaitOn,
    /// Nothing could ever be connected to, by the probe of this name.
    NoSocketToConnectTo(&'static str),
    /// It would always be late.
    AlwaysLate {
        /// How long a worker is to be alive.
        alive: Duration,
        /// When it is late.
        timeout: Duration,
    },
    /// More than a worker can be given.
    TooManySockets(usize),
    /// The last slot would have no port.
    NoPortForSlot {
        /// The socket, as it was asked for.
        socket: String,
        /// How many slots have one.
        slots_max: u32,
        /// How many there are to be.
        workers: u32,
    },
    /// Its workers could not each have a socket of their own.
    NoSocketForSlots,
    /// None of its clients can be refused.
    NobodyToRefuse,
    /// Whatever is waited for before the stop, more of it would come.
    NothingSteeredAway {
        /// What asks for it.
        waits: Waits,
        /// How connections are to find a worker.
        balance: Balance,
    },
    /// Idle connections are closed before the stop signal, which comes at once.
    NoTimeForKeepAlive,
    /// A new generation would get its share of new connections by chance.
    NoPartForCanary {
        /// How connections are to find a worker.
        balance: Balance,
    },
    /// shepherd could not accept connections for the workers.
    Dispatch(DispatchMistake),
    /// A proxy could be told of no address.
    NoSocketForUpstreams,
    /// A proxy would not understand the path of this socket.
    PathForUpstreams(String),
    /// Two sockets of one name would be told apart by nobody.
    SameName(String),
    /// What this asks for goes over a channel that there is not.
    NoChannel(NeedsChannel),
}

/// What goes over a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeedsChannel {
    /// A message that says that a worker is ready.
    Ready,
    /// Sockets that are sent as to a fork.
    Fork,
}

/// Why connections cannot be accepted and given to workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DispatchMistake {
    /// There is nothing to accept from.
    NoSocket,
    /// Nothing can be accepted from this socket.
    NoConnections(String),
    /// Who comes to this socket has chosen a worker.
    OfSlot(String),
    /// A probe of this name would be given to a worker that is ready already.
    Probe(&'static str),
    /// Nothing is given over Node's channel, by which this asks for the sockets.
    Node,
}

impl DispatchMistake {
    fn told(&self, spelling: Spelling) -> String {
        let (key, mark, socket) = spelling.words();
        let balance = format!("`{key}balance{mark}dispatch`");
        match self {
            DispatchMistake::NoSocket => format!(
                "{balance} accepts connections for the workers, and there is no socket; {socket}, or \
                 take {balance} away"
            ),
            DispatchMistake::NoConnections(place) => format!(
                "{balance} accepts connections for the workers, and `{place}` has none, only \
                 datagrams; give it to a service of its own"
            ),
            DispatchMistake::OfSlot(place) => format!(
                "{balance} chooses a worker for each connection, and who comes to `{place}` has \
                 chosen a slot; take one of these away"
            ),
            DispatchMistake::Node => format!(
                "{balance} gives connections over the descriptor named `dispatch`, which programs of \
                 Node's `cluster` and of `fork` do not know; take {balance} away"
            ),
            DispatchMistake::Probe(probe) => format!(
                "`{key}ready{mark}{probe}` connects to the first socket, and with {balance} whoever \
                 connects is given to a worker that is ready already; use `{key}ready{mark}auto`, \
                 `notify` or `exec:COMMAND`"
            ),
        }
    }
}

/// How the user wrote the configuration, and is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// As options of the command line: `--ready listen`.
    Options,
    /// As keys of a file: `ready: listen`.
    Keys,
}

impl Spelling {
    /// What is before a key and between it and its value, and how a socket is added.
    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Spelling::Options => ("--", " ", "add `-p SOCKET`"),
            Spelling::Keys => ("", ": ", "add one to `listen`"),
        }
    }
}

impl ServiceMistake {
    /// What is wrong and what to do about it, in the words in which it was written.
    #[must_use]
    pub fn told(&self, spelling: Spelling) -> String {
        let (key, mark, socket) = spelling.words();
        match self {
            ServiceMistake::NoSocketToWaitOn => format!(
                "`{key}ready{mark}listen` waits for a worker on its socket, but there is none; \
                 {socket}, or use `{key}ready{mark}notify` or `alive:D`"
            ),
            ServiceMistake::NoSocketToConnectTo(probe) => format!(
                "`{key}ready{mark}{probe}` connects to the first TCP or unix socket, but there is \
                 none; {socket}, or use `{key}ready{mark}notify` or `exec:COMMAND`"
            ),
            ServiceMistake::AlwaysLate { alive, timeout } => {
                let under = match spelling {
                    Spelling::Options => "ready-timeout",
                    Spelling::Keys => "ready_timeout",
                };
                format!(
                    "`{key}ready{mark}alive:{alive:?}` is not shorter than \
                     `{key}{under}{mark}{timeout:?}`, so no worker could get ready; raise the \
                     timeout"
                )
            }
            ServiceMistake::TooManySockets(count) => {
                format!(
                    "{count} sockets are more than the {SOCKETS_MAX} that a worker can be given"
                )
            }
            ServiceMistake::NoPortForSlot { socket, slots_max, workers } => format!(
                "`{socket}` has ports for {slots_max} slots, up to 65535, and {workers} workers \
                 are asked for; begin at a lower port"
            ),
            ServiceMistake::NoSocketForSlots => format!(
                "`{key}balance{mark}slots` needs a TCP or UDP socket, since a unix socket is one for \
                 all workers; {socket}, or take `{key}balance{mark}slots` away"
            ),
            ServiceMistake::NobodyToRefuse => nobody_to_refuse(spelling),
            ServiceMistake::NothingSteeredAway { waits, balance } => {
                let time = waits.told(spelling);
                let needs =
                    format!("{time} needs new connections to go to other workers meanwhile");
                match balance {
                    Balance::Shared => format!(
                        "{needs}, and with `{key}balance{mark}shared` they do not; take one of \
                         these away"
                    ),
                    Balance::Generation | Balance::Slots | Balance::Dispatch(_) => format!(
                        "{needs}, and only those of a TCP or UDP socket do; {socket}, or take \
                         {time} away"
                    ),
                }
            }
            ServiceMistake::NoTimeForKeepAlive => no_time_for_keepalive(spelling),
            ServiceMistake::NoPartForCanary { balance } => {
                let canary = match spelling {
                    Spelling::Options => "`--canary`",
                    Spelling::Keys => "`canary`",
                };
                let gives = format!("{canary} gives a new generation a part of new connections");
                match balance {
                    Balance::Shared => format!(
                        "{gives}, and with `{key}balance{mark}shared` any worker takes any; take \
                         one of these away"
                    ),
                    Balance::Generation | Balance::Slots => format!(
                        "{gives}, and only those of a TCP or UDP socket can be divided; {socket}, \
                         or take {canary} away"
                    ),
                    Balance::Dispatch(_) => format!(
                        "{gives}, and with `{key}balance{mark}dispatch` each worker gets its turn; \
                         take one of these away, or use `{key}probation`"
                    ),
                }
            }
            ServiceMistake::Dispatch(mistake) => mistake.told(spelling),
            ServiceMistake::NoSocketForUpstreams => {
                let socket = match spelling {
                    Spelling::Options => "add `-p 8001+{slot}`",
                    Spelling::Keys => "add `8001+{slot}` to `listen`",
                };
                format!(
                    "`{key}upstreams` tells a proxy the address of each slot, but there is no TCP \
                     or unix socket a slot; {socket}"
                )
            }
            ServiceMistake::PathForUpstreams(socket) => format!(
                "`{key}upstreams` cannot tell a proxy of `{socket}`; use letters, digits and \
                 `/._-` in its path"
            ),
            ServiceMistake::NoChannel(what) => what.told(spelling),
            ServiceMistake::SameName(name) => {
                format!("the name `{name}` is given to two sockets; names tell sockets apart")
            }
        }
    }
}

fn nobody_to_refuse(spelling: Spelling) -> String {
    let (refuse, socket) = match spelling {
        Spelling::Options => ("`--on-failing refuse`", "add one with `-p`"),
        Spelling::Keys => ("`on_failing: refuse`", "add one to `listen`"),
    };
    format!(
        "{refuse} needs a TCP socket: a unix socket that was shut down never listens again, and \
         datagrams are not refused; {socket}, or take {refuse} away"
    )
}

fn no_time_for_keepalive(spelling: Spelling) -> String {
    let (closes, time) = match spelling {
        Spelling::Options => ("`--keepalive close-idle`", "`--before-stop 0s`"),
        Spelling::Keys => ("`keepalive: close-idle`", "`before_stop: 0s`"),
    };
    format!(
        "{closes} closes idle connections before the stop signal, and with {time} that comes at once; \
         take one of these away"
    )
}

impl ServiceConfig {
    /// A service of which no more is said than what it runs.
    #[must_use]
    pub fn new(name: String, source: Source) -> ServiceConfig {
        ServiceConfig {
            name,
            workers: Workers::Count(1),
            sockets: Vec::new(),
            ready: ReadyWhen::Auto,
            ready_timeout: Duration::from_secs(30),
            check_pace: CheckPace {
                interval: Duration::from_secs(1),
                timeout: Duration::from_secs(2),
            },
            balance: Balance::default(),
            on_failing: OnFailing::Wait,
            surge: Surge::default(),
            canary: None,
            probation: Duration::ZERO,
            before_stop: BeforeStop::Auto,
            keepalive: KeepAlive::default(),
            stop: StopSignals::default(),
            drain_timeout: Duration::from_secs(30),
            upstreams: None,
            source,
            depends_on: Vec::new(),
            bind_to: Vec::new(),
        }
    }

    /// Checks the values against each other. Sockets that were handed over are not known here, so
    /// whether there is one to wait on is not looked at.
    ///
    /// # Errors
    ///
    /// Everything that cannot be.
    pub fn check(&self) -> Result<(), Vec<ServiceMistake>> {
        let mut mistakes = Vec::new();
        if self.sockets.len() > SOCKETS_MAX {
            mistakes.push(ServiceMistake::TooManySockets(self.sockets.len()));
        }
        if let Workers::Count(workers) = self.workers {
            mistakes.extend(self.check_slots(workers).err());
        }
        if !self.sockets.is_empty() {
            mistakes.extend(self.check_balance());
        }
        if let Balance::Dispatch(_) = self.balance {
            mistakes.extend(self.check_dispatch());
        }
        let at_once = self.before_stop == BeforeStop::For(Duration::ZERO);
        if self.keepalive == KeepAlive::CloseIdle && at_once {
            mistakes.push(ServiceMistake::NoTimeForKeepAlive);
        }
        if self.upstreams.is_some() {
            match upstreams::socket(&self.sockets) {
                None => mistakes.push(ServiceMistake::NoSocketForUpstreams),
                Some(socket) if !Format::takes(socket) => {
                    mistakes.push(ServiceMistake::PathForUpstreams(socket.place()));
                }
                Some(_) => {}
            }
        }
        if self.source.handoff == Handoff::Fds {
            let ready = (self.ready == ReadyWhen::Message).then_some(NeedsChannel::Ready);
            let fork = self.source.node_fork.then_some(NeedsChannel::Fork);
            mistakes.extend(ready.into_iter().chain(fork).map(ServiceMistake::NoChannel));
        }
        let mut names: Vec<&str> =
            self.sockets.iter().filter_map(|socket| Some(socket.name.as_ref()?.as_str())).collect();
        names.sort_unstable();
        let twice: BTreeSet<&str> =
            names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        mistakes.extend(twice.into_iter().map(|name| ServiceMistake::SameName(name.to_owned())));
        match &self.ready {
            &ReadyWhen::Alive(alive) if alive >= self.ready_timeout => {
                mistakes.push(ServiceMistake::AlwaysLate { alive, timeout: self.ready_timeout });
            }
            ReadyWhen::Alive(_)
            | ReadyWhen::Auto
            | ReadyWhen::Notify
            | ReadyWhen::Listen
            | ReadyWhen::Message
            | ReadyWhen::Check(_) => {}
        }
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    /// Checks that each slot has a port, once the number of workers is known.
    ///
    /// # Errors
    ///
    /// The first socket that runs out of ports.
    pub fn check_slots(&self, workers: u32) -> Result<(), ServiceMistake> {
        match self.sockets.iter().find(|socket| socket.slots_max() < workers) {
            Some(spec) => {
                let (socket, slots_max) = (spec.place(), spec.slots_max());
                Err(ServiceMistake::NoPortForSlot { socket, slots_max, workers })
            }
            None => Ok(()),
        }
    }

    /// Checks that new connections can be steered, and clients refused, if that is asked for, where no more sockets are to
    /// come than those that it has.
    #[must_use]
    pub fn check_balance(&self) -> Vec<ServiceMistake> {
        let steerable = self.sockets.iter().any(SocketSpec::is_steerable);
        let balance = self.balance;
        let mut mistakes = Vec::new();
        let is_tcp =
            |socket: &SocketSpec| socket.transport == Transport::Stream && socket.is_steerable();
        if self.on_failing == OnFailing::Refuse && !self.sockets.iter().any(is_tcp) {
            mistakes.push(ServiceMistake::NobodyToRefuse);
        }
        if balance == Balance::Slots && !steerable {
            mistakes.push(ServiceMistake::NoSocketForSlots);
            return mistakes;
        }
        // Those who get nothing new are known without the kernel there.
        let is_dispatch = matches!(balance, Balance::Dispatch(_));
        if balance != Balance::Shared && steerable || is_dispatch {
            mistakes.extend(
                (is_dispatch && self.sockets.is_empty())
                    .then_some(ServiceMistake::Dispatch(DispatchMistake::NoSocket)),
            );
            return mistakes;
        }
        let canary = self.canary.map(|_| ServiceMistake::NoPartForCanary { balance });
        let before_stop = match self.before_stop {
            BeforeStop::Auto | BeforeStop::For(Duration::ZERO) => None,
            BeforeStop::For(_) => Some(Waits::BeforeStop),
        };
        let keepalive = match self.keepalive {
            KeepAlive::Leave => None,
            KeepAlive::CloseIdle => Some(Waits::KeepAlive),
        };
        let waits = before_stop.into_iter().chain(keepalive);
        let waits = waits.map(|waits| ServiceMistake::NothingSteeredAway { waits, balance });
        mistakes.extend(canary.into_iter().chain(waits));
        mistakes
    }

    /// Checks what shepherd is to accept itself, whatever sockets are to come.
    fn check_dispatch(&self) -> Vec<ServiceMistake> {
        let balance = self.balance;
        let mut mistakes = Vec::new();
        for socket in &self.sockets {
            if !socket.transport.accepts() {
                mistakes.push(DispatchMistake::NoConnections(socket.place()));
            } else if socket.slots == Slots::Each {
                mistakes.push(DispatchMistake::OfSlot(socket.place()));
            }
        }
        let asks = self.source.handoff == Handoff::Node || self.source.node_fork;
        if asks || self.ready == ReadyWhen::Message {
            mistakes.push(DispatchMistake::Node);
        }
        mistakes.extend(match &self.ready {
            ReadyWhen::Check(Check::Tcp) => Some(DispatchMistake::Probe("tcp")),
            ReadyWhen::Check(Check::Http(_)) => Some(DispatchMistake::Probe("http")),
            ReadyWhen::Check(Check::Exec(_))
            | ReadyWhen::Auto
            | ReadyWhen::Notify
            | ReadyWhen::Listen
            | ReadyWhen::Message
            | ReadyWhen::Alive(_) => None,
        });
        let canary = self.canary.map(|_| ServiceMistake::NoPartForCanary { balance });
        mistakes.into_iter().map(ServiceMistake::Dispatch).chain(canary).collect()
    }

    /// The services that must have been ready before it starts, by name.
    pub fn needs(&self) -> impl Iterator<Item = &str> {
        self.depends_on.iter().chain(&self.bind_to).map(String::as_str)
    }
}
