//! One command of the shell that checks a worker: how it is started, and what it says. It is no
//! child like a worker: it gets no sockets, its output comes to us, and it ends with us.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::read;

use super::cgroup::Leaf;
use super::output::Pipe;
use super::processes::Child;
use super::spawn::{self, Order, Plan, Spawned};
use crate::protocol::outcome::{Outcome, OutcomeReader};

/// The shell that runs it, as system(3) does.
const SHELL: &str = "/bin/sh";

/// How much of the output is kept: its first line is all that is told.
const KEPT_MAX: usize = 4096;

/// How many characters of that line are told.
const LINE_MAX: usize = 200;

/// How many pieces of output are read in a turn: a command that floods cannot starve the others.
const READS_MAX: usize = 16;

/// A command on its way.
#[derive(Debug)]
pub struct Command {
    output: Option<OwnedFd>,
    outcome: OwnedFd,
    kept: Vec<u8>,
}

impl Command {
    /// Starts it as `plan` says, with this command in the place of the plan's program. The process is
    /// to be reaped by the caller.
    ///
    /// # Errors
    ///
    /// The step that failed with its error, as for a worker.
    pub fn start(
        command: &str,
        plan: Plan<'_>,
        directory: &OwnedFd,
        leaf: Option<Leaf>,
    ) -> Result<(Command, Child), (&'static str, io::Error)> {
        let shell = open(SHELL, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| ("finding /bin/sh", errno.into()))?;
        let owner = plan.credentials.map(|who| (who.user, who.group));
        let output = Pipe::new(owner).map_err(|error| ("making a pipe for its output", error))?;
        let plan = Plan {
            path: SHELL.as_bytes(),
            arguments: ["sh", "-c", command].map(str::as_bytes).into(),
            ends_with: Some(std::process::id()),
            pinned: true,
            ..plan
        };
        let Spawned { pid, pidfd, outcome } = spawn::spawn(&Order {
            plan: &plan,
            sockets: Vec::new(),
            beside: Vec::new(),
            directory: directory.as_fd(),
            program: shell.as_fd(),
            output: Some([output.writer.as_fd(); 2]),
            cgroup: leaf.as_ref(),
        })?;
        let output = Some(output.reader);
        Ok((Command { output, outcome, kept: Vec::new() }, Child { pid, pidfd, leaf }))
    }

    /// Where its output comes from, until that has ended.
    #[must_use]
    pub fn output(&self) -> Option<&OwnedFd> {
        self.output.as_ref()
    }

    /// Reads what it has said. Gives the output when that has ended, to be watched no more.
    pub fn read(&mut self) -> Option<OwnedFd> {
        let output = self.output.as_ref()?;
        let mut buffer = [0; 4096];
        for _ in 0..READS_MAX {
            match read(output, &mut buffer) {
                Ok(0) => return self.output.take(),
                Ok(length) => {
                    let room = KEPT_MAX - self.kept.len();
                    let said = buffer.get(..length.min(room)).unwrap_or_default();
                    self.kept.extend_from_slice(said);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return None,
                Err(_) => return self.output.take(),
            }
        }
        None
    }

    /// After its exit: whether it ran at all.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let mut reader = OutcomeReader::default();
        spawn::read_outcome(&self.outcome, &mut reader);
        reader.outcome()
    }

    /// The first line that it said, if it said any.
    #[must_use]
    pub fn first_line(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.kept);
        let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
        Some(line.chars().take(LINE_MAX).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(bytes: &[u8]) -> Option<String> {
        let Pipe { reader, writer: write } = Pipe::new(None).expect("a pipe");
        let outcome = Pipe::new(None).expect("a pipe").reader;
        let mut command = Command { output: Some(reader), outcome, kept: Vec::new() };
        nix::unistd::write(&write, bytes).expect("written");
        assert!(command.read().is_none(), "it goes on");
        drop(write);
        assert!(command.read().is_some(), "it has ended");
        assert!(command.output().is_none() && command.kept.len() <= KEPT_MAX);
        command.first_line()
    }

    #[test]
    fn the_first_line_that_says_something_is_told_up_to_a_bound() {
        assert_eq!(said(b""), None);
        assert_eq!(said(b"\n \n"), None);
        assert_eq!(said(b"\n  no luck \nmore\n"), Some("no luck".to_owned()));
        assert_eq!(said(b"a\xffb"), Some("a\u{fffd}b".to_owned()));
        assert_eq!(said("x".repeat(20_000).as_bytes()), Some("x".repeat(LINE_MAX)));
    }
}
