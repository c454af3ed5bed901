//! What clients see while workers are replaced again and again: each way of balancing, each kind of
//! manners that a worker may have, each kind of client. `integration/matrix/run` runs it where it has
//! a network of its own. It prints a table in Markdown, and fails if a cell lost what must not be
//! lost, or if the one that must lose something did not: then it would have looked at nothing.

#![allow(unreachable_pub, reason = "a test binary has nobody who could reach it")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the table is for people")]
#![expect(clippy::disallowed_methods, reason = "it runs real processes, and says how long it took")]

mod cell;
mod delay;
#[path = "../harness/mod.rs"]
mod harness;
#[path = "../site.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod site;
#[path = "../bench/table.rs"]
mod table;

use std::{
    collections::BTreeMap,
    panic,
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
};

use clap::Parser;

use cell::{Balance, Cell, Clients, Manners, Outcome, Way};
use delay::Far;
use table::Table;

/// Replaces workers under load, and counts what clients lose.
#[derive(Parser)]
struct Options {
    /// How often the workers of each cell are replaced.
    #[arg(long, default_value_t = 20)]
    reloads: u32,
    /// Only cells with this in their name, such as `shared-dies-new`; one with any of several.
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// How many cells run at the same time: most wait most of the time.
    #[arg(long, default_value_t = 6)]
    at_once: usize,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let wanted = |cell: &Cell| {
        let name = cell.to_string();
        options.only.is_empty() || options.only.iter().any(|pattern| name.contains(pattern))
    };
    let mut cells: Vec<Cell> = cell::all().into_iter().filter(wanted).collect();
    let far = match cells.iter().any(|cell| cell.way == Way::Far).then(Far::new) {
        Some(Err(why)) => {
            cells.retain(|cell| cell.way == Way::Near);
            eprintln!("NOT RUN: what is far away (20 ms each way), since {why}");
            None
        }
        Some(Ok(far)) => Some(far),
        None => None,
    };
    if cells.is_empty() {
        eprintln!("no cell is left to run");
        return ExitCode::FAILURE;
    }
    let outcomes = run(&cells, &options, far.as_ref());
    println!("{}", overview(&cells, &outcomes, options.reloads));
    let wrong = judge(&cells, &outcomes, options.reloads);
    for line in &wrong {
        println!("WRONG: {line}");
    }
    if wrong.is_empty() {
        println!("Everything that was promised held.");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What became of each cell; of one that could not be run to its end, nothing.
type Outcomes = BTreeMap<Cell, Option<Outcome>>;

fn run(cells: &[Cell], options: &Options, far: Option<&Far>) -> Outcomes {
    // The longest first, so that none of them is alone in the end.
    let mut queue: Vec<Cell> = cells.to_vec();
    queue.sort_by_key(|cell| cell.clients.weight());
    let queue = Mutex::new(queue);
    let outcomes = Mutex::new(Outcomes::new());
    thread::scope(|scope| {
        for _ in 0..options.at_once.max(1) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    let Some(cell) = next else { return };
                    // The message of a panic was printed by its hook.
                    let outcome = panic::catch_unwind(|| cell.run(options.reloads, far)).ok();
                    match &outcome {
                        Some(outcome) => eprintln!("{cell}: {outcome}"),
                        None => eprintln!("{cell}: FAILED"),
                    }
                    let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                    outcomes.insert(cell, outcome);
                }
            });
        }
    });
    outcomes.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// A line for each way, balance and manners, a column for each kind of client: answered / failed.
fn overview(cells: &[Cell], outcomes: &Outcomes, reloads: u32) -> Table {
    let mut head = vec!["", "balance", "on SIGTERM the worker"];
    head.extend(Clients::ALL.map(Clients::title));
    let mut table = Table::new(&head);
    let mut lines: Vec<(Way, Balance, Manners)> =
        cells.iter().map(|cell| (cell.way, cell.balance, cell.manners)).collect();
    lines.sort_unstable();
    lines.dedup();
    for (way, balance, manners) in lines {
        let mut row = vec![
            format!("{reloads} reloads{}", way.title()),
            balance.to_string(),
            manners.title().to_owned(),
        ];
        row.extend(Clients::ALL.map(|clients| {
            match outcomes.get(&Cell { way, balance, manners, clients }) {
                Some(Some(Outcome { report, .. })) => {
                    format!("{} / {}", report.ok_total(), report.failures_total())
                }
                Some(None) => "FAILED".to_owned(),
                None => String::new(),
            }
        }));
        table.add(row);
    }
    table
}

/// What should not have been.
fn judge(cells: &[Cell], outcomes: &Outcomes, reloads: u32) -> Vec<String> {
    let mut wrong = Vec::new();
    for cell in cells {
        let Some(Some(Outcome { report, log, .. })) = outcomes.get(cell) else {
            wrong.push(format!("{cell} did not come to its end"));
            continue;
        };
        let failed = report.failures_total();
        if failed > 0 && cell.loses_nothing() {
            wrong.push(format!("{cell} lost {failed}, which it must not\n{report}\n{log}\n"));
        }
        if failed == 0 && cell.must_lose(reloads) {
            wrong.push(format!("{cell} lost nothing, so nothing was looked at\n{report}"));
        }
        if report.ok_total() == 0 {
            wrong.push(format!("{cell} was answered nothing\n{report}"));
        }
    }
    wrong
}
