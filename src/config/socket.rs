//! What a user may write for a socket (`-p 8000`): from text to a [`SocketSpec`] and back. Its options
//! are read in `socket_options`.
//! It never opens a socket, asks for a name's address, or looks at the machine it runs on.

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use core::str::FromStr;
use std::path::{Path, PathBuf};

use super::socket_options::{self, Kind, OptionError, SocketOptions};
use super::text::one_line;

pub use slots::{PLACEHOLDER, Slots};

mod slots;

/// The longest path of a unix socket: `sun_path` has 108 bytes and the last ends it (unix(7)).
pub const UNIX_PATH_BYTES_MAX: usize = 107;

/// The longest name of a socket (sd_listen_fds(3), `FileDescriptorName=` in systemd.socket(5)).
pub const NAME_BYTES_MAX: usize = 255;

/// Names that mean something of their own in `LISTEN_FDNAMES` (sd_listen_fds_with_names(3)).
const NAMES_RESERVED: [&str; 3] = ["unknown", "stored", "connection"];

/// A socket that a service asks for: `[NAME=][TYPE:]ADDRESS[+{slot}][,OPTION[=VALUE]]...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketSpec {
    /// What workers find it under in `LISTEN_FDNAMES`, and what a handed-over socket matches.
    pub name: Option<SocketName>,
    /// What it carries.
    pub transport: Transport,
    /// Where it is to be reached; of a socket that each slot has, where that of the first slot is.
    pub address: Address,
    /// For which slots it is.
    pub slots: Slots,
    /// What is to be set on it.
    pub options: SocketOptions,
}

/// What a socket carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// Connections that carry bytes: TCP, and unix sockets of type `SOCK_STREAM`.
    Stream,
    /// Datagrams: `udp:`.
    Datagram,
    /// Connections that keep the bounds of messages: `seqpacket:`, unix sockets only.
    Seqpacket,
}

impl Transport {
    /// Whether such a socket listens, and connections are accepted from it.
    #[must_use]
    pub fn accepts(self) -> bool {
        match self {
            Transport::Stream | Transport::Seqpacket => true,
            Transport::Datagram => false,
        }
    }
}

/// Where a socket is to be reached. Port 0 leaves the choice of the port to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `8000`: every address, of both families where the machine has both.
    Port(u16),
    /// `127.0.0.1:8000`, `[::1]:8000`. `[::]:8000` serves IPv4 too, as a bare port does.
    Ip(SocketAddr),
    /// `localhost:8000`: the loopback addresses of both families.
    Localhost(u16),
    /// `unix:/run/x.sock`, `seqpacket:/run/x.sock`: in the file system, relative to the working
    /// directory of shepherd if the path is.
    Unix(PathBuf),
    /// `unix:@name`, `seqpacket:@name`: a unix name without a file (unix(7)), here without the `@`
    /// that stands for its leading NUL byte.
    Abstract(String),
}

/// A name that fits into `LISTEN_FDNAMES`: 1 to 255 printable ASCII characters without `:` and
/// `=`, and none of the names that the convention keeps for itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketName(String);

impl SocketName {
    /// The name as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SocketName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for SocketName {
    type Err = SocketNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(SocketNameError::Empty);
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(SocketNameError::TooLong { bytes: text.len() });
        }
        let forbidden =
            |character: &char| !matches!(character, ' '..='~') || matches!(character, ':' | '=');
        if let Some(character) = text.chars().find(forbidden) {
            return Err(SocketNameError::Character { name: text.to_owned(), character });
        }
        if NAMES_RESERVED.contains(&text) {
            return Err(SocketNameError::Reserved { name: text.to_owned() });
        }
        Ok(SocketName(text.to_owned()))
    }
}

/// Why a text is not the name of a socket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum SocketNameError {
    #[error("the name before `=` is empty; write a name, or leave the `=` away")]
    Empty,
    #[error("its name has {bytes} bytes; at most {NAME_BYTES_MAX} fit into LISTEN_FDNAMES")]
    TooLong { bytes: usize },
    #[error(
        "the name `{}` contains `{}`; use printable ASCII without `:` and `=`",
        one_line(.name),
        one_line(&.character.to_string())
    )]
    Character { name: String, character: char },
    #[error("the name `{name}` is reserved by the LISTEN_FDNAMES convention; choose another")]
    Reserved { name: String },
}

/// What was written, and why it is not a socket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read socket `{}`: {cause}", one_line(.text))]
pub struct SocketSpecError {
    /// What was written, as it was.
    pub text: String,
    /// What is wrong with it, and what to write.
    pub cause: SocketSpecCause,
}

/// Why a text is not a socket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum SocketSpecCause {
    #[error("it is empty; write a port such as `8000`")]
    Empty,
    #[error("there is no port after `udp:`; write one such as `udp:5353`")]
    UdpEmpty,
    #[error("{0}")]
    Name(SocketNameError),
    #[error("it has no port; write `{}`", one_line(.hint))]
    PortMissing { hint: String },
    #[error("port `{port}` is above 65535")]
    PortAbove { port: String },
    #[error("port `{}` is not a number from 0 to 65535", one_line(.port))]
    PortUnreadable { port: String },
    #[error("the host before `:` is empty; write `{hint}` to listen on every address")]
    HostEmpty { hint: String },
    #[error("`*` is not an address; write `{hint}` to listen on every address")]
    HostWildcard { hint: String },
    #[error("`{}` is a name, and names are not looked up; write its IP address", one_line(.host))]
    HostName { host: String },
    #[error(
        "`{host}` is not an IPv4 address; write four numbers from 0 to 255 such as `127.0.0.1`"
    )]
    Ipv4 { host: String },
    #[error("`{}` is not an IPv6 address; write one such as `[::1]:8000`", one_line(.host))]
    Ipv6 { host: String },
    #[error("an IPv6 address needs brackets; write `{}`", one_line(.hint))]
    BracketsMissing { hint: String },
    #[error("the bracket is not closed; write an address such as `[::1]:8000`")]
    BracketOpen,
    #[error(
        "the scope `{}` is not a number; write the interface's index, which `ip link` shows",
        one_line(.scope)
    )]
    Scope { scope: String },
    #[error("it is an IPv4 address written as IPv6; write `{hint}`")]
    Mapped { hint: String },
    #[error("it is a URL; write host and port only, such as `127.0.0.1:8000`")]
    Url,
    #[error("the prefix `tcp:` is not known; write `{}` alone", one_line(.rest))]
    TcpPrefix { rest: String },
    #[error(
        "`{PLACEHOLDER}` stands behind a port, as in `{hint}`, or in a path, as in \
         `unix:/run/web.{PLACEHOLDER}.sock`",
        hint = one_line(.hint)
    )]
    SlotElsewhere { hint: String },
    #[error("each slot needs a port that is known; write one such as `8001+{PLACEHOLDER}`")]
    SlotPortZero,
    #[error(
        "`localhost` is two sockets, one a family; write `{hint}`, and one of `[::1]` beside it \
         if that is needed"
    )]
    SlotLocalhost { hint: String },
    #[error("{0}")]
    Option(OptionError),
    #[error("`{}` is no path; write one such as `seqpacket:/run/x.sock`", one_line(.text))]
    SeqpacketPath { text: String },
    #[error("it looks like a path; write `unix:{}`", one_line(.path))]
    PathWithoutPrefix { path: String },
    #[error("there is no path after `{prefix}`; write one such as `{prefix}/run/x.sock`")]
    PathEmpty { prefix: &'static str },
    #[error("its path names a directory; add the name of the socket")]
    PathDirectory,
    #[error("its path contains a NUL byte")]
    PathNul,
    #[error(
        "its path has {bytes} bytes and at most {UNIX_PATH_BYTES_MAX} fit; \
         choose a shorter one, or one relative to the working directory"
    )]
    PathTooLong { bytes: usize },
}

impl FromStr for SocketSpec {
    type Err = SocketSpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        spec(text).map_err(|cause| SocketSpecError { text: text.to_owned(), cause })
    }
}

impl fmt::Display for SocketSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(formatter, "{}=", name.as_str().replace(',', ",,"))?;
        }
        formatter.write_str(&self.place().replace(',', ",,"))?;
        self.options.fmt(formatter)
    }
}

impl SocketSpec {
    /// What kind of socket it is, for its options.
    #[must_use]
    pub fn kind(&self) -> Kind {
        kind(self.transport, &self.address)
    }

    /// Whether several sockets of ours can have its address, so that new connections can be sent to
    /// one of them and not to another.
    #[must_use]
    pub fn is_steerable(&self) -> bool {
        match (self.transport, &self.address) {
            (
                Transport::Stream | Transport::Datagram,
                Address::Port(_) | Address::Ip(_) | Address::Localhost(_),
            ) => true,
            (Transport::Seqpacket, _) | (_, Address::Unix(_) | Address::Abstract(_)) => false,
        }
    }

    /// Whether the kernel chooses the port, another each time.
    #[must_use]
    pub fn is_any_port(&self) -> bool {
        match &self.address {
            Address::Port(port) | Address::Localhost(port) => *port == 0,
            Address::Ip(address) => address.port() == 0,
            Address::Unix(_) | Address::Abstract(_) => false,
        }
    }

    /// Where it is to be reached, without name and options: `udp:5353`.
    #[must_use]
    pub fn place(&self) -> String {
        let place = match (self.transport, &self.address) {
            (Transport::Stream, address) => address.to_string(),
            (Transport::Datagram, address) => format!("udp:{address}"),
            (Transport::Seqpacket, address) => {
                let text = address.to_string();
                format!("seqpacket:{}", text.strip_prefix("unix:").unwrap_or(&text))
            }
        };
        format!("{place}{}", self.slots.suffix(&self.address))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Port(port) => write!(formatter, "{port}"),
            Address::Ip(address) => write!(formatter, "{address}"),
            Address::Localhost(port) => write!(formatter, "localhost:{port}"),
            Address::Unix(path) => write!(formatter, "unix:{}", path.display()),
            Address::Abstract(name) => write!(formatter, "unix:@{name}"),
        }
    }
}

fn spec(text: &str) -> Result<SocketSpec, SocketSpecCause> {
    let mut parts = parts(text);
    let options = parts.split_off(1);
    let text = parts.first().map(String::as_str).unwrap_or_default();
    // No name has a colon and no address has `=` before its first colon, so `unix:/run/a=b.sock`
    // is a path and nothing can be read both ways.
    let is_path = |name: &str| name.starts_with("unix:") || name.starts_with("seqpacket:");
    let (name, text) = match text.split_once('=') {
        Some((name, rest)) if !is_path(name) => {
            (Some(name.parse().map_err(SocketSpecCause::Name)?), rest)
        }
        Some(_) | None => (None, text),
    };
    let in_name = name.as_ref().is_some_and(|name: &SocketName| slots::are_in(name.as_str()));
    if in_name || options.iter().any(|option| slots::are_in(option)) {
        return Err(slots::elsewhere(text));
    }
    let (slots, text) = slots::take(text)?;
    let (transport, address) = endpoint(text)?;
    slots.check(transport, &address)?;
    let kind = kind(transport, &address);
    let options = socket_options::read(&options, kind).map_err(SocketSpecCause::Option)?;
    Ok(SocketSpec { name, transport, address, slots, options })
}

/// Splits at single commas; two of them stand for one that belongs to the text. Never empty.
fn parts(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(char) = rest.next() {
        if char == ',' && rest.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(last) = parts.last_mut() {
            last.push(char);
        }
    }
    parts
}

fn kind(transport: Transport, address: &Address) -> Kind {
    let wildcard = match address {
        Address::Unix(_) => return Kind::UnixPath,
        Address::Abstract(_) => return Kind::Abstract,
        Address::Port(_) => true,
        Address::Ip(address) => address.ip() == Ipv6Addr::UNSPECIFIED,
        Address::Localhost(_) => false,
    };
    match (transport, wildcard) {
        (Transport::Datagram, true) => Kind::UdpWildcard,
        (Transport::Datagram, false) => Kind::Udp,
        (Transport::Stream | Transport::Seqpacket, true) => Kind::TcpWildcard,
        (Transport::Stream | Transport::Seqpacket, false) => Kind::Tcp,
    }
}

fn endpoint(text: &str) -> Result<(Transport, Address), SocketSpecCause> {
    const UNIX: &str = "unix:";
    const SEQPACKET: &str = "seqpacket:";
    if let Some(path) = text.strip_prefix(UNIX) {
        return Ok((Transport::Stream, unix(UNIX, path)?));
    }
    if let Some(path) = text.strip_prefix(SEQPACKET) {
        if path.bytes().all(|byte| byte.is_ascii_digit()) && !path.is_empty() {
            return Err(SocketSpecCause::SeqpacketPath { text: path.to_owned() });
        }
        return Ok((Transport::Seqpacket, unix(SEQPACKET, path)?));
    }
    match text.strip_prefix("udp:") {
        Some("") => Err(SocketSpecCause::UdpEmpty),
        Some(rest) => Ok((Transport::Datagram, address(rest).map_err(after_udp)?)),
        None => Ok((Transport::Stream, address(text)?)),
    }
}

/// What to write instead, with the prefix that stood before it.
fn after_udp(mut cause: SocketSpecCause) -> SocketSpecCause {
    if let SocketSpecCause::PortMissing { hint }
    | SocketSpecCause::HostEmpty { hint }
    | SocketSpecCause::HostWildcard { hint }
    | SocketSpecCause::BracketsMissing { hint }
    | SocketSpecCause::Mapped { hint } = &mut cause
    {
        hint.insert_str(0, "udp:");
    }
    cause
}

fn address(text: &str) -> Result<Address, SocketSpecCause> {
    if text.is_empty() {
        return Err(SocketSpecCause::Empty);
    }
    if let Some(rest) = text.strip_prefix("tcp:") {
        return Err(SocketSpecCause::TcpPrefix { rest: rest.to_owned() });
    }
    if text.contains("://") {
        return Err(SocketSpecCause::Url);
    }
    if text.contains('/') {
        return Err(SocketSpecCause::PathWithoutPrefix { path: text.to_owned() });
    }
    if let Some(inside) = text.strip_prefix('[') {
        return bracketed(inside);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return port(text).map(Address::Port);
    }
    let Some((host, port_text)) = text.rsplit_once(':') else {
        return Err(SocketSpecCause::PortMissing { hint: format!("{text}:8000") });
    };
    if let Ok(host) = host.parse::<Ipv6Addr>() {
        return Err(SocketSpecCause::BracketsMissing { hint: format!("[{host}]:{port_text}") });
    }
    if let Ok(host) = text.parse::<Ipv6Addr>() {
        return Err(SocketSpecCause::BracketsMissing { hint: format!("[{host}]:8000") });
    }
    let port = port(port_text).map_err(|cause| match cause {
        SocketSpecCause::PortUnreadable { port } if port.is_empty() => {
            SocketSpecCause::PortMissing { hint: format!("{host}:8000") }
        }
        cause => cause,
    })?;
    match host {
        "" => Err(SocketSpecCause::HostEmpty { hint: port.to_string() }),
        "*" => Err(SocketSpecCause::HostWildcard { hint: port.to_string() }),
        host if host.eq_ignore_ascii_case("localhost") => Ok(Address::Localhost(port)),
        host => match host.parse::<Ipv4Addr>() {
            Ok(ip) => Ok(Address::Ip(SocketAddr::from((ip, port)))),
            Err(_) if host.bytes().all(|byte| byte == b'.' || byte.is_ascii_digit()) => {
                Err(SocketSpecCause::Ipv4 { host: host.to_owned() })
            }
            Err(_) => Err(SocketSpecCause::HostName { host: host.to_owned() }),
        },
    }
}

/// Reads `::1]:8000`, what stands after an opening bracket.
fn bracketed(inside: &str) -> Result<Address, SocketSpecCause> {
    let Some((host, rest)) = inside.split_once(']') else {
        return Err(SocketSpecCause::BracketOpen);
    };
    let (ip_text, scope_text) = match host.split_once('%') {
        Some((ip_text, scope_text)) => (ip_text, Some(scope_text)),
        None => (host, None),
    };
    let Ok(ip) = ip_text.parse::<Ipv6Addr>() else {
        return Err(SocketSpecCause::Ipv6 { host: host.to_owned() });
    };
    let scope = match scope_text {
        // The name of an interface would have to be looked up on this machine.
        Some(scope_text) => number(scope_text)
            .ok_or_else(|| SocketSpecCause::Scope { scope: scope_text.to_owned() })?,
        None => 0,
    };
    let port_text = rest.strip_prefix(':').unwrap_or_default();
    if port_text.is_empty() {
        return Err(SocketSpecCause::PortMissing { hint: format!("[{host}]:8000") });
    }
    let port = port(port_text)?;
    if let Some(ip) = ip.to_ipv4_mapped() {
        return Err(SocketSpecCause::Mapped { hint: format!("{ip}:{port}") });
    }
    Ok(Address::Ip(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope))))
}

fn port(text: &str) -> Result<u16, SocketSpecCause> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(SocketSpecCause::PortUnreadable { port: text.to_owned() });
    }
    text.parse().map_err(|_| SocketSpecCause::PortAbove { port: text.to_owned() })
}

/// A number in digits alone; `str::parse` would take a `+` as well.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn unix(prefix: &'static str, path: &str) -> Result<Address, SocketSpecCause> {
    if matches!(path, "" | "@") {
        return Err(SocketSpecCause::PathEmpty { prefix });
    }
    if path.contains('\0') {
        return Err(SocketSpecCause::PathNul);
    }
    // A name has no byte that ends it, and the `@` stands for the one that begins it.
    let name = path.strip_prefix('@');
    let bytes = slots::longest(path);
    if bytes > UNIX_PATH_BYTES_MAX + usize::from(name.is_some()) {
        return Err(SocketSpecCause::PathTooLong { bytes });
    }
    if let Some(name) = name {
        return Ok(Address::Abstract(name.to_owned()));
    }
    // `Path` forgets a last `/` and a last `/.`, so the text is asked.
    let last = path.rsplit('/').next().unwrap_or_default();
    if matches!(last, "" | "." | "..") {
        return Err(SocketSpecCause::PathDirectory);
    }
    Ok(Address::Unix(Path::new(path).to_owned()))
}

#[cfg(test)]
mod tests;
