//! A sub-tree of cgroups for one test, in which daemons begin their life: one part that is marked
//! as delegated, where they keep workers in cgroups, and one that is not.

#![expect(unsafe_code, reason = "nix does not wrap setxattr")]

use std::{
    ffi::{CStr, CString},
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::libc;

use super::eventually_within;

/// Where version 2 is mounted: alone, or beside version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// How a daemon tells whose a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Workers are in cgroups.
    InCgroups,
    /// By parent, session and environment.
    InTree,
}

/// Goes with all that is in it.
#[derive(Debug)]
pub struct Cgroup {
    top: PathBuf,
}

impl Cgroup {
    /// None where this process may not make any.
    pub fn new(name: &str) -> Option<Cgroup> {
        let cgroup = Cgroup { top: own()?.join(name) };
        fs::create_dir(&cgroup.top).ok()?;
        for kept in [Kept::InCgroups, Kept::InTree] {
            fs::create_dir(cgroup.part(kept)).ok()?;
        }
        set_attribute(&cgroup.part(Kept::InCgroups), c"user.delegate", b"1").ok()?;
        Some(cgroup)
    }

    /// The directory in which a daemon begins.
    pub fn part(&self, kept: Kept) -> PathBuf {
        self.top.join(match kept {
            Kept::InCgroups => "delegated",
            Kept::InTree => "plain",
        })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::write(self.top.join("cgroup.kill"), "1");
        // The kernel may need a moment after the last process.
        if eventually_within(Duration::from_secs(10), || remove(&self.top).ok()).is_none() {
            eprintln!("cannot remove {}", self.top.display());
        }
    }
}

/// The cgroups right below one.
pub fn groups(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// Who is right in a cgroup.
pub fn members(directory: &Path) -> Vec<i32> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn remove(directory: &Path) -> io::Result<()> {
    for below in groups(directory) {
        remove(&below)?;
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The cgroup of this process.
fn own() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    MOUNTS
        .iter()
        .find(|mount| Path::new(mount).join("cgroup.controllers").exists())
        .map(|mount| Path::new(mount).join(path))
}

fn set_attribute(path: &Path, name: &CStr, value: &[u8]) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: both names end in NUL, and the value has the length that is told.
    let result = unsafe {
        libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
