//! How connections find four workers that each serve one at a time: who gets how many, and how long they
//! wait, where all requests take the same, where some take ten times as long, and where one worker
//! hangs. The load is open: it does not wait for slow ones.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use super::Effort;
use crate::{
    arrivals::{self, Seen},
    contender::builder,
    harness::{Daemon, free_port, manners},
};

const WORKERS: usize = 4;
/// Connections in a second. Four workers that take 4 ms each can serve a thousand.
const RATE: f64 = 300.0;
const BALANCES: [&str; 3] = ["shared", "generation", "slots"];
const EVEN_MS: u64 = 4;
const LONG_MS: u64 = 40;
/// One in so many is long.
const LONG_EVERY: u64 = 10;

/// What the requests are.
#[derive(Clone, Copy)]
enum Handlers {
    Even,
    Uneven,
    OneHung,
}

impl Handlers {
    fn title(self) -> &'static str {
        match self {
            Handlers::Even => "4 ms each",
            Handlers::Uneven => "4 ms, one in ten 40 ms",
            Handlers::OneHung => "4 ms each, one worker hangs",
        }
    }
}

/// One line of the table, with a value for each turn.
pub struct Row {
    pub handlers: &'static str,
    pub balance: &'static str,
    /// The share of the worker that answered least, and that of the one that answered most.
    pub least: Vec<f64>,
    pub most: Vec<f64>,
    /// Seconds.
    pub p50: Vec<f64>,
    pub p99: Vec<f64>,
    /// The same of one socket for all, in the same turns.
    pub shared_p99: Vec<f64>,
    pub failed: u32,
}

pub fn measure(effort: Effort) -> Vec<Row> {
    let mut rows = Vec::new();
    for handlers in [Handlers::Even, Handlers::Uneven, Handlers::OneHung] {
        let mut three = BALANCES.map(|balance| Row {
            handlers: handlers.title(),
            balance,
            least: Vec::new(),
            most: Vec::new(),
            p50: Vec::new(),
            p99: Vec::new(),
            shared_p99: Vec::new(),
            failed: 0,
        });
        for _ in 0..effort.of(5, 1) {
            let mut shared_p99 = None;
            for row in &mut three {
                let seen = turn(row.balance, handlers, effort);
                let (least, most) = shares(&seen);
                let p99 = seen.percentile(99);
                row.least.push(least);
                row.most.push(most);
                row.p50.push(seen.percentile(50));
                row.p99.push(p99);
                row.shared_p99.push(*shared_p99.get_or_insert(p99));
                row.failed += seen.failed;
            }
        }
        rows.extend(three);
    }
    rows
}

fn turn(balance: &str, handlers: Handlers, effort: Effort) -> Seen {
    let length = match handlers {
        Handlers::Even | Handlers::Uneven => {
            effort.of(Duration::from_secs(3), Duration::from_secs(2))
        }
        // It takes two seconds until that is seen.
        Handlers::OneHung => effort.of(Duration::from_secs(10), Duration::from_secs(5)),
    };
    let port = free_port();
    let daemon: Daemon = builder()
        .workers(WORKERS)
        .listen(port.v4())
        .args(["--balance", balance])
        .command(manners(&["graceful", "--serial"]))
        .start();
    daemon.wait_line(|line| line.ends_with("4 workers ready"), "all ready");
    let even = format!("/slow?ms={EVEN_MS}");
    let hung = match handlers {
        Handlers::Even | Handlers::Uneven => None,
        // Until all others are answered, if they are.
        Handlers::OneHung => Some(ask(port.v4(), length + Duration::from_secs(2))),
    };
    let seen = arrivals::run(port.v4(), RATE, length, |number| match handlers {
        Handlers::Uneven if number % LONG_EVERY == 0 => format!("/slow?ms={LONG_MS}"),
        Handlers::Even | Handlers::Uneven | Handlers::OneHung => even.clone(),
    });
    if let Some(mut hung) = hung {
        hung.read_to_end(&mut Vec::new()).expect("an answer");
    }
    assert!(daemon.stop().success(), "the daemon did not end well");
    seen
}

/// Has one worker at work for so long.
fn ask(to: SocketAddr, length: Duration) -> TcpStream {
    let mut stream = TcpStream::connect(to).expect("a connection");
    let ms = length.as_millis();
    write!(stream, "GET /slow?ms={ms} HTTP/1.1\r\nConnection: close\r\n\r\n")
        .expect("a connection");
    stream
}

/// Shares of the whole, in percent.
fn shares(seen: &Seen) -> (f64, f64) {
    let all: u32 = seen.pids.values().sum();
    let share = |count: u32| f64::from(count) * 100.0 / f64::from(all.max(1));
    // A worker that answered none is not among them.
    let least = if seen.pids.len() < WORKERS { 0 } else { *seen.pids.values().min().unwrap_or(&0) };
    (share(least), share(seen.pids.values().copied().max().unwrap_or(0)))
}
