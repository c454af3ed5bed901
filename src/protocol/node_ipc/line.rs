//! Lines as they are written. One can be made of nothing but JSON, so no worker dies of what it reads.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use super::parse::{Parsed, parse};
use crate::protocol::json_fields::{count, text};

/// One message: one line of JSON with its end. A copy costs nothing, so that all workers of a service
/// can be sent the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line(Arc<[u8]>);

/// A message that goes with a descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandleLine(Line);

/// Why a text is no message for a program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAMessage {
    /// It is no JSON.
    #[error("it is no JSON")]
    NotJson,
    /// Node would take it for its own: an object whose `cmd` begins with `NODE_`.
    #[error("Node keeps messages whose `cmd` begins with `NODE_` for itself")]
    Internal,
    /// It is longer than a line may be.
    #[error("it is longer than {max} bytes")]
    TooLong {
        /// The limit.
        max: usize,
    },
}

impl Line {
    /// A message to the program of a worker: any JSON text, of at most `max` bytes.
    ///
    /// # Errors
    ///
    /// Where it is none, too long, or would be heard by Node instead of the program.
    pub fn message(json: &str, max: usize) -> Result<Line, NotAMessage> {
        Ok(Line::of(&*raw_message(json, max)?))
    }

    /// A message of Node's own.
    pub(in crate::protocol) fn of(message: &(impl Serialize + ?Sized)) -> Line {
        let bytes = serde_json::to_vec(message);
        let mut bytes = bytes.expect("what is made of texts and numbers becomes JSON");
        bytes.push(b'\n');
        Line(bytes.into())
    }

    /// A line that is written in the program's text.
    pub(super) fn from_static(bytes: &'static [u8]) -> Line {
        Line(bytes.into())
    }

    /// The bytes with the line's end.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many they are; never 0.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl HandleLine {
    /// A message to the program of a worker, with a descriptor that it gets as an object of `kind`.
    ///
    /// # Errors
    ///
    /// As [`Line::message`].
    pub fn message(kind: HandleKind, json: &str, max: usize) -> Result<HandleLine, NotAMessage> {
        Ok(HandleLine::of(kind, &*raw_message(json, max)?))
    }

    /// A message of Node's own with a descriptor.
    pub(in crate::protocol) fn of(
        kind: HandleKind,
        message: &(impl Serialize + ?Sized),
    ) -> HandleLine {
        HandleLine(Line::of(&Wrapped {
            cmd: "NODE_HANDLE",
            kind: kind.name(),
            msg: message,
            dgram_type: match kind {
                HandleKind::Datagram(family) => Some(family.name()),
                HandleKind::Native(_)
                | HandleKind::Server
                | HandleKind::Socket
                | HandleKind::NativeDatagram => None,
            },
            socket_type: kind.native().map(|native| native.purpose as u8),
            native_kind: kind.native().map(|native| native.stream.name()),
        }))
    }

    /// The line, with its end.
    #[must_use]
    pub fn line(&self) -> &Line {
        &self.0
    }
}

/// A text that a program may be sent. What stands between its values may be ends of lines.
fn raw_message(json: &str, max: usize) -> Result<Box<RawValue>, NotAMessage> {
    if json.len() > max {
        return Err(NotAMessage::TooLong { max });
    }
    // Within strings of JSON there are none of them, so blanks mean the same.
    let line = json.replace(['\n', '\r'], " ");
    match parse(line.as_bytes()) {
        Ok(Parsed::Message(text)) => {
            RawValue::from_string(text.to_owned()).map_err(|_| NotAMessage::NotJson)
        }
        Ok(
            Parsed::Internal(_)
            | Parsed::Handle { .. }
            | Parsed::UnknownHandle
            | Parsed::Acknowledged
            | Parsed::Refused,
        ) => Err(NotAMessage::Internal),
        Err(_) => Err(NotAMessage::NotJson),
    }
}

/// What a descriptor is to be at its other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandleKind {
    /// `net.Native`: a stream for Node's own halves. Deno has to be told what it is, and does not
    /// accept from it otherwise; Node looks at the socket, and says nothing.
    Native(Option<Native>),
    /// `net.Server`: an object of the program that listens.
    Server,
    /// `net.Socket`: an object of the program that is connected.
    Socket,
    /// `dgram.Native`: a socket of datagrams for Node's own halves.
    NativeDatagram,
    /// `dgram.Socket`: an object of the program.
    Datagram(DatagramFamily),
}

/// What Deno has to be told of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Native {
    /// Its kind.
    pub stream: Stream,
    /// What it is for.
    pub purpose: Purpose,
}

/// The kind of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Of IPv4 or IPv6.
    Tcp,
    /// A unix socket.
    Pipe,
}

/// What a stream is for, by Deno's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// It is connected.
    Connection = 0,
    /// It listens.
    Listener = 1,
}

/// Which addresses datagrams come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DatagramFamily {
    /// `udp4`
    V4,
    /// `udp6`
    V6,
}

impl HandleKind {
    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            HandleKind::Native(_) => "net.Native",
            HandleKind::Server => "net.Server",
            HandleKind::Socket => "net.Socket",
            HandleKind::NativeDatagram => "dgram.Native",
            HandleKind::Datagram(_) => "dgram.Socket",
        }
    }

    /// What a line says of its descriptor; each argument is the JSON text of a field.
    pub(super) fn read(
        kind: Option<&str>,
        dgram_type: Option<&str>,
        socket_type: Option<&str>,
        native_kind: Option<&str>,
    ) -> Option<HandleKind> {
        match text(kind)?.as_str() {
            "net.Native" => Some(HandleKind::Native(Native::read(socket_type, native_kind))),
            "net.Server" => Some(HandleKind::Server),
            "net.Socket" => Some(HandleKind::Socket),
            "dgram.Native" => Some(HandleKind::NativeDatagram),
            "dgram.Socket" => DatagramFamily::read(&text(dgram_type)?).map(HandleKind::Datagram),
            _ => None,
        }
    }

    fn native(self) -> Option<Native> {
        match self {
            HandleKind::Native(native) => native,
            HandleKind::Server
            | HandleKind::Socket
            | HandleKind::NativeDatagram
            | HandleKind::Datagram(_) => None,
        }
    }
}

impl Native {
    fn read(socket_type: Option<&str>, native_kind: Option<&str>) -> Option<Native> {
        let purpose = match count(socket_type)? {
            0 => Purpose::Connection,
            1 => Purpose::Listener,
            _ => return None,
        };
        let stream = match text(native_kind)?.as_str() {
            "tcp" => Stream::Tcp,
            "pipe" => Stream::Pipe,
            _ => return None,
        };
        Some(Native { stream, purpose })
    }
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Tcp => "tcp",
            Stream::Pipe => "pipe",
        }
    }
}

impl DatagramFamily {
    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            DatagramFamily::V4 => "udp4",
            DatagramFamily::V6 => "udp6",
        }
    }

    /// The family of this name.
    #[must_use]
    pub fn read(name: &str) -> Option<DatagramFamily> {
        [DatagramFamily::V4, DatagramFamily::V6].into_iter().find(|family| family.name() == name)
    }
}

/// In Node's order of fields; Deno's come last.
#[derive(Serialize)]
struct Wrapped<'a, M: ?Sized> {
    cmd: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    msg: &'a M,
    #[serde(rename = "dgramType", skip_serializing_if = "Option::is_none")]
    dgram_type: Option<&'static str>,
    #[serde(rename = "socketType", skip_serializing_if = "Option::is_none")]
    socket_type: Option<u8>,
    #[serde(rename = "nativeKind", skip_serializing_if = "Option::is_none")]
    native_kind: Option<&'static str>,
}
