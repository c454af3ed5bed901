//! Programs between the daemon and the one that serves: warned of where they keep the sockets from
//! it, and what `shepherd exec` does about them.

use std::{ffi::OsString, fs, process::Command};

use crate::{
    given::{environment, pidfd_id},
    harness::{Daemon, free_port, get, http_python, odd},
};

const WARNING: &str = "end the wrapper with `exec`, or with `shepherd exec -- COMMAND`";

/// A shell that waits for the program instead of becoming it; `"$@"` is the program.
fn in_a_shell(line: &str, program: Vec<OsString>) -> Vec<OsString> {
    let mut command: Vec<OsString> = ["sh", "-c", line, "sh"].map(OsString::from).to_vec();
    command.extend(program);
    command
}

fn shepherd() -> &'static str {
    env!("CARGO_BIN_EXE_shepherd")
}

#[test]
fn a_wrapper_that_keeps_the_sockets_from_its_program_is_warned_of_with_the_remedy() {
    // A program that checks LISTEN_PID finds that it has no sockets, and binds one of its own.
    let (port, own) = (free_port(), free_port());
    let mut program = http_python();
    program.push(format!("127.0.0.1:{own}").into());
    let daemon = Daemon::run()
        .listen(&port)
        .args(["--ready", "listen"])
        .command(in_a_shell("\"$@\"; true", program))
        .start();
    let line = daemon.wait_line(|line| line.contains(WARNING), "a warning");
    assert!(line.contains("WARN"), "{line}");
    assert!(line.contains("worker 1 (sh.0)") && line.contains("LISTEN_PID"), "{line}");
    let child = daemon.children().into_iter().find_map(|shell| {
        let path = format!("/proc/{shell}/task/{shell}/children");
        fs::read_to_string(path).ok()?.split_whitespace().next().map(str::to_owned)
    });
    let child = child.expect("a child of the shell");
    assert!(line.contains(&format!("process {child} (`python3")), "{line}");
}

#[test]
fn a_wrapper_whose_program_says_that_it_is_ready_all_the_same_is_warned_of() {
    let (port, own) = (free_port(), free_port());
    let mut program = http_python();
    program.push(format!("127.0.0.1:{own}").into());
    let daemon = Daemon::run().listen(&port).command(in_a_shell("\"$@\"; true", program)).start();
    daemon.wait_line(|line| line.contains("is ready"), "ready");
    daemon.wait_line(|line| line.contains(WARNING), "a warning: nobody serves");
}

#[test]
fn shepherd_exec_at_the_end_of_a_wrapper_gives_the_sockets_to_the_program() {
    let port = free_port();
    let line = format!("'{}' exec -- \"$@\"; true", shepherd());
    let daemon = Daemon::run().listen(&port).command(in_a_shell(&line, http_python())).start();
    daemon.wait_line(|line| line.contains("sh: 1 worker ready"), "ready");
    let served_by = get(&port, "/").expect("an answer").pid;
    let shell = daemon.wait_workers(1)[0];
    assert_ne!(served_by, shell, "the shell waits");
    let environment = environment(served_by);
    assert_eq!(environment["LISTEN_PID"], served_by.to_string());
    assert_eq!(environment["LISTEN_FDS"], "1");
    assert_eq!(environment.get("LISTEN_PIDFDID"), pidfd_id(served_by).as_ref());
    assert_eq!(environment["SHEPHERD_SLOT"], "0");
    assert!(daemon.stop().success());
    daemon.assert_nothing_left();
    assert_eq!(daemon.count_lines(|line| line.contains(WARNING)), 0);
}

#[test]
fn a_wrapper_that_becomes_its_program_needs_nothing() {
    let port = free_port();
    let daemon =
        Daemon::run().listen(&port).command(in_a_shell("exec \"$@\"", http_python())).start();
    daemon.wait_line(|line| line.contains("sh: 1 worker ready"), "ready");
    assert_eq!(get(&port, "/").expect("an answer").pid, daemon.wait_workers(1)[0]);
    assert!(daemon.stop().success());
    assert_eq!(daemon.count_lines(|line| line.contains(WARNING)), 0);
}

#[test]
fn a_server_that_forks_its_own_workers_is_not_taken_for_a_wrapper() {
    let port = free_port();
    let prefork = "\
import os, signal, socket
s = socket.socket(fileno=3)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
children = []
for _ in range(2):
    children.append(os.fork())
    if children[-1] == 0:
        while True:
            c, _ = s.accept()
            c.recv(4096)
            body = f'prefork {os.getpid()} - -\\n'.encode()
            c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n' % len(body) + body)
            c.close()
signal.sigwait([signal.SIGTERM])
for child in children: os.kill(child, signal.SIGKILL)
";
    let daemon = Daemon::run().listen(&port).command(["python3", "-c", prefork]).start();
    daemon.wait_line(
        |line| line.contains("is ready") && line.ends_with("seen waiting on its socket"),
        "a forked child is seen",
    );
    let main = daemon.wait_workers(1)[0];
    assert_ne!(get(&port, "/").expect("an answer").pid, main);
    assert!(daemon.stop().success());
    daemon.assert_nothing_left();
    assert_eq!(daemon.count_lines(|line| line.contains(WARNING)), 0);
}

// ---- shepherd exec by itself ---------------------------------------------------------------

#[test]
fn exec_of_a_program_that_is_missing_is_127_and_of_one_that_cannot_be_run_126() {
    for (program, code) in [("no-such-program-anywhere", 127), ("/etc/passwd", 126), ("/etc", 126)]
    {
        let output =
            Command::new(shepherd()).args(["exec", "--", program]).output().expect("shepherd");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{program}: {text}");
        assert!(text.contains(&format!("cannot run `{program}`: ")), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

#[test]
fn exec_gives_the_exit_code_of_the_program() {
    let status = Command::new(shepherd())
        .args(["exec", "--", "sh", "-c", "exit 42"])
        .status()
        .expect("shepherd");
    assert_eq!(status.code(), Some(42));
}

#[test]
fn exec_stamps_only_where_there_are_sockets() {
    let stamped = |sockets: Option<&str>| {
        let mut command = Command::new(shepherd());
        command.args([
            "exec",
            "--",
            "sh",
            "-c",
            "echo $$ ${LISTEN_PID-none} ${LISTEN_FDS-none} ${LISTEN_FDNAMES-none}",
        ]);
        for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_PIDFDID", "LISTEN_FDNAMES"] {
            command.env_remove(name);
        }
        if let Some(sockets) = sockets {
            command.env("LISTEN_FDS", sockets).env("LISTEN_FDNAMES", "web").env("LISTEN_PID", "1");
        }
        let output = command.output().expect("shepherd");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let without = stamped(None);
    assert!(without.ends_with(" none none none"), "{without}");
    let with = stamped(Some("1"));
    let (pid, rest) = with.split_once(' ').expect("words");
    assert_eq!(rest, format!("{pid} 1 web"));
}

#[test]
fn exec_leaves_the_arguments_and_the_signals_alone() {
    // What is ignored depends on who started the tests: the program sees the same without us.
    let seen = |mut command: Command| {
        let line = "printf '%s|' \"$@\"; grep SigIgn /proc/self/status";
        command.args(["-c", line, "sh", "--", "-n", "a b", ""]);
        let output = command.output().expect("a program");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let mut by_shepherd = Command::new(shepherd());
    by_shepherd.args(["exec", "--", "sh"]);
    let text = seen(by_shepherd);
    assert!(text.starts_with("--|-n|a b||SigIgn:"), "{text}");
    assert_eq!(text, seen(Command::new("sh")));
}

#[test]
fn exec_of_shepherd_exec_leaves_one_process() {
    let port = free_port();
    let line = format!("exec '{}' exec -- \"$@\"", shepherd());
    let daemon = Daemon::run()
        .listen(&port)
        .command(in_a_shell(&line, vec![odd().into(), "epoll".into()]))
        .start();
    daemon.wait_line(|line| line.contains("sh: 1 worker ready"), "ready");
    assert_eq!(get(&port, "/").expect("an answer").pid, daemon.wait_workers(1)[0]);
}
