//! The document against the table and the types.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Value, json, to_value};

use super::DOCUMENT;
use crate::control::api::ROUTES;
use crate::control::wire;
use crate::control::wire::Level::{Error, Info, Warning};
use crate::control::wire::MemberState as Member;
use crate::control::wire::WorkerState::{Draining, Ready, Starting};
use crate::control::wire::{ProblemKind as Kind, ServiceState as State};

fn document() -> Value {
    serde_json::from_str(DOCUMENT).expect("JSON")
}

#[test]
fn it_has_the_routes_of_the_table_and_no_others() {
    let document = document();
    let paths = document["paths"].as_object().expect("paths");
    let described: BTreeSet<(String, String)> = paths
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().expect("methods").keys();
            methods.map(|method| (path.clone(), method.to_uppercase()))
        })
        .collect();
    let table: BTreeSet<(String, String)> = ROUTES
        .iter()
        .map(|route| (route.path.to_owned(), route.method.as_str().to_owned()))
        .collect();
    assert_eq!(described, table);
    assert_eq!(table.len(), ROUTES.len(), "a route is there twice");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn variable_parts_of_paths_are_described() {
    let document = document();
    for route in ROUTES {
        let operation = &document["paths"][route.path][route.method.as_str().to_lowercase()];
        let none = Vec::new();
        let parameters = operation["parameters"].as_array().unwrap_or(&none).iter();
        let described: Vec<String> = parameters
            .map(|parameter| resolved(&document, parameter))
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| format!("{{{}}}", parameter["name"].as_str().expect("a name")))
            .collect();
        let variable: Vec<&str> =
            route.path.split('/').filter(|part| part.starts_with('{')).collect();
        assert_eq!(described, variable, "{}", route.path);
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_used() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| match value {
                Value::String(reference) if name == "$ref" => {
                    found.insert(reference.clone());
                }
                other => references(other, found),
            }),
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for reference in &found {
        resolve(&document, reference);
    }
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    for name in schemas.keys() {
        assert!(found.contains(&format!("#/components/schemas/{name}")), "nobody uses {name}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one of each, with each field")]
fn types_have_the_fields_that_are_described_and_no_others() {
    let socket = socket();
    let left = wire::Left { connections: Some(2), queued: Some(1), handshakes: Some(0) };
    holds("Left", &left);
    let messages = wire::Messages { sent: 1, ..wire::Messages::default() };
    holds("Messages", &messages);
    let worker = wire::Worker {
        id: 1,
        slot: 0,
        generation: 1,
        pid: Some(2),
        state: wire::WorkerState::Draining,
        since: 0.5,
        left: Some(left),
        next_in: Some(0.5),
        stalled: true,
        memory: Some(1),
        connections: Some(2),
        messages: Some(messages),
        unanswered: Some(1),
        taken: Some(7),
        said: Some("x".into()),
    };
    holds("Worker", &worker);
    let backing_off = wire::BackingOff { slot: 1, left: 0.5 };
    holds("BackingOff", &backing_off);
    let dispatched = wire::Dispatched { held: 1, taken: 2, given_again: 1 };
    holds("Dispatched", &dispatched);
    let service = wire::Service {
        name: "web".into(),
        state: wire::ServiceState::Up,
        wanted: 1,
        ready: 1,
        generation: 1,
        balance: Some("slots".into()),
        dispatched: Some(dispatched),
        reloading: Some(2),
        canary: Some(CANARY),
        probation: Some(0.5),
        changed_over: Some(1),
        queued: true,
        last_abort: Some("x".into()),
        waits_for: vec!["db".into()],
        restarts: 0,
        sockets: vec![socket],
        workers: vec![worker],
        backing_off: vec![backing_off],
    };
    holds("Service", &service);
    let daemon = wire::Daemon {
        name: "web".into(),
        version: "0.1.0".into(),
        pid: 1,
        up: 0.5,
        stopping: true,
        drains_in: Some(1.5),
        longest_turn: 0.001,
        file: Some("x".into()),
    };
    holds("Daemon", &daemon);
    holds("Status", &wire::Status { daemon, services: vec![service] });
    let stop = wire::StopStep { signal: "TERM".into(), wait: 30.0 };
    holds("StopStep", &stop);
    let config = wire::ServiceConfig {
        name: "web".into(),
        command: vec!["./server".into()],
        directory: Some("/srv".into()),
        workers: 1,
        listen: vec!["8000".into()],
        handoff: "auto".into(),
        node_fork: false,
        ready: "auto".into(),
        ready_timeout: 30.0,
        balance: "generation".into(),
        on_failing: "wait".into(),
        before_stop: "auto".into(),
        keepalive: "leave".into(),
        surge: "auto".into(),
        canary: Some("5%".into()),
        canary_for: Some(30.0),
        probation: 60.0,
        stop: vec![stop],
        env: vec!["PORT".into()],
        env_files: vec!["/srv/env".into()],
        user: Some("www".into()),
        group: Some("www".into()),
        messages: true,
        depends_on: vec!["db".into()],
        bind_to: vec!["db".into()],
    };
    holds("ServiceConfig", &config);
    holds("Config", &wire::Config { services: vec![config] });
    holds("Reload", &wire::Reload { services: vec!["web".into()], queue: true });
    holds("RollBack", &wire::RollBack { services: vec!["web".into()] });
    holds("Signal", &wire::Signal { signal: "HUP".into() });
    let data = serde_json::value::RawValue::from_string("1".into()).expect("JSON");
    holds("Message", &wire::Message { data });
    holds("Sent", &wire::Sent { worker: 1, service: "web".into(), slot: 0, waiting: 2 });
    let done = wire::DoneService { name: "web".into(), generation: 1, workers: 1 };
    holds("DoneService", &done);
    holds("Done", &wire::Done { services: vec![done] });
    let event = wire::Event {
        number: 1,
        time: "2026-01-31T12:00:00.000000Z".into(),
        kind: "dropped".into(),
        message: "m".into(),
        level: wire::Level::Info,
        service: Some("web".into()),
        slot: Some(0),
        worker: Some(1),
        pid: Some(2),
        generation: Some(1),
        left: Some(left),
        dropped: Some(1),
    };
    holds("Event", &event);
}

#[test]
fn parts_of_others_have_the_fields_that_are_described() {
    holds("Canary", &CANARY);
    holds("Socket", &socket());
    holds("Member", &socket().members[0]);
}

const CANARY: wire::Canary = wire::Canary { percent: 5, left: 0.5 };

#[test]
fn problems_have_the_fields_that_are_described_and_no_others() {
    let ended = wire::EndedService {
        name: "web".into(),
        outcome: wire::COMMITTED.into(),
        generation: Some(1),
        detail: Some("d".into()),
        worker: Some(1),
        output: vec!["x".into()],
    };
    holds("EndedService", &ended);
    let problem = wire::Problem {
        kind: wire::ProblemKind::Aborted,
        title: "t".into(),
        status: 500,
        detail: "d".into(),
        service: Some("web".into()),
        worker: Some(1),
        output: vec!["x".into()],
        services: vec![ended],
    };
    holds("Problem", &problem);
}

/// A socket with all that there is.
fn socket() -> wire::Socket {
    let member = wire::Member {
        member: 3,
        generation: Some(1),
        slot: Some(0),
        state: Some(wire::MemberState::Serving),
        weight: Some(1),
        queued: Some(1),
        queue_max: Some(4096),
        queued_bytes: Some(0),
        queue_max_bytes: Some(0),
    };
    wire::Socket { name: Some("http".into()), address: "[::]:8000".into(), members: vec![member] }
}

/// Every field of a value whose fields are all set is described, and the other way round; what is
/// required is there also when nothing is set.
fn holds(name: &str, value: &impl Serialize) {
    let document = document();
    let schema = &document["components"]["schemas"][name];
    let keys = |value: &Value| -> BTreeSet<String> {
        value.as_object().expect("an object").keys().cloned().collect()
    };
    let fields = keys(&to_value(value).expect("JSON"));
    assert_eq!(keys(&schema["properties"]), fields, "{name}");
    for required in schema["required"].as_array().unwrap_or(&Vec::new()) {
        assert!(fields.contains(required.as_str().expect("a name")), "{name}: {required}");
    }
}

#[test]
fn words_are_those_of_the_types() {
    let states = [
        State::Waiting,
        State::Starting,
        State::Up,
        State::Reloading,
        State::Failing,
        State::Stopping,
        State::Stopped,
    ];
    assert_eq!(words("ServiceState"), json!(states));
    assert_eq!(words("WorkerState"), json!([Starting, Ready, Draining]));
    let members = [
        Member::Serving,
        Member::Parked,
        Member::Stalled,
        Member::Draining,
        Member::Spare,
        Member::Closing,
        Member::Down,
    ];
    assert_eq!(words("MemberState"), json!(members));
    let kinds = [
        Kind::BadRequest,
        Kind::NotFound,
        Kind::InProgress,
        Kind::Stopping,
        Kind::Configuration,
        Kind::Bind,
        Kind::Aborted,
        Kind::NotPutBack,
        Kind::TooBusy,
        Kind::Forbidden,
        Kind::Failed,
    ];
    assert_eq!(words("ProblemKind"), json!(kinds));
    assert_eq!(words("ProblemKind"), json!(kinds.map(crate::control::problem::name)));
    let levels = &document()["components"]["schemas"]["Event"]["properties"]["level"]["enum"];
    assert_eq!(*levels, json!([Info, Warning, Error]));
    for body in [json!({"to": 3}), json!({"by": -1})] {
        let read: wire::Scale = serde_json::from_value(body.clone()).expect("a change");
        assert_eq!(json!(read), body);
    }
}

fn words(schema: &str) -> Value {
    document()["components"]["schemas"][schema]["enum"].clone()
}

fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    value["$ref"].as_str().map_or(value, |reference| resolve(document, reference))
}

fn resolve<'a>(document: &'a Value, reference: &str) -> &'a Value {
    let pointer = reference.strip_prefix('#').expect("a reference within the document");
    document.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"))
}
