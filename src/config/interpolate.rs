//! `${VAR}`, `${VAR:-default}` and `$$` in values that were read: what comes in stays a value and
//! never becomes a list, a map or a key. Variables are given; none is looked up here.

use std::collections::BTreeMap;

use super::diagnostic::{Mistakes, Span};
use super::env_file::is_name;
use super::yaml::{Is, Node};

/// Names and values.
pub type Variables = BTreeMap<String, String>;

/// Puts variables into every value below a node. What is missing is a mistake at its place.
pub(super) fn interpolate(
    node: &mut Node,
    source: &str,
    variables: &Variables,
    mistakes: &mut Mistakes,
) {
    match &mut node.is {
        Is::Nothing | Is::Broken => {}
        Is::Scalar(text) if text.contains('$') => {
            let mut places = Places { source, at: node.at, from: node.at.start };
            let before = mistakes.len();
            let filled = fill(text, variables, |part, what| mistakes.add(places.of(part), what));
            node.is = if mistakes.len() == before { Is::Scalar(filled) } else { Is::Broken };
        }
        Is::Scalar(_) => {}
        Is::List(items) => {
            for item in items {
                interpolate(item, source, variables, mistakes);
            }
        }
        Is::Map(entries) => {
            for (_, value) in entries {
                interpolate(value, source, variables, mistakes);
            }
        }
    }
}

/// Where parts of a value are in the source, which may have it with quotes and escapes.
struct Places<'a> {
    source: &'a str,
    at: Span,
    from: usize,
}

impl Places<'_> {
    /// The next place of this part; the whole value if it is written differently.
    fn of(&mut self, part: &str) -> Span {
        let rest = self.source.get(self.from..self.at.end).unwrap_or_default();
        let Some(offset) = rest.find(part) else { return self.at };
        let start = self.from + offset;
        self.from = start + part.len();
        Span { start, end: self.from }
    }
}

/// The text with its variables, and each mistake with the part that it is in.
fn fill(text: &str, variables: &Variables, mut wrong: impl FnMut(&str, &str)) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        filled.push_str(&rest[..dollar]);
        rest = &rest[dollar..];
        if let Some(behind) = rest.strip_prefix("$$") {
            filled.push('$');
            rest = behind;
            continue;
        }
        let Some(inside) = rest.strip_prefix("${") else {
            // `$HOME` is the business of a shell that the command may run.
            filled.push('$');
            rest = &rest[1..];
            continue;
        };
        let Some(end) = inside.find('}') else {
            wrong(rest, "`${` has no `}` behind it; close it, or write `$$` for a dollar");
            return filled;
        };
        let whole = &rest[..end + 3];
        match value(&inside[..end], variables) {
            Ok(value) => filled.push_str(value),
            Err(what) => wrong(whole, &what),
        }
        rest = &inside[end + 1..];
    }
    filled.push_str(rest);
    filled
}

/// What stands for `VAR` or `VAR:-default`.
fn value<'a>(inside: &'a str, variables: &'a Variables) -> Result<&'a str, String> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    if !is_name(name) {
        return Err(format!(
            "`{name}` is no name for a variable; write `${{NAME}}` or `${{NAME:-default}}`, or \
             `$${{` for text"
        ));
    }
    // As in a shell: `:-` stands in for what is empty too.
    let value = variables.get(name).map(String::as_str);
    match (value, default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default),
        (None, None) => Err(format!(
            "the variable `{name}` is not set; set it, or write `${{{name}:-default}}`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn variables() -> Variables {
        [("A", "one"), ("EMPTY", ""), ("DOLLAR", "${A} $$ : [x]")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    fn filled(text: &str) -> Result<String, (String, String)> {
        let mut first = None;
        let text = fill(text, &variables(), |part, what| {
            first.get_or_insert((part.to_owned(), what.to_owned()));
        });
        first.map_or(Ok(text), Err)
    }

    #[test]
    fn variables_and_defaults_are_put_in() {
        for (text, expected) in [
            ("x", "x"),
            ("${A}", "one"),
            ("a${A}b${A}", "aonebone"),
            ("${B:-two}", "two"),
            ("${B:-}", ""),
            ("${EMPTY}", ""),
            ("${EMPTY:-two}", "two"),
            ("$$", "$"),
            ("$${A}", "${A}"),
            ("$HOME $", "$HOME $"),
            // What comes in is not looked at again.
            ("${DOLLAR}", "${A} $$ : [x]"),
        ] {
            assert_eq!(filled(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn mistakes_are_at_their_part() {
        for (text, part, words) in [
            ("x ${B} y", "${B}", "`B` is not set"),
            ("${A} ${", "${", "has no `}`"),
            ("${}", "${}", "no name"),
            ("${A-b}", "${A-b}", "no name"),
        ] {
            let (at, what) = filled(text).expect_err("a mistake");
            assert_eq!(at, part);
            assert!(what.contains(words), "{what}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_filled_or_refused(text in "[${}A:\\-]{0,20}|\\PC{0,20}") {
            let _ = filled(&text);
        }

        #[test]
        fn without_a_dollar_nothing_changes(text in "[^$]{0,20}") {
            prop_assert_eq!(filled(&text), Ok(text));
        }
    }
}
