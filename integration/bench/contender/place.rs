//! A directory for a program of somebody else, and a user who may do no harm: as root, such a program
//! would own the machine.

use std::{ffi::OsString, fs, os::unix::fs::chown, path::PathBuf, sync::Arc};

use nix::unistd::geteuid;

use super::{Running, builder};
use crate::harness::{Builder, Home};

/// Debian's `nobody` and `nogroup`.
const NOBODY: u32 = 65_534;

/// A directory that goes with what runs in it.
pub struct Place {
    home: Arc<Home>,
    directory: PathBuf,
}

impl Place {
    /// A directory with these files, names and texts, in it.
    pub fn new(files: &[(&str, &str)]) -> Place {
        let home = Home::new();
        let directory = home.directory().join("place");
        fs::create_dir(&directory).expect("a directory");
        for (name, text) in files {
            fs::write(directory.join(name), text).expect("a file");
        }
        if geteuid().is_root() {
            chown(&directory, Some(NOBODY), Some(NOBODY)).expect("root may give files away");
        }
        Place { home, directory }
    }

    /// Runs a command in it as somebody else.
    pub fn run(&self, command: &[OsString]) -> Running {
        let words = unprivileged(command);
        let supervisor = self.builder().binary(&words[0]).start_other(&words[1..]);
        Running { supervisor, behind: Vec::new() }
    }

    /// A daemon in it.
    pub fn builder(&self) -> Builder {
        let home_variable = self.directory.clone();
        builder().home(&self.home).directory(&self.directory).env("HOME", home_variable)
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
