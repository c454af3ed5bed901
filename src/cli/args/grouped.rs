//! The help text of the whole: verbs in groups, which the parser's own list does not have.

use std::fmt::Write as _;

use clap::Command;
use clap::builder::StyledStr;

/// What belongs together, in the order in which it is shown. A verb that is in no group is in the
/// last.
const GROUPS: &[(&str, &[&str])] = &[
    ("Keep services running", &["run"]),
    (
        "Talk to a running daemon",
        &[
            "status", "reload", "rollback", "scale", "restart", "stop", "start", "kill", "send",
            "events",
        ],
    ),
    ("Write a configuration", &["check", "plan", "schema"]),
    ("For scripts and packages", &["exec", "completions", "man"]),
];

/// The command with its help text in groups.
pub(super) fn grouped(command: Command) -> Command {
    let template = template(&command).unwrap_or_default();
    command.help_template(template)
}

fn template(command: &Command) -> Result<StyledStr, std::fmt::Error> {
    let styles = command.get_styles();
    let (header, literal) = (styles.get_header(), styles.get_literal());
    let verbs: Vec<(&str, String)> = command
        .get_subcommands()
        .map(|verb| {
            let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
            (verb.get_name(), shortened(&about).to_owned())
        })
        .collect();
    let width = verbs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let last = GROUPS.len() - 1;
    let group_of = |name| GROUPS.iter().position(|(_, names)| names.contains(&name));
    let mut template = StyledStr::new();
    write!(template, "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n")?;
    for (index, (title, names)) in GROUPS.iter().enumerate() {
        let mut inside: Vec<_> =
            verbs.iter().filter(|(name, _)| group_of(*name).unwrap_or(last) == index).collect();
        inside.sort_by_key(|(name, _)| names.iter().position(|it| it == name));
        if !inside.is_empty() {
            write!(template, "\n{header}{title}:{header:#}\n")?;
        }
        for (name, about) in inside {
            writeln!(template, "  {literal}{name:width$}{literal:#}  {about}")?;
        }
    }
    write!(template, "\n{header}Options:{header:#}\n{{options}}{{after-help}}")?;
    Ok(template)
}

/// The first part of what a verb is about, which fits on a line.
fn shortened(about: &str) -> &str {
    let end = [";", ":", ", such as ", ", by "].iter().filter_map(|sign| about.find(sign)).min();
    about[..end.unwrap_or(about.len())].trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use super::super::Cli;
    use super::*;
    use clap::CommandFactory;
    use insta::assert_snapshot;

    /// As wide as our texts get.
    const WIDTH: usize = 100;

    #[test]
    fn each_verb_is_in_one_group() {
        let command = Cli::command();
        for verb in command.get_subcommands().map(Command::get_name) {
            let groups = GROUPS.iter().filter(|(_, names)| names.contains(&verb)).count();
            assert_eq!(groups, 1, "{verb}");
        }
    }

    #[test]
    fn help_of_the_whole() {
        let mut command = grouped(Cli::command()).term_width(WIDTH);
        let help = command.render_help();
        let widest = help.to_string().lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(80), "{help}");
        assert_snapshot!("help", help);
        assert_snapshot!("help-long", command.render_long_help());
    }

    #[test]
    fn help_of_each_verb() {
        let mut command = Cli::command().term_width(WIDTH);
        // Makes the usage lines say `shepherd run` and not `run`.
        command.build();
        for verb in command.get_subcommands_mut().filter(|verb| verb.get_name() != "help") {
            let name = verb.get_name().to_owned();
            assert_snapshot!(format!("help-{name}"), verb.render_help());
            assert_snapshot!(format!("help-{name}-long"), verb.render_long_help());
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_with_what_could_be() {
        let mut text = String::new();
        for words in [
            &["scale"][..],
            &["scale", "four"],
            &["kill", "web.0"],
            &["reload", "--timeout", "5"],
            &["reload", "a/b"],
            &["rollback", "--queue"],
            &["run", "--canary", "5", "--", "true"],
            &["run", "--canary-for", "5s", "--", "true"],
            &["restart"],
            &["status", "--name", "a", "--control", "b"],
            &["events", "--since", "x"],
            &["reoad"],
        ] {
            let words = ["shepherd"].iter().chain(words);
            let words: Vec<_> = words.map(std::ffi::OsString::from).collect();
            let error = super::super::parse(words.clone()).expect_err("wrong");
            assert_eq!(error.exit_code(), 2);
            let _ = write!(
                text,
                "$ {}\n{}\n",
                words.join(std::ffi::OsStr::new(" ")).display(),
                error.render()
            );
        }
        assert_snapshot!(text);
    }
}
