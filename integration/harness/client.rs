//! Runs a client to its end, with a deadline after which it is killed and the test fails.

use std::{
    io::Read,
    process::{Command, ExitStatus},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;

use super::pidfd::Process;

/// What a client command said.
#[derive(Debug)]
pub struct ClientOutput {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command whose stdout and stderr are pipes.
#[track_caller]
pub(super) fn run(mut command: Command, deadline: Duration) -> ClientOutput {
    let mut child = command.spawn().expect("a client");
    let process = match Process::open(i32::try_from(child.id()).expect("a pid")) {
        Ok(process) => process,
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            panic!("cannot open a pidfd: {error}");
        }
    };
    let stdout = read_in_background(child.stdout.take().expect("stdout is a pipe"));
    let stderr = read_in_background(child.stderr.take().expect("stderr is a pipe"));
    let ended = process.ends_within(deadline);
    if !ended {
        let _ = process.signal(Signal::SIGKILL);
    }
    let status = child.wait().expect("a client to reap");
    let text = |reader: thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
    };
    let output = ClientOutput { status, stdout: text(stdout), stderr: text(stderr) };
    assert!(ended, "{command:?} runs on after {deadline:?}: {output:?}");
    output
}

fn read_in_background(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}
