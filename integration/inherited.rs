//! Sockets that somebody handed to the daemon (LISTEN_FDS): matched by name, then by address, used
//! instead of binding, and left as they were.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
};

use crate::{
    given::{Given, dump, kill},
    harness::{Address, Builder, Daemon, Home, free_port, get, odd},
    wrapped::wrapped,
};

/// A daemon that systemd-socket-activate becomes on the first connection.
fn activated(options: &str) -> Builder {
    let found = Command::new("sh")
        .args(["-c", "command -v systemd-socket-activate"])
        .output()
        .expect("a shell");
    assert!(found.status.success(), "there is no systemd-socket-activate; install systemd");
    // It gives its program an almost empty environment.
    wrapped(&format!(
        "exec systemd-socket-activate -E XDG_RUNTIME_DIR -E HARNESS_ID {options} \"$@\""
    ))
}

/// A daemon that gets sockets at these addresses from a process that keeps them open, too: TCP, or
/// `udp:`, `seqpacket:` and `dgram:`; paths and `@` names are unix sockets.
pub(crate) fn handed_over(addresses: &[String], names: &str) -> Builder {
    let giver = "\
import os, socket, sys, time
count = int(sys.argv[1])
names, addresses, command = sys.argv[2], sys.argv[3:3 + count], sys.argv[3 + count:]
given = []
kinds = {'udp': socket.SOCK_DGRAM, 'dgram': socket.SOCK_DGRAM, 'seqpacket': socket.SOCK_SEQPACKET}
for address in addresses:
    kind, _, rest = address.partition(':')
    address = rest if kind in kinds else address
    kind = kinds.get(kind, socket.SOCK_STREAM)
    if address[0] in '/@':
        s = socket.socket(socket.AF_UNIX, kind)
        s.bind(address.replace('@', chr(0)))
    else:
        host, _, port = address.rpartition(':')
        family = socket.AF_INET6 if ':' in host else socket.AF_INET
        s = socket.socket(family, kind)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((host.strip('[]'), int(port)))
    if kind != socket.SOCK_DGRAM: s.listen(16)
    given.append(os.dup(s.fileno()))
# A grandchild without its parent is no descendant of the daemon that we become.
child = os.fork()
if child == 0:
    if os.fork() == 0:
        time.sleep(1000)
    os._exit(0)
os.waitpid(child, 0)
# Out of the way first: 3 and more may be in use by what we have open.
given = [os.dup2(fd, 100 + n, False) for n, fd in enumerate(given)]
for n, fd in enumerate(given):
    os.dup2(fd, 3 + n)
os.environ.update(LISTEN_FDS=str(count), LISTEN_PID=str(os.getpid()))
if names:
    os.environ['LISTEN_FDNAMES'] = names
os.execv(command[0], command)
";
    let quoted: Vec<String> = addresses.iter().map(|address| format!("'{address}'")).collect();
    wrapped(&format!(
        "exec python3 -c \"{giver}\" {} '{names}' {} \"$@\"",
        addresses.len(),
        quoted.join(" ")
    ))
}

fn poll(builder: Builder) -> Builder {
    builder.command([odd().as_os_str(), "poll".as_ref()])
}

#[track_caller]
fn wait_ready(daemon: &Daemon) {
    daemon.wait_line(|line| line.contains("1 worker ready"), "ready");
}

/// Waits until somebody listens on each address and makes the connection that starts the daemon.
#[track_caller]
fn activate(daemon: &Daemon, sockets: usize, address: impl Into<Address>) {
    for _ in 0..sockets {
        daemon.wait_line(|line| line.contains("Listening on"), "socket-activate listens");
    }
    let response = get(address, "/").expect("an answer to the connection that started it");
    assert_eq!(response.status, 200);
}

#[test]
fn a_socket_of_socket_activate_is_used_and_the_first_connection_is_answered() {
    let port = free_port();
    let daemon = poll(activated(&format!("-l {port}"))).listen(&port).start();
    activate(&daemon, 1, port.v4());
    daemon.wait_line(
        |line| {
            line.contains(&format!("listening on [::]:{port}"))
                && line.contains("handed over to us")
        },
        "the start line says where it is from",
    );
    assert!(daemon.stop().success());
}

#[test]
fn without_sockets_of_its_own_it_uses_all_that_it_was_handed() {
    let (first, second) = (free_port(), free_port());
    let daemon = poll(activated(&format!("-l 127.0.0.1:{first} -l 127.0.0.1:{second}"))).start();
    activate(&daemon, 2, first.v4());
    assert_eq!(get(&second, "/").expect("an answer").status, 200);
    assert!(daemon.stop().success());
}

#[test]
fn a_named_socket_is_found_by_its_name_whatever_its_address() {
    let (given, asked) = (free_port(), free_port());
    let home_port = &given;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("dump");
    let daemon = activated(&format!("--fdname=http -l 127.0.0.1:{home_port}"))
        .listen(format!("http=127.0.0.1:{asked}"))
        .command(dump(&file))
        .start();
    activate(&daemon, 1, given.v4());
    let seen = Given::wait(&daemon, &file);
    assert_eq!(seen.variable("LISTEN_FDS"), "1");
    assert_eq!(seen.variable("LISTEN_FDNAMES"), "http");
    TcpStream::connect(asked.v4()).expect_err("the address of the socket with that name counts");
    assert!(daemon.stop().success());
}

#[test]
fn an_unnamed_socket_is_found_by_its_address_and_gets_the_name_that_was_asked_for() {
    let port = free_port();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("dump");
    let daemon = activated(&format!("-l 127.0.0.1:{port}"))
        .listen(format!("web=127.0.0.1:{port}"))
        .command(dump(&file))
        .start();
    activate(&daemon, 1, port.v4());
    assert_eq!(Given::wait(&daemon, &file).variable("LISTEN_FDNAMES"), "web");
}

#[test]
fn what_is_handed_over_and_what_is_bound_come_in_the_order_that_was_asked_for() {
    let (bound, given) = (free_port(), free_port());
    let daemon = handed_over(&[format!("127.0.0.1:{given}")], "second")
        .listen(format!("first=127.0.0.1:{bound}"))
        .listen(format!("second=127.0.0.1:{given}"))
        .args(["--ready", "alive:1ms"])
        .command([
            "python3",
            "-c",
            "import os,signal,socket\n\
             for fd in 3, 4: print('fd', fd, socket.socket(fileno=fd).getsockname()[1], flush=True)\n\
             print('names', os.environ['LISTEN_FDNAMES'], flush=True)\n\
             signal.pause()",
        ])
        .start();
    daemon.wait_line(|line| line == format!("fd 3 {bound}"), "the bound one first");
    daemon.wait_line(|line| line == format!("fd 4 {given}"), "the handed-over one second");
    daemon.wait_line(|line| line == "names first:second", "their names");
}

#[test]
fn sockets_of_every_kind_are_found_by_what_they_carry_and_where() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("packets.sock").display().to_string();
    let name = format!("shepherd-test-handed-{}", std::process::id());
    let port = free_port();
    // TCP and UDP of one port: only what is carried tells them apart.
    let given = [
        format!("udp:127.0.0.1:{port}"),
        format!("127.0.0.1:{port}"),
        format!("seqpacket:{path}"),
        format!("seqpacket:@{name}"),
        format!("@{name}"),
    ];
    let daemon = handed_over(&given, "")
        .listen(format!("a=unix:@{name}"))
        .listen(format!("b=seqpacket:@{name}"))
        .listen(format!("c=seqpacket:{path}"))
        .listen(format!("d=127.0.0.1:{port}"))
        .listen(format!("e=udp:127.0.0.1:{port}"))
        .args(["--ready", "alive:1ms"])
        .command(["python3", "-c", KINDS])
        .start();
    daemon.wait_line(
        |line| line == "kinds a:b:c:d:e STREAM SEQPACKET SEQPACKET STREAM DGRAM",
        "what the worker has",
    );
    for place in [
        format!("listening on a=unix:@{name}"),
        format!("listening on b=seqpacket:@{name}"),
        format!("listening on c=seqpacket:{path}"),
        format!("listening on d=127.0.0.1:{port}"),
        format!("receiving on e=udp:127.0.0.1:{port}"),
    ] {
        let told = format!("{place}, handed over to us");
        assert_eq!(daemon.count_lines(|line| line.ends_with(&told)), 1, "{told}");
    }
    assert!(daemon.stop().success());
    assert!(std::path::Path::new(&path).exists(), "the path is not ours to remove");
}

#[test]
fn sockets_of_every_kind_are_found_by_their_names_and_all_are_used_when_none_is_asked_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log.sock").display().to_string();
    let port = free_port();
    let given =
        [format!("udp:127.0.0.1:{port}"), format!("127.0.0.1:{port}"), format!("dgram:{path}")];
    // As a unit has it that listens for DNS: one name for both, and only the name is asked for.
    let named = handed_over(&given, "dns:dns:log").listen("log=udp:1").listen("dns=1");
    let daemon = named.args(["--ready", "alive:1ms"]).command(["python3", "-c", KINDS]).start();
    daemon.wait_line(|line| line == "kinds log:dns:dns DGRAM DGRAM STREAM", "by name");
    let told = format!("receiving on log=unix:{path} (datagrams), handed over to us");
    assert_eq!(daemon.count_lines(|line| line.ends_with(&told)), 1, "{told}");
    assert!(daemon.stop().success());
    drop(daemon);

    let port = free_port();
    let given = [format!("udp:127.0.0.1:{port}"), format!("127.0.0.1:{port}")];
    let all = handed_over(&given, "").args(["--ready", "alive:1ms"]);
    let daemon = all.command(["python3", "-c", KINDS]).start();
    daemon.wait_line(|line| line == "kinds unknown:unknown DGRAM STREAM", "all of them");
}

/// Says the names and the types of its sockets.
const KINDS: &str = "\
import os, signal, socket
types = [socket.socket(fileno=3 + n).type.name[5:] for n in range(int(os.environ['LISTEN_FDS']))]
print('kinds', os.environ['LISTEN_FDNAMES'], *types, flush=True)
signal.pause()
";

#[test]
fn a_datagram_of_socket_activate_starts_the_daemon_and_is_answered() {
    let port = free_port();
    let worker = "\
import socket
s = socket.socket(fileno=3)
while True:
    data, client = s.recvfrom(100)
    s.sendto(data, client)
";
    let daemon = activated(&format!("--datagram -l 127.0.0.1:{port}"))
        .listen(format!("udp:127.0.0.1:{port}"))
        .command(["python3", "-c", worker])
        .start();
    daemon.wait_line(|line| line.contains("Listening on"), "socket-activate receives");
    let client = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    client.set_read_timeout(Some(crate::harness::DEADLINE)).expect("a timeout");
    client.send_to(b"first", port.v4()).expect("sent");
    let mut answer = [0; 100];
    let length = client.recv(&mut answer).expect("an answer to what started it");
    assert_eq!(&answer[..length], b"first");
    wait_ready(&daemon);
}

#[test]
fn a_socket_that_nobody_asks_for_is_warned_of_and_not_served() {
    let (asked, extra) = (free_port(), free_port());
    let daemon = poll(handed_over(
        &[format!("127.0.0.1:{asked}"), format!("127.0.0.1:{extra}")],
        "web:extra",
    ))
    .listen(format!("web=127.0.0.1:{asked}"))
    .start();
    daemon.wait_line(
        |line| {
            line.contains("WARN")
                && line.contains(&format!("socket extra=127.0.0.1:{extra} was handed over"))
                && line.contains("no `-p` asks for it")
        },
        "a warning",
    );
    wait_ready(&daemon);
    assert_eq!(get(&asked, "/").expect("an answer").status, 200);
    assert_eq!(daemon.addresses(), [Address::from(&asked)], "our copy is closed");
    // It is still open in the process that gave it.
    TcpStream::connect(extra.v4()).expect("the giver listens");
}

#[test]
fn handed_over_sockets_are_as_they_were_for_others_after_the_stop() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("web.sock");
    let port = free_port();
    let daemon = poll(handed_over(&[format!("127.0.0.1:{port}"), path.display().to_string()], ""))
        .listen(format!("127.0.0.1:{port}"))
        .listen(format!("unix:{}", path.display()))
        .start();
    wait_ready(&daemon);
    assert_eq!(get(&port, "/").expect("an answer").status, 200);
    assert_eq!(get(path.as_path(), "/").expect("an answer").status, 200);
    let before = fs::metadata(&path).expect("its path");
    assert!(daemon.stop().success());
    let after = fs::metadata(&path).expect("the path is not ours to remove");
    assert_eq!(ids(&after), ids(&before));
    UnixStream::connect(&path).expect("still listening");
    TcpStream::connect(port.v4()).expect("still listening");
}

/// Device, inode, mode.
fn ids(found: &fs::Metadata) -> (u64, u64, u32) {
    use std::os::unix::fs::MetadataExt;
    (found.dev(), found.ino(), found.mode())
}

#[test]
fn the_path_of_socket_activate_is_left_where_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let path: PathBuf = directory.path().join("web.sock");
    let daemon = poll(activated(&format!("-l {}", path.display())))
        .listen(format!("unix:{}", path.display()))
        .start();
    activate(&daemon, 1, path.as_path());
    assert!(daemon.stop().success());
    assert!(path.exists());
}

#[test]
fn sockets_that_are_meant_for_another_process_are_ignored() {
    let port = free_port();
    let home = Home::new();
    let file = home.directory().join("dump");
    let daemon = Daemon::run()
        .home(&home)
        .env("LISTEN_FDS", "1")
        .env("LISTEN_PID", "1")
        .env("LISTEN_FDNAMES", "web")
        .listen(format!("web=127.0.0.1:{port}"))
        .command(dump(&file))
        .start();
    wait_ready(&daemon);
    assert_eq!(daemon.count_lines(|line| line.contains("handed over")), 0);
    assert_eq!(get(&port, "/").expect("an answer").status, 200);
    let given = Given::wait(&daemon, &file);
    assert_eq!(given.variable("LISTEN_PID"), daemon.workers()[0].to_string());
}

#[test]
fn an_id_that_was_meant_for_the_daemon_does_not_reach_its_workers() {
    let port = free_port();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("dump");
    let daemon = activated(&format!("-E LISTEN_PIDFDID=4711 -l 127.0.0.1:{port}"))
        .listen(format!("127.0.0.1:{port}"))
        .command(dump(&file))
        .start();
    activate(&daemon, 1, port.v4());
    let given = Given::wait(&daemon, &file);
    let id = given.environment.get("LISTEN_PIDFDID").map(String::as_str);
    assert_ne!(id, Some("4711"));
    assert_eq!(given.variable("LISTEN_PID"), given.ids["pid"].to_string());
}

#[test]
fn a_restarted_worker_gets_the_handed_over_socket_again() {
    let port = free_port();
    let daemon = poll(handed_over(&[format!("127.0.0.1:{port}")], "web")).listen("web=0").start();
    wait_ready(&daemon);
    let first = get(&port, "/").expect("an answer").pid;
    kill(first);
    let second = get(&port, "/").expect("an answer").pid;
    assert_ne!(first, second);
}

#[test]
fn variables_that_promise_what_is_not_there_are_refused_by_name() {
    let refused = |line: &str, words: &str| {
        let daemon = poll(wrapped(line)).listen("0").start();
        assert_eq!(daemon.wait_exit().code(), Some(1));
        daemon.wait_line(|line| line.contains(words), words);
        daemon.assert_nothing_left();
    };
    let stamp = "export LISTEN_PID=$$";
    refused(
        &format!("{stamp} LISTEN_FDS=two\nexec \"$@\""),
        "cannot take the sockets of LISTEN_FDS: `two` is not a number",
    );
    refused(
        &format!("{stamp} LISTEN_FDS=1\nexec 3<&-\nexec \"$@\""),
        "cannot take the socket at descriptor 3: nothing is open there or it is no socket",
    );
    refused(
        &format!("{stamp} LISTEN_FDS=1\nexec 3</dev/null\nexec \"$@\""),
        "cannot take the socket at descriptor 3: nothing is open there or it is no socket",
    );
    refused(
        &format!("{stamp} LISTEN_FDS=1 LISTEN_FDNAMES=a:b\nexec \"$@\""),
        "it says 1 and LISTEN_FDNAMES has 2 names",
    );
}

#[test]
fn a_handed_over_socket_keeps_the_daemon_from_binding_the_same_address() {
    // The giver still has it, so that a bind would fail.
    let port = free_port();
    let daemon = poll(handed_over(&[format!("[::1]:{port}")], ""))
        .listen(format!("localhost:{port}"))
        .start();
    wait_ready(&daemon);
    assert_eq!(get(port.v6(), "/").expect("an answer").status, 200);
    assert_eq!(get(port.v4(), "/").expect("the other family was bound").status, 200);
    TcpListener::bind(port.v4()).expect_err("bound by the daemon");
}
