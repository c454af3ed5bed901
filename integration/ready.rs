//! When a worker counts as ready, and what does not make it so.

#![expect(clippy::disallowed_methods, reason = "what is told is measured by a clock of our own")]

use std::{
    ffi::OsString,
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    given::{environment, kill},
    harness::{
        Builder, Daemon, Line, Process, free_port, get, http_node, http_python, http_rust, odd,
        strict_readers,
    },
};

fn odd_mode(mode: &[&str]) -> Vec<OsString> {
    let mut command = vec![OsString::from(odd())];
    command.extend(mode.iter().map(OsString::from));
    command
}

fn contains(words: &str) -> impl Fn(&str) -> bool {
    move |line| line.contains(words)
}

#[track_caller]
fn wait_ready(daemon: &Daemon, evidence: &str) {
    daemon.wait_line(
        |line| line.contains("is ready after") && line.ends_with(evidence),
        &format!("ready: {evidence}"),
    );
}

/// The notification socket of a worker.
fn notify_socket(pid: i32) -> PathBuf {
    PathBuf::from(&environment(pid)["NOTIFY_SOCKET"])
}

fn send(socket: &Path, message: &str) {
    let sender = UnixDatagram::unbound().expect("a socket");
    sender.send_to(message.as_bytes(), socket).expect("sent");
}

/// A python worker: `body` follows a function `notify(text)`.
fn python(body: &str) -> Vec<OsString> {
    let program = format!(
        "\
import os, signal, socket, sys
def notify(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(text.encode(), os.environ['NOTIFY_SOCKET'])
{body}"
    );
    ["python3", "-c", &program].map(OsString::from).to_vec()
}

// ---- notify --------------------------------------------------------------------------------

#[test]
fn a_worker_that_says_so_is_ready() {
    let port = free_port();
    let daemon =
        Daemon::run().listen(&port).args(["--ready", "notify"]).command(http_rust()).start();
    wait_ready(&daemon, "it said so");
    assert_eq!(get(&port, "/").expect("an answer").status, 200);
}

#[test]
fn systemd_notify_speaks_for_a_shell_and_its_barrier_is_passed() {
    // It waits for its barrier without a limit worth mention, so what follows it shows the passing.
    let daemon = Daemon::run()
        .args(["--ready", "notify"])
        .command([
            "sh",
            "-c",
            "systemd-notify --ready --status=warm && echo passed; exec sleep 1000",
        ])
        .start();
    wait_ready(&daemon, "it said so");
    daemon.wait_line(|line| line == "passed", "the barrier is passed");
    assert_eq!(daemon.count_lines(contains("WARN")), 0);
}

#[test]
fn a_worker_that_waits_at_a_barrier_is_let_through() {
    let port = free_port();
    let daemon = Daemon::run()
        .listen(&port)
        .args(["--ready", "notify"])
        .command(odd_mode(&["barrier"]))
        .start();
    wait_ready(&daemon, "it said so");
    daemon.wait_line(|line| line == "barrier done", "the barrier is passed");
}

#[test]
fn ready_is_known_before_the_barrier_behind_it_is_passed() {
    let daemon = Daemon::run()
        .args(["--ready", "notify"])
        .command(python(
            "\
notify('READY=1')
reader, writer = os.pipe()
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.connect(os.environ['NOTIFY_SOCKET'])
    socket.send_fds(s, [b'BARRIER=1'], [writer])
os.close(writer)
os.read(reader, 1)
sys.stderr.write('passed\\n')
signal.pause()
",
        ))
        .start();
    daemon.wait_line(|line| line == "passed", "the barrier is passed");
    let lines = daemon.lines();
    let place = |words: &str| lines.iter().position(|line| line.text.contains(words));
    assert!(place("is ready after") < place("passed"), "{lines:#?}");
}

#[test]
fn to_be_ready_twice_is_harmless() {
    let daemon = Daemon::run()
        .args(["--ready", "notify"])
        .command(python(
            "\
notify('READY=1')
notify('READY=1\\nSTATUS=again')
notify('READY=1')
print('said', flush=True)
signal.pause()
",
        ))
        .start();
    wait_ready(&daemon, "it said so");
    daemon.wait_line(|line| line == "said", "all was sent");
    assert!(daemon.stop().success());
    assert_eq!(daemon.count_lines(contains("is ready after")), 1);
    assert_eq!(daemon.count_lines(contains("WARN")), 0);
}

#[test]
fn a_worker_that_sends_garbage_first_is_ready_when_it_says_so() {
    let port = free_port();
    let daemon = Daemon::run()
        .listen(&port)
        .args(["--ready", "notify"])
        .command(odd_mode(&["garbage"]))
        .start();
    daemon.wait_line(contains("sent a notification"), "a complaint");
    wait_ready(&daemon, "it said so");
    assert_eq!(get(&port, "/").expect("an answer").status, 200);
    assert!(daemon.count_lines(contains("sent a notification")) <= 3, "complaints are bounded");
    assert!(daemon.stop().success());
    assert_eq!(daemon.count_lines(contains("panicked")), 0);
}

#[test]
fn a_message_by_a_process_of_nobody_is_refused() {
    let daemon =
        Daemon::run().args(["--ready", "notify"]).command(odd_mode(&["never-ready"])).start();
    let worker = daemon.wait_workers(1)[0];
    daemon.wait_line(contains("(odd.0) started"), "started");
    let socket = notify_socket(worker);
    send(&socket, "READY=1");
    daemon.wait_line(
        contains("got a notification from a process that is not its own"),
        "a complaint",
    );
    assert_eq!(daemon.count_lines(contains("is ready")), 0);
}

#[test]
fn a_message_counts_when_its_sender_has_gone_by_the_time_it_is_read() {
    // While the daemon is stopped nobody reads.
    let daemon = Daemon::run()
        .args(["--ready", "notify"])
        .command(python(
            "\
os.kill(os.getppid(), signal.SIGSTOP)
child = os.fork()
if child == 0:
    notify('READY=1')
    os._exit(0)
os.waitpid(child, 0)
os.kill(os.getppid(), signal.SIGCONT)
signal.pause()
",
        ))
        .start();
    wait_ready(&daemon, "it said so");
}

#[test]
fn a_message_by_another_worker_is_refused() {
    let daemon = Daemon::run()
        .workers(2)
        .args(["--ready", "notify"])
        .command(python(
            "\
own = os.environ['NOTIFY_SOCKET']
if os.environ['SHEPHERD_SLOT'] == '0':
    signal.pause()
first = own.rsplit('.', 1)[0] + '.1'
assert first != own
os.environ['NOTIFY_SOCKET'] = first
notify('READY=1')
os.environ['NOTIFY_SOCKET'] = own
notify('READY=1')
signal.pause()
",
        ))
        .start();
    daemon.wait_line(contains("worker 2 (python3.1) is ready"), "the second is ready");
    daemon.wait_line(
        |line| line.contains("worker 1") && line.contains("from a process that is not its own"),
        "a complaint",
    );
    assert_eq!(daemon.count_lines(contains("worker 1 (python3.0) is ready")), 0);
}

#[test]
fn a_worker_that_asks_for_more_time_gets_it() {
    let port = free_port();
    let daemon = Daemon::run()
        .listen(&port)
        .args(["--ready", "notify", "--ready-timeout", "1s"])
        .command(odd_mode(&["extend"]))
        .start();
    wait_ready(&daemon, "it said so");
    assert_eq!(daemon.count_lines(contains("was not ready within")), 0);
    assert_eq!(get(&port, "/").expect("an answer").status, 200);
}

// ---- MAINPID -------------------------------------------------------------------------------

#[test]
fn a_worker_that_names_another_main_process_lives_as_long_as_that_one() {
    let port = free_port();
    let daemon = Daemon::run()
        .listen(&port)
        .args(["--ready", "notify"])
        .command(odd_mode(&["main-pid"]))
        .start();
    let first = daemon.wait_line(contains("(odd.0) started: pid "), "a start");
    let line = daemon.wait_line(contains("as its main process"), "another main process");
    let number = |line: &str, before: &str| -> i32 {
        let (_, rest) = line.split_once(before).expect("a pid");
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("a pid")
    };
    let (first, main) = (number(&first, "pid "), number(&line, "process "));
    assert_ne!(first, main);
    let parent = Process::open(first);
    daemon.eventually("the end of the first process", || {
        parent.as_ref().map_or(Some(()), |parent| parent.ends_within(Duration::ZERO).then_some(()))
    });
    // Nothing is restarted for that: the named one still answers, and is the only one.
    assert_eq!(get(&port, "/").expect("an answer").pid, main);
    assert_eq!(daemon.count_lines(contains("restarting")), 0);

    let mark = daemon.mark();
    kill(main);
    daemon.wait_line_since(mark, contains("; restarting now"), "a restart");
    daemon.wait_line_since(mark, contains("worker 2 (odd.0) started"), "another worker");
    assert_ne!(get(&port, "/").expect("an answer").pid, main);
    assert!(daemon.stop().success());
    daemon.assert_nothing_left();
}

#[test]
fn a_named_main_process_is_the_one_that_is_asked_to_stop() {
    // What it leaves behind is asked after it.
    let daemon = Daemon::run()
        .args(["--ready", "notify"])
        .command(python(
            "\
first = os.getpid()
# Blocked and waited for: a handler could run just before a pause.
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
child = os.fork()
if child != 0:
    notify(f'MAINPID={child}\\nREADY=1')
signal.sigwait([signal.SIGTERM])
print('TERM to', 'the first' if os.getpid() == first else 'the named one', flush=True)
os._exit(0)
",
        ))
        .start();
    wait_ready(&daemon, "it said so");
    assert!(daemon.stop().success());
    let line = daemon.wait_line(|line| line.starts_with("TERM to"), "a stop signal");
    assert_eq!(line, "TERM to the named one");
    daemon.assert_nothing_left();
}

/// The pid in "worker 1 (web.0) names process 42 as its main process".
fn named_process(line: &Line) -> Option<i32> {
    let (_, rest) = line.text.split_once(" names process ")?;
    rest.split_once(' ')?.0.parse().ok()
}

#[test]
fn workers_that_fork_into_the_background_go_on_in_the_process_they_name() {
    let daemon = Daemon::run()
        .workers(8)
        .args(["--ready", "notify"])
        .command(python(
            "\
reader, writer = os.pipe()
if os.fork() == 0:
    notify(f'MAINPID={os.getpid()}\\nREADY=1')
    os.write(writer, b'.')
    signal.pause()
os.read(reader, 1)
os._exit(0)
",
        ))
        .start();
    daemon.wait_line(contains(": 8 workers ready"), "all of them ready");
    assert_eq!(daemon.count_lines(contains("as its main process")), 8);
    assert_eq!(daemon.count_lines(contains("restarting")), 0);
    // The first processes have gone, and those that were named have come to the daemon.
    let mut named: Vec<i32> = daemon.lines().iter().filter_map(named_process).collect();
    named.sort_unstable();
    daemon.eventually("the end of the first processes", || {
        let mut children = daemon.children();
        children.sort_unstable();
        (children == named).then_some(())
    });
    // Each is asked to stop by name; none is left to the sweep at the end.
    assert!(daemon.stop().success());
    assert_eq!(daemon.count_lines(contains("was ended by SIGTERM, after")), 8);
    daemon.assert_nothing_left();
}

#[test]
fn what_a_main_process_left_behind_cannot_name_itself_the_main_one() {
    let daemon = Daemon::run()
        .args(["--ready", "notify", "--drain-timeout", "1s"])
        .command(python(
            "\
# Blocked and waited for: it comes once the main process is known to be gone.
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
if os.fork() != 0:
    notify('READY=1')
    os._exit(0)
signal.sigwait([signal.SIGTERM])
notify(f'MAINPID={os.getpid()}')
signal.pause()
",
        ))
        .start();
    daemon.wait_line(contains("after its main one exited"), "a refusal");
    daemon.wait_line(contains("killing worker 1 "), "the end of what was left behind");
    assert!(daemon.stop().success());
    daemon.assert_nothing_left();
}

#[test]
fn a_main_process_that_is_not_the_workers_own_is_refused() {
    let port = free_port();
    let daemon = Daemon::run()
        .listen(&port)
        .args(["--ready", "notify"])
        .command(odd_mode(&["liar"]))
        .start();
    wait_ready(&daemon, "it said so");
    daemon.wait_line(contains("names process 1 as its main one"), "a complaint");
    assert_eq!(daemon.count_lines(contains("as its main process")), 0);
    let worker = daemon.wait_workers(1)[0];
    assert_eq!(get(&port, "/").expect("an answer").pid, worker);
    kill(worker);
    daemon.wait_line(contains("; restarting now"), "its own process still counts");
}

// ---- listen --------------------------------------------------------------------------------

#[test]
fn a_worker_is_seen_waiting_however_it_waits() {
    for mode in ["epoll", "poll", "select", "accept-blocking"] {
        let port = free_port();
        let daemon = Daemon::run()
            .workers(2)
            .listen(&port)
            .args(["--ready", "listen"])
            .command(odd_mode(&[mode]))
            .start();
        wait_ready(&daemon, "seen waiting on its socket");
        daemon.wait_line(contains("odd: 2 workers ready"), mode);
        assert_eq!(get(&port, "/").expect("an answer").status, 200);
    }
}

#[test]
fn a_worker_is_seen_waiting_whatever_it_is_written_in() {
    for command in [http_node(), http_python(), http_rust()].into_iter().chain(strict_readers()) {
        let port = free_port();
        // Over Node's channel it would say that it listens.
        let options = ["--ready", "listen", "--handoff", "fds"];
        let daemon = Daemon::run().listen(&port).args(options).command(command).start();
        wait_ready(&daemon, "seen waiting on its socket");
        assert_eq!(get(&port, "/").expect("an answer").status, 200);
    }
}

#[test]
fn a_worker_is_seen_waiting_on_any_of_its_sockets() {
    let (first, second) = (free_port(), free_port());
    let directory = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::run()
        .listen(&first)
        .listen(format!("unix:{}/web.sock", directory.path().display()))
        .listen(&second)
        .args(["--ready", "listen"])
        .command(python("s = socket.socket(fileno=4); s.accept()"))
        .start();
    wait_ready(&daemon, "seen waiting on its socket");
}

#[test]
fn to_say_so_is_not_to_be_seen_waiting() {
    let port = free_port();
    let daemon = Daemon::run()
        .listen(&port)
        .args(["--ready", "listen", "--ready-timeout", "1s"])
        .command(python("notify('READY=1'); signal.pause()"))
        .start();
    daemon.wait_line(contains("was not ready within 1 s and is stopped"), "a failure");
    assert_eq!(daemon.count_lines(contains("is ready")), 0);
}

#[test]
fn to_be_seen_waiting_is_not_to_say_so() {
    let port = free_port();
    let daemon = Daemon::run()
        .listen(&port)
        .args(["--ready", "notify", "--ready-timeout", "1s"])
        .command(odd_mode(&["epoll"]))
        .start();
    daemon.wait_line(contains("was not ready within 1 s and is stopped"), "a failure");
    assert_eq!(daemon.count_lines(contains("is ready")), 0);
}

// ---- auto ----------------------------------------------------------------------------------

#[test]
fn of_saying_so_and_being_seen_the_first_counts() {
    let serving = |command: Vec<OsString>| {
        let port = free_port();
        let daemon = Daemon::run().listen(&port).command(command).start();
        (daemon, port)
    };
    let (seen, _port) = serving(odd_mode(&["select"]));
    wait_ready(&seen, "seen waiting on its socket");
    let (said, _port) = serving(python("notify('READY=1'); signal.pause()"));
    wait_ready(&said, "it said so");
}

#[test]
fn a_worker_that_holds_its_socket_and_does_not_wait_on_it_is_not_ready() {
    let port = free_port();
    let daemon = Daemon::run()
        .listen(&port)
        .args(["--ready-timeout", "1s"])
        // It listens, again, and does not accept; it waits, but for something else.
        .command(python(
            "\
s = socket.socket(fileno=3)
s.listen(16)
other, _ = socket.socketpair()
other.recv(1)
",
        ))
        .start();
    daemon.wait_line(contains("was not ready within 1 s and is stopped"), "a failure");
    assert_eq!(daemon.count_lines(contains("is ready")), 0);
}

#[test]
fn a_worker_that_serves_only_after_a_while_is_ready_only_then() {
    let directory = tempfile::tempdir().expect("a directory");
    let gate = directory.path().join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    let port = free_port();
    let daemon = Daemon::run()
        .listen(&port)
        .env("GATE", &gate)
        .command(python(
            "\
open(os.environ['GATE']).read()
print('through', flush=True)
s = socket.socket(fileno=3)
s.accept()
",
        ))
        .start();
    daemon.wait_line(contains("started: pid"), "a start");
    // Open blocks until the worker is there: its gate is shut until we close our end.
    let open = fs::File::options().write(true).open(&gate).expect("the worker reads");
    assert_eq!(daemon.count_lines(contains("is ready")), 0);
    drop(open);
    wait_ready(&daemon, "seen waiting on its socket");
    let lines = daemon.lines();
    let place = |words: &str| lines.iter().position(|line| line.text.contains(words));
    assert!(place("started: pid") < place("is ready after"), "{lines:#?}");
}

// ---- alive ---------------------------------------------------------------------------------

#[test]
fn a_worker_that_has_been_alive_for_as_long_as_asked_is_ready_then_and_not_before() {
    let started = Instant::now();
    let daemon =
        Daemon::run().args(["--ready", "alive:500ms"]).command(odd_mode(&["alive"])).start();
    wait_ready(&daemon, "alive for 500ms");
    assert!(started.elapsed() >= Duration::from_millis(500));
}

#[test]
fn a_worker_that_exits_before_it_was_alive_for_long_enough_was_never_ready() {
    let daemon = Daemon::run()
        .args(["--ready", "alive:20s"])
        .command(odd_mode(&["exit", "3", "100"]))
        .start();
    daemon.wait_line(
        |line| {
            line.contains("worker 1 (odd.0) exited with code 3 before it was ready; restarting in")
                && line.contains("(attempt 2)")
        },
        "a failure and what comes next",
    );
    daemon.wait_line(contains("worker 2 (odd.0) started"), "another try");
    assert_eq!(daemon.count_lines(contains("is ready")), 0);
}

// ---- never ---------------------------------------------------------------------------------

#[test]
fn a_worker_that_is_never_ready_is_stopped_at_the_timeout_and_tried_again() {
    let port = free_port();
    let daemon = Daemon::run()
        .listen(&port)
        .args(["--ready-timeout", "500ms", "--drain-timeout", "1s"])
        .command(odd_mode(&["never-ready"]))
        .start();
    let line = daemon.wait_line(contains("worker 1 (odd.0) was not ready within"), "a failure");
    assert!(line.contains("restarting in"), "{line}");
    assert!(line.contains("WARN"), "{line}");
    daemon.wait_line(contains("worker 2 (odd.0) started"), "another try");
    assert_eq!(daemon.count_lines(contains("is ready")), 0);
    assert!(daemon.stop().success());
    daemon.assert_nothing_left();
}

#[test]
fn a_worker_that_says_it_is_stopping_is_replaced_at_once() {
    let port = free_port();
    let daemon = Daemon::run()
        .listen(&port)
        .args(["--ready", "notify"])
        .command(odd_mode(&["stopping", "0"]))
        .start();
    daemon.wait_line(
        contains("worker 1 (odd.0) says that it is stopping; restarting now"),
        "a goodbye",
    );
    daemon.wait_line(contains("worker 2 (odd.0) started"), "its replacement");
}

#[test]
fn one_slow_worker_does_not_keep_the_others_from_being_ready() {
    let builder: Builder = Daemon::run().workers(3);
    let daemon = builder
        .args(["--ready", "notify"])
        .command(python(
            "\
if os.environ['SHEPHERD_SLOT'] != '1':
    notify('READY=1')
signal.pause()
",
        ))
        .start();
    daemon.wait_line(contains("(python3.0) is ready"), "the first");
    daemon.wait_line(contains("(python3.2) is ready"), "the third");
    assert_eq!(daemon.count_lines(contains("3 workers ready")), 0);
}
