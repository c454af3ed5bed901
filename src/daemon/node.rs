//! Workers that have a channel as programs of Node have it to their primary, which we are then: what they
//! say there, and the sockets that they get. What the bytes mean is `protocol::node_ipc`'s and
//! `protocol::node_cluster`'s; what becomes of a worker is the core's to say.
//!
//! Whatever a worker says, shepherd keeps a bounded part of it and waits for nothing: so much is read of
//! one in a turn, its channel has its limits, and a worker that reads nothing has its channel broken, which
//! replaces it. That it closes its channel is a hint; its exit is the truth.

mod wanted;

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::config::socket::Transport;
use crate::core::event::{Mode, WorkerEvent};
use crate::core::ids::{MemberId, ServiceId, WorkerId};
use crate::core::time::Time;
use crate::os::clock;
use crate::os::listeners::Listener;
use crate::os::local_address::LocalAddress;
use crate::os::node_channel::{Input, NodeChannel, Output};
use crate::os::reactor::Interest;
use crate::os::replace_file;
use crate::protocol::node_cluster::{Errno, Heard, KeptData, Primary, Query, Shared, Wanted};
use crate::protocol::node_ipc::{
    Channel, DatagramFamily, HandleKind, HandleLine, Limits, Line, Problem, READ_BYTES, READY,
    RETRIES_MAX, Received, Stream, Undelivered,
};

use super::event_loop::{Daemon, Token};
use super::messages::STEPS_MAX;
use wanted::Has;

/// How often one worker is read in a turn, [`READ_BYTES`] each: a flood cannot starve the others.
const READS_MAX: usize = 4;

/// How often one that has exited is read at most: what it said before fits into its socket, and others
/// may hold it and go on.
const LAST_READS_MAX: usize = 64;

/// When it is written again to a worker where the kernel has no room for what is on its way.
const LATER: Duration = Duration::from_millis(20);

/// The channels of all workers that have one.
#[derive(Default)]
pub(super) struct Nodes {
    workers: BTreeMap<WorkerId, Node>,
    /// What servers share over all workers of a service, those to come too.
    kept: BTreeMap<ServiceId, KeptData>,
    /// When those are written to again whom the kernel had no room for.
    again: Option<Time>,
}

/// One worker's channel.
struct Node {
    service: ServiceId,
    socket: NodeChannel,
    channel: Channel<OwnedFd>,
    primary: Primary<OwnedFd>,
    /// The sockets that it may have, in order.
    members: Vec<MemberId>,
    /// Whether it has them as descriptors too.
    has_descriptors: bool,
    /// Whether it is waited for that it can be written to.
    is_full: bool,
    /// Whether nothing is read any more, and nothing written.
    is_over: bool,
    /// How many sockets it was sent as a fork and has not acknowledged.
    sent: usize,
    /// How many messages and descriptors of its program nobody took.
    dropped: u64,
}

/// What was read of one worker.
enum Said {
    Heard(Heard<OwnedFd>),
    Ready,
    Message(String),
    Handle(HandleKind),
    Delivered,
    Undelivered(Undelivered<OwnedFd>),
    Problem(Problem),
}

impl Nodes {
    /// When somebody is to be written to again.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.again
    }

    /// Nothing is left of a service.
    pub(super) fn remove_service(&mut self, service: ServiceId) {
        self.kept.remove(&service);
    }

    /// A worker was started with a channel, and may have these sockets.
    pub(super) fn insert(
        &mut self,
        worker: WorkerId,
        service: ServiceId,
        socket: NodeChannel,
        members: Vec<MemberId>,
        has_descriptors: bool,
    ) {
        let (channel, primary) = (Channel::new(Limits::default()), Primary::default());
        let node = Node {
            service,
            socket,
            channel,
            primary,
            members,
            has_descriptors,
            is_full: false,
            is_over: false,
            sent: 0,
            dropped: 0,
        };
        self.workers.insert(worker, node);
    }
}

impl Node {
    /// Reads once, as far as a worker may say at a time. `None` at the end.
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<Option<Vec<Said>>> {
        let (length, descriptors) = match self.socket.read(bytes)? {
            Input::Nothing => return Ok(Some(Vec::new())),
            Input::End => return Ok(None),
            // What was cut off is told by the line that lacks it.
            Input::Read { length, descriptors, cut: _ } => (length, descriptors),
        };
        let mut said = Vec::new();
        let mut answers: Vec<Line> = Vec::new();
        let Node { channel, primary, .. } = self;
        let bytes = bytes.get(..length).unwrap_or_default();
        channel.handle_read(bytes, descriptors, |received| {
            said.push(match received {
                Received::Internal(text) => {
                    let (heard, answer) = primary.hear(text);
                    answers.extend(answer);
                    Said::Heard(heard)
                }
                Received::Message(READY) => Said::Ready,
                Received::Message(text) => Said::Message(text.to_owned()),
                // It is closed here: nobody takes it.
                Received::Handle { kind, .. } => Said::Handle(kind),
                Received::Delivered(_) => Said::Delivered,
                Received::Undelivered(item) => Said::Undelivered(item),
                Received::Problem(problem) => Said::Problem(problem),
            });
        });
        for line in answers {
            if self.channel.send(line).is_err() {
                said.push(Said::Problem(Problem::AnswersUnread));
            }
        }
        Ok(Some(said))
    }

    /// Writes what waits, as far as the socket takes it. Tells whether it is to be tried again later.
    fn write(&mut self) -> Written {
        while let Some(chunk) = self.channel.poll_write() {
            match self.socket.write(chunk.bytes, chunk.handle.map(AsFd::as_fd)) {
                Ok(Output::Written(count)) => self.channel.handle_written(count),
                Ok(Output::Full) => return Written::Full,
                Ok(Output::Later) => return Written::Later,
                // Its end is gone, which is read too.
                Err(_) => return Written::All,
            }
        }
        Written::All
    }
}

/// How far it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    All,
    /// The socket says when it takes more.
    Full,
    /// Nothing says it.
    Later,
}

impl Daemon {
    /// A worker with a channel was started: it is heard, and sent its sockets if it is a fork.
    pub(super) fn watch_channel(&mut self, worker: WorkerId, forked: bool) {
        let Some(node) = self.nodes.workers.get(&worker) else { return };
        let watched = self.parts.reactor.add(&node.socket, Token::Channel(worker).encode());
        if let Err(error) = watched {
            tracing::warn!("worker {worker}: cannot watch its channel: {error}");
        }
        if forked {
            self.send_sockets(worker);
        }
    }

    /// Reads what a worker says, or writes to it: it can be done again.
    pub(super) fn channel_stirs(&mut self, worker: WorkerId) {
        self.read_channel(worker, READS_MAX);
        self.write_channel(worker);
    }

    /// Writes again to those whom the kernel had no room for.
    pub(super) fn tend_channels(&mut self, now: Time) {
        if self.nodes.again.is_some_and(|at| at <= now) {
            self.nodes.again = None;
            let workers: Vec<WorkerId> = self.nodes.workers.keys().copied().collect();
            for worker in workers {
                self.write_channel(worker);
            }
        }
    }

    /// Tells a worker over its channel to finish what it has and to leave.
    pub(super) fn disconnect(&mut self, worker: WorkerId) {
        let node = self.nodes.workers.get_mut(&worker).filter(|node| !node.is_over);
        let told = node.map(|node| {
            let line = node.primary.disconnect();
            node.channel.send(line)
        });
        match told {
            Some(Ok(())) => self.write_channel(worker),
            Some(Err(_)) | None => self.happened(worker, WorkerEvent::ChannelEnded),
        }
    }

    /// The main process of a worker has exited: what it said before is read.
    pub(super) fn last_words_of_channel(&mut self, worker: WorkerId) {
        self.read_channel(worker, LAST_READS_MAX);
    }

    /// The worker is gone, or nobody is left who could have the other end for it.
    pub(super) fn close_channel(&mut self, worker: WorkerId) {
        let Some(node) = self.nodes.workers.remove(&worker) else { return };
        self.parts.reactor.remove(&node.socket);
        if node.dropped > 0 {
            let (name, count) = (self.service_name(node.service), node.dropped);
            let dropped = node.channel.dropped();
            tracing::debug!(
                "worker {worker} ({name}) sent {count} messages that nobody took; {dropped} to it \
                 were dropped"
            );
        }
    }

    fn read_channel(&mut self, worker: WorkerId, times: usize) {
        let mut bytes = vec![0; READ_BYTES];
        let mut steps = 0;
        for _ in 0..times {
            let Some(node) = self.nodes.workers.get_mut(&worker) else { return };
            if node.is_over {
                return;
            }
            match node.read(&mut bytes) {
                Ok(Some(said)) if said.is_empty() && !node.channel.is_over() => return,
                Ok(Some(said)) => {
                    for said in said {
                        steps += self.heard(worker, said);
                    }
                    // What is left is there in the next turn too, unless there is none.
                    if steps >= STEPS_MAX && times <= READS_MAX {
                        return;
                    }
                }
                Ok(None) => return self.channel_ended(worker),
                Err(error) => {
                    let why = format!("its channel cannot be read: {error}");
                    return self.channel_broke(worker, why);
                }
            }
        }
    }

    /// Writes what waits, and messages of others when nothing else does.
    pub(super) fn write_channel(&mut self, worker: WorkerId) {
        let Some(node) = self.nodes.workers.get_mut(&worker).filter(|node| !node.is_over) else {
            return;
        };
        let written = loop {
            let written = node.write();
            if written != Written::All {
                break written;
            }
            let Some(text) = self.messages.take(worker) else { break written };
            // The router bounds how long each is, and none is for Node itself. There is room, as nothing
            // waits, but where nobody reads any more.
            if let Ok(line) = Line::message(&text, usize::MAX) {
                let _ = node.channel.send_message(line);
            }
        };
        let is_full = written == Written::Full;
        if written == Written::Later {
            self.nodes.again = Some(clock::now() + LATER);
        }
        if node.is_full != is_full {
            node.is_full = is_full;
            let token = Token::Channel(worker).encode();
            let interest = if is_full { Interest::Both } else { Interest::Readable };
            if let Err(error) = self.parts.reactor.watch(&node.socket, token, interest) {
                tracing::warn!("worker {worker}: cannot watch its channel: {error}");
            }
        }
    }

    /// Gives how much work it was, 1 at least.
    fn heard(&mut self, worker: WorkerId, said: Said) -> usize {
        match said {
            Said::Heard(heard) => self.heard_cluster(worker, heard),
            Said::Ready => self.happened(worker, WorkerEvent::SentReady),
            Said::Message(text) if self.messages.counted(worker).is_some() => {
                return self.hear_message(worker, text.as_bytes());
            }
            Said::Message(_) => self.drop_message(worker),
            Said::Handle(kind) => {
                self.drop_message(worker);
                let name = kind.name();
                let what = format!(
                    "sent a descriptor to its primary ({name}), which nobody takes; closing it"
                );
                self.complain(worker, &what);
            }
            Said::Delivered => self.delivered(worker),
            Said::Undelivered(item) => self.undelivered(worker, item),
            Said::Problem(problem) if problem.ends_channel() => {
                self.channel_broke(worker, problem.to_string());
            }
            Said::Problem(problem) => {
                self.complain(worker, &format!("speaks strangely over its channel: {problem}"));
            }
        }
        1
    }

    fn heard_cluster(&mut self, worker: WorkerId, heard: Heard<OwnedFd>) {
        match heard {
            Heard::Query(query) => self.answer_query(worker, query),
            Heard::Listening { .. } => {
                let node = self.nodes.workers.get(&worker);
                if node.is_some_and(|node| node.primary.is_listening()) {
                    self.happened(worker, WorkerEvent::Listens);
                }
            }
            Heard::ListeningUnasked { key } => {
                let what = format!("listens by itself, on {key}: shepherd has nothing to do with that socket");
                self.complain(worker, &what);
            }
            Heard::Leaving => self.happened(worker, WorkerEvent::SaidStopping),
            Heard::Ignored(why) => {
                self.complain(worker, &format!("was not understood over its channel: {why}"));
            }
            Heard::Online
            | Heard::Closed(_)
            | Heard::Settled
            // None is offered to it.
            | Heard::Accepted(_)
            | Heard::Refused(_) => {}
        }
    }

    /// Gives a program the socket that it asks for, if that is one of its service's.
    fn answer_query(&mut self, worker: WorkerId, query: Query) {
        let Some(node) = self.nodes.workers.get_mut(&worker) else { return };
        let listeners = &self.parts.listeners;
        let has: Vec<(MemberId, &Listener)> = node
            .members
            .iter()
            .filter_map(|member| Some((*member, listeners.get(member)?)))
            .collect();
        let sockets: Vec<Has<'_>> = has.iter().map(|(_, listener)| has_of(listener)).collect();
        let data = self.nodes.kept.entry(node.service).or_default();
        let data = data.settle(&query.key, query.data.as_ref());
        let found = wanted::find(&query.wanted, &sockets);
        // One that knows of descriptors stops by the signal, as all that do.
        let is_descriptor = matches!(query.wanted, Wanted::Descriptor { .. });
        let knows_descriptors = node.has_descriptors && is_descriptor;
        let found = found.and_then(|at| has.get(at).ok_or(Errno::EBADF));
        let copied = found.and_then(|(_, listener)| Ok((listener, copy(listener)?)));
        let (given, complaint) = match copied {
            Ok((listener, descriptor)) => {
                let line = node.primary.share(query, shared(listener), data.as_ref());
                (node.channel.send_handle(line, descriptor).map_err(|_| ()), None)
            }
            Err(errno) => {
                let what = match errno {
                    Errno::EACCES | Errno::EBADF | Errno::EINVAL => {
                        wanted::refusal(&query.wanted, &sockets, self.parts.config.spelling())
                    }
                    errno => format!(
                        "cannot be given its socket: {errno}; raise our limit on open files \
                         (`ulimit -n`)"
                    ),
                };
                let line = node.primary.refuse(query, errno);
                (node.channel.send(line).map_err(|_| ()), Some(what))
            }
        };
        match (given, complaint) {
            (Err(()), _) => {
                let why = "it does not read what it is sent".to_owned();
                return self.channel_broke(worker, why);
            }
            (Ok(()), Some(what)) => self.complain(worker, &what),
            (Ok(()), None) if knows_descriptors => {}
            (Ok(()), None) => self.happened(worker, WorkerEvent::Asked),
        }
        self.write_channel(worker);
    }

    /// Sends a fork its sockets, each with a message.
    fn send_sockets(&mut self, worker: WorkerId) {
        let Some(node) = self.nodes.workers.get_mut(&worker) else { return };
        let mut problems = Vec::new();
        for member in node.members.clone() {
            let Some(listener) = self.parts.listeners.get(&member) else { continue };
            let sent = copy(listener).map_err(|errno| errno.to_string()).and_then(|descriptor| {
                let (kind, message) = as_message(listener)?;
                let line = HandleLine::message(kind, message, usize::MAX);
                let line = line.map_err(|error| error.to_string())?;
                let full = |_| "there are more of them than it can be sent".to_owned();
                node.channel.send_handle(line, descriptor).map_err(full)
            });
            match sent {
                Ok(()) => node.sent += 1,
                Err(why) => problems.push(format!("cannot be sent `{}`: {why}", listener.label())),
            }
        }
        for problem in problems {
            self.complain(worker, &problem);
        }
        self.write_channel(worker);
    }

    fn delivered(&mut self, worker: WorkerId) {
        let Some(node) = self.nodes.workers.get_mut(&worker) else { return };
        if node.sent > 0 {
            node.sent -= 1;
            if node.sent == 0 {
                self.happened(worker, WorkerEvent::Listens);
            }
        }
    }

    /// A worker has no room for a descriptor: it is sent again, some times.
    fn undelivered(&mut self, worker: WorkerId, item: Undelivered<OwnedFd>) {
        let Some(node) = self.nodes.workers.get_mut(&worker) else { return };
        if node.channel.send_again(item).is_ok() {
            return;
        }
        let why = format!(
            "it has no descriptor left for a socket that it was sent {} times; raise its limit \
             (`--limit nofile=N`)",
            RETRIES_MAX + 1
        );
        self.channel_broke(worker, why);
    }

    fn drop_message(&mut self, worker: WorkerId) {
        if let Some(node) = self.nodes.workers.get_mut(&worker) {
            node.dropped += 1;
        }
    }

    fn channel_ended(&mut self, worker: WorkerId) {
        let Some(node) = self.nodes.workers.get_mut(&worker) else { return };
        node.is_over = true;
        self.parts.reactor.remove(&node.socket);
        if let Some(problem) = node.channel.handle_end() {
            self.complain(worker, &format!("speaks strangely over its channel: {problem}"));
        }
        self.happened(worker, WorkerEvent::ChannelEnded);
    }

    /// The worker is to be replaced. Its end stays open, so that it can finish what it has.
    fn channel_broke(&mut self, worker: WorkerId, why: String) {
        let Some(node) = self.nodes.workers.get_mut(&worker).filter(|node| !node.is_over) else {
            return;
        };
        node.is_over = true;
        self.parts.reactor.remove(&node.socket);
        self.happened(worker, WorkerEvent::ChannelBroken(why));
    }
}

fn has_of(listener: &Listener) -> Has<'_> {
    let path = match &listener.address {
        LocalAddress::Unix(path) => {
            let path = listener.path().map_or_else(|| path.clone(), ToOwned::to_owned);
            Some(replace_file::absolute(&path))
        }
        LocalAddress::DualStack(_) | LocalAddress::Ip(_) | LocalAddress::Abstract(_) => None,
    };
    Has { transport: listener.transport, address: &listener.address, path }
}

/// A copy for a program of Node, which takes a socket as it is: it must not block.
fn copy(listener: &Listener) -> Result<OwnedFd, Errno> {
    let failed =
        |error: &io::Error| error.raw_os_error().and_then(Errno::from_raw).unwrap_or(Errno::EMFILE);
    listener.set_mode(Mode::NonBlocking).map_err(|error| failed(&error))?;
    listener.fd.try_clone().map_err(|error| failed(&error))
}

fn shared(listener: &Listener) -> Shared {
    match (listener.transport, &listener.address) {
        (Transport::Datagram, _) => Shared::Datagrams,
        (_, LocalAddress::DualStack(_) | LocalAddress::Ip(_)) => Shared::Listener(Stream::Tcp),
        (_, LocalAddress::Unix(_) | LocalAddress::Abstract(_)) => Shared::Listener(Stream::Pipe),
    }
}

/// How a fork is sent a socket: as what, and with which message.
fn as_message(listener: &Listener) -> Result<(HandleKind, &'static str), String> {
    match (listener.transport, &listener.address) {
        (Transport::Stream, _) => Ok((HandleKind::Server, "\"server\"")),
        (Transport::Datagram, LocalAddress::Ip(address)) => {
            let family = match address.ip() {
                IpAddr::V4(_) => DatagramFamily::V4,
                IpAddr::V6(_) => DatagramFamily::V6,
            };
            Ok((HandleKind::Datagram(family), "\"udp\""))
        }
        (Transport::Datagram, LocalAddress::DualStack(_)) => {
            Ok((HandleKind::Datagram(DatagramFamily::V6), "\"udp\""))
        }
        (Transport::Datagram, LocalAddress::Unix(_) | LocalAddress::Abstract(_))
        | (Transport::Seqpacket, _) => Err("Node has no such kind of socket".to_owned()),
    }
}
