//! What workers and shepherd say to each other, as bytes: pure codecs, tested on bytes.

pub mod outcome;

pub mod script;

pub mod runtime;

pub mod lines;

pub mod line_styles;

pub mod last_lines;

pub mod timestamp;

pub mod http_probe;

pub mod listen_fds;

pub mod notify;

pub mod messages;

pub mod dispatch_channel;

pub mod steering_program;

mod json_fields;

pub mod node_ipc;

pub mod node_cluster;
