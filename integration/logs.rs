//! What workers write, on its way through the daemon: whose it is, whole lines, nothing lost, and
//! the last of it when they fail.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{
    given::{Given, dump, kill},
    harness::{Builder, Daemon, Home, Stream, eventually_within, odd},
    site::reload,
    wrapped::{wrapped, write_script},
};

/// What it takes for a worker to count as ready at once, ...
const AT_ONCE: &str = "alive:1ms";

/// ... and what none of these ever does.
const NEVER: &str = "notify";

/// A daemon whose workers run a line of shell.
fn shell(logs: &str, ready: &str, line: &str) -> Builder {
    Daemon::run()
        .args(["--name", "web", "--logs", logs, "--ready", ready])
        .command(["sh", "-c", line])
}

/// The lines on one stream that begin with a prefix, without it.
fn behind(daemon: &Daemon, stream: Stream, prefix: &str) -> Vec<String> {
    let lines = daemon.lines().into_iter().filter(|line| line.stream == stream);
    lines.filter_map(|line| Some(line.text.strip_prefix(prefix)?.to_owned())).collect()
}

#[test]
fn each_line_stands_behind_its_worker_on_its_stream_and_all_line_up() {
    let line = "echo out $SHEPHERD_SLOT; echo err $SHEPHERD_SLOT >&2; exec sleep 1000";
    let daemon = shell("prefix", AT_ONCE, line).workers(11).start();
    for slot in 0..11 {
        let label = format!("web.{slot}");
        for word in ["out", "err"] {
            daemon.wait_line(|line| line == format!("{label:6} | {word} {slot}"), "a line");
        }
    }
    assert_eq!(behind(&daemon, Stream::Stdout, "web.10 | "), ["out 10"]);
    assert_eq!(behind(&daemon, Stream::Stderr, "web.10 | "), ["err 10"]);
    assert!(daemon.stop().success());
    daemon.assert_nothing_left();
}

#[test]
fn they_line_up_with_a_worker_whose_name_is_longer_than_any_before() {
    let line = "while :; do echo tick; sleep 0.1; done";
    let daemon = shell("prefix", AT_ONCE, line).workers(10).start();
    daemon.wait_line(|line| line == "web.9 | tick", "the last of ten");
    daemon.signal(Signal::SIGTTIN);
    daemon.wait_line(|line| line == "web.10 | tick", "the eleventh");
    daemon.wait_line(|line| line == "web.0  | tick", "a line of the first that lines up with it");
    assert!(daemon.stop().success());
}

#[test]
fn json_says_whose_a_line_is_and_when_it_came() {
    let line = "printf 'out \\377\\n'; echo err >&2; exec sleep 1000";
    let daemon = shell("json", AT_ONCE, line).start();
    let object = |message: &str| {
        let text = daemon.wait_line(|line| line.contains(message), "an object");
        let object: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        object
    };
    let out = object("\"out");
    let pid = daemon.wait_workers(1)[0];
    assert_eq!(out["message"], "out \u{fffd}");
    assert_eq!((&out["service"], &out["stream"]), (&"web".into(), &"stdout".into()));
    let numbers = ["slot", "worker", "pid", "generation"].map(|name| out[name].as_i64());
    assert_eq!(numbers, [Some(0), Some(1), Some(pid.into()), Some(1)]);
    let time = out["time"].as_str().expect("text");
    assert!(time.len() == "2026-01-31T12:00:00.123456Z".len() && time.ends_with('Z'), "{time}");
    let err = object("\"err");
    assert_eq!((&err["message"], &err["stream"]), (&"err".into(), &"stderr".into()));
    assert_eq!(err.get("truncated"), None);
    assert!(daemon.stop().success());
    let objects = daemon.lines().into_iter().filter(|line| line.stream == Stream::Stdout);
    assert!(objects.into_iter().all(|line| line.text.starts_with('{')), "stdout is the workers'");
}

#[test]
fn half_a_line_is_shown_after_a_while_and_goes_on_later() {
    let home = Home::new();
    let go = home.directory().join("go");
    let line = format!(
        "printf 'Password: '; until [ -e '{}' ]; do sleep 0.1; done; echo ok; exec sleep 1000",
        go.display()
    );
    for (logs, first, rest) in [
        ("prefix", "web.0 | Password: ", "web.0 + ok"),
        ("json", "\"message\":\"Password: \",\"truncated\":true}", "\"ok\",\"continued\":true}"),
    ] {
        let daemon = shell(logs, AT_ONCE, &line).start();
        daemon.wait_line(|line| line.ends_with(first), "the prompt");
        fs::write(&go, "").expect("written");
        daemon.wait_line(|line| line.ends_with(rest), "the answer");
        assert!(daemon.stop().success());
        fs::remove_file(&go).expect("removed");
    }
}

#[test]
fn a_last_line_without_an_end_is_whole() {
    let daemon = shell("json", AT_ONCE, "printf 'no end'; exit 0").start();
    daemon.wait_line(|line| line.ends_with("\"message\":\"no end\"}"), "the line");
    assert!(daemon.stop().success());
}

#[test]
fn a_mebibyte_without_an_end_comes_in_pieces_that_belong_together() {
    let program = "import signal\nprint('x' * (1 << 20) + '!', flush=True)\nsignal.pause()";
    let daemon = Daemon::run()
        .args(["--name", "web", "--logs", "prefix"])
        .command(["python3", "-c", program])
        .start();
    daemon.wait_line(|line| line.ends_with('!'), "the end of it");
    let first = behind(&daemon, Stream::Stdout, "web.0 | ");
    let rest = behind(&daemon, Stream::Stdout, "web.0 + ");
    assert_eq!((first.len(), rest.len()), (1, 64));
    assert_eq!(first[0].len() + rest.iter().map(String::len).sum::<usize>(), (1 << 20) + 1);
    assert!(daemon.stop().success());
}

/// A daemon whose stdout is a file.
fn into_file(home: &Home, line: &str) -> (Builder, PathBuf) {
    let path = home.directory().join("stdout");
    let redirected = format!("exec >'{}'\nexec \"$@\"", path.display());
    let builder = wrapped(&redirected)
        .args(["--name", "web", "--ready", "alive:1ms", "--logs", "prefix"])
        .command(["sh", "-c", line]);
    (builder, path)
}

#[test]
fn a_file_at_its_limit_costs_lines_and_nothing_else() {
    let home = Home::new();
    let path = home.directory().join("stdout");
    // In blocks of 512 or 1024 bytes, as the shell has it.
    let redirected = format!("exec >'{}'\nulimit -f 8\nexec \"$@\"", path.display());
    // 40 KB in lines, and then a word on the other stream.
    let line = "seq 10000 13999 | sed 's/$/ abc/'; echo all >&2; exec sleep 1000";
    let daemon = wrapped(&redirected)
        .args(["--name", "web", "--ready", "alive:1ms", "--logs", "prefix"])
        .command(["sh", "-c", line])
        .start();
    let told = |line: &str| line.contains("cannot write to stdout: File too large");
    daemon.wait_line(told, "the cause");
    daemon.wait_line(|line| line == "web.0 | all", "the worker, which goes on");
    assert!(daemon.stop().success());
    daemon.assert_nothing_left();
}

#[test]
fn bytes_that_are_no_text_pass_through_a_file_as_they_are() {
    let home = Home::new();
    let line = "printf 'a\\377\\0\\033[2J\\rb\\r\\n'; exec sleep 1000";
    let (builder, path) = into_file(&home, line);
    let daemon = builder.start();
    let bytes = daemon
        .eventually("the line", || fs::read(&path).ok().filter(|bytes| bytes.ends_with(b"\n")));
    assert_eq!(bytes, b"web.0 | a\xff\0\x1b[2J\rb\n");
    assert!(daemon.stop().success());
}

#[test]
fn everything_that_workers_write_while_they_stop_is_there() {
    let home = Home::new();
    let line = "trap 'i=0; while [ $i -lt 2000 ]; do echo bye $i; i=$((i+1)); done; exit 0' TERM; \
                echo up; while :; do sleep 0.1; done";
    let (builder, path) = into_file(&home, line);
    let daemon = builder.workers(3).start();
    daemon.eventually("three workers that trap", || {
        let text = fs::read_to_string(&path).ok()?;
        (text.matches("| up").count() == 3).then_some(())
    });
    assert!(daemon.stop().success());
    let text = fs::read_to_string(&path).expect("the file");
    for slot in 0..3 {
        let prefix = format!("web.{slot} | bye ");
        let numbers = text.lines().filter_map(|line| line.strip_prefix(&prefix)?.parse().ok());
        assert_eq!(numbers.collect::<Vec<u32>>(), (0..2000).collect::<Vec<u32>>());
    }
}

#[test]
fn what_a_worker_leaves_behind_is_heard_until_it_is_gone() {
    // The shell that is left ignores what it is asked, and speaks on.
    let line = "(trap '' TERM; while kill -0 $$; do sleep 0.1; done 2>/dev/null; \
                echo from the grave; exec sleep 1000) & sleep 1; exit 3";
    let daemon = shell("prefix", AT_ONCE, line).args(["--drain-timeout", "1s"]).start();
    daemon.wait_line(|line| line == "web.0 | from the grave", "the line");
    daemon.wait_line(|line| line.contains("killing worker 1 (web.0)"), "its end");
    assert!(daemon.stop().success());
    daemon.assert_nothing_left();
}

#[test]
fn a_worker_finds_pipes_that_wait_and_nothing_else() {
    let home = Home::new();
    let file = home.directory().join("dump");
    let daemon = Daemon::run().args(["--logs", "json"]).command(dump(&file)).start();
    let given = Given::wait(&daemon, &file);
    for number in [1, 2] {
        assert!(given.descriptors[&number].starts_with("pipe:"), "{:?}", given.descriptors);
        let info = fs::read_to_string(format!("/proc/{}/fdinfo/{number}", given.ids["pid"]));
        let info = info.expect("fdinfo");
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags");
        // O_WRONLY and O_LARGEFILE: no O_NONBLOCK.
        assert_eq!(i32::from_str_radix(flags.trim(), 8).expect("octal") & 0o4000, 0, "{info}");
    }
    assert_ne!(given.descriptors[&1], given.descriptors[&2]);
    let open: Vec<_> = given.descriptors.keys().copied().filter(|number| *number > 2).collect();
    // That which lists them is one of its own.
    assert!(open.len() <= 1, "{:?}", given.descriptors);
    assert!(daemon.stop().success());
}

/// The lines that are quoted below the first notice that `wanted` accepts.
fn quoted(daemon: &Daemon, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let lines = daemon.lines().into_iter().filter(|line| line.stream == Stream::Stderr);
    let mut lines = lines.skip_while(|line| !wanted(&line.text)).skip(1);
    let quoted = lines.by_ref().map_while(|line| Some(line.text.strip_prefix("    ")?.to_owned()));
    quoted.collect()
}

#[test]
fn a_worker_that_fails_is_shown_with_its_last_lines() {
    let line = "seq 30; printf '\\033[31mTraceback\\033[0m\\twhy\\033[2J\\n' >&2; exit 3";
    for logs in ["prefix", "json"] {
        let daemon = shell(logs, NEVER, line).start();
        let failed =
            |line: &str| line.contains("worker 1 (web.0) exited with code 3 before it was");
        daemon.wait_line(failed, "the failure");
        daemon.wait_line(|line| line.contains("worker 2 (web.0)"), "the next one");
        let quoted = quoted(&daemon, failed);
        assert_eq!(quoted.len(), 20, "{quoted:#?}");
        let words = "web.0 | Traceback\twhy\\u{1b}[2J";
        assert_eq!(quoted.iter().filter(|line| *line == words).count(), 1, "{quoted:#?}");
        assert!(quoted.contains(&"web.0 | 30".to_owned()), "{quoted:#?}");
        assert!(!quoted.contains(&"web.0 | 1".to_owned()), "{quoted:#?}");
        assert!(daemon.stop().success());
    }
}

#[test]
fn a_worker_that_is_late_or_killed_is_shown_with_its_last_lines_too() {
    let line = "echo waiting for the database; exec sleep 1000";
    let daemon = shell("prefix", NEVER, line).args(["--ready-timeout", "3s"]).start();
    let late = |line: &str| line.contains("worker 1 (web.0) was not ready within 3 s");
    daemon.wait_line(late, "that it is late");
    daemon.wait_line(|line| line.contains("worker 2 (web.0) started"), "the next one");
    assert_eq!(quoted(&daemon, late), ["web.0 | waiting for the database"]);
    assert!(daemon.stop().success());

    let daemon = shell("prefix", AT_ONCE, line).start();
    daemon.wait_line(|line| line.contains("is ready"), "ready");
    daemon.wait_line(|line| line.ends_with("database"), "its line");
    kill(daemon.wait_workers(1)[0]);
    let killed = |line: &str| line.contains("worker 1 (web.0) was ended by SIGKILL");
    daemon.wait_line(killed, "its end");
    daemon.wait_line(|line| line.contains("worker 2 (web.0) started"), "the next one");
    assert_eq!(quoted(&daemon, killed), ["web.0 | waiting for the database"]);
    assert!(daemon.stop().success());
}

#[test]
fn a_reload_that_is_aborted_shows_why() {
    let home = Home::new();
    let program = home.directory().join("server");
    write_script(&program, "#!/bin/sh\necho fine\nexec sleep 1000\n");
    let daemon = Daemon::run()
        .args(["--name", "web", "--ready", "alive:1s", "--logs", "prefix"])
        .command([&program])
        .start();
    daemon.wait_line(|line| line.contains("1 worker ready"), "ready");
    write_script(&program, "#!/bin/sh\necho SyntaxError: line 7 >&2\nexit 1\n");
    let outcome = reload(&daemon);
    assert!(outcome.contains("aborted: worker 2 (web.0) exited with code 1"), "{outcome}");
    let failed = |line: &str| line.contains("before it was ready; aborting the reload");
    assert_eq!(quoted(&daemon, failed), ["web.0 | SyntaxError: line 7"]);
    assert!(daemon.stop().success());
}

#[test]
fn what_passes_by_us_is_not_quoted() {
    let daemon = shell("inherit", NEVER, "echo out; exit 3").start();
    let failed = |line: &str| line.contains("worker 1 (web.0) exited with code 3");
    daemon.wait_line(failed, "the failure");
    daemon.wait_line(|line| line == "out", "its line, untouched");
    daemon.wait_line(|line| line.contains("worker 2 (web.0) started"), "the next one");
    assert!(quoted(&daemon, failed).is_empty());
    assert!(daemon.stop().success());
}

/// A daemon whose stderr is a file that `JOURNAL_STREAM` names, or another one if it lies.
fn with_journal(home: &Home, logs: &str, ready: &str, names: &str) -> (Builder, PathBuf) {
    let path = home.directory().join("journal");
    let line = format!(
        "exec 2>>'{}'\nJOURNAL_STREAM=$(stat -c %d:%i {names})\nexport JOURNAL_STREAM\nexec \"$@\"",
        path.display()
    );
    let builder = wrapped(&line).args(["--name", "web", "--ready", ready, "--logs", logs]);
    (builder, path)
}

fn wait_text(daemon: &Daemon, path: &Path, words: &str) -> String {
    daemon.eventually(words, || fs::read_to_string(path).ok().filter(|text| text.contains(words)))
}

#[test]
fn the_journal_gets_priorities_in_front_and_no_time() {
    let home = Home::new();
    let (builder, path) = with_journal(&home, "prefix", NEVER, "-L /proc/self/fd/2");
    let line = "echo '<3>bad' >&2; echo plain >&2; echo out; exit 3";
    let daemon = builder.command(["sh", "-c", line]).start();
    let text = wait_text(&daemon, &path, "worker 2 (web.0)");
    for line in text.lines() {
        assert!(line.starts_with('<') && line.get(2..3) == Some(">"), "{text}");
    }
    for line in
        ["<3>web.0 | bad", "<6>web.0 | plain", "<4>    web.0 | <3>bad", "<4>    web.0 | plain"]
    {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    assert!(text.contains("<4>worker 1 (web.0) exited with code 3"), "{text}");
    daemon.wait_line(|line| line == "web.0 | out", "stdout, which is not the journal");
    assert!(daemon.stop().success());
}

#[test]
fn a_worker_is_told_of_the_journal_where_it_writes_to_it() {
    for (logs, names, told) in [
        ("inherit", "-L /proc/self/fd/2", true),
        ("prefix", "-L /proc/self/fd/2", false),
        ("inherit", "/", false),
    ] {
        let home = Home::new();
        let (builder, path) = with_journal(&home, logs, AT_ONCE, names);
        let file = home.directory().join("dump");
        let daemon = builder.command(dump(&file)).start();
        let given = Given::wait(&daemon, &file);
        let variable = given.environment.get("JOURNAL_STREAM");
        assert_eq!(variable.is_some(), told, "{logs} {names}: {variable:?}");
        let text = wait_text(&daemon, &path, "1 worker ready");
        assert_eq!(text.starts_with("<6>"), names != "/", "{text}");
        assert!(daemon.stop().success());
    }
}

/// What the daemon and its workers show on a terminal, once `wanted` is there, and the daemon.
struct OnTerminal {
    daemon: Daemon,
    typescript: PathBuf,
    _home: std::sync::Arc<Home>,
}

fn on_a_terminal(
    ready: &str,
    options: &[&str],
    environment: &[(&str, &str)],
    line: &str,
) -> OnTerminal {
    let home = Home::new();
    let typescript = home.directory().join("typescript");
    let program = home.directory().join("worker");
    write_script(&program, &format!("#!/bin/sh\n{line}\n"));
    let script = format!(
        "exec script --quiet --flush --return --command \"exec $(printf '%s ' \"$@\")\" '{}'",
        typescript.display()
    );
    let mut builder = wrapped(&script).args(["--name", "web", "--ready", ready]);
    builder = builder.args(options).env("TERM", "xterm");
    for (name, value) in environment {
        builder = builder.env(name, value);
    }
    let daemon = builder.command([&program]).start();
    OnTerminal { daemon, typescript, _home: home }
}

impl OnTerminal {
    fn wait(&self, words: &str) -> String {
        self.daemon.eventually(words, || {
            let bytes = fs::read(&self.typescript).ok()?;
            Some(String::from_utf8_lossy(&bytes).into_owned()).filter(|text| text.contains(words))
        })
    }

    fn shepherd(&self) -> i32 {
        self.daemon.eventually("the daemon", || {
            self.daemon.children().into_iter().find(|pid| {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                name.trim() == "shepherd"
            })
        })
    }

    /// Stops the daemon and gives everything.
    fn stop(&self) -> String {
        let process = crate::harness::Process::open(self.shepherd()).expect("the daemon");
        process.signal(Signal::SIGTERM).expect("sent");
        self.daemon.wait_exit();
        self.daemon.assert_nothing_left();
        String::from_utf8_lossy(&fs::read(&self.typescript).expect("all")).into_owned()
    }
}

#[test]
fn on_a_terminal_lines_stand_behind_their_worker_in_its_colour() {
    let line = "printf '\\033[32mgreen\\n'; printf 'a\\rb\\033[Ac\\n'; exec sleep 1000";
    let terminal = on_a_terminal(AT_ONCE, &[], &[("NO_COLOR", "")], line);
    terminal.wait("\u{1b}[36mweb.0 |\u{1b}[0m \u{1b}[32mgreen\u{1b}[0m\r\n");
    terminal.wait("web.0 |\u{1b}[0m a\\rb\\u{1b}[Ac\r\n");
    terminal.stop();
}

#[test]
fn on_a_terminal_there_is_no_colour_of_ours_for_those_who_do_not_want_it() {
    let terminal = on_a_terminal(AT_ONCE, &[], &[("NO_COLOR", "1")], "echo plain; exec sleep 1000");
    terminal.wait("web.0 | plain\r\n");
    assert!(!terminal.stop().contains('\u{1b}'));
}

#[test]
fn on_a_terminal_inherit_gives_workers_the_terminal_itself() {
    let line = "[ -t 1 ] && [ -t 2 ] && echo a terminal; exec sleep 1000";
    let terminal = on_a_terminal(AT_ONCE, &["--logs", "inherit"], &[], line);
    let text = terminal.wait("a terminal\r\n");
    assert!(!text.contains("web.0 |"), "{text}");
    terminal.stop();
}

#[test]
fn on_a_terminal_the_last_lines_are_quoted_only_when_they_are_not_in_sight() {
    let line = "echo one of $SHEPHERD_WORKER; exit 3";
    let terminal = on_a_terminal(NEVER, &[], &[("NO_COLOR", "1")], line);
    let text = terminal.wait("worker 2 (web.0) exited");
    assert!(text.contains("web.0 | one of 1\r\n") && !text.contains("    web.0 |"), "{text}");
    terminal.stop();

    // Another one speaks in between.
    let line = "[ $SHEPHERD_SLOT = 1 ] && { sleep 1; echo two; exec sleep 1000; }; \
                echo one; sleep 2; kill -9 $$";
    let terminal = on_a_terminal(AT_ONCE, &["-n", "2"], &[("NO_COLOR", "1")], line);
    terminal.wait("web.0 | one\r\n");
    terminal.wait("    web.0 | one\r\n");
    terminal.stop();
}

#[test]
fn on_a_terminal_lines_of_an_older_worker_in_its_place_hide_the_last_lines_of_a_new_one() {
    let line = "[ $SHEPHERD_GENERATION = 1 ] && while :; do echo tick; sleep 0.02; done; \
                echo cause; sleep 0.5; exit 3";
    let terminal = on_a_terminal("alive:2s", &[], &[("NO_COLOR", "1")], line);
    terminal.wait("web: 1 worker ready");
    let process = crate::harness::Process::open(terminal.shepherd()).expect("the daemon");
    process.signal(Signal::SIGHUP).expect("sent");
    terminal.wait("web.0 | cause\r\n");
    terminal.wait("    web.0 | cause\r\n");
    terminal.stop();
}

#[test]
fn a_terminal_that_closes_stops_everything() {
    let line = "while :; do echo tick; sleep 0.05; done";
    let terminal = on_a_terminal(AT_ONCE, &[], &[], line);
    terminal.wait("tick");
    let shepherd = terminal.shepherd();
    // Without it nobody has the other end of the terminal.
    terminal.daemon.signal(Signal::SIGKILL);
    terminal.daemon.wait_exit();
    let gone = || (!Path::new(&format!("/proc/{shepherd}")).exists()).then_some(());
    let ended = eventually_within(Duration::from_secs(60), gone);
    assert!(ended.is_some(), "the daemon lives on without its terminal");
    terminal.daemon.assert_nothing_left();
}

#[test]
fn an_unknown_way_is_a_wrong_use() {
    let daemon = Daemon::run().args(["--logs", "syslog"]).command([odd()]).start();
    assert_eq!(daemon.wait_exit().code(), Some(2));
    daemon.wait_line(|line| line.contains("`inherit`, `prefix` and `json`"), "what there is");
}
