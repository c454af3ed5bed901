//! What cannot be done is refused with its exit code and a message that names the thing, the cause
//! and the next step, and leaves nothing behind.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::{fs::symlink, net::UnixListener},
    process,
};

use crate::{
    given::files_below,
    harness::{Builder, Daemon, Home, free_port, odd},
    wrapped::{wrapped, write_script},
};

pub(crate) const USAGE: i32 = 2;
pub(crate) const CONFIGURATION: i32 = 3;
pub(crate) const BIND: i32 = 9;

fn serving() -> Builder {
    Daemon::run().command([odd().as_os_str(), "poll".as_ref()])
}

fn alive() -> Builder {
    Daemon::run().args(["--ready", "alive:1ms"]).command([odd().as_os_str(), "alive".as_ref()])
}

/// Starts a daemon that must refuse, and gives what it said.
#[track_caller]
pub(crate) fn refused(builder: Builder, code: i32, words: &[&str]) -> String {
    let daemon = builder.start();
    let status = daemon.wait_exit();
    let lines: Vec<String> = daemon.lines().into_iter().map(|line| line.text).collect();
    let text = lines.join("\n");
    if status.code() != Some(code) {
        daemon.fail(&format!("{status} instead of exit code {code}"));
    }
    for word in words {
        assert!(text.contains(word), "`{word}` is not in:\n{text}");
    }
    assert!(!text.contains("panicked"), "{text}");
    assert!(!text.contains("started: pid"), "a worker ran:\n{text}");
    daemon.assert_nothing_left();
    let files = files_below(&daemon.home().runtime_directory().join("shepherd"));
    assert!(files.is_empty(), "left behind: {files:?}");
    text
}

#[test]
fn an_unknown_flag_is_wrong_usage_and_the_nearest_one_is_named() {
    refused(
        serving().args(["--listn", "8000"]),
        USAGE,
        &["unexpected argument '--listn'", "'--listen'", "Usage: shepherd run"],
    );
}

#[test]
fn no_command_is_wrong_usage() {
    refused(Daemon::run().listen("0"), USAGE, &["required", "COMMAND"]);
}

#[test]
fn a_socket_that_cannot_be_read_is_wrong_usage() {
    for (socket, words) in [
        ("65536", ["`65536`", "above 65535"]),
        ("127.0.0.1:x", ["`127.0.0.1:x`", "is not a number from 0 to 65535"]),
        ("web.example:80", ["`web.example`", "names are not looked up; write its IP address"]),
        ("127.0.0.256:80", ["`127.0.0.256`", "is not an IPv4 address"]),
        ("::1:8000", ["an IPv6 address needs brackets", "write `["]),
        ("127.0.0.1", ["it has no port", "write `127.0.0.1:8000`"]),
        ("/run/x.sock", ["it looks like a path", "write `unix:/run/x.sock`"]),
        ("udp:", ["there is no port after `udp:`", "write one such as `udp:5353`"]),
        ("seqpacket:80", ["`80` is no path", "write one such as `seqpacket:/run/x.sock`"]),
        ("8000,backlogg=9", ["it has no option `backlogg`", "there is `backlog`"]),
        ("udp:53,backlog=9", ["`backlog` is for sockets that accept", "leave it away"]),
        ("8000,backlog=0", ["`backlog=0` is not a number from 1", "write `backlog=1024`"]),
        ("=8000", ["the name before `=` is empty", "write a name"]),
        ("http://127.0.0.1:80", ["it is a URL", "write host and port only"]),
    ] {
        let text = refused(serving().listen(socket), USAGE, &words);
        assert!(text.contains("--listen"), "the flag is not named: {text}");
    }
}

#[test]
fn two_sockets_of_one_name_are_wrong_usage() {
    refused(
        serving().listen("web=0").listen("web=127.0.0.1:0"),
        USAGE,
        &["the name `web` is given to two sockets"],
    );
}

#[test]
fn a_value_that_cannot_be_read_is_wrong_usage_and_its_flag_is_named() {
    for (flag, value, words) in [
        ("--ready-timeout", "30", ["`30` is no duration", "such as `30s`"]),
        ("--ready-timeout", "0s", ["`0s` leaves no time", "`30s`"]),
        ("--drain-timeout", "soon", ["`soon` is no duration", "such as `30s`"]),
        ("--drain-timeout", "8d", ["`8d`", "longer than 7 days"]),
        ("--stop-signal", "TREM", ["`TREM` is no signal to stop by", "TERM"]),
        ("--stop-signal", "KILL", ["`KILL` always comes last", "--drain-timeout 0s"]),
        ("--stop-signal", "TERM:5", ["`5` is no duration", "such as `30s`"]),
        ("--workers", "0", ["`0` is not between 1 and", "1"]),
        ("--workers", "many", ["`many` is no number", "`auto` or `max`"]),
        ("--env", "NOVALUE", ["`NOVALUE` has no `=`", "write `NAME=value`"]),
        ("--env", "1A=x", ["`1A`", "no name for a variable"]),
        ("--ready", "https:/", ["`https:/` is no evidence", "`notify`"]),
        ("--ready", "http", ["`http` needs a path", "`http:/health`"]),
        ("--ready", "http:x", ["`x` is not a path", "begins with `/`"]),
        ("--ready", "http://a/b", ["`//a/b` is not a path", "`http:/PATH`"]),
        ("--ready", "exec:", ["the command is empty", "`exec:./check.sh`"]),
        ("--ready-interval", "0s", ["`0s` leaves no time", "`30s`"]),
        ("--ready-probe-timeout", "1", ["`1` is no duration", "such as `30s`"]),
        ("--ready", "alive", ["`alive` needs a duration", "`alive:2s`"]),
        ("--name", "../x", ["`../x` is no name", "letters"]),
    ] {
        let text = refused(serving().listen("0").args([flag, value]), USAGE, &words);
        assert!(text.contains(flag), "{flag} is not named: {text}");
    }
}

#[test]
fn a_name_is_wanted_in_a_variable_but_its_value_is_never_shown() {
    let text = refused(
        serving().listen("0").args(["--env", "MY-TOKEN=hunter2"]),
        USAGE,
        &["`MY-TOKEN` is no name for a variable"],
    );
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn to_be_alive_for_longer_than_the_ready_timeout_is_wrong_usage() {
    refused(
        serving().args(["--ready", "alive:5s", "--ready-timeout", "5s"]),
        USAGE,
        &["`--ready alive:5s`", "is not shorter than", "raise the timeout"],
    );
}

#[test]
fn to_wait_for_listening_without_a_socket_is_wrong_usage() {
    refused(
        serving().args(["--ready", "listen"]),
        USAGE,
        &["`--ready listen`", "there is none", "add `-p SOCKET`"],
    );
}

#[test]
fn to_steer_without_a_socket_for_it_is_wrong_usage() {
    let slots = &["`--balance slots` needs a TCP or UDP socket", "; add `-p SOCKET`, or take"];
    refused(serving().args(["--balance", "slots"]), USAGE, slots);
    refused(serving().listen("unix:@no-one").args(["--balance", "slots"]), USAGE, slots);
    let time = &["`--before-stop` needs new connections to go to other workers"];
    refused(serving().listen("unix:@no-one").args(["--before-stop", "9s"]), USAGE, time);
    refused(
        serving().listen("127.0.0.1:0").args(["--balance", "shared", "--before-stop", "9s"]),
        USAGE,
        &["and with `--balance shared` they do not; take one of these away"],
    );
    let near = &["`slot` is no way for connections to find a worker; write `slots`"];
    refused(serving().args(["--balance", "slot"]), USAGE, near);
    let time = &["`never` is no time before the stop; write `auto`, or a duration such as `10s`"];
    refused(serving().args(["--before-stop", "never"]), USAGE, time);
}

#[test]
fn to_connect_without_a_socket_is_wrong_usage() {
    for (ready, shown) in [("tcp", "`--ready tcp`"), ("http:/x", "`--ready http`")] {
        refused(
            serving().args(["--ready", ready]),
            USAGE,
            &[shown, "there is none", "add `-p SOCKET`"],
        );
        refused(
            serving().listen("udp:127.0.0.1:0").args(["--ready", ready]),
            USAGE,
            &[shown, "there is none", "add `-p SOCKET`"],
        );
    }
}

#[test]
fn a_program_that_is_missing_is_a_wrong_configuration() {
    let run = |program: &str| Daemon::run().listen("0").command([program]);
    refused(
        run("no-such-program-anywhere"),
        CONFIGURATION,
        &["cannot run `no-such-program-anywhere`", "no such program in PATH", "write a path"],
    );
    refused(
        run("./no-such-file"),
        CONFIGURATION,
        &["cannot run `./no-such-file`", "there is no such file"],
    );
}

#[test]
fn a_program_that_cannot_be_run_is_told_from_one_that_is_missing() {
    let home = Home::new();
    let at = |name: &str| home.directory().join(name);
    write_script(&at("script"), "#!/no/such/interpreter\n");
    fs::write(at("plain"), "#!/bin/sh\n").expect("written");
    symlink("nowhere", at("dangling")).expect("linked");
    fs::create_dir(at("directory")).expect("made");
    for (name, words) in [
        ("script", ["its interpreter `/no/such/interpreter` does not exist", "first line"]),
        ("plain", ["it is not executable", "chmod +x"]),
        ("dangling", ["it is a symbolic link to nothing", "cannot run"]),
        ("directory", ["it is a directory", "cannot run"]),
    ] {
        let path = at(name);
        let text =
            refused(Daemon::run().home(&home).listen("0").command([&path]), CONFIGURATION, &words);
        assert!(text.contains(&*path.to_string_lossy()), "the file is not named: {text}");
        assert!(!text.contains("no such file"), "{text}");
    }
}

#[test]
fn a_directory_that_is_missing_is_a_wrong_configuration() {
    refused(
        alive().args(["--directory", "/no/such/directory"]),
        CONFIGURATION,
        &["cannot use directory `/no/such/directory`", "No such file or directory"],
    );
    refused(
        alive().args(["--directory", "/dev/null"]),
        CONFIGURATION,
        &["cannot use directory `/dev/null`", "Not a directory"],
    );
}

#[test]
fn an_environment_file_that_cannot_be_read_is_a_wrong_configuration() {
    let home = Home::new();
    let missing = home.directory().join("missing.env");
    let text = refused(
        alive().home(&home).args(["--env-file".as_ref(), missing.as_os_str()]),
        CONFIGURATION,
        &["cannot read environment file", "missing.env", "No such file or directory"],
    );
    assert!(text.contains(&*missing.to_string_lossy()), "{text}");
}

#[test]
fn a_malformed_environment_file_is_named_with_its_line_and_never_its_value() {
    let home = Home::new();
    let file = home.directory().join("bad.env");
    for (content, line, cause) in [
        ("GOOD=1\n\nTOKEN='hunter2\n", "line 3", "the value of `TOKEN` has no closing quote"),
        ("hunter2\n", "line 1", "there is no `=`; write `NAME=value`"),
        ("export TOKEN=\"hunter2\" x\n", "line 1", "goes on after its closing quote"),
    ] {
        fs::write(&file, content).expect("written");
        let text = refused(
            alive().home(&home).args(["--env-file".as_ref(), file.as_os_str()]),
            CONFIGURATION,
            &["cannot read environment file", "bad.env", line, cause],
        );
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_port_that_another_program_has_is_refused_and_the_program_named() {
    let port = free_port();
    let _taken = TcpListener::bind(port.v4()).expect("a listener");
    let own = fs::read_to_string("/proc/self/comm").expect("our name");
    let holder = format!("`{}` (pid {})", own.trim(), process::id());
    for socket in [format!("{port}"), format!("127.0.0.1:{port}"), format!("0.0.0.0:{port}")] {
        refused(
            serving().listen(&socket),
            BIND,
            &[
                "cannot bind `",
                &format!(":{port}`"),
                &format!("the address is in use by {holder}"),
                "stop it or choose another port",
            ],
        );
    }
}

#[test]
fn a_port_that_another_shepherd_has_is_refused_and_the_shepherd_named_not_its_workers() {
    let port = free_port();
    let first = serving().workers(2).listen(&port).start();
    first.wait_line(|line| line.contains("2 workers ready"), "ready");
    let holder = format!("in use by `shepherd` (pid {})", first.pid());
    refused(serving().listen(&port), BIND, &[&holder]);
    assert_eq!(crate::harness::get(&port, "/").expect("an answer").status, 200);
}

#[test]
fn one_socket_that_cannot_be_bound_leaves_none_of_the_others() {
    let home = Home::new();
    let (free, taken) = (free_port(), free_port());
    let _taken = TcpListener::bind(taken.v4()).expect("a listener");
    let path = home.directory().join("web.sock");
    refused(
        serving()
            .home(&home)
            .listen(&free)
            .listen(format!("unix:{}", path.display()))
            .listen(format!("127.0.0.1:{taken}")),
        BIND,
        &[&format!("cannot bind `127.0.0.1:{taken}`")],
    );
    TcpStream::connect(free.v4()).expect_err("nobody listens");
    TcpListener::bind(free.v4()).expect("it is free again");
    assert!(!path.exists());
}

#[test]
fn a_socket_that_is_asked_for_twice_is_refused_as_such() {
    let port = free_port();
    refused(
        serving().listen(&port).listen(format!("127.0.0.1:{port}")),
        USAGE,
        &[&format!("`127.0.0.1:{port}` is asked for twice"), "give one of the sockets another"],
    );
}

#[test]
fn a_unix_path_on_which_somebody_listens_is_refused_and_stays() {
    let home = Home::new();
    let path = home.directory().join("web.sock");
    let socket = format!("unix:{}", path.display());
    let listener = UnixListener::bind(&path).expect("a listener");
    let text = refused(
        serving().home(&home).listen(&socket),
        BIND,
        &[&format!("cannot bind `{socket}`"), "listens on it", "choose another path"],
    );
    assert!(text.contains(&format!("(pid {})", process::id())), "{text}");
    std::os::unix::net::UnixStream::connect(&path).expect("it still listens");
    drop(listener);
}

#[test]
fn a_file_that_is_no_socket_is_never_replaced_by_one() {
    let home = Home::new();
    let path = home.directory().join("web.sock");
    fs::write(&path, "precious").expect("written");
    refused(
        serving().home(&home).listen(format!("unix:{}", path.display())),
        BIND,
        &["web.sock", "is not a socket", "remove it or choose another path"],
    );
    assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
}

#[test]
fn a_unix_path_in_a_missing_directory_is_refused() {
    refused(
        serving().listen("unix:/no/such/directory/x.sock"),
        BIND,
        &["the directory `/no/such/directory` does not exist", "create it first"],
    );
}

#[test]
fn an_address_of_no_interface_is_refused() {
    // 192.0.2.0/24 is for documentation, RFC 5737.
    refused(
        serving().listen("192.0.2.1:0"),
        BIND,
        &["cannot bind `192.0.2.1:0`", "no interface of this machine has that address"],
    );
}

#[test]
fn a_pid_file_that_cannot_be_written_fails_and_frees_the_sockets() {
    let port = free_port();
    refused(
        serving().listen(&port).args(["--pid-file", "/no/such/directory/pid"]),
        1,
        &["cannot write pid file `/no/such/directory/pid`", "No such file or directory"],
    );
    TcpListener::bind(port.v4()).expect("it is free again");
}

/// Everything that this user may not see is between the binary and the root of the file system, so
/// it runs a copy.
pub(crate) fn as_nobody() -> Builder {
    let builder = wrapped(
        "copy=$(dirname \"$0\")/shepherd-copy\n\
         cp \"$1\" \"$copy\" && shift\n\
         export XDG_RUNTIME_DIR=$(dirname \"$0\")/nobody\n\
         mkdir -p \"$XDG_RUNTIME_DIR\" && chown 65534:65534 \"$XDG_RUNTIME_DIR\"\n\
         exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$copy\" \"$@\"",
    );
    builder.directory("/")
}

#[test]
fn without_privilege_it_serves_like_anybody() {
    if !nix::unistd::geteuid().is_root() {
        // Then all the other tests have shown it.
        return;
    }
    let port = free_port();
    let daemon = as_nobody().listen(&port).command(["python3", "-c", NOTIFYING]).start();
    daemon.wait_line(|line| line.contains("is ready") && line.contains("it said so"), "ready");
    assert!(daemon.stop().success());
    daemon.assert_nothing_left();
}

/// Says that it is ready and waits.
const NOTIFYING: &str = "\
import os, signal, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(b'READY=1', os.environ['NOTIFY_SOCKET'])
signal.pause()
";
