//! Workers as another user, within limits of their own: they have what they were given and nothing
//! of root, and what cannot be is refused before anything runs.

#![expect(clippy::print_stderr, reason = "a test that cannot run says so")]

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::{
    sys::signal::Signal,
    unistd::{Uid, User, getegid, geteuid},
};

use crate::{
    given::{Given, dump, environment},
    harness::{Builder, Daemon, Home, Process, free_port, odd},
    mistakes::{CONFIGURATION, USAGE, refused},
    site::{
        Site, copy_program, reload, reload_well, stop_well, wait_only_generation, wait_serving,
        wrapper,
    },
};

/// Says so where a test has to be left out: nobody but root may start workers as another user.
fn cannot_become_others() -> bool {
    let cannot = !geteuid().is_root();
    if cannot {
        eprintln!("not root: nobody else may start workers as another user");
    }
    cannot
}

/// A user of whom nobody has heard, another one for each test.
fn stranger(site: &Site) -> u32 {
    200_000 + u32::from(site.port.number())
}

/// The worker for tests in a place that any user may reach.
fn public_odd(home: &Home) -> PathBuf {
    let path = home.directory().join("odd");
    copy_program(&odd(), &path);
    path
}

/// A directory that belongs to a user.
fn directory_of(home: &Home, user: u32) -> PathBuf {
    let path = home.directory().join(format!("of-{user}"));
    fs::create_dir(&path).expect("a directory");
    chown(&path, Some(user), Some(user)).expect("root may");
    path
}

/// A worker of `user` that writes itself down, and the daemon that is still running.
#[track_caller]
fn given_to<A: AsRef<std::ffi::OsStr>>(
    builder: Builder,
    home: &Arc<Home>,
    user: u32,
    arguments: impl IntoIterator<Item = A>,
) -> (Daemon, Given) {
    let file = directory_of(home, user).join("dump");
    let mut command = dump(&file);
    command[0] = public_odd(home).into();
    let port = free_port();
    let builder = builder.home(home).directory("/").listen(port.v4()).args(["--ready", "notify"]);
    let builder = builder.args(arguments);
    let daemon = builder.command(command).start();
    let given = Given::wait(&daemon, &file);
    // Its word came from a socket that belongs to it.
    daemon.wait_line(|line| line.ends_with(": it said so"), "its word");
    (daemon, given)
}

#[track_caller]
fn assert_powerless(given: &Given) {
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(given.status[set], "0".repeat(16), "{set}");
    }
}

#[test]
fn nothing_of_root_stays_with_a_worker_of_another_user() {
    if cannot_become_others() {
        return;
    }
    let home = Home::new();
    let nobody = User::from_name("nobody").expect("readable").expect("on every system");
    let (user, group) = (nobody.uid.as_raw(), nobody.gid.as_raw());
    // Capabilities that would be handed on at exec, and would outlive the change of user, were they
    // not given up.
    let text = format!(
        "exec setpriv --inh-caps=+chown,+net_raw --ambient-caps=+chown,+net_raw \
         --securebits=+no_setuid_fixup,+keep_caps_locked '{}' \"$@\"",
        env!("CARGO_BIN_EXE_shepherd")
    );
    let builder = Daemon::run()
        .binary(wrapper(&home, &text))
        .env("HOME", "/root")
        .env("USER", "root")
        .env("LOGNAME", "root")
        .env("MAIL", "/var/mail/root")
        .env("SSH_AUTH_SOCK", "/root/agent");
    let (daemon, given) = given_to(builder, &home, user, ["--user", "nobody", "--no-new-privs"]);

    let four = |id: u32| [id; 4].map(|id| id.to_string()).join("\t");
    assert_eq!(given.status["Uid"], four(user));
    assert_eq!(given.status["Gid"], four(group));
    let groups: Vec<&str> = given.status["Groups"].split_whitespace().collect();
    assert!(groups.contains(&group.to_string().as_str()) && !groups.contains(&"0"), "{groups:?}");
    assert_powerless(&given);
    assert_eq!(given.status["NoNewPrivs"], "1");
    assert_eq!(given.descriptors.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(given.variable("HOME"), nobody.dir.to_str().expect("text"));
    assert_eq!((given.variable("USER"), given.variable("LOGNAME")), ("nobody", "nobody"));
    for gone in ["MAIL", "SSH_AUTH_SOCK", "XDG_RUNTIME_DIR"] {
        assert!(!given.environment.contains_key(gone), "{gone}: {:?}", given.environment);
    }
    let worker = given.ids["pid"];
    let badness = |pid: i32| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).ok();
    assert_eq!(badness(worker), badness(daemon.pid()));
    let socket = fs::metadata(given.variable("NOTIFY_SOCKET")).expect("its socket");
    assert_eq!((socket.uid(), socket.gid(), socket.mode() & 0o777), (user, group, 0o600));
    stop_well(&daemon);
}

#[test]
fn a_worker_of_another_user_gets_nothing_of_root_back() {
    if cannot_become_others() {
        return;
    }
    let site = Site::new();
    let user = stranger(&site).to_string();
    let secret = site.path("secret");
    fs::write(&secret, "x").expect("written");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("ours");
    let daemon = site
        .run(1)
        .directory("/")
        .args(["--user", &user, "--ready", "notify", "--drain-timeout", "1s"])
        .command(["/usr/bin/python3", "-c", GREEDY, secret.to_str().expect("text")])
        .start();
    daemon.wait_line(|line| line == "asked for everything", "the end of its list");
    let said = |start: &str| daemon.count_lines(|line| line.starts_with(start));
    assert_eq!((said("refused "), said("got ")), (11, 0));
    wait_serving(&daemon, 1);
    stop_well(&daemon);
}

/// Asks for what only root has, and says what came of it.
const GREEDY: &str = r#"
import os, resource, signal, socket, sys
daemon = os.getppid()
def ask(name, function):
    try:
        function()
        print("got", name, flush=True)
    except OSError:
        print("refused", name, flush=True)
ask("setuid", lambda: os.setuid(0))
ask("setresuid", lambda: os.setresuid(-1, 0, -1))
ask("setgid", lambda: os.setgid(0))
ask("setgroups", lambda: os.setgroups([0]))
ask("root's file", lambda: open(sys.argv[1]))
ask("kill", lambda: os.kill(daemon, 0))
ask("memory", lambda: open(f"/proc/{daemon}/mem"))
ask("descriptors", lambda: os.listdir(f"/proc/{daemon}/fd"))
ask("niceness", lambda: os.nice(-1))
ask("directory", lambda: os.listdir(os.path.dirname(os.environ["NOTIFY_SOCKET"])))
ask("socket", lambda: open(os.path.dirname(os.environ["NOTIFY_SOCKET"]) + "/notify.99", "w"))
print("asked for everything", flush=True)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
while True: signal.pause()
"#;

#[test]
fn keys_of_root_stay_with_root() {
    if cannot_become_others() {
        return;
    }
    let home = Home::new();
    let keys = home.directory().join("keys.py");
    fs::write(&keys, KEYS).expect("written");
    let keys = keys.to_string_lossy();
    let text = format!("exec python3 '{keys}' keep \"{}\" \"$@\"", env!("CARGO_BIN_EXE_shepherd"));
    let daemon = Daemon::run()
        .home(&home)
        .binary(wrapper(&home, &text))
        .directory("/")
        .args(["--user", "nobody", "--ready", "alive:1ms"])
        .command(["/usr/bin/python3", keys.as_ref(), "read"])
        .start();
    let said = daemon.wait_line(|line| line.starts_with("keyring: "), "what came of it");
    if said.contains("no keys here") {
        eprintln!("this machine lets nobody have keys");
    } else {
        assert!(said.contains("not readable"), "{said}");
    }
    stop_well(&daemon);
}

/// Runs a command with a key in a session keyring of its own, or reads that key.
const KEYS: &str = r#"
import ctypes, os, platform, sys, time
ADD_KEY, KEYCTL = {"x86_64": (248, 250), "aarch64": (217, 219)}.get(platform.machine(), (0, 0))
SESSION, JOIN_SESSION, READ = -3, 1, 11
call = ctypes.CDLL(None).syscall
if sys.argv[1] == "keep":
    key = -1
    if KEYCTL and call(KEYCTL, JOIN_SESSION, None) > 0:
        key = call(ADD_KEY, b"user", b"secret", b"s3cr3t", 6, SESSION)
    os.environ["KEY"] = str(key)
    os.execv(sys.argv[2], sys.argv[2:])
key, room = int(os.environ["KEY"]), ctypes.create_string_buffer(100)
if key < 0: print("keyring: no keys here", flush=True)
elif call(KEYCTL, READ, key, room, 100) < 0: print("keyring: not readable", flush=True)
else: print("keyring: read", room.value, flush=True)
time.sleep(1000)
"#;

#[test]
fn a_number_without_an_entry_is_a_user_with_no_name_and_the_root_as_home() {
    if cannot_become_others() {
        return;
    }
    let home = Home::new();
    let user = 3_141_592;
    let id = user.to_string();
    let builder = Daemon::run().env("USER", "root").env("LOGNAME", "root");
    let (daemon, given) = given_to(builder, &home, user, ["--user", &id]);
    assert_eq!(given.status["Uid"], [id.as_str(); 4].join("\t"));
    assert_eq!(given.status["Gid"], [id.as_str(); 4].join("\t"));
    assert_eq!(given.status["Groups"], "");
    assert_powerless(&given);
    assert_eq!(given.variable("HOME"), "/");
    assert!(!given.environment.contains_key("USER") && !given.environment.contains_key("LOGNAME"));
    stop_well(&daemon);
}

#[test]
fn groups_and_variables_that_were_asked_for_win_over_those_of_the_user() {
    if cannot_become_others() {
        return;
    }
    let home = Home::new();
    let arguments = ["--user", "nobody", "--group", "1234", "--groups", "77,88,99"];
    let nobody = User::from_name("nobody").expect("readable").expect("on every system");
    let variables = ["--env", "HOME=/srv", "--env", "XDG_RUNTIME_DIR=/srv/run"];
    let (daemon, given) =
        given_to(Daemon::run(), &home, nobody.uid.as_raw(), arguments.into_iter().chain(variables));
    assert_eq!(given.status["Gid"], ["1234"; 4].join("\t"));
    let mut groups: Vec<&str> = given.status["Groups"].split_whitespace().collect();
    groups.sort_unstable();
    assert_eq!(groups, ["77", "88", "99"]);
    assert_eq!((given.variable("HOME"), given.variable("USER")), ("/srv", "nobody"));
    assert_eq!(given.variable("XDG_RUNTIME_DIR"), "/srv/run");
    stop_well(&daemon);
}

#[test]
fn root_of_another_group_is_root_all_the_same() {
    if cannot_become_others() {
        return;
    }
    let home = Home::new();
    let closed = home.directory().join("closed");
    fs::create_dir(&closed).expect("made");
    chown(&closed, Some(3_141_592), Some(3_141_592)).expect("root may");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("ours");
    let arguments = ["--group", "1234", "--directory"].map(std::ffi::OsStr::new);
    let arguments = arguments.into_iter().chain([closed.as_os_str()]);
    let (daemon, given) = given_to(Daemon::run(), &home, 0, arguments);
    assert_eq!(given.status["Uid"], ["0"; 4].join("\t"));
    assert_eq!(given.status["Gid"], ["1234"; 4].join("\t"));
    assert_eq!(given.status["Groups"], "");
    assert_eq!(given.directory, closed.to_string_lossy());
    stop_well(&daemon);
}

#[test]
fn a_name_is_looked_up_at_each_reload_with_the_groups_it_is_in() {
    if cannot_become_others() {
        return;
    }
    let site = Site::new();
    let user = stranger(&site);
    let database = |user: u32, group: u32| {
        let people = format!("root:x:0:0::/root:/bin/sh\nweb:x:{user}:{group}::/srv/web:/bin/sh\n");
        fs::write(site.path("passwd"), people).expect("written");
        let groups =
            format!("root:x:0:\nweb:x:{group}:\nextra:x:4242:other,web\nmore:x:4243:web\n");
        fs::write(site.path("group"), groups).expect("written");
    };
    database(user, user);
    let text = format!(
        "exec unshare --mount sh -c 'mount --bind \"{0}/passwd\" /etc/passwd && \
         mount --bind \"{0}/group\" /etc/group && exec \"{1}\" \"$@\"' sh \"$@\"",
        site.home.directory().display(),
        env!("CARGO_BIN_EXE_shepherd")
    );
    let daemon = site
        .run(2)
        .binary(wrapper(&site.home, &text))
        .directory("/")
        .args(["--user", "web"])
        .command([public_odd(&site.home).as_os_str(), "poll".as_ref()])
        .start();
    let ids = |pid: i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
        let line = |name: &str| {
            let words = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
            let mut ids: Vec<u32> =
                words.split_whitespace().map(|id| id.parse().expect("an id")).collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        (line("Uid:"), line("Gid:"), line("Groups:"))
    };
    let first = wait_serving(&daemon, 2);
    assert_eq!(ids(first[0]), (vec![user], vec![user], vec![4242, 4243, user]));
    assert_eq!(environment(first[0])["HOME"], "/srv/web");

    // A name that has gone is a mistake, and those who have it go on.
    fs::write(site.path("passwd"), "root:x:0:0::/root:/bin/sh\n").expect("written");
    let outcome = reload(&daemon);
    assert!(
        outcome.contains(" aborted: ")
            && outcome.contains("cannot use `--user web`: there is no such user"),
        "{outcome}"
    );
    assert_eq!(daemon.workers(), first);

    database(user + 1, user + 2);
    reload_well(&daemon);
    // An old one would answer as well, or exit with the question in its hand.
    wait_only_generation(&daemon, 3, 2);
    let expected = (vec![user + 1], vec![user + 2], vec![4242, 4243, user + 2]);
    for pid in daemon.workers() {
        assert_eq!(ids(pid), expected);
    }
    assert_eq!(site.version(), "v1");
    stop_well(&daemon);
}

#[test]
fn limits_niceness_and_mask_are_the_workers_alone() {
    let port = free_port();
    let home = Home::new();
    let file = home.directory().join("dump");
    let daemon = Daemon::run()
        .home(&home)
        .listen(port.v4())
        .args(["--limit", "nofile=512:600", "--limit", "core=0", "--limit", "core=1M"])
        .args(["--limit", "stack=4M:8M", "--limit", "cpu=10m", "--limit", "nproc=5000"])
        .args(["--umask", "027", "--nice", "19"])
        .command(dump(&file))
        .start();
    let given = Given::wait(&daemon, &file);
    let words = |pid_limits: &str, name: &str| -> Vec<String> {
        let line = pid_limits.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
        line.split_whitespace().map(str::to_owned).collect()
    };
    let of = |pid: i32| fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
    let limits = of(given.ids["pid"]);
    for (name, soft, hard) in [
        ("Max open files", "512", "600"),
        ("Max core file size", "1048576", "1048576"),
        ("Max stack size", "4194304", "8388608"),
        ("Max cpu time", "600", "600"),
        ("Max processes", "5000", "5000"),
    ] {
        assert_eq!(words(&limits, name)[..2], [soft, hard], "{name}");
        assert_ne!(words(&of(daemon.pid()), name)[..2], [soft, hard], "{name} of the daemon");
    }
    assert_eq!(given.status["Umask"], "0027");
    let nice = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a stat");
        let (_, rest) = stat.rsplit_once(')').expect("a name");
        // Field 19, proc_pid_stat(5); the first of these is field 3.
        rest.split_whitespace().nth(16).expect("a niceness").to_owned()
    };
    assert_eq!(nice(given.ids["pid"]), "19");
    assert_ne!(nice(daemon.pid()), "19");
    assert_eq!(given.status["NoNewPrivs"], "0");
    stop_well(&daemon);
}

#[test]
fn a_user_that_may_have_no_more_processes_is_told_of_and_the_others_serve() {
    if cannot_become_others() {
        return;
    }
    let site = Site::new();
    let user = stranger(&site).to_string();
    let daemon = site
        .run(3)
        .directory("/")
        .args(["--user", &user, "--limit", "nproc=1"])
        .command([public_odd(&site.home).as_os_str(), "poll".as_ref()])
        .start();
    daemon.wait_line(
        |line| {
            line.contains(" cannot start: ")
                && line.contains(&format!("user `{user}` has as many processes as it may have"))
                && line.contains("--limit nproc=N")
                && line.contains("; restarting in ")
        },
        "the cause, the remedy, and what comes next",
    );
    daemon.wait_line(|line| line.contains(" is ready after "), "a worker");
    assert_eq!(site.version(), "v1");
    // The kernel looks at how many there are before the change of user, so there is one more.
    let served = daemon.wait_workers(2);
    // When there is room the next attempt succeeds.
    let mark = daemon.mark();
    let process = Process::open(served[0]).expect("a worker");
    process.signal(Signal::SIGKILL).expect("ours");
    daemon.wait_line_since(mark, |line| line.contains(" is ready after "), "another");
    stop_well(&daemon);
}

// ---- looked at -----------------------------------------------------------------------------

/// A daemon of a container's root: it may become any user and look into no process.
fn without_sight(site: &Site) -> PathBuf {
    let text = format!(
        "exec setpriv --inh-caps=-sys_ptrace --bounding-set=-sys_ptrace '{}' \"$@\"",
        env!("CARGO_BIN_EXE_shepherd")
    );
    wrapper(&site.home, &text)
}

#[test]
fn a_worker_of_another_user_is_seen_waiting_without_the_capability_to_look() {
    if cannot_become_others() {
        return;
    }
    for mode in ["poll", "epoll", "accept-blocking"] {
        let site = Site::new();
        let user = stranger(&site).to_string();
        let daemon = site
            .run(2)
            .binary(without_sight(&site))
            .directory("/")
            .args(["--user", &user, "--ready", "listen"])
            .command([public_odd(&site.home).as_os_str(), mode.as_ref()])
            .start();
        let workers = wait_serving(&daemon, 2);
        // Seen again after a restart.
        let mark = daemon.mark();
        let process = Process::open(workers[0]).expect("a worker");
        process.signal(Signal::SIGKILL).expect("ours");
        daemon.wait_line_since(
            mark,
            |line| line.contains("is ready") && line.ends_with("seen waiting on its socket"),
            "it is seen",
        );
        reload_well(&daemon);
        stop_well(&daemon);
    }
}

#[test]
fn what_a_worker_of_another_user_leaves_behind_is_known_for_its_own() {
    if cannot_become_others() {
        return;
    }
    let site = Site::new();
    let user = stranger(&site).to_string();
    let daemon = site
        .run(1)
        .binary(without_sight(&site))
        .directory("/")
        .args(["--user", &user, "--drain-timeout", "1s"])
        .command([public_odd(&site.home).as_os_str(), "escape".as_ref()])
        .start();
    let line = daemon.wait_line(|line| line.contains("worker 1 (odd.0) started: pid "), "a worker");
    let (_, pid) = line.split_once("started: pid ").expect("a pid");
    let pid = pid.split(',').next().and_then(|pid| pid.parse().ok()).expect("a pid");
    wait_serving(&daemon, 1);
    Process::open(pid).expect("a worker").signal(Signal::SIGKILL).expect("ours");
    daemon.wait_line(
        |line| line.contains("worker 1 (odd.0) left 1 process behind; sending SIGTERM"),
        "the one that escaped",
    );
    daemon.wait_line(|line| line.contains("worker 2 (odd.0) is ready"), "the replacement");
    stop_well(&daemon);
}

#[test]
fn a_program_that_nobody_may_look_into_is_unknown_and_not_waited_for() {
    if cannot_become_others() {
        return;
    }
    let site = Site::new();
    let user = stranger(&site).to_string();
    let program = public_odd(&site.home);
    // Who may run a program but not read it may not read its memory either.
    fs::set_permissions(&program, fs::Permissions::from_mode(0o711)).expect("ours");
    let daemon = site
        .run(1)
        .binary(without_sight(&site))
        .directory("/")
        .args(["--user", &user])
        .command([program.as_os_str(), "poll".as_ref()])
        .start();
    daemon.wait_line(
        |line| line.contains("is ready after") && line.contains("assumed: alive for 1s"),
        "that it is assumed",
    );
    assert_eq!(site.version(), "v1");
    stop_well(&daemon);
}

#[test]
fn a_worker_reaches_its_notification_socket_although_roots_own_directory_is_closed() {
    if cannot_become_others() {
        return;
    }
    let home = Home::new();
    let closed = home.directory().join("closed");
    fs::create_dir(&closed).expect("made");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("ours");
    // With a /run of its own, so that nobody else's is touched.
    let text = format!(
        "exec unshare --mount sh -c 'mount -t tmpfs -o mode=755 none /run && exec \"{}\" \"$@\"' sh \"$@\"",
        env!("CARGO_BIN_EXE_shepherd")
    );
    let user = 3_141_592;
    let builder = Daemon::run().binary(wrapper(&home, &text)).env("XDG_RUNTIME_DIR", &closed);
    let (daemon, given) = given_to(builder, &home, user, ["--user", &user.to_string()]);
    assert_eq!(given.variable("NOTIFY_SOCKET"), "/run/shepherd/odd/notify.1");
    assert_eq!(fs::read_dir(&closed).expect("readable").count(), 0, "nothing is left there");
    stop_well(&daemon);
}

#[test]
fn a_worker_of_another_user_may_open_its_output_anew() {
    if cannot_become_others() {
        return;
    }
    let line = "echo out >/dev/stdout; echo err >/dev/stderr; exec sleep 1000";
    let daemon = Daemon::run()
        .directory("/")
        .args(["--name", "web", "--user", "3141592", "--logs", "prefix", "--ready", "alive:1ms"])
        .command(["sh", "-c", line])
        .start();
    for line in ["web.0 | out", "web.0 | err"] {
        daemon.wait_line(|text| text == line, "what it wrote by the name of its output");
    }
    stop_well(&daemon);
}

// ---- refused -------------------------------------------------------------------------------

fn sleeping() -> Builder {
    Daemon::run().directory("/").args(["--ready", "alive:1ms"]).command(["sleep", "1000"])
}

#[test]
fn who_is_unknown_is_a_wrong_configuration() {
    for (flag, name, kind) in [
        ("--user", "no-such-user", "user"),
        ("--group", "no-such-group", "group"),
        ("--groups", "no-such-group", "group"),
    ] {
        refused(
            sleeping().args([flag, name]),
            CONFIGURATION,
            &[
                &format!("cannot use `{flag} {name}`: there is no such {kind}"),
                &format!("{kind}add"),
            ],
        );
    }
}

#[test]
fn what_cannot_be_read_is_wrong_usage_and_its_flag_is_named() {
    for (flag, value, words) in [
        ("--user", "a:b", ["has a `:`", "write `--user a --group b`"]),
        ("--user", "4294967295", ["`4294967295`", "above 4294967294"]),
        ("--groups", "a,,b", ["the name is empty", "write a name or a number"]),
        ("--umask", "0999", ["`0999` is no mask", "such as `027`"]),
        ("--nice", "-21", ["`-21` is no niceness", "from -20 to 19"]),
        ("--limit", "files=1", ["`files` is nothing that can be limited", "nofile"]),
        ("--limit", "nofile=10:5", ["the soft limit of `nofile=10:5`", "`nofile=SOFT:HARD`"]),
        ("--limit", "cpu=10", ["`10` is no limit for `cpu`", "such as `30s`"]),
    ] {
        let text = refused(sleeping().args([flag, value]), USAGE, &words);
        assert!(text.contains(flag), "{flag} is not named: {text}");
    }
}

#[test]
fn what_is_closed_to_the_user_is_told_before_anything_runs() {
    if cannot_become_others() {
        return;
    }
    let home = Home::new();
    let closed = home.directory().join("closed");
    fs::create_dir(&closed).expect("made");
    let program = |name: &str, text: &str, mode: u32| {
        let path = home.directory().join(name);
        crate::site::write_program(&path, text.as_bytes(), mode);
        path
    };
    let inside = closed.join("server");
    copy_program(&odd(), &inside);
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("ours");
    let as_nobody = || Daemon::run().home(&home).directory("/").args(["--user", "nobody"]);
    let whom = "user `nobody` may not";

    let run = |path: &Path| as_nobody().command([path]);
    let way = format!("{whom} enter `{}`", closed.display());
    refused(run(&inside), CONFIGURATION, &["cannot run `", "server`", &way, "permission"]);
    let own = program("own", "#!/bin/sh\n", 0o700);
    refused(run(&own), CONFIGURATION, &[&format!("{whom} run it"), "permission"]);
    let script = program("script", &format!("#!{}\n", inside.display()), 0o755);
    refused(run(&script), CONFIGURATION, &[&format!("{whom} run its interpreter `")]);
    // One that nobody at all may run is as it always was.
    let plain = program("plain", "#!/bin/sh\n", 0o644);
    refused(run(&plain), CONFIGURATION, &["it is not executable", "chmod +x"]);

    let text = refused(
        as_nobody().args(["--directory".as_ref(), closed.as_os_str()]).command(["sleep", "9"]),
        CONFIGURATION,
        &["cannot use directory `", &format!("{whom} enter it"), "--directory"],
    );
    assert!(text.contains(&*closed.to_string_lossy()), "{text}");
    // And the one that the daemon is in, which nobody named.
    refused(
        as_nobody().directory(&closed).command(["sleep", "9"]),
        CONFIGURATION,
        &["cannot use directory `", &format!("{whom} enter it"), "--directory"],
    );
}

/// Everything that an ordinary user may not see is between the binary and the root of the file
/// system, so it runs a copy.
fn as_stranger(home: &Arc<Home>) -> Builder {
    let user = 3_141_592;
    let copy = home.directory().join("shepherd");
    copy_program(Path::new(env!("CARGO_BIN_EXE_shepherd")), &copy);
    let run = home.directory().join("stranger");
    fs::create_dir(&run).expect("made");
    chown(&run, Some(user), Some(user)).expect("root may");
    let text = format!(
        "exec setpriv --reuid {user} --regid {user} --clear-groups '{}' \"$@\"",
        copy.display()
    );
    sleeping().home(home).binary(wrapper(home, &text)).env("XDG_RUNTIME_DIR", run)
}

#[test]
fn without_privilege_nobody_else_may_be_asked_for_and_oneself_may() {
    let home = Home::new();
    let (builder, user) = if geteuid().is_root() {
        (as_stranger(&home), 3_141_592)
    } else {
        (sleeping(), geteuid().as_raw())
    };
    let other = (user + 1).to_string();
    for (flag, value) in [("--user", other.as_str()), ("--group", "7"), ("--groups", "7")] {
        refused(
            builder.clone().args([flag, value]),
            CONFIGURATION,
            &[
                &format!("cannot use `{flag} {value}`: only root, or a process with CAP_SETUID"),
                "start shepherd as root",
            ],
        );
    }
    refused(
        builder.clone().args(["--nice", "-5"]),
        CONFIGURATION,
        &["cannot use `--nice -5`: only root, or a process with CAP_SYS_NICE", "choose a higher"],
    );
    let daemon = builder.args(["--user", &user.to_string(), "--nice", "19"]).start();
    daemon.wait_line(|line| line.contains(" is ready after "), "a worker");
    let pid = daemon.wait_workers(1)[0];
    assert_eq!(fs::metadata(format!("/proc/{pid}")).expect("it lives").uid(), user);
    stop_well(&daemon);
}

#[test]
fn a_user_that_this_namespace_does_not_know_is_refused_as_such_to_its_root() {
    let namespace = ["--user", "--map-root-user"];
    let tried = std::process::Command::new("unshare").args(namespace).arg("true").output();
    if !tried.is_ok_and(|output| output.status.success()) {
        eprintln!("nobody may make a user namespace here");
        return;
    }
    let home = Home::new();
    let shepherd = env!("CARGO_BIN_EXE_shepherd");
    let text = format!("exec unshare {} '{shepherd}' \"$@\"", namespace.join(" "));
    let builder = sleeping().home(&home).binary(wrapper(&home, &text));
    for (flag, value) in [("--user", "3141592"), ("--group", "7"), ("--groups", "7")] {
        let builder = builder.clone().args([flag, value]);
        let words = format!("cannot use `{flag} {value}`: one of its ids is not mapped into this");
        refused(builder, CONFIGURATION, &[&words]);
    }
}

#[test]
fn a_hard_limit_that_may_not_be_raised_is_refused() {
    let text = format!(
        "exec prlimit --nofile=1000:1000 {} '{}' \"$@\"",
        // With the capability it would be raised.
        if geteuid().is_root() {
            "setpriv --inh-caps=-sys_resource --bounding-set=-sys_resource"
        } else {
            ""
        },
        env!("CARGO_BIN_EXE_shepherd")
    );
    let home = Home::new();
    let builder = sleeping().home(&home).binary(wrapper(&home, &text));
    refused(
        builder.clone().args(["--limit", "nofile=500:1001"]),
        CONFIGURATION,
        &[
            "cannot use `--limit nofile=500:1001`: the hard limit is 1000",
            "only root, or a process with CAP_SYS_RESOURCE",
            "choose a lower one",
        ],
    );
    let daemon = builder.args(["--limit", "nofile=500:1000"]).start();
    daemon.wait_line(|line| line.contains(" is ready after "), "a worker");
    stop_well(&daemon);
}

#[test]
fn who_could_not_stop_workers_of_another_user_starts_none() {
    if cannot_become_others() {
        return;
    }
    let home = Home::new();
    let text = format!(
        "exec setpriv --inh-caps=-kill --bounding-set=-kill '{}' \"$@\"",
        env!("CARGO_BIN_EXE_shepherd")
    );
    refused(
        sleeping().home(&home).binary(wrapper(&home, &text)).args(["--user", "nobody"]),
        CONFIGURATION,
        &["cannot use `--user nobody`: without CAP_KILL", "give it that capability"],
    );
}

#[test]
fn a_root_that_may_not_give_files_away_hears_its_workers_all_the_same() {
    if cannot_become_others() {
        return;
    }
    let home = Home::new();
    let text = format!(
        "exec setpriv --inh-caps=-chown --bounding-set=-chown '{}' \"$@\"",
        env!("CARGO_BIN_EXE_shepherd")
    );
    let user = 3_141_592;
    let builder = Daemon::run().binary(wrapper(&home, &text));
    let (daemon, given) = given_to(builder, &home, user, ["--user", &user.to_string()]);
    let socket = fs::metadata(given.variable("NOTIFY_SOCKET")).expect("its socket");
    assert_eq!((socket.uid(), socket.mode() & 0o777), (0, 0o622));
    stop_well(&daemon);
}

#[test]
fn no_new_privileges_alone_leaves_the_user_as_it_is() {
    let home = Home::new();
    let file = home.directory().join("dump");
    let port = free_port();
    let daemon = Daemon::run()
        .home(&home)
        .listen(port.v4())
        .args(["--no-new-privs"])
        .command(dump(&file))
        .start();
    let given = Given::wait(&daemon, &file);
    let four = |id: u32| [id; 4].map(|id| id.to_string()).join("\t");
    assert_eq!(given.status["NoNewPrivs"], "1");
    assert_eq!(given.status["Uid"], four(Uid::effective().as_raw()));
    assert_eq!(given.status["Gid"], four(getegid().as_raw()));
    stop_well(&daemon);
}
