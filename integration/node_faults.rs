//! What workers of Node do wrong over their channels: none of it makes shepherd grow, wait or die, and
//! what can serve serves on.

use std::fs;

use crate::{
    harness::{Daemon, Port, free_port, get},
    node::{SERVER, program},
    site::{stop_well, wait_serving},
};

/// Runs the server with this beside it, in its first worker.
#[track_caller]
fn run(first: &str, port: &Port, options: &[&str]) -> Option<Daemon> {
    let first = format!("if (process.env.SHEPHERD_WORKER === '1') {{ {first} }}");
    let builder = program(&format!("{SERVER}\n{first}"), port)?;
    let daemon = builder.args(options).start();
    wait_serving(&daemon, 1);
    Some(daemon)
}

#[track_caller]
fn says(daemon: &Daemon, words: &str) {
    daemon.wait_line(|line| line.contains(words), words);
}

#[track_caller]
fn serves_on(daemon: &Daemon, port: &Port) {
    daemon.eventually("an answer", || get(port.v4(), "/").ok());
    stop_well(daemon);
}

/// The memory that the daemon has at most had, in bytes.
fn memory(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("its status");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("its memory");
    let kib = line.split_ascii_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
    kib.expect("a number") * 1024
}

#[test]
fn a_flood_of_messages_is_read_and_dropped() {
    let port = free_port();
    let flood = "setTimeout(() => {
  for (let i = 0; i < 200000; i++) process.send('x'.repeat(120));
  process.send('end', () => console.log('flooded'));
}, 100);";
    let Some(daemon) = run(flood, &port, &[]) else { return };
    let before = memory(&daemon);
    says(&daemon, "flooded");
    let grown = memory(&daemon) - before;
    assert!(grown < 16 << 20, "grew by {grown} bytes");
    assert_eq!(get(port.v4(), "/").expect("an answer").status, 200);
    serves_on(&daemon, &port);
}

#[test]
fn who_sends_a_line_without_an_end_is_replaced() {
    let port = free_port();
    let huge = "setTimeout(() => process.send('x'.repeat(50e6)), 300);";
    let Some(daemon) = run(huge, &port, &["--drain-timeout", "2s"]) else { return };
    says(&daemon, "cannot be spoken to any more and is stopped: it sent a line of more than");
    says(&daemon, "worker 2");
    assert!(memory(&daemon) < 120 << 20, "{}", memory(&daemon));
    serves_on(&daemon, &port);
}

#[test]
fn a_long_message_is_no_fault() {
    let port = free_port();
    let long = "process.send('x'.repeat(10e6), () => console.log('sent'));";
    let Some(daemon) = run(long, &port, &[]) else { return };
    says(&daemon, "sent");
    assert_eq!(daemon.count_lines(|line| line.contains("is stopped")), 0);
    serves_on(&daemon, &port);
}

#[test]
fn bytes_that_make_no_sense_are_told_and_passed_over() {
    let port = free_port();
    let bad = "const { writeSync } = require('node:fs');
setTimeout(() => {
  writeSync(4, 'garbage\\n{\"cmd\":\"NODE_HANDLE_ACK\"}\\n\\n{\"cmd\":\"NODE_CLUSTER\",\"act\":\"dance\"}\\n');
  console.log('said');
}, 300);";
    let Some(daemon) = run(bad, &port, &[]) else { return };
    says(&daemon, "speaks strangely over its channel: it sent a line that is no JSON");
    says(&daemon, "acknowledged a descriptor that it was not sent");
    serves_on(&daemon, &port);
}

#[test]
fn who_closes_its_channel_is_gone_or_serves_without_it() {
    let port = free_port();
    // As a worker of a cluster it ends by that.
    let Some(daemon) = run("setTimeout(() => process.disconnect(), 300);", &port, &[]) else {
        return;
    };
    says(&daemon, "worker 2");
    serves_on(&daemon, &port);
    // One that was told that it is to, stays.
    let stays = "setTimeout(() => {
  require('node:cluster').worker.exitedAfterDisconnect = true;
  process.on('disconnect', () => console.log('it is closed'));
  process.disconnect();
}, 300);";
    let Some(daemon) = run(stays, &port, &[]) else { return };
    says(&daemon, "it is closed");
    serves_on(&daemon, &port);
}

#[test]
fn others_that_hold_the_channel_keep_nothing_up() {
    let port = free_port();
    let leaks = "require('node:child_process').spawn('sleep', ['1000'],
  { stdio: ['ignore', 'ignore', 'ignore', 4], detached: true });
setTimeout(() => process.exit(3), 300);";
    let Some(daemon) = run(leaks, &port, &[]) else { return };
    says(&daemon, "exited with code 3");
    serves_on(&daemon, &port);
}

#[test]
fn who_has_no_descriptor_left_for_its_socket_is_replaced() {
    let port = free_port();
    let text = "
const fs = require('node:fs');
if (process.env.SHEPHERD_WORKER === '1') {
  try { for (;;) fs.openSync('/dev/null'); } catch { }
}
require('node:http').createServer((_, response) => response.end(`v1 ${process.pid}\\n`)).listen(PORT);
";
    let Some(builder) = program(text, &port) else { return };
    let daemon = builder.args(["--limit", "nofile=100", "--handoff", "node"]).start();
    says(&daemon, "it has no descriptor left for a socket that it was sent 4 times");
    wait_serving(&daemon, 1);
    serves_on(&daemon, &port);
}

#[test]
fn a_socket_that_is_sent_up_is_closed_and_keeps_no_server_open() {
    let port = free_port();
    let text = "
const net = require('node:net');
net.createServer((socket) => process.send('take it', socket)).listen(PORT);
";
    let Some(builder) = program(text, &port) else { return };
    let daemon = builder.start();
    wait_serving(&daemon, 1);
    assert!(get(port.v4(), "/").is_err(), "it was closed");
    says(&daemon, "sent a descriptor to its primary (net.Socket)");
    stop_well(&daemon);
    assert_eq!(daemon.count_lines(|line| line.contains("sending SIGTERM")), 0);
}
