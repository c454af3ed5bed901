//! Reloads of whose workers not all may run beside the old ones: how many there are, that nobody who
//! connects sees any of it, and what becomes of slots that were changed over when it is off.

use std::{
    ffi::OsString, fs, os::unix::fs::MetadataExt, path::Path, process::Command, time::Duration,
};

use crate::{
    cli::{ends, shepherd},
    harness::{Builder, Kind, Limits, Load, http_rust, manners},
    site::{
        RUN, Site, copy_program, stop_well, wait_only_generation, wait_serving, wrapper,
        write_program,
    },
};

const WORKERS: usize = 4;
/// A handler that is at work at any moment.
const HANDLER: &str = "50ms";
/// Connections that all `New` clients of a test begin in a second: tests run side by side.
const NEW_PER_SECOND: u32 = 60;
/// Answers between two changes.
const ANSWERS: u64 = 10;

// ---- each number beside the old ones ---------------------------------------------------------

#[test]
fn one_at_a_time_where_generations_have_sockets() {
    rolls("generation", "graceful", "1", &[1, 2, 3]);
}

#[test]
fn two_at_a_time_where_generations_have_sockets() {
    rolls("generation", "graceful", "2", &[1, 3]);
}

#[test]
fn one_after_the_other_where_generations_have_sockets() {
    rolls("generation", "graceful", "0", &[1, 2, 3]);
}

#[test]
fn one_at_a_time_where_slots_have_sockets() {
    rolls("slots", "dies", "1", &[1, 2, 3]);
}

#[test]
fn a_half_at_a_time_where_slots_have_sockets() {
    rolls("slots", "dies", "50%", &[1, 3]);
}

#[test]
fn one_after_the_other_where_slots_have_sockets() {
    rolls("slots", "dies", "0", &[1, 2, 3]);
}

/// Two reloads under load: so many are told to be changed over, one after the other, and no connection
/// is lost.
#[track_caller]
fn rolls(balance: &str, named: &str, surge: &str, over: &[u32]) {
    let site = Site::running(&with_manners(named));
    let daemon = run(&site, WORKERS, surge).args(["--balance", balance]).command(RUN).start();
    wait_serving(&daemon, WORKERS);
    let load = load(&site);
    for generation in 2..=3 {
        load.wait_ok(ANSWERS);
        let mark = daemon.mark();
        let done = shepherd(&daemon, "reload", 0);
        assert!(done.stdout.contains(&format!("generation {generation} serves")), "{done:#?}");
        for over in over {
            let told = format!("web: {over} of 4 changed over to generation {generation}");
            daemon.wait_line_since(mark, |line| line.contains(&told), &told);
        }
        wait_only_generation(&daemon, generation, WORKERS);
    }
    load.wait_ok(ANSWERS);
    let report = load.stop();
    report.assert_clean();
    assert_eq!(report.generations.len(), 3, "{report}");
    stop_well(&daemon);
}

// ---- a reload that is off --------------------------------------------------------------------

#[test]
fn what_was_changed_over_is_put_back_before_the_new_ones_go() {
    is_put_back("generation", "1", "2");
}

#[test]
fn it_is_put_back_where_only_the_last_worker_is_bad() {
    is_put_back("slots", "2", "3");
}

#[test]
fn it_is_put_back_one_after_the_other_where_none_may_run_beside_another() {
    is_put_back("slots", "0", "2");
}

#[track_caller]
fn is_put_back(balance: &str, surge: &str, bad_slot: &str) {
    let site = Site::running(&with_manners("graceful"));
    let daemon = run(&site, WORKERS, surge).args(["--balance", balance]).command(RUN).start();
    wait_serving(&daemon, WORKERS);
    let load = load(&site);
    load.wait_ok(ANSWERS);
    let script = site.path("bad");
    let last = words(&with_manners("graceful"));
    let text = format!("#!/bin/sh\n[ \"$SHEPHERD_SLOT\" = {bad_slot} ] && exit 5\nexec {last}\n");
    write_program(&script, text.as_bytes(), 0o755);
    site.release_running("v2", &[&script]);
    let mark = daemon.mark();
    let aborted = shepherd(&daemon, "reload", 4);
    let over = |line: &str| line.contains(" of 4 changed over to generation 2");
    daemon.wait_line_since(mark, over, "some slots changed over");
    let reason = format!("(web.{bad_slot}) exited with code 5 before it was ready");
    let back = "put back: generation 1 serves in all slots";
    let told = &aborted.stderr;
    assert!(told.contains(&reason) && told.contains(back), "{aborted:#?}");
    wait_only_generation(&daemon, 1, WORKERS);
    assert_eq!(site.version(), "v1");
    load.wait_ok(ANSWERS);
    load.stop().assert_clean();
    stop_well(&daemon);
}

#[test]
fn where_the_old_version_is_gone_the_command_ends_with_5_and_what_serves_does_so_on() {
    let site = Site::new();
    let old = site.path("old-server");
    copy_program(Path::new(&http_rust().remove(0)), &old);
    site.release_running("v1", &[&old]);
    let daemon = run(&site, 3, "1").command(RUN).start();
    wait_serving(&daemon, 3);
    let script = site.path("bad");
    let last = words(&http_rust());
    let text = format!("#!/bin/sh\n[ \"$SHEPHERD_SLOT\" = 1 ] && exit 5\nexec {last}\n");
    write_program(&script, text.as_bytes(), 0o755);
    site.release_running("v2", &[&script]);
    fs::remove_file(&old).expect("a program");
    let aborted = shepherd(&daemon, "reload", 5);
    let head = "reload aborted, and not all could be put back: worker ";
    assert!(aborted.stderr.contains(head), "{aborted:#?}");
    let told = "generation 1 is not put back everywhere";
    daemon.wait_line(|line| line.contains(told), told);
    let status = shepherd(&daemon, "status", 0);
    assert!(status.stdout.contains("3/3") || status.stdout.contains("3 of 3"), "{status:#?}");
    // Another version is the remedy.
    site.release_running("v3", &http_rust());
    shepherd(&daemon, "reload", 0);
    assert_eq!(site.version(), "v3");
    stop_well(&daemon);
}

// ---- none beside the old one -----------------------------------------------------------------

#[test]
fn a_program_that_cannot_overlap_is_stopped_first_and_connections_wait() {
    waits_meanwhile("generation");
}

#[test]
fn it_is_so_where_slots_have_sockets() {
    waits_meanwhile("slots");
}

#[track_caller]
fn waits_meanwhile(balance: &str) {
    let site = Site::new();
    let mut alone = with_manners("graceful");
    alone.extend(["--start", "300ms"].map(OsString::from));
    let script = site.path("alone");
    let lock = site.path("lock").display().to_string();
    let text =
        format!("#!/bin/sh\nexec 9>'{lock}'\nflock -n 9 || exit 7\nexec {}\n", words(&alone));
    write_program(&script, text.as_bytes(), 0o755);
    site.release_running("v1", &[&script]);
    let daemon = run(&site, 1, "0").args(["--balance", balance]).command(RUN).start();
    wait_serving(&daemon, 1);
    let load = load(&site);
    for (generation, version) in [(2, "v2"), (3, "v3")] {
        load.wait_ok(ANSWERS);
        site.release_running(version, &[&script]);
        shepherd(&daemon, "reload", 0);
        wait_only_generation(&daemon, generation, 1);
        load.wait_version(version);
    }
    load.stop().assert_clean();
    stop_well(&daemon);
}

// ---- as memory allows ------------------------------------------------------------------------

#[test]
fn two_hundred_workers_of_whom_memory_is_free_for_half_are_changed_over_in_batches() {
    if !can_hide_memory() {
        eprintln!("no mount namespace can be made, so nobody is told of less memory than there is");
        return;
    }
    let workers = 200;
    let site = Site::new();
    let meminfo = site.path("meminfo");
    fs::copy("/proc/meminfo", &meminfo).expect("a copy");
    let text = format!(
        "exec unshare --mount sh -c 'mount --bind \"{}\" /proc/meminfo && exec \"{}\" \"$@\"' sh \"$@\"",
        meminfo.display(),
        env!("CARGO_BIN_EXE_shepherd")
    );
    let binary = wrapper(&site.home, &text);
    let daemon =
        site.run(workers).args(["--name", "web"]).binary(binary).command(http_rust()).start();
    let old = wait_serving(&daemon, workers);
    // A tenth of what is free is kept, and half a worker more is none.
    let sum: u64 = old.iter().map(|&pid| proportional_set(pid)).sum();
    let free = (sum / 2 + sum / 400) / 1024 * 10 / 9;
    let inode = fs::metadata(&meminfo).expect("it is there").ino();
    // What is mounted is the file, not its name.
    fs::write(&meminfo, format!("MemTotal: 99999999 kB\nMemAvailable: {free} kB\n"))
        .expect("written");
    assert_eq!(fs::metadata(&meminfo).expect("it is there").ino(), inode);
    let load = load(&site);
    load.wait_ok(ANSWERS);
    site.release("v2");
    let mark = daemon.mark();
    let reload = daemon.start_client(["reload", "--name", "web"]);
    let what = "memory is free for ";
    let line = daemon.wait_line_since(mark, |line| line.contains(what), what);
    let room: usize = line
        .split(what)
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| daemon.fail(&format!("no number: {line}")));
    assert!((70..=130).contains(&room), "not about half of them: {line}");
    assert!(line.ends_with(&format!("they are changed over in batches of {room}")), "{line}");
    let committed = || daemon.count_lines(|line| line.contains(": reload committed")) > 0;
    let mut most = 0;
    while !committed() {
        most = most.max(daemon.worker_processes().len());
    }
    assert!(most <= workers + room, "{most} workers at a time");
    assert!(most > workers, "none was seen beside another");
    let done = ends(reload.wait(), 0);
    assert!(done.stderr.contains("1 of 200 changed over"), "{done:#?}");
    wait_only_generation(&daemon, 2, workers);
    load.wait_version("v2");
    load.stop().assert_clean();
    stop_well(&daemon);
}

#[test]
fn where_memory_is_free_for_all_they_run_beside_the_old_ones() {
    let site = Site::new();
    let daemon = site.run(2).args(["--name", "web"]).command(http_rust()).start();
    wait_serving(&daemon, 2);
    shepherd(&daemon, "reload", 0);
    assert_eq!(daemon.count_lines(|line| line.contains("changed over")), 0);
    stop_well(&daemon);
}

fn can_hide_memory() -> bool {
    let mut try_it = Command::new("unshare");
    try_it.args(["--mount", "true"]);
    try_it.output().is_ok_and(|output| output.status.success())
}

/// A process's part of the memory that it shares, and what it has alone, in bytes.
fn proportional_set(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse::<u64>().ok()).expect("a size") * 1024
}

// ---- helpers ---------------------------------------------------------------------------------

/// A daemon whose service is called `web`, with so many beside others.
fn run(site: &Site, workers: usize, surge: &str) -> Builder {
    site.run_by_default(workers).args(["--name", "web", "--surge", surge])
}

fn with_manners(named: &str) -> Vec<OsString> {
    manners(&[named, "--handler", HANDLER])
}

fn words(command: &[OsString]) -> String {
    command.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Those that connect and ask, and those that take their time.
fn load(site: &Site) -> Load {
    let limits = Limits { new_per_second: NEW_PER_SECOND, ..Limits::default() };
    let hesitant = Kind::Hesitant { pause: Duration::from_millis(30) };
    Load::start_with(limits, &site.port, [(Kind::New, 3), (hesitant, 1)])
}
