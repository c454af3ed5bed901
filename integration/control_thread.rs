//! The thread that serves clients dies or cannot be started, or its socket is of no use any more: the
//! daemon says so, goes on, and serves its clients again.

use std::{collections::BTreeSet, fs, process::Command, time::Duration};

use shepherd::control::{
    client::{Client, ClientError},
    wire,
};

use nix::errno::Errno;

use crate::{
    cgroups::without_clone3,
    control::{LONG, client, socket, status},
    harness::{Daemon, eventually, http_rust},
    site::{Site, reload_well, stop_well, wait_serving},
};

/// Takes the daemon's own listening socket and shuts it down: nobody can connect from then on.
const SHUT_DOWN: &str = "import ctypes, os, socket, sys\n\
    pid, fd = int(sys.argv[1]), int(sys.argv[2])\n\
    pidfd = os.pidfd_open(pid)\n\
    copy = ctypes.CDLL(None, use_errno=True).syscall(438, pidfd, fd, 0)\n\
    if copy < 0: sys.exit('pidfd_getfd: ' + os.strerror(ctypes.get_errno()))\n\
    socket.socket(fileno=copy).shutdown(socket.SHUT_RDWR)\n";

/// A descriptor of the daemon's control socket, as the kernel numbers it.
fn descriptor(daemon: &Daemon) -> String {
    let path = socket(daemon, "web");
    let table = fs::read_to_string("/proc/net/unix").expect("a table");
    let path = path.to_string_lossy();
    let line = table.lines().filter(|line| line.ends_with(&*path)).find(|line| {
        // Of those that have the path only the listener listens (`SO_ACCEPTCON`).
        line.split_ascii_whitespace().nth(3) == Some("00010000")
    });
    let inode = line.and_then(|line| line.split_ascii_whitespace().nth(6)).expect("a listener");
    let wanted = format!("socket:[{inode}]");
    let mut entries = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("ours").flatten();
    let entry = entries.find(|entry| {
        fs::read_link(entry.path()).is_ok_and(|link| link.to_string_lossy() == wanted)
    });
    entry.expect("a descriptor").file_name().to_string_lossy().into_owned()
}

#[test]
fn a_socket_that_somebody_shut_down_is_bound_again_and_nobody_else_notices() {
    let site = Site::new();
    let daemon = site.run(2).args(["--name", "web"]).command(http_rust()).start();
    wait_serving(&daemon, 2);
    let client = client(&daemon, "web");
    let load = site.load();
    load.wait_ok(20);
    for _ in 0..3 {
        let mark = daemon.mark();
        assert_eq!(status(&client).daemon.name, "web");
        let mut python = Command::new("python3");
        python.args(["-c", SHUT_DOWN, &daemon.pid().to_string(), &descriptor(&daemon)]);
        let output = python.output().expect("python3");
        let said = String::from_utf8_lossy(&output.stderr);
        if said.contains("Operation not permitted") {
            // The system lets nobody but root look into a process, see ptrace(2).
            return;
        }
        assert!(output.status.success(), "{said}");
        daemon.wait_line_since(mark, |line| line.contains("was shut down"), "its end");
        daemon.wait_line_since(mark, |line| line.contains("clients find us"), "another socket");
        let asked = eventually("an answer", || {
            match client.get::<wire::Status>("/v1/status", LONG) {
                Ok(status) => Some(status),
                // Caught between the old socket and the new.
                Err(ClientError::Stale(_) | ClientError::NoSocket(_) | ClientError::Cut(_)) => None,
                Err(error) => panic!("{error}"),
            }
        });
        assert_eq!(asked.services[0].ready, 2);
    }
    reload_well(&daemon);
    load.stop().assert_clean();
    stop_well(&daemon);
}

#[test]
fn a_thread_that_cannot_be_started_is_started_later() {
    starved(0, "cannot start a thread");
}

#[test]
fn a_thread_that_dies_is_told_of_and_started_again() {
    // Enough for the thread, and not for what it waits by.
    starved(1, "the thread that serves clients has ended");
}

#[test]
fn where_a_filter_permits_no_thread_it_is_told_once_with_the_next_step_and_workers_serve_on() {
    let site = Site::new();
    let binary = without_clone3(&site, Errno::EPERM);
    let daemon = site.run(2).binary(binary).args(["--name", "web"]).command(http_rust()).start();
    wait_serving(&daemon, 2);
    let client = client(&daemon, "web");
    let refused = |line: &str| line.contains("cannot start a thread for clients");
    // Long enough for some more tries.
    let answer = client.get::<wire::Status>("/v1/status", Some(Duration::from_secs(3)));
    if answer.is_ok() {
        // A C library that does without that call.
        return stop_well(&daemon);
    }
    let line = daemon.wait_line(refused, "why not");
    assert!(line.contains("seccomp") && line.contains("use a later runtime"), "{line}");
    reload_well(&daemon);
    assert_eq!(daemon.count_lines(refused), 1);
    stop_well(&daemon);
}

/// The daemon has so many descriptors left when the first client comes, and more after it has said
/// what is wrong.
#[track_caller]
fn starved(left: usize, says: &str) {
    let site = Site::new();
    let daemon = site.run(1).args(["--name", "web"]).command(http_rust()).start();
    wait_serving(&daemon, 1);
    let client = client(&daemon, "web");
    let limit = |most: &str| {
        let pid = daemon.pid().to_string();
        let status = Command::new("prlimit").args(["--pid", &pid, most]).status();
        assert!(status.expect("prlimit of util-linux").success());
    };
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).expect("limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    let soft = line.split_ascii_whitespace().nth(3).expect("a number").to_owned();
    let open: BTreeSet<usize> = fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
        .expect("ours")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    // The limit is on the number of a descriptor, and there may be gaps.
    let most = (0..).filter(|number| !open.contains(number)).nth(left).expect("a number");
    let mark = daemon.mark();
    limit(&format!("--nofile={most}:"));
    let answer = std::thread::scope(|scope| {
        let asks = scope.spawn(|| {
            let client = Client::new(client.socket()).expect("a client");
            client.get::<wire::Status>("/v1/status", LONG)
        });
        daemon.wait_line_since(mark, |line| line.contains(says), says);
        limit(&format!("--nofile={soft}:"));
        asks.join().expect("asked")
    });
    assert_eq!(answer.expect("served after all").daemon.name, "web");
    reload_well(&daemon);
    stop_well(&daemon);
}
