//! Real groups on the loopback.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, connect, socket,
};
use nix::sys::socket::{Shutdown, bind, shutdown};

use super::*;
use crate::os::listeners::{Listener, bind_all};
use crate::os::sock_diag::SockDiag;
use crate::protocol::steering_program::{Admitted, Family};

/// So many members of one group.
fn group(spec: &str, members: usize) -> Vec<Listener> {
    let bound = bind_all(&[spec.parse().unwrap()], Vec::new()).unwrap();
    let mut group = bound.listeners;
    assert_eq!(group.len(), 1, "{spec}");
    while group.len() < members {
        group.push(group[0].join().unwrap());
    }
    group
}

fn plan(weights: &[u32]) -> Plan {
    Plan { weights: weights.to_vec(), spread: Spread::Connections, admitted: Vec::new() }
}

fn steer(through: &Listener, weights: &[u32]) {
    attach(&through.fd, &compile(&plan(weights))).unwrap();
}

/// Where clients reach it: of both families one after the other, where it has both.
fn reached(listener: &Listener) -> Vec<SocketAddr> {
    let port = listener.address.port().unwrap();
    let text = listener.address.to_string();
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let v6 = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port));
    match text.starts_with('[') {
        true if text.contains("IPv4") => vec![v4, v6],
        true => vec![v6],
        false => vec![v4],
    }
}

/// How many of so many connections each member gets.
fn connections(group: &[Listener], to: SocketAddr, count: usize) -> Vec<usize> {
    let clients: Vec<_> = (0..count).map(|_| TcpStream::connect(to).unwrap()).collect();
    let shares = group.iter().map(accepted).collect();
    drop(clients);
    shares
}

fn accepted(listener: &Listener) -> usize {
    let listener = TcpListener::from(listener.fd.try_clone().unwrap());
    listener.set_nonblocking(true).unwrap();
    let mut count = 0;
    while listener.accept().is_ok() {
        count += 1;
    }
    count
}

fn received(listener: &Listener) -> usize {
    let receiver = UdpSocket::from(listener.fd.try_clone().unwrap());
    receiver.set_nonblocking(true).unwrap();
    let mut count = 0;
    while receiver.recv_from(&mut [0; 16]).is_ok() {
        count += 1;
    }
    count
}

/// The order of a group as the kernel has it: which member each index is.
fn order(group: &[Listener], through: &Listener) -> Vec<usize> {
    let to = reached(&group[0])[0];
    let only = |index: usize| {
        let mut weights = vec![0; group.len()];
        weights[index] = 1;
        steer(through, &weights);
        let shares = connections(group, to, 2);
        shares.iter().position(|share| *share == 2).unwrap()
    };
    (0..group.len()).map(only).collect()
}

fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

#[test]
fn connections_are_spread_by_weight_and_a_program_takes_effect_at_once() {
    for spec in ["127.0.0.1:0", "[::1]:0", "0"] {
        if spec != "127.0.0.1:0" && !has_ipv6() {
            continue;
        }
        let group = group(spec, 4);
        for to in reached(&group[0]) {
            steer(&group[2], &[1, 0, 1, 2]);
            let shares = connections(&group, to, 400);
            assert_eq!((shares[1], shares.iter().sum::<usize>()), (0, 400), "{shares:?}");
            // Six standard deviations.
            for (share, wanted) in [(shares[0], 100), (shares[2], 100), (shares[3], 200)] {
                assert!(share.abs_diff(wanted) < 60, "{shares:?}");
            }
            steer(&group[0], &[0, 1, 0, 0]);
            assert_eq!(connections(&group, to, 50), [0, 50, 0, 0]);
        }
    }
}

#[test]
fn from_the_start_whoever_joins_gets_nothing() {
    let tcp = group("127.0.0.1:0", 3);
    assert_eq!(connections(&tcp, reached(&tcp[0])[0], 60), [60, 0, 0]);
    let udp = group("udp:127.0.0.1:0", 3);
    let to = reached(&udp[0])[0];
    for _ in 0..60 {
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", to).unwrap();
    }
    assert_eq!(udp.iter().map(received).collect::<Vec<_>>(), [60, 0, 0]);
}

#[test]
fn a_port_of_ours_reaches_a_member_that_gets_nothing() {
    for spec in ["127.0.0.1:0", "[::1]:0", "0"] {
        if spec != "127.0.0.1:0" && !has_ipv6() {
            continue;
        }
        let group = group(spec, 3);
        for to in reached(&group[0]) {
            let (kind, none) = (SockType::Stream, SockFlag::SOCK_CLOEXEC);
            let (family, admits) = match to {
                SocketAddr::V4(_) => (AddressFamily::Inet, Family::V4),
                SocketAddr::V6(_) => (AddressFamily::Inet6, Family::V6),
            };
            let client = socket(family, kind, none, None).unwrap();
            let mut from = to;
            from.set_port(0);
            let raw = client.as_raw_fd();
            match from {
                SocketAddr::V4(from) => bind(raw, &SockaddrIn::from(from)).unwrap(),
                SocketAddr::V6(from) => bind(raw, &SockaddrIn6::from(from)).unwrap(),
            }
            let client = TcpStream::from(client);
            let source_port = client.local_addr().unwrap().port();
            let admitted = vec![Admitted { family: admits, source_port, index: 2 }];
            let plan = Plan { admitted, ..plan(&[1, 1, 0]) };
            attach(&group[0].fd, &compile(&plan)).unwrap();
            match to {
                SocketAddr::V4(to) => connect(raw, &SockaddrIn::from(to)).unwrap(),
                SocketAddr::V6(to) => connect(raw, &SockaddrIn6::from(to)).unwrap(),
            }
            let others = connections(&group[..2], to, 20);
            assert_eq!(others.iter().sum::<usize>(), 20);
            assert_eq!(accepted(&group[2]), 1);
        }
    }
}

#[test]
fn datagrams_of_one_client_stay_at_one_member_and_clients_spread() {
    for spec in ["udp:127.0.0.1:0", "udp:[::1]:0", "udp:0"] {
        if spec != "udp:127.0.0.1:0" && !has_ipv6() {
            continue;
        }
        let group = group(spec, 4);
        for to in reached(&group[0]) {
            let plan = Plan { spread: Spread::Clients, ..plan(&[1, 0, 1, 1]) };
            attach(&group[3].fd, &compile(&plan)).unwrap();
            let mut clients = [0; 4];
            for _ in 0..60 {
                let client = UdpSocket::bind((to.ip(), 0)).unwrap();
                for _ in 0..3 {
                    client.send_to(b"x", to).unwrap();
                }
                let shares: Vec<_> = group.iter().map(received).collect();
                let member = shares.iter().position(|share| *share == 3);
                clients[member.unwrap_or_else(|| panic!("{shares:?}"))] += 1;
            }
            assert_eq!(clients[1], 0);
            assert!([0, 2, 3].iter().all(|index| clients[*index] > 3), "{clients:?}");
        }
    }
}

#[test]
fn the_last_takes_the_place_of_one_that_leaves_and_healing_is_joining() {
    let mut group = group("127.0.0.1:0", 3);
    let to = reached(&group[0])[0];
    assert_eq!(order(&group, &group[1]), [0, 1, 2]);
    steer(&group[0], &[0, 1, 0]);
    shutdown(group[1].fd.as_raw_fd(), Shutdown::Both).unwrap();
    // Nothing that would keep it from listening again.
    assert_eq!(attach(&group[1].fd, &compile(&plan(&[1]))), Err(Errno::ENOTCONN));
    assert_eq!(connections(&group, to, 10), [0, 0, 10]);
    group[1].listen_again().unwrap();
    assert_eq!(connections(&group, to, 10), [0, 0, 10], "the program is there still");
    assert_eq!(order(&group, &group[1]), [0, 2, 1]);
    let closed = group.remove(0);
    closed.close();
    assert_eq!(order(&group, &group[0]), [0, 1]);
}

#[test]
fn a_member_that_was_shut_down_twice_is_told_from_the_others() {
    let group = group("127.0.0.1:0", 2);
    let port = group[0].address.port().unwrap();
    shutdown(group[1].fd.as_raw_fd(), Shutdown::Both).unwrap();
    shutdown(group[1].fd.as_raw_fd(), Shutdown::Both).unwrap_err();
    sys::listen(&group[1].fd, 5).unwrap();
    let mut diagnosis = SockDiag::open().unwrap();
    let poisoned = group.iter().map(|member| diagnosis.is_poisoned(port, member.inode).unwrap());
    assert_eq!(poisoned.collect::<Vec<_>>(), [Some(false), Some(true)]);
}

#[test]
fn the_program_of_one_alone_is_lost_with_its_shutdown() {
    let mut alone = group("127.0.0.1:0", 1);
    let to = reached(&alone[0])[0];
    shutdown(alone[0].fd.as_raw_fd(), Shutdown::Both).unwrap();
    alone[0].listen_again().unwrap();
    let second = alone[0].join().unwrap();
    alone.push(second);
    let shares = connections(&alone, to, 100);
    assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
    steer(&alone[0], &[1, 0]);
    assert_eq!(connections(&alone, to, 100), [100, 0]);
}

#[test]
fn no_privilege_is_needed() {
    if nix::unistd::geteuid().is_root() {
        // The same in a process of somebody else: a change of user shows in a whole process.
        let mut again = std::process::Command::new("/proc/self/exe");
        let name = "os::steering::tests::no_privilege_is_needed";
        let output = again.args(["--exact", name]).uid(65534).gid(65534).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let group = group("127.0.0.1:0", 2);
    assert_eq!(group[0].can_group(), Ok(()));
    steer(&group[0], &[0, 1]);
    assert_eq!(connections(&group, reached(&group[0])[0], 20), [0, 20]);
}

#[test]
fn the_longest_program_fits_and_a_longer_one_is_refused() {
    let group = group("127.0.0.1:0", 1);
    let weights: Vec<u32> = (0..4000).map(|index| index / 2 % 2 * (2 + index / 4 % 5)).collect();
    let program = compile(&Plan { spread: Spread::Clients, ..plan(&weights) });
    assert_eq!(attach(&group[0].fd, &program), Ok(()));
    let longer = [program.as_slice(), &program].concat();
    assert_eq!(attach(&group[0].fd, &longer), Err(Errno::EINVAL));
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(attach(&plain, &program), Err(Errno::EINVAL));
}

#[test]
fn what_waits_in_a_queue_stays_there() {
    let group = group("127.0.0.1:0", 2);
    let to = reached(&group[0])[0];
    let mut early = TcpStream::connect(to).unwrap();
    steer(&group[0], &[0, 1]);
    assert_eq!(connections(&group[1..], to, 5), [5]);
    assert_eq!(accepted(&group[0]), 1);
    assert_eq!(early.read(&mut [0]).unwrap(), 0, "it was taken and closed");
}
