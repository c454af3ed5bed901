//! What the daemon and its workers print, line by line in the order of arrival.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
    process::{ChildStderr, ChildStdout},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

/// Lines kept: the oldest go first. More than any test reads, little enough for memory.
const LINES_MAX: usize = 50_000;
/// A line longer than this is cut in two.
const LINE_BYTES_MAX: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

#[derive(Clone, Debug)]
pub struct Line {
    pub stream: Stream,
    pub text: String,
    /// Since the start of the daemon.
    pub at: Duration,
}

/// Shared by the test and the thread that reads.
pub struct Output {
    store: Mutex<Store>,
    grown: Condvar,
    /// Other names of the pipes, to ask whether all has been read.
    pipes: [OwnedFd; 2],
}

struct Store {
    started: Instant,
    lines: VecDeque<Line>,
    /// How many lines went to make room: the absolute number of `lines[0]`.
    dropped: usize,
    /// Beginnings of lines, by stream.
    pending: [Vec<u8>; 2],
    ended: bool,
}

pub enum Waited {
    Found(String),
    /// Nobody is left who could write the line.
    Ended,
    TimedOut,
}

impl Output {
    pub fn capture(stdout: ChildStdout, stderr: ChildStderr) -> io::Result<Arc<Output>> {
        let pipes = [stdout.as_fd().try_clone_to_owned()?, stderr.as_fd().try_clone_to_owned()?];
        let store = Store {
            started: Instant::now(),
            lines: VecDeque::new(),
            dropped: 0,
            pending: [Vec::new(), Vec::new()],
            ended: false,
        };
        let output = Arc::new(Output { store: Mutex::new(store), grown: Condvar::new(), pipes });
        let reader = Arc::clone(&output);
        thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || reader.read_all(stdout, stderr))?;
        Ok(output)
    }

    pub fn lines(&self) -> Vec<Line> {
        self.settled().lines.iter().cloned().collect()
    }

    /// The number of the line that comes next.
    pub fn mark(&self) -> usize {
        let store = self.settled();
        store.dropped + store.lines.len()
    }

    /// The first line from number `mark` on that `wanted` accepts.
    pub fn wait(&self, mark: usize, deadline: Duration, wanted: impl Fn(&str) -> bool) -> Waited {
        let end = Instant::now() + deadline;
        let mut next = mark;
        let mut store = self.lock();
        loop {
            let skip = next.saturating_sub(store.dropped);
            if let Some(line) = store.lines.iter().skip(skip).find(|line| wanted(&line.text)) {
                return Waited::Found(line.text.clone());
            }
            next = store.dropped + store.lines.len();
            if store.ended {
                return Waited::Ended;
            }
            let now = Instant::now();
            if now >= end {
                return Waited::TimedOut;
            }
            store =
                self.grown.wait_timeout(store, end - now).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// All of it, for a person who looks for the cause of a failure.
    pub fn transcript(&self) -> String {
        let store = self.settled();
        let mut text = String::from("--- output of the daemon and its workers ---\n");
        if store.dropped > 0 {
            let _ = writeln!(text, "({} older lines are not kept)", store.dropped);
        }
        for line in &store.lines {
            let stream = match line.stream {
                Stream::Stdout => "out",
                Stream::Stderr => "err",
            };
            let _ = writeln!(text, "{:9.3} {stream} | {}", line.at.as_secs_f64(), line.text);
        }
        for begun in store.pending.iter().filter(|bytes| !bytes.is_empty()) {
            let _ = writeln!(text, "{:>13} | {}", "unfinished", String::from_utf8_lossy(begun));
        }
        text.push_str("--- end of output ---");
        text
    }

    /// The store when all that was written before this call is in it. The reader reads under the
    /// lock, so an empty pipe seen under the lock means just that.
    fn settled(&self) -> MutexGuard<'_, Store> {
        let end = Instant::now() + Duration::from_secs(2);
        loop {
            let store = self.lock();
            let mut fds =
                self.pipes.each_ref().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN));
            let _ = poll(&mut fds, PollTimeout::ZERO);
            let shows =
                |fd: &PollFd, flag| fd.revents().is_some_and(|events| events.contains(flag));
            // When all writers are gone the reader has an end to note, and a last line with it.
            let waiting = fds.iter().any(|fd| shows(fd, PollFlags::POLLIN))
                || (!store.ended && fds.iter().all(|fd| shows(fd, PollFlags::POLLHUP)));
            // Workers that print without a pause would keep us here for ever: hence the end.
            if !waiting || Instant::now() >= end {
                return store;
            }
            let (store, _) = self
                .grown
                .wait_timeout(store, Duration::from_millis(50))
                .unwrap_or_else(PoisonError::into_inner);
            drop(store);
        }
    }

    /// One thread for both pipes, so that lines keep their order as well as it can be seen.
    fn read_all(&self, mut stdout: ChildStdout, mut stderr: ChildStderr) {
        let mut open = [true, true];
        let mut buffer = vec![0; 64 * 1024];
        while open.contains(&true) {
            // A pipe that has ended is always ready: it is left out.
            let asked: Vec<usize> = (0..2).filter(|index| open[*index]).collect();
            let mut fds: Vec<PollFd> = asked
                .iter()
                .map(|index| PollFd::new(self.pipes[*index].as_fd(), PollFlags::POLLIN))
                .collect();
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => panic!("cannot poll the pipes of a daemon: {error}"),
            }
            let mut ready = [false, false];
            for (index, fd) in asked.iter().zip(&fds) {
                ready[*index] = fd.revents().is_some_and(|events| !events.is_empty());
            }
            let mut store = self.lock();
            for (index, stream) in [(1, Stream::Stderr), (0, Stream::Stdout)] {
                if !ready[index] {
                    continue;
                }
                let outcome = match stream {
                    Stream::Stdout => stdout.read(&mut buffer),
                    Stream::Stderr => stderr.read(&mut buffer),
                };
                match outcome {
                    Ok(0) => open[index] = false,
                    Ok(count) => store.add(index, stream, &buffer[..count]),
                    // A worker may have made the pipe non-blocking for everybody.
                    Err(error)
                        if matches!(
                            error.kind(),
                            io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                        ) => {}
                    Err(_) => open[index] = false,
                }
            }
            if !open.contains(&true) {
                store.end();
            }
            drop(store);
            self.grown.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    fn add(&mut self, index: usize, stream: Stream, bytes: &[u8]) {
        for byte in bytes {
            if *byte != b'\n' {
                self.pending[index].push(*byte);
            }
            if *byte == b'\n' || self.pending[index].len() >= LINE_BYTES_MAX {
                self.finish_line(index, stream);
            }
        }
    }

    fn finish_line(&mut self, index: usize, stream: Stream) {
        let text = String::from_utf8_lossy(&self.pending[index]).into_owned();
        self.pending[index].clear();
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
            self.dropped += 1;
        }
        self.lines.push_back(Line { stream, text, at: self.started.elapsed() });
    }

    fn end(&mut self) {
        for (index, stream) in [(0, Stream::Stdout), (1, Stream::Stderr)] {
            if !self.pending[index].is_empty() {
                self.finish_line(index, stream);
            }
        }
        self.ended = true;
    }
}
