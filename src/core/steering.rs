//! Which members of a socket's group get new connections, and what share of them. Ids only; the
//! kernel is told by [`Action::Steer`].
//!
//! # Why order matters
//!
//! The kernel asks a small program for the *index* of the member that gets a connection
//! (`SO_ATTACH_REUSEPORT_CBPF`, socket(7)), and it keeps its members in an array: one that begins to
//! listen is put at the end, and when one leaves the last one moves into its place. The order cannot
//! be read back, so [`Group`] mirrors it, and a program is attached after every change. One that is
//! bound is at its place before its answer comes, so it joins here when it is asked for, and if it
//! could not be bound it is as if it had never been asked for.
//!
//! What workers do comes in between, and is heard of later. So whoever performs our changes answers
//! each, and tells of everything in the order in which it happened: what is heard before the answer to
//! a change happened before the change, and has its place before it here.
//!
//! # What is attached
//!
//! A new member gets nothing before the program names it, which is when its workers are ready. A
//! member that is to be closed was steered away from and emptied before. When it goes while the last
//! one has a share, the program would point at nothing for a moment, and the kernel would choose by
//! its own hash: so those that move lose their share first, where others have one. Where none has and
//! the hash could find one that nobody serves, the member stays, which gets nothing, until it is the
//! last to go, or the next reload brings others to the end.
//!
//! # What workers do to the order
//!
//! A worker that calls shutdown(2) takes its member out of the group, and listen(2) puts it at the
//! end. Between that and our hearing of it the program points elsewhere than it should. Many programs
//! do it when they are asked to stop, so before they are, there are *spares* at the end, one for each
//! that may leave: members that nobody has but us, that get nothing, and that move into the holes.

use std::collections::{BTreeMap, BTreeSet};

use super::action::{Action, Share};
use super::ids::{MemberId, SlotId, SocketId};

/// A socket's members that the kernel chooses from: all of a socket, or those of one of its slots
/// where each slot has an address of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupId {
    /// Which socket.
    pub socket: SocketId,
    /// The slot whose address it is, where each has one.
    pub slot: Option<SlotId>,
}

/// The groups of a service.
#[derive(Debug, Clone, Default)]
pub struct Steering {
    groups: BTreeMap<GroupId, Group>,
    of: BTreeMap<MemberId, GroupId>,
}

/// Why a member is there that no worker gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// It keeps others at their places while workers stop.
    Spare,
    /// It is closed as soon as it can be.
    Going,
}

/// The members of one address.
#[derive(Debug, Clone, Default)]
struct Group {
    /// In the kernel's order, as of the last time when all was certain.
    base: Vec<MemberId>,
    /// What happened since, in order, from the first that is not answered yet.
    since: Vec<Step>,
    /// What the program does that is attached; nothing where it has to be attached anew.
    attached: Option<Vec<Share>>,
    /// Members that nobody has but us.
    spares: BTreeSet<MemberId>,
    /// Those that are to be closed as soon as new connections go where they should while they are.
    going: BTreeSet<MemberId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Nothing, for one that is there already.
    Joined(MemberId),
    Left(MemberId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    change: Change,
    /// Whether its answer is to come.
    awaited: bool,
}

impl Steering {
    /// A member listens, as the last of its group.
    pub fn join(&mut self, group: GroupId, member: MemberId) {
        self.of.insert(member, group);
        self.groups.entry(group).or_default().happened(Change::Joined(member));
    }

    /// A member is asked for, and is the last of its group when that is answered.
    pub fn ask(&mut self, group: GroupId, member: MemberId) {
        self.of.insert(member, group);
        self.groups.entry(group).or_default().await_change(Change::Joined(member));
    }

    /// The same of a spare.
    pub fn ask_spare(&mut self, group: GroupId, member: MemberId) {
        self.groups.entry(group).or_default().spares.insert(member);
        self.ask(group, member);
    }

    /// How many spares each group lacks while these members may leave it at any time.
    #[must_use]
    pub fn lacking(&self, at_risk: &BTreeSet<MemberId>) -> Vec<(GroupId, usize)> {
        let lacking = self.groups.iter().map(|(&id, group)| (id, group.lacking(at_risk)));
        lacking.filter(|(_, lacking)| *lacking > 0).collect()
    }

    /// The spares of groups that none of these members may leave.
    #[must_use]
    pub fn idle_spares(&self, at_risk: &BTreeSet<MemberId>) -> Vec<MemberId> {
        let spares = self.groups.values().filter(|group| !group.spares.is_empty());
        let idle = spares.filter(|group| !group.spares.iter().any(|it| group.awaits(*it)));
        let idle = idle.filter(|group| !group.order().iter().any(|it| at_risk.contains(it)));
        idle.flat_map(|group| group.spares.difference(&group.going).copied()).collect()
    }

    /// All spares.
    pub fn spares(&self) -> impl Iterator<Item = MemberId> + '_ {
        self.groups.values().flat_map(|group| group.spares.iter().copied())
    }

    /// Whether a member is in a group, and not yet closed.
    #[must_use]
    pub fn is_known(&self, member: MemberId) -> bool {
        self.of.contains_key(&member)
    }

    /// A member that was asked for is there. That may be heard when it is being closed already.
    pub fn arrived(&mut self, member: MemberId) {
        if let Some(group) = self.group_with(member, Change::Joined(member)) {
            group.answered(Change::Joined(member));
        }
    }

    /// A member that was asked for is not there, and never was.
    pub fn failed(&mut self, member: MemberId) {
        if let Some(group) = self.group(member) {
            group.since.retain(|step| {
                step.change != Change::Joined(member) && step.change != Change::Left(member)
            });
            group.base.retain(|&it| it != member);
            group.spares.remove(&member);
            group.attached = None;
            group.fold();
        }
        self.drop_if_empty(member);
    }

    /// A member was shut down: the last one has its place. That may be heard when it is being closed
    /// already.
    pub fn leave(&mut self, member: MemberId) {
        if let Some(group) = self.group_with(member, Change::Left(member)) {
            group.happened(Change::Left(member));
            group.attached = None;
        }
    }

    /// A member is told to listen no more: the last one has its place.
    pub fn stop(&mut self, member: MemberId) {
        if let Some(group) = self.group(member) {
            // It is known when that is, after what was asked for before.
            group.since.push(Step { change: Change::Left(member), awaited: false });
            group.fold();
            group.attached = None;
        }
    }

    /// A member is told to listen: it is the last one then, unless it listens already.
    pub fn rejoin(&mut self, member: MemberId) {
        if let Some(group) = self.group(member) {
            if !group.has(member) {
                group.attached = None;
            }
            group.await_change(Change::Joined(member));
        }
    }

    /// A member that was told to listen does not. That may be heard when it is being closed already.
    pub fn not_rejoined(&mut self, member: MemberId) {
        if let Some(group) = self.group_with(member, Change::Joined(member)) {
            group.take_back(Change::Joined(member));
            group.happened(Change::Left(member));
            group.attached = None;
        }
    }

    /// Those that were to be closed are.
    pub fn closed(&mut self, members: &[MemberId]) {
        for group in self.groups.values_mut() {
            for &member in members {
                group.answered(Change::Left(member));
            }
        }
    }

    /// All that are in their groups, so that something may find them.
    #[must_use]
    pub fn listening(&self) -> BTreeSet<MemberId> {
        self.groups.values().flat_map(Group::order).collect()
    }

    /// Whether a member is one of a group.
    #[must_use]
    pub fn has(&self, member: MemberId) -> bool {
        self.of.contains_key(&member)
    }

    /// Whether a member of a group listens: it was not shut down since.
    #[must_use]
    pub fn listens(&self, member: MemberId) -> bool {
        let group = self.of.get(&member).and_then(|id| self.groups.get(id));
        group.is_some_and(|group| group.has(member))
    }

    /// Whether the group of a member has no other members than these, and none is asked for.
    #[must_use]
    pub fn is_of_these_alone(&self, member: MemberId, these: &BTreeSet<MemberId>) -> bool {
        let group = self.of.get(&member).and_then(|id| self.groups.get(id));
        group.is_some_and(|group| {
            !group.awaits_others(these) && group.order().iter().all(|it| these.contains(it))
        })
    }

    /// Members that are there and that no worker gets, and their groups.
    pub fn idle(&self) -> impl Iterator<Item = (MemberId, GroupId, Idle)> + '_ {
        let idle = |(&member, &id): (&MemberId, &GroupId)| {
            let group = self.groups.get(&id)?;
            let idle = if group.going.contains(&member) {
                Idle::Going
            } else if group.spares.contains(&member) && !group.awaits(member) {
                Idle::Spare
            } else {
                return None;
            };
            Some((member, id, idle))
        };
        self.of.iter().filter_map(idle)
    }

    /// Whether new connections go to others, and this member gets none.
    #[must_use]
    pub fn is_steered_away(&self, member: MemberId) -> bool {
        self.share(member) == Some(0)
    }

    /// What share of new connections a member has; `None` where nobody steers, or it was not told
    /// yet.
    #[must_use]
    pub fn share(&self, member: MemberId) -> Option<u32> {
        let group = self.groups.get(self.of.get(&member)?)?;
        let shares = group.attached.as_ref()?;
        let share = shares.iter().find(|share| share.member == member);
        Some(share.map_or(0, |share| share.weight))
    }

    /// Has every group do what `weight` says of its members, as far as it does not do so already.
    /// Where nobody of a group has a share, all of it have the same.
    pub fn steer(&mut self, weight: impl Fn(GroupId, MemberId) -> u32) -> Vec<Action> {
        let mut actions = Vec::new();
        for (&id, group) in &mut self.groups {
            let order = group.order();
            let mut shares: Vec<Share> = order
                .into_iter()
                .map(|member| Share { member, weight: weight(id, member) })
                .collect();
            if shares.iter().all(|share| share.weight == 0) {
                let stays = |share: &&mut Share| {
                    let is_left = group.going.contains(&share.member);
                    !is_left && !group.spares.contains(&share.member)
                };
                shares.iter_mut().filter(stays).for_each(|share| share.weight = 1);
            }
            let some = shares.iter().any(|share| share.weight > 0);
            if some && group.attached.as_ref() != Some(&shares) {
                group.attached = Some(shares.clone());
                actions.push(Action::Steer { group: id, shares });
            }
        }
        for id in self.groups.keys().copied().collect::<Vec<_>>() {
            self.let_go(id, &mut actions);
        }
        actions
    }

    /// Takes members out, to be closed: the actions that do it in an order in which new connections
    /// go where they should. One that cannot go so stays, gets nothing, and goes when it can.
    pub fn close(&mut self, members: Vec<MemberId>) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut touched: BTreeSet<GroupId> = BTreeSet::new();
        for member in members {
            match self.of.get(&member).copied() {
                Some(id) if self.groups.get(&id).is_some_and(|group| group.has(member)) => {
                    touched.insert(id);
                    self.groups.entry(id).or_default().going.insert(member);
                }
                Some(_) | None => {
                    actions.push(Action::Close(member));
                    self.drop_if_empty(member);
                }
            }
        }
        for id in touched {
            self.let_go(id, &mut actions);
        }
        actions
    }

    /// Closes what can be closed of a group.
    fn let_go(&mut self, id: GroupId, actions: &mut Vec<Action>) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        for member in group.let_go(id, actions) {
            self.drop_if_empty(member);
        }
    }

    /// All of them.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.groups.keys().copied()
    }

    fn group(&mut self, member: MemberId) -> Option<&mut Group> {
        self.groups.get_mut(self.of.get(&member)?)
    }

    /// The same, or of one that is being closed the group that has this step before it.
    fn group_with(&mut self, member: MemberId, step: Change) -> Option<&mut Group> {
        match self.of.get(&member) {
            Some(id) => self.groups.get_mut(id),
            None => self.groups.values_mut().find(|group| group.has_step(step)),
        }
    }

    fn drop_if_empty(&mut self, member: MemberId) {
        let Some(id) = self.of.remove(&member) else { return };
        if !self.of.values().any(|&of| of == id) {
            self.groups.remove(&id);
        }
    }
}

impl Group {
    fn lacking(&self, at_risk: &BTreeSet<MemberId>) -> usize {
        let Some(shares) = &self.attached else { return 0 };
        let order = self.order();
        let has_share = |member: &MemberId| {
            shares.iter().any(|share| share.member == *member && share.weight > 0)
        };
        // A spare in the place of one that has a share would get it, and nobody takes that.
        let leaves = |member: &&MemberId| at_risk.contains(member) && !has_share(member);
        let leaving = order.iter().filter(leaves).count();
        // Where one leaves all of whose fellows have a share, the kernel's own choice is right.
        let fellows = || order.iter().filter(|member| !at_risk.contains(member));
        if leaving == 0 || leaving == 1 && fellows().all(has_share) {
            return 0;
        }
        let behind = order.iter().rev().take_while(|member| !has_share(member)).count();
        leaving.saturating_sub(behind)
    }

    fn order(&self) -> Vec<MemberId> {
        let mut order = self.base.clone();
        for step in &self.since {
            apply(&mut order, step.change);
        }
        order
    }

    /// It was heard: it happened before all whose answers are to come.
    fn happened(&mut self, change: Change) {
        // What is answered already is in the base, up to the first that is not.
        apply(&mut self.base, change);
    }

    /// It is asked for.
    fn await_change(&mut self, change: Change) {
        self.since.push(Step { change, awaited: true });
    }

    /// It was answered: it has happened, after all that was heard until now.
    fn answered(&mut self, change: Change) {
        let mut steps = self.since.iter_mut();
        if let Some(step) = steps.find(|step| step.awaited && step.change == change) {
            step.awaited = false;
        }
        self.fold();
    }

    fn fold(&mut self) {
        let done = self.since.iter().take_while(|step| !step.awaited).count();
        for step in self.since.drain(..done) {
            apply(&mut self.base, step.change);
        }
    }

    /// It was asked for, and is not.
    fn take_back(&mut self, change: Change) {
        let mut steps = self.since.iter();
        if let Some(index) = steps.position(|step| step.awaited && step.change == change) {
            self.since.remove(index);
            self.fold();
        }
    }

    fn has_step(&self, change: Change) -> bool {
        self.since.iter().any(|step| step.change == change)
    }

    /// Whether a member is asked for that is none of these.
    fn awaits_others(&self, these: &BTreeSet<MemberId>) -> bool {
        self.since.iter().any(|step| match step.change {
            Change::Joined(member) => step.awaited && !these.contains(&member),
            Change::Left(_) => false,
        })
    }

    /// Whether a member is asked for.
    fn awaits(&self, member: MemberId) -> bool {
        let joined = Change::Joined(member);
        self.since.iter().any(|step| step.awaited && step.change == joined)
    }

    fn has(&self, member: MemberId) -> bool {
        self.order().contains(&member)
    }

    /// Closes those that are to go, as far as new connections find who they should meanwhile.
    fn let_go(&mut self, id: GroupId, actions: &mut Vec<Action>) -> Vec<MemberId> {
        let order = self.order();
        // Nobody moves by one that was shut down.
        let mut gone: Vec<MemberId> = self.going.iter().copied().collect();
        gone.retain(|member| !order.contains(member));
        self.take_out(&gone, actions);
        // Each turn closes one at least, or is the last.
        loop {
            let order = self.order();
            // Nothing takes the place of the last one.
            let going = order.iter().rev().filter(|member| self.going.contains(member));
            let going: Vec<MemberId> = going.copied().collect();
            if going.is_empty() {
                return gone;
            }
            if going.len() == order.len() {
                self.attached = None;
                self.take_out(&going, actions);
                gone.extend(going);
                return gone;
            }
            let Some(shares) = self.attached.clone() else { return gone };
            let with_share = shares.iter().filter(|share| share.weight > 0).count();
            let now = &going[..(with_share / 2).max(1).min(going.len())];
            match self.before_close(&order, &shares, now) {
                Before::Nothing => {}
                Before::Steer(shares) => actions.push(Action::Steer { group: id, shares }),
                Before::Wait => return gone,
            }
            self.take_out(now, actions);
            gone.extend(now);
            let weight = |member| {
                let share = shares.iter().find(|share| share.member == member);
                share.map_or(0, |share| share.weight)
            };
            let order = self.order().into_iter();
            let shares: Vec<Share> =
                order.map(|member| Share { member, weight: weight(member) }).collect();
            self.attached = None;
            if shares.iter().any(|share| share.weight > 0) {
                actions.push(Action::Steer { group: id, shares: shares.clone() });
                self.attached = Some(shares);
            }
        }
    }

    fn take_out(&mut self, members: &[MemberId], actions: &mut Vec<Action>) {
        for &member in members {
            actions.push(Action::Close(member));
            self.going.remove(&member);
            self.spares.remove(&member);
            self.await_change(Change::Left(member));
        }
    }

    /// What comes before these can be closed, one after the other: those that move by it must get
    /// nothing until they are named anew, unless the hash finds nobody but who gets something.
    fn before_close(&self, order: &[MemberId], shares: &[Share], closed: &[MemberId]) -> Before {
        let mut after = order.to_vec();
        for &member in closed {
            apply(&mut after, Change::Left(member));
        }
        let moves = |member: MemberId| {
            let place = |order: &[MemberId]| order.iter().position(|&it| it == member);
            place(order) != place(&after)
        };
        let gets = |share: &Share| share.weight > 0 && !self.going.contains(&share.member);
        let fewer: Vec<Share> = shares
            .iter()
            .map(|&share| if moves(share.member) { Share { weight: 0, ..share } } else { share })
            .collect();
        let changes = shares.iter().any(|share| gets(share) && moves(share.member));
        let all =
            after.iter().all(|it| shares.iter().any(|share| share.member == *it && gets(share)));
        // One that is behind the last for those that may leave at any time has to stay there.
        let spare = self.spares.difference(&self.going).any(|&spare| moves(spare));
        if spare {
            Before::Wait
        } else if !changes {
            Before::Nothing
        } else if fewer.iter().any(gets) {
            Before::Steer(fewer)
        } else if all {
            Before::Nothing
        } else {
            Before::Wait
        }
    }
}

/// What has to be done before members can be closed.
enum Before {
    Nothing,
    Steer(Vec<Share>),
    /// Others have to come or go first.
    Wait,
}

fn apply(order: &mut Vec<MemberId>, change: Change) {
    match change {
        Change::Joined(member) if order.contains(&member) => {}
        Change::Joined(member) => order.push(member),
        Change::Left(member) => {
            if let Some(index) = order.iter().position(|&it| it == member) {
                order.swap_remove(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId { socket: SocketId(1), slot: None };

    fn steering(members: &[u32]) -> Steering {
        let mut steering = Steering::default();
        for &member in members {
            steering.join(GROUP, MemberId(member));
        }
        steering
    }

    fn shares(pairs: &[(u32, u32)]) -> Action {
        let share = |&(member, weight)| Share { member: MemberId(member), weight };
        Action::Steer { group: GROUP, shares: pairs.iter().map(share).collect() }
    }

    fn only(member: u32) -> impl Fn(GroupId, MemberId) -> u32 {
        move |_, it| u32::from(it == MemberId(member))
    }

    #[test]
    fn what_is_attached_is_attached_once_and_again_after_each_change() {
        let mut steering = steering(&[1]);
        assert_eq!(steering.steer(only(1)), [shares(&[(1, 1)])]);
        assert_eq!(steering.steer(only(1)), []);
        steering.join(GROUP, MemberId(2));
        assert_eq!(steering.steer(only(1)), [shares(&[(1, 1), (2, 0)])]);
        assert!(steering.is_steered_away(MemberId(2)) && !steering.is_steered_away(MemberId(1)));
        steering.leave(MemberId(1));
        steering.rejoin(MemberId(1));
        assert_eq!(steering.steer(only(1)), [shares(&[(2, 0), (1, 1)])]);
    }

    #[test]
    fn where_nobody_has_a_share_all_have() {
        let mut steering = steering(&[1, 2]);
        assert_eq!(steering.steer(|_, _| 0), [shares(&[(1, 1), (2, 1)])]);
    }

    #[test]
    fn the_last_of_two_is_found_by_the_hash_while_the_first_goes() {
        let mut steering = steering(&[1, 2]);
        steering.steer(only(2));
        let close = [Action::Close(MemberId(1)), shares(&[(2, 1)])];
        assert_eq!(steering.close(vec![MemberId(1)]), close);
        assert_eq!(steering.steer(only(2)), []);
    }

    #[test]
    fn of_many_those_that_move_lose_their_share_until_they_have() {
        let mut steering = steering(&[1, 2, 3, 4]);
        let new = |_, member: MemberId| u32::from(member.0 > 2);
        steering.steer(new);
        let actions = steering.close(vec![MemberId(1), MemberId(2)]);
        let expected = [
            shares(&[(1, 0), (2, 0), (3, 1), (4, 0)]),
            Action::Close(MemberId(2)),
            shares(&[(1, 0), (4, 1), (3, 1)]),
            shares(&[(1, 0), (4, 1), (3, 0)]),
            Action::Close(MemberId(1)),
            shares(&[(3, 1), (4, 1)]),
        ];
        assert_eq!(actions, expected);
    }

    #[test]
    fn what_would_leave_the_last_to_the_hash_goes_when_others_are_behind_it() {
        let mut steering = steering(&[1, 2, 3]);
        steering.steer(only(3));
        let closed = vec![MemberId(1), MemberId(2)];
        assert_eq!(steering.close(closed), [], "without one of them the hash could find the other");
        steering.join(GROUP, MemberId(4));
        let first = [shares(&[(1, 0), (2, 0), (3, 1), (4, 0)]), Action::Close(MemberId(2))];
        let expected = [first, [shares(&[(1, 0), (4, 0), (3, 1)]), shares(&[])]].concat();
        assert_eq!(steering.steer(only(3)), expected[..3]);
        let expected = [shares(&[(1, 0), (4, 1), (3, 0)]), Action::Close(MemberId(1))];
        assert_eq!(steering.steer(only(4)), [&expected[..], &[shares(&[(3, 0), (4, 1)])]].concat());
    }

    #[test]
    fn a_spare_that_may_be_needed_where_it_is_fills_no_hole_that_we_make() {
        let mut steering = steering(&[1, 2, 3, 4]);
        let new = |_, member: MemberId| u32::from((3..=4).contains(&member.0));
        steering.ask_spare(GROUP, MemberId(5));
        steering.arrived(MemberId(5));
        steering.steer(new);
        assert_eq!(steering.close(vec![MemberId(1)]), []);
        let actions = steering.close(vec![MemberId(5)]);
        assert_eq!(actions[0], Action::Close(MemberId(5)));
        assert!(actions.contains(&Action::Close(MemberId(1))));
    }

    #[test]
    fn the_end_of_all_needs_no_steering() {
        let mut steering = steering(&[1, 2]);
        steering.steer(only(2));
        let closed = [MemberId(2), MemberId(1)];
        assert_eq!(steering.close(closed.to_vec()), closed.map(Action::Close));
        assert!(!steering.has(MemberId(2)));
    }

    #[test]
    fn there_is_a_spare_for_each_that_may_leave_with_others_in_front_of_the_last() {
        let mut steering = steering(&[1, 2, 3, 4]);
        let new = |_, member: MemberId| u32::from((3..=4).contains(&member.0));
        steering.steer(new);
        let at_risk = |members: &[u32]| members.iter().copied().map(MemberId).collect();
        assert_eq!(steering.lacking(&at_risk(&[])), []);
        assert_eq!(steering.lacking(&at_risk(&[1])), [(GROUP, 1)]);
        assert_eq!(steering.lacking(&at_risk(&[1, 2])), [(GROUP, 2)]);
        steering.ask_spare(GROUP, MemberId(5));
        steering.arrived(MemberId(5));
        assert_eq!(steering.lacking(&at_risk(&[1, 2])), [(GROUP, 1)]);
        steering.ask_spare(GROUP, MemberId(6));
        steering.arrived(MemberId(6));
        assert_eq!(steering.lacking(&at_risk(&[1, 2])), []);
        assert_eq!(steering.idle_spares(&at_risk(&[1])), []);
        let spares = steering.idle_spares(&at_risk(&[]));
        assert_eq!(spares, [MemberId(5), MemberId(6)]);
        assert_eq!(steering.lacking(&at_risk(&[3, 4])), [], "they serve on with others");
        // They get nothing, whoever else does.
        let nobody = [(1, 1), (2, 1), (3, 1), (4, 1), (5, 0), (6, 0)];
        assert_eq!(steering.steer(|_, _| 0), [shares(&nobody)]);
        steering.close(spares);
        assert_eq!(steering.spares().count(), 0);
    }

    #[test]
    fn of_two_the_one_that_stays_is_found_without_a_spare() {
        let mut steering = steering(&[1, 2]);
        steering.steer(only(2));
        assert_eq!(steering.lacking(&BTreeSet::from([MemberId(1)])), []);
    }

    #[test]
    fn one_that_could_not_be_bound_never_moved_anything() {
        let mut steering = steering(&[1, 2]);
        steering.ask(GROUP, MemberId(3));
        // As it is taken for: the last one moves.
        steering.steer(only(2));
        let close = [Action::Close(MemberId(1)), shares(&[(3, 0), (2, 1)])];
        assert_eq!(steering.close(vec![MemberId(1)]), close);
        steering.failed(MemberId(3));
        assert_eq!(steering.steer(only(2)), [shares(&[(2, 1)])]);
        steering.closed(&[MemberId(1)]);

        steering.ask(GROUP, MemberId(4));
        steering.arrived(MemberId(4));
        assert_eq!(steering.steer(only(2)), [shares(&[(2, 1), (4, 0)])]);
    }

    #[test]
    fn what_is_heard_before_the_answer_happened_before_what_was_asked_for() {
        let mut steering = steering(&[1, 2, 3]);
        steering.ask(GROUP, MemberId(4));
        // It left when the third was the last one, and the fourth came after that.
        steering.leave(MemberId(1));
        steering.arrived(MemberId(4));
        assert_eq!(steering.steer(only(4)), [shares(&[(3, 0), (2, 0), (4, 1)])]);
        steering.ask(GROUP, MemberId(5));
        steering.arrived(MemberId(5));
        steering.leave(MemberId(3));
        assert_eq!(steering.steer(only(4)), [shares(&[(5, 0), (2, 0), (4, 1)])]);
    }

    #[test]
    fn one_that_is_closed_before_it_is_known_to_listen_leaves_nothing_open() {
        for listens in [true, false] {
            let mut steering = steering(&[1, 2, 3]);
            steering.leave(MemberId(2));
            steering.rejoin(MemberId(2));
            steering.steer(only(3));
            steering.close(vec![MemberId(2)]);
            if listens {
                steering.arrived(MemberId(2));
            } else {
                steering.not_rejoined(MemberId(2));
            }
            steering.closed(&[MemberId(2)]);
            steering.ask(GROUP, MemberId(4));
            steering.arrived(MemberId(4));
            // It left when the fourth was the last one.
            steering.leave(MemberId(1));
            assert_eq!(steering.steer(only(3)), [shares(&[(4, 0), (3, 1)])], "{listens}");
        }
    }

    #[test]
    fn one_that_is_shut_down_while_others_are_closed_left_before_them() {
        let mut steering = steering(&[1, 2, 3, 4, 5]);
        steering.steer(|_, member| u32::from(member.0 > 3));
        steering.close(vec![MemberId(3), MemberId(1)]);
        // 1 left, then 3, as the kernel has it: 5, 2, 4.
        steering.leave(MemberId(1));
        steering.closed(&[MemberId(3), MemberId(1)]);
        let order = steering.steer(|_, member| member.0);
        assert_eq!(order, [shares(&[(5, 5), (2, 2), (4, 4)])]);
    }

    #[test]
    fn one_that_listens_already_keeps_its_place_and_one_that_does_not_again_is_out() {
        let mut steering = steering(&[1, 2, 3]);
        steering.rejoin(MemberId(1));
        steering.arrived(MemberId(1));
        assert_eq!(steering.steer(only(2)), [shares(&[(1, 0), (2, 1), (3, 0)])]);
        // It was shut down before it was told to listen, which was not known then.
        steering.rejoin(MemberId(1));
        steering.leave(MemberId(1));
        steering.arrived(MemberId(1));
        assert_eq!(steering.steer(only(2)), [shares(&[(3, 0), (2, 1), (1, 0)])]);
        steering.leave(MemberId(3));
        steering.rejoin(MemberId(3));
        steering.not_rejoined(MemberId(3));
        assert_eq!(steering.steer(only(2)), [shares(&[(1, 0), (2, 1)])]);
    }
}
