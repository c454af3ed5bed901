//! What is open in workers and waits on sockets, as status and metrics show it.

use std::{
    ffi::OsStr,
    io::{Read, Write},
    net::{TcpStream, UdpSocket},
    os::unix::net::UnixStream,
};

use shepherd::control::wire;

use crate::{
    control::{client, status},
    harness::{Builder, Daemon, free_port, get, http_rust, odd},
    site::wait_serving,
};

/// A daemon `web` with one worker that never looks at its sockets.
fn deaf(listen: impl FnOnce(Builder) -> Builder) -> Daemon {
    let odd = odd();
    let command: [&OsStr; 2] = [odd.as_os_str(), "alive".as_ref()];
    let builder = listen(Daemon::run().args(["--name", "web", "--ready", "alive:1ms"]));
    let daemon = builder.command(command).start();
    daemon.wait_line(|line| line.contains("ready") && line.contains("web: "), "the worker");
    daemon
}

fn member(status: &wire::Status) -> &wire::Member {
    &status.services[0].sockets[0].members[0]
}

#[test]
fn connections_that_a_worker_has_open_are_shown_beside_it() {
    let (port, admin) = (free_port(), free_port());
    let monitored = ["--admin".to_owned(), admin.to_string()];
    let builder = Daemon::run().listen(&port).args(["--name", "web"]).args(monitored);
    let daemon = builder.command(http_rust()).start();
    wait_serving(&daemon, 1);
    let client = client(&daemon, "web");
    let none = daemon.eventually("a count", || status(&client).services[0].workers[0].connections);
    assert_eq!(none, 0);
    // It keeps a connection that has been served for a minute.
    let held = [(); 3].map(|()| {
        let mut held = TcpStream::connect(port.v4()).expect("connected");
        held.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        held.read_exact(&mut [0; 9]).expect("an answer");
        held
    });
    daemon.eventually("all three", || {
        (status(&client).services[0].workers[0].connections == Some(3)).then_some(())
    });
    let shown = daemon.client(["status", "--name", "web"]).stdout;
    let lines: Vec<&str> = shown.lines().collect();
    assert!(!lines[3].contains("queued"), "{shown}");
    let column = lines[4].find("CONN").expect("a column");
    assert_eq!(&lines[5][column..column + 4], "   3", "{shown}");
    let page = get(admin.v4(), "/metrics").expect("a page").body;
    assert!(page.contains("shepherd_worker_connections{service=\"web\",slot=\"0\"} 3\n"), "{page}");
    drop(held);
    daemon.eventually("none", || {
        (status(&client).services[0].workers[0].connections == Some(0)).then_some(())
    });
}

#[test]
fn connections_that_nobody_accepts_are_shown_beside_their_socket() {
    let port = free_port();
    let listen = format!("127.0.0.1:{port},backlog=5");
    let daemon = deaf(|builder| builder.args(["-p", &listen]));
    let client = client(&daemon, "web");
    let _waiting: Vec<TcpStream> =
        (0..4).map(|_| TcpStream::connect(port.v4()).expect("connected")).collect();
    daemon.eventually("four that wait", || {
        let status = status(&client);
        let member = member(&status);
        (member.queued == Some(4) && member.queue_max == Some(5)).then_some(())
    });
    let shown = daemon.client(["status", "--name", "web"]).stdout;
    let line = format!("  on 127.0.0.1:{port} (4 of 5 queued)");
    assert_eq!(shown.lines().nth(3), Some(line.as_str()), "{shown}");
}

#[test]
fn what_waits_on_a_unix_socket_and_for_datagrams_is_shown_as_well() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("web.sock");
    let port = free_port();
    let udp = format!("udp:127.0.0.1:{port}");
    let unix = format!("unix:{}", path.display());
    let daemon = deaf(|builder| builder.args(["-p", &udp, "-p", &unix]));
    let client = client(&daemon, "web");
    let _waiting = [(); 2].map(|()| UnixStream::connect(&path).expect("connected"));
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    sender.send_to(b"x", port.v4()).expect("sent");
    daemon.eventually("both", || {
        let status = status(&client);
        let [datagrams, connections] = &status.services[0].sockets[..] else {
            return None;
        };
        let (datagrams, connections) = (&datagrams.members[0], &connections.members[0]);
        assert_eq!((datagrams.queued, connections.queued_bytes), (None, None));
        let bytes = datagrams.queued_bytes.is_some_and(|bytes| bytes > 0);
        (bytes && connections.queued == Some(2)).then_some(())
    });
}
