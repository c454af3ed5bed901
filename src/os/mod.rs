//! The system: it does what it is asked and decides nothing. Unsafe code is in [`sys`] alone.

pub mod sys;

pub mod clock;

pub mod reactor;

pub mod signals;

pub mod stderr;

pub mod stdio;

pub mod terminal;

pub mod interrupt;

pub mod sink;

pub mod queue;

pub mod writer;

pub mod output;

pub mod channel;

pub mod limits;

pub mod config_file;

pub mod memory;

pub mod definition;

pub mod identity;

pub mod rights;

pub mod listeners;

pub mod inherited;

pub mod ip_socket;

pub mod ip_options;

pub mod steering;

pub mod strangers;

pub mod shared_socket;

pub mod admin_socket;

pub mod unix_path;

pub mod abstract_name;

pub mod path_watch;

pub mod sock_diag;

pub mod socket_table;

pub mod descriptors;

pub mod left;

mod copies;

mod closing;

pub mod idle;

pub mod looks;

pub mod traffic;

pub mod holder;

pub mod probe;

pub mod command;

pub mod local_address;

pub mod strings;

pub mod dispatch;
pub mod spawn;

pub mod exec;

pub mod processes;

pub mod cgroup;

pub mod tree;

pub mod waiting;

pub mod proc;

pub mod notify_socket;

pub mod room;

pub mod node_channel;

pub mod runtime_dir;

pub mod control_socket;

pub mod wake;

pub mod replace_file;

pub mod pid_file;

pub mod service_manager;
