//! What is there otherwise than it was asked for, though everything works. The kernel changes numbers
//! without a word; people are told.

use std::fmt;
use std::fs;

use nix::sys::socket::sockopt;

use super::Listener;
use crate::config::socket::SocketSpec;
use crate::os::holder::Holder;
use crate::os::ip_options;

/// What is not as it was asked for, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A socket was handed over and asked for with options that a bound one cannot be given.
    HandedOver {
        /// The socket, as it was asked for.
        socket: String,
        /// The names of the options.
        options: Vec<&'static str>,
    },
    /// The kernel has cut a number (listen(2), socket(7)).
    Cut {
        /// The socket, as it was asked for.
        socket: String,
        /// The name of the option.
        option: &'static str,
        /// What was asked for.
        asked: u32,
        /// What it is cut to.
        limit: u32,
        /// The setting of the kernel that says so (sysctl(8)).
        setting: &'static str,
    },
    /// `fast_open` is set, and the kernel has that switched off for servers (tcp(7)).
    FastOpenOff {
        /// The socket, as it was asked for.
        socket: String,
        /// The kernel's setting.
        setting: u32,
    },
    /// Somebody else serves there, too.
    Shared {
        /// The socket.
        socket: String,
        /// Who.
        holder: Holder,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::HandedOver { socket, options } => write!(
                formatter,
                "{socket} was handed over to us as it is, so `{}` is left as it was; set it where \
                 the socket is made",
                options.join("`, `")
            ),
            Warning::Cut { socket, option, asked, limit, setting } => write!(
                formatter,
                "the {option} {asked} of {socket} is cut to {limit}, the kernel's {setting}; raise \
                 that, or ask for less"
            ),
            Warning::FastOpenOff { socket, setting } => write!(
                formatter,
                "fast_open of {socket} does nothing, because the kernel's net.ipv4.tcp_fastopen is \
                 {setting}; set that to 3"
            ),
            Warning::Shared { socket, holder } => write!(
                formatter,
                "{holder} serves on {socket} too, and each gets a share of what comes, unless it \
                 steers all to itself, as shepherd does without `reuse_port`; stop it if that is \
                 not meant"
            ),
        }
    }
}

/// What this machine allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// The most connections that may wait on any socket (listen(2)).
    pub(super) somaxconn: Option<u32>,
    /// Who may open connections fast, as bits (tcp(7)).
    pub(super) fast_open: Option<u32>,
}

impl Limits {
    pub(super) fn read() -> Limits {
        let number = |path| fs::read_to_string(path).ok()?.trim().parse().ok();
        Limits {
            somaxconn: number("/proc/sys/net/core/somaxconn"),
            fast_open: number("/proc/sys/net/ipv4/tcp_fastopen"),
        }
    }
}

/// What of a specification its sockets do not have. The default backlog is cut without a word: nobody
/// has asked for that number.
pub(super) fn of(spec: &SocketSpec, listeners: &[Listener], limits: &Limits) -> Vec<Warning> {
    /// Servers may (`TFO_SERVER_ENABLE` in the kernel's `net/tcp.h`).
    const SERVERS: u32 = 2;
    let options = &spec.options;
    let cut = |option, asked: Option<u32>, limit: Option<u32>, setting| {
        let (asked, limit) = (asked?, limit?);
        let socket = spec.place();
        (asked > limit).then_some(Warning::Cut { socket, option, asked, limit, setting })
    };
    // All sockets of one specification fare alike.
    let fd = listeners.first().map(|listener| &listener.fd);
    let received = fd.and_then(|fd| ip_options::buffer_bytes(fd, sockopt::RcvBuf).ok());
    let sent = fd.and_then(|fd| ip_options::buffer_bytes(fd, sockopt::SndBuf).ok());
    let off = limits.fast_open.filter(|setting| setting & SERVERS == 0);
    let fast_open_off = options.fast_open.and(off).map(|setting| {
        let socket = spec.place();
        Warning::FastOpenOff { socket, setting }
    });
    [
        cut("backlog", options.backlog, limits.somaxconn, "net.core.somaxconn"),
        cut("fast_open", options.fast_open, limits.somaxconn, "net.core.somaxconn"),
        fast_open_off,
        cut("receive_buffer", options.receive_buffer, received, "net.core.rmem_max"),
        cut("send_buffer", options.send_buffer, sent, "net.core.wmem_max"),
    ]
    .into_iter()
    .flatten()
    .collect()
}
