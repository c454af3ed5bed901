//! The daemon as PID 1 of a namespace, as in a container, and as the subreaper that it is
//! everywhere: what is handed to it that no worker has started is reaped, and nobody's worker.

#![expect(clippy::print_stderr, reason = "what cannot be tested here is told")]

use std::{
    ffi::OsString,
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{
    harness::{Builder, Daemon, Kept, Process, free_port, http_rust, odd},
    site::{Site, is_outcome, stop_well, wait_serving, wrapper},
};

/// Whoever unshares ends with what it has started, also when a test fails.
const WITH_PROC: &str = "exec unshare --pid --fork --kill-child --mount-proc";
const WITHOUT_PROC: &str = "exec unshare --pid --fork --kill-child";

#[test]
fn as_pid_1_it_stops_with_0_on_each_signal_that_asks_for_it() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let Some(site) = site() else { return };
        let outer = init(&site, WITH_PROC).workers(2).command(http_rust()).start();
        let inner = wait_inner(&outer, 2);
        assert_eq!(site.version(), "v1");
        let pids = [vec![inner.pid()], children(inner.pid())].concat();
        let namespace: Vec<Process> =
            pids.into_iter().map(|pid| Process::open(pid).expect("it runs")).collect();
        assert_eq!(namespace.len(), 3, "it and its workers");
        inner.signal(signal).expect("it runs");
        assert_eq!(outer.wait_exit().code(), Some(0), "{signal}");
        assert!(namespace.iter().all(|process| process.ends_within(Duration::ZERO)), "{signal}");
        outer.assert_nothing_left();
    }
}

#[test]
fn as_pid_1_it_reloads_on_hup() {
    let Some(site) = site() else { return };
    let outer = init(&site, WITH_PROC).workers(2).command(http_rust()).start();
    let inner = wait_inner(&outer, 2);
    site.release("v2");
    inner.signal(Signal::SIGHUP).expect("it runs");
    let outcome = outer.wait_line(is_outcome, "the outcome");
    assert!(outcome.contains("reload committed"), "{outcome}");
    outer.eventually("the new version", || (site.version() == "v2").then_some(()));
    end(&outer, &inner);
}

#[test]
fn as_pid_1_it_ends_with_the_codes_that_are_documented() {
    let Some(site) = site() else { return };
    let missing = init(&site, WITH_PROC).command(["/no/such/program"]).start();
    assert_eq!(missing.wait_exit().code(), Some(3));
    let taken = free_port();
    let _listener = std::net::TcpListener::bind(taken.v4()).expect("a free port");
    let refused = init(&site, WITH_PROC).listen(&taken).command(http_rust()).start();
    assert_eq!(refused.wait_exit().code(), Some(9));
    refused.assert_nothing_left();
}

#[test]
fn a_stranger_is_left_alone_while_pid_1_runs_and_never_outlives_it() {
    let Some(site) = site() else { return };
    let outer = init(&site, WITH_PROC).workers(2).command(http_rust()).start();
    let inner = wait_inner(&outer, 2);
    let workers = children(inner.pid());
    inject(&inner, "setsid sleep 4444 &");

    let stranger = outer.eventually("the stranger", || {
        let mut found = children(inner.pid()).into_iter();
        found.find(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c == *SLEEP))
    });
    let stranger = Process::open(stranger).expect("a stranger");

    let worker = Process::open(workers[0]).expect("a worker");
    worker.signal(Signal::SIGKILL).expect("a worker");
    outer.wait_line(|line| line.contains("worker 3 (http.0) is ready"), "the replacement");
    inner.signal(Signal::SIGHUP).expect("it runs");
    outer.wait_line(is_outcome, "the outcome");
    outer.wait_line(|line| line.contains("worker 2 (http.1) exited with code 0"), "the old one");
    assert!(!stranger.ends_within(Duration::ZERO), "it was killed");
    assert_eq!(outer.count_lines(|line| line.contains("behind")), 0);
    end(&outer, &inner);
    assert!(stranger.ends_within(Duration::ZERO), "it outlived the namespace");
}

#[test]
fn strangers_that_exit_under_pid_1_are_reaped_and_nobody_s_worker() {
    let Some(site) = site() else { return };
    let outer = init(&site, WITH_PROC).workers(1).command(http_rust()).start();
    let inner = wait_inner(&outer, 1);
    let worker = children(inner.pid());
    // They lose their parent, and exit later, in many ways.
    inject(
        &inner,
        "for number in $(seq 40); do (sleep 0.$number; exit $number) & done; \
         sh -c 'sleep 0.1; kill -KILL $$' & sleep 0.05",
    );
    outer.eventually("all of them to be reaped", || {
        // Zombies would be among them.
        (children(inner.pid()) == worker).then_some(())
    });
    assert_eq!(outer.count_lines(|line| line.contains("exited") || line.contains("ended")), 0);
    assert_eq!(outer.count_lines(|line| line.contains("started: pid")), 1);
    assert_eq!(site.version(), "v1");
    end(&outer, &inner);
}

#[test]
fn as_pid_1_it_follows_a_main_process_whose_parent_is_another() {
    let Some(site) = site() else { return };
    let outer = init(&site, WITH_PROC).workers(1).command(["python3", "-c", FOREMAN]).start();
    let inner = wait_inner(&outer, 1);
    outer.wait_line(|line| line.contains(" names process "), "the other main process");
    let [foreman] = children(inner.pid())[..] else { outer.fail("one child") };
    let [main] = children(foreman)[..] else { outer.fail("one grandchild") };
    Process::open(main).expect("it runs").signal(Signal::SIGKILL).expect("it runs");
    outer.wait_line(
        |line| line.contains("worker 1 (python3.0) ") && line.contains("; restarting now"),
        "its end",
    );
    outer.wait_line(|line| line.contains("left 1 process behind"), "that its parent lives");
    outer.wait_line(|line| line.contains("worker 2 (python3.0) is ready"), "the replacement");
    end(&outer, &inner);
}

#[test]
fn a_proc_of_another_namespace_is_told_of_and_read_of_nobody() {
    for kept in [Kept::InTree, Kept::InCgroups] {
        let Some(site) = site() else { return };
        let outer = init(&site, WITHOUT_PROC).kept(kept).workers(2).command(http_rust()).start();
        outer.wait_line(
            |line| line.contains("WARN") && line.contains("`/proc` shows another pid namespace"),
            "what is missing",
        );
        let blind = "what a worker leaves behind is not seen";
        let inner = wait_inner(&outer, 2);
        let expected = usize::from(kept == Kept::InTree);
        assert_eq!(outer.count_lines(|line| line.contains(blind)), expected);
        let worker = children(inner.pid())[1];
        Process::open(worker).expect("a worker").signal(Signal::SIGKILL).expect("a worker");
        outer.wait_line(|line| line.contains("worker 3 (http.1) is ready"), "the replacement");
        inner.signal(Signal::SIGHUP).expect("it runs");
        let outcome = outer.wait_line(is_outcome, "the outcome");
        assert!(outcome.contains("reload committed"), "{outcome}");
        end(&outer, &inner);
    }
}

#[test]
fn with_a_proc_of_another_namespace_silence_counts_as_ready_after_a_while() {
    let Some(site) = site() else { return };
    let outer = init(&site, WITHOUT_PROC).workers(1).command(odd_mode(&["poll"])).start();
    let ready = outer.wait_line(|line| line.contains("worker 1 (odd.0) is ready"), "the worker");
    assert!(ready.contains("assumed"), "{ready}");
    assert_eq!(site.version(), "v1");
    let inner = inner(&outer);
    end(&outer, &inner);
}

#[test]
fn with_a_proc_of_another_namespace_a_cgroup_still_tells_what_is_left() {
    let Some(site) = site() else { return };
    if site.home.cgroup(Kept::InCgroups).is_none() {
        return;
    }
    let outer = init(&site, WITHOUT_PROC)
        .workers(1)
        .args(["--drain-timeout", "1s"])
        .command(odd_mode(&["escape-clean"]))
        .start();
    let inner = wait_inner(&outer, 1);
    inner.signal(Signal::SIGHUP).expect("it runs");
    outer.wait_line(|line| line.contains("worker 1 (odd.0) left 1 process behind"), "what is left");
    outer.wait_line(|line| line.contains("killing worker 1 (odd.0)"), "its end");
    end(&outer, &inner);
}

#[test]
fn without_any_proc_it_says_what_to_do() {
    let Some(site) = site() else { return };
    let text = format!(
        "exec unshare --mount sh -c 'umount -l /proc && exec \"$0\" \"$@\"' '{}' \"$@\"",
        env!("CARGO_BIN_EXE_shepherd")
    );
    let daemon = site.run(1).binary(wrapper(&site.home, &text)).command(http_rust()).start();
    daemon.wait_line(
        |line| line.contains("cannot find ourselves in `/proc`") && line.contains("mount -t proc"),
        "what is wrong and what to do",
    );
    assert_eq!(daemon.wait_exit().code(), Some(1));
}

#[test]
fn a_stranger_that_exits_under_a_subreaper_is_reaped_and_nobody_s_worker() {
    let site = Site::new();
    // The inner shell ends at once, and the daemon becomes the parent of what it started.
    let script = format!(
        "sh -c 'env -i setsid sh -c \"sleep 1; exit 7\" &'; exec {}",
        http_rust()[0].to_string_lossy()
    );
    let daemon = site
        .run(1)
        .kept(Kept::InTree)
        .args(["--ready", "notify"])
        .command(["sh", "-c", script.as_str()])
        .start();
    wait_serving(&daemon, 1);
    daemon.eventually("the stranger", || (children(daemon.pid()).len() == 2).then_some(()));
    daemon.eventually("its end", || (children(daemon.pid()).len() == 1).then_some(()));
    assert_eq!(daemon.count_lines(|line| line.contains("exited") || line.contains("behind")), 0);
    // Before it cleared its environment the stranger looked like a worker itself.
    let started = daemon.wait_line(|line| line.contains(" started: pid "), "the worker");
    let worker = children(daemon.pid());
    assert!(started.contains(&format!(" started: pid {},", worker[0])), "{started}: {worker:?}");
    assert_eq!(daemon.workers(), worker);
    stop_well(&daemon);
}

/// Its command line.
const SLEEP: &[u8; 11] = b"sleep\x004444\0";

/// Stays beside its child, which is the main process.
const FOREMAN: &str = "\
import os, signal, socket
pid = os.fork()
if pid:
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.sendto(b'MAINPID=%d\\nREADY=1' % pid, os.environ['NOTIFY_SOCKET'])
signal.pause()
";

/// None where we may not make such namespaces.
fn site() -> Option<Site> {
    let mut try_it = Command::new("unshare");
    try_it.args(["--pid", "--fork", "--mount-proc", "true"]).stderr(Stdio::null());
    if !try_it.status().is_ok_and(|status| status.success()) {
        eprintln!("no pid namespace can be made, so nothing is tested in one");
        return None;
    }
    Some(Site::new())
}

/// Runs shepherd behind these words, with the site's port and variables.
fn init(site: &Site, words: &str) -> Builder {
    let text = format!("{words} '{}' \"$@\"", env!("CARGO_BIN_EXE_shepherd"));
    site.run(1).binary(wrapper(&site.home, &text))
}

/// The daemon, the one child of what unshared.
#[track_caller]
fn inner(outer: &Daemon) -> Process {
    let [pid] = outer.children()[..] else { outer.fail("unshare has one child") };
    Process::open(pid).expect("it runs")
}

/// Its children, those that have exited and were not reaped included.
fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Runs a script in the namespace, as those do who look into a container: what it leaves behind is
/// handed to PID 1.
#[track_caller]
fn inject(inner: &Process, script: &str) {
    let mut command = Command::new("nsenter");
    command.args(["--target", &inner.pid().to_string(), "--pid", "--mount", "sh", "-c", script]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    assert!(command.status().expect("nsenter").success());
}

fn odd_mode(arguments: &[&str]) -> Vec<OsString> {
    let mut words = vec![odd().into_os_string()];
    words.extend(arguments.iter().map(OsString::from));
    words
}

#[track_caller]
fn wait_inner(outer: &Daemon, workers: usize) -> Process {
    let all = if workers == 1 { ": 1 worker ready" } else { ": 2 workers ready" };
    outer.wait_line(|line| line.ends_with(all), all);
    inner(outer)
}

#[track_caller]
fn end(outer: &Daemon, inner: &Process) {
    inner.signal(Signal::SIGTERM).expect("it runs");
    if outer.wait_exit().code() != Some(0) {
        outer.fail("it did not end well");
    }
    outer.assert_nothing_left();
}
