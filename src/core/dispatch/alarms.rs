//! When something is to be looked at again: one point in time for each thing.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::ids::{ListenerId, WorkerId};
use crate::core::time::Time;

/// Why a [`Dispatch`](super::Dispatch) will wake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// A worker has rested, or owes an answer for too long.
    Worker(WorkerId),
    /// A listener that could not be accepted from is tried again.
    Listener(ListenerId),
    /// There may be descriptors again.
    Descriptors,
}

/// All of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Alarms {
    at: BTreeMap<Alarm, Time>,
    order: BTreeSet<(Time, Alarm)>,
}

impl Alarms {
    pub(super) fn set(&mut self, alarm: Alarm, at: Option<Time>) {
        let before = match at {
            Some(at) => self.at.insert(alarm, at),
            None => self.at.remove(&alarm),
        };
        if before != at {
            self.order.extend(at.map(|at| (at, alarm)));
            if let Some(before) = before {
                self.order.remove(&(before, alarm));
            }
        }
    }

    pub(super) fn next(&self) -> Option<(Time, Alarm)> {
        self.order.first().copied()
    }

    /// Those that are due, which are over by this.
    pub(super) fn take_due(&mut self, now: Time) -> Vec<Alarm> {
        let due = self.order.iter().take_while(|&&(at, _)| at <= now).map(|&(_, alarm)| alarm);
        let due: Vec<Alarm> = due.collect();
        for &alarm in &due {
            self.set(alarm, None);
        }
        due
    }
}
