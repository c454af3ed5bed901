//! Our own log: what happens, a line each, to stderr. Colour on a terminal only, and never alone.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::text::one_line;
use crate::core::notice::{Loudness, Notice};
use crate::os::listeners::{Listener, Origin};
use crate::os::stderr::Line;
use crate::os::stdio::Stdio;
use crate::protocol::line_styles::{self, Colours, Reader, Stream};

/// From here on what happens goes to stderr. Without a stderr nothing is said.
pub(super) fn begin(stdio: &'static Stdio) {
    let Some(sink) = stdio.sink(Stream::Stderr) else { return };
    let reader = stdio.reader(Stream::Stderr);
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(reader == Reader::Terminal { coloured: true })
        .with_max_level(Level::INFO)
        .event_format(OneLine(reader))
        .with_writer(move || Line::from(sink))
        .finish();
    // It fails only when a test in this process has set one already, and then that one is meant.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// The first lines: who we are and what we listen on.
pub(super) fn started<'a>(name: &str, listeners: impl Iterator<Item = &'a Listener>) {
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!("shepherd {version} is running as `{name}`, pid {}", std::process::id());
    listeners.for_each(listening);
}

/// A socket is open.
pub(super) fn listening(listener: &Listener) {
    let label = listener.name.as_ref().map(|name| format!("{name}=")).unwrap_or_default();
    let from = match listener.origin {
        Origin::Bound => "",
        Origin::Inherited => ", handed over to us",
    };
    let verb = if listener.transport.accepts() { "listening" } else { "receiving" };
    tracing::info!("{verb} on {label}{}{from}", listener.place());
}

/// What the core wants said.
pub(super) fn tell(notice: &Notice) {
    let loudness = notice.loudness();
    // Names and paths come from users and may hold anything; a notice stays one line.
    let notice = one_line(&notice.to_string());
    match loudness {
        Loudness::Info => tracing::info!("{notice}"),
        Loudness::Warning => tracing::warn!("{notice}"),
        Loudness::Error => tracing::error!("{notice}"),
    }
}

/// Shows what a worker wrote last, below the notice of its failure.
pub(super) fn quote<'a>(
    stdio: &Stdio,
    loudness: Loudness,
    label: &str,
    lines: impl Iterator<Item = &'a [u8]>,
) {
    let Some(sink) = stdio.sink(Stream::Stderr) else { return };
    let priority = match (stdio.reader(Stream::Stderr), loudness) {
        (Reader::Journal, Loudness::Info) => priority(Level::INFO),
        (Reader::Journal, Loudness::Warning) => priority(Level::WARN),
        (Reader::Journal, Loudness::Error) => priority(Level::ERROR),
        (Reader::Terminal { .. } | Reader::Other, _) => "",
    };
    for line in lines {
        let mut text = format!("{priority}    {label} | ").into_bytes();
        // It stands among our own words, which are plain.
        line_styles::visible(line, Colours::Dropped, &mut text);
        let text = String::from_utf8_lossy(&text);
        sink.say(format!("{text}\n").as_bytes());
    }
}

/// How the journal takes a level, see sd-daemon(3).
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// `2026-01-31T12:00:00.123456Z INFO  what happened`, or `<6>what happened` for the journal, which
/// has the time from elsewhere.
struct OneLine(Reader);

impl<S, N> FormatEvent<S, N> for OneLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = *event.metadata().level();
        if self.0 == Reader::Journal {
            write!(writer, "{}", priority(level))?;
            context.format_fields(writer.by_ref(), event)?;
            return writeln!(writer);
        }
        let (word, colour) = match level {
            Level::ERROR => ("ERROR", "31"),
            Level::WARN => ("WARN ", "33"),
            Level::INFO => ("INFO ", "32"),
            Level::DEBUG | Level::TRACE => ("DEBUG", "36"),
        };
        if writer.has_ansi_escapes() {
            write!(writer, "\x1b[2m")?;
            SystemTime.format_time(&mut writer)?;
            write!(writer, "\x1b[0m \x1b[{colour}m{word}\x1b[0m ")?;
        } else {
            SystemTime.format_time(&mut writer)?;
            write!(writer, " {word} ")?;
        }
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
