//! One probe of a worker over a connection: it connects to a socket of ours, sees who takes the
//! connection, asks what it has to ask, and reads the answer. It never waits, never says whether an
//! answer is good enough, and never reads a body.
//!
//! Workers may share their sockets, old generations included, so a connection can be taken by any of
//! them. The listener is ours, hence a connection is made whether or not anybody
//! serves: it waits in the queue. When it leaves that, the kernel gives it an inode, which is then
//! looked for among the descriptors of the worker that is meant. Only when it is there, or when it
//! cannot be seen where it is, anything is sent. One that another worker took is closed and made
//! again. A few are made at once after a while, since the kernel wakes the one that waits longest
//! for a single connection, and the next for the one behind it (`EPOLLEXCLUSIVE`, epoll_ctl(2)).
//!
//! To be driven by [`Probe::step`] whenever [`Probe::wake`] has come or a descriptor of
//! [`Probe::take_fresh`] is readable.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, UnixAddr, bind, connect,
    getpeername, getsockopt, recv, send, socket, sockopt,
};

use crate::core::event::{Finding, Garbled, Taker, Unseeable};
use crate::core::time::Time;
use crate::protocol::http_probe::{Broken, HEAD_MAX, ResponseReader, Verdict};

use super::holder::Has;
use super::local_address::LocalAddress;
use super::sock_diag::OtherEnd;

/// The pause after the first look at a connection that was just made; it grows by half each time.
const LOOK_FIRST: Duration = Duration::from_millis(1);

/// The longest pause between two looks: so much later a worker may be seen to be ready.
const LOOK_MAX: Duration = Duration::from_millis(25);

/// How many times connections are made, as long as others take them, and how many at once from which
/// time on: some 300 connections, enough to meet one worker of 100 in nearly every probe, and few
/// enough that those who take the others hardly notice.
const TRIES_MAX: u32 = 32;
const BURSTS: [(u32, usize); 3] = [(0, 1), (8, 4), (16, 16)];

/// A connection that is kept back for so long waits for data, not for its handshake.
const KEPT_BACK_MAX: Duration = Duration::from_millis(50);

/// How long a worker that has answered may take to send the rest and close. To close first would
/// reset the connection, which many servers log as an error.
const REST_WAIT: Duration = Duration::from_millis(100);

/// How many pieces of an answer are read in a turn.
const READS_MAX: usize = 8;

/// A connection of a probe, our end of it.
pub type Connection = OwnedFd;

/// What a probe sees of the world around its connections.
pub trait Witness {
    /// Where the other end of a connection is.
    ///
    /// # Errors
    ///
    /// The kernel does not tell.
    fn other_end(&mut self, connection: &Connection) -> io::Result<OtherEnd>;

    /// Whether the worker that is meant has the socket with this inode.
    fn has(&mut self, inode: u64) -> Has;

    /// Whether no other worker is there that could take a connection.
    fn is_alone(&mut self) -> bool;

    /// A connection from this port of ours, of IPv4 or IPv6, is about to be made.
    fn admit(&mut self, is_ipv4: bool, port: u16);
}

/// A probe under way.
#[derive(Debug)]
pub struct Probe {
    address: LocalAddress,
    /// What is sent once a connection is taken; without it, that it is taken is all.
    request: Option<Vec<u8>>,
    connections: Vec<Flight>,
    /// How many of `connections`, from the end, are not watched yet.
    fresh: usize,
    tries: u32,
    wake: Time,
    pause: Duration,
    saw: Finding,
}

/// What came of a step.
#[derive(Debug, Default)]
pub struct Step {
    /// The probe has ended with this.
    pub finding: Option<Finding>,
    /// Connections that somebody else has taken, with the inode at the other end.
    pub strays: Vec<(Connection, u64)>,
    /// Connections that are done with, to be closed once they are not watched any more.
    pub done: Vec<Connection>,
}

#[derive(Debug)]
struct Flight {
    fd: OwnedFd,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The handshake is under way.
    Connecting,
    /// Nobody is known to have taken it.
    Waiting {
        /// Since when it is kept back.
        kept_since: Option<Time>,
        /// Whether it was taken at the last look, and the worker did not have it: accept(2) gives
        /// the inode a moment before the descriptor.
        missed: bool,
    },
    /// The request is sent, as far as `unsent` is empty.
    Asked { unsent: Vec<u8>, taker: Option<Taker>, reader: ResponseReader },
    /// It was answered; the rest is read, and passed over.
    Answered { finding: Finding, until: Time, bytes: usize },
}

/// What becomes of a connection.
enum Next {
    Keep(Stage),
    /// It was to no avail, for this reason.
    Drop(Finding),
    Stray(u64),
    Done(Finding),
}

impl Probe {
    /// A probe that begins at `now`.
    #[must_use]
    pub fn new(now: Time, address: LocalAddress, request: Option<Vec<u8>>) -> Probe {
        Probe {
            address,
            request,
            connections: Vec::new(),
            fresh: 0,
            tries: 0,
            wake: now,
            pause: LOOK_FIRST,
            saw: Finding::NotTaken,
        }
    }

    /// When to step next, even when nothing is readable.
    #[must_use]
    pub fn wake(&self) -> Time {
        self.wake
    }

    /// Connections that are to be watched from here on.
    pub fn take_fresh(&mut self) -> impl Iterator<Item = &Connection> {
        let fresh = std::mem::take(&mut self.fresh);
        self.connections.iter().rev().take(fresh).map(|connection| &connection.fd)
    }

    /// All its connections.
    pub fn descriptors(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().map(|connection| &connection.fd)
    }

    /// What is to be said when the probe has to end.
    #[must_use]
    pub fn saw(&self) -> Finding {
        let asked = self.connections.iter().find_map(|connection| match &connection.stage {
            Stage::Asked { reader, .. } => Some(Finding::Unanswered { bytes: reader.bytes() }),
            Stage::Answered { finding, .. } => Some(finding.clone()),
            Stage::Connecting => Some(not_connected(&self.address, Errno::ETIMEDOUT)),
            Stage::Waiting { .. } => None,
        });
        asked.unwrap_or_else(|| self.saw.clone())
    }

    /// Takes a connection that was made for another worker and that the worker which is meant here
    /// has taken.
    pub fn adopt(&mut self, now: Time, fd: Connection) {
        let stage = Stage::Waiting { kept_since: None, missed: false };
        self.connections.push(Flight { fd, stage });
        self.fresh += 1;
        self.wake = now;
    }

    /// Does what can be done without waiting.
    pub fn step(&mut self, now: Time, witness: &mut impl Witness) -> Step {
        let mut step = Step::default();
        if self.connections.is_empty() {
            self.launch(witness, &mut step);
        }
        if step.finding.is_none() {
            self.advance_all(now, witness, &mut step);
        }
        if self.connections.is_empty() && step.finding.is_none() {
            if self.tries >= TRIES_MAX {
                step.finding = Some(self.saw.clone());
            } else {
                self.pause = LOOK_FIRST;
            }
        }
        self.wake = now + self.pause;
        self.pause = (self.pause * 3 / 2).min(LOOK_MAX);
        step
    }

    fn advance_all(&mut self, now: Time, witness: &mut impl Witness, step: &mut Step) {
        let fresh_from = self.connections.len() - self.fresh;
        let mut fresh = 0;
        let mut asked = false;
        let connections = std::mem::take(&mut self.connections);
        for (index, Flight { fd, stage }) in connections.into_iter().enumerate() {
            // One that is asked is enough.
            if step.finding.is_some() || asked && matches!(stage, Stage::Waiting { .. }) {
                step.done.push(fd);
                continue;
            }
            match self.advance(now, &fd, stage, witness) {
                Next::Keep(stage) => {
                    asked |= matches!(stage, Stage::Asked { .. } | Stage::Answered { .. });
                    fresh += usize::from(index >= fresh_from);
                    self.connections.push(Flight { fd, stage });
                }
                Next::Drop(saw) => {
                    self.saw = saw;
                    step.done.push(fd);
                }
                Next::Stray(inode) => {
                    self.saw = Finding::TakenByOthers;
                    step.strays.push((fd, inode));
                }
                Next::Done(finding) => {
                    step.done.push(fd);
                    step.finding = Some(finding);
                }
            }
        }
        self.fresh = fresh;
        if step.finding.is_some() {
            step.done.extend(self.connections.drain(..).map(|connection| connection.fd));
            self.fresh = 0;
        }
    }

    /// Makes connections anew, after those before were taken by others or came to nothing.
    fn launch(&mut self, world: &mut impl Witness, step: &mut Step) {
        let burst = BURSTS.iter().rev().find(|(from, _)| *from <= self.tries);
        let count = burst.map_or(1, |(_, count)| *count);
        self.tries += 1;
        self.pause = LOOK_FIRST;
        for _ in 0..count {
            match begin(&self.address, world) {
                Ok(connection) => {
                    self.connections.push(connection);
                    self.fresh += 1;
                }
                Err(errno) => {
                    self.saw = not_connected(&self.address, errno);
                    if self.connections.is_empty() {
                        step.finding = Some(self.saw.clone());
                    }
                    return;
                }
            }
        }
    }

    fn advance(&self, now: Time, fd: &OwnedFd, stage: Stage, witness: &mut impl Witness) -> Next {
        match stage {
            Stage::Connecting => match connected(fd) {
                Ok(true) => self.wait(now, fd, None, false, witness),
                Ok(false) => Next::Keep(Stage::Connecting),
                Err(errno) => Next::Done(not_connected(&self.address, errno)),
            },
            Stage::Waiting { kept_since, missed } => {
                self.wait(now, fd, kept_since, missed, witness)
            }
            Stage::Asked { unsent, taker, reader } => {
                converse(now, fd, unsent, taker, reader, witness)
            }
            Stage::Answered { finding, until, bytes } => {
                let (read, end) = pass_over(fd);
                let bytes = bytes + read;
                if end != End::NotYet || until <= now || bytes >= HEAD_MAX {
                    Next::Done(finding)
                } else {
                    Next::Keep(Stage::Answered { finding, until, bytes })
                }
            }
        }
    }

    /// Looks who has taken the connection.
    fn wait(
        &self,
        now: Time,
        fd: &OwnedFd,
        kept_since: Option<Time>,
        missed: bool,
        witness: &mut impl Witness,
    ) -> Next {
        let waiting = |kept_since, missed| Next::Keep(Stage::Waiting { kept_since, missed });
        let inode = match witness.other_end(fd) {
            Ok(OtherEnd::Taken(inode)) => inode,
            Ok(OtherEnd::Queued) => return waiting(None, false),
            Ok(OtherEnd::KeptBack) => {
                let since = kept_since.unwrap_or(now);
                if now.since(since) < KEPT_BACK_MAX {
                    return waiting(Some(since), false);
                }
                return match self.request {
                    Some(_) => self.ask(now, fd, None, witness),
                    None => Next::Done(Finding::Unseeable(Unseeable::Deferred)),
                };
            }
            // A listener that is closed resets what waits in its queue, so an orderly end comes
            // from a process that took the connection.
            Ok(OtherEnd::Closed) => {
                let orderly = pass_over(fd).1 == End::Orderly;
                return if self.request.is_none() && orderly && witness.is_alone() {
                    Next::Done(Finding::TookConnection(Taker::Itself))
                } else {
                    Next::Drop(Finding::CutOff)
                };
            }
            Err(_) => {
                let taker = if witness.is_alone() { Taker::Itself } else { Taker::Unseen };
                return match self.request {
                    Some(_) => self.ask(now, fd, Some(taker), witness),
                    None => Next::Done(Finding::Unseeable(Unseeable::NoDiagnosis)),
                };
            }
        };
        let taker = match witness.has(inode) {
            Has::Yes => Taker::Itself,
            Has::No if missed => return Next::Stray(inode),
            Has::No => return waiting(kept_since, true),
            Has::Unseen if witness.is_alone() => Taker::Itself,
            Has::Unseen => Taker::Unseen,
        };
        match self.request {
            Some(_) => self.ask(now, fd, Some(taker), witness),
            None => Next::Done(Finding::TookConnection(taker)),
        }
    }

    fn ask(
        &self,
        now: Time,
        fd: &OwnedFd,
        taker: Option<Taker>,
        witness: &mut impl Witness,
    ) -> Next {
        let unsent = self.request.clone().unwrap_or_default();
        converse(now, fd, unsent, taker, ResponseReader::default(), witness)
    }
}

/// Sends what is left of the request and reads what there is of the response.
fn converse(
    now: Time,
    fd: &OwnedFd,
    mut unsent: Vec<u8>,
    mut taker: Option<Taker>,
    mut reader: ResponseReader,
    witness: &mut impl Witness,
) -> Next {
    if !unsent.is_empty() {
        match send(fd.as_raw_fd(), &unsent, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT) {
            Ok(sent) => drop(unsent.drain(..sent)),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // What it said before it closed counts.
            Err(_) => unsent.clear(),
        }
    }
    // Before the answer is read: afterwards the other end may be closed.
    let mut taken_by_other = false;
    if taker.is_none()
        && let Ok(OtherEnd::Taken(inode)) = witness.other_end(fd)
    {
        match witness.has(inode) {
            Has::Yes => taker = Some(Taker::Itself),
            Has::No => taken_by_other = true,
            Has::Unseen => {}
        }
    }
    let mut buffer = [0; 4096];
    for _ in 0..READS_MAX {
        let ended = match recv(fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => true,
            Ok(length) => {
                reader.feed(buffer.get(..length).unwrap_or_default());
                false
            }
            Err(Errno::EAGAIN) => break,
            Err(Errno::EINTR) => false,
            Err(_) => true,
        };
        match reader.verdict() {
            // Who has answered has had the descriptor for a while.
            Verdict::Status(_) if taken_by_other => return Next::Drop(Finding::TakenByOthers),
            Verdict::Status(status) => {
                let unknown = || if witness.is_alone() { Taker::Itself } else { Taker::Unseen };
                let by = taker.unwrap_or_else(unknown);
                let finding = Finding::Answered { status, by };
                let bytes = reader.bytes();
                return if ended || pass_over(fd).1 != End::NotYet {
                    Next::Done(finding)
                } else {
                    Next::Keep(Stage::Answered { finding, until: now + REST_WAIT, bytes })
                };
            }
            Verdict::Broken(Broken::Tls) => return Next::Done(Finding::Garbled(Garbled::Tls)),
            Verdict::Broken(Broken::NotHttp) => {
                return Next::Done(Finding::Garbled(Garbled::NotHttp));
            }
            Verdict::Broken(Broken::TooLong) => {
                return Next::Done(Finding::Garbled(Garbled::HeadTooLong));
            }
            Verdict::More if ended && reader.bytes() == 0 => return Next::Done(Finding::CutOff),
            Verdict::More if ended => return Next::Done(Finding::Garbled(Garbled::Cut)),
            Verdict::More => {}
        }
    }
    Next::Keep(Stage::Asked { unsent, taker, reader })
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    NotYet,
    /// The other end was closed.
    Orderly,
    /// It was reset.
    Broken,
}

/// Reads what there is and forgets it. Gives how much that was, and whether it was the end.
fn pass_over(fd: &OwnedFd) -> (usize, End) {
    let mut buffer = [0; 4096];
    let mut bytes = 0;
    for _ in 0..READS_MAX {
        match recv(fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return (bytes, End::Orderly),
            Ok(length) => bytes += length,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return (bytes, End::NotYet),
            Err(_) => return (bytes, End::Broken),
        }
    }
    (bytes, End::NotYet)
}

fn begin(address: &LocalAddress, world: &mut impl Witness) -> Result<Flight, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let open = |family| socket(family, SockType::Stream, flags, None);
    let (fd, result) = match (address.reachable(), address) {
        (Some(address), _) => {
            let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
            let fd = open(family)?;
            // It has its port before it connects, so that it can be let through to a socket that
            // gets no connections yet.
            let any: IpAddr = match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(any, 0)))?;
            if let Some(from) = LocalAddress::of(&fd)?.and_then(|from| from.port()) {
                world.admit(address.is_ipv4(), from);
            }
            let result = connect(fd.as_raw_fd(), &SockaddrStorage::from(address));
            (fd, result)
        }
        (None, LocalAddress::Unix(path)) => {
            let fd = open(AddressFamily::Unix)?;
            let result = connect(fd.as_raw_fd(), &UnixAddr::new(path)?);
            (fd, result)
        }
        (None, LocalAddress::Abstract(name)) => {
            let fd = open(AddressFamily::Unix)?;
            let result = connect(fd.as_raw_fd(), &UnixAddr::new_abstract(name)?);
            (fd, result)
        }
        (None, LocalAddress::DualStack(_) | LocalAddress::Ip(_)) => {
            return Err(Errno::EADDRNOTAVAIL);
        }
    };
    let stage = match result {
        Ok(()) => Stage::Waiting { kept_since: None, missed: false },
        Err(Errno::EINPROGRESS) => Stage::Connecting,
        // Of a unix socket: the listener's queue is full, and it will not be told when it is not.
        Err(errno) => return Err(errno),
    };
    Ok(Flight { fd, stage })
}

/// Whether a handshake is done, connect(2).
fn connected(fd: &OwnedFd) -> Result<bool, Errno> {
    match getsockopt(fd, sockopt::SocketError)? {
        0 => Ok(getpeername::<SockaddrStorage>(fd.as_fd().as_raw_fd()).is_ok()),
        number => Err(Errno::from_raw(number)),
    }
}

fn not_connected(address: &LocalAddress, errno: Errno) -> Finding {
    // The address as the probe uses it.
    let address =
        address.reachable().map_or_else(|| address.to_string(), |address| address.to_string());
    let cause = match errno {
        // connect(2) says so of a unix socket.
        Errno::EAGAIN => "its queue is full",
        errno => errno.desc(),
    };
    Finding::NotConnected(format!("{address}: {cause}"))
}

#[cfg(test)]
mod tests;
