//! What is measured, a file each. Two contenders take turns, one right after the other, and each
//! turn gives one value of either.

pub mod balance;
pub mod drain;
pub mod growth;
pub mod memory;
pub mod reload;
pub mod request;
pub mod respawn;
pub mod start;

use crate::{
    contender::{Contender, Pair, Running},
    harness::{Port, free_port},
    probe,
};

/// How much is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Enough turns for a spread.
    Full,
    /// A look.
    Quick,
}

impl Effort {
    fn of<T>(self, full: T, quick: T) -> T {
        match self {
            Effort::Full => full,
            Effort::Quick => quick,
        }
    }
}

/// One line of the table: a value of each for each turn.
pub struct Comparison {
    /// What was measured.
    pub what: String,
    /// What the workers are.
    pub worker: &'static str,
    /// With whom shepherd is compared.
    pub peer: &'static str,
    /// What the values are.
    pub unit: Unit,
    pub ours: Vec<f64>,
    pub theirs: Vec<f64>,
}

/// What a value is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Of anything in a second.
    PerSecond,
    /// Of a processor or of a clock.
    Seconds,
    KiB,
    Percent,
    Count,
}

impl Unit {
    /// A value for people.
    pub fn show(self, value: f64) -> String {
        match self {
            Unit::PerSecond => format!("{value:.0}/s"),
            Unit::Seconds if value.abs() < 1e-3 => format!("{:.1} us", value * 1e6),
            Unit::Seconds if value.abs() < 1.0 => format!("{:.1} ms", value * 1e3),
            Unit::Seconds => format!("{value:.2} s"),
            Unit::KiB => format!("{value:.0} KiB"),
            Unit::Percent => format!("{value:.0} %"),
            Unit::Count => format!("{value:.0}"),
        }
    }
}

impl Comparison {
    fn new(what: impl Into<String>, pair: &Pair, unit: Unit) -> Comparison {
        Comparison {
            what: what.into(),
            worker: pair.ours.0.name(),
            peer: pair.theirs.name(),
            unit,
            ours: Vec::new(),
            theirs: Vec::new(),
        }
    }
}

/// A contender at work on a port of its own.
struct Stage {
    running: Running,
    port: Port,
}

impl Stage {
    /// Starts it, and waits until it answers and says that it is ready, if it does.
    fn new(contender: &dyn Contender, workers: usize) -> Stage {
        let port = free_port();
        let running = contender.start(workers, &port);
        probe::answer(&port, None);
        contender.says_ready(&running, workers);
        Stage { running, port }
    }
}
