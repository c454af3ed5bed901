//! Each option of a socket, as the kernel has it on the socket that a worker was given; and what is
//! said where one cannot be had.

use std::{
    fs,
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
    harness::{Builder, Daemon, Home},
    mistakes::{BIND, CONFIGURATION, USAGE, as_nobody, refused},
};

/// A daemon whose worker leaves its sockets alone.
fn idle(builder: Builder) -> Daemon {
    let builder = builder.args(["--ready", "alive:1ms"]).command(["sleep", "1000"]);
    let daemon = builder.start();
    daemon.wait_line(|line| line.contains("1 worker ready"), "ready");
    daemon
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
    let builder = if geteuid().is_root() { as_nobody() } else { Daemon::run() };
    let text =
        refused(builder.listen(unix(&path, ",user=0")).command(["sleep", "1000"]), BIND, &[]);
    let expected = format!(
        "cannot bind `{}`: its file cannot be given to another user or group: Operation not \
         permitted; that needs CAP_CHOWN, or for a group that this user is in it",
        unix(&path, "")
    );
    assert!(text.contains(&expected), "`{expected}` is not in:\n{text}");
    assert!(!path.exists());
}

#[test]
fn a_mistake_in_an_option_is_wrong_usage_and_says_what_to_write() {
    for (socket, cause) in [
        ("unix:x,mod=0600", "it has no option `mod`; there is `mode`; for a comma write `,,`"),
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
