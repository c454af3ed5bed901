//! A reload under way: what is known of each worker, from a status and the events after it, and how
//! that looks. It knows no clock.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::control::wire::{Event, Left, Service, ServiceState, Status, WorkerState};

use super::{Hue, Look, columns, compact, left, plain};

/// Whether each service has its headline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Headlines {
    /// It has.
    Shown,
    /// It is told by other means.
    Left,
}

/// All services that a reload is for.
#[derive(Debug)]
pub(in crate::cli) struct Progress {
    services: Vec<Rolling>,
}

/// One of them.
#[derive(Debug)]
struct Rolling {
    name: String,
    wanted: u32,
    /// The generation that serves.
    serving: u64,
    phase: Phase,
    /// How the new generation proves itself, while it does.
    trial: Option<String>,
    /// By their numbers.
    workers: BTreeMap<u64, Seen>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing has happened yet.
    Idle,
    /// It waits for another one.
    Queued,
    /// To this generation.
    Under(u64),
    /// The same, which gets a part of new connections.
    Canary(u64),
    /// It is off, and slots in which its workers served get old ones again.
    PuttingBack,
    /// This generation serves, and still has to prove itself.
    Probation(u64),
    /// It has failed to: the one before is to serve again.
    Failed,
    /// This generation serves.
    Committed(u64),
    /// The old one serves.
    Aborted,
}

/// A worker.
#[derive(Debug)]
struct Seen {
    slot: u32,
    generation: u64,
    pid: Option<u32>,
    stage: Stage,
    /// When it got there, counted from where `now` is, which may be before that.
    since: f64,
    has: Has,
}

/// What a worker has that drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Has {
    /// Nothing that is known.
    Unknown,
    /// This, before it is asked to stop.
    Before(Left),
    /// This when it was asked to stop.
    Still(Left),
}

/// In the order in which a worker goes through them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Starting,
    Ready,
    Draining,
    Gone,
    /// Gone, and nobody had asked for it.
    Failed,
}

impl Progress {
    /// Of these services; none named is all.
    pub(in crate::cli) fn new(now: Duration, status: &Status, names: &[String]) -> Progress {
        let meant = |service: &&Service| names.is_empty() || names.contains(&service.name);
        let rolling = |service: &Service| Rolling::new(now, service);
        Progress { services: status.services.iter().filter(meant).map(rolling).collect() }
    }

    /// Takes what the daemon says at this moment: events were missed.
    pub(in crate::cli) fn see(&mut self, now: Duration, status: &Status) {
        for rolling in &mut self.services {
            if let Some(service) = status.services.iter().find(|it| it.name == rolling.name) {
                rolling.see(now, service);
            }
        }
    }

    /// Takes an event. Whether it is about one of the services: others are nobody's news.
    pub(in crate::cli) fn hear(&mut self, now: Duration, event: &Event) -> bool {
        let mut services = self.services.iter_mut();
        match services.find(|it| Some(&it.name) == event.service.as_ref()) {
            Some(rolling) => {
                rolling.hear(now, event);
                true
            }
            None => event.service.is_none(),
        }
    }

    /// Whether a reload of one of them has begun and has not ended, as far as events say.
    pub(in crate::cli) fn is_under_way(&self) -> bool {
        self.services.iter().any(|it| match it.phase {
            Phase::Under(_) | Phase::Canary(_) | Phase::Probation(_) => true,
            Phase::PuttingBack | Phase::Failed => true,
            Phase::Idle | Phase::Queued | Phase::Committed(_) | Phase::Aborted => false,
        })
    }

    /// The lines to be shown, at most so many.
    pub(in crate::cli) fn frame(
        &self,
        now: Duration,
        height: usize,
        look: Look,
        headlines: Headlines,
    ) -> Vec<String> {
        let mut lines = Vec::new();
        let services = self.services.iter().take(height);
        // Each service gets its headline; what is left of the height is shared in their order.
        let mut left = height.saturating_sub(self.services.len());
        for rolling in services {
            match headlines {
                Headlines::Shown => {
                    lines.push(rolling.headline(look));
                    if let Some(trial) = rolling.trial.as_ref().filter(|_| left > 0) {
                        lines.push(look.fit(&format!("  {trial}")));
                        left -= 1;
                    }
                }
                Headlines::Left => {}
            }
            let workers = rolling.lines(now, left, look);
            left -= workers.len();
            lines.extend(workers);
        }
        lines
    }
}

impl Rolling {
    fn new(now: Duration, service: &Service) -> Rolling {
        let mut rolling = Rolling {
            name: service.name.clone(),
            wanted: service.wanted,
            serving: service.generation,
            phase: Phase::Idle,
            trial: None,
            workers: BTreeMap::new(),
        };
        rolling.see(now, service);
        rolling
    }

    fn see(&mut self, now: Duration, service: &Service) {
        self.wanted = service.wanted;
        match (service.reloading, self.phase) {
            (Some(next), Phase::Canary(known)) if next == known => {}
            (Some(_), Phase::PuttingBack) => {}
            (Some(next), _) => self.phase = Phase::Under(next),
            (None, Phase::Under(next) | Phase::Canary(next)) if service.generation == next => {
                self.phase = Phase::Committed(next);
            }
            (None, Phase::Under(_) | Phase::Canary(_) | Phase::PuttingBack) => {
                self.phase = Phase::Aborted;
            }
            (
                None,
                Phase::Idle
                | Phase::Queued
                | Phase::Probation(_)
                | Phase::Failed
                | Phase::Committed(_)
                | Phase::Aborted,
            ) => {}
        }
        self.serving = service.generation;
        for worker in self.workers.values_mut() {
            worker.advance(now, Stage::Gone);
        }
        for worker in &service.workers {
            let stage = match &worker.state {
                // What a later version says of one that is neither ready nor to stop.
                WorkerState::Starting | WorkerState::Other(_) => Stage::Starting,
                WorkerState::Ready => Stage::Ready,
                WorkerState::Draining => Stage::Draining,
            };
            let seen = Seen {
                slot: worker.slot,
                generation: worker.generation,
                pid: worker.pid,
                stage,
                since: now.as_secs_f64() - worker.since,
                has: worker.left.map_or(Has::Unknown, Has::Before),
            };
            self.workers.insert(worker.id, seen);
        }
        if service.state == ServiceState::Stopped {
            self.wanted = 0;
        }
    }

    fn hear(&mut self, now: Duration, event: &Event) {
        if let Some(id) = event.worker {
            return self.hear_of(now, id, event);
        }
        let trial = || {
            let message = event.message.as_str();
            let message = message.strip_prefix(&format!("{}: ", self.name)).unwrap_or(message);
            Some(plain(message))
        };
        self.trial = match event.kind.as_str() {
            "canary-begins" | "probation-begins" | "probation-failed" | "batches-begin"
            | "batch-changed-over" | "putting-back" | "not-put-back" => trial(),
            "reload-begins" | "reload-committed" | "reload-aborted" | "probation-passed"
            | "put-back" => None,
            _ => self.trial.take(),
        };
        match (event.kind.as_str(), event.generation) {
            ("canary-begins", Some(next)) => self.phase = Phase::Canary(next),
            ("batch-changed-over", Some(next)) => self.phase = Phase::Under(next),
            ("putting-back", _) => self.phase = Phase::PuttingBack,
            ("put-back" | "not-put-back", _) => self.phase = Phase::Aborted,
            ("probation-begins", Some(next)) => self.phase = Phase::Probation(next),
            ("probation-passed", Some(next)) => self.phase = Phase::Committed(next),
            ("probation-failed", _) => self.phase = Phase::Failed,
            ("reload-queued", _) if self.phase == Phase::Idle => self.phase = Phase::Queued,
            ("reload-begins", Some(next)) => {
                self.workers.retain(|_, worker| worker.stage < Stage::Gone);
                self.phase = Phase::Under(next);
            }
            ("reload-committed", Some(next)) => {
                self.phase = Phase::Committed(next);
                self.serving = next;
            }
            ("reload-aborted", _) => self.phase = Phase::Aborted,
            // What else there is changes no line, nor will what there is in later versions.
            _ => {}
        }
    }

    fn hear_of(&mut self, now: Duration, id: u64, event: &Event) {
        let stage = match event.kind.as_str() {
            "worker-started" => Stage::Starting,
            "worker-ready" => Stage::Ready,
            "worker-emptying" | "worker-still-busy" | "worker-stopping" => Stage::Draining,
            "worker-drained" => Stage::Gone,
            "worker-ended" => Stage::Failed,
            // It changes nothing that is shown.
            _ => return,
        };
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.pid = event.pid.or(worker.pid);
            worker.advance(now, stage);
            worker.heed(event);
        } else if let (Some(slot), Some(generation)) = (event.slot, event.generation) {
            // Only the first event of a worker has all of it.
            let (pid, since, has) = (event.pid, now.as_secs_f64(), Has::Unknown);
            self.workers.insert(id, Seen { slot, generation, pid, stage, since, has });
        }
    }

    fn headline(&self, look: Look) -> String {
        let name = plain(&self.name);
        let ready = |generation| {
            let ready = |it: &&Seen| it.generation == generation && it.stage == Stage::Ready;
            self.workers.values().filter(ready).count()
        };
        let (wanted, serving) = (self.wanted, self.serving);
        let (word, hue, rest) = match self.phase {
            Phase::Idle => ("waiting", Hue::Moving, format!(", generation {serving} serves")),
            Phase::Queued => (
                "queued",
                Hue::Moving,
                format!(" behind another reload, generation {serving} serves"),
            ),
            Phase::Under(next) => {
                let ready = ready(next);
                let rest = format!(" generation {serving} to {next}, {ready} of {wanted} ready");
                ("reloading", Hue::Moving, rest)
            }
            Phase::Canary(next) => {
                let ready = ready(next);
                let rest = format!(", generation {serving} to {next}, {ready} of {wanted} ready");
                ("canary", Hue::Moving, rest)
            }
            Phase::PuttingBack => ("putting back", Hue::Bad, format!(" generation {serving}")),
            Phase::Probation(next) => ("on probation", Hue::Moving, self.drains(next)),
            Phase::Failed => ("rolling back", Hue::Bad, format!(", generation {serving} serves")),
            Phase::Committed(next) => ("committed", Hue::Good, self.drains(next)),
            Phase::Aborted => ("aborted", Hue::Bad, format!(", generation {serving} serves on")),
        };
        let whole = look.fit(&format!("{name}: {word}{rest}"));
        match whole.strip_prefix(&format!("{name}: {word}")) {
            Some(rest) => {
                format!(
                    "{} {}{rest}",
                    look.paint(Hue::Bold, &format!("{name}:")),
                    look.paint(hue, word)
                )
            }
            None => whole,
        }
    }

    /// A generation serves, and others drain.
    fn drains(&self, next: u64) -> String {
        let old = |it: &&Seen| it.generation != next && it.stage < Stage::Gone;
        match self.workers.values().filter(old).count() {
            0 => format!(", generation {next} serves"),
            1 => format!(", generation {next} serves, 1 old worker drains"),
            many => format!(", generation {next} serves, {many} old workers drain"),
        }
    }

    /// A line a worker; where there is no room for all, a line a generation, and those workers on
    /// which the reload waits.
    fn lines(&self, now: Duration, height: usize, look: Look) -> Vec<String> {
        let mut workers: Vec<(&u64, &Seen)> = self.workers.iter().collect();
        workers.sort_by_key(|(id, worker)| (worker.slot, worker.generation, **id));
        if workers.len() <= height {
            return table(now, &self.name, &workers, look);
        }
        let mut lines = self.summary(look);
        lines.truncate(height);
        let room = height - lines.len();
        workers.retain(|(_, it)| {
            matches!(it.stage, Stage::Starting | Stage::Failed | Stage::Draining)
        });
        // Whoever has been at it for longest is whom the reload waits for.
        workers.sort_by(|(_, a), (_, b)| {
            let order = |it: &Seen| match it.stage {
                Stage::Failed => 0,
                Stage::Starting => 1,
                Stage::Draining | Stage::Ready | Stage::Gone => 2,
            };
            order(a).cmp(&order(b)).then(a.since.total_cmp(&b.since))
        });
        workers.truncate(room);
        lines.extend(table(now, &self.name, &workers, look));
        lines
    }

    fn summary(&self, look: Look) -> Vec<String> {
        let mut counts: BTreeMap<u64, BTreeMap<Stage, usize>> = BTreeMap::new();
        for worker in self.workers.values() {
            *counts.entry(worker.generation).or_default().entry(worker.stage).or_default() += 1;
        }
        let line = |(generation, stages): (&u64, &BTreeMap<Stage, usize>)| {
            let stages: Vec<String> =
                stages.iter().map(|(stage, count)| format!("{count} {}", stage.word())).collect();
            look.fit(&format!("  generation {generation}: {}", stages.join(", ")))
        };
        counts.iter().map(line).collect()
    }
}

impl Seen {
    /// One that did not finish in its time is asked to stop right after that is told.
    fn heed(&mut self, event: &Event) {
        self.has = match (event.kind.as_str(), self.has) {
            ("worker-emptying", Has::Unknown) => Has::Before(event.left.unwrap_or_default()),
            ("worker-still-busy", _) => Has::Still(event.left.unwrap_or_default()),
            ("worker-stopping", Has::Before(_)) => Has::Unknown,
            (_, has) => has,
        };
    }

    fn note(&self) -> String {
        // A line has little room for it.
        let told = |it| left(it, ["open"; 2]);
        match (self.stage, self.has) {
            (Stage::Draining, Has::Before(it)) => {
                told(it).unwrap_or_else(|| "finishing".to_owned())
            }
            (Stage::Draining, Has::Still(it)) => {
                told(it).map(|left| format!("still {left}")).unwrap_or_default()
            }
            (Stage::Draining, Has::Unknown)
            | (Stage::Starting | Stage::Ready | Stage::Gone | Stage::Failed, _) => String::new(),
        }
    }

    /// Events may tell what a status has shown already, so nobody goes back.
    fn advance(&mut self, now: Duration, stage: Stage) {
        if stage > self.stage && self.stage < Stage::Gone {
            self.stage = stage;
            self.since = now.as_secs_f64();
        }
    }
}

impl Stage {
    fn word(self) -> &'static str {
        match self {
            Stage::Starting => "starting",
            Stage::Ready => "ready",
            Stage::Draining => "draining",
            Stage::Gone => "gone",
            Stage::Failed => "failed",
        }
    }

    fn hue(self) -> Hue {
        match self {
            Stage::Starting | Stage::Draining => Hue::Moving,
            Stage::Ready => Hue::Good,
            Stage::Gone => Hue::Dim,
            Stage::Failed => Hue::Bad,
        }
    }
}

/// The widest word of a stage.
const STAGE_COLUMNS: usize = "draining".len();

fn table(now: Duration, name: &str, workers: &[(&u64, &Seen)], look: Look) -> Vec<String> {
    let name = plain(name);
    let cells: Vec<[String; 4]> = workers
        .iter()
        .map(|(id, worker)| {
            let pid = worker.pid.map_or("-".to_owned(), |pid| pid.to_string());
            let slot = format!("{name}.{}", worker.slot);
            [slot, format!("worker {id}"), format!("pid {pid}"), worker.generation.to_string()]
        })
        .collect();
    let mut widths = [0; 4];
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = columns(cell).max(*width);
        }
    }
    let line = |([slot, id, pid, generation], (_, worker)): (&[String; 4], &(&u64, &Seen))| {
        let [slots, ids, pids, generations] = widths;
        let stage = worker.stage.word();
        let front = format!(
            "  {slot:slots$}  {id:ids$}  {pid:pids$}  generation {generation:>generations$}  "
        );
        // How long it has been gone is nobody's concern.
        let time = match worker.stage {
            Stage::Starting | Stage::Ready | Stage::Draining => {
                compact(now.as_secs_f64() - worker.since)
            }
            Stage::Gone | Stage::Failed => String::new(),
        };
        let note = worker.note();
        let whole = format!("{front}{stage:STAGE_COLUMNS$}  {time:>6}  {note}");
        let whole = look.fit(whole.trim_end()).trim_end().to_owned();
        match whole.strip_prefix(&format!("{front}{stage}")) {
            Some(rest) => format!("{front}{}{rest}", look.paint(worker.stage.hue(), stage)),
            None => whole,
        }
    };
    cells.iter().zip(workers).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::samples::{self, COLOURED, PIPE, TERMINAL, worker_event};
    use super::*;
    use insta::assert_snapshot;

    const HEIGHT: usize = 23;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn reload_event(kind: &str, generation: u64) -> Event {
        Event {
            service: Some("web".to_owned()),
            generation: Some(generation),
            ..samples::event(kind)
        }
    }

    fn started(id: u64, slot: u32) -> Event {
        Event { generation: Some(4), pid: Some(5000), ..worker_event("worker-started", id, slot) }
    }

    /// A reload of two workers, a frame after each event.
    fn film(events: &[Event], height: usize, look: Look) -> String {
        let status = Status { services: vec![samples::service("web")], ..samples::shop() };
        let mut progress = Progress::new(ms(0), &status, &[]);
        let mut film = progress.frame(ms(0), height, look, Headlines::Shown).join("\n");
        for (event, number) in events.iter().zip(1..) {
            assert!(progress.hear(ms(number * 300), event));
            let frame =
                progress.frame(ms(number * 300 + 100), height, look, Headlines::Shown).join("\n");
            film.extend([format!("\n--- {}\n{frame}", event.message)]);
        }
        film
    }

    fn committed() -> Vec<Event> {
        vec![
            reload_event("reload-queued", 0),
            reload_event("reload-begins", 4),
            started(10, 0),
            worker_event("worker-ready", 10, 0),
            started(11, 1),
            worker_event("worker-ready", 11, 1),
            reload_event("reload-committed", 4),
            worker_event("worker-stopping", 8, 0),
            worker_event("worker-stopping", 9, 1),
            worker_event("worker-drained", 8, 0),
        ]
    }

    #[test]
    fn frames_of_a_reload_that_is_committed() {
        assert_snapshot!(film(&committed(), HEIGHT, TERMINAL));
    }

    #[test]
    fn frames_of_workers_that_finish_what_they_have() {
        let left = |connections| Some(Left { connections: Some(connections), ..Left::default() });
        let events = [
            started(10, 0),
            worker_event("worker-ready", 10, 0),
            worker_event("worker-emptying", 8, 0),
            worker_event("worker-emptying", 9, 1),
            worker_event("worker-stopping", 9, 1),
            Event { left: left(2), ..worker_event("worker-still-busy", 8, 0) },
            worker_event("worker-stopping", 8, 0),
            worker_event("worker-drained", 8, 0),
        ];
        assert_snapshot!(film(&events, HEIGHT, TERMINAL));
        let mut status = Status { services: vec![samples::service("web")], ..samples::shop() };
        status.services[0].workers[0].state = WorkerState::Draining;
        status.services[0].workers[0].left = left(1);
        let progress = Progress::new(ms(0), &status, &[]);
        let frame = progress.frame(ms(1), HEIGHT, PIPE, Headlines::Shown);
        assert!(frame[1].ends_with("  1 open"), "{frame:?}");
    }

    #[test]
    fn frames_of_a_reload_that_is_aborted_in_colours() {
        let events = [
            reload_event("reload-begins", 4),
            started(10, 0),
            worker_event("worker-ended", 10, 0),
            reload_event("reload-aborted", 4),
        ];
        assert_snapshot!(film(&events, HEIGHT, COLOURED).replace('\x1b', "␛"));
    }

    #[test]
    fn frames_of_a_generation_that_proves_itself() {
        let proving = |kind: &str, message: &str| Event {
            message: format!("web: {message}"),
            ..reload_event(kind, 4)
        };
        let events = [
            reload_event("reload-begins", 4),
            started(10, 0),
            worker_event("worker-ready", 10, 0),
            proving("canary-begins", "generation 4 gets 5% of new connections for 30s"),
            reload_event("reload-committed", 4),
            proving("probation-begins", "generation 4 serves, on probation for 1m"),
            worker_event("worker-drained", 8, 0),
            worker_event("worker-ended", 10, 0),
            proving("probation-failed", "generation 4 has failed on probation: rolling back"),
            reload_event("reload-begins", 5),
            reload_event("reload-committed", 5),
        ];
        assert_snapshot!(film(&events, HEIGHT, TERMINAL));
        let passed = [
            proving("probation-begins", "generation 4 serves, on probation for 1m"),
            proving("probation-passed", "generation 4 has stood its probation"),
        ];
        assert_snapshot!(film(&passed, 1, TERMINAL), @r"
        web: waiting, generation 3 serves
        --- web: generation 4 serves, on probation for 1m
        web: on probation, generation 4 serves, 2 old workers drain
        --- web: generation 4 has stood its probation
        web: committed, generation 4 serves, 2 old workers drain
        ");
    }

    #[test]
    fn frames_of_slots_that_are_changed_over_in_batches_and_put_back() {
        let batch = |kind: &str, message: &str| Event {
            message: format!("web: {message}"),
            ..reload_event(kind, 4)
        };
        let events = [
            reload_event("reload-begins", 4),
            batch("batches-begin", "2 workers are changed over in batches of 1"),
            started(10, 0),
            worker_event("worker-ready", 10, 0),
            batch("batch-changed-over", "1 of 2 changed over to generation 4"),
            worker_event("worker-stopping", 8, 0),
            worker_event("worker-drained", 8, 0),
            started(11, 1),
            worker_event("worker-ended", 11, 1),
            reload_event("reload-aborted", 4),
            batch("putting-back", "putting back 1 slot"),
            batch("put-back", "put back: generation 3 serves in all slots"),
        ];
        assert_snapshot!(film(&events, 4, TERMINAL));
    }

    #[test]
    fn frames_of_a_screen_that_is_too_low_for_all_workers() {
        assert_snapshot!(film(&committed(), 4, TERMINAL));
    }

    #[test]
    fn a_frame_of_two_hundred_workers() {
        let mut progress = Progress::new(ms(0), &samples::crowd(), &[]);
        progress.hear(ms(10), &reload_event("reload-begins", 4));
        for number in 0..40 {
            progress.hear(ms(20 + u64::from(number)), &started(201 + u64::from(number), number));
        }
        for number in 0..30 {
            let ready = worker_event("worker-ready", 201 + u64::from(number), number);
            progress.hear(ms(500), &ready);
        }
        assert_snapshot!(progress.frame(ms(700), HEIGHT, TERMINAL, Headlines::Shown).join("\n"));
    }

    #[test]
    fn no_frame_is_larger_than_the_screen() {
        let crowd = Progress::new(ms(0), &samples::crowd(), &[]);
        let shop = Progress::new(ms(0), &samples::shop(), &[]);
        for size in 1..60 {
            let look = Look { width: Some(size), ..TERMINAL };
            for progress in [&crowd, &shop] {
                let frame = progress.frame(ms(0), size, look, Headlines::Shown);
                assert!(frame.len() <= size);
                assert!(frame.iter().all(|line| columns(line) <= size), "{size}: {frame:#?}");
            }
        }
    }

    #[test]
    fn what_was_missed_is_taken_from_a_status_and_events_of_before_change_nothing() {
        let status = Status { services: vec![samples::service("web")], ..samples::shop() };
        let mut progress = Progress::new(ms(0), &status, &[]);
        progress.hear(ms(1), &reload_event("reload-begins", 4));
        progress.hear(ms(2), &started(10, 0));
        let mut later = status.clone();
        later.services[0].generation = 4;
        later.services[0].workers = vec![samples::worker(10, 0, 4, WorkerState::Ready)];
        progress.see(ms(3), &later);
        assert!(!progress.is_under_way());
        let frame = progress.frame(ms(4), HEIGHT, PIPE, Headlines::Shown);
        progress.hear(ms(4), &worker_event("worker-stopping", 8, 0));
        assert_eq!(progress.frame(ms(4), HEIGHT, PIPE, Headlines::Shown), frame);
        assert_eq!(frame[0], "web: committed, generation 4 serves");
    }

    #[test]
    fn other_services_are_no_news() {
        let mut progress = Progress::new(ms(0), &samples::shop(), &["background-jobs".to_owned()]);
        assert!(!progress.hear(ms(0), &started(10, 0)));
        assert_eq!(progress.frame(ms(0), HEIGHT, TERMINAL, Headlines::Shown).len(), 1);
    }
}
