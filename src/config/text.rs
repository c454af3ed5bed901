//! Text that others chose, for a message of ours. Pure.

/// The text on one line, whatever is in it: control characters are written as Rust escapes them.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_move_a_cursor_is_written_out() {
        assert_eq!(one_line("a b\u{e4}\n\x1b[31m\0"), "a b\u{e4}\\n\\u{1b}[31m\\u{0}");
    }
}
