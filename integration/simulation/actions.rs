//! What each action must fulfil, for the invariants that `invariants.rs` lists.

use shepherd::core::Action;
use shepherd::core::action::{Announcement, Spawn};
use shepherd::core::event::{Event, Used, WorkerEvent};
use shepherd::core::ids::{GenerationId, WorkerId};
use shepherd::core::notice::{ConfigurationNotice, Next, Notice};
use shepherd::core::policy::{ReadyWhen, Signal};
use shepherd::core::readiness::{CHECK_MARGIN, CHECKS_MAX, Evidence};
use shepherd::core::request::Request;
use shepherd::core::restart::{BACKOFF_FIRST, BACKOFF_MAX, RESTART_WINDOW, RESTARTS_MAX};
use shepherd::core::time::Time;
use shepherd::core::worker::{Cause, KILL_ROUNDS_MAX, KILL_WAIT};

use crate::batch_book::{BatchBook, Beside};
use crate::fate::ms;
use crate::invariants::{Violation, ensure};
use crate::ledger::{Begins, Channel, Checks, Ledger, Record, Standing, Start, Stop, Turn};
use crate::life_book::Life;
use crate::world::Input;

/// How a worker is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    OverItsChannel,
    By(Signal),
}

impl Ledger {
    pub(crate) fn check_action(
        &mut self,
        turn: &mut Turn<'_>,
        action: &Action,
        rest: &[Action],
    ) -> Result<(), Violation> {
        match action {
            Action::Prepare { .. } => self.check_prepare(action),
            Action::ReadConfiguration { .. } | Action::Remove(_) => Ok(()),
            Action::Spawn(spawn) => self.check_spawn(turn, spawn),
            Action::Probe(id) => {
                let record = self.named(*id, action)?;
                // One whose word was taken is looked at once more, if a wrapper was seen around it.
                let said = *turn.input == Input::Event(Event::Worker(*id, WorkerEvent::SaidReady));
                let worth_it = match record.stage {
                    Standing::Starting { runs, .. } => runs.is_some(),
                    Standing::Ready => said,
                    Standing::Withdrawing { .. }
                    | Standing::Emptying { .. }
                    | Standing::Leaving { .. }
                    | Standing::Told { .. }
                    | Standing::Asked { .. }
                    | Standing::Orphans { .. }
                    | Standing::Killed { .. }
                    | Standing::Gone => false,
                };
                ensure!(worth_it, "S7: {action:?} of {record:?}");
                Ok(())
            }
            Action::Inspect { .. }
            | Action::Listen(_)
            | Action::StopListening(_)
            | Action::SetMode(..)
            | Action::Renew { .. }
            | Action::FindHolders { .. } => self.check_socket_action(turn, action),
            Action::Steer { .. }
            | Action::LookAtDrain { .. }
            | Action::LookAtQueues { .. }
            | Action::BindSpares { .. } => self.check_steering_action(action),
            Action::Rotate { .. } => Err("S14: nothing is dispatched in these worlds".into()),
            Action::Weigh { service, generation, workers } => {
                self.check_weigh(*service, *generation, workers.len())
            }
            Action::BindSlot { service, generation, slot, members } => {
                self.check_bind_slot(turn, *service, *generation, *slot, members)
            }
            Action::Publish { .. } | Action::EndPublish { .. } => {
                self.check_publication_action(turn, action)
            }
            Action::Check(id) => self.check_check(turn, *id),
            Action::EndCheck(id) => self.check_end_of_check(turn, *id),
            Action::Disconnect(id) => self.check_ask(turn, *id, Ask::OverItsChannel, rest),
            Action::Signal(id, signal) => self.check_signal(turn, *id, *signal, rest),
            Action::SignalTree(id, signal) => {
                let record = self.named(*id, action)?;
                ensure!(turn.orphaned == Some(*id), "S7: {action:?} to {record:?}");
                let first = self.books[&record.service].policy.stop.first().signal;
                let continued = rest.first() == Some(&Action::SignalTree(*id, Signal::Cont));
                if *signal == first && continued {
                    turn.tree_told = true;
                } else {
                    ensure!(*signal == Signal::Cont, "S8: {action:?}, and no SIGCONT after it");
                }
                Ok(())
            }
            Action::KillTree(id) => self.check_kill(turn, *id),
            Action::Close(member) => {
                self.check_close(turn, *member)?;
                self.shares.remove(member);
                self.books.values_mut().for_each(|book| book.proving.closed(*member));
                ensure!(self.closed.insert(*member), "S1: {action:?} twice");
                Ok(())
            }
            Action::Forget { service, generation } => {
                let used = self.alive().any(|(_, record)| {
                    record.service == *service && record.generation == *generation
                });
                let stopped = self.is_told(*service);
                let book = self.books.get_mut(service).ok_or("S7: no such service")?;
                ensure!(!used, "S7: {action:?}, and a worker runs it");
                ensure!(book.kept.remove(generation), "S7: {action:?} is not kept");
                let serves = (book.serving == *generation && book.life.serves())
                    || book.life.keeps() == Some(*generation)
                    || book.proving.previous() == Some(*generation)
                    || book.new_one() == Some(*generation);
                ensure!(stopped || !serves, "S7: {action:?}, and it serves");
                book.forgotten.insert(*generation);
                Ok(())
            }
            Action::Respond(id, response) => self.check_response(*id, response),
            Action::Announce(announcement) => self.check_announcement(turn, announcement),
            Action::Notice(notice) => {
                let line = notice.to_string();
                let plain = !line.is_empty() && !line.chars().any(char::is_control);
                ensure!(plain, "S19: not a line: {line:?}");
                self.check_notice(turn, notice)
            }
            Action::Finish => {
                ensure!(self.stop != Stop::No, "S5: finished without a stop");
                let alive: Vec<WorkerId> = self.alive().map(|(id, _)| id).collect();
                ensure!(alive.is_empty(), "S5: finished, and {alive:?} are alive");
                ensure!(rest.is_empty(), "S6: after the end: {rest:?}");
                self.finished = true;
                Ok(())
            }
        }
    }

    fn check_prepare(&mut self, action: &Action) -> Result<(), Violation> {
        let Action::Prepare { service, generation, like, bind } = action else {
            return Ok(());
        };
        let changes = self.check_life_prepare(action)?;
        let book = self.books.get_mut(service).ok_or("S7: no such service")?;
        ensure!(!book.told, "S7: {action:?} after a stop");
        ensure!(generation.0 == book.last_generation.0 + 1, "S7: {action:?} out of turn");
        book.last_generation = *generation;
        book.kept.insert(*generation);
        if !changes {
            let ready = self.count_ready(*service);
            let policy = &self.books[service].policy;
            let stop_first = policy.surge.of(self.books[service].wanted) == Some(0);
            let nobody = ready == 0 || ready == 1 && stop_first;
            let book = self.books.get_mut(service).ok_or("S7: no such service")?;
            // Where nobody can take what waits, the new ones are to.
            if nobody {
                let root = book.root(book.serving);
                book.heirs.insert(*generation, root);
            }
            ensure!(book.rolling.is_none(), "S7: {action:?} during a reload");
            let expected = book.proving.like(book.serving);
            ensure!(*like == expected, "S7, S31: {action:?} of {like:?}, not {expected:?}");
            ensure!(book.batches.back.is_none(), "S33: {action:?} while slots are put back");
            ensure!(book.life == Life::Up, "S28: {action:?} of {:?}", book.life);
            book.rolling = Some((*generation, false));
            book.binding.clone_from(bind);
            self.check_reload_binds(*service, *generation, bind)?;
        }
        Ok(())
    }

    fn check_announcement(
        &mut self,
        turn: &Turn<'_>,
        announcement: &Announcement,
    ) -> Result<(), Violation> {
        match announcement {
            Announcement::Status(line) => {
                ensure!(*line != self.status_line, "S17: {line} announced twice");
                self.status_line.clone_from(line);
            }
            Announcement::Ready | Announcement::Reloading | Announcement::Stopping(_) => {
                if let Announcement::Stopping(takes) = announcement {
                    let ladders = self.books.keys().map(|&id| self.stop_takes(id));
                    let lame = self.lame.map(|lame| turn.now.until(lame.due));
                    let all = ladders.max().unwrap_or_default() + lame.unwrap_or_default();
                    ensure!(*takes >= all, "S23: {takes:?} announced, of {all:?}");
                }
                let last = self.announced.replace(announcement.clone());
                ensure!(
                    last.as_ref() != Some(announcement),
                    "S17: {announcement:?} announced twice"
                );
            }
        }
        Ok(())
    }

    fn check_spawn(&mut self, turn: &mut Turn<'_>, spawn: &Spawn) -> Result<(), Violation> {
        let Spawn { worker, service, slot, generation, members, dispatched } = spawn;
        ensure!(dispatched.is_empty(), "S1: {spawn:?}, and nothing is dispatched");
        ensure!(!self.is_told(*service), "S4: {spawn:?} after a stop");
        let missing = self.books[service].policy.needs().find(|&need| self.is_missing(need));
        // One that has begun goes on, whoever is stopped after that.
        let book = &self.books[service];
        let goes_on = book.start != Start::Waits && book.serving == *generation;
        ensure!(missing.is_none() || goes_on, "S26: {spawn:?}, and {missing:?} has not been ready");
        let expected = self.members_of(*service, *generation, *slot);
        ensure!(expected == *members, "S1: {spawn:?} gets other sockets than {expected:?}");
        let all = self.books[service].policy.sockets.len();
        ensure!(members.len() == all, "S1: {spawn:?} lacks a socket of {all}");
        let deaf = members.iter().find(|member| self.refusing.contains(member));
        ensure!(deaf.is_none(), "S32: {spawn:?} gets {deaf:?}, which does not listen");
        ensure!(worker.0 > self.last_worker, "S7: a worker's number is used twice: {worker}");
        self.last_worker = worker.0;
        let book = self.books.get_mut(service).ok_or("S7: no such service")?;
        ensure!(book.kept.contains(generation), "S7: {spawn:?}, whose definition is not kept");
        ensure!(slot.0 < book.wanted, "S4: {spawn:?} beyond {} wanted", book.wanted);
        ensure!(book.is_open(*generation, *slot), "S24: {spawn:?} without its own sockets");
        ensure!(book.life.serves(), "S28: {spawn:?} of {:?}", book.life);
        if *generation == book.serving {
            let back = book.batches.given.remove(slot);
            ensure!(!back || book.batches.back.is_some(), "S33: {spawn:?}, which is changed over");
            if let Some(due) = book.waits.remove(slot) {
                book.replaced += 1;
                ensure!(due <= turn.now, "S18: {spawn:?} before {due:?}");
            }
        } else {
            let read = book.rolling == Some((*generation, true));
            ensure!(read, "S7: {spawn:?} of a generation that is not rolling");
            ensure!(book.batches.beside != Beside::Weighed, "S33: {spawn:?} before it is weighed");
            // Nobody was there that could have been stopped for it.
            if book.batches.surge() == Some(0) {
                book.batches.given.insert(*slot);
                book.waits.remove(slot);
            }
        }
        let puts_back = book.batches.back.is_some() && book.batches.left.contains(slot);
        if *generation != book.serving || puts_back {
            self.check_room(*service)?;
        }
        let book = &self.books[service];
        let stage = Standing::Starting {
            due: turn.now + book.policy.ready_timeout,
            runs: None,
            alive: None,
        };
        let record = Record {
            service: *service,
            slot: *slot,
            generation: *generation,
            stage,
            members: members.clone(),
            has_run: false,
            main_gone: false,
            channel: Channel::Silent,
            shown: (stage.shown(), turn.now),
            withdraws: false,
            checks: Checks::Rest(turn.now),
            empty: [0; 2],
            last_finding: None,
        };
        if self.lame.is_some() {
            self.saw("a restart by a lame duck");
        }
        turn.spawned.insert(*worker);
        self.workers.insert(*worker, record);
        Ok(())
    }

    fn check_check(&mut self, turn: &Turn<'_>, id: WorkerId) -> Result<(), Violation> {
        let now = turn.now;
        let record = self.named(id, &Action::Check(id))?;
        let service = record.service;
        let policy = &self.books[&service].policy;
        ensure!(matches!(policy.ready, ReadyWhen::Check(_)), "S21: a check that nobody asked for");
        let Standing::Starting { runs: Some(_), due, .. } = record.stage else {
            return Err(format!("S21: a check of {record:?}"));
        };
        let Checks::Rest(since) = record.checks else {
            return Err(format!("S21: two checks of {record:?}"));
        };
        ensure!(now > since, "S21: a check without a pause: {record:?}");
        ensure!(now + CHECK_MARGIN < due, "S21: a check that cannot be told of: {record:?}");
        let others = self.alive().filter(|(_, record)| {
            record.service == service && !matches!(record.checks, Checks::Rest(_))
        });
        ensure!(others.count() < CHECKS_MAX as usize, "S21: more than {CHECKS_MAX} checks");
        self.saw("a check");
        if let Some(record) = self.workers.get_mut(&id) {
            record.checks = Checks::UnderWay(now);
        }
        Ok(())
    }

    fn check_end_of_check(&mut self, turn: &Turn<'_>, id: WorkerId) -> Result<(), Violation> {
        let now = turn.now;
        let record = self.named(id, &Action::EndCheck(id))?;
        let Checks::UnderWay(since) = record.checks else {
            return Err(format!("S21: no check to end of {record:?}"));
        };
        let timeout = self.books[&record.service].policy.check_pace.timeout;
        let reason = match record.stage {
            Standing::Starting { .. } => {
                // It has had its time, or the worker was to be late when it began.
                ensure!(*turn.input == Input::Timeout && now > since, "S21: ended at once");
                ensure!(now.since(since) <= timeout + ms(60), "S21: ended late: {record:?}");
                "a check that took too long"
            }
            Standing::Ready => return Err(format!("S21: the check of {record:?} has answered")),
            Standing::Withdrawing { .. }
            | Standing::Emptying { .. }
            | Standing::Leaving { .. }
            | Standing::Told { .. }
            | Standing::Asked { .. }
            | Standing::Orphans { .. }
            | Standing::Killed { .. }
            | Standing::Gone => "a check that nobody waits for",
        };
        self.saw(reason);
        if let Some(record) = self.workers.get_mut(&id) {
            record.checks = Checks::Ending;
        }
        Ok(())
    }

    fn check_signal(
        &mut self,
        turn: &mut Turn<'_>,
        id: WorkerId,
        signal: Signal,
        rest: &[Action],
    ) -> Result<(), Violation> {
        let record = self.named(id, &Action::Signal(id, signal))?;
        ensure!(!record.main_gone, "S7: {signal} to worker {id}, whose main process is gone");
        if turn.asks(&Request::Signal { worker: id, signal }) {
            return Ok(());
        }
        if signal == Signal::Cont {
            return Ok(());
        }
        self.check_ask(turn, id, Ask::By(signal), rest)
    }

    /// A worker is asked to stop: whoever asked for its sockets over its channel is told over that first.
    fn check_ask(
        &mut self,
        turn: &mut Turn<'_>,
        id: WorkerId,
        ask: Ask,
        rest: &[Action],
    ) -> Result<(), Violation> {
        let now = turn.now;
        let record = self.named(id, &Action::Disconnect(id))?;
        let continued =
            rest.iter().find(|action| matches!(action, Action::Signal(to, _) if *to == id));
        ensure!(
            continued == Some(&Action::Signal(id, Signal::Cont)),
            "S8: {ask:?} to worker {id}, and no SIGCONT after it"
        );
        let book = &self.books[&record.service];
        let stops = turn.stops.contains(&record.service);
        let downs = turn.downs.contains(&record.service);
        let taken = self.is_taken(turn, record);
        let shown = self.is_last_shown(id, record);
        let timeout = *turn.input == Input::Timeout;
        let (since, rung, may) = match record.stage {
            Standing::Starting { due, .. } => (now, 0, taken || (timeout && due <= now)),
            Standing::Ready => (now, 0, taken && !shown && !self.may_empty(turn, record)),
            Standing::Withdrawing { due, .. } => {
                let over = !shown && !self.may_empty(turn, record);
                (now, 0, over || (timeout && due <= now))
            }
            Standing::Emptying { due, .. } => {
                let over = timeout && due <= now;
                (now, 0, over || stops || downs || self.has_finished(turn, id))
            }
            // Its own word gives it its time, unless everything stops.
            Standing::Leaving { since, due } => {
                let all = stops || turn.downs.contains(&record.service);
                let broken = match turn.input {
                    Input::Event(Event::Worker(of, WorkerEvent::ChannelBroken(_))) => *of == id,
                    Input::Start | Input::Event(_) | Input::Timeout => false,
                };
                (since, 0, all || broken || (timeout && due <= now))
            }
            // What it was told counts until its time is over.
            Standing::Told { since, due, heard } => {
                (since, 0, (timeout && due <= now) || heard && (stops || downs))
            }
            Standing::Asked { since, sent, due } => (since, sent, timeout && due <= now),
            Standing::Orphans { .. } | Standing::Killed { .. } | Standing::Gone => (now, 0, false),
        };
        ensure!(may, "S2, S8, S9, S25: {ask:?} to worker {id} without a reason: {record:?}");
        let finished = matches!(record.stage, Standing::Emptying { .. }) && !timeout;
        let step = book.policy.stop.step(rung).ok_or("S8: a rung beyond the ladder")?;
        let is_late = matches!(record.stage, Standing::Starting { due, .. } if due <= now);
        let speaks = record.channel == Channel::Speaks && !(timeout && is_late);
        let was_told = matches!(record.stage, Standing::Told { .. });
        let stage = match ask {
            Ask::OverItsChannel => {
                ensure!(
                    speaks && !was_told,
                    "S36: worker {id} is told over no channel: {record:?}"
                );
                Standing::Told { since, due: now + step.wait, heard: false }
            }
            Ask::By(signal) => {
                ensure!(!speaks, "S36: {signal} to worker {id}, which was not told: {record:?}");
                let right = step.signal == signal;
                ensure!(right, "S8: {signal} to worker {id} instead of {}", step.signal);
                let wait = if was_told { step.wait.min(ms(5000)) } else { step.wait };
                Standing::Asked { since, sent: rung + 1, due: now + wait }
            }
        };
        let waited = matches!(record.stage, Standing::Withdrawing { .. });
        let served = record.stage.serves() || waited;
        let early = rung == 0 && served && self.may_be_found(record);
        let (service, generation, slot) = (record.service, record.generation, record.slot);
        let late = timeout && matches!(record.stage, Standing::Starting { due, .. } if due <= now);
        let taken = record.stage.serves() && !late;
        if finished {
            self.saw("a worker emptied in time");
        }
        if was_told {
            self.saw("a signal after that");
        }
        if ask == Ask::OverItsChannel {
            self.saw("told over a channel");
        }
        if let Some(record) = self.workers.get_mut(&id) {
            record.channel = Channel::Silent;
        }
        self.set(id, stage);
        if taken {
            self.note_handed_over(service, generation, slot);
        }
        if early {
            self.shared.insert(id);
            turn.asked_early.push(id);
        }
        Ok(())
    }

    /// Whether a worker is to stop though nothing happened to it.
    fn is_taken(&self, turn: &Turn<'_>, record: &Record) -> bool {
        let beyond = record.slot.0 >= self.books[&record.service].wanted;
        let replaced = turn
            .commits
            .get(&record.service)
            .is_some_and(|&generation| record.generation < generation);
        let aborted = turn.aborts.get(&record.service) == Some(&record.generation)
            && !self.books[&record.service].serves_new(record);
        let service = &record.service;
        turn.stops.contains(service)
            || turn.downs.contains(service)
            || beyond
            || replaced
            || aborted
            || self.is_changed_over(turn, record)
    }

    fn check_kill(&mut self, turn: &Turn<'_>, id: WorkerId) -> Result<(), Violation> {
        let now = turn.now;
        let record = self.named(id, &Action::KillTree(id))?;
        let ladder = &self.books[&record.service].policy.stop;
        let timeout = *turn.input == Input::Timeout;
        let (rounds, may) = match record.stage {
            Standing::Starting { .. }
            | Standing::Ready
            | Standing::Withdrawing { .. }
            | Standing::Emptying { .. }
            | Standing::Leaving { .. }
            | Standing::Told { .. } => (0, false),
            Standing::Asked { sent, due, .. } => {
                (0, timeout && due <= now && ladder.step(sent).is_none())
            }
            Standing::Orphans { due } => (0, timeout && due <= now),
            Standing::Killed { rounds, due } => {
                (rounds, timeout && due <= now && rounds < KILL_ROUNDS_MAX)
            }
            Standing::Gone => (0, false),
        };
        let asked = turn.asks(&Request::Signal { worker: id, signal: Signal::Kill });
        if asked && record.stage.serves() {
            return Ok(());
        }
        let killed = matches!(record.stage, Standing::Killed { .. });
        let by_operator = (turn.kills || asked) && !killed;
        ensure!(may || by_operator, "S8: KILL to worker {id} too early: {record:?}");
        self.set(id, Standing::Killed { rounds: rounds + 1, due: now + KILL_WAIT });
        Ok(())
    }

    fn check_notice(&mut self, turn: &mut Turn<'_>, notice: &Notice) -> Result<(), Violation> {
        let now = turn.now;
        match notice {
            Notice::ReloadCommitted { service, generation, .. } => {
                self.check_commit(turn, service, *generation)?;
            }
            Notice::ReloadAborted { service, generation, serving, .. } => {
                let (service, book) = self.book_mut(service)?;
                ensure!(
                    book.rolling.is_some_and(|(rolling, _)| rolling == *generation),
                    "S9: abort of {generation}, which is not rolling"
                );
                ensure!(book.serving == *serving, "S9: {serving} serves after an abort");
                book.rolling = None;
                turn.aborts.insert(service, *generation);
                self.learn_trial_aborted(service, *generation);
                self.learn_off(service, *generation);
                self.abort_modes(service);
                self.saw("an abort");
            }
            Notice::Ready { worker, evidence, .. } => {
                self.check_ready(now, worker.worker, evidence)?;
            }
            Notice::Ended { worker, next, was_ready, cause, used } => {
                self.check_used(turn, worker.worker, *used)?;
                if let Cause::ChannelBroken(_) = cause {
                    self.saw("a channel that broke");
                }
                if let Cause::Late { saw, .. } = cause {
                    let saw = saw.as_ref().map(|saw| saw.finding.clone());
                    let record = self.workers.get(&worker.worker).ok_or("S7: no such worker")?;
                    ensure!(saw == record.last_finding, "S21: {saw:?} is told of {record:?}");
                    self.saw(if saw.is_some() { "late by a check" } else { "late" });
                }
                self.check_ended(turn, worker.worker, *next, *was_ready)?;
            }
            Notice::Unkillable { worker } => {
                let record = self.workers.get_mut(&worker.worker).ok_or("S7: no such worker")?;
                let Standing::Killed { rounds: KILL_ROUNDS_MAX, due } = record.stage else {
                    return Err(format!("S8: given up too early: {record:?}"));
                };
                ensure!(due <= now, "S8: given up before {due:?}");
                record.stage = Standing::Gone;
                self.stop_next(turn);
                self.bring_down(turn);
                self.saw("a worker given up");
                self.take_next_steps();
            }
            Notice::Withdrawing { worker } => {
                let record = self.workers.get(&worker.worker).ok_or("S7: no such worker")?;
                let (service, generation, slot) = (record.service, record.generation, record.slot);
                let may_stop = self.is_taken(turn, record);
                self.check_withdrawing(turn, worker.worker, may_stop)?;
                self.note_handed_over(service, generation, slot);
            }
            Notice::Emptying { worker, longest } => {
                let record = self.workers.get(&worker.worker).ok_or("S7: no such worker")?;
                let (service, generation, slot) = (record.service, record.generation, record.slot);
                let may_stop = self.is_taken(turn, record);
                self.check_emptying(turn, worker.worker, may_stop, *longest)?;
                self.note_handed_over(service, generation, slot);
            }
            Notice::StillBusy { worker, left, .. } => {
                self.check_still_busy(turn, worker.worker, *left)?;
            }
            Notice::Stall { worker, what, .. } => self.check_stall(worker.worker, *what)?,
            Notice::Manners { service, manners } => self.learn_manners(service, *manners)?,
            Notice::Scaled { service, .. } => {
                let (service, _) = self.book_mut(service)?;
                self.note_given_up(service);
                self.saw("a scaled service");
            }
            Notice::Upstreams { what, .. } => self.saw_upstreams(what),
            Notice::Drained { worker, used, .. } => {
                self.check_used(turn, worker.worker, *used)?;
                self.saw("a drained worker");
            }
            Notice::Configuration(what) => self.check_configured(what)?,
            Notice::Serving { service, .. } => self.check_serving(service)?,
            Notice::Signalled { worker, signal } => {
                let asked = Request::Signal { worker: worker.worker, signal: *signal };
                ensure!(turn.asks(&asked), "S6: nobody asked for {notice:?}");
            }
            Notice::ReloadBegins { service, generation, cause } => {
                self.check_begin(turn, service, *generation, *cause)?;
            }
            Notice::Proving { service, what } => self.check_proving_notice(now, service, what)?,
            Notice::Batch { service, what } => self.check_batch(turn, service, what)?,
            Notice::Slot { what, .. } => self.saw_slot(what),
            Notice::Socket { what, .. } => self.check_socket_notice(what),
            Notice::LameDuck { serves_on } => {
                ensure!(*serves_on == self.lame_duck, "S23: {serves_on:?} is told");
                ensure!(turn.lame_duck == Begins::Untold, "S23: no lame duck begins");
                turn.lame_duck = Begins::Told;
                self.saw("a lame duck");
            }
            _ => self.saw(sight(notice)),
        }
        Ok(())
    }

    fn check_commit(
        &mut self,
        turn: &mut Turn<'_>,
        service: &str,
        generation: GenerationId,
    ) -> Result<(), Violation> {
        let (service, book) = self.book_mut(service)?;
        ensure!(
            book.rolling == Some((generation, true)),
            "S2: commit of {generation}, which is not rolling"
        );
        self.check_proved(turn.now, service, generation)?;
        let Some(book) = self.books.get_mut(&service) else { return Ok(()) };
        book.rolling = None;
        book.start = Start::Up;
        book.serving = generation;
        book.batches = BatchBook::default();
        book.committed.insert(generation);
        book.in_a_row = 0;
        book.waits.clear();
        book.failures.clear();
        let (wanted, open) = (book.wanted, book.open_slots(generation));
        self.come_up.insert(service);
        turn.commits.insert(service, generation);
        self.commit_modes(service);
        self.saw("a commit");
        self.note_given_up(service);
        self.take_next_steps();
        let ready = self.alive().filter(|(_, record)| {
            record.service == service
                && record.generation == generation
                && record.stage == Standing::Ready
                && record.slot.0 < wanted
        });
        let ready = ready.count();
        ensure!(ready == open, "S2: commit with {ready} of {open} ready");
        Ok(())
    }

    fn check_configured(&mut self, what: &ConfigurationNotice) -> Result<(), Violation> {
        match what {
            ConfigurationNotice::Waiting { service, services } => {
                self.check_waiting(service, services)
            }
            ConfigurationNotice::Redefined { service, generation } => {
                let (id, book) = self.book_mut(service)?;
                let right = book.start == Start::Waits && book.rolling == Some((*generation, true));
                ensure!(right, "S26: {what:?} of one that has begun");
                book.rolling = None;
                book.serving = *generation;
                book.committed.insert(*generation);
                let worker = self.alive().find(|(_, record)| record.service == id);
                ensure!(worker.is_none(), "S26: {what:?}, and it has {worker:?}");
                self.saw("a definition taken over by one that waits");
                Ok(())
            }
            ConfigurationNotice::Refused { .. }
            | ConfigurationNotice::Added { .. }
            | ConfigurationNotice::Leaves { .. }
            | ConfigurationNotice::Removed { .. } => Ok(()),
        }
    }

    fn check_waiting(&mut self, service: &str, services: &[String]) -> Result<(), Violation> {
        let (_, book) = self.book_mut(service)?;
        ensure!(book.start == Start::Waits, "S26: {service} has begun and waits");
        let needs: Vec<_> = book.policy.needs().collect();
        let missing = needs.iter().filter(|&&need| self.is_missing(need));
        let missing = missing.map(|need| &self.books[need].policy.name);
        ensure!(missing.eq(services), "S26: {service} waits for {services:?}");
        self.saw("a start that waited for another");
        Ok(())
    }

    fn check_serving(&mut self, service: &str) -> Result<(), Violation> {
        let (id, book) = self.book_mut(service)?;
        ensure!(book.life.serves(), "S28: {service} serves: {:?}", book.life);
        book.start = Start::Up;
        let serving = book.serving;
        let open = book.open_slots(serving);
        let ready = self.alive().filter(|(_, record)| {
            record.service == id && record.generation == serving && record.stage == Standing::Ready
        });
        let ready = ready.count();
        self.come_up.insert(id);
        self.take_next_steps();
        ensure!(ready == open, "S26: {ready} of {open} are ready");
        self.saw("a first fleet");
        Ok(())
    }

    /// What a worker has used is told in the turn in which that was heard, as it was.
    fn check_used(
        &mut self,
        turn: &Turn<'_>,
        id: WorkerId,
        told: Option<Used>,
    ) -> Result<(), Violation> {
        let heard = match turn.input {
            Input::Event(Event::Worker(of, WorkerEvent::Exited { used, .. })) if *of == id => *used,
            Input::Start | Input::Event(_) | Input::Timeout => None,
        };
        ensure!(told == heard, "S17: worker {id} used {heard:?}, and {told:?} is told");
        if told.is_some() {
            self.saw("what a worker used");
        }
        Ok(())
    }

    fn check_ready(
        &mut self,
        now: Time,
        id: WorkerId,
        evidence: &Evidence,
    ) -> Result<(), Violation> {
        self.saw(match evidence {
            Evidence::Said => "ready by word",
            Evidence::SeenWaiting => "ready by sight",
            Evidence::Listens => "ready by its channel",
            Evidence::SentReady => "ready by a message",
            Evidence::Alive(_) => "ready by time",
            Evidence::Assumed => "assumed ready",
            Evidence::TookConnection(_) => "ready by a connection",
            Evidence::Answered { .. } => "ready by an answer",
            Evidence::CommandSucceeded(_) => "ready by a command",
        });
        let record = self.workers.get(&id).ok_or("S7: no such worker")?;
        if let Some(book) = self.books.get_mut(&record.service)
            && book.serving == record.generation
        {
            book.in_a_row = 0;
        }
        match (evidence, record.stage) {
            (
                Evidence::Said
                | Evidence::SeenWaiting
                | Evidence::Listens
                | Evidence::SentReady
                | Evidence::TookConnection(_)
                | Evidence::Answered { .. }
                | Evidence::CommandSucceeded(_),
                Standing::Ready,
            ) => Ok(()),
            (
                Evidence::Alive(_) | Evidence::Assumed,
                Standing::Starting { alive: Some(alive), .. },
            ) if alive <= now => {
                self.set(id, Standing::Ready);
                Ok(())
            }
            (_, stage) => Err(format!("S16: worker {id} is ready, {evidence}: {stage:?}")),
        }
    }

    /// A worker that ended unasked: what comes next in its slot.
    fn check_ended(
        &mut self,
        turn: &mut Turn<'_>,
        id: WorkerId,
        next: Next,
        was_ready: bool,
    ) -> Result<(), Violation> {
        self.saw(match next {
            Next::RestartNow => "a restart at once",
            Next::Throttled { .. } => "a throttled restart",
            Next::Backoff { delay, .. } if delay > BACKOFF_MAX / 2 => "a long backoff",
            Next::Backoff { .. } => "a backoff",
            Next::AbortReload => "a reload that lost a worker",
            Next::PutBack => "a new worker lost that was to go",
        });
        let record = self.workers.get(&id).ok_or("S7: no such worker")?;
        // A late worker is the only one that ends without news of it: its signal was just sent.
        let late = *turn.input == Input::Timeout
            && matches!(record.stage, Standing::Asked { sent: 1, .. });
        let known = turn.ended.remove(&id).or(late.then_some(false));
        ensure!(known == Some(was_ready), "S17: worker {id} is said to have ended: {record:?}");
        let (slot, service) = (record.slot, record.service);
        let book = self.books.get_mut(&service).ok_or("S7: no such service")?;
        book.stumbled = true;
        let due = match next {
            Next::RestartNow => {
                ensure!(was_ready, "S18: restart at once after a failure");
                turn.now
            }
            Next::Throttled { delay } => {
                ensure!(was_ready, "S18: throttled after a failure");
                ensure!(book.restarts.len() >= RESTARTS_MAX, "S18: throttled too early");
                turn.now + delay
            }
            Next::Backoff { delay, attempt } => {
                ensure!(!was_ready, "S18: backoff without a failure");
                book.in_a_row += 1;
                book.batches.stuck |= book.batches.left.contains(&slot);
                let failures = book.failures.entry(slot).or_default();
                *failures += 1;
                ensure!(attempt == *failures, "S18: attempt {attempt} instead of {failures}");
                let nominal = BACKOFF_FIRST * (1 << (attempt - 1).min(9));
                let nominal = nominal.min(BACKOFF_MAX);
                let bounds = nominal * 3 / 4..=nominal;
                ensure!(bounds.contains(&delay), "S18: backoff of {delay:?}, not in {bounds:?}");
                turn.now + delay
            }
            Next::AbortReload => {
                let rolls = book.rolling.is_some_and(|(rolling, _)| rolling == record.generation);
                ensure!(rolls, "S9: a worker of no reload aborts one");
                book.batches.over.remove(&slot);
                return Ok(());
            }
            Next::PutBack => {
                let goes = book.batches.back == Some(record.generation);
                ensure!(goes && book.batches.over.remove(&slot), "S33: nothing is put back");
                return Ok(());
            }
        };
        ensure!(book.serving == record.generation, "S18: a worker that does not serve is replaced");
        self.learn_end_on_probation(service);
        let book = self.books.get_mut(&service).ok_or("S7: no such service")?;
        if was_ready {
            book.restarts.push_back(due);
            if book.restarts.len() > RESTARTS_MAX {
                let oldest = book.restarts.pop_front().unwrap_or(Time::ZERO);
                let apart = due.since(oldest);
                ensure!(apart >= RESTART_WINDOW, "S18: 11 restarts within {apart:?}");
            }
        }
        book.waits.insert(slot, due);
        Ok(())
    }
}

/// What a notice shows about which nothing else is checked.
fn sight(notice: &Notice) -> &'static str {
    match notice {
        Notice::Started { .. } => "a start",
        Notice::MainChanged { .. } => "another main process",
        Notice::WorkerStopping { .. } => "a stop signal",
        Notice::Farewell { .. } => "a farewell",
        Notice::NextSignal { .. } => "a second signal",
        Notice::LeftBehind { .. } => "processes left behind",
        Notice::Killing { .. } => "a kill",
        Notice::Wrapper { .. } => "a wrapper",
        Notice::Failing { .. } => "a failing service",
        Notice::Recovered { .. } => "a recovered service",
        Notice::NotScaled { .. } => "a scale refused",
        Notice::ReloadQueued { .. } => "a queued reload",
        Notice::Stopping { .. } => "a stop",
        Notice::StoppingNow { .. } => "a stop at once",
        _ => "something else",
    }
}
