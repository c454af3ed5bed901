//! Our side of the conversation with one worker.

use core::net::SocketAddr;
use std::collections::BTreeMap;

use super::errno::Errno;
use super::heard::{Heard, Ignored};
use super::key::{Key, Place, PlaceFields};
use super::query::{self, Asked, Data, Query};
use super::wire::{Answer, Bare, CLUSTER, Disconnect, Newconn, Sockets, Sockname};
use crate::protocol::json_fields::{count, is_true, pick, text};
use crate::protocol::node_ipc::{HandleKind, HandleLine, Line, Native, Purpose, Stream};
use crate::protocol::notify::printable;

/// How many servers one worker may have: more than any program, and few enough that one which asks
/// without an end costs nothing.
pub const SERVERS_MAX: usize = 256;

/// How many connections may be offered to a worker that has not said whether it takes them. Whoever
/// dispatches has a smaller bound of its own.
pub const OFFERED_MAX: usize = 64;

/// What was said, and what is waited for. `C` is what a connection is to the caller.
#[derive(Debug)]
pub struct Primary<C> {
    /// The number of what we say next.
    seq: u64,
    /// What the worker asked for and was not refused.
    servers: BTreeMap<Key, Server>,
    /// What was offered, by the number of its offer.
    offered: BTreeMap<u64, C>,
    stage: Stage,
}

#[derive(Debug)]
struct Server {
    place: Place,
    state: ServerState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ServerState {
    Asked,
    Answered,
    Listening,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Serving,
    /// It was told to stop, or told us that it does.
    Leaving,
}

/// What a worker is given for a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shared {
    /// A listener.
    Listener(Stream),
    /// A socket of datagrams.
    Datagrams,
}

impl<C> Default for Primary<C> {
    fn default() -> Primary<C> {
        Primary {
            seq: 0,
            servers: BTreeMap::new(),
            offered: BTreeMap::new(),
            stage: Stage::Serving,
        }
    }
}

impl<C> Primary<C> {
    /// Takes a message between Node's own halves, and gives what it means and what has to be sent for
    /// it at once.
    pub fn hear(&mut self, json: &str) -> (Heard<C>, Option<Line>) {
        let names = ["cmd", "act", "seq", "ack", "accepted", "key"];
        let Ok([cmd, act, seq, ack, accepted, key]) = pick(json, names) else {
            return ignore(Ignored::Unknown(printable(json.as_bytes())));
        };
        let cmd = text(cmd).unwrap_or_default();
        if cmd != CLUSTER {
            return hear_of_sockets(&cmd, &text(key).unwrap_or_default());
        }
        if let Some(ack) = count(ack) {
            return (self.hear_answer(ack, is_true(accepted)), None);
        }
        let act = text(act).unwrap_or_default();
        match act.as_str() {
            "online" => (Heard::Online, None),
            "queryServer" => self.hear_query(json),
            "listening" => (self.hear_listening(json), None),
            "close" => match self.servers.remove_entry(text(key).unwrap_or_default().as_str()) {
                Some((key, _)) => (Heard::Closed(key), None),
                None => ignore(Ignored::StrayClose),
            },
            "exitedAfterDisconnect" => {
                self.stage = Stage::Leaving;
                let line =
                    count(seq).map(|ack| Line::of(&Bare { cmd: CLUSTER, ack, seq: self.next() }));
                (Heard::Leaving, line)
            }
            act => ignore(Ignored::Unknown(printable(act.as_bytes()))),
        }
    }

    /// Gives a query the listener itself, or a socket of datagrams, which has to be sent with this line.
    /// The worker listens on it.
    pub fn share(&mut self, query: Query, shared: Shared, data: Option<&Data>) -> HandleLine {
        let kind = match shared {
            Shared::Listener(stream) => {
                HandleKind::Native(Some(Native { stream, purpose: Purpose::Listener }))
            }
            Shared::Datagrams => HandleKind::NativeDatagram,
        };
        let Query { key, seq: ack, .. } = query;
        self.answered(&key);
        let (data, seq) = (data.map(Data::raw), self.next());
        let key = key.as_str();
        let answer = Answer { cmd: CLUSTER, errno: Some(0), key, ack, data, sockname: None, seq };
        HandleLine::of(kind, &answer)
    }

    /// Promises a query connections, by [`Primary::offer`]. `address` is the listener's, which the worker
    /// shows as its own; none for a unix socket, whose path it knows. Its port has to be the one that was
    /// asked for, unless that was 0: Node takes another for an error.
    pub fn dispatch(
        &mut self,
        query: Query,
        address: Option<SocketAddr>,
        data: Option<&Data>,
    ) -> Line {
        let Query { key, seq: ack, .. } = query;
        self.answered(&key);
        let (data, seq) = (data.map(Data::raw), self.next());
        let sockname = address.map(Sockname::of);
        let key = key.as_str();
        Line::of(&Answer { cmd: CLUSTER, errno: None, key, ack, data, sockname, seq })
    }

    /// Gives a query an error, which the program's server has as its `error` event.
    pub fn refuse(&mut self, query: Query, errno: Errno) -> Line {
        let Query { key, seq, data, .. } = query;
        self.servers.remove(&key);
        self.error(seq, key.as_str(), data.as_ref(), errno)
    }

    /// Offers a connection for a server that it has, whichever way it got that. The line has to be sent
    /// with the connection; it is heard of again as [`Heard::Accepted`] or [`Heard::Refused`], or comes
    /// back by [`Primary::take_back`] or [`Primary::into_offered`].
    ///
    /// # Errors
    ///
    /// When too many are on their way: the connection comes back.
    pub fn offer(&mut self, key: &Key, stream: Stream, connection: C) -> Result<Offered, C> {
        if self.offered.len() >= OFFERED_MAX {
            return Err(connection);
        }
        let number = self.next();
        self.offered.insert(number, connection);
        let kind = HandleKind::Native(Some(Native { stream, purpose: Purpose::Connection }));
        let message = Newconn { cmd: CLUSTER, act: "newconn", key: key.as_str(), seq: number };
        Ok(Offered { number, line: HandleLine::of(kind, &message) })
    }

    /// The worker had no room for the descriptor of this offer, so it knows nothing of it.
    pub fn take_back(&mut self, number: u64) -> Option<C> {
        self.offered.remove(&number)
    }

    /// Tells the worker to stop: it closes its servers, and the channel when it has finished.
    pub fn disconnect(&mut self) -> Line {
        self.stage = Stage::Leaving;
        Line::of(&Disconnect { cmd: CLUSTER, act: "disconnect", seq: self.next() })
    }

    /// Whether it has servers and each of them listens.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        !self.servers.is_empty()
            && self.servers.values().all(|server| server.state == ServerState::Listening)
    }

    /// Whether it can be offered connections for this server: it was told that it has it, and neither of
    /// us has said that it stops. What is offered nevertheless comes back.
    #[must_use]
    pub fn has(&self, key: &Key) -> bool {
        let is_answered = |server: &Server| server.state != ServerState::Asked;
        self.stage == Stage::Serving && self.servers.get(key).is_some_and(is_answered)
    }

    /// How many connections were offered and not yet accepted or refused.
    #[must_use]
    pub fn offered(&self) -> usize {
        self.offered.len()
    }

    /// The worker is gone, and its channel was read to the end: what it never accepted, oldest first. It
    /// has read nothing of them.
    pub fn into_offered(self) -> impl Iterator<Item = C> {
        self.offered.into_values()
    }

    fn hear_answer(&mut self, ack: u64, accepted: bool) -> Heard<C> {
        match self.offered.remove(&ack) {
            Some(connection) if accepted => Heard::Accepted(connection),
            Some(connection) => Heard::Refused(connection),
            None => Heard::Ignored(Ignored::StrayAnswer),
        }
    }

    fn hear_query(&mut self, json: &str) -> (Heard<C>, Option<Line>) {
        if self.stage == Stage::Leaving {
            return ignore(Ignored::QueryTooLate);
        }
        let (query, place) = match query::read(json) {
            Asked::Well { query, place } => (query, place),
            Asked::Badly { seq, data, errno } => {
                let line = self.error(seq, "", data.as_ref(), errno);
                return (Heard::Ignored(Ignored::QueryRefused(errno)), Some(line));
            }
            Asked::Unanswerable => return ignore(Ignored::QueryUnreadable),
        };
        let (errno, why) = if self.servers.contains_key(&query.key) {
            (Errno::EADDRINUSE, Ignored::QueryTwice)
        } else if self.servers.len() >= SERVERS_MAX {
            (Errno::EMFILE, Ignored::QueryTooMany)
        } else {
            let server = Server { place, state: ServerState::Asked };
            self.servers.insert(query.key.clone(), server);
            return (Heard::Query(query), None);
        };
        let line = self.error(query.seq, query.key.as_str(), query.data.as_ref(), errno);
        (Heard::Ignored(why), Some(line))
    }

    fn hear_listening(&mut self, json: &str) -> Heard<C> {
        let names = ["address", "port", "addressType", "fd", "index"];
        let Ok([address, port, address_type, fd, index]) = pick(json, names) else {
            return Heard::Ignored(Ignored::Unknown("listening".to_owned()));
        };
        let fields = PlaceFields { address, port, address_type, fd, index };
        let Some(place) = Place::read(fields, query::ADDRESS_MAX) else {
            return Heard::Ignored(Ignored::Unknown("listening".to_owned()));
        };
        let port = count(port).and_then(|port| u16::try_from(port).ok());
        let mut waiting: Vec<(&Key, &mut Server)> = self
            .servers
            .iter_mut()
            .filter(|(_, server)| server.state == ServerState::Answered)
            .collect();
        // A port that was asked for goes before one that could be any.
        let exactly = waiting.iter().position(|(_, server)| place.is(&server.place));
        let found = exactly
            .or_else(|| waiting.iter().position(|(_, server)| place.came_of(&server.place)))
            .and_then(|at| waiting.get_mut(at));
        match found {
            Some((key, server)) => {
                server.state = ServerState::Listening;
                Heard::Listening { key: key.clone(), port }
            }
            None => Heard::ListeningUnasked { key: place.key() },
        }
    }

    fn answered(&mut self, key: &Key) {
        if let Some(server) = self.servers.get_mut(key) {
            server.state = ServerState::Answered;
        }
    }

    fn error(&mut self, ack: u64, key: &str, data: Option<&Data>, errno: Errno) -> Line {
        let data = data.map(Data::raw);
        let (errno, seq) = (Some(errno.on_the_wire()), self.next());
        Line::of(&Answer { cmd: CLUSTER, errno, key, ack, data, sockname: None, seq })
    }

    fn next(&mut self) -> u64 {
        let seq = self.seq;
        self.seq += 1;
        seq
    }
}

/// A connection to be sent.
#[derive(Debug)]
pub struct Offered {
    /// The number of the offer.
    pub number: u64,
    /// What goes with the connection.
    pub line: HandleLine,
}

fn ignore<C>(why: Ignored) -> (Heard<C>, Option<Line>) {
    (Heard::Ignored(why), None)
}

/// Sockets that a worker accepted and sent to us are counted by its server, which is not closed
/// before we say that they are. Whoever has them has them for good, so we say so at once.
fn hear_of_sockets<C>(cmd: &str, key: &str) -> (Heard<C>, Option<Line>) {
    let answer = match cmd {
        "NODE_SOCKET_NOTIFY_CLOSE" => Sockets { cmd: "NODE_SOCKET_ALL_CLOSED", key, count: None },
        "NODE_SOCKET_GET_COUNT" => Sockets { cmd: "NODE_SOCKET_COUNT", key, count: Some(0) },
        // Answers to questions that we do not ask.
        "NODE_SOCKET_ALL_CLOSED" | "NODE_SOCKET_COUNT" => return ignore(Ignored::StrayAnswer),
        cmd => return ignore(Ignored::Unknown(printable(cmd.as_bytes()))),
    };
    (Heard::Settled, Some(Line::of(&answer)))
}
