//! Our own lines on stderr: never a panic, never a stall.
//!
//! Whoever shares stderr with us may have made it non-blocking, may not read it, or may be gone. A
//! line that cannot be written within a bound is dropped and counted, and the count is told with
//! the next line that goes through.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{MsgFlags, send};
use nix::unistd::write;

use super::clock;
use crate::core::time::Time;

/// How long one line may wait for a slow reader. After a drop, lines do not wait until one goes
/// through again, so a reader that has stopped costs this once.
const WAIT: Duration = Duration::from_millis(50);

/// The longest line: a pipe that polls writable takes so much at once, see pipe(7).
const LINE_MAX: usize = 4096;

/// Stderr as we write to it.
#[derive(Debug)]
pub struct Stderr {
    sink: Sink,
    is_terminal: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    dropped: u64,
}

/// How a line is written without ever waiting in the kernel.
#[derive(Debug)]
enum Sink {
    /// Pipes and terminals, opened anew: the non-blocking mode is ours alone then.
    Own(OwnedFd),
    /// Sockets cannot be opened anew, but a send can be told not to wait.
    Socket(OwnedFd),
    /// Files never wait. An offset of our own would let the workers' writes overwrite our lines.
    Shared(OwnedFd),
}

impl Stderr {
    /// Stderr as it is now.
    ///
    /// # Errors
    ///
    /// When it is closed.
    pub fn open() -> io::Result<Stderr> {
        let shared = io::stderr().as_fd().try_clone_to_owned()?;
        let kind = std::fs::File::from(shared.try_clone()?).metadata()?.file_type();
        let sink = if kind.is_socket() {
            Sink::Socket(shared)
        } else if kind.is_fifo() || kind.is_char_device() {
            let mut options = OpenOptions::new();
            options.append(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
            match options.open("/proc/self/fd/2") {
                Ok(own) => Sink::Own(own.into()),
                Err(_) => Sink::Shared(shared),
            }
        } else {
            Sink::Shared(shared)
        };
        Ok(Stderr { sink, is_terminal: io::stderr().is_terminal(), state: Mutex::default() })
    }

    /// Writes one line of our own, outside of the log. Without a stderr nothing is said.
    pub fn say(line: &str) {
        if let Ok(stderr) = Stderr::open() {
            stderr.line(format!("{line}\n").as_bytes());
        }
    }

    /// Writes one line, or drops it.
    fn line(&self, line: &[u8]) {
        // A background job that writes to its terminal under `stty tostop` is sent TTOU, which means
        // something else to us, and the write would begin again and again; blocked, it goes through.
        let _blocked = self.is_terminal.then(BlockedTtou::begin);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let patience = if state.dropped == 0 { WAIT } else { Duration::ZERO };
        if state.dropped > 0 {
            let told = format!("shepherd: {} lines were lost: stderr was full\n", state.dropped);
            if self.sink.write_all(told.as_bytes(), patience).is_err() {
                state.dropped += 1;
                return;
            }
            state.dropped = 0;
        }
        if self.sink.write_all(&cut(line), patience).is_err() {
            state.dropped += 1;
        }
    }
}

/// Keeps TTOU blocked while it lives.
struct BlockedTtou(SigSet);

impl BlockedTtou {
    fn begin() -> BlockedTtou {
        let mut ttou = SigSet::empty();
        ttou.add(Signal::SIGTTOU);
        // It fails only for a set that is none.
        let _ = ttou.thread_block();
        BlockedTtou(ttou)
    }
}

impl Drop for BlockedTtou {
    fn drop(&mut self) {
        let _ = self.0.thread_unblock();
    }
}

impl Sink {
    fn write_all(&self, bytes: &[u8], patience: Duration) -> io::Result<()> {
        let deadline = clock::now() + patience;
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => self.wait_until(deadline)?,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn write(&self, bytes: &[u8]) -> nix::Result<usize> {
        match self {
            Sink::Own(own) => write(own, bytes),
            Sink::Socket(socket) => {
                use std::os::fd::AsRawFd;
                send(socket.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)
            }
            Sink::Shared(shared) => {
                if !is_writable(shared.as_fd(), Duration::ZERO)? {
                    return Err(Errno::EAGAIN);
                }
                write(shared, bytes)
            }
        }
    }

    fn wait_until(&self, deadline: Time) -> io::Result<()> {
        let fd = match self {
            Sink::Own(fd) | Sink::Socket(fd) | Sink::Shared(fd) => fd,
        };
        let left = clock::now().until(deadline);
        if left.is_zero() || !is_writable(fd.as_fd(), left)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

fn is_writable(fd: BorrowedFd<'_>, patience: Duration) -> nix::Result<bool> {
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
    let mut polled = [PollFd::new(fd, PollFlags::POLLOUT)];
    match poll(&mut polled, timeout) {
        Ok(count) => Ok(count > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// At most [`LINE_MAX`] bytes, the line's end kept.
fn cut(line: &[u8]) -> Vec<u8> {
    match line.get(..LINE_MAX - 1) {
        Some(head) if line.len() > LINE_MAX => [head, b"\n"].concat(),
        Some(_) | None => line.to_vec(),
    }
}

/// One line being written: `tracing` makes one for each.
#[derive(Debug)]
pub struct Line<'a>(&'a Stderr);

impl<'a> From<&'a Stderr> for Line<'a> {
    fn from(stderr: &'a Stderr) -> Line<'a> {
        Line(stderr)
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.line(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use nix::fcntl::OFlag;
    use nix::unistd::{pipe2, read};

    use super::*;

    #[test]
    fn a_full_pipe_costs_lines_never_time_and_the_loss_is_told() {
        let (reader, writer) = pipe2(OFlag::O_NONBLOCK).expect("a pipe");
        let stderr =
            Stderr { sink: Sink::Own(writer), is_terminal: false, state: Mutex::default() };
        let line = [b"x".repeat(99).as_slice(), b"\n"].concat();
        // A pipe holds 64 KiB by default; far more is written, and every call comes back.
        for _ in 0..5000 {
            stderr.line(&line);
        }
        assert!(stderr.state.lock().expect("not poisoned").dropped > 0);
        let mut buffer = vec![0; 1 << 20];
        while let Ok(count) = read(&reader, &mut buffer)
            && count > 0
        {}
        stderr.line(b"after\n");
        let count = read(&reader, &mut buffer).expect("both lines are there");
        let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
        assert!(text.starts_with("shepherd: ") && text.contains("lines were lost"), "{text}");
        assert!(text.ends_with("after\n"), "{text}");
    }

    #[test]
    fn a_reader_that_is_gone_is_no_panic() {
        let (reader, writer) = pipe2(OFlag::O_NONBLOCK).expect("a pipe");
        drop(reader);
        let stderr =
            Stderr { sink: Sink::Own(writer), is_terminal: false, state: Mutex::default() };
        stderr.line(b"into the void\n");
        assert_eq!(stderr.state.lock().expect("not poisoned").dropped, 1);
    }

    #[test]
    fn long_lines_are_cut_to_what_a_pipe_takes_at_once() {
        assert_eq!(cut(b"short\n"), b"short\n");
        let long = cut(&b"x".repeat(10_000));
        assert_eq!((long.len(), long.last()), (LINE_MAX, Some(&b'\n')));
    }
}
