//! What a restored journal holds as begun: its outcome is not in the backup.

use dtc_core::Time;

use super::RecoverError;
use crate::journal::{Entry, Journal, JournalError, codec};

/// Ends them with an outcome that nobody knows, so that neither is a branch that may
/// have been committed rolled back, nor a key used again.
pub(super) async fn end(journal: &dyn Journal, now: Time) -> Result<(), RecoverError> {
    let lost = journal.lost().await?;
    if lost.is_empty() {
        return Ok(());
    }
    let count = lost.len();
    let ends = lost.iter().map(|stored| codec::lost(stored, now));
    let ends = ends.collect::<Result<Vec<_>, _>>()?;
    let entries: Vec<Entry> = ends.into_iter().flatten().collect();
    let (durable, is_durable) = tokio::sync::oneshot::channel();
    journal.append(
        entries,
        true,
        Box::new(move || {
            let _ = durable.send(());
        }),
    );
    is_durable.await.map_err(|_| JournalError::Closed)?;
    tracing::warn!(
        count,
        "the outcome of transactions that the backup holds as begun is unknown; List with outcomes \
         OUTCOME_HEURISTIC_HAZARD shows them"
    );
    Ok(())
}
