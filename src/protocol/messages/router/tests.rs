//! Who gets what, in which order, and that nothing of it grows without a bound.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::protocol::messages::MESSAGE_MAX;

const A: WorkerId = WorkerId(1);
const B: WorkerId = WorkerId(2);
const C: WorkerId = WorkerId(3);

fn who(service: &str, slot: u32) -> Who {
    Who { service: service.to_owned(), slot: SlotId(slot), generation: GenerationId(1) }
}

/// Two workers of `web` and one of `agent`.
fn three() -> Router {
    let mut router = Router::default();
    router.enter(A, who("web", 0), Takes::Messages);
    router.enter(B, who("web", 1), Takes::Messages);
    router.enter(C, who("agent", 0), Takes::Messages);
    router
}

fn say(router: &mut Router, from: WorkerId, to: &str, data: &Value) -> Result<usize, Misread> {
    router.hear(from, json!({"to": to, "data": data}).to_string().as_bytes())
}

/// All that waits for a worker.
fn heard(router: &mut Router, worker: WorkerId) -> Vec<Value> {
    let mut heard = Vec::new();
    while let Some(text) = router.take(worker) {
        heard.push(serde_json::from_str(&text).expect("JSON"));
    }
    heard
}

fn named(router: &mut Router) -> Vec<WorkerId> {
    std::iter::from_fn(|| router.poll_due()).collect()
}

#[test]
fn each_recipient_is_found_and_the_sender_of_a_message_to_many_is_none_of_them() {
    for (to, recipients) in [
        ("all", &[B, C][..]),
        ("service:web", &[B]),
        ("service:agent", &[C]),
        ("slot:0", &[A]),
        ("slot:1", &[B]),
        ("service:agent/slot:0", &[C]),
        ("worker:1", &[A]),
        ("worker:3", &[C]),
    ] {
        let mut router = three();
        say(&mut router, A, to, &json!({"n": 1})).expect("a message");
        assert_eq!(named(&mut router), recipients, "{to}");
        for &worker in recipients {
            let message =
                json!({"from": "worker:1", "service": "web", "slot": 0, "data": {"n": 1}});
            assert_eq!(heard(&mut router, worker), [message], "{to}");
        }
        let tally = router.tally(A).expect("counted");
        assert_eq!((tally.sent, tally.undeliverable), (1, 0), "{to}");
    }
}

#[test]
fn what_nobody_gets_is_counted() {
    let mut router = three();
    router.enter(WorkerId(4), who("mute", 0), Takes::Nothing);
    for to in
        ["service:mute", "worker:4", "worker:9", "slot:7", "service:none", "service:web/slot:9"]
    {
        say(&mut router, A, to, &json!(1)).expect("a message");
    }
    assert_eq!(router.tally(A).map(|it| (it.sent, it.undeliverable)), Some((6, 6)));
    assert_eq!(named(&mut router), []);
    // Nor does anybody hear whom messages are off for.
    assert_eq!(say(&mut router, WorkerId(4), "all", &json!(1)), Ok(1));
    assert_eq!(router.hear(WorkerId(4), b"{"), Ok(1));
    assert_eq!((named(&mut router), router.tally(WorkerId(4))), (Vec::new(), None));
    assert_eq!(router.leave(WorkerId(4)).map(|it| (it.sent, it.undeliverable)), Some((0, 2)));
    assert_eq!(router.hear(WorkerId(5), b"{"), Ok(1));
}

#[test]
fn what_is_not_understood_is_counted_and_named() {
    let mut router = three();
    assert_eq!(router.hear(A, b"{"), Err(Misread::NotJson));
    assert_eq!(say(&mut router, A, "supervisor", &json!("stop")), Err(Misread::NoSuchWish));
    router.count_misread(A);
    assert_eq!(router.tally(A).map(|it| (it.sent, it.not_understood)), Some((0, 3)));
    assert_eq!(named(&mut router), []);
}

#[test]
fn a_slot_with_several_workers_is_the_youngest_that_is_ready() {
    let mut router = three();
    router.ready(A);
    router.enter(WorkerId(5), who("web", 0), Takes::Messages);
    let gets = |router: &mut Router| {
        say(router, C, "service:web/slot:0", &json!(1)).expect("a message");
        named(router)
    };
    assert_eq!(gets(&mut router), [A], "the other has just been started");
    router.ready(WorkerId(5));
    assert_eq!(gets(&mut router), [WorkerId(5)]);
    router.stopping(A);
    assert_eq!(gets(&mut router), [WorkerId(5)]);
    router.leave(WorkerId(5));
    assert_eq!(gets(&mut router), [A], "nobody else is there");
}

#[test]
fn who_subscribes_hears_of_those_that_are_ready_and_of_what_becomes_of_them() {
    let mut router = three();
    router.ready(A);
    router.ready(C);
    assert_eq!(named(&mut router), [], "nobody has subscribed");
    let subscribe = json!({"subscribe": "workers"});
    say(&mut router, C, "supervisor", &subscribe).expect("understood");
    let event = |event: &str, worker: &str, slot: u32| {
        json!({"from": "supervisor", "data": {
            "event": event, "worker": worker, "service": "web", "slot": slot, "generation": 1,
        }})
    };
    assert_eq!(heard(&mut router, C), [event("ready", "worker:1", 0)]);
    router.ready(B);
    router.ready(B);
    router.stopping(A);
    router.stopping(A);
    router.leave(A);
    router.stopping(C);
    let news = [
        event("ready", "worker:2", 1),
        event("stopping", "worker:1", 0),
        event("ended", "worker:1", 0),
    ];
    assert_eq!(heard(&mut router, C), news);
    // One that is never ready only ends.
    router.enter(WorkerId(4), who("web", 0), Takes::Nothing);
    router.stopping(WorkerId(4));
    router.leave(WorkerId(4));
    assert_eq!(heard(&mut router, C), [event("ended", "worker:4", 0)]);
    say(&mut router, C, "supervisor", &json!({"unsubscribe": "workers"})).expect("understood");
    router.leave(B);
    assert_eq!(heard(&mut router, C), Vec::<Value>::new());
}

#[test]
fn shepherd_sends_what_is_json_to_whom_it_can() {
    let mut router = three();
    router.enter(WorkerId(4), who("mute", 0), Takes::Nothing);
    assert_eq!(router.send(A, "{\n\"n\":\r\n1}"), Ok(0));
    assert_eq!(router.send(A, "2"), Ok(1));
    let text = router.take(A).expect("a message");
    assert!(!text.contains(['\n', '\r']), "{text}");
    assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON")["data"], json!({"n": 1}));
    assert_eq!(heard(&mut router, A), [json!({"from": "supervisor", "data": 2})]);
    assert_eq!(router.send(WorkerId(9), "1"), Err(CannotSend::NoSuchWorker));
    assert_eq!(router.send(WorkerId(4), "1"), Err(CannotSend::TakesNothing));
    assert_eq!(router.send(A, "{"), Err(CannotSend::Misread(Misread::NotJson)));
    router.shut(A);
    assert_eq!(router.send(A, "1"), Err(CannotSend::TakesNothing));
    say(&mut router, A, "worker:2", &json!("last words")).expect("a message");
    assert_eq!(heard(&mut router, B).len(), 1, "it may have been said before");
}

#[test]
fn what_comes_for_a_reader_that_is_full_is_dropped_and_told_a_few_times() {
    let mut router = three();
    let big = json!("x".repeat(MESSAGE_MAX - 64));
    let fill = |router: &mut Router| {
        let mut sent = 0;
        while router.tally(B).is_some_and(|it| it.waiting == sent) {
            say(router, A, "slot:1", &big).expect("a message");
            sent += 1;
        }
        sent
    };
    for round in 0..TOLD_MAX + 2 {
        let sent = fill(&mut router);
        assert!((3..6).contains(&sent), "{sent}");
        assert_eq!(router.send(B, "1"), Ok(sent - 1), "what is small fits yet");
        assert_eq!(router.send(B, &big.to_string()), Err(CannotSend::Full));
        say(&mut router, A, "slot:1", &big).expect("a message");
        assert_eq!(heard(&mut router, B).len() as u64, sent);
        let news: Vec<_> = std::iter::from_fn(|| router.poll_news()).collect();
        let told = [(B, News::Dropping), (B, News::ReadsAgain { dropped: 2 })];
        assert_eq!(news, if round < TOLD_MAX { &told[..] } else { &[] }, "round {round}");
    }
    let tally = router.tally(B).expect("counted");
    assert_eq!((tally.dropped, tally.waiting), (u64::from(TOLD_MAX + 2) * 2, 0));
    // Others are not held up by it.
    fill(&mut router);
    say(&mut router, A, "all", &json!(1)).expect("a message");
    assert_eq!(heard(&mut router, C).len(), 1);
    // What is left when it goes was for it, and it did not get it.
    let waiting = router.tally(B).expect("counted").waiting;
    let before = router.tally(B).expect("counted").dropped;
    assert_eq!(router.leave(B).map(|it| (it.dropped, it.waiting)), Some((before + waiting, 0)));
    assert_eq!(router.waiting, 0);
}

#[test]
fn all_readers_together_have_a_bound_too() {
    let mut router = Router::default();
    let count = 2 * (WAITING_TOTAL_MAX / WAITING_MAX) as u64;
    for id in 0..count {
        router.enter(WorkerId(id), who("web", 0), Takes::Messages);
    }
    let big = json!("x".repeat(MESSAGE_MAX - 64));
    for _ in 0..5 {
        say(&mut router, WorkerId(0), "all", &big).expect("a message");
        assert!(router.waiting <= WAITING_TOTAL_MAX);
    }
    let dropped: u64 = router.tallies().map(|(_, tally)| tally.dropped).sum();
    assert!(dropped > count, "{dropped}");
}

/// Something that may happen.
#[derive(Debug, Clone)]
enum Step {
    Enter(u64, u32, bool),
    Ready(u64),
    Stopping(u64),
    Leave(u64),
    Shut(u64),
    Say(u64, String, usize),
    Subscribe(u64),
    Send(u64),
    Take(u64, usize),
    Due,
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0..6_u64;
    let to = prop_oneof![
        Just("all".to_owned()),
        Just("service:web".to_owned()),
        Just("slot:1".to_owned()),
        Just("nonsense".to_owned()),
        id.clone().prop_map(|id| format!("worker:{id}")),
    ];
    prop_oneof![
        1 => (id.clone(), 0..3_u32, any::<bool>()).prop_map(|(id, slot, on)| Step::Enter(id, slot, on)),
        1 => id.clone().prop_map(Step::Ready),
        1 => id.clone().prop_map(Step::Stopping),
        1 => id.clone().prop_map(Step::Leave),
        1 => id.clone().prop_map(Step::Shut),
        6 => (id.clone(), to, prop_oneof![0..99_usize, Just(MESSAGE_MAX - 99)])
            .prop_map(|(id, to, length)| Step::Say(id, to, length)),
        1 => id.clone().prop_map(Step::Subscribe),
        1 => id.clone().prop_map(Step::Send),
        3 => (id, 0..9_usize).prop_map(|(id, count)| Step::Take(id, count)),
        1 => Just(Step::Due),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_bounds_hold_and_every_message_is_somewhere(
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut router = Router::default();
        for step in steps {
            match step {
                Step::Enter(id, slot, on) => {
                    let takes = if on { Takes::Messages } else { Takes::Nothing };
                    // A number is never used twice.
                    if !router.peers.contains_key(&WorkerId(id)) {
                        router.enter(WorkerId(id), who("web", slot), takes);
                    }
                }
                Step::Ready(id) => router.ready(WorkerId(id)),
                Step::Stopping(id) => router.stopping(WorkerId(id)),
                Step::Leave(id) => _ = router.leave(WorkerId(id)),
                Step::Shut(id) => router.shut(WorkerId(id)),
                Step::Say(id, to, length) => {
                    let _ = say(&mut router, WorkerId(id), &to, &json!("x".repeat(length)));
                }
                Step::Subscribe(id) => {
                    let wish = json!({"subscribe": "workers"});
                    let _ = say(&mut router, WorkerId(id), "supervisor", &wish);
                }
                Step::Send(id) => _ = router.send(WorkerId(id), "1"),
                Step::Take(id, count) => {
                    for _ in 0..count {
                        router.take(WorkerId(id));
                    }
                }
                Step::Due => _ = router.poll_due(),
            }
            let mut total = 0;
            for (id, peer) in &router.peers {
                let bytes: usize = peer.waiting.iter().map(|text| cost(text)).sum();
                prop_assert_eq!(bytes, peer.bytes, "{}", id);
                prop_assert_eq!(peer.tally.waiting, peer.waiting.len() as u64);
                prop_assert!(peer.bytes <= WAITING_MAX || peer.waiting.len() == 1);
                prop_assert!(peer.hears() || peer.waiting.is_empty());
                total += bytes;
            }
            prop_assert_eq!(total, router.waiting);
            prop_assert!(total <= WAITING_TOTAL_MAX);
            prop_assert!(router.subscribers.iter().all(|id| router.peers.contains_key(id)));
            prop_assert!(router.due.iter().all(|id| router.peers.contains_key(id)));
            prop_assert!(router.news.len() <= 2 * TOLD_MAX as usize * 200);
        }
    }
}
