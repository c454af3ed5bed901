//! `shepherd run -c FILE`: what the file says is run, and what is wrong with it is told with its place.

use std::{fs, path::Path};

use crate::{
    harness::{Address, Builder, Daemon, free_port, get, odd},
    mistakes::{CONFIGURATION, USAGE, refused},
};

fn contains(words: &str) -> impl Fn(&str) -> bool {
    move |line| line.contains(words)
}

/// A daemon that is to run this file, which has `ODD` for our program and lies in its home.
fn file(text: &str) -> Builder {
    let daemon = Daemon::run();
    let path = daemon.home_directory().join("shepherd.yaml");
    fs::write(&path, text.replace("ODD", odd().to_str().expect("text"))).expect("written");
    daemon.args(["-c".as_ref(), path.as_os_str()])
}

const TWO: &str = "\
name: shop
services:
  web:
    command: ODD epoll
    workers: 2
    listen: 127.0.0.1:${PORT}
  admin:
    command: [ODD, epoll]
    listen: unix:admin.sock
    env: {COLOUR: \"blue $$5\"}
";

#[test]
fn every_service_of_a_file_has_its_own_workers_and_sockets() {
    let port = free_port();
    let daemon = file(TWO).env("PORT", port.to_string()).start();
    daemon.wait_line(contains("is running as `shop`"), "its name");
    daemon.wait_line(contains("web: 2 workers ready"), "all of web are ready");
    daemon.wait_line(contains("admin: 1 worker ready"), "all of admin are ready");
    let socket = daemon.home().directory().join("admin.sock");
    assert!(
        daemon.addresses().contains(&Address::Unix(socket.clone())),
        "{:?}",
        daemon.addresses()
    );
    assert_eq!(daemon.worker_processes().len(), 3);
    assert!(daemon.stop().success());
    daemon.assert_nothing_left();
    assert!(!socket.exists(), "the socket stayed");
}

#[test]
fn a_file_in_our_directory_needs_no_name() {
    let builder = file("services:\n  web:\n    command: ODD alive\n    ready: alive:1ms\n");
    let directory = builder.home_directory().to_owned();
    let daemon = Daemon::run().directory(&directory).start();
    daemon.wait_line(contains("is running as `web`"), "the service's name");
    daemon.wait_line(contains("web: 1 worker ready"), "ready");
    assert!(daemon.stop().success());
}

#[test]
fn options_of_the_daemon_win_over_the_file() {
    let talker =
        "logs: prefix\nservices:\n  web:\n    command: sh -c 'echo hello; exec ODD alive'\n";
    let daemon =
        file(talker).args(["--name", "other", "--logs", "json", "--lame-duck", "1ms"]).start();
    daemon.wait_line(contains("is running as `other`"), "the option's name");
    daemon.wait_line(contains("\"service\":\"web\""), "a line of a worker as JSON");
    assert!(daemon.stop().success());
}

#[test]
fn mistakes_are_told_with_their_places_and_nothing_is_started() {
    let text = "\
services:
  web:
    command: no-such-program-anywhere
  admin:
    command: ODD alive
    user: nobody-of-this-name
    directory: nowhere
";
    refused(
        file(text),
        CONFIGURATION,
        &[
            "shepherd.yaml:3:14",
            "cannot run `no-such-program-anywhere`",
            "shepherd.yaml:6:11",
            "user: nobody-of-this-name",
            "shepherd.yaml:7:16",
            "3 mistakes",
        ],
    );
    refused(
        file("services:\n  web:\n    command: ODD alive\n    workrs: 2\n"),
        CONFIGURATION,
        &["shepherd.yaml:4:5", "write `workers`", "1 mistake"],
    );
    refused(
        Daemon::run().args(["-c", "/no/such/file.yaml"]),
        CONFIGURATION,
        &["cannot read `/no/such/file.yaml`: No such file"],
    );
}

#[test]
fn a_file_and_options_of_one_service_do_not_go_together() {
    for (option, value) in [
        ("-n", "2"),
        ("-p", "0"),
        ("--ready", "tcp"),
        ("--ready-timeout", "1s"),
        ("--ready-interval", "1s"),
        ("--ready-probe-timeout", "1s"),
        ("--balance", "slots"),
        ("--before-stop", "1s"),
        ("--stop-signal", "INT"),
        ("--drain-timeout", "1s"),
        ("--directory", "/"),
        ("--user", "0"),
        ("--group", "0"),
        ("--groups", "0"),
        ("--umask", "022"),
        ("--limit", "core=0"),
        ("--nice", "5"),
        ("--env", "A=1"),
        ("--env-file", "x"),
    ] {
        let words = ["'--config <FILE>' cannot be used with '-", "Usage: shepherd run"];
        refused(file(TWO).args([option, value]), USAGE, &words);
        // Nor do they go without a command.
        let words = ["required arguments were not provided", "COMMAND"];
        refused(Daemon::run().args([option, value]), USAGE, &words);
    }
    let words = ["'--config <FILE>' cannot be used with", "COMMAND"];
    refused(file(TWO).command(["true"]), USAGE, &words);
    let directory = Path::new("/");
    let words = ["cannot find `shepherd.yaml` or `shepherd.yml` here", "`-c FILE`", "`-- COMMAND`"];
    refused(Daemon::run().directory(directory), USAGE, &words);
}

/// The example is run where it may leave its socket.
#[test]
fn the_example_runs() {
    let port = free_port();
    let daemon = Daemon::run();
    let home = daemon.home_directory().to_owned();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for name in ["shepherd.yaml", "http.py"] {
        fs::copy(examples.join(name), home.join(name)).expect("copied");
    }
    let daemon = daemon.directory(home).env("PORT", port.to_string()).start();
    daemon.wait_line(contains("web: 2 workers ready"), "web is ready");
    daemon.wait_line(contains("admin: 1 worker ready"), "admin is ready");
    let answer = get(&port, "/").expect("an answer");
    assert_eq!(answer.version, "blue", "{answer:?}");
    assert!(daemon.stop().success());
}
