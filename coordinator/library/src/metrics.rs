//! What `/metrics` shows of transactions.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dtc_core::{BranchOutcome, LockFigures, Reason, TrailKind};
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    exponential_buckets,
};

/// Codes of the coordinator and the kit.
const KNOWN: [&str; 23] = [
    "BAD_PAYLOAD",
    "CANNOT_COMPENSATE",
    "CLIENT_IDLE",
    "CLIENT_ROLLBACK",
    "COMMIT_FAILED",
    "COORDINATOR_RESTARTED",
    "DEADLOCK",
    "DISK_FULL",
    "IDLE_TIMEOUT",
    "INVALID_ARGUMENT",
    "LOCK_TIMEOUT",
    "OTHER_PAYLOAD",
    "OUTPUT_TOO_LARGE",
    "PARTICIPANT_ERROR",
    "PAYLOAD_TOO_LARGE",
    "PREPARE_ATTEMPTS",
    "PREPARE_TIMEOUT",
    "REFUSED",
    "ROLLED_BACK",
    "TOO_MANY_OUTPUTS",
    "TOO_MANY_UNDECIDED",
    "VERSION_CHANGED",
    "VERSION_HELD",
];
/// Codes of other participants that have a series of their own.
const OTHERS: usize = 32;

/// Codes that participants chose, as far as they have series.
#[derive(Debug, Clone, Default)]
struct Codes(Arc<Mutex<BTreeSet<String>>>);

impl Codes {
    /// A reason's code as a label: the number of labels is bounded, whatever
    /// participants say.
    fn label<'a>(&self, code: &'a str) -> &'a str {
        let good = |c: char| c.is_ascii_uppercase() || c == '_';
        if KNOWN.contains(&code) {
            return code;
        }
        if code.is_empty() || code.len() > 32 || !code.chars().all(good) {
            return "OTHER";
        }
        let mut others = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if others.contains(code) {
            return code;
        }
        if others.len() >= OTHERS {
            return "OTHER";
        }
        others.insert(code.into());
        code
    }
}

/// Counters of the driver.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub started: IntCounter,
    pub committed: IntCounter,
    pub aborted: IntCounterVec,
    codes: Codes,
    pub active: IntGauge,
    pub in_doubt: IntGauge,
    pub stalled: IntGauge,
    pub quarantined: IntGauge,
    pub notifying: IntGauge,
    pub heuristic: IntCounter,
    pub compensated: IntCounter,
    pub phase_one: Histogram,
    pub phase_two: Histogram,
    pub retries: IntCounter,
    pub unreachable: IntCounter,
    pub inquiries: IntCounterVec,
    locks_held: IntGauge,
    locks_waiting: IntGauge,
    locks_granted: IntCounter,
    lock_deadlocks: IntCounter,
    lock_timeouts: IntCounter,
}

impl Metrics {
    /// Registers all of them.
    #[expect(clippy::too_many_lines, reason = "a list")]
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let counters = |name: &str, help: &str, label: &str| {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let histogram = |name: &str, help: &str| {
            let buckets = exponential_buckets(0.000_25, 2.0, 17)?;
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        Ok(Self {
            started: counter("dtc_transactions_started_total", "Transactions accepted")?,
            committed: counter("dtc_transactions_committed_total", "Commit decisions, durable")?,
            aborted: counters(
                "dtc_transactions_aborted_total",
                "Aborts by their reason",
                "reason",
            )?,
            codes: Codes::default(),
            active: gauge("dtc_transactions_active", "Transactions in memory")?,
            in_doubt: gauge(
                "dtc_transactions_in_doubt",
                "Decided transactions that some participant has not acknowledged",
            )?,
            stalled: gauge(
                "dtc_transactions_stalled",
                "Transactions whose commit or rollback is still sent after the set number of attempts",
            )?,
            quarantined: gauge(
                "dtc_participants_quarantined",
                "Participants that say that they know a newer run of this coordinator",
            )?,
            notifying: gauge(
                "dtc_transactions_notification_owed",
                "Transactions that an operator resolved and whose participants are not all notified",
            )?,
            heuristic: counter(
                "dtc_branches_heuristic_total",
                "Branches that broke a promise, or whose fate cannot be known",
            )?,
            compensated: counter(
                "dtc_transactions_compensated_total",
                "Decisions to commit that were taken back, as their clients allowed",
            )?,
            phase_one: histogram(
                "dtc_phase_one_seconds",
                "From begin to the decision (interactive use: with the client's own time)",
            )?,
            phase_two: histogram("dtc_phase_two_seconds", "From the decision to the end")?,
            retries: counter("dtc_retries_total", "Messages to participants sent again")?,
            unreachable: counter(
                "dtc_unreachable_total",
                "Attempts that could not be made or had no answer",
            )?,
            inquiries: counters(
                "dtc_inquiries_total",
                "Questions of participants in doubt, by the answer",
                "answer",
            )?,
            locks_held: gauge("dtc_locks_held", "Locks that are held")?,
            locks_waiting: gauge("dtc_locks_waiting", "Transactions and sessions that wait")?,
            locks_granted: counter("dtc_locks_granted_total", "Requests for locks, granted")?,
            lock_deadlocks: counter(
                "dtc_locks_deadlocks_total",
                "Requests for locks, refused because of a deadlock",
            )?,
            lock_timeouts: counter("dtc_locks_timeouts_total", "Waits for locks that ended")?,
        })
    }

    /// Counts what happened to a transaction.
    pub(crate) fn count(&self, kind: TrailKind, reason: Option<&Reason>, took: Duration) {
        match kind {
            TrailKind::Begun => self.started.inc(),
            TrailKind::DecidedCommit => {
                self.committed.inc();
                self.phase_one.observe(took.as_secs_f64());
            }
            TrailKind::DecidedAbort => {
                let code = reason.map_or("UNKNOWN", |reason| self.codes.label(&reason.code));
                self.aborted.with_label_values(&[code]).inc();
                self.phase_one.observe(took.as_secs_f64());
            }
            TrailKind::Ended => self.phase_two.observe(took.as_secs_f64()),
            TrailKind::CompensationDecided => self.compensated.inc(),
            TrailKind::Retried => self.retries.inc(),
            TrailKind::Unreachable => self.unreachable.inc(),
            TrailKind::Heuristic | TrailKind::Hazard => self.heuristic.inc(),
            _ => {}
        }
    }

    /// Shows how it stands with locks; the machine has counted.
    pub(crate) fn show_locks(&self, figures: &LockFigures) {
        self.locks_held.set(figures.held as i64);
        self.locks_waiting.set(figures.waiting as i64);
        for (counter, count) in [
            (&self.locks_granted, figures.granted),
            (&self.lock_deadlocks, figures.deadlocks),
            (&self.lock_timeouts, figures.timeouts),
        ] {
            counter.inc_by(count.saturating_sub(counter.get()));
        }
    }

    /// Counts an answer to a participant in doubt.
    pub(crate) fn answered(&self, outcome: &BranchOutcome) {
        let answer = match outcome {
            BranchOutcome::Committed { .. } => "committed",
            BranchOutcome::Aborted { .. } => "aborted",
            BranchOutcome::Pending => "pending",
            BranchOutcome::NotMine => "not_mine",
        };
        self.inquiries.with_label_values(&[answer]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_participants_make_up_share_one_series() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let letter = |number: u32| char::from_u32('A' as u32 + number % 26).unwrap();
        let codes = (0..1000).map(|number| {
            format!("{}{}{}", letter(number), letter(number / 26), letter(number / 676))
        });
        for code in codes.chain(["DEADLOCK".into(), "PREPARE_TIMEOUT".into()]) {
            let reason = Reason { code, message: String::new(), participant: None };
            metrics.count(TrailKind::DecidedAbort, Some(&reason), Duration::ZERO);
        }
        let families = registry.gather();
        let aborted = families.iter().find(|it| it.name() == "dtc_transactions_aborted_total");
        let series = aborted.unwrap().get_metric();
        assert_eq!(series.len(), OTHERS + 3, "{series:?}");
    }
}
