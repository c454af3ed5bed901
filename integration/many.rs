//! Two hundred workers behind one port: they all come, change their version, and go.

use crate::{
    harness::http_rust,
    site::{Site, reload_well, stop_well, wait_only_generation, wait_serving},
};

#[test]
fn two_hundred_workers_change_their_version_and_no_request_fails() {
    let workers = 200;
    let site = Site::new();
    let daemon = site.run(workers).command(http_rust()).start();
    let old = wait_serving(&daemon, workers);
    let load = site.load();
    load.wait_ok(50);
    site.release("v2");
    reload_well(&daemon);
    wait_only_generation(&daemon, 2, workers);
    load.wait_version("v2");
    load.stop().assert_clean();
    let new = daemon.wait_workers(workers);
    assert!(new.iter().all(|pid| !old.contains(pid)), "an old worker serves on");
    stop_well(&daemon);
}
