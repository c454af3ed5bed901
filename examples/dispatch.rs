//! An HTTP/1.1 worker that accepts nothing itself: shepherd gives it one connection after the other,
//! by a channel that it finds in `LISTEN_FDNAMES` under the name `dispatch`.
//!
//! ```text
//! shepherd run -n 4 -p 8000 --balance dispatch:least-connections -- ./dispatch
//! ```
//!
//! It needs shepherd: nobody else gives connections so. SIGTERM it leaves alone, since its channel
//! ends right before that, and there is nothing in between that it could lose.

#![expect(unsafe_code, reason = "a descriptor that came as a number is nobody else's")]
#![expect(clippy::print_stderr, reason = "stderr is its log")]
#![expect(
    clippy::disallowed_methods,
    reason = "it is a program of its own: it reads its variables, and /slow sleeps"
)]

use std::io::{self, BufRead, BufReader, IoSliceMut, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use std::{env, process, thread};

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, send};
use signal_hook::consts::SIGTERM;

/// A longer request line or header ends the connection.
const LINE_BYTES_MAX: u64 = 8 * 1024;

fn main() {
    if let Err(error) = run() {
        eprintln!("dispatch: {error}");
        process::exit(1);
    }
}

fn run() -> io::Result<()> {
    signal_hook::flag::register(SIGTERM, Arc::new(AtomicBool::new(false)))?;
    let channel = Arc::new(channel().ok_or_else(|| {
        io::Error::other("nobody gives us connections; use `shepherd run --balance dispatch`")
    })?);
    let mut threads = Vec::new();
    loop {
        // The name of the socket where it was accepted, and the connection.
        let mut name = [0; 255];
        let mut parts = [IoSliceMut::new(&mut name)];
        let mut space = cmsg_space!([RawFd; 1]);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(channel.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
        if message.bytes == 0 {
            break;
        }
        let received = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
            _ => None,
        });
        let Some(raw) = received else {
            say(&channel, b"!");
            continue;
        };
        // SAFETY: the kernel has just made this descriptor for us, so nobody else owns it.
        let connection = unsafe { TcpStream::from_raw_fd(raw) };
        // Before anything is read: it is ours from here on, whatever comes.
        say(&channel, b"+");
        let tells = Arc::clone(&channel);
        threads.retain(|thread: &thread::JoinHandle<()>| !thread.is_finished());
        threads.push(thread::spawn(move || {
            // A client that went away is no concern of the others.
            let _ = serve(&connection);
            drop(connection);
            say(&tells, b".");
        }));
    }
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

/// The descriptor named `dispatch`, if there is one.
fn channel() -> Option<OwnedFd> {
    let names = env::var("LISTEN_FDNAMES").ok()?;
    let index = names.split(':').position(|name| name == "dispatch")?;
    let raw = RawFd::try_from(index).ok()?.checked_add(3)?;
    // SAFETY: whoever started us gave us this descriptor, and it is taken once.
    Some(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn say(channel: &OwnedFd, word: &[u8]) {
    // It fails when shepherd is gone, and then nobody is left to be told.
    let _ = send(channel.as_raw_fd(), word, MsgFlags::MSG_NOSIGNAL);
}

/// Answers one request, and closes.
fn serve(connection: &TcpStream) -> io::Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut lines = BufReader::new(connection);
    let mut request = String::new();
    loop {
        let mut line = String::new();
        let length = io::Read::take(&mut lines, LINE_BYTES_MAX).read_line(&mut line)?;
        if length == 0 || !line.ends_with('\n') {
            return Ok(());
        }
        if request.is_empty() {
            request = line;
        } else if line.trim_end().is_empty() {
            break;
        }
    }
    let path = request.split(' ').nth(1).unwrap_or("/");
    let slow = path.strip_prefix("/slow?ms=").and_then(|ms| ms.parse::<u64>().ok());
    if let Some(ms) = slow {
        thread::sleep(Duration::from_millis(ms.min(60_000)));
    }
    let variable = |name| env::var(name).unwrap_or_else(|_| "-".to_owned());
    let version = env::var("VERSION").unwrap_or_else(|_| "dev".to_owned());
    let [place, generation] = ["SHEPHERD_SLOT", "SHEPHERD_GENERATION"].map(variable);
    let body = format!("{version} {} {place} {generation}\n", process::id());
    let mut connection = connection;
    write!(
        connection,
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
