//! Node's protocol against what it is for: unmodified programs in a real Node, for which a test is the
//! primary by the codecs alone, without the daemon.

mod worker;

use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    os::unix::net::UnixStream,
    thread,
};

use serde_json::{Value, json};
use shepherd::protocol::{
    node_cluster::{Data, Errno, Heard, Host, Kind, Shared, Wanted},
    node_ipc::{DatagramFamily, HandleKind, HandleLine, Role, Stream},
};

use crate::harness::{Port, free_port, get};

use worker::{Event, Worker};

/// An ordinary web server, at the port that it is told.
const SERVER: &str = "\
require('node:http').createServer((_, response) => response.end('hello')).listen(PORT, '127.0.0.1');
process.on('message', () => process.exit(1));
";

// ---- listening -------------------------------------------------------------------------------

#[test]
fn a_worker_serves_on_the_listener_that_it_is_given_and_stops_when_told() {
    let port = free_port();
    let Some(mut worker) = Worker::start(SERVER, &port) else { return };
    worker.is_online();
    let query = worker.query();
    let host = Host::V4(Ipv4Addr::LOCALHOST);
    assert_eq!(query.wanted, Wanted::Tcp { host, port: port.number() });
    let key = query.key.clone();
    worker.share(query, listener(&port), Shared::Listener(Stream::Tcp));
    worker.is_delivered();
    worker.listens(&key);
    assert_eq!(get(port.v4(), "/").expect("an answer").status, 200);
    worker.stops();
}

#[test]
fn a_worker_serves_the_connections_that_it_is_handed() {
    let port = free_port();
    let Some(mut worker) = Worker::start(SERVER, &port) else { return };
    let (key, listener) = worker.is_dispatched_to(&port);
    // Several at once: each is answered, in its turn.
    for _ in 0..3 {
        let clients: Vec<_> = (0..5).map(|_| client(port.v4())).collect();
        let numbers: Vec<u64> = (0..5).map(|_| worker.hands_over(&key, &listener)).collect();
        assert_eq!(worker.primary.offered(), 5);
        for _ in &numbers {
            worker.is_delivered();
            worker.accepts();
        }
        for client in clients {
            assert_eq!(client.join().expect("a client"), 200);
        }
    }
    worker.stops();
}

#[test]
fn a_connection_for_a_server_that_is_closed_comes_back() {
    let program = "\
const server = require('node:http').createServer().listen(PORT, '127.0.0.1');
process.on('message', () => server.close(() => process.send('closed')));
";
    let port = free_port();
    let Some(mut worker) = Worker::start(program, &port) else { return };
    let (key, listener) = worker.is_dispatched_to(&port);
    worker.says(&json!("close"));
    // It cannot be known from outside what the worker reads first.
    let _client = client(port.v4());
    worker.hands_over(&key, &listener);
    let events: Vec<Event> = (0..4).map(|_| worker.next()).collect();
    let came_back = events.iter().any(|event| matches!(event, Event::Heard(Heard::Refused(_))));
    assert!(came_back, "{events:?}");
    worker.stops();
}

#[test]
fn errors_are_what_the_program_sees() {
    let program = "\
const { createSocket } = require('node:dgram');
const tls = require('node:tls'), net = require('node:net');
const told = (server) => server.on('error', (error) => process.send(error.code));
told(net.createServer()).listen(PORT);
told(tls.createServer({})).listen(PORT, '127.0.0.1');
told(net.createServer()).listen({ fd: 77 });
told(net.createServer()).listen('app.sock');
told(createSocket('udp4')).bind(PORT);
told(net.createServer()).listen(PORT + 1);
";
    let port = free_port();
    let Some(mut worker) = Worker::start(program, &port) else { return };
    worker.is_online();
    let mut errors: VecDeque<Errno> = [
        Errno::EACCES,
        Errno::EADDRINUSE,
        Errno::EBADF,
        Errno::ENOENT,
        Errno::EADDRNOTAVAIL,
        Errno::from_raw(5).expect("a number"),
    ]
    .into();
    let expected =
        ["EACCES", "EADDRINUSE", "EBADF", "ENOENT", "EADDRNOTAVAIL", "EIO"].map(|code| json!(code));
    let mut codes = Vec::new();
    let mut wanted = Vec::new();
    while codes.len() < expected.len() {
        match worker.next() {
            Event::Heard(Heard::Query(query)) => {
                wanted.push(query.wanted.clone());
                // TLS reads its data before it looks for an error.
                let line = worker.primary.refuse(query, errors.pop_front().expect("one each"));
                worker.channel.send(line).expect("room");
            }
            Event::Message(code) => codes.push(code),
            other => panic!("{other:?}"),
        }
    }
    codes.sort_by_key(|code| expected.iter().position(|expected| expected == code));
    assert_eq!(codes, expected);
    assert!(wanted.contains(&Wanted::Descriptor { number: 77, kind: Kind::Stream }), "{wanted:?}");
}

#[test]
fn keys_of_tls_tickets_are_those_of_the_first_worker() {
    let program = "\
const server = require('node:tls').createServer({}).listen(PORT, '127.0.0.1', () => {
    process.send(server.getTicketKeys().toString('hex'));
});
";
    let port = free_port();
    let Some(mut worker) = Worker::start(program, &port) else { return };
    worker.is_online();
    let first = worker.query();
    let data = first.data.clone().expect("the keys");
    let keys = |data: &Data| {
        let value: Value = serde_json::from_str(data.as_json()).expect("JSON");
        value["ticketKeys"].clone()
    };
    let line = worker.primary.dispatch(first, Some(port.v4()), Some(&data));
    worker.channel.send(line).expect("room");
    let mut second = Worker::start(program, &port).expect("a second one");
    second.is_online();
    let query = second.query();
    assert_ne!(query.data, Some(data.clone()));
    let line = second.primary.dispatch(query, Some(port.v4()), Some(&data));
    second.channel.send(line).expect("room");
    for worker in [&mut worker, &mut second] {
        assert_eq!(worker.message(), keys(&data));
        worker.stops();
    }
}

// ---- leaving and forks -----------------------------------------------------------------------

#[test]
fn a_worker_that_leaves_by_itself_gets_the_answer_that_it_waits_for() {
    let program = "\
const cluster = require('node:cluster');
require('node:net').createServer().listen(PORT, () => cluster.worker.disconnect());
";
    let port = free_port();
    let Some(mut worker) = Worker::start(program, &port) else { return };
    worker.is_online();
    let query = worker.query();
    let any: SocketAddr = (Ipv4Addr::UNSPECIFIED, port.number()).into();
    let line = worker.primary.dispatch(query, Some(any), None);
    worker.channel.send(line).expect("room");
    // It closes its server before it would tell that it listens.
    worker.ends(|event| matches!(event, Event::Heard(Heard::Leaving)));
}

#[test]
fn a_program_that_was_forked_serves_on_the_server_that_it_is_sent() {
    let program = "\
const http = require('node:http');
const server = http.createServer((_, response) => response.end('hello'));
process.on('message', (message, handle) => {
    if (message === 'server') handle.on('connection', (socket) => server.emit('connection', socket));
    process.send([message, handle?.constructor.name, require('node:cluster').isPrimary]);
});
";
    let port = free_port();
    let Some(mut worker) = Worker::start_as(Role::Forked, program, &port, "") else { return };
    let line = HandleLine::message(HandleKind::Server, "\"server\"", 100).expect("a message");
    worker.send_handle(line, listener(&port).into());
    worker.is_delivered();
    assert_eq!(worker.message(), json!(["server", "Server", true]));
    assert_eq!(get(port.v4(), "/").expect("an answer").status, 200);
    let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let kind = HandleKind::Datagram(DatagramFamily::V4);
    let line = HandleLine::message(kind, "\"udp\"", 100).expect("a message");
    worker.send_handle(line, datagrams.into());
    worker.is_delivered();
    assert_eq!(worker.message(), json!(["udp", "Socket", true]));
}

// ---- messages and descriptors ----------------------------------------------------------------

#[test]
fn any_message_and_any_descriptor_comes_back_as_it_was() {
    let program = "\
process.on('message', (message, handle) => process.send({ message }, handle));
";
    let port = free_port();
    let Some(mut worker) = Worker::start_as(Role::Forked, program, &port, "") else { return };
    let mut seed = 1_u64;
    for round in 0..200 {
        let message = value(&mut seed, 3);
        let wrapped = json!({ "message": message });
        if round % 4 > 0 {
            worker.says(&message);
            assert_eq!(worker.message(), wrapped);
            continue;
        }
        let (mut ours, theirs) = UnixStream::pair().expect("two sockets");
        theirs.set_nonblocking(true).expect("a socket");
        let line = HandleLine::message(HandleKind::Socket, &message.to_string(), 10_000);
        worker.send_handle(line.expect("a message"), theirs.into());
        worker.is_delivered();
        let Event::Handle(HandleKind::Socket, back, handle) = worker.next() else {
            panic!("no descriptor in round {round}");
        };
        assert_eq!(back, wrapped);
        let mut back = UnixStream::from(handle);
        back.set_nonblocking(false).expect("a socket");
        back.write_all(b"hello").expect("open");
        let mut bytes = [0; 5];
        ours.read_exact(&mut bytes).expect("what was written");
        assert_eq!(&bytes, b"hello");
    }
    // Longer than both ends read at once, and than a socket holds.
    let long = json!("\u{4f60}\u{597d}\n".repeat(300_000));
    worker.says(&long);
    assert_eq!(worker.message(), json!({ "message": long }));
    assert_eq!(worker.channel.problems(), 0);
}

#[test]
fn what_a_worker_has_no_room_for_can_be_sent_again() {
    let program = "\
const fs = require('node:fs');
require('node:http').createServer((_, response) => response.end('hello')).listen(PORT, '127.0.0.1');
const open = [];
process.on('message', (message) => {
    if (message === 'fill') {
        try { for (;;) open.push(fs.openSync('/dev/null')); } catch { }
    } else {
        while (open.length > 0) fs.closeSync(open.pop());
    }
    process.send(message);
});
";
    let port = free_port();
    let role = Role::ClusterWorker { unique_id: 1 };
    // Node raises the limit that could be raised, so it is the other one.
    let Some(mut worker) = Worker::start_as(role, program, &port, "ulimit -n 60;") else { return };
    let (key, listener) = worker.is_dispatched_to(&port);
    worker.says(&json!("fill"));
    assert_eq!(worker.message(), "fill");
    let client = client(port.v4());
    worker.hands_over(&key, &listener);
    let Event::Undelivered(back) = worker.next() else { panic!("it has room") };
    worker.says(&json!("empty"));
    assert_eq!(worker.message(), "empty");
    worker.channel.send_again(back).expect("a second time");
    worker.is_delivered();
    worker.accepts();
    assert_eq!(client.join().expect("a client"), 200);
    worker.stops();
}

fn listener(port: &Port) -> TcpListener {
    TcpListener::bind(port.v4()).expect("a free port")
}

/// A client that asks once; it ends with the status of the answer.
fn client(address: SocketAddr) -> thread::JoinHandle<u16> {
    thread::spawn(move || get(address, "/").map_or(0, |response| response.status))
}

/// A value of JSON that JavaScript does not change, with what could go wrong in texts.
fn value(seed: &mut u64, depth: u32) -> Value {
    let mut draw = |below: u64| {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*seed >> 33) % below
    };
    let odd = ['\0', '\n', '\r', '\u{2028}', '\u{1f411}', '\u{4f60}', '"', '\\', '{', 'a'];
    let mut text = |length: u64| -> String {
        let length = draw(length);
        (0..length).map(|_| odd[usize::try_from(draw(10)).expect("small")]).collect()
    };
    let name = format!("_{}", text(5));
    let text = text(40);
    match draw(if depth == 0 { 4 } else { 6 }) {
        0 => json!(text),
        1 => json!(draw(1 << 31)),
        2 => json!(draw(2) == 0),
        3 => json!({ "cmd": "NODE_", "text": text }),
        4 => json!([value(seed, depth - 1), value(seed, depth - 1)]),
        _ => json!({ name: value(seed, depth - 1) }),
    }
}
