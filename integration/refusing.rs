//! A service whose workers never get ready: its clients wait, or are refused between the attempts where
//! that is wanted, and find it again once it serves.

use std::{io::ErrorKind, net::TcpStream, time::Duration};

use crate::{
    harness::{Builder, Daemon, get, manners},
    site::{RUN, Site, Ticks, reload_well, stop_well},
};

/// So many that ten of them have failed in a moment: each comes again later than before.
const WORKERS: usize = 8;

/// A daemon `web` whose workers exit at once, until it was told that this fails.
fn failing(site: &Site, more: impl FnOnce(Builder) -> Builder) -> Daemon {
    let run = more(site.run(WORKERS).args(["--name", "web"]));
    let daemon = run.command(RUN).start();
    daemon.wait_line(|line| line.contains("web is failing: "), "it fails");
    daemon
}

/// Whether a client is refused at some moment of the next minute. One that connects waits for nobody.
fn is_refused(site: &Site) -> bool {
    let mut ticks = Ticks::every(Duration::from_millis(20));
    (0..3000).any(|_| {
        ticks.next();
        match TcpStream::connect(site.port.v4()) {
            Ok(_) => false,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
                true
            }
        }
    })
}

fn mends_itself(balance: &str) {
    let site = Site::running(&["false"]);
    let daemon = failing(&site, |run| run.args(["--on-failing", "refuse", "--balance", balance]));
    assert!(is_refused(&site), "nobody is refused");
    daemon.eventually("a socket that does not listen", || {
        let shown = daemon.client(["status", "--sockets", "--name", "web"]).stdout;
        shown.contains(" down ").then_some(())
    });
    // It is not taken for a worker's deed, and the port stays ours.
    assert_eq!(daemon.count_lines(|line| line.contains("shut down")), 0);
    let taken = std::net::TcpListener::bind(site.port.v4());
    assert_eq!(taken.expect_err("it is ours").kind(), ErrorKind::AddrInUse);
    // A version that works is found.
    site.release_running("v2", &manners(&["graceful"]));
    reload_well(&daemon);
    assert_eq!(get(&site.port, "/").expect("an answer").version, "v2");
    stop_well(&daemon);
}

#[test]
fn clients_are_refused_between_attempts_and_served_after_a_reload() {
    mends_itself("generation");
}

#[test]
fn clients_of_slots_are_refused_and_served_after_a_reload() {
    mends_itself("slots");
}

#[test]
fn clients_that_were_refused_are_served_by_the_next_attempt_that_goes_well() {
    let site = Site::new();
    // It exits until there is this file.
    let program = manners(&["graceful"]);
    let mended = site.path("mended");
    let words: Vec<_> = program.iter().map(|word| word.to_string_lossy()).collect();
    let script = format!("test -e {} || exit 3; exec {}", mended.display(), words.join(" "));
    let run = site.run(WORKERS).args(["--name", "web", "--on-failing", "refuse"]);
    let daemon = run.command(["sh", "-c", &script]).start();
    daemon.wait_line(|line| line.contains("; clients are refused between the attempts"), "told");
    assert!(is_refused(&site), "nobody is refused");
    std::fs::write(&mended, "").expect("a file");
    daemon.wait_line(|line| line.contains("web is no longer failing"), "it serves");
    get(&site.port, "/").expect("an answer");
    stop_well(&daemon);
}

#[test]
fn clients_wait_where_nobody_wants_them_refused() {
    let site = Site::running(&["false"]);
    let daemon = failing(&site, |run| run);
    for _ in 0..20 {
        TcpStream::connect(site.port.v4()).expect("it waits");
    }
    daemon.wait_line(|line| line.ends_with("; clients wait meanwhile"), "it is told");
    stop_well(&daemon);
}
