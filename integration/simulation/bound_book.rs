//! The account of services that are bound to others, for S29.

use std::collections::BTreeSet;

use shepherd::core::ids::{RequestId, ServiceId};
use shepherd::core::request::Request;

use crate::invariants::{Violation, ensure};
use crate::ledger::{Ledger, Turn};
use crate::life_book::{Life, Stopped, Then, Turn as Whose};

impl Ledger {
    /// Those that go along with these because they are bound to one of them.
    pub(crate) fn along(&self, request: &Request, meant: &[ServiceId]) -> BTreeSet<ServiceId> {
        let serves = |id: &ServiceId| !self.books[id].life.is_down();
        let all = |wanted: bool| -> BTreeSet<ServiceId> {
            meant.iter().copied().filter(|id| serves(id) == wanted).collect()
        };
        match request {
            Request::StopServices(_) => self.stop_along(&meant.iter().copied().collect()),
            Request::StartServices(_) => self.start_along(&meant.iter().copied().collect()),
            Request::Restart(_) => {
                let mut along = self.stop_along(&all(true));
                along.append(&mut self.start_along(&all(false)));
                along
            }
            Request::Reload { .. }
            | Request::RollBack(_)
            | Request::Scale { .. }
            | Request::Signal { .. }
            | Request::Stop
            | Request::Interrupt
            | Request::StopNow => BTreeSet::new(),
        }
    }

    fn stop_along(&self, meant: &BTreeSet<ServiceId>) -> BTreeSet<ServiceId> {
        self.grow(meant, |id, with| {
            let book = &self.books[&id];
            !book.told && !book.life.is_down() && !book.policy.bind_to.is_disjoint(with)
        })
    }

    fn start_along(&self, meant: &BTreeSet<ServiceId>) -> BTreeSet<ServiceId> {
        let is_bound = |id: ServiceId, to: &BTreeSet<ServiceId>| {
            !self.books[&id].policy.bind_to.is_disjoint(to)
        };
        let mut bound = self.grow(meant, is_bound);
        bound.extend(meant.iter().copied());
        self.grow(meant, |id, with| {
            let book = &self.books[&id];
            let mut others = book.policy.bind_to.iter();
            !book.told
                && book.life.is_down()
                && book.stopped == Stopped::WithOther
                && is_bound(id, &bound)
                && others.all(|other| with.contains(other) || !self.books[other].life.is_down())
        })
    }

    fn grow(
        &self,
        meant: &BTreeSet<ServiceId>,
        goes: impl Fn(ServiceId, &BTreeSet<ServiceId>) -> bool,
    ) -> BTreeSet<ServiceId> {
        let mut all = meant.clone();
        for _ in &self.books {
            let more: Vec<ServiceId> =
                self.books.keys().copied().filter(|&id| goes(id, &all)).collect();
            all.extend(more);
        }
        all.difference(meant).copied().collect()
    }

    /// Whether one of these is to be started though one that it is bound to stays stopped.
    pub(crate) fn stays_without(&self, meant: &[ServiceId], along: &BTreeSet<ServiceId>) -> bool {
        meant.iter().any(|id| {
            let book = &self.books[id];
            let starts = |other: &ServiceId| meant.contains(other) || along.contains(other);
            let mut others = book.policy.bind_to.iter();
            book.life.is_down()
                && others.any(|other| !starts(other) && self.books[other].life.is_down())
        })
    }

    /// An operator stops it, or one that it is bound to.
    pub(crate) fn go_down(&mut self, turn: &mut Turn<'_>, service: ServiceId) {
        let Some(book) = self.books.get_mut(&service) else { return };
        book.proving.leave_probation();
        match book.life.clone() {
            Life::Up | Life::Rereading { .. } => {
                book.life = Life::Stopping(Whose::Later, Then::Stay);
                self.end_waiting(service);
            }
            Life::Stopping(whose, then) => {
                book.life = Life::Stopping(whose, Then::Stay);
                if matches!((whose, then), (Whose::Come, Then::Serve(_))) {
                    self.close_all(turn, service);
                }
                self.end_waiting(service);
            }
            Life::Reviving(..) => {
                book.life = Life::Stopped;
                self.end_waiting(service);
            }
            Life::Stopped => {}
        }
    }

    /// Whoever is bound to one that is down goes down, what was read together is restarted together,
    /// and those are told to stop whose turn it is.
    pub(crate) fn bring_down(&mut self, turn: &mut Turn<'_>) {
        if !self.is_stopping() {
            while let Some(service) = self.follower() {
                if let Some(book) = self.books.get_mut(&service) {
                    book.stopped = Stopped::WithOther;
                }
                self.go_down(turn, service);
                self.saw("a service that followed one that could not start");
            }
            self.restart_together();
        }
        loop {
            let next = self.next_in_turn();
            if next.is_empty() {
                break;
            }
            for service in next {
                if let Life::Stopping(_, then) = self.books[&service].life {
                    self.begin_stop(turn, service, then);
                }
            }
        }
        if self.books.values().any(|book| book.life.awaits_turn()) {
            self.saw("a service that lets others stop before it");
        }
    }

    fn follower(&self) -> Option<ServiceId> {
        let left = self.books.iter().filter(|(_, book)| !book.told && !book.life.is_down());
        let mut followers = left.filter(|(_, book)| {
            book.policy.bind_to.iter().any(|other| self.books[other].life.is_down())
        });
        followers.next().map(|(&id, _)| id)
    }

    fn restart_together(&mut self) {
        let unread: BTreeSet<RequestId> = self
            .books
            .values()
            .filter_map(|book| match book.life {
                Life::Rereading { request, is_read: false, .. } => Some(request),
                Life::Rereading { .. }
                | Life::Up
                | Life::Stopping(..)
                | Life::Stopped
                | Life::Reviving(..) => None,
            })
            .collect();
        for book in self.books.values_mut() {
            if let Life::Rereading { request, generation, .. } = book.life
                && !unread.contains(&request)
            {
                book.life = Life::Stopping(Whose::Later, Then::Serve(generation));
            }
        }
    }

    fn next_in_turn(&self) -> Vec<ServiceId> {
        let has_workers = |id| self.alive().any(|(_, record)| record.service == id);
        let goes_down = |id: ServiceId| {
            let book = &self.books[&id];
            let asked = book.told || matches!(book.life, Life::Stopping(..));
            book.life.awaits_turn() || asked && has_workers(id)
        };
        let held = |id: ServiceId| {
            let mut others = self.books.iter().filter(|&(&other, _)| other != id);
            others.any(|(&other, book)| {
                goes_down(other) && book.policy.needs().any(|need| need == id)
            })
        };
        let left = self.books.iter().filter(|(_, book)| book.life.awaits_turn());
        left.map(|(&id, _)| id).filter(|&id| !held(id)).collect()
    }

    /// S29: nobody is to serve without one that it is bound to.
    pub(crate) fn check_bound(&self) -> Result<(), Violation> {
        if self.is_stopping() {
            return Ok(());
        }
        let follower = self.follower();
        ensure!(
            follower.is_none(),
            "S29: {follower:?} is to serve, and what it is bound to is not"
        );
        Ok(())
    }
}
