//! Asks until somebody answers. A connection may be lost with the process that had taken it, so
//! another is tried after a while, and the first answer on any of them counts.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::fd::AsFd,
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    clock::{Begin, pause},
    harness::Port,
    load::is_whole,
};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// How long the first answer may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// How long after a refused connection the next is tried.
const RETRY: Duration = Duration::from_micros(200);

/// How long after one that was taken, at least.
const ANOTHER: Duration = Duration::from_millis(5);

/// A share of the time that was waited already: so few are asked that they do not fill a queue of 64,
/// as some servers have it, and the answer is seen late by no more than this share.
const ANOTHER_SHARE: u32 = 8;

/// How many unanswered connections there may be. One more would wait for a place in the queue.
const UNANSWERED_MAX: usize = 60;

/// Waits for an answer from another process than this one, and gives the pid of who answered.
pub fn answer(port: &Port, except: Option<i32>) -> i32 {
    let begin = Begin::now();
    let mut asked: Vec<TcpStream> = Vec::new();
    loop {
        let waited = begin.elapsed();
        assert!(waited < ANSWER_TIME_MAX, "no answer on port {port} within {waited:?}");
        if asked.len() < UNANSWERED_MAX {
            match ask(port) {
                Some(stream) => asked.push(stream),
                None if asked.is_empty() => {
                    pause(RETRY);
                    continue;
                }
                None => {}
            }
        }
        let fds = asked.iter().map(|stream| PollFd::new(stream.as_fd(), PollFlags::POLLIN));
        let mut fds: Vec<PollFd<'_>> = fds.collect();
        let another = ANOTHER.max(waited / ANOTHER_SHARE);
        poll(&mut fds, PollTimeout::try_from(another).expect("seconds fit")).expect("a poll");
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
        let mut ready = ready.into_iter();
        let mut answered = None;
        asked.retain_mut(|stream| {
            let is_ready = ready.next() == Some(true);
            if is_ready {
                answered = answered.or(read_pid(stream).filter(|&pid| Some(pid) != except));
            }
            !is_ready
        });
        if let Some(pid) = answered {
            return pid;
        }
    }
}

fn ask(port: &Port) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(port.v4()).ok()?;
    stream.write_all(REQUEST).ok()?;
    Some(stream)
}

/// The second word of the body, `VERSION PID SLOT GENERATION`; none if the connection has ended.
fn read_pid(stream: &mut TcpStream) -> Option<i32> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    stream.set_read_timeout(Some(ANSWER_TIME_MAX)).ok()?;
    // Not to the end: gunicorn may take seconds to close.
    while !is_whole(&bytes) {
        let length = stream.read(&mut buffer).ok().filter(|&length| length > 0)?;
        bytes.extend_from_slice(&buffer[..length]);
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (_, body) = text.split_once("\r\n\r\n")?;
    body.split_ascii_whitespace().nth(1)?.parse().ok()
}
