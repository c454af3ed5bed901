//! The client against servers that answer in bytes.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use super::*;

/// Long: machines that run tests are slow at times.
const LONG: Option<Duration> = Some(Duration::from_secs(30));
const SHORT: Option<Duration> = Some(Duration::from_millis(50));

/// A server for one connection, and the client for it.
fn served(
    serve: impl FnOnce(UnixStream) + Send + 'static,
) -> (tempfile::TempDir, Client, thread::JoinHandle<()>) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("control.sock");
    let listener = UnixListener::bind(&path).expect("bound");
    let server = thread::spawn(move || serve(listener.accept().expect("a client").0));
    (directory, Client::new(path).expect("a client"), server)
}

/// Reads the head of a request and what is there of its body.
fn head(stream: &mut UnixStream) -> String {
    let mut head = Vec::new();
    let mut bytes = [0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = stream.read(&mut bytes).expect("readable");
        assert_ne!(count, 0, "the request ended: {head:?}");
        head.extend_from_slice(&bytes[..count]);
    }
    String::from_utf8(head).expect("text")
}

fn answers(bytes: &'static str) -> Result<wire::Done, ClientError> {
    let (_directory, client, server) = served(move |mut stream| {
        head(&mut stream);
        stream.write_all(bytes.as_bytes()).expect("written");
    });
    let answer = client.get("/v1/x", LONG);
    server.join().expect("served");
    answer
}

#[test]
fn an_answer_is_read_with_a_length_or_in_chunks() {
    let done = wire::Done { services: Vec::new() };
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"services\":[]}",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"ser\r\na\r\nvices\":[]}\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n{\"services\":[]}",
    ] {
        assert_eq!(answers(answer).expect(answer), done);
    }
}

#[test]
fn a_request_has_its_body_and_says_what_it_is() {
    let (_directory, client, server) = served(|mut stream| {
        let mut request = head(&mut stream);
        while !request.ends_with(r#"{"queue":true}"#) {
            let mut bytes = [0; 100];
            let count = stream.read(&mut bytes).expect("readable");
            assert_ne!(count, 0, "{request}");
            request.push_str(std::str::from_utf8(&bytes[..count]).expect("text"));
        }
        assert!(request.starts_with("POST /v1/reload HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("content-type: application/json\r\n"), "{request}");
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"services\":[]}";
        stream.write_all(answer).expect("written");
    });
    let body = wire::Reload { queue: true, ..wire::Reload::default() };
    let _: wire::Done = client.post("/v1/reload", &body, LONG).expect("answered");
    server.join().expect("served");
}

#[test]
fn a_problem_is_told_in_its_own_words() {
    let answer = "HTTP/1.1 409 Conflict\r\ncontent-type: application/problem+json\r\n\r\n\
        {\"type\":\"in-progress\",\"title\":\"t\",\"status\":409,\"detail\":\"a reload is under way\"}";
    match answers(answer) {
        Err(ClientError::Problem(problem)) => {
            assert_eq!(problem.kind, wire::ProblemKind::InProgress);
            assert_eq!(ClientError::Problem(problem).to_string(), "a reload is under way");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_problem_of_a_kind_that_only_a_later_version_knows_is_told_in_its_words_too() {
    let answer = "HTTP/1.1 409 Conflict\r\ncontent-type: application/problem+json\r\n\r\n\
        {\"type\":\"frozen\",\"title\":\"t\",\"status\":409,\"detail\":\"it is frozen\",\"until\":7}";
    match answers(answer) {
        Err(ClientError::Problem(problem)) => {
            assert_eq!(problem.kind, wire::ProblemKind::Failed);
            assert_eq!(problem.detail, "it is frozen");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_event_of_a_level_that_only_a_later_version_knows_is_taken_as_grave() {
    let level = |text: &str| serde_json::from_str::<wire::Level>(text).expect(text);
    assert_eq!(level("\"critical\""), wire::Level::Error);
    assert_eq!(level("\"warning\""), wire::Level::Warning);
}

#[test]
fn an_event_of_a_kind_and_with_fields_that_only_a_later_version_knows_is_read() {
    let line =
        r#"{"number":7,"time":"t","kind":"worker-frozen","message":"m","level":"odd","x":[]}"#;
    let event: wire::Event = serde_json::from_str(line).expect("an event");
    assert_eq!((event.number, event.kind.as_str()), (7, "worker-frozen"));
}

#[test]
fn what_is_no_answer_of_ours_is_told_apart() {
    assert!(matches!(answers("SSH-2.0-OpenSSH_9.2\r\n\r\n"), Err(ClientError::NotHttp(_))));
    assert!(matches!(answers(""), Err(ClientError::Cut(_))));
    assert!(matches!(answers("HTTP/1.1 200"), Err(ClientError::Cut(_))));
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"serv";
    assert!(matches!(answers(cut), Err(ClientError::Cut(_))));
    let other = "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 5\r\n\r\nsorry";
    assert!(matches!(answers(other), Err(ClientError::Strange { status: 502, .. })));
    let older = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
    assert!(matches!(answers(older), Err(ClientError::Strange { status: 200, .. })));
}

#[test]
fn an_answer_that_does_not_come_is_not_waited_for() {
    let (_directory, client, server) = served(|mut stream| {
        head(&mut stream);
        // Until the client gives up.
        let _ = stream.read(&mut [0; 1]);
    });
    let answer: Result<wire::Done, _> = client.get("/v1/status", SHORT);
    assert!(matches!(answer, Err(ClientError::TimedOut(..))), "{answer:?}");
    drop(client);
    server.join().expect("served");
}

#[test]
fn who_cannot_be_reached_is_told_with_the_reason() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("control.sock");
    let ask =
        |path: &Path| Client::new(path).expect("a client").get::<wire::Done>("/v1/status", LONG);
    assert!(matches!(ask(&path), Err(ClientError::NoSocket(_))));
    drop(UnixListener::bind(&path).expect("bound"));
    assert!(matches!(ask(&path), Err(ClientError::Stale(_))));
    assert!(matches!(ask(&path.join("x")), Err(ClientError::NoSocket(_))));
}

#[test]
fn a_full_queue_is_waited_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("control.sock");
    let listener = UnixListener::bind(&path).expect("bound");
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).expect("0"))
        .expect("a short queue");
    let first = UnixStream::connect(&path).expect("the queue has room for one");
    let server = thread::spawn(move || {
        drop(first);
        let _gone = listener.accept().expect("the first");
        let (mut stream, _) = listener.accept().expect("the second");
        head(&mut stream);
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"services\":[]}";
        stream.write_all(answer).expect("written");
    });
    let client = Client::new(path).expect("a client");
    client.get::<wire::Done>("/v1/status", LONG).expect("answered");
    server.join().expect("served");
}

#[test]
fn events_come_one_by_one_and_have_an_end() {
    let line = |number| {
        format!(
            "{{\"number\":{number},\"time\":\"t\",\"kind\":\"ready\",\"message\":\"m\",\
             \"level\":\"info\"}}\n"
        )
    };
    let (_directory, client, server) = served(move |mut stream| {
        assert!(head(&mut stream).starts_with("GET /v1/events?since=6 "));
        let lines = format!("{}{}", line(7), line(8));
        let (first, second) = lines.split_at(100);
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        write!(stream, "{head}{:x}\r\n{first}\r\n", first.len()).expect("written");
        // Nothing more before it has asked in vain.
        let mut asked = [0; 1];
        stream.set_read_timeout(Some(Duration::from_millis(200))).expect("set");
        let _ = stream.read(&mut asked);
        write!(stream, "{:x}\r\n{second}\r\n0\r\n\r\n", second.len()).expect("written");
    });
    let mut events = client.events(Some(6), LONG).expect("a stream");
    let number = |event: Result<Option<wire::Event>, _>| {
        event.expect("readable").map(|event: wire::Event| event.number)
    };
    assert_eq!(number(events.next(LONG)), Some(7));
    match events.next(Some(Duration::from_millis(1))) {
        // A machine that is busy may have been late.
        Err(ClientError::TimedOut(..)) => assert_eq!(number(events.next(LONG)), Some(8)),
        other => assert_eq!(number(other), Some(8)),
    }
    assert_eq!(number(events.next(LONG)), None);
    server.join().expect("served");
}
