//! What one worker writes, on its way through us: cut into lines, styled, remembered. It does not
//! decide when to read.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::config::values::Logs;
use crate::core::action::Spawn;
use crate::core::ids::Pid;
use crate::core::time::Time;
use crate::os::clock;
use crate::os::sink::{Intake, Source};
use crate::os::stdio::Stdio;
use crate::protocol::last_lines::LastLines;
use crate::protocol::line_styles::{self, Origin, Prefix, Stream};
use crate::protocol::lines::{Piece, Splitter};
use crate::protocol::timestamp;

/// One worker's output.
pub(super) struct Capture {
    label: Arc<str>,
    origin: Origin,
    logs: Logs,
    pub(super) last: LastLines,
    stdout: Ear,
    stderr: Ear,
}

/// One of its streams.
pub(super) struct Ear {
    /// None once everybody has closed the other end.
    pub(super) reader: Option<OwnedFd>,
    /// When something was heard last.
    pub(super) heard: Time,
    /// Whether it is planned to look whether a line has stayed without its end.
    pub(super) planned: bool,
    splitter: Splitter,
    prefix: Prefix,
}

/// What there is of a stream.
#[derive(Debug, Clone, Copy)]
pub(super) enum Words<'a> {
    /// The next bytes.
    Bytes(&'a [u8]),
    /// A line has stayed without its end for long enough.
    Pause,
    /// Nothing comes after this.
    End,
}

impl Capture {
    pub(super) fn new(
        order: &Spawn,
        service_name: &str,
        pid: Pid,
        logs: Logs,
        [stdout, stderr]: [OwnedFd; 2],
    ) -> Capture {
        let label: Arc<str> = format!("{service_name}.{}", order.slot).into();
        let origin = Origin {
            service: service_name.to_owned(),
            slot: order.slot.0,
            worker: order.worker.0,
            pid: pid.0,
            generation: order.generation.0,
        };
        let last = LastLines::default();
        Capture { label, origin, logs, last, stdout: Ear::new(stdout), stderr: Ear::new(stderr) }
    }

    /// Its service and its slot, as people see them.
    pub(super) fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// Its number.
    pub(super) fn worker(&self) -> u64 {
        self.origin.worker
    }

    /// As whose its lines are counted.
    fn source(&self) -> Source {
        Source::Slot(Arc::clone(&self.label))
    }

    pub(super) fn ear(&mut self, stream: Stream) -> &mut Ear {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Its main process is another one.
    pub(super) fn rename(&mut self, pid: Pid) {
        self.origin.pid = pid.0;
    }

    /// Lines its prefix up with those of the others.
    pub(super) fn line_up(&mut self, width: usize, stdio: &Stdio) {
        for stream in Stream::BOTH {
            let prefix = Prefix::new(&self.label, width, self.origin.slot, stdio.reader(stream));
            self.ear(stream).prefix = prefix;
        }
    }

    /// Passes on what is there, or lets it go. Either way its last lines are remembered.
    pub(super) fn pass(
        &mut self,
        now: Time,
        stream: Stream,
        words: Words<'_>,
        stdio: &Stdio,
        intake: Intake,
    ) {
        let source = self.source();
        let Capture { origin, logs, last, stdout, stderr, .. } = self;
        let Ear { splitter, prefix, .. } = match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        };
        let sink = match logs {
            Logs::Prefix => stdio.sink(stream),
            // One stream of objects; each says where it comes from.
            Logs::Json => stdio.sink(Stream::Stdout),
            Logs::Inherit => None,
        };
        let mut lines = 0;
        match (sink, intake) {
            (Some(sink), Intake::Open | Intake::Later) => {
                sink.bring(now, &source, origin.worker, |out| {
                    let time = match logs {
                        Logs::Json => timestamp::rfc3339(clock::since_epoch()),
                        Logs::Prefix | Logs::Inherit => String::new(),
                    };
                    split(splitter, words, |piece| {
                        lines += 1;
                        last.push(piece);
                        match logs {
                            Logs::Json => {
                                line_styles::write_json(&time, origin, stream, piece, out);
                            }
                            Logs::Prefix | Logs::Inherit => prefix.write(piece, out),
                        }
                    });
                    lines
                });
            }
            (_, Intake::Open | Intake::Later | Intake::Drop) => {
                split(splitter, words, |piece| {
                    lines += 1;
                    last.push(piece);
                });
                if let Some(sink) = sink {
                    sink.lose(&source, lines);
                }
            }
        }
    }
}

impl Ear {
    fn new(reader: OwnedFd) -> Ear {
        Ear {
            reader: Some(reader),
            heard: Time::ZERO,
            planned: false,
            splitter: Splitter::default(),
            prefix: Prefix::default(),
        }
    }

    /// Whether a line has begun that has not ended.
    pub(super) fn is_waiting(&self) -> bool {
        self.splitter.is_waiting()
    }
}

fn split(splitter: &mut Splitter, words: Words<'_>, give: impl FnMut(Piece<'_>)) {
    match words {
        Words::Bytes(bytes) => splitter.feed(bytes, give),
        Words::Pause => splitter.flush(give),
        Words::End => splitter.finish(give),
    }
}
