//! Exit codes, as documented in the help text and README.md.

/// Asked for, and done.
pub const DONE: u8 = 0;

/// It failed.
pub const FAILED: u8 = 1;

/// Wrong usage: a flag or a value that cannot be read.
pub const USAGE: u8 = 2;

/// Wrong configuration: readable, but it cannot be run.
pub const CONFIGURATION: u8 = 3;

/// A socket could not be bound.
pub const BIND: u8 = 9;

/// `exec`: the program is there and could not be run, as shells have it.
pub const NOT_RUN: u8 = 126;

/// `exec`: there is no such program, as shells have it.
pub const NOT_FOUND: u8 = 127;
