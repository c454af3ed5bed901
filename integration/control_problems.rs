//! Requests that are wrong in one way each, and bytes that are no requests at all.

use std::{
    io::{Read, Write},
    net::Shutdown,
    path::Path,
};

use proptest::prelude::{any, prop};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use shepherd::control::wire::{Problem, ProblemKind};

use crate::{
    control::{connect, raw, read_answer, socket, status, web},
    harness::eventually,
};

/// How many requests of arbitrary bytes are sent.
const ARBITRARY: usize = 3000;

fn request(line: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n\
         {body}"
    )
    .into_bytes()
}

#[track_caller]
fn refused(socket: &Path, request: &[u8], kind: ProblemKind, status: u16, says: &str) {
    let (code, head, body) = raw(socket, request);
    assert_eq!(code, status, "{head}\n{body}");
    assert!(head.contains("content-type: application/problem+json"), "{head}");
    let problem: Problem = serde_json::from_str(&body).expect("a problem");
    assert_eq!((problem.kind, problem.status), (kind, status), "{body}");
    assert!(problem.detail.contains(says), "{body}");
    assert!(!problem.title.is_empty());
}

#[test]
fn every_mistake_in_a_request_has_its_problem() {
    let (daemon, client) = web(1, |builder| builder);
    let socket = socket(&daemon, "web");
    let json = "content-type: application/json\r\n";
    let bad = ProblemKind::BadRequest;
    let get = |path: &str| request(&format!("GET {path}"), "", "");
    let post = |path: &str, body: &str| request(&format!("POST {path}"), json, body);
    for (request, kind, status, says) in [
        (get("/v1/nothing"), ProblemKind::NotFound, 404, "`/v1/nothing`"),
        (get("/"), ProblemKind::NotFound, 404, "openapi.json"),
        (get("/v1/services/nobody"), ProblemKind::NotFound, 404, "there is web"),
        (get("/v1/reload"), bad, 405, "use POST"),
        (request("DELETE /v1/status", "", ""), bad, 405, "use GET"),
        (get("/v1/events?since=x"), bad, 400, "since=7"),
        (get("/v1/events?sinse=1"), bad, 400, "since=NUMBER"),
        (get("/v1/services/%ff"), bad, 400, ""),
        (request("POST /v1/reload", "", "{}"), bad, 415, "application/json"),
        (request("POST /v1/reload", "content-type: text/plain\r\n", "{}"), bad, 415, "JSON"),
        (post("/v1/reload", "{\"queue\": tru}"), bad, 400, "line 1 column 14"),
        (post("/v1/reload", "{\"queu\": true}"), bad, 400, "unknown field `queu`"),
        (post("/v1/reload", "[1"), bad, 400, "line 1"),
        (post("/v1/services/web/reload", "{\"services\":[\"x\"]}"), bad, 400, "the path names"),
        (post("/v1/services/web/scale", ""), bad, 400, "line 1 column 0"),
        (post("/v1/services/web/scale", "{\"to\":1,\"by\":1}"), bad, 400, "line 1"),
        (post("/v1/services/web/scale", "{\"to\":-1}"), bad, 400, "line 1"),
        (post("/v1/services/web/restart", "{\"now\":1}"), bad, 400, "unknown field `now`"),
        (
            post("/v1/workers/one/signal", "{\"signal\":\"HUP\"}"),
            ProblemKind::NotFound,
            404,
            "`one`",
        ),
        (post("/v1/reload", &" ".repeat(65_537)), bad, 413, "65536 bytes"),
        (post("/v1/reload", &" ".repeat(900_000)), bad, 413, "65536 bytes"),
    ] {
        refused(&socket, &request, kind, status, says);
    }
    let chunked = "POST /v1/reload HTTP/1.1\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\
                   content-type: application/json\r\n\r\n";
    let chunk = format!("8000\r\n{}\r\n", " ".repeat(0x8000));
    let long = format!("{chunked}{}0\r\n\r\n", chunk.repeat(3));
    refused(&socket, long.as_bytes(), bad, 413, "65536 bytes");
    // What breaks HTTP itself is answered without words.
    for (broken, status) in [
        ("BREW\r\n\r\n".to_owned(), 400),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(20_000)), 431),
        (format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(200)), 431),
        (format!("{chunked}zz\r\n"), 400),
    ] {
        let (code, head, _) = raw(&socket, broken.as_bytes());
        assert!(code == status || code == 414, "{code}: {head}");
    }
    assert_eq!(status(&client).services[0].generation, 1);
    assert!(daemon.stop().success());
}

#[test]
fn half_a_request_and_then_nothing_is_given_up() {
    let (daemon, client) = web(1, |builder| builder);
    let socket = socket(&daemon, "web");
    let head = "POST /v1/reload HTTP/1.1\r\nconnection: close\r\n";
    let body = format!("{head}content-type: application/json\r\ncontent-length: 9\r\n\r\n{{\"qu");
    let streams = ["", "GET /v1/st", head, &body].map(|half| {
        let mut stream = connect(&socket);
        stream.write_all(half.as_bytes()).expect("written");
        stream
    });
    // It serves others meanwhile.
    assert_eq!(status(&client).daemon.name, "web");
    let [nothing, line, head, body] = streams.map(read_answer);
    for (code, ..) in [nothing, line, head] {
        assert!(code == 0 || code == 408, "{code}");
    }
    assert_eq!(body.0, 408, "{body:?}");
    assert_eq!(status(&client).services[0].generation, 1);
    assert!(daemon.stop().success());
}

#[test]
fn no_bytes_hurt() {
    let (daemon, client) = web(1, |builder| builder);
    let socket = socket(&daemon, "web");
    let mut runner = TestRunner::deterministic();
    let whole: Vec<Vec<u8>> = [
        request("GET /v1/status", "", ""),
        request("GET /v1/services/web", "", ""),
        request("POST /v1/services/nobody/restart", "content-type: application/json\r\n", "{}"),
        request(
            "POST /v1/workers/99/signal",
            "content-type: application/json\r\n",
            "{\"signal\":\"HUP\"}",
        ),
        request("GET /v1/config", "expect: 100-continue\r\n", "{\"x\":1}"),
    ]
    .into();
    // Requests with a few bytes changed, put in or cut off; and bytes from nowhere.
    let changed = (
        prop::sample::select(whole),
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..3), 0..6),
    );
    let changed = changed.prop_map(|(mut bytes, changes)| {
        for (at, byte, how) in changes {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => bytes.truncate(at.max(1)),
            }
        }
        bytes
    });
    let bytes = prop::collection::vec(any::<u8>(), 0..600);
    let either = proptest::prop_oneof![3 => changed, 1 => bytes];
    for number in 0..ARBITRARY {
        let bytes = either.new_tree(&mut runner).expect("a value").current();
        let mut stream = connect(&socket);
        // It may be closed before all of it is written.
        let _ = stream.write_all(&bytes);
        if number % 5 == 0 {
            // Gone without a word.
            continue;
        }
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        if let Err(error) = stream.read_to_end(&mut answer) {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "no end: {bytes:?}");
        }
        if !answer.is_empty() {
            assert!(answer.starts_with(b"HTTP/1."), "{:?}", String::from_utf8_lossy(&answer));
        }
    }
    let found = status(&client);
    assert_eq!(i32::try_from(found.daemon.pid), Ok(daemon.pid()));
    assert_eq!(found.services[0].generation, 1);
    assert_eq!(
        daemon.count_lines(|line| line.contains("has ended") || line.contains("panicked")),
        0
    );
    // All of them are gone from the daemon.
    eventually("few descriptors", || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("ours").count();
        (open < 60).then_some(())
    });
    assert!(daemon.stop().success());
}
