//! What a worker does to a socket that others share is noticed, undone, and told of.

use std::{
    ffi::OsString,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::sys::signal::Signal;

use crate::{
    harness::{Class, Daemon, Exchange, Home, Port, Process, Response, free_port, get, odd},
    site::{RUN, Site, reload_well, stop_well, wait_only_generation, wait_serving},
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
    let daemon = site.run(1).command(deeds(2, "blocking 100", "nonblocking")).start();
    // The first that is ready chooses.
    wait_serving(&daemon, 1);
    daemon.signal(Signal::SIGTTIN);
    daemon.wait_line(|line| line.contains("worker 2 (sh.1) is ready"), "the other");
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
    let daemon = site.run_by_default(2).args(["--balance", "shared"]).command(RUN).start();
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

/// What a request may suffer that was in the queue, or came, at the moment of a shutdown.
const SHUTDOWN: [Class; 5] = [
    Class::Refused,
    Class::ConnectReset,
    Class::EofBeforeResponse(Exchange::First),
    Class::ResetBeforeResponse(Exchange::First),
    Class::ResetWhileIdle,
];

#[test]
fn a_socket_that_a_worker_shuts_down_listens_again_and_the_worker_is_named() {
    let site = Site::new();
    let daemon = site.run(3).command(deeds(2, "shutdown-close 300", "nothing")).start();
    wait_serving(&daemon, 3);
    let load = site.load();
    let line = daemon.wait_line(|line| line.contains(" shut down `"), "who did it");
    let end = ": connections in its queue were reset; it listens again";
    assert!(line.contains("worker 2 (") && line.contains("WARN") && line.ends_with(end), "{line}");
    let ok = load.snapshot().ok_total();
    load.wait_ok(ok + 100);
    load.stop().assert_clean_except(&SHUTDOWN);
    assert_eq!(daemon.count_lines(|line| line.contains(" started: ")), 3);
    stop_well(&daemon);
}

#[test]
fn reloads_of_workers_that_shut_their_socket_down_when_they_stop_go_on_serving() {
    let site = Site::running(&meddle("shutdown-on-term"));
    let daemon = site.run_by_default(3).args(["--balance", "shared"]).command(RUN).start();
    wait_serving(&daemon, 3);
    let load = site.load();
    load.wait_ok(50);
    for version in ["v2", "v3", "v4"] {
        site.release_running(version, &meddle("shutdown-on-term"));
        let mark = daemon.mark();
        reload_well(&daemon);
        daemon.wait_line_since(mark, |line| line.contains(" shut down `"), "that it was noticed");
        load.wait_version(version);
        let ok = load.snapshot().ok_total();
        load.wait_ok(ok + 50);
    }
    wait_only_generation(&daemon, 4, 3);
    let report = load.stop();
    report.assert_clean_except(&SHUTDOWN);
    // Each of nine workers can reset what is in the queue at that moment, and no more.
    assert!(report.failures_total() < report.ok_total() / 2, "{report:?}");
    stop_well(&daemon);
}

#[test]
fn a_worker_that_shuts_its_socket_down_again_and_again_is_told_of_now_and_then() {
    let port = free_port();
    let daemon = Daemon::run()
        .workers(2)
        .listen(&port)
        .command(deeds(2, "shutdown-loop 50", "nothing"))
        .start();
    wait_serving(&daemon, 2);
    let line = daemon.wait_line(
        |line| line.contains(" shut down `") && line.contains("; listening again in "),
        "that it is slowed down",
    );
    assert!(line.contains(", after 1") && line.ends_with(" times"), "{line}");
    let told = daemon.count_lines(|line| line.contains(" shut down `"));
    assert!(told <= 20, "{told} lines");
    kill_worker(&daemon, "2");
    // Its replacement is worker 3 and does nothing.
    daemon.eventually("it answers", || get(&port, "/").ok());
    stop_well(&daemon);
}

/// A daemon with one unix socket, and the path of that.
fn unix(workers: usize, home: &Arc<Home>, command: [OsString; 3]) -> (Daemon, PathBuf) {
    let path = home.directory().join("x.sock");
    let socket = format!("unix:{}", path.display());
    let daemon = Daemon::run().home(home).workers(workers).listen(socket).command(command).start();
    wait_serving(&daemon, workers);
    (daemon, path)
}

#[track_caller]
fn wait_answer(daemon: &Daemon, path: &Path) -> Response {
    daemon.eventually("it answers", || get(path, "/").ok())
}

#[test]
fn a_unix_socket_that_was_shut_down_is_bound_anew_and_all_workers_get_it() {
    let home = Home::new();
    let (daemon, path) = unix(2, &home, deeds(2, "shutdown-close 200", "nothing"));
    let line = daemon.wait_line(|line| line.contains(" shut down `"), "who did it");
    assert!(line.contains("worker 2 (") && line.ends_with(" for good"), "{line}");
    daemon.wait_line(
        |line| line.contains("reload begins, because a socket was bound anew"),
        "that workers are replaced",
    );
    wait_only_generation(&daemon, 2, 2);
    wait_answer(&daemon, &path);
    stop_well(&daemon);
    assert!(!path.exists());
}

#[test]
fn a_unix_path_that_somebody_removes_is_bound_again_and_nobody_is_refused_for_long() {
    let home = Home::new();
    let (daemon, path) = unix(2, &home, meddle("nothing"));
    for generation in 2..4 {
        std::fs::remove_file(&path).expect("it is there");
        // Its file is there a moment before it listens.
        drop(daemon.eventually("somebody listens", || UnixStream::connect(&path).ok()));
        // From here on connections wait for the workers that get the socket.
        let response = get(path.as_path(), "/").expect("it answers");
        assert_eq!(response.status, 200);
        wait_only_generation(&daemon, generation, 2);
    }
    let told = "somebody removed or replaced the file of `";
    assert_eq!(daemon.count_lines(|line| line.contains(told)), 2);
    stop_well(&daemon);
    assert!(!path.exists());
}

#[test]
fn a_worker_that_removes_the_path_at_its_start_costs_a_pause_and_no_storm() {
    let home = Home::new();
    let (daemon, path) = unix(1, &home, meddle("unlink"));
    daemon.wait_line(|line| line.contains("; binding it again in "), "that it is slowed down");
    // Four times at once, then with pauses that double.
    assert!(daemon.count_lines(|line| line.contains("is bound anew")) <= 8);
    drop(path);
    stop_well(&daemon);
}

#[test]
fn a_socket_that_somebody_else_puts_in_our_place_is_left_alone_until_a_reload() {
    let home = Home::new();
    let (daemon, path) = unix(1, &home, meddle("nothing"));
    let other = path.with_extension("other");
    let stranger = UnixListener::bind(&other).expect("a socket");
    std::fs::rename(&other, &path).expect("in our place");
    let line = daemon.wait_line(|line| line.contains("cannot bind `"), "that it is told");
    // The stranger is this very process.
    assert!(line.contains(&format!("(pid {}) listens on it", std::process::id())), "{line}");
    assert!(line.ends_with("; a reload tries again"), "{line}");
    // It is a stranger's that answers there.
    let _client = UnixStream::connect(&path).expect("it listens");
    stranger.accept().expect("a connection");
    reload_well(&daemon);
    let _client = UnixStream::connect(&path).expect("it listens");
    stranger.accept().expect("a connection");
    drop(stranger);
    reload_well(&daemon);
    wait_answer(&daemon, &path);
    stop_well(&daemon);
    assert!(!path.exists());
}

#[test]
fn a_directory_that_was_moved_away_is_waited_for() {
    let home = Home::new();
    let directory = home.directory().join("sockets");
    std::fs::create_dir(&directory).expect("a directory");
    let path = directory.join("x.sock");
    let socket = format!("unix:{}", path.display());
    let daemon = Daemon::run().home(&home).listen(socket).command(meddle("nothing")).start();
    wait_serving(&daemon, 1);
    std::fs::rename(&directory, directory.with_extension("away")).expect("ours");
    daemon.wait_line(
        |line| line.contains("cannot bind `") && line.contains("; trying again in "),
        "that it is tried again",
    );
    std::fs::create_dir(&directory).expect("a directory");
    wait_answer(&daemon, &path);
    stop_well(&daemon);
}
