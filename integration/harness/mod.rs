//! What tests with real processes are made of: a daemon that never outlives its test, ports that
//! nobody else takes, and a load client that forgives nothing.
//!
//! Tests run as threads of one process, so nothing in here touches what the process has only one
//! of: no change of directory, no change of the environment, no `waitpid` on strangers, no
//! subreaper. Processes are found again by a marker in their environment.

mod address;
mod builder;
mod connection;
mod daemon;
mod eventually;
mod home;
mod http;
mod load;
mod output;
mod pidfd;
mod ports;
mod proc;

pub use address::Address;
pub use builder::Builder;
pub use connection::{Connection, Idle};
pub use daemon::{ClientOutput, Daemon, WorkerProcess};
pub use eventually::{DEADLINE, eventually, eventually_within};
pub use home::{Home, Leftover};
pub use http::{Response, get};
pub use load::{Class, Exchange, Failure, Kind, KindName, Limits, Load, Report};
pub use output::{Line, Stream};
pub use pidfd::Process;
pub use ports::{Port, free_port};
