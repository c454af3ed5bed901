//! What a proxy in front of a service is told: the file that it reads, as text. Nothing here writes it.
//!
//! nginx includes its file within an `upstream` block, which it refuses when it is empty. So where no
//! slot is ready the file names one server that is `down`: requests are refused at once, as they are
//! by any proxy whose servers are all away, and nothing is sent to a worker that is about to stop.
//! HAProxy cannot include a file within a section, so its file is a whole `backend`, given to it by a
//! second `-f`, with the settings of the `defaults` before; a backend may be without servers.

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use core::str::FromStr;
use std::fmt::Write as _;
use std::path::PathBuf;

use super::socket::{Address, Slots, SocketSpec, Transport};
use super::text::one_line;
use super::values::ValueError;

/// What a proxy in front of a service is told, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstreams {
    /// The file that it reads.
    pub file: UpstreamsFile,
    /// The command of the shell that has it read the file again.
    pub reload: String,
}

/// A file that a proxy reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamsFile {
    /// Who reads it.
    pub format: Format,
    /// Where it is.
    pub path: PathBuf,
}

/// Who reads a file of upstreams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// nginx.
    Nginx,
    /// HAProxy.
    Haproxy,
}

impl FromStr for Format {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Format, ValueError> {
        match text {
            "nginx" => Ok(Format::Nginx),
            "haproxy" => Ok(Format::Haproxy),
            _ => Err(ValueError(format!(
                "`{}` is no format of upstreams; write `nginx` or `haproxy`",
                one_line(text)
            ))),
        }
    }
}

impl FromStr for UpstreamsFile {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<UpstreamsFile, ValueError> {
        let (format, path) = text.split_once(':').unwrap_or((text, ""));
        let format: Format = format.parse()?;
        if path.is_empty() || path.contains('\0') || path.ends_with('/') {
            return Err(ValueError(format!(
                "`{}` names no file; write one such as `nginx:/etc/nginx/web.upstreams`",
                one_line(text)
            )));
        }
        Ok(UpstreamsFile { format, path: path.into() })
    }
}

/// The socket that a proxy connects to: the first of a service that is a stream and a slot's alone.
#[must_use]
pub fn socket(sockets: &[SocketSpec]) -> Option<&SocketSpec> {
    sockets.iter().find(|socket| {
        let named = matches!(socket.address, Address::Abstract(_));
        socket.slots == Slots::Each && socket.transport == Transport::Stream && !named
    })
}

impl Format {
    /// The whole file for a service of which these slots are ready.
    #[must_use]
    pub fn file(
        self,
        service: &str,
        socket: &SocketSpec,
        ready: impl Iterator<Item = u32>,
    ) -> String {
        let mut file = format!(
            "# Written by shepherd each time that other slots of `{service}` are ready.\n\
             # What is changed here is lost.\n"
        );
        if self == Format::Haproxy {
            let _ = writeln!(file, "backend {service}");
        }
        let mut empty = true;
        for slot in ready {
            let Some(address) = socket.of_slot(slot).and_then(|own| self.address(&own)) else {
                continue;
            };
            empty = false;
            let _ = match self {
                Format::Nginx => writeln!(file, "server {address};"),
                Format::Haproxy => writeln!(file, "    server {service}{slot} {address} check"),
            };
        }
        match (self, socket.of_slot(0).and_then(|own| self.address(&own))) {
            (Format::Nginx, Some(address)) if empty => {
                let _ = writeln!(file, "# No slot is ready.\nserver {address} down;");
            }
            (Format::Haproxy, _) if empty => file.push_str("    # No slot is ready.\n"),
            (Format::Nginx | Format::Haproxy, _) => {}
        }
        file
    }

    /// Where a proxy on this machine reaches a socket.
    fn address(self, socket: &SocketSpec) -> Option<String> {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string();
        let loopback6 = |port| SocketAddr::from((Ipv6Addr::LOCALHOST, port)).to_string();
        Some(match (&socket.address, self) {
            (Address::Port(port), _) if socket.options.v6only => loopback6(*port),
            (Address::Port(port) | Address::Localhost(port), _) => loopback(*port),
            (Address::Ip(SocketAddr::V4(address)), _) if address.ip().is_unspecified() => {
                loopback(address.port())
            }
            (Address::Ip(SocketAddr::V6(address)), _) if address.ip().is_unspecified() => {
                let own_family = socket.options.v6only;
                if own_family { loopback6(address.port()) } else { loopback(address.port()) }
            }
            (Address::Ip(address), _) => address.to_string(),
            (Address::Unix(path), Format::Nginx) => format!("unix:{}", path.display()),
            (Address::Unix(path), Format::Haproxy) => format!("unix@{}", path.display()),
            (Address::Abstract(_), _) => return None,
        })
    }

    /// Whether a path can be written into the file as it is: no proxy quotes alike.
    #[must_use]
    pub fn takes(socket: &SocketSpec) -> bool {
        let plain = |char: char| char.is_ascii_alphanumeric() || "/._-+@%=,:{}".contains(char);
        match &socket.address {
            // The braces are those of the slot.
            Address::Unix(path) => path.to_string_lossy().chars().all(plain),
            Address::Port(_) | Address::Ip(_) | Address::Localhost(_) | Address::Abstract(_) => {
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(format: Format, socket: &str, ready: &[u32]) -> Vec<String> {
        let socket: SocketSpec = socket.parse().unwrap_or_else(|error| panic!("{error}"));
        let file = format.file("web", &socket, ready.iter().copied());
        assert!(file.ends_with('\n') && file.starts_with("# Written by shepherd"));
        file.lines().skip(2).map(str::to_owned).collect()
    }

    #[test]
    fn a_proxy_is_told_where_it_reaches_the_slots_that_are_ready() {
        for (socket, nginx, haproxy) in [
            ("8001+{slot}", "127.0.0.1:8003", "127.0.0.1:8003"),
            ("8001+{slot},v6only", "[::1]:8003", "[::1]:8003"),
            ("0.0.0.0:8001+{slot}", "127.0.0.1:8003", "127.0.0.1:8003"),
            ("[::]:8001+{slot}", "127.0.0.1:8003", "127.0.0.1:8003"),
            ("[::]:8001+{slot},v6only", "[::1]:8003", "[::1]:8003"),
            ("10.0.0.7:8001+{slot}", "10.0.0.7:8003", "10.0.0.7:8003"),
            ("[fd00::7]:8001+{slot}", "[fd00::7]:8003", "[fd00::7]:8003"),
            ("unix:/run/web.{slot}.sock", "unix:/run/web.2.sock", "unix@/run/web.2.sock"),
        ] {
            assert_eq!(lines(Format::Nginx, socket, &[2]), [format!("server {nginx};")]);
            let server = format!("    server web2 {haproxy} check");
            assert_eq!(lines(Format::Haproxy, socket, &[2]), ["backend web", &server]);
        }
        let both = ["server 127.0.0.1:8001;", "server 127.0.0.1:8004;"];
        assert_eq!(lines(Format::Nginx, "8001+{slot}", &[0, 3]), both);
    }

    #[test]
    fn a_file_without_a_server_is_one_that_the_proxy_takes() {
        let nginx = ["# No slot is ready.", "server 127.0.0.1:8001 down;"];
        assert_eq!(lines(Format::Nginx, "8001+{slot}", &[]), nginx);
        let haproxy = ["backend web", "    # No slot is ready."];
        assert_eq!(lines(Format::Haproxy, "8001+{slot}", &[]), haproxy);
    }

    #[test]
    fn a_proxy_connects_to_the_first_stream_that_is_a_slots_alone() {
        let sockets = |texts: &[&str]| -> Vec<SocketSpec> {
            texts.iter().map(|text| text.parse().expect("a socket")).collect()
        };
        let chosen = |texts: &[&str]| socket(&sockets(texts)).map(SocketSpec::place);
        let first =
            chosen(&["8000", "udp:7001+{slot}", "unix:@a{slot}", "8001+{slot}", "1+{slot}"]);
        assert_eq!(first.as_deref(), Some("8001+{slot}"));
        assert_eq!(chosen(&["8000", "udp:7001+{slot}"]), None);
        let takes = |text: &str| Format::takes(&text.parse().expect("a socket"));
        assert!(takes("8001+{slot}") && takes("unix:/run/web.{slot}.sock"));
        assert!(!takes("unix:/run/my web.{slot}") && !takes("unix:/run/web;{slot}"));
    }

    #[test]
    fn reads_a_format_and_a_path() {
        let read = |text: &str| text.parse::<UpstreamsFile>().map_err(|error| error.to_string());
        let (format, path) = (Format::Nginx, "/etc/nginx/web:1".into());
        assert_eq!(read("nginx:/etc/nginx/web:1"), Ok(UpstreamsFile { format, path }));
        for (text, mistake) in [
            ("/etc/nginx/web", "`/etc/nginx/web` is no format of upstreams; write `nginx` or"),
            ("nginx", "`nginx` names no file; write one such as"),
            ("haproxy:", "`haproxy:` names no file"),
            ("nginx:/etc/", "`nginx:/etc/` names no file"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.starts_with(mistake), "{error}");
        }
    }
}
