//! A service opens and closes the slots that have sockets of their own: over all generations, where
//! each has an address of its own, or in one generation. When is decided in [`crate::core::slots`].

use std::collections::{BTreeMap, BTreeSet};

use crate::core::action::{Action, NewMember};
use crate::core::ids::{GenerationId, MemberId, SlotId, SocketId};
use crate::core::notice::{Notice, SlotNotice};
use crate::core::policy::BoundMember;
use crate::core::repair::is_worth_telling;
use crate::core::slots::SlotSockets;
use crate::core::time::Time;
use crate::core::worker::Worker;

use super::{Context, Service};

impl Service {
    /// A slot has the sockets that are its own. They are closed again where it is not wanted any
    /// more.
    pub fn handle_slot_bound(
        &mut self,
        of: Option<GenerationId>,
        slot: SlotId,
        members: Vec<(SocketId, BoundMember)>,
        context: &mut Context<'_>,
    ) {
        let serves = self.serves();
        let Some(slots) = self.slots_of(of).filter(|_| serves) else {
            self.slot_is_closed(of, slot);
            let members = members.into_iter().map(|(_, bound)| bound.member).collect();
            return context.actions.extend(self.sockets.discard_slot(of, slot, members));
        };
        slots.bound(slot);
        if of.is_none() {
            let names = members.iter().map(|(_, bound)| bound.name.clone()).collect();
            let service = self.policy.name.clone();
            context.notice(Notice::Slot { service, slot, what: SlotNotice::Bound { names } });
        }
        self.sockets.open_slot(of, slot, members);
    }

    /// A slot could not get its sockets: it stays empty, and that is tried again.
    pub fn handle_slot_not_bound(
        &mut self,
        now: Time,
        of: Option<GenerationId>,
        slot: SlotId,
        reason: String,
        context: &mut Context<'_>,
    ) {
        self.sockets.slot_not_bound(of, slot);
        let serves = self.serves();
        let Some(slots) = self.slots_of(of).filter(|_| serves) else {
            return self.slot_is_closed(of, slot);
        };
        let (pause, failures) = slots.failed(now, slot, context.random);
        if is_worth_telling(failures) {
            let service = self.policy.name.clone();
            let what = SlotNotice::NotBound { reason, pause };
            context.notice(Notice::Slot { service, slot, what });
        }
    }

    /// Has the sockets bound that wanted slots lack.
    pub(super) fn bind_slots(&mut self, now: Time, context: &mut Context<'_>) {
        let rolling = self.rolling().map(|fleet| fleet.generation);
        let serving = self.sockets.root(self.serving.generation);
        let mut wanted =
            BTreeMap::from([(None, self.slots_wanted()), (Some(serving), self.wanted)]);
        if let Some(rolling) = rolling.map(|rolling| self.sockets.root(rolling)) {
            let most = wanted.entry(Some(rolling)).or_default();
            *most = self.wanted_next().max(*most);
        }
        for (of, wanted) in wanted {
            let service = self.policy.service;
            let Some(slots) = self.slots_of(of) else { continue };
            let due = slots.take_due(now, wanted);
            let sockets = slots.sockets().to_vec();
            if !due.is_empty() {
                self.accept_again(context);
            }
            for slot in due {
                let number = |&socket: &SocketId| {
                    *context.last_member += 1;
                    (socket, MemberId(*context.last_member))
                };
                let members: Vec<(SocketId, MemberId)> = sockets.iter().map(number).collect();
                let new = |&(socket, member)| NewMember { socket, slot: Some(slot), member };
                let new: Vec<NewMember> = members.iter().map(new).collect();
                self.sockets.ask_slot(of, slot, &new);
                let generation = of;
                context.actions.push_back(Action::BindSlot { service, generation, slot, members });
            }
        }
    }

    /// Closes the sockets of slots that are not wanted, once the last worker that had them is gone.
    pub(super) fn close_slots(&mut self, context: &mut Context<'_>) {
        for slot in self.slots.surplus(self.slots_wanted()) {
            if self.workers.iter().all(|worker| worker.slot != slot) {
                self.slots.closed(slot);
                context.actions.extend(self.sockets.close_slot(None, slot));
            }
        }
        let current = self.current();
        let most = self.slots_wanted();
        for (&generation, slots) in &mut self.own_slots {
            // All of another goes with its last worker.
            if !current.contains(&Some(generation)) {
                continue;
            }
            for slot in slots.surplus(most) {
                let has_it = |worker: &Worker| {
                    worker.slot == slot && self.sockets.root(worker.generation) == generation
                };
                if !self.workers.iter().any(has_it) {
                    slots.closed(slot);
                    context.actions.extend(self.sockets.close_slot(Some(generation), slot));
                }
            }
        }
    }

    /// Of the first `wanted` slots of a generation those that cannot have a worker yet.
    pub(super) fn shut(&self, generation: GenerationId, wanted: u32) -> BTreeSet<SlotId> {
        let mut shut = self.slots.shut(wanted);
        if let Some(own) = self.own_slots.get(&self.sockets.root(generation)) {
            shut.extend(own.shut(wanted));
        }
        shut
    }

    /// A generation has the sockets of which each of its slots has one, in those slots for which they
    /// were bound: more or fewer may be wanted by then.
    pub(super) fn open_own_slots(
        &mut self,
        generation: GenerationId,
        bound: impl Iterator<Item = (SocketId, SlotId)>,
    ) {
        let sockets = self.sockets.of_each_worker(generation);
        let root = self.sockets.root(generation);
        if !sockets.is_empty() && !self.own_slots.contains_key(&root) {
            let slots = bound.filter(|(socket, _)| sockets.contains(socket)).map(|(_, slot)| slot);
            let slots = slots.collect();
            self.own_slots.insert(root, SlotSockets::of_generation(sockets, &slots));
        }
    }

    /// The generations that are to have as many slots as are wanted.
    fn current(&self) -> [Option<GenerationId>; 2] {
        let rolling = self.rolling().map(|fleet| fleet.generation);
        [Some(self.serving.generation), rolling].map(|it| it.map(|it| self.sockets.root(it)))
    }

    /// When a slot whose sockets could not be bound is tried again.
    pub(super) fn slots_deadline(&self) -> Option<Time> {
        let current = self.current().into_iter().flatten();
        let own = current.filter_map(|generation| self.own_slots.get(&generation)?.deadline());
        own.chain(self.slots.deadline()).min().filter(|_| self.serves())
    }

    fn slots_of(&mut self, of: Option<GenerationId>) -> Option<&mut SlotSockets> {
        match of {
            None => Some(&mut self.slots),
            Some(generation) => self.own_slots.get_mut(&generation),
        }
    }

    fn slot_is_closed(&mut self, of: Option<GenerationId>, slot: SlotId) {
        if let Some(slots) = self.slots_of(of) {
            slots.closed(slot);
        }
    }
}
