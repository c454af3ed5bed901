//! When a starting worker counts as ready, and when it is looked at. Evidence or failure: "assumed"
//! exists only where a service owns no socket, or where nothing can be read.

use std::fmt;
use std::time::Duration;

use super::event::{Exit, Finding, Taker};
use super::policy::{Check, Policy, ReadyWhen};
use super::roster::Tally;
use super::time::Time;

/// How long a worker must have been alive to be assumed ready where no evidence can be had.
pub const ASSUMED_AFTER: Duration = Duration::from_secs(1);

/// The first look after the program runs; the fastest workers serve within it.
const PROBE_FIRST: Duration = Duration::from_millis(2);

/// The longest pause between two looks at one worker, when few are starting.
const PROBE_MAX: Duration = Duration::from_millis(100);

/// The pause that each starting worker adds for all: at most 2000 looks a second, about a tenth of
/// a processor at 50 microseconds a look.
const PROBE_SHARE: Duration = Duration::from_micros(500);

/// The first check after the program runs. The pause doubles from there up to the interval.
const CHECK_FIRST: Duration = Duration::from_millis(20);

/// How many workers of a service have a check under way: each takes a connection or a process.
pub const CHECKS_MAX: u32 = 64;

/// The pause that each starting worker adds for all while so many are checked that the next has to
/// wait, as for the looks.
const CHECK_SHARE: Duration = Duration::from_micros(500);

/// A check ends so long before its worker is late, so that what it saw can be told.
pub const CHECK_MARGIN: Duration = Duration::from_millis(10);

/// A process that keeps the sockets of a wrapped worker for so long is no passing helper.
pub const WRAPPED_AFTER: Duration = Duration::from_secs(5);

/// And one that was seen so often in a row was there for more than a moment.
pub const WRAPPED_LOOKS: u32 = 2;

/// The most that one message may extend a deadline by.
pub const EXTEND_MAX: Duration = Duration::from_secs(3600);

/// What made a worker ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// It sent `READY=1`.
    Said,
    /// It was seen waiting on its socket.
    SeenWaiting,
    /// It says that all the sockets listen that it asked for.
    Listens,
    /// Its program sent the message `"ready"`.
    SentReady,
    /// It has been alive for as long as was asked.
    Alive(Duration),
    /// It has been alive for a second, and nothing better can be had.
    Assumed,
    /// It took a connection of ours.
    TookConnection(Taker),
    /// It answered our request.
    Answered {
        /// What was asked for.
        path: String,
        /// With which status.
        status: u16,
        /// Who answered.
        by: Taker,
    },
    /// This command exited with 0.
    CommandSucceeded(String),
}

impl Evidence {
    /// What a check gives that saw this, if it is enough.
    #[must_use]
    pub fn from_check(check: &Check, finding: &Finding) -> Option<Evidence> {
        match (check, finding) {
            (Check::Tcp, &Finding::TookConnection(by)) => Some(Evidence::TookConnection(by)),
            (Check::Http(path), &Finding::Answered { status: status @ 200..=399, by }) => {
                Some(Evidence::Answered { path: path.clone(), status, by })
            }
            (Check::Exec(command), Finding::Exited { how: Exit::Code(0), .. }) => {
                Some(Evidence::CommandSucceeded(command.clone()))
            }
            (Check::Tcp | Check::Http(_) | Check::Exec(_), _) => None,
        }
    }
}

/// What the last check of a worker saw that never got ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastCheck {
    /// What was tried.
    pub check: Check,
    /// What came of it.
    pub finding: Finding,
}

impl fmt::Display for LastCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the last probe {} {}", self.check, self.finding)
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Evidence::Said => write!(f, "it said so"),
            Evidence::SeenWaiting => write!(f, "seen waiting on its socket"),
            Evidence::Listens => write!(f, "it listens"),
            Evidence::SentReady => write!(f, "it sent the message `\"ready\"`"),
            Evidence::Alive(time) => write!(f, "alive for {time:?}"),
            Evidence::Assumed => {
                write!(f, "assumed: alive for {ASSUMED_AFTER:?}, no evidence to be had")
            }
            Evidence::TookConnection(by) => write!(f, "took a connection{by}"),
            Evidence::Answered { path, status, by } => {
                write!(f, "answered `GET {path}` with {status}{by}")
            }
            Evidence::CommandSucceeded(command) => write!(f, "`{command}` exited with 0"),
        }
    }
}

/// What a starting worker whose program runs is waited for, besides its word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// When to look at it next, and how long after that again.
    pub probe: Option<(Time, Duration)>,
    /// When being alive is enough.
    pub alive: Option<(Time, Evidence)>,
    /// How far its checks are.
    pub check: Option<CheckStep>,
}

/// How far the checks of a starting worker are. Each step knows the pause that came before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckStep {
    /// The next one begins then.
    Due {
        /// When.
        at: Time,
        /// The pause before it.
        pause: Duration,
    },
    /// One is under way.
    UnderWay {
        /// When it has had its time.
        until: Time,
        /// The pause before it.
        pause: Duration,
    },
    /// One was told to end; its answer is on the way.
    Ending {
        /// The pause before it.
        pause: Duration,
    },
}

impl Watch {
    /// Before the program runs there is nothing to see.
    pub const NOTHING: Watch = Watch { probe: None, alive: None, check: None };

    /// From the moment the program runs.
    #[must_use]
    pub fn begin(now: Time, policy: &Policy) -> Watch {
        let has_socket = !policy.sockets.is_empty();
        let probe =
            (policy.ready.takes_sight() && has_socket).then_some((now + PROBE_FIRST, PROBE_FIRST));
        let alive = match policy.ready {
            ReadyWhen::Alive(time) => Some((now + time, Evidence::Alive(time))),
            ReadyWhen::Auto if !has_socket => Some((now + ASSUMED_AFTER, Evidence::Assumed)),
            ReadyWhen::Auto
            | ReadyWhen::Notify
            | ReadyWhen::Listen
            | ReadyWhen::Message
            | ReadyWhen::Check(_) => None,
        };
        let check = policy.ready.check().map(|_| {
            let pause = CHECK_FIRST.min(policy.check_pace.interval);
            CheckStep::Due { at: now + pause, pause }
        });
        Watch { probe, alive, check }
    }

    /// Whether a check is under way.
    #[must_use]
    pub fn is_checking(&self) -> bool {
        match self.check {
            Some(CheckStep::UnderWay { .. } | CheckStep::Ending { .. }) => true,
            Some(CheckStep::Due { .. }) | None => false,
        }
    }

    /// Whether a check is under way that was not told to end.
    #[must_use]
    pub fn has_check_to_end(&self) -> bool {
        match self.check {
            Some(CheckStep::UnderWay { .. }) => true,
            Some(CheckStep::Due { .. } | CheckStep::Ending { .. }) | None => false,
        }
    }

    /// A check that has become due begins at `now`, of a worker that is late at `late`, or has to
    /// wait. Returns whether it begins.
    pub fn check(&mut self, now: Time, late: Time, policy: &Policy, crowd: Tally) -> bool {
        let Some(CheckStep::Due { pause, .. }) = self.check else {
            return false;
        };
        let time = now.until(late).saturating_sub(CHECK_MARGIN);
        if time.is_zero() {
            // Nothing would come of it. The worker may still ask for more time.
            self.check = Some(CheckStep::Due { at: late + CHECK_MARGIN, pause });
            return false;
        }
        if crowd.checking >= CHECKS_MAX {
            let at = now + pause.max(CHECK_SHARE * crowd.starting);
            self.check = Some(CheckStep::Due { at, pause });
            return false;
        }
        let until = now + policy.check_pace.timeout.min(time);
        self.check = Some(CheckStep::UnderWay { until, pause });
        true
    }

    /// A check under way has been told to end.
    pub fn end_check(&mut self) {
        if let Some(CheckStep::UnderWay { pause, .. }) = self.check {
            self.check = Some(CheckStep::Ending { pause });
        }
    }

    /// A check has answered at `now`, and it was not enough: set the next one. Returns whether an
    /// answer was awaited.
    pub fn checked(&mut self, now: Time, policy: &Policy) -> bool {
        match self.check {
            Some(CheckStep::UnderWay { pause, .. } | CheckStep::Ending { pause }) => {
                let at = now + pause;
                let pause = (pause * 2).min(policy.check_pace.interval);
                self.check = Some(CheckStep::Due { at, pause });
                true
            }
            // It was given up meanwhile.
            Some(CheckStep::Due { .. }) | None => false,
        }
    }

    /// A look was taken at `now`, with so many workers starting: set the next one.
    pub fn probed(&mut self, now: Time, starting: u32) {
        if let Some((_, pause)) = self.probe {
            let pause = (pause * 3 / 2).min(PROBE_MAX);
            self.probe = Some((now + pause.max(PROBE_SHARE * starting), pause));
        }
    }

    /// The kernel does not let us look: under `auto` being alive has to do.
    pub fn blind(&mut self, now: Time, policy: &Policy) {
        match policy.ready {
            ReadyWhen::Auto => {
                self.probe = None;
                if self.alive.is_none() {
                    self.alive = Some((now + ASSUMED_AFTER, Evidence::Assumed));
                }
            }
            ReadyWhen::Listen
            | ReadyWhen::Notify
            | ReadyWhen::Message
            | ReadyWhen::Alive(_)
            | ReadyWhen::Check(_) => {}
        }
    }

    /// It has asked for its sockets: what it says of them is better than what a look at one of them
    /// could show.
    pub fn will_tell(&mut self) {
        self.probe = None;
        self.alive.take_if(|(_, evidence)| *evidence == Evidence::Assumed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_slow_down_to_a_bound_that_grows_with_the_crowd() {
        let pause_after = |looks: u32, starting: u32| {
            let mut watch = Watch { probe: Some((Time::ZERO, PROBE_FIRST)), ..Watch::NOTHING };
            let mut now = Time::ZERO;
            let mut pause = Duration::ZERO;
            for _ in 0..looks {
                watch.probed(now, starting);
                let (next, _) = watch.probe.expect("a look is due");
                pause = next.since(now);
                now = next;
            }
            pause
        };
        assert_eq!(pause_after(1, 1), Duration::from_millis(3));
        assert_eq!(pause_after(30, 4), PROBE_MAX);
        assert_eq!(pause_after(30, 1000), Duration::from_millis(500));
    }
}
