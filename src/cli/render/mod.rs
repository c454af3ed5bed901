//! What the daemon says as text for people. Pure: width, colour and the time are arguments.
//!
//! Whatever comes from the daemon may hold what users and workers wrote, so it passes through
//! [`plain`] before it is shown. Colour is never the only carrier of a meaning.

pub(super) mod status;

mod sockets;

pub(super) mod progress;

pub(super) mod outcome;

pub(super) mod event;

pub(super) mod redraw;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::config::text::one_line;
use crate::control::wire::Left;

/// For whom a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Look {
    /// How many columns there are; nothing is cut where nobody counts them.
    pub(in crate::cli) width: Option<usize>,
    /// Whether colours are welcome.
    pub(in crate::cli) colour: Colour,
}

/// Whether colours are welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Colour {
    /// They are.
    Wanted,
    /// They are not.
    None,
}

/// What a word is, which gives it its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hue {
    /// No colour.
    Plain,
    /// A name that begins a block.
    Bold,
    /// Titles, and what is over.
    Dim,
    /// As it should be.
    Good,
    /// On its way.
    Moving,
    /// Somebody has to act.
    Bad,
}

impl Look {
    /// The text in its colour, if it may have one.
    fn paint(self, hue: Hue, text: &str) -> String {
        let code = match (self.colour, hue) {
            (Colour::None, _) | (Colour::Wanted, Hue::Plain) => return text.to_owned(),
            (Colour::Wanted, Hue::Bold) => "1",
            (Colour::Wanted, Hue::Dim) => "2",
            (Colour::Wanted, Hue::Good) => "32",
            (Colour::Wanted, Hue::Moving) => "33",
            (Colour::Wanted, Hue::Bad) => "31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// The text, cut where the line ends.
    fn fit(self, text: &str) -> String {
        match self.width {
            Some(width) => cut(text, width),
            None => text.to_owned(),
        }
    }
}

/// A text of somebody else on one line, with nothing in it that would move a cursor.
fn plain(text: &str) -> String {
    one_line(&text.replace('\t', "    "))
}

/// How many columns a text without colours takes.
fn columns(text: &str) -> usize {
    text.width()
}

/// At most so many columns of a text; `…` stands for what is left out.
fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let fits = |char: &char| {
        let wide = char.width().unwrap_or(0);
        let fits = wide <= left;
        left = left.saturating_sub(wide);
        fits
    };
    let mut kept: String = text.chars().take_while(fits).collect();
    if width > 0 {
        kept.push('…');
    }
    kept
}

/// What a client says when it fails, with lines that break between words where they would be too
/// long behind `shepherd: `. Further lines have an indent, which is kept. Whoever made it, nothing in
/// it moves a cursor: paths from the environment are in some.
pub(super) fn message(text: &str, width: Option<usize>) -> String {
    let lines: Vec<String> = text.lines().map(plain).collect();
    let text = lines.join("\n");
    let Some(width) = width else { return text };
    let mut lines = text.lines();
    let first = wrapped("shepherd: ", "  ", lines.next().unwrap_or_default(), Some(width));
    let mut message = first.join("\n").split_off("shepherd: ".len());
    for line in lines {
        let body = line.trim_start_matches(' ');
        let indent = " ".repeat(line.len() - body.len());
        message.push('\n');
        message.push_str(&wrapped(&indent, &format!("{indent}  "), body, Some(width)).join("\n"));
    }
    message
}

/// A text on as many lines as it takes, broken between words. A word that is longer than a line is
/// left to the terminal.
fn wrapped(first: &str, others: &str, text: &str, width: Option<usize>) -> Vec<String> {
    let width = width.unwrap_or(usize::MAX);
    let mut lines = Vec::new();
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in text.split(' ') {
        if !is_empty && columns(&line) + 1 + columns(word) > width {
            lines.push(line);
            line = String::from(others);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    lines.push(line);
    lines
}

/// A time as a column shows it: `0.4s`, `12s`, `4m10s`, `3h12m`, `5d4h`.
pub(super) fn compact(seconds: f64) -> String {
    if seconds < 9.95 {
        return format!("{:.1}s", seconds.max(0.0));
    }
    // Far below what it can hold, and a fraction of a second more or less is nothing.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
    let whole = seconds as u64;
    let (minutes, hours, days) = (whole / 60, whole / 3600, whole / 86400);
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{minutes}m{}s", whole % 60),
        3600..86400 => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

/// An amount of memory as a column shows it: `812 KiB`, `45 MiB`, `1.5 GiB`.
fn memory(bytes: u64) -> String {
    let kib = bytes >> 10;
    match kib {
        0..1024 => format!("{kib} KiB"),
        1024..1_048_576 => format!("{} MiB", kib >> 10),
        _ => format!("{}.{} GiB", kib >> 20, ((kib & 0xf_ffff) * 10) >> 20),
    }
}

/// What a worker that drains has left: `2 connections open, 1 queued`. Nothing where nothing is known
/// to be left.
fn left(left: Left, open: [&'static str; 2]) -> Option<String> {
    let [one, more] = open;
    let parts = [
        (left.connections, [one, more]),
        (left.queued, ["queued"; 2]),
        (left.handshakes, ["coming"; 2]),
    ];
    let part = |(count, [one, more]): (Option<u32>, [&str; 2])| match count? {
        0 => None,
        1 => Some(format!("1 {one}")),
        count => Some(format!("{count} {more}")),
    };
    let parts: Vec<String> = parts.into_iter().filter_map(part).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// `1 worker`, `4 workers`.
fn workers(count: impl Into<u64>) -> String {
    match count.into() {
        1 => "1 worker".to_owned(),
        count => format!("{count} workers"),
    }
}

#[cfg(test)]
pub(super) mod samples;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_cut_by_columns_and_says_so() {
        assert_eq!(cut("serving", 7), "serving");
        assert_eq!(cut("serving", 6), "servi…");
        assert_eq!(cut("日本語です", 6), "日本…");
        assert_eq!(cut("x", 0), "");
    }

    #[test]
    fn messages_break_between_words_and_keep_their_indents() {
        let text = "reload aborted: it exited with code 3\n    no database at all is there";
        assert_eq!(message(text, None), text);
        assert_eq!(
            message(text, Some(24)),
            "reload\n  aborted: it exited\n  with code 3\n    no database at all\n      is there"
        );
        assert_eq!(message("", Some(24)), "");
        assert_eq!(message("no `\x1b[2J`\n  x\u{9b}m", None), "no `\\u{1b}[2J`\n  x\\u{9b}m");
        assert_eq!(
            message("a/very/long/path/in/one/word", Some(10)),
            "a/very/long/path/in/one/word"
        );
    }

    #[test]
    fn times_take_few_columns() {
        for (seconds, text) in [
            (-1.0, "0.0s"),
            (0.44, "0.4s"),
            (9.96, "9s"),
            (59.9, "59s"),
            (250.0, "4m10s"),
            (11_520.0, "3h12m"),
            (446_400.0, "5d4h"),
        ] {
            assert_eq!(compact(seconds), text);
        }
    }

    #[test]
    fn what_is_left_is_told_where_it_is_known() {
        let of = |connections, queued, handshakes| {
            let given = Left { connections, queued, handshakes };
            left(given, ["connection open", "connections open"]).unwrap_or_default()
        };
        assert_eq!(of(Some(1), Some(0), None), "1 connection open");
        assert_eq!(of(Some(2), Some(1), Some(3)), "2 connections open, 1 queued, 3 coming");
        assert_eq!(of(None, Some(1), Some(0)), "1 queued");
        assert_eq!((of(None, None, None), of(Some(0), None, None)), (String::new(), String::new()));
    }

    #[test]
    fn what_a_worker_says_moves_no_cursor() {
        assert_eq!(plain("a\tb\x1b[2Jc\n"), "a    b\\u{1b}[2Jc\\n");
    }
}
