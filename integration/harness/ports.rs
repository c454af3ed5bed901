//! TCP and UDP ports that are free on both families and belong to one test while it runs.
//!
//! A port from `bind(0)` is from the range that outgoing connections use, so a load client could
//! take it between the probe and the daemon's bind. Ours are below that range. Test processes that
//! run at the same time keep apart by a lock on one byte of one file for each port: the lock belongs
//! to the open file, so it holds between the threads of one process as well, and the kernel gives
//! it up when the process dies. Within a process the search goes on from the last port, so that a
//! port is not used again by the next test.

use std::{
    env, fmt,
    fs::{self, File},
    io::ErrorKind,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    process,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    libc,
    unistd::geteuid,
};

/// Above the ports of common services.
const LOWEST: u16 = 10_000;
/// Where outgoing connections begin if the kernel does not say so, and where it leaves us too few.
const OUTGOING: u16 = 32_768;
/// With fewer ports than this below the range of outgoing connections, collisions with those are
/// the smaller evil.
const ENOUGH: u16 = 1_000;

/// A port that is ours until it is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    pub fn number(&self) -> u16 {
        self.number
    }

    pub fn v4(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }

    pub fn v6(&self) -> SocketAddr {
        (Ipv6Addr::LOCALHOST, self.number).into()
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number.fmt(f)
    }
}

pub fn free_port() -> Port {
    let (start, count) = range();
    for _ in 0..count {
        let number = start + u16::try_from(next() % u32::from(count)).expect("count is a u16");
        let Some(lock) = lock(number) else { continue };
        if is_free(number) {
            return Port { number, _lock: lock };
        }
    }
    panic!("no free port from {start} on ({count} tried)");
}

/// So many free ports, one after the other.
pub fn free_ports(count: u16) -> Vec<Port> {
    let (_, ports) = range();
    for _ in 0..ports {
        let first = free_port();
        let following = (1..count).map(|step| {
            let number = first.number.checked_add(step)?;
            lock(number).filter(|_| is_free(number)).map(|lock| Port { number, _lock: lock })
        });
        if let Some(following) = following.collect::<Option<Vec<Port>>>() {
            return std::iter::once(first).chain(following).collect();
        }
    }
    panic!("no {count} free ports beside each other");
}

/// The first port and how many there are.
fn range() -> (u16, u16) {
    static RANGE: OnceLock<(u16, u16)> = OnceLock::new();
    *RANGE.get_or_init(|| {
        let outgoing = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
            .ok()
            .and_then(|text| text.split_ascii_whitespace().next()?.parse().ok())
            .filter(|low| *low >= LOWEST + ENOUGH)
            .unwrap_or(OUTGOING);
        (LOWEST, outgoing - LOWEST)
    })
}

/// A number that grows, from a place that differs between processes.
fn next() -> u32 {
    static NEXT: OnceLock<AtomicU32> = OnceLock::new();
    // A prime as the step spreads neighbouring pids over the range.
    NEXT.get_or_init(|| AtomicU32::new(process::id().wrapping_mul(7_919) % 1_000_000))
        .fetch_add(1, Ordering::Relaxed)
}

fn lock(number: u16) -> Option<File> {
    // By user, because /tmp does not let one user open a file of another for writing.
    let path = env::temp_dir().join(format!("shepherd-test-ports-{}", geteuid()));
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .unwrap_or_else(|error| panic!("cannot open `{}`: {error}", path.display()));
    #[expect(clippy::cast_possible_truncation, reason = "the constants are 1 and 0")]
    let byte = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: i64::from(number),
        l_len: 1,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_OFD_SETLK(&byte)).is_ok().then_some(file)
}

/// Whether nobody has the port, on either family, for streams or datagrams.
fn is_free(number: u16) -> bool {
    let any4 = (Ipv4Addr::UNSPECIFIED, number);
    let any6 = (Ipv6Addr::UNSPECIFIED, number);
    // One after the other: the wildcard of IPv6 takes IPv4 as well.
    bindable(TcpListener::bind(any4).map(drop))
        && bindable(TcpListener::bind(any6).map(drop))
        && bindable(UdpSocket::bind(any4).map(drop))
        && bindable(UdpSocket::bind(any6).map(drop))
}

fn bindable(outcome: std::io::Result<()>) -> bool {
    match outcome {
        Ok(()) => true,
        // Only "somebody has it" counts: a machine without IPv6 has other errors.
        Err(error) => !matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied),
    }
}

#[test]
fn ports_are_distinct_and_out_of_the_way_of_outgoing_connections() {
    let ports: Vec<Port> = (0..50).map(|_| free_port()).collect();
    let numbers: std::collections::BTreeSet<u16> = ports.iter().map(Port::number).collect();
    assert_eq!(numbers.len(), ports.len());
    for port in &ports {
        assert!(lock(port.number()).is_none(), "{port} is not locked");
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port.number())).expect("a free port");
    }
    let outgoing = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let outgoing = outgoing.local_addr().expect("an address").port();
    let (start, count) = range();
    assert!(!(start..start + count).contains(&outgoing), "{outgoing} is in our range");
}

#[test]
fn a_dropped_port_may_be_had_again() {
    let number = free_port().number();
    assert!(lock(number).is_some());
}
