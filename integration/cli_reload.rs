//! `shepherd reload` while a reload is under way: whatever becomes of its client, the reload is the
//! daemon's.

use std::{fs, net::TcpListener};

use nix::sys::signal::Signal;

use crate::{
    cli::{ends, shepherd, site, web},
    harness::{Client, Daemon, Home, free_port, http_rust, odd},
    site::Site,
};

/// A new version that starts to serve once it is let.
fn release_held_back(site: &Site, version: &str) {
    let script = site.path("held-back");
    let gate = site.path("gate");
    let http = http_rust().remove(0);
    let text = format!(
        "while [ ! -e '{}' ]; do sleep 0.02; done\nexec '{}'\n",
        gate.display(),
        http.display()
    );
    fs::write(&script, text).expect("a script");
    site.release_running(version, &["sh", script.to_str().expect("text")]);
}

fn let_it_serve(site: &Site) {
    fs::write(site.path("gate"), "").expect("a file");
}

/// A client that waits for a reload to generation 2.
fn reloading(site: &Site, daemon: &Daemon) -> Client {
    release_held_back(site, "v2");
    let mark = daemon.mark();
    // Whoever runs the tests in the background of a script has INT ignored, and so have all below.
    let shepherd = env!("CARGO_BIN_EXE_shepherd");
    let words = ["--default-signal=INT", shepherd, "reload", "--name", "web"];
    let client = daemon.builder().binary("env").start_client(words);
    daemon.wait_line_since(mark, |line| line.contains("reload begins"), "the reload");
    daemon.wait_line_since(mark, |line| line.contains("started: pid"), "a new worker");
    client
}

fn wait_committed(daemon: &Daemon) {
    let committed = |line: &str| line.contains("reload committed") && line.contains("generation 2");
    daemon.wait_line(committed, "the end of the reload");
}

#[test]
fn a_client_that_is_killed_changes_nothing() {
    let (site, builder) = site(2);
    let daemon = web(builder);
    let client = reloading(&site, &daemon);
    client.signal(Signal::SIGKILL);
    assert_eq!(client.wait().status.code(), None);
    let_it_serve(&site);
    wait_committed(&daemon);
    assert!(daemon.stop().success());
}

#[test]
fn ctrl_c_ends_with_130_and_the_reload_goes_on() {
    let (site, builder) = site(2);
    let daemon = web(builder);
    let client = reloading(&site, &daemon);
    client.signal(Signal::SIGINT);
    let output = ends(client.wait(), 130);
    let told = "shepherd: interrupted; the reload goes on: `shepherd status` shows it\n";
    assert!(output.stderr.ends_with(told), "{output:#?}");
    let_it_serve(&site);
    wait_committed(&daemon);
    assert!(daemon.stop().success());
}

#[test]
fn a_second_reload_is_refused_with_11_or_runs_next() {
    let (site, builder) = site(1);
    let daemon = web(builder);
    let first = reloading(&site, &daemon);
    let refused = shepherd(&daemon, "reload", 11);
    assert!(refused.stderr.contains("its reload is in progress"), "{refused:#?}");
    assert!(refused.stderr.contains("--queue"), "{refused:#?}");
    let json = shepherd(&daemon, "reload --json", 11);
    assert!(json.stdout.starts_with(r#"{"outcome":"in-progress","exit_code":11,"#), "{json:#?}");

    let mark = daemon.mark();
    let queued = daemon.start_client(["reload", "--queue", "--name", "web"]);
    daemon.wait_line_since(mark, |line| line.contains("reload queued"), "the queue");
    let_it_serve(&site);
    assert!(ends(first.wait(), 0).stdout.contains("generation 2 serves"));
    assert!(ends(queued.wait(), 0).stdout.contains("generation 3 serves"));
    assert!(daemon.stop().success());
}

#[test]
fn a_daemon_that_is_killed_meanwhile_ends_the_client_with_1() {
    let (site, builder) = site(1);
    let daemon = web(builder);
    let client = reloading(&site, &daemon);
    daemon.signal(Signal::SIGKILL);
    let output = ends(client.wait(), 1);
    let told = "shepherd: the daemon is gone, it was killed or has stopped; \
                nobody knows how the reload ended\n";
    assert!(output.stderr.ends_with(told), "{output:#?}");
}

#[test]
fn a_configuration_with_a_mistake_ends_with_3_and_nothing_has_happened() {
    let (site, builder) = site(1);
    let daemon = web(builder);
    site.write_variables("NO VALUE\n");
    let output = shepherd(&daemon, "reload", 3);
    assert!(output.stderr.contains("cannot read environment file"), "{output:#?}");
    let status = shepherd(&daemon, "status", 0).stdout;
    assert!(status.contains("1 of 1 ready, generation 1"), "{status}");
    assert!(daemon.stop().success());
}

#[test]
fn of_several_services_each_is_told_how_it_ended_and_with_4_where_one_was_aborted() {
    let home = Home::new();
    let file = home.directory().join("shepherd.yaml");
    let script = home.directory().join("bad");
    fs::write(&script, "echo no database >&2\nexit 3\n").expect("a script");
    let write = |api: &str| {
        let odd = odd();
        let alive = format!("{} alive", odd.display());
        let api = if api.is_empty() { &alive } else { api };
        // The one that goes well takes its time: the other has long been aborted then.
        let text = format!(
            "services:\n  \
             web: {{command: {alive}, ready: 'alive:1500ms'}}\n  \
             api: {{command: {api}, ready: 'alive:1s'}}\n"
        );
        fs::write(&file, text).expect("a file");
    };
    write("");
    let options = ["-c".as_ref(), file.as_os_str(), "--logs".as_ref(), "prefix".as_ref()];
    let daemon = Daemon::run().home(&home).args(options).args(["--name", "web"]).start();
    for name in ["web", "api"] {
        daemon.wait_line(|line| line.contains(&format!("{name}: 1 worker ready")), "ready");
    }
    write(&format!("sh {}", script.display()));
    let output = shepherd(&daemon, "reload", 4);
    assert_eq!(output.stdout, "", "{output:#?}");
    let told = output.stderr.find("shepherd: reload aborted in 1 of 2 services:\n");
    let told: Vec<&str> = output.stderr[told.expect("the outcome")..].lines().collect();
    assert_eq!(told.len(), 4, "{output:#?}");
    assert_eq!(told[1], "  web: committed; generation 2 serves", "{output:#?}");
    assert!(told[2].starts_with("  api: aborted: worker "), "{output:#?}");
    let why = "(api.0) exited with code 3 before it was ready; generation 1 serves on";
    assert!(told[2].ends_with(why), "{output:#?}");
    assert_eq!(told[3], "      no database", "{output:#?}");

    let json = shepherd(&daemon, "reload --json", 4);
    let outcome: serde_json::Value = serde_json::from_str(&json.stdout).expect("an object");
    assert_eq!((&outcome["outcome"], &outcome["exit_code"]), (&"aborted".into(), &4.into()));
    let [web, api] = outcome["services"].as_array().map_or(&[][..], Vec::as_slice) else {
        panic!("two services: {outcome}");
    };
    let is = |service: &serde_json::Value, what: &str, generation: u64| {
        service["outcome"] == what && service["generation"] == generation
    };
    assert!(web["name"] == "web" && is(web, "committed", 3), "{outcome}");
    assert!(api["name"] == "api" && is(api, "aborted", 1), "{outcome}");
    assert_eq!(api["output"][0], "no database", "{outcome}");
    assert!(api["detail"].as_str().is_some_and(|it| it.contains("code 3")), "{outcome}");
    assert!(daemon.stop().success());
}

#[test]
fn a_port_that_somebody_has_ends_a_reload_and_a_start_with_9_and_nothing_has_happened() {
    let home = Home::new();
    let file = home.directory().join("shepherd.yaml");
    let (kept, taken) = (free_port(), free_port());
    let write = |more: &str| {
        let http = http_rust().remove(0);
        let (http, kept) = (http.display(), kept.v4());
        let text = format!("services:\n  web: {{command: {http}, listen: ['{kept}'{more}]}}\n");
        fs::write(&file, text).expect("a file");
    };
    write("");
    let daemon = web(Daemon::run().home(&home).args(["-c".as_ref(), file.as_os_str()]));
    let other = TcpListener::bind(taken.v4()).expect("a listener");
    write(&format!(", '{}'", taken.v4()));
    let told = format!("shepherd: cannot bind `{}`: the address is in use by ", taken.v4());
    let output = shepherd(&daemon, "reload", 9);
    assert!(output.stderr.contains(&told), "{output:#?}");
    let json = shepherd(&daemon, "reload --json", 9);
    assert!(json.stdout.starts_with(r#"{"outcome":"bind","exit_code":9,"#), "{json:#?}");
    let status = shepherd(&daemon, "status", 0).stdout;
    assert!(status.contains("1 of 1 ready, generation 1"), "{status}");
    drop(other);
    shepherd(&daemon, "reload", 0);

    shepherd(&daemon, "stop web", 0);
    let other = TcpListener::bind(taken.v4()).expect("it is free");
    let told = format!("shepherd: cannot start `web`: cannot bind `{}`: ", taken.v4());
    let output = shepherd(&daemon, "start web", 9);
    assert!(output.stderr.starts_with(&told), "{output:#?}");
    drop(other);
    shepherd(&daemon, "start web", 0);
    assert!(daemon.stop().success());
}

#[test]
fn a_service_that_is_new_in_the_file_is_started_by_a_reload_without_a_name() {
    let home = Home::new();
    let file = home.directory().join("shepherd.yaml");
    let write = |services: &[&str]| {
        let odd = odd();
        let line = |name: &&str| {
            format!("  {name}: {{command: {} alive, ready: 'alive:1ms'}}\n", odd.display())
        };
        let lines: String = services.iter().map(line).collect();
        fs::write(&file, format!("services:\n{lines}")).expect("a file");
    };
    write(&["web"]);
    let daemon = web(Daemon::run().home(&home).args(["-c".as_ref(), file.as_os_str()]));
    write(&["web", "api"]);
    let output = shepherd(&daemon, "reload api", 1);
    let told = format!(
        "shepherd: there is no service `api`; there is `web`; if it is new in `{}`, `shepherd \
         reload` without a name starts it\n",
        file.display()
    );
    assert_eq!(output.stderr, told);
    shepherd(&daemon, "reload", 0);
    shepherd(&daemon, "reload api", 0);
    assert!(daemon.stop().success());
}
