//! A stream of our own, stdout or stderr: lines are queued, written without ever waiting, and
//! dropped whole and counted when nobody reads them.
//!
//! Whoever shares the stream with us may have made it non-blocking, may not read it, or may be gone.
//! Who writes lines into a sink asks for its [`Intake`] before: while the queue is full, workers'
//! lines stay in their pipes for [`PATIENCE`], and are dropped from then on, until the reader has
//! taken half of what is queued.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;

use super::clock;
use super::queue::Queue;
use super::writer::Writer;
use crate::core::time::Time;

/// How many bytes wait for the reader before workers have to: some seconds of a busy log.
pub const QUEUE_MAX: usize = 256 * 1024;

/// From here on down a queue that was full takes lines again. Half of it, so that a slow reader does
/// not turn the switch with every line.
const QUEUE_LOW: usize = QUEUE_MAX / 2;

/// How many bytes of lines of our own wait, however full the queue is of others: hundreds of lines.
const OWN_MAX: usize = 64 * 1024;

/// What the last words of workers may add, which end with them and cannot wait: those of some dozens
/// that end together.
const LAST_WORDS_MAX: usize = 4 * 1024 * 1024;

/// How long a reader may take to make room. A worker that writes is held up so long at most, which
/// its clients notice and survive.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// The longest line of our own: a pipe takes so much at once or not at all, see pipe(7).
const OWN_LINE_MAX: usize = 4096;

/// How long the end waits for a reader that takes nothing, ...
const END_STALL: Duration = Duration::from_secs(1);

/// ... and for one that goes on taking something: a second is less than service managers give.
const END_MAX: Duration = Duration::from_secs(5);

/// Whose lines they are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Our own log's.
    Own,
    /// Those of the worker in this slot, such as `web.0`.
    Slot(Arc<str>),
}

/// Whether lines of workers are to be brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intake {
    /// Bring them.
    Open,
    /// Leave them where they are for a while.
    Later,
    /// Nobody reads: let them go, and say how many with [`Sink::lose`].
    Drop,
}

/// What a user should hear of a stream.
#[derive(Debug)]
pub enum News {
    /// Lines were dropped, and the stream flows again.
    Lost {
        /// Whose.
        source: Source,
        /// How many.
        lines: u64,
        /// Why.
        why: Loss,
    },
    /// It cannot be written. Lines are dropped until it can be again.
    Failed(io::Error),
}

/// Why lines were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The reader was too slow.
    Full,
    /// It could not be written.
    Failed,
}

/// One stream.
#[derive(Debug)]
pub struct Sink {
    writer: Writer,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    queue: Queue<Source>,
    flow: Flow,
    health: Health,
    lost: BTreeMap<Source, (u64, Loss)>,
    /// How many lines of workers were ever lost.
    lost_ever: u64,
    /// Which worker the last lines are of, if of one, and how many of them in a row. A slot says too
    /// little: at a reload two workers have it.
    run: (Option<u64>, u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Open,
    Full { since: Time },
    Dropping,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Well,
    Failed { with: Errno, told: bool },
}

impl Sink {
    /// A sink of what `writer` writes to.
    #[must_use]
    pub fn new(writer: Writer) -> Sink {
        let state = State {
            queue: Queue::default(),
            flow: Flow::Open,
            health: Health::Well,
            lost: BTreeMap::new(),
            lost_ever: 0,
            run: (None, 0),
        };
        Sink { writer, state: Mutex::new(state) }
    }

    /// Whether workers' lines are to be brought.
    #[must_use]
    pub fn intake(&self) -> Intake {
        match self.lock().flow {
            Flow::Open => Intake::Open,
            Flow::Full { .. } => Intake::Later,
            Flow::Dropping => Intake::Drop,
        }
    }

    /// The same for the last words of a worker that has ended: there is more room for those, and
    /// they cannot wait.
    #[must_use]
    pub fn intake_of_last_words(&self) -> Intake {
        let state = self.lock();
        match state.flow {
            Flow::Open | Flow::Full { .. } if state.queue.len() < QUEUE_MAX + LAST_WORDS_MAX => {
                Intake::Open
            }
            Flow::Open | Flow::Full { .. } | Flow::Dropping => Intake::Drop,
        }
    }

    /// Queues whole lines of a `worker`, which `write` adds to the bytes it is given, and says how
    /// many they are. They are written by [`Sink::flush`], and when they have become many.
    pub fn bring(
        &self,
        now: Time,
        source: &Source,
        worker: u64,
        write: impl FnOnce(&mut Vec<u8>) -> u64,
    ) {
        let mut state = self.lock();
        let lines = state.queue.push(source, write);
        state.note_run(Some(worker), lines);
        if state.queue.len() >= QUEUE_MAX {
            state.flush(&self.writer, now);
        }
    }

    /// How many lines of workers were lost from the start on.
    pub fn lost(&self) -> u64 {
        self.lock().lost_ever
    }

    /// Notes that lines were dropped instead.
    pub fn lose(&self, source: &Source, lines: u64) {
        self.lock().lose(source, lines, Loss::Full);
    }

    /// Writes a line of our own, its end included, after everything that waits already.
    pub fn say(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.queue.len_of(&Source::Own) > OWN_MAX {
            state.lose(&Source::Own, 1, Loss::Full);
        } else {
            let line = cut(line);
            let write = |bytes: &mut Vec<u8>| {
                bytes.extend_from_slice(&line);
                1
            };
            state.queue.push(&Source::Own, write);
            state.note_run(None, 1);
        }
        state.flush(&self.writer, clock::now());
    }

    /// Writes what it can without waiting.
    pub fn flush(&self, now: Time) {
        self.lock().flush(&self.writer, now);
    }

    /// Whether something waits until the reader makes room: then it is to be flushed when the
    /// stream is writable.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.lock().queue.is_empty()
    }

    /// When it is to be flushed although the reader has made no room.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        match self.lock().flow {
            Flow::Full { since } => Some(since + PATIENCE),
            Flow::Open | Flow::Dropping => None,
        }
    }

    /// What is to be told and was not yet.
    #[must_use]
    pub fn news(&self) -> Vec<News> {
        let mut state = self.lock();
        match (state.health, state.flow) {
            (Health::Failed { with, told: false }, _) => {
                state.health = Health::Failed { with, told: true };
                vec![News::Failed(with.into())]
            }
            (Health::Well, Flow::Open) => {
                let lost = std::mem::take(&mut state.lost);
                lost.into_iter()
                    .map(|(source, (lines, why))| News::Lost { source, lines, why })
                    .collect()
            }
            (Health::Well, Flow::Full { .. } | Flow::Dropping)
            | (Health::Failed { told: true, .. }, _) => Vec::new(),
        }
    }

    /// Whether the last `lines` lines are all of `worker` and none was lost since, so that whoever
    /// looks at them has them in front of them.
    #[must_use]
    pub fn ends_with(&self, worker: u64, lines: u64) -> bool {
        let state = self.lock();
        state.run.0 == Some(worker) && state.run.1 >= lines
    }

    /// Writes what waits before the end, and waits for the reader with a bound. What is left then is
    /// lost, and counted.
    pub fn finish(&self) {
        let mut state = self.lock();
        let end = clock::now() + END_MAX;
        // Each turn writes something, or is the last.
        loop {
            let before = state.queue.len();
            let now = clock::now();
            state.flush(&self.writer, now);
            let left = state.queue.len();
            if left == 0 || now >= end {
                break;
            }
            let patience = END_STALL.min(now.until(end));
            if left == before && !self.writer.wait(patience) {
                break;
            }
        }
        state.give_up(Loss::Full);
        state.flow = Flow::Open;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Sink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.writer.as_fd()
    }
}

impl State {
    fn flush(&mut self, writer: &Writer, now: Time) {
        // Each turn writes something, or is the last.
        while !self.queue.is_empty() {
            match writer.write(self.queue.waiting()) {
                Ok(0) | Err(Errno::EAGAIN) => break,
                Ok(written) => {
                    self.queue.written(written);
                    self.health = Health::Well;
                }
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    // A disk that is full, a reader that is gone. What comes next is tried again.
                    if self.health == Health::Well {
                        self.health = Health::Failed { with: errno, told: false };
                    }
                    self.give_up(Loss::Failed);
                }
            }
        }
        let length = self.queue.len();
        self.flow = match self.flow {
            _ if length <= QUEUE_LOW => Flow::Open,
            Flow::Open if length >= QUEUE_MAX => Flow::Full { since: now },
            Flow::Full { since } if since + PATIENCE <= now => Flow::Dropping,
            flow => flow,
        };
    }

    fn give_up(&mut self, why: Loss) {
        for (source, lines) in self.queue.give_up() {
            self.lose(&source, lines, why);
        }
    }

    fn lose(&mut self, source: &Source, lines: u64, why: Loss) {
        if lines > 0 {
            match source {
                Source::Own => {}
                Source::Slot(_) => self.lost_ever = self.lost_ever.saturating_add(lines),
            }
            let (count, cause) = self.lost.entry(source.clone()).or_insert((0, why));
            *count = count.saturating_add(lines);
            *cause = why;
            self.run = (None, 0);
        }
    }

    fn note_run(&mut self, worker: Option<u64>, lines: u64) {
        if self.run.0 == worker {
            self.run.1 = self.run.1.saturating_add(lines);
        } else if lines > 0 {
            self.run = (worker, lines);
        }
    }
}

/// At most [`OWN_LINE_MAX`] bytes, the line's end kept.
fn cut(line: &[u8]) -> Vec<u8> {
    match line.get(..OWN_LINE_MAX - 1) {
        Some(head) if line.len() > OWN_LINE_MAX => [head, b"\n"].concat(),
        Some(_) | None => line.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use nix::fcntl::OFlag;
    use nix::unistd::{pipe2, read};

    use super::*;

    fn pipe() -> (OwnedFd, Sink) {
        let (reader, writer) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).expect("a pipe");
        (reader, Sink::new(Writer::Own(writer)))
    }

    fn web() -> Source {
        Source::Slot("web.0".into())
    }

    fn bring(sink: &Sink, lines: usize) {
        bring_at(Time::ZERO, sink, lines);
    }

    fn bring_at(now: Time, sink: &Sink, lines: usize) {
        bring_of(now, sink, 1, lines);
    }

    fn bring_of(now: Time, sink: &Sink, worker: u64, lines: usize) {
        sink.bring(now, &web(), worker, |bytes| {
            let line = [[b'x'; 99].as_slice(), b"\n"].concat();
            (0..lines).for_each(|_| bytes.extend_from_slice(&line));
            lines as u64
        });
    }

    fn read_all(reader: &OwnedFd) -> String {
        let mut text = Vec::new();
        let mut buffer = vec![0; 1 << 20];
        while let Ok(count) = read(reader, &mut buffer)
            && count > 0
        {
            text.extend_from_slice(&buffer[..count]);
        }
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn lines_of_our_own_wait_for_a_slow_reader_and_beyond_a_bound_they_are_counted() {
        let (reader, sink) = pipe();
        let line = [b"y".repeat(99).as_slice(), b"\n"].concat();
        // A pipe holds 64 KiB by default; far more is said, and every call comes back.
        (0..10_000).for_each(|_| sink.say(&line));
        assert!(sink.is_waiting());
        let mut text = String::new();
        while sink.is_waiting() {
            text += &read_all(&reader);
            sink.flush(clock::now());
        }
        text += &read_all(&reader);
        let whole = text.lines().filter(|line| line.len() == 99).count();
        let [News::Lost { source: Source::Own, lines, why: Loss::Full }] = sink.news()[..] else {
            panic!("nothing is said of the loss");
        };
        assert_eq!((whole as u64 + lines, text.lines().count()), (10_000, whole));
        assert!(lines > 0);
    }

    #[test]
    fn workers_never_crowd_out_a_line_of_our_own() {
        let (reader, sink) = pipe();
        let lines = (QUEUE_MAX + LAST_WORDS_MAX) / 100;
        bring(&sink, lines);
        sink.say(b"ours\n");
        bring(&sink, 1);
        let mut text = String::new();
        while sink.is_waiting() {
            text += &read_all(&reader);
            sink.flush(clock::now());
        }
        text += &read_all(&reader);
        assert_eq!(text.lines().position(|line| line == "ours"), Some(lines));
        assert!(sink.news().is_empty());
    }

    #[test]
    fn a_full_queue_waits_then_drops_then_flows_again() {
        let (reader, sink) = pipe();
        let start = clock::now();
        bring_at(start, &sink, QUEUE_MAX / 100 + 1);
        // The pipe has taken its part.
        assert_eq!(sink.intake(), Intake::Open);
        bring_at(start, &sink, 64 * 1024 / 100 + 1);
        assert_eq!((sink.intake(), sink.deadline()), (Intake::Later, Some(start + PATIENCE)));
        assert_eq!(sink.intake_of_last_words(), Intake::Open);
        sink.flush(start + PATIENCE);
        assert_eq!((sink.intake(), sink.deadline()), (Intake::Drop, None));
        assert_eq!(sink.intake_of_last_words(), Intake::Drop);
        sink.lose(&web(), 7);
        sink.lose(&web(), 1);
        assert!(sink.news().is_empty(), "it does not flow");
        read_all(&reader);
        sink.flush(start + PATIENCE);
        assert_eq!(sink.intake(), Intake::Drop, "less than half was taken");
        while sink.intake() == Intake::Drop {
            read_all(&reader);
            sink.flush(start + PATIENCE);
        }
        let [News::Lost { source, lines: 8, why: Loss::Full }] = &sink.news()[..] else {
            panic!("nothing is said of the loss");
        };
        assert_eq!((source, sink.intake()), (&web(), Intake::Open));
        assert!(sink.news().is_empty(), "it is said once");
    }

    #[test]
    fn a_reader_that_is_gone_is_no_panic_and_is_told_once() {
        let (reader, sink) = pipe();
        drop(reader);
        for _ in 0..3 {
            bring(&sink, 2);
            sink.flush(clock::now());
            assert_eq!((sink.intake(), sink.is_waiting()), (Intake::Open, false));
        }
        let [News::Failed(error)] = &sink.news()[..] else { panic!("nothing is said") };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        sink.say(b"into the void\n");
        assert!(sink.news().is_empty());
        let lost = sink.lock().lost.clone();
        assert_eq!(lost[&web()], (6, Loss::Failed));
        assert_eq!(lost[&Source::Own], (1, Loss::Failed));
    }

    #[test]
    fn the_end_waits_for_a_reader_that_reads() {
        let (reader, sink) = pipe();
        bring(&sink, 5000);
        let read = std::thread::spawn(move || {
            let mut total = 0;
            let mut buffer = vec![0; 4096];
            loop {
                match read(&reader, &mut buffer) {
                    Ok(0) => return total,
                    Ok(count) => total += count,
                    Err(_) => std::thread::yield_now(),
                }
            }
        });
        sink.finish();
        assert!(!sink.is_waiting() && sink.news().is_empty());
        drop(sink);
        assert_eq!(read.join().expect("no panic"), 500_000);
    }

    #[test]
    fn the_end_does_not_wait_for_ever() {
        let (_reader, sink) = pipe();
        bring(&sink, 5000);
        sink.finish();
        let [News::Lost { lines, .. }] = sink.news()[..] else { panic!("nothing is said") };
        assert!((4000..5000).contains(&lines), "{lines}");
    }

    #[test]
    fn it_is_known_whose_the_last_lines_are() {
        let (_reader, sink) = pipe();
        bring(&sink, 2);
        bring(&sink, 1);
        assert!(sink.ends_with(1, 3) && !sink.ends_with(1, 4) && !sink.ends_with(2, 1));
        bring_of(Time::ZERO, &sink, 2, 5);
        assert!(sink.ends_with(2, 5) && !sink.ends_with(1, 1), "they share a slot");
        sink.lose(&web(), 1);
        assert!(!sink.ends_with(2, 1), "what came last was lost");
        bring(&sink, 1);
        sink.say(b"ours\n");
        assert!(!sink.ends_with(1, 1));
    }

    #[test]
    fn long_lines_of_ours_are_cut_to_what_a_pipe_takes_at_once() {
        assert_eq!(cut(b"short\n"), b"short\n");
        let long = cut(&b"x".repeat(10_000));
        assert_eq!((long.len(), long.last()), (OWN_LINE_MAX, Some(&b'\n')));
    }
}
