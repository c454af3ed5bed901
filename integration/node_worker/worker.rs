//! One worker in a real Node, and what a primary needs for it.

#![expect(clippy::panic, reason = "a test fails by it")]
#![expect(clippy::print_stderr, reason = "what is not tested is told")]
#![expect(clippy::disallowed_methods, reason = "it starts real processes and waits for them")]

use std::{
    collections::VecDeque,
    net::{TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command},
    rc::Rc,
    time::Instant,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, poll},
};
use serde_json::Value;
use shepherd::{
    os::node_channel::{Input, NodeChannel, Output},
    protocol::{
        node_cluster::{Heard, Key, Primary, Query, Shared},
        node_ipc::{
            Channel, HandleKind, HandleLine, Limits, Line, READ_BYTES, Received, Role, Stream,
            Undelivered, environment,
        },
    },
};
use tempfile::TempDir;

use super::listener;
use crate::harness::{DEADLINE, Port, eventually};

/// A Node of our own and all that a primary needs for it.
pub struct Worker {
    process: Child,
    socket: NodeChannel,
    pub channel: Channel<Rc<OwnedFd>>,
    pub primary: Primary<TcpStream>,
    events: VecDeque<Event>,
    _home: TempDir,
}

#[derive(Debug)]
pub enum Event {
    Heard(Heard<TcpStream>),
    Message(Value),
    Handle(HandleKind, Value, OwnedFd),
    Delivered,
    Undelivered(Undelivered<Rc<OwnedFd>>),
    End,
}

impl Worker {
    pub fn start(program: &str, port: &Port) -> Option<Worker> {
        Worker::start_as(Role::ClusterWorker { unique_id: 1 }, program, port, "")
    }

    /// None where there is no Node. `PORT` in the program is the port.
    pub fn start_as(role: Role, program: &str, port: &Port, before: &str) -> Option<Worker> {
        if Command::new("node").arg("--version").output().is_err() {
            eprintln!("there is no node, so its protocol is not tested; install nodejs");
            return None;
        }
        let home = TempDir::new().expect("a directory");
        let path = home.path().join("app.js");
        let program = program.replace("PORT", &port.to_string());
        std::fs::write(&path, program).expect("the program");
        let (socket, workers) = NodeChannel::pair().expect("two descriptors");
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &format!("{before} exec node \"$0\" 3<&0 </dev/null")])
            .arg(path)
            .current_dir(home.path())
            .envs(environment(3, role, 0))
            .stdin(workers);
        let process = shell.spawn().expect("a shell");
        Some(Worker {
            process,
            socket,
            channel: Channel::new(Limits::default()),
            primary: Primary::default(),
            events: VecDeque::new(),
            _home: home,
        })
    }

    /// The next thing that happens.
    #[track_caller]
    pub fn next(&mut self) -> Event {
        let end = Instant::now() + DEADLINE;
        loop {
            self.write();
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the worker says nothing");
            let mut flags = PollFlags::POLLIN;
            flags.set(PollFlags::POLLOUT, self.channel.is_writing());
            let mut entry = [PollFd::new(self.socket.as_fd(), flags)];
            poll(&mut entry, 1000_u16).expect("polls");
            self.read();
        }
    }

    fn read(&mut self) {
        let Worker { socket, channel, primary, events, .. } = self;
        let mut bytes = vec![0; READ_BYTES];
        let (length, descriptors) = match socket.read(&mut bytes).expect("readable") {
            Input::Read { length, descriptors, cut } => {
                assert!(!cut);
                (length, descriptors)
            }
            Input::Nothing => return,
            Input::End => {
                assert_eq!(channel.handle_end(), None);
                return events.push_back(Event::End);
            }
        };
        let mut answers = Vec::new();
        let json = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        let handles = descriptors.into_iter().map(Rc::new);
        channel.handle_read(&bytes[..length], handles, |received| {
            events.push_back(match received {
                Received::Internal(text) => {
                    let (heard, answer) = primary.hear(text);
                    answers.extend(answer);
                    match heard {
                        Heard::Ignored(why) => panic!("{text}: {why}"),
                        Heard::Settled => return,
                        heard => Event::Heard(heard),
                    }
                }
                Received::Message(text) => Event::Message(json(text)),
                Received::Handle { kind, message, handle, .. } => {
                    let handle = Rc::into_inner(handle).expect("the only one");
                    Event::Handle(kind, json(message), handle)
                }
                Received::Delivered(_) => Event::Delivered,
                Received::Undelivered(item) => Event::Undelivered(item),
                Received::Problem(problem) => panic!("{problem}"),
            });
        });
        for line in answers {
            channel.send(line).expect("room");
        }
    }

    fn write(&mut self) {
        while let Some(chunk) = self.channel.poll_write() {
            let handle = chunk.handle.map(|handle| handle.as_fd());
            match self.socket.write(chunk.bytes, handle) {
                Ok(Output::Written(count)) => self.channel.handle_written(count),
                Ok(Output::Full | Output::Later) => return,
                // Its end is still to be read.
                Err(_) => return,
            }
        }
    }

    pub fn says(&mut self, message: &Value) {
        let line = Line::message(&message.to_string(), 64 * 1024 * 1024).expect("a message");
        self.channel.send_message(line).expect("room");
        self.write();
    }

    /// Sends a descriptor, which must not block its reader.
    pub fn send_handle(&mut self, line: HandleLine, handle: OwnedFd) {
        fcntl(&handle, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a socket");
        self.channel.send_handle(line, Rc::new(handle)).expect("room");
        self.write();
    }

    pub fn share(&mut self, query: Query, socket: TcpListener, shared: Shared) {
        let line = self.primary.share(query, shared, None);
        self.send_handle(line, socket.into());
    }

    /// Accepts a connection and hands it to the worker.
    pub fn hands_over(&mut self, key: &Key, listener: &TcpListener) -> u64 {
        let (connection, _) = listener.accept().expect("a client");
        let copy = connection.try_clone().expect("a descriptor");
        let offered = self.primary.offer(key, Stream::Tcp, connection).expect("few");
        self.send_handle(offered.line, copy.into());
        offered.number
    }

    #[track_caller]
    pub fn is_online(&mut self) {
        let event = self.next();
        assert!(matches!(event, Event::Heard(Heard::Online)), "{event:?}");
    }

    #[track_caller]
    pub fn query(&mut self) -> Query {
        match self.next() {
            Event::Heard(Heard::Query(query)) => query,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub fn listens(&mut self, expected: &Key) {
        match self.next() {
            Event::Heard(Heard::Listening { key, port: Some(_) }) => assert_eq!(&key, expected),
            other => panic!("{other:?}"),
        }
        assert!(self.primary.is_listening());
    }

    /// It starts, and listens at the port as far as it knows.
    #[track_caller]
    pub fn is_dispatched_to(&mut self, port: &Port) -> (Key, TcpListener) {
        self.is_online();
        let query = self.query();
        let (key, listener) = (query.key.clone(), listener(port));
        let line = self.primary.dispatch(query, Some(port.v4()), None);
        self.channel.send(line).expect("room");
        self.listens(&key);
        (key, listener)
    }

    #[track_caller]
    pub fn is_delivered(&mut self) {
        let event = self.next();
        assert!(matches!(event, Event::Delivered), "{event:?}");
    }

    #[track_caller]
    pub fn accepts(&mut self) {
        let event = self.next();
        assert!(matches!(event, Event::Heard(Heard::Accepted(_))), "{event:?}");
    }

    #[track_caller]
    pub fn message(&mut self) -> Value {
        match self.next() {
            Event::Message(value) => value,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub fn stops(&mut self) {
        let line = self.primary.disconnect();
        self.channel.send(line).expect("room");
        self.ends(|_| true);
    }

    /// It closes the channel and exits, and on the way something happens.
    #[track_caller]
    pub fn ends(&mut self, is_expected: impl Fn(&Event) -> bool) {
        let mut seen = false;
        loop {
            let event = self.next();
            seen |= is_expected(&event);
            if matches!(event, Event::End) {
                break;
            }
        }
        assert!(seen, "the end came before what was expected");
        let status = eventually("its exit", || self.process.try_wait().expect("our child"));
        assert!(status.success(), "{status}");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
