//! Workers in cgroups of their own, where the daemon may make some: who is in them, that they come
//! and go with the workers, and what happens where there are none.

#![expect(clippy::print_stderr, reason = "what cannot be tested here is told")]

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{errno::Errno, sys::signal::Signal, unistd::geteuid};

use crate::{
    harness::{
        Builder, Daemon, Kept, Process, eventually, free_port, groups, http_rust, members, odd,
    },
    site::{
        Site, copy_program, reload_well, stop_well, wait_only_generation, wait_serving, wrapper,
    },
};

/// What the daemon says of where it keeps workers.
const KEPT_BELOW: &str = "workers are kept in cgroups below `";

#[test]
fn each_worker_is_in_a_cgroup_of_its_own_which_goes_with_it() {
    let Some(site) = site() else { return };
    let daemon = site.run(2).command(http_rust()).start();
    let workers = wait_serving(&daemon, 2);
    let directory = directory(&daemon);
    assert_eq!(directory, delegated(&site).join("shepherd.http"));
    let leaf = |number: u32| directory.join(format!("worker.{number}"));
    assert_eq!(groups(&directory), [leaf(1), leaf(2)]);
    assert_eq!(members(&leaf(1)), [workers[0]]);
    assert_eq!(members(&leaf(2)), [workers[1]]);

    Process::open(workers[0]).expect("a worker").signal(Signal::SIGKILL).expect("a worker");
    daemon.wait_line(|line| line.contains("worker 3 (http.0) is ready"), "the replacement");
    eventually("the cgroup of the first to go", || {
        (groups(&directory) == [leaf(2), leaf(3)]).then_some(())
    });
    reload_well(&daemon);
    wait_only_generation(&daemon, 2, 2);
    eventually("the cgroups of generation 1 to go", || {
        (groups(&directory) == [leaf(4), leaf(5)]).then_some(())
    });
    stop_well(&daemon);
    assert!(!directory.exists(), "it is left behind");
}

#[test]
fn what_a_worker_has_used_is_told_when_it_ends() {
    let Some(site) = site() else { return };
    let daemon = site.run(2).command(http_rust()).start();
    let workers = wait_serving(&daemon, 2);
    Process::open(workers[1]).expect("a worker").signal(Signal::SIGKILL).expect("a worker");
    let told = |line: &str| line.contains("; it used ") && line.contains(" of processor time");
    daemon.wait_line(
        |line| line.contains("was ended by SIGKILL; restarting now; ") && told(line),
        "what the first one used",
    );
    daemon.wait_line(|line| line.contains("worker 3 (http.1) is ready"), "the replacement");
    stop_well(&daemon);
    let drained = |line: &str| line.contains(" of draining; ") && told(line);
    assert_eq!(daemon.count_lines(drained), 2);
}

#[test]
fn a_process_that_hides_in_every_other_way_ends_with_its_worker() {
    let Some(site) = site() else { return };
    let daemon =
        site.run(1).args(["--drain-timeout", "2s"]).command(odd_mode(&["escape-clean"])).start();
    daemon.wait_line(|line| line.ends_with(": 1 worker ready"), "the worker");
    let leaf = directory(&daemon).join("worker.1");
    let both = eventually("the worker and what it started", || {
        // Which is which only their parents tell.
        Some(members(&leaf)).filter(|members| members.len() == 2)
    });
    let started = daemon.wait_line(|line| line.contains(" started: pid "), "the worker");
    let is_main = |pid: &&i32| started.contains(&format!(" started: pid {pid},"));
    let main = *both.iter().find(is_main).expect("the main process is in it");
    let stray = *both.iter().find(|pid| !is_main(pid)).expect("another is in it");
    let stray = Process::open(stray).expect("it does not end by itself");
    Process::open(main).expect("a worker").signal(Signal::SIGKILL).expect("a worker");
    daemon.wait_line(
        |line| line.contains("worker 1 (odd.0) left 1 process behind; sending SIGTERM"),
        "that it is known",
    );
    daemon.wait_line(
        |line| line.contains("killing worker 1 (odd.0) and all its processes after 5"),
        "its end",
    );
    assert!(stray.ends_within(Duration::from_secs(15)), "it lives on");
    eventually("its cgroup to go", || (!leaf.exists()).then_some(()));
    assert!(daemon.is_running());
    stop_well(&daemon);
}

/// The last of them is seen to go without being our child or having a pidfd of ours.
#[test]
fn what_is_left_in_a_cgroup_may_end_by_itself() {
    let Some(site) = site() else { return };
    let script = format!(
        "env -i setsid sh -c 'trap \"\" TERM; while test ! -e {}; do sleep 0.05; done' & exec {}",
        site.path("end").display(),
        http_rust()[0].to_string_lossy()
    );
    let daemon = site
        .run(1)
        .args(["--stop-signal", "TERM:120s"])
        .command(["sh", "-c", script.as_str()])
        .start();
    let main = wait_serving(&daemon, 1)[0];
    let leaf = directory(&daemon).join("worker.1");
    eventually("what it started", || (members(&leaf).len() >= 2).then_some(()));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_line(
        |line| line.contains("worker 1 (sh.0) left ") && line.contains(" behind; "),
        "that something is left",
    );
    assert!(!members(&leaf).contains(&main));
    fs::write(site.path("end"), "").expect("a file");
    eventually("its cgroup to go", || (!leaf.exists()).then_some(()));
    assert_eq!(daemon.count_lines(|line| line.contains("killing")), 0);
    stop_well(&daemon);
}

#[test]
fn what_a_probe_leaves_behind_ends_with_it_however_it_hides() {
    let Some(site) = site() else { return };
    let file = site.path("pid");
    let command =
        format!("exec:(setsid env -i /bin/sleep 5000 & echo $! > {}); exit 0", file.display());
    let daemon = site.run(1).args(["--ready", &command]).command(odd_mode(&["alive"])).start();
    daemon.wait_line(|line| line.ends_with(": 1 worker ready"), "the worker");
    let pid = fs::read_to_string(&file).expect("its pid").trim().parse().expect("a pid");
    daemon.eventually("the end of what is left", || Process::open(pid).is_err().then_some(()));
    assert_eq!(members(&directory(&daemon).join("worker.1")).len(), 1);
    let directory = directory(&daemon);
    stop_well(&daemon);
    assert!(!directory.exists(), "it is left behind");
}

#[test]
fn a_storm_of_forks_ends_with_its_worker() {
    let Some(site) = site() else { return };
    let daemon =
        site.run(1).args(["--drain-timeout", "500ms"]).command(odd_mode(&["fork-storm"])).start();
    daemon.wait_line(|line| line.ends_with(": 1 worker ready"), "the worker");
    let directory = directory(&daemon);
    reload_well(&daemon);
    let killing = "killing worker 1 (odd.0) and all its processes";
    daemon.wait_line(|line| line.contains(killing), "the end of the first");
    let first = directory.join("worker.1");
    eventually("the first storm to end", || (!first.exists()).then_some(()));
    assert_eq!(daemon.count_lines(|line| line.contains("outlives SIGKILL")), 0);
    stop_well(&daemon);
    assert!(!directory.exists(), "it is left behind");
}

#[test]
fn where_nothing_is_delegated_it_is_said_and_the_workers_serve() {
    let Some(site) = site() else { return };
    let daemon = site.run(2).kept(Kept::InTree).command(http_rust()).start();
    daemon.wait_line(
        |line| {
            line.contains("no writable cgroup v2 (our own cgroup `")
                && line.contains("/plain` is not delegated to us, see `Delegate=` in ")
                && line.ends_with("told by parent, session and environment")
        },
        "why there are none",
    );
    wait_serving(&daemon, 2);
    let plain = site.home.cgroup(Kept::InTree).expect("it was made");
    assert_eq!(groups(&plain), Vec::<PathBuf>::new());
    stop_well(&daemon);
    assert_eq!(daemon.count_lines(|line| line.contains("processor time")), 0);
}

#[test]
fn a_daemon_in_a_sub_group_of_what_is_delegated_makes_its_own_beside_it() {
    let Some(site) = site() else { return };
    let text = format!(
        "mkdir '{0}/sup' && echo 0 > '{0}/sup/cgroup.procs' && exec '{1}' \"$@\"",
        delegated(&site).display(),
        env!("CARGO_BIN_EXE_shepherd")
    );
    let daemon = site.run(1).binary(wrapper(&site.home, &text)).command(http_rust()).start();
    wait_serving(&daemon, 1);
    assert_eq!(directory(&daemon), delegated(&site).join("shepherd.http"));
    assert_eq!(members(&delegated(&site).join("sup")), [daemon.pid()]);
    stop_well(&daemon);
    assert_eq!(groups(&delegated(&site)), [delegated(&site).join("sup")]);
}

#[test]
fn what_a_killed_daemon_has_left_is_taken_over_once_nobody_is_in_it() {
    let Some(site) = site() else { return };
    let daemon = site.run(2).args(["--name", "web"]).command(http_rust()).start();
    let workers = wait_serving(&daemon, 2);
    let directory = directory(&daemon);
    let builder = daemon.builder();
    daemon.signal(Signal::SIGKILL);
    daemon.wait_exit();
    assert_eq!(groups(&directory).len(), 2, "the daemon did it after its end");

    // Its workers live on: they keep what they have.
    let other = free_port();
    let second = Daemon::run().home(&site.home).listen(&other).args(["--name", "web"]);
    let second = second.command(http_rust()).start();
    wait_serving(&second, 1);
    assert_eq!(self::directory(&second), delegated(&site).join("shepherd.web-2"));
    assert_eq!(second.stop().code(), Some(0));
    assert_eq!(groups(&delegated(&site)), std::slice::from_ref(&directory));
    for pid in &workers {
        let worker = Process::open(*pid).expect("a worker lives on");
        worker.signal(Signal::SIGKILL).expect("a worker");
        assert!(worker.ends_within(Duration::from_secs(10)));
    }
    let third = builder.start();
    wait_serving(&third, 2);
    assert_eq!(self::directory(&third), directory);
    let leaf = |number: u32| directory.join(format!("worker.{number}"));
    assert_eq!(groups(&directory), [leaf(1), leaf(2)]);
    stop_well(&third);
}

/// A user whose unit is delegated owns the directory and the two files that processes are moved by.
#[test]
fn an_ordinary_user_keeps_workers_in_what_was_delegated_to_it() {
    let Some(site) = site() else { return };
    if !geteuid().is_root() {
        // Then all the other tests have shown it.
        return;
    }
    let files = ["", "cgroup.procs", "cgroup.subtree_control"];
    let daemon = as_nobody(&site, &files).command(IDLE).start();
    daemon.wait_line(|line| line.ends_with(": 1 worker ready"), "the worker");
    let directory = directory(&daemon);
    assert_eq!(members(&directory.join("worker.1")), daemon.workers());
    stop_well(&daemon);
    assert!(!directory.exists(), "it is left behind");
}

/// Such a user may make cgroups, and move nobody into them.
#[test]
fn a_cgroup_that_cannot_be_entered_is_given_up_after_one_failure() {
    let Some(site) = site() else { return };
    if !geteuid().is_root() {
        return;
    }
    let daemon = as_nobody(&site, &[""]).command(IDLE).start();
    daemon.wait_line(
        |line| {
            line.contains("worker 1 (sleep.0) cannot start: entering its cgroup: Permission denied")
        },
        "the stage and the cause",
    );
    daemon.wait_line(
        |line| {
            line.contains("cannot keep workers in cgroups: entering its cgroup: Permission denied")
                && line.ends_with("told by parent, session and environment")
        },
        "what follows from it",
    );
    daemon.wait_line(|line| line.ends_with(": 1 worker ready"), "the worker, without one");
    assert_eq!(groups(&directory(&daemon)), Vec::<PathBuf>::new());
    stop_well(&daemon);
}

#[test]
fn when_no_more_cgroups_can_be_made_workers_start_without() {
    let Some(site) = site() else { return };
    let daemon = site.run(1).command(http_rust()).start();
    wait_serving(&daemon, 1);
    let directory = directory(&daemon);
    fs::write(directory.join("cgroup.max.descendants"), "1").expect("a limit");
    daemon.signal(Signal::SIGTTIN);
    daemon.wait_line(
        |line| {
            line.contains("cannot keep workers in cgroups: cannot make one: Resource temporarily")
        },
        "why not",
    );
    daemon.wait_line(|line| line.contains("worker 2 (http.1) is ready"), "it serves all the same");
    assert_eq!(groups(&directory), [directory.join("worker.1")]);
    // Those in a cgroup and those in none are replaced and stopped alike.
    reload_well(&daemon);
    wait_only_generation(&daemon, 2, 2);
    stop_well(&daemon);
    assert!(!directory.exists(), "it is left behind");
}

/// As filters of containers do that cannot look into the arguments of that call.
#[test]
fn where_a_filter_refuses_to_make_a_process_in_a_cgroup_it_enters_by_itself() {
    let Some(site) = site() else { return };
    let binary = without_clone3(&site, Errno::ENOSYS);
    let daemon = site.run(2).binary(binary).command(http_rust()).start();
    let workers = wait_serving(&daemon, 2);
    let status = fs::read_to_string(format!("/proc/{}/status", workers[0])).expect("its status");
    assert!(status.lines().any(|line| line == "Seccomp:\t2"), "there is no filter: {status}");
    let directory = directory(&daemon);
    for (number, worker) in (1..).zip(&workers) {
        assert_eq!(members(&directory.join(format!("worker.{number}"))), [*worker]);
    }
    reload_well(&daemon);
    wait_only_generation(&daemon, 2, 2);
    stop_well(&daemon);
    assert!(!directory.exists(), "it is left behind");
}

/// A shepherd that gets this error from clone3(2).
pub(crate) fn without_clone3(site: &Site, error: Errno) -> PathBuf {
    let filter = site.path("filter.py");
    let text = WITHOUT_CLONE3.replace("REFUSAL", &(error as i32).to_string());
    fs::write(&filter, text).expect("written");
    let shepherd = env!("CARGO_BIN_EXE_shepherd");
    let text = format!("exec python3 '{}' '{shepherd}' \"$@\"", filter.display());
    wrapper(&site.home, &text)
}

/// Becomes a command that a filter refuses clone3(2), see seccomp(2).
const WITHOUT_CLONE3: &str = r#"
import ctypes, os, struct, sys
CLONE3 = 435
NO_NEW_PRIVS, SET_SECCOMP, FILTER = 38, 22, 2
code = struct.pack("HBBI" * 4,
    0x20, 0, 0, 0,               # Loads the number of the call.
    0x15, 0, 1, CLONE3,          # Skips one where it is another.
    0x06, 0, 0, 0x50000 | REFUSAL,
    0x06, 0, 0, 0x7fff0000)      # Allows it.
room = ctypes.create_string_buffer(code, len(code))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
program = Program(4, ctypes.addressof(room))
prctl = ctypes.CDLL(None, use_errno=True).prctl
if prctl(NO_NEW_PRIVS, 1, 0, 0, 0) or prctl(SET_SECCOMP, FILTER, ctypes.byref(program), 0, 0):
    sys.exit("no filter: " + os.strerror(ctypes.get_errno()))
os.execv(sys.argv[1], sys.argv[1:])
"#;

/// A worker that counts as ready because it has no socket and lives.
const IDLE: [&str; 2] = ["sleep", "100000"];

/// A daemon of the user nobody, who owns these of what is delegated.
fn as_nobody(site: &Site, files: &[&str]) -> Builder {
    let mut cgroup = delegated(site);
    if files.len() == 1 {
        // Whoever moves between two cgroups needs a way through the one above both.
        cgroup = delegated(site).join("sup");
        fs::create_dir(&cgroup).expect("a cgroup");
    }
    for file in files {
        chown(delegated(site).join(file), Some(65534), Some(65534)).expect("a file of a cgroup");
    }
    let runtime = site.path("nobody");
    fs::create_dir(&runtime).expect("a runtime directory");
    chown(&runtime, Some(65534), Some(65534)).expect("a runtime directory");
    copy_program(Path::new(env!("CARGO_BIN_EXE_shepherd")), &site.path("shepherd-copy"));
    let text = format!(
        "echo 0 > '{}/cgroup.procs' && exec setpriv --reuid 65534 --regid 65534 --clear-groups \
         '{}' \"$@\"",
        cgroup.display(),
        site.path("shepherd-copy").display(),
    );
    let binary = wrapper(&site.home, &text);
    let ready = ["--ready", "alive:100ms"];
    let builder = Daemon::run().home(&site.home).binary(binary).args(ready);
    builder.env("XDG_RUNTIME_DIR", runtime).directory("/")
}

/// A site whose daemons may make cgroups; none where we cannot.
fn site() -> Option<Site> {
    let site = Site::new();
    if site.home.cgroup(Kept::InCgroups).is_none() {
        eprintln!("there is no writable cgroup v2, so nothing is tested with it");
        return None;
    }
    Some(site)
}

fn delegated(site: &Site) -> PathBuf {
    site.home.cgroup(Kept::InCgroups).expect("a site with cgroups")
}

/// Where the daemon says that it keeps its workers.
#[track_caller]
fn directory(daemon: &Daemon) -> PathBuf {
    let line = daemon.wait_line(|line| line.contains(KEPT_BELOW), "where workers are kept");
    let path = line.split_once(KEPT_BELOW).and_then(|(_, rest)| rest.strip_suffix('`'));
    path.unwrap_or_else(|| daemon.fail("a path")).into()
}

fn odd_mode(arguments: &[&str]) -> Vec<OsString> {
    let mut words = vec![odd().into_os_string()];
    words.extend(arguments.iter().map(OsString::from));
    words
}
