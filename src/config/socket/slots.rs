//! A socket a slot: `8001+{slot}`, `unix:/run/web.{slot}.sock`.

use core::net::SocketAddr;
use std::path::PathBuf;

use super::{Address, SocketSpec, SocketSpecCause, Transport};
use crate::core::service::WORKERS_MAX;

/// What stands for the number of a slot.
pub const PLACEHOLDER: &str = "{slot}";

/// For which slots of a service a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slots {
    /// The workers of all slots share it.
    Shared,
    /// Each slot has one of its own, on a port or at a path of its own.
    Each,
    /// It is the one of this slot.
    One(u32),
}

impl Slots {
    /// What follows the address, where that does not show it.
    pub(super) fn suffix(self, address: &Address) -> String {
        match (self, address) {
            (Slots::Each, Address::Port(_) | Address::Ip(_) | Address::Localhost(_)) => {
                format!("+{PLACEHOLDER}")
            }
            (Slots::Each, Address::Unix(_) | Address::Abstract(_))
            | (Slots::Shared | Slots::One(_), _) => String::new(),
        }
    }

    pub(super) fn check(
        self,
        transport: Transport,
        address: &Address,
    ) -> Result<(), SocketSpecCause> {
        match (self, address) {
            (Slots::Each, Address::Port(0)) => Err(SocketSpecCause::SlotPortZero),
            (Slots::Each, Address::Ip(address)) if address.port() == 0 => {
                Err(SocketSpecCause::SlotPortZero)
            }
            (Slots::Each, Address::Localhost(port)) => {
                let udp = if transport == Transport::Datagram { "udp:" } else { "" };
                let hint = format!("{udp}127.0.0.1:{port}+{PLACEHOLDER}");
                Err(SocketSpecCause::SlotLocalhost { hint })
            }
            (Slots::Each | Slots::Shared | Slots::One(_), _) => Ok(()),
        }
    }
}

impl SocketSpec {
    /// The socket that this slot has, if each has one and there is a port for it.
    #[must_use]
    pub fn of_slot(&self, slot: u32) -> Option<SocketSpec> {
        if self.slots != Slots::Each {
            return None;
        }
        let port = |first: u16| u16::try_from(u32::from(first).checked_add(slot)?).ok();
        let number = slot.to_string();
        let address = match &self.address {
            Address::Port(first) => Address::Port(port(*first)?),
            Address::Ip(address) => {
                let mut address: SocketAddr = *address;
                address.set_port(port(address.port())?);
                Address::Ip(address)
            }
            Address::Localhost(first) => Address::Localhost(port(*first)?),
            // It was read from text.
            Address::Unix(path) => {
                let path = path.to_string_lossy().replace(PLACEHOLDER, &number);
                Address::Unix(PathBuf::from(path))
            }
            Address::Abstract(name) => Address::Abstract(name.replace(PLACEHOLDER, &number)),
        };
        Some(SocketSpec { address, slots: Slots::One(slot), ..self.clone() })
    }

    /// How many slots there can be with it.
    #[must_use]
    pub fn slots_max(&self) -> u32 {
        let first = match (self.slots, &self.address) {
            (Slots::Each, Address::Port(first) | Address::Localhost(first)) => *first,
            (Slots::Each, Address::Ip(address)) => address.port(),
            (Slots::Each, Address::Unix(_) | Address::Abstract(_))
            | (Slots::Shared | Slots::One(_), _) => return WORKERS_MAX,
        };
        (u32::from(u16::MAX) - u32::from(first) + 1).min(WORKERS_MAX)
    }
}

/// Whether a text names the slot.
pub(super) fn are_in(text: &str) -> bool {
    text.contains(PLACEHOLDER)
}

/// Takes the slot off the end of an address. A path keeps it, wherever it stands.
pub(super) fn take(text: &str) -> Result<(Slots, &str), SocketSpecCause> {
    if !are_in(text) {
        return Ok((Slots::Shared, text));
    }
    if text.starts_with("unix:") || text.starts_with("seqpacket:") {
        return Ok((Slots::Each, text));
    }
    let address = text.strip_suffix(PLACEHOLDER).and_then(|text| text.strip_suffix('+'));
    match address {
        Some(address) if address.ends_with(|last: char| last.is_ascii_digit()) => {
            if are_in(address) { Err(elsewhere(text)) } else { Ok((Slots::Each, address)) }
        }
        Some(_) | None => Err(elsewhere(text)),
    }
}

/// It stands where it means nothing: what was meant, as far as that can be guessed.
pub(super) fn elsewhere(text: &str) -> SocketSpecCause {
    let without = text.replace(PLACEHOLDER, "");
    let without = without.trim_end_matches(['+', '-', ' ', '.', '_', ':']);
    let guess = super::spec(without).ok().filter(|spec| match &spec.address {
        Address::Port(port) => *port > 0,
        Address::Ip(address) => address.port() > 0,
        Address::Localhost(_) | Address::Unix(_) | Address::Abstract(_) => false,
    });
    let place = guess.map_or_else(|| "8001".to_owned(), |spec| spec.place());
    SocketSpecCause::SlotElsewhere { hint: format!("{place}+{PLACEHOLDER}") }
}

/// How many bytes a path has in the last slot that there can be.
pub(super) fn longest(path: &str) -> usize {
    path.replace(PLACEHOLDER, &(WORKERS_MAX - 1).to_string()).len()
}
