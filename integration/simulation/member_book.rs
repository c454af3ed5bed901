//! The account of the sockets that workers share: what each should be like, and when it may be
//! touched.

use std::collections::{BTreeMap, BTreeSet};

use shepherd::core::Action;
use shepherd::core::event::{Again, Event, Mode, Repair, SocketEvent};
use shepherd::core::ids::{GenerationId, MemberId, ServiceId, SlotId, SocketId, WorkerId};
use shepherd::core::notice::{Notice, SocketNotice};
use shepherd::core::policy::{Members, OnFailing, Policy};
use shepherd::core::reload::ReloadCause;
use shepherd::core::restart::FAILING_AFTER;

use crate::batch_book::BatchBook;
use crate::fake_sockets::{FakeSocket, FakeSockets};
use crate::invariants::{Violation, ensure};
use crate::ledger::{Ledger, Standing, Turn};
use crate::world::Input;

/// For which workers of a service a kernel socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Whose {
    All,
    Slot(SlotId),
    Generation(GenerationId),
    Worker(GenerationId, SlotId),
}

impl Whose {
    /// The generation that it is for alone.
    pub(crate) fn generation(self) -> Option<GenerationId> {
        match self {
            Whose::All | Whose::Slot(_) => None,
            Whose::Generation(generation) | Whose::Worker(generation, _) => Some(generation),
        }
    }

    /// The slot that it is for alone.
    pub(crate) fn slot(self) -> Option<SlotId> {
        match self {
            Whose::All | Whose::Generation(_) => None,
            Whose::Slot(slot) | Whose::Worker(_, slot) => Some(slot),
        }
    }

    /// For whom a socket of this kind has members, in this place.
    pub(crate) fn of(members: &Members, generation: GenerationId, slot: SlotId) -> Whose {
        match members {
            Members::Shared | Members::Dispatched(_) => Whose::All,
            Members::EachSlot { .. } => Whose::Slot(slot),
            Members::EachGeneration => Whose::Generation(generation),
            Members::EachWorker { .. } => Whose::Worker(generation, slot),
        }
    }
}

/// The account of one kernel socket.
#[derive(Clone)]
pub(crate) struct MemberBook {
    pub service: ServiceId,
    pub socket: SocketId,
    /// For whose workers it is.
    pub whose: Whose,
    /// How the serving generation's first ready worker left it, and the rolling one's.
    serving: Option<Mode>,
    rolling: Option<Mode>,
    /// It was looked at, and what was found has not been compared yet.
    looked_at: bool,
    /// Another is being bound in its place.
    in_hand: bool,
    /// It is broken until an operator acts, if that helps.
    lost: Option<Again>,
    /// It was shut down, and is known not to listen again.
    down: bool,
}

impl MemberBook {
    pub(crate) fn fresh(service: ServiceId, socket: SocketId, whose: Whose) -> MemberBook {
        MemberBook {
            service,
            socket,
            whose,
            serving: None,
            rolling: None,
            looked_at: false,
            in_hand: false,
            lost: None,
            down: false,
        }
    }

    pub(crate) fn of(policies: &[Policy]) -> BTreeMap<MemberId, MemberBook> {
        let mut books = BTreeMap::new();
        for policy in policies {
            for socket in &policy.sockets {
                let first = GenerationId(1);
                let whose = |slot| Whose::of(&socket.members, first, slot);
                let fresh = |slot| MemberBook::fresh(policy.service, socket.id, whose(slot));
                match &socket.members {
                    Members::Shared | Members::Dispatched(_) | Members::EachGeneration => {
                        books.insert(MemberId(socket.id.0), fresh(SlotId(0)));
                    }
                    Members::EachWorker { bound } | Members::EachSlot { bound, .. } => {
                        for (slot, bound) in (0..).map(SlotId).zip(bound) {
                            books.insert(bound.member, fresh(slot));
                        }
                    }
                }
            }
        }
        books
    }
}

impl Ledger {
    pub(crate) fn learn_socket(
        &mut self,
        turn: &mut Turn<'_>,
        member: MemberId,
        event: &SocketEvent,
    ) {
        let Some(account) = self.members.get_mut(&member) else {
            if let SocketEvent::Renewed { to } = event {
                turn.to_close.insert(*to);
            }
            return;
        };
        match event {
            SocketEvent::Inspected { by, state } => {
                account.looked_at = true;
                let book = &self.books[&account.service];
                let ready = by
                    .and_then(|by| self.workers.get(&by))
                    .filter(|record| record.stage == Standing::Ready)
                    // It chooses for what it has, not for what took the place of that.
                    .filter(|record| record.members.contains(&member));
                let Some(record) = ready else { return };
                let rolls = book.rolling.is_some_and(|(rolling, _)| rolling == record.generation);
                // What no other generation has is for its own to choose.
                let own = account.whose.generation().is_some() && rolls;
                if record.generation == book.serving || own {
                    account.serving.get_or_insert(state.mode);
                } else if rolls {
                    account.rolling.get_or_insert(state.mode);
                }
            }
            SocketEvent::ShutDown(repair) => account.down = *repair == Repair::Listen,
            SocketEvent::Listens => account.down = false,
            SocketEvent::PathGone => {}
            SocketEvent::Renewed { to } if !self.books[&account.service].told => {
                let fresh = MemberBook::fresh(account.service, account.socket, account.whose);
                self.members.remove(&member);
                self.members.insert(*to, fresh);
                turn.to_close.insert(member);
            }
            SocketEvent::Renewed { to } => {
                turn.to_close.insert(*to);
            }
            SocketEvent::Back => account.in_hand = false,
            SocketEvent::RepairFailed { again, .. } => {
                account.in_hand = false;
                account.lost = (*again != Again::Later).then_some(*again);
            }
            SocketEvent::Held(_) => {}
        }
    }

    /// What a worker of the service and generation is given in this slot, in the order of the sockets.
    pub(crate) fn members_of(
        &self,
        service: ServiceId,
        generation: GenerationId,
        slot: SlotId,
    ) -> Vec<MemberId> {
        let root = self.books[&service].root(generation);
        let members = self.members.iter().filter(|(_, account)| {
            let mine = account.whose.slot().is_none_or(|own| own == slot)
                && account.whose.generation().is_none_or(|own| own == root);
            account.service == service && mine
        });
        let mut members: Vec<(SocketId, MemberId)> =
            members.map(|(&member, account)| (account.socket, member)).collect();
        members.sort_unstable();
        members.into_iter().map(|(_, member)| member).collect()
    }

    /// Whether a worker that serves has a socket that none gets any more.
    fn has_stale(&self, service: ServiceId) -> bool {
        let serving = self.books[&service].serving;
        self.alive().any(|(_, record)| {
            let serves = matches!(record.stage, Standing::Starting { .. } | Standing::Ready);
            let ours = record.service == service && record.generation == serving;
            serves
                && ours
                && record.members != self.members_of(service, record.generation, record.slot)
        })
    }

    pub(crate) fn commit_modes(&mut self, service: ServiceId) {
        let shared = |account: &&mut MemberBook| account.whose.generation().is_none();
        let own = self.members.values_mut().filter(|account| account.service == service);
        for account in own.filter(shared) {
            account.serving = account.rolling.take();
        }
    }

    /// Whoever serves next chooses.
    pub(crate) fn forget_modes(&mut self, service: ServiceId) {
        for account in self.members.values_mut().filter(|account| account.service == service) {
            (account.serving, account.rolling) = (None, None);
        }
    }

    pub(crate) fn abort_modes(&mut self, service: ServiceId) {
        for account in self.members.values_mut().filter(|account| account.service == service) {
            account.rolling = None;
        }
    }

    pub(crate) fn check_socket_action(
        &mut self,
        turn: &mut Turn<'_>,
        action: &Action,
    ) -> Result<(), Violation> {
        let news = |member: MemberId| match turn.input {
            Input::Event(Event::Socket(told, event)) => (*told == member).then_some(event),
            Input::Event(_) | Input::Start | Input::Timeout => None,
        };
        let timeout = *turn.input == Input::Timeout;
        let of = match action {
            Action::Inspect { member, .. }
            | Action::Listen(member)
            | Action::StopListening(member)
            | Action::SetMode(member, _)
            | Action::Renew { from: member, .. }
            | Action::FindHolders { member, .. } => self.members.get(member),
            _ => None,
        };
        let told = of.is_some_and(|account| self.is_told(account.service));
        ensure!(!told, "S20: {action:?} after a stop");
        match action {
            Action::Inspect { member, by } => turn.inspected.push((*member, *by)),
            Action::Listen(member) => {
                let reason = match news(*member) {
                    Some(SocketEvent::Inspected { .. } | SocketEvent::ShutDown(Repair::Listen)) => {
                        true
                    }
                    Some(_) => false,
                    None => timeout,
                };
                let ours = self.refusing.remove(member);
                // With those that refuse clients no longer those listen that were shut down before.
                let down = self.members.get(member).is_some_and(|account| account.down);
                ensure!(reason || ours || down, "S20: {action:?} without a reason");
            }
            Action::StopListening(member) => {
                self.check_refusal(*member)?;
                ensure!(self.refusing.insert(*member), "S32: {action:?} twice");
                self.saw("clients refused");
            }
            Action::SetMode(member, mode) => {
                let account = self.members.get(member).ok_or("S20: no such socket")?;
                let commits = turn.commits.contains_key(&account.service);
                let seen = matches!(news(*member), Some(SocketEvent::Inspected { .. }));
                ensure!(commits || seen, "S20: {action:?} without a look");
                let wanted = account.serving;
                ensure!(wanted == Some(*mode), "S20: {action:?}, but: {wanted:?}");
            }
            Action::Renew { from, to } => {
                let reason = match news(*from) {
                    Some(SocketEvent::PathGone | SocketEvent::ShutDown(Repair::Bind)) => true,
                    Some(_) | None => timeout,
                };
                let account = self.members.get_mut(from).ok_or("S22: it is closed")?;
                let lost = account.lost.take();
                ensure!(lost != Some(Again::Never), "S22: {action:?}, which cannot go");
                let asked = lost.is_some() && turn.begins.contains(&account.service);
                ensure!(reason && lost.is_none() || asked, "S22: {action:?} without a reason");
                ensure!(!account.in_hand, "S22: {action:?} twice");
                account.in_hand = true;
                ensure!(*to > self.last_member, "S7: a socket's number is used twice: {to}");
                self.last_member = *to;
            }
            Action::FindHolders { member, workers, .. } => {
                ensure!(timeout && self.members.contains_key(member), "S22: {action:?}");
                for worker in workers {
                    self.named(*worker, action)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Clients are refused only while a service fails again and again, nobody is there for whom they
    /// could wait, and its author wants it.
    fn check_refusal(&self, member: MemberId) -> Result<(), Violation> {
        let account = self.members.get(&member).ok_or("S32: no such socket")?;
        let book = &self.books[&account.service];
        let policy = &book.policy;
        let socket = policy.sockets.iter().find(|socket| socket.id == account.socket);
        let may = policy.on_failing == OnFailing::Refuse && socket.is_some_and(|it| it.refusable);
        ensure!(may, "S32: {member} refuses clients, whom nobody wants refused");
        ensure!(book.in_a_row >= FAILING_AFTER, "S32: {member} refuses: {} failed", book.in_a_row);
        let serves = self
            .alive()
            .find(|(_, record)| record.service == account.service && record.stage.serves());
        ensure!(serves.is_none(), "S32: {member} refuses, and there is {serves:?}");
        let root = book.root(book.serving);
        let own = account.whose.generation().is_none_or(|own| own == root);
        ensure!(own, "S32: {member} refuses, and is another generation's");
        Ok(())
    }

    /// At the end of a turn: what refuses belongs to a service that fails and waits for its next attempt.
    pub(crate) fn check_refusals(&mut self) -> Result<(), Violation> {
        let closed: Vec<MemberId> =
            self.refusing.iter().filter(|it| self.closed.contains(it)).copied().collect();
        self.refusing.retain(|member| !closed.contains(member));
        for &member in &self.refusing {
            self.check_refusal(member)?;
        }
        Ok(())
    }

    /// One is closed while nothing stops: another has taken its place, or its slot is not wanted and
    /// empty.
    pub(crate) fn check_close(
        &mut self,
        turn: &mut Turn<'_>,
        member: MemberId,
    ) -> Result<(), Violation> {
        let replaced = turn.to_close.remove(&member)
            || self.going.remove(&member).is_some()
            || self.spares.remove(&member).is_some();
        let ending = self.members.get(&member).is_some_and(|it| self.is_told(it.service));
        let left = !replaced && !ending && self.close_of_left(member);
        ensure!(replaced || ending || left, "S1: {member} is closed");
        Ok(())
    }

    pub(crate) fn check_socket_notice(&mut self, what: &SocketNotice) {
        self.saw(match what {
            SocketNotice::Backlog { .. } => "a backlog set back",
            SocketNotice::Mode { .. } => "a mode set back",
            SocketNotice::ModePostponed { .. } => "a mode postponed",
            SocketNotice::ShutDown { by, .. } if by.workers.len() == 1 => "a culprit",
            SocketNotice::ShutDown { .. } => "a shutdown",
            SocketNotice::PathGone { .. } => "a path that is gone",
            SocketNotice::Renewed => "a socket bound anew",
            SocketNotice::Back => "a path that is back",
            SocketNotice::RepairFailed { again: Again::Later, .. } => "a repair that failed",
            SocketNotice::RepairFailed { .. } => "a socket lost",
        });
    }

    pub(crate) fn check_begin(
        &mut self,
        turn: &mut Turn<'_>,
        service: &str,
        generation: GenerationId,
        cause: ReloadCause,
    ) -> Result<(), Violation> {
        let (service, book) = self.book_mut(service)?;
        book.asked = cause.is_wanted();
        // Who waited for those of before is answered within this turn.
        let partly = book.batches.back.is_some();
        if let Some(back) = book.batches.back {
            ensure!(book.batches.stuck, "S33: {cause:?} while slots are put back");
            turn.gone.insert((service, back));
        }
        book.batches = BatchBook { partly, ..BatchBook::default() };
        self.check_cause(service, generation, cause)?;
        match cause {
            ReloadCause::Asked | ReloadCause::RollBack(_) | ReloadCause::Failed(_) => {
                turn.begins.insert(service);
                self.saw("a reload");
            }
            ReloadCause::SocketRenewed => {
                ensure!(self.has_stale(service), "S22: all workers are replaced without need");
                self.saw("stale workers replaced");
            }
        }
        Ok(())
    }

    /// Whoever became ready or ended in this turn had its sockets looked at, and nobody else.
    pub(crate) fn check_looks(&self, turn: &Turn<'_>, actions: &[Action]) -> Result<(), Violation> {
        ensure!(turn.to_close.is_empty(), "S1: {:?} is not closed", turn.to_close);
        let mut due: Vec<(MemberId, Option<WorkerId>)> = Vec::new();
        for action in actions {
            let (name, by) = match action {
                Action::Notice(Notice::Ready { worker, .. }) => (worker, Some(worker.worker)),
                Action::Notice(Notice::Ended { worker, .. }) => (worker, None),
                _ => continue,
            };
            let Some(record) = self.workers.get(&name.worker) else { continue };
            if self.is_told(record.service) {
                continue;
            }
            let members = self.members_of(record.service, record.generation, record.slot);
            due.extend(members.into_iter().map(|member| (member, by)));
        }
        // One that is asked to stop in this turn may have been looked at before.
        let told =
            |member: &MemberId| self.members.get(member).is_none_or(|it| self.is_told(it.service));
        let mut inspected = turn.inspected.clone();
        inspected.retain(|(member, _)| !told(member));
        due.sort_unstable();
        inspected.sort_unstable();
        ensure!(due == inspected, "S20: {inspected:?} are looked at instead of {due:?}");
        Ok(())
    }

    /// After everything was performed: what was looked at is as it should be.
    pub(crate) fn check_sockets(&mut self, sockets: &FakeSockets) -> Result<(), Violation> {
        for (&member, account) in &mut self.members {
            let Some(socket) = sockets.get(member) else { continue };
            if !std::mem::take(&mut account.looked_at) || !socket.is_whole() {
                continue;
            }
            ensure!(socket.has_its_backlog(), "S20: {member} was looked at and is {socket:?}");
            let right = account.serving.is_none_or(|mode| mode == socket.mode);
            ensure!(right, "S20: {member} is {socket:?} and not {:?}", account.serving);
        }
        Ok(())
    }

    /// Nothing is to come: every socket can be reached, through one that the workers have.
    pub(crate) fn check_sockets_at_rest(&self, sockets: &FakeSockets) -> Result<(), Violation> {
        let open: Vec<MemberId> = sockets.open().collect();
        let known: BTreeSet<MemberId> = self
            .members
            .keys()
            .chain(self.going.keys())
            .chain(self.spares.keys())
            .copied()
            .collect();
        self.check_spares_at_rest()?;
        ensure!(open.iter().eq(&known), "S1: {open:?} are open instead of {known:?}");
        for (&member, account) in &self.members {
            let whole = sockets.get(member).copied().is_some_and(FakeSocket::is_whole);
            let fate = account.lost;
            let refuses = self.refusing.contains(&member);
            ensure!(
                whole || fate.is_some() || refuses,
                "S22: {member} is broken at rest: {:?}",
                sockets.get(member)
            );
            ensure!(!account.in_hand, "S22: {member} is in hand at rest");
            ensure!(!self.has_stale(account.service), "S22: workers have old sockets at rest");
        }
        Ok(())
    }
}
