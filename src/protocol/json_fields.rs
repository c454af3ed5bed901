//! Some fields of a JSON object, without a tree of the rest: what a worker sends is megabytes at
//! worst, and a tree of it would be a hundred times as much.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The values of the named fields as JSON text, in the order of the names. Of a name that stands
/// there twice the last counts, as JSON.parse has it.
///
/// # Errors
///
/// Where the text is no JSON object.
pub(super) fn pick<'a, const N: usize>(
    text: &'a str,
    names: [&str; N],
) -> Result<[Option<&'a str>; N], serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let fields = reader.deserialize_map(Fields { names })?;
    reader.end()?;
    Ok(fields)
}

/// A text; none where the value is another or absent.
pub(super) fn text(value: Option<&str>) -> Option<String> {
    value.and_then(|value| serde_json::from_str(value).ok())
}

/// A whole number, which a program may have written as a text.
pub(super) fn number(value: Option<&str>) -> Option<i64> {
    let value = value?;
    serde_json::from_str(value).ok().or_else(|| text(Some(value))?.parse().ok())
}

/// A number that counts.
pub(super) fn count(value: Option<&str>) -> Option<u64> {
    number(value).and_then(|number| u64::try_from(number).ok())
}

/// Whether it is `true`.
pub(super) fn is_true(value: Option<&str>) -> bool {
    value == Some("true")
}

struct Fields<'n, const N: usize> {
    names: [&'n str; N],
}

impl<'de, const N: usize> Visitor<'de> for Fields<'_, N> {
    type Value = [Option<&'de str>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = [None; N];
        while let Some(place) = map.next_key_seed(Name(&self.names))? {
            match place.and_then(|place| fields.get_mut(place)) {
                Some(field) => *field = Some(map.next_value::<&RawValue>()?.get()),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(fields)
    }
}

/// The place of a name among those that are looked for.
struct Name<'n>(&'n [&'n str]);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|known| *known == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_wherever_they_stand_and_the_last_counts() {
        let text = r#"{"b":{"a":9},"a":1,"x":[[{"a":7}]],"\u0061":"2"}"#;
        let [a, b, c] = pick(text, ["a", "b", "c"]).expect("an object");
        assert_eq!((a, b, c), (Some(r#""2""#), Some(r#"{"a":9}"#), None));
        assert_eq!((number(a), number(b), number(c)), (Some(2), None, None));
        for broken in ["", "[]", "{", r#"{"a":}"#, r#"{"a":1}}"#, "{'a':1}"] {
            assert!(pick(broken, ["a"]).is_err(), "{broken}");
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert!(pick(&deep, ["b"]).is_ok());
    }
}
