//! The account of who gets new connections, and of workers that finish what they have, for S14.

use std::collections::BTreeMap;
use std::time::Duration;

use shepherd::core::Action;
use shepherd::core::action::NewMember;
use shepherd::core::drain::{HANDSHAKE_WAIT, Look, Manners, Remains};
use shepherd::core::event::{DrainSeen, Event, Left, Queued};
use shepherd::core::ids::{GenerationId, MemberId, ServiceId, SlotId, SocketId, WorkerId};
use shepherd::core::notice::StallNotice;
use shepherd::core::policy::{BeforeStop, KeepAlive, Members};
use shepherd::core::stalls::LOOKS_STALLED;
use shepherd::core::steering::GroupId;
use shepherd::core::time::Time;

use crate::invariants::{Violation, ensure};
use crate::ledger::{Channel, Ledger, Record, Standing, Start, Turn};
use crate::member_book::{MemberBook, Whose};
use crate::slot_book::SlotBook;
use crate::world::Input;

/// How often nothing must be seen left.
const TWICE: u32 = 2;

/// More than a service has workers in any world.
const WORKERS_MAX: u32 = 64;

/// The looks at workers of a service that finish what they have.
#[derive(Debug, Default)]
pub(crate) struct DrainBook {
    last: u64,
    under_way: bool,
    manners: Manners,
}

impl Ledger {
    /// What a reload binds: a socket for each generation, or of each slot of it, unless it has those
    /// of the one before.
    pub(crate) fn check_reload_binds(
        &mut self,
        service: ServiceId,
        generation: GenerationId,
        bind: &[NewMember],
    ) -> Result<(), Violation> {
        let book = &self.books[&service];
        let root = book.root(generation);
        let mut expected: Vec<(SocketId, Option<SlotId>)> = Vec::new();
        for socket in &book.policy.sockets {
            let slots: Vec<Option<SlotId>> = match socket.members {
                Members::Shared | Members::Dispatched(_) | Members::EachSlot { .. } => Vec::new(),
                Members::EachGeneration => vec![None],
                Members::EachWorker { .. } => (0..book.wanted).map(|it| Some(SlotId(it))).collect(),
            };
            let is_open = |slot: &Option<SlotId>| {
                let whose = Whose::of(&socket.members, root, slot.unwrap_or(SlotId(0)));
                let mut members = self.members.values();
                let open = members.any(|it| (it.socket, it.whose) == (socket.id, whose));
                // The slots of one that has another's are seen to as before.
                open || slot.is_some() && book.own.contains_key(&root)
            };
            let lacks = slots.into_iter().filter(|slot| !is_open(slot));
            expected.extend(lacks.map(|slot| (socket.id, slot)));
        }
        let told = bind.iter().map(|new| (new.socket, new.slot));
        ensure!(told.eq(expected.iter().copied()), "S14: {bind:?} are bound, not {expected:?}");
        if root != generation {
            self.saw("members inherited");
        } else if !bind.is_empty() {
            self.saw("members bound for a reload");
        }
        for NewMember { member, .. } in bind {
            ensure!(*member > self.last_member, "S7: a number is used twice: {member}");
            self.last_member = *member;
        }
        Ok(())
    }

    /// What was bound for a reload is there.
    pub(crate) fn learn_rolling_prepared(&mut self, service: ServiceId, generation: GenerationId) {
        let Some(book) = self.books.get_mut(&service) else { return };
        let bound = std::mem::take(&mut book.binding);
        self.open(service, generation, &bound);
    }

    /// These are for the workers of a generation from here on.
    pub(crate) fn open(
        &mut self,
        service: ServiceId,
        generation: GenerationId,
        bound: &[NewMember],
    ) {
        let Some(book) = self.books.get_mut(&service) else { return };
        let root = book.root(generation);
        if !book.own.contains_key(&root) {
            let own = SlotBook::own(&book.policy, std::collections::BTreeSet::new());
            book.own.extend(own.map(|own| (root, own)));
        }
        for &NewMember { socket, slot, member } in bound {
            let kind = book.policy.sockets.iter().find(|it| it.id == socket);
            let Some(kind) = kind.map(|it| &it.members) else { continue };
            let whose = Whose::of(kind, root, slot.unwrap_or(SlotId(0)));
            match whose {
                Whose::Slot(slot) => book.slots.opened(Some(slot)),
                Whose::Worker(root, slot) => {
                    if let Some(own) = book.own.get_mut(&root) {
                        own.opened(Some(slot));
                    }
                }
                Whose::All | Whose::Generation(_) => {}
            }
            self.members.insert(member, MemberBook::fresh(service, socket, whose));
        }
        for new in bound {
            self.note_share(new.member);
        }
    }

    /// A member is there: what it has already it has had.
    pub(crate) fn note_share(&mut self, member: MemberId) {
        if self.shares.get(&member).is_some_and(|share| *share > 0) {
            self.had_share.insert(member);
        }
    }

    /// Whether a service serves, and is to go on.
    pub(crate) fn keeps_serving(&self, service: ServiceId) -> bool {
        self.books.get(&service).is_some_and(|book| book.life.serves() && !book.told)
    }

    /// Whether a worker was asked to stop by its ladder.
    pub(crate) fn was_asked(&self, worker: WorkerId) -> bool {
        let stage = self.workers.get(&worker).map(|record| &record.stage);
        matches!(stage, Some(Standing::Asked { .. } | Standing::Killed { .. }))
    }

    /// Whether a worker serves.
    pub(crate) fn serves(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(|record| {
            let serving = self.books[&record.service].serving;
            record.stage.serves() && record.generation == serving
        })
    }

    /// Whether a service waits for no other any more.
    pub(crate) fn has_begun(&self, service: ServiceId) -> bool {
        self.books.get(&service).is_some_and(|book| book.start != Start::Waits)
    }

    /// Fewer slots are wanted, or another generation serves: notes the members that go by that while no
    /// worker that has been ready is there to take what waits in them.
    pub(crate) fn note_given_up(&mut self, service: ServiceId) {
        let book = &self.books[&service];
        let serving = book.root(book.serving);
        let goes = |whose: Whose| {
            let beyond = whose.slot().is_some_and(|slot| slot.0 >= book.wanted);
            beyond || whose.generation().is_some_and(|own| own != serving)
        };
        let served = |member: &MemberId| {
            self.alive().any(|(_, record)| {
                let was_ready = !matches!(record.stage, Standing::Starting { .. });
                was_ready && !record.main_gone && record.members.contains(member)
            })
        };
        let members = self.members.iter().filter(|(member, account)| {
            account.service == service && goes(account.whose) && !served(member)
        });
        let given_up: Vec<MemberId> = members.map(|(&member, _)| member).collect();
        self.given_up.extend(given_up);
    }

    pub(crate) fn check_steering_action(&mut self, action: &Action) -> Result<(), Violation> {
        match action {
            Action::Steer { group, shares } => {
                let some = shares.iter().any(|share| share.weight > 0);
                ensure!(some, "S14: nobody of {group:?} gets anything");
                let members = shares.iter().map(|share| share.member).collect();
                self.steered.insert(*group, members);
                for share in shares {
                    let spare = self.spares.contains_key(&share.member) && share.weight > 0;
                    ensure!(!spare, "S14: a spare gets new connections: {action:?}");
                    self.socket_of.insert(share.member, group.socket);
                    self.shares.insert(share.member, share.weight);
                    // What comes before it is known to be there does not count.
                    if share.weight > 0 && self.members.contains_key(&share.member) {
                        self.had_share.insert(share.member);
                    }
                }
                let service = shares.iter().find_map(|it| self.service_of(it.member));
                if let Some(book) = service.and_then(|service| self.books.get_mut(&service)) {
                    book.proving.steered(*group, shares);
                }
                self.saw("new connections steered");
            }
            Action::BindSpares { service, members } => {
                ensure!(self.keeps_serving(*service), "S14: {action:?}, and it does not serve");
                for new in members {
                    ensure!(new.member > self.last_member, "S7: used twice: {}", new.member);
                    self.last_member = new.member;
                    self.spares.insert(new.member, *service);
                }
                self.saw("spares bound");
            }
            Action::LookAtQueues { service, members } => {
                ensure!(self.keeps_serving(*service), "S30: {action:?}, and it does not serve");
                let shut = members.iter().find(|member| !self.members.contains_key(member));
                ensure!(shut.is_none(), "S30: {action:?}, and {shut:?} is closed");
                self.saw("a look at queues");
            }
            Action::LookAtDrain { service, look } => {
                let Look { number, members, workers, close_idle, hold, asked: _ } = look;
                for worker in workers {
                    self.named(*worker, action)?;
                }
                let shut = members.iter().find(|member| !self.members.contains_key(member));
                ensure!(shut.is_none(), "S14: {action:?}, and {shut:?} is closed");
                let learned = self.books[service].drains.manners == Manners::Finishes;
                ensure!(!learned || hold.is_empty(), "S17: {action:?}, and that is known");
                let closes = self.books[service].policy.keepalive == KeepAlive::CloseIdle;
                ensure!(closes || close_idle.is_empty(), "S14: {action:?}, and nobody asked");
                let own = close_idle.iter().all(|worker| workers.contains(worker));
                ensure!(own, "S14: {action:?}, and connections of others are closed");
                if !close_idle.is_empty() {
                    self.saw("idle connections closed");
                }
                let held = hold.iter().all(|worker| workers.contains(worker));
                ensure!(held, "S17: {action:?}, and somebody else is held on to");
                let emptying = self.alive().filter(|(_, record)| {
                    let empties = matches!(record.stage, Standing::Emptying { .. });
                    empties && record.service == *service
                });
                let missed = emptying.map(|(id, _)| id).find(|id| !workers.contains(id));
                ensure!(missed.is_none(), "S14: {action:?}, and nobody looks at {missed:?}");
                let book = self.books.get_mut(service).ok_or("S7: no such service")?;
                ensure!(!book.drains.under_way, "S14: {action:?} beside another");
                ensure!(*number == book.drains.last + 1, "S14: {action:?} out of turn");
                book.drains.last = *number;
                book.drains.under_way = true;
                self.saw("a look at a drain");
            }
            _ => {}
        }
        Ok(())
    }

    /// Whose a member is.
    fn service_of(&self, member: MemberId) -> Option<ServiceId> {
        self.members.get(&member).map(|account| account.service)
    }

    /// Spares were bound, or not. Those of a service that does not serve any more are closed already.
    pub(crate) fn learn_spares_bound(
        &mut self,
        _service: ServiceId,
        members: &[MemberId],
        failed: bool,
    ) {
        if failed {
            self.saw("spares not bound");
            self.spares.retain(|member, _| !members.contains(member));
        }
    }

    /// Nothing is to come: no spare is kept, but where it cannot go.
    pub(crate) fn check_spares_at_rest(&self) -> Result<(), Violation> {
        for member in self.spares.keys() {
            let socket = self.socket_of.get(member);
            let waits = socket.is_some_and(|socket| self.is_alone(*socket));
            ensure!(waits, "S14: the spare {member} is kept at rest");
        }
        Ok(())
    }

    /// What a look saw.
    pub(crate) fn learn_drain_seen(
        &mut self,
        now: Time,
        service: ServiceId,
        DrainSeen { number, members, workers, .. }: &DrainSeen,
    ) {
        let Some(book) = self.books.get_mut(&service) else { return };
        if !book.drains.under_way || book.drains.last != *number {
            return;
        }
        book.drains.under_way = false;
        let members: BTreeMap<MemberId, Left> = members.iter().copied().collect();
        let none = |count: Option<u32>| count.is_none_or(|count| count == 0);
        for &(worker, open) in workers {
            let Some(record) = self.workers.get_mut(&worker) else { continue };
            let Standing::Emptying { since, .. } = record.stage else { continue };
            let left = record.members.iter().filter_map(|member| members.get(member));
            let long = now.since(since) >= HANDSHAKE_WAIT;
            let empty = left.fold(true, |empty, left| {
                empty && (none(left.handshakes) || long) && none(left.queued)
            });
            let [members, all] = record.empty;
            record.empty = [
                if empty { members + 1 } else { 0 },
                if empty && none(open) { all + 1 } else { 0 },
            ];
        }
    }

    /// What was seen of queues that are each one worker's.
    pub(crate) fn learn_queues_seen(&mut self, members: &[(MemberId, Option<Queued>)]) {
        for &(member, queued) in members {
            let waits = queued.map_or(0, Queued::count);
            let before = self.standing.remove(&member);
            if waits > 0 {
                let looks = before.filter(|(last, _)| waits >= *last).map_or(0, |(_, it)| it + 1);
                self.standing.insert(member, (waits, looks));
            }
        }
    }

    fn is_stalled(&self, member: MemberId) -> bool {
        self.standing.get(&member).is_some_and(|&(_, looks)| looks >= LOOKS_STALLED)
    }

    /// What is told of a worker that takes nothing is so.
    pub(crate) fn check_stall(&mut self, id: WorkerId, what: StallNotice) -> Result<(), Violation> {
        let record = &self.workers[&id];
        ensure!(record.stage == Standing::Ready, "S30: {what:?} of {record:?}");
        let is_stalled = record.members.iter().any(|&member| self.is_stalled(member));
        match what {
            StallNotice::Stalled { .. } => {
                ensure!(is_stalled, "S30: {what:?} of worker {id}");
                self.saw("a worker that takes nothing");
            }
            StallNotice::Free { .. } => self.saw("a worker that takes again"),
        }
        Ok(())
    }

    /// At the end of a turn: of the workers that serve with sockets of their own each has a share, but
    /// for those that take nothing while others do.
    pub(crate) fn check_stalls(&mut self) -> Result<(), Violation> {
        let ready = |member: &MemberId| {
            self.alive().any(|(_, record)| {
                record.stage == Standing::Ready && record.members.contains(member)
            })
        };
        let alone = |service: ServiceId| {
            let serving = self.books[&service].serving;
            let ready = self.alive().filter(|(_, record)| {
                record.service == service
                    && record.generation == serving
                    && record.stage == Standing::Ready
            });
            ready.count() < 2
        };
        let mut standing = self.standing.clone();
        standing.retain(|member, _| {
            let service = self.members.get(member).map(|account| account.service);
            ready(member) && service.is_some_and(|it| !alone(it) && self.keeps_serving(it))
        });
        self.standing = standing;
        for (&member, account) in &self.members {
            let (service, socket) = (account.service, account.socket);
            let Whose::Worker(root, _) = account.whose else { continue };
            let book = &self.books[&service];
            let serves = |it: MemberId| {
                let mut all = self.alive();
                all.any(|(_, record)| {
                    record.stage == Standing::Ready
                        && record.generation == book.serving
                        && record.members.contains(&it)
                })
            };
            let group = GroupId { socket, slot: None };
            let is_steered = self.steered.get(&group).is_some_and(|it| it.contains(&member));
            let counts = is_steered && self.keeps_serving(service);
            if !counts || root != book.root(book.serving) || !serves(member) {
                continue;
            }
            let others_take = self.members.iter().any(|(&other, it)| {
                let same = it.socket == socket && it.whose.generation() == Some(root);
                same && serves(other) && !self.is_stalled(other)
            });
            let passed_by = self.is_stalled(member) && others_take;
            let share = self.shares.get(&member).copied().unwrap_or(0);
            ensure!(
                (share == 0) == passed_by,
                "S30: {member} has the share {share}: {:?}, others take: {others_take}",
                self.standing.get(&member)
            );
        }
        Ok(())
    }

    pub(crate) fn learn_manners(
        &mut self,
        service: &str,
        manners: Manners,
    ) -> Result<(), Violation> {
        let (_, book) = self.book_mut(service)?;
        ensure!(book.drains.manners != manners, "S17: {manners:?} is told twice");
        book.drains.manners = manners;
        self.saw(match manners {
            Manners::Unknown => "a program forgotten",
            Manners::Finishes => "a program that finishes",
            Manners::Cuts => "a program that cuts",
        });
        Ok(())
    }

    /// What a worker has that others get new connections for.
    fn away(&self, record: &Record) -> Vec<MemberId> {
        let own = |member: &&MemberId| {
            let whose = self.members.get(member).map(|account| account.whose);
            let own = whose.is_some_and(|whose| whose.generation().is_some());
            own && self.shares.contains_key(member)
        };
        let own: Vec<MemberId> = record.members.iter().filter(own).copied().collect();
        let away = |member: &MemberId| {
            self.shares.get(member) == Some(&0) && self.had_share.contains(member)
        };
        if own.iter().all(away) { own } else { Vec::new() }
    }

    /// Whether new connections may find a worker, by a socket that its generation has alone.
    pub(crate) fn may_be_found(&self, record: &Record) -> bool {
        let own = |member: &&MemberId| {
            let whose = self.members.get(member).map(|account| account.whose);
            whose.is_some_and(|whose| whose.generation().is_some())
        };
        let mut own = record.members.iter().filter(own);
        own.any(|member| self.shares.get(member).is_some_and(|&share| share > 0))
    }

    /// Whether a worker that is to stop may finish what it has first.
    pub(crate) fn may_empty(&self, turn: &Turn<'_>, record: &Record) -> bool {
        let book = &self.books[&record.service];
        let stops = book.told || turn.downs.contains(&record.service) || !book.life.serves();
        let no_time = book.policy.before_stop.longest().is_zero();
        !stops && !no_time && !self.away(record).is_empty()
    }

    pub(crate) fn check_emptying(
        &mut self,
        turn: &Turn<'_>,
        id: WorkerId,
        may_stop: bool,
        longest: Duration,
    ) -> Result<(), Violation> {
        let record = &self.workers[&id];
        let withdrawn = match record.stage {
            Standing::Ready => false,
            Standing::Withdrawing { .. } => true,
            Standing::Starting { .. }
            | Standing::Emptying { .. }
            | Standing::Leaving { .. }
            | Standing::Told { .. }
            | Standing::Asked { .. }
            | Standing::Orphans { .. }
            | Standing::Killed { .. }
            | Standing::Gone => return Err(format!("S14: worker {id} empties: {record:?}")),
        };
        let shown = self.is_last_shown(id, record);
        ensure!(!shown && (may_stop || withdrawn), "S2: worker {id} empties: {record:?}");
        ensure!(self.may_empty(turn, record), "S14: worker {id} may not empty: {record:?}");
        let most = self.books[&record.service].policy.before_stop.longest();
        ensure!(longest == most, "S14: worker {id} has {longest:?}, not {most:?}");
        self.set(id, Standing::Emptying { since: turn.now, due: turn.now + longest });
        if let Some(record) = self.workers.get_mut(&id) {
            record.empty = [0; 2];
        }
        self.saw("a worker emptied");
        Ok(())
    }

    pub(crate) fn check_still_busy(
        &mut self,
        turn: &Turn<'_>,
        id: WorkerId,
        _left: Remains,
    ) -> Result<(), Violation> {
        let record = &self.workers[&id];
        let due = matches!(record.stage, Standing::Emptying { due, .. } if due <= turn.now);
        ensure!(due && *turn.input == Input::Timeout, "S14: worker {id} has time: {record:?}");
        self.saw("a worker still busy");
        Ok(())
    }

    /// Whether it was just seen that a worker has nothing left.
    pub(crate) fn has_finished(&self, turn: &Turn<'_>, id: WorkerId) -> bool {
        let Some(record) = self.workers.get(&id) else { return false };
        let book = &self.books[&record.service];
        let seen = matches!(turn.input, Input::Event(Event::DrainSeen { .. }));
        let [members, all] = record.empty;
        let finishes =
            record.channel == Channel::Speaks || book.drains.manners == Manners::Finishes;
        let finishes = finishes && book.policy.before_stop == BeforeStop::Auto;
        seen && (all >= TWICE || finishes && members >= TWICE)
    }

    /// At the end of a turn: nobody waits who has nothing left, or whose service stops, and nobody was
    /// asked to stop a moment before others got what is new.
    pub(crate) fn check_drains(&self, turn: &Turn<'_>) -> Result<(), Violation> {
        for id in &turn.asked_early {
            let Some(record) = self.workers.get(id) else { continue };
            let book = &self.books[&record.service];
            // Where fewer are wanted, others of the same generation serve with its socket.
            let own = |member: &MemberId| {
                self.members.get(member).is_some_and(|account| {
                    account.whose.slot().is_some() && account.whose.generation().is_some()
                })
            };
            let beyond = record.slot.0 >= book.wanted && !record.members.iter().any(own);
            let alone = !self.may_be_found(record) && !beyond && self.keeps_serving(record.service);
            ensure!(!alone, "S14: worker {id} is asked before it is steered away from: {record:?}");
        }
        for (id, record) in self.alive() {
            let Standing::Emptying { .. } = record.stage else { continue };
            let book = &self.books[&record.service];
            let stops = book.told || !book.life.serves();
            ensure!(!stops, "S14: worker {id} empties, and its service stops: {record:?}");
            let [_, all] = record.empty;
            // With sockets of their own one is asked with each look.
            let most = if book.own.is_empty() { TWICE } else { TWICE + WORKERS_MAX };
            ensure!(all < most, "S14: worker {id} waits for nothing at {:?}: {record:?}", turn.now);
        }
        Ok(())
    }

    /// What new connections of a group find, whose members are these in the kernel.
    pub(crate) fn check_found(
        &self,
        service: ServiceId,
        group: GroupId,
        order: &[MemberId],
        found: &[MemberId],
    ) -> Result<(), Violation> {
        let book = &self.books[&service];
        let (serving, canary) = (book.root(book.serving), book.canary_root());
        let takes = |member: &MemberId, root: GenerationId| {
            self.alive().any(|(_, record)| {
                record.stage == Standing::Ready
                    && book.root(record.generation) == root
                    && record.members.contains(member)
            })
        };
        let serves = |member: &MemberId| {
            takes(member, serving)
                || canary.is_some_and(|canary| takes(member, canary))
                || self.alive().any(|(_, record)| {
                    record.stage == Standing::Ready
                        && book.serves_new(record)
                        && record.members.contains(member)
                })
        };
        let new = book.new_one().filter(|_| !book.batches.over.is_empty());
        let new = new.map(|new| book.root(new));
        // Who listens alone is found, also where nobody has it yet: those that are being bound where
        // nothing was, or beside one that was shut down and does not listen again.
        let is_own = |member: &MemberId| {
            let whose = self.members.get(member).map(|account| account.whose.generation());
            whose.is_some_and(|own| {
                own.is_none_or(|own| own == serving || canary == Some(own) || new == Some(own))
            })
        };
        if !order.iter().any(is_own) {
            return Ok(());
        }
        let ready = order.iter().any(serves);
        let is_wanted = |member: &MemberId| {
            let whose = self.members.get(member).map(|account| account.whose);
            let slot = whose.and_then(Whose::slot);
            is_own(member) && slot.is_none_or(|slot| slot.0 < book.wanted)
        };
        let wanted = order.iter().any(is_wanted);
        for member in found {
            ensure!(is_own(member), "S14: {member} of {group:?} is found, and does not serve");
            ensure!(!wanted || is_wanted(member), "S14: {member} of {group:?} is found, and goes");
            ensure!(!ready || serves(member), "S14: {member} of {group:?} is found, not the ready");
        }
        Ok(())
    }
}
