//! Signals to the daemon, as a readable descriptor. It reports them and never acts on them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::fcntl::{OFlag, open};
use nix::sys::signal::SigSet;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getsid};
use signal_hook::consts::signal::{
    SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2,
};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::origin::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Origin};

use super::sys;

/// The signals that shepherd listens to.
pub struct Signals {
    delivery: SignalDelivery<UnixStream, WithOrigin>,
    /// The leader of our session, if there was a terminal at the start whose loss means something.
    shell: Option<i32>,
}

/// What a signal means to the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// HUP from somebody: reload.
    Reload,
    /// HUP because the terminal is gone.
    TerminalGone,
    /// TERM.
    Stop,
    /// INT.
    Interrupt,
    /// QUIT.
    StopNow,
    /// TTIN.
    OneMore,
    /// TTOU.
    OneFewer,
    /// CHLD.
    ChildChanged,
    /// A signal that would end us by default, which nobody who sends it can want.
    Meaningless(&'static str),
}

impl Signals {
    /// Listens from here on. A HUP that is ignored, as nohup(1) leaves it, stays so.
    ///
    /// # Errors
    ///
    /// When no pipe can be made.
    pub fn listen() -> io::Result<Signals> {
        let mut wanted =
            vec![SIGTERM, SIGINT, SIGQUIT, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2, SIGCHLD];
        if !sys::is_ignored(SIGHUP) {
            wanted.push(SIGHUP);
        }
        // A log at its limit (`ulimit -f`) costs lines, not us and with us the service.
        sys::ignore(libc::SIGXFSZ)?;
        // Whoever started us may have blocked them, and a mask survives exec.
        SigSet::empty().thread_set_mask()?;
        let (read, write) = UnixStream::pair()?;
        let delivery = SignalDelivery::with_pipe(read, write, WithOrigin::default(), wanted)?;
        let leader = getsid(None).ok().map(Pid::as_raw);
        Ok(Signals { delivery, shell: leader.filter(|_| terminal_is_there()) })
    }

    /// What has come since the last call, in the order of the signals' numbers.
    pub fn pending(&mut self) -> Vec<Received> {
        let origins: Vec<Origin> = self.delivery.pending().collect();
        origins.iter().filter_map(|origin| self.meaning(origin)).collect()
    }

    fn meaning(&self, origin: &Origin) -> Option<Received> {
        match origin.signal {
            SIGHUP if self.hung_up(origin) => Some(Received::TerminalGone),
            SIGHUP => Some(Received::Reload),
            SIGTERM => Some(Received::Stop),
            SIGINT => Some(Received::Interrupt),
            SIGQUIT => Some(Received::StopNow),
            // The kernel sends these to a background job that uses its terminal.
            SIGTTIN | SIGTTOU if matches!(origin.cause, Cause::Kernel) => None,
            SIGTTIN => Some(Received::OneMore),
            SIGTTOU => Some(Received::OneFewer),
            SIGUSR1 => Some(Received::Meaningless("SIGUSR1")),
            SIGUSR2 => Some(Received::Meaningless("SIGUSR2")),
            SIGCHLD => Some(Received::ChildChanged),
            _ => None,
        }
    }

    /// The kernel sends HUP itself when a terminal hangs up; a shell that dies with its terminal
    /// sends it by kill(2). From anybody else it asks for a reload, terminal or not.
    fn hung_up(&self, origin: &Origin) -> bool {
        let from_kernel = matches!(origin.cause, Cause::Kernel);
        let sender = origin.process.map(|process| process.pid);
        let from_shell = self.shell.is_some() && sender == self.shell;
        from_kernel || (from_shell && !terminal_is_there())
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }
}

/// Whether this process has a controlling terminal that can still be opened, see tty(4).
fn terminal_is_there() -> bool {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    open("/dev/tty", flags, Mode::empty()).is_ok()
}
