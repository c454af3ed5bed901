//! One worker's life: starting, ready, draining, gone. Every (state, event) pair is decided here.
//!
//! ```text
//!            Started, evidence            stop()
//! Starting ───────────────────▶ Ready ───────────────▶ Draining ──▶ (gone)
//!    │                             │ withdraw()            ▲
//!    │                             ├─────▶ Withdrawing ────┤ stop(), STOPPING=1
//!    │                             │ empty()    ▼          │
//!    │                             └─────▶ Emptying ───────┤ stop(), STOPPING=1
//!    │  late, STOPPING=1, stop()   │ STOPPING=1            │ ladder ends
//!    ├─────────────────────────────┼──▶ Draining           ▼
//!    │ exits, processes left       │                     Killed ──▶ (gone)
//!    └─────────────────────────────┴──▶ Orphaned ──────────▲
//! ```
//!
//! A worker *ends* when it no longer serves or never will: its slot is free from then on. It is
//! *gone* when no process of its tree is left. Both may come at once, and gone always comes last.

use std::collections::VecDeque;
use std::time::Duration;

use super::action::Action;
use super::event::{Exit, Finding, Sight, SpawnFailure, Used, Waiting, WorkerEvent, Wrapped};
use super::ids::{GenerationId, Pid, SlotId, WorkerId};
use super::notice::{Notice, WorkerName};
use super::policy::{Policy, Signal};
use super::readiness::{
    CheckStep, EXTEND_MAX, Evidence, LastCheck, WRAPPED_AFTER, WRAPPED_LOOKS, Watch,
};
use super::roster::Tally;
use super::time::{Time, Why, earlier};

/// How long what a main process left behind has between the stop signal and KILL, when the main
/// process left unasked.
pub const ORPHANS_WAIT: Duration = Duration::from_secs(5);

/// How long a worker that was told over its channel to leave may take to exit once it has closed that: it
/// has finished what it had, and what it still runs will not end by itself.
pub const AFTER_CHANNEL: Duration = Duration::from_secs(2);

/// How long a killed tree may take before it is killed again: a process that forked away meanwhile
/// is caught by the next round.
pub const KILL_WAIT: Duration = Duration::from_secs(1);

/// How many rounds before shepherd admits that a process cannot be killed.
pub const KILL_ROUNDS_MAX: u32 = 10;

/// A process that fills a slot, with all that it forked.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Its number.
    pub id: WorkerId,
    /// The slot it fills or filled.
    pub slot: SlotId,
    /// The definition it runs.
    pub generation: GenerationId,
    /// Where it stands.
    pub state: WorkerState,
    /// Its main process, for people.
    pub pid: Option<Pid>,
    /// The last line it said about itself.
    pub said: Option<String>,
    /// What a wrapper around it keeps from its sockets, as last seen, and in how many looks.
    wrapped: Option<(Wrapped, u32)>,
    /// What the last check of it saw.
    last_check: Option<LastCheck>,
    farewell: Farewell,
}

/// How a worker is told to leave, before any signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Farewell {
    /// By signals alone.
    None,
    /// Over its channel, by which it got its sockets.
    Owed,
    /// It was told.
    Said,
    /// It was told, and has closed its channel.
    Heard,
}

/// Where a worker stands, with what belongs to that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerState {
    /// Spawned, and not yet seen able to serve.
    Starting {
        /// When it was spawned.
        since: Time,
        /// When it is late.
        deadline: Time,
        /// When its program began to run.
        runs: Option<Time>,
        /// What it is waited for.
        watch: Watch,
    },
    /// It can serve.
    Ready {
        /// Since when.
        since: Time,
        /// What showed it.
        evidence: Evidence,
    },
    /// It is to stop, and serves on until the proxy in front sends it nothing more.
    Withdrawing {
        /// Since when.
        since: Time,
        /// When it is asked to stop in any case.
        deadline: Time,
    },
    /// It gets nothing new, and serves what it has.
    Emptying {
        /// Since when.
        since: Time,
        /// When it is asked to stop in any case.
        deadline: Time,
    },
    /// It has been asked to stop, or said that it will.
    Draining {
        /// Since when.
        since: Time,
        /// How many rungs of the ladder have been sent; 0 when it leaves by itself.
        sent: usize,
        /// When the next rung is due.
        deadline: Time,
    },
    /// Its main process has gone, others of its tree have until the deadline.
    Orphaned {
        /// Since when the stop is under way.
        since: Time,
        /// When they are killed.
        deadline: Time,
    },
    /// KILL was sent to all of its tree.
    Killed {
        /// Since when the stop is under way, or since the first KILL where nothing came before.
        since: Time,
        /// How often.
        rounds: u32,
        /// When it is sent again.
        deadline: Time,
    },
}

/// What an event changed, for the service that owns the worker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// It has just become ready.
    pub ready: Option<Evidence>,
    /// It no longer serves, or never will.
    pub ended: Option<Ending>,
    /// Its main process has gone and others live on: what is to be said of that.
    pub left_behind: Option<Notice>,
    /// No process of it is left.
    pub gone: bool,
}

/// How a worker came to its end without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// What happened.
    pub cause: Cause,
    /// Whether it had been ready.
    pub was_ready: bool,
    /// What it has used, where it exited and that is counted.
    pub used: Option<Used>,
}

/// Why a worker that was not asked to stop no longer serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Its program could not be run.
    SpawnFailed(SpawnFailure),
    /// Its main process exited.
    Exited(Exit),
    /// Nothing can be said to it any more, for this reason.
    ChannelBroken(String),
    /// It was not ready in time.
    Late {
        /// How long it had.
        after: Duration,
        /// What the last check of it saw, where there were checks.
        saw: Option<LastCheck>,
    },
    /// It said `STOPPING=1` by itself.
    Leaving,
}

/// What a worker needs to know around it.
pub struct Scene<'a> {
    /// What its service's author decided.
    pub policy: &'a Policy,
    /// How many workers of the service stand where.
    pub crowd: Tally,
    /// Where actions go.
    pub actions: &'a mut VecDeque<Action>,
}

impl Worker {
    /// A worker that has just been ordered.
    #[must_use]
    pub fn spawned(
        now: Time,
        id: WorkerId,
        slot: SlotId,
        generation: GenerationId,
        policy: &Policy,
    ) -> Worker {
        let state = WorkerState::Starting {
            since: now,
            deadline: now + policy.ready_timeout,
            runs: None,
            watch: Watch::NOTHING,
        };
        Worker {
            id,
            slot,
            generation,
            state,
            pid: None,
            said: None,
            wrapped: None,
            last_check: None,
            farewell: Farewell::None,
        }
    }

    /// Whether it is told to leave over its channel, and then finishes what it has: a program that asked
    /// for its sockets there.
    #[must_use]
    pub fn has_farewell(&self) -> bool {
        match self.farewell {
            Farewell::Owed | Farewell::Said => true,
            Farewell::None | Farewell::Heard => false,
        }
    }

    /// Whether it can serve.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match self.state {
            WorkerState::Ready { .. } => true,
            WorkerState::Starting { .. }
            | WorkerState::Withdrawing { .. }
            | WorkerState::Emptying { .. }
            | WorkerState::Draining { .. }
            | WorkerState::Orphaned { .. }
            | WorkerState::Killed { .. } => false,
        }
    }

    /// Whether it has not yet been seen able to serve, and may still be.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        match self.state {
            WorkerState::Starting { .. } => true,
            WorkerState::Ready { .. }
            | WorkerState::Withdrawing { .. }
            | WorkerState::Emptying { .. }
            | WorkerState::Draining { .. }
            | WorkerState::Orphaned { .. }
            | WorkerState::Killed { .. } => false,
        }
    }

    /// Whether its program does not run yet.
    #[must_use]
    pub fn is_launching(&self) -> bool {
        match self.state {
            WorkerState::Starting { runs, .. } => runs.is_none(),
            WorkerState::Ready { .. }
            | WorkerState::Withdrawing { .. }
            | WorkerState::Emptying { .. }
            | WorkerState::Draining { .. }
            | WorkerState::Orphaned { .. }
            | WorkerState::Killed { .. } => false,
        }
    }

    /// Whether a check of it is under way.
    #[must_use]
    pub fn is_checking(&self) -> bool {
        match &self.state {
            WorkerState::Starting { watch, .. } => watch.is_checking(),
            WorkerState::Ready { .. }
            | WorkerState::Withdrawing { .. }
            | WorkerState::Emptying { .. }
            | WorkerState::Draining { .. }
            | WorkerState::Orphaned { .. }
            | WorkerState::Killed { .. } => false,
        }
    }

    /// Whether it is on its way out, or what it left behind is.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        match self.state {
            WorkerState::Starting { .. } | WorkerState::Ready { .. } => false,
            WorkerState::Withdrawing { .. }
            | WorkerState::Emptying { .. }
            | WorkerState::Draining { .. }
            | WorkerState::Orphaned { .. }
            | WorkerState::Killed { .. } => true,
        }
    }

    /// Whether it is to stop and waits for a proxy.
    #[must_use]
    pub fn is_withdrawing(&self) -> bool {
        match self.state {
            WorkerState::Withdrawing { .. } => true,
            WorkerState::Starting { .. }
            | WorkerState::Ready { .. }
            | WorkerState::Emptying { .. }
            | WorkerState::Draining { .. }
            | WorkerState::Orphaned { .. }
            | WorkerState::Killed { .. } => false,
        }
    }

    /// Whether it gets nothing new and has not been asked to stop.
    #[must_use]
    pub fn is_emptying(&self) -> bool {
        match self.state {
            WorkerState::Emptying { .. } => true,
            WorkerState::Starting { .. }
            | WorkerState::Ready { .. }
            | WorkerState::Withdrawing { .. }
            | WorkerState::Draining { .. }
            | WorkerState::Orphaned { .. }
            | WorkerState::Killed { .. } => false,
        }
    }

    /// Since when it stands where users are told that it does: starting, ready or draining.
    #[must_use]
    pub fn since(&self) -> Time {
        match self.state {
            WorkerState::Starting { since, .. }
            | WorkerState::Ready { since, .. }
            | WorkerState::Withdrawing { since, .. }
            | WorkerState::Emptying { since, .. }
            | WorkerState::Draining { since, .. }
            | WorkerState::Orphaned { since, .. }
            | WorkerState::Killed { since, .. } => since,
        }
    }

    /// When it wants to be woken, and why.
    #[must_use]
    pub fn deadline(&self) -> Option<(Time, Why)> {
        match self.state {
            WorkerState::Starting { deadline, ref watch, .. } => {
                let probe = watch.probe.map(|(at, _)| (at, Why::Probe));
                let alive = watch.alive.as_ref().map(|&(at, _)| (at, Why::Alive));
                let check = match watch.check {
                    Some(CheckStep::Due { at, .. }) => Some((at, Why::Check)),
                    Some(CheckStep::UnderWay { until, .. }) => Some((until, Why::CheckTimeout)),
                    Some(CheckStep::Ending { .. }) | None => None,
                };
                let late = Some((deadline, Why::ReadyTimeout));
                earlier(late, earlier(check, earlier(probe, alive)))
            }
            WorkerState::Ready { .. } => None,
            WorkerState::Withdrawing { deadline, .. } => Some((deadline, Why::Withdraw)),
            WorkerState::Emptying { deadline, .. } => Some((deadline, Why::Empty)),
            WorkerState::Draining { deadline, .. } => Some((deadline, Why::Drain)),
            WorkerState::Orphaned { deadline, .. } => Some((deadline, Why::Orphans)),
            WorkerState::Killed { deadline, .. } => Some((deadline, Why::Kill)),
        }
    }

    /// What is known of a wrapper that keeps the sockets from their reader, once it is worth saying.
    /// A helper program that a start script runs looks the same for a moment.
    #[must_use]
    pub fn wrapper(&self, now: Time) -> Option<&Wrapped> {
        let (wrapped, looks) = self.wrapped.as_ref()?;
        let worth_saying = match self.state {
            WorkerState::Starting { runs, .. } => {
                runs.is_some_and(|runs| now.since(runs) >= WRAPPED_AFTER)
            }
            WorkerState::Ready { .. } => true,
            WorkerState::Withdrawing { .. }
            | WorkerState::Emptying { .. }
            | WorkerState::Draining { .. }
            | WorkerState::Orphaned { .. }
            | WorkerState::Killed { .. } => *looks >= WRAPPED_LOOKS,
        };
        worth_saying.then_some(wrapped)
    }

    /// Tells the worker what happened to it.
    pub fn handle_event(&mut self, now: Time, event: WorkerEvent, scene: &mut Scene<'_>) -> Change {
        // The answer to a check ends it.
        let answers = matches!(event, WorkerEvent::Checked(_));
        let checking = self.has_check_to_end() && !answers;
        let change = self.react(now, event, scene);
        if checking && !change.gone {
            self.end_check_of_the_past(scene);
        }
        change
    }

    fn react(&mut self, now: Time, event: WorkerEvent, scene: &mut Scene<'_>) -> Change {
        match event {
            WorkerEvent::Started { pid } => self.handle_started(now, pid, scene),
            WorkerEvent::SpawnFailed(failure) => self.handle_spawn_failed(failure),
            WorkerEvent::Exited { how, left, used } => {
                self.handle_exited(now, Exited { how, left, used }, scene)
            }
            WorkerEvent::TreeGone => self.handle_tree_gone(),
            WorkerEvent::SaidReady => self.handle_said_ready(now, scene),
            WorkerEvent::SaidStopping => self.handle_said_stopping(now, scene),
            WorkerEvent::SaidStatus(line) => {
                self.said = Some(line);
                Change::default()
            }
            WorkerEvent::SaidExtend(time) => {
                self.handle_said_extend(now, time.min(EXTEND_MAX));
                Change::default()
            }
            WorkerEvent::MainChanged { pid } => {
                self.pid = Some(pid);
                scene.notice(Notice::MainChanged { worker: self.name(scene), pid });
                Change::default()
            }
            WorkerEvent::Asked => {
                self.handle_asked();
                Change::default()
            }
            WorkerEvent::Listens => {
                let is_taken = scene.policy.ready.takes_sight();
                self.handle_evidence(now, Evidence::Listens, is_taken, scene)
            }
            WorkerEvent::SentReady => {
                let is_taken = scene.policy.ready.takes_message();
                self.handle_evidence(now, Evidence::SentReady, is_taken, scene)
            }
            WorkerEvent::ChannelEnded => {
                self.handle_channel_ended(now);
                Change::default()
            }
            WorkerEvent::ChannelBroken(reason) => self.handle_channel_broken(now, reason, scene),
            WorkerEvent::Probed(sight) => self.handle_probed(now, sight, scene),
            WorkerEvent::Checked(finding) => self.handle_checked(now, finding, scene),
        }
    }

    /// Lets the worker act on a deadline of its own that has come.
    pub fn handle_timeout(&mut self, now: Time, scene: &mut Scene<'_>) -> Change {
        match &mut self.state {
            WorkerState::Starting { since, deadline, watch, .. } => {
                if let Some((at, evidence)) = &watch.alive
                    && *at <= now
                {
                    let evidence = evidence.clone();
                    return self.become_ready(now, evidence, scene);
                }
                if *deadline <= now {
                    let after = now.since(*since);
                    let checking = watch.has_check_to_end();
                    let late = Cause::Late { after, saw: self.last_check.take() };
                    let change = Change::ended(late, WasReady::No);
                    // It has nothing to finish.
                    self.farewell = Farewell::None;
                    self.climb(now, now, 0, scene);
                    if checking {
                        self.end_check_of_the_past(scene);
                    }
                    return change;
                }
                match watch.check {
                    Some(CheckStep::Due { at, .. }) if at <= now => {
                        if watch.check(now, *deadline, scene.policy, scene.crowd) {
                            scene.actions.push_back(Action::Check(self.id));
                        }
                    }
                    Some(CheckStep::UnderWay { until, .. }) if until <= now => {
                        watch.end_check();
                        scene.actions.push_back(Action::EndCheck(self.id));
                    }
                    Some(
                        CheckStep::Due { .. }
                        | CheckStep::UnderWay { .. }
                        | CheckStep::Ending { .. },
                    )
                    | None => {}
                }
                if let Some((at, _)) = watch.probe
                    && at <= now
                {
                    watch.probed(now, scene.crowd.starting);
                    scene.actions.push_back(Action::Probe(self.id));
                }
                Change::default()
            }
            WorkerState::Ready { .. } => Change::default(),
            WorkerState::Withdrawing { deadline, .. } | WorkerState::Emptying { deadline, .. } => {
                if *deadline <= now {
                    self.stop(now, scene);
                }
                Change::default()
            }
            WorkerState::Draining { since, sent, deadline } => {
                if *deadline <= now {
                    let (since, sent) = (*since, *sent);
                    self.climb(now, since, sent, scene);
                }
                Change::default()
            }
            WorkerState::Orphaned { since, deadline } => {
                if *deadline <= now {
                    let since = *since;
                    self.kill_tree(now, since, scene);
                }
                Change::default()
            }
            WorkerState::Killed { since, rounds, deadline } => {
                if *deadline > now {
                    return Change::default();
                }
                if *rounds >= KILL_ROUNDS_MAX {
                    scene.notice(Notice::Unkillable { worker: self.name(scene) });
                    return Change { gone: true, ..Change::default() };
                }
                let (since, rounds) = (*since, *rounds);
                self.kill_again(now, since, rounds, scene);
                Change::default()
            }
        }
    }

    /// Asks the worker to stop, unless that has been done.
    pub fn stop(&mut self, now: Time, scene: &mut Scene<'_>) {
        let checking = self.has_check_to_end();
        match self.state {
            WorkerState::Starting { .. }
            | WorkerState::Ready { .. }
            | WorkerState::Withdrawing { .. }
            | WorkerState::Emptying { .. } => {
                let worker = self.name(scene);
                let (first, ladder) = (scene.policy.stop.first(), &scene.policy.stop);
                let signal = first.signal;
                scene.notice(match self.farewell {
                    Farewell::Owed => {
                        let kill_after = ladder.total_with_farewell();
                        let signal_after = first.wait;
                        Notice::Farewell { worker, signal, signal_after, kill_after }
                    }
                    Farewell::None | Farewell::Said | Farewell::Heard => {
                        Notice::WorkerStopping { worker, signal, kill_after: ladder.total() }
                    }
                });
                self.climb(now, now, 0, scene);
            }
            // What it was told counts until its time is over.
            WorkerState::Draining { sent: 0, .. } if self.farewell == Farewell::Said => {}
            WorkerState::Draining { since, sent: 0, .. } => self.climb(now, since, 0, scene),
            WorkerState::Draining { .. }
            | WorkerState::Orphaned { .. }
            | WorkerState::Killed { .. } => {}
        }
        if checking {
            self.end_check_of_the_past(scene);
        }
    }

    /// A ready worker is to stop, and is asked to by [`Worker::stop`] once the proxy in front sends it
    /// nothing more, or at `deadline`.
    pub fn withdraw(&mut self, now: Time, deadline: Time, scene: &mut Scene<'_>) {
        if self.is_ready() {
            scene.notice(Notice::Withdrawing { worker: self.name(scene) });
            self.state = WorkerState::Withdrawing { since: now, deadline };
        }
    }

    /// A worker that serves is to stop. It gets nothing new, and is asked to by [`Worker::stop`] once
    /// it has finished what it has, or at `deadline`.
    pub fn empty(&mut self, now: Time, deadline: Time, scene: &mut Scene<'_>) {
        match self.state {
            WorkerState::Ready { .. } | WorkerState::Withdrawing { .. } => {
                let longest = now.until(deadline);
                scene.notice(Notice::Emptying { worker: self.name(scene), longest });
                self.state = WorkerState::Emptying { since: now, deadline };
            }
            WorkerState::Starting { .. }
            | WorkerState::Emptying { .. }
            | WorkerState::Draining { .. }
            | WorkerState::Orphaned { .. }
            | WorkerState::Killed { .. } => {}
        }
    }

    /// Kills all of the worker's tree at once, unless that has been done.
    pub fn kill(&mut self, now: Time, scene: &mut Scene<'_>) {
        let checking = self.has_check_to_end();
        match self.state {
            WorkerState::Starting { since, .. }
            | WorkerState::Ready { since, .. }
            | WorkerState::Withdrawing { since, .. }
            | WorkerState::Emptying { since, .. } => {
                self.tell_of_kill(now, since, scene);
                self.kill_again(now, now, 0, scene);
            }
            WorkerState::Draining { since, .. } | WorkerState::Orphaned { since, .. } => {
                self.kill_tree(now, since, scene);
            }
            WorkerState::Killed { .. } => {}
        }
        if checking {
            self.end_check_of_the_past(scene);
        }
    }

    fn handle_started(&mut self, now: Time, pid: Pid, scene: &mut Scene<'_>) -> Change {
        self.pid = Some(pid);
        match &mut self.state {
            WorkerState::Starting { runs, watch, .. } => {
                *runs = Some(now);
                *watch = Watch::begin(now, scene.policy);
                if self.farewell == Farewell::Owed {
                    watch.will_tell();
                }
                scene.notice(Notice::Started {
                    worker: self.name(scene),
                    generation: self.generation,
                    pid,
                });
            }
            // Asked to stop while its program was being set up. HUP is dropped during that, every
            // other signal would have ended it, so HUP alone is sent again.
            WorkerState::Draining { sent, .. } => {
                let last = sent.checked_sub(1).and_then(|rung| scene.policy.stop.step(rung));
                if last.is_some_and(|step| step.signal == Signal::Hup) {
                    scene.actions.push_back(Action::Signal(self.id, Signal::Hup));
                }
            }
            WorkerState::Ready { .. }
            | WorkerState::Withdrawing { .. }
            | WorkerState::Emptying { .. }
            | WorkerState::Orphaned { .. }
            | WorkerState::Killed { .. } => {}
        }
        Change::default()
    }

    fn handle_spawn_failed(&mut self, failure: SpawnFailure) -> Change {
        let gone = Change { gone: true, ..Change::default() };
        match self.state {
            WorkerState::Starting { .. } => {
                Change { gone: true, ..Change::ended(Cause::SpawnFailed(failure), WasReady::No) }
            }
            // Asked to stop before its program ran: that it did not run is as good.
            WorkerState::Draining { .. } | WorkerState::Killed { .. } => gone,
            // It cannot be both ready and never started; should it, then its slot is free.
            WorkerState::Ready { .. } => {
                Change { gone: true, ..Change::ended(Cause::SpawnFailed(failure), WasReady::Yes) }
            }
            WorkerState::Withdrawing { .. }
            | WorkerState::Emptying { .. }
            | WorkerState::Orphaned { .. } => gone,
        }
    }

    fn handle_exited(&mut self, now: Time, exited: Exited, scene: &mut Scene<'_>) -> Change {
        let Exited { how, left, used } = exited;
        let mut change = match self.state {
            WorkerState::Starting { .. } => Change::ended(Cause::Exited(how), WasReady::No),
            WorkerState::Ready { .. } => Change::ended(Cause::Exited(how), WasReady::Yes),
            WorkerState::Withdrawing { since, .. }
            | WorkerState::Emptying { since, .. }
            | WorkerState::Draining { since, .. }
            | WorkerState::Orphaned { since, .. } => {
                let after = now.since(since);
                scene.notice(Notice::Drained { worker: self.name(scene), how, after, used });
                Change::default()
            }
            WorkerState::Killed { .. } => Change::default(),
        };
        if let Some(ending) = &mut change.ended {
            ending.used = used;
        }
        if left == 0 {
            change.gone = true;
            return change;
        }
        match self.state {
            WorkerState::Starting { .. }
            | WorkerState::Ready { .. }
            | WorkerState::Withdrawing { .. }
            | WorkerState::Emptying { .. } => {
                change.left_behind = Some(self.orphan(now, now, now + ORPHANS_WAIT, left, scene));
            }
            // What is left may be finishing requests: it gets the signal too, and the time that is
            // left of the whole ladder, or of this rung where that was begun late or extended.
            WorkerState::Draining { since, deadline, .. } => {
                let whole = since + scene.policy.stop.total();
                let deadline = deadline.max(whole).max(now + KILL_WAIT);
                change.left_behind = Some(self.orphan(now, since, deadline, left, scene));
            }
            WorkerState::Orphaned { .. } | WorkerState::Killed { .. } => {}
        }
        change
    }

    fn handle_tree_gone(&mut self) -> Change {
        let gone = Change { gone: true, ..Change::default() };
        match self.state {
            WorkerState::Orphaned { .. } | WorkerState::Killed { .. } => gone,
            // The tree is empty only after the main process has exited, so these cannot be; should
            // they, then nothing is left to wait for.
            WorkerState::Starting { .. } => {
                Change { gone: true, ..Change::ended(Cause::Exited(Exit::Unknown), WasReady::No) }
            }
            WorkerState::Ready { .. } => {
                Change { gone: true, ..Change::ended(Cause::Exited(Exit::Unknown), WasReady::Yes) }
            }
            WorkerState::Withdrawing { .. }
            | WorkerState::Emptying { .. }
            | WorkerState::Draining { .. } => gone,
        }
    }

    fn handle_said_ready(&mut self, now: Time, scene: &mut Scene<'_>) -> Change {
        match self.state {
            WorkerState::Starting { .. } if scene.policy.ready.takes_word() => {
                // Its word does not say on which socket: a wrapped one may serve on its own.
                if self.wrapped.take().is_some() {
                    scene.actions.push_back(Action::Probe(self.id));
                }
                self.become_ready(now, Evidence::Said, scene)
            }
            // Other evidence was asked for; said twice; said while leaving.
            WorkerState::Starting { .. }
            | WorkerState::Ready { .. }
            | WorkerState::Withdrawing { .. }
            | WorkerState::Emptying { .. }
            | WorkerState::Draining { .. }
            | WorkerState::Orphaned { .. }
            | WorkerState::Killed { .. } => Change::default(),
        }
    }

    fn handle_asked(&mut self) {
        match &mut self.state {
            WorkerState::Starting { watch, .. } => {
                self.farewell = Farewell::Owed;
                watch.will_tell();
            }
            WorkerState::Ready { .. }
            | WorkerState::Withdrawing { .. }
            | WorkerState::Emptying { .. } => self.farewell = Farewell::Owed,
            WorkerState::Draining { .. }
            | WorkerState::Orphaned { .. }
            | WorkerState::Killed { .. } => {}
        }
    }

    /// A worker that starts is ready by evidence that its service takes.
    fn handle_evidence(
        &mut self,
        now: Time,
        evidence: Evidence,
        is_taken: bool,
        scene: &mut Scene<'_>,
    ) -> Change {
        match self.state {
            WorkerState::Starting { .. } if is_taken => self.become_ready(now, evidence, scene),
            WorkerState::Starting { .. }
            | WorkerState::Ready { .. }
            | WorkerState::Withdrawing { .. }
            | WorkerState::Emptying { .. }
            | WorkerState::Draining { .. }
            | WorkerState::Orphaned { .. }
            | WorkerState::Killed { .. } => Change::default(),
        }
    }

    /// Nothing can be said to it over its channel any more.
    fn handle_channel_ended(&mut self, now: Time) {
        let was_told = self.farewell == Farewell::Said;
        self.farewell = if was_told { Farewell::Heard } else { Farewell::None };
        match &mut self.state {
            // It has finished, and exits, unless something keeps it.
            WorkerState::Draining { sent: 0, deadline, .. } if was_told => {
                *deadline = (*deadline).min(now + AFTER_CHANNEL);
            }
            WorkerState::Starting { .. }
            | WorkerState::Ready { .. }
            | WorkerState::Withdrawing { .. }
            | WorkerState::Emptying { .. }
            | WorkerState::Draining { .. }
            | WorkerState::Orphaned { .. }
            | WorkerState::Killed { .. } => {}
        }
    }

    fn handle_channel_broken(
        &mut self,
        now: Time,
        reason: String,
        scene: &mut Scene<'_>,
    ) -> Change {
        let was_ready = match self.state {
            WorkerState::Starting { .. } => WasReady::No,
            WorkerState::Ready { .. } => WasReady::Yes,
            // It is on its way out already.
            WorkerState::Withdrawing { .. }
            | WorkerState::Emptying { .. }
            | WorkerState::Draining { .. }
            | WorkerState::Orphaned { .. }
            | WorkerState::Killed { .. } => {
                self.handle_channel_ended(now);
                return Change::default();
            }
        };
        self.farewell = Farewell::None;
        self.climb(now, now, 0, scene);
        Change::ended(Cause::ChannelBroken(reason), was_ready)
    }

    fn handle_said_stopping(&mut self, now: Time, scene: &mut Scene<'_>) -> Change {
        let was_ready = match self.state {
            WorkerState::Starting { .. } => WasReady::No,
            WorkerState::Ready { .. } => WasReady::Yes,
            // It was to stop, and does so by itself: its slot is free already.
            WorkerState::Withdrawing { since, .. } | WorkerState::Emptying { since, .. } => {
                let deadline = now + scene.policy.stop.first().wait;
                self.farewell = Farewell::None;
                self.state = WorkerState::Draining { since, sent: 0, deadline };
                return Change::default();
            }
            WorkerState::Draining { .. }
            | WorkerState::Orphaned { .. }
            | WorkerState::Killed { .. } => return Change::default(),
        };
        let deadline = now + scene.policy.stop.first().wait;
        self.farewell = Farewell::None;
        self.state = WorkerState::Draining { since: now, sent: 0, deadline };
        Change::ended(Cause::Leaving, was_ready)
    }

    fn handle_said_extend(&mut self, now: Time, time: Duration) {
        match &mut self.state {
            WorkerState::Starting { deadline, .. }
            | WorkerState::Draining { deadline, .. }
            | WorkerState::Orphaned { deadline, .. } => *deadline = (*deadline).max(now + time),
            WorkerState::Ready { .. }
            | WorkerState::Withdrawing { .. }
            | WorkerState::Emptying { .. }
            | WorkerState::Killed { .. } => {}
        }
    }

    fn handle_probed(&mut self, now: Time, sight: Sight, scene: &mut Scene<'_>) -> Change {
        let looks = match (&self.wrapped, &sight.wrapped) {
            (Some((before, looks)), Some(seen)) if before.pid == seen.pid => looks + 1,
            (Some(_) | None, Some(_) | None) => 1,
        };
        self.wrapped = sight.wrapped.map(|wrapped| (wrapped, looks));
        match &mut self.state {
            WorkerState::Starting { watch, .. } => match sight.waiting {
                // One that asked for its sockets says when all of them listen.
                Waiting::Seen if self.farewell == Farewell::Owed => {}
                Waiting::Seen if scene.policy.ready.takes_sight() => {
                    return self.become_ready(now, Evidence::SeenWaiting, scene);
                }
                Waiting::Unreadable if self.farewell == Farewell::Owed => {}
                Waiting::Unreadable => watch.blind(now, scene.policy),
                Waiting::Seen | Waiting::NotSeen => {}
            },
            WorkerState::Ready { .. }
            | WorkerState::Withdrawing { .. }
            | WorkerState::Emptying { .. }
            | WorkerState::Draining { .. }
            | WorkerState::Orphaned { .. }
            | WorkerState::Killed { .. } => {}
        }
        Change::default()
    }

    fn handle_checked(&mut self, now: Time, finding: Finding, scene: &mut Scene<'_>) -> Change {
        match &mut self.state {
            WorkerState::Starting { watch, .. } => {
                let Some(check) = scene.policy.ready.check() else {
                    return Change::default();
                };
                if !watch.checked(now, scene.policy) {
                    return Change::default();
                }
                if let Some(evidence) = Evidence::from_check(check, &finding) {
                    return self.become_ready(now, evidence, scene);
                }
                self.last_check = Some(LastCheck { check: check.clone(), finding });
            }
            // Late news.
            WorkerState::Ready { .. }
            | WorkerState::Withdrawing { .. }
            | WorkerState::Emptying { .. }
            | WorkerState::Draining { .. }
            | WorkerState::Orphaned { .. }
            | WorkerState::Killed { .. } => {}
        }
        Change::default()
    }

    fn has_check_to_end(&self) -> bool {
        match &self.state {
            WorkerState::Starting { watch, .. } => watch.has_check_to_end(),
            WorkerState::Ready { .. }
            | WorkerState::Withdrawing { .. }
            | WorkerState::Emptying { .. }
            | WorkerState::Draining { .. }
            | WorkerState::Orphaned { .. }
            | WorkerState::Killed { .. } => false,
        }
    }

    /// A check was under way: where nobody waits for its answer any more, it ends.
    fn end_check_of_the_past(&self, scene: &mut Scene<'_>) {
        if !self.is_starting() {
            scene.actions.push_back(Action::EndCheck(self.id));
        }
    }

    fn become_ready(&mut self, now: Time, evidence: Evidence, scene: &mut Scene<'_>) -> Change {
        if let WorkerState::Starting { since, .. } = self.state {
            scene.notice(Notice::Ready {
                worker: self.name(scene),
                evidence: evidence.clone(),
                after: now.since(since),
            });
        }
        self.state = WorkerState::Ready { since: now, evidence: evidence.clone() };
        Change { ready: Some(evidence), ..Change::default() }
    }

    /// Sends the rung of the ladder after the first `sent`, or KILL when there is none. Before the first
    /// a worker with a channel is told to leave, and has the time of the first for that.
    fn climb(&mut self, now: Time, since: Time, sent: usize, scene: &mut Scene<'_>) {
        let was_told = match self.farewell {
            Farewell::Said | Farewell::Heard => true,
            Farewell::None | Farewell::Owed => false,
        };
        if self.farewell == Farewell::Owed && sent == 0 {
            self.farewell = Farewell::Said;
            scene.actions.push_back(Action::Disconnect(self.id));
            scene.actions.push_back(Action::Signal(self.id, Signal::Cont));
            let deadline = now + scene.policy.stop.first().wait;
            self.state = WorkerState::Draining { since, sent: 0, deadline };
            return;
        }
        self.farewell = Farewell::None;
        match scene.policy.stop.step(sent) {
            Some(step) => {
                scene.actions.push_back(Action::Signal(self.id, step.signal));
                // A stopped process does not see the signal before it is continued.
                scene.actions.push_back(Action::Signal(self.id, Signal::Cont));
                if sent > 0 || was_told {
                    let worker = self.name(scene);
                    let after = now.since(since);
                    scene.notice(Notice::NextSignal { worker, signal: step.signal, after });
                }
                let wait =
                    if was_told { scene.policy.stop.first_after_farewell() } else { step.wait };
                self.state = WorkerState::Draining { since, sent: sent + 1, deadline: now + wait };
            }
            None => self.kill_tree(now, since, scene),
        }
    }

    /// What is left of the tree is asked to stop until `deadline`. Returns what is to be said of it.
    fn orphan(
        &mut self,
        now: Time,
        since: Time,
        deadline: Time,
        left: u32,
        scene: &mut Scene<'_>,
    ) -> Notice {
        let signal = scene.policy.stop.first().signal;
        scene.actions.push_back(Action::SignalTree(self.id, signal));
        scene.actions.push_back(Action::SignalTree(self.id, Signal::Cont));
        let kill_after = now.until(deadline);
        self.state = WorkerState::Orphaned { since, deadline };
        Notice::LeftBehind { worker: self.name(scene), left, signal, kill_after }
    }

    fn kill_tree(&mut self, now: Time, since: Time, scene: &mut Scene<'_>) {
        self.tell_of_kill(now, since, scene);
        self.kill_again(now, since, 0, scene);
    }

    fn tell_of_kill(&self, now: Time, since: Time, scene: &mut Scene<'_>) {
        scene.notice(Notice::Killing { worker: self.name(scene), after: now.since(since) });
    }

    fn kill_again(&mut self, now: Time, since: Time, rounds: u32, scene: &mut Scene<'_>) {
        scene.actions.push_back(Action::KillTree(self.id));
        self.state = WorkerState::Killed { since, rounds: rounds + 1, deadline: now + KILL_WAIT };
    }

    fn name(&self, scene: &Scene<'_>) -> WorkerName {
        WorkerName { worker: self.id, service: scene.policy.name.clone(), slot: self.slot }
    }
}

impl Scene<'_> {
    fn notice(&mut self, notice: Notice) {
        self.actions.push_back(Action::Notice(notice));
    }
}

/// The end of a main process, as the event of that name tells it.
#[derive(Debug, Clone, Copy)]
struct Exited {
    how: Exit,
    left: u32,
    used: Option<Used>,
}

/// Whether a worker had been ready when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WasReady {
    Yes,
    No,
}

impl Change {
    fn ended(cause: Cause, was_ready: WasReady) -> Change {
        let was_ready = match was_ready {
            WasReady::Yes => true,
            WasReady::No => false,
        };
        Change { ended: Some(Ending { cause, was_ready, used: None }), ..Change::default() }
    }
}
