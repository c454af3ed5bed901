//! Where monitoring reaches the daemon (`--admin`): from text to an address.
//! It never opens a socket or asks for a name's address.

use core::fmt;
use core::net::{Ipv4Addr, SocketAddr};
use core::str::FromStr;

use super::text::one_line;
use super::values::ValueError;

/// An address for monitoring. Port 0 leaves the choice of the port to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminAddress(SocketAddr);

impl AdminAddress {
    /// The address itself.
    #[must_use]
    pub fn address(self) -> SocketAddr {
        self.0
    }

    /// Whether only this machine reaches it.
    #[must_use]
    pub fn is_loopback(self) -> bool {
        self.0.ip().to_canonical().is_loopback()
    }
}

impl FromStr for AdminAddress {
    type Err = ValueError;

    /// A bare port is for this machine alone: whoever wants more has to write it.
    fn from_str(text: &str) -> Result<AdminAddress, ValueError> {
        let ip = Ipv4Addr::LOCALHOST.into();
        let port = text.strip_prefix("localhost:").unwrap_or(text).parse();
        match port.map(|port| SocketAddr::new(ip, port)).or_else(|_| text.parse()) {
            Ok(address) => Ok(AdminAddress(address)),
            Err(_) => Err(ValueError(format!(
                "`{}` is no port and no address with a port; write `9180`, which is \
                 `127.0.0.1:9180`, or an address such as `10.0.0.1:9180` or `[::1]:9180`",
                one_line(text)
            ))),
        }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_port_is_for_this_machine_alone() {
        for (text, address, is_loopback) in [
            ("9180", "127.0.0.1:9180", true),
            ("0", "127.0.0.1:0", true),
            ("localhost:9180", "127.0.0.1:9180", true),
            ("127.0.0.2:9180", "127.0.0.2:9180", true),
            ("[::1]:9180", "[::1]:9180", true),
            ("[::ffff:127.0.0.1]:9180", "[::ffff:127.0.0.1]:9180", true),
            ("0.0.0.0:9180", "0.0.0.0:9180", false),
            ("[::]:9180", "[::]:9180", false),
            ("10.0.0.1:9180", "10.0.0.1:9180", false),
        ] {
            let read: AdminAddress = text.parse().expect(text);
            assert_eq!((read.to_string().as_str(), read.is_loopback()), (address, is_loopback));
        }
    }

    #[test]
    fn what_is_no_address_is_told_with_what_is() {
        for text in ["", "web", "65536", ":9180", "example.org:80", "10.0.0.1", "unix:/run/x", "\n"]
        {
            let error = text.parse::<AdminAddress>().expect_err(text).to_string();
            assert!(error.contains("write `9180`") && !error.contains('\n'), "{error}");
        }
    }
}
