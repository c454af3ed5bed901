//! Names for things: counters that are never used twice. A pid or a descriptor is none of them.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A named group of identical workers, with the sockets they share.
    ServiceId(u32)
}
id! {
    /// A bound endpoint that shepherd owns from start to stop.
    SocketId(u32)
}
id! {
    /// One kernel socket behind a [`SocketId`]: what a worker is given.
    MemberId(u32)
}
id! {
    /// A place for one worker in a service, from 0 on; kept over restarts and reloads.
    SlotId(u32)
}
id! {
    /// One process that fills a slot, with all that it forks. Never used twice in a daemon's life.
    WorkerId(u64)
}
id! {
    /// A service's definition as it was read at start (1) or at a reload (2 and on).
    GenerationId(u64)
}
id! {
    /// An operator's request; it ends in exactly one response.
    RequestId(u64)
}
id! {
    /// A process number for people to read. The core shows it and decides nothing by it.
    Pid(u32)
}
id! {
    /// A listening socket that shepherd accepts from itself. The shell knows which descriptor it is.
    ListenerId(u32)
}
id! {
    /// A connection that shepherd accepted. They are numbered in the order in which they were
    /// accepted, and no number is used twice in a service's life.
    ConnectionId(u64)
}
