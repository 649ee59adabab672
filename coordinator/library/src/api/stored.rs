//! A transaction as the journal has it.

use std::sync::Arc;

use dtc_core::{Outcome, Time, TransactionState};
use dtc_proto::{dtc, journal};
use dtc_protocol::TransactionId;

use super::{Branch, Reason, Transaction};
use crate::{
    convert,
    journal::{Stored, codec},
};

/// One that is unfinished in the journal but not in memory ended a moment ago, or is of a
/// run before.
pub(super) fn transaction(stored: &Stored, with_trail: bool) -> Transaction {
    let end = stored.end.as_ref();
    let mut transaction = match (&stored.decision, &stored.begin) {
        (Some(decision), _) => decided(stored.id, decision, end),
        (None, begin) => begun(stored.id, begin.as_ref()),
    };
    let closed = stored.decision.as_ref().and_then(|decision| decision.ended_at_us);
    transaction.ended_at = end.map(|end| end.ended_at_us).or(closed).map(Time);
    if !with_trail {
        return transaction;
    }
    let events = stored.decision.iter().flat_map(|decision| &decision.trail);
    let events = events.chain(end.into_iter().flat_map(|end| &end.trail));
    transaction.with_trail(events.filter_map(|event| {
        Some(dtc_core::TrailEvent {
            at: Time(event.at_us),
            kind: convert::core_trail_kind(event.kind())?,
            branch: event.branch.checked_sub(1),
            attempt: event.attempt,
        })
    }))
}

fn begun(id: TransactionId, begin: Option<&journal::Begin>) -> Transaction {
    Transaction {
        id,
        request_key: begin.and_then(|begin| key(&begin.request_key)),
        state: TransactionState::Preparing,
        outcome: Outcome::Pending,
        committed: false,
        stalled: false,
        branches: Vec::new(),
        reason: None,
        begun_at: begin.map(|begin| Time(begin.begun_at_us)),
        decided_at: None,
        ended_at: None,
        trail: Vec::new(),
        retry_of: begin.and_then(|begin| TransactionId::from_slice(&begin.retry_of)),
        interventions: Vec::new(),
    }
}

fn decided(
    id: TransactionId,
    decision: &journal::Decision,
    end: Option<&journal::End>,
) -> Transaction {
    let state_of = |number: usize, branch: &journal::DecisionBranch| {
        let state = end.and_then(|end| end.branches.get(number).copied()).unwrap_or(branch.state);
        let state = dtc::BranchState::try_from(state).unwrap_or_default();
        convert::core_branch_state(state).unwrap_or(dtc_core::BranchState::Enlisted)
    };
    let branch = |(number, branch): (usize, &journal::DecisionBranch)| Branch {
        participant: branch.participant.as_str().into(),
        state: state_of(number, branch),
        reason: branch.abort_reason.as_ref().map(reason),
        attempts: 0,
        resolution: branch.resolved,
        notification_owed: branch.notify && end.is_none(),
    };
    let branches: Vec<Branch> = decision.branches.iter().enumerate().map(branch).collect();
    let since = end.into_iter().flat_map(|end| &end.interventions);
    let interventions = decision.interventions.iter().chain(since);
    let interventions = interventions.filter_map(|it| codec::decode_intervention(id, it).ok());
    Transaction {
        id,
        request_key: key(&decision.request_key),
        state: match (decision.commit, end.is_some() || decision.ended_at_us.is_some()) {
            (true, true) => TransactionState::Committed,
            (true, false) => TransactionState::Committing,
            (false, true) => TransactionState::Aborted,
            (false, false) => TransactionState::Aborting,
        },
        // The branches of an interactive one are not in its begin record.
        outcome: match decision.lost {
            true => Outcome::HeuristicHazard,
            false => Outcome::of(decision.commit, branches.iter().map(|branch| branch.state)),
        },
        committed: decision.commit,
        stalled: false,
        branches,
        reason: decision.abort_reason.as_ref().map(reason),
        begun_at: Some(Time(decision.begun_at_us)),
        decided_at: Some(Time(decision.decided_at_us)),
        ended_at: None,
        trail: Vec::new(),
        retry_of: TransactionId::from_slice(&decision.retry_of),
        interventions: interventions.collect(),
    }
}

fn key(text: &str) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| text.into())
}

fn reason(reason: &dtc::AbortReason) -> Reason {
    let participant = &*reason.participant;
    Reason {
        code: reason.code.clone(),
        message: reason.message.clone(),
        participant: (!participant.is_empty()).then(|| participant.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_backup_holds_as_begun_is_a_hazard_with_no_branches_too() {
        let lost = journal::Decision { lost: true, ..journal::Decision::default() };
        let id = TransactionId::from_bytes([1; 16]);
        assert_eq!(decided(id, &lost, None).outcome, Outcome::HeuristicHazard);
    }
}
