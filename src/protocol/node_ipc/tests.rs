//! Channels against what a kernel may make of what was sent, and against workers that do what they want.

mod properties;

use std::collections::VecDeque;

use super::*;

/// What was sent in one direction and not read, as the kernel keeps it: one piece for each sendmsg(2).
#[derive(Debug, Default)]
struct Wire {
    pieces: VecDeque<(Vec<u8>, Option<u32>)>,
}

impl Wire {
    /// Writes what a channel has to say, by at most so many bytes at once.
    fn write(&mut self, channel: &mut Channel<u32>, mut sizes: impl FnMut() -> usize) {
        while let Some(chunk) = channel.poll_write() {
            let count = chunk.bytes.len().min(sizes());
            self.pieces.push_back((chunk.bytes[..count].to_vec(), chunk.handle.copied()));
            channel.handle_written(count);
        }
    }

    /// One recvmsg(2): it ends after a piece that had a descriptor, and within a piece that is longer.
    fn read(&mut self, max: usize) -> Option<(Vec<u8>, Vec<u32>)> {
        let (mut bytes, mut handles) = (Vec::new(), Vec::new());
        while let Some((piece, handle)) = self.pieces.front_mut()
            && bytes.len() < max
        {
            bytes.extend(piece.drain(..piece.len().min(max - bytes.len())));
            handles.extend(handle.take());
            if !piece.is_empty() {
                break;
            }
            self.pieces.pop_front();
            if !handles.is_empty() {
                break;
            }
        }
        (!bytes.is_empty()).then_some((bytes, handles))
    }
}

/// [`Received`] with texts of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Got {
    Internal(String),
    Message(String),
    Handle(HandleKind, String, u32),
    Delivered(u32),
    Undelivered(u32),
    Problem(Problem),
}

fn got(received: Received<'_, u32>) -> Got {
    match received {
        Received::Internal(text) => Got::Internal(text.to_owned()),
        Received::Message(text) => Got::Message(text.to_owned()),
        Received::Handle { kind, message, handle, .. } => {
            Got::Handle(kind, message.to_owned(), handle)
        }
        Received::Delivered(handle) => Got::Delivered(handle),
        Received::Undelivered(item) => Got::Undelivered(item.handle),
        Received::Problem(problem) => Got::Problem(problem),
    }
}

fn read(channel: &mut Channel<u32>, bytes: &[u8], handles: &[u32]) -> Vec<Got> {
    let mut all = Vec::new();
    channel.handle_read(bytes, handles.iter().copied(), |received| all.push(got(received)));
    all
}

/// Everything that waits to be written, line by line.
fn written(channel: &mut Channel<u32>) -> Vec<(String, Option<u32>)> {
    let mut wire = Wire::default();
    wire.write(channel, || usize::MAX);
    let lines = wire.pieces.into_iter();
    lines.map(|(bytes, handle)| (String::from_utf8(bytes).expect("text"), handle)).collect()
}

fn small() -> Limits {
    Limits { line_bytes_max: 200, message_bytes_max: 100, internal_bytes_max: 500, handles_max: 4 }
}

fn channel() -> Channel<u32> {
    Channel::new(small())
}

fn message(json: &str) -> Line {
    Line::message(json, 1000).expect("a message")
}

fn handle_line(json: &str) -> HandleLine {
    HandleLine::message(HandleKind::Socket, json, 1000).expect("a message")
}

const ACK: &str = "{\"cmd\":\"NODE_HANDLE_ACK\"}\n";
const NACK: &str = "{\"cmd\":\"NODE_HANDLE_NACK\"}\n";
const SOCKET: &str = "{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\",\"msg\":\"m\"}\n";

#[test]
fn what_is_nodes_and_what_is_the_programs_is_told_apart_as_node_does() {
    let mut channel = channel();
    let internal = r#"{"seq":1,"cmd":"NODE_X"}"#;
    let messages = [
        r#"{"cmd":"NODE_"}"#,
        r#"{"cmd":["NODE_HANDLE"]}"#,
        r#"{"msg":{"cmd":"NODE_HANDLE"}}"#,
        r#"["cmd","NODE_HANDLE"]"#,
        "null",
        "5",
        READY,
        r#""\ud800""#,
    ];
    let text = format!("{internal}\n {}\r\n", messages.join("\n"));
    let mut expected = vec![Got::Internal(internal.to_owned())];
    expected.extend(messages.map(|text| Got::Message(text.to_owned())));
    assert_eq!(read(&mut channel, text.as_bytes(), &[]), expected);
    assert_eq!(channel.problems(), 0);
}

#[test]
fn what_cannot_be_read_is_named_and_the_next_line_counts() {
    let not_json = |column| Problem::NotJson { column };
    for (line, problem) in [
        (&b""[..], Problem::Blank),
        (b" \t", Problem::Blank),
        (b"\xff\"", Problem::NotText),
        (b"{\"a\":}", not_json(6)),
        (b"[1,2", not_json(4)),
        (b"1 2", not_json(3)),
        (b"{} {}", not_json(4)),
        (b"\x02{\"act\":\"online\"}", Problem::BunDialect),
    ] {
        let mut channel = channel();
        let bytes = [line, b"\n5\n"].concat();
        let expected = [Got::Problem(problem), Got::Message("5".to_owned())];
        assert_eq!(read(&mut channel, &bytes, &[]), expected);
        assert_eq!((channel.problems(), channel.is_over()), (1, false));
    }
}

#[test]
fn a_line_without_an_end_ends_the_channel_and_one_of_the_longest_length_does_not() {
    let mut channel = channel();
    let longest = format!("\"{}\"", "x".repeat(198));
    for _ in 0..2 {
        assert_eq!(read(&mut channel, &longest.as_bytes()[..100], &[]), []);
        let rest = [&longest.as_bytes()[100..], b"\n"].concat();
        assert_eq!(read(&mut channel, &rest, &[]), [Got::Message(longest.clone())]);
    }
    assert_eq!(read(&mut channel, longest.as_bytes(), &[]), []);
    let over = Got::Problem(Problem::TooLong { max: 200 });
    assert_eq!(read(&mut channel, b" \n5\n", &[]), [over]);
    assert!(channel.is_over());
    assert_eq!(read(&mut channel, b"5\n", &[7]), [], "nothing counts after it");
    assert_eq!(channel.handle_end(), None);
}

#[test]
fn a_line_that_was_cut_off_is_told() {
    let mut channel = channel();
    assert_eq!(read(&mut channel, b"5\n{\"cmd\":\"NODE_HANDLE", &[7]).len(), 1);
    assert_eq!(channel.handle_end(), Some(Problem::CutOff { bytes: 19 }));
    assert!(channel.is_over());
}

#[test]
fn a_descriptor_is_answered_before_it_is_heard_of_and_before_all_that_waits() {
    let mut channel = channel();
    channel.send(message("1")).expect("room");
    channel.send(message("2")).expect("room");
    let first = channel.poll_write().map(|chunk| chunk.bytes.to_vec());
    assert_eq!(first.as_deref(), Some(&b"1\n"[..]));
    channel.handle_written(1);
    let all = read(&mut channel, SOCKET.as_bytes(), &[7]);
    assert_eq!(all, [Got::Handle(HandleKind::Socket, r#""m""#.to_owned(), 7)]);
    // Not in the midst of a line, of course.
    let lines: Vec<String> = written(&mut channel).into_iter().map(|(line, _)| line).collect();
    assert_eq!(lines, ["\n", ACK, "2\n"]);
}

#[test]
fn a_descriptor_goes_with_a_line_that_begins_where_it_came() {
    // The kernel may put what was sent before it into the same read, and cut what it was sent with.
    let mut channel = channel();
    assert_eq!(read(&mut channel, &[b"5\n", &SOCKET.as_bytes()[..9]].concat(), &[7]).len(), 1);
    let rest = [&SOCKET.as_bytes()[9..], SOCKET.as_bytes()].concat();
    let all = read(&mut channel, &rest, &[8]);
    let handle = |handle| Got::Handle(HandleKind::Socket, r#""m""#.to_owned(), handle);
    assert_eq!(all, [handle(7), handle(8)]);
    // One without a line of its own does not wait for the line of another.
    let stray = Got::Problem(Problem::StrayHandle);
    assert_eq!(read(&mut channel, b"5\n", &[9]), [Got::Message("5".to_owned()), stray.clone()]);
    assert_eq!(read(&mut channel, b"\"a", &[9]), []);
    assert_eq!(read(&mut channel, b"b", &[9]), std::slice::from_ref(&stray));
    let all = read(&mut channel, format!("c\"\n{SOCKET}").as_bytes(), &[10]);
    assert_eq!(all, [Got::Message(r#""abc""#.to_owned()), stray, handle(10)]);
}

#[test]
fn what_is_wrong_with_a_descriptor_is_told_to_its_sender() {
    let mut channel = channel();
    let missing = Got::Problem(Problem::HandleMissing);
    assert_eq!(read(&mut channel, SOCKET.as_bytes(), &[]), [missing]);
    let unknown = SOCKET.replace("net.Socket", "net.Sock");
    let all = read(&mut channel, unknown.as_bytes(), &[7]);
    assert_eq!(all, [Got::Problem(Problem::UnknownHandle)]);
    let all = read(&mut channel, SOCKET.as_bytes(), &[7, 8, 9]);
    let extra = Got::Problem(Problem::ExtraHandles { count: 2 });
    assert_eq!(all, [extra, Got::Handle(HandleKind::Socket, r#""m""#.to_owned(), 7)]);
    assert_eq!(written(&mut channel).concat_lines(), [NACK, ACK, ACK].concat());
}

#[test]
fn a_worker_that_sends_descriptors_and_reads_no_answer_is_given_up() {
    let mut channel = channel();
    let flood = SOCKET.repeat(100);
    let all = read(&mut channel, flood.as_bytes(), &[]);
    assert_eq!(all.last(), Some(&Got::Problem(Problem::AnswersUnread)));
    assert!(all.len() < 25 && channel.is_over());
    assert!(channel.queued_bytes().1 <= small().internal_bytes_max);
}

#[test]
fn answers_come_in_the_order_of_what_was_sent() {
    let mut channel = channel();
    for handle in [1, 2, 3] {
        channel.send_handle(handle_line("0"), handle).expect("room");
    }
    assert_eq!(
        read(&mut channel, ACK.as_bytes(), &[]),
        [Got::Problem(Problem::StrayAcknowledgement)]
    );
    let lines = written(&mut channel);
    assert_eq!(
        lines.iter().map(|(_, handle)| *handle).collect::<Vec<_>>(),
        [Some(1), Some(2), Some(3)]
    );
    let answers = [ACK, NACK, ACK, ACK].concat();
    let all = read(&mut channel, answers.as_bytes(), &[]);
    let stray = Got::Problem(Problem::StrayAcknowledgement);
    assert_eq!(all, [Got::Delivered(1), Got::Undelivered(2), Got::Delivered(3), stray]);
    assert_eq!(channel.handles(), 0);
}

#[test]
fn what_did_not_arrive_is_sent_again_as_often_as_there_is_sense_in_it() {
    let mut channel = channel();
    channel.send_handle(handle_line("0"), 1).expect("room");
    for retries in 0..=RETRIES_MAX {
        assert_eq!(written(&mut channel).len(), 1);
        let mut back = None;
        channel.handle_read(NACK.as_bytes(), [], |received| {
            if let Received::Undelivered(item) = received {
                back = Some(item);
            }
        });
        let back = back.expect("it came back");
        assert_eq!(back.retries(), retries);
        let again = channel.send_again(back);
        assert_eq!(again.is_ok(), retries < RETRIES_MAX);
    }
    assert!(!channel.is_writing());
}

#[test]
fn a_worker_that_is_gone_leaves_what_it_never_acknowledged() {
    let mut channel = channel();
    for handle in [1, 2, 3, 4] {
        channel.send_handle(handle_line("0"), handle).expect("room");
        assert_eq!(channel.handles(), handle as usize);
    }
    assert_eq!(channel.send_handle(handle_line("0"), 5), Err(5), "too many of them");
    for _ in 0..2 {
        channel.poll_write();
        channel.handle_written(usize::MAX);
    }
    // Of the third the kernel has taken a byte, and the descriptor with it.
    assert_eq!(channel.poll_write().and_then(|chunk| chunk.handle.copied()), Some(3));
    channel.handle_written(1);
    assert_eq!(channel.poll_write().and_then(|chunk| chunk.handle.copied()), None);
    read(&mut channel, ACK.as_bytes(), &[]);
    assert_eq!(channel.into_handles().collect::<Vec<_>>(), [2, 3, 4]);
}

#[test]
fn messages_are_dropped_before_anything_else_and_one_alone_may_be_long() {
    let mut channel = channel();
    let long = format!("\"{}\"", "x".repeat(150));
    channel.send_message(message(&long)).expect("one alone");
    assert_eq!(channel.send_message(message("1")), Err(Full));
    assert_eq!(channel.dropped(), 1);
    channel.send(message("2")).expect("room for what is not the program's");
    written(&mut channel);
    for _ in 0..50 {
        channel.send_message(message("1")).expect("100 bytes of them");
    }
    assert_eq!(channel.send_message(message("1")), Err(Full));
    assert_eq!((channel.dropped(), channel.queued_bytes()), (2, (100, 0)));
    assert_eq!((0..500).take_while(|_| channel.send(message("3")).is_ok()).count(), 250);
    assert_eq!(written(&mut channel).len(), 300);
    assert_eq!((channel.queued_bytes(), channel.is_writing()), ((0, 0), false));
}

#[test]
fn a_message_to_a_program_is_nothing_that_node_would_hear() {
    for (text, error) in [
        (r#"{"cmd":"NODE_CLUSTER","act":"disconnect"}"#, NotAMessage::Internal),
        (r#" {"a":1,"cmd":"\u004eODE_HANDLE_ACK"}"#, NotAMessage::Internal),
        (r#"{"cmd":"NODE_HANDLE"}"#, NotAMessage::Internal),
        ("", NotAMessage::NotJson),
        ("shutdown", NotAMessage::NotJson),
        ("1\n2", NotAMessage::NotJson),
        (r#""123456789""#, NotAMessage::TooLong { max: 10 }),
    ] {
        let max = if matches!(error, NotAMessage::TooLong { .. }) { 10 } else { 100 };
        assert_eq!(Line::message(text, max), Err(error), "{text}");
    }
    let line = message("{\n \"a\": [1,\r\n 2]}\n");
    assert_eq!(line.as_bytes(), b"{  \"a\": [1,   2]}\n");
}

#[test]
fn lines_with_descriptors_are_what_node_and_deno_read() {
    let native = |stream, purpose| HandleKind::Native(Some(Native { stream, purpose }));
    for (kind, rest) in [
        (HandleKind::Server, r#""net.Server","msg":1"#),
        (HandleKind::NativeDatagram, r#""dgram.Native","msg":1"#),
        (HandleKind::Datagram(DatagramFamily::V6), r#""dgram.Socket","msg":1,"dgramType":"udp6""#),
        (HandleKind::Native(None), r#""net.Native","msg":1"#),
        (
            native(Stream::Tcp, Purpose::Listener),
            r#""net.Native","msg":1,"socketType":1,"nativeKind":"tcp""#,
        ),
        (
            native(Stream::Pipe, Purpose::Connection),
            r#""net.Native","msg":1,"socketType":0,"nativeKind":"pipe""#,
        ),
    ] {
        let line = HandleLine::message(kind, "1", 10).expect("a message");
        let expected = format!("{{\"cmd\":\"NODE_HANDLE\",\"type\":{rest}}}\n");
        assert_eq!(String::from_utf8_lossy(line.line().as_bytes()), expected);
        let all = read(&mut channel(), expected.as_bytes(), &[7]);
        assert_eq!(all, [Got::Handle(kind, "1".to_owned(), 7)]);
    }
}

trait Concat {
    fn concat_lines(self) -> String;
}

impl Concat for Vec<(String, Option<u32>)> {
    fn concat_lines(self) -> String {
        self.into_iter().map(|(line, _)| line).collect()
    }
}
