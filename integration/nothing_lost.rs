//! Whatever a worker does with its stop signal, no connection is lost at a reload, a scale or a crash:
//! shepherd steers new connections away first and waits for those that are open. Each way of
//! balancing with each kind of manners, short; the long table is `integration/matrix`.

use std::{ffi::OsString, time::Duration};

use nix::sys::signal::Signal;

use crate::{
    harness::{
        Address, Builder, Class, Daemon, Echoes, Exchange, Home, Kind, Limits, Load, Port, Process,
        Report, free_port, manners,
    },
    mistakes::as_nobody,
    site::{Site, copy_program, reload_well, stop_well, wait_only_generation, wait_serving},
};

const WORKERS: usize = 2;
const RELOADS: u32 = 3;
/// A handler that is at work at any moment, so that who ends it there cuts requests.
const HANDLER: &str = "50ms";
/// Connections that all `New` clients of a test begin in a second: tests run side by side.
const NEW_PER_SECOND: u32 = 80;
/// Answers between two changes.
const ANSWERS: u64 = 10;

// ---- a reload: each balance, each kind of manners --------------------------------------------

#[test]
fn generation_loses_nothing_of_a_graceful_worker() {
    rolls("generation", "graceful").assert_clean();
}

#[test]
fn generation_loses_nothing_of_a_worker_that_dies_at_once() {
    rolls("generation", "dies").assert_clean();
}

#[test]
fn generation_loses_nothing_of_a_worker_that_shuts_its_sockets_down() {
    rolls("generation", "shuts-down").assert_clean();
}

#[test]
fn slots_lose_nothing_of_a_graceful_worker() {
    rolls("slots", "graceful").assert_clean();
}

#[test]
fn slots_lose_nothing_of_a_worker_that_dies_at_once() {
    rolls("slots", "dies").assert_clean();
}

#[test]
fn slots_lose_nothing_of_a_worker_that_shuts_its_sockets_down() {
    rolls("slots", "shuts-down").assert_clean();
}

#[test]
fn a_shared_socket_loses_nothing_of_a_graceful_worker() {
    rolls("shared", "graceful").assert_clean();
}

#[test]
fn a_shared_socket_loses_what_a_worker_that_dies_at_once_had_in_hand_and_no_more() {
    assert_lost_in_hand_only(&rolls("shared", "dies"));
}

/// What waits in the socket's queue goes with it, and connections are refused until it listens again.
/// The workers themselves finish what they have.
#[test]
fn a_shared_socket_that_a_worker_shuts_down_serves_again() {
    let lost_with_the_queue = [
        Class::Refused,
        Class::ConnectReset,
        Class::EofBeforeResponse(Exchange::First),
        Class::ResetBeforeResponse(Exchange::First),
    ];
    rolls("shared", "shuts-down").assert_clean_except(&lost_with_the_queue);
}

// ---- where connections come from -------------------------------------------------------------

#[test]
fn nothing_is_lost_on_an_ipv4_address() {
    let port = free_port();
    let run = dying("generation").listen(port.v4());
    rolls_of(run, &[port.v4().into()], WORKERS).assert_clean();
}

#[test]
fn nothing_is_lost_on_an_ipv6_address() {
    let port = free_port();
    let run = dying("generation").listen(port.v6());
    rolls_of(run, &[port.v6().into()], WORKERS).assert_clean();
}

#[test]
fn nothing_is_lost_on_a_socket_of_both_families() {
    let port = free_port();
    let run = dying("slots").listen(&port);
    rolls_of(run, &both(&port), WORKERS).assert_clean();
}

#[test]
fn nothing_is_lost_on_a_socket_for_each_family() {
    let port = free_port();
    let run = dying("generation").listen(format!("localhost:{port}"));
    rolls_of(run, &both(&port), WORKERS).assert_clean();
}

#[test]
fn nothing_is_lost_on_a_path_by_graceful_workers() {
    let home = Home::new();
    let path = home.directory().join("web.sock");
    let run = with_manners("shared", "graceful").home(&home).listen(Address::Unix(path.clone()));
    rolls_of(run, &[path.as_path().into()], WORKERS).assert_clean();
}

#[test]
fn no_datagram_is_lost_where_generations_have_sockets() {
    echoes_over_reloads("generation");
}

#[test]
fn no_datagram_is_lost_where_slots_have_sockets() {
    echoes_over_reloads("slots");
}

#[test]
fn nothing_is_lost_where_an_ordinary_user_runs_it() {
    if !nix::unistd::geteuid().is_root() {
        // Then all the other tests have shown it.
        return;
    }
    let port = free_port();
    let run = as_nobody();
    // Not where the tests find it, as the user may not see that.
    let program = run.home_directory().join("manners");
    copy_program(manners(&[])[0].as_ref(), &program);
    let command = ["dies", "--handler", HANDLER].map(OsString::from);
    let run = run.workers(WORKERS).listen(&port).args(["--balance", "generation"]);
    let run = run.command([OsString::from(program)].iter().chain(&command));
    rolls_of(run, &[(&port).into()], WORKERS).assert_clean();
}

// ---- other changes ---------------------------------------------------------------------------

/// Each serves one at a time, so connections are queued wherever a slot goes away.
#[test]
fn fewer_slots_and_more_again_lose_nothing_of_workers_that_die_at_once() {
    let site = Site::new();
    let words = ["dies", "--serial", "--handler", "20ms"];
    let daemon =
        site.run_by_default(4).args(["--balance", "slots"]).command(manners(&words)).start();
    wait_serving(&daemon, 4);
    let load = site.load_of([(Kind::New, 12)]);
    load.wait("answers from all slots", |report| report.slots.len() == 4);
    for wanted in [2, 4, 2] {
        let scaled = daemon.client(["scale", &wanted.to_string()]);
        assert!(scaled.status.success(), "{scaled:?}");
        daemon.eventually("as many workers as are wanted", || {
            (daemon.worker_processes().len() == wanted).then_some(())
        });
        load.wait_ok(ANSWERS * 3);
    }
    load.stop().assert_clean();
    stop_well(&daemon);
}

/// With a single worker there is nobody else: connections wait for the next, and are not refused.
#[test]
fn connections_wait_for_the_only_worker_to_be_started_again() {
    let site = Site::new();
    let words = ["graceful", "--handler", "10ms", "--start", "100ms"];
    let daemon =
        site.run_by_default(1).args(["--balance", "generation"]).command(manners(&words)).start();
    wait_serving(&daemon, 1);
    let load = load(&(&site.port).into());
    let mut killed = Vec::new();
    for _ in 0..8 {
        load.wait_ok(5);
        let pid = daemon.wait_workers(1)[0];
        let victim = Process::open(pid).expect("a worker");
        let mark = daemon.mark();
        victim.signal(Signal::SIGKILL).expect("a worker");
        killed.push(pid);
        daemon.wait_line_since(mark, |line| line.contains(" is ready after "), "its successor");
    }
    load.wait_ok(ANSWERS);
    let report = load.stop();
    assert_lost_in_hand_only(&report);
    // All clients can have a request at the worker that is killed.
    assert!(report.failures_total() <= 8 * 4, "{report}");
    assert!(killed.iter().filter(|pid| report.pids.contains_key(pid)).count() > 4, "{report}");
    stop_well(&daemon);
}

// ---- helpers ---------------------------------------------------------------------------------

/// A daemon whose workers have these manners.
fn with_manners(balance: &str, named: &str) -> Builder {
    Daemon::run().workers(WORKERS).args(["--balance", balance]).command(manners(&[
        named,
        "--handler",
        HANDLER,
    ]))
}

fn dying(balance: &str) -> Builder {
    with_manners(balance, "dies")
}

fn at_site(site: &Site, workers: usize, balance: &str, named: &str) -> Builder {
    site.run_by_default(workers).args(["--balance", balance]).command(manners(&[
        named,
        "--handler",
        HANDLER,
    ]))
}

fn both(port: &Port) -> [Address; 2] {
    [port.v4().into(), port.v6().into()]
}

/// Reloads under load, and gives what the clients saw.
#[track_caller]
fn rolls(balance: &str, named: &str) -> Report {
    let site = Site::new();
    let run = at_site(&site, WORKERS, balance, named);
    rolls_of(run, &[(&site.port).into()], WORKERS)
}

/// The same of another daemon; the report is that of the first address with failures.
#[track_caller]
fn rolls_of(run: Builder, addresses: &[Address], workers: usize) -> Report {
    let daemon = run.start();
    wait_serving(&daemon, workers);
    let loads: Vec<Load> = addresses.iter().map(load).collect();
    for generation in 2..=RELOADS + 1 {
        for load in &loads {
            load.wait_ok(ANSWERS);
        }
        reload_well(&daemon);
        wait_only_generation(&daemon, generation, workers);
    }
    for load in &loads {
        load.wait_ok(ANSWERS);
    }
    let mut reports: Vec<Report> = loads.into_iter().map(Load::stop).collect();
    for report in &reports {
        assert_eq!(report.generations.len(), RELOADS as usize + 1, "{report}");
    }
    stop_well(&daemon);
    reports.sort_by_key(|report| std::cmp::Reverse(report.failures_total()));
    reports.remove(0)
}

/// Those that connect and ask, and those that take their time.
fn load(address: &Address) -> Load {
    let limits = Limits { new_per_second: NEW_PER_SECOND, ..Limits::default() };
    let hesitant = Kind::Hesitant { pause: Duration::from_millis(30) };
    Load::start_with(limits, address, [(Kind::New, 3), (hesitant, 1)])
}

#[track_caller]
fn echoes_over_reloads(balance: &str) {
    let port = free_port();
    let daemon = with_manners(balance, "graceful").listen(format!("udp:{}", port.v4())).start();
    wait_serving(&daemon, WORKERS);
    let echoes = Echoes::start(port.v4(), Duration::from_millis(10));
    echoes.wait_echoed(ANSWERS);
    for generation in 2..=RELOADS + 1 {
        reload_well(&daemon);
        wait_only_generation(&daemon, generation, WORKERS);
        echoes.wait_echoed(ANSWERS);
    }
    let report = echoes.stop();
    report.assert_clean();
    assert_eq!(report.generations.len(), RELOADS as usize + 1, "{report}");
    stop_well(&daemon);
}

/// What a worker had accepted dies with it; what waits in the queue waits for another, and nothing is
/// refused.
#[track_caller]
fn assert_lost_in_hand_only(report: &Report) {
    report.assert_clean_except(&[
        Class::EofBeforeResponse(Exchange::First),
        Class::ResetBeforeResponse(Exchange::First),
        Class::Partial,
    ]);
}
