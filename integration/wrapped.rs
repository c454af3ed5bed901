//! Daemons that are started by another program: one that changes what a process inherits, and then
//! becomes the daemon.

use std::{path::Path, process::Command};

use crate::harness::{Builder, Daemon, Home};

/// A builder whose daemon is started by a shell line, in which `"$@"` stands for the daemon's
/// command; with `exec` at its end the daemon has the pid that was started.
pub(crate) fn wrapped(line: &str) -> Builder {
    let home = Home::new();
    let path = home.directory().join("wrapper");
    let shepherd = env!("CARGO_BIN_EXE_shepherd");
    write_script(&path, &format!("#!/bin/sh\nset -- '{shepherd}' \"$@\"\n{line}\n"));
    Daemon::run().home(&home).binary(path)
}

/// Writes a program. Another process does it: while this one had the file open for writing, a
/// process forked by another test could keep it open, and it could not be executed (ETXTBSY).
pub(crate) fn write_script(path: &Path, text: &str) {
    let status = Command::new("sh")
        .args(["-c", "printf %s \"$2\" > \"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(path)
        .arg(text)
        .status()
        .expect("a shell");
    assert!(status.success(), "cannot write `{}`", path.display());
}
