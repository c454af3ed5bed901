//! Real programs that wait, or do not, and the texts of the kernel.

use super::*;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Uid, setfsuid};
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn registrations_are_read_in_every_mode() {
    let text = "pos:\t0\nflags:\t02000002\nmnt_id:\t17\nino:\t17\n\
            tfd:        3 events:       19 data:                3  pos:0 ino:21e9 sdev:9\n\
            tfd:       12 events: 80000019 data:         ffffffff  pos:0 ino:a sdev:800001\n\
            tfd:        3 events: 10000019 data:                3  pos:0 ino:21e9 sdev:9\n\
            tfd:        3 events: 40000000 data:                3  pos:0 ino:21e9 sdev:9\n\
            tfd:        3 events:       1c data:                3  pos:0 ino:21e9 sdev:9\n\
            tfd:        3 events:       19 data:                3\n";
    let found: Vec<Registration> = parse_epoll_fdinfo(text).collect();
    let reading: Vec<bool> = found.iter().map(|entry| entry.is_for_reading()).collect();
    assert_eq!(reading, [true, true, true, false, false]);
    assert_eq!(found[0], Registration { events: 0x19, inode: 0x21e9, device: 9 });
    assert_eq!(found[1].device, 0x80_0001);
}

#[test]
fn a_ring_shows_what_waits_in_it() {
    let text = |list: &str| {
        format!("UserBufs:\t0\n{list}CqOverflowList:\n  user_data=13, res=6\nNAPI:\tdisabled\n")
    };
    let how = |list: &str| parse_ring_fdinfo(&text(list));
    assert_eq!(
        how("PollList:\n  op=6, task_works=0\n  op=13, task_works=0\n"),
        Some("io_uring accept")
    );
    assert_eq!(how("PollList:\n  op=6, task_works=1\n"), Some("io_uring poll"));
    assert_eq!(how("PollList:\n  op=22, task_works=0\n"), None);
    assert_eq!(how("PollList:\n"), None);
    assert_eq!(how(""), None);
}

#[test]
fn only_a_blocked_call_is_read() {
    let text = "288 0x3 0x7ffe 0x7ffd 0x80000 0x0 0x0 0x7ffe6b584d58 0x7f6dd2b28f63\n";
    assert_eq!(parse_syscall(text), Some((288, [3, 0x7ffe, 0x7ffd, 0x80000, 0, 0])));
    for text in ["running\n", "-1 0x7ffe 0x7f6d\n", "", "288 0x3\n", "288 3 4 5 6 7 8 9 9\n"] {
        assert_eq!(parse_syscall(text), None, "{text:?}");
    }
}

#[test]
fn sets_of_descriptors_are_read() {
    let array: Vec<u8> = [(3, libc::POLLIN), (4, libc::POLLOUT), (-1, libc::POLLRDNORM)]
        .into_iter()
        .flat_map(|(fd, events): (i32, i16)| {
            [&fd.to_ne_bytes()[..], &events.to_ne_bytes(), &[9, 9]].concat()
        })
        .collect();
    assert_eq!(poll_set(&array).collect::<Vec<_>>(), [3, -1]);
    let set = [0x08, 0, 0, 0, 0, 0, 0, 0x80];
    for (fd, selected) in [(3, true), (63, true), (2, false), (64, false), (-1, false)] {
        assert_eq!(is_selected(&set, fd), selected, "{fd}");
    }
}

#[test]
fn programs_of_another_word_size_are_told_apart() {
    assert!(has_our_word_size(&proc::auxv(Pid::this()).expect("our own")));
    let narrow: Vec<u8> = [32u32, 0xf7f0_1000, 6, 4096, 25, 0xffab_cdef, 0, 0]
        .into_iter()
        .flat_map(u32::to_ne_bytes)
        .collect();
    assert!(!has_our_word_size(&narrow));
    assert!(!has_our_word_size(b""));
}

#[test]
fn every_way_of_waiting_is_seen() {
    let epoll = "e = select.epoll(); e.register(0, select.EPOLLIN";
    let ways = [
        (format!("{epoll}); e.poll()"), "epoll"),
        // Registered, and busy with something else.
        (format!("{epoll}); time.sleep(600)"), "epoll"),
        (format!("{epoll} | select.EPOLLET); e.poll()"), "epoll"),
        (format!("{epoll} | select.EPOLLEXCLUSIVE); e.poll()"), "epoll"),
        (format!("{epoll} | select.EPOLLONESHOT); e.poll()"), "epoll"),
        ("p = select.poll(); p.register(0); p.poll()".to_owned(), "poll"),
        ("select.select([0], [], [])".to_owned(), "select"),
        ("s.accept()".to_owned(), "accept"),
        ("threading.Thread(target=s.accept).start(); time.sleep(600)".to_owned(), "accept"),
    ];
    thread::scope(|scope| {
        for (script, expected) in &ways {
            scope.spawn(move || {
                let listener = Listener::open();
                let worker = python(&listener, script);
                let sight = worker.until(&listener, is_seen);
                let Waiting::Seen { pid, how } = sight.waiting else {
                    unreachable!("it is seen: {sight:?}");
                };
                // Whether accept or accept4, poll or ppoll, is the C library's choice.
                assert!(how.contains(expected), "{script}: {how}");
                assert_eq!((pid, sight.wrapped), (worker.pid(), None), "{script}");
            });
        }
    });
}

#[test]
fn what_does_not_wait_is_not_seen() {
    let ways = [
        "say(); time.sleep(600)",
        "s.listen(); say(); time.sleep(600)",
        "e = select.epoll(); e.register(0, select.EPOLLOUT); say(); time.sleep(600)",
        "e = select.epoll(); e.register(0, select.EPOLLIN); e.unregister(0); say(); e.poll()",
        "e = select.epoll(); e.register(1, select.EPOLLIN); say(); time.sleep(600)",
        "p = select.poll(); p.register(0, select.POLLOUT); say(); time.sleep(600)",
        "say(); select.select([], [], [0])",
        "t = socket.create_server(('127.0.0.1', 0)); say(); t.accept()",
        // It cannot accept what it has closed, though the registration stays.
        "e = select.epoll(); e.register(0, select.EPOLLIN); s.close(); say(); e.poll()",
    ];
    thread::scope(|scope| {
        for script in ways {
            scope.spawn(move || {
                let listener = Listener::open();
                let mut worker = python(&listener, script);
                worker.line();
                // Where it goes on to block, it has not yet, or has; both must be the answer.
                for _ in 0..100 {
                    let sight = worker.sight(&listener);
                    let expected = Sight { waiting: Waiting::NotSeen, wrapped: None };
                    assert_eq!(sight, expected, "{script}");
                }
            });
        }
    });
}

#[test]
fn a_one_shot_that_has_fired_counts_when_it_is_armed_again() {
    let listener = Listener::open();
    let mut worker = python(
        &listener,
        "e = select.epoll(); e.register(0, select.EPOLLIN | select.EPOLLONESHOT); e.poll()
say(); sys.stderr.flush(); c, _ = s.accept(); c.recv(1)
e.modify(0, select.EPOLLIN | select.EPOLLONESHOT); e.poll()",
    );
    worker.until(&listener, is_seen);
    let mut connection = listener.connect();
    worker.line();
    worker.until(&listener, |sight| sight.waiting == Waiting::NotSeen);
    io::Write::write_all(&mut connection, b"x").expect("it reads");
    worker.until(&listener, is_seen);
}

#[test]
fn only_the_wanted_sockets_count() {
    let listener = Listener::open();
    let other = Listener::open();
    let worker = python(&listener, "s.accept()");
    worker.until(&listener, is_seen);
    assert_eq!(worker.sight(&other).waiting, Waiting::NotSeen);
    let nothing = look(worker.pid(), &[], &BTreeSet::new());
    assert_eq!(nothing, Sight { waiting: Waiting::NotSeen, wrapped: None });
}

#[test]
fn a_datagram_socket_is_seen_while_somebody_receives() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let inode = inode(&socket);
    let mut command = python_command("s.recvfrom(100)");
    let worker = Worker::start(command.stdin(OwnedFd::from(socket)));
    let sight = worker.until(&Listener::of(inode), is_seen);
    assert_eq!(sight.waiting, Waiting::Seen { pid: worker.pid(), how: "recvfrom" });
}

#[test]
fn a_prefork_servers_child_is_seen_and_is_not_wrapped() {
    let listener = Listener::open();
    let script = "pid = os.fork()
if pid == 0: s.accept()
say(pid); time.sleep(600)";
    // The main process has stamped itself, as a program started with exec by a shell does.
    let mut command = Command::new("sh");
    command.args(["-c", "LISTEN_PID=$$ exec python3 -c \"$0\"", &with_prelude(script)]);
    let mut worker = Worker::start(command.stdin(listener.descriptor()));
    let child = Pid::from_raw(worker.line().parse().expect("a pid"));
    let sight = worker.until(&listener, is_seen);
    let waiting = Waiting::Seen { pid: child, how: "accept4" };
    assert_eq!(sight, Sight { waiting, wrapped: None });
}

#[test]
fn a_program_below_a_shell_is_wrapped_whether_it_waits_or_not() {
    for (script, waits) in [("say(); time.sleep(600)", false), ("say(); s.accept()", true)] {
        let listener = Listener::open();
        let mut command = Command::new("sh");
        let shell = "export LISTEN_PID=$$; python3 -c \"$0\"; true";
        command.args(["-c", shell, &with_prelude(script)]);
        let mut worker = Worker::start(command.stdin(listener.descriptor()));
        worker.line();
        let sight = worker.until(&listener, |sight| is_seen(sight) == waits);
        let wrapped = sight.wrapped.expect("it is wrapped");
        assert_ne!(wrapped.pid, worker.pid());
        assert_eq!(wrapped.listen_pid, Some(worker.pid().as_raw()));
        assert!(wrapped.name.starts_with("python"), "{wrapped:?}");
        if waits {
            let seen = Waiting::Seen { pid: wrapped.pid, how: "accept4" };
            assert_eq!(sight.waiting, seen);
        }
    }
}

#[test]
fn a_program_that_was_stamped_anew_is_not_wrapped() {
    let listener = Listener::open();
    let mut command = Command::new("sh");
    let wrapper = "sh -c 'LISTEN_PID=$$ exec python3 -c \"$0\"' \"$0\"; true";
    command.args(["-c", wrapper, &with_prelude("s.accept()")]);
    let worker = Worker::start(command.stdin(listener.descriptor()));
    let sight = worker.until(&listener, is_seen);
    assert_eq!(sight.wrapped, None);
}

#[test]
fn node_is_seen_by_its_epoll_instance() {
    let listener = Listener::open();
    let server = "require('http').createServer().listen({ fd: 3 })";
    let mut command = Command::new("sh");
    command.args(["-c", "exec node -e \"$0\" 3<&0 </dev/null", server]);
    let worker = Worker::start(command.stdin(listener.descriptor()));
    let sight = worker.until(&listener, is_seen);
    let waiting = Waiting::Seen { pid: worker.pid(), how: "epoll" };
    assert_eq!(sight, Sight { waiting, wrapped: None });
}

#[test]
fn a_ring_that_accepts_is_seen_where_rings_are_allowed() {
    for (operation, how) in [(13, "io_uring accept"), (6, "io_uring poll")] {
        let listener = Listener::open();
        let mut worker = python(&listener, &RING.replace("OPERATION", &operation.to_string()));
        if worker.line() == "refused" {
            eprintln!("this kernel or sandbox refuses io_uring_setup");
            return;
        }
        let sight = worker.until(&listener, is_seen);
        assert_eq!(sight.waiting, Waiting::Seen { pid: worker.pid(), how });
    }
}

#[test]
fn what_is_not_ours_to_read_is_unreadable_and_what_has_gone_is_not_seen() {
    let listener = Listener::open();
    let worker = python(&listener, "s.accept()");
    worker.until(&listener, is_seen);
    let pid = if Uid::effective().is_root() { worker.pid() } else { Pid::from_raw(1) };
    let look_as_nobody = || {
        // Of this thread alone; it takes along the capabilities that override permissions.
        setfsuid(Uid::from_raw(65534));
        look(pid, &[], &listener.sockets)
    };
    let sight = thread::scope(|scope| scope.spawn(look_as_nobody).join()).expect("it looks");
    assert_eq!(sight.waiting, Waiting::Unreadable { pid });
    let gone = worker.pid();
    drop(worker);
    assert_eq!(look(gone, &[], &listener.sockets).waiting, Waiting::NotSeen);
}

/// One request on a listening socket, in a ring set up by hand.
const RING: &str = "
import ctypes, mmap, struct
call = ctypes.CDLL(None).syscall
p = bytearray(120)
r = call(425, 8, (ctypes.c_char * 120).from_buffer(p))
if r < 0: say('refused'); time.sleep(600)
n = struct.unpack_from('I', p)[0]
tail, array = struct.unpack_from('I', p, 44)[0], struct.unpack_from('I', p, 64)[0]
ring = mmap.mmap(r, array + n * 4, offset=0)
requests = mmap.mmap(r, n * 64, offset=0x10000000)
requests[:64] = struct.pack('<BBHiQQII', OPERATION, 0, 0, 0, 0, 0, 0, OPERATION == 6) + bytes(32)
struct.pack_into('I', ring, tail, 1)
say(call(426, r, 1, 0, 0, None, 0)); time.sleep(600)
";

fn is_seen(sight: &Sight) -> bool {
    match sight.waiting {
        Waiting::Seen { .. } => true,
        Waiting::NotSeen | Waiting::Unreadable { .. } => false,
    }
}

/// `s` is the socket, which is standard input; `say` writes a line.
fn with_prelude(script: &str) -> String {
    format!(
        "import os, select, socket, sys, threading, time
s = socket.socket(fileno=0)
def say(*words): print(*words, flush=True)
{script}"
    )
}

fn python_command(script: &str) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", &with_prelude(script)]);
    command
}

fn python(listener: &Listener, script: &str) -> Worker {
    Worker::start(python_command(script).stdin(listener.descriptor()))
}

fn inode(socket: &impl AsFd) -> u64 {
    nix::sys::stat::fstat(socket).expect("it is open").st_ino
}

struct Listener {
    socket: Option<TcpListener>,
    sockets: BTreeSet<u64>,
}

impl Listener {
    fn open() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").expect("loopback");
        Self { sockets: BTreeSet::from([inode(&socket)]), socket: Some(socket) }
    }

    fn of(inode: u64) -> Self {
        Self { socket: None, sockets: BTreeSet::from([inode]) }
    }

    fn socket(&self) -> &TcpListener {
        self.socket.as_ref().expect("it was opened here")
    }

    fn descriptor(&self) -> OwnedFd {
        self.socket().try_clone().expect("a descriptor is free").into()
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.socket().local_addr().expect("it is bound")).expect("it listens")
    }
}

/// A process and all that it started, in a group of its own; killed and reaped on drop.
struct Worker {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Worker {
    fn start(command: &mut Command) -> Self {
        command.stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().expect("the tests need sh, python3 and node");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, output }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid is small"))
    }

    /// The next line that it says.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.by_ref().take(1000).read_line(&mut line).expect("it is text");
        assert!(line.ends_with('\n'), "the worker ended: {line:?}");
        line.trim_end().to_owned()
    }

    fn sight(&self, listener: &Listener) -> Sight {
        look(self.pid(), &proc::descendants(self.pid()), &listener.sockets)
    }

    fn until(&self, listener: &Listener, wanted: impl Fn(&Sight) -> bool) -> Sight {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let sight = self.sight(listener);
            if wanted(&sight) {
                return sight;
            }
            assert!(Instant::now() < deadline, "after 30 s: {sight:?}");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Not reaped yet, so the group's number is still its own.
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}
