//! What a worker does to a socket that others share is noticed, undone, and told of.

use std::ffi::OsString;

use nix::sys::signal::Signal;

use crate::{
    harness::{Daemon, Port, Process, free_port, odd},
    site::{RUN, Site, reload_well, stop_well, wait_serving},
};

/// All workers do this.
fn meddle(deed: &str) -> [OsString; 3] {
    [odd().into(), "meddle".into(), deed.into()]
}

/// A deed for one worker, and another for all others.
fn deeds(worker: u32, its: &str, others: &str) -> [OsString; 3] {
    let odd = odd().into_os_string().into_string().expect("a readable path");
    let script = format!(
        "if [ $SHEPHERD_WORKER = {worker} ]; then exec {odd} meddle {its}; \
         else exec {odd} meddle {others}; fi"
    );
    ["sh".into(), "-c".into(), script.into()]
}

fn kill_worker(daemon: &Daemon, worker: &str) {
    let process = daemon
        .worker_processes()
        .into_iter()
        .find(|process| process.worker == worker)
        .unwrap_or_else(|| daemon.fail(&format!("worker {worker} is gone")));
    Process::open(process.pid).expect("it lives").signal(Signal::SIGKILL).expect("it is ours");
}

/// Whether the first socket of all workers is non-blocking, as the kernel shows it.
fn is_nonblocking(daemon: &Daemon) -> bool {
    let pid = daemon.workers()[0];
    let text = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/3")).expect("it lives");
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags");
    let flags = i32::from_str_radix(flags.trim(), 8).expect("octal");
    flags & nix::libc::O_NONBLOCK != 0
}

#[test]
fn a_backlog_that_workers_lower_is_set_back_and_told_of_once() {
    let port = free_port();
    let daemon =
        Daemon::run().workers(3).listen(format!("web={port}")).command(meddle("backlog=5")).start();
    wait_serving(&daemon, 3);
    daemon.wait_line(
        |line| line.ends_with(" set the backlog of `web` to 5; set back to 4096"),
        "who lowered the backlog",
    );
    daemon.eventually("the backlog is set back", || (backlog(&port) == 4096).then_some(()));
    reload_well(&daemon);
    daemon.eventually("the backlog is set back", || (backlog(&port) == 4096).then_some(()));
    // Once for each generation.
    assert_eq!(daemon.count_lines(|line| line.contains("set the backlog of")), 2);
    stop_well(&daemon);
}

/// As ss(8) shows it for a listener.
fn backlog(port: &Port) -> u32 {
    let output = std::process::Command::new("ss")
        .args(["-Hltn", &format!("sport = :{port}")])
        .output()
        .expect("ss is there");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let limit = text.split_ascii_whitespace().nth(2).and_then(|limit| limit.parse().ok());
    limit.expect("a line with its limit")
}

#[test]
fn a_later_worker_that_clears_nonblocking_freezes_nobody_and_is_named() {
    let site = Site::new();
    let daemon = site.run(4).command(deeds(5, "blocking", "nonblocking")).start();
    wait_serving(&daemon, 4);
    let load = site.load();
    load.wait_ok(20);
    kill_worker(&daemon, "2");
    let line = daemon.wait_line(|line| line.contains(" blocking for all"), "who made it so");
    assert!(line.contains("worker 5 (") && line.contains("WARN"), "{line}");
    let end = "set back to non-blocking, as the first ready worker of generation 1 left it";
    assert!(line.ends_with(end), "{line}");
    daemon.eventually("it is set back", || is_nonblocking(&daemon).then_some(()));
    let ok = load.snapshot().ok_total();
    load.wait_ok(ok + 50);
    load.stop();
    stop_well(&daemon);
}

#[test]
fn a_program_that_blocks_keeps_its_socket_blocking() {
    let site = Site::new();
    let daemon = site.run(2).command(deeds(3, "nonblocking", "nothing")).start();
    wait_serving(&daemon, 2);
    assert!(!is_nonblocking(&daemon));
    kill_worker(&daemon, "1");
    daemon.wait_line(
        |line| {
            line.contains("worker 3 (")
                && line.contains(" non-blocking for all who share it; set back to blocking")
        },
        "who made it so",
    );
    daemon.eventually("it is set back", || (!is_nonblocking(&daemon)).then_some(()));
    stop_well(&daemon);
}

#[test]
fn what_a_worker_changes_after_it_was_ready_is_found_when_another_ends() {
    let site = Site::new();
    let daemon = site.run(2).command(deeds(2, "blocking 100", "nonblocking")).start();
    wait_serving(&daemon, 2);
    daemon.eventually("it is changed", || (!is_nonblocking(&daemon)).then_some(()));
    kill_worker(&daemon, "1");
    daemon.wait_line(
        |line| line.contains(" made `") && line.contains(" blocking for all who share it"),
        "that it is set back",
    );
    daemon.eventually("it is set back", || is_nonblocking(&daemon).then_some(()));
    stop_well(&daemon);
}

#[test]
fn a_reload_may_change_from_blocking_to_not_and_nobody_is_blamed() {
    let site = Site::running(&meddle("nothing"));
    let daemon = site.run(2).command(RUN).start();
    wait_serving(&daemon, 2);
    site.release_running("v2", &meddle("nonblocking"));
    reload_well(&daemon);
    daemon.wait_line(|line| line.contains("until its generation serves"), "that it waits");
    daemon.eventually("it is non-blocking", || is_nonblocking(&daemon).then_some(()));
    site.release_running("v3", &meddle("blocking"));
    reload_well(&daemon);
    daemon.eventually("it is blocking", || (!is_nonblocking(&daemon)).then_some(()));
    assert_eq!(daemon.count_lines(|line| line.contains("as the first ready worker")), 0);
    site.version();
    stop_well(&daemon);
}
