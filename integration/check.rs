//! `shepherd check` and `shepherd schema`: what a person sees, and what a program reads.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::mistakes::{CONFIGURATION, USAGE};

/// Runs a verb in a directory, and gives how it ended with its stdout and its stderr.
fn shepherd(directory: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_shepherd"))
        .args(arguments)
        .current_dir(directory)
        .env("PORT", "8000")
        .output()
        .expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

fn with(name: &str, text: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join(name), text).expect("written");
    directory
}

const RIGHT: &str = "\
services:
  web:
    command: sh -c 'sleep 9'
    listen: [\"${PORT}\", unix:web.sock]
  agent:
    command: [sh]
";

#[test]
fn a_file_without_mistakes_is_summed_up() {
    let directory = with("shepherd.yaml", RIGHT);
    let said = "shepherd.yaml: 2 services, 2 sockets: no mistakes\n".to_owned();
    let expected = (Some(0), said, String::new());
    assert_eq!(shepherd(directory.path(), &["check", "shepherd.yaml"]), expected);
    // It is found where it is not named.
    assert_eq!(shepherd(directory.path(), &["check"]), expected);
    let (code, json, _) = shepherd(directory.path(), &["check", "--json"]);
    assert_eq!(
        (code, json.as_str()),
        (Some(0), "{\"services\":2,\"sockets\":2,\"mistakes\":[]}\n")
    );
}

#[test]
fn the_other_name_is_found_too() {
    let directory = with("shepherd.yml", RIGHT);
    let (code, said, _) = shepherd(directory.path(), &["check"]);
    assert_eq!((code, said.starts_with("shepherd.yml: ")), (Some(0), true), "{said}");
}

#[test]
fn every_mistake_has_its_place_and_the_exit_code_says_so() {
    let text = "\
services:
  web:
    command: sh
    workrs: 2
    listen: ${NO_SUCH_VARIABLE}
    drain_timeout: 30
";
    let directory = with("shepherd.yaml", text);
    let (code, stdout, stderr) = shepherd(directory.path(), &["check"]);
    assert_eq!((code, stdout.as_str()), (Some(CONFIGURATION), ""), "{stderr}");
    let expected = "\
error: `workrs` is no key of a service
 --> shepherd.yaml:4:5
  |
4 |     workrs: 2
  |     ^^^^^^ write `workers`

error: the variable `NO_SUCH_VARIABLE` is not set
 --> shepherd.yaml:5:13
  |
5 |     listen: ${NO_SUCH_VARIABLE}
  |             ^^^^^^^^^^^^^^^^^^^ set it, or write `${NO_SUCH_VARIABLE:-default}`

error: `30` has no unit
 --> shepherd.yaml:6:20
  |
6 |     drain_timeout: 30
  |                    ^^ write `30s` for seconds, or `30ms`, `30m`, `30h`

shepherd.yaml: 3 mistakes
";
    assert_eq!(stderr, expected);
    let (code, json, stderr) = shepherd(directory.path(), &["check", "--json"]);
    assert_eq!((code, stderr.as_str()), (Some(CONFIGURATION), ""));
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let lines: Vec<_> = json["mistakes"].as_array().expect("a list").iter().collect();
    assert_eq!(lines.len(), 3, "{json}");
    assert_eq!(lines[0]["line"], 4);
    assert_eq!(lines[0]["column"], 5);
    assert_eq!(lines[0]["hint"], "write `workers`");
}

#[test]
fn what_cannot_be_steered_is_told_where_it_was_asked_for() {
    let text = "\
services:
  web:
    command: sh
    listen: unix:web.sock
    balance: slots
  other:
    command: sh
    listen: [8000, unix:other.sock]
    balance: slots
    drain: {before_stop: 0s}
  old:
    command: sh
    listen: 8001
    balance: shared
    drain:
      before_stop: 10s
";
    let directory = with("shepherd.yaml", text);
    let (code, _, stderr) = shepherd(directory.path(), &["check"]);
    assert_eq!(code, Some(CONFIGURATION), "{stderr}");
    let expected = "\
error: `balance: slots` needs a TCP or UDP socket, since a unix socket is one for all workers
 --> shepherd.yaml:5:14
  |
5 |     balance: slots
  |              ^^^^^ add one to `listen`, or take `balance: slots` away

error: `before_stop` needs new connections to go to other workers meanwhile, and with \
`balance: shared` they do not
  --> shepherd.yaml:16:20
   |
16 |       before_stop: 10s
   |                    ^^^ take one of these away

shepherd.yaml: 2 mistakes
";
    assert_eq!(stderr, expected);
}

#[test]
fn what_the_machine_lacks_is_found_all_at_once() {
    let text = "\
services:
  web:
    command: [no-such-program-anywhere, -x]
    env_file: [present.env, missing.env, wrong.env]
  other:
    command: sh
    user: nobody-of-this-name
    group: no-group-of-this-name
    directory: nowhere
";
    let directory = with("shepherd.yaml", text);
    fs::write(directory.path().join("present.env"), "A=1\n").expect("written");
    fs::write(directory.path().join("wrong.env"), "A=1\nB\n").expect("written");
    let (code, _, stderr) = shepherd(directory.path(), &["check"]);
    assert_eq!(code, Some(CONFIGURATION), "{stderr}");
    for (place, words) in [
        ("3:14", "cannot run `no-such-program-anywhere`"),
        ("4:29", "missing.env`: No such file"),
        ("4:42", "wrong.env`, line 2: there is no `=`"),
        ("7:11", "cannot use `user: nobody-of-this-name`: there is no such user"),
        ("7:11", "create it (`useradd --system nobody-of-this-name`)"),
        ("9:16", "nowhere`: No such file"),
    ] {
        assert!(stderr.contains(&format!("shepherd.yaml:{place}")), "{place} is not in:\n{stderr}");
        assert!(stderr.contains(words), "`{words}` is not in:\n{stderr}");
    }
    assert!(stderr.ends_with("shepherd.yaml: 5 mistakes\n"), "{stderr}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    for (arguments, code, words) in [
        (&["check"][..], CONFIGURATION, "cannot find `shepherd.yaml` or `shepherd.yml` here"),
        (&["check", "x.yaml"], CONFIGURATION, "cannot read `x.yaml`: No such file or directory"),
        (&["check", "x.yaml"], CONFIGURATION, "; name a file that is there"),
        (&["check", "."], CONFIGURATION, "cannot read `.`: it is not a regular file; name another"),
        (&["check", "a", "b"], USAGE, "unexpected argument 'b'"),
    ] {
        let (exit, _, stderr) = shepherd(directory.path(), arguments);
        assert_eq!(exit, Some(code), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
    }
}

#[test]
fn the_schema_is_one_and_the_example_names_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let (code, schema, _) = shepherd(directory.path(), &["schema"]);
    let schema: serde_json::Value = serde_json::from_str(&schema).expect("JSON");
    assert_eq!(code, Some(0));
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["title"], "shepherd.yaml");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/shepherd.yaml");
    let example = fs::read_to_string(example).expect("readable");
    let first = example.lines().next().expect("a line");
    assert_eq!(first, "# yaml-language-server: $schema=shepherd.schema.json");
}
