//! The README's tour, line by line: one shell runs each command, and prints what the README shows.

#![expect(clippy::panic, reason = "a test fails by it")]
#![expect(
    clippy::disallowed_methods,
    reason = "it starts a shell, with the programs of this test first"
)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use crate::harness::{DEADLINE, Home, MARKER, eventually, eventually_within, example, free_port};

/// How long a command of the tour may take; a reload waits for the workers of two languages.
const COMMAND_MAX: Duration = Duration::from_secs(60);

/// What is printed after each command, with its exit code.
const END: &str = "--- end of the command ---";

#[test]
fn each_line_of_the_readmes_tour_prints_what_it_shows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).expect("README.md");
    let steps = steps(&readme);
    assert!(steps.len() > 10, "the tour has only {} commands", steps.len());

    let home = Home::new();
    let (web, admin) = (free_port(), free_port());
    // The tour changes files, so it gets a copy; its programs stay where they are.
    let shop = home.directory().join("examples/shop");
    fs::create_dir_all(&shop).expect("a directory");
    for entry in fs::read_dir(root.join("examples/shop")).expect("the shop").flatten() {
        if ["py", "js", "yaml", "env"]
            .iter()
            .any(|end| entry.path().extension().is_some_and(|e| e == *end))
        {
            fs::copy(entry.path(), shop.join(entry.file_name())).expect("a copy");
        }
    }
    let programs = home.directory().join("target/release/examples");
    fs::create_dir_all(&programs).expect("a directory");
    std::os::unix::fs::symlink(example("shop"), programs.join("shop")).expect("a link");

    let mut shell =
        Shell::new(&home, &[("WEB_PORT", web.to_string()), ("ADMIN_PORT", admin.to_string())]);
    let here = |text: &str| {
        text.replace(":8000", &format!(":{web}")).replace(":8001", &format!(":{admin}"))
    };
    for step in &steps {
        let expected: Vec<String> = step.printed.iter().map(|line| here(line)).collect();
        let command = here(&step.command);
        let mut printed = shell.run(&command);
        if command.starts_with("curl -s localhost") {
            // An old worker may take one more connection before it gets its stop signal.
            eventually_within(DEADLINE, || {
                let fits = fits(&expected, &printed);
                if !fits {
                    printed = shell.run(&command);
                }
                fits.then_some(())
            });
        }
        assert!(
            fits(&expected, &printed),
            "`{command}` prints\n{}\nand the README shows\n{}",
            printed.join("\n"),
            expected.join("\n"),
        );
        if step.command.ends_with('&') {
            // Somebody who types is slower than this.
            eventually("the daemon to answer", || {
                shell
                    .run("shepherd status > /dev/null 2>&1; echo $?")
                    .first()
                    .filter(|code| *code == "0")
                    .map(drop)
            });
        }
    }
    eventually("everything to be gone", || {
        let left: Vec<_> =
            home.processes().into_iter().filter(|left| left.pid != shell.pid()).collect();
        left.is_empty().then_some(())
    });
}

/// A command of the tour, and what the README shows after it.
struct Step {
    command: String,
    printed: Vec<String>,
}

/// The commands of the `console` blocks of the tour.
fn steps(readme: &str) -> Vec<Step> {
    let tour = readme.split("\n## ").find(|section| section.starts_with("A tour")).expect("a tour");
    let mut steps: Vec<Step> = Vec::new();
    let mut in_console = false;
    for line in tour.lines() {
        if line.starts_with("```") {
            in_console = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| in_console) {
            steps.push(Step { command: command.to_owned(), printed: Vec::new() });
        } else if let Some(step) = steps.last_mut().filter(|_| in_console) {
            step.printed.push(line.to_owned());
        }
    }
    steps
}

/// Whether `printed` is what is `expected`. `...` stands for anything within a line, and alone on a
/// line for any lines; long numbers (processes), times and sizes may be others.
fn fits(expected: &[String], printed: &[String]) -> bool {
    match expected.split_first() {
        None => printed.is_empty(),
        Some((line, rest)) if line == "..." => {
            (0..=printed.len()).any(|skipped| fits(rest, &printed[skipped..]))
        }
        Some((line, rest)) => match printed.split_first() {
            Some((first, others)) => line_fits(line, first) && fits(rest, others),
            None => false,
        },
    }
}

fn line_fits(expected: &str, printed: &str) -> bool {
    let (expected, printed) = (leave_out_what_varies(expected), leave_out_what_varies(printed));
    let printed = as_short_numbers_are(&expected, &printed);
    let mut pieces = expected.split("...");
    let Some(mut rest) = pieces.next().and_then(|first| printed.strip_prefix(first)) else {
        return false;
    };
    let mut last = None;
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
        last = Some(piece);
    }
    match last {
        None | Some("") => last.is_some() || rest.is_empty(),
        Some(piece) => rest.is_empty() || printed.ends_with(piece),
    }
}

/// The words of a line, numbers that differ from run to run replaced.
fn leave_out_what_varies(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let varies = |index: usize, word: &str| {
        let digits = word.trim_matches(|c: char| !c.is_ascii_digit());
        let is_number =
            !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
        let unit =
            words.get(index + 1).map_or("", |next| next.trim_end_matches([',', ';', ':', ')']));
        let glued = word.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        is_number
            && (digits.len() >= 4 && word.trim_end_matches([',', ';', ':']) == digits
                || ["ms", "s", "min", "KiB", "MiB", "GiB"].contains(&unit)
                || ["ms", "s", "m", "K", "M", "G", "KiB", "MiB", "GiB"]
                    .contains(&glued.trim_end_matches([',', ';', ':', ')'])))
    };
    let words = words.iter().enumerate();
    words
        .map(|(index, word)| if varies(index, word) { "#" } else { word })
        .collect::<Vec<_>>()
        .join(" ")
}

/// A process may have a number that is short: it is one where such a number is expected, before
/// anything that may be longer.
fn as_short_numbers_are(expected: &str, printed: &str) -> String {
    let mut expected = expected.split(' ').map_while(|word| (word != "...").then_some(word));
    let words = printed.split(' ').map(|word| {
        let number = word.trim_end_matches([',', ';', ':']);
        let is_number = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
        if expected.next() == Some("#") && is_number { "#" } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// A shell that is told one command after the other.
struct Shell {
    child: Child,
    commands: ChildStdin,
    lines: Receiver<String>,
}

impl Shell {
    fn new(home: &Home, variables: &[(&str, String)]) -> Shell {
        let binary = Path::new(env!("CARGO_BIN_EXE_shepherd"));
        let directory = binary.parent().expect("a directory").display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut child = Command::new("bash")
            .args(["-c", "exec bash --norc 2>&1"])
            .current_dir(home.directory())
            .env("PATH", format!("{directory}:{path}"))
            .env("XDG_RUNTIME_DIR", home.runtime_directory())
            .env(MARKER, home.marker())
            .env_remove("SHEPHERD_CONTROL")
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash");
        let commands = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Shell { child, commands, lines }
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    /// What a command prints.
    fn run(&mut self, command: &str) -> Vec<String> {
        writeln!(self.commands, "{command}\necho '{END}'").expect("the shell reads");
        let mut printed = Vec::new();
        loop {
            match self.lines.recv_timeout(COMMAND_MAX) {
                Ok(line) if line == END => return printed,
                Ok(line) => printed.push(line),
                Err(mpsc::RecvTimeoutError::Timeout | mpsc::RecvTimeoutError::Disconnected) => {
                    panic!("`{command}` did not end in {COMMAND_MAX:?}:\n{}", printed.join("\n"))
                }
            }
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_a_tour_shows_is_compared_but_for_what_varies() {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(fits(&lines("a 12\n..."), &lines("a 12\nb\nc")));
    assert!(fits(&lines("ready after 12 ms, 3.4 MiB"), &lines("ready after 9 ms, 12 MiB")));
    assert!(fits(&lines("web ... ready"), &lines("web 1 of 2 ready")));
    assert!(fits(&lines("pid 4242"), &lines("pid 12345")));
    assert!(!fits(&lines("12 apples"), &lines("11 apples")));
    assert!(!fits(&lines("a\n..."), &lines("b")));
    assert!(!fits(&lines("web ... ready"), &lines("web starting")));
}
