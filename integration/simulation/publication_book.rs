//! The account of what a proxy in front of a service was told, for S25.

use std::collections::BTreeSet;

use shepherd::core::Action;
use shepherd::core::ids::{ServiceId, SlotId, WorkerId};
use shepherd::core::notice::UpstreamsNotice;
use shepherd::core::publication::{PUBLISH_MAX, WITHDRAW_MAX};
use shepherd::core::restart::BACKOFF_MAX;
use shepherd::core::time::Time;

use crate::invariants::{Violation, ensure};
use crate::ledger::{Ledger, Record, Standing, Stop, Turn};

/// What the proxy was told.
#[derive(Default)]
pub(crate) struct PublicationBook {
    last: u64,
    told: Option<BTreeSet<SlotId>>,
    /// Until when the last round may take, while it is under way.
    under_way: Option<Time>,
    /// Where the proxy may send connections.
    shown: BTreeSet<SlotId>,
    /// When the last round failed, if it did.
    failed: Option<Time>,
}

impl PublicationBook {
    fn over(&mut self, failed: Option<Time>) {
        self.under_way = None;
        self.shown = self.told.clone().unwrap_or_default();
        self.failed = failed;
    }
}

impl Ledger {
    pub(crate) fn learn_published(
        &mut self,
        now: Time,
        service: ServiceId,
        number: u64,
        failed: bool,
    ) {
        let Some(book) = self.books.get_mut(&service) else { return };
        let awaited = book.publication.under_way.is_some() && book.publication.last == number;
        if awaited {
            book.publication.over(failed.then_some(now));
        }
    }

    fn ready_slots(&self, service: ServiceId) -> BTreeSet<SlotId> {
        let ready = self
            .alive()
            .filter(|(_, record)| record.service == service && record.stage == Standing::Ready);
        ready.map(|(_, record)| record.slot).collect()
    }

    pub(crate) fn check_publish(
        &mut self,
        now: Time,
        service: ServiceId,
        number: u64,
        slots: &[SlotId],
    ) -> Result<(), Violation> {
        let ready = self.ready_slots(service);
        ensure!(ready.iter().eq(slots), "S25: {slots:?} are told, and {ready:?} are ready");
        let book = self.books.get_mut(&service).ok_or("S7: no such service")?;
        let publication = &mut book.publication;
        ensure!(book.policy.proxy.is_some(), "S25: nobody is to be told");
        ensure!(publication.under_way.is_none(), "S25: two rounds at a time");
        ensure!(number == publication.last + 1, "S25: round {number} out of turn");
        let news = publication.told.as_ref() != Some(&ready);
        ensure!(news || publication.failed.is_some(), "S25: told twice: {slots:?}");
        ensure!(news || publication.failed < Some(now), "S25: tried again at once");
        publication.last = number;
        publication.shown.extend(ready.iter());
        publication.told = Some(ready);
        publication.under_way = Some(now + PUBLISH_MAX);
        self.saw(if news { "a proxy told" } else { "a proxy told again" });
        Ok(())
    }

    pub(crate) fn check_end_publish(
        &mut self,
        now: Time,
        service: ServiceId,
    ) -> Result<(), Violation> {
        let book = self.books.get_mut(&service).ok_or("S7: no such service")?;
        let until = book.publication.under_way;
        ensure!(until.is_some_and(|until| until <= now), "S25: a round ends before {until:?}");
        book.publication.over(Some(now));
        self.saw("a proxy that takes too long");
        Ok(())
    }

    pub(crate) fn saw_upstreams(&mut self, what: &UpstreamsNotice) {
        self.saw(match what {
            UpstreamsNotice::Told { .. } => "a proxy told of",
            UpstreamsNotice::Failed { .. } => "a proxy not told",
            UpstreamsNotice::Late { .. } => "a proxy told of as late",
        });
    }

    /// Whether the proxy may send connections to where only this worker takes them.
    pub(crate) fn is_last_shown(&self, id: WorkerId, record: &Record) -> bool {
        let others = self.alive().any(|(other, it)| {
            let same = (it.service, it.slot) == (record.service, record.slot);
            other != id && same && it.stage == Standing::Ready
        });
        !others && self.books[&record.service].publication.shown.contains(&record.slot)
    }

    /// A worker is to stop, and its slot is taken out first.
    pub(crate) fn check_withdrawing(
        &mut self,
        turn: &Turn<'_>,
        id: WorkerId,
        may_stop: bool,
    ) -> Result<(), Violation> {
        let record = &self.workers[&id];
        ensure!(record.stage == Standing::Ready, "S25: worker {id} is withdrawn: {record:?}");
        ensure!(may_stop, "S2: worker {id} is withdrawn without a reason: {record:?}");
        ensure!(self.is_last_shown(id, record), "S25: worker {id} is withdrawn without need");
        self.set(id, Standing::Withdrawing { since: turn.now, due: turn.now + WITHDRAW_MAX });
        self.saw("a worker withdrawn");
        Ok(())
    }

    /// At the end of a turn: what has changed is being told, and nobody waits for nothing.
    pub(crate) fn check_publications(&self, now: Time) -> Result<(), Violation> {
        for (id, record) in self.alive() {
            let waits = matches!(record.stage, Standing::Withdrawing { .. });
            let needs = !waits || self.is_last_shown(id, record);
            ensure!(needs, "S25: worker {id} waits for nothing: {record:?}");
        }
        if self.finished {
            return Ok(());
        }
        for (&service, book) in &self.books {
            let ready = self.ready_slots(service);
            let told = book.publication.told.as_ref();
            let current = told.map_or(ready.is_empty(), |told| *told == ready);
            let waits = book.publication.under_way.is_some();
            let silent = book.policy.proxy.is_none() || current || waits;
            ensure!(silent, "S25: {ready:?} are ready in {service}, {told:?} was told");
            let due = book.publication.under_way.map(|until| until + PUBLISH_MAX);
            ensure!(due.is_none_or(|due| now < due), "S25: a round of {service} goes on");
        }
        Ok(())
    }

    /// Nothing is to come: the proxy was told what is so.
    pub(crate) fn check_publications_at_rest(&self) -> Result<(), Violation> {
        for (&service, book) in self.books.iter().filter(|(_, book)| book.policy.proxy.is_some()) {
            let told = book.publication.told.clone().unwrap_or_default();
            let well = book.publication.failed.is_none() && book.publication.under_way.is_none();
            let ready = self.ready_slots(service);
            ensure!(well && told == ready, "S25: at rest {told:?} are told, {ready:?} are ready");
        }
        Ok(())
    }

    /// Everything is over: whoever was not killed had told the proxy.
    pub(crate) fn check_publications_at_end(&self) -> Result<(), Violation> {
        let waits = self.books.values().any(|book| book.publication.under_way.is_some());
        ensure!(!waits || self.stop == Stop::Now, "S25: the end, and a proxy is being told");
        Ok(())
    }

    /// A round that failed is tried again within the longest backoff.
    pub(crate) fn check_publications_prompt(&self, now: Time) -> Result<(), Violation> {
        for book in self.books.values().filter(|_| self.stop == Stop::No) {
            let late = book.publication.failed.is_some_and(|at| at + BACKOFF_MAX <= now);
            ensure!(!late || book.publication.under_way.is_some(), "S25: not tried again");
        }
        Ok(())
    }

    pub(crate) fn check_publication_action(
        &mut self,
        turn: &Turn<'_>,
        action: &Action,
    ) -> Result<(), Violation> {
        match action {
            Action::Publish { service, number, slots, .. } => {
                self.check_publish(turn.now, *service, *number, slots)
            }
            Action::EndPublish { service } => self.check_end_publish(turn.now, *service),
            _ => Ok(()),
        }
    }
}
