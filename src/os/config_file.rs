//! Finds and reads the configuration file, and the variables that it may name. What is in it is not
//! looked at.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::config::interpolate::Variables;

/// The names of a file that is not named, in the order in which they are looked for.
pub const NAMES: [&str; 2] = ["shepherd.yaml", "shepherd.yml"];

/// The most that is read: more than a configuration of hundreds of services.
const BYTES_MAX: u64 = 1 << 20;

/// The file in our own directory, if there is one.
#[must_use]
pub fn find() -> Option<PathBuf> {
    NAMES.into_iter().map(PathBuf::from).find(|path| path.exists())
}

/// What is in a file.
///
/// # Errors
///
/// When it cannot be read, is no regular file or larger than 1 MiB.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    // A fifo without a writer would block, and a daemon that reads its file again with it.
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let file = File::from(open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}

/// Our own environment, as far as it is text.
#[must_use]
pub fn variables() -> Variables {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_regular_file_of_some_size_is_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("shepherd.yaml");
        let why = |path: &Path| read(path).expect_err("refused").to_string();
        assert!(why(&path).contains("No such file"));
        assert_eq!(why(directory.path()), "it is not a regular file");
        std::fs::write(&path, "services: {}").expect("written");
        assert_eq!(read(&path).expect("readable"), b"services: {}");
        std::fs::write(&path, vec![b' '; (1 << 20) + 1]).expect("written");
        assert_eq!(why(&path), "it is larger than 1 MiB");
    }
}
