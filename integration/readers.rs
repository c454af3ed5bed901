//! Workers that take nothing on trust: what they are given obeys sd_listen_fds(3) to the letter, or
//! they would refuse it.

use std::{
    ffi::OsString,
    fs,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

use crate::{
    given::pidfd_id,
    harness::{DEADLINE, Daemon, Home, free_port, get, http_c, http_go, strict_readers},
    reload::changes_version,
    site::{setting, stop_well},
};

/// Close-on-exec among the flags in `/proc/PID/fdinfo`.
const CLOSE_ON_EXEC: u32 = 0o2_000_000;

#[test]
fn c_workers_are_reloaded_again_and_again_and_no_request_fails() {
    changes_version(4, &http_c(), &["--ready", "notify"], setting("RELOADS", 2));
}

#[test]
fn go_workers_are_reloaded_again_and_again_and_no_request_fails() {
    if let Some(go) = http_go() {
        changes_version(4, &go, &["--ready", "notify"], setting("RELOADS", 2));
    }
}

#[test]
fn a_strict_reader_takes_all_sockets_with_their_names_and_keeps_them_from_its_children() {
    for worker in strict_readers() {
        let home = Home::new();
        let port = free_port();
        let path = home.directory().join("web.sock");
        let daemon = Daemon::run()
            .home(&home)
            .listen(format!("http={}", port.v4()))
            .listen(format!("unix:{}", path.display()))
            .args(["--ready", "notify"])
            .command(worker)
            .start();
        daemon.wait_line(|line| line.ends_with("1 worker ready"), "ready");
        daemon.wait_line(
            |line| line == "http: was given 2 socket(s), named http:unknown",
            "the worker's own view",
        );
        let pid = daemon.wait_workers(1)[0];
        assert_eq!(get(&port, "/").expect("an answer").pid, pid);
        assert_eq!(get(path.as_path(), "/").expect("an answer").pid, pid);
        assert_eq!(sockets_left_open_on_exec(pid), Vec::<String>::new());
        stop_well(&daemon);
    }
}

/// Descriptors of a process that lead to sockets and would reach its children.
fn sockets_left_open_on_exec(pid: i32) -> Vec<String> {
    let mut left_open = Vec::new();
    let mut sockets = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).expect("a live worker") {
        let fd = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        let link = fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap_or_default();
        if !link.to_string_lossy().starts_with("socket:") {
            continue;
        }
        sockets += 1;
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or_default();
        let flags = u32::from_str_radix(flags.trim(), 8).unwrap_or_default();
        if flags & CLOSE_ON_EXEC == 0 {
            left_open.push(fd);
        }
    }
    assert!(sockets >= 2, "{sockets} sockets");
    left_open
}

#[test]
fn a_strict_reader_refuses_what_breaks_a_rule() {
    let mut broken = vec![
        ("env LISTEN_PID=1 \"$@\"", "LISTEN_PID is `1`, but we are "),
        ("unset LISTEN_FDS; exec \"$@\"", "LISTEN_PID and LISTEN_FDS must both be set"),
        ("LISTEN_FDS=1x exec \"$@\"", "LISTEN_FDS is `1x`, not a number"),
        ("LISTEN_FDNAMES=a:b exec \"$@\"", "LISTEN_FDNAMES `a:b` has 2 name(s) for 1 socket(s)"),
        ("LISTEN_FDS=2 LISTEN_FDNAMES=a:b exec \"$@\"", "descriptor 4 is not a listening socket"),
    ];
    let own_pid = i32::try_from(std::process::id()).expect("a pid");
    if pidfd_id(own_pid).is_some() {
        broken.push(("LISTEN_PIDFDID=1 exec \"$@\"", "LISTEN_PIDFDID is `1`, but ours is "));
    }
    for worker in strict_readers() {
        for (line, complaint) in &broken {
            let mut command = ["sh", "-c", line, "sh"].map(OsString::from).to_vec();
            command.extend(worker.clone());
            let daemon = Daemon::run().listen(free_port()).command(command).start();
            daemon.wait_line(
                |line| line.starts_with("http: ") && line.contains(complaint),
                complaint,
            );
            daemon.wait_line(
                |line| line.contains("worker 1 ") && line.contains("exited with code 2"),
                "its exit code",
            );
        }
    }
}

#[test]
fn a_strict_reader_says_that_it_is_ready_to_an_abstract_address_too() {
    for worker in strict_readers() {
        let home = Home::new();
        let name = format!("shepherd-test-reader-{}", home.marker());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let manager = UnixDatagram::bind_addr(&address).expect("a socket");
        manager.set_read_timeout(Some(DEADLINE)).expect("a time limit");
        let mut command =
            ["env".to_owned(), format!("NOTIFY_SOCKET=@{name}")].map(OsString::from).to_vec();
        command.extend(worker);
        let daemon = Daemon::run()
            .home(&home)
            .listen(free_port())
            .args(["--ready", "listen"])
            .command(command)
            .start();
        let mut bytes = [0; 4096];
        let count = match manager.recv(&mut bytes) {
            Ok(count) => count,
            Err(error) => panic!("nothing was said: {error}"),
        };
        assert_eq!(&bytes[..count], b"READY=1\nSTATUS=serving on 1 socket(s)");
        stop_well(&daemon);
    }
}
