//! Reloads to versions that are wrong in one way each: the old workers serve on as if nothing had
//! been, the log says why and what comes next, and the next good reload works at once.

use std::{
    ffi::OsString,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use crate::{
    harness::{Builder, http_rust, odd},
    site::{
        RUN, Site, copy_program, reload, reload_well, stop_well, wait_only_generation,
        wait_serving, write_program,
    },
};

const WORKERS: usize = 4;

#[test]
fn a_version_that_exits_at_once_aborts_the_reload() {
    aborts_running(&[], &odd_mode(&["exit", "3"]), "exited with code 3 before it was ready");
}

#[test]
fn a_version_that_exits_with_success_at_once_aborts_the_reload() {
    aborts_running(&[], &odd_mode(&["exit", "0"]), "exited with code 0 before it was ready");
}

#[test]
fn a_version_that_exits_between_ready_and_commit_aborts_the_reload() {
    // The first is ready alone. It exits when the others have been started, which are not ready
    // before they are a second old.
    let site = Site::running(&http_rust());
    let (script, others) = (site.path("short"), site.path("others"));
    let wait = "until [ -e OTHERS ]; do sleep 0.02; done";
    let text = format!("if [ $SHEPHERD_SLOT = 0 ]; then {wait}; else : >OTHERS; sleep 1000; fi");
    let text = text.replace("OTHERS", &format!("{}.$SHEPHERD_GENERATION", others.display()));
    write_program(&script, format!("#!/bin/sh\n{text}\n").as_bytes(), 0o755);
    aborts(
        &site,
        site.run(WORKERS).args(["--ready", "alive:1s"]).command(RUN),
        |site| site.release_running("bad", &[&script]),
        "(sh.0) exited with code 0; ",
        |site| site.release_running("v2", &http_rust()),
    );
}

#[test]
fn a_version_of_which_one_worker_exits_aborts_the_reload() {
    let third = odd_mode(&["exit-if-slot", "2", "5"]);
    aborts_running(&[], &third, "(sh.2) exited with code 5 before it was ready");
}

#[test]
fn a_version_that_never_gets_ready_aborts_the_reload() {
    let silent = ["sleep".into(), "1000".into()];
    let options = ["--ready-timeout", "2s"];
    aborts_running(&options, &silent, "was not ready within 2 s");
}

#[test]
fn a_program_that_the_kernel_cannot_run_aborts_the_reload() {
    aborts_with_program(
        |path| write_program(path, b"\x7fELF no more than that", 0o755),
        "it is no program for this machine",
    );
}

#[test]
fn a_program_that_is_missing_aborts_the_reload() {
    aborts_with_program(remove, "there is no such file");
}

#[test]
fn a_program_that_is_not_executable_aborts_the_reload() {
    aborts_with_program(
        |path| write_program(path, b"#!/bin/sh\n", 0o644),
        "it is not executable; `chmod +x` it",
    );
}

#[test]
fn a_script_without_its_interpreter_aborts_the_reload() {
    aborts_with_program(
        |path| write_program(path, b"#!/no/such/shell\n", 0o755),
        "its interpreter `/no/such/shell` does not exist",
    );
}

#[test]
fn a_link_that_leads_nowhere_aborts_the_reload() {
    aborts_with_directory(
        |site| site.switch_current(&site.path("nowhere")),
        "No such file or directory",
    );
}

#[test]
fn a_directory_that_is_missing_aborts_the_reload() {
    aborts_with_directory(|site| remove(&site.current()), "No such file or directory");
}

#[test]
fn a_malformed_file_of_variables_aborts_the_reload() {
    let site = Site::new();
    let builder = site.run(WORKERS).command(http_rust());
    let malformed = |site: &Site| site.write_variables("VERSION=v2\nNO VALUE\n");
    let path = site.variables();
    let reason = format!("cannot read environment file `{}`, line 2: ", path.display());
    aborts(&site, builder, malformed, &reason, |site| {
        site.release("v2");
    });
}

#[test]
fn a_missing_file_of_variables_aborts_the_reload() {
    let site = Site::new();
    let builder = site.run(WORKERS).command(http_rust());
    let missing = |site: &Site| remove(&site.variables());
    let reason = format!("cannot read environment file `{}`: ", site.variables().display());
    aborts(&site, builder, missing, &reason, |site| site.release("v2"));
}

/// With a service whose file of variables names the program.
#[track_caller]
fn aborts_running(options: &[&str], bad: &[OsString], reason: &str) {
    let site = Site::running(&http_rust());
    let builder = site.run(WORKERS).args(options).command(RUN);
    aborts(
        &site,
        builder,
        |site| site.release_running("bad", bad),
        reason,
        |site| site.release_running("v2", &http_rust()),
    );
}

/// With a service whose program is replaced.
#[track_caller]
fn aborts_with_program(spoil: impl Fn(&Path), reason: &str) {
    let site = Site::new();
    let server = site.path("server");
    let original = PathBuf::from(http_rust().remove(0));
    copy_program(&original, &server);
    let builder = site.run(WORKERS).command([&server]);
    let reason = format!("cannot run `{}`: {reason}", server.display());
    aborts(
        &site,
        builder,
        |_| spoil(&server),
        &reason,
        |site| {
            copy_program(&original, &server);
            site.release("v2");
        },
    );
}

/// With a service whose directory is replaced.
#[track_caller]
fn aborts_with_directory(spoil: impl Fn(&Site), reason: &str) {
    let site = Site::new();
    site.release_directory("v1", &http_rust());
    let builder = site
        .run(WORKERS)
        .args([OsString::from("--directory"), site.current().into()])
        .command(["./server"]);
    let reason = format!("cannot use directory `{}`: {reason}", site.current().display());
    aborts(&site, builder, spoil, &reason, |site| {
        site.release_directory("v2", &http_rust());
    });
}

/// The old version is `v1`, and `mend` makes the next one `v2`.
#[track_caller]
fn aborts(
    site: &Site,
    builder: Builder,
    spoil: impl Fn(&Site),
    reason: &str,
    mend: impl Fn(&Site),
) {
    let daemon = builder.start();
    let old = wait_serving(&daemon, WORKERS);
    let load = site.load();
    load.wait_version("v1");

    // Twice: what the first attempt leaves must not be in the way of the second.
    for generation in 2..=3 {
        spoil(site);
        let outcome = reload(&daemon);
        let next = "; generation 1 serves on, nothing is retried: mend it and reload again";
        let head = format!(": reload to generation {generation} aborted: ");
        if !outcome.contains(&head) || !outcome.contains(reason) || !outcome.ends_with(next) {
            daemon.fail(&format!("not `{head}`, `{reason}` and `{next}`"));
        }
        wait_only_generation(&daemon, 1, WORKERS);
        let mut expected = old.clone();
        expected.sort_unstable();
        // One that was not its program yet when it was told to stop is seen as a leftover only.
        daemon.eventually(&format!("{expected:?} alive and nobody else"), || {
            let mut left: Vec<i32> = daemon.leftovers().iter().map(|found| found.pid).collect();
            left.sort_unstable();
            (left == expected).then_some(())
        });
        load.wait_ok(20);
    }

    mend(site);
    reload_well(&daemon);
    wait_only_generation(&daemon, 4, WORKERS);
    load.wait_version("v2");
    load.wait_ok(20);
    load.stop().assert_clean();
    assert_eq!(site.version(), "v2");
    stop_well(&daemon);
}

/// It may be absent already.
fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{}", path.display());
    }
}

fn odd_mode(arguments: &[&str]) -> Vec<OsString> {
    let mut words = vec![odd().into_os_string()];
    words.extend(arguments.iter().map(OsString::from));
    words
}
