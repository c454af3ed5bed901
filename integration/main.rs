//! Real processes: the binary as users run it, one behaviour a file.

mod harness;

mod load_client;
