//! A proxy in front is told which slots are ready, before anybody there is asked to stop.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::sys::signal::Signal;

use crate::{
    harness::{Builder, Daemon, Home, Port, Process, free_ports, http_rust},
    mistakes::{USAGE, refused},
    site::{reload_well, stop_well, wait_only_generation, wait_serving},
};

/// A service with a port a slot, and the proxy's file.
struct Front {
    home: Arc<Home>,
    ports: Vec<Port>,
}

impl Front {
    fn new() -> Front {
        Front { home: Home::new(), ports: free_ports(4) }
    }

    /// The proxy is this command; `LOG` in it is the file of [`Front::told`].
    fn run(&self, workers: usize, proxy: &str) -> Builder {
        self.run_with(workers, proxy, &self.path("web.upstreams"))
    }

    fn run_with(&self, workers: usize, proxy: &str, path: &Path) -> Builder {
        let proxy = proxy.replace("LOG", &self.path("log").display().to_string());
        let file = format!("nginx:{}", path.display());
        Daemon::run()
            .home(&self.home)
            .workers(workers)
            .listen(format!("127.0.0.1:{}+{{slot}}", self.ports[0]))
            .args(["--upstreams", &file, "--upstreams-reload", &proxy])
            .command(http_rust())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.directory().join(name)
    }

    /// The servers that the file names.
    fn file(&self) -> Vec<String> {
        servers(&fs::read_to_string(self.path("web.upstreams")).unwrap_or_default())
    }

    /// What the proxy was told, one round after the other.
    fn told(&self) -> Vec<Vec<String>> {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        log.split_terminator("---\n").map(servers).collect()
    }

    /// Lines of nginx for these slots.
    fn lines(&self, slots: &[usize]) -> Vec<String> {
        slots.iter().map(|&slot| format!("server 127.0.0.1:{};", self.ports[slot])).collect()
    }

    #[track_caller]
    fn wait_file(&self, daemon: &Daemon, slots: &[usize]) {
        let lines = self.lines(slots);
        let what = format!("{lines:?} in the file");
        daemon.eventually(&what, || (self.file() == lines).then_some(()));
    }

    #[track_caller]
    fn wait_told(&self, daemon: &Daemon, slots: &[usize]) {
        let lines = self.lines(slots);
        let what = format!("{lines:?} to be told");
        daemon.eventually(&what, || (self.told().last() == Some(&lines)).then_some(()));
    }
}

fn servers(text: &str) -> Vec<String> {
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

/// Keeps what it was told, after a while.
const SLOW: &str = "sleep 0.3; { cat \"$SHEPHERD_UPSTREAMS\"; echo ---; } >> LOG";

#[test]
fn the_proxy_is_told_of_each_change_and_of_a_stop_before_the_signal() {
    let front = Front::new();
    let daemon = front.run(2, SLOW).start();
    wait_serving(&daemon, 2);
    front.wait_told(&daemon, &[0, 1]);
    daemon.signal(Signal::SIGTTIN);
    front.wait_told(&daemon, &[0, 1, 2]);

    let mark = daemon.mark();
    daemon.signal(Signal::SIGTTOU);
    let asked = daemon.wait_line_since(mark, |line| line.contains(".2) is to stop; "), "the order");
    assert!(asked.ends_with("; telling the proxy in front first"), "{asked}");
    daemon.wait_line_since(mark, |line| line.contains("stopping worker"), "the stop signal");
    // Its command had ended by then.
    assert_eq!(front.told().last(), Some(&front.lines(&[0, 1])));
    let path = front.path("web.upstreams");
    let mode = fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o644);

    // Both generations of a slot share its socket: there is nothing to tell.
    let rounds = front.told().len();
    reload_well(&daemon);
    wait_only_generation(&daemon, 2, 2);
    assert_eq!(front.told().len(), rounds);

    stop_well(&daemon);
    let down = format!("server 127.0.0.1:{} down;", front.ports[0]);
    assert_eq!((front.file(), front.told().last()), (vec![down.clone()], Some(&vec![down])));
    let all = fs::read_dir(front.home.directory()).expect("listed").filter_map(Result::ok);
    let ours = all.filter(|entry| entry.file_name().to_string_lossy().starts_with("web"));
    assert_eq!(ours.count(), 1, "nothing half-written is left");
}

#[test]
fn a_crash_is_told_of_and_so_is_the_next_worker() {
    let front = Front::new();
    // Not ready before the crash was told.
    let gate = front.path("gate");
    let wait = format!("while [ -e '{}' ]; do sleep 0.02; done; exec \"$@\"", gate.display());
    let mut command = vec!["sh".into(), "-c".into(), wait.into(), "web".into()];
    command.extend(http_rust());
    let daemon = front.run(2, SLOW).command(command).start();
    wait_serving(&daemon, 2);
    front.wait_told(&daemon, &[0, 1]);
    let (mark, told) = (daemon.mark(), front.told().len());
    fs::write(&gate, "").expect("a file");
    let victim = daemon.worker_processes().into_iter().find(|it| it.slot.as_deref() == Some("1"));
    let victim = victim.expect("slot 1 has a worker").pid;
    Process::open(victim).expect("it lives").signal(Signal::SIGKILL).expect("it is ours");
    daemon.wait_line_since(mark, |line| line.ends_with("upstreams: slot 0 is ready"), "the crash");
    let alone = front.lines(&[0]);
    let told = || front.told().split_off(told);
    daemon.eventually("the crash to be told", || told().contains(&alone).then_some(()));
    fs::remove_file(&gate).expect("it is there");
    let both = front.lines(&[0, 1]);
    daemon.eventually("the next worker", || (told().last() == Some(&both)).then_some(()));
    stop_well(&daemon);
}

#[test]
fn a_command_that_fails_is_told_of_with_what_it_says_and_stops_nothing() {
    let front = Front::new();
    let daemon = front.run(2, "echo no such proxy >&2; exit 3").start();
    wait_serving(&daemon, 2);
    let failed = "` exited with code 3: no such proxy; trying again in ";
    let line = daemon.wait_line(|line| line.contains(failed), "the failure");
    assert!(line.contains(": upstreams: `echo no such proxy") && line.contains("ERROR"), "{line}");
    front.wait_file(&daemon, &[0, 1]);
    daemon.signal(Signal::SIGTTOU);
    daemon.wait_workers(1);
    front.wait_file(&daemon, &[0]);
    stop_well(&daemon);
}

#[test]
fn a_command_that_hangs_is_killed_and_not_waited_for() {
    let front = Front::new();
    let daemon = front.run(1, "sleep 1000 & sleep 1000").start();
    wait_serving(&daemon, 1);
    let late = "upstreams: the proxy was not told within 10 s, and is not waited for; trying ";
    daemon.wait_line(|line| line.contains(late), "that it hangs");
    // With one that hangs: it is neither waited for twice nor left behind.
    daemon.signal(Signal::SIGQUIT);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    daemon.assert_nothing_left();
}

#[test]
fn a_file_that_cannot_be_written_is_told_of_and_written_once_it_can_be() {
    let front = Front::new();
    let directory = front.path("proxy");
    let builder = front.run_with(1, SLOW, &directory.join("web.upstreams"));
    let daemon = builder.start();
    let cannot =
        format!("upstreams: cannot write `{}/web.upstreams`: No such", directory.display());
    daemon.wait_line(|line| line.contains(&cannot), &cannot);
    fs::create_dir(&directory).expect("a directory");
    front.wait_told(&daemon, &[0]);
    stop_well(&daemon);
}

#[test]
fn upstreams_need_a_socket_a_slot_and_a_command() {
    let home = Home::new();
    let file = format!("haproxy:{}", home.directory().join("web.cfg").display());
    let run = || Daemon::run().home(&home).command(http_rust()).args(["--upstreams", &file]);
    let reload = ["--upstreams-reload", "true"];
    refused(run().listen("127.0.0.1:0"), USAGE, &["--upstreams-reload <COMMAND>"]);
    let needed = "there is no TCP or unix socket a slot; add `-p 8001+{slot}`";
    refused(run().listen("127.0.0.1:0").args(reload), USAGE, &[needed]);
}

#[test]
fn another_file_is_told_once_its_version_serves_and_not_before() {
    let front = Front::new();
    let home = &front.home;
    let file = home.directory().join("shepherd.yaml");
    let write = |command: &str, upstreams: &str| {
        let path = front.path(upstreams);
        let text = format!(
            "services:\n  web:\n    command: {command}\n    workers: 2\n    \
             listen: '127.0.0.1:{}+{{slot}}'\n    \
             upstreams: {{format: nginx, path: {}, reload: 'true'}}\n",
            front.ports[0],
            path.display()
        );
        fs::write(&file, text).expect("a file");
    };
    let http = http_rust().remove(0).to_string_lossy().into_owned();
    let told = |name: &str| servers(&fs::read_to_string(front.path(name)).unwrap_or_default());
    write(&http, "web.upstreams");
    let daemon = Daemon::run().home(home).args(["-c".as_ref(), file.as_os_str()]).start();
    wait_serving(&daemon, 2);
    front.wait_file(&daemon, &[0, 1]);

    write("'false'", "other.upstreams");
    let mark = daemon.mark();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_line_since(mark, |line| line.contains("aborted"), "the abort");
    // The old version serves on, and so does what it says of the proxy.
    daemon.signal(Signal::SIGTTIN);
    front.wait_file(&daemon, &[0, 1, 2]);
    assert!(!front.path("other.upstreams").exists(), "told of a version that was aborted");

    write(&http, "other.upstreams");
    reload_well(&daemon);
    let lines = front.lines(&[0, 1, 2]);
    daemon.eventually("the other file", || (told("other.upstreams") == lines).then_some(()));
    stop_well(&daemon);
}
