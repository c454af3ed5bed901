//! The end of a daemon: workers finish what they have, nothing outlives it, and it says 0.

use std::{ffi::OsString, fs, io::ErrorKind, time::Duration};

use nix::sys::signal::Signal;

use crate::{
    harness::{Daemon, Kept, Process, get, http_rust, odd},
    journal::journal,
    site::{
        Conversation, Site, reload_well, stop_well, wait_only_generation, wait_serving, wrapper,
        write_program,
    },
};

#[test]
fn term_lets_workers_finish_what_they_have_while_new_connections_are_refused() {
    drains_on(Signal::SIGTERM);
}

#[test]
fn int_lets_workers_finish_what_they_have_while_new_connections_are_refused() {
    drains_on(Signal::SIGINT);
}

#[test]
fn a_second_int_kills_what_drains() {
    let site = Site::new();
    let daemon = site.run(2).command(odd_mode(&["ignore-term"])).start();
    wait_serving(&daemon, 2);
    daemon.signal(Signal::SIGINT);
    daemon.wait_line(|line| line.contains("stopping 2 workers; "), "the stop");
    daemon.signal(Signal::SIGINT);
    daemon.wait_line(|line| line.contains("killing 2 workers at once"), "the end");
    assert_eq!(daemon.wait_exit().code(), Some(0));
    daemon.assert_nothing_left();
}

#[test]
fn a_lame_duck_serves_on_and_restarts_until_ints_cut_it_short() {
    let site = Site::new();
    let daemon = site.run(2).args(["--lame-duck", "1h"]).command(http_rust()).start();
    let pids = wait_serving(&daemon, 2);
    daemon.signal(Signal::SIGINT);
    let said = "stopping in 1 h; until then everything serves on";
    daemon.wait_line(|line| line.ends_with(said), "the lame duck");
    // What is asked for from here on is off, and what serves goes on serving.
    daemon.signal(Signal::SIGHUP);
    let worker = Process::open(pids[0]).expect("a worker");
    worker.signal(Signal::SIGKILL).expect("a worker");
    daemon.wait_line(|line| line.contains("worker 3 (http.0) is ready"), "the replacement");
    assert_eq!(get(&daemon.addresses()[0], "/").expect("an answer").status, 200);
    assert_eq!(daemon.count_lines(|line| line.contains("reload")), 0);
    daemon.signal(Signal::SIGINT);
    daemon.wait_line(|line| line.contains("stopping 2 workers; "), "the stop");
    assert_eq!(daemon.wait_exit().code(), Some(0));
    daemon.assert_nothing_left();
}

#[test]
fn a_lame_duck_has_its_time_and_no_more() {
    let site = Site::new();
    let daemon = site.run(1).args(["--lame-duck", "1s"]).command(http_rust()).start();
    wait_serving(&daemon, 1);
    stop_well(&daemon);
    let log = journal(&daemon);
    let at = |what: &str| match log.iter().find(|entry| entry.text.contains(what)) {
        Some(entry) => entry.at,
        None => daemon.fail(what),
    };
    // A line may be written late.
    let least = Duration::from_millis(900);
    assert!(at("stopping 1 worker; ") >= at("stopping in 1 s; ") + least, "{log:#?}");
}

#[test]
fn quit_ends_a_lame_duck_at_once() {
    let site = Site::new();
    let daemon =
        site.run(1).args(["--lame-duck", "1h"]).command(odd_mode(&["ignore-term"])).start();
    wait_serving(&daemon, 1);
    daemon.signal(Signal::SIGTERM);
    daemon.wait_line(|line| line.contains("stopping in 1 h; "), "the lame duck");
    daemon.signal(Signal::SIGQUIT);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    assert_eq!(daemon.count_lines(|line| line.contains("SIGTERM")), 0);
    daemon.assert_nothing_left();
}

#[test]
fn quit_kills_at_once() {
    let site = Site::new();
    let daemon = site.run(2).command(odd_mode(&["ignore-term"])).start();
    wait_serving(&daemon, 2);
    daemon.signal(Signal::SIGQUIT);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    assert_eq!(daemon.count_lines(|line| line.contains("SIGTERM")), 0);
    daemon.assert_nothing_left();
}

#[test]
fn quit_kills_what_drains_already() {
    let site = Site::new();
    let daemon = site.run(2).command(odd_mode(&["ignore-term"])).start();
    wait_serving(&daemon, 2);
    daemon.signal(Signal::SIGTERM);
    daemon.wait_line(|line| line.contains("stopping 2 workers; "), "the stop");
    daemon.signal(Signal::SIGQUIT);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    daemon.assert_nothing_left();
}

#[test]
fn a_worker_that_ignores_the_stop_signal_is_killed_after_the_drain_timeout() {
    let site = Site::new();
    let daemon =
        site.run(1).args(["--drain-timeout", "1s"]).command(odd_mode(&["ignore-term"])).start();
    wait_serving(&daemon, 1);
    stop_well(&daemon);
    assert!(daemon.count_lines(|line| line.ends_with("with SIGTERM; SIGKILL in 1 s")) == 1);
    let killed = "killing worker 1 (odd.0) and all its processes after 1";
    assert!(daemon.count_lines(|line| line.contains(killed)) == 1);
}

#[test]
fn stop_signals_follow_each_other_in_their_times() {
    let site = Site::new();
    let daemon = site
        .run(1)
        .args(["--drain-timeout", "1s", "--stop-signal", "TERM,INT:1s"])
        .command(odd_mode(&["ignore-term"]))
        .start();
    wait_serving(&daemon, 1);
    stop_well(&daemon);
    let log = journal(&daemon);
    let at = |what: &str| match log.iter().find(|entry| entry.text.contains(what)) {
        Some(entry) => entry.at,
        None => daemon.fail(what),
    };
    let term = at("stopping worker 1 (odd.0) with SIGTERM; SIGKILL in 2 s");
    let int = at("worker 1 (odd.0) has not stopped after 1 s; sending SIGINT");
    let kill = at("killing worker 1 (odd.0) and all its processes after 2 s");
    // A line may be written late.
    let least = Duration::from_millis(900);
    assert!(int >= term + least && kill >= term + least * 2, "{log:#?}");
}

#[test]
fn a_worker_that_is_stopped_by_a_signal_still_stops_in_good_order() {
    let site = Site::new();
    let daemon = site.run(1).command(http_rust()).start();
    let pid = wait_serving(&daemon, 1)[0];
    let worker = Process::open(pid).expect("a worker");
    worker.signal(Signal::SIGSTOP).expect("a worker");
    daemon.eventually("the stopped worker", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.starts_with(" T").then_some(())
    });
    stop_well(&daemon);
    let drained = "worker 1 (http.0) exited with code 0";
    assert_eq!(daemon.count_lines(|line| line.contains(drained)), 1);
}

#[test]
fn what_left_its_worker_s_session_is_gone_after_a_stop() {
    for kept in [Kept::InTree, Kept::InCgroups] {
        escapes_end("escape", kept, |daemon, _| stop_well(daemon));
    }
}

#[test]
fn what_left_session_and_environment_is_gone_after_a_stop() {
    for kept in [Kept::InTree, Kept::InCgroups] {
        escapes_end("escape-clean", kept, |daemon, _| stop_well(daemon));
    }
}

#[test]
fn what_left_its_worker_s_session_is_gone_after_the_worker_was_killed() {
    for kept in [Kept::InTree, Kept::InCgroups] {
        escapes_end("escape", kept, |_, worker| {
            worker.signal(Signal::SIGKILL).expect("a worker");
        });
    }
}

/// Without cgroups nothing leads from such a process to its worker unless it was seen in the
/// worker's tree, so it may outlive that; the daemon's end it never does.
#[test]
fn what_left_session_and_environment_of_a_killed_worker_is_gone_after_a_stop() {
    escapes_end("escape-clean", Kept::InTree, |daemon, worker| {
        worker.signal(Signal::SIGKILL).expect("a worker");
        daemon.wait_line(|line| line.contains("worker 2 (odd.0) is ready"), "a replacement");
        stop_well(daemon);
    });
}

#[test]
fn a_stranger_that_was_left_to_the_daemon_is_gone_after_the_stop() {
    let site = Site::new();
    // The inner shell ends at once, and the daemon becomes the parent of what it started.
    let script =
        format!("sh -c 'env -i setsid sleep 3333 &'; exec {}", http_rust()[0].to_string_lossy());
    // Without a look at its tree the daemon has nothing to know it by.
    let daemon = site
        .run(1)
        .kept(Kept::InTree)
        .args(["--ready", "notify"])
        .command(["sh", "-c", script.as_str()])
        .start();
    let worker = wait_serving(&daemon, 1)[0];
    let stranger = escaped(&daemon, &[worker]);
    stop_well(&daemon);
    assert!(stranger.ends_within(Duration::ZERO), "it outlived the daemon");
}

#[test]
fn a_daemon_that_was_started_to_ignore_hang_ups_does_not_reload_on_one() {
    let site = Site::new();
    let text = format!("exec nohup '{}' \"$@\"", env!("CARGO_BIN_EXE_shepherd"));
    let daemon = site.run(1).binary(wrapper(&site.home, &text)).command(http_rust()).start();
    let before = wait_serving(&daemon, 1);
    daemon.signal(Signal::SIGHUP);
    // Pending signals are taken in the order of their numbers, and this one has a later one.
    daemon.signal(Signal::SIGTTIN);
    daemon.wait_line(|line| line.ends_with(": 2 workers wanted from here on"), "the later one");
    let after = daemon.wait_workers(2);
    assert_eq!(after[0], before[0]);
    assert_eq!(daemon.count_lines(|line| line.contains("reload")), 0);
    stop_well(&daemon);
}

#[test]
fn a_daemon_whose_terminal_goes_stops_and_leaves_nothing() {
    let site = Site::new();
    write_program(&site.path("terminal"), TERMINAL.as_bytes(), 0o755);
    let text = format!(
        "exec python3 '{}' '{}' \"$@\"",
        site.path("terminal").display(),
        env!("CARGO_BIN_EXE_shepherd")
    );
    let terminal = site.run(2).binary(wrapper(&site.home, &text)).command(http_rust()).start();
    terminal.wait_line(|line| line.contains(": 2 workers ready"), "the workers");
    assert_eq!(site.version(), "v1");
    // The daemon and its workers are still there: then the terminal goes.
    terminal.signal(Signal::SIGUSR1);
    assert_eq!(terminal.wait_exit().code(), Some(0), "the daemon's own end");
    terminal.assert_nothing_left();
}

#[test]
fn a_daemon_on_a_terminal_still_reloads_when_it_is_asked_to() {
    let site = Site::new();
    write_program(&site.path("terminal"), TERMINAL.as_bytes(), 0o755);
    let text = format!(
        "exec python3 '{}' '{}' \"$@\"",
        site.path("terminal").display(),
        env!("CARGO_BIN_EXE_shepherd")
    );
    let terminal = site.run(1).binary(wrapper(&site.home, &text)).command(http_rust()).start();
    terminal.wait_line(|line| line.contains(": 1 worker ready"), "the worker");
    site.release("v2");
    let [shepherd] = terminal.children()[..] else {
        terminal.fail("the terminal has another number of children than one")
    };
    let shepherd = Process::open(shepherd).expect("the daemon");
    shepherd.signal(Signal::SIGHUP).expect("the daemon");
    terminal.wait_line(|line| line.contains(": reload committed"), "the reload");
    terminal.eventually("the new version", || (site.version() == "v2").then_some(()));
    terminal.signal(Signal::SIGUSR1);
    assert_eq!(terminal.wait_exit().code(), Some(0), "the daemon's own end");
    terminal.assert_nothing_left();
}

/// Runs its arguments on a terminal of their own and copies what they say; closes the terminal on
/// SIGUSR1, and ends as they do.
const TERMINAL: &str = r#"
import os, pty, signal, sys

class Gone(Exception):
    pass

def gone(_number, _frame):
    raise Gone

pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
signal.signal(signal.SIGUSR1, gone)
try:
    while True:
        os.write(1, os.read(terminal, 4096).replace(b"\r\n", b"\n"))
except (Gone, OSError):
    os.close(terminal)
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"#;

#[track_caller]
fn drains_on(signal: Signal) {
    let site = Site::new();
    let daemon = site.run(2).command(http_rust()).start();
    wait_serving(&daemon, 2);
    reload_well(&daemon);
    wait_only_generation(&daemon, 2, 2);
    let mut slow = Conversation::open(&site.port);
    slow.begin("/slow?ms=1500");
    slow.end();
    let mut begun = Conversation::open(&site.port);
    begun.begin("/");
    daemon.signal(signal);
    daemon.wait_line(|line| line.ends_with("; SIGKILL in 30 s at the latest"), "the stop");
    daemon.eventually("a refusal", || {
        let error = get(&site.port, "/").err()?;
        (error.kind() == ErrorKind::ConnectionRefused).then_some(())
    });
    assert!(daemon.is_running(), "refused only because it has ended");
    assert!(begun.finish().starts_with("v1 "));
    assert!(slow.answer().starts_with("v1 "));
    assert_eq!(daemon.wait_exit().code(), Some(0));
    daemon.assert_nothing_left();
    assert_eq!(daemon.count_lines(|line| line.contains("killing")), 0);
}

/// `end` ends the worker in one way or another; what escaped from it must end as well.
#[track_caller]
fn escapes_end(mode: &str, kept: Kept, end: impl FnOnce(&Daemon, &Process)) {
    let site = Site::new();
    let daemon =
        site.run(1).kept(kept).args(["--drain-timeout", "2s"]).command(odd_mode(&[mode])).start();
    // What escaped with the worker's environment looks like the worker, so the log is asked.
    let started = daemon.wait_line(|line| line.contains(" started: pid "), "the worker");
    let pid = started
        .split_once(" started: pid ")
        .and_then(|(_, rest)| rest.split(',').next()?.parse().ok())
        .unwrap_or_else(|| daemon.fail("a pid"));
    daemon.wait_line(|line| line.ends_with(": 1 worker ready"), "the worker");
    let worker = Process::open(pid).expect("a worker");
    let stray = escaped(&daemon, &[pid]);
    end(&daemon, &worker);
    if !stray.ends_within(Duration::from_secs(15)) {
        daemon.fail(&format!("process {} lives on", stray.pid()));
    }
    if daemon.is_running() {
        daemon.wait_line(|line| line.contains("worker 2 (odd.0) is ready"), "a replacement");
        stop_well(&daemon);
    }
}

/// The child of the daemon that is none of these.
#[track_caller]
fn escaped(daemon: &Daemon, workers: &[i32]) -> Process {
    daemon.eventually("a process that was left to the daemon", || {
        let children = daemon.children();
        let pid = children.iter().find(|pid| !workers.contains(pid))?;
        // It has become what it is to be: a process that is starting has the worker's name.
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let settled = command.starts_with(b"sleep") || command.starts_with(b"/");
        settled.then(|| Process::open(*pid).ok()).flatten()
    })
}

fn odd_mode(arguments: &[&str]) -> Vec<OsString> {
    let mut words = vec![odd().into_os_string()];
    words.extend(arguments.iter().map(OsString::from));
    words
}

#[test]
fn signals_without_a_meaning_are_told_of_and_change_nothing() {
    let site = Site::new();
    let daemon = site.run(1).command(http_rust()).start();
    let before = wait_serving(&daemon, 1);
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2] {
        daemon.signal(signal);
        let told = format!("{signal} means nothing to this version");
        daemon.wait_line(|line| line.contains(&told), &told);
    }
    assert_eq!(daemon.workers(), before);
    stop_well(&daemon);
}
