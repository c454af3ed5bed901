//! What a worker was given, as `odd dump` writes it down.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use crate::harness::{Daemon, odd};

#[derive(Debug, Default)]
pub struct Given {
    pub environment: BTreeMap<String, String>,
    /// `/proc/self/status`
    pub status: BTreeMap<String, String>,
    /// `/proc/self/limits`, by name: the rest of the line.
    pub limits: BTreeMap<String, String>,
    /// What each descriptor leads to.
    pub descriptors: BTreeMap<i32, String>,
    pub directory: String,
    /// pid, parent, session, group
    pub ids: BTreeMap<String, i32>,
}

/// The command of a worker that writes itself down in `file`.
pub fn dump(file: &Path) -> Vec<OsString> {
    vec![odd().into(), "dump".into(), file.into()]
}

impl Given {
    /// Waits for the file and reads it.
    #[track_caller]
    pub fn wait(daemon: &Daemon, file: &Path) -> Given {
        // It is renamed there when it is whole.
        let text = daemon.eventually("a worker's dump", || fs::read_to_string(file).ok());
        Given::parse(&text)
    }

    fn parse(text: &str) -> Given {
        let mut given = Given::default();
        let mut section = "";
        for line in text.lines() {
            if let Some(name) = line
                .strip_prefix('[')
                .and_then(|line| line.strip_suffix(']'))
            {
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
                "directory" => given.directory = line.to_owned(),
                "ids" => given
                    .ids
                    .extend(pair(' ').and_then(|(name, id)| Some((name, id.parse().ok()?)))),
                _ => {}
            }
        }
        given
    }

    #[track_caller]
    pub fn variable(&self, name: &str) -> &str {
        match self.environment.get(name) {
            Some(value) => value,
            None => panic!("there is no {name} in {:#?}", self.environment),
        }
    }

    /// A set of signals, such as `SigIgn`.
    #[track_caller]
    pub fn signals(&self, set: &str) -> u64 {
        let digits = &self.status[set];
        u64::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("{set} is `{digits}`"))
    }
}

/// The paths below a directory, for a message.
pub fn files_below(directory: &Path) -> Vec<PathBuf> {
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
