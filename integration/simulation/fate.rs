//! What the script decides: services, and what each worker will do in its life.

use std::collections::BTreeSet;
use std::time::Duration;

use shepherd::core::event::{Mode, Taker, WorkerEvent};
use shepherd::core::ids::{MemberId, Pid, ServiceId, SocketId};
use shepherd::core::policy::{
    BeforeStop, BoundMember, Check, CheckPace, KeepAlive, Members, OnFailing, Policy, ReadyWhen,
    Signal, Socket, StopLadder, StopStep, Surge,
};

use crate::script::Script;

/// The life that a worker is going to have.
#[derive(Debug, Clone)]
pub(crate) struct Fate {
    /// Whether its program runs, and when that is known.
    pub exec: Exec,
    /// When, after its program runs, it can serve; None is never.
    pub able: Option<Duration>,
    /// Whether it says `READY=1` then.
    pub word: Word,
    /// What a look at it shows.
    pub look: Look,
    /// What becomes of a check of it.
    pub check: Checked,
    /// When, after its program runs, it exits by itself, and with which code.
    pub exit: Option<(Duration, i32)>,
    /// What it does once it is told over its channel to leave.
    pub told: Told,
    /// What else it says, and when.
    pub says: Vec<(Duration, WorkerEvent)>,
    /// When somebody sends it SIGSTOP.
    pub frozen: Option<Duration>,
    /// How many stop signals it takes until it obeys; None is never.
    pub obeys: Option<u32>,
    /// How long it takes to obey.
    pub stop_takes: Duration,
    /// How many processes it leaves behind when it exits.
    pub left: u32,
    /// What ends those.
    pub left_until: LeftUntil,
    /// What it does to its sockets, and when after its program runs.
    pub deeds: Vec<(Duration, Deed)>,
    /// How many rounds of KILL miss one of its processes; `u32::MAX` hangs in the kernel.
    pub escapes: u32,
    /// Whether it may do anything that loses connections besides exiting unasked.
    pub faulty: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Exec {
    Runs(Duration),
    Fails(Duration),
}

/// What a worker does that is told over its channel to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// It closes the channel once it has finished what it has, and exits so long after.
    Leaves(Duration),
    /// The same, but for the exit.
    Stays,
    /// Nothing.
    Deaf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    Says,
    Silent,
    /// The word is read before the news that its program runs.
    BeforeStarted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    Clear,
    Unreadable,
    Wrapped,
}

/// What a worker does to a socket that it shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    SetMode(Mode),
    /// With this backlog.
    Listen(u32),
    ShutDown,
    /// The file of a unix socket.
    Unlink,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checked {
    /// It is answered after so long, by what the worker can do then.
    After(Duration, Taker),
    /// Nothing comes of it until it is told to end.
    Hangs,
    /// Nothing ever comes of it.
    Lost,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum LeftUntil {
    Signal(Duration),
    Later(Duration),
    Kill,
}

/// What a whole generation is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Character {
    Good,
    /// As a Node server: it lowers the backlog and makes its sockets non-blocking.
    NonBlocking,
    Mixed,
    ExitsAtOnce,
    NeverReady,
    Flaps,
}

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl Fate {
    /// A worker without fault.
    pub(crate) fn benign() -> Fate {
        Fate {
            exec: Exec::Runs(ms(1)),
            able: Some(ms(10)),
            word: Word::Says,
            look: Look::Clear,
            check: Checked::After(ms(1), Taker::Itself),
            exit: None,
            told: Told::Leaves(ms(2)),
            says: Vec::new(),
            frozen: None,
            obeys: Some(1),
            stop_takes: ms(5),
            left: 0,
            left_until: LeftUntil::Signal(ms(1)),
            deeds: Vec::new(),
            escapes: 0,
            faulty: false,
        }
    }

    /// The life of a worker in a generation of this character.
    pub(crate) fn decide(script: &mut Script, character: Character, policy: &Policy) -> Fate {
        let mut fate = Fate::benign();
        fate.able = Some(ms(script.pick(&[10, 1, 3, 30, 200])));
        if policy.ready == ReadyWhen::Message {
            fate.says.push((fate.able.unwrap_or_default(), WorkerEvent::SentReady));
        }
        if policy.ready == ReadyWhen::Auto && !policy.sockets.is_empty() && script.one_in(2) {
            fate.word = Word::Silent;
        }
        // What a whole generation does before it is ready is no fault.
        if character == Character::NonBlocking {
            fate.deeds.push((ms(0), Deed::SetMode(Mode::NonBlocking)));
            fate.deeds.push((ms(0), Deed::Listen(511)));
            fate.speak();
            return fate;
        }
        fate.faulty = match character {
            Character::Good | Character::NonBlocking | Character::Mixed => false,
            Character::ExitsAtOnce | Character::Flaps => false,
            Character::NeverReady => true,
        };
        match character {
            Character::Good | Character::NonBlocking => return fate,
            Character::ExitsAtOnce => {
                fate.able = None;
                fate.exit = Some((ms(script.pick(&[2, 0, 20])), 1));
            }
            Character::NeverReady => fate.able = None,
            Character::Flaps => fate.exit = Some((ms(script.pick(&[11, 12, 40, 210])), 3)),
            Character::Mixed => {}
        }
        if script.one_in(2) {
            return fate;
        }
        for _ in 0..=script.below(3) {
            fate.worsen(script);
        }
        fate
    }

    /// Those of most paces have a channel, over which they ask for their sockets; how they take what they
    /// are told there goes with the pace.
    fn speak(&mut self) {
        let able = self.able.unwrap_or(ms(1));
        self.told = match able.as_millis() {
            1 => Told::Leaves(ms(2)),
            3 => Told::Leaves(ms(1500)),
            30 => Told::Stays,
            200 => Told::Deaf,
            _ => return,
        };
        self.says.push((ms(0), WorkerEvent::Asked));
        self.says.push((able, WorkerEvent::Listens));
    }

    /// What somebody says of itself, by its pace.
    fn word(&self) -> WorkerEvent {
        match self.able.map(|able| able.as_millis()) {
            Some(1) => WorkerEvent::Asked,
            Some(3) => WorkerEvent::ChannelEnded,
            Some(30) => WorkerEvent::ChannelBroken("it reads nothing".to_owned()),
            Some(200) => WorkerEvent::SentReady,
            Some(_) | None => WorkerEvent::SaidStatus("busy".to_owned()),
        }
    }

    fn worsen(&mut self, script: &mut Script) {
        let choice = script.below(24);
        self.faulty |= choice != 2;
        match choice {
            0 => self.stop_takes = ms(script.pick(&[5, 0, 100, 900, 4000])),
            1 => self.able = None,
            2 => self.exit = Some((ms(script.pick(&[5, 0, 1, 15, 50, 300, 3000])), 1)),
            3 => self.exec = Exec::Fails(ms(script.pick(&[1, 0, 50, 2000]))),
            4 => self.exec = Exec::Runs(ms(script.pick(&[20, 0, 400, 3000]))),
            5 => self.obeys = None,
            6 => self.obeys = Some(2),
            7 | 8 => {
                self.left = u32::from(script.below(3)) + 1;
                self.left_until = match script.below(3) {
                    0 => LeftUntil::Signal(ms(script.pick(&[1, 0, 300]))),
                    1 => LeftUntil::Later(ms(script.pick(&[20, 0, 1500, 6000]))),
                    _ => LeftUntil::Kill,
                };
            }
            9 => self.word = script.pick(&[Word::BeforeStarted, Word::Silent]),
            10 => self.look = script.pick(&[Look::Unreadable, Look::Wrapped]),
            11 => self.frozen = Some(ms(script.pick(&[5, 30, 500]))),
            12 => self.escapes = script.pick(&[1, 1, 2, u32::MAX]),
            13 => self.say(script, WorkerEvent::SaidStopping),
            14 => self.say(script, WorkerEvent::SaidReady),
            15 => {
                let word = self.word();
                self.say(script, word);
            }
            16 => self.say(script, WorkerEvent::MainChanged { pid: Pid(99) }),
            17..=20 => {
                let deed = match script.below(6) {
                    0 => Deed::SetMode(Mode::NonBlocking),
                    1 => Deed::SetMode(Mode::Blocking),
                    2 | 3 => Deed::ShutDown,
                    4 => Deed::Unlink,
                    _ => Deed::Listen(script.pick(&[511, 5])),
                };
                self.deeds.push((ms(script.pick(&[0, 0, 2, 20, 700])), deed));
            }
            21 | 22 => {
                let after = ms(script.pick(&[5, 0, 70, 900]));
                self.check = script.pick(&[
                    Checked::After(after, Taker::Unseen),
                    Checked::Hangs,
                    Checked::Lost,
                ]);
            }
            _ => {
                let time = script.pick(&[ms(500), ms(0), ms(5000), ms(60_000), Duration::MAX]);
                self.say(script, WorkerEvent::SaidExtend(time));
                // Looking at it for an hour would take long here too.
                self.exit = self.exit.or(Some((ms(20_000), 0)));
            }
        }
    }

    fn say(&mut self, script: &mut Script, event: WorkerEvent) {
        let after = ms(script.pick(&[2, 0, 15, 60, 700, 2500]));
        self.says.push((after, event));
    }
}

/// The services of a world.
pub(crate) fn policies(script: &mut Script) -> Vec<Policy> {
    // One byte, of which every fourth value means several.
    let count = match script.below(16) {
        3 | 7 => 2,
        11 => 3,
        15 => 4,
        _ => 1,
    };
    let mut last = Last { socket: 0, slots_own: 100 };
    let mut policies: Vec<Policy> =
        (1..=count).map(|id| policy(script, ServiceId(id), &mut last)).collect();
    for policy in policies.iter_mut().skip(1) {
        decide_needs(script, policy);
    }
    policies
}

/// Needs some of those before it, so that there is no circle.
fn decide_needs(script: &mut Script, policy: &mut Policy) {
    let bits = script.below(64);
    let before = |bit: u8| (u32::from(bit) + 1 < policy.service.0).then_some(bit);
    for bit in (0..3).filter_map(before) {
        let need = ServiceId(u32::from(bit) + 1);
        if bits & (1 << bit) != 0 {
            policy.depends_on.insert(need);
        } else if bits & (8 << bit) != 0 {
            policy.bind_to.insert(need);
        }
    }
}

/// The last numbers that were given.
struct Last {
    /// To a socket.
    socket: u32,
    /// To one that is a slot's alone.
    slots_own: u32,
}

impl Last {
    fn next_bound(&mut self) -> BoundMember {
        self.slots_own += 1;
        BoundMember { member: MemberId(self.slots_own), name: format!("port {}", self.slots_own) }
    }
}

fn policy(script: &mut Script, service: ServiceId, last: &mut Last) -> Policy {
    let workers = script.pick(&[2, 1, 2, 3, 4, 5]);
    let sockets = (0..script.pick(&[1, 0, 2]))
        .map(|_| {
            last.socket += 1;
            let members = if script.one_in(3) {
                let slots_max = script.pick(&[4096, workers, workers + 1, workers + 2]);
                let bound = (0..workers).map(|_| last.next_bound()).collect();
                Members::EachSlot { bound, slots_max }
            } else {
                Members::Shared
            };
            let (id, name) = (SocketId(last.socket), format!("socket {}", last.socket));
            Socket { id, name, members, steered: false, refusable: false }
        })
        .collect::<Vec<_>>();
    let mut ready = match script.below(6) {
        0 => ReadyWhen::Auto,
        1 if workers == 1 => ReadyWhen::Message,
        1 => ReadyWhen::Notify,
        2 => ReadyWhen::Listen,
        3 => ReadyWhen::Alive(ms(script.pick(&[20, 0, 200]))),
        4 => ReadyWhen::Check(Check::Exec("./check".to_owned())),
        _ if script.one_in(2) => ReadyWhen::Check(Check::Tcp),
        _ => ReadyWhen::Check(Check::Http("/health".to_owned())),
    };
    let needs_socket = match &ready {
        ReadyWhen::Listen | ReadyWhen::Check(Check::Tcp | Check::Http(_)) => true,
        ReadyWhen::Auto
        | ReadyWhen::Notify
        | ReadyWhen::Message
        | ReadyWhen::Alive(_)
        | ReadyWhen::Check(Check::Exec(_)) => false,
    };
    if needs_socket && sockets.is_empty() {
        ready = ReadyWhen::Notify;
    }
    let ready_timeout = ms(script.pick(&[2000, 300, 1200, 5000]));
    let check_pace = CheckPace {
        // Not so often that a worker which asks for a minute more uses up all turns.
        interval: ms(script.pick(&[100, 5, 20, 1000])),
        timeout: ms(script.pick(&[200, 10, 1000, 9000])),
    };
    let signals = [Signal::Term, Signal::Int, Signal::Quit, Signal::Winch];
    let mut rung = || StopStep {
        signal: script.pick(&signals),
        wait: ms(script.pick(&[1000, 200, 0, 3000, 10])),
    };
    let first = rung();
    let second = rung();
    let third = rung();
    let then = match script.below(3) {
        0 => vec![],
        1 => vec![second],
        _ => vec![second, third],
    };
    let each_slot = sockets.iter().any(|socket| socket.members != Members::Shared);
    let proxy = (each_slot && !script.one_in(3)).then(|| "nginx".to_owned());
    let starting_max = script.pick(&[1, 2, 3, 5]);
    let launching_max = script.pick(&[8, 1, 2, 3]);
    Policy {
        service,
        name: format!("s{service}"),
        workers,
        on_failing: OnFailing::Wait,
        sockets,
        proxy,
        ready,
        ready_timeout,
        check_pace,
        surge: Surge::Auto,
        canary: None,
        probation: Duration::ZERO,
        before_stop: BeforeStop::Auto,
        keepalive: KeepAlive::default(),
        stop: StopLadder::new(first, then),
        starting_max,
        launching_max,
        depends_on: BTreeSet::new(),
        bind_to: BTreeSet::new(),
    }
}
