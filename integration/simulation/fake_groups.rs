//! The fake kernel's groups: which member of an address gets a new connection, by the order in which
//! they listen and the program that is attached, as socket(7) has it for `SO_REUSEPORT` and
//! `SO_ATTACH_REUSEPORT_CBPF`.

use std::collections::BTreeMap;

use shepherd::core::action::Share;
use shepherd::core::ids::MemberId;
use shepherd::core::steering::GroupId;

/// All groups of which a member listens.
#[derive(Default)]
pub(crate) struct FakeGroups {
    groups: BTreeMap<GroupId, FakeGroup>,
}

/// The members of one address.
#[derive(Default)]
struct FakeGroup {
    /// One that begins to listen is put at the end, and the last takes the place of one that leaves.
    order: Vec<MemberId>,
    /// The weight of each index; without a program the hash chooses.
    program: Option<Vec<u32>>,
    /// Which members were meant by the program, in order.
    meant: Vec<MemberId>,
}

impl FakeGroup {
    /// Whom an index finds: what is out of range is left to the hash, which finds anybody.
    fn at(&self, index: usize) -> &[MemberId] {
        self.order.get(index).map_or(&self.order[..], std::slice::from_ref)
    }
}

impl FakeGroups {
    /// A member listens. Returns whether nothing can find it before a program names it, which the
    /// first of a group need not wait for.
    pub(crate) fn join(&mut self, id: GroupId, member: MemberId) -> bool {
        let group = self.groups.entry(id).or_default();
        if group.order.contains(&member) {
            return true;
        }
        let index = group.order.len();
        let parked = index == 0
            || group.program.as_ref().is_some_and(|program| {
                let named = program.iter().enumerate().filter(|(_, weight)| **weight > 0);
                named.map(|(index, _)| index).all(|named| named < index)
            });
        group.order.push(member);
        parked
    }

    /// A member listens no more. The last that leaves takes the program with it.
    pub(crate) fn leave(&mut self, member: MemberId) {
        for group in self.groups.values_mut() {
            if let Some(index) = group.order.iter().position(|&it| it == member) {
                group.order.swap_remove(index);
            }
        }
        self.groups.retain(|_, group| !group.order.is_empty());
    }

    /// Nothing is attached where nobody listens.
    pub(crate) fn attach(&mut self, id: GroupId, shares: &[Share]) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.program = Some(shares.iter().map(|share| share.weight).collect());
            group.meant = shares.iter().map(|share| share.member).collect();
        }
    }

    /// Whether a member listens.
    pub(crate) fn has(&self, member: MemberId) -> bool {
        self.groups.values().any(|group| group.order.contains(&member))
    }

    /// All groups of which a member listens.
    pub(crate) fn ids(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.groups.keys().copied()
    }

    /// The members of a group, in order.
    pub(crate) fn order(&self, id: GroupId) -> &[MemberId] {
        self.groups.get(&id).map(|group| &group.order[..]).unwrap_or_default()
    }

    /// The members that the program was made for, if one is attached.
    pub(crate) fn meant(&self, id: GroupId) -> Option<&[MemberId]> {
        let group = self.groups.get(&id).filter(|group| group.program.is_some())?;
        Some(&group.meant)
    }

    /// Who stands where the program points, as far as anybody does.
    pub(crate) fn named(&self, id: GroupId) -> Vec<Option<MemberId>> {
        let Some(group) = self.groups.get(&id) else { return Vec::new() };
        let weights = group.program.iter().flatten().enumerate();
        let named = weights.filter(|(_, weight)| **weight > 0);
        named.map(|(index, _)| group.order.get(index).copied()).collect()
    }

    /// All that a new connection may find.
    pub(crate) fn found(&self, id: GroupId) -> Vec<MemberId> {
        let Some(group) = self.groups.get(&id) else { return Vec::new() };
        let Some(program) = &group.program else { return group.order.clone() };
        let named = program.iter().enumerate().filter(|(_, weight)| **weight > 0);
        let mut found: Vec<MemberId> =
            named.flat_map(|(index, _)| group.at(index).iter().copied()).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// What a new connection finds, by chance.
    pub(crate) fn pick(&self, id: GroupId, chance: usize) -> Option<MemberId> {
        let group = self.groups.get(&id)?;
        let hashed = || group.order[chance % group.order.len()];
        let Some(program) = &group.program else { return Some(hashed()) };
        let named: Vec<usize> = (0..program.len()).filter(|&index| program[index] > 0).collect();
        let index = named.get(chance % named.len().max(1));
        Some(index.and_then(|&index| group.order.get(index)).copied().unwrap_or_else(hashed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shepherd::core::ids::SocketId;

    const ID: GroupId = GroupId { socket: SocketId(1), slot: None };

    #[test]
    fn the_last_takes_the_place_of_one_that_leaves_and_what_is_beyond_is_left_to_the_hash() {
        let mut groups = FakeGroups::default();
        let members = [1, 2, 3].map(MemberId);
        assert!(groups.join(ID, members[0]));
        assert!(!groups.join(ID, members[1]), "without a program the hash finds it");
        let shares = [(1, 0), (2, 1)].map(|(it, weight)| Share { member: MemberId(it), weight });
        groups.attach(ID, &shares);
        assert!(groups.join(ID, members[2]));
        assert_eq!(groups.found(ID), [members[1]]);
        groups.leave(members[0]);
        assert_eq!(
            (groups.order(ID), groups.found(ID)),
            (&[members[2], members[1]][..], vec![members[1]])
        );
        groups.leave(members[2]);
        assert_eq!(groups.found(ID), [members[1]], "index 1 is beyond, and the hash finds it");
        groups.leave(members[1]);
        assert_eq!((groups.pick(ID, 0), groups.meant(ID)), (None, None));
    }
}
