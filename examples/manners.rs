//! A worker with the manners that you choose, for tests of a supervisor: how it takes SIGTERM decides
//! what becomes of the requests that it has. One file, since an example is copied as one.
//!
//! ```text
//! manners graceful      accepts no more, answers what it has, the last time on each kept-alive
//!                       connection with `Connection: close`, and exits when none is open
//! manners shuts-down    the same, but shuts its listening sockets down, for all who share them
//! manners dies          is ended by SIGTERM where it stands
//!
//! --handler 50ms        a request takes so long; many are answered at a time
//! --serial              one connection at a time
//! --start 200ms         it takes so long to become ready
//!
//! shepherd run -n 4 -p 8000 -- ./manners dies --handler 50ms
//! ```
//!
//! `GET /` is answered with the line `VERSION PID SLOT GENERATION`, `/slow?ms=N` with the same after N
//! milliseconds, `/stream/5s` with that line again and again for 5 s, and a datagram with the line
//! and itself. Connections stay open if their clients like.

#![expect(clippy::print_stderr, reason = "it says on stderr what is wrong, and ends")]
#![expect(
    clippy::disallowed_methods,
    reason = "it is a program of its own: it reads its variables, and its handlers sleep"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::Duration;
use std::{env, iter, process, thread};

use listenfd::ListenFd;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use signal_hook::consts::SIGTERM;

/// A longer request head ends its connection.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// How long a connection may be silent.
const IDLE_TIME_MAX: Duration = Duration::from_secs(60);
/// How long it listens, after its last answer, for a client to close.
const GOODBYE_TIME_MAX: Duration = Duration::from_millis(500);
/// The time between two pieces of a stream.
const PIECE_EVERY: Duration = Duration::from_millis(100);
/// The longest datagram that is answered whole.
const DATAGRAM_BYTES_MAX: usize = 2048;

static STOPPING: AtomicBool = AtomicBool::new(false);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Manners {
    Graceful,
    ShutsDown,
    Dies,
}

#[derive(Clone, Copy)]
struct Settings {
    manners: Manners,
    handler: Duration,
    start: Duration,
    serial: bool,
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let Some(settings) = settings(&arguments) else {
        eprintln!("manners: unknown manners or wrong arguments: {arguments:?}");
        process::exit(2);
    };
    let stop = (settings.manners != Manners::Dies).then(stop_signal);
    let sockets = sockets();
    thread::sleep(settings.start);
    ready();

    // Each connection and datagram in hand has an end of the channel, which tells when it is done.
    let (open, all_done) = mpsc::channel::<()>();
    let stop = stop.as_ref().map(AsFd::as_fd);
    let watched: Vec<_> = sockets.iter().map(AsFd::as_fd).chain(stop).collect();
    loop {
        let readable = wait(&watched);
        if stop.is_some() && readable.last() == Some(&true) {
            break;
        }
        for (socket, _) in iter::zip(&sockets, readable).filter(|(_, readable)| *readable) {
            socket.take(settings, &open);
        }
    }

    STOPPING.store(true, Ordering::SeqCst);
    if settings.manners == Manners::ShutsDown {
        sockets.iter().for_each(Socket::shut_down);
    }
    drop(sockets);
    drop(open);
    let _all_done = all_done.recv();
}

fn settings(arguments: &[String]) -> Option<Settings> {
    let mut words = arguments.iter().map(String::as_str);
    let manners = match words.next()? {
        "graceful" => Manners::Graceful,
        "shuts-down" => Manners::ShutsDown,
        "dies" => Manners::Dies,
        _ => return None,
    };
    let none = Duration::ZERO;
    let mut settings = Settings { manners, handler: none, start: none, serial: false };
    while let Some(word) = words.next() {
        match word {
            "--handler" => settings.handler = duration(words.next()?)?,
            "--start" => settings.start = duration(words.next()?)?,
            "--serial" => settings.serial = true,
            _ => return None,
        }
    }
    Some(settings)
}

/// `50ms` or `5s`.
fn duration(text: &str) -> Option<Duration> {
    if let Some(ms) = text.strip_suffix("ms") {
        return ms.parse().ok().map(Duration::from_millis);
    }
    text.strip_suffix('s')?.parse().ok().map(Duration::from_secs)
}

/// Becomes readable at the first SIGTERM.
fn stop_signal() -> UnixStream {
    let (receiver, sender) = UnixStream::pair().expect("socketpair");
    signal_hook::low_level::pipe::register(SIGTERM, sender).expect("signal handler");
    receiver
}

/// Tells the service manager, if there is one with a path.
fn ready() {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return };
    let sent = UnixDatagram::unbound().and_then(|socket| socket.send_to(b"READY=1", path));
    if let Err(error) = sent {
        eprintln!("manners: cannot notify: {error}");
    }
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
    Udp(Arc<UdpSocket>),
}

/// The sockets that were handed to this process, else one of its own.
fn sockets() -> Vec<Socket> {
    let mut given = ListenFd::from_env();
    if given.len() == 0 {
        return vec![Socket::Tcp(TcpListener::bind("127.0.0.1:8000").expect("cannot bind"))];
    }
    let count = given.len();
    let take = |index| {
        if let Ok(tcp) = given.take_tcp_listener(index) {
            return tcp.map(Socket::Tcp);
        }
        if let Ok(unix) = given.take_unix_listener(index) {
            return unix.map(Socket::Unix);
        }
        given.take_udp_socket(index).ok()?.map(|udp| Socket::Udp(Arc::new(udp)))
    };
    (0..count).filter_map(take).collect()
}

impl Socket {
    /// Takes the next connection or datagram, unless another worker was faster, and has it answered.
    fn take(&self, settings: Settings, open: &Sender<()>) {
        let open = open.clone();
        // Being non-blocking is a property of the socket, so any worker can change it for all.
        let accepted = match self {
            Socket::Tcp(listener) => {
                listener.set_nonblocking(true).and_then(|()| Ok(listener.accept()?.0))
            }
            // Reading, writing and shutdown are the same calls for both kinds.
            Socket::Unix(listener) => listener
                .set_nonblocking(true)
                .and_then(|()| Ok(TcpStream::from(OwnedFd::from(listener.accept()?.0)))),
            Socket::Udp(socket) => return take_datagram(socket, settings, open),
        };
        match accepted {
            Ok(stream) if settings.serial => serve(stream, settings.handler),
            Ok(stream) => in_a_thread(open, move || serve(stream, settings.handler)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => {
                // Out of descriptors, perhaps, or shut down: it may pass, so do not spin.
                eprintln!("manners: cannot accept: {error}");
                thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// Whether it had been already does not matter.
    fn shut_down(&self) {
        let both = nix::sys::socket::Shutdown::Both;
        let _ = nix::sys::socket::shutdown(self.as_fd().as_raw_fd(), both);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(listener) => listener.as_fd(),
            Socket::Unix(listener) => listener.as_fd(),
            Socket::Udp(socket) => socket.as_fd(),
        }
    }
}

fn in_a_thread(open: Sender<()>, body: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new().stack_size(128 * 1024);
    let started = thread.spawn(move || {
        body();
        drop(open);
    });
    if let Err(error) = started {
        eprintln!("manners: cannot start a thread: {error}");
    }
}

fn take_datagram(socket: &Arc<UdpSocket>, settings: Settings, open: Sender<()>) {
    let mut bytes = [0; DATAGRAM_BYTES_MAX];
    let received = socket.set_nonblocking(true).and_then(|()| socket.recv_from(&mut bytes));
    let Ok((length, client)) = received else { return };
    let answer = [line().trim_end().as_bytes(), b" ", &bytes[..length]].concat();
    let socket = Arc::clone(socket);
    let reply = move || {
        thread::sleep(settings.handler);
        let _ = socket.send_to(&answer, client);
    };
    if settings.handler.is_zero() {
        reply();
    } else {
        in_a_thread(open, reply);
    }
}

/// Answers the requests of one connection, one after the other, and closes it.
fn serve(mut stream: TcpStream, handler: Duration) {
    let _ = stream.set_read_timeout(Some(IDLE_TIME_MAX));
    let mut received = Vec::new();
    while let Some(head) = next_head(&mut stream, &mut received) {
        let Some(closed) = answer(&mut stream, &head, handler) else { break };
        if closed {
            break;
        }
    }
    // Send our end of file first and let the client close: a bare close() with unread bytes
    // would reset the connection, and the client could lose an answer it has not read yet.
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.set_read_timeout(Some(GOODBYE_TIME_MAX));
    while read_more(&mut stream, &mut Vec::new()).is_some() {}
}

/// The head of the next request; none at the end of the stream. What follows it stays in `received`.
fn next_head(stream: &mut TcpStream, received: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head: Vec<u8> = received.drain(..end + 4).collect();
            return Some(String::from_utf8_lossy(&head).into_owned());
        }
        if received.len() > HEAD_BYTES_MAX {
            return None;
        }
        read_more(stream, received)?;
    }
}

/// Appends what comes next; none at the end of the stream and when it is silent for too long.
fn read_more(stream: &mut TcpStream, received: &mut Vec<u8>) -> Option<()> {
    let mut bytes = [0; 2048];
    loop {
        match stream.read(&mut bytes) {
            Ok(length @ 1..) => {
                received.extend_from_slice(&bytes[..length]);
                return Some(());
            }
            // With a timeout a signal interrupts a read even under SA_RESTART, see signal(7).
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return None,
        }
    }
}

/// Answers a request, and says whether that was the last; none if its client has gone.
fn answer(stream: &mut TcpStream, head: &str, handler: Duration) -> Option<bool> {
    let target = head.split(' ').nth(1).unwrap_or_default();
    let wants_close = head.to_ascii_lowercase().contains("\r\nconnection: close\r\n");
    let line = line();
    let stream_time = target.strip_prefix("/stream/").and_then(duration);
    let pieces = stream_time.map_or(1, |time| time.as_millis() / PIECE_EVERY.as_millis()).max(1);
    if stream_time.is_none() {
        let slow = target.strip_prefix("/slow?ms=").and_then(|ms| ms.parse().ok());
        thread::sleep(slow.map_or(handler, Duration::from_millis));
    }
    // Looked at as late as can be: whatever is answered after the signal is the last.
    let closes = wants_close || STOPPING.load(Ordering::SeqCst);
    let connection = if closes { "close" } else { "keep-alive" };
    let length = line.len() as u128 * pieces;
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n{line}"
    );
    stream.write_all(head.as_bytes()).ok()?;
    for _ in 1..pieces {
        thread::sleep(PIECE_EVERY);
        stream.write_all(line.as_bytes()).ok()?;
    }
    Some(closes)
}

fn line() -> String {
    let variable = |name, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let version = variable("VERSION", "dev");
    let (slot, generation) = (variable("SHEPHERD_SLOT", "-"), variable("SHEPHERD_GENERATION", "-"));
    format!("{version} {} {slot} {generation}\n", process::id())
}

fn wait(descriptors: &[BorrowedFd<'_>]) -> Vec<bool> {
    let entries = descriptors.iter().map(|descriptor| PollFd::new(*descriptor, PollFlags::POLLIN));
    let mut entries: Vec<_> = entries.collect();
    while poll(&mut entries, PollTimeout::NONE) == Err(Errno::EINTR) {}
    entries.iter().map(|entry| entry.any() == Some(true)).collect()
}
