//! What tests with real processes are made of: a daemon that never outlives its test, ports that
//! nobody else takes, and a load client that forgives nothing.
//!
//! Tests run as threads of one process, so nothing in here touches what the process has only one
//! of: no change of directory, no change of the environment, no `waitpid` on strangers, no
//! subreaper. Processes are found again by a marker in their environment.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "not every test binary or test uses every part"
)]
#![expect(clippy::panic, reason = "a test fails by it")]
#![expect(clippy::print_stderr, reason = "a failure shows what the daemon said")]
#![expect(
    clippy::disallowed_methods,
    reason = "it starts real processes and waits for them in real time"
)]

mod address;
mod builder;
mod cgroup;
mod client;
mod connection;
mod daemon;
mod eventually;
mod examples;
mod home;
mod http;
mod load;
mod output;
mod pidfd;
mod ports;
mod proc;

pub use address::Address;
pub use builder::Builder;
pub use cgroup::{Kept, groups, members};
pub use client::{Client, ClientOutput};
pub use connection::{Connection, Idle};
pub use daemon::{Daemon, WorkerProcess};
pub use eventually::{DEADLINE, eventually, eventually_within};
pub use examples::{
    example, http_c, http_go, http_node, http_python, http_rust, manners, odd, source,
    strict_readers,
};
pub use home::{Home, Leftover, MARKER};
pub use http::{Response, get};
pub use load::{
    Class, EchoReport, Echoes, Exchange, Failure, Kind, KindName, Limits, Load, Report,
};
pub use output::{Line, Stream};
pub use pidfd::Process;
pub use ports::{Port, free_port, free_ports};
pub use proc::{environment, listening};
