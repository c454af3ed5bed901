//! The shell between the core and the world, and the kernel's part in it.

use shepherd::core::dispatch::{AcceptEnd, Action, Answer, Event};
use shepherd::core::ids::{ConnectionId, ListenerId, WorkerId};

use super::book::ensure;
use super::choices::check_even;
use super::world::{FakeListener, Manners, World};

/// How many times listeners are readable in a turn, if somebody accepts.
const WAKE_UPS_MAX: usize = 400;

impl World {
    /// Has the core hear of something, does what it wants, and sees that this was right.
    pub(super) fn feed(&mut self, event: Event) -> Result<(), String> {
        self.hear(event);
        self.settle()
    }

    fn hear(&mut self, event: Event) {
        self.journal.write(|| format!("{:?} {event:?}", self.now));
        self.book.hears(&event);
        self.dispatch.handle_event(self.now, event);
    }

    pub(super) fn settle(&mut self) -> Result<(), String> {
        for _ in 0..WAKE_UPS_MAX {
            self.perform()?;
            if let Some(answer) = self.answers.pop_front() {
                self.hear(answer);
                continue;
            }
            let is_readable = |(_, it): &(&ListenerId, &FakeListener)| {
                it.polled && it.open && !it.backlog.is_empty()
            };
            let Some((&id, _)) = self.listeners.iter().find(is_readable) else {
                if self.dispatch.next_deadline().is_some_and(|(at, _)| at <= self.now) {
                    // It is woken at once, or a little later.
                    return Ok(());
                }
                self.book.after_turn(self.dispatch.next_deadline().map(|(at, _)| at))?;
                return if self.prompt { check_even(&self.book) } else { Ok(()) };
            };
            let backlog = self.listeners.get(&id).map(|it| it.backlog.len());
            self.hear(Event::Readable(id));
            self.perform()?;
            let wakes = self.listeners.get(&id).is_some_and(|it| it.polled);
            let after = self.listeners.get(&id).map(|it| it.backlog.len());
            ensure(!wakes || after < backlog, || format!("D8: {id} wakes in vain"))?;
        }
        Err("D8: it wakes and wakes".to_owned())
    }

    fn perform(&mut self) -> Result<(), String> {
        while let Some(action) = self.dispatch.poll_action() {
            self.journal.write(|| format!("    {action:?}"));
            self.book.does(&action)?;
            match action {
                Action::Poll(id) | Action::StopPolling(id) => {
                    self.listener(id).polled = matches!(action, Action::Poll(_));
                }
                Action::Accept { listener, at_most } => self.accept(listener, at_most),
                Action::Give { connection, worker, .. } => self.send(connection, worker),
                Action::Close { .. } | Action::Tell(_) => {}
                Action::Count(workers) => {
                    for worker in workers {
                        let open = self.book.workers.get(&worker).map_or(0, |it| it.open);
                        let open =
                            (!self.script.one_in(5)).then(|| u32::try_from(open).expect("few"));
                        self.answers.push_back(Event::Counted { worker, open });
                    }
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self, id: ListenerId, at_most: usize) {
        let mut end = AcceptEnd::Enough;
        for _ in 0..at_most {
            if self.listener(id).fails {
                end = AcceptEnd::Failed;
                break;
            }
            if self.book.descriptors() >= self.descriptors {
                end = AcceptEnd::OutOfDescriptors;
                break;
            }
            let Some(client) = self.listener(id).backlog.pop_front() else {
                end = AcceptEnd::Empty;
                break;
            };
            self.note_backlog(id);
            // Some go before they are accepted.
            if !self.prompt && self.script.one_in(30) {
                continue;
            }
            self.last_connection += 1;
            let connection = ConnectionId(self.last_connection);
            self.hear(Event::Accepted { connection, listener: id, client });
        }
        self.hear(Event::AcceptEnded { listener: id, end });
    }

    fn send(&mut self, connection: ConnectionId, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if worker.manners == Manners::Unreachable {
            let answer = Answer::NotSent;
            self.answers.push_back(Event::Answered { worker: id, connection, answer });
            return;
        }
        worker.inbox.push_back(connection);
        self.answer_later(id);
    }
}
