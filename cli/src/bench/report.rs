//! The results, for the table and as JSON.

use serde::{Deserialize, Serialize};

use super::{
    args::Args,
    choice::{Control, Mode, When},
    fault_report::FaultReport,
    kind::Kind,
    tally::Tally,
    usage::Usage,
};

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// What the run's names begin with.
    pub(crate) run: String,
    pub(crate) load: LoadReport,
    /// Of services that were started for the run.
    pub(crate) start_ups: Vec<StartUp>,
    pub(crate) points: Vec<Point>,
    pub(crate) check: CheckReport,
}

/// How the load was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LoadReport {
    #[serde(default)]
    pub(crate) control: Control,
    pub(crate) mode: Mode,
    /// Streams or connections.
    pub(crate) lanes: u32,
    pub(crate) threads: u32,
    pub(crate) branches: Vec<Kind>,
    pub(crate) keys: bool,
    pub(crate) answer_at: When,
    pub(crate) skew: f64,
    pub(crate) aborts: f64,
    pub(crate) items: u32,
    pub(crate) accounts: u32,
}

/// How long a service took to start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StartUp {
    pub(crate) process: String,
    pub(crate) milliseconds: f64,
}

/// One measured run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) in_flight: u32,
    /// From 1.
    pub(crate) run: u32,
    pub(crate) seconds: f64,
    /// Answers in these seconds.
    pub(crate) tried: u64,
    pub(crate) committed: u64,
    pub(crate) aborted: u64,
    /// Refused before they began.
    pub(crate) errors: u64,
    /// Not decided when the answer came, or the call failed.
    pub(crate) unknown: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) committed_per_second: f64,
    pub(crate) aborted_per_second: f64,
    /// Of what was committed or aborted.
    pub(crate) latency_us: Latency,
    pub(crate) processes: Vec<Usage>,
    /// This program's own.
    pub(crate) generator_cpu_us_per_transaction: f64,
    pub(crate) fault: Option<FaultReport>,
}

/// Percentiles, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p99_9: u64,
    pub(crate) max: u64,
}

/// What the books said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CheckReport {
    /// Transactions of all runs, warm-ups too.
    pub(crate) committed: u64,
    /// Transactions whose outcome stayed unknown.
    pub(crate) unresolved: u64,
    /// Orders of the run that were looked at.
    pub(crate) orders_checked: u64,
    /// Whether these are all.
    pub(crate) all_orders: bool,
    pub(crate) violations: Vec<String>,
}

impl LoadReport {
    pub(crate) fn new(args: &Args, branches: Vec<Kind>) -> Self {
        let load = &args.load;
        Self {
            control: load.control,
            mode: load.mode,
            lanes: load.lanes(),
            threads: load.threads,
            branches,
            keys: load.has_keys(),
            answer_at: load.answer_at,
            skew: load.skew,
            aborts: load.aborts,
            items: load.items,
            accounts: load.accounts,
        }
    }
}

impl From<&Tally> for Latency {
    fn from(tally: &Tally) -> Self {
        let at = |quantile| tally.latency.value_at_quantile(quantile);
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: tally.latency.max(),
        }
    }
}

impl Report {
    /// The method that was called, in a word.
    pub(crate) fn mode(&self) -> &'static str {
        match self.load.mode {
            Mode::Stream => "stream",
            Mode::Unary => "unary",
        }
    }

    /// Of each number in flight, the run with the median throughput, in the
    /// order of the runs.
    pub(crate) fn medians(&self) -> Vec<&Point> {
        let mut medians = Vec::new();
        let mut seen = Vec::new();
        for point in &self.points {
            if seen.contains(&point.in_flight) {
                continue;
            }
            seen.push(point.in_flight);
            let mut runs: Vec<&Point> =
                self.points.iter().filter(|it| it.in_flight == point.in_flight).collect();
            runs.sort_by(|a, b| a.committed_per_second.total_cmp(&b.committed_per_second));
            medians.push(runs[(runs.len() - 1) / 2]);
        }
        medians
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::tally::Answer;

    /// With one point for each number in flight and throughput.
    pub(crate) fn report(points: &[(u32, f64)]) -> Report {
        let point = |&(in_flight, committed_per_second): &(u32, f64)| Point {
            in_flight,
            run: 1,
            seconds: 10.0,
            tried: 90,
            committed: 80,
            aborted: 7,
            errors: 2,
            unknown: 1,
            first_error: Some("Unavailable: gone".into()),
            committed_per_second,
            aborted_per_second: 0.7,
            latency_us: Latency { p50: 1000, p90: 2000, p99: 3000, p99_9: 4000, max: 5000 },
            processes: vec![Usage {
                process: "coordinator".into(),
                syncs: 8,
                syncs_per_transaction: 0.125,
                checkpoints: 1,
                mean_batch: 20.5,
                cpu_us_per_transaction: 30.25,
                memory_bytes: 64 << 20,
                memory_growth_bytes: -(1 << 20),
            }],
            generator_cpu_us_per_transaction: 4.5,
            fault: None,
        };
        Report {
            run: "0000002a".into(),
            load: LoadReport {
                control: Control::Escrow,
                mode: Mode::Stream,
                lanes: 1,
                threads: 1,
                branches: vec![Kind::Inventory, Kind::Payment],
                keys: true,
                answer_at: When::Completion,
                skew: 0.5,
                aborts: 0.25,
                items: 1000,
                accounts: 10,
            },
            start_ups: vec![StartUp { process: "coordinator".into(), milliseconds: 12.5 }],
            points: points.iter().map(point).collect(),
            check: CheckReport {
                committed: 80,
                unresolved: 1,
                orders_checked: 5,
                all_orders: false,
                violations: vec!["order x is still pending".into()],
            },
        }
    }

    #[test]
    fn json_is_read_as_it_was_written() {
        let report = report(&[(8, 100.5), (64, 1000.25)]);
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }

    #[test]
    fn the_median_run_of_each_number_in_flight_is_shown() {
        let report = report(&[(8, 3.0), (8, 1.0), (8, 2.0), (64, 9.0), (64, 8.0)]);
        let medians: Vec<_> =
            report.medians().iter().map(|it| (it.in_flight, it.committed_per_second)).collect();
        assert_eq!(medians, [(8, 2.0), (64, 8.0)]);
    }

    #[test]
    fn percentiles_are_those_of_what_was_decided() {
        let mut tally = Tally::default();
        for number in 1..=1000 {
            let answer = if number % 2 == 0 { Answer::Committed } else { Answer::Aborted };
            tally.add(&answer, Duration::from_micros(number));
        }
        tally.add(&Answer::Unknown("gone".into()), Duration::from_secs(30));
        let latency = Latency::from(&tally);
        let expected = Latency { p50: 500, p90: 900, p99: 990, p99_9: 999, max: 1000 };
        assert_eq!(latency, expected);
        assert_eq!((tally.decided(), tally.unknown), (1000, 1));
    }
}
