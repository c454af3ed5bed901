//! The account of the slots that have sockets of their own, for S24.

use std::collections::{BTreeMap, BTreeSet};

use shepherd::core::ids::{MemberId, ServiceId, SlotId, SocketId};
use shepherd::core::notice::SlotNotice;
use shepherd::core::policy::{BoundMember, Members, Policy};
use shepherd::core::restart::{BACKOFF_FIRST, BACKOFF_MAX};
use shepherd::core::time::Time;

use crate::invariants::{Violation, ensure};
use crate::ledger::{Book, Ledger, Stop, Turn};
use crate::member_book::MemberBook;

/// The slots of a service.
pub(crate) struct SlotBook {
    /// Each slot has one of each of these.
    sockets: Vec<SocketId>,
    bound: BTreeSet<SlotId>,
    under_way: BTreeSet<SlotId>,
    /// Between when they are tried again.
    waits: BTreeMap<SlotId, (Time, Time)>,
    failures: BTreeMap<SlotId, u32>,
}

impl SlotBook {
    pub(crate) fn of(policy: &Policy) -> SlotBook {
        let each = policy.sockets.iter().filter(|socket| socket.members != Members::Shared);
        SlotBook {
            sockets: each.map(|socket| socket.id).collect(),
            bound: (0..policy.workers).map(SlotId).collect(),
            under_way: BTreeSet::new(),
            waits: BTreeMap::new(),
            failures: BTreeMap::new(),
        }
    }
}

impl SlotBook {
    /// A slot got its sockets when its service was started.
    pub(crate) fn opened(&mut self, slot: Option<SlotId>) {
        self.bound.extend(slot);
    }

    /// The service is stopped.
    pub(crate) fn closed_all(&mut self) {
        self.bound.clear();
        self.waits.clear();
        self.failures.clear();
    }

    /// Whether an answer is on its way.
    pub(crate) fn is_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }
}

impl Book {
    /// Whether a worker may be started in this slot.
    pub(crate) fn is_open(&self, slot: SlotId) -> bool {
        self.slots.sockets.is_empty() || self.slots.bound.contains(&slot)
    }

    /// How many of the wanted slots may have a worker.
    pub(crate) fn open_slots(&self) -> usize {
        (0..self.wanted).filter(|&slot| self.is_open(SlotId(slot))).count()
    }
}

impl Ledger {
    pub(crate) fn learn_slot_bound(
        &mut self,
        turn: &mut Turn<'_>,
        service: ServiceId,
        slot: SlotId,
        members: &[(SocketId, BoundMember)],
    ) {
        let Some(book) = self.books.get_mut(&service) else { return };
        book.slots.under_way.remove(&slot);
        if book.told || !book.life.serves() {
            turn.to_close.extend(members.iter().map(|(_, bound)| bound.member));
            return;
        }
        if book.slots.failures.remove(&slot).is_some() {
            self.seen.insert("a slot that was tried again");
        }
        book.slots.bound.insert(slot);
        for (socket, bound) in members {
            let fresh = MemberBook::fresh(service, *socket, Some(slot));
            self.members.insert(bound.member, fresh);
        }
    }

    pub(crate) fn learn_slot_not_bound(&mut self, now: Time, service: ServiceId, slot: SlotId) {
        let Some(book) = self.books.get_mut(&service) else { return };
        book.slots.under_way.remove(&slot);
        if !book.life.serves() {
            book.slots.waits.remove(&slot);
            book.slots.failures.remove(&slot);
            return;
        }
        let failures = book.slots.failures.entry(slot).or_default();
        *failures += 1;
        let nominal = (BACKOFF_FIRST * (1 << (*failures - 1).min(9))).min(BACKOFF_MAX);
        book.slots.waits.insert(slot, (now + nominal * 3 / 4, now + nominal));
    }

    pub(crate) fn saw_slot(&mut self, what: &SlotNotice) {
        self.saw(match what {
            SlotNotice::Bound { .. } => "a slot opened",
            SlotNotice::NotBound { .. } => "a slot not bound",
        });
    }

    pub(crate) fn check_bind_slot(
        &mut self,
        turn: &Turn<'_>,
        service: ServiceId,
        slot: SlotId,
        members: &[(SocketId, MemberId)],
    ) -> Result<(), Violation> {
        let book = self.books.get_mut(&service).ok_or("S7: no such service")?;
        ensure!(!book.told, "S24: slot {slot} is bound after a stop");
        let wanted = slot.0 < book.wanted && !book.slots.bound.contains(&slot);
        ensure!(wanted, "S24: slot {slot} is bound without need");
        ensure!(book.slots.under_way.insert(slot), "S24: slot {slot} is bound twice");
        if let Some((from, _)) = book.slots.waits.remove(&slot) {
            ensure!(from <= turn.now, "S24: slot {slot} is tried again before {from:?}");
        }
        let sockets = members.iter().map(|(socket, _)| socket);
        ensure!(sockets.eq(&book.slots.sockets), "S24: slot {slot} gets {members:?}");
        for &(_, member) in members {
            ensure!(member > self.last_member, "S7: a socket's number is used twice: {member}");
            self.last_member = member;
        }
        Ok(())
    }

    /// Whether a socket is one of a slot that is not wanted, whose last worker is gone.
    pub(crate) fn close_of_left_slot(&mut self, member: MemberId) -> bool {
        let Some(&MemberBook { service, slot: Some(slot), .. }) = self.members.get(&member) else {
            return false;
        };
        let mut workers = self.alive();
        let left = !workers.any(|(_, record)| (record.service, record.slot) == (service, slot));
        drop(workers);
        let Some(book) = self.books.get_mut(&service) else { return false };
        book.slots.bound.remove(&slot);
        let unwanted = slot.0 >= book.wanted;
        self.members.remove(&member);
        self.seen.insert("a slot closed");
        left && unwanted
    }

    /// At the end of a turn: every slot that is wanted has its sockets, is about to, or waits; every
    /// other has none, unless somebody has them still.
    pub(crate) fn check_slots(&mut self, now: Time) -> Result<(), Violation> {
        if self.stop != Stop::No {
            return Ok(());
        }
        let held: BTreeSet<(ServiceId, SlotId)> =
            self.alive().map(|(_, record)| (record.service, record.slot)).collect();
        for (&service, book) in &mut self.books {
            if book.slots.sockets.is_empty() || !book.life.serves() {
                continue;
            }
            let SlotBook { bound, under_way, waits, failures, .. } = &mut book.slots;
            let wanted = book.wanted;
            waits.retain(|slot, _| slot.0 < wanted || failures.remove(slot).is_none());
            for slot in (0..wanted).map(SlotId) {
                let waits = waits.get(&slot).is_some_and(|&(_, until)| now <= until);
                let cared_for = bound.contains(&slot) || under_way.contains(&slot) || waits;
                ensure!(cared_for, "S24: slot {slot} of {service} lacks its sockets");
            }
            let left =
                bound.range(SlotId(wanted)..).find(|&&slot| !held.contains(&(service, slot)));
            ensure!(left.is_none(), "S24: slot {left:?} of {service} keeps its sockets for nobody");
        }
        Ok(())
    }
}
