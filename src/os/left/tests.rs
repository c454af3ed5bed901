//! Real processes with real connections, and a clock of the test's own.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::stat::fstat;

use super::*;
use crate::config::socket::Transport;
use crate::os::local_address::LocalAddress;

/// A program that connects to itself as often as it is told, and closes as many. `accept N`, in itself
/// or in a child, `close N`, `finish N` after an answer, `answer N` of them once each, `ended N` if so
/// many have, `ask N` and `leave N` from the other end; each
/// is answered by a line.
const PROGRAM: &str = "
import os, resource, select, socket, sys
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
listener = socket.create_server(('127.0.0.1', 0), backlog=128)
print(os.fstat(listener.fileno()).st_ino, listener.getsockname()[1], flush=True)
if 'below' in sys.argv and os.fork() > 0:
    os.wait()
    sys.exit()
clients, taken, answered = [], [], 0
for line in sys.stdin:
    verb, count = line.split()
    for _ in range(int(count)):
        if verb == 'connect':
            clients.append(socket.create_connection(listener.getsockname()))
        elif verb == 'accept':
            taken.append(listener.accept()[0])
        elif verb == 'open':
            clients.append(socket.create_connection(listener.getsockname()))
            taken.append(listener.accept()[0])
        elif verb == 'close':
            taken.pop().close()
        elif verb == 'ask':
            clients[-1].send(b'x')
        elif verb == 'answer':
            taken[-1 - answered % len(taken)].send(b'x')
            answered += 1
        elif verb == 'ended':
            ended = [it for it in taken if select.select([it], [], [], 0)[0] and it.recv(1) == b'']
            assert len(ended) == int(count)
        elif verb == 'finish':
            taken[-1].send(b'x')
            taken[-1].shutdown(socket.SHUT_WR)
            taken.pop().close()
            clients.pop()
        elif verb == 'leave':
            clients.pop().close()
    print('done', flush=True)
";

struct Program {
    child: Child,
    output: BufReader<ChildStdout>,
    place: Place,
}

impl Program {
    fn start(argument: &str) -> Program {
        let mut command = Command::new("python3");
        command.args(["-c", PROGRAM, argument]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the tests need python3");
        let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        output.read_line(&mut line).expect("it is text");
        let (inode, port) = line.trim().split_once(' ').expect("two numbers");
        let port: u16 = port.parse().expect("a port");
        let place = Place {
            inode: inode.parse().expect("an inode"),
            transport: Transport::Stream,
            address: LocalAddress::Ip(([127, 0, 0, 1], port).into()),
        };
        Program { child, output, place }
    }

    fn tell(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("it is piped");
        writeln!(input, "{line}").expect("it reads");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("it is text");
        assert_eq!(answer, "done\n", "{line}");
    }

    fn account(&self) -> Account {
        Account::of(i32::try_from(self.child.id()).ok())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn request(places: &[&Place], workers: Vec<(u64, Account)>) -> Request {
    let draining = |(number, place): (usize, &&Place)| Draining {
        member: MemberId(u32::try_from(number).expect("small")),
        place: (*place).clone(),
        parted: None,
    };
    Request {
        number: 1,
        service: ServiceId(1),
        members: places.iter().enumerate().map(draining).collect(),
        beside: Vec::new(),
        dispatched: Vec::new(),
        handshakes: true,
        workers: workers.into_iter().map(|(id, account)| (WorkerId(id), account)).collect(),
        close_idle: Vec::new(),
        hold: Vec::new(),
        asked: Vec::new(),
    }
}

fn at(millis: u64) -> Time {
    Time::after_origin(Duration::from_secs(7) + Duration::from_millis(millis))
}

#[test]
fn each_worker_has_what_its_processes_took_and_each_socket_what_waits() {
    let mut one = Program::start("alone");
    let mut other = Program::start("below");
    one.tell("connect 4");
    one.tell("accept 1");
    other.tell("open 2");
    let places = [&one.place, &other.place];
    let nobody = Account::of(None);
    let workers = vec![(1, one.account()), (2, other.account()), (3, nobody)];
    let request = request(&places, workers);
    let left = |queued| Left { handshakes: Some(0), queued: Some(queued) };
    let queues = [(MemberId(0), left(3)), (MemberId(1), left(0))];
    // A handshake may end a moment after connect(2) does.
    let answers = (0..3000).map(|_| {
        wait(Duration::from_millis(10));
        Looker::default().look(at(0), &request)
    });
    let answer = answers.into_iter().find(|answer| answer.members == queues);
    let answer = answer.expect("three wait in one and none in the other");
    let of = |id, open| (WorkerId(id), Some(open));
    assert_eq!(answer.workers, [of(1, 1), of(2, 2), of(3, 0)], "two are held by a child");
}

#[test]
fn connections_on_a_socket_beside_count_as_well() {
    let mut one = Program::start("alone");
    one.tell("open 1");
    let workers = vec![(1, one.account())];
    let nothing = request(&[], workers.clone());
    assert_eq!(Looker::default().look(at(0), &nothing).workers, [(WorkerId(1), Some(0))]);
    let beside = Request { beside: vec![one.place.clone()], ..nothing };
    assert_eq!(Looker::default().look(at(0), &beside).workers, [(WorkerId(1), Some(1))]);
}

#[test]
fn thousands_are_all_counted_and_then_estimated() {
    let mut crowded = Program::start("alone");
    // Each is two descriptors of the program.
    crowded.tell("open 1950");
    let mut looker = Looker::default();
    let request = request(&[&crowded.place], vec![(1, crowded.account())]);
    let mut look = |now| looker.look(now, &request).workers[0].1.expect("it can be known");
    assert_eq!(look(at(0)), 1950);
    crowded.tell("close 1000");
    let is_counted = descriptors::count(&crowded.account().processes()).is_some();
    if is_counted {
        assert_eq!(look(at(50)), 950, "by the number of descriptors");
    }
    crowded.tell("close 950");
    assert_eq!(look(at(1100)), 0);
}

#[test]
fn it_is_seen_what_becomes_of_connections() {
    let mut program = Program::start("alone");
    program.tell("open 6");
    let mut looker = Looker::default();
    let look = request(&[&program.place], vec![(1, program.account())]);
    let hold = Request { hold: vec![WorkerId(1)], ..look.clone() };
    assert_eq!(looker.look(at(59_900), &hold).workers, [(WorkerId(1), Some(6))]);
    // They have been silent for longer than the kernel's clock ticks.
    wait(Duration::from_millis(40));
    let asked = Request { workers: Vec::new(), asked: vec![(WorkerId(1), at(0))], ..look };
    let mut watch = || {
        let Closing { open, finished, cut, left } = looker.look(at(60_000), &asked).asked[0].1;
        [open, finished, cut, left]
    };
    assert_eq!(watch(), [6, 0, 0, 0]);
    program.tell("finish 1");
    assert_eq!(watch(), [5, 1, 0, 0], "answered and then closed");
    program.tell("leave 1");
    program.tell("close 1");
    assert_eq!(watch(), [4, 1, 0, 0], "its client was faster");
    program.tell("ask 1");
    program.tell("close 1");
    assert_eq!(watch(), [3, 1, 1, 0], "there was a request");
    program.tell("close 1");
    assert_eq!(watch(), [2, 1, 1, 0], "it was idle all the time");
    drop(program);
    assert_eq!(watch(), [0, 1, 1, 0], "their clients ended with it");
}

#[test]
fn what_is_held_on_to_is_bounded_and_let_go_when_nobody_asks_for_it_any_more() {
    let mut program = Program::start("alone");
    program.tell("open 40");
    let workers: Vec<_> = (1..=50).map(|id| (id, program.account())).collect();
    let look = request(&[&program.place], workers);
    let all: Vec<WorkerId> = look.workers.iter().map(|(id, _)| *id).collect();
    let hold = Request { hold: all.clone(), ..look.clone() };
    let mut looker = Looker::default();
    for millis in [0, 50] {
        let _ = looker.look(at(millis), &hold);
        // Five of each.
        assert_eq!(looker.held(), 250);
    }
    let one = Request { hold: all[..1].to_vec(), ..look.clone() };
    let _ = looker.look(at(100), &one);
    assert_eq!(looker.held(), 32, "of one are enough");
    // Whoever asks is of another service.
    let other = Request { service: ServiceId(2), ..look };
    let _ = looker.look(at(1000), &other);
    assert_eq!(looker.held(), 32);
    let _ = looker.look(at(1100), &other);
    assert_eq!(looker.held(), 0, "or their clients would not hear that they were closed");
}

#[test]
fn idle_connections_are_ended_and_no_others() {
    let mut program = Program::start("alone");
    program.tell("open 4");
    let look = request(&[&program.place], vec![(1, program.account())]);
    let look = Request { close_idle: vec![WorkerId(1)], ..look };
    let close = || Looker::default().look(at(0), &look).idle[0].1.clone();
    wait(Duration::from_millis(150));
    assert_eq!(close().closed, 0, "they are new");
    program.tell("answer 3");
    // Of what happens within a tick of the kernel's clock nobody knows which came first.
    wait(Duration::from_millis(30));
    program.tell("ask 1");
    wait(Duration::from_millis(150));
    // One was asked after its answer and one is new.
    assert_eq!(close(), IdleClosed { closed: 2, refused: None });
    program.tell("ended 2");
    assert_eq!(close().closed, 0, "no more");
    let elsewhere = request(&[], vec![(1, program.account())]);
    let elsewhere =
        Request { close_idle: vec![WorkerId(1)], beside: vec![program.place.clone()], ..elsewhere };
    program.tell("open 1");
    program.tell("answer 1");
    wait(Duration::from_millis(150));
    assert_eq!(Looker::default().look(at(0), &elsewhere).idle[0].1.closed, 0, "not steered away");
}

#[test]
fn what_cannot_be_looked_at_is_unknown_unless_something_was_seen() {
    let connections = |inodes: &[u64], are_all| Connections {
        inodes: inodes.iter().copied().collect(),
        are_all,
        ..Connections::default()
    };
    let held = |sockets: &[u64], unseen, has_ring| Held {
        sockets: sockets.iter().copied().collect(),
        descriptors: 9,
        unseen,
        has_ring,
        of: Vec::new(),
    };
    for (case, held, connections, expected) in [
        ("nothing", held(&[], false, false), connections(&[], true), Some(0)),
        ("seen", held(&[1, 2], false, false), connections(&[1, 2, 3], true), Some(2)),
        ("hidden", held(&[], true, false), connections(&[3], true), None),
        ("one hidden", held(&[1], true, false), connections(&[1], true), Some(1)),
        ("no table", held(&[], false, false), connections(&[], false), None),
        ("in a ring", held(&[], false, true), connections(&[3], true), None),
        ("in no ring", held(&[], false, true), connections(&[], true), Some(0)),
    ] {
        assert_eq!(open(&held, &connections), expected, "{case}");
    }
}

#[test]
fn a_full_look_is_spared_while_the_number_of_descriptors_tells_enough() {
    let last = |open| Last::new(at(0), open, 10_100);
    let estimate = |open, steps: &[(u64, u64)]| {
        let mut last = last(open);
        let estimates = steps.iter().map(|&(millis, count)| last.estimate(at(millis), Some(count)));
        estimates.collect::<Vec<_>>()
    };
    assert_eq!(estimate(10_000, &[(50, 10_100)]), [Some(10_000)]);
    assert_eq!(estimate(10_000, &[(999, 9_100), (1000, 9_100)]), [Some(9_000), None]);
    // As long as it falls time does not matter ...
    assert_eq!(estimate(10_000, &[(999, 9_100), (5000, 9_000)]), [Some(9_000), Some(8_900)]);
    // ... until few are left, or none by this count.
    assert_eq!(estimate(10_000, &[(2000, 300)]), [None]);
    assert_eq!(estimate(10_000, &[(50, 600)]), [Some(500)]);
    assert_eq!(estimate(9_000, &[(50, 1_100)]), [None]);
    assert_eq!(estimate(10_000, &[(50, FEW)]), [None], "few are looked at when they change");
    // Somebody accepted more.
    assert_eq!(estimate(10_000, &[(50, 10_200)]), [Some(10_100)]);
    // None is never an estimate.
    assert_eq!(estimate(0, &[(50, 10_100)]), [None]);
    assert_eq!(estimate(0, &[(50, 10_101)]), [Some(1)]);
    // A kernel that does not count leaves time to tell.
    let mut uncounted = last(10_000);
    assert_eq!(uncounted.estimate(at(50), None), Some(10_000));
    assert_eq!(uncounted.estimate(at(1000), None), None);
    // A hundred microseconds for each that was read.
    let mut small = Last::new(at(0), 400, 500);
    assert_eq!(small.estimate(at(49), Some(500)), Some(400));
    assert_eq!(small.estimate(at(50), Some(500)), None);
    let few = |open, steps: &[(u64, u64)]| {
        let mut few = Last::new(at(0), open, 20);
        let estimates = steps.iter().map(|&(millis, count)| few.estimate(at(millis), Some(count)));
        estimates.collect::<Vec<_>>()
    };
    assert_eq!(few(8, &[(50, 20), (199, 20), (200, 20)]), [Some(8), Some(8), None]);
    assert_eq!(few(8, &[(50, 19)]), [None]);
    assert_eq!(few(8, &[(50, 21)]), [None]);
    assert_eq!(few(0, &[(50, 20)]), [None]);
    assert_eq!(Last::new(at(0), 8, 20).estimate(at(50), None), None, "nobody counts");
}

#[test]
fn one_that_was_shut_down_has_no_queue_and_its_connections_count() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    let _client = TcpStream::connect(address).expect("connected");
    let (_taken, _) = listener.accept().expect("one waits");
    let inode = fstat(listener.as_fd()).expect("an inode").st_ino;
    let address = LocalAddress::Ip(address);
    let place = Place { inode, transport: Transport::Stream, address };
    drop(listener);
    let ours = Account::of(i32::try_from(std::process::id()).ok());
    let answer = Looker::default().look(at(0), &request(&[&place], vec![(1, ours)]));
    assert_eq!(answer.members, [(MemberId(0), Left { handshakes: Some(0), queued: None })]);
    assert_eq!(answer.workers, [(WorkerId(1), Some(1))]);
}
