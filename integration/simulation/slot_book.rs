//! The account of the slots that have sockets of their own, for S24.

use std::collections::{BTreeMap, BTreeSet};

use shepherd::core::ids::{GenerationId, MemberId, ServiceId, SlotId, SocketId};
use shepherd::core::notice::SlotNotice;
use shepherd::core::policy::{BoundMember, Members, Policy, Socket};
use shepherd::core::restart::{BACKOFF_FIRST, BACKOFF_MAX};
use shepherd::core::time::Time;

use crate::invariants::{Violation, ensure};
use crate::ledger::{Book, Ledger, Record, Stop, Turn};
use crate::member_book::{MemberBook, Whose};

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
        let each_slot = |socket: &&Socket| matches!(socket.members, Members::EachSlot { .. });
        let each = policy.sockets.iter().filter(each_slot).map(|socket| socket.id).collect();
        SlotBook::fresh(each, (0..policy.workers).map(SlotId).collect())
    }

    /// The same of those that each slot of a generation has, if there are any.
    pub(crate) fn own(policy: &Policy, bound: BTreeSet<SlotId>) -> Option<SlotBook> {
        let each_worker = |socket: &&Socket| matches!(socket.members, Members::EachWorker { .. });
        let each = policy.sockets.iter().filter(each_worker).map(|socket| socket.id);
        let each: Vec<SocketId> = each.collect();
        (!each.is_empty()).then(|| SlotBook::fresh(each, bound))
    }

    fn fresh(sockets: Vec<SocketId>, bound: BTreeSet<SlotId>) -> SlotBook {
        SlotBook {
            sockets,
            bound,
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

    /// Whether a worker may be started in this slot.
    fn is_open(&self, slot: SlotId) -> bool {
        self.sockets.is_empty() || self.bound.contains(&slot)
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
    /// Whether a worker of a generation may be started in this slot.
    pub(crate) fn is_open(&self, generation: GenerationId, slot: SlotId) -> bool {
        let own = self.own.get(&self.root(generation));
        self.slots.is_open(slot) && own.is_none_or(|own| own.is_open(slot))
    }

    /// How many of the wanted slots may have a worker of a generation.
    pub(crate) fn open_slots(&self, generation: GenerationId) -> usize {
        (0..self.wanted).filter(|&slot| self.is_open(generation, SlotId(slot))).count()
    }

    /// The generation whose members a generation has.
    pub(crate) fn root(&self, generation: GenerationId) -> GenerationId {
        self.heirs.get(&generation).copied().unwrap_or(generation)
    }

    /// Whether the sockets of slots are being bound.
    pub(crate) fn is_binding(&self) -> bool {
        self.slots.is_under_way() || self.own.values().any(SlotBook::is_under_way)
    }

    /// The generations that have slots and are to have as many as are wanted.
    fn current(&self) -> BTreeSet<GenerationId> {
        let rolling = self.rolling.filter(|(_, read)| *read).map(|(rolling, _)| rolling);
        [Some(self.serving), rolling].into_iter().flatten().map(|it| self.root(it)).collect()
    }

    fn slots_of(&mut self, of: Option<GenerationId>) -> Option<&mut SlotBook> {
        match of {
            None => Some(&mut self.slots),
            Some(generation) => self.own.get_mut(&generation),
        }
    }
}

impl Ledger {
    pub(crate) fn learn_slot_bound(
        &mut self,
        turn: &mut Turn<'_>,
        service: ServiceId,
        of: Option<GenerationId>,
        slot: SlotId,
        members: &[(SocketId, BoundMember)],
    ) {
        let in_use = of.is_none_or(|of| self.used(service).contains(&of));
        let Some(book) = self.books.get_mut(&service) else { return };
        let serves = !book.told && book.life.serves() && in_use;
        if let Some(slots) = book.slots_of(of) {
            slots.under_way.remove(&slot);
            if serves {
                let again = slots.failures.remove(&slot).is_some();
                slots.bound.insert(slot);
                for (socket, bound) in members {
                    let whose = of.map_or(Whose::Slot(slot), |of| Whose::Worker(of, slot));
                    let fresh = MemberBook::fresh(service, *socket, whose);
                    self.members.insert(bound.member, fresh);
                }
                for (_, bound) in members {
                    self.note_share(bound.member);
                }
                if again {
                    self.seen.insert("a slot that was tried again");
                }
                return;
            }
        }
        turn.to_close.extend(members.iter().map(|(_, bound)| bound.member));
    }

    pub(crate) fn learn_slot_not_bound(
        &mut self,
        now: Time,
        service: ServiceId,
        of: Option<GenerationId>,
        slot: SlotId,
    ) {
        let Some(book) = self.books.get_mut(&service) else { return };
        let serves = book.life.serves();
        let Some(slots) = book.slots_of(of) else { return };
        slots.under_way.remove(&slot);
        if !serves {
            slots.waits.remove(&slot);
            slots.failures.remove(&slot);
            return;
        }
        let failures = slots.failures.entry(slot).or_default();
        *failures += 1;
        let nominal = (BACKOFF_FIRST * (1 << (*failures - 1).min(9))).min(BACKOFF_MAX);
        slots.waits.insert(slot, (now + nominal * 3 / 4, now + nominal));
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
        of: Option<GenerationId>,
        slot: SlotId,
        members: &[(SocketId, MemberId)],
    ) -> Result<(), Violation> {
        let book = self.books.get_mut(&service).ok_or("S7: no such service")?;
        ensure!(!book.told, "S24: slot {slot} is bound after a stop");
        let current = of.is_none_or(|of| book.current().contains(&of));
        ensure!(current, "S24: slot {slot} is bound for {of:?}, which is not to have any more");
        let wanted = slot.0 < book.wanted;
        let slots = book.slots_of(of).ok_or("S24: slots of no generation")?;
        let lacks = wanted && !slots.bound.contains(&slot);
        ensure!(lacks, "S24: slot {slot} of {of:?} is bound without need");
        ensure!(slots.under_way.insert(slot), "S24: slot {slot} is bound twice");
        if let Some((from, _)) = slots.waits.remove(&slot) {
            ensure!(from <= turn.now, "S24: slot {slot} is tried again before {from:?}");
        }
        let sockets = members.iter().map(|(socket, _)| socket);
        ensure!(sockets.eq(&slots.sockets), "S24: slot {slot} gets {members:?}");
        for &(_, member) in members {
            ensure!(member > self.last_member, "S7: a socket's number is used twice: {member}");
            self.last_member = member;
        }
        if of.is_some() {
            self.saw("a slot of a generation bound");
        }
        Ok(())
    }

    /// Whether nobody wants a socket any more: it is one of a slot that is not wanted or of a
    /// generation that serves no more, and its last worker is gone.
    pub(crate) fn close_of_left(&mut self, member: MemberId) -> bool {
        let Some(&MemberBook { service, whose, .. }) = self.members.get(&member) else {
            return false;
        };
        let slot_left = whose.slot().is_some_and(|slot| {
            let mut workers = self.alive();
            let book = &self.books[&service];
            let has_it = |record: &Record| {
                let of = |generation| generation == book.root(record.generation);
                let same = whose.generation().is_none_or(of);
                (record.service, record.slot) == (service, slot) && same
            };
            slot.0 >= book.wanted && !workers.any(|(_, record)| has_it(record))
        });
        let used = self.used(service);
        let generation_left = whose.generation().is_some_and(|own| !used.contains(&own));
        let Some(book) = self.books.get_mut(&service) else { return false };
        if let (true, Some(slot)) = (slot_left, whose.slot())
            && let Some(slots) = book.slots_of(whose.generation())
        {
            slots.bound.remove(&slot);
        }
        self.members.remove(&member);
        self.seen.insert(if generation_left {
            "a generation's socket closed"
        } else {
            "a slot closed"
        });
        slot_left || generation_left
    }

    /// Members that nobody wants any more stay open while the only one of their group that gets
    /// something would be left to the hash, beside others, if it moved.
    fn note_going(&mut self, service: ServiceId, used: &BTreeSet<GenerationId>) {
        let book = &self.books[&service];
        let unwanted = |account: &MemberBook| {
            let over = account.whose.generation().is_some_and(|own| !used.contains(&own));
            let left = account.whose.slot().is_some_and(|slot| {
                let held = self.alive().any(|(_, record)| {
                    let of = |own| own == book.root(record.generation);
                    let same = account.whose.generation().is_none_or(of);
                    (record.service, record.slot) == (service, slot) && same
                });
                let current =
                    account.whose.generation().is_none_or(|it| book.current().contains(&it));
                let serves = !book.told && book.life.serves() && current;
                serves && slot.0 >= book.wanted && !held
            });
            over || left
        };
        let own = self.members.iter().filter(|(_, account)| account.service == service);
        let going = own.filter(|(_, account)| unwanted(account) && self.may_wait(account.socket));
        let going: Vec<MemberId> = going.map(|(&member, _)| member).collect();
        for member in going {
            let Some(account) = self.members.remove(&member) else { continue };
            if let Some(slot) = account.whose.slot()
                && let Some(book) = self.books.get_mut(&service)
                && let Some(slots) = book.slots_of(account.whose.generation())
            {
                slots.bound.remove(&slot);
            }
            self.going.insert(member, service);
            self.seen.insert("a socket that waits to be closed");
        }
    }

    /// The same of what was bound for nobody.
    pub(crate) fn note_late(&mut self, turn: &mut Turn<'_>) {
        for member in std::mem::take(&mut turn.to_close) {
            let socket = self.socket_of.get(&member).copied();
            let owner = self
                .books
                .iter()
                .find(|(_, book)| book.policy.sockets.iter().any(|it| Some(it.id) == socket));
            let owner = owner.map(|(&service, _)| service);
            match owner.filter(|&it| self.keeps_serving(it)) {
                Some(service) if socket.is_some_and(|socket| self.may_wait(socket)) => {
                    self.going.insert(member, service);
                }
                Some(_) | None => {
                    turn.to_close.insert(member);
                }
            }
        }
    }

    /// Whether one that is to go may have to wait: who moves by it would get nothing, or is a spare
    /// that may be needed where it is.
    fn may_wait(&self, socket: SocketId) -> bool {
        let mut spares = self.spares.keys();
        self.is_alone(socket) || spares.any(|spare| self.socket_of.get(spare) == Some(&socket))
    }

    /// Whether only one of the members of a socket gets something, and there are others beside it and
    /// one that is to go.
    pub(crate) fn is_alone(&self, socket: SocketId) -> bool {
        let of = |member: &MemberId| self.socket_of.get(member) == Some(&socket);
        let shares = self.shares.iter().filter(|(member, _)| of(member));
        let open: Vec<u32> = shares.map(|(_, share)| *share).collect();
        open.len() > 2 && open.iter().filter(|share| **share > 0).count() == 1
    }

    /// The generations that serve, are to serve or have workers, as those whose members they have.
    pub(crate) fn used(&self, service: ServiceId) -> BTreeSet<GenerationId> {
        let book = &self.books[&service];
        let workers = self.alive().filter(|(_, record)| record.service == service);
        let mut used: BTreeSet<GenerationId> =
            workers.map(|(_, record)| record.generation).collect();
        if !book.told {
            used.extend(book.life.serves().then_some(book.serving));
            used.extend(book.life.keeps());
            used.extend(book.new_one());
        }
        used.into_iter().map(|generation| book.root(generation)).collect()
    }

    /// At the end of a turn: every slot that is wanted has its sockets, is about to, or waits; every
    /// other has none, unless somebody has them still. Nor has a generation that is over.
    pub(crate) fn check_slots(&mut self, now: Time) -> Result<(), Violation> {
        let services: Vec<ServiceId> = self.books.keys().copied().collect();
        for service in services {
            let used = self.used(service);
            self.note_going(service, &used);
            let over = self.members.iter().find(|(_, account)| {
                let over = account.whose.generation().is_some_and(|own| !used.contains(&own));
                account.service == service && over
            });
            let over =
                over.map(|(member, _)| member).filter(|member| !self.closed.contains(member));
            ensure!(over.is_none(), "S1: {over:?} is of a generation that is over");
            let mut places: BTreeSet<(SocketId, Whose)> = BTreeSet::new();
            for account in self.members.values().filter(|account| account.service == service) {
                let first = places.insert((account.socket, account.whose));
                ensure!(first, "S1: two of {} are for {:?}", account.socket, account.whose);
            }
            if let Some(book) = self.books.get_mut(&service) {
                book.own.retain(|generation, own| used.contains(generation) || own.is_under_way());
            }
        }
        if self.stop != Stop::No {
            return Ok(());
        }
        let held: BTreeSet<(ServiceId, GenerationId, SlotId)> = self
            .alive()
            .map(|(_, record)| {
                let root = self.books[&record.service].root(record.generation);
                (record.service, root, record.slot)
            })
            .collect();
        for (&service, book) in &mut self.books {
            if !book.life.serves() {
                continue;
            }
            let wanted = book.wanted;
            let own = book.current().into_iter().map(Some);
            for of in own.chain([None]) {
                let Some(slots) = book.slots_of(of).filter(|it| !it.sockets.is_empty()) else {
                    continue;
                };
                let SlotBook { bound, under_way, waits, failures, .. } = slots;
                waits.retain(|slot, _| slot.0 < wanted || failures.remove(slot).is_none());
                for slot in (0..wanted).map(SlotId) {
                    let waits = waits.get(&slot).is_some_and(|&(_, until)| now <= until);
                    let cared_for = bound.contains(&slot) || under_way.contains(&slot) || waits;
                    ensure!(cared_for, "S24: slot {slot} of {service}, {of:?}, lacks its sockets");
                }
                let is_held = |slot: &SlotId| {
                    held.iter().any(|&(it, root, of_worker)| {
                        (it, of_worker) == (service, *slot) && of.is_none_or(|of| of == root)
                    })
                };
                let left = bound.range(SlotId(wanted)..).find(|slot| !is_held(slot));
                ensure!(left.is_none(), "S24: {left:?} of {service}, {of:?}, is kept for nobody");
            }
        }
        Ok(())
    }
}
