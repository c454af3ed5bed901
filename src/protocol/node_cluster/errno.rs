//! Errors as workers understand them.

use std::fmt;

/// An error number of Linux, as it is on every machine that Node runs on. A program sees the name, as
/// `error.code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Errno(i32);

impl Errno {
    /// Not allowed.
    pub const EACCES: Errno = Errno(13);
    /// Somebody has the address.
    pub const EADDRINUSE: Errno = Errno(98);
    /// The machine has no such address.
    pub const EADDRNOTAVAIL: Errno = Errno(99);
    /// The machine has no such kind of address.
    pub const EAFNOSUPPORT: Errno = Errno(97);
    /// No such descriptor.
    pub const EBADF: Errno = Errno(9);
    /// It makes no sense.
    pub const EINVAL: Errno = Errno(22);
    /// The worker has too many.
    pub const EMFILE: Errno = Errno(24);
    /// A path is too long.
    pub const ENAMETOOLONG: Errno = Errno(36);
    /// No such directory.
    pub const ENOENT: Errno = Errno(2);
    /// It cannot be done here.
    pub const ENOTSUP: Errno = Errno(95);

    const NAMES: [(Errno, &'static str); 10] = [
        (Errno::EACCES, "EACCES"),
        (Errno::EADDRINUSE, "EADDRINUSE"),
        (Errno::EADDRNOTAVAIL, "EADDRNOTAVAIL"),
        (Errno::EAFNOSUPPORT, "EAFNOSUPPORT"),
        (Errno::EBADF, "EBADF"),
        (Errno::EINVAL, "EINVAL"),
        (Errno::EMFILE, "EMFILE"),
        (Errno::ENAMETOOLONG, "ENAMETOOLONG"),
        (Errno::ENOENT, "ENOENT"),
        (Errno::ENOTSUP, "ENOTSUP"),
    ];

    /// What a system call failed with; none for what is no error.
    #[must_use]
    pub fn from_raw(number: i32) -> Option<Errno> {
        (number > 0).then_some(Errno(number))
    }

    /// The name, where it is one of those above.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Errno::NAMES.into_iter().find(|(errno, _)| *errno == self).map(|(_, name)| name)
    }

    /// As libuv has it: below 0.
    pub(super) fn on_the_wire(self) -> i32 {
        -self.0
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "error {}", self.0),
        }
    }
}
