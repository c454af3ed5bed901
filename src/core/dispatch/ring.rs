//! Which slot a client belongs to: consistent hashing.
//!
//! Each slot has [`POINTS`] points on a circle of 64 bits, a client has one, and belongs to the slot
//! whose point comes next. So when a slot goes only its own clients go elsewhere, to all the others;
//! when one comes it takes a share of each; and where a client belongs depends on the slots that are
//! there and on nothing that was before. Shepherds that succeed each other agree, so the numbers must
//! stay as they are.

use std::collections::{BTreeMap, BTreeSet};

use super::Client;
use crate::core::ids::{SlotId, WorkerId};

/// How many points a slot has. With 256 of 64 slots the largest has a sixth more than its share; with
/// 128 it is two fifths. Clients differ more than that anyway, and a slot takes some 6 KiB.
const POINTS: u64 = 256;

/// The slots that have somebody.
#[derive(Debug, Clone, Default)]
pub(super) struct Ring {
    points: BTreeSet<(u64, SlotId)>,
    /// A slot may have two for a moment, of two generations.
    slots: BTreeMap<SlotId, BTreeSet<WorkerId>>,
}

impl Ring {
    /// Has a worker be in a slot or not. Returns whether that changes who a client belongs to.
    pub(super) fn set(&mut self, slot: SlotId, worker: WorkerId, is_there: bool) -> bool {
        let before = self.worker(slot);
        if is_there {
            self.slots.entry(slot).or_default().insert(worker);
        } else if let Some(workers) = self.slots.get_mut(&slot) {
            workers.remove(&worker);
            if workers.is_empty() {
                self.slots.remove(&slot);
            }
        }
        let after = self.worker(slot);
        if before.is_none() && after.is_some() {
            self.points.extend(points(slot));
        } else if before.is_some() && after.is_none() {
            for point in points(slot) {
                self.points.remove(&point);
            }
        }
        before != after
    }

    /// The slot that a client belongs to; none if nobody is there, or nothing is known of it.
    pub(super) fn slot(&self, client: Client) -> Option<SlotId> {
        let at = match client {
            Client::V4(address) => mix(mix(4) ^ u64::from(u32::from_be_bytes(address))),
            Client::V6(network) => mix(mix(6) ^ u64::from_be_bytes(network)),
            Client::Unknown => return None,
        };
        let next = self.points.range((at, SlotId(0))..).next();
        next.or(self.points.first()).map(|&(_, slot)| slot)
    }

    /// Who has the clients of a slot: the last that came.
    pub(super) fn worker(&self, slot: SlotId) -> Option<WorkerId> {
        self.slots.get(&slot)?.last().copied()
    }
}

fn points(slot: SlotId) -> impl Iterator<Item = (u64, SlotId)> {
    (0..POINTS).map(move |point| (mix(mix(u64::from(slot.0) + 1) ^ point), slot))
}

/// The finishing step of splitmix64: each bit of the number changes half of the result's.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many clients there are.
    const CLIENTS: u32 = 20_000;

    fn ring(slots: u32) -> Ring {
        let mut ring = Ring::default();
        for slot in 0..slots {
            assert!(ring.set(SlotId(slot), WorkerId(slot.into()), true));
        }
        ring
    }

    fn homes(ring: &Ring) -> Vec<SlotId> {
        let clients = (0..CLIENTS).map(|client| Client::V4((0x0a00_0000 + client).to_be_bytes()));
        clients.map(|client| ring.slot(client).expect("somebody is there")).collect()
    }

    #[test]
    fn clients_are_spread_over_the_slots() {
        for slots in [2, 3, 8, 32] {
            let homes = homes(&ring(slots));
            for slot in (0..slots).map(SlotId) {
                let clients: u32 = homes.iter().map(|&home| u32::from(home == slot)).sum();
                let percent = clients * slots * 100 / CLIENTS;
                assert!(
                    (75..125).contains(&percent),
                    "{slot} of {slots}: {percent} % of its share"
                );
            }
        }
    }

    #[test]
    fn a_slot_that_goes_moves_its_clients_alone_and_one_that_comes_takes_a_share() {
        let mut ring = ring(8);
        let before = homes(&ring);
        assert!(ring.set(SlotId(3), WorkerId(3), false));
        let without = homes(&ring);
        for (before, without) in before.iter().zip(&without) {
            assert!(before == without || *before == SlotId(3));
        }
        assert!(!without.contains(&SlotId(3)));
        let took: BTreeSet<_> = before.iter().zip(&without).filter(|(a, b)| a != b).collect();
        assert_eq!(took.len(), 7, "all others take some");
        assert!(ring.set(SlotId(3), WorkerId(9), true));
        assert_eq!(homes(&ring), before, "who is in the slot does not matter");
        assert!(ring.set(SlotId(8), WorkerId(8), true));
        let with = homes(&ring);
        let moved = before.iter().zip(&with).filter(|(before, with)| before != with);
        let moved: Vec<_> = moved.map(|(_, with)| *with).collect();
        assert!(moved.iter().all(|&slot| slot == SlotId(8)));
        assert!((1400..3200).contains(&moved.len()), "about a ninth: {}", moved.len());
    }

    #[test]
    fn the_last_that_came_has_the_clients_of_a_slot() {
        let mut ring = ring(2);
        assert!(ring.set(SlotId(0), WorkerId(7), true));
        assert!(!ring.set(SlotId(0), WorkerId(7), true), "nothing changes");
        assert_eq!(ring.worker(SlotId(0)), Some(WorkerId(7)));
        assert!(!ring.set(SlotId(0), WorkerId(0), false));
        assert!(ring.set(SlotId(0), WorkerId(7), false));
        assert_eq!(ring.worker(SlotId(0)), None);
    }

    #[test]
    fn where_clients_belong_stays_as_it_is_from_version_to_version() {
        let ring = ring(5);
        let home = |client| ring.slot(client).expect("somebody is there").0;
        let v4 = |last| home(Client::V4([192, 0, 2, last]));
        let v6 = |last| home(Client::V6([0x20, 1, 0x0d, 0xb8, 0, 0, 0, last]));
        assert_eq!([1, 2, 3, 4, 5, 6].map(v4), [0, 0, 1, 1, 0, 1]);
        assert_eq!([1, 2, 3, 4, 5, 6].map(v6), [2, 1, 4, 4, 1, 3]);
    }

    #[test]
    fn a_client_is_its_address_of_ipv4_or_its_network_of_ipv6() {
        let mut mapped = [0; 16];
        mapped[10..].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 1]);
        assert_eq!(Client::v6(mapped), Client::V4([192, 0, 2, 1]));
        let in_network = |last| {
            let mut address = [0x20; 16];
            address[15] = last;
            Client::v6(address)
        };
        assert_eq!(in_network(1), in_network(2));
        assert_eq!(Ring::default().slot(in_network(1)), None);
        assert_eq!(ring(3).slot(Client::Unknown), None);
    }
}
