//! The kernel's sockets behind those of a service, in a table for `shepherd status --sockets`.

use crate::control::wire::{Member, MemberState, Service, Socket};

use super::{Hue, Look, columns, cut, memory, plain};

/// The columns, in the order in which they stand.
const TITLES: [&str; 7] = ["SOCKET", "MEMBER", "GEN", "SLOT", "STATE", "SHARE", "QUEUED"];

/// Numbers stand at the right.
const AT_THE_LEFT: [usize; 2] = [0, STATE];

const STATE: usize = 4;

/// What stands in front of a row, and between two columns.
const GAP: &str = "  ";

struct Row {
    cells: [String; TITLES.len()],
    hue: Hue,
}

/// The lines, with a title; none where there is no socket.
pub(super) fn lines(service: &Service, look: Look) -> Vec<String> {
    let rows: Vec<Row> = service.sockets.iter().flat_map(rows).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    let titles = TITLES.map(str::to_owned);
    let mut widths = TITLES.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(&row.cells) {
            *width = columns(cell).max(*width);
        }
    }
    let title = look.paint(Hue::Dim, &look.fit(&line(&titles, &widths)));
    let row = |row: &Row| {
        let whole = line(&row.cells, &widths);
        let fits = look.width.is_none_or(|width| columns(&whole) <= width);
        if !fits {
            return look.fit(&whole);
        }
        // What is painted has columns that nobody sees, so it is painted last.
        let before = &row.cells[..STATE];
        let at = line_of(before, &widths).len() + GAP.len();
        let (front, rest) = whole.split_at(at.min(whole.len()));
        let (word, rest) = rest.split_at(row.cells[STATE].len().min(rest.len()));
        format!("{front}{}{rest}", look.paint(row.hue, word))
    };
    std::iter::once(title).chain(rows.iter().map(row)).collect()
}

fn rows(socket: &Socket) -> Vec<Row> {
    let name = socket.name.as_ref().map(|name| format!("{name}=")).unwrap_or_default();
    let place = plain(&format!("{name}{}", socket.address));
    let all: u64 = socket.members.iter().filter_map(|it| it.weight).map(u64::from).sum();
    let number = |number: Option<String>| number.unwrap_or_else(|| "-".to_owned());
    let row = |member: &Member| {
        let (state, hue) = state(member.state.as_ref());
        let cells = [
            cut(&place, PLACE_MAX),
            member.member.to_string(),
            number(member.generation.map(|it| it.to_string())),
            number(member.slot.map(|it| it.to_string())),
            state,
            number(member.weight.map(|weight| share(weight.into(), all))),
            number(queued(member)),
        ];
        Row { cells, hue }
    };
    socket.members.iter().map(row).collect()
}

/// A path may be longer than a screen is wide.
const PLACE_MAX: usize = 40;

fn state(state: Option<&MemberState>) -> (String, Hue) {
    let (word, hue) = match state {
        None => ("-", Hue::Plain),
        Some(MemberState::Serving) => ("serving", Hue::Good),
        Some(MemberState::Parked) => ("parked", Hue::Moving),
        Some(MemberState::Stalled) => ("stalled", Hue::Bad),
        Some(MemberState::Draining) => ("draining", Hue::Moving),
        Some(MemberState::Spare) => ("spare", Hue::Dim),
        Some(MemberState::Closing) => ("closing", Hue::Dim),
        Some(MemberState::Down) => ("down", Hue::Bad),
        Some(MemberState::Other(word)) => return (plain(word), Hue::Plain),
    };
    (word.to_owned(), hue)
}

/// A weight's part of all in percent; what is not nothing is not shown as nothing.
fn share(weight: u64, all: u64) -> String {
    let percent = (weight * 100 + all / 2).checked_div(all).unwrap_or(0);
    if percent == 0 && weight > 0 { "<1%".to_owned() } else { format!("{percent}%") }
}

fn queued(member: &Member) -> Option<String> {
    let bytes = member.queued_bytes.map(|bytes| memory(bytes.into()));
    member.queued.map(|count| count.to_string()).or(bytes)
}

fn line(cells: &[String], widths: &[usize]) -> String {
    line_of(cells, widths).trim_end().to_owned()
}

fn line_of(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let blank = " ".repeat(width.saturating_sub(columns(cell)));
        line.push_str(GAP);
        if AT_THE_LEFT.contains(&index) {
            line.extend([cell.as_str(), &blank]);
        } else {
            line.extend([blank.as_str(), cell]);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::super::samples::{COLOURED, NARROW, PIPE, TERMINAL};
    use super::*;
    use insta::assert_snapshot;

    #[test]
    fn members_of_a_reload_with_a_canary_and_of_slots_of_which_one_is_stalled() {
        let text = |look| {
            let services = [samples::canary(), samples::stalled()];
            let lines = services.iter().flat_map(|service| lines(service, look));
            lines.collect::<Vec<_>>().join("\n")
        };
        let coloured = text(COLOURED).replace('\x1b', "␛");
        assert_snapshot!(format!("{}\n\n{}\n\n{coloured}", text(TERMINAL), text(NARROW)));
        assert_eq!(text(PIPE), text(TERMINAL));
    }

    #[test]
    fn a_share_is_shown_in_whole_percents() {
        for (weight, all, shown) in [
            (0, 0, "0%"),
            (0, 3, "0%"),
            (1, 3, "33%"),
            (2, 3, "67%"),
            (1, 900, "<1%"),
            (9, 9, "100%"),
        ] {
            assert_eq!(share(weight, all), shown);
        }
    }

    #[test]
    fn a_service_without_a_socket_has_no_table() {
        let mut service = samples::service("jobs");
        service.sockets.clear();
        assert_eq!(lines(&service, TERMINAL), Vec::<String>::new());
    }
}
