//! Versions that are wrong, and how they are kept from those who connect: the old version serves on, or
//! again, and the outcome says the truth. A part of new connections for a canary, a probation, and
//! the way back on request.

use std::{ffi::OsString, fs, path::PathBuf};

use nix::sys::signal::Signal;

use crate::{
    cli::{ends, shepherd},
    harness::{Builder, Client, Daemon, Kind, Load, Process, http_rust, odd},
    site::{RUN, Site, copy_program, stop_well, wait_only_generation, wait_serving, write_program},
};

const WORKERS: usize = 4;

/// Longer than any test takes: one that goes on while it should have ended is seen by that.
const LONG: &str = "10m";

// ---- versions that are bad from the start ----------------------------------------------------

#[test]
fn a_version_that_exits_at_once_is_seen_by_nobody() {
    is_seen_by_nobody(&[], &odd_mode(&["exit", "3"]), "exited with code 3 before it was ready");
}

#[test]
fn a_version_that_never_gets_ready_is_seen_by_nobody() {
    let silent = ["sleep".into(), "1000".into()];
    is_seen_by_nobody(&["--ready-timeout", "2s"], &silent, "was not ready within 2 s");
}

#[test]
fn a_version_of_which_only_the_last_worker_is_bad_is_seen_by_nobody() {
    let last = odd_mode(&["exit-if-slot", "3", "5"]);
    is_seen_by_nobody(&[], &last, "(web.3) exited with code 5 before it was ready");
}

/// The command ends with 4, the old version serves on, and no connection is lost.
#[track_caller]
fn is_seen_by_nobody(options: &[&str], bad: &[OsString], reason: &str) {
    let site = Site::running(&http_rust());
    // That it would get a part, or a probation, changes nothing.
    let proving = ["--canary", "50%", "--probation", LONG];
    let daemon = run(&site, WORKERS).args(proving).args(options).command(RUN).start();
    wait_serving(&daemon, WORKERS);
    let load = new_connections(&site);
    load.wait_version("v1");
    site.release_running("bad", bad);
    let aborted = shepherd(&daemon, "reload", 4);
    let told = &aborted.stderr;
    assert!(told.contains("aborted: ") && told.contains(reason), "{aborted:#?}");
    wait_only_generation(&daemon, 1, WORKERS);
    load.wait_ok(20);
    let report = load.stop();
    report.assert_clean();
    assert_eq!(report.generations.len(), 1, "{report}");
    stop_well(&daemon);
}

// ---- versions that are bad later -------------------------------------------------------------

#[test]
fn a_version_whose_worker_dies_on_probation_is_taken_back() {
    let site = Site::running(&http_rust());
    let daemon = run(&site, WORKERS).args(["--probation", LONG]).command(RUN).start();
    wait_serving(&daemon, WORKERS);
    let reload = on_probation(&site, &daemon, "v2");
    wait_only_generation(&daemon, 2, WORKERS);
    assert_eq!(site.version(), "v2");
    kill_one(&daemon, 2);
    let aborted = ends(reload.wait(), 4);
    for told in [
        "generation 2 serves, on probation for 10 min: ",
        "generation 2 has failed on probation: rolling back",
        "reload begins: generation 3 is generation 1 again",
        "shepherd: reload aborted: worker ",
        "by SIGKILL, on probation; the old generation serves on\n",
    ] {
        assert!(aborted.stderr.contains(told), "not `{told}`: {aborted:#?}");
    }
    wait_only_generation(&daemon, 3, WORKERS);
    assert_eq!(site.version(), "v1");
    stop_well(&daemon);
}

#[test]
fn where_the_old_version_is_gone_too_the_command_ends_with_5() {
    let site = Site::new();
    let old = site.path("old-server");
    copy_program(&PathBuf::from(http_rust().remove(0)), &old);
    site.release_running("v1", &[&old]);
    let daemon = run(&site, 1).args(["--probation", LONG]).command(RUN).start();
    wait_serving(&daemon, 1);
    let reload = on_probation(&site, &daemon, "v2");
    wait_only_generation(&daemon, 2, 1);
    fs::remove_file(&old).expect("a program");
    kill_one(&daemon, 2);
    let aborted = ends(reload.wait(), 5);
    let head = "reload aborted, and not all could be put back: worker ";
    let tail = "; `shepherd status` says what serves\n";
    assert!(aborted.stderr.contains(head) && aborted.stderr.contains(tail), "{aborted:#?}");
    assert!(aborted.stderr.contains("what served before does not again: worker "), "{aborted:#?}");
    // What has failed is better than nothing.
    wait_only_generation(&daemon, 2, 1);
    assert_eq!(site.version(), "v2");
    stop_well(&daemon);
}

#[test]
fn a_probation_that_is_stood_ends_with_0() {
    let site = Site::running(&http_rust());
    let daemon = run(&site, 1).args(["--probation", "500ms"]).command(RUN).start();
    wait_serving(&daemon, 1);
    site.release_running("v2", &http_rust());
    let done = shepherd(&daemon, "reload", 0);
    assert!(done.stderr.contains("generation 2 has stood its probation"), "{done:#?}");
    assert!(done.stdout.contains("generation 2 serves"), "{done:#?}");
    stop_well(&daemon);
}

// ---- a canary --------------------------------------------------------------------------------

#[test]
fn a_canary_gets_its_part_of_new_connections_and_then_all() {
    let site = Site::running(&http_rust());
    let canary = ["--canary", "20%", "--canary-for", "4s"];
    let daemon = run(&site, WORKERS).args(canary).command(RUN).start();
    wait_serving(&daemon, WORKERS);
    let load = new_connections(&site);
    let reload = in_canary(&site, &daemon);
    let ended = || daemon.count_lines(|line| line.contains(": reload committed")) > 0;
    let mut versions = Vec::new();
    while !ended() {
        versions.push(site.version());
    }
    // The last one may have come after it.
    versions.pop();
    let (all, new) = (versions.len(), versions.iter().filter(|it| *it == "v2").count());
    assert!(all >= 100, "{all} connections in 4 s");
    assert!((all * 5 / 100..=all * 40 / 100).contains(&new), "{new} of {all} to 20 %");
    let done = ends(reload.wait(), 0);
    let told = "generation 2 gets 20% of new connections for 4 s, and then all of them";
    assert!(done.stderr.contains(told), "{done:#?}");
    assert!((0..50).all(|_| site.version() == "v2"));
    wait_only_generation(&daemon, 2, WORKERS);
    load.stop().assert_clean();
    stop_well(&daemon);
}

#[test]
fn a_canary_whose_worker_dies_loses_its_part() {
    let site = Site::running(&http_rust());
    let canary = ["--canary", "20%", "--canary-for", LONG];
    let daemon = run(&site, WORKERS).args(canary).command(RUN).start();
    wait_serving(&daemon, WORKERS);
    let reload = in_canary(&site, &daemon);
    kill_one(&daemon, 2);
    let aborted = ends(reload.wait(), 4);
    assert!(aborted.stderr.contains("by SIGKILL"), "{aborted:#?}");
    assert!((0..50).all(|_| site.version() == "v1"));
    wait_only_generation(&daemon, 1, WORKERS);
    stop_well(&daemon);
}

#[test]
fn a_canary_is_ended_by_a_rollback_with_nothing_lost() {
    let site = Site::running(&http_rust());
    let canary = ["--canary", "20%", "--canary-for", LONG];
    let daemon = run(&site, WORKERS).args(canary).command(RUN).start();
    wait_serving(&daemon, WORKERS);
    let load = new_connections(&site);
    let reload = in_canary(&site, &daemon);
    load.wait_version("v2");
    let back = shepherd(&daemon, "rollback", 0);
    assert!(back.stdout.contains(": rolled back after "), "{back:#?}");
    assert!(back.stdout.contains("generation 1 serves"), "{back:#?}");
    let aborted = ends(reload.wait(), 4);
    assert!(aborted.stderr.contains("it was rolled back on request"), "{aborted:#?}");
    wait_only_generation(&daemon, 1, WORKERS);
    load.wait_ok(20);
    load.stop().assert_clean();
    stop_well(&daemon);
}

// ---- the way back ----------------------------------------------------------------------------

#[test]
fn a_rollback_brings_the_old_version_back_with_nothing_lost() {
    let site = Site::running(&http_rust());
    let daemon = run(&site, WORKERS).command(RUN).start();
    wait_serving(&daemon, WORKERS);
    let nothing = shepherd(&daemon, "rollback", 1);
    assert!(nothing.stderr.contains("nothing is known that served before"), "{nothing:#?}");
    let load = new_connections(&site);
    load.wait_version("v1");
    site.release_running("v2", &http_rust());
    shepherd(&daemon, "reload", 0);
    wait_only_generation(&daemon, 2, WORKERS);
    for (generation, version) in [(3, "v1"), (4, "v2")] {
        let back = shepherd(&daemon, "rollback", 0);
        let serves = format!("generation {generation} serves");
        assert!(back.stdout.contains(": rolled back after "), "{back:#?}");
        assert!(back.stdout.contains(&serves), "{back:#?}");
        wait_only_generation(&daemon, generation, WORKERS);
        assert_eq!(site.version(), version);
        load.wait_ok(20);
    }
    let json = shepherd(&daemon, "rollback --json", 0);
    assert!(json.stdout.starts_with(r#"{"outcome":"committed","exit_code":0,"#), "{json:#?}");
    load.stop().assert_clean();
    stop_well(&daemon);
}

#[test]
fn a_rollback_runs_the_file_that_ran_before_whatever_is_at_its_path() {
    let site = Site::new();
    let server = site.path("server");
    let program = PathBuf::from(http_rust().remove(0));
    copy_program(&program, &server);
    let daemon = run(&site, 1).command([&server]).start();
    wait_serving(&daemon, 1);
    copy_program(&program, &server);
    site.release("v2");
    shepherd(&daemon, "reload", 0);
    copy_program(&PathBuf::from("/bin/false"), &server);
    let back = shepherd(&daemon, "rollback", 0);
    assert!(!back.stderr.contains("by now"), "{back:#?}");
    wait_only_generation(&daemon, 3, 1);
    assert_eq!(site.version(), "v1");
    // What is read again is what is there.
    let aborted = shepherd(&daemon, "reload", 4);
    assert!(aborted.stderr.contains("exited with code 1 before it was ready"), "{aborted:#?}");
    stop_well(&daemon);
}

#[test]
fn of_a_script_a_rollback_says_that_it_is_what_is_there_by_now() {
    let site = Site::new();
    let server = site.path("server");
    let script = |version: &str| {
        let program = http_rust().remove(0);
        let program = program.to_string_lossy();
        format!("#!/bin/sh\nVERSION={version} exec {program}\n").into_bytes()
    };
    write_program(&server, &script("v1"), 0o755);
    let daemon = run(&site, 1).command([&server]).start();
    wait_serving(&daemon, 1);
    write_program(&server, &script("v2"), 0o755);
    shepherd(&daemon, "reload", 0);
    let back = shepherd(&daemon, "rollback", 0);
    let told = format!(
        "generation 3 runs what is at `{}` by now: a script cannot be kept as it was",
        server.display()
    );
    assert!(back.stderr.contains(&told), "{back:#?}");
    wait_only_generation(&daemon, 3, 1);
    assert_eq!(site.version(), "v2");
    stop_well(&daemon);
}

// ---- helpers ---------------------------------------------------------------------------------

/// A daemon whose service is called `web`.
fn run(site: &Site, workers: usize) -> Builder {
    site.run(workers).args(["--name", "web"])
}

fn new_connections(site: &Site) -> Load {
    site.load_of([(Kind::New, 3)])
}

/// A client that waits for a reload to another version, which serves and is on probation.
#[track_caller]
fn on_probation(site: &Site, daemon: &Daemon, version: &str) -> Client {
    site.release_running(version, &http_rust());
    begun(daemon, " on probation for ")
}

/// The same of one that gets a part of new connections.
#[track_caller]
fn in_canary(site: &Site, daemon: &Daemon) -> Client {
    site.release_running("v2", &http_rust());
    begun(daemon, " of new connections for ")
}

#[track_caller]
fn begun(daemon: &Daemon, how: &str) -> Client {
    let mark = daemon.mark();
    let reload = daemon.start_client(["reload", "--name", "web"]);
    daemon.wait_line_since(mark, |line| line.contains(how), how);
    reload
}

/// A worker of this generation ends, as by a crash.
#[track_caller]
fn kill_one(daemon: &Daemon, generation: u32) {
    let generation = generation.to_string();
    let all = daemon.worker_processes();
    let worker = all.iter().find(|it| it.generation.as_deref() == Some(&generation));
    let process = Process::open(worker.expect("a worker").pid).expect("a worker");
    process.signal(Signal::SIGKILL).expect("a worker");
}

fn odd_mode(arguments: &[&str]) -> Vec<OsString> {
    let mut words = vec![odd().into_os_string()];
    words.extend(arguments.iter().map(OsString::from));
    words
}
