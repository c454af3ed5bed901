//! Mistakes in a text that a person wrote: each with its place, the line that it stands in, what is
//! wrong and what to write instead. Pure: they are gathered and shown here, and found elsewhere.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

use super::text::one_line;

/// The most mistakes that are shown of one file; a person mends these first and looks again.
pub const SHOWN_MAX: usize = 50;

/// The widest part of a line that is shown, in characters: one that fits beside its number into most
/// terminals, and into any log.
const LINE_WIDTH_MAX: usize = 120;

/// A part of the text, in bytes; it begins and ends between characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span {
    /// Its first byte.
    pub start: usize,
    /// The byte behind its last.
    pub end: usize,
}

impl Span {
    /// The place before a byte.
    #[must_use]
    pub fn at(start: usize) -> Span {
        Span { start, end: start }
    }
}

impl From<Span> for Range<usize> {
    fn from(span: Span) -> Range<usize> {
        span.start..span.end
    }
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where it is; without a place, nowhere in the text.
    pub at: Option<Span>,
    /// What is wrong, on one line.
    pub what: String,
    /// What to do about it.
    pub step: Option<String>,
    /// Another place that belongs to it, and what is there.
    pub also: Option<(Span, String)>,
}

impl Mistake {
    /// From a message as all of ours are: a cause, and behind `; ` the next step if there is one.
    #[must_use]
    pub fn new(at: impl Into<Option<Span>>, message: &str) -> Mistake {
        let message = one_line(message);
        let (what, step) = match step_in(&message) {
            Some(end) => (&message[..end], Some(message[end + 2..].to_owned())),
            None => (message.as_str(), None),
        };
        Mistake { at: at.into(), what: what.to_owned(), step, also: None }
    }

    /// The same, with another place that belongs to it.
    #[must_use]
    pub fn beside(self, at: Span, what: impl Into<String>) -> Mistake {
        Mistake { also: Some((at, what.into())), ..self }
    }
}

/// Where the next step of a message is parted from its cause: at the first `; ` outside of backticks,
/// for what stands between these is the user's own.
fn step_in(message: &str) -> Option<usize> {
    let mut quoted = false;
    for (index, char) in message.char_indices() {
        match char {
            '`' => quoted = !quoted,
            ';' if !quoted && message[index..].starts_with("; ") => return Some(index),
            _ => {}
        }
    }
    None
}

/// Mistakes as they are found.
#[derive(Debug, Default)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// One more.
    pub fn add(&mut self, at: impl Into<Option<Span>>, message: &str) {
        self.0.push(Mistake::new(at, message));
    }

    /// One more.
    pub fn push(&mut self, mistake: Mistake) {
        self.0.push(mistake);
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl From<Mistake> for Mistakes {
    fn from(mistake: Mistake) -> Mistakes {
        Mistakes(vec![mistake])
    }
}

/// All mistakes of one file, in the order of their places, ready to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    file: String,
    text: String,
    mistakes: Vec<Mistake>,
}

impl Report {
    /// Of the file that people call so, with that text.
    #[must_use]
    pub fn new(file: &str, text: &str, mistakes: Mistakes) -> Report {
        let mut mistakes = mistakes.0;
        // Those without a place concern the whole and come last.
        mistakes.sort_by_key(|mistake| mistake.at.map_or(usize::MAX, |at| at.start));
        mistakes.dedup();
        Report { file: one_line(file), text: text.to_owned(), mistakes }
    }

    /// The mistakes, in the order of their places.
    #[must_use]
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }

    /// The same for programs: every mistake, and its place in lines and columns from 1 on.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        let entry = |mistake: &Mistake| {
            let place = mistake.at.map(|at| Place::of(&self.text, at));
            Entry {
                file: self.file.clone(),
                line: place.as_ref().map(|place| place.line),
                column: place.as_ref().map(|place| place.column),
                message: mistake.what.clone(),
                hint: mistake.step.clone(),
            }
        };
        self.mistakes.iter().map(entry).collect()
    }
}

/// A mistake for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The file.
    pub file: String,
    /// The line, from 1 on.
    pub line: Option<usize>,
    /// The character in the line, from 1 on.
    pub column: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Report {
    /// At most [`SHOWN_MAX`] of them, a line between each two, and in the end how many there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mistake in self.mistakes.iter().take(SHOWN_MAX) {
            self.write(f, mistake)?;
            writeln!(f)?;
        }
        let count = self.mistakes.len();
        let mistakes = if count == 1 { "mistake" } else { "mistakes" };
        write!(f, "{}: {count} {mistakes}", self.file)?;
        if count > SHOWN_MAX { write!(f, ", the first {SHOWN_MAX} are shown") } else { Ok(()) }
    }
}

impl Report {
    fn write(&self, f: &mut fmt::Formatter<'_>, mistake: &Mistake) -> fmt::Result {
        writeln!(f, "error: {}", mistake.what)?;
        let Some(at) = mistake.at else {
            writeln!(f, " --> {}", self.file)?;
            return match &mistake.step {
                Some(step) => writeln!(f, "  = {step}"),
                None => Ok(()),
            };
        };
        let place = Place::of(&self.text, at);
        let also = mistake.also.as_ref().map(|(at, what)| (Place::of(&self.text, *at), what));
        let last = also.as_ref().map_or(place.line, |(other, _)| other.line.max(place.line));
        let width = last.to_string().len();
        writeln!(f, "{:width$}--> {}:{}:{}", "", self.file, place.line, place.column)?;
        writeln!(f, "{:width$} |", "")?;
        place.write(f, width, '^', mistake.step.as_deref().unwrap_or_default())?;
        if let Some((other, what)) = &also {
            writeln!(f, "{:width$} |", "")?;
            other.write(f, width, '-', what)?;
        }
        Ok(())
    }
}

/// A line of the text, and a part of it.
#[derive(Debug)]
struct Place {
    /// From 1 on.
    line: usize,
    /// In characters, from 1 on.
    column: usize,
    /// The line as it is shown.
    shown: String,
    /// How many characters of what is shown stand before the part.
    before: usize,
    /// How wide the part is, at least 1.
    width: usize,
}

impl Place {
    fn of(text: &str, at: Span) -> Place {
        let start = floor(text, at.start);
        let line_start = text[..start].rfind('\n').map_or(0, |end| end + 1);
        let line = text[line_start..].split('\n').next().unwrap_or_default();
        let line = line.strip_suffix('\r').unwrap_or(line);
        let in_line = (start - line_start).min(line.len());
        let end = floor(text, at.end).saturating_sub(line_start).clamp(in_line, line.len());
        let part = line[in_line..end].trim_end();
        let (before, width) = (one_line(&line[..in_line]), one_line(part).chars().count());
        let before = before.chars().count();
        let shown = one_line(line);
        let (shown, before) = window(&shown, before);
        Place {
            line: text[..start].matches('\n').count() + 1,
            column: line[..in_line].chars().count() + 1,
            width: width.clamp(1, shown.chars().count().saturating_sub(before).max(1)),
            shown,
            before,
        }
    }

    fn write(
        &self,
        f: &mut fmt::Formatter<'_>,
        width: usize,
        mark: char,
        what: &str,
    ) -> fmt::Result {
        writeln!(f, "{:>width$} | {}", self.line, self.shown)?;
        let marks = String::from(mark).repeat(self.width);
        let line = format!("{:before$}{marks} {what}", "", before = self.before);
        writeln!(f, "{:width$} | {}", "", line.trim_end())
    }
}

/// The part of a line that is shown: all of it, or what is around the character that matters.
fn window(line: &str, before: usize) -> (String, usize) {
    const CUT: &str = "...";
    let count = line.chars().count();
    if count <= LINE_WIDTH_MAX {
        return (line.to_owned(), before);
    }
    let start = before.saturating_sub(LINE_WIDTH_MAX / 2);
    let mut shown: String = line.chars().skip(start).take(LINE_WIDTH_MAX).collect();
    if start + LINE_WIDTH_MAX < count {
        shown.push_str(CUT);
    }
    if start == 0 {
        return (shown, before);
    }
    shown.insert_str(0, CUT);
    (shown, before - start + CUT.len())
}

/// The nearest border between characters at or before a byte.
pub(super) fn floor(text: &str, mut byte: usize) -> usize {
    byte = byte.min(text.len());
    while !text.is_char_boundary(byte) {
        byte -= 1;
    }
    byte
}

/// The known name that is nearest to what was written, if one is near.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let slips = |known: &str| strsim::damerau_levenshtein(known, &name);
    // One slip away, or much the same.
    let near = |known: &&str| {
        let one_slip = slips(known) <= 1 && name.len() > 1;
        one_slip || strsim::jaro_winkler(known, &name) > 0.8
    };
    known.into_iter().filter(near).min_by_key(|known| slips(known))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str, at: Span, message: &str) -> String {
        Report::new("f.yaml", text, Mistake::new(at, message).into()).to_string()
    }

    #[test]
    fn a_mistake_shows_its_place_and_what_to_do() {
        let text = shown("a: 1\nworkrs: 2\n", Span { start: 5, end: 11 }, "no `x; y`; write `z`");
        let expected = "\
error: no `x; y`
 --> f.yaml:2:1
  |
2 | workrs: 2
  | ^^^^^^ write `z`

f.yaml: 1 mistake";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_caret_stands_under_what_is_meant_whatever_stands_before_it() {
        for (text, start, line) in [
            ("\t\u{e4}: x\r\n", 5, "  |      ^ y"),
            ("", 0, "  | ^ y"),
            ("a\n", 2, "  | ^ y"),
            ("a", 99, "  |  ^ y"),
        ] {
            let shown = shown(text, Span { start, end: start + 1 }, "x; y");
            assert!(shown.lines().any(|other| other == line), "{text:?}:\n{shown}");
        }
        let long = format!("{}HERE{}", "x".repeat(500), "y".repeat(500));
        let shown = shown(&long, Span { start: 500, end: 504 }, "x; y");
        let lines: Vec<&str> = shown.lines().collect();
        let caret = lines[4].find('^').expect("a caret");
        assert_eq!(&lines[3][caret..caret + 4], "HERE");
        assert!(lines[3].len() < 140, "{}", lines[3]);
    }

    #[test]
    fn at_most_fifty_are_shown_and_all_are_counted() {
        let mut mistakes = Mistakes::default();
        (0..60).for_each(|at| mistakes.add(Span::at(at), "wrong"));
        let text = Report::new("f.yaml", &"x".repeat(99), mistakes).to_string();
        assert_eq!(text.matches("error: ").count(), SHOWN_MAX);
        assert!(text.ends_with("f.yaml: 60 mistakes, the first 50 are shown"), "{text}");
    }

    #[test]
    fn the_nearest_name_is_found() {
        let known = ["workers", "listen", "ready_timeout"];
        assert_eq!(nearest("workrs", known), Some("workers"));
        assert_eq!(nearest("ready-timeout", known), Some("ready_timeout"));
        assert_eq!(nearest("Listen", known), Some("listen"));
        assert_eq!(nearest("colour", known), None);
    }

    proptest! {
        #[test]
        fn any_span_of_any_text_can_be_shown(
            text in "\\PC{0,30}|[\\s\\S]{0,30}",
            start in 0_usize..99,
            end in 0_usize..99,
        ) {
            let report = Report::new("f", &text, Mistake::new(Span { start, end }, &text).into());
            let _ = report.to_string();
            let entries = report.entries();
            prop_assert!(entries[0].line.expect("a line") <= text.matches('\n').count() + 1);
        }
    }
}
