//! Writes to a stream that others share, without ever waiting in the kernel, and says what kind of
//! thing it leads to. It keeps nothing.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{MsgFlags, send};
use nix::unistd::{isatty, write};

/// What a pipe takes at once or not at all, `PIPE_BUF` in pipe(7): others who write to it cannot
/// come in between.
const ATOMIC_MAX: usize = 4096;

/// How a stream is written.
#[derive(Debug)]
pub enum Writer {
    /// Pipes and terminals, opened anew: the non-blocking mode is ours alone then.
    Own(OwnedFd),
    /// Sockets cannot be opened anew, but a send can be told not to wait.
    Socket(OwnedFd),
    /// What could not be opened anew, and everything else.
    Shared(OwnedFd),
    /// Files never wait. An offset of our own would let others' writes overwrite our lines.
    File(OwnedFd),
    /// A terminal, however it is opened: it may stop background jobs that write.
    Terminal(Box<Writer>),
}

/// Which file it is: two streams that lead to one have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// As `JOURNAL_STREAM` has it, see systemd.exec(5): numbers of device and inode.
    #[must_use]
    pub fn is_named_by(self, journal_stream: &[u8]) -> bool {
        format!("{}:{}", self.device, self.inode).as_bytes() == journal_stream
    }
}

impl Writer {
    /// A writer to what a descriptor of ours leads to, and which file that is.
    ///
    /// # Errors
    ///
    /// When it is closed.
    pub fn open(stream: impl AsFd) -> io::Result<(Writer, Identity)> {
        let number = stream.as_fd().as_raw_fd();
        let shared = stream.as_fd().try_clone_to_owned()?;
        let metadata = File::from(shared.try_clone()?).metadata()?;
        let identity = Identity { device: metadata.dev(), inode: metadata.ino() };
        let kind = metadata.file_type();
        let writer = if kind.is_socket() {
            Writer::Socket(shared)
        } else if kind.is_fifo() || kind.is_char_device() {
            let mut options = OpenOptions::new();
            options.append(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
            match options.open(format!("/proc/self/fd/{number}")) {
                Ok(own) => Writer::Own(own.into()),
                Err(_) => Writer::Shared(shared),
            }
        } else if kind.is_file() {
            Writer::File(shared)
        } else {
            Writer::Shared(shared)
        };
        let is_terminal = isatty(&writer).unwrap_or(false);
        Ok((if is_terminal { Writer::Terminal(Box::new(writer)) } else { writer }, identity))
    }

    /// Whether it leads to a terminal.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        match self {
            Writer::Terminal(_) => true,
            Writer::Own(_) | Writer::Socket(_) | Writer::Shared(_) | Writer::File(_) => false,
        }
    }

    /// Writes some of the bytes, which are whole lines but for the first, without waiting.
    ///
    /// # Errors
    ///
    /// Those of write(2), `EAGAIN` among them.
    pub fn write(&self, bytes: &[u8]) -> nix::Result<usize> {
        match self {
            Writer::Own(own) => write(own, some_lines(bytes)),
            Writer::Socket(socket) => {
                send(socket.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)
            }
            Writer::Shared(shared) => {
                if !is_writable(shared.as_fd(), Duration::ZERO)? {
                    return Err(Errno::EAGAIN);
                }
                write(shared, some_lines(bytes))
            }
            Writer::File(file) => write(file, bytes),
            Writer::Terminal(writer) => {
                // A background job that writes to its terminal under `stty tostop` is sent TTOU,
                // which means something else to us, and the write would begin again and again;
                // blocked, it goes through.
                let _blocked = BlockedTtou::begin();
                writer.write(bytes)
            }
        }
    }

    /// Waits until it can be written, at most so long. Returns whether it can.
    #[must_use]
    pub fn wait(&self, patience: Duration) -> bool {
        is_writable(self.as_fd(), patience).unwrap_or(true)
    }
}

impl AsFd for Writer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Writer::Own(fd) | Writer::Socket(fd) | Writer::Shared(fd) | Writer::File(fd) => {
                fd.as_fd()
            }
            Writer::Terminal(writer) => writer.as_fd(),
        }
    }
}

/// As many lines as fit into what a pipe takes at once; a longer one in parts.
fn some_lines(bytes: &[u8]) -> &[u8] {
    let Some(head) = bytes.get(..ATOMIC_MAX) else {
        return bytes;
    };
    let end = head.iter().rposition(|&byte| byte == b'\n').map_or(head.len(), |last| last + 1);
    head.get(..end).unwrap_or(head)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_for_a_pipe_are_whole_lines_where_they_can_be() {
        let lines = [b"x".repeat(3000), b"\n".to_vec()].concat().repeat(3);
        assert_eq!(some_lines(&lines).len(), 3001);
        assert_eq!(some_lines(&lines[..3001]).len(), 3001);
        assert_eq!(some_lines(&b"x".repeat(10_000)).len(), ATOMIC_MAX);
    }
}
