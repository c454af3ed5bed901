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

/// The same with what follows it, which the kernel gives it as one argument.
#[must_use]
pub fn command(head: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let interpreter = interpreter(head)?;
    let line = head.split(|&byte| byte == b'\n').next()?;
    // It is a part of the line, so it ends within it.
    let end = line.windows(interpreter.len()).position(|part| part == interpreter)?;
    let rest = line.get(end + interpreter.len()..)?.trim_ascii();
    Some((interpreter, (!rest.is_empty()).then_some(rest)))
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
        assert_eq!(command(b"#! /bin/sh\nx"), Some((&b"/bin/sh"[..], None)));
        let env = (&b"/usr/bin/env"[..], Some(&b"-S node -x"[..]));
        assert_eq!(command(b"#!/usr/bin/env  -S node -x \nx"), Some(env));
        assert_eq!(command(b"\x7fELF"), None);
    }
}
