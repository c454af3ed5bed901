//! What services do together for one request: those that are bound to a service stop before it, and
//! start again after it. Which ones, and whose turn it is, [`dependencies`](crate::core::dependencies)
//! says; here is what one of them knows and does.

use std::collections::BTreeSet;

use crate::core::fleet::Fleet;
use crate::core::ids::{GenerationId, RequestId, ServiceId};
use crate::core::notice::LifeNotice;
use crate::core::refusal::{Operation, Refusal};
use crate::core::request::End;
use crate::core::time::Time;

use super::life::{Life, Reading, Then, Turn};
use super::{Context, FirstStart, Past, Service};

/// A restart whose definition is being read, or is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reread {
    /// Who asked for it: what is restarted for one request is restarted when all of it is read.
    pub request: RequestId,
    /// The definition.
    pub generation: GenerationId,
    /// Whether it is read.
    pub is_over: bool,
}

impl Service {
    /// The services that it stops and starts with: as it is, or is to be where it is stopped.
    #[must_use]
    pub fn bound_to(&self) -> &BTreeSet<ServiceId> {
        let policy = match self.life {
            Life::Up
            | Life::Rereading(..)
            | Life::Stopping { then: Then::Serve(_), .. }
            | Life::Reviving(..) => &self.policy,
            Life::Stopping { then: Then::Stay | Then::Start(_), .. } | Life::Stopped => {
                self.next.as_ref().unwrap_or(&self.policy)
            }
        };
        &policy.bind_to
    }

    /// Whether it is stopped, or to be, because one that it is bound to is: it starts again with that.
    #[must_use]
    pub fn starts_with_others(&self) -> bool {
        self.stopped_with.is_some() && !self.is_to_serve()
    }

    /// It goes along with another service of this name that it is bound to.
    pub fn go_along(&mut self, what: Operation, other: &str, context: &mut Context<'_>) {
        self.tell_life(LifeNotice::Along { what, other: other.to_owned() }, context);
    }

    /// It is to stop, and stay so until the service of this name is started, which it is bound to.
    pub fn stop_with(
        &mut self,
        now: Time,
        request: Option<RequestId>,
        other: &str,
        context: &mut Context<'_>,
    ) {
        self.stopped_with = Some(other.to_owned());
        self.go_along(Operation::Stop, other, context);
        self.go_down(now, request.into_iter().collect(), context);
    }

    /// The restart whose definition is being read, or is, while it serves.
    #[must_use]
    pub fn rereads(&self) -> Option<Reread> {
        let Life::Rereading(coming, reading) = &self.life else { return None };
        let (generation, is_over) = (coming.generation, *reading == Reading::Over);
        coming.requests.first().map(|&request| Reread { request, generation, is_over })
    }

    /// All that are restarted together are read: it is to stop.
    pub fn begin_restart(&mut self) {
        self.life = match std::mem::replace(&mut self.life, Life::Up) {
            Life::Rereading(coming, _) => {
                self.waits_for.clear();
                let (stops, then) = (Vec::new(), Then::Serve(coming));
                Life::Stopping { turn: Turn::Later { told: false }, stops, then }
            }
            life @ (Life::Up | Life::Stopping { .. } | Life::Stopped | Life::Reviving(..)) => life,
        };
    }

    /// The definition of one that is restarted with it cannot be read: it serves on.
    pub fn give_up_restart(&mut self, other: &str, why: &Refusal, context: &mut Context<'_>) {
        match std::mem::replace(&mut self.life, Life::Up) {
            Life::Rereading(coming, _) => {
                let reason = format!("`{other}` cannot be restarted with it");
                self.tell_life(LifeNotice::RestartAborted { reason }, context);
                self.respond(coming.requests, &End::Refused(why.clone()), context);
            }
            life @ (Life::Up | Life::Stopping { .. } | Life::Stopped | Life::Reviving(..)) => {
                self.life = life;
            }
        }
    }

    /// Whether it is to stop, and serves until those have gone that need it and are to stop too.
    #[must_use]
    pub fn awaits_turn(&self) -> bool {
        matches!(self.life, Life::Stopping { turn: Turn::Later { .. }, .. })
    }

    /// Whether it is to stop and has workers, or may have: those that it needs wait for it.
    #[must_use]
    pub fn goes_down(&self) -> bool {
        let is_asked = self.stopping || matches!(self.life, Life::Stopping { .. });
        self.awaits_turn() || is_asked && !self.workers.is_empty()
    }

    /// Its workers are asked to stop from here on.
    pub fn take_turn(&mut self, now: Time, context: &mut Context<'_>) {
        self.end_reload(now, context);
        // All that are left go.
        self.reload = None;
        let (workers, kill_after) = (self.workers.len(), self.stop_takes());
        let Life::Stopping { turn, then, .. } = &mut self.life else { return };
        *turn = Turn::Come;
        if let Then::Serve(coming) = then {
            // Who waits for it to serve waits for what comes.
            coming.requests.append(&mut self.starters);
            self.sockets.begin_anew();
            self.tell_life(LifeNotice::Restarting { workers, kill_after }, context);
        } else {
            self.close_sockets(context);
            self.tell_life(LifeNotice::Stopping { workers, kill_after }, context);
            self.past = Past::HasComeUp;
        }
        self.serving = Fleet::new(self.serving.generation);
        self.first_start = FirstStart::UnderWay;
        (self.failures, self.failing) = (0, false);
        for id in self.workers.ids() {
            self.ask_stop(now, id, context);
        }
    }

    /// Its turn comes when these have gone.
    pub fn tell_turn(&mut self, others: Vec<String>, context: &mut Context<'_>) {
        if let Life::Stopping { turn: Turn::Later { told }, .. } = &mut self.life
            && !std::mem::replace(told, true)
        {
            self.tell_life(LifeNotice::StopsAfter { others }, context);
        }
    }
}
