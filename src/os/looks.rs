//! A thread that looks at what is left for workers that are to stop, at the memory that is free, and at
//! how many connections workers have open:
//! it takes longer than the loop may be held up. There is one look at a time, and one of each kind of
//! a service on its way at most. The thread is started by the first look and ends when there was none
//! for a while.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::clock;
use super::left::{Answer, HELD_FOR, Looker, Request};
use super::memory::Account;
use super::room;
use super::socket_table::Place;
use super::traffic;
use super::wake::Wake;
use crate::core::ids::{GenerationId, ServiceId, WorkerId};
use crate::core::time::Time;

/// After how long without a look the thread ends.
const IDLE: Duration = Duration::from_secs(30);

/// How it is looked.
type Look = fn(&mut Looker, Time, &Request) -> Answer;

/// The looks that are on their way, for the loop.
#[derive(Debug)]
pub struct Looks {
    wake: Wake,
    shared: Arc<Shared>,
    /// Whose look is on its way.
    under_way: BTreeSet<ServiceId>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// It has no more requests and answers of a kind than there are services.
#[derive(Debug, Default)]
struct State {
    requests: VecDeque<Request>,
    answers: Vec<(ServiceId, Answer)>,
    weighings: VecDeque<Weighing>,
    weighed: Vec<Weighed>,
    countings: VecDeque<Counting>,
    counted: Vec<Counted>,
    /// Whether a thread takes requests.
    is_served: bool,
    /// Whether nobody wants answers any more.
    is_over: bool,
}

/// For how many more workers of a service memory is free is to be looked at.
#[derive(Debug, Clone)]
pub struct Weighing {
    /// Whose.
    pub service: ServiceId,
    /// Which of its generations is to be started.
    pub generation: GenerationId,
    /// Workers that serve.
    pub workers: Vec<Account>,
}

/// For how many it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weighed {
    /// Whose.
    pub service: ServiceId,
    /// Which of its generations is to be started.
    pub generation: GenerationId,
    /// For how many more workers; `None` where that cannot be known.
    pub room: Option<u32>,
}

/// How many connections workers of a service have open is to be counted.
#[derive(Debug, Clone)]
pub struct Counting {
    /// Whose workers.
    pub service: ServiceId,
    /// The sockets that the connections came to.
    pub places: Vec<Place>,
    /// Workers, and where their processes are found.
    pub workers: Vec<(WorkerId, Account)>,
}

/// How many they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Whose workers.
    pub service: ServiceId,
    /// Of each, as far as that is known.
    pub workers: Vec<(WorkerId, Option<u32>)>,
}

impl Counting {
    fn count(&self) -> Counted {
        let places: Vec<&Place> = self.places.iter().collect();
        let accounts: Vec<&Account> = self.workers.iter().map(|(_, account)| account).collect();
        let open = traffic::connections(&places, &accounts);
        let workers = self.workers.iter().zip(open).map(|((worker, _), open)| (*worker, open));
        Counted { service: self.service, workers: workers.collect() }
    }

    fn unknown(&self) -> Counted {
        let workers = self.workers.iter().map(|(worker, _)| (*worker, None));
        Counted { service: self.service, workers: workers.collect() }
    }
}

/// What the thread does next.
enum Task {
    Look(Request),
    Weigh(Weighing),
    Count(Counting),
    /// Nobody has asked for what is held on to for a while.
    LetGo,
}

impl Looks {
    /// None yet, and no thread.
    ///
    /// # Errors
    ///
    /// When no descriptor is left.
    pub fn new() -> io::Result<Looks> {
        Ok(Looks { wake: Wake::new()?, shared: Arc::default(), under_way: BTreeSet::new() })
    }

    /// Begins a look. It is answered in any case: without a thread at once, that nothing can be known.
    /// Gives whether it was begun: a service has one look on its way.
    pub fn start(&mut self, request: Request) -> bool {
        self.start_with(request, Looker::look)
    }

    fn start_with(&mut self, request: Request, look: Look) -> bool {
        if !self.under_way.insert(request.service) {
            return false;
        }
        let mut state = self.shared.lock();
        if !self.is_served(&mut state, look) {
            state.answers.push((request.service, Answer::unknown(&request)));
            self.wake.ring();
            return true;
        }
        state.requests.push_back(request);
        self.shared.changed.notify_one();
        true
    }

    /// Begins to look for how many more workers memory is free. It is answered in any case, as a look
    /// is.
    pub fn weigh(&self, weighing: Weighing) {
        let mut state = self.shared.lock();
        if self.is_served(&mut state, Looker::look) {
            state.weighings.push_back(weighing);
            self.shared.changed.notify_one();
        } else {
            let Weighing { service, generation, .. } = weighing;
            state.weighed.push(Weighed { service, generation, room: None });
            self.wake.ring();
        }
    }

    /// Begins to count. It is answered in any case, as a look is.
    pub fn count(&self, counting: Counting) {
        let mut state = self.shared.lock();
        if self.is_served(&mut state, Looker::look) {
            state.countings.push_back(counting);
            self.shared.changed.notify_one();
        } else {
            state.counted.push(counting.unknown());
            self.wake.ring();
        }
    }

    /// What was counted. Call it when the descriptor is readable, before [`Looks::take`].
    pub fn take_counted(&mut self) -> Vec<Counted> {
        std::mem::take(&mut self.shared.lock().counted)
    }

    /// Whether a thread takes what is asked, one that is started if there is none.
    fn is_served(&self, state: &mut State, look: Look) -> bool {
        if !state.is_served {
            let (shared, bell) = (Arc::clone(&self.shared), self.wake.clone());
            let builder = thread::Builder::new().name("looks".to_owned());
            // It waits for what is locked by who asks.
            state.is_served = builder.spawn(move || serve(&shared, &bell, look)).is_ok();
        }
        state.is_served
    }

    /// What was found of memory. Call it when the descriptor is readable, before [`Looks::take`].
    pub fn take_weighed(&mut self) -> Vec<Weighed> {
        std::mem::take(&mut self.shared.lock().weighed)
    }

    /// The answers that have come. Call it when the descriptor is readable.
    pub fn take(&mut self) -> Vec<(ServiceId, Answer)> {
        self.wake.hear();
        let answers = std::mem::take(&mut self.shared.lock().answers);
        for (service, _) in &answers {
            self.under_way.remove(service);
        }
        answers
    }
}

impl AsFd for Looks {
    /// Readable when an answer has come.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl Drop for Looks {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be done next; `None` when the thread is to end, and then nobody counts on it any more.
    /// One that holds on to something waits less long.
    fn next(&self, holds: bool) -> Option<Task> {
        let is_idle = |state: &mut State| {
            let is_idle = state.requests.is_empty() && state.weighings.is_empty();
            is_idle && state.countings.is_empty() && !state.is_over
        };
        let patience = if holds { HELD_FOR } else { IDLE };
        let waited = self.changed.wait_timeout_while(self.lock(), patience, is_idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let task = if state.is_over {
            None
        } else {
            let look = state.requests.pop_front().map(Task::Look);
            let task = look.or_else(|| state.weighings.pop_front().map(Task::Weigh));
            let task = task.or_else(|| state.countings.pop_front().map(Task::Count));
            task.or_else(|| holds.then_some(Task::LetGo))
        };
        state.is_served = task.is_some();
        task
    }
}

fn serve(shared: &Shared, bell: &Wake, look: Look) {
    let mut looker = Looker::default();
    while let Some(task) = shared.next(looker.held() > 0) {
        looker.let_old_go(clock::now());
        let request = match task {
            Task::Look(request) => request,
            Task::LetGo => continue,
            Task::Weigh(Weighing { service, generation, workers }) => {
                let room = catch_unwind(|| room::room(&workers)).unwrap_or_default();
                shared.lock().weighed.push(Weighed { service, generation, room });
                bell.ring();
                continue;
            }
            Task::Count(counting) => {
                let counted = catch_unwind(AssertUnwindSafe(|| counting.count()));
                shared.lock().counted.push(counted.unwrap_or_else(|_| counting.unknown()));
                bell.ring();
                continue;
            }
        };
        let once = AssertUnwindSafe(|| look(&mut looker, clock::now(), &request));
        let answer = catch_unwind(once).unwrap_or_else(|_| {
            // What it remembered may be half of something.
            looker = Looker::default();
            Answer::unknown(&request)
        });
        shared.lock().answers.push((request.service, answer));
        bell.ring();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use nix::sys::stat::fstat;

    use super::*;
    use crate::config::socket::Transport;
    use crate::core::ids::MemberId;
    use crate::os::left::Draining;
    use crate::os::local_address::LocalAddress;

    fn request(service: u32, number: u64) -> Request {
        Request {
            number,
            service: ServiceId(service),
            members: Vec::new(),
            beside: Vec::new(),
            dispatched: Vec::new(),
            handshakes: true,
            workers: vec![(WorkerId(number), Account::of(None))],
            close_idle: Vec::new(),
            hold: Vec::new(),
            asked: Vec::new(),
        }
    }

    fn wait_for(looks: &mut Looks, count: usize) -> Vec<(ServiceId, Answer)> {
        let mut answers = Vec::new();
        for _ in 0..60 {
            looks.wake.wait(Duration::from_secs(1));
            answers.extend(looks.take());
            if answers.len() >= count {
                return answers;
            }
        }
        panic!("{count} answers do not come: {answers:?}");
    }

    #[test]
    fn each_service_has_one_look_on_its_way_and_each_is_answered() {
        let mut looks = Looks::new().expect("a descriptor");
        for service in 0..8 {
            assert!(looks.start(request(service, 7)));
            assert!(!looks.start(request(service, 8)), "one is on its way");
        }
        let answers = wait_for(&mut looks, 8);
        assert!(answers.iter().all(|(_, answer)| answer.number == 7), "{answers:?}");
        assert!(looks.start(request(3, 9)));
        let answers = wait_for(&mut looks, 1);
        let nothing_left = vec![(WorkerId(9), Some(0))];
        let answer = Answer {
            number: 9,
            members: Vec::new(),
            workers: nothing_left,
            asked: Vec::new(),
            idle: Vec::new(),
        };
        assert_eq!(answers, [(ServiceId(3), answer)]);
    }

    #[test]
    fn a_look_that_panics_is_answered_and_the_next_one_as_well() {
        let panics: Look = |looker, now, request| {
            assert!(request.number != 1, "as it is asked to");
            looker.look(now, request)
        };
        let mut looks = Looks::new().expect("a descriptor");
        assert!(looks.start_with(request(1, 1), panics));
        let answers = wait_for(&mut looks, 1);
        assert_eq!(answers, [(ServiceId(1), Answer::unknown(&request(1, 1)))]);
        assert!(looks.start_with(request(1, 2), panics));
        assert_eq!(wait_for(&mut looks, 1)[0].1.workers, [(WorkerId(2), Some(0))]);
    }

    #[test]
    fn what_is_held_on_to_is_let_go_soon_after_the_last_look() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        let mut client = TcpStream::connect(address).expect("it listens");
        let (taken, _) = listener.accept().expect("one waits");
        let us = i32::try_from(std::process::id()).expect("a pid");
        let place = Place {
            inode: fstat(&listener).expect("an inode").st_ino,
            transport: Transport::Stream,
            address: LocalAddress::Ip(address),
        };
        // Of the client's end the address is another.
        let draining = Draining { member: MemberId(1), place, parted: None };
        let workers = vec![(WorkerId(1), Account::of(Some(us)))];
        let (members, hold) = (vec![draining], vec![WorkerId(1)]);
        let mut looks = Looks::new().expect("a descriptor");
        assert!(looks.start(Request { members, workers, hold, ..request(1, 1) }));
        let answers = wait_for(&mut looks, 1);
        assert_eq!(answers[0].1.workers, [(WorkerId(1), Some(1))]);
        drop(taken);
        client.set_read_timeout(Some(IDLE / 2)).expect("it is a time");
        assert_eq!(client.read(&mut [0]).expect("not after so long"), 0);
    }

    #[test]
    fn memory_is_looked_at_by_the_same_thread() {
        let mut looks = Looks::new().expect("a descriptor");
        let us = i32::try_from(std::process::id()).expect("a pid");
        let (service, generation) = (ServiceId(1), GenerationId(2));
        let workers = vec![Account::of(Some(us))];
        looks.weigh(Weighing { service, generation, workers });
        for _ in 0..60 {
            looks.wake.wait(Duration::from_secs(1));
            let weighed = looks.take_weighed();
            looks.take();
            if let [weighed] = weighed[..] {
                assert_eq!((weighed.service, weighed.generation), (service, generation));
                return assert!(weighed.room.is_some(), "we can be weighed");
            }
        }
        panic!("no answer comes");
    }

    #[test]
    fn connections_are_counted_by_the_same_thread() {
        let mut looks = Looks::new().expect("a descriptor");
        let workers = vec![(WorkerId(3), Account::of(None))];
        looks.count(Counting { service: ServiceId(1), places: Vec::new(), workers });
        for _ in 0..60 {
            looks.wake.wait(Duration::from_secs(1));
            let counted = looks.take_counted();
            looks.take();
            if let [counted] = &counted[..] {
                assert_eq!(counted.workers, [(WorkerId(3), Some(0))]);
                return;
            }
        }
        panic!("no answer comes");
    }

    #[test]
    fn the_thread_ends_when_nobody_wants_answers() {
        let mut looks = Looks::new().expect("a descriptor");
        assert!(looks.start(request(1, 1)));
        wait_for(&mut looks, 1);
        let shared = Arc::downgrade(&looks.shared);
        drop(looks);
        for _ in 0..3000 {
            if shared.upgrade().is_none() {
                return;
            }
            let _ = nix::poll::poll(&mut [], 10_u8);
        }
        panic!("after 30 s the thread is still there");
    }
}
