//! Lines that change in place on a terminal, as the bytes that make it so.
//!
//! The cursor is never hidden and always rests below the last line, so that no end of ours, not even
//! SIGKILL, leaves a terminal that has to be put right. Each frame is one write: nothing flickers.

/// What is on the screen.
#[derive(Debug, Default)]
pub(in crate::cli) struct Screen {
    /// How many columns each line takes.
    drawn: Vec<usize>,
}

impl Screen {
    /// What puts these lines in the place of those that are there. No line may be wider than the
    /// screen, nor may there be as many as it is high.
    pub(in crate::cli) fn redraw(&mut self, lines: &[String], width: usize) -> String {
        // A terminal that has become narrower has broken long lines.
        let rows = |&wide: &usize| wide.div_ceil(width.max(1)).max(1);
        let up: usize = self.drawn.iter().map(rows).sum();
        let mut bytes = String::new();
        if up > 0 {
            bytes.extend([format!("\x1b[{up}A")]);
        }
        bytes.push('\r');
        for line in lines {
            // The rest of the old line goes after the new text is there.
            bytes.push_str(line);
            bytes.push_str("\x1b[K\n");
        }
        bytes.push_str("\x1b[J");
        self.drawn = lines.iter().map(|line| columns(line)).collect();
        bytes
    }
}

/// How many columns a text takes that has our colours in it.
fn columns(text: &str) -> usize {
    let mut parts = text.split('\x1b');
    let first = parts.next().map_or(0, super::columns);
    first
        + parts
            .map(|part| super::columns(part.split_once('m').map_or(part, |(_, it)| it)))
            .sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_replaced_in_one_go_and_what_is_left_of_them_goes() {
        let mut screen = Screen::default();
        let lines = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        assert_eq!(screen.redraw(&lines(&["one", "two"]), 80), "\rone\x1b[K\ntwo\x1b[K\n\x1b[J");
        assert_eq!(screen.redraw(&lines(&["1"]), 80), "\x1b[2A\r1\x1b[K\n\x1b[J");
        assert_eq!(screen.redraw(&lines(&[]), 80), "\x1b[1A\r\x1b[J");
    }

    #[test]
    fn lines_that_a_narrower_terminal_has_broken_are_all_replaced() {
        let mut screen = Screen::default();
        screen.redraw(&["\x1b[32mready\x1b[0m for long".to_owned()], 80);
        assert!(screen.redraw(&[], 10).starts_with("\x1b[2A\r"));
    }
}
