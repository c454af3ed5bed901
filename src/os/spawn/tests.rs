//! Starting real processes, and how they fare.

use std::env;
use std::fs::{self, File};
use std::io::{PipeReader, Read, pipe};
use std::os::unix::fs::PermissionsExt;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::stat::fstat;
use nix::unistd::geteuid;

use super::*;
use crate::os::sys::{How, Whom};
use crate::protocol::outcome::{Outcome, Stage};

/// How long a process may take on a busy machine, in milliseconds.
const PATIENCE_MS: u16 = 60_000;

fn plan<'a>(path: &'a str, arguments: &[&'a str]) -> Plan<'a> {
    Plan {
        path: path.as_bytes(),
        arguments: arguments.iter().map(|argument| argument.as_bytes()).collect(),
        environment: [(b"A".as_slice(), b"1".as_slice().into())].into(),
        limits: Vec::new(),
        nice: None,
        umask: None,
        credentials: None,
        drops_capabilities: false,
        no_new_privileges: false,
        ends_with: None,
        pinned: false,
    }
}

fn open(path: &Path) -> File {
    File::open(path).expect("there")
}

/// Starts it and waits for its end: how it fared on the way, and how it ended.
fn run(
    plan: &Plan<'_>,
    directory: &File,
    sockets: &[&File],
    output: Option<&OwnedFd>,
) -> (Outcome, How) {
    let program = open(Path::new("/bin/sh"));
    let spawned = spawn(&Order {
        plan,
        sockets: sockets.iter().map(AsFd::as_fd).collect(),
        beside: Vec::new(),
        directory: directory.as_fd(),
        program: program.as_fd(),
        output: output.map(|output| [output.as_fd(); 2]),
        cgroup: None,
    })
    .expect("started");
    end(&spawned)
}

fn end(spawned: &Spawned) -> (Outcome, How) {
    // A process that another test is starting may have the other end of its pipe for a moment.
    for (watched, flags) in
        [(spawned.pidfd.as_fd(), PollFlags::POLLIN), (spawned.outcome.as_fd(), PollFlags::empty())]
    {
        let mut ended = [PollFd::new(watched, flags)];
        let count = poll(&mut ended, PATIENCE_MS);
        // One that hangs would hang whoever reads our output, too.
        let _ = count == Ok(1) || sys::pidfd_send_signal(&spawned.pidfd, libc::SIGKILL).is_ok();
        assert_eq!(count, Ok(1), "it does not end");
    }
    let ended = sys::reap(Whom::Pidfd(spawned.pidfd.as_fd())).expect("a child").expect("ended");
    assert_eq!(ended.pid, spawned.pid);
    let mut reader = OutcomeReader::default();
    assert!(read_outcome(&spawned.outcome, &mut reader), "it has told everything");
    (reader.outcome(), ended.how)
}

#[test]
fn threads_that_hold_the_allocators_locks_hang_no_process() {
    /// Enough that some are made while a lock is held.
    const STARTS: u32 = 200;
    if !is_alone() {
        return;
    }
    let done = AtomicBool::new(false);
    let root = open(Path::new("/"));
    let plan = plan("/bin/true", &["true"]);
    thread::scope(|scope| {
        for number in 0..4 {
            let done = &done;
            scope.spawn(move || {
                let mut kept: Vec<Vec<u8>> = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    // Most are too large for what a thread keeps to itself without a lock.
                    kept.push(vec![1; 512 << (kept.len() % 8)]);
                    if kept.len() > 64 + number {
                        kept.clear();
                    }
                }
            });
        }
        // However this ends, so do they.
        let _end = Sets(&done);
        for _ in 0..STARTS {
            let ended = run(&plan, &root, &[&root], None);
            assert_eq!(ended, (Outcome::Running, How::Code(0)));
        }
    });
}

#[test]
fn what_cannot_be_run_is_told_with_its_stage_and_error() {
    let root = open(Path::new("/"));
    let (outcome, how) = run(&plan("/no/such/program", &["x"]), &root, &[], None);
    assert_eq!(outcome, Outcome::Failed(Stage::Exec, libc::ENOENT));
    assert_eq!(how, How::Code(126));
    let (outcome, _) = run(&plan("/bin/true", &["x"]), &open(Path::new("/bin/sh")), &[], None);
    assert_eq!(outcome, Outcome::Failed(Stage::Directory, libc::ENOTDIR));
    let limits = vec!["nofile=1".parse().expect("a limit")];
    let (outcome, _) = run(&Plan { limits, ..plan("/bin/true", &["x"]) }, &root, &[], None);
    assert_eq!(outcome, Outcome::Running, "a limit on open files closes none");
}

#[test]
fn a_daemon_that_has_died_takes_no_start_along() {
    /// Enough that the daemon's end comes first in most.
    const STARTS: u32 = 20;
    if !is_alone() {
        return;
    }
    let root = open(Path::new("/"));
    let plan = plan("/bin/true", &["true"]);
    for _ in 0..STARTS {
        let Spawned { pidfd, outcome, .. } = spawn(&Order {
            plan: &plan,
            sockets: Vec::new(),
            beside: Vec::new(),
            directory: root.as_fd(),
            program: root.as_fd(),
            output: None,
            cgroup: None,
        })
        .expect("started");
        drop(outcome);
        assert_eq!(how_it_ends(&pidfd), How::Code(0));
    }
}

#[test]
fn a_copy_that_panics_ends_before_it_undoes_what_is_ours() {
    /// As a directory of the daemon is removed at its end, and its lock let go.
    struct Removes<'a>(&'a Path);
    impl Drop for Removes<'_> {
        fn drop(&mut self) {
            let _ = fs::remove_file(self.0);
        }
    }
    // It takes memory to panic.
    if !is_alone() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("ours");
    fs::write(&file, "").expect("written");
    let removes = Removes(&file);
    let (_, pidfd) =
        sys::clone_process(None, &mut (), |()| resume_unwind(Box::new(()))).expect("a copy");
    assert_eq!(how_it_ends(&pidfd), How::Code(101));
    assert!(file.exists());
    drop(removes);
}

#[test]
fn a_directory_is_entered_with_the_rights_of_the_user() {
    if !geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).expect("ours");
    let nobody = Credentials { user: 65_534, group: 65_534, groups: Vec::new() };
    let credentials = Some(&nobody);
    let plan = Plan { credentials, drops_capabilities: true, ..plan("/bin/true", &["x"]) };
    let (outcome, _) = run(&plan, &open(directory.path()), &[], None);
    assert_eq!(outcome, Outcome::Failed(Stage::Directory, libc::EACCES));
}

#[test]
fn a_zero_byte_is_refused_before_anything_is_started() {
    let root = open(Path::new("/"));
    let plan = plan("/bin/true", &["a\0b"]);
    let refused = spawn(&Order {
        plan: &plan,
        sockets: Vec::new(),
        beside: Vec::new(),
        directory: root.as_fd(),
        program: root.as_fd(),
        output: None,
        cgroup: None,
    });
    assert_eq!(refused.expect_err("a zero").0, "preparing its arguments");
}

#[test]
fn a_process_is_told_who_it_is_and_what_it_has() {
    let (reader, writer) = pipe().expect("a pipe");
    let root = open(Path::new("/"));
    // Not through a pipe: the shell may still hold an end of it while it is looked at.
    let script = "echo $$ $LISTEN_PID ${LISTEN_PIDFDID-none} $A; ls -m /proc/$$/fd; pwd";
    let plan = plan("/bin/sh", &["sh", "-c", script]);
    let spawned = spawn(&Order {
        plan: &plan,
        sockets: vec![root.as_fd(); 2],
        beside: Vec::new(),
        directory: root.as_fd(),
        program: root.as_fd(),
        output: Some([writer.as_fd(); 2]),
        cgroup: None,
    })
    .expect("started");
    drop(writer);
    let said = read(reader);
    let id = if has_pidfd_ids() {
        fstat(&spawned.pidfd).expect("its inode").st_ino.to_string()
    } else {
        "none".to_owned()
    };
    assert_eq!(end(&spawned), (Outcome::Running, How::Code(0)));
    let pid = spawned.pid;
    assert_eq!(said, format!("{pid} {pid} {id} 1\n0, 1, 2, 3, 4\n/\n"));
}

#[test]
fn nobody_is_told_of_sockets_who_gets_none() {
    let (reader, writer) = pipe().expect("a pipe");
    let root = open(Path::new("/"));
    let script = "echo ${LISTEN_PID-none} ${LISTEN_PIDFDID-none}";
    let (outcome, _) =
        run(&plan("/bin/sh", &["sh", "-c", script]), &root, &[], Some(&writer.into()));
    assert_eq!(outcome, Outcome::Running);
    assert_eq!(read(reader), "none none\n");
}

/// Waits for the end of a process whose outcome nobody reads.
fn how_it_ends(pidfd: &OwnedFd) -> How {
    let count = poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PATIENCE_MS);
    assert_eq!(count, Ok(1), "it does not end");
    sys::reap(Whom::Pidfd(pidfd.as_fd())).expect("a child").expect("ended").how
}

/// Says at its own end that all is done.
struct Sets<'a>(&'a AtomicBool);

impl Drop for Sets<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a test once more in a process of its own, and says there that it is so: so many copies of
/// this one would hold for a moment what other tests close and bind again.
fn is_alone() -> bool {
    const ALONE: &str = "SHEPHERD_TEST_ALONE";
    if env::var_os(ALONE).is_some() {
        return true;
    }
    let test = thread::current().name().expect("that of the test").to_owned();
    let mut command = Command::new(env::current_exe().expect("this program"));
    // One arena, hence one lock, for the threads of glibc.
    command.args([test.as_str(), "--exact"]).env("MALLOC_ARENA_MAX", "1");
    let output = command.env(ALONE, "").output().expect("runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains(" 1 passed;"), "{said}");
    false
}

/// Waits for the end of the pipe: a process that another test is starting may have its writer for a
/// moment.
fn read(mut reader: PipeReader) -> String {
    let mut said = String::new();
    reader.read_to_string(&mut said).expect("text");
    said
}
