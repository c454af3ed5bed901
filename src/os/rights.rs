//! Runs a piece of code with the rights of another user: on a thread of its own, since in Linux each
//! thread has credentials of its own. Nothing of it is left when the thread has ended.
//!
//! Only the ids for access are changed, not the real ones: whoever has those ids could send signals
//! to the thread otherwise, and so to us; see setfsuid(2).

use std::io;
use std::panic::resume_unwind;
use std::sync::OnceLock;
use std::thread;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

use super::sys;

/// What lets a process take another group, see capabilities(7).
pub const CAP_SETGID: u32 = 6;

/// What lets a process take another user.
pub const CAP_SETUID: u32 = 7;

/// The stack of such a thread: its work is opening a few paths.
const STACK_BYTES: usize = 256 << 10;

/// Whose rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights<'a> {
    /// The user.
    pub user: Uid,
    /// The group.
    pub group: Gid,
    /// The supplementary groups; ours without them.
    pub groups: Option<&'a [u32]>,
    /// What stands above the permissions of files.
    pub capabilities: Capabilities,
}

/// Which capabilities come with the rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capabilities {
    /// None at all.
    None,
    /// Ours, as far as the user may have them: those over files go with root's rights.
    Ours,
}

/// Does `work` with these rights.
///
/// # Errors
///
/// `EPERM` when we may not have the rights, `EINVAL` when an id has no meaning in our user
/// namespace, `EAGAIN` when there may be no further thread. Then nothing was done.
pub fn with<T: Send>(rights: Rights<'_>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_a_thread(|| {
        take(rights)?;
        Ok(work())
    })
}

/// Does `work` on a thread of its own, whose credentials and niceness are nobody else's.
///
/// # Errors
///
/// That of `work`, and `EAGAIN` when there may be no further thread.
pub fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    // Asked once, before the first change: another such thread may be under way.
    static DUMPABLE: OnceLock<bool> = OnceLock::new();
    let was_dumpable = *DUMPABLE.get_or_init(|| prctl::get_dumpable() == Ok(true));
    let done = thread::scope(|scope| {
        let builder = thread::Builder::new().stack_size(STACK_BYTES);
        let thread = builder.spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    });
    // A change of ids makes the whole process one whose memory nobody may look at, see
    // PR_SET_DUMPABLE in prctl(2); ours is as before.
    if was_dumpable {
        let _ = prctl::set_dumpable(true);
    }
    done
}

/// Takes the rights, for this thread alone and for good.
///
/// # Errors
///
/// See [`with`].
fn take(rights: Rights<'_>) -> io::Result<()> {
    // These give the id before, also where they fail. No id is asked for to see which holds.
    setfsgid(rights.group);
    if setfsgid(Gid::from_raw(u32::MAX)) != rights.group {
        return Err(refusal(CAP_SETGID));
    }
    setfsuid(rights.user);
    if setfsuid(Uid::from_raw(u32::MAX)) != rights.user {
        return Err(refusal(CAP_SETUID));
    }
    if let Some(groups) = rights.groups {
        // A namespace that knows one group of its maker denies all change, see user_namespaces(7).
        sys::set_thread_groups(groups).map_err(|_| refusal(CAP_SETGID))?;
    }
    match rights.capabilities {
        Capabilities::None => sys::clear_thread_capabilities(),
        Capabilities::Ours => Ok(()),
    }
}

/// Why an id was not to be had, which the calls do not say.
fn refusal(capability: u32) -> io::Error {
    if sys::has_capability(capability) { Errno::EINVAL.into() } else { Errno::EPERM.into() }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use nix::unistd::{getegid, geteuid};

    use super::*;

    #[test]
    fn our_own_rights_are_always_to_be_had() {
        let rights = Rights {
            user: geteuid(),
            group: getegid(),
            groups: None,
            capabilities: Capabilities::Ours,
        };
        assert_eq!(with(rights, || 7).expect("ours"), 7);
        assert_eq!(prctl::get_dumpable(), Ok(true));
    }

    #[test]
    fn root_sees_with_the_eyes_of_another_and_has_its_own_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let secret = directory.path().join("secret");
        fs::write(&secret, "x").expect("written");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("ours");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("ours");
        let nobody = Rights {
            user: Uid::from_raw(65_534),
            group: Gid::from_raw(65_534),
            groups: Some(&[]),
            capabilities: Capabilities::None,
        };
        let made = directory.path().join("made");
        let look = || (fs::read(&secret).is_ok(), fs::write(&made, "").is_ok());
        if !geteuid().is_root() {
            assert_eq!(
                with(nobody, look).expect_err("not ours").kind(),
                io::ErrorKind::PermissionDenied
            );
            return;
        }
        assert_eq!(with(nobody, look).expect("root may"), (false, true));
        let made = fs::metadata(&made).expect("made");
        assert_eq!((made.uid(), made.gid()), (65_534, 65_534));
        assert!(fs::read(&secret).is_ok(), "our own rights are untouched");
        assert_eq!(prctl::get_dumpable(), Ok(true));
    }
}
