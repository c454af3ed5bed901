//! Workers that ask for what other versions ask for, and for what makes no sense. What Node's own
//! primary and its workers said to each other is in integration/node_recordings.rs.

use core::net::Ipv4Addr;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::protocol::node_ipc::{DatagramFamily, Line, Stream};

fn query(fields: &Value) -> String {
    let mut message = json!({"cmd": "NODE_CLUSTER", "act": "queryServer", "index": 0, "seq": 1});
    let all = message.as_object_mut().expect("an object");
    all.extend(fields.as_object().expect("an object").clone());
    message.to_string()
}

fn port(port: u16) -> String {
    query(&json!({"address": null, "port": port, "addressType": 4}))
}

fn asks(primary: &mut Primary<u32>, text: &str) -> Query {
    match primary.hear(text) {
        (Heard::Query(query), None) => query,
        other => panic!("{text}: {other:?}"),
    }
}

fn text(line: &Line) -> String {
    String::from_utf8(line.as_bytes().to_vec()).expect("text")
}

fn parsed(line: &Line) -> Value {
    serde_json::from_slice(line.as_bytes()).expect("JSON")
}

#[test]
fn a_second_server_at_the_same_place_is_refused_and_a_closed_one_may_come_back() {
    let mut primary = Primary::<u32>::default();
    let first = asks(&mut primary, &port(8000));
    // Even before the first was answered.
    let (heard, answer) = primary.hear(&port(8000));
    assert!(matches!(heard, Heard::Ignored(Ignored::QueryTwice)), "{heard:?}");
    let answer = parsed(&answer.expect("an answer"));
    assert_eq!((&answer["errno"], &answer["ack"]), (&json!(-98), &json!(1)));
    let key = first.key.clone();
    assert!(!primary.has(&key) && !primary.is_listening());
    primary.dispatch(first, None, None);
    assert!(primary.has(&key) && !primary.is_listening());
    let close = json!({"cmd": "NODE_CLUSTER", "act": "close", "key": key.as_str(), "seq": 2});
    assert!(matches!(primary.hear(&close.to_string()).0, Heard::Closed(closed) if closed == key));
    let (heard, _) = primary.hear(&close.to_string());
    assert!(matches!(heard, Heard::Ignored(Ignored::StrayClose)));
    let again = asks(&mut primary, &port(8000));
    primary.refuse(again, Errno::EACCES);
    asks(&mut primary, &port(8000));
}

#[test]
fn ready_is_when_each_server_that_was_asked_for_listens() {
    let mut primary = Primary::<u32>::default();
    let place =
        |port, index| json!({"address": null, "port": port, "addressType": 4, "index": index});
    let chosen = asks(&mut primary, &query(&place(0, 0)));
    let fixed = asks(&mut primary, &query(&place(8000, 0)));
    let second = asks(&mut primary, &query(&place(0, 1)));
    let (chosen_key, fixed_key, second_key) =
        (chosen.key.clone(), fixed.key.clone(), second.key.clone());
    for query in [chosen, fixed, second] {
        primary.dispatch(query, None, None);
    }
    let mut listens = |port, index| {
        let text = query(&place(port, index)).replace("queryServer", "listening");
        match primary.hear(&text).0 {
            Heard::Listening { key, port: Some(_) } => (Some(key), primary.is_listening()),
            Heard::ListeningUnasked { .. } => (None, primary.is_listening()),
            other => panic!("{text}: {other:?}"),
        }
    };
    // The port says which; where the kernel chose it the number among its likes does.
    assert_eq!(listens(8000, 0), (Some(fixed_key), false));
    assert_eq!(listens(45000, 1), (Some(second_key), false));
    assert_eq!(listens(45001, 2), (None, false));
    assert_eq!(listens(45002, 0), (Some(chosen_key), true));
}

#[test]
fn a_connection_is_with_the_worker_or_with_us() {
    let mut primary = Primary::default();
    let query = asks(&mut primary, &port(8000));
    let key = query.key.clone();
    primary.dispatch(query, None, None);
    let numbers: Vec<u64> = (0..OFFERED_MAX)
        .map(|connection| {
            let connection = u32::try_from(connection).expect("few");
            primary.offer(&key, Stream::Tcp, connection).expect("room").number
        })
        .collect();
    assert_eq!(primary.offer(&key, Stream::Tcp, 1000).map(|_| ()), Err(1000));
    let mut answers = |number: u64, accepted: Value| {
        let text = json!({"cmd": "NODE_CLUSTER", "ack": number, "accepted": accepted, "seq": 9});
        primary.hear(&text.to_string()).0
    };
    assert!(matches!(answers(numbers[1], json!(true)), Heard::Accepted(1)));
    assert!(matches!(answers(numbers[0], json!(false)), Heard::Refused(0)));
    assert!(matches!(answers(numbers[2], json!(null)), Heard::Refused(2)));
    let stray = answers(numbers[1], json!(true));
    assert!(matches!(stray, Heard::Ignored(Ignored::StrayAnswer)), "{stray:?}");
    assert_eq!(primary.take_back(numbers[3]), Some(3));
    assert_eq!(primary.offered(), OFFERED_MAX - 4);
    assert_eq!(primary.into_offered().take(2).collect::<Vec<_>>(), [4, 5]);
}

#[test]
fn who_is_told_to_stop_gets_nothing_any_more() {
    let mut primary = Primary::<u32>::default();
    let query = asks(&mut primary, &port(8001));
    let key = query.key.clone();
    primary.dispatch(query, None, None);
    assert!(primary.has(&key));
    primary.disconnect();
    assert!(!primary.has(&key));
    let (heard, answer) = primary.hear(&port(8000));
    assert!(matches!(heard, Heard::Ignored(Ignored::QueryTooLate)) && answer.is_none());
}

#[test]
fn what_workers_of_other_versions_ask_is_understood() {
    for (fields, wanted, key) in [
        // Node 18, whose program listens with a server that it was given.
        (
            json!({"address": null, "port": -1, "addressType": -1, "index": 1}),
            Wanted::Given,
            "null:-1:-1:undefined:1",
        ),
        (
            json!({"address": "", "port": "8000", "addressType": 4, "flags": null, "backlog": false}),
            Wanted::Tcp { host: Host::Any, port: 8000 },
            ":8000:4:undefined",
        ),
        (
            json!({"address": "fe80::1%eth0", "port": 1, "addressType": 6, "flags": 0}),
            Wanted::Tcp {
                host: Host::V6 {
                    address: "fe80::1".parse().expect("an address"),
                    zone: Some("eth0".to_owned()),
                    only: false,
                },
                port: 1,
            },
            "fe80::1%eth0:1:6:undefined",
        ),
        (
            json!({"address": null, "port": null, "addressType": "udp6", "fd": 5, "flags": null}),
            Wanted::Descriptor { number: 5, kind: Kind::Datagram(DatagramFamily::V6) },
            "null:null:udp6:5",
        ),
        // Two datagram sockets of one worker need two names, also where no port is given.
        (
            json!({"address": "0.0.0.0", "addressType": "udp4", "fd": -1, "flags": 0, "index": 3}),
            Wanted::Udp { host: Host::V4(Ipv4Addr::UNSPECIFIED), port: 0, reuse_address: false },
            "0.0.0.0:undefined:udp4:-1:3",
        ),
    ] {
        let query = asks(&mut Primary::default(), &query(&fields));
        assert_eq!((query.wanted, query.key.as_str()), (wanted, key), "{fields}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_since_a_worker_waits() {
    let long = format!("/{}", "x".repeat(5000));
    for (fields, errno) in [
        (json!({"address": "localhost", "port": 1, "addressType": 4}), -22),
        (json!({"address": "::1", "port": 1, "addressType": 4}), -22),
        (json!({"address": "127.0.0.1", "port": 1, "addressType": 6}), -22),
        (json!({"address": null, "port": 65536, "addressType": 4}), -22),
        (json!({"address": null, "port": -2, "addressType": 4}), -22),
        (json!({"address": null, "port": 1.5, "addressType": 4}), -22),
        (json!({"address": null, "port": 1, "addressType": "tcp"}), -22),
        (json!({"address": null, "port": 1, "addressType": 5}), -22),
        (json!({"address": null, "port": null, "addressType": null}), -22),
        (json!({"address": "app.sock", "port": -1, "addressType": -1}), -22),
        (json!({"address": "/a\u{0}b", "port": -1, "addressType": -1}), -22),
        (json!({"address": long, "port": -1, "addressType": -1}), -36),
        (json!({"address": null, "port": null, "fd": 4_294_967_296_u64}), -9),
        (json!({"address": null, "port": 1, "addressType": 4, "data": "x".repeat(20_000)}), -22),
        (json!({}), -22),
    ] {
        let mut primary = Primary::<u32>::default();
        let (heard, answer) = primary.hear(&query(&fields));
        assert!(matches!(heard, Heard::Ignored(Ignored::QueryRefused(_))), "{fields}: {heard:?}");
        let answer = parsed(&answer.expect("an answer"));
        assert_eq!((&answer["errno"], &answer["ack"]), (&json!(errno), &json!(1)), "{fields}");
    }
    let unnumbered = port(1).replace("\"seq\":1", "\"seq\":null");
    let (heard, answer) = Primary::<u32>::default().hear(&unnumbered);
    assert!(matches!(heard, Heard::Ignored(Ignored::QueryUnreadable)) && answer.is_none());
}

#[test]
fn a_worker_has_so_many_servers_and_no_more() {
    let mut primary = Primary::<u32>::default();
    for number in 0..SERVERS_MAX {
        asks(&mut primary, &port(u16::try_from(number).expect("few")));
    }
    let (heard, answer) = primary.hear(&port(60_000));
    assert!(matches!(heard, Heard::Ignored(Ignored::QueryTooMany)));
    assert_eq!(parsed(&answer.expect("an answer"))["errno"], json!(-24));
}

#[test]
fn a_refused_tls_server_gets_its_data_back_which_it_reads_before_the_error() {
    let mut primary = Primary::<u32>::default();
    let fields =
        json!({"address": null, "port": 1, "addressType": 4, "data": {"ticketKeys": "00"}});
    let asked = asks(&mut primary, &query(&fields));
    let line = parsed(&primary.refuse(asked, Errno::EACCES));
    assert_eq!((&line["errno"], &line["data"]["ticketKeys"]), (&json!(-13), &json!("00")));
}

#[test]
fn errors_have_the_names_that_programs_see() {
    assert_eq!(Errno::from_raw(98), Some(Errno::EADDRINUSE));
    assert_eq!(Errno::from_raw(0), None);
    assert_eq!(Errno::EACCES.to_string(), "EACCES");
    assert_eq!(Errno::from_raw(5).map(|errno| errno.to_string()).as_deref(), Some("error 5"));
}

#[test]
fn sockets_that_a_worker_sent_us_are_nobodys_business_at_once() {
    let mut primary = Primary::<u32>::default();
    for (asked, answered) in [
        (
            r#"{"cmd":"NODE_SOCKET_NOTIFY_CLOSE","key":"6::::0"}"#,
            r#"{"cmd":"NODE_SOCKET_ALL_CLOSED","key":"6::::0"}"#,
        ),
        (
            r#"{"cmd":"NODE_SOCKET_GET_COUNT","key":"6::::0"}"#,
            r#"{"cmd":"NODE_SOCKET_COUNT","key":"6::::0","count":0}"#,
        ),
    ] {
        let (heard, answer) = primary.hear(asked);
        assert!(matches!(heard, Heard::Settled));
        assert_eq!(text(&answer.expect("an answer")), format!("{answered}\n"));
    }
    let (heard, answer) = primary.hear(r#"{"cmd":"NODE_DEBUG_ENABLED"}"#);
    assert!(
        matches!(heard, Heard::Ignored(Ignored::Unknown(name)) if name == "NODE_DEBUG_ENABLED")
    );
    assert!(answer.is_none());
}

/// Values that a field may have, most of them of another type than it should.
fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        (-2..10i64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        prop::sample::select(vec!["", "::1", "127.0.0.1", "/a", "udp4", "udp6", "null", "8000"])
            .prop_map(Value::from),
        ".{0,10}".prop_map(Value::from),
        Just(json!({"ticketKeys": "00"})),
        Just(json!([[{}]])),
    ]
}

proptest! {
    #[test]
    fn whatever_a_worker_says_who_waits_is_answered_and_nothing_grows(
        messages in prop::collection::vec(
            (
                prop::sample::select(vec![
                    "online", "queryServer", "listening", "close", "exitedAfterDisconnect", "x",
                ]),
                prop::collection::btree_map(
                    prop::sample::select(vec![
                        "seq", "ack", "accepted", "key", "index", "data", "address", "port",
                        "addressType", "fd", "flags", "backlog",
                    ]),
                    values(),
                    0..12,
                ),
            ),
            0..30,
        ),
    ) {
        let mut primary = Primary::<u32>::default();
        let mut seq = 0;
        let mut asked: Option<Query> = None;
        let mut is_leaving = false;
        for (act, fields) in messages {
            let mut message = json!({"cmd": "NODE_CLUSTER", "act": act, "seq": 7});
            let all = message.as_object_mut().expect("an object");
            all.extend(fields.into_iter().map(|(name, value)| (name.to_owned(), value)));
            let waits = act == "queryServer"
                && message["seq"].as_u64().is_some()
                && message.get("ack").is_none();
            let (heard, answer) = primary.hear(&message.to_string());
            for line in answer.iter().chain(&asked.take().map(|query| {
                let data = query.data.clone();
                primary.dispatch(query, None, data.as_ref())
            })) {
                let line = parsed(line);
                prop_assert_eq!(&line["cmd"], "NODE_CLUSTER");
                seq += 1;
            }
            let is_query = matches!(heard, Heard::Query(_));
            if waits && !is_leaving {
                prop_assert!(is_query != answer.is_some(), "{message}");
            }
            is_leaving |= matches!(heard, Heard::Leaving);
            if let Heard::Query(query) = heard {
                asked = Some(query);
            }
        }
        prop_assert!(seq <= 60);
        prop_assert_eq!(primary.offered(), 0);
    }
}
