//! What a worker's process is made of: exactly what it is meant to have, whatever the daemon was
//! started with.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    given::{Given, dump, environment, kill, pidfd_id},
    harness::{Builder, Daemon, Home, free_port, get},
    wrapped::wrapped,
};

/// What a worker on one socket was given, and the daemon that is still running.
#[track_caller]
fn given_by(builder: Builder) -> (Daemon, Given) {
    // Named after the port, which is nobody else's.
    let port = free_port();
    let file = std::env::temp_dir().join(format!("shepherd-test-dump-{port}"));
    let file = Removed(file);
    let daemon = builder.listen(port.v4()).command(dump(&file.0)).start();
    let given = Given::wait(&daemon, &file.0);
    assert_eq!(get(&port, "/").expect("an answer").pid, given.ids["pid"]);
    (daemon, given)
}

struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn the_environment_is_the_daemons_less_what_speaks_of_others_plus_what_speaks_of_the_worker() {
    let home = Home::new();
    let manager = home.directory().join("manager");
    let _manager = UnixDatagram::bind(&manager).expect("a socket");
    let port = free_port();
    let file = home.directory().join("dump");
    let scrubbed = [
        ("NOTIFY_SOCKET", manager.to_str().expect("a path")),
        ("WATCHDOG_USEC", "60000000"),
        ("WATCHDOG_PID", "1"),
        ("FDSTORE", "64"),
        ("MAINPID", "1"),
        ("MANAGERPID", "1"),
        ("SYSTEMD_EXEC_PID", "1"),
        ("MEMORY_PRESSURE_WATCH", "/dev/null"),
        ("MEMORY_PRESSURE_WRITE", "x"),
        // Its output is another file.
        ("JOURNAL_STREAM", "8:4711"),
        ("LISTEN_PID", "1"),
        ("LISTEN_FDS", "3"),
        ("LISTEN_FDNAMES", "a:b:c"),
        ("LISTEN_PIDFDID", "4711"),
        ("LISTEN_FDS_FIRST_FD", "9"),
        ("NODE_CHANNEL_FD", "3"),
        ("NODE_CHANNEL_SERIALIZATION_MODE", "json"),
        ("NODE_UNIQUE_ID", "1"),
        ("EINHORN_FDS", "3"),
        ("EINHORN_FD_COUNT", "1"),
        ("SERVER_STARTER_PORT", "80=3"),
        ("SERVER_STARTER_GENERATION", "1"),
        ("NGINX", "3;"),
        ("UNICORN_FD", "3"),
        ("PUMA_INHERIT_0", "3:tcp://[::]:80"),
        ("FPM_SOCKETS", "0.0.0.0:9000=3"),
        ("UPSTART_FDS", "3"),
        ("GUNICORN_FD", "3"),
        ("GUNICORN_PID", "1"),
        ("SHEPHERD_WORKER", "99"),
        ("SHEPHERD_SLOT", "99"),
        ("SHEPHERD_ANYTHING", "1"),
    ];
    let kept = [
        ("INVOCATION_ID", "0123456789abcdef0123456789abcdef"),
        ("NODE_ENV", "production"),
        ("PORT", "8000"),
        ("EMPTY", ""),
        ("LINES", "one\ttwo"),
    ];
    let mut builder = Daemon::run()
        .home(&home)
        .listen(format!("http=127.0.0.1:{port}"))
        .listen("127.0.0.1:0")
        .args(["--env", "FROM_THE_COMMAND_LINE=yes"]);
    for (name, value) in scrubbed.iter().chain(&kept) {
        builder = builder.env(name, value);
    }
    let daemon = builder.command(dump(&file)).start();
    let given = Given::wait(&daemon, &file);
    let pid = given.ids["pid"];

    let mut expected = environment(daemon.pid());
    for (name, _) in scrubbed {
        assert!(expected.remove(name).is_some(), "{name} was set");
    }
    let own = [
        ("FROM_THE_COMMAND_LINE", "yes".to_owned()),
        ("LISTEN_FDS", "2".to_owned()),
        ("LISTEN_FDNAMES", "http:unknown".to_owned()),
        ("LISTEN_PID", pid.to_string()),
        ("SHEPHERD_SERVICE", "odd".to_owned()),
        ("SHEPHERD_SLOT", "0".to_owned()),
        ("SHEPHERD_WORKER", "1".to_owned()),
        ("SHEPHERD_GENERATION", "1".to_owned()),
        (
            "NOTIFY_SOCKET",
            home.runtime_directory().join("shepherd/odd/notify.1").display().to_string(),
        ),
    ];
    expected.extend(own.map(|(name, value)| (name.to_owned(), value)));
    expected.extend(pidfd_id(pid).map(|id| ("LISTEN_PIDFDID".to_owned(), id)));
    assert_eq!(given.environment, expected);
    for (name, value) in kept {
        assert_eq!(given.variable(name), value);
    }
}

#[test]
fn each_worker_has_a_slot_a_number_and_a_notification_socket_of_its_own() {
    let port = free_port();
    let daemon = Daemon::run()
        .workers(3)
        .listen(&port)
        .command([crate::harness::odd().as_os_str(), "poll".as_ref()])
        .start();
    daemon.wait_line(|line| line.contains("3 workers ready"), "ready");
    let mut sockets = Vec::new();
    for (slot, pid) in daemon.workers().into_iter().enumerate() {
        let environment = environment(pid);
        assert_eq!(environment["SHEPHERD_SLOT"], slot.to_string());
        assert_eq!(environment["LISTEN_PID"], pid.to_string());
        assert_eq!(environment.get("LISTEN_PIDFDID"), pidfd_id(pid).as_ref());
        sockets.push(environment["NOTIFY_SOCKET"].clone());
    }
    sockets.dedup();
    assert_eq!(sockets.len(), 3, "{sockets:?}");
}

/// A program without a signal handler of its own, which writes down its own status.
fn status_of_cat(line: &str) -> (Daemon, BTreeMap<String, String>) {
    let builder = wrapped(line);
    let daemon = builder
        .args(["--ready", "alive:1ms"])
        .command(["sh", "-c", "cat /proc/self/status; echo whole; exec sleep 1000"])
        .start();
    daemon.wait_line(|line| line == "whole", "the status");
    let status = daemon
        .lines()
        .iter()
        .filter_map(|line| line.text.split_once(":\t"))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    (daemon, status)
}

#[test]
fn signals_that_were_ignored_or_blocked_around_the_daemon_are_neither_in_a_worker() {
    let (daemon, status) = status_of_cat(
        "exec python3 -c '
import os, signal, sys
for ignored in signal.SIGINT, signal.SIGPIPE, signal.SIGQUIT, signal.SIGUSR1, signal.SIGTTOU:
    signal.signal(ignored, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGALRM, signal.SIGWINCH])
os.execv(sys.argv[1], sys.argv[1:])
' \"$@\"",
    );
    for set in ["SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd"] {
        let signals = u64::from_str_radix(&status[set], 16).expect("a set");
        assert_eq!(signals & !OF_THE_C_LIBRARY, 0, "{set}: {signals:x}");
    }
    assert!(daemon.stop().success());
}

/// Signals 32 and 33, with which the C library cancels threads and changes their users. The GNU one
/// ignores them in whatever posix_spawn(3) starts, and sigaction(3) refuses to touch them.
const OF_THE_C_LIBRARY: u64 = 0b11 << 31;

#[test]
fn a_worker_ignores_no_signal_at_all_not_even_those_of_the_c_library() {
    let (_daemon, status) = status_of_cat("exec \"$@\"");
    assert_eq!(status["SigIgn"], "0000000000000000");
}

#[test]
fn a_daemon_that_was_started_with_its_signals_blocked_still_stops() {
    let (daemon, status) = status_of_cat(
        "exec python3 -c '
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
os.execv(sys.argv[1], sys.argv[1:])
' \"$@\"",
    );
    assert_eq!(status["SigBlk"], "0000000000000000");
    assert!(daemon.stop().success());
    daemon.assert_nothing_left();
}

#[test]
fn a_worker_catches_and_ignores_only_what_its_program_does() {
    let (_daemon, given) = given_by(Daemon::run());
    assert_eq!(given.signals("SigBlk"), 0);
    // A Rust program ignores PIPE (13), and catches SEGV (11) and BUS (7) to tell of a stack that
    // is too small.
    let bit = |signal: u32| 1 << (signal - 1);
    assert_eq!(given.signals("SigIgn") & !OF_THE_C_LIBRARY, bit(13));
    assert_eq!(given.signals("SigCgt") & !(bit(11) | bit(7)), 0);
}

#[test]
fn descriptors_are_the_null_device_the_daemons_output_and_the_sockets() {
    let port = free_port();
    let home = Home::new();
    let file = home.directory().join("dump");
    let daemon = Daemon::run()
        .home(&home)
        .listen(&port)
        .listen("127.0.0.1:0")
        .listen(format!("unix:{}/web.sock", home.directory().display()))
        .command(dump(&file))
        .start();
    let given = Given::wait(&daemon, &file);
    let numbers: Vec<i32> = given.descriptors.keys().copied().collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5], "{:#?}", given.descriptors);
    assert_eq!(given.descriptors[&0], "/dev/null");
    for number in [1, 2] {
        let own = fs::read_link(format!("/proc/{}/fd/{number}", daemon.pid())).expect("a link");
        assert_eq!(Path::new(&given.descriptors[&number]), own);
    }
    for number in [3, 4, 5] {
        assert!(given.descriptors[&number].starts_with("socket:"), "{:#?}", given.descriptors);
    }
}

#[test]
fn descriptors_that_the_daemon_was_started_with_do_not_reach_workers() {
    let (daemon, given) = given_by(wrapped(
        "exec 0</dev/zero 3</dev/zero 4</etc 5</dev/zero 9</dev/zero\nexec \"$@\"",
    ));
    assert!(
        fs::read_link(format!("/proc/{}/fd/9", daemon.pid())).is_ok(),
        "the daemon was started with it"
    );
    let numbers: Vec<i32> = given.descriptors.keys().copied().collect();
    assert_eq!(numbers, [0, 1, 2, 3], "{:#?}", given.descriptors);
    assert_eq!(given.descriptors[&0], "/dev/null");
    assert!(given.descriptors[&3].starts_with("socket:"), "{:#?}", given.descriptors);
}

#[test]
fn a_daemon_without_standard_descriptors_gives_its_workers_usable_ones() {
    let home = Home::new();
    let file = home.directory().join("dump");
    let port = free_port();
    let daemon =
        wrapped("exec 0<&- 1>&- 2>&-\nexec \"$@\"").listen(&port).command(dump(&file)).start();
    let given = Given::wait(&daemon, &file);
    assert_eq!(get(&port, "/").expect("an answer").status, 200);
    let numbers: Vec<i32> = given.descriptors.keys().copied().collect();
    assert_eq!(numbers, [0, 1, 2, 3], "{:#?}", given.descriptors);
    assert!(given.descriptors[&3].starts_with("socket:"), "{:#?}", given.descriptors);
    for number in [0, 1, 2] {
        assert_eq!(given.descriptors[&number], "/dev/null");
    }
    assert!(daemon.stop().success());
    drop(home);
}

#[test]
fn the_limit_on_open_files_is_what_the_daemon_was_started_with_not_what_it_raised_it_to() {
    let (daemon, given) = given_by(wrapped("ulimit -Sn 512\nexec \"$@\""));
    let own = fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).expect("limits");
    let words = |text: &str| text.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .map(words)
        .expect("its limit");
    let workers = words(&given.limits["Max open files"]);
    assert_eq!(workers[0], "512");
    assert_eq!(workers[1], own[1], "the hard limit is the same");
    assert_eq!(own[0], own[1], "the daemon has raised its own");
}

#[test]
fn a_worker_leads_a_session_of_its_own_and_is_the_daemons_child() {
    let (daemon, given) = given_by(Daemon::run());
    let pid = given.ids["pid"];
    assert_eq!(given.ids["session"], pid);
    assert_eq!(given.ids["group"], pid);
    assert_eq!(given.ids["parent"], daemon.pid());
}

#[test]
fn a_restarted_worker_is_given_the_same_with_numbers_of_its_own() {
    let home: Arc<Home> = Home::new();
    let file = home.directory().join("dump");
    let port = free_port();
    let daemon = Daemon::run().home(&home).listen(&port).command(dump(&file)).start();
    let first = Given::wait(&daemon, &file);
    fs::remove_file(&file).expect("removed");
    kill(first.ids["pid"]);
    let second = Given::wait(&daemon, &file);
    let mut expected = first.environment.clone();
    let pid = second.ids["pid"];
    assert_ne!(pid, first.ids["pid"]);
    expected.insert("LISTEN_PID".to_owned(), pid.to_string());
    expected.insert("SHEPHERD_WORKER".to_owned(), "2".to_owned());
    let path = &first.environment["NOTIFY_SOCKET"];
    expected.insert("NOTIFY_SOCKET".to_owned(), path.replace("notify.1", "notify.2"));
    expected.extend(pidfd_id(pid).map(|id| ("LISTEN_PIDFDID".to_owned(), id)));
    assert_eq!(second.environment, expected);
    assert_eq!(second.directory, first.directory);
    assert_eq!(second.limits, first.limits);
    assert_eq!(
        second.descriptors.keys().collect::<Vec<_>>(),
        first.descriptors.keys().collect::<Vec<_>>()
    );
}

#[test]
fn the_programs_name_and_arguments_arrive_byte_for_byte() {
    let daemon = Daemon::run()
        .args(["--ready", "alive:1ms"])
        .command([
            "python3",
            "-c",
            "import sys; print(ascii(sys.argv), flush=True); input()",
            "",
            "a b",
            "--",
            "-n",
            "$HOME",
            "*",
            "\u{e4}\n",
        ])
        .start();
    let line = daemon.wait_line(|line| line.starts_with("['-c'"), "the arguments");
    assert_eq!(line, "['-c', '', 'a b', '--', '-n', '$HOME', '*', '\\xe4\\n']");
}
