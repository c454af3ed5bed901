//! What goes on in the network while the world turns, and S14 as far as connections have to do with
//! it: none is lost by what shepherd does.

use std::time::Duration;

use shepherd::core::action::NewMember;
use shepherd::core::drain::{self, Manners};
use shepherd::core::event::{Closing, DrainSeen, Event, Exit, Left, Queued, WorkerEvent};
use shepherd::core::ids::{GenerationId, MemberId, ServiceId, SlotId, SocketId, WorkerId};
use shepherd::core::policy::{Members, Signal};
use shepherd::core::steering::GroupId;
use shepherd::core::time::Time;

use crate::fake_network::{At, AtStop, Blind, Connection, Whose};
use crate::fate::{Deed, Told, ms};
use crate::invariants::{Violation, ensure};

use super::{End, Happening, Main, World};

/// What goes on by itself, unseen by the core.
#[derive(Debug, Clone)]
pub(super) enum Stir {
    /// The handshake of a connection is over.
    Shakes(u64),
    /// A client never finishes its handshake.
    GivesUp(u64),
    /// Whoever can take what waits does.
    Accepts(MemberId),
    /// A connection is over.
    Ends(u64),
    /// What is left is looked at, one thing after the other.
    Looks(Look),
}

/// A look under way.
#[derive(Debug, Clone)]
pub(super) struct Look {
    pub(super) service: ServiceId,
    pub(super) wanted: drain::Look,
    pub(super) seen: Seen,
}

/// What a look has seen so far.
#[derive(Debug, Clone)]
pub(super) enum Seen {
    Nothing,
    Handshakes(Vec<Option<u32>>),
    Queues(Vec<(MemberId, Left)>),
}

/// How long connections come in a world where they always do: until the last reload is carried out,
/// and what it left has mostly ended.
const KNOCKS_UNTIL: Duration = ms(250);

/// Whether a worker that shuts its sockets down was asked to stop after it had been ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WasAsked {
    Yes,
    No,
}

/// When connections come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Knocks {
    /// As the script has it.
    ByChance,
    /// One to each group before each action, for a while.
    Always,
}

impl World<'_> {
    /// Connections come, at any moment but while queues are looked at.
    pub(super) fn knock(&mut self) {
        if self.looks {
            return;
        }
        let groups: Vec<GroupId> = self.network.groups.ids().collect();
        match self.knocks {
            Knocks::Always => {
                if self.stopped || self.now.since(Time::ZERO) > KNOCKS_UNTIL {
                    return;
                }
                for group in groups {
                    self.last_chance += 1;
                    self.arrive(group, self.last_chance);
                }
            }
            Knocks::ByChance => {
                let calm = self.script.is_over() || self.net.is_over();
                if groups.is_empty() || calm || !self.net.one_in(4) {
                    return;
                }
                let group = groups[usize::from(self.net.below(250)) % groups.len()];
                for _ in 0..self.net.pick(&[1, 1, 3]) {
                    let chance = usize::from(self.net.below(250));
                    self.arrive(group, chance);
                }
            }
        }
    }

    fn arrive(&mut self, group: GroupId, chance: usize) {
        let Some(member) = self.network.groups.pick(group, chance) else { return };
        let Some(service) = self.network.service(group) else { return };
        let id = self.network.begin(member, service);
        let now = self.now;
        self.journal.write(|| format!("{now:?}     .. {id} of {group:?} finds {member}"));
        if self.knocks == Knocks::ByChance && self.net.one_in(16) {
            self.network.excuse(id);
            return self.plan(ms(5000), Happening::Stirs(Stir::GivesUp(id)));
        }
        let takes: &[u64] = match self.knocks {
            Knocks::ByChance => &[0, 0, 0, 1, 7, 900],
            Knocks::Always => &[0, 1, 7],
        };
        match self.net.pick(takes) {
            0 => self.shake(id),
            takes => self.plan(ms(takes), Happening::Stirs(Stir::Shakes(id))),
        }
    }

    pub(super) fn stir(&mut self, stir: Stir) -> Result<(), Violation> {
        match stir {
            Stir::Shakes(id) => self.shake(id),
            Stir::GivesUp(id) => {
                self.network.give_up(id);
            }
            Stir::Accepts(member) => self.accept(member),
            Stir::Ends(id) => {
                if let Some(worker) = self.network.end(id) {
                    self.exit_when_done(worker);
                }
            }
            Stir::Looks(look) => self.look_on(look),
        }
        self.check_lost()
    }

    fn shake(&mut self, id: u64) {
        if let Some(member) = self.network.shake(id) {
            let after = ms(self.net.pick(&[0, 0, 1, 20]));
            self.plan(after, Happening::Stirs(Stir::Accepts(member)));
        }
    }

    /// A worker that can takes what has waited longest.
    fn accept(&mut self, member: MemberId) {
        if !self.network.waits(member) {
            return;
        }
        let now = self.now;
        let takes = |(_, process): &(&WorkerId, &super::Process)| {
            let able = match (process.main, process.fate.able) {
                (Main::Runs { since }, Some(able)) => since + able <= now,
                (Main::Runs { .. }, None) | (Main::SettingUp | Main::Exited, _) => false,
            };
            able && !process.frozen && process.end == End::No && process.members.contains(&member)
        };
        let able: Vec<WorkerId> = self.processes.iter().filter(takes).map(|(&id, _)| id).collect();
        if able.is_empty() {
            return;
        }
        let worker = able[usize::from(self.net.below(250)) % able.len()];
        let Some(id) = self.network.take(member, worker) else { return };
        self.journal.write(|| format!("{now:?}     .. {id} is taken by worker {worker}"));
        let lasts: &[u64] = match self.knocks {
            Knocks::ByChance => &[3, 0, 20, 200, 3000, 9000],
            Knocks::Always => &[3, 0, 20, 60],
        };
        let lasts = ms(self.net.pick(lasts));
        self.plan(lasts, Happening::Stirs(Stir::Ends(id)));
        if self.network.waits(member) {
            let after = ms(self.net.pick(&[0, 1, 5]));
            self.plan(after, Happening::Stirs(Stir::Accepts(member)));
        }
    }

    /// A worker can serve: it takes what waits for it.
    pub(super) fn can_accept(&mut self, worker: WorkerId) {
        let Some(process) = self.processes.get(&worker) else { return };
        let Some(able) = process.fate.able else { return };
        for member in process.members.clone() {
            self.plan(able, Happening::Stirs(Stir::Accepts(member)));
        }
    }

    /// A worker's main process has exited. Where it was not asked to, and serves no more, what waits
    /// for it and no other waits for nobody.
    pub(super) fn leaves_unasked(&mut self, worker: WorkerId) {
        let Some(process) =
            self.processes.get(&worker).filter(|it| it.end == End::No && it.kills == 0)
        else {
            return;
        };
        let others = |member: &MemberId| {
            self.processes.iter().any(|(&other, it)| {
                let holds = it.members.contains(member);
                other != worker
                    && holds
                    && self.was_ready.contains(&other)
                    && it.main != Main::Exited
            })
        };
        let alone: Vec<MemberId> =
            process.members.iter().filter(|member| !others(member)).copied().collect();
        if !self.ledger.serves(worker) {
            self.network.tainted.extend(alone);
        }
        if let Some(process) = self.processes.get_mut(&worker) {
            process.end = End::Unasked;
        }
    }

    /// A worker does, or may do, what loses connections.
    pub(super) fn taint(&mut self, worker: WorkerId) {
        if let Some(process) = self.processes.get(&worker) {
            self.network.tainted.extend(process.members.iter().copied());
        }
    }

    /// A member is bound, and listens.
    pub(super) fn bind(&mut self, socket: SocketId, slot: Option<SlotId>, member: MemberId) {
        self.sockets.bind(socket, member);
        let Some(group) = self.network.group_of(socket, slot) else { return };
        let certain = self.is_certain(group);
        if !self.network.bind(group, member) && certain {
            // All that are bound at once for nobody's group are at once its own.
            let alone = self.network.groups.meant(group).is_none();
            if !alone {
                let why = format!("S14: {member} listens, and the program of {group:?} finds it");
                self.lost.get_or_insert(why);
            }
        }
    }

    /// Our copy is closed. The kernel's is there as long as a process has it.
    pub(super) fn close(&mut self, member: MemberId) {
        self.sockets.close(member);
        self.changes(member);
        self.release();
    }

    /// Members that nobody has any more are gone.
    pub(super) fn release(&mut self) {
        let all: Vec<MemberId> = {
            let groups = self.network.groups.ids();
            groups.flat_map(|group| self.network.groups.order(group).to_vec()).collect()
        };
        for member in all {
            let held = self.sockets.get(member).is_some()
                || self.processes.values().any(|it| !it.gone && it.members.contains(&member));
            if !held {
                self.leave(member);
            }
        }
    }

    /// A member listens no more, whoever had that done.
    pub(super) fn leave(&mut self, member: MemberId) {
        for connection in self.network.leave(member) {
            self.judge(connection, "closed");
        }
    }

    /// We have a member stop listening: what waits there is reset. We hear of it as of any shutdown.
    pub(super) fn stop_listening(&mut self, member: MemberId) {
        self.sockets.suffer(&[member], Deed::ShutDown);
        if let Some(event) = self.sockets.broken(member) {
            self.plan_in_order(ms(0), Happening::Answered(Event::Socket(member, event)));
        }
        let now = self.now;
        for connection in self.network.leave(member) {
            self.journal.write(|| format!("{now:?}     .. one is refused: {connection:?}"));
        }
    }

    /// A member that was shut down listens again, as the last one.
    pub(super) fn listen_again(&mut self, member: MemberId) {
        let Some(group) = self.network.group(member) else { return };
        if self.network.groups.has(member) {
            return;
        }
        let parked = self.network.bind(group, member);
        // It may have been told to before, in vain, and be steered to since.
        let index = self.network.groups.order(group).len() - 1;
        let is_meant =
            self.network.groups.meant(group).is_some_and(|it| it.get(index) == Some(&member));
        if !parked && !is_meant && self.is_certain_but_for(group, Some(member)) {
            let why = format!("S14: {member} listens again, and the program of {group:?} finds it");
            self.lost.get_or_insert(why);
        }
    }

    /// These are going to be bound for nobody: until that is heard the core takes them for bound.
    pub(super) fn doubt(&mut self, places: impl Iterator<Item = (SocketId, Option<SlotId>)>) {
        let groups = places.filter_map(|(socket, slot)| self.network.group_of(socket, slot));
        for group in groups.collect::<Vec<_>>() {
            *self.network.doubtful.entry(group).or_default() += 1;
        }
    }

    /// The core hears within this turn that these were not bound.
    pub(super) fn unbind(&mut self, places: impl Iterator<Item = (SocketId, Option<SlotId>)>) {
        let groups = places.filter_map(|(socket, slot)| self.network.group_of(socket, slot));
        for group in groups.collect::<Vec<_>>() {
            if let Some(count) = self.network.doubtful.get_mut(&group) {
                *count -= 1;
            }
        }
        self.network.doubtful.retain(|_, count| *count > 0);
    }

    /// The core has heard that the sockets of a slot were not bound.
    pub(super) fn slot_not_bound(
        &mut self,
        service: ServiceId,
        generation: Option<GenerationId>,
        slot: SlotId,
    ) {
        let own = |members: &Members| match generation {
            None => matches!(members, Members::EachSlot { .. }),
            Some(_) => matches!(members, Members::EachWorker { .. }),
        };
        let sockets = self.policies[&service].sockets.iter();
        let places = sockets.filter(|socket| own(&socket.members)).map(|it| (it.id, Some(slot)));
        let places: Vec<_> = places.collect();
        self.unbind(places.into_iter());
    }

    /// What a service begins with is bound before the core begins.
    pub(super) fn bind_first(&mut self) {
        let mut all: Vec<(SocketId, Option<SlotId>, MemberId)> = Vec::new();
        for socket in self.policies.values().flat_map(|policy| &policy.sockets) {
            match &socket.members {
                Members::Shared | Members::Dispatched(_) | Members::EachGeneration => {
                    all.push((socket.id, None, MemberId(socket.id.0)));
                }
                Members::EachWorker { bound } | Members::EachSlot { bound, .. } => {
                    let slots = (0..).map(|slot| Some(SlotId(slot)));
                    let bound = slots.zip(bound);
                    all.extend(bound.map(|(slot, bound)| (socket.id, slot, bound.member)));
                }
            }
        }
        for (socket, slot, member) in all {
            self.bind(socket, slot, member);
        }
    }

    /// Members that no worker gets are bound, or not.
    pub(super) fn bind_spares(&mut self, service: ServiceId, new: &[NewMember]) -> Event {
        let members = new.iter().map(|new| new.member).collect();
        if self.net.one_in(8) {
            self.doubt(new.iter().map(|new| (new.socket, new.slot)));
            self.missing.extend(new.iter().map(|new| (new.member, new.socket)));
            let failure = Some("too many open files".to_owned());
            return Event::SparesBound { service, members, failure };
        }
        for &NewMember { socket, slot, member } in new {
            self.bind(socket, slot, member);
        }
        Event::SparesBound { service, members, failure: None }
    }

    /// The core has heard that spares were not bound.
    pub(super) fn spares_not_bound(&mut self, members: &[MemberId]) {
        let places: Vec<_> = members
            .iter()
            .filter_map(|member| Some((self.missing.remove(member)?, None)))
            .collect();
        self.unbind(places.into_iter());
    }

    /// These are bound for a generation.
    pub(super) fn bind_all(&mut self, new: &[NewMember]) {
        for &NewMember { socket, slot, member } in new {
            self.unanswered.insert(member);
            self.bind(socket, slot, member);
        }
    }

    /// What happens in the network comes before what the core hears within the same moment.
    pub(super) fn stir_first(&mut self) -> Option<Result<(), Violation>> {
        let (&(at, _), happening) = self.agenda.first_key_value()?;
        let due = self.core.next_deadline().is_none_or(|(deadline, _)| at <= deadline);
        let Happening::Stirs(_) = happening else { return None };
        due.then(|| self.happen())
    }

    /// Whether the core can know the order in which the members of a group are.
    pub(super) fn is_certain(&self, group: GroupId) -> bool {
        self.is_certain_but_for(group, None)
    }

    fn is_certain_but_for(&self, group: GroupId, known: Option<MemberId>) -> bool {
        let of =
            |&member: &MemberId| Some(member) != known && self.network.group(member) == Some(group);
        !self.network.doubtful.contains_key(&group) && !self.network.unheard.keys().any(of)
    }

    /// A worker that was asked to stop does so, as its program does it.
    pub(super) fn obey(&mut self, worker: WorkerId, signal: Signal) {
        let Some(process) = self.processes.get_mut(&worker) else { return };
        if let Some(traffic) = self.network.traffic.get(&process.service) {
            self.at_stop.insert(worker, traffic.at_stop);
        }
        let (left, after) = (process.fate.left, process.fate.stop_takes);
        let faulty = process.fate.faulty;
        let how = match self.network.traffic.get(&process.service).map(|it| it.at_stop) {
            None => Exit::Code(0),
            Some(AtStop::Cuts) => named(signal),
            Some(at_stop @ (AtStop::Finishes | AtStop::ShutsDown)) => {
                if process.end == End::No && at_stop == AtStop::ShutsDown {
                    // One that shut a unix socket down would have all others replaced, for ever.
                    let members = process.members.iter().copied();
                    let members = members.filter(|&member| self.network.groups.has(member));
                    let members: Vec<MemberId> = members.collect();
                    // One that is late is asked at once, whatever it holds; and nobody knows when an
                    // operator sends a signal.
                    let asked = self.ledger.was_asked(worker);
                    let ready = self.was_ready.contains(&worker) && !faulty && asked;
                    let was_asked = if ready { WasAsked::Yes } else { WasAsked::No };
                    self.shut_all_down(&members, was_asked);
                }
                if let Some(process) = self.processes.get_mut(&worker) {
                    process.end = End::AsAsked;
                }
                return self.exit_when_done(worker);
            }
        };
        process.end = End::AsAsked;
        self.plan(after, Happening::Exits(worker, how, left));
    }

    /// A worker that was told over its channel to leave takes no more, and closes that once it has
    /// finished what it has.
    pub(super) fn leave_as_told(&mut self, worker: WorkerId) {
        self.at_stop.insert(worker, AtStop::Finishes);
        if let Some(process) = self.processes.get_mut(&worker) {
            process.end = End::AsTold;
        }
        self.exit_when_done(worker);
    }

    /// A worker that takes no more exits once it has finished what it has.
    fn exit_when_done(&mut self, worker: WorkerId) {
        let Some(process) = self.processes.get(&worker) else { return };
        if self.network.count(|it| it.at == At::Worker(worker)) > 0 {
            return;
        }
        let (left, after) = (process.fate.left, process.fate.stop_takes);
        match process.end {
            End::AsAsked => self.plan(after, Happening::Exits(worker, Exit::Code(0), left)),
            End::AsTold => {
                let told = process.fate.told;
                self.plan(ms(1), Happening::Says(worker, WorkerEvent::ChannelEnded));
                if let Told::Leaves(after) = told {
                    self.plan(ms(1) + after, Happening::Exits(worker, Exit::Code(0), left));
                }
            }
            End::No | End::Unasked => {}
        }
    }

    /// A worker's main process is gone: what it had open is cut off.
    pub(super) fn cut(&mut self, worker: WorkerId) {
        for connection in self.network.cut(worker) {
            self.judge(connection, "cut off");
        }
    }

    /// A connection is lost: whether it was to be.
    fn judge(&mut self, connection: Connection, how: &str) {
        let now = self.now;
        self.journal.write(|| format!("{now:?}     .. one is {how}: {connection:?}"));
        if !self.is_excused(connection) {
            self.lost.get_or_insert(format!("S14: a connection is {how}: {connection:?}"));
        }
    }

    /// Whether a connection may be lost.
    fn is_excused(&self, Connection { service, member, at, excused }: Connection) -> bool {
        let Some(traffic) = self.network.traffic.get(&service) else { return true };
        if excused
            || !self.ledger.keeps_serving(service)
            // A worker has done what nobody can make good.
            || self.network.tainted.contains(&member)
            // Its slot or its generation was given up while nobody could take what waits.
            || self.ledger.given_up.contains(&member)
        {
            return true;
        }
        let own = match self.network.whose(member) {
            Some(Whose::Generation) => true,
            Some(Whose::All) => false,
            // Its address is gone with it.
            Some(Whose::Slot) | None => return true,
        };
        match at {
            // It may have been on its way while that could not be seen.
            At::Handshake | At::Queue => {
                own && (!traffic.has_time || traffic.blind == Blind::Handshakes)
            }
            At::Worker(worker) => {
                // Where everybody shares a socket, how a program stops is its own affair; and one
                // that was killed, or told before it was signalled, had its time.
                let killed = self
                    .processes
                    .get(&worker)
                    .is_none_or(|it| it.kills > 0 || it.end == End::Unasked || it.is_overdue());
                let shared = self.ledger.shared.contains(&worker);
                let blind = traffic.blind == Blind::Connections;
                !own || !traffic.has_time || blind || killed || shared
            }
        }
    }

    pub(super) fn check_lost(&mut self) -> Result<(), Violation> {
        self.lost.take().map_or(Ok(()), Err)
    }

    /// What waits in these.
    pub(super) fn look_at_members(&self, members: &[MemberId]) -> Vec<(MemberId, Option<Queued>)> {
        let waits = |&member: &MemberId| {
            let count = self.network.count(|it| it.at == At::Queue && it.member == member);
            (member, Some(Queued::Connections(count)))
        };
        members.iter().map(waits).collect()
    }

    pub(super) fn look_at_drain(&mut self, service: ServiceId, wanted: drain::Look) {
        let look = Look { service, wanted, seen: Seen::Nothing };
        self.plan(ms(0), Happening::Stirs(Stir::Looks(look)));
    }

    /// What is left is looked at, in the order in which a connection goes.
    fn look_on(&mut self, mut look: Look) {
        let traffic = self.network.traffic.get(&look.service).copied();
        let blind = traffic.map_or(Blind::Nothing, |traffic| traffic.blind);
        look.seen = match look.seen {
            Seen::Nothing => {
                let count = |&member: &MemberId| {
                    self.network.count(|it| it.at == At::Handshake && it.member == member)
                };
                let seen = |member| (blind != Blind::Handshakes).then(|| count(member));
                Seen::Handshakes(look.wanted.members.iter().map(seen).collect())
            }
            Seen::Handshakes(handshakes) => {
                let count = |&member: &MemberId| {
                    self.network.count(|it| it.at == At::Queue && it.member == member)
                };
                let left =
                    look.wanted.members.iter().zip(handshakes).map(|(member, handshakes)| {
                        (*member, Left { handshakes, queued: Some(count(member)) })
                    });
                Seen::Queues(left.collect())
            }
            Seen::Queues(members) => {
                for worker in look.wanted.close_idle.clone() {
                    // Its worker takes it for ended by the client.
                    if let Some(id) = self.network.idle(worker).filter(|_| self.net.one_in(2)) {
                        self.plan(ms(0), Happening::Stirs(Stir::Ends(id)));
                    }
                }
                let open = |&worker: &WorkerId| {
                    let lives = self.runs_main(worker) && blind != Blind::Connections;
                    (worker, lives.then(|| self.network.count(|it| it.at == At::Worker(worker))))
                };
                let Look { service, wanted: drain::Look { number, workers, asked, .. }, .. } = look;
                let workers = workers.iter().map(open).collect();
                let asked = asked.into_iter().map(|(worker, _)| (worker, self.closing(worker)));
                let asked = asked.collect();
                let after = ms(self.net.pick(&[1, 0, 0, 7, 60]));
                let seen = DrainSeen { number, members, workers, asked };
                let event = Event::DrainSeen { service, seen };
                return self.plan(after, Happening::Answered(event));
            }
        };
        let after = ms(self.net.pick(&[0, 0, 0, 1]));
        self.plan(after, Happening::Stirs(Stir::Looks(look)));
    }

    /// How a worker that was asked to stop has ended its connections so far: those that it had when it
    /// was first watched. Whether one was idle is a matter of chance, and what its client ended shows
    /// nothing.
    fn closing(&mut self, worker: WorkerId) -> Closing {
        let open = self.network.count(|it| it.at == At::Worker(worker));
        let watched = self.network.watch(worker, open);
        let ended = watched.saturating_sub(open);
        let at_stop = self.at_stop.get(&worker).copied();
        let idle = u32::from(self.net.below(4)).min(ended);
        let busy = ended - idle;
        match at_stop {
            Some(AtStop::Finishes | AtStop::ShutsDown) => {
                Closing { open, finished: busy, cut: 0, left: 0 }
            }
            Some(AtStop::Cuts) if self.runs_main(worker) => Closing { open, ..Closing::default() },
            Some(AtStop::Cuts) | None => Closing { open, finished: 0, cut: busy, left: idle },
        }
    }

    /// What is learned of how a program stops is true.
    pub(super) fn check_manners(&mut self, service: &str, manners: Manners) {
        let id = self.policies.values().find(|policy| policy.name == service);
        let traffic = id.and_then(|policy| self.network.traffic.get(&policy.service));
        if manners == Manners::Finishes && traffic.is_some_and(|it| it.at_stop == AtStop::Cuts) {
            self.lost.get_or_insert(format!("S17: {service} is taken to finish, and cuts"));
        }
    }

    /// When everything is performed and heard: the core knows the kernel's order, and new connections
    /// find those that they should.
    pub(super) fn check_groups(&mut self) -> Result<(), Violation> {
        self.check_lost()?;
        let groups: Vec<GroupId> = self.network.groups.ids().collect();
        for group in groups {
            let Some(service) = self.network.service(group) else { continue };
            if !self.is_certain(group) || !self.ledger.keeps_serving(service) {
                continue;
            }
            let order = self.network.groups.order(group);
            let meant = self.network.groups.meant(group);
            let of = |member: &MemberId| self.network.group(*member) == Some(group);
            let known = meant == Some(order);
            // Whoever gets nothing may have another's place.
            let permuted = self.network.unheard_spared.iter().any(of);
            ensure!(known || permuted, "S14: {group:?} is {order:?}, {meant:?} are steered");
            let order = self.network.groups.order(group);
            let found = self.network.groups.found(group);
            self.ledger.check_found(service, group, order, &found)?;
        }
        Ok(())
    }

    /// Nothing is to come: nothing waits either.
    pub(super) fn check_network_at_rest(&self) -> Result<(), Violation> {
        let mut forgotten = self.network.forgotten();
        let forgotten = forgotten.find(|it| {
            // One that nobody wants any more may wait to be closed, with what it has.
            let ledger = &self.ledger;
            let idle =
                ledger.going.contains_key(&it.member) || ledger.spares.contains_key(&it.member);
            let goes = idle && self.is_excused(*it);
            self.ledger.keeps_serving(it.service) && self.ledger.has_begun(it.service) && !goes
        });
        ensure!(forgotten.is_none(), "S14: nobody takes {forgotten:?}");
        Ok(())
    }
}

fn named(signal: Signal) -> Exit {
    let (number, name) = match signal {
        Signal::Int => (2, "SIGINT"),
        Signal::Quit => (3, "SIGQUIT"),
        Signal::Winch => (28, "SIGWINCH"),
        _ => (15, "SIGTERM"),
    };
    Exit::Signal { number, name: Some(name), core: false }
}
