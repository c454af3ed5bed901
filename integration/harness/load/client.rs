//! One client: asks, reads, judges, and asks again until the load stops.

use std::{
    io::{self, ErrorKind, Write},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use super::{Class, Exchange, Failure, Kind, KindName, Shared, Woken};
use crate::harness::{
    Response,
    connection::{Connection, Idle},
    http::{After, ReadError, read_response, request},
};

/// How long a server may take to close a connection after an answer that said it would. If it does
/// not, we close, and lose a port for a minute.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// Bytes of a response that are shown with a failure.
const CONTEXT_BYTES: usize = 80;

/// The pieces in which a hesitant client sends its request.
const PIECES: usize = 3;

/// An open connection that has answered.
struct Kept {
    connection: Connection,
    pid: i32,
    /// How many requests.
    answered: u32,
}

pub fn run(shared: &Shared, kind: &Kind, number: usize, new_clients: usize) {
    let mut random = Random::new(number);
    let mut kept: Option<Kept> = None;
    loop {
        let begin = Instant::now();
        let failures = match exchange(shared, kind, &mut kept) {
            Outcome::Fine => false,
            Outcome::Failed => true,
        };
        let length = match kind {
            _ if failures => shared.limits.rest,
            Kind::New => {
                let clients = u32::try_from(new_clients).unwrap_or(u32::MAX);
                let cycle = Duration::from_secs(clients.into()) / shared.limits.new_per_second;
                cycle.saturating_sub(begin.elapsed())
            }
            Kind::KeptAlive { think } | Kind::Visit { think, .. } => random.duration(think),
            Kind::Slow { .. } | Kind::Hesitant { .. } | Kind::Stream { .. } => Duration::ZERO,
        };
        match shared.pause(length, kept.as_ref().map(|kept| kept.connection.as_fd())) {
            Woken::Stopped => return,
            Woken::Elapsed => {}
            Woken::Readable => {
                look(shared, kind.name(), &mut kept);
                // What is left of the pause is left out: the next request comes on a connection
                // of its own, and soon, as a real client's would.
            }
        }
    }
}

enum Outcome {
    Fine,
    Failed,
}

/// Looks at an idle connection, and gives it up if its other end is gone.
fn look(shared: &Shared, kind: KindName, kept: &mut Option<Kept>) {
    let Some(Kept { connection, pid, .. }) = kept else {
        return;
    };
    let failure = match connection.idle() {
        Idle::Open => return,
        Idle::Closed => {
            shared.report().reconnects += 1;
            None
        }
        Idle::Reset => Some((Class::ResetWhileIdle, "reset between two requests")),
        Idle::Talks => Some((Class::BadBody, "bytes without a request")),
    };
    if let Some((class, context)) = failure {
        fail(shared, kind, class, context.to_owned(), connection.local_port(), Some(*pid));
    }
    *kept = None;
}

fn exchange(shared: &Shared, kind: &Kind, kept: &mut Option<Kept>) -> Outcome {
    let name = kind.name();
    let begin = Instant::now();
    look(shared, name, kept);
    let (mut connection, exchange, pid, answered) = match kept.take() {
        Some(kept) => (kept.connection, Exchange::Reused, Some(kept.pid), kept.answered),
        None => match connect(shared, name) {
            Some(connection) => (connection, Exchange::First, None, 0),
            None => return Outcome::Failed,
        },
    };
    let port = connection.local_port();
    let failed = |class, context| {
        fail(shared, name, class, context, port, pid);
        Outcome::Failed
    };
    let crossed = || {
        let mut report = shared.report();
        report.reconnects += 1;
        report.crossed += 1;
        Outcome::Fine
    };

    let text = match kind {
        Kind::New | Kind::Hesitant { .. } => request("/", After::Close),
        Kind::KeptAlive { .. } | Kind::Visit { .. } => request("/", After::KeepOpen),
        Kind::Slow { ms } => request(&format!("/slow?ms={ms}"), After::Close),
        Kind::Stream { length } => {
            request(&format!("/stream/{}ms", length.as_millis()), After::Close)
        }
    };
    let written = connection
        .set_timeout(shared.limits.timeout)
        .and_then(|()| write_request(shared, kind, &mut connection, text.as_bytes()));
    let end = Instant::now() + shared.limits.timeout + kind.answer_time();
    if let Err(error) = written {
        // EPIPE: the end had come before we wrote a byte. On TCP a server that closes makes the
        // first write succeed, so there it is an end and a reset one after the other.
        return match (error.kind(), exchange) {
            (ErrorKind::BrokenPipe, Exchange::Reused) => crossed(),
            (ErrorKind::BrokenPipe | ErrorKind::ConnectionReset, _) => {
                failed(Class::ResetBeforeResponse(exchange), format!("write: {error}"))
            }
            (ErrorKind::WouldBlock | ErrorKind::TimedOut, _) => {
                failed(Class::Timeout, format!("write: {error}"))
            }
            _ => failed(Class::ConnectOther, format!("write: {error}")),
        };
    }

    let response = match read_response(&mut connection, end) {
        Ok(response) => response,
        Err(error) => {
            let crossing = matches!(&error, ReadError::End { got } if got.is_empty())
                && exchange == Exchange::Reused
                && connection.close_came_first();
            if crossing {
                return crossed();
            }
            let nothing = error.got().is_empty();
            let class = match &error {
                ReadError::End { .. } if nothing => Class::EofBeforeResponse(exchange),
                ReadError::Reset { .. } if nothing => Class::ResetBeforeResponse(exchange),
                ReadError::Timeout { .. } if nothing => Class::Timeout,
                ReadError::End { .. } | ReadError::Reset { .. } | ReadError::Timeout { .. } => {
                    Class::Partial
                }
                ReadError::Malformed { .. } => Class::BadBody,
            };
            return failed(class, shortened(&error));
        }
    };
    let latency = begin.elapsed();
    if response.status != 200 {
        return failed(Class::BadStatus, format!("{} {}", response.status, response.body.trim()));
    }
    if !is_as_expected(kind, &response) {
        return failed(Class::BadBody, format!("{:.80?}", response.body));
    }

    let pid = response.pid;
    let keeps_open = response.keeps_open;
    shared.report().add_ok(name, response, latency);
    match kind {
        // The client closes, which is no reconnect.
        Kind::Visit { requests, .. } if answered + 1 >= *requests => {}
        Kind::KeptAlive { .. } | Kind::Visit { .. } if keeps_open => {
            *kept = Some(Kept { connection, pid, answered: answered + 1 });
        }
        Kind::KeptAlive { .. } | Kind::Visit { .. } => {
            shared.report().reconnects += 1;
            wait_for_close(shared, name, &connection, pid);
        }
        Kind::New | Kind::Slow { .. } | Kind::Hesitant { .. } | Kind::Stream { .. } => {
            wait_for_close(shared, name, &connection, pid);
        }
    }
    Outcome::Fine
}

/// Writes a request in as many pieces as the client does. A piece fits into the socket's buffer, so it
/// is written whole or not at all.
fn write_request(
    shared: &Shared,
    kind: &Kind,
    connection: &mut Connection,
    text: &[u8],
) -> io::Result<()> {
    let Kind::Hesitant { pause } = kind else {
        return connection.write_all(text);
    };
    for piece in text.chunks(text.len().div_ceil(PIECES)) {
        // A load that stops, or a server that hangs up, ends the pause and not the request.
        let _ = shared.pause(*pause, Some(connection.as_fd()));
        connection.write_all(piece)?;
    }
    Ok(())
}

fn connect(shared: &Shared, kind: KindName) -> Option<Connection> {
    let begin = Instant::now();
    let outcome = Connection::open(&shared.address, shared.limits.timeout);
    let took = begin.elapsed();
    let mut report = shared.report();
    report.connections += 1;
    if took >= shared.limits.slow_connect {
        report.slow_connects += 1;
    }
    drop(report);
    match outcome {
        Ok(connection) => Some(connection),
        Err(error) => {
            let context = format!("connect after {took:?}: {error}");
            fail(shared, kind, connect_class(&error), context, None, None);
            None
        }
    }
}

fn connect_class(error: &io::Error) -> Class {
    match error.kind() {
        // A unix path that is absent is a door that is shut.
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => Class::Refused,
        ErrorKind::ConnectionReset => Class::ConnectReset,
        ErrorKind::TimedOut => Class::ConnectTimeout,
        _ => Class::ConnectOther,
    }
}

/// Lets the server close first. How it does is its own affair: the answer was whole; but a byte
/// more than that is not.
fn wait_for_close(shared: &Shared, kind: KindName, connection: &Connection, pid: i32) {
    let _ = shared.pause(CLOSE_WAIT, Some(connection.as_fd()));
    if connection.idle() == Idle::Talks {
        let context = "bytes after the response".to_owned();
        fail(shared, kind, Class::BadBody, context, connection.local_port(), Some(pid));
    }
}

/// `VERSION PID SLOT GENERATION`; in a stream, that line again and again.
fn is_as_expected(kind: &Kind, response: &Response) -> bool {
    let body = match kind {
        Kind::Stream { .. } => {
            let mut lines = response.body.lines();
            let first = lines.next().unwrap_or_default();
            if !lines.all(|line| line == first) {
                return false;
            }
            first
        }
        Kind::New
        | Kind::KeptAlive { .. }
        | Kind::Slow { .. }
        | Kind::Hesitant { .. }
        | Kind::Visit { .. } => &response.body,
    };
    response.pid > 0 && body.split_ascii_whitespace().count() == 4
}

fn fail(
    shared: &Shared,
    kind: KindName,
    class: Class,
    context: String,
    local_port: Option<u16>,
    pid: Option<i32>,
) {
    let at = shared.started.elapsed();
    shared.report().add_failure(Failure { at, kind, class, context, local_port, pid });
}

/// The error with the end of what was received: the beginning is always the same.
fn shortened(error: &ReadError) -> String {
    let got = error.got();
    let tail = &got[got.len().saturating_sub(CONTEXT_BYTES)..];
    let what = match error {
        ReadError::End { .. } => "end of file",
        ReadError::Reset { .. } => "reset",
        ReadError::Timeout { .. } => "timeout",
        ReadError::Malformed { why, .. } => why,
    };
    format!("{what} after {} bytes, ending `{}`", got.len(), tail.escape_ascii())
}

/// Xorshift, from the number of the client: the pauses of a load are the same in each run.
struct Random(u64);

impl Random {
    fn new(number: usize) -> Random {
        Random((number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn duration(&mut self, range: &std::ops::Range<Duration>) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let width = range.end.saturating_sub(range.start).as_micros().max(1);
        let offset = u128::from(self.0) % width;
        range.start + Duration::from_micros(u64::try_from(offset).unwrap_or(u64::MAX))
    }
}
