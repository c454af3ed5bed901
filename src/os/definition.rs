//! Reads what a generation of a service runs: environment files, user, directory and program, as
//! they are at this moment. What was read is pinned, so that a worker started a month later runs the
//! same. What only the worker will use is looked for with its rights: what these do not allow is a
//! mistake that is told before any worker is started.

mod program;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, faccessat};
use thiserror::Error;

use super::identity::{Identity, IdentityError};
use super::limits::{self, LimitError};
use crate::config::env_file::{self, EnvFileError};
use crate::config::identity::{self as wanted, Limit};
use crate::config::service::Source;
use crate::config::values::Handoff;
use crate::protocol::listen_fds;
use crate::protocol::runtime::{Runs, runs};
use program::{Search, in_the_way};

/// What was read.
#[derive(Debug)]
pub struct Definition {
    /// The directory, pinned.
    pub directory: OwnedFd,
    /// The program's file, pinned.
    pub program: OwnedFd,
    /// The path by which it is run.
    pub path: Vec<u8>,
    /// Whether the file runs even when the path leads elsewhere by then; a script's cannot.
    pub pinned: bool,
    /// Its arguments, the name first.
    pub arguments: Vec<Vec<u8>>,
    /// Its environment, less what belongs to a single worker.
    pub environment: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Who runs it.
    pub identity: Identity,
    /// Its limits, as far as they are not ours.
    pub limits: Vec<Limit>,
    /// Its niceness, where it is not ours.
    pub nice: Option<i8>,
    /// Its mask of permissions, where it is not ours.
    pub umask: Option<u32>,
    /// Whether nothing that it runs may gain privileges.
    pub no_new_privileges: bool,
    /// Whether its workers have a channel for messages.
    pub messages: bool,
    /// A program of Node that keeps the channel from what it starts.
    pub wrapper: Option<String>,
    /// The channel that it gets, if it gets one.
    pub node: Option<NodeHandoff>,
}

/// A channel as Node's programs have it to their primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeHandoff {
    /// Whether the program is as one that another has forked, and not a worker of a cluster.
    pub forked: bool,
    /// Whether it gets its sockets as descriptors too.
    pub beside_descriptors: bool,
}

impl NodeHandoff {
    fn of(source: &Source, runs: Option<&Runs>) -> Option<NodeHandoff> {
        let forked = source.node_fork;
        match (source.handoff, runs) {
            (Handoff::Fds, _) => None,
            (Handoff::Auto, _) if forked => Some(NodeHandoff { forked, beside_descriptors: false }),
            (Handoff::Auto, Some(Runs::Node)) => {
                Some(NodeHandoff { forked, beside_descriptors: true })
            }
            (Handoff::Auto, Some(Runs::Bun | Runs::Wrapper(_)) | None) => None,
            (Handoff::Node, _) => Some(NodeHandoff { forked, beside_descriptors: false }),
        }
    }
}

/// Why a definition cannot be used. It names the thing, the cause and, where it helps, a next step.
#[derive(Debug, Error)]
pub enum DefinitionError {
    /// A file of variables.
    #[error("cannot read environment file `{path}`: {error}")]
    EnvFile {
        /// Which one.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A line of a file of variables.
    #[error("cannot read environment file `{path}`, {error}")]
    EnvLine {
        /// Which one.
        path: PathBuf,
        /// Where and why.
        error: EnvFileError,
    },
    /// Who the workers are to be.
    #[error("{0}")]
    Identity(#[from] IdentityError),
    /// What they may use.
    #[error("{0}")]
    Limit(#[from] LimitError),
    /// A directory that is there and closed to the workers' user.
    #[error(
        "cannot use directory `{path}`: {whom} may not enter {way}; give it the permission, or choose another with --directory"
    )]
    ClosedDirectory {
        /// Which one.
        path: PathBuf,
        /// Whom it is closed to.
        whom: String,
        /// What on the way to it stands in the way.
        way: String,
    },
    /// A program that is there and closed to the workers' user.
    #[error(
        "cannot run `{program}`: {whom} may not {what}; give it the permission, or move what it runs to where it may"
    )]
    ClosedProgram {
        /// Which one.
        program: String,
        /// Whom it is closed to.
        whom: String,
        /// What that user may not do.
        what: String,
    },
    /// The directory.
    #[error("cannot use directory `{path}`: {error}")]
    Directory {
        /// Which one.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A program without a name.
    #[error("cannot run ``: the program's name is empty")]
    NameEmpty,
    /// A program that was named by path, or whose search failed.
    #[error("cannot run `{program}`: {error}")]
    Program {
        /// Which one.
        program: String,
        /// Why.
        error: io::Error,
    },
    /// A program that was named without a path.
    #[error(
        "cannot run `{program}`: there is no such program in PATH; write a path, such as `./{program}`, for one that is elsewhere"
    )]
    NotInPath {
        /// Which one.
        program: String,
    },
    /// It is not a file that can be run.
    #[error("cannot run `{program}`: it is {kind}")]
    NotAFile {
        /// Which one.
        program: String,
        /// What it is.
        kind: &'static str,
    },
    /// It lacks the permission.
    #[error(
        "cannot run `{program}`: it is not executable; `chmod +x` it, or name its interpreter before it"
    )]
    NotExecutable {
        /// Which one.
        program: String,
    },
    /// A script whose interpreter cannot be run.
    #[error("cannot run `{program}`: {what}")]
    Unsound {
        /// Which one.
        program: String,
        /// What is wrong with it.
        what: String,
    },
    /// A script whose interpreter is not there.
    #[error(
        "cannot run `{program}`: its interpreter `{}` does not exist; {}",
        visible(interpreter),
        interpreter_hint(interpreter)
    )]
    NoInterpreter {
        /// Which one.
        program: String,
        /// What its first line names.
        interpreter: String,
    },
}

/// The most that is read of a file of variables.
const ENV_FILE_MAX: u64 = 1 << 20;

/// Reads everything that `source` names.
///
/// # Errors
///
/// See [`DefinitionError`]; nothing has happened then.
pub fn read(source: &Source) -> Result<Definition, DefinitionError> {
    let wanted = &source.identity;
    let identity = Identity::look_up(wanted)?;
    limits::try_all(&wanted.limits)?;
    let mut environment = inherited();
    for (name, value) in identity.variables() {
        match value {
            Some(value) => environment.insert(name.as_bytes().to_vec(), value),
            None => environment.remove(name.as_bytes()),
        };
    }
    for path in &source.env_files {
        environment.extend(read_env_file(path)?);
    }
    for (name, value) in &source.variables {
        environment.insert(name.as_bytes().to_vec(), value.as_bytes().to_vec());
    }
    let name = source.command.first().map(OsString::as_os_str).unwrap_or_default();
    let path_variable = environment.get(b"PATH".as_slice()).map(Vec::as_slice);
    let (directory, resolved, found) = identity.try_on(wanted.nice, || {
        let directory = open_directory(source.directory.as_deref(), identity.whom())?;
        let resolve = |path: &PathBuf| std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        let resolved = source.directory.as_ref().map(resolve);
        let found =
            Search { directory: &directory, whom: identity.whom() }.find(name, path_variable)?;
        Ok::<_, DefinitionError>((directory, resolved, found))
    })??;
    if let Some(path) = resolved {
        environment.insert(b"PWD".to_vec(), path.into_os_string().into_vec());
    }
    let arguments: Vec<Vec<u8>> =
        source.command.iter().map(|argument| argument.as_bytes().to_vec()).collect();
    let runs = runs(&found.path, &arguments, &found.head);
    Ok(Definition {
        node: NodeHandoff::of(source, runs.as_ref()),
        wrapper: match runs {
            Some(Runs::Wrapper(name)) => Some(name),
            Some(Runs::Node | Runs::Bun) | None => None,
        },
        directory,
        program: found.program,
        path: found.path,
        pinned: found.pinned,
        arguments,
        environment,
        identity,
        limits: wanted.limits.clone(),
        nice: wanted.nice,
        umask: wanted.umask.map(|umask| umask.0),
        no_new_privileges: wanted.no_new_privileges,
        messages: source.messages,
    })
}

/// Everything that is wrong with what `source` names, where [`read`] stops at the first.
#[must_use]
pub fn mistakes(source: &Source) -> Vec<DefinitionError> {
    let mut source = source.clone();
    let mut found = Vec::new();
    // What is wrong is told and put aside, so that what comes after it is looked at.
    source.env_files.retain(|path| read_env_file(path).map_err(|error| found.push(error)).is_ok());
    if let Err(error) = limits::try_all(&source.identity.limits) {
        found.push(error.into());
        source.identity.limits.clear();
    }
    let first = read(&source).err();
    if let Some(DefinitionError::Identity(_)) = &first {
        source.identity = wanted::Identity::default();
        let second = read(&source).err();
        found.extend(first.into_iter().chain(second));
    } else {
        found.extend(first);
    }
    found
}

/// The directory in which we run.
///
/// # Errors
///
/// Those of open(2).
pub fn here() -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(open(".", flags, Mode::empty())?)
}

/// Our own environment less what must not be inherited.
#[must_use]
pub fn inherited() -> BTreeMap<Vec<u8>, Vec<u8>> {
    std::env::vars_os()
        .map(|(name, value)| (name.into_vec(), value.into_vec()))
        .filter(|(name, _)| !listen_fds::is_scrubbed(name))
        .collect()
}

/// A variable's name and its value.
type Variable = (Vec<u8>, Vec<u8>);

fn read_env_file(path: &Path) -> Result<Vec<Variable>, DefinitionError> {
    let failed = |error| DefinitionError::EnvFile { path: path.to_owned(), error };
    // A fifo without a writer would block, and the loop with it.
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let file = open(path, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
    let file = File::from(file);
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    let mut text = Vec::new();
    file.take(ENV_FILE_MAX + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > ENV_FILE_MAX {
        return Err(failed(io::Error::other("it is larger than 1 MiB")));
    }
    let variables = env_file::parse(&text)
        .map_err(|error| DefinitionError::EnvLine { path: path.to_owned(), error })?;
    let bytes = |(name, value): (String, String)| (name.into_bytes(), value.into_bytes());
    Ok(variables.into_iter().map(bytes).collect())
}

fn open_directory(path: Option<&Path>, whom: Option<&str>) -> Result<OwnedFd, DefinitionError> {
    let path = path.unwrap_or(Path::new("."));
    let failed = |errno: Errno| match (errno, whom) {
        (Errno::EACCES, Some(whom)) => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            let way = in_the_way(&path);
            DefinitionError::ClosedDirectory { path, whom: whom.to_owned(), way }
        }
        (errno, _) => DefinitionError::Directory { path: path.to_owned(), error: errno.into() },
    };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory = open(path, flags, Mode::empty()).map_err(failed)?;
    faccessat(&directory, ".", AccessFlags::X_OK, AtFlags::AT_EACCESS).map_err(failed)?;
    Ok(directory)
}

/// Why a program that was found could not be run after all, for people.
#[must_use]
pub fn explain_exec(definition: &Definition, errno: i32) -> String {
    let path = Path::new(OsStr::from_bytes(&definition.path));
    let shown = path.display();
    let errno = Errno::from_raw(errno);
    let whom = definition.identity.whom();
    let search = Search { directory: &definition.directory, whom: None };
    match errno {
        Errno::ENOENT => match search.look_at(path, &shown.to_string()) {
            // It is there, and so is a script's interpreter: what is missing is its loader.
            Ok(_) => format!(
                "cannot run `{shown}`: the loader that it asks for does not exist; \
                 it was built for another system"
            ),
            Err(error) => error.to_string(),
        },
        Errno::ENOEXEC => format!(
            "cannot run `{shown}`: it is no program for this machine; \
             a script begins with `#!` and its interpreter"
        ),
        Errno::E2BIG => {
            format!("cannot run `{shown}`: its arguments and environment are too large")
        }
        // A change of user succeeds beyond the limit, and the exec after it fails.
        Errno::EAGAIN => format!(
            "cannot run `{shown}`: {} has as many processes as it may have; raise its limit \
             (`--limit nproc=N`, `ulimit -u`)",
            whom.unwrap_or("its user")
        ),
        Errno::EACCES if whom.is_some() => {
            let whom = whom.unwrap_or_default();
            format!("cannot run `{shown}`: {whom} may not run it any more; give it the permission")
        }
        errno => format!("cannot run `{shown}`: {}", io::Error::from(errno)),
    }
}

/// The name with its control characters written out, for a terminal.
fn visible(name: &str) -> String {
    let mut text = String::new();
    for character in name.chars() {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

fn interpreter_hint(interpreter: &str) -> &'static str {
    if interpreter.ends_with('\r') {
        "the script has Windows line endings, convert them with `sed -i 's/\\r$//'`"
    } else {
        "see its first line"
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::config::identity::Identity as Wanted;

    fn source(directory: &Path, program: &str) -> Source {
        Source {
            command: vec![program.into()],
            directory: Some(directory.to_owned()),
            variables: Vec::new(),
            env_files: Vec::new(),
            identity: Wanted::default(),
            messages: false,
            handoff: Handoff::Auto,
            node_fork: false,
        }
    }

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode set");
    }

    #[test]
    fn all_mistakes_are_found_and_not_only_the_first() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut source = source(directory.path(), "./missing");
        source.env_files = vec!["/no/such/file".into(), "/no/such/other".into()];
        source.identity.user = Some(wanted::Account::Name("nobody-of-this-name".to_owned()));
        let found: Vec<String> = mistakes(&source).iter().map(ToString::to_string).collect();
        for (index, words) in
            ["such/file", "such/other", "nobody-of-this-name", "./missing"].into_iter().enumerate()
        {
            assert!(found[index].contains(words), "{found:?}");
        }
        assert_eq!(found.len(), 4, "{found:?}");
    }

    fn mistake(source: &Source) -> String {
        read(source).expect_err("a mistake").to_string()
    }

    #[test]
    fn each_mistake_is_told_from_the_others() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        write(&at("plain"), "x", 0o644);
        write(&at("script"), "#!/no/such/interpreter -x\n", 0o755);
        write(&at("windows"), "#!/bin/sh\r\n", 0o755);
        symlink("nowhere", at("dangling")).expect("linked");
        for (program, words) in [
            ("./missing", "no such file"),
            ("no-such-program-anywhere", "no such program in PATH"),
            ("./plain", "not executable"),
            ("./script", "its interpreter `/no/such/interpreter` does not exist"),
            ("./windows", "`/bin/sh\\r` does not exist; the script has Windows line endings"),
            ("./dangling", "symbolic link to nothing"),
            ("/", "it is a directory"),
            ("", "the program's name is empty"),
        ] {
            let text = mistake(&source(directory.path(), program));
            assert!(text.contains(words), "{program}: {text}");
        }
        let text = mistake(&source(directory.path(), at("dangling").to_str().expect("text")));
        assert!(text.contains("symbolic link to nothing"), "{text}");
        let text = mistake(&source(&at("no-directory"), "sh"));
        assert!(text.contains("no-directory") && text.contains("directory"), "{text}");
    }

    #[test]
    fn variables_win_in_order_and_foreign_ones_stay_out() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("env");
        fs::write(&file, "A=file\nB=file\n").expect("written");
        let mut source = source(directory.path(), "sh");
        source.env_files.push(file);
        source.variables.push(("A".to_owned(), "line".to_owned()));
        let definition = read(&source).expect("whole");
        let value = |name: &str| definition.environment.get(name.as_bytes()).map(Vec::as_slice);
        assert_eq!(value("A"), Some(&b"line"[..]));
        assert_eq!(value("B"), Some(&b"file"[..]));
        assert_eq!(value("LISTEN_FDS"), None);
    }

    #[test]
    fn a_binary_is_pinned_and_a_script_keeps_the_release_it_was_found_in() {
        let directory = tempfile::tempdir().expect("a directory");
        let base = directory.path().canonicalize().expect("resolved");
        fs::create_dir(base.join("one")).expect("made");
        write(&base.join("one/app"), "#!/bin/sh\n", 0o755);
        symlink("one", base.join("current")).expect("linked");
        let app = base.join("current/app");
        let definition = read(&source(&base, app.to_str().expect("text"))).expect("whole");
        assert_eq!(definition.path, base.join("one/app").into_os_string().into_vec());
        assert!(!definition.pinned);
        assert!(read(&source(&base, "sh")).expect("whole").pinned);
    }
}
