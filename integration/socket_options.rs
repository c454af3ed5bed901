//! Each option of a socket, as the kernel has it on the socket that a worker was given; and what is
//! said where one cannot be had.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::{
        fd::AsRawFd,
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::UnixStream,
        },
    },
    path::Path,
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
    unistd::geteuid,
};

use crate::{
    harness::{Builder, Daemon, Home, free_port},
    inherited::handed_over,
    mistakes::{BIND, CONFIGURATION, USAGE, as_nobody, refused},
};

/// A daemon whose worker leaves its sockets alone.
fn idle(builder: Builder) -> Daemon {
    let builder = builder.args(["--ready", "alive:1ms"]).command(["sleep", "1000"]);
    let daemon = builder.start();
    daemon.wait_line(|line| line.contains("1 worker ready"), "ready");
    daemon
}

/// Says what the kernel has for some options of each of its sockets, and then of the first connection.
const SHOW: &str = "\
import os, signal, socket, sys
# (level, option) as in the kernel's headers; Python does not name all of them.
options = {
    'reuse_port': (1, 15), 'keep_alive': (1, 9), 'mark': (1, 36), 'receive_buffer': (1, 8),
    'send_buffer': (1, 7), 'freebind': (0, 15), 'transparent': (0, 19), 'v6only': (41, 26),
    'freebind6': (41, 78), 'transparent6': (41, 75), 'no_delay': (6, 1), 'defer_accept': (6, 9),
    'fast_open': (6, 23), 'bind_to_device': (1, 25),
}
def show(label, s):
    values = []
    for name in sys.argv[1:]:
        if name == 'bind_to_device': value = s.getsockopt(*options[name], 16).rstrip(bytes(1)).decode()
        else: value = s.getsockopt(*options[name])
        values.append(f'{name}={value}')
    print(label, *values, flush=True)
sockets = [socket.socket(fileno=3 + n) for n in range(int(os.environ['LISTEN_FDS']))]
for s in sockets: show(s.getsockname()[0], s)
print('shown', flush=True)
if sockets[0].type == socket.SOCK_STREAM: show('accepted', sockets[0].accept()[0])
signal.pause()
";

/// Starts a worker that shows these options (separated by blanks) of its sockets.
#[track_caller]
fn showing(builder: Builder, options: &str) -> Daemon {
    let command = ["python3", "-c", SHOW].into_iter().chain(options.split(' '));
    let daemon = builder.args(["--ready", "alive:1ms"]).command(command).start();
    daemon.wait_line(|line| line == "shown", "what the kernel has");
    daemon
}

/// Asserts that the kernel has this for the one socket, at this address.
#[track_caller]
fn assert_shown(socket: &str, address: &str, expected: &str) -> Daemon {
    let options: Vec<&str> =
        expected.split(' ').map(|pair| pair.split_once('=').expect("a pair").0).collect();
    let daemon = showing(Daemon::run().listen(socket), &options.join(" "));
    let lines: Vec<String> = daemon.lines().into_iter().map(|line| line.text).collect();
    let wanted = format!("{address} {expected}");
    assert!(lines.contains(&wanted), "{socket}: `{wanted}` is not in:\n{}", lines.join("\n"));
    daemon
}

#[test]
fn without_options_the_kernel_has_its_defaults() {
    // What is bound begins a group, in which nobody else gets anything.
    let plain = "reuse_port=1 keep_alive=0 no_delay=0 defer_accept=0 fast_open=0 mark=0 freebind=0 \
                 transparent=0 bind_to_device=";
    assert_shown("127.0.0.1:0", "127.0.0.1", plain);
    assert_shown("0", "::", "v6only=0 reuse_port=1");
}

#[test]
fn each_option_of_tcp_is_on_the_socket() {
    for (option, expected) in [
        ("reuse_port", "reuse_port=1"),
        ("freebind", "freebind=1"),
        ("fast_open=16", "fast_open=16"),
        // As many retransmissions as fill the time: after 1, 3 and 7 seconds.
        ("defer_accept=5s", "defer_accept=7"),
        ("no_delay", "no_delay=1"),
        ("keep_alive", "keep_alive=1"),
        ("bind_to_device=lo", "bind_to_device=lo"),
        // The kernel doubles a buffer's size for what it needs itself.
        ("receive_buffer=100000", "receive_buffer=200000"),
        ("send_buffer=64k", "send_buffer=131072"),
    ] {
        assert_shown(&format!("127.0.0.1:0,{option}"), "127.0.0.1", expected);
    }
}

#[test]
fn each_option_of_udp_is_on_the_socket() {
    for (option, expected) in [
        ("reuse_port", "reuse_port=1"),
        ("freebind", "freebind=1"),
        ("bind_to_device=lo", "bind_to_device=lo"),
        ("receive_buffer=100000,send_buffer=64k", "receive_buffer=200000 send_buffer=131072"),
    ] {
        assert_shown(&format!("udp:127.0.0.1:0,{option}"), "127.0.0.1", expected);
    }
    assert_shown("udp:0,v6only", "::", "v6only=1");
}

#[test]
fn options_that_need_privilege_are_on_the_socket_where_we_have_it() {
    if !geteuid().is_root() {
        return;
    }
    for prefix in ["", "udp:"] {
        for (socket, address, expected) in [
            ("127.0.0.1:0,mark=0x2a", "127.0.0.1", "mark=42"),
            ("[::1]:0,mark=4294967295", "::1", "mark=-1"),
            // TEST-NET-1 and a prefix for documentation (RFC 5737, RFC 3849): no interface has them.
            ("192.0.2.1:0,transparent", "192.0.2.1", "transparent=1 freebind=0"),
            ("[2001:db8::1]:0,transparent", "2001:db8::1", "transparent6=1 freebind6=0"),
        ] {
            assert_shown(&format!("{prefix}{socket}"), address, expected);
        }
    }
    // Past the kernel's limit, as the privilege allows.
    let limit: u32 = setting("net/core/rmem_max");
    let wanted = limit + 4096;
    let daemon = assert_shown(
        &format!("127.0.0.1:0,receive_buffer={wanted}"),
        "127.0.0.1",
        &format!("receive_buffer={}", wanted * 2),
    );
    assert_eq!(daemon.count_lines(|line| line.contains("WARN")), 0);
}

#[test]
fn an_address_that_is_not_there_yet_is_bound_with_freebind() {
    for (socket, address, expected) in [
        ("192.0.2.1:0,freebind", "192.0.2.1", "freebind=1 transparent=0"),
        ("[2001:db8::1]:0,freebind", "2001:db8::1", "freebind6=1 transparent6=0"),
    ] {
        assert_shown(socket, address, expected);
    }
}

#[test]
fn v6only_leaves_ipv4_to_others() {
    for transport in ["", "udp:"] {
        for host in ["", "[::]:"] {
            let port = free_port();
            let daemon =
                showing(Daemon::run().listen(format!("{transport}{host}{port},v6only")), "v6only");
            assert_eq!(daemon.count_lines(|line| line == ":: v6only=1"), 1);
            let start = format!(" on {transport}[::]:{port}");
            assert_eq!(daemon.count_lines(|line| line.ends_with(&start)), 1, "{start}");
            TcpListener::bind(port.v4()).expect("IPv4 is free");
            std::net::UdpSocket::bind(port.v4()).expect("IPv4 is free");
        }
    }
}

#[test]
fn both_sockets_of_localhost_have_the_options() {
    let daemon = showing(
        Daemon::run().listen("localhost:0,no_delay,keep_alive,reuse_port,freebind"),
        "no_delay keep_alive reuse_port",
    );
    for address in ["127.0.0.1", "::1"] {
        let wanted = format!("{address} no_delay=1 keep_alive=1 reuse_port=1");
        assert_eq!(daemon.count_lines(|line| line == wanted), 1, "{wanted}");
    }
}

#[test]
fn accepted_connections_have_what_the_socket_has() {
    let port = free_port();
    let daemon = showing(
        Daemon::run().listen(format!(
            "127.0.0.1:{port},no_delay,keep_alive,receive_buffer=100000,send_buffer=64k"
        )),
        "no_delay keep_alive receive_buffer send_buffer",
    );
    let _client = TcpStream::connect(port.v4()).expect("it listens");
    daemon.wait_line(
        |line| line == "accepted no_delay=1 keep_alive=1 receive_buffer=200000 send_buffer=131072",
        "the same on a connection",
    );
}

#[test]
fn a_shared_port_serves_for_both_and_each_is_told_of_the_other() {
    let port = free_port();
    let socket = format!("127.0.0.1:{port},reuse_port");
    let first = idle(Daemon::run().listen(&socket));
    assert_eq!(first.count_lines(|line| line.contains("WARN")), 0);
    let second = idle(Daemon::run().listen(&socket));
    second.wait_line(
        |line| {
            line.ends_with(&format!(
                "`shepherd` (pid {}) serves on 127.0.0.1:{port} too, and each gets a share of what \
                 comes, unless it steers all to itself, as shepherd does without `reuse_port`; \
                 stop it if that is not meant",
                first.pid()
            ))
        },
        "who shares it",
    );
    // Who does not ask for a share does not get one.
    let text = refused(
        Daemon::run().listen(format!("127.0.0.1:{port}")).command(["sleep", "1000"]),
        BIND,
        &["the address is in use by `shepherd`"],
    );
    assert!(text.contains("stop it or choose another port"), "{text}");
    // Who does not give one keeps all, though the other is let in and told.
    let port = free_port();
    let alone = idle(Daemon::run().listen(format!("127.0.0.1:{port}")));
    let asks = idle(Daemon::run().listen(format!("127.0.0.1:{port},reuse_port")));
    let other = format!("(pid {}) serves on 127.0.0.1:{port} too", alone.pid());
    asks.wait_line(|line| line.contains(&other), "who has the address");
}

#[test]
fn a_handed_over_socket_gets_the_options_that_do_not_come_too_late() {
    let port = free_port();
    let daemon = showing(
        handed_over(&[format!("127.0.0.1:{port}")], "")
            .listen(format!("127.0.0.1:{port},no_delay,freebind,reuse_port,backlog=7")),
        "no_delay freebind reuse_port",
    );
    let wanted = "127.0.0.1 no_delay=1 freebind=0 reuse_port=0";
    assert_eq!(daemon.count_lines(|line| line == wanted), 1);
    let told = format!(
        "127.0.0.1:{port} was handed over to us as it is, so `reuse_port`, `freebind` is left as it \
         was; set it where the socket is made"
    );
    assert_eq!(daemon.count_lines(|line| line.contains("WARN") && line.ends_with(&told)), 1);
}

/// A setting of the kernel.
fn setting(path: &str) -> u32 {
    let text = fs::read_to_string(format!("/proc/sys/{path}")).expect("a setting");
    text.trim().parse().expect("a number")
}

#[test]
fn fast_open_that_is_switched_off_for_servers_is_told() {
    let daemon = idle(Daemon::run().listen("127.0.0.1:0,fast_open=16"));
    let setting = setting("net/ipv4/tcp_fastopen");
    let told = format!(
        "fast_open of 127.0.0.1:0 does nothing, because the kernel's net.ipv4.tcp_fastopen is \
         {setting}; set that to 3"
    );
    let count = daemon.count_lines(|line| line.contains("WARN") && line.ends_with(&told));
    assert_eq!(count, usize::from(setting & 2 == 0));
}

/// Somebody without privilege.
fn unprivileged() -> Builder {
    if geteuid().is_root() { as_nobody() } else { Daemon::run() }
}

#[test]
fn a_buffer_that_the_kernel_cuts_is_told_with_both_numbers() {
    for (option, path) in
        [("receive_buffer", "net/core/rmem_max"), ("send_buffer", "net/core/wmem_max")]
    {
        let limit = setting(path);
        let wanted = limit + 4096;
        let daemon = idle(unprivileged().listen(format!("udp:127.0.0.1:0,{option}={wanted}")));
        let told = format!(
            "the {option} {wanted} of udp:127.0.0.1:0 is cut to {limit}, the kernel's {}; raise \
             that, or ask for less",
            path.replace('/', ".")
        );
        assert_eq!(daemon.count_lines(|line| line.contains("WARN") && line.ends_with(&told)), 1);
    }
}

#[test]
fn an_option_that_cannot_be_set_is_refused_with_its_cause_and_the_next_step() {
    let needs = "permission denied; it needs CAP_NET_ADMIN, such as by `AmbientCapabilities=` of a \
                 unit, or leave it away";
    let nowhere = "there is no such interface; `ip link` shows those that are";
    for (socket, option, cause) in [
        ("127.0.0.1:0", "mark=42", needs),
        ("udp:127.0.0.1:0", "mark=42", needs),
        ("127.0.0.1:0", "transparent", needs),
        ("[::1]:0", "transparent", needs),
        ("127.0.0.1:0", "bind_to_device=nowhere0", nowhere),
    ] {
        let builder = unprivileged().listen(format!("{socket},{option}"));
        let text = refused(builder.command(["sleep", "1000"]), BIND, &[]);
        let expected = format!("cannot set `{option}` on `{socket}`: {cause}");
        assert!(text.contains(&expected), "`{expected}` is not in:\n{text}");
    }
}

fn unix(path: &Path, options: &str) -> String {
    format!("unix:{}{options}", path.display())
}

#[test]
fn a_unix_path_has_the_mode_and_owner_that_were_asked_for() {
    let home = Home::new();
    let path = home.directory().join("web.sock");
    let (owner, options) = if geteuid().is_root() {
        ((4711, 4712), ",mode=0604,user=4711,group=4712")
    } else {
        // To oneself anybody may give a file.
        ((geteuid().as_raw(), nix::unistd::getegid().as_raw()), ",mode=0604")
    };
    let daemon = idle(Daemon::run().home(&home).listen(unix(&path, options)));
    let found = fs::metadata(&path).expect("the path");
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o7777, 0o604);
    assert_eq!((found.uid(), found.gid()), owner);
    assert!(daemon.stop().success());
    assert!(!path.exists());
}

#[test]
fn an_owner_is_found_by_name() {
    if !geteuid().is_root() {
        return;
    }
    let home = Home::new();
    let path = home.directory().join("packets.sock");
    let packets = format!("seqpacket:{},user=nobody,group=root", path.display());
    let _daemon = idle(Daemon::run().home(&home).listen(packets));
    let nobody = nix::unistd::User::from_name("nobody").expect("users").expect("nobody");
    let found = fs::metadata(&path).expect("the path");
    assert_eq!((found.uid(), found.gid()), (nobody.uid.as_raw(), 0));
}

#[test]
fn a_path_that_is_to_be_kept_stays_after_the_stop_and_is_replaced_at_the_next_start() {
    let home = Home::new();
    let path = home.directory().join("web.sock");
    let first = idle(Daemon::run().home(&home).listen(unix(&path, ",unlink=no")));
    assert!(first.stop().success());
    let stale = fs::metadata(&path).expect("it stays");
    assert!(stale.file_type().is_socket());
    UnixStream::connect(&path).expect_err("nobody listens");
    let second = idle(Daemon::run().home(&home).listen(unix(&path, "")));
    UnixStream::connect(&path).expect("it listens");
    assert!(second.stop().success());
    assert!(!path.exists());
}

#[test]
fn a_unix_socket_lets_as_many_wait_as_its_backlog_says() {
    let home = Home::new();
    let path = home.directory().join("web.sock");
    let _daemon = idle(Daemon::run().home(&home).listen(unix(&path, ",backlog=3")));
    let address = UnixAddr::new(&path).expect("a path");
    let mut waiting = Vec::new();
    let refusal = loop {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let client = socket(AddressFamily::Unix, SockType::Stream, flags, None).expect("a socket");
        match connect(client.as_raw_fd(), &address) {
            Ok(()) => waiting.push(client),
            Err(errno) => break errno,
        }
        assert!(waiting.len() < 100, "there is no limit");
    };
    // The kernel lets one more in than listen(2) was told (`unix_recvq_full`).
    assert_eq!((waiting.len(), refusal), (4, Errno::EAGAIN));
}

#[test]
fn an_unknown_owner_is_a_wrong_configuration_and_nothing_is_bound_before() {
    let home = Home::new();
    let first = home.directory().join("first.sock");
    let second = unix(&home.directory().join("second.sock"), "");
    for kind in ["user", "group"] {
        // Had it been bound, the file in the way would have been found first.
        fs::write(&first, "in the way").expect("written");
        let text = refused(
            Daemon::run()
                .home(&home)
                .listen(unix(&first, ""))
                .listen(format!("{second},{kind}=no-such-{kind}"))
                .command(["sleep", "1000"]),
            CONFIGURATION,
            &[],
        );
        let expected = format!(
            "cannot bind `{second}`: this machine has no {kind} `no-such-{kind}`; create the \
             {kind} first, or write a number"
        );
        assert!(text.contains(&expected), "`{expected}` is not in:\n{text}");
    }
}

#[test]
fn a_file_that_may_not_be_given_away_is_refused_and_not_left() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("ours");
    let path = directory.path().join("web.sock");
    let text = refused(
        unprivileged().listen(unix(&path, ",user=0")).command(["sleep", "1000"]),
        BIND,
        &[],
    );
    let expected = format!(
        "cannot bind `{}`: its file cannot be given to another user or group: Operation not \
         permitted; that needs CAP_CHOWN, or for a group that this user is in it",
        unix(&path, "")
    );
    assert!(text.contains(&expected), "`{expected}` is not in:\n{text}");
    assert!(!path.exists());
}

#[test]
fn a_socket_is_non_blocking_from_the_start_where_that_is_asked_for() {
    const SHOW_FLAGS: &str = "\
import fcntl, os, signal
for fd in range(3, 3 + int(os.environ['LISTEN_FDS'])):
    print(fd, 'waits' if not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK else 'never waits', flush=True)
signal.pause()
";
    let home = Home::new();
    let path = home.directory().join("x.sock");
    let builder = Daemon::run().home(&home).args(["--ready", "alive:1ms"]);
    let daemon = builder
        .listen("127.0.0.1:0,non_blocking")
        .listen(format!("unix:{},non_blocking", path.display()))
        .listen("udp:127.0.0.1:0,non_blocking=yes")
        .listen("127.0.0.1:0")
        .command(["python3", "-c", SHOW_FLAGS])
        .start();
    for line in ["3 never waits", "4 never waits", "5 never waits", "6 waits"] {
        daemon.wait_line(|text| text == line, "the mode of each socket");
    }
}

#[test]
fn a_mistake_in_an_option_is_wrong_usage_and_says_what_to_write() {
    for (socket, cause) in [
        ("unix:x,mod=0600", "it has no option `mod`; there is `mode`; for a comma write `,,`"),
        (
            "8000,no-delay",
            "it has no option `no-delay`; there is `no_delay`; for a comma write `,,`",
        ),
        (
            "8000,x=1",
            "it has no option `x`; there are backlog, reuse_port, v6only, freebind, transparent, \
             bind_to_device, fast_open, defer_accept, no_delay, keep_alive, non_blocking, mark, receive_buffer, \
             send_buffer, mode, user, group, unlink; for a comma write `,,`",
        ),
        ("udp:53,fast_open=9", "the option `fast_open` is for TCP sockets only; leave it away"),
        ("[::1]:80,v6only", "the option `v6only` is for a bare port or `[::]` only; leave it away"),
        ("unix:x,mark=1", "the option `mark` is for TCP and UDP sockets only; leave it away"),
        ("8000,mode=0600", "the option `mode` is for unix sockets with a path only; leave it away"),
        (
            "unix:@x,unlink=no",
            "the option `unlink` is for unix sockets with a path only; leave it away",
        ),
        ("unix:x,unlink", "the option `unlink` needs a value; write `unlink=no`"),
        ("unix:x,mode=rw", "`mode=rw` is not an octal number from 0 to 0777; write `mode=0660`"),
        ("unix:x,user=a,user=b", "the option `user` is given twice; give it once"),
        (
            "8000,",
            "there is nothing after a comma; write an option such as `backlog=1024`, or `,,` for a \
             comma",
        ),
    ] {
        let text = refused(Daemon::run().listen(socket).command(["sleep", "1000"]), USAGE, &[]);
        let expected = format!("cannot read socket `{socket}`: {cause}");
        assert!(text.contains(&expected), "`{expected}` is not in:\n{text}");
    }
}
