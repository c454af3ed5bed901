//! What is printed: the workers' words untouched, the daemon's own in plain lines, and nothing that
//! anybody does with either disturbs the daemon.

use std::{fs, io::Read, os::fd::AsFd, path::Path};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{signal::Signal, stat::Mode},
    unistd::mkfifo,
};

use crate::{
    given::kill,
    harness::{Builder, Daemon, Home, Port, Process, Stream, free_port, get, odd},
    wrapped::wrapped,
};

fn odd_mode<'a>(mode: &'a [&'a str]) -> Vec<std::ffi::OsString> {
    let mut command = vec![std::ffi::OsString::from(odd())];
    command.extend(mode.iter().map(std::ffi::OsString::from));
    command
}

/// Shows without a word of the daemon that it restarts, reloads and stops.
#[track_caller]
fn assert_it_works(daemon: &Daemon, port: &Port) {
    let first = get(port, "/").expect("an answer").pid;
    kill(first);
    let second = get(port, "/").expect("an answer of the next").pid;
    assert_ne!(first, second);
    daemon.signal(Signal::SIGHUP);
    daemon.eventually("a reload", || {
        let response = get(port, "/").ok()?;
        (response.generation == "2").then_some(())
    });
    daemon.eventually("the end of the old generation", || {
        (daemon.worker_processes().len() == 1).then_some(())
    });
    assert_eq!(daemon.stop().code(), Some(0));
    daemon.assert_nothing_left();
}

#[test]
fn the_words_of_workers_pass_through_untouched() {
    let port = free_port();
    let words = "  \u{1b}[31mred\u{1b}[0m\t{\"level\":\"info\"} \u{e4} \\x00 ";
    let daemon = Daemon::run().listen(&port).command(odd_mode(&["log", words])).start();
    daemon.wait_line(|line| line == words, "on stdout");
    daemon.wait_line(|line| line == format!("err {words}"), "on stderr");
    let of = |text: &str| daemon.lines().into_iter().find(|line| line.text == text);
    assert_eq!(of(words).map(|line| line.stream), Some(Stream::Stdout));
    assert_eq!(of(&format!("err {words}")).map(|line| line.stream), Some(Stream::Stderr));
}

#[test]
fn stdout_is_the_workers_alone() {
    let port = free_port();
    let daemon =
        Daemon::run().workers(2).listen(&port).command(odd_mode(&["log", "hello"])).start();
    daemon.wait_line(|line| line.contains("odd: 2 workers ready"), "ready");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_line(|line| line.contains("reload committed"), "reloaded");
    assert!(daemon.stop().success());
    let others: Vec<_> = daemon
        .lines()
        .into_iter()
        .filter(|line| line.stream == Stream::Stdout && line.text != "hello")
        .collect();
    assert!(others.is_empty(), "{others:#?}");
}

#[test]
fn each_line_of_the_log_is_a_time_a_level_and_plain_text_when_it_is_piped() {
    let port = free_port();
    // Whatever a program may be told of colours elsewhere, a pipe is no terminal.
    let daemon = Daemon::run()
        .env("TERM", "xterm-256color")
        .listen(&port)
        .command(odd_mode(&["epoll"]))
        .start();
    daemon.wait_line(|line| line.contains("1 worker ready"), "ready");
    kill(daemon.workers()[0]);
    daemon.wait_line(|line| line.contains("worker 2 (odd.0) is ready"), "restarted");
    assert!(daemon.stop().success());
    let lines = daemon.lines();
    assert!(lines.len() > 6, "{lines:#?}");
    for line in lines {
        assert!(!line.text.contains('\u{1b}'), "{line:?}");
        let words: Vec<&str> = line.text.split_whitespace().collect();
        assert!(words[0].starts_with("20") && words[0].ends_with('Z'), "{line:?}");
        assert!(["INFO", "WARN", "ERROR"].contains(&words[1]), "{line:?}");
    }
}

#[test]
fn a_worker_that_prints_what_looks_like_a_command_to_the_terminal_cannot_speak_through_the_log() {
    let daemon = Daemon::run()
        .args(["--ready", "notify"])
        .command([
            "python3",
            "-c",
            "import os, signal, socket\n\
             s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
             a = os.environ['NOTIFY_SOCKET']\n\
             s.sendto(b'STATUS=\\x1b]0;owned\\x07\\nREADY=1\\nMAINPID=\\x1b[2J', a)\n\
             signal.pause()",
        ])
        .start();
    daemon.wait_line(|line| line.contains("is ready"), "ready");
    assert!(daemon.stop().success());
    let bad: Vec<_> =
        daemon.lines().into_iter().filter(|line| line.text.contains('\u{1b}')).collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn a_closed_stderr_disturbs_nothing() {
    let port = free_port();
    let daemon =
        wrapped("exec 2>&-\nexec \"$@\"").listen(&port).command(odd_mode(&["epoll"])).start();
    assert_it_works_from_the_start(&daemon, &port);
}

/// The same when not even the start can be seen.
#[track_caller]
fn assert_it_works_from_the_start(daemon: &Daemon, port: &Port) {
    daemon.eventually("an answer", || get(port, "/").ok());
    assert_it_works(daemon, port);
}

/// A daemon whose stderr is a pipe that nobody reads and that is full.
fn with_a_full_pipe() -> (Builder, fs::File, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    mkfifo(&path, Mode::S_IRWXU).expect("a fifo");
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let pipe = nix::fcntl::open(&path, flags, Mode::empty()).expect("opened");
    while nix::unistd::write(&pipe, &[b'x'; 4096]).is_ok() {}
    // What is smaller may fit where that did not.
    while nix::unistd::write(&pipe, b"x").is_ok() {}
    fcntl(&pipe, FcntlArg::F_SETFL(OFlag::empty())).expect("a mode");
    let builder = wrapped(&format!("exec 2<>'{}'\nexec \"$@\"", path.display()));
    (builder, pipe.into(), directory)
}

#[test]
fn a_full_pipe_that_nobody_reads_stalls_nothing_and_the_lines_come_later() {
    let (builder, mut pipe, _directory) = with_a_full_pipe();
    let port = free_port();
    let daemon = builder.listen(&port).command(odd_mode(&["epoll"])).start();
    daemon.eventually("an answer", || get(&port, "/").ok());
    kill(get(&port, "/").expect("an answer").pid);
    get(&port, "/").expect("an answer of the next");

    // Somebody reads again: the lines were kept, and those that come after follow them.
    let mut text = String::new();
    drain(&mut pipe, &mut text);
    daemon.signal(Signal::SIGHUP);
    daemon.eventually("the next lines", || {
        drain(&mut pipe, &mut text);
        text.contains("reload committed").then_some(())
    });
    let after = text.trim_start_matches('x');
    let words = [" is running as ", "worker 1 (odd.0) started", "worker 2 (odd.0) started"];
    let places: Vec<_> = words.iter().map(|words| after.find(words)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{after}");
    assert!(!after.contains("lost"), "{after}");
    assert!(daemon.stop().success());
    daemon.assert_nothing_left();
}

fn is_readable(pipe: &fs::File) -> bool {
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Reads what is there.
fn drain(pipe: &mut fs::File, text: &mut String) {
    let mut bytes = vec![0; 65536];
    loop {
        if !is_readable(pipe) {
            return;
        }
        match pipe.read(&mut bytes) {
            Ok(count) => text.push_str(&String::from_utf8_lossy(&bytes[..count])),
            Err(_) => return,
        }
    }
}

#[test]
fn a_full_pipe_for_stderr_does_not_keep_the_daemon_from_its_work() {
    let (builder, _pipe, _directory) = with_a_full_pipe();
    let port = free_port();
    let daemon = builder.listen(&port).command(odd_mode(&["epoll"])).start();
    assert_it_works_from_the_start(&daemon, &port);
}

#[test]
fn a_pipe_whose_reader_is_gone_disturbs_nothing() {
    let port = free_port();
    let daemon =
        wrapped("exec \"$@\" 2>&1 | true").listen(&port).command(odd_mode(&["epoll"])).start();
    // The shell waits for the daemon, which is its child.
    daemon.eventually("an answer", || get(&port, "/").ok());
    let shepherd = daemon.eventually("the daemon", || {
        daemon.children().into_iter().find(|pid| name_of(*pid) == "shepherd")
    });
    let worker = get(&port, "/").expect("an answer").pid;
    kill(worker);
    assert_ne!(get(&port, "/").expect("an answer of the next").pid, worker);
    let process = Process::open(shepherd).expect("the daemon");
    process.signal(Signal::SIGTERM).expect("sent");
    assert_eq!(daemon.wait_exit().code(), Some(0));
    daemon.assert_nothing_left();
}

fn name_of(pid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim().to_owned()
}

#[test]
fn a_worker_that_makes_stderr_non_blocking_costs_no_line() {
    let port = free_port();
    let worker = "\
import fcntl, os, socket
fcntl.fcntl(2, fcntl.F_SETFL, fcntl.fcntl(2, fcntl.F_GETFL) | os.O_NONBLOCK)
s = socket.socket(fileno=3)
while True:
    c, _ = s.accept()
    c.recv(4096)
    body = f'v {os.getpid()} - {os.environ[\"SHEPHERD_GENERATION\"]}\\n'.encode()
    c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n' % len(body) + body)
    c.close()
";
    let daemon = Daemon::run().listen(&port).command(["python3", "-c", worker]).start();
    daemon.wait_line(|line| line.contains("1 worker ready"), "ready");
    assert_it_works(&daemon, &port);
    for words in ["restarting now", "worker 2 (python3.0) started", "reload committed"] {
        assert_eq!(daemon.count_lines(|line| line.contains(words)), 1, "{words}");
    }
    assert_eq!(daemon.count_lines(|line| line.contains("were lost")), 0);
}

#[test]
fn a_log_in_a_file_keeps_the_lines_of_the_daemon_and_of_its_workers() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    let port = free_port();
    // As a shell writes `2>file`, without O_APPEND: all share one offset.
    let daemon = wrapped(&format!("exec 2>'{}'\nexec \"$@\"", path.display()))
        .listen(&port)
        .workers(3)
        .command(odd_mode(&["log", "hello"]))
        .start();
    daemon.eventually("all are ready", || {
        let text = fs::read_to_string(&path).ok()?;
        text.contains("odd: 3 workers ready").then_some(())
    });
    assert!(daemon.stop().success());
    let text = fs::read_to_string(&path).expect("the log");
    let count = |words: &str| text.lines().filter(|line| line.contains(words)).count();
    assert_eq!(count("err hello"), 3, "{text}");
    assert_eq!(count("started: pid"), 3, "{text}");
    assert_eq!(count("exited with code 0"), 3, "{text}");
}

/// What the daemon prints to a terminal, by a worker that ends the matter once all is said.
fn on_a_terminal(environment: &[(&str, &str)]) -> String {
    let home = Home::new();
    let typescript = home.directory().join("typescript");
    let line = format!(
        "exec script --quiet --flush --return --command \"$(printf '%s ' \"$@\")\" '{}'",
        typescript.display()
    );
    let mut builder = wrapped(&line).args(["--ready", "alive:1ms"]);
    for (name, value) in environment {
        builder = builder.env(name, value);
    }
    let daemon = builder.command([odd().as_os_str(), "alive".as_ref()]).start();
    let text = daemon.eventually("a ready worker", || {
        let text = String::from_utf8_lossy(&fs::read(Path::new(&typescript)).ok()?).into_owned();
        text.contains("1 worker ready").then_some(text)
    });
    let shepherd = daemon.eventually("the daemon", || {
        daemon.children().into_iter().flat_map(tree).find(|pid| name_of(*pid) == "shepherd")
    });
    Process::open(shepherd).expect("the daemon").signal(Signal::SIGTERM).expect("sent");
    daemon.wait_exit();
    daemon.assert_nothing_left();
    text
}

/// A process and those below it.
fn tree(pid: i32) -> Vec<i32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(path).unwrap_or_default();
    let below = children.split_whitespace().filter_map(|child| child.parse().ok()).flat_map(tree);
    std::iter::once(pid).chain(below).collect()
}

#[test]
fn there_is_colour_on_a_terminal() {
    let text = on_a_terminal(&[("TERM", "xterm"), ("NO_COLOR", "")]);
    assert!(text.contains("\u{1b}[32mINFO"), "{text}");
    // It is never the only carrier.
    assert!(text.contains("INFO"), "{text}");
}

#[test]
fn there_is_none_for_those_who_do_not_want_it() {
    let text = on_a_terminal(&[("TERM", "xterm"), ("NO_COLOR", "1")]);
    assert!(text.contains("1 worker ready"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
}
