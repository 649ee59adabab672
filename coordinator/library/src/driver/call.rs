//! What clients and operators ask of a transaction.

use dtc_core::{
    AnswerAt, CallKey, Client, Intervention, InterventionAction, LockKey, LockMode, NewBranch, Time,
};

/// A client's call, before its wait has become a deadline.
#[derive(Debug)]
pub(crate) enum Call {
    Enlist {
        /// None where it was not admitted: see [`Client::Enlist`](dtc_core::Client::Enlist).
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
    Resolve(OperatorCall),
    Retry(OperatorCall),
    Abandon(OperatorCall),
}

/// What an operator does.
#[derive(Debug, Clone)]
pub(crate) struct OperatorCall {
    pub action: InterventionAction,
    pub branch: Option<u32>,
    pub reason: String,
    pub caller: String,
}

impl OperatorCall {
    fn at(self, at: Time) -> Intervention {
        let Self { action, branch, reason, caller } = self;
        Intervention { at, action, branch, reason: reason.into(), caller: caller.into() }
    }
}

impl Call {
    /// The call as the machine takes it.
    pub(super) fn of_client(self, now: Time, until: Time) -> Client {
        match self {
            Self::Enlist { branch, key } => Client::Enlist { branch, key },
            Self::Lock { locks, key } => Client::Lock { locks, key, until },
            Self::Prepare => Client::Prepare { until },
            Self::Commit(at) => Client::Commit { at, until },
            Self::Rollback(at) => Client::Rollback { at, until },
            Self::Get => Client::Get,
            Self::Resolve(by_operator) => {
                Client::Resolve { intervention: by_operator.at(now), until }
            }
            Self::Retry(by_operator) => Client::Retry { intervention: by_operator.at(now) },
            Self::Abandon(by_operator) => {
                Client::Abandon { intervention: by_operator.at(now), until }
            }
        }
    }
}
