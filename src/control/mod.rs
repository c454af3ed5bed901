//! How people and programs reach a running daemon: HTTP with JSON on a unix socket.
//!
//! [`server`] runs in a thread of its own and holds no state: what a client asks becomes a
//! [`message`] to the daemon's loop, which wakes by a descriptor, and whose answer comes back over
//! a channel of one. [`api`] is the table of what can be asked, [`openapi`] the same as a document.
//! [`admin`] is what monitoring reads, on a socket of its own and in the same thread. [`client`] is
//! the other end.

pub mod wire;

pub mod metrics;

pub mod message;

pub mod events;

pub mod api;

pub mod admin;

pub mod readings;

pub mod problem;

pub mod openapi;

pub mod server;

mod connection;

mod guest;

pub mod door;

pub mod client;

pub mod running;
