//! Workers as they are seen from outside: what one was given, as `odd dump` writes it down or the
//! kernel shows it, and how one is ended.

#![expect(clippy::panic, reason = "a test fails by it")]

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::signal::Signal;

use crate::harness::{DEADLINE, Daemon, Process, odd};

#[derive(Debug, Default)]
pub(crate) struct Given {
    pub(crate) environment: BTreeMap<String, String>,
    /// `/proc/self/status`
    pub(crate) status: BTreeMap<String, String>,
    /// `/proc/self/limits`, by name: the rest of the line.
    pub(crate) limits: BTreeMap<String, String>,
    /// What each descriptor leads to.
    pub(crate) descriptors: BTreeMap<i32, String>,
    pub(crate) directory: String,
    /// pid, parent, session, group
    pub(crate) ids: BTreeMap<String, i32>,
}

/// The command of a worker that writes itself down in `file`.
pub(crate) fn dump(file: &Path) -> Vec<OsString> {
    vec![odd().into(), "dump".into(), file.into()]
}

impl Given {
    /// Waits for the file and reads it.
    #[track_caller]
    pub(crate) fn wait(daemon: &Daemon, file: &Path) -> Given {
        // It is renamed there when it is whole.
        let text = daemon.eventually("a worker's dump", || fs::read_to_string(file).ok());
        Given::parse(&text)
    }

    fn parse(text: &str) -> Given {
        let mut given = Given::default();
        let mut section = "";
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = name;
                continue;
            }
            let pair = |separator| {
                let (key, value) = line.split_once(separator)?;
                Some((key.to_owned(), value.trim().to_owned()))
            };
            match section {
                "environment" => given.environment.extend(pair('=')),
                "status" => given.status.extend(pair(':')),
                // The names have blanks in them; two blanks end one.
                "limits" => {
                    if let Some((name, rest)) = line.split_once("  ") {
                        given.limits.insert(name.to_owned(), rest.trim().to_owned());
                    }
                }
                "descriptors" => given.descriptors.extend(
                    pair(' ').and_then(|(number, target)| Some((number.parse().ok()?, target))),
                ),
                "directory" => line.clone_into(&mut given.directory),
                "ids" => given
                    .ids
                    .extend(pair(' ').and_then(|(name, id)| Some((name, id.parse().ok()?)))),
                _ => {}
            }
        }
        given
    }

    #[track_caller]
    pub(crate) fn variable(&self, name: &str) -> &str {
        let value = self.environment.get(name);
        let there = value.map(String::as_str);
        there.unwrap_or_else(|| panic!("there is no {name} in {:#?}", self.environment))
    }

    /// A set of signals, such as `SigIgn`.
    #[track_caller]
    pub(crate) fn signals(&self, set: &str) -> u64 {
        let digits = &self.status[set];
        u64::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("{set} is `{digits}`"))
    }
}

/// The environment that a process was started with.
pub(crate) fn environment(pid: i32) -> BTreeMap<String, String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).expect("an environment");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    text.split('\0')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The inode of a pidfd of the process, as another implementation finds it; none where such inodes
/// do not tell processes apart (before Linux 6.9).
pub(crate) fn pidfd_id(pid: i32) -> Option<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next()?, numbers.next()?);
    if version < (6, 9) {
        return None;
    }
    let program = "import os, sys; print(os.fstat(os.pidfd_open(int(sys.argv[1]))).st_ino)";
    let output =
        Command::new("python3").args(["-c", program, &pid.to_string()]).output().expect("python3");
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Kills a process and waits until it is dead: until then it may still take a connection, which it
/// would not answer.
#[track_caller]
pub(crate) fn kill(pid: i32) {
    let process = Process::open(pid).expect("the process");
    process.signal(Signal::SIGKILL).expect("it can be killed");
    assert!(process.ends_within(DEADLINE), "process {pid} outlives SIGKILL");
}

/// The paths below a directory, for a message.
pub(crate) fn files_below(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .flat_map(|entry| {
            let path = entry.path();
            if path.is_dir() && !path.is_symlink() {
                let mut below = files_below(&path);
                below.push(path);
                below
            } else {
                vec![path]
            }
        })
        .collect()
}
