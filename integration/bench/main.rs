//! Side by side: shepherd, the bare worker, and whoever else keeps workers behind a port and is
//! installed here. It prints tables in Markdown.
//!
//! ```text
//! cargo bench                                 all of it
//! cargo bench -- --quick                      a look at all of it
//! cargo bench -- --only start,reload          parts of it
//! ```

#![allow(unreachable_pub, reason = "a program has nobody who could reach it")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it prints what it measured")]
#![expect(clippy::disallowed_methods, reason = "it measures real time and looks for programs")]

mod arrivals;
mod clock;
mod contender;
mod cost;
#[path = "../harness/mod.rs"]
mod harness;
mod load;
mod measure;
mod probe;
mod report;
mod stats;
mod table;

use clap::{Parser, ValueEnum};

use self::{
    contender::Pair,
    measure::{Comparison, Effort},
};

/// Measures shepherd beside others.
#[derive(Parser)]
struct Options {
    /// Measure these only.
    #[arg(long, value_delimiter = ',', value_name = "WHAT")]
    only: Vec<What>,
    /// Compare with these only, as the table names them.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    with: Vec<String>,
    /// Take few turns.
    #[arg(long)]
    quick: bool,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Requests in a second, and what one costs.
    Request,
    /// From the death of a worker to an answer.
    Respawn,
    /// To the first answer and until all are ready.
    Start,
    /// All workers replaced under load.
    Reload,
    /// Memory and wakeups of an idle supervisor.
    Memory,
    /// What each worker costs shepherd, from a few to a thousand.
    Growth,
    /// How connections find workers, and how long they wait, for each way of balancing.
    Balance,
    /// How long a reload waits for connections to end, and what the waiting costs.
    Drain,
}

/// Lets the two of a pair take turns.
type Measure = fn(&Pair, Effort) -> Vec<Comparison>;

fn main() {
    let options = Options::parse();
    let effort = if options.quick { Effort::Quick } else { Effort::Full };
    let wanted = |what| options.only.is_empty() || options.only.contains(&what);
    let measures: [(What, Measure); 4] = [
        (What::Request, measure::request::measure),
        (What::Respawn, measure::respawn::measure),
        (What::Start, measure::start::measure),
        (What::Reload, measure::reload::measure),
    ];

    let mut pairs = contender::pairs();
    let mut absent = Vec::new();
    let named = |name: &str| options.with.iter().any(|with| with == name);
    pairs.retain(|pair| options.with.is_empty() || named(pair.theirs.name()));
    pairs.retain(|pair| {
        let missing = contender::missing(pair);
        absent.extend(missing.iter().map(|program| (pair.theirs.name(), *program)));
        missing.is_empty()
    });
    let mut comparisons = Vec::new();
    let those = |what| pairs.iter().filter(move |pair| pair.theirs.measures().contains(&what));
    for (what, measure) in measures.into_iter().filter(|&(what, _)| wanted(what)) {
        for pair in those(what) {
            say(what, &format!("{} workers, {}", pair.ours.0.name(), pair.theirs.name()));
            comparisons.extend(measure(pair, effort));
        }
    }
    if wanted(What::Memory) {
        say(What::Memory, "all");
        let pairs: Vec<&Pair> = those(What::Memory).collect();
        comparisons.extend(measure::memory::measure(&pairs, effort));
    }
    if !comparisons.is_empty() {
        println!("{}", report::side_by_side(&comparisons));
    }
    for (name, program) in absent {
        println!("Not measured: {name}; `{}` is not installed (`{}`).", program.name, program.from);
    }
    if wanted(What::Growth) {
        say(What::Growth, "C workers");
        println!("\n{}", report::growth(&measure::growth::measure(effort)));
    }
    if wanted(What::Balance) {
        say(What::Balance, "workers that serve one at a time");
        println!("\n{}", report::balance(&measure::balance::measure(effort)));
    }
    if wanted(What::Drain) {
        say(What::Drain, "manners unknown and learned");
        println!("\n{}", report::learning(&measure::drain::learning(effort)));
        say(What::Drain, "idle connections");
        println!("\n{}", report::waiting(&measure::drain::waiting(effort)));
    }
}

/// Tells what is being measured, since it takes minutes.
fn say(what: What, of: &str) {
    let value = what.to_possible_value();
    eprintln!("{}: {of}", value.as_ref().map_or("", |value| value.get_name()));
}
