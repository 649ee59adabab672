//! What callers are told.

use dtc_proto::dtc;
use dtc_protocol::TransactionId;

use super::{
    error::{Error, Phase},
    local::{Locals, PREFIX},
};
use crate::error::Error as CallError;

/// What became of a transaction, as the caller of a phase wants to know it.
pub(super) fn outcome(
    id: TransactionId,
    transaction: &dtc::Transaction,
    asked: Phase,
    locals: &Locals,
) -> Result<(), Error> {
    use dtc::{BranchState, Outcome};
    let name =
        |branch: &dtc::BranchStatus| branch.participant.trim_start_matches(PREFIX).to_owned();
    let find = |states: &[BranchState]| {
        transaction.branches.iter().find(|branch| states.contains(&branch.state()))
    };
    if let Outcome::HeuristicMixed | Outcome::HeuristicHazard = transaction.outcome() {
        let branch = find(&[BranchState::Heuristic, BranchState::Hazard]);
        let resource = branch.map(name).unwrap_or_default();
        let cause = "it did not do as it had promised, or that cannot be known".into();
        return Err(Error::Heuristic { transaction: id, resource, cause });
    }
    let owed = find(&[
        BranchState::Committing,
        BranchState::RollingBack,
        BranchState::Preparing,
        BranchState::Enlisted,
    ]);
    let is_undecided = transaction.outcome() == Outcome::Pending;
    if let Some(branch) = owed.filter(|_| transaction.ended_at.is_none())
        && (is_undecided || transaction.committed || asked == Phase::Rollback)
    {
        use dtc::TransactionState as State;
        let phase = match transaction.state() {
            State::Committing | State::Committed => Phase::Commit,
            State::Aborting | State::Aborted => Phase::Rollback,
            _ => Phase::Prepare,
        };
        let said = locals.last_error(id, branch.branch);
        let cause = if said.is_empty() { "no answer yet".into() } else { said };
        let (resource, attempts) = (name(branch), branch.attempts);
        return Err(Error::Unfinished { transaction: id, resource, phase, attempts, cause });
    }
    if transaction.committed {
        return Ok(());
    }
    let why = transaction.abort_reason.clone().unwrap_or_default();
    let resource = why.participant.trim_start_matches(PREFIX).to_owned();
    let cause = why.message;
    Err(match (why.code.as_str(), why.participant.as_str()) {
        ("PREPARE_TIMEOUT" | "PREPARE_ATTEMPTS", _) => {
            Error::PrepareTimeout { transaction: id, resource, cause }
        }
        (_, "") => Error::RolledBack { transaction: id, cause },
        ("COMMIT_FAILED", _) => Error::CommitFailed { transaction: id, resource, cause },
        ("BROKEN", _) => Error::Broken { transaction: id, resource, cause },
        ("PANICKED", _) => Error::Panicked { transaction: id, resource, cause },
        _ => Error::Refused { transaction: id, resource, cause },
    })
}

/// What a call to the machine failed with.
pub(super) fn error(id: Option<TransactionId>, error: CallError) -> Error {
    let cause = error.to_string();
    match (error, id) {
        (CallError::UnknownTransaction(id), _) => Error::UnknownTransaction(id),
        (CallError::WrongState { .. }, Some(transaction)) => {
            Error::WrongState { transaction, cause }
        }
        (CallError::Exhausted(_) | CallError::Full(_), _) => Error::Exhausted(cause),
        (CallError::Stopping | CallError::Journal(_), _) => Error::Stopped(cause),
        _ => Error::Participant(cause),
    }
}

/// False for a refusal; any other error stays one.
pub(super) fn refusal(outcome: Result<(), Error>) -> Result<bool, Error> {
    match outcome {
        Ok(()) => Ok(true),
        Err(Error::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
