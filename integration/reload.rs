//! Reloads that go well: under load nothing fails, and what is on disk at that moment serves after.

use std::{ffi::OsString, fs, os::unix::fs::MetadataExt, path::Path, thread};

use crate::{
    harness::{Report, http_node, http_python, http_rust},
    journal::journal,
    site::{
        Site, copy_program, reload_well, setting, stop_well, wait_only_generation, wait_serving,
    },
};

#[test]
fn four_workers_change_to_a_new_version_and_no_request_fails() {
    changes_version(4, &http_rust(), &[], 1);
}

#[test]
fn a_single_worker_changes_to_a_new_version_and_no_request_fails() {
    changes_version(1, &http_rust(), &[], 1);
}

#[test]
fn workers_that_must_notify_change_to_a_new_version_and_no_request_fails() {
    changes_version(2, &http_rust(), &["--ready", "notify"], 1);
}

#[test]
fn rust_workers_are_reloaded_again_and_again_and_no_request_fails() {
    changes_version(4, &http_rust(), &[], setting("RELOADS", 3));
}

#[test]
fn python_workers_are_reloaded_again_and_again_and_no_request_fails() {
    changes_version(4, &http_python(), &[], setting("RELOADS", 3));
}

#[test]
fn node_workers_are_reloaded_again_and_again_and_no_request_fails() {
    changes_version(4, &http_node(), &[], setting("RELOADS", 3));
}

#[test]
fn the_first_new_worker_starts_alone_and_the_others_no_more_at_a_time_than_processors() {
    let workers = 6;
    let site = Site::new();
    let daemon = site.run(workers).command(http_python()).start();
    wait_serving(&daemon, workers);
    reload_well(&daemon);
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let (mut starting, mut most, mut ready) = (0_usize, 0, 0);
    let mut rolling = false;
    for entry in journal(&daemon) {
        rolling |= entry.text.contains("reading generation 2");
        if rolling && entry.is_start_of(2) {
            starting += 1;
            if ready == 0 {
                assert_eq!(starting, 1, "two before the first was ready: {entry:?}");
            }
        } else if rolling && entry.is_ready() {
            starting -= 1;
            ready += 1;
        }
        most = most.max(starting);
    }
    assert_eq!(ready, workers);
    assert!(most <= processors, "{most} started at a time");
    wait_only_generation(&daemon, 2, workers);
    stop_well(&daemon);
}

#[test]
fn a_reload_reads_the_program_anew() {
    let site = Site::new();
    let server = site.path("server");
    let original = http_rust().remove(0);
    copy_program(Path::new(&original), &server);
    let daemon = site.run(2).command([&server]).start();
    wait_serving(&daemon, 2);
    let load = site.load();
    load.wait_ok(20);
    copy_program(Path::new(&original), &server);
    reload_well(&daemon);
    wait_only_generation(&daemon, 2, 2);
    let inode = |path: &str| fs::metadata(path).expect("a program").ino();
    for pid in daemon.workers() {
        let wanted = inode(&server.to_string_lossy());
        assert_eq!(inode(&format!("/proc/{pid}/exe")), wanted);
    }
    load.wait_ok(20);
    load.stop().assert_clean();
    stop_well(&daemon);
}

#[test]
fn a_reload_follows_the_symbolic_link_of_the_directory_anew() {
    let site = Site::new();
    site.release_directory("r1", &http_rust());
    let daemon = site
        .run(2)
        .args([OsString::from("--directory"), site.current().into()])
        .command(["./server"])
        .start();
    wait_serving(&daemon, 2);
    let load = site.load();
    for number in 2..=3 {
        load.wait_version(&format!("r{}", number - 1));
        let release = format!("r{number}");
        site.release_directory(&release, &http_rust());
        reload_well(&daemon);
        wait_only_generation(&daemon, number, 2);
        for pid in daemon.workers() {
            let directory = fs::read_link(format!("/proc/{pid}/cwd")).expect("a live worker");
            assert_eq!(directory, site.path(&release));
        }
        load.wait_version(&release);
    }
    load.stop().assert_clean();
    stop_well(&daemon);
}

/// Reloads under load; after each reload, once the old workers are gone, every answer is of the
/// new version.
#[track_caller]
pub(crate) fn changes_version(
    workers: usize,
    program: &[OsString],
    options: &[&str],
    reloads: u64,
) {
    let site = Site::new();
    let daemon = site.run(workers).args(options).command(program).start();
    wait_serving(&daemon, workers);
    let load = site.load();
    load.wait_version("v1");
    let mut version = "v1".to_owned();
    for number in 2..=reloads + 1 {
        let old = std::mem::replace(&mut version, format!("v{number}"));
        site.release(&version);
        reload_well(&daemon);
        let generation = u32::try_from(number).expect("few reloads");
        wait_only_generation(&daemon, generation, workers);
        load.wait_version(&version);
        // The old workers are gone, but a client may not have counted their last answer yet; each
        // client has one request at a time, so after so many answers all have.
        load.wait_ok(50);
        let answers = |report: &Report| report.versions.get(&old).copied();
        let before = load.snapshot();
        load.wait_ok(20);
        let after = load.snapshot();
        assert_eq!(answers(&before), answers(&after), "{old} goes on\n{after}");
        assert_eq!(site.version(), version);
    }
    let report = load.stop();
    report.assert_clean();
    assert_eq!(report.generations.len() as u64, reloads + 1, "{report}");
    stop_well(&daemon);
}
