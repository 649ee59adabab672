//! The report as text.

use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};

use super::{
    choice::{Control, Fault, Mode, When},
    fault_report::{BESIDE, FaultReport},
    report::{Latency, Point, Report},
};

/// Violations that are shown one by one.
const SHOWN: usize = 20;

/// For people.
pub(crate) fn text(report: &Report) -> String {
    let mut parts = vec![heading(report)];
    let medians = report.medians();
    let runs = report.points.iter().map(|point| point.run).max().unwrap_or(1);
    if runs > 1 {
        parts.push(format!("Of {runs} runs each: the one with the median throughput."));
    }
    parts.push(latencies(&medians));
    parts.push(processes(&medians));
    parts.extend(medians.iter().filter_map(|point| Some(fault(point.fault.as_ref()?))));
    for point in report.points.iter().filter(|point| point.first_error.is_some()) {
        let error = point.first_error.as_deref().unwrap_or_default();
        parts.push(format!("With {} in flight, the first failure: {error}", point.in_flight));
    }
    parts.push(check(report));
    parts.join("\n\n") + "\n"
}

fn heading(report: &Report) -> String {
    let load = &report.load;
    let (method, lanes) = match load.mode {
        Mode::Stream => ("ExecuteStream", "stream"),
        Mode::Unary => ("Execute", "connection"),
    };
    let plural = if load.lanes == 1 { "" } else { "s" };
    let names: Vec<&str> = load.branches.iter().map(|kind| kind.name()).collect();
    let answered = match load.answer_at {
        When::Completion => "at completion",
        When::Decision => "at the decision",
    };
    let control = match load.control {
        Control::Escrow => "escrow",
        Control::Locks => "locks",
        Control::Versions => "versions",
    };
    let keys = if load.keys { "with request keys" } else { "without request keys" };
    let mut text = format!(
        "{method} over {} {lanes}{plural}; branches: {}; answered {answered}, {keys}; \
         {control}, {} SKUs, {} accounts, skew {}, aborts {}",
        load.lanes,
        names.join(", "),
        load.items,
        load.accounts,
        load.skew,
        load.aborts
    );
    if !report.start_ups.is_empty() {
        let started = report.start_ups.iter();
        let started: Vec<_> =
            started.map(|it| format!("{} in {:.0} ms", it.process, it.milliseconds)).collect();
        text += &format!("\nStarted: {}", started.join(", "));
    }
    text
}

fn latencies(points: &[&Point]) -> String {
    let mut table = table(&[
        "in flight",
        "committed/s",
        "aborted/s",
        "errors",
        "unknown",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
    ]);
    for point in points {
        let Latency { p50, p90, p99, p99_9, max } = point.latency_us;
        let mut row = vec![
            point.in_flight.to_string(),
            format!("{:.0}", point.committed_per_second),
            format!("{:.0}", point.aborted_per_second),
            point.errors.to_string(),
            point.unknown.to_string(),
        ];
        row.extend([p50, p90, p99, p99_9, max].map(milliseconds));
        table.add_row(row);
    }
    right(table, None)
}

fn processes(points: &[&Point]) -> String {
    let mut table = table(&[
        "in flight",
        "process",
        "syncs/tx",
        "mean batch",
        "checkpoints",
        "CPU µs/tx",
        "memory MiB",
        "growth MiB",
    ]);
    for point in points {
        let in_flight = point.in_flight.to_string();
        let (mut syncs, mut checkpoints, mut cpu) =
            (0.0, 0, point.generator_cpu_us_per_transaction);
        for usage in &point.processes {
            syncs += usage.syncs_per_transaction;
            checkpoints += usage.checkpoints;
            cpu += usage.cpu_us_per_transaction;
            table.add_row([
                in_flight.clone(),
                usage.process.clone(),
                format!("{:.3}", usage.syncs_per_transaction),
                format!("{:.1}", usage.mean_batch),
                usage.checkpoints.to_string(),
                format!("{:.1}", usage.cpu_us_per_transaction),
                mebibytes(usage.memory_bytes as f64),
                mebibytes(usage.memory_growth_bytes as f64),
            ]);
        }
        let own = format!("{:.1}", point.generator_cpu_us_per_transaction);
        table.add_row([&in_flight, "this generator", "", "", "", &own]);
        let (syncs, cpu) = (format!("{syncs:.3}"), format!("{cpu:.1}"));
        table.add_row([&in_flight, "sum", &syncs, "", &checkpoints.to_string(), &cpu]);
    }
    right(table, Some(1))
}

fn check(report: &Report) -> String {
    let check = &report.check;
    let orders = match (check.all_orders, check.orders_checked) {
        (_, 0) => "this run had no orders".into(),
        (true, count) => format!("all {count} orders of this run"),
        (false, count) => format!("a random sample of {count} orders of this run"),
    };
    let unresolved = match check.unresolved {
        0 => String::new(),
        count => format!("; {count} outcomes are unknown, which the check allowed for"),
    };
    let looked = format!(
        "{} transactions committed, warm-ups included; looked at all stock and accounts; {orders}{unresolved}",
        check.committed
    );
    if check.violations.is_empty() {
        return format!("The books are right: {looked}.");
    }
    let mut text = format!("THE BOOKS ARE WRONG: {looked}.");
    for violation in check.violations.iter().take(SHOWN) {
        text += &format!("\n  {violation}");
    }
    if let Some(more) = check.violations.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        text += &format!("\n  and {more} more");
    }
    text
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(header);
    table
}

/// The table, with all columns but one to the right.
fn fault(report: &FaultReport) -> String {
    let FaultReport { fault, before, after, beside } = report;
    let done = match fault {
        Fault::Kill => "killed",
        Fault::Stop => "stopped",
    };
    let rate = after.committed_per_second / before.committed_per_second;
    let p99 = after.p99_us as f64 / before.p99_us as f64;
    format!(
        "Halfway, participant-order was {done}. Orders of stock and money: \
         {:.0} committed/s before and {:.0} after ({rate:.2} times as many), \
         p99 {} ms before and {} ms after ({p99:.2} times as long).\n\
         The coordinator's memory: {} MiB at that moment, {} MiB at the end. \
         Beside them, of {BESIDE} full orders at a time: \
         {} committed, {} aborted, {} errors, {} unknown.",
        before.committed_per_second,
        after.committed_per_second,
        milliseconds(before.p99_us),
        milliseconds(after.p99_us),
        mebibytes(before.coordinator_memory_bytes as f64),
        mebibytes(after.coordinator_memory_bytes as f64),
        beside.committed,
        beside.aborted,
        beside.errors,
        beside.unknown
    )
}

fn right(mut table: Table, left: Option<usize>) -> String {
    for (index, column) in table.column_iter_mut().enumerate() {
        if Some(index) != left {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

fn milliseconds(microseconds: u64) -> String {
    format!("{:.2}", microseconds as f64 / 1e3)
}

fn mebibytes(bytes: f64) -> String {
    format!("{:.1}", bytes / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::text;
    use crate::bench::report::tests::report;

    #[test]
    fn everything_that_was_measured_is_shown() {
        let text = text(&report(&[(8, 100.4), (64, 1000.4)]));
        for part in [
            "ExecuteStream over 1 stream; branches: inventory, payment;",
            "coordinator in 12 ms",
            "1000 ┆",
            "3.00",
            "0.125",
            "20.5",
            "30.2",
            "34.8",
            "64.0",
            "-1.0",
            "the first failure: Unavailable: gone",
            "THE BOOKS ARE WRONG",
            "a random sample of 5 orders",
            "1 outcomes are unknown",
            "order x is still pending",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
