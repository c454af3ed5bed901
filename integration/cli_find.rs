//! Which daemon a client finds, and what it says where it is none, several, or somebody else's.

#![expect(clippy::disallowed_methods, reason = "how long a search takes is measured")]

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::{
    cli::{ends, shepherd, web},
    harness::{Builder, Daemon, Home, odd},
    site::copy_program,
};

fn alive() -> Builder {
    Daemon::run().args(["--ready", "alive:1ms"]).command([odd().as_os_str(), "alive".as_ref()])
}

#[test]
fn the_only_daemon_needs_no_name_and_of_several_one_is_asked_for() {
    let home = Home::new();
    let daemon = web(alive().home(&home));
    // Where root looks, a daemon of another test may be for a while.
    daemon.eventually("the only one", || {
        let output = daemon.client(["status"]);
        (output.status.code() == Some(0) && output.stdout.contains("`web`")).then_some(())
    });
    let other = alive().home(&home).args(["--name", "other"]).start();
    other.wait_line(|line| line.contains("ready") && line.contains("other: "), "ready");
    for verb in ["status", "reload", "stop", "events"] {
        let output = ends(daemon.client([verb]), 2);
        let told = output.stderr.lines().next().unwrap_or_default();
        assert!(told.contains("several daemons are running; say which one with --"), "{output:#?}");
        for (name, daemon) in [("web", &daemon), ("other", &other)] {
            let line = output.stderr.lines().find(|line| line.contains(name));
            let pid = format!("pid {}", daemon.pid());
            assert!(line.is_some_and(|line| line.contains(&pid)), "{output:#?}");
        }
    }
    assert!(shepherd(&daemon, "status", 0).stdout.contains("`web`"));
    let socket = home.runtime_directory().join("shepherd/other/control.sock");
    let by_path = ["status".as_ref(), "--control".as_ref(), socket.as_os_str()];
    assert!(ends(daemon.client(by_path), 0).stdout.contains("`other`"));
    let by_variable = daemon.builder().env("SHEPHERD_CONTROL", &socket);
    assert!(ends(by_variable.client(["status"]), 0).stdout.contains("`other`"));
    // What is typed is newer than what is exported.
    let both = ends(by_variable.client(["status", "--name", "web"]), 0);
    assert!(both.stdout.contains("`web`"), "{both:#?}");
    assert!(daemon.stop().success() && other.stop().success());
}

#[test]
fn those_that_do_not_answer_are_asked_at_the_same_time_and_named() {
    let home = Home::new();
    let daemon = web(alive().home(&home));
    let place = home.runtime_directory().join("shepherd");
    // One after the other they would take a minute.
    let silent: Vec<UnixListener> = (0..30)
        .map(|number| {
            let directory = place.join(format!("silent-{number}"));
            fs::create_dir(&directory).expect("a directory");
            UnixListener::bind(directory.join("control.sock")).expect("bound")
        })
        .collect();
    let began = Instant::now();
    let output = ends(daemon.client(["status"]), 2);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let line = |name: &str| {
        let mut lines = output.stderr.lines();
        lines.find(|line| line.trim_start().starts_with(name)).unwrap_or_default().to_owned()
    };
    assert!(line("web ").contains(&format!("pid {}", daemon.pid())), "{output:#?}");
    assert!(line("silent-29 ").ends_with("  does not answer within 2 s"), "{output:#?}");

    // The only one of its name is asked all the same.
    drop(silent);
    let directory = place.join("other");
    fs::create_dir(&directory).expect("a directory");
    let listener = UnixListener::bind(directory.join("control.sock")).expect("bound");
    let gone = thread::spawn(move || {
        let search = listener.accept().expect("the search");
        drop((listener.accept().expect("the request"), search));
    });
    let output = ends(daemon.client(["restart", "web", "--name", "other"]), 1);
    gone.join().expect("asked twice");
    let told = "shepherd: `other`: does not answer within 2 s; asking all the same\n";
    assert!(output.stderr.starts_with(told), "{output:#?}");
    assert!(output.stderr.contains("the daemon is gone"), "{output:#?}");
    assert!(daemon.stop().success());
}

#[test]
fn what_a_killed_daemon_left_is_no_daemon() {
    let daemon = web(alive());
    daemon.signal(Signal::SIGKILL);
    daemon.wait_exit();
    let output = shepherd(&daemon, "status", 6);
    assert!(output.stderr.contains("shepherd/web`: its daemon is gone"), "{output:#?}");
    let socket = daemon.home().runtime_directory().join("shepherd/web/control.sock");
    let words = ["reload".as_ref(), "--control".as_ref(), socket.as_os_str()];
    let output = ends(daemon.client(words), 6);
    assert!(output.stderr.contains("nobody listens on it"), "{output:#?}");
}

#[test]
fn a_daemon_with_its_control_socket_elsewhere_is_told_of() {
    let home = Home::new();
    let socket = home.directory().join("elsewhere.sock");
    let daemon = web(alive().home(&home).args(["--control".as_ref(), socket.as_os_str()]));
    let output = shepherd(&daemon, "status", 6);
    let told = "shepherd/web`: no control socket; was its daemon started with --control?";
    assert!(output.stderr.contains(told), "{output:#?}");
    let words = ["status".as_ref(), "--control".as_ref(), socket.as_os_str()];
    assert!(ends(daemon.client(words), 0).stdout.contains("`web`"));
    assert!(daemon.stop().success());
}

#[test]
fn a_daemon_of_somebody_else_ends_every_verb_with_8() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let home = Home::new();
    let daemon = web(alive().home(&home));
    let program = home.directory().join("shepherd");
    copy_program(std::path::Path::new(env!("CARGO_BIN_EXE_shepherd")), &program);
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("ours");
    let socket = home.runtime_directory().join("shepherd/web/control.sock");
    for verb in
        ["status", "reload", "scale web=2", "restart web", "stop", "start web", "kill 1", "events"]
    {
        for by_path in [true, false] {
            let mut words = vec!["--reuid=65534", "--regid=65534", "--clear-groups"];
            words.push(program.to_str().expect("text"));
            words.extend(verb.split(' '));
            let socket = socket.to_str().expect("text");
            words.extend(if by_path { ["--control", socket] } else { ["--name", "web"] });
            let output = ends(daemon.builder().binary("setpriv").client(words), 8);
            assert!(output.stderr.contains("permission denied; ask as the user"), "{output:#?}");
        }
    }
    assert!(daemon.stop().success());
}
