//! What is there otherwise than it was asked for, though everything works.

use std::fmt;

use crate::config::socket::SocketSpec;

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
    /// The kernel cuts a backlog without a word (listen(2)).
    BacklogCut {
        /// The socket, as it was asked for.
        socket: String,
        /// What was asked for.
        asked: u32,
        /// What it is cut to.
        limit: u32,
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
            Warning::BacklogCut { socket, asked, limit } => write!(
                formatter,
                "the backlog {asked} of {socket} is cut to {limit}, the kernel's \
                 net.core.somaxconn; raise that, or ask for less"
            ),
        }
    }
}

/// What of the specifications the machine does not give. The default backlog is cut without a word:
/// nobody has asked for that number.
pub(super) fn of_backlogs(specs: &[SocketSpec], somaxconn: Option<u32>) -> Vec<Warning> {
    let cut = |spec: &SocketSpec| {
        let (asked, limit) = (spec.options.backlog?, somaxconn?);
        let socket = spec.place();
        (asked > limit).then_some(Warning::BacklogCut { socket, asked, limit })
    };
    specs.iter().filter_map(cut).collect()
}

/// The most connections that may wait on any socket (listen(2)).
pub(super) fn somaxconn() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?.trim().parse().ok()
}
