//! Answers in the wire's types.

use std::time::Duration;

use dtc::LinkState;
use dtc::api::{
    self, BranchState, HeldLock, Intervention, InterventionAction, LockMode, LockOwner, LockView,
    Outcome, Time, TrailKind, TransactionState,
};
use dtc_proto::dtc as wire;

use crate::time::timestamp;

macro_rules! to_wire {
    ($to:ident, $core:ident, $wire:ident, [$($name:ident),* $(,)?]) => {
        pub(super) fn $to(value: $core) -> wire::$wire {
            match value { $($core::$name => wire::$wire::$name,)* }
        }
    };
}

macro_rules! both_ways {
    ($to:ident, $from:ident, $core:ident, $wire:ident, [$($name:ident),* $(,)?]) => {
        to_wire!($to, $core, $wire, [$($name),*]);

        pub(super) fn $from(value: wire::$wire) -> Option<$core> {
            match value {
                wire::$wire::Unspecified => None,
                $(wire::$wire::$name => Some($core::$name),)*
            }
        }
    };
}

to_wire!(
    branch_state,
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
to_wire!(
    trail_kind,
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
to_wire!(
    intervention_action,
    InterventionAction,
    InterventionAction,
    [Commit, Rollback, Retry, Forget, Abandon]
);
to_wire!(lock_mode, LockMode, LockMode, [Shared, Exclusive]);
both_ways!(
    state,
    core_state,
    TransactionState,
    TransactionState,
    [Active, Preparing, Prepared, Committing, Committed, Aborting, Aborted,]
);
both_ways!(
    outcome,
    core_outcome,
    Outcome,
    Outcome,
    [Pending, Committed, Aborted, HeuristicMixed, HeuristicHazard,]
);

to_wire!(link_state, LinkState, LinkState, [Disconnected, Stream, Unary, Http, Quarantined]);

pub(super) fn duration(duration: Duration) -> Option<prost_types::Duration> {
    duration.try_into().ok()
}

/// What an operator resolved a branch to.
fn resolution(commit: Option<bool>) -> wire::Resolution {
    match commit {
        None => wire::Resolution::Unspecified,
        Some(true) => wire::Resolution::Commit,
        Some(false) => wire::Resolution::Rollback,
    }
}

fn text(text: Option<impl ToString>) -> String {
    text.map_or_else(String::new, |text| text.to_string())
}

fn reason(reason: api::Reason) -> wire::AbortReason {
    let participant = text(reason.participant);
    wire::AbortReason { code: reason.code, message: reason.message, participant }
}

pub(super) fn transaction(transaction: api::Transaction) -> wire::Transaction {
    let branches = (0..).zip(transaction.branches).map(|(number, it)| wire::BranchStatus {
        branch: number,
        participant: it.participant.to_string(),
        state: branch_state(it.state).into(),
        abort_reason: it.reason.map(reason),
        attempts: it.attempts,
        resolution: resolution(it.resolution).into(),
        notification_owed: it.notification_owed,
    });
    wire::Transaction {
        id: transaction.id.to_string(),
        request_key: text(transaction.request_key),
        state: state(transaction.state).into(),
        outcome: outcome(transaction.outcome).into(),
        committed: transaction.committed,
        stalled: transaction.stalled,
        branches: branches.collect(),
        abort_reason: transaction.reason.map(reason),
        begun_at: transaction.begun_at.map(timestamp),
        decided_at: transaction.decided_at.map(timestamp),
        ended_at: transaction.ended_at.map(timestamp),
        trail: transaction.trail.into_iter().map(trail_event).collect(),
        retry_of: text(transaction.retry_of),
        interventions: transaction.interventions.iter().map(intervention).collect(),
    }
}

pub(super) fn trail_event(event: api::TrailEvent) -> wire::TrailEvent {
    wire::TrailEvent {
        at: Some(timestamp(event.at)),
        kind: trail_kind(event.kind).into(),
        branch: event.branch,
        participant: text(event.participant),
        detail: event.detail,
    }
}

fn intervention(it: &Intervention) -> wire::Intervention {
    wire::Intervention {
        at: Some(timestamp(it.at)),
        action: intervention_action(it.action).into(),
        branch: it.branch,
        reason: it.reason.to_string(),
        caller: it.caller.to_string(),
    }
}

pub(super) fn held_locks(locks: &[HeldLock]) -> Vec<wire::HeldLock> {
    let held = |lock: &HeldLock| {
        let mode = lock_mode(lock.mode).into();
        wire::HeldLock { key: lock.key.to_string(), mode, token: lock.token }
    };
    locks.iter().map(held).collect()
}

fn owner(owner: LockOwner) -> Option<wire::LockOwner> {
    use wire::lock_owner::Owner;
    let owner = match owner {
        LockOwner::Transaction(id) => Owner::TransactionId(id.to_string()),
        LockOwner::Session(id) => Owner::SessionId(id.to_string()),
    };
    Some(wire::LockOwner { owner: Some(owner) })
}

pub(super) fn lock_status(view: &LockView, now: Time) -> wire::LockStatus {
    let holders = view.holders.iter().map(|holder| wire::LockHolder {
        owner: owner(holder.owner),
        mode: lock_mode(holder.mode).into(),
        token: holder.token,
        since: Some(timestamp(holder.since)),
    });
    let waiters = view.waiters.iter().map(|waiter| wire::LockWaiter {
        owner: owner(waiter.owner),
        mode: lock_mode(waiter.mode).into(),
        since: Some(timestamp(waiter.since)),
        waited: duration(now.since(waiter.since)),
        waits_for: waiter.waits_for.iter().filter_map(|by| owner(*by)).collect(),
    });
    wire::LockStatus {
        key: view.key.to_string(),
        holders: holders.collect(),
        holder_count: count(view.holder_count),
        waiters: waiters.collect(),
        waiter_count: count(view.waiter_count),
    }
}

pub(super) fn participant(status: api::ParticipantStatus) -> wire::ParticipantStatus {
    let participant = wire::Participant {
        name: status.name.to_string(),
        address: status.address,
        supports_inquiry: status.capabilities.supports_inquiry,
        compensates: status.capabilities.compensates,
    };
    wire::ParticipantStatus {
        participant: Some(participant),
        link: link_state(status.link).into(),
        last_error: status.last_error.to_string(),
        unfinished: count(status.unfinished),
        journal_id: text(status.journal),
        draining: status.draining,
        lease_left: status.lease_left.and_then(duration),
        newer_epoch: status.newer_epoch,
    }
}

pub(super) fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
