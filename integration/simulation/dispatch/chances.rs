//! What happens by chance, and how it ends: promise D10.

use shepherd::core::dispatch::{Client, Event};
use shepherd::core::ids::{ListenerId, SlotId, WorkerId};

use super::book::ensure;
use super::world::{Happening, Manners, World};
use crate::fate::ms;

/// Slots from 0 on.
const SLOTS: u8 = 5;

impl World {
    /// Something happens, and then something else; when the script is over, faults stop.
    pub(super) fn chance(&mut self) -> Result<(), String> {
        if self.script.is_over() {
            return self.become_calm();
        }
        let pause =
            self.script.pick(&[ms(1), ms(0), ms(0), ms(3), ms(12), ms(60), ms(400), ms(1500)]);
        self.schedule(pause, Happening::Chance);
        let kind = if self.prompt { 0 } else { self.script.below(24) };
        match kind {
            0..=8 => {
                let (listener, client) = (self.any_listener(), self.any_client());
                let count = self.script.pick(&[1, 1, 1, 2, 3, 5, 9, 30]);
                self.connect(listener, client, count)
            }
            9..=11 => {
                let slot = SlotId(self.script.below(SLOTS).into());
                let takes = self.script.pick(&[ms(1), ms(0), ms(4), ms(20), ms(300), ms(1200)]);
                let worker = self.join(slot)?;
                self.worker(worker).takes = takes;
                Ok(())
            }
            12 | 13 => {
                let manners = [Manners::Refuses, Manners::Loses, Manners::Unreachable];
                let manners = self.script.pick(&manners);
                for worker in self.some_workers() {
                    self.worker(worker).manners = manners;
                }
                Ok(())
            }
            14 => {
                for worker in self.some_workers() {
                    self.worker(worker).manners = Manners::Accepts;
                    self.worker(worker).hung = false;
                    self.answer_later(worker);
                }
                Ok(())
            }
            15 => {
                for worker in self.some_workers() {
                    self.worker(worker).hung = true;
                }
                Ok(())
            }
            16 => {
                for worker in self.some_workers() {
                    let accepted = usize::from(self.script.below(3));
                    let slot = self.worker(worker).slot;
                    self.die(worker, accepted)?;
                    self.schedule(ms(30), Happening::Joins(slot));
                }
                Ok(())
            }
            17 => {
                let Some(worker) = self.any_worker() else { return Ok(()) };
                self.schedule(ms(200), Happening::Dies(worker));
                self.feed(Event::Leaving(worker))
            }
            18 => {
                let Some(worker) = self.any_worker() else { return Ok(()) };
                let blocks = self.script.one_in(2);
                self.feed(if blocks { Event::Blocked(worker) } else { Event::Writable(worker) })
            }
            19 => {
                self.descriptors = self.script.pick(&[1000, 0, 1, 3, 1000]);
                Ok(())
            }
            20 => {
                let held: Vec<_> = self.book.held.keys().copied().collect();
                let Some(&one) = held.get(usize::from(self.script.below(16))) else {
                    return Ok(());
                };
                self.feed(Event::HungUp(one))
            }
            21 => {
                let listener = self.any_listener();
                if self.listener(listener).open {
                    self.close(listener)
                } else {
                    self.open(listener)
                }
            }
            22 => {
                let Some(worker) = self.any_worker() else { return Ok(()) };
                let all: Vec<ListenerId> = self.listeners.keys().copied().collect();
                let some = all.into_iter().filter(|_| !self.script.one_in(3)).collect();
                self.serve(worker, some)
            }
            _ => {
                let listener = self.any_listener();
                let fails = self.script.one_in(2);
                self.listener(listener).fails = fails;
                Ok(())
            }
        }
    }

    /// No faults any more: who hangs is killed, who is there accepts, and there are descriptors.
    pub(super) fn become_calm(&mut self) -> Result<(), String> {
        self.journal.write(|| format!("{:?} calm", self.now));
        self.calm_since = Some(self.now);
        self.lively = true;
        self.descriptors = 1000;
        for id in self.listeners.keys().copied().collect::<Vec<_>>() {
            self.listener(id).fails = false;
            if !self.listener(id).open {
                self.open(id)?;
            }
        }
        for id in self.workers.keys().copied().collect::<Vec<_>>() {
            if self.worker(id).hung {
                self.schedule(ms(1100), Happening::Dies(id));
                continue;
            }
            self.worker(id).manners = Manners::Accepts;
            if !self.prompt {
                self.worker(id).takes = ms(1);
            }
            self.answer_later(id);
            self.feed(Event::Writable(id))?;
        }
        if self.prompt { Ok(()) } else { self.join(SlotId(9)).map(|_| ()) }
    }

    /// Everybody has been answered, and nothing is waited for.
    pub(super) fn check_answered(&mut self) -> Result<(), String> {
        ensure(self.calm_since.is_some(), || "D10: nothing is to come, and it is not calm".into())?;
        let held = self.book.descriptors();
        let backlogs: usize = self.listeners.values().map(|listener| listener.backlog.len()).sum();
        ensure(held == 0 && backlogs == 0, || {
            format!("D10: {held} held, {backlogs} not accepted")
        })?;
        let core = self.dispatch.held();
        ensure(core == 0, || format!("D10: the core holds {core}"))
    }

    fn any_listener(&mut self) -> ListenerId {
        let count = u8::try_from(self.listeners.len()).expect("few");
        ListenerId(1 + u32::from(self.script.below(count)))
    }

    fn any_client(&mut self) -> Client {
        match self.script.below(12) {
            at @ 0..=6 => Client::V4([192, 0, 2, at]),
            at @ 7..=10 => Client::V6([0x20, 1, 0x0d, 0xb8, 0, 0, 0, at]),
            _ => Client::Unknown,
        }
    }

    fn any_worker(&mut self) -> Option<WorkerId> {
        let workers: Vec<_> = self.workers.keys().copied().collect();
        let at = usize::from(self.script.below(8));
        workers.get(at.checked_rem(workers.len())?).copied()
    }

    /// One of them, or all.
    fn some_workers(&mut self) -> Vec<WorkerId> {
        if self.script.one_in(3) {
            self.workers.keys().copied().collect()
        } else {
            self.any_worker().into_iter().collect()
        }
    }
}
