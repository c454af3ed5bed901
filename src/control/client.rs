//! The other end of the control socket, for the command line: one request, one answer, no state.
//! It waits as long as it is told to and never retries.
//!
//! It is hyper's client, which the server's library brings along: by hand it would be a parser of
//! heads and chunks more, and not smaller. Callers see none of it: they block.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

use super::wire;

/// How long to wait until a connection is made: the daemon takes it at once, unless it has as many
/// clients as it takes.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// How often a full queue is tried again: the kernel tells nobody when there is room, see unix(7).
const QUEUE_IS_FULL: Duration = Duration::from_millis(20);

/// The longest answer: more than a status of ten thousand workers.
const ANSWER_MAX: usize = 16 << 20;

/// The longest line of the stream of events.
const LINE_MAX: usize = 1 << 20;

/// Asks one daemon.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// There is no such socket: no daemon, or another path.
    #[error("cannot reach `{}`: there is no such socket; no shepherd runs there", .0.display())]
    NoSocket(PathBuf),
    /// The socket is there and nobody listens: its daemon has gone without a stop.
    #[error(
        "cannot reach `{}`: nobody listens on it; the shepherd that bound it is gone", .0.display()
    )]
    Stale(PathBuf),
    /// This user may not.
    #[error(
        "cannot reach `{}`: permission denied; ask as the user that shepherd runs as, or as root",
        .0.display()
    )]
    Denied(PathBuf),
    /// No answer came in time. What was asked for goes on.
    #[error("no answer from `{}` within {:?}", .0.display(), .1)]
    TimedOut(PathBuf, Duration),
    /// The connection ended before the answer did: the daemon has gone, or gave us up.
    #[error("the connection to `{}` ended before the answer did", .0.display())]
    Cut(PathBuf),
    /// What listens there speaks something else.
    #[error("what listens on `{}` does not speak HTTP; is it shepherd's control socket?", .0.display())]
    NotHttp(PathBuf),
    /// HTTP, and nothing that a daemon of this version would say.
    #[error(
        "cannot read the answer of `{}` (status {status}): {why}; is it another version's?",
        .socket.display()
    )]
    Strange {
        /// Who answered.
        socket: PathBuf,
        /// The status of the answer.
        status: u16,
        /// What is wrong with it.
        why: String,
    },
    /// The daemon did not do it, and says why.
    #[error("{}", .0.detail)]
    Problem(Box<wire::Problem>),
    /// Something that every process can do was refused.
    #[error("cannot {what}: {error}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        error: io::Error,
    },
}

impl Client {
    /// For the daemon that listens on this socket. Nothing is tried yet.
    ///
    /// # Errors
    ///
    /// [`ClientError::System`] where no descriptor is left.
    pub fn new(socket: impl Into<PathBuf>) -> Result<Client, ClientError> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| ClientError::System { what: "watch descriptors", error })?;
        Ok(Client { socket: socket.into(), runtime })
    }

    /// The daemon's socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `GET path`, answered within that time; without one it is waited for.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        within: Option<Duration>,
    ) -> Result<T, ClientError> {
        self.exchange(&Method::GET, path, Vec::new(), within)
    }

    /// `POST path` with this body, answered within that time; without one it is waited for.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        within: Option<Duration>,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::System {
            what: "write the request as JSON",
            error: error.into(),
        })?;
        self.exchange(&Method::POST, path, body, within)
    }

    /// What happens from event `since` on, or from this moment on. The stream begins within that
    /// time.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn events(
        &self,
        since: Option<u64>,
        within: Option<Duration>,
    ) -> Result<Events<'_>, ClientError> {
        let path = match since {
            Some(number) => format!("/v1/events?since={number}"),
            None => "/v1/events".to_owned(),
        };
        let begun = async {
            let response = self.send(&Method::GET, &path, Vec::new()).await?;
            if response.status().is_success() {
                return Ok(response.into_body());
            }
            let status = response.status();
            Err(self.problem(status, &self.read(response.into_body(), status).await?))
        };
        let body = self.runtime.block_on(self.bounded(within, begun))?;
        Ok(Events { client: self, body, read: Vec::new() })
    }

    fn exchange<T: DeserializeOwned>(
        &self,
        method: &Method,
        path: &str,
        body: Vec<u8>,
        within: Option<Duration>,
    ) -> Result<T, ClientError> {
        let answer = async {
            let response = self.send(method, path, body).await?;
            let status = response.status();
            let bytes = self.read(response.into_body(), status).await?;
            if !status.is_success() {
                return Err(self.problem(status, &bytes));
            }
            serde_json::from_slice(&bytes).map_err(|error| self.strange(status, &error))
        };
        self.runtime.block_on(self.bounded(within, answer))
    }

    /// A connection of its own for each request: the daemon may be another one by the next.
    async fn send(
        &self,
        method: &Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut sender = self.bounded(Some(CONNECT_WITHIN), self.connect()).await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "shepherd")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)));
        let request = request.map_err(|error| ClientError::System {
            what: "ask for this path",
            error: io::Error::other(error),
        })?;
        sender.send_request(request).await.map_err(|error| self.failed(&error))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let stream = loop {
            match UnixStream::connect(&self.socket).await {
                Ok(stream) => break stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    sleep(QUEUE_IS_FULL).await;
                }
                Err(error) => return Err(self.not_connected(error)),
            }
        };
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| self.failed(&error))?;
        // Whoever waits for the answer hears of its end.
        self.runtime.spawn(async { connection.await.unwrap_or_default() });
        Ok(sender)
    }

    async fn read(&self, body: Incoming, status: StatusCode) -> Result<Bytes, ClientError> {
        match Limited::new(body, ANSWER_MAX).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) => Err(match error.downcast::<hyper::Error>() {
                Ok(error) => self.failed(&error),
                Err(error) => self.strange(status, &error),
            }),
        }
    }

    async fn bounded<T>(
        &self,
        within: Option<Duration>,
        answer: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let Some(within) = within else {
            return answer.await;
        };
        let timed_out = |_| Err(ClientError::TimedOut(self.socket.clone(), within));
        timeout(within, answer).await.unwrap_or_else(timed_out)
    }

    fn problem(&self, status: StatusCode, body: &[u8]) -> ClientError {
        match serde_json::from_slice(body) {
            Ok(problem) => ClientError::Problem(Box::new(problem)),
            Err(error) => self.strange(status, &error),
        }
    }

    fn strange(&self, status: StatusCode, why: &dyn std::fmt::Display) -> ClientError {
        let (socket, why) = (self.socket.clone(), why.to_string());
        ClientError::Strange { socket, status: status.as_u16(), why }
    }

    fn not_connected(&self, error: io::Error) -> ClientError {
        let socket = self.socket.clone();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ClientError::NoSocket(socket),
            io::ErrorKind::ConnectionRefused => ClientError::Stale(socket),
            io::ErrorKind::PermissionDenied => ClientError::Denied(socket),
            _ => ClientError::System { what: "connect to the control socket", error },
        }
    }

    fn failed(&self, error: &hyper::Error) -> ClientError {
        if error.is_parse() {
            ClientError::NotHttp(self.socket.clone())
        } else {
            ClientError::Cut(self.socket.clone())
        }
    }
}

/// What happens, as it happens.
#[derive(Debug)]
pub struct Events<'a> {
    client: &'a Client,
    body: Incoming,
    /// What was read and is not given yet.
    read: Vec<u8>,
}

impl Events<'_> {
    /// The next event, within that time; without one it is waited for. `None` at the end: the daemon
    /// has stopped. After [`ClientError::TimedOut`] it can be called again, nothing is lost.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn next(&mut self, within: Option<Duration>) -> Result<Option<wire::Event>, ClientError> {
        let Events { client, body, read } = self;
        let strange = |why: &dyn std::fmt::Display| client.strange(StatusCode::OK, why);
        let line = async {
            loop {
                if let Some(end) = memchr::memchr(b'\n', read) {
                    let line: Vec<u8> = read.drain(..=end).collect();
                    let event = serde_json::from_slice(&line).map_err(|error| strange(&error))?;
                    return Ok(Some(event));
                }
                if read.len() > LINE_MAX {
                    return Err(strange(&"a line without an end"));
                }
                match body.frame().await {
                    Some(Ok(frame)) => {
                        read.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
                    }
                    Some(Err(error)) => return Err(client.failed(&error)),
                    None if read.is_empty() => return Ok(None),
                    None => return Err(ClientError::Cut(client.socket.clone())),
                }
            }
        };
        client.runtime.block_on(client.bounded(within, line))
    }
}

#[cfg(test)]
mod tests;
