//! Whose request keys are.

use dtc_core::{Event, RequestKey};
use dtc_protocol::TransactionId;

use crate::journal::{Journal, JournalError};

/// What the journal says of each key, for the run that waits for it. A damaged row
/// stops only those that name it.
pub(super) async fn find(
    journal: &dyn Journal,
    ids: Vec<TransactionId>,
    keys: Vec<RequestKey>,
) -> Result<Vec<Event>, JournalError> {
    let runs = ids.into_iter();
    match journal.find_keys(keys.clone()).await {
        Ok(found) => Ok(runs.zip(found).map(|(id, found)| Event::KeyFound { id, found }).collect()),
        // One by one, since the error is of one of them.
        Err(JournalError::Damaged(_)) => {
            let mut events = Vec::with_capacity(keys.len());
            for (id, key) in runs.zip(keys) {
                events.push(match journal.find_keys(vec![key]).await {
                    Ok(found) => Event::KeyFound { id, found: found.into_iter().next().flatten() },
                    Err(JournalError::Damaged(why)) => {
                        tracing::error!(%id, why, "the transaction of a request key cannot be read");
                        Event::KeyUnreadable { id, why }
                    }
                    Err(error) => return Err(error),
                });
            }
            Ok(events)
        }
        Err(error) => Err(error),
    }
}
