//! `--pid-file`: our pid in a file, there only while we are, and removed only if it is still ours.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A pid file; dropping it removes the file.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    /// Device and inode of what was written.
    identity: (u64, u64),
}

impl PidFile {
    /// Writes our pid beside `path` and renames it there, so that no reader ever sees half of it.
    ///
    /// # Errors
    ///
    /// When it cannot be written; then nothing is left of it.
    pub fn write(path: &Path) -> io::Result<PidFile> {
        let beside = beside(path);
        let written = (|| {
            let mut file = fs::File::create(&beside)?;
            writeln!(file, "{}", std::process::id())?;
            let found = file.metadata()?;
            fs::rename(&beside, path)?;
            Ok((found.dev(), found.ino()))
        })();
        match written {
            // Taken absolute, so that it is found again wherever we are then.
            Ok(identity) => Ok(PidFile { path: std::path::absolute(path)?, identity }),
            Err(error) => {
                let _ = fs::remove_file(&beside);
                Err(error)
            }
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let current = fs::symlink_metadata(&self.path).map(|found| (found.dev(), found.ino()));
        // An inode's number is soon used again, so the content counts too.
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        if current.ok() == Some(self.identity) && text.trim() == std::process::id().to_string() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_goes_with_us_unless_somebody_replaced_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("pid");
        let file = PidFile::write(&path).expect("written");
        let text = fs::read_to_string(&path).expect("readable");
        assert_eq!(text, format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.exists());

        let file = PidFile::write(&path).expect("written");
        fs::remove_file(&path).expect("removed");
        fs::write(&path, "1\n").expect("replaced");
        drop(file);
        assert!(path.exists());
    }
}
