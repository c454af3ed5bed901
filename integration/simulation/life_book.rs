//! The account of what operators made of whole services, for S28.

use std::collections::BTreeSet;

use shepherd::core::Action;
use shepherd::core::action::NewMember;
use shepherd::core::configuration::Configuration;
use shepherd::core::event::Fault;
use shepherd::core::ids::{GenerationId, RequestId, ServiceId, SlotId};
use shepherd::core::policy::{BoundMember, Members};
use shepherd::core::request::Request;
use shepherd::core::status::{ServiceState, ServiceStatus};

use crate::invariants::{Violation, ensure};
use crate::ledger::{Book, Ledger, Standing, Start, Turn as OneTurn};
use crate::slot_book::SlotBook;

/// What operators made of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Life {
    Up,
    /// A restart was asked for by this request, and this definition is being read, or is.
    Rereading {
        request: RequestId,
        generation: GenerationId,
        is_read: bool,
    },
    Stopping(Turn, Then),
    Stopped,
    /// A start was asked for, and this definition is being read.
    Reviving(GenerationId, Vec<NewMember>),
}

/// Whether the workers are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// They serve until those have gone that need them and are to stop too.
    Later,
    Come,
}

/// How a service was stopped last, if it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    ByItself,
    /// One that it is bound to was.
    WithOther,
}

/// What comes when the last process is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Stay,
    Start,
    Serve(GenerationId),
}

/// What is to be read within the turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    Reread(RequestId),
    Revive,
}

impl Life {
    /// Whether workers are kept up.
    pub(crate) fn serves(&self) -> bool {
        match self {
            Life::Up | Life::Rereading { .. } | Life::Stopping(Turn::Later, _) => true,
            Life::Stopping(Turn::Come, _) | Life::Stopped | Life::Reviving(..) => false,
        }
    }

    /// Whether it serves and is to go on.
    pub(crate) fn is_up(&self) -> bool {
        self.serves() && !self.awaits_turn()
    }

    /// Whether it is to stop, and serves until others have.
    pub(crate) fn awaits_turn(&self) -> bool {
        matches!(self, Life::Stopping(Turn::Later, _))
    }

    /// Whether nobody has asked that it serve since it was stopped.
    pub(crate) fn is_down(&self) -> bool {
        match self {
            Life::Stopped | Life::Stopping(_, Then::Stay) => true,
            Life::Up | Life::Rereading { .. } | Life::Reviving(..) => false,
            Life::Stopping(_, Then::Start | Then::Serve(_)) => false,
        }
    }

    /// Whether a start or a restart is under way.
    pub(crate) fn is_changing(&self) -> bool {
        match self {
            Life::Rereading { .. } | Life::Reviving(..) => true,
            Life::Stopping(_, Then::Start | Then::Serve(_)) => true,
            Life::Up | Life::Stopped | Life::Stopping(_, Then::Stay) => false,
        }
    }

    /// Whether it is stopped and a start is to follow.
    pub(crate) fn is_about_to_start(&self) -> bool {
        match self {
            Life::Reviving(..) | Life::Stopping(_, Then::Start) => true,
            Life::Up | Life::Rereading { .. } | Life::Stopped => false,
            Life::Stopping(_, Then::Stay | Then::Serve(_)) => false,
        }
    }

    /// Whether nothing of it is to serve.
    pub(crate) fn needs_nobody(&self) -> bool {
        !self.serves() && self.keeps().is_none()
    }

    /// The generation that it keeps for later.
    pub(crate) fn keeps(&self) -> Option<GenerationId> {
        match self {
            Life::Rereading { generation, .. }
            | Life::Reviving(generation, _)
            | Life::Stopping(_, Then::Serve(generation)) => Some(*generation),
            Life::Up | Life::Stopped | Life::Stopping(_, Then::Stay | Then::Start) => None,
        }
    }
}

impl Book {
    fn end_changes(&mut self) {
        self.due = Due::Nothing;
        self.proving.leave_probation();
        self.life = match self.life.clone() {
            Life::Rereading { .. } | Life::Stopping(Turn::Later, Then::Serve(_)) => Life::Up,
            Life::Reviving(..) => Life::Stopped,
            Life::Stopping(turn, Then::Start) => Life::Stopping(turn, Then::Stay),
            life @ (Life::Up | Life::Stopping(..) | Life::Stopped) => life,
        };
    }
}

impl Ledger {
    /// A request that was not refused at once changes these services.
    pub(crate) fn learn_change(
        &mut self,
        turn: &mut OneTurn<'_>,
        request: &Request,
        id: RequestId,
        services: &[ServiceId],
        along: &BTreeSet<ServiceId>,
    ) {
        for &service in services {
            let Some(book) = self.books.get_mut(&service) else { continue };
            match (request, book.life.clone()) {
                (Request::StopServices(_), _) => {
                    book.stopped = if along.contains(&service) {
                        Stopped::WithOther
                    } else {
                        Stopped::ByItself
                    };
                    self.go_down(turn, service);
                }
                (Request::Restart(_), Life::Up) => {
                    book.due = Due::Reread(id);
                    book.proving.leave_probation();
                }
                (Request::Restart(_) | Request::StartServices(_), Life::Stopped) => {
                    book.due = Due::Revive;
                }
                (
                    Request::Restart(_) | Request::StartServices(_),
                    Life::Stopping(turn, Then::Stay),
                ) => {
                    book.life = Life::Stopping(turn, Then::Start);
                }
                (
                    Request::Restart(_)
                    | Request::StartServices(_)
                    | Request::Reload { .. }
                    | Request::RollBack(_)
                    | Request::Scale { .. }
                    | Request::Signal { .. }
                    | Request::Stop
                    | Request::Interrupt
                    | Request::StopNow,
                    _,
                ) => {}
            }
        }
    }

    /// A definition was read and these were bound. Whether that was for a start or a restart.
    pub(crate) fn learn_life_prepared(
        &mut self,
        turn: &mut OneTurn<'_>,
        service: ServiceId,
        generation: GenerationId,
        bound: &[BoundMember],
    ) {
        let Some(book) = self.books.get_mut(&service) else { return };
        match book.life.clone() {
            Life::Rereading { request, generation: coming, .. } if coming == generation => {
                book.life = Life::Rereading { request, generation, is_read: true };
            }
            Life::Reviving(coming, members) if coming == generation => {
                self.open(service, generation, &members);
                self.begin_to_serve(service, generation);
                self.saw("a service started");
            }
            Life::Up
            | Life::Rereading { .. }
            | Life::Stopping(..)
            | Life::Stopped
            | Life::Reviving(..) => {
                turn.to_close.extend(bound.iter().map(|bound| bound.member));
                if !bound.is_empty() {
                    self.saw("sockets bound for nobody");
                }
            }
        }
    }

    pub(crate) fn learn_life_unprepared(
        &mut self,
        service: ServiceId,
        generation: GenerationId,
        fault: &Fault,
    ) {
        let Some(book) = self.books.get_mut(&service) else { return };
        match fault {
            Fault::Definition(_) => book.unread.insert(generation),
            Fault::Sockets(_) => book.unbound.insert(generation),
        };
        match book.life {
            Life::Rereading { request, generation: coming, .. } if coming == generation => {
                let mut others = 0;
                for book in self.books.values_mut() {
                    if matches!(book.life, Life::Rereading { request: other, .. } if other == request)
                    {
                        book.life = Life::Up;
                        others += 1;
                    }
                }
                self.saw("a restart that was off");
                if others > 1 {
                    self.saw("a restart that was off for several");
                }
            }
            Life::Reviving(coming, _) if coming == generation => {
                book.life = Life::Stopped;
                self.end_waiting(service);
                self.saw("a start that was off");
            }
            Life::Up
            | Life::Rereading { .. }
            | Life::Stopping(..)
            | Life::Stopped
            | Life::Reviving(..) => {}
        }
    }

    /// Everything is to stop, and what was to change is off. What is down for a restart comes back.
    pub(crate) fn learn_end_of_changes(&mut self) {
        for book in self.books.values_mut().filter(|book| !book.told) {
            book.end_changes();
        }
    }

    /// A service is asked to stop for good.
    pub(crate) fn learn_end_of_life(&mut self, service: ServiceId) {
        if let Some(book) = self.books.get_mut(&service) {
            book.end_changes();
            if let Life::Stopping(..) = book.life {
                book.life = Life::Stopping(Turn::Come, Then::Stay);
            }
        }
    }

    /// A configuration was read again: a start under way begins once more with it.
    pub(crate) fn learn_configuration(&mut self, configuration: &Configuration) {
        if self.is_stopping() {
            return;
        }
        for policy in &configuration.services {
            if let Some(book) = self.books.get_mut(&policy.service)
                && let Life::Reviving(..) = book.life
            {
                book.due = Due::Revive;
            }
        }
    }

    /// Whoever was waited for may have gone.
    pub(crate) fn take_next_steps(&mut self) {
        let services: Vec<ServiceId> = self.books.keys().copied().collect();
        for service in services {
            let gone = self.alive().all(|(_, record)| record.service != service);
            let Some(book) = self.books.get_mut(&service) else { continue };
            if gone && !book.is_binding() {
                match book.life {
                    Life::Stopping(Turn::Come, Then::Stay) => book.life = Life::Stopped,
                    Life::Stopping(Turn::Come, Then::Start) => {
                        (book.life, book.due) = (Life::Stopped, Due::Revive);
                    }
                    Life::Stopping(Turn::Come, Then::Serve(generation)) => {
                        self.begin_to_serve(service, generation);
                        self.saw("a service restarted");
                    }
                    Life::Up
                    | Life::Rereading { .. }
                    | Life::Stopping(Turn::Later, _)
                    | Life::Stopped
                    | Life::Reviving(..) => {}
                }
            }
            let Some(book) = self.books.get(&service) else { continue };
            let (down, up) = (gone && !book.life.serves(), book.start == Start::Up);
            let serving = book.serving;
            for open in self.requests.values_mut() {
                if let Some(last) = open.generations.get(&service) {
                    open.gone.extend(down.then_some(service));
                    if up {
                        open.served.insert(service);
                        open.renewed.extend((serving > *last).then_some(service));
                    }
                }
            }
        }
    }

    /// A definition is to be read for a start or a restart. Whether it is.
    pub(crate) fn check_life_prepare(&mut self, action: &Action) -> Result<bool, Violation> {
        let Action::Prepare { service, generation, like, bind } = action else {
            return Ok(false);
        };
        let book = self.books.get_mut(service).ok_or("S7: no such service")?;
        match std::mem::replace(&mut book.due, Due::Nothing) {
            Due::Nothing => {
                return Ok(false);
            }
            Due::Reread(request) => {
                ensure!(bind.is_empty() && like.is_none(), "S28: {action:?}");
                let generation = *generation;
                // With nobody beside it, it takes what waits.
                let root = book.root(book.serving);
                book.heirs.insert(generation, root);
                book.life = Life::Rereading { request, generation, is_read: false };
            }
            Due::Revive => {
                let wanted = book.wanted;
                let places = book.policy.sockets.iter().flat_map(|socket| {
                    let slots: Vec<Option<SlotId>> = match socket.members {
                        Members::Shared | Members::Dispatched(_) | Members::EachGeneration => {
                            vec![None]
                        }
                        Members::EachWorker { .. } | Members::EachSlot { .. } => {
                            (0..wanted).map(SlotId).map(Some).collect()
                        }
                    };
                    slots.into_iter().map(move |slot| (socket.id, slot))
                });
                // Which socket comes first is all the same; of one the slots come in order.
                let places: BTreeSet<_> = places.collect();
                let mut told: Vec<_> = bind.iter().map(|new| (new.socket, new.slot)).collect();
                told.sort_by_key(|(socket, _)| *socket);
                ensure!(told.into_iter().eq(places) && like.is_none(), "S28: {action:?}");
                book.life = Life::Reviving(*generation, bind.clone());
                for NewMember { member, .. } in bind {
                    ensure!(*member > self.last_member, "S7: a number is used twice: {member}");
                    self.last_member = *member;
                }
            }
        }
        Ok(true)
    }

    /// What must hold of services that are down, and of what is shown of all.
    pub(crate) fn check_lives(&self, turn: &OneTurn<'_>) -> Result<(), Violation> {
        for (&service, book) in &self.books {
            ensure!(
                book.due == Due::Nothing || book.told,
                "S28: nothing is read for service {service}: {:?}",
                book.life
            );
            if book.life.serves() {
                continue;
            }
            ensure!(book.rolling.is_none(), "S28: a reload goes on in {service}");
            for (id, record) in self.alive().filter(|(_, record)| record.service == service) {
                let leaves = !record.stage.serves();
                ensure!(leaves, "S28: {service} is down, and worker {id} serves: {record:?}");
                let told = !matches!(record.stage, Standing::Leaving { .. });
                let stops = turn.downs.contains(&service);
                ensure!(told || !stops, "S28: {service} stops, and worker {id} is not told");
            }
            match book.life {
                Life::Stopping(_, Then::Stay | Then::Start)
                | Life::Stopped
                | Life::Reviving(..) => {
                    let mut members = self.members.values();
                    let none = members.all(|account| account.service != service);
                    ensure!(none || book.told, "S28: {service} is stopped and has sockets");
                }
                Life::Up | Life::Rereading { .. } | Life::Stopping(_, Then::Serve(_)) => {}
            }
            if book.life == Life::Stopped {
                let workers = self.alive().filter(|(_, record)| record.service == service).count();
                ensure!(workers == 0, "S28: {service} is stopped and has {workers} workers");
            }
        }
        Ok(())
    }

    /// Where a service is shown to stand.
    pub(crate) fn check_state(
        &self,
        service: ServiceId,
        shown: &ServiceStatus,
    ) -> Result<(), Violation> {
        let book = &self.books[&service];
        let state = match book.life {
            _ if book.told => ServiceState::Stopping,
            Life::Stopping(..) => ServiceState::Stopping,
            Life::Stopped => ServiceState::Stopped,
            Life::Reviving(..) => ServiceState::Starting,
            Life::Up | Life::Rereading { .. } if shown.failing => ServiceState::Failing,
            Life::Up | Life::Rereading { .. } if book.new_one().is_some() => {
                ServiceState::Reloading
            }
            Life::Up | Life::Rereading { .. } if !shown.waits_for.is_empty() => {
                ServiceState::Waiting
            }
            Life::Up | Life::Rereading { .. } if book.start == Start::Up => ServiceState::Up,
            Life::Up | Life::Rereading { .. } => ServiceState::Starting,
        };
        ensure!(shown.state == state, "S17: {:?} instead of {state:?}", shown.state);
        ensure!(shown.restarts == book.replaced, "S17: {} replaced: {shown:?}", book.replaced);
        if !book.told {
            let up = book.start == Start::Up;
            ensure!(shown.committed == up, "S17: came up: {up}, {shown:?}");
        }
        Ok(())
    }

    pub(crate) fn begin_stop(&mut self, turn: &mut OneTurn<'_>, service: ServiceId, then: Then) {
        let Some(book) = self.books.get_mut(&service) else { return };
        book.life = Life::Stopping(Turn::Come, then);
        book.start = Start::Waits;
        book.stumbled = false;
        book.in_a_row = 0;
        book.waits.clear();
        book.failures.clear();
        book.leave_batches();
        turn.downs.insert(service);
        if let Then::Serve(_) = then {
            self.give_up_older(service);
            self.forget_modes(service);
        } else {
            self.come_up.insert(service);
            self.close_all(turn, service);
        }
    }

    /// A restart waits for nothing that an earlier generation has not taken yet.
    fn give_up_older(&mut self, service: ServiceId) {
        let book = &self.books[&service];
        let serving = book.root(book.serving);
        let older = self.members.iter().filter(|(_, account)| {
            let own = account.whose.generation();
            account.service == service && own.is_some_and(|own| own != serving)
        });
        let older: Vec<_> = older.map(|(&member, _)| member).collect();
        self.given_up.extend(older);
    }

    fn begin_to_serve(&mut self, service: ServiceId, generation: GenerationId) {
        if let Some(book) = self.books.get_mut(&service) {
            book.life = Life::Up;
            book.stopped = Stopped::ByItself;
            book.serving = generation;
        }
    }

    pub(crate) fn close_all(&mut self, turn: &mut OneTurn<'_>, service: ServiceId) {
        let own = self.members.iter().filter(|(_, account)| account.service == service);
        let own: BTreeSet<_> = own.map(|(&member, _)| member).collect();
        self.members.retain(|member, _| !own.contains(member));
        turn.to_close.extend(own);
        for idle in [&mut self.going, &mut self.spares] {
            let own = idle.iter().filter(|(_, of)| **of == service);
            turn.to_close.extend(own.map(|(&member, _)| member));
            idle.retain(|_, of| *of != service);
        }
        if let Some(book) = self.books.get_mut(&service) {
            book.slots.closed_all();
            book.own.values_mut().for_each(SlotBook::closed_all);
        }
    }

    /// What waited in a service waits there for nothing.
    pub(crate) fn end_waiting(&mut self, service: ServiceId) {
        for open in self.requests.values_mut() {
            if open.generations.contains_key(&service) {
                open.over.insert(service);
            }
        }
    }
}
