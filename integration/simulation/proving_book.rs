//! The account of generations that prove themselves, and of those that are gone back to, for S31.

use std::collections::{BTreeMap, BTreeSet};

use shepherd::core::action::Share;
use shepherd::core::ids::{GenerationId, MemberId, RequestId, ServiceId, SocketId};
use shepherd::core::notice::ProvingNotice;
use shepherd::core::policy::Canary;
use shepherd::core::reload::ReloadCause;
use shepherd::core::request::Request;
use shepherd::core::steering::GroupId;
use shepherd::core::time::Time;

use crate::invariants::{Violation, ensure};
use crate::ledger::{Book, Ledger, Record, Standing, Start, Turn};
use crate::member_book::Whose;

/// What a service tries, and what it can go back to.
#[derive(Default)]
pub(crate) struct ProvingBook {
    /// Why the reload under way is done.
    cause: Option<ReloadCause>,
    /// Until when its workers have a part of new connections, once they have.
    canary: Option<Time>,
    /// Until when the generation that serves has to prove itself.
    probation: Option<Time>,
    /// What served last and was not found wanting.
    previous: Option<GenerationId>,
    /// Generations that were aborted, or did not stand their probation.
    failed: BTreeSet<GenerationId>,
    due: Due,
    /// Whether something else began on probation.
    was_left: bool,
    /// What each socket whose members are a generation's does with new connections.
    attached: BTreeMap<SocketId, Vec<Share>>,
}

/// What has to follow within the turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Due {
    #[default]
    Nothing,
    /// A generation is told to be on probation.
    Probation,
    /// It is told that one has failed on it.
    Failure,
    /// The one before begins to come back.
    Back,
}

impl ProvingBook {
    /// Whether the workers of the reload under way have a part of new connections.
    pub(crate) fn is_in_canary(&self) -> bool {
        self.canary.is_some()
    }

    /// Whether the generation that serves has to prove itself.
    pub(crate) fn is_on_probation(&self) -> bool {
        self.probation.is_some()
    }

    /// What can be gone back to.
    pub(crate) fn previous(&self) -> Option<GenerationId> {
        self.previous
    }

    /// Whether a generation was found wanting.
    pub(crate) fn has_failed(&self, generation: GenerationId) -> bool {
        self.failed.contains(&generation)
    }

    /// Something that is no trial begins.
    pub(crate) fn leave_probation(&mut self) {
        self.was_left |= self.probation.take().is_some();
    }

    /// What a definition that is read for the reload under way is the same as.
    pub(crate) fn like(&self, serving: GenerationId) -> Option<GenerationId> {
        match self.cause? {
            ReloadCause::Asked => None,
            ReloadCause::SocketRenewed => Some(serving),
            ReloadCause::RollBack(previous) | ReloadCause::Failed(previous) => Some(previous),
        }
    }

    /// New connections go by these shares from here on.
    pub(crate) fn steered(&mut self, group: GroupId, shares: &[Share]) {
        if group.slot.is_none() {
            self.attached.insert(group.socket, shares.to_vec());
        }
    }

    /// A member is no more.
    pub(crate) fn closed(&mut self, member: MemberId) {
        for shares in self.attached.values_mut() {
            shares.retain(|share| share.member != member);
        }
    }
}

impl Book {
    /// What part the generation of the reload under way is to have before it is committed.
    fn canary(&self) -> Option<Canary> {
        self.policy.canary.filter(|_| self.proving.cause == Some(ReloadCause::Asked))
    }

    /// The generation that has a part of new connections beside the one that serves, as that whose
    /// members it has.
    pub(crate) fn canary_root(&self) -> Option<GenerationId> {
        let rolling = self.rolling.map(|(rolling, _)| self.root(rolling));
        let other = rolling.filter(|&root| root != self.root(self.serving));
        other.filter(|_| self.proving.is_in_canary())
    }
}

impl Ledger {
    /// A reload begins.
    pub(crate) fn check_cause(
        &mut self,
        service: ServiceId,
        generation: GenerationId,
        cause: ReloadCause,
    ) -> Result<(), Violation> {
        let Some(book) = self.books.get_mut(&service) else { return Ok(()) };
        let serving = book.serving;
        let proving = &mut book.proving;
        ensure!(proving.canary.is_none(), "S31: {cause:?} begins beside a canary");
        proving.cause = Some(cause);
        let mut sights = Vec::new();
        match cause {
            ReloadCause::Asked => {
                ensure!(proving.probation.is_none(), "S31: a reload begins on probation");
            }
            ReloadCause::SocketRenewed => {
                ensure!(proving.probation.is_none(), "S31: all are replaced on probation");
                // The same definition is no better with another socket.
                if proving.failed.contains(&serving) {
                    proving.failed.insert(generation);
                }
            }
            ReloadCause::RollBack(previous) => {
                let known = proving.previous;
                ensure!(known == Some(previous), "S31: back to {previous}, not to {known:?}");
                sights.push("a rollback");
                if proving.probation.take().is_some() {
                    sights.push("a probation rolled back");
                }
            }
            ReloadCause::Failed(previous) => {
                let known = proving.previous;
                ensure!(known == Some(previous), "S31: back to {previous}, not to {known:?}");
                ensure!(proving.due == Due::Back, "S31: back to {previous} without a reason");
                proving.due = Due::Nothing;
            }
        }
        self.carry(service, generation, cause);
        self.seen.extend(sights);
        Ok(())
    }

    /// Notes which requests a reload is the answer to.
    fn carry(&mut self, service: ServiceId, generation: GenerationId, cause: ReloadCause) {
        for open in self.requests.values_mut() {
            let meant = match (&open.request, cause) {
                (Request::Reload { .. }, ReloadCause::Asked) => open.is_read,
                (Request::RollBack(_), ReloadCause::RollBack(_)) => true,
                _ => false,
            };
            let waits = open.generations.contains_key(&service)
                && !open.during_stop
                && !open.over.contains(&service)
                && !open.aside.contains(&service);
            if meant && waits {
                open.carried.entry(service).or_insert(generation);
            }
        }
    }

    /// What was read is there for a request: its reload can begin.
    pub(crate) fn learn_read(&mut self, request: RequestId) {
        if let Some(open) = self.requests.get_mut(&request) {
            open.is_read = true;
        }
    }

    /// The generation of the reload under way serves from here on; the book says otherwise until
    /// now.
    pub(crate) fn check_proved(
        &mut self,
        now: Time,
        service: ServiceId,
        generation: GenerationId,
    ) -> Result<(), Violation> {
        let Some(book) = self.books.get_mut(&service) else { return Ok(()) };
        let mut sights = Vec::new();
        if book.canary().is_some() {
            let until = book.proving.canary;
            let over = until.is_some_and(|until| until <= now);
            ensure!(over, "S31: commit of {generation}, a canary until {until:?}");
            sights.push("a canary that proved itself");
        }
        let (up, old) = (book.start == Start::Up, book.serving);
        let wants_probation = !book.policy.probation.is_zero();
        let proving = &mut book.proving;
        let good = Some(old).filter(|old| up && !proving.failed.contains(old));
        let cause = proving.cause.take();
        proving.canary = None;
        match cause {
            Some(ReloadCause::Asked) => {
                if proving.failed.contains(&old) && proving.previous.is_some() {
                    sights.push("a failed generation replaced");
                }
                proving.previous = good.or(proving.previous);
                if wants_probation && proving.previous.is_some() {
                    proving.due = Due::Probation;
                }
            }
            Some(ReloadCause::RollBack(_)) => {
                proving.previous = good;
                sights.push("a rollback that came about");
            }
            Some(ReloadCause::Failed(_)) => {
                proving.previous = None;
                sights.push("a failed generation taken back");
            }
            Some(ReloadCause::SocketRenewed) | None => {}
        }
        let previous = proving.previous;
        let wrong = previous.filter(|previous| proving.failed.contains(previous));
        ensure!(wrong.is_none(), "S31: {wrong:?} has failed, and can be gone back to");
        self.seen.extend(sights);
        Ok(())
    }

    /// The reload under way is off.
    pub(crate) fn learn_trial_aborted(&mut self, service: ServiceId, generation: GenerationId) {
        let Some(book) = self.books.get_mut(&service) else { return };
        let proving = &mut book.proving;
        proving.failed.insert(generation);
        let was_canary = proving.canary.take().is_some();
        let sight = match proving.cause.take() {
            Some(ReloadCause::Asked) => was_canary.then_some("a canary aborted"),
            Some(ReloadCause::RollBack(_)) => Some("a rollback aborted"),
            Some(ReloadCause::Failed(_)) => Some("what served before does not again"),
            Some(ReloadCause::SocketRenewed) | None => None,
        };
        self.seen.extend(sight);
    }

    /// A worker of the generation that serves has ended by itself.
    pub(crate) fn learn_end_on_probation(&mut self, service: ServiceId) {
        if let Some(book) = self.books.get_mut(&service)
            && book.proving.probation.is_some()
        {
            book.proving.due = Due::Failure;
        }
    }

    pub(crate) fn check_proving_notice(
        &mut self,
        now: Time,
        service: &str,
        what: &ProvingNotice,
    ) -> Result<(), Violation> {
        let (id, _) = self.book_mut(service)?;
        let complete = self.is_complete(id);
        let (_, book) = self.book_mut(service)?;
        let (serving, rolling, wants) = (book.serving, book.rolling, book.canary());
        let time = book.policy.probation;
        let proving = &mut book.proving;
        let due = std::mem::replace(&mut proving.due, Due::Nothing);
        match what {
            ProvingNotice::Canary { generation, canary } => {
                ensure!(rolling == Some((*generation, true)), "S31: {what:?} of no reload");
                ensure!(wants == Some(*canary), "S31: {what:?}, not {wants:?}");
                ensure!(proving.canary.is_none(), "S31: {what:?} twice");
                ensure!(complete, "S31: {what:?}, and not all are ready");
                proving.canary = Some(now + canary.time);
                self.saw("a canary");
            }
            ProvingNotice::Probation { generation, time: told } => {
                ensure!(due == Due::Probation, "S31: {what:?}, of {due:?}");
                ensure!((*generation, *told) == (serving, time), "S31: {what:?}, not {time:?}");
                proving.probation = Some(now + time);
                self.saw("a probation");
            }
            ProvingNotice::Proved { generation } => {
                let over = proving.probation.take().is_some_and(|until| until <= now);
                ensure!(over && *generation == serving, "S31: {what:?} too early");
                self.saw("a probation that was stood");
            }
            ProvingNotice::Failed { generation } => {
                ensure!(due == Due::Failure, "S31: {what:?} without a reason");
                ensure!(*generation == serving, "S31: {what:?} of another");
                proving.probation = None;
                proving.failed.insert(serving);
                proving.due = Due::Back;
                self.saw("a probation that was not stood");
            }
            ProvingNotice::ByPath { .. } => {}
        }
        Ok(())
    }

    /// Whether all workers of the reload under way are ready.
    fn is_complete(&self, service: ServiceId) -> bool {
        let book = &self.books[&service];
        let Some((rolling, true)) = book.rolling else { return false };
        let ready = self.alive().filter(|(_, record)| {
            record.service == service
                && record.generation == rolling
                && record.stage == Standing::Ready
                && record.slot.0 < book.wanted
        });
        ready.count() == book.open_slots(rolling)
    }

    /// At the end of a turn: what follows from it has been told, no trial lasts beyond its time, and
    /// each generation has its part of new connections.
    pub(crate) fn check_proving(&mut self, turn: &Turn<'_>) -> Result<(), Violation> {
        for book in self.books.values() {
            let trial = book.proving.is_in_canary();
            let starts = |(_, record): (_, &Record)| {
                let rolls = book.rolling.is_some_and(|(rolling, _)| rolling == record.generation);
                rolls && matches!(record.stage, Standing::Starting { .. })
            };
            if trial && self.alive().any(starts) {
                self.seen.insert("a canary with more workers");
                break;
            }
        }
        if self.books.values().any(|book| book.proving.was_left) {
            self.saw("a probation left");
        }
        for (&service, book) in &self.books {
            let proving = &book.proving;
            ensure!(proving.due == Due::Nothing, "S31: nothing comes of {:?}", proving.due);
            if !self.keeps_serving(service) || book.start == Start::Waits {
                continue;
            }
            // One that it needs may have to come up again first.
            let held = book.policy.needs().any(|need| self.is_missing(need));
            if self.is_complete(service) && !held {
                let goes_on = match (book.canary(), proving.canary) {
                    (None, _) => true,
                    (Some(_), None) => true,
                    (Some(_), Some(until)) => until <= turn.now,
                };
                ensure!(!goes_on, "S31: all of {:?} are ready, and it waits", book.rolling);
            }
            let over = proving.probation.filter(|&until| until <= turn.now);
            ensure!(over.is_none(), "S31: on probation until {over:?}");
            for (socket, shares) in &proving.attached {
                self.check_parts(service, *socket, shares)?;
            }
        }
        Ok(())
    }

    /// A canary gets its part of what comes as long as others can take the rest, and nobody gets any
    /// who neither serves nor is one.
    fn check_parts(
        &self,
        service: ServiceId,
        socket: SocketId,
        shares: &[Share],
    ) -> Result<(), Violation> {
        let book = &self.books[&service];
        let (serving, canary) = (book.root(book.serving), book.canary_root());
        let own = |share: &Share| {
            let whose = self.members.get(&share.member).map(|account| account.whose);
            whose.and_then(Whose::generation)
        };
        // In slots that are changed over the next generation serves as this one does.
        let over = book.new_one().filter(|_| !book.batches.over.is_empty());
        let over = over.map(|new| book.root(new));
        // Who listens alone gets all, whoever it is for.
        let is_given =
            |own: GenerationId| own == serving || over == Some(own) || canary == Some(own);
        if !shares.iter().filter_map(own).any(is_given) {
            return Ok(());
        }
        let mut parts: BTreeMap<GenerationId, Vec<u32>> = BTreeMap::new();
        let mut able: BTreeSet<GenerationId> = BTreeSet::new();
        for share in shares {
            let Some(own) = own(share) else { continue };
            let is_ready = self.alive().any(|(_, record)| {
                record.stage == Standing::Ready
                    && record.service == service
                    && record.members.contains(&share.member)
            });
            if is_ready {
                able.insert(own);
            }
            if share.weight > 0 {
                ensure!(is_given(own), "S31: {} of {socket} has a part: {shares:?}", share.member);
                parts.entry(own).or_default().push(share.weight);
            }
        }
        let uneven = parts.values().find(|weights| weights.iter().any(|it| *it != weights[0]));
        ensure!(uneven.is_none(), "S31: workers of one generation get {uneven:?} of {socket}");
        let Some(canary) = canary else { return Ok(()) };
        let all = |own: GenerationId| -> u64 {
            parts.get(&own).into_iter().flatten().copied().map(u64::from).sum()
        };
        let percent = u64::from(book.policy.canary.map_or(0, |canary| canary.percent));
        let (old, new) = (all(serving), all(canary));
        if able.contains(&serving) {
            let most = new * (100 - percent) <= old * percent;
            ensure!(most && old > 0, "S31: {new} of {} is more than {percent}%", old + new);
            let least = !able.contains(&canary) || new * (100 - percent) == old * percent;
            ensure!(least, "S31: {new} of {} is less than {percent}%", old + new);
        }
        Ok(())
    }
}
