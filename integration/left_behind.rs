//! Sockets that are used otherwise than meant: a worker that closes them and lives on, a process
//! that keeps them when its worker has gone. Nobody else is disturbed, and a stop leaves nothing.

use std::{
    ffi::OsString,
    fs,
    net::{Ipv4Addr, TcpListener},
};

use nix::sys::signal::Signal;

use crate::{
    harness::{Kept, Kind, Process, http_rust, odd},
    site::{Site, reload_well, stop_well, wait_only_generation, wait_serving},
};

#[test]
fn a_worker_that_closes_its_sockets_and_lives_on_costs_nobody_a_request() {
    let site = Site::new();
    let daemon = site.run(2).command(odd_mode(&["close-if-slot", "1"])).start();
    let workers = wait_serving(&daemon, 2);
    let load = site.load_of([(Kind::New, 4)]);
    load.wait_ok(50);
    assert_eq!(daemon.workers(), workers, "it is left alone");
    reload_well(&daemon);
    wait_only_generation(&daemon, 2, 2);
    load.wait_ok(50);
    let report = load.stop();
    assert_eq!(report.slots.keys().collect::<Vec<_>>(), ["0"], "{report}");
    stop_well(&daemon);
    assert_port_free(&site);
}

#[test]
fn a_process_that_keeps_the_sockets_of_a_killed_worker_disturbs_neither_restart_nor_stop() {
    keeps_sockets("escape", Kept::InTree);
    keeps_sockets("escape", Kept::InCgroups);
}

#[test]
fn so_does_one_that_nothing_but_a_cgroup_tells_to_be_the_worker_s() {
    keeps_sockets("escape-clean", Kept::InTree);
    keeps_sockets("escape-clean", Kept::InCgroups);
}

/// All of them are there when the daemon looks.
#[test]
fn hang_ups_and_a_stop_that_come_together_have_one_outcome_each() {
    let site = Site::new();
    let daemon = site.run(2).command(http_rust()).start();
    let workers = wait_serving(&daemon, 2);
    daemon.signal(Signal::SIGSTOP);
    daemon.eventually("the daemon to be stopped", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).ok()?;
        stat.rsplit_once(')')?.1.starts_with(" T").then_some(())
    });
    for signal in [Signal::SIGHUP, Signal::SIGHUP, Signal::SIGTERM, Signal::SIGCONT] {
        daemon.signal(signal);
    }
    assert_eq!(daemon.wait_exit().code(), Some(0));
    daemon.assert_nothing_left();
    assert_port_free(&site);
    let count = |what: &str| daemon.count_lines(|line| line.contains(what));
    assert_eq!(count("; SIGKILL in 30 s at the latest"), 1, "one stop");
    assert!(count(": reload begins: ") <= 1, "two that come together are one");
    assert_eq!(count(": reload committed"), 0, "the stop goes before");
    assert_eq!(count("ERROR"), 0);
    assert_eq!(count(") started: pid "), workers.len(), "nothing starts after a stop");
    assert_eq!(count("exited with code 0, after "), workers.len());
}

#[track_caller]
fn keeps_sockets(mode: &str, kept: Kept) {
    let site = Site::new();
    let daemon =
        site.run(2).kept(kept).args(["--drain-timeout", "2s"]).command(odd_mode(&[mode])).start();
    daemon.wait_line(|line| line.ends_with(": 2 workers ready"), "the workers");
    let load = site.load_of([(Kind::New, 4)]);
    load.wait_ok(20);
    let started = daemon.wait_line(|line| line.contains("(odd.0) started: pid "), "the first");
    let pid = started.split_once(" started: pid ").and_then(|(_, rest)| rest.split(',').next());
    let pid = pid.and_then(|pid| pid.parse().ok()).unwrap_or_else(|| daemon.fail("a pid"));
    let worker = Process::open(pid).expect("a worker");
    // A connection that only this worker has fails with it: nobody asks while it is killed.
    load.stop().assert_clean();
    worker.signal(Signal::SIGKILL).expect("a worker");
    daemon.wait_line(|line| line.contains("worker 3 (odd.0) is ready"), "the replacement");
    let load = site.load_of([(Kind::New, 4)]);
    load.wait("answers from both slots", |report| report.slots.len() == 2);
    load.wait_ok(50);
    load.stop().assert_clean();
    stop_well(&daemon);
    assert_port_free(&site);
}

#[track_caller]
fn assert_port_free(site: &Site) {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, site.port.number())).expect("the port is free");
}

fn odd_mode(arguments: &[&str]) -> Vec<OsString> {
    let mut words = vec![odd().into_os_string()];
    words.extend(arguments.iter().map(OsString::from));
    words
}
