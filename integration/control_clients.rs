//! Clients that stall, flood, die or may not ask: nobody else notices.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
};

use nix::unistd::geteuid;
use serde_json::json;
use shepherd::control::wire;

use crate::{
    control::{LONG, client, connect, post, raw, read_answer, socket, status, web},
    harness::{Daemon, eventually, http_rust},
    journal::journal,
    site::{Site, stop_well, wait_only_generation, wait_serving},
};

/// A user that nobody is.
const NOBODY: u32 = 65_534;

const HALF: &[u8] = b"GET /v1/status HTTP/1.1\r\n";
const WHOLE: &[u8] = b"GET /v1/status HTTP/1.1\r\nconnection: close\r\n\r\n";

#[test]
fn slow_clients_hold_up_no_reload_under_load() {
    let site = Site::new();
    let daemon = site.run(4).args(["--name", "web"]).command(http_rust()).start();
    wait_serving(&daemon, 4);
    let client = client(&daemon, "web");
    let path = socket(&daemon, "web");
    let load = site.load();
    load.wait_version("v1");
    let mut slow: Vec<_> = (0..32).map(|_| connect(&path)).collect();
    for (number, stream) in slow.iter_mut().enumerate() {
        match number % 3 {
            // Half a head; events that nobody reads; many requests whose answers nobody reads.
            0 => stream.write_all(HALF).expect("written"),
            1 => stream.write_all(b"GET /v1/events?since=0 HTTP/1.1\r\n\r\n").expect("written"),
            _ => {
                stream.set_nonblocking(true).expect("set");
                let request = b"GET /v1/status HTTP/1.1\r\n\r\n".repeat(100);
                while stream.write(&request).is_ok() {}
            }
        }
    }
    for number in 2..=3 {
        site.release(&format!("v{number}"));
        let done = post(&client, "/v1/reload", &json!({"queue": true}));
        assert_eq!(done.services[0].generation, number);
        load.wait_version(&format!("v{number}"));
        wait_only_generation(&daemon, u32::try_from(number).expect("few"), 4);
    }
    load.stop().assert_clean();
    let status = status(&client);
    assert_eq!(status.services[0].ready, 4);
    let turn = status.daemon.longest_turn * 1000.0;
    println!(
        "the loop's longest turn, with 32 slow clients and two reloads under load: {turn:.1} ms"
    );
    // Those with half a request are answered once they finish it, or were given up by then.
    for (number, mut stream) in slow.into_iter().enumerate() {
        if number % 3 == 0 && stream.write_all(b"connection: close\r\n\r\n").is_ok() {
            let (code, ..) = read_answer(stream);
            assert!([0, 200, 408].contains(&code), "{code}");
        }
    }
    stop_well(&daemon);
}

#[test]
fn one_client_too_many_is_told_and_the_next_is_served() {
    let (daemon, client) = web(1, |builder| builder);
    let path = socket(&daemon, "web");
    // All of them wait for the daemon, and not the other way round.
    let sixty_four: Vec<_> = (0..64).map(|_| reader(&path)).collect();
    let (code, head, body) = raw(&path, WHOLE);
    assert_eq!(code, 503, "{head}");
    assert!(head.contains("connection: close"), "{head}");
    let problem: wire::Problem = serde_json::from_str(&body).expect("a problem");
    assert_eq!(problem.kind, wire::ProblemKind::TooBusy);
    // Far more than there is room for: none of them is left without an end.
    let crowd: Vec<_> = (0..100).map(|_| connect(&path)).collect();
    drop(crowd);
    drop(sixty_four);
    let (code, ..) = raw(&path, WHOLE);
    assert!(code == 200 || code == 503, "{code}");
    let status_code = || raw(&path, WHOLE).0;
    eventually("an answer", || (status_code() == 200).then_some(()));
    assert_eq!(status(&client).daemon.name, "web");
    assert!(daemon.stop().success());
}

/// A client that reads events, and has been told that it will.
fn reader(path: &Path) -> UnixStream {
    let mut stream = connect(path);
    stream.write_all(b"GET /v1/events HTTP/1.1\r\n\r\n").expect("written");
    let mut first = [0; 12];
    stream.read_exact(&mut first).expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200");
    stream
}

#[test]
fn who_keeps_the_daemon_waiting_makes_room_and_who_waits_for_it_stays() {
    let (daemon, client) = web(1, |builder| builder);
    let path = socket(&daemon, "web");
    let mut reads = reader(&path);
    let half_a_body = b"POST /v1/reload HTTP/1.1\r\ncontent-type: application/json\r\n\
                        content-length: 9\r\n\r\n{";
    let idle: Vec<_> = (0..200)
        .map(|number| {
            let mut stream = connect(&path);
            let half: &[u8] = [b"".as_slice(), HALF, half_a_body][number % 3];
            stream.write_all(half).expect("written");
            stream
        })
        .collect();
    for _ in 0..100 {
        let (code, head, _) = raw(&path, WHOLE);
        assert_eq!(code, 200, "{head}");
    }
    assert_eq!(post(&client, "/v1/reload", &json!({})).services[0].generation, 2);
    let mut told = String::new();
    while !told.contains("reload-committed") {
        let mut bytes = [0; 4096];
        let count = reads.read(&mut bytes).expect("it is served still");
        assert_ne!(count, 0, "it had to leave: {told}");
        told.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    drop(idle);
    assert!(daemon.stop().success());
}

#[test]
fn a_peer_of_another_user_may_not_ask_even_where_the_file_lets_it() {
    if !geteuid().is_root() {
        return;
    }
    let (daemon, client) = web(1, |builder| builder);
    let path = socket(&daemon, "web");
    let ask = || {
        let program = "import socket, sys\n\
                       s = socket.socket(socket.AF_UNIX)\n\
                       s.connect(sys.argv[1])\n\
                       s.sendall(b'POST /v1/reload HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n')\n\
                       data = b''\n\
                       while True:\n\
                       \x20   more = s.recv(4096)\n\
                       \x20   if not more: break\n\
                       \x20   data += more\n\
                       print(data.decode())";
        let mut python = Command::new("python3");
        python.args(["-c", program]).arg(&path).uid(NOBODY).gid(NOBODY).stdin(Stdio::null());
        python.output().expect("python3")
    };
    let refused = ask();
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("PermissionError"), "{said}");

    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("ours");
    let answered = ask();
    let said = String::from_utf8_lossy(&answered.stdout);
    assert!(said.starts_with("HTTP/1.1 403 "), "{said}");
    assert!(said.contains("\"type\":\"forbidden\""), "{said}");
    assert_eq!(status(&client).services[0].generation, 1);
    assert!(daemon.stop().success());
}

#[test]
fn a_daemon_of_another_user_serves_that_user_and_root() {
    if !geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("ours");
    let path = directory.path().join("c.sock");
    let command = format!("exec setpriv --reuid {NOBODY} --clear-groups \"$SHEPHERD\" \"$@\"");
    let home = crate::harness::Home::new();
    fs::set_permissions(home.runtime_directory(), fs::Permissions::from_mode(0o777)).expect("ours");
    let binary = home.directory().join("shepherd");
    crate::site::copy_program(env!("CARGO_BIN_EXE_shepherd").as_ref(), &binary);
    let text = command.replace("\"$SHEPHERD\"", &binary.to_string_lossy());
    let wrapper = crate::site::wrapper(&home, &text);
    let daemon = Daemon::run()
        .home(&home)
        .binary(wrapper)
        .args(["--name".as_ref(), "web".as_ref(), "--control".as_ref(), path.as_os_str()])
        .args(["--ready", "alive:10ms"])
        .command(["sleep", "1000"])
        .start();
    wait_serving(&daemon, 1);
    let client = shepherd::control::client::Client::new(&path).expect("a client");
    assert_eq!(status(&client).daemon.name, "web");
    assert!(daemon.stop().success());
}

#[test]
fn a_worker_inherits_nothing_of_it() {
    let site = Site::new();
    let program = ["sh", "-c", "exec > fds.$SHEPHERD_GENERATION; ls /proc/$$/fd; exec sleep 1000"];
    let directory = site.home.directory().to_string_lossy().into_owned();
    let options = ["--name", "web", "--ready", "alive:100ms", "--directory", &directory];
    let daemon = site.run(1).args(options).command(program).start();
    wait_serving(&daemon, 1);
    let client = client(&daemon, "web");
    let path = socket(&daemon, "web");
    let mut others: Vec<_> = (0..8).map(|_| connect(&path)).collect();
    for stream in &mut others {
        stream.write_all(HALF).expect("written");
    }
    let events = client.events(None, LONG).expect("a stream");
    post(&client, "/v1/reload", &json!({}));
    let fds = |generation: u32| -> BTreeSet<String> {
        let text = fs::read_to_string(site.path(&format!("fds.{generation}"))).expect("written");
        text.lines().map(str::to_owned).collect()
    };
    let expected: BTreeSet<String> = ["0", "1", "2", "3"].map(str::to_owned).into();
    assert_eq!((fds(1), fds(2)), (expected.clone(), expected));
    drop(events);
    stop_well(&daemon);
}

#[test]
fn who_waits_for_a_stop_is_answered_and_who_reads_gets_all_of_it() {
    let (daemon, client) = web(2, |builder| builder);
    let path = socket(&daemon, "web");
    let mut events = client.events(Some(0), LONG).expect("a stream");
    let mut stop = connect(&path);
    stop.write_all(b"POST /v1/stop HTTP/1.1\r\nhost: x\r\n\r\n").expect("written");
    let (code, _, body) = read_answer(stop);
    assert_eq!(code, 200, "{body}");
    let mut seen = Vec::new();
    while let Some(event) = events.next(LONG).expect("an end and no error") {
        seen.push(event);
    }
    assert!(daemon.wait_exit().success());
    // As the log has it, line by line.
    let log: Vec<String> = journal(&daemon).into_iter().map(|entry| entry.text).collect();
    let told: Vec<&String> =
        log.iter().filter(|line| seen.iter().any(|event| event.message == **line)).collect();
    let messages: Vec<&String> = seen.iter().map(|event| &event.message).collect();
    assert_eq!(messages, told);
    assert_eq!(seen.last().map(|event| event.kind.as_str()), Some("worker-drained"));
}
