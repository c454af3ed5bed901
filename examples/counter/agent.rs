//! The agent: it keeps the one count of all workers of `web`, each of which sends it `"hit"` and is told
//! what it has come to. It hears of workers that come and go, too, and says what each has counted.

#![expect(unsafe_code, reason = "a descriptor that is known by its number is taken")]
#![expect(clippy::print_stdout, reason = "stdout is its log")]
#![expect(clippy::disallowed_methods, reason = "it reads its variables")]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::FromRawFd;
use std::os::unix::net::{UnixDatagram, UnixStream};

use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let number = std::env::var("SHEPHERD_CHANNEL_FD").map_err(|_| "messages are off")?.parse()?;
    // SAFETY: the descriptor was given to us by this number, and nothing else here has taken it.
    let channel = unsafe { UnixStream::from_raw_fd(number) };
    let mut says = channel.try_clone()?;
    let subscribe = json!({"to": "supervisor", "data": {"subscribe": "workers"}});
    says.write_all(format!("{subscribe}\n").as_bytes())?;
    if let Some(manager) = std::env::var_os("NOTIFY_SOCKET") {
        UnixDatagram::unbound()?.send_to(b"READY=1", manager)?;
    }
    let mut total = 0_u64;
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for line in BufReader::new(channel).lines() {
        let message: Value = serde_json::from_str(&line?)?;
        let (from, data) = (text(&message["from"]), &message["data"]);
        if *data == "hit" {
            total += 1;
            *counts.entry(from.clone()).or_default() += 1;
            let answer = json!({"to": from, "data": {"total": total}});
            says.write_all(format!("{answer}\n").as_bytes())?;
        } else if from == "supervisor" && data["event"] == "ended" {
            let worker = text(&data["worker"]);
            let counted = counts.remove(&worker).unwrap_or_default();
            println!("{worker} has ended, and had counted {counted}");
        }
    }
    Ok(())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
