//! The schema says of a text what the reader says, as far as a schema can.

use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::config::{listen, yaml};

const EXAMPLE: &str = include_str!("../../../examples/shepherd.yaml");

/// What in a value a schema does not allow. Of a pattern only that it is for text is looked at: what
/// it is to match is for editors, and read by parsers that have tests of their own.
fn wrong(schema: &Value, value: &Value, root: &Value) -> Option<String> {
    let schema = schema.as_object().expect("a schema is an object");
    schema.iter().find_map(|(keyword, rule)| {
        let subject = format!("{value} against {keyword}: {rule}");
        let fails = |fails: bool| fails.then(|| subject.clone());
        let each = |rule: &Value| wrong(rule, value, root);
        let rules = || rule.as_array().expect("schemas").iter();
        match keyword.as_str() {
            "$ref" => {
                let pointer = rule.as_str().and_then(|text| text.strip_prefix('#'));
                each(root.pointer(pointer.expect("of this schema")).expect("there"))
            }
            "anyOf" => fails(rules().all(|rule| each(rule).is_some())),
            "oneOf" => fails(rules().filter(|rule| each(rule).is_none()).count() != 1),
            "enum" => fails(!rule.as_array().expect("values").contains(value)),
            "type" => {
                let types = rule.as_array().cloned().unwrap_or_else(|| vec![rule.clone()]);
                fails(!types.iter().any(|wanted| is_a(value, wanted.as_str().expect("a type"))))
            }
            "minimum" => fails(value.as_f64() < rule.as_f64() && value.is_number()),
            "maximum" => fails(value.as_f64() > rule.as_f64() && value.is_number()),
            "minLength" => fails(value.as_str().is_some_and(str::is_empty)),
            "minItems" => fails(value.as_array().is_some_and(Vec::is_empty)),
            "items" => value.as_array()?.iter().find_map(|item| wrong(rule, item, root)),
            "required" => {
                let map = value.as_object()?;
                fails(rules().any(|key| !map.contains_key(key.as_str().expect("a key"))))
            }
            "properties" => {
                let known = rule.as_object().expect("properties");
                let mut entries = value.as_object()?.iter();
                entries.find_map(|(key, value)| wrong(known.get(key)?, value, root))
            }
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                let is_other = |key: &str| known.is_none_or(|known| !known.contains_key(key));
                let mut others = value.as_object()?.iter().filter(|(key, _)| is_other(key));
                match rule {
                    Value::Bool(false) => fails(others.next().is_some()),
                    rule => others.find_map(|(_, value)| wrong(rule, value, root)),
                }
            }
            "pattern" | "description" | "title" | "$schema" | "$defs" => None,
            other => panic!("the schema says `{other}`, which nothing here looks at"),
        }
    })
}

fn is_a(value: &Value, wanted: &str) -> bool {
    match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        other => panic!("the schema has a type `{other}`"),
    }
}

fn refused(text: &str) -> Option<String> {
    let schema = json_schema();
    wrong(&schema, &yaml::to_json(text), &schema)
}

#[test]
fn the_example_is_as_the_schema_says() {
    assert_eq!(refused(EXAMPLE), None);
}

#[test]
fn what_can_be_written_in_several_ways_may_be() {
    let service = |lines: &str| format!("services: {{web: {{command: a, {lines}}}}}");
    for right in [
        "workers: 4",
        "workers: auto",
        "workers: \"${N}\"",
        "listen: 8000",
        "listen: [8000, \"web=8001,backlog=5\", {port: 80, no_delay: yes, backlog: 5}]",
        "listen: {unix: a.sock, mode: 0660, unlink: false}",
        "env: {A: 1, B: true, C: 1.5, D: x}",
        "env_file: .env",
        "env_file: [.env, x]",
        "user: 1000, group: www-data, groups: [1, a]",
        "groups: []",
        "umask: 027",
        "umask: 22",
        "nice: -5, no_new_privs: true",
        "messages: true",
        "limits: {nofile: 65536, core: unlimited}",
        "stop: TERM",
        "stop: [TERM, \"INT:5s\"]",
        "depends_on: a, bind_to: [b, c]",
        "ready: http:/, ready_timeout: 1m30s, drain_timeout: 0s",
        "balance: slots, drain: {before_stop: auto}",
        "balance: \"${BALANCE}\", drain: {before_stop: 10s}",
        "listen: 8000, on_failing: refuse",
        "on_failing: wait",
        "drain: {}",
        "reload: {canary: 5%, canary_for: 1m30s, probation: 0s}",
        "reload: {canary: \"${CANARY}\"}",
        "reload: {surge: 2}",
        "reload: {surge: 25%}",
        "reload: {surge: auto, probation: 10s}",
        "reload: {surge: \"${SURGE}\"}",
        "reload: {}",
    ] {
        assert_eq!(refused(&service(right)), None, "{right}");
    }
}

#[test]
fn what_a_schema_can_see_is_refused_by_it_too() {
    for wrong in [
        "{}",
        "services: []",
        "servces: {}",
        "services: {web: {}}",
        "services: {web: {command: []}}",
        "services: {web: {command: a, workrs: 2}}",
        "services: {web: {command: a, workers: 0}}",
        "services: {web: {command: a, workers: [1]}}",
        "services: {web: {command: a, drain_timeout: 30}}",
        "services: {web: {command: a, drain: 10s}}",
        "services: {web: {command: a, drain: {before_stop: 10}}}",
        "services: {web: {command: a, drain: {timeout: 10s}}}",
        "services: {web: {command: a, reload: {canary: 5}}}",
        "services: {web: {command: a, reload: {surge: [5]}}}",
        "services: {web: {command: a, listen: {port: 80, unix: a}}}",
        "services: {web: {command: a, listen: {backlog: 5}}}",
        "services: {web: {command: a, listen: {port: 80, backlogg: 5}}}",
        "services: {web: {command: a, nice: 20}}",
    ] {
        assert!(refused(wrong).is_some(), "{wrong}");
    }
}

/// The reader, the schema and so the manual know the same keys, and each is described.
#[test]
fn each_key_is_in_the_schema_with_a_description() {
    let schema = json_schema();
    let map = |pointer: &str| schema.pointer(pointer).and_then(Value::as_object).expect("there");
    let listen = map("/$defs/Listen")["anyOf"]
        .as_array()
        .and_then(|ways| ways.iter().find_map(|way| way["properties"].as_object()))
        .expect("a map");
    for (properties, keys) in [
        (map("/properties"), File::KEYS.to_vec()),
        (map("/$defs/Service/properties"), Service::KEYS.to_vec()),
        (map("/$defs/DrainKeys/properties"), DrainKeys::KEYS.to_vec()),
        (map("/$defs/UpstreamsKeys/properties"), UpstreamsKeys::KEYS.to_vec()),
        (listen, listen::keys()),
    ] {
        let known: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
        assert_eq!(known, keys.into_iter().collect());
        for (key, schema) in properties {
            let about = schema["description"].as_str().unwrap_or_default();
            assert!(about.ends_with('.'), "{key}: {about}");
        }
    }
    assert_eq!(map("/$defs/Service")["required"], json!(["command"]));
}

#[test]
fn what_others_call_a_key_is_no_key_and_leads_to_one() {
    for (theirs, ours) in OTHER_NAMES {
        assert!(Service::KEYS.contains(ours), "{ours}");
        assert!(!Service::KEYS.contains(theirs), "{theirs}");
    }
    assert!(OTHER_NAMES.is_sorted());
}
