//! Workers killed again and again under load: what is lost is what the dead had in hand.

use std::{collections::BTreeSet, time::Duration};

use nix::sys::signal::Signal;

use crate::{
    harness::{Class, Exchange, Kind, Process, http_rust},
    site::{Site, Ticks, setting, stop_well, wait_serving},
};

const WORKERS: usize = 4;
const TICK: Duration = Duration::from_millis(200);

#[test]
fn a_storm_of_kills_costs_no_more_than_what_the_dead_had_in_hand() {
    let site = Site::new();
    let daemon = site.run(WORKERS).command(http_rust()).start();
    wait_serving(&daemon, WORKERS);
    let load = site.load_of([(Kind::New, 4), (Kind::kept_alive(), 4)]);
    load.wait("answers from all workers", |report| report.pids.len() == WORKERS);

    let seconds = usize::try_from(setting("KILL_STORM_SECONDS", 3)).expect("few seconds");
    let mut ticks = Ticks::every(TICK);
    let mut killed = BTreeSet::new();
    for turn in 0..seconds * 5 {
        let slot = turn % WORKERS;
        let mark = daemon.mark();
        let pid = daemon.wait_workers(WORKERS)[slot];
        let victim = Process::open(pid).expect("a worker");
        victim.signal(Signal::SIGKILL).expect("a worker");
        assert!(killed.insert(pid), "pid {pid} was killed before");
        let ready = format!("(http.{slot}) is ready after ");
        daemon.wait_line_since(mark, |line| line.contains(&ready), &ready);
        ticks.next();
    }
    load.wait_ok(100);
    let report = load.stop();

    // What a worker had accepted dies with it; what waits in the queue is nobody's yet.
    let lost_with_a_worker = [
        Class::EofBeforeResponse(Exchange::First),
        Class::EofBeforeResponse(Exchange::Reused),
        Class::ResetBeforeResponse(Exchange::First),
        Class::ResetBeforeResponse(Exchange::Reused),
        Class::ResetWhileIdle,
        Class::Partial,
    ];
    report.assert_clean_except(&lost_with_a_worker);
    for failure in &report.failures_kept {
        if let Some(pid) = failure.pid {
            assert!(killed.contains(&pid), "{failure:?} by a worker that lives\n{report}");
        }
    }
    // Each client had at most one request at the worker that was killed.
    let most = killed.len() as u64 * 8;
    assert!(report.failures_total() <= most, "{report}");

    let restarts = daemon.count_lines(|line| line.contains("was ended by SIGKILL; restarting now"));
    assert_eq!(restarts, killed.len());
    assert_eq!(daemon.wait_workers(WORKERS).len(), WORKERS);
    assert_eq!(site.version(), "v1");
    stop_well(&daemon);
}
