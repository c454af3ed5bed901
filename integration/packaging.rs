//! The systemd units that are shipped: systemd reads every line of them.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;

const UNITS: [&str; 2] = ["shepherd-web.service", "shepherd-web.socket"];

/// The units with programs that exist, in a directory of their own.
fn units(change: impl Fn(String) -> String) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd");
    for unit in UNITS {
        let text = fs::read_to_string(source.join(unit)).expect("a unit");
        let text = text
            .replace("/usr/local/bin/shepherd", env!("CARGO_BIN_EXE_shepherd"))
            .replace("/usr/local/bin/server", "/bin/true");
        fs::write(directory.path().join(unit), change(text)).expect("written");
    }
    directory
}

fn verify(directory: &TempDir, options: &[&str]) -> Output {
    Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(options)
        .args(UNITS.map(|unit| directory.path().join(unit)))
        .output()
        .expect("systemd-analyze; install systemd")
}

#[track_caller]
fn assert_silent(output: &Output, but: impl Fn(&str) -> bool) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}", output.status);
    let lines: Vec<&str> = text.lines().filter(|line| !but(line)).collect();
    assert!(lines.is_empty(), "{text}");
    assert!(text.lines().count() <= 1, "{text}");
}

#[test]
fn systemd_knows_every_line_of_the_units() {
    let output = verify(&units(|text| text), &[]);
    // systemd before 253 does not know the type, as the unit says.
    assert_silent(&output, |line| {
        line.ends_with("Failed to parse service type, ignoring: notify-reload")
    });
}

#[test]
fn older_systemd_knows_every_line_of_the_units_with_the_type_for_it() {
    let units = units(|text| text.replace("Type=notify-reload", "Type=notify"));
    let text = fs::read_to_string(units.path().join(UNITS[0])).expect("the service");
    assert!(text.contains("\nType=notify\n"), "nothing was replaced");
    let output = verify(&units, &["--recursive-errors=no"]);
    assert_silent(&output, |_| false);
}

#[test]
fn the_socket_of_the_unit_has_the_name_and_the_port_that_the_service_asks_for() {
    let read = |unit: &str| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd");
        fs::read_to_string(source.join(unit)).expect("a unit")
    };
    let (service, socket) = (read(UNITS[0]), read(UNITS[1]));
    let value = |key: &str| {
        socket
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap_or_else(|| panic!("no {key}"))
            .to_owned()
    };
    let asked = format!("-p {}={} ", value("FileDescriptorName="), value("ListenStream="));
    assert!(service.contains(&asked), "{asked}");
}

#[test]
fn the_command_of_the_unit_is_one_that_shepherd_understands() {
    let units = units(|text| text);
    let text = fs::read_to_string(units.path().join(UNITS[0])).expect("the service");
    let line = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command");
    let (options, _) = line.split_once(" -- ").expect("a program");
    let mut words = options.split_whitespace();
    // A program that is missing is found out after all options are read.
    let output = Command::new(words.next().expect("shepherd"))
        .args(words)
        .args(["--", "/no/such/program"])
        .output()
        .expect("shepherd");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("/no/such/program"), "{text}");
}

#[test]
fn the_manual_and_the_completions_are_those_of_this_version() {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    let generated = tempfile::tempdir().expect("a directory");
    let shepherd = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_shepherd")).args(arguments).output();
        let output = output.expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let manual = generated.path().join("man");
    let completions = generated.path().join("completions");
    fs::create_dir(&manual).expect("a directory");
    fs::create_dir(&completions).expect("a directory");
    shepherd(&["man", &manual.display().to_string()]);
    for (shell, file) in
        [("bash", "shepherd.bash"), ("zsh", "_shepherd"), ("fish", "shepherd.fish")]
    {
        fs::write(completions.join(file), shepherd(&["completions", shell])).expect("written");
    }
    for part in ["man", "completions"] {
        let names = |directory: &Path| {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
            names.sort();
            names
        };
        let (shipped, fresh) = (packaging.join(part), generated.path().join(part));
        if std::env::var_os("GENERATE").is_some() {
            let _ = fs::remove_dir_all(&shipped);
            fs::create_dir(&shipped).expect("a directory");
            for name in names(&fresh) {
                fs::copy(fresh.join(&name), shipped.join(&name)).expect("copied");
            }
        }
        assert_eq!(names(&shipped), names(&fresh), "run `just generate`");
        for name in names(&fresh) {
            let same = fs::read(shipped.join(&name)).ok() == fs::read(fresh.join(&name)).ok();
            assert!(same, "packaging/{part}/{} is old; run `just generate`", name.display());
        }
    }
}
