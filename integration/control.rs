//! The control socket as programs use it: what can be asked, and what is answered.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use shepherd::control::{client::Client, wire};

use crate::harness::{Builder, Daemon, free_port, http_rust};

/// Long: machines that run tests are slow at times.
pub const LONG: Option<Duration> = Some(Duration::from_secs(30));

/// The socket of the daemon of that name.
pub fn socket(daemon: &Daemon, name: &str) -> PathBuf {
    daemon.home().runtime_directory().join("shepherd").join(name).join("control.sock")
}

/// A daemon whose workers serve HTTP, and a client for it.
pub fn web(workers: u32, more: impl FnOnce(Builder) -> Builder) -> (Daemon, Client) {
    let port = free_port();
    let builder = Daemon::run().workers(workers).listen(port).args(["--name", "web"]);
    let daemon = more(builder.command(http_rust())).start();
    daemon.wait_line(|line| line.contains("ready") && line.contains("web: "), "all ready");
    let client = Client::new(socket(&daemon, "web")).expect("a client");
    (daemon, client)
}

/// What the daemon says of itself.
pub fn status(client: &Client) -> wire::Status {
    client.get("/v1/status", LONG).expect("a status")
}

#[test]
fn a_status_says_what_serves() {
    let (daemon, client) = web(2, |builder| builder);
    let found = status(&client);
    assert_eq!(found.daemon.name, "web");
    assert_eq!(i32::try_from(found.daemon.pid), Ok(daemon.pid()));
    assert_eq!(found.daemon.version, env!("CARGO_PKG_VERSION"));
    let [service] = &found.services[..] else { panic!("{found:?}") };
    assert_eq!((service.wanted, service.ready, service.generation), (2, 2, 1));
    assert_eq!(service.state, wire::ServiceState::Up);
    let pids: Vec<_> = service.workers.iter().filter_map(|worker| worker.pid).collect();
    let seen: Vec<_> = daemon.workers().into_iter().map(|pid| u32::try_from(pid).ok()).collect();
    assert_eq!(pids.into_iter().map(Some).collect::<Vec<_>>(), seen);
    let mode = fs::metadata(socket(&daemon, "web")).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(daemon.stop().success());
    assert!(!socket(&daemon, "web").exists());
}

#[test]
fn a_reload_is_answered_when_it_is_committed_and_a_stop_when_all_has_gone() {
    let (daemon, client) = web(2, |builder| builder);
    let done: wire::Done =
        client.post("/v1/reload", &wire::Reload::default(), LONG).expect("a reload");
    let expected = wire::DoneService { name: "web".to_owned(), generation: 2, workers: 2 };
    assert_eq!(done.services, [expected]);
    assert_eq!(status(&client).services[0].generation, 2);
    let _: wire::Done = client.post("/v1/stop", &serde_json::json!({}), LONG).expect("a stop");
    assert!(daemon.wait_exit().success());
    daemon.assert_nothing_left();
}
