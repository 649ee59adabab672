//! Between the machine's words and the journal's.

use dtc_core::{BranchState, HeldLock, InterventionAction, LockMode, Reason, TrailKind};
use dtc_proto::dtc;

use crate::directory::Directory;

macro_rules! to_wire {
    ($to:ident, $core:ident, $wire:ident, [$($name:ident),* $(,)?]) => {
        pub(crate) fn $to(value: $core) -> dtc::$wire {
            match value { $($core::$name => dtc::$wire::$name,)* }
        }
    };
}

macro_rules! both_ways {
    ($to:ident, $from:ident, $core:ident, $wire:ident, [$($name:ident),* $(,)?]) => {
        to_wire!($to, $core, $wire, [$($name),*]);

        pub(crate) fn $from(value: dtc::$wire) -> Option<$core> {
            match value {
                dtc::$wire::Unspecified => None,
                $(dtc::$wire::$name => Some($core::$name),)*
            }
        }
    };
}

both_ways!(
    branch_state,
    core_branch_state,
    BranchState,
    BranchState,
    [
        Enlisted,
        Preparing,
        Prepared,
        ReadOnly,
        Refused,
        Committing,
        Committed,
        RollingBack,
        RolledBack,
        RollbackUnacknowledged,
        Heuristic,
        Hazard,
        Asserted,
    ]
);
both_ways!(
    trail_kind,
    core_trail_kind,
    TrailKind,
    TrailKind,
    [
        Begun,
        Enlisted,
        PrepareSent,
        VotedCommit,
        VotedAbort,
        VotedReadOnly,
        DecidedCommit,
        DecidedAbort,
        CommitAcknowledged,
        RollbackAcknowledged,
        Retried,
        Unreachable,
        Stalled,
        RollbackUnacknowledged,
        Asked,
        Heuristic,
        Hazard,
        Recovered,
        Ended,
        CompensationDecided,
        Resolved,
        Asserted,
        Abandoned,
        LocksAwaited,
        LinksAwaited,
        Locked,
    ]
);
both_ways!(
    intervention_action,
    core_intervention_action,
    InterventionAction,
    InterventionAction,
    [Commit, Rollback, Retry, Forget, Abandon]
);
both_ways!(lock_mode, core_lock_mode, LockMode, LockMode, [Shared, Exclusive]);
pub(crate) fn reason(reason: &Reason, directory: &Directory) -> dtc::AbortReason {
    dtc::AbortReason {
        code: reason.code.clone(),
        message: reason.message.clone(),
        participant: reason
            .participant
            .map_or_else(String::new, |participant| directory.name(participant).to_string()),
    }
}

pub(crate) fn core_reason(reason: &dtc::AbortReason, directory: &Directory) -> Reason {
    let participant = &reason.participant;
    Reason {
        code: reason.code.clone(),
        message: reason.message.clone(),
        participant: (!participant.is_empty()).then(|| directory.intern(participant)),
    }
}

pub(crate) fn held_lock(lock: &HeldLock) -> dtc::HeldLock {
    let mode = lock_mode(lock.mode).into();
    dtc::HeldLock { key: lock.key.to_string(), mode, token: lock.token }
}
