//! The account of the sockets that workers share: what each should be like, and when it may be
//! touched.

use std::collections::BTreeMap;

use shepherd::core::Action;
use shepherd::core::event::{Event, Mode, SocketEvent};
use shepherd::core::ids::{MemberId, ServiceId, WorkerId};
use shepherd::core::notice::{Notice, SocketNotice};
use shepherd::core::policy::Policy;

use crate::fake_sockets::FakeSockets;
use crate::invariants::{Violation, ensure};
use crate::ledger::{Ledger, Standing, Stop, Turn};
use crate::world::Input;

/// The account of one kernel socket.
pub(crate) struct MemberBook {
    service: ServiceId,
    /// How the serving generation's first ready worker left it, and the rolling one's.
    serving: Option<Mode>,
    rolling: Option<Mode>,
    /// It was looked at, and what was found has not been compared yet.
    looked_at: bool,
}

impl MemberBook {
    pub(crate) fn of(policies: &[Policy]) -> BTreeMap<MemberId, MemberBook> {
        let books = policies.iter().flat_map(|policy| {
            let service = policy.service;
            policy.sockets.iter().map(move |socket| {
                let book = MemberBook { service, serving: None, rolling: None, looked_at: false };
                (MemberId(socket.id.0), book)
            })
        });
        books.collect()
    }
}

impl Ledger {
    pub(crate) fn learn_socket(&mut self, member: MemberId, event: &SocketEvent) {
        let Some(account) = self.members.get_mut(&member) else {
            return;
        };
        match event {
            SocketEvent::Inspected { by, state } => {
                account.looked_at = true;
                let book = &self.books[&account.service];
                let ready = by
                    .and_then(|by| self.workers.get(&by))
                    .filter(|record| record.stage == Standing::Ready);
                let Some(record) = ready else { return };
                if record.generation == book.serving {
                    account.serving.get_or_insert(state.mode);
                } else if book.rolling.is_some_and(|(rolling, _)| rolling == record.generation) {
                    account.rolling.get_or_insert(state.mode);
                }
            }
        }
    }

    pub(crate) fn commit_modes(&mut self, service: ServiceId) {
        for account in self.members.values_mut().filter(|account| account.service == service) {
            account.serving = account.rolling.take();
        }
    }

    pub(crate) fn abort_modes(&mut self, service: ServiceId) {
        for account in self.members.values_mut().filter(|account| account.service == service) {
            account.rolling = None;
        }
    }

    pub(crate) fn check_socket_action(
        &self,
        turn: &mut Turn<'_>,
        action: &Action,
    ) -> Result<(), Violation> {
        let looked_at = |member: MemberId| match turn.input {
            Input::Event(Event::Socket(looked_at, SocketEvent::Inspected { .. })) => {
                *looked_at == member
            }
            Input::Event(_) | Input::Start | Input::Timeout => false,
        };
        match *action {
            Action::Inspect { member, by } => {
                ensure!(self.stop == Stop::No, "S20: {action:?} after a stop");
                turn.inspected.push((member, by));
            }
            Action::Listen(member) => {
                ensure!(looked_at(member), "S20: {action:?} without a look");
            }
            Action::SetMode(member, mode) => {
                let account = self.members.get(&member).ok_or("S20: no such socket")?;
                let commits = turn.commits.contains_key(&account.service);
                ensure!(commits || looked_at(member), "S20: {action:?} without a look");
                ensure!(
                    account.serving == Some(mode),
                    "S20: {action:?}, but: {:?}",
                    account.serving
                );
            }
            _ => {}
        }
        Ok(())
    }

    pub(crate) fn check_socket_notice(&mut self, what: &SocketNotice) {
        self.saw(match what {
            SocketNotice::Backlog { .. } => "a backlog set back",
            SocketNotice::Mode { .. } => "a mode set back",
            SocketNotice::ModePostponed { .. } => "a mode postponed",
        });
    }

    /// Whoever became ready or ended in this turn had its sockets looked at, and nobody else.
    pub(crate) fn check_looks(&self, turn: &Turn<'_>, actions: &[Action]) -> Result<(), Violation> {
        let mut due: Vec<(MemberId, Option<WorkerId>)> = Vec::new();
        for action in actions {
            let (name, by) = match action {
                Action::Notice(Notice::Ready { worker, .. }) => (worker, Some(worker.worker)),
                Action::Notice(Notice::Ended { worker, .. }) => (worker, None),
                _ => continue,
            };
            let service = self.workers.get(&name.worker).map(|record| record.service);
            let members = self.members.iter().filter(|(_, book)| Some(book.service) == service);
            due.extend(members.map(|(&member, _)| (member, by)));
        }
        let mut inspected = turn.inspected.clone();
        due.sort_unstable();
        inspected.sort_unstable();
        ensure!(
            due == inspected || self.stop != Stop::No,
            "S20: {inspected:?} are looked at instead of {due:?}"
        );
        Ok(())
    }

    /// After everything was performed: what was looked at is as it should be.
    pub(crate) fn check_sockets(&mut self, sockets: &FakeSockets) -> Result<(), Violation> {
        for (&member, account) in &mut self.members {
            let Some(socket) = sockets.get(member) else { continue };
            if !std::mem::take(&mut account.looked_at) {
                continue;
            }
            ensure!(socket.has_its_backlog(), "S20: {member} was looked at and is {socket:?}");
            let right = account.serving.is_none_or(|mode| mode == socket.mode);
            ensure!(right, "S20: {member} is {socket:?} and not {:?}", account.serving);
        }
        Ok(())
    }
}
