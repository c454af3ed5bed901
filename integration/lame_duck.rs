//! The manners that the example workers show, alone: nobody waits for their connections before the
//! stop signal, and clients that keep their connections lose nothing all the same.

use std::{ffi::OsString, time::Duration};

use crate::{
    harness::{Kind, http_c, http_go, http_node, http_python, http_rust},
    site::{Site, reload_well, stop_well, wait_only_generation, wait_serving},
};

/// Well under the second for which the examples wait for one more request.
const LONG_THINK: Duration = Duration::from_millis(300);

#[test]
fn in_rust_it_loses_no_kept_connection() {
    loses_nothing(&http_rust());
}

#[test]
fn in_node_it_loses_no_kept_connection() {
    loses_nothing(&http_node());
}

#[test]
fn in_python_it_loses_no_kept_connection() {
    loses_nothing(&http_python());
}

#[test]
fn in_c_it_loses_no_kept_connection() {
    loses_nothing(&http_c());
}

#[test]
fn in_go_it_loses_no_kept_connection() {
    if let Some(go) = http_go() {
        loses_nothing(&go);
    }
}

#[track_caller]
fn loses_nothing(program: &[OsString]) {
    const WORKERS: usize = 2;
    let site = Site::new();
    let daemon =
        site.run_by_default(WORKERS).args(["--before-stop", "0s"]).command(program).start();
    wait_serving(&daemon, WORKERS);
    let busy = Kind::kept_alive();
    let thoughtful = Kind::KeptAlive { think: Duration::ZERO..LONG_THINK };
    // New ones are for shepherd to keep, which needs its time: a program may die with what it has just
    // accepted.
    let load = site.load_of([(busy, 3), (thoughtful, 3)]);
    load.wait_ok(20);
    for generation in 2..5 {
        reload_well(&daemon);
        wait_only_generation(&daemon, generation, WORKERS);
        load.wait_ok(20);
    }
    load.stop().assert_clean();
    stop_well(&daemon);
}
