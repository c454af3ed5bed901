//! Which kernel sockets stand behind a service's sockets, who is given which, and what each should
//! be like. Ids only.
//!
//! A configured socket (`SocketId`) has members (`MemberId`), the kernel sockets that workers are
//! handed: one, which every slot gets, or one for each slot, which all workers of that slot get. Each
//! generation's definition says which sockets its workers get; a socket is closed once no generation
//! names it that serves, is to serve or has workers. Workers, slots and reloads only ever ask
//! [`Sockets::members_for`].
//!
//! # What workers change for each other
//!
//! The length of the queue and `O_NONBLOCK` belong to the kernel socket, not to a worker's
//! descriptor: Node sets the backlog to 511 for everybody, and one worker that clears `O_NONBLOCK`
//! freezes every event loop that shares the socket in accept(2). The backlog is the configured one,
//! always. Blocking or not is for the program to choose, so the choice belongs to the serving
//! generation, as its first ready worker left it. What any other worker makes of it is undone, and
//! what the first ready worker of a reload makes of it is remembered and applied at the commit.
//!
//! Both are looked at whenever a worker becomes ready or ends. What a worker changes later than that
//! stays until the next of these.
//!
//! # What workers break for each other
//!
//! shutdown(2) ends the listening for all who hold a socket. TCP listens again when it is told to;
//! a unix socket never does, so a new one takes its place, as one does that lost its path: a new
//! member of the same socket. Workers keep the old one, so all that were started before are *stale*
//! and are replaced, the new beside the old, as a reload does it.

use std::collections::{BTreeMap, BTreeSet};

use super::action::NewMember;
use super::event::{Backlog, Mode, SocketState};
use super::ids::{GenerationId, MemberId, SlotId, SocketId, WorkerId};
use super::policy::{BoundMember, Members, Socket};
use super::repair::{Health, is_worth_telling};
use super::suspicion::Suspicion;
use super::time::Time;

/// The members of one service's sockets.
#[derive(Debug, Clone)]
pub struct Sockets {
    /// What the workers of each generation get, in order.
    orders: BTreeMap<GenerationId, Vec<SocketId>>,
    /// What a definition names that is to be the next, and has no number yet.
    announced: Vec<SocketId>,
    members: BTreeMap<MemberId, Member>,
}

/// One kernel socket.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    socket: SocketId,
    /// For people.
    name: String,
    scope: Scope,
    mode: ModeRule,
    /// How often its mode has been set back.
    mode_set_back: u32,
    /// The generation for which a changed backlog was last told of.
    backlog_told: Option<GenerationId>,
    health: Health,
    suspicion: Option<Suspicion>,
    /// The last worker that was started before this member took the place of another, which that
    /// worker was given.
    last_stale: Option<WorkerId>,
}

/// Whose workers a member is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Every worker of the service, over all generations.
    Shared,
    /// Every worker of this slot, over all generations.
    Slot(SlotId),
}

/// A worker, as one that is given sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipient {
    /// The worker.
    pub worker: WorkerId,
    /// Its slot.
    pub slot: SlotId,
    /// The definition it runs.
    pub generation: GenerationId,
}

/// What the generations made of a member's mode; `None` until their first worker is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct ModeRule {
    serving: Option<Mode>,
    rolling: Option<Mode>,
    /// What was set until a commit, from that until the serving one has been seen: a look from just
    /// before the commit is told of after it.
    before: Option<Mode>,
}

/// On whose behalf a member is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// A worker of this generation, which serves, has become ready.
    Serving(GenerationId),
    /// One of this generation, which is to serve, has.
    Rolling(GenerationId),
    /// Neither.
    Other,
}

/// What is to be done about a member that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Findings {
    /// Call listen(2) again.
    pub listen: bool,
    /// Tell that the backlog was changed, to the first number from the second.
    pub tell_backlog: Option<(u32, u32)>,
    /// Set the mode, and whether to tell of it, and how.
    pub set_mode: Option<(Mode, ModeNews)>,
}

/// Why a mode is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModeNews {
    /// Somebody changed what the serving generation needs.
    Broken,
    /// The first ready worker of a reload chose another one.
    Postponed,
    /// It has been told often enough.
    Known,
}

impl Scope {
    fn covers(self, slot: SlotId) -> bool {
        match self {
            Scope::Shared => true,
            Scope::Slot(own) => own == slot,
        }
    }
}

impl Sockets {
    /// The members with which a service begins, all of them for its first generation.
    #[must_use]
    pub fn new(generation: GenerationId, sockets: &[Socket]) -> Sockets {
        let (orders, members) = (BTreeMap::new(), BTreeMap::new());
        let mut begun = Sockets { orders, announced: Vec::new(), members };
        begun.announce(sockets);
        begun.take_up(generation, sockets);
        begun
    }

    /// A definition that is to be the next names these sockets. Those that are not there yet are
    /// open from here on.
    pub fn announce(&mut self, sockets: &[Socket]) {
        self.announced = sockets.iter().map(|socket| socket.id).collect();
        for Socket { id, name, members: of } in sockets {
            if self.members.values().any(|member| member.socket == *id) {
                continue;
            }
            match of {
                Members::Shared => {
                    let member = Member::fresh(*id, name.clone(), Scope::Shared);
                    self.members.insert(MemberId(id.0), member);
                }
                Members::EachSlot { bound, .. } => {
                    for (slot, BoundMember { member, name }) in (0..).map(SlotId).zip(bound) {
                        let fresh = Member::fresh(*id, name.clone(), Scope::Slot(slot));
                        self.members.insert(*member, fresh);
                    }
                }
            }
        }
    }

    /// The sockets of a service that was stopped are open again: `wanted`, as they were `bound`.
    pub fn open(&mut self, wanted: &[NewMember], bound: Vec<BoundMember>) {
        for BoundMember { member, name } in bound {
            let place = wanted.iter().find(|wanted| wanted.member == member);
            if let Some(&NewMember { socket, slot, .. }) = place {
                let scope = slot.map_or(Scope::Shared, Scope::Slot);
                self.members.insert(member, Member::fresh(socket, name, scope));
            }
        }
    }

    /// A slot has sockets of its own.
    pub fn open_slot(&mut self, slot: SlotId, members: Vec<(SocketId, BoundMember)>) {
        for (socket, BoundMember { member, name }) in members {
            self.members.insert(member, Member::fresh(socket, name, Scope::Slot(slot)));
        }
    }

    /// Takes out the members that a slot has for itself, to be closed.
    pub fn close_slot(&mut self, slot: SlotId) -> Vec<MemberId> {
        let own = |(_, member): &(_, &Member)| member.scope == Scope::Slot(slot);
        let closed: Vec<MemberId> = self.members.iter().filter(own).map(|(&id, _)| id).collect();
        self.members.retain(|id, _| !closed.contains(id));
        closed
    }

    /// The workers of a generation get these, in this order, all of them open already.
    pub fn take_up(&mut self, generation: GenerationId, sockets: &[Socket]) {
        self.orders.insert(generation, sockets.iter().map(|socket| socket.id).collect());
        self.announced.clear();
    }

    /// Only these generations count from here on: takes out the members that none of them has, to be
    /// closed.
    pub fn keep(&mut self, generations: &BTreeSet<GenerationId>) -> Vec<MemberId> {
        let before = self.orders.len();
        self.orders.retain(|generation, _| generations.contains(generation));
        let named = |socket: &SocketId| {
            self.announced.contains(socket)
                || self.orders.values().any(|order| order.contains(socket))
        };
        // Asked after everything that happens, and seldom is there one.
        if self.orders.len() == before && self.members.values().all(|member| named(&member.socket))
        {
            return Vec::new();
        }
        let gone: Vec<MemberId> = self
            .members
            .iter()
            .filter(|(_, member)| !named(&member.socket))
            .map(|(&id, _)| id)
            .collect();
        self.members.retain(|id, _| !gone.contains(id));
        gone
    }

    /// Whether this is one of its members.
    #[must_use]
    pub fn has(&self, member: MemberId) -> bool {
        self.members.contains_key(&member)
    }

    /// The socket behind which a member stands, for people.
    #[must_use]
    pub fn name(&self, member: MemberId) -> String {
        self.members.get(&member).map(|member| member.name.clone()).unwrap_or_default()
    }

    /// What a worker of this generation and slot is given, in the order of the sockets.
    #[must_use]
    pub fn members_for(&self, generation: GenerationId, slot: SlotId) -> Vec<MemberId> {
        let order = self.orders.get(&generation).into_iter().flatten();
        let of = |socket: &SocketId| {
            let mut members = self.members.iter();
            let covers = |member: &Member| member.socket == *socket && member.scope.covers(slot);
            members.find(|(_, member)| covers(member)).map(|(&id, _)| id)
        };
        order.filter_map(of).collect()
    }

    /// A member was looked at: what is to be done about it.
    pub fn inspected(
        &mut self,
        member: MemberId,
        occasion: Occasion,
        serving: GenerationId,
        state: SocketState,
    ) -> Findings {
        let Some(member) = self.members.get_mut(&member) else {
            return Findings::default();
        };
        let (listen, changed) = match state.backlog {
            Backlog::AsSet => (false, None),
            Backlog::Changed { to, from } => (true, Some((to, from))),
            Backlog::Unseen => (true, None),
        };
        let generation = match occasion {
            Occasion::Serving(generation) | Occasion::Rolling(generation) => generation,
            Occasion::Other => serving,
        };
        let tell_backlog = changed.filter(|_| member.backlog_told != Some(generation));
        if tell_backlog.is_some() {
            member.backlog_told = Some(generation);
        }
        Findings { listen, tell_backlog, set_mode: member.mode_found(occasion, state.mode) }
    }

    /// The reload's generation serves from here on: the members whose mode it needs changed.
    pub fn commit(&mut self) -> Vec<(MemberId, Mode)> {
        let mut changed = Vec::new();
        for (&id, member) in &mut self.members {
            let ModeRule { serving, rolling, .. } = member.mode;
            // Without a choice yet, its first worker has become ready within this turn, and what it
            // left is about to be seen.
            member.mode = ModeRule { serving: rolling, rolling: None, before: serving };
            member.mode_set_back = 0;
            changed.extend(rolling.filter(|_| rolling != serving).map(|mode| (id, mode)));
        }
        changed
    }

    /// Whoever serves from here on begins with nobody beside it, and chooses for itself.
    pub fn begin_anew(&mut self) {
        for member in self.members.values_mut() {
            member.mode = ModeRule::default();
            member.mode_set_back = 0;
        }
    }

    /// The reload is off: what its workers chose does not count.
    pub fn abort(&mut self) {
        self.members.values_mut().for_each(|member| member.mode.rolling = None);
    }

    /// How a member fares.
    pub fn health(&mut self, member: MemberId) -> Option<&mut Health> {
        self.members.get_mut(&member).map(|member| &mut member.health)
    }

    /// Who may have shut a member down, while that is not settled.
    pub fn suspicion(&mut self, member: MemberId) -> Option<&mut Option<Suspicion>> {
        self.members.get_mut(&member).map(|member| &mut member.suspicion)
    }

    /// All members, by their numbers.
    #[must_use]
    pub fn ids(&self) -> Vec<MemberId> {
        self.members.keys().copied().collect()
    }

    /// When a member is repaired or its holders are looked at.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let look =
            |member: &Member| member.suspicion.as_ref().and_then(|suspicion| suspicion.look_at);
        self.members
            .values()
            .flat_map(|member| [member.health.deadline(), look(member)])
            .flatten()
            .min()
    }

    /// A new member took the place of an old one. Workers up to `last` have the old one.
    pub fn renewed(&mut self, from: MemberId, to: MemberId, last: WorkerId) {
        if let Some(mut member) = self.members.remove(&from) {
            member.mode = ModeRule::default();
            member.mode_set_back = 0;
            member.backlog_told = None;
            // It counts on how often that has happened.
            member.health.whole();
            member.last_stale = Some(last);
            self.members.insert(to, member);
        }
    }

    /// Whether one of these workers was given a member that is none any more.
    pub fn has_stale(&self, mut workers: impl Iterator<Item = Recipient>) -> bool {
        // It is asked after everything that happens, and seldom was any bound anew.
        let renewed: Vec<MemberId> = self
            .members
            .iter()
            .filter(|(_, member)| member.last_stale.is_some())
            .map(|(&id, _)| id)
            .collect();
        !renewed.is_empty()
            && workers.any(|worker| {
                let misses = |&member: &MemberId| {
                    self.is_of(member, worker) && !self.was_given(member, worker)
                };
                renewed.iter().any(misses)
            })
    }

    /// Whether this worker was given this member, not one that it took the place of.
    #[must_use]
    pub fn was_given(&self, member: MemberId, to: Recipient) -> bool {
        let last_stale = self.members.get(&member).and_then(|member| member.last_stale);
        self.is_of(member, to) && last_stale.is_none_or(|last| to.worker > last)
    }

    fn is_of(&self, member: MemberId, to: Recipient) -> bool {
        let order = self.orders.get(&to.generation);
        self.members.get(&member).is_some_and(|member| {
            order.is_some_and(|order| order.contains(&member.socket))
                && member.scope.covers(to.slot)
        })
    }

    /// Takes all members out, to be closed: the service stops.
    pub fn close(&mut self) -> Vec<MemberId> {
        self.announced.clear();
        std::mem::take(&mut self.members).into_keys().collect()
    }
}

impl Member {
    fn fresh(socket: SocketId, name: String, scope: Scope) -> Member {
        Member {
            socket,
            name,
            scope,
            mode: ModeRule::default(),
            mode_set_back: 0,
            backlog_told: None,
            health: Health::default(),
            suspicion: None,
            last_stale: None,
        }
    }

    fn mode_found(&mut self, occasion: Occasion, found: Mode) -> Option<(Mode, ModeNews)> {
        let mut news = ModeNews::Broken;
        match occasion {
            Occasion::Serving(_) => self.mode.serving = self.mode.serving.or(Some(found)),
            Occasion::Rolling(_) => {
                if self.mode.rolling.is_none() {
                    self.mode.rolling = Some(found);
                    news = ModeNews::Postponed;
                } else if self.mode.rolling == Some(found) {
                    news = ModeNews::Known;
                }
            }
            Occasion::Other => {}
        }
        if self.mode.before == Some(found) && news == ModeNews::Broken {
            news = ModeNews::Known;
        }
        if self.mode.serving == Some(found) {
            self.mode.before = None;
        }
        let wanted = self.mode.serving.filter(|&wanted| wanted != found)?;
        if news == ModeNews::Broken {
            self.mode_set_back = self.mode_set_back.saturating_add(1);
            if !is_worth_telling(self.mode_set_back) {
                news = ModeNews::Known;
            }
        }
        Some((wanted, news))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Occasion = Occasion::Serving(GenerationId(1));
    const NEW: Occasion = Occasion::Rolling(GenerationId(2));
    const MEMBER: MemberId = MemberId(7);

    fn socket(id: u32) -> Socket {
        Socket { id: SocketId(id), name: format!("socket {id}"), members: Members::Shared }
    }

    fn to(worker: u64, slot: u32) -> Recipient {
        let generation = GenerationId(1);
        Recipient { worker: WorkerId(worker), slot: SlotId(slot), generation }
    }

    fn sockets() -> Sockets {
        let (name, members) = ("http".to_owned(), Members::Shared);
        Sockets::new(GenerationId(1), &[Socket { id: SocketId(7), name, members }])
    }

    #[test]
    fn a_slot_gets_what_is_shared_and_what_is_its_own_in_the_order_of_the_sockets() {
        let bound = |id| BoundMember { member: MemberId(id), name: format!("[::]:{id}") };
        let each = |id, members: [u32; 2]| Socket {
            id: SocketId(id),
            name: "8001+{slot}".to_owned(),
            members: Members::EachSlot { bound: members.map(bound).into(), slots_max: 9 },
        };
        let shared = Socket { id: SocketId(1), name: "admin".to_owned(), members: Members::Shared };
        let mut sockets =
            Sockets::new(GenerationId(1), &[each(0, [0, 2]), shared, each(2, [4, 3])]);
        let of = |sockets: &Sockets, slot| {
            let members = sockets.members_for(GenerationId(1), SlotId(slot));
            members.into_iter().map(|member| member.0).collect::<Vec<_>>()
        };
        assert_eq!([of(&sockets, 0), of(&sockets, 1)], [vec![0, 1, 4], vec![2, 1, 3]]);
        assert_eq!(of(&sockets, 2), [1]);
        sockets.open_slot(SlotId(2), vec![(SocketId(0), bound(9)), (SocketId(2), bound(8))]);
        assert_eq!(of(&sockets, 2), [9, 1, 8]);
        assert_eq!(sockets.name(MemberId(9)), "[::]:9");
        assert_eq!(sockets.close_slot(SlotId(1)), [MemberId(2), MemberId(3)]);
        assert_eq!(of(&sockets, 1), [1]);

        // Of slot 0 a socket was bound anew after worker 5 had got the old one.
        let workers = [to(5, 2), to(5, 0)].into_iter();
        assert!(!sockets.has_stale(workers.clone()));
        sockets.renewed(MemberId(4), MemberId(10), WorkerId(5));
        assert!(sockets.has_stale(workers.clone()) && !sockets.has_stale(workers.take(1)));
        assert!(!sockets.has_stale([to(6, 0)].into_iter()));
        let given = |worker, slot| sockets.was_given(MemberId(10), to(worker, slot));
        assert!(given(6, 0) && !given(5, 0) && !given(6, 2));
    }

    fn mode(sockets: &mut Sockets, occasion: Occasion, found: Mode) -> Option<(Mode, ModeNews)> {
        let state = SocketState { mode: found, backlog: Backlog::AsSet };
        sockets.inspected(MEMBER, occasion, GenerationId(1), state).set_mode
    }

    #[test]
    fn the_first_ready_worker_of_a_generation_chooses_the_mode() {
        let mut sockets = sockets();
        assert_eq!(mode(&mut sockets, Occasion::Other, Mode::Blocking), None);
        assert_eq!(mode(&mut sockets, OLD, Mode::NonBlocking), None);
        assert_eq!(mode(&mut sockets, OLD, Mode::NonBlocking), None);
        let broken = Some((Mode::NonBlocking, ModeNews::Broken));
        assert_eq!(mode(&mut sockets, OLD, Mode::Blocking), broken);
        assert_eq!(mode(&mut sockets, Occasion::Other, Mode::Blocking), broken);
    }

    #[test]
    fn what_a_reload_chooses_is_set_back_until_it_commits() {
        let mut sockets = sockets();
        mode(&mut sockets, OLD, Mode::NonBlocking);
        let set_back = |news| Some((Mode::NonBlocking, news));
        assert_eq!(mode(&mut sockets, NEW, Mode::Blocking), set_back(ModeNews::Postponed));
        assert_eq!(mode(&mut sockets, NEW, Mode::Blocking), set_back(ModeNews::Known));
        assert_eq!(sockets.commit(), [(MEMBER, Mode::Blocking)]);
        let serving = Occasion::Serving(GenerationId(2));
        assert_eq!(mode(&mut sockets, serving, Mode::Blocking), None);
    }

    #[test]
    fn a_reload_that_chooses_the_same_or_is_off_changes_nothing() {
        let mut sockets = sockets();
        mode(&mut sockets, OLD, Mode::NonBlocking);
        mode(&mut sockets, NEW, Mode::Blocking);
        sockets.abort();
        assert_eq!(mode(&mut sockets, NEW, Mode::NonBlocking), None);
        assert_eq!(sockets.commit(), []);
    }

    #[test]
    fn a_worker_that_is_seen_only_after_the_commit_it_led_to_chooses() {
        let mut sockets = sockets();
        mode(&mut sockets, OLD, Mode::NonBlocking);
        assert_eq!(sockets.commit(), []);
        assert_eq!(mode(&mut sockets, OLD, Mode::Blocking), None);
    }

    #[test]
    fn a_backlog_is_told_of_once_a_generation_and_set_back_each_time() {
        let mut sockets = sockets();
        let mut found = |occasion, backlog| {
            let state = SocketState { mode: Mode::Blocking, backlog };
            let found = sockets.inspected(MEMBER, occasion, GenerationId(1), state);
            (found.listen, found.tell_backlog)
        };
        let changed = Backlog::Changed { to: 511, from: 4096 };
        assert_eq!(found(OLD, changed), (true, Some((511, 4096))));
        assert_eq!(found(OLD, changed), (true, None));
        assert_eq!(found(NEW, changed), (true, Some((511, 4096))));
        assert_eq!(found(OLD, Backlog::AsSet), (false, None));
        assert_eq!(found(OLD, Backlog::Unseen), (true, None));
    }

    #[test]
    fn each_generation_has_its_sockets_and_the_last_that_has_one_closes_it() {
        let (one, two, three) = (GenerationId(1), GenerationId(2), GenerationId(3));
        let given = |sockets: &Sockets, generation| sockets.members_for(generation, SlotId(0));
        let mut sockets = Sockets::new(one, &[socket(1), socket(2)]);
        // The one that is new comes first, and one goes.
        let second = [socket(5), socket(2)];
        sockets.announce(&second);
        assert_eq!(sockets.keep(&BTreeSet::from([one])), [], "it is to be the next");
        sockets.take_up(two, &second);
        assert_eq!(given(&sockets, one), [MemberId(1), MemberId(2)]);
        assert_eq!(given(&sockets, two), [MemberId(5), MemberId(2)]);
        assert!(sockets.was_given(MemberId(2), to(1, 0)));
        assert!(!sockets.was_given(MemberId(5), to(1, 0)));
        assert_eq!(sockets.keep(&BTreeSet::from([one, two])), []);
        assert_eq!(sockets.keep(&BTreeSet::from([two])), [MemberId(1)], "after a commit");

        sockets.renewed(MemberId(2), MemberId(6), WorkerId(4));
        let of_two = |worker| Recipient { generation: two, ..to(worker, 0) };
        let is_stale = |worker| sockets.has_stale([of_two(worker)].into_iter());
        assert!(is_stale(4) && !is_stale(5));
        sockets.announce(&[socket(7)]);
        sockets.announce(&[socket(2)]);
        assert_eq!(sockets.keep(&BTreeSet::from([two])), [MemberId(7)], "another came in between");
        sockets.take_up(three, &[socket(2)]);
        assert_eq!(sockets.keep(&BTreeSet::from([two])), [], "after an abort");
        assert_eq!(given(&sockets, two), [MemberId(5), MemberId(6)]);
    }
}
