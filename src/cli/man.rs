//! `shepherd man`: the pages of the manual, from the arguments.

use std::fs;
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use roff::{Inline, Roff, bold, roman};

use super::args::{Cli, Man};
use super::file_page;
use super::{exit_code, fail};
use crate::config::text::one_line;

pub(super) fn main(man: &Man) -> ExitCode {
    for (name, page) in pages() {
        let path = man.directory.join(name);
        if let Err(error) = fs::write(&path, page) {
            let path = one_line(&path.to_string_lossy());
            fail(&format!("cannot write `{path}`: {error}; name a directory that is there"));
            return ExitCode::from(exit_code::FAILED);
        }
    }
    ExitCode::from(exit_code::DONE)
}

/// Every page, with the name of its file.
pub(super) fn pages() -> Vec<(String, Vec<u8>)> {
    let mut shepherd = Cli::command().disable_help_subcommand(true);
    // Makes the usage lines say `shepherd run` and not `run`.
    shepherd.build();
    let mut pages = vec![page(&shepherd, "shepherd")];
    for verb in shepherd.get_subcommands() {
        pages.push(page(verb, &format!("shepherd-{}", verb.get_name())));
    }
    pages.push(("shepherd.yaml.5".to_owned(), file_page::page()));
    pages
}

fn page(command: &Command, name: &str) -> (String, Vec<u8>) {
    let man = clap_mangen::Man::new(command.clone().name(name.to_owned()).display_name(name))
        .title(name.to_uppercase())
        .section("1")
        // A date would change from build to build.
        .date("")
        .source(concat!("shepherd ", env!("CARGO_PKG_VERSION")))
        .manual("shepherd");
    let mut page = Vec::new();
    let rendered = man
        .render_title(&mut page)
        .and_then(|()| man.render_name_section(&mut page))
        .and_then(|()| man.render_synopsis_section(&mut page))
        .and_then(|()| man.render_description_section(&mut page))
        .and_then(|()| man.render_options_section(&mut page))
        .and_then(|()| {
            if command.has_subcommands() {
                man.render_subcommands_section(&mut page)
            } else {
                Ok(())
            }
        });
    if rendered.is_err() {
        unreachable!("memory takes all that is written to it");
    }
    let more = command.get_after_long_help().or_else(|| command.get_after_help());
    page.extend(sections(&more.map(ToString::to_string).unwrap_or_default()).render().into_bytes());
    (format!("{name}.1"), page)
}

/// What a help text says at its end, as sections: a line that ends with a colon is the heading of
/// the indented lines after it, which are prose or a list of terms in two columns.
fn sections(text: &str) -> Roff {
    let mut roff = Roff::new();
    for paragraph in text.split("\n\n") {
        let mut lines = paragraph.lines().peekable();
        let mut prose = String::new();
        let mut in_notes = false;
        while let Some(line) = lines.next() {
            let next_is_inside = lines.peek().is_some_and(|next| next.starts_with(' '));
            match Line::of(line, next_is_inside) {
                Line::Heading(heading) => {
                    let short = heading.split([',', '(']).next().unwrap_or(heading).trim();
                    roff.control("SH", [short.to_uppercase().as_str()]);
                    in_notes = true;
                }
                Line::Term(term, meaning) => {
                    end_prose(&mut roff, &mut prose);
                    roff.control("TP", []).text([bold(term)]);
                    prose.push_str(meaning);
                    while let Some(more) = lines.next_if(|more| more.starts_with("    ")) {
                        push(&mut prose, more);
                    }
                    if prose.is_empty() {
                        continue;
                    }
                    roff.text([roman(std::mem::take(&mut prose))]);
                }
                Line::Prose(text) => {
                    if !in_notes {
                        roff.control("SH", ["NOTES"]);
                        in_notes = true;
                    }
                    push(&mut prose, text);
                }
            }
        }
        end_prose(&mut roff, &mut prose);
    }
    roff
}

fn push(prose: &mut String, line: &str) {
    if !prose.is_empty() {
        prose.push(' ');
    }
    prose.push_str(line.trim());
}

fn end_prose(roff: &mut Roff, prose: &mut String) {
    if !prose.is_empty() {
        let text: [Inline; 1] = [roman(std::mem::take(prose))];
        roff.control("PP", []).text(text);
    }
}

/// A line of a help text's end.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Heading(&'a str),
    Term(&'a str, &'a str),
    Prose(&'a str),
}

impl Line<'_> {
    fn of(line: &str, next_is_inside: bool) -> Line<'_> {
        let Some(inside) = line.strip_prefix("  ") else {
            return match line.strip_suffix(':') {
                Some(heading) if next_is_inside => Line::Heading(heading),
                Some(_) | None => Line::Prose(line),
            };
        };
        match inside.split_once("  ") {
            Some((term, meaning)) => Line::Term(term, meaning.trim()),
            None if inside.contains('=') && !inside.ends_with('.') && next_is_inside => {
                Line::Term(inside, "")
            }
            None => Line::Prose(inside),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_help_text_becomes_sections_terms_and_paragraphs() {
        let text = "One.\nTwo.\n\nExit codes:\n  0  done\n  1  failed,\n     or not\n\n\
                    Output:\n  It goes\n  on.";
        let page = sections(text).to_roff();
        let expected = ".SH NOTES\n.PP\nOne. Two.\n.SH \"EXIT CODES\"\n.TP\n\\fB0\\fR\ndone\n.TP\n\
                        \\fB1\\fR\nfailed, or not\n.SH OUTPUT\n.PP\nIt goes on.\n";
        assert_eq!(page, expected);
    }

    #[test]
    fn each_verb_has_a_page_with_a_name_and_options() {
        let pages = pages();
        for verb in Cli::command().get_subcommands() {
            let name = format!("shepherd-{}.1", verb.get_name());
            let page = pages.iter().find(|(page, _)| *page == name);
            let text = page.map(|(_, bytes)| String::from_utf8_lossy(bytes)).expect("a page");
            for section in ["NAME", "SYNOPSIS", "OPTIONS"] {
                assert!(text.contains(&format!(".SH {section}")), "{name} has no {section}");
            }
        }
    }
}
