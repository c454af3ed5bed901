//! Our own stdout and stderr, opened once for the life of the process, and what is known of them.

use std::os::fd::AsFd;
use std::sync::OnceLock;

use super::sink::Sink;
use super::writer::{Identity, Writer};
use crate::protocol::line_styles::{Reader, Stream};

/// Both streams. Where both lead to one file there is one sink, so that the lines of one do not tear
/// those of the other.
#[derive(Debug)]
pub struct Stdio {
    stdout: Option<End>,
    stderr: Option<End>,
    /// Whether what is for stdout goes into the sink of stderr, which leads to the same file.
    is_one: bool,
}

#[derive(Debug)]
struct End {
    sink: Sink,
    identity: Identity,
    reader: Reader,
}

/// Both streams, as they were when this was called first.
pub fn stdio() -> &'static Stdio {
    static STDIO: OnceLock<Stdio> = OnceLock::new();
    STDIO.get_or_init(|| {
        let stdout = End::open(std::io::stdout());
        let stderr = End::open(std::io::stderr());
        let is_one = match (&stdout, &stderr) {
            (Some(stdout), Some(stderr)) => stdout.identity == stderr.identity,
            (None, _) | (_, None) => false,
        };
        Stdio { stdout, stderr, is_one }
    })
}

impl Stdio {
    /// By which of the two sinks the lines for a stream leave.
    #[must_use]
    pub fn way(&self, stream: Stream) -> Stream {
        if self.is_one { Stream::Stderr } else { stream }
    }

    /// The sink for a stream; none when that was closed before we started.
    #[must_use]
    pub fn sink(&self, stream: Stream) -> Option<&Sink> {
        self.end(self.way(stream)).map(|end| &end.sink)
    }

    /// What people call the way of a sink.
    #[must_use]
    pub fn called(&self, way: Stream) -> &'static str {
        match (self.reader(way), way) {
            (Reader::Terminal { .. }, _) => "the terminal",
            (Reader::Journal | Reader::Other, Stream::Stdout) => "stdout",
            (Reader::Journal | Reader::Other, Stream::Stderr) if self.is_one => "stdout",
            (Reader::Journal | Reader::Other, Stream::Stderr) => "stderr",
        }
    }

    /// Whether both streams leave by one sink.
    #[must_use]
    pub fn is_one(&self) -> bool {
        self.is_one
    }

    /// Who reads a stream.
    #[must_use]
    pub fn reader(&self, stream: Stream) -> Reader {
        self.end(stream).map_or(Reader::Other, |end| end.reader)
    }

    /// Whether a person looks at both.
    #[must_use]
    pub fn are_terminals(&self) -> bool {
        Stream::BOTH.iter().all(|&stream| match self.reader(stream) {
            Reader::Terminal { .. } => true,
            Reader::Journal | Reader::Other => false,
        })
    }

    /// Whether this value of `JOURNAL_STREAM` tells the truth about one of the streams, see
    /// systemd.exec(5).
    #[must_use]
    pub fn has_journal(&self, journal_stream: &[u8]) -> bool {
        let mut ends = self.stdout.iter().chain(&self.stderr);
        ends.any(|end| end.identity.is_named_by(journal_stream))
    }

    fn end(&self, stream: Stream) -> Option<&End> {
        match stream {
            Stream::Stdout => self.stdout.as_ref(),
            Stream::Stderr => self.stderr.as_ref(),
        }
    }
}

impl End {
    fn open(stream: impl AsFd) -> Option<End> {
        use std::os::unix::ffi::OsStrExt;
        let (writer, identity) = Writer::open(stream).ok()?;
        let journal = std::env::var_os("JOURNAL_STREAM");
        let reader = if writer.is_terminal() {
            Reader::Terminal { coloured: wants_colour() }
        } else if journal.is_some_and(|value| identity.is_named_by(value.as_bytes())) {
            Reader::Journal
        } else {
            Reader::Other
        };
        Some(End { sink: Sink::new(writer), identity, reader })
    }
}

/// See <https://no-color.org>.
pub(super) fn wants_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
