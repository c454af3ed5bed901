//! The load client against servers that are wrong in one way each: a client that sees nothing
//! wrong proves nothing.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{fd::AsRawFd, unix::net::UnixListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{
    libc,
    sys::socket::{Backlog, MsgFlags, listen, recv, setsockopt, sockopt},
};

use crate::harness::{
    Address, Class, Connection, Echoes, Exchange, Idle, Kind, KindName, Limits, Load, Report,
    eventually, free_port, get,
};

const RIGHT: &str =
    "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: keep-alive\r\n\r\nv1 77 0 1\n";

// ---- a right server ------------------------------------------------------------------------

#[test]
fn a_right_server_gives_no_failure() {
    let server = Server::start(answer_all);
    let load = Load::start(
        server.address,
        [(Kind::New, 2), (Kind::kept_alive(), 3), (Kind::Slow { ms: 5 }, 1)],
    );
    load.wait_version("v1");
    load.wait_ok(100);
    let report = load.stop();
    report.assert_clean_and_quick();
    for kind in [KindName::New, KindName::KeptAlive, KindName::Slow] {
        assert!(report.ok.contains_key(&kind), "{report}");
        assert_eq!(report.ok[&kind], report.latencies[&kind].count(), "{report}");
    }
    assert_eq!(report.pids.keys().collect::<Vec<_>>(), [&77], "{report}");
    assert_eq!(report.generations.keys().collect::<Vec<_>>(), ["1"], "{report}");
    assert_eq!(report.reconnects, 0, "{report}");
}

#[test]
fn clients_that_hesitate_visit_or_hear_a_stream_find_a_right_server_right() {
    let server = Server::start(answer_all);
    let load = Load::start(
        server.address,
        [
            (Kind::Hesitant { pause: Duration::from_millis(5) }, 2),
            (Kind::visit(3), 2),
            (Kind::Stream { length: Duration::from_millis(100) }, 2),
        ],
    );
    load.wait_ok(60);
    let report = load.stop();
    report.assert_clean();
    for kind in [KindName::Hesitant, KindName::Visit, KindName::Stream] {
        assert!(report.ok.contains_key(&kind), "{report}");
    }
    // A visit ends by the client's will.
    assert_eq!(report.reconnects, 0, "{report}");
    let visits = report.ok[&KindName::Visit].div_ceil(3);
    let others = report.ok[&KindName::Hesitant] + report.ok[&KindName::Stream];
    assert!((visits + others..=visits + others + 1).contains(&report.connections), "{report}");
}

#[test]
fn a_right_server_on_a_unix_socket_gives_no_failure() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("right.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    // Ends with the process; the test needs nothing of it.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer_stream(stream));
        }
    });
    let load = Load::start(path.as_path(), [(Kind::New, 1), (Kind::kept_alive(), 2)]);
    load.wait_ok(50);
    load.stop().assert_clean();
}

#[test]
#[expect(clippy::cast_precision_loss, reason = "there are some hundred connections")]
fn new_connections_are_paced() {
    let server = Server::start(answer_all);
    let limits = Limits { new_per_second: 100, ..Limits::default() };
    let load = Load::start_with(limits, server.address, [(Kind::New, 4)]);
    load.wait_ok(50);
    let report = load.stop();
    report.assert_clean();
    // Each client may be one ahead.
    let most = report.duration.as_secs_f64() * 100.0 + 4.0;
    assert!(report.connections as f64 <= most, "{report}");
}

#[test]
fn a_single_request_gives_the_words_of_the_body() {
    let server = Server::start(answer_all);
    let response = get(server.address, "/").expect("a response");
    assert_eq!(
        (response.status, response.version.as_str(), response.pid, response.slot.as_str()),
        (200, "v1", 77, "0")
    );
    assert_eq!((response.generation.as_str(), response.body.as_str()), ("1", "v1 77 0 1\n"));
}

// ---- connecting ----------------------------------------------------------------------------

#[test]
fn a_port_where_nobody_listens_is_refused() {
    let port = free_port();
    assert_only(&load_until_failure(&port, Kind::New), Class::Refused);
}

#[test]
fn an_absent_unix_socket_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("absent.sock");
    assert_only(&load_until_failure(path.as_path(), Kind::New), Class::Refused);
}

#[test]
fn a_full_queue_times_out_and_is_slow() {
    let queue = FullQueue::new();
    let limits = Limits {
        timeout: Duration::from_millis(300),
        slow_connect: Duration::from_millis(200),
        ..Limits::default()
    };
    let load = Load::start_with(limits, queue.address, [(Kind::New, 1)]);
    load.wait("a failure", |report| report.failures_total() > 0);
    let report = load.stop();
    assert_only(&report, Class::ConnectTimeout);
    assert!(report.slow_connects > 0, "{report}");
}

#[test]
fn a_lost_syn_is_slow_but_no_failure() {
    let queue = FullQueue::new();
    let load = Load::start(queue.address, [(Kind::New, 1)]);
    let port = format!(":{:04X}", queue.address.port());
    eventually("a SYN that the full queue dropped", || {
        let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
        // sl local remote state: 02 is SYN_SENT.
        table.lines().find_map(|line| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            (words.get(2)?.ends_with(&port) && words.get(3) == Some(&"02")).then_some(())
        })
    });
    let _server = queue.serve();
    load.wait_ok(1);
    let report = load.stop();
    report.assert_clean();
    assert!(report.slow_connects > 0, "{report}");
}

// ---- before the response -------------------------------------------------------------------

#[test]
fn a_reset_after_accept_is_seen() {
    let server = Server::start(|stream, _| reset(stream));
    let report = load_until_failure(server.address, Kind::New);
    // The reset may come before connect has returned.
    let seen = report.failed(Class::ConnectReset)
        + report.failed(Class::ResetBeforeResponse(Exchange::First));
    assert_eq!(seen, report.failures_total(), "{report}");
}

#[test]
fn an_end_before_the_first_response_is_seen() {
    let server = Server::start(|mut stream, _| {
        read_request(&mut stream);
    });
    for kind in [Kind::New, Kind::kept_alive(), Kind::Slow { ms: 1 }] {
        let report = load_until_failure(server.address, kind);
        assert_only(&report, Class::EofBeforeResponse(Exchange::First));
    }
}

#[test]
fn an_end_before_a_later_response_is_seen() {
    let server = Server::start(|mut stream, _| {
        answer_once(&mut stream);
        read_request(&mut stream);
    });
    let report = load_until_failure(server.address, Kind::kept_alive());
    assert_only(&report, Class::EofBeforeResponse(Exchange::Reused));
    assert_eq!(report.crossed, 0, "{report}");
    assert_eq!(report.failures_kept[0].pid, Some(77), "{report}");
}

#[test]
fn a_close_over_an_unread_request_is_a_failure() {
    let server = Server::start(|mut stream, _| {
        answer_once(&mut stream);
        // Waits until the request is there, and leaves it.
        let _ = recv(stream.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK);
    });
    let report = load_until_failure(server.address, Kind::kept_alive());
    assert_only(&report, Class::ResetBeforeResponse(Exchange::Reused));
}

#[test]
fn no_answer_in_time_is_seen() {
    let server = Server::start(|mut stream, _| {
        read_request(&mut stream);
        wait_for_end(&mut stream);
    });
    let report = impatient_load_until_failure(server.address, Kind::New);
    assert_only(&report, Class::Timeout);
}

#[test]
fn an_end_before_a_hesitant_client_has_sent_all_is_seen() {
    let server = Server::start(|mut stream, _| {
        let _ = stream.read(&mut [0; 4]);
        reset(stream);
    });
    let kind = Kind::Hesitant { pause: Duration::from_millis(20) };
    let report = load_until_failure(server.address, kind);
    assert_only(&report, Class::ResetBeforeResponse(Exchange::First));
}

// ---- within the response -------------------------------------------------------------------

#[test]
fn a_response_that_is_cut_is_seen() {
    for length in [1, 20, RIGHT.len() - 1] {
        let server = Server::start(move |mut stream, _| {
            read_request(&mut stream);
            let _ = stream.write_all(&RIGHT.as_bytes()[..length]);
        });
        assert_only(&load_until_failure(server.address, Kind::New), Class::Partial);
        let error = get(server.address, "/").expect_err("no whole response");
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    }
}

#[test]
fn a_stream_that_is_cut_or_not_of_one_worker_is_seen() {
    let kind = Kind::Stream { length: Duration::from_millis(100) };
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 22\r\nConnection: close\r\n\r\n";
    let stream = |body| {
        let response = format!("{head}{body}");
        Server::start(move |stream, _| answer_with(stream, &response))
    };
    for (body, class) in
        [("v1 77 0 10\nv1 77", Class::Partial), ("v1 77 0 10\nv1 78 0 10\n", Class::BadBody)]
    {
        let server = stream(body);
        assert_only(&load_until_failure(server.address, kind.clone()), class);
    }
    let server = stream("v1 77 0 10\nv1 77 0 10\n");
    let load = Load::start(server.address, [(kind, 1)]);
    load.wait_ok(1);
    load.stop().assert_clean();
}

#[test]
fn a_response_that_is_cut_by_a_reset_is_seen() {
    let server = Server::start(|mut stream, _| {
        read_request(&mut stream);
        let _ = stream.write_all(&RIGHT.as_bytes()[..20]);
        reset(stream);
    });
    let report = load_until_failure(server.address, Kind::New);
    // A reset overtakes what the client has not read yet: then it sees the reset alone.
    let seen =
        report.failed(Class::Partial) + report.failed(Class::ResetBeforeResponse(Exchange::First));
    assert_eq!(seen, report.failures_total(), "{report}");
}

#[test]
fn a_response_that_stalls_is_seen() {
    let server = Server::start(|mut stream, _| {
        read_request(&mut stream);
        let _ = stream.write_all(&RIGHT.as_bytes()[..20]);
        wait_for_end(&mut stream);
    });
    let report = impatient_load_until_failure(server.address, Kind::kept_alive());
    assert_only(&report, Class::Partial);
}

#[test]
fn another_status_is_seen() {
    let response = RIGHT.replace("200 OK", "500 Internal Server Error");
    let server = Server::start(move |stream, _| answer_with(stream, &response));
    assert_only(&load_until_failure(server.address, Kind::New), Class::BadStatus);
    assert_eq!(get(server.address, "/").expect("a response").status, 500);
}

#[test]
fn another_body_is_seen() {
    for response in [
        RIGHT.replace("v1 77 0 1\n", "v1 77 0  \n"),
        RIGHT.replace("v1 77 0 1\n", "v1 xx 0 1\n"),
        RIGHT.replace("Content-Length: 10", "X: 10"),
        RIGHT.replace("Content-Length: 10", "Content-Length: 9"),
        "220 mail.example\r\n\r\n".to_owned(),
    ] {
        let server = Server::start(move |stream, _| answer_with(stream, &response));
        assert_only(&load_until_failure(server.address, Kind::New), Class::BadBody);
    }
}

// ---- between two requests ------------------------------------------------------------------

#[test]
fn a_close_while_idle_is_a_reconnect() {
    let server = Server::start(|mut stream, _| answer_once(&mut stream));
    // A think time that no close comes after.
    let think = Duration::from_secs(60)..Duration::from_secs(61);
    let load = Load::start(server.address, [(Kind::KeptAlive { think }, 2)]);
    // It is noticed at once: nobody waits for the end of the pause.
    load.wait_ok(20);
    let report = load.stop();
    report.assert_clean();
    assert!(report.reconnects >= 18, "{report}");
    assert_eq!(report.crossed, 0, "{report}");
}

#[test]
fn an_announced_close_is_a_reconnect() {
    let response = RIGHT.replace("keep-alive", "close");
    let server = Server::start(move |stream, _| answer_with(stream, &response));
    let load = Load::start(server.address, [(Kind::kept_alive(), 2)]);
    load.wait_ok(20);
    let report = load.stop();
    report.assert_clean();
    assert!(report.reconnects >= 20, "{report}");
}

#[test]
fn a_reset_while_idle_is_seen() {
    let server = Server::start(|mut stream, _| {
        answer_once(&mut stream);
        reset(stream);
    });
    let think = Duration::from_secs(60)..Duration::from_secs(61);
    let load = Load::start(server.address, [(Kind::KeptAlive { think }, 4)]);
    // The reset may overtake the answer; sooner or later it does not.
    load.wait("a reset while idle", |report| report.failed(Class::ResetWhileIdle) > 0);
}

#[test]
fn the_kernel_tells_a_crossed_close_from_a_lost_request() {
    // The server closes, and the client writes without having looked.
    let server = Server::start(|mut stream, _| answer_once(&mut stream));
    let mut connection = ask_once(server.address);
    eventually("the close", || (connection.idle() == Idle::Closed).then_some(()));
    connection.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("the first write after a close");
    assert_eq!(connection.read(&mut [0; 16]).expect("an end of file"), 0);
    assert!(connection.close_came_first());

    // The server takes the request and closes.
    let server = Server::start(|mut stream, _| {
        answer_once(&mut stream);
        read_request(&mut stream);
    });
    let mut connection = ask_once(server.address);
    connection.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("an open connection");
    assert_eq!(connection.read(&mut [0; 16]).expect("an end of file"), 0);
    assert!(!connection.close_came_first());
}

#[test]
fn a_visit_that_the_server_ends_is_a_reconnect() {
    let server = Server::start(|mut stream, _| answer_once(&mut stream));
    let load = Load::start(server.address, [(Kind::visit(20), 2)]);
    load.wait_ok(20);
    let report = load.stop();
    report.assert_clean();
    assert!(report.reconnects >= 18, "{report}");
}

// ---- datagrams -----------------------------------------------------------------------------

#[test]
fn each_datagram_that_has_no_echo_is_counted() {
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let to = server.local_addr().expect("an address");
    let answering = thread::spawn(move || {
        let mut dropped = 0;
        let mut bytes = [0; 100];
        while let Ok((length, client)) = server.recv_from(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            match text.as_str() {
                "end" => break,
                text if text.ends_with('7') => dropped += 1,
                "8" => {
                    // Once more.
                    for _ in 0..2 {
                        server.send_to(b"v1 77 0 1 8", client).expect("sent");
                    }
                }
                text => {
                    let echo = format!("v1 77 0 1 {text}");
                    server.send_to(echo.as_bytes(), client).expect("sent");
                }
            }
        }
        dropped
    });
    let echoes = Echoes::start(to, Duration::from_millis(2));
    echoes.wait_echoed(50);
    let report = echoes.stop();
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    client.send_to(b"end", to).expect("sent");
    let dropped = answering.join().expect("the server ends");
    assert!(dropped >= 5, "{report}");
    assert_eq!((report.lost(), report.strange, report.refused), (dropped, 1, 0), "{report}");
    assert_eq!(report.pids.keys().collect::<Vec<_>>(), [&77], "{report}");
}

#[test]
fn datagrams_that_nobody_receives_are_lost_and_refused() {
    let port = free_port();
    let echoes = Echoes::start(port.v4(), Duration::from_millis(5));
    eventually("a refusal", || (echoes.snapshot().refused > 3).then_some(()));
    let report = echoes.stop();
    assert_eq!((report.lost(), report.echoed), (report.sent, 0), "{report}");
}

// ---- the report ----------------------------------------------------------------------------

#[test]
#[should_panic(expected = "requests failed")]
fn a_failure_is_never_clean() {
    load_until_failure(&free_port(), Kind::New).assert_clean();
}

#[test]
#[should_panic(expected = "no request was answered")]
fn nothing_is_never_clean() {
    Load::start(&free_port(), []).stop().assert_clean();
}

#[test]
fn the_report_shows_each_failure() {
    let server = Server::start(|mut stream, number| {
        if number == 0 {
            return answer_all(stream, number);
        }
        read_request(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 O");
    });
    let load = Load::start(server.address, [(Kind::New, 1)]);
    load.wait("a failure", |report| report.failures_total() > 0);
    let text = load.stop().to_string();
    for wanted in ["Partial", "New", "end of file after 14 bytes", "1 ok", "\"v1\": 1"] {
        assert!(text.contains(wanted), "`{wanted}` is missing:\n{text}");
    }
}

// ---- helpers -------------------------------------------------------------------------------

fn load_until_failure(address: impl Into<Address>, kind: Kind) -> Report {
    load_with_until_failure(Limits::default(), address, kind)
}

fn impatient_load_until_failure(address: impl Into<Address>, kind: Kind) -> Report {
    let limits = Limits { timeout: Duration::from_millis(300), ..Limits::default() };
    load_with_until_failure(limits, address, kind)
}

fn load_with_until_failure(limits: Limits, address: impl Into<Address>, kind: Kind) -> Report {
    let load = Load::start_with(limits, address, [(kind, 2)]);
    load.wait("a failure", |report| report.failures_total() > 0);
    load.stop()
}

#[track_caller]
fn assert_only(report: &Report, class: Class) {
    assert!(report.failed(class) > 0, "no {class:?}\n{report}");
    assert_eq!(report.failed(class), report.failures_total(), "not only {class:?}\n{report}");
}

/// Accepts connections and gives each, with its number, to a handler in a thread of its own.
struct Server {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
}

impl Server {
    fn start(handle: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        Server::on(listener, handle)
    }

    fn on(
        listener: TcpListener,
        handle: impl Fn(TcpStream, usize) + Send + Sync + 'static,
    ) -> Server {
        let address = listener.local_addr().expect("an address");
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        thread::spawn(move || {
            let handle = Arc::new(handle);
            for (number, stream) in listener.incoming().flatten().enumerate() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let handle = Arc::clone(&handle);
                thread::spawn(move || handle(stream, number));
            }
        });
        Server { address, stopping }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

/// A listener whose queue is full.
struct FullQueue {
    listener: TcpListener,
    address: SocketAddr,
    waiting: Vec<TcpStream>,
}

impl FullQueue {
    fn new() -> FullQueue {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        listen(&listener, Backlog::new(0).expect("a backlog")).expect("a shorter queue");
        let address = listener.local_addr().expect("an address");
        let mut waiting = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
            waiting.push(stream);
        }
        FullQueue { listener, address, waiting }
    }

    fn serve(self) -> Server {
        drop(self.waiting);
        Server::on(self.listener, answer_all)
    }
}

fn answer_all(stream: TcpStream, _: usize) {
    answer_stream(stream);
}

/// Answers until the client closes, or says that this was the last.
fn answer_stream(mut stream: impl Read + Write) {
    while let Some(request) = read_request(&mut stream) {
        let last = request.contains("Connection: close");
        let response = if last { RIGHT.replace("keep-alive", "close") } else { RIGHT.to_owned() };
        if stream.write_all(response.as_bytes()).is_err() || last {
            return;
        }
    }
}

fn answer_once(stream: &mut TcpStream) {
    if read_request(stream).is_some() {
        let _ = stream.write_all(RIGHT.as_bytes());
    }
}

fn answer_with(mut stream: TcpStream, response: &str) {
    if read_request(&mut stream).is_some() {
        let _ = stream.write_all(response.as_bytes());
    }
}

/// A connection on which one request was answered.
fn ask_once(address: SocketAddr) -> Connection {
    let mut connection =
        Connection::open(&address.into(), Duration::from_secs(10)).expect("a connection");
    connection.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("a request");
    let mut response = vec![0; RIGHT.len()];
    connection.read_exact(&mut response).expect("a response");
    connection
}

fn read_request(stream: &mut impl Read) -> Option<String> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => request.push(byte[0]),
            _ => return None,
        }
    }
    String::from_utf8(request).ok()
}

fn wait_for_end(stream: &mut TcpStream) {
    while matches!(stream.read(&mut [0; 64]), Ok(count) if count > 0) {}
}

/// Closes with a reset.
fn reset(stream: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&stream, sockopt::Linger, &linger).expect("linger");
    drop(stream);
}
