//! The verbs that change something, and those that only look, one request each.

use crate::{
    cli::{ends, shepherd, web},
    harness::{Builder, Daemon, Home, free_port, http_rust},
};

fn serving() -> Builder {
    Daemon::run().workers(2).listen(free_port()).command(http_rust())
}

#[test]
fn scale_changes_the_number_of_the_only_service_or_of_a_named_one() {
    let daemon = web(serving());
    assert_eq!(shepherd(&daemon, "scale web=3", 0).stdout, "web: 3 workers wanted\n");
    assert_eq!(shepherd(&daemon, "scale +1", 0).stdout, "web: 4 workers wanted\n");
    assert_eq!(shepherd(&daemon, "scale -3", 0).stdout, "web: 1 worker wanted\n");
    daemon.wait_workers(1);
    for (words, code, told) in [
        ("scale 0", 2, "cannot scale `web`: 1 worker is the least"),
        ("scale -1", 2, "cannot scale `web`"),
        ("scale wbe=2", 1, "there is no service `wbe`; did you mean `web`?"),
        ("scale many", 2, "is no number of workers"),
    ] {
        let output = shepherd(&daemon, words, code);
        assert!(output.stderr.contains(told), "{words}: {output:#?}");
        assert_eq!(output.stdout, "", "{words}");
    }
    assert!(daemon.stop().success());
}

#[test]
fn stop_ends_the_daemon_and_its_name_is_free_when_it_returns() {
    let home = Home::new();
    for _ in 0..3 {
        let daemon = web(serving().home(&home));
        let output = shepherd(&daemon, "stop", 0);
        assert_eq!(output.stdout, format!("shepherd `web`, pid {}: stopped\n", daemon.pid()));
        // The next one takes the same name at once.
        let next = web(serving().home(&home));
        assert!(daemon.wait_exit().success());
        assert!(next.stop().success());
    }
}

#[test]
fn kill_sends_a_signal_to_one_worker_which_is_replaced() {
    let daemon = web(serving());
    assert_eq!(shepherd(&daemon, "kill 1 KILL", 0).stdout, "worker 1: sent SIGKILL\n");
    daemon.wait_line(|line| line.contains("worker 3 (web.0) is ready"), "the next one");
    for (words, code, told) in [
        ("kill 1", 1, "there is no worker 1; `shepherd status` shows those there are"),
        ("kill 2 NOPE", 2, "NOPE"),
        ("kill web.0", 2, "is no worker's number"),
    ] {
        let output = shepherd(&daemon, words, code);
        assert!(output.stderr.contains(told), "{words}: {output:#?}");
    }
    assert!(daemon.stop().success());
}

#[test]
fn events_are_shown_until_the_daemon_stops() {
    let daemon = web(serving());
    let lines = daemon.start_client(["events", "--since", "0", "--name", "web"]);
    let json = daemon.start_client(["events", "--json", "--since", "0", "--name", "web"]);
    shepherd(&daemon, "reload", 0);
    assert!(daemon.stop().success());
    let lines = ends(lines.wait(), 0);
    assert_eq!(lines.stderr, "shepherd: the daemon has stopped\n");
    assert!(lines.stdout.contains(" INFO  web: reload committed after "), "{lines:#?}");
    let json = ends(json.wait(), 0).stdout;
    let events: Vec<shepherd::control::wire::Event> =
        json.lines().map(|line| serde_json::from_str(line).expect("an event")).collect();
    assert!(events.iter().zip(1..).all(|(event, number)| event.number == number), "{json}");
    assert!(events.iter().any(|event| event.kind == "reload-committed"), "{json}");
    assert_eq!(lines.stdout.lines().count(), events.len());
}

#[test]
fn whoever_has_read_enough_ends_what_goes_on_without_a_word() {
    let daemon = web(serving());
    for (words, count) in [("status --watch --json", 2), ("events --since 0", 1)] {
        let shepherd = env!("CARGO_BIN_EXE_shepherd");
        let line = format!("'{shepherd}' {words} --name web | head -n {count}");
        let sh = daemon.builder().binary("sh").start_client(["-c", &line]);
        if words.starts_with("events") {
            // Its next line finds nobody.
            crate::cli::shepherd(&daemon, "reload", 0);
        }
        let output = ends(sh.wait(), 0);
        assert_eq!(output.stdout.lines().count(), count, "{output:#?}");
        assert_eq!(output.stderr, "", "{output:#?}");
    }
    assert!(daemon.stop().success());
}

#[test]
fn a_service_is_restarted_stopped_and_started_and_the_daemon_stays() {
    let daemon = web(serving());
    let before = daemon.workers();
    assert_eq!(
        shepherd(&daemon, "restart web", 0).stdout,
        "web: restarted, generation 2 with 2 workers\n"
    );
    let after = daemon.wait_workers(2);
    assert!(after.iter().all(|pid| !before.contains(pid)), "{before:?} {after:?}");
    assert_eq!(shepherd(&daemon, "stop web", 0).stdout, "web: stopped\n");
    assert_eq!(daemon.worker_processes(), []);
    let status = shepherd(&daemon, "status", 0).stdout;
    assert!(status.contains("web: stopped, 2 workers when it runs"), "{status}");
    let reload = shepherd(&daemon, "reload web", 1);
    assert!(reload.stderr.contains("it is stopped; start it"), "{reload:#?}");
    let started = shepherd(&daemon, "start web", 0).stdout;
    assert!(started.starts_with("web: started, generation "), "{started}");
    assert_eq!(daemon.wait_workers(2).len(), 2);
    for verb in ["restart", "stop", "start"] {
        let output = shepherd(&daemon, &format!("{verb} wbe"), 1);
        assert!(output.stderr.contains("there is no service `wbe`"), "{output:#?}");
    }
    let output = shepherd(&daemon, "restart wbe web", 1);
    assert!(output.stderr.contains("nothing was asked for web"), "{output:#?}");
    assert!(daemon.stop().success());
}
