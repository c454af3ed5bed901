//! Runs a client, with a deadline after which it is killed and the test fails.

use std::{
    io::Read,
    process::{Child, Command, ExitStatus},
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

/// A client that runs; killed when it is dropped.
pub struct Client {
    words: String,
    deadline: Duration,
    child: Child,
    process: Process,
    stdout: Option<thread::JoinHandle<Vec<u8>>>,
    stderr: Option<thread::JoinHandle<Vec<u8>>>,
}

impl Client {
    /// Starts a command whose stdout and stderr are pipes.
    #[track_caller]
    pub(super) fn start(mut command: Command, deadline: Duration) -> Client {
        let words = format!("{command:?}");
        let mut child = command.spawn().expect("a client");
        let process = match Process::open(i32::try_from(child.id()).expect("a pid")) {
            Ok(process) => process,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("cannot open a pidfd: {error}");
            }
        };
        let stdout = child.stdout.take().map(read_in_background);
        let stderr = child.stderr.take().map(read_in_background);
        Client { words, deadline, child, process, stdout, stderr }
    }

    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal).expect("a client that runs");
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(mut self) -> ClientOutput {
        let ended = self.process.ends_within(self.deadline);
        if !ended {
            let _ = self.process.signal(Signal::SIGKILL);
        }
        let status = self.child.wait().expect("a client to reap");
        let text = |reader: Option<thread::JoinHandle<Vec<u8>>>| {
            let bytes = reader.and_then(|reader| reader.join().ok());
            String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
        };
        let (stdout, stderr) = (text(self.stdout.take()), text(self.stderr.take()));
        let output = ClientOutput { status, stdout, stderr };
        assert!(ended, "{} runs on after {:?}: {output:?}", self.words, self.deadline);
        output
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

fn read_in_background(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}
