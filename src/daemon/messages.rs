//! Messages of workers: from their channels to the router, and from that to their channels. What is a
//! message, who gets it and what is dropped, `protocol::messages` says.
//!
//! The channels are in a set of their own, and a turn reads from [`CHANNELS_MAX`] of them at most, once
//! each, and does so much with it ([`STEPS_MAX`]): signals and exits come between two handfuls of
//! messages, however many there are. A worker that does not read is written to again when there is room.
//!
//! Programs of Node have a channel of Node's, which `node` reads and writes, and their messages go that way.
//!
//! A channel ends with its worker's main process, not with an end of file: what was sent before is heard
//! first, and what others who hold the other end send after it is not. One that is closed while the worker
//! lives is no reason to do anything about the worker.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::event_loop::{Daemon, Token};
use crate::control::problem;
use crate::control::wire::{self, Problem, ProblemKind};
use crate::core::action::Spawn;
use crate::core::ids::WorkerId;
use crate::core::notice::{MessagesNotice, Notice, WorkerName};
use crate::core::worker::Cause;
use crate::os::channel::{Channel, Sent, WRITE_MAX};
use crate::os::definition::Definition;
use crate::os::output::{Heard, READ_MAX};
use crate::os::reactor::{Interest, Reactor};
use crate::protocol::messages::{
    CannotSend, Line, Misread, News, Reader, Router, Takes, Tally, Who,
};

/// The variable that names the descriptor of a worker's channel.
pub(super) const VARIABLE: &str = "SHEPHERD_CHANNEL_FD";

/// How many channels are read in a turn, and how many of those that were read before are gone on with.
const CHANNELS_MAX: usize = 16;

/// How many workers are looked at for the messages of one in a turn, which is one for each message at
/// least: a millisecond or two. A message to all of more workers than that is one turn's work.
pub(super) const STEPS_MAX: usize = 1024;

/// How many workers are written to in a turn, beside those that have room again.
const WRITTEN_MAX: usize = 256;

/// How often one worker is written to at a time: more than its socket holds by default.
const WRITES_MAX: usize = 4;

/// The most that is read of a channel whose worker's main process has ended: more than its socket holds,
/// unless somebody still writes to it, who belongs to nobody.
const LAST_WORDS_MAX: usize = 1 << 20;

/// All channels, and the router between them.
pub(super) struct Messages {
    router: Router,
    ways: BTreeMap<WorkerId, Way>,
    reactor: Reactor,
    /// Those that were read and not heard out, or whose worker has ended and that are to be read to their
    /// end; each once, in the order of their turns.
    unheard: VecDeque<WorkerId>,
    buffer: Vec<u8>,
}

/// The way to and from one worker.
struct Way {
    channel: Channel,
    reader: Reader,
    /// What was taken for it and has had no room, from `written` on.
    unsent: Vec<u8>,
    written: usize,
    /// Whether it may have more to say.
    speaks: bool,
    /// Whether there is no room, and it is told when there is.
    is_full: bool,
    watched: Interest,
    /// Whether it is among those that are unheard.
    is_unheard: bool,
    /// Once its worker's main process has ended: how much of it may be read still.
    last_words: Option<usize>,
}

impl Messages {
    /// # Errors
    ///
    /// When no descriptor is left.
    pub(super) fn new(reactor: &Reactor) -> io::Result<Messages> {
        let channels = Reactor::new()?;
        reactor.add(&channels, Token::Channels.encode())?;
        Ok(Messages {
            router: Router::default(),
            ways: BTreeMap::new(),
            reactor: channels,
            unheard: VecDeque::new(),
            buffer: vec![0; READ_MAX],
        })
    }

    /// A worker was started. Where it takes messages and has no channel for them, another carries them.
    pub(super) fn begin(
        &mut self,
        order: &Spawn,
        service: &str,
        definition: &Definition,
        channel: Option<Channel>,
    ) {
        let takes = if definition.messages { Takes::Messages } else { Takes::Nothing };
        let who =
            Who { service: service.to_owned(), slot: order.slot, generation: order.generation };
        self.router.enter(order.worker, who, takes);
        if let Some(channel) = channel {
            let way = Way {
                channel,
                reader: Reader::default(),
                unsent: Vec::new(),
                written: 0,
                speaks: true,
                is_full: false,
                watched: Interest::Nothing,
                is_unheard: false,
                last_words: None,
            };
            self.ways.insert(order.worker, way);
            self.watch(order.worker);
        }
    }

    /// Workers hear of others what users hear of them.
    pub(super) fn note(&mut self, notice: &Notice) {
        match notice {
            Notice::Ready { worker, .. } => self.router.ready(worker.worker),
            Notice::WorkerStopping { worker, .. }
            | Notice::Withdrawing { worker }
            | Notice::Emptying { worker, .. }
            | Notice::Ended { worker, cause: Cause::Leaving, .. } => {
                self.router.stopping(worker.worker);
            }
            _ => {}
        }
    }

    /// Whether there is more to do without anything that happens.
    pub(super) fn has_more(&self) -> bool {
        !self.unheard.is_empty() || self.router.has_due()
    }

    /// What was counted for a worker that has a channel.
    pub(super) fn counted(&self, worker: WorkerId) -> Option<wire::Messages> {
        self.router.tally(worker).map(counted)
    }

    /// What was counted for each worker that is there, with its service.
    pub(super) fn all_counted(&self) -> Vec<(String, wire::Messages)> {
        let all = self.router.tallies();
        all.map(|(service, tally)| (service.to_owned(), counted(tally))).collect()
    }

    /// The next message for a worker that another channel than ours carries.
    pub(super) fn take(&mut self, worker: WorkerId) -> Option<Rc<str>> {
        self.router.take(worker)
    }

    /// Watches a channel for what there is to wait for.
    fn watch(&mut self, worker: WorkerId) {
        let Some(way) = self.ways.get_mut(&worker) else { return };
        let wanted = match (way.speaks, way.is_full) {
            (true, true) => Interest::Both,
            (true, false) => Interest::Readable,
            (false, true) => Interest::Writable,
            (false, false) => Interest::Nothing,
        };
        if way.watched == wanted {
            return;
        }
        match self.reactor.watch(&way.channel, worker.0, wanted) {
            Ok(()) => way.watched = wanted,
            Err(error) => {
                way.watched = Interest::Nothing;
                tracing::warn!("worker {worker}: cannot watch its channel: {error}");
            }
        }
    }

    /// Has it heard in the next turns, whatever the channel has.
    fn hear_later(&mut self, worker: WorkerId) {
        if let Some(way) = self.ways.get_mut(&worker)
            && !way.is_unheard
        {
            way.is_unheard = true;
            self.unheard.push_back(worker);
        }
    }

    /// Hears what a worker has said, as far as a turn goes. Gives what was not understood.
    fn hear(&mut self, worker: WorkerId) -> Vec<Misread> {
        let Messages { router, ways, buffer, .. } = self;
        let Some(way) = ways.get_mut(&worker) else { return Vec::new() };
        let mut misread = Vec::new();
        let mut steps = 0;
        let mut hear = |line: Line<'_>| match line {
            Line::Whole(text) if text.trim_ascii().is_empty() => 1,
            Line::Whole(text) => router.hear(worker, text).unwrap_or_else(|why| {
                misread.push(why);
                1
            }),
            Line::TooLong => {
                router.count_misread(worker);
                misread.push(Misread::TooLong);
                1
            }
        };
        let mut may_read = way.speaks;
        let mut is_heard_out = !way.speaks;
        while steps < STEPS_MAX {
            if let Some(line) = way.reader.take_line() {
                steps += hear(line);
                continue;
            }
            if !may_read {
                break;
            }
            may_read = false;
            match way.channel.hear(buffer) {
                Heard::Bytes(count) => {
                    way.reader.feed(buffer.get(..count).unwrap_or_default());
                    if let Some(left) = &mut way.last_words {
                        *left = left.saturating_sub(count);
                        is_heard_out = *left == 0;
                    }
                }
                Heard::Nothing => is_heard_out = way.last_words.is_some(),
                Heard::End => {
                    way.speaks = false;
                    is_heard_out = true;
                }
            }
        }
        let has_lines = steps >= STEPS_MAX;
        if is_heard_out && !has_lines {
            way.speaks = false;
            way.reader.finish().map(&mut hear);
        }
        let is_over = is_heard_out && !has_lines && way.last_words.is_some();
        let goes_on = has_lines || way.last_words.is_some();
        self.watch(worker);
        if is_over {
            self.drop_way(worker);
        } else if goes_on {
            self.hear_later(worker);
        }
        misread
    }

    /// Writes what waits for a worker, as far as there is room.
    fn write(&mut self, worker: WorkerId) {
        let Messages { router, ways, .. } = self;
        let Some(way) = ways.get_mut(&worker) else { return };
        // What is left after so many writes goes as soon as the loop comes back.
        way.is_full = true;
        for _ in 0..WRITES_MAX {
            if way.written == way.unsent.len() {
                way.unsent.clear();
                way.written = 0;
                while way.unsent.len() < WRITE_MAX
                    && let Some(text) = router.take(worker)
                {
                    way.unsent.extend_from_slice(text.as_bytes());
                    way.unsent.push(b'\n');
                }
            }
            let rest = way.unsent.get(way.written..).unwrap_or_default();
            if rest.is_empty() {
                // Most have one short message now and then, and there may be thousands of them.
                way.unsent = Vec::new();
                way.is_full = false;
                break;
            }
            match way.channel.send(rest) {
                Sent::Bytes(count) => way.written += count,
                Sent::Full => break,
                Sent::Gone => {
                    way.unsent = Vec::new();
                    way.written = 0;
                    way.is_full = false;
                    router.shut(worker);
                    break;
                }
            }
        }
        self.watch(worker);
    }

    fn drop_way(&mut self, worker: WorkerId) {
        if let Some(way) = self.ways.remove(&worker) {
            self.reactor.remove(&way.channel);
        }
    }
}

impl Daemon {
    /// Reads channels that have something, and writes to those that have room again.
    pub(super) fn read_channels(&mut self) {
        let channels = self.messages.reactor.wait_for_some(Some(Duration::ZERO), CHANNELS_MAX);
        for worker in channels.unwrap_or_default().into_iter().map(WorkerId) {
            let Some(way) = self.messages.ways.get(&worker) else { continue };
            let (speaks, is_full, is_unheard) = (way.speaks, way.is_full, way.is_unheard);
            if is_full {
                self.messages.write(worker);
            }
            // One that has not been heard out has its turn elsewhere.
            if speaks && !is_unheard {
                self.hear_messages(worker);
            }
        }
    }

    /// Goes on with what was read and not heard, and passes on what waits. To be called in every turn of
    /// the loop, before it waits.
    pub(super) fn tend_messages(&mut self) {
        for _ in 0..CHANNELS_MAX.min(self.messages.unheard.len()) {
            let Some(worker) = self.messages.unheard.pop_front() else { break };
            if let Some(way) = self.messages.ways.get_mut(&worker) {
                way.is_unheard = false;
                self.hear_messages(worker);
            }
        }
        for _ in 0..WRITTEN_MAX {
            let Some(worker) = self.messages.router.poll_due() else { break };
            match self.messages.ways.get(&worker) {
                Some(way) if way.is_full => {}
                Some(_) => self.messages.write(worker),
                None => self.write_channel(worker),
            }
        }
        while let Some((worker, news)) = self.messages.router.poll_news() {
            let Some(who) = self.messages.router.who(worker) else { continue };
            let name = WorkerName { worker, service: who.service.clone(), slot: who.slot };
            let what = match news {
                News::Dropping => MessagesNotice::Dropping,
                News::ReadsAgain { dropped } => MessagesNotice::ReadsAgain { dropped },
            };
            self.tell(&Notice::Messages { worker: name, what });
        }
    }

    /// What a worker said over another channel than ours. Gives how much work it was, 1 at least.
    pub(super) fn hear_message(&mut self, worker: WorkerId, text: &[u8]) -> usize {
        self.messages.router.hear(worker, text).unwrap_or_else(|misread| {
            self.complain(worker, &format!("sent {misread}; ignoring it"));
            1
        })
    }

    /// A worker's main process has ended: what it said before is heard, and then it is gone.
    pub(super) fn end_messages(&mut self, worker: WorkerId) {
        match self.messages.ways.get_mut(&worker) {
            Some(way) => {
                way.last_words = Some(LAST_WORDS_MAX);
                self.messages.hear_later(worker);
            }
            None => self.leave_messages(worker),
        }
    }

    /// Queues a message for a worker.
    pub(super) fn send_message(
        &mut self,
        worker: WorkerId,
        data: &str,
    ) -> Result<wire::Sent, Problem> {
        let service = self.messages.router.who(worker).map(|who| who.service.clone());
        let waiting = self.messages.router.send(worker, data).map_err(|why| {
            let service_name = service.clone().unwrap_or_default();
            let problem = match why {
                CannotSend::NoSuchWorker => problem::of(
                    ProblemKind::NotFound,
                    404,
                    format!("there is no worker {worker}; `shepherd status` shows those there are"),
                ),
                CannotSend::TakesNothing => problem::of(
                    ProblemKind::NotFound,
                    404,
                    format!(
                        "cannot send worker {worker} a message: it has no channel; run \
                         `{service_name}` with `--messages`, or `messages: true`, if it reads one"
                    ),
                ),
                CannotSend::Full => problem::of(
                    ProblemKind::TooBusy,
                    503,
                    format!(
                        "cannot send worker {worker} a message: too many wait that it has not \
                         read; try again later"
                    ),
                ),
                CannotSend::Misread(what) => problem::of(
                    ProblemKind::BadRequest,
                    400,
                    format!("cannot send worker {worker} this: it would be {what}"),
                ),
            };
            Problem { service, ..problem }
        })?;
        let who = self.messages.router.who(worker);
        Ok(wire::Sent {
            worker: worker.0,
            service: who.map(|who| who.service.clone()).unwrap_or_default(),
            slot: who.map_or(0, |who| who.slot.0),
            waiting,
        })
    }

    fn hear_messages(&mut self, worker: WorkerId) {
        for misread in self.messages.hear(worker) {
            self.complain(worker, &format!("sent {misread}; ignoring it"));
        }
        let ended = !self.messages.ways.contains_key(&worker);
        if ended {
            self.leave_messages(worker);
        }
    }

    /// Nothing more is to be heard from a worker.
    fn leave_messages(&mut self, worker: WorkerId) {
        let service = self.messages.router.who(worker).map(|who| who.service.clone());
        let counted_for_it = self.messages.router.leave(worker).map(counted);
        if let (Some(service), Some(of)) = (service, counted_for_it) {
            self.control.counters.messages(&service, &of);
        }
    }
}

fn counted(tally: Tally) -> wire::Messages {
    let Tally { sent, received, waiting, dropped, not_understood, undeliverable } = tally;
    wire::Messages { sent, received, waiting, dropped, not_understood, undeliverable }
}
