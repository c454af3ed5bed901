//! A socket a slot: who gets which, for how long it is there, and what happens when it cannot be had.

use std::{
    net::{TcpListener, TcpStream},
    path::PathBuf,
};

use nix::sys::signal::Signal;

use crate::{
    harness::{
        Address, Builder, Daemon, Home, Kind, Load, Port, Process, environment, free_ports, get,
        http_rust,
    },
    mistakes::{BIND, USAGE, refused},
    site::{reload_well, stop_well, wait_only_generation, wait_serving},
    transports::{ask, echo},
};

/// On loopback, from the first of these ports on.
fn loopback(ports: &[Port]) -> String {
    format!("127.0.0.1:{}+{{slot}}", ports[0])
}

fn serving(workers: usize, socket: impl std::fmt::Display) -> Builder {
    Daemon::run().workers(workers).listen(socket).command(http_rust())
}

/// The slot that answers there.
fn slot_at(address: impl Into<Address>) -> Option<String> {
    let body = get(address, "/").ok()?.body;
    body.split_ascii_whitespace().nth(2).map(str::to_owned)
}

#[track_caller]
fn wait_slot(daemon: &Daemon, port: &Port, slot: usize) {
    let what = format!("an answer of slot {slot} on port {port}");
    daemon.eventually(&what, || (slot_at(port.v4())? == slot.to_string()).then_some(()));
}

#[track_caller]
fn wait_closed(daemon: &Daemon, port: &Port) {
    let what = format!("port {port} to be closed");
    daemon.eventually(&what, || TcpStream::connect(port.v4()).is_err().then_some(()));
}

#[test]
fn each_slot_answers_on_its_own_port_which_outlives_restarts_and_reloads() {
    let ports = free_ports(3);
    // Nobody can know it before, so it is not the user's to set.
    let daemon = serving(3, loopback(&ports)).args(["--env", "PORT=1"]).start();
    wait_serving(&daemon, 3);
    for worker in daemon.worker_processes() {
        let slot: usize = worker.slot.and_then(|slot| slot.parse().ok()).expect("a slot");
        let variables = environment(worker.pid);
        assert_eq!(variables["PORT"], ports[slot].to_string());
        assert_eq!(variables["LISTEN_FDS"], "1");
    }
    let loads: Vec<Load> =
        ports.iter().map(|port| Load::start(port.v4(), [(Kind::New, 1)])).collect();
    for load in &loads {
        load.wait_ok(20);
    }
    for generation in 2..=3 {
        reload_well(&daemon);
        wait_only_generation(&daemon, generation, 3);
        for load in &loads {
            load.wait_ok(5);
        }
    }
    for (slot, load) in loads.into_iter().enumerate() {
        let report = load.stop();
        report.assert_clean();
        assert_eq!(report.slots.len(), 1, "{report}");
        wait_slot(&daemon, &ports[slot], slot);
    }
    stop_well(&daemon);
    assert!(TcpStream::connect(ports[0].v4()).is_err());
}

#[test]
fn connections_to_the_port_of_a_killed_worker_wait_for_the_next_one() {
    let ports = free_ports(2);
    let daemon = serving(2, loopback(&ports)).start();
    let workers = wait_serving(&daemon, 2);
    for worker in workers {
        Process::open(worker).expect("it lives").signal(Signal::SIGKILL).expect("it is ours");
        // Whether the next one is there yet or not.
        for (slot, port) in ports.iter().enumerate() {
            assert_eq!(slot_at(port.v4()), Some(slot.to_string()));
        }
    }
    stop_well(&daemon);
}

#[test]
fn more_slots_get_their_ports_and_those_of_fewer_are_closed() {
    let ports = free_ports(3);
    let daemon = serving(1, loopback(&ports)).start();
    wait_serving(&daemon, 1);
    for _ in 0..2 {
        for (slot, port) in ports.iter().enumerate().skip(1) {
            daemon.signal(Signal::SIGTTIN);
            wait_slot(&daemon, port, slot);
        }
        for port in ports.iter().skip(1).rev() {
            daemon.signal(Signal::SIGTTOU);
            wait_closed(&daemon, port);
        }
        wait_slot(&daemon, &ports[0], 0);
    }
    let said = format!(": slot 2 has `127.0.0.1:{}`", ports[2]);
    assert_eq!(daemon.count_lines(|line| line.ends_with(&said)), 2);
    stop_well(&daemon);
}

#[test]
fn a_slot_whose_port_is_taken_stays_empty_until_it_is_free_and_holds_nobody_up() {
    let ports = free_ports(3);
    let taken = TcpListener::bind(ports[1].v4()).expect("it is free");
    let daemon = serving(1, loopback(&ports)).start();
    wait_serving(&daemon, 1);
    daemon.signal(Signal::SIGTTIN);
    let empty = format!(": slot 1 stays empty: cannot bind `127.0.0.1:{}`: the addr", ports[1]);
    let line = daemon.wait_line(|line| line.contains(&empty), &empty);
    assert!(line.contains("; trying again in ") && line.contains("ERROR"), "{line}");
    daemon.signal(Signal::SIGTTIN);
    wait_slot(&daemon, &ports[2], 2);
    reload_well(&daemon);
    wait_only_generation(&daemon, 2, 2);
    drop(taken);
    wait_slot(&daemon, &ports[1], 1);
    wait_only_generation(&daemon, 2, 3);
    stop_well(&daemon);
}

#[test]
fn at_start_all_slots_get_their_ports_or_nothing_starts() {
    let ports = free_ports(3);
    let taken = TcpListener::bind(ports[2].v4()).expect("it is free");
    let address = format!("cannot bind `127.0.0.1:{}`: the address is in use", ports[2]);
    refused(serving(3, loopback(&ports)), BIND, &[&address]);
    assert!(TcpStream::connect(ports[0].v4()).is_err());
    drop(taken);
}

#[test]
fn a_slot_without_a_port_is_refused_before_anything_is_bound() {
    refused(
        serving(4, "127.0.0.1:65533+{slot}"),
        USAGE,
        &["`127.0.0.1:65533+{slot}` has ports for 3 slots", "4 workers are asked for"],
    );
    let elsewhere = "`{slot}` stands behind a port, as in `8001+{slot}`";
    refused(serving(1, "8001{slot}"), USAGE, &["cannot read socket `8001{slot}`", elsewhere]);
}

#[test]
fn ports_of_slots_end_at_the_last_one() {
    // Nobody else's: it is above the ports of outgoing connections, and no other test has it.
    let daemon = serving(1, "127.0.0.1:65535+{slot}").start();
    wait_serving(&daemon, 1);
    daemon.signal(Signal::SIGTTIN);
    let stays = ": the number of workers stays: its sockets have no ports for more";
    daemon.wait_line(|line| line.ends_with(stays), stays);
    stop_well(&daemon);
}

#[test]
fn datagrams_come_to_the_slot_of_their_port() {
    let ports = free_ports(2);
    let daemon = echo().workers(2).listen(format!("udp:127.0.0.1:{}+{{slot}}", ports[0])).start();
    wait_serving(&daemon, 2);
    for generation in 1..=2 {
        for port in &ports {
            assert_eq!(ask(port.v4(), "hello"), format!("{generation} hello"));
        }
        for worker in daemon.workers() {
            let variables = environment(worker);
            assert_eq!(variables["LISTEN_FDS"], "1");
            assert!(!variables.contains_key("PORT"), "no stream comes there");
        }
        if generation == 1 {
            reload_well(&daemon);
            wait_only_generation(&daemon, 2, 2);
        }
    }
    stop_well(&daemon);
}

#[test]
fn a_path_a_slot_is_healed_as_any_and_goes_with_the_slot() {
    let home = Home::new();
    let path = |slot: &str| home.directory().join(format!("web.{slot}.sock"));
    let paths: [PathBuf; 2] = [path("0"), path("1")];
    let daemon = serving(2, format!("unix:{}", path("{slot}").display())).home(&home).start();
    wait_serving(&daemon, 2);
    let slot_at = |slot: usize| slot_at(Address::Unix(paths[slot].clone()));
    assert_eq!([slot_at(0), slot_at(1)], [Some("0".to_owned()), Some("1".to_owned())]);
    for worker in daemon.workers() {
        assert!(!environment(worker).contains_key("PORT"));
    }

    std::fs::remove_file(&paths[1]).expect("it is there");
    daemon.wait_line(|line| line.contains("reload committed"), "that its workers are replaced");
    assert_eq!([slot_at(0), slot_at(1)], [Some("0".to_owned()), Some("1".to_owned())]);
    daemon.signal(Signal::SIGTTOU);
    daemon.eventually("the path of slot 1 to be gone", || (!paths[1].exists()).then_some(()));
    assert_eq!(slot_at(0), Some("0".to_owned()));
    stop_well(&daemon);
    assert!(!paths[0].exists());
}
