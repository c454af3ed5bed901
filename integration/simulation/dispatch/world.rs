//! The kernel, the workers and the shell between them and the core.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use shepherd::core::dispatch::{Answer, Client, Closes, Dispatch, Event};
use shepherd::core::ids::{ConnectionId, ListenerId, SlotId, WorkerId};
use shepherd::core::policy::Algorithm;
use shepherd::core::time::Time;

use super::book::{Book, ensure};
use crate::fate::ms;
use crate::journal::Journal;
use crate::script::Script;

/// How long a world may take to be calm when all faults have stopped: one stalls, one is killed for
/// it, and what they had is answered.
const CALM: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(crate) struct World {
    pub(super) now: Time,
    pub(super) dispatch: Dispatch,
    pub(crate) book: Book,
    pub(super) script: Script,
    pub(crate) journal: Journal,
    agenda: BTreeMap<(Time, u64), Happening>,
    pub(super) listeners: BTreeMap<ListenerId, FakeListener>,
    pub(super) workers: BTreeMap<WorkerId, FakeWorker>,
    /// How many descriptors shepherd may have for connections.
    pub(super) descriptors: usize,
    pub(super) last_connection: u64,
    last_worker: u64,
    last_happening: u64,
    /// Whether workers tell what they have closed.
    closes: Closes,
    /// What could not be sent, and the counts that were asked for.
    pub(super) answers: VecDeque<Event>,
    /// Whether everybody answers after the same time and nothing goes wrong.
    pub(super) prompt: bool,
    /// Whether workers answer by themselves.
    pub(super) lively: bool,
    pub(super) calm_since: Option<Time>,
}

#[derive(Clone, Default)]
pub(super) struct FakeListener {
    pub(super) backlog: VecDeque<Client>,
    pub(super) open: bool,
    pub(super) polled: bool,
    /// accept(2) fails.
    pub(super) fails: bool,
}

#[derive(Clone)]
pub(super) struct FakeWorker {
    pub(super) slot: SlotId,
    pub(super) inbox: VecDeque<ConnectionId>,
    pub(super) takes: Duration,
    pub(super) hung: bool,
    pub(super) manners: Manners,
    answers_next: bool,
}

/// What a worker makes of what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manners {
    Accepts,
    Refuses,
    Loses,
    /// Nothing can be sent to it.
    Unreachable,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Happening {
    /// Something by chance.
    Chance,
    /// A worker answers for what it was given first.
    Answers(WorkerId),
    /// A connection of a worker is over.
    Ends(WorkerId),
    /// Another takes the place of one that died.
    Joins(SlotId),
    Dies(WorkerId),
}

impl World {
    pub(crate) fn new(mut script: Script, journal: Journal) -> World {
        let algorithms = [Algorithm::RoundRobin, Algorithm::LeastConnections, Algorithm::Sticky];
        let algorithm = script.pick(&algorithms);
        let closes = script.pick(&[Closes::Told, Closes::Counted]);
        let prompt = script.one_in(8);
        let mut world = World::of(algorithm, closes, 1 + u32::from(script.below(3)), journal);
        world.script = script;
        world.prompt = prompt;
        world.schedule(ms(0), Happening::Chance);
        world
    }

    /// A world in which nothing happens.
    pub(super) fn of(
        algorithm: Algorithm,
        closes: Closes,
        listeners: u32,
        journal: Journal,
    ) -> World {
        World {
            now: Time::ZERO,
            dispatch: Dispatch::new(algorithm),
            book: Book::new(algorithm),
            script: Script::empty(),
            journal,
            agenda: BTreeMap::new(),
            listeners: (1..=listeners)
                .map(|id| (ListenerId(id), FakeListener::default()))
                .collect(),
            workers: BTreeMap::new(),
            descriptors: 1000,
            last_connection: 0,
            last_worker: 0,
            last_happening: 0,
            closes,
            answers: VecDeque::new(),
            prompt: false,
            lively: true,
            calm_since: None,
        }
    }

    /// Plays until nothing happens any more, and all is well.
    pub(crate) fn play(&mut self) -> Result<(), String> {
        self.book.sights.insert(match self.book.algorithm {
            Algorithm::RoundRobin => "round robin",
            Algorithm::LeastConnections => "least connections",
            Algorithm::Sticky => "sticky",
        });
        for id in self.listeners.keys().copied().collect::<Vec<_>>() {
            self.open(id)?;
        }
        if self.prompt {
            self.book.sights.insert("everybody answers at once");
            let takes = self.script.pick(&[ms(0), ms(1), ms(7)]);
            for slot in (0..2 + u32::from(self.script.below(4))).map(SlotId) {
                let worker = self.join(slot)?;
                self.worker(worker).takes = takes;
            }
        }
        self.until_calm()
    }

    /// Lets the time go on until nothing is to come.
    pub(super) fn until_calm(&mut self) -> Result<(), String> {
        loop {
            let next = self.agenda.first_key_value().map(|(&(at, _), _)| at);
            let deadline = self.dispatch.next_deadline().map(|(at, _)| at);
            // Whoever wakes late hears of other things first.
            let late = self.script.pick(&[ms(0), ms(0), ms(0), ms(1), ms(5)]);
            let wakes = deadline.map(|at| (at + late).max(self.now));
            match (next, wakes) {
                (None, None) => return self.check_answered(),
                (Some(next), None) => self.go_on(next)?,
                (Some(next), Some(wakes)) if next < wakes => self.go_on(next)?,
                (_, Some(wakes)) => self.wake(wakes)?,
            }
            let calm = self.calm_since.is_none_or(|since| self.now.since(since) < CALM);
            ensure(calm, || "D10: it does not end".to_owned())?;
        }
    }

    fn go_on(&mut self, at: Time) -> Result<(), String> {
        self.turn_to(at);
        let Some((_, happening)) = self.agenda.pop_first() else { return Ok(()) };
        match happening {
            Happening::Chance => self.chance(),
            Happening::Answers(worker) => self.answers(worker),
            Happening::Ends(worker) => {
                let tells = self.workers.contains_key(&worker) && self.closes == Closes::Told;
                if tells { self.feed(Event::Ended(worker)) } else { Ok(()) }
            }
            Happening::Joins(slot) => self.join(slot).map(|_| ()),
            Happening::Dies(worker) => self.die(worker, 0),
        }
    }

    pub(super) fn turn_to(&mut self, at: Time) {
        self.now = at;
        self.book.now = at;
        if self.dispatch.next_deadline().is_none_or(|(deadline, _)| deadline > at) {
            self.book.woken = at;
        }
    }

    fn wake(&mut self, at: Time) -> Result<(), String> {
        self.turn_to(at);
        self.journal.write(|| format!("{at:?} wakes"));
        self.dispatch.handle_timeout(at);
        self.book.woken = at;
        let next = self.dispatch.next_deadline();
        ensure(next.is_none_or(|(next, _)| next > at), || format!("D9: {next:?} is past"))?;
        self.settle()
    }

    /// Lets so much time pass, and nothing happens in it but deadlines.
    pub(super) fn wait(&mut self, time: Duration) -> Result<(), String> {
        let until = self.now + time;
        while let Some((at, _)) = self.dispatch.next_deadline().filter(|&(at, _)| at <= until) {
            self.wake(at)?;
        }
        self.turn_to(until);
        Ok(())
    }

    pub(super) fn schedule(&mut self, after: Duration, happening: Happening) {
        self.last_happening += 1;
        self.agenda.insert((self.now + after, self.last_happening), happening);
    }

    pub(super) fn answer_later(&mut self, id: WorkerId) {
        let lively = self.lively;
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if lively && !worker.hung && !worker.inbox.is_empty() && !worker.answers_next {
            worker.answers_next = true;
            let takes = worker.takes;
            self.schedule(takes, Happening::Answers(id));
        }
    }

    /// A worker answers for what it was given first.
    pub(super) fn answers(&mut self, id: WorkerId) -> Result<(), String> {
        let Some(worker) = self.workers.get_mut(&id) else { return Ok(()) };
        worker.answers_next = false;
        if worker.hung {
            return Ok(());
        }
        let answer = match worker.manners {
            Manners::Accepts | Manners::Unreachable => Answer::Accepted,
            Manners::Refuses => Answer::Refused,
            Manners::Loses => Answer::NotReceived,
        };
        let Some(connection) = worker.inbox.pop_front() else { return Ok(()) };
        if answer == Answer::Accepted && !self.prompt {
            let lasts = self.script.pick(&[ms(0), ms(5), ms(500)]);
            self.schedule(lasts, Happening::Ends(id));
        }
        self.answer_later(id);
        self.feed(Event::Answered { worker: id, connection, answer })
    }

    /// A worker dies, of which so many answers are heard before its end is.
    pub(super) fn die(&mut self, id: WorkerId, accepted: usize) -> Result<(), String> {
        let Some(worker) = self.workers.remove(&id) else { return Ok(()) };
        for &connection in worker.inbox.iter().take(accepted) {
            self.book.sights.insert("accepted by a dead worker");
            let answer = Answer::Accepted;
            self.feed(Event::Answered { worker: id, connection, answer })?;
        }
        self.feed(Event::Gone(id))
    }

    /// A worker that serves everything joins.
    pub(super) fn join(&mut self, slot: SlotId) -> Result<WorkerId, String> {
        self.last_worker += 1;
        let id = WorkerId(self.last_worker);
        let worker = FakeWorker {
            slot,
            inbox: VecDeque::new(),
            takes: ms(1),
            hung: false,
            manners: Manners::Accepts,
            answers_next: false,
        };
        self.workers.insert(id, worker);
        let listeners = self.listeners.keys().copied().collect();
        self.serve(id, listeners)?;
        Ok(id)
    }

    /// A worker serves these from here on.
    pub(super) fn serve(
        &mut self,
        worker: WorkerId,
        listeners: BTreeSet<ListenerId>,
    ) -> Result<(), String> {
        let (slot, closes) = (self.worker(worker).slot, self.closes);
        self.feed(Event::Joined { worker, slot, listeners, closes })
    }

    pub(super) fn open(&mut self, id: ListenerId) -> Result<(), String> {
        self.listener(id).open = true;
        self.feed(Event::Opened(id))
    }

    /// A listener is closed, and what waits in its backlog is reset.
    pub(super) fn close(&mut self, id: ListenerId) -> Result<(), String> {
        *self.listener(id) = FakeListener::default();
        self.feed(Event::Closed(id))
    }

    /// So many clients connect at once.
    pub(super) fn connect(
        &mut self,
        id: ListenerId,
        client: Client,
        count: usize,
    ) -> Result<(), String> {
        if !self.listener(id).open {
            return Ok(());
        }
        self.journal.write(|| format!("{:?} {count} of {client:?} connect to {id}", self.now));
        self.listener(id).backlog.extend(std::iter::repeat_n(client, count));
        self.note_backlog(id);
        self.settle()
    }

    pub(super) fn note_backlog(&mut self, id: ListenerId) {
        let backlog = self.listener(id).backlog.len();
        self.book.listeners.entry(id).or_default().backlog = backlog;
    }

    pub(super) fn listener(&mut self, id: ListenerId) -> &mut FakeListener {
        self.listeners.get_mut(&id).expect("it is of this world")
    }

    pub(super) fn worker(&mut self, id: WorkerId) -> &mut FakeWorker {
        self.workers.get_mut(&id).expect("it lives")
    }
}
