//! What workers write, from their pipes to our own streams, and what waits there for its reader.
//!
//! The pipes are in sets of their own, one for each of our streams. While a stream's queue is full
//! its set is not watched: the pipes fill, and the workers wait as they would for a slow reader of
//! their own. What the others say, and the signals, come first in every turn and are never held up,
//! because a turn reads from [`PIPES_MAX`] pipes at most, once each.
//!
//! The order of what a worker writes to one stream is kept; stdout and stderr are two pipes, and how
//! their lines follow each other is not known.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::capture::{Capture, Words};
use super::event_loop::Token;
use super::journal;
use crate::config::values::Logs;
use crate::core::action::Spawn;
use crate::core::ids::{Pid, WorkerId};
use crate::core::notice::Notice;
use crate::core::time::Time;
use crate::os::clock;
use crate::os::output::{Heard, READ_MAX, hear};
use crate::os::reactor::Reactor;
use crate::os::sink::{Intake, Loss, News, Sink, Source};
use crate::os::stdio::Stdio;
use crate::protocol::last_lines::LastLines;
use crate::protocol::line_styles::{self, Colours, Reader, Stream};

/// How many pipes are read in a turn, [`READ_MAX`] bytes of each: some milliseconds.
const PIPES_MAX: usize = 16;

/// How long a line may stay without its end before it is shown: a prompt that waits for somebody.
const PAUSE: Duration = Duration::from_secs(1);

/// The most that is read of a pipe whose worker has ended: as much as one can be made to hold,
/// `pipe-max-size`. Whoever still writes to it then belongs to nobody.
const LAST_WORDS_MAX: usize = 1 << 20;

/// Of how many workers that were blamed for a failure the last lines are kept, some KiB each: more
/// than fail between the abort in one service of a reload and its end in the others, mostly.
const LAST_WORDS_KEPT: usize = 16;

/// All that leaves by our stdout and stderr.
pub(super) struct Output {
    logs: Logs,
    stdio: &'static Stdio,
    stdout: Way,
    stderr: Way,
    captures: BTreeMap<WorkerId, Capture>,
    /// Whose pipes are closed; their last lines are kept until their end is told.
    closed: Vec<WorkerId>,
    /// Those of them that were blamed for a failure, and the last lines of the latest of these: a
    /// reload of several services is answered once it has ended in all of them.
    blamed: BTreeSet<WorkerId>,
    last_words: VecDeque<(WorkerId, LastLines)>,
    /// When to look whether a line has stayed without its end.
    pauses: BTreeSet<(Time, WorkerId, Stream)>,
    /// The longest label so far.
    width: usize,
    buffer: Vec<u8>,
}

/// The workers' pipes that lead to one of our streams, and what of both is watched.
struct Way {
    pipes: Reactor,
    pipes_watched: bool,
    sink_watched: bool,
}

impl Way {
    fn new() -> io::Result<Way> {
        Ok(Way { pipes: Reactor::new()?, pipes_watched: false, sink_watched: false })
    }
}

impl Output {
    /// # Errors
    ///
    /// When no descriptor is left.
    pub(super) fn new(logs: Logs, stdio: &'static Stdio, width: usize) -> io::Result<Output> {
        Ok(Output {
            logs,
            stdio,
            stdout: Way::new()?,
            stderr: Way::new()?,
            captures: BTreeMap::new(),
            closed: Vec::new(),
            blamed: BTreeSet::new(),
            last_words: VecDeque::new(),
            pauses: BTreeSet::new(),
            width,
            buffer: vec![0; READ_MAX],
        })
    }

    /// Whether the workers write to pipes of ours.
    pub(super) fn captures(&self) -> bool {
        match self.logs {
            Logs::Inherit => false,
            Logs::Prefix | Logs::Json => true,
        }
    }

    /// Whether a worker's stdout or stderr is the stream that this value of `JOURNAL_STREAM` names.
    pub(super) fn gives_journal(&self, journal_stream: &[u8]) -> bool {
        !self.captures() && self.stdio.has_journal(journal_stream)
    }

    /// Listens to a worker from here on.
    pub(super) fn listen(
        &mut self,
        order: &Spawn,
        service_name: &str,
        pid: Pid,
        readers: [OwnedFd; 2],
    ) {
        let worker = order.worker;
        for (stream, reader) in Stream::BOTH.into_iter().zip(&readers) {
            let token = encode(worker, stream);
            let way = self.leaves_by(stream);
            if let Err(error) = self.way(way).pipes.add(reader, token) {
                tracing::warn!("worker {worker}: cannot watch its {stream}: {error}");
            }
        }
        let mut capture = Capture::new(order, service_name, pid, self.logs, readers);
        let length = capture.label().len();
        capture.line_up(self.width.max(length), self.stdio);
        self.captures.insert(worker, capture);
        if length > self.width {
            self.width = length;
            for capture in self.captures.values_mut() {
                capture.line_up(length, self.stdio);
            }
        }
    }

    /// A worker's main process is another one.
    pub(super) fn rename(&mut self, worker: WorkerId, pid: Pid) {
        if let Some(capture) = self.captures.get_mut(&worker) {
            capture.rename(pid);
        }
    }

    /// Reads from pipes that have something, not all of it: the rest has its turn later.
    pub(super) fn read(&mut self, way: Stream) {
        let pipes = self.way(way).pipes.wait_for_some(Some(Duration::ZERO), PIPES_MAX);
        for token in pipes.unwrap_or_default() {
            let (worker, stream) = decode(token);
            match self.intake(stream) {
                Intake::Later => return,
                intake @ (Intake::Open | Intake::Drop) => {
                    self.hear(worker, stream, intake);
                }
            }
        }
    }

    /// Reads what a worker has said before its main process ended.
    pub(super) fn last_words(&mut self, worker: WorkerId) {
        for stream in Stream::BOTH {
            let mut left = LAST_WORDS_MAX;
            while left > 0 {
                let sink = self.stdio.sink(self.leaves_by(stream));
                let intake = sink.map_or(Intake::Drop, Sink::intake_of_last_words);
                match self.hear(worker, stream, intake) {
                    Heard::Bytes(count) => left = left.saturating_sub(count),
                    Heard::Nothing | Heard::End => break,
                }
            }
        }
    }

    /// Shows what a worker has begun to say and not ended: its main process cannot any more, and
    /// what others of its tree may add is not waited for.
    pub(super) fn main_gone(&mut self, worker: WorkerId) {
        for stream in Stream::BOTH {
            self.pass(worker, stream, Words::Pause);
        }
    }

    /// Nothing of the worker is left: its pipes are closed after its last words. Somebody who holds
    /// one and belongs to nobody will write into the void.
    pub(super) fn close(&mut self, worker: WorkerId) {
        if !self.captures.contains_key(&worker) {
            return;
        }
        self.last_words(worker);
        for stream in Stream::BOTH {
            self.end(worker, stream);
        }
        self.closed.push(worker);
    }

    /// Everything that happened is told: what was kept for it goes, but for the last lines of those
    /// that were blamed.
    pub(super) fn forget_closed(&mut self) {
        for worker in self.closed.drain(..) {
            let Some(capture) = self.captures.remove(&worker) else { continue };
            if self.blamed.remove(&worker) {
                if self.last_words.len() >= LAST_WORDS_KEPT {
                    self.last_words.pop_front();
                }
                self.last_words.push_back((worker, capture.last));
            }
        }
    }

    /// Tells a notice, with the last lines of the worker it blames for a failure.
    pub(super) fn tell(&mut self, notice: &Notice) {
        let quoted = notice.blamed().and_then(|name| self.captures.get(&name.worker));
        self.blamed.extend(quoted.and(notice.blamed()).map(|name| name.worker));
        let quoted = quoted.filter(|capture| !self.is_in_sight(capture));
        journal::tell(notice);
        if let Some(capture) = quoted {
            journal::quote(self.stdio, notice.loudness(), capture.label(), capture.last.iter());
        }
    }

    /// How many lines of workers were dropped from the start on.
    pub(super) fn lines_dropped(&self) -> u64 {
        let own = Stream::BOTH.into_iter().filter(|way| self.stdio.way(*way) == *way);
        own.filter_map(|way| Some(self.stdio.sink(way)?.lost())).sum()
    }

    /// The last lines that a worker wrote, where they pass through us, for people elsewhere: what
    /// would move their cursor is written out.
    pub(super) fn last_lines(&self, worker: WorkerId) -> Vec<String> {
        let kept = || self.last_words.iter().find(|(other, _)| *other == worker);
        let alive = self.captures.get(&worker).map(|capture| &capture.last);
        let lines = alive.or_else(|| kept().map(|(_, last)| last)).map(LastLines::iter);
        let visible = |line: &[u8]| {
            let mut text = Vec::new();
            line_styles::visible(line, Colours::Dropped, &mut text);
            String::from_utf8_lossy(&text).into_owned()
        };
        lines.into_iter().flatten().map(visible).collect()
    }

    /// Whether whoever reads the log has the worker's last lines right before the next line of ours.
    fn is_in_sight(&self, capture: &Capture) -> bool {
        let lines = u64::try_from(capture.last.iter().len()).unwrap_or(u64::MAX);
        let is_terminal = match self.stdio.reader(Stream::Stderr) {
            Reader::Terminal { .. } => true,
            Reader::Journal | Reader::Other => false,
        };
        is_terminal
            && self.stdio.is_one()
            && self
                .stdio
                .sink(Stream::Stderr)
                .is_some_and(|sink| sink.ends_with(capture.worker(), lines))
    }

    /// When [`Output::tend`] is to be called although nothing has become readable or writable.
    pub(super) fn deadline(&self) -> Option<Time> {
        let pause = self.pauses.first().map(|&(at, ..)| at);
        let sinks = Stream::BOTH.into_iter().filter_map(|way| self.stdio.sink(way)?.deadline());
        sinks.chain(pause).min()
    }

    /// Writes what waits, as far as it goes, and watches what there is to wait for. To be called in
    /// every turn of the loop, before it waits.
    pub(super) fn tend(&mut self, now: Time, reactor: &Reactor) {
        self.end_pauses(now);
        for way in Stream::BOTH {
            if self.stdio.way(way) != way {
                continue;
            }
            if let Some(sink) = self.stdio.sink(way) {
                sink.flush(now);
                sink.news().into_iter().for_each(|news| tell_news(self.stdio.called(way), news));
            }
        }
        // Only then: what was told may have to wait as well.
        for way in Stream::BOTH {
            self.watch(way, reactor);
        }
    }

    /// Everything is stopped: writes what waits, with a bound, and tells what was lost by it.
    pub(super) fn finish(&mut self) {
        for way in Stream::BOTH {
            if self.stdio.way(way) == way
                && let Some(sink) = self.stdio.sink(way)
            {
                sink.finish();
                sink.news().into_iter().for_each(|news| tell_news(self.stdio.called(way), news));
            }
        }
    }

    fn watch(&mut self, stream: Stream, reactor: &Reactor) {
        if self.stdio.way(stream) != stream {
            return;
        }
        let sink = self.stdio.sink(stream);
        let intake = sink.map_or(Intake::Drop, Sink::intake);
        let reads = self.captures() && intake != Intake::Later;
        let way = self.way(stream);
        if reads != way.pipes_watched {
            let done = if reads {
                reactor.add(&way.pipes, Token::Lines(stream).encode())
            } else {
                reactor.remove(&way.pipes);
                Ok(())
            };
            // Failing here, it is tried again in the next turn.
            way.pipes_watched = if done.is_ok() { reads } else { way.pipes_watched };
        }
        let Some(sink) = sink else { return };
        let waits = sink.is_waiting();
        if waits != way.sink_watched {
            let done = if waits {
                reactor.add_writable(sink, Token::Sink(stream).encode())
            } else {
                reactor.remove(sink);
                Ok(())
            };
            way.sink_watched = if done.is_ok() { waits } else { way.sink_watched };
        }
    }

    /// Reads once from one pipe.
    fn hear(&mut self, worker: WorkerId, stream: Stream, intake: Intake) -> Heard {
        let now = clock::now();
        let Some(capture) = self.captures.get_mut(&worker) else {
            return Heard::End;
        };
        let ear = capture.ear(stream);
        let Some(reader) = &ear.reader else {
            return Heard::End;
        };
        let heard = hear(reader, &mut self.buffer);
        match heard {
            Heard::Bytes(count) => {
                ear.heard = now;
                let bytes = self.buffer.get(..count).unwrap_or_default();
                capture.pass(now, stream, Words::Bytes(bytes), self.stdio, intake);
                let ear = capture.ear(stream);
                if ear.is_waiting() && !ear.planned {
                    ear.planned = true;
                    self.pauses.insert((now + PAUSE, worker, stream));
                }
            }
            Heard::Nothing => {}
            Heard::End => self.end(worker, stream),
        }
        heard
    }

    /// Closes one pipe, after the line that has stayed without its end.
    fn end(&mut self, worker: WorkerId, stream: Stream) {
        self.pass(worker, stream, Words::End);
        let reader =
            self.captures.get_mut(&worker).and_then(|capture| capture.ear(stream).reader.take());
        if let Some(reader) = reader {
            let way = self.leaves_by(stream);
            self.way(way).pipes.remove(&reader);
        }
    }

    /// Shows lines that have stayed without their ends.
    fn end_pauses(&mut self, now: Time) {
        // What is planned anew lies in the future, so this ends.
        while let Some(&(at, worker, stream)) = self.pauses.first()
            && at <= now
        {
            self.pauses.pop_first();
            let Some(capture) = self.captures.get_mut(&worker) else { continue };
            let ear = capture.ear(stream);
            let due = ear.heard + PAUSE;
            ear.planned = ear.is_waiting() && due > now;
            if ear.planned {
                self.pauses.insert((due, worker, stream));
            } else {
                self.pass(worker, stream, Words::Pause);
            }
        }
    }

    fn pass(&mut self, worker: WorkerId, stream: Stream, words: Words<'_>) {
        let intake = self.intake(stream);
        if let Some(capture) = self.captures.get_mut(&worker) {
            capture.pass(clock::now(), stream, words, self.stdio, intake);
        }
    }

    fn intake(&self, stream: Stream) -> Intake {
        self.stdio.sink(self.leaves_by(stream)).map_or(Intake::Drop, Sink::intake)
    }

    /// By which of our streams the lines of a worker's stream leave.
    fn leaves_by(&self, stream: Stream) -> Stream {
        self.stdio.way(match self.logs {
            // Each object says where it comes from.
            Logs::Json => Stream::Stdout,
            Logs::Prefix | Logs::Inherit => stream,
        })
    }

    fn way(&mut self, way: Stream) -> &mut Way {
        match way {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

fn tell_news(way: &str, news: News) {
    match news {
        News::Lost { source, lines, why } => {
            let noun = if lines == 1 { "line" } else { "lines" };
            let were = if lines == 1 { "was" } else { "were" };
            let whose = match &source {
                Source::Own => "this log",
                Source::Slot(label) => label,
            };
            match why {
                Loss::Full => {
                    tracing::warn!("{lines} {noun} of {whose} {were} lost: {way} was full");
                }
                Loss::Failed => {
                    tracing::warn!(
                        "{lines} {noun} of {whose} {were} lost: {way} could not be written"
                    );
                }
            }
        }
        News::Failed(error) => tracing::warn!(
            "cannot write to {way}: {error}; what is meant for it is dropped until it can be written"
        ),
    }
}

/// A worker's stream as the token of its pipe.
fn encode(worker: WorkerId, stream: Stream) -> u64 {
    worker.0 << 1
        | match stream {
            Stream::Stdout => 0,
            Stream::Stderr => 1,
        }
}

fn decode(token: u64) -> (WorkerId, Stream) {
    let stream = if token & 1 == 0 { Stream::Stdout } else { Stream::Stderr };
    (WorkerId(token >> 1), stream)
}
