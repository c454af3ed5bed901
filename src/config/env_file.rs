//! Files of environment variables: `NAME=value` lines. Pure; nothing is expanded.

use thiserror::Error;

/// A line that cannot be read, ready to follow the file's name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {what}")]
pub struct EnvFileError {
    /// The line's number, from 1 on.
    pub line: usize,
    /// What is wrong with it. A value is never shown: it may be a secret.
    pub what: String,
}

/// Reads the variables of a file, in order.
///
/// A line is empty, a comment (`#`), or `NAME=value`, with `export ` before it allowed. A value in
/// single quotes is taken as it is; in double quotes `\n`, `\"`, `\\` and `\$` mean what they mean
/// to a shell; without quotes it ends with the line, spaces around it dropped.
///
/// # Errors
///
/// The first line that cannot be read.
pub fn parse(text: &[u8]) -> Result<Vec<(String, String)>, EnvFileError> {
    let mut variables = Vec::new();
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let mistake = |what: String| EnvFileError { line: index + 1, what };
        let line =
            std::str::from_utf8(line).map_err(|_| mistake("it is not UTF-8".to_owned()))?.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        let (name, value) = line
            .split_once('=')
            .ok_or_else(|| mistake("there is no `=`; write `NAME=value`".to_owned()))?;
        if !is_name(name) {
            return Err(mistake(format!("`{name}` is no name for a variable")));
        }
        let value =
            unquote(value).map_err(|what| mistake(format!("the value of `{name}` {what}")))?;
        variables.push((name.to_owned(), value));
    }
    Ok(variables)
}

/// Whether a variable may be called so: letters, digits and `_`, not beginning with a digit.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && chars.all(|char| char.is_ascii_alphanumeric() || char == '_')
}

fn unquote(value: &str) -> Result<String, &'static str> {
    let value = value.trim();
    if value.contains('\0') {
        return Err("has a NUL byte in it");
    }
    if let Some(rest) = value.strip_prefix('\'') {
        return match rest.split_once('\'') {
            Some((inner, "")) => Ok(inner.to_owned()),
            Some(_) => Err("goes on after its closing quote"),
            None => Err("has no closing quote"),
        };
    }
    let Some(rest) = value.strip_prefix('"') else {
        return Ok(value.to_owned());
    };
    let mut inner = String::new();
    let mut chars = rest.chars();
    while let Some(char) = chars.next() {
        match char {
            '"' if chars.as_str().is_empty() => return Ok(inner),
            '"' => return Err("goes on after its closing quote"),
            '\\' => match chars.next() {
                Some('n') => inner.push('\n'),
                Some(escaped @ ('"' | '\\' | '$')) => inner.push(escaped),
                Some(other) => inner.extend(['\\', other]),
                None => return Err("has no closing quote"),
            },
            other => inner.push(other),
        }
    }
    Err("has no closing quote")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_read_as_they_are_written() {
        let text = b"# comment\n\nA=1\nexport B = 2 # kept\n";
        assert_eq!(parse(text).expect_err("a mistake").what, "`B ` is no name for a variable");
        let text = br#"A=one two
export B='$HOME "x"'
C="a\"b\\\$c\nd\e"
D=
"#;
        let expected = [("A", "one two"), ("B", "$HOME \"x\""), ("C", "a\"b\\$c\nd\\e"), ("D", "")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parse(text).expect("readable"), expected);
    }

    #[test]
    fn mistakes_name_the_line_and_never_the_value() {
        for (text, line, words) in [
            ("A=1\nSECRET", 2, "no `=`"),
            ("1A=x", 1, "no name"),
            ("A='secret", 1, "no closing quote"),
            ("A=\"secret\" x", 1, "goes on"),
        ] {
            let mistake = parse(text.as_bytes()).expect_err("a mistake");
            assert_eq!(mistake.line, line, "{text}");
            assert!(mistake.what.contains(words), "{text}: {mistake}");
            assert!(!mistake.to_string().contains("secret"), "{mistake}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
