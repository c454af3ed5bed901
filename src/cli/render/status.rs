//! `shepherd status`: the daemon in a line, each service with a headline, its workers in a table.

use crate::control::wire::{
    BackingOff, Canary, Daemon, Member, MemberState, Service, ServiceState, Socket, Status, Worker,
    WorkerState,
};

use super::sockets;
use super::{Hue, Look, columns, compact, cut, left, memory, plain, workers, wrapped};

/// Whether the kernel's sockets are shown one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Sockets {
    /// They are.
    Each,
    /// What waits in all of them is shown together.
    Together,
}

/// The whole, each line with its end.
pub(in crate::cli) fn status(status: &Status, sockets: Sockets, look: Look) -> String {
    let mut text = daemon(&status.daemon, look);
    let tables: Vec<Vec<Row>> = status.services.iter().map(rows).collect();
    let widths = Widths::of(tables.iter().flatten(), look.width);
    for (service, rows) in status.services.iter().zip(&tables) {
        text.push('\n');
        text.push_str(&headline(service, look));
        if !rows.is_empty() {
            line(&mut text, &widths.titles(look));
        }
        for row in rows {
            line(&mut text, &widths.row(row, look));
        }
        if sockets == Sockets::Each {
            for one in sockets::lines(service, look) {
                line(&mut text, &one);
            }
        }
    }
    text
}

/// As many lines of a text as a screen of this height has, with a last line that says how many are
/// missing.
pub(in crate::cli) fn bounded(text: &str, height: usize, look: Look) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let shown = if lines.len() <= height { lines.len() } else { height.saturating_sub(1) };
    let mut bounded: Vec<String> = lines.iter().take(shown).map(|&line| line.to_owned()).collect();
    if shown < lines.len() {
        let more = format!("… {} lines more; without --watch all are shown", lines.len() - shown);
        bounded.push(look.paint(Hue::Dim, &look.fit(&more)));
    }
    bounded
}

fn daemon(daemon: &Daemon, look: Look) -> String {
    let Daemon { name, version, pid, up, stopping, file, drains_in, .. } = daemon;
    let mut line = format!("shepherd {} `{}`, pid {pid}, ", plain(version), plain(name));
    match drains_in {
        Some(left) => line.extend([format!("stopping in {}, ", compact(*left))]),
        None if *stopping => line.push_str("stopping, "),
        None => {}
    }
    line.extend([format!("up {}", compact(*up))]);
    if let Some(file) = file {
        line.extend([format!(", {}", plain(file))]);
    }
    format!("{}\n", look.fit(&line))
}

fn headline(service: &Service, look: Look) -> String {
    let (word, hue) = state(service);
    let name = plain(&service.name);
    let mut rest = String::new();
    let mut say = |text: &str| {
        rest.push_str(", ");
        rest.push_str(text);
    };
    match service.state {
        ServiceState::Stopped => say(&format!("{} when it runs", workers(service.wanted))),
        ServiceState::Waiting
        | ServiceState::Starting
        | ServiceState::Up
        | ServiceState::Reloading
        | ServiceState::Failing
        | ServiceState::Stopping
        | ServiceState::Other(_) => {
            say(&format!("{} of {} ready", service.ready, service.wanted));
        }
    }
    if service.reloading.is_none() {
        say(&format!("generation {}", service.generation));
    }
    // The usual one is no news.
    if let Some(balance) = service.balance.as_deref().filter(|&balance| balance != "generation") {
        say(&format!("balance {}", plain(balance)));
    }
    match service.dispatched.map_or(0, |dispatched| dispatched.held) {
        0 => {}
        1 => say("1 connection held"),
        held => say(&format!("{held} connections held")),
    }
    if let Some(Canary { percent, left }) = service.canary {
        say(&format!("canary {percent}% for {} more", compact(left)));
    }
    if let Some(left) = service.probation {
        say(&format!("on probation for {} more", compact(left)));
    }
    if service.queued {
        say("another reload queued");
    }
    match service.restarts {
        0 => {}
        1 => say("1 restart"),
        restarts => say(&format!("{restarts} restarts")),
    }
    let whole = look.fit(&format!("{name}: {word}{rest}"));
    let mut text = String::new();
    // Painted only where nothing of it was cut away.
    match whole.strip_prefix(&format!("{name}: {word}")) {
        Some(rest) => {
            let (name, word) = (look.paint(Hue::Bold, &format!("{name}:")), look.paint(hue, &word));
            line(&mut text, &format!("{name} {word}{rest}"));
        }
        None => line(&mut text, &whole),
    }
    let sockets: Vec<String> = service.sockets.iter().map(socket).collect();
    if !sockets.is_empty() {
        let hue = if service.sockets.iter().any(is_nearly_full) { Hue::Bad } else { Hue::Plain };
        let on = look.fit(&format!("  on {}", sockets.join(", ")));
        line(&mut text, &look.paint(hue, &on));
    }
    if let Some(abort) = &service.last_abort {
        for abort in wrapped("  ", "    ", &plain(abort), look.width) {
            line(&mut text, &look.paint(Hue::Bad, &look.fit(&abort)));
        }
    }
    text
}

fn state(service: &Service) -> (String, Hue) {
    let other;
    let (word, hue) = match &service.state {
        ServiceState::Waiting => ("waiting", Hue::Moving),
        ServiceState::Starting => ("starting", Hue::Moving),
        ServiceState::Up => ("up", Hue::Good),
        ServiceState::Reloading => ("reloading", Hue::Moving),
        ServiceState::Failing => ("failing", Hue::Bad),
        ServiceState::Stopping => ("stopping", Hue::Moving),
        ServiceState::Stopped => ("stopped", Hue::Dim),
        ServiceState::Other(word) => {
            other = plain(word);
            (other.as_str(), Hue::Plain)
        }
    };
    let word = match (service.reloading, &service.waits_for[..]) {
        (Some(next), _) => {
            let over = service.changed_over.map(|over| format!(", {over} changed over"));
            let over = over.unwrap_or_default();
            format!("{word} generation {} to {next}{over}", service.generation)
        }
        (None, []) => word.to_owned(),
        (None, names) => format!("{word} for {}", plain(&names.join(", "))),
    };
    (word, hue)
}

/// A socket, and what waits there if anything does.
fn socket(socket: &Socket) -> String {
    let name = socket.name.as_ref().map(|name| format!("{name}=")).unwrap_or_default();
    let mut text = plain(&format!("{name}{}", socket.address));
    let connections = queued(socket, |it| (it.queued, it.queue_max), |count| count.to_string());
    let bytes = queued(socket, |it| (it.queued_bytes, it.queue_max_bytes), memory);
    for queued in connections.into_iter().chain(bytes) {
        text.extend([" (", &queued, ")"]);
    }
    text
}

/// What waits in all members of a socket together: `3 of 4096 queued`.
fn queued(
    socket: &Socket,
    of: impl Fn(&Member) -> (Option<u32>, Option<u32>),
    show: impl Fn(u64) -> String,
) -> Option<String> {
    let members = || socket.members.iter().map(&of);
    let waiting: u64 = members().filter_map(|(waiting, _)| waiting).map(u64::from).sum();
    let found = socket.members.iter().filter(|member| member.may_be_found());
    let most: Option<u64> = found.map(|member| of(member).1.map(u64::from)).sum();
    let most = most.filter(|&most| most > 0);
    let waiting = (waiting > 0).then(|| show(waiting))?;
    let most = most.map(|most| format!(" of {}", show(most))).unwrap_or_default();
    Some(format!("{waiting}{most} queued"))
}

/// Whether four fifths of what may wait in a member do.
fn is_nearly_full(socket: &Socket) -> bool {
    let is_nearly_full = |(waiting, most): (Option<u32>, Option<u32>)| {
        let pair = waiting.zip(most).filter(|(waiting, _)| *waiting > 0);
        pair.is_some_and(|(waiting, most)| u64::from(waiting) * 5 >= u64::from(most) * 4)
    };
    socket.members.iter().any(|member| {
        is_nearly_full((member.queued, member.queue_max))
            || is_nearly_full((member.queued_bytes, member.queue_max_bytes))
    })
}

/// The columns, in the order in which they stand.
const COLUMNS: [Column; 9] = [
    Column { title: "SLOT", side: Side::Left, leaves: None },
    Column { title: "WORKER", side: Side::Right, leaves: None },
    Column { title: "PID", side: Side::Right, leaves: None },
    Column { title: "GEN", side: Side::Right, leaves: Some(3) },
    Column { title: "STATE", side: Side::Left, leaves: None },
    Column { title: "SINCE", side: Side::Right, leaves: Some(2) },
    Column { title: "CONN", side: Side::Right, leaves: Some(4) },
    Column { title: "MEMORY", side: Side::Right, leaves: Some(1) },
    Column { title: "NOTE", side: Side::Left, leaves: Some(0) },
];

const STATE: usize = 4;
const MEMORY: usize = 7;
const NOTE: usize = 8;

/// What stands in front of a row, and between two columns.
const GAP: &str = "  ";

/// A note with fewer columns than this says nothing, and is left out.
const NOTE_MIN: usize = 8;

struct Column {
    title: &'static str,
    side: Side,
    /// The order in which columns go where there is no room for all.
    leaves: Option<u8>,
}

#[derive(Clone, Copy)]
enum Side {
    Left,
    Right,
}

struct Row {
    cells: [String; COLUMNS.len()],
    hue: Hue,
}

fn rows(service: &Service) -> Vec<Row> {
    let name = plain(&service.name);
    let working = service.workers.iter();
    let working = working.map(|it| ((it.slot, 0, it.id), worker(&name, it, &service.sockets)));
    let waiting = service.backing_off.iter().map(|it| ((it.slot, 1, 0), backing_off(&name, it)));
    let mut rows: Vec<_> = working.chain(waiting).collect();
    rows.sort_by_key(|(place, _)| *place);
    rows.into_iter().map(|(_, row)| row).collect()
}

fn worker(service: &str, worker: &Worker, sockets: &[Socket]) -> Row {
    let (state, hue) = match &worker.state {
        WorkerState::Starting => ("starting".to_owned(), Hue::Moving),
        WorkerState::Ready if worker.stalled => ("stalled".to_owned(), Hue::Bad),
        WorkerState::Ready => ("ready".to_owned(), Hue::Good),
        WorkerState::Draining => ("draining".to_owned(), Hue::Moving),
        WorkerState::Other(word) => (plain(word), Hue::Plain),
    };
    let finishing = worker.left.map(|it| {
        let open = left(it, ["connection open", "connections open"]);
        let open = open.unwrap_or_else(|| "finishing what it has".to_owned());
        let most = worker.next_in.map(|left| format!(", {} left", compact(left)));
        format!("{open}{}", most.unwrap_or_default())
    });
    let stalled = worker.stalled.then(|| waiting_for(worker.slot, sockets)).flatten();
    let dropped = worker.messages.map_or(0, |messages| messages.dropped);
    let dropped = (dropped > 0).then(|| format!("did not read {dropped} messages"));
    let notes = [finishing, stalled, dropped, worker.said.as_deref().map(plain)];
    Row {
        cells: [
            format!("{service}.{}", worker.slot),
            worker.id.to_string(),
            worker.pid.map_or("-".to_owned(), |pid| pid.to_string()),
            worker.generation.to_string(),
            state,
            compact(worker.since),
            worker.connections.map(|count| count.to_string()).unwrap_or_default(),
            worker.memory.map(memory).unwrap_or_default(),
            notes.into_iter().flatten().collect::<Vec<_>>().join("; "),
        ],
        hue,
    }
}

/// How many connections wait for the worker of a slot that takes none.
fn waiting_for(slot: u32, sockets: &[Socket]) -> Option<String> {
    let members = sockets.iter().flat_map(|socket| &socket.members);
    let own = members
        .filter(|member| member.slot == Some(slot) && member.state == Some(MemberState::Stalled));
    let waiting: u64 = own.filter_map(|member| member.queued).map(u64::from).sum();
    (waiting > 0).then(|| format!("takes none of {waiting} queued"))
}

fn backing_off(service: &str, BackingOff { slot, left }: &BackingOff) -> Row {
    let nothing = || "-".to_owned();
    let note = format!("starts in {}", compact(*left));
    let state = "backing off".to_owned();
    let slot = format!("{service}.{slot}");
    let mut cells = [const { String::new() }; COLUMNS.len()];
    cells[1..MEMORY - 1].fill_with(nothing);
    (cells[0], cells[STATE], cells[NOTE]) = (slot, state, note);
    Row { cells, hue: Hue::Bad }
}

/// How wide each column is in all tables; `None` is left out.
struct Widths([Option<usize>; COLUMNS.len()]);

impl Widths {
    /// A column in which there is nothing is left out; where the screen is too narrow the note is
    /// cut first, memory goes before little is left of it, and then columns go one by one.
    fn of<'a>(rows: impl Iterator<Item = &'a Row>, width: Option<usize>) -> Widths {
        let mut most = [0; COLUMNS.len()];
        for row in rows {
            for (most, cell) in most.iter_mut().zip(&row.cells) {
                *most = columns(cell).max(*most);
            }
        }
        let mut widths = [None; COLUMNS.len()];
        for ((width, most), column) in widths.iter_mut().zip(most).zip(&COLUMNS) {
            *width = (most > 0).then(|| most.max(column.title.len()));
        }
        let mut widths = Widths(widths);
        let Some(screen) = width else { return widths };
        if let Some(note) = widths.0[NOTE] {
            let cut = |widths: &Widths| {
                let too_much = widths.total().saturating_sub(screen);
                let note = note.saturating_sub(too_much);
                (note >= NOTE_MIN || too_much == 0).then_some(note)
            };
            // When a slot is filled again is told by a note, and nowhere else.
            if cut(&widths).is_none() {
                widths.0[MEMORY] = None;
            }
            widths.0[NOTE] = cut(&widths);
        }
        for turn in 1..=4 {
            let leaves = COLUMNS.iter().position(|column| column.leaves == Some(turn));
            if widths.total() > screen
                && let Some(index) = leaves
            {
                widths.0[index] = None;
            }
        }
        widths
    }

    fn total(&self) -> usize {
        self.0.iter().flatten().map(|width| width + GAP.len()).sum()
    }

    fn titles(&self, look: Look) -> String {
        let titles = COLUMNS.each_ref().map(|column| column.title.to_owned());
        let row = Row { cells: titles, hue: Hue::Plain };
        look.paint(Hue::Dim, &self.row(&row, look))
    }

    fn row(&self, row: &Row, look: Look) -> String {
        let mut line = String::new();
        let mut used = 0;
        for (index, (width, column)) in self.0.iter().zip(&COLUMNS).enumerate() {
            let Some(width) = *width else { continue };
            let left = look.width.map(|screen| screen.saturating_sub(used + GAP.len()));
            let room = left.map_or(width, |left| width.min(left));
            if room == 0 {
                break;
            }
            let width = width.min(room);
            let cell = cut(&row.cells[index], room);
            let blank = " ".repeat(width.saturating_sub(columns(&cell)));
            let cell = if index == STATE { look.paint(row.hue, &cell) } else { cell };
            line.push_str(GAP);
            match column.side {
                Side::Left => line.extend([cell, blank]),
                Side::Right => line.extend([blank, cell]),
            }
            used += GAP.len() + width;
        }
        line.trim_end().to_owned()
    }
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::samples::{COLOURED, NARROW, PIPE, TERMINAL};
    use super::super::{columns, samples};
    use super::*;
    use insta::assert_snapshot;
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    fn shown(status: &Status, look: Look) -> String {
        super::status(status, Sockets::Together, look)
    }

    #[test]
    fn the_sockets_of_the_kernel_are_shown_where_they_are_asked_for() {
        let one = Status { daemon: samples::daemon(), services: vec![samples::stalled()] };
        assert_snapshot!(super::status(&one, Sockets::Each, TERMINAL));
        let less = shown(&one, TERMINAL);
        assert!(!less.contains("MEMBER") && less.contains("takes none of 12 queued"), "{less}");
    }

    #[test]
    fn each_state_of_a_service() {
        let mut text = String::new();
        for (name, service) in samples::services() {
            let one = Status { daemon: samples::daemon(), services: vec![service] };
            text.extend([format!("=== {name}\n{}\n", shown(&one, TERMINAL))]);
        }
        assert_snapshot!(text);
    }

    #[test]
    fn several_services_align_with_each_other() {
        assert_snapshot!(shown(&samples::shop(), TERMINAL));
    }

    #[test]
    fn what_waits_stands_beside_its_socket_and_is_bad_when_there_is_much() {
        let tcp = |queues: &[(u32, u32)]| {
            let mut socket = samples::socket(Some("http"), "[::]:8000");
            let one = socket.members[0].clone();
            let member = |&(queued, queue_max)| Member {
                queued: Some(queued),
                queue_max: Some(queue_max),
                ..one.clone()
            };
            socket.members = queues.iter().map(member).collect();
            socket
        };
        let mut udp = samples::socket(None, "udp:[::]:53");
        let bytes = (Some(150_000), Some(212_992));
        let one = udp.members[0].clone();
        let (queued_bytes, queue_max_bytes) = bytes;
        let waiting = Member { queued: None, queue_max: None, ..one.clone() };
        udp.members[0] = Member { queued_bytes, queue_max_bytes, ..waiting.clone() };
        for (one, text, bad) in [
            (tcp(&[(0, 128)]), "http=[::]:8000", false),
            (tcp(&[]), "http=[::]:8000", false),
            (tcp(&[(3, 128)]), "http=[::]:8000 (3 of 128 queued)", false),
            (tcp(&[(102, 128), (0, 128)]), "http=[::]:8000 (102 of 256 queued)", false),
            (tcp(&[(0, 128), (103, 128)]), "http=[::]:8000 (103 of 256 queued)", true),
            (udp.clone(), "udp:[::]:53 (146 KiB of 208 KiB queued)", false),
        ] {
            assert_eq!((socket(&one).as_str(), is_nearly_full(&one)), (text, bad));
        }
        udp.members[0] = Member { queued_bytes: Some(1000), ..waiting };
        assert_eq!(socket(&udp), "udp:[::]:53 (0 KiB queued)");
    }

    #[test]
    fn colours_stand_beside_words() {
        assert_snapshot!(shown(&samples::shop(), COLOURED).replace('\x1b', "␛"));
    }

    #[test]
    fn a_pipe_gets_whole_notes_and_a_narrow_terminal_none() {
        assert_snapshot!(format!(
            "{}\n=== 48 columns\n{}",
            shown(&samples::shop(), PIPE),
            shown(&samples::shop(), NARROW)
        ));
    }

    #[test]
    fn two_hundred_workers_are_bounded_by_the_height_of_a_screen() {
        let text = shown(&samples::crowd(), TERMINAL);
        assert_eq!(text.lines().count(), 205);
        assert_snapshot!(bounded(&text, 12, TERMINAL).join("\n"));
    }

    #[test]
    fn no_line_is_wider_than_the_screen() {
        for width in 1..140 {
            let look = Look { width: Some(width), ..TERMINAL };
            for sample in [samples::shop(), samples::crowd()] {
                for line in super::status(&sample, Sockets::Each, look).lines() {
                    assert!(columns(line) <= width, "{width}: {line}");
                }
            }
        }
    }

    proptest! {
        /// States that are not known here are shown, and fields passed over.
        #[test]
        fn what_a_later_version_says_is_shown_in_its_words(
            states in prop::array::uniform2("[a-z-]{1,12}|.{0,6}"),
            field in "z[a-z_]{0,8}",
        ) {
            let [service, worker] = &states;
            let mut told = serde_json::to_value(samples::shop()).expect("JSON");
            add_to_all(&mut told, &field);
            told["services"][0]["state"] = service.as_str().into();
            told["services"][0]["workers"][0]["state"] = worker.as_str().into();
            let read: Status = serde_json::from_value(told.clone()).expect("a status");
            let shown = shown(&read, PIPE);
            prop_assert!(shown.contains(&format!(": {}", plain(service))), "{}", shown);
            prop_assert!(shown.contains(&plain(worker)), "{}", shown);
            let again = serde_json::to_value(&read).expect("JSON");
            prop_assert_eq!(&again["services"][0]["state"], &told["services"][0]["state"]);
        }
    }

    fn add_to_all(value: &mut serde_json::Value, field: &str) {
        match value {
            serde_json::Value::Object(fields) => {
                for value in fields.values_mut() {
                    add_to_all(value, field);
                }
                fields.insert(field.to_owned(), serde_json::json!({"x": [1]}));
            }
            serde_json::Value::Array(values) => {
                for value in values {
                    add_to_all(value, field);
                }
            }
            _ => {}
        }
    }

    #[test]
    fn what_came_from_outside_moves_no_cursor() {
        let mut evil = samples::shop();
        let text = "\x1b[2J\r\n".to_owned();
        evil.daemon.name.clone_from(&text);
        evil.daemon.file = Some(text.clone());
        for service in &mut evil.services {
            service.name.clone_from(&text);
            service.last_abort = Some(text.clone());
            service.waits_for = vec![text.clone()];
            service.state = ServiceState::Other(text.clone());
            for worker in &mut service.workers {
                worker.said = Some(text.clone());
                worker.state = WorkerState::Other(text.clone());
            }
            for socket in &mut service.sockets {
                socket.address.clone_from(&text);
            }
        }
        assert!(!shown(&evil, PIPE).contains(['\x1b', '\r']));
    }
}
