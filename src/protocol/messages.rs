//! Messages that workers send to each other and to shepherd, whoever carries them: one JSON text each.
//! Pure.
//!
//! A worker says `{"to": "worker:17", "data": ANYTHING}`, and who is meant hears
//! `{"from": "worker:5", "service": "web", "slot": 2, "data": ANYTHING}`. What shepherd says has
//! `"from": "supervisor"`, no service and no slot. A recipient is
//!
//! - `all`: every worker of every service;
//! - `service:web`: every worker of that service;
//! - `slot:2`: the worker in that slot of the sender's own service, `service:web/slot:2` of another. A
//!   slot that has several workers, as during a reload, has one recipient: a ready one if there is one,
//!   and of these the youngest;
//! - `worker:17`: that worker;
//! - `supervisor`: shepherd itself. It understands `{"subscribe": "workers"}` and
//!   `{"unsubscribe": "workers"}` as data.
//!
//! The sender of a message to many is none of them. Whoever subscribed hears of each other worker, as
//! data, `{"event": "ready", "worker": "worker:17", "service": "web", "slot": 2, "generation": 1}`: of
//! those that are ready already at once. `stopping` follows when it is to stop, and `ended`, after the
//! last of its messages, when its main process has.
//!
//! Nobody is answered: what is not understood and what nobody gets is counted. What a worker does not
//! read waits, up to [`WAITING_MAX`]; what comes then is dropped and counted, so that a slow reader costs
//! nobody else anything. Order is kept between any two.
//!
//! [`Reader`] cuts bytes into texts, for channels that are a stream of lines; [`Router`] takes texts and
//! gives texts.

mod line;

mod reader;

mod router;

pub use line::{Misread, Recipient};
pub use reader::{Line, Reader};
pub use router::{CannotSend, News, Router, Takes, Tally, Who};

/// The longest message, in bytes: it is for words, and files have better ways.
pub const MESSAGE_MAX: usize = 256 * 1024;

/// How deep the data may be nested: as deep as the usual parsers read by default, since one that reads
/// less deep ends the worker that uses it.
pub const DEPTH_MAX: usize = 128;

/// How much may wait for one worker, in bytes, with what it takes to keep them: some thousand short
/// messages, and the longest one.
pub const WAITING_MAX: usize = 1024 * 1024;

/// How much may wait for all workers together: a crowd of workers that do not read costs no more.
pub const WAITING_TOTAL_MAX: usize = 64 * 1024 * 1024;

/// What it takes to keep a message beside its bytes, rounded up.
const KEEPING: usize = 64;

/// How often it is told that messages for one worker are dropped. The count goes on.
const TOLD_MAX: u32 = 3;
