//! One server under load: started, reloaded, stopped. Whatever does not hold is a panic.

use std::{
    collections::BTreeSet,
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process,
    sync::Arc,
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{
    harness::{Address, Class, Daemon, Exchange, Home, Kind, Limits, Load, Report, get},
    known::Server,
};

/// As the table has it. In a network of our own nobody else wants it.
const PORT: u16 = 8000;
/// As the table has it.
const WORKERS: usize = 2;
/// Reloads unless RELOADS says otherwise.
const RELOADS: u32 = 2;
/// For each wait: longer than the drain timeout, after which shepherd kills.
const DEADLINE: Duration = Duration::from_secs(60);
/// Answers on new connections before the first reload and after each: old workers that go on, or
/// new ones that fail after a few requests, would show.
const ANSWERS: u64 = 200;
/// Requests when there is no load. After one, a worker that waits in accept(2) is as likely as not.
const LONELY: u32 = 10;

/// What a server did.
pub struct Outcome {
    /// What showed that its workers were ready.
    pub evidence: String,
    /// A connection for each request.
    pub new: Report,
    /// Connections that are kept.
    pub kept: Report,
    /// From each SIGHUP until all new workers were ready, as shepherd says it.
    pub reloads: Vec<String>,
}

/// Runs a server through all of it.
pub fn run(server: &Server) -> Outcome {
    let site = Site::new();
    site.release(1);
    let daemon = Daemon::run()
        .home(&site.home)
        .args(["--env-file".as_ref(), site.variables().as_os_str()])
        .args(&server.options)
        .command(&server.command)
        .directory(site.directory())
        .deadline(DEADLINE)
        .start();
    let all_ready = format!(": {WORKERS} workers ready");
    daemon.wait_line(|line| line.ends_with(&all_ready), &all_ready);
    let mut evidence: Vec<String> = Vec::new();
    note_evidence(&daemon, &mut evidence);

    // Two loads, so that their failures are told apart: a server may close connections that are
    // idle, and loses requests that cross this, but none on a new connection.
    let address = Address::from((Ipv4Addr::LOCALHOST, PORT));
    let new = Load::start(&address, [(Kind::New, 3)]);
    let kept = Load::start_with(Limits::default(), &address, [(Kind::kept_alive(), 3)]);
    new.wait_version("v1");
    new.wait_ok(ANSWERS);
    let mut reloads = Vec::new();
    let count = env::var("RELOADS").map_or(RELOADS, |text| text.parse().expect("a number"));
    for generation in 2..=count + 1 {
        reloads.push(reload(&daemon, &site, &new, generation));
        note_evidence(&daemon, &mut evidence);
    }
    let (new, kept) = (new.stop(), kept.stop());

    // A lonely connection wakes all that wait for one, and all but one are too late. That must not
    // make them miss the stop.
    for _ in 0..LONELY {
        get(address.clone(), "/").expect("an answer");
    }
    let status = daemon.stop();
    if status.code() != Some(0) {
        daemon.fail(&format!("the daemon ended with {status}"));
    }
    if daemon.count_lines(|line| line.contains(" killing worker ")) > 0 {
        daemon.fail("a worker did not stop by itself");
    }
    daemon.eventually("all processes to be gone", || strangers().is_empty().then_some(()));
    let answer = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)));
    assert!(answer.is_err(), "port {PORT} is open after the stop");
    judge(server, &daemon, &new, count);
    Outcome { evidence: evidence.join(", "), new, kept, reloads }
}

/// Fails if a new connection failed otherwise than by a close without an answer, and for most servers
/// then as well. Those that are known for it are forgiven one for each worker that stopped.
fn judge(server: &Server, daemon: &Daemon, new: &Report, reloads: u32) {
    let own: u64 = [Class::EofBeforeResponse, Class::ResetBeforeResponse]
        .map(|class| new.failed(class(Exchange::First)))
        .iter()
        .sum();
    let others = new.failures_total() - own;
    let stopped = u64::from(reloads) * WORKERS as u64;
    let own_max = if server.closes_unread() { stopped } else { 0 };
    if others > 0 || own > own_max {
        daemon.fail(&format!("new connections failed\n{new}"));
    }
}

/// Reloads under load; gives how long it took until the new workers were ready.
fn reload(daemon: &Daemon, site: &Site, load: &Load, generation: u32) -> String {
    let old_workers = workers(daemon);
    let old_version = format!("v{}", generation - 1);
    site.release(generation);
    let mark = daemon.mark();
    daemon.signal(Signal::SIGHUP);
    let is_outcome = |line: &str| line.contains(": reload ") && !line.contains(" begins: ");
    let outcome = daemon.wait_line_since(mark, is_outcome, "the outcome of a reload");
    let Some((_, took)) = outcome.split_once(": reload committed after ") else {
        daemon.fail(&format!("the reload failed: {outcome}"));
    };

    // Not by their environment: nginx writes its title over it.
    daemon.eventually("the old workers to be gone, and as many new ones", || {
        let workers = workers(daemon);
        let all_new = workers.len() == WORKERS && workers.is_disjoint(&old_workers);
        all_new.then_some(())
    });
    load.wait_version(&format!("v{generation}"));
    // The old workers are gone, but a client may not have counted their last answer yet.
    load.wait_ok(20);
    let answers = |report: &Report| report.versions.get(&old_version).copied();
    let before = load.snapshot();
    load.wait_ok(ANSWERS);
    let after = load.snapshot();
    if answers(&before) != answers(&after) {
        daemon.fail(&format!("{old_version} goes on\n{after}"));
    }
    took.split(": ").next().unwrap_or(took).to_owned()
}

/// The main processes of all workers: shepherd has no other children.
fn workers(daemon: &Daemon) -> BTreeSet<i32> {
    daemon.children().into_iter().collect()
}

/// All processes there are but the first and us: the sandbox has no others.
fn strangers() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("a proc file system").filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| ![1, process::id()].contains(pid)).collect()
}

/// Adds what showed that workers were ready, of all that became so.
fn note_evidence(daemon: &Daemon, evidence: &mut Vec<String>) {
    for line in daemon.lines() {
        let Some((_, rest)) = line.text.split_once(" is ready after ") else { continue };
        let Some((_, how)) = rest.split_once(": ") else { continue };
        if !evidence.iter().any(|known| known == how) {
            evidence.push(how.to_owned());
        }
    }
}

/// A copy of `site/`, whose version can be changed.
struct Site {
    home: Arc<Home>,
}

impl Site {
    fn new() -> Site {
        let site = Site { home: Home::new() };
        let directory = site.directory();
        fs::create_dir(&directory).expect("a directory");
        // nginx's workers are nobody, and find their temporary directories below it.
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o711)).expect("our directory");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/servers/site");
        for entry in fs::read_dir(source).expect("the site") {
            let entry = entry.expect("a file of the site");
            fs::copy(entry.path(), directory.join(entry.file_name())).expect("a copy");
        }
        site
    }

    /// From here on a worker that starts says that it is this version.
    fn release(&self, number: u32) {
        // The second: a line for each request would be all that a failure shows.
        let variables = format!("VERSION=v{number}\nUVICORN_ACCESS_LOG=false\n");
        replace(&self.variables(), &variables);
        replace(&self.directory().join("version.conf"), &format!("set $version v{number};\n"));
    }

    fn directory(&self) -> PathBuf {
        self.home.directory().join("site")
    }

    fn variables(&self) -> PathBuf {
        self.home.directory().join("variables")
    }
}

fn replace(path: &Path, text: &str) {
    let unfinished = path.with_extension("new");
    fs::write(&unfinished, text).expect("a file");
    fs::rename(&unfinished, path).expect("a file");
}
