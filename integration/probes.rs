//! Probes: workers that are ready when they take a connection, answer a request, or a command says
//! so; and what is no such answer, the old generation's among it.

use std::{ffi::OsString, fs, path::Path};

use nix::sys::signal::Signal;

use crate::{
    given::environment,
    harness::{Builder, Daemon, Home, Line, Process, free_port, get, http_node, http_rust, odd},
    inherited::handed_over,
    site::{RUN, Site, wait_only_generation},
};

/// A python worker that serves its first socket, one connection at a time. HTTP is what it speaks:
/// `STATUS` is the status, `WAIT` how long it waits before it serves, `FAILURES` how often it says
/// 503 before that.
const SERVER: &str = "\
import os, socket, time
def read_head(c):
    head = b''
    while b'\\r\\n\\r\\n' not in head:
        piece = c.recv(4096)
        if not piece:
            return None
        head += piece
    return head
status, failures = os.environ.get('STATUS', '200'), int(os.environ.get('FAILURES', '0'))
time.sleep(float(os.environ.get('WAIT', '0')))
listener = socket.socket(fileno=3)
while True:
    c, _ = listener.accept()
    head = read_head(c)
    if head is None:
        c.close()
        continue
    if os.environ.get('SHOW'):
        print(repr(head.decode()), flush=True)
    failures -= 1
    answer = '503' if failures >= 0 else status
    body = f'v {os.getpid()} 0 ' + os.environ['SHEPHERD_GENERATION']
    c.sendall(f'HTTP/1.1 {answer} X\\r\\nContent-Length: {len(body)}\\r\\nConnection: close\\r\\n\\r\\n{body}'.encode())
    c.close()
";

fn python(program: &str) -> [OsString; 3] {
    ["python3", "-c", program].map(OsString::from)
}

/// A python worker that answers every connection with these bytes, less the request.
fn answers(expression: &str) -> [OsString; 3] {
    python(&format!(
        "\
import socket, time
listener = socket.socket(fileno=3)
def answer(c):
    c.recv(4096)
    {expression}
while True:
    c, _ = listener.accept()
    try: answer(c)
    except OSError: pass  # A probe that has heard enough does not wait for the rest.
    c.close()
"
    ))
}

fn contains(words: &str) -> impl Fn(&str) -> bool {
    move |line| line.contains(words)
}

#[track_caller]
fn wait_ready(daemon: &Daemon, evidence: &str) -> String {
    let what = format!("ready: {evidence}");
    daemon.wait_line(|line| line.contains("is ready after") && line.ends_with(evidence), &what)
}

/// Waits until a worker was late for this reason.
#[track_caller]
fn wait_late(daemon: &Daemon, reason: &str) {
    let late = |line: &str| line.contains("was not ready within") && line.contains(reason);
    daemon.wait_line(late, &format!("late: {reason}"));
}

/// A daemon whose probes are few and quick to end.
fn probing(ready: &str) -> Builder {
    Daemon::run().args(["--ready", ready])
}

fn hurried(ready: &str) -> Builder {
    probing(ready).args(["--ready-timeout", "3s", "--ready-probe-timeout", "1s"])
}

// ---- tcp ------------------------------------------------------------------------------------

#[test]
fn a_worker_that_takes_a_connection_is_ready() {
    for address in ["", "127.0.0.1:", "[::1]:", "localhost:"] {
        let port = free_port();
        let daemon =
            probing("tcp").listen(format!("{address}{port}")).command(python(SERVER)).start();
        wait_ready(&daemon, "took a connection");
        assert!(daemon.stop().success());
    }
}

#[test]
fn a_worker_that_takes_a_connection_on_a_unix_socket_is_ready() {
    let home = Home::new();
    let path = home.directory().join("web.sock");
    let unix = format!("unix:{}", path.display());
    let daemon = probing("tcp").home(&home).listen(unix).command(python(SERVER)).start();
    wait_ready(&daemon, "took a connection");
}

#[test]
fn the_first_stream_socket_is_probed() {
    let home = Home::new();
    let path = home.directory().join("web.sock");
    let second = SERVER.replace("fileno=3", "fileno=4");
    let daemon = probing("http:/")
        .home(&home)
        .listen("udp:127.0.0.1:0")
        .listen(format!("unix:{}", path.display()))
        .listen("127.0.0.1:0")
        .command(python(&second))
        .start();
    wait_ready(&daemon, "answered `GET /` with 200");
}

#[test]
fn the_first_stream_socket_is_probed_also_after_it_was_bound_anew() {
    let home = Home::new();
    let path = home.directory().join("web.sock");
    let daemon = probing("http:/")
        .home(&home)
        .listen(format!("unix:{}", path.display()))
        .listen("127.0.0.1:0")
        .command(python(SERVER))
        .start();
    wait_ready(&daemon, "answered `GET /` with 200");
    std::fs::remove_file(&path).expect("it is there");
    daemon.wait_line(contains("reload committed"), "that its workers were replaced");
}

#[test]
fn a_worker_that_takes_a_connection_on_a_unix_name_is_ready() {
    let name = format!("unix:@shepherd-probes-{}", std::process::id());
    let daemon = probing("tcp").listen(name).command(python(SERVER)).start();
    wait_ready(&daemon, "took a connection");
}

#[test]
fn a_worker_that_only_listens_is_not_ready_by_tcp() {
    let port = free_port();
    let daemon =
        hurried("tcp").listen(&port).command([odd().as_os_str(), "never-ready".as_ref()]).start();
    wait_late(&daemon, "the last probe by TCP saw nobody take its connection");
    assert_eq!(daemon.count_lines(contains("is ready after")), 0);
}

#[test]
fn its_word_does_not_make_a_worker_ready_where_a_probe_is_asked_for() {
    let port = free_port();
    let mute = "\
import os, signal, socket
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.sendto(b'READY=1\\nSTATUS=said', os.environ['NOTIFY_SOCKET'])
signal.pause()
";
    let daemon = hurried("tcp").listen(&port).command(python(mute)).start();
    wait_late(&daemon, "saw nobody take its connection");
    assert_eq!(daemon.count_lines(contains("is ready after")), 0);
}

#[test]
fn every_worker_of_a_first_start_is_ready_by_a_connection_of_its_own() {
    let port = free_port();
    let daemon = probing("tcp").workers(12).listen(&port).command(python(SERVER)).start();
    daemon.wait_line(contains(": 12 workers ready"), "all ready");
    let lines = daemon.lines();
    let ready = lines.iter().filter(|line| line.text.ends_with(": took a connection"));
    assert_eq!(ready.count(), 12);
}

#[test]
fn a_child_of_the_main_process_may_take_the_connection() {
    let port = free_port();
    let forked = format!("import os\nif os.fork():\n    os.wait()\n{SERVER}");
    let daemon = probing("tcp").listen(&port).command(python(&forked)).start();
    wait_ready(&daemon, "took a connection");
}

#[test]
fn a_worker_whose_socket_keeps_connections_back_is_told_what_to_use() {
    let port = free_port();
    let deferring = format!(
        "import socket\nlistener = socket.socket(fileno=3)\n\
         listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)\n\
         listener.detach()\n{SERVER}"
    );
    // What was connected before the option is set is taken all the same, so it comes first.
    let daemon = hurried("tcp")
        .listen(format!("127.0.0.1:{port}"))
        .args(["--ready-interval", "500ms"])
        .env("WAIT", "1000")
        .command(python(&deferring))
        .start();
    wait_late(&daemon, "since the socket keeps it back until data comes");
    drop(daemon);

    let port = free_port();
    let daemon = probing("http:/")
        .listen(format!("127.0.0.1:{port}"))
        .env("FAILURES", "1")
        .command(python(&deferring))
        .start();
    wait_ready(&daemon, "answered `GET /` with 200");
}

// ---- http -----------------------------------------------------------------------------------

#[test]
fn a_worker_that_answers_well_is_ready() {
    for worker in [http_rust(), http_node()] {
        for address in ["", "127.0.0.1:", "[::1]:", "localhost:"] {
            let port = free_port();
            let daemon = probing("http:/?x=1")
                .workers(2)
                .listen(format!("{address}{port}"))
                .command(&worker)
                .start();
            daemon.wait_line(contains(": 2 workers ready"), "ready");
            wait_ready(&daemon, "answered `GET /?x=1` with 200");
        }
    }
}

#[test]
fn the_request_says_who_asks_and_the_answer_may_be_a_redirection() {
    let home = Home::new();
    let path = home.directory().join("web.sock");
    let daemon = probing("http:/health")
        .home(&home)
        .listen(format!("unix:{}", path.display()))
        .env("SHOW", "1")
        .env("STATUS", "308")
        .command(python(SERVER))
        .start();
    wait_ready(&daemon, "answered `GET /health` with 308");
    let version = env!("CARGO_PKG_VERSION");
    let request = format!(
        "'GET /health HTTP/1.1\\r\\nHost: localhost\\r\\nUser-Agent: shepherd/{version}\\r\\n\
         Accept: */*\\r\\nConnection: close\\r\\n\\r\\n'"
    );
    daemon.wait_line(|line| line == request, "the request");
}

#[test]
fn a_worker_that_fails_at_first_is_asked_again() {
    let port = free_port();
    let daemon =
        probing("http:/").listen(&port).env("FAILURES", "4").command(python(SERVER)).start();
    wait_ready(&daemon, "answered `GET /` with 200");
    assert_eq!(daemon.count_lines(contains("is ready after")), 1);
}

#[test]
fn a_worker_that_is_slow_to_serve_is_waited_for() {
    let port = free_port();
    let daemon = probing("http:/")
        .listen(&port)
        .args(["--ready-probe-timeout", "300ms"])
        .env("WAIT", "1.5")
        .command(python(SERVER))
        .start();
    wait_ready(&daemon, "answered `GET /` with 200");
}

#[test]
fn what_the_last_probe_saw_is_told_of_a_worker_that_is_late() {
    let half = "c.sendall(b'HTTP/1.1 200 OK\\r\\nA: b\\r\\n')";
    let garbage = "c.sendall(b'SSH-2.0-x\\r\\n')";
    let tls = "c.sendall(b'\\x15\\x03\\x01\\0\\x02\\x02\\x50')";
    let endless = "\
for _ in range(100):
        c.sendall(b'x' * 1000 if _ else b'HTTP/1.1 200 OK\\r\\n')";
    for (expression, reason) in [
        (half, "`GET /h` got an answer that was cut off"),
        (garbage, "`GET /h` got an answer that is not HTTP"),
        (tls, "`GET /h` was answered in TLS"),
        (endless, "`GET /h` got an answer whose head does not end"),
        ("pass", "`GET /h` had its connection closed without an answer"),
    ] {
        let port = free_port();
        let daemon =
            hurried("http:/h").listen(format!("127.0.0.1:{port}")).command(answers(expression));
        wait_late(&daemon.start(), reason);
    }
    let slow = "c.sendall(b'HTTP'); time.sleep(1000)";
    for (expression, reason) in [
        (slow, "`GET /h` got 4 bytes and no whole answer in its time"),
        ("time.sleep(1000)", "`GET /h` got no answer in its time"),
    ] {
        let port = free_port();
        // One probe for all the time: the next one would find the worker busy with it.
        let daemon = probing("http:/h")
            .args(["--ready-timeout", "3s", "--ready-probe-timeout", "1m"])
            .listen(&port)
            .command(answers(expression));
        wait_late(&daemon.start(), reason);
    }
    let port = free_port();
    let daemon = hurried("http:/h").listen(&port).env("STATUS", "404").command(python(SERVER));
    wait_late(&daemon.start(), "`GET /h` got status 404; restarting in ");
}

#[test]
fn a_worker_that_exits_during_a_probe_is_restarted_as_ever() {
    let port = free_port();
    let daemon = probing("http:/").listen(&port).command(answers("import os; os._exit(4)")).start();
    daemon
        .wait_line(contains("worker 1 (python3.0) exited with code 4 before it was ready"), "end");
    daemon
        .wait_line(contains("worker 2 (python3.0) exited with code 4 before it was ready"), "end");
    assert_eq!(daemon.count_lines(contains("is ready after")), 0);
    assert!(daemon.stop().success());
    daemon.assert_nothing_left();
}

#[test]
fn handed_over_sockets_can_be_probed() {
    let port = free_port();
    let daemon = handed_over(&[format!("127.0.0.1:{port}")], "web")
        .args(["--ready", "http:/"])
        .command(python(SERVER))
        .start();
    wait_ready(&daemon, "answered `GET /` with 200");
}

// ---- reloads --------------------------------------------------------------------------------

/// A site whose old workers answer well all the time.
fn site(ready: &str) -> (Site, Daemon) {
    let site = Site::new();
    site.write_variables("STATUS=200\n");
    let daemon = site
        .run(3)
        .args(["--ready", ready, "--ready-timeout", "4s", "--ready-probe-timeout", "1s"])
        .command(python(SERVER))
        .start();
    daemon.wait_line(contains(": 3 workers ready"), "the first generation");
    (site, daemon)
}

#[test]
fn a_new_version_is_not_taken_for_ready_by_the_old_ones_answers() {
    let (site, daemon) = site("http:/health");
    let old = daemon.workers();
    site.write_variables("STATUS=503\n");
    let mark = daemon.mark();
    daemon.signal(Signal::SIGHUP);
    let line = daemon.wait_line_since(mark, contains("reload to generation 2 aborted"), "an abort");
    assert!(line.contains("was not ready within 4 s"), "{line}");
    assert!(line.contains("the last probe `GET /health` got status 503"), "{line}");
    let ready = |line: &Line| line.text.contains("is ready after");
    assert_eq!(daemon.lines()[mark..].iter().filter(|line| ready(line)).count(), 0);
    // The old ones serve on, and a good version is let in. What the new one accepted ends with it.
    wait_only_generation(&daemon, 1, 3);
    assert_eq!(get(&site.port, "/").expect("an answer").status, 200);
    assert!(old.contains(&get(&site.port, "/").expect("an answer").pid));
    site.write_variables("STATUS=201\n");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_line_since(mark, contains("reload committed"), "a commit");
    // Old workers accept until they end, and these end with the question in their hands.
    wait_only_generation(&daemon, 3, 3);
    assert_eq!(get(&site.port, "/").expect("an answer").status, 201);
}

#[test]
fn a_new_version_that_never_accepts_is_not_ready_by_what_the_old_one_takes() {
    let (site, daemon) = site("tcp");
    site.write_variables("WAIT=1000\n");
    let mark = daemon.mark();
    daemon.signal(Signal::SIGHUP);
    let line = daemon.wait_line_since(mark, contains("reload to generation 2 aborted"), "an abort");
    // It goes past the old one, which has another socket.
    let nobody = "the last probe by TCP saw nobody take its connection";
    assert!(line.contains(nobody), "{line}");
}

#[test]
fn what_cannot_be_seen_counts_and_is_said() {
    // With an io_uring a worker may have taken a connection that no list of descriptors shows.
    let ring = "\
import ctypes, os, time
if os.environ.get('RING'):
    ring = ctypes.CDLL(None).syscall(425, 4, ctypes.create_string_buffer(120))
    assert ring >= 0, 'no io_uring here'
    time.sleep(1000)
";
    for (ready, evidence) in [("http:/", "answered `GET /` with 200"), ("tcp", "took a connection")]
    {
        let site = Site::new();
        site.write_variables("STATUS=200\n");
        let daemon = site
            .run_by_default(1)
            .args(["--ready", ready, "--balance", "shared"])
            .command(python(&format!("{ring}{SERVER}")))
            .start();
        wait_ready(&daemon, evidence);
        site.write_variables("RING=1\n");
        daemon.signal(Signal::SIGHUP);
        wait_ready(&daemon, &format!("{evidence}; by which worker cannot be seen"));
    }
}

#[test]
fn new_workers_get_through_to_beside_old_ones() {
    for ready in ["tcp", "http:/"] {
        for worker in [http_rust(), http_node()] {
            let site = Site::running(&worker);
            let daemon = site.run(3).args(["--ready", ready]).command(RUN).start();
            daemon.wait_line(contains(": 3 workers ready"), "the first generation");
            for _ in 0..3 {
                let mark = daemon.mark();
                daemon.signal(Signal::SIGHUP);
                daemon.wait_line_since(mark, contains("reload committed"), "a commit");
            }
            assert_eq!(daemon.count_lines(contains("cannot be seen")), 0);
            assert!(daemon.stop().success());
        }
    }
}

// ---- exec -----------------------------------------------------------------------------------

#[test]
fn a_command_that_succeeds_makes_a_worker_ready() {
    let home = Home::new();
    let file = home.directory().join("open");
    let command = format!("exec:test -e {}", file.display());
    let daemon = probing(&command).home(&home).command(["sleep", "1000"]).start();
    daemon.wait_line(contains("started: pid"), "a start");
    assert_eq!(daemon.count_lines(contains("is ready after")), 0);
    fs::write(&file, "").expect("a file");
    wait_ready(&daemon, "` exited with 0");
}

#[test]
fn a_command_runs_beside_its_worker_without_what_is_the_workers_own() {
    let home = Home::new();
    let (file, directory) = (home.directory().join("seen"), home.directory().join("place"));
    fs::create_dir(&directory).expect("a directory");
    let port = free_port();
    let seen = file.display();
    let command = format!(
        "exec:echo to stdout; echo to stderr >&2; \
         {{ env; ls -l /proc/$$/fd; echo in=$(pwd); }} > {seen}.new; mv {seen}.new {seen}"
    );
    let daemon = probing(&command)
        .home(&home)
        .listen(&port)
        .args(["--env", "COLOUR=green", "--directory", directory.to_str().expect("UTF-8")])
        .command(["sleep", "1000"])
        .start();
    wait_ready(&daemon, "` exited with 0");
    let text = fs::read_to_string(&file).expect("it is there");
    let worker = daemon.wait_workers(1)[0];
    for line in [
        format!("SHEPHERD_PID={worker}"),
        "SHEPHERD_WORKER=1".to_owned(),
        "SHEPHERD_SLOT=0".to_owned(),
        "SHEPHERD_GENERATION=1".to_owned(),
        "SHEPHERD_SERVICE=sleep".to_owned(),
        "COLOUR=green".to_owned(),
        format!("in={}", directory.display()),
    ] {
        assert!(text.lines().any(|seen| seen == line), "no {line} in {text}");
    }
    for banned in ["LISTEN_", "NOTIFY_SOCKET", "socket:["] {
        assert!(!text.contains(banned), "{banned} in {text}");
    }
    assert!(!environment(worker).contains_key("SHEPHERD_PID"));
    // Its output is not ours.
    assert!(daemon.stop().success());
    assert_eq!(daemon.count_lines(|line| line.starts_with("to std")), 0);
}

#[test]
fn workers_of_another_user_are_probed_and_commands_run_as_that_user() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let port = free_port();
    let user = ["--user", "nobody", "--directory", "/"];
    let program = ["/usr/bin/env", "python3", "-c", SERVER];
    for ready in ["tcp", "http:/", "exec:test $(id -un) = nobody"] {
        let daemon = probing(ready).listen(&port).args(user).workers(2).command(program).start();
        daemon.wait_line(contains(": 2 workers ready"), "both ready");
        assert_eq!(daemon.count_lines(contains("cannot be seen")), 0);
        assert!(daemon.stop().success());
    }
}

#[test]
fn a_command_that_fails_is_tried_again_and_its_first_line_is_told() {
    let daemon = hurried("exec:echo no luck >&2; echo more; exit 7").command(["sleep", "1000"]);
    let daemon = daemon.start();
    wait_late(&daemon, "exited with code 7: no luck; restarting in ");
    assert_eq!(daemon.count_lines(contains("is ready after")), 0);
}

#[test]
fn a_command_that_floods_is_read_and_forgotten() {
    let daemon = probing("exec:head -c 3000000 /dev/zero").command(["sleep", "1000"]).start();
    wait_ready(&daemon, "` exited with 0");
}

#[test]
fn a_command_that_hangs_is_killed_with_all_that_it_started() {
    let home = Home::new();
    let pids = home.directory().join("pids");
    let command = format!(
        "exec:setsid sleep 5000 & echo $! >> {0}; sleep 5000 & echo $! >> {0}; echo $$ >> {0}; wait",
        pids.display()
    );
    let daemon = hurried(&command).home(&home).command(["sleep", "1000"]).start();
    wait_late(&daemon, "did not end in its time and was killed");
    ended(&daemon, &pids, 3);
    assert!(daemon.stop().success());
    daemon.assert_nothing_left();
}

/// Waits until every process whose pid is in the file has ended; at least `count` are.
#[track_caller]
fn ended(daemon: &Daemon, pids: &Path, count: usize) {
    // Those of the last probe may be on their way still: it is ended with its worker.
    let text = fs::read_to_string(pids).expect("pids");
    let pids: Vec<i32> = text.lines().map(|line| line.trim().parse().expect("a pid")).collect();
    assert!(pids.len() >= count, "{pids:?}");
    for pid in pids.into_iter().take(count) {
        daemon.eventually(&format!("the end of process {pid}"), || {
            Process::open(pid).is_err().then_some(())
        });
    }
}

#[test]
fn what_a_command_leaves_behind_is_killed_and_is_not_the_workers() {
    let home = Home::new();
    let pids = home.directory().join("pids");
    let command =
        format!("exec:setsid sleep 5000 & sleep 5000 & echo $! > {}; exit 0", pids.display());
    let daemon = probing(&command).home(&home).command(["sleep", "1000"]).start();
    wait_ready(&daemon, "exit 0` exited with 0");
    ended(&daemon, &pids, 1);
    daemon.eventually("the worker alone", || (daemon.leftovers().len() == 1).then_some(()));
    assert_eq!(daemon.wait_workers(1).len(), 1);
    assert!(daemon.stop().success());
    assert_eq!(daemon.count_lines(contains("behind")), 0);
    daemon.assert_nothing_left();
}

#[test]
fn a_command_goes_with_its_worker_and_with_the_daemon() {
    let home = Home::new();
    let pids = home.directory().join("pids");
    let command = format!("exec:echo $$ >> {}; exec sleep 5000", pids.display());
    let daemon = probing(&command)
        .home(&home)
        .args(["--ready-probe-timeout", "1m", "--ready-timeout", "2m"])
        .command(["sh", "-c", "sleep 1; exit 3"])
        .start();
    let line = daemon.wait_line(contains("exited with code 3 before it was ready"), "an end");
    assert!(!line.contains("behind"));
    ended(&daemon, &pids, 1);
    assert_eq!(daemon.count_lines(contains("behind")), 0);
    // And with one that is killed.
    daemon.eventually("another probe", || {
        (fs::read_to_string(&pids).ok()?.lines().count() >= 2).then_some(())
    });
    daemon.signal(Signal::SIGKILL);
    let text = fs::read_to_string(&pids).expect("pids");
    for pid in text.lines() {
        let pid: i32 = pid.parse().expect("a pid");
        daemon.eventually("the end of a probe", || {
            let gone = Process::open(pid).is_err();
            let dead = || {
                fs::read_to_string(format!("/proc/{pid}/stat"))
                    .map_or(true, |stat| stat.contains(") Z "))
            };
            (gone || dead()).then_some(())
        });
    }
}

#[test]
fn a_command_that_is_not_there_is_told() {
    let daemon = hurried("exec:no-such-program-here").command(["sleep", "1000"]).start();
    wait_late(&daemon, "exited with code 127: ");
}
