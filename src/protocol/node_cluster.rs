//! What Node's cluster module and its primary say to each other, in the lines of `node_ipc`. Pure: what
//! a worker may have, and which worker gets what, is decided elsewhere.
//!
//! A worker says `online`; asks with `queryServer` for each server that it wants to listen, and gets the
//! listener itself (*shared*), or the promise that connections will be handed to it (*dispatched*, what
//! Node calls round-robin), or an error; tells of it with `listening`, and of its end with `close`. A
//! connection is a `newconn`, which it accepts or gives back. To stop it, `disconnect`: it closes its
//! servers, finishes what it has and closes the channel. If it leaves by itself it says
//! `exitedAfterDisconnect`, and waits for the answer.
//!
//! Each end numbers what it says (`seq`), and an answer names the number it answers (`ack`).
//!
//! Ours is the part of the primary, and [`Primary`] is its side of the conversation with one worker.
//! Where a worker would hang without an answer that needs no decision, it gives that with what it heard.

mod errno;

mod key;

mod query;

mod heard;

mod primary;

mod kept;

mod wire;

pub use errno::Errno;
pub use heard::{Heard, Ignored};
pub use kept::KeptData;
pub use key::Key;
pub use primary::{OFFERED_MAX, Offered, Primary, SERVERS_MAX, Shared};
pub use query::{Access, Data, Host, Kind, Query, Wanted};

#[cfg(test)]
mod tests;
