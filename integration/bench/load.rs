//! A closed loop: so many kept-alive connections, each with one request on its way at any moment.
//! It is one thread around poll(2), so that it takes little from those that are measured. It counts
//! and does not forgive: a failure ends the program.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::fd::AsFd,
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{clock::Begin, harness::Port};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// How long one answer may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// Connections that have each been answered once.
pub struct Loop {
    connections: Vec<Connection>,
}

struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

/// What a loop did.
#[derive(Clone, Copy)]
pub struct Answered {
    pub requests: f64,
    pub seconds: f64,
}

impl Loop {
    /// Connects and asks once on each.
    pub fn open(port: &Port, connections: usize) -> Loop {
        let connect = |_| {
            let stream = TcpStream::connect(port.v4()).expect("a connection");
            stream.set_nodelay(true).expect("a TCP connection");
            Connection { stream, received: Vec::new() }
        };
        let mut opened = Loop { connections: (0..connections).map(connect).collect() };
        opened.run(Duration::ZERO);
        opened
    }

    /// Asks for so long, at least once on each connection, and waits for the last answers.
    pub fn run(&mut self, length: Duration) -> Answered {
        let begin = Begin::now();
        let mut requests = 0.0;
        let mut waiting = self.connections.len();
        self.connections.iter_mut().for_each(Connection::ask);
        while waiting > 0 {
            for index in self.readable() {
                let connection = &mut self.connections[index];
                if !connection.read() {
                    continue;
                }
                requests += 1.0;
                if begin.elapsed() < length {
                    connection.ask();
                } else {
                    waiting -= 1;
                }
            }
        }
        Answered { requests, seconds: begin.elapsed().as_secs_f64() }
    }

    fn readable(&self) -> Vec<usize> {
        let fds = self.connections.iter().map(|connection| connection.stream.as_fd());
        let mut fds: Vec<PollFd<'_>> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let timeout = PollTimeout::try_from(ANSWER_TIME_MAX).expect("seconds fit");
        let ready = poll(&mut fds, timeout).expect("a poll");
        assert!(ready > 0, "no answer within {ANSWER_TIME_MAX:?}");
        let is_ready = |fd: &PollFd<'_>| fd.any() == Some(true);
        (0..fds.len()).filter(|&index| is_ready(&fds[index])).collect()
    }
}

impl Connection {
    fn ask(&mut self) {
        self.stream.write_all(REQUEST).expect("an open connection");
    }

    /// Reads what is there. Returns whether the answer is whole.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let length = self.stream.read(&mut buffer).expect("an open connection");
        assert!(length > 0, "the connection was closed: {}", self.received.escape_ascii());
        self.received.extend_from_slice(&buffer[..length]);
        let whole = is_whole(&self.received);
        if whole {
            self.received.clear();
        }
        whole
    }
}

/// Whether an answer with a length of its own is complete.
pub fn is_whole(bytes: &[u8]) -> bool {
    let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return false;
    };
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    assert!(text.starts_with("http/1.1 200 "), "no good answer: {text}");
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.and_then(|value| value.trim().parse().ok()).expect("a length");
    bytes.len() >= head + 4 + length
}
