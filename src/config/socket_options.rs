//! The options of a socket (`-p 8000,backlog=1024,v6only`): from text to [`SocketOptions`] and back.
//! It never sets one, looks a user up, or asks what the kernel of this machine allows.

use core::fmt;
use std::time::Duration;

use super::identity::Account;
use super::text::one_line;
use super::values;

/// How many connections may wait unless told otherwise: the kernel's own default limit,
/// `net.core.somaxconn` (tcp(7)).
pub const BACKLOG: u32 = 4096;

/// Who may connect to a unix socket unless told otherwise: owner and group (unix(7): connecting needs
/// write permission).
pub const MODE: u32 = 0o660;

/// The longest name of a network interface, `IFNAMSIZ` less the NUL byte that ends it.
const INTERFACE_BYTES_MAX: usize = 15;

/// What is to be set on a socket. What is not asked for stays as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own, on or off")]
pub struct SocketOptions {
    /// `backlog`: how many connections may wait to be accepted, [`BACKLOG`] without it.
    pub backlog: Option<u32>,
    /// `reuse_port`: other sockets of this user may be bound to the same address (socket(7)).
    pub reuse_port: bool,
    /// `v6only`: a wildcard of IPv6 takes no IPv4 (ipv6(7)).
    pub v6only: bool,
    /// `freebind`: the address need not be there yet (ip(7)).
    pub freebind: bool,
    /// `transparent`: the address may be anybody's (ip(7), `IP_TRANSPARENT`).
    pub transparent: bool,
    /// `fast_open`: how many connections may begin with data in their first packet (tcp(7)).
    pub fast_open: Option<u32>,
    /// `defer_accept`: for so long a connection is held back until data comes; whole seconds, which the
    /// kernel rounds up to a number of retransmissions: 1, 3, 7, 15, 31 s (tcp(7)).
    pub defer_accept: Option<Duration>,
    /// `no_delay`: small packets go out at once (tcp(7)); accepted connections inherit it.
    pub no_delay: bool,
    /// `non_blocking`: calls on it never wait, whatever a worker expects (`O_NONBLOCK` in open(2)).
    pub non_blocking: bool,
    /// `keep_alive`: idle connections are probed (socket(7)); accepted connections inherit it.
    pub keep_alive: bool,
    /// `bind_to_device`: only what comes over this interface (socket(7)).
    pub bind_to_device: Option<String>,
    /// `mark`: the firewall's mark of what is sent (socket(7)).
    pub mark: Option<u32>,
    /// `receive_buffer`: its bytes (socket(7), `SO_RCVBUF`; the kernel doubles it for itself).
    pub receive_buffer: Option<u32>,
    /// `send_buffer`: its bytes (socket(7), `SO_SNDBUF`; the kernel doubles it for itself).
    pub send_buffer: Option<u32>,
    /// `mode`: the permissions of a unix socket's file, [`MODE`] without it.
    pub mode: Option<u32>,
    /// `user`: who owns a unix socket's file, by name or number.
    pub user: Option<Account>,
    /// `group`: the group of a unix socket's file, by name or number.
    pub group: Option<Account>,
    /// `unlink`: what becomes of a unix socket's file when shepherd stops.
    pub at_the_stop: AtTheStop,
}

/// What becomes of the file of a unix socket when shepherd stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AtTheStop {
    /// It is removed.
    #[default]
    Removed,
    /// It stays, and clients find nobody behind it: `unlink=no`.
    Kept,
}

impl SocketOptions {
    /// How many connections may wait to be accepted.
    #[must_use]
    pub fn backlog(&self) -> u32 {
        self.backlog.unwrap_or(BACKLOG)
    }

    /// The permissions of a unix socket's file.
    #[must_use]
    pub fn mode(&self) -> u32 {
        self.mode.unwrap_or(MODE)
    }

    /// The options among these that a bound socket cannot be given.
    pub fn before_bind(&self) -> impl Iterator<Item = &'static str> {
        let known = KNOWN.iter().filter(|known| known.moment == Moment::BeforeBind);
        known.filter(|known| (known.write)(self).is_some()).map(|known| known.name)
    }
}

/// Kinds of sockets that an option may be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `8000`, `[::]:8000`: TCP on every address of IPv6.
    TcpWildcard,
    /// Any other TCP address.
    Tcp,
    /// `udp:8000`, `udp:[::]:8000`.
    UdpWildcard,
    /// Any other UDP address.
    Udp,
    /// A unix path, of stream or sequenced packets.
    UnixPath,
    /// A unix name without a file.
    Abstract,
}

impl Kind {
    fn listens(self) -> bool {
        self.is_tcp() || matches!(self, Kind::UnixPath | Kind::Abstract)
    }

    fn is_tcp(self) -> bool {
        matches!(self, Kind::TcpWildcard | Kind::Tcp)
    }

    fn is_ip(self) -> bool {
        self.is_tcp() || matches!(self, Kind::UdpWildcard | Kind::Udp)
    }

    fn has_v6_wildcard(self) -> bool {
        matches!(self, Kind::TcpWildcard | Kind::UdpWildcard)
    }

    fn is_path(self) -> bool {
        self == Kind::UnixPath
    }
}

/// Why an option cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum OptionError {
    #[error(
        "there is nothing after a comma; write an option such as `backlog=1024`, or `,,` for a comma"
    )]
    Empty,
    #[error("it has no option `{}`; there {}; for a comma write `,,`", one_line(.name), nearest(.name))]
    Unknown { name: String },
    #[error("the option `{name}` is given twice; give it once")]
    Twice { name: &'static str },
    #[error("the option `{name}` is for {which} only; leave it away")]
    Misplaced { name: &'static str, which: &'static str },
    #[error("the option `{name}` needs a value; write `{name}={example}`")]
    ValueMissing { name: &'static str, example: &'static str },
    #[error("`{name}={}` is not {what}; write `{name}={example}`", one_line(.value))]
    Value { name: &'static str, value: String, what: &'static str, example: &'static str },
}

/// The known name that is nearest, or all of them where none is near.
fn nearest(name: &str) -> String {
    let close = |known: &&Known| strsim::jaro_winkler(known.name, name) > 0.8;
    let distance = |known: &&Known| strsim::damerau_levenshtein(known.name, name);
    if let Some(known) = KNOWN.iter().filter(close).min_by_key(distance) {
        return format!("is `{}`", known.name);
    }
    let names: Vec<&str> = KNOWN.iter().map(|known| known.name).collect();
    format!("are {}", names.join(", "))
}

/// An option: what it is called, where it makes sense, how it is read and written.
struct Known {
    name: &'static str,
    moment: Moment,
    fits: fn(Kind) -> bool,
    which: &'static str,
    what: &'static str,
    example: &'static str,
    read: fn(&mut SocketOptions, &str) -> Option<()>,
    /// The value if it is not the one that stands without the option.
    write: fn(&SocketOptions) -> Option<String>,
}

/// When an option can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// Only before a socket is bound, or with its binding.
    BeforeBind,
    /// Also on a socket that is bound.
    AnyTime,
}

const ALL: &str = "all sockets";
const TCP: &str = "TCP sockets";
const IP: &str = "TCP and UDP sockets";
const WILDCARD: &str = "a bare port or `[::]`";
const PATH: &str = "unix sockets with a path";
const LISTENING: &str = "sockets that accept connections";

const KNOWN: &[Known] = &[
    Known {
        name: "backlog",
        moment: Moment::AnyTime,
        fits: Kind::listens,
        which: LISTENING,
        what: "a number from 1 to 2147483647",
        example: "1024",
        read: |options, text| set(&mut options.backlog, positive(text)),
        write: |options| options.backlog.map(|number| number.to_string()),
    },
    Known {
        name: "reuse_port",
        moment: Moment::BeforeBind,
        fits: Kind::is_ip,
        which: IP,
        what: FLAG,
        example: "yes",
        read: |options, text| flag(&mut options.reuse_port, text),
        write: |options| raised(options.reuse_port),
    },
    Known {
        name: "v6only",
        moment: Moment::BeforeBind,
        fits: Kind::has_v6_wildcard,
        which: WILDCARD,
        what: FLAG,
        example: "yes",
        read: |options, text| flag(&mut options.v6only, text),
        write: |options| raised(options.v6only),
    },
    Known {
        name: "freebind",
        moment: Moment::BeforeBind,
        fits: Kind::is_ip,
        which: IP,
        what: FLAG,
        example: "yes",
        read: |options, text| flag(&mut options.freebind, text),
        write: |options| raised(options.freebind),
    },
    Known {
        name: "transparent",
        moment: Moment::BeforeBind,
        fits: Kind::is_ip,
        which: IP,
        what: FLAG,
        example: "yes",
        read: |options, text| flag(&mut options.transparent, text),
        write: |options| raised(options.transparent),
    },
    Known {
        name: "bind_to_device",
        moment: Moment::BeforeBind,
        fits: Kind::is_ip,
        which: IP,
        what: "the name of a network interface",
        example: "eth0",
        read: |options, text| set(&mut options.bind_to_device, interface(text)),
        write: |options| options.bind_to_device.clone(),
    },
    Known {
        name: "fast_open",
        moment: Moment::AnyTime,
        fits: Kind::is_tcp,
        which: TCP,
        what: "a number from 1 to 2147483647",
        example: "256",
        read: |options, text| set(&mut options.fast_open, positive(text)),
        write: |options| options.fast_open.map(|number| number.to_string()),
    },
    Known {
        name: "defer_accept",
        moment: Moment::AnyTime,
        fits: Kind::is_tcp,
        which: TCP,
        what: "a duration of whole seconds",
        example: "5s",
        read: |options, text| set(&mut options.defer_accept, whole_seconds(text)),
        write: |options| options.defer_accept.map(|time| format!("{}s", time.as_secs())),
    },
    Known {
        name: "no_delay",
        moment: Moment::AnyTime,
        fits: Kind::is_tcp,
        which: TCP,
        what: FLAG,
        example: "yes",
        read: |options, text| flag(&mut options.no_delay, text),
        write: |options| raised(options.no_delay),
    },
    Known {
        name: "keep_alive",
        moment: Moment::AnyTime,
        fits: Kind::is_tcp,
        which: TCP,
        what: FLAG,
        example: "yes",
        read: |options, text| flag(&mut options.keep_alive, text),
        write: |options| raised(options.keep_alive),
    },
    Known {
        name: "non_blocking",
        moment: Moment::AnyTime,
        fits: |_| true,
        which: ALL,
        what: FLAG,
        example: "yes",
        read: |options, text| flag(&mut options.non_blocking, text),
        write: |options| raised(options.non_blocking),
    },
    Known {
        name: "mark",
        moment: Moment::AnyTime,
        fits: Kind::is_ip,
        which: IP,
        what: "a number from 0 to 4294967295, or 0x and such a number in hexadecimal",
        example: "0x2a",
        read: |options, text| set(&mut options.mark, firewall_mark(text)),
        write: |options| options.mark.map(|number| number.to_string()),
    },
    Known {
        name: "receive_buffer",
        moment: Moment::AnyTime,
        fits: Kind::is_ip,
        which: IP,
        what: "a size of at most 1G",
        example: "256k",
        read: |options, text| set(&mut options.receive_buffer, size(text)),
        write: |options| options.receive_buffer.map(|size| size.to_string()),
    },
    Known {
        name: "send_buffer",
        moment: Moment::AnyTime,
        fits: Kind::is_ip,
        which: IP,
        what: "a size of at most 1G",
        example: "256k",
        read: |options, text| set(&mut options.send_buffer, size(text)),
        write: |options| options.send_buffer.map(|size| size.to_string()),
    },
    Known {
        name: "mode",
        moment: Moment::BeforeBind,
        fits: Kind::is_path,
        which: PATH,
        what: "an octal number from 0 to 0777",
        example: "0660",
        read: |options, text| set(&mut options.mode, mode(text)),
        write: |options| options.mode.map(|mode| format!("{mode:04o}")),
    },
    Known {
        name: "user",
        moment: Moment::BeforeBind,
        fits: Kind::is_path,
        which: PATH,
        what: "a user's name or number",
        example: "www-data",
        read: |options, text| set(&mut options.user, text.parse().ok()),
        write: |options| options.user.as_ref().map(ToString::to_string),
    },
    Known {
        name: "group",
        moment: Moment::BeforeBind,
        fits: Kind::is_path,
        which: PATH,
        what: "a group's name or number",
        example: "www-data",
        read: |options, text| set(&mut options.group, text.parse().ok()),
        write: |options| options.group.as_ref().map(ToString::to_string),
    },
    Known {
        name: "unlink",
        moment: Moment::BeforeBind,
        fits: Kind::is_path,
        which: PATH,
        what: FLAG,
        example: "no",
        read: |options, text| {
            let mut unlink = true;
            flag(&mut unlink, text)?;
            options.at_the_stop = if unlink { AtTheStop::Removed } else { AtTheStop::Kept };
            Some(())
        },
        write: |options| match options.at_the_stop {
            AtTheStop::Removed => None,
            AtTheStop::Kept => Some("no".to_owned()),
        },
    },
];

const FLAG: &str = "`yes` or `no`";

/// The names of all options.
pub fn names() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().map(|known| known.name)
}

/// What there is to know of an option before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// Its name.
    pub name: &'static str,
    /// Which sockets can have it.
    pub which: &'static str,
    /// What its value is.
    pub what: &'static str,
    /// A value.
    pub example: &'static str,
    /// Whether it is only on or off.
    pub is_flag: bool,
}

/// All options.
pub fn all() -> impl Iterator<Item = About> {
    KNOWN.iter().map(|&Known { name, which, what, example, .. }| About {
        name,
        which,
        what,
        example,
        is_flag: what == FLAG,
    })
}

/// Reads the options that follow an address, for a socket of this kind.
///
/// # Errors
///
/// The first that cannot be taken, and why.
pub fn read(parts: &[String], kind: Kind) -> Result<SocketOptions, OptionError> {
    let mut options = SocketOptions::default();
    let mut given: Vec<&'static str> = Vec::new();
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (part.as_str(), None),
        };
        if part.is_empty() {
            return Err(OptionError::Empty);
        }
        let Some(known) = KNOWN.iter().find(|known| known.name == name) else {
            return Err(OptionError::Unknown { name: name.to_owned() });
        };
        let Known { name, which, what, example, .. } = *known;
        if given.contains(&name) {
            return Err(OptionError::Twice { name });
        }
        given.push(name);
        if !(known.fits)(kind) {
            return Err(OptionError::Misplaced { name, which });
        }
        let value = match value {
            Some(value) => value,
            // That its file is removed needs no saying.
            None if what == FLAG && name != "unlink" => "yes",
            None => return Err(OptionError::ValueMissing { name, example }),
        };
        if (known.read)(&mut options, value).is_none() {
            return Err(OptionError::Value { name, value: value.to_owned(), what, example });
        }
    }
    Ok(options)
}

impl fmt::Display for SocketOptions {
    /// Each as `,name` or `,name=value`, ready to follow an address.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for known in KNOWN {
            match (known.write)(self).as_deref() {
                None => {}
                Some("yes") if known.what == FLAG => write!(formatter, ",{}", known.name)?,
                Some(value) => {
                    write!(formatter, ",{}={}", known.name, value.replace(',', ",,"))?;
                }
            }
        }
        Ok(())
    }
}

fn set<T>(field: &mut Option<T>, value: Option<T>) -> Option<()> {
    *field = Some(value?);
    Some(())
}

fn flag(field: &mut bool, text: &str) -> Option<()> {
    *field = match text {
        "yes" => true,
        "no" => false,
        _ => return None,
    };
    Some(())
}

fn raised(flag: bool) -> Option<String> {
    flag.then(|| "yes".to_owned())
}

/// A number in digits alone; `str::parse` would take a `+` as well.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn positive(text: &str) -> Option<u32> {
    number(text).filter(|&number| number > 0 && i32::try_from(number).is_ok())
}

fn whole_seconds(text: &str) -> Option<Duration> {
    let time = values::positive_duration(text).ok()?;
    (time.subsec_nanos() == 0).then_some(time)
}

fn size(text: &str) -> Option<u32> {
    const MOST: u32 = 1 << 30;
    let digits = text.trim_end_matches(|last: char| last.is_ascii_alphabetic());
    let shift = match text.get(digits.len()..)? {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        _ => return None,
    };
    let size = u64::from(positive(digits)?) << shift;
    u32::try_from(size).ok().filter(|&size| size <= MOST)
}

fn interface(text: &str) -> Option<String> {
    let fits = (1..=INTERFACE_BYTES_MAX).contains(&text.len())
        && !text.contains(|byte: char| byte.is_whitespace() || byte == '/' || byte == '\0');
    fits.then(|| text.to_owned())
}

/// As ip(8) and nft(8) write it, too.
fn firewall_mark(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            u32::from_str_radix(digits, 16).ok()
        }
        Some(_) => None,
        None => number(text),
    }
}

fn mode(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    digits.then(|| u32::from_str_radix(text, 8).ok()).flatten().filter(|&mode| mode <= 0o777)
}
