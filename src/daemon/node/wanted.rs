//! Which of a worker's sockets is the one that its program asks for, and how people are told of one that
//! it does not have.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::config::service::Spelling;
use crate::config::socket::Transport;
use crate::os::local_address::LocalAddress;
use crate::protocol::listen_fds;
use crate::protocol::node_cluster::{Errno, Host, Kind, Wanted};

/// A socket that a worker has.
pub(super) struct Has<'a> {
    pub(super) transport: Transport,
    pub(super) address: &'a LocalAddress,
    /// The absolute path of a unix socket.
    pub(super) path: Option<PathBuf>,
}

/// How well a socket is what was asked for, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Same,
    /// It has more addresses, the one that was asked for among them.
    Wider,
    /// It has one of those that were asked for: the service is to serve there only.
    Narrower,
}

/// Which of the sockets is meant, as an index.
pub(super) fn find(wanted: &Wanted, sockets: &[Has<'_>]) -> Result<usize, Errno> {
    let best = |transport: Transport, host: &Host, port: u16| {
        let fits = sockets.iter().enumerate().filter_map(|(index, socket)| {
            let is_there = socket.transport == transport && port > 0;
            let fit = is_there.then(|| fit(host, port, socket.address)).flatten()?;
            Some((fit, index))
        });
        fits.min().map(|(_, index)| index).ok_or(Errno::EACCES)
    };
    match wanted {
        Wanted::Tcp { host, port } => best(Transport::Stream, host, *port),
        Wanted::Udp { host, port, .. } => best(Transport::Datagram, host, *port),
        Wanted::Unix { path, .. } => {
            let is_it = |socket: &Has<'_>| {
                socket.transport == Transport::Stream
                    && socket.path.as_deref() == Some(Path::new(path))
            };
            sockets.iter().position(is_it).ok_or(Errno::EACCES)
        }
        Wanted::Descriptor { number, kind } => {
            let index = number.checked_sub(u32::from(listen_fds::FIRST)).ok_or(Errno::EBADF)?;
            let index = usize::try_from(index).map_err(|_| Errno::EBADF)?;
            let transport = match kind {
                Kind::Stream => Transport::Stream,
                Kind::Datagram(_) => Transport::Datagram,
            };
            let socket = sockets.get(index).filter(|socket| socket.transport == transport);
            socket.map(|_| index).ok_or(Errno::EBADF)
        }
        // We send none that it could mean.
        Wanted::Given => Err(Errno::EINVAL),
    }
}

fn fit(host: &Host, port: u16, address: &LocalAddress) -> Option<Fit> {
    if address.port() != Some(port) {
        return None;
    }
    let any_v4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let any_v6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let all = match host {
        Host::Any => true,
        Host::V6 { address, only, .. } => address.is_unspecified() && !only,
        Host::V4(_) => false,
    };
    let wanted = match host {
        Host::Any => any_v6,
        Host::V4(address) => IpAddr::V4(*address),
        Host::V6 { address, .. } => IpAddr::V6(*address),
    };
    match address {
        LocalAddress::DualStack(_) if all => Some(Fit::Same),
        LocalAddress::DualStack(_) => Some(Fit::Wider),
        LocalAddress::Ip(socket) => {
            let ip = socket.ip();
            let is_of_its_family = ip.is_ipv4() == wanted.is_ipv4();
            if ip == wanted && !all {
                Some(Fit::Same)
            } else if ip == any_v4 && wanted.is_ipv4() || ip == any_v6 && wanted.is_ipv6() && !all {
                Some(Fit::Wider)
            } else if all || wanted.is_unspecified() && is_of_its_family {
                Some(Fit::Narrower)
            } else {
                None
            }
        }
        LocalAddress::Unix(_) | LocalAddress::Abstract(_) => None,
    }
}

/// What a program asked for and does not get, with the next step.
pub(super) fn refusal(wanted: &Wanted, sockets: &[Has<'_>], spelling: Spelling) -> String {
    let add = |place: &str| match spelling {
        Spelling::Options => format!("add `-p {place}`"),
        Spelling::Keys => format!("add `{place}` to `listen`"),
    };
    let not_ours = |place: String| {
        format!("asked to listen on {place}, which is none of its sockets; {}", add(&place))
    };
    match wanted {
        Wanted::Tcp { port: 0, .. } | Wanted::Udp { port: 0, .. } => format!(
            "asked to listen on a port that the kernel chooses, and its sockets are those that \
             were asked for; have it listen on a port, and {}",
            add("PORT")
        ),
        Wanted::Tcp { host, port } => not_ours(place(host, *port)),
        Wanted::Udp { host, port, .. } => not_ours(format!("udp:{}", place(host, *port))),
        Wanted::Unix { path, .. } => not_ours(format!("unix:{path}")),
        Wanted::Descriptor { number, .. } => format!(
            "asked for descriptor {number}, and its {} sockets begin at {}",
            sockets.len(),
            listen_fds::FIRST
        ),
        Wanted::Given => "asked to listen on a server that it was not sent".to_owned(),
    }
}

fn place(host: &Host, port: u16) -> String {
    match host {
        Host::Any => port.to_string(),
        Host::V6 { address, only: false, .. } if address.is_unspecified() => port.to_string(),
        Host::V4(address) => SocketAddr::from((*address, port)).to_string(),
        Host::V6 { address, zone: Some(zone), .. } => format!("[{address}%{zone}]:{port}"),
        Host::V6 { address, zone: None, .. } => SocketAddr::from((*address, port)).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::node_cluster::Access;
    use crate::protocol::node_ipc::DatagramFamily;

    fn tcp(host: Host, port: u16) -> Wanted {
        Wanted::Tcp { host, port }
    }

    fn v4(text: &str) -> Host {
        Host::V4(text.parse().unwrap())
    }

    fn v6(text: &str, only: bool) -> Host {
        Host::V6 { address: text.parse().unwrap(), zone: None, only }
    }

    fn found(wanted: &Wanted, addresses: &[LocalAddress]) -> Result<usize, Errno> {
        let has = |address| Has { transport: Transport::Stream, address, path: None };
        find(wanted, &addresses.iter().map(has).collect::<Vec<_>>())
    }

    fn ip(text: &str) -> LocalAddress {
        LocalAddress::Ip(text.parse().unwrap())
    }

    #[test]
    fn a_bare_port_is_any_address_of_it() {
        let all = [LocalAddress::DualStack(8000)];
        for host in [Host::Any, v4("127.0.0.1"), v4("0.0.0.0"), v6("::1", false), v6("::", true)] {
            assert_eq!(found(&tcp(host.clone(), 8000), &all), Ok(0), "{host:?}");
            assert_eq!(found(&tcp(host, 8001), &all), Err(Errno::EACCES));
        }
        assert_eq!(found(&tcp(Host::Any, 0), &all), Err(Errno::EACCES));
    }

    #[test]
    fn the_nearest_is_taken() {
        let several =
            [LocalAddress::DualStack(80), ip("127.0.0.1:80"), ip("[::1]:80"), ip("0.0.0.0:81")];
        assert_eq!(found(&tcp(v4("127.0.0.1"), 80), &several), Ok(1));
        assert_eq!(found(&tcp(v6("::1", false), 80), &several), Ok(2));
        assert_eq!(found(&tcp(v4("127.0.0.2"), 80), &several), Ok(0));
        assert_eq!(found(&tcp(Host::Any, 80), &several), Ok(0));
        assert_eq!(found(&tcp(v4("127.0.0.2"), 81), &several), Ok(3));
        assert_eq!(found(&tcp(v6("::1", false), 81), &several), Err(Errno::EACCES));
        assert_eq!(found(&tcp(v6("::", true), 81), &several), Err(Errno::EACCES));
    }

    #[test]
    fn who_asks_for_all_addresses_gets_the_one_that_the_service_has() {
        let one = [ip("127.0.0.1:80")];
        for host in [Host::Any, v4("0.0.0.0"), v6("::", false)] {
            assert_eq!(found(&tcp(host, 80), &one), Ok(0));
        }
        assert_eq!(found(&tcp(v4("127.0.0.2"), 80), &one), Err(Errno::EACCES));
        assert_eq!(found(&tcp(v6("::", true), 80), &one), Err(Errno::EACCES));
    }

    #[test]
    fn descriptors_paths_and_datagrams_are_matched_by_what_they_are() {
        let address = LocalAddress::DualStack(53);
        let socket = LocalAddress::Unix("x.sock".into());
        let has = [
            Has { transport: Transport::Datagram, address: &address, path: None },
            Has {
                transport: Transport::Stream,
                address: &socket,
                path: Some("/run/x.sock".into()),
            },
        ];
        let udp = Wanted::Udp { host: v4("0.0.0.0"), port: 53, reuse_address: true };
        assert_eq!(find(&udp, &has), Ok(0));
        assert_eq!(find(&tcp(Host::Any, 53), &has), Err(Errno::EACCES));
        let access = Access { readable_by_all: false, writable_by_all: false };
        let unix = |path: &str| Wanted::Unix { path: path.to_owned(), access };
        assert_eq!(find(&unix("/run/x.sock"), &has), Ok(1));
        assert_eq!(find(&unix("/run/y.sock"), &has), Err(Errno::EACCES));
        let descriptor = |number, kind| Wanted::Descriptor { number, kind };
        let datagram = Kind::Datagram(DatagramFamily::V4);
        assert_eq!(find(&descriptor(4, Kind::Stream), &has), Ok(1));
        assert_eq!(find(&descriptor(3, datagram), &has), Ok(0));
        for (number, kind) in
            [(3, Kind::Stream), (4, datagram), (5, Kind::Stream), (0, Kind::Stream)]
        {
            assert_eq!(find(&descriptor(number, kind), &has), Err(Errno::EBADF));
        }
        assert_eq!(find(&Wanted::Given, &has), Err(Errno::EINVAL));
    }

    #[test]
    fn what_is_refused_is_told_with_what_to_add() {
        let told = |wanted: &Wanted| refusal(wanted, &[], Spelling::Options);
        let ends = |wanted: &Wanted, end: &str| {
            assert!(told(wanted).ends_with(end), "{}", told(wanted));
        };
        ends(&tcp(Host::Any, 9000), "; add `-p 9000`");
        ends(&tcp(v6("::", false), 9000), "; add `-p 9000`");
        ends(&tcp(v4("127.0.0.1"), 9000), "; add `-p 127.0.0.1:9000`");
        ends(&tcp(v6("::1", false), 9000), "; add `-p [::1]:9000`");
        let file = refusal(&tcp(Host::Any, 9000), &[], Spelling::Keys);
        assert!(file.ends_with("; add `9000` to `listen`"), "{file}");
    }
}
