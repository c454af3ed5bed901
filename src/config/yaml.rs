//! YAML into a tree in which everything has its place. serde_yaml says what a text is: nothing, a
//! scalar, a list, a map. It does not say where, so saphyr-parser reads the same text for the places.
//! A text that the two read differently is refused: it would be read differently by people too.
//! Nothing here knows what the text is for.

use std::collections::BTreeMap;
use std::fmt;

use saphyr_parser::{Event, Parser, ScanError, StrInput};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::diagnostic::{Mistake, Span, floor};

/// The deepest nesting: a service's socket options are 5 deep.
const DEPTH_MAX: usize = 32;

/// The most nodes of a tree, those that aliases repeat included: hundreds of services.
const NODES_MAX: usize = 100_000;

/// A value and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) at: Span,
    pub(super) is: Is,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Is {
    /// Nothing at all, `~` or `null`.
    Nothing,
    /// A value that a mistake was told of already: there is no sense in a second one.
    Broken,
    /// A text, a number, a truth: as it was written, without quotes.
    Scalar(String),
    List(Vec<Node>),
    /// In the order of the file; a key may be there twice.
    Map(Vec<(Key, Node)>),
}

/// The key of an entry, and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) at: Span,
    pub(super) name: String,
}

/// Reads a text; without any value in it, there is none.
pub(super) fn parse(text: &str) -> Result<Option<Node>, Mistake> {
    let Some(marked) = Marks::new(text).document()? else { return Ok(None) };
    let plain = match serde_yaml::from_str::<Plain>(text) {
        Ok(plain) => plain,
        Err(error) => return Err(syntax_of(text, &error)),
    };
    join(marked, plain).map(Some)
}

/// A value with its place, and with no difference yet between nothing and an empty text.
struct Marked {
    at: Span,
    is: Shape,
}

enum Shape {
    Scalar(String),
    List(Vec<Marked>),
    Map(Vec<(Marked, Marked)>),
}

impl Marked {
    fn copy(&self) -> Marked {
        let is = match &self.is {
            Shape::Scalar(text) => Shape::Scalar(text.clone()),
            Shape::List(items) => Shape::List(items.iter().map(Marked::copy).collect()),
            Shape::Map(entries) => {
                Shape::Map(entries.iter().map(|(key, value)| (key.copy(), value.copy())).collect())
            }
        };
        Marked { at: self.at, is }
    }

    fn count(&self) -> usize {
        1 + match &self.is {
            Shape::Scalar(_) => 0,
            Shape::List(items) => items.iter().map(Marked::count).sum(),
            Shape::Map(entries) => {
                entries.iter().map(|(key, value)| key.count() + value.count()).sum()
            }
        }
    }
}

/// Reads the places.
struct Marks<'a> {
    parser: Parser<'a, StrInput<'a>>,
    text: &'a str,
    /// The byte of each character, where they differ.
    bytes: Option<Vec<usize>>,
    /// What aliases may repeat, with how many nodes it has.
    anchors: BTreeMap<usize, (Marked, usize)>,
    nodes: usize,
}

impl<'a> Marks<'a> {
    fn new(text: &'a str) -> Marks<'a> {
        let bytes = (!text.is_ascii()).then(|| text.char_indices().map(|(byte, _)| byte).collect());
        Marks {
            parser: Parser::new_from_str(text),
            text,
            bytes,
            anchors: BTreeMap::new(),
            nodes: 0,
        }
    }

    fn document(mut self) -> Result<Option<Marked>, Mistake> {
        let mut document = None;
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(document),
                (Event::Nothing | Event::StreamStart | Event::DocumentEnd, _) => {}
                (Event::DocumentStart(_), at) if document.is_some() => {
                    let text = "a second document begins here, and one file is one \
                                configuration; remove it, or the line `---`";
                    return Err(Mistake::new(at, text));
                }
                (Event::DocumentStart(_), _) => {}
                (event, at) => document = Some(self.node(event, at, 0)?),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Mistake> {
        match self.parser.next_event() {
            None => Ok((Event::StreamEnd, Span::at(self.text.len()))),
            Some(Ok((event, span))) => {
                let span =
                    Span { start: self.byte(span.start.index()), end: self.byte(span.end.index()) };
                Ok((event, span))
            }
            Some(Err(error)) => Err(self.syntax(&error)),
        }
    }

    fn byte(&self, index: usize) -> usize {
        match &self.bytes {
            None => index.min(self.text.len()),
            Some(bytes) => bytes.get(index).copied().unwrap_or(self.text.len()),
        }
    }

    fn node(&mut self, event: Event<'a>, at: Span, depth: usize) -> Result<Marked, Mistake> {
        if depth > DEPTH_MAX {
            let text = format!("this is nested more than {DEPTH_MAX} deep; write it flatter");
            return Err(Mistake::new(at, &text));
        }
        self.grow(1, at)?;
        let (node, anchor) = match event {
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                return Err(Mistake::new(
                    self.before(at),
                    "a tag (`!...`) stands before this value; remove it, or quote the value",
                ));
            }
            Event::Scalar(text, _, anchor, None) => {
                (Marked { at, is: Shape::Scalar(text.into_owned()) }, anchor)
            }
            Event::SequenceStart(anchor, None) => {
                let mut items = Vec::new();
                let end = loop {
                    match self.next()? {
                        (Event::SequenceEnd, end) => break end,
                        (event, at) => items.push(self.node(event, at, depth + 1)?),
                    }
                };
                let at = Span { start: at.start, end: end.end };
                (Marked { at, is: Shape::List(items) }, anchor)
            }
            Event::MappingStart(anchor, None) => {
                let mut entries = Vec::new();
                let end = loop {
                    let key = match self.next()? {
                        (Event::MappingEnd, end) => break end,
                        (event, at) => self.node(event, at, depth + 1)?,
                    };
                    let (event, at) = self.next()?;
                    entries.push((key, self.node(event, at, depth + 1)?));
                };
                let at = Span { start: at.start, end: end.end };
                (Marked { at, is: Shape::Map(entries) }, anchor)
            }
            Event::Alias(anchor) => {
                // An anchor inside of itself is not there yet.
                let Some((meant, nodes)) = self.anchors.get(&anchor) else {
                    return Err(Mistake::new(at, "this alias leads to what it is a part of"));
                };
                let (copy, nodes) = (meant.copy(), *nodes);
                self.grow(nodes, at)?;
                // Mistakes in it are shown where it was written.
                return Ok(copy);
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => {
                return Err(Mistake::new(at, "a value is missing here"));
            }
        };
        // 0 is none.
        if anchor != 0 {
            self.anchors.insert(anchor, (node.copy(), node.count()));
        }
        Ok(node)
    }

    fn grow(&mut self, nodes: usize, at: Span) -> Result<(), Mistake> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            let text = format!("there are more than {NODES_MAX} values; divide the file");
            return Err(Mistake::new(at, &text));
        }
        Ok(())
    }

    /// From the beginning of what stands before a value in its line.
    fn before(&self, at: Span) -> Span {
        let line = self.text[..at.start].rfind('\n').map_or(0, |end| end + 1);
        let tag = self.text[line..at.start].rfind('!').map_or(at.start, |tag| line + tag);
        Span { start: tag, end: at.end.max(tag) }
    }

    fn syntax(&self, error: &ScanError) -> Mistake {
        let at = self.byte(error.marker().index());
        syntax(self.text, at, error.info())
    }
}

fn syntax_of(text: &str, error: &serde_yaml::Error) -> Mistake {
    // Its own place is part of its text, and would be shown twice.
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    let at = error.location().map_or(0, |location| location.index());
    syntax(text, at, message)
}

/// What is meant by a parser's message, in words for those who have not written a parser.
fn syntax(text: &str, at: usize, message: &str) -> Mistake {
    let at = floor(text, at);
    if let Some(mistake) = tab(text, at) {
        return mistake;
    }
    let line_start = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let line = text[line_start..].lines().next().unwrap_or_default();
    let value = line.split_once(": ").map_or(line, |(_, value)| value).trim_start();
    let value = value.strip_prefix("- ").unwrap_or(value).trim_start();
    let value_at = line_start + (value.as_ptr() as usize - line.as_ptr() as usize);
    let whole = Span { start: value_at, end: value_at + value.trim_end().len() };
    let in_flow = message.contains("',' or '");
    let brace = line.find("${").or_else(|| line.find("{slot}")).filter(|_| in_flow);
    if let Some(brace) = brace {
        let closed = line[brace..].find('}').map_or(line.len(), |end| brace + end + 1);
        let start = line[..brace].rfind(['[', '{', ',', ' ']).map_or(0, |before| before + 1);
        let end = line[closed..].find([',', ']', '}']).map_or(line.len(), |end| closed + end);
        let whole = line[start..end].trim_end();
        let span = Span { start: line_start + start, end: line_start + start + whole.len() };
        let brace = &line[brace..closed];
        let text = format!(
            "`{brace}` inside of a list or a map in one line needs quotes; write `\"{whole}\"`"
        );
        return Mistake::new(span, &text);
    }
    let meant = match value.chars().next() {
        Some('*') if message.contains("alias") || message.contains("anchor") => Some((
            whole,
            format!("`*` begins an alias; write `\"{}\"` if it is text", value.trim_end()),
        )),
        Some('@' | '`' | '%') => {
            Some((whole, format!("no value begins with `{}`; write it in quotes", &value[..1])))
        }
        Some('[') if value.starts_with("[::") => Some((
            whole,
            format!("`[` begins a list; write `\"{}\"` if it is an address", value.trim_end()),
        )),
        _ => None,
    };
    if let Some((span, text)) = meant {
        return Mistake::new(span, &text);
    }
    let says = |words: &str| message.contains(words);
    let meaning = if says("mapping values are not allowed") {
        "there is a `: ` too many on this line; put the value in quotes, or mend its indentation"
    } else if says("did not find expected key")
        || says("invalid indentation")
        || says("simple key expect")
    {
        "this line stands neither beside the one before it nor belongs to it; mend its indentation, \
         or write `KEY: VALUE`"
    } else if says("expected '-' indicator") {
        "this line stands among the entries of a list; begin it with `- `, or mend its indentation"
    } else if says("quoted scalar") && (says("end of stream") || says("document indicator")) {
        "the text that begins here has no closing quote; write it"
    } else if says("',' or ']'") {
        "the list is not closed; write `]`, or a `,` between its entries"
    } else if says("',' or '}'") {
        "the map is not closed; write `}`, or a `,` between its entries"
    } else if says("unknown escape") {
        "there is no such escape in double quotes; write `\\\\` for a backslash, or use single quotes"
    } else if says("trailing content") {
        "there is more behind the closing quote; put all of it in quotes"
    } else if says("unknown anchor") {
        "this alias leads to no anchor before it; write `\"*...\"` if it is text"
    } else if says("unexpected eof") || says("end of stream") {
        "the file ends in the middle of a value; finish it"
    } else {
        return Mistake::new(Span::at(at), &format!("this is no YAML: {message}"));
    };
    let at = if in_flow { bracket(text, at).unwrap_or(at) } else { at };
    Mistake::new(Span::at(at), meaning)
}

/// The last bracket before a place that is not closed before it.
fn bracket(text: &str, before: usize) -> Option<usize> {
    let mut closed = 0_usize;
    let found = text.get(..before)?.char_indices().rev().find(|(_, char)| match char {
        ']' | '}' => {
            closed += 1;
            false
        }
        '[' | '{' if closed > 0 => {
            closed -= 1;
            false
        }
        char => matches!(char, '[' | '{'),
    });
    found.map(|(index, _)| index)
}

/// A tab in the indentation, which no message of a parser names as what it is.
fn tab(text: &str, before: usize) -> Option<Mistake> {
    let mut at = 0;
    let mut lines_behind = 0;
    for line in text.split_inclusive('\n') {
        // A value that goes on in the next line is refused at its end for the tab that is there.
        lines_behind += usize::from(at > before);
        if lines_behind > 1 {
            break;
        }
        let indentation = line.len() - line.trim_start_matches([' ', '\t']).len();
        if let Some(tab) = line[..indentation].find('\t')
            && indentation < line.trim_end().len()
        {
            let span = Span { start: at + tab, end: at + indentation };
            return Some(Mistake::new(
                span,
                "a tab is in the indentation, where YAML takes spaces only; write spaces",
            ));
        }
        at += line.len();
    }
    None
}

/// What serde_yaml says of a text.
enum Plain {
    Nothing,
    /// A number or a truth, which saphyr-parser has the text of.
    Typed,
    Text(String),
    List(Vec<Plain>),
    Map(Vec<(Plain, Plain)>),
}

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Plain, D::Error> {
        deserializer.deserialize_any(PlainVisitor)
    }
}

struct PlainVisitor;

impl<'de> Visitor<'de> for PlainVisitor {
    type Value = Plain;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Plain, E> {
        Ok(Plain::Nothing)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Plain, E> {
        Ok(Plain::Typed)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Plain, E> {
        Ok(Plain::Typed)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Plain, E> {
        Ok(Plain::Typed)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Plain, E> {
        Ok(Plain::Typed)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Plain, E> {
        Ok(Plain::Typed)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Plain, E> {
        Ok(Plain::Typed)
    }

    fn visit_str<E>(self, text: &str) -> Result<Plain, E> {
        Ok(Plain::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Plain, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Plain::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Plain, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Plain::Map(map))
    }
}

/// The two readings of one text as one.
fn join(marked: Marked, plain: Plain) -> Result<Node, Mistake> {
    let Marked { at, is } = marked;
    // Such as U+0085, which ends a line in YAML 1.1 and does not in 1.2.
    let differ = || {
        let text = "this can be read in two ways; write it in double quotes, and what is unusual \
                    in it as an escape, such as `\\u0085`";
        Mistake::new(at, text)
    };
    let is = match (is, plain) {
        (Shape::Scalar(_), Plain::Nothing) => Is::Nothing,
        (Shape::Scalar(text), Plain::Typed) => Is::Scalar(text),
        (Shape::Scalar(text), Plain::Text(same)) if text == same => Is::Scalar(text),
        (Shape::List(marked), Plain::List(plain)) if marked.len() == plain.len() => {
            let items = marked.into_iter().zip(plain);
            Is::List(items.map(|(marked, plain)| join(marked, plain)).collect::<Result<_, _>>()?)
        }
        (Shape::Map(marked), Plain::Map(plain)) if marked.len() == plain.len() => {
            let entries = marked.into_iter().zip(plain);
            let entry = |((key, value), (plain_key, plain_value))| {
                Ok((name(join(key, plain_key)?)?, join(value, plain_value)?))
            };
            Is::Map(merged(entries.map(entry).collect::<Result<_, _>>()?))
        }
        _ => return Err(differ()),
    };
    Ok(Node { at, is })
}

/// The entries of a map with those that `<<` brings from others; what the map says itself wins.
fn merged(entries: Vec<(Key, Node)>) -> Vec<(Key, Node)> {
    let (merges, mut own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(key, value)| {
        let maps = match &value.is {
            Is::List(items) => items.as_slice(),
            Is::Nothing | Is::Broken | Is::Scalar(_) | Is::Map(_) => std::slice::from_ref(value),
        };
        key.name == "<<" && maps.iter().all(|map| matches!(map.is, Is::Map(_)))
    });
    for (_, value) in merges {
        let maps = match value.is {
            Is::List(items) => items,
            Is::Nothing | Is::Broken | Is::Scalar(_) | Is::Map(_) => vec![value],
        };
        for map in maps {
            let Is::Map(others) = map.is else { continue };
            for (key, value) in others {
                if own.iter().all(|(own, _)| own.name != key.name) {
                    own.push((key, value));
                }
            }
        }
    }
    own
}

fn name(key: Node) -> Result<Key, Mistake> {
    let at = key.at;
    match key.is {
        Is::Scalar(name) => Ok(Key { at, name }),
        Is::Nothing | Is::Broken => Ok(Key { at, name: String::new() }),
        Is::List(_) | Is::Map(_) => Err(Mistake::new(
            at,
            "a list or a map stands where a key belongs; write it in quotes if it is text",
        )),
    }
}

/// A text as JSON, for tests.
#[cfg(test)]
pub(super) fn to_json(text: &str) -> serde_json::Value {
    serde_yaml::from_str(text).expect("YAML that is JSON too")
}

#[cfg(test)]
mod tests;
