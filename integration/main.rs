//! Real processes: the binary as users run it, one behaviour a file; and the house rules.

mod harness;

mod load_client;

mod tidy;
