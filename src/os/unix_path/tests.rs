//! Real paths in directories of their own.

use super::*;
use nix::sys::socket::{Shutdown, shutdown};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use crate::config::socket::SocketSpec;
use crate::os::clock;

fn bind(path: &Path) -> Result<(OwnedFd, UnixPath), UnixPathError> {
    super::bind(path, Transport::Stream, 16, access(""))
}

/// What these options of a path ask for.
fn access(options: &str) -> Access {
    let spec: SocketSpec = format!("unix:x{options}").parse().unwrap();
    Access::of(&spec.options).unwrap()
}

fn stale(path: &Path) {
    drop(UnixListener::bind(path).unwrap());
}

fn entries(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

#[test]
fn binds_for_owner_and_group_and_removes_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    let (fd, bound) = bind(&path).unwrap();
    let metadata = fs::symlink_metadata(&path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    UnixStream::connect(&path).unwrap();
    bound.remove();
    drop(fd);
    assert_eq!(entries(directory.path()), 0);
}

#[test]
fn replaces_a_stale_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    stale(&path);
    let _bound = bind(&path).unwrap();
    UnixStream::connect(&path).unwrap();
    assert_eq!(entries(directory.path()), 1);
}

#[test]
fn refuses_a_live_socket_and_names_its_holder() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    let _live = UnixListener::bind(&path).unwrap();
    let error = bind(&path).unwrap_err();
    let own = i32::try_from(std::process::id()).unwrap();
    assert!(matches!(error, UnixPathError::Live { holder } if holder.pid == own));
    UnixStream::connect(&path).unwrap();
}

#[test]
fn refuses_a_live_socket_whose_queue_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    let (_fd, _bound) = super::bind(&path, Transport::Stream, 0, access("")).unwrap();
    let _queued = UnixStream::connect(&path).unwrap();
    let error = bind(&path).unwrap_err();
    assert!(matches!(error, UnixPathError::Live { .. }), "{error}");
}

#[test]
fn refuses_a_live_socket_of_another_type() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    let own = i32::try_from(std::process::id()).unwrap();
    let datagram = UnixDatagram::bind(&path).unwrap();
    let error = bind(&path).unwrap_err();
    assert!(matches!(error, UnixPathError::Live { holder } if holder.pid == own));
    drop(datagram);
    let (stream, _bound) = bind(&path).unwrap();
    let error = super::bind(&path, Transport::Seqpacket, 16, access("")).unwrap_err();
    assert!(matches!(error, UnixPathError::Live { holder } if holder.pid == own));
    drop(stream);
    super::bind(&path, Transport::Seqpacket, 16, access("")).unwrap();
}

#[test]
fn never_touches_what_is_not_a_socket() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "kept").unwrap();
    let target = directory.path().join("target");
    stale(&target);
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    for path in [&file, &link] {
        assert!(matches!(bind(path), Err(UnixPathError::NotSocket)));
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
    assert_eq!(entries(directory.path()), 3);
}

#[test]
fn says_which_directory_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("a");
    let error = bind(&missing.join("x.sock")).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the directory `{}` does not exist; create it first", missing.display())
    );
    fs::write(&missing, "").unwrap();
    let error = bind(&missing.join("x.sock")).unwrap_err();
    assert!(matches!(error, UnixPathError::DirectoryNot { .. }), "{error}");
}

#[test]
fn leaves_a_file_that_is_not_its_own_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    let (_fd, bound) = bind(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    bound.remove();
    UnixStream::connect(&path).unwrap();
}

#[test]
fn of_many_that_start_at_once_exactly_one_gets_the_path() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..10 {
        let path = directory.path().join(format!("{round}.sock"));
        stale(&path);
        let results: Vec<_> = thread::scope(|scope| {
            let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| bind(&path))).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        UnixStream::connect(&path).unwrap();
    }
}

#[test]
fn goes_on_when_the_lock_is_held_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let _held = lock(directory.path(), 1).unwrap().unwrap();
    bind(&directory.path().join("x.sock")).unwrap();
}

#[test]
fn removes_at_once_when_the_lock_is_held_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    let (_fd, bound) = bind(&path).unwrap();
    let _held = lock(directory.path(), 1).unwrap().unwrap();
    let soon = clock::now() + Duration::from_secs(1);
    bound.remove();
    assert!(clock::now() < soon, "it waited");
    assert_eq!(entries(directory.path()), 0);
}

#[test]
fn paths_are_the_same_through_links_to_their_directory() {
    let directory = tempfile::tempdir().unwrap();
    let real = directory.path().join("real");
    fs::create_dir(&real).unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    assert!(same(&real.join("x"), &link.join("x")));
    assert!(!same(&real.join("x"), &link.join("y")));
    assert!(!same(&real.join("x"), &directory.path().join("missing/x")));
}

#[test]
fn an_owner_is_found_by_name_or_number() {
    let root = access(",user=root,group=root,mode=0600");
    assert_eq!(root, Access { mode: 0o600, user: Some(0.into()), group: Some(0.into()) });
    let numbers = access(",user=4711,group=4712");
    assert_eq!(numbers, Access { mode: 0o660, user: Some(4711.into()), group: Some(4712.into()) });
    for (option, message) in [
        ("user", "this machine has no user `no-such`; create the user first, or write a number"),
        ("group", "this machine has no group `no-such`; create the group first, or write a number"),
    ] {
        let spec: SocketSpec = format!("unix:x,{option}=no-such").parse().unwrap();
        assert_eq!(Access::of(&spec.options).unwrap_err().to_string(), message);
    }
}

#[test]
fn a_path_that_was_removed_or_shut_down_is_bound_again_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    let as_before = access(",mode=0604");
    let (first, bound) = super::bind(&path, Transport::Stream, 16, as_before).unwrap();
    assert!(bound.is_there());
    let error = bound.bind_again(Transport::Stream, 16, 0).unwrap_err();
    assert!(matches!(error, UnixPathError::Live { .. }), "{error}");

    fs::remove_file(&path).unwrap();
    assert!(!bound.is_there());
    let (second, bound) = bound.bind_again(Transport::Stream, 16, 0).unwrap();
    UnixStream::connect(&path).unwrap();
    shutdown(second.as_raw_fd(), Shutdown::Both).unwrap();
    assert!(bound.is_there());
    UnixStream::connect(&path).unwrap_err();
    let (third, bound) = bound.bind_again(Transport::Stream, 16, 0).unwrap();
    UnixStream::connect(&path).unwrap();
    let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o604);
    bound.remove();
    drop((first, second, third));
    assert_eq!(entries(directory.path()), 0);
}
