//! Finds lines, and the descriptor of each, in what was read. Bounded by the longest line and one
//! descriptor.

use super::Problem;
use super::parse::{Parsed, parse};

/// One direction of a channel, as recvmsg(2) gives it in pieces of any size.
///
/// The kernel gives a descriptor together with the first byte of what it was sent with, and ends the
/// read with that piece. So a descriptor belongs to a line that *begins* in its read: to the first of
/// them that is a `NODE_HANDLE`, which may end in a later one.
#[derive(Debug)]
pub(super) struct Reader<H> {
    line_bytes_max: usize,
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
    /// The descriptor that came with that beginning.
    carried: Option<H>,
}

/// A line with its descriptor.
pub(super) type Read<'a, H> = Result<(Parsed<'a>, Option<H>), Problem>;

impl<H> Reader<H> {
    pub(super) fn new(line_bytes_max: usize) -> Reader<H> {
        Reader { line_bytes_max, begun: Vec::new(), carried: None }
    }

    /// Takes one read, and gives every line that ends in it, in order. After a problem that ends the
    /// channel it must not be fed again.
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        handles: impl IntoIterator<Item = H>,
        mut give: impl FnMut(Read<'_, H>),
    ) {
        let mut handles = handles.into_iter();
        let mut arrived = handles.next();
        let count = handles.count();
        if count > 0 {
            give(Err(Problem::ExtraHandles { count }));
        }
        let mut rest = bytes;
        while let Some(length) = memchr::memchr(b'\n', rest) {
            let (line, tail) = rest.split_at(length);
            rest = tail.get(1..).unwrap_or_default();
            if self.is_too_long_with(line) {
                return self.give_up(give);
            }
            if self.begun.is_empty() {
                // The common case: the whole line is here, and nothing is copied.
                read(line, &mut arrived, &mut give);
            } else {
                self.begun.extend_from_slice(line);
                let begun = std::mem::take(&mut self.begun);
                let mut carried = self.carried.take();
                read(&begun, &mut carried, &mut give);
                if carried.is_some() {
                    give(Err(Problem::StrayHandle));
                }
            }
        }
        if self.is_too_long_with(rest) {
            return self.give_up(give);
        }
        if self.begun.is_empty() && !rest.is_empty() {
            self.carried = arrived.take();
        }
        self.begun.extend_from_slice(rest);
        if arrived.is_some() {
            give(Err(Problem::StrayHandle));
        }
    }

    /// Nothing comes any more.
    pub(super) fn finish(&mut self) -> Option<Problem> {
        self.carried = None;
        let bytes = std::mem::take(&mut self.begun).len();
        (bytes > 0).then_some(Problem::CutOff { bytes })
    }

    fn is_too_long_with(&self, more: &[u8]) -> bool {
        self.begun.len() + more.len() > self.line_bytes_max
    }

    fn give_up(&mut self, mut give: impl FnMut(Read<'_, H>)) {
        self.begun = Vec::new();
        self.carried = None;
        give(Err(Problem::TooLong { max: self.line_bytes_max }));
    }
}

/// Reads a line that takes its descriptor from `handle` if it is one of those that have one.
fn read<H>(line: &[u8], handle: &mut Option<H>, give: &mut impl FnMut(Read<'_, H>)) {
    let parsed = match parse(line) {
        Ok(parsed) => parsed,
        Err(problem) => return give(Err(problem)),
    };
    let handle = match parsed {
        Parsed::Handle { .. } | Parsed::UnknownHandle => handle.take(),
        Parsed::Acknowledged | Parsed::Refused | Parsed::Internal(_) | Parsed::Message(_) => None,
    };
    give(Ok((parsed, handle)));
}
