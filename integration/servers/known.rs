//! The servers of `examples/README.md`, as it says how to run them. Reads only.

use std::{fs, path::Path, process::Command};

/// The heading over the table.
const HEADING: &str = "## Servers you know";

/// A row of the table.
pub struct Server {
    pub name: String,
    /// How it takes the sockets.
    pub takes: String,
    /// What follows `shepherd run`: its options, and the server's command after `--`.
    pub options: Vec<String>,
    pub command: Vec<String>,
}

/// All rows, in order.
pub fn servers() -> Vec<Server> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/README.md");
    let text = fs::read_to_string(path).expect("the README of the examples");
    let section = text.split_once(HEADING).expect("the heading over the table").1;
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(2);
    let servers: Vec<Server> = rows.map(server).collect();
    assert!(!servers.is_empty(), "no server in the table");
    servers
}

fn server(row: &str) -> Server {
    let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
    let [name, takes, line] = cells[..] else { panic!("a row of other than three cells: {row}") };
    let line = line.trim_matches('`');
    let mut words = words(line).into_iter();
    let start = [words.next(), words.next()];
    let is_ours = start.iter().flatten().eq(["shepherd", "run"]);
    assert!(is_ours, "it does not begin with `shepherd run`: {line}");
    let options = words.by_ref().take_while(|word| word != "--").collect();
    let command: Vec<String> = words.collect();
    assert!(!command.is_empty(), "no command after `--`: {line}");
    Server { name: name.to_owned(), takes: takes.trim_matches('`').to_owned(), options, command }
}

/// Words as a shell reads them, for lines without more than blanks and single quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for char in line.chars() {
        match char {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            '\\' | '"' | '$' | '`' | '*' | '~' => panic!("more than words and quotes: {line}"),
            ';' | '&' | '|' | '<' | '>' if !quoted => panic!("more than words: {line}"),
            char => words.last_mut().expect("at least one word").push(char),
        }
    }
    assert!(!quoted, "a quote without its end: {line}");
    words
}

impl Server {
    /// Whether it can close a connection that it has just accepted and read nothing from, when it is
    /// asked to stop: uvicorn and puma take it for an idle one, and in Go an accepted connection is
    /// not known to the server yet (golang/go#34163). No supervisor can help this while the workers
    /// of all generations accept from one socket.
    pub fn closes_unread(&self) -> bool {
        ["uvicorn", "puma", "caddy"].contains(&self.name.as_str())
    }

    /// As the server itself says it.
    pub fn version(&self) -> String {
        let question = match self.name.as_str() {
            "nginx" => "-v",
            "caddy" => "version",
            _ => "--version",
        };
        let program = &self.name;
        let output = Command::new(program).arg(question).output();
        let output = output.unwrap_or_else(|error| panic!("cannot run `{program}`: {error}"));
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let version =
            said.split(|char: char| char.is_whitespace() || "/v()".contains(char)).find(|word| {
                word.contains('.') && word.starts_with(|char: char| char.is_ascii_digit())
            });
        version
            .unwrap_or_else(|| panic!("`{program} {question}` says no version: {said}"))
            .to_owned()
    }
}
