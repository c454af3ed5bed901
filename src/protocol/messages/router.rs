//! Who hears what: every worker, what waits for it, and what was counted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use serde_json::value::RawValue;

use super::line::{self, Event, Misread, Recipient, Topic, Wish};
use super::{KEEPING, TOLD_MAX, WAITING_MAX, WAITING_TOTAL_MAX};
use crate::core::ids::{GenerationId, SlotId, WorkerId};

/// Knows every worker and keeps what waits for each.
///
/// 1. [`Router::enter`] when a worker is started; [`Router::ready`] and [`Router::stopping`] as that
///    becomes of it; [`Router::leave`] when its last message was heard.
/// 2. [`Router::hear`] with each text that it sends.
/// 3. [`Router::poll_due`] names workers for which something has come. [`Router::take`] gives it, a text
///    at a time, whenever its channel has room: now, or later without being named again.
/// 4. [`Router::poll_news`] gives what is worth telling.
#[derive(Debug, Default)]
pub struct Router {
    peers: BTreeMap<WorkerId, Peer>,
    /// Who wants to hear of workers.
    subscribers: BTreeSet<WorkerId>,
    /// For whom something has come since they were last named.
    due: BTreeSet<WorkerId>,
    /// How much waits for all, in bytes.
    waiting: usize,
    news: VecDeque<(WorkerId, News)>,
}

/// A worker, as others hear of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// Its service.
    pub service: String,
    /// Its slot.
    pub slot: SlotId,
    /// The definition it runs.
    pub generation: GenerationId,
}

/// Whether a worker takes messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// It has a channel.
    Messages,
    /// It has none, or messages are off: what it says, should it, is counted and dropped.
    Nothing,
}

/// What was counted for a worker since it was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages from it that were understood.
    pub sent: u64,
    /// Messages that were taken for it.
    pub received: u64,
    /// Messages that it was to get and did not, since too many waited, or it was gone.
    pub dropped: u64,
    /// Messages from it that were not understood.
    pub not_understood: u64,
    /// Messages from it that nobody could get: there is no such recipient, or it takes none.
    pub undeliverable: u64,
    /// Messages that wait for it at this moment.
    pub waiting: u64,
}

/// What is worth telling of a worker, a bounded number of times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It does not read what waits for it, and what comes for it is dropped from here on.
    Dropping,
    /// It has read all that waited.
    ReadsAgain {
        /// How many messages were dropped meanwhile.
        dropped: u64,
    },
}

/// Why a message was not queued for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CannotSend {
    /// There is no such worker.
    NoSuchWorker,
    /// It has no channel.
    TakesNothing,
    /// Too much waits for it already.
    Full,
    /// It is no message.
    Misread(Misread),
}

#[derive(Debug)]
struct Peer {
    who: Who,
    takes: Takes,
    /// Whether nobody reads what is sent to it any more. It may have more to say.
    is_deaf: bool,
    stage: Stage,
    waiting: VecDeque<Rc<str>>,
    /// What it takes to keep these.
    bytes: usize,
    /// How many were dropped since it has last read all.
    dropped: u64,
    /// How often that was told.
    told: u32,
    tally: Tally,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Starting,
    Ready,
    Stopping,
}

impl Router {
    /// A worker was started.
    pub fn enter(&mut self, worker: WorkerId, who: Who, takes: Takes) {
        let peer = Peer {
            who,
            takes,
            is_deaf: false,
            stage: Stage::Starting,
            waiting: VecDeque::new(),
            bytes: 0,
            dropped: 0,
            told: 0,
            tally: Tally::default(),
        };
        self.peers.insert(worker, peer);
    }

    /// It can serve.
    pub fn ready(&mut self, worker: WorkerId) {
        if let Some(peer) = self.peers.get_mut(&worker)
            && peer.stage == Stage::Starting
        {
            peer.stage = Stage::Ready;
            let text = line::announcement(Event::Ready, worker, &peer.who);
            self.announce(worker, &text);
        }
    }

    /// It is to stop. Of one that was never ready that is no news.
    pub fn stopping(&mut self, worker: WorkerId) {
        if let Some(peer) = self.peers.get_mut(&worker) {
            let before = std::mem::replace(&mut peer.stage, Stage::Stopping);
            if before == Stage::Ready {
                let text = line::announcement(Event::Stopping, worker, &peer.who);
                self.announce(worker, &text);
            }
        }
    }

    /// It is gone, and nothing of what it said is left to be heard. Gives what was counted.
    pub fn leave(&mut self, worker: WorkerId) -> Option<Tally> {
        let mut peer = self.peers.remove(&worker)?;
        self.subscribers.remove(&worker);
        self.due.remove(&worker);
        self.waiting -= peer.bytes;
        peer.tally.dropped += peer.tally.waiting;
        peer.tally.waiting = 0;
        let text = line::announcement(Event::Ended, worker, &peer.who);
        self.announce(worker, &text);
        Some(peer.tally)
    }

    /// It reads nothing any more. What it says is heard as before, since it may have been said before.
    pub fn shut(&mut self, worker: WorkerId) {
        if let Some(peer) = self.peers.get_mut(&worker) {
            peer.is_deaf = true;
            self.waiting -= std::mem::take(&mut peer.bytes);
            peer.waiting.clear();
            peer.tally.dropped += std::mem::take(&mut peer.tally.waiting);
            self.due.remove(&worker);
            self.subscribers.remove(&worker);
        }
    }

    /// What a worker said. Gives how many workers had to be looked at for it, one at least: who reads
    /// bounds the work of a turn by that.
    ///
    /// # Errors
    ///
    /// What is wrong with it. It is counted, and nothing comes of it.
    pub fn hear(&mut self, from: WorkerId, text: &[u8]) -> Result<usize, Misread> {
        let Some(peer) = self.peers.get_mut(&from) else { return Ok(1) };
        if peer.takes == Takes::Nothing {
            peer.tally.undeliverable += 1;
            return Ok(1);
        }
        let heard = match line::read(text) {
            Ok(message) if message.to == Recipient::Supervisor => self.ask(from, message.data),
            Ok(message) => Ok(self.route(from, &message)),
            Err(misread) => Err(misread),
        };
        if let Some(peer) = self.peers.get_mut(&from) {
            match heard {
                Ok(_) => peer.tally.sent += 1,
                Err(_) => peer.tally.not_understood += 1,
            }
        }
        heard
    }

    /// Something came from a worker that is no message at all.
    pub fn count_misread(&mut self, from: WorkerId) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.tally.not_understood += 1;
        }
    }

    /// Queues data of somebody else for a worker, which hears it from shepherd. Gives how many messages
    /// wait before it.
    ///
    /// # Errors
    ///
    /// Why it does not get it; nothing has happened, and nothing is counted.
    pub fn send(&mut self, to: WorkerId, data: &str) -> Result<u64, CannotSend> {
        let peer = self.peers.get(&to).ok_or(CannotSend::NoSuchWorker)?;
        if !peer.hears() {
            return Err(CannotSend::TakesNothing);
        }
        // A channel may be one of lines. Within texts of JSON there are no ends of lines, so that blanks
        // mean the same.
        let data = data.replace(['\n', '\r'], " ");
        let data = line::data(&data).map_err(CannotSend::Misread)?;
        let text = line::from_supervisor(data);
        if !self.has_room(peer, &text) {
            return Err(CannotSend::Full);
        }
        let before = peer.tally.waiting;
        self.deliver(to, &text);
        Ok(before)
    }

    /// A worker for which something has come since it was last named.
    pub fn poll_due(&mut self) -> Option<WorkerId> {
        self.due.pop_first()
    }

    /// Whether a worker is still to be named.
    #[must_use]
    pub fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// The next message for a worker, as JSON without an end of a line; its channel takes it.
    pub fn take(&mut self, worker: WorkerId) -> Option<Rc<str>> {
        let peer = self.peers.get_mut(&worker)?;
        let text = peer.waiting.pop_front()?;
        let cost = cost(&text);
        peer.bytes -= cost;
        self.waiting -= cost;
        peer.tally.waiting -= 1;
        peer.tally.received += 1;
        if peer.waiting.is_empty() && peer.dropped > 0 {
            let dropped = std::mem::take(&mut peer.dropped);
            if peer.told < TOLD_MAX {
                peer.told += 1;
                self.news.push_back((worker, News::ReadsAgain { dropped }));
            }
        }
        Some(text)
    }

    /// What is worth telling.
    pub fn poll_news(&mut self) -> Option<(WorkerId, News)> {
        self.news.pop_front()
    }

    /// What was counted for a worker that takes messages.
    #[must_use]
    pub fn tally(&self, worker: WorkerId) -> Option<Tally> {
        self.peers.get(&worker).filter(|peer| peer.takes == Takes::Messages).map(|peer| peer.tally)
    }

    /// What was counted for each worker, with its service.
    pub fn tallies(&self) -> impl Iterator<Item = (&str, Tally)> {
        self.peers.values().map(|peer| (peer.who.service.as_str(), peer.tally))
    }

    /// How a worker is called.
    #[must_use]
    pub fn who(&self, worker: WorkerId) -> Option<&Who> {
        self.peers.get(&worker).map(|peer| &peer.who)
    }

    fn ask(&mut self, from: WorkerId, data: &RawValue) -> Result<usize, Misread> {
        match line::wish(data)? {
            Wish::Unsubscribe(Topic::Workers) => {
                self.subscribers.remove(&from);
                Ok(1)
            }
            Wish::Subscribe(Topic::Workers) => {
                self.subscribers.insert(from);
                // What it will hear of others begins with these, so nobody falls between.
                let is_ready = |(worker, peer): &(&WorkerId, &Peer)| {
                    peer.stage == Stage::Ready && **worker != from
                };
                let ready = self.peers.iter().filter(is_ready);
                let texts: Vec<Rc<str>> = ready
                    .map(|(&worker, peer)| line::announcement(Event::Ready, worker, &peer.who))
                    .collect();
                for text in &texts {
                    self.deliver(from, text);
                }
                Ok(self.peers.len())
            }
        }
    }

    fn route(&mut self, from: WorkerId, message: &line::Message<'_>) -> usize {
        let Some(peer) = self.peers.get(&from) else { return 1 };
        let text = line::from_worker(from, &peer.who, message.data);
        let recipients = self.recipients(from, &peer.who, &message.to);
        if recipients.is_empty()
            && let Some(peer) = self.peers.get_mut(&from)
        {
            peer.tally.undeliverable += 1;
        }
        for worker in recipients {
            self.deliver(worker, &text);
        }
        match message.to {
            Recipient::All | Recipient::Service(_) | Recipient::Slot { .. } => self.peers.len(),
            Recipient::Worker(_) | Recipient::Supervisor => 1,
        }
    }

    fn recipients(&self, from: WorkerId, sender: &Who, to: &Recipient) -> Vec<WorkerId> {
        let all = || self.peers.iter().filter(|(_, peer)| peer.hears());
        match to {
            Recipient::All => all().map(|(&id, _)| id).filter(|&id| id != from).collect(),
            Recipient::Service(name) => {
                let of_service = all().filter(|(_, peer)| peer.who.service == *name);
                of_service.map(|(&id, _)| id).filter(|&id| id != from).collect()
            }
            Recipient::Slot { service, slot } => {
                let service = service.as_ref().unwrap_or(&sender.service);
                let in_slot = all()
                    .filter(|(_, peer)| peer.who.slot == *slot && peer.who.service == *service);
                let best = in_slot.max_by_key(|&(&id, peer)| (peer.stage == Stage::Ready, id));
                best.map(|(&id, _)| id).into_iter().collect()
            }
            Recipient::Worker(id) => all().map(|(&id, _)| id).filter(|it| it == id).collect(),
            Recipient::Supervisor => Vec::new(),
        }
    }

    /// Tells all who want to hear of workers, but for the one that it is about.
    fn announce(&mut self, about: WorkerId, text: &Rc<str>) {
        let others: Vec<WorkerId> =
            self.subscribers.iter().copied().filter(|&subscriber| subscriber != about).collect();
        for subscriber in others {
            self.deliver(subscriber, text);
        }
    }

    fn has_room(&self, peer: &Peer, text: &str) -> bool {
        let cost = cost(text);
        // One alone always fits.
        (peer.waiting.is_empty() || peer.bytes + cost <= WAITING_MAX)
            && self.waiting + cost <= WAITING_TOTAL_MAX
    }

    fn deliver(&mut self, to: WorkerId, text: &Rc<str>) {
        let Some(fits) = self.peers.get(&to).map(|peer| self.has_room(peer, text)) else { return };
        let Some(peer) = self.peers.get_mut(&to) else { return };
        if !peer.hears() {
            // It subscribed and closed its end.
            peer.tally.dropped += 1;
        } else if fits {
            peer.waiting.push_back(Rc::clone(text));
            peer.bytes += cost(text);
            peer.tally.waiting += 1;
            self.waiting += cost(text);
            self.due.insert(to);
        } else {
            if peer.dropped == 0 && peer.told < TOLD_MAX {
                self.news.push_back((to, News::Dropping));
            }
            peer.dropped += 1;
            peer.tally.dropped += 1;
        }
    }
}

impl Peer {
    fn hears(&self) -> bool {
        self.takes == Takes::Messages && !self.is_deaf
    }
}

fn cost(text: &str) -> usize {
    text.len() + KEEPING
}

#[cfg(test)]
mod tests;
