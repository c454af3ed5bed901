//! What `status` shows of the kernel's sockets behind a socket, of a new generation that proves itself,
//! and of what a worker that drains is waited for.

#![expect(clippy::panic, reason = "a test fails by it")]

use shepherd::control::{
    client::Client,
    wire::{self, MemberState},
};

use crate::{
    control::{client, status},
    harness::{Builder, Daemon, manners},
    site::{Conversation, Site, reload_well, stop_well, wait_serving},
};

const WORKERS: usize = 2;

/// A daemon `web` of two graceful workers.
fn start(site: &Site, more: impl FnOnce(Builder) -> Builder) -> (Daemon, Client) {
    let run = site.run_by_default(WORKERS).args(["--name", "web"]);
    let daemon = more(run).command(manners(&["graceful"])).start();
    wait_serving(&daemon, WORKERS);
    let client = client(&daemon, "web");
    (daemon, client)
}

/// The generation, slot, state and weight of a member.
type Shown = (Option<u64>, Option<u32>, MemberState, Option<u32>);

/// All members of the only socket.
fn members(status: &wire::Status) -> Vec<Shown> {
    let [socket] = &status.services[0].sockets[..] else { panic!("{status:?}") };
    let shown = |it: &wire::Member| {
        assert!(it.queued.is_some() && it.queue_max.is_some(), "{it:?}");
        (it.generation, it.slot, it.state.clone().expect("a state"), it.weight)
    };
    socket.members.iter().map(shown).collect()
}

#[test]
fn each_worker_has_a_member_with_slots() {
    let site = Site::new();
    let (daemon, client) = start(&site, |run| run.args(["--balance", "slots"]));
    let serving = |slot| (Some(1), Some(slot), MemberState::Serving, Some(1));
    assert_eq!(members(&status(&client)), [serving(0), serving(1)]);
    let shown = daemon.client(["status", "--sockets", "--name", "web"]).stdout;
    let row = shown.lines().find(|line| line.contains("serving")).expect("a row");
    assert!(row.contains(" 50% "), "{shown}");
    stop_well(&daemon);
}

#[test]
fn an_old_generation_drains_with_what_it_has_left_and_how_long() {
    let site = Site::new();
    let (daemon, client) = start(&site, |run| run.args(["--before-stop", "1m"]));
    let held = Conversation::open(&site.port);
    reload_well(&daemon);
    let one = |generation, state, weight| (Some(generation), None, state, Some(weight));
    let both = [one(1, MemberState::Draining, 0), one(2, MemberState::Serving, 1)];
    let status_now = daemon.eventually("the one that is waited for", || {
        let status = status(&client);
        let mut workers = status.services[0].workers.iter();
        let waited = workers.any(|it| it.left.is_some_and(|left| left.connections == Some(1)));
        waited.then_some(status)
    });
    assert_eq!(members(&status_now), both);
    let draining = |it: &&wire::Worker| it.state == wire::WorkerState::Draining;
    let worker = status_now.services[0].workers.iter().find(draining).expect("one drains");
    assert!(worker.next_in.is_some_and(|left| left > 1.0 && left <= 60.0), "{worker:?}");
    let shown = daemon.client(["status", "--name", "web"]).stdout;
    assert!(shown.contains("1 connection open, ") && shown.contains("s left"), "{shown}");
    drop(held);
    daemon.eventually("the new one alone", || (members(&status(&client)).len() == 1).then_some(()));
    stop_well(&daemon);
}

#[test]
fn a_canary_is_shown_with_its_part_and_a_probation_with_its_time() {
    let site = Site::new();
    let canary = ["--canary", "20%", "--canary-for", "1m", "--probation", "1m"];
    let (daemon, client) = start(&site, |run| run.args(canary));
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    let shown = daemon.eventually("a canary", || {
        let status = status(&client);
        status.services[0].canary.is_some().then_some(status)
    });
    let told = shown.services[0].canary.expect("a canary");
    assert!(told.percent == 20 && told.left > 1.0 && told.left <= 60.0, "{told:?}");
    let one = |generation, weight| (Some(generation), None, MemberState::Serving, Some(weight));
    assert_eq!(members(&shown), [one(1, 80), one(2, 20)]);
    let text = daemon.client(["status", "--name", "web"]).stdout;
    assert!(text.contains(", canary 20% for "), "{text}");
    stop_well(&daemon);

    let site = Site::new();
    let (daemon, client) = start(&site, |run| run.args(["--probation", "1m"]));
    reload_well(&daemon);
    let left = status(&client).services[0].probation;
    assert!(left.is_some_and(|left| left > 1.0 && left <= 60.0), "{left:?}");
    let text = daemon.client(["status", "--name", "web"]).stdout;
    assert!(text.contains(", on probation for "), "{text}");
    stop_well(&daemon);
}
