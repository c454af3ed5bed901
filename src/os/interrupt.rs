//! Ctrl-C for a client that waits: it says what goes on before it ends. Other signals end it as
//! they end any program.

use std::{io, thread};

use signal_hook::consts::signal::SIGINT;
use signal_hook::iterator::Signals;

use super::sys;

/// Calls `tell` at each Ctrl-C from here on, in a thread of its own. Where INT is ignored, as for a
/// background job of a script, it stays so.
///
/// # Errors
///
/// When no pipe or no thread can be made.
pub fn on_interrupt(tell: impl Fn() + Send + 'static) -> io::Result<()> {
    if sys::is_ignored(SIGINT) {
        return Ok(());
    }
    let mut signals = Signals::new([SIGINT])?;
    let listen = move || signals.forever().for_each(|_| tell());
    thread::Builder::new().name("interrupt".to_owned()).spawn(listen)?;
    Ok(())
}
