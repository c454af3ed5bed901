//! A service sees to its sockets: it has them looked at, and undoes what somebody did to them.
//! What each should be like is decided in [`crate::core::sockets`].

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::core::action::Action;
use crate::core::event::{Backlog, Grip, Repair, SocketEvent, SocketState};
use crate::core::ids::{GenerationId, MemberId, WorkerId};
use crate::core::notice::{Notice, SocketNotice, Suspects, WorkerName};
use crate::core::repair::{Health, Step};
use crate::core::restart::{Random, backoff};
use crate::core::sockets::{Findings, ModeNews, Occasion, Recipient};
use crate::core::suspicion::{Holder, Suspicion};
use crate::core::time::{Time, Why};
use crate::core::worker::Worker;

use super::{Context, Service};

impl Service {
    /// Whether this socket is one of ours.
    #[must_use]
    pub fn has_member(&self, member: MemberId) -> bool {
        self.sockets.has(member)
    }

    /// Something happened to one of its sockets.
    pub fn handle_socket(
        &mut self,
        now: Time,
        member: MemberId,
        event: SocketEvent,
        context: &mut Context<'_>,
    ) {
        if self.stopping {
            // Its workers have it until they are gone, and nobody else will.
            if let SocketEvent::Renewed { to } = event {
                context.actions.push_back(Action::Close(to));
            }
            return;
        }
        match event {
            SocketEvent::Inspected { by, state } => {
                // Only one that serves or is about to has a say, and only on a socket that it has;
                // it may have gone meanwhile.
                let by = by.and_then(|by| self.workers.get(by)).filter(|worker| {
                    worker.is_ready() && self.sockets.was_given(member, recipient(worker))
                });
                let occasion = by.map_or(Occasion::Other, |worker| self.occasion(worker));
                let name = by.map(|worker| self.name_of(worker));
                let serving = self.serving.generation;
                let mut found = self.sockets.inspected(member, occasion, serving, state);
                found.listen &= state.backlog != Backlog::Unseen || !self.is_over(member);
                found.listen &= !self.sockets.is_refusing(member);
                if found.listen {
                    // One that was shut down is back by it, whatever it waits for.
                    self.sockets.listens_again(member);
                }
                self.undo(member, found, name.as_ref(), state, context.actions);
            }
            // It was us.
            SocketEvent::ShutDown(_) if self.sockets.is_refusing(member) => {}
            SocketEvent::ShutDown(repair) => {
                self.sockets.left(member);
                // When it listens again, nothing finds it that is meant for another.
                self.steer(context);
                // Only workers that stop have it: to listen again would change the order for nothing.
                if self.is_over(member) {
                    return;
                }
                // One that waits for its repair, or gets none, is found shut down at each look.
                if self.broken(now, member, repair, context) != Step::Nothing {
                    self.suspect(now, member, repair);
                }
            }
            SocketEvent::PathGone => {
                let step = self.broken(now, member, Repair::Bind, context);
                let Some(health) = self.sockets.health(member) else {
                    return;
                };
                if step != Step::Nothing && health.take_news() {
                    let pause = pause(now, health);
                    self.tell(member, SocketNotice::PathGone { pause }, context);
                }
            }
            SocketEvent::Renewed { to } => {
                let last = WorkerId(*context.last_worker);
                self.sockets.renewed(member, to, last);
                context.actions.push_back(Action::Close(member));
                self.refresh_from = now;
                self.tell(to, SocketNotice::Renewed, context);
            }
            SocketEvent::Back => {
                if let Some(health) = self.sockets.health(member) {
                    health.whole();
                }
                self.tell(member, SocketNotice::Back, context);
            }
            SocketEvent::RepairFailed { repair, reason, again } => {
                if repair == Repair::Listen {
                    self.sockets.does_not_listen(member);
                }
                let Some(health) = self.sockets.health(member) else {
                    return;
                };
                let Some(pause) = health.failed(now, repair, again) else {
                    return;
                };
                if health.failure_is_worth_telling() {
                    let what = SocketNotice::RepairFailed { repair, reason, pause, again };
                    self.tell(member, what, context);
                }
            }
            SocketEvent::Listens => self.sockets.listens(member),
            SocketEvent::Held(grips) => self.conclude(now, member, &grips, context),
        }
    }

    /// These were closed, whosever they were.
    pub fn handle_closed(&mut self, members: &[MemberId]) {
        self.sockets.closed(members);
    }

    /// What happened to one that is being closed, if it is one of ours: the order of its group is known
    /// by it.
    pub fn handle_late(&mut self, member: MemberId, event: &SocketEvent) {
        match event {
            SocketEvent::ShutDown(_) => self.sockets.left(member),
            SocketEvent::Listens => self.sockets.listens(member),
            SocketEvent::RepairFailed { repair: Repair::Listen, .. } => {
                self.sockets.does_not_listen(member);
            }
            SocketEvent::RepairFailed { repair: Repair::Bind, .. }
            | SocketEvent::Inspected { .. }
            | SocketEvent::PathGone
            | SocketEvent::Renewed { .. }
            | SocketEvent::Back
            | SocketEvent::Held(_) => {}
        }
    }

    /// Whether a socket is a generation's alone that neither serves nor is to.
    fn is_over(&self, member: MemberId) -> bool {
        let own = self.sockets.generation_of(member);
        own.is_some_and(|own| !self.current_roots().contains(&own))
    }

    /// The generations whose members those have that serve or are to.
    pub(super) fn current_roots(&self) -> BTreeSet<GenerationId> {
        let reload = self.reload.as_ref().map(|reload| reload.generation);
        let current = [Some(self.serving.generation), reload, self.life.generation()];
        current.into_iter().flatten().map(|generation| self.sockets.root(generation)).collect()
    }

    /// Has the sockets of a worker looked at: it became ready (`by` is itself), or it ended.
    pub(super) fn inspect(
        &self,
        worker: WorkerId,
        by: Option<WorkerId>,
        actions: &mut VecDeque<Action>,
    ) {
        let Some(worker) = self.workers.get(worker) else {
            return;
        };
        let members = self.sockets.members_for(worker.generation, worker.slot);
        actions.extend(members.into_iter().map(|member| Action::Inspect { member, by }));
    }

    /// When it wants to be woken for its sockets.
    pub(super) fn sockets_deadline(&self) -> Option<(Time, Why)> {
        let refresh = (self.has_stale() && self.may_refresh()).then_some(self.refresh_from);
        let at = [self.sockets.deadline(), self.slots_deadline(), refresh]
            .into_iter()
            .flatten()
            .min()?;
        Some((at, Why::Socket))
    }

    /// Acts on what is due: repairs, and looks at those who may have broken something.
    pub(super) fn sockets_timeout(&mut self, now: Time, context: &mut Context<'_>) {
        if self.stopping {
            return;
        }
        for member in self.sockets.ids() {
            if let Some(repair) =
                self.sockets.health(member).and_then(|health| health.take_due(now))
                && !self.sockets.is_refusing(member)
            {
                self.repair_member(member, repair, context);
            }
            let Some(Some(suspicion)) = self.sockets.suspicion(member) else {
                continue;
            };
            if suspicion.look_at.is_some_and(|at| at <= now) {
                suspicion.look_at = None;
                let given = suspicion.given;
                let suspects: Vec<WorkerId> = suspicion.workers().collect();
                let workers = suspects.into_iter().filter(|&id| self.workers.get(id).is_some());
                let workers = workers.collect();
                context.actions.push_back(Action::FindHolders { member, given, workers });
            }
        }
    }

    /// What an operator had to see to first is tried again, before any new worker starts.
    pub(super) fn retry_lost(&mut self, context: &mut Context<'_>) {
        for member in self.sockets.ids() {
            if let Some(repair) = self.sockets.health(member).and_then(Health::take_lost) {
                self.repair_member(member, repair, context);
            }
        }
    }

    fn may_refresh(&self) -> bool {
        self.reload.is_none() && self.may_reload()
    }

    /// Whether a replacement of workers with stale sockets may begin.
    pub(super) fn is_refresh_due(&self, now: Time) -> bool {
        self.has_stale() && self.refresh_from <= now
    }

    /// One failed: when the next may begin.
    pub(super) fn postpone_refresh(&mut self, now: Time, random: &mut Random) -> Duration {
        self.refresh_failures = self.refresh_failures.saturating_add(1);
        let pause = backoff(self.refresh_failures, random);
        self.refresh_from = now + pause;
        pause
    }

    fn has_stale(&self) -> bool {
        let with_slot = |id| self.workers.get(id).map(recipient);
        self.sockets.has_stale(self.serving.workers().filter_map(with_slot))
    }

    fn broken(
        &mut self,
        now: Time,
        member: MemberId,
        repair: Repair,
        context: &mut Context<'_>,
    ) -> Step {
        let Some(health) = self.sockets.health(member) else {
            return Step::Nothing;
        };
        let step = health.broken(now, repair);
        if step == Step::Repair {
            self.repair_member(member, repair, context);
        }
        step
    }

    /// Notes who holds a socket that was shut down just now.
    fn suspect(&mut self, now: Time, member: MemberId, repair: Repair) {
        let holders: Vec<Holder> = self
            .workers
            .iter()
            .filter(|worker| {
                !worker.is_launching() && self.sockets.was_given(member, recipient(worker))
            })
            .map(|worker| Holder { name: self.name_of(worker), leaving: worker.is_leaving() })
            .collect();
        if let Some(suspicion) = self.sockets.suspicion(member) {
            let suspicion = suspicion.get_or_insert_with(|| Suspicion::new(now, member, repair));
            suspicion.happened(holders.into_iter());
        }
    }

    /// Those who may have shut a socket down were looked at: tells of it.
    fn conclude(
        &mut self,
        now: Time,
        member: MemberId,
        grips: &[(WorkerId, Grip)],
        context: &mut Context<'_>,
    ) {
        let Some(suspicion) = self.sockets.suspicion(member).and_then(Option::take) else {
            return;
        };
        let (times, repair) = (suspicion.times, suspicion.repair);
        let workers = suspicion.conclude(grips);
        let Some(health) = self.sockets.health(member) else {
            return;
        };
        if health.take_news() {
            let by = Suspects { service: self.policy.name.clone(), workers };
            let pause = pause(now, health);
            self.tell(member, SocketNotice::ShutDown { by, times, repair, pause }, context);
        }
    }

    fn repair_member(&mut self, member: MemberId, repair: Repair, context: &mut Context<'_>) {
        context.actions.push_back(match repair {
            Repair::Listen => {
                self.sockets.listens_again(member);
                Action::Listen(member)
            }
            Repair::Bind => {
                *context.last_member += 1;
                Action::Renew { from: member, to: MemberId(*context.last_member) }
            }
        });
    }

    fn tell(&self, member: MemberId, what: SocketNotice, context: &mut Context<'_>) {
        let socket = self.sockets.name(member);
        context.notice(Notice::Socket { socket, what });
    }

    /// The reload's generation serves from here on, and with it its choice of blocking or not.
    pub(super) fn adopt_modes(&mut self, actions: &mut VecDeque<Action>) {
        let changed = self.sockets.commit().into_iter();
        actions.extend(changed.map(|(member, mode)| Action::SetMode(member, mode)));
    }

    /// Puts back what was found changed, and tells of it.
    fn undo(
        &self,
        member: MemberId,
        found: Findings,
        by: Option<&WorkerName>,
        state: SocketState,
        actions: &mut VecDeque<Action>,
    ) {
        let Findings { listen, tell_backlog, set_mode } = found;
        if listen {
            actions.push_back(Action::Listen(member));
        }
        if let Some((mode, _)) = set_mode {
            actions.push_back(Action::SetMode(member, mode));
        }
        let suspects = || Suspects {
            service: self.policy.name.clone(),
            workers: by.into_iter().cloned().collect(),
        };
        let to = state.mode;
        let mode = match (set_mode, by) {
            (Some((from, ModeNews::Broken)), _) => {
                let serving = self.serving.generation;
                Some(SocketNotice::Mode { by: suspects(), to, from, serving })
            }
            (Some((from, ModeNews::Postponed)), Some(by)) => {
                Some(SocketNotice::ModePostponed { by: by.clone(), to, from })
            }
            (Some((_, ModeNews::Postponed | ModeNews::Known)) | None, _) => None,
        };
        let backlog =
            tell_backlog.map(|(to, from)| SocketNotice::Backlog { by: suspects(), to, from });
        let notices = backlog.into_iter().chain(mode);
        let socket = self.sockets.name(member);
        actions.extend(
            notices.map(|what| Action::Notice(Notice::Socket { socket: socket.clone(), what })),
        );
    }

    fn occasion(&self, worker: &Worker) -> Occasion {
        let rolling = self.rolling().map(|fleet| fleet.generation);
        if worker.generation == self.serving.generation {
            Occasion::Serving(worker.generation)
        } else if rolling == Some(worker.generation) {
            Occasion::Rolling(worker.generation)
        } else {
            Occasion::Other
        }
    }

    fn name_of(&self, worker: &Worker) -> WorkerName {
        let service = self.policy.name.clone();
        WorkerName { worker: worker.id, service, slot: worker.slot }
    }
}

/// How long it is until the next repair, and how many there have been.
fn pause(now: Time, health: &Health) -> Option<(Duration, u32)> {
    health.deadline().map(|at| (now.until(at), health.count()))
}

/// A worker as one that is given sockets.
fn recipient(worker: &Worker) -> Recipient {
    Recipient { worker: worker.id, slot: worker.slot, generation: worker.generation }
}

#[cfg(test)]
mod tests;
