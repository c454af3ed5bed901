//! A directory for a program of somebody else, and a user who may do no harm: as root, such a program
//! would own the machine.

use std::{ffi::OsString, fs, os::unix::fs::chown, path::PathBuf};

use nix::unistd::geteuid;

use super::{Running, builder};
use crate::harness::Builder;

/// Debian's `nobody` and `nogroup`.
const NOBODY: u32 = 65_534;

/// A directory that goes with what runs in it.
pub struct Place {
    builder: Builder,
    directory: PathBuf,
}

impl Place {
    /// A directory with these files, names and texts, in it.
    pub fn new(files: &[(&str, &str)]) -> Place {
        let builder = builder();
        let directory = builder.home_directory().join("place");
        fs::create_dir(&directory).expect("a directory");
        if geteuid().is_root() {
            chown(&directory, Some(NOBODY), Some(NOBODY)).expect("root may give files away");
        }
        let builder = builder.directory(&directory).env("HOME", &directory);
        let place = Place { builder, directory };
        for (name, text) in files {
            place.write(name, text);
        }
        place
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// One more file.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file");
    }

    /// A copy of a program, which may be where only root gets to.
    pub fn copy(&self, program: &OsString, name: &str) {
        fs::copy(program, self.path(name)).expect("a copy");
    }

    /// Runs a command in it as somebody else.
    pub fn run(&self, command: &[OsString]) -> Running {
        let words = unprivileged(command);
        let supervisor = self.builder().binary(&words[0]).start_other(&words[1..]);
        Running { supervisor, behind: Vec::new() }
    }

    /// A daemon in it.
    pub fn builder(&self) -> Builder {
        self.builder.clone()
    }
}

/// The command, run by a user who owns nothing, if we are root.
pub fn unprivileged(command: &[OsString]) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    if geteuid().is_root() {
        words.push("setpriv".into());
        words.extend([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")].map(Into::into));
        words.extend(["--clear-groups", "--no-new-privs"].map(Into::into));
    }
    words.extend_from_slice(command);
    words
}
