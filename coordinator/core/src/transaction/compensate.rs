//! Compensation: where its client asked for that, a commit that keeps failing is
//! undone everywhere.
//!
//! Invariants:
//! - The decision is compensated once, by a record with number 2; no branch is
//!   notified before that is durable, and none is ordered to commit after it was asked for.
//! - A commit that may be compensated is visible to no client before its end.

use alloc::{format, sync::Arc};

use super::{Context, Phase, RecordPurpose, Transaction};
use crate::{BranchState, CommitPolicy, ParticipantId, Reason, TrailKind};

impl Transaction {
    /// Failed attempts of commit at a branch after which it is compensated; none
    /// where nothing does.
    pub(super) fn attempts_to_commit(&self) -> Option<u32> {
        match self.options.commit_policy {
            CommitPolicy::Retry => None,
            CommitPolicy::Compensate { after } => Some(after.max(1)),
        }
    }

    /// Whether its decision to commit can't be compensated, by a crash either.
    pub(super) fn commit_stands(&self) -> bool {
        self.attempts_to_commit().is_none() || self.end.is_durable
    }

    /// Whether its decision to commit was compensated, or is about to be.
    pub(super) fn is_compensating(&self) -> bool {
        self.decision.number > 1
    }

    /// A participant that is known not to be able to undo a commit, where that may
    /// be asked for.
    pub(super) fn known_not_to_compensate(&self, context: &mut Context) -> Option<ParticipantId> {
        self.attempts_to_commit()?;
        let cannot = |it: &ParticipantId| context.participants.get(*it).compensates == Some(false);
        self.branches.iter().map(|branch| branch.participant).find(cannot)
    }

    /// The same of those that voted to commit, each of which has to be able to.
    pub(super) fn not_known_to_compensate(&self, context: &mut Context) -> Option<ParticipantId> {
        self.attempts_to_commit()?;
        let prepared = self.branches.iter().filter(|it| it.state == BranchState::Prepared);
        let cannot = |it: &ParticipantId| context.participants.get(*it).compensates != Some(true);
        prepared.map(|branch| branch.participant).find(cannot)
    }

    pub(super) fn abort_uncompensated(&mut self, it: ParticipantId, context: &mut Context) {
        let message = "the participant does not declare that it can undo a commit, which the \
                       commit policy 'compensate' asks of all";
        let (code, message) = ("CANNOT_COMPENSATE".into(), message.into());
        self.abort(Arc::new(Reason { code, message, participant: Some(it) }), context);
    }

    /// Whether a branch has had all the attempts of commit that its client allows.
    pub(super) fn has_failed_to_commit(&self, index: usize) -> bool {
        let branch = &self.branches[index];
        let committing = (self.state, branch.state) == (Phase::Committing, BranchState::Committing);
        // At a start nobody is linked yet; that is no attempt.
        let none = u32::from(self.recovered);
        let limit = self.attempts_to_commit().filter(|_| committing && !self.is_forced());
        limit.is_some_and(|limit| branch.attempts >= limit.saturating_add(none))
    }

    /// Whether somebody resolves or has resolved a branch of it.
    pub(super) fn is_forced(&self) -> bool {
        !self.resolving.is_empty() || self.branches.iter().any(|it| it.resolved.is_some())
    }

    /// The record that compensates the decision is asked for.
    pub(super) fn compensate(&mut self, index: usize, context: &mut Context) {
        debug_assert_eq!((self.state, self.decision.number), (Phase::Committing, 1));
        self.state = Phase::Compensating;
        self.decision.commit = false;
        self.decision.number = 2;
        self.decision.at = Some(context.now);
        self.decision.is_visible = false;
        self.stalled = false;
        let (participant, attempts) =
            (self.branches[index].participant, self.branches[index].attempts);
        let message = format!(
            "branch {index} did not commit in {attempts} attempts; the commits of the others are undone"
        );
        let (code, participant) = ("COMMIT_FAILED".into(), Some(participant));
        self.decision.reason = Some(Arc::new(Reason { code, message, participant }));
        for branch in &mut self.branches {
            use BranchState::{Committed, Committing, Heuristic};
            if matches!(branch.state, Committing | Committed | Heuristic) {
                branch.become_state(BranchState::RollingBack);
            }
        }
        let record = self.decision_record(context);
        self.append(record, true, RecordPurpose::CompensationDecided, context);
    }

    /// It is compensated, durably: now, and not before, branches are notified.
    pub(super) fn become_compensating(&mut self, context: &mut Context) {
        debug_assert_eq!(self.state, Phase::Compensating);
        self.state = Phase::Aborting;
        self.decision.is_visible = true;
        context.actions.append(&mut self.trail.withheld);
        self.note(context, TrailKind::CompensationDecided, None);
        self.trail.recorded = self.trail.events.len();
        self.send_decision(context);
    }
}
