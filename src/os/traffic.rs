//! How many connections are open in each worker, and how much waits on each socket, for whoever is
//! shown that. It only reads, from any thread, with one look at the kernel's table of sockets for all
//! workers: a few ms for that, and 2 to 4 us for each descriptor of a worker.

use super::descriptors;
use super::left;
use super::listeners::Listener;
use super::memory::{self, Account};
use super::shared_socket;
use super::socket_table::{self, Place, Queue};
use crate::config::socket::Transport;

/// How many descriptors are read in one look, all workers together, in 0.2 to 0.4 s; the workers after
/// that have no number.
const DESCRIPTORS_MAX: usize = 100_000;

/// What waits on each of the sockets, where that is told.
#[must_use]
pub fn queues(places: &[&Place]) -> Vec<Option<Queue>> {
    socket_table::queues(places)
}

/// How much waits on each of these, connections or bytes, where that is told: a microsecond for each of
/// TCP, and one look at the kernel's table for all that receive datagrams, which in theirs counts what
/// was taken at once and elsewhere may not.
#[must_use]
pub fn waiting(listeners: &[&Listener]) -> Vec<Option<u32>> {
    let is_datagram = |listener: &Listener| listener.transport == Transport::Datagram;
    let places: Vec<Place> =
        listeners.iter().filter(|it| is_datagram(it)).map(|it| Place::of(it)).collect();
    let mut datagrams = if places.is_empty() {
        Vec::new()
    } else {
        socket_table::queues(&places.iter().collect::<Vec<_>>())
    }
    .into_iter();
    let waiting = |listener: &&Listener| match listener.transport {
        Transport::Datagram => Some(datagrams.next()??.waiting),
        Transport::Stream | Transport::Seqpacket => shared_socket::waiting(&listener.fd),
    };
    listeners.iter().map(waiting).collect()
}

/// How many connections to one of the sockets are open in each of the workers, where that can be
/// known.
#[must_use]
pub fn connections(places: &[&Place], workers: &[&Account]) -> Vec<Option<u32>> {
    if workers.is_empty() {
        return Vec::new();
    }
    let connections = socket_table::connections(places);
    let mut processes_left = memory::PROCESSES_MAX;
    let mut descriptors_left = DESCRIPTORS_MAX;
    let of_worker = |account: &&Account| {
        if processes_left == 0 || descriptors_left == 0 {
            return None;
        }
        let processes = account.processes();
        processes_left = processes_left.checked_sub(processes.len())?;
        let held = descriptors::held(&processes, &connections.inodes, &mut descriptors_left);
        left::open(&held, &connections)
    };
    workers.iter().map(of_worker).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use nix::sys::stat::fstat;

    use super::*;
    use crate::config::socket::Transport;
    use crate::os::local_address::LocalAddress;

    #[test]
    fn what_is_taken_is_open_and_what_is_not_waits() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        let place = Place {
            inode: fstat(&listener).expect("an inode").st_ino,
            transport: Transport::Stream,
            address: LocalAddress::Ip(address),
        };
        let _clients = [(); 3].map(|()| TcpStream::connect(address).expect("connected"));
        let taken = [(); 2].map(|()| listener.accept().expect("it waits"));
        let ours = Account::of(i32::try_from(std::process::id()).ok());
        let nobody = Account::of(None);
        let open = || connections(&[&place], &[&ours, &nobody]);
        assert_eq!(open(), [Some(2), Some(0)]);
        let waiting = || queues(&[&place])[0].expect("it is told of").waiting;
        // Its handshake may end a moment after connect(2) does.
        assert!((0..3000).any(|_| {
            let _ = nix::poll::poll(&mut [], 10_u8);
            waiting() == 1
        }));
        drop(taken);
        assert_eq!(open(), [Some(0), Some(0)]);
        assert_eq!(connections(&[&place], &[]), []);
    }
}
