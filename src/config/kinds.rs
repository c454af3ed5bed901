//! The single values of shepherd.yaml: how each is read, and what the schema says of it. They are
//! those of the command line, read by the same parsers.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::admin::AdminAddress;
use super::diagnostic::Mistakes;
use super::identity::{self, Account, Groups, Umask};
use super::reader::{At, Leaf, OneOrMany, Read, other_type};
use super::schema::{File, Service};
use super::upstreams::Format;
use super::values::{
    self, Balance, Handoff, KeepAlive, Logs, OnFailing, Percent, StopSignals, ValueError, Workers,
};
use super::yaml::{Is, Node};
use crate::core::policy::{BeforeStop, ReadyWhen, Surge};
use crate::core::service::WORKERS_MAX;

/// A text in which variables stand, which no schema can know the value of.
const VARIABLE: &str = r"\$\{";

/// A number and a unit, maybe several of them.
const DURATION: &str = r"^([0-9.]+(ms|s|min|m|h|d))+$|\$\{";

/// How a type is read from a scalar, and its schema.
macro_rules! leaf {
    ($type:ident, $needed:literal, $example:literal, $parse:expr, $schema:tt) => {
        impl Leaf for $type {
            const NEEDED: &str = $needed;
            const EXAMPLE: &str = $example;

            fn parse(text: &str) -> Result<$type, String> {
                let parse: fn(&str) -> Result<$type, ValueError> = $parse;
                parse(text).map_err(|error| in_a_file(&error.to_string()))
            }
        }

        schema!($type, $schema);
    };
}

/// The schema of a type, which stands where the type is used.
macro_rules! schema {
    ($type:ident, $schema:tt) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

/// A duration, which may be zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Duration);

/// A duration that is not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PositiveTime(pub Duration);

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag(pub bool);

/// A niceness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Niceness(pub i8);

/// The name of a service or of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named(pub String);

/// What counts as ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready(pub ReadyWhen);

/// A path as it was written; it may be relative to the file's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePath(pub PathBuf);

/// The value of a variable of the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(pub String);

/// What a limit is, as it was written: only with its name it can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amount(pub String);

leaf!(
    Workers,
    "a number of workers",
    "one such as `4`, or `auto` or `max`",
    str::parse,
    { "anyOf": [
        { "type": "integer", "minimum": 1, "maximum": WORKERS_MAX },
        { "enum": ["auto", "max"] },
        { "type": "string", "pattern": VARIABLE },
    ] }
);
leaf!(
    AdminAddress,
    "an address",
    "a port such as `9180`, which is for this machine alone, or `10.0.0.1:9180`",
    str::parse,
    { "anyOf": [
        { "type": "integer", "minimum": 0, "maximum": u16::MAX },
        { "type": "string" },
    ] }
);
leaf!(
    Format,
    "who reads the upstreams",
    "`nginx` or `haproxy`",
    str::parse,
    { "anyOf": [
        { "enum": ["nginx", "haproxy"] },
        { "type": "string", "pattern": VARIABLE },
    ] }
);
leaf!(
    Time,
    "a duration",
    "one such as `30s`",
    |text| with_unit(text).and_then(values::duration).map(Time),
    { "type": "string", "pattern": DURATION }
);
leaf!(
    PositiveTime,
    "a duration",
    "one such as `30s`",
    |text| with_unit(text).and_then(values::positive_duration).map(PositiveTime),
    { "type": "string", "pattern": DURATION }
);
leaf!(
    Flag,
    "`true` or `false`",
    "one of them",
    |text| match text {
        "true" | "yes" => Ok(Flag(true)),
        "false" | "no" => Ok(Flag(false)),
        _ => Err(ValueError(format!("`{text}` is neither true nor false; write `true` or `false`"))),
    },
    { "anyOf": [{ "type": "boolean" }, { "type": "string", "pattern": r"^(yes|no)$|\$\{" }] }
);
leaf!(
    Niceness,
    "a number",
    "one from -20 to 19",
    |text| identity::nice(text).map(Niceness),
    { "anyOf": [
        { "type": "integer", "minimum": -20, "maximum": 19 },
        { "type": "string", "pattern": VARIABLE },
    ] }
);
leaf!(
    Named,
    "a name",
    "one such as `web`",
    |text| values::service_name(text).map(Named),
    { "type": "string", "pattern": r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,39}$|\$\{" }
);
leaf!(
    Ready,
    "what counts as ready",
    "`auto`, `notify`, `listen`, `message`, `alive:D`, `tcp`, `http:/PATH` or `exec:COMMAND`",
    |text| values::ready_when(text).map(Ready),
    { "type": "string", "pattern": r"^(auto|notify|listen|message|tcp|alive:.+|http:/.*|exec:.+)$|\$\{" }
);
leaf!(
    Handoff,
    "a way for a worker to get its sockets",
    "`auto`, `fds` or `node`",
    str::parse,
    { "anyOf": [{ "enum": ["auto", "fds", "node"] }, { "type": "string", "pattern": VARIABLE }] }
);
leaf!(
    Balance,
    "a way for connections to find a worker",
    "`generation`, `slots`, `shared` or `dispatch`",
    str::parse,
    { "anyOf": [
        { "enum": ["generation", "slots", "shared", "dispatch", "dispatch:round-robin",
                   "dispatch:least-connections", "dispatch:sticky"] },
        { "type": "string", "pattern": VARIABLE },
    ] }
);
leaf!(
    OnFailing,
    "what becomes of clients",
    "`wait` or `refuse`",
    str::parse,
    { "anyOf": [{ "enum": ["wait", "refuse"] }, { "type": "string", "pattern": VARIABLE }] }
);
leaf!(
    KeepAlive,
    "what becomes of kept-alive connections",
    "`close-idle` or `leave`",
    str::parse,
    { "anyOf": [
        { "enum": ["close-idle", "leave"] },
        { "type": "string", "pattern": VARIABLE },
    ] }
);
leaf!(
    BeforeStop,
    "a time before the stop",
    "`auto`, or a duration such as `10s`",
    |text| with_unit(text).and_then(values::before_stop),
    { "type": "string", "pattern": r"^(auto|([0-9.]+(ms|s|min|m|h|d))+)$|\$\{" }
);
leaf!(
    Percent,
    "a part of new connections",
    "one such as `5%`",
    str::parse,
    { "type": "string", "pattern": r"^[1-9][0-9]?%$|\$\{" }
);
leaf!(
    Surge,
    "a number of workers beside the old ones",
    "`auto`, one such as `2`, or a part such as `25%`",
    values::surge,
    { "anyOf": [
        { "type": "integer", "minimum": 0, "maximum": WORKERS_MAX },
        { "type": "string", "pattern": r"^(auto|[0-9]+|(100|[1-9]?[0-9])%)$|\$\{" },
    ] }
);
leaf!(
    Logs,
    "a way for the workers' output",
    "`inherit`, `prefix` or `json`",
    str::parse,
    { "anyOf": [
        { "enum": ["inherit", "prefix", "json"] },
        { "type": "string", "pattern": VARIABLE },
    ] }
);
leaf!(
    FilePath,
    "a path",
    "one such as `./app`",
    |text| match text {
        "" => Err(ValueError("the path is empty; write one, or leave the key away".to_owned())),
        _ => without_nul(text).map(|text| FilePath(text.into())),
    },
    { "type": "string", "minLength": 1 }
);
leaf!(
    Text,
    "a text",
    "one, `\"\"` if it is to be empty",
    |text| without_nul(text).map(|text| Text(text.to_owned())),
    { "type": ["string", "number", "boolean"] }
);
leaf!(
    Amount,
    "a limit",
    "one such as `65536`, `1024:65536` or `unlimited`",
    |text| Ok(Amount(text.to_owned())),
    { "type": ["string", "integer"] }
);
leaf!(
    Account,
    "a name or a number",
    "one such as `www-data`",
    str::parse,
    { "anyOf": [{ "type": "string", "minLength": 1 }, { "type": "integer", "minimum": 0 }] }
);
leaf!(
    Umask,
    "an octal number",
    "one such as `027`",
    str::parse,
    { "anyOf": [
        { "type": "integer", "minimum": 0, "maximum": 777 },
        { "type": "string", "pattern": r"^[0-7]+$|\$\{" },
    ] }
);

/// The supplementary groups: a list, or one text with commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupList(pub Groups);

impl Read for GroupList {
    const NEEDED: &str = "a list of groups";
    const EXAMPLE: &str = "one such as `[www-data, ssl-cert]`";

    fn read(node: &Node, mistakes: &mut Mistakes) -> Option<GroupList> {
        match &node.is {
            Is::List(_) => {
                let accounts = OneOrMany::<Account>::read(node, mistakes)?.0;
                Some(GroupList(Groups(accounts.into_iter().map(|account| account.is).collect())))
            }
            Is::Scalar(text) => match text.parse::<Groups>() {
                Ok(groups) => Some(GroupList(groups)),
                Err(error) => {
                    mistakes.add(node.at, &in_a_file(&error.to_string()));
                    None
                }
            },
            Is::Nothing | Is::Broken | Is::Map(_) => other_type(node, mistakes),
        }
    }
}

schema!(GroupList, { "anyOf": [
    { "type": "array", "items": { "type": ["string", "integer"] } },
    { "type": "string" },
    { "type": "integer", "minimum": 0 },
] });

/// A signal with the time that it is given, or several of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop(pub StopSignals);

leaf!(
    StopSignals,
    "a signal",
    "one such as `TERM`, or `INT:5s` with the time it is given",
    str::parse,
    { "type": "string" }
);

impl Read for Stop {
    const NEEDED: &str = "a signal";
    const EXAMPLE: &str = "one such as `TERM`, or a list of them such as `[TERM, \"INT:5s\"]`";

    fn read(node: &Node, mistakes: &mut Mistakes) -> Option<Stop> {
        let whole = match &node.is {
            Is::Scalar(text) => text.clone(),
            Is::List(items) if !items.is_empty() => {
                // Each alone, so that a mistake has its place; then all, for their number.
                OneOrMany::<StopSignals>::read(node, mistakes)?;
                let texts = items.iter().filter_map(|item| match &item.is {
                    Is::Scalar(text) => Some(text.as_str()),
                    Is::Nothing | Is::Broken | Is::List(_) | Is::Map(_) => None,
                });
                texts.collect::<Vec<_>>().join(",")
            }
            Is::Nothing | Is::Broken | Is::List(_) | Is::Map(_) => {
                return other_type(node, mistakes);
            }
        };
        StopSignals::parse(&whole).map_err(|error| mistakes.add(node.at, &error)).ok().map(Stop)
    }
}

schema!(Stop, { "anyOf": [
    { "type": "string" },
    { "type": "array", "items": { "type": "string" }, "minItems": 1 },
] });

/// The program and its arguments: a list, or a text that is divided as a shell would, without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command(pub Vec<String>);

impl Read for Command {
    const NEEDED: &str = "a command";
    const EXAMPLE: &str = "one such as `./server --fast` or `[./server, --fast]`";

    fn read(node: &Node, mistakes: &mut Mistakes) -> Option<Command> {
        let words = match &node.is {
            Is::List(items) if !items.is_empty() => {
                let words = OneOrMany::<Text>::read(node, mistakes)?.0;
                words.into_iter().map(|At { is: Text(word), .. }| word).collect()
            }
            Is::Scalar(text) => {
                let Text(text) =
                    Text::parse(text).map_err(|error| mistakes.add(node.at, &error)).ok()?;
                let Ok(words) = shell_words::split(&text) else {
                    let text = "a quote in the command is not closed; close it, or write the \
                                command as a list: `[./server, --fast]`";
                    mistakes.add(node.at, text);
                    return None;
                };
                words
            }
            Is::Nothing | Is::Broken | Is::List(_) | Is::Map(_) => {
                return other_type(node, mistakes);
            }
        };
        if words.first().is_none_or(String::is_empty) {
            mistakes.add(node.at, "the command is empty; write a program, such as `./server`");
            return None;
        }
        Some(Command(words))
    }
}

schema!(Command, { "anyOf": [
    { "type": "array", "items": { "type": ["string", "number", "boolean"] }, "minItems": 1 },
    { "type": "string", "minLength": 1 },
] });

/// A number alone has no unit, and which is meant is not guessed.
fn with_unit(text: &str) -> Result<&str, ValueError> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number && text.len() < 12 {
        return Err(ValueError(format!(
            "`{text}` has no unit; write `{text}s` for seconds, or `{text}ms`, `{text}m`, `{text}h`"
        )));
    }
    Ok(text)
}

fn without_nul(text: &str) -> Result<&str, ValueError> {
    if text.contains('\0') {
        return Err(ValueError(
            "there is a NUL in this text, which no program can be given; remove it".to_owned(),
        ));
    }
    Ok(text)
}

/// A message of the command line, where it names options, in the words of the file: `--ready tcp` is
/// `ready: tcp` there.
#[must_use]
pub fn in_a_file(message: &str) -> String {
    let message = message.replace("`-p ", "`--listen ").replace("`-p`", "`--listen`");
    let mut parts = message.split("--");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|char: char| !char.is_ascii_lowercase() && char != '-');
        let (option, rest) = part.split_at(end.unwrap_or(part.len()));
        let key = match option {
            "stop-signal" => "stop".to_owned(),
            "limit" => "limits".to_owned(),
            option => option.replace('-', "_"),
        };
        // One of another program, or in a path or text of the user's, is none of ours.
        let stands_alone = matches!(text.chars().next_back(), None | Some('`' | ' ' | '('));
        let is_ours = Service::KEYS.contains(&key.as_str()) || File::KEYS.contains(&key.as_str());
        if !stands_alone || !is_ours {
            text.push_str("--");
            text.push_str(part);
            continue;
        }
        text.push_str(&key);
        let is_quoted = text.matches('`').count() % 2 == 1;
        if rest.starts_with(' ') && is_quoted {
            text.push(':');
        }
        text.push_str(rest);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_command_line_name_the_keys_of_the_file() {
        for (message, expected) in [
            (
                "`--ready listen` waits; add `-p SOCKET`",
                "`ready: listen` waits; add `listen: SOCKET`",
            ),
            ("choose another with --directory", "choose another with directory"),
            ("`--drain-timeout 0s` makes", "`drain_timeout: 0s` makes"),
            ("(`--limit nproc=N`, x)", "(`limits: nproc=N`, x)"),
            ("cannot run `a--b`", "cannot run `a--b`"),
            ("(`useradd --system x`)", "(`useradd --system x`)"),
            ("write `--user a --group b`", "write `user: a group: b`"),
            ("a -- b", "a -- b"),
        ] {
            assert_eq!(in_a_file(message), expected);
        }
    }
}
