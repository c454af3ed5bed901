//! An HTTP/1.1 worker that can be replaced at any moment without a failed request. It takes the
//! sockets it is given (`LISTEN_FDS`), says when it is ready (`NOTIFY_SOCKET`), and on SIGTERM
//! stops as a lame duck: it accepts no more, answers what it accepted, and says goodbye to
//! kept-alive clients in an answer instead of hanging up on them.
//!
//! ```text
//! shepherd run -n 4 -p 8000 -- ./http     four of them, sharing one socket
//! systemd-socket-activate -l 8000 ./http  one, started by the first connection
//! ./http [ADDRESS:PORT]                   one, with a socket of its own (127.0.0.1:8000)
//! ```

#![expect(clippy::print_stderr, reason = "stderr is its log")]
#![expect(
    clippy::disallowed_methods,
    reason = "it is a program of its own: it reads its variables and the clock, and /slow sleeps"
)]

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
use std::{env, process, thread};

use listenfd::ListenFd;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use signal_hook::consts::{SIGINT, SIGTERM};

/// A longer request head is answered with 400.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// How long a client may take to send a head it has begun, or to take an answer.
const EXCHANGE_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a connection may be silent.
const IDLE_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a stopping worker waits for the first request of a connection. Clients do not retry
/// a first request, so a connection that we accepted is not closed before it had its chance.
const FIRST_REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
/// How long we listen, after our last answer, for a client to close.
const GOODBYE_TIME_MAX: Duration = Duration::from_millis(500);

static STOPPING: AtomicBool = AtomicBool::new(false);

fn main() {
    if let Err(error) = run() {
        eprintln!("http: {error}");
        process::exit(1);
    }
}

fn run() -> io::Result<()> {
    let stop_signal = stop_signal()?;
    let listeners = listeners()?;
    notify(&format!("READY=1\nSTATUS=serving on {} socket(s)", listeners.len()));

    // Every connection has a thread. Its end of the channel tells us when it is gone, and our
    // end of the pipe tells all of them at once when the lame duck's time is over.
    let (connection_open, connections) = mpsc::channel::<()>();
    let (lame_duck, lame_duck_over) = UnixStream::pair()?;
    let lame_duck_over = Arc::new(lame_duck_over);
    let mut waiting_for = vec![stop_signal.as_fd()];
    waiting_for.extend(listeners.iter().map(Listener::as_fd));
    while !wait(None, &waiting_for)[0] {
        for stream in listeners.iter().filter_map(Listener::accept) {
            let (open, over) = (connection_open.clone(), Arc::clone(&lame_duck_over));
            let thread = thread::Builder::new().stack_size(128 * 1024);
            if let Err(error) = thread.spawn(move || serve(stream, &over, open)) {
                eprintln!("http: cannot start a thread: {error}");
            }
        }
    }

    STOPPING.store(true, Ordering::SeqCst);
    notify("STOPPING=1\nSTATUS=finishing what was accepted");
    // This closes our copies only: other workers go on accepting from the same sockets. A
    // shutdown() would take the sockets from them as well.
    drop(listeners);
    drop(connection_open);
    let lame_duck_time = env::var("LAME_DUCK_MS").ok().and_then(|ms| ms.parse().ok());
    let lame_duck_time = Duration::from_millis(lame_duck_time.unwrap_or(1000));
    if connections.recv_timeout(lame_duck_time) == Err(RecvTimeoutError::Timeout) {
        drop(lame_duck);
        let _all_gone = connections.recv();
    }
    Ok(())
}

/// Becomes readable at the first SIGTERM or SIGINT. The second ends the process at once.
fn stop_signal() -> io::Result<UnixStream> {
    let (receiver, sender) = UnixStream::pair()?;
    let seen = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // The pipe first: a signal that comes in between two of these lines is not lost.
        signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&seen))?;
        signal_hook::flag::register(signal, Arc::clone(&seen))?;
    }
    Ok(receiver)
}

/// Tells the service manager, if there is one. That it does not hear us must not stop us.
fn notify(message: &str) {
    let Some(address) = env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let send = || {
        // A leading @ stands for the zero byte of an abstract address.
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
        };
        UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address)
    };
    if let Err(error) = send() {
        eprintln!("http: cannot notify: {error}");
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The sockets that were handed to this process, else one of our own.
fn listeners() -> io::Result<Vec<Listener>> {
    let mut given = ListenFd::from_env();
    if given.len() == 0 {
        let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8000".to_owned());
        return Ok(vec![Listener::Tcp(TcpListener::bind(address)?)]);
    }
    let mut listeners = Vec::new();
    for index in 0..given.len() {
        listeners.extend(match given.take_tcp_listener(index) {
            Ok(tcp) => tcp.map(Listener::Tcp),
            Err(_not_tcp) => given.take_unix_listener(index)?.map(Listener::Unix),
        });
    }
    Ok(listeners)
}

impl Listener {
    /// The next connection, unless another worker was faster.
    fn accept(&self) -> Option<TcpStream> {
        // Being non-blocking is a property of the socket, not of our copy of it, so any worker
        // can change it for all. Hence it is set each time.
        let accepted = match self {
            Listener::Tcp(listener) => listener
                .set_nonblocking(true)
                .and_then(|()| listener.accept())
                .map(|(stream, _)| stream),
            // From here on the calls are the same for both kinds: read, write and shutdown.
            Listener::Unix(listener) => listener
                .set_nonblocking(true)
                .and_then(|()| listener.accept())
                .map(|(stream, _)| TcpStream::from(OwnedFd::from(stream))),
        };
        match accepted {
            Ok(stream) => Some(stream),
            Err(error) => {
                // Out of descriptors, perhaps: the connection stays in the queue, so do not spin.
                if error.kind() != io::ErrorKind::WouldBlock {
                    eprintln!("http: cannot accept: {error}");
                    thread::sleep(Duration::from_millis(50));
                }
                None
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener) => listener.as_fd(),
        }
    }
}

/// Answers the requests of one connection, one after the other, and closes it.
fn serve(mut stream: TcpStream, lame_duck_over: &UnixStream, _open: Sender<()>) {
    let _ = stream.set_write_timeout(Some(EXCHANGE_TIME_MAX));
    let mut received = Vec::new();
    let mut is_first = true;
    while !received.is_empty() || request_begins(&stream, lame_duck_over, is_first) {
        is_first = false;
        let Some(answer) = next_answer(&mut stream, &mut received) else {
            break;
        };
        let closes = answer.closes || STOPPING.load(Ordering::SeqCst);
        if stream.write_all(&answer.into_bytes(closes)).is_err() || closes {
            break;
        }
    }
    // Send our end of file first and let the client close: a bare close() with unread bytes
    // would reset the connection, and the client could lose an answer it has not read yet.
    let _ = stream.shutdown(Shutdown::Write);
    let give_up = Instant::now() + GOODBYE_TIME_MAX;
    while read_more(&mut stream, &mut Vec::new(), give_up).is_some() {}
}

/// Waits for the first byte of a request; false if the connection is to be closed instead.
fn request_begins(stream: &TcpStream, lame_duck_over: &UnixStream, is_first: bool) -> bool {
    match wait(Some(IDLE_TIME_MAX), &[stream.as_fd(), lame_duck_over.as_fd()])[..] {
        [true, _] => true,
        [_, true] => is_first && wait(Some(FIRST_REQUEST_TIME_MAX), &[stream.as_fd()])[0],
        _ => false,
    }
}

/// Reads a request and answers it; `None` if the client has gone or takes too long. What
/// follows the head stays in `received`.
fn next_answer(stream: &mut TcpStream, received: &mut Vec<u8>) -> Option<Answer> {
    let give_up = Instant::now() + EXCHANGE_TIME_MAX;
    loop {
        let end = received.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        if end.unwrap_or(received.len()) > HEAD_BYTES_MAX {
            return Some(Answer::BAD_REQUEST);
        }
        if let Some(end) = end {
            let head: Vec<u8> = received.drain(..end + 4).collect();
            return Some(answer(&String::from_utf8_lossy(&head)).unwrap_or(Answer::BAD_REQUEST));
        }
        read_more(stream, received, give_up)?;
    }
}

/// Appends what comes next; `None` at the end of the stream, at an error, and at `give_up`.
fn read_more(stream: &mut TcpStream, received: &mut Vec<u8>, give_up: Instant) -> Option<()> {
    let time_left = give_up.saturating_duration_since(Instant::now());
    let mut bytes = [0; 2048];
    if !wait(Some(time_left), &[stream.as_fd()])[0] {
        return None;
    }
    let length = stream.read(&mut bytes).ok().filter(|length| *length > 0)?;
    received.extend_from_slice(&bytes[..length]);
    Some(())
}

struct Answer {
    status: &'static str,
    body: String,
    closes: bool,
}

impl Answer {
    const BAD_REQUEST: Answer =
        Answer { status: "400 Bad Request", body: String::new(), closes: true };

    fn into_bytes(self, closes: bool) -> Vec<u8> {
        let Answer { status, body, closes: _ } = self;
        let connection = if closes { "close" } else { "keep-alive" };
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
             Connection: {connection}\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

/// The answer to a request; `None` if it is not HTTP.
fn answer(head: &str) -> Option<Answer> {
    let mut lines = head.trim_end().split("\r\n");
    let request: Vec<&str> = lines.next()?.split(' ').collect();
    let [method, target, version @ ("HTTP/1.1" | "HTTP/1.0")] = request[..] else {
        return None;
    };
    let mut closes = version == "HTTP/1.0";
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let value = value.trim().to_ascii_lowercase();
        closes |= match name.to_ascii_lowercase().as_str() {
            "connection" => value.split(',').any(|option| option.trim() == "close"),
            // Bodies are not read, so what follows one could not be told from it.
            "content-length" => value != "0",
            "transfer-encoding" => true,
            _ => false,
        };
    }

    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    match (method, path) {
        ("GET", "/") => {}
        ("GET", "/slow") => {
            let ms: u64 = query.strip_prefix("ms=")?.parse().ok()?;
            thread::sleep(Duration::from_millis(ms.min(60_000)));
        }
        _ => {
            return Some(Answer { status: "404 Not Found", body: String::new(), closes });
        }
    }
    let variable = |name, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let version = variable("VERSION", "dev");
    let (slot, generation) = (variable("SHEPHERD_SLOT", "-"), variable("SHEPHERD_GENERATION", "-"));
    let body = format!("{version} {} {slot} {generation}\n", process::id());
    Some(Answer { status: "200 OK", body, closes })
}

/// Waits until some of `fds` can be read or have ended, and says which. None of them: the time
/// is over.
fn wait(time: Option<Duration>, fds: &[BorrowedFd<'_>]) -> Vec<bool> {
    let mut entries: Vec<_> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    let time = time.and_then(|time| PollTimeout::try_from(time).ok()).unwrap_or(PollTimeout::NONE);
    // A signal interrupts the wait of whichever thread it hits; only the pipe says what it was.
    while poll(&mut entries, time) == Err(Errno::EINTR) {}
    entries.iter().map(|entry| entry.any() == Some(true)).collect()
}
