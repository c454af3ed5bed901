//! What the load client saw, and how it says that something went wrong.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::latency::Latencies;
use crate::harness::{Address, Response};

/// Failures that are kept with all their detail; more are counted only.
const FAILURES_KEPT: usize = 1_000;
/// Failures that are printed.
const FAILURES_SHOWN: usize = 20;

/// A kind of client without its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KindName {
    New,
    KeptAlive,
    Slow,
    Hesitant,
    Visit,
    Stream,
}

/// Which request on its connection it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exchange {
    First,
    /// One before it was answered on the same connection.
    Reused,
}

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Nobody listens.
    Refused,
    /// Reset during the handshake, or before connect returned.
    ConnectReset,
    ConnectTimeout,
    /// Connect failed for a reason of the client's own machine: no descriptors, no ports.
    ConnectOther,
    /// The server took the request, or could have, and closed without a byte.
    EofBeforeResponse(Exchange),
    ResetBeforeResponse(Exchange),
    /// A connection without a request on it was reset. No request is lost, but no server that
    /// closes in good order does this.
    ResetWhileIdle,
    /// The response began and was cut, by an end of file, a reset or the timeout.
    Partial,
    /// No byte of the response in time.
    Timeout,
    BadStatus,
    /// Not the words we expect, not of the length that was promised, or bytes nobody asked for.
    BadBody,
}

#[derive(Clone, Debug)]
pub struct Failure {
    /// Since the start of the load.
    pub at: Duration,
    pub kind: KindName,
    pub class: Class,
    /// Bytes that were received, or the error.
    pub context: String,
    pub local_port: Option<u16>,
    /// Who gave the previous answer on the connection.
    pub pid: Option<i32>,
}

#[derive(Clone, Debug)]
pub struct Report {
    pub address: Address,
    pub duration: Duration,
    /// Whole and right responses.
    pub ok: BTreeMap<KindName, u64>,
    pub versions: BTreeMap<String, u64>,
    pub pids: BTreeMap<i32, u64>,
    pub slots: BTreeMap<String, u64>,
    pub generations: BTreeMap<String, u64>,
    /// From before connect, or before the write on a connection that was open, to the last byte.
    pub latencies: BTreeMap<KindName, Latencies>,
    pub connections: u64,
    /// Kept-alive connections that the server ended between two requests.
    pub reconnects: u64,
    /// Among them those that it ended while our request was on its way, as the kernel proves.
    pub crossed: u64,
    /// Connects of 900 ms and more: a lost SYN is sent again after 1 s.
    pub slow_connects: u64,
    pub failures: BTreeMap<Class, u64>,
    /// The first of them.
    pub failures_kept: Vec<Failure>,
}

impl Report {
    pub(super) fn new(address: Address) -> Report {
        Report {
            address,
            duration: Duration::ZERO,
            ok: BTreeMap::new(),
            versions: BTreeMap::new(),
            pids: BTreeMap::new(),
            slots: BTreeMap::new(),
            generations: BTreeMap::new(),
            latencies: BTreeMap::new(),
            connections: 0,
            reconnects: 0,
            crossed: 0,
            slow_connects: 0,
            failures: BTreeMap::new(),
            failures_kept: Vec::new(),
        }
    }

    pub(super) fn add_ok(&mut self, kind: KindName, response: Response, latency: Duration) {
        *self.ok.entry(kind).or_default() += 1;
        *self.versions.entry(response.version).or_default() += 1;
        *self.pids.entry(response.pid).or_default() += 1;
        *self.slots.entry(response.slot).or_default() += 1;
        *self.generations.entry(response.generation).or_default() += 1;
        self.latencies.entry(kind).or_default().add(latency);
    }

    pub(super) fn add_failure(&mut self, failure: Failure) {
        *self.failures.entry(failure.class).or_default() += 1;
        if self.failures_kept.len() < FAILURES_KEPT {
            self.failures_kept.push(failure);
        }
    }

    pub fn ok_total(&self) -> u64 {
        self.ok.values().sum()
    }

    pub fn failures_total(&self) -> u64 {
        self.failures.values().sum()
    }

    pub fn failed(&self, class: Class) -> u64 {
        self.failures.get(&class).copied().unwrap_or(0)
    }

    /// Fails the test unless every request was answered. That there was an answer at all counts:
    /// a load that asked nothing has shown nothing.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(self.failures.is_empty(), "requests failed\n{self}");
        assert!(self.ok_total() > 0, "no request was answered\n{self}");
    }

    /// Clean but for classes that the server in question, and not its supervisor, is to blame for.
    /// A server that closes idle connections at once when it is asked to stop may close over a
    /// request that came a moment before: `ResetBeforeResponse(Exchange::Reused)`.
    #[track_caller]
    pub fn assert_clean_except(&self, forgiven: &[Class]) {
        let others = self.failures.keys().find(|class| !forgiven.contains(class));
        assert!(others.is_none(), "requests failed, not only by {forgiven:?}\n{self}");
        assert!(self.ok_total() > 0, "no request was answered\n{self}");
    }

    /// Clean, and no connect waited for a second SYN: for tests on queues that must not overflow.
    #[track_caller]
    pub fn assert_clean_and_quick(&self) {
        self.assert_clean();
        assert!(self.slow_connects == 0, "connects were slow\n{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.duration.as_secs_f64();
        writeln!(f, "load on {} for {seconds:.3} s: {} ok", self.address, self.ok_total())?;
        for (kind, count) in &self.ok {
            let latencies = self.latencies.get(kind).cloned().unwrap_or_default();
            writeln!(f, "  {:<12}{count:>8} ok, {latencies:?}", format!("{kind:?}"))?;
        }
        writeln!(
            f,
            "  connections {}, reconnects {} (crossed {}), slow connects {}",
            self.connections, self.reconnects, self.crossed, self.slow_connects
        )?;
        writeln!(f, "  versions {:?}", self.versions)?;
        writeln!(f, "  generations {:?}", self.generations)?;
        writeln!(f, "  slots {:?}", self.slots)?;
        writeln!(f, "  pids {:?}", self.pids)?;
        if self.failures.is_empty() {
            return writeln!(f, "  no failures");
        }
        writeln!(f, "  {} failures {:?}", self.failures_total(), self.failures)?;
        writeln!(
            f,
            "  {:>9} {:<10} {:<29} {:>5} {:>8} context",
            "s", "kind", "class", "port", "pid"
        )?;
        for failure in self.failures_kept.iter().take(FAILURES_SHOWN) {
            let dash = || "-".to_owned();
            writeln!(
                f,
                "  {:>9.3} {:<10} {:<29} {:>5} {:>8} {}",
                failure.at.as_secs_f64(),
                format!("{:?}", failure.kind),
                format!("{:?}", failure.class),
                failure.local_port.map_or_else(dash, |port| port.to_string()),
                failure.pid.map_or_else(dash, |pid| pid.to_string()),
                failure.context,
            )?;
        }
        Ok(())
    }
}
