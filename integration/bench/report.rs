//! What was measured, for people.

use crate::{
    measure::{
        Comparison, Unit,
        balance::Row,
        drain::{Learning, Waiting},
        growth::Crowd,
    },
    stats::Spread,
    table::Table,
};

/// A line for each thing that was compared.
pub fn side_by_side(comparisons: &[Comparison]) -> Table {
    let mut table =
        Table::new(&["", "workers", "shepherd", "other", "", "shepherd : other (least to most)"]);
    for comparison in comparisons {
        let Comparison { what, worker, peer, unit, ours, theirs } = comparison;
        let ratio = match unit {
            // There may be none of them, and then there is no ratio.
            Unit::Count => None,
            Unit::PerSecond | Unit::Seconds | Unit::KiB | Unit::Percent => {
                Spread::of_ratios(ours, theirs)
            }
        };
        table.add(vec![
            what.clone(),
            (*worker).to_owned(),
            median(*unit, ours),
            (*peer).to_owned(),
            median(*unit, theirs),
            ratio.map(show_ratio).unwrap_or_default(),
        ]);
    }
    table
}

/// A line for each number of workers.
pub fn growth(crowds: &[Crowd]) -> Table {
    let mut table = Table::new(&[
        "workers",
        "start",
        "CPU for each",
        "reload",
        "CPU for each",
        "failed requests",
        "stop",
        "memory (PSS)",
        "wakeups when idle",
    ]);
    for crowd in crowds {
        table.add(vec![
            crowd.workers.to_string(),
            spread(Unit::Seconds, &crowd.start),
            spread(Unit::Seconds, &crowd.start_cpu),
            spread(Unit::Seconds, &crowd.reload),
            spread(Unit::Seconds, &crowd.reload_cpu),
            crowd.requests_failed.to_string(),
            spread(Unit::Seconds, &crowd.stop),
            median(Unit::KiB, &crowd.memory),
            median(Unit::Count, &crowd.wakeups),
        ]);
    }
    table
}

/// A line for each kind of request and way of balancing.
pub fn balance(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "requests",
        "balance",
        "least busy of 4",
        "busiest",
        "p50",
        "p99",
        "p99 : shared (least to most)",
        "failed",
    ]);
    for row in rows {
        let ratio = Spread::of_ratios(&row.p99, &row.shared_p99);
        table.add(vec![
            row.handlers.to_owned(),
            row.balance.to_owned(),
            spread(Unit::Percent, &row.least),
            spread(Unit::Percent, &row.most),
            spread(Unit::Seconds, &row.p50),
            spread(Unit::Seconds, &row.p99),
            ratio.map(show_ratio).unwrap_or_default(),
            row.failed.to_string(),
        ]);
    }
    table
}

/// A line for each kind of worker.
pub fn learning(kinds: &[Learning]) -> Table {
    let mut table = Table::new(&[
        "4 workers",
        "start, all ready",
        "first reload, old ones gone",
        "third",
        "third less start",
        "failed requests",
    ]);
    for kind in kinds {
        table.add(vec![
            kind.worker.to_owned(),
            spread(Unit::Seconds, &kind.start),
            spread(Unit::Seconds, &kind.unknown),
            spread(Unit::Seconds, &kind.learned),
            spread(Unit::Seconds, &kind.beyond),
            kind.failed.to_string(),
        ]);
    }
    table
}

/// A line for each number of idle connections.
pub fn waiting(crowds: &[Waiting]) -> Table {
    let mut table =
        Table::new(&["idle connections", "reload, old ones gone", "CPU of shepherd", "wakeups"]);
    for crowd in crowds {
        table.add(vec![
            crowd.connections.to_string(),
            spread(Unit::Seconds, &crowd.took),
            spread(Unit::Seconds, &crowd.cpu),
            spread(Unit::Count, &crowd.wakeups),
        ]);
    }
    table
}

fn show_ratio(Spread { median, least, most }: Spread) -> String {
    let digits = |value: f64| match value {
        0.0..0.1 => format!("{value:.3}"),
        _ => format!("{value:.2}"),
    };
    if least.total_cmp(&most).is_eq() {
        digits(median)
    } else {
        format!("{} ({} to {})", digits(median), digits(least), digits(most))
    }
}

fn median(unit: Unit, values: &[f64]) -> String {
    Spread::of(values).map(|spread| unit.show(spread.median)).unwrap_or_default()
}

fn spread(unit: Unit, values: &[f64]) -> String {
    let Some(Spread { median, least, most }) = Spread::of(values) else {
        return String::new();
    };
    if values.len() == 1 {
        unit.show(median)
    } else {
        format!("{} ({} to {})", unit.show(median), unit.show(least), unit.show(most))
    }
}
