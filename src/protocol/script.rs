//! The head of a script. Pure.

/// The interpreter that a script's first line names, see execve(2). `None` when it is no script.
#[must_use]
pub fn interpreter(head: &[u8]) -> Option<&[u8]> {
    let line = head.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    // Only these are blanks to the kernel: a carriage return belongs to the name.
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = line.iter().position(|byte| !is_blank(byte))?;
    let path = line[start..].split(|byte| is_blank(byte) || *byte == 0).next()?;
    (!path.is_empty()).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_told_as_the_kernel_reads_them() {
        assert_eq!(interpreter(b"#!/bin/sh\n"), Some(&b"/bin/sh"[..]));
        assert_eq!(interpreter(b"#! /usr/bin/env node\nx"), Some(&b"/usr/bin/env"[..]));
        assert_eq!(interpreter(b"#!/bin/sh -e"), Some(&b"/bin/sh"[..]));
        assert_eq!(interpreter(b"#! \t/bin/sh\t-e"), Some(&b"/bin/sh"[..]));
        assert_eq!(interpreter(b"#!/bin/sh\r\n"), Some(&b"/bin/sh\r"[..]));
        assert_eq!(interpreter(b"#!/bin/sh\0x"), Some(&b"/bin/sh"[..]));
        assert_eq!(interpreter(b"\x7fELF"), None);
        assert_eq!(interpreter(b"#! \t\n"), None);
        assert_eq!(interpreter(b"#!\n"), None);
    }
}
