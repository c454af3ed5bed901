//! `shepherd plan`: what a file would change about the daemon that runs.

use std::fs;

use crate::{
    cli::ends,
    harness::{ClientOutput, Daemon, free_port, odd},
    mistakes::CONFIGURATION,
};

/// The exit code of a client that finds no daemon.
const NO_DAEMON: i32 = 6;

/// Everything that a service can say, so that what the daemon tells is compared with all of it.
const BEFORE: &str = "\
name: shop
services:
  web:
    command: ODD epoll
    workers: auto
    listen: [127.0.0.1:PORT, \"admin=unix:admin.sock,mode=0600\"]
    env: {COLOUR: blue, SIZE: 5}
    env_file: empty.env
    umask: 027
    limits: {core: 0}
    ready: listen
    ready_timeout: 1m30s
    balance: slots
    on_failing: refuse
    drain: {before_stop: 1.5s}
    reload: {canary: 5%, canary_for: 1.5s, probation: 1m}
    stop: [TERM, \"INT:5s\"]
    drain_timeout: 500ms
  agent:
    command: [ODD, alive]
    ready: alive:1ms
    depends_on: web
";

#[test]
fn a_plan_tells_every_step_and_changes_nothing() {
    let port = free_port();
    let builder = Daemon::run();
    let home = builder.home_directory().to_owned();
    let path = home.join("shepherd.yaml");
    let odd = odd().to_str().expect("text").to_owned();
    let write = |text: &str| {
        let text = text.replace("ODD", &odd).replace("PORT", &port.to_string());
        fs::write(&path, text).expect("written");
    };
    fs::write(home.join("empty.env"), "").expect("written");
    write(BEFORE);
    let words = ["plan", path.to_str().expect("text")];
    let shown = |output: ClientOutput| ends(output, 0).stdout;

    let alone = shown(builder.client(words));
    let expected = format!(
        "\
no shepherd is running: everything would be bound and started
bind 127.0.0.1:{port}
bind admin=unix:{}/admin.sock
start web
start agent
",
        home.display()
    );
    assert_eq!(steps(&alone), expected);
    ends(builder.client([&words[..], &["--name", "shop"]].concat()), NO_DAEMON);

    let daemon = builder.args(["-c".as_ref(), path.as_os_str()]).start();
    daemon.wait_line(|line| line.contains("agent: 1 worker ready"), "all are ready");
    let same = shown(daemon.client(words));
    assert_eq!(same.matches("unchanged; its program is read again").count(), 2, "{same}");
    assert_eq!((same.matches("keep ").count(), same.lines().count()), (2, 4), "{same}");

    write(
        &BEFORE
            .replace("  agent:", "  other:")
            .replace("admin.sock", "boss.sock")
            .replace("slots", "shared")
            .replace("on_failing: refuse", "on_failing: wait")
            .replace("before_stop: 1.5s", "before_stop: auto")
            .replace("canary: 5%, canary_for: 1.5s", "probation: 0s")
            .replace(", probation: 1m", "")
            .replace("500ms", "1s"),
    );
    let other = shown(daemon.client(words));
    let expected = format!(
        "\
keep 127.0.0.1:{port}
bind admin=unix:{home}/boss.sock
start other
reload web
stop agent
close admin=unix:{home}/admin.sock
",
        home = home.display()
    );
    assert_eq!(steps(&other), expected);
    assert!(
        other.contains(
            "changed: listen, balance, on_failing, drain.before_stop, reload.canary, reload.canary_for, \
             reload.probation, drain_timeout"
        ),
        "{other}"
    );
    let json = shown(daemon.client([&words[..], &["--json"]].concat()));
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["running"], json["steps"][1]["do"].as_str()), (&true.into(), Some("bind")));
    assert!(home.join("admin.sock").exists() && !home.join("boss.sock").exists());

    write("services: {web: {command: a, workrs: 2}}");
    let wrong = ends(daemon.client(words), CONFIGURATION);
    assert!(wrong.stderr.contains("write `workers`"), "{wrong:?}");
    assert!(daemon.stop().success());
}

/// What is done with what, without columns and notes.
fn steps(table: &str) -> String {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        if line.starts_with("no ") { format!("{line}\n") } else { words[..2].join(" ") + "\n" }
    };
    table.lines().map(line).collect()
}
