//! `shepherd events`: a line each, as the log has them, with the number in front.

use crate::control::wire::{Event, Level};

use super::{Colour, Hue, Look, plain};

/// The event on a line, without its end.
pub(in crate::cli) fn event(event: &Event, look: Look) -> String {
    let (word, hue) = match event.level {
        Level::Info => ("INFO ", Hue::Good),
        Level::Warning => ("WARN ", Hue::Moving),
        Level::Error => ("ERROR", Hue::Bad),
    };
    let time = match look.width {
        Some(_) => format!("{}Z", plain(of_day(&event.time)).trim_end_matches('Z')),
        None => plain(&event.time),
    };
    let (time, word) = (look.paint(Hue::Dim, &time), look.paint(hue, word));
    format!("{:>5} {time} {word} {}", event.number, plain(&event.message))
}

/// `12:00:00.123` of `2026-01-31T12:00:00.123456Z`: people who look at a terminal know the day.
fn of_day(time: &str) -> &str {
    let time = time.split_once('T').map_or(time, |(_, of_day)| of_day);
    time.get(.."12:00:00.123".len()).unwrap_or(time)
}

/// The event for whoever waits for the end of something: what happened, and how grave it is where it
/// is grave.
pub(in crate::cli) fn news(event: &Event, look: Look) -> String {
    let message = plain(&event.message);
    match (event.level, look.colour) {
        (Level::Info, _) | (Level::Warning | Level::Error, Colour::None) => message,
        (Level::Warning, Colour::Wanted) => look.paint(Hue::Moving, &message),
        (Level::Error, Colour::Wanted) => look.paint(Hue::Bad, &message),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use insta::assert_snapshot;

    #[test]
    fn events_of_each_level() {
        let mut text = String::new();
        for (level, look) in [
            (Level::Info, samples::TERMINAL),
            (Level::Warning, samples::PIPE),
            (Level::Error, samples::COLOURED),
        ] {
            let message = "worker 3 (web.0) is\r\nready".to_owned();
            let sample = Event { message, level, ..samples::event("worker-ready") };
            text.extend([format!("{}\n", event(&sample, look))]);
        }
        assert_snapshot!(text.replace('\x1b', "␛"));
    }
}
