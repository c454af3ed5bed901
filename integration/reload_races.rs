//! What may come at the wrong moment of a reload: another one, a stop, a death, a change of number,
//! and requests that take longer than generations live.

use std::ffi::OsString;

use nix::sys::signal::Signal;

use crate::{
    harness::{Daemon, Process, http_rust, odd},
    site::{
        Conversation, RUN, Site, reload_well, stop_well, wait_only_generation, wait_reloaded,
        wait_serving,
    },
};

/// Makes every start take long enough for something to happen meanwhile.
const SLOW_START: [&str; 2] = ["--ready", "alive:700ms"];

#[test]
fn a_reload_that_is_asked_for_during_another_is_queued_once() {
    let site = Site::new();
    let daemon = site.run(1).args(SLOW_START).command(http_rust()).start();
    wait_serving(&daemon, 1);
    let load = site.load();
    load.wait_version("v1");
    site.release("v2");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_line(is_start_of(2), "the first worker of generation 2");
    site.release("v3");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_line(
        |line| line.ends_with(": reload queued behind the one that is under way"),
        "that the second one waits",
    );
    daemon.signal(Signal::SIGHUP);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_line(is_commit_of(2), "generation 2");
    daemon.wait_line(is_commit_of(3), "generation 3");
    load.wait_version("v3");
    // Had a third one been queued, it would be generation 4.
    wait_only_generation(&daemon, 3, 1);
    assert_eq!(daemon.count_lines(|line| line.contains("reload queued")), 1);
    site.release("v4");
    reload_well(&daemon);
    wait_only_generation(&daemon, 4, 1);
    assert_eq!(begun(&daemon), 3);
    load.wait_version("v4");
    load.stop().assert_clean();
    stop_well(&daemon);
}

#[test]
fn a_storm_of_reloads_settles_after_few_generations() {
    let site = Site::new();
    let daemon = site.run(2).command(http_rust()).start();
    wait_serving(&daemon, 2);
    let load = site.load();
    load.wait_ok(20);
    for _ in 0..50 {
        daemon.signal(Signal::SIGHUP);
    }
    let reloads = settled(&daemon);
    assert!((1..=10).contains(&reloads), "{reloads} reloads");
    wait_only_generation(&daemon, reloads + 1, 2);

    // The same as fast as requests are answered: each may be one reload at most.
    for number in 0..50 {
        site.release(&format!("storm-{number}"));
        daemon.signal(Signal::SIGHUP);
        load.wait_ok(1);
    }
    let reloads = settled(&daemon);
    assert!((2..=60).contains(&reloads), "{reloads} reloads");
    wait_only_generation(&daemon, reloads + 1, 2);
    load.wait_version("storm-49");
    let report = load.stop();
    report.assert_clean();
    assert_eq!(site.version(), "storm-49", "the last word counts\n{report}");
    stop_well(&daemon);
}

#[test]
fn a_stop_during_a_reload_ends_both_generations() {
    let site = Site::running(&http_rust());
    let daemon = site.run(2).command(RUN).start();
    wait_serving(&daemon, 2);
    site.release_running("v2", &["sleep", "1000"]);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_line(is_start_of(2), "the first worker of generation 2");
    let mut conversation = Conversation::open(&site.port);
    conversation.begin("/");
    daemon.signal(Signal::SIGTERM);
    daemon.wait_line(|line| line.contains("stopping 3 workers; "), "the stop");
    assert!(conversation.finish().starts_with("v1 "));
    assert_eq!(daemon.wait_exit().code(), Some(0));
    daemon.assert_nothing_left();
    assert_eq!(daemon.count_lines(|line| line.contains("committed")), 0);
}

#[test]
fn a_reload_before_the_first_workers_are_ready_waits_for_them() {
    let site = Site::new();
    let daemon = site.run(2).args(SLOW_START).command(http_rust()).start();
    daemon.wait_line(is_start_of(1), "the first worker");
    site.release("v2");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_line(
        |line| line.ends_with(": reload queued behind the first start"),
        "that it waits",
    );
    let mark = daemon.mark();
    daemon.wait_line(|line| line.ends_with(": 2 workers ready"), "the first start");
    let outcome = wait_reloaded(&daemon, mark);
    assert!(is_commit_of(2)(&outcome), "{outcome}");
    wait_only_generation(&daemon, 2, 2);
    assert_eq!(site.version(), "v2");
    stop_well(&daemon);
}

#[test]
fn a_reload_mends_a_first_version_that_exits() {
    let exits = [odd().into_os_string(), "exit".into(), "1".into()];
    mends_first_version(&exits, &[]);
}

#[test]
fn a_reload_mends_a_first_version_that_never_gets_ready() {
    let silent: [OsString; 2] = ["sleep".into(), "1000".into()];
    mends_first_version(&silent, &["--ready-timeout", "1s"]);
}

#[test]
fn an_old_worker_that_dies_during_a_reload_is_replaced_by_its_own_generation() {
    let site = Site::new();
    let daemon = site.run(2).args(SLOW_START).command(http_rust()).start();
    let old = wait_serving(&daemon, 2);
    site.release("v2");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_line(is_start_of(2), "the first worker of generation 2");
    let mark = daemon.mark();
    let victim = Process::open(old[1]).expect("a worker");
    victim.signal(Signal::SIGKILL).expect("a worker");
    daemon.wait_line_since(
        mark,
        |line| line.contains("(http.1) was ended by SIGKILL; restarting now"),
        "that it is replaced",
    );
    daemon.wait_line_since(
        mark,
        |line| line.contains("(http.1) started: ") && line.ends_with(", generation 1"),
        "a replacement of the old generation",
    );
    let outcome = wait_reloaded(&daemon, mark);
    assert!(is_commit_of(2)(&outcome), "{outcome}");
    wait_only_generation(&daemon, 2, 2);
    assert_eq!(site.version(), "v2");
    stop_well(&daemon);
}

#[test]
fn a_change_of_number_during_a_reload_holds_for_the_new_generation() {
    let site = Site::new();
    let daemon = site.run(2).args(SLOW_START).command(http_rust()).start();
    wait_serving(&daemon, 2);
    let load = site.load();
    load.wait_version("v1");

    site.release("v2");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_line(is_start_of(2), "the first worker of generation 2");
    daemon.signal(Signal::SIGTTIN);
    daemon.wait_line(|line| line.ends_with(": 3 workers wanted from here on"), "one more");
    daemon.wait_line(is_commit_of(2), "generation 2");
    wait_only_generation(&daemon, 2, 3);

    site.release("v3");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_line(is_start_of(3), "the first worker of generation 3");
    for wanted in ["2 workers", "1 worker"] {
        daemon.signal(Signal::SIGTTOU);
        let said = format!(": {wanted} wanted from here on");
        daemon.wait_line(|line| line.ends_with(&said), &said);
    }
    daemon.wait_line(is_commit_of(3), "generation 3");
    wait_only_generation(&daemon, 3, 1);
    load.wait_version("v3");
    load.stop().assert_clean();
    stop_well(&daemon);
}

#[test]
fn requests_that_take_long_are_answered_by_the_workers_that_have_them() {
    let site = Site::new();
    let daemon = site.run(2).command(http_rust()).start();
    let old = wait_serving(&daemon, 2);
    let mut slow: Vec<Conversation> = (0..6).map(|_| Conversation::open(&site.port)).collect();
    for conversation in &mut slow {
        assert!(old.contains(&conversation.pid));
        conversation.begin("/slow?ms=3000");
        conversation.end();
    }
    site.release("v2");
    reload_well(&daemon);
    // Old workers accept until they have seen the signal.
    daemon.eventually("an answer from the new version", || (site.version() == "v2").then_some(()));
    for conversation in &mut slow {
        let wanted = format!("v1 {} ", conversation.pid);
        let body = conversation.answer();
        assert!(body.starts_with(&wanted), "{body}, not {wanted}");
    }
    wait_only_generation(&daemon, 2, 2);
    stop_well(&daemon);
}

#[test]
fn five_generations_drain_at_once_and_never_hold_up_the_newest() {
    let site = Site::new();
    let daemon = site.run(1).command(http_rust()).start();
    wait_serving(&daemon, 1);
    let load = site.load();
    let mut held = Vec::new();
    for number in 2..=6 {
        // Old workers accept until they have seen the signal.
        let newest = format!("v{}", number - 1);
        let mut conversation = daemon.eventually("an answer from the newest", || {
            let conversation = Conversation::open(&site.port);
            (conversation.version == newest).then_some(conversation)
        });
        conversation.begin("/");
        held.push(conversation);
        site.release(&format!("v{number}"));
        reload_well(&daemon);
    }
    assert_eq!(daemon.worker_processes().len(), 6);
    load.wait_version("v6");
    // The oldest waits longest for the end of its request, so it comes first.
    for (number, conversation) in (1..).zip(&mut held) {
        let body = conversation.finish();
        let wanted = format!("v{number} {} 0 {number}", conversation.pid);
        assert_eq!(body, wanted);
    }
    wait_only_generation(&daemon, 6, 1);
    load.stop().assert_clean();
    stop_well(&daemon);
}

#[track_caller]
fn mends_first_version(bad: &[OsString], options: &[&str]) {
    let site = Site::running(bad);
    let daemon = site.run(2).args(options).command(RUN).start();
    daemon.wait_line(|line| line.contains("(attempt 2)"), "the second attempt");
    site.release_running("v2", &http_rust());
    reload_well(&daemon);
    wait_only_generation(&daemon, 2, 2);
    assert_eq!(site.version(), "v2");
    // It is committed, so the next one is a reload like any other.
    site.release_running("v3", &http_rust());
    reload_well(&daemon);
    wait_only_generation(&daemon, 3, 2);
    assert_eq!(site.version(), "v3");
    stop_well(&daemon);
}

/// Waits until no reload is under way or queued; gives how many there were.
#[track_caller]
fn settled(daemon: &Daemon) -> u32 {
    daemon.eventually("the last reload", || {
        // The signals are taken in within a turn of the daemon's loop; when the workers that serve
        // are those of the last reload that began and nothing drains, it has come to rest.
        let begun = begun(daemon);
        let ended = daemon.count_lines(|line| line.contains(": reload committed"));
        let newest = (begun + 1).to_string();
        let rests = daemon
            .worker_processes()
            .iter()
            .all(|worker| worker.generation.as_deref() == Some(&newest));
        (begun as usize == ended && begun > 0 && rests).then_some(begun)
    })
}

fn begun(daemon: &Daemon) -> u32 {
    let count = daemon.count_lines(|line| line.contains(": reload begins: "));
    u32::try_from(count).expect("few reloads")
}

fn is_start_of(generation: u32) -> impl Fn(&str) -> bool {
    let end = format!(", generation {generation}");
    move |line| line.contains(") started: pid ") && line.ends_with(&end)
}

fn is_commit_of(generation: u32) -> impl Fn(&str) -> bool {
    let what = format!(": generation {generation} serves, ");
    move |line| line.contains(": reload committed after ") && line.contains(&what)
}
