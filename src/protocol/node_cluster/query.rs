//! What a worker wants to listen on.

use core::net::{Ipv4Addr, Ipv6Addr};

use serde_json::value::RawValue;

use super::errno::Errno;
use super::key::{Key, Place, PlaceFields};
use crate::protocol::json_fields::{count, is_true, number, pick, text};
use crate::protocol::node_ipc::DatagramFamily;

/// The longest address that is read, in bytes: `PATH_MAX`, since a path is one too.
pub(super) const ADDRESS_MAX: usize = 4096;

/// The most that a program's server may leave with the primary for the others, in bytes; the keys of
/// TLS tickets are 113.
const DATA_MAX: usize = 16 * 1024;

/// libuv's `UV_TCP_IPV6ONLY` and `UV_UDP_IPV6ONLY`.
const V6_ONLY: u64 = 1;

/// libuv's `UV_UDP_REUSEADDR`.
const REUSE_ADDRESS: u64 = 4;

/// A worker asks for a server (`queryServer`). It waits until it is answered, exactly once: what answers
/// takes the query.
#[derive(Debug)]
pub struct Query {
    /// What the server is called from now on.
    pub key: Key,
    /// Where it is to listen.
    pub wanted: Wanted,
    /// How long a queue the program asked for; 0 where it left that to Node.
    pub backlog: u32,
    /// What the server has for its likes in other workers: of TLS, the keys of tickets.
    pub data: Option<Data>,
    pub(super) seq: u64,
}

impl Query {
    /// The worker's number of it.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.seq
    }
}

/// Where a server is to listen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// `listen(8000)`, `listen(8000, "127.0.0.1")`.
    Tcp {
        /// At which addresses.
        host: Host,
        /// 0 lets the kernel choose.
        port: u16,
    },
    /// `bind(5353)` of a datagram socket.
    Udp {
        /// At which addresses, never [`Host::Any`] unless the program lies.
        host: Host,
        /// 0 lets the kernel choose.
        port: u16,
        /// `reuseAddr`
        reuse_address: bool,
    },
    /// `listen("/run/app.sock")`: an absolute path.
    Unix {
        /// The path.
        path: String,
        /// Who else than the owner may connect.
        access: Access,
    },
    /// `listen({fd: 3})`: what the program thinks that we call by this number.
    Descriptor {
        /// The number.
        number: u32,
        /// What it takes it for.
        kind: Kind,
    },
    /// `listen(handle)` with a server that it was given, up to Node 18: it asks back for what it has. Node's
    /// own primary dies of this.
    Given,
}

/// What a descriptor is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A listener.
    Stream,
    /// A socket of datagrams.
    Datagram(DatagramFamily),
}

/// At which addresses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// All of the machine, of both families where it has both.
    Any,
    /// One of IPv4, or all.
    V4(Ipv4Addr),
    /// One of IPv6, or all, which have IPv4's too unless it is `only`.
    V6 {
        /// The address.
        address: Ipv6Addr,
        /// What follows a `%`: the interface of a link-local one.
        zone: Option<String>,
        /// `ipv6Only`
        only: bool,
    },
}

/// Who else than the owner of a unix socket may connect to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Access {
    /// `readableAll`
    pub readable_by_all: bool,
    /// `writableAll`
    pub writable_by_all: bool,
}

/// What servers of one key share: JSON that only they understand. It is repeated to each worker in every
/// answer, errors too: Node's TLS server reads it before it looks whether there is an error.
#[derive(Debug, Clone)]
pub struct Data(Box<RawValue>);

impl Data {
    fn read(json: &str) -> Option<Data> {
        RawValue::from_string(json.to_owned()).ok().map(Data)
    }

    /// The JSON text.
    #[must_use]
    pub fn as_json(&self) -> &str {
        self.0.get()
    }

    pub(super) fn raw(&self) -> &RawValue {
        &self.0
    }
}

impl PartialEq for Data {
    fn eq(&self, other: &Data) -> bool {
        self.as_json() == other.as_json()
    }
}

impl Eq for Data {}

/// A query as it was read.
pub(super) enum Asked {
    Well {
        query: Query,
        place: Place,
    },
    /// It can only be answered so.
    Badly {
        seq: u64,
        data: Option<Data>,
        errno: Errno,
    },
    /// It has no number, so nobody waits.
    Unanswerable,
}

/// Reads the text of a `queryServer`.
pub(super) fn read(json: &str) -> Asked {
    let names = [
        "seq",
        "data",
        "address",
        "port",
        "addressType",
        "fd",
        "index",
        "flags",
        "backlog",
        "readableAll",
        "writableAll",
    ];
    let Ok(fields) = pick(json, names) else { return Asked::Unanswerable };
    let [seq, data, address, port, address_type, fd, index, flags, backlog, readable, writable] =
        fields;
    let Some(seq) = count(seq) else { return Asked::Unanswerable };
    let data = data.filter(|data| *data != "null");
    if data.is_some_and(|data| data.len() > DATA_MAX) {
        return Asked::Badly { seq, data: None, errno: Errno::EINVAL };
    }
    let data = data.and_then(Data::read);
    let fields = PlaceFields { address, port, address_type, fd, index };
    let Some(place) = Place::read(fields, ADDRESS_MAX) else {
        return Asked::Badly { seq, data, errno: Errno::ENAMETOOLONG };
    };
    let access = Access { readable_by_all: is_true(readable), writable_by_all: is_true(writable) };
    match wanted(fields, count(flags).unwrap_or(0), access) {
        Ok(wanted) => {
            let backlog = count(backlog).and_then(|backlog| u32::try_from(backlog).ok());
            let backlog = backlog.unwrap_or(0);
            Asked::Well { query: Query { key: place.key(), wanted, backlog, data, seq }, place }
        }
        Err(errno) => Asked::Badly { seq, data, errno },
    }
}

fn wanted(fields: PlaceFields<'_>, flags: u64, access: Access) -> Result<Wanted, Errno> {
    let address = text(fields.address).filter(|address| !address.is_empty());
    let family = text(fields.address_type).map(|name| DatagramFamily::read(&name));
    let family = match family {
        Some(Some(family)) => Some(family),
        Some(None) => return Err(Errno::EINVAL),
        None => None,
    };
    if let Some(number) = count(fields.fd) {
        let number = u32::try_from(number).map_err(|_| Errno::EBADF)?;
        let kind = family.map_or(Kind::Stream, Kind::Datagram);
        return Ok(Wanted::Descriptor { number, kind });
    }
    let only = flags & V6_ONLY != 0;
    if let Some(family) = family {
        return Ok(Wanted::Udp {
            host: host(address, family, only)?,
            // A datagram socket may be bound without saying where.
            port: number(fields.port).map_or(Ok(0), u16::try_from).map_err(|_| Errno::EINVAL)?,
            reuse_address: flags & REUSE_ADDRESS != 0,
        });
    }
    let port = number(fields.port).ok_or(Errno::EINVAL)?;
    match (u16::try_from(port), address) {
        (Ok(port), address) => {
            let family = match number(fields.address_type) {
                Some(4) => DatagramFamily::V4,
                Some(6) => DatagramFamily::V6,
                Some(_) | None => return Err(Errno::EINVAL),
            };
            Ok(Wanted::Tcp { host: host(address, family, only)?, port })
        }
        (Err(_), Some(path)) if port == -1 => {
            // Node makes it absolute, and takes nothing with a NUL in it for a name of the file system.
            let is_path = path.starts_with('/') && !path.contains('\0');
            is_path.then_some(Wanted::Unix { path, access }).ok_or(Errno::EINVAL)
        }
        (Err(_), None) if port == -1 => Ok(Wanted::Given),
        (Err(_), _) => Err(Errno::EINVAL),
    }
}

fn host(address: Option<String>, family: DatagramFamily, only: bool) -> Result<Host, Errno> {
    let Some(address) = address else { return Ok(Host::Any) };
    match family {
        DatagramFamily::V4 => address.parse().map(Host::V4).map_err(|_| Errno::EINVAL),
        DatagramFamily::V6 => {
            let (address, zone) = match address.split_once('%') {
                Some((address, zone)) => (address, Some(zone.to_owned())),
                None => (address.as_str(), None),
            };
            let address = address.parse().map_err(|_| Errno::EINVAL)?;
            Ok(Host::V6 { address, zone, only })
        }
    }
}
