//! An open loop: connections that begin when they begin, whether or not those before them were
//! answered, as the clients of a public site do. What waits in a queue is seen so, and from the moment
//! at which it was due. One thread around epoll(7); a connection that fails is counted.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::AsRawFd,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket},
    },
};

use crate::{clock::Begin, load::is_whole};

/// How long after the last arrival answers are waited for.
const LAST_ANSWER: Duration = Duration::from_secs(10);
/// Events that are looked at at a time.
const EVENTS_MAX: usize = 64;

/// What became of the connections of one run.
#[derive(Default)]
pub struct Seen {
    /// Seconds from when each was due to the last byte of its answer, in the order of the answers.
    pub latencies: Vec<f64>,
    /// How many each worker answered.
    pub pids: BTreeMap<i32, u32>,
    pub failed: u32,
}

impl Seen {
    /// The latency that so many percent of all were not above; what failed waited for ever.
    pub fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.resize(sorted.len() + self.failed as usize, f64::INFINITY);
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
    }
}

struct Client {
    stream: TcpStream,
    due: Duration,
    request: String,
    asked: bool,
    received: Vec<u8>,
    answered: bool,
}

/// Connects at random moments, so many times a second, for so long; `path` says what each asks for.
/// Each run with the same numbers has the same moments.
pub fn run(to: SocketAddr, rate: f64, length: Duration, path: impl Fn(u64) -> String) -> Seen {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("an epoll instance");
    let mut clients: BTreeMap<u64, Client> = BTreeMap::new();
    let mut seen = Seen::default();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut next = random.gap(rate);
    let mut number = 0;
    let begin = Begin::now();
    loop {
        let now = begin.elapsed();
        if next <= now && next < length {
            match Client::connect(to, next, &path(number)) {
                Ok(client) => {
                    let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
                    let event = EpollEvent::new(interest, number);
                    epoll.add(&client.stream, event).expect("a watch");
                    clients.insert(number, client);
                }
                Err(_) => seen.failed += 1,
            }
            number += 1;
            next += random.gap(rate);
            continue;
        }
        let until = if next < length { next } else { length + LAST_ANSWER };
        let over = next >= length && clients.is_empty();
        if over || now >= length + LAST_ANSWER {
            break;
        }
        let left = until.saturating_sub(now);
        let timeout = EpollTimeout::try_from(left).expect("seconds fit");
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        let count = match epoll.wait(&mut events, timeout) {
            Err(Errno::EINTR) => 0,
            outcome => outcome.expect("a wait"),
        };
        for event in &events[..count] {
            let Some(client) = clients.get_mut(&event.data()) else { continue };
            match client.advance(&mut seen, begin) {
                Step::Waits => {}
                Step::Over => {
                    clients.remove(&event.data());
                }
            }
        }
    }
    let unanswered = clients.values().filter(|client| !client.answered).count();
    seen.failed += u32::try_from(unanswered).expect("a small number");
    seen
}

enum Step {
    Waits,
    Over,
}

impl Client {
    fn connect(to: SocketAddr, due: Duration, path: &str) -> nix::Result<Client> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket(family, SockType::Stream, flags, None)?;
        match connect(fd.as_raw_fd(), &SockaddrStorage::from(to)) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let stream = TcpStream::from(fd);
        Ok(Client { stream, due, request, asked: false, received: Vec::new(), answered: false })
    }

    /// Goes as far as it can.
    fn advance(&mut self, seen: &mut Seen, begin: Begin) -> Step {
        if !self.asked {
            // It fits into the socket's buffer, so it is written whole or not at all.
            match self.stream.write_all(self.request.as_bytes()) {
                Ok(()) => self.asked = true,
                Err(error) => return self.judge(error.kind(), seen),
            }
        }
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                // The server closes first, so that the port is not kept for a minute.
                Ok(0) if self.answered => return Step::Over,
                Ok(0) => return self.judge(ErrorKind::UnexpectedEof, seen),
                Ok(length) => self.received.extend_from_slice(&bytes[..length]),
                Err(error) => return self.judge(error.kind(), seen),
            }
            if !self.answered && is_whole(&self.received) {
                self.answered = true;
                seen.latencies.push(begin.elapsed().saturating_sub(self.due).as_secs_f64());
                let text = String::from_utf8_lossy(&self.received);
                let body = text.split_once("\r\n\r\n").map(|(_, body)| body);
                let pid = body.and_then(|body| body.split(' ').nth(1)?.parse().ok());
                *seen.pids.entry(pid.expect("a body with a pid")).or_default() += 1;
            }
        }
    }

    fn judge(&self, error: ErrorKind, seen: &mut Seen) -> Step {
        match error {
            ErrorKind::WouldBlock | ErrorKind::NotConnected => Step::Waits,
            _ if self.answered => Step::Over,
            _ => {
                seen.failed += 1;
                Step::Over
            }
        }
    }
}

/// Xorshift.
struct Random(u64);

impl Random {
    /// The time to the next arrival, as it is where they do not know of each other.
    #[expect(clippy::cast_precision_loss, reason = "it is a random number")]
    fn gap(&mut self, rate: f64) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let part = ((self.0 >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
        Duration::from_secs_f64(-part.ln() / rate)
    }
}
