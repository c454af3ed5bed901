//! What the kernel does with a channel, on which the codec relies.

use super::*;

fn pair() -> (NodeChannel, NodeChannel) {
    let (ours, workers) = NodeChannel::pair().expect("two descriptors");
    (ours, NodeChannel { socket: workers.into() })
}

/// What one read gives: its bytes, and how many descriptors.
fn read(channel: &NodeChannel) -> Option<(Vec<u8>, usize)> {
    let mut bytes = [0; 100];
    match channel.read(&mut bytes).expect("readable") {
        Input::Read { length, descriptors, cut } => {
            assert!(!cut);
            Some((bytes[..length].to_vec(), descriptors.len()))
        }
        Input::Nothing | Input::End => None,
    }
}

#[test]
fn a_descriptor_comes_with_what_it_was_sent_with_and_ends_the_read() {
    let (ours, workers) = pair();
    assert!(matches!(ours.read(&mut [0; 10]), Ok(Input::Nothing)));
    let sent = |bytes: &[u8], descriptor| {
        assert_eq!(ours.write(bytes, descriptor).expect("open"), Output::Written(bytes.len()));
    };
    sent(b"before ", None);
    sent(b"with", Some(ours.as_fd()));
    sent(b"after", None);
    sent(b"again", Some(ours.as_fd()));
    assert_eq!(read(&workers), Some((b"before with".to_vec(), 1)));
    assert_eq!(read(&workers), Some((b"afteragain".to_vec(), 1)));
    assert_eq!(read(&workers), None);
}

#[test]
fn a_socket_that_nobody_reads_is_full_and_takes_more_later() {
    let (ours, workers) = pair();
    let bytes = vec![b'x'; 100_000];
    let mut written = 0;
    while let Output::Written(count) = ours.write(&bytes, Some(ours.as_fd())).expect("open") {
        written += count;
    }
    assert!(written > 0);
    let mut read = vec![0; written];
    let mut left = written;
    while left > 0 {
        match workers.read(&mut read).expect("readable") {
            Input::Read { length, .. } => left -= length,
            other => panic!("{left} of {written} are left: {other:?}"),
        }
    }
    assert!(matches!(ours.write(b"x", None), Ok(Output::Written(1))));
}

#[test]
fn the_end_comes_after_what_was_sent_also_where_the_other_read_nothing() {
    for unread in [false, true] {
        let (ours, workers) = pair();
        workers.write(b"last", None).expect("open");
        if unread {
            ours.write(b"unread", None).expect("open");
        }
        drop(workers);
        assert_eq!(read(&ours), Some((b"last".to_vec(), 0)));
        assert!(matches!(ours.read(&mut [0; 10]), Ok(Input::End)));
        assert!(ours.write(b"x", None).is_err());
    }
}
