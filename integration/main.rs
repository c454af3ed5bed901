//! Real processes: the binary as users run it, one behaviour a file; and the house rules.

#![allow(unreachable_pub, reason = "a test binary has nobody who could reach it")]

mod admin;
mod cgroups;
mod check;
mod control;
mod faults;
mod given;
mod harness;
mod healing;
mod identity;
mod inherited;
mod init;
mod journal;
mod left_behind;
mod limits;
mod load_client;
mod logs;
mod logs_readers;
mod many;
mod metrics_page;
mod mistakes;
mod output;
mod packaging;
mod probes;
mod readers;
mod ready;
mod reload;
mod reload_aborted;
mod reload_races;
mod restart;
mod run_file;
mod scale;
mod service_manager;
mod site;
mod slots;
mod socket_options;
mod sockets;
mod start;
mod stop;
mod storm;
mod tidy;
mod transports;
mod worker_process;
mod wrapped;
mod wrapper;
