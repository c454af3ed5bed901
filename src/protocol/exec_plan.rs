//! What the trampoline is told, and what it tells back. Pure; it opens and runs nothing.
//!
//! A worker is started by running our own binary again: the trampoline. It reads an [`ExecPlan`],
//! sets everything up in ordinary code, and becomes the worker's program. On its outcome pipe it
//! writes the number of each stage as it enters it, [`Stage::Exec`] last, and an error number where
//! a stage fails. The pipe closes on exec, so its end after `Exec` is success, its end before is
//! death in that stage.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Everything that makes a process the worker it is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecPlan {
    /// The program's path; used when it still names the file that was found.
    pub path: Vec<u8>,
    /// The arguments, the name first.
    pub arguments: Vec<Vec<u8>>,
    /// The whole environment, except what only the process itself can know.
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// How many sockets it gets, from descriptor 3 on.
    pub sockets: u32,
    /// Its limits, each with the number of its resource, which is the reader's to understand, and
    /// its soft and hard value.
    pub limits: Vec<(u8, u64, u64)>,
    /// Its niceness, where it is not ours.
    pub nice: Option<i8>,
    /// Its mask of permissions, where it is not ours.
    pub umask: Option<u32>,
    /// Who it is, where it is not us.
    pub credentials: Option<Credentials>,
    /// Whether it has no capabilities.
    pub drops_capabilities: bool,
    /// Whether nothing that it runs may gain privileges.
    pub no_new_privileges: bool,
    /// The process with which this one ends, whatever happens to it; a worker outlives us.
    pub ends_with: Option<u32>,
    /// Whether to run the file that was found even when `path` names another one by now. Scripts
    /// are always run by path: their interpreter opens them by it.
    pub pinned: bool,
}

/// Whose rights a worker has, as numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// The user.
    pub user: u32,
    /// The group.
    pub group: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
}

impl ExecPlan {
    /// The plan as bytes.
    ///
    /// # Errors
    ///
    /// When a field is too large to be counted; no plan that fits into memory is.
    pub fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_stdvec(self)
    }

    /// The plan from bytes.
    ///
    /// # Errors
    ///
    /// When the bytes are no plan.
    pub fn decode(bytes: &[u8]) -> Result<ExecPlan, postcard::Error> {
        postcard::from_bytes(bytes)
    }
}

/// Where the trampoline finds its descriptors: the sockets from 3 on, then its own five.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    sockets: u32,
}

impl Layout {
    /// The first socket, see sd_listen_fds(3).
    pub const FIRST_SOCKET: u32 = 3;

    /// For so many sockets.
    #[must_use]
    pub fn new(sockets: u32) -> Layout {
        Layout { sockets }
    }

    /// The plan.
    #[must_use]
    pub fn plan(self) -> u32 {
        Layout::FIRST_SOCKET + self.sockets
    }

    /// The pipe for the outcome.
    #[must_use]
    pub fn outcome(self) -> u32 {
        self.plan() + 1
    }

    /// The working directory.
    #[must_use]
    pub fn directory(self) -> u32 {
        self.plan() + 2
    }

    /// The program's file.
    #[must_use]
    pub fn program(self) -> u32 {
        self.plan() + 3
    }

    /// Where it writes `0` to enter its cgroup; `/dev/null` where it stays in ours.
    #[must_use]
    pub fn cgroup(self) -> u32 {
        self.plan() + 4
    }

    /// The first descriptor that the trampoline was not given.
    #[must_use]
    pub fn end(self) -> u32 {
        self.plan() + 5
    }
}

/// A stage of the trampoline, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// Reading the plan.
    Plan = 1,
    /// Closing what is not meant for the worker.
    Descriptors = 2,
    /// Entering a cgroup of its own, before there is anything that could stay outside.
    Cgroup = 3,
    /// Becoming the leader of a session of its own.
    Session = 4,
    /// Setting limits, niceness and mask, some of which only we may.
    Limits = 5,
    /// Becoming the user.
    Identity = 6,
    /// Giving up capabilities, and the ways to get them back.
    Privileges = 7,
    /// Entering the working directory, as who we are by then.
    Directory = 8,
    /// Setting signals back to their defaults.
    Signals = 9,
    /// Becoming the program.
    Exec = 10,
}

impl Stage {
    const ALL: [Stage; 10] = [
        Stage::Plan,
        Stage::Descriptors,
        Stage::Cgroup,
        Stage::Session,
        Stage::Limits,
        Stage::Identity,
        Stage::Privileges,
        Stage::Directory,
        Stage::Signals,
        Stage::Exec,
    ];

    fn from_number(number: u8) -> Option<Stage> {
        Stage::ALL.into_iter().find(|&stage| stage as u8 == number)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Plan => "reading the plan",
            Stage::Descriptors => "closing descriptors",
            Stage::Cgroup => "entering its cgroup",
            Stage::Session => "making a session",
            Stage::Limits => "setting limits",
            Stage::Identity => "becoming the user",
            Stage::Privileges => "giving up privileges",
            Stage::Directory => "entering the directory",
            Stage::Signals => "resetting signals",
            Stage::Exec => "running the program",
        })
    }
}

/// The bytes that say "entering this stage".
#[must_use]
pub fn entering(stage: Stage) -> [u8; RECORD] {
    record(stage, 0)
}

/// The bytes that say "this stage failed with this error number".
#[must_use]
pub fn failed(stage: Stage, errno: i32) -> [u8; RECORD] {
    record(stage, errno)
}

/// The size of a record: the stage's number, then the error number, little-endian.
pub const RECORD: usize = 5;

fn record(stage: Stage, errno: i32) -> [u8; RECORD] {
    let [a, b, c, d] = errno.to_le_bytes();
    [stage as u8, a, b, c, d]
}

/// How the trampoline ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The program runs.
    Running,
    /// A stage failed.
    Failed(Stage, i32),
    /// It died in a stage, or before the first.
    Died(Option<Stage>),
}

/// Reads the outcome pipe, in pieces of any size.
#[derive(Debug, Clone, Default)]
pub struct OutcomeReader {
    partial: Vec<u8>,
    last: Option<Stage>,
    failure: Option<(Stage, i32)>,
}

impl OutcomeReader {
    /// Takes what was read from the pipe.
    pub fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.partial.push(byte);
            if let &[number, a, b, c, d] = self.partial.as_slice() {
                self.partial.clear();
                let errno = i32::from_le_bytes([a, b, c, d]);
                match (Stage::from_number(number), errno) {
                    (Some(stage), 0) => self.last = Some(stage),
                    (Some(stage), errno) => self.failure = self.failure.or(Some((stage, errno))),
                    (None, _) => {}
                }
            }
        }
    }

    /// What it comes to, once the pipe has ended.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match (self.failure, self.last) {
            (Some((stage, errno)), _) => Outcome::Failed(stage, errno),
            (None, Some(Stage::Exec)) => Outcome::Running,
            (None, last) => Outcome::Died(last),
        }
    }
}

/// The interpreter that a script's first line names, see execve(2). `None` when it is no script.
#[must_use]
pub fn interpreter(head: &[u8]) -> Option<&[u8]> {
    let line = head.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    // Only these are blanks to the kernel: a carriage return belongs to the name.
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = line.iter().position(|byte| !is_blank(byte))?;
    let path = line[start..].split(|byte| is_blank(byte) || *byte == 0).next()?;
    (!path.is_empty()).then_some(path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_end_of_the_pipe_means_what_came_before_it() {
        let read = |records: &[[u8; RECORD]]| {
            let mut reader = OutcomeReader::default();
            for record in records {
                reader.feed(record);
            }
            reader.outcome()
        };
        assert_eq!(read(&[]), Outcome::Died(None));
        assert_eq!(read(&[entering(Stage::Plan)]), Outcome::Died(Some(Stage::Plan)));
        assert_eq!(read(&[entering(Stage::Plan), entering(Stage::Exec)]), Outcome::Running);
        assert_eq!(
            read(&[entering(Stage::Exec), failed(Stage::Exec, 2)]),
            Outcome::Failed(Stage::Exec, 2)
        );
    }

    #[test]
    fn interpreters_are_told_as_the_kernel_reads_them() {
        assert_eq!(interpreter(b"#!/bin/sh\n"), Some(&b"/bin/sh"[..]));
        assert_eq!(interpreter(b"#! /usr/bin/env node\nx"), Some(&b"/usr/bin/env"[..]));
        assert_eq!(interpreter(b"#!/bin/sh -e"), Some(&b"/bin/sh"[..]));
        assert_eq!(interpreter(b"#! \t/bin/sh\t-e"), Some(&b"/bin/sh"[..]));
        assert_eq!(interpreter(b"#!/bin/sh\r\n"), Some(&b"/bin/sh\r"[..]));
        assert_eq!(interpreter(b"#!/bin/sh\0x"), Some(&b"/bin/sh"[..]));
        assert_eq!(interpreter(b"\x7fELF"), None);
        assert_eq!(interpreter(b"#! \t\n"), None);
        assert_eq!(interpreter(b"#!\n"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_one_outcome(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            at in 0usize..64,
        ) {
            let (head, tail) = bytes.split_at(at.min(bytes.len()));
            let mut pieces = OutcomeReader::default();
            pieces.feed(head);
            pieces.feed(tail);
            let mut whole = OutcomeReader::default();
            whole.feed(&bytes);
            prop_assert_eq!(pieces.outcome(), whole.outcome());
        }

        #[test]
        fn a_plan_survives_its_encoding(
            path in proptest::collection::vec(any::<u8>(), 0..20),
            arguments in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..20), 0..5),
            sockets in any::<u32>(),
            limits in proptest::collection::vec(any::<(u8, u64, u64)>(), 0..5),
            identity in any::<(u32, u32)>(),
            (nice, umask) in any::<(Option<i8>, Option<u32>)>(),
            (pinned, drops_capabilities, no_new_privileges) in any::<(bool, bool, bool)>(),
        ) {
            let environment = arguments.iter().map(|a| (a.clone(), path.clone())).collect();
            let (user, group) = identity;
            let credentials = pinned.then(|| Credentials { user, group, groups: vec![sockets] });
            let ends_with = pinned.then_some(sockets);
            let plan = ExecPlan {
                path,
                arguments,
                environment,
                sockets,
                limits,
                nice,
                umask,
                credentials,
                drops_capabilities,
                no_new_privileges,
                ends_with,
                pinned,
            };
            prop_assert_eq!(ExecPlan::decode(&plan.encode().unwrap()).unwrap(), plan);
        }

        #[test]
        fn bytes_that_are_no_plan_are_an_error_at_most(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = ExecPlan::decode(&bytes);
        }
    }
}
