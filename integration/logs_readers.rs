//! Who reads what workers write: too slowly, not at all, not any more; and workers that write more
//! than anybody reads. Nothing of it holds up the daemon or a worker for long.

use std::{fs, io::Read, path::Path, sync::Arc};

use nix::{
    fcntl::OFlag,
    sys::{signal::Signal, stat::Mode},
    unistd::mkfifo,
};

use crate::{
    harness::{Builder, Home, Process, Stream, free_port, get, odd},
    wrapped::wrapped,
};

/// Options of a daemon whose workers are behind their names.
const PREFIXED: [&str; 6] = ["--name", "web", "--ready", "alive:1ms", "--logs", "prefix"];

/// A named pipe that a daemon writes to and that is read when the test wants it.
struct Pipe {
    end: fs::File,
    home: Arc<Home>,
}

impl Pipe {
    fn new() -> Pipe {
        let home = Home::new();
        let path = home.directory().join("pipe");
        mkfifo(&path, Mode::S_IRWXU).expect("a fifo");
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let end = nix::fcntl::open(&path, flags, Mode::empty()).expect("opened");
        Pipe { end: end.into(), home }
    }

    /// A daemon that has it in the place of `redirections`, such as `>PIPE 2>&1`.
    fn daemon(&self, redirections: &str) -> Builder {
        let path = self.home.directory().join("pipe");
        let redirections = redirections.replace("PIPE", &format!("'{}'", path.display()));
        wrapped(&format!("exec {redirections}\nexec \"$@\"")).args(PREFIXED)
    }

    /// Reads what is there.
    fn read(&mut self, into: &mut Vec<u8>) {
        // An error is that there is nothing: the end never waits.
        let _ = self.end.read_to_end(into);
    }
}

/// How many bytes a process has written in all.
fn written(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("wchar: "))?.parse().ok()
}

#[test]
fn a_worker_that_floods_us_keeps_nobody_from_being_served_or_from_a_stop() {
    let port = free_port();
    let (long, odd) = ("x".repeat(1000), odd());
    let line = format!("[ $SHEPHERD_SLOT = 0 ] && exec yes {long}; exec '{}' epoll", odd.display());
    let daemon = wrapped("exec >/dev/null\nexec \"$@\"")
        .args(PREFIXED)
        .listen(&port)
        .workers(2)
        .command(["sh", "-c", &line])
        .start();
    daemon.wait_line(|line| line.contains("2 workers ready"), "ready");
    let flooding = daemon.workers()[0];
    let mut served = 0;
    daemon.eventually("hundreds of megabytes, and requests served meanwhile", || {
        get(&port, "/").expect("an answer");
        served += 1;
        (written(flooding)? > 200 << 20 && served > 10).then_some(())
    });
    let mark = daemon.mark();
    daemon.signal(Signal::SIGTERM);
    daemon.wait_line_since(mark, |line| line.contains("stopping 2 workers"), "the stop");
    assert_eq!(daemon.wait_exit().code(), Some(0));
    daemon.assert_nothing_left();
}

#[test]
fn a_reader_that_rests_costs_lines_that_are_counted_and_holds_nobody_up() {
    const LINES: usize = 20_000;
    let mut pipe = Pipe::new();
    let program = format!(
        "import signal, sys\n\
         for i in range({LINES}): print(f'{{i:>99}}')\n\
         sys.stdout.flush()\n\
         print('done', file=sys.stderr, flush=True)\n\
         signal.pause()"
    );
    let daemon = pipe.daemon(">PIPE").command(["python3", "-c", &program]).start();
    // It writes two megabytes, which nobody reads, and gets through.
    daemon.wait_line(|line| line == "web.0 | done", "the worker's own word");
    assert_eq!(daemon.count_lines(|line| line.contains("lost")), 0, "nothing flows yet");

    let mut bytes = Vec::new();
    let told = daemon.eventually("what was lost", || {
        pipe.read(&mut bytes);
        daemon.lines().into_iter().find(|line| line.text.contains("lost: stdout was full"))
    });
    let (_, told) = told.text.split_once("WARN  ").expect("a warning");
    let lost: usize = told.split(' ').next().expect("a number").parse().expect("a number");
    assert!(told.contains(" lines of web.0 were lost"), "{told}");
    daemon.eventually("the rest", || {
        pipe.read(&mut bytes);
        let lines = memchr::memchr_iter(b'\n', &bytes).count();
        (lines + lost == LINES).then_some(())
    });
    let text = String::from_utf8(bytes).expect("text");
    assert!(text.lines().all(|line| line.len() == "web.0 | ".len() + 99), "a line is torn");
    // It flows as if nothing had been.
    assert!(daemon.stop().success());
    daemon.assert_nothing_left();
}

#[test]
fn a_reader_that_is_gone_ends_nobody_and_is_told_once() {
    let home = Home::new();
    let told = home.directory().join("told");
    let line = "i=0; while :; do i=$((i+1)); echo tick $i; \
                [ $i = 300 ] && echo alive >&2; sleep 0.01; done";
    let redirected = format!("\"$@\" 2>'{}' | true", told.display());
    let daemon = wrapped(&redirected).args(PREFIXED).command(["sh", "-c", line]).start();
    let text = daemon.eventually("a worker that outlives the reader", || {
        fs::read_to_string(&told).ok().filter(|text| text.contains("web.0 | alive"))
    });
    assert_eq!(text.matches("cannot write to stdout: Broken pipe").count(), 1, "{text}");
    assert_eq!(text.matches(" started: pid ").count(), 1, "{text}");
    let shepherd = daemon.eventually("the daemon", || {
        daemon.children().into_iter().find(|pid| is_named(*pid, "shepherd"))
    });
    assert!(processor_ticks(shepherd) < 300, "it is busy with nothing");
    let process = Process::open(shepherd).expect("the daemon");
    process.signal(Signal::SIGTERM).expect("sent");
    daemon.wait_exit();
    daemon.assert_nothing_left();
}

fn is_named(pid: i32, name: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|found| found.trim() == name)
}

/// How long a process has run, in hundredths of a second.
fn processor_ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // utime and stime, see proc_pid_stat(5).
    fields[11..13].iter().map(|field| field.parse::<u64>().expect("ticks")).sum()
}

#[test]
fn a_reader_that_has_stopped_does_not_keep_us_from_ending() {
    let pipe = Pipe::new();
    let daemon = pipe.daemon(">PIPE").command(["yes"]).start();
    daemon.wait_line(|line| line.contains("1 worker ready"), "ready");
    let flooding = daemon.workers()[0];
    daemon.eventually("a megabyte that nobody reads", || {
        (written(flooding)? > 1 << 20).then_some(())
    });
    assert!(daemon.stop().success());
    daemon.wait_line(|line| line.contains("lines of web.0 were lost: stdout was full"), "the loss");
    daemon.assert_nothing_left();
}

#[test]
fn lines_on_one_pipe_never_tear_each_other() {
    let mut pipe = Pipe::new();
    let line = "while :; do echo 0123456789; echo 0123456789 >&2; done";
    let daemon = pipe.daemon(">PIPE 2>&1").workers(3).command(["sh", "-c", line]).start();
    let mut bytes = Vec::new();
    let mut reloads = 0;
    daemon.eventually("many lines of both and of ours", || {
        // In small pieces, with pauses: the pipe is full again and again.
        let mut piece = vec![0; 9999];
        if let Ok(count) = pipe.end.read(&mut piece) {
            bytes.extend_from_slice(&piece[..count]);
        }
        if reloads < 5 && bytes.len() > reloads * 200_000 {
            reloads += 1;
            daemon.signal(Signal::SIGHUP);
        }
        (bytes.len() > 2_000_000).then_some(())
    });
    let text = String::from_utf8(bytes).expect("text");
    let end = text.rfind('\n').expect("lines");
    let mut ours = 0;
    for line in text[..end].lines() {
        let is_ours = line.starts_with("20") && line.get(26..28) == Some("Z ");
        ours += usize::from(is_ours);
        let is_workers = (0..3).any(|slot| line == format!("web.{slot} | 0123456789"));
        assert!(is_ours || is_workers, "a torn line: {line:?}");
    }
    assert!(ours > 10, "only {ours} lines of ours");
    drop(daemon);
}

#[test]
fn workers_that_are_slower_than_their_reader_lose_nothing() {
    let home = Home::new();
    let path = home.directory().join("all");
    let program = "import sys, signal\n\
                   for i in range(100000): print(i)\n\
                   print('end', flush=True)\n\
                   signal.pause()";
    let line = format!("\"$@\" | cat >'{}'", path.display());
    let daemon = wrapped(&line).args(PREFIXED).command(["python3", "-c", program]).start();
    let text = daemon.eventually("the end", || {
        fs::read_to_string(&path).ok().filter(|text| text.ends_with("| end\n"))
    });
    let numbers: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("web.0 | ")).collect();
    assert_eq!(numbers.len(), 100_001);
    let right = |(number, text): (usize, &&str)| number.to_string() == **text;
    assert!(numbers[..100_000].iter().enumerate().all(right), "the order changed");
    let shepherd = daemon.eventually("the daemon", || {
        daemon.children().into_iter().find(|pid| is_named(*pid, "shepherd"))
    });
    Process::open(shepherd).expect("the daemon").signal(Signal::SIGTERM).expect("sent");
    daemon.wait_exit();
    assert_eq!(daemon.lines().iter().filter(|line| line.stream == Stream::Stdout).count(), 0);
    assert!(Path::new(&path).exists());
}
