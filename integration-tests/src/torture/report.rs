//! Tables at the end.

use std::{collections::BTreeMap, time::Duration};

use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};

use super::environment::Seen;
use crate::workload::tally::Numbers;

/// How long after a round's healing everything was resolved.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resolved {
    /// With the binaries that can lose power.
    pub(super) power: bool,
    pub(super) took: Duration,
}

/// Faults, transactions, times and memory.
pub(super) fn print(
    counts: &BTreeMap<&'static str, usize>,
    numbers: &Numbers,
    resolved: &[Resolved],
    seen: &Seen,
    allowed: Duration,
) {
    let mut faults = table(&["Fault", "Injected"]);
    for (name, count) in counts {
        faults.add_row([(*name).to_owned(), count.to_string()]);
    }
    faults.add_row(["all".to_owned(), counts.values().sum::<usize>().to_string()]);
    println!("\n{faults}\n{}", transactions(numbers));

    let mut small = table(&["Answers that left it open", ""]);
    for (how, count) in &numbers.unknown_as {
        small.add_row([how.clone(), count.to_string()]);
    }
    println!("{small}");
    let mut reasons = table(&["Reason of an abort", ""]);
    for (code, count) in &numbers.abort_reasons {
        reasons.add_row([code.clone(), count.to_string()]);
    }
    println!("{reasons}");

    let mut rest = table(&["", ""]);
    let mut add = |what: &str, value: String| {
        rest.add_row([what.to_owned(), value]);
    };
    add("known outcomes asked for again", numbers.asked_again.to_string());
    add("keys with another body, refused", numbers.other_bodies.to_string());
    add("starts of processes", seen.starts.to_string());
    for (how, count) in &seen.ends {
        add(&format!("ended by itself: {how}"), count.to_string());
    }
    let power = resolved.iter().filter(|it| it.power).count();
    add("rounds, of them with power losses", format!("{}, {power}", resolved.len()));
    let mut times: Vec<_> = resolved.iter().map(|it| it.took.as_secs_f64()).collect();
    times.sort_by(f64::total_cmp);
    if let (Some(longest), Some(median)) = (times.last(), times.get(times.len() / 2)) {
        let text = format!("median {median:.1} s, longest {longest:.1} s, allowed {allowed:?}");
        add("resolved after healing", text);
    }
    for (name, bytes) in &seen.peak_memory {
        add(&format!("most memory of {name}"), format!("{} MiB", bytes >> 20));
    }
    println!("{rest}");
}

fn transactions(numbers: &Numbers) -> Table {
    let header =
        ["Transactions", "Tried", "Committed", "Aborted", "Not told", "Unknown answers", "Retries"];
    let mut table = table(&header);
    let total = numbers.total();
    let kinds = numbers.by_kind.iter().map(|(kind, count)| (kind.name(), count));
    for (name, count) in kinds.chain([("all", &total)]) {
        let numbers = [
            count.tried,
            count.committed,
            count.aborted,
            count.untold,
            count.unknown,
            count.retries,
        ];
        let row = [name.to_owned()].into_iter().chain(numbers.map(|number| number.to_string()));
        table.add_row(row);
    }
    table
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(header);
    for column in 1..header.len() {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
