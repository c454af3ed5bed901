//! How lines of workers look when they have passed through us: behind a prefix, or as JSON. Pure.

use std::fmt;

use serde::Serialize;

use super::lines::Piece;

/// The two ways out of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

impl Stream {
    /// Both, by their numbers.
    pub const BOTH: [Stream; 2] = [Stream::Stdout, Stream::Stderr];
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        })
    }
}

/// Who reads the lines, as far as it matters to how they look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reader {
    /// A person in front of a terminal: nothing that workers write may move the cursor.
    Terminal {
        /// Whether the person wants colours of ours.
        coloured: bool,
    },
    /// The journal: `<N>` in front of a line is its priority, see sd-daemon(3).
    Journal,
    /// Anything else: bytes pass as they are.
    #[default]
    Other,
}

/// What stands before every line of one worker on one stream: `web.0  | `.
#[derive(Debug, Default)]
pub struct Prefix {
    whole: String,
    resumed: String,
    reader: Reader,
}

/// Colours that are readable on dark and on light; red is left to errors.
const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 96];

/// What ends every colour.
const PLAIN: &str = "\x1b[0m";

/// The priority of a line that has none of its own: what programs write to stderr says nothing of
/// its gravity, for many that is where their ordinary log goes.
const PRIORITY: &[u8] = b"<6>";

impl Prefix {
    /// The prefix of `label`, filled up to `width` characters, in the colour of this `slot`.
    #[must_use]
    pub fn new(label: &str, width: usize, slot: u32, reader: Reader) -> Prefix {
        let hue = COLOURS[slot as usize % COLOURS.len()];
        let signed = |sign: char| match reader {
            Reader::Terminal { coloured: true } => {
                format!("\x1b[{hue}m{label:width$} {sign}{PLAIN} ")
            }
            Reader::Terminal { coloured: false } | Reader::Journal | Reader::Other => {
                format!("{label:width$} {sign} ")
            }
        };
        Prefix { whole: signed('|'), resumed: signed('+'), reader }
    }

    /// Adds a line to `out`. One that continues the line before it has `+` where others have `|`.
    pub fn write(&self, piece: Piece<'_>, out: &mut Vec<u8>) {
        let prefix = if piece.continues { &self.resumed } else { &self.whole };
        match self.reader {
            Reader::Terminal { .. } => {
                out.extend_from_slice(prefix.as_bytes());
                if visible(piece.bytes, Colours::Kept, out) == HasColours::Yes {
                    out.extend_from_slice(PLAIN.as_bytes());
                }
            }
            Reader::Journal => {
                let (priority, text) = split_priority(piece.bytes);
                out.extend_from_slice(priority.unwrap_or(PRIORITY));
                out.extend_from_slice(prefix.as_bytes());
                out.extend_from_slice(text);
            }
            Reader::Other => {
                out.extend_from_slice(prefix.as_bytes());
                out.extend_from_slice(piece.bytes);
            }
        }
        out.push(b'\n');
    }
}

/// The priority in front of a line, if there is one, and the rest.
fn split_priority(line: &[u8]) -> (Option<&[u8]>, &[u8]) {
    match line {
        [b'<', b'0'..=b'7', b'>', text @ ..] => (line.get(..3), text),
        _ => (None, line),
    }
}

/// What becomes of the colours in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    /// They stay.
    Kept,
    /// They go.
    Dropped,
}

/// Whether a text had colours that were kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HasColours {
    /// It did.
    Yes,
    /// It did not.
    No,
}

/// Adds a text to `out` so that a terminal only shows it: colours may pass, whatever else would
/// move its cursor or talk to it is written as Rust escapes it. Other bytes pass as they are.
pub fn visible(text: &[u8], colours: Colours, out: &mut Vec<u8>) -> HasColours {
    let mut has_colours = HasColours::No;
    let harmless = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t');
    let mut rest = text;
    while !rest.is_empty() {
        let plain = rest.iter().take_while(|&byte| harmless(byte)).count();
        let (now, later) = rest.split_at(plain);
        out.extend_from_slice(now);
        rest = later;
        if let Some(length) = colour_sequence(rest) {
            let (sequence, later) = rest.split_at(length);
            if colours == Colours::Kept {
                out.extend_from_slice(sequence);
                has_colours = HasColours::Yes;
            }
            rest = later;
        } else if let Some((character, later)) = first_character(rest) {
            if character.is_control() {
                out.extend(character.escape_default().map(|ascii| ascii as u8));
            } else {
                let mut bytes = [0; 4];
                out.extend_from_slice(character.encode_utf8(&mut bytes).as_bytes());
            }
            rest = later;
        } else if let Some((&byte, later)) = rest.split_first() {
            // No UTF-8. Some of these are control characters to terminals of another time.
            match byte {
                0x80..=0x9f => out.extend(std::ascii::escape_default(byte)),
                _ => out.push(byte),
            }
            rest = later;
        }
    }
    has_colours
}

/// How long the escape sequence is that sets a colour, if the text begins with one: ECMA-48, "SGR".
fn colour_sequence(text: &[u8]) -> Option<usize> {
    /// Longer than any that sets foreground and background by their parts.
    const PARAMETERS_MAX: usize = 64;
    let parameters = text.strip_prefix(b"\x1b[")?;
    let is_parameter = |byte: &u8| matches!(byte, b'0'..=b'9' | b';' | b':');
    let count =
        parameters.iter().take(PARAMETERS_MAX).take_while(|byte| is_parameter(byte)).count();
    (parameters.get(count) == Some(&b'm')).then_some(2 + count + 1)
}

fn first_character(text: &[u8]) -> Option<(char, &[u8])> {
    let (head, _) = text.split_at(text.len().min(4));
    let valid = head.utf8_chunks().next()?.valid();
    let character = valid.chars().next()?;
    Some((character, text.get(character.len_utf8()..)?))
}

/// What a line of JSON says of the worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Its service's name.
    pub service: String,
    /// Its slot.
    pub slot: u32,
    /// Its number.
    pub worker: u64,
    /// Its main process.
    pub pid: u32,
    /// The definition it runs.
    pub generation: u64,
}

/// A line of JSON. The order is that in which people read it.
#[derive(Serialize)]
struct Object<'a> {
    time: &'a str,
    service: &'a str,
    slot: u32,
    worker: u64,
    pid: u32,
    generation: u64,
    stream: Stream,
    message: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    continued: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
}

impl Serialize for Stream {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Adds a line to `out` as an object of JSON. Bytes that are no UTF-8 are replaced.
pub fn write_json(
    time: &str,
    origin: &Origin,
    stream: Stream,
    piece: Piece<'_>,
    out: &mut Vec<u8>,
) {
    let object = Object {
        time,
        service: &origin.service,
        slot: origin.slot,
        worker: origin.worker,
        pid: origin.pid,
        generation: origin.generation,
        stream,
        message: &String::from_utf8_lossy(piece.bytes),
        continued: piece.continues,
        truncated: piece.goes_on,
    };
    // It fails only for maps with keys that are no text, and for writers that fail.
    let _ = serde_json::to_writer(&mut *out, &object);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn piece(bytes: &[u8]) -> Piece<'_> {
        Piece { bytes, continues: false, goes_on: false }
    }

    fn prefixed(reader: Reader, bytes: &[u8]) -> String {
        let mut out = Vec::new();
        Prefix::new("web.0", 6, 0, reader).write(piece(bytes), &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    const TERMINAL: Reader = Reader::Terminal { coloured: true };

    #[test]
    fn a_prefix_lines_up_and_has_a_colour_on_a_terminal_only() {
        assert_eq!(prefixed(Reader::Other, b"hello"), "web.0  | hello\n");
        assert_eq!(prefixed(TERMINAL, b"hello"), "\x1b[36mweb.0  |\x1b[0m hello\n");
        let plain = Reader::Terminal { coloured: false };
        assert_eq!(prefixed(plain, b"hello"), "web.0  | hello\n");
        let mut out = Vec::new();
        let rest = Piece { bytes: b"rest", continues: true, goes_on: false };
        Prefix::new("web.10", 6, 10, Reader::Other).write(rest, &mut out);
        assert_eq!(out, b"web.10 + rest\n");
    }

    #[test]
    fn bytes_pass_as_they_are_where_nobody_has_a_cursor() {
        let bytes = b"a\x00\xff\x1b[2J\rb";
        let mut out = Vec::new();
        Prefix::new("a", 1, 0, Reader::Other).write(piece(bytes), &mut out);
        assert_eq!(out, [b"a | ".as_slice(), bytes, b"\n"].concat());
    }

    #[test]
    fn on_a_terminal_colours_pass_and_end_with_the_line() {
        let line = prefixed(TERMINAL, b"\x1b[1;38:5:200mred \xe2\x82\xac");
        assert!(line.ends_with(" \x1b[1;38:5:200mred \u{20ac}\x1b[0m\n"), "{line:?}");
    }

    #[test]
    fn on_a_terminal_nothing_moves_the_cursor() {
        for (bytes, shown) in [
            (&b"10%\r20%"[..], "10%\\r20%"),
            (b"\x1b[2J\x1b]0;owned\x07", "\\u{1b}[2J\\u{1b}]0;owned\\u{7}"),
            (b"\x1b[31", "\\u{1b}[31"),
            (b"a\x08\x00\x7f\tb", "a\\u{8}\\u{0}\\u{7f}\tb"),
            ("\u{9b}2J".as_bytes(), "\\u{9b}2J"),
            (b"\x9b2J", "\\x9b2J"),
        ] {
            let line = prefixed(Reader::Terminal { coloured: false }, bytes);
            assert_eq!(line, format!("web.0  | {shown}\n"));
        }
        // What is no text passes, as on any terminal.
        let mut out = Vec::new();
        visible(b"\xff\xe2\x82", Colours::Kept, &mut out);
        assert_eq!(out, b"\xff\xe2\\x82");
    }

    #[test]
    fn the_journal_gets_a_priority_in_front_and_that_of_the_worker_if_it_has_one() {
        assert_eq!(prefixed(Reader::Journal, b"hello"), "<6>web.0  | hello\n");
        assert_eq!(prefixed(Reader::Journal, b"<3>bad"), "<3>web.0  | bad\n");
        assert_eq!(prefixed(Reader::Journal, b"<8>x"), "<6>web.0  | <8>x\n");
        assert_eq!(prefixed(Reader::Other, b"<3>bad"), "web.0  | <3>bad\n");
    }

    #[test]
    fn json_says_who_when_and_what() {
        let origin =
            Origin { service: "web".to_owned(), slot: 2, worker: 5, pid: 42, generation: 3 };
        let mut out = Vec::new();
        write_json("T", &origin, Stream::Stdout, piece(b"a\"\n\x1b\xff"), &mut out);
        let expected = r#"{"time":"T","service":"web","slot":2,"worker":5,"pid":42,"generation":3,"stream":"stdout","message":"a\"\n\u001b�"}"#;
        assert_eq!(String::from_utf8_lossy(&out), format!("{expected}\n"));
        out.clear();
        let middle = Piece { bytes: b"x", continues: true, goes_on: true };
        write_json("T", &origin, Stream::Stderr, middle, &mut out);
        let text = String::from_utf8_lossy(&out);
        let end =
            "\"stream\":\"stderr\",\"message\":\"x\",\"continued\":true,\"truncated\":true}\n";
        assert!(text.ends_with(end), "{text}");
    }

    proptest! {
        #[test]
        fn no_line_moves_the_cursor_of_a_terminal(
            bytes in prop::collection::vec(
                prop_oneof![any::<u8>(), Just(0x1b), Just(b'['), Just(b'm'), Just(0xc2), Just(0x9b)],
                0..60,
            )
        ) {
            let mut out = Vec::new();
            visible(&bytes, Colours::Dropped, &mut out);
            let text = String::from_utf8_lossy(&out);
            prop_assert!(text.chars().all(|char| char == '\t' || !char.is_control()), "{text:?}");
        }

        #[test]
        fn each_line_of_json_is_one_object(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let origin =
                Origin { service: "a".to_owned(), slot: 0, worker: 1, pid: 2, generation: 1 };
            let mut out = Vec::new();
            write_json("T", &origin, Stream::Stdout, piece(&bytes), &mut out);
            prop_assert_eq!(memchr::memchr_iter(b'\n', &out).count(), 1);
            let value: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
            let message = value["message"].as_str().expect("text");
            prop_assert_eq!(message, String::from_utf8_lossy(&bytes));
        }
    }
}
