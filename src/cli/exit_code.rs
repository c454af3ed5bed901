//! Exit codes, as documented in the help text and README.md.

/// Asked for, and done.
pub(super) const DONE: u8 = 0;

/// It failed.
pub(super) const FAILED: u8 = 1;

/// Wrong usage: a flag or a value that cannot be read.
pub(super) const USAGE: u8 = 2;

/// Wrong configuration: readable, but it cannot be run.
pub(super) const CONFIGURATION: u8 = 3;

/// A socket could not be bound.
pub(super) const BIND: u8 = 9;

/// `exec`: the program is there and could not be run, as shells have it.
pub(super) const NOT_RUN: u8 = 126;

/// `exec`: there is no such program, as shells have it.
pub(super) const NOT_FOUND: u8 = 127;
