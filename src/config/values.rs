//! Single values of the command line and the configuration: durations, stop ladders, readiness,
//! numbers of workers. Pure.

use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use super::diagnostic::nearest;
use crate::core::policy::{BeforeStop, Check, ReadyWhen, Signal, StopLadder, StopStep, Surge};
use crate::core::service::WORKERS_MAX;

pub use crate::core::policy::{Algorithm, Balance, KeepAlive, OnFailing};

/// The longest duration that can be asked for.
pub const DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Why a value cannot be read: the cause and the next step, ready to follow the value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct ValueError(pub(super) String);

impl ValueError {
    /// For a value that is read elsewhere.
    #[must_use]
    pub fn new(cause: String) -> ValueError {
        ValueError(cause)
    }
}

/// Reads a duration: a number with `ms`, `s`, `m`, `h` or `d`, several of them one after the other.
///
/// # Errors
///
/// When there is no unit, or it is longer than [`DURATION_MAX`].
pub fn duration(text: &str) -> Result<Duration, ValueError> {
    let wrong = || {
        ValueError(format!(
            "`{text}` is no duration; write a number and a unit, such as `30s`, `500ms` or `1m30s`"
        ))
    };
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|char: char| !char.is_ascii_digit() && char != '.');
        let (number, tail) = rest.split_at(digits.ok_or_else(wrong)?);
        let unit_end = tail.find(|char: char| !char.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let unit = match unit {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" | "min" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            "d" => Duration::from_secs(24 * 3600),
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let part = Duration::try_from_secs_f64(number * unit.as_secs_f64()).map_err(|_| wrong())?;
        total = total.saturating_add(part);
        rest = tail;
    }
    if text.is_empty() {
        return Err(wrong());
    }
    if total > DURATION_MAX {
        return Err(ValueError(format!("`{text}` is longer than 7 days")));
    }
    Ok(total)
}

/// Reads a duration that is not zero.
///
/// # Errors
///
/// As [`duration`], and for zero.
pub fn positive_duration(text: &str) -> Result<Duration, ValueError> {
    match duration(text)? {
        Duration::ZERO => {
            Err(ValueError(format!("`{text}` leaves no time at all; write e.g. `30s`")))
        }
        duration => Ok(duration),
    }
}

impl Balance {
    const ALL: [Balance; 6] = [
        Balance::Generation,
        Balance::Slots,
        Balance::Shared,
        Balance::Dispatch(Algorithm::RoundRobin),
        Balance::Dispatch(Algorithm::LeastConnections),
        Balance::Dispatch(Algorithm::Sticky),
    ];

    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Balance::Generation => "generation",
            Balance::Slots => "slots",
            Balance::Shared => "shared",
            Balance::Dispatch(Algorithm::RoundRobin) => "dispatch:round-robin",
            Balance::Dispatch(Algorithm::LeastConnections) => "dispatch:least-connections",
            Balance::Dispatch(Algorithm::Sticky) => "dispatch:sticky",
        }
    }
}

/// How a worker gets its sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Handoff {
    /// As descriptors, and over a channel beside them where the command runs Node or Deno.
    #[default]
    Auto,
    /// As descriptors, `LISTEN_FDS`.
    Fds,
    /// Over Node's channel alone.
    Node,
}

impl Handoff {
    const ALL: [Handoff; 3] = [Handoff::Auto, Handoff::Fds, Handoff::Node];

    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Handoff::Auto => "auto",
            Handoff::Fds => "fds",
            Handoff::Node => "node",
        }
    }
}

impl FromStr for Handoff {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Handoff, ValueError> {
        Handoff::ALL.into_iter().find(|handoff| handoff.name() == text).ok_or_else(|| {
            ValueError(format!(
                "`{text}` is no way for a worker to get its sockets; there are `auto`, `fds` and `node`"
            ))
        })
    }
}

impl KeepAlive {
    const ALL: [KeepAlive; 2] = [KeepAlive::CloseIdle, KeepAlive::Leave];

    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            KeepAlive::Leave => "leave",
            KeepAlive::CloseIdle => "close-idle",
        }
    }
}

impl FromStr for KeepAlive {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<KeepAlive, ValueError> {
        KeepAlive::ALL.into_iter().find(|keepalive| keepalive.name() == text).ok_or_else(|| {
            ValueError(format!(
                "`{text}` is nothing to do with kept-alive connections; there are `close-idle` and \
                 `leave`"
            ))
        })
    }
}

/// Short for the first of its kind.
const DISPATCH: &str = "dispatch";

impl FromStr for Balance {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Balance, ValueError> {
        if text == DISPATCH {
            return Ok(Balance::Dispatch(Algorithm::default()));
        }
        Balance::ALL.into_iter().find(|balance| balance.name() == text).ok_or_else(|| {
            let of_dispatch = |name: &'static str| name.split_once(':').map(|(_, word)| word);
            let all = Balance::ALL.map(Balance::name).into_iter();
            let step = if let Some((DISPATCH, word)) = text.split_once(':') {
                match nearest(word, all.filter_map(of_dispatch)) {
                    Some(near) => format!("write `dispatch:{near}`"),
                    None => "after `dispatch:` there are `round-robin`, `least-connections` and \
                             `sticky`"
                        .to_owned(),
                }
            } else {
                let words = all.filter(|name| of_dispatch(name).is_none());
                match nearest(text, words.chain([DISPATCH])) {
                    Some(near) => format!("write `{near}`"),
                    None => "there are `generation`, `slots`, `shared` and `dispatch`".to_owned(),
                }
            };
            ValueError(format!("`{text}` is no way for connections to find a worker; {step}"))
        })
    }
}

impl OnFailing {
    const ALL: [OnFailing; 2] = [OnFailing::Wait, OnFailing::Refuse];

    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            OnFailing::Wait => "wait",
            OnFailing::Refuse => "refuse",
        }
    }
}

impl FromStr for OnFailing {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<OnFailing, ValueError> {
        OnFailing::ALL.into_iter().find(|it| it.name() == text).ok_or_else(|| {
            let step = match nearest(text, OnFailing::ALL.map(OnFailing::name)) {
                Some(near) => format!("write `{near}`"),
                None => "there are `wait` and `refuse`".to_owned(),
            };
            ValueError(format!("`{text}` is nothing that can become of clients; {step}"))
        })
    }
}

/// A share of new connections that is neither none nor all: from 1 to 99 in a hundred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(pub u32);

impl FromStr for Percent {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Percent, ValueError> {
        let number = text.strip_suffix('%').unwrap_or(text);
        match number.parse() {
            Ok(percent @ 1..=99) if number != text => Ok(Percent(percent)),
            Ok(percent @ 1..=99) => {
                Err(ValueError(format!("`{text}` has no unit; write `{percent}%`")))
            }
            Ok(_) | Err(_) => Err(ValueError(format!(
                "`{text}` is no part of new connections; write a whole number from `1%` to `99%`"
            ))),
        }
    }
}

/// Reads how many workers of a new generation may run beside the old ones: `auto`, a number, or a part
/// of a hundred.
///
/// # Errors
///
/// For anything else.
pub fn surge(text: &str) -> Result<Surge, ValueError> {
    let digits = text.strip_suffix('%').unwrap_or(text);
    // A sign is no part of it.
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    match (text, digits.parse()) {
        ("auto", _) => Ok(Surge::Auto),
        (_, Ok(count @ 0..=WORKERS_MAX)) if is_number && digits == text => Ok(Surge::Count(count)),
        (_, Ok(percent @ 0..=100)) if is_number && digits != text => Ok(Surge::Percent(percent)),
        (_, _) => Err(ValueError(format!(
            "`{text}` does not say how many new workers may run beside the old ones; write `auto`, a \
             number up to {WORKERS_MAX}, or a part of the workers from `0%` to `100%`"
        ))),
    }
}

/// The same as [`surge`] reads it.
#[must_use]
pub fn surge_text(surge: Surge) -> String {
    match surge {
        Surge::Auto => "auto".to_owned(),
        Surge::Count(count) => count.to_string(),
        Surge::Percent(percent) => format!("{percent}%"),
    }
}

/// Reads how long workers may finish what they have before the stop signal: `auto`, or a duration.
///
/// # Errors
///
/// For anything else.
pub fn before_stop(text: &str) -> Result<BeforeStop, ValueError> {
    let begins_with_a_number = text.starts_with(|char: char| char.is_ascii_digit());
    match text {
        "auto" => Ok(BeforeStop::Auto),
        _ if begins_with_a_number => duration(text).map(BeforeStop::For),
        _ => Err(ValueError(format!(
            "`{text}` is no time before the stop; write `auto`, or a duration such as `10s`"
        ))),
    }
}

/// The same as [`before_stop`] reads it.
#[must_use]
pub fn before_stop_text(before_stop: BeforeStop) -> String {
    match before_stop {
        BeforeStop::Auto => "auto".to_owned(),
        BeforeStop::For(time) => format!("{}s", time.as_secs_f64()),
    }
}

/// How a worker is asked to stop, before the drain timeout is known: signals with or without a wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopSignals {
    first: (Signal, Option<Duration>),
    then: Vec<(Signal, Option<Duration>)>,
}

impl Default for StopSignals {
    /// SIGTERM alone.
    fn default() -> StopSignals {
        StopSignals { first: (Signal::Term, None), then: Vec::new() }
    }
}

/// The most signals in a ladder.
const STEPS_MAX: usize = 8;

impl FromStr for StopSignals {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<StopSignals, ValueError> {
        let mut steps = Vec::new();
        for step in text.split(',') {
            let (name, wait) = match step.split_once(':') {
                Some((name, wait)) => (name, Some(duration(wait)?)),
                None => (step, None),
            };
            steps.push((signal(name)?, wait));
        }
        if steps.len() > STEPS_MAX {
            return Err(ValueError(format!("`{text}` has more than {STEPS_MAX} signals")));
        }
        let then = steps.split_off(1);
        let first = steps.pop().ok_or_else(|| ValueError("a signal is missing".to_owned()))?;
        Ok(StopSignals { first, then })
    }
}

impl StopSignals {
    /// The ladder, with `drain` after each signal that has no wait of its own.
    #[must_use]
    pub fn ladder(&self, drain: Duration) -> StopLadder {
        let step = |(signal, wait): &(Signal, Option<Duration>)| StopStep {
            signal: *signal,
            wait: wait.unwrap_or(drain),
        };
        StopLadder::new(step(&self.first), self.then.iter().map(step).collect())
    }
}

fn signal(name: &str) -> Result<Signal, ValueError> {
    let upper = name.trim().to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    let known = Signal::ALL.iter().copied().find(|signal| signal.name() == short);
    match known {
        Some(Signal::Kill) => Err(ValueError(
            "`KILL` always comes last and need not be named; `--drain-timeout 0s` makes it come at once".to_owned(),
        )),
        Some(Signal::Cont) => Err(ValueError("`CONT` stops nothing".to_owned())),
        Some(signal) => Ok(signal),
        None => {
            let names: Vec<&str> = Signal::ALL
                .iter()
                .filter(|signal| !matches!(signal, Signal::Kill | Signal::Cont))
                .map(|signal| signal.name())
                .collect();
            Err(ValueError(format!("`{name}` is no signal to stop by; there are {}", names.join(", "))))
        }
    }
}

/// The longest path and command of a check: more than anybody writes, little enough that a request
/// fits into the buffer of a fresh connection at once.
const CHECK_BYTES_MAX: usize = 2048;

/// Reads what counts as ready: `auto`, `notify`, `listen`, `message`, `alive:D`, `tcp`, `http:/PATH`
/// or `exec:COMMAND`.
///
/// # Errors
///
/// For anything else.
pub fn ready_when(text: &str) -> Result<ReadyWhen, ValueError> {
    match text.split_once(':') {
        None if text == "auto" => Ok(ReadyWhen::Auto),
        None if text == "notify" => Ok(ReadyWhen::Notify),
        None if text == "listen" => Ok(ReadyWhen::Listen),
        None if text == "message" => Ok(ReadyWhen::Message),
        None if text == "alive" => {
            Err(ValueError("`alive` needs a duration, such as `alive:2s`".to_owned()))
        }
        Some(("alive", time)) => Ok(ReadyWhen::Alive(duration(time)?)),
        None if text == "tcp" => Ok(ReadyWhen::Check(Check::Tcp)),
        None if text == "http" => {
            Err(ValueError("`http` needs a path, such as `http:/health`".to_owned()))
        }
        Some(("http", path)) => Ok(ReadyWhen::Check(Check::Http(request_path(path)?))),
        None if text == "exec" => {
            Err(ValueError("`exec` needs a command, such as `exec:./check.sh`".to_owned()))
        }
        Some(("exec", command)) => Ok(ReadyWhen::Check(Check::Exec(shell_command(command)?))),
        None | Some(_) => Err(ValueError(format!(
            "`{text}` is no evidence that can be waited for; there are `auto`, `notify`, `listen`, `message`, `alive:D`, `tcp`, `http:/PATH` and `exec:COMMAND`"
        ))),
    }
}

/// Where the workers' stdout and stderr lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logs {
    /// To ours: nothing of it passes through us.
    Inherit,
    /// Through us to ours, each line behind the name of its worker.
    Prefix,
    /// Through us to our stdout, each line as an object of JSON.
    Json,
}

impl FromStr for Logs {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Logs, ValueError> {
        match text {
            "inherit" => Ok(Logs::Inherit),
            "prefix" => Ok(Logs::Prefix),
            "json" => Ok(Logs::Json),
            _ => Err(ValueError(format!(
                "`{text}` is no way for the workers' output; there are `inherit`, `prefix` and `json`"
            ))),
        }
    }
}

/// The target of a request as it stands in the request's first line, see RFC 9112, 3.2.1.
fn request_path(path: &str) -> Result<String, ValueError> {
    if path.starts_with("//") {
        return Err(ValueError(format!(
            "`{path}` is not a path; the first TCP or unix socket is asked, so write `http:/PATH`"
        )));
    }
    let wrong = path.chars().find(|char| !char.is_ascii_graphic() || *char == '#');
    match wrong {
        _ if !path.starts_with('/') => {
            Err(ValueError(format!("`{path}` is not a path; write one that begins with `/`")))
        }
        Some(char) => Err(ValueError(format!(
            "`{path}` has `{}`, which no request may hold; write it as `%` and two digits",
            char.escape_default()
        ))),
        None if path.len() > CHECK_BYTES_MAX => {
            Err(ValueError(format!("the path is longer than {CHECK_BYTES_MAX} bytes")))
        }
        None => Ok(path.to_owned()),
    }
}

fn shell_command(command: &str) -> Result<String, ValueError> {
    if command.trim().is_empty() {
        Err(ValueError("the command is empty; write one, such as `exec:./check.sh`".to_owned()))
    } else if command.contains('\0') {
        Err(ValueError("the command holds a NUL, which no argument may".to_owned()))
    } else if command.len() > CHECK_BYTES_MAX {
        Err(ValueError(format!(
            "the command is longer than {CHECK_BYTES_MAX} bytes; write it into a script"
        )))
    } else {
        Ok(command.to_owned())
    }
}

/// How many workers are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// So many.
    Count(u32),
    /// As many as there are processors for us: the cpuset and the cgroup's quota count.
    Auto,
    /// As many as the machine has processors.
    Max,
}

impl FromStr for Workers {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Workers, ValueError> {
        match text {
            "auto" => Ok(Workers::Auto),
            "max" => Ok(Workers::Max),
            _ => match text.parse() {
                Ok(count @ 1..=WORKERS_MAX) => Ok(Workers::Count(count)),
                Ok(_) => Err(ValueError(format!("`{text}` is not between 1 and {WORKERS_MAX}"))),
                Err(_) => {
                    Err(ValueError(format!("`{text}` is no number; write one, or `auto` or `max`")))
                }
            },
        }
    }
}

/// Checks a service's name: it becomes a directory and the value of a variable.
///
/// # Errors
///
/// When it is empty, too long, or has other characters than letters, digits, `.`, `_` and `-`.
pub fn service_name(text: &str) -> Result<String, ValueError> {
    let allowed = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-');
    let well_begun = text.starts_with(|char: char| char.is_ascii_alphanumeric() || char == '_');
    if well_begun && text.len() <= NAME_MAX && text.chars().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err(ValueError(format!(
            "`{text}` is no name; it has 1 to {NAME_MAX} letters, digits, `.`, `_` or `-`, a letter or digit first"
        )))
    }
}

/// The longest name of a service.
const NAME_MAX: usize = 40;

/// The name of a service that nobody named: that of its program, less what a name may not have.
#[must_use]
pub fn implicit_name(program: &str) -> String {
    let base = program.rsplit('/').next().unwrap_or(program);
    let allowed = |char: &char| char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-');
    let name: String = base.chars().filter(allowed).take(NAME_MAX).collect();
    let name = name.trim_start_matches(['.', '-']);
    if name.is_empty() { "service".to_owned() } else { name.to_owned() }
}

/// Reads `NAME=value` of `--env`. A value is never shown: it may be a secret.
///
/// # Errors
///
/// When there is no `=` or the name is no name for a variable.
pub fn variable(text: &str) -> Result<(String, String), ValueError> {
    match text.split_once('=') {
        Some((name, value)) if super::env_file::is_name(name) => {
            Ok((name.to_owned(), value.to_owned()))
        }
        Some((name, _)) => Err(ValueError(format!("`{name}` is no name for a variable"))),
        None => Err(ValueError(format!("`{text}` has no `=`; write `NAME=value`"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("1.5s", 1500),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "30", "s", "30 s", "-1s", "1x", "1..5s", "8d", "99999999999999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_ladder_gives_the_drain_timeout_to_steps_without_a_wait() {
        let signals: StopSignals = "TERM,sigint:5s".parse().expect("a ladder");
        let ladder = signals.ladder(Duration::from_secs(30));
        let step = |signal, seconds| StopStep { signal, wait: Duration::from_secs(seconds) };
        assert_eq!(ladder.step(0), Some(step(Signal::Term, 30)));
        assert_eq!(ladder.step(1), Some(step(Signal::Int, 5)));
        assert_eq!(ladder.step(2), None);
        for text in [
            "",
            "KILL",
            "CONT",
            "TERM,",
            "TERM:x",
            "SIGNAL",
            "TERM,TERM,TERM,TERM,TERM,TERM,TERM,TERM,TERM",
        ] {
            assert!(text.parse::<StopSignals>().is_err(), "{text}");
        }
    }

    #[test]
    fn balance_is_one_of_some_words_and_a_near_one_is_told() {
        for balance in Balance::ALL {
            assert_eq!(balance.name().parse(), Ok(balance));
        }
        let wrong = |text: &str| text.parse::<Balance>().expect_err("wrong").to_string();
        assert!(wrong("slot").ends_with("; write `slots`"), "{}", wrong("slot"));
        assert!(wrong("Generation").ends_with("; write `generation`"));
        let all = "; there are `generation`, `slots`, `shared` and `dispatch`";
        assert!(wrong("random").ends_with(all) && wrong("").ends_with(all));
        assert_eq!("dispatch".parse(), Ok(Balance::Dispatch(Algorithm::RoundRobin)));
        assert!(wrong("dispatch:stick").ends_with("; write `dispatch:sticky`"));
        let algorithms = "`round-robin`, `least-connections` and `sticky`";
        assert!(wrong("dispatch:xyz").ends_with(algorithms), "{}", wrong("dispatch:xyz"));
    }

    #[test]
    fn the_time_before_the_stop_is_auto_or_a_duration() {
        for (text, expected) in [
            ("auto", BeforeStop::Auto),
            ("0s", BeforeStop::For(Duration::ZERO)),
            ("1m30s", BeforeStop::For(Duration::from_secs(90))),
            ("1.5ms", BeforeStop::For(Duration::from_micros(1500))),
        ] {
            assert_eq!(before_stop(text), Ok(expected));
            assert_eq!(before_stop(&before_stop_text(expected)), Ok(expected), "{text}");
        }
        for text in ["", "0", "never", "Auto", "30 s", "8d", "-1s"] {
            assert!(before_stop(text).is_err(), "{text}");
        }
    }

    #[test]
    fn readiness_and_workers_are_told_from_nonsense() {
        assert_eq!(ready_when("auto"), Ok(ReadyWhen::Auto));
        assert_eq!(ready_when("message"), Ok(ReadyWhen::Message));
        for handoff in Handoff::ALL {
            assert_eq!(handoff.name().parse(), Ok(handoff));
        }
        assert!("adopt".parse::<Handoff>().is_err());
        assert_eq!(ready_when("alive:2s"), Ok(ReadyWhen::Alive(Duration::from_secs(2))));
        assert_eq!("json".parse(), Ok(Logs::Json));
        assert!("JSON".parse::<Logs>().is_err() && "".parse::<Logs>().is_err());
        let check = |check| Ok(ReadyWhen::Check(check));
        assert_eq!(ready_when("tcp"), check(Check::Tcp));
        assert_eq!(ready_when("http:/a?b=c:d"), check(Check::Http("/a?b=c:d".to_owned())));
        assert_eq!(ready_when("exec:a : b"), check(Check::Exec("a : b".to_owned())));
        let long = format!("http:/{}", "x".repeat(CHECK_BYTES_MAX));
        for text in [
            "alive",
            "tcp:1",
            "http",
            "http:",
            "http:x",
            "http:/a b",
            "http:/a#b",
            "http:/\r\n",
            "http:/\u{e4}",
            "http://a/",
            "exec",
            "exec:",
            "exec: ",
            "exec:a\0b",
            "https:/",
            &long,
        ] {
            assert!(ready_when(text).is_err(), "{text:?}");
        }
        assert_eq!("4".parse(), Ok(Workers::Count(4)));
        assert_eq!("max".parse(), Ok(Workers::Max));
        for text in ["0", "-1", "5000", "many", ""] {
            assert!(text.parse::<Workers>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_program_lends_its_name() {
        assert_eq!(implicit_name("/srv/app/bin/server"), "server");
        assert_eq!(implicit_name("./a b$c"), "abc");
        assert_eq!(implicit_name("/"), "service");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let _ = duration(&text);
            let _ = text.parse::<StopSignals>();
            let _ = ready_when(&text);
            let _ = text.parse::<Workers>();
            prop_assert!(service_name(&implicit_name(&text)).is_ok());
        }
    }

    #[test]
    fn a_surge_is_a_number_of_workers_or_a_part_of_them() {
        let read = [
            ("auto", Surge::Auto),
            ("0", Surge::Count(0)),
            ("4096", Surge::Count(4096)),
            ("0%", Surge::Percent(0)),
            ("25%", Surge::Percent(25)),
            ("100%", Surge::Percent(100)),
        ];
        for (text, expected) in read {
            assert_eq!(surge(text), Ok(expected), "{text}");
            assert_eq!(surge_text(expected), text);
        }
        for text in ["", "%", "-1", "+1", "4097", "101%", "2.5", "5 %", "all", "Auto"] {
            assert!(surge(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_part_of_new_connections_is_neither_none_nor_all() {
        for (text, expected) in [("1%", 1), ("5%", 5), ("99%", 99)] {
            assert_eq!(text.parse(), Ok(Percent(expected)));
        }
        for text in ["", "%", "5", "0%", "100%", "-5%", "5.5%", "5 %", "5%%", "five%"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
        let unit = "5".parse::<Percent>().expect_err("no unit").to_string();
        assert_eq!(unit, "`5` has no unit; write `5%`");
    }
}
