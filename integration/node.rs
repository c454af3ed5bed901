//! Shepherd as the primary of unmodified programs of Node.

#![expect(clippy::print_stderr, reason = "what is not tested is told")]

use std::{
    collections::BTreeSet, ffi::OsString, io::Read, net::UdpSocket, os::unix::net::UnixStream,
    process::Command, thread,
};

use crate::{
    harness::{
        Builder, DEADLINE, Daemon, Kind, Limits, Load, Port, environment, free_port, free_ports,
        get, source,
    },
    site::{reload_well, stop_well, wait_only_generation, wait_serving},
};

/// Whether there is a Node; where there is none, that is told.
pub(crate) fn has_node() -> bool {
    let has = Command::new("node").arg("--version").output().is_ok();
    if !has {
        eprintln!("there is no node, so programs of it are not tested; install nodejs");
    }
    has
}

/// A daemon that runs this program in Node, and has its port. `PORT` in it is the port.
pub(crate) fn program(text: &str, port: &Port) -> Option<Builder> {
    if !has_node() {
        return None;
    }
    let builder = Daemon::run();
    let path = builder.home_directory().join("app.js");
    std::fs::write(&path, text.replace("PORT", &port.to_string())).expect("a program");
    let command: [OsString; 2] = ["node".into(), path.into()];
    Some(builder.listen(port).args(["--name", "web"]).command(command))
}

/// A server that says its version and its pid, and takes as long as it is asked to.
pub(crate) const SERVER: &str = "
require('node:http').createServer((request, response) => {
  const ms = Number(new URL(request.url, 'http://x').searchParams.get('ms'));
  setTimeout(() => response.end(`v1 ${process.pid} - -\\n`), ms);
}).listen(PORT);
";

/// The pids that answer, once so many do.
#[track_caller]
pub(crate) fn pids(daemon: &Daemon, port: &Port, count: usize) -> BTreeSet<i32> {
    let mut pids = BTreeSet::new();
    daemon.eventually("an answer of each", || {
        pids.insert(get(port.v4(), "/").expect("an answer").pid);
        (pids.len() >= count).then_some(())
    });
    pids
}

fn says(daemon: &Daemon, words: &str) -> String {
    daemon.wait_line(|line| line.contains(words), words)
}

// ---- the programs of the examples ------------------------------------------------------------

#[test]
fn a_program_of_cluster_answers_from_each_of_its_workers() {
    let port = free_port();
    let text = std::fs::read_to_string(source("node-cluster/app.js")).expect("an example");
    let Some(builder) = program(&text.replace("8000", "PORT"), &port) else { return };
    let daemon = builder.workers(4).args(["--balance", "slots"]).start();
    let workers = wait_serving(&daemon, 4);
    let answered = pids(&daemon, &port, 4);
    assert_eq!(answered, workers.iter().copied().collect());
    let response = get(port.v4(), "/").expect("an answer");
    assert!(response.body.contains("\u{4f60}\u{597d}\u{ff0c}\u{4e16}\u{754c}"), "{response:?}");
    for worker in workers {
        let variables = environment(worker);
        assert_eq!(variables["NODE_CHANNEL_FD"], "4", "beside one socket");
        assert_eq!(variables["NODE_APP_INSTANCE"], variables["SHEPHERD_SLOT"]);
    }
    stop_well(&daemon);
}

#[test]
fn a_program_that_is_forked_is_sent_its_server() {
    let port = free_port();
    let text = std::fs::read_to_string(source("node-fork/worker.js")).expect("an example");
    let Some(builder) = program(&text, &port) else { return };
    let daemon = builder.workers(2).args(["--node-fork", "--balance", "slots"]).start();
    let workers = wait_serving(&daemon, 2);
    assert_eq!(pids(&daemon, &port, 2), workers.iter().copied().collect());
    let response = get(port.v4(), "/").expect("an answer");
    assert!(response.body.ends_with(&format!(" {}\n", daemon.pid())), "{response:?}");
    let variables = environment(workers[0]);
    assert_eq!(variables["NODE_CHANNEL_FD"], "3", "instead of descriptors");
    let others = ["NODE_UNIQUE_ID", "LISTEN_FDS", "LISTEN_PID"];
    assert!(others.iter().all(|name| !variables.contains_key(*name)), "{variables:?}");
    reload_well(&daemon);
    wait_only_generation(&daemon, 2, 2);
    assert_eq!(get(port.v4(), "/").expect("an answer").version, "v1");
    stop_well(&daemon);
}

#[test]
fn a_fork_is_sent_sockets_of_every_kind_and_is_ready_when_it_has_them() {
    let text = "
const server = require('node:net').createServer((socket) => socket.end('hello'));
process.on('message', (message, handle) => {
  if (message === 'server') handle.on('connection', (socket) => server.emit('connection', socket));
  if (message === 'udp') handle.on('message', (data, from) => handle.send(data, from.port, from.address));
});
";
    let ports = free_ports(2);
    let Some(builder) = program(text, &ports[0]) else { return };
    let path = builder.home_directory().join("x.sock");
    let udp = format!("udp:127.0.0.1:{}", ports[1]);
    let unix = format!("unix:{}", path.display());
    let daemon = builder.listen(udp).listen(unix).args(["--node-fork"]).start();
    wait_serving(&daemon, 1);
    let mut said = String::new();
    UnixStream::connect(path).expect("a socket").read_to_string(&mut said).expect("an answer");
    assert_eq!(said, "hello");
    let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    client.set_read_timeout(Some(DEADLINE)).expect("a limit");
    client.send_to(b"ping", ports[1].v4()).expect("sent");
    let mut answer = [0; 8];
    assert_eq!(client.recv(&mut answer).expect("an echo"), 4);
    stop_well(&daemon);
}

// ---- what a worker may have ------------------------------------------------------------------

#[test]
fn each_way_to_ask_for_a_socket_finds_it_and_all_are_waited_for() {
    let text = "
const net = require('node:net'), dgram = require('node:dgram');
const answer = (socket) => socket.end('hello');
net.createServer(answer).listen(PORT);
net.createServer(answer).listen({ fd: 4 });
net.createServer(answer).listen(process.env.SOCKET);
const udp = dgram.createSocket('udp4');
udp.on('message', (data, from) => udp.send(data, from.port, from.address));
setTimeout(() => udp.bind(Number(process.env.UDP), '127.0.0.1'), 300);
";
    for handoff in ["auto", "node"] {
        let ports = free_ports(3);
        let Some(builder) = program(text, &ports[0]) else { return };
        let path = builder.home_directory().join("x.sock");
        let socket = path.display().to_string();
        let daemon = builder
            .listen(format!("127.0.0.1:{}", ports[1]))
            .listen(format!("unix:{socket}"))
            .listen(format!("udp:127.0.0.1:{}", ports[2]))
            .workers(2)
            .args(["--handoff", handoff, "--env", &format!("SOCKET={socket}")])
            .args(["--env", &format!("UDP={}", ports[2])])
            .start();
        wait_serving(&daemon, 2);
        for port in &ports[..2] {
            let mut said = String::new();
            let mut stream = std::net::TcpStream::connect(port.v4()).expect("a socket");
            stream.read_to_string(&mut said).expect("an answer");
            assert_eq!(said, "hello");
        }
        let mut said = String::new();
        UnixStream::connect(&path).expect("a socket").read_to_string(&mut said).expect("an answer");
        assert_eq!(said, "hello");
        let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        client.set_read_timeout(Some(DEADLINE)).expect("a limit");
        daemon.eventually("an echo", || {
            client.send_to(b"ping", ports[2].v4()).expect("sent");
            client.recv(&mut [0; 8]).ok()
        });
        stop_well(&daemon);
    }
}

#[test]
fn what_is_not_the_services_is_refused_and_told_with_what_to_add() {
    let text = "
const net = require('node:net');
const told = (server) => server.on('error', (error) => console.log('refused:', error.code));
net.createServer().listen(PORT);
told(net.createServer()).listen(1);
told(net.createServer()).listen(0);
told(net.createServer()).listen('/no/such.sock');
told(net.createServer()).listen({ fd: 77 });
";
    let port = free_port();
    let Some(builder) = program(text, &port) else { return };
    let daemon = builder.start();
    wait_serving(&daemon, 1);
    says(&daemon, "asked to listen on 1, which is none of its sockets; add `-p 1`");
    says(&daemon, "a port that the kernel chooses");
    says(&daemon, "add `-p unix:/no/such.sock`; saying so no more");
    daemon.eventually("four errors", || {
        let refused = daemon.count_lines(|line| line.starts_with("refused: EACCES"));
        let bad = daemon.count_lines(|line| line.starts_with("refused: EBADF"));
        (refused == 3 && bad == 1).then_some(())
    });
    stop_well(&daemon);
}

// ---- ready and stop --------------------------------------------------------------------------

#[test]
fn a_message_makes_a_worker_ready_that_is_waited_for() {
    let text = format!("{SERVER}\nsetTimeout(() => process.send('ready'), 400);");
    let port = free_port();
    let Some(builder) = program(&text, &port) else { return };
    let daemon = builder.args(["--ready", "message"]).start();
    says(&daemon, "it sent the message `\"ready\"`");
    wait_serving(&daemon, 1);
    stop_well(&daemon);
    let Some(builder) = program(SERVER, &port) else { return };
    let daemon = builder.args(["--ready", "message", "--ready-timeout", "1s"]).start();
    says(&daemon, "was not ready within 1 s");
    stop_well(&daemon);
}

#[test]
fn a_worker_that_is_told_to_leave_finishes_what_it_has() {
    let port = free_port();
    let Some(builder) = program(SERVER, &port) else { return };
    let daemon = builder.start();
    wait_serving(&daemon, 1);
    says(&daemon, "is ready");
    let slow = |ms: u32| {
        let address = port.v4();
        thread::spawn(move || get(address, &format!("/?ms={ms}")))
    };
    let first = slow(1500);
    daemon.eventually("the request has arrived", || is_busy(&daemon));
    reload_well(&daemon);
    assert_eq!(first.join().expect("a client").expect("an answer").status, 200);
    wait_only_generation(&daemon, 2, 1);
    let second = slow(1500);
    daemon.eventually("the request has arrived", || is_busy(&daemon));
    stop_well(&daemon);
    assert_eq!(second.join().expect("a client").expect("an answer").status, 200);
    let told = |line: &str| line.contains("over its channel to leave");
    assert_eq!(daemon.count_lines(told), 2);
    assert_eq!(daemon.count_lines(|line| line.contains("sending SIGTERM")), 0);
}

/// Whether a worker has a connection open.
fn is_busy(daemon: &Daemon) -> Option<()> {
    let status = crate::control::status(&crate::control::client(daemon, "web"));
    let mut workers = status.services[0].workers.iter();
    workers.any(|worker| worker.connections.unwrap_or(0) > 0).then_some(())
}

#[test]
fn a_worker_that_does_not_leave_gets_the_signals() {
    let text = format!("{SERVER}\nprocess.on('disconnect', () => setInterval(() => {{}}, 1000));");
    let port = free_port();
    let Some(builder) = program(&text, &port) else { return };
    let daemon = builder.start();
    wait_serving(&daemon, 1);
    // It has closed everything and its channel, and something keeps it.
    stop_well(&daemon);
    says(&daemon, "sending SIGTERM");
    let Some(builder) = program("for (;;);", &port) else { return };
    let daemon = builder.args(["--ready", "alive:100ms", "--drain-timeout", "1s"]).start();
    wait_serving(&daemon, 1);
    stop_well(&daemon);
}

#[test]
fn a_worker_that_hangs_is_told_signalled_and_killed() {
    let text = format!(
        "{SERVER}\nprocess.on('SIGTERM', () => {{}});\nsetTimeout(() => {{ console.log('it hangs'); for (;;); }}, 500);"
    );
    let port = free_port();
    let Some(builder) = program(&text, &port) else { return };
    let daemon = builder.args(["--drain-timeout", "1s"]).start();
    wait_serving(&daemon, 1);
    says(&daemon, "it hangs");
    stop_well(&daemon);
    says(&daemon, "over its channel to leave; SIGTERM in 1 s, SIGKILL in 2 s");
    says(&daemon, "sending SIGTERM");
    says(&daemon, "SIGKILL");
}

#[test]
fn a_worker_that_leaves_by_itself_is_replaced() {
    let text = format!(
        "{SERVER}\nconst cluster = require('node:cluster');
if (process.env.SHEPHERD_WORKER === '1') setTimeout(() => cluster.worker.disconnect(), 500);"
    );
    let port = free_port();
    let Some(builder) = program(&text, &port) else { return };
    let daemon = builder.start();
    wait_serving(&daemon, 1);
    says(&daemon, "says that it is stopping");
    says(&daemon, "exited with code 0");
    daemon.eventually("the second serves", || get(port.v4(), "/").ok());
    stop_well(&daemon);
}

// ---- reloads ---------------------------------------------------------------------------------

fn reloads_lose_nothing(balance: &str) {
    let port = free_port();
    let Some(builder) = program(SERVER, &port) else { return };
    let daemon = builder.workers(2).args(["--balance", balance]).start();
    wait_serving(&daemon, 2);
    let limits = Limits { new_per_second: 100, ..Limits::default() };
    let load = Load::start_with(limits, port.v4(), [(Kind::New, 2)]);
    for _ in 0..20 {
        load.wait_ok(5);
        reload_well(&daemon);
    }
    load.wait_ok(20);
    load.stop().assert_clean();
    wait_only_generation(&daemon, 21, 2);
    stop_well(&daemon);
}

#[test]
fn twenty_reloads_lose_no_new_connection_with_a_socket_a_generation() {
    reloads_lose_nothing("generation");
}

#[test]
fn twenty_reloads_lose_no_new_connection_with_a_socket_a_worker() {
    reloads_lose_nothing("slots");
}

// ---- what cannot have the channel ------------------------------------------------------------

#[test]
fn a_wrapper_that_keeps_the_channel_is_named() {
    let port = free_port();
    let Some(builder) = program(SERVER, &port) else { return };
    let path = builder.home_directory().join("app.js");
    let command: [OsString; 3] = ["node".into(), "--watch".into(), path.into()];
    let daemon = builder.command(command).args(["--ready", "alive:1s"]).start();
    says(&daemon, "`node --watch` starts the program in a process of its own");
    wait_serving(&daemon, 1);
    stop_well(&daemon);
}

#[test]
fn a_program_can_be_its_own_primary() {
    if !has_node() {
        return;
    }
    let port = free_port();
    let text = std::fs::read_to_string(source("node-cluster/app.js")).expect("an example");
    let text = text.replace("8000", &port.to_string());
    let builder = Daemon::run();
    let path = builder.home_directory().join("app.js");
    std::fs::write(&path, text).expect("a program");
    let command: [OsString; 2] = ["node".into(), path.into()];
    let daemon = builder.args(["--name", "web", "--handoff", "fds"]).command(command).start();
    let primary = wait_serving(&daemon, 1)[0];
    let answered = daemon.eventually("an answer", || get(port.v4(), "/").ok());
    assert!(answered.pid != primary && daemon.descendants().contains(&answered.pid));
    stop_well(&daemon);
}
