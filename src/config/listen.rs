//! `listen` of shepherd.yaml: sockets as the command line takes them, or as maps with the same
//! options.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::diagnostic::{Mistake, Mistakes};
use super::reader::{Entries, Leaf, Read, other_type};
use super::socket::{Address, SocketName, SocketSpec};
use super::socket_options::{self, OptionError};
use super::yaml::{Is, Key, Node};

/// One socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen(pub SocketSpec);

/// Keys that say where a socket is, with what stands before their value on the command line.
const ADDRESSES: [(&str, &str, &str); 5] = [
    ("port", "", "Every address of the machine, at this port; 0 lets the kernel choose."),
    ("address", "", "As on the command line, such as `127.0.0.1:8000` or `localhost:8000`."),
    ("udp", "udp:", "A port or an address for datagrams, such as `5353` or `127.0.0.1:5353`."),
    ("unix", "unix:", "A path, or `@name` for a unix name without a file."),
    (
        "seqpacket",
        "seqpacket:",
        "A path as of `unix`, for connections that keep the bounds of messages.",
    ),
];

impl Read for Listen {
    const NEEDED: &str = "a socket";
    const EXAMPLE: &str = "one such as `8000`, `127.0.0.1:8000` or `{port: 8000, backlog: 1024}`";

    fn read(node: &Node, mistakes: &mut Mistakes) -> Option<Listen> {
        match &node.is {
            Is::Scalar(text) => match text.parse::<SocketSpec>() {
                Ok(spec) => Some(Listen(spec)),
                Err(error) => {
                    mistakes.add(node.at, &error.to_string());
                    None
                }
            },
            Is::Map(_) => from_map(node, mistakes),
            Is::Nothing | Is::Broken | Is::List(_) => other_type(node, mistakes),
        }
    }
}

/// The keys of a socket that is a map.
#[must_use]
pub fn keys() -> Vec<&'static str> {
    let addresses = ADDRESSES.iter().map(|(name, ..)| *name);
    std::iter::once("name").chain(addresses).chain(socket_options::names()).collect()
}

fn from_map(node: &Node, mistakes: &mut Mistakes) -> Option<Listen> {
    let known = keys();
    let entries = Entries::of::<Listen>(node, "a socket", &known, |_| None, mistakes)?;
    let before = mistakes.len();
    let name = entries.take::<Name>("name", mistakes).map(|name| name.is.0);
    let spec = address(node, &entries, mistakes);
    let mut parts = Vec::new();
    for (key, value) in entries.iter() {
        if key.name == "name" || ADDRESSES.iter().any(|(name, ..)| *name == key.name) {
            continue;
        }
        let Some(part) = option(key, value, mistakes) else { continue };
        // Each alone, so that every mistake has its place.
        if let Some(spec) = &spec
            && let Err(error) = socket_options::read(std::slice::from_ref(&part), spec.kind())
        {
            let at = if matches!(error, OptionError::Value { .. }) { value.at } else { key.at };
            mistakes.add(at, &explain(&error));
        }
        parts.push(part);
    }
    let spec = spec.filter(|_| mistakes.len() == before)?;
    let options = socket_options::read(&parts, spec.kind()).ok()?;
    Some(Listen(SocketSpec { name, options, ..spec }))
}

/// The name of a socket.
struct Name(SocketName);

impl Leaf for Name {
    const NEEDED: &str = "a name";
    const EXAMPLE: &str = "one such as `web`";

    fn parse(text: &str) -> Result<Name, String> {
        if text.is_empty() {
            return Err("the name is empty; write one, or leave the key away".to_owned());
        }
        text.parse().map(Name).map_err(|error: super::socket::SocketNameError| error.to_string())
    }
}

/// The text of a scalar.
struct Raw(String);

impl Leaf for Raw {
    const NEEDED: &str = "a single value";
    const EXAMPLE: &str = "one";

    fn parse(text: &str) -> Result<Raw, String> {
        Ok(Raw(text.to_owned()))
    }
}

/// Where it is: what exactly one of its keys says.
fn address(node: &Node, entries: &Entries<'_>, mistakes: &mut Mistakes) -> Option<SocketSpec> {
    let mut given = entries.iter().filter_map(|(key, _)| {
        let (name, prefix, _) = ADDRESSES.iter().find(|(name, ..)| *name == key.name)?;
        Some((*name, *prefix, key.at))
    });
    let Some((name, prefix, first)) = given.next() else {
        let text = "this socket has no address; write `port: 8000`, or one of `address`, `udp`, \
                    `unix`, `seqpacket`";
        mistakes.add(node.at, text);
        return None;
    };
    if let Some((other, _, at)) = given.next() {
        let text =
            format!("a socket has one address, and `{name}` is one already; remove `{other}`");
        mistakes.push(Mistake::new(at, &text).beside(first, "the first is here"));
        return None;
    }
    let text = entries.take::<Raw>(name, mistakes)?;
    // The commas of an address are its own here, where options have keys.
    let written = format!("{prefix}{}", text.is.0.replace(',', ",,"));
    let spec = match written.parse::<SocketSpec>() {
        Ok(spec) if name != "port" || matches!(spec.address, Address::Port(_)) => Ok(spec),
        Err(error) if name != "port" => Err(error.to_string()),
        Ok(_) | Err(_) => Err(format!(
            "`{}` is no port; write a number from 0 to 65535, or `address: {}`",
            text.is.0, text.is.0
        )),
    };
    match spec {
        Ok(spec) if spec.name.is_some() => {
            mistakes
                .add(text.at, "the name of a socket stands before its address; write `name: NAME`");
            None
        }
        Ok(spec) => Some(spec),
        Err(error) => {
            mistakes.add(text.at, &error);
            None
        }
    }
}

/// An option as on the command line.
fn option(key: &Key, value: &Node, mistakes: &mut Mistakes) -> Option<String> {
    let about = socket_options::all().find(|about| about.name == key.name)?;
    match &value.is {
        Is::Scalar(text) => {
            let text = match (about.is_flag, text.as_str()) {
                (true, "true") => "yes",
                (true, "false") => "no",
                (_, text) => text,
            };
            Some(format!("{}={text}", about.name))
        }
        Is::Broken => None,
        Is::Nothing | Is::List(_) | Is::Map(_) => {
            let what = if about.is_flag { "`true` or `false`" } else { about.what };
            let example = if about.is_flag { "true" } else { about.example };
            let given = if matches!(value.is, Is::Nothing) {
                "there is nothing"
            } else {
                "this is no single value"
            };
            let at = if matches!(value.is, Is::Nothing) { key.at } else { value.at };
            mistakes.add(
                at,
                &format!("{given}, where {what} is needed; write `{}: {example}`", about.name),
            );
            None
        }
    }
}

/// What is wrong with an option, in the words of the file.
fn explain(error: &OptionError) -> String {
    match error {
        OptionError::Value { name, value, what, example } => {
            let is_flag = socket_options::all().any(|about| about.name == *name && about.is_flag);
            let (what, example) =
                if is_flag { ("`true` or `false`", &"true") } else { (*what, example) };
            format!("`{value}` is not {what}; write `{name}: {example}`")
        }
        OptionError::Empty
        | OptionError::Unknown { .. }
        | OptionError::Twice { .. }
        | OptionError::Misplaced { .. }
        | OptionError::ValueMissing { .. } => error.to_string(),
    }
}

impl JsonSchema for Listen {
    fn schema_name() -> Cow<'static, str> {
        "Listen".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let scalar = json!({ "type": ["string", "integer"] });
        let mut properties = Map::new();
        let mut property = |name: &str, mut schema: Value, about: String| {
            if let Some(schema) = schema.as_object_mut() {
                schema.insert("description".to_owned(), about.into());
            }
            properties.insert(name.to_owned(), schema);
        };
        property(
            "name",
            json!({ "type": "string" }),
            "What workers find it under in LISTEN_FDNAMES.".to_owned(),
        );
        for (name, _, about) in ADDRESSES {
            property(name, scalar.clone(), about.to_owned());
        }
        for option in socket_options::all() {
            let schema = if option.is_flag {
                json!({ "anyOf": [{ "type": "boolean" }, { "enum": ["yes", "no"] }] })
            } else {
                scalar.clone()
            };
            property(option.name, schema, format!("For {}: {}.", option.which, option.what));
        }
        let one_address: Vec<Value> =
            ADDRESSES.iter().map(|(name, ..)| json!({ "required": [name] })).collect();
        json_schema!({
            "description": "A socket as `-p` takes it, or a map.",
            "anyOf": [
                { "type": "string" },
                { "type": "integer", "minimum": 0, "maximum": 65535 },
                {
                    "type": "object",
                    "properties": properties,
                    "oneOf": one_address,
                    "additionalProperties": false,
                },
            ],
        })
    }
}
