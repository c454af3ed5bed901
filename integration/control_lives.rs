//! A whole service is stopped, started and restarted over the control socket, with a real daemon.

use std::{fs, os::unix::net::UnixStream};

use serde_json::json;
use shepherd::control::wire::{self, ProblemKind, ServiceState};

use crate::{
    cli::shepherd,
    control::{LONG, client, post, problem, status},
    harness::{Daemon, Kind, Limits, Load, free_port, get, http_rust},
    site::{Site, copy_program, stop_well, wait_serving},
};

#[test]
fn a_stopped_service_refuses_connections_and_serves_at_its_address_again_once_started() {
    let port = free_port();
    let site = Site::new();
    let path = site.path("web.sock");
    let unix = format!("unix:{}", path.display());
    let builder = Daemon::run().workers(2).listen(port.v4()).listen(&unix);
    let daemon = builder.args(["--name", "web"]).command(http_rust()).start();
    wait_serving(&daemon, 2);
    let client = client(&daemon, "web");

    let done = post(&client, "/v1/services/web/stop", &json!({}));
    assert_eq!(done.services[0].generation, 1);
    assert!(get(port.v4(), "/").is_err() && !path.exists());
    let shown = status(&client).services.remove(0);
    assert_eq!((shown.state, shown.workers.len()), (ServiceState::Stopped, 0));
    assert_eq!(shown.sockets, []);
    let refused = problem(client.post::<wire::Done>("/v1/services/web/reload", &json!({}), LONG));
    assert_eq!((refused.kind, refused.status), (ProblemKind::Stopping, 409));
    // All services are reloaded, and that is none.
    assert_eq!(post(&client, "/v1/reload", &json!({})).services, []);
    assert!(get(port.v4(), "/").is_err(), "it stays stopped");
    // What is asked of it meanwhile holds from the start on.
    assert_eq!(post(&client, "/v1/services/web/scale", &json!({"to": 3})).services[0].workers, 3);

    let done = post(&client, "/v1/services/web/start", &json!({}));
    assert_eq!((done.services[0].generation, done.services[0].workers), (2, 3));
    assert_eq!(get(port.v4(), "/").expect("it serves").status, 200);
    UnixStream::connect(&path).expect("at its path too");
    let shown = status(&client).services.remove(0);
    assert_eq!((shown.state, shown.sockets.len()), (ServiceState::Up, 2));
    // It can be reloaded like any other.
    assert_eq!(post(&client, "/v1/reload", &json!({})).services[0].generation, 3);
    stop_well(&daemon);
}

#[test]
fn a_start_whose_address_is_taken_says_by_whom_and_can_be_asked_for_again() {
    let port = free_port();
    let builder = Daemon::run().workers(1).listen(port.v4()).args(["--name", "web"]);
    let daemon = builder.command(http_rust()).start();
    wait_serving(&daemon, 1);
    let client = client(&daemon, "web");
    post(&client, "/v1/services/web/stop", &json!({}));
    let other = std::net::TcpListener::bind(port.v4()).expect("it is free");
    let start = || client.post::<wire::Done>("/v1/services/web/start", &json!({}), LONG);
    let failed = problem(start());
    assert_eq!((failed.kind, failed.service.as_deref()), (ProblemKind::Bind, Some("web")));
    assert!(failed.detail.contains(&std::process::id().to_string()), "{failed:?}");
    assert_eq!(status(&client).services[0].state, ServiceState::Stopped);
    drop(other);
    assert_eq!(start().expect("it is free again").services[0].workers, 1);
    stop_well(&daemon);
}

#[test]
fn a_restart_stops_nothing_for_a_mistake_and_lets_connections_wait() {
    let site = Site::new();
    let server = site.path("server");
    copy_program(http_rust()[0].as_ref(), &server);
    let port = free_port();
    let builder = Daemon::run().workers(2).listen(port.v4()).args(["--name", "web"]);
    let daemon = builder.command([&server]).start();
    let before = wait_serving(&daemon, 2);
    let client = client(&daemon, "web");

    let away = site.path("away");
    fs::rename(&server, &away).expect("moved");
    let restart = || client.post::<wire::Done>("/v1/services/web/restart", &json!({}), LONG);
    let mistake = problem(restart());
    assert_eq!(mistake.kind, ProblemKind::Configuration, "{mistake:?}");
    assert_eq!(daemon.workers(), before, "nothing has happened");

    fs::rename(&away, &server).expect("moved back");
    // New connections only: kept ones are closed by whoever stops.
    let limits = Limits { new_per_second: 150, ..Limits::default() };
    let load = Load::start_with(limits, &port, [(Kind::New, 3)]);
    load.wait_ok(100);
    assert_eq!(restart().expect("restarted").services[0].generation, 3);
    load.wait_ok(300);
    load.stop().assert_clean();
    assert!(daemon.workers().iter().all(|pid| !before.contains(pid)));
    stop_well(&daemon);
}

#[test]
fn a_restart_of_what_could_not_start_again_is_refused() {
    let site = Site::new();
    let odd = crate::harness::odd();
    let file = site.path("shepherd.yaml");
    let text = format!(
        "services:\n  \
         web: {{command: {0} alive, ready: 'alive:1ms', depends_on: db}}\n  \
         db: {{command: {0} alive, ready: 'alive:1ms'}}\n",
        odd.display()
    );
    fs::write(&file, text).expect("a file");
    let builder = Daemon::run().args(["--name", "web", "-c", file.to_str().expect("text")]);
    let daemon = builder.start();
    daemon.wait_line(|line| line.contains("web: 1 worker ready"), "all are up");
    let workers = || daemon.worker_processes().iter().map(|it| it.pid).collect::<Vec<_>>();
    let before = workers();
    let client = client(&daemon, "web");
    post(&client, "/v1/services/db/stop", &json!({}));
    let refused = problem(client.post::<wire::Done>("/v1/services/web/restart", &json!({}), LONG));
    assert_eq!(refused.detail, "cannot start `web`: `db`, which it needs, is stopped");
    let left = workers();
    assert!(left.len() == 1 && before.contains(&left[0]), "it serves on: {left:?}");
    post(&client, "/v1/services/db/start", &json!({}));
    assert_eq!(post(&client, "/v1/services/web/restart", &json!({})).services[0].generation, 2);
    stop_well(&daemon);
}

#[test]
fn services_that_are_bound_to_another_stop_start_and_restart_with_it() {
    let site = Site::new();
    let odd = crate::harness::odd();
    let port = free_port();
    let file = site.path("shepherd.yaml");
    let text = format!(
        "services:\n  \
         db: {{command: {0} alive, ready: 'alive:1ms'}}\n  \
         web: {{command: {1}, listen: '{2}', workers: 2, bind_to: db}}\n",
        odd.display(),
        http_rust()[0].display(),
        port.v4(),
    );
    fs::write(&file, text).expect("a file");
    let builder = Daemon::run().args(["--name", "web", "-c", file.to_str().expect("text")]);
    let daemon = builder.start();
    daemon.wait_line(|line| line.contains("web: 2 workers ready"), "all are up");
    let stdout = |words: &str| shepherd(&daemon, words, 0).stdout;

    assert_eq!(stdout("stop db"), "db: stopped\nweb: stopped together with db\n");
    assert!(get(port.v4(), "/").is_err() && daemon.worker_processes().is_empty());
    let lines = daemon.lines();
    let at = |part: &str| {
        let at = lines.iter().rposition(|line| line.text.contains(part));
        at.unwrap_or_else(|| panic!("no `{part}` in {lines:#?}"))
    };
    assert!(at("db: stops once those have that need it: `web`") < at("web: stopped, until `db`"));
    assert!(at("web: stopped, until `db` is started") < at("db: its sockets are closed"));
    let refused = shepherd(&daemon, "start web", 1).stderr;
    assert!(refused.contains("`web` is bound to `db`, which is stopped; start `db` first"));
    assert!(get(port.v4(), "/").is_err(), "{refused}");
    let started = stdout("start db");
    assert_eq!(
        started,
        "db: started, generation 2 with 1 worker\n\
         web: started together with db, generation 2 with 2 workers\n"
    );
    assert_eq!(get(port.v4(), "/").expect("it serves").status, 200);
    // By itself it is stopped for itself.
    assert_eq!(stdout("stop web"), "web: stopped\n");
    assert_eq!(stdout("restart db"), "db: restarted, generation 3 with 1 worker\n");
    assert_eq!(status(&client(&daemon, "web")).services[1].state, ServiceState::Stopped);
    stdout("start web");
    stop_well(&daemon);
}

#[test]
fn a_restart_of_what_others_are_bound_to_lets_their_connections_wait() {
    let site = Site::new();
    let odd = crate::harness::odd();
    let port = free_port();
    let file = site.path("shepherd.yaml");
    let text = format!(
        "services:\n  \
         db: {{command: {0} alive, ready: 'alive:1ms'}}\n  \
         web: {{command: {1}, listen: '{2}', workers: 2, bind_to: db}}\n",
        odd.display(),
        http_rust()[0].display(),
        port.v4(),
    );
    fs::write(&file, text).expect("a file");
    let builder = Daemon::run().args(["--name", "web", "-c", file.to_str().expect("text")]);
    let daemon = builder.start();
    daemon.wait_line(|line| line.contains("web: 2 workers ready"), "all are up");
    let client = client(&daemon, "web");
    let pids = |at: usize| -> Vec<Option<u32>> {
        status(&client).services[at].workers.iter().map(|worker| worker.pid).collect()
    };
    let before = (pids(0), pids(1));
    let limits = Limits { new_per_second: 150, ..Limits::default() };
    let load = Load::start_with(limits, &port, [(Kind::New, 3)]);
    load.wait_ok(100);
    let done = post(&client, "/v1/services/db/restart", &json!({}));
    let names: Vec<&str> = done.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["db", "web"]);
    load.wait_ok(300);
    let (db, web) = (pids(0), pids(1));
    assert!(db != before.0 && web.iter().all(|pid| !before.1.contains(pid)));
    // A reload of the other, and the end of its workers, are nothing to it.
    post(&client, "/v1/services/db/reload", &json!({}));
    let worker = status(&client).services[0].workers.last().expect("one").id;
    post(&client, &format!("/v1/workers/{worker}/signal"), &json!({"signal": "KILL"}));
    daemon.wait_line(|line| line.contains("db.0) was ended by SIGKILL"), "it ended");
    load.wait_ok(400);
    assert_eq!(pids(1), web);
    load.stop().assert_clean();
    stop_well(&daemon);
}
