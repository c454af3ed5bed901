//! The last that a worker said: a few lines, kept for when it fails. Pure, and bounded in memory.

use std::collections::VecDeque;

use super::lines::Piece;

/// How many lines are kept: what a program says of its own end fits, a trace of its stack mostly.
pub const LINES_MAX: usize = 20;

/// How many bytes of them, so that a thousand workers cost some megabytes at most.
pub const BYTES_MAX: usize = 4096;

/// How much of one line: a long one does not push out all the others.
pub const LINE_KEPT_MAX: usize = 1024;

/// The last lines of one worker, both of its streams, in the order in which they were read.
#[derive(Debug, Default)]
pub struct LastLines {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl LastLines {
    /// Takes a line, and forgets the oldest that do not fit any more.
    pub fn push(&mut self, piece: Piece<'_>) {
        let kept = piece.bytes.get(..LINE_KEPT_MAX).unwrap_or(piece.bytes);
        let mut line = Vec::new();
        while self.lines.len() >= LINES_MAX || self.bytes + kept.len() > BYTES_MAX {
            // Its memory serves again: a worker that writes all day allocates nothing here.
            line = self.lines.pop_front().unwrap_or_default();
            self.bytes -= line.len();
        }
        line.clear();
        line.extend_from_slice(kept);
        self.bytes += line.len();
        self.lines.push_back(line);
    }

    /// The lines, the oldest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.lines.iter().map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(last: &mut LastLines, bytes: &[u8]) {
        last.push(Piece { bytes, continues: false, goes_on: false });
    }

    #[test]
    fn the_last_lines_stay_and_the_first_go() {
        let mut last = LastLines::default();
        for number in 1..=100 {
            push(&mut last, format!("line {number}").as_bytes());
        }
        let lines: Vec<_> = last.iter().collect();
        assert_eq!(lines.len(), LINES_MAX);
        assert_eq!((lines[0], lines[LINES_MAX - 1]), (&b"line 81"[..], &b"line 100"[..]));
    }

    #[test]
    fn long_lines_lose_their_ends_and_many_of_them_the_first() {
        let mut last = LastLines::default();
        push(&mut last, b"short");
        for _ in 0..4 {
            push(&mut last, &b"x".repeat(100_000));
        }
        let lengths: Vec<_> = last.iter().map(<[u8]>::len).collect();
        assert_eq!(lengths, [LINE_KEPT_MAX; 4], "they fill it");
        push(&mut last, b"");
        assert_eq!(last.iter().len(), 5);
    }
}
