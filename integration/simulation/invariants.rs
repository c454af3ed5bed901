//! What must hold after every turn, whatever happens. The ledger hears what the core is told and
//! what it wants done, keeps its own account of every worker, and compares.
//!
//! - S1 A configured socket is never closed before a stop is asked for, unless another has taken its
//!   place, and then exactly once.
//! - S2 A ready worker of the serving generation is asked to stop only after a commit (the whole new
//!   fleet is ready), for a smaller number of workers, or for a stop.
//! - S3 Time moves only to deadlines and happenings; when there is none, the world is at rest.
//! - S4 Each slot has one worker of a generation that starts or is ready, no slot beyond the wanted
//!   number has one; of a new generation the first starts alone, then no more than allowed at once;
//!   of the serving one no more than allowed are on their way to their program.
//! - S5 Every worker goes; when all is finished none is alive.
//! - S6 Each request gets exactly one response, none after the end, the right one. One that is refused
//!   because something else is in progress changes nothing.
//! - S7 No action names a worker or a generation that is gone or never was; definitions are
//!   forgotten when nobody uses them, and not before.
//! - S8 Each rung of the ladder comes when the one before has had its time and what the worker asked
//!   for on top; KILL comes last, unless an operator asked for it; each deadline is kept.
//! - S9 An aborted reload takes its own workers away and no others.
//! - S10 When faults stop, the world comes to rest; a reload that may begin or go on does.
//! - S11 Belongs to a handover, which the core does not have yet.
//! - S12 No deadline stays in the past.
//! - S13 Queues stay bounded.
//! - S14 Of the members of a group those get new connections that have a ready worker of the
//!   generation that serves, as far as there are any; where there are none, those of that generation. A
//!   generation whose workers were never ready gets nothing. This holds for what the kernel does with
//!   the program that is attached, by the order in which its members listen, whenever everything is
//!   performed and heard, but for the time from a worker's shutdown(2) until the core has heard of it.
//!   A member that begins to listen, for the first time or again, gets nothing before it is steered to.
//!   A worker that is to stop, and from which all that is new was steered away, is asked to when its
//!   members were seen empty twice, or at its deadline; a stop does not wait for it. No connection is
//!   lost by it: what has found a member is taken by a worker and ends there, whatever reloads and
//!   scales come in between, unless a worker fails, it is stopped, or the time for it is over. See
//!   `World::is_excused` for exactly what is excused. A worker that shuts its sockets down when it is
//!   asked to stop moves nobody who gets something. A socket that nobody wants waits to be closed only
//!   where somebody would move by it who must not.
//! - S15 The same input leads to the same actions.
//! - S16 Readiness follows from evidence that counts, and at once.
//! - S17 What is shown and announced agrees with what happened.
//! - S18 A slot that lost its worker gets the next one when it should: at once, at most ten in a
//!   second, or after a backoff within its bounds.
//! - S19 Every notice is one line.
//! - S20 After each look at a socket it has its configured backlog, and blocks or not as the first
//!   ready worker of the serving generation left it. Sockets are looked at when a worker becomes
//!   ready or ends, and touched at no other time.
//! - S21 A worker that starts is checked again and again, where it was asked for: one check at a
//!   time, each with its time, with pauses no longer than the interval. A check that nobody waits for
//!   ends within the turn, and what the last one saw is told of a worker that is late.
//! - S22 A socket that was shut down or lost its path is repaired, unless an operator has to act
//!   first; where that took a new one, all workers that serve come to have it.
//! - S23 A stop with a lame duck is announced at once with all its time. Until that has passed, or a
//!   second interrupt or a stop at once comes, everything above holds as if nobody had asked, except
//!   that nothing that operators want begins or goes on.
//! - S24 A slot that has sockets of its own gets them before its first worker and keeps them until its
//!   last one is gone, and no longer. They are bound when the slot is wanted, and tried again after a
//!   backoff; a slot that lacks them keeps nothing else from going on.
//! - S25 Where a proxy in front is told which slots have a ready worker, it is told of each change at
//!   once, one round at a time, each with its time, and again when it failed. The last ready worker of
//!   a slot that the proxy may send to is asked to stop only when the round without the slot is over.
//! - S26 A service spawns nothing before all that it needs have been ready together once, says for
//!   whom it waits until then, and starts at once then, unless a stop was asked for.
//! - S27 When everything stops, a service is asked to as soon as nothing is left of those that need
//!   it, and not before: until then all of the above holds for it as with a lame duck.
//! - S28 A service that an operator stopped has no socket from then on and no worker once the stop is
//!   answered, and stays so until somebody starts it. A start reads the definition and binds all
//!   sockets; a restart does the first and keeps the sockets, and always leads to a service that
//!   serves, or to one that was never stopped.
//! - S29 A service that is bound to others stops, starts and restarts with them, and serves only while
//!   they are to: unless an operator had stopped it by itself, it starts again with the last of them,
//!   and it is not started without one. What stops together is told to in the order of S27, whoever
//!   needs others first, and what is restarted together is read first, all of it. Each of them is in
//!   the answer.
//! - S30 Of the workers that serve with a socket of their own each has its share of new connections,
//!   but for those that take nothing while others do: in whose queue something waits that has not
//!   become less in so many looks in a row. It has its share again when it was seen to have taken one.
//! - S31 Where a generation is to prove itself, its workers get exactly their part of new connections
//!   once all of them are ready, and no more before its time is over, as long as one that serves can
//!   take the rest; until then nobody else is asked to stop. If one of them ends by itself, nothing new
//!   finds the others from that turn on. On probation the end of a worker brings back what served
//!   before, at once, and nothing else begins. What can be gone back to has served with all its workers
//!   ready and has not failed, and its definition is kept. The answer to a reload or a rollback names
//!   the generation that serves when it is given, and says whether what served before does.
//! - S32 Clients are refused only where that is wanted and can be, while a service fails again and again
//!   and no worker of it starts or serves. A worker is given what listens; and that we had it stop
//!   listening is taken for nobody's deed, and mended by nothing but the next attempt.
//! - S33 Where not all workers of a reload may run beside the old ones, there never are more than are
//!   wanted and those, draining ones counted, when one of it is started. The old worker of a slot is
//!   asked to stop once the new one is ready there, or, without a surge, one slot at a time before that
//!   comes; after an abort it is the other way round, until the old generation has all slots again, and
//!   only then is that said. How many run beside the old ones is looked for where memory says it.

use std::collections::{BTreeMap, BTreeSet};

use shepherd::core::action::Announcement;
use shepherd::core::event::Event;
use shepherd::core::ids::{GenerationId, RequestId, ServiceId, SlotId, WorkerId};
use shepherd::core::policy::{CheckPace, ReadyWhen};
use shepherd::core::readiness::CHECK_MARGIN;
use shepherd::core::request::Response;
use shepherd::core::restart::FAILING_AFTER;
use shepherd::core::status::{ServiceState, Stage, Status, WorkerStatus};
use shepherd::core::time::Time;
use shepherd::core::{Action, Supervisor};

use crate::batch_book::Beside;
use crate::ledger::{Begins, Checks, IsDue, Ledger, Standing, Start, Stop, Turn};
use crate::life_book::Life;
use crate::world::Input;

/// What the worlds must show at least once, or they prove less than they seem to.
pub(crate) const SIGHTS: &[&str] = &[
    "a backlog set back",
    "a generation's socket closed",
    "a look at a drain",
    "a look at queues",
    "clients refused",
    "a worker that takes nothing",
    "memory looked at",
    "slots changed over in batches",
    "a batch changed over",
    "slots put back",
    "all slots put back",
    "a slot that could not be put back",
    "a new worker lost that was to go",
    "a socket that waits to be closed",
    "a program that cuts",
    "a program that finishes",
    "a slot of a generation bound",
    "a worker emptied",
    "idle connections closed",
    "a worker emptied in time",
    "a worker still busy",
    "members bound for a reload",
    "members inherited",
    "new connections steered",
    "a backoff",
    "a check",
    "a check that nobody waits for",
    "a check that took too long",
    "a commit",
    "what a worker used",
    "a culprit",
    "a definition taken over by one that waits",
    "a drained worker",
    "a failing service",
    "a first fleet",
    "a kill",
    "a lame duck",
    "a lame duck cut short",
    "a restart by a lame duck",
    "a mode postponed",
    "a mode set back",
    "a long backoff",
    "a path that is back",
    "a path that is gone",
    "a canary",
    "a canary aborted",
    "a canary rolled back",
    "a canary that proved itself",
    "a canary with more workers",
    "a failed generation replaced",
    "a failed generation taken back",
    "a probation",
    "a probation left",
    "a probation rolled back",
    "a probation that was not stood",
    "a probation that was stood",
    "a rollback",
    "a rollback aborted",
    "a rollback answered",
    "a rollback that came about",
    "nothing to go back to",
    "what served before does not again",
    "a queued reload",
    "a recovered service",
    "a reload",
    "a definition with a mistake",
    "a restart answered",
    "a restart that was off",
    "a restart that was off for several",
    "a service restarted with another",
    "a service started with another",
    "a service stopped with another",
    "a service that followed one that could not start",
    "a service that lets others stop before it",
    "a start without another refused",
    "a service restarted",
    "a service started",
    "a service stopped",
    "a service that did not start",
    "a socket that somebody has",
    "a service that is stopped",
    "a service that stays stopped",
    "a start answered",
    "a start that was off",
    "sockets bound for nobody",
    "a reload answered",
    "a reload that came about in part",
    "a reload that lost a worker",
    "a reload too many",
    "a repair that failed",
    "a request done",
    "a request in the way of another",
    "a request refused",
    "a service that there is not",
    "a signal sent on request",
    "a worker that there is not",
    "a worker without a process",
    "a restart at once",
    "a scale refused",
    "a scaled service",
    "a shutdown",
    "a socket bound anew",
    "a socket lost",
    "a proxy not told",
    "a proxy that takes too long",
    "a proxy told",
    "a proxy told again",
    "a second signal",
    "a slot closed",
    "a slot not bound",
    "a slot opened",
    "a slot that was tried again",
    "a start",
    "a stop",
    "spares bound",
    "a stop at once",
    "a stop signal",
    "a stop that waited its turn",
    "a start that waited for another",
    "a throttled restart",
    "a worker given up",
    "a wrapper",
    "a worker withdrawn",
    "an abort",
    "an abort answered",
    "another main process",
    "assumed ready",
    "processes left behind",
    "late",
    "late by a check",
    "ready by a command",
    "ready by a connection",
    "ready by an answer",
    "ready by sight",
    "ready by its channel",
    "ready by a message",
    "told over a channel",
    "a signal after that",
    "a channel that broke",
    "ready by time",
    "ready by word",
    "stale workers replaced",
];

/// How many workers of a service are on their way to their program.
#[derive(Debug)]
struct Launching {
    all: usize,
    serving: usize,
}

/// Which invariant does not hold, and why.
pub(crate) type Violation = String;

/// Ends the function with a violation unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err(format!($($why)+));
        }
    };
}
pub(crate) use ensure;

/// Whether a request comes and is refused.
fn is_refused(input: &Input, actions: &[Action]) -> bool {
    let Input::Event(Event::Requested(id, _)) = input else { return false };
    actions
        .iter()
        .any(|action| matches!(action, Action::Respond(to, Response::Refused(_)) if to == id))
}

impl Ledger {
    /// Takes down one turn of the core and checks it.
    pub(crate) fn turn(
        &mut self,
        (now, is_due): (Time, IsDue),
        input: &Input,
        actions: &[Action],
        core: &Supervisor,
    ) -> Result<(), Violation> {
        ensure!(!self.finished || actions.is_empty(), "S6: actions after the end: {actions:?}");
        let mut turn = Turn {
            now,
            input,
            stops: BTreeSet::new(),
            kills: false,
            lame_duck: Begins::No,
            ended: BTreeMap::new(),
            orphaned: None,
            tree_told: false,
            commits: BTreeMap::new(),
            aborts: BTreeMap::new(),
            gone: BTreeSet::new(),
            spawned: BTreeSet::new(),
            inspected: Vec::new(),
            to_close: BTreeSet::new(),
            refused: is_refused(input, actions),
            downs: BTreeSet::new(),
            asked_early: Vec::new(),
            begins: BTreeSet::new(),
            is_due,
        };
        self.learn(&mut turn);
        self.take_next_steps();
        self.check_size(actions)?;
        for (index, action) in actions.iter().enumerate() {
            self.check_action(&mut turn, action, &actions[index + 1..])?;
        }
        self.check_turn(&turn)?;
        self.check_slots(now)?;
        self.check_lives(&turn)?;
        self.check_bound()?;
        self.check_drains(&turn)?;
        self.check_stalls()?;
        self.check_proving(&turn)?;
        self.check_refusals()?;
        self.check_publications(now)?;
        self.note_late(&mut turn);
        self.note_put_back();
        self.check_looks(&turn, actions)?;
        self.check_in_progress(&turn, actions)?;
        self.note_stages(now);
        self.check_status(now, core)
    }

    /// Whoever is shown to stand elsewhere does so from this moment on.
    fn note_stages(&mut self, now: Time) {
        for record in self.workers.values_mut() {
            let stage = record.stage.shown();
            let waits = match record.stage {
                Standing::Withdrawing { since, .. } | Standing::Emptying { since, .. } => {
                    Some(since)
                }
                Standing::Starting { .. }
                | Standing::Ready
                | Standing::Leaving { .. }
                | Standing::Told { .. }
                | Standing::Asked { .. }
                | Standing::Orphans { .. }
                | Standing::Killed { .. }
                | Standing::Gone => None,
            };
            let withdraws = waits.is_some();
            // What it takes until a proxy knows is not part of what is done to it.
            let done = matches!(
                record.stage,
                Standing::Told { .. }
                    | Standing::Asked { .. }
                    | Standing::Orphans { .. }
                    | Standing::Killed { .. }
            );
            let again = waits == Some(now) && record.shown.1 != now;
            if record.shown.0 != stage || record.withdraws && done || again {
                record.shown = (stage, now);
            }
            record.withdraws = withdraws;
        }
    }

    fn check_size(&self, actions: &[Action]) -> Result<(), Violation> {
        let workers = self.alive().count();
        let wanted: u32 = self.books.values().map(|book| book.wanted).sum();
        // One that is closed may take two programs besides.
        let bound = 24 + 12 * workers + 4 * wanted as usize + self.requests.len();
        let bound = bound + 3 * self.members.len();
        ensure!(actions.len() <= bound, "S13: {} actions in a turn", actions.len());
        Ok(())
    }

    /// What must hold between turns.
    fn check_turn(&mut self, turn: &Turn<'_>) -> Result<(), Violation> {
        let untold = turn
            .ended
            .keys()
            .find(|id| self.workers.get(id).is_some_and(|record| !self.is_told(record.service)));
        ensure!(untold.is_none(), "S17: {untold:?} ended, and nobody is told");
        if let Some(id) = turn.orphaned {
            ensure!(turn.tree_told, "S8: worker {id} left others behind, and they are not told");
        }
        ensure!(turn.lame_duck != Begins::Untold, "S23: a lame duck begins, and nobody is told");
        if self.is_stopping() {
            let goes_on =
                self.books.values().find(|book| !book.told && book.rolling.is_some() && book.asked);
            let goes_on = goes_on.map(|book| book.rolling);
            ensure!(goes_on.is_none(), "S23: a reload goes on: {goes_on:?}");
        }
        self.check_told(turn)?;
        for (id, record) in self.alive() {
            let starts = matches!(record.stage, Standing::Starting { .. });
            let ends = starts || !matches!(record.checks, Checks::UnderWay(_));
            ensure!(ends, "S21: the check of worker {id} goes on: {record:?}");
        }
        let mut seats: BTreeMap<(ServiceId, GenerationId, SlotId), WorkerId> = BTreeMap::new();
        let mut starting: BTreeMap<ServiceId, u32> = BTreeMap::new();
        let mut rolled: BTreeSet<ServiceId> = BTreeSet::new();
        let mut recovered: Vec<(ServiceId, SlotId)> = Vec::new();
        for (id, record) in self.alive() {
            let book = &self.books[&record.service];
            let rolling = book.rolling.is_some_and(|(rolling, _)| rolling == record.generation);
            let serves_new = book.serves_new(record);
            match record.stage {
                Standing::Starting { .. } => {
                    if rolling {
                        *starting.entry(record.service).or_default() += 1;
                    }
                }
                Standing::Ready => {
                    if rolling {
                        rolled.insert(record.service);
                    }
                }
                Standing::Withdrawing { .. }
                | Standing::Emptying { .. }
                | Standing::Leaving { .. }
                | Standing::Told { .. }
                | Standing::Asked { .. }
                | Standing::Orphans { .. }
                | Standing::Killed { .. }
                | Standing::Gone => continue,
            }
            ensure!(
                rolling || serves_new || record.generation == book.serving,
                "S4, S9: worker {id} is of no fleet: {record:?}"
            );
            ensure!(record.slot.0 < book.wanted, "S4: worker {id} is one too many: {record:?}");
            let seat = (record.service, record.generation, record.slot);
            let other = seats.insert(seat, id);
            ensure!(other.is_none(), "S4: workers {id} and {other:?} have one slot");
            if record.stage == Standing::Ready && record.generation == book.serving {
                recovered.push((record.service, record.slot));
            }
        }
        for (service, slot) in recovered {
            if let Some(book) = self.books.get_mut(&service) {
                book.failures.remove(&slot);
            }
        }
        self.check_begun();
        self.check_launching(turn, &seats)?;
        for (service, book) in &self.books {
            let Some((rolling, true)) = book.rolling else {
                continue;
            };
            let starting = starting.get(service).copied().unwrap_or(0);
            let most = if rolled.contains(service) { book.policy.starting_max } else { 1 };
            ensure!(starting <= most, "S4: {starting} of a new generation start at a time");
            let first = (*service, rolling, SlotId(0));
            let last = (*service, rolling, SlotId(book.wanted));
            let lacks = seats.range(first..last).count() < book.open_slots(rolling);
            // One that it needs may have to come up again first.
            let held = book.policy.needs().any(|need| self.is_missing(need));
            // In batches it waits for room; at rest it is over.
            let waits = book.batches.beside != Beside::All;
            ensure!(
                waits || !lacks || starting == most || book.told || held,
                "S10: a reload idles with {starting} of {most}"
            );
        }
        Ok(())
    }

    /// Who is asked to stop is told at once, and its sockets are closed.
    fn check_told(&self, turn: &Turn<'_>) -> Result<(), Violation> {
        if !turn.stops.is_empty() || turn.kills {
            let is_meant = |service: &ServiceId| turn.kills || turn.stops.contains(service);
            for (id, record) in self.alive().filter(|(_, record)| is_meant(&record.service)) {
                let obeyed = match record.stage {
                    Standing::Killed { .. } => true,
                    Standing::Withdrawing { .. }
                    | Standing::Told { .. }
                    | Standing::Asked { .. }
                    | Standing::Orphans { .. } => !turn.kills,
                    // It has had its time to finish what it has.
                    Standing::Emptying { .. } => false,
                    Standing::Starting { .. }
                    | Standing::Ready
                    | Standing::Leaving { .. }
                    | Standing::Gone => false,
                };
                ensure!(obeyed, "S8, S27: worker {id} is not told to stop: {record:?}");
            }
            let open = self.members.iter().find(|(member, account)| {
                is_meant(&account.service) && !self.closed.contains(member)
            });
            let open = open.map(|(member, _)| member);
            let going = self.going.iter().chain(&self.spares).find(|(_, it)| is_meant(it));
            ensure!(going.is_none(), "S1: its service stops, and {going:?} is not closed");
            ensure!(open.is_none(), "S1: its service stops, and {open:?} is not closed");
        }
        Ok(())
    }

    /// Who waits for nobody any more begins, unless a stop was asked for.
    fn check_begun(&mut self) {
        if self.is_stopping() {
            return;
        }
        let up: BTreeSet<ServiceId> =
            self.books.iter().filter(|&(&id, _)| !self.is_missing(id)).map(|(&id, _)| id).collect();
        for book in self.books.values_mut() {
            // One that is about to take over another definition does so first.
            let takes_over = book.start == Start::Waits && book.rolling.is_some();
            if !takes_over
                && book.life.is_up()
                && book.policy.needs().all(|need| up.contains(&need))
            {
                book.start = book.start.max(Start::Begun);
            }
        }
    }

    /// No more of a serving generation are on their way to their program than allowed, and no slot
    /// of it idles while fewer are.
    fn check_launching(
        &self,
        turn: &Turn<'_>,
        seats: &BTreeMap<(ServiceId, GenerationId, SlotId), WorkerId>,
    ) -> Result<(), Violation> {
        for (&service, book) in self.books.iter().filter(|(_, book)| book.life.serves()) {
            let launching = self.launching(service);
            let most = book.policy.launching_max as usize;
            ensure!(launching.serving <= most, "S4: {launching:?} of {most} are on their way");
            let open =
                (0..book.wanted).map(SlotId).filter(|&slot| book.is_open(book.serving, slot));
            let open = open.filter(|slot| !book.batches.given.contains(slot));
            let idle = { open }.find(|&slot| {
                let waits = book.waits.get(&slot).is_some_and(|&due| due > turn.now);
                !waits && !seats.contains_key(&(service, book.serving, slot))
            });
            ensure!(
                idle.is_none() || launching.all >= most || book.told || book.start == Start::Waits,
                "S10, S26: slot {idle:?} idles with {launching:?} of {most} on their way"
            );
        }
        Ok(())
    }

    fn launching(&self, service: ServiceId) -> Launching {
        let mut launching = Launching { all: 0, serving: 0 };
        for (_, record) in self.alive().filter(|(_, record)| record.service == service) {
            if matches!(record.stage, Standing::Starting { runs: None, .. }) {
                launching.all += 1;
                let serves = record.generation == self.books[&service].serving;
                launching.serving += usize::from(serves);
            }
        }
        launching
    }

    fn check_status(&self, now: Time, core: &Supervisor) -> Result<(), Violation> {
        let status = core.status(now);
        ensure!(status.stopping == self.is_stopping(), "S17: stopping is {}", status.stopping);
        let left = self.lame.map(|lame| now.until(lame.due));
        ensure!(status.lame_duck == left, "S23: {:?} instead of {left:?}", status.lame_duck);
        if !self.finished {
            let line = status.to_string();
            ensure!(line == self.status_line, "S17: announced {}, but: {line}", self.status_line);
        }
        for (shown, (service, book)) in status.services.iter().zip(&self.books) {
            let alive = self.alive().filter(|(_, record)| record.service == *service);
            let alive: Vec<_> = alive
                .map(|(id, record)| {
                    let (stage, since) = record.shown;
                    (id, record.slot, record.generation, stage, now.since(since))
                })
                .collect();
            let shown_workers: Vec<_> = shown
                .workers
                .iter()
                .map(|worker| {
                    let WorkerStatus { worker, slot, generation, stage, since, .. } = worker;
                    (*worker, *slot, *generation, *stage, *since)
                })
                .collect();
            ensure!(alive == shown_workers, "S17: {shown_workers:?} instead of {alive:?}");
            let ready = alive
                .iter()
                .filter(|&&(_, slot, generation, stage, _)| {
                    let over =
                        book.new_one() == Some(generation) && book.batches.over.contains(&slot);
                    (generation == book.serving || over) && stage == Stage::Ready
                })
                .count();
            self.check_state(*service, shown)?;
            let sums = (shown.wanted, shown.generation) == (book.wanted, book.serving);
            if !book.told {
                ensure!(sums && shown.ready as usize == ready, "S17: {shown:?}, ready: {ready}");
                let rolling = book.new_one();
                ensure!(shown.reloading == rolling, "S17: reloading: {shown:?}");
                ensure!(
                    !shown.queued || !self.is_stopping(),
                    "S23: a reload is to come: {shown:?}"
                );
                let started = match book.start {
                    Start::Waits => true,
                    Start::Begun => book.stumbled,
                    Start::Up => true,
                };
                let proved = !book.proving.is_on_probation();
                let free = book.rolling.is_none() && !book.batches.is_in_the_way();
                let may_begin = free && proved && started && book.life == Life::Up;
                ensure!(!(shown.queued && may_begin), "S10: a reload waits for nothing: {shown:?}");
                let failing = book.in_a_row >= FAILING_AFTER;
                let missing = book.policy.needs().filter(|&need| self.is_missing(need)).count();
                let waits = book.start == Start::Waits && book.life.is_up();
                let waits = if waits { missing } else { 0 };
                let frozen = self.is_stopping() || book.rolling.is_some();
                let agrees = shown.waits_for.len() == waits || frozen;
                ensure!(agrees, "S26: {shown:?} waits for {waits}");
                ensure!(shown.failing == failing, "S17: {} failures: {shown:?}", book.in_a_row);
                let complete = shown.ready >= book.wanted && book.batches.over.is_empty();
                ensure!(!complete || shown.committed, "S17: all are ready, and it has not come up");
            }
        }
        let expected = if self.is_stopping() {
            matches!(self.announced, Some(Announcement::Stopping(_)))
        } else if self.come_up.len() < self.books.len() {
            self.announced.is_none()
        } else if self.books.values().any(|it| it.rolling.is_some() || it.batches.is_in_the_way()) {
            self.announced == Some(Announcement::Reloading)
        } else {
            self.announced == Some(Announcement::Ready)
        };
        ensure!(expected, "S17: the last announcement is {:?}: {status}", self.announced);
        Ok(())
    }

    /// Right after the core has dealt with all deadlines up to `now`: nothing is overdue.
    pub(crate) fn check_prompt(&self, now: Time) -> Result<(), Violation> {
        for (id, record) in self.alive() {
            let overdue = match record.stage {
                Standing::Starting { due, alive, .. } => {
                    due <= now || alive.is_some_and(|alive| alive <= now)
                }
                Standing::Withdrawing { due, .. }
                | Standing::Emptying { due, .. }
                | Standing::Leaving { due, .. }
                | Standing::Told { due, .. }
                | Standing::Asked { due, .. }
                | Standing::Orphans { due }
                | Standing::Killed { due, .. } => due <= now,
                Standing::Ready | Standing::Gone => false,
            };
            ensure!(!overdue, "S8: worker {id} is overdue: {record:?}");
            let policy = &self.books[&record.service].policy;
            if let (ReadyWhen::Check(_), Standing::Starting { runs: Some(_), due, .. }) =
                (&policy.ready, record.stage)
            {
                let CheckPace { interval, timeout } = policy.check_pace;
                let prompt = match record.checks {
                    Checks::Rest(since) => {
                        // One that would end too close to being late waits for that to pass.
                        now < since + interval + CHECK_MARGIN * 2
                            || due <= since + interval + CHECK_MARGIN
                    }
                    Checks::UnderWay(since) => now < since + timeout,
                    Checks::Ending => true,
                };
                ensure!(prompt, "S21: the checks of worker {id} rest: {record:?}");
            }
        }
        let lame = self.lame.filter(|lame| lame.due <= now);
        ensure!(lame.is_none(), "S23: overdue: {lame:?}");
        self.check_publications_prompt(now)?;
        for (&service, book) in self.books.iter().filter(|(_, book)| !book.told) {
            let overdue = book.waits.iter().find(|&(_, &due)| due <= now);
            let free = self.launching(service).all < book.policy.launching_max as usize;
            ensure!(overdue.is_none() || !free, "S18: nobody starts in {overdue:?}");
        }
        Ok(())
    }

    /// Nothing is to come.
    pub(crate) fn check_rest(&mut self, status: &Status) -> Result<(), Violation> {
        ensure!(
            self.stop == Stop::No,
            "S3: asked to stop, not finished, and no deadline: {status}"
        );
        for (service, book) in status.services.iter().zip(self.books.values()) {
            if book.life == Life::Stopped {
                ensure!(service.state == ServiceState::Stopped, "S28: {service:?}");
                self.seen.insert("a service that stays stopped");
                continue;
            }
            ensure!(book.life == Life::Up, "S28: at rest: {:?}", book.life);
            if book.start == Start::Waits {
                let missing = book.policy.needs().any(|need| self.is_missing(need));
                let calm = missing && service.workers.is_empty() && !service.queued;
                ensure!(calm, "S26: nothing is to come, but: {service:?}");
                continue;
            }
            let calm = service.ready == service.wanted
                && service.workers.len() == service.wanted as usize
                && service.reloading.is_none()
                && !service.queued
                && service.backing_off.is_empty()
                && !service.failing;
            ensure!(calm, "S3, S10: nothing is to come, but: {service:?}");
        }
        self.check_publications_at_rest()?;
        let open: Vec<&RequestId> = self.requests.keys().collect();
        ensure!(open.is_empty(), "S6: without a response at rest: {open:?}");
        for book in self.books.values() {
            let kept = &book.kept;
            let serving = book.life.serves().then_some(book.serving);
            let expected = serving.into_iter().chain(book.proving.previous());
            let expected: BTreeSet<GenerationId> = expected.collect();
            ensure!(*kept == expected, "S7, S31: {kept:?} are kept, not {expected:?}");
        }
        Ok(())
    }

    /// After the end.
    pub(crate) fn check_end(&self) -> Result<(), Violation> {
        self.check_publications_at_end()?;
        let open: Vec<&RequestId> = self.requests.keys().collect();
        ensure!(open.is_empty(), "S6: without a response: {open:?}");
        let closed = self.members.keys().all(|member| self.closed.contains(member));
        ensure!(
            closed && self.going.is_empty() && self.spares.is_empty(),
            "S1: only {:?} are closed",
            self.closed
        );
        for book in self.books.values() {
            let kept = &book.kept;
            ensure!(kept.is_empty(), "S7: never forgotten: {kept:?}");
        }
        Ok(())
    }
}
