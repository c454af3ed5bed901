//! The machine says no: no descriptors, no processes, too many words. It is told with its cause,
//! tried again, and what serves goes on serving.

use std::{
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::{sys::signal::Signal, unistd::geteuid};

use crate::{
    harness::{Daemon, Process, http_rust, odd},
    site::{
        Site, copy_program, reload, reload_well, stop_well, wait_only_generation, wait_serving,
        wrapper, write_program,
    },
};

/// Fewer descriptors than any daemon has open: none can be had, those it has stay. The hard limit
/// is left alone: a container's root cannot raise it again.
const NO_MORE_DESCRIPTORS: &str = "--nofile=4:";
const DESCRIPTORS: &str = "--nofile=1024:";

/// Takes the capability away that raises hard limits; anybody but root has none of it.
const WITHOUT_RESOURCE: &str = "setpriv --inh-caps=-sys_resource --bounding-set=-sys_resource";

#[test]
fn without_descriptors_a_replacement_is_tried_again_until_there_are_some() {
    let site = Site::new();
    let daemon = site.run(2).command(http_rust()).start();
    let old = wait_serving(&daemon, 2);
    let load = site.load();
    load.wait_ok(20);
    limit(&daemon, NO_MORE_DESCRIPTORS);
    daemon.signal(Signal::SIGTTIN);
    daemon.wait_line(
        |line| {
            line.contains("(http.2) cannot start: ")
                && line.contains("Too many open files")
                && line.contains("; restarting in ")
        },
        "the cause and what comes next",
    );
    daemon.wait_line(|line| line.ends_with("(attempt 4)"), "the fourth attempt");
    load.wait_ok(20);
    assert_eq!(daemon.workers(), old, "the others are not touched");
    limit(&daemon, DESCRIPTORS);
    daemon.wait_line(|line| line.contains("(http.2) is ready after "), "the worker");
    assert_eq!(daemon.wait_workers(3)[..2], old);
    load.stop().assert_clean();
    stop_well(&daemon);
}

#[test]
fn without_descriptors_a_reload_is_aborted_and_the_next_one_works() {
    let site = Site::new();
    let daemon = site.run(2).command(http_rust()).start();
    let old = wait_serving(&daemon, 2);
    let load = site.load();
    load.wait_ok(20);
    limit(&daemon, NO_MORE_DESCRIPTORS);
    let outcome = reload(&daemon);
    assert!(outcome.contains(" aborted: ") && outcome.contains("Too many open files"), "{outcome}");
    load.wait_ok(20);
    assert_eq!(daemon.workers(), old);
    limit(&daemon, DESCRIPTORS);
    site.release("v2");
    reload_well(&daemon);
    load.wait_version("v2");
    load.stop().assert_clean();
    stop_well(&daemon);
}

#[test]
fn a_daemon_with_too_few_descriptors_for_its_workers_serves_with_those_it_can_start() {
    let workers = 30;
    let site = Site::new();
    let shepherd = env!("CARGO_BIN_EXE_shepherd");
    // With the capability the daemon would raise its limit.
    let without = if geteuid().is_root() { WITHOUT_RESOURCE } else { "" };
    let text = format!("exec prlimit --nofile=40:40 {without} '{shepherd}' \"$@\"");
    let daemon = site
        .run(workers)
        .binary(wrapper(&site.home, &text))
        .command([odd().into_os_string(), "poll".into()])
        .start();
    daemon.wait_line(
        |line| line.contains("30 workers may need 1220 open files, and 40 is our limit"),
        "that they may be too few",
    );
    daemon.wait_line(
        |line| line.contains(" cannot start: ") && line.contains("Too many open files"),
        "that there are too few",
    );
    daemon.wait_line(|line| line.contains("(odd.0) is ready after "), "a worker");
    assert_eq!(site.version(), "v1");
    let served = daemon.workers();
    assert!((1..workers).contains(&served.len()), "{served:?}");
    stop_well(&daemon);
}

#[test]
fn root_may_have_more_workers_than_the_limit_on_open_files_allows() {
    // A container's root may not: the daemon says so, as the test before this one has it.
    if !has_sys_resource() {
        eprintln!("no CAP_SYS_RESOURCE: nobody else may raise a hard limit");
        return;
    }
    let workers = 30;
    let site = Site::new();
    let shepherd = env!("CARGO_BIN_EXE_shepherd");
    let text = format!("exec prlimit --nofile=40:40 '{shepherd}' \"$@\"");
    let daemon = site
        .run(workers)
        .binary(wrapper(&site.home, &text))
        .command([odd().into_os_string(), "poll".into()])
        .start();
    for pid in wait_serving(&daemon, workers) {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("its limits");
        let line = limits.lines().find(|line| line.starts_with("Max open files"));
        let words: Vec<&str> = line.expect("a line").split_whitespace().collect();
        assert_eq!(words[3..5], ["40", "40"], "workers get what we were started with");
    }
    stop_well(&daemon);
}

#[test]
fn a_stop_in_the_middle_of_a_first_start_does_not_wait_for_its_end() {
    let workers = 500;
    let site = Site::new();
    let daemon = site.run(workers).command([odd().into_os_string(), "poll".into()]).start();
    daemon.wait_line(|line| line.contains(" started: "), "the first worker");
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait_exit().success());
    let started = daemon.count_lines(|line| line.contains(" started: "));
    assert!(started < workers, "all {workers} were started first");
    daemon.assert_nothing_left();
}

#[test]
fn without_processes_a_start_is_tried_again_until_there_are_some() {
    // The limit counts all processes of a user, so this needs one of its own.
    if !geteuid().is_root() {
        eprintln!("not root: there is no user without other processes to run this as");
        return;
    }
    let site = Site::new();
    let user = 200_000 + u32::from(site.port.number());
    for directory in [site.home.directory(), &site.home.runtime_directory()] {
        chown(directory, Some(user), Some(user)).expect("root may");
    }
    // Where the tests were built that user may not read.
    let shepherd = private_copy(&site, Path::new(env!("CARGO_BIN_EXE_shepherd")), "shepherd");
    let program = private_copy(&site, &odd(), "server");
    let text = format!(
        "exec prlimit --nproc=4:100 setpriv --reuid={user} --regid={user} --clear-groups '{}' \"$@\"",
        shepherd.display()
    );
    let daemon = site
        .run(6)
        .binary(wrapper(&site.home, &text))
        .command([program.into_os_string(), "poll".into()])
        .start();
    daemon.wait_line(
        |line| {
            line.contains(" cannot start: starting a process: Resource temporarily unavailable")
                && line.contains("; this user may have no more processes (`ulimit -u`")
                && line.contains("; restarting in ")
        },
        "the step, the cause, where to look, and what comes next",
    );
    daemon.wait_line(|line| line.contains("(server.0) is ready after "), "a worker");
    assert_eq!(site.version(), "v1");
    let served = daemon.workers()[0];
    // Only that user may: a container's root has no CAP_SYS_RESOURCE.
    let pid = daemon.pid();
    let raise = format!(
        "setpriv --reuid={user} --regid={user} --clear-groups prlimit --pid={pid} --nproc=100:"
    );
    let status = Command::new("sh").args(["-c", &raise]).status();
    assert!(status.expect("sh runs").success(), "{raise}");
    daemon.wait_line(|line| line.ends_with(": 6 workers ready"), "all of them");
    assert_eq!(daemon.wait_workers(6)[0], served);
    stop_well(&daemon);
}

#[test]
fn a_flood_of_notifications_does_not_hold_up_the_daemon() {
    let site = Site::new();
    let flood = site.path("flood");
    write_program(&flood, FLOOD.as_bytes(), 0o755);
    let script = format!(
        "[ $SHEPHERD_SLOT = 0 ] && exec python3 '{}'; exec '{}'",
        flood.display(),
        http_rust()[0].to_string_lossy()
    );
    let daemon = site
        .run(2)
        .command(["sh", "-c", script.as_str()])
        // For each of a restart, a reload and a stop: an idle daemon takes some milliseconds.
        .deadline(Duration::from_secs(10))
        .start();
    let workers = wait_serving(&daemon, 2);
    let load = site.load();
    load.wait_ok(20);

    let victim = Process::open(workers[1]).expect("a worker");
    let before = load.stop();
    before.assert_clean();
    victim.signal(Signal::SIGKILL).expect("a worker");
    daemon.wait_line(|line| line.contains("(sh.1) was ended by SIGKILL"), "the end");
    daemon.wait_line(|line| line.contains("worker 3 (sh.1) is ready"), "the replacement");
    assert_eq!(site.version(), "v1");

    site.release("v2");
    reload_well(&daemon);
    wait_only_generation(&daemon, 2, 2);
    assert_eq!(site.version(), "v2");
    stop_well(&daemon);
}

/// Says as much as it can, all the time, until it is asked to stop.
const FLOOD: &str = r#"
import os, signal, socket
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.connect(os.environ["NOTIFY_SOCKET"])
number = 0
while True:
    number += 1
    try:
        manager.send(b"READY=1\nSTATUS=line %d\nX=" % number + b"x" * 1000)
    except OSError:
        pass
"#;

/// Changes a limit of the running daemon.
#[track_caller]
/// Whether this process has `CAP_SYS_RESOURCE`, see capabilities(7).
fn has_sys_resource() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = fs::read_to_string("/proc/self/status").expect("our status");
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = u64::from_str_radix(line.expect("a line").trim(), 16).expect("a mask");
    effective & 1 << CAP_SYS_RESOURCE != 0
}

fn limit(daemon: &Daemon, what: &str) {
    let pid = format!("--pid={}", daemon.pid());
    let status = Command::new("prlimit").args([pid.as_str(), what]).status();
    assert!(status.expect("prlimit runs").success(), "{what}");
}

fn private_copy(site: &Site, from: &Path, name: &str) -> PathBuf {
    let path = site.path(name);
    copy_program(from, &path);
    path
}
