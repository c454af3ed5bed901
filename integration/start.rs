//! How a daemon comes up and goes: what it says, how many workers it has, what they get from the
//! command line, and that nothing is left of it.

use std::{fs, path::Path};

use nix::{
    sys::signal::Signal,
    unistd::{SysconfVar, sysconf},
};

use crate::{
    given::{Given, dump, environment, files_below, kill},
    harness::{Builder, Daemon, Home, free_port, get, odd},
    wrapped::wrapped,
};

/// Workers without a socket.
fn alive() -> Builder {
    Daemon::run().args(["--ready", "alive:1ms"]).command([odd().as_os_str(), "alive".as_ref()])
}

fn contains(words: &str) -> impl Fn(&str) -> bool {
    move |line| line.contains(words)
}

/// After a stop: no process, and no file in the runtime directory.
#[track_caller]
fn assert_nothing_left(daemon: &Daemon) {
    daemon.assert_nothing_left();
    let files = files_below(&daemon.home().runtime_directory().join("shepherd"));
    assert!(files.is_empty(), "left behind: {files:?}");
}

#[test]
fn the_first_lines_say_pid_addresses_and_each_workers_slot_and_pid() {
    let (bare, loopback) = (free_port(), free_port());
    let daemon = Daemon::run()
        .workers(2)
        .listen(&bare)
        .listen(format!("web=127.0.0.1:{loopback}"))
        .command([odd().as_os_str(), "epoll".as_ref()])
        .start();
    daemon.wait_line(contains("odd: 2 workers ready"), "all are ready");
    let workers = daemon.wait_workers(2);
    let own = format!("is running as `odd`, pid {}", daemon.pid());
    let expected = [
        own,
        format!("listening on [::]:{bare} (IPv4 and IPv6)"),
        format!("listening on web=127.0.0.1:{loopback}"),
        format!("(odd.0) started: pid {}, generation 1", workers[0]),
        format!("(odd.1) started: pid {}, generation 1", workers[1]),
    ];
    for line in &expected {
        daemon.wait_line(contains(line), line);
    }
    let lines = daemon.lines();
    assert!(lines[0].text.contains(&expected[0]), "{lines:#?}");
    assert!(daemon.stop().success());
}

#[test]
fn without_a_number_there_is_one_worker() {
    let daemon = alive().start();
    daemon.wait_line(contains("odd: 1 worker ready"), "ready");
    assert_eq!(daemon.workers().len(), 1);
}

#[test]
fn there_are_as_many_workers_as_asked_for_in_slots_of_their_own() {
    let daemon = alive().workers(3).start();
    daemon.wait_line(contains("odd: 3 workers ready"), "ready");
    let workers = daemon.worker_processes();
    let slots: Vec<_> = workers.iter().filter_map(|worker| worker.slot.as_deref()).collect();
    assert_eq!(slots, ["0", "1", "2"], "{workers:?}");
}

#[test]
fn auto_counts_the_processors_of_the_affinity_mask_and_max_those_of_the_machine() {
    let status = fs::read_to_string("/proc/self/status").expect("our status");
    let allowed = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .expect("an affinity mask")
        .trim();
    let first = allowed.split([',', '-']).next().expect("a processor");
    let on_one = |workers: &str| {
        wrapped(&format!("exec taskset -c {first} \"$@\""))
            .workers(workers)
            .args(["--ready", "alive:1ms"])
            .command([odd().as_os_str(), "alive".as_ref()])
            .start()
    };
    let auto = on_one("auto");
    auto.wait_line(contains("odd: 1 worker ready"), "one for the one processor");

    let online = sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten().expect("a number");
    let max = on_one("max");
    let line = max.wait_line(contains(" ready"), "ready");
    let plural = if online == 1 { "" } else { "s" };
    max.wait_line(contains(&format!("odd: {online} worker{plural} ready")), &line);
}

#[test]
fn without_a_socket_it_supervises_plain_processes() {
    let daemon = Daemon::run().command(["sleep", "1000"]).start();
    daemon.wait_line(
        |line| line.contains("is ready") && line.contains("assumed: alive for 1s"),
        "ready by assumption",
    );
    let first = daemon.wait_workers(1)[0];
    let environment = environment(first);
    let socket_variables: Vec<_> =
        environment.keys().filter(|name| name.starts_with("LISTEN_")).collect();
    assert!(socket_variables.is_empty(), "{socket_variables:?}");
    assert_eq!(environment["SHEPHERD_SERVICE"], "sleep");
    assert!(daemon.addresses().is_empty());
    assert_eq!(daemon.count_lines(contains("listening on")), 0);

    kill(first);
    daemon.wait_line(contains("was ended by SIGKILL; restarting now"), "a restart");
    daemon.eventually("another worker", || {
        daemon.workers().iter().find(|pid| **pid != first).copied()
    });
}

#[test]
fn a_name_is_the_daemons_the_services_and_its_workers() {
    let home = Home::new();
    let file = home.directory().join("dump");
    let port = free_port();
    let daemon = Daemon::run()
        .home(&home)
        .listen(&port)
        .args(["--name", "shop.eu-1_b"])
        .command(dump(&file))
        .start();
    daemon.wait_line(contains("is running as `shop.eu-1_b`, pid"), "its name");
    daemon.wait_line(contains("(shop.eu-1_b.0) started"), "a worker's name");
    let given = Given::wait(&daemon, &file);
    assert_eq!(given.variable("SHEPHERD_SERVICE"), "shop.eu-1_b");
}

#[test]
fn an_implicit_name_that_is_taken_gets_a_number() {
    let first = alive().start();
    first.wait_line(contains("is running as `odd`, pid"), "the first");
    let second = alive().home(first.home()).start();
    second.wait_line(contains("is running as `odd-2`, pid"), "the second");
    let third = alive().home(first.home()).start();
    third.wait_line(contains("is running as `odd-3`, pid"), "the third");

    second.wait_line(contains("1 worker ready"), "ready");
    assert!(second.stop().success());
    let again = alive().home(first.home()).start();
    again.wait_line(contains("is running as `odd-2`, pid"), "a name that is free again");
}

#[test]
fn an_explicit_name_that_is_taken_is_refused() {
    let first = alive().args(["--name", "web"]).start();
    first.wait_line(contains("web: 1 worker ready"), "the first");
    let second = alive().home(first.home()).args(["--name", "web"]).start();
    assert_eq!(second.wait_exit().code(), Some(1));
    second.wait_line(
        |line| {
            line.contains("cannot take the name `web`: another shepherd of that name is running")
                && line.contains("--name")
        },
        "a refusal",
    );
    assert!(first.is_running());
    assert_eq!(first.workers().len(), 1);
}

#[test]
fn a_daemon_that_was_killed_leaves_a_name_that_is_free() {
    let first = alive().args(["--name", "web"]).start();
    first.wait_line(contains("web: 1 worker ready"), "the first");
    first.signal(Signal::SIGKILL);
    first.wait_exit();
    let second = alive().home(first.home()).args(["--name", "web"]).start();
    second.wait_line(contains("is running as `web`, pid"), "the second");
    second.wait_line(contains("web: 1 worker ready"), "the second");
}

#[test]
fn the_pid_file_is_there_while_the_daemon_is() {
    let home = Home::new();
    let file = home.directory().join("pid");
    let daemon = alive().home(&home).args(["--pid-file".as_ref(), file.as_os_str()]).start();
    daemon.wait_line(contains("1 worker ready"), "ready");
    let text = fs::read_to_string(&file).expect("a pid file");
    assert_eq!(text, format!("{}\n", daemon.pid()));
    assert!(daemon.stop().success());
    let found = files_below(home.directory());
    assert_eq!(found, [home.runtime_directory()]);
}

#[test]
fn a_relative_pid_file_is_in_the_daemons_directory_not_in_the_workers() {
    let home = Home::new();
    let elsewhere = home.directory().join("elsewhere");
    fs::create_dir(&elsewhere).expect("a directory");
    let daemon = alive()
        .home(&home)
        .directory(home.directory())
        .args(["--pid-file", "own.pid", "--directory", "elsewhere"])
        .start();
    daemon.wait_line(contains("1 worker ready"), "ready");
    assert!(home.directory().join("own.pid").exists());
    assert!(daemon.stop().success());
    assert!(!home.directory().join("own.pid").exists());
}

#[test]
fn a_pid_file_that_somebody_replaced_is_left_alone() {
    let home = Home::new();
    let file = home.directory().join("pid");
    let daemon = alive().home(&home).args(["--pid-file".as_ref(), file.as_os_str()]).start();
    daemon.wait_line(contains("1 worker ready"), "ready");
    let other = home.directory().join("other");
    fs::write(&other, "1\n").expect("written");
    fs::rename(&other, &file).expect("replaced");
    assert!(daemon.stop().success());
    assert_eq!(fs::read_to_string(&file).expect("the other's"), "1\n");
}

#[test]
fn a_variable_wins_over_a_later_file_over_an_earlier_one_over_what_was_inherited() {
    let home = Home::new();
    let at = |name: &str| home.directory().join(name);
    fs::write(at("first"), "B=first\nC=first\nD=first\n").expect("written");
    fs::write(at("second"), "# comment\nexport C='the second'\nD=second\n").expect("written");
    let port = free_port();
    let daemon = Daemon::run()
        .home(&home)
        .listen(&port)
        .directory(home.directory())
        .env("A", "inherited")
        .env("B", "inherited")
        .env("C", "inherited")
        .env("D", "inherited")
        .args(["--env", "D=line=with=signs", "--env", "E="])
        .args(["--env-file", "first", "--env-file", "second"])
        .command(dump(&at("dump")))
        .start();
    let given = Given::wait(&daemon, &at("dump"));
    let values = ["A", "B", "C", "D", "E"].map(|name| given.variable(name));
    assert_eq!(values, ["inherited", "first", "the second", "line=with=signs", ""]);
}

#[test]
fn workers_run_in_the_directory_that_was_asked_for_else_in_the_daemons() {
    let home = Home::new();
    let real = home.directory().join("release-1");
    let link = home.directory().join("current");
    fs::create_dir(&real).expect("a directory");
    std::os::unix::fs::symlink("release-1", &link).expect("a link");
    let real = fs::canonicalize(&real).expect("a path");
    let given = |arguments: &[&Path], name: &str| {
        let file = home.directory().join(name);
        let port = free_port();
        let daemon = Daemon::run()
            .home(&home)
            .listen(&port)
            .directory(home.directory())
            .args(arguments)
            .command(dump(&file))
            .start();
        let given = Given::wait(&daemon, &file);
        assert_eq!(get(&port, "/").expect("an answer").status, 200);
        given
    };
    let asked = given(&["--directory".as_ref(), &link], "asked");
    assert_eq!(asked.directory, real.to_string_lossy());
    // As a shell does: programs that trust PWD must not land elsewhere.
    assert_eq!(asked.variable("PWD"), real.to_string_lossy());

    let own = given(&[], "own");
    let here = fs::canonicalize(home.directory()).expect("a path");
    assert_eq!(own.directory, here.to_string_lossy());
}

#[test]
fn a_relative_program_is_looked_for_in_the_workers_directory() {
    let home = Home::new();
    let directory = home.directory().join("bin");
    fs::create_dir(&directory).expect("a directory");
    std::os::unix::fs::symlink(odd(), directory.join("linked-odd")).expect("a link");
    let daemon = Daemon::run()
        .args(["--ready", "alive:1ms", "--directory"])
        .args([&directory])
        .command(["./linked-odd", "alive"])
        .start();
    daemon.wait_line(contains("linked-odd: 1 worker ready"), "ready");
}

#[test]
fn each_signal_to_stop_ends_it_with_0_and_nothing_is_left() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let port = free_port();
        let daemon = Daemon::run()
            .workers(2)
            .listen(&port)
            .command([odd().as_os_str(), "poll".as_ref()])
            .start();
        daemon.wait_line(contains("odd: 2 workers ready"), "ready");
        assert_eq!(get(&port, "/").expect("an answer").status, 200);
        let below = daemon.home().runtime_directory().join("shepherd/odd");
        assert!(!files_below(&below).is_empty(), "nothing to be left behind");
        daemon.signal(signal);
        assert_eq!(daemon.wait_exit().code(), Some(0), "{signal}");
        assert_nothing_left(&daemon);
        get(&port, "/").expect_err("nobody answers after a stop");
    }
}

#[test]
fn a_worker_that_does_not_care_for_the_stop_signal_is_gone_after_the_drain_timeout() {
    let port = free_port();
    let daemon = Daemon::run()
        .listen(&port)
        .args(["--drain-timeout", "300ms"])
        .command([odd().as_os_str(), "ignore-term".as_ref()])
        .start();
    daemon.wait_line(contains("odd: 1 worker ready"), "ready");
    assert_eq!(daemon.stop().code(), Some(0));
    daemon.wait_line(contains("killing worker 1 (odd.0) and all its processes"), "a kill");
    assert_nothing_left(&daemon);
}
