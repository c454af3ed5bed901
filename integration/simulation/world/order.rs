//! What changes the order of a group, and how the core hears of it: in the order in which it happened,
//! with what workers do told later and the answers to what the core wants done behind it.

use std::time::Duration;

use shepherd::core::event::{Event, SocketEvent};
use shepherd::core::ids::{MemberId, WorkerId};
use shepherd::core::steering::GroupId;

use crate::fate::{Deed, ms};
use crate::invariants::Violation;

use super::traffic::WasAsked;
use super::{Answer, Happening, World};

/// What is heard in order is heard soon, since whoever performs what the core wants waits for nothing.
const HEARD_WITHIN: Duration = ms(1);

impl World<'_> {
    /// Something is heard, at the earliest after what was planned to be heard in this way before.
    pub(super) fn plan_in_order(&mut self, after: Duration, happening: Happening) {
        // Without groups there is no order.
        if self.network.is_flat() {
            return self.plan(after, happening);
        }
        self.last_heard = self.last_heard.max(self.now + after.min(HEARD_WITHIN));
        self.outstanding += 1;
        let after = self.last_heard.since(self.now);
        self.plan(after, Happening::InOrder(Box::new(happening)));
    }

    /// What was planned so is heard.
    pub(super) fn happen_in_order(&mut self, happening: Happening) -> Result<(), Violation> {
        self.outstanding -= 1;
        self.happen_now(happening)
    }

    /// What was done is answered: at once, unless something that happened before has not been heard.
    pub(super) fn answer(&mut self, event: Event) {
        if self.outstanding > 0 {
            self.plan_in_order(ms(0), Happening::Answered(event));
        } else {
            self.answers.push_back(Answer::Event(event));
        }
    }

    /// Our copy of a member is closed. What was closed one after the other is told together.
    pub(super) fn answer_close(&mut self, member: MemberId) {
        if self.outstanding == 0
            && let Some(Answer::Event(Event::Closed(members))) = self.answers.back_mut()
        {
            return members.push(member);
        }
        self.answer(Event::Closed(vec![member]));
    }

    /// A socket is looked at.
    pub(super) fn inspect(&mut self, member: MemberId, by: Option<WorkerId>) {
        if self.outstanding > 0 {
            return self.plan_in_order(ms(0), Happening::Inspected(member, by));
        }
        self.look_at_socket(member, by);
    }

    pub(super) fn look_at_socket(&mut self, member: MemberId, by: Option<WorkerId>) {
        let Some(state) = self.sockets.inspect(member) else { return };
        // What is on its way is not told twice.
        let network = &self.network;
        let is_on_its_way =
            network.unheard.contains_key(&member) || network.unheard_spared.contains(&member);
        let broken = self.sockets.broken(member).filter(|_| !is_on_its_way);
        for event in broken.into_iter().chain([SocketEvent::Inspected { by, state }]) {
            self.answers.push_back(Answer::Event(Event::Socket(member, event)));
        }
    }

    /// A socket is told to listen.
    pub(super) fn listen(&mut self, member: MemberId) {
        self.changes(member);
        let failed = self.sockets.listen(member, &mut self.script);
        match failed {
            None => self.listen_again(member),
            Some(_) if self.network.group(member).is_some() => self.network.not_heard(member),
            Some(_) => {}
        }
        let answer = failed.unwrap_or(SocketEvent::Listens);
        self.answer(Event::Socket(member, answer));
    }

    /// Workers shut these down, one after the other. Where one was asked to stop after it was steered
    /// away from, spares see to it that nobody else moves who gets something.
    pub(super) fn shut_down(&mut self, members: &[MemberId], was_asked: WasAsked) {
        for &member in members {
            let listens = self.network.groups.has(member);
            let Some(group) = self.network.group(member).filter(|_| listens) else { continue };
            self.network.tainted.insert(member);
            let before = self.network.groups.named(group);
            self.leave(member);
            let after = self.network.groups.named(group);
            // Beyond the last one the hash chooses, which is right where all have a share.
            let found = self.network.groups.found(group);
            let all_right = found.iter().all(|it| before.contains(&Some(*it)));
            let same = before == after;
            let certain = self.is_certain(group);
            let serves =
                self.network.service(group).is_some_and(|it| self.ledger.keeps_serving(it));
            if same && certain && was_asked == WasAsked::Yes {
                self.network.unheard_spared.insert(member);
            } else {
                let had_share = before.contains(&Some(member));
                if was_asked == WasAsked::Yes && certain && !had_share && !all_right && serves {
                    let why =
                        format!("S14: {member} leaves {group:?}: {before:?} became {after:?}");
                    self.lost.get_or_insert(why);
                }
                self.network.not_heard(member);
            }
        }
    }

    /// A worker that stops shuts down all that it has, or it does it to others.
    pub(super) fn shut_all_down(&mut self, members: &[MemberId], was_asked: WasAsked) {
        for member in self.sockets.suffer(members, Deed::ShutDown) {
            let after = match was_asked {
                WasAsked::Yes => ms(u64::from(self.net.below(2))),
                WasAsked::No => ms(u64::from(self.script.below(2))),
            };
            match self.sockets.broken(member) {
                Some(event) if self.network.group(member).is_some() => {
                    let event = Event::Socket(member, event);
                    self.plan_in_order(after, Happening::Answered(event));
                }
                Some(_) | None => self.plan(after, Happening::LookedAt(member)),
            }
        }
        self.shut_down(members, was_asked);
    }

    /// We change the order of a member's group.
    pub(super) fn changes(&mut self, member: MemberId) {
        if let Some(group) = self.network.group(member) {
            self.changes_group(group);
        }
    }

    /// We change a group, or what its members get: where that happens before a shutdown is heard whose
    /// place one has taken that got nothing, others may be found until it is.
    pub(super) fn changes_group(&mut self, group: GroupId) {
        let spared = std::mem::take(&mut self.network.unheard_spared);
        let (of, others) =
            spared.into_iter().partition(|&it| self.network.group(it) == Some(group));
        self.network.unheard_spared = others;
        let of: std::collections::BTreeSet<MemberId> = of;
        for member in of {
            self.network.not_heard(member);
        }
    }

    /// The core has heard of it.
    pub(super) fn heard(&mut self, member: MemberId, event: &SocketEvent) {
        match event {
            SocketEvent::ShutDown(_) | SocketEvent::RepairFailed { .. } => {
                self.network.is_heard(member);
            }
            SocketEvent::Inspected { .. }
            | SocketEvent::PathGone
            | SocketEvent::Listens
            | SocketEvent::Renewed { .. }
            | SocketEvent::Back
            | SocketEvent::Held(_) => {}
        }
    }
}
