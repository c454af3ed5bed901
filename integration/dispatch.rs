//! Connections that shepherd accepts and gives to workers: who gets which, that none is lost whatever
//! becomes of workers, and what is told of those that misbehave.

#![expect(clippy::disallowed_methods, reason = "settings come from the environment")]

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::Path,
    process::Command,
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::sys::{
    signal::Signal,
    socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
    },
};
use shepherd::control::wire;

use crate::{
    cli::shepherd,
    control::{client, status},
    harness::{
        Builder, DEADLINE, Daemon, Kind, Port, Process, environment, eventually, example,
        free_port, get,
    },
    inherited::handed_over,
    mistakes::{CONFIGURATION, USAGE, refused},
    site::{RUN, Site, reload_well, stop_well, wait_only_generation, wait_serving, write_program},
};

const WORKERS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(60);
/// Answers between two changes.
const ANSWERS: u64 = 20;

fn rust() -> Vec<OsString> {
    vec![example("dispatch").into()]
}

/// The worker that misbehaves, with its mode and the slot where it does.
fn worker(words: &[&str]) -> Vec<OsString> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/dispatch/worker.py");
    let words = words.iter().map(OsString::from);
    ["python3".into(), program.into()].into_iter().chain(words).collect()
}

/// A daemon `web` that dispatches so.
fn dispatching(site: &Site, workers: usize, algorithm: &str) -> Builder {
    let balance = format!("dispatch:{algorithm}");
    let run = site.run(workers).args(["--name", "web", "--balance", &balance]);
    // Drains are looked at by processes that a busy machine may let wait.
    run.deadline(PATIENCE)
}

fn serving(
    site: &Site,
    workers: usize,
    algorithm: &str,
    command: &[OsString],
) -> (Daemon, Vec<i32>) {
    let daemon = dispatching(site, workers, algorithm).command(command).start();
    let pids = wait_serving(&daemon, workers);
    (daemon, pids)
}

fn signal(pid: i32, signal: Signal) {
    Process::open(pid).expect("a worker").signal(signal).expect("a worker");
}

fn service(daemon: &Daemon) -> wire::Service {
    let mut services = status(&client(daemon, "web")).services;
    services.remove(0)
}

#[track_caller]
fn told(daemon: &Daemon, words: &str) -> String {
    daemon.wait_line(|line| line.contains(words), words)
}

/// A request that is answered some time, or its connection closed: what came of it.
struct Asked(JoinHandle<Option<i32>>);

impl Asked {
    fn new(port: &Port, path: &str) -> Asked {
        let mut stream = TcpStream::connect(port.v4()).expect("connected");
        stream.set_read_timeout(Some(DEADLINE)).expect("a time limit");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        Asked(thread::spawn(move || {
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            text.lines().last()?.split(' ').nth(1)?.parse().ok()
        }))
    }

    /// Who has answered.
    #[track_caller]
    fn answered_by(self) -> i32 {
        self.0.join().expect("a client").expect("an answer")
    }
}

/// How many connections each slot answers, of so many that come one after the other.
fn spread(site: &Site, count: usize) -> BTreeMap<String, usize> {
    let mut slots = BTreeMap::new();
    for _ in 0..count {
        *slots.entry(get(&site.port, "/").expect("an answer").slot).or_default() += 1;
    }
    slots
}

// ---- who gets which --------------------------------------------------------------------------

#[test]
fn each_worker_gets_a_connection_in_turn_and_none_has_the_socket() {
    let site = Site::new();
    let (daemon, pids) = serving(&site, WORKERS, "round-robin", &rust());
    let port = site.port.number().to_string();
    assert!(daemon.count_lines(|line| line.contains("seen waiting") || line.contains("waits")) > 0);
    for pid in pids {
        let variables = environment(pid);
        assert_eq!((&*variables["LISTEN_FDS"], &*variables["LISTEN_FDNAMES"]), ("1", "dispatch"));
    }
    let slots = spread(&site, 40);
    assert!(slots.values().all(|&count| count == 10) && slots.len() == WORKERS, "{slots:?}");
    let service = service(&daemon);
    assert_eq!(service.balance.as_deref(), Some("dispatch:round-robin"));
    let dispatched = service.dispatched.expect("they are dispatched");
    assert_eq!((dispatched.taken, dispatched.held, dispatched.given_again), (40, 0, 0));
    assert!(service.workers.iter().all(|worker| worker.taken == Some(10)), "{service:?}");
    let text = shepherd(&daemon, "status", 0).stdout;
    assert!(text.contains("balance dispatch:round-robin"), "{text}");
    assert!(text.contains(&port), "{text}");
    stop_well(&daemon);
    assert!(TcpStream::connect(site.port.v4()).is_err(), "the socket is closed");
}

#[test]
fn who_has_the_fewest_open_ones_gets_the_next_whether_ends_are_told_or_counted() {
    for mode in ["well", "silent"] {
        let site = Site::new();
        let (daemon, _) = serving(&site, 2, "least-connections", &worker(&[mode]));
        // These stay with whom they came to, in turn, and then one of the two loses all it had.
        let mut open: Vec<(i32, TcpStream)> = (0..8).map(|_| stay(&site.port)).collect();
        let first = open[0].0;
        let of_first = open.iter().filter(|(pid, _)| *pid == first).count();
        // What is counted was so a moment ago.
        assert!((3..=5).contains(&of_first), "{mode}: even, not {of_first} of 8");
        open.retain(|(pid, _)| *pid != first);
        // Counts are a second old at most, and asked for with the next connection.
        daemon.eventually("it has none open", || {
            let fourth = [(); 4].map(|()| get(&site.port, "/").expect("an answer").pid);
            (fourth == [first; 4]).then_some(())
        });
        drop(open);
        stop_well(&daemon);
    }
}

/// A connection that stays open, and who has it.
fn stay(port: &Port) -> (i32, TcpStream) {
    let mut stream = TcpStream::connect(port.v4()).expect("connected");
    stream.set_read_timeout(Some(DEADLINE)).expect("a time limit");
    write!(stream, "GET /stays HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut got = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        got.push(byte[0]);
        let text = String::from_utf8_lossy(&got);
        if text.split_once("\r\n\r\n").is_some_and(|(_, body)| body.ends_with('\n')) {
            break;
        }
    }
    let text = String::from_utf8_lossy(&got).into_owned();
    let pid = text.lines().last().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    (pid.expect("a pid"), stream)
}

/// The slot that a client of this address is answered by.
fn slot_of(port: &Port, host: u8) -> String {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
    let fd = fd.expect("a socket");
    bind(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, host, 0)).expect("an address");
    connect(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port.number())).expect("connected");
    let mut stream = TcpStream::from(fd);
    stream.set_read_timeout(Some(DEADLINE)).expect("a time limit");
    write!(stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let line = text.lines().last().expect("an answer");
    line.split(' ').nth(2).expect("a slot").to_owned()
}

#[test]
fn sticky_clients_keep_their_slot_over_reloads_and_few_move_when_slots_change() {
    const CLIENTS: u8 = 60;
    let site = Site::new();
    let (daemon, _) = serving(&site, WORKERS, "sticky", &rust());
    let homes = || -> Vec<String> { (1..=CLIENTS).map(|host| slot_of(&site.port, host)).collect() };
    let before = homes();
    assert_eq!(homes(), before);
    let all: BTreeSet<&String> = before.iter().collect();
    assert_eq!(all.len(), WORKERS, "spread over all: {before:?}");
    reload_well(&daemon);
    wait_only_generation(&daemon, 2, WORKERS);
    assert_eq!(homes(), before, "a reload moves nobody");
    shepherd(&daemon, "scale 5", 0);
    daemon.eventually("the fifth takes some", || homes().contains(&"4".to_owned()).then_some(()));
    let with_fifth = homes();
    for (before, after) in before.iter().zip(&with_fifth) {
        assert!(before == after || after == "4", "{before} to {after}");
    }
    shepherd(&daemon, "scale 4", 0);
    daemon.wait_workers(WORKERS);
    assert_eq!(homes(), before, "those that moved are back");
    // Of a slot without a worker clients go to the others, and nobody else moves.
    stop_well(&daemon);
}

#[test]
fn sockets_are_told_by_name_and_unix_ones_are_dispatched_as_well() {
    let site = Site::new();
    let path = site.path("web.sock");
    let other = free_port();
    let run = Daemon::run().home(&site.home).workers(2).args(["--name", "web"]);
    let run = run.args(["--balance", "dispatch"]).listen(format!("http={}", site.port.v4()));
    let run = run.listen(&other).listen(format!("local=unix:{}", path.display()));
    let daemon = run.command(worker(&[])).start();
    wait_serving(&daemon, 2);
    assert_eq!(get(&site.port, "/").expect("an answer").version, "http");
    assert_eq!(get(&other, "/").expect("an answer").version, "unknown");
    let local = || {
        // Where it is bound anew there is a moment before it listens.
        let mut stream = eventually("a connection", || UnixStream::connect(&path).ok());
        write!(stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        text.lines().last().expect("an answer").to_owned()
    };
    assert!(local().starts_with("local "));
    // A path that somebody removed is bound anew, and what comes there is given as before.
    fs::remove_file(&path).expect("a socket");
    daemon.eventually("it is there again", || path.exists().then_some(()));
    assert!(local().starts_with("local "));
    assert!(daemon.count_lines(|line| line.contains("generation 2")) == 0, "nobody has it");
    stop_well(&daemon);
}

#[test]
fn a_worker_in_python_is_ten_lines() {
    let site = Site::new();
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/dispatch.py");
    let (daemon, _) = serving(&site, 2, "least-connections", &["python3".into(), python.into()]);
    let load = site.load_of([(Kind::New, 3)]);
    load.wait_ok(ANSWERS);
    reload_well(&daemon);
    load.wait_ok(ANSWERS);
    load.stop().assert_clean();
    stop_well(&daemon);
}

// ---- nothing is lost -------------------------------------------------------------------------

#[test]
fn reloads_lose_nothing_in_turn() {
    reloads("round-robin", &[]);
}

#[test]
fn reloads_lose_nothing_by_the_fewest() {
    reloads("least-connections", &[]);
}

#[test]
fn reloads_lose_nothing_where_clients_have_a_slot() {
    reloads("sticky", &[]);
}

#[test]
fn reloads_in_batches_lose_nothing() {
    reloads("round-robin", &["--surge", "1"]);
}

#[test]
fn reloads_that_stop_first_lose_nothing() {
    reloads("least-connections", &["--surge", "0"]);
}

#[track_caller]
fn reloads(algorithm: &str, words: &[&str]) {
    let site = Site::new();
    let daemon = dispatching(&site, WORKERS, algorithm).args(words).command(rust()).start();
    wait_serving(&daemon, WORKERS);
    let load = site.load_of([(Kind::New, 4), (Kind::Slow { ms: 40 }, 2)]);
    let count = std::env::var("RELOADS").ok().and_then(|it| it.parse().ok()).unwrap_or(4);
    for generation in 2..2 + count {
        load.wait_ok(ANSWERS);
        reload_well(&daemon);
        wait_only_generation(&daemon, generation, WORKERS);
    }
    load.wait_ok(ANSWERS);
    let report = load.stop();
    report.assert_clean();
    assert_eq!(report.generations.len(), count as usize + 1, "{report}");
    stop_well(&daemon);
}

#[test]
fn scales_restarts_and_rollbacks_lose_nothing() {
    let site = Site::new();
    let (daemon, _) = serving(&site, 2, "round-robin", &rust());
    let load = site.load_of([(Kind::New, 3)]);
    for words in ["scale 4", "scale 1", "reload", "rollback", "restart web", "scale 2"] {
        load.wait_ok(ANSWERS);
        shepherd(&daemon, words, 0);
    }
    load.wait_ok(ANSWERS);
    load.stop().assert_clean();
    shepherd(&daemon, "stop web", 0);
    assert!(TcpStream::connect(site.port.v4()).is_err(), "it is stopped");
    shepherd(&daemon, "start web", 0);
    assert_eq!(spread(&site, 10).values().copied().collect::<Vec<_>>(), [5, 5]);
    stop_well(&daemon);
}

#[test]
fn an_aborted_reload_leaves_those_who_serve_in_turn() {
    let site = Site::running(&rust());
    let daemon = dispatching(&site, 2, "round-robin").command(RUN).start();
    wait_serving(&daemon, 2);
    let load = site.load_of([(Kind::New, 3)]);
    load.wait_ok(ANSWERS);
    site.release_running("v2", &["false"]);
    shepherd(&daemon, "reload", 4);
    load.wait_ok(ANSWERS);
    let report = load.stop();
    report.assert_clean();
    assert_eq!(report.generations.len(), 1, "{report}");
    stop_well(&daemon);
}

#[test]
fn the_way_of_connections_changes_with_a_reload_and_nothing_is_lost() {
    let site = Site::new();
    let both = site.path("both");
    // It takes whichever it is given.
    let text = format!(
        "#!/bin/sh\ncase $LISTEN_FDNAMES in dispatch) exec {} ;; *) exec {} ;; esac\n",
        example("dispatch").display(),
        example("http").display()
    );
    write_program(&both, text.as_bytes(), 0o755);
    let file = site.path("shepherd.yaml");
    let write = |balance: &str| {
        let text = format!(
            "services:\n  web:\n    command: {}\n    workers: 2\n    listen: {}\n    \
             balance: {balance}\n",
            both.display(),
            site.port
        );
        fs::write(&file, text).expect("a file");
    };
    write("generation");
    let run = Daemon::run().home(&site.home).args(["--name", "web", "-c"]).args([&file]);
    let daemon = run.start();
    wait_serving(&daemon, 2);
    let load = site.load_of([(Kind::New, 3)]);
    for balance in ["dispatch", "dispatch:sticky", "shared", "dispatch", "slots"] {
        load.wait_ok(ANSWERS);
        write(balance);
        shepherd(&daemon, "reload", 0);
        load.wait_ok(ANSWERS);
        let shown = service(&daemon).balance.expect("a balance");
        assert!(shown.starts_with(balance), "{shown}");
    }
    load.stop().assert_clean();
    stop_well(&daemon);
}

#[test]
fn what_a_killed_worker_had_not_read_is_answered_by_others() {
    let site = Site::new();
    let (daemon, pids) = serving(&site, 3, "round-robin", &rust());
    let load = site.load_of([(Kind::New, 6)]);
    load.wait_ok(ANSWERS);
    for _ in 0..3 {
        let victim = daemon.wait_workers(3)[0];
        signal(victim, Signal::SIGSTOP);
        // It is given some before it is passed by.
        told(&daemon, " does not answer for ");
        load.wait_ok(ANSWERS);
        signal(victim, Signal::SIGKILL);
        daemon.eventually("another in its place", || {
            let workers = daemon.workers();
            (workers.len() == 3 && !workers.contains(&victim)).then_some(())
        });
        load.wait_ok(ANSWERS);
    }
    let report = load.stop();
    // Whoever was in the middle of an answer when it was stopped is the one that nobody can help.
    report.assert_clean();
    assert!(service(&daemon).dispatched.expect("they are").given_again >= 3);
    drop(pids);
    stop_well(&daemon);
}

#[test]
fn connections_wait_where_nobody_is_ready_for_them() {
    let site = Site::new();
    let (daemon, pids) = serving(&site, 1, "sticky", &rust());
    signal(pids[0], Signal::SIGSTOP);
    let asked: Vec<Asked> = (0..40).map(|_| Asked::new(&site.port, "/")).collect();
    told(&daemon, " does not answer for 4 connections");
    let worker = service(&daemon).workers.remove(0);
    assert_eq!((worker.unanswered, worker.stalled), (Some(4), true));
    signal(pids[0], Signal::SIGKILL);
    let answered: BTreeSet<i32> = asked.into_iter().map(Asked::answered_by).collect();
    assert!(answered.len() == 1 && !answered.contains(&pids[0]), "{answered:?}");
    stop_well(&daemon);
}

#[test]
fn nobody_is_given_what_a_client_left_and_what_a_child_may_read_waits_for_its_end() {
    let site = Site::new();
    let (daemon, pids) = serving(&site, 1, "round-robin", &rust());
    signal(pids[0], Signal::SIGSTOP);
    let asked: Vec<Asked> = (0..2).map(|_| Asked::new(&site.port, "/")).collect();
    for _ in 0..2 {
        let client = TcpStream::connect(site.port.v4()).expect("connected");
        let reset = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&client, sockopt::Linger, &reset).expect("an option");
    }
    told(&daemon, " does not answer for 4 connections");
    signal(pids[0], Signal::SIGKILL);
    for asked in asked {
        asked.answered_by();
    }
    let dispatched = service(&daemon).dispatched.expect("they are");
    assert_eq!((dispatched.given_again, dispatched.held), (2, 0));
    stop_well(&daemon);

    let site = Site::new();
    let (daemon, _) = serving(&site, 2, "round-robin", &worker(&["leaves-a-child", "w1"]));
    let asked: Vec<Asked> = (0..20).map(|_| Asked::new(&site.port, "/")).collect();
    told(&daemon, " does not answer for 4 connections");
    let pid = service(&daemon).workers.remove(0).pid.expect("a pid");
    signal(i32::try_from(pid).expect("a pid"), Signal::SIGKILL);
    // The child has the other end of the channel, and does not leave before it is killed.
    let killed = told(&daemon, "killing worker ");
    assert!(killed.contains("(web.0)"), "{killed}");
    for asked in asked {
        asked.answered_by();
    }
    stop_well(&daemon);
}

// ---- workers that misbehave ------------------------------------------------------------------

#[test]
fn a_stopped_worker_gets_four_and_then_others_get_all_until_it_goes_on() {
    let site = Site::new();
    let (daemon, pids) = serving(&site, 2, "round-robin", &rust());
    signal(pids[0], Signal::SIGSTOP);
    let asked: Vec<Asked> = (0..60).map(|_| Asked::new(&site.port, "/")).collect();
    let line = told(&daemon, " does not answer for 4 connections; others get new ones");
    assert!(line.contains("(web."), "{line}");
    assert_eq!(get(&site.port, "/").expect("an answer").pid, pids[1]);
    let text = shepherd(&daemon, "status", 0).stdout;
    assert!(text.contains(" stalled "), "{text}");
    signal(pids[0], Signal::SIGCONT);
    told(&daemon, " answers again, and gets connections");
    let answered: Vec<i32> = asked.into_iter().map(Asked::answered_by).collect();
    assert_eq!(answered.iter().filter(|&&pid| pid == pids[0]).count(), 4);
    assert_eq!(spread(&site, 10).len(), 2);
    stop_well(&daemon);
}

#[test]
fn a_worker_that_never_reads_keeps_four_and_they_are_given_again_when_it_dies() {
    let site = Site::new();
    let (daemon, _) = serving(&site, 2, "round-robin", &worker(&["deaf", "0"]));
    let asked: Vec<Asked> = (0..30).map(|_| Asked::new(&site.port, "/")).collect();
    told(&daemon, " does not answer for 4 connections");
    let deaf = service(&daemon).workers.remove(0).pid.expect("a pid");
    let deaf = i32::try_from(deaf).expect("a pid");
    signal(deaf, Signal::SIGKILL);
    let answered: BTreeSet<i32> = asked.into_iter().map(Asked::answered_by).collect();
    assert!(!answered.contains(&deaf), "{answered:?}");
    assert!(service(&daemon).dispatched.expect("they are").given_again >= 4);
    stop_well(&daemon);
}

#[test]
fn what_one_refuses_another_takes_and_what_all_refuse_waits() {
    let site = Site::new();
    let (daemon, _) = serving(&site, 2, "round-robin", &worker(&["refuses", "0"]));
    let load = site.load_of([(Kind::New, 3)]);
    load.wait_ok(ANSWERS);
    let report = load.stop();
    report.assert_clean();
    assert_eq!(report.pids.len(), 1, "{report}");
    stop_well(&daemon);

    let site = Site::new();
    let (daemon, _) = serving(&site, 2, "round-robin", &worker(&["refuses-some"]));
    let asked: Vec<Asked> = (0..10).map(|_| Asked::new(&site.port, "/")).collect();
    told(&daemon, " is refused by every worker");
    for asked in asked {
        asked.answered_by();
    }
    let again = service(&daemon).dispatched.expect("they are").given_again;
    assert!((1..100).contains(&again), "no loop: {again}");
    stop_well(&daemon);
}

#[test]
fn what_comes_without_its_descriptor_goes_to_another() {
    let site = Site::new();
    let (daemon, _) = serving(&site, 2, "round-robin", &worker(&["few", "1"]));
    let asked: Vec<Asked> = (0..10).map(|_| Asked::new(&site.port, "/")).collect();
    let line = told(&daemon, " is out of descriptors");
    assert!(line.contains("(web.1)"), "{line}");
    let answered: BTreeSet<i32> = asked.into_iter().map(Asked::answered_by).collect();
    assert_eq!(answered.len(), 1);
    stop_well(&daemon);
}

#[test]
fn words_that_make_no_sense_are_passed_over_and_told_once() {
    let site = Site::new();
    let (daemon, _) = serving(&site, 1, "least-connections", &worker(&["nonsense"]));
    for _ in 0..10 {
        get(&site.port, "/").expect("an answer");
    }
    let words = " says what makes no sense on its dispatch channel";
    told(&daemon, words);
    assert_eq!(daemon.count_lines(|line| line.contains(words)), 1);
    let service = service(&daemon);
    assert_eq!(service.dispatched.expect("they are").taken, 10);
    stop_well(&daemon);
}

#[test]
fn one_that_closes_its_end_gets_nothing_and_is_replaced() {
    let site = Site::running(&worker(&["closes", "0"]));
    let daemon = dispatching(&site, 2, "round-robin").command(RUN).start();
    wait_serving(&daemon, 2);
    let load = site.load_of([(Kind::New, 2)]);
    let line = told(&daemon, " has closed its dispatch channel and lives on");
    assert!(line.contains("(web.0)"), "{line}");
    load.wait_ok(ANSWERS);
    load.stop().assert_clean();
    stop_well(&daemon);
}

#[test]
fn without_descriptors_connections_wait_and_are_accepted_when_there_are_some() {
    let site = Site::new();
    let (daemon, pids) = serving(&site, 2, "round-robin", &rust());
    for pid in &pids {
        signal(*pid, Signal::SIGSTOP);
    }
    let entries = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("ours");
    let used = entries.flatten().filter_map(|it| it.file_name().to_str()?.parse().ok());
    let used: BTreeSet<u32> = used.collect();
    // Room for two more, and the two of them are given eight.
    let most = (0..).filter(|number| !used.contains(number)).nth(2).expect("there is one");
    let limit = format!("--nofile={most}:");
    let pid = daemon.pid().to_string();
    let prlimit = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
    assert!(prlimit.expect("prlimit runs").success());
    let asked: Vec<Asked> = (0..20).map(|_| Asked::new(&site.port, "/")).collect();
    told(&daemon, "cannot accept: out of descriptors");
    for pid in &pids {
        signal(*pid, Signal::SIGCONT);
    }
    for asked in asked {
        asked.answered_by();
    }
    let words = "cannot accept: out of descriptors";
    let count = daemon.count_lines(|line| line.contains(words));
    assert!(count < 20, "told {count} times");
    let limit = ["--pid", &pid, "--nofile=4096:"];
    assert!(Command::new("prlimit").args(limit).status().expect("prlimit runs").success());
    stop_well(&daemon);
}

// ---- what cannot be --------------------------------------------------------------------------

#[test]
fn what_cannot_be_dispatched_is_refused_with_what_to_do_instead() {
    let run = || Daemon::run().args(["--balance", "dispatch"]).command(rust());
    let port = free_port();
    for (builder, words) in [
        (
            run().listen(format!("udp:{}", port.v4())),
            "only datagrams; give it to a service of its own",
        ),
        (run().listen(&port).args(["--canary", "5%"]), "each worker gets its turn"),
        (run().listen(&port).args(["--ready", "tcp"]), "given to a worker that is ready already"),
        (
            run().listen(&port).args(["--ready", "http:/"]),
            "given to a worker that is ready already",
        ),
        (run().listen(format!("{port}+{{slot}}")), "who comes to"),
        (run(), "there is no socket; add `-p SOCKET`"),
    ] {
        refused(builder, USAGE, &[words]);
    }
    let words = ["write `dispatch:sticky`"];
    refused(Daemon::run().args(["--balance", "dispatch:stiky"]).command(rust()), USAGE, &words);
    let site = Site::new();
    let file = site.path("shepherd.yaml");
    let text =
        "services:\n  web:\n    command: ./x\n    listen: 'udp:5353'\n    balance: dispatch\n";
    fs::write(&file, text).expect("a file");
    let run = Daemon::run().home(&site.home).args(["-c".as_ref(), file.as_os_str()]);
    refused(run, CONFIGURATION, &["only datagrams", "shepherd.yaml:4:"]);
}

#[test]
fn a_socket_that_was_handed_over_is_accepted_from() {
    let port = free_port();
    let run = handed_over(&[port.v4().to_string()], "http").workers(2);
    let daemon = run.args(["--name", "web", "--balance", "dispatch"]).command(worker(&[])).start();
    wait_serving(&daemon, 2);
    let answers = [(); 4].map(|()| get(&port, "/").expect("an answer"));
    let slots: BTreeSet<&String> = answers.iter().map(|answer| &answer.slot).collect();
    assert_eq!((slots.len(), &*answers[0].version), (2, "http"));
    // Whoever gave us the socket has it still, so others are found here.
    assert!(daemon.stop().success());
    let run = handed_over(&[format!("udp:{}", port.v4())], "").args(["--balance", "dispatch"]);
    let daemon = run.command(rust()).start();
    assert_eq!(daemon.wait_exit().code(), Some(USAGE));
    told(&daemon, "only datagrams");
}

#[test]
fn metrics_count_what_was_taken() {
    let site = Site::new();
    let admin = free_port();
    let run = dispatching(&site, 2, "round-robin").args(["--admin", &admin.v4().to_string()]);
    let daemon = run.command(rust()).start();
    wait_serving(&daemon, 2);
    for _ in 0..6 {
        get(&site.port, "/").expect("an answer");
    }
    let mut stream = TcpStream::connect(admin.v4()).expect("connected");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("a page");
    for line in [
        "shepherd_connections_taken_total{service=\"web\"} 6",
        "shepherd_connections_held{service=\"web\"} 0",
        "shepherd_connections_given_again_total{service=\"web\"} 0",
    ] {
        assert!(page.contains(line), "{line}:\n{page}");
    }
    stop_well(&daemon);
}
