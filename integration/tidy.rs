//! House rules as a test, so that reviews talk about design.

#![expect(clippy::panic, reason = "a test fails by it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which layers a layer may name. `core::x` stands for that module of the core alone.
const ARROWS: &[(&str, &[&str])] = &[
    ("core", &["core"]),
    ("config", &["config", "core::policy", "core::service"]),
    ("protocol", &["protocol", "core::ids"]),
    ("os", &["os", "protocol", "config", "core::ids", "core::policy", "core::event", "core::time"]),
    ("control", &["control", "core", "config", "os"]),
    ("daemon", &["daemon", "control", "os", "protocol", "config", "core"]),
    (
        "cli",
        &[
            "cli",
            "daemon",
            "control",
            "config",
            "core::policy",
            "core::time",
            "os::clock",
            "os::config_file",
            "os::definition",
            "os::exec",
            "os::identity",
            "os::interrupt",
            "os::runtime_dir",
            "os::stderr",
            "os::terminal",
        ],
    ),
];

/// What only some layers may name.
const SYSTEM: &[&str] = &["nix::", "libc::", "signal_hook", "listenfd::", "sd_notify"];

/// What only the control API is made of, and no other layer.
const ASYNCHRONOUS: &[&str] = &["tokio::", "hyper", "axum::"];

/// What the layers that decide or read may not name, and the daemon only where it is listed.
const OUTSIDE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::process",
    "std::os::",
    "std::thread",
    "std::env",
    "Instant",
    "SystemTime",
    "tracing::",
];

/// (file, what it may name after all): descriptors and bytes of paths pass through the daemon; the
/// command line reads arguments and gives an exit code.
const EXCEPTIONS: &[(&str, &[&str])] = &[
    ("src/daemon/mod.rs", &["tracing::", "std::process"]),
    ("src/daemon/event_loop.rs", &["tracing::", "std::os::"]),
    ("src/daemon/perform.rs", &["tracing::", "std::os::"]),
    ("src/daemon/configuration.rs", &["tracing::"]),
    ("src/daemon/checks.rs", &["tracing::"]),
    ("src/daemon/node.rs", &["tracing::", "std::os::"]),
    ("src/daemon/channels.rs", &["std::os::"]),
    ("src/daemon/services.rs", &["tracing::"]),
    ("src/daemon/sockets.rs", &["tracing::"]),
    ("src/daemon/slots.rs", &["tracing::"]),
    ("src/daemon/steering.rs", &["tracing::"]),
    ("src/daemon/dispatch.rs", &["tracing::"]),
    ("src/daemon/upstreams.rs", &["tracing::"]),
    ("src/daemon/messages.rs", &["tracing::"]),
    ("src/daemon/capture.rs", &["std::os::"]),
    ("src/daemon/output.rs", &["tracing::", "std::os::"]),
    ("src/daemon/control.rs", &["tracing::"]),
    ("src/daemon/control/endpoint.rs", &["tracing::"]),
    ("src/daemon/control/view.rs", &["std::process"]),
    ("src/control/door.rs", &["std::net", "std::os::"]),
    ("src/control/server.rs", &["std::thread", "std::os::"]),
    ("src/daemon/journal.rs", &["tracing::", "std::process", "SystemTime"]),
    ("src/cli/mod.rs", &["std::env", "std::process"]),
    ("src/cli/find.rs", &["std::env", "std::thread"]),
    ("src/cli/waiting.rs", &["std::thread"]),
    ("src/cli/run.rs", &["std::process"]),
    ("src/cli/check.rs", &["std::process"]),
    ("src/cli/schema.rs", &["std::process"]),
    ("src/cli/exec.rs", &["std::process"]),
    ("src/cli/completions.rs", &["std::process"]),
    ("src/cli/man.rs", &["std::fs", "std::process"]),
];

/// Everything that may be at the top.
const TOP: &[&str] = &[
    ".cargo",
    ".ci",
    ".git",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "clippy.toml",
    "examples",
    "integration",
    "justfile",
    "packaging",
    "rustfmt.toml",
    "src",
    "target",
];

#[test]
fn layers_name_only_what_lies_below_them() {
    let mut wrong = Vec::new();
    for file in rust_files("src") {
        let text = code(&file.text);
        let Some(layer) = file.layer() else { continue };
        let (_, allowed) = ARROWS
            .iter()
            .find(|(name, _)| *name == layer)
            .unwrap_or_else(|| panic!("{}: no arrows are known for `{layer}`", file.name));
        for path in text.split("crate::").skip(1) {
            let named: String =
                path.chars().take_while(|c| c.is_alphanumeric() || "_:".contains(*c)).collect();
            let fits = |arrow: &&str| {
                named
                    .strip_prefix(*arrow)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
                // `use crate::core::{...}` and `crate::core::Supervisor` name the whole.
            };
            if !allowed.iter().any(fits) {
                wrong.push(format!("{}: crate::{named}", file.name));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that should not be there:\n{}", wrong.join("\n"));
}

#[test]
fn only_os_reaches_the_system() {
    let mut wrong = Vec::new();
    for file in rust_files("src") {
        let Some(layer) = file.layer() else { continue };
        // A test may reach whatever it needs.
        if file.name.ends_with("/tests.rs") {
            continue;
        }
        let text = code(&file.text);
        if layer == "os" {
            for banned in ASYNCHRONOUS.iter().filter(|banned| names(&text, banned)) {
                wrong.push(format!("{}: {banned}", file.name));
            }
            continue;
        }
        let exceptions = EXCEPTIONS
            .iter()
            .find(|(name, _)| *name == file.name)
            .map_or(&[][..], |(_, exceptions)| *exceptions);
        let asynchronous = if layer == "control" { &[] } else { ASYNCHRONOUS };
        for banned in SYSTEM.iter().chain(OUTSIDE).chain(asynchronous) {
            if names(&text, banned) && !exceptions.contains(banned) {
                wrong.push(format!("{}: {banned}", file.name));
            }
        }
    }
    assert!(wrong.is_empty(), "names that belong to os:\n{}", wrong.join("\n"));
}

#[test]
fn exceptions_are_still_needed() {
    for (name, exceptions) in EXCEPTIONS {
        let text = code(&read(&root().join(name)));
        for exception in *exceptions {
            assert!(text.contains(exception), "{name} no longer names {exception}");
        }
    }
}

#[test]
fn unsafe_is_in_one_file_and_every_block_says_why() {
    for file in rust_files("src") {
        let count = code(&file.text).matches("unsafe {").count();
        if file.name == "src/os/sys.rs" {
            let reasons = file.text.matches("// SAFETY:").count();
            assert_eq!(count, reasons, "{}: unsafe blocks and SAFETY comments", file.name);
        } else {
            assert_eq!(count, 0, "{}: unsafe outside of src/os/sys.rs", file.name);
        }
    }
}

#[test]
fn every_file_says_first_what_it_is_for() {
    for file in rust_files("src").into_iter().chain(rust_files("integration")) {
        assert!(file.text.starts_with("//! "), "{} does not begin with `//! `", file.name);
    }
}

#[test]
fn nothing_is_left_open_in_the_code() {
    // Written in two halves, so that this file does not find itself.
    let words = [["TO", "DO"], ["FIX", "ME"], ["for ", "now"], ["#[ign", "ore"], ["todo", "!("]];
    for file in rust_files("src").into_iter().chain(rust_files("integration")) {
        for word in words.map(|halves| halves.concat()) {
            assert!(!file.text.contains(&word), "{} says `{word}`", file.name);
        }
    }
}

#[test]
fn the_top_level_holds_what_is_known_and_nothing_else() {
    let mut strangers: Vec<String> = fs::read_dir(root())
        .expect("the package's directory is readable")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| !TOP.contains(&name.as_str()))
        .collect();
    strangers.sort();
    assert!(strangers.is_empty(), "not on the list of what may be at the top: {strangers:?}");
}

#[test]
fn each_example_parses_and_has_a_line_in_the_table() {
    let directory = root().join("examples");
    let table = read(&directory.join("README.md"));
    let mut files = Vec::new();
    for entry in fs::read_dir(&directory).expect("readable").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "README.md" || name == "__pycache__" {
            continue;
        }
        assert!(table.contains(&format!("`{name}`")), "examples/README.md has no line for {name}");
        // A directory is one example of several files.
        match fs::read_dir(entry.path()) {
            Ok(inside) => files.extend(inside.flatten().map(|entry| entry.path())),
            Err(_) => files.push(entry.path()),
        }
    }
    for path in files {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let mut check = match path.extension().and_then(|extension| extension.to_str()) {
            Some("js") => {
                let mut node = Command::new("node");
                node.arg("--check");
                node
            }
            Some("py") => {
                let mut python = Command::new("python3");
                let program = "import ast, sys; ast.parse(open(sys.argv[1]).read())";
                python.args(["-c", program]);
                python
            }
            Some("c") => {
                let mut gcc = Command::new("gcc");
                gcc.args(["-fsyntax-only", "-Wall", "-Wextra", "-Werror"]);
                gcc
            }
            Some("yaml") => {
                let mut shepherd = Command::new(env!("CARGO_BIN_EXE_shepherd"));
                let programs = Path::new(env!("CARGO_BIN_EXE_shepherd")).with_file_name("examples");
                shepherd.arg("check").env("PROGRAMS", programs);
                shepherd
            }
            // Cargo builds the first with the tests, and the tests build the other where they can.
            Some("rs" | "go") => continue,
            // What a file of variables says is checked with the configuration that names it; what
            // the shop keeps while it runs is no example.
            Some("env" | "db" | "db-journal" | "sock" | "log") => continue,
            other => panic!("{name}: nothing here can check {other:?}"),
        };
        let output = check.arg(&path).output().expect("the checker runs");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_changelog_has_this_version_and_the_readme_names_the_tests_that_ci_runs() {
    let changelog = read(&root().join("CHANGELOG.md"));
    let heading = format!("## {}", env!("CARGO_PKG_VERSION"));
    assert!(
        changelog.lines().any(|line| line.starts_with(&heading)),
        "no `{heading}` in CHANGELOG"
    );
    let readme = read(&root().join("README.md"));
    let ci = read(&root().join(".ci/run"));
    let tests = "cargo test --release --no-fail-fast";
    assert!(readme.contains(tests) && ci.contains(tests), "README and .ci/run say `{tests}`");
}

#[test]
fn each_dependency_has_a_line_that_says_why() {
    let manifest = read(&root().join("Cargo.toml"));
    let mut explained = false;
    let mut in_dependencies = false;
    for line in manifest.lines() {
        if let Some(section) = line.strip_prefix('[') {
            in_dependencies = section.ends_with("dependencies]");
        } else if in_dependencies && line.contains('=') {
            assert!(explained, "Cargo.toml: no reason above `{line}`");
        }
        explained = line.starts_with('#');
    }
}

struct File {
    /// Relative to the package.
    name: String,
    text: String,
}

impl File {
    /// The folder below `src` that it is in.
    fn layer(&self) -> Option<&str> {
        let rest = self.name.strip_prefix("src/")?;
        rest.split_once('/').map(|(layer, _)| layer)
    }
}

/// Whether a name stands in the text as a word of its own: `nix::` is not in `unix::`.
fn names(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        !before.is_some_and(|char| char.is_alphanumeric() || char == '_')
    })
}

/// What a file says without its tests, which stand last, and its comments.
fn code(text: &str) -> String {
    let end = text.find("\n#[cfg(test)]").unwrap_or(text.len());
    let lines = text[..end].lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

fn rust_files(folder: &str) -> Vec<File> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("readable") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).expect("below the package");
                let name = name.to_string_lossy().into_owned();
                files.push(File { name, text: read(&path) });
            }
        }
    }
    assert!(!files.is_empty(), "no Rust files in {folder}");
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
