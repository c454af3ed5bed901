//! Single messages as texts: what a worker says, and what others hear of it.

use std::borrow::Cow;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::{DEPTH_MAX, MESSAGE_MAX, Who};
use crate::core::ids::{SlotId, WorkerId};

/// Who a message is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipient {
    /// Every worker.
    All,
    /// Every worker of this service.
    Service(String),
    /// The worker in a slot.
    Slot {
        /// Of this service; of the sender's own without it.
        service: Option<String>,
        /// Which slot.
        slot: SlotId,
    },
    /// This worker.
    Worker(WorkerId),
    /// Shepherd itself.
    Supervisor,
}

/// Why a text is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misread {
    /// It is longer than a message may be.
    #[error("a message of more than {MESSAGE_MAX} bytes")]
    TooLong,
    /// It is not UTF-8.
    #[error("a message that is not UTF-8")]
    NotText,
    /// It is no JSON.
    #[error("a message that is no JSON")]
    NotJson,
    /// It is JSON of another shape.
    #[error("a message that is not `{{\"to\": ..., \"data\": ...}}`")]
    NotAMessage,
    /// Whoever reads it might not come back.
    #[error("a message whose data is nested more than {DEPTH_MAX} deep")]
    TooDeep,
    /// Its recipient is none that there could be.
    #[error(
        "a message whose `to` is none of `all`, `service:NAME`, `slot:N`, `service:NAME/slot:N`, \
         `worker:N` and `supervisor`"
    )]
    NoRecipient,
    /// It is for shepherd, which does not know what it asks.
    #[error("a message to `supervisor` that asks for nothing that there is")]
    NoSuchWish,
}

/// A message as it came.
#[derive(Debug)]
pub(super) struct Message<'a> {
    pub(super) to: Recipient,
    pub(super) data: &'a RawValue,
}

/// What a worker asks of shepherd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Wish {
    /// To hear of something from here on.
    Subscribe(Topic),
    /// To hear no more of it.
    Unsubscribe(Topic),
}

/// What one can hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Topic {
    /// Workers that become ready and leave.
    Workers,
}

/// What became of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Event {
    /// It can serve.
    Ready,
    /// It is to stop.
    Stopping,
    /// Its main process has ended.
    Ended,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said<'a> {
    #[serde(borrow)]
    to: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// As it is heard: the names of its fields are a promise.
#[derive(Serialize)]
struct Heard<'a, Data> {
    from: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<u32>,
    data: Data,
}

#[derive(Serialize)]
struct Announced<'a> {
    event: Event,
    worker: &'a str,
    service: &'a str,
    slot: u32,
    generation: u64,
}

impl Recipient {
    fn read(text: &str) -> Option<Recipient> {
        match text {
            "all" => return Some(Recipient::All),
            "supervisor" => return Some(Recipient::Supervisor),
            _ => {}
        }
        let slot = |text: &str| Some(SlotId(number(text.strip_prefix("slot:")?)?));
        if let Some(rest) = text.strip_prefix("service:") {
            return match rest.split_once('/') {
                Some((service, rest)) => {
                    Some(Recipient::Slot { service: Some(service.to_owned()), slot: slot(rest)? })
                }
                None => Some(Recipient::Service(rest.to_owned())),
            };
        }
        match text.strip_prefix("worker:") {
            Some(worker) => Some(Recipient::Worker(WorkerId(number(worker)?))),
            None => Some(Recipient::Slot { service: None, slot: slot(text)? }),
        }
    }
}

/// A number as it is written by itself: digits, and nothing before or after them.
fn number<N: std::str::FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Reads what a worker said.
pub(super) fn read(text: &[u8]) -> Result<Message<'_>, Misread> {
    let Said { to, data } = json(text)?;
    check_depth(data)?;
    let to = Recipient::read(&to).ok_or(Misread::NoRecipient)?;
    Ok(Message { to, data })
}

/// Reads data that comes alone.
pub(super) fn data(text: &str) -> Result<&RawValue, Misread> {
    let data = json(text.as_bytes())?;
    check_depth(data)?;
    Ok(data)
}

/// Reads what a worker asks of shepherd.
pub(super) fn wish(data: &RawValue) -> Result<Wish, Misread> {
    serde_json::from_str(data.get()).map_err(|_| Misread::NoSuchWish)
}

fn json<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, Misread> {
    if text.len() > MESSAGE_MAX {
        return Err(Misread::TooLong);
    }
    let text = std::str::from_utf8(text).map_err(|_| Misread::NotText)?;
    serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Data => Misread::NotAMessage,
        Category::Syntax | Category::Eof | Category::Io => Misread::NotJson,
    })
}

/// The text is JSON already, so brackets within strings are all that could be miscounted.
fn check_depth(data: &RawValue) -> Result<(), Misread> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in data.get().bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(Misread::TooDeep);
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// What is heard of a message that a worker sent.
pub(super) fn from_worker(worker: WorkerId, who: &Who, data: &RawValue) -> Rc<str> {
    let from = address(worker);
    written(&Heard { from: &from, service: Some(&who.service), slot: Some(who.slot.0), data })
}

/// What is heard of what shepherd passes on for somebody else.
pub(super) fn from_supervisor(data: &RawValue) -> Rc<str> {
    written(&Heard { from: "supervisor", service: None, slot: None, data })
}

/// What is heard of what became of a worker.
pub(super) fn announcement(event: Event, worker: WorkerId, who: &Who) -> Rc<str> {
    let data = Announced {
        event,
        worker: &address(worker),
        service: &who.service,
        slot: who.slot.0,
        generation: who.generation.0,
    };
    written(&Heard { from: "supervisor", service: None, slot: None, data })
}

fn address(worker: WorkerId) -> String {
    format!("worker:{worker}")
}

fn written(message: &impl Serialize) -> Rc<str> {
    let text = serde_json::to_string(message);
    text.expect("what is made of texts and numbers becomes JSON").into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::ids::GenerationId;

    fn to(text: &str) -> Option<Recipient> {
        Recipient::read(text)
    }

    fn who() -> Who {
        Who { service: "web".to_owned(), slot: SlotId(2), generation: GenerationId(1) }
    }

    #[test]
    fn recipients_are_written_in_one_way_each() {
        let web = || "web".to_owned();
        assert_eq!(to("all"), Some(Recipient::All));
        assert_eq!(to("supervisor"), Some(Recipient::Supervisor));
        assert_eq!(to("service:web"), Some(Recipient::Service(web())));
        let slot = SlotId(2);
        assert_eq!(to("slot:2"), Some(Recipient::Slot { service: None, slot }));
        let of_web = Recipient::Slot { service: Some(web()), slot };
        assert_eq!(to("service:web/slot:2"), Some(of_web));
        assert_eq!(to("worker:17"), Some(Recipient::Worker(WorkerId(17))));
        for wrong in
            ["", "web", "ALL", "worker:", "worker:-1", "worker:+1", "worker: 1", "slot:x", "slot:"]
        {
            assert_eq!(to(wrong), None, "{wrong}");
        }
        assert_eq!(to("service:web/2"), None);
        assert_eq!(to("worker:99999999999999999999"), None);
    }

    #[test]
    fn each_mistake_is_told_from_the_others() {
        let nested = |depth: usize| {
            format!(r#"{{"to":"all","data":{}{}}}"#, "[".repeat(depth), "]".repeat(depth))
        };
        let (deep, deeper) = (nested(DEPTH_MAX), nested(DEPTH_MAX + 1));
        assert!(read(deep.as_bytes()).is_ok());
        let long = format!(r#"{{"to":"all","data":"{}"}}"#, "x".repeat(MESSAGE_MAX));
        for (text, misread) in [
            (&b"\xff"[..], Misread::NotText),
            (b"", Misread::NotJson),
            (b"{\"to\":\"all\",\"data\":", Misread::NotJson),
            (b"{\"to\":\"all\",\"data\":1}x", Misread::NotJson),
            (b"5", Misread::NotAMessage),
            (b"{\"to\":\"all\"}", Misread::NotAMessage),
            (b"{\"to\":17,\"data\":1}", Misread::NotAMessage),
            (b"{\"to\":\"all\",\"data\":1,\"dat\":2}", Misread::NotAMessage),
            (b"{\"to\":\"everybody\",\"data\":1}", Misread::NoRecipient),
            (long.as_bytes(), Misread::TooLong),
            (deeper.as_bytes(), Misread::TooDeep),
        ] {
            assert_eq!(read(text).err(), Some(misread), "{}", String::from_utf8_lossy(text));
        }
        assert!(read(br#"{"data":"[[[\"\\","to":"\u0061ll"}"#).is_ok());
    }

    #[test]
    fn data_is_passed_on_as_it_came() {
        let data = r#"{"z": 12345678901234567890123, "a": [1.50, "\u00e4]"]}"#;
        let said = format!(r#"{{"to": "all", "data": {data}}}"#);
        let message = read(said.as_bytes()).expect("a message");
        let heard = from_worker(WorkerId(17), &who(), message.data);
        let expected = format!(r#"{{"from":"worker:17","service":"web","slot":2,"data":{data}}}"#);
        assert_eq!(&*heard, expected);
        let heard = from_supervisor(super::data("null").expect("JSON"));
        assert_eq!(&*heard, r#"{"from":"supervisor","data":null}"#);
        let heard = announcement(Event::Ready, WorkerId(17), &who());
        let expected = r#"{"from":"supervisor","data":{"event":"ready","worker":"worker:17","service":"web","slot":2,"generation":1}}"#;
        assert_eq!(&*heard, expected);
    }

    #[test]
    fn wishes_are_few() {
        let wish = |text| super::wish(super::data(text).expect("JSON")).ok();
        assert_eq!(wish(r#"{"subscribe":"workers"}"#), Some(Wish::Subscribe(Topic::Workers)));
        assert_eq!(wish(r#"{"unsubscribe":"workers"}"#), Some(Wish::Unsubscribe(Topic::Workers)));
        for wrong in ["1", "{}", r#"{"subscribe":"all"}"#, r#"{"subscribe":"workers","x":1}"#] {
            assert_eq!(wish(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_do_any_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }

        #[test]
        fn what_is_heard_is_one_line_of_json(data in "(\"\\PC{0,9}\"|[0-9]{1,30}|\\[ ?\r?\\])") {
            let said = format!(r#"{{"to":"all","data":{data}}}"#);
            if let Ok(message) = read(said.as_bytes()) {
                let heard = from_worker(WorkerId(1), &who(), message.data);
                prop_assert!(!heard.contains('\n'));
                prop_assert!(serde_json::from_str::<serde_json::Value>(&heard).is_ok());
            }
        }
    }
}
