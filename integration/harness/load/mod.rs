//! The strict load client: a closed loop of blocking clients that send each request once and
//! forgive nothing, except what no server can help.
//!
//! A server may close a kept-alive connection when it likes. A client that notices before it wrote
//! a byte of the next request has lost nothing and connects again: a reconnect. So the client
//! watches its connection while it thinks, and looks once more before it writes. Between this last
//! look and the arrival of the request there remains a moment; if the close falls into it, the
//! kernel can tell (see `Connection::close_came_first`), and the request counts as `crossed`, which
//! is a reconnect and not a failure. A server that closes over a request that has reached it, read
//! or unread, has lost it: that is a failure, even if it had no way to know.
//!
//! Every connection that is closed by the client first keeps its port for a minute. `New` and
//! `Slow` therefore ask with `Connection: close` and read to the end of file, so that the server
//! closes first, and all `New` clients together start at most `Limits::new_per_second`.

mod client;
mod datagrams;
mod latency;
mod report;

use std::{
    io,
    ops::Range,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::{
        eventfd::{EfdFlags, EventFd},
        time::TimeSpec,
    },
};

pub use datagrams::{EchoReport, Echoes};
pub use report::{Class, Exchange, Failure, KindName, Report};

use super::{Address, DEADLINE, eventually_within};

/// A way to use a server.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A connection for each request.
    New,
    /// One request at a time on a connection that is kept; pauses of a length from `think` between
    /// an answer and the next request.
    KeptAlive { think: Range<Duration> },
    /// A connection for each request, which takes the worker this long.
    Slow { ms: u64 },
    /// A connection for each request, which comes in pieces: a pause after connect, and one between
    /// any two pieces.
    Hesitant { pause: Duration },
    /// Kept alive for so many requests, with pauses as above, and then closed by the client.
    Visit { think: Range<Duration>, requests: u32 },
    /// A connection for each request, whose answer takes this long and comes all along.
    Stream { length: Duration },
}

impl Kind {
    /// Kept alive until the server closes, with pauses that let most connections be idle when
    /// something happens.
    pub fn kept_alive() -> Kind {
        Kind::KeptAlive { think: THINK }
    }

    /// The same for so many requests.
    pub fn visit(requests: u32) -> Kind {
        Kind::Visit { think: THINK, requests }
    }

    /// How long an answer takes that comes in good order; of those that are said to take long.
    fn answer_time(&self) -> Duration {
        match self {
            Kind::Stream { length } => *length,
            Kind::Slow { ms } => Duration::from_millis(*ms),
            Kind::New | Kind::KeptAlive { .. } | Kind::Hesitant { .. } | Kind::Visit { .. } => {
                Duration::ZERO
            }
        }
    }

    pub fn name(&self) -> KindName {
        match self {
            Kind::New => KindName::New,
            Kind::KeptAlive { .. } => KindName::KeptAlive,
            Kind::Slow { .. } => KindName::Slow,
            Kind::Hesitant { .. } => KindName::Hesitant,
            Kind::Visit { .. } => KindName::Visit,
            Kind::Stream { .. } => KindName::Stream,
        }
    }
}

/// The pauses of a client that thinks: long enough that most connections are idle at any moment.
const THINK: Range<Duration> = Duration::from_millis(2)..Duration::from_millis(30);

/// What bounds a load.
#[derive(Clone, Debug)]
pub struct Limits {
    /// For connect, and again from the write to the last byte of the response.
    pub timeout: Duration,
    /// A connect of this length has lost a SYN, which is sent again after 1 s.
    pub slow_connect: Duration,
    /// How many connections all `New` clients together begin in a second. The default leaves two
    /// processors to the workers and to other tests; 1500 is the most that leaves enough ports if
    /// the server does not close first now and then.
    pub new_per_second: u32,
    /// How long a client rests after a failure, so that a dead server does not cost a processor.
    pub rest: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            timeout: Duration::from_secs(10),
            slow_connect: Duration::from_millis(900),
            new_per_second: 400,
            rest: Duration::from_millis(20),
        }
    }
}

/// A load that runs until it is stopped or dropped.
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

/// What the clients of a load have in common.
struct Shared {
    address: Address,
    limits: Limits,
    started: Instant,
    report: Mutex<Report>,
    stop: EventFd,
}

impl Load {
    pub fn start(
        address: impl Into<Address>,
        clients: impl IntoIterator<Item = (Kind, usize)>,
    ) -> Load {
        Load::start_with(Limits::default(), address, clients)
    }

    pub fn start_with(
        limits: Limits,
        address: impl Into<Address>,
        clients: impl IntoIterator<Item = (Kind, usize)>,
    ) -> Load {
        let address = address.into().reachable();
        let clients: Vec<(Kind, usize)> = clients.into_iter().collect();
        let new_clients: usize = clients
            .iter()
            .filter(|(kind, _)| kind.name() == KindName::New)
            .map(|pair| pair.1)
            .sum();
        let shared = Arc::new(Shared {
            report: Mutex::new(Report::new(address.clone())),
            address,
            limits,
            started: Instant::now(),
            stop: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
                .expect("an eventfd"),
        });
        let mut load = Load { shared, clients: Vec::new() };
        for kind in clients.into_iter().flat_map(|(kind, count)| std::iter::repeat_n(kind, count)) {
            let number = load.clients.len();
            let shared = Arc::clone(&load.shared);
            let thread = thread::Builder::new()
                .name(format!("load-{number}"))
                .stack_size(256 * 1024)
                .spawn(move || client::run(&shared, &kind, number, new_clients));
            load.clients.push(thread.expect("a thread for a client"));
        }
        load
    }

    /// Lets each client finish its request, and gives what they saw.
    pub fn stop(mut self) -> Report {
        self.finish();
        self.snapshot()
    }

    pub fn snapshot(&self) -> Report {
        let mut report = self.shared.report().clone();
        report.duration = self.shared.started.elapsed();
        report
    }

    /// Waits until `condition` holds for what was seen since the start.
    #[track_caller]
    pub fn wait(&self, what: &str, condition: impl Fn(&Report) -> bool) {
        let seen = eventually_within(DEADLINE, || condition(&self.shared.report()).then_some(()));
        assert!(seen.is_some(), "waited {DEADLINE:?} in vain for {what}\n{}", self.snapshot());
    }

    /// Waits until some answer was from this version.
    #[track_caller]
    pub fn wait_version(&self, version: &str) {
        self.wait(&format!("an answer from version {version}"), |report| {
            report.versions.contains_key(version)
        });
    }

    /// Waits until `count` more requests were answered.
    #[track_caller]
    pub fn wait_ok(&self, count: u64) {
        let wanted = self.shared.report().ok_total() + count;
        self.wait(&format!("{count} more answers"), |report| report.ok_total() >= wanted);
    }

    fn finish(&mut self) {
        self.shared.stop.write(1).expect("an eventfd takes a number");
        for client in self.clients.drain(..) {
            let joined = client.join();
            assert!(joined.is_ok() || thread::panicking(), "a load client panicked");
        }
        self.shared.report().duration = self.shared.started.elapsed();
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if !self.clients.is_empty() {
            if thread::panicking() {
                eprintln!("{}", self.snapshot());
            }
            self.finish();
        }
    }
}

/// Why a pause ended.
enum Woken {
    Elapsed,
    Readable,
    Stopped,
}

impl Shared {
    fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pause that is part of the load; it ends early with the load, or when the connection has
    /// something to say.
    fn pause(&self, length: Duration, watched: Option<BorrowedFd<'_>>) -> Woken {
        let end = Instant::now() + length;
        let mut fds = vec![PollFd::new(self.stop.as_fd(), PollFlags::POLLIN)];
        fds.extend(watched.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match ppoll(&mut fds, Some(TimeSpec::from_duration(left)), None) {
                Ok(0) => return Woken::Elapsed,
                Ok(_) => {}
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => panic!("cannot poll: {}", io::Error::from(error)),
            }
            let stopped = fds[0].revents().is_some_and(|events| !events.is_empty());
            return if stopped { Woken::Stopped } else { Woken::Readable };
        }
    }
}
