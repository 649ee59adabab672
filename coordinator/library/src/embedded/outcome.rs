//! What became of a transaction, for callers.

use dtc_core::{BranchState, Outcome, TransactionState};
use dtc_protocol::TransactionId;

use super::{
    error::{Error, Phase},
    local::{Locals, shown},
};
use crate::api::{Branch, Error as CallError, Transaction};

/// What became of a transaction, as the caller of a phase wants to know it.
pub(super) fn outcome(
    id: TransactionId,
    transaction: &Transaction,
    asked: Phase,
    locals: &Locals,
) -> Result<(), Error> {
    let name = |branch: &Branch| shown(&branch.participant).0.to_owned();
    let find = |states: &[BranchState]| {
        (0..).zip(&transaction.branches).find(|(_, branch)| states.contains(&branch.state))
    };
    if let Outcome::HeuristicMixed | Outcome::HeuristicHazard = transaction.outcome {
        let branch = find(&[BranchState::Heuristic, BranchState::Hazard]);
        let resource = branch.map(|(_, branch)| name(branch)).unwrap_or_default();
        let cause = "it did not do as it had promised, or that cannot be known".into();
        return Err(Error::Heuristic { transaction: id, resource, cause });
    }
    let owed = find(&[
        BranchState::Committing,
        BranchState::RollingBack,
        BranchState::Preparing,
        BranchState::Enlisted,
    ]);
    let is_undecided = transaction.outcome == Outcome::Pending;
    if let Some((number, branch)) = owed.filter(|_| transaction.ended_at.is_none())
        && (is_undecided || transaction.committed || asked == Phase::Rollback)
    {
        let phase = match transaction.state {
            TransactionState::Committing | TransactionState::Committed => Phase::Commit,
            TransactionState::Aborting | TransactionState::Aborted => Phase::Rollback,
            _ => Phase::Prepare,
        };
        let source = locals.error(id, number);
        let cause = source.as_ref().map_or_else(|| "no answer yet".into(), ToString::to_string);
        let (resource, attempts) = (name(branch), branch.attempts);
        return Err(Error::Unfinished {
            transaction: id,
            resource,
            phase,
            attempts,
            cause,
            source,
        });
    }
    if transaction.committed {
        return Ok(());
    }
    let (code, cause, participant) = match &transaction.reason {
        Some(why) => (&*why.code, why.message.clone(), why.participant.as_deref()),
        None => ("", String::new(), None),
    };
    let resource = shown(participant.unwrap_or_default()).0.to_owned();
    Err(match (code, participant) {
        ("PREPARE_TIMEOUT" | "PREPARE_ATTEMPTS", _) => {
            Error::PrepareTimeout { transaction: id, resource, cause }
        }
        (_, None) => Error::RolledBack { transaction: id, cause },
        ("COMMIT_FAILED", _) => Error::CommitFailed { transaction: id, resource, cause },
        ("BROKEN", _) => {
            let refused = |(_, branch): &(u32, &Branch)| branch.state == BranchState::Refused;
            let broken = (0..).zip(&transaction.branches).find(refused);
            let source = broken.and_then(|(number, _)| locals.error(id, number));
            Error::Broken { transaction: id, resource, cause, source }
        }
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
