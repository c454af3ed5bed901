//! Cuts what a worker writes to its channel into lines, however it arrives, with a bound on what is kept.

use super::MESSAGE_MAX;

/// More room than this is given back once it is not needed.
const ROOM_KEPT: usize = 64 * 1024;

/// The way from a worker. It keeps the beginning of one line of at most [`MESSAGE_MAX`] bytes, and what
/// was fed and not taken.
#[derive(Debug, Default)]
pub struct Reader {
    bytes: Vec<u8>,
    /// Where the first line begins that was not given.
    start: usize,
    /// Up to where there is no end of a line after that.
    searched: usize,
    /// Whether what comes is the rest of a line that was too long.
    skips: bool,
}

/// A line without its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// All of it.
    Whole(&'a [u8]),
    /// It is longer than a message may be, and the rest of it is passed over. It is told once.
    TooLong,
}

impl Reader {
    /// Takes what was read. To be called when [`Reader::take_line`] gives nothing, else more and more is
    /// kept.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        if self.bytes.is_empty() && self.bytes.capacity() > ROOM_KEPT {
            self.bytes = Vec::new();
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next line, if all of it is there.
    pub fn take_line(&mut self) -> Option<Line<'_>> {
        loop {
            let unsearched = self.bytes.get(self.searched..).unwrap_or_default();
            let Some(length) = memchr::memchr(b'\n', unsearched) else {
                self.searched = self.bytes.len();
                if self.skips {
                    self.start = self.searched;
                } else if self.searched - self.start > MESSAGE_MAX {
                    self.start = self.searched;
                    self.skips = true;
                    return Some(Line::TooLong);
                }
                return None;
            };
            let end = self.searched + length;
            let begin = std::mem::replace(&mut self.start, end + 1);
            self.searched = self.start;
            if std::mem::take(&mut self.skips) {
                continue;
            }
            if end - begin > MESSAGE_MAX {
                return Some(Line::TooLong);
            }
            return Some(Line::Whole(self.bytes.get(begin..end).unwrap_or_default()));
        }
    }

    /// What is left at the end of all: a line without its end, which a message does not need.
    pub fn finish(&mut self) -> Option<Line<'_>> {
        let begin = std::mem::replace(&mut self.start, self.bytes.len());
        self.searched = self.start;
        let rest = self.bytes.get(begin..).unwrap_or_default();
        (!std::mem::take(&mut self.skips) && !rest.is_empty()).then_some(Line::Whole(rest))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A line with bytes of its own; none for one that was too long.
    type Given = Option<Vec<u8>>;

    fn lines<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Given> {
        let mut reader = Reader::default();
        let mut given = Vec::new();
        let own = |line: Line<'_>| match line {
            Line::Whole(bytes) => Some(bytes.to_vec()),
            Line::TooLong => None,
        };
        for chunk in chunks {
            reader.feed(chunk);
            while let Some(line) = reader.take_line() {
                given.push(own(line));
            }
            assert!(reader.bytes.len() - reader.start <= MESSAGE_MAX, "it keeps too much");
        }
        given.extend(reader.finish().map(own));
        given
    }

    #[test]
    fn lines_end_with_a_newline_and_the_last_need_not() {
        let text = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(lines([&b"a\n\nb"[..], b"c\nd"]), [text("a"), text(""), text("bc"), text("d")]);
        assert_eq!(lines([]), []);
    }

    #[test]
    fn a_line_that_is_too_long_is_told_once_and_the_next_is_whole() {
        let long = vec![b'x'; MESSAGE_MAX + 1];
        let fits = vec![b'x'; MESSAGE_MAX];
        for chunk in [1000, MESSAGE_MAX, 3 * MESSAGE_MAX] {
            let bytes = [&long[..], b"\n", &fits, b"\n", &long, &long, b"\nend"].concat();
            let given = lines(bytes.chunks(chunk));
            let expected = [None, Some(fits.clone()), None, Some(b"end".to_vec())];
            assert!(given == expected, "by {chunk}: {} lines", given.len());
        }
    }

    #[test]
    fn room_for_a_long_line_is_given_back() {
        let mut reader = Reader::default();
        reader.feed(&vec![b'x'; MESSAGE_MAX]);
        reader.feed(b"\n");
        assert!(reader.take_line().is_some() && reader.take_line().is_none());
        reader.feed(b"y");
        assert!(reader.bytes.capacity() <= ROOM_KEPT);
    }

    proptest! {
        #[test]
        fn any_bytes_give_the_same_lines_however_they_arrive(
            parts in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..40),
                    prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'x')], 0..9),
                    (0..MESSAGE_MAX * 2).prop_map(|length| vec![b'x'; length]),
                ],
                0..6,
            ),
            sizes in prop::collection::vec(1..90_000usize, 1..20),
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
            let given = lines(chunks);
            let mut expected: Vec<Given> = bytes
                .split(|&byte| byte == b'\n')
                .map(|line| (line.len() <= MESSAGE_MAX).then(|| line.to_vec()))
                .collect();
            // After the last end of a line nothing begins.
            if expected.last().is_some_and(|last| last.as_ref().is_some_and(Vec::is_empty)) {
                expected.pop();
            }
            prop_assert!(given == expected);
        }
    }
}
