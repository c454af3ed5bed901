//! What the kernel's tables of sockets say of those that workers share: how much waits, what is being
//! connected, which connections are open. Asked by sock_diag(7), and read from `/proc/net` where that
//! is not to be had. It needs no descriptor of them, so any thread can look.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::holder::{self, UnixRole, ip_address};
use super::listeners::Listener;
use super::local_address::LocalAddress;
use super::sock_diag::SockDiag;
use super::sock_diag::dump::{Family, InetEntry, Protocol, UnixEntry};
use crate::config::socket::Transport;

/// How many lines of a table in `/proc/net` are read, at about 2 us each. One that has more is not
/// read to its end, and says nothing.
const LINES_MAX: usize = 200_000;

/// States of `linux/tcp_states.h`, a bit for each.
const ESTABLISHED: u32 = 1 << 1;
const SYN_RECV: u32 = 1 << 3;
const FIN_WAIT1: u32 = 1 << 4;
const FIN_WAIT2: u32 = 1 << 5;
const CLOSE: u32 = 1 << 7;
const CLOSE_WAIT: u32 = 1 << 8;
const LISTEN: u32 = 1 << 10;

/// A connection in which its worker can read or write still, so that its end would cut something off:
/// one whose other end is closed may be waited on for an answer, and behind one that we have closed
/// there may be bytes that nobody has read, for which the kernel resets what it sends. When both
/// directions are closed (`CLOSING`, `LAST_ACK`) the kernel needs nobody to finish.
const OPEN: u32 = ESTABLISHED | CLOSE_WAIT | FIN_WAIT1 | FIN_WAIT2;

/// How long a handshake waits before it sends its half once more: `TCP_TIMEOUT_INIT` in the kernel's
/// `net/tcp.h`.
const FIRST_TRY: Duration = Duration::from_secs(1);

/// The kernel counts that time in ticks, the longest of which are these (`CONFIG_HZ_100`), so a
/// handshake may be older by one than it looks.
const TICK_MAX: Duration = Duration::from_millis(10);

/// One of the sockets, as the tables know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its inode.
    pub inode: u64,
    /// What it carries.
    pub transport: Transport,
    /// Where it is bound.
    pub address: LocalAddress,
}

/// What waits on a socket: connections to be accepted, or bytes of datagrams to be received, with
/// what the kernel needs to keep them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// How much waits.
    pub waiting: u32,
    /// How much may, where that is told.
    pub most: Option<u32>,
}

/// A handshake that has begun. The kernel tells of its address, and not to whose queue it goes when
/// several sockets have that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handshake {
    local: SocketAddr,
    /// Whether it has sent its half for the first time this long ago; `None` for longer than a first
    /// try takes, or where nothing is told.
    age: Option<Duration>,
}

/// The inodes of open connections, and whether those are all.
#[derive(Debug, Default)]
pub(super) struct Connections {
    pub(super) inodes: BTreeSet<u64>,
    pub(super) are_all: bool,
    /// The ends of those over TCP, by inode: ours and the client's.
    pub(super) ends: BTreeMap<u64, Ends>,
}

/// The ends of a connection: ours, and the client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
}

impl Place {
    /// That of a listener.
    #[must_use]
    pub fn of(listener: &Listener) -> Place {
        Place {
            inode: listener.inode,
            transport: listener.transport,
            address: listener.address.clone(),
        }
    }

    /// Whether there are connections to it, that wait and are taken.
    #[must_use]
    pub fn accepts(&self) -> bool {
        self.transport.accepts()
    }

    /// Whether what has this address was reached by way of the socket, or of one bound beside it.
    pub(super) fn has(&self, local: SocketAddr) -> bool {
        match self.address {
            LocalAddress::DualStack(port) => local.is_ipv6() && local.port() == port,
            LocalAddress::Ip(own) if own.port() != local.port() => false,
            LocalAddress::Ip(own) => match (own.ip(), local.ip()) {
                (IpAddr::V4(own), IpAddr::V4(local)) => own.is_unspecified() || own == local,
                (IpAddr::V6(own), IpAddr::V6(local)) => {
                    own == local || own.is_unspecified() && local.to_ipv4_mapped().is_none()
                }
                (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
            },
            LocalAddress::Unix(_) | LocalAddress::Abstract(_) => false,
        }
    }

    fn has_name(&self, name: &[u8]) -> bool {
        match &self.address {
            LocalAddress::Unix(path) => path.as_os_str().as_bytes() == name,
            LocalAddress::Abstract(own) => name.split_first() == Some((&0, own.as_slice())),
            LocalAddress::DualStack(_) | LocalAddress::Ip(_) => false,
        }
    }

    fn is_unix(&self) -> bool {
        matches!(self.address, LocalAddress::Unix(_) | LocalAddress::Abstract(_))
    }

    /// In which tables it is, if it is one of the internet.
    fn table(&self) -> Option<(Protocol, Family)> {
        let family = match self.address {
            LocalAddress::Ip(SocketAddr::V4(_)) => Family::V4,
            LocalAddress::DualStack(_) | LocalAddress::Ip(SocketAddr::V6(_)) => Family::V6,
            LocalAddress::Unix(_) | LocalAddress::Abstract(_) => return None,
        };
        let protocol = match self.transport {
            Transport::Stream => Protocol::Tcp,
            Transport::Datagram => Protocol::Udp,
            Transport::Seqpacket => return None,
        };
        Some((protocol, family))
    }
}

/// What waits on each of the sockets, as far as that is told.
pub(super) fn queues(places: &[&Place]) -> Vec<Option<Queue>> {
    let mut found: BTreeMap<u64, Queue> = BTreeMap::new();
    for (protocol, states) in [(Protocol::Tcp, LISTEN), (Protocol::Udp, u32::MAX)] {
        for entry in inet(places, protocol, states).0 {
            found.insert(entry.inode, Queue { waiting: entry.waiting, most: entry.most });
        }
    }
    if places.iter().any(|place| place.is_unix()) {
        // One for datagrams is closed as long as nobody has connected it.
        for entry in unix(LISTEN | CLOSE | ESTABLISHED).unwrap_or_default() {
            if let Some(waiting) = entry.waiting {
                found.insert(entry.inode, Queue { waiting, most: entry.most });
            }
        }
    }
    places.iter().map(|place| found.get(&place.inode).copied()).collect()
}

/// The handshakes that are under way with one of the sockets, or those beside them; `None` where
/// nothing is told.
pub(super) fn handshakes(places: &[&Place]) -> Option<Vec<Handshake>> {
    let (entries, are_all) = inet(places, Protocol::Tcp, SYN_RECV);
    let handshake = |entry: InetEntry| {
        let left = Duration::from_millis(entry.retries_in.into());
        let age = FIRST_TRY.checked_sub(left).filter(|_| entry.retries == 0);
        Handshake { local: entry.local, age }
    };
    are_all.then(|| entries.into_iter().map(handshake).collect())
}

/// How many of the handshakes may be those of this socket, which has got no new ones for so long.
/// Younger ones are another's.
pub(super) fn handshakes_of(
    place: &Place,
    parted: Option<Duration>,
    handshakes: &[Handshake],
) -> u32 {
    // A try later than the first looks as young as a first one.
    let parted = parted.filter(|parted| *parted < FIRST_TRY);
    let is_younger = |age: Option<Duration>| {
        age.zip(parted).is_some_and(|(age, parted)| age + TICK_MAX < parted)
    };
    let own = handshakes.iter().filter(|it| place.has(it.local) && !is_younger(it.age));
    u32::try_from(own.count()).unwrap_or(u32::MAX)
}

/// The connections to one of the sockets that a process has and that are open.
pub(super) fn connections(places: &[&Place]) -> Connections {
    let (entries, mut are_all) = inet(places, Protocol::Tcp, OPEN);
    let taken = entries
        .into_iter()
        .filter(|entry| entry.inode != 0 && places.iter().any(|place| place.has(entry.local)));
    let ends = taken.map(|InetEntry { inode, local, remote, .. }| (inode, Ends { local, remote }));
    let ends: BTreeMap<u64, Ends> = ends.collect();
    let mut inodes: BTreeSet<u64> = ends.keys().copied().collect();
    let accepts = |place: &&&Place| place.is_unix() && place.transport.accepts();
    if places.iter().any(|place| accepts(&place)) {
        match unix(ESTABLISHED) {
            Ok(entries) => {
                let named = entries.into_iter().filter(|entry| {
                    entry.inode != 0
                        && places.iter().filter(accepts).any(|place| place.has_name(&entry.name))
                });
                inodes.extend(named.map(|entry| entry.inode));
            }
            Err(_) => are_all = false,
        }
    }
    Connections { inodes, are_all, ends }
}

/// The sockets of a protocol in these states that have the port of one of the places, and whether the
/// list is whole.
fn inet(places: &[&Place], protocol: Protocol, states: u32) -> (Vec<InetEntry>, bool) {
    let mut found = Vec::new();
    let mut is_whole = true;
    for family in [Family::V4, Family::V6] {
        let of_table = places.iter().filter(|place| place.table() == Some((protocol, family)));
        let ports: BTreeSet<u16> = of_table.filter_map(|place| place.address.port()).collect();
        if ports.is_empty() {
            continue;
        }
        let ports: Vec<u16> = ports.into_iter().collect();
        let asked = SockDiag::open().and_then(|mut it| it.inet(protocol, family, states, &ports));
        match asked.or_else(|_| read_inet(protocol, family, states, &ports)) {
            Ok(entries) => found.extend(entries),
            Err(_) => is_whole = false,
        }
    }
    (found, is_whole)
}

fn unix(states: u32) -> io::Result<Vec<UnixEntry>> {
    SockDiag::open().and_then(|mut it| it.unix(states)).or_else(|_| read_unix())
}

fn read_inet(
    protocol: Protocol,
    family: Family,
    states: u32,
    ports: &[u16],
) -> io::Result<Vec<InetEntry>> {
    let table = match (protocol, family) {
        (Protocol::Tcp, Family::V4) => "/proc/net/tcp",
        (Protocol::Tcp, Family::V6) => "/proc/net/tcp6",
        (Protocol::Udp, Family::V4) => "/proc/net/udp",
        (Protocol::Udp, Family::V6) => "/proc/net/udp6",
    };
    let mut entries = Vec::new();
    read(table, |line| {
        let wanted = |entry: &InetEntry| {
            states >> entry.state & 1 == 1 && ports.contains(&entry.local.port())
        };
        entries.extend(inet_line(line).filter(wanted));
    })?;
    Ok(entries)
}

fn read_unix() -> io::Result<Vec<UnixEntry>> {
    let mut entries = Vec::new();
    read("/proc/net/unix", |line| {
        let connected = holder::unix_entry(line).filter(|it| it.role == UnixRole::Connected);
        entries.extend(connected.map(|it| unix_connection(it.path, it.inode)));
    })?;
    Ok(entries)
}

/// That table tells of no queues, so that only connections are of use.
fn unix_connection(mut name: Vec<u8>, inode: u64) -> UnixEntry {
    if name.first() == Some(&b'@') {
        name[0] = 0;
    }
    let state = ESTABLISHED.trailing_zeros().to_le_bytes()[0];
    UnixEntry { state, name, inode, waiting: None, most: None }
}

fn read(table: &str, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut reader = BufReader::new(File::open(table)?);
    let mut line = Vec::new();
    for _ in 0..LINES_MAX {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        take(line.trim_ascii_end());
    }
    Err(io::ErrorKind::QuotaExceeded.into())
}

/// One line of `/proc/net/tcp` or `/proc/net/udp`, proc_net(5).
fn inet_line(line: &[u8]) -> Option<InetEntry> {
    let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let local = ip_address(fields.nth(1)?)?;
    let remote = ip_address(fields.next()?)?;
    let state = u8::from_str_radix(fields.next()?, 16).ok().filter(|state| *state < 32)?;
    let (_, received) = fields.next()?.split_once(':')?;
    let waiting = u32::from_str_radix(received, 16).ok()?;
    let retries = fields.nth(1)?;
    let retries = u8::try_from(u32::from_str_radix(retries, 16).ok()?).unwrap_or(u8::MAX);
    let inode = fields.nth(2)?.parse().ok()?;
    // Its clock ticks as the kernel was built to; as if it were about to send once more.
    Some(InetEntry {
        state,
        local,
        remote,
        inode,
        waiting,
        most: None,
        retries,
        retries_in: u32::MAX,
    })
}

#[cfg(test)]
mod tests;
