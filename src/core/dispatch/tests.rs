//! Smallest worlds: one behaviour each. `integration/simulation/dispatch` has the large ones.

use super::*;
use crate::core::ids::SlotId;

const HTTP: ListenerId = ListenerId(1);
const HTTPS: ListenerId = ListenerId(2);

/// A shell with backlogs.
struct Shell {
    dispatch: Dispatch,
    now: Time,
    backlogs: BTreeMap<ListenerId, VecDeque<Client>>,
    polled: BTreeSet<ListenerId>,
    accepted: u64,
    /// How many descriptors it can have.
    descriptors: usize,
    /// What each connection was given to, the last first to be looked at.
    given: Vec<(u64, u64)>,
    closed: Vec<(u64, CloseReason)>,
    told: Vec<Notice>,
    counts: Vec<WorkerId>,
}

impl Shell {
    fn new(algorithm: Algorithm) -> Shell {
        let mut shell = Shell {
            dispatch: Dispatch::new(algorithm),
            now: Time::ZERO,
            backlogs: BTreeMap::new(),
            polled: BTreeSet::new(),
            accepted: 0,
            descriptors: 1000,
            given: Vec::new(),
            closed: Vec::new(),
            told: Vec::new(),
            counts: Vec::new(),
        };
        for listener in [HTTP, HTTPS] {
            shell.backlogs.insert(listener, VecDeque::new());
            shell.feed(Event::Opened(listener));
        }
        shell
    }

    fn with_workers(algorithm: Algorithm, workers: u64) -> Shell {
        let mut shell = Shell::new(algorithm);
        for worker in 1..=workers {
            shell.join(worker, &[HTTP, HTTPS]);
        }
        shell
    }

    /// Has a worker join in the slot of its number.
    fn join(&mut self, worker: u64, listeners: &[ListenerId]) {
        let slot = SlotId(u32::try_from(worker % 100).expect("small"));
        let listeners = listeners.iter().copied().collect();
        let closes = Closes::Told;
        self.feed(Event::Joined { worker: WorkerId(worker), slot, listeners, closes });
    }

    fn feed(&mut self, event: Event) {
        self.dispatch.handle_event(self.now, event);
        self.perform();
    }

    fn wait(&mut self, millis: u64) {
        let until = self.now + Duration::from_millis(millis);
        while let Some((at, _)) = self.dispatch.next_deadline().filter(|&(at, _)| at <= until) {
            assert!(at >= self.now, "a deadline in the past");
            self.now = at;
            self.dispatch.handle_timeout(at);
            self.perform();
        }
        self.now = until;
    }

    fn perform(&mut self) {
        while let Some(action) = self.dispatch.poll_action() {
            match action {
                Action::Poll(listener) => assert!(self.polled.insert(listener)),
                Action::StopPolling(listener) => assert!(self.polled.remove(&listener)),
                Action::Accept { listener, at_most } => self.accept(listener, at_most),
                Action::Give { connection, worker, .. } => {
                    self.given.push((connection.0, worker.0));
                }
                Action::Close { connection, because } => self.closed.push((connection.0, because)),
                Action::Count(workers) => self.counts.extend(workers),
                Action::Tell(notice) => self.told.push(notice),
            }
        }
    }

    fn accept(&mut self, listener: ListenerId, at_most: usize) {
        let mut end = AcceptEnd::Enough;
        for _ in 0..at_most {
            if self.dispatch.held() >= self.descriptors {
                end = AcceptEnd::OutOfDescriptors;
                break;
            }
            let Some(client) = self.backlogs.get_mut(&listener).and_then(VecDeque::pop_front)
            else {
                end = AcceptEnd::Empty;
                break;
            };
            self.accepted += 1;
            let connection = ConnectionId(self.accepted);
            let event = Event::Accepted { connection, listener, client };
            self.dispatch.handle_event(self.now, event);
        }
        self.dispatch.handle_event(self.now, Event::AcceptEnded { listener, end });
    }

    /// So many clients connect, one after the other.
    fn connect(&mut self, listener: ListenerId, clients: impl IntoIterator<Item = u8>) {
        for client in clients {
            let client = Client::V4([10, 0, 0, client]);
            self.backlogs.entry(listener).or_default().push_back(client);
            if self.polled.contains(&listener) {
                self.feed(Event::Readable(listener));
            }
        }
    }

    fn answer(&mut self, worker: u64, connection: u64, answer: Answer) {
        let connection = ConnectionId(connection);
        self.feed(Event::Answered { worker: WorkerId(worker), connection, answer });
    }

    /// Who was given what since the last time.
    fn given(&mut self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.given)
    }
}

#[test]
fn workers_that_answer_take_turns_and_one_that_has_more_is_passed_over() {
    let mut shell = Shell::with_workers(Algorithm::RoundRobin, 3);
    for (connection, worker) in [(1, 1), (2, 2), (3, 3), (4, 1)] {
        shell.connect(HTTP, [1]);
        assert_eq!(shell.given(), [(connection, worker)]);
        if worker != 2 {
            shell.answer(worker, connection, Answer::Accepted);
        }
    }
    shell.connect(HTTP, [1, 1]);
    assert_eq!(shell.given(), [(5, 3), (6, 1)], "the second owes one");
    let taken = [1, 3, 4].map(|connection| (connection, CloseReason::Taken));
    assert_eq!(shell.closed, taken);
}

#[test]
fn beyond_the_window_connections_stay_in_the_backlog_and_wake_nobody() {
    let mut shell = Shell::with_workers(Algorithm::RoundRobin, 2);
    shell.connect(HTTP, [1; 20]);
    assert_eq!(shell.given().len(), 2 * WINDOW);
    assert_eq!(shell.backlogs[&HTTP].len(), 20 - 2 * WINDOW);
    assert!(!shell.polled.contains(&HTTP));
    shell.answer(1, 1, Answer::Accepted);
    assert_eq!(shell.given(), [(9, 1)], "one out, one in");
    for connection in 2..=20 {
        let worker = 2 - connection % 2;
        shell.answer(worker, connection, Answer::Accepted);
        shell.answer(3 - worker, connection, Answer::Accepted);
    }
    assert_eq!((shell.dispatch.held(), shell.backlogs[&HTTP].len()), (0, 0));
    assert!(shell.polled.contains(&HTTP));
    assert_eq!(shell.dispatch.next_deadline(), None);
}

#[test]
fn without_a_worker_nothing_is_accepted() {
    let mut shell = Shell::new(Algorithm::RoundRobin);
    shell.connect(HTTP, [1; 3]);
    assert_eq!((shell.accepted, shell.polled.contains(&HTTP)), (0, false));
    shell.join(1, &[HTTPS]);
    assert_eq!(shell.accepted, 0, "it serves another listener");
    shell.join(1, &[HTTP, HTTPS]);
    assert_eq!(shell.given().len(), 3);
    shell.join(1, &[HTTPS]);
    shell.connect(HTTP, [1]);
    assert_eq!(shell.accepted, 3);
}

#[test]
fn what_a_worker_did_not_acknowledge_goes_to_another_when_it_is_dead_and_never_before() {
    let mut shell = Shell::with_workers(Algorithm::RoundRobin, 2);
    shell.connect(HTTP, [1; 4]);
    assert_eq!(shell.given(), [(1, 1), (2, 2), (3, 1), (4, 2)]);
    shell.answer(1, 1, Answer::Accepted);
    shell.feed(Event::Leaving(WorkerId(1)));
    shell.wait(60_000);
    assert_eq!(shell.given(), []);
    shell.feed(Event::Gone(WorkerId(1)));
    assert_eq!(shell.given(), [(3, 2)]);
    shell.answer(1, 3, Answer::Accepted);
    assert_eq!(shell.dispatch.held(), 3, "the dead accept nothing");
}

#[test]
fn one_that_refuses_rests_ever_longer_and_is_asked_for_one_at_a_time() {
    let mut shell = Shell::with_workers(Algorithm::RoundRobin, 1);
    shell.connect(HTTP, [1; 6]);
    assert_eq!(shell.given().len(), WINDOW);
    for connection in 1..=4 {
        shell.answer(1, connection, Answer::Refused);
    }
    assert_eq!(shell.told, [Notice::RefusedByAll(HTTP)]);
    for rest in [10, 20, 40, 80, 160, 200, 200] {
        shell.wait(rest - 1);
        assert_eq!(shell.given(), []);
        shell.wait(1);
        assert_eq!(shell.given(), [(1, 1)], "after {rest} ms, and what came first");
        shell.answer(1, 1, Answer::Refused);
    }
    assert_eq!(shell.accepted, 4, "what cannot be given is not accepted");
    shell.wait(200);
    shell.answer(1, 1, Answer::Accepted);
    assert_eq!(shell.given(), [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]);
    assert_eq!(shell.told.len(), 1, "once");
}

#[test]
fn a_refused_one_goes_to_another_at_once() {
    let mut shell = Shell::with_workers(Algorithm::RoundRobin, 2);
    shell.connect(HTTP, [1]);
    shell.answer(1, 1, Answer::NotReceived);
    assert_eq!(shell.given(), [(1, 1), (1, 2)]);
    assert_eq!(shell.told, [Notice::OutOfDescriptors(WorkerId(1))]);
    shell.answer(2, 1, Answer::NotSent);
    shell.wait(10);
    assert_eq!(shell.given(), [(1, 1)]);
}

#[test]
fn a_stalled_worker_is_passed_over_while_another_answers_and_used_if_none_does() {
    let mut shell = Shell::with_workers(Algorithm::RoundRobin, 2);
    shell.connect(HTTP, [1, 1]);
    shell.answer(2, 2, Answer::Accepted);
    shell.wait(1000);
    let stalled = Notice::Stalled { worker: WorkerId(1), unacknowledged: 1 };
    assert_eq!((shell.given().len(), shell.told.as_slice()), (2, &[stalled][..]));
    shell.connect(HTTP, [1; 5]);
    assert_eq!(shell.given(), [(3, 2), (4, 2), (5, 2), (6, 2)], "and the fifth waits outside");
    shell.wait(1000);
    assert_eq!(shell.given(), [(7, 1)], "both are stalled");
    shell.answer(1, 1, Answer::Accepted);
    shell.answer(1, 7, Answer::Accepted);
    assert_eq!(shell.told.len(), 3);
    assert_eq!(shell.told[2], Notice::Answers(WorkerId(1)));
}

#[test]
fn a_channel_that_is_full_is_given_nothing_until_it_takes_more() {
    let mut shell = Shell::with_workers(Algorithm::RoundRobin, 2);
    shell.feed(Event::Blocked(WorkerId(1)));
    shell.connect(HTTP, [1; 9]);
    assert!(shell.given().iter().all(|&(_, worker)| worker == 2));
    shell.wait(1000);
    assert!(shell.told.contains(&Notice::Stalled { worker: WorkerId(1), unacknowledged: 0 }));
    shell.feed(Event::Writable(WorkerId(1)));
    assert_eq!(shell.given().len(), 4);
}

#[test]
fn connections_of_a_client_go_to_its_slot_and_elsewhere_only_while_that_has_nobody() {
    let mut shell = Shell::with_workers(Algorithm::Sticky, 4);
    let before = slots(&mut shell, 0..100);
    shell.feed(Event::Gone(WorkerId(2)));
    let without = slots(&mut shell, 0..100);
    assert!(before.iter().zip(&without).all(|(before, without)| before == without || *before == 2));
    shell.join(102, &[HTTP]);
    assert_eq!(slots(&mut shell, 0..100), before);
    // Those of a busy one wait for it, and others do not.
    let of = |slot| (0..).zip(&before).find(|&(_, &it)| it == slot).expect("some").0;
    shell.connect(HTTP, [of(3); 6]);
    let given = shell.given();
    assert_eq!(given.len(), WINDOW);
    assert!(given.iter().all(|&(_, worker)| worker == 3));
    assert_eq!(slots(&mut shell, of(1)..of(1) + 1), [1]);
    assert_eq!(shell.dispatch.held(), 6);
    // Until it is plain that it does not answer.
    shell.wait(999);
    assert_eq!(shell.given(), []);
    shell.wait(1);
    let given = shell.given();
    assert!(given.len() == 2 && given.iter().all(|&(_, worker)| worker != 3));
}

/// Which slots the next connections of these clients go to, where each is accepted at once.
fn slots(shell: &mut Shell, clients: std::ops::Range<u8>) -> Vec<u64> {
    let mut slots = Vec::new();
    for client in clients {
        shell.connect(HTTP, [client]);
        let &[(connection, worker)] = shell.given().as_slice() else { panic!("not given") };
        shell.answer(worker, connection, Answer::Accepted);
        slots.push(worker % 100);
    }
    slots
}

#[test]
fn the_one_with_the_fewest_open_connections_is_given_the_next() {
    let mut shell = Shell::with_workers(Algorithm::LeastConnections, 2);
    for connection in 1..=4 {
        shell.connect(HTTP, [1]);
        let worker = shell.given()[0].1;
        shell.answer(worker, connection, Answer::Accepted);
    }
    for _ in 0..2 {
        shell.feed(Event::Ended(WorkerId(2)));
    }
    shell.connect(HTTP, [1; 3]);
    assert_eq!(shell.given(), [(5, 2), (6, 2), (7, 1)]);
    // One that does not tell is counted, not more often than that is worth.
    let (worker, listeners) = (WorkerId(3), BTreeSet::from([HTTP]));
    let closes = Closes::Counted;
    shell.feed(Event::Joined { worker, slot: SlotId(3), listeners, closes });
    shell.connect(HTTP, [1, 1]);
    assert_eq!((shell.given().len(), shell.counts.as_slice()), (2, &[worker][..]));
    shell.answer(3, 8, Answer::Accepted);
    shell.feed(Event::Counted { worker, open: Some(9) });
    let open = shell.dispatch.workers().find(|&(id, _)| id == worker).and_then(|(_, it)| it.open);
    assert_eq!(open, Some(10));
    shell.wait(1000);
    shell.connect(HTTP, [1]);
    assert_eq!(shell.counts.len(), 2);
}

#[test]
fn listeners_take_turns_when_there_is_room_for_few() {
    let mut shell = Shell::with_workers(Algorithm::RoundRobin, 1);
    shell.connect(HTTP, [1; 40]);
    shell.connect(HTTPS, [1; 40]);
    for connection in 1..=20 {
        shell.answer(1, connection, Answer::Accepted);
    }
    let left = |listener| 40 - shell.backlogs[&listener].len();
    assert_eq!((left(HTTP), left(HTTPS)), (14, 10), "four came before the other was there");
}

#[test]
fn without_descriptors_accepting_pauses_until_one_is_free_or_for_a_time() {
    let mut shell = Shell::with_workers(Algorithm::RoundRobin, 1);
    shell.descriptors = 2;
    shell.connect(HTTP, [1; 5]);
    assert_eq!((shell.given().len(), shell.told.as_slice()), (2, &[Notice::Scarce][..]));
    assert!(!shell.polled.contains(&HTTP));
    shell.answer(1, 1, Answer::Accepted);
    assert_eq!(shell.given(), [(3, 1)]);
    shell.descriptors = 3;
    shell.wait(100);
    assert_eq!(shell.given(), [(4, 1)]);
    assert_eq!(shell.told.len(), 1, "once");
}

#[test]
fn a_listener_that_fails_is_tried_again_and_one_that_is_closed_is_not() {
    let mut shell = Shell::with_workers(Algorithm::RoundRobin, 1);
    let deadline = |shell: &Shell| shell.dispatch.next_deadline();
    shell.dispatch.handle_event(shell.now, Event::Readable(HTTP));
    assert_eq!(
        shell.dispatch.poll_action(),
        Some(Action::Accept { listener: HTTP, at_most: WINDOW })
    );
    shell.feed(Event::AcceptEnded { listener: HTTP, end: AcceptEnd::Failed });
    assert_eq!(deadline(&shell), Some((shell.now + FAILED_PAUSE, Alarm::Listener(HTTP))));
    shell.wait(1000);
    assert!(deadline(&shell).is_none() && shell.polled.contains(&HTTP));
    shell.feed(Event::Closed(HTTP));
    shell.polled.remove(&HTTP);
    shell.connect(HTTPS, [1; 5]);
    shell.feed(Event::Closed(HTTPS));
    shell.feed(Event::Gone(WorkerId(1)));
    let nobody = [1, 2, 3, 4].map(|connection| (connection, CloseReason::Nobody));
    assert_eq!(shell.closed, nobody);
    assert_eq!((deadline(&shell), shell.dispatch.held()), (None, 0));
}

#[test]
fn a_client_that_went_is_given_to_nobody() {
    let mut shell = Shell::with_workers(Algorithm::RoundRobin, 1);
    shell.connect(HTTP, [1, 1]);
    shell.feed(Event::HungUp(ConnectionId(1)));
    assert_eq!(shell.closed, [], "its worker has it");
    shell.feed(Event::Gone(WorkerId(1)));
    assert_eq!(shell.closed, [(1, CloseReason::HungUp)]);
    shell.feed(Event::HungUp(ConnectionId(2)));
    assert_eq!(shell.closed[1..], [(2, CloseReason::HungUp)]);
}

#[test]
fn the_way_of_choosing_can_change_and_what_waits_looks_for_its_place_anew() {
    let mut shell = Shell::with_workers(Algorithm::Sticky, 3);
    let receivers = |shell: &mut Shell| -> BTreeSet<u64> {
        shell.given().into_iter().map(|(_, worker)| worker).collect()
    };
    // Four, and then it has no room: the rest waits for it.
    shell.connect(HTTP, [7; 9]);
    let home = receivers(&mut shell);
    assert_eq!((home.len(), shell.dispatch.held()), (1, 9));
    shell.dispatch.set_algorithm(shell.now, Algorithm::RoundRobin);
    shell.perform();
    let others = receivers(&mut shell);
    assert!(others.len() == 2 && others.is_disjoint(&home), "{others:?}");
    for (connection, worker) in (1..=4).zip(home.iter().cycle()) {
        shell.answer(*worker, connection, Answer::Accepted);
    }
    shell.dispatch.set_algorithm(shell.now, Algorithm::Sticky);
    shell.perform();
    shell.connect(HTTP, [7]);
    assert_eq!(receivers(&mut shell), home);
}

#[test]
fn a_worker_that_tells_of_an_end_is_believed_from_then_on() {
    let mut shell = Shell::new(Algorithm::LeastConnections);
    let (worker, listeners) = (WorkerId(1), BTreeSet::from([HTTP]));
    let joined = Event::Joined { worker, slot: SlotId(1), listeners, closes: Closes::Counted };
    shell.feed(joined);
    let open = |shell: &Shell| shell.dispatch.workers().next().and_then(|(_, view)| view.open);
    for connection in 1..=3 {
        shell.connect(HTTP, [1]);
        shell.answer(1, connection, Answer::Accepted);
    }
    shell.feed(Event::Counted { worker, open: Some(9) });
    assert_ne!(open(&shell), Some(3));
    shell.feed(Event::Ended(worker));
    assert_eq!(open(&shell), Some(2));
    shell.feed(Event::Counted { worker, open: Some(9) });
    assert_eq!(open(&shell), Some(2), "nobody counts any more");
}
