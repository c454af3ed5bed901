//! Sends numbered datagrams at a pace, whether or not they are answered, and counts what comes back:
//! each one's echo has the words of a worker before it. Loopback loses none on its way, so one
//! without an echo was lost by a worker or with a socket.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::{self, ErrorKind},
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};

use crate::harness::{DEADLINE, eventually_within};

/// Clients, each with a port of its own: they take turns.
const CLIENTS: usize = 4;
/// How long after the last datagram its echo may come.
const LAST_ECHO: Duration = Duration::from_secs(5);

/// What became of the datagrams.
#[derive(Clone, Debug, Default)]
pub struct EchoReport {
    pub sent: u64,
    pub echoed: u64,
    /// Echoes of each generation and worker.
    pub generations: BTreeMap<String, u64>,
    pub pids: BTreeMap<i32, u64>,
    /// The host said that nobody receives there.
    pub refused: u64,
    /// What came is no echo of ours, or came a second time.
    pub strange: u64,
}

impl EchoReport {
    /// Those without an echo; while the load runs, some may be on their way.
    pub fn lost(&self) -> u64 {
        self.sent - self.echoed
    }

    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(self.lost() == 0 && self.refused == 0 && self.strange == 0, "{self}");
        assert!(self.sent > 0, "nothing was sent");
    }
}

impl fmt::Display for EchoReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EchoReport { sent, echoed, generations, pids, refused, strange } = self;
        let lost = self.lost();
        writeln!(f, "{sent} datagrams sent, {echoed} echoed, {lost} lost, {refused} refused")?;
        writeln!(f, "  {strange} strange, generations {generations:?}, pids {pids:?}")
    }
}

/// A load that runs until it is stopped or dropped.
pub struct Echoes {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    report: Mutex<EchoReport>,
    stopping: AtomicBool,
}

impl Echoes {
    /// Sends one each `pace`.
    pub fn start(to: SocketAddr, pace: Duration) -> Echoes {
        let shared = Arc::new(Shared::default());
        let any = if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let client = |_| {
            let client = UdpSocket::bind(any).expect("a socket");
            client.connect(to).expect("a destination");
            client.set_nonblocking(true).expect("a socket");
            client
        };
        let clients: Vec<UdpSocket> = (0..CLIENTS).map(client).collect();
        let theirs = Arc::clone(&shared);
        let thread = Some(thread::spawn(move || run(&theirs, &clients, pace)));
        Echoes { shared, thread }
    }

    /// Waits until `count` more were echoed.
    #[track_caller]
    pub fn wait_echoed(&self, count: u64) {
        let wanted = self.shared.report().echoed + count;
        let seen = || (self.shared.report().echoed >= wanted).then_some(());
        let seen = eventually_within(DEADLINE, seen);
        assert!(seen.is_some(), "waited in vain for {count} more echoes\n{}", self.shared.report());
    }

    pub fn snapshot(&self) -> EchoReport {
        self.shared.report().clone()
    }

    /// Waits for the last echoes, and gives what was seen.
    pub fn stop(mut self) -> EchoReport {
        self.finish();
        self.shared.report().clone()
    }

    fn finish(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let joined = thread.join();
            assert!(joined.is_ok() || thread::panicking(), "the client of datagrams panicked");
        }
    }
}

impl Drop for Echoes {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.shared.report());
        }
        self.finish();
    }
}

impl Shared {
    fn report(&self) -> MutexGuard<'_, EchoReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run(shared: &Shared, clients: &[UdpSocket], pace: Duration) {
    let mut unanswered = BTreeSet::new();
    let mut turns = (0_u64..).zip(clients.iter().cycle());
    let mut due = Instant::now();
    while !shared.stopping.load(Ordering::Relaxed) {
        let (number, client) = turns.next().expect("numbers do not end");
        match client.send(number.to_string().as_bytes()) {
            Ok(_) => {
                unanswered.insert(number);
                shared.report().sent += 1;
            }
            Err(error) => judge(shared, &error),
        }
        due += pace;
        receive_until(shared, clients, &mut unanswered, due, Until::Time);
    }
    let end = Instant::now() + LAST_ECHO;
    receive_until(shared, clients, &mut unanswered, end, Until::AllAnswered);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Time,
    AllAnswered,
}

/// Takes in what comes until a time, or until nothing is to come.
fn receive_until(
    shared: &Shared,
    clients: &[UdpSocket],
    unanswered: &mut BTreeSet<u64>,
    end: Instant,
    until: Until,
) {
    while until == Until::Time || !unanswered.is_empty() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        let fds = clients.iter().map(|client| PollFd::new(client.as_fd(), PollFlags::POLLIN));
        let mut fds: Vec<PollFd<'_>> = fds.collect();
        match ppoll(&mut fds, Some(TimeSpec::from_duration(left)), None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => panic!("cannot poll: {}", io::Error::from(error)),
        }
        for client in clients {
            receive(shared, client, unanswered);
        }
    }
}

/// Takes in all that a client has.
fn receive(shared: &Shared, client: &UdpSocket, unanswered: &mut BTreeSet<u64>) {
    let mut bytes = [0; 2048];
    loop {
        match client.recv(&mut bytes) {
            Ok(length) => {
                let text = String::from_utf8_lossy(&bytes[..length]);
                let words: Vec<&str> = text.split_ascii_whitespace().collect();
                let mut report = shared.report();
                if let [_version, pid, _slot, generation, number] = words[..]
                    && number.parse().is_ok_and(|number: u64| unanswered.remove(&number))
                {
                    report.echoed += 1;
                    *report.generations.entry(generation.to_owned()).or_default() += 1;
                    *report.pids.entry(pid.parse().unwrap_or(0)).or_default() += 1;
                } else {
                    report.strange += 1;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => return judge(shared, &error),
        }
    }
}

/// A connected socket hears of datagrams that nobody received at its next call.
fn judge(shared: &Shared, error: &io::Error) {
    match error.kind() {
        ErrorKind::ConnectionRefused => shared.report().refused += 1,
        ErrorKind::Interrupted | ErrorKind::WouldBlock => {}
        _ => panic!("cannot send or receive a datagram: {error}"),
    }
}
