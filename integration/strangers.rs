//! Another process of the same user can serve at a port of ours, if it asks for that
//! (`SO_REUSEPORT`): it gets nothing, and no reload goes wrong by it.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;

use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket,
    sockopt,
};

use crate::{
    harness::{Daemon, Port, get, http_rust},
    site::{Site, reload_well, stop_well, wait_only_generation, wait_serving},
};

/// Joins the group of a port, as a second server of the user would.
fn stranger(port: &Port) -> TcpListener {
    let own = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
    let own = own.expect("a socket");
    setsockopt(&own, sockopt::ReusePort, &true).expect("an option");
    let address = std::net::SocketAddrV4::new(Ipv4Addr::LOCALHOST, port.v4().port());
    bind(own.as_raw_fd(), &SockaddrIn::from(address)).expect("it is let in");
    listen(&own, Backlog::MAXCONN).expect("it listens");
    let listener = TcpListener::from(own);
    listener.set_nonblocking(true).expect("non-blocking");
    listener
}

#[test]
fn who_joins_a_port_gets_nothing_and_is_named_where_a_reload_would_go_wrong() {
    for balance in ["generation", "slots"] {
        let site = Site::new();
        let daemon = Daemon::run()
            .home(&site.home)
            .workers(2)
            .listen(site.port.v4())
            .args(["--name", "web", "--balance", balance])
            .command(http_rust())
            .start();
        wait_serving(&daemon, 2);
        let stranger = stranger(&site.port);
        for _ in 0..40 {
            assert_eq!(get(site.port.v4(), "/").expect("an answer").status, 200);
        }
        stranger.accept().expect_err("it gets nothing");

        let reload = daemon.client(["reload", "--name", "web"]);
        assert_eq!(reload.status.code(), Some(9), "{}", reload.stderr);
        let named = format!("(pid {})", std::process::id());
        assert!(reload.stderr.contains(&named), "{}", reload.stderr);
        assert!(reload.stderr.contains("stop it first"), "{}", reload.stderr);
        wait_only_generation(&daemon, 1, 2);
        assert_eq!(get(site.port.v4(), "/").expect("an answer").status, 200);
        stranger.accept().expect_err("it gets nothing");

        drop(stranger);
        reload_well(&daemon);
        daemon.signal(Signal::SIGTTIN);
        daemon.wait_workers(3);
        assert_eq!(get(site.port.v4(), "/").expect("an answer").status, 200);
        stop_well(&daemon);
    }
}
