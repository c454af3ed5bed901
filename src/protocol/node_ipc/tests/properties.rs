//! What holds for all that may be sent and read.

use proptest::prelude::*;

use super::*;

/// Something to send, and what it comes to.
fn sendings() -> impl Strategy<Value = Vec<(bool, serde_json::Value)>> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        ".{0,30}".prop_map(Into::into),
        "[\u{0}-\u{20}\"\\\\\u{2028}\u{1f411}]{0,20}".prop_map(Into::into),
        (0..2000usize).prop_map(|length| "\u{20ac}".repeat(length).into()),
    ];
    let value = leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            prop::collection::vec((".{0,5}", inner), 0..4)
                .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
        ]
    });
    prop::collection::vec((any::<bool>(), value), 1..12)
}

/// Sizes of reads and writes, over and over.
fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1..8usize, 1..70_000usize], 1..20)
}

proptest! {
    #[test]
    fn whatever_is_sent_arrives_whole_in_order_and_with_its_own_descriptor(
        sendings in sendings(),
        writes in sizes(),
        reads in sizes(),
    ) {
        let mut writes = writes.into_iter().cycle();
        let mut reads = reads.into_iter().cycle();
        let (mut near, mut far) = (Channel::new(Limits::default()), Channel::new(Limits::default()));
        let (mut there, mut back) = (Wire::default(), Wire::default());
        let mut expected = Vec::new();
        let mut delivered = Vec::new();
        for (number, (with_handle, value)) in (0..).zip(sendings) {
            let text = value.to_string();
            if with_handle {
                near.send_handle(handle_line_of(&text), number).expect("room");
                expected.push(Got::Handle(HandleKind::Socket, text, number));
                delivered.push(Got::Delivered(number));
            } else {
                near.send_message(Line::message(&text, usize::MAX).expect("one")).expect("room");
                expected.push(Got::Message(text));
            }
        }
        let (mut heard, mut answers) = (Vec::new(), Vec::new());
        loop {
            there.write(&mut near, || writes.next().unwrap_or(1));
            let Some((bytes, handles)) = there.read(reads.next().unwrap_or(1)) else { break };
            heard.extend(read(&mut far, &bytes, &handles));
            back.write(&mut far, || writes.next().unwrap_or(1));
            while let Some((bytes, handles)) = back.read(reads.next().unwrap_or(1)) {
                answers.extend(read(&mut near, &bytes, &handles));
            }
        }
        prop_assert_eq!(heard, expected);
        prop_assert_eq!(answers, delivered);
        prop_assert_eq!((near.problems(), far.problems(), near.handles()), (0, 0, 0));
        prop_assert_eq!((near.queued_bytes(), far.queued_bytes()), ((0, 0), (0, 0)));
    }

    #[test]
    fn any_bytes_are_read_alike_however_they_come_and_keep_within_bounds(
        parts in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40),
                "[\\[\\]{}\",:0-9a-z \n]{0,40}".prop_map(String::into_bytes),
                (0..3usize).prop_map(|which| [ACK, NACK, SOCKET][which].as_bytes().to_vec()),
                (0..300usize).prop_map(|length| vec![b'1'; length]),
            ],
            0..30,
        ),
        reads in sizes(),
        handles in prop::collection::vec(0..3u32, 1..10),
    ) {
        let bytes = parts.concat();
        let limits = Limits { internal_bytes_max: 10_000, ..small() };
        let mut whole = Channel::new(limits);
        let expected = read(&mut whole, &bytes, &[]);
        let mut piecewise = Channel::new(limits);
        let mut hostile = Channel::new(limits);
        let mut all = Vec::new();
        let (mut reads, mut handles) = (reads.iter().cycle(), handles.iter().cycle());
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(rest.len().min(*reads.next().unwrap_or(&1)));
            rest = tail;
            all.extend(read(&mut piecewise, piece, &[]));
            let given: Vec<u32> = (0..*handles.next().unwrap_or(&0)).collect();
            read(&mut hostile, piece, &given);
            prop_assert!(hostile.queued_bytes().1 <= limits.internal_bytes_max);
        }
        prop_assert_eq!(&all, &expected);
        prop_assert_eq!(piecewise.handle_end(), whole.handle_end());
        hostile.handle_end();
    }

    #[test]
    fn a_worker_that_never_reads_costs_no_more_than_the_limits(
        pushes in prop::collection::vec((0..3u8, 1..300usize), 1..100),
    ) {
        let mut channel = channel();
        for (what, length) in pushes {
            let text = "1".repeat(length);
            let line = message(&text);
            // Each of them may be refused.
            match what {
                0 => drop(channel.send(line)),
                1 => drop(channel.send_message(line)),
                _ => drop(channel.send_handle(handle_line(&text), 1)),
            }
            let (messages, internal) = channel.queued_bytes();
            prop_assert!(messages <= small().message_bytes_max.max(301), "{messages}");
            prop_assert!(internal <= small().internal_bytes_max, "{internal}");
            prop_assert!(channel.handles() <= small().handles_max);
        }
        written(&mut channel);
        prop_assert_eq!(channel.queued_bytes(), (0, 0));
    }
}

fn handle_line_of(json: &str) -> HandleLine {
    HandleLine::message(HandleKind::Socket, json, usize::MAX).expect("a message")
}
