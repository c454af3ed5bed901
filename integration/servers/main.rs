//! Servers that others wrote, each run as `examples/README.md` says and reloaded under load: no new
//! connection may fail. `integration/servers/run` installs them and runs this in a sandbox; SERVERS
//! names some of them, `proxy` is nginx in front of a service, RELOADS is how often each is reloaded.

#![allow(unreachable_pub, reason = "a test binary has nobody who could reach it")]
#![expect(clippy::panic, reason = "a test fails by it")]
#![expect(clippy::print_stdout, reason = "the table is for people")]
#![expect(clippy::disallowed_methods, reason = "it runs real servers, and settings are variables")]

#[path = "../harness/mod.rs"]
mod harness;
mod known;
mod proxy;
mod trial;

use std::{env, panic, process::ExitCode};

use known::Server;
use trial::Outcome;

fn main() -> ExitCode {
    if env::var_os("SERVERS_SANDBOX").is_none() {
        println!("not in a sandbox; run integration/servers/run");
        return ExitCode::FAILURE;
    }
    let wanted = env::var("SERVERS").unwrap_or_default();
    let wanted: Vec<&str> = wanted.split([',', ' ']).filter(|name| !name.is_empty()).collect();
    let mut servers = known::servers();
    for name in wanted.iter().filter(|name| **name != PROXY) {
        assert!(servers.iter().any(|server| server.name == *name), "`{name}` is not in the table");
    }
    servers.retain(|server| wanted.is_empty() || wanted.contains(&server.name.as_str()));

    let mut rows = vec![HEAD.map(str::to_owned)];
    let mut failed = 0;
    for server in &servers {
        // The message of a panic was printed by its hook.
        let outcome = panic::catch_unwind(|| (server.version(), trial::run(server)));
        rows.push(if let Ok((version, outcome)) = &outcome {
            row(server, version, outcome)
        } else {
            failed += 1;
            let mut cells = [""; HEAD.len()];
            cells[..2].copy_from_slice(&[&server.name, "FAILED"]);
            cells.map(str::to_owned)
        });
    }
    if servers.len() > failed {
        println!();
        print_aligned(&rows);
    }
    let mut trials = servers.len();
    if wanted.is_empty() || wanted.contains(&PROXY) {
        trials += 1;
        println!();
        if let Ok(proxy::Seen { new, kept, told }) = panic::catch_unwind(proxy::run) {
            println!(
                "nginx in front: {} ok, {} failed on new connections; {} ok, {} reconnects, {} lost \
                 on kept ones; reloaded {told} times",
                new.ok_total(),
                new.failures_total(),
                kept.ok_total(),
                kept.reconnects,
                kept.failures_total()
            );
        } else {
            failed += 1;
            println!("nginx in front: FAILED");
        }
    }
    println!();
    println!("{} passed, {failed} failed", trials - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How nginx in front of a service is asked for.
const PROXY: &str = "proxy";

/// What the columns are.
const HEAD: [&str; 8] = [
    "server",
    "version",
    "takes the sockets by",
    "ready when",
    "new connections",
    "kept connections",
    "their requests, reconnects, lost",
    "reloads",
];

fn row(server: &Server, version: &str, outcome: &Outcome) -> [String; HEAD.len()] {
    let Outcome { evidence, new, kept, reloads } = outcome;
    [
        server.name.clone(),
        version.to_owned(),
        server.takes.clone(),
        evidence.clone(),
        format!("{} ok, {} failed", new.ok_total(), new.failures_total()),
        kept.connections.to_string(),
        format!("{}, {}, {}", kept.ok_total(), kept.reconnects, kept.failures_total()),
        reloads.join(", "),
    ]
}

fn print_aligned(rows: &[[String; HEAD.len()]]) {
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .enumerate()
            .map(|(column, cell)| format!("{cell:<width$}", width = width(column)))
            .collect();
        println!("{}", cells.join("  ").trim_end());
    }
}
