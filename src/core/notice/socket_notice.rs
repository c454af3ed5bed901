//! What users hear of a shared socket that somebody changed: who, what, and what becomes of it.

use std::fmt;
use std::time::Duration;

use crate::core::event::{Again, Mode, Repair};
use crate::core::ids::GenerationId;

use super::{Human, Loudness, WorkerName};

/// How many workers are named that may have done it.
const NAMED_MAX: usize = 8;

/// What somebody did to a socket, and what shepherd does about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketNotice {
    /// The backlog was changed; it is set back.
    Backlog {
        /// Who did it.
        by: Suspects,
        /// The backlog that was found.
        to: u32,
        /// The configured one.
        from: u32,
    },
    /// The socket was made blocking, or non-blocking, against what the serving generation needs; it
    /// is set back.
    Mode {
        /// Who did it.
        by: Suspects,
        /// What was found.
        to: Mode,
        /// What is set.
        from: Mode,
        /// Whose first ready worker left it so.
        serving: GenerationId,
    },
    /// The first worker of a reload made the socket blocking, or non-blocking; it is set back until
    /// the reload commits.
    ModePostponed {
        /// The worker.
        by: WorkerName,
        /// What it made of it.
        to: Mode,
        /// What the serving generation has.
        from: Mode,
    },
    /// Somebody shut the socket down.
    ShutDown {
        /// Who did it.
        by: Suspects,
        /// How often within the moment that it took to find out.
        times: u32,
        /// What brings it back.
        repair: Repair,
        /// When, if it was not at once, and how often it has been done since it was left alone.
        pause: Option<(Duration, u32)>,
    },
    /// Somebody removed or replaced the file of a unix socket.
    PathGone {
        /// When another is bound, if not at once, and how often it has been done.
        pause: Option<(Duration, u32)>,
    },
    /// Another socket was bound in its place.
    Renewed,
    /// Its file is where it was.
    Back,
    /// It could not be repaired.
    RepairFailed {
        /// What was tried.
        repair: Repair,
        /// Why it did not go.
        reason: String,
        /// When it is tried again, if that comes by itself.
        pause: Option<Duration>,
        /// Whether it is tried again.
        again: Again,
    },
}

impl SocketNotice {
    pub(super) fn loudness(&self) -> Loudness {
        match self {
            SocketNotice::Backlog { .. }
            | SocketNotice::ModePostponed { .. }
            | SocketNotice::Renewed
            | SocketNotice::Back => Loudness::Info,
            SocketNotice::Mode { .. }
            | SocketNotice::ShutDown { .. }
            | SocketNotice::PathGone { .. } => Loudness::Warning,
            SocketNotice::RepairFailed { .. } => Loudness::Error,
        }
    }

    /// One line that begins with who did it.
    pub(super) fn tell(&self, socket: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketNotice::Backlog { by, to, from } => {
                write!(f, "{by} set the backlog of `{socket}` to {to}; set back to {from}")
            }
            SocketNotice::Mode { by, to, from, serving } => {
                write!(f, "{by} made `{socket}` {to} for all who share it; set back to {from}, ")?;
                write!(f, "as the first ready worker of generation {serving} left it")
            }
            SocketNotice::ModePostponed { by, to, from } => {
                write!(f, "{by} made `{socket}` {to} for all who share it; set back to {from} ")?;
                write!(f, "until its generation serves")
            }
            SocketNotice::ShutDown { by, times, repair, pause } => {
                write!(f, "{by} shut down `{socket}`")?;
                if *times > 1 {
                    write!(f, " {times} times")?;
                }
                match (repair, pause) {
                    (Repair::Listen, None) => {
                        write!(f, ": connections in its queue were reset; it listens again")
                    }
                    (Repair::Listen, Some((pause, count))) => {
                        write!(f, ": connections in its queue were reset; ")?;
                        write!(f, "listening again in {}, after {count} times", Human(*pause))
                    }
                    // What became of binding another was told before it was known who it was.
                    (Repair::Bind, None) => write!(f, " for good"),
                    (Repair::Bind, Some((pause, count))) => {
                        write!(f, " for good; binding another in its place in {}", Human(*pause))?;
                        write!(f, ", after {count} times")
                    }
                }
            }
            SocketNotice::PathGone { pause } => {
                write!(f, "somebody removed or replaced the file of `{socket}`; ")?;
                match pause {
                    None => write!(f, "binding it again"),
                    Some((pause, count)) => {
                        write!(f, "binding it again in {}, after {count} times", Human(*pause))
                    }
                }
            }
            SocketNotice::Renewed => {
                write!(f, "`{socket}` is bound anew; all workers are replaced to get it")
            }
            SocketNotice::Back => write!(f, "the file of `{socket}` is in its place again"),
            SocketNotice::RepairFailed { repair, reason, pause, again } => {
                match repair {
                    Repair::Listen => write!(f, "cannot listen on `{socket}` again: {reason}")?,
                    Repair::Bind => write!(f, "cannot bind `{socket}` again: {reason}")?,
                }
                match (again, pause) {
                    (Again::Later | Again::WhenAsked, Some(pause)) => {
                        write!(f, "; trying again in {}", Human(*pause))
                    }
                    (Again::Later | Again::WhenAsked, None) => write!(f, "; a reload tries again"),
                    (Again::Never, _) => Ok(()),
                }
            }
        }
    }
}

/// The workers one of which did something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspects {
    /// The service whose workers share the socket.
    pub service: String,
    /// Those that may have done it; without any, it was one of them all.
    pub workers: Vec<WorkerName>,
}

impl fmt::Display for Suspects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.workers[..] {
            [] => write!(f, "a worker of {}", self.service),
            [worker] => write!(f, "{worker}"),
            workers => {
                write!(f, "one of {}", workers[0])?;
                for worker in workers.iter().take(NAMED_MAX).skip(1) {
                    write!(f, ", {worker}")?;
                }
                match workers.len().saturating_sub(NAMED_MAX) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
        }
    }
}
