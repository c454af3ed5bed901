//! Sets the options that were asked for on a socket of TCP or UDP.
//! It never touches what was not asked for, and never takes a failure for a success.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{GetSockOpt, SetSockOpt, getsockopt, setsockopt, sockopt};

use crate::config::socket_options::SocketOptions;
use crate::os::sys;

/// An option that could not be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionRefusal {
    /// As it was written: `mark=42`.
    pub option: String,
    /// Why.
    pub errno: Errno,
    /// The capability that it needs (capabilities(7)), if it needs one.
    capability: Option<&'static str>,
}

impl fmt::Display for OptionRefusal {
    /// The cause and the next step.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.errno, self.capability) {
            (Errno::EPERM, Some(capability)) => write!(
                formatter,
                "permission denied; it needs {capability}, such as by `AmbientCapabilities=` of a \
                 unit, or leave it away"
            ),
            (Errno::ENODEV, _) => {
                write!(formatter, "there is no such interface; `ip link` shows those that are")
            }
            (errno, _) => write!(formatter, "{}; leave it away", errno.desc()),
        }
    }
}

/// Sets what has to be there when the socket is bound.
///
/// # Errors
///
/// The first option that cannot be set.
pub fn set_before_bind(
    fd: &OwnedFd,
    address: SocketAddr,
    options: &SocketOptions,
) -> Result<(), OptionRefusal> {
    if options.reuse_port {
        set(fd, sockopt::ReusePort, &true).map_err(refused("reuse_port", None))?;
    }
    if options.freebind {
        // Either of the two sets the one flag that the socket has for both families.
        let result = match address {
            SocketAddr::V4(_) => set(fd, sockopt::IpFreebind, &true),
            SocketAddr::V6(_) => set_number(fd, libc::IPPROTO_IPV6, libc::IPV6_FREEBIND, 1),
        };
        result.map_err(refused("freebind", None))?;
    }
    if options.transparent {
        let result = match address {
            SocketAddr::V4(_) => set(fd, sockopt::IpTransparent, &true),
            SocketAddr::V6(_) => set_number(fd, libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, 1),
        };
        result.map_err(refused("transparent", Some("CAP_NET_ADMIN")))?;
    }
    if let Some(device) = &options.bind_to_device {
        set(fd, sockopt::BindToDevice, &OsString::from(device))
            .map_err(refused(&format!("bind_to_device={device}"), Some("CAP_NET_RAW")))?;
    }
    Ok(())
}

/// Sets what can be set at any time; before a socket listens, so that the first connection has it.
/// Accepted connections have these from the socket that listens.
///
/// # Errors
///
/// The first option that cannot be set.
pub fn set_any_time(fd: &OwnedFd, options: &SocketOptions) -> Result<(), OptionRefusal> {
    if let Some(length) = options.fast_open {
        set_number(fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, signed(length))
            .map_err(refused(&format!("fast_open={length}"), None))?;
    }
    if let Some(time) = options.defer_accept {
        let seconds = i32::try_from(time.as_secs()).unwrap_or(i32::MAX);
        set_number(fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, seconds)
            .map_err(refused(&format!("defer_accept={seconds}s"), None))?;
    }
    if options.no_delay {
        set(fd, sockopt::TcpNoDelay, &true).map_err(refused("no_delay", None))?;
    }
    if options.keep_alive {
        set(fd, sockopt::KeepAlive, &true).map_err(refused("keep_alive", None))?;
    }
    if let Some(mark) = options.mark {
        set(fd, sockopt::Mark, &mark)
            .map_err(refused(&format!("mark={mark}"), Some("CAP_NET_ADMIN")))?;
    }
    if let Some(bytes) = options.receive_buffer {
        buffer(fd, sockopt::RcvBuf, sockopt::RcvBufForce, bytes)
            .map_err(refused(&format!("receive_buffer={bytes}"), None))?;
    }
    if let Some(bytes) = options.send_buffer {
        buffer(fd, sockopt::SndBuf, sockopt::SndBufForce, bytes)
            .map_err(refused(&format!("send_buffer={bytes}"), None))?;
    }
    Ok(())
}

/// Gives a socket that is not bound yet what another has: of one that was handed over nobody but the
/// kernel knows how it was made. `SO_REUSEPORT` and `IPV6_V6ONLY` are left to the caller.
///
/// # Errors
///
/// The first option that cannot be set.
pub fn copy(from: &OwnedFd, to: &OwnedFd) -> Result<(), OptionRefusal> {
    for &(name, level, option, capability) in COPIED {
        let read = |fd| sys::socket_option(fd, level, option).ok();
        // One that it does not have is one of another family or protocol.
        let Some(value) = read(from).filter(|value| read(to).is_some_and(|own| own != *value))
        else {
            continue;
        };
        set_number(to, level, option, value)
            .map_err(refused(&format!("{name}={value}"), capability))?;
    }
    let device = getsockopt(from, sockopt::BindToDevice).unwrap_or_default();
    if !device.is_empty() {
        let text = format!("bind_to_device={}", device.display());
        set(to, sockopt::BindToDevice, &device).map_err(refused(&text, Some("CAP_NET_RAW")))?;
    }
    if let Ok(bytes) = buffer_bytes(from, sockopt::RcvBuf)
        && buffer_bytes(to, sockopt::RcvBuf) != Ok(bytes)
    {
        buffer(to, sockopt::RcvBuf, sockopt::RcvBufForce, bytes)
            .map_err(refused(&format!("receive_buffer={bytes}"), None))?;
    }
    if let Ok(bytes) = buffer_bytes(from, sockopt::SndBuf)
        && buffer_bytes(to, sockopt::SndBuf) != Ok(bytes)
    {
        buffer(to, sockopt::SndBuf, sockopt::SndBufForce, bytes)
            .map_err(refused(&format!("send_buffer={bytes}"), None))?;
    }
    Ok(())
}

/// What [`copy`] copies: what it is called, level and number, and the capability that it may need.
/// These are the ones that `systemd.socket` sets, and ours.
const COPIED: &[(&str, i32, i32, Option<&str>)] = &[
    ("reuse_address", libc::SOL_SOCKET, libc::SO_REUSEADDR, None),
    ("freebind", libc::IPPROTO_IP, libc::IP_FREEBIND, None),
    ("transparent", libc::IPPROTO_IP, libc::IP_TRANSPARENT, Some("CAP_NET_ADMIN")),
    ("mark", libc::SOL_SOCKET, libc::SO_MARK, Some("CAP_NET_ADMIN")),
    ("priority", libc::SOL_SOCKET, libc::SO_PRIORITY, Some("CAP_NET_ADMIN")),
    ("broadcast", libc::SOL_SOCKET, libc::SO_BROADCAST, None),
    ("keep_alive", libc::SOL_SOCKET, libc::SO_KEEPALIVE, None),
    ("keep_alive_time", libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, None),
    ("keep_alive_interval", libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, None),
    ("keep_alive_probes", libc::IPPROTO_TCP, libc::TCP_KEEPCNT, None),
    ("no_delay", libc::IPPROTO_TCP, libc::TCP_NODELAY, None),
    ("defer_accept", libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, None),
    ("fast_open", libc::IPPROTO_TCP, libc::TCP_FASTOPEN, None),
    ("type_of_service", libc::IPPROTO_IP, libc::IP_TOS, None),
    ("time_to_live", libc::IPPROTO_IP, libc::IP_TTL, None),
    ("packet_information", libc::IPPROTO_IP, libc::IP_PKTINFO, None),
    ("traffic_class", libc::IPPROTO_IPV6, libc::IPV6_TCLASS, None),
    ("hops", libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, None),
    ("packet_information", libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, None),
];

/// How many bytes the buffer has of which so many were asked for. The kernel doubles the number for
/// itself, and shows it doubled (socket(7)).
///
/// # Errors
///
/// None that is known.
pub fn buffer_bytes(fd: &OwnedFd, which: impl GetSockOpt<Val = usize>) -> Result<u32, Errno> {
    Ok(u32::try_from(getsockopt(fd, which)? / 2).unwrap_or(u32::MAX))
}

/// The kernel cuts the number to its limit without a word; with CAP_NET_ADMIN there is a way past it.
fn buffer<Cut, Force>(fd: &OwnedFd, cut: Cut, force: Force, bytes: u32) -> Result<(), Errno>
where
    Cut: SetSockOpt<Val = usize> + GetSockOpt<Val = usize> + Copy,
    Force: SetSockOpt<Val = usize>,
{
    let wanted = usize::try_from(bytes).unwrap_or(usize::MAX);
    set(fd, cut, &wanted)?;
    if buffer_bytes(fd, cut)? < bytes {
        match set(fd, force, &wanted) {
            // Then it is as large as it can be, and that is told.
            Ok(()) | Err(Errno::EPERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn refused(
    option: &str,
    capability: Option<&'static str>,
) -> impl FnOnce(Errno) -> OptionRefusal + use<> {
    let option = option.to_owned();
    move |errno| OptionRefusal { option, errno, capability }
}

fn set<O: SetSockOpt>(fd: &OwnedFd, option: O, value: &O::Val) -> Result<(), Errno> {
    setsockopt(fd, option, value)
}

fn set_number(fd: &OwnedFd, level: i32, option: i32, value: i32) -> Result<(), Errno> {
    sys::set_socket_option(fd, level, option, value)
        .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}

fn signed(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
