//! Each kind of socket that can be asked for: where it answers, how workers get it, and what is left
//! of it.

use std::{
    fs,
    net::TcpStream,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::Path,
};

use crate::{
    given::{Given, dump, kill},
    harness::{Address, Builder, Daemon, Home, Port, free_port, get, odd},
    wrapped::wrapped,
};

fn serving() -> Builder {
    Daemon::run().command([odd().as_os_str(), "poll".as_ref()])
}

#[track_caller]
fn started(builder: Builder) -> Daemon {
    let daemon = builder.start();
    daemon.wait_line(|line| line.contains("1 worker ready"), "ready");
    daemon
}

fn unix(path: &Path) -> String {
    format!("unix:{}", path.display())
}

#[track_caller]
fn answers(address: impl Into<Address>) {
    let address = address.into();
    let response = get(&address, "/");
    let status = response.as_ref().map(|response| response.status);
    assert!(matches!(status, Ok(200)), "{address}: {response:?}");
}

/// What each descriptor of a worker is bound to, as the worker sees it, in order.
#[track_caller]
fn names_seen_by_a_worker(builder: Builder) -> Vec<String> {
    let worker = "\
import os, socket, signal
for fd in range(3, 3 + int(os.environ['LISTEN_FDS'])):
    print('fd', fd, socket.socket(fileno=os.dup(fd)).getsockname())
print('names', os.environ['LISTEN_FDNAMES'], flush=True)
signal.pause()
";
    let daemon = builder.args(["--ready", "alive:1ms"]).command(["python3", "-c", worker]).start();
    daemon.wait_line(|line| line.starts_with("names "), "the worker's view");
    let lines = daemon.lines().into_iter().map(|line| line.text);
    lines.filter(|line| line.starts_with("fd ") || line.starts_with("names ")).collect()
}

#[test]
fn an_ipv4_address_answers_there_and_nowhere_else() {
    let port = free_port();
    let daemon = started(serving().listen(port.v4()));
    answers(port.v4());
    TcpStream::connect(port.v6()).expect_err("IPv6 was not asked for");
    TcpStream::connect(("127.0.0.2", port.number())).expect_err("another address");
    assert_eq!(daemon.addresses(), [Address::from(port.v4())]);
}

#[test]
fn an_ipv6_address_answers_there_and_nowhere_else() {
    let port = free_port();
    let daemon = started(serving().listen(port.v6()));
    answers(port.v6());
    TcpStream::connect(port.v4()).expect_err("IPv4 was not asked for");
    assert_eq!(daemon.addresses(), [Address::from(port.v6())]);
}

#[test]
fn a_bare_port_is_one_socket_that_answers_on_both_families() {
    let port = free_port();
    let daemon = started(serving().listen(&port));
    answers(port.v4());
    answers(port.v6());
    assert_eq!(daemon.addresses().len(), 1);
}

#[test]
fn the_ipv4_wildcard_leaves_ipv6_to_others() {
    let port = free_port();
    let _daemon = started(serving().listen(format!("0.0.0.0:{port}")));
    answers(port.v4());
    std::net::TcpListener::bind(port.v6()).expect("IPv6 is free");
}

#[test]
fn localhost_is_two_sockets_and_workers_get_both() {
    let home = Home::new();
    let file = home.directory().join("dump");
    let port = free_port();
    let daemon = started(
        Daemon::run().home(&home).listen(format!("web=localhost:{port}")).command(dump(&file)),
    );
    answers(port.v4());
    answers(port.v6());
    assert_eq!(daemon.addresses(), [port.v4().into(), port.v6().into()]);
    let given = Given::wait(&daemon, &file);
    assert_eq!(given.variable("LISTEN_FDS"), "2");
    assert_eq!(given.variable("LISTEN_FDNAMES"), "web:web");
    daemon.wait_line(
        |line| line.contains(&format!("listening on web=127.0.0.1:{port}")),
        "the first address",
    );
    daemon.wait_line(
        |line| line.contains(&format!("listening on web=[::1]:{port}")),
        "the second address",
    );
}

#[test]
fn port_0_is_a_port_of_the_kernels_choice_that_the_start_line_names() {
    let daemon = started(serving().listen("127.0.0.1:0"));
    let addresses = daemon.addresses();
    let [Address::Tcp(address)] = addresses.as_slice() else {
        panic!("not one TCP address: {addresses:?}");
    };
    assert_ne!(address.port(), 0);
    daemon.wait_line(|line| line.contains(&format!("listening on {address}")), "the address");
    answers(*address);
}

#[test]
fn localhost_port_0_is_the_same_port_on_both_families() {
    let daemon = started(serving().listen("localhost:0"));
    let ports: Vec<u16> = daemon
        .addresses()
        .iter()
        .map(|address| match address {
            Address::Tcp(address) => address.port(),
            Address::Unix(path) => panic!("`{}`", path.display()),
        })
        .collect();
    assert_eq!(ports.len(), 2);
    assert_eq!(ports[0], ports[1]);
}

#[test]
fn several_sockets_come_in_the_order_of_the_command_line_with_their_names() {
    let home = Home::new();
    let path = home.directory().join("web.sock");
    let ports: [Port; 3] = [free_port(), free_port(), free_port()];
    let [first, second, third] = &ports;
    let seen = names_seen_by_a_worker(
        Daemon::run()
            .home(&home)
            .listen(format!("zulu=127.0.0.1:{first}"))
            .listen(unix(&path))
            .listen(format!("[::1]:{second}"))
            .listen(format!("alpha={third}")),
    );
    let expected = [
        format!("fd 3 ('127.0.0.1', {first})"),
        format!("fd 4 {}", path.display()),
        format!("fd 5 ('::1', {second}, 0, 0)"),
        format!("fd 6 ('::', {third}, 0, 0)"),
        "names zulu:unknown:unknown:alpha".to_owned(),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn many_sockets_are_all_handed_over() {
    let home = Home::new();
    let mut builder = Daemon::run().home(&home);
    let count = 40;
    for number in 0..count {
        let path = home.directory().join(format!("{number}.sock"));
        builder = builder.listen(format!("n{number}={}", unix(&path)));
    }
    let seen = names_seen_by_a_worker(builder);
    let path = |number: usize| home.directory().join(format!("{number}.sock"));
    let mut expected: Vec<String> =
        (0..count).map(|number| format!("fd {} {}", 3 + number, path(number).display())).collect();
    let names: Vec<String> = (0..count).map(|number| format!("n{number}")).collect();
    expected.push(format!("names {}", names.join(":")));
    assert_eq!(seen, expected);
}

#[test]
fn a_unix_socket_answers_with_mode_0660_whatever_the_umask() {
    for umask in ["000", "077"] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("web.sock");
        let daemon = started(
            wrapped(&format!("umask {umask}\nexec \"$@\""))
                .listen(unix(&path))
                .command([odd().as_os_str(), "poll".as_ref()]),
        );
        answers(path.as_path());
        let found = fs::metadata(&path).expect("the path");
        assert!(found.file_type().is_socket());
        assert_eq!(found.permissions().mode() & 0o7777, 0o660, "umask {umask}");
        daemon.wait_line(
            |line| line.contains(&format!("listening on {}", unix(&path))),
            "the address",
        );
        assert!(daemon.stop().success());
        assert!(!path.exists());
    }
}

#[test]
fn a_stale_unix_path_is_replaced() {
    let home = Home::new();
    let path = home.directory().join("web.sock");
    drop(UnixListener::bind(&path).expect("a listener"));
    let stale = fs::metadata(&path).expect("a closed listener leaves its path").ino();
    let _daemon = started(serving().home(&home).listen(unix(&path)));
    answers(path.as_path());
    let found = fs::metadata(&path).expect("the path");
    assert_eq!(found.permissions().mode() & 0o777, 0o660, "{stale}");
}

#[test]
fn a_unix_path_that_a_killed_daemon_left_is_replaced() {
    let home = Home::new();
    let path = home.directory().join("web.sock");
    let first = started(serving().home(&home).listen(unix(&path)));
    let workers = first.workers();
    first.signal(nix::sys::signal::Signal::SIGKILL);
    first.wait_exit();
    // A worker that lives on has the socket, and then the path is live.
    for worker in workers {
        kill(worker);
    }
    first.eventually("a stale path", || UnixStream::connect(&path).is_err().then_some(()));
    assert!(path.exists());
    let _second = started(serving().home(&home).listen(unix(&path)));
    answers(path.as_path());
}

#[test]
fn a_unix_path_that_somebody_replaced_is_left_alone_at_the_stop() {
    let home = Home::new();
    let path = home.directory().join("web.sock");
    let daemon = started(serving().home(&home).listen(unix(&path)));
    let other_path = home.directory().join("other.sock");
    let _other = UnixListener::bind(&other_path).expect("a listener");
    let other = fs::metadata(&other_path).expect("its path").ino();
    fs::rename(&other_path, &path).expect("replaced");
    assert!(daemon.stop().success());
    assert_eq!(fs::metadata(&path).expect("still there").ino(), other);
    UnixStream::connect(&path).expect("the other listens");
}

#[test]
fn a_unix_path_that_somebody_removed_does_not_disturb_the_stop() {
    let home = Home::new();
    let path = home.directory().join("web.sock");
    let daemon = started(serving().home(&home).listen(unix(&path)));
    fs::remove_file(&path).expect("removed");
    assert!(daemon.stop().success());
    daemon.assert_nothing_left();
}

#[test]
fn a_relative_unix_path_is_in_the_daemons_directory_not_in_the_workers() {
    let home = Home::new();
    let elsewhere = home.directory().join("elsewhere");
    fs::create_dir(&elsewhere).expect("a directory");
    let daemon = started(
        serving()
            .home(&home)
            .directory(home.directory())
            .args(["--directory", "elsewhere"])
            .listen("unix:web.sock"),
    );
    let path = home.directory().join("web.sock");
    answers(path.as_path());
    assert!(daemon.stop().success());
    assert!(!path.exists());
}

#[test]
fn a_socket_outlives_its_workers() {
    let port = free_port();
    let daemon = started(serving().listen(port.v4()));
    let first = get(&port, "/").expect("an answer").pid;
    for _ in 0..3 {
        let worker = daemon.wait_workers(1)[0];
        kill(worker);
        // Connections wait in the queue while nobody is there to take them.
        answers(port.v4());
    }
    assert_ne!(get(&port, "/").expect("an answer").pid, first);
}
