//! A service opens and closes the slots that have sockets of their own. When is decided in
//! [`crate::core::slots`].

use crate::core::action::Action;
use crate::core::ids::{MemberId, SlotId, SocketId};
use crate::core::notice::{Notice, SlotNotice};
use crate::core::policy::BoundMember;
use crate::core::repair::is_worth_telling;
use crate::core::time::Time;

use super::{Context, Service};

impl Service {
    /// A slot has the sockets that are its own. They are closed again where it is not wanted any
    /// more.
    pub fn handle_slot_bound(
        &mut self,
        slot: SlotId,
        members: Vec<(SocketId, BoundMember)>,
        context: &mut Context<'_>,
    ) {
        if !self.serves() {
            self.slots.closed(slot);
            let members = members.into_iter().map(|(_, bound)| bound.member);
            return context.actions.extend(members.map(Action::Close));
        }
        let names = members.iter().map(|(_, bound)| bound.name.clone()).collect();
        let service = self.policy.name.clone();
        context.notice(Notice::Slot { service, slot, what: SlotNotice::Bound { names } });
        self.sockets.open_slot(slot, members);
        self.slots.bound(slot);
    }

    /// A slot could not get its sockets: it stays empty, and that is tried again.
    pub fn handle_slot_not_bound(
        &mut self,
        now: Time,
        slot: SlotId,
        reason: String,
        context: &mut Context<'_>,
    ) {
        if !self.serves() {
            return self.slots.closed(slot);
        }
        let (pause, failures) = self.slots.failed(now, slot, context.random);
        if is_worth_telling(failures) {
            let service = self.policy.name.clone();
            let what = SlotNotice::NotBound { reason, pause };
            context.notice(Notice::Slot { service, slot, what });
        }
    }

    /// Has the sockets bound that wanted slots lack.
    pub(super) fn bind_slots(&mut self, now: Time, context: &mut Context<'_>) {
        for slot in self.slots.take_due(now, self.slots_wanted()) {
            let number = |&socket: &SocketId| {
                *context.last_member += 1;
                (socket, MemberId(*context.last_member))
            };
            let members = self.slots.sockets().iter().map(number).collect();
            let service = self.policy.service;
            context.actions.push_back(Action::BindSlot { service, slot, members });
        }
    }

    /// Closes the sockets of slots that are not wanted, once the last worker that had them is gone.
    pub(super) fn close_slots(&mut self, context: &mut Context<'_>) {
        for slot in self.slots.surplus(self.slots_wanted()) {
            if self.workers.iter().all(|worker| worker.slot != slot) {
                self.slots.closed(slot);
                let members = self.sockets.close_slot(slot).into_iter();
                context.actions.extend(members.map(Action::Close));
            }
        }
    }
}
