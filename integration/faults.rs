//! The machine is not as one would have it: `/proc` hides processes, clocks have odd beginnings, a
//! disk is full, a port needs a privilege. Each in a namespace of its own, so that nobody else sees it.

#![expect(clippy::print_stderr, reason = "a test that cannot run says so")]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    time::Duration,
};

use nix::{
    sys::signal::Signal,
    time::{ClockId, clock_gettime},
    unistd::geteuid,
};

use crate::{
    harness::{Builder, Daemon, Home, Process, odd},
    mistakes::{BIND, refused},
    site::{
        Site, copy_program, reload_well, stop_well, wait_only_generation, wait_serving, wrapper,
    },
};

/// Says so where a test has to be left out: only root makes namespaces everywhere.
fn cannot_make_namespaces() -> bool {
    let cannot = !geteuid().is_root();
    if cannot {
        eprintln!("not root: there is no namespace in which this could be tried");
    }
    cannot
}

/// How to become a user of whom nobody has heard.
const AS_STRANGER: &str = "setpriv --reuid=3141592 --regid=3141592 --clear-groups";

/// A daemon that is started in a namespace of its own by `unshare` with these options, after a line
/// of a shell, by a command that becomes it. It and its workers are where any user can reach them.
fn apart(home: &Home, options: &str, line: &str, becoming: &str) -> Builder {
    let copy = home.directory().join("shepherd");
    copy_program(Path::new(env!("CARGO_BIN_EXE_shepherd")), &copy);
    copy_program(&odd(), &home.directory().join("odd"));
    let run = home.directory().join("run-of-any");
    fs::create_dir(&run).expect("made");
    fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).expect("ours");
    if becoming == AS_STRANGER {
        chown(&run, Some(3_141_592), Some(3_141_592)).expect("root may");
    }
    let text = format!(
        "exec unshare {options} sh -c '{line} && exec {becoming} \"{}\" \"$@\"' sh \"$@\"",
        copy.display()
    );
    Daemon::run().binary(wrapper(home, &text)).env("XDG_RUNTIME_DIR", run).directory("/")
}

/// The same on the port of a site, with its variables.
fn site_apart(site: &Site, options: &str, line: &str, becoming: &str) -> Builder {
    let variables = site.variables();
    apart(&site.home, options, line, becoming)
        .home(&site.home)
        .listen(&site.port)
        .args(["--env-file".as_ref(), variables.as_os_str()])
}

/// Start, ready, restart, reload, stop.
#[track_caller]
fn lives_a_whole_life(site: &Site, builder: Builder, evidence: &str) {
    let program = site.path("odd");
    let daemon = builder.workers(2).command([program.as_os_str(), "poll".as_ref()]).start();
    let before = wait_serving(&daemon, 2);
    daemon.wait_line(
        |line| line.contains(" is ready after ") && line.contains(evidence),
        "how it is known to be ready",
    );
    assert_eq!(site.version(), "v1");
    let mark = daemon.mark();
    let victim = Process::open(before[0]).expect("a worker");
    victim.signal(Signal::SIGKILL).expect("ours");
    daemon.wait_line_since(mark, |line| line.contains("was ended by SIGKILL"), "its end");
    daemon.wait_line_since(mark, |line| line.contains(" is ready after "), "its replacement");
    site.release("v2");
    reload_well(&daemon);
    wait_only_generation(&daemon, 2, 2);
    assert_eq!(site.version(), "v2");
    stop_well(&daemon);
}

#[test]
fn a_user_that_is_shown_only_its_own_processes_misses_nothing() {
    if cannot_make_namespaces() {
        return;
    }
    let site = Site::new();
    let line = "mount -t proc -o hidepid=2 proc /proc";
    let builder = site_apart(&site, "--mount", line, AS_STRANGER);
    lives_a_whole_life(&site, builder, "seen waiting on its socket");
}

/// Nor is any member of a group shown all: a mount without one means that of root.
const HIDDEN: &str = "mount -t proc -o hidepid=2,gid=3141592 proc /proc";

/// A container's root that may not look into processes of others.
const BLIND: &str = "setpriv --inh-caps=-sys_ptrace --bounding-set=-sys_ptrace";

#[test]
fn workers_that_are_hidden_are_assumed_to_be_ready_and_not_to_be_dead() {
    if cannot_make_namespaces() {
        return;
    }
    let site = Site::new();
    let builder = site_apart(&site, "--mount", HIDDEN, BLIND).args(["--user", "65534"]);
    lives_a_whole_life(&site, builder, "assumed: alive for 1s, no evidence to be had");
}

#[test]
fn what_hidden_workers_leave_behind_is_gone_after_a_stop() {
    if cannot_make_namespaces() {
        return;
    }
    let site = Site::new();
    let program = site.path("odd");
    let daemon = site_apart(&site, "--mount", HIDDEN, BLIND)
        .args(["--user", "65534", "--drain-timeout", "1s"])
        .command([program.as_os_str(), "escape".as_ref()])
        .start();
    wait_serving(&daemon, 1);
    // The worker, and the one that left its session and its parent.
    daemon.eventually("the one that escapes", || {
        (daemon.worker_processes().len() == 2).then_some(())
    });
    stop_well(&daemon);
}

#[test]
fn clocks_with_odd_beginnings_change_no_deadline() {
    if cannot_make_namespaces() {
        return;
    }
    // Days ahead, and as early as the kernel allows: never before the machine's own start.
    let since_start = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock").tv_sec();
    for (monotonic, boottime) in [(864_000, 8_640_000), (-since_start, 1)] {
        let site = Site::new();
        let options = format!("--time --monotonic={monotonic} --boottime={boottime}");
        let builder = site_apart(&site, &options, "true", "");
        lives_a_whole_life(&site, builder, "seen waiting on its socket");

        // Deadlines pass when they should, none of them days late or long ago.
        let site = Site::new();
        let program = site.path("odd");
        let daemon = site_apart(&site, &options, "true", "")
            .args(["--ready-timeout", "1s", "--drain-timeout", "1s"])
            .command([program.as_os_str(), "never-ready".as_ref()])
            .start();
        daemon.wait_line(|line| line.contains("was not ready within 1 s"), "the end of its time");
        daemon.wait_line(|line| line.contains("(attempt 3)"), "the next ones");
        let offsets = fs::read_to_string(format!("/proc/{}/timens_offsets", daemon.pid()));
        let offsets = offsets.expect("a time namespace");
        let words: Vec<&str> = offsets.split_whitespace().collect();
        let monotonic = monotonic.to_string();
        assert_eq!(words[..2], ["monotonic", monotonic.as_str()], "the clock was not moved");
        stop_well(&daemon);
    }
}

#[test]
fn a_worker_that_does_not_stop_is_killed_in_time_whatever_the_clock_began_with() {
    if cannot_make_namespaces() {
        return;
    }
    let site = Site::new();
    let program = site.path("odd");
    let daemon = site_apart(&site, "--time --monotonic=864000 --boottime=1", "true", "")
        .args(["--drain-timeout", "1s"])
        .command([program.as_os_str(), "ignore-term".as_ref()])
        .deadline(Duration::from_secs(30))
        .start();
    wait_serving(&daemon, 1);
    stop_well(&daemon);
    assert_eq!(daemon.count_lines(|line| line.contains("all its processes after 1 s")), 1);
}

#[test]
fn a_full_disk_leaves_no_pid_file_and_frees_the_sockets() {
    if cannot_make_namespaces() {
        return;
    }
    let site = Site::new();
    let disk = site.path("disk");
    fs::create_dir(&disk).expect("made");
    // It does not become the daemon, so that it can tell what is on the disk afterwards.
    let text = format!(
        "exec unshare --mount sh -c 'mount -t tmpfs -o size=64k none \"{0}\" && \
         ! dd if=/dev/zero of=\"{0}/fill\" bs=4k 2>/dev/null; \
         \"{1}\" \"$@\"; code=$?; echo on the disk: $(ls -A \"{0}\"); exit $code' sh \"$@\"",
        disk.display(),
        env!("CARGO_BIN_EXE_shepherd")
    );
    let file = disk.join("pid");
    let builder = Daemon::run()
        .home(&site.home)
        .binary(wrapper(&site.home, &text))
        .listen(site.port.v4())
        .args(["--pid-file".as_ref(), file.as_os_str()])
        .command([odd().as_os_str(), "poll".as_ref()]);
    let named = format!("cannot write pid file `{}`: No space left on device", file.display());
    let said = refused(builder, 1, &[&named]);
    assert!(said.lines().any(|line| line == "on the disk: fill"), "{said}");
    std::net::TcpListener::bind(site.port.v4()).expect("it is free again");
}

#[test]
fn a_low_port_without_privilege_is_refused_and_the_limit_named() {
    let command = ["sleep", "1000"];
    let (builder, limit) = if geteuid().is_root() {
        // In a network of its own the limit is what it always was, whatever the machine's is.
        let home = Home::new();
        let builder = apart(&home, "--net", "true", AS_STRANGER).home(&home);
        (builder, "1024".to_owned())
    } else {
        let limit = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
        let limit = limit.expect("a limit").trim().to_owned();
        assert!(limit.parse::<u16>().expect("a number") > 80, "port 80 is free for all here");
        (Daemon::run(), limit)
    };
    refused(
        builder.args(["--ready", "alive:1ms"]).listen("127.0.0.1:80").command(command),
        BIND,
        &[
            "cannot bind `127.0.0.1:80`: permission denied",
            &format!("ports below {limit} need CAP_NET_BIND_SERVICE"),
            "choose a higher one",
        ],
    );
}
