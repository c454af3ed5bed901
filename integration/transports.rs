//! Sockets that carry something else than TCP, or are reached otherwise than by an address or a path:
//! UDP, sequenced packets, unix names without a file. Where they answer, how workers get them, who is
//! in the way.

#![expect(clippy::panic, reason = "a test fails by it")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, UdpSocket},
    os::{
        fd::{AsRawFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream},
    },
    path::Path,
    process,
};

use nix::{
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, socket,
    },
    sys::{signal::Signal, time::TimeVal},
};

use crate::{
    harness::{Builder, DEADLINE, Daemon, Home, Port, free_port},
    mistakes::{BIND, refused},
};

/// Answers what comes on any of its sockets with its generation and what came; a datagram or packet
/// that was taken is answered before it ends.
const ECHO: &str = "\
import os, select, signal, socket
stop, stopper = os.pipe()
signal.signal(signal.SIGTERM, lambda *_: os.write(stopper, b'x'))
sockets = [socket.socket(fileno=3 + n) for n in range(int(os.environ['LISTEN_FDS']))]
poll = select.poll()
for each in [stop] + sockets: poll.register(each, select.POLLIN)
for each in sockets: each.setblocking(False)
prefix = os.environ['SHEPHERD_GENERATION'].encode() + b' '
while True:
    ready = {fd for fd, _ in poll.poll()}
    if stop in ready: break
    for each in sockets:
        if each.fileno() not in ready: continue
        try:
            if each.type == socket.SOCK_DGRAM:
                data, client = each.recvfrom(1000)
                each.sendto(prefix + data, client)
            else:
                client, _ = each.accept()
                client.setblocking(True)
                client.send(prefix + client.recv(1000))
                client.close()
        except BlockingIOError: pass  # another worker was faster
";

pub(crate) fn echo() -> Builder {
    Daemon::run().command(["python3", "-c", ECHO])
}

#[track_caller]
fn started(builder: Builder) -> Daemon {
    let daemon = builder.start();
    // Only being seen waiting makes them ready: they say nothing.
    daemon.wait_line(|line| line.contains("seen waiting on its socket"), "ready by sight");
    daemon.wait_line(|line| line.contains("1 worker ready"), "ready");
    daemon
}

/// Sends a datagram and gives the answer.
#[track_caller]
pub(crate) fn ask(to: SocketAddr, text: &str) -> String {
    let client = UdpSocket::bind((if to.is_ipv4() { "127.0.0.1" } else { "::1" }, 0));
    let client = client.expect("a socket");
    client.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    client.connect(to).expect("a destination");
    client.send(text.as_bytes()).expect("sent");
    let mut answer = [0; 1000];
    let length = client.recv(&mut answer).unwrap_or_else(|error| panic!("{to}: {error}"));
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// Sends a packet on a connection of sequenced packets and gives the answer.
#[track_caller]
fn ask_packet(to: &UnixAddr, text: &str) -> String {
    let client = seqpacket();
    connect(client.as_raw_fd(), to).unwrap_or_else(|error| panic!("{to:?}: {error}"));
    send(client.as_raw_fd(), text.as_bytes(), MsgFlags::empty()).expect("sent");
    let mut answer = [0; 1000];
    let length = recv(client.as_raw_fd(), &mut answer, MsgFlags::empty()).expect("an answer");
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

fn seqpacket() -> OwnedFd {
    let kind = SockType::SeqPacket;
    let client = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    let seconds = i64::try_from(DEADLINE.as_secs()).expect("seconds");
    let timeout = nix::sys::socket::sockopt::ReceiveTimeout;
    nix::sys::socket::setsockopt(&client, timeout, &TimeVal::new(seconds, 0)).expect("a timeout");
    client
}

#[track_caller]
fn ask_stream(to: &UnixAddress, text: &str) -> String {
    let mut client = UnixStream::connect_addr(to).unwrap_or_else(|error| panic!("{to:?}: {error}"));
    client.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    client.write_all(text.as_bytes()).expect("sent");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    answer
}

/// A name that no other test has.
fn name(of: &str) -> String {
    format!("shepherd-test-{of}-{}", process::id())
}

fn abstract_address(name: &str) -> UnixAddress {
    UnixAddress::from_abstract_name(name).expect("a name")
}

#[test]
fn a_bare_udp_port_receives_on_both_families_by_one_socket() {
    let port = free_port();
    let daemon = started(echo().listen(format!("dns=udp:{port}")));
    daemon.wait_line(
        |line| line.contains(&format!("receiving on dns=udp:[::]:{port} (IPv4 and IPv6)")),
        "the start line",
    );
    assert_eq!(ask(port.v4(), "four"), "1 four");
    assert_eq!(ask(port.v6(), "six"), "1 six");
    assert!(daemon.stop().success());
    UdpSocket::bind(port.v6()).expect("it is free again");
}

#[test]
fn a_udp_address_receives_there_and_nowhere_else() {
    type Side = fn(&Port) -> SocketAddr;
    let sides: [(Side, Side); 2] = [(Port::v4, Port::v6), (Port::v6, Port::v4)];
    for (wanted, other) in sides {
        let port = free_port();
        let _daemon = started(echo().listen(format!("udp:{}", wanted(&port))));
        assert_eq!(ask(wanted(&port), "x"), "1 x");
        UdpSocket::bind(other(&port)).expect("the other family was not asked for");
    }
}

#[test]
fn udp_localhost_is_two_sockets_also_where_the_kernel_chooses_the_port() {
    let daemon = started(echo().listen("dns=udp:localhost:0"));
    let line = daemon.wait_line(|line| line.contains("receiving on dns=udp:127.0.0.1:"), "IPv4");
    let port = line.rsplit(':').next().and_then(|port| port.trim().parse().ok());
    let port: u16 = port.unwrap_or_else(|| panic!("no port in `{line}`"));
    assert_ne!(port, 0);
    daemon.wait_line(
        |line| line.contains(&format!("receiving on dns=udp:[::1]:{port}")),
        "the same port of the other family",
    );
    assert_eq!(ask(([127, 0, 0, 1], port).into(), "four"), "1 four");
    assert_eq!(ask((std::net::Ipv6Addr::LOCALHOST, port).into(), "six"), "1 six");
}

#[test]
fn sequenced_packets_come_on_a_path_and_its_file_goes_at_the_stop() {
    let home = Home::new();
    let path = home.directory().join("packets.sock");
    let daemon = started(echo().home(&home).listen(format!("log=seqpacket:{}", path.display())));
    daemon.wait_line(
        |line| line.contains(&format!("listening on log=seqpacket:{}", path.display())),
        "the start line",
    );
    assert_eq!(ask_packet(&UnixAddr::new(&path).expect("a path"), "x"), "1 x");
    assert!(daemon.stop().success());
    assert!(!path.exists());
}

#[test]
fn names_without_a_file_are_one_a_type_and_free_after_the_stop() {
    let name = name("free");
    let daemon = started(
        echo().listen(format!("web=unix:@{name}")).listen(format!("log=seqpacket:@{name}")),
    );
    for place in [format!("web=unix:@{name}"), format!("log=seqpacket:@{name}")] {
        daemon.wait_line(|line| line.contains(&format!("listening on {place}")), &place);
    }
    assert_eq!(ask_stream(&abstract_address(&name), "stream"), "1 stream");
    let address = UnixAddr::new_abstract(name.as_bytes()).expect("a name");
    assert_eq!(ask_packet(&address, "packet"), "1 packet");
    assert!(daemon.stop().success());
    UnixListener::bind_addr(&abstract_address(&name)).expect("it is free again");
}

#[test]
fn all_kinds_come_in_the_order_of_the_command_line_with_their_names() {
    let home = Home::new();
    let path = home.directory().join("packets.sock");
    let (udp, tcp) = (free_port(), free_port());
    let name = name("order");
    let worker = "\
import os, socket, signal
for fd in range(3, 3 + int(os.environ['LISTEN_FDS'])):
    s = socket.socket(fileno=fd)
    listens = s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    print('fd', fd, s.type.name, listens, s.getsockname(), flush=True)
print('names', os.environ['LISTEN_FDNAMES'], flush=True)
signal.pause()
";
    let daemon = Daemon::run()
        .home(&home)
        .listen(format!("d=udp:localhost:{udp}"))
        .listen(format!("s=seqpacket:{}", path.display()))
        .listen(format!("127.0.0.1:{tcp}"))
        .listen(format!("a=unix:@{name}"))
        .args(["--ready", "alive:1ms"])
        .command(["python3", "-c", worker])
        .start();
    daemon.wait_line(|line| line.starts_with("names "), "the worker's view");
    let lines = daemon.lines().into_iter().map(|line| line.text);
    let seen: Vec<String> =
        lines.filter(|line| line.starts_with("fd ") || line.starts_with("names ")).collect();
    let expected = [
        format!("fd 3 SOCK_DGRAM 0 ('127.0.0.1', {udp})"),
        format!("fd 4 SOCK_DGRAM 0 ('::1', {udp}, 0, 0)"),
        format!("fd 5 SOCK_SEQPACKET 1 {}", path.display()),
        format!("fd 6 SOCK_STREAM 1 ('127.0.0.1', {tcp})"),
        format!("fd 7 SOCK_STREAM 1 b'\\x00{name}'"),
        "names d:d:s:unknown:a".to_owned(),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn every_way_of_waiting_for_a_datagram_makes_ready() {
    for way in [
        "s.recvfrom(100)",
        "s.recv(100)",
        "s.recvmsg(100)",
        "os.read(3, 100)",
        "os.readv(3, [bytearray(100)])",
        "p = select.poll(); p.register(s, select.POLLIN); p.poll()",
        "select.select([s], [], [])",
        "e = select.epoll(); e.register(s, select.EPOLLIN); e.poll()",
    ] {
        let worker = format!("import os, select, socket\ns = socket.socket(fileno=3)\n{way}");
        let daemon =
            Daemon::run().listen("udp:127.0.0.1:0").command(["python3", "-c", &worker]).start();
        daemon.wait_line(|line| line.contains("seen waiting on its socket"), way);
    }
}

#[test]
fn datagrams_are_answered_over_reloads() {
    let port = free_port();
    let daemon = started(echo().workers(1).listen(format!("udp:{}", port.v4())));
    let mut generations = std::collections::BTreeSet::new();
    let mut asked = 0_u32;
    for generation in 2..=4 {
        let mark = daemon.mark();
        daemon.signal(Signal::SIGHUP);
        let wanted = format!("{generation} ");
        // Asked one after the other, so that one that is lost fails its wait.
        daemon.eventually("an answer of the new generation", || {
            asked += 1;
            let answer = ask(port.v4(), &asked.to_string());
            let (from, text) = answer.split_once(' ').expect("two words");
            assert_eq!(text, asked.to_string());
            generations.insert(from.to_owned());
            answer.starts_with(&wanted).then_some(())
        });
        daemon.wait_line_since(mark, |line| line.contains("reload committed"), "committed");
    }
    assert!(generations.contains("4"), "{generations:?}");
}

/// Who we are, as a message names us.
fn holder() -> String {
    let own = std::fs::read_to_string("/proc/self/comm").expect("our name");
    format!("`{}` (pid {})", own.trim(), process::id())
}

#[test]
fn a_udp_port_that_another_program_has_is_refused_and_the_program_named() {
    let port = free_port();
    let _taken = UdpSocket::bind(port.v4()).expect("a socket");
    for (socket, shown) in [
        (format!("udp:{port}"), format!("udp:[::]:{port}")),
        (format!("udp:127.0.0.1:{port}"), format!("udp:127.0.0.1:{port}")),
        (format!("udp:0.0.0.0:{port}"), format!("udp:0.0.0.0:{port}")),
        (format!("udp:localhost:{port}"), format!("udp:127.0.0.1:{port}")),
    ] {
        let text = refused(echo().listen(&socket), BIND, &[]);
        let expected = format!(
            "cannot bind `{shown}`: the address is in use by {}; stop it or choose another port",
            holder()
        );
        assert!(text.contains(&expected), "`{expected}` is not in:\n{text}");
    }
}

#[test]
fn a_udp_port_of_another_shepherd_is_refused_and_tcp_of_the_same_number_is_not() {
    let port = free_port();
    let first = started(echo().listen(format!("udp:{port}")));
    let holder = format!("in use by `shepherd` (pid {})", first.pid());
    refused(echo().listen(format!("udp:{port}")), BIND, &[&holder]);
    let second = started(echo().listen(&port));
    assert!(second.stop().success());
    assert_eq!(ask(port.v4(), "x"), "1 x");
}

#[test]
fn a_name_without_a_file_that_another_program_has_is_refused_and_the_program_named() {
    let name = name("taken");
    let taken = UnixListener::bind_addr(&abstract_address(&name)).expect("a listener");
    let text = refused(echo().listen(format!("unix:@{name}")), BIND, &[]);
    let expected = format!(
        "cannot bind `unix:@{name}`: {} has the name; stop it or choose another name",
        holder()
    );
    assert!(text.contains(&expected), "`{expected}` is not in:\n{text}");
    drop(taken);
    let _daemon = started(echo().listen(format!("unix:@{name}")));
}

#[test]
fn a_path_of_another_type_is_refused_and_a_stale_one_is_replaced() {
    let home = Home::new();
    let path = home.directory().join("x.sock");
    let socket = format!("seqpacket:{}", path.display());
    let listener = UnixListener::bind(&path).expect("a listener");
    let text = refused(echo().home(&home).listen(&socket), BIND, &[]);
    let expected = format!(
        "cannot bind `{socket}`: {} listens on it; stop it or choose another path",
        holder()
    );
    assert!(text.contains(&expected), "`{expected}` is not in:\n{text}");
    drop(listener);
    assert!(path.exists(), "a closed listener leaves its path");
    let _daemon = started(echo().home(&home).listen(&socket));
    assert_eq!(ask_packet(&UnixAddr::new(&path).expect("a path"), "x"), "1 x");
}

#[test]
fn one_udp_socket_that_cannot_be_bound_leaves_none_of_the_others() {
    let home = Home::new();
    let path = home.directory().join("packets.sock");
    let (free, taken) = (free_port(), free_port());
    let _taken = UdpSocket::bind(taken.v4()).expect("a socket");
    let name = name("none");
    refused(
        echo()
            .home(&home)
            .listen(format!("udp:{free}"))
            .listen(format!("seqpacket:{}", path.display()))
            .listen(format!("unix:@{name}"))
            .listen(format!("udp:127.0.0.1:{taken}")),
        BIND,
        &[&format!("cannot bind `udp:127.0.0.1:{taken}`")],
    );
    UdpSocket::bind(free.v4()).expect("it is free again");
    UnixListener::bind_addr(&abstract_address(&name)).expect("it is free again");
    assert!(!Path::new(&path).exists());
}

#[test]
fn a_backlog_above_the_kernels_limit_is_told_with_both_numbers() {
    let limit = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("a limit");
    let limit: u32 = limit.trim().parse().expect("a number");
    let worker = "\
import os, signal, socket, struct
info = socket.socket(fileno=3).getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
# tcpi_sacked is the limit of the queue where a socket listens (ss(8)).
print('backlog', struct.unpack_from('I', info, 28)[0], flush=True)
signal.pause()
";
    for (asked, given) in [(limit - 1, limit - 1), (limit + 904, limit)] {
        let daemon = Daemon::run()
            .listen(format!("127.0.0.1:0,backlog={asked}"))
            .args(["--ready", "alive:1ms"])
            .command(["python3", "-c", worker])
            .start();
        daemon.wait_line(|line| line == format!("backlog {given}"), "what the kernel has");
        let expected = format!(
            "the backlog {asked} of 127.0.0.1:0 is cut to {limit}, the kernel's \
             net.core.somaxconn; raise that, or ask for less"
        );
        let told = daemon.count_lines(|line| line.contains("WARN") && line.ends_with(&expected));
        assert_eq!(told, usize::from(asked != given), "{asked}");
    }
}
