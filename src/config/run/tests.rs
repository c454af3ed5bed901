//! Services checked against each other.

use std::time::Duration;

use super::testing::{config, service};
use super::*;
use crate::core::policy::ReadyWhen;

fn errors(services: Vec<ServiceConfig>) -> Vec<String> {
    let errors = config(services).check().err().unwrap_or_default();
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn services_that_fit_together_pass() {
    let services = vec![
        service("db", &["unix:/run/db.sock"], &[]),
        service("web", &["8000", "udp:8000", "localhost:0"], &["db", "cache"]),
        service("cache", &["localhost:0", "127.0.0.2:8001"], &["db"]),
    ];
    assert!(errors(services).is_empty());
}

#[test]
fn one_address_in_two_services_names_both() {
    for (first, second) in [
        ("8000", "8000"),
        ("8000", "[::]:8000"),
        ("127.0.0.1:8000", "localhost:8000"),
        ("8000", "127.0.0.1:8000"),
        ("unix:@shop", "unix:@shop"),
        ("udp:53", "other=udp:53,receive_buffer=1M"),
    ] {
        let errors = errors(vec![service("web", &[first], &[]), service("api", &[second], &[])]);
        assert_eq!(errors.len(), 1, "{first} {second} {errors:?}");
        assert!(errors[0].starts_with("services `web` and `api` both listen on `"), "{errors:?}");
    }
}

#[test]
fn one_address_twice_in_one_service_is_told_once() {
    assert_eq!(
        errors(vec![service("web", &["8000", "[::1]:8000"], &[])]),
        ["`[::1]:8000` is asked for twice; an address is bound once, so give one of the sockets \
          another"]
    );
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let late = ServiceConfig {
        ready: ReadyWhen::Alive(Duration::from_secs(60)),
        ..service("late", &[], &["wbe"])
    };
    let services = vec![late, service("web", &["a=0", "a=0"], &["late"]), service("web", &[], &[])];
    assert_eq!(
        errors(services),
        [
            "service `late`: `ready: alive:60s` is not shorter than `ready_timeout: 30s`, so no \
             worker could get ready; raise the timeout",
            "service `web`: the name `a` is given to two sockets; names tell sockets apart",
            "there are two services of the name `web`; rename one of them",
            "service `late` depends on `wbe`, and there is no such service; did you mean `web`?",
        ]
    );
    assert_eq!(errors(Vec::new()), ["there is no service; add one under `services`"]);
}

#[test]
fn a_circle_is_told_as_it_goes_and_without_those_who_only_lead_into_it() {
    let bound = ServiceConfig { bind_to: vec!["a".to_owned()], ..service("c", &[], &[]) };
    let services = vec![
        service("outside", &[], &["a"]),
        service("a", &[], &["free", "b"]),
        service("b", &[], &["c"]),
        bound,
        service("free", &[], &[]),
    ];
    assert_eq!(
        errors(services),
        ["services depend on each other in a circle: `a` -> `b` -> `c` -> `a`; none of \
             them could start, so take one of these dependencies away"]
    );
    let alone = errors(vec![service("a", &[], &["a"])]);
    assert!(alone[0].contains("in a circle: `a` -> `a`; none"), "{alone:?}");
}
