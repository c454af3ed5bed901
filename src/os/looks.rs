//! A thread that looks at what is left for workers that are to stop: it takes longer than the loop
//! may be held up. There is one look at a time, and one of a service on its way at most. The thread
//! is started by the first look and ends when there was none for a while.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::clock;
use super::left::{Answer, Looker, Request};
use super::wake::Wake;
use crate::core::ids::ServiceId;
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

/// It has no more requests and answers than there are services.
#[derive(Debug, Default)]
struct State {
    requests: VecDeque<Request>,
    answers: Vec<(ServiceId, Answer)>,
    /// Whether a thread takes requests.
    is_served: bool,
    /// Whether nobody wants answers any more.
    is_over: bool,
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
        if !state.is_served {
            let (shared, bell) = (Arc::clone(&self.shared), self.wake.clone());
            let builder = thread::Builder::new().name("looks".to_owned());
            if builder.spawn(move || serve(&shared, &bell, look)).is_err() {
                state.answers.push((request.service, Answer::unknown(&request)));
                self.wake.ring();
                return true;
            }
            // It waits for what is locked here.
            state.is_served = true;
        }
        state.requests.push_back(request);
        self.shared.changed.notify_one();
        true
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

    /// The next request; `None` when the thread is to end, and then nobody counts on it any more.
    fn next(&self) -> Option<Request> {
        let is_idle = |state: &mut State| state.requests.is_empty() && !state.is_over;
        let waited = self.changed.wait_timeout_while(self.lock(), IDLE, is_idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let request = if state.is_over { None } else { state.requests.pop_front() };
        state.is_served = request.is_some();
        request
    }
}

fn serve(shared: &Shared, bell: &Wake, look: Look) {
    let mut looker = Looker::default();
    while let Some(request) = shared.next() {
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
    use super::*;
    use crate::core::ids::WorkerId;
    use crate::os::memory::Account;

    fn request(service: u32, number: u64) -> Request {
        Request {
            number,
            service: ServiceId(service),
            members: Vec::new(),
            beside: Vec::new(),
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
