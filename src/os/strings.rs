//! Strings as execve(2) takes them: made where memory is to be had, used where it is not.

use std::ffi::c_char;
use std::io;

/// The environment or the arguments of a program.
///
/// Its pointers are to strings that end in a zero byte, and end in a null pointer themselves.
#[derive(Debug)]
pub struct Strings {
    /// The strings, one after the other, each with its end.
    bytes: Vec<u8>,
    /// Where each begins.
    starts: Vec<usize>,
    /// One for each string and one more.
    pointers: Vec<*const c_char>,
}

/// A string whose end is filled in later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    start: usize,
    room: usize,
}

impl Strings {
    /// None yet, with room for so many of so many bytes together, their ends not counted.
    #[must_use]
    pub fn with_room(count: usize, bytes: usize) -> Strings {
        let mut pointers = Vec::with_capacity(count + 1);
        pointers.push(std::ptr::null());
        let bytes = Vec::with_capacity(bytes + count);
        Strings { bytes, starts: Vec::with_capacity(count), pointers }
    }

    /// Appends a string that is made of these parts.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for one with a zero byte in it.
    pub fn push(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        if parts.iter().any(|part| part.contains(&0)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is a zero byte in it"));
        }
        self.begin();
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.bytes.push(0);
        Ok(())
    }

    /// Appends a string that begins so, with room for that many bytes more.
    ///
    /// # Errors
    ///
    /// As [`push`](Strings::push).
    pub fn push_with_room(&mut self, beginning: &[&[u8]], room: usize) -> io::Result<Slot> {
        self.push(beginning)?;
        let start = self.bytes.len() - 1;
        self.bytes.resize(self.bytes.len() + room, 0);
        Ok(Slot { start, room })
    }

    /// Fills in the end of a string, as far as there is room. It takes no memory.
    pub fn fill(&mut self, Slot { start, room }: Slot, end: &[u8]) {
        let places = self.bytes.iter_mut().skip(start).take(room);
        for (place, &byte) in places.zip(end.iter().take_while(|&&byte| byte != 0)) {
            *place = byte;
        }
    }

    /// Takes the last string away. It frees no memory.
    pub fn drop_last(&mut self) {
        self.starts.pop();
    }

    /// The strings as the kernel reads them, for as long as these are not changed. It takes no memory.
    pub fn pointers(&mut self) -> *const *const c_char {
        let first: *const c_char = self.bytes.as_ptr().cast();
        let starts = self.starts.iter().map(|&start| first.wrapping_add(start));
        let ends = std::iter::once(std::ptr::null());
        for (place, pointer) in self.pointers.iter_mut().zip(starts.chain(ends)) {
            *place = pointer;
        }
        self.pointers.as_ptr()
    }

    fn begin(&mut self) {
        self.starts.push(self.bytes.len());
        self.pointers.push(std::ptr::null());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would read, by offsets rather than by pointers.
    fn read(strings: &mut Strings) -> Vec<String> {
        let pointers = strings.pointers();
        assert_eq!(pointers, strings.pointers.as_ptr());
        let first: *const c_char = strings.bytes.as_ptr().cast();
        let end = strings.pointers.iter().position(|pointer| pointer.is_null()).expect("an end");
        let text = |pointer: &*const c_char| {
            let start = pointer.addr() - first.addr();
            let length = strings.bytes[start..].iter().position(|&byte| byte == 0).expect("an end");
            String::from_utf8(strings.bytes[start..start + length].to_vec()).expect("text")
        };
        strings.pointers[..end].iter().map(text).collect()
    }

    #[test]
    fn strings_are_whole_and_end() {
        let mut strings = Strings::with_room(1, 4);
        assert!(read(&mut strings).is_empty());
        strings.push(&[b"A", b"=", b"x y"]).expect("no zero");
        strings.push(&[]).expect("no zero");
        strings.push(&[b"last"]).expect("no zero");
        assert_eq!(read(&mut strings), ["A=x y", "", "last"]);
        strings.push(&[b"a\0b"]).expect_err("a zero");
        assert_eq!(read(&mut strings), ["A=x y", "", "last"]);
    }

    #[test]
    fn what_is_filled_in_stays_within_its_room() {
        let mut strings = Strings::with_room(1, 4);
        let first = strings.push_with_room(&[b"PID="], 3).expect("no zero");
        strings.push(&[b"B"]).expect("no zero");
        let last = strings.push_with_room(&[b"ID="], 2).expect("no zero");
        strings.fill(first, b"12345");
        strings.fill(last, b"7\x009");
        assert_eq!(read(&mut strings), ["PID=123", "B", "ID=7"]);
        strings.drop_last();
        assert_eq!(read(&mut strings), ["PID=123", "B"]);
    }
}
