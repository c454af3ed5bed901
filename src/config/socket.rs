//! What a user may write for a socket (`-p 8000`): from text to a [`SocketSpec`] and back.
//! It never opens a socket, asks for a name's address, or looks at the machine it runs on.

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use core::str::FromStr;
use std::path::{Path, PathBuf};

use super::text::one_line;

/// The longest path of a unix socket: `sun_path` has 108 bytes and the last ends it (unix(7)).
pub const UNIX_PATH_BYTES_MAX: usize = 107;

/// The longest name of a socket (sd_listen_fds(3), `FileDescriptorName=` in systemd.socket(5)).
pub const NAME_BYTES_MAX: usize = 255;

/// Names that mean something of their own in `LISTEN_FDNAMES` (sd_listen_fds_with_names(3)).
const NAMES_RESERVED: [&str; 3] = ["unknown", "stored", "connection"];

/// A socket that a service asks for: `[NAME=]ADDRESS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketSpec {
    /// What workers find it under in `LISTEN_FDNAMES`, and what a handed-over socket matches.
    pub name: Option<SocketName>,
    /// Where it is to listen.
    pub address: Address,
}

/// Where a socket is to listen. Port 0 leaves the choice of the port to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `8000`: every address, of both families where the machine has both.
    Port(u16),
    /// `127.0.0.1:8000`, `[::1]:8000`. `[::]:8000` serves IPv4 too, as a bare port does.
    Ip(SocketAddr),
    /// `localhost:8000`: the loopback addresses of both families.
    Localhost(u16),
    /// `unix:/run/x.sock`: a stream socket in the file system, relative to the working directory
    /// of shepherd if the path is.
    Unix(PathBuf),
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
    #[error("{0}")]
    Name(SocketNameError),
    #[error("it has no port; write `{}`", one_line(.hint))]
    PortMissing { hint: String },
    #[error("port `{port}` is above 65535")]
    PortAbove { port: String },
    #[error("port `{}` is not a number from 0 to 65535", one_line(.port))]
    PortUnreadable { port: String },
    #[error("the host before `:` is empty; write `{port}` to listen on every address")]
    HostEmpty { port: u16 },
    #[error("`*` is not an address; write `{port}` to listen on every address")]
    HostWildcard { port: u16 },
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
    #[error("{kind} is not supported; use a TCP port or `unix:PATH`, which are stream sockets")]
    Unsupported { kind: Unsupported },
    #[error("it looks like a path; write `unix:{}`", one_line(.path))]
    PathWithoutPrefix { path: String },
    #[error("there is no path after `unix:`; write one such as `unix:/run/x.sock`")]
    PathEmpty,
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

/// Kinds of sockets that other programs know and this one does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// `udp:`, a datagram socket.
    Udp,
    /// `seqpacket:`, a unix socket that keeps the bounds of messages.
    Seqpacket,
    /// `unix:@`, a unix name without a file.
    Abstract,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Unsupported::Udp => "a UDP socket (`udp:`)",
            Unsupported::Seqpacket => "a sequenced packet socket (`seqpacket:`)",
            Unsupported::Abstract => "an abstract unix name (`unix:@`)",
        })
    }
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
            write!(formatter, "{name}=")?;
        }
        self.address.fmt(formatter)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Port(port) => write!(formatter, "{port}"),
            Address::Ip(address) => write!(formatter, "{address}"),
            Address::Localhost(port) => write!(formatter, "localhost:{port}"),
            Address::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

fn spec(text: &str) -> Result<SocketSpec, SocketSpecCause> {
    // No name has a colon and no address has `=` before its first colon, so `unix:/run/a=b.sock`
    // is a path and nothing can be read both ways.
    match text.split_once('=') {
        Some((name, rest)) if !name.starts_with("unix:") => {
            let name = name.parse().map_err(SocketSpecCause::Name)?;
            Ok(SocketSpec { name: Some(name), address: address(rest)? })
        }
        Some(_) | None => Ok(SocketSpec { name: None, address: address(text)? }),
    }
}

fn address(text: &str) -> Result<Address, SocketSpecCause> {
    if text.is_empty() {
        return Err(SocketSpecCause::Empty);
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path).map(Address::Unix);
    }
    if text.starts_with("udp:") {
        return Err(SocketSpecCause::Unsupported { kind: Unsupported::Udp });
    }
    if text.starts_with("seqpacket:") {
        return Err(SocketSpecCause::Unsupported { kind: Unsupported::Seqpacket });
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
        "" => Err(SocketSpecCause::HostEmpty { port }),
        "*" => Err(SocketSpecCause::HostWildcard { port }),
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

fn unix(path: &str) -> Result<PathBuf, SocketSpecCause> {
    if path.is_empty() {
        return Err(SocketSpecCause::PathEmpty);
    }
    if path.starts_with('@') {
        return Err(SocketSpecCause::Unsupported { kind: Unsupported::Abstract });
    }
    if path.contains('\0') {
        return Err(SocketSpecCause::PathNul);
    }
    if path.len() > UNIX_PATH_BYTES_MAX {
        return Err(SocketSpecCause::PathTooLong { bytes: path.len() });
    }
    // `Path` forgets a last `/` and a last `/.`, so the text is asked.
    let last = path.rsplit('/').next().unwrap_or_default();
    if matches!(last, "" | "." | "..") {
        return Err(SocketSpecCause::PathDirectory);
    }
    Ok(Path::new(path).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_every_form() {
        let ip = |text: &str| Address::Ip(text.parse().unwrap());
        let unix = |path: &str| Address::Unix(PathBuf::from(path));
        for (text, name, address) in [
            ("8000", None, Address::Port(8000)),
            ("0", None, Address::Port(0)),
            ("65535", None, Address::Port(65535)),
            ("127.0.0.1:8000", None, ip("127.0.0.1:8000")),
            ("0.0.0.0:0", None, ip("0.0.0.0:0")),
            ("[::1]:8000", None, ip("[::1]:8000")),
            ("[::]:8000", None, ip("[::]:8000")),
            ("[fe80::1%2]:80", None, ip("[fe80::1%2]:80")),
            ("localhost:8000", None, Address::Localhost(8000)),
            ("unix:/run/x.sock", None, unix("/run/x.sock")),
            ("unix:x.sock", None, unix("x.sock")),
            ("unix:/run/a=b.sock", None, unix("/run/a=b.sock")),
            ("unix:./@x", None, unix("./@x")),
            ("web=8000", Some("web"), Address::Port(8000)),
            ("my web/1=[::1]:0", Some("my web/1"), ip("[::1]:0")),
            ("web=unix:/run/a=b.sock", Some("web"), unix("/run/a=b.sock")),
        ] {
            let name = name.map(|name: &str| name.parse().unwrap());
            let spec = SocketSpec { name, address };
            assert_eq!(text.parse(), Ok(spec.clone()), "{text}");
            assert_eq!(spec.to_string(), text);
        }
    }

    #[test]
    fn reads_other_spellings_of_the_same_socket() {
        for (text, canonical) in [
            ("08000", "8000"),
            ("LocalHost:80", "localhost:80"),
            ("[0:0::1]:80", "[::1]:80"),
            ("[fe80::1%0]:80", "[fe80::1]:80"),
        ] {
            assert_eq!(text.parse::<SocketSpec>().unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn says_what_is_wrong_and_what_to_write() {
        for (text, cause) in [
            ("", "it is empty; write a port such as `8000`"),
            ("web=", "it is empty; write a port such as `8000`"),
            ("80000", "port `80000` is above 65535"),
            ("127.0.0.1:65536", "port `65536` is above 65535"),
            ("127.0.0.1", "it has no port; write `127.0.0.1:8000`"),
            ("127.0.0.1:", "it has no port; write `127.0.0.1:8000`"),
            ("127.0.0.1:http", "port `http` is not a number from 0 to 65535"),
            ("127.0.0.1:+80", "port `+80` is not a number from 0 to 65535"),
            ("-1", "it has no port; write `-1:8000`"),
            (":8000", "the host before `:` is empty; write `8000` to listen on every address"),
            ("*:8000", "`*` is not an address; write `8000` to listen on every address"),
            (
                "example.com:80",
                "`example.com` is a name, and names are not looked up; write its IP address",
            ),
            (
                "256.0.0.1:80",
                "`256.0.0.1` is not an IPv4 address; write four numbers from 0 to 255 \
                 such as `127.0.0.1`",
            ),
            ("::1:8000", "an IPv6 address needs brackets; write `[::1]:8000`"),
            ("::1", "an IPv6 address needs brackets; write `[::1]:8000`"),
            ("[::1]", "it has no port; write `[::1]:8000`"),
            ("[::1]8000", "it has no port; write `[::1]:8000`"),
            ("[::1:80", "the bracket is not closed; write an address such as `[::1]:8000`"),
            ("[x]:80", "`x` is not an IPv6 address; write one such as `[::1]:8000`"),
            (
                "[127.0.0.1]:80",
                "`127.0.0.1` is not an IPv6 address; write one such as `[::1]:8000`",
            ),
            (
                "[fe80::1%eth0]:80",
                "the scope `eth0` is not a number; write the interface's index, \
                 which `ip link` shows",
            ),
            (
                "[::ffff:127.0.0.1]:80",
                "it is an IPv4 address written as IPv6; write `127.0.0.1:80`",
            ),
            (
                "http://localhost:80",
                "it is a URL; write host and port only, such as `127.0.0.1:8000`",
            ),
            ("tcp:80", "the prefix `tcp:` is not known; write `80` alone"),
            ("/run/x.sock", "it looks like a path; write `unix:/run/x.sock`"),
            ("unix:", "there is no path after `unix:`; write one such as `unix:/run/x.sock`"),
            ("unix:/run/", "its path names a directory; add the name of the socket"),
            ("unix:/run/..", "its path names a directory; add the name of the socket"),
            ("unix:/a\0b", "its path contains a NUL byte"),
            ("=8000", "the name before `=` is empty; write a name, or leave the `=` away"),
            ("a:b=8000", "the name `a:b` contains `:`; use printable ASCII without `:` and `=`"),
            ("tür=8000", "the name `tür` contains `ü`; use printable ASCII without `:` and `=`"),
            (
                "a\nb=8000",
                "the name `a\\nb` contains `\\n`; use printable ASCII without `:` and `=`",
            ),
            (
                "unknown=8000",
                "the name `unknown` is reserved by the LISTEN_FDNAMES convention; choose another",
            ),
            (
                "connection=8000",
                "the name `connection` is reserved by the LISTEN_FDNAMES convention; \
                 choose another",
            ),
        ] {
            let error = text.parse::<SocketSpec>().expect_err(text).to_string();
            assert_eq!(error, format!("cannot read socket `{}`: {cause}", one_line(text)));
        }
    }

    #[test]
    fn says_what_is_supported_instead() {
        let instead = "is not supported; use a TCP port or `unix:PATH`, which are stream sockets";
        for (text, kind) in [
            ("udp:5353", "a UDP socket (`udp:`)"),
            ("seqpacket:/run/x.sock", "a sequenced packet socket (`seqpacket:`)"),
            ("dns=unix:@x", "an abstract unix name (`unix:@`)"),
        ] {
            let error = text.parse::<SocketSpec>().expect_err(text).to_string();
            assert_eq!(error, format!("cannot read socket `{text}`: {kind} {instead}"));
        }
    }

    #[test]
    fn limits_paths_and_names_by_their_bytes() {
        let path = |bytes: usize| format!("unix:/{}", "x".repeat(bytes - 1));
        assert!(path(107).parse::<SocketSpec>().is_ok());
        let error = path(108).parse::<SocketSpec>().unwrap_err();
        assert_eq!(error.cause, SocketSpecCause::PathTooLong { bytes: 108 });
        let umlauts = format!("unix:/{}", "ü".repeat(54));
        assert!(umlauts.parse::<SocketSpec>().is_err());

        assert!("n".repeat(255).parse::<SocketName>().is_ok());
        let error = "n".repeat(256).parse::<SocketName>().unwrap_err();
        assert_eq!(error, SocketNameError::TooLong { bytes: 256 });
    }

    fn addresses() -> impl Strategy<Value = Address> {
        let v6 = any::<([u8; 16], u16, u32)>()
            .prop_map(|(ip, port, scope)| SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, scope))
            .prop_filter("mapped", |address| address.ip().to_ipv4_mapped().is_none());
        prop_oneof![
            any::<u16>().prop_map(Address::Port),
            any::<u16>().prop_map(Address::Localhost),
            any::<([u8; 4], u16)>()
                .prop_map(|(ip, port)| Address::Ip(SocketAddr::from((ip, port)))),
            v6.prop_map(|address| Address::Ip(SocketAddr::V6(address))),
            "/?([a-z=:. @ü-]{1,9}/){0,3}[a-z=:@][a-z=:. @ü-]{0,9}"
                .prop_filter("abstract", |path| !path.starts_with('@'))
                .prop_map(|path| Address::Unix(PathBuf::from(path))),
        ]
    }

    fn names() -> impl Strategy<Value = SocketName> {
        "[ -9;<>-~]{1,255}".prop_filter_map("reserved", |text| text.parse().ok())
    }

    proptest! {
        #[test]
        fn survives_writing_and_reading(
            name in proptest::option::of(names()),
            address in addresses(),
        ) {
            let spec = SocketSpec { name, address };
            prop_assert_eq!(spec.to_string().parse(), Ok(spec));
        }

        #[test]
        fn any_text_is_read_or_refused_on_one_line(text in any::<String>()) {
            match text.parse::<SocketSpec>() {
                Ok(spec) => prop_assert_eq!(spec.to_string().parse(), Ok(spec)),
                Err(error) => prop_assert!(!error.to_string().contains(char::is_control)),
            }
        }

        #[test]
        fn text_of_the_grammar_is_read_or_refused(
            text in "(a=|unix:|udp:|=)?[0-9a-f:.%*/@\\[\\]=]{0,20}",
        ) {
            if let Ok(spec) = text.parse::<SocketSpec>() {
                prop_assert_eq!(spec.to_string().parse(), Ok(spec));
            }
        }
    }
}
