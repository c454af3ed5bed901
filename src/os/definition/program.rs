//! Finds a program as execvp(3) would, and pins it. What stands in the way of the workers' user is
//! named; nothing is run.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat};
use nix::unistd::{AccessFlags, faccessat};

use super::DefinitionError;
use crate::protocol::script;

/// The most that is looked at of a program's head, as the kernel does (`BINPRM_BUF_SIZE`).
const HEAD_MAX: usize = 256;

/// A program that can be run.
pub(super) struct Found {
    /// Its file, pinned.
    pub(super) program: OwnedFd,
    /// The path by which it is run.
    pub(super) path: Vec<u8>,
    /// Whether the file runs even when the path leads elsewhere by then; a script's cannot.
    pub(super) pinned: bool,
    /// The beginning of its file, where that may be read.
    pub(super) head: Vec<u8>,
}

/// Where a program is looked for, and with whose rights; those of the thread that looks are meant.
pub(super) struct Search<'a> {
    pub(super) directory: &'a OwnedFd,
    /// The workers' user, where it is another.
    pub(super) whom: Option<&'a str>,
}

impl Search<'_> {
    /// Finds the program as execvp(3) would in that directory and with that `PATH`.
    pub(super) fn find(
        &self,
        name: &OsStr,
        path_variable: Option<&[u8]>,
    ) -> Result<Found, DefinitionError> {
        let shown = name.to_string_lossy().into_owned();
        if name.is_empty() {
            return Err(DefinitionError::NameEmpty);
        }
        if name.as_bytes().contains(&b'/') {
            return self.look_at(Path::new(name), &shown);
        }
        let default = b"/usr/local/bin:/usr/bin:/bin".as_slice();
        let mut worst = None;
        for entry in path_variable.unwrap_or(default).split(|&byte| byte == b':') {
            let entry = if entry.is_empty() { b".".as_slice() } else { entry };
            let candidate = Path::new(OsStr::from_bytes(entry)).join(name);
            match self.look_at(&candidate, &shown) {
                Ok(found) => return Ok(found),
                // As execvp(3): what is not there is passed over, what cannot be run is told in the
                // end, and what kept us from looking is told at once.
                Err(DefinitionError::Program { error, .. }) if is_passed_over(&error) => {}
                Err(error @ DefinitionError::Program { .. }) => return Err(error),
                Err(error) => worst = worst.or(Some(error)),
            }
        }
        Err(worst.unwrap_or(DefinitionError::NotInPath { program: shown }))
    }

    pub(super) fn look_at(&self, path: &Path, shown: &str) -> Result<Found, DefinitionError> {
        let program = || shown.to_owned();
        let failed = |error| DefinitionError::Program { program: program(), error };
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let file = match openat(self.directory, path, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::EACCES) if self.whom.is_some() => {
                return Err(self.closed(shown, &format!("enter {}", in_the_way(&self.full(path)))));
            }
            Err(errno) => return Err(failed(explain(errno, path, self.directory))),
        };
        let kind = fstat(&file).map_err(|errno| failed(errno.into()))?.st_mode;
        let mode = Mode::from_bits_truncate(kind);
        let kind = SFlag::from_bits_truncate(kind) & SFlag::S_IFMT;
        if kind != SFlag::S_IFREG {
            let kind = if kind == SFlag::S_IFDIR { "a directory" } else { "not a regular file" };
            return Err(DefinitionError::NotAFile { program: program(), kind });
        }
        if faccessat(self.directory, path, AccessFlags::X_OK, AtFlags::AT_EACCESS).is_err() {
            let by_others = mode.intersects(Mode::S_IXUSR | Mode::S_IXGRP | Mode::S_IXOTH);
            return Err(if self.whom.is_some() && by_others {
                self.closed(shown, "run it")
            } else {
                DefinitionError::NotExecutable { program: program() }
            });
        }
        let head = read_head(path, self.directory);
        let Some(interpreter) = script::interpreter(&head) else {
            let path = path.as_os_str().as_bytes().to_vec();
            return Ok(Found { program: file, path, pinned: true, head });
        };
        let interpreter_path = Path::new(OsStr::from_bytes(interpreter));
        let interpreter = || String::from_utf8_lossy(interpreter).into_owned();
        match faccessat(self.directory, interpreter_path, AccessFlags::X_OK, AtFlags::AT_EACCESS) {
            Ok(()) => {
                let path = pin_path(path);
                Ok(Found { program: file, path, pinned: false, head: head.clone() })
            }
            Err(Errno::EACCES) if self.whom.is_some() => {
                Err(self.closed(shown, &format!("run its interpreter `{}`", interpreter())))
            }
            Err(Errno::EACCES) => {
                let what = format!("its interpreter `{}` is not executable", interpreter());
                Err(DefinitionError::Unsound { program: program(), what })
            }
            Err(_) => Err(DefinitionError::NoInterpreter {
                program: program(),
                interpreter: interpreter(),
            }),
        }
    }

    fn closed(&self, program: &str, what: &str) -> DefinitionError {
        DefinitionError::ClosedProgram {
            program: program.to_owned(),
            whom: self.whom.unwrap_or_default().to_owned(),
            what: what.to_owned(),
        }
    }

    /// The path from the root on, for a message.
    fn full(&self, path: &Path) -> PathBuf {
        let directory = format!("/proc/self/fd/{}", self.directory.as_raw_fd());
        std::fs::read_link(directory).unwrap_or_default().join(path)
    }
}

/// Whether execvp(3) would look at the next entry of `PATH` after this: it says only that the file
/// is not there or not for us. The last three are how network file systems say so to glibc.
fn is_passed_over(error: &io::Error) -> bool {
    // Ours has a text and no number.
    error.kind() == io::ErrorKind::NotFound
        || matches!(
            error.raw_os_error().map(Errno::from_raw),
            Some(
                Errno::ENOTDIR
                    | Errno::EACCES
                    | Errno::ELOOP
                    | Errno::ENAMETOOLONG
                    | Errno::ESTALE
                    | Errno::ENODEV
                    | Errno::ETIMEDOUT
            )
        )
}

fn explain(errno: Errno, path: &Path, directory: &OwnedFd) -> io::Error {
    let is_link = || {
        fstatat(directory, path, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok_and(|found| {
            SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFLNK
        })
    };
    match errno {
        Errno::ENOENT if is_link() => {
            io::Error::new(io::ErrorKind::NotFound, "it is a symbolic link to nothing")
        }
        Errno::ENOENT => io::Error::new(
            io::ErrorKind::NotFound,
            "there is no such file; correct its path, or build it first",
        ),
        errno => errno.into(),
    }
}

/// The first directory on the way to `path` that may not be entered, for a message.
pub(super) fn in_the_way(path: &Path) -> String {
    let ways: Vec<&Path> = path.ancestors().collect();
    let is_closed = |way: &&&Path| {
        faccessat(AT_FDCWD, **way, AccessFlags::X_OK, AtFlags::AT_EACCESS) == Err(Errno::EACCES)
    };
    match ways.iter().rev().find(is_closed) {
        Some(&closed) if closed != path => format!("`{}`", closed.display()),
        Some(_) | None => "it".to_owned(),
    }
}

/// The path of a script with the symbolic links of its directories resolved: a worker started
/// between reloads runs the release that its generation began with. Its own name stays as it is,
/// since programs look at it.
fn pin_path(path: &Path) -> Vec<u8> {
    let pinned = match (path.is_absolute(), path.parent(), path.file_name()) {
        (true, Some(parent), Some(name)) => {
            std::fs::canonicalize(parent).map(|parent| parent.join(name)).ok()
        }
        (_, _, _) => None,
    };
    pinned.unwrap_or_else(|| path.to_owned()).into_os_string().into_vec()
}

/// The first bytes of the file; none when it may be run but not read.
fn read_head(path: &Path, directory: &OwnedFd) -> Vec<u8> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let Ok(file) = openat(directory.as_fd(), path, flags, Mode::empty()) else {
        return Vec::new();
    };
    let mut head = vec![0; HEAD_MAX];
    let count = File::from(file).read_at(&mut head, 0).unwrap_or(0);
    head.truncate(count);
    head
}

#[cfg(test)]
mod tests {
    use super::super::open_directory;
    use super::*;

    #[test]
    fn a_search_passes_over_what_is_not_there_and_stops_at_what_it_cannot_look_at() {
        let directory = open_directory(None, None).expect("a directory");
        let search = |path: &[u8]| {
            Search { directory: &directory, whom: None }.find(OsStr::new("sh"), Some(path))
        };
        let long = [b"/", "x".repeat(300).as_bytes(), b":/etc/passwd:/no/such:/bin"].concat();
        assert_eq!(search(&long).expect("found").path, b"/bin/sh");
        // As no descriptor left would, a zero in a path keeps it from being opened at all.
        let Err(error) = search(b"/\0:/bin") else { panic!("found") };
        assert!(error.to_string().contains("Invalid argument"), "{error}");
    }
}
