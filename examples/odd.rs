//! A worker that misbehaves on demand, for tests of a supervisor: `odd MODE [ARG]...`, where
//! each function below `main` is a mode. To serve means: to answer any request with the line
//! `VERSION PID SLOT GENERATION`, one connection at a time, and to exit with 0 on SIGTERM.
//! One file, since an example is copied as one.
//!
//! ```text
//! shepherd run -n 4 -p 8000 -- ./odd status 'warming up'
//! systemd-socket-activate -l 8000 ./odd ready-exit 3 5000
//! ./odd exit 3
//! ```

#![expect(unsafe_code, reason = "it forks and ignores signals, which nix calls unsafe")]
#![expect(
    clippy::panic,
    clippy::print_stderr,
    reason = "it says on stderr what is wrong, and ends"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "it is a program of its own: it reads its variables, and modes sleep as they are told"
)]

use std::fmt::Write as _;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, exit};
use std::str::FromStr;
use std::time::{Duration, Instant};
use std::{env, fs, iter, process, thread};

use listenfd::ListenFd;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::select::FdSet;
use nix::sys::signal::{SigHandler, Signal, raise, signal};
use nix::sys::socket::{Backlog, ControlMessage, MsgFlags, UnixAddr, sendmsg};
use nix::unistd::{ForkResult, fork, getpgid, getppid, getsid, pipe, setsid};
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["exit", code] => exit_with(code, "0"),
        ["exit", code, ms] => exit_with(code, ms),
        ["ready-exit", code, ms] => ready_exit(code, ms),
        ["exit-if-slot", slot, code] => exit_if_slot(slot, code),
        ["never-ready"] => never_ready(),
        ["ignore-term"] => ignore_term(),
        ["fork-and-die"] => fork_and_die(),
        ["escape"] => escape(),
        ["escape-clean"] => escape_clean(),
        ["fork-storm"] => fork_storm(),
        ["close-if-slot", slot] => close_if_slot(slot),
        ["garbage"] => garbage(),
        ["liar"] => liar(),
        ["status", text] => status(text),
        ["stopping", ms] => stopping(ms),
        ["extend"] => extend(),
        ["main-pid"] => main_pid(),
        ["barrier"] => barrier(),
        ["dump", file] => dump(file),
        ["stop-self"] => stop_self(),
        ["accept-blocking"] => accept_blocking(),
        ["poll"] => poll(),
        ["select"] => select(),
        ["epoll"] => epoll(),
        ["alive"] => alive(),
        ["log", line] => log(line),
        ["meddle", deed] => meddle(deed, None),
        ["meddle", deed, ms] => meddle(deed, Some(number(ms))),
        _ => {
            eprintln!("odd: unknown mode or wrong arguments: {arguments:?}");
            exit(2);
        }
    }
}

/// Exits after `ms`, never ready.
fn exit_with(code: &str, ms: &str) {
    sleep_ms(number(ms));
    exit(number(code));
}

/// Serves, and exits `ms` after it said that it is ready.
fn ready_exit(code: &str, ms: &str) {
    let (code, ms) = (number(code), number(ms));
    ready();
    thread::spawn(move || {
        sleep_ms(ms);
        exit(code);
    });
    serve();
}

/// Exits at once in one slot, serves in the others.
fn exit_if_slot(slot: &str, code: &str) {
    if env::var("SHEPHERD_SLOT").as_deref() == Ok(slot) {
        exit(number(code));
    }
    serve_ready();
}

/// Sleeps for ever and leaves its sockets alone.
fn never_ready() {
    sleep_for_ever();
}

/// Serves, and does not care for SIGTERM and SIGINT.
fn ignore_term() {
    ignore(&[Signal::SIGTERM, Signal::SIGINT]);
    ready();
    let (never_readable, _open) = UnixStream::pair().expect("socketpair");
    serve_until(&never_readable, &listeners(), poll_for);
}

/// Leaves a child that serves, and exits.
fn fork_and_die() {
    // Taken first, because LISTEN_PID is not the child's.
    let listeners = listeners();
    if is_child() {
        serve_until(&stop_signal(), &listeners, poll_for);
    }
}

/// Serves beside a grandchild that left the session, cannot be asked to stop, and holds the
/// sockets.
fn escape() {
    let listeners = listeners();
    spawn_escaped(sleep_for_ever);
    ready();
    serve_until(&stop_signal(), &listeners, poll_for);
}

/// The same with a grandchild that has an empty environment as well.
fn escape_clean() {
    let listeners = listeners();
    spawn_escaped(|| {
        for listener in &listeners {
            fcntl(listener, FcntlArg::F_SETFD(FdFlag::empty())).expect("fcntl");
        }
        let error = Command::new("/bin/sleep").arg("100000").env_clear().exec();
        panic!("cannot execute /bin/sleep: {error}");
    });
    ready();
    serve_until(&stop_signal(), &listeners, poll_for);
}

/// Serves beside processes that fork and exit, one after the other in a session of its own without
/// end (but for a minute at most), and does not care for SIGTERM as they do not.
fn fork_storm() {
    let listeners = listeners();
    ignore(&[Signal::SIGTERM]);
    for _ in 0..2 {
        if is_child() {
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_secs(60) {
                if !is_child() {
                    exit(0);
                }
                setsid().expect("setsid");
                sleep_ms(1);
            }
            exit(0);
        }
    }
    ready();
    let (never_readable, _open) = UnixStream::pair().expect("socketpair");
    serve_until(&never_readable, &listeners, poll_for);
}

/// Closes its sockets once it is ready and lives on, in one slot; serves in the others.
fn close_if_slot(slot: &str) {
    let listeners = listeners();
    ready();
    let closes = env::var("SHEPHERD_SLOT").as_deref() == Ok(slot);
    let kept = if closes {
        drop(listeners);
        Vec::new()
    } else {
        listeners
    };
    serve_until(&stop_signal(), &kept, poll_for);
}

/// Sends what no notification looks like, then a right one, and serves.
fn garbage() {
    let noise: Vec<u8> =
        (0..4096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (long, many) = (vec![b'x'; 100_000], b"A=1\n".repeat(10_000));
    let endless_status = [b"STATUS=".to_vec(), vec![b'y'; 60_000]].concat();
    let messages: [&[u8]; 14] = [
        &noise,
        &long,
        &many,
        &endless_status,
        b"",
        b"\n\n\n",
        b"\0READY=1",
        b"READ",
        b"READY=",
        b"READY=2",
        b" READY=1",
        b"ready=1",
        b"STATUS=\xff\xfe\xc3\x28",
        b"=\n==\nREADY",
    ];
    for message in messages {
        // The kernel refuses what is larger than the socket's buffer: that is fine.
        let _ = send(message, &[]);
    }
    let _ = send(b"WATCHDOG_USEC=18446744073709551616\nEXTEND_TIMEOUT_USEC=-1\nERRNO=x", &[]);
    let (_reader, writer) = pipe().expect("pipe");
    let _ = send(b"X=descriptors", &[writer.as_fd(), writer.as_fd(), writer.as_fd()]);
    sleep_ms(200);
    let _ = send(b"READY=1", &[]);
    serve();
}

/// Claims that others are its main process, then serves.
fn liar() {
    for pid in ["1", "-5", "99999999"] {
        notify(&format!("MAINPID={pid}"));
    }
    serve_ready();
}

/// Says `text` and serves.
fn status(text: &str) {
    notify(&format!("STATUS={text}\nREADY=1"));
    serve();
}

/// Serves; after `ms` it says that it stops, and does so 300 ms later.
fn stopping(ms: &str) {
    let ms = number(ms);
    ready();
    thread::spawn(move || {
        sleep_ms(ms);
        notify("STOPPING=1");
        sleep_ms(300);
        exit(0);
    });
    serve();
}

/// Takes 1.5 s to become ready and asks for more time all along, then serves.
fn extend() {
    for _ in 0..5 {
        notify("EXTEND_TIMEOUT_USEC=1000000");
        sleep_ms(300);
    }
    serve_ready();
}

/// Hands its place to a child that serves, and exits.
fn main_pid() {
    let listeners = listeners();
    // SAFETY: the process has one thread, so no lock is left held in the child.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Child => serve_until(&stop_signal(), &listeners, poll_for),
        ForkResult::Parent { child } => {
            notify(&format!("MAINPID={child}\nREADY=1"));
            sleep_ms(200);
        }
    }
}

/// Sends a barrier and says on stdout when it was passed, then serves.
fn barrier() {
    ready();
    let (reader, writer) = pipe().expect("pipe");
    send(b"BARRIER=1", &[writer.as_fd()]).expect("cannot send the barrier");
    drop(writer);
    let _ = fs::File::from(reader).read(&mut [0]);
    say("barrier done");
    serve();
}

/// Writes what it was given into `file`, then serves.
fn dump(file: &str) {
    let mut text = String::new();
    text += "[environment]\n";
    for (name, value) in env::vars_os() {
        let _ = writeln!(text, "{}={}", name.to_string_lossy(), value.to_string_lossy());
    }
    for section in ["status", "limits"] {
        let content = fs::read_to_string(format!("/proc/self/{section}")).unwrap_or_default();
        let _ = write!(text, "[{section}]\n{content}");
    }
    text += "[descriptors]\n";
    let entries = fs::read_dir("/proc/self/fd").expect("cannot list descriptors");
    let paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    for path in paths {
        // The descriptor that listed the directory is closed by this time.
        if let Ok(target) = fs::read_link(&path) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let _ = writeln!(text, "{name} {}", target.display());
        }
    }
    let directory = env::current_dir().unwrap_or_default();
    let _ = writeln!(text, "[directory]\n{}\n[arguments]", directory.display());
    for argument in env::args() {
        let _ = writeln!(text, "{argument}");
    }
    let _ = writeln!(text, "[ids]\npid {}\nparent {}", process::id(), getppid());
    let (session, group) = (getsid(None).expect("getsid"), getpgid(None).expect("getpgid"));
    let _ = writeln!(text, "session {session}\ngroup {group}");

    let unfinished = format!("{file}.tmp");
    fs::write(&unfinished, text).expect("cannot write");
    fs::rename(&unfinished, file).expect("cannot rename");
    serve_ready();
}

/// Serves, and stops itself as SIGSTOP does after 100 ms.
fn stop_self() {
    ready();
    thread::spawn(|| {
        sleep_ms(100);
        raise(Signal::SIGSTOP).expect("raise");
    });
    serve();
}

/// Never notifies; waits in `accept()`, with a thread for each socket.
fn accept_blocking() {
    let stop = stop_signal();
    for listener in listeners() {
        thread::spawn(move || {
            loop {
                match listener.accept(Blocking::Yes) {
                    Ok(stream) => answer(stream),
                    Err(error) => eprintln!("odd: cannot accept: {error}"),
                }
            }
        });
    }
    poll_for(&[stop.as_fd()]);
}

/// Never notifies; waits in `poll()`.
fn poll() {
    serve_until(&stop_signal(), &listeners(), poll_for);
}

/// Never notifies; waits in `select()`.
fn select() {
    serve_until(&stop_signal(), &listeners(), select_for);
}

/// Never notifies; waits in `epoll_wait()`.
fn epoll() {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("epoll_create1");
    let mut registered = 0;
    serve_until(&stop_signal(), &listeners(), |descriptors| {
        for (index, descriptor) in descriptors.iter().enumerate().skip(registered) {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, index as u64);
            epoll.add(descriptor, event).expect("epoll_ctl");
        }
        registered = descriptors.len();
        let mut events = [EpollEvent::empty(); 16];
        let count = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => 0,
            outcome => outcome.expect("epoll_wait"),
        };
        let readable = |index| events[..count].iter().any(|event| event.data() == index as u64);
        (0..descriptors.len()).map(readable).collect()
    });
}

/// Never touches its sockets, never notifies, and exits with 0 on SIGTERM.
fn alive() {
    Signals::new([SIGTERM]).expect("signal handler").forever().next();
}

/// Says `line` on stdout and on stderr, and serves.
fn log(line: &str) {
    say(line);
    // In one write: others write to the same place.
    io::stderr().write_all(format!("err {line}\n").as_bytes()).expect("stderr");
    serve_ready();
}

/// Serves, and leaves its sockets blocking or not as they are, except for one deed, done before it
/// is ready or so many ms after: `nothing`, `backlog=N`, `nonblocking`, `blocking`; `shutdown`,
/// `shutdown-close` (and serves no more) and `shutdown-loop` (every 5 ms) of its sockets,
/// `shutdown-on-term`; `unlink` of the paths of unix sockets.
fn meddle(deed: &str, after_ms: Option<u64>) {
    let stop = stop_signal();
    let listeners = listeners();
    thread::scope(|scope| {
        if after_ms.is_none() {
            do_to_all(&listeners, deed);
        }
        ready();
        if let Some(ms) = after_ms {
            let listeners = &listeners;
            scope.spawn(move || {
                sleep_ms(ms);
                do_to_all(listeners, deed);
            });
        }
        scope.spawn(|| {
            poll_for(&[stop.as_fd()]);
            if deed == "shutdown-on-term" {
                listeners.iter().for_each(Listener::shut_down);
            }
            // The other thread may be in accept() for ever, or finishing an answer.
            sleep_ms(200);
            exit(0);
        });
        serve_as_is(&stop, &listeners);
        if deed == "shutdown-on-term" {
            listeners.iter().for_each(Listener::shut_down);
        }
        exit(0);
    });
}

fn do_to_all(listeners: &[Listener], deed: &str) {
    for listener in listeners {
        let fd = listener.as_fd().as_raw_fd();
        match deed.split_once('=').unwrap_or((deed, "")) {
            ("nothing" | "shutdown-on-term", "") => {}
            ("backlog", backlog) => {
                let backlog = Backlog::new(number::<i32>(backlog)).expect("a backlog");
                nix::sys::socket::listen(listener, backlog).expect("listen");
            }
            ("nonblocking", "") => listener.set_mode(Blocking::No).expect("fcntl"),
            ("blocking", "") => listener.set_mode(Blocking::Yes).expect("fcntl"),
            ("shutdown", "") => listener.shut_down(),
            ("shutdown-close", "") => {
                listener.shut_down();
                nix::unistd::close(fd).expect("close");
            }
            ("shutdown-loop", "") => loop {
                listener.shut_down();
                sleep_ms(5);
            },
            ("unlink", "") => {
                let address: UnixAddr = nix::sys::socket::getsockname(fd).expect("getsockname");
                fs::remove_file(address.path().expect("a path")).expect("unlink");
            }
            _ => {
                eprintln!("odd: unknown deed: {deed}");
                exit(2);
            }
        }
    }
}

/// Serves until `stop` is readable, with sockets as blocking as they are. An accept that fails is
/// tried again a little later: the socket may have been shut down.
fn serve_as_is(stop: &UnixStream, listeners: &[Listener]) {
    let mut descriptors = vec![stop.as_fd()];
    descriptors.extend(listeners.iter().map(Listener::as_fd));
    loop {
        let readable = poll_for(&descriptors);
        if readable[0] {
            return;
        }
        for (listener, _) in iter::zip(listeners, &readable[1..]).filter(|(_, ready)| **ready) {
            match listener.accept_as_is() {
                Ok(stream) => answer(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => sleep_ms(1),
            }
        }
    }
}

/// A socket that was handed to this process.
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

#[derive(Clone, Copy)]
enum Blocking {
    Yes,
    No,
}

/// The stream sockets that were handed to this process, else one of its own.
fn listeners() -> Vec<Listener> {
    let mut given = ListenFd::from_env();
    if given.len() == 0 {
        return vec![Listener::Tcp(TcpListener::bind("127.0.0.1:8000").expect("cannot bind"))];
    }
    (0..given.len())
        .filter_map(|index| match given.take_tcp_listener(index) {
            Ok(tcp) => tcp.map(Listener::Tcp),
            Err(_not_tcp) => given.take_unix_listener(index).ok().flatten().map(Listener::Unix),
        })
        .collect()
}

impl Listener {
    /// The next connection. The flag is set each time because all who share the socket share it.
    fn accept(&self, blocking: Blocking) -> io::Result<TcpStream> {
        self.set_mode(blocking)?;
        self.accept_as_is()
    }

    fn set_mode(&self, blocking: Blocking) -> io::Result<()> {
        let nonblocking = matches!(blocking, Blocking::No);
        match self {
            Listener::Tcp(listener) => listener.set_nonblocking(nonblocking),
            Listener::Unix(listener) => listener.set_nonblocking(nonblocking),
        }
    }

    fn accept_as_is(&self) -> io::Result<TcpStream> {
        match self {
            Listener::Tcp(listener) => Ok(listener.accept()?.0),
            // Reading, writing and shutdown are the same calls for both kinds.
            Listener::Unix(listener) => Ok(TcpStream::from(OwnedFd::from(listener.accept()?.0))),
        }
    }

    /// Whether it had been already does not matter.
    fn shut_down(&self) {
        let both = nix::sys::socket::Shutdown::Both;
        let _ = nix::sys::socket::shutdown(self.as_fd().as_raw_fd(), both);
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

/// Is ready once it hears SIGTERM, and serves until that comes.
fn serve_ready() {
    let stop = stop_signal();
    ready();
    serve_until(&stop, &listeners(), poll_for);
}

/// Serves until SIGTERM.
fn serve() {
    serve_until(&stop_signal(), &listeners(), poll_for);
}

/// Serves until `stop` is readable. `wait` says which descriptors are.
fn serve_until(
    stop: &UnixStream,
    listeners: &[Listener],
    mut wait: impl FnMut(&[BorrowedFd<'_>]) -> Vec<bool>,
) {
    let mut descriptors = vec![stop.as_fd()];
    descriptors.extend(listeners.iter().map(Listener::as_fd));
    loop {
        let readable = wait(&descriptors);
        if readable[0] {
            return;
        }
        for (listener, _) in iter::zip(listeners, &readable[1..]).filter(|(_, ready)| **ready) {
            // Another worker may have been faster.
            if let Ok(stream) = listener.accept(Blocking::No) {
                answer(stream);
            }
        }
    }
}

fn poll_for(descriptors: &[BorrowedFd<'_>]) -> Vec<bool> {
    let entries = descriptors.iter().map(|descriptor| PollFd::new(*descriptor, PollFlags::POLLIN));
    let mut entries: Vec<_> = entries.collect();
    while nix::poll::poll(&mut entries, PollTimeout::NONE) == Err(Errno::EINTR) {}
    entries.iter().map(|entry| entry.any() == Some(true)).collect()
}

fn select_for(descriptors: &[BorrowedFd<'_>]) -> Vec<bool> {
    loop {
        let mut set = FdSet::new();
        for descriptor in descriptors {
            set.insert(*descriptor);
        }
        match nix::sys::select::select(None, &mut set, None, None, None) {
            Err(Errno::EINTR) => {}
            outcome => {
                outcome.expect("select");
                return descriptors.iter().map(|descriptor| set.contains(*descriptor)).collect();
            }
        }
    }
}

/// Answers one request, whatever it is, and closes the connection.
fn answer(mut stream: TcpStream) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let mut head = Vec::new();
    let mut bytes = [0; 2048];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 8192 {
        match stream.read(&mut bytes) {
            Ok(length @ 1..) => head.extend_from_slice(&bytes[..length]),
            // With a timeout a signal interrupts a read even under SA_RESTART, see signal(7).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return,
        }
    }
    let variable = |name, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let (version, pid) = (variable("VERSION", "dev"), process::id());
    let (slot, generation) = (variable("SHEPHERD_SLOT", "-"), variable("SHEPHERD_GENERATION", "-"));
    let body = format!("{version} {pid} {slot} {generation}\n");
    let length = body.len();
    let answer =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    let _ = stream.write_all(answer.as_bytes());
    let _ = stream.shutdown(Shutdown::Write);
    // Unread bytes would turn the close into a reset.
    let _ = stream.set_read_timeout(Some(Duration::from_millis(100)));
    let _ = stream.read(&mut bytes);
}

/// Becomes readable at the first SIGTERM.
fn stop_signal() -> UnixStream {
    let (receiver, sender) = UnixStream::pair().expect("socketpair");
    signal_hook::low_level::pipe::register(SIGTERM, sender).expect("signal handler");
    receiver
}

fn ready() {
    notify("READY=1");
}

fn notify(message: &str) {
    if let Err(error) = send(message.as_bytes(), &[]) {
        eprintln!("odd: cannot notify: {error}");
    }
}

/// Sends any bytes and descriptors to the notification socket, if there is one.
fn send(message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let Some(address) = env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let address = match address.as_bytes() {
        [b'@', name @ ..] => UnixAddr::new_abstract(name)?,
        path => UnixAddr::new(path)?,
    };
    let descriptors: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let rights = if descriptors.is_empty() { &[] } else { &rights[..] };
    let socket = UnixDatagram::unbound()?;
    let message = [IoSlice::new(message)];
    sendmsg(socket.as_raw_fd(), &message, rights, MsgFlags::empty(), Some(&address))?;
    Ok(())
}

/// Forks; true in the child. To be called before there is a second thread.
fn is_child() -> bool {
    // SAFETY: the process has one thread, so no lock is left held in the child.
    unsafe { fork() }.expect("fork").is_child()
}

/// Runs `body` in a grandchild: its parent is gone, its session is its own, and SIGTERM and
/// SIGHUP do not reach it.
fn spawn_escaped(body: impl FnOnce()) {
    if !is_child() {
        // The child in between exits at once.
        nix::sys::wait::wait().expect("wait");
        return;
    }
    setsid().expect("setsid");
    // It is born with this: whoever started us may send a signal as soon as there is somebody.
    ignore(&[Signal::SIGTERM, Signal::SIGHUP]);
    if !is_child() {
        exit(0);
    }
    body();
    exit(1);
}

fn ignore(signals: &[Signal]) {
    for ignored in signals {
        // SAFETY: SIG_IGN runs no code of ours.
        unsafe { signal(*ignored, SigHandler::SigIgn) }.expect("signal");
    }
}

fn sleep_for_ever() {
    loop {
        thread::park();
    }
}

fn sleep_ms(ms: u64) {
    thread::sleep(Duration::from_millis(ms));
}

fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn number<T: FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| {
        eprintln!("odd: not a number that fits: {text}");
        exit(2);
    })
}
