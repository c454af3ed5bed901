//! The ten mistakes of a first day: each message names the thing, the cause and the next step, and
//! all of them are kept as one snapshot.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::harness::free_port;

/// A directory with a configuration in it, if any, and with a runtime directory.
struct Place(TempDir);

impl Place {
    fn new(configuration: &str) -> Place {
        let place = Place(tempfile::tempdir().expect("a directory"));
        fs::create_dir(place.0.path().join("run")).expect("a runtime directory");
        if !configuration.is_empty() {
            fs::write(place.0.path().join("shepherd.yaml"), configuration).expect("written");
        }
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Types a command, and gives how that looks: it must end by itself.
    fn shows(&self, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_shepherd"))
            .args(arguments)
            .current_dir(self.path())
            .env("XDG_RUNTIME_DIR", self.path().join("run"))
            .env_remove("SHEPHERD_CONTROL")
            .output()
            .expect("it runs");
        let mut shown = format!("$ shepherd {}\n", arguments.join(" "));
        for bytes in [output.stdout, output.stderr] {
            shown.push_str(&String::from_utf8(bytes).expect("text"));
        }
        let code = output.status.code().expect("an exit code");
        let _ = writeln!(shown, "exit code {code}");
        shown.replace(&self.path().display().to_string(), "/tmp/place")
    }
}

fn misspelt_key() -> String {
    Place::new("services:\n  web:\n    comand: sh -c 'sleep 9'\n").shows(&["run"])
}

fn tab() -> String {
    Place::new("services:\n  web:\n\tcommand: sh\n").shows(&["check"])
}

fn wrong_unit() -> String {
    let place =
        "services:\n  web:\n    command: sh\n    drain_timeout: 30 seconds\n    ready_timeout: 5\n";
    Place::new(place).shows(&["check"])
}

fn port_taken() -> String {
    let port = free_port();
    let holder = TcpListener::bind(format!("127.0.0.1:{port}")).expect("a free port");
    let listen = format!("127.0.0.1:{port}");
    let shown = Place::new("").shows(&["run", "-p", &listen, "--", "sh"]);
    drop(holder);
    let own = std::process::id().to_string();
    let test = fs::read_to_string("/proc/self/comm").expect("our name");
    shown.replace(&port.to_string(), "8000").replace(&own, "4242").replace(test.trim(), "nginx")
}

fn two_services_on_one_port() -> String {
    let web = "  web:\n    command: sh\n    listen: 8000\n";
    let admin = "  admin:\n    command: sh\n    listen: 127.0.0.1:8000\n";
    Place::new(&format!("services:\n{web}{admin}")).shows(&["check"])
}

fn dependency_circle() -> String {
    let web = "  web:\n    command: sh\n    depends_on: agent\n";
    let agent = "  agent:\n    command: sh\n    depends_on: [web]\n";
    Place::new(&format!("services:\n{web}{agent}")).shows(&["check"])
}

fn unknown_user() -> String {
    Place::new("services:\n  web:\n    command: sh\n    user: www-dta\n").shows(&["check"])
}

fn missing_binary() -> String {
    Place::new("").shows(&["run", "--", "./sever"])
}

fn no_daemon() -> String {
    Place::new("").shows(&["reload", "--control", "control.sock"])
}

fn not_permitted() -> String {
    let place = Place::new("");
    let closed = place.path().join("control.sock");
    let _listener = UnixListener::bind(&closed).expect("a socket");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).expect("our file");
    if !nix::unistd::geteuid().is_root() {
        return place.shows(&["status", "--control", "control.sock"]);
    }
    // Root may everything, so somebody else has to ask.
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    let copy = place.path().join("shepherd");
    fs::copy(env!("CARGO_BIN_EXE_shepherd"), &copy).expect("a copy");
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "./shepherd", "status"])
        .args(["--control", "control.sock"])
        .current_dir(place.path())
        .output()
        .expect("setpriv");
    let said = String::from_utf8(output.stderr).expect("text");
    let code = output.status.code().expect("an exit code");
    format!("$ shepherd status --control control.sock\n{said}exit code {code}\n")
        .replace(&place.path().display().to_string(), "/tmp/place")
}

#[test]
fn each_of_ten_mistakes_is_told_with_its_cause_and_the_next_step() {
    let shown = [
        misspelt_key(),
        tab(),
        wrong_unit(),
        port_taken(),
        two_services_on_one_port(),
        dependency_circle(),
        unknown_user(),
        missing_binary(),
        no_daemon(),
        not_permitted(),
    ];
    insta::with_settings!({ snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("first_day", shown.join("\n"));
    });
}
