//! Clients on a terminal: what changes in place, in which colours, and what is left on the screen.

#![expect(clippy::panic, reason = "a test fails by it")]

use std::fs;

use crate::{
    cli::{ends, site, web},
    harness::{Daemon, http_rust},
};

/// All that a client writes to a terminal of 80 columns, and its exit code.
fn on_a_terminal(daemon: &Daemon, words: &str, environment: &[(&str, &str)], code: i32) -> String {
    let typescript = daemon.home().directory().join("typescript");
    let shepherd = env!("CARGO_BIN_EXE_shepherd");
    let line = format!("stty cols 80 rows 24 && exec '{shepherd}' {words} --name web");
    let mut builder = daemon.builder().binary("script").env("TERM", "xterm").env("NO_COLOR", "");
    for (name, value) in environment {
        builder = builder.env(name, value);
    }
    let path = typescript.to_str().expect("text");
    let words = ["--quiet", "--flush", "--return", "--command", line.as_str(), path];
    ends(builder.client(words), code);
    let text = fs::read_to_string(&typescript).expect("a typescript");
    // Its own first and last lines.
    let text = text.split_once('\n').map_or(text.as_str(), |(_, rest)| rest);
    text.rsplit_once("\nScript done").map_or(text, |(rest, _)| rest).to_owned()
}

/// The lines that a terminal shows after these bytes, in which there is no line too long.
fn screen(bytes: &str) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    let (mut row, mut column) = (0, 0);
    let mut characters = bytes.chars();
    while let Some(character) = characters.next() {
        match character {
            '\r' => column = 0,
            '\n' => {
                row += 1;
                if row == lines.len() {
                    lines.push(String::new());
                }
            }
            '\x1b' => {
                assert_eq!(characters.next(), Some('['));
                let mut number = String::new();
                let command = loop {
                    match characters.next() {
                        Some(digit @ ('0'..='9' | ';')) => number.push(digit),
                        Some(command) => break command,
                        None => return lines,
                    }
                };
                match command {
                    'A' => row -= number.parse::<usize>().expect("a number of lines"),
                    'K' => lines[row] = lines[row].chars().take(column).collect(),
                    'J' => {
                        lines[row] = lines[row].chars().take(column).collect();
                        lines.truncate(row + 1);
                    }
                    'm' => {}
                    other => panic!("nothing else is asked of a terminal: {other}"),
                }
            }
            character => {
                let mut cells: Vec<char> = lines[row].chars().collect();
                cells.resize(cells.len().max(column + 1), ' ');
                cells[column] = character;
                assert!(cells.len() <= 80, "{cells:?}");
                lines[row] = cells.into_iter().collect();
                column += 1;
            }
        }
    }
    lines
}

#[test]
fn a_reload_changes_a_line_of_each_worker_and_leaves_the_last_picture() {
    let (_site, builder) = site(3);
    let daemon = web(builder);
    let bytes = on_a_terminal(&daemon, "reload", &[], 0);
    for words in
        ["web:\u{1b}[0m \u{1b}[33mreloading\u{1b}[0m generation 1 to 2", "\u{1b}[32mready\u{1b}[0m"]
    {
        assert!(bytes.contains(words), "{words}: {bytes}");
    }
    assert!(!bytes.contains("[?25"), "the cursor is left alone: {bytes}");
    let screen = screen(&bytes);
    for worker in ["web.0  worker 4 ", "web.1  worker 5 ", "web.2  worker 6 "] {
        let line = screen.iter().find(|line| line.contains(worker));
        assert!(line.is_some_and(|line| line.contains("generation 2  ready")), "{screen:#?}");
    }
    let last: Vec<&String> = screen.iter().rev().filter(|line| !line.is_empty()).take(1).collect();
    assert!(last[0].starts_with("web: reload committed after "), "{screen:#?}");
    assert!(!screen.iter().any(|line| line.contains("reloading")), "{screen:#?}");
    assert!(daemon.stop().success());
}

#[test]
fn an_abort_leaves_the_worker_that_failed_on_the_screen_and_why_below() {
    let (site, builder) = site(1);
    let daemon = web(builder.args(["--logs", "prefix"]));
    let script = site.path("bad");
    fs::write(&script, "echo no database >&2\nexit 3\n").expect("a script");
    site.release_running("v2", &["sh", script.to_str().expect("text")]);
    let screen = screen(&on_a_terminal(&daemon, "reload", &[], 4));
    let text = screen.join("\n");
    assert!(text.contains("generation 2  failed"), "{text}");
    assert!(
        text.contains("shepherd: reload aborted: worker 2 (web.0) exited with code 3"),
        "{text}"
    );
    assert!(text.contains("\n    no database\n"), "{text}");
    assert!(daemon.stop().success());
}

#[test]
fn colours_and_motion_are_for_those_who_want_and_can_have_them() {
    let (_site, builder) = site(1);
    let daemon = web(builder);
    assert!(on_a_terminal(&daemon, "status", &[], 0).contains("\u{1b}[32mup\u{1b}[0m"));
    let plain = on_a_terminal(&daemon, "status", &[("NO_COLOR", "1")], 0);
    assert!(plain.contains("web: up, 1 of 1 ready") && !plain.contains('\u{1b}'), "{plain}");
    let moving = on_a_terminal(&daemon, "reload", &[("NO_COLOR", "1")], 0);
    assert!(moving.contains("\u{1b}[K") && !moving.contains("\u{1b}[0m"), "{moving}");
    let dumb = on_a_terminal(&daemon, "reload", &[("TERM", "dumb")], 0);
    assert!(dumb.contains("web: reload begins") && !dumb.contains('\u{1b}'), "{dumb}");
    assert!(daemon.stop().success());
}

#[test]
fn watched_status_replaces_what_was_there() {
    let daemon = web(Daemon::run().listen(crate::harness::free_port()).command(http_rust()));
    let shepherd = env!("CARGO_BIN_EXE_shepherd");
    let typescript = daemon.home().directory().join("watched");
    let line = format!("stty cols 80 rows 24 && exec '{shepherd}' status --watch --name web");
    let path = typescript.to_str().expect("text");
    let words = ["--quiet", "--flush", "--return", "--command", line.as_str(), path];
    let client = daemon.builder().binary("script").env("TERM", "xterm").start_client(words);
    daemon.eventually("a second look", || {
        let text = fs::read_to_string(&typescript).ok()?;
        (text.matches("pid ").count() > 1).then_some(())
    });
    // It sees the daemon go.
    assert!(daemon.stop().success());
    ends(client.wait(), 6);
    let text = fs::read_to_string(&typescript).expect("a typescript");
    let text = text.split_once('\n').map_or(text.as_str(), |(_, rest)| rest);
    let text = text.rsplit_once("\nScript done").map_or(text, |(rest, _)| rest);
    let shown = screen(text).join("\n");
    assert_eq!(shown.matches("`web`, pid ").count(), 1, "{shown}");
}
