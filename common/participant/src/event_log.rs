//! The story of a branch, in the logs.

use dtc_proto::dtc::{Acknowledgement, Vote};
use dtc_protocol::{BranchId, TransactionId};
use tracing::Level;

use crate::{answers::Answers, journal::InDoubtBranch};

/// What a batch did.
pub(crate) fn log(answers: &Answers) {
    if tracing::enabled!(Level::DEBUG) {
        for vote in &answers.votes {
            let (transaction, branch) = (id(&vote.transaction_id), vote.branch);
            let reason = vote.abort_reason.as_ref();
            match vote.vote() {
                Vote::Commit if vote.committed => {
                    tracing::debug!(transaction, branch, "committed in one phase");
                }
                Vote::Commit => tracing::debug!(transaction, branch, "prepared"),
                Vote::ReadOnly => tracing::debug!(transaction, branch, "read only"),
                Vote::Abort | Vote::Unspecified => tracing::debug!(
                    transaction,
                    branch,
                    code = reason.map(|reason| reason.code.as_str()),
                    message = reason.map(|reason| reason.message.as_str()),
                    "refused"
                ),
            }
        }
    }
    if tracing::enabled!(Level::WARN) {
        for answer in &answers.acknowledgements {
            let (transaction, branch) = (id(&answer.transaction_id), answer.branch);
            let decision = answer.decision_number;
            match answer.acknowledgement() {
                Acknowledgement::Committed => {
                    tracing::debug!(transaction, branch, decision, "committed");
                }
                Acknowledgement::RolledBack => {
                    tracing::debug!(transaction, branch, decision, "rolled back");
                }
                Acknowledgement::Unknown => {
                    tracing::warn!(transaction, branch, decision, "commit for an unknown branch");
                }
                Acknowledgement::Failed | Acknowledgement::Unspecified => {
                    tracing::warn!(transaction, branch, decision, answer.message, "failed");
                }
            }
        }
    }
}

/// A prepare has to wait for a lock.
pub(crate) fn parked(branch: &BranchId) {
    tracing::debug!(transaction = %branch.transaction, branch = branch.number, "waits for a lock");
}

/// A branch in doubt was asked about.
pub(crate) fn asked(doubt: &InDoubtBranch) {
    let branch = &doubt.branch;
    tracing::info!(
        transaction = %branch.transaction, branch = branch.number,
        coordinator = %branch.coordinator, "in doubt, asking"
    );
}

fn id(bytes: &[u8]) -> String {
    TransactionId::from_slice(bytes).map(|id| id.to_string()).unwrap_or_default()
}
