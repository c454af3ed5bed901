//! A network 20 ms away: `relay.py` makes it and carries the packets.

use std::{
    env,
    io::{BufRead, BufReader},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{
    harness::{Address, Home},
    site::wrapper,
};

/// Where a daemon that is far away listens.
const THERE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

/// The network; it goes with the relay.
pub struct Far {
    relay: Child,
}

impl Far {
    /// Makes it, or says why that cannot be.
    pub fn new() -> Result<Far, String> {
        if env::var_os("MATRIX_NETWORK").is_none() {
            return Err("it has no network of its own; run integration/matrix/run as root".into());
        }
        if !Path::new("/dev/net/tun").exists() {
            return Err("there is no /dev/net/tun".into());
        }
        let relay = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/matrix/relay.py");
        let mut command = Command::new("python3");
        command.arg(relay).stdin(Stdio::piped()).stdout(Stdio::piped());
        let relay = command.spawn().map_err(|error| format!("python3 cannot be run: {error}"))?;
        let mut far = Far { relay };
        let mut said = String::new();
        let output = far.relay.stdout.take().expect("stdout is a pipe");
        let read = BufReader::new(output).read_line(&mut said);
        if read.is_err() || said != "ready\n" {
            return Err("the relay could not make its devices".into());
        }
        Ok(far)
    }

    /// Shepherd, run there.
    pub fn binary(&self, home: &Home) -> PathBuf {
        let shepherd = env!("CARGO_BIN_EXE_shepherd");
        let network = format!("/proc/{}/ns/net", self.relay.id());
        wrapper(home, &format!("exec nsenter --net={network} '{shepherd}' \"$@\""))
    }

    /// A port there.
    #[expect(clippy::unused_self, reason = "without the network there is no such address")]
    pub fn address(&self, port: u16) -> Address {
        Address::from((THERE, port))
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        // It ends with its stdin; this is for one that does not.
        let _ = self.relay.kill();
        let _ = self.relay.wait();
    }
}
