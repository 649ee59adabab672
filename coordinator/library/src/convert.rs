//! Between the machine's words, the wire's, and the journal's.

use dtc_core::{
    BranchState, HeldLock, InterventionAction, LockMode, Outcome, Reason, TrailEvent, TrailKind,
    TransactionState, View,
};
use dtc_proto::{dtc, journal};
use dtc_protocol::TransactionId;

use crate::{
    clock::timestamp,
    directory::Directory,
    journal::{Stored, codec},
};

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
to_wire!(
    state,
    TransactionState,
    TransactionState,
    [Active, Preparing, Prepared, Committing, Committed, Aborting, Aborted,]
);
to_wire!(
    outcome,
    Outcome,
    Outcome,
    [Pending, Committed, Aborted, HeuristicMixed, HeuristicHazard,]
);

pub(crate) fn held_lock(lock: &HeldLock) -> dtc::HeldLock {
    let mode = lock_mode(lock.mode).into();
    dtc::HeldLock { key: lock.key.to_string(), mode, token: lock.token }
}

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

/// What an operator resolved a branch to.
fn resolution(commit: Option<bool>) -> dtc::Resolution {
    match commit {
        None => dtc::Resolution::Unspecified,
        Some(true) => dtc::Resolution::Commit,
        Some(false) => dtc::Resolution::Rollback,
    }
}

/// A transaction in memory.
pub(crate) fn transaction(view: &View, directory: &Directory) -> dtc::Transaction {
    let branches = (0..).zip(&view.branches).map(|(number, branch)| dtc::BranchStatus {
        branch: number,
        participant: directory.name(branch.participant).to_string(),
        state: branch_state(branch.state).into(),
        abort_reason: branch.refusal.as_ref().map(|refusal| reason(refusal, directory)),
        attempts: branch.attempts,
        resolution: resolution(branch.resolution).into(),
        notification_owed: branch.notification_owed,
    });
    let branches: Vec<_> = branches.collect();
    let why = view.reason.as_ref().map(|it| reason(it, directory));
    let trail = view.trail.iter().map(|event| trail_event(event, &branches, why.as_ref()));
    dtc::Transaction {
        id: view.id.to_string(),
        request_key: view.key.as_deref().unwrap_or_default().into(),
        state: state(view.state).into(),
        outcome: outcome(view.outcome).into(),
        committed: view.committed,
        stalled: view.stalled,
        trail: trail.collect(),
        branches,
        abort_reason: why,
        begun_at: Some(timestamp(view.begun_at.0)),
        decided_at: view.decided_at.map(|at| timestamp(at.0)),
        ended_at: view.ended_at.map(|at| timestamp(at.0)),
        interventions: view
            .interventions
            .iter()
            .map(|it| intervention(&codec::intervention(it)))
            .collect(),
        retry_of: match view.age == view.id {
            true => String::new(),
            false => view.age.to_string(),
        },
    }
}

/// One event for people, with its reason in words.
pub(crate) fn trail_event(
    event: &TrailEvent,
    branches: &[dtc::BranchStatus],
    why: Option<&dtc::AbortReason>,
) -> dtc::TrailEvent {
    let branch = event.branch.and_then(|number| branches.get(number as usize));
    let refusal = branch.and_then(|branch| branch.abort_reason.as_ref());
    let in_words = |reason: &dtc::AbortReason| format!("{}: {}", reason.code, reason.message);
    let detail = match event.kind {
        TrailKind::VotedAbort => refusal.map(in_words),
        TrailKind::DecidedAbort | TrailKind::CompensationDecided => why.map(in_words),
        _ => (event.attempt > 0).then(|| format!("attempt {}", event.attempt)),
    };
    dtc::TrailEvent {
        at: Some(timestamp(event.at.0)),
        kind: trail_kind(event.kind).into(),
        branch: event.branch,
        participant: branch.map_or_else(String::new, |branch| branch.participant.clone()),
        detail: detail.unwrap_or_default(),
    }
}

/// A transaction in the journal. One that is unfinished there but not in memory
/// ended a moment ago, or is of a run before.
pub(crate) fn stored(stored: &Stored, with_trail: bool) -> dtc::Transaction {
    let ended = stored.end.as_ref();
    let mut transaction = match (&stored.decision, &stored.begin) {
        (Some(decision), _) => decided(decision, ended),
        (None, begin) => dtc::Transaction {
            state: dtc::TransactionState::Preparing.into(),
            outcome: dtc::Outcome::Pending.into(),
            request_key: begin.as_ref().map(|it| it.request_key.clone()).unwrap_or_default(),
            begun_at: begin.as_ref().map(|begin| timestamp(begin.begun_at_us)),
            retry_of: begin.as_ref().map(|begin| retry_of(&begin.retry_of)).unwrap_or_default(),
            ..Default::default()
        },
    };
    transaction.id = stored.id.to_string();
    let closed = stored.decision.as_ref().and_then(|decision| decision.ended_at_us);
    transaction.ended_at = ended.map(|end| end.ended_at_us).or(closed).map(timestamp);
    if with_trail {
        let events = stored.decision.iter().flat_map(|decision| &decision.trail);
        let events = events.chain(ended.into_iter().flat_map(|end| &end.trail));
        let why = transaction.abort_reason.as_ref();
        let branches = &transaction.branches;
        let trail = events.filter_map(|event| {
            let kind = core_trail_kind(event.kind())?;
            let at = dtc_core::Time(event.at_us);
            let branch = event.branch.checked_sub(1);
            let event = TrailEvent { at, kind, branch, attempt: event.attempt };
            Some(trail_event(&event, branches, why))
        });
        transaction.trail = trail.collect();
    }
    transaction
}

fn intervention(it: &journal::Intervention) -> dtc::Intervention {
    dtc::Intervention {
        at: Some(timestamp(it.at_us)),
        action: it.action,
        branch: it.branch.checked_sub(1),
        reason: it.reason.clone(),
        caller: it.caller.clone(),
    }
}

fn retry_of(bytes: &[u8]) -> String {
    TransactionId::from_slice(bytes).map_or_else(String::new, |id| id.to_string())
}

fn decided(decision: &journal::Decision, end: Option<&journal::End>) -> dtc::Transaction {
    let state_of = |number: usize, branch: &journal::DecisionBranch| match end {
        Some(end) => end.branches.get(number).copied().unwrap_or(branch.state),
        None => branch.state,
    };
    let branches = (0..).zip(&decision.branches).map(|(number, branch)| dtc::BranchStatus {
        branch: number,
        participant: branch.participant.clone(),
        state: state_of(number as usize, branch),
        abort_reason: branch.abort_reason.clone(),
        attempts: 0,
        resolution: resolution(branch.resolved).into(),
        notification_owed: branch.notify && end.is_none(),
    });
    let branches: Vec<dtc::BranchStatus> = branches.collect();
    let states = branches.iter().filter_map(|branch| core_branch_state(branch.state()));
    // The branches of an interactive one are not in its begin record.
    let of_all = match decision.lost {
        true => Outcome::HeuristicHazard,
        false => Outcome::of(decision.commit, states),
    };
    let state = match (decision.commit, end.is_some() || decision.ended_at_us.is_some()) {
        (true, true) => dtc::TransactionState::Committed,
        (true, false) => dtc::TransactionState::Committing,
        (false, true) => dtc::TransactionState::Aborted,
        (false, false) => dtc::TransactionState::Aborting,
    };
    dtc::Transaction {
        request_key: decision.request_key.clone(),
        state: state.into(),
        outcome: outcome(of_all).into(),
        committed: decision.commit,
        branches,
        abort_reason: decision.abort_reason.clone(),
        begun_at: Some(timestamp(decision.begun_at_us)),
        decided_at: Some(timestamp(decision.decided_at_us)),
        retry_of: retry_of(&decision.retry_of),
        interventions: {
            let since = end.into_iter().flat_map(|end| &end.interventions);
            decision.interventions.iter().chain(since).map(intervention).collect()
        },
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_backup_holds_as_begun_is_a_hazard_with_no_branches_too() {
        let lost = journal::Decision { lost: true, ..journal::Decision::default() };
        assert_eq!(decided(&lost, None).outcome(), dtc::Outcome::HeuristicHazard);
    }
}
