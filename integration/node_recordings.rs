//! Our side of conversations that Node's own primary had with its workers, word by word: see
//! `integration/node/capture`.

#![expect(clippy::panic, reason = "a test fails by it")]

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use serde_json::Value;
use shepherd::protocol::{
    node_cluster::{
        Access, Errno, Heard, Host, Ignored, Key, Kind, Primary, Query, Shared, Wanted,
    },
    node_ipc::{Channel, DatagramFamily, HandleKind, HandleLine, Limits, Line, Received, Stream},
};

/// A message of a recording, see `integration/node/capture`.
struct Said {
    of_worker: bool,
    has_handle: bool,
    text: String,
}

fn recordings() -> BTreeMap<String, Vec<Said>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/node/captures");
    let mut recordings = BTreeMap::new();
    for version in fs::read_dir(root).expect("recordings").flatten() {
        for file in fs::read_dir(version.path()).expect("a version").flatten() {
            let name = file.path().display().to_string();
            let text = fs::read_to_string(file.path()).expect("a recording");
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            recordings.insert(name, lines.map(said).collect());
        }
    }
    recordings
}

fn said(line: &str) -> Said {
    let (mark, text) = line.split_at(3);
    Said { of_worker: mark.starts_with('W'), has_handle: mark.contains('+'), text: text.to_owned() }
}

/// Our primary in place of Node's, which decides as that did.
#[derive(Default)]
struct Replay {
    primary: Primary<u64>,
    queries: BTreeMap<u64, Query>,
    /// What the worker was answered without a decision.
    answers: VecDeque<Line>,
    asked: Vec<(Wanted, u32)>,
    heard: Vec<String>,
    /// Names of Node's that ours are made from.
    keys: BTreeMap<String, Key>,
}

fn replay(said: &[Said]) -> Replay {
    let mut replay = Replay::default();
    let mut channel: Channel<u32> = Channel::new(Limits::default());
    for (number, said) in (0..).zip(said) {
        if said.of_worker {
            let bytes = format!("{}\n", said.text);
            let mut internal = Vec::new();
            channel.handle_read(bytes.as_bytes(), said.has_handle.then_some(number), |received| {
                match received {
                    Received::Internal(text) => internal.push(text.to_owned()),
                    Received::Message(text) => replay.heard.push(format!("message {text}")),
                    Received::Handle { key, message, handle, .. } => {
                        assert_eq!(handle, number);
                        replay.heard.push(format!("handle {message} of {key:?}"));
                    }
                    Received::Delivered(_) => replay.heard.push("delivered".to_owned()),
                    Received::Undelivered(item) => panic!("{item:?}"),
                    Received::Problem(problem) => panic!("{}: {problem}", said.text),
                }
            });
            for text in internal {
                replay.hear(&text);
            }
            continue;
        }
        match replay.say(&said.text, said.has_handle) {
            Ours::Plain(line) => channel.send(line).expect("room"),
            Ours::Handle(line) => channel.send_handle(line, number).expect("room"),
            Ours::Acknowledged => {}
            Ours::Nothing => continue,
        }
        let mut handle = None;
        let mut written = Vec::new();
        while let Some(chunk) = channel.poll_write() {
            handle = chunk.handle.copied().or(handle);
            written.extend_from_slice(chunk.bytes);
            let count = chunk.bytes.len();
            channel.handle_written(count);
        }
        assert_eq!(handle, said.has_handle.then_some(number), "{}", said.text);
        let ours = String::from_utf8(written).expect("text");
        assert_eq!(replay.as_node_says(ours.trim_end()), without_socket_key(&said.text));
    }
    assert_eq!(channel.problems(), 0);
    assert_eq!(channel.handles(), 0);
    assert!(replay.answers.is_empty() && replay.primary.offered() == 0);
    replay
}

/// What we say in place of Node's primary.
enum Ours {
    Plain(Line),
    Handle(HandleLine),
    /// What the channel answers by itself.
    Acknowledged,
    /// We send no key with a socket, and so have nothing to ask about it.
    Nothing,
}

/// What Node says without the key by which it counts the sockets that it sends.
fn without_socket_key(node: &str) -> String {
    match node.rsplit_once(",\"key\":") {
        Some((socket, _)) if kind(node) == Some("net.Socket") => format!("{socket}}}"),
        _ => node.to_owned(),
    }
}

/// What a message says of its descriptor.
fn kind(node: &str) -> Option<&str> {
    node.strip_prefix("{\"cmd\":\"NODE_HANDLE\",\"type\":\"")?.split('"').next()
}

impl Replay {
    fn hear(&mut self, text: &str) {
        // The worker was told Node's names, and says them again.
        let with_our_names = self.keys.iter().fold(text.to_owned(), |text, (node, ours)| {
            text.replace(&format!("\"key\":\"{node}\""), &format!("\"key\":\"{ours}\""))
        });
        let (heard, answer) = self.primary.hear(&with_our_names);
        self.answers.extend(answer);
        let word = match heard {
            Heard::Online => "online".to_owned(),
            Heard::Query(query) => {
                self.asked.push((query.wanted.clone(), query.backlog));
                let word = format!("query {}", query.key);
                self.queries.insert(query.number(), query);
                word
            }
            Heard::Listening { key, port } => format!("listening {key} {}", port.is_some()),
            Heard::Closed(key) => format!("closed {key}"),
            Heard::Accepted(_) => "accepted".to_owned(),
            Heard::Leaving => "leaving".to_owned(),
            Heard::Settled => "settled".to_owned(),
            // The answer to Node's question that we do not ask.
            Heard::Ignored(Ignored::StrayAnswer) => "stray".to_owned(),
            Heard::Refused(_) | Heard::ListeningUnasked { .. } | Heard::Ignored(_) => {
                panic!("{text}: {heard:?}")
            }
        };
        self.heard.push(word);
    }

    fn say(&mut self, node: &str, has_handle: bool) -> Ours {
        match kind(node) {
            Some("net.Server") => return user(HandleKind::Server, node),
            Some("net.Socket") => return user(HandleKind::Socket, node),
            Some("dgram.Socket") => return user(HandleKind::Datagram(DatagramFamily::V4), node),
            Some(_) | None => {}
        }
        let value: Value = serde_json::from_str(node).expect("JSON");
        let inner = if kind(node).is_some() { &value["msg"] } else { &value };
        match (value["cmd"].as_str(), inner["act"].as_str()) {
            (Some("NODE_HANDLE_ACK"), _) => return Ours::Acknowledged,
            (Some("NODE_SOCKET_NOTIFY_CLOSE"), _) => return Ours::Nothing,
            (Some("NODE_SOCKET_ALL_CLOSED"), _) => return self.answered(),
            (_, Some("newconn")) => {
                let key = &self.keys[inner["key"].as_str().expect("a key")];
                let seq = inner["seq"].as_u64().expect("a number");
                let stream = if key.as_str().starts_with('/') { Stream::Pipe } else { Stream::Tcp };
                let offered = self.primary.offer(key, stream, seq).expect("few");
                assert_eq!(offered.number, seq);
                return Ours::Handle(offered.line);
            }
            (_, Some("disconnect")) => return Ours::Plain(self.primary.disconnect()),
            (Some("NODE_CLUSTER" | "NODE_HANDLE"), _) => {}
            (_, _) => return Ours::Plain(Line::message(node, 1000).expect("a message")),
        }
        let ack = inner["ack"].as_u64().expect("an answer");
        let Some(key) = inner["key"].as_str() else { return self.answered() };
        let query = self.queries.remove(&ack).expect("what was asked");
        // From 22 on Node makes the names that we make, but for datagram sockets without a port. Before,
        // it had the number of the server in each of them.
        let ours = query.key.as_str();
        let is_same = key == ours
            || key.strip_suffix(":0") == Some(ours)
            || ours.strip_suffix(":0") == Some(key) && key.contains(":undefined:udp");
        assert!(is_same, "{key} {ours}");
        self.keys.insert(key.to_owned(), query.key.clone());
        let data = query.data.clone();
        assert_eq!(
            data.as_ref().map(|data| serde_json::from_str(data.as_json()).expect("JSON")),
            Some(inner["data"].clone()).filter(|data| !data.is_null())
        );
        match inner["errno"].as_i64() {
            Some(errno) if errno < 0 => {
                let errno = Errno::from_raw(i32::try_from(-errno).expect("small")).expect("one");
                Ours::Plain(self.primary.refuse(query, errno))
            }
            _ if has_handle => {
                let shared = match query.wanted {
                    Wanted::Udp { .. } => Shared::Datagrams,
                    Wanted::Unix { .. } => Shared::Listener(Stream::Pipe),
                    Wanted::Tcp { .. } | Wanted::Descriptor { .. } | Wanted::Given => {
                        Shared::Listener(Stream::Tcp)
                    }
                };
                Ours::Handle(self.primary.share(query, shared, data.as_ref()))
            }
            _ => {
                let name = &inner["sockname"];
                let address = name["address"].as_str().map(|address| {
                    let port = name["port"].as_u64().and_then(|port| u16::try_from(port).ok());
                    SocketAddr::new(address.parse().expect("one"), port.expect("a port"))
                });
                Ours::Plain(self.primary.dispatch(query, address, data.as_ref()))
            }
        }
    }

    fn answered(&mut self) -> Ours {
        Ours::Plain(self.answers.pop_front().expect("an answer"))
    }

    /// A line of ours with Node's names, and without what Deno needs.
    fn as_node_says(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for purpose in [0, 1] {
            for stream in ["tcp", "pipe"] {
                let deno = format!(",\"socketType\":{purpose},\"nativeKind\":\"{stream}\"");
                line = line.replace(&deno, "");
            }
        }
        for (node, ours) in &self.keys {
            line = line.replace(&format!("\"key\":\"{ours}\""), &format!("\"key\":\"{node}\""));
        }
        line
    }
}

/// A message with a descriptor from program to program.
fn user(kind: HandleKind, node: &str) -> Ours {
    let value = node.split_once("\"msg\":").expect("a message").1;
    let end = value.find(",\"dgramType\"").or(value.find(",\"key\"")).unwrap_or(value.len() - 1);
    Ours::Handle(HandleLine::message(kind, &value[..end], 1000).expect("a message"))
}

#[test]
fn what_we_say_is_to_the_byte_what_nodes_primary_said() {
    let recordings = recordings();
    assert!(recordings.len() >= 7, "{:?}", recordings.keys());
    for (name, said) in &recordings {
        println!("{name}");
        let replay = replay(said);
        assert!(replay.queries.is_empty());
        assert_eq!(replay.heard.iter().filter(|word| *word == "online").count(), 1);
    }
}

#[test]
fn what_a_recorded_worker_asks_for_is_understood() {
    let any_port = |wanted: &Wanted| match wanted.clone() {
        Wanted::Tcp { host, .. } => Wanted::Tcp { host, port: 0 },
        Wanted::Unix { path, access } => {
            let name = path.rsplit('/').next().unwrap_or_default();
            Wanted::Unix { path: name.to_owned(), access }
        }
        wanted @ (Wanted::Udp { .. } | Wanted::Descriptor { .. } | Wanted::Given) => wanted,
    };
    let tcp = |host| Wanted::Tcp { host, port: 0 };
    let v4 = || Host::V4(Ipv4Addr::LOCALHOST);
    let v6 = || Host::V6 { address: Ipv6Addr::LOCALHOST, zone: None, only: true };
    let udp = |host, reuse_address| Wanted::Udp { host, port: 0, reuse_address };
    let access = Access { readable_by_all: true, writable_by_all: false };
    let listen = [
        (tcp(Host::Any), 0),
        (tcp(Host::Any), 0),
        (tcp(v4()), 77),
        (tcp(v6()), 0),
        (Wanted::Unix { path: "app.sock".to_owned(), access }, 0),
        (tcp(Host::Any), 0),
        (tcp(v4()), 0),
        (Wanted::Descriptor { number: 99, kind: Kind::Stream }, 0),
    ];
    let datagrams = [
        (udp(Host::V4(Ipv4Addr::UNSPECIFIED), true), 0),
        (udp(v6(), false), 0),
        (udp(Host::V4(Ipv4Addr::UNSPECIFIED), false), 0),
        (udp(v4(), false), 0),
    ];
    let mut seen = 0;
    for (name, said) in recordings() {
        let asked = replay(&said).asked;
        let asked: Vec<_> =
            asked.iter().map(|(wanted, backlog)| (any_port(wanted), *backlog)).collect();
        if name.contains("listen-") {
            assert_eq!(asked, listen, "{name}");
            seen += 1;
        } else if name.contains("udp-") {
            assert_eq!(asked, datagrams, "{name}");
            seen += 1;
        }
    }
    assert!(seen >= 3);
}

#[test]
fn the_words_of_a_recorded_worker_are_heard_in_order() {
    let words = |name: &str| {
        let recordings = recordings();
        let (_, said) = recordings.iter().find(|(path, _)| path.contains(name)).expect("one");
        replay(said).heard
    };
    let key = "null:0:4:undefined:0";
    assert_eq!(
        words("leave-rr"),
        [
            "online",
            &format!("query {key}"),
            &format!("listening {key} true"),
            "message \"listening\"",
            &format!("closed {key}"),
            "leaving",
        ]
    );
    assert_eq!(
        words("messages-rr"),
        [
            "online",
            "delivered",
            "delivered",
            "delivered",
            "handle \"back\" of Some(\"\\\"4:127.0.0.1:0\\\"\")",
            "message {\"cmd\":\"NODE_\",\"text\":\"\u{4f60}\u{597d}\"}",
            "message 5",
            "message null",
            "settled",
            "message \"closed\"",
            "stray",
        ]
    );
    let accepted = words("listen-rr").iter().filter(|word| *word == "accepted").count();
    assert_eq!(accepted, 3);
}
