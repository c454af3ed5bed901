//! What a service manager hears from the daemon (sd_notify(3)).

#![expect(clippy::disallowed_methods, reason = "what is told is measured by a clock of our own")]

use std::{
    fs,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::Signal,
    time::{ClockId, clock_gettime},
};

use crate::{
    given::kill,
    harness::{Builder, Daemon, Home, eventually_within, free_port, get, odd},
};

/// A manager that reads all the time and keeps what it hears.
struct Manager {
    name: String,
    heard: Arc<Mutex<Vec<Heard>>>,
}

#[derive(Clone, Debug)]
struct Heard {
    at: Instant,
    text: String,
}

impl Manager {
    fn at_path(home: &Home) -> Manager {
        let path = home.directory().join("manager");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        Manager::reading(socket, path.display().to_string())
    }

    fn abstract_name(home: &Home) -> Manager {
        let name = format!("shepherd-test-manager-{}", home.marker());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let socket = UnixDatagram::bind_addr(&address).expect("a socket");
        Manager::reading(socket, format!("@{name}"))
    }

    fn reading(socket: UnixDatagram, name: String) -> Manager {
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let shared = Arc::downgrade(&heard);
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // It ends when the test does.
            while shared.strong_count() > 0 {
                let Ok(count) = socket.recv(&mut bytes) else {
                    continue;
                };
                let Some(heard) = shared.upgrade() else {
                    return;
                };
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(Heard {
                    at: Instant::now(),
                    text: String::from_utf8_lossy(&bytes[..count]).into_owned(),
                });
            }
        });
        Manager { name, heard }
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a message, among those from number `since` on, that has this line. Gives its text
    /// and the number of the next.
    #[track_caller]
    fn wait_since(
        &self,
        daemon: &Daemon,
        since: usize,
        line: impl Fn(&str) -> bool,
        what: &str,
    ) -> (String, usize) {
        let found = eventually_within(Duration::from_secs(20), || {
            let heard = self.heard();
            let found = heard
                .iter()
                .enumerate()
                .skip(since)
                .find(|(_, heard)| heard.text.lines().any(&line));
            found.map(|(number, heard)| (heard.text.clone(), number + 1))
        });
        match found {
            Some(found) => found,
            None => daemon.fail(&format!("the manager did not hear {what}: {:#?}", self.heard())),
        }
    }

    fn count(&self, line: &str) -> usize {
        self.heard().iter().filter(|heard| heard.text.lines().any(|found| found == line)).count()
    }
}

fn with(manager: &Manager, home: &Arc<Home>) -> Builder {
    Daemon::run().home(home).env("NOTIFY_SOCKET", &manager.name)
}

fn is(line: &'static str) -> impl Fn(&str) -> bool {
    move |found| found == line
}

#[test]
fn it_is_ready_once_all_workers_are() {
    let home = Home::new();
    let manager = Manager::at_path(&home);
    let gate = home.directory().join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    let worker = "\
import os, signal, socket
if os.environ['SHEPHERD_SLOT'] == '1': open(os.environ['GATE']).read()
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(b'READY=1', os.environ['NOTIFY_SOCKET'])
signal.pause()
";
    let daemon = with(&manager, &home)
        .workers(2)
        .env("GATE", &gate)
        .command(["python3", "-c", worker])
        .start();
    // Open blocks until the second worker is at its gate.
    let open = fs::File::options().write(true).open(&gate).expect("a worker reads");
    daemon.wait_line(|line| line.contains("(python3.0) is ready"), "the first is ready");
    manager.wait_since(
        &daemon,
        0,
        |line| line.contains("python3: 1 of 2 workers ready"),
        "a status",
    );
    assert_eq!(manager.count("READY=1"), 0, "{:#?}", manager.heard());
    drop(open);
    let (_, next) = manager.wait_since(&daemon, 0, is("READY=1"), "READY=1");
    manager.wait_since(
        &daemon,
        0,
        is("STATUS=python3: 2 of 2 workers ready, generation 1"),
        "the status",
    );
    assert!(daemon.stop().success());
    manager.wait_since(&daemon, next, is("STOPPING=1"), "STOPPING=1");
    assert_eq!(manager.count("READY=1"), 1, "{:#?}", manager.heard());
}

#[test]
fn a_manager_with_an_abstract_name_hears_the_same() {
    let home = Home::new();
    let manager = Manager::abstract_name(&home);
    let port = free_port();
    let daemon =
        with(&manager, &home).listen(&port).command([odd().as_os_str(), "epoll".as_ref()]).start();
    let (_, next) = manager.wait_since(&daemon, 0, is("READY=1"), "READY=1");
    assert!(daemon.stop().success());
    manager.wait_since(&daemon, next, is("STOPPING=1"), "STOPPING=1");
}

#[test]
fn a_stop_says_how_long_it_may_take() {
    let home = Home::new();
    let manager = Manager::at_path(&home);
    let port = free_port();
    let daemon = with(&manager, &home)
        .listen(&port)
        .args(["--drain-timeout", "7s"])
        .command([odd().as_os_str(), "epoll".as_ref()])
        .start();
    manager.wait_since(&daemon, 0, is("READY=1"), "READY=1");
    assert!(daemon.stop().success());
    let (text, _) = manager.wait_since(&daemon, 0, is("STOPPING=1"), "STOPPING=1");
    let extend: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC="))
        .expect("a time")
        .parse()
        .expect("a number");
    assert!(extend >= 7_000_000, "{text}");
}

#[test]
fn a_lame_duck_is_a_stop_from_its_first_moment_and_its_time_is_counted_in() {
    let home = Home::new();
    let manager = Manager::at_path(&home);
    let port = free_port();
    let daemon = with(&manager, &home)
        .listen(&port)
        .args(["--drain-timeout", "7s", "--lame-duck", "1h"])
        .command([odd().as_os_str(), "epoll".as_ref()])
        .start();
    manager.wait_since(&daemon, 0, is("READY=1"), "READY=1");
    daemon.signal(Signal::SIGTERM);
    let (text, _) = manager.wait_since(&daemon, 0, is("STOPPING=1"), "STOPPING=1");
    let extend = text.lines().find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC="));
    let extend: u64 = extend.expect("a time").parse().expect("a number");
    assert!(extend >= 3_607_000_000, "{text}");
    let serves = |text: &str| text.contains("STATUS=stopping soon: odd: 1 of 1 workers ready");
    manager.wait_since(&daemon, 0, serves, "what still serves");
    daemon.signal(Signal::SIGQUIT);
    assert!(daemon.wait_exit().success());
}

#[test]
fn a_reload_is_told_from_its_begin_to_its_end() {
    let home = Home::new();
    let manager = Manager::at_path(&home);
    let port = free_port();
    let daemon = with(&manager, &home)
        .workers(2)
        .listen(&port)
        .command([odd().as_os_str(), "epoll".as_ref()])
        .start();
    let (_, ready) = manager.wait_since(&daemon, 0, is("READY=1"), "READY=1");
    let now_usec = || {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock");
        u64::try_from(Duration::from(now).as_micros()).expect("a small number")
    };
    let before = now_usec();
    daemon.signal(Signal::SIGHUP);
    let (text, reloading) = manager.wait_since(&daemon, ready, is("RELOADING=1"), "RELOADING=1");
    let at: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("MONOTONIC_USEC="))
        .expect("Type=notify-reload wants the time in the same message")
        .parse()
        .expect("a number");
    // systemd compares it with the time at which it sent the signal.
    assert!(at >= before && at <= now_usec(), "{before} {at}");
    manager.wait_since(
        &daemon,
        ready,
        |line| line.contains("reloading to generation 2"),
        "a status",
    );
    manager.wait_since(&daemon, reloading, is("READY=1"), "READY=1 at its end");
    manager.wait_since(
        &daemon,
        reloading,
        |line| line.starts_with("STATUS=odd: 2 of 2 workers ready, generation 2"),
        "a status",
    );
    assert_eq!(manager.count("RELOADING=1"), 1);
    assert_eq!(manager.count("READY=1"), 2);
}

#[test]
fn a_reload_that_fails_ends_as_well_and_the_status_tells() {
    let home = Home::new();
    let manager = Manager::at_path(&home);
    let file = home.directory().join("env");
    fs::write(&file, "VERSION=v1\n").expect("written");
    let port = free_port();
    let daemon = with(&manager, &home)
        .listen(&port)
        .args(["--env-file".as_ref(), file.as_os_str()])
        .command([odd().as_os_str(), "epoll".as_ref()])
        .start();
    let (_, ready) = manager.wait_since(&daemon, 0, is("READY=1"), "READY=1");
    fs::remove_file(&file).expect("removed");
    daemon.signal(Signal::SIGHUP);
    let (_, reloading) = manager.wait_since(&daemon, ready, is("RELOADING=1"), "RELOADING=1");
    manager.wait_since(&daemon, reloading, is("READY=1"), "READY=1: the reload is over");
    daemon.wait_line(
        |line| {
            line.contains("reload to generation 2 aborted")
                && line.contains("cannot read environment file")
        },
        "the cause in the log",
    );
    assert_eq!(get(&port, "/").expect("an answer").version, "v1");
    // The protocol has no field for a failure, so the line for people must say it.
    manager.wait_since(
        &daemon,
        reloading - 1,
        |line| {
            line.starts_with("STATUS=") && line.contains("generation 1") && line.contains("abort")
        },
        "a status that tells of the failure",
    );
}

#[test]
fn the_watchdog_is_fed_at_about_half_of_its_time() {
    let home = Home::new();
    let manager = Manager::at_path(&home);
    let watchdog = Duration::from_millis(400);
    let daemon = with(&manager, &home)
        .env("WATCHDOG_USEC", watchdog.as_micros().to_string())
        .args(["--ready", "alive:1ms"])
        .command([odd().as_os_str(), "alive".as_ref()])
        .start();
    let wanted = 8;
    let fed: Vec<Instant> = daemon.eventually("signs of life", || {
        let fed: Vec<Instant> = manager
            .heard()
            .iter()
            .filter(|heard| heard.text.lines().any(|line| line == "WATCHDOG=1"))
            .map(|heard| heard.at)
            .collect();
        (fed.len() >= wanted).then_some(fed)
    });
    let whole = fed[wanted - 1] - fed[0];
    let intervals = u32::try_from(wanted - 1).expect("a small number");
    let mean = whole / intervals;
    // Not much more often, which would be a busy loop; how late it may be is up to the machine.
    assert!(mean >= watchdog * 2 / 5, "{mean:?}: {:#?}", manager.heard());
    assert!(mean < watchdog, "{mean:?}");
}

#[test]
fn without_a_watchdog_there_are_no_signs_of_life() {
    let home = Home::new();
    let manager = Manager::at_path(&home);
    let daemon = with(&manager, &home)
        .args(["--ready", "alive:500ms"])
        .command([odd().as_os_str(), "alive".as_ref()])
        .start();
    manager.wait_since(&daemon, 0, is("READY=1"), "READY=1");
    assert_eq!(manager.count("WATCHDOG=1"), 0);
}

#[test]
fn a_manager_that_does_not_read_stalls_nothing() {
    let home = Home::new();
    let path = home.directory().join("manager");
    let deaf = UnixDatagram::bind(&path).expect("a socket");
    // Its queue is full from the beginning, as a sender that waits would find out.
    let filler = UnixDatagram::unbound().expect("a socket");
    filler.set_nonblocking(true).expect("a mode");
    while filler.send_to(b"filler", &path).is_ok() {}
    let port = free_port();
    let daemon = Daemon::run()
        .home(&home)
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "2000")
        .listen(&port)
        .command([odd().as_os_str(), "epoll".as_ref()])
        .start();
    daemon.wait_line(|line| line.contains("odd: 1 worker ready"), "ready");
    let first = get(&port, "/").expect("an answer").pid;
    kill(first);
    assert_ne!(get(&port, "/").expect("an answer").pid, first, "it restarts");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_line(|line| line.contains("reload committed"), "it reloads");
    assert!(daemon.stop().success());
    drop(deaf);
}

#[test]
fn a_manager_that_is_not_there_is_no_reason_to_fail() {
    let home = Home::new();
    for name in ["/no/such/socket", "@no-such-name", "relative", "", "vsock:2:1234"] {
        let daemon = Daemon::run()
            .home(&home)
            .env("NOTIFY_SOCKET", name)
            .args(["--ready", "alive:1ms"])
            .command([odd().as_os_str(), "alive".as_ref()])
            .start();
        daemon.wait_line(|line| line.contains("1 worker ready"), "ready");
        assert!(daemon.stop().success(), "{name}");
    }
}

#[test]
fn the_words_of_workers_are_not_passed_on_as_the_daemons() {
    let home = Home::new();
    let manager = Manager::at_path(&home);
    let port = free_port();
    let daemon = with(&manager, &home)
        .listen(&port)
        .command([odd().as_os_str(), "status".as_ref(), "warming up".as_ref()])
        .start();
    manager.wait_since(&daemon, 0, is("READY=1"), "READY=1");
    assert!(daemon.stop().success());
    manager.wait_since(&daemon, 0, is("STOPPING=1"), "STOPPING=1");
    assert_eq!(manager.count("STATUS=warming up"), 0);
    assert_eq!(manager.count("READY=1"), 1);
}
