//! One worker more, one fewer: nothing that a client could notice.

use nix::sys::signal::Signal;

use crate::{
    harness::{Daemon, http_rust},
    site::{Conversation, Site, reload_well, stop_well, wait_only_generation, wait_serving},
};

#[test]
fn ttin_adds_a_worker_in_the_next_slot() {
    let site = Site::new();
    let daemon = site.run(1).command(http_rust()).start();
    let first = wait_serving(&daemon, 1);
    let load = site.load();
    for wanted in 2..=4 {
        ask(&daemon, Signal::SIGTTIN, wanted);
        let ready = format!(".{}) is ready after ", wanted - 1);
        daemon.wait_line(|line| line.contains(&ready), &ready);
        assert_eq!(daemon.wait_workers(wanted)[0], first[0]);
    }
    load.wait("answers from all slots", |report| report.slots.len() == 4);
    load.stop().assert_clean();
    stop_well(&daemon);
}

#[test]
fn ttou_drains_the_worker_in_the_highest_slot() {
    let site = Site::new();
    let daemon = site.run(4).command(http_rust()).start();
    let workers = wait_serving(&daemon, 4);
    let load = site.load();
    load.wait_ok(50);
    for wanted in [3, 2, 1] {
        let mut conversation = with_worker(&site, workers[wanted]);
        conversation.begin("/");
        ask(&daemon, Signal::SIGTTOU, wanted);
        let stopping = format!(".{wanted}) with SIGTERM; ");
        daemon.wait_line(|line| line.contains(&stopping), &stopping);
        let body = conversation.finish();
        assert!(body.starts_with(&format!("v1 {} {wanted} ", workers[wanted])), "{body}");
        daemon.eventually("the end of the worker", || {
            (daemon.workers() == workers[..wanted]).then_some(())
        });
        load.wait_ok(20);
    }
    load.stop().assert_clean();
    assert_eq!(daemon.count_lines(|line| line.contains("restarting")), 0);
    stop_well(&daemon);
}

#[test]
fn one_worker_is_the_least() {
    let site = Site::new();
    let daemon = site.run(1).command(http_rust()).start();
    let worker = wait_serving(&daemon, 1);
    daemon.signal(Signal::SIGTTOU);
    daemon.wait_line(
        |line| line.ends_with(": the number of workers stays: 1 worker is the least"),
        "that it stays",
    );
    assert_eq!(daemon.workers(), worker);
    assert_eq!(site.version(), "v1");
    stop_well(&daemon);
}

#[test]
fn the_number_holds_over_reloads() {
    let site = Site::new();
    let daemon = site.run(2).command(http_rust()).start();
    wait_serving(&daemon, 2);
    let load = site.load();
    ask(&daemon, Signal::SIGTTIN, 3);
    daemon.wait_workers(3);
    reload_well(&daemon);
    wait_only_generation(&daemon, 2, 3);
    for wanted in [2, 1] {
        ask(&daemon, Signal::SIGTTOU, wanted);
    }
    reload_well(&daemon);
    wait_only_generation(&daemon, 3, 1);
    load.wait_ok(20);
    load.stop().assert_clean();
    stop_well(&daemon);
}

/// Sends the signal and waits for the number that is wanted from then on.
#[track_caller]
fn ask(daemon: &Daemon, signal: Signal, wanted: usize) {
    let mark = daemon.mark();
    daemon.signal(signal);
    let noun = if wanted == 1 { "worker" } else { "workers" };
    let said = format!(": {wanted} {noun} wanted from here on");
    daemon.wait_line_since(mark, |line| line.ends_with(&said), &said);
}

/// A conversation with this very worker: they share one queue, so it may take several tries.
#[track_caller]
fn with_worker(site: &Site, pid: i32) -> Conversation {
    crate::harness::eventually("a connection to a certain worker", || {
        let conversation = Conversation::open(&site.port);
        (conversation.pid == pid).then_some(conversation)
    })
}
