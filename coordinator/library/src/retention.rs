//! Forgetting what finished long ago, in small batches.
//!
//! Ages are service time (see [`Journal::forget`]): no wall clock, and no time in which
//! the coordinator does not run, brings a transaction nearer to its removal.

use std::{sync::Arc, time::Duration};

use prometheus::{IntCounter, IntGauge, Registry};
use tokio::time::Instant;

use crate::journal::{Forgotten, Journal, Retention};

/// Finished transactions that are removed at once.
const BATCH: usize = 500;
/// How long to rest when there was nothing more to remove.
const REST: Duration = Duration::from_secs(10);
/// How long to rest between batches, so that traffic gets its turn.
const PAUSE: Duration = Duration::from_millis(5);
/// How often an idle coordinator's time is written.
const KEEP_TIME: Duration = Duration::from_secs(60);

/// What is shown of it.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    removed: IntCounter,
    removed_early: IntCounter,
    removed_unnotified: IntCounter,
    too_large: IntGauge,
    kept: IntGauge,
    unnotified: IntGauge,
}

impl Figures {
    /// Registers all of them.
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Self {
            removed: counter("dtc_retention_removed_total", "Finished transactions removed")?,
            removed_early: counter(
                "dtc_retention_removed_early_total",
                "Of these, removed before their time because of --retention-bytes",
            )?,
            removed_unnotified: counter(
                "dtc_retention_removed_unnotified_total",
                "Of these, with participants that were never notified of the outcome",
            )?,
            too_large: gauge(
                "dtc_retention_too_large",
                "1 while the journal is above --retention-bytes and no finished transaction is old enough to be removed",
            )?,
            kept: gauge("dtc_transactions_kept", "Finished, and kept until Forget")?,
            unnotified: gauge(
                "dtc_transactions_unnotified",
                "Finished, and kept until their participants have asked",
            )?,
        })
    }

    fn show(&self, forgotten: &Forgotten, (kept, unnotified): (u64, u64)) {
        self.removed.inc_by(forgotten.count as u64);
        self.removed_unnotified.inc_by(forgotten.unnotified as u64);
        self.removed_early.inc_by(forgotten.early as u64);
        self.too_large.set((forgotten.too_large && forgotten.count == 0).into());
        self.kept.set(i64::try_from(kept).unwrap_or(i64::MAX));
        self.unnotified.set(i64::try_from(unnotified).unwrap_or(i64::MAX));
    }
}

/// Runs for as long as the process.
pub(crate) async fn run(journal: Arc<dyn Journal>, retention: Retention, figures: Figures) {
    let rest = REST.min(retention.age / 4).min(retention.floor / 4).max(PAUSE);
    let mut kept_time_at = Instant::now();
    let mut said = Said::default();
    if retention.age < retention.floor {
        tracing::warn!(
            retention = ?retention.age, floor = ?retention.floor,
            "--retention is shorter than the delay of a late duplicate may be: a repeated request may run twice"
        );
    }
    loop {
        let more = match journal.forget(retention, BATCH).await {
            Ok(forgotten) => {
                figures.show(&forgotten, journal.kept());
                said.say(&forgotten, &retention);
                forgotten.more || forgotten.too_large && forgotten.count > 0
            }
            Err(error) => {
                tracing::warn!(%error, "finished transactions could not be removed");
                false
            }
        };
        if kept_time_at.elapsed() >= KEEP_TIME {
            kept_time_at = Instant::now();
            journal.keep_time();
        }
        tokio::time::sleep(if more { PAUSE } else { rest }).await;
    }
}

/// What was said already, so that each is said once.
#[derive(Debug, Default)]
struct Said {
    early: bool,
    held: bool,
}

impl Said {
    fn say(&mut self, forgotten: &Forgotten, retention: &Retention) {
        let Forgotten { count, early, unnotified, too_large, .. } = *forgotten;
        if count > 0 {
            tracing::debug!(count, "finished transactions removed");
        }
        if unnotified > 0 {
            tracing::warn!(
                count = unnotified,
                "removed transactions whose participants were never notified of the outcome, as \
                 their number is at its limit; branches in doubt about them stay in doubt"
            );
        }
        let limit = retention.max_bytes;
        if early > 0 && !self.early {
            tracing::warn!(
                limit,
                "the journal is above --retention-bytes: finished transactions and their keys are \
                 removed before --retention has passed; raise the former or lower the latter"
            );
        }
        if too_large && count == 0 && !self.held {
            tracing::warn!(
                limit, floor = ?retention.floor,
                "the journal is above --retention-bytes, and all finished transactions ended too \
                 recently to be removed; raise --retention-bytes"
            );
        }
        self.held = too_large && count == 0;
        self.early = early > 0 || self.early && too_large;
    }
}
