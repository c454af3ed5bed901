//! Whether two sockets have one address, so that only one of them could be bound.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::socket::{Address, SocketSpec};

/// Whether the kernel refuses the second of two.
pub(super) fn overlap(a: &SocketSpec, b: &SocketSpec) -> bool {
    match (&a.address, &b.address) {
        // Two that share a path are refused whatever they carry, as it is one file; a name without one
        // is another for each type (the kernel's `unix_bind_abstract` looks for name and type).
        (Address::Unix(a), Address::Unix(b)) => a == b,
        (Address::Abstract(name), Address::Abstract(other)) => {
            name == other && a.transport == b.transport
        }
        (Address::Unix(_) | Address::Abstract(_), _)
        | (_, Address::Unix(_) | Address::Abstract(_)) => false,
        _ => {
            let (port, other) = (port(&a.address), port(&b.address));
            let shared = a.options.reuse_port && b.options.reuse_port;
            let apart = matches!(
                (&a.options.bind_to_device, &b.options.bind_to_device),
                (Some(a), Some(b)) if a != b
            );
            a.transport == b.transport
                && port == other
                && port != Some(0)
                && !shared
                && !apart
                && ips(a).iter().any(|&ip| ips(b).iter().any(|&other| same(ip, other)))
        }
    }
}

fn port(address: &Address) -> Option<u16> {
    match address {
        Address::Port(port) | Address::Localhost(port) => Some(*port),
        Address::Ip(address) => Some(address.port()),
        Address::Unix(_) | Address::Abstract(_) => None,
    }
}

/// The addresses that a socket, or the two of `localhost`, takes connections for. A bare port and
/// `[::]` take those of both families.
fn ips(socket: &SocketSpec) -> Vec<IpAddr> {
    let any = |v6only: bool| {
        let v4 = (!v6only).then_some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        std::iter::once(IpAddr::V6(Ipv6Addr::UNSPECIFIED)).chain(v4).collect()
    };
    match &socket.address {
        Address::Port(_) => any(socket.options.v6only),
        Address::Ip(address) if address.ip() == Ipv6Addr::UNSPECIFIED => any(socket.options.v6only),
        Address::Ip(address) => vec![address.ip()],
        Address::Localhost(_) => {
            vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
        }
        Address::Unix(_) | Address::Abstract(_) => Vec::new(),
    }
}

fn same(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_refuses_is_seen_and_nothing_else() {
        for (a, b, overlaps) in [
            ("8000", "8000", true),
            ("8000", "8001", false),
            ("8000", "127.0.0.1:8000", true),
            ("8000", "[::1]:8000", true),
            ("8000,v6only", "127.0.0.1:8000", false),
            ("8000", "0.0.0.0:8000", true),
            ("[::]:8000,v6only", "0.0.0.0:8000", false),
            ("localhost:8000", "127.0.0.1:8000", true),
            ("127.0.0.1:8000", "127.0.0.2:8000", false),
            ("127.0.0.1:8000", "[::1]:8000", false),
            ("8000", "udp:8000", false),
            ("0", "0", false),
            ("8000,reuse_port", "8000,reuse_port", false),
            ("8000,reuse_port", "8000", true),
            ("8000,bind_to_device=a", "8000,bind_to_device=b", false),
            ("8000,bind_to_device=a", "8000", true),
            ("unix:/a", "seqpacket:/a", true),
            ("unix:/a", "unix:/b", false),
            ("unix:@a", "unix:@a", true),
            ("unix:@a", "seqpacket:@a", false),
            ("unix:@a", "8000", false),
        ] {
            let read = |text: &str| text.parse::<SocketSpec>().expect("a socket");
            assert_eq!(overlap(&read(a), &read(b)), overlaps, "{a} and {b}");
            assert_eq!(overlap(&read(b), &read(a)), overlaps, "{b} and {a}");
        }
    }
}
