//! `--keepalive close-idle`: workers whose programs know nothing of it lose their idle connections, and
//! no others, so that their drains end long before their time.

use std::{
    ffi::OsString,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use crate::{
    control::{client, status},
    harness::{Builder, Daemon, Kind, Limits, Load, Port, free_port, manners},
    site::{reload_well, stop_well, wait_only_generation, wait_serving},
};

/// Longer than any test waits: a drain that takes it is seen.
const BEFORE_STOP: &str = "10m";

/// A server as one writes it who thinks of nothing.
const NODE: &str = "require('http').createServer({ keepAliveTimeout: 0 }, (request, response) =>
  setTimeout(() => response.end('ok'), request.url === '/slow' ? 2000 : 0)
).listen({ fd: 3 });
process.on('SIGTERM', () => process.exit(0));";

/// The same, with a connection to elsewhere on which the last word was its own.
const PYTHON: &str = "
import http.server, os, socket, sys, threading, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        time.sleep(2 if self.path == '/slow' else 0)
        self.send_response(200)
        self.send_header('Content-Length', '2')
        self.end_headers()
        self.wfile.write(b'ok')
    def log_message(self, *arguments):
        pass
def listen_to(elsewhere):
    elsewhere.recv(1)
    print('elsewhere has ended', flush=True)
if len(sys.argv) > 1:
    elsewhere = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
    elsewhere.recv(1)
    elsewhere.send(b'x')
    threading.Thread(target=listen_to, args=(elsewhere,), daemon=True).start()
server = http.server.ThreadingHTTPServer(('', 0), Handler, bind_and_activate=False)
server.socket = socket.socket(fileno=3)
server.serve_forever()
";

fn run(port: &Port, keepalive: &str, command: &[OsString]) -> Builder {
    let options = ["--name", "web", "--before-stop", BEFORE_STOP, "--keepalive", keepalive];
    Daemon::run().workers(1).listen(port).args(options).command(command)
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// A connection of a client, on which such a request was sent.
fn connection(port: &Port, request: &str) -> TcpStream {
    let mut connection = TcpStream::connect(port.v4()).expect("connected");
    connection.set_read_timeout(Some(Duration::from_secs(60))).expect("an option");
    connection.write_all(request.as_bytes()).expect("sent");
    connection
}

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const SLOW: &str = "GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Reads what comes until it ends like a whole answer of any of these programs.
#[track_caller]
fn assert_answered(connection: &mut TcpStream) {
    let mut answer = Vec::new();
    loop {
        let mut bytes = [0; 1024];
        let length = connection.read(&mut bytes).expect("an answer");
        answer.extend_from_slice(&bytes[..length]);
        let text = String::from_utf8_lossy(&answer);
        assert!(length > 0, "it ends in the middle of {text:?}");
        let body = text.split("\r\n\r\n").nth(1).unwrap_or_default();
        if body.contains("ok") || body.ends_with('\n') {
            return;
        }
    }
}

/// Idle connections are closed at once, what is busy is finished, and then the worker is stopped.
#[track_caller]
fn closes_idle_and_finishes_the_rest(command: &[OsString], slow: &str) -> Daemon {
    let port = free_port();
    let daemon = run(&port, "close-idle", command).start();
    wait_serving(&daemon, 1);
    let mut idle: Vec<TcpStream> = (0..4).map(|_| connection(&port, REQUEST)).collect();
    idle.iter_mut().for_each(assert_answered);
    let (begin, rest) = REQUEST.split_at(12);
    let mut half = connection(&port, begin);
    let mut busy = connection(&port, slow);
    // One that has had an answer and is in the middle of its next request.
    let mut next = connection(&port, REQUEST);
    assert_answered(&mut next);
    // Of what happens within a tick of the kernel's clock nobody knows which came first.
    next.set_read_timeout(Some(Duration::from_millis(50))).expect("an option");
    assert!(next.read(&mut [0]).is_err(), "nothing comes");
    next.set_read_timeout(Some(Duration::from_secs(60))).expect("an option");
    next.write_all(begin.as_bytes()).expect("sent");
    wait_held(&daemon, 7);
    reload_well(&daemon);
    for mut connection in idle {
        assert_eq!(connection.read(&mut [0]).expect("an end"), 0, "it ends, and well");
    }
    assert_answered(&mut busy);
    for connection in [&mut half, &mut next] {
        connection.write_all(rest.as_bytes()).expect("sent");
        assert_answered(connection);
    }
    // They are idle as well from here on.
    wait_only_generation(&daemon, 2, 1);
    for mut connection in [half, busy, next] {
        assert_eq!(connection.read(&mut [0]).expect("an end"), 0, "it ends, and well");
    }
    daemon
}

/// Waits until the worker has accepted so many connections.
#[track_caller]
fn wait_held(daemon: &Daemon, connections: u32) {
    let client = client(daemon, "web");
    daemon.eventually("everything accepted", || {
        (status(&client).services[0].workers[0].connections == Some(connections)).then_some(())
    });
}

#[test]
fn a_worker_that_dies_at_once_is_stopped_when_nothing_is_busy() {
    let command = manners(&["dies"]);
    let slow = "GET /slow?ms=2000 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let daemon = closes_idle_and_finishes_the_rest(&command, slow);
    daemon.wait_line(|line| line.contains(" idle kept-alive connection"), "that some were closed");
    stop_well(&daemon);
}

#[test]
fn a_plain_server_of_node_is_stopped_when_nothing_is_busy() {
    stop_well(&closes_idle_and_finishes_the_rest(&words(&["node", "-e", NODE]), SLOW));
}

#[test]
fn a_plain_server_of_python_is_and_what_it_has_elsewhere_stays() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = elsewhere.local_addr().expect("an address").port().to_string();
    let served = std::thread::spawn(move || {
        let mut kept = Vec::new();
        // One for each generation.
        for _ in 0..2 {
            let (mut connection, _) = elsewhere.accept().expect("a worker");
            connection.write_all(b"x").expect("sent");
            connection.read_exact(&mut [0]).expect("an answer");
            kept.push(connection);
        }
        kept
    });
    let command = words(&["python3", "-c", PYTHON, &port]);
    let daemon = closes_idle_and_finishes_the_rest(&command, SLOW);
    drop(served.join().expect("both generations connected"));
    stop_well(&daemon);
    let said = daemon.lines();
    // The second generation may see it end with the test.
    let ended = said.iter().filter(|line| line.text.contains("elsewhere has ended")).count();
    assert!(ended <= 1, "{said:?}");
}

#[test]
fn idle_connections_are_left_where_nobody_asks_for_more() {
    let port = free_port();
    let command = manners(&["dies"]);
    let daemon = Daemon::run()
        .workers(1)
        .listen(&port)
        .args(["--before-stop", "2s"])
        .command(command)
        .start();
    wait_serving(&daemon, 1);
    let mut idle = connection(&port, REQUEST);
    assert_answered(&mut idle);
    reload_well(&daemon);
    daemon.wait_line(|line| line.contains("has not finished in 2 s"), "that it is waited for");
    wait_only_generation(&daemon, 2, 1);
    stop_well(&daemon);
}

/// Their pauses are far longer than what is idle, so that they nearly never meet the end of their
/// connection, which nobody can promise; and what they meet so is no failure by the client's rule.
#[test]
fn clients_that_think_for_long_see_no_failure() {
    let port = free_port();
    let daemon = run(&port, "close-idle", &manners(&["dies", "--handler", "5ms"])).start();
    wait_serving(&daemon, 1);
    let think = Duration::from_millis(400)..Duration::from_millis(800);
    let load = Load::start_with(Limits::default(), port.v4(), [(Kind::KeptAlive { think }, 8)]);
    for generation in 2..=4 {
        load.wait_ok(16);
        reload_well(&daemon);
        wait_only_generation(&daemon, generation, 1);
    }
    load.wait_ok(16);
    load.stop().assert_clean();
    stop_well(&daemon);
}
