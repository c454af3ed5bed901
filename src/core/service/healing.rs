//! A service sees to its sockets: it has them looked at, and undoes what somebody did to them.
//! What each should be like is decided in [`crate::core::sockets`].

use std::collections::VecDeque;

use crate::core::action::Action;
use crate::core::event::{SocketEvent, SocketState};
use crate::core::ids::{MemberId, WorkerId};
use crate::core::notice::{Notice, SocketNotice, Suspects, WorkerName};
use crate::core::sockets::{Findings, ModeNews, Occasion};
use crate::core::worker::Worker;

use super::Service;

impl Service {
    /// Whether this socket is one of ours.
    #[must_use]
    pub fn has_member(&self, member: MemberId) -> bool {
        self.sockets.has(member)
    }

    /// Something happened to one of its sockets.
    pub fn handle_socket(
        &mut self,
        member: MemberId,
        event: &SocketEvent,
        actions: &mut VecDeque<Action>,
    ) {
        match event {
            &SocketEvent::Inspected { by, state } => {
                // Only one that serves or is about to has a say; it may have gone meanwhile.
                let by = by.and_then(|by| self.workers.get(by)).filter(|worker| worker.is_ready());
                let occasion = by.map_or(Occasion::Other, |worker| self.occasion(worker));
                let name = by.map(|worker| self.name_of(worker));
                let serving = self.serving.generation;
                let found = self.sockets.inspected(member, occasion, serving, state);
                self.undo(member, found, name.as_ref(), state, actions);
            }
        }
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
