//! Whose turn it is between the thread and each of its clients. A client who keeps us waiting, with
//! a request that does not end, with an answer that it does not read, or with nothing at all, makes
//! room for the next who comes; one who waits for us never does.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::service::TowerToHyperService;
use tokio::sync::Notify;

use crate::core::time::Time;
use crate::os::clock;

/// Those who have a place.
#[derive(Debug, Default)]
pub(super) struct Guests(Mutex<Vec<Weak<Guest>>>);

/// A client that is connected.
#[derive(Debug)]
pub(super) struct Guest {
    turn: Mutex<Turn>,
    leaves: Notify,
}

/// Since when it keeps us waiting, in either way.
#[derive(Debug, Clone, Copy)]
struct Turn {
    /// For the rest of its request, or the next one.
    asks: Option<Time>,
    /// To be written what it does not read.
    unread: Option<Time>,
}

impl Guests {
    /// One more has a place: what comes next is its request.
    pub(super) fn enter(&self, now: Time) -> Arc<Guest> {
        let guest = Arc::new(Guest::new(now));
        let mut guests = lock(&self.0);
        guests.retain(|guest| guest.strong_count() > 0);
        guests.push(Arc::downgrade(&guest));
        guest
    }

    /// Has the one leave who keeps us waiting for longest, if there is one.
    pub(super) fn dismiss_longest(&self) {
        let mut guests = lock(&self.0);
        let waits = guests.iter().enumerate().filter_map(|(index, guest)| {
            let guest = guest.upgrade()?;
            Some((guest.waited_for_since()?, index, guest))
        });
        if let Some((_, index, guest)) = waits.min_by_key(|&(since, ..)| since) {
            guests.remove(index);
            guest.leaves.notify_one();
        }
    }
}

impl Guest {
    pub(super) fn new(now: Time) -> Guest {
        let turn = Turn { asks: Some(now), unread: None };
        Guest { turn: Mutex::new(turn), leaves: Notify::new() }
    }

    /// It has asked: the next word is ours.
    fn has_asked(&self) {
        lock(&self.turn).asks = None;
    }

    /// It has its answer.
    fn is_answered(&self, now: Time) {
        lock(&self.turn).asks = Some(now);
    }

    /// It does not read, since now or since it was said first.
    pub(super) fn does_not_read(&self, now: Time) {
        lock(&self.turn).unread.get_or_insert(now);
    }

    /// It reads.
    pub(super) fn reads(&self) {
        lock(&self.turn).unread = None;
    }

    fn waited_for_since(&self) -> Option<Time> {
        let Turn { asks, unread } = *lock(&self.turn);
        asks.into_iter().chain(unread).min()
    }

    /// Returns once it has to leave.
    pub(super) async fn leaves(&self) {
        self.leaves.notified().await;
    }
}

/// Nothing that holds such a lock can panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same service, which notes whose turn it is.
pub(super) fn noting(
    router: axum::Router,
    guest: Arc<Guest>,
) -> impl Service<
    Request<Incoming>,
    Response = Response<Answer>,
    Error = Infallible,
    Future: Future<Output = Result<Response<Answer>, Infallible>> + Send,
> {
    let service = TowerToHyperService::new(router);
    service_fn(move |request: Request<Incoming>| {
        let guest = Arc::clone(&guest);
        let answer = service.call(request.map(|body| Asked::new(body, Arc::clone(&guest))));
        async move { Ok(answer.await?.map(|body| Answer { body, guest })) }
    })
}

/// The body of a request. Once it is whole, or nobody reads more of it, it was asked.
struct Asked {
    body: Incoming,
    guest: Arc<Guest>,
}

impl Asked {
    fn new(body: Incoming, guest: Arc<Guest>) -> Asked {
        if body.is_end_stream() {
            guest.has_asked();
        }
        Asked { body, guest }
    }
}

impl HttpBody for Asked {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) || self.body.is_end_stream() {
            self.guest.has_asked();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.guest.has_asked();
    }
}

/// The body of an answer. Once it is gone the next word is the client's.
pub(super) struct Answer {
    body: Body,
    guest: Arc<Guest>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.guest.is_answered(clock::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;
    use std::time::Duration;

    fn at(seconds: u64) -> Time {
        Time::after_origin(Duration::from_secs(seconds))
    }

    fn has_to_leave(guest: &Guest) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        std::pin::pin!(guest.leaves()).poll(&mut context).is_ready()
    }

    #[test]
    fn who_keeps_us_waiting_for_longest_leaves_first_and_who_waits_for_us_never() {
        let guests = Guests::default();
        let [stays, slow, answered, deaf, gone] = [1, 2, 3, 4, 0].map(|s| guests.enter(at(s)));
        drop(gone);
        stays.has_asked();
        answered.has_asked();
        answered.is_answered(at(9));
        deaf.has_asked();
        deaf.does_not_read(at(5));
        deaf.does_not_read(at(6));
        let all = [&stays, &slow, &answered, &deaf];
        let mut left = Vec::new();
        for _ in 0..5 {
            guests.dismiss_longest();
            left.extend((0..all.len()).filter(|&index| has_to_leave(all[index])));
        }
        assert_eq!(left, [1, 3, 2]);
    }

    #[test]
    fn who_reads_again_does_not_keep_us_waiting() {
        let guests = Guests::default();
        let guest = guests.enter(at(1));
        guest.has_asked();
        guest.does_not_read(at(2));
        guest.reads();
        guests.dismiss_longest();
        assert!(!has_to_leave(&guest));
    }
}
