//! As much of HTTP/1.1 as a strict client needs: one GET, one response of a known length.

use std::{
    fmt,
    io::{self, Read, Write},
    time::{Duration, Instant},
};

use super::{Address, Connection};

/// No example worker answers with more; what is longer is a mistake.
const RESPONSE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The limit of a single request with `get`.
const GET_TIMEOUT: Duration = Duration::from_secs(20);

/// An answer. The example workers' body is `VERSION PID SLOT GENERATION`; of another body the words
/// that are missing are empty and the pid is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub version: String,
    pub pid: i32,
    pub slot: String,
    pub generation: String,
    pub body: String,
    /// Whether the server will take another request on this connection.
    pub keeps_open: bool,
}

/// A single request on a connection of its own.
pub fn get(address: impl Into<Address>, path: &str) -> io::Result<Response> {
    let mut connection = Connection::open(&address.into(), GET_TIMEOUT)?;
    let end = Instant::now() + GET_TIMEOUT;
    connection.set_timeout(GET_TIMEOUT)?;
    connection.write_all(request(path, After::Close).as_bytes())?;
    read_response(&mut connection, end).map_err(|error| {
        let kind = match error {
            ReadError::Timeout { .. } => io::ErrorKind::TimedOut,
            ReadError::End { .. } => io::ErrorKind::UnexpectedEof,
            ReadError::Reset { .. } => io::ErrorKind::ConnectionReset,
            ReadError::Malformed { .. } => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error.to_string())
    })
}

/// What the client says about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    KeepOpen,
    Close,
}

pub fn request(path: &str, after: After) -> String {
    let after = match after {
        After::KeepOpen => "keep-alive",
        After::Close => "close",
    };
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: {after}\r\n\r\n")
}

/// Why there is no whole response; with what came of it.
#[derive(Debug)]
pub enum ReadError {
    End {
        got: Vec<u8>,
    },
    Reset {
        got: Vec<u8>,
    },
    Timeout {
        got: Vec<u8>,
    },
    /// It is there, and is not what we understand.
    Malformed {
        got: Vec<u8>,
        why: &'static str,
    },
}

impl ReadError {
    pub fn got(&self) -> &[u8] {
        match self {
            ReadError::End { got }
            | ReadError::Reset { got }
            | ReadError::Timeout { got }
            | ReadError::Malformed { got, .. } => got,
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let got = self.got().escape_ascii();
        match self {
            ReadError::End { .. } => write!(f, "end of file after `{got}`"),
            ReadError::Reset { .. } => write!(f, "reset after `{got}`"),
            ReadError::Timeout { .. } => write!(f, "timed out after `{got}`"),
            ReadError::Malformed { why, .. } => write!(f, "{why}: `{got}`"),
        }
    }
}

/// Reads until the response is whole. A body without a length of its own would end with the
/// connection, and a cut one would look the same: it is refused.
pub fn read_response(stream: &mut Connection, end: Instant) -> Result<Response, ReadError> {
    let mut got = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        match parse(&got) {
            Ok(Some(response)) => return Ok(response),
            Ok(None) if got.len() > RESPONSE_BYTES_MAX => {
                return Err(ReadError::Malformed { got, why: "too long" });
            }
            Ok(None) => {}
            Err(why) => return Err(ReadError::Malformed { got, why }),
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_timeout(left).is_err() {
            return Err(ReadError::Timeout { got });
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Err(ReadError::End { got }),
            Ok(count) => got.extend_from_slice(&buffer[..count]),
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    return Err(ReadError::Timeout { got });
                }
                _ => return Err(ReadError::Reset { got }),
            },
        }
    }
}

/// `None` while something is missing.
fn parse(bytes: &[u8]) -> Result<Option<Response>, &'static str> {
    let Some(head_length) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..head_length]).map_err(|_| "head is no text")?;
    let body = &bytes[head_length + 4..];
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().splitn(3, ' ');
    let mut keeps_open = match first.next() {
        Some("HTTP/1.1") => true,
        Some("HTTP/1.0") => false,
        _ => return Err("no HTTP/1 response"),
    };
    let status = first.next().and_then(|word| word.parse().ok()).ok_or("no status")?;
    let mut length: Option<usize> = None;
    for line in lines {
        let (name, value) = line.split_once(':').ok_or("header without a colon")?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.parse().map_err(|_| "Content-Length is no number")?);
        } else if name.eq_ignore_ascii_case("connection") {
            keeps_open = value.eq_ignore_ascii_case("keep-alive")
                || (keeps_open && !value.eq_ignore_ascii_case("close"));
        }
    }
    let length = length.ok_or("no Content-Length")?;
    if body.len() < length {
        return Ok(None);
    }
    if body.len() > length {
        return Err("more bytes than Content-Length says");
    }
    let body = String::from_utf8_lossy(body).into_owned();
    let mut words = body.split_ascii_whitespace().map(str::to_owned);
    let mut word = || words.next().unwrap_or_default();
    let (version, pid, slot, generation) = (word(), word(), word(), word());
    let pid = pid.parse().unwrap_or(0);
    Ok(Some(Response { status, version, pid, slot, generation, body, keeps_open }))
}
