//! What clients ask of a transaction.

use coordinator_core::{AnswerAt, CallKey, InterventionAction, LockKey, LockMode, NewBranch};

/// A client's call, before its wait has become a deadline.
#[derive(Debug)]
pub(crate) enum Call {
    Enlist {
        /// None where it was not admitted: see [`Client::Enlist`](coordinator_core::Client::Enlist).
        branch: Option<NewBranch>,
        key: Option<CallKey>,
    },
    Lock {
        /// None where they were not admitted.
        locks: Option<Vec<(LockKey, LockMode)>>,
        key: Option<CallKey>,
    },
    Prepare,
    Commit(AnswerAt),
    Rollback(AnswerAt),
    Get,
    Resolve(ByHand),
    Retry(ByHand),
}

/// What somebody does by hand.
#[derive(Debug, Clone)]
pub(crate) struct ByHand {
    pub(crate) action: InterventionAction,
    pub(crate) branch: Option<u32>,
    pub(crate) reason: String,
    pub(crate) caller: String,
}
