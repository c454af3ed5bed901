//! Probes of listeners in this process, with a witness that says what the test wants.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;

use proptest::prelude::*;

use super::*;
use crate::protocol::http_probe;

/// Who has a connection is asked of a real kernel, unless the test knows better.
struct Fake {
    has: Has,
    alone: bool,
    other_end: Option<fn() -> io::Result<OtherEnd>>,
    diagnosis: super::super::sock_diag::SockDiag,
}

impl Fake {
    fn new(has: Has, alone: bool) -> Fake {
        let diagnosis = super::super::sock_diag::SockDiag::open().expect("this kernel has it");
        Fake { has, alone, other_end: None, diagnosis }
    }
}

impl Witness for Fake {
    fn other_end(&mut self, connection: &Connection) -> io::Result<OtherEnd> {
        match self.other_end {
            Some(answer) => answer(),
            None => self.diagnosis.other_end(connection),
        }
    }

    fn has(&mut self, _inode: u64) -> Has {
        self.has
    }

    fn is_alone(&mut self) -> bool {
        self.alone
    }

    fn admit(&mut self, _is_ipv4: bool, _port: u16) {}
}

/// A probe and its virtual clock.
struct Run {
    probe: Probe,
    now: Time,
    fake: Fake,
    strays: usize,
}

impl Run {
    fn new(listener: &TcpListener, request: Option<Vec<u8>>, fake: Fake) -> Run {
        let address = LocalAddress::Ip(listener.local_addr().expect("an address"));
        Run { probe: Probe::new(Time::ZERO, address, request), now: Time::ZERO, fake, strays: 0 }
    }

    fn step(&mut self) -> Option<Finding> {
        self.now = self.probe.wake();
        let step = self.probe.step(self.now, &mut self.fake);
        self.strays += step.strays.len();
        step.finding
    }

    /// Steps until it ends; between steps `serve` does what a server would.
    fn end(&mut self, mut serve: impl FnMut()) -> Finding {
        for _ in 0..100_000 {
            if let Some(finding) = self.step() {
                return finding;
            }
            serve();
        }
        panic!("no end: {:?}", self.probe)
    }
}

fn listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    listener.set_nonblocking(true).expect("a listener");
    listener
}

fn http() -> Vec<u8> {
    http_probe::request("/x")
}

/// Takes what waits and keeps it.
fn keep(listener: &TcpListener, kept: &mut Vec<TcpStream>) {
    kept.extend(listener.accept().ok().map(|(stream, _)| stream));
}

/// Takes what waits and answers with these bytes, then closes.
fn answer(listener: &TcpListener, kept: &mut Vec<TcpStream>, bytes: &[u8]) {
    keep(listener, kept);
    if let Some(stream) = kept.last_mut() {
        let mut request = [0; 1024];
        stream.set_nonblocking(true).expect("a stream");
        if stream.read(&mut request).is_ok_and(|length| length > 0) {
            stream.write_all(bytes).expect("an answer");
            stream.shutdown(Shutdown::Write).expect("an end");
        }
    }
}

#[test]
fn a_connection_counts_when_it_is_taken_and_not_before() {
    let listener = listener();
    let mut run = Run::new(&listener, None, Fake::new(Has::Yes, false));
    for _ in 0..50 {
        assert_eq!(run.step(), None);
    }
    assert_eq!(run.probe.saw(), Finding::NotTaken);
    let (_taken, _) = listener.accept().expect("one waits");
    assert_eq!(run.step(), Some(Finding::TookConnection(Taker::Itself)));
}

#[test]
fn what_others_take_is_given_away_and_tried_again_a_bounded_number_of_times() {
    let listener = listener();
    let mut kept = Vec::new();
    let mut run = Run::new(&listener, None, Fake::new(Has::No, false));
    let finding = run.end(|| {
        for _ in 0..16 {
            keep(&listener, &mut kept);
        }
    });
    assert_eq!(finding, Finding::TakenByOthers);
    assert_eq!(run.strays, 8 + 8 * 4 + 16 * 16);
}

#[test]
fn nothing_is_sent_to_another_worker() {
    let listener = listener();
    let mut kept = Vec::new();
    let mut run = Run::new(&listener, Some(http()), Fake::new(Has::No, false));
    let finding = run.end(|| {
        for _ in 0..16 {
            keep(&listener, &mut kept);
        }
    });
    assert_eq!(finding, Finding::TakenByOthers);
    for mut stream in kept {
        stream.set_nonblocking(true).expect("a stream");
        // The other end is closed or dropped, and nothing came before that.
        assert_eq!(stream.read(&mut [0; 16]).ok(), Some(0));
    }
}

#[test]
fn a_worker_that_cannot_be_seen_is_believed_and_that_is_said() {
    for (alone, taker) in [(true, Taker::Itself), (false, Taker::Unseen)] {
        let listener = listener();
        let mut kept = Vec::new();
        let mut run = Run::new(&listener, None, Fake::new(Has::Unseen, alone));
        let finding = run.end(|| keep(&listener, &mut kept));
        assert_eq!(finding, Finding::TookConnection(taker));
        let mut run = Run::new(&listener, Some(http()), Fake::new(Has::Unseen, alone));
        let finding = run.end(|| answer(&listener, &mut kept, b"HTTP/1.1 200 OK\r\n\r\nbody"));
        assert_eq!(finding, Finding::Answered { status: 200, by: taker });
    }
}

#[test]
fn without_a_diagnosis_an_answer_counts_and_a_connection_does_not() {
    for (alone, by) in [(true, Taker::Itself), (false, Taker::Unseen)] {
        let listener = listener();
        let mut kept = Vec::new();
        let blind = || Fake {
            other_end: Some(|| Err(Errno::EPROTONOSUPPORT.into())),
            ..Fake::new(Has::No, alone)
        };
        let mut run = Run::new(&listener, Some(http()), blind());
        let finding = run.end(|| answer(&listener, &mut kept, b"HTTP/1.0 204\r\n\r\n"));
        assert_eq!(finding, Finding::Answered { status: 204, by });
        let mut run = Run::new(&listener, None, blind());
        let finding = run.end(|| keep(&listener, &mut kept));
        assert_eq!(finding, Finding::Unseeable(Unseeable::NoDiagnosis));
    }
}

#[test]
fn a_connection_that_is_kept_back_is_given_its_request_or_is_no_evidence() {
    let listener = listener();
    let kept_back =
        |has| Fake { other_end: Some(|| Ok(OtherEnd::KeptBack)), ..Fake::new(has, false) };
    let mut run = Run::new(&listener, None, kept_back(Has::Yes));
    assert_eq!(run.end(|| {}), Finding::Unseeable(Unseeable::Deferred));
    let mut kept = Vec::new();
    drop(listener.accept());
    for (has, finding) in [
        (Has::Yes, Finding::Answered { status: 200, by: Taker::Itself }),
        (Has::Unseen, Finding::Answered { status: 200, by: Taker::Unseen }),
        (Has::No, Finding::TakenByOthers),
    ] {
        let mut run = Run::new(&listener, Some(http()), kept_back(has));
        while !matches!(
            run.probe.connections.first(),
            Some(Flight { stage: Stage::Asked { .. }, .. })
        ) {
            assert_eq!(run.step(), None);
        }
        run.fake.other_end = None;
        let seen = run.end(|| {
            answer(&listener, &mut kept, b"HTTP/1.1 200 OK\r\n\r\n");
            if has == Has::No {
                for _ in 0..16 {
                    keep(&listener, &mut kept);
                }
            }
        });
        assert_eq!(seen, finding);
    }
}

#[test]
fn an_answer_is_read_to_its_end_before_we_close() {
    let listener = listener();
    let mut run = Run::new(&listener, Some(http()), Fake::new(Has::Yes, false));
    assert_eq!(run.step(), None);
    let (mut stream, _) = listener.accept().expect("one waits");
    assert_eq!(run.step(), None);
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbo").expect("written");
    assert_eq!(run.step(), None);
    stream.write_all(b"dy").expect("it is still open");
    drop(stream);
    assert_eq!(run.step(), Some(Finding::Answered { status: 200, by: Taker::Itself }));

    // One that keeps the connection open is not waited for long.
    let mut run = Run::new(&listener, Some(http()), Fake::new(Has::Yes, false));
    assert_eq!(run.step(), None);
    let (mut stream, _) = listener.accept().expect("one waits");
    stream.write_all(b"HTTP/1.1 302 Elsewhere\r\n\r\n").expect("written");
    let finding = run.end(|| {});
    assert_eq!(finding, Finding::Answered { status: 302, by: Taker::Itself });
    assert!(run.now <= Time::ZERO + REST_WAIT * 3);
}

#[test]
fn answers_that_are_none_are_told_apart() {
    for (bytes, finding) in [
        (b"".as_slice(), Finding::CutOff),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n", Finding::Garbled(Garbled::Cut)),
        (b"SSH-2.0-x\r\n", Finding::Garbled(Garbled::NotHttp)),
        (b"\x15\x03\x01\x00\x02\x02\x50", Finding::Garbled(Garbled::Tls)),
    ] {
        let listener = listener();
        let mut kept = Vec::new();
        let mut run = Run::new(&listener, Some(http()), Fake::new(Has::Yes, true));
        assert_eq!(run.end(|| answer(&listener, &mut kept, bytes)), finding);
    }
    let listener = listener();
    let mut kept = Vec::new();
    let mut run = Run::new(&listener, Some(http()), Fake::new(Has::Yes, true));
    let endless = [b"HTTP/1.1 200 OK\r\n".as_slice(), &[b'x'; 2000]].concat();
    let finding = run.end(|| {
        keep(&listener, &mut kept);
        let stream = kept.last_mut().expect("taken");
        stream.set_nonblocking(true).expect("a stream");
        let _ = stream.write(&endless);
    });
    assert_eq!(finding, Finding::Garbled(Garbled::HeadTooLong));
}

#[test]
fn what_was_seen_so_far_is_told_when_the_time_is_over() {
    let listener = listener();
    let mut run = Run::new(&listener, Some(http()), Fake::new(Has::Yes, true));
    assert_eq!(run.step(), None);
    let (mut stream, _) = listener.accept().expect("one waits");
    assert_eq!(run.step(), None);
    assert_eq!(run.probe.saw(), Finding::Unanswered { bytes: 0 });
    stream.write_all(b"HTTP/1.1 2").expect("written");
    assert_eq!(run.step(), None);
    assert_eq!(run.probe.saw(), Finding::Unanswered { bytes: 10 });
}

#[test]
fn one_that_takes_and_closes_at_once_counts_only_where_nobody_else_can_have() {
    for alone in [true, false] {
        let listener = listener();
        let mut run = Run::new(&listener, None, Fake::new(Has::Yes, alone));
        let finding = run.end(|| drop(listener.accept()));
        let itself = Finding::TookConnection(Taker::Itself);
        assert_eq!(finding, if alone { itself } else { Finding::CutOff });
    }
}

#[test]
fn where_nobody_listens_the_reason_is_told() {
    let listener = listener();
    let mut run = Run::new(&listener, None, Fake::new(Has::Yes, true));
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let reason = format!("{address}: Connection refused");
    assert_eq!(run.step(), Some(Finding::NotConnected(reason)));
}

#[test]
fn a_full_queue_of_a_unix_socket_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("x.sock");
    let listener = UnixListener::bind(&path).expect("a listener");
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).expect("a backlog"))
        .expect("a listener");
    let address = LocalAddress::Unix(path.clone());
    let mut fake = Fake::new(Has::Yes, true);
    let mut first = Probe::new(Time::ZERO, address.clone(), None);
    assert_eq!(first.step(Time::ZERO, &mut fake).finding, None);
    let mut second = Probe::new(Time::ZERO, address, None);
    let finding = second.step(Time::ZERO, &mut fake).finding;
    let reason = format!("unix:{}: its queue is full", path.display());
    assert_eq!(finding, Some(Finding::NotConnected(reason)));
}

#[test]
fn a_connection_that_was_made_for_another_is_adopted() {
    let listener = listener();
    let mut run = Run::new(&listener, None, Fake::new(Has::No, false));
    assert_eq!(run.step(), None);
    let (_taken, _) = listener.accept().expect("one waits");
    assert_eq!(run.step(), None);
    let step = run.probe.step(run.probe.wake(), &mut run.fake);
    let [(stray, _)] = <[_; 1]>::try_from(step.strays).expect("one stray");
    let mut other = Run::new(&listener, None, Fake::new(Has::Yes, false));
    assert_eq!(other.step(), None);
    other.probe.adopt(other.now, stray);
    assert_eq!(other.step(), Some(Finding::TookConnection(Taker::Itself)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_answered_the_probe_ends(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let listener = listener();
        let mut kept = Vec::new();
        let mut run = Run::new(&listener, Some(http()), Fake::new(Has::Yes, true));
        let finding = run.end(|| answer(&listener, &mut kept, &bytes));
        let ended = matches!(
            finding,
            Finding::CutOff | Finding::Garbled(_) | Finding::Answered { by: Taker::Itself, .. }
        );
        prop_assert!(ended, "{finding:?}");
    }
}
