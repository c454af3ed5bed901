//! What a process tells on its way to become a worker. Pure.
//!
//! On its outcome pipe it writes the number of each stage as it enters it, [`Stage::Exec`] last, and
//! an error number where a stage fails. The pipe closes on exec, so its end after `Exec` is success,
//! its end before is death in that stage.

use std::fmt;

/// A stage on the way, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// Placing what it is given, and closing what is not meant for it.
    Descriptors = 1,
    /// Entering a cgroup of its own, unless it was born there, before there is anything that could
    /// stay outside.
    Cgroup = 2,
    /// Becoming the leader of a session of its own.
    Session = 3,
    /// Setting limits, niceness and mask, some of which only we may.
    Limits = 4,
    /// Becoming the user.
    Identity = 5,
    /// Giving up capabilities, and the ways to get them back.
    Privileges = 6,
    /// Entering the working directory, as who we are by then.
    Directory = 7,
    /// Setting signals back to their defaults.
    Signals = 8,
    /// Becoming the program.
    Exec = 9,
}

impl Stage {
    const ALL: [Stage; 9] = [
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
            Stage::Descriptors => "placing descriptors",
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

/// How it ended.
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
        assert_eq!(read(&[entering(Stage::Session)]), Outcome::Died(Some(Stage::Session)));
        assert_eq!(read(&[entering(Stage::Session), entering(Stage::Exec)]), Outcome::Running);
        assert_eq!(
            read(&[entering(Stage::Exec), failed(Stage::Exec, 2)]),
            Outcome::Failed(Stage::Exec, 2)
        );
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
    }
}
