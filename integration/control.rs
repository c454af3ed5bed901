//! The control socket as programs use it: what can be asked, and what is answered.

#![expect(clippy::panic, reason = "a test fails by it")]

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shepherd::control::{
    client::{Client, ClientError},
    wire,
};

use crate::{
    harness::{Builder, Daemon, eventually, free_port, http_rust},
    site::{Site, reload, wait_serving},
};

/// Long: machines that run tests are slow at times.
pub const LONG: Option<Duration> = Some(Duration::from_secs(30));

/// The socket of the daemon of that name.
pub fn socket(daemon: &Daemon, name: &str) -> PathBuf {
    daemon.home().runtime_directory().join("shepherd").join(name).join("control.sock")
}

/// The client of the daemon of that name.
pub fn client(daemon: &Daemon, name: &str) -> Client {
    Client::new(socket(daemon, name)).expect("a client")
}

/// A daemon whose workers serve HTTP, and a client for it.
pub fn web(workers: usize, more: impl FnOnce(Builder) -> Builder) -> (Daemon, Client) {
    named("web", workers, more)
}

/// The same of another name.
pub fn named(
    name: &str,
    workers: usize,
    more: impl FnOnce(Builder) -> Builder,
) -> (Daemon, Client) {
    let builder = Daemon::run().workers(workers).listen(free_port()).args(["--name", name]);
    let daemon = more(builder.command(http_rust())).start();
    wait_serving(&daemon, workers);
    let client = client(&daemon, name);
    (daemon, client)
}

/// What the daemon says of itself.
#[track_caller]
pub fn status(client: &Client) -> wire::Status {
    client.get("/v1/status", LONG).expect("a status")
}

/// A request that is done.
#[track_caller]
pub fn post(client: &Client, path: &str, body: &Value) -> wire::Done {
    client.post(path, body, LONG).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The problem that a request ends with.
#[track_caller]
pub fn problem<T: DeserializeOwned + std::fmt::Debug>(
    answer: Result<T, ClientError>,
) -> wire::Problem {
    match answer {
        Err(ClientError::Problem(problem)) => *problem,
        other => panic!("no problem: {other:?}"),
    }
}

/// What the daemon answers to these bytes, read to its end: the status, the head and the body.
#[track_caller]
pub fn raw(socket: &Path, bytes: &[u8]) -> (u16, String, String) {
    let mut stream = connect(socket);
    // What it does not want it may leave unread.
    let _ = stream.write_all(bytes);
    read_answer(stream)
}

pub fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).expect("a daemon that listens");
    stream.set_read_timeout(LONG).expect("a time limit");
    stream.set_write_timeout(LONG).expect("a time limit");
    stream
}

#[track_caller]
pub fn read_answer(mut stream: UnixStream) -> (u16, String, String) {
    let mut answer = Vec::new();
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&bytes[..count]),
            // With a timeout that happens to whoever is stopped and continued, see signal(7).
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            // A connection that is reset has given all that it will.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("no answer: {error}"),
        }
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or(0), head.to_owned(), body.to_owned())
}

#[test]
fn a_status_says_what_serves() {
    let (daemon, client) = web(2, |builder| builder);
    let found = status(&client);
    assert_eq!(found.daemon.name, "web");
    assert_eq!(i32::try_from(found.daemon.pid), Ok(daemon.pid()));
    assert_eq!(found.daemon.version, env!("CARGO_PKG_VERSION"));
    assert!(found.daemon.up > 0.0 && !found.daemon.stopping);
    let [service] = &found.services[..] else { panic!("{found:?}") };
    assert_eq!((service.wanted, service.ready, service.generation), (2, 2, 1));
    assert_eq!(service.state, wire::ServiceState::Up);
    let pids: Vec<_> = service.workers.iter().map(|worker| worker.pid).collect();
    let seen: Vec<_> = daemon.workers().into_iter().map(|pid| u32::try_from(pid).ok()).collect();
    assert_eq!(pids, seen);
    let addresses: Vec<_> = service.sockets.iter().map(|socket| &socket.address).collect();
    let line = daemon.wait_line(|line| line.contains("listening on "), "an address");
    assert_eq!(addresses.len(), 1);
    assert!(addresses.iter().all(|address| line.ends_with(*address)), "{addresses:?} {line}");
    let one: wire::Service = client.get("/v1/services/web", LONG).expect("a service");
    assert_eq!(one.workers.len(), 2);
    let mode = fs::metadata(socket(&daemon, "web")).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(daemon.stop().success());
    assert!(!socket(&daemon, "web").exists());
}

#[test]
fn a_configuration_names_variables_and_keeps_their_values() {
    let (daemon, client) = web(1, |builder| {
        builder.args(["--env", "TOKEN=hidden-7c1", "--stop-signal", "INT:5s,TERM"])
    });
    let text: Value = client.get("/v1/config", LONG).expect("a configuration");
    assert!(!text.to_string().contains("hidden-7c1"), "{text}");
    let config: wire::Config = serde_json::from_value(text).expect("one of ours");
    let [service] = &config.services[..] else { panic!("{config:?}") };
    assert_eq!((service.name.as_str(), service.workers), ("web", 1));
    assert_eq!(service.env, ["TOKEN"]);
    assert_eq!(service.ready, "auto");
    let stop: Vec<_> = service.stop.iter().map(|step| (step.signal.as_str(), step.wait)).collect();
    assert_eq!(stop, [("INT", 5.0), ("TERM", 30.0)]);
    assert!(daemon.stop().success());
}

#[test]
fn a_reload_is_answered_when_it_is_committed_and_a_stop_when_all_has_gone() {
    let (daemon, client) = web(2, |builder| builder);
    let done = post(&client, "/v1/reload", &json!({}));
    let expected = wire::DoneService { name: "web".to_owned(), generation: 2, workers: 2 };
    assert_eq!(done.services, [expected]);
    assert_eq!(status(&client).services[0].generation, 2);
    post(&client, "/v1/stop", &json!({}));
    assert!(daemon.wait_exit().success());
    daemon.assert_nothing_left();
}

#[test]
fn a_reload_that_is_aborted_says_why_with_the_last_words_of_the_worker() {
    let site = Site::new();
    let program =
        ["sh", "-c", "test $VERSION = v1 || { echo no such table >&2; exit 3; }; exec sleep 1000"];
    let options = ["--name", "web", "--ready", "alive:300ms", "--logs", "prefix"];
    let daemon = site.run(1).args(options).command(program).start();
    wait_serving(&daemon, 1);
    let client = client(&daemon, "web");
    site.release("v2");
    let problem = problem(client.post::<wire::Done>("/v1/reload", &json!({}), LONG));
    assert_eq!((problem.kind, problem.status), (wire::ProblemKind::Aborted, 500));
    assert!(problem.detail.contains("exited with code 3"), "{problem:?}");
    assert_eq!(problem.output, ["no such table"]);
    assert!(problem.worker.is_some());
    let service = &status(&client).services[0];
    assert_eq!((service.generation, service.ready), (1, 1));
    assert!(service.last_abort.as_deref().is_some_and(|why| why.contains("code 3")));
    assert!(daemon.stop().success());
}

#[test]
fn a_reload_goes_on_when_its_client_goes() {
    let (daemon, client) = web(2, |builder| builder);
    let mut stream = connect(&socket(&daemon, "web"));
    stream.write_all(b"POST /v1/reload HTTP/1.1\r\nhost: x\r\n\r\n").expect("written");
    daemon.wait_line(|line| line.contains("reload begins"), "a reload");
    drop(stream);
    eventually("generation 2", || (status(&client).services[0].generation == 2).then_some(()));
    assert!(daemon.stop().success());
}

#[test]
fn two_daemons_have_sockets_of_their_own() {
    let (first, one) = web(1, |builder| builder);
    let (second, two) = named("other", 1, |builder| builder.home(first.home()));
    for (daemon, client, name) in [(&first, &one, "web"), (&second, &two, "other")] {
        let found = status(client).daemon;
        assert_eq!((found.name.as_str(), i32::try_from(found.pid)), (name, Ok(daemon.pid())));
    }
    post(&one, "/v1/stop", &json!({}));
    assert!(first.wait_exit().success());
    assert_eq!(status(&two).daemon.name, "other");
    let gone = one.get::<wire::Status>("/v1/status", LONG);
    assert!(matches!(gone, Err(ClientError::NoSocket(_))), "{gone:?}");
    assert!(second.stop().success());
}

#[test]
fn the_socket_can_be_elsewhere_and_is_bound_there_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("c.sock");
    let (daemon, _) = web(1, |builder| builder.args(["--control".as_ref(), path.as_os_str()]));
    assert!(!socket(&daemon, "web").exists());
    let client = Client::new(&path).expect("a client");
    assert_eq!(status(&client).daemon.name, "web");
    fs::remove_file(&path).expect("removed");
    drop(eventually("another socket", || UnixStream::connect(&path).ok()));
    assert_eq!(status(&client).daemon.name, "web");
    // Who comes second does not take it.
    let second = Daemon::run().args(["--control".as_ref(), path.as_os_str()]);
    let second = second.listen(free_port()).command(http_rust()).start();
    assert_eq!(second.wait_exit().code(), Some(9));
    let line = second.wait_line(|line| line.contains("cannot listen"), "why");
    assert!(line.contains(&format!("pid {}", daemon.pid())), "{line}");
    assert!(daemon.stop().success());
    assert!(!path.exists());
}

#[test]
fn a_runtime_directory_that_was_removed_comes_back_with_the_socket() {
    let (daemon, client) = web(1, |builder| builder);
    assert_eq!(status(&client).daemon.name, "web");
    let path = socket(&daemon, "web");
    let directory = path.parent().and_then(Path::parent).expect("a directory of daemons");
    for _ in 0..2 {
        fs::remove_dir_all(directory).expect("removed");
        drop(eventually("another socket", || UnixStream::connect(&path).ok()));
        assert_eq!(status(&client).daemon.name, "web");
    }
    assert!(reload(&daemon).contains("committed"));
    assert!(daemon.stop().success());
    assert!(!path.exists());
}

#[test]
fn what_the_document_describes_is_there() {
    let (daemon, client) = web(1, |builder| builder);
    let document: Value = client.get("/openapi.json", LONG).expect("a document");
    let paths = document["paths"].as_object().expect("paths");
    for (path, methods) in paths {
        let path = path.replace("{name}", "nobody").replace("{id}", "0");
        for method in methods.as_object().expect("methods").keys() {
            if path == "/v1/stop" || path == "/v1/events" {
                continue;
            }
            let method = method.to_uppercase();
            let request = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n\r\n");
            let (status, _, body) = raw(&socket(&daemon, "web"), request.as_bytes());
            assert_ne!(status, 405, "{method} {path}");
            assert!(!body.contains("there is no `/"), "{method} {path}: {body}");
        }
    }
    assert!(daemon.stop().success());
}
