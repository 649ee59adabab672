//! What `/metrics` shows of a participant, beside its storage.

use dtc_store::{StatisticsCollector, Store};
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Counters and gauges; all begin at 0 when the process starts.
pub(crate) struct Metrics {
    pub(crate) votes: Votes,
    pub(crate) commits: IntCounter,
    pub(crate) rollbacks: IntCounter,
    pub(crate) compensations: IntCounter,
    pub(crate) undecided: IntGauge,
    pub(crate) in_doubt: IntGauge,
    pub(crate) overdue: IntGauge,
    pub(crate) not_mine: IntGauge,
    pub(crate) stale_refusals: IntCounter,
    pub(crate) domain_errors: IntCounter,
    pub(crate) domain_panics: IntCounter,
    pub(crate) retries: IntCounter,
    pub(crate) inquiries: IntCounter,
    pub(crate) forgotten: IntCounter,
    pub(crate) forgotten_early: IntCounter,
    pub(crate) locks_held: IntGauge,
    pub(crate) parked: IntGauge,
    pub(crate) deadlocks: IntCounter,
    pub(crate) lock_timeouts: IntCounter,
}

/// Prepares by their answer.
pub(crate) struct Votes {
    pub(crate) commit: IntCounter,
    pub(crate) read_only: IntCounter,
    pub(crate) abort: IntCounter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry, store: &Store) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(format!("dtc_participant_{name}"), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("dtc_participant_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let options = Opts::new("dtc_participant_prepares_total", "Prepares, by their vote");
        let votes = IntCounterVec::new(options, &["vote"])?;
        registry.register(Box::new(votes.clone()))?;
        registry.register(Box::new(StatisticsCollector::new(store)?))?;
        Ok(Self {
            votes: Votes {
                commit: votes.with_label_values(&["commit"]),
                read_only: votes.with_label_values(&["read_only"]),
                abort: votes.with_label_values(&["abort"]),
            },
            commits: counter("commits_total", "Branches that were committed")?,
            rollbacks: counter("rollbacks_total", "Prepared branches that were rolled back")?,
            compensations: counter("compensations_total", "Committed branches that were undone")?,
            undecided: gauge("undecided", "Branches that are prepared and undecided")?,
            in_doubt: gauge("in_doubt", "Undecided branches that have waited for a second")?,
            overdue: gauge("in_doubt_overdue", "Branches in doubt for longer than the limit")?,
            not_mine: gauge("not_mine", "Branches in doubt that no coordinator knows")?,
            stale_refusals: counter("stale_refusals_total", "Batches of replaced coordinators")?,
            domain_errors: counter("domain_errors_total", "Failures of the domain's own code")?,
            domain_panics: counter("domain_panics_total", "Panics of the domain's own code")?,
            retries: counter("retries_total", "Decisions that were tried again here")?,
            inquiries: counter("inquiries_total", "Branches in doubt that were asked about")?,
            forgotten: counter("forgotten_total", "Decided branches that retention removed")?,
            forgotten_early: counter(
                "forgotten_early_total",
                "Of these, those that went before their time, for want of room",
            )?,
            locks_held: gauge("locks_held", "Keys that branches hold until their decision")?,
            parked: gauge("parked", "Prepares that wait for locks")?,
            deadlocks: counter("deadlocks_total", "Prepares that met an older one at a lock")?,
            lock_timeouts: counter("lock_timeouts_total", "Prepares that waited too long")?,
        })
    }
}
