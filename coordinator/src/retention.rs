//! Forgetting what finished long ago, in small batches.

use std::{sync::Arc, time::Duration};

use coordinator_core::Time;

use crate::{
    ids,
    journal::{Journal, Retention},
};

/// Finished transactions that are removed at once.
const BATCH: usize = 1000;
/// How long to rest when there was nothing more to remove.
const REST: Duration = Duration::from_secs(10);
/// How long to rest between batches, so that traffic gets its turn.
const PAUSE: Duration = Duration::from_millis(5);

/// Runs for as long as the process.
pub(crate) async fn run(journal: Arc<dyn Journal>, age: Duration, max_bytes: u64) {
    let rest = REST.min(age / 4).max(PAUSE);
    loop {
        let cutoff = journal.now().saturating_sub(age);
        let cutoff = u64::try_from(cutoff.as_micros()).unwrap_or(u64::MAX);
        let before = ids::floor(Time(cutoff));
        let retention = Retention { before, ended_before: cutoff, max_bytes };
        let forgotten = journal.forget(retention, BATCH).await;
        match &forgotten {
            Ok(0) => {}
            Ok(count) => tracing::debug!(count, "finished transactions removed"),
            Err(error) => tracing::warn!(%error, "finished transactions could not be removed"),
        }
        let more = matches!(forgotten, Ok(count) if count == BATCH);
        tokio::time::sleep(if more { PAUSE } else { rest }).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Entry, MemoryJournal};
    use common::TransactionId;

    #[tokio::test]
    async fn what_ended_long_ago_goes_and_a_heuristic_outcome_stays() {
        let journal = MemoryJournal::new();
        let finished = |number: u8, ended_at: u64, kept: bool| {
            let id = TransactionId::from_bytes([number; 16]);
            let body = prost::Message::encode_to_vec(&proto::journal::End {
                ended_at_us: ended_at,
                ..Default::default()
            });
            journal.append(vec![Entry::End { id, ended_at, kept, body }], true, Box::new(|| ()));
            id
        };
        let (old, new) = (finished(1, 10, false), finished(2, 1000, false));
        let (kept, young) = (finished(3, 10, true), finished(9, 10, false));
        let before = TransactionId::from_bytes([5; 16]);
        let retention = Retention { before, ended_before: 100, max_bytes: u64::MAX };
        assert_eq!(journal.forget(retention, 10).await.unwrap(), 1);
        assert!(journal.find(old).await.unwrap().is_none());
        for id in [new, kept, young] {
            assert!(journal.find(id).await.unwrap().is_some(), "{id}");
        }
    }
}
