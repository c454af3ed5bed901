//! A worker that takes nothing from the socket that it alone has: new connections go past it until it
//! does, and what waits for it waits.

use std::{
    io::{Read, Write},
    net::{TcpStream, UdpSocket},
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::sys::signal::Signal;
use shepherd::control::{client::Client, wire::MemberState};

use crate::{
    control::{client, status},
    harness::{DEADLINE, Daemon, Process, free_port, get, manners},
    site::{Site, Ticks, stop_well, wait_serving},
};

const WORKERS: usize = 4;
/// So many connections find all of four workers but once in a million million times.
const MANY: u32 = 100;

/// A daemon `web` whose workers each have a socket, and the processes of these.
fn start(site: &Site, words: &[&str]) -> (Daemon, Vec<i32>) {
    let run = site.run(WORKERS).args(["--name", "web", "--balance", "slots"]);
    let daemon = run.command(manners(words)).start();
    let pids = wait_serving(&daemon, WORKERS);
    (daemon, pids)
}

/// A request, whose answer says which process it comes from.
struct Asked(JoinHandle<i32>);

impl Asked {
    fn ask(site: &Site, path: &str) -> Asked {
        let mut stream = TcpStream::connect(site.port.v4()).expect("connected");
        stream.set_read_timeout(Some(DEADLINE)).expect("a time limit");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .expect("sent");
        Asked(thread::spawn(move || {
            let mut text = String::new();
            stream.read_to_string(&mut text).expect("an answer");
            let line = text.lines().last().expect("an answer");
            line.split(' ').nth(1).and_then(|pid| pid.parse().ok()).expect("a pid")
        }))
    }

    fn answered_by(self) -> i32 {
        self.0.join().expect("an answer")
    }
}

/// Asks again and again until the daemon says this. Gives all that it asked.
fn ask_until(site: &Site, daemon: &Daemon, said: &str) -> Vec<Asked> {
    let mut asked = Vec::new();
    let mut ticks = Ticks::every(Duration::from_millis(20));
    // 20 ms each: a minute.
    for _ in 0..3000 {
        asked.push(Asked::ask(site, "/"));
        ticks.next();
        if daemon.count_lines(|line| line.contains(said)) > 0 {
            return asked;
        }
    }
    daemon.fail(&format!("it does not say `{said}`"));
}

#[test]
fn a_stopped_worker_gets_no_new_connections_until_it_goes_on() {
    let site = Site::new();
    let (daemon, pids) = start(&site, &["graceful"]);
    let client = client(&daemon, "web");
    let stopped = pids[1];
    let process = Process::open(stopped).expect("a worker");
    process.signal(Signal::SIGSTOP).expect("a worker");
    let asked = ask_until(&site, &daemon, " hangs or does not keep up: ");
    let before = shown(&client);
    passes_by(&site, stopped);
    assert_eq!(shown(&client), before, "something came meanwhile");
    let text = daemon.client(["status", "--name", "web"]).stdout;
    assert!(text.contains(" stalled ") && text.contains(" takes none of "), "{text}");
    let line = daemon.wait_line(|line| line.contains(" hangs or does not keep up"), "it is told");
    assert!(line.contains("(web.") && line.ends_with("; new ones go to the others"), "{line}");

    process.signal(Signal::SIGCONT).expect("a worker");
    daemon.wait_line(|line| line.contains(" takes from its queue at "), "it takes again");
    // What waited is answered by the one for which it did, and nothing is lost.
    let answered: Vec<i32> = asked.into_iter().map(Asked::answered_by).collect();
    assert!(answered.contains(&stopped), "{answered:?}");
    let again = (0..MANY).filter(|_| get(&site.port, "/").expect("an answer").pid == stopped);
    assert!(again.count() > 0, "it has no share");
    stop_well(&daemon);
}

#[test]
fn a_worker_that_is_busy_with_one_request_is_passed_by_and_keeps_what_waits() {
    let site = Site::new();
    let (daemon, _) = start(&site, &["graceful", "--serial"]);
    let busy = Asked::ask(&site, "/slow?ms=6000");
    let asked = ask_until(&site, &daemon, " hangs or does not keep up: ");
    let others = (0..MANY).map(|_| get(&site.port, "/").expect("an answer").pid);
    let others: Vec<i32> = others.collect();
    daemon.wait_line(|line| line.contains(" takes from its queue at "), "it takes again");
    let busy = busy.answered_by();
    assert!(!others.contains(&busy), "{busy} is among {others:?}");
    let answered: Vec<i32> = asked.into_iter().map(Asked::answered_by).collect();
    assert!(answered.contains(&busy), "{answered:?}");
    stop_well(&daemon);
}

#[test]
fn the_successor_of_a_stopped_worker_takes_what_waits() {
    let site = Site::new();
    let (daemon, pids) = start(&site, &["graceful"]);
    let process = Process::open(pids[2]).expect("a worker");
    process.signal(Signal::SIGSTOP).expect("a worker");
    let asked = ask_until(&site, &daemon, " hangs or does not keep up: ");
    process.signal(Signal::SIGKILL).expect("a worker");
    let answered: Vec<i32> = asked.into_iter().map(Asked::answered_by).collect();
    assert!(answered.iter().any(|pid| !pids.contains(pid)), "{answered:?}");
    stop_well(&daemon);
}

#[test]
fn datagrams_pass_a_stopped_worker_by() {
    let port = free_port();
    let run = Daemon::run().workers(2).args(["--balance", "slots"]);
    let run = run.listen(format!("udp:{}", port.v4()));
    let daemon = run.command(manners(&["graceful"])).start();
    let pids = wait_serving(&daemon, 2);
    let process = Process::open(pids[0]).expect("a worker");
    process.signal(Signal::SIGSTOP).expect("a worker");
    let client = || {
        let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        client.connect(port.v4()).expect("a destination");
        client.set_read_timeout(Some(DEADLINE)).expect("a time limit");
        client.send(b"x").expect("sent");
        client
    };
    // Each client finds one worker always.
    let mut clients: Vec<UdpSocket> = (0..20).map(|_| client()).collect();
    let told = "KiB of datagrams in its queue";
    daemon.wait_line(|line| line.contains(told), "it is told");
    clients.extend((0..20).map(|_| client()));
    let echo = |client: &UdpSocket| {
        let mut bytes = [0; 200];
        let length = client.recv(&mut bytes).expect("an echo");
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        text.split(' ').nth(1).and_then(|pid| pid.parse::<i32>().ok()).expect("a pid")
    };
    let others: Vec<i32> = clients[20..].iter().map(echo).collect();
    assert!(!others.contains(&pids[0]), "{} is among {others:?}", pids[0]);
    process.signal(Signal::SIGCONT).expect("a worker");
    daemon.wait_line(|line| line.contains(" takes from its queue at "), "it takes again");
    assert!(clients[..20].iter().map(echo).any(|pid| pid == pids[0]), "it took nothing");
    stop_well(&daemon);
}

/// The members that are stalled, and what waits there; the worker is as well.
fn shown(client: &Client) -> Vec<(Option<u32>, Option<u32>)> {
    let status = status(client);
    let service = &status.services[0];
    let members = service.sockets.iter().flat_map(|socket| &socket.members);
    let stalled = members.filter(|member| member.state == Some(MemberState::Stalled));
    let stalled: Vec<_> = stalled.map(|it| (it.slot, it.queued)).collect();
    let workers = service.workers.iter().filter(|worker| worker.stalled);
    let workers: Vec<Option<u32>> = workers.map(|worker| Some(worker.slot)).collect();
    assert_eq!(stalled.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), workers);
    assert_eq!(workers.len(), 1);
    stalled
}

/// New connections go to others.
fn passes_by(site: &Site, stopped: i32) {
    let others = (0..MANY).map(|_| get(&site.port, "/").expect("an answer").pid);
    let others: Vec<i32> = others.collect();
    assert!(!others.contains(&stopped), "{stopped} is among {others:?}");
}
