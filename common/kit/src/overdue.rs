//! Branches that nobody decides for long are told of until somebody does.

use std::time::Duration;

use tokio::time::Instant;

use crate::{journal::Doubt, metrics::Metrics};

/// How often they are told of.
const REPEAT: Duration = Duration::from_secs(60);
/// How many of them by name.
const NAMED: usize = 5;

/// When they were last told of.
#[derive(Debug, Default)]
pub(crate) struct Overdue {
    told_at: Option<Instant>,
}

impl Overdue {
    /// `doubts` are all that are undecided, `now` the wall clock in milliseconds.
    pub(crate) fn look(&mut self, doubts: &[Doubt], now: i64, limit: Duration, metrics: &Metrics) {
        let limit_ms = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        let is_overdue = |doubt: &&Doubt| now.saturating_sub(doubt.prepared_at) >= limit_ms;
        let overdue: Vec<&Doubt> = doubts.iter().filter(is_overdue).collect();
        metrics.overdue.set(overdue.len().cast_signed() as i64);
        if overdue.is_empty() {
            if self.told_at.take().is_some() {
                tracing::info!("no branch is in doubt for long any more");
            }
            return;
        }
        if self.told_at.is_some_and(|told| told.elapsed() < REPEAT) {
            return;
        }
        self.told_at = Some(Instant::now());
        let names: Vec<_> = overdue.iter().take(NAMED).map(|it| it.branch.to_string()).collect();
        let oldest = overdue.iter().map(|doubt| doubt.prepared_at).min().unwrap_or(now);
        let oldest = Duration::from_millis(u64::try_from(now - oldest).unwrap_or(0));
        tracing::warn!(
            branches = overdue.len(),
            ?limit,
            ?oldest,
            first = names.join(", "),
            "in doubt for long; their coordinator has to be found, or they have to be resolved \
             by hand (ParticipantAdminService.ListUndecided)"
        );
    }
}
