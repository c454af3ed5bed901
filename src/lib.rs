//! shepherd keeps a port answering while everything behind it changes.
//!
//! ```text
//! cli ──▶ daemon ──▶ os ──▶ protocol, config, core (ids, policy, event, time)
//!  │        └──────▶ control, config, core
//!  ├──▶ control ──▶ os, config, core
//!  └──▶ config ──▶ core (policy, service)        protocol ──▶ nothing of ours
//! ```
//!
//! [`core`] decides and does nothing; [`os`] does and decides nothing; [`daemon`] wires the two in
//! one loop; [`control`] lets others ask and look; [`protocol`] knows the bytes that workers and
//! shepherd exchange; [`config`] turns text into what was meant; [`cli`] is what people type.
//! ARCHITECTURE.md tells why.

pub mod core;

pub mod config;

pub mod protocol;

pub mod os;

pub mod control;

pub mod daemon;

pub mod cli;
