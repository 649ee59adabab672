//! What a restored journal holds as begun: its outcome is not in the backup.

use dtc_core::Time;
use dtc_proto::{dtc, journal};
use prost::Message;

use crate::journal::{Entry, Journal, JournalError, Keep, Stored};

/// Ends them with an outcome that nobody knows, so that neither is a branch that may
/// have been committed rolled back, nor a key used again.
pub(super) async fn end(journal: &dyn Journal, now: Time) -> Result<(), JournalError> {
    let lost = journal.lost().await?;
    if lost.is_empty() {
        return Ok(());
    }
    let count = lost.len();
    let entries = lost.into_iter().flat_map(|stored| ended(stored, now)).collect();
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
        "what became of transactions that the backup holds as begun is not known; look at them \
         with List, outcomes OUTCOME_HEURISTIC_HAZARD"
    );
    Ok(())
}

fn ended(stored: Stored, now: Time) -> [Entry; 2] {
    let Stored { id, begin, .. } = stored;
    let begin = begin.unwrap_or_default();
    let hazard: i32 = dtc::BranchState::Hazard.into();
    let branches: Vec<_> = begin
        .branches
        .iter()
        .map(|branch| journal::DecisionBranch {
            participant: branch.participant.clone(),
            state: hazard,
            supports_inquiry: branch.supports_inquiry,
            ..journal::DecisionBranch::default()
        })
        .collect();
    let end = journal::End {
        ended_at_us: now.0,
        branches: vec![hazard; branches.len()],
        ..journal::End::default()
    };
    let key = <[u8; 32]>::try_from(&begin.fingerprint[..]).ok();
    let key = key.filter(|_| !begin.request_key.is_empty());
    let key = key.map(|fingerprint| (begin.request_key.clone(), fingerprint));
    let decision = journal::Decision {
        request_key: begin.request_key,
        fingerprint: begin.fingerprint,
        decision_number: 1,
        begun_at_us: begin.begun_at_us,
        decided_at_us: now.0,
        branches,
        abort_reason: Some(dtc::AbortReason {
            code: "RESTORED".into(),
            message: "the journal was restored from a backup that holds no decision; whether it \
                      committed is not known"
                .into(),
            participant: String::new(),
        }),
        trail: begin.trail,
        retry_of: begin.retry_of,
        lost: true,
        ..journal::Decision::default()
    };
    // Nobody can be notified of what nobody knows.
    let keep = Keep { operator: true, unnotified: false };
    [
        Entry::Decision { id, key, body: decision.encode_to_vec() },
        Entry::End { id, keep, body: end.encode_to_vec() },
    ]
}
