//! Text into what was meant, with mistakes that name the thing, the cause and the next step. Pure.

pub mod run;

pub mod service;

pub mod diff;

pub mod upstreams;

pub mod socket;

pub mod socket_options;

pub mod admin;

pub mod values;

pub mod env_file;

pub mod identity;

pub mod text;

pub mod diagnostic;

mod yaml;

pub mod interpolate;

pub mod reader;

pub mod kinds;

pub mod listen;

pub mod schema;

mod addresses;

pub mod resolve;
