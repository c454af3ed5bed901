//! Real sockets: what the kernel tells of them, and what is made of it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};

use nix::sys::stat::fstat;

use super::*;
use crate::os::clock;
use crate::os::sys;

fn place(socket: &impl AsFd, transport: Transport) -> Place {
    Place {
        inode: fstat(socket).expect("an inode").st_ino,
        transport,
        address: LocalAddress::of(socket).expect("a socket").expect("an address"),
    }
}

fn inode(socket: &impl AsFd) -> u64 {
    fstat(socket).expect("an inode").st_ino
}

/// A listener, and how to reach it.
fn tcp(address: &str) -> Option<(TcpListener, SocketAddr)> {
    // Not every machine has IPv6.
    let listener = TcpListener::bind(address).ok()?;
    let mut reached = listener.local_addr().expect("an address");
    if address.starts_with("[::]") {
        // By IPv4: a socket of both families.
        reached.set_ip("127.0.0.1".parse().expect("an address"));
    }
    Some((listener, reached))
}

fn connect(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(address).expect("connected")).collect()
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..3000 {
        if let Some(found) = look() {
            return found;
        }
        let _ = nix::poll::poll(&mut [], 10_u8);
    }
    panic!("after 30 s: not true that {what}");
}

#[test]
fn connections_that_wait_are_counted_by_inode() {
    let listeners: Vec<_> =
        ["127.0.0.1:0", "[::1]:0", "[::]:0"].into_iter().filter_map(tcp).collect();
    let clients: Vec<_> = listeners.iter().map(|(_, address)| connect(*address, 3)).collect();
    for (listener, _) in &listeners {
        sys::listen(listener, 77).expect("it listens on");
    }
    let places: Vec<Place> =
        listeners.iter().map(|(listener, _)| place(listener, Transport::Stream)).collect();
    let all: Vec<&Place> = places.iter().collect();
    // A handshake may end a moment after connect(2) does.
    until("three wait in each", || {
        let three = Queue { waiting: 3, most: Some(77) };
        (queues(&all) == vec![Some(three); places.len()]).then_some(())
    });
    let (listener, _) = &listeners[0];
    listener.accept().expect("one waits");
    assert_eq!(queues(&all)[0], Some(Queue { waiting: 2, most: Some(77) }));
    let gone = Place { inode: u64::from(u32::MAX), ..places[0].clone() };
    assert_eq!(queues(&[&gone, &places[0]])[0], None);
    drop(clients);
}

#[test]
fn what_waits_on_unix_sockets_is_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let by_path = UnixListener::bind(directory.path().join("x.sock")).expect("a listener");
    let name = format!("shepherd-socket-table-{}", std::process::id());
    let abstract_name = UnixAddress::from_abstract_name(name).expect("a name");
    let by_name = UnixListener::bind_addr(&abstract_name).expect("a listener");
    for listener in [by_path, by_name] {
        let place = place(&listener, Transport::Stream);
        let address = listener.local_addr().expect("an address");
        let _clients: Vec<UnixStream> =
            (0..3).map(|_| UnixStream::connect_addr(&address).expect("connected")).collect();
        let [Some(queue)] = queues(&[&place])[..] else { panic!("it is told of") };
        assert!(queue.waiting == 3 && queue.most.is_some(), "{queue:?}");
        assert_eq!(connections(&[&place]).inodes, BTreeSet::new());
        let (taken, _) = listener.accept().expect("one waits");
        let found = connections(&[&place]);
        assert_eq!((found.inodes, found.are_all), (BTreeSet::from([inode(&taken)]), true));
        let read: BTreeSet<u64> = read_unix()
            .expect("the table")
            .into_iter()
            .filter(|entry| place.has_name(&entry.name) && entry.inode != 0)
            .map(|entry| entry.inode)
            .collect();
        assert_eq!(read, BTreeSet::from([inode(&taken)]));
    }
}

#[test]
fn datagrams_that_wait_are_counted_in_bytes() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let place = place(&socket, Transport::Datagram);
    let [Some(queue)] = queues(&[&place])[..] else { panic!("it is told of") };
    assert!(queue.waiting == 0 && queue.most.is_some_and(|most| most > 1000), "{queue:?}");
    let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = socket.local_addr().expect("an address");
    for datagram in [&b"one"[..], b""] {
        client.send_to(datagram, address).expect("sent");
    }
    let two = until("both wait", || {
        let waiting = queues(&[&place])[0]?.waiting;
        (waiting > 0).then_some(waiting)
    });
    let mut buffer = [0; 9];
    socket.recv_from(&mut buffer).expect("the first");
    let [Some(one)] = queues(&[&place])[..] else { panic!("it is told of") };
    assert!(one.waiting > 0 && one.waiting < two, "an empty one waits: {one:?} of {two}");
    socket.recv_from(&mut buffer).expect("the second");
    assert_eq!(queues(&[&place])[0].expect("it is told of").waiting, 0);
}

#[test]
fn handshakes_are_counted_by_address_and_age() {
    for (listener, address) in ["127.0.0.1:0", "[::]:0"].into_iter().filter_map(tcp) {
        // What keeps a handshake from ending until the client has sent something.
        let (level, option) = (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT);
        sys::set_socket_option(&listener, level, option, 60).expect("it is deferred");
        let place = place(&listener, Transport::Stream);
        let since = clock::now();
        let mut clients = connect(address, 2);
        let all = until("two are under way", || {
            handshakes(&[&place]).filter(|all| handshakes_of(&place, None, all) == 2)
        });
        let jiffies = Duration::from_millis(50);
        let elapsed = clock::now().since(since) + jiffies;
        for handshake in &all {
            // One that has tried again counts as old.
            assert!(handshake.age.is_none_or(|age| age <= elapsed), "{all:?} after {elapsed:?}");
        }
        clients[0].write_all(b"x").expect("sent");
        until("one has ended", || {
            let left = handshakes_of(&place, None, &handshakes(&[&place])?);
            let waiting = queues(&[&place])[0]?.waiting;
            (left == 1 && waiting == 1).then_some(())
        });
    }
}

#[test]
fn younger_handshakes_are_anothers() {
    let millis = Duration::from_millis;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let place = place(&listener, Transport::Stream);
    let local = listener.local_addr().expect("an address");
    let elsewhere: SocketAddr = (local.ip(), local.port() ^ 1).into();
    let of = |local, age: Option<u64>| Handshake { local, age: age.map(millis) };
    let all = [
        of(local, Some(10)),
        of(local, Some(300)),
        of(local, None),
        of(elsewhere, None),
        of("127.0.0.2:0".parse().expect("an address"), None),
    ];
    for (parted, expected) in [
        (None, 3),
        (Some(millis(0)), 3),
        // Perhaps as old: its age is counted in ticks.
        (Some(millis(20)), 3),
        (Some(millis(21)), 2),
        (Some(millis(400)), 1),
        // Later tries look young as well.
        (Some(millis(1000)), 3),
    ] {
        assert_eq!(handshakes_of(&place, parted, &all), expected, "{parted:?}");
    }
}

#[test]
fn a_connection_is_open_while_one_direction_is() {
    for (listener, address) in ["127.0.0.1:0", "[::1]:0", "[::]:0"].into_iter().filter_map(tcp) {
        let place = place(&listener, Transport::Stream);
        let client = TcpStream::connect(address).expect("connected");
        let count = |place: &Place| {
            let found = connections(&[place]);
            assert!(found.are_all);
            found.inodes
        };
        let read = |protocol, family| {
            let ports = [address.port()];
            let entries = read_inet(protocol, family, OPEN, &ports).expect("the table");
            let own = entries.into_iter().filter(|it| it.inode != 0 && place.has(it.local));
            own.map(|entry| entry.inode).collect::<BTreeSet<u64>>()
        };
        let nothing = BTreeSet::new();
        assert_eq!(count(&place), nothing, "nobody has taken it");
        let (mut taken, _) = listener.accept().expect("one waits");
        let this = BTreeSet::from([inode(&taken)]);
        assert_eq!(count(&place), this);
        let (protocol, family) = place.table().expect("it is of the internet");
        assert_eq!(read(protocol, family), this);
        client.shutdown(Shutdown::Write).expect("half of it");
        assert_eq!(taken.read(&mut [0]).expect("the end"), 0);
        assert_eq!(count(&place), this, "it may be answered");
        taken.shutdown(Shutdown::Write).expect("the other half");
        until("both are closed", || (count(&place) == nothing).then_some(()));
        let client = TcpStream::connect(address).expect("connected");
        let (taken, _) = listener.accept().expect("one waits");
        taken.shutdown(Shutdown::Write).expect("half of it");
        assert_eq!(count(&place), BTreeSet::from([inode(&taken)]), "the client may send");
        drop(client);
        until("both are closed", || (count(&place) == nothing).then_some(()));
    }
}

#[test]
fn a_socket_has_what_was_reached_by_it_alone() {
    let place = |address: &str| {
        let address = match address.strip_prefix("dual:") {
            Some(port) => LocalAddress::DualStack(port.parse().expect("a port")),
            None => LocalAddress::Ip(address.parse().expect("an address")),
        };
        Place { inode: 1, transport: Transport::Stream, address }
    };
    for (bound, reached, expected) in [
        ("127.0.0.1:80", "127.0.0.1:80", true),
        ("127.0.0.1:80", "127.0.0.1:81", false),
        ("127.0.0.1:80", "127.0.0.2:80", false),
        ("127.0.0.1:80", "[::ffff:127.0.0.1]:80", false),
        ("0.0.0.0:80", "127.0.0.2:80", true),
        ("0.0.0.0:80", "[::ffff:127.0.0.1]:80", false),
        ("[::]:80", "[::1]:80", true),
        ("[::]:80", "[::ffff:127.0.0.1]:80", false),
        ("[::1]:80", "[::1]:80", true),
        ("[::1]:80", "[::2]:80", false),
        ("dual:80", "[::ffff:127.0.0.1]:80", true),
        ("dual:80", "[::1]:80", true),
        ("dual:80", "127.0.0.1:80", false),
        ("dual:80", "[::1]:81", false),
    ] {
        let reached = reached.parse().expect("an address");
        assert_eq!(place(bound).has(reached), expected, "{bound} {reached}");
    }
}

#[test]
#[cfg(target_endian = "little")]
fn the_tables_in_proc_are_read() {
    let listening = b"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000003 00:00000000 \
        00000000     0        0 4711 1 0000000000000000 100 0 0 10 0";
    let entry = inet_line(listening).expect("an entry");
    let local: SocketAddr = "127.0.0.1:8080".parse().expect("an address");
    assert_eq!((entry.local, entry.state, entry.inode, entry.waiting), (local, 10, 4711, 3));
    let tries = b"   1: 0100007F:1F90 0100007F:9C40 03 00000000:00000000 01:000000C8 \
        00000002     0        0 0 1 0000000000000000";
    let entry = inet_line(tries).expect("an entry");
    assert_eq!((entry.state, entry.inode, entry.retries), (3, 0, 2));
    for broken in ["", "0:", "0: 0100007F:1F90 b FF c:0 d 0 0 0 1", "0: 0100007F:1F90 b 0A 0 d"] {
        assert_eq!(inet_line(broken.as_bytes()), None, "{broken}");
    }
}

#[test]
fn the_kernel_and_proc_say_the_same_of_what_waits() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let _clients = connect(listener.local_addr().expect("an address"), 3);
    let ports = [listener.local_addr().expect("an address").port()];
    until("three wait", || {
        let entries = read_inet(Protocol::Tcp, Family::V4, LISTEN, &ports).expect("the table");
        let own = entries.iter().find(|entry| entry.inode == inode(&listener))?;
        (own.waiting == 3).then_some(())
    });
    let place = place(&listener, Transport::Stream);
    assert_eq!(queues(&[&place])[0].expect("it is told of").waiting, 3);
}
