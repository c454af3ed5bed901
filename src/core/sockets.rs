//! Which kernel sockets stand behind a service's sockets, who is given which, and what each should
//! be like. Ids only.
//!
//! A configured socket (`SocketId`) has members (`MemberId`), the kernel sockets that workers are
//! handed: one for each generation, one for each worker's place in a generation, one for each slot
//! over all generations, or one for all. A worker that takes another's place gets the same member,
//! with what waits in it. Each generation's definition says which sockets its workers get, and a
//! member is closed once no generation names it that serves, is to serve or has workers. Workers,
//! slots and reloads only ever ask [`Sockets::members_for`]; which of the members get new connections
//! is [`super::steering`]'s to say.
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

mod dispatching;

mod refusing;

mod viewing;

use std::collections::{BTreeMap, BTreeSet};

use super::action::{Action, NewMember};
use super::event::{Backlog, Mode, SocketState};
use super::ids::{GenerationId, MemberId, SlotId, SocketId, WorkerId};
use super::policy::{Algorithm, Balance, BoundMember, Members, Socket};
use super::repair::{Health, is_worth_telling};
use super::steering::{GroupId, Steering};
use super::suspicion::Suspicion;
use super::time::Time;

/// The members of one service's sockets.
#[derive(Debug, Clone)]
pub struct Sockets {
    /// What the workers of each generation get, in order.
    orders: BTreeMap<GenerationId, Vec<(SocketId, Kind)>>,
    /// Generations that have the members of another: nobody of that can take what waits in them.
    heirs: BTreeMap<GenerationId, GenerationId>,
    /// What a definition names that is to be the next, and has no number yet.
    announced: Vec<SocketId>,
    members: BTreeMap<MemberId, Member>,
    /// Those of which the kernel can be told who gets new connections.
    steered: BTreeSet<SocketId>,
    steering: Steering,
    /// Those whose members can stop listening for a time, and the members that have.
    refusable: BTreeSet<SocketId>,
    refusing: BTreeSet<MemberId>,
    /// Who served, how many slots of that were wanted and what was claimed when that was last seen to;
    /// nothing after members have come or gone.
    told: Option<(Serving, Vec<Claim>)>,
    /// Those from which their worker takes nothing.
    stalled: BTreeSet<MemberId>,
    /// What was asked for, for a generation or for a slot.
    asked: BTreeMap<(Option<GenerationId>, Option<SlotId>), Vec<MemberId>>,
}

/// For whom a socket has members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Shared,
    /// Shared by all, and no worker gets it.
    Dispatched(Algorithm),
    EachGeneration,
    EachWorker,
    EachSlot,
}

/// What part of new connections the workers of a generation are to have, and who can take them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which generation.
    pub generation: GenerationId,
    /// Its part, measured against that of the others.
    pub part: u32,
    /// The slots whose worker is ready.
    pub ready: BTreeSet<SlotId>,
}

/// The generation that serves, which has what nobody can take yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serving {
    /// Which generation.
    pub generation: GenerationId,
    /// How many slots of it are wanted.
    pub wanted: u32,
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
    /// Whether it was to get new connections at some time.
    had_share: bool,
}

/// Whose workers a member is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Every worker of the service, over all generations.
    Shared,
    /// Every worker of this slot, over all generations.
    Slot(SlotId),
    /// Every worker of this generation.
    Generation(GenerationId),
    /// The workers of this generation and slot, one after the other.
    Worker(GenerationId, SlotId),
    /// Those of the generation that is to be the next, and of this slot if it is a slot's.
    Coming(Option<SlotId>),
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
    /// The one that members of this kind have which are for this worker's place.
    fn of(kind: Kind, generation: GenerationId, slot: SlotId) -> Scope {
        match kind {
            Kind::Shared | Kind::Dispatched(_) => Scope::Shared,
            Kind::EachSlot => Scope::Slot(slot),
            Kind::EachGeneration => Scope::Generation(generation),
            Kind::EachWorker => Scope::Worker(generation, slot),
        }
    }

    /// The generation that it is for alone.
    fn generation(self) -> Option<GenerationId> {
        match self {
            Scope::Generation(generation) | Scope::Worker(generation, _) => Some(generation),
            Scope::Shared | Scope::Slot(_) | Scope::Coming(_) => None,
        }
    }
}

impl Kind {
    fn of(members: &Members) -> Kind {
        match members {
            Members::Shared => Kind::Shared,
            Members::Dispatched(algorithm) => Kind::Dispatched(*algorithm),
            Members::EachGeneration => Kind::EachGeneration,
            Members::EachWorker { .. } => Kind::EachWorker,
            Members::EachSlot { .. } => Kind::EachSlot,
        }
    }
}

impl Sockets {
    /// The members with which a service begins, all of them for its first generation.
    #[must_use]
    pub fn new(generation: GenerationId, sockets: &[Socket]) -> Sockets {
        let mut begun = Sockets {
            orders: BTreeMap::new(),
            heirs: BTreeMap::new(),
            announced: Vec::new(),
            members: BTreeMap::new(),
            steered: BTreeSet::new(),
            steering: Steering::default(),
            refusable: BTreeSet::new(),
            refusing: BTreeSet::new(),
            told: None,
            stalled: BTreeSet::new(),
            asked: BTreeMap::new(),
        };
        begun.announce(sockets);
        begun.take_up(generation, sockets, None);
        begun
    }

    /// A definition that is to be the next names these sockets. Those that are not there yet are
    /// open from here on.
    pub fn announce(&mut self, sockets: &[Socket]) {
        self.announced = sockets.iter().map(|socket| socket.id).collect();
        for Socket { id, name, members: of, steered, refusable } in sockets {
            if *refusable {
                self.refusable.insert(*id);
            } else {
                self.refusable.remove(id);
            }
            if *steered {
                self.steered.insert(*id);
            } else {
                self.steered.remove(id);
            }
            if self.members.values().any(|member| member.socket == *id) {
                continue;
            }
            match of {
                Members::Shared | Members::Dispatched(_) => {
                    self.add(MemberId(id.0), Member::fresh(*id, name.clone(), Scope::Shared));
                }
                Members::EachGeneration => {
                    let coming = Member::fresh(*id, name.clone(), Scope::Coming(None));
                    self.add(MemberId(id.0), coming);
                }
                Members::EachWorker { bound } => {
                    for (slot, BoundMember { member, name }) in (0..).map(SlotId).zip(bound) {
                        let scope = Scope::Coming(Some(slot));
                        self.add(*member, Member::fresh(*id, name.clone(), scope));
                    }
                }
                Members::EachSlot { bound, .. } => {
                    for (slot, BoundMember { member, name }) in (0..).map(SlotId).zip(bound) {
                        self.add(*member, Member::fresh(*id, name.clone(), Scope::Slot(slot)));
                    }
                }
            }
        }
    }

    /// These are asked for, for a generation. They join their groups when that is answered, in this
    /// order.
    pub fn ask(&mut self, generation: GenerationId, wanted: &[NewMember]) {
        self.await_all(wanted);
        self.asked.insert((Some(generation), None), numbers(wanted));
    }

    fn await_all(&mut self, wanted: &[NewMember]) {
        self.told = None;
        for &NewMember { socket, slot, member } in wanted {
            if self.steered.contains(&socket) {
                self.steering.ask(self.group_of(socket, slot), member);
            }
        }
    }

    /// The same of those that a slot has for itself.
    pub fn ask_slot(&mut self, of: Option<GenerationId>, slot: SlotId, wanted: &[NewMember]) {
        self.await_all(wanted);
        self.asked.insert((of, Some(slot)), numbers(wanted));
    }

    /// None of those that a slot was to have for itself could be bound.
    pub fn slot_not_bound(&mut self, of: Option<GenerationId>, slot: SlotId) {
        let asked = self.asked.remove(&(of, Some(slot)));
        self.not_there(asked);
    }

    /// Those that a slot was to have for itself are there, and nobody wants them any more.
    pub fn discard_slot(
        &mut self,
        of: Option<GenerationId>,
        slot: SlotId,
        members: Vec<MemberId>,
    ) -> Vec<Action> {
        self.asked.remove(&(of, Some(slot)));
        self.put_away(members)
    }

    /// Those that were asked for, for a generation, are there, and nobody wants them any more.
    pub fn discard(&mut self, generation: GenerationId, members: Vec<MemberId>) -> Vec<Action> {
        self.asked.remove(&(Some(generation), None));
        self.put_away(members)
    }

    fn put_away(&mut self, members: Vec<MemberId>) -> Vec<Action> {
        for &member in &members {
            self.steering.arrived(member);
        }
        self.take_out(members)
    }

    /// None of those that were asked for, for a generation, could be bound.
    pub fn not_bound(&mut self, generation: GenerationId) {
        let asked = self.asked.remove(&(Some(generation), None));
        self.not_there(asked);
    }

    fn not_there(&mut self, asked: Option<Vec<MemberId>>) {
        self.told = None;
        for member in asked.unwrap_or_default() {
            self.steering.failed(member);
        }
    }

    /// Those that were asked for are there, for the workers of this generation: `wanted`, as they
    /// were `bound`.
    pub fn open(
        &mut self,
        generation: GenerationId,
        wanted: &[NewMember],
        bound: Vec<BoundMember>,
    ) {
        self.told = None;
        self.asked.remove(&(Some(generation), None));
        for BoundMember { member, name } in bound {
            let place = wanted.iter().find(|wanted| wanted.member == member);
            let Some(&NewMember { socket, slot, .. }) = place else { continue };
            let kind = self.kind(generation, socket).unwrap_or(Kind::Shared);
            let scope = self.scope(kind, generation, slot.unwrap_or(SlotId(0)));
            self.steering.arrived(member);
            // Who listens alone gets all, also before it is known to be there.
            let had_share = self.steering.share(member).is_some_and(|share| share > 0);
            let fresh = Member { had_share, ..Member::fresh(socket, name, scope) };
            self.members.insert(member, fresh);
        }
    }

    /// A slot has sockets of its own, over all generations or in this one.
    pub fn open_slot(
        &mut self,
        of: Option<GenerationId>,
        slot: SlotId,
        members: Vec<(SocketId, BoundMember)>,
    ) {
        self.told = None;
        self.asked.remove(&(of, Some(slot)));
        let scope = self.slot_scope(of, slot);
        for (socket, BoundMember { member, name }) in members {
            self.steering.arrived(member);
            // Who listens alone gets all, also before it is known to be there.
            let had_share = self.steering.share(member).is_some_and(|share| share > 0);
            let fresh = Member { had_share, ..Member::fresh(socket, name, scope) };
            self.members.insert(member, fresh);
        }
    }

    /// Takes out the members that a slot has for itself, to be closed: over all generations, or in
    /// this one.
    pub fn close_slot(&mut self, of: Option<GenerationId>, slot: SlotId) -> Vec<Action> {
        let scope = self.slot_scope(of, slot);
        let own = |(_, member): &(_, &Member)| member.scope == scope;
        let closed: Vec<MemberId> = self.members.iter().filter(own).map(|(&id, _)| id).collect();
        self.take_out(closed)
    }

    /// The workers of a generation get these, in this order. Those that were open for whoever comes
    /// next are its own. An heir gets the members of the other, with what waits in them.
    pub fn take_up(
        &mut self,
        generation: GenerationId,
        sockets: &[Socket],
        heir_of: Option<GenerationId>,
    ) {
        if let Some(other) = heir_of {
            self.heirs.insert(generation, self.root(other));
        }
        let root = self.root(generation);
        let order: Vec<(SocketId, Kind)> =
            sockets.iter().map(|socket| (socket.id, Kind::of(&socket.members))).collect();
        for member in self.members.values_mut() {
            let Scope::Coming(slot) = member.scope else { continue };
            let kind = order.iter().find(|(socket, _)| *socket == member.socket);
            let slot = slot.unwrap_or(SlotId(0));
            member.scope = match kind {
                Some((_, kind @ (Kind::Shared | Kind::Dispatched(_) | Kind::EachGeneration)))
                    if slot == SlotId(0) =>
                {
                    Scope::of(*kind, root, slot)
                }
                Some((_, Kind::EachWorker)) => Scope::Worker(root, slot),
                Some(_) | None => continue,
            };
        }
        self.orders.insert(generation, order);
        self.told = None;
        self.announced.clear();
    }

    /// What the workers of a generation in the first so many slots get and is not open yet. Sockets
    /// of which each slot has one over all generations are none of it.
    #[must_use]
    pub fn lacking(&self, generation: GenerationId, slots: u32) -> Vec<(SocketId, Option<SlotId>)> {
        let mut open: BTreeMap<SocketId, BTreeSet<Option<SlotId>>> = BTreeMap::new();
        let order = self.orders.get(&generation).map(Vec::as_slice).unwrap_or_default();
        for member in self.members.values() {
            let slot = match member.scope {
                Scope::Worker(_, slot) => slot,
                Scope::Shared | Scope::Generation(_) => SlotId(0),
                Scope::Slot(_) | Scope::Coming(_) => continue,
            };
            let Some(kind) = self.kind(generation, member.socket) else { continue };
            if member.scope == self.scope(kind, generation, slot) {
                let slot = (kind == Kind::EachWorker).then_some(slot);
                open.entry(member.socket).or_default().insert(slot);
            }
        }
        let mut lacking = Vec::new();
        for &(socket, kind) in order {
            let wanted: Vec<Option<SlotId>> = match kind {
                Kind::Shared | Kind::Dispatched(_) | Kind::EachGeneration => vec![None],
                Kind::EachWorker => (0..slots).map(|slot| Some(SlotId(slot))).collect(),
                Kind::EachSlot => Vec::new(),
            };
            let is_open =
                |slot: &Option<SlotId>| open.get(&socket).is_some_and(|open| open.contains(slot));
            let missing = wanted.into_iter().filter(|slot| !is_open(slot));
            lacking.extend(missing.map(|slot| (socket, slot)));
        }
        lacking
    }

    /// The sockets of a generation of which each of its slots has one.
    #[must_use]
    pub fn of_each_worker(&self, generation: GenerationId) -> Vec<SocketId> {
        let order = self.orders.get(&generation).into_iter().flatten();
        order.filter(|(_, kind)| *kind == Kind::EachWorker).map(|&(socket, _)| socket).collect()
    }

    /// Whether each slot of a generation has what each slot is to have by these.
    #[must_use]
    pub fn fit_slots(&self, generation: GenerationId, sockets: &[Socket]) -> bool {
        let each_worker = sockets.iter().filter(|it| Kind::of(&it.members) == Kind::EachWorker);
        let wanted: BTreeSet<SocketId> = each_worker.map(|socket| socket.id).collect();
        wanted == self.of_each_worker(generation).into_iter().collect()
    }

    /// Has the kernel send new connections to those who claim them. Sockets of all generations go
    /// to whoever has them; where nobody of a socket can take any, they wait with the generation that
    /// serves, in slots that are wanted. Of a generation's own those that are stalled get none, unless
    /// all are.
    pub fn steer(&mut self, serves: Serving, claims: &[Claim]) -> Vec<Action> {
        if self.told.as_ref().is_some_and(|told| told.0 == serves && told.1 == claims) {
            return Vec::new();
        }
        let serving = serves.generation;
        let (members, orders, heirs) = (&self.members, &self.orders, &self.heirs);
        let root = |generation| heirs.get(&generation).copied().unwrap_or(generation);
        let takers = self.takers(claims);
        let kind = |generation: GenerationId, socket: SocketId| {
            let order = orders.get(&generation)?;
            order.iter().find(|(it, _)| *it == socket).map(|&(_, kind)| kind)
        };
        // Each worker of a generation gets its share of the part: times the sizes of the others, so
        // that it stays a whole number.
        let heads = |claim: &Claim, socket: SocketId| match kind(claim.generation, socket) {
            Some(Kind::EachWorker) => {
                let slots = takers.get(&(root(claim.generation), socket)).map_or(0, BTreeSet::len);
                u32::try_from(slots).unwrap_or(u32::MAX)
            }
            Some(Kind::EachGeneration) => u32::from(!claim.ready.is_empty()),
            Some(Kind::Shared | Kind::Dispatched(_) | Kind::EachSlot) | None => 0,
        };
        let weight = |id: MemberId| {
            let Some(member) = members.get(&id) else { return 0 };
            let (generation, slot) = match member.scope {
                Scope::Shared => {
                    let kind = |generation| kind(generation, member.socket);
                    return u32::from(match kind(serving) {
                        Some(Kind::Shared | Kind::Dispatched(_)) => true,
                        Some(Kind::EachGeneration | Kind::EachWorker | Kind::EachSlot) | None => {
                            // In slots that are changed over already somebody is given what comes.
                            let mut claims = claims.iter().filter(|claim| !claim.ready.is_empty());
                            claims
                                .any(|it| matches!(kind(it.generation), Some(Kind::Dispatched(_))))
                        }
                    });
                }
                Scope::Slot(_) => return 1,
                Scope::Generation(generation) => (generation, None),
                Scope::Worker(generation, slot) => (generation, Some(slot)),
                Scope::Coming(_) => return 0,
            };
            let Some(claim) = claims.iter().find(|claim| root(claim.generation) == generation)
            else {
                return 0;
            };
            let has_share = |slot| {
                let takers = takers.get(&(generation, member.socket));
                takers.is_some_and(|takers| takers.contains(&slot))
            };
            if slot.map_or(!claim.ready.is_empty(), has_share) {
                let others = claims.iter().filter(|other| root(other.generation) != generation);
                let others = others.map(|other| heads(other, member.socket).max(1));
                others.fold(claim.part, u32::saturating_mul)
            } else {
                0
            }
        };
        let taken: BTreeSet<SocketId> = members
            .iter()
            .filter(|&(&id, _)| weight(id) > 0)
            .map(|(_, member)| member.socket)
            .collect();
        let waits = |id: MemberId| {
            members.get(&id).is_some_and(|member| match member.scope {
                Scope::Generation(own) => own == root(serving),
                Scope::Worker(own, slot) => own == root(serving) && slot.0 < serves.wanted,
                Scope::Shared | Scope::Slot(_) | Scope::Coming(_) => false,
            })
        };
        let actions = self.steering.steer(|group, id| {
            if taken.contains(&group.socket) { weight(id) } else { u32::from(waits(id)) }
        });
        self.told = Some((serves, claims.to_vec()));
        for action in &actions {
            let Action::Steer { shares, .. } = action else { continue };
            for share in shares.iter().filter(|share| share.weight > 0) {
                if let Some(member) = self.members.get_mut(&share.member) {
                    member.had_share = true;
                }
            }
        }
        actions
    }

    /// The slots whose workers get what is new, of each generation that claims some and each of its
    /// sockets of which every worker has one. One that was shut down is not found.
    fn takers(&self, claims: &[Claim]) -> BTreeMap<(GenerationId, SocketId), BTreeSet<SlotId>> {
        let mut free: BTreeMap<_, BTreeSet<SlotId>> = BTreeMap::new();
        let mut all: BTreeMap<_, BTreeSet<SlotId>> = BTreeMap::new();
        let listening = self.steering.listening();
        for (&id, member) in self.members.iter().filter(|(id, _)| listening.contains(id)) {
            let Scope::Worker(generation, slot) = member.scope else { continue };
            let mut claims = claims.iter();
            let claim = claims.find(|claim| self.root(claim.generation) == generation);
            if claim.is_some_and(|claim| claim.ready.contains(&slot)) {
                let of = (generation, member.socket);
                all.entry(of).or_default().insert(slot);
                if !self.stalled.contains(&id) {
                    free.entry(of).or_default().insert(slot);
                }
            }
        }
        // Where all are stalled they are as if none were.
        all.extend(free);
        all
    }

    /// The members of groups that each are a worker's own who claims new connections.
    #[must_use]
    pub fn taken_by(&self, claims: &[Claim]) -> Vec<MemberId> {
        let claimed = |(id, member): &(&MemberId, &Member)| {
            let Scope::Worker(generation, slot) = member.scope else { return false };
            let mut claims = claims.iter();
            let claim = claims.find(|claim| self.root(claim.generation) == generation);
            self.steering.has(**id) && claim.is_some_and(|claim| claim.ready.contains(&slot))
        };
        self.members.iter().filter(claimed).map(|(&id, _)| id).collect()
    }

    /// From these their workers take nothing.
    pub fn set_stalled(&mut self, stalled: BTreeSet<MemberId>) {
        if self.stalled != stalled {
            self.stalled = stalled;
            self.told = None;
        }
    }

    /// Whether new connections pass a member by that is stalled: others of its generation are not.
    #[must_use]
    pub fn passes_by(&self, claims: &[Claim], member: MemberId) -> bool {
        let Some(Member { socket, scope: Scope::Worker(generation, slot), .. }) =
            self.members.get(&member)
        else {
            return false;
        };
        let takers = self.takers(claims);
        let takers = takers.get(&(*generation, *socket));
        takers.is_some_and(|takers| !takers.contains(slot))
    }

    /// Whether a generation has sockets of which each worker has one, and the kernel is told which get
    /// new connections.
    #[must_use]
    pub fn steers_each_worker(&self, generation: GenerationId) -> bool {
        let mut order = self.orders.get(&generation).into_iter().flatten();
        order.any(|(socket, kind)| *kind == Kind::EachWorker && self.steered.contains(socket))
    }

    /// How connections find the workers of a generation, where they have sockets of which each is
    /// for several workers: the finest of what these are.
    #[must_use]
    pub fn balance(&self, generation: GenerationId) -> Option<Balance> {
        let finer = |so_far: Option<Balance>, kind: Kind| match (so_far, kind) {
            (so_far, Kind::EachSlot) => so_far,
            (_, Kind::Dispatched(algorithm)) | (Some(Balance::Dispatch(algorithm)), _) => {
                Some(Balance::Dispatch(algorithm))
            }
            (_, Kind::EachWorker) | (Some(Balance::Slots), _) => Some(Balance::Slots),
            (_, Kind::EachGeneration) | (Some(Balance::Generation), _) => Some(Balance::Generation),
            (None | Some(Balance::Shared), Kind::Shared) => Some(Balance::Shared),
        };
        let order = self.orders.get(&generation).into_iter().flatten();
        order.map(|&(_, kind)| kind).fold(None, finer)
    }

    /// The members of a worker that others get new connections for, after it had some; none where one
    /// of those that are its generation's alone still gets some. What it shares with other generations
    /// is theirs as well, whoever stops. Those of a socket that the `serving` generation has no more
    /// are among them: nobody else can get what comes to them, and it is to be finished all the same.
    #[must_use]
    pub fn steered_away(
        &self,
        serving: GenerationId,
        generation: GenerationId,
        slot: SlotId,
    ) -> Vec<MemberId> {
        let members = self.members_for(generation, slot).into_iter();
        let own = |id: &MemberId| {
            let member = self.members.get(id);
            let own = member.is_some_and(|member| member.scope.generation().is_some());
            own && self.steering.has(*id)
        };
        let steered: Vec<MemberId> = members.filter(own).collect();
        let given_up = |id: &MemberId| {
            let member = self.members.get(id);
            member.is_some_and(|member| self.kind(serving, member.socket).is_none())
        };
        let away = |id: &MemberId| {
            let had_share = self.members.get(id).is_some_and(|member| member.had_share);
            had_share && self.steering.is_steered_away(*id)
        };
        let gone_or_away = |id: &MemberId| given_up(id) || away(id);
        if steered.iter().all(gone_or_away) && steered.iter().any(away) {
            steered
        } else {
            Vec::new()
        }
    }

    /// The members that workers of these generations and slots have, as far as they are in groups.
    #[must_use]
    pub fn in_groups(&self, places: &BTreeSet<(GenerationId, SlotId)>) -> BTreeSet<MemberId> {
        let places: BTreeSet<_> = places.iter().map(|&(of, slot)| (self.root(of), slot)).collect();
        let generations: BTreeSet<GenerationId> = places.iter().map(|&(of, _)| of).collect();
        let has = |(_, member): &(_, &Member)| match member.scope {
            Scope::Generation(of) => generations.contains(&of),
            Scope::Worker(of, slot) => places.contains(&(of, slot)),
            // It stays with all others that have it, whoever leaves.
            Scope::Shared | Scope::Slot(_) | Scope::Coming(_) => false,
        };
        let members = self.members.iter().filter(has).map(|(&id, _)| id);
        members.filter(|&id| self.steering.has(id)).collect()
    }

    /// The sockets of which spares are to be bound while these members may leave their groups, and
    /// how many.
    #[must_use]
    pub fn spares_lacking(&self, at_risk: &BTreeSet<MemberId>) -> Vec<(SocketId, usize)> {
        let lacking = self.steering.lacking(at_risk).into_iter();
        lacking.map(|(group, count)| (group.socket, count)).collect()
    }

    /// These are asked for as spares.
    pub fn ask_spares(&mut self, wanted: &[NewMember]) {
        self.told = None;
        for &NewMember { socket, slot, member } in wanted {
            self.steering.ask_spare(GroupId { socket, slot }, member);
        }
    }

    /// The spares are there, all that were asked for, or none.
    pub fn spares_asked(&mut self, members: &[MemberId], bound: bool) {
        self.told = None;
        for &member in members {
            if bound {
                self.steering.arrived(member);
            } else {
                self.steering.failed(member);
            }
        }
    }

    /// These spares are there, and nobody wants them any more: those of them that were not closed before
    /// that was known.
    pub fn discard_spares(&mut self, mut members: Vec<MemberId>) -> Vec<Action> {
        members.retain(|&member| self.steering.is_known(member));
        self.take_out(members)
    }

    /// Whether a spare is one of ours.
    #[must_use]
    pub fn has_spares(&self) -> bool {
        self.steering.spares().next().is_some()
    }

    /// Takes out the spares of groups that none of these members may leave, to be closed.
    pub fn close_spares(&mut self, at_risk: &BTreeSet<MemberId>) -> Vec<Action> {
        let idle = self.steering.idle_spares(at_risk);
        if idle.is_empty() { Vec::new() } else { self.take_out(idle) }
    }

    /// The generation that has a member alone, if one does.
    #[must_use]
    pub fn generation_of(&self, member: MemberId) -> Option<GenerationId> {
        self.members.get(&member).and_then(|member| member.scope.generation())
    }

    /// Somebody shut a member down: it is out of its group.
    pub fn left(&mut self, member: MemberId) {
        self.told = None;
        self.steering.leave(member);
    }

    /// A member is told to listen.
    pub fn listens_again(&mut self, member: MemberId) {
        self.told = None;
        self.steering.rejoin(member);
    }

    /// A member that was told to listen does.
    pub fn listens(&mut self, member: MemberId) {
        self.steering.arrived(member);
    }

    /// A member that was told to listen does not.
    pub fn does_not_listen(&mut self, member: MemberId) {
        self.told = None;
        self.steering.not_rejoined(member);
    }

    /// Those that were to be closed are.
    pub fn closed(&mut self, members: &[MemberId]) {
        self.steering.closed(members);
    }

    fn add(&mut self, id: MemberId, member: Member) {
        self.told = None;
        if self.steered.contains(&member.socket) {
            let slot = match member.scope {
                Scope::Slot(slot) => Some(slot),
                Scope::Shared | Scope::Generation(_) | Scope::Worker(..) | Scope::Coming(_) => None,
            };
            self.steering.join(GroupId { socket: member.socket, slot }, id);
        }
        self.members.insert(id, member);
    }

    /// The group of a socket that is asked for. Only where each slot has an address of its own is it
    /// the slot's.
    fn group_of(&self, socket: SocketId, slot: Option<SlotId>) -> GroupId {
        let kinds = self.orders.values().flatten();
        let each_slot =
            kinds.filter(|(it, _)| *it == socket).any(|(_, kind)| *kind == Kind::EachSlot);
        GroupId { socket, slot: slot.filter(|_| each_slot) }
    }

    /// The generation whose members a generation has.
    #[must_use]
    pub fn root(&self, generation: GenerationId) -> GenerationId {
        self.heirs.get(&generation).copied().unwrap_or(generation)
    }

    fn scope(&self, kind: Kind, generation: GenerationId, slot: SlotId) -> Scope {
        Scope::of(kind, self.root(generation), slot)
    }

    fn slot_scope(&self, of: Option<GenerationId>, slot: SlotId) -> Scope {
        of.map_or(Scope::Slot(slot), |generation| Scope::Worker(self.root(generation), slot))
    }

    fn kind(&self, generation: GenerationId, socket: SocketId) -> Option<Kind> {
        let order = self.orders.get(&generation)?;
        order.iter().find(|(it, _)| *it == socket).map(|&(_, kind)| kind)
    }

    fn take_out(&mut self, members: Vec<MemberId>) -> Vec<Action> {
        self.told = None;
        self.members.retain(|id, _| !members.contains(id));
        self.refusing.retain(|id| !members.contains(id));
        self.steering.close(members)
    }

    /// Only these generations count from here on: takes out the members that none of them has, to be
    /// closed.
    pub fn keep(&mut self, generations: &BTreeSet<GenerationId>) -> Vec<Action> {
        let before = self.orders.len();
        self.orders.retain(|generation, _| generations.contains(generation));
        self.heirs.retain(|generation, _| generations.contains(generation));
        let has = |own: GenerationId, socket: SocketId, kind: Kind| {
            let mut generations = self.orders.keys().filter(|&&it| self.root(it) == own);
            generations.any(|&it| self.kind(it, socket) == Some(kind))
        };
        let named = |member: &Member| {
            let of = |is_it: &dyn Fn(Kind) -> bool| {
                let mut orders = self.orders.values().flatten();
                orders.any(|&(socket, kind)| socket == member.socket && is_it(kind))
            };
            match member.scope {
                Scope::Shared => {
                    of(&|kind| matches!(kind, Kind::Shared | Kind::Dispatched(_)))
                        || self.announced.contains(&member.socket)
                }
                Scope::Slot(_) => {
                    of(&|kind| kind == Kind::EachSlot) || self.announced.contains(&member.socket)
                }
                Scope::Coming(_) => self.announced.contains(&member.socket),
                Scope::Generation(own) => has(own, member.socket, Kind::EachGeneration),
                Scope::Worker(own, _) => has(own, member.socket, Kind::EachWorker),
            }
        };
        // Asked after everything that happens, and seldom is there one.
        if self.orders.len() == before && self.members.values().all(named) {
            return Vec::new();
        }
        let mut members = self.members.iter();
        let gone = members.by_ref().filter(|(_, member)| !named(member)).map(|(&id, _)| id);
        let gone = gone.collect();
        self.take_out(gone)
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
        let of = |&(socket, kind): &(SocketId, Kind)| {
            let scope = self.scope(kind, generation, slot);
            let mut members = self.members.iter();
            let is_it = |member: &Member| member.socket == socket && member.scope == scope;
            members.find(|(_, member)| is_it(member)).map(|(&id, _)| id)
        };
        let is_given = |(_, kind): &&(SocketId, Kind)| !matches!(kind, Kind::Dispatched(_));
        order.filter(is_given).filter_map(of).collect()
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
        // What nobody else shares is its generation's to choose.
        let occasion = match (occasion, member.scope.generation()) {
            (Occasion::Rolling(generation), Some(_)) => Occasion::Serving(generation),
            (Occasion::Other, Some(_)) if member.mode.serving.is_none() => {
                return Findings { listen, tell_backlog, set_mode: None };
            }
            (occasion, _) => occasion,
        };
        Findings { listen, tell_backlog, set_mode: member.mode_found(occasion, state.mode) }
    }

    /// The reload's generation serves from here on: the members whose mode it needs changed.
    pub fn commit(&mut self) -> Vec<(MemberId, Mode)> {
        let mut changed = Vec::new();
        let shared = |(_, member): &(&MemberId, &mut Member)| member.scope.generation().is_none();
        for (&id, member) in self.members.iter_mut().filter(shared) {
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
        self.members.get(&member).is_some_and(|member| {
            let kind = self.kind(to.generation, member.socket);
            let kind = kind.filter(|kind| !matches!(kind, Kind::Dispatched(_)));
            kind.is_some_and(|kind| member.scope == self.scope(kind, to.generation, to.slot))
        })
    }

    /// Takes all members out, to be closed: the service stops.
    pub fn close(&mut self) -> Vec<Action> {
        self.announced.clear();
        self.refusing.clear();
        let mut all: Vec<MemberId> = std::mem::take(&mut self.members).into_keys().collect();
        all.extend(self.steering.spares());
        self.steering.close(all)
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
            had_share: false,
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

fn numbers(wanted: &[NewMember]) -> Vec<MemberId> {
    wanted.iter().map(|wanted| wanted.member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Occasion = Occasion::Serving(GenerationId(1));
    const NEW: Occasion = Occasion::Rolling(GenerationId(2));
    const MEMBER: MemberId = MemberId(7);

    fn socket(id: u32) -> Socket {
        Socket {
            id: SocketId(id),
            name: format!("socket {id}"),
            members: Members::Shared,
            steered: false,
            refusable: false,
        }
    }

    fn closes<const N: usize>(members: [u32; N]) -> [Action; N] {
        members.map(|member| Action::Close(MemberId(member)))
    }

    fn to(worker: u64, slot: u32) -> Recipient {
        let generation = GenerationId(1);
        Recipient { worker: WorkerId(worker), slot: SlotId(slot), generation }
    }

    fn sockets() -> Sockets {
        let (name, members) = ("http".to_owned(), Members::Shared);
        Sockets::new(
            GenerationId(1),
            &[Socket { id: SocketId(7), name, members, steered: false, refusable: false }],
        )
    }

    #[test]
    fn a_slot_gets_what_is_shared_and_what_is_its_own_in_the_order_of_the_sockets() {
        let bound = |id| BoundMember { member: MemberId(id), name: format!("[::]:{id}") };
        let each = |id, members: [u32; 2]| Socket {
            id: SocketId(id),
            name: "8001+{slot}".to_owned(),
            members: Members::EachSlot { bound: members.map(bound).into(), slots_max: 9 },
            steered: false,
            refusable: false,
        };
        let shared = socket(1);
        let mut sockets =
            Sockets::new(GenerationId(1), &[each(0, [0, 2]), shared, each(2, [4, 3])]);
        let of = |sockets: &Sockets, slot| {
            let members = sockets.members_for(GenerationId(1), SlotId(slot));
            members.into_iter().map(|member| member.0).collect::<Vec<_>>()
        };
        assert_eq!([of(&sockets, 0), of(&sockets, 1)], [vec![0, 1, 4], vec![2, 1, 3]]);
        assert_eq!(of(&sockets, 2), [1]);
        sockets.open_slot(None, SlotId(2), vec![(SocketId(0), bound(9)), (SocketId(2), bound(8))]);
        assert_eq!(of(&sockets, 2), [9, 1, 8]);
        assert_eq!(sockets.name(MemberId(9)), "[::]:9");
        assert_eq!(sockets.close_slot(None, SlotId(1)), closes([2, 3]));
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
        sockets.take_up(two, &second, None);
        assert_eq!(given(&sockets, one), [MemberId(1), MemberId(2)]);
        assert_eq!(given(&sockets, two), [MemberId(5), MemberId(2)]);
        assert!(sockets.was_given(MemberId(2), to(1, 0)));
        assert!(!sockets.was_given(MemberId(5), to(1, 0)));
        assert_eq!(sockets.keep(&BTreeSet::from([one, two])), []);
        assert_eq!(sockets.keep(&BTreeSet::from([two])), closes([1]), "after a commit");

        sockets.renewed(MemberId(2), MemberId(6), WorkerId(4));
        let of_two = |worker| Recipient { generation: two, ..to(worker, 0) };
        let is_stale = |worker| sockets.has_stale([of_two(worker)].into_iter());
        assert!(is_stale(4) && !is_stale(5));
        sockets.announce(&[socket(7)]);
        sockets.announce(&[socket(2)]);
        assert_eq!(sockets.keep(&BTreeSet::from([two])), closes([7]), "another came in between");
        sockets.take_up(three, &[socket(2)], None);
        assert_eq!(sockets.keep(&BTreeSet::from([two])), [], "after an abort");
        assert_eq!(given(&sockets, two), [MemberId(5), MemberId(6)]);
    }
}
