//! A file that has changed is applied by difference: what stays is never touched, what is new is bound
//! before anything starts, and a mistake changes nothing.

use std::{fs, net::TcpListener};

use nix::sys::signal::Signal;

use crate::harness::{
    Daemon, Home, Kind, Limits, Load, Port, free_port, get, http_python, http_rust, odd,
};

/// Connections that new clients begin in a second: tests run side by side.
const NEW_PER_SECOND: u32 = 150;

fn contains(words: &str) -> impl Fn(&str) -> bool {
    move |line| line.contains(words)
}

/// Writes the file, with the names of our programs in it.
fn write(home: &Home, text: &str) {
    let program = |words: &[std::ffi::OsString]| {
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        format!("[{}]", words.join(", "))
    };
    let text = text
        .replace("RUST", &program(&http_rust()))
        .replace("PYTHON", &program(&http_python()))
        .replace("ODD", odd().to_str().expect("text"));
    let path = home.directory().join("shepherd.yaml");
    fs::write(path, text).expect("a file");
}

fn start(home: &std::sync::Arc<Home>, text: &str) -> Daemon {
    write(home, text);
    let path = home.directory().join("shepherd.yaml");
    Daemon::run().home(home).args(["-c".as_ref(), path.as_os_str()]).start()
}

/// Where a line that has these words stands in the log.
#[track_caller]
fn place(daemon: &Daemon, words: &str) -> usize {
    let lines = daemon.lines();
    let found = lines.iter().position(|line| line.text.contains(words));
    found.unwrap_or_else(|| daemon.fail(&format!("nobody said `{words}`")))
}

/// The main processes of all workers.
fn pids(daemon: &Daemon) -> Vec<i32> {
    let mut pids: Vec<i32> = daemon.worker_processes().iter().map(|worker| worker.pid).collect();
    pids.sort_unstable();
    pids
}

fn load(port: &Port) -> Load {
    let limits = Limits { new_per_second: NEW_PER_SECOND, ..Limits::default() };
    let clients = [(Kind::New, 2), (Kind::kept_alive(), 3), (Kind::Slow { ms: 40 }, 1)];
    Load::start_with(limits, port, clients)
}

#[test]
fn services_start_after_those_they_need_and_stop_before_them() {
    let home = Home::new();
    let text = "\
services:
  web: {command: ODD alive, ready: 'alive:1ms', depends_on: api, workers: 2}
  api: {command: ODD alive, ready: 'alive:50ms', depends_on: [db]}
  db: {command: ODD alive, ready: 'alive:50ms'}
";
    let daemon = start(&home, text);
    daemon.wait_line(contains("web: 2 workers ready"), "all are up");
    assert!(place(&daemon, "db: 1 worker ready") < place(&daemon, "(api.0) started"));
    assert!(place(&daemon, "api: 1 worker ready") < place(&daemon, "(web.0) started"));
    daemon.wait_line(contains("web: waiting for api to be ready"), "what it waits for");
    assert!(daemon.stop().success());
    let gone = |slot: &str| {
        let lines = daemon.lines();
        let said = |line: &str| line.contains(&format!("({slot})")) && line.contains("draining");
        lines.iter().rposition(|line| said(&line.text)).expect("it drained")
    };
    let asked = |slot: &str| {
        let lines = daemon.lines();
        let said = |line: &str| line.contains("stopping worker") && line.contains(slot);
        lines.iter().position(|line| said(&line.text)).expect("it was asked")
    };
    assert!(gone("web.0").max(gone("web.1")) < asked("(api.0)"));
    assert!(gone("api.0") < asked("(db.0)"));
    daemon.assert_nothing_left();
}

#[test]
fn a_changed_file_under_load_fails_no_request_on_the_socket_that_stays() {
    let home = Home::new();
    let (kept, old, new) = (free_port(), free_port(), free_port());
    let (kept_at, old_at, new_at) = (kept.v4(), old.v4(), new.v4());
    let text = format!(
        "\
services:
  db: {{command: RUST, listen: '{old_at}'}}
  web: {{command: RUST, workers: 2, listen: 'http={kept_at}', env: {{VERSION: v1}}, depends_on: db}}
"
    );
    let daemon = start(&home, &text);
    daemon.wait_line(contains("web: 2 workers ready"), "all are up");
    let load = load(&kept);
    load.wait_version("v1");
    load.wait_ok(200);
    let text = format!(
        "\
services:
  cache: {{command: RUST, listen: '{new_at}', env: {{VERSION: cache}}}}
  web: {{command: RUST, workers: 3, listen: 'http={kept_at}', env: {{VERSION: v2}}, depends_on: cache}}
"
    );
    write(&home, &text);
    let mark = daemon.mark();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_line_since(mark, contains("db: removed"), "what is gone has drained");
    load.wait_version("v2");
    load.wait_ok(400);
    load.stop().assert_clean();
    assert!(
        place(&daemon, &format!("listening on {new_at}")) < place(&daemon, "(cache.0) started")
    );
    let second = daemon.lines().iter().rposition(|line| line.text.contains("(web.0) started"));
    assert!(Some(place(&daemon, "cache: 1 worker ready")) < second, "web did not wait for it");
    assert!(place(&daemon, "reload committed") < place(&daemon, "db: leaving"));
    assert_eq!(get(new_at, "/").expect("an answer").body.split(' ').next(), Some("cache"));
    assert!(TcpListener::bind(old_at).is_ok(), "the socket that is gone is open");
    assert_eq!(pids(&daemon).len(), 4);
    assert!(daemon.stop().success());
    daemon.assert_nothing_left();
}

#[test]
fn a_port_that_another_has_changes_nothing_at_all() {
    let home = Home::new();
    let (kept, free, taken) = (free_port(), free_port(), free_port());
    let text = format!("services:\n  web: {{command: RUST, listen: '{}'}}\n", kept.v4());
    let daemon = start(&home, &text);
    daemon.wait_line(contains("web: 1 worker ready"), "it is up");
    let workers = pids(&daemon);
    let other = TcpListener::bind(taken.v4()).expect("a listener");
    let changed = format!(
        "\
services:
  web: {{command: RUST, listen: ['{}', '{}']}}
  more: {{command: RUST, listen: '{}'}}
",
        kept.v4(),
        free.v4(),
        taken.v4()
    );
    write(&home, &changed);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_line(
        |line| line.contains("cannot reload: cannot bind") && line.ends_with("nothing has changed"),
        "that it is refused",
    );
    assert!(TcpListener::bind(free.v4()).is_ok(), "what was bound first is still open");
    assert_eq!(pids(&daemon), workers);
    drop(other);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_line(contains("more: 1 worker ready"), "the next one goes");
    daemon.wait_line(contains("web: reload committed"), "and all of it");
    assert!(daemon.stop().success());
    daemon.assert_nothing_left();
}

#[test]
fn a_file_that_cannot_be_read_changes_nothing() {
    let home = Home::new();
    let text = "services:\n  web: {command: ODD alive, ready: 'alive:1ms'}\n";
    let daemon = start(&home, text);
    daemon.wait_line(contains("web: 1 worker ready"), "it is up");
    let workers = pids(&daemon);
    for wrong in [
        "services: [\n",
        "services:\n  web: {command: ODD alive, ready: 'alive:1ms', depends_on: wbe}\n",
        "services:\n  other: {command: ./no-such-program}\n",
    ] {
        write(&home, wrong);
        let mark = daemon.mark();
        daemon.signal(Signal::SIGHUP);
        daemon.wait_line_since(mark, contains("nothing has changed"), "that it is refused");
        assert_eq!(pids(&daemon), workers, "{wrong}");
    }
    write(&home, text);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_line(contains("generation 2 serves"), "one that can be read goes");
    assert!(daemon.stop().success());
}

#[test]
fn a_version_that_does_not_start_takes_its_new_socket_with_it_and_the_old_one_stays() {
    let home = Home::new();
    let (kept, new) = (free_port(), free_port());
    let text = format!("services:\n  web: {{command: RUST, listen: '{}'}}\n", kept.v4());
    let daemon = start(&home, &text);
    daemon.wait_line(contains("web: 1 worker ready"), "it is up");
    let workers = pids(&daemon);
    assert_eq!(workers.len(), 1);
    let broken =
        format!("services:\n  web: {{command: ODD exit 3, workers: 3, listen: '{}'}}\n", new.v4());
    write(&home, &broken);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_line(contains("aborted"), "the abort");
    daemon.eventually("its socket is closed", || TcpListener::bind(new.v4()).ok());
    assert!(get(kept.v4(), "/").is_ok(), "the old one does not answer");
    daemon.eventually("what was new is gone", || (pids(&daemon) == workers).then_some(()));
    assert!(daemon.stop().success());
    daemon.assert_nothing_left();
}
