//! What monitoring sees: `/metrics`, `/healthz`, `/readyz` on a socket of their own.

#![expect(clippy::panic, reason = "a test fails by it")]

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use shepherd::control::server::MONITORS_MAX;

use crate::{
    control::{LONG, status, web},
    harness::{Address, Builder, Daemon, Port, free_port, get, http_rust, listening, odd},
    site::{Site, reload_well, wait_serving},
};

/// An answer, its body apart.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// Sends this, and reads until the other end closes.
fn say(admin: SocketAddr, text: &str) -> Answer {
    let mut stream = TcpStream::connect(admin).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
    stream.write_all(text.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let (head, body) = (head.to_ascii_lowercase(), body.to_owned());
    Answer { status: status.expect("a status"), head, body }
}

fn ask(admin: SocketAddr, method: &str, path: &str) -> Answer {
    let rest = "Host: localhost\r\nConnection: close\r\n";
    say(admin, &format!("{method} {path} HTTP/1.1\r\n{rest}\r\n"))
}

/// The value of a series on the page, as it is written.
fn value<'a>(page: &'a str, series: &str) -> &'a str {
    let found = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no `{series}` in:\n{page}"))
}

/// A daemon with a port for monitoring.
fn monitored(builder: Builder) -> (Daemon, Port) {
    let admin = free_port();
    let daemon = builder.args(["--admin".to_owned(), admin.to_string()]).start();
    (daemon, admin)
}

#[test]
fn metrics_go_on_during_reloads_and_count_them() {
    let site = Site::new();
    let (daemon, admin) = monitored(site.run(2).args(["--name", "web"]).command(http_rust()));
    wait_serving(&daemon, 2);
    let enough = AtomicBool::new(false);
    let scrapes = thread::scope(|scope| {
        let scraper = scope.spawn(|| {
            let mut scrapes = 0;
            while !enough.load(Ordering::Relaxed) {
                let answer = ask(admin.v4(), "GET", "/metrics");
                assert_eq!(answer.status, 200, "{}", answer.body);
                let generation =
                    value(&answer.body, "shepherd_service_generation{service=\"web\"}");
                assert!(["1", "2", "3"].contains(&generation), "{generation}");
                assert_eq!(value(&answer.body, "shepherd_service_up{service=\"web\"}"), "1");
                assert_eq!(ask(admin.v4(), "GET", "/readyz").status, 200);
                scrapes += 1;
            }
            scrapes
        });
        reload_well(&daemon);
        reload_well(&daemon);
        enough.store(true, Ordering::Relaxed);
        scraper.join().expect("no scrape failed")
    });
    assert!(scrapes > 0);
    let page = ask(admin.v4(), "GET", "/metrics").body;
    for (series, expected) in [
        ("shepherd_reloads_total{service=\"web\",outcome=\"committed\"}", "2"),
        ("shepherd_reload_duration_seconds_count{service=\"web\"}", "2"),
        ("shepherd_worker_starts_total{service=\"web\"}", "6"),
        ("shepherd_worker_start_duration_seconds_count{service=\"web\"}", "6"),
        ("shepherd_service_workers_serving{service=\"web\"}", "2"),
        ("shepherd_service_generation{service=\"web\"}", "3"),
    ] {
        assert_eq!(value(&page, series), expected, "{series}");
    }
    daemon.eventually("old workers that have drained", || {
        let page = ask(admin.v4(), "GET", "/metrics").body;
        let drained = "shepherd_worker_exits_total{service=\"web\",how=\"success\"}";
        (value(&page, drained) == "4").then_some(())
    });
    let memory = value(&page, "shepherd_worker_memory_bytes{service=\"web\",slot=\"0\"}");
    assert!(memory.parse::<u64>().is_ok_and(|bytes| bytes > 100 << 10), "{memory}");
    let turn: f64 = value(&page, "shepherd_loop_turn_longest_seconds").parse().expect("a number");
    assert!(turn > 0.0);
}

#[test]
fn readyz_fails_from_the_first_moment_of_a_stop_while_requests_still_succeed() {
    let site = Site::new();
    let builder = site.run(2).args(["--lame-duck", "1h"]).command(http_rust());
    let (daemon, admin) = monitored(builder);
    wait_serving(&daemon, 2);
    assert_eq!(ask(admin.v4(), "GET", "/readyz").body, "ready\n");
    daemon.signal(Signal::SIGINT);
    daemon.wait_line(|line| line.contains("stopping in 1 h; "), "the lame duck");
    let ready = ask(admin.v4(), "GET", "/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (503, "shepherd is stopping\n"));
    assert_eq!(ask(admin.v4(), "GET", "/healthz").status, 200);
    for _ in 0..20 {
        assert_eq!(get(site.port.v4(), "/").expect("an answer").status, 200);
    }
    let page = ask(admin.v4(), "GET", "/metrics").body;
    assert_eq!(value(&page, "shepherd_stopping"), "1");
    assert_eq!(value(&page, "shepherd_service_up{service=\"http\"}"), "1");
    daemon.signal(Signal::SIGINT);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    daemon.assert_nothing_left();
    let refused = TcpStream::connect(admin.v4()).expect_err("it has gone");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_lame_duck_of_two_seconds_loses_no_request() {
    let site = Site::new();
    let builder = site.run(2).args(["--lame-duck", "2s"]).command(http_rust());
    let (daemon, admin) = monitored(builder);
    wait_serving(&daemon, 2);
    daemon.signal(Signal::SIGTERM);
    // A load balancer that looks all the time, and sends nothing more once it is told.
    let mut served = 0;
    while ask(admin.v4(), "GET", "/readyz").status == 200 {
        assert_eq!(get(site.port.v4(), "/").expect("an answer").status, 200);
        served += 1;
    }
    assert_eq!(get(site.port.v4(), "/").expect("an answer").status, 200, "after {served}");
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

#[test]
fn readyz_says_what_is_not_ready() {
    let site = Site::new();
    let never = [odd().into_os_string(), "never-ready".into()];
    let (daemon, admin) = monitored(site.run(1).args(["--name", "web"]).command(never));
    daemon.wait_line(|line| line.contains(" started: "), "a start");
    let ready = ask(admin.v4(), "GET", "/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (503, "web has not come up yet\n"));
    assert_eq!(ask(admin.v4(), "GET", "/healthz").status, 200);
}

#[test]
fn only_reading_is_served() {
    let site = Site::new();
    let (daemon, admin) = monitored(site.run(1).command(http_rust()));
    wait_serving(&daemon, 1);
    let text = ask(admin.v4(), "GET", "/metrics");
    assert!(text.head.contains("content-type: text/plain; version=0.0.4"), "{}", text.head);
    let accept = "Accept: application/openmetrics-text; version=1.0.0,text/plain;q=0.5\r\n";
    let request = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{accept}\r\n");
    let open = say(admin.v4(), &request);
    let media_type = "content-type: application/openmetrics-text; version=1.0.0";
    assert!(open.head.contains(media_type), "{}", open.head);
    assert!(open.body.ends_with("# EOF\n"), "{}", open.body);
    for path in ["/metrics", "/healthz", "/readyz"] {
        let head = ask(admin.v4(), "HEAD", path);
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        assert!(!head.head.contains("content-length: 0"), "{path}: {}", head.head);
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let answer = ask(admin.v4(), method, path);
            assert_eq!(answer.status, 405, "{method} {path}");
            assert!(answer.head.contains("allow: get,head"), "{method} {path}: {}", answer.head);
        }
    }
    for path in ["/", "/metrics/", "/v1/status", "/v1/stop", "/openapi.json"] {
        assert_eq!(ask(admin.v4(), "GET", path).status, 404, "{path}");
        assert_eq!(ask(admin.v4(), "POST", path).status, 404, "{path}");
    }
    assert!(daemon.stop().success());
}

#[test]
fn who_has_the_address_is_named() {
    let site = Site::new();
    let (daemon, admin) = monitored(site.run(1).command(http_rust()));
    wait_serving(&daemon, 1);
    let port = admin.to_string();
    let other = daemon.client(["run", "--admin", &port, "--name", "other", "--", "true"]);
    assert_eq!(other.status.code(), Some(9), "{other:?}");
    let holder = format!("in use by `shepherd` (pid {})", daemon.pid());
    assert!(other.stderr.contains(&holder) && other.stderr.contains(&port), "{other:?}");
    let own = free_port().to_string();
    let twice = daemon.client(["run", "-p", &own, "--admin", &own, "--name", "x", "--", "true"]);
    assert_eq!(twice.status.code(), Some(9), "{twice:?}");
    assert!(twice.stderr.contains("this shepherd listens there already"), "{twice:?}");
}

#[test]
fn it_is_for_this_machine_alone_unless_it_is_said_and_told() {
    let site = Site::new();
    let (daemon, admin) = monitored(site.run(1).command(http_rust()));
    wait_serving(&daemon, 1);
    assert!(daemon.addresses().contains(&Address::Tcp(admin.v4())), "{:?}", daemon.addresses());
    assert_eq!(daemon.count_lines(|line| line.contains("without a password")), 0);
    let all = Daemon::run().args(["--admin", "0.0.0.0:0"]).command(odd_sleeps()).start();
    all.wait_line(|line| line.contains("WARN") && line.contains("no password"), "a warning");
}

#[test]
fn workers_never_have_its_socket() {
    let site = Site::new();
    let (daemon, admin) = monitored(site.run(2).command(http_rust()));
    for pid in wait_serving(&daemon, 2) {
        let held = listening(pid);
        assert!(!held.is_empty() && !held.contains(&Address::Tcp(admin.v4())), "{held:?}");
    }
}

#[test]
fn slow_monitors_are_in_nobody_s_way() {
    let admin = free_port();
    let (daemon, client) =
        web(2, |builder| builder.args(["--admin".to_owned(), admin.to_string()]));
    // More than are served: each sends half a head, and waits.
    let slow: Vec<TcpStream> = (0..MONITORS_MAX * 2)
        .map(|_| {
            let mut stream = TcpStream::connect(admin.v4()).expect("connected");
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHo").expect("sent");
            stream
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(status(&client).services[0].ready, 2);
        assert_eq!(ask(admin.v4(), "GET", "/healthz").status, 200);
    }
    let done: shepherd::control::wire::Done = client
        .post("/v1/reload", &shepherd::control::wire::Reload::default(), LONG)
        .expect("a reload");
    assert_eq!(done.services[0].generation, 2);
    drop(slow);
    assert!(daemon.stop().success());
}

fn odd_sleeps() -> [std::ffi::OsString; 2] {
    ["sleep".into(), "1000".into()]
}
