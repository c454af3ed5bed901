//! Our own log: what happens, a line each, to stderr. Colour on a terminal only, and never alone.

use std::fmt;
use std::io::{self, IsTerminal};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::text::one_line;
use crate::core::notice::{Loudness, Notice};
use crate::os::listeners::{Listener, Origin};
use crate::os::stderr::{Line, Stderr};

/// From here on what happens goes to stderr. Without a stderr nothing is said.
pub(super) fn begin() {
    let Ok(stderr) = Stderr::open() else { return };
    let stderr: &'static Stderr = Box::leak(Box::new(stderr));
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(wants_colour())
        .with_max_level(Level::INFO)
        .event_format(OneLine)
        .with_writer(move || Line::from(stderr))
        .finish();
    // It fails only when a test in this process has set one already, and then that one is meant.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// See <https://no-color.org>.
fn wants_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !refused
}

/// The first lines: who we are and what we listen on.
pub(super) fn started(name: &str, listeners: &[Listener]) {
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!("shepherd {version} is running as `{name}`, pid {}", std::process::id());
    for listener in listeners {
        let label = listener.name.as_ref().map(|name| format!("{name}=")).unwrap_or_default();
        let from = match listener.origin {
            Origin::Bound => "",
            Origin::Inherited => ", handed over to us",
        };
        let verb = if listener.transport.accepts() { "listening" } else { "receiving" };
        tracing::info!("{verb} on {label}{}{from}", listener.place());
    }
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

/// `2026-01-31T12:00:00.123456Z INFO  what happened`
struct OneLine;

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
        let (word, colour) = match *event.metadata().level() {
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
