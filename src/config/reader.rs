//! From a tree with places to types, with every mistake on the way and not only the first, which is
//! why it is not serde that reads: it stops at the first, and forgets where it was.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::diagnostic::{Mistake, Mistakes, Span, nearest};
use super::yaml::{Is, Key, Node};

/// A value and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At<T> {
    /// Where it is written.
    pub at: Span,
    /// What is written.
    pub is: T,
}

/// What can be read from a node. `None` says that mistakes were added.
pub(super) trait Read: Sized {
    /// What is read, as the end of "a list, where ... is needed".
    const NEEDED: &str;

    /// How it may be written.
    const EXAMPLE: &str;

    /// How an entry of a table of it may be written.
    const ENTRY: &str = "`NAME: VALUE`";

    fn read(node: &Node, mistakes: &mut Mistakes) -> Option<Self>;
}

/// A scalar that is read from its text alone.
pub(super) trait Leaf: Sized {
    /// See [`Read::NEEDED`].
    const NEEDED: &str;

    /// See [`Read::EXAMPLE`].
    const EXAMPLE: &str;

    /// Its value, or the cause and the next step.
    fn parse(text: &str) -> Result<Self, String>;
}

impl<T: Leaf> Read for T {
    const NEEDED: &str = T::NEEDED;
    const EXAMPLE: &str = T::EXAMPLE;

    fn read(node: &Node, mistakes: &mut Mistakes) -> Option<T> {
        let Is::Scalar(text) = &node.is else { return other_type::<T>(node, mistakes) };
        T::parse(text).map_err(|error| mistakes.add(node.at, &error)).ok()
    }
}

/// Adds the mistake of a value that is of another type.
pub(super) fn other_type<T: Read>(node: &Node, mistakes: &mut Mistakes) -> Option<T> {
    let given = match &node.is {
        Is::Broken => return None,
        Is::Nothing => "there is nothing",
        Is::Scalar(_) => "this is a single value",
        Is::List(_) => "this is a list",
        Is::Map(_) => "this is a map",
    };
    let (needed, example) = (T::NEEDED, T::EXAMPLE);
    mistakes.add(node.at, &format!("{given}, where {needed} is needed; write {example}"));
    None
}

/// One value alone, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<At<T>>);

impl<T: Read> Read for OneOrMany<T> {
    const NEEDED: &str = T::NEEDED;
    const EXAMPLE: &str = T::EXAMPLE;

    fn read(node: &Node, mistakes: &mut Mistakes) -> Option<OneOrMany<T>> {
        let items = match &node.is {
            Is::List(items) => items.as_slice(),
            Is::Broken => return None,
            Is::Nothing | Is::Scalar(_) | Is::Map(_) => std::slice::from_ref(node),
        };
        // Those that are right, for what may be wrong with them beside others.
        let read = items.iter().filter_map(|item| At::of(item, T::read(item, mistakes)));
        Some(OneOrMany(read.collect()))
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

/// Entries whose names the user chooses; a value that is wrong is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table<T>(pub Vec<(At<String>, Option<At<T>>)>);

impl<T: Read> Read for Table<T> {
    const NEEDED: &str = "a map";
    const EXAMPLE: &str = T::ENTRY;

    fn read(node: &Node, mistakes: &mut Mistakes) -> Option<Table<T>> {
        let Is::Map(entries) = &node.is else { return other_type(node, mistakes) };
        let entries = once(entries, mistakes);
        let read = entries.into_iter().map(|(key, value)| {
            let value = present(key, value);
            let value = At::of(&value, T::read(&value, mistakes));
            (At { at: key.at, is: key.name.clone() }, value)
        });
        Some(Table(read.collect()))
    }
}

impl<T: JsonSchema> JsonSchema for Table<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Table{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<T>();
        json_schema!({ "type": "object", "additionalProperties": value })
    }
}

impl<T> At<T> {
    /// What was read from a node, with its place.
    pub(super) fn of(node: &Node, read: Option<T>) -> Option<At<T>> {
        Some(At { at: node.at, is: read? })
    }
}

/// The entries without those whose key was there before, each of which is a mistake.
fn once<'a>(entries: &'a [(Key, Node)], mistakes: &mut Mistakes) -> Vec<(&'a Key, &'a Node)> {
    let mut kept: Vec<(&Key, &Node)> = Vec::new();
    let mut known = BTreeMap::new();
    for (key, value) in entries {
        if let Some(&first) = known.get(&key.name) {
            let text = format!("the key `{}` is here twice; write it once", key.name);
            mistakes.push(Mistake::new(key.at, &text).beside(first, "the first is here"));
        } else {
            known.insert(&key.name, key.at);
            kept.push((key, value));
        }
    }
    kept
}

/// The value; one that is not there has the place of its key.
fn present(key: &Key, value: &Node) -> Node {
    match &value.is {
        Is::Nothing => Node { at: key.at, is: Is::Nothing },
        Is::Broken | Is::Scalar(_) | Is::List(_) | Is::Map(_) => value.clone(),
    }
}

/// What is known of a key that is none.
pub(super) struct Hint {
    /// The key that is meant, if it is one of the same map.
    pub(super) meant: Option<&'static str>,
    /// What to do.
    pub(super) step: String,
}

impl Hint {
    /// Another name for a key.
    pub(super) fn meant(key: &'static str) -> Hint {
        Hint { meant: Some(key), step: format!("write `{key}`") }
    }
}

/// The entries of a map whose keys are known.
pub(super) struct Entries<'a> {
    known: Vec<(&'a Key, &'a Node)>,
    places: Places,
}

impl<'a> Entries<'a> {
    /// Those of a node, which people call so. Unknown keys are mistakes, for which `hint` may know
    /// better than the nearest name.
    pub(super) fn of<T: Read>(
        node: &'a Node,
        whose: &str,
        keys: &[&'static str],
        hint: fn(&str) -> Option<Hint>,
        mistakes: &mut Mistakes,
    ) -> Option<Entries<'a>> {
        let Is::Map(entries) = &node.is else {
            other_type::<T>(node, mistakes);
            return None;
        };
        let mut found = Entries { known: Vec::new(), places: Places::default() };
        for (key, value) in once(entries, mistakes) {
            let name = key.name.as_str();
            if keys.contains(&name) {
                found.known.push((key, value));
                found.places.0.insert(name.to_owned(), key.at);
                continue;
            }
            let near = || nearest(name, keys.iter().copied()).map(Hint::meant);
            let all = || match keys {
                [only] => Hint { meant: None, step: format!("there is only `{only}`") },
                keys => Hint { meant: None, step: format!("there are {}", keys.join(", ")) },
            };
            let Hint { meant, step } = hint(name).or_else(near).unwrap_or_else(all);
            mistakes.add(key.at, &format!("`{name}` is no key of {whose}; {step}"));
            // It is there, under another name.
            if let Some(meant) = meant {
                found.places.0.entry(meant.to_owned()).or_insert(key.at);
            }
        }
        Some(found)
    }

    /// The value of a key, if it is there and right.
    pub(super) fn take<T: Read>(&self, name: &str, mistakes: &mut Mistakes) -> Option<At<T>> {
        let (key, value) = self.known.iter().find(|(key, _)| key.name == name)?;
        let value = present(key, value);
        At::of(&value, T::read(&value, mistakes))
    }

    /// All that are there, right or not.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a Key, &'a Node)> {
        self.known.iter().copied()
    }

    /// Where the keys stand that are there.
    pub(super) fn places(&self) -> Places {
        self.places.clone()
    }
}

/// Where the keys of a map stand, those with wrong values too and those that are called otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places(BTreeMap<String, Span>);

impl Places {
    /// Where a key stands, if it is there.
    #[must_use]
    pub fn of(&self, key: &str) -> Option<Span> {
        self.0.get(key).copied()
    }
}

/// A map whose keys are known, as a type: its fields are the keys, and what is said of them is the
/// schema's description.
macro_rules! keys {
    (
        $(#[doc = $about:literal])*
        $name:ident is $what:literal, such as $example:literal, in a table $entry:literal,
        hint $hint:path, needs [$($needs:literal),*]
        $($(#[doc = $doc:literal])* $key:ident: $kind:ty,)*
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            /// Where its keys stand.
            pub places: crate::config::reader::Places,
            $($(#[doc = $doc])* pub $key: Option<crate::config::reader::At<$kind>>,)*
        }

        impl $name {
            /// Its keys.
            pub const KEYS: &[&'static str] = &[$(stringify!($key)),*];
        }

        impl crate::config::reader::Read for $name {
            const NEEDED: &str = "a map";
            const EXAMPLE: &str = $example;
            const ENTRY: &str = $entry;

            fn read(
                node: &crate::config::yaml::Node,
                mistakes: &mut crate::config::diagnostic::Mistakes,
            ) -> Option<Self> {
                use crate::config::reader::Entries;
                let entries = Entries::of::<Self>(node, $what, Self::KEYS, $hint, mistakes)?;
                Some(Self {
                    places: entries.places(),
                    $($key: entries.take(stringify!($key), mistakes),)*
                })
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let mut properties = serde_json::Map::new();
                $(
                    let mut schema = generator.subschema_for::<$kind>();
                    let about = concat!($($doc, "\n"),*);
                    schema.insert("description".to_owned(), crate::config::reader::prose(about).into());
                    properties.insert(stringify!($key).to_owned(), schema.into());
                )*
                let needs: &[&str] = &[$($needs),*];
                schemars::json_schema!({
                    "type": "object",
                    "description": crate::config::reader::prose(concat!($($about, "\n"),*)),
                    "properties": properties,
                    "required": needs,
                    "additionalProperties": false,
                })
            }
        }
    };
}

pub(super) use keys;

/// The lines of a doc comment as the paragraphs that they are.
pub(super) fn prose(lines: &str) -> String {
    let paragraphs =
        lines.split("\n\n").map(|lines| lines.lines().map(str::trim).collect::<Vec<_>>().join(" "));
    paragraphs.collect::<Vec<_>>().join("\n\n").trim().to_owned()
}
