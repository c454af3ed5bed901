//! What one line is, as Node tells its own messages from the program's.

use serde::de::IgnoredAny;

use super::Problem;
use super::line::HandleKind;
use crate::protocol::json_fields;

/// A line that could be read. Texts are JSON, and those of a line are all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parsed<'a> {
    /// `NODE_HANDLE_ACK`
    Acknowledged,
    /// `NODE_HANDLE_NACK`
    Refused,
    /// `NODE_HANDLE`: what is wrapped, whose descriptor comes beside it.
    Handle {
        /// What the descriptor is.
        kind: HandleKind,
        /// By which the sender counts the sockets of one of its servers; a JSON string.
        key: Option<&'a str>,
        /// The message.
        message: &'a str,
    },
    /// The same of a kind that Node does not know.
    UnknownHandle,
    /// Another message between Node's own halves.
    Internal(&'a str),
    /// A message of the program: any value.
    Message(&'a str),
}

/// What a message of Node's own begins with, in its `cmd`, and it goes on after that.
const INTERNAL: &str = "NODE_";

/// What a line of Bun's own begins with.
const BUN: char = '\u{2}';

pub(super) fn parse(line: &[u8]) -> Result<Parsed<'_>, Problem> {
    let text = str::from_utf8(line).map_err(|_| Problem::NotText)?;
    // What JSON takes for blanks, and nothing else that Unicode does.
    let text = text.trim_matches([' ', '\t', '\r', '\n']);
    let not_json = |error: serde_json::Error| Problem::NotJson { column: error.column() };
    match text.chars().next() {
        None => return Err(Problem::Blank),
        Some(BUN) => return Err(Problem::BunDialect),
        Some('{') => {}
        Some(_) => {
            serde_json::from_str::<IgnoredAny>(text).map_err(not_json)?;
            return Ok(Parsed::Message(text));
        }
    }
    let names = ["cmd", "type", "msg", "key", "dgramType", "socketType", "nativeKind"];
    let fields = json_fields::pick(text, names).map_err(not_json)?;
    let [cmd, kind, message, key, dgram_type, socket_type, native_kind] = fields;
    Ok(match json_fields::text(cmd).as_deref() {
        Some("NODE_HANDLE_ACK") => Parsed::Acknowledged,
        Some("NODE_HANDLE_NACK") => Parsed::Refused,
        Some("NODE_HANDLE") => {
            match (HandleKind::read(kind, dgram_type, socket_type, native_kind), message) {
                (Some(kind), Some(message)) => Parsed::Handle { kind, key, message },
                (None, _) | (_, None) => Parsed::UnknownHandle,
            }
        }
        Some(cmd) if cmd.len() > INTERNAL.len() && cmd.starts_with(INTERNAL) => {
            Parsed::Internal(text)
        }
        Some(_) | None => Parsed::Message(text),
    })
}
