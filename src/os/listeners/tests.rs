//! Real sockets on the loopback and in directories of their own.

use super::*;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockaddrStorage, bind, getsockopt, setsockopt, shutdown,
    socket, sockopt,
};

use crate::core::event::Mode;

#[test]
fn a_bare_port_serves_both_families() {
    let [listener] = listeners(&["web=0"]);
    let port = listener.address.port().unwrap();
    assert_ne!(port, 0);
    assert_eq!(listener.name.as_deref(), Some("web"));
    assert_eq!(listener.origin, Origin::Bound);
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    if has_ipv6() {
        assert_eq!(listener.address, LocalAddress::DualStack(port));
        TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
    }
}

#[test]
fn a_listener_is_set_up_for_handing_on() {
    for spec in ["0", "127.0.0.1:0", "localhost:0"] {
        for listener in bind_all(&specs(&[spec]), Vec::new()).unwrap().listeners {
            let flags = FdFlag::from_bits_truncate(fcntl(&listener.fd, FcntlArg::F_GETFD).unwrap());
            assert!(flags.contains(FdFlag::FD_CLOEXEC));
            assert!(getsockopt(&listener.fd, sockopt::AcceptConn).unwrap());
            assert!(getsockopt(&listener.fd, sockopt::ReuseAddr).unwrap());
            assert!(getsockopt(&listener.fd, sockopt::ReusePort).unwrap());
            let link = format!("/proc/self/fd/{}", listener.fd.as_raw_fd());
            let link = std::fs::read_link(link).unwrap();
            assert_eq!(link.to_str(), Some(&*format!("socket:[{}]", listener.inode)));
        }
    }
}

#[test]
fn an_explicit_wildcard_of_ipv6_serves_both_families_and_an_address_only_its_own() {
    if !has_ipv6() {
        return;
    }
    let [wildcard] = listeners(&["[::]:0"]);
    assert!(matches!(wildcard.address, LocalAddress::DualStack(_)));
    let [loopback] = listeners(&["[::1]:0"]);
    assert!(getsockopt(&loopback.fd, sockopt::Ipv6V6Only).unwrap());
}

#[test]
fn localhost_is_one_port_on_both_families() {
    let bound = bind_all(&specs(&["localhost:0"]), Vec::new()).unwrap().listeners;
    let port = bound[0].address.port().unwrap();
    let addresses: Vec<_> = bound.iter().map(|listener| listener.address.clone()).collect();
    let expected = loopbacks(port).map(LocalAddress::Ip);
    assert_eq!(addresses, expected[..if has_ipv6() { 2 } else { 1 }]);
}

#[test]
fn a_bare_port_is_refused_while_anybody_listens_on_a_part_of_it() {
    let addresses = if has_ipv6() { &["0.0.0.0:0", "127.0.0.1:0", "[::1]:0"][..] } else { &[] };
    for address in addresses {
        let holder = TcpListener::bind(address).unwrap();
        let port = holder.local_addr().unwrap().port();
        let error = bind_all(&specs(&[&port.to_string()]), Vec::new()).unwrap_err();
        let own = std::process::id();
        let name = std::fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(
            error.to_string(),
            format!(
                "cannot bind `[::]:{port}`: the address is in use by `{}` (pid {own}); stop \
                 it or choose another port",
                name.trim_end()
            )
        );
    }
}

#[test]
fn a_bound_socket_that_listens_first_makes_listen_fail() {
    // Both have SO_REUSEADDR, so that bind lets both in.
    let first = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
    let first = first.unwrap();
    setsockopt(&first, sockopt::ReuseAddr, &true).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    bind(first.as_raw_fd(), &SockaddrStorage::from(any)).unwrap();
    let address = LocalAddress::of(&first).unwrap().unwrap();
    let [second] = listeners(&[&address.to_string()]);
    assert_eq!(listen(&first, 1), Err(Errno::EADDRINUSE));
    drop(second);
}

#[test]
fn datagrams_are_received_on_both_families_and_nobody_else_gets_the_port() {
    let [bare] = listeners(&["udp:0"]);
    let port = bare.address.port().unwrap();
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    client.connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    client.send(b"x").unwrap();
    let server = UdpSocket::from(bare.fd.try_clone().unwrap());
    assert_eq!(server.recv(&mut [0; 8]).unwrap(), 1);
    assert!(!getsockopt(&bare.fd, sockopt::ReuseAddr).unwrap());
    for spec in [format!("udp:{port}"), format!("udp:127.0.0.1:{port}")] {
        let error = bind_all(&specs(&[&spec]), Vec::new()).unwrap_err().to_string();
        let own = format!("(pid {}); stop it or choose another port", std::process::id());
        assert!(error.ends_with(&own) && error.contains(&format!(":{port}`")), "{error}");
    }
    // A port of the other transport is another port; somebody else may have just this one.
    let both = || {
        let [udp] = listeners(&["udp:0"]);
        let tcp = format!("127.0.0.1:{}", udp.address.port().unwrap());
        bind_all(&specs(&[&tcp]), Vec::new()).is_ok()
    };
    assert!((0..10).any(|_| both()));

    let bound = bind_all(&specs(&["udp:localhost:0"]), Vec::new()).unwrap().listeners;
    let port = bound[0].address.port().unwrap();
    let addresses: Vec<_> = bound.iter().map(|listener| listener.address.clone()).collect();
    let expected = loopbacks(port).map(LocalAddress::Ip);
    assert_eq!(addresses, expected[..if has_ipv6() { 2 } else { 1 }]);
}

#[test]
fn abstract_names_are_bound_and_told_apart_by_what_they_carry() {
    let name = format!("shepherd-test-names-{}", std::process::id());
    let texts = [format!("unix:@{name}"), format!("seqpacket:@{name}")];
    let [stream, packets] = listeners(&texts.each_ref().map(String::as_str));
    assert_eq!([stream.place(), packets.place()], texts);
    for text in &texts {
        let error = bind_all(&specs(&[text]), Vec::new()).unwrap_err().to_string();
        let own = std::process::id();
        assert!(error.starts_with(&format!("cannot bind `{text}`: `")), "{error}");
        let end = format!("(pid {own}) has the name; stop it or choose another name");
        assert!(error.ends_with(&end), "{error}");
    }
    drop(stream);
    bind_all(&specs(&[&texts[0]]), Vec::new()).unwrap();
}

#[test]
fn listens_again_after_a_shutdown_and_with_its_own_backlog() {
    let [mut tcp] = listeners(&["127.0.0.1:0,backlog=7"]);
    let to = tcp.address.reachable().unwrap();
    shutdown(tcp.fd.as_raw_fd(), Shutdown::Both).unwrap();
    TcpStream::connect(to).expect_err("it was shut down");
    tcp.listen_again().unwrap();
    TcpStream::connect(to).unwrap();
    assert_eq!(tcp.backlog, Some(7));
    let [mut udp] = listeners(&["udp:127.0.0.1:0"]);
    assert_eq!(udp.listen_again(), Ok(()));
}

#[test]
fn one_that_stops_listening_refuses_and_keeps_its_port_until_it_listens_again() {
    for spec in ["127.0.0.1:0", "0"] {
        let [mut first] = listeners(&[spec]);
        let mut second = first.join().unwrap();
        let port = first.address.port().unwrap();
        for _ in 0..2 {
            for one in [&first, &second] {
                assert!(one.can_refuse());
                one.stop_listening().unwrap();
                one.stop_listening().unwrap();
            }
            let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect_err("refused");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            // Even from whoever has SO_REUSEADDR, as this one.
            let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect_err("it is ours");
            assert_eq!(taken.kind(), ErrorKind::AddrInUse);
            first.listen_again().unwrap();
            second.listen_again().unwrap();
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            assert!(getsockopt(&first.fd, sockopt::ReuseAddr).unwrap());
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let unix = format!("unix:{}", directory.path().join("x.sock").display());
    let [unix, udp] = listeners(&[&unix, "udp:127.0.0.1:0"]);
    assert!(!unix.can_refuse() && !udp.can_refuse());
}

#[test]
fn what_the_kernel_cuts_is_told_once_for_each_socket_that_asked() {
    let limits = Limits { somaxconn: Some(128), fast_open: Some(1) };
    let of = |text: &str, limits| {
        let spec: SocketSpec = text.parse().unwrap();
        let said = warning::of(&spec, &[], &limits);
        said.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let cut = |option: &str, place: &str| {
        format!(
            "the {option} 200 of {place} is cut to 128, the kernel's net.core.somaxconn; raise \
             that, or ask for less"
        )
    };
    assert_eq!(of("8000,backlog=200", limits), [cut("backlog", "8000")]);
    assert_eq!(of("a=localhost:80,backlog=200", limits), [cut("backlog", "localhost:80")]);
    assert_eq!(
        of("8000,fast_open=200", limits),
        [
            cut("fast_open", "8000"),
            "fast_open of 8000 does nothing, because the kernel's net.ipv4.tcp_fastopen is 1; set \
             that to 3"
                .to_owned()
        ]
    );
    for fine in ["8000", "udp:53", "8000,backlog=128"] {
        assert!(of(fine, limits).is_empty(), "{fine}");
    }
    let unknown = Limits { somaxconn: None, fast_open: None };
    assert!(of("8000,backlog=200,fast_open=200", unknown).is_empty());
    assert!(Limits::read().somaxconn.is_some() && Limits::read().fast_open.is_some());
}

#[test]
fn a_shared_port_is_told_of_and_our_own_is_not_taken_twice() {
    let [first] = listeners(&["127.0.0.1:0,reuse_port"]);
    let port = first.address.port().unwrap();
    let shared = format!("127.0.0.1:{port},reuse_port");
    let bound = bind_all(&specs(&[&shared]), Vec::new()).unwrap();
    let [warning] = &bound.warnings[..] else { panic!("{:?}", bound.warnings) };
    let own = format!("(pid {}) serves on 127.0.0.1:{port} too", std::process::id());
    assert!(warning.to_string().contains(&own), "{warning}");
    drop(bound);
    // Whoever does not ask for it is refused, and so is who asks twice.
    let alone = format!("127.0.0.1:{port}");
    let error = bind_all(&specs(&[&alone]), Vec::new()).unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }), "{error}");
    drop(first);
    for transport in ["", "udp:"] {
        let spec = format!("{transport}{shared}");
        let error = bind_all(&specs(&[&spec, &spec]), Vec::new()).unwrap_err();
        assert!(matches!(error, BindError::Twice { .. }), "{error}");
    }
}

#[test]
fn another_socket_of_a_group_is_like_the_first() {
    for text in [
        "127.0.0.1:0,backlog=7,no_delay,keep_alive,freebind,bind_to_device=lo,receive_buffer=100000",
        "udp:127.0.0.1:0,freebind,bind_to_device=lo,receive_buffer=100000",
        "web=0,non_blocking",
        "[::]:0,v6only,backlog=7",
        "udp:0",
    ] {
        if !text.contains("127.") && !has_ipv6() {
            continue;
        }
        let [first] = listeners(&[text]);
        assert_eq!(first.can_group(), Ok(()), "{text}");
        let second = first.join().unwrap();
        alike(&first, &second, text);
        // The group stays when its first member goes.
        drop(first);
        alike(&second, &second.join().unwrap(), text);
    }
}

fn alike(first: &Listener, second: &Listener, text: &str) {
    assert_ne!(first.inode, second.inode);
    let shown = |listener: &Listener| {
        let Listener { fd, name, address, backlog, backlog_cut, .. } = listener;
        let options = [
            (libc::SOL_SOCKET, libc::SO_REUSEPORT),
            (libc::SOL_SOCKET, libc::SO_REUSEADDR),
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
            (libc::SOL_SOCKET, libc::SO_RCVBUF),
            (libc::SOL_SOCKET, libc::SO_ACCEPTCONN),
            (libc::SOL_SOCKET, libc::SO_MARK),
            (libc::SOL_SOCKET, libc::SO_PRIORITY),
            (libc::IPPROTO_TCP, libc::TCP_NODELAY),
            (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT),
            (libc::IPPROTO_IP, libc::IP_FREEBIND),
            (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
        ];
        let options =
            options.map(|(level, option)| sys::socket_option(fd, level, option).unwrap_or(-1));
        let device = getsockopt(fd, sockopt::BindToDevice).unwrap();
        let mode = listener.state().unwrap().mode;
        format!("{name:?} {address} {backlog:?} {backlog_cut:?} {options:?} {device:?} {mode}")
    };
    assert_eq!(shown(first), shown(second), "{text}");
}

#[test]
fn what_was_handed_over_has_others_beside_it_where_the_kernel_lets_it() {
    let plain = tcp_listener();
    let shared = |reuse_port| {
        let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
        let socket = socket.unwrap();
        setsockopt(&socket, sockopt::ReusePort, &reuse_port).unwrap();
        setsockopt(&socket, sockopt::IpFreebind, &true).unwrap();
        setsockopt(&socket, sockopt::KeepAlive, &true).unwrap();
        sys::set_socket_option(&socket, libc::SOL_SOCKET, libc::SO_PRIORITY, 5).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        bind(socket.as_raw_fd(), &SockaddrStorage::from(any)).unwrap();
        TcpListener::from(socket)
    };
    let inherited = vec![from(plain, Some("a")), from(shared(true), Some("b"))];
    let bound = bind_all(&[], inherited).unwrap();
    let [alone, first] = <[Listener; 2]>::try_from(bound.listeners).unwrap();
    assert_eq!(alone.can_group(), Err(Ungroupable::HandedOverAlone));
    let error = alone.join().unwrap_err().to_string();
    let end =
        "it was handed over without SO_REUSEPORT; `ReusePort=yes` of its socket unit sets that";
    assert_eq!(error, format!("cannot bind another socket to `{}`: {end}", alone.place()));
    assert_eq!(first.can_group(), Ok(()));
    alike(&first, &first.join().unwrap(), "handed over");
}

#[test]
fn what_another_user_handed_over_stays_alone() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let [made] = listeners(&["127.0.0.1:0"]);
    nix::unistd::fchown(&made.fd, Some(65534.into()), None).unwrap();
    let theirs = TcpListener::from(made.fd);
    let bound = bind_all(&[], vec![from(theirs, None)]).unwrap();
    let cause = bound.listeners[0].can_group();
    assert_eq!(cause, Err(Ungroupable::OtherUser { uid: 65534 }));
}

#[test]
fn unix_sockets_and_shared_ports_stay_alone() {
    let name = format!("unix:@shepherd-test-alone-{}", std::process::id());
    let [unix, shared] = listeners(&[&name, "127.0.0.1:0,reuse_port"]);
    assert_eq!(unix.can_group(), Err(Ungroupable::Unix));
    assert_eq!(shared.can_group(), Err(Ungroupable::Shared));
}

#[test]
fn a_group_takes_the_address_from_nobody() {
    for transport in ["", "udp:"] {
        // Of ours, which would let others join, and of others who would.
        let [ours] = listeners(&[&*format!("{transport}127.0.0.1:0")]);
        let [theirs] = listeners(&[&*format!("{transport}127.0.0.1:0,reuse_port")]);
        for taken in [&ours, &theirs] {
            let port = taken.address.port().unwrap();
            for address in ["127.0.0.1:", ""] {
                let spec = format!("{transport}{address}{port}");
                bind_all(&specs(&[&spec]), Vec::new()).unwrap_err();
            }
        }
    }
}

#[test]
fn a_path_that_is_gone_is_bound_again_and_others_are_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    let [unix, tcp] = listeners(&[&*format!("unix:{},mode=0600", path.display()), "127.0.0.1:0"]);
    assert!(unix.has_its_path() && tcp.has_its_path());
    assert!(unix.renew().unwrap().is_none() && tcp.renew().unwrap().is_none());
    std::fs::remove_file(&path).unwrap();
    assert!(!unix.has_its_path());
    let renewed = unix.renew().unwrap().unwrap();
    assert_ne!(renewed.inode, unix.inode);
    assert!(renewed.has_its_path() && !unix.has_its_path());
    unix.close();
    UnixStream::connect(&path).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // The same when its file is there and a worker has shut it down.
    shutdown(renewed.fd.as_raw_fd(), Shutdown::Both).unwrap();
    UnixStream::connect(&path).unwrap_err();
    let again = renewed.renew().unwrap().unwrap();
    UnixStream::connect(&path).unwrap();
    renewed.close();
    again.close();
    assert!(!path.exists());
}

#[test]
fn a_path_that_is_bound_again_is_non_blocking_where_that_was_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    for (option, mode) in [("", Mode::Blocking), (",non_blocking", Mode::NonBlocking)] {
        let [mut unix] = listeners(&[&*format!("unix:{}{option}", path.display())]);
        for _ in 0..2 {
            std::fs::remove_file(&path).unwrap();
            let renewed = unix.renew().unwrap().unwrap();
            assert_eq!(renewed.state().unwrap().mode, mode);
            unix.close();
            unix = renewed;
        }
        unix.close();
    }
}

#[test]
fn a_file_that_is_to_be_kept_stays_after_a_life_and_not_after_a_start_that_failed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    let unix = format!("unix:{},unlink=no", path.display());
    let [listener] = listeners(&[&*unix]);
    listener.close();
    assert!(path.exists());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    bind_all(&specs(&[&unix, &taken]), Vec::new()).unwrap_err();
    assert!(!path.exists());
}

#[test]
fn an_owner_that_is_not_known_is_refused_before_anything_is_bound() {
    let directory = tempfile::tempdir().unwrap();
    let first = format!("unix:{}", directory.path().join("first.sock").display());
    let path = directory.path().join("second.sock");
    std::fs::write(&path, "in the way").unwrap();
    let second = format!("unix:{}", path.display());
    let wanted = [&*first, &format!("{second},group=no-such")];
    let error = bind_all(&specs(&wanted), Vec::new()).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "cannot bind `{second}`: this machine has no group `no-such`; create the group first, \
             or write a number"
        )
    );
}

#[test]
fn options_of_a_handed_over_socket_that_come_too_late_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    let place = format!("unix:{}", path.display());
    let inherited = vec![from(UnixListener::bind(&path).unwrap(), None)];
    let wanted = format!("{place},mode=0600,backlog=5,unlink=no");
    let bound = bind_all(&specs(&[&wanted]), inherited).unwrap();
    let said: Vec<_> = bound.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [format!(
            "{place} was handed over to us as it is, so `mode`, `unlink` is left as it was; set it \
             where the socket is made"
        )]
    );
    assert_eq!(bound.listeners[0].backlog, Some(5));
}

#[test]
fn all_are_bound_or_none() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    let unix = format!("unix:{}", path.display());
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = free_port();
    let taken = holder.local_addr().unwrap().to_string();
    let wanted = [&*unix, &*format!("127.0.0.1:{free}"), &*taken];
    bind_all(&specs(&wanted), Vec::new()).unwrap_err();
    assert!(!path.exists());
    let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, free)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn what_is_asked_for_twice_is_said_to_be() {
    let directory = tempfile::tempdir().unwrap();
    let unix = format!("unix:{}", directory.path().join("x.sock").display());
    let tcp = format!("127.0.0.1:{}", free_port());
    let udp = format!("udp:{tcp}");
    let name = format!("unix:@shepherd-test-twice-{}", std::process::id());
    for spec in [&tcp, &unix, &udp, &name] {
        let error = bind_all(&specs(&[spec, spec]), Vec::new()).unwrap_err();
        assert!(matches!(error, BindError::Twice { .. }), "{error}");
    }
    // A path is one file, whatever it carries.
    let packets = unix.replace("unix:", "seqpacket:");
    let error = bind_all(&specs(&[&unix, &packets]), Vec::new()).unwrap_err();
    assert!(matches!(error, BindError::Twice { .. }), "{error}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_foreign_address_is_refused_by_name() {
    // TEST-NET-1 and a documentation prefix: no interface has them (RFC 5737, RFC 3849).
    let bind = |spec| bind_all(&specs(&[spec]), Vec::new()).unwrap_err();
    assert_eq!(
        bind("192.0.2.1:80").to_string(),
        "cannot bind `192.0.2.1:80`: no interface of this machine has that address"
    );
    let error = bind("[2001:db8::1]:80");
    let expected = matches!(error, BindError::NoSuchAddress { .. } | BindError::NoIpv6 { .. });
    assert!(expected, "{error}");
}

#[test]
fn close_removes_the_file_of_our_own_unix_socket_only() {
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join("own.sock");
    let handed = directory.path().join("handed.sock");
    let text = [&own, &handed].map(|path| format!("unix:{}", path.display()));
    let inherited = vec![from(UnixListener::bind(&handed).unwrap(), None)];
    let bound = bind_all(&specs(&[&*text[0], &*text[1]]), inherited).unwrap();
    assert_eq!(bound.listeners[1].origin, Origin::Inherited);
    assert_eq!(bound.listeners[0].address.to_string(), text[0]);
    UnixStream::connect(&own).unwrap();
    assert_ne!(std::fs::metadata(&own).unwrap().ino(), bound.listeners[0].inode);
    for listener in bound.listeners {
        listener.close();
    }
    assert!(!own.exists());
    assert!(handed.exists());
}

#[test]
fn a_name_takes_all_handed_over_sockets_of_that_name_whatever_their_address() {
    let sockets = [tcp_listener(), tcp_listener(), tcp_listener()];
    let addresses = sockets.each_ref().map(|socket| socket.local_addr().unwrap());
    let names = [Some("web"), None, Some("web")];
    let inherited = sockets.into_iter().zip(names).map(|(socket, name)| from(socket, name));
    // The second specification has the address of a socket that the name takes.
    let other = addresses[1].to_string();
    let wanted = ["web=1", &*other, "web=2"];
    let bound = bind_all(&specs(&wanted), inherited.collect()).unwrap();
    let found: Vec<_> = bound.listeners.iter().map(|listener| &listener.address).collect();
    let expected = [0, 2, 1].map(|index| LocalAddress::Ip(addresses[index]));
    assert_eq!(found, expected.iter().collect::<Vec<_>>());
    assert!(bound.listeners.iter().all(|listener| listener.origin == Origin::Inherited));
    assert!(bound.unused.is_empty());
}

#[test]
fn a_named_socket_that_cannot_be_served_is_refused() {
    let server = tcp_listener();
    let connection = TcpStream::connect(server.local_addr().unwrap()).unwrap();
    let inherited = vec![from(connection, Some("web"))];
    let error = bind_all(&specs(&["web=0"]), inherited).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot use the handed-over socket `web`: it is a connection (is `Accept=yes` set?); \
         shepherd serves sockets that accept connections or receive datagrams"
    );
}

#[test]
fn what_nobody_asks_for_is_given_back() {
    let asked = tcp_listener();
    let address = asked.local_addr().unwrap().to_string();
    let inherited = vec![from(tcp_listener(), Some("extra")), from(asked, Some("systemd"))];
    let bound = bind_all(&specs(&[&*address]), inherited).unwrap();
    assert_eq!(bound.listeners.len(), 1);
    assert_eq!(bound.listeners[0].name.as_deref(), Some("systemd"));
    assert_eq!(bound.unused.len(), 1);
    assert_eq!(bound.unused[0].name.as_deref(), Some("extra"));
}

#[test]
fn without_specifications_every_handed_over_socket_that_serves_is_used() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let idle = tcp_not_listening();
    let listener = tcp_listener();
    let connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let inherited = vec![
        from(connection, None),
        from(listener, Some("a")),
        from(idle, None),
        from(udp, Some("dns")),
    ];
    let bound = bind_all(&[], inherited).unwrap();
    assert_eq!(bound.unused.len(), 1);
    let names: Vec<_> = bound.listeners.iter().map(|listener| listener.name.as_deref()).collect();
    assert_eq!(names, [Some("a"), None, Some("dns")]);
    for listener in &bound.listeners[..2] {
        TcpStream::connect(listener.address.reachable().unwrap()).unwrap();
    }
    assert_eq!(bound.listeners[2].transport, Transport::Datagram);
}

#[test]
fn localhost_takes_what_was_handed_over_and_binds_the_rest() {
    if !has_ipv6() {
        return;
    }
    // What is free for the one family may be somebody's in the other.
    let (port, bound) = (0..100)
        .find_map(|_| {
            let v6 = TcpListener::bind("[::1]:0").unwrap();
            let port = v6.local_addr().unwrap().port();
            let wanted = format!("localhost:{port}");
            Some((port, bind_all(&specs(&[&*wanted]), vec![from(v6, None)]).ok()?))
        })
        .unwrap();
    let found: Vec<_> = bound
        .listeners
        .iter()
        .map(|listener| (listener.address.clone(), listener.origin))
        .collect();
    let [first, second] = loopbacks(port).map(LocalAddress::Ip);
    assert_eq!(found, [(first, Origin::Bound), (second, Origin::Inherited)]);
}

#[test]
fn knows_which_handed_over_address_serves_which_specification() {
    let tcp = |text: &str| LocalAddress::Ip(text.parse().unwrap());
    let stream = [
        ("80", LocalAddress::DualStack(80), true),
        ("80", tcp("0.0.0.0:80"), true),
        ("80", tcp("[::]:80"), true),
        ("80", tcp("127.0.0.1:80"), false),
        ("80", LocalAddress::DualStack(81), false),
        ("0", LocalAddress::DualStack(80), false),
        ("[::]:80", LocalAddress::DualStack(80), true),
        ("0.0.0.0:80", LocalAddress::DualStack(80), false),
        ("127.0.0.1:80", tcp("127.0.0.1:80"), true),
        ("127.0.0.1:80", tcp("127.0.0.1:81"), false),
        ("127.0.0.1:80", tcp("0.0.0.0:80"), false),
        ("localhost:80", tcp("127.0.0.1:80"), true),
        ("localhost:80", tcp("[::1]:80"), true),
        ("localhost:80", LocalAddress::DualStack(80), false),
        ("unix:/tmp/x", LocalAddress::Unix("/tmp/../tmp/x".into()), true),
        ("unix:/tmp/x", LocalAddress::Unix("/tmp/y".into()), false),
        ("unix:./x", LocalAddress::Abstract(b"x".to_vec()), false),
        ("unix:@x", LocalAddress::Abstract(b"x".to_vec()), true),
        ("unix:@x", LocalAddress::Abstract(b"y".to_vec()), false),
        ("unix:@x", LocalAddress::Unix("@x".into()), false),
        ("udp:80", LocalAddress::DualStack(80), false),
        ("seqpacket:@x", LocalAddress::Abstract(b"x".to_vec()), false),
    ]
    .map(|(wanted, held, expected)| (wanted, Transport::Stream, held, expected));
    let others = [
        ("80,v6only", Transport::Stream, LocalAddress::DualStack(80), false),
        ("80,v6only", Transport::Stream, tcp("0.0.0.0:80"), false),
        ("80,v6only", Transport::Stream, tcp("[::]:80"), true),
        ("[::]:80,v6only", Transport::Stream, LocalAddress::DualStack(80), false),
        ("udp:80", Transport::Datagram, LocalAddress::DualStack(80), true),
        ("80", Transport::Datagram, LocalAddress::DualStack(80), false),
        ("udp:localhost:80", Transport::Datagram, tcp("[::1]:80"), true),
        ("seqpacket:@x", Transport::Seqpacket, LocalAddress::Abstract(b"x".to_vec()), true),
        ("seqpacket:/tmp/x", Transport::Seqpacket, LocalAddress::Unix("/tmp/x".into()), true),
        ("unix:/tmp/x", Transport::Seqpacket, LocalAddress::Unix("/tmp/x".into()), false),
    ];
    for (wanted, transport, held, expected) in stream.into_iter().chain(others) {
        let spec: SocketSpec = wanted.parse().unwrap();
        assert_eq!(serves(transport, &held, &spec), expected, "{held} for {wanted}");
    }
}

fn specs(texts: &[&str]) -> Vec<SocketSpec> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn listeners<const COUNT: usize>(texts: &[&str; COUNT]) -> [Listener; COUNT] {
    let bound = bind_all(&specs(texts), Vec::new()).unwrap();
    bound.listeners.try_into().unwrap()
}

fn from(socket: impl Into<OwnedFd>, name: Option<&str>) -> Inherited {
    Inherited::new(socket.into(), name.map(str::to_owned)).unwrap()
}

fn tcp_listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn tcp_not_listening() -> OwnedFd {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
    let fd = fd.unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    bind(fd.as_raw_fd(), &SockaddrStorage::from(any)).unwrap();
    fd
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    tcp_listener().local_addr().unwrap().port()
}

fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

#[test]
fn what_was_shut_down_twice_listens_again_and_its_connections_can_be_read() {
    for spec in ["127.0.0.1:0", "0"] {
        let [mut tcp] = listeners(&[spec]);
        let port = tcp.address.port().unwrap();
        for _ in 0..2 {
            shutdown(tcp.fd.as_raw_fd(), Shutdown::Both).unwrap();
            shutdown(tcp.fd.as_raw_fd(), Shutdown::Both).unwrap_err();
            tcp.listen_again().unwrap();
            let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (mut accepted, _) =
                TcpListener::from(tcp.fd.try_clone().unwrap()).accept().unwrap();
            client.write_all(b"hello").unwrap();
            let mut bytes = [0; 5];
            accepted.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"hello");
        }
    }
}
