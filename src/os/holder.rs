//! Who has a socket: finds the process behind an address that we want, for a message, and tells
//! whether a process has a certain socket, for a probe.
//! It never signals, opens or changes anything, and what it says may be outdated when it is read.

use core::fmt;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::unistd::Pid;

use super::proc;
use crate::config::socket::Transport;

/// How many lines of a table of sockets are read. Listening sockets come first in the TCP tables,
/// so that only a machine with more listeners than this hides one.
const TABLE_LINES_MAX: usize = 100_000;

/// How many descriptors of how many processes are looked at, about 2 µs each.
const DESCRIPTORS_MAX: usize = 500_000;

/// A process that holds a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// For people: the process may be gone by the time this is read.
    pub pid: i32,
    /// What the process calls itself, `/proc/PID/comm`.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}` (pid {})", self.name, self.pid)
    }
}

/// Finds who keeps us from `address`; `[::]` stands for both families, as we bind it.
///
/// `None` if nobody does, or the process belongs to another user or another pid namespace.
/// Listeners, and receivers of everybody's datagrams, are asked first; a connection can hold its
/// local port as well.
#[must_use]
pub fn of_ip(transport: Transport, address: SocketAddr) -> Option<Holder> {
    let mut held: Vec<_> = ip_entries(transport)
        .filter_map(|entry| Some((entry.state, conflict(address, entry.local)?, entry.inode)))
        .collect();
    held.sort();
    let inodes: Vec<u64> = held.into_iter().map(|(_, _, inode)| inode).collect();
    of_first(&inodes)
}

/// Finds who else serves on `address`, by `SO_REUSEPORT`, beside the socket with this inode.
#[must_use]
pub fn beside(transport: Transport, address: SocketAddr, inode: u64) -> Option<Holder> {
    let serves = |entry: &IpEntry| {
        entry.state == IpState::Serving
            && entry.inode != inode
            && conflict(address, entry.local) == Some(Rank::Same)
    };
    let inodes: Vec<u64> = ip_entries(transport).filter(serves).map(|entry| entry.inode).collect();
    of_first(&inodes)
}

fn ip_entries(transport: Transport) -> impl Iterator<Item = IpEntry> {
    let tables = match transport {
        Transport::Stream => &["/proc/net/tcp", "/proc/net/tcp6"][..],
        Transport::Datagram => &["/proc/net/udp", "/proc/net/udp6"],
        // Sequenced packets are for unix sockets only.
        Transport::Seqpacket => &[],
    };
    tables.iter().flat_map(|table| lines(Path::new(table))).filter_map(|line| ip_entry(&line))
}

/// Finds who listens on a unix path, or receives there. `peer` is what `SO_PEERCRED` of a connection said: the
/// process that called listen(2), which helps where the path was renamed or is relative, and
/// misleads where that process left the socket to others. `ours` is a socket that had the path before:
/// the table shows it there still.
#[must_use]
pub fn of_unix(path: &Path, peer: Option<i32>, ours: Option<u64>) -> Option<Holder> {
    let absolute = std::path::absolute(path).ok();
    let inodes: Vec<u64> = lines(Path::new("/proc/net/unix"))
        .filter_map(|line| unix_entry(&line))
        .filter(|entry| {
            let entry_path = Path::new(OsStr::from_bytes(&entry.path));
            let serves = entry.role == UnixRole::Serves;
            serves && (entry_path == path || Some(entry_path) == absolute.as_deref())
        })
        .map(|entry| entry.inode)
        .filter(|&inode| Some(inode) != ours)
        .collect();
    of_first(&inodes).or_else(|| peer.filter(|pid| *pid > 0).and_then(named))
}

/// Finds who has a unix name without a file, less its leading NUL byte. Each type of socket has names
/// of its own, and a bound socket keeps its name whether it listens or not.
#[must_use]
pub fn of_abstract(transport: Transport, name: &[u8]) -> Option<Holder> {
    // The table has an `@` for each NUL byte.
    let shown: Vec<u8> =
        [0].iter().chain(name).map(|byte| if *byte == 0 { b'@' } else { *byte }).collect();
    let mut held: Vec<UnixEntry> = lines(Path::new("/proc/net/unix"))
        .filter_map(|line| unix_entry(&line))
        .filter(|entry| entry.transport == transport && entry.path == shown)
        .collect();
    held.sort_by_key(|entry| entry.role);
    let inodes: Vec<u64> = held.into_iter().map(|entry| entry.inode).collect();
    of_first(&inodes)
}

/// Whether a process has a socket open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Has {
    /// It does.
    Yes,
    /// It does not, as far as a look at its descriptors shows.
    No,
    /// It may: its descriptors are not shown to us, are too many, or it has an io_uring, whose own
    /// table of files is shown to nobody.
    Unseen,
}

/// How many descriptors of one process are looked at for one socket, about 1 µs each.
const OWN_DESCRIPTORS_MAX: usize = 65_536;

/// Whether a process has the socket with this inode open, see proc_pid_fd(5).
#[must_use]
pub fn has(pid: Pid, inode: u64) -> Has {
    match proc::as_owner(pid, || search(pid, inode)) {
        Ok(has) => has,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Has::Unseen,
        // It has gone.
        Err(_) => Has::No,
    }
}

fn search(pid: Pid, inode: u64) -> io::Result<Has> {
    let directory = format!("/proc/{pid}/fd");
    let descriptors = proc::numbered_entries(&directory, OWN_DESCRIPTORS_MAX)?;
    let mut unseen = descriptors.len() == OWN_DESCRIPTORS_MAX;
    // When its first thread has ended, the descriptors of the others are not shown here.
    unseen |= proc::stat(pid).is_some_and(|stat| stat.state == 'Z' && stat.is_live());
    for descriptor in descriptors {
        match fs::read_link(format!("{directory}/{descriptor}")) {
            Ok(target) => {
                let target = target.as_os_str().as_bytes();
                if socket_inode(target) == Some(inode) {
                    return Ok(Has::Yes);
                }
                unseen |= target == b"anon_inode:[io_uring]";
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            // Closed meanwhile.
            Err(_) => {}
        }
    }
    Ok(if unseen { Has::Unseen } else { Has::No })
}

/// One line of `/proc/net/tcp` or `/proc/net/udp` (proc_net(5)).
#[derive(Debug, PartialEq, Eq)]
struct IpEntry {
    local: SocketAddr,
    state: IpState,
    inode: u64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum IpState {
    /// It listens, or receives datagrams from everybody.
    Serving,
    Other,
}

/// One socket of `/proc/net/unix` that is bound.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnixEntry {
    transport: Transport,
    pub(super) role: UnixRole,
    pub(super) path: Vec<u8>,
    pub(super) inode: u64,
}

/// What a unix socket does, best holder first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum UnixRole {
    /// It listens, or receives datagrams.
    Serves,
    /// It is bound and nothing else.
    Bound,
    /// A connection; a server's has the server's name.
    Connected,
}

/// How well a socket explains a refusal, best first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Same,
    Covered,
    /// A wildcard of IPv6, which covers IPv4 only if it is dual stack; the table does not say.
    Maybe,
}

fn ip_entry(line: &[u8]) -> Option<IpEntry> {
    // TCP_LISTEN, and TCP_CLOSE, which is how the kernel has a UDP socket without a peer.
    const SERVING: [&str; 2] = ["0A", "07"];
    let mut fields = core::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let local = ip_address(fields.nth(1)?)?;
    let state = if SERVING.contains(&fields.nth(1)?) { IpState::Serving } else { IpState::Other };
    let inode = fields.nth(5)?.parse().ok()?;
    // A connection in TIME_WAIT has no socket any more.
    (inode != 0).then_some(IpEntry { local, state, inode })
}

/// Reads `0100007F:1F90`: 32-bit words as the machine stores them, then the port.
pub(super) fn ip_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let mut bytes = Vec::with_capacity(16);
    for word in ip.as_bytes().chunks(8) {
        let word = core::str::from_utf8(word).ok()?;
        bytes.extend(u32::from_str_radix(word, 16).ok()?.to_ne_bytes());
    }
    let port = u16::from_str_radix(port, 16).ok()?;
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        32 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Reads a line of the table.
pub(super) fn unix_entry(line: &[u8]) -> Option<UnixEntry> {
    const ACCEPTS: &[u8] = b"00010000";
    const UNCONNECTED: &[u8] = b"01";
    // Num RefCount Protocol Flags Type St Inode Path: the inode is padded with spaces, and what
    // follows the one space after it is the path, which may contain anything.
    let mut rest = line;
    let mut fields: [&[u8]; 7] = [b""; 7];
    for field in &mut fields {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(|byte| *byte == b' ')?;
        (*field, rest) = rest.split_at(end);
    }
    let [_, _, _, flags, kind, state, inode] = fields;
    let inode = core::str::from_utf8(inode).ok()?.parse().ok()?;
    let transport = match kind {
        b"0001" => Transport::Stream,
        b"0002" => Transport::Datagram,
        b"0005" => Transport::Seqpacket,
        _ => return None,
    };
    let role = match (transport, flags == ACCEPTS, state == UNCONNECTED) {
        (_, true, _) | (Transport::Datagram, false, true) => UnixRole::Serves,
        (_, false, true) => UnixRole::Bound,
        (_, false, false) => UnixRole::Connected,
    };
    Some(UnixEntry { transport, role, path: rest[1..].to_vec(), inode })
}

/// Whether a socket at `held` keeps a listener away from `wanted`, and how surely.
fn conflict(wanted: SocketAddr, held: SocketAddr) -> Option<Rank> {
    if wanted.port() != held.port() {
        return None;
    }
    match (wanted.ip().to_canonical(), held.ip().to_canonical()) {
        (wanted, held) if wanted == held => Some(Rank::Same),
        (IpAddr::V6(wanted), _) if wanted.is_unspecified() => Some(Rank::Covered),
        (IpAddr::V4(wanted), IpAddr::V4(held)) => {
            (wanted.is_unspecified() || held.is_unspecified()).then_some(Rank::Covered)
        }
        (IpAddr::V4(_), IpAddr::V6(held)) => held.is_unspecified().then_some(Rank::Maybe),
        (IpAddr::V6(_), IpAddr::V6(held)) => held.is_unspecified().then_some(Rank::Covered),
        (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

/// The holder of the first of these sockets that has a visible one.
fn of_first(inodes: &[u64]) -> Option<Holder> {
    if inodes.is_empty() {
        return None;
    }
    let holders = holders(inodes);
    let pid = inodes.iter().find_map(|inode| eldest(holders.get(inode)?, parent))?;
    named(pid)
}

/// Finds who has each of these sockets, in one walk over `/proc`; what is not there has no holder that
/// is shown to us.
#[must_use]
pub fn of_each(inodes: &[u64]) -> BTreeMap<u64, Holder> {
    if inodes.is_empty() {
        return BTreeMap::new();
    }
    let named = |(inode, pids): (u64, Vec<i32>)| Some((inode, named(eldest(&pids, parent)?)?));
    holders(inodes).into_iter().filter_map(named).collect()
}

/// Every visible process that has one of these sockets open, in one walk over `/proc`.
fn holders(inodes: &[u64]) -> BTreeMap<u64, Vec<i32>> {
    let mut found: BTreeMap<u64, Vec<i32>> = BTreeMap::new();
    let mut descriptors_left = DESCRIPTORS_MAX;
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let descriptors = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        for descriptor in descriptors {
            if descriptors_left == 0 {
                return found;
            }
            descriptors_left -= 1;
            let Ok(target) = fs::read_link(descriptor.path()) else {
                continue;
            };
            let Some(inode) = socket_inode(target.as_os_str().as_bytes()) else {
                continue;
            };
            if inodes.contains(&inode) {
                let pids = found.entry(inode).or_default();
                // A process may have several descriptors of one socket.
                if pids.last() != Some(&pid) {
                    pids.push(pid);
                }
            }
        }
    }
    found
}

/// Reads `socket:[4711]`, where a link in `/proc/PID/fd` points (proc_pid_fd(5)).
pub(super) fn socket_inode(target: &[u8]) -> Option<u64> {
    let inode = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    core::str::from_utf8(inode).ok()?.parse().ok()
}

/// Of a supervisor and its workers, the supervisor: the one whose parent does not hold it.
fn eldest(pids: &[i32], parent: impl Fn(i32) -> Option<i32>) -> Option<i32> {
    let orphan = |pid: &&i32| parent(**pid).is_none_or(|parent| !pids.contains(&parent));
    pids.iter().filter(orphan).min().copied()
}

fn parent(pid: i32) -> Option<i32> {
    parent_in_stat(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The fourth field of `/proc/PID/stat`; the second is a name in parentheses that may itself
/// contain spaces and parentheses (proc_pid_stat(5)).
fn parent_in_stat(stat: &[u8]) -> Option<i32> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let after = core::str::from_utf8(&stat[end + 1..]).ok()?;
    after.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn named(pid: i32) -> Option<Holder> {
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    let name = String::from_utf8_lossy(name.strip_suffix(b"\n").unwrap_or(&name));
    // A process chooses its own name; it does not get to draw on our terminal.
    let name = name.replace(|character: char| character.is_control() || character == '`', "?");
    Some(Holder { pid, name })
}

fn lines(table: &Path) -> impl Iterator<Item = Vec<u8>> + use<> {
    let reader = File::open(table).ok().map(BufReader::new);
    let lines = reader.into_iter().flat_map(|reader| reader.split(b'\n').map_while(Result::ok));
    lines.take(TABLE_LINES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};

    #[test]
    #[cfg(target_endian = "little")]
    fn reads_the_ip_tables() {
        let head = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt";
        assert_eq!(ip_entry(head), None);
        let listening = b"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 \
            00000000     0        0 4711 1 0000000000000000 100 0 0 10 0";
        let local = "127.0.0.1:8080".parse().unwrap();
        let entry = IpEntry { local, state: IpState::Serving, inode: 4711 };
        assert_eq!(ip_entry(listening), Some(entry));
        let connection = b"   1: 00000000000000000000000001000000:0050 \
            00000000000000000000000001000000:9C40 01 00000000:00000000 00:00000000 \
            00000000     0        0 4712 1 0000000000000000 20 4 30 10 -1";
        let local = "[::1]:80".parse().unwrap();
        let entry = IpEntry { local, state: IpState::Other, inode: 4712 };
        assert_eq!(ip_entry(connection), Some(entry));
        let datagrams = b" 4711: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 \
            00000000     0        0 4713 2 0000000000000000 0";
        let local = "127.0.0.1:53".parse().unwrap();
        let entry = IpEntry { local, state: IpState::Serving, inode: 4713 };
        assert_eq!(ip_entry(datagrams), Some(entry));
        for broken in ["", "0:", "0: 0100007F", "0: XX:YY a 0A", "0: 0100007F:1F90 b 0A c d e f g"]
        {
            assert_eq!(ip_entry(broken.as_bytes()), None);
        }
    }

    #[test]
    fn reads_the_unix_table() {
        let line = |words: &str, path: &str| {
            unix_entry(
                format!("000000006b0f9dc7: 00000002 00000000 {words}  8634 {path}").as_bytes(),
            )
        };
        for (words, path, transport, role) in [
            ("00010000 0001 01", "/run/x.sock", Transport::Stream, UnixRole::Serves),
            ("00010000 0001 01", " a  b", Transport::Stream, UnixRole::Serves),
            ("00010000 0005 01", "@x", Transport::Seqpacket, UnixRole::Serves),
            ("00000000 0002 01", "@x", Transport::Datagram, UnixRole::Serves),
            ("00000000 0001 01", "@x", Transport::Stream, UnixRole::Bound),
            ("00000000 0001 03", "@x", Transport::Stream, UnixRole::Connected),
        ] {
            let entry = UnixEntry { transport, role, path: path.into(), inode: 8634 };
            assert_eq!(line(words, path), Some(entry));
        }
        assert_eq!(line("00000000 0003 01", "/run/x.sock"), None);
        assert_eq!(unix_entry(b"Num       RefCount Protocol Flags    Type St Inode Path"), None);
        assert_eq!(unix_entry(b"0: 00000003 00000000 00000000 0001 03 12"), None);
    }

    #[test]
    fn knows_which_addresses_exclude_each_other() {
        for (wanted, held, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", Some(Rank::Same)),
            ("127.0.0.1:80", "127.0.0.1:81", None),
            ("127.0.0.1:80", "127.0.0.2:80", None),
            ("127.0.0.1:80", "0.0.0.0:80", Some(Rank::Covered)),
            ("127.0.0.1:80", "[::]:80", Some(Rank::Maybe)),
            ("127.0.0.1:80", "[::1]:80", None),
            ("0.0.0.0:80", "127.0.0.1:80", Some(Rank::Covered)),
            ("0.0.0.0:80", "[::1]:80", None),
            ("[::]:80", "127.0.0.1:80", Some(Rank::Covered)),
            ("[::]:80", "[::1]:80", Some(Rank::Covered)),
            ("[::]:80", "[::]:80", Some(Rank::Same)),
            ("[::1]:80", "[::]:80", Some(Rank::Covered)),
            ("[::1]:80", "0.0.0.0:80", None),
            ("127.0.0.1:80", "[::ffff:127.0.0.1]:80", Some(Rank::Same)),
        ] {
            let rank = conflict(wanted.parse().unwrap(), held.parse().unwrap());
            assert_eq!(rank, expected, "{wanted} against {held}");
        }
    }

    #[test]
    fn names_the_supervisor_and_not_its_workers() {
        let parent = |pid: i32| match pid {
            7 | 12 => Some(10),
            10 => Some(1),
            _ => None,
        };
        assert_eq!(eldest(&[7, 10, 12], parent), Some(10));
        assert_eq!(eldest(&[7, 12], parent), Some(7));
        assert_eq!(eldest(&[], parent), None);
    }

    #[test]
    fn reads_a_parent_behind_any_name() {
        assert_eq!(parent_in_stat(b"42 (a) b (c) S 7 42 42 0 -1"), Some(7));
        assert_eq!(parent_in_stat(b"42 (a"), None);
        assert_eq!(parent_in_stat(b"42 (a)"), None);
    }

    #[test]
    fn reads_the_inode_of_a_descriptor() {
        assert_eq!(socket_inode(b"socket:[4711]"), Some(4711));
        assert_eq!(socket_inode(b"pipe:[4711]"), None);
        assert_eq!(socket_inode(b"socket:[x]"), None);
    }

    #[test]
    fn tells_whether_a_process_has_a_socket() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = nix::sys::stat::fstat(&socket).unwrap().st_ino;
        assert_eq!(has(Pid::this(), inode), Has::Yes);
        assert_eq!(has(Pid::parent(), inode), Has::No);
        assert_eq!(has(Pid::from_raw(i32::MAX), inode), Has::No);
    }

    #[test]
    fn finds_this_process_behind_its_sockets() {
        let own = Some(i32::try_from(std::process::id()).unwrap());
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let of_tcp = || of_ip(Transport::Stream, address);
        assert_eq!(of_tcp().map(|holder| holder.pid), own);
        drop(tcp);
        assert_eq!(of_tcp(), None);

        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        assert_eq!(of_ip(Transport::Datagram, address).map(|holder| holder.pid), own);

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let _unix = UnixListener::bind(&path).unwrap();
        assert_eq!(of_unix(&path, None, None).map(|holder| holder.pid), own);
        assert_eq!(of_unix(&directory.path().join("y.sock"), None, None), None);
        assert_eq!(of_unix(Path::new("moved"), own, None).map(|holder| holder.pid), own);

        let name = format!("shepherd-test-{}", std::process::id());
        let address = UnixAddr::from_abstract_name(&name).unwrap();
        let _abstract = UnixListener::bind_addr(&address).unwrap();
        let of_name = |transport| of_abstract(transport, name.as_bytes());
        assert_eq!(of_name(Transport::Stream).map(|holder| holder.pid), own);
        assert_eq!(of_name(Transport::Seqpacket), None);
    }
}
