//! The table of every state of a worker and everything that can happen to it, compared with the
//! one that was last agreed on. `UPDATE_SNAPSHOTS=1` writes it anew; review it as you would code.

use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;

use shepherd::core::Action;
use shepherd::core::event::{
    Exit, Finding, Sight, SpawnFailure, Taker, Used, Waiting, WorkerEvent,
};
use shepherd::core::ids::{GenerationId, Pid, ServiceId, SlotId, SocketId, WorkerId};
use shepherd::core::notice::Notice;
use shepherd::core::policy::{
    BeforeStop, Check, CheckPace, KeepAlive, Members, OnFailing, Policy, ReadyWhen, Signal, Socket,
    StopLadder, StopStep, Surge,
};
use shepherd::core::readiness::CheckStep;
use shepherd::core::roster::Tally;
use shepherd::core::time::Time;
use shepherd::core::worker::{Change, Scene, Worker, WorkerState};

use crate::fate::ms;

/// What is done to a worker in one row.
enum Deed {
    Event(WorkerEvent),
    Timeout,
    Stop,
    Withdraw,
    Empty,
    Kill,
}

#[test]
fn every_state_and_event_do_what_the_table_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/snapshots/worker_table.txt");
    let table = table();
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(path, &table).expect("the snapshot can be written");
    }
    let agreed = fs::read_to_string(path).expect("the snapshot is there: UPDATE_SNAPSHOTS=1");
    let difference = difference(&agreed, &table);
    assert!(difference.is_empty(), "{path} (UPDATE_SNAPSHOTS=1 writes it anew):\n{difference}");
}

fn table() -> String {
    let mut table = String::from(
        "One worker: in each state, what an event makes of it.\n\
         Ready by `auto`, with a socket, or where so said by `tcp`, probed every 1 s for 2 s; ladder SIGTERM 10 s, SIGQUIT 5 s; ready-timeout 60 s.\n\
         All begins 100 s after the origin; `timeout` comes at the state's own deadline.\n",
    );
    for (name, ready, worker) in states() {
        let _ = writeln!(table, "\n{name}");
        for (deed_name, deed) in deeds() {
            let row = row(&policy(ready.clone()), worker.clone(), deed);
            let _ = writeln!(table, "  {deed_name:<26} {row}");
        }
    }
    table
}

fn start() -> Time {
    Time::after_origin(ms(100_000))
}

fn policy(ready: ReadyWhen) -> Policy {
    Policy {
        service: ServiceId(1),
        name: "web".to_owned(),
        workers: 1,
        on_failing: OnFailing::Wait,
        sockets: vec![Socket {
            id: SocketId(1),
            name: "http".to_owned(),
            members: Members::Shared,
            steered: false,
            refusable: false,
        }],
        proxy: None,
        ready,
        ready_timeout: ms(60_000),
        check_pace: CheckPace { interval: ms(1000), timeout: ms(2000) },
        surge: Surge::Percent(100),
        canary: None,
        probation: std::time::Duration::ZERO,
        before_stop: BeforeStop::Auto,
        keepalive: KeepAlive::default(),
        stop: StopLadder::new(
            StopStep { signal: Signal::Term, wait: ms(10_000) },
            vec![StopStep { signal: Signal::Quit, wait: ms(5000) }],
        ),
        starting_max: 1,
        launching_max: 1,
        depends_on: BTreeSet::new(),
        bind_to: BTreeSet::new(),
    }
}

/// A worker in each state, brought there by events.
fn states() -> Vec<(&'static str, ReadyWhen, Worker)> {
    let auto = policy(ReadyWhen::Auto);
    let tcp = policy(ReadyWhen::Check(Check::Tcp));
    let ordered = Worker::spawned(start(), WorkerId(1), SlotId(0), GenerationId(1), &auto);
    let started = || Deed::Event(WorkerEvent::Started { pid: Pid(7) });
    let runs = after(&auto, &ordered, [started()]);
    let ready = after(&auto, &runs, [Deed::Event(WorkerEvent::SaidReady)]);
    let exited = || Deed::Event(WorkerEvent::Exited { how: Exit::Code(0), left: 1, used: None });
    let asked = || Deed::Event(WorkerEvent::Asked);
    let checked = after(&tcp, &ordered, [started(), Deed::Timeout]);
    let after = |worker, deeds: Vec<Deed>| after(&auto, worker, deeds);
    let states = vec![
        ("Starting, before its program runs", ordered),
        ("Starting, its program runs", runs.clone()),
        ("Starting, it asked over its channel", after(&runs, vec![asked()])),
        ("Ready", ready.clone()),
        ("Ready, and it asked over its channel", after(&ready, vec![asked()])),
        ("Withdrawing", after(&ready, vec![Deed::Withdraw])),
        ("Emptying", after(&ready, vec![Deed::Empty])),
        ("Draining, by its own word", after(&ready, vec![Deed::Event(WorkerEvent::SaidStopping)])),
        ("Draining, told over its channel", after(&ready, vec![asked(), Deed::Stop])),
        (
            "Draining, told, and its channel closed",
            after(&ready, vec![asked(), Deed::Stop, Deed::Event(WorkerEvent::ChannelEnded)]),
        ),
        ("Draining, the first signal sent", after(&ready, vec![Deed::Stop])),
        ("Draining, the last signal sent", after(&ready, vec![Deed::Stop, Deed::Timeout])),
        ("Orphaned, it left unasked", after(&ready, vec![exited()])),
        ("Orphaned, it left as asked", after(&ready, vec![Deed::Stop, exited()])),
        ("Killed", after(&ready, vec![Deed::Kill])),
    ];
    let by_auto = states.into_iter().map(|(name, worker)| (name, ReadyWhen::Auto, worker));
    let probed = [
        ("Starting, by `tcp`, a probe is under way", checked.clone()),
        (
            "Starting, by `tcp`, a probe was told to end",
            self::after(&tcp, &checked, [Deed::Timeout]),
        ),
    ];
    let by_tcp = probed.map(|(name, worker)| (name, tcp.ready.clone(), worker));
    by_auto.chain(by_tcp).collect()
}

fn deeds() -> Vec<(&'static str, Deed)> {
    let failure = SpawnFailure { reason: "exec: ENOENT".to_owned() };
    let exited =
        |left| Deed::Event(WorkerEvent::Exited { how: Exit::Code(1), left, used: Some(used()) });
    let sight = |waiting| Deed::Event(WorkerEvent::Probed(Sight { waiting, wrapped: None }));
    let checked = |finding| Deed::Event(WorkerEvent::Checked(finding));
    vec![
        ("Started", Deed::Event(WorkerEvent::Started { pid: Pid(7) })),
        ("SpawnFailed", Deed::Event(WorkerEvent::SpawnFailed(failure))),
        ("Exited, nothing left", exited(0)),
        ("Exited, 2 left", exited(2)),
        ("TreeGone", Deed::Event(WorkerEvent::TreeGone)),
        ("SaidReady", Deed::Event(WorkerEvent::SaidReady)),
        ("SaidStopping", Deed::Event(WorkerEvent::SaidStopping)),
        ("SaidStatus", Deed::Event(WorkerEvent::SaidStatus("busy".to_owned()))),
        ("SaidExtend 90 s", Deed::Event(WorkerEvent::SaidExtend(ms(90_000)))),
        ("MainChanged", Deed::Event(WorkerEvent::MainChanged { pid: Pid(8) })),
        ("Asked", Deed::Event(WorkerEvent::Asked)),
        ("Listens", Deed::Event(WorkerEvent::Listens)),
        ("SentReady", Deed::Event(WorkerEvent::SentReady)),
        ("ChannelEnded", Deed::Event(WorkerEvent::ChannelEnded)),
        ("ChannelBroken", Deed::Event(WorkerEvent::ChannelBroken("full".to_owned()))),
        ("Probed, seen", sight(Waiting::Seen)),
        ("Probed, not seen", sight(Waiting::NotSeen)),
        ("Probed, unreadable", sight(Waiting::Unreadable)),
        ("Checked, it took one", checked(Finding::TookConnection(Taker::Itself))),
        ("Checked, not taken", checked(Finding::NotTaken)),
        ("stop", Deed::Stop),
        ("withdraw", Deed::Withdraw),
        ("empty", Deed::Empty),
        ("kill", Deed::Kill),
        ("timeout", Deed::Timeout),
    ]
}

fn used() -> Used {
    Used { processor: ms(1500), memory_most: Some(45 << 20) }
}

fn after(policy: &Policy, worker: &Worker, deeds: impl IntoIterator<Item = Deed>) -> Worker {
    let mut worker = worker.clone();
    for deed in deeds {
        let _ = perform(policy, &mut worker, deed);
    }
    worker
}

fn perform(policy: &Policy, worker: &mut Worker, deed: Deed) -> (Change, VecDeque<Action>) {
    let mut actions = VecDeque::new();
    let crowd = Tally { starting: 1, ..Tally::default() };
    let mut scene = Scene { policy, crowd, actions: &mut actions };
    let change = match deed {
        Deed::Event(event) => worker.handle_event(start(), event, &mut scene),
        Deed::Stop => {
            worker.stop(start(), &mut scene);
            Change::default()
        }
        Deed::Withdraw => {
            worker.withdraw(start(), start() + ms(20_000), &mut scene);
            Change::default()
        }
        Deed::Empty => {
            worker.empty(start(), start() + ms(15_000), &mut scene);
            Change::default()
        }
        Deed::Kill => {
            worker.kill(start(), &mut scene);
            Change::default()
        }
        Deed::Timeout => {
            let due = worker.deadline().map_or(start(), |(at, _)| at);
            worker.handle_timeout(due, &mut scene)
        }
    };
    (change, actions)
}

/// "next state · what changed · what is done".
fn row(policy: &Policy, mut worker: Worker, deed: Deed) -> String {
    let before = worker.clone();
    let (Change { ready, ended, left_behind, gone }, actions) = perform(policy, &mut worker, deed);
    let mut changes = Vec::new();
    changes.extend(ready.map(|evidence| format!("ready ({evidence:?})")));
    changes.extend(ended.map(|ending| {
        let was_ready = if ending.was_ready { ", was ready" } else { "" };
        format!("ended ({:?}{was_ready})", ending.cause)
    }));
    changes.extend(left_behind.map(|_| "others left behind".to_owned()));
    changes.extend(gone.then(|| "gone".to_owned()));
    let same = before.state == worker.state;
    let state = if same { "same".to_owned() } else { state(&worker.state) };
    let done = actions.iter().map(action).collect::<Vec<_>>().join(", ");
    let columns = [state, changes.join(", "), done];
    let columns: Vec<String> = columns.into_iter().filter(|text| !text.is_empty()).collect();
    columns.join(" · ")
}

fn state(state: &WorkerState) -> String {
    let at = |time: Time| format!("{} ms", time.since(start()).as_millis());
    match state {
        WorkerState::Starting { deadline, runs, watch, .. } => {
            let runs = if runs.is_some() { "runs" } else { "ordered" };
            let look = watch.probe.map(|(time, _)| format!(", look at {}", at(time)));
            let alive = watch.alive.as_ref().map(|&(time, _)| format!(", ready at {}", at(time)));
            let (look, alive) = (look.unwrap_or_default(), alive.unwrap_or_default());
            let check = match watch.check {
                None => String::new(),
                Some(CheckStep::Due { at: time, .. }) => format!(", probe at {}", at(time)),
                Some(CheckStep::UnderWay { until, .. }) => format!(", probe until {}", at(until)),
                Some(CheckStep::Ending { .. }) => ", probe ends".to_owned(),
            };
            format!("Starting ({runs}, late at {}{look}{alive}{check})", at(*deadline))
        }
        WorkerState::Ready { .. } => "Ready".to_owned(),
        WorkerState::Withdrawing { deadline, .. } => {
            format!("Withdrawing (until {})", at(*deadline))
        }
        WorkerState::Emptying { deadline, .. } => format!("Emptying (until {})", at(*deadline)),
        WorkerState::Draining { sent, deadline, .. } => {
            format!("Draining ({sent} sent, until {})", at(*deadline))
        }
        WorkerState::Orphaned { deadline, .. } => format!("Orphaned (until {})", at(*deadline)),
        WorkerState::Killed { rounds, deadline, .. } => {
            format!("Killed ({rounds} times, until {})", at(*deadline))
        }
    }
}

fn action(action: &Action) -> String {
    match action {
        Action::Probe(_) => "look".to_owned(),
        Action::Check(_) => "probe".to_owned(),
        Action::EndCheck(_) => "end the probe".to_owned(),
        Action::Disconnect(_) => "tell it to leave".to_owned(),
        Action::Signal(_, signal) => signal.to_string(),
        Action::SignalTree(_, signal) => format!("{signal} to the tree"),
        Action::KillTree(_) => "SIGKILL to the tree".to_owned(),
        Action::Notice(notice) => format!("say {}", notice_name(notice)),
        Action::Prepare { .. }
        | Action::ReadConfiguration { .. }
        | Action::Remove(_)
        | Action::Spawn(_)
        | Action::Inspect { .. }
        | Action::Listen(_)
        | Action::StopListening(_)
        | Action::Renew { .. }
        | Action::BindSlot { .. }
        | Action::BindSpares { .. }
        | Action::Steer { .. }
        | Action::LookAtDrain { .. }
        | Action::LookAtQueues { .. }
        | Action::Weigh { .. }
        | Action::Rotate { .. }
        | Action::Publish { .. }
        | Action::EndPublish { .. }
        | Action::FindHolders { .. }
        | Action::SetMode(..)
        | Action::Close(_)
        | Action::Forget { .. }
        | Action::Respond(..)
        | Action::Announce(_)
        | Action::Finish => format!("{action:?}"),
    }
}

fn notice_name(notice: &Notice) -> String {
    let debug = format!("{notice:?}");
    debug.chars().take_while(|character| character.is_alphanumeric()).collect()
}

/// Line by line, what one has and the other has not.
fn difference(agreed: &str, found: &str) -> String {
    let mut text = String::new();
    let mut section = "";
    for (old, new) in agreed.lines().zip(found.lines()) {
        if !new.starts_with(' ') {
            section = new;
        }
        if old != new {
            let _ = writeln!(text, "{section}\n- {old}\n+ {new}");
        }
    }
    let (old, new) = (agreed.lines().count(), found.lines().count());
    if old != new {
        let _ = writeln!(text, "{old} lines were agreed on, {new} found");
    }
    text
}
