//! The stream of events: in order, resumed without a gap, and honest about what is missing.

use std::io::{BufRead, BufReader, Write};

use nix::sys::signal::Signal;
use serde_json::json;
use shepherd::control::{client::Client, wire};

use crate::{
    control::{LONG, connect, post, socket, status, web},
    harness::Daemon,
};

/// More events than are kept.
const MANY: usize = 1100;

/// The events after a number, up to the first that is wanted.
#[track_caller]
fn read_until(client: &Client, since: Option<u64>, wanted: &str) -> Vec<wire::Event> {
    let mut events = client.events(since, LONG).expect("a stream");
    let mut seen = Vec::new();
    loop {
        let event = events.next(LONG).expect("an event").expect("no end");
        let found = event.kind == wanted;
        seen.push(event);
        if found {
            return seen;
        }
    }
}

/// An event for each of so many requests that change nothing.
fn chatter(daemon: &Daemon, count: usize) {
    let mut stream = connect(&socket(daemon, "web"));
    let body = json!({"by": -1}).to_string();
    let request = format!(
        "POST /v1/services/web/scale HTTP/1.1\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut answers = BufReader::new(stream.try_clone().expect("a copy"));
    for _ in 0..count {
        stream.write_all(request.as_bytes()).expect("written");
        let mut length = 0;
        loop {
            let mut line = String::new();
            answers.read_line(&mut line).expect("an answer");
            if let Some(text) = line.strip_prefix("content-length: ") {
                length = text.trim().parse().expect("a length");
            }
            if line == "\r\n" {
                break;
            }
        }
        std::io::Read::read_exact(&mut answers, &mut vec![0; length]).expect("a body");
    }
}

#[test]
fn events_say_what_happens_to_whom_and_are_resumed_without_a_gap() {
    let (daemon, client) = web(2, |builder| builder);
    let first = read_until(&client, Some(0), "service-serving");
    let numbers: Vec<u64> = first.iter().map(|event| event.number).collect();
    assert_eq!(numbers, (1..=5).collect::<Vec<u64>>());
    let started = first.iter().find(|event| event.kind == "worker-started").expect("a start");
    assert_eq!(started.service.as_deref(), Some("web"));
    assert!(started.pid.is_some() && started.slot.is_some() && started.worker.is_some());
    assert_eq!((started.generation, started.level), (Some(1), wire::Level::Info));

    // From this moment on: nothing that was.
    let mut live = client.events(None, LONG).expect("a stream");
    post(&client, "/v1/reload", &json!({}));
    let begins = live.next(LONG).expect("an event").expect("no end");
    assert_eq!((begins.kind.as_str(), begins.number), ("reload-begins", 6));
    drop(live);

    let rest = read_until(&client, Some(6), "reload-committed");
    assert_eq!(rest[0].number, 7);
    assert!(rest.windows(2).all(|pair| pair[0].number + 1 == pair[1].number), "{rest:?}");
    let workers = status(&client).services.remove(0).workers;
    let ready = workers.iter().find(|worker| worker.state == wire::WorkerState::Ready);
    let pid = ready.and_then(|worker| worker.pid).expect("a pid");
    let killed = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    nix::sys::signal::kill(killed, Signal::SIGKILL).expect("ours");
    let ended = read_until(&client, Some(6), "worker-ended");
    let ended = ended.last().expect("one");
    assert_eq!(ended.level, wire::Level::Warning);
    assert!(ended.message.contains("SIGKILL"), "{ended:?}");
    assert!(daemon.stop().success());
}

#[test]
fn a_number_that_is_too_old_is_told_what_is_missing() {
    let (daemon, client) = web(1, |builder| builder);
    chatter(&daemon, MANY);
    let mut events = client.events(Some(0), LONG).expect("a stream");
    let dropped = events.next(LONG).expect("an event").expect("no end");
    assert_eq!(dropped.kind, "dropped");
    let count = dropped.dropped.expect("a count");
    assert!(count > 0 && dropped.message.contains(&count.to_string()), "{dropped:?}");
    assert_eq!(dropped.number, count);
    let next = events.next(LONG).expect("an event").expect("no end");
    assert_eq!(next.number, count + 1);
    drop(events);
    // A number of another daemon's life.
    let mut events = client.events(Some(1_000_000), LONG).expect("a stream");
    let unknown = events.next(LONG).expect("an event").expect("no end");
    assert_eq!((unknown.kind.as_str(), unknown.dropped), ("dropped", None));
    assert!(unknown.message.contains("1000000"), "{unknown:?}");
    drop(events);
    assert!(daemon.stop().success());
}

#[test]
fn a_reader_that_falls_behind_loses_lines_and_is_told() {
    let (daemon, client) = web(1, |builder| builder);
    let stream = {
        let mut stream = connect(&socket(&daemon, "web"));
        stream.write_all(b"GET /v1/events?since=0 HTTP/1.0\r\n\r\n").expect("written");
        stream
    };
    // More than the kernel keeps for it, and than the daemon does.
    chatter(&daemon, 4 * MANY);
    let last = {
        let mut events = client.events(None, LONG).expect("a stream");
        chatter(&daemon, 1);
        events.next(LONG).expect("an event").expect("no end").number
    };
    let mut expected = 1;
    let mut missed = 0;
    for line in BufReader::new(stream).lines() {
        let line = line.expect("a line");
        let Ok(event) = serde_json::from_str::<wire::Event>(&line) else {
            assert!(expected == 1, "no event: {line}");
            continue;
        };
        if let Some(count) = event.dropped {
            missed += count;
            expected += count;
            assert_eq!(event.number + 1, expected, "{event:?}");
        } else {
            assert_eq!(event.number, expected, "{event:?}");
            expected += 1;
        }
        if event.number == last {
            break;
        }
    }
    assert!(missed > 0 && expected == last + 1, "missed {missed} of {last}, up to {expected}");
    assert!(daemon.stop().success());
}
