//! How people and programs reach a running daemon: HTTP with JSON on a unix socket.

pub mod wire;

pub mod metrics;
