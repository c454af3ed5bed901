//! Cuts what a worker writes into lines, however it arrives. Pure, and bounded in memory.
//!
//! A line ends with `\n`; a `\r` before it belongs to the end. A line longer than [`LINE_MAX`] comes
//! in pieces, and so does one whose beginning was given up for a while by [`Splitter::flush`]: a
//! prompt, or a dot of progress. A piece says on which of its sides the line goes on, so that
//! nothing is ever taken for a whole line that is none.

/// The most bytes of a piece: more than people write in a line, little enough for every worker.
pub const LINE_MAX: usize = 16 * 1024;

/// A line, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// What was written, any bytes, without the line's end.
    pub bytes: &'a [u8],
    /// Whether it continues the piece before it.
    pub continues: bool,
    /// Whether the line goes on in a piece after it.
    pub goes_on: bool,
}

/// One stream of one worker. It holds at most [`LINE_MAX`] bytes and one `\r`.
#[derive(Debug, Default)]
pub struct Splitter {
    /// The beginning of a line, or of what is left of it.
    begun: Vec<u8>,
    /// Whether a piece of this line was given already.
    continues: bool,
}

impl Splitter {
    /// Takes the next bytes and gives every piece that is complete by them, in order.
    pub fn feed(&mut self, bytes: &[u8], mut give: impl FnMut(Piece<'_>)) {
        let mut rest = bytes;
        while let Some(length) = memchr::memchr(b'\n', rest) {
            let (line, tail) = rest.split_at(length);
            if self.begun.is_empty() && line.len() <= LINE_MAX {
                // The common case: the whole line is here, and nothing is copied.
                self.end(line, &mut give);
            } else {
                self.extend(line, &mut give);
                let begun = std::mem::take(&mut self.begun);
                self.end(&begun, &mut give);
            }
            rest = tail.get(1..).unwrap_or_default();
        }
        self.extend(rest, &mut give);
    }

    /// Whether a line has begun that has not ended, and a part of it waits here.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.begun.is_empty()
    }

    /// Gives what waits, although its line has not ended: it has waited long enough.
    pub fn flush(&mut self, mut give: impl FnMut(Piece<'_>)) {
        if self.is_waiting() {
            let begun = std::mem::take(&mut self.begun);
            self.last(&begun, true, &mut give);
        }
    }

    /// Gives what waits, as the last line: nothing comes after it.
    pub fn finish(&mut self, mut give: impl FnMut(Piece<'_>)) {
        if self.is_waiting() {
            let begun = std::mem::take(&mut self.begun);
            self.last(&begun, false, &mut give);
        }
        self.continues = false;
    }

    fn end(&mut self, line: &[u8], give: &mut impl FnMut(Piece<'_>)) {
        let bytes = line.strip_suffix(b"\r").unwrap_or(line);
        if self.continues && bytes.is_empty() {
            // What a flush gave was the whole line, and its end alone is no line of its own.
            self.continues = false;
        } else {
            self.last(bytes, false, give);
        }
    }

    /// Adds bytes without a line's end, and gives what is too long to be kept. One byte more than
    /// the longest piece is kept: only then is it known that the line is longer, since a `\r` may
    /// belong to its end.
    fn extend(&mut self, bytes: &[u8], give: &mut impl FnMut(Piece<'_>)) {
        let mut rest = bytes;
        while self.begun.len() + rest.len() > LINE_MAX + 1 {
            let (now, later) = rest.split_at(LINE_MAX.saturating_sub(self.begun.len()));
            self.begun.extend_from_slice(now);
            let kept = self.begun.split_off(cut(&self.begun));
            let piece = std::mem::replace(&mut self.begun, kept);
            self.give(&piece, true, give);
            rest = later;
        }
        self.begun.extend_from_slice(rest);
    }

    /// Gives the end of what there is, in two pieces if it is one byte too long.
    fn last(&mut self, bytes: &[u8], goes_on: bool, give: &mut impl FnMut(Piece<'_>)) {
        let mut bytes = bytes;
        if bytes.len() > LINE_MAX {
            let (piece, rest) = bytes.split_at(cut(bytes));
            self.give(piece, true, give);
            bytes = rest;
        }
        self.give(bytes, goes_on, give);
    }

    fn give(&mut self, bytes: &[u8], goes_on: bool, give: &mut impl FnMut(Piece<'_>)) {
        let continues = std::mem::replace(&mut self.continues, goes_on);
        give(Piece { bytes, continues, goes_on });
    }
}

/// Where to cut what is longer than a piece.
fn cut(bytes: &[u8]) -> usize {
    LINE_MAX - incomplete(bytes.get(..LINE_MAX).unwrap_or_default())
}

/// How many bytes at the end are the beginning of a character in UTF-8: it is not to be cut in two.
fn incomplete(bytes: &[u8]) -> usize {
    let last = bytes.iter().rev().take(3);
    for (before, &byte) in last.enumerate() {
        let length = match byte {
            0x80..=0xbf => continue,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => return 0,
        };
        return if before + 1 < length { before + 1 } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A piece with bytes of its own: text, whether it continues, whether it goes on.
    type Given = (Vec<u8>, bool, bool);

    fn keep(given: &mut Vec<Given>) -> impl FnMut(Piece<'_>) + '_ {
        |piece| given.push((piece.bytes.to_vec(), piece.continues, piece.goes_on))
    }

    fn split<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Given> {
        let mut splitter = Splitter::default();
        let mut given = Vec::new();
        for chunk in chunks {
            splitter.feed(chunk, keep(&mut given));
            assert!(splitter.begun.len() <= LINE_MAX + 1, "it holds too much");
        }
        splitter.finish(keep(&mut given));
        given
    }

    fn whole(text: &str) -> Given {
        (text.as_bytes().to_vec(), false, false)
    }

    #[test]
    fn lines_end_with_a_newline_and_a_carriage_return_before_it_belongs_to_it() {
        let given = split([&b"one\ntwo\r\n\n\rthree\r\r\nlast"[..]]);
        let lines = ["one", "two", "", "\rthree\r", "last"].map(whole);
        assert_eq!(given, lines);
        assert_eq!(split([&b"a\r"[..], b"\nb"]), ["a", "b"].map(whole));
    }

    #[test]
    fn what_was_given_up_for_a_while_goes_on_later() {
        let mut splitter = Splitter::default();
        let mut given = Vec::new();
        splitter.feed(b"Password: ", keep(&mut given));
        assert!(splitter.is_waiting() && given.is_empty());
        splitter.flush(keep(&mut given));
        assert!(!splitter.is_waiting());
        splitter.flush(keep(&mut given));
        splitter.feed(b"ok\n.", keep(&mut given));
        splitter.flush(keep(&mut given));
        splitter.feed(b"\nnext\n", keep(&mut given));
        let piece = |text: &str, continues, goes_on| (text.as_bytes().to_vec(), continues, goes_on);
        let pieces = [
            piece("Password: ", false, true),
            piece("ok", true, false),
            piece(".", false, true),
            piece("next", false, false),
        ];
        assert_eq!(given, pieces);
    }

    #[test]
    fn a_line_without_an_end_comes_in_pieces_and_no_character_is_cut() {
        let text = "\u{20ac}".repeat(LINE_MAX);
        let given = split(text.as_bytes().chunks(1000));
        assert_eq!(given.len(), 4, "three and a bit of them");
        assert!(given.iter().all(|(bytes, ..)| std::str::from_utf8(bytes).is_ok()));
        assert!(given[0].2 && given[1].1 && !given[3].2);
        // What is no text is cut where it is full.
        assert_eq!(split([vec![0x80; LINE_MAX + 2].as_slice()])[0].0.len(), LINE_MAX);
    }

    #[test]
    fn a_line_that_just_fits_is_whole() {
        for end in ["\n", "\r\n"] {
            let text = format!("{}{end}", "x".repeat(LINE_MAX));
            for chunk in [1, 7, LINE_MAX, text.len()] {
                let given = split(text.as_bytes().chunks(chunk));
                assert_eq!(given, [whole(&"x".repeat(LINE_MAX))], "{end:?} by {chunk}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_the_same_lines_however_they_arrive(
            parts in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..40),
                    prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(0xe2)], 0..9),
                    (0..LINE_MAX * 3).prop_map(|length| vec![b'x'; length]),
                ],
                0..8,
            ),
            sizes in prop::collection::vec(1..20_000usize, 1..50),
        ) {
            let bytes = parts.concat();
            let mut chunks = Vec::new();
            let mut rest = bytes.as_slice();
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, tail) = rest.split_at(rest.len().min(*size));
                chunks.push(chunk);
                rest = tail;
            }
            let given = split(chunks);
            prop_assert_eq!(&given, &split([bytes.as_slice()]));
            prop_assert!(given.iter().all(|(piece, ..)| piece.len() <= LINE_MAX));
            // Put together again, nothing is missing but the ends of lines.
            let mut text = Vec::new();
            for (piece, _, goes_on) in &given {
                text.extend_from_slice(piece);
                if !goes_on {
                    text.push(b'\n');
                }
            }
            let mut expected: Vec<u8> = Vec::new();
            for line in bytes.split_inclusive(|&byte| byte == b'\n') {
                let line = match line.strip_suffix(b"\n") {
                    Some(line) => line.strip_suffix(b"\r").unwrap_or(line),
                    None => line,
                };
                expected.extend_from_slice(line);
                expected.push(b'\n');
            }
            prop_assert_eq!(text, expected);
        }
    }
}
