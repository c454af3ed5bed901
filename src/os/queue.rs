//! Bytes that wait to be written, and whose they are. It knows no descriptor.

use std::collections::VecDeque;

/// What a queue that is empty keeps of its memory.
const KEPT_MAX: usize = 1 << 20;

/// Whole lines, the first of which may be written in part.
#[derive(Debug)]
pub struct Queue<S> {
    bytes: Vec<u8>,
    /// How many of `bytes` are written.
    written: usize,
    /// Whose the bytes are that are not written, in order.
    marks: VecDeque<Mark<S>>,
    /// Whether what was written last is not the end of a line.
    in_line: bool,
    /// Whether `bytes` begin with an end for a line whose rest was given up.
    mended: bool,
}

#[derive(Debug)]
struct Mark<S> {
    source: S,
    bytes: usize,
}

impl<S> Default for Queue<S> {
    fn default() -> Queue<S> {
        Queue {
            bytes: Vec::new(),
            written: 0,
            marks: VecDeque::new(),
            in_line: false,
            mended: false,
        }
    }
}

impl<S: Clone + PartialEq> Queue<S> {
    /// Adds whole lines, which `write` adds to the bytes it is given. Gives what `write` gives.
    pub fn push<T>(&mut self, source: &S, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let before = self.bytes.len();
        let mends = self.in_line && self.is_empty();
        if mends {
            self.bytes.push(b'\n');
        }
        let begin = self.bytes.len();
        let given = write(&mut self.bytes);
        if self.bytes.len() == begin {
            self.bytes.truncate(before);
            return given;
        }
        self.mended |= mends;
        let added = self.bytes.len() - before;
        match self.marks.back_mut() {
            Some(mark) if mark.source == *source => mark.bytes += added,
            Some(_) | None => self.marks.push_back(Mark { source: source.clone(), bytes: added }),
        }
        given
    }

    /// How many bytes wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Whether none wait.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of the bytes that wait are of `source`.
    #[must_use]
    pub fn len_of(&self, source: &S) -> usize {
        let marks = self.marks.iter().filter(|mark| mark.source == *source);
        marks.map(|mark| mark.bytes).sum()
    }

    /// What waits.
    #[must_use]
    pub fn waiting(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    /// Notes that so many bytes of what waits are written.
    pub fn written(&mut self, count: usize) {
        let Some(last) = count.checked_sub(1).and_then(|last| self.waiting().get(last)) else {
            return;
        };
        self.in_line = *last != b'\n';
        self.mended = false;
        self.written += count;
        let mut left = count;
        while let Some(mark) = self.marks.front_mut() {
            if mark.bytes > left {
                mark.bytes -= left;
                break;
            }
            left -= mark.bytes;
            self.marks.pop_front();
        }
        if self.is_empty() {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_MAX);
            self.written = 0;
        } else if self.written > self.len() {
            // What moves is less than what was written meanwhile.
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }

    /// Drops what waits, and says how many lines of whom. One that was written in part counts, and
    /// is ended before the next.
    pub fn give_up(&mut self) -> Vec<(S, u64)> {
        let mut lost = Vec::new();
        let mut rest = self.bytes.get(self.written..).unwrap_or_default();
        if std::mem::take(&mut self.mended)
            && let Some(mark) = self.marks.front_mut()
        {
            rest = rest.get(1..).unwrap_or_default();
            mark.bytes = mark.bytes.saturating_sub(1);
        }
        for mark in self.marks.drain(..) {
            let (bytes, later) = rest.split_at(mark.bytes.min(rest.len()));
            let lines = memchr::memchr_iter(b'\n', bytes).count();
            lost.push((mark.source, u64::try_from(lines).unwrap_or(u64::MAX)));
            rest = later;
        }
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_MAX);
        self.written = 0;
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(queue: &mut Queue<char>, source: char, text: &str) {
        queue.push(&source, |bytes| bytes.extend_from_slice(text.as_bytes()));
    }

    #[test]
    fn what_is_given_up_is_counted_for_everybody() {
        let mut queue = Queue::default();
        push(&mut queue, 'a', "one\ntwo\n");
        push(&mut queue, 'b', "three\n");
        push(&mut queue, 'b', "four\n");
        push(&mut queue, 'a', "five\n");
        queue.written("one\ntw".len());
        assert_eq!((queue.len_of(&'a'), queue.len_of(&'b')), (7, 11));
        assert_eq!(queue.waiting(), b"o\nthree\nfour\nfive\n");
        assert_eq!(queue.give_up(), [('a', 1), ('b', 2), ('a', 1)]);
        assert!(queue.is_empty());
        push(&mut queue, 'a', "six\n");
        assert_eq!(queue.waiting(), b"\nsix\n", "half a line stands there already");
        assert_eq!(queue.give_up(), [('a', 1)]);
        push(&mut queue, 'a', "seven\n");
        queue.written(2);
        push(&mut queue, 'a', "eight\n");
        assert_eq!(queue.waiting(), b"even\neight\n");
    }

    #[test]
    fn what_is_written_is_gone() {
        let mut queue = Queue::default();
        for round in 0..1000 {
            push(&mut queue, 'a', "abcdefghi\n");
            queue.written(if round % 2 == 0 { 3 } else { 17 });
            assert!(queue.bytes.len() < 100 && queue.marks.len() <= 1);
        }
        assert!(queue.is_empty() && queue.give_up().is_empty());
        push(&mut queue, 'a', "x\n");
        assert_eq!(queue.waiting(), b"x\n");
    }
}
