//! The page for Prometheus: it is as agreed, and read by a parser of its own, which knows nothing of how it was written.

#![expect(clippy::panic, reason = "a test fails by it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use shepherd::control::metrics::{Counters, Format, Outcome, page};
use shepherd::control::wire::{
    BackingOff, Daemon, Dispatched, Member, MemberState, Messages, Service, ServiceState, Socket,
    Status, Worker, WorkerState,
};
use shepherd::core::event::{Exit, SpawnFailure};
use shepherd::core::ids::{GenerationId, Pid, SlotId, WorkerId};
use shepherd::core::notice::{AfterAbort, Next, Notice, WorkerName};
use shepherd::core::readiness::Evidence;
use shepherd::core::worker::Cause;

/// The agreed page, beside the other snapshots.
const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/snapshots/metrics.txt");

#[test]
fn the_page_is_as_agreed() {
    let shown = page(status(), counters(), Format::OpenMetrics);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(SNAPSHOT, &shown).expect("the snapshot can be written");
    }
    let agreed = fs::read_to_string(SNAPSHOT).expect("it is there: UPDATE_SNAPSHOTS=1");
    assert_eq!(agreed, shown, "{SNAPSHOT}: UPDATE_SNAPSHOTS=1 writes it anew");
}

#[test]
fn names_types_help_units_and_labels_are_as_they_should_be() {
    for format in [Format::OpenMetrics, Format::Prometheus] {
        for (counters, status) in [(Counters::default(), bare()), (counters(), status())] {
            lint(&page(status, counters, format), format);
        }
    }
}

#[test]
fn both_formats_show_the_same() {
    // One writes 1.0 where the other writes 1.
    let number = |text: &str| text.parse::<f64>().expect("a number").to_string();
    let series = |format| {
        let parsed = parse(&page(status(), counters(), format));
        let samples = parsed.into_iter().flat_map(|family| family.samples);
        let alike = samples.map(|(mut series, value)| {
            series.labels.entry("le".to_owned()).and_modify(|bound| *bound = number(bound));
            (series, number(&value))
        });
        alike.collect::<BTreeMap<_, _>>()
    };
    assert_eq!(series(Format::OpenMetrics), series(Format::Prometheus));
}

#[test]
fn every_series_of_a_service_is_there_before_anything_happened() {
    let series = |counters| {
        let parsed = parse(&page(status(), counters, Format::Prometheus));
        let samples = parsed.into_iter().flat_map(|family| family.samples);
        samples.map(|(series, _)| series).collect::<BTreeSet<_>>()
    };
    assert_eq!(series(Counters::default()), series(counters()));
}

#[test]
fn what_is_shown_is_what_happened() {
    let shown = page(status(), counters(), Format::Prometheus);
    for line in [
        "shepherd_build_info{version=\"0.1.0\"} 1",
        "shepherd_stopping 0",
        "shepherd_loop_turn_longest_seconds 0.03",
        "shepherd_loop_turn_seconds_count 2",
        "shepherd_service_up{service=\"web\"} 1",
        "shepherd_service_up{service=\"mail\"} 0",
        "shepherd_service_failing{service=\"mail\"} 1",
        "shepherd_service_workers{service=\"web\",state=\"ready\"} 1",
        "shepherd_service_workers{service=\"web\",state=\"draining\"} 1",
        "shepherd_worker_starts_total{service=\"web\"} 2",
        "shepherd_messages_sent_total{service=\"web\"} 6",
        "shepherd_messages_lost_total{service=\"web\",why=\"dropped\"} 2",
        "shepherd_messages_lost_total{service=\"mail\",why=\"dropped\"} 0",
        "shepherd_worker_restarts_total{service=\"mail\"} 7",
        "shepherd_worker_start_failures_total{service=\"mail\",why=\"spawn\"} 1",
        "shepherd_worker_start_failures_total{service=\"mail\",why=\"exit\"} 1",
        "shepherd_worker_start_failures_total{service=\"mail\",why=\"late\"} 1",
        "shepherd_worker_exits_total{service=\"mail\",how=\"failure\"} 1",
        "shepherd_worker_exits_total{service=\"mail\",how=\"signal\"} 1",
        "shepherd_worker_exits_total{service=\"web\",how=\"success\"} 1",
        "shepherd_worker_kills_total{service=\"mail\"} 1",
        "shepherd_worker_start_duration_seconds_bucket{service=\"web\",le=\"0.1\"} 1",
        // Both workers of the slot together.
        "shepherd_worker_memory_bytes{service=\"web\",slot=\"0\"} 3000",
        "shepherd_worker_connections{service=\"web\",slot=\"0\"} 6",
        // Both members of the socket together.
        "shepherd_socket_queue_connections{service=\"web\",socket=\"http\"} 7",
        "shepherd_socket_queue_limit_connections{service=\"web\",socket=\"http\"} 200",
        "shepherd_socket_queue_bytes{service=\"web\",socket=\"udp:[::]:53\"} 0",
        "shepherd_socket_queue_limit_bytes{service=\"web\",socket=\"udp:[::]:53\"} 212992",
        "shepherd_reloads_total{service=\"web\",outcome=\"committed\"} 1",
        "shepherd_reloads_total{service=\"web\",outcome=\"aborted\"} 1",
        "shepherd_control_requests_total{outcome=\"refused\"} 1",
        "shepherd_output_dropped_lines_total 12",
        "shepherd_events_dropped_total 3",
    ] {
        assert!(shown.lines().any(|it| it == line), "no `{line}` in:\n{shown}");
    }
}

#[test]
fn names_of_any_kind_stay_inside_their_quotes() {
    let name = "we\"b\\\n} 1";
    let mut status = status();
    status.services[0].name = name.to_owned();
    for format in [Format::OpenMetrics, Format::Prometheus] {
        let shown = page(status.clone(), Counters::default(), format);
        lint(&shown, format);
        let up = parse(&shown).into_iter().find(|family| family.name == "shepherd_service_up");
        let series = &up.expect("it is there").samples[0].0;
        assert_eq!(series.labels, BTreeMap::from([("service".to_owned(), name.to_owned())]));
    }
}

#[test]
fn services_that_are_gone_are_forgotten() {
    let mut counters = counters();
    counters.keep(["web"].into_iter());
    let shown = page(status(), counters, Format::Prometheus);
    let count = |line: &str| shown.lines().filter(|it| *it == line).count();
    assert_eq!(count("shepherd_worker_starts_total{service=\"web\"} 2"), 1);
    assert_eq!(count("shepherd_worker_kills_total{service=\"mail\"} 0"), 1);
}

#[test]
fn openmetrics_is_for_those_who_ask() {
    for (accept, format) in [
        ("", Format::Prometheus),
        ("*/*", Format::Prometheus),
        ("text/plain;version=0.0.4;q=0.5", Format::Prometheus),
        (
            "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5",
            Format::OpenMetrics,
        ),
    ] {
        assert_eq!(Format::accepted(accept), format, "{accept}");
    }
}

/// A family as it was read.
#[derive(Debug)]
struct Read {
    name: String,
    help: String,
    kind: String,
    unit: Option<String>,
    samples: Vec<(Series, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    name: String,
    labels: BTreeMap<String, String>,
}

fn parse(page: &str) -> Vec<Read> {
    let mut families: Vec<Read> = Vec::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a name and help");
            let (name, help) = (name.to_owned(), help.to_owned());
            let (kind, unit, samples) = (String::new(), None, Vec::new());
            families.push(Read { name, help, kind, unit, samples });
        } else if line == "# EOF" {
            assert!(page.ends_with("# EOF\n"), "something after the end");
        } else if let Some(rest) = line.strip_prefix("# ") {
            let family = families.last_mut().expect("HELP comes first");
            let words: Vec<&str> = rest.split(' ').collect();
            let [keyword, name, value] = words[..] else { panic!("`{line}`") };
            assert_eq!(name, family.name, "`{line}`");
            assert!(family.samples.is_empty(), "`{line}` after samples");
            match keyword {
                "TYPE" => value.clone_into(&mut family.kind),
                "UNIT" => family.unit = Some(value.to_owned()),
                _ => panic!("`{line}`"),
            }
        } else {
            families.last_mut().expect("HELP comes first").samples.push(sample(line));
        }
    }
    families
}

/// `name{label="value",...} 1.5`
fn sample(line: &str) -> (Series, String) {
    let end = line.find(['{', ' ']).expect("a value");
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    while let Some(more) = rest.strip_prefix(['{', ',']) {
        let (label, quoted) = more.split_once("=\"").expect("a label");
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        let end = loop {
            match chars.next().expect("the end of a label") {
                (at, '"') => break at,
                (_, '\\') => match chars.next().expect("an escape").1 {
                    'n' => value.push('\n'),
                    escaped @ ('\\' | '"') => value.push(escaped),
                    other => panic!("`\\{other}` in `{line}`"),
                },
                (_, plain) => value.push(plain),
            }
        };
        assert!(labels.insert(label.to_owned(), value).is_none(), "a label twice: `{line}`");
        rest = &quoted[end + 1..];
    }
    let value = rest.strip_prefix('}').unwrap_or(rest).strip_prefix(' ').expect("one space");
    (Series { name: name.to_owned(), labels }, value.to_owned())
}

fn lint(page: &str, format: Format) {
    assert_eq!(page.ends_with("# EOF\n"), format == Format::OpenMetrics, "the end");
    let families = parse(page);
    let names: BTreeSet<&str> = families.iter().map(|family| family.name.as_str()).collect();
    assert_eq!(names.len(), families.len(), "a family twice");
    let mut seen: BTreeSet<&Series> = BTreeSet::new();
    for family in &families {
        let Read { name, help, kind, unit, samples } = family;
        let plain = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || "_".contains(c));
        assert!(name.starts_with("shepherd_") && plain(name), "{name}");
        assert!(help.ends_with('.') && help.len() > 10 && !help.contains('\\'), "{name}: {help}");
        // A unit is the last word of the name, a base unit, and says so.
        let stem = name.strip_suffix("_total").unwrap_or(name);
        for (word, other) in [("seconds", "milli"), ("bytes", "kilo")] {
            assert_eq!(stem.contains(word), stem.ends_with(&format!("_{word}")), "{name}");
            assert!(!stem.contains(other), "{name}");
            if format == Format::OpenMetrics {
                assert_eq!(unit.as_deref() == Some(word), stem.ends_with(word), "{name}: {unit:?}");
            }
        }
        let suffixes: &[&str] = match (kind.as_str(), format) {
            ("counter", Format::OpenMetrics) => &["_total"],
            ("counter", Format::Prometheus) => {
                assert!(name.ends_with("_total"), "{name}");
                &[""]
            }
            ("gauge", Format::Prometheus) => &["", "_info"],
            ("gauge", Format::OpenMetrics) => &[""],
            ("info", Format::OpenMetrics) => &["_info"],
            ("histogram", _) => &["_bucket", "_sum", "_count"],
            (kind, _) => panic!("{name} is a {kind}"),
        };
        let reserved = ["_total", "_sum", "_count", "_bucket", "_created"];
        let taken = reserved.iter().any(|end| name.ends_with(end));
        assert_eq!(taken, kind == "counter" && format == Format::Prometheus, "{name}");
        for (series, value) in samples {
            let suffix = series.name.strip_prefix(name.as_str()).expect("its family's name");
            assert!(suffixes.contains(&suffix), "{series:?} of a {kind}");
            assert!(seen.insert(series), "twice: {series:?}");
            let number: f64 = value.parse().expect("a number");
            assert!(number >= 0.0 && number.is_finite(), "{series:?} {value}");
            assert_eq!(series.labels.contains_key("le"), suffix == "_bucket", "{series:?}");
            for label in series.labels.keys() {
                let known = [
                    "service", "slot", "socket", "state", "how", "why", "outcome", "version", "le",
                ];
                assert!(known.contains(&label.as_str()), "{series:?} has an unknown label");
            }
        }
        if kind == "histogram" {
            lint_histograms(name, samples);
        }
    }
}

/// Buckets rise, and the last holds all.
fn lint_histograms(name: &str, samples: &[(Series, String)]) {
    let mut buckets: BTreeMap<BTreeMap<String, String>, Vec<(f64, u64)>> = BTreeMap::new();
    let mut counts = BTreeMap::new();
    for (series, value) in samples {
        let mut labels = series.labels.clone();
        if let Some(bound) = labels.remove("le") {
            let bound =
                if bound == "+Inf" { f64::INFINITY } else { bound.parse().expect("a bound") };
            buckets.entry(labels).or_default().push((bound, value.parse().expect("a count")));
        } else if series.name.ends_with("_count") {
            counts.insert(labels, value.parse::<u64>().expect("a count"));
        }
    }
    assert_eq!(buckets.len(), counts.len(), "{name}");
    for (labels, buckets) in buckets {
        assert!(buckets.is_sorted(), "{name} {labels:?}: {buckets:?}");
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, counts[&labels])), "{name} {labels:?}");
    }
}

/// A daemon without a service.
fn bare() -> Status {
    Status { services: Vec::new(), ..status() }
}

fn status() -> Status {
    let worker = |id, slot, generation, state, memory| Worker {
        id,
        slot,
        generation,
        pid: Some(100 + u32::try_from(id).expect("small")),
        state,
        since: 5.0,
        left: None,
        next_in: None,
        stalled: false,
        memory: Some(memory),
        connections: u32::try_from(memory / 500).ok(),
        messages: None,
        unanswered: None,
        taken: None,
        said: None,
    };
    let member = |member, queued| Member {
        member,
        generation: Some(2),
        slot: None,
        state: Some(MemberState::Serving),
        weight: Some(1),
        queued: Some(queued),
        queue_max: Some(100),
        queued_bytes: None,
        queue_max_bytes: None,
    };
    let service = |name: &str, state| Service {
        name: name.to_owned(),
        state,
        wanted: 1,
        ready: 1,
        generation: 2,
        balance: None,
        dispatched: (name == "web").then_some(Dispatched { held: 1, taken: 20, given_again: 2 }),
        reloading: None,
        canary: None,
        probation: None,
        changed_over: None,
        queued: false,
        last_abort: None,
        waits_for: Vec::new(),
        restarts: 0,
        sockets: Vec::new(),
        workers: Vec::new(),
        backing_off: Vec::new(),
    };
    Status {
        daemon: Daemon {
            name: "shop".to_owned(),
            version: "0.1.0".to_owned(),
            pid: 99,
            up: 61.5,
            stopping: false,
            drains_in: None,
            longest_turn: 0.03,
            file: None,
        },
        services: vec![
            Service {
                workers: vec![
                    worker(1, 0, 1, WorkerState::Draining, 1000),
                    worker(2, 0, 2, WorkerState::Ready, 2000),
                ],
                sockets: vec![
                    Socket {
                        name: Some("http".to_owned()),
                        address: "[::]:8000".to_owned(),
                        members: vec![member(1, 3), member(2, 4)],
                    },
                    Socket {
                        name: None,
                        address: "udp:[::]:53".to_owned(),
                        members: vec![Member {
                            queued: None,
                            queue_max: None,
                            queued_bytes: Some(0),
                            queue_max_bytes: Some(212_992),
                            ..member(3, 0)
                        }],
                    },
                ],
                ..service("web", ServiceState::Up)
            },
            Service {
                ready: 0,
                generation: 1,
                restarts: 7,
                backing_off: vec![BackingOff { slot: 0, left: 3.0 }],
                ..service("mail", ServiceState::Failing)
            },
        ],
    }
}

fn counters() -> Counters {
    let name = |service: &str| WorkerName {
        worker: WorkerId(1),
        service: service.to_owned(),
        slot: SlotId(0),
    };
    let ms = Duration::from_millis;
    let failed = |cause| Notice::Ended {
        worker: name("mail"),
        cause,
        was_ready: false,
        next: Next::RestartNow,
        used: None,
    };
    let started =
        || Notice::Started { worker: name("web"), generation: GenerationId(1), pid: Pid(7) };
    let web = || "web".to_owned();
    let mut counters = Counters::default();
    for notice in [
        started(),
        Notice::Ready { worker: name("web"), evidence: Evidence::Said, after: ms(100) },
        Notice::ReloadCommitted {
            service: web(),
            generation: GenerationId(2),
            after: ms(1200),
            draining: 1,
        },
        started(),
        Notice::Drained { worker: name("web"), how: Exit::Code(0), after: ms(30), used: None },
        Notice::ReloadAborted {
            service: web(),
            generation: GenerationId(3),
            serving: GenerationId(2),
            reason: "no".to_owned(),
            next: AfterAbort::ServesOn,
        },
        failed(Cause::SpawnFailed(SpawnFailure { reason: "no".to_owned() })),
        failed(Cause::Exited(Exit::Code(3))),
        failed(Cause::Late { after: ms(30_000), saw: None }),
        Notice::Killing { worker: name("mail"), after: ms(30_000) },
        Notice::Drained { worker: name("mail"), how: Exit::KILLED, after: ms(0), used: None },
        Notice::Serving { service: web(), workers: 1 },
    ] {
        counters.note(&notice);
    }
    for outcome in [Outcome::Done, Outcome::Done, Outcome::Refused] {
        counters.answered(outcome);
    }
    let of_web = Messages { sent: 3, received: 2, dropped: 1, ..Messages::default() };
    counters.messages("web", &of_web);
    counters.messages("web", &of_web);
    counters.turned(ms(30));
    counters.turned(Duration::from_micros(40));
    counters.lines_dropped(12);
    counters.events_dropped(3);
    counters
}
