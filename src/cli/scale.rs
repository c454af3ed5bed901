//! `shepherd scale`: more workers, or fewer.

use std::str::FromStr;

use crate::config::values::{self, ValueError};
use crate::control::wire;

use super::args::Scale;
use super::exit_code;
use super::failure::Failure;
use super::find::find;
use super::render::outcome;
use super::{out, status, waiting};

/// `[SERVICE=]N|+N|-N`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    service: Option<String>,
    to: wire::Scale,
}

pub(super) fn main(args: &Scale) -> Result<(), Failure> {
    let client = find(&args.target)?;
    let Change { service, to } = args.change.clone();
    let service = match service {
        Some(service) => service,
        None => the_only_one(&status::ask(&client, &[])?, to)?,
    };
    let path = format!("/v1/services/{service}/scale");
    let done = waiting::ask(&client, path, to, "the change")?;
    out::print(&outcome::scaled(&done)).map(|_| ())
}

fn the_only_one(status: &wire::Status, to: wire::Scale) -> Result<String, Failure> {
    match &status.services[..] {
        [only] => Ok(only.name.clone()),
        services => {
            let text = match services.first() {
                Some(first) => format!(
                    "cannot tell which service is meant; there are {}: write such as `shepherd scale {}={}`",
                    status::listed(status),
                    first.name,
                    shown(to)
                ),
                None => "there is no service".to_owned(),
            };
            Err(Failure::new(exit_code::USAGE, text))
        }
    }
}

fn shown(to: wire::Scale) -> String {
    match to {
        wire::Scale::To(count) => count.to_string(),
        wire::Scale::By(count) => format!("{count:+}"),
    }
}

impl FromStr for Change {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Change, ValueError> {
        let (service, count) = match text.split_once('=') {
            Some((name, count)) => (Some(values::service_name(name)?), count),
            None => (None, text),
        };
        let is_change = count.starts_with(['+', '-']);
        let to = if is_change {
            count.parse().ok().filter(|&by| by != 0).map(wire::Scale::By)
        } else {
            count.parse().ok().map(wire::Scale::To)
        };
        let wrong = || {
            ValueError::new(format!(
                "`{count}` is no number of workers; write `4`, or `+1` or `-1` for a change"
            ))
        };
        Ok(Change { service, to: to.ok_or_else(wrong)? })
    }
}

#[cfg(test)]
mod tests {
    use super::super::render::samples;
    use super::*;

    #[test]
    fn a_number_or_a_change_of_one_service_or_the_only_one() {
        use wire::Scale::{By, To};
        for (text, service, to) in [
            ("4", None, To(4)),
            ("+2", None, By(2)),
            ("-1", None, By(-1)),
            ("web=4", Some("web"), To(4)),
            ("web=-1", Some("web"), By(-1)),
        ] {
            let service = service.map(ToOwned::to_owned);
            assert_eq!(text.parse(), Ok(Change { service, to }), "{text}");
        }
        for text in ["", "x", "web", "web=", "=4", "+0", "++1", "4.5", "99999999999", "a b=1"] {
            assert!(text.parse::<Change>().is_err(), "{text}");
        }
    }

    #[test]
    fn among_several_services_one_has_to_be_named() {
        let failure = the_only_one(&samples::shop(), wire::Scale::By(-1)).expect_err("two");
        assert_eq!(failure.code, exit_code::USAGE);
        assert_eq!(
            failure.text,
            "cannot tell which service is meant; there are `web`, `background-jobs`: \
             write such as `shepherd scale web=-1`"
        );
    }
}
