//! What operators do to a service over the control socket: each operation as a program asks for it,
//! and each way in which it is refused.

use std::{fs, io::Write};

use serde_json::json;
use shepherd::control::wire::{self, ProblemKind};

use crate::{
    control::{LONG, client, connect, post, problem, read_answer, socket, status, web},
    harness::{eventually, http_rust},
    site::{Site, copy_program, stop_well, wait_only_generation, wait_serving},
};

#[test]
fn a_service_is_scaled_to_a_number_and_by_one() {
    let (daemon, client) = web(1, |builder| builder);
    let scale = |body: serde_json::Value| {
        post(&client, "/v1/services/web/scale", &body).services.remove(0).workers
    };
    assert_eq!(scale(json!({"to": 3})), 3);
    daemon.wait_workers(3);
    assert_eq!(scale(json!({"by": -1})), 2);
    assert_eq!(scale(json!({"by": 2})), 4);
    let refused =
        |path: &str, body: serde_json::Value| problem(client.post::<wire::Done>(path, &body, LONG));
    let none = refused("/v1/services/web/scale", json!({"to": 0}));
    assert_eq!((none.kind, none.service.as_deref()), (ProblemKind::BadRequest, Some("web")));
    assert!(none.detail.contains("1 worker is the least"), "{none:?}");
    let nobody = refused("/v1/services/wbe/scale", json!({"to": 1}));
    assert_eq!((nobody.kind, nobody.status), (ProblemKind::NotFound, 404));
    assert!(nobody.detail.contains("did you mean `web`?"), "{nobody:?}");
    assert_eq!(status(&client).services[0].wanted, 4);
    stop_well(&daemon);
}

#[test]
fn a_worker_is_sent_a_signal() {
    let (daemon, client) = web(1, |builder| builder);
    let worker = status(&client).services.remove(0).workers.remove(0);
    let path = format!("/v1/workers/{}/signal", worker.id);
    let refused = |path: &str, signal: &str| {
        problem(client.post::<wire::Done>(path, &json!({"signal": signal}), LONG))
    };
    assert_eq!(refused(&path, "SIGNOTHING").kind, ProblemKind::BadRequest);
    assert_eq!(refused("/v1/workers/999/signal", "TERM").kind, ProblemKind::NotFound);
    post(&client, &path, &json!({"signal": "SIGKILL"}));
    let next = eventually("another worker", || {
        let workers = status(&client).services.remove(0).workers;
        let ready = workers.into_iter().find(|other| other.state == wire::WorkerState::Ready);
        ready.filter(|other| other.id != worker.id)
    });
    assert_eq!(next.slot, worker.slot);
    stop_well(&daemon);
}

#[test]
fn a_reload_of_a_service_is_refused_behind_another_unless_it_may_wait() {
    let site = Site::new();
    let options = ["--name", "web", "--ready", "alive:2s"];
    let daemon = site.run(1).args(options).command(http_rust()).start();
    wait_serving(&daemon, 1);
    let client = client(&daemon, "web");
    let begin = |body: &str| {
        let mut stream = connect(&socket(&daemon, "web"));
        let length = body.len();
        write!(
            stream,
            "POST /v1/services/web/reload HTTP/1.1\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .expect("written");
        stream
    };
    let first = begin("{}");
    eventually("a reload", || status(&client).services[0].reloading);
    let refused = problem(client.post::<wire::Done>("/v1/services/web/reload", &json!({}), LONG));
    assert_eq!((refused.kind, refused.status), (ProblemKind::InProgress, 409));
    assert_eq!(refused.service.as_deref(), Some("web"));
    let second = begin("{\"queue\":true}");
    eventually("a queue", || status(&client).services[0].queued.then_some(()));
    for (stream, generation) in [(first, 2), (second, 3)] {
        let (code, _, body) = read_answer(stream);
        assert_eq!(code, 200, "{body}");
        let done: wire::Done = serde_json::from_str(&body).expect("an answer");
        assert_eq!(done.services[0].generation, generation);
    }
    wait_only_generation(&daemon, 3, 1);
    stop_well(&daemon);
}

#[test]
fn a_reload_of_what_cannot_be_read_is_a_mistake_in_the_configuration() {
    let site = Site::new();
    let server = site.path("server");
    copy_program(http_rust()[0].as_ref(), &server);
    let daemon = site.run(1).args(["--name", "web"]).command([&server]).start();
    wait_serving(&daemon, 1);
    let client = client(&daemon, "web");
    fs::remove_file(&server).expect("removed");
    let mistake = problem(client.post::<wire::Done>("/v1/reload", &json!({}), LONG));
    assert_eq!((mistake.kind, mistake.status), (ProblemKind::Configuration, 422));
    assert!(mistake.detail.contains("there is no such file"), "{mistake:?}");
    assert_eq!(status(&client).services[0].generation, 1);
    stop_well(&daemon);
}
