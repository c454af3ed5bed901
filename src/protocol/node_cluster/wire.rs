//! What a primary says, with its fields in Node's order.

use core::net::SocketAddr;

use serde::Serialize;
use serde_json::value::RawValue;

pub(super) const CLUSTER: &str = "NODE_CLUSTER";

/// The answer to `queryServer`.
#[derive(Serialize)]
pub(super) struct Answer<'a> {
    pub(super) cmd: &'static str,
    /// Without an error 0 beside a listener, and null without one.
    pub(super) errno: Option<i32>,
    pub(super) key: &'a str,
    pub(super) ack: u64,
    pub(super) data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sockname: Option<Sockname>,
    pub(super) seq: u64,
}

/// The address of a listener that a worker does not have, for `server.address()`.
#[derive(Serialize)]
pub(super) struct Sockname {
    address: String,
    family: &'static str,
    port: u16,
}

impl Sockname {
    pub(super) fn of(address: SocketAddr) -> Sockname {
        Sockname {
            address: address.ip().to_string(),
            family: if address.is_ipv4() { "IPv4" } else { "IPv6" },
            port: address.port(),
        }
    }
}

/// A connection.
#[derive(Serialize)]
pub(super) struct Newconn<'a> {
    pub(super) cmd: &'static str,
    pub(super) act: &'static str,
    pub(super) key: &'a str,
    pub(super) seq: u64,
}

/// `disconnect`.
#[derive(Serialize)]
pub(super) struct Disconnect {
    pub(super) cmd: &'static str,
    pub(super) act: &'static str,
    pub(super) seq: u64,
}

/// An answer that says nothing more, to `exitedAfterDisconnect`.
#[derive(Serialize)]
pub(super) struct Bare {
    pub(super) cmd: &'static str,
    pub(super) ack: u64,
    pub(super) seq: u64,
}

/// What becomes of the sockets of one server that a worker sent us.
#[derive(Serialize)]
pub(super) struct Sockets<'a> {
    pub(super) cmd: &'static str,
    pub(super) key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<u32>,
}
