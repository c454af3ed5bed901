//! A request that asks a worker whether it can serve, and the status of its response, see RFC 9112.
//! Pure; the worker may answer anything. Bodies are not read: the status is the answer.

/// How much of the heads of a response is read at most: several times what servers allow.
pub const HEAD_MAX: usize = 64 * 1024;

/// A response of HTTP/1 begins so.
const BEGINNING: &[u8] = b"HTTP/1.";

/// A request for `path`, which begins with a slash and holds visible ASCII only.
#[must_use]
pub fn request(path: &str) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: shepherd/{version}\r\n\
         Accept: */*\r\nConnection: close\r\n\r\n"
    )
    .into_bytes()
}

/// What the bytes of a response come to so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The head is not whole yet.
    More,
    /// The head is whole, and this is the status of the response.
    Status(u16),
    /// It cannot become a response any more.
    Broken(Broken),
}

/// How bytes fail to be a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// They are a record of TLS, whose handshake or alert begins so (RFC 8446, 5.1).
    Tls,
    /// They do not begin as a response does.
    NotHttp,
    /// There is no end of the head within [`HEAD_MAX`].
    TooLong,
}

/// Reads a response, in pieces of any size.
#[derive(Debug, Clone, Default)]
pub struct ResponseReader {
    head: Vec<u8>,
    /// Up to where no end of a head begins.
    searched: usize,
    verdict: Option<Result<u16, Broken>>,
    bytes: usize,
}

impl ResponseReader {
    /// Takes what was read from the connection. What follows the head is passed over.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes = self.bytes.saturating_add(bytes.len());
        if self.verdict.is_some() {
            return;
        }
        // Beyond the bound nothing is kept, so the answer is the same however the bytes come.
        let room = HEAD_MAX - self.head.len().min(HEAD_MAX);
        self.head.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        while self.verdict.is_none() {
            match self.next_head() {
                // An interim response, such as 103 Early Hints: the real one follows.
                Some(Ok(100 | 102..=199)) => {}
                Some(verdict) => self.verdict = Some(verdict),
                None if bytes.len() > room => self.verdict = Some(Err(Broken::TooLong)),
                None => return,
            }
        }
    }

    /// What it comes to.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self.verdict {
            None => Verdict::More,
            Some(Ok(status)) => Verdict::Status(status),
            Some(Err(broken)) => Verdict::Broken(broken),
        }
    }

    /// How many bytes have come.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the next whole head out, and gives its status.
    fn next_head(&mut self) -> Option<Result<u16, Broken>> {
        if let [0x15 | 0x16, 0x03, ..] = self.head.as_slice() {
            return Some(Err(Broken::Tls));
        }
        let begins = self.head.iter().zip(BEGINNING).all(|(byte, wanted)| byte == wanted);
        // A first byte of TLS alone may become either.
        if !begins && !matches!(self.head.as_slice(), [0x15 | 0x16]) {
            return Some(Err(Broken::NotHttp));
        }
        let Some(end) = head_end(&self.head, self.searched) else {
            // An end may begin in the last three bytes.
            self.searched = self.head.len().saturating_sub(3);
            return None;
        };
        let status = status(&self.head).ok_or(Broken::NotHttp);
        self.head.drain(..end);
        self.searched = 0;
        Some(status)
    }
}

/// Where the empty line after a head ends. Lines end in CRLF, or in LF alone (RFC 9112, 2.2).
fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    let newlines = bytes.iter().enumerate().skip(from).filter(|&(_, &byte)| byte == b'\n');
    newlines.map(|(at, _)| at + 1).find_map(|after| match bytes.get(after..) {
        Some([b'\n', ..]) => Some(after + 1),
        Some([b'\r', b'\n', ..]) => Some(after + 2),
        Some(_) | None => None,
    })
}

/// The status in `HTTP/1.1 200 OK`; the phrase may be missing, and so may the space before it.
fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|&byte| byte == b'\n').next()?.trim_ascii_end();
    let [minor, b' ', digits @ ..] = line.strip_prefix(BEGINNING)? else {
        return None;
    };
    let (digits, rest) = digits.split_at_checked(3)?;
    let ends = matches!(rest, [] | [b' ', ..]);
    let in_order = minor.is_ascii_digit() && digits.iter().all(u8::is_ascii_digit) && ends;
    let status: u16 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (in_order && status >= 100).then_some(status)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Verdict {
        let mut reader = ResponseReader::default();
        reader.feed(bytes);
        reader.verdict()
    }

    #[test]
    fn a_request_is_one_head_and_asks_for_the_end_of_the_connection() {
        let request = String::from_utf8(request("/health?x=1")).expect("ASCII");
        assert!(request.starts_with("GET /health?x=1 HTTP/1.1\r\nHost: localhost\r\n"));
        assert!(request.contains("\r\nUser-Agent: shepherd/"));
        assert!(request.contains("\r\nConnection: close\r\n"));
        assert_eq!(request.find("\r\n\r\n"), Some(request.len() - 4));
    }

    #[test]
    fn the_status_counts_once_the_head_is_whole() {
        assert_eq!(read(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), Verdict::Status(200));
        assert_eq!(read(b"HTTP/1.0 503 No\n\n"), Verdict::Status(503));
        assert_eq!(read(b"HTTP/1.1 204\r\n\r\n"), Verdict::Status(204));
        assert_eq!(read(b"HTTP/1.1 204 \r\n\r\n"), Verdict::Status(204));
        assert_eq!(read(b"HTTP/1.1 200 OK\r\nA: b\r\n"), Verdict::More);
        assert_eq!(read(b"HTTP/1.1 200 OK\r\n\r"), Verdict::More);
        assert_eq!(read(b""), Verdict::More);
        assert_eq!(read(b"HTTP/1"), Verdict::More);
    }

    #[test]
    fn interim_responses_are_passed_over() {
        let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
        assert_eq!(read(hints), Verdict::More);
        let both = [hints.as_slice(), b"HTTP/1.1 500 Oh\r\n\r\n"].concat();
        assert_eq!(read(&both), Verdict::Status(500));
        assert_eq!(read(b"HTTP/1.1 101 Switching\r\n\r\n"), Verdict::Status(101));
    }

    #[test]
    fn what_is_no_response_is_told_apart() {
        assert_eq!(read(b"\x15\x03\x03\x00\x02\x02\x46"), Verdict::Broken(Broken::Tls));
        assert_eq!(read(b"\x15"), Verdict::More);
        for garbage in [
            b"SSH-2.0-OpenSSH\r\n".as_slice(),
            b"HTTP/2.0 200 OK\r\n\r\n",
            b"HTTP/1.x 200 OK\r\n\r\n",
            b"HTTP/1.1 2x0 OK\r\n\r\n",
            b"HTTP/1.1 2000\r\n\r\n",
            b"HTTP/1.1 099\r\n\r\n",
            b"HTTP/1.1 \r\n\r\n",
            b"HTTP/1.1\r\n\r\n",
            b"\r\n",
            b"\x15\x04",
        ] {
            assert_eq!(read(garbage), Verdict::Broken(Broken::NotHttp), "{garbage:?}");
        }
    }

    #[test]
    fn a_head_without_an_end_is_read_up_to_the_bound() {
        let start = b"HTTP/1.1 200 OK\r\n".to_vec();
        let full = [start.clone(), vec![b'x'; HEAD_MAX - start.len()]].concat();
        assert_eq!(read(&full), Verdict::More);
        assert_eq!(read(&[full, vec![b'x']].concat()), Verdict::Broken(Broken::TooLong));
    }

    fn response() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            Just(b"HTTP/1.1 200 OK\r\n".to_vec()),
            Just(b"HTTP/1.0 503\n".to_vec()),
            Just(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"\n".to_vec()),
            Just(b"\x16\x03".to_vec()),
            Just(vec![b'y'; HEAD_MAX / 2]),
            proptest::collection::vec(any::<u8>(), 0..8),
        ];
        proptest::collection::vec(part, 0..7).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_one_verdict(
            bytes in response(),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let mut pieces = ResponseReader::default();
            let mut start = 0;
            for cut in cuts.into_iter().chain([bytes.len()]) {
                pieces.feed(&bytes[start..cut]);
                start = cut;
            }
            prop_assert_eq!(pieces.verdict(), read(&bytes));
            prop_assert_eq!(pieces.bytes(), bytes.len());
            prop_assert!(pieces.head.len() <= HEAD_MAX);
        }
    }
}
