//! The client verbs as people and scripts run them: what they say, and with which code they end.

use std::{fs, path::Path};

use crate::{
    harness::{Builder, ClientOutput, Daemon, Home, free_port, http_rust, odd},
    site::{RUN, Site},
};

/// The exit code of a client, and all that it said if it is another.
#[track_caller]
pub(crate) fn ends(output: ClientOutput, code: i32) -> ClientOutput {
    assert_eq!(output.status.code(), Some(code), "{output:#?}");
    assert!(!output.stderr.contains("panicked"), "{output:#?}");
    output
}

/// A client of the daemon `web` in the home of this daemon, to its end.
#[track_caller]
pub(crate) fn shepherd(daemon: &Daemon, words: &str, code: i32) -> ClientOutput {
    let mut words: Vec<&str> = words.split(' ').collect();
    words.extend(["--name", "web"]);
    ends(daemon.client(words), code)
}

/// A daemon `web` whose workers serve HTTP, once all are ready.
#[track_caller]
pub(crate) fn web(builder: Builder) -> Daemon {
    let daemon = builder.args(["--name", "web"]).start();
    daemon.wait_line(|line| line.contains("ready") && line.contains("web: "), "all ready");
    daemon
}

/// A site whose workers run what its file of variables says, so that a reload can go wrong.
pub(crate) fn site(workers: usize) -> (Site, Builder) {
    let site = Site::running(&http_rust());
    let builder = site.run(workers).command(RUN);
    (site, builder)
}

#[test]
fn a_status_shows_the_daemon_its_services_and_their_workers() {
    let port = free_port();
    let daemon = web(Daemon::run().workers(2).listen(&port).command(http_rust()));
    let shown = shepherd(&daemon, "status", 0).stdout;
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].contains(&format!("`web`, pid {}, up ", daemon.pid())), "{shown}");
    assert_eq!(&lines[1..3], ["", "web: up, 2 of 2 ready, generation 1"], "{shown}");
    assert!(lines[3].contains("on "), "{shown}");
    for (line, pid) in lines[5..7].iter().zip(daemon.workers()) {
        assert!(line.contains(&format!(" {pid} ")) && line.contains(" ready "), "{shown}");
    }
    assert!(!shown.contains('\x1b'), "a pipe gets no colours: {shown}");

    let json = shepherd(&daemon, "status web --json", 0).stdout;
    assert_eq!(json.lines().count(), 1);
    let status: shepherd::control::wire::Status = serde_json::from_str(&json).expect("a status");
    assert_eq!(status.services[0].ready, 2);

    let unknown = shepherd(&daemon, "status wbe", 1);
    assert_eq!(unknown.stderr, "shepherd: there is no service `wbe`; there is `web`\n");
    assert!(daemon.stop().success());
}

#[test]
fn a_reload_that_is_committed_ends_with_0_and_tells_what_it_does_line_by_line() {
    let (_site, builder) = site(2);
    let daemon = web(builder);
    let output = shepherd(&daemon, "reload", 0);
    let committed = &output.stdout;
    assert!(committed.starts_with("web: reload committed after "), "{output:#?}");
    assert!(committed.contains(": generation 2 serves"), "{output:#?}");
    for words in ["reload begins", "worker 3 (web.0) started", "worker 4 (web.1) is ready"] {
        assert!(output.stderr.contains(words), "{words}: {output:#?}");
    }
    assert!(!output.stderr.contains('\x1b'), "{output:#?}");
    assert!(daemon.stop().success());
}

#[test]
fn a_reload_that_is_aborted_ends_with_4_and_shows_why() {
    let (site, builder) = site(2);
    let daemon = web(builder.args(["--logs", "prefix"]));
    let script = site.path("bad");
    fs::write(&script, "echo no database >&2\nexit 3\n").expect("a script");
    site.release_running("v2", &["sh", script.to_str().expect("text")]);
    let output = shepherd(&daemon, "reload", 4);
    assert_eq!(output.stdout, "");
    let told = "(web.0) exited with code 3 before it was ready";
    assert!(output.stderr.contains(told), "{output:#?}");
    assert!(output.stderr.ends_with("\n    no database\n"), "{output:#?}");

    let json = shepherd(&daemon, "reload --json", 4);
    let outcome: serde_json::Value = serde_json::from_str(&json.stdout).expect("an object");
    assert_eq!((&outcome["outcome"], &outcome["exit_code"]), (&"aborted".into(), &4.into()));
    assert_eq!(outcome["output"][0], "no database", "{outcome}");
    assert!(outcome["detail"].as_str().is_some_and(|it| it.contains("code 3")), "{outcome}");
    assert!(outcome["worker"].is_u64(), "{outcome}");

    site.release_running("v3", &http_rust());
    let json = shepherd(&daemon, "reload --json", 0);
    let outcome: serde_json::Value = serde_json::from_str(&json.stdout).expect("an object");
    assert_eq!((&outcome["outcome"], &outcome["exit_code"]), (&"committed".into(), &0.into()));
    assert_eq!(outcome["services"][0]["name"], "web", "{outcome}");
    assert!(outcome["services"][0]["draining"].is_u64(), "{outcome}");
    assert_eq!(json.stderr, "");
    assert!(daemon.stop().success());
}

#[test]
fn a_reload_that_takes_too_long_ends_with_7_and_goes_on() {
    let (site, builder) = site(1);
    let daemon = web(builder.args(["--ready", "notify", "--ready-timeout", "10m"]));
    site.release_running("v2", &[odd().as_os_str(), "never-ready".as_ref()]);
    let output = shepherd(&daemon, "reload --timeout 1s", 7);
    assert!(output.stderr.contains("the reload goes on: `shepherd status` shows it"));
    // Its time may be over before the reload has begun.
    daemon.eventually("the reload that goes on", || {
        let status = shepherd(&daemon, "status", 0).stdout;
        status.contains("web: reloading generation 1 to 2, 1 of 1 ready").then_some(())
    });
    assert!(daemon.stop().success());
}

#[test]
fn without_a_daemon_every_verb_ends_with_6_and_says_where_it_looked() {
    let home = Home::new();
    let words = [
        "status",
        "reload",
        "scale 2",
        "restart web",
        "stop",
        "stop web",
        "start web",
        "kill 1",
        "events",
    ];
    for verb in words {
        let mut words: Vec<&str> = verb.split(' ').collect();
        words.extend(["--name", "web"]);
        let builder = Daemon::run().home(&home);
        let output = ends(builder.client(&words), 6);
        let place = home.runtime_directory().join("shepherd");
        let told = format!(
            "shepherd: no shepherd of the name `web` is running; looked in `{}`",
            place.display()
        );
        assert!(output.stderr.starts_with(&told), "{verb}: {output:#?}");
        assert!(output.stderr.contains("start one with `shepherd run`"), "{verb}: {output:#?}");
    }
    let reload = Daemon::run().home(&home).client(["reload", "--json", "--name", "web"]);
    let json: serde_json::Value = serde_json::from_str(&reload.stdout).expect("an object");
    assert_eq!(json["outcome"], "no-daemon");
    let path = Path::new("/nowhere/control.sock");
    let words = ["status".as_ref(), "--control".as_ref(), path.as_os_str()];
    let output = ends(Daemon::run().home(&home).client(words), 6);
    assert!(output.stderr.contains("`/nowhere/control.sock`: there is no such socket"));
    let output = Daemon::run().home(&home).env("SHEPHERD_CONTROL", path).client(["status"]);
    assert!(ends(output, 6).stderr.contains("$SHEPHERD_CONTROL leads there"));
}
