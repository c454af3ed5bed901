//! Text that others chose, for a message of ours. Pure.

/// The text on one line, whatever is in it: control characters, and those that would break the line
/// or turn around what follows, are written as Rust escapes them.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || is_unruly(character) {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// The same for a text of several lines, which stay apart.
#[must_use]
pub fn each_on_one_line(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(one_line).collect();
    lines.join("\n")
}

/// Whether it ends a line, or changes the order in which others are shown: no control characters to
/// Unicode, and yet a name with one of them makes a message say what it does not, see UAX #9.
fn is_unruly(character: char) -> bool {
    matches!(character,
        '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_move_a_cursor_is_written_out() {
        assert_eq!(one_line("a b\u{e4}\n\x1b[31m\0"), "a b\u{e4}\\n\\u{1b}[31m\\u{0}");
    }

    #[test]
    fn lines_stay_apart_and_nothing_else_passes() {
        let text = "error: no\r\n --> a.yaml:1:1\n\n  |\x1b[2J\n";
        assert_eq!(each_on_one_line(text), "error: no\n --> a.yaml:1:1\n\n  |\\u{1b}[2J");
    }

    #[test]
    fn what_would_turn_around_the_rest_of_a_line_or_break_it_is_written_out() {
        assert_eq!(one_line("a\u{202e}b\u{2066}c\u{2028}d"), "a\\u{202e}b\\u{2066}c\\u{2028}d");
        // Letters from right to left are letters.
        assert_eq!(one_line("\u{5e9}\u{5dc}\u{5d5}\u{5dd}"), "\u{5e9}\u{5dc}\u{5d5}\u{5dd}");
    }
}
