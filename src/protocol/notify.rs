//! What a worker says to its notification socket, see sd_notify(3). Pure; the worker may lie.

use std::time::Duration;

/// The longest datagram that is read; what is longer is dropped whole.
pub const MESSAGE_MAX: usize = 8192;

/// How much of a status line is kept, in characters.
pub const STATUS_MAX: usize = 200;

/// What one datagram says, as far as shepherd listens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// `READY=1`
    pub ready: bool,
    /// `STOPPING=1`
    pub stopping: bool,
    /// `STATUS=`, printable and cut to [`STATUS_MAX`].
    pub status: Option<String>,
    /// `EXTEND_TIMEOUT_USEC=`
    pub extend: Option<Duration>,
    /// `MAINPID=`; whether there is such a process, and whose, is for the reader to find out.
    pub main_pid: Option<u32>,
    /// Lines that name a field above and cannot be read.
    pub unreadable: u32,
}

/// Reads a datagram. Unknown fields are passed over, as the convention asks. `BARRIER=1` is one of
/// them: its sender waits until the descriptor that came with it is closed, and all are.
#[must_use]
pub fn parse(datagram: &[u8]) -> Message {
    let mut message = Message::default();
    for line in datagram.split(|&byte| byte == b'\n') {
        let mut halves = line.splitn(2, |&byte| byte == b'=');
        let (Some(key), Some(value)) = (halves.next(), halves.next()) else {
            continue;
        };
        let number = || std::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok());
        match key {
            b"READY" => message.flag(value, |message| &mut message.ready),
            b"STOPPING" => message.flag(value, |message| &mut message.stopping),
            b"STATUS" => message.status = Some(printable(value)),
            b"EXTEND_TIMEOUT_USEC" => match number() {
                Some(micros) => message.extend = Some(Duration::from_micros(micros)),
                None => message.unreadable += 1,
            },
            b"MAINPID" => match number().and_then(|pid: u64| u32::try_from(pid).ok()) {
                Some(pid) if pid > 0 => message.main_pid = Some(pid),
                Some(_) | None => message.unreadable += 1,
            },
            _ => {}
        }
    }
    message
}

impl Message {
    fn flag(&mut self, value: &[u8], field: impl FnOnce(&mut Message) -> &mut bool) {
        match value {
            b"1" => *field(self) = true,
            _ => self.unreadable += 1,
        }
    }
}

/// Text from outside as one line that does no harm to a terminal or a log.
#[must_use]
pub fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let clean = text.chars().map(|char| if char.is_control() { ' ' } else { char });
    clean.take(STATUS_MAX).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_read_and_others_passed_over() {
        let message = parse(b"READY=1\nSTATUS=up\x1b[31m\tand running\nX_MINE=1\nMAINPID=42\n");
        assert_eq!(message.status.as_deref(), Some("up [31m and running"));
        assert!(message.ready && !message.stopping);
        assert_eq!((message.main_pid, message.unreadable), (Some(42), 0));
        let message = parse(b"STOPPING=1\nEXTEND_TIMEOUT_USEC=1500000\nBARRIER=1");
        assert!(message.stopping);
        assert_eq!(message.extend, Some(Duration::from_millis(1500)));
    }

    #[test]
    fn lies_and_garbage_are_counted_and_change_nothing() {
        let message = parse(b"READY=yes\nMAINPID=-5\nMAINPID=0\nEXTEND_TIMEOUT_USEC=soon\nREADY");
        assert_eq!(message, Message { unreadable: 4, ..Message::default() });
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_and_a_status_stays_one_short_line(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let message = parse(&bytes);
            if let Some(status) = message.status {
                prop_assert!(status.chars().count() <= STATUS_MAX);
                prop_assert!(!status.chars().any(char::is_control));
            }
        }
    }
}
