//! By what a worker and its primary call a server.

use std::borrow::Borrow;
use std::fmt;

use crate::protocol::json_fields::{count, number, text};

/// The name of a server between us and all workers of a service: who asks for the same address gets the
/// same name, in each worker and each generation. Workers only repeat it.
///
/// It is made as Node does from version 22 on: `address:port:addressType:fd`, and for a port that the
/// kernel is to choose the number among those of the same address, so that two `listen(0)` are two ports,
/// the same two in every worker. Before 22 that number was in every name, so that a worker's second
/// server at an address was another one for its primary too, and failed later.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A key of tests.
    #[cfg(test)]
    pub(super) fn test(text: &str) -> Key {
        Key(text.to_owned())
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a worker says of the place of a server, as the text that JavaScript makes of each part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    address: String,
    port: String,
    address_type: String,
    descriptor: String,
    index: u64,
}

/// How it is given: the JSON text of each field.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlaceFields<'a> {
    pub(super) address: Option<&'a str>,
    pub(super) port: Option<&'a str>,
    pub(super) address_type: Option<&'a str>,
    pub(super) fd: Option<&'a str>,
    pub(super) index: Option<&'a str>,
}

impl Place {
    /// None where a part is longer than `bytes_max`.
    pub(super) fn read(fields: PlaceFields<'_>, bytes_max: usize) -> Option<Place> {
        let part = |value: Option<&str>| {
            let part = text(value).unwrap_or_else(|| value.unwrap_or("undefined").to_owned());
            (part.len() <= bytes_max).then_some(part)
        };
        Some(Place {
            address: part(fields.address)?,
            port: part(fields.port)?,
            address_type: part(fields.address_type)?,
            descriptor: part(fields.fd)?,
            index: count(fields.index).unwrap_or(0),
        })
    }

    pub(super) fn key(&self) -> Key {
        let Place { address, port, address_type, descriptor, index } = self;
        let mut key = format!("{address}:{port}:{address_type}:{descriptor}");
        if self.is_numbered() {
            key.push(':');
            key.push_str(&index.to_string());
        }
        Key(key)
    }

    /// Whether `listening` of this place is about a server that was asked for at just that port.
    pub(super) fn is(&self, asked: &Place) -> bool {
        self.port == asked.port && self.is_elsewhere_as(asked)
    }

    /// Whether it is about one that has the port that it tells from the kernel, or from a descriptor.
    pub(super) fn came_of(&self, asked: &Place) -> bool {
        let is_numbered = asked.is_numbered() && self.index == asked.index;
        (is_numbered || asked.has_descriptor()) && self.is_elsewhere_as(asked)
    }

    fn is_elsewhere_as(&self, asked: &Place) -> bool {
        self.address == asked.address
            && self.address_type == asked.address_type
            && self.descriptor == asked.descriptor
    }

    /// Whether its parts do not tell it from another of the same worker: the kernel chooses the port, or
    /// the worker asks back for what it has. Node counts for the port 0 alone, and binds the second of two
    /// datagram sockets without a port anew; with us they are shared too, and need two names.
    fn is_numbered(&self) -> bool {
        let any_port = matches!(self.port.as_str(), "0" | "null" | "undefined");
        let given = self.port == "-1" && self.address == "null";
        !self.has_descriptor() && (any_port || given)
    }

    fn has_descriptor(&self) -> bool {
        number(Some(&self.descriptor)).is_some_and(|number| number >= 0)
    }
}
