//! Workers that end unasked: who is replaced, when, and by what.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{
    harness::{Daemon, Kept, Kind, Process, http_rust, odd},
    journal::{Entry, journal},
    site::{RUN, Site, copy_program, reload_well, stop_well, wait_only_generation, wait_serving},
};

#[test]
fn a_ready_worker_that_is_killed_is_replaced_at_once_in_its_slot() {
    let site = Site::new();
    let daemon = site.run(3).command(http_rust()).start();
    let before = wait_serving(&daemon, 3);
    kill(before[1]);
    daemon.wait_line(
        |line| line.contains("(http.1) was ended by SIGKILL; restarting now"),
        "the end and what comes next",
    );
    daemon.wait_line(|line| line.contains("worker 4 (http.1) is ready after "), "the replacement");
    let after = daemon.wait_workers(3);
    assert_eq!((after[0], after[2]), (before[0], before[2]));
    assert_ne!(after[1], before[1]);
    stop_well(&daemon);
}

#[test]
fn a_worker_that_never_gets_ready_is_retried_with_growing_delays() {
    let site = Site::new();
    let daemon = site.run(1).command([odd().into_os_string(), "exit".into(), "1".into()]).start();
    daemon.wait_line(|line| line.contains("(attempt 6)"), "the sixth attempt");
    let log = journal(&daemon);
    let ends: Vec<&Entry> = log
        .iter()
        .filter(|entry| entry.text.contains("exited with code 1 before it was ready"))
        .collect();
    let starts: Vec<&Entry> = log.iter().filter(|entry| entry.is_start()).collect();
    let mut told = Duration::ZERO;
    for (index, end) in ends.iter().take(5).enumerate() {
        let attempt = format!("(attempt {})", index + 2);
        assert!(end.text.contains(&attempt), "{end:?}");
        let delay = end.duration_after("restarting in ").expect("a delay");
        let nominal = Duration::from_millis(100 << index);
        // What is told is rounded down: to a millisecond, from a second on to a tenth.
        let rounding = Duration::from_millis(if index > 2 { 100 } else { 1 });
        let least = (nominal * 3 / 4).saturating_sub(rounding);
        assert!((least..=nominal).contains(&delay), "{end:?}");
        if let Some(next) = starts.get(index + 1) {
            told += delay;
            // A line may be written late, so one pause alone may look shorter than it was.
            assert!(next.at.saturating_sub(end.at) >= delay / 2, "{end:?}, {next:?}");
            let all = next.at.saturating_sub(ends[0].at);
            assert!(all >= told * 9 / 10, "{all:?} for {told:?}\n{log:#?}");
        }
    }
    stop_well(&daemon);
}

#[test]
fn one_slot_that_fails_leaves_the_others_alone() {
    let site = Site::new();
    let daemon = site
        .run(4)
        .command([odd().into_os_string(), "exit-if-slot".into(), "2".into(), "1".into()])
        .start();
    for slot in [0, 1, 3] {
        let ready = format!("(odd.{slot}) is ready");
        daemon.wait_line(|line| line.contains(&ready), &ready);
    }
    let load = site.load_of([(Kind::New, 4)]);
    load.wait("answers from the other slots", |report| report.slots.len() == 3);
    daemon.wait_line(|line| line.contains("(attempt 4)"), "the fourth attempt");
    let steady = daemon.workers();
    load.wait_ok(20);
    let report = load.stop();
    report.assert_clean();
    assert_eq!(report.slots.keys().collect::<Vec<_>>(), ["0", "1", "3"], "{report}");
    for entry in journal(&daemon) {
        if entry.text.contains("; restarting") {
            assert_eq!(entry.slot(), Some(2), "{entry:?}");
        }
    }
    let alive = daemon.workers();
    let others = steady.iter().filter(|pid| alive.contains(pid)).count();
    assert!(others >= 3, "{steady:?}, {alive:?}");
    stop_well(&daemon);
}

#[test]
fn a_service_that_fails_ten_times_is_called_failing_once_until_a_reload_mends_it() {
    let exits = [odd().into_os_string(), "exit".into(), "1".into()];
    let site = Site::running(&exits);
    let daemon = site.run(4).command(RUN).start();
    daemon.wait_line(
        |line| line.contains("sh is failing: 10 workers in a row never got ready"),
        "that it fails",
    );
    let ends = |line: &str| line.contains("before it was ready");
    assert!(daemon.count_lines(ends) >= 10);
    // Failing goes on, telling it does not.
    let seen = daemon.count_lines(ends);
    daemon.eventually("two more failures", || (daemon.count_lines(ends) >= seen + 2).then_some(()));
    assert_eq!(daemon.count_lines(|line| line.contains("is failing")), 1);

    site.release_running("v2", &http_rust());
    reload_well(&daemon);
    daemon.wait_line(|line| line.contains("sh is no longer failing"), "that it recovered");
    assert_eq!(daemon.count_lines(|line| line.contains("no longer failing")), 1);
    assert_eq!(site.version(), "v2");
    wait_only_generation(&daemon, 2, 4);
    stop_well(&daemon);
}

#[test]
fn between_reloads_a_replacement_runs_the_binary_of_its_generation() {
    let site = Site::new();
    let server = site.path("server");
    let [original] = &http_rust()[..] else { panic!("one word") };
    copy_program(Path::new(original), &server);
    let first = inode(&server);
    let daemon = site.run(2).command([&server]).start();
    wait_serving(&daemon, 2);
    copy_program(Path::new(original), &server);
    let second = inode(&server);
    assert_ne!(first, second);

    let replaced = kill_and_wait(&daemon, 1);
    assert_eq!(inode(&executable(replaced)), first);
    reload_well(&daemon);
    wait_only_generation(&daemon, 2, 2);
    for pid in daemon.workers() {
        assert_eq!(inode(&executable(pid)), second);
    }
    let replaced = kill_and_wait(&daemon, 0);
    assert_eq!(inode(&executable(replaced)), second);
    stop_well(&daemon);
}

#[test]
fn between_reloads_a_replacement_has_the_variables_of_its_generation() {
    let site = Site::new();
    let daemon = site.run(1).command(http_rust()).start();
    wait_serving(&daemon, 1);
    site.release("v2");
    kill_and_wait(&daemon, 0);
    assert_eq!(site.version(), "v1");
    reload_well(&daemon);
    wait_only_generation(&daemon, 2, 1);
    kill_and_wait(&daemon, 0);
    assert_eq!(site.version(), "v2");
    stop_well(&daemon);
}

#[test]
fn between_reloads_a_replacement_runs_in_the_directory_of_its_generation() {
    let site = Site::new();
    site.release_directory("r1", &http_rust());
    let daemon = site
        .run(1)
        .args([OsString::from("--directory"), site.current().into()])
        .command(["./server"])
        .start();
    wait_serving(&daemon, 1);
    assert_eq!(site.version(), "r1");
    site.release_directory("r2", &http_rust());
    let replaced = kill_and_wait(&daemon, 0);
    assert_eq!(site.version(), "r1");
    assert_eq!(directory(replaced), site.path("r1"));
    reload_well(&daemon);
    wait_only_generation(&daemon, 2, 1);
    let replaced = kill_and_wait(&daemon, 0);
    assert_eq!(site.version(), "r2");
    assert_eq!(directory(replaced), site.path("r2"));
    stop_well(&daemon);
}

#[test]
fn no_more_than_ten_ready_workers_are_replaced_in_a_second() {
    let site = Site::new();
    let daemon = site
        .run(1)
        .command([odd().into_os_string(), "ready-exit".into(), "0".into(), "0".into()])
        .start();
    let count = 32;
    let starts = daemon.eventually("workers, one after the other", || {
        let log = journal(&daemon);
        let starts: Vec<Duration> =
            log.iter().filter(|entry| entry.is_start()).map(|entry| entry.at).collect();
        (starts.len() >= count).then_some(starts)
    });
    // Restarts 1 to 10 are at once, 11 to 20 a second after those, and so on. A line may be
    // written late, never early.
    for (index, at) in starts.iter().enumerate().skip(1).take(count - 1) {
        let seconds = (index - 1) as u64 / 10;
        let since = at.saturating_sub(starts[0]);
        assert!(
            since >= Duration::from_millis(seconds * 1000).mul_f64(0.9),
            "start {index} after {since:?}"
        );
    }
    daemon.wait_line(|line| line.contains(": too many restarts in a second"), "why it waits");
    assert_eq!(
        daemon.count_lines(|line| line.contains("before it was ready")),
        0,
        "it said that it was ready before it exited"
    );
    stop_well(&daemon);
}

#[test]
fn what_a_main_process_leaves_behind_is_stopped_then_killed_while_its_slot_goes_on() {
    what_is_left_ends(Kept::InTree);
}

#[test]
fn what_a_main_process_leaves_in_its_cgroup_is_stopped_then_killed_while_its_slot_goes_on() {
    what_is_left_ends(Kept::InCgroups);
}

#[track_caller]
fn what_is_left_ends(kept: Kept) {
    let site = Site::new();
    let deaf = "(trap '' TERM; exec sleep 1111) & exec setsid sleep 2222 & ";
    let script = format!("{deaf} exec {}", http_rust()[0].to_string_lossy());
    let daemon = site
        .run(1)
        .kept(kept)
        .args(["--drain-timeout", "1s"])
        .command(["sh", "-c", script.as_str()])
        .start();
    let main = wait_serving(&daemon, 1)[0];
    let deaf = find(&daemon, "sleep 1111");
    let polite = find(&daemon, "sleep 2222");
    let mark = daemon.mark();
    kill(main);
    daemon.wait_line_since(
        mark,
        |line| line.contains("worker 1 (sh.0) was ended by SIGKILL; restarting now"),
        "that the slot goes on",
    );
    daemon.wait_line_since(
        mark,
        |line| line.contains("left 2 processes behind; sending SIGTERM, SIGKILL in 5 s"),
        "what was left",
    );
    daemon.wait_line_since(
        mark,
        |line| line.contains("worker 2 (sh.0) is ready"),
        "the replacement",
    );
    assert!(polite.ends_within(Duration::from_secs(4)), "it got no SIGTERM");
    daemon.wait_line_since(
        mark,
        |line| line.contains("killing worker 1 (sh.0) and all its processes after 5 s"),
        "the KILL",
    );
    assert!(deaf.ends_within(Duration::from_secs(10)));
    let log = journal(&daemon);
    let at = |what: &str| {
        let entry = log.iter().find(|entry| entry.text.contains(what));
        entry.map(|entry| entry.at).expect(what)
    };
    assert!(at("worker 2 (sh.0) is ready") < at("killing worker 1 "));
    stop_well(&daemon);
}

/// The one process of the test's world with this command line.
#[track_caller]
fn find(daemon: &Daemon, command: &str) -> Process {
    daemon.eventually(command, || {
        let all = daemon.home().processes();
        let found = all.iter().find(|process| process.command == command)?;
        Process::open(found.pid).ok()
    })
}

fn kill(pid: i32) {
    let process = Process::open(pid).expect("a worker");
    process.signal(Signal::SIGKILL).expect("a worker");
}

/// Kills the worker of a slot and gives the pid of its replacement once that is ready.
#[track_caller]
fn kill_and_wait(daemon: &Daemon, slot: u32) -> i32 {
    let mark = daemon.mark();
    let pid = daemon.workers()[slot as usize];
    kill(pid);
    let in_slot = format!(".{slot}) is ready after ");
    daemon.wait_line_since(mark, |line| line.contains(&in_slot), &in_slot);
    let found = daemon.workers()[slot as usize];
    assert_ne!(found, pid);
    found
}

fn executable(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/exe"))
}

fn directory(pid: i32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/cwd")).expect("a live worker")
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).expect("a file").ino()
}
